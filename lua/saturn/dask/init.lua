--- From a target (a cluster, an address, a scheduler file, nothing) to a client.

local client = require "saturn.dask.client"
local errors = require "saturn.error"
local loop = require "saturn.loop"

local M = {}

local NO_SUCH_FILE, LOOK_AGAIN, PATIENCE = 2, 0.05, 30

-- The address in a scheduler file. Nothing, and why, while it is not there or half written.
local function read_scheduler_file(path)
  local file, why, code = io.open(path, "rb")
  if not file then
    why = ("the scheduler file cannot be read: %s"):format(why)
    if code ~= NO_SUCH_FILE then errors.raise("connect", why) end
    return nil, why
  end
  local text = file:read("a")
  file:close()
  local data = require("cjson.safe").decode(text)
  why = ("'%s' is not a scheduler file: it has no address in it"):format(path)
  if data == nil then return nil, why end
  if type(data) ~= "table" or type(data.address) ~= "string" then errors.raise("connect", why) end
  return data.address
end

-- A scheduler writes its file when it listens, so the file is waited for as the scheduler is.
local function await_scheduler_file(path, options)
  local patience = type(options) == "table" and tonumber(options.timeout) or PATIENCE
  local deadline = loop.now() + patience
  while true do
    local address, why = read_scheduler_file(path)
    if address then return address end
    if loop.now() >= deadline then errors.raise("connect", why) end
    loop.sleep(LOOK_AGAIN)
  end
end

-- Without a target: the address in the environment, else a cluster of this machine that the client owns.
local function default_client(options)
  local address = os.getenv("DASK_SCHEDULER_ADDRESS")
  if address and address ~= "" then return client.new(address, options) end
  local cluster = require("saturn.cloud").local_cluster()
  local ok, made = pcall(cluster.client, cluster, options)
  if not ok then
    cluster:close()
    -- M.client ends in a call of this, so that the line one up is that of its own caller
    error(made, type(made) == "string" and 2 or 0)
  end
  made.on_close = function() cluster:close() end
  return made
end

-- What Dask's configuration says stands in for what is not given.
local function with_config(target, options)
  if type(options) ~= "table" or not options.config then return target, options end
  local config = options.config == true and require("saturn.dask.config").load() or options.config
  local merged = {}
  for name, value in pairs(config.options) do merged[name] = value end
  for name, value in pairs(options) do merged[name] = value end
  merged.config = nil
  if target == nil then target = config.address end
  return target, merged
end

--- Makes a client.
---@param target any a Cluster, "tcp://host:8786", "tls://host:8786", {scheduler_file=path} (a file that is not
--- there yet is waited for), or nil
---@param options table? timeout, name, direct, tls, limits, proxy, config (true: Dask's own configuration, or what
--- saturn.config.load gave)
---@return saturn.Client
function M.client(target, options)
  target, options = with_config(target, options)
  if target == nil then return default_client(options) end
  if type(target) == "string" then return client.new(target, options) end
  if type(target) == "table" then
    if type(target.client) == "function" then return target:client(options) end
    if type(target.scheduler_file) == "string" then
      local address = await_scheduler_file(target.scheduler_file, options)
      return client.new(address, options)
    end
    if type(target.scheduler_address) == "string" then return client.new(target.scheduler_address, options) end
  end
  errors.misuse(2, "saturn.client needs a cluster, an address like 'tcp://host:8786', {scheduler_file=path} or nil; "
    .. "got %s", type(target))
end

return M
