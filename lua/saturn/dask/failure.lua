--- Python exceptions as error objects.

local core = require "saturn.core"
local errors = require "saturn.error"

local M = {}

-- The bytes of a pickle: they come as they are, or as a serialized value that holds them.
local function bytes_of(part)
  if type(part) == "userdata" then return (part:value()) end
  return part
end

local function load(part)
  local bytes = part and bytes_of(part)
  if type(bytes) ~= "string" then return bytes end
  return (core.pickle.loads(bytes))
end

-- Modules that are not part of a class's name as users know it: "?" is of a class that came by its source.
local UNNAMED = { builtins = true, __saturn__ = true, ["?"] = true }

local function short_name(exception)
  local module = exception.module
  return module and not UNNAMED[module] and module .. "." .. exception.name or exception.name
end

local function message_of(exception)
  local args = exception.args or {}
  if #args == 0 then return exception.name end
  local text = {}
  for i, value in ipairs(args) do text[i] = tostring(value) end
  local first = #args == 1 and text[1] or "(" .. table.concat(text, ", ") .. ")"
  return ("%s: %s"):format(exception.name, first)
end

local SOURCE = "<saturn>"

-- A function from source is started by a constant expression, whose frames say nothing to the reader.
local function first_frame(traceback)
  for i, frame in ipairs(traceback) do
    if frame.file == SOURCE then return i end
    if frame.file ~= "<string>" then return 1 end
  end
  return 1
end

local function format_traceback(traceback)
  if type(traceback) ~= "table" then return nil end
  local lines = {}
  for i = first_frame(traceback), #traceback do
    local frame = traceback[i]
    lines[#lines + 1] = ('  File "%s", line %d, in %s'):format(frame.file or "?", frame.line or 0, frame.name or "?")
  end
  return #lines > 0 and table.concat(lines, "\n") or nil
end

local function build(exception, traceback, key)
  if type(exception) ~= "table" or not exception.name then
    return errors.new("task", "the task failed with an exception that cannot be read", { key = key })
  end
  local cause = exception.cause and build(exception.cause, exception.cause.traceback, key)
  return errors.new("task", message_of(exception), {
    key = key,
    type = short_name(exception),
    args = exception.args,
    traceback = format_traceback(traceback or exception.traceback),
    cause = cause,
  })
end

--- The error object of a failed Future.
---@return saturn.Error
function M.of_future(future)
  local exception, traceback = future:failure()
  return build(load(exception), load(traceback), future.key)
end

--- The error object of an exception and a traceback as a reply carries them.
---@return saturn.Error
function M.of_reply(exception, traceback, key)
  return build(load(exception), load(traceback), key)
end

return M
