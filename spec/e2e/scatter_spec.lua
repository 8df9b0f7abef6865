-- Data sent to a real scheduler and its workers, of the release in $DASK.
local dask = require "spec.support.dask"
local saturn = require "saturn"
local support = require "spec.support"

local py = saturn.py
local loop = saturn.loop
local misuse, plain, raises, settles = support.misuse, support.plain, support.raises, support.settles

local PATIENCE = 15 -- seconds that nothing here should take

local TYPE = py.fn [[
def describe(value):
    kind = type(value)
    return kind.__module__ + "." + kind.__qualname__
]]

describe("scatter", function()
  local cluster, client

  setup(function()
    cluster = dask.start { workers = 2, nthreads = 1 }
    client = saturn.client(cluster.address, { timeout = PATIENCE })
  end)
  teardown(function()
    if client then client:close() end
    if cluster then cluster:stop() end
  end)

  local function holders(future)
    return client.scheduler:call("who_has", { keys = { future.key } }, PATIENCE)[future.key]
  end

  -- The requests to the scheduler while fn runs.
  local function requests_of(fn)
    local scheduler, ops = client.scheduler, {}
    scheduler.start = function(self, op, ...)
      ops[op] = true
      return getmetatable(self).__index.start(self, op, ...)
    end
    local ok, err = pcall(fn)
    scheduler.start = nil
    if not ok then error(err, 0) end
    return ops
  end

  for name, options in pairs { ["through the scheduler"] = {}, ["straight to the workers"] = { direct = true } } do
    it("test_scatter: " .. name .. ", and the value comes back", function()
      local future = client:scatter("text", options)
      assert.equal("finished", future.status)
      assert.truthy(future.key:find "^str%-%x+$")
      assert.equal("text", future:result(PATIENCE))
      assert.equal(4, client:submit("len", future):result(PATIENCE))
      assert.equal(1, #holders(future))
    end)

    it("test_scatter_types: " .. name .. ", values are of their Python type", function()
      local values = {
        7, 2.5, true, saturn.null, "text", "\xff\0", py.bytes "abc", { 1, "x" }, { a = { 1 } }, py.tuple { 1, 2 },
        py.set { 1 }, saturn.array { 1.5, 2.5 }, saturn.array.zeros({ 2, 0 }, "<i4"), saturn.array({ "a", "bc" }),
        saturn.array(5), py.timedelta { days = 2 }, {},
      }
      local types = { "int", "float", "bool", "NoneType", "str", "bytes", "bytes", "list", "dict", "tuple", "set",
        "numpy.ndarray", "numpy.ndarray", "numpy.ndarray", "numpy.ndarray", "datetime.timedelta", "list" }
      local futures = client:scatter_list(values, options)
      local got = client:gather(client:map(TYPE, futures), { timeout = PATIENCE })
      for i, type_name in ipairs(got) do assert.equal(types[i], (type_name:gsub("^builtins%.", "")), "value " .. i) end
      local back = client:gather(futures)
      for _, i in ipairs { 1, 2, 3, 4, 5, 6 } do assert.equal(values[i], back[i]) end
      assert.equal("abc", back[7])
      assert.same({ { 1, "x" }, { a = { 1 } }, { 1, 2 } }, plain { back[8], back[9], back[10] })
      for i = 12, 15 do
        assert.is_true(values[i]:equal(back[i]))
        assert.same(values[i].shape, back[i].shape)
      end
    end)

    it("sends arrays of any layout, " .. name, function()
      local rows = saturn.array { { 1, 2, 3 }, { 4, 5, 6 } }
      local records = saturn.array({ { x = 1, y = 2.5 } }, "[('x', '<i4'), ('y', '<f8')]")
      local list = { rows:transpose(), rows:slice(nil, { 1, -1, 2 }), rows:slice({ -1, 1, -1 }),
        saturn.array.zeros({ 300, 400 }, "<f8") }
      local back = client:gather(client:scatter_list(list, options), { timeout = PATIENCE })
      for i, array in ipairs(list) do
        assert.same(array.shape, back[i].shape)
        assert.is_true(array:equal(back[i]), "array " .. i)
      end
      local inside = client:scatter({ list[4], { t = rows:transpose() }, 5 }, options)
      local sum = py.fn "lambda value: (value[0].sum(), value[1]['t'].shape, value[0].flags.writeable)"
      assert.same({ 0.0, { 3, 2 }, true }, plain(client:submit(sum, inside):result(PATIENCE)))
      assert.is_true(inside:result(PATIENCE)[1]:equal(list[4]))
      local y = py.fn "lambda a: float(a['y'][0])"
      assert.equal(2.5, client:submit(y, client:scatter(records, options)):result(PATIENCE))
      assert.equal(21, client:submit("numpy.sum", client:scatter(rows:transpose(), options)):result(PATIENCE))
      assert.equal(6.0, client:submit(py.fn "lambda a: float(a[1, 0] + a[0, 1])",
        client:scatter(rows:transpose(), options)):result(PATIENCE))
    end)
  end

  it("keeps data as long as there is a Future", function()
    local future = client:scatter({ "kept" }, { hash = false })
    local key = future.key
    assert.equal(1, #holders(future))
    future:release()
    assert.truthy(settles(function()
      return #client.scheduler:call("who_has", { keys = { key } }, PATIENCE)[key] == 0
    end))
  end)

  it("test_scatter_hash: equal values are one key, unless told otherwise", function()
    local a, b = client:scatter { x = 1, y = { 2 } }, client:scatter { y = { 2 }, x = 1 }
    assert.equal(a.key, b.key)
    local c, d = client:scatter({ x = 1 }, { hash = false }), client:scatter({ x = 1 }, { hash = false })
    assert.not_equal(c.key, d.key)
    assert.same({ x = 1 }, plain(d:result(PATIENCE)))
    local list = client:scatter_list { 1, 2, 1 }
    assert.equal(list[1].key, list[3].key)
    assert.same({ 1, 2, 1 }, plain(client:gather(list)))
  end)

  it("sends what is there already no second time", function()
    local future = client:scatter { "there" } -- luacheck: ignore 211
    assert.is_nil(requests_of(function() client:scatter { "there" } end).scatter)
  end)

  it("sends what was let go again, and neither overtakes the other", function()
    for i = 1, 40 do
      local future = client:scatter({ "again", i % 2 }, { timeout = PATIENCE })
      assert.same({ "again", i % 2 }, plain(future:result(PATIENCE)))
      future:release()
    end
  end)

  it("sends what was let go under another key, since workers hear late that the first one is free", function()
    local slow = py.fn [[
def slow(interval, dask_scheduler=None):
    for stream in dask_scheduler.stream_comms.values():
        stream.interval = interval
]]
    client:run_on_scheduler(slow, 0.3)
    for _, direct in ipairs { true, false } do
      local first = client:scatter({ "slow", direct }, { direct = direct })
      client:submit("len", first):result(PATIENCE) -- the next word to the worker waits
      local key = first.key
      first:release()
      local list = client:scatter_list({ { "slow", direct }, 1, { "slow", direct } }, { direct = direct })
      assert.not_equal(key, list[1].key)
      assert.equal(list[1].key, list[3].key)
      assert.equal(list[1].key, client:scatter({ "slow", direct }).key)
      loop.sleep(0.5)
      assert.equal(2, client:submit("len", list[1]):result(PATIENCE))
    end
    client:run_on_scheduler(slow, 0.002)
  end)

  it("hears of its data although the request overtook the release of a pending Future", function()
    for i = 1, 50 do
      client:submit("time.sleep", i / 1000):release()
      assert.equal("finished", client:scatter({ "overtakes", i }, { timeout = PATIENCE }).status)
    end
  end)

  it("remembers what was let go for a while, and no longer", function()
    local keep <close> = client:scatter { "kept" }
    client:scatter({ "gone" }):release()
    local scattered, now = client._scattered, loop.now()
    local function count()
      local n = 0
      for _ in pairs(scattered.keys) do n = n + 1 end
      return n
    end
    for _ = 1, 2 do
      collectgarbage()
      collectgarbage()
      scattered.look = now
      client:scatter(5):release()
    end
    collectgarbage()
    assert.equal(2, count())
    assert.equal(keep.key, client:scatter({ "kept" }).key)
  end)

  it("test_scatter_direct: nothing goes through the scheduler", function()
    local ops = requests_of(function()
      assert.equal("direct", client:scatter("direct", { direct = true }):result(PATIENCE))
    end)
    assert.is_nil(ops.scatter)
    assert.is_true(ops.update_data)
    local direct <close> = saturn.client(cluster.address, { timeout = PATIENCE, direct = true })
    assert.equal("by the client's own setting", direct:scatter("by the client's own setting"):result(PATIENCE))
  end)

  it("test_scatter_direct_broadcast: every worker has it", function()
    local future = client:scatter("everywhere", { direct = true, broadcast = true })
    assert.equal(2, #holders(future))
  end)

  it("broadcasts to all or to so many", function()
    assert.equal(2, #holders(client:scatter("on all", { broadcast = true })))
    assert.equal(1, #holders(client:scatter("on one", { broadcast = 1 })))
    assert.equal(2, #holders(client:scatter("on both", { broadcast = 2 })))
    misuse("'broadcast'", function() client:scatter(1, { broadcast = 0 }) end)
  end)

  it("test_scatter_dict_workers: names are keys, and workers are chosen by name or address", function()
    local worker = cluster.workers[2]
    for i, options in ipairs { { workers = { worker.address } }, { workers = worker.name },
      { workers = { worker.name }, direct = true } } do
      local x, y = "x-" .. i, "y-" .. i
      local futures = client:scatter_dict({ [x] = 1, [y] = { 2 } }, options)
      assert.equal(x, futures[x].key)
      assert.same({ { worker.address }, { worker.address } }, { holders(futures[x]), holders(futures[y]) })
      assert.same({ [x] = 1, [y] = { 2 } }, plain(client:gather(futures)))
    end
    assert.same({}, client:scatter_dict {})
    assert.same({}, client:scatter_list {})
  end)

  it("test_scatter_raises_if_no_workers, and the client goes on", function()
    local empty <close> = dask.start { workers = 0 }
    local alone <close> = saturn.client(empty.address, { timeout = PATIENCE })
    for _, direct in ipairs { false, true } do
      raises("timeout", nil, alone.scatter, alone, "nowhere", { timeout = 0.3, direct = direct })
    end
    empty:add_worker()
    assert.equal("somewhere", alone:scatter("somewhere"):result(PATIENCE))
    assert.equal("nowhere", alone:scatter("nowhere"):result(PATIENCE))
  end)

  it("sends a container that holds itself, which as an argument is refused", function()
    local list = { 1 }
    list[2] = list
    raises("value", "holds itself.*scatter it", client.submit, client, "builtins.len", list)
    assert.equal(2, client:submit("builtins.len", client:scatter(list)):result(PATIENCE))
  end)

  it("refuses what cannot be sent, and the client goes on", function()
    raises("value", nil, client.scatter, client, print)
    raises("value", nil, client.scatter, client, { deep = { print } })
    raises("value", nil, client.scatter_list, client, { 1, client:submit("operator.neg", 1) and { print } })
    local future = client:submit("operator.neg", 1)
    misuse("on the cluster already", function() client:scatter(future) end)
    misuse("a list of values", function() client:scatter_list(5) end)
    misuse("'wrokers'.-'workers'", function() client:scatter(1, { wrokers = "a" }) end)
    assert.equal("KeyError", raises("task", nil, client.scatter, client, 1, { workers = { "tcp://127.0.0.1:1" } }).type)
    assert.equal(1, client:scatter(1):result(PATIENCE))
  end)
end)
