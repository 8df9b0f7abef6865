--- Python exceptions as error objects.

local core = require "saturn.core"
local errors = require "saturn.error"
local text_of = require("saturn.exception").text

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
  local module = type(exception.module) == "string" and exception.module
  return module and not UNNAMED[module] and module .. "." .. exception.name or exception.name
end

local function message_of(exception)
  local words = text_of(exception)
  return words == "" and exception.name or ("%s: %s"):format(exception.name, words)
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

local function frames_of(traceback)
  if type(traceback) ~= "table" then return {} end
  local frames = {}
  for _, frame in ipairs(traceback) do
    if type(frame) == "table" then frames[#frames + 1] = frame end
  end
  return frames
end

local function format_traceback(traceback)
  local frames, lines = frames_of(traceback), {}
  for i = first_frame(frames), #frames do
    local frame = frames[i]
    lines[#lines + 1] = ('  File "%s", line %s, in %s'):format(frame.file or "?", frame.line or "?", frame.name or "?")
  end
  return #lines > 0 and table.concat(lines, "\n") or nil
end

-- What add_note() added.
local function notes_of(exception)
  if type(exception.notes) ~= "table" then return nil end
  local notes = {}
  for i, note in ipairs(exception.notes) do notes[i] = tostring(note) end
  return notes[1] and notes
end

-- Causes of causes: a chain is as long as the program makes it.
local LONGEST_CHAIN = 50

local function build(exception, traceback, key, depth)
  if type(exception) ~= "table" or type(exception.name) ~= "string" then
    return errors.new("task", "the task failed with an exception that cannot be read", { key = key })
  end
  local function earlier(other)
    if type(other) ~= "table" or depth >= LONGEST_CHAIN then return nil end
    return build(other, other.traceback, key, depth + 1)
  end
  local cause = earlier(exception.cause)
  return errors.new("task", message_of(exception), {
    key = key,
    type = short_name(exception),
    args = exception.args,
    traceback = format_traceback(traceback or exception.traceback),
    notes = notes_of(exception),
    cause = cause,
    context = not cause and not exception.suppress_context and earlier(exception.context) or nil,
  })
end

--- The error object of a failed Future.
---@return saturn.Error
function M.of_future(future)
  local exception, traceback = future:failure()
  return build(load(exception), load(traceback), future.key, 1)
end

--- The error object of an exception and a traceback as a reply carries them.
---@return saturn.Error
function M.of_reply(exception, traceback, key)
  return build(load(exception), load(traceback), key, 1)
end

return M
