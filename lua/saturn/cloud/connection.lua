--- The service of one installation, seen with one token.

local clusters = require "saturn.cloud.cluster"
local errors = require "saturn.error"
local http = require "saturn.cloud.http"
local loop = require "saturn.loop"
local progress = require "saturn.cloud.progress"
local resources = require "saturn.cloud.resource"
local start = require "saturn.cloud.start"

---@class saturn.Connection
---@field base_url string
---@field settings saturn.cloud.Settings
---@field http saturn.cloud.Http
local Connection = {}
Connection.__index = Connection
Connection.__name = "saturn.connection"

local M = {}

local MAX_PAGES = 1000
-- A service on this machine starts and stops a whole cluster before it answers some calls.
local NEARBY_TIMEOUT = 60
local CLUSTERS = "api/dask_clusters"

function Connection:__tostring()
  local settings = self.settings
  return ("saturn.connection %s (%s, token from %s%s)"):format(settings.base_url,
    settings.external and "external" or "internal", settings.credentials.origin, self.closed and ", closed" or "")
end

--- Passes a warning on: to `on_warning`, else to the terminal, else to Lua's warnings.
---@param text string
function Connection:warn(text)
  text = self.settings.credentials:redact(text)
  if self.settings.on_warning then return self.settings.on_warning(text) end
  progress.warn(text)
end

-- ---- the service -------------------------------------------------------------------------------------------------

--- Whether the service answers: `{ status=, version= }`.
---@return table
function Connection:ping()
  return self.http:call { path = "api/status" }
end

--- Who the token stands for.
---@return table
function Connection:user()
  return self.http:call { path = "api/user" }
end

--- The sizes of machines: a list of `{ name=, display=, ... }`, as the service orders them.
---@return table[]
function Connection:sizes()
  local data = self.http:call { path = CLUSTERS .. "/info" }
  local list = type(data) == "table" and type(data.server_options) == "table" and data.server_options.size
  if type(list) ~= "table" then
    errors.raise("protocol", "the service's list of sizes cannot be read: is base_url the address of a Saturn "
      .. "installation?")
  end
  for _, size in ipairs(list) do size.display = size.display or size.display_name end
  return list
end

--- All pages of a list.
---@param path string
---@param name string the field that holds the list
---@param query table?
---@return table[]
function Connection:pages(path, name, query)
  local all, next_key = {}, nil
  for _ = 1, MAX_PAGES do
    local page = { next_key = next_key }
    for key, value in pairs(query or {}) do page[key] = value end
    local data = self.http:call { path = path, query = page }
    local list = type(data) == "table" and (data[name] or (data[1] and data)) or {}
    if type(list) ~= "table" then errors.raise("protocol", ("%s: the list of %s is none"):format(path, name)) end
    table.move(list, 1, #list, #all + 1, all)
    next_key = data.next_key
    if next_key == nil or #list == 0 then break end
  end
  return all
end

local LIST_OPTIONS = { owner_name = "string", owner_id = "string", user_id = "string", group_id = "string",
  org_id = "string" }

--- The clusters that the token may see: a list of records with `id`, `name`, `status` and more.
---@param options table? owner_name, owner_id, user_id, group_id, org_id
---@return table[]
function Connection:clusters(options)
  return self:pages(CLUSTERS, "dask_clusters", errors.options(options, LIST_OPTIONS))
end

-- ---- what clusters hang on -----------------------------------------------------------------------------------------

local RESOURCE_OPTIONS = { owner_name = "string" }

local function list_resources(self, kind, options)
  return resources.list(self, kind, errors.options(options, RESOURCE_OPTIONS, 3))
end

--- The workspaces that the token may see.
---@param options table? owner_name
---@return saturn.Resource[]
function Connection:workspaces(options)
  return list_resources(self, "workspace", options)
end

--- The deployments that the token may see.
---@param options table? owner_name
---@return saturn.Resource[]
function Connection:deployments(options)
  return list_resources(self, "deployment", options)
end

--- The jobs that the token may see.
---@param options table? owner_name
---@return saturn.Resource[]
function Connection:jobs(options)
  return list_resources(self, "job", options)
end

--- One workspace, deployment or job, by its name.
---@param kind "workspace"|"deployment"|"job"
---@param name string
---@param options table? owner_name
---@return saturn.Resource
function Connection:resource(kind, name, options)
  if not resources.kinds[kind] then
    errors.misuse(2, "a resource is a \"workspace\", a \"deployment\" or a \"job\", not %s", tostring(kind))
  end
  if type(name) ~= "string" then errors.misuse(2, "the name of a %s must be a string", kind) end
  return resources.find(self, kind, name, errors.options(options, RESOURCE_OPTIONS).owner_name)
end

-- ---- starting: dask-saturn's way ---------------------------------------------------------------------------------

local function post_start(self, body, again)
  local settings = self.settings
  return self.http:call {
    method = "POST", path = CLUSTERS, json = body,
    query = settings.external and { is_external = "true" } or nil,
    -- the service of this library can answer as soon as there is news
    headers = settings.nearby and again and { Prefer = "wait=1" } or nil,
    timeout = settings.nearby and NEARBY_TIMEOUT or nil,
  }
end

local function body_of(self, options)
  local body, any = start.settings(options)
  body.project_id = self.settings.project_id
  body.prefectcloudflowrun_id = self.settings.prefect_flow_run
  return body, any
end

-- A record of the cluster that runs may tell what it runs with.
local function differences(answer, body)
  local list = {}
  for name, value in pairs(body) do
    local current = answer[name]
    if current ~= nil and current ~= value and name ~= "memory_limit" then
      list[#list + 1] = ("%s is %s, not %s"):format(name, tostring(current), tostring(value))
    end
  end
  table.sort(list)
  return list
end

local function refused_update(warnings)
  for _, text in ipairs(warnings) do
    if text:find("Unable to update the specification", 1, true) then return true end
  end
  return false
end

local function not_applied_text(answer, settings)
  local list = differences(answer, settings)
  return ("the cluster runs already, with other settings%s; they were not changed. conn:reset{...} or "
    .. "on_running=\"reset\" recreates it with the new ones, losing what is in its memory"):format(
    #list > 0 and " (" .. table.concat(list, "; ") .. ")" or "")
end

-- Whether settings were given that the running cluster does not have.
local function not_applied(run, answer, options)
  local settings, any = start.settings(options)
  if not any or not run.found_running then return false end
  if not refused_update(run.warnings) and #differences(answer, settings) == 0 then return false end
  return not_applied_text(answer, settings)
end

local function status_line(line, status, elapsed, details)
  local wait = details.next_poll and (", next look in %.0f s"):format(details.next_poll) or ""
  line:show(("saturn: starting the cluster: %s, %.0f s%s"):format(status, elapsed, wait))
end

-- The user's callback, or on a terminal a line of our own.
local function watcher(self, options)
  if options.on_status then return options.on_status, nil end
  local line = not self.settings.on_warning and progress.line() or nil
  if not line then return nil, nil end
  return function(...) status_line(line, ...) end, line
end

-- An interrupt or a deadline while the cluster starts must not leave it in a state that nobody knows of.
local function interrupted(self, cluster_id, options, run, err)
  local id = cluster_id or (run.answer and run.answer.id)
  local kind = errors.is_error(err) and err.kind
  if run.found_running or not run.answer or kind == "api" then return end
  if options.shutdown_on_close and id then
    local ok = pcall(function() clusters.new(self, id, options):close() end)
    if ok then return self:warn(("the start was broken off: cluster %s was shut down"):format(id)) end
  end
  if kind ~= "timeout" then
    self:warn(("the start was broken off: cluster %s goes on starting, and is paid for"):format(tostring(id)))
  end
end

local function wait_ready(self, options, ask, cluster_id)
  local run = { found_running = true }
  local on_status, line = watcher(self, options)
  run.on_status = on_status
  run.warn = function(text)
    if line then line:clear() end
    self:warn(text)
  end
  local ok, answer = pcall(start.wait_ready, self, options, ask, run)
  if line then line:close() end
  if ok then return answer, run end
  interrupted(self, cluster_id, options, run, answer)
  error(answer, 0)
end

local function adopt(self, cluster, answer, run)
  local id = answer.id or cluster.id
  if type(id) ~= "string" or id == "" then
    errors.raise("protocol", "the service says that the cluster is ready, but not its id")
  end
  cluster.id = id
  cluster.name = type(answer.name) == "string" and answer.name or id
  cluster.started = cluster.started or not run.found_running
  cluster.status_word, cluster.warnings, cluster.ready_at = answer.status, run.warnings, loop.now()
  cluster.n_workers = cluster.n_workers or math.tointeger(answer.n_workers)
  self.open[cluster] = true
  return cluster:refresh()
end

local function start_selected(self, cluster, options)
  local body = body_of(self, options)
  local answer, run = wait_ready(self, options, function(again) return post_start(self, body, again) end)
  local problem = not_applied(run, answer, options)
  if problem and options.on_running == "reset" then return self:reset_cluster(cluster, options) end
  if problem and options.on_running == "error" then errors.raise("api", problem, { id = answer.id }) end
  if problem then
    self:warn(problem)
    run.warnings[#run.warnings + 1] = problem
    cluster.n_workers = nil
  end
  return adopt(self, cluster, answer, run)
end

-- ---- starting: by id ---------------------------------------------------------------------------------------------

local ACTIVE = { running = true, ready = true, pending = true, starting = true }

local function explicit_path(id, action)
  return CLUSTERS .. "/" .. http.escape(id) .. (action and "/" .. action or "")
end

local function post_action(self, id, action)
  return self.http:call {
    method = "POST", path = explicit_path(id, action), body = "", repeatable = action ~= "restart",
    timeout = self.settings.nearby and NEARBY_TIMEOUT or nil,
  }
end

local function wait_until_stopped(self, id, options)
  local deadline = loop.now() + options.wait_timeout
  while ACTIVE[self.http:call { path = explicit_path(id) }.status] do
    if loop.now() > deadline then
      errors.raise("timeout", ("cluster %s did not stop within %g seconds"):format(id, options.wait_timeout))
    end
    loop.sleep(self.settings.poll_min or 2)
  end
end

-- Settings can be changed only while the cluster is stopped.
local function change_settings(self, id, options, record)
  local body, any = start.settings(options)
  if not any then return record end
  local running = ACTIVE[record.status]
  local different = differences(record, body)
  if running and #different == 0 then return record end
  if running then
    local problem = not_applied_text(record, body)
    if options.on_running == "error" then errors.raise("api", problem, { id = id }) end
    if options.on_running ~= "reset" then
      self:warn(problem)
      return record
    end
    post_action(self, id, "stop")
    wait_until_stopped(self, id, options)
  end
  return self.http:call { method = "PATCH", path = explicit_path(id), json = body }
end

--- Starts a cluster that is known by its id, unless it runs, and waits until it is ready.
---@param cluster saturn.Cluster
---@param options table checked
---@param how table? action = "start" | "restart"
function Connection:start_explicit(cluster, options, how)
  local id, action = cluster.id, how and how.action or "start"
  cluster.explicit = true
  local record = self.http:call { path = explicit_path(id) }
  if action == "start" then record = change_settings(self, id, options, record) end
  local begun = false
  local function ask()
    if begun or (action == "start" and ACTIVE[record.status]) then
      return self.http:call { path = explicit_path(id) }
    end
    begun = true
    return post_action(self, id, action)
  end
  local answer, run = wait_ready(self, options, ask, id)
  if begun then run.found_running = false end
  return adopt(self, cluster, answer, run)
end

local function find_by_name(self, name)
  local found, names = {}, {}
  for _, record in ipairs(self:clusters()) do
    if record.name == name then found[#found + 1] = record.id end
    names[#names + 1] = tostring(record.name)
  end
  if #found == 1 then return found[1] end
  if #found > 1 then
    errors.raise("value", ("%d clusters are named '%s'; choose one with cluster_id=: %s"):format(#found, name,
      table.concat(found, ", ")))
  end
  table.sort(names)
  errors.raise("value", ("there is no cluster named '%s'; there %s"):format(name,
    #names > 0 and "are " .. table.concat(names, ", ") or "are none at all"))
end

-- ---- the public calls --------------------------------------------------------------------------------------------

local CLUSTER_KNOWN = { cluster_url = "string", cluster_id = "string", name = "string" }
for name, kinds in pairs(start.known) do CLUSTER_KNOWN[name] = kinds end

local function id_in_url(url)
  local id = url:gsub("[?#].*$", ""):gsub("/+$", ""):match("([^/]+)$")
  if not id then errors.raise("value", ("cluster_url %q names no cluster"):format(url)) end
  return id
end

local function check_open(self)
  if self.closed then errors.raise("closed", "this connection is closed") end
end

--- A cluster, ready to use: the one that the token (or the project_id) stands for, or the one named by `cluster_id`,
--- `name` or `cluster_url`. Starts it unless it runs, and waits.
---@param options table?
---@return saturn.Cluster
function Connection:cluster(options)
  options = start.check(errors.options(options, CLUSTER_KNOWN))
  check_open(self)
  if options.cluster_url then
    local cluster = clusters.new(self, id_in_url(options.cluster_url), options)
    self.open[cluster] = true
    return cluster:refresh()
  end
  start.check_sizes(self, options)
  local id = options.cluster_id or (options.name and find_by_name(self, options.name))
  local cluster = clusters.new(self, id or "", options)
  if id then return self:start_explicit(cluster, options) end
  return start_selected(self, cluster, options)
end

-- Used by cluster:reset and on_running="reset" too.
function Connection:reset_cluster(cluster, options)
  start.check_sizes(self, options)
  local body = body_of(self, options)
  body.prefectcloudflowrun_id = nil
  cluster.credentials_ = nil
  if options.n_workers then cluster.n_workers = math.tointeger(options.n_workers) end
  cluster.adaptive = nil
  if cluster.explicit then
    local again = {}
    for name, value in pairs(options) do again[name] = value end
    again.on_running = "reset"
    return self:start_explicit(cluster, again)
  end
  -- not repeated blindly: a second reset would end what the first one started
  self.http:call { method = "POST", path = CLUSTERS .. "/reset", json = body, repeatable = false,
    timeout = self.settings.nearby and NEARBY_TIMEOUT or nil }
  local started = body_of(self, options)
  local answer, run = wait_ready(self, options, function(again) return post_start(self, started, again) end)
  run.found_running = false
  return adopt(self, cluster, answer, run)
end

--- Recreates the cluster with these settings (the others are reset), and waits until it is ready.
---@param options table? as for `cluster`
---@return saturn.Cluster
function Connection:reset(options)
  options = start.check(errors.options(options, start.known))
  check_open(self)
  return self:reset_cluster(clusters.new(self, "", options), options)
end

-- ---- the end -----------------------------------------------------------------------------------------------------

--- Forgets the token, after ending the clusters that were to end with it. Safe to call twice.
function Connection:close()
  if self.closed then return end
  local problem
  for cluster in pairs(self.open) do
    local ok, err = pcall(clusters.finish, cluster)
    if not ok then problem = problem or err end
  end
  self.closed = true
  self.settings.credentials:forget()
  if self.service then self.service:close() end
  if problem then error(problem, 0) end
end

function Connection:__close()
  self:close()
end

--- A connection with these settings. No request is made.
---@param settings saturn.cloud.Settings
---@param service table? the embedded service that this connection owns
---@return saturn.Connection
function M.new(settings, service)
  -- made before any cluster, so that at the end of the Lua state it is still there when a cluster is to be closed
  loop.reactor()
  return setmetatable({
    settings = settings, http = http.new(settings), base_url = settings.base_url, external = settings.external,
    service = service, closed = false, open = setmetatable({}, { __mode = "k" }),
  }, Connection)
end

return M
