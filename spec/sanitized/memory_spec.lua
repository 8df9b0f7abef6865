-- Memory that runs out at each allocation in turn, and a full collection at each allocation in turn. Needs the
-- interpreter of the sanitized builds (spec/support/lua.c), whose leak check at the end is the other half of this.
local array = require "saturn.array"
local core = require "saturn.core"
local dask = require "spec.support.dask"
local errors = require "saturn.error"
local memory = require "spec.memory"
local saturn = require "saturn"
local support = require "spec.support"

local pickle, wire = core.pickle, core.wire

local function is_memory_error(err)
  if type(err) == "string" then return err:find("memory", 1, true) ~= nil end
  return errors.is_error(err) and err.kind == "limit" and err.message:find("memory", 1, true) ~= nil
end

-- Runs fn with memory running out at the first allocation, at the second and so on until it is enough. Each run raises
-- a memory error or gives what check accepts; then the same with a full collection at each allocation.
local function in_turn(fn, check)
  local n, failed = 0, 0
  repeat
    n = n + 1
    local refused, ok, result = memory.run(n, false, fn)
    if ok then
      check(result)
    else
      assert.is_true(is_memory_error(result), ("allocation %d: %s"):format(n, tostring(result)))
      failed = failed + 1
    end
  until refused == 0
  assert.is_true(failed > 0)
  for at = 1, n do
    local refused, ok, result = memory.run(at, true, fn)
    assert.is_true(ok, refused == 1 and ("a collection at allocation %d: %s"):format(at, tostring(result)) or result)
    check(result)
  end
end

local PROGRAM = [[
import array, collections, datetime, decimal, enum, fractions, pathlib, pickle, sys, uuid, zoneinfo
import numpy as np
try:
    import pandas as pd
except ImportError:
    pd = None
shared = ["one", "two"]
shared.append(shared)
try:
    try:
        raise KeyError("inner")
    except KeyError as e:
        raise ValueError("outer") from e
except ValueError as e:
    error = e
value = {
    "numbers": [1, -70000, 2**40, 2**100, 1.5, float("inf"), True, None, 1 + 2j],
    "texts": ["", "short", "x" * 100, b"bytes", bytearray(b"array"), "h\u00e9"],
    "shared": [shared, shared, (shared, ())],
    "sets": [{1, 2}, frozenset({"a"})],
    "times": [datetime.datetime(2024, 2, 29, 12, tzinfo=zoneinfo.ZoneInfo("Europe/Rome")), datetime.date(2024, 1, 1),
              datetime.time(1, 2, 3, tzinfo=datetime.timezone(datetime.timedelta(hours=1), "x")),
              datetime.timedelta(1, 2, 3)],
    "others": [decimal.Decimal("1.50"), fractions.Fraction(1, 3), uuid.UUID(int=5), range(3), slice(1, 2),
               pathlib.PurePosixPath("/tmp/x"), array.array("d", [1.0, 2.0]), error, np.dtype(("i4", (2, 3))),
               np.dtype([("x", "i4"), ("y", "f8", (2,))])],
    "collections": [collections.OrderedDict(a=1, b=2), collections.defaultdict(list, a=[1]), collections.Counter("aab"),
                    collections.deque([1, 2], 5)],
    "arrays": [np.arange(6).reshape(2, 3), np.arange(6.0).reshape(2, 3).T, np.array([], "f4"), np.array(5),
               np.array(["a", "bc"]), np.array([1, "x", None], object), np.float32(1.5), np.datetime64("2024-01-01"),
               np.array([(1, 2.0)], [("x", "i4"), ("y", "f8")])],
}
if pd is not None:
    value["frame"] = pd.DataFrame({"a": [1, 2], "b": ["x", "y"], "c": pd.Categorical(["u", "v"])},
                                  index=pd.Index([10, 20], name="i"))
    value["stamp"] = pd.Timestamp("2024-01-01 12:00", tz="UTC")
for protocol in (0, 4, 5):
    data = pickle.dumps(value, protocol)
    sys.stdout.buffer.write(len(data).to_bytes(8, "little") + data)
]]

describe("when memory runs out", function()
  local pickles = {}

  setup(function()
    local output, at = dask.run_python(nil, PROGRAM), 1
    while at <= #output do
      pickles[#pickles + 1], at = ("<s8"):unpack(output, at)
    end
    assert.equal(3, #pickles)
  end)

  it("a pickle is read or is not", function()
    for _, text in ipairs(pickles) do
      in_turn(function() return errors.check(pickle.loads(text)) end, function(value)
        assert.equal(-70000, value.numbers[2])
        assert.equal("Counter", tostring(value.collections[3]):match "Counter")
        assert.same({ { 0, 1, 2 }, { 3, 4, 5 } }, value.arrays[1]:totable())
        assert.equal(value.shared[1], value.shared[2])
        assert.equal(value.shared[1], value.shared[1][3])
      end)
    end
  end)

  it("a value is written as a pickle or is not", function()
    for protocol = 4, 5 do
      local value = assert(pickle.loads(pickles[2]))
      value.frame, value.stamp = nil, nil
      local wanted = assert(pickle.dumps(value, { protocol = protocol }))
      in_turn(function() return errors.check(pickle.dumps(value, { protocol = protocol })) end, function(text)
        assert.equal(#wanted, #text)
      end)
    end
  end)

  it("a message of the control stream is read and written or is not", function()
    local value = { op = "x", list = { 1, 2.5, "three", false, core.null }, map = { a = { b = { c = {} } } },
      bin = wire.bin "bytes", set = wire.set { 1, 2 } }
    local text = assert(wire.encode(value))
    in_turn(function() return errors.check(wire.encode(value)) end, function(again) assert.equal(#text, #again) end)
    in_turn(function() return errors.check(wire.decode(text)) end, function(again)
      assert.equal("three", again.list[3])
      assert.same({}, again.map.a.b.c)
    end)
  end)

  it("an array is made, changed and read or is not", function()
    local dir <close> = support.tmpdir()
    local path = dir.path .. "/a.npy"
    local function work()
      local a = array { { 1, 2, 3 }, { 4, 5, 6 } }
      local b = array({ { x = 1, y = { 2, 3 } } }, "[('x', '<i4'), ('y', '>f8', (2,))]")
      local t = a:transpose():copy()
      array.save_npy(path, a:astype "<f4")
      local back <close> = array.open(path)
      return { a:sum(), a:mean(), t:totable(), back:totable(), tostring(a), b[1].y[2], a:slice({ 1, 1 }):totable() }
    end
    local wanted = work()
    in_turn(work, function(result) assert.same(wanted, result) end)
  end)

  it("a graph is written or is not, in every dialect", function()
    local reactor = errors.check(core.reactor.new())
    for _, release in ipairs { 20221201, 20231201, 20241201, 20260800 } do
      local function work()
        local session <close> = setmetatable({ errors.check(core.session.open(reactor,
          { address = "tcp://127.0.0.1:1", id = "memory" })) }, { __close = function(self) self[1]:close() end })
        local graph, big = session[1]:graph(release), array.zeros(1000)
        errors.check(graph:task("key-0", "numpy", "sum", nil, { big }, 1, { k = { big } }))
        for i = 1, 3 do
          errors.check(graph:task("key-" .. i, "operator", "add", nil, { i, { "a", { b = 2.5 } } }, 2, { k = "v" }))
          graph:want("key-" .. i)
        end
        return { graph:size() }
      end
      local sizes = work()
      in_turn(work, function(result) assert.same(sizes, result) end)
    end
  end)

  it("a key pair is made or is not", function()
    in_turn(function()
      local pair = errors.check(core.keypair.new())
      local request = errors.check(pair:request "memory")
      pair:close()
      return request
    end, function(request) assert.truthy(request:find("BEGIN CERTIFICATE REQUEST", 1, true)) end)
  end)

  describe("a client of a cluster", function()
    local cluster, client

    setup(function() cluster = dask.start { workers = 1 } end)
    teardown(function()
      if client then client:close() end
      if cluster then cluster:stop() end
    end)

    local function working()
      if not client or client.status ~= "running" then
        if client then client:close() end
        client = saturn.client(cluster.address, { timeout = 60 })
      end
      return client
    end

    -- Each allocation of the first ones, then every tenth or so: the later ones repeat what the first did.
    local function thinned(fn, check)
      local n = 1
      while true do
        working()
        local refused, ok, result = memory.run(n, false, fn, client)
        if ok then check(result) end
        if not ok then assert.is_true(is_memory_error(result) or errors.is_error(result), tostring(result)) end
        check(fn(working()))
        if refused == 0 then return n end
        n = n + 1 + n // 40
      end
    end

    it("connects or does not", function()
      local points = 0
      local n = 1
      repeat
        local refused, ok, result = memory.run(n, false, saturn.client, cluster.address, { timeout = 60 })
        if ok then result:close() end
        if not ok then assert.is_true(is_memory_error(result) or errors.is_error(result), tostring(result)) end
        points, n = points + 1, n + 1 + n // 20
      until refused == 0
      assert.is_true(points > 10)
    end)

    it("gets a result or an error, and works on", function()
      thinned(function(c) return c:submit("operator.add", { 1, 2 }, { 3 }):result(60) end, function(result)
        assert.same({ 1, 2, 3 }, result)
      end)
    end)

    it("sends an array and gets it back or an error, and works on", function()
      thinned(function(c) return c:gather(c:scatter(array { 1, 2, 3 }), { timeout = 60 }) end, function(result)
        assert.same({ 1, 2, 3 }, result:totable())
      end)
    end)
  end)
end)
