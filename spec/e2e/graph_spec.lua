-- Delayed values and raw graphs on a real scheduler of the release in $DASK.
local dask = require "spec.support.dask"
local saturn = require "saturn"
local support = require "spec.support"

local py, delayed, task, key = saturn.py, saturn.delayed, saturn.task, saturn.key
local misuse, plain, raises, settles = support.misuse, support.plain, support.raises, support.settles
local inc, add = delayed(py.fn "lambda x: x + 1", { key = "inc" }), delayed "operator.add"

local PATIENCE = 30 -- seconds that nothing here should take

describe("graphs", function()
  local cluster, client, other

  setup(function()
    cluster = dask.start { workers = 2, nthreads = 1 }
    client = saturn.client(cluster.address, { timeout = PATIENCE })
    other = saturn.client(cluster.address, { timeout = PATIENCE })
  end)
  teardown(function()
    if other then other:close() end
    if client then client:close() end
    if cluster then cluster:stop() end
  end)

  local function value(one) return plain(client:compute(one):result(PATIENCE)) end

  -- The state of a task on the scheduler; nil when it does not know it.
  local function task_status(name)
    local states = client.scheduler:call("get_task_status", { keys = { name } }, PATIENCE)
    local state = states[name]
    return state ~= saturn.null and state or nil
  end

  describe("delayed", function()
    it("computes calls, with delayed values in tables of any depth", function()
      assert.equal(12, value(delayed "sum" { inc(1), inc(2), add(inc(3), 3) }))
      assert.same({ 2, { deep = { 3, 4 } } }, value(delayed "list" { inc(1), { deep = { inc(2), 4 } } }))
      assert.same({ a = 2, b = { 3 } }, value(delayed "dict"(py.kw { a = inc(1), b = { inc(2) } })))
      assert.same({ 3, 2 }, value(delayed "sorted"({ inc(1), inc(2) }, py.kw { reverse = true })))
      assert.same({ 2, 5 }, value(delayed(py.fn "lambda *a, **k: [a[0], k['k'][0]]")(inc(1), py.kw { k = { inc(4) } })))
      assert.same({ 1, 2 }, value(delayed(py.tuple { 1, inc(1) })))
      assert.equal(5, value(delayed(5)))
      assert.equal("text", value(delayed(py.str "text")))
    end)

    it("computes arithmetic, .., indexing, fields and methods", function()
      local x = inc(6)
      local numbers = { x + 1, 10 - x, x * 2, x / 2, x // 2, x % 4, x ^ 2, x & 3, x | 8, x ~ 1, x << 1, x >> 1, -x, ~x }
      assert.same({ 8, 3, 14, 3.5, 3, 3, 49, 3, 15, 6, 14, 3, -7, -8 }, plain(client:gather(client:compute(numbers))))
      local d = delayed { a = { 1, 2, 3 }, b = "text" }
      assert.same({ 1, 3, 3, "TEXT", "texttext!", true, 2.5, { 1, 2 } }, plain(client:gather(client:compute(
        d.a[0], d.a[-1], #d.a, d.b:upper(), d.b .. d.b .. "!", d.b.startswith("te"), delayed "complex"(1, 2.5).imag,
        d.a[py.slice(0, 2)]))))
      assert.equal(3, value(delayed "operator.methodcaller"("__len__")("abc")))
    end)

    it("computes what is shared once", function()
      local noise = delayed "os.urandom"(16)
      local a, b = delayed "list"(noise), delayed "list"(noise)
      local futures = client:compute(a, b)
      assert.same(futures[1]:result(PATIENCE), futures[2]:result(PATIENCE))
      assert.not_same(futures[1]:result(PATIENCE), value(delayed "list"(delayed "os.urandom"(16))))
    end)

    it("gives several values for nout", function()
      local q, r = delayed("divmod", { nout = 2 })(17, 5)
      assert.same({ 3, 2 }, plain(client:gather(client:compute(q, r))))
    end)

    it("has one task for equal pure calls, of all clients", function()
      local random = delayed("os.urandom", { pure = true })
      local mine, theirs = client:compute(random(16)), other:compute(random(16))
      assert.equal(mine.key, theirs.key)
      assert.equal(mine:result(PATIENCE), theirs:result(PATIENCE))
    end)

    it("stands on Futures", function()
      local future = client:submit("operator.add", 1, 2)
      assert.equal(14, value(delayed(future) + add(future, 8)))
      assert.equal(future, client:compute(delayed(future)))
    end)
  end)

  describe("compute", function()
    it("gives a Future for one, a list for several, a table for a table", function()
      assert.equal(2, client:compute(inc(1)):result(PATIENCE))
      assert.same({ 2, 3 }, plain(client:gather(client:compute(inc(1), inc(2)))))
      assert.same({ a = 2, b = 3 }, plain(client:gather(client:compute { a = inc(1), b = inc(2) })))
      assert.same({}, client:compute {})
    end)

    it("refuses what is not delayed", function()
      misuse("argument 2 is a number.-saturn%.delayed", function() client:compute(inc(1), 5) end)
      misuse("needs a delayed value", function() client:compute() end)
      misuse("'key'", function() client:with { key = "x" }:compute(inc(1)) end)
    end)

    it("refuses Futures of another client and released ones, and stays usable", function()
      local theirs = other:submit("operator.add", 1, 2)
      raises("value", "another client", client.compute, client, delayed(theirs) + 1)
      raises("value", "another client", client.compute, client, inc(theirs))
      local gone = client:submit("operator.add", 1, 2)
      local stands = delayed(gone)
      gone:release()
      raises("value", "released", client.compute, client, stands + 1)
      raises("value", "released", delayed, gone)
      raises("value", nil, client.compute, client, add(inc(1), print))
      assert.equal(2, value(inc(1)))
    end)

    it("raises the error of a cancelled Future that a value stands on", function()
      local kept = client:persist(inc(1))
      client:cancel { kept }
      raises("cancelled", "was cancelled", client.compute, client, kept)
      raises("cancelled", "was cancelled", client.compute, client, inc(kept))
      raises("cancelled", nil, client.get, client, { a = delayed(client:futures_of(kept)[1]) }, "a")
      assert.equal(2, value(inc(1)))
    end)

    it("test_compute_retries: a task that fails is run again so often", function()
      local dir <close> = support.tmpdir()
      local flaky = delayed(py.fn [[
def flaky(path, failures):
    with open(path, "a") as file:
        file.write(".")
        if file.tell() <= failures:
            raise ZeroDivisionError("not yet")
    return "done"
]])
      raises("task", "not yet", function()
        client:with { retries = 1 }:compute(flaky(dir.path .. "/a", 2)):result(PATIENCE)
      end)
      assert.equal("done", client:with { retries = 2 }:compute(flaky(dir.path .. "/b", 2)):result(PATIENCE))
    end)

    it("runs a long chain and a wide graph", function()
      local chain, wide = inc(0), {}
      for _ = 1, 300 do chain = inc(chain) end
      for i = 1, 1000 do wide[i] = i + delayed(0, { key = "zero" }) end
      local futures = client:compute(chain, delayed "sum"(wide))
      assert.same({ 301, 500500 }, plain(client:gather(futures, { timeout = PATIENCE })))
    end)
  end)

  describe("persist", function()
    it("keeps results, and more is built on them", function()
      local noise = client:persist(delayed "os.urandom"(16))
      assert.equal(value(noise), value(noise))
      assert.same({ #value(noise) }, { value(#noise) })
      local both = client:persist { a = inc(1), b = inc(2) }
      assert.equal(5, value(both.a + both.b))
      assert.equal(2, #client:futures_of { both, both.a, inc(1) })
    end)

    it("is gathered, published and kept as its Future", function()
      local kept, open = client:persist(inc(1)), inc(2)
      assert.equal(2, client:gather(kept))
      local got = client:gather { kept, { x = kept }, open }
      assert.same({ 2, 2 }, { got[1], got[2].x })
      assert.is_true(rawequal(open, got[3]))
      client:publish("persisted", { kept })
      assert.equal(2, other:dataset("persisted")[1]:result(PATIENCE))
      client:unpublish "persisted"
      local variable = client:variable()
      variable:set(kept)
      assert.equal(2, variable:get(PATIENCE):result(PATIENCE))
      variable:delete()
      misuse("on the cluster already", function() client:scatter(kept) end)
      misuse("no value yet", function() client:scatter(open) end)
      raises("value", "saturn.delayed cannot be sent", client.publish, client, "persisted", { open })
    end)

    it("lets go of results with the last that stands on them", function()
      local kept = client:persist(inc(41))
      local name = kept.key
      assert.equal(42, value(kept))
      assert.equal("memory", task_status(name))
      kept = nil -- luacheck: ignore 311
      collectgarbage()
      collectgarbage()
      assert.truthy(settles(function() return task_status(name) == nil end))
    end)
  end)

  describe("get/graph", function()
    it("test_get: a key, lists, nothing, tuples", function()
      local graph = { x = task("operator.add", 1, 2), y = task("operator.add", key "x", 10), [py.tuple { "z", 0 }] = 5,
        [7] = task("sum", { key(py.tuple { "z", 0 }), key "x" }) }
      assert.equal(3, client:get(graph, "x", { timeout = PATIENCE }))
      assert.same({ 3, 13 }, plain(client:get(graph, { "x", "y" })))
      assert.same({ { 3 }, { 8, 5, {} } }, plain(client:get(graph, { { "x" }, { 7, py.tuple { "z", 0 }, {} } })))
      assert.same({}, client:get(graph, {}))
      assert.same({}, client:get({}, {}))
      assert.equal(5, client:get(graph, py.tuple { "z", 0 }))
    end)

    it("of the documentation", function()
      assert.equal(11, client:get({ a = 1, b = task("operator.add", key "a", 10) }, "b"))
    end)

    it("computes no more than is asked for", function()
      local graph = { a = 1, bad = task("operator.truediv", key "a", 0), good = task("operator.add", key "a", 1) }
      assert.equal(2, client:get(graph, "good"))
    end)

    it("test_get_with_error: raises the root's error", function()
      local graph = { x = task("operator.truediv", 1, 0), y = task("operator.add", key "x", 1) }
      local err = raises("task", "division by zero", client.get, client, graph, "y", { timeout = PATIENCE })
      assert.equal("ZeroDivisionError", err.type)
    end)

    it("test_get_releases_data: nothing of it stays", function()
      collectgarbage()
      local before = client.session:count()
      assert.same({ 2, 1 }, plain(client:get({ a = 1, b = task("operator.add", key "a", 1) }, { "b", "a" })))
      collectgarbage()
      collectgarbage()
      assert.equal(before, client.session:count())
    end)

    it("test_if_intermediates_clear_on_error", function()
      local middle = inc(1)
      local bad = client:compute(delayed "operator.truediv"(middle, 0))
      assert.equal("task", bad:exception(PATIENCE).kind)
      assert.truthy(settles(function() return task_status(middle.key) ~= "memory" end))
    end)

    it("test_aliases: Futures, delayed values and other names as values", function()
      local future = client:submit("operator.add", 1, 2)
      local graph = { a = future, b = key "a", c = task("operator.add", key "b", inc(3)), d = { key "c", { key "a" } } }
      assert.same({ 3, 3, 7, { 7, { 3 } } }, plain(client:get(graph, { "a", "b", "c", "d" })))
    end)

    it("takes texts that are names for texts", function()
      local graph = { a = "b", b = task("operator.add", key "a", "a"), c = task("list", { "a", { "b" } }) }
      assert.same({ "ba", { "a", { "b" } } }, plain(client:get(graph, { "b", "c" })))
    end)

    it("takes tasks in tasks, keyword arguments and source", function()
      local times = py.fn "lambda x, *, by: x * by"
      local graph = { a = 3, b = task(times, task("operator.neg", key "a"), py.kw { by = key "a" }) }
      assert.equal(-9, client:get(graph, "b"))
    end)

    it("says what is wrong with a graph", function()
      misuse("no task c", function() client:get({ a = 1 }, "c") end)
      misuse("no task z", function() client:get({ a = task("sum", { key "z" }) }, "a") end)
      raises("value", "cycle", client.get, client, { a = task("list", key "b"), b = task("list", key "a") }, "a")
      misuse("unknown option", function() client:get({ a = 1 }, "a", { tiemout = 1 }) end)
      assert.equal(1, client:get({ a = 1 }, "a"))
    end)

    it("gives up after its timeout", function()
      raises("timeout", nil, client.get, client, { a = task("time.sleep", 1) }, "a", { timeout = 0.05 })
      assert.equal(1, client:get({ a = 1 }, "a", { timeout = PATIENCE }))
    end)
  end)
end)
