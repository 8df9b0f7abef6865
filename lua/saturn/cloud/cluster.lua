--- A Dask cluster that the service runs.

local core = require "saturn.core"
local errors = require "saturn.error"
local files = require "saturn.cloud.files"
local http = require "saturn.cloud.http"
local launch = require "saturn.cloud.launch"
local loop = require "saturn.loop"
local start = require "saturn.cloud.start"

---@class saturn.Cluster
---@field id string
---@field name string
---@field scheduler_address string? of the running cluster, "tls://host:8786"
---@field dashboard_link string?
---@field status_word string? what the service said last
---@field started boolean this object started it (it was not found running)
---@field warnings string[] what the service warned of while it started
local Cluster = {}
Cluster.__index = Cluster
Cluster.__name = "saturn.cluster"

local M = { Cluster = Cluster }

-- A cluster that was just reported ready may be unknown to the proxy for some seconds.
local READY_GRACE = 60
local RECONNECT_WAIT = 3.5

local FIRST_LOOK, LONGEST_LOOK = 0.2, 5
local RENEW_BEFORE = 300

-- Keys and certificates stand beside their cluster, not in it: whoever prints its fields does not find them.
local keys = setmetatable({}, { __mode = "k" })   -- made, not signed yet
local signed = setmetatable({}, { __mode = "k" }) -- { tls =, expires = }

function Cluster:__tostring()
  local state = self.closed and ", closed" or ""
  return ("saturn.cluster %s (%s%s)"):format(self.name, self.scheduler_address or "not running", state)
end

local function connection_of(self)
  if self.closed then errors.raise("closed", ("cluster %s is closed"):format(self.name)) end
  return self.connection
end

local function path_of(self, action)
  return "api/dask_clusters/" .. http.escape(self.id) .. (action and "/" .. action or "")
end

-- A call below this cluster's own path.
local function call(self, method, action, fields)
  local request = { method = method, path = path_of(self, action) }
  for name, value in pairs(fields or {}) do request[name] = value end
  return connection_of(self).http:call(request)
end

local function object(data, what)
  if type(data) ~= "table" then errors.raise("protocol", what .. " is not a JSON object") end
  return data
end

-- ---- what it is --------------------------------------------------------------------------------------------------

--- Asks where the scheduler and the dashboard are, and fills the fields.
---@return saturn.Cluster
function Cluster:refresh()
  local external = self.connection.settings.external
  local info = object(call(self, "GET", "info", { query = external and { is_external = "true" } or nil }),
    "what the service says about the cluster")
  if type(info.scheduler_address) ~= "string" or info.scheduler_address:find("[%s%c]") then
    errors.raise("protocol", ("the service does not say where the scheduler of %s is"):format(self.name))
  end
  self.scheduler_address = info.scheduler_address
  self.dashboard_link = type(info.dashboard_link) == "string" and info.dashboard_link or nil
  return self
end

--- The cluster's record: settings, status, owner, and what else the service tells.
---@return table
function Cluster:describe()
  return object(call(self, "GET"), "the cluster's record")
end

local function try_status(self, action)
  local ok, answer = pcall(call, self, "GET", action)
  if ok then return type(answer) == "table" and answer.status or nil end
  if errors.is_error(answer) and answer.kind == "api" then return nil end
  error(answer, 0)
end

--- One word: "created", "starting", "running", "stopping", "stopped", "closed", "error"; nil when the service does
--- not know. After `close` it is "closed", without asking.
---@return string?
function Cluster:status()
  if self.closed then return "closed" end
  return try_status(self, "status") or try_status(self)
end

local ENDED = { error = true, closed = true, stopped = true }

--- What the scheduler says about itself: a table with `workers`, keyed by address. The addresses in it are the
--- cluster's internal ones.
---@return table
function Cluster:scheduler_info()
  local ok, info = pcall(call, self, "GET", "scheduler_info")
  if ok then return object(info, "what the scheduler says") end
  if not (errors.is_error(info) and info.kind == "api") then error(info, 0) end
  local status = try_status(self)
  if ENDED[status] then
    errors.raise("closed", ("cluster %s is not running: its status is %s. Start it with conn:cluster, or look into "
      .. "cluster:logs()"):format(self.name, status))
  end
  error(info, 0)
end

local function count_workers(info)
  local count = 0
  for _ in pairs(type(info.workers) == "table" and info.workers or {}) do count = count + 1 end
  -- newer schedulers list only some of them and tell the number beside
  return math.max(count, math.type(info.n_workers) == "integer" and info.n_workers or 0)
end

--- Waits until `n` workers have joined the scheduler; gives how many there are. Asks rarely, and more rarely with
--- time.
---@param n integer
---@param timeout number? seconds; nil: without end
---@return integer
function Cluster:wait_for_workers(n, timeout)
  if math.type(n) ~= "integer" or n < 0 then errors.misuse(2, "wait_for_workers: a number of workers is needed") end
  errors.timeout(timeout)
  local deadline = timeout and loop.now() + timeout
  local pause = FIRST_LOOK
  while true do
    local count = count_workers(self:scheduler_info())
    if count >= n then return count end
    local left = deadline and deadline - loop.now() or math.huge
    if left <= 0 then
      errors.raise("timeout", ("%d of %d workers have come after %g seconds: wait longer, or cluster:logs() tells why "
        .. "they do not start"):format(count, n, timeout))
    end
    loop.sleep(math.min(left, pause * (0.75 + http.jitter() / 2)))
    pause = math.min(pause * 1.5, LONGEST_LOOK)
  end
end

-- ---- its size ----------------------------------------------------------------------------------------------------

---@class saturn.ClusterChange
---@field action "scale"|"adapt"
---@field before integer? workers asked for before, where known
---@field n integer? workers asked for now
---@field minimum integer?
---@field maximum integer?
---@field adaptive_off boolean? adaptive scaling was on and is off now; nil: it is off, and may have been on
local Change = {}
Change.__index = Change
Change.__name = "saturn.cluster_change"

local ADAPTIVE = { [true] = "; adaptive scaling was on and is off now", [false] = "" }

function Change:__tostring()
  if self.action == "adapt" then
    return ("scaling adaptively from %d to %d workers"):format(self.minimum, self.maximum)
  end
  local from = self.before and ("from %d "):format(self.before) or ""
  local adaptive = self.adaptive_off == nil and "; adaptive scaling is off" or ADAPTIVE[self.adaptive_off]
  return ("scaled %sto %d worker%s%s"):format(from, self.n, self.n == 1 and "" or "s", adaptive)
end

local function check_number(name, value)
  if not (type(value) == "number" and math.tointeger(value) and value >= 0) then
    errors.misuse(3, "%s must be an integer, 0 or more", name)
  end
  return math.tointeger(value)
end

--- Asks for `n` workers. Adaptive scaling, if it was on, is off afterwards. Gives what changed.
---@param n integer
---@return saturn.ClusterChange
function Cluster:scale(n)
  n = check_number("scale: n", n)
  call(self, "POST", "scale", { json = { n = n } })
  local change = { action = "scale", before = self.n_workers, n = n, adaptive_off = self.adaptive }
  self.n_workers, self.adaptive = n, false
  return setmetatable(change, Change)
end

--- Lets Dask choose the number of workers within these bounds, by the load.
---@param minimum integer
---@param maximum integer
---@return saturn.ClusterChange
function Cluster:adapt(minimum, maximum)
  minimum, maximum = check_number("adapt: minimum", minimum), check_number("adapt: maximum", maximum)
  if minimum > maximum then errors.misuse(2, "adapt: minimum %d is above maximum %d", minimum, maximum) end
  call(self, "POST", "adapt", { json = { minimum = minimum, maximum = maximum } })
  self.n_workers, self.adaptive = nil, true
  return setmetatable({ action = "adapt", minimum = minimum, maximum = maximum }, Change)
end

-- ---- what happened in it -------------------------------------------------------------------------------------------

---@class saturn.ClusterLogs
local Logs = {}
Logs.__index = Logs
Logs.__name = "saturn.cluster_logs"

function Logs:__tostring()
  local parts = {}
  for i, entry in ipairs(self) do
    parts[i] = entry.pod_name and ("== %s ==\n%s"):format(entry.pod_name, entry.text) or entry.text
  end
  return table.concat(parts, "\n")
end

local function log_entry(item)
  if type(item) ~= "table" then return { text = tostring(item) } end
  local text = item.logs or item.log or item.message or item.text or ""
  return { pod_name = item.pod_name, component = item.component, time = item.time or item.timestamp,
    text = tostring(text) }
end

-- Before 2026.02 the logs are one string, from then on a list.
local function read_logs(data)
  local logs = type(data) == "table" and data.logs or data
  if type(logs) == "string" then logs = { logs } end
  local list = setmetatable({}, Logs)
  for i, item in ipairs(type(logs) == "table" and logs or {}) do list[i] = log_entry(item) end
  return list
end

local LOG_OPTIONS = { component = "string", pod_name = "string", cluster = "string" }

--- The logs: a list of `{ pod_name=, component=, text= }`; tostring gives one text.
---@param options table? component = "scheduler" | "worker" | "kubecluster", pod_name =
---@return saturn.ClusterLogs
function Cluster:logs(options)
  options = errors.options(options, LOG_OPTIONS)
  return read_logs(call(self, "GET", "logs", { query = options, scalar = true }))
end

--- Status, errors and how many workers are pending, running and failed.
---@return table
function Cluster:summary()
  return object(call(self, "GET", "runtimesummary"), "the summary")
end

--- One row for each worker pod.
---@return table[]
function Cluster:workers()
  return connection_of(self):pages(path_of(self, "workers/runtimesummary"), "workers")
end

--- What happened to the cluster, oldest first.
---@return table[]
function Cluster:history()
  return connection_of(self):pages(path_of(self, "history"), "history")
end

-- ---- its life ----------------------------------------------------------------------------------------------------

local CYCLE_KNOWN = { wait_timeout = "number", on_status = "callable" }

--- Starts a stopped cluster and waits until it is ready.
---@param options table? wait_timeout, on_status
---@return saturn.Cluster
function Cluster:start(options)
  connection_of(self)
  return launch.by_id(self, start.check(errors.options(options, CYCLE_KNOWN)))
end

--- Stops it and starts it anew.
---@param options table? wait_timeout, on_status
---@return saturn.Cluster
function Cluster:restart(options)
  connection_of(self)
  return launch.restart(self, start.check(errors.options(options, CYCLE_KNOWN)))
end

-- Some servers answer only when the cluster is gone.
local function long_timeout(self)
  return self.connection.settings.timeout or launch.LONG_TIMEOUT
end

--- Shuts the cluster down, keeping it for a later `start`.
function Cluster:stop()
  call(self, "POST", "stop", { body = "", timeout = long_timeout(self) })
  self.scheduler_address, self.dashboard_link, self.started = nil, nil, false
end

--- Recreates the cluster with these settings, and waits until it is ready.
---@param options table? as for conn:cluster
---@return saturn.Cluster
function Cluster:reset(options)
  options = start.check(errors.options(options, start.known))
  start.check_sizes(connection_of(self), options)
  return launch.reset(self, options)
end

local function absent(err)
  return errors.is_error(err) and (err.status == 404 or err.status == 405)
end

-- Today's servers say "stop" where older ones said "close".
local function shut_down(self)
  local ok, err = pcall(call, self, "POST", "close", { body = "", timeout = long_timeout(self) })
  if ok then return end
  if not absent(err) then error(err, 0) end
  local stopped, stop_err = pcall(call, self, "POST", "stop", { body = "", timeout = long_timeout(self) })
  if stopped or (absent(stop_err) and try_status(self) == nil) then return end
  error(stop_err, 0)
end

local function retire(self)
  self.closed = true
  self.started = false
  keys[self], signed[self] = nil, nil
  if self.owns_connection then self.connection:close() end
end

--- Shuts the cluster down, whoever started it. Safe to call twice.
function Cluster:close()
  if self.closed then return end
  if self.connection.closed then return retire(self) end
  -- a service of its own ends with all that it runs
  if not self.owns_connection then shut_down(self) end
  retire(self)
end

-- Whether the end of this object ends the cluster: never one that was found running, unless asked to.
local function ends_with_object(self)
  return self.owns_connection or self.shutdown_on_close == "always" or (self.shutdown_on_close and self.started)
end

local function warn_left_running(self)
  local connection = self.connection
  if not self.started or not connection.settings.external or connection.service then return end
  self.started = false
  connection:warn(("cluster %s goes on running at %s, and is paid for: used from outside it never shuts itself off. "
    .. "cluster:close() ends it, shutdown_on_close=true does so by itself"):format(self.name, connection.settings.host))
end

local function finish(self)
  if self.closed or self.connection.closed then return end
  -- one that never came up, or was stopped
  if not self.started and not self.scheduler_address and not self.owns_connection then return end
  if ends_with_object(self) then return self:close() end
  warn_left_running(self)
end

-- The end of the scope, also by an error: the error that ended it is the one to show.
function Cluster:__close(err)
  local ok, problem = pcall(finish, self)
  if not ok and err == nil then error(problem, 0) end
  if not ok then self.connection:warn(("cluster %s could not be closed: %s"):format(self.name, tostring(problem))) end
end

-- Collection and the normal end of the program. In a coroutine of its own, so that nothing yields out of a finalizer.
function Cluster:__gc()
  local co = coroutine.create(finish)
  local ok, problem = coroutine.resume(co, self)
  if not ok then self.connection:warn(("cluster %s could not be closed: %s"):format(self.name, tostring(problem))) end
end

--- Called when its connection closes.
function M.finish(cluster)
  finish(cluster)
end

-- ---- a client of it ----------------------------------------------------------------------------------------------

local function check_chain(self, chain, count)
  if count < 2 then
    errors.raise("tls", ("the service signed the key with %d certificate%s where the client's and its authority's are "
      .. "needed: ask the administrator of %s to look at the cluster's certificate authority"):format(count,
      count == 1 and "" or "s", self.connection.settings.host))
  end
  if not chain[1].matches then
    errors.raise("tls", "the certificate that the service signed is not for the key that was sent")
  end
  if chain[1].not_after < os.time() then
    errors.raise("tls", "the certificate that the service signed has expired already: compare this machine's clock "
      .. "with the service's")
  end
end

--- Makes the key that the next `credentials` has signed. It takes some tenths of a second, which cost nothing while
--- the cluster starts.
function Cluster:prepare_key()
  if not keys[self] and not signed[self] then keys[self] = errors.check(core.keypair.new()) end
end

-- A key and its certificates. The key never leaves this process.
local function sign(self)
  self:prepare_key()
  local pair <close> = keys[self]
  keys[self] = nil
  local request = errors.check(pair:request("Dask Client " .. self.id))
  local text = call(self, "POST", "csr", { body = request, raw = true })
  local chain, kind, message = pair:chain(text)
  if not chain then
    errors.raise(kind, ("the service's answer to the certificate request cannot be used: %s"):format(message))
  end
  local count = kind -- chain gives the list and how many certificates there were
  check_chain(self, chain, count)
  return { key = errors.check(pair:pem()), cert = chain[1].pem, ca = chain[2].pem }, chain[1].not_after
end

--- What a TLS connection to the scheduler needs, as PEM texts: `{ ca=, cert=, key= }`; nil for a scheduler without
--- TLS. Signed by the service at the first call and kept until shortly before it expires. Keep the key secret.
---@return table?
function Cluster:credentials()
  if not (self.scheduler_address or ""):find("^tls://") then return nil end
  local kept = signed[self]
  if not kept or kept.expires < os.time() + RENEW_BEFORE then
    self:forget_credentials()
    local tls, expires = sign(self)
    kept = { tls = tls, expires = expires }
    signed[self] = kept
  end
  return kept.tls
end

--- Makes the next `credentials` or `client` have a new key signed.
function Cluster:forget_credentials()
  signed[self] = nil
end

local function client_options(self, options)
  local copy, tls = {}, {}
  for name, value in pairs(options or {}) do copy[name] = value end
  local credentials = self:credentials()
  -- what is no table is refused with the other options
  if not credentials or (copy.tls ~= nil and type(copy.tls) ~= "table") then return copy end
  for name, value in pairs(credentials) do tls[name] = value end
  for name, value in pairs(copy.tls or {}) do tls[name] = value end
  copy.tls = tls
  return copy
end

local NOT_YET = { connect = true, tls = true, closed = true, timeout = true }

-- A cluster that ends when it is collected must not end under a client that is in use.
local function connect_client(self, options)
  local client = require("saturn.dask.client").new(self.scheduler_address, client_options(self, options))
  client.cluster = self
  return client
end

--- A client of the cluster's scheduler, which keeps the cluster from being collected. Without `tls` in the options a
--- key is made and the service signs it.
---@param options table? as for saturn.client
---@return table client
function Cluster:client(options)
  if options ~= nil and type(options) ~= "table" then
    errors.misuse(2, "options must be a table, not %s", type(options))
  end
  connection_of(self)
  if not self.scheduler_address then self:refresh() end
  local ok, client = pcall(connect_client, self, options)
  if ok then return client end
  -- misuse is the caller's, so it is told at the caller's line
  if type(client) == "string" then error((client:gsub("^[^:\n]+:%d+: ", "")), 2) end
  local just_ready = self.ready_at and loop.now() - self.ready_at < READY_GRACE
  if not (just_ready and self.started and errors.is_error(client) and NOT_YET[client.kind]) then error(client, 0) end
  -- the proxy in front of the scheduler learns of a new cluster some seconds after it is ready
  loop.sleep(self.connection.service and 0.2 or RECONNECT_WAIT)
  return connect_client(self, options)
end

-- ---- files on its workers ------------------------------------------------------------------------------------------

-- The calls are in parentheses: behind a tail call there would be no line of the caller to tell misuse at.

--- Puts a file or a directory on all workers, present and future, under the same absolute path or under `to`.
---@param path string
---@param options table? to, sys_path (workers import from there), client, timeout
---@return saturn.SyncedFiles
function Cluster:sync_files(path, options)
  connection_of(self)
  return (files.sync(self, path, options))
end

--- The paths that are kept for the workers.
---@param options table? client, timeout
---@return string[]
function Cluster:list_files(options)
  connection_of(self)
  return (files.list(self, options))
end

--- Keeps a path as `list_files` shows it (nil: all of them) no longer for new workers.
---@param path string?
---@param options table? client, timeout
---@return string[] cleared
function Cluster:clear_files(path, options)
  connection_of(self)
  return (files.clear(self, path, options))
end

--- What dask-saturn does to each worker: Futures pass between a task's own client and the worker's, and the current
--- directory can be imported from. `sync_files` does it too.
---@param options table? client, timeout
---@return integer workers
function Cluster:setup_workers(options)
  connection_of(self)
  return (files.setup(self, options))
end

-- ---- making one --------------------------------------------------------------------------------------------------

--- A cluster object, not yet asked about.
---@param connection table
---@param id string
---@param options table checked
---@return saturn.Cluster
function M.new(connection, id, options)
  local shutdown = options.shutdown_on_close
  if shutdown == nil then shutdown = connection.settings.in_prefect end
  local cluster = setmetatable({
    connection = connection, id = id, name = options.name or id, started = false, closed = false, warnings = {},
    shutdown_on_close = shutdown, n_workers = math.tointeger(options.n_workers), adaptive = nil,
  }, Cluster)
  connection.open[cluster] = true
  return cluster
end

return M
