--- The client of one Dask scheduler: connects, finds out which release it talks to, and submits work.

local core = require "saturn.core"
local endpoint = require "saturn.dask.endpoint"
local errors = require "saturn.error"
local future = require "saturn.dask.future"
local gather = require "saturn.dask.gather"
local loop = require "saturn.loop"
local node = require "saturn.dask.node"
local call_options = require "saturn.dask.options"
local ops = require "saturn.dask.ops"
local resume = require "saturn.dask.resume"
local server = require "saturn.dask.server"
local summary = require "saturn.dask.summary"

---@class saturn.Client
---@field address string the scheduler's address
---@field id string this client's name on the scheduler
---@field name string?
---@field request_timeout number seconds a request may take
---@field version string the scheduler's release of distributed
---@field release integer the same as a number, for comparisons
---@field dashboard_link string? where the dashboard is (asked for when first read)
local Client = {}
Client.__name = "saturn.client"

local M = { Client = Client }

-- method → the module that has it as a function of the same name, taking the client first; loaded on first use
local METHODS = {
  variable = "variable", queue = "queue", event = "event",
  lock = "lock", semaphore = "lock", multi_lock = "lock",
  publish = "dataset", datasets = "dataset", dataset = "dataset", unpublish = "dataset",
  set_metadata = "metadata", get_metadata = "metadata",
  log_event = "topics", events = "topics", subscribe = "topics", unsubscribe = "topics",
  actor = "actor",
  run = "run", run_on_scheduler = "run",
  upload_file = "plugin", register_plugin = "plugin", unregister_plugin = "plugin",
  restart = "workers", restart_workers = "workers", retire_workers = "workers", replicate = "workers",
  rebalance = "workers", amm = "workers", shutdown = "workers",
  nthreads = "inspect", who_has = "inspect", has_what = "inspect", processing = "inspect", nbytes = "inspect",
  call_stack = "inspect", scheduler_logs = "inspect", worker_logs = "inspect", task_stream = "inspect",
  profile = "inspect", story = "inspect", performance_report = "inspect", dump_cluster_state = "inspect",
  write_scheduler_file = "inspect", versions = "inspect",
  scatter = "scatter", scatter_list = "scatter", scatter_dict = "scatter",
  cancel = "control", retry = "control", futures_of = "control",
  compute = "compute", persist = "compute", get = "compute",
  reconnect = "resume", held = "resume", release_held = "resume", detach = "resume",
}

local FIRST_RETRY, LONGEST_RETRY = 0.05, 2

-- The tables that M.new made: the session of a client is theirs, and not of a copy that somebody made of one.
local made = setmetatable({}, { __mode = "k" })

-- ---- connecting -------------------------------------------------------------------------------------------------

local KNOWN = {
  timeout = "number", name = "string", direct = "boolean", tls = "table", limits = "table", proxy = "string",
  resume = "boolean|string", resume_timeout = "number", heartbeat = "number", on_status = "function",
}

local function release_of(versions)
  local packages = type(versions) == "table" and versions.packages
  local version = type(packages) == "table" and packages.distributed or nil
  return version, ops.release(version)
end

-- A build without a proper version: what the answer to `identity` holds tells the newest form from the rest.
local function guess_release(scheduler, timeout)
  local ok, identity = pcall(scheduler.call, scheduler, "identity", nil, timeout)
  if ok then return identity.total_threads and 20250400 or nil end
  if not (errors.is_error(identity) and identity.kind == "protocol") then error(identity, 0) end
end

local function check_release(version, release)
  if not release then
    errors.raise("protocol", ("the scheduler says its version of distributed is '%s', which is no release: saturn "
      .. "supports 2022.12 and newer"):format(tostring(version)))
  end
  if release < ops.oldest then
    errors.raise("protocol", ("the scheduler runs distributed %s, which is too old: saturn supports 2022.12 and newer"
      ):format(version))
  end
end

--- Asks what release the scheduler is of.
---@param deadline number
function Client:ask_release(deadline)
  local scheduler = self.scheduler
  local call = scheduler:start("versions")
  local left = math.max(0, deadline - loop.now())
  local version, release = release_of(call:wait(left))
  if not release then release = guess_release(scheduler, left) end
  check_release(version, release)
  self.version, self.release = version, release
end

-- Asks what the scheduler is while the session registers there.
local function introduce(self, session, deadline)
  self:ask_release(deadline)
  local look = self.scheduler:start("identity", ops.identity(self.release, 0)) -- for tostring, which asks nobody
  loop.wait(function() return errors.check(session:state()) and look:done() end, math.max(0, deadline - loop.now()),
    "the registration at the scheduler")
  self.session, self._look = session, look
end

local function attempt(self, options, deadline)
  local session = errors.check(core.session.open(loop.reactor(), options))
  local ok, err = pcall(introduce, self, session, deadline)
  if not ok then
    session:close("the client could not connect")
    error(err, 0)
  end
end

-- How requests that broke off go on; of the client, which may be collected before its requests.
local function recovery(self)
  local weak = setmetatable({ client = self }, { __mode = "v" })
  return function(...) return weak.client ~= nil and resume.recover(weak.client, ...) end
end

-- A scheduler that is still starting refuses connections: try again, as Dask's own client does. An address that is
-- none is told at once.
local function connect(self, options)
  local deadline = loop.now() + self.request_timeout
  local pause, refused = FIRST_RETRY, nil
  self.scheduler = server.new(options)
  self.scheduler.recover = recovery(self)
  while true do
    local ok, err = pcall(attempt, self, options, deadline)
    if ok then return end
    local left = deadline - loop.now()
    local kind = errors.is_error(err) and err.kind
    if kind == "connect" then refused = err end
    if kind ~= "connect" or left <= 0 then
      self.scheduler:close()
      error(kind == "timeout" and refused or err, 0) -- why it was tried so long says more than that time is up
    end
    loop.sleep(math.min(left, pause * (0.5 + math.random())))
    pause = math.min(pause * 2, LONGEST_RETRY)
  end
end

--- Connects to a scheduler.
---@param address string "tcp://host:8786" or "tls://host:8786"
---@param options table? timeout (30 s), name, direct, tls={ca=, cert=, key=, verify_host=, server_name=}, limits,
--- proxy; resume: true, or a name: a broken connection is made again, and what was submitted goes on; resume_timeout
--- (300 s): when that is given up; heartbeat: the connection counts as broken when the scheduler leaves a question
--- unanswered for so many seconds; on_status(status, reason): called with "connected", "connecting" or "lost"
---@return saturn.Client
function M.new(address, options)
  options = errors.options(options, KNOWN)
  local link = resume.link(options)
  local self = {
    address = address,
    held_name = link.keep,
    _link = link,
    name = options.name,
    request_timeout = options.timeout or 30,
    direct = options.direct or false,
    _prefix = core.session.random(12),
    _sequence = 0,
    _workers = {},
    _watchers = {},
    _listeners = {},
    _owned = setmetatable({}, { __mode = "k" }),
  }
  self._endpoint = endpoint.new(address, options)
  setmetatable(self, Client)
  made[self] = true
  self.id = self:new_id()
  local session_options = { id = self.id, keep = link.keep }
  for name, value in pairs(self._endpoint) do session_options[name] = value end
  connect(self, session_options)
  loop.listen(self)
  if options.heartbeat then resume.heartbeat(self, options.heartbeat) end
  return self
end

-- ---- fields, and views with options -----------------------------------------------------------------------------

-- Keeps what the scheduler said of itself, when it was asked at the beginning or since.
local function note(self, identity)
  rawset(self, "_look", nil)
  rawset(self, "_summary", summary.of(identity))
end

-- What is known without asking.
local function known(self)
  local look = rawget(self, "_look")
  if look and look:done() then
    rawset(self, "_look", nil)
    local ok, identity = pcall(look.reply, look)
    if ok then note(self, identity) end
  end
  return rawget(self, "_summary")
end

local function dashboard_link(self)
  local look = rawget(self, "_look")
  if look then
    note(self, look:wait(self.request_timeout))
  elseif not rawget(self, "_summary") then
    note(self, self.scheduler:call("identity", ops.identity(self.release, 0), self.request_timeout))
  end
  return summary.dashboard(rawget(self, "_summary"), self.address)
end

function Client.__index(self, name)
  if name == "dashboard_link" and rawget(self, "scheduler") and not rawget(self, "closed") then
    local link = dashboard_link(self)
    rawset(self, name, link)
    return link
  end
  if name == "status" and rawget(self, "_link") then return resume.status(self) end
  local method = Client[name]
  if method == nil and METHODS[name] then
    method = require("saturn.dask." .. METHODS[name])[name]
    Client[name] = method
  end
  return method
end

--- Address, workers, threads, memory and dashboard as of the last look (at the beginning, and with each scheduler_info
--- and wait_for_workers); asks nobody.
function Client:__tostring()
  local parts = { self.address, "distributed " .. (rawget(self, "version") or "?") }
  local seen = not rawget(self, "closed") and known(self)
  if seen then parts[#parts + 1] = summary.text(seen, self.address) end
  local status = self.status
  if status and status ~= "connected" then parts[#parts + 1] = status end
  return ("<saturn.client: %s>"):format(table.concat(parts, ", "))
end

--- A name for one connection of this client.
function Client:new_id()
  return (self.name and self.name .. "-" or "saturn-") .. core.session.random(16)
end

--- Raises unless the client can be used; waits while the connection is being made again.
function Client:check_open()
  if self.closed then errors.raise("closed", "the client is closed") end
  if self._link.state ~= "connected" then resume.wait(rawget(self, "_client") or self) end
end

--- A view of the client whose calls carry these; a view of a view carries both.
---@param options table key: of submit's task, or the leading part (or list) of map's keys; priority: higher comes
--- first; retries: after so many failures the task failed; workers: names or addresses it may run on;
--- allow_other_workers: those are only preferred; resources: {name = amount} it takes from its worker; pure: equal
--- calls are one task; actor: the result stays on its worker as an actor; tags: the spans it belongs to; batch_size:
--- how many calls of map go into one message
---@return saturn.Client
function Client:with(options)
  local merged = call_options.merge(rawget(self, "_with"), options, 2)
  local client = rawget(self, "_client") or self
  local span_id = merged.span and merged.span.ids[#merged.span.ids]
  return setmetatable({ _with = merged, _client = client, span_id = span_id }, {
    __index = function(_, name) return client[name] end,
    __newindex = function(_, name, value) client[name] = value end,
    __name = Client.__name,
    __tostring = function() return tostring(client) end,
    __close = function() client:close() end,
  })
end

-- ---- the stream -------------------------------------------------------------------------------------------------

--- Sends one op of the stream.
function Client:send(op)
  self:check_open()
  errors.check(self.session:send(op))
end

--- Waits until the scheduler has done all that was sent on the stream, and what it says to that is here. Requests go on
--- connections of their own, which may be faster.
---@param timeout number?
function Client:settle(timeout)
  local key = self:new_key("settle")
  local probe <close> = self.session:future(key, rawget(self, "_client") or self, true)
  self:send { op = "report-key", key = key } -- no task has this key, and the answer to that is that it is cancelled
  loop.wait(function() return probe.status ~= "pending" end, timeout, "an answer of the scheduler")
end

--- Tells those who watch the Futures of a key that something changed. All are told, then the first error is raised.
---@param id string
function Client:tell(id)
  local watchers = self._watchers[id]
  if not watchers then return end
  local call = errors.first()
  for _, watcher in ipairs({ table.unpack(watchers) }) do call(watcher, id) end
  call()
end

-- Tells those who wait what changed on the stream. All are told, then the first error of one of them is raised.
local function deliver(self)
  local session, call = self.session, errors.first()
  local id = session:changed()
  while id do
    call(self.tell, self, id)
    id = session:changed()
  end
  local event = session:event()
  while event do
    local listener = self._listeners[event.op]
    if listener then call(listener, event) end
    event = session:event()
  end
  call()
end

--- Called by the loop after the network moved.
function Client:on_round()
  if self.closed then return end
  local call = errors.first()
  call(resume.look, self)
  call(deliver, self)
  call()
end

--- Calls `fn(id)` whenever the state of the Future changes. Returns a function that ends it.
function Client:watch(a_future, fn)
  local id = a_future:id()
  local watchers = self._watchers[id]
  if not watchers then
    watchers = {}
    self._watchers[id] = watchers
  end
  a_future:watch(true)
  watchers[#watchers + 1] = fn
  return function()
    for i, each in ipairs(watchers) do
      if each == fn then table.remove(watchers, i) break end
    end
    if #watchers == 0 and self._watchers[id] == watchers then self._watchers[id] = nil end
  end
end

--- Calls `fn(event)` for each message of the stream with this op.
function Client:listen(op, fn)
  self._listeners[op] = fn
end

-- ---- submitting -------------------------------------------------------------------------------------------------

function Client:new_key(prefix)
  local client = rawget(self, "_client") or self
  client._sequence = client._sequence + 1
  return ("%s-%s%08x"):format(prefix, client._prefix, client._sequence)
end

--- A graph that carries the options of this view.
function Client:new_graph(interactive)
  self:check_open()
  local with = rawget(self, "_with") or {}
  local graph = self.session:graph(self.release)
  graph:options(interactive, with.actor or false)
  call_options.annotate(self, graph)
  return graph
end

function Client:add_task(graph, key, callable, args, nargs, kwargs)
  errors.check(graph:task(key, callable.module, callable.name, callable.source, args, nargs, kwargs))
end

--- Calls a Python function on the cluster.
---@param fn any "package.module.name", saturn.py.ref(...) or saturn.py.fn[[...]]
---@param ... any arguments: values, Futures, tables of both; saturn.py.kw{...} last for keyword arguments
---@return saturn.Future
function Client:submit(fn, ...)
  local callable = node.callable(fn, 2)
  local args, nargs, kwargs = node.arguments(table.pack(...))
  local key = call_options.key(self, callable, args, nargs, kwargs)
  local graph = self:new_graph(true)
  self:add_task(graph, key, callable, args, nargs, kwargs)
  graph:want(key)
  errors.check(self.session:submit(graph))
  return self.session:future(key, rawget(self, "_client") or self)
end

local function check_lists(lists, count)
  if count == 0 then errors.misuse(3, "map needs a list of values to call the function with") end
  local length
  for i = 1, count do
    local list = lists[i]
    if type(list) == "function" then
      errors.misuse(3, "map needs lists, but argument %d is a function: collect what an iterator gives in a table "
        .. "first", i + 1)
    end
    if type(list) ~= "table" then errors.misuse(3, "map needs lists, but argument %d is a %s", i + 1, type(list)) end
    length = math.min(length or #list, #list)
  end
  return length
end

-- Calls number first to last of a map in one message. Futures are made at once, so that what was sent is let go when a
-- later call cannot be sent.
local function map_batch(self, call, key_of, first, last, futures)
  local graph, keys, seen = self:new_graph(true), {}, {}
  local args, lists, count, kwargs = {}, call.lists, call.count, call.kwargs
  for i = first, last do
    for j = 1, count do args[j] = lists[j][i] end
    local key = key_of(i, args, count, kwargs)
    if not seen[key] then
      self:add_task(graph, key, call.callable, args, count, kwargs)
      graph:want(key)
      seen[key] = true
    end
    keys[i] = key
  end
  errors.check(self.session:submit(graph))
  local session, client = self.session, rawget(self, "_client") or self
  for i = first, last do futures[i] = session:future(keys[i], client) end
end

--- Calls a Python function for each element of a list, or for the elements of several lists side by side, to the
--- shortest. All go to the scheduler in one message, or in several with the option batch_size.
---@param fn any as for submit
---@param ... table lists; saturn.py.kw{...} last for keyword arguments that all calls share
---@return saturn.Future[]
function Client:map(fn, ...)
  local callable = node.callable(fn, 2)
  local lists, count, kwargs = node.arguments(table.pack(...))
  local length = check_lists(lists, count)
  local key_of = call_options.keys(self, callable, length)
  local batch = call_options.batch_size(self, length)
  local call = { callable = callable, lists = lists, count = count, kwargs = kwargs }
  local futures = {}
  for first = 1, length, batch do
    map_batch(self, call, key_of, first, math.min(length, first + batch - 1), futures)
  end
  return futures
end

--- The values of Futures in any nesting of tables; what is no Future stays as it is.
---@param nested any
---@param options table? errors="raise"|"skip", direct, timeout
function Client:gather(nested, options)
  self:check_open()
  return gather.gather(rawget(self, "_client") or self, nested, options)
end

-- ---- the cluster ------------------------------------------------------------------------------------------------

--- What the scheduler says about itself and its workers.
---@param timeout number? seconds; nil: as long as any request may take
---@return table
function Client:scheduler_info(timeout)
  errors.timeout(timeout)
  self:check_open()
  local info = self.scheduler:call("identity", ops.identity(self.release, -1), timeout or self.request_timeout)
  note(rawget(self, "_client") or self, info)
  return info
end

local FIRST_LOOK, LONGEST_LOOK = 0.02, 1
-- A timeout of 0 asks how it is now, and the answer takes a moment.
local SHORTEST_ASK = 1

--- Waits until at least n workers have joined.
---@param n integer
---@param timeout number?
---@return integer workers
function Client:wait_for_workers(n, timeout)
  if math.type(n) ~= "integer" or n < 1 then errors.misuse(2, "wait_for_workers needs a number of workers") end
  errors.timeout(timeout)
  local deadline = timeout and loop.now() + timeout
  local left, pause = timeout or math.huge, FIRST_LOOK
  while true do
    local count = 0
    local patience = math.min(math.max(left, SHORTEST_ASK), self.request_timeout)
    for _ in pairs(self:scheduler_info(patience).workers) do count = count + 1 end
    if count >= n then return count end
    left = deadline and deadline - loop.now() or math.huge
    if left <= 0 then
      errors.raise("timeout", ("%d of %d workers have joined within %g seconds: look into the workers' logs, or wait "
        .. "longer"):format(count, n, timeout))
    end
    loop.sleep(math.min(left, pause))
    pause = math.min(pause * 1.5, LONGEST_LOOK)
  end
end

-- ---- a host's own loop ------------------------------------------------------------------------------------------

--- One round of the network and of what hangs on it; waits at most `timeout` seconds (default 0).
function Client:step(timeout)
  errors.timeout(timeout)
  loop.step(timeout)
end

function Client:pollfd()
  return loop.pollfd()
end

function Client:timeout()
  return loop.timeout()
end

-- ---- the end ----------------------------------------------------------------------------------------------------

local CLOSE_PATIENCE = 2

--- Calls `object:close()` when the client is closed, as long as the object lives: what it holds on the scheduler goes.
function Client:own(object)
  self._owned[object] = true
end

local function close_owned(self)
  local owned = {}
  for object in pairs(self._owned) do owned[#owned + 1] = object end
  for _, object in ipairs(owned) do pcall(object.close, object) end
end

--- Leaves the scheduler: its keys are released there. Safe to call twice.
function Client:close()
  if self.closed then return end
  close_owned(self)
  local session, call = self.session, errors.first()
  -- what is held can be let go over a connection only
  call(loop.poll, function() return self._link.state ~= "connecting" end, CLOSE_PATIENCE)
  session:flush()
  call(loop.poll, function() return session:drained() end, CLOSE_PATIENCE)
  session:close("the client was closed")
  self.closed = true
  for _, worker in pairs(self._workers) do worker:close() end
  self.scheduler:close()
  if self.on_close then call(self.on_close) end
  call(deliver, self) -- those who wait for a task learn that it will not come
  call()
end

Client.__close = Client.close

-- Collection must not wait: what has not left yet stays unsent.
function Client:__gc()
  if not made[self] or rawget(self, "closed") or not rawget(self, "session") then return end
  rawset(self, "closed", true)
  self.session:close("the client was collected")
  self.scheduler:close()
end

future.install()

return M
