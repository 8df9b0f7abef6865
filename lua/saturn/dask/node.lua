--- What a task calls and with what: checks the function and splits positional from keyword arguments.

local errors = require "saturn.error"
local py = require "saturn.py"

local M = {}

---@class saturn.Node
---@field module string?
---@field name string
---@field source string?
---@field prefix string the leading part of the task's key
---@field args table
---@field nargs integer
---@field kwargs table?

-- The part of a key before its id groups tasks in dashboards: letters, digits and underscores of the function's name.
local function prefix_of(name)
  local last = name:match("([^.]+)$") or name
  last = last:gsub("[^%w_]", "")
  return last ~= "" and last or "task"
end

-- Names that were looked at before; what is not in use goes away.
local resolved = setmetatable({}, { __mode = "v" })

--- Resolves a function given by name, as saturn.py.ref or as saturn.py.fn.
---@return table callable module, name, source, prefix; it may be shared, so do not change it
function M.callable(fn, level)
  if resolved[fn] then return resolved[fn] end
  if type(fn) == "function" then
    errors.misuse(level + 1, "a Lua function cannot run on a Dask worker: name a Python function (\"module.name\") "
      .. "or give Python source with saturn.py.fn[[...]]")
  end
  local ref = py.callable(fn)
  if not ref then
    errors.misuse(level + 1, "expected a Python function: its name as a string, saturn.py.ref or saturn.py.fn[[...]]; "
      .. "got %s", type(fn) == "table" and tostring(fn) or type(fn))
  end
  local callable = {
    module = ref.module, name = ref.name, source = ref.source, prefix = prefix_of(ref.label or ref.name),
  }
  if type(fn) == "string" then resolved[fn] = callable end
  return callable
end

--- Splits a trailing saturn.py.kw{...} off a packed list of arguments.
---@return table args, integer nargs, table? kwargs
function M.arguments(packed)
  local last = packed[packed.n]
  if packed.n > 0 and py.is_kw(last) then
    local nargs = packed.n - 1
    return packed, nargs, next(last) ~= nil and last or nil
  end
  return packed, packed.n, nil
end

return M
