--- Bringing a cluster up: the one that a token stands for, one that is known by its id, and anew with other settings.

local errors = require "saturn.error"
local http = require "saturn.cloud.http"
local loop = require "saturn.loop"
local progress = require "saturn.cloud.progress"
local start = require "saturn.cloud.start"

local M = {}

local CLUSTERS = "api/dask_clusters"
-- Some servers start or stop a whole cluster before they answer; dask-saturn waits without end.
M.LONG_TIMEOUT = 120
local STOP_LOOK = 2

local function call(connection, fields)
  if fields.method then fields.timeout = connection.settings.timeout or M.LONG_TIMEOUT end
  return connection.http:call(fields)
end

-- ---- settings that a running cluster does not have ---------------------------------------------------------------

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

-- ---- waiting until it is ready -----------------------------------------------------------------------------------

local function status_line(line, status, elapsed, details)
  local wait = details.next_poll and (", next look in %.0f s"):format(details.next_poll) or ""
  line:show(("saturn: starting the cluster: %s, %.0f s%s"):format(status, elapsed, wait))
end

-- The user's callback, or on a terminal a line of our own.
local function watcher(connection, options)
  if options.on_status then return options.on_status, nil end
  local line = not connection.settings.on_warning and progress.line() or nil
  if not line then return nil, nil end
  return function(...) status_line(line, ...) end, line
end

-- An interrupt or a deadline while the cluster starts must not leave it in a state that nobody knows of.
local function interrupted(cluster, options, run, err)
  local connection, answer = cluster.connection, run.answer
  local kind = errors.is_error(err) and err.kind
  if run.found_running or not answer or kind == "api" then return end
  if cluster.id == "" then cluster.id = answer.id or "" end
  if options.shutdown_on_close and cluster.id ~= "" and pcall(cluster.close, cluster) then
    return connection:warn(("the start was broken off: cluster %s was shut down"):format(cluster.id))
  end
  -- the error of a deadline says it itself
  if kind ~= "timeout" then
    connection:warn(("the start was broken off: cluster %s goes on starting, and is paid for"):format(cluster.id))
  end
end

local function wait_ready(cluster, options, ask)
  local connection = cluster.connection
  local run = { found_running = true }
  local on_status, line = watcher(connection, options)
  run.on_status = on_status
  run.warn = function(text)
    if line then line:clear() end
    connection:warn(text)
  end
  -- a cluster that starts anew may have a new authority; the time until it is ready is good for making the key
  run.on_pending = function()
    cluster:forget_credentials()
    if connection.settings.external then cluster:prepare_key() end
  end
  local ok, answer = pcall(start.wait_ready, connection, options, ask, run)
  if line then line:close() end
  if ok then return answer, run end
  interrupted(cluster, options, run, answer)
  error(answer, 0)
end

local function adopt(cluster, answer, run)
  local id = answer.id or cluster.id
  if type(id) ~= "string" or id == "" then
    errors.raise("protocol", "the service says that the cluster is ready, but not its id")
  end
  cluster.id = id
  cluster.name = http.clean(type(answer.name) == "string" and answer.name or id):gsub("%c", " ")
  if not run.found_running then cluster.started, cluster.adaptive = true, false end
  cluster.status_word, cluster.warnings, cluster.ready_at = answer.status, run.warnings, loop.now()
  cluster.n_workers = cluster.n_workers or math.tointeger(answer.n_workers)
  return cluster:refresh()
end

-- ---- the one that the token stands for ---------------------------------------------------------------------------

local function body_of(connection, options)
  local body = start.settings(options)
  body.project_id = connection.settings.project_id
  return body
end

local function bring_up(cluster, options)
  local connection = cluster.connection
  local settings = connection.settings
  local body = body_of(connection, options)
  body.prefectcloudflowrun_id = settings.prefect_flow_run
  return wait_ready(cluster, options, function(again)
    return call(connection, {
      method = "POST", path = CLUSTERS, json = body,
      query = settings.external and { is_external = "true" } or nil,
      -- the service of this library can answer as soon as there is news
      headers = settings.nearby and again and { Prefer = "wait=1" } or nil,
    })
  end)
end

--- Brings up the cluster that the token (or the project_id) stands for.
---@param cluster saturn.Cluster its id is not known yet
---@param options table checked
---@return saturn.Cluster
function M.selected(cluster, options)
  local answer, run = bring_up(cluster, options)
  local problem = not_applied(run, answer, options)
  if problem and options.on_running == "reset" then return M.reset(cluster, options) end
  if problem and options.on_running == "error" then errors.raise("api", problem, { id = answer.id }) end
  if problem then
    cluster.connection:warn(problem)
    run.warnings[#run.warnings + 1] = problem
    cluster.n_workers = nil
  end
  return adopt(cluster, answer, run)
end

-- ---- one that is known by its id ---------------------------------------------------------------------------------

local ACTIVE = { running = true, ready = true, pending = true, starting = true }

local function path_of(cluster, action)
  return CLUSTERS .. "/" .. http.escape(cluster.id) .. (action and "/" .. action or "")
end

local function record_of(cluster)
  return call(cluster.connection, { path = path_of(cluster) })
end

local function post_action(cluster, action)
  return call(cluster.connection, {
    method = "POST", path = path_of(cluster, action), body = "", repeatable = action ~= "restart",
  })
end

local function stop(cluster, options)
  local deadline = loop.now() + options.wait_timeout
  post_action(cluster, "stop")
  while ACTIVE[record_of(cluster).status] do
    if loop.now() > deadline then
      errors.raise("timeout", ("cluster %s did not stop within %g seconds"):format(cluster.id, options.wait_timeout))
    end
    loop.sleep(cluster.connection.settings.poll_min or STOP_LOOK)
  end
end

-- Only a cluster that is stopped takes settings.
local function change_settings(cluster, settings)
  if next(settings) == nil then return record_of(cluster) end
  return call(cluster.connection, { method = "PATCH", path = path_of(cluster), json = settings })
end

-- Settings for a cluster that runs: nil when they are in force or have to be left out.
local function settings_to_change(cluster, options, record)
  local settings, any = start.settings(options)
  if not any or not ACTIVE[record.status] then return any and settings or nil end
  if #differences(record, settings) == 0 then return nil end
  local problem = not_applied_text(record, settings)
  if options.on_running == "error" then errors.raise("api", problem, { id = cluster.id }) end
  if options.on_running == "reset" then return settings end
  cluster.connection:warn(problem)
  cluster.n_workers = nil
  return nil
end

-- `action` begins it; nil: it is on its way already.
local function follow(cluster, options, action)
  local begun = false
  local answer, run = wait_ready(cluster, options, function()
    if begun or not action then return record_of(cluster) end
    begun = true
    return post_action(cluster, action)
  end)
  if begun then
    run.found_running = false
    cluster:forget_credentials()
  end
  return adopt(cluster, answer, run)
end

--- Brings up a cluster by its id, unless it runs.
---@param cluster saturn.Cluster
---@param options table checked
---@return saturn.Cluster
function M.by_id(cluster, options)
  cluster.by_id = true
  local record = record_of(cluster)
  local settings = settings_to_change(cluster, options, record)
  if settings then
    if ACTIVE[record.status] then stop(cluster, options) end
    record = change_settings(cluster, settings)
  end
  return follow(cluster, options, not ACTIVE[record.status] and "start" or nil)
end

--- Stops and starts a cluster.
---@param cluster saturn.Cluster
---@param options table checked
---@return saturn.Cluster
function M.restart(cluster, options)
  return follow(cluster, options, "restart")
end

-- ---- anew --------------------------------------------------------------------------------------------------------

local function reset_selected(cluster, options)
  local connection = cluster.connection
  -- not repeated blindly: a second reset would end what the first one started
  call(connection, { method = "POST", path = CLUSTERS .. "/reset", json = body_of(connection, options),
    repeatable = false })
  local answer, run = bring_up(cluster, options)
  run.found_running = false
  cluster:forget_credentials()
  return adopt(cluster, answer, run)
end

local function reset_by_id(cluster, options)
  if ACTIVE[record_of(cluster).status] then stop(cluster, options) end
  change_settings(cluster, (start.settings(options)))
  return follow(cluster, options, "start")
end

--- Recreates a cluster with these settings.
---@param cluster saturn.Cluster
---@param options table checked
---@return saturn.Cluster
function M.reset(cluster, options)
  cluster.n_workers, cluster.adaptive = math.tointeger(options.n_workers), nil
  if cluster.by_id then return reset_by_id(cluster, options) end
  return reset_selected(cluster, options)
end

return M
