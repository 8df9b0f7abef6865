--- saturn: Saturn Cloud and Dask clusters from Lua.
--
-- The public face, and nothing else. Everything is loaded when it is first used, so that `require "saturn"` costs
-- little; nothing is read from the environment and nothing is started before a call asks for it.

local M = { _VERSION = "0.1.0" }

local core = require "saturn.core"

--- None inside a container.
M.null = core.null

-- name → module and the field of it; loaded on first use
local PARTS = {
  py = { "saturn.py" },
  array = { "saturn.array" },
  loop = { "saturn.loop" },
  error = { "saturn.error" },
  connect = { "saturn.cloud", "connect" },
  local_cluster = { "saturn.cloud", "local_cluster" },
  client = { "saturn.dask", "client" },
  wait = { "saturn.dask.waiting", "wait" },
  as_completed = { "saturn.dask.waiting", "as_completed" },
  progress = { "saturn.dask.progress", "progress" },
  plugins = { "saturn.dask.plugins" },
  config = { "saturn.dask.config" },
  fire_and_forget = { "saturn.dask.control", "fire_and_forget" },
  delayed = { "saturn.graph", "delayed" },
  task = { "saturn.graph", "task" },
  key = { "saturn.graph", "key" },
}

return setmetatable(M, {
  __index = function(self, name)
    local part = PARTS[name]
    if not part then return nil end
    local value = require(part[1])
    if part[2] then value = value[part[2]] end
    rawset(self, name, value)
    return value
  end,
})
