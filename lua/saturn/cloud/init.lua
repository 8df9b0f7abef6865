--- The control plane: `connect` gives a connection, which gives clusters.

local connection = require "saturn.cloud.connection"
local errors = require "saturn.error"
local settings = require "saturn.cloud.settings"

local M = {}

local LOCAL_POLL_MIN, LOCAL_POLL_MAX = 0.01, 0.5

-- Misuse that a call inside found is told at the line of the public function's caller.
local function passed_on(ok, result)
  if ok then return result end
  if type(result) == "string" then error((result:gsub("^[^:\n]+:%d+: ", "")), 3) end
  error(result, 0)
end

local function connect_local(options)
  local service = require("saturn.local").start(options)
  local resolved = settings.resolve {
    base_url = service.base_url, token = service.token, external = true, proxy = "",
    poll_min = LOCAL_POLL_MIN, poll_max = LOCAL_POLL_MAX,
  }
  resolved.credentials.origin = "the embedded service"
  return connection.new(resolved, service)
end

--- Connects to a Saturn installation, or with "local" to the service that comes with the library, which it starts.
--- Makes no request.
---@param options table|string? options, a base URL, or "local"
---@param local_options table? for "local": python and what else `saturn.local` takes
---@return saturn.Connection
function M.connect(options, local_options)
  if options == "local" then return (passed_on(pcall(connect_local, local_options))) end
  if type(options) == "string" then options = { base_url = options } end
  return connection.new(settings.resolve(settings.check(options, 2)))
end

local LOCAL_KNOWN = { n_workers = "integer", threads_per_worker = "integer", memory_limit = "string|integer",
  python = "string", on_status = "callable", wait_timeout = "number" }

--- A Dask cluster on this machine, which ends with the object.
---@param options table? n_workers, threads_per_worker, memory_limit, python, on_status, wait_timeout
---@return saturn.Cluster
function M.local_cluster(options)
  options = errors.options(options, LOCAL_KNOWN)
  local conn = connect_local { python = options.python }
  local ok, cluster = pcall(conn.cluster, conn, {
    n_workers = options.n_workers, nthreads = options.threads_per_worker, memory_limit = options.memory_limit,
    on_status = options.on_status, wait_timeout = options.wait_timeout,
  })
  if not ok then conn:close() end
  passed_on(ok, cluster)
  cluster.owns_connection = true
  return cluster
end

return M
