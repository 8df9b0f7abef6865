--- Waiting: the one place of the library that blocks or yields.
--
-- Each operation starts its work in C (which never blocks) and then calls `loop.wait(ready)`. Where that waits is
-- decided here: in the main thread of a script it polls the descriptors; in a coroutine of `loop.run` or
-- `loop.spawn` it yields until its own condition holds; in a coroutine of a host's loop for which an adapter was
-- installed (`loop.adapter`), the adapter yields to that host.

local core = require "saturn.core"
local errors = require "saturn.error"

local M = {}

local now = core.reactor.now

---@class saturn.loop.Task
---@field co thread
---@field ready function? what it waits for
---@field deadline number?
---@field done boolean
---@field ok boolean
---@field results table

local reactor                                    -- this Lua state's, made on first use
local tasks = {}                                 -- tasks that wait, in order of arrival
local managed = setmetatable({}, { __mode = "k" }) -- coroutine → its task
local timers = {}                                -- set of live timers
local listeners = setmetatable({}, { __mode = "k" }) -- objects whose on_round is called after the network moved
local adapter                                    -- function(seconds) that waits in the host's way, or nil

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
  local timer = setmetatable({ interval = interval, fn = fn, due = now() + interval }, Timer)
  timers[timer] = true
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
  local timeout = deadline and math.max(0, deadline - now()) or -1
  errors.check(M.reactor():poll(timeout))
  tell_listeners()
  run_timers()
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
end

-- A task goes on when its condition holds or its deadline passed; the condition is looked at again by the task
-- itself, so that an error in it is raised where it belongs.
local function due(task)
  if not task.ready then return true end
  local ok, result = pcall(task.ready)
  return not ok or result or (task.deadline and now() >= task.deadline)
end

local function resume_due_once()
  local waiting, resumed = tasks, false
  tasks = {}
  for _, task in ipairs(waiting) do
    if due(task) then
      resumed = true
      resume(task)
    else
      tasks[#tasks + 1] = task
    end
  end
  return resumed
end

-- One coroutine may make the condition of another true, with no descriptor involved.
local function resume_due()
  repeat until not resume_due_once()
end

--- One round: the network, the timers, and every coroutine whose condition came true. Waits at most `timeout`
--- seconds (default 0).
---@param timeout number?
function M.step(timeout)
  poll_until(now() + (timeout or 0))
  resume_due()
end

-- With many things to come, waking for each costs more than what it brings: rest for a small part of the time that
-- was waited already. `many` tells whether it is still so.
local REST_SHARE, LONGEST_REST = 0.02, 0.05

local function rest(many, started)
  if not many or #tasks > 0 or next(timers) or not many() then return end
  core.reactor.rest(math.min((now() - started) * REST_SHARE, LONGEST_REST))
end

local function wait_blocking(ready, deadline, many)
  local started = now()
  while true do
    local result = ready()
    if result then return result end
    if deadline and now() >= deadline then return nil end
    rest(many, started)
    poll_until(deadline)
    resume_due()
  end
end

local function wait_yielding(task, ready, deadline)
  while true do
    local result = ready()
    if result then return result end
    if deadline and now() >= deadline then return nil end
    task.ready, task.deadline = ready, deadline
    coroutine.yield()
  end
end

local function wait_adapted(ready, deadline)
  while true do
    local result = ready()
    if result then return result end
    local time = now()
    if deadline and time >= deadline then return nil end
    local until_ = earliest(deadline)
    local own = M.reactor():timeout()
    local seconds = until_ and math.max(0, until_ - time)
    if own and (not seconds or own < seconds) then seconds = own end
    adapter.wait(M.reactor():fd(), seconds)
    M.step(0)
  end
end

--- Waits until `ready()` returns something true and returns that; nil when `timeout` seconds pass first.
---@param ready fun(): any
---@param timeout number? nil: without end
---@param many (fun(): boolean)? whether much is still to come, so that being late by a fiftieth does no harm
---@return any
function M.poll(ready, timeout, many)
  local deadline = timeout and now() + timeout
  local task = managed[coroutine.running()]
  if task then return wait_yielding(task, ready, deadline) end
  if adapter and adapter.applies() then return wait_adapted(ready, deadline) end
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
  M.poll(function() return false end, seconds)
end

---@class saturn.loop.Handle
local Handle = {}
Handle.__index = Handle
Handle.__name = "saturn.coroutine"

--- Waits for the coroutine to end and returns what it returned, or raises what it raised.
---@param timeout number?
function Handle:join(timeout)
  local task = self.task
  M.wait(function() return task.done end, timeout, "a coroutine")
  if not task.ok then error(task.results[1], 0) end
  return table.unpack(task.results, 1, task.results.n)
end

function Handle:done()
  return self.task.done
end

--- Runs `fn(...)` in a coroutine of this loop: its blocking calls yield to the others. It starts at once.
---@param fn function
---@return saturn.loop.Handle
function M.spawn(fn, ...)
  local task = { co = coroutine.create(fn), done = false }
  managed[task.co] = task
  resume(task, ...)
  return setmetatable({ task = task }, Handle)
end

--- Runs several functions at once and waits for all; the first error is raised after all have ended.
---@param ... function
function M.run(...)
  local handles = {}
  for i, fn in ipairs({ ... }) do handles[i] = M.spawn(fn) end
  for _, handle in ipairs(handles) do M.wait(function() return handle.task.done end) end
  for _, handle in ipairs(handles) do handle:join() end
end

--- Installs a host loop's way to wait: `applies()` is true in a coroutine of that host, `wait(fd, seconds)` yields
--- there until the descriptor is readable or the time is over (nil: no limit). Nil takes it away.
function M.adapter(new)
  adapter = new
end

--- For a host's own loop: the descriptor to watch, for what, and for how long at most. nil where the system has none.
---@return integer?
function M.pollfd()
  return M.reactor():fd()
end

---@return string
function M.events()
  return "r"
end

---@return number? seconds
function M.timeout()
  local deadline = earliest(nil)
  local own = M.reactor():timeout()
  local left = deadline and math.max(0, deadline - now())
  if own and (not left or own < left) then return own end
  return left
end

return M
