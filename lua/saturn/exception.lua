--- What str() gives for a Python exception. Most give their arguments; some classes say it in words of their own, which
--- are here too. Those of Dask's classes are shorter.

local core = require "saturn.core"
local py = require "saturn.py"

local M = {}

local null = core.null

-- A part of str()'s text: an exception in it reads as its own text, a container as Python prints it.
local function str(value, depth)
  if type(value) == "string" then return core.pickle.is_utf8(value) and value or py.repr(py.bytes(value)) end
  local kind = py.kind(value)
  if kind == "exception" then return M.text(value, depth + 1) end
  -- tostring of bytes gives the bytes themselves
  if not kind or kind == "bytes" or kind == "bytearray" then return py.repr(value) end
  return tostring(value)
end

local function seconds(value)
  return type(value) == "number" and ("%g s"):format(value) or py.repr(value)
end

local function is_integer(value) return math.type(value) == "integer" end

-- [Errno 2] No such file or directory: 'a' -> 'b'. The names of files come among the arguments, or as attributes.
local function os_error(args, attributes)
  local code, text = args[1], args[2]
  if not is_integer(code) or type(text) ~= "string" then return nil end
  local first, second = attributes.filename, attributes.filename2
  if first == nil then first, second = args[3], args[5] end
  local message = ("[Errno %d] %s"):format(code, text)
  if first == nil or first == null then return message end
  message = message .. ": " .. py.repr(first)
  return second ~= nil and second ~= null and message .. " -> " .. py.repr(second) or message
end

local function bytes_of(value) return type(value) == "table" and rawget(value, "value") or value end

-- How an encoder names a character it has no bytes for.
local function escaped(text, at)
  local offset = utf8.len(text) and utf8.offset(text, at + 1)
  if not offset or offset > #text then return nil end
  local code = utf8.codepoint(text, offset)
  return (code <= 0xff and "\\x%02x" or code <= 0xffff and "\\u%04x" or "\\U%08x"):format(code)
end

-- 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte
local function codec_error(what)
  return function(args)
    local codec, object, first, after, reason = args[1], bytes_of(args[2]), args[3], args[4], args[5]
    if type(object) ~= "string" or not (is_integer(first) and is_integer(after)) then return nil end
    local one, place = after == first + 1, nil
    if one and what == "decode" then
      local byte = object:byte(first + 1)
      place = byte and ("byte 0x%02x in position %d"):format(byte, first)
    elseif one then
      local character = escaped(object, first)
      place = character and ("character '%s' in position %d"):format(character, first)
    end
    place = place or ("%s in position %d-%d"):format(what == "decode" and "bytes" or "characters", first, after - 1)
    return ("'%s' codec can't %s %s: %s"):format(str(codec, 0), what, place, str(reason, 0))
  end
end

local function syntax_error(args)
  local place = args[2]
  if type(args[1]) ~= "string" or type(place) ~= "table" then return nil end
  local file, line = place[1], place[2]
  local name = type(file) == "string" and file:match "[^/]*$"
  local at = is_integer(line) and ("line %d"):format(line)
  if not (name or at) then return args[1] end
  return ("%s (%s)"):format(args[1], name and at and name .. ", " .. at or name or at)
end

local function json_error(args)
  local text, document, at = args[1], args[2], args[3]
  if type(document) ~= "string" or not is_integer(at) then return nil end
  local offset = utf8.len(document) and utf8.offset(document, at + 1) or at + 1
  local before = document:sub(1, offset - 1)
  local _, lines = before:gsub("\n", "")
  local last = before:match "[^\n]*$"
  return ("%s: line %d column %d (char %d)"):format(str(text, 0), lines + 1, (utf8.len(last) or #last) + 1, at)
end

local function group(args)
  local count = type(args[2]) == "table" and #args[2]
  if type(args[1]) ~= "string" or not count then return nil end
  return ("%s (%d sub-exception%s)"):format(args[1], count, count == 1 and "" or "s")
end

local function process_error(args)
  local status, command = args[1], args[2]
  if not is_integer(status) or command == nil then return nil end
  command = str(command, 0)
  if status < 0 then return ("Command '%s' died with signal %d."):format(command, -status) end
  return ("Command '%s' returned non-zero exit status %d."):format(command, status)
end

local function axis_error(args)
  local axis, dimensions, prefix = args[1], args[2], args[3]
  if not (is_integer(axis) and is_integer(dimensions)) then return nil end
  local text = ("axis %d is out of bounds for array of dimension %d"):format(axis, dimensions)
  return type(prefix) == "string" and prefix .. ": " .. text or text
end

-- The address in the state of a scheduler's WorkerState: a dict, or the second of (None, dict).
local function address_of(worker)
  local state = py.kind(worker) == "object" and rawget(worker, "state")
  if type(state) ~= "table" then return nil end
  if type(state[2]) == "table" then state = state[2] end
  return state.address
end

local function killed(args)
  local key, worker, allowed = args[1], args[2], args[3]
  if not is_integer(allowed) then return nil end
  local last = address_of(worker)
  return ("%d workers died while they ran the task %s%s. Their logs may say why; "
    .. "see https://distributed.dask.org/en/stable/killed.html"):format(allowed + 1, py.repr(key),
    type(last) == "string" and ", the last of them at " .. last or "")
end

local function no_valid_worker(args)
  if args[5] == nil then return nil end
  return ("within %s no worker came where the task %s may run (hosts %s, workers %s, resources %s)"):format(
    seconds(args[5]), py.repr(args[1]), py.repr(args[2]), py.repr(args[3]), py.repr(args[4]))
end

local function no_worker(args)
  if args[2] == nil then return nil end
  return ("within %s there was no worker to run the task %s"):format(seconds(args[2]), py.repr(args[1]))
end

-- By class; builtins without their module.
local TEXTS = {
  KeyError = function(args) return #args == 1 and py.repr(args[1]) or nil end,
  UnicodeDecodeError = codec_error "decode", UnicodeEncodeError = codec_error "encode",
  SyntaxError = syntax_error, IndentationError = syntax_error, TabError = syntax_error,
  ExceptionGroup = group, BaseExceptionGroup = group,
  ["json.decoder.JSONDecodeError"] = json_error,
  ["subprocess.CalledProcessError"] = process_error,
  ["urllib.error.URLError"] = function(args) return ("<urlopen error %s>"):format(str(args[1], 0)) end,
  ["numpy.AxisError"] = axis_error, ["numpy.exceptions.AxisError"] = axis_error,
  ["distributed.scheduler.KilledWorker"] = killed,
  ["distributed.scheduler.NoValidWorkerError"] = no_valid_worker,
  ["distributed.scheduler.NoWorkerError"] = no_worker,
}

for name in ([[
  OSError BlockingIOError BrokenPipeError ChildProcessError ConnectionAbortedError ConnectionError
  ConnectionRefusedError ConnectionResetError FileExistsError FileNotFoundError InterruptedError IsADirectoryError
  NotADirectoryError PermissionError ProcessLookupError TimeoutError socket.gaierror socket.herror
]]):gmatch "%S+" do
  TEXTS[name] = os_error
end

-- Exceptions in exceptions: as deep as a program makes them.
local DEEPEST = 20

--- What str() gives for the exception: "" when it has no arguments.
---@param exception table a value of py.kind "exception" or "object"
---@return string
function M.text(exception, depth)
  depth = depth or 0
  local args = rawget(exception, "args")
  if type(args) ~= "table" or #args == 0 then return "" end
  local module, name = rawget(exception, "module"), rawget(exception, "name")
  local attributes = rawget(exception, "attributes")
  attributes = type(attributes) == "table" and attributes or {}
  local words = TEXTS[module == "builtins" and name or ("%s.%s"):format(module, name)]
    or is_integer(attributes.errno) and os_error
  local text = words and words(args, attributes)
  if text then return text end
  if #args > 1 or depth > DEEPEST then return py.repr(py.tuple(table.move(args, 1, #args, 1, {}))) end
  return str(args[1], depth)
end

return M
