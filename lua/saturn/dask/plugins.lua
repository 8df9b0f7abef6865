--- Dask's own plugins, for client:register_plugin.

local errors = require "saturn.error"
local ops = require "saturn.dask.ops"
local py = require "saturn.py"

local M = {}

---@class saturn.Plugin
---@field name string
---@field object table the Python object that is made there
local Plugin = {}
Plugin.__index = Plugin
Plugin.__name = "saturn.plugin"

function Plugin:__tostring()
  return ("<saturn.plugin: %s>"):format(self.name)
end

M.Plugin = Plugin

local function names_of(packages)
  if type(packages) == "string" then packages = { packages } end
  for i, package in ipairs(packages or {}) do
    if type(package) ~= "string" then errors.misuse(3, "package number %d is a %s, not a name", i, type(package)) end
  end
  if not packages or #packages == 0 then errors.misuse(3, "give the packages to install: {packages = {\"name\"}}") end
  return py.list(table.move(packages, 1, #packages, 1, {}))
end

local function install(class, packages, options, restart)
  local args = { packages, py.list(options or {}), restart or false }
  return setmetatable({
    name = class,
    object = py.object("distributed.diagnostics.plugin." .. class, args),
    on = ops.install_plugin_on,
  }, Plugin)
end

--- Installs Python packages with pip on all workers, also on those that come later.
---@param options table packages (names, with versions as pip takes them), pip_options (a list of arguments),
--- restart_workers (true: restart the workers under nannies after it)
---@return saturn.Plugin
function M.PipInstall(options)
  options = errors.options(options, {
    packages = "string|table", pip_options = "table", restart_workers = "boolean",
  })
  return install("PipInstall", names_of(options.packages), options.pip_options, options.restart_workers)
end

--- The same with conda.
---@param options table packages, conda_options, restart_workers
---@return saturn.Plugin
function M.CondaInstall(options)
  options = errors.options(options, {
    packages = "string|table", conda_options = "table", restart_workers = "boolean",
  })
  return install("CondaInstall", names_of(options.packages), options.conda_options, options.restart_workers)
end

--- Sets environment variables for all workers under nannies, which are restarted for it, and for those that come later.
---@param variables table<string, string|number|boolean>
---@return saturn.Plugin
function M.Environ(variables)
  if type(variables) ~= "table" then errors.misuse(2, "Environ needs a table of variables: {NAME = \"value\"}") end
  local environ = {}
  for name, value in pairs(variables) do
    if type(name) ~= "string" then errors.misuse(2, "the name of a variable must be a string, not a %s", type(name)) end
    environ[name] = tostring(value)
  end
  return setmetatable({
    name = "Environ",
    object = py.object("distributed.diagnostics.plugin.Environ", { py.dict(environ) }),
    on = function() return "nanny" end,
  }, Plugin)
end

return M
