--- Looking into a cluster: versions, where data is, what runs, logs, records of what ran.

local core = require "saturn.core"
local endpoint = require "saturn.dask.endpoint"
local errors = require "saturn.error"
local files = require "saturn.dask.files"
local ops = require "saturn.dask.ops"
local server = require "saturn.dask.server"
local shapes = require "saturn.dask.shapes"
local targets = require "saturn.dask.targets"

local ask = targets.ask

local M = {}

-- ---- versions ---------------------------------------------------------------------------------------------------

-- Only these must be the same on the scheduler as on the workers; of the others the workers alone are compared.
local MATTER_ON_SCHEDULER = {
  dask = true, distributed = true, cloudpickle = true, tornado = true, toolz = true, lz4 = true, python = true,
}

local function sorted_keys(set)
  local list = {}
  for key in pairs(set) do list[#list + 1] = key end
  table.sort(list)
  return list
end

local function package_names(scheduler, workers)
  local names = {}
  for name in pairs(scheduler.packages or {}) do names[name] = true end
  for _, worker in pairs(workers) do
    for name in pairs(worker.packages or {}) do names[name] = true end
  end
  return sorted_keys(names)
end

local function version_in(node, name)
  return tostring((node.packages or {})[name] or "MISSING")
end

-- {name, version on the scheduler, versions on the workers} of each package that differs.
local function mismatches(scheduler, workers)
  local rows = {}
  for _, name in ipairs(package_names(scheduler, workers)) do
    local on_scheduler, on_workers = version_in(scheduler, name), {}
    for _, worker in pairs(workers) do on_workers[version_in(worker, name)] = true end
    local all = {}
    for version in pairs(on_workers) do all[version] = true end
    if MATTER_ON_SCHEDULER[name] then all[on_scheduler] = true end
    if #sorted_keys(all) > 1 then
      rows[#rows + 1] = { name, on_scheduler, table.concat(sorted_keys(on_workers), ", ") }
    end
  end
  return rows
end

local function ascii_table(columns, rows)
  local widths = {}
  for i, title in ipairs(columns) do
    widths[i] = #title
    for _, row in ipairs(rows) do widths[i] = math.max(widths[i], #row[i]) end
  end
  local function line(cells)
    local parts = {}
    for i, cell in ipairs(cells) do parts[i] = " " .. cell .. (" "):rep(widths[i] - #cell) .. " |" end
    return "|" .. table.concat(parts)
  end
  local dashes = {}
  for i, width in ipairs(widths) do dashes[i] = ("-"):rep(width + 2) end
  local bar = "+" .. table.concat(dashes, "+") .. "+"
  local lines = { bar, line(columns), bar }
  for _, row in ipairs(rows) do lines[#lines + 1] = line(row) end
  lines[#lines + 1] = bar
  return table.concat(lines, "\n")
end

local function mismatch_text(scheduler, workers)
  local rows = mismatches(scheduler, workers)
  if #rows == 0 then return nil end
  return "Mismatched versions found\n\n" .. ascii_table({ "Package", "Scheduler", "Workers" }, rows)
end

---@class saturn.Versions
---@field scheduler table host and packages, each name → version
---@field workers table<string, table> address → the same
---@field client table saturn, lua
---@field warning string? a table of the packages whose versions differ; nil when all fit

local NODE_VERSIONS = "versions of a node"

--- The versions of the software of the scheduler and all workers. Workers that do not answer are left out.
---@param options table? packages (more Python packages to ask for), timeout
---@return saturn.Versions
function M.versions(client, options)
  options = errors.options(options, { packages = "table", timeout = "number" })
  local packages = options.packages or {}
  local scheduler = ask(client, "versions", { packages = packages }, options.timeout)
  local workers = ask(client, "broadcast", {
    msg = { op = "versions", packages = packages }, on_error = "ignore",
  }, options.timeout)
  shapes.check(NODE_VERSIONS, scheduler)
  for _, worker in pairs(workers) do shapes.check(NODE_VERSIONS, worker) end
  return {
    scheduler = scheduler,
    workers = workers,
    client = { saturn = require("saturn")._VERSION, lua = _VERSION:match("%d.*") },
    warning = mismatch_text(scheduler, workers),
  }
end

-- ---- where things are -------------------------------------------------------------------------------------------

local TIMEOUT = { timeout = "number" }

-- What the scheduler knows of some workers or of all, by address.
local function about_workers(op)
  return function(client, workers, options)
    options = errors.options(options, TIMEOUT)
    workers = targets.workers(client, workers, options.timeout)
    return ask(client, op, { workers = workers }, options.timeout)
  end
end

--- How many threads each worker has.
---@param workers string|table? addresses or names; all when nil
---@param options table? timeout
---@return table<string, integer> threads by the worker's address
M.nthreads = about_workers("ncores")

--- The keys that each worker holds in memory.
---@param workers string|table? addresses or names; all when nil
---@param options table? timeout
---@return table<string, string[]> keys by the worker's address
M.has_what = about_workers("has_what")

--- The keys of the tasks that were given to each worker and are not done.
---@param workers string|table? addresses or names; all when nil
---@param options table? timeout
---@return table<string, string[]> keys by the worker's address
M.processing = about_workers("processing")

--- The workers that hold the result of each key; an empty list for a key that is not in memory.
---@param futures any? Futures or keys, one or a list; all keys that the scheduler knows when nil
---@param options table? timeout
---@return table<string, string[]> addresses by key
function M.who_has(client, futures, options)
  options = errors.options(options, TIMEOUT)
  return ask(client, "who_has", { keys = targets.keys(futures) }, options.timeout)
end

--- The memory that results take, in bytes.
---@param futures any? Futures or keys, one or a list; all that are in memory when nil
---@param options table? summary (true: one number for all keys with the same prefix), timeout
---@return table<string, integer> bytes by prefix, or by key
function M.nbytes(client, futures, options)
  options = errors.options(options, { summary = "boolean", timeout = "number" })
  local args = { keys = targets.keys(futures), summary = options.summary ~= false }
  return ask(client, "nbytes", args, options.timeout)
end

--- What the running tasks are doing right now.
---@param futures any? Futures or keys, one or a list; all that run when nil
---@param options table? timeout
---@return table<string, table<string, string[]>> stack, outermost frame first, by worker and key
function M.call_stack(client, futures, options)
  options = errors.options(options, TIMEOUT)
  return ask(client, "call_stack", { keys = targets.keys(futures) }, options.timeout)
end

-- ---- logs -------------------------------------------------------------------------------------------------------

local function log_entries(release, lines, n)
  local entries = {}
  for _, line in ipairs(ops.last_lines(release, lines, n)) do
    entries[#entries + 1] = { level = line[1], message = line[2] }
  end
  return entries
end

local function check_count(n)
  if n ~= nil and (math.type(n) ~= "integer" or n < 1) then
    errors.misuse(3, "the number of log lines must be an integer from 1 on")
  end
end

---@class saturn.LogEntry
---@field level string "INFO", "WARNING", ...
---@field message string

--- The last lines of the scheduler's log, oldest first.
---@param n integer? how many at most; all that it keeps when nil
---@param options table? timeout
---@return saturn.LogEntry[]
function M.scheduler_logs(client, n, options)
  check_count(n)
  options = errors.options(options, TIMEOUT)
  local lines = ask(client, "logs", { n = ops.log_count(client.release, n) }, options.timeout)
  return log_entries(client.release, lines, n)
end

--- The last lines of the workers' logs, oldest first.
---@param n integer? how many at most of each; all that are kept when nil
---@param options table? workers (addresses or names), nanny (true: of the nannies), timeout
---@return table<string, saturn.LogEntry[]> by the worker's address
function M.worker_logs(client, n, options)
  check_count(n)
  options = errors.options(options, { workers = "string|table", nanny = "boolean", timeout = "number" })
  local logs = ask(client, "worker_logs", {
    n = ops.log_count(client.release, n),
    workers = targets.workers(client, options.workers, options.timeout),
    nanny = options.nanny or false,
  }, options.timeout)
  for address, lines in pairs(logs) do logs[address] = log_entries(client.release, lines, n) end
  return logs
end

-- ---- what ran ---------------------------------------------------------------------------------------------------

---@class saturn.TaskRecord
---@field key string
---@field worker string
---@field thread integer
---@field status string "OK" or "error"
---@field nbytes integer
---@field typename string? Python type of the result
---@field startstops table[] {action=, start=, stop=}: seconds since 1970

--- Records of finished tasks. The scheduler records from the first call on, which therefore gives none of before.
---@param options table? start, stop (seconds since 1970, or "500ms" for that long ago), count (the last so many),
--- timeout
---@return saturn.TaskRecord[]
function M.task_stream(client, options)
  options = errors.options(options, {
    start = "number|string", stop = "number|string", count = "integer", timeout = "number",
  })
  local records = ask(client, "get_task_stream", {
    start = options.start, stop = options.stop, count = options.count,
  }, options.timeout)
  for _, record in ipairs(records) do record.type = nil end
  return records
end

-- A stack of n frames is a tree of depth 2n: deeper than other messages, and never deeper than Python writes.
local DEEPEST = 512

local function deep_server(client)
  local limits = { depth = DEEPEST }
  for name, value in pairs(client._endpoint.limits or {}) do limits[name] = value end
  local to = endpoint.to(client._endpoint, client.address)
  to.limits, to.server_name = limits, client._endpoint.server_name
  return server.new(to)
end

--- Where the workers' time goes: a tree of call stacks that were sampled while tasks ran.
---@param options table? key (a task prefix), start, stop (seconds since 1970), workers (addresses or names),
--- merge_workers (true; false: a tree for each worker), server (true: the workers' event loops instead of tasks),
--- scheduler (true: the scheduler itself), timeout
---@return table profile count (samples), identifier, description {filename, name, line_number, line}, children
function M.profile(client, options)
  options = errors.options(options, {
    key = "string", start = "number", stop = "number", workers = "string|table", merge_workers = "boolean",
    server = "boolean", scheduler = "boolean", timeout = "number",
  })
  local args = {
    key = options.key, start = options.start, stop = options.stop,
    workers = targets.workers(client, options.workers, options.timeout),
    merge_workers = options.merge_workers ~= false,
    server = options.server or false,
    scheduler = options.scheduler or false,
  }
  client:check_open()
  local connection <close> = deep_server(client)
  return connection:call("profile", args, options.timeout or client.request_timeout)
end

---@class saturn.StoryEvent
---@field source string "scheduler" or a worker's address
---@field key string? the task (scheduler)
---@field start string? the state it left (scheduler)
---@field finish string? the state it entered (scheduler)
---@field stimulus string what set it off
---@field time number seconds since 1970, by the clock of the source
---@field event table the record as the source keeps it: a list

-- The scheduler's records have one shape, the workers' have many; all end with what set them off and the time.
local function story_event(source, record)
  local event = { source = source, event = record, stimulus = record[#record - 1], time = record[#record] }
  if source == "scheduler" then event.key, event.start, event.finish = record[1], record[2], record[3] end
  return event
end

--- All that the scheduler and the workers remember of some tasks: first the scheduler, then each worker.
---@param what any Futures, keys or names of stimuli, one or a list
---@param options table? errors="raise"|"ignore" (servers that do not answer), timeout
---@return saturn.StoryEvent[]
function M.story(client, what, options)
  options = errors.options(options, { errors = "string", timeout = "number" })
  local on_error = options.errors or "raise"
  if on_error ~= "raise" and on_error ~= "ignore" then
    errors.misuse(2, "option 'errors' must be \"raise\" or \"ignore\", not %q", on_error)
  end
  local keys = targets.keys(what)
  if not keys then errors.misuse(2, "story needs Futures, keys or names of stimuli") end
  local events = {}
  for _, record in ipairs(ask(client, "get_story", { keys_or_stimuli = keys }, options.timeout)) do
    events[#events + 1] = story_event("scheduler", record)
  end
  local workers = ask(client, "broadcast", {
    msg = { op = "get_story", keys_or_stimuli = keys }, on_error = on_error,
  }, options.timeout)
  for address, records in pairs(workers) do
    shapes.check("story of a node", records)
    for _, record in ipairs(records) do events[#events + 1] = story_event(address, record) end
  end
  return events
end

-- ---- files ------------------------------------------------------------------------------------------------------

---@class saturn.PerformanceReport
---@field path string
local Report = {}
Report.__index = Report
Report.__name = "saturn.performance_report"

function Report:__tostring()
  return ("<saturn.performance_report: %s, %s>"):format(self.path, self.closed and "closed" or "recording")
end

--- Writes the report of what ran since it was begun. Safe to call twice.
---@param timeout number?
function Report:close(timeout)
  if self.closed then return end
  self.closed = true
  local ok, html = pcall(ask, self.client, "performance_report", {
    start = self.start, last_count = 0, code = self.code, mode = self.mode,
  }, timeout or self.timeout)
  if not ok then
    if errors.is_error(html) and html.message:find("bokeh", 1, true) then
      html.message = html.message .. ": performance reports need the Python package bokeh on the scheduler"
    end
    error(html, 0)
  end
  files.write(self.path, html)
end

function Report:__close()
  self:close()
end

--- Begins a performance report: an HTML page, drawn by the scheduler (which needs bokeh), of all that runs until its
--- `close`. `local report <close> = client:performance_report("report.html")` writes it at the end of the block.
---@param path string
---@param options table? code (a text to show as the calling code), mode (of bokeh: "inline", "cdn"), timeout
---@return saturn.PerformanceReport
function M.performance_report(client, path, options)
  if type(path) ~= "string" then errors.misuse(2, "performance_report needs the path of the HTML file") end
  options = errors.options(options, { code = "string", mode = "string", timeout = "number" })
  files.check_writable(path)
  -- Nothing is recorded before somebody asked for records.
  ask(client, "get_task_stream", { start = 0, stop = 0 }, options.timeout)
  return setmetatable({
    client = rawget(client, "_client") or client,
    path = path,
    start = os.time(),
    code = options.code or "",
    mode = options.mode,
    timeout = options.timeout,
  }, Report)
end

--- Writes the whole state of the scheduler and the workers for those who look for a bug in Dask. A path gets a file
--- here ("dump" becomes "dump.msgpack.gz"), which Python's `DumpArtefact.from_url` reads; an address with "://" is
--- written to by the scheduler.
---@param path string
---@param options table? exclude (fields to leave out; {"run_spec"}), format="msgpack"|"yaml" (what the scheduler
--- writes), timeout
---@return string path
function M.dump_cluster_state(client, path, options)
  if type(path) ~= "string" then errors.misuse(2, "dump_cluster_state needs the path of a file") end
  options = errors.options(options, { exclude = "table", format = "string", timeout = "number" })
  local exclude = options.exclude or { "run_spec" }
  if path:find("://", 1, true) then
    ask(client, "dump_cluster_state_to_url", {
      url = path, exclude = exclude, format = options.format or "msgpack",
    }, options.timeout)
    return path
  end
  if (options.format or "msgpack") ~= "msgpack" then
    errors.misuse(2, "a file of this machine is written as \"msgpack\"; the scheduler writes other formats to a URL")
  end
  if not path:find("%.msgpack%.gz$") then path = path .. ".msgpack.gz" end
  files.check_writable(path)
  local state = ask(client, "get_cluster_state", { exclude = exclude }, options.timeout, true)
  files.write(path, files.gzip(core.wire.encode(state)))
  return path
end

--- Writes where the scheduler is to a file that `saturn.client{scheduler_file=path}` and Python's
--- `Client(scheduler_file=path)` read.
---@param path string
---@param options table? timeout
function M.write_scheduler_file(client, path, options)
  if type(path) ~= "string" then errors.misuse(2, "write_scheduler_file needs the path of a file") end
  options = errors.options(options, TIMEOUT)
  local identity = ask(client, "identity", ops.identity(client.release, 0), options.timeout)
  identity.workers = {}
  files.write(path, require("cjson").encode(identity) .. "\n")
end

return M
