-- Values to a real worker of the release in $DASK and back: what goes out comes back equal, in both directions, and is
-- of the Python type that docs/values.md promises. Then what cannot be read, and the limits.
local dask = require "spec.support.dask"
local saturn = require "saturn"
local support = require "spec.support"

local array, null, py = saturn.array, saturn.null, saturn.py
local raises = support.raises
local random = math.random

local PATIENCE = 30 -- seconds that nothing here should take
local SEED = tonumber(os.getenv "VALUES_SEED") or 20240229
local COUNT = tonumber(os.getenv "VALUES_COUNT") or 2000
local CASES = 200 -- random ones that Python makes, besides the fixed ones
local HERE = io.popen("pwd"):read "l" .. "/spec/support"

local IDENTITY = py.fn "lambda value: value"

-- ---- exactly the same, bit by bit --------------------------------------------------------------------------------

local same

local function same_array(a, b)
  if not (array.is(a) and array.is(b)) then return a == b end
  if a.dtype ~= b.dtype or not same(a.shape, b.shape) then return false end
  if a.dtype == "|O" then return same(a:totable(), b:totable()) end
  return a:tostring() == b:tostring()
end

local function find_same(item, items)
  for other in next, items do
    if same(item, other) then return other end
  end
end

local function same_set(a, b)
  local left = {}
  for _, item in ipairs(b) do left[item] = true end
  for _, item in ipairs(a) do
    local found = left[item] and item or find_same(item, left)
    if found == nil then return false end
    left[found] = nil
  end
  return next(left) == nil and #a == #b
end

local function in_order(dict)
  local list = {}
  for key, value in pairs(dict) do list[#list + 1] = { key, value } end
  return list
end

function same(a, b)
  if type(a) ~= type(b) then return false end
  if type(a) == "number" then
    return math.type(a) == math.type(b) and (a ~= a and b ~= b or ("n"):pack(a) == ("n"):pack(b))
  end
  if type(a) == "userdata" then return same_array(a, b) end
  if type(a) ~= "table" or rawequal(a, b) then return a == b end
  if py.type(a) ~= py.type(b) then return false end
  if py.kind(a) == "timezone" then return py.equal(a, b) end
  if py.kind(a) == "set" or py.kind(a) == "frozenset" then return same_set(a, b) end
  if py.kind(a) == "OrderedDict" then return same(in_order(a), in_order(b)) end
  local left = 0
  for key, value in next, a do
    local other = rawget(b, key)
    if other == nil and type(key) == "table" then
      local found = find_same(key, b)
      other = found and rawget(b, found)
    end
    if other == nil or not same(value, other) then return false end
    left = left + 1
  end
  for _ in next, b do left = left - 1 end
  return left == 0
end

-- ---- random values ------------------------------------------------------------------------------------------------

local function pick(...) return (select(random(select("#", ...)), ...)) end

local function bytes(count)
  local list = {}
  for i = 1, count do list[i] = string.char(random(0, 255)) end
  return table.concat(list)
end

local function text()
  local list = {}
  for i = 1, pick(0, 1, 3, 8, 40) do
    list[i] = pick("a", "Z", "0", " ", "\n", "\0", "\\", "'", "é", "ß", "€", "\u{10FFFF}", "\u{1F600}", "世")
  end
  return table.concat(list)
end

local function integer() return random(0) >> random(0, 63) end

local function float()
  return pick(random(), -random() * 1e9, 1 / 0, -1 / 0, 0 / 0, -0.0, 5e-324, 1.7976931348623157e308, 2.0 ^ 53,
    (("d"):unpack(bytes(8))))
end

local DTYPES = { "|b1", "|i1", "<i2", "<i4", "<i8", ">i2", ">i4", ">i8", "|u1", "<u2", "<u4", "<u8", ">u8", "<f2",
  "<f4", "<f8", ">f4", ">f8", "<c8", "<c16", "|S3", "<U2", "|V4", "<M8[ns]", "<M8[D]", "<m8[s]", "<m8[25s]",
  "[('x', '<i4'), ('y', '<f8')]", "[('a', '|u1'), ('b', '<f4', (2,)), ('c', [('n', '<i8')])]" }

local function view(a)
  if a.ndim == 0 then return a end
  local what = random(5)
  if what == 1 then return a:transpose() end
  if what == 2 then return a:slice { 1, -1, 2 } end
  if what == 3 then return a:slice { -1, 1, -1 } end
  return a
end

local function some_array()
  local dtype, shape, size = DTYPES[random(#DTYPES)], {}, 1
  for i = 1, random(0, 3) do
    shape[i] = pick(0, 1, 2, 3, 5)
    size = size * shape[i]
  end
  if random(20) == 1 then return array({ "x", 1, 2.5, null, { 1 } }, "O") end
  local content = {}
  local width = array.zeros({ 1 }, dtype).itemsize
  for i = 1, size do
    if dtype == "|b1" then content[i] = string.char(random(0, 1))
    elseif dtype == "<U2" then content[i] = ("<I4I4"):pack(random(65, 0x2000), random(0, 0xD7FF))
    else content[i] = bytes(width) end
  end
  return view(array.from_string(table.concat(content), dtype, shape))
end

local function digits(count)
  local list = { pick("-", ""), random(9) }
  for _ = 1, count do list[#list + 1] = random(0, 9) end
  return table.concat(list)
end

local function moment()
  local tz = pick(false, py.utc, py.timezone(random(-700, 700) * 60))
  return py.datetime { year = random(1, 9999), month = random(12), day = random(28), hour = random(0, 23),
    min = random(0, 59), sec = random(0, 59), usec = random(0, 999999), tz = tz or nil }
end

local SCALARS = { integer, integer, float, text, text, moment,
  function() return null end,
  function() return random(2) == 1 end,
  function() return "\xff" .. bytes(random(0, 30)) end,
  function() return py.int(digits(random(20, 90))) end,
  function() return py.date(random(1, 9999), random(12), random(28)) end,
  function() return py.timedelta { days = random(-999, 999), seconds = random(0, 86399) } end,
  function() return py.Decimal(digits(random(1, 30)) .. "." .. random(0, 9)) end,
  function() return py.UUID(("%08x-%04x-%04x-%04x-%012x"):format(random(0, 0xFFFFFFFF), random(0, 0xFFFF),
    random(0, 0xFFFF), random(0, 0xFFFF), random(0, 0xFFFFFFFFFFFF))) end,
  function() return py.Fraction(random(-99, 99) * 2 + 1, 2 ^ random(9) // 1 | 0) end,
  function() return py.complex(random(), -random()) end,
  function() return py.bytearray(bytes(random(0, 20))) end,
  function() return py.range(random(9), random(99), random(4)) end,
  function() return py.slice(random(9), nil, random(3)) end,
}

local function scalar() return SCALARS[random(#SCALARS)]() end

local function key()
  return pick(text(), integer(), random(-9, 9), random() * 10, py.tuple { integer(), text() })
end

local function some_value(depth)
  local what = random(12)
  if depth == 0 or what <= 4 then return scalar() end
  if what == 5 then return some_array() end
  local made, count = {}, pick(0, 1, 2, 3, 5)
  if what <= 8 then
    for i = 1, count do made[i] = some_value(depth - 1) end
    return what == 8 and py.tuple(made) or made
  end
  if what == 9 then
    local seen = {}
    for _ = 1, count do
      local item = pick(integer(), text())
      if not seen[item] then made[#made + 1] = item end
      seen[item] = true
    end
    made[#made + 1] = py.tuple { 1.5, "t" }
    return pick(py.set, py.frozenset)(made)
  end
  if what == 10 then
    for i = 1, count do made[i] = { "k" .. i, some_value(depth - 1) } end
    return py.OrderedDict(made)
  end
  for _ = 1, count do made[key()] = some_value(depth - 1) end
  return py.dict(made)
end

-- The batches keep the scheduler's messages small.
local function round_trip(client, values, fn, options)
  local back = {}
  for first = 1, #values, 500 do
    local batch = table.move(values, first, math.min(first + 499, #values), 1, {})
    local futures = client:map(fn or IDENTITY, batch)
    table.move(client:gather(futures, options or { timeout = PATIENCE }), 1, #batch, first, back)
  end
  return back
end

describe("values", function()
  local cluster, client

  setup(function()
    cluster = dask.start { workers = 2, nthreads = 1, pythonpath = { HERE } }
    client = saturn.client(cluster.address, { timeout = PATIENCE })
  end)
  teardown(function()
    if client then client:close() end
    if cluster then cluster:stop() end
  end)

  local function run(fn, ...) return client:submit(fn, ...):result(PATIENCE) end

  it("go to a task and come back equal, whatever they are", function()
    math.randomseed(SEED)
    local values = {}
    for i = 1, COUNT do values[i] = some_value(3) end
    local back = round_trip(client, values)
    for i, value in ipairs(values) do
      if not same(value, back[i]) then
        error(("value %d of seed %d: %s came back as %s"):format(i, SEED, py.repr(value), py.repr(back[i])))
      end
    end
  end)

  -- As Dask sends them, and inside an object, which is one pickle.
  for name, maker in pairs { ["each by itself"] = "pickle_cases.alone", ["inside an object"] = "pickle_cases.whole" } do
    it("that Python made come and go back equal, " .. name, function()
      local numbers, wrapped = {}, maker == "pickle_cases.whole"
      for i = 1, 230 + CASES do numbers[i] = i - 1 end
      local made = client:map(maker, numbers, py.kw { seed = SEED, count = CASES })
      local values = client:gather(made, { timeout = PATIENCE, direct = wrapped })
      local differs = client:gather(client:map("pickle_cases.differs", numbers, values,
        py.kw { seed = SEED, count = CASES, wrapped = wrapped }), { timeout = PATIENCE })
      for i, difference in ipairs(differs) do
        if difference ~= "" then error(("value %d of seed %d: %s"):format(i - 1, SEED, difference)) end
      end
    end)
  end

  it("of classes and functions that came by value are used by another worker", function()
    local source = py.fn [[
import collections, dataclasses
def make(what):
    from distributed import get_worker # not where this runs, so that nothing is known there by its name
    Point = collections.namedtuple("Point", "x y")
    @dataclasses.dataclass
    class Data:
        a: int = 1
        def double(self):
            return 2 * self.a
    def adder(n):
        return lambda x: x + n
    return {"point": (Point(1, 2),), "data": (Data(21),), "function": (adder(3),)}[what]
]]
    local uses = { point = "lambda v: v[0].x + v[0].y", data = "lambda v: v[0].double()",
      ["function"] = "lambda v: v[0](4)" }
    local wanted = { point = 3, data = 42, ["function"] = 7 }
    local there, here = client:with { workers = { cluster.workers[1].address } },
      client:with { workers = { cluster.workers[2].address } }
    for what, use in pairs(uses) do
      local value = there:submit(source, what):result(PATIENCE)
      assert.equal("object", py.kind(value[1]), what)
      assert.equal(wanted[what], here:submit(py.fn(use), value):result(PATIENCE), what)
    end
  end)

  it("are of the Python type that the documentation says", function()
    local describe_value = py.fn [[
def describe(value):
    kind = type(value)
    return kind.__module__ + "." + kind.__qualname__ + " " + repr(value)
]]
    local table_of_types = {
      { null, "NoneType None" }, { true, "bool True" }, { 7, "int 7" }, { 2.5, "float 2.5" }, { -0.0, "float -0.0" },
      { math.mininteger, "int -9223372036854775808" }, { 1 / 0, "float inf" }, { 0 / 0, "float nan" },
      { "é", "str 'é'" }, { "", "str ''" }, { "\xff\0", "bytes b'\\xff\\x00'" }, { {}, "list []" },
      { { 1, "x" }, "list [1, 'x']" }, { { a = 1 }, "dict {'a': 1}" }, { py.dict {}, "dict {}" },
      { py.dict { 1, 2 }, "dict {1: 1, 2: 2}" }, { py.list {}, "list []" }, { py.tuple { 1, null }, "tuple (1, None)" },
      { py.tuple {}, "tuple ()" }, { py.set { 1 }, "set {1}" }, { py.set {}, "set set()" },
      { py.frozenset { 1 }, "frozenset frozenset({1})" },
      { py.int("1" .. ("0"):rep(20)), "int 100000000000000000000" },
      { py.str "a", "str 'a'" }, { py.bytes "a", "bytes b'a'" }, { py.bytearray "a", "bytearray bytearray(b'a')" },
      { py.float(2), "float 2.0" }, { py.complex(1, -2), "complex (1-2j)" },
      { py.Decimal "1.50", "decimal.Decimal Decimal('1.50')" },
      { py.Fraction(1, 3), "fractions.Fraction Fraction(1, 3)" },
      { py.UUID(("0"):rep(32)), "uuid.UUID UUID('00000000-0000-0000-0000-000000000000')" },
      { py.datetime(2020, 1, 2, 3), "datetime.datetime datetime.datetime(2020, 1, 2, 3, 0)" },
      { py.date(2020, 1, 2), "datetime.date datetime.date(2020, 1, 2)" },
      { py.time { hour = 1 }, "datetime.time datetime.time(1, 0)" },
      { py.timedelta { hours = 1 }, "datetime.timedelta datetime.timedelta(seconds=3600)" },
      { py.utc, "datetime.timezone datetime.timezone.utc" },
      { py.ZoneInfo "Europe/Paris", "zoneinfo.ZoneInfo zoneinfo.ZoneInfo(key='Europe/Paris')" },
      { py.range(9), "range range(0, 9)" }, { py.slice(1, nil, 2), "slice slice(1, None, 2)" },
      { py.OrderedDict { { "b", 1 }, { "a", 2 } }, "collections.OrderedDict OrderedDict(", "b", "a" },
      { py.defaultdict("list", { a = 1 }), "collections.defaultdict defaultdict(<class 'list'>, {'a': 1})" },
      { py.Counter { a = 2 }, "collections.Counter Counter({'a': 2})" },
      { py.deque({ 1, 2 }, 3), "collections.deque deque([1, 2], maxlen=3)" },
      { py.array("d", { 1.5 }), "array.array array('d', [1.5])" },
      { py.path "/a/b", "pathlib.PosixPath PosixPath('/a/b')" }, { py.dtype "<f8", "numpy.", "dtype('float64')" },
      { py.datetime64(0, "ns"), "numpy.datetime64 ", "1970-01-01T00:00:00.000000000" },
      { py.ref "len", "builtin_function_or_method <built-in function len>" },
      { py.object("collections.Counter", { "aab" }), "collections.Counter Counter({'a': 2, 'b': 1})" },
      { array { 1.5, 2 }, "numpy.ndarray array([1.5, 2. ])" }, { array(5), "numpy.ndarray array(5)" },
      -- data, though a task would look like this
      { py.tuple { py.ref "len", { 1 } }, "tuple (<built-in function len>, [1])" },
    }
    local values = {}
    for i, case in ipairs(table_of_types) do values[i] = case[1] end
    for i, text_of in ipairs(round_trip(client, values, describe_value)) do
      text_of = text_of:gsub("^builtins%.", "")
      local at, wanted = 0, table_of_types[i]
      for j = 2, #wanted do
        local from, to = text_of:find(wanted[j], at + 1, true)
        assert.is_true(from ~= nil and (j > 2 or from == 1), ("%s is not %s"):format(text_of, wanted[j]))
        at = to
      end
      if #wanted == 2 then assert.equal(#text_of, at, text_of) end
    end
  end)

  it("that Dask sends in a form of its own are read like all others", function()
    for _, direct in ipairs { false, true } do
      local function get(source) return client:gather({ client:submit(py.fn("lambda: " .. source)) },
        { direct = direct, timeout = PATIENCE })[1] end
      assert.equal("a\xff", get "b'a\\xff'")
      assert.equal(("x"):rep(300000), get "b'x' * 300000")
      assert.equal("", get "b''")
      local back = get "bytearray(b'abc')"
      assert.equal("bytearray", py.kind(back))
      assert.equal("abc", back.value)
      assert.equal("abc", get "memoryview(b'abc')")
      for _, code in ipairs { "b", "H", "i", "q", "Q", "f", "d" } do
        local numbers = get("__import__('array').array('" .. code .. "', [1, 2, 3])")
        assert.is_true(array.is(numbers))
        assert.same({ 1, 2, 3 }, numbers:totable())
      end
      assert.same({ { 0, 1, 2 }, { 3, 4, 5 } }, get("__import__('numpy').arange(6).reshape(2, 3)"):totable())
      local fortran = get "__import__('numpy').asfortranarray(__import__('numpy').arange(6).reshape(2, 3))"
      assert.equal("F", fortran.contiguous)
      assert.same({ { 0, 1, 2 }, { 3, 4, 5 } }, fortran:totable())
      local broadcast = get "__import__('numpy').broadcast_to(7, (3, 2))"
      assert.same({ { 7, 7 }, { 7, 7 }, { 7, 7 } }, broadcast:totable())
      local big = get "__import__('numpy').broadcast_to(1.5, (1000000, 1000000))"
      assert.equal(10 ^ 12 // 1 | 0, big.size)
      assert.equal(1.5, big:get(1000000, 3))
      local records = get "__import__('numpy').array([(1, 2.5)], dtype=[('x', 'i4'), ('y', 'f8')])"
      assert.equal(2.5, records:get(1).y)
      assert.same({ 1, 2, 3 }, get "[__import__('numpy').int64(1), 2, 3]")
      local list = get "[__import__('numpy').arange(2), 'text', b'\\xff', None, [1]]"
      assert.same({ 0, 1 }, list[1]:totable())
      assert.same({ "text", "\xff", null, { 1 } }, { list[2], list[3], list[4], list[5] })
      assert.equal("tuple", py.kind(get "(__import__('numpy').arange(2), 1)"))
      assert.equal("dict", py.kind(get "{'a': __import__('numpy').arange(2)}"))
      assert.equal(1, #get "{b'bytes'}")
      local dict = get "{('k', 1): __import__('numpy').arange(2), 'a': b'x', 2: None, None: 1}"
      assert.same({ 0, 1 }, py.get(dict, py.tuple { "k", 1 }):totable())
      assert.same({ "x", null, 1 }, { dict.a, dict[2], py.get(dict, null) })
    end
    local long = run(py.fn "lambda: [b'%d' % i for i in range(20000)]")
    assert.equal(20000, #long)
    for i = 1, 20000, 1111 do assert.equal(tostring(i - 1), long[i]) end
  end)

  it("broadcast, read-only and large arrays go back as they came", function()
    local check = py.fn "lambda a: (a.shape, a.strides, a.dtype.str, int(a.sum()))"
    local broadcast = run(py.fn "lambda: __import__('numpy').broadcast_to(7, (3, 2))")
    local back = run(check, broadcast)
    assert.same({ 3, 2 }, { back[1][1], back[1][2] })
    assert.equal(42, back[4])
    local large = array.zeros({ 300, 400 }, "<i8")
    large:fill(3)
    assert.equal(360000, run(check, large)[4])
    assert.is_true(run(IDENTITY, large):equal(large))
    assert.is_true(run(IDENTITY, large:transpose()):equal(large:transpose()))
  end)

  it("data frames come, are looked into, and go back unchanged", function()
    local make = py.fn [[
def make():
    import pandas as pd
    return pd.DataFrame({"n": [1, 2, 3], "x": [0.5, None, 2.5], "s": ["a", None, "é"], "b": [True, False, True],
        "t": pd.date_range("2020", periods=3), "c": pd.Categorical(["u", "v", "u"]),
        "u": pd.date_range("2021", periods=3, tz="UTC"), "v": pd.date_range("2022-02-27 01:02:03", periods=3)},
        index=["i", "j", "k"])
]]
    local unchanged = py.fn([[
import pandas as pd
def make():
    return pd.DataFrame({"n": [1, 2, 3], "x": [0.5, None, 2.5], "s": ["a", None, "é"], "b": [True, False, True],
        "t": pd.date_range("2020", periods=3), "c": pd.Categorical(["u", "v", "u"]),
        "u": pd.date_range("2021", periods=3, tz="UTC"), "v": pd.date_range("2022-02-27 01:02:03", periods=3)},
        index=["i", "j", "k"])
def unchanged(frame):
    pd.testing.assert_frame_equal(frame, make())
    return True
]])
    local frame = run(make)
    assert.same({ 3, 8 }, { frame.shape[1], frame.shape[2] })
    assert.same({ 1, 2, 3 }, frame.n:totable())
    assert.same({ "a", null, "é" }, { frame.s[1], frame.s[2], frame.s[3] })
    assert.same({ "u", "v", "u" }, { frame.c[1], frame.c[2], frame.c[3] })
    assert.equal(run(py.fn "lambda frame: frame.to_csv(index=False)", frame), frame:csv())
    assert.is_true(run(unchanged, frame))
    assert.is_true(run(unchanged, run(IDENTITY, frame)))
    assert.is_true(run(py.fn "lambda value: ''.join(value['f']) == 'nxsbtcuv'", { f = frame }))
    local sent = run("pandas.DataFrame", { a = array { 1, 2, 3 }, b = array { 0.5, 1.5, 2.5 } })
    assert.same({ 0.5, 1.5, 2.5 }, sent.b:totable())
    local series = run(py.fn "lambda f: f['b'] * 2", sent)
    assert.same({ 1.0, 3.0, 5.0 }, series.values:totable())
  end)

  it("that nothing can serialize or read are errors that say so", function()
    for _, direct in ipairs { false, true } do
      local function fails(pattern, source)
        local future = client:submit(py.fn("lambda: " .. source))
        return raises("value", pattern, client.gather, client, { future }, { direct = direct, timeout = PATIENCE })
      end
      fails("could not serialize.*", "(i for i in range(3))")
      fails("could not serialize.*", "__import__('threading').Lock()")
      fails("numpy.*MaskedArray' cannot be read: convert it on the worker",
        "__import__('numpy').ma.array([1, 2], mask=[0, 1])")
      fails("recarray' cannot be read: convert it on the worker", "__import__('numpy').rec.array([(1, 2.5)])")
      assert.equal(3, run("operator.add", 1, 2))
    end
  end)

  it("that Python has no word for are refused before anything is sent", function()
    for pattern, value in pairs { ["saturn%.py%.fn"] = print, ["thread"] = coroutine.create(print),
      ["FILE"] = io.stdout, ["py%.dict"] = { 1, 2, x = 3 }, ["saturn%.null"] = { [1] = 1, [5] = 5 } } do
      local ok, err = pcall(client.submit, client, IDENTITY, { value })
      assert.is_false(ok)
      assert.truthy(tostring(err):find(pattern), tostring(err))
    end
    assert.equal(3, run("operator.add", 1, 2))
  end)
end)

describe("limits", function()
  local cluster

  setup(function() cluster = dask.start { workers = 1, nthreads = 1 } end)
  teardown(function()
    if cluster then cluster:stop() end
  end)

  local function meets(name, number, source, pattern)
    for _, direct in ipairs { false, true } do
      local client <close> = saturn.client(cluster.address, { timeout = PATIENCE, limits = { [name] = number } })
      local future = client:submit(py.fn("lambda: " .. source))
      local err = raises("limit", pattern, client.gather, client, { future }, { direct = direct, timeout = PATIENCE })
      assert.truthy(tostring(err):find("limits%." .. name), tostring(err))
      -- of the same client, and the same value with a client that allows it
      assert.equal(3, client:submit("operator.add", 1, 2):result(PATIENCE))
      local free <close> = saturn.client(cluster.address, { timeout = PATIENCE })
      assert.is_not_nil(free:submit(py.fn("lambda: " .. source)):result(PATIENCE))
    end
  end

  it("message: bytes of one message", function()
    meets("message", 100000, "__import__('os').urandom(200000)", "larger than limits%.message %(100000 bytes%)")
  end)

  it("frame: bytes of one frame, also after it was unpacked", function()
    meets("frame", 100000, "__import__('os').urandom(200000)", "larger than limits%.frame")
    meets("frame", 100000, "b'x' * 200000", "limits%.frame")
  end)

  it("depth: how deep containers nest", function()
    meets("depth", 20, "eval('[' * 30 + ']' * 30)", "nests deeper than 20 %(limits%.depth%)")
  end)

  it("nodes: values in a pickle", function()
    meets("nodes", 1000, "{'a': list(range(2000))}", "more than 1000 .*%(limits%.nodes%)")
  end)

  it("memo: what a pickle remembers", function()
    meets("memo", 500, "{'a': [str(i) * 3 for i in range(1000)]}", "more than 500 .*%(limits%.memo%)")
  end)

  it("are checked when a client is made", function()
    local function misuse(pattern, limits)
      local ok, err = pcall(saturn.client, cluster.address, { limits = limits })
      assert.is_false(ok)
      assert.truthy(tostring(err):find(pattern), tostring(err))
    end
    misuse("frames", { frames = 1 })
    misuse("depth", { depth = "x" })
    misuse("depth", { depth = 0 })
  end)
end)
