-- Variables, queues, locks, events, topics, metadata and datasets on a real scheduler, among clients in Lua and with
-- Python's own objects: those of a client of the same release, and those that tasks use on workers.
local dask = require "spec.support.dask"
local saturn = require "saturn"
local support = require "spec.support"

local loop, py, raises = saturn.loop, saturn.py, support.raises

-- Seconds after which a lease ends whose holder is silent.
local LEASE = 1.5

describe("coordination", function()
  local cluster, client, other

  setup(function()
    cluster = dask.start {
      workers = 2, nthreads = 2,
      config = {
        ["distributed.scheduler.locks.lease-timeout"] = LEASE .. "s",
        ["distributed.scheduler.locks.lease-validation-interval"] = "100ms",
      },
    }
    client = saturn.client(cluster.address, { timeout = 10 })
    other = saturn.client(cluster.address, { timeout = 10 })
  end)
  teardown(function()
    if client then client:close() end
    if other then other:close() end
    if cluster then cluster:stop() end
  end)

  local count = 0
  local function fresh(prefix)
    count = count + 1
    return prefix .. "-" .. count
  end

  local function elapsed(fn, ...)
    local start = loop.now()
    fn(...)
    return loop.now() - start
  end

  -- Whether the cluster lets go of the key within a few seconds.
  local function forgotten(key)
    local deadline = loop.now() + 5
    repeat
      local who_has = client.scheduler:call("who_has", { keys = { key } }, 5)
      if #(who_has[key] or {}) == 0 then return true end
      loop.sleep(0.02)
    until loop.now() > deadline
    return false
  end

  -- Another client, of one test.
  local function third() return saturn.client(cluster.address, { timeout = 10 }) end

  describe("variables", function()
    it("test_variable: a Future goes from client to client, and the next value lets it go", function()
      local name = fresh "x"
      local mine, theirs = client:variable(name), other:variable(name)
      local future = client:submit("operator.add", 1, 2)
      mine:set(future)
      local key = future.key
      local got = theirs:get(5)
      assert.equal(key, got.key)
      assert.equal(3, got:result(5))
      local second = client:submit("operator.add", 1, 10)
      mine:set(second)
      local again = theirs:get(5)
      assert.equal(11, again:result(5))
      future:release()
      got:release()
      assert.is_true(forgotten(key))
      mine:delete()
      local key2 = second.key
      second:release()
      again:release()
      assert.is_true(forgotten(key2))
    end)

    it("test_hold_futures: a Future in a variable outlives the client that set it", function()
      local name = fresh "x"
      do
        local setter <close> = third()
        setter:variable(name):set(setter:submit("operator.add", 5, 5))
      end
      local variable = client:variable(name)
      local future = variable:get(5)
      assert.equal(10, future:result(5))
      variable:delete()
    end)

    it("holds a task that the scheduler has hardly heard of", function()
      local name = fresh "x"
      local mine, theirs = client:variable(name), other:variable(name)
      for i = 1, 20 do
        mine:set(client:submit("operator.add", i, 1))
        collectgarbage()
        assert.equal(i + 1, theirs:get(5):result(5))
      end
      mine:delete()
    end)

    it("test_timeout: get raises in time while nobody sets it", function()
      local variable = client:variable(fresh "x")
      local time = elapsed(raises, "timeout", "was not set within 0.1 seconds", variable.get, variable, 0.1)
      assert.is_true(time >= 0.1 and time < 1.5, time)
      raises("timeout", variable.get, variable, 0)
      variable:set(1)
      assert.equal(1, variable:get(0))
    end)

    it("test_variable_in_task: get waits for the value that a task sets", function()
      local name = fresh "x"
      local task = client:submit(py.fn [[
def put(name):
    from distributed import Variable
    Variable(name).set([1, "two"])
    return True
]], name)
      local value = client:variable(name):get(10)
      assert.same({ 1, "two" }, { value[1], value[2] })
      assert.is_true(task:result(5))
    end)

    it("test_erred_future: a failed Future fails for whoever gets it", function()
      local name = fresh "x"
      local future = client:submit("operator.truediv", 1, 0)
      client:variable(name):set(future)
      for _ = 1, 2 do
        local got = other:variable(name):get(5)
        local err = raises("task", "division by zero", got.result, got, 5)
        assert.equal("ZeroDivisionError", err.type)
      end
    end)

    it("test_queue_with_data: values come back as they were", function()
      local name = fresh "x"
      local mine, theirs = client:variable(name), other:variable(name)
      for _, value in ipairs { 1, -2 ^ 40 | 0, 1.5, "text", "", "\255\0bytes", true, false } do
        mine:set(value)
        assert.equal(value, theirs:get(5))
      end
      mine:set(nil)
      assert.is_nil(theirs:get(5))
      mine:set { list = { 1, { 2, 3 } }, empty = {}, null = saturn.null }
      local got = theirs:get(5)
      assert.equal(3, got.list[2][2])
      assert.equal(0, #got.empty)
      assert.equal(saturn.null, got.null)
      mine:set(py.tuple { 1, 2 })
      assert.equal("tuple", py.kind(theirs:get(5)))
      mine:set(saturn.array({ 1, 2, 4 }, "f8"))
      assert.equal(7, theirs:get(5):sum())
    end)

    it("refuses what it cannot keep, at the caller's line", function()
      local variable = client:variable(fresh "x")
      local future = client:submit("operator.add", 1, 1)
      local ok, err = pcall(function() variable:set { future } end)
      assert.is_false(ok)
      assert.truthy(err:find "^spec/e2e/coordination_spec.lua:%d+: .*client:publish", err)
      local foreign = other:variable(fresh "x")
      ok, err = pcall(function() foreign:set(future) end)
      assert.is_false(ok)
      assert.truthy(err:find "belongs to another client", err)
      future:release()
      ok, err = pcall(function() variable:set(future) end)
      assert.is_false(ok)
      assert.truthy(err:find "released", err)
      ok, err = pcall(function() variable:get "soon" end)
      assert.is_false(ok)
      assert.truthy(err:find "^spec/e2e/coordination_spec.lua:%d+: a timeout is a number", err)
      variable:set(1)
      assert.equal(1, variable:get(5))
    end)

    it("refuses a cancelled Future, as queues and datasets do", function()
      local variable, queue, name = client:variable(fresh "x"), client:queue(fresh "q"), fresh "ds"
      local future = client:submit("operator.add", 1, 1)
      future:cancel()
      raises("cancelled", "was cancelled", variable.set, variable, future)
      raises("cancelled", "was cancelled", queue.put, queue, future)
      raises("cancelled", "was cancelled", client.publish, client, name, { future })
      assert.equal(0, queue:size())
      assert.equal("none", (client:dataset(name, "none")))
      queue:close()
    end)

    it("may be set at once when it was deleted", function()
      local variable = client:variable(fresh "x")
      for i = 1, 30 do
        variable:set(i)
        variable:delete()
        variable:set(-i)
        assert.equal(-i, variable:get(5))
      end
      variable:delete()
    end)

    it("has a name and a text of its own", function()
      local variable <close> = client:variable()
      assert.truthy(variable.name:find "^variable%-%x+$")
      assert.equal("<saturn.variable: " .. variable.name .. ">", tostring(variable))
      local view = client:with { priority = 1 }
      assert.equal(client, view:variable("v").client)
      assert.has_error(function() client:variable(5) end)
    end)
  end)

  describe("queues", function()
    it("test_queue: values and Futures, first in, first out", function()
      local name = fresh "q"
      local mine <close> = client:queue(name)
      local theirs <close> = other:queue(name)
      mine:put(1)
      mine:put(client:submit("operator.add", 10, 1))
      mine:put "three"
      assert.equal(3, theirs:size())
      assert.equal(1, theirs:get(5))
      local future = theirs:get(5)
      collectgarbage()
      assert.equal(11, future:result(5))
      assert.equal("three", theirs:get(5))
      assert.equal(0, mine:size())
      local key = future.key
      future:release()
      assert.is_true(forgotten(key))
    end)

    it("test_hold_futures: a Future in a queue outlives the client that put it", function()
      local name = fresh "q"
      do
        local setter <close> = third()
        setter:queue(name):put(setter:submit("operator.add", 5, 6))
      end
      local queue <close> = client:queue(name)
      assert.equal(11, queue:get(5):result(5))
    end)

    it("test_get_many: all there are, or as many as asked for", function()
      local queue <close> = client:queue(fresh "q")
      assert.same({}, queue:get_many(true))
      for i = 1, 5 do queue:put(i) end
      assert.same({ 1, 2 }, queue:get_many(2))
      assert.same({ 3, 4, 5 }, queue:get_many(true))
      queue:put(nil)
      queue:put(client:submit("operator.add", 2, 2))
      local list = queue:get_many(2, 5)
      assert.equal(saturn.null, list[1])
      assert.equal(4, list[2]:result(5))
      queue:put "only"
      assert.same({ "only" }, queue:get_many(2, 0.1))
      assert.same({}, queue:get_many(1, 0))
      assert.has_error(function() queue:get_many(0) end)
    end)

    it("test_timeout: get of an empty one and put into a full one raise in time", function()
      local queue <close> = client:queue(fresh "q", 1)
      local time = elapsed(raises, "timeout", "stayed empty within 0.1", queue.get, queue, 0.1)
      assert.is_true(time >= 0.1 and time < 1.5, time)
      queue:put(1)
      raises("timeout", "had no free place", queue.put, queue, 2, 0.1)
      local future = client:submit("operator.add", 7, 7)
      raises("timeout", queue.put, queue, future, 0)
      assert.equal(14, future:result(5))
      local key = future.key
      future:release()
      assert.is_true(forgotten(key)) -- what was not put is not held
      assert.equal(1, queue:get(0))
    end)

    it("a coroutine waits for what another puts", function()
      local queue <close> = client:queue(fresh "q")
      local got
      loop.run(function() got = queue:get(10) end, function() queue:put "here" end)
      assert.equal("here", got)
    end)

    it("test_close: is idempotent, and the last one takes the queue away", function()
      local name = fresh "q"
      local mine, theirs = client:queue(name), other:queue(name)
      mine:put(1)
      mine:close()
      mine:close()
      raises("closed", "client:queue", mine.get, mine, 1)
      assert.equal(1, theirs:get(5))
      theirs:put(other:submit("operator.add", 20, 1))
      theirs:close()
      assert.equal("<saturn.queue: " .. name .. ", closed>", tostring(theirs))
      local again <close> = client:queue(name)
      assert.equal(0, again:size())
    end)

    it("a queue of the same name is a new one", function()
      local name = fresh "q"
      for i = 1, 30 do
        local queue <close> = client:queue(name)
        queue:put(i)
        assert.equal(1, queue:size())
      end
    end)

    it("test_queue_in_task: tasks take and put", function()
      local name = fresh "q"
      local queue <close> = client:queue(name)
      queue:put { 1, 2, 3 }
      queue:put(client:submit("operator.add", 4, 4))
      local task = client:submit(py.fn [[
def work(name):
    from distributed import Queue
    q = Queue(name)
    first, future = q.get(timeout="10s"), q.get(timeout="10s")
    assert type(first) is list, first
    q.put({"sum": sum(first), "future": future.result()})
    return True
]], name)
      assert.is_true(task:result(10))
      local answer = queue:get(5)
      assert.equal(6, answer.sum)
      assert.equal(8, answer.future)
    end)
  end)

  describe("locks", function()
    it("test_lock: one holder at a time", function()
      local name = fresh "lock"
      local mine <close> = client:lock(name)
      local theirs <close> = other:lock(name)
      assert.is_false(mine:locked())
      assert.is_true(mine:acquire())
      assert.is_true(mine:locked())
      assert.is_true(theirs:locked())
      assert.is_true(mine:held())
      assert.is_false(theirs:held())
      local time = elapsed(function() assert.is_false(theirs:acquire { timeout = 0.1 }) end)
      assert.is_true(time >= 0.1 and time < 1.5, time)
      mine:release()
      assert.is_true(theirs:acquire(5))
      theirs:release()
      assert.is_false(theirs:locked())
      local ok, err = pcall(function() theirs:release() end)
      assert.is_false(ok)
      assert.truthy(err:find "^spec/e2e/coordination_spec.lua:%d+: .*does not hold it", err)
    end)

    it("test_acquires_with_zero_timeout: taken when free, refused when held", function()
      local name = fresh "lock"
      local mine <close> = client:lock(name)
      local theirs <close> = other:lock(name)
      assert.is_true(mine:acquire(0))
      assert.is_false(theirs:acquire(0))
      mine:release()
      assert.is_true(theirs:acquire(0))
    end)

    it("test_lock_in_tasks: a task and this program exclude each other", function()
      local name = fresh "lock"
      local task = client:submit(py.fn [[
def hold(name):
    from distributed import Event, Lock
    with Lock(name):
        Event(name + "-held").set()
        return Event(name + "-go").wait("20s")
]], name)
      assert.is_true(client:event(name .. "-held"):wait(10))
      local lock <close> = client:lock(name)
      assert.is_true(lock:locked())
      assert.is_false(lock:acquire(0.05))
      client:event(name .. "-go"):set()
      assert.is_true(lock:acquire(10))
      assert.is_true(task:result(5))
    end)

    it("waits in a coroutine while another holds it", function()
      local name = fresh "lock"
      local order = {}
      local mine <close> = client:lock(name)
      local theirs <close> = other:lock(name)
      loop.run(function()
        local held <close> = mine:hold()
        order[#order + 1] = "a"
        loop.sleep(0.05)
        order[#order + 1] = "b"
        assert.is_true(held.lease ~= nil)
      end, function()
        loop.wait(function() return order[1] end, 5)
        local held <close> = theirs:hold(5)
        order[#order + 1] = tostring(held):find "held" and "c"
      end)
      assert.equal("abc", table.concat(order))
    end)

    it("is released at the end of a scope, by an error too, and when collected", function()
      local name = fresh "lock"
      local probe <close> = other:lock(name)
      pcall(function()
        local held <close> = client:lock(name):hold(5)
        assert.is_true(probe:locked())
        assert.equal("<saturn.held: the lock '" .. name .. "'>", tostring(held))
        error "stop"
      end)
      assert.is_true(probe:acquire(5))
      raises("timeout", "not free within 0.05", function() client:lock(name):hold(0.05) end)
      probe:release()
      do
        local lock = client:lock(name)
        assert.is_true(lock:acquire(5))
      end
      collectgarbage()
      collectgarbage()
      assert.is_true(probe:acquire(5))
      probe:release()
      client:lock(name):hold(5)
      collectgarbage()
      collectgarbage()
      assert.is_true(probe:acquire(5))
    end)

    it("what is given to one that was closed meanwhile goes back", function()
      local name = fresh "lock"
      local mine, theirs, late = client:lock(name), other:lock(name), client:lock(name)
      assert.is_true(theirs:acquire(5))
      local waiting = loop.spawn(function() return late:acquire() end)
      loop.sleep(0.1)
      late:close()
      theirs:release()
      raises("closed", "was closed here", waiting.join, waiting, 5)
      assert.is_true(mine:acquire(5))
      mine:release()
    end)

    it("is released when its client is closed", function()
      local name = fresh "lock"
      local lock
      do
        local holder <close> = third()
        lock = holder:lock(name)
        assert.is_true(lock:acquire(5))
      end
      local mine <close> = client:lock(name)
      assert.is_true(mine:acquire(5))
      raises("closed", lock.acquire, lock, 1)
      lock:close()
    end)

    it("test_semaphore: as many leases as it has", function()
      local name = fresh "semaphore"
      local mine <close> = client:semaphore(name, 2, { lease_timeout = LEASE })
      local theirs <close> = other:semaphore(name, 2, { lease_timeout = LEASE })
      assert.is_true(mine:acquire())
      assert.is_true(theirs:acquire())
      assert.equal(2, mine:value())
      assert.is_false(mine:acquire(0.05))
      theirs:release()
      assert.is_true(mine:acquire(5))
      assert.equal(2, mine:value())
      mine:close()
      assert.equal(0, theirs:value())
      local err = raises("task", "max leases", other.semaphore, other, name, 3)
      assert.equal("ValueError", err.type)
      theirs:delete()
    end)

    it("test_release_semaphore_after_timeout: a lease ends with its holder", function()
      local semaphore <close> = client:semaphore(fresh "semaphore", 1, { lease_timeout = LEASE })
      -- a holder that is never heard of again
      assert.is_true(client.scheduler:call("semaphore_acquire", { name = semaphore.name, lease_id = "dead" }, 5))
      assert.is_false(semaphore:acquire(0))
      assert.is_true(semaphore:acquire(LEASE + 5))
    end)

    it("test_refresh: a lease lasts while the program waits for something else", function()
      local name = fresh "semaphore"
      local mine <close> = client:semaphore(name, 1, { lease_timeout = LEASE })
      local theirs <close> = other:semaphore(name, 1, { lease_timeout = LEASE })
      local held <close> = mine:hold(5)
      assert.is_false(client:event(fresh "never"):wait(LEASE * 1.6))
      assert.is_false(theirs:acquire(0))
      assert.is_true(mine:held())
      held:release()
      held:release()
      assert.is_true(theirs:acquire(5))
    end)

    it("says that a lease was lost while the program did not wait", function()
      local semaphore <close> = client:semaphore(fresh "semaphore", 1, { lease_timeout = LEASE })
      local err = raises("lost", "did not wait", function()
        local held <close> = semaphore:hold(5)
        os.execute("sleep " .. LEASE * 1.3)
        loop.sleep(0.01)
        assert.is_false(semaphore:held())
        assert.is_true(held.lease.lost)
      end)
      assert.equal("lease", err.type)
      assert.is_true(semaphore:acquire(5))
      assert.is_true(semaphore:held())
    end)

    it("a lease may last for ever, and a lost one does not spoil the next", function()
      local name = fresh "semaphore"
      local semaphore <close> = client:semaphore(name, 2, { lease_timeout = LEASE })
      local first = semaphore:hold(5)
      os.execute("sleep " .. LEASE * 1.1)
      loop.sleep(0.01)
      assert.is_true(first.lease.lost)
      local second <close> = semaphore:hold(5)
      loop.sleep(LEASE / 5 * 1.5)
      assert.is_nil(second.lease.lost)
      raises("lost", first.release, first)
      semaphore:delete()
      second:release()
      assert.equal(0, semaphore:value())
      local endless <close> = client:lock(fresh "lock", { lease_timeout = math.huge })
      assert.is_true(endless:acquire(5))
      assert.is_true(endless:locked())
    end)

    it("test_num_locks: all of several names, or as many as asked for", function()
      local a, b, c = fresh "m", fresh "m", fresh "m"
      local mine <close> = client:multi_lock { a, b }
      assert.is_true(mine:acquire())
      local theirs <close> = other:multi_lock { b, c }
      assert.is_false(theirs:acquire { timeout = 0.05 })
      assert.is_true(theirs:acquire { timeout = 5, num_locks = 1 })
      theirs:release()
      mine:release()
      do
        local held <close> = theirs:hold { timeout = 5 }
        assert.is_false(mine:acquire(0.05))
        assert.is_true(held.lease ~= nil)
      end
      assert.is_true(mine:acquire(5))
      local ok, err = pcall(function() mine:acquire { num_locks = 3 } end)
      assert.is_false(ok)
      assert.truthy(err:find "^spec/e2e/coordination_spec.lua:%d+: option 'num_locks' is from 1 to 2", err)
      assert.has_error(function() client:multi_lock {} end)
    end)
  end)

  describe("events", function()
    it("test_set_not_set: seen by all clients", function()
      local name = fresh "event"
      local mine, theirs = client:event(name), other:event(name)
      assert.is_false(theirs:is_set())
      mine:set()
      assert.is_true(theirs:is_set())
      assert.is_true(theirs:wait(0))
      mine:clear()
      assert.is_false(theirs:is_set())
    end)

    it("test_timeout: wait gives up in time", function()
      local event = client:event(fresh "event")
      local time = elapsed(function() assert.is_false(event:wait(0.1)) end)
      assert.is_true(time >= 0.1 and time < 1.5, time)
      assert.is_false(event:wait(0))
    end)

    it("test_event_in_task: a task wakes this program", function()
      local name = fresh "event"
      local handle = client:submit(py.fn [[
def go(name):
    from distributed import Event
    Event(name).set()
]], name)
      assert.is_true(client:event(name):wait(10))
      handle:result(5)
    end)
  end)

  describe("events/topics", function()
    -- A subscription travels on the stream, a message as a request that may overtake it: say it until it is heard.
    local function say_until(topic, message, heard)
      local stop = loop.now() + 5
      repeat
        other:log_event(topic, message)
        loop.poll(heard, 0.1)
      until heard() or loop.now() > stop
      assert.is_truthy(heard())
    end

    it("test_log_event: kept on the scheduler", function()
      local topic, before = fresh "topic", os.time() - 60
      client:log_event(topic, { alice = 1, list = { 1, 2 } })
      client:log_event({ topic, fresh "topic" }, "text")
      client:log_event(topic, nil)
      local events = other:events(topic)
      assert.equal(3, #events)
      assert.equal(1, events[1].message.alice)
      assert.equal(2, events[1].message.list[2])
      assert.equal("text", events[2].message)
      assert.is_nil(events[3].message)
      assert.is_true(events[1].time > before and events[1].time <= events[2].time)
      assert.same({}, client:events(fresh "topic"))
      assert.equal("r", client:events())
    end)

    it("test_events_subscribe_topic: handlers are called", function()
      local topic, got, twice = fresh "topic", {}, 0
      local first = client:subscribe(topic, function(message, time, name) got[#got + 1] = { message, time, name } end)
      local second <close> = client:subscribe(topic, function() twice = twice + 1 end)
      say_until(topic, { n = 1 }, function() return got[1] end)
      assert.equal(1, got[1][1].n)
      assert.is_true(got[1][2] > 1e9)
      assert.equal(topic, got[1][3])
      assert.is_true(twice >= 1)
      first:close()
      first:close()
      local before, so_far = #got, twice
      say_until(topic, 2, function() return twice > so_far end)
      assert.equal(before, #got)
      assert.equal("<saturn.subscription: " .. topic .. ">", tostring(second))
    end)

    it("test_topic_subscribe_unsubscribe: the scheduler stops to send", function()
      local topic, got = fresh "topic", 0
      client:subscribe(topic, function() got = got + 1 end)
      say_until(topic, 1, function() return got > 0 end)
      client:unsubscribe(topic)
      local before = got
      local mark, marked = fresh "topic", false
      local subscription <close> = client:subscribe(mark, function() marked = true end) -- comes after unsubscribing
      say_until(mark, 1, function() return marked end)
      assert.is_false(subscription.closed or false)
      other:log_event(topic, 2)
      marked = false
      say_until(mark, 1, function() return marked end)
      assert.equal(before, got)
      assert.has_error(function() client:unsubscribe(topic) end)
      assert.has_error(function() client:subscribe(topic, 5) end)
    end)

    it("an error in a handler is raised where the program waits, and once", function()
      local topic = fresh "topic"
      local subscription <close> = client:subscribe(topic, function(message) error("bad " .. message) end)
      local ok, err = pcall(say_until, topic, "luck", function() return false end)
      assert.is_false(ok)
      assert.truthy(err:find "bad luck", err)
      subscription:close()
      assert.equal(3, client:submit("operator.add", 1, 2):result(5))
    end)

    it("test_print_remote: what tasks print and warn of reaches who asked for it", function()
      local lines, raw = {}, {}
      local file = { write = function(_, text) lines[#lines + 1] = text end }
      local out <close> = client:subscribe("print", file)
      local warn <close> = client:subscribe("warn", file)
      local messages <close> = client:subscribe("print", function(message) raw[#raw + 1] = message end)
      local mark, marked = fresh "topic", false
      local ready <close> = client:subscribe(mark, function() marked = true end)
      say_until(mark, 1, function() return marked end)
      client:submit(py.fn [[
def f():
    from distributed import print, warn
    import sys
    print("hello", 1, sep="-", file=sys.stderr)
    print("x", end="")
    warn("careful")
    warn(RuntimeWarning("very"))
]]):result(10)
      loop.poll(function() return #lines >= 4 end, 5)
      assert.same({ "hello-1\n", "x", "UserWarning: careful\n", "RuntimeWarning: very\n" }, lines)
      assert.equal("hello", raw[1].args[1])
      assert.is_true(out.topic == "print" and warn.topic == "warn" and messages ~= nil and ready ~= nil)
    end)
  end)

  describe("metadata", function()
    it("test_metadata: is found again under its path", function()
      local name = fresh "meta"
      client:set_metadata({ name, "b" }, { 1, { c = "d" } })
      assert.equal("d", other:get_metadata({ name, "b" })[2].c)
      assert.equal(1, other:get_metadata(name).b[1])
      client:set_metadata(name, 5)
      assert.equal(5, other:get_metadata { name })
      client:set_metadata(name, false)
      assert.is_false(other:get_metadata(name))
      client:set_metadata(name, nil)
      assert.is_nil(other:get_metadata(name))
    end)

    it("test_get_set_default: a default, or an error that says so", function()
      local name = fresh "meta"
      assert.equal(7, client:get_metadata(name, 7))
      assert.is_nil(client:get_metadata({ name, "x" }, nil))
      local err = raises("value", "no metadata under '" .. name:gsub("%-", "%%-") .. ".x'", client.get_metadata, client,
        { name, "x" })
      assert.equal("KeyError", err.type)
      assert.has_error(function() client:get_metadata(nil) end)
    end)
  end)

  describe("publish", function()
    it("test_publish_simple: a name is taken once", function()
      local name = fresh "ds"
      local future = client:submit("operator.add", 1, 2)
      client:publish(name, future)
      local err = raises("value", "exists already", other.publish, other, name, { 1 })
      assert.equal("KeyError", err.type)
      local names = {}
      for _, each in ipairs(other:datasets()) do names[each] = true end
      assert.is_true(names[name])
      assert.equal(3, other:dataset(name):result(5))
      client:unpublish(name)
    end)

    it("test_publish_roundtrip: another client reads it when the first has left", function()
      local name = fresh "ds"
      do
        local publisher <close> = third()
        publisher:publish(name, { parts = publisher:map("operator.neg", { 1, 2, 3 }), note = "text" })
      end
      local data, futures = client:dataset(name)
      assert.equal("text", data.note)
      assert.same({ -1, -2, -3 }, client:gather(data.parts))
      assert.equal(3, #futures)
      client:unpublish(name)
    end)

    it("test_unpublish: is gone, its keys too", function()
      local name = fresh "ds"
      local future = client:submit("operator.add", 4, 4)
      client:publish(name, { future })
      local key = future.key
      future:release()
      assert.equal(8, other:dataset(name)[1]:result(5))
      other:unpublish(name)
      other:unpublish(name)
      collectgarbage()
      local err = raises("value", "there is no dataset", other.dataset, other, name)
      assert.equal("KeyError", err.type)
      assert.equal("none", other:dataset(name, "none"))
      assert.is_nil((other:dataset(name, nil)))
      assert.is_true(forgotten(key))
    end)

    it("test_publish_override: replaces the old one and lets its keys go", function()
      local name = fresh "ds"
      local old, both, new = client:submit("operator.add", 1, 1), client:submit("operator.add", 2, 2),
        client:submit("operator.add", 3, 3)
      client:publish(name, { old, both })
      client:publish(name, { both, new }, { override = true })
      local old_key = old.key
      for _, each in ipairs { old, both, new } do each:release() end
      assert.is_true(forgotten(old_key))
      assert.same({ 4, 6 }, other:gather((other:dataset(name))))
      client:unpublish(name)
    end)

    it("test_publish_unpublish_wait_for_batched_comms: a task submitted just before is held", function()
      for _ = 1, 10 do
        local name = fresh "ds"
        client:publish(name, client:submit("operator.add", 1, 6))
        collectgarbage()
        local future = client:dataset(name)
        client:unpublish(name)
        assert.equal(7, future:result(5))
      end
    end)

    it("says at the caller's line what cannot be published", function()
      local foreign = other:submit("operator.add", 1, 1)
      local ok, err = pcall(function() client:publish(fresh "ds", { foreign }) end)
      assert.is_false(ok)
      assert.truthy(err:find "^spec/e2e/coordination_spec.lua:%d+: .*belongs to another client", err)
      ok, err = pcall(function() client:publish(5, {}) end)
      assert.is_false(ok)
      assert.truthy(err:find "named by a string", err)
    end)
  end)

  describe("with Python's client", function()
    it("both read what the other wrote", function()
      local list = { 1, "two", 3.5, saturn.null, { key = "value" } }
      client:variable "lua-data":set(list)
      client:variable "lua-array":set(saturn.array({ 1, 2, 3 }, "f8"))
      client:variable "lua-future":set(client:submit("operator.add", 20, 1))
      local queue <close> = client:queue "lua-queue"
      queue:put(5)
      queue:put(client:submit("operator.add", 20, 2))
      client:publish("lua-dataset", { parts = client:map("operator.neg", { 1, 2 }), name = "lua" })
      client:publish("lua-single", client:submit("operator.add", 20, 3))
      client:set_metadata({ "lua", "m" }, { 1, 2 })
      client:log_event("lua-topic", { a = 1 })
      client:event "lua-event":set()
      local lock <close> = client:lock "shared"
      assert.is_true(lock:acquire())
      local semaphore <close> = client:semaphore("shared-semaphore", 2, { lease_timeout = 30 })

      local said = dask.run_python(nil, ([==[
import dask
from operator import add, neg
from distributed import Client, Event, Lock, Queue, Semaphore, Variable

dask.config.set({"distributed.scheduler.locks.lease-timeout": "30s"})
client = Client(%q, set_as_default=True)

data = Variable("lua-data").get(timeout=5)
assert data == [1, "two", 3.5, None, {"key": "value"}], data
array = Variable("lua-array").get(timeout=5)
assert array.dtype == "f8" and array.tolist() == [1, 2, 3], array
assert Variable("lua-future").get(timeout=5).result(timeout=5) == 21
queue = Queue("lua-queue")
assert queue.get(timeout=5) == 5
assert queue.get(timeout=5).result(timeout=5) == 22
dataset = client.get_dataset("lua-dataset")
assert dataset["name"] == "lua", dataset
assert client.gather(dataset["parts"]) == [-1, -2], dataset
assert client.get_dataset("lua-single").result(timeout=5) == 23
assert list(client.get_metadata(["lua", "m"])) == [1, 2]
assert client.get_events("lua-topic")[0][1] == {"a": 1}
assert Event("lua-event").is_set()
lock = Lock("shared")
assert lock.acquire(timeout=0.1) is False
semaphore = Semaphore(max_leases=2, name="shared-semaphore")
assert semaphore.acquire(timeout=5)
assert semaphore.get_value() == 1, semaphore.get_value()
semaphore.release()

Variable("py-data").set({"list": [1, [2, 3]], "bytes": b"\xff", "none": None, "text": "\u00e9", 5: True})
Variable("py-future").set(client.submit(add, 30, 1))
queue = Queue("py-queue")
queue.put([1, 2])
queue.put(client.submit(add, 30, 2))
parts = client.map(neg, [3, 4])
client.publish_dataset({"parts": parts, "n": 5, "t": (1, client.submit(add, 1, 1))}, name="py-dataset")
client.publish_dataset(client.submit(add, 30, 3), name="py-single")
client.publish_dataset(dask.delayed(add)(30, 4).persist(), name="py-collection")
client.set_metadata(["py", "m"], {"x": None})
client.log_event("py-topic", {"b": 2})
Event("py-event").set()
print("done")
client.close()
]==]):format(cluster.address))
      assert.equal("done\n", said)

      local data = client:variable "py-data":get(5)
      assert.equal(3, data.list[2][2])
      assert.equal("\255", data.bytes)
      assert.equal(saturn.null, data.none)
      assert.equal("é", data.text)
      assert.is_true(data[5])
      assert.equal(31, client:variable "py-future":get(5):result(5))
      local theirs <close> = client:queue "py-queue"
      assert.equal(2, theirs:get(5)[2])
      assert.equal(32, theirs:get(5):result(5))
      local dataset, futures = client:dataset "py-dataset"
      assert.equal(5, dataset.n)
      assert.same({ -3, -4 }, { dataset.parts[1]:result(5), dataset.parts[2]:result(5) })
      assert.equal(2, dataset.t[2]:result(5))
      assert.equal(3, #futures)
      assert.equal(33, client:dataset "py-single":result(5))
      local _, blocks = client:dataset "py-collection"
      assert.equal(34, blocks[1]:result(5))
      assert.equal(saturn.null, client:get_metadata { "py", "m" }.x)
      assert.equal(2, client:events "py-topic"[1].message.b)
      assert.is_true(client:event "py-event":is_set())
      assert.is_true(lock:held())
      assert.equal(0, semaphore:value())
    end)
  end)

  describe("a failed scheduler", function()
    it("raises at once in every blocking call, and closing does not hang", function()
      local own <close> = dask.start { workers = 0 }
      local lonely <close> = saturn.client(own.address, { timeout = 10 })
      local lock <close> = lonely:lock "l"
      assert.is_true(lock:acquire(5))
      local errors = {}
      local calls = {
        function() lonely:variable "x":get(20) end,
        function() lonely:queue "q":get(20) end,
        function() lonely:event "e":wait(20) end,
        function() lonely:lock "l":acquire(20) end,
        function() loop.sleep(0.3) own:kill_scheduler() end,
      }
      for i, call in ipairs(calls) do
        calls[i] = function()
          local ok, err = pcall(call)
          errors[i] = not ok and err or nil
        end
      end
      local time = elapsed(loop.run, table.unpack(calls))
      for i = 1, 4 do support.assert_kind(errors[i], "closed") end
      assert.is_nil(errors[5])
      assert.is_true(time < 8, time)
      assert.is_true(elapsed(lonely.close, lonely) < 8)
      local variable = lonely:variable "x"
      raises("closed", variable.set, variable, 1)
    end)
  end)

  it("names are checked, and nothing is left in the way of the collector", function()
    assert.has_error(function() client:queue({}) end)
    assert.has_error(function() client:queue("q", -1) end)
    assert.has_error(function() client:semaphore("s", 0) end)
    assert.has_error(function() client:lock("l", { lease = 5 }) end)
    assert.has_error(function() client:lock("l", { lease_timeout = 0 }) end)
    local weak = setmetatable({ client:lock(fresh "lock") }, { __mode = "v" })
    weak[1]:acquire(5)
    collectgarbage()
    collectgarbage()
    assert.is_nil(weak[1])
  end)
end)
