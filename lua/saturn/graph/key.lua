--- Keys of tasks as a user writes them: a string, an integer, or a saturn.py.tuple of those (nested).

local core = require "saturn.core"
local errors = require "saturn.error"
local py = require "saturn.py"

local M = {}

local function is_part(value, depth)
  if type(value) == "string" then return core.pickle.is_utf8(value) end
  if type(value) == "number" then return value == value end
  if py.kind(value) ~= "tuple" or depth > 20 then return false end
  for _, item in ipairs(value) do
    if not is_part(item, depth + 1) then return false end
  end
  return #value > 0
end

--- Whether the value can name a task.
---@param value any
---@return boolean
function M.is_key(value)
  if type(value) == "number" then return math.type(value) == "integer" end
  return value ~= "" and is_part(value, 0)
end

--- Raises a misuse error unless the value can name a task.
function M.check(value, level)
  if not M.is_key(value) then
    errors.misuse(level + 1, "a key is a string, an integer or a saturn.py.tuple of strings and numbers; got %s",
      type(value) == "table" and (py.kind(value) and "py." .. py.kind(value) or "a table") or type(value))
  end
  return value
end

--- What is the same for equal keys, and can be looked up in a table: of a tuple its bytes, which are no text.
---@return string|integer
function M.id(value)
  return type(value) == "table" and core.wire.encode(value) or value
end

--- What future:id() gives for a task of this key, as replies have it.
---@return string
function M.future_id(value)
  return type(value) == "string" and value or core.wire.encode(value)
end

--- The word by which dashboards group tasks of this key.
---@return string
function M.prefix(value)
  while type(value) == "table" do value = value[1] end
  if type(value) ~= "string" then return "task" end
  local word = value:match("^[^%s()',]+")
  return word or "task"
end

local base, count = nil, 0

--- A key that no other client and no other call has.
---@param prefix string
---@return string
function M.unique(prefix)
  base = base or core.session.random(12)
  count = count + 1
  return ("%s-%s%08x"):format(prefix, base, count)
end

--- The key that equal calls have in common.
---@param prefix string
---@param callable table module, name, source
---@return string
function M.content(prefix, callable, args, nargs, kwargs)
  local digest = errors.check(core.session.digest(callable.module, callable.name, callable.source, args, nargs, kwargs))
  return prefix .. "-" .. digest
end

return M
