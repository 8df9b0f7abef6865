-- What becomes of tasks, on a real scheduler of the release in $DASK: cancelling, retries, releasing, where and in
-- which order they run, and the other options of client:with.
local dask = require "spec.support.dask"
local saturn = require "saturn"
local support = require "spec.support"

local py = saturn.py
local misuse, plain, raises, settles = support.misuse, support.plain, support.raises, support.settles

local PATIENCE = 20 -- seconds that nothing here should take

local function collect()
  collectgarbage()
  collectgarbage()
end

-- Holds its thread until the event is set; returns the value.
local GATE = py.fn [[
def gate(name, value=None):
    from distributed import Event
    Event(name).wait(20)
    return value
]]

-- Fails so often with this path.
local FLAKY = py.fn [[
def flaky(path, failures):
    with open(path, "a") as file:
        file.write(".")
        if file.tell() <= failures:
            raise ZeroDivisionError("not yet")
    return "done"
]]

-- Fails until the file is there.
local NEEDS = py.fn [[
def needs(path, *others):
    with open(path) as file:
        return file.read()
]]

local WHERE = py.fn [[
def where(*ignored):
    from distributed import get_worker
    return get_worker().name
]]

describe("control", function()
  local cluster, client, other
  local gates = 0

  setup(function()
    cluster = dask.start { names = { "w0", "w1" }, nthreads = 1 }
    cluster:add_worker { name = "gpu", nthreads = 2, resources = { GPU = 2 } }
    client = saturn.client(cluster.address, { timeout = PATIENCE })
    other = saturn.client(cluster.address, { timeout = PATIENCE })
  end)
  teardown(function()
    if other then other:close() end
    if client then client:close() end
    if cluster then cluster:stop() end
  end)

  -- The name of a new gate and what opens it.
  local function new_gate()
    gates = gates + 1
    local name = "gate-" .. gates
    return name, function() client.scheduler:call("event_set", { name = name }, PATIENCE) end
  end

  local function holders(key)
    return client.scheduler:call("who_has", { keys = { key } }, PATIENCE)[key]
  end

  -- What the scheduler says of a task; nil when it has forgotten it.
  local function task_status(key)
    local state = client.scheduler:call("get_task_status", { keys = { key } }, PATIENCE)[key]
    return state ~= saturn.null and state or nil
  end

  local function forgotten(key)
    return settles(function() return task_status(key) == nil or task_status(key) == "forgotten" end)
  end

  describe("cancel", function()
    it("test_cancel: at once, with what depends on it, and nothing else", function()
      local name, open = new_gate()
      local x = client:submit(GATE, name, 1)
      local y, free = client:submit("operator.neg", x), client:submit("operator.neg", 5)
      client:cancel(x)
      assert.equal("cancelled", x.status)
      assert.is_true(x:cancelled())
      raises("cancelled", nil, x.result, x, PATIENCE)
      raises("cancelled", nil, y.result, y, PATIENCE)
      assert.equal(-5, free:result(PATIENCE))
      open()
    end)

    it("takes nested tables, and says why to whom it concerns", function()
      local name, open = new_gate()
      local a, b, c = client:submit(GATE, name, 1), client:submit(GATE, name, 2), client:submit(GATE, name, 3)
      client:cancel({ a, { deep = { b } } }, { reason = "no need", message = "found elsewhere" })
      raises("cancelled", "no need: found elsewhere", a.result, a, PATIENCE)
      raises("cancelled", "no need: found elsewhere", b.result, b, PATIENCE)
      open()
      assert.equal(3, c:result(PATIENCE))
      client:cancel {}
      local d = client:submit("operator.neg", 1)
      d:cancel { reason = "by itself" }
      raises("cancelled", "by itself", d.result, d)
    end)

    it("test_cancel_before_known_to_scheduler", function()
      local x = client:submit("operator.neg", 1)
      local y = client:submit("operator.neg", x)
      client:cancel(x)
      assert.equal("cancelled", x.status)
      raises("cancelled", nil, y.result, y, PATIENCE)
      assert.equal(-2, client:submit("operator.neg", 2):result(PATIENCE))
    end)

    it("test_cancel_multi_client: another client's Future goes on, unless forced", function()
      local name, open = new_gate()
      local mine = client:with { key = "shared-1" }:submit(GATE, name, 1)
      local theirs = other:with { key = "shared-1" }:submit(GATE, name, 1)
      other:settle(PATIENCE)
      client:cancel(mine)
      assert.equal("cancelled", mine.status)
      open()
      assert.equal(1, theirs:result(PATIENCE))

      local name2, open2 = new_gate()
      mine = client:with { key = "shared-2" }:submit(GATE, name2, 1)
      theirs = other:with { key = "shared-2" }:submit(GATE, name2, 1)
      other:settle(PATIENCE)
      client:cancel(mine, { force = true })
      raises("cancelled", nil, theirs.result, theirs, PATIENCE)
      assert.equal("cancelled", mine.status)
      open2()
    end)

    it("test_cancel_tuple_key", function()
      local x = client:with { key = py.tuple { "tuple", 1 } }:submit("operator.neg", 1)
      assert.equal(-1, x:result(PATIENCE))
      client:cancel(x)
      raises("cancelled", nil, x.result, x)
    end)

    it("test_submit_on_cancelled_future", function()
      local x = client:submit("operator.neg", 1)
      client:cancel(x, { reason = "gone" })
      raises("cancelled", "gone", client.submit, client, "operator.neg", x)
      raises("cancelled", nil, client.gather, client, { x })
    end)

    it("leaves the key free for another task", function()
      local x = client:with { key = "again" }:submit("operator.neg", 1)
      client:cancel(x)
      local y = client:with { key = "again" }:submit("operator.neg", 2)
      assert.equal(-2, y:result(PATIENCE))
      assert.equal("cancelled", x.status)
      x:release()
      assert.equal(-4, client:submit("operator.mul", y, 2):result(PATIENCE))
    end)

    it("refuses what are no Futures of this client", function()
      misuse("needs a Future", function() client:cancel(5) end)
      misuse("needs a Future", function() client:cancel { a = 1 } end)
      misuse("another client", function() client:cancel { other:submit("operator.neg", 1) } end)
      misuse("'froce'.-'force'", function() client:cancel({}, { froce = true }) end)
    end)
  end)

  describe("retries", function()
    it("test_map_retries: as many as are given", function()
      local dir <close> = support.tmpdir()
      local function run(retries, name)
        local view = retries and client:with { retries = retries } or client
        local paths = {}
        for i = 1, 3 do paths[i] = ("%s/%s-%d"):format(dir.path, name, i) end
        local futures = view:map(FLAKY, paths, { 0, 1, 2 })
        saturn.wait(futures, { timeout = PATIENCE })
        return { futures[1].status, futures[2].status, futures[3].status }
      end
      assert.same({ "finished", "error", "error" }, run(nil, "none"))
      assert.same({ "finished", "finished", "error" }, run(1, "one"))
      assert.same({ "finished", "finished", "finished" }, run(2, "two"))
    end)

    it("test_retry: again, once the cause is mended", function()
      local dir <close> = support.tmpdir()
      local path = dir.path .. "/file"
      local x = client:submit(NEEDS, path)
      assert.equal("FileNotFoundError", x:exception(PATIENCE).type)
      client:retry { x }
      assert.equal("FileNotFoundError", x:exception(PATIENCE).type)
      support.write_all(path, "text")
      x:retry()
      assert.equal("text", x:result(PATIENCE))
      client:retry(x)
      assert.equal("finished", x.status)
    end)

    it("test_retry_dependencies: and those that failed before it", function()
      local dir <close> = support.tmpdir()
      local path = dir.path .. "/file"
      local x = client:submit(NEEDS, path)
      local y = client:submit("len", x)
      assert.equal("FileNotFoundError", y:exception(PATIENCE).type)
      support.write_all(path, "text")
      client:retry(y)
      assert.equal(4, y:result(PATIENCE))
      assert.equal("text", x:result(PATIENCE))
    end)

    it("a late word of the failure is not taken for the next try's", function()
      local dir <close> = support.tmpdir()
      local path = dir.path .. "/file"
      local x = client:submit(NEEDS, path)
      assert.equal("FileNotFoundError", x:exception(PATIENCE).type)
      support.write_all(path, "text")
      for _ = 1, 2000 do client:send { op = "report-key", key = x.key } end -- so many that they come by and by
      x:retry()
      assert.equal("text", x:result(PATIENCE))
    end)

    it("test_released_dependencies: what was let go is computed again", function()
      local dir <close> = support.tmpdir()
      local path = dir.path .. "/file"
      local x = client:submit("operator.neg", 1)
      local y = client:submit(NEEDS, path, x)
      x:release()
      assert.equal("FileNotFoundError", y:exception(PATIENCE).type)
      support.write_all(path, "text")
      y:retry()
      assert.equal("text", y:result(PATIENCE))
    end)
  end)

  describe("errors", function()
    it("test_exceptions: after an error the next task is fine", function()
      local bad = client:submit("operator.truediv", 1, 0)
      assert.equal("ZeroDivisionError", raises("task", nil, bad.result, bad, PATIENCE).type)
      assert.equal(0.5, client:submit("operator.truediv", 1, 2):result(PATIENCE))
    end)

    it("test_errors_dont_block: bad tasks do not hold good ones", function()
      local good = client:map("operator.truediv", { 1, 2 }, { 2, 2 })
      local bad = client:map("operator.truediv", { 1, 2 }, { 0, 0 })
      assert.same({ 0.5, 1 }, plain(client:gather(good, { timeout = PATIENCE })))
      saturn.wait(bad, { timeout = PATIENCE })
      assert.same({ "error", "error" }, { bad[1].status, bad[2].status })
    end)
  end)

  describe("release/refcount", function()
    it("test_Future_release: finished, pending and failed ones", function()
      collect()
      local name, open = new_gate()
      for _, call in ipairs { { "operator.neg", 1 }, { "operator.truediv", 1, 0 }, { GATE, name } } do
        local before = client.session:count()
        local future = client:submit(table.unpack(call))
        local key = future.key
        if call[1] ~= GATE then saturn.wait({ future }, { timeout = PATIENCE }) end
        assert.equal(before + 1, client.session:count())
        future:release()
        future:release()
        assert.equal(before, client.session:count())
        assert.truthy(forgotten(key), key)
      end
      open()
    end)

    it("test_gc and test_garbage_collection: the last handle counts", function()
      local a = client:with { key = "counted" }:submit("operator.neg", 1)
      local b = client:with { key = "counted" }:submit("operator.neg", 1)
      assert.equal(-1, a:result(PATIENCE))
      a = nil -- luacheck: ignore 311
      collect()
      client:settle(PATIENCE)
      assert.equal(1, #holders "counted")
      assert.equal(-1, b:result(PATIENCE))
      b = nil -- luacheck: ignore 311
      collect()
      assert.truthy(forgotten "counted")
      assert.equal(0, #holders "counted")
    end)

    it("what is released goes at once, also when its end was waited for", function()
      collectgarbage "stop"
      finally(function() collectgarbage "restart" end)
      local before = client.session:count()
      local futures, ended = client:map("operator.neg", { 1, 2, 3 }), 0
      for _, each in ipairs(futures) do each:on_done(function() ended = ended + 1 end) end
      saturn.wait(futures, { timeout = PATIENCE })
      assert.equal(3, ended)
      local keys = {}
      for i, each in ipairs(futures) do
        keys[i] = each.key
        each:release()
      end
      assert.equal(before, client.session:count())
      for _, key in ipairs(keys) do assert.truthy(forgotten(key)) end
    end)

    it("a key that is used again hears nothing of the task it named before", function()
      local named = client:with { key = "used-again" }
      local bad = named:submit("operator.truediv", 1, 0)
      os.execute "sleep 0.5" -- the program does something else, and does not look at the network
      bad:release()
      local good = named:submit(py.fn "lambda: __import__('time').sleep(0.2) or 42")
      assert.equal("pending", good.status)
      assert.equal(42, good:result(PATIENCE))
    end)

    it("test_garbage_collection_with_scatter", function()
      local future = client:scatter({ 1 }, { hash = false })
      local key = future.key
      assert.equal(1, #holders(key))
      future = nil -- luacheck: ignore 311
      collect()
      assert.truthy(forgotten(key))
    end)

    it("test_recompute_released_key", function()
      local first = client:with { key = "computed-again" }:submit "os.urandom"
      raises("task", nil, first.result, first, PATIENCE)
      first:release()
      client:settle(PATIENCE)
      assert.truthy(forgotten "computed-again")
      assert.equal(3, client:with { key = "computed-again" }:submit("operator.add", 1, 2):result(PATIENCE))
    end)

    it("test_forget_complex: what is needed stays", function()
      local a = client:submit("operator.neg", 1)
      local b = client:submit("operator.add", a, 1)
      local c = client:submit("operator.add", a, 2)
      local d = client:submit("operator.add", b, c)
      assert.equal(1, d:result(PATIENCE))
      local keys = { a = a.key, b = b.key, c = c.key, d = d.key }
      b:release()
      c:release()
      d:release()
      assert.truthy(forgotten(keys.d))
      assert.truthy(forgotten(keys.b))
      assert.equal("memory", task_status(keys.a))
      a:release()
      assert.truthy(forgotten(keys.a))
    end)

    it("test_forget_errors: a failed chain stays until its last client lets go", function()
      local x = client:submit("operator.truediv", 1, 0)
      local y = client:submit("operator.neg", x)
      saturn.wait({ x, y }, { timeout = PATIENCE })
      local keys = { x.key, y.key }
      x:release()
      client:settle(PATIENCE)
      assert.equal("erred", task_status(keys[2]))
      assert.equal("ZeroDivisionError", y:exception(PATIENCE).type)
      y:release()
      assert.truthy(forgotten(keys[1]))
      assert.truthy(forgotten(keys[2]))
    end)

    it("test_multi_garbage_collection: a key lives until both clients let go", function()
      local mine = client:with { key = "of-both" }:submit("operator.neg", 1)
      local theirs = other:with { key = "of-both" }:submit("operator.neg", 1)
      assert.same({ -1, -1 }, { mine:result(PATIENCE), theirs:result(PATIENCE) })
      mine:release()
      client:settle(PATIENCE)
      assert.equal(1, #holders "of-both")
      theirs:release()
      assert.truthy(forgotten "of-both")
    end)
  end)

  describe("fire_and_forget", function()
    it("test_fire_and_forget: runs without a Future", function()
      local name, open = new_gate()
      local done = "done-" .. name
      local future = client:submit(py.fn [[
def fire(gate, done):
    from distributed import Event
    Event(gate).wait(20)
    Event(done).set()
]], name, done)
      local key = future.key
      saturn.fire_and_forget(future)
      future = nil -- luacheck: ignore 311
      collect()
      client:settle(PATIENCE)
      open()
      assert.is_true(client.scheduler:call("event_wait", { name = done, timeout = PATIENCE }, PATIENCE))
      assert.truthy(forgotten(key))
    end)

    it("test_fire_and_forget_err: a failed task goes", function()
      local future = client:submit("operator.truediv", 1, 0)
      local key = future.key
      saturn.fire_and_forget { future }
      future:release()
      assert.truthy(forgotten(key))
    end)

    it("drops what ended before the scheduler heard of it", function()
      local finished = client:submit("operator.neg", 1)
      finished:result(PATIENCE)
      saturn.fire_and_forget(finished)
      -- One that has ended, but not as far as the client knows: it does not look at the network meanwhile.
      local name, open = new_gate()
      local unheard = client:submit(GATE, name, 1)
      open()
      os.execute "sleep 0.5"
      saturn.fire_and_forget(unheard)
      local keys = { finished.key, unheard.key }
      finished:release()
      unheard:release()
      for _, key in ipairs(keys) do assert.truthy(forgotten(key)) end
    end)

    it("goes on when the client is closed", function()
      local leaving = saturn.client(cluster.address, { timeout = PATIENCE })
      local name, open = new_gate()
      local future = leaving:submit(GATE, name, 1)
      local key = future.key
      saturn.fire_and_forget(future)
      leaving:close()
      assert.truthy(settles(function() return task_status(key) == "processing" end))
      open()
      assert.truthy(forgotten(key))
    end)

    it("refuses what is no Future", function()
      misuse("needs a Future", function() saturn.fire_and_forget(5) end)
    end)
  end)

  describe("futures_of", function()
    it("finds each Future once, at any depth", function()
      local a, b, c = table.unpack(client:map("operator.neg", { 1, 2, 3 }))
      local nested = { a, { b, a, deep = { c } }, 5, "text" }
      nested[5] = nested
      local found = client:futures_of(nested)
      assert.equal(3, #found)
      assert.equal(a, found[1])
      assert.same({}, client:futures_of { 1, {} })
      assert.equal(1, #client:futures_of(a))
    end)
  end)

  describe("restrictions", function()
    it("test_restrictions_submit: on these workers only", function()
      for _, name in ipairs { "w0", "w1" } do
        assert.equal(name, client:with { workers = name }:submit(WHERE, name):result(PATIENCE))
      end
      local futures = client:with { workers = { cluster.workers[2].address } }:map(WHERE, { 1, 2, 3 })
      assert.same({ "w1", "w1", "w1" }, plain(client:gather(futures, { timeout = PATIENCE })))
    end)

    it("a worker whose name is a number, as those of a LocalCluster", function()
      cluster:add_worker { worker_args = { name = 7 } }
      for _, workers in ipairs { 7, { 7 }, { 7.0 } } do
        local future = client:with { workers = workers }:submit(WHERE, workers)
        assert.equal(7, future:result(PATIENCE))
      end
      local future = client:scatter("seven", { workers = 7 })
      assert.same({ cluster.workers[#cluster.workers].address }, plain(holders(future.key)))
      cluster:kill_worker(#cluster.workers, "TERM")
      misuse("'workers'.-element 2 is a boolean", function() client:with { workers = { 7, true } } end)
    end)

    it("test_allow_restrictions: there if that is possible, else elsewhere", function()
      local nowhere = "tcp://127.0.0.1:1"
      local view = client:with { workers = nowhere }
      local strict = view:submit(WHERE)
      assert.is_string(view:with { allow_other_workers = true }:submit(WHERE):result(PATIENCE))
      assert.truthy(settles(function() return task_status(strict.key) == "no-worker" end))
      assert.equal("pending", strict.status)
    end)
  end)

  describe("priorities", function()
    -- The order in which calls ran behind a closed gate on one worker.
    local function order_of(submit)
      local view, name, open = client:with { workers = "w0" }, new_gate()
      local gate = view:with { priority = 1000 }:submit(GATE, name)
      assert.truthy(settles(function() return task_status(gate.key) == "processing" end))
      local futures = submit(view)
      local worker, keys = cluster.workers[1].address, {}
      for i, each in ipairs(client:futures_of(futures)) do keys[i] = each.key end
      assert.truthy(settles(function()
        for _, key in ipairs(keys) do
          local message = { op = "get_story", keys_or_stimuli = { key } }
          if #client.scheduler:call("broadcast", { msg = message, workers = { worker } }, PATIENCE)[worker] == 0 then
            return false
          end
        end
        return true
      end), "the calls are on their worker")
      open()
      return client:gather(futures, { timeout = PATIENCE })
    end

    local NOW = py.fn "lambda *ignored: __import__('time').monotonic_ns()"

    it("test_submit: high comes before low", function()
      local times = order_of(function(view)
        return { low = view:with { priority = -1 }:submit(NOW, 1), middle = view:submit(NOW, 2),
          high = view:with { priority = 1 }:submit(NOW, 3) }
      end)
      assert.is_true(times.high < times.middle)
      assert.is_true(times.middle < times.low)
    end)

    it("test_map", function()
      local times = order_of(function(view)
        return { low = view:with { priority = -10 }:map(NOW, { 1, 2 }),
          high = view:with { priority = 10 }:map(NOW, { 3, 4 }) }
      end)
      assert.is_true(math.max(table.unpack(times.high, 1, 2)) < math.min(table.unpack(times.low, 1, 2)))
    end)

    it("test_annotations_priorities: of graphs", function()
      local now = saturn.delayed(NOW)
      local times = order_of(function(view)
        return { low = view:with { priority = -10 }:compute(now(1)),
          high = view:with { priority = 10 }:compute(now(2)) }
      end)
      assert.is_true(times.high < times.low)
    end)
  end)

  describe("resources", function()
    it("test_resource_submit: where they are", function()
      assert.equal("gpu", client:with { resources = { GPU = 1 } }:submit(WHERE):result(PATIENCE))
      local now = saturn.delayed(WHERE)
      assert.equal("gpu", client:with { resources = { GPU = 0.5 } }:compute(now()):result(PATIENCE))
    end)

    it("test_submit_many_non_overlapping: no more at a time than there is", function()
      local busy = py.fn [[
def busy(i):
    import time
    start = time.monotonic()
    time.sleep(0.02)
    return [start, time.monotonic()]
]]
      local futures = client:with { resources = { GPU = 2 } }:map(busy, { 1, 2, 3, 4 })
      local spans = client:gather(futures, { timeout = PATIENCE })
      table.sort(spans, function(a, b) return a[1] < b[1] end)
      for i = 2, #spans do assert.is_true(spans[i - 1][2] <= spans[i][1]) end
    end)

    it("test_unrunnable_task_runs: waits for a worker that has them", function()
      local future = client:with { resources = { NEW = 1 } }:submit(WHERE)
      assert.truthy(settles(function() return task_status(future.key) == "no-worker" end))
      cluster:add_worker { name = "new", resources = { NEW = 1 } }
      assert.equal("new", future:result(PATIENCE))
    end)
  end)

  describe("keys of calls", function()
    it("test_submit_naming: pure calls share a task, others do not", function()
      local pure, random = client:with { pure = true }, "os.urandom"
      local a, b = pure:submit(random, 16), other:with { pure = true }:submit(random, 16)
      assert.equal(a.key, b.key)
      assert.equal(a:result(PATIENCE), b:result(PATIENCE))
      assert.not_equal(a.key, pure:submit(random, 17).key)
      assert.not_equal(a.key, client:submit(random, 16).key)
      local x = client:submit("operator.neg", 1)
      assert.equal(pure:submit("operator.add", x, py.kw {}).key, pure:submit("operator.add", x).key)
      assert.equal(-3, pure:submit("operator.sub", x, 2):result(PATIENCE))
    end)

    it("test_map_naming and equal elements", function()
      local pure = client:with { pure = true }
      local a, b = pure:map("os.urandom", { 8, 9, 8 }), pure:map("os.urandom", { 8, 9 })
      assert.same({ a[1].key, a[2].key }, { b[1].key, b[2].key })
      assert.equal(a[1], a[3])
      local values = client:gather(a, { timeout = PATIENCE })
      assert.equal(values[1], values[3])
    end)

    it("test_map_keynames: a prefix, or a list", function()
      local futures = client:with { key = "INC" }:map("operator.neg", { 1, 2, 3 })
      for _, future in ipairs(futures) do assert.truthy(future.key:find "^INC%-") end
      assert.same({ -1, -2, -3 }, plain(client:gather(futures, { timeout = PATIENCE })))
      local named = client:with { key = { "k-1", "k-2" } }:map("operator.neg", { 1, 2 })
      assert.same({ "k-1", "k-2" }, { named[1].key, named[2].key })
      assert.same({ -1, -2 }, plain(client:gather(named, { timeout = PATIENCE })))
      misuse("2 keys for 3 calls", function() client:with { key = { "a", "b" } }:map("operator.neg", { 1, 2, 3 }) end)
      misuse("a list, which names the calls of map", function()
        client:with { key = { "a" } }:submit("operator.neg", 1)
      end)
    end)

    it("test_map_batch_size: in several messages, also of uneven lists", function()
      local session, sent = client.session, 0
      client.session = setmetatable({}, { __index = function(_, name)
        if name == "submit" then sent = sent + 1 end
        return function(_, ...) return session[name](session, ...) end
      end })
      local ok, futures = pcall(client.map, client:with { batch_size = 3 }, "operator.add", { 1, 2, 3, 4, 5, 6, 7, 8 },
        { 10, 20, 30, 40, 50, 60, 70 })
      client.session = session
      assert.is_true(ok, futures)
      assert.equal(3, sent)
      assert.same({ 11, 22, 33, 44, 55, 66, 77 }, plain(client:gather(futures, { timeout = PATIENCE })))
    end)

    it("refuses iterators", function()
      misuse("argument 2 is a function.-in a table first", function() client:map("operator.neg", pairs {}) end)
      misuse("argument 2 is a number", function() client:map("operator.neg", 5) end)
    end)

    it("test_tuple_keys", function()
      local x = client:with { key = py.tuple { "x", 1 } }:submit("operator.neg", 1)
      local y = client:with { key = 7 }:submit("operator.neg", x)
      assert.equal(1, y:result(PATIENCE))
      assert.equal(-1, x:result(PATIENCE))
      if client.release >= 20230900 then
        assert.same({ "x", 1 }, plain(x.key))
        assert.equal(7, y.key)
      else
        assert.same({ "('x', 1)", "7" }, { x.key, y.key })
      end
      misuse("a key is", function() client:with { key = py.tuple { "x", true } } end)
    end)
  end)

  describe("tags", function()
    it("put tasks into spans", function()
      -- Tasks of one name are one group, and a group is in one span: no other task has this name.
      local get = py.fn [[
def get_span():
    import dask
    return getattr(dask, "get_annotations", dict)().get("span")
]]
      local view = client:with { tags = "outer" }:with { tags = { "inner" } }
      local span = view:submit(get):result(PATIENCE)
      if client.release < 20230600 then return assert.is_nil(span) end
      assert.same({ "outer", "inner" }, plain(span.name))
      assert.equal(view.span_id, span.ids[2])
    end)
  end)
end)
