--- Waiting: the one place of the library that blocks or yields.
--
-- Each operation starts its work in C (which never blocks) and then calls `loop.wait(ready)`. Where that waits is
-- decided here: in the main thread of a script it polls the descriptors; in a coroutine of `loop.run` or
-- `loop.spawn` it yields until its own condition holds; in a coroutine of a host's loop for which an adapter was
-- installed (`loop.adapter`), the adapter yields to that host. Where no yield is possible (a finalizer, a comparison
-- of table.sort), it blocks.

local core = require "saturn.core"
local errors = require "saturn.error"

local M = {}

local now = core.reactor.now

---@class saturn.loop.Task a coroutine that waits: one of this loop (co), or one of a host's (host)
---@field co thread?
---@field host saturn.loop.Host?
---@field ready function? what it waits for; nil: it yielded by itself, and goes on in the next round
---@field deadline number?
---@field done boolean
---@field ok boolean
---@field results table
---@field woken boolean? of a host's: its coroutine may go on
---@field failed boolean? of a host's: it goes on with the error `failure`

local reactor                                    -- this Lua state's, made on first use
local tasks = {}                                 -- tasks that wait, in order of arrival
local managed = setmetatable({}, { __mode = "k" }) -- coroutine → its task
local timers = {}                                -- set of live timers
local listeners = setmetatable({}, { __mode = "k" }) -- objects whose on_round is called after the network moved
local adapters = {}                              -- of hosts' loops, in the order in which they are asked
local armed = setmetatable({}, { __mode = "k" }) -- set of hosts whose loop watches the reactor
local driving = false                            -- whether a host's loop runs a round now
local unfinished = false                         -- an error ended the last round before all were told

-- How often to look where the system has no descriptor for a host to watch.
local TICK = 0.01

--- Monotonic seconds.
---@return number
function M.now()
  return now()
end

--- The reactor of this Lua state, for the C faces.
function M.reactor()
  if not reactor then reactor = errors.check(core.reactor.new()) end
  return reactor
end

--- Wakes waiting when `fd` is readable ("r"), writable ("w") or either ("rw"). Close it when done.
function M.watch(fd, mode)
  return errors.check(M.reactor():watch(fd, mode))
end

local function check_number(seconds, what)
  if type(seconds) ~= "number" then errors.misuse(3, "%s is a number of seconds, not %s", what, type(seconds)) end
end

---@class saturn.loop.Timer
local Timer = {}
Timer.__index = Timer
Timer.__name = "saturn.timer"

function Timer:cancel()
  timers[self] = nil
end

--- Calls `fn` every `interval` seconds whenever something waits (or the host steps), until cancelled.
---@param interval number
---@param fn function
---@return saturn.loop.Timer
function M.timer(interval, fn)
  check_number(interval, "the interval of a timer")
  errors.callable(fn, "what a timer calls")
  local timer = setmetatable({ interval = interval, fn = fn, due = now() + interval }, Timer)
  timers[timer] = true
  M.started()
  return timer
end

local function run_timers()
  if next(timers) == nil then return end
  local time, due = now(), {}
  for timer in pairs(timers) do
    if timer.due <= time then due[#due + 1] = timer end
  end
  for _, timer in ipairs(due) do
    if timers[timer] then
      timer.due = time + timer.interval
      timer.fn()
    end
  end
end

local function earliest(deadline)
  for timer in pairs(timers) do
    if not deadline or timer.due < deadline then deadline = timer.due end
  end
  for _, task in ipairs(tasks) do
    if not task.ready then return 0 end
    if task.deadline and (not deadline or task.deadline < deadline) then deadline = task.deadline end
  end
  return deadline
end

--- Calls `object:on_round()` after each round in which the network moved, as long as the object lives.
---@param object table
function M.listen(object)
  listeners[object] = true
end

local function tell_listeners()
  if next(listeners) == nil then return end
  local told = {}
  for object in pairs(listeners) do told[#told + 1] = object end
  local call = errors.first()
  for _, object in ipairs(told) do call(object.on_round, object) end
  call()
end

local function poll_until(deadline)
  deadline = earliest(deadline)
  local timeout = unfinished and 0 or deadline and math.max(0, deadline - now()) or -1
  errors.check(M.reactor():poll(timeout))
  unfinished = true
  tell_listeners()
  run_timers()
  unfinished = false
end

-- Nobody will ask for this error any more: Lua's warnings are where it can still be seen.
local function warn_of(task)
  local ok, text = pcall(tostring, task.results[1]) -- an error object's __tostring may fail, too
  warn("saturn: a coroutine that nobody joined failed: ", ok and text or "with an error that has no text")
end

local function resume(task, ...)
  local results = table.pack(coroutine.resume(task.co, ...))
  if coroutine.status(task.co) ~= "dead" then
    tasks[#tasks + 1] = task
    return
  end
  managed[task.co] = nil
  task.done, task.ok = true, results[1]
  task.results = table.pack(table.unpack(results, 2, results.n))
  if task.abandoned and not task.ok then warn_of(task) end
end

local function wake(task)
  if not task.host then return resume(task) end
  task.woken = true
  task.host.waiting = task.host.waiting - 1
  task.host:wake(task)
end

-- A task goes on when its condition holds or, once in a round, its deadline passed; the condition is looked at again by
-- the task itself, so that an error in it is raised where it belongs.
local function due(task, first)
  local ok, result = pcall(task.ready)
  return not ok or result or (first and task.deadline and now() >= task.deadline)
end

local function wake_due_once(first)
  local waiting, any = tasks, false
  tasks = {}
  for _, task in ipairs(waiting) do
    local go = first
    if task.ready then go = due(task, first) end
    if go then
      any = true
      wake(task)
    else
      tasks[#tasks + 1] = task
    end
  end
  return any
end

-- One coroutine may make the condition of another true, with no descriptor involved. Returns whether any went on.
local function wake_due()
  local any = wake_due_once(true)
  if any then repeat until not wake_due_once(false) end
  return any
end

-- An error of a callback is for whoever waits; the coroutines go on all the same.
local function round(deadline)
  local ok, err = pcall(poll_until, deadline)
  wake_due()
  M.started()
  if not ok then error(err, 0) end
end

--- One round: the network, the timers, and every coroutine whose condition came true. Waits at most `timeout`
--- seconds (default 0).
---@param timeout number?
function M.step(timeout)
  errors.timeout(timeout)
  if wake_due() then timeout = 0 end -- what the program did meanwhile may have been waited for
  round(now() + (timeout or 0))
end

-- With many things to come, waking for each costs more than what it brings: rest for a small part of the time that
-- was waited already. `many` tells whether it is still so.
local REST_SHARE, LONGEST_REST = 0.02, 0.2

local function rest(many, started, deadline)
  if not many or #tasks > 0 or next(timers) or not many() then return end
  local seconds = math.min((now() - started) * REST_SHARE, LONGEST_REST)
  core.reactor.rest(deadline and math.max(0, math.min(seconds, deadline - now())) or seconds)
end

-- Asked after a round only: who asks again and again without time to wait has the network go on all the same.
local function over(deadline)
  return deadline ~= nil and now() >= deadline
end

local function wait_blocking(ready, deadline, many)
  local started = now()
  local result = ready()
  if not result and wake_due() then result = ready() end -- what the program did meanwhile may have been waited for
  while not result do
    rest(many, started, deadline)
    round(deadline)
    result = ready()
    if not result and over(deadline) then return nil end
  end
  return result
end

local function wait_yielding(task, ready, deadline)
  local result = ready()
  while not result do
    task.ready, task.deadline = ready, deadline
    coroutine.yield()
    task.ready, task.deadline = nil, nil
    result = ready()
    if not result and over(deadline) then return nil end
  end
  return result
end

-- ---- hosts' loops -----------------------------------------------------------------------------------------------

---@class saturn.loop.Host a loop of the program that hosts this one, as an adapter shows it
---@field park fun(self: saturn.loop.Host, task: saturn.loop.Task) yields the running coroutine until `wake(task)`
---@field wake fun(self: saturn.loop.Host, task: saturn.loop.Task) has the host resume it, soon but not at once
---@field arm fun(self: saturn.loop.Host, fd: integer?, seconds: number?) has the host call `loop.turn(self)` when the
--- descriptor is readable, and after some seconds (nil: no limit), again and again until `disarm`; a second call
--- replaces the first
---@field disarm fun(self: saturn.loop.Host) nothing is watched, and nothing of this keeps the host's loop running
---@field waiting integer? coroutines that are parked
---@field kept integer? of `loop.keep`
---@field due number? for when it is armed

---@class saturn.loop.Adapter
---@field current fun(): saturn.loop.Host? the host that resumed the running coroutine, which can yield
---@field any boolean? it takes any coroutine for its host's, so it is asked after the others

--- Installs the adapter of a host's loop: blocking calls in its coroutines yield there. Twice is once.
---@param adapter saturn.loop.Adapter
function M.adapter(adapter)
  M.remove_adapter(adapter)
  table.insert(adapters, adapter.any and #adapters + 1 or 1, adapter)
end

--- Takes an adapter away: calls in new coroutines of its host block.
---@param adapter saturn.loop.Adapter
function M.remove_adapter(adapter)
  for i, each in ipairs(adapters) do
    if each == adapter then table.remove(adapters, i) break end
  end
end

-- The host of the running coroutine. A callback that a round runs must not wait for that round's end.
local function current_host()
  if driving then return nil end
  for _, adapter in ipairs(adapters) do
    local host = adapter.current()
    if host then return host end
  end
end

local function see_to(host)
  local seconds = M.timeout()
  local time = seconds and now() + seconds or math.huge
  if host.due and host.due <= time then return end
  host.due, armed[host] = time, true
  host:arm(M.pollfd(), seconds)
end

--- To be called when something was begun without waiting for it: the hosts' loops look when they must be back.
function M.started()
  for host in pairs(armed) do see_to(host) end
end

local function needed(host)
  return (host.waiting or 0) > 0 or (host.kept or 0) > 0
end

local function release(host)
  if needed(host) or not armed[host] then return end
  armed[host] = nil
  host:disarm()
end

-- Who waits in the host is told of an error in a callback, as who waits in the main thread is.
local function fail_first(host, err)
  for i, task in ipairs(tasks) do
    if task.host == host then
      table.remove(tasks, i)
      task.failed, task.failure = true, err
      wake(task)
      return true
    end
  end
end

--- One round in a host's loop; for adapters. An error in a callback is raised where a coroutine of the host waits, and
--- here when none does.
---@param host saturn.loop.Host
function M.turn(host)
  driving = true
  local ok, err = pcall(poll_until, 0)
  local told = ok or fail_first(host, err)
  wake_due()
  driving = false
  host.due = nil
  release(host)
  if needed(host) then see_to(host) end
  M.started()
  if not told then error(err, 0) end
end

local function park(host, ready, deadline)
  local task = { host = host, ready = ready, deadline = deadline }
  tasks[#tasks + 1] = task
  host.waiting = (host.waiting or 0) + 1
  see_to(host)
  while not task.woken do host:park(task) end
  if task.failed then error(task.failure, 0) end
end

local function wait_hosted(host, ready, deadline)
  local result = ready()
  while not result do
    park(host, ready, deadline)
    result = ready()
    if not result and over(deadline) then return nil end
  end
  return result
end

---@class saturn.loop.Kept
local Kept = {}
Kept.__index = Kept
Kept.__name = "saturn.loop.kept"

--- From now on the network moves again only while something waits. Safe to call twice.
function Kept:close()
  local host = self.host
  if not host then return end
  self.host = nil
  host.kept = host.kept - 1
  release(host)
end

Kept.__close = Kept.close

function Kept:__tostring()
  return ("<saturn.loop.kept: %s>"):format(self.host and "running" or "closed")
end

--- The network moves in the host's loop also while no coroutine waits, and keeps that loop running; for adapters.
---@param host saturn.loop.Host
---@return saturn.loop.Kept kept `:close()` ends it
function M.keep(host)
  host.kept = (host.kept or 0) + 1
  see_to(host)
  return setmetatable({ host = host }, Kept)
end

-- ---- waiting ----------------------------------------------------------------------------------------------------

--- Waits until `ready()` returns something true and returns that; nil when `timeout` seconds pass first.
---@param ready fun(): any
---@param timeout number? nil: without end
---@param many (fun(): boolean)? whether much is still to come, so that being late by a fiftieth does no harm
---@return any
function M.poll(ready, timeout, many)
  local deadline = timeout and now() + timeout
  if coroutine.isyieldable() then
    local task = managed[coroutine.running()]
    if task then return wait_yielding(task, ready, deadline) end
    local host = current_host()
    if host then return wait_hosted(host, ready, deadline) end
  end
  return wait_blocking(ready, deadline, many)
end

--- `loop.poll` that raises a "timeout" error which says what was waited for.
---@param ready fun(): any
---@param timeout number?
---@param what string e.g. "the result of inc-1"
---@param many (fun(): boolean)?
---@return any
function M.wait(ready, timeout, what, many)
  local result = M.poll(ready, timeout, many)
  if not result then
    errors.raise("timeout", ("%s took longer than %g seconds"):format(what or "the operation", timeout))
  end
  return result
end

local MANY = 64

--- Waits until `done(item)` holds for all items of a list.
---@param list any[]
---@param done fun(item: any): boolean
---@param timeout number?
---@param what string
function M.wait_all(list, done, timeout, what)
  local at, count = 1, #list
  M.wait(function()
    while at <= count and done(list[at]) do at = at + 1 end
    return at > count
  end, timeout, what, function() return count - at > MANY end)
end

--- Waits for some seconds while the network goes on.
---@param seconds number
function M.sleep(seconds)
  check_number(seconds, "what to sleep for")
  M.poll(function() return false end, seconds)
end

---@class saturn.loop.Handle
local Handle = {}
Handle.__index = Handle
Handle.__name = "saturn.coroutine"

--- Waits for the coroutine to end and returns what it returned, or raises what it raised.
---@param timeout number?
function Handle:join(timeout)
  errors.timeout(timeout)
  local task = self.task
  M.wait(function() return task.done end, timeout, "a coroutine")
  task.joined = true
  if not task.ok then error(task.results[1], 0) end
  return table.unpack(task.results, 1, task.results.n)
end

function Handle:done()
  return self.task.done
end

function Handle:__gc()
  local task = self.task
  if task.done and not task.ok and not task.joined then warn_of(task) end
  task.abandoned = true
end

local function spawn(fn, ...)
  -- a coroutine is made of a function only, not of what can be called like one
  local body = type(fn) == "function" and fn or function(...) return fn(...) end
  local task = { co = coroutine.create(body), done = false }
  managed[task.co] = task
  resume(task, ...)
  return setmetatable({ task = task }, Handle)
end

--- Runs `fn(...)` in a coroutine of this loop: its blocking calls yield to the others. It starts at once.
---@param fn function
---@return saturn.loop.Handle
function M.spawn(fn, ...)
  errors.callable(fn, "what loop.spawn runs")
  return spawn(fn, ...)
end

--- Runs several functions at once and waits for all; the first error is raised after all have ended.
---@param ... function
function M.run(...)
  local fns, handles = table.pack(...), {}
  for i = 1, fns.n do errors.callable(fns[i], "what loop.run runs") end
  for i, fn in ipairs(fns) do handles[i] = spawn(fn) end
  for _, handle in ipairs(handles) do M.wait(function() return handle.task.done end) end
  for _, handle in ipairs(handles) do handle:join() end
end

--- For a host's own loop: the descriptor to watch, which is always the same; nil where the system has none.
---@return integer?
function M.pollfd()
  return M.reactor():fd()
end

--- What to watch it for: "r", readable.
---@return string
function M.events()
  return "r"
end

--- After how long to call `loop.step` at the latest, also when the descriptor is not readable; nil: no limit.
---@return number? seconds
function M.timeout()
  local deadline = earliest(nil)
  local own = unfinished and 0 or M.reactor():timeout()
  local left = deadline and math.max(0, deadline - now())
  if own and (not left or own < left) then left = own end
  if M.pollfd() then return left end
  return math.min(left or TICK, TICK)
end

return M
