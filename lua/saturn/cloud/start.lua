--- Starting a cluster: the same POST again and again until the service says "ready".
--
-- Repeating it is safe: the service keeps one cluster for what the token (or the project_id) stands for, and the POST
-- answers with that one's status. There is no other way to ask; a second cluster cannot come of it.

local errors = require "saturn.error"
local http = require "saturn.cloud.http"
local loop = require "saturn.loop"

local M = {}

local DEFAULT_WAIT = 1200
local POLL_MIN, POLL_MAX = 5, 60

-- What is sent, and how it is checked. Only what was given is sent: null resets a setting on some servers.
local SETTINGS = { "n_workers", "worker_size", "worker_is_spot", "scheduler_size", "nprocs", "nthreads",
  "memory_limit" }

M.known = {
  n_workers = "integer", worker_size = "string", worker_is_spot = "boolean", scheduler_size = "string",
  nprocs = "integer", nthreads = "integer", memory_limit = "string|integer",
  wait_timeout = "number", shutdown_on_close = "boolean|string", on_running = "string", on_status = "callable",
  -- names of dask-saturn
  scheduler_service_wait_timeout = "number", autoclose = "boolean",
}

local ON_RUNNING = { warn = true, error = true, reset = true }

local function check_count(options, name, least, level)
  local value = options[name]
  if value and value < least then
    errors.misuse(level + 1, "option '%s' must be %d or more, not %s", name, least, tostring(value))
  end
end

--- Checks the options beyond their types and resolves aliases; gives a copy. Misuse is raised `level` up.
function M.check(options, level)
  level = (level or 2) + 1
  local copy = {}
  for name, value in pairs(options) do copy[name] = value end
  check_count(copy, "n_workers", 0, level)
  check_count(copy, "nprocs", 1, level)
  check_count(copy, "nthreads", 1, level)
  copy.wait_timeout = copy.wait_timeout or copy.scheduler_service_wait_timeout or DEFAULT_WAIT
  if copy.shutdown_on_close == nil then copy.shutdown_on_close = copy.autoclose end
  if type(copy.shutdown_on_close) == "string" and copy.shutdown_on_close ~= "always" then
    errors.misuse(level, "option 'shutdown_on_close' must be true, false or \"always\"")
  end
  if copy.on_running and not ON_RUNNING[copy.on_running] then
    errors.misuse(level, "option 'on_running' must be \"warn\", \"error\" or \"reset\", not %q", copy.on_running)
  end
  return copy
end

--- The settings among the options, as the service names them.
---@return table body
---@return boolean any
function M.settings(options)
  local body = {}
  for _, name in ipairs(SETTINGS) do body[name] = options[name] end
  for name, value in pairs(body) do body[name] = math.tointeger(value) or value end
  return body, next(body) ~= nil
end

-- ---- sizes -------------------------------------------------------------------------------------------------------

local function find_size(sizes, name)
  for _, size in ipairs(sizes) do
    if size.name == name then return size end
  end
end

local function list_sizes(sizes)
  local parts = {}
  for i, size in ipairs(sizes) do
    parts[i] = size.display and ("%s (%s)"):format(size.name, size.display) or size.name
  end
  return table.concat(parts, ", ")
end

local function check_size(sizes, option, name)
  local size = find_size(sizes, name)
  if not size then
    errors.raise("value", ("%s '%s' is not one that this installation offers. Choose one of: %s"):format(option, name,
      list_sizes(sizes)))
  end
  if size.disabled then
    errors.raise("value", ("%s '%s' is switched off: %s"):format(option, name,
      size.disabled_message or "ask the administrator"))
  end
end

--- Raises "value" for a size that the service does not offer; asks it only when a size is given.
function M.check_sizes(connection, options)
  if not options.worker_size and not options.scheduler_size then return end
  local sizes = connection:sizes()
  for _, option in ipairs { "worker_size", "scheduler_size" } do
    if options[option] then check_size(sizes, option, options[option]) end
  end
end

-- ---- polling -----------------------------------------------------------------------------------------------------

--- Seconds before poll number k + 1: within b and 2b, where b doubles from poll_min to half of poll_max.
---@param k integer
function M.backoff(k, poll_min, poll_max, jitter)
  local b = math.min(poll_max, poll_min * 2 ^ k) / 2
  return b * (1 + jitter)
end

local function strings(value)
  local list = {}
  for _, item in ipairs(type(value) == "table" and value or {}) do list[#list + 1] = http.clean(tostring(item)) end
  return list
end

local function failed(answer)
  local reasons = strings(answer.errors)
  local text = #reasons > 0 and table.concat(reasons, " ")
    or "it gives no reason; the logs of the cluster in the Saturn interface may"
  errors.raise("api", "the cluster could not be started: " .. text, { errors = reasons, id = answer.id })
end

local function timed_out(options, answer)
  errors.raise("timeout", ("the cluster is not ready after %g seconds (status: %s). It goes on starting, and is paid "
    .. "for: call conn:cluster again to wait on, with a longer wait_timeout, or close it in the Saturn interface")
    :format(options.wait_timeout, tostring(answer.status)), { id = answer.id })
end

local READY = { ready = true, running = true }

local function check_answer(answer)
  if type(answer) ~= "table" or type(answer.status) ~= "string" then
    errors.raise("protocol", "the service's answer has no status: is base_url the address of a Saturn installation?")
  end
  return answer
end

-- Each distinct warning is passed on once.
local function new_warnings(run, answer)
  local fresh = {}
  for _, text in ipairs(strings(answer.warnings)) do
    if not run.seen[text] then
      run.seen[text] = true
      run.warnings[#run.warnings + 1] = text
      fresh[#fresh + 1] = text
    end
  end
  return fresh
end

local function tell(run, answer, wait)
  local fresh = new_warnings(run, answer)
  local elapsed = run.started and loop.now() - run.started or 0
  for _, text in ipairs(fresh) do run.warn(text) end
  if run.on_status then
    run.on_status(answer.status, elapsed, { next_poll = wait, warnings = fresh, id = answer.id })
  end
end

-- The clock starts at the first wait, as in dask-saturn: the first answer may take its time.
local function next_wait(run)
  local settings = run.connection.settings
  run.polls = run.polls + 1
  run.started = run.started or loop.now()
  local left = run.options.wait_timeout - (loop.now() - run.started)
  if left <= 0 then return nil end
  return math.min(left,
    M.backoff(run.polls, settings.poll_min or POLL_MIN, settings.poll_max or POLL_MAX, http.jitter()))
end

-- Once the service has answered, a lost look is no reason to give up: the cluster goes on starting without it.
local PASSING_KIND = { connect = true, closed = true, timeout = true }
local PASSING_STATUS = { [429] = true, [502] = true, [503] = true, [504] = true }

local function is_passing(err)
  return errors.is_error(err) and (PASSING_KIND[err.kind] or (err.kind == "api" and PASSING_STATUS[err.status]))
end

local function look(run, ask)
  if not run.answer then return check_answer(ask(false)) end
  local ok, answer = pcall(ask, true)
  if ok then return check_answer(answer) end
  if not is_passing(answer) then error(answer, 0) end
  return { status = "no answer", id = run.answer.id, warnings = { answer.message } }
end

local function poll(run, ask)
  while true do
    local answer = look(run, ask)
    run.answer = answer
    if READY[answer.status] then
      tell(run, answer)
      return answer
    end
    if answer.status == "error" then
      tell(run, answer)
      failed(answer)
    end
    run.found_running = false
    if run.polls == 0 and run.on_pending then run.on_pending() end
    local wait = next_wait(run)
    if not wait then timed_out(run.options, answer) end
    tell(run, answer, wait)
    loop.sleep(wait)
  end
end

---@class saturn.cloud.Run
---@field answer table? the last answer
---@field found_running boolean the cluster ran already at the first answer
---@field warnings string[]

--- Asks until the cluster is ready. `ask(again)` makes one call and gives its answer. The run, filled as it goes, tells
--- the caller how far it came when an error ends it.
---@param connection table
---@param options table checked
---@param ask fun(again: boolean): table
---@param run saturn.cloud.Run
---@return table answer
function M.wait_ready(connection, options, ask, run)
  run.connection, run.options, run.on_status = connection, options, run.on_status or options.on_status
  run.polls, run.seen, run.warnings, run.found_running = 0, {}, {}, true
  run.warn = run.warn or function(text) connection:warn(text) end
  return poll(run, ask)
end

return M
