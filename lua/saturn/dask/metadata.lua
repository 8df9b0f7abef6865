--- Metadata: small data on the scheduler under a path of names.

local coordination = require "saturn.dask.coordination"
local core = require "saturn.core"
local errors = require "saturn.error"

local M = {}

local function check_path(path)
  if type(path) == "string" then return { path } end
  if type(path) ~= "table" or #path == 0 then
    errors.misuse(3, "metadata is under a name or a list of names; got %s", tostring(path))
  end
  return path
end

--- Stores data under a path; what is missing on the way is made.
---@param client saturn.Client
---@param path string|table "a", or {"a", "b"} for b inside a
---@param data any plain data: numbers, strings, booleans and tables of them
function M.set_metadata(client, path, data)
  path = check_path(path)
  if data == nil then data = core.null end
  coordination.ask(coordination.client(client), "set_metadata", { keys = path, value = data })
end

--- What is stored under a path.
---@param client saturn.Client
---@param path string|table
---@param ... any what to return when there is nothing; without it that is an error
---@return any
function M.get_metadata(client, path, ...)
  path = check_path(path)
  local ok, got = pcall(coordination.ask, coordination.client(client), "get_metadata", { keys = path }, true)
  if ok then
    if got == core.null then return nil end
    return got
  end
  if not errors.is_error(got) or got.type ~= "KeyError" then error(got, 0) end
  if select("#", ...) > 0 then return (...) end
  local names = {}
  for i, name in ipairs(path) do names[i] = tostring(name) end
  errors.raise("value", ("there is no metadata under '%s': give a default as the second argument, or set it first")
    :format(table.concat(names, ".")), { type = "KeyError" })
end

return M
