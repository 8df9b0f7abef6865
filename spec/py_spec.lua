local core = require "saturn.core"
local py = require "saturn.py"
local dask = require "spec.support.dask"
local support = require "spec.support"

local pickle = core.pickle

local function round(value)
  local back, _, message = pickle.loads(assert(pickle.dumps(value)))
  assert(message == nil, message)
  return back
end

local function raises(pattern, fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok)
  assert.matches(pattern, message)
end

local function unhex(hex)
  return (hex:gsub("%x%x", function(byte) return string.char(tonumber(byte, 16)) end))
end

describe("a name of Python code", function()
  local function parts(text)
    local ref = py.ref(text)
    return ref.module .. "|" .. ref.name
  end

  it("splits at the last dot, or at a colon; a bare name is a builtin", function()
    assert.equal("package.module|name", parts "package.module.name")
    assert.equal("builtins|len", parts "len")
    assert.equal("module|Class.method", parts "module:Class.method")
    assert.equal("a.b|C.m", parts "a.b:C.m")
    assert.equal("caf\u{e9}|f\u{fc}r", parts "caf\u{e9}.f\u{fc}r")
    local ref = py.ref "a.b"
    assert.equal(ref, py.ref(ref))
    assert.equal("len", tostring(py.ref "len"))
    assert.equal("a.b.c", tostring(py.ref "a.b.c"))
  end)

  it("is checked, and the caller's line is in the error", function()
    for _, text in ipairs { "", ".", "a.", ".a", "a..b", "a b", "1a", "a:", ":a", "a:b:c", "a-b", "os.system('x')" } do
      raises("is no Python name", py.ref, text)
      assert.is_nil(py.callable(text))
    end
    raises("py_spec%.lua:%d+: a Python name is a string", function() py.ref(5) end)
    assert.is_nil(py.callable(print))
    assert.is_nil(py.callable {})
    assert.equal("b", py.callable("a.b").name)
  end)

  it("goes to Python as the thing itself, and comes back as the name", function()
    local ref = round(py.ref "os.path:join")
    assert.equal("ref", py.kind(ref))
    assert.equal("os.path.join", tostring(ref))
    assert.equal(py.ref "os.path:join", ref)
  end)
end)

describe("a function from its source", function()
  it("is the last top-level def or class", function()
    local fn = py.fn [[
      import math, os  # the imports stay
      HELP = """
def not_this(): pass
"""
      def helper(x):
          return x
      class Other: pass
      @decorator(
         1)
      async def target(a,
                       b=(1, 2)):
          def inner(): pass
          return helper(a)
      print("done")
    ]]
    assert.equal("target", fn.name)
    assert.equal("target", fn.label)
    assert.matches("^import math, os", fn.source)
    assert.matches("\ndef helper%(x%):\n    return x\n", fn.source)
    assert.equal("helper", py.fn("def helper(): pass\ndef last(): pass", "helper").name)
    assert.equal("C", py.fn("class C(Base):\n  x = 1\n").name)
    assert.equal("f", py.fn("# -*- a comment -*-\n\n\tdef f(): return '#'\n").name)
    assert.equal("f", py.fn("def f():\r\n  return 1\r\n").name)
  end)

  it("is a lambda or an expression", function()
    local fn = py.fn [[ lambda x, y=1: x + y  # sum ]]
    assert.equal("lambda", fn.label)
    assert.equal("_saturn_function = (lambda x, y=1: x + y  # sum\n)\n", fn.source)
    assert.equal("_saturn_function", fn.name)
    assert.matches("^import math\n_saturn_function = %(lambda x: math%.sqrt%(x%)\n%)",
      py.fn("import math\nlambda x: math.sqrt(x)").source)
    assert.equal("expression", py.fn("functools.partial(f, 1)").label)
  end)

  it("must hold one, and says so", function()
    raises("no Python code", py.fn, "")
    raises("no Python code", py.fn, "  # only a comment\n")
    raises("neither", py.fn, "import os")
    raises("neither", py.fn, "x = 1")
    raises("no top%-level def", py.fn, "x = 1\ny = 2")
    raises("no top%-level def or class", py.fn, "def f(): pass", "g")
    raises("Python source text", py.fn, print)
    raises("UTF%-8", py.fn, "def f(): '\xff'")
    raises("NUL", py.fn, "def f(): '\0'")
  end)

  it("is a value where a function is wanted", function()
    assert.matches("builtins.*eval", assert(pickle.dumps(py.fn "lambda: 1")))
  end)
end)

describe("integers of any size", function()
  it("print all digits, compare, and are plain when they fit", function()
    local digits = "123456789012345678901234567890"
    local big = py.int(digits)
    assert.equal(digits, tostring(big))
    assert.equal("-" .. digits, tostring(py.int("-" .. digits)))
    assert.equal("int", math.type(py.int "42") and "int")
    assert.equal(math.mininteger, py.int "-9223372036854775808")
    assert.equal("9223372036854775808", tostring(py.int "9223372036854775808"))
    assert.equal(big, py.int "123_456_789_012_345_678_901_234_567_890")
    assert.is_true(big > 5 and big > 1e20 and big < 1e40 and big < math.huge and big > -math.huge)
    assert.is_true(py.int("-" .. digits) < py.int "-99999999999999999999")
    assert.is_true(py.int("-" .. digits) < big and big <= big)
    local less = big < big
    assert.is_false(less)
    assert.is_true(math.abs(big:tonumber() / 123456789012345678901234567890.0 - 1) < 1e-15)
    assert.equal(digits, tostring(round(big)))
    assert.equal("<" .. digits .. ">", "<" .. big .. ">")
    raises("decimal digits", py.int, "12x")
    raises("decimal digits", py.int, {})
    assert.equal(1000, #tostring(py.int(("7"):rep(1000))))
  end)
end)

describe("values with a Python type", function()
  it("print as Python prints them", function()
    local cases = {
      { py.tuple { 1 }, "(1,)" }, { py.tuple {}, "()" }, { py.tuple { 1, "a", py.null }, "(1, 'a', None)" },
      { py.list { 1.5, true }, "[1.5, True]" }, { py.dict { a = 1, b = { 2 } }, "{'a': 1, 'b': [2]}" },
      { py.dict {}, "{}" }, { py.set {}, "set()" }, { py.set { 1 }, "{1}" }, { py.frozenset { 1 }, "frozenset({1})" },
      { py.complex(1, -2), "(1-2j)" }, { py.datetime(2020, 1, 2, 3, 4, 5), "2020-01-02 03:04:05" },
      { py.datetime { year = 2020, month = 1, day = 2, usec = 7, tz = py.utc }, "2020-01-02 00:00:00.000007+00:00" },
      { py.datetime { year = 2020, month = 1, day = 2, tz = py.timezone(-5400) }, "2020-01-02 00:00:00-01:30" },
      { py.date(2020, 1, 2), "2020-01-02" }, { py.time(1, 2, 3), "01:02:03" }, { py.utc, "UTC" },
      { py.timedelta { hours = -1 }, "-1 day, 23:00:00" }, { py.timedelta { milliseconds = 1500 }, "0:00:01.500000" },
      { py.Decimal "1.50", "1.50" }, { py.Fraction(1, 3), "1/3" },
      { py.UUID(("ab"):rep(16)), "abababab-abab-abab-abab-abababababab" },
      { py.range(3), "range(0, 3)" }, { py.slice(1, nil, 2), "slice(1, None, 2)" }, { py.path "/a", "/a" },
      { py.OrderedDict { { "z", 1 }, { "a", 2 } }, "OrderedDict({'z': 1, 'a': 2})" },
      { py.defaultdict("list", { a = 1 }), "defaultdict(list, {'a': 1})" },
      { py.deque({ 1, 2 }, 5), "deque([1, 2], maxlen=5)" },
      { py.Counter { a = 2 }, "Counter({'a': 2})" }, { py.array("d", { 1.5 }), "array('d', [1.5])" },
      { py.bytes "ab", "ab" }, { py.object("m.C", { 1 }, { k = 2 }), "m.C(1, {'k': 2})" },
      { py.kw { axis = 0 }, "kw(axis=0)" },
    }
    for _, case in ipairs(cases) do assert.equal(case[2], tostring(case[1])) end
    assert.equal([==[["it's", 'a\n\x01"', b'\xff', 0.1, 1e+300, nan, None]]==],
      py.repr { "it's", 'a\n\1"', "\xff", 0.1, 1e300, 0 / 0, py.null })
  end)

  it("print as Python's str and repr, to the letter", function()
    local program = [==[
import collections, fractions, math, pickle, random, struct
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

odd = timezone(timedelta(seconds=1, microseconds=5))
values = [datetime(2020, 1, 1), datetime(2020, 1, 1, 1, 2, 3, 4, tzinfo=odd, fold=1), datetime(2020, 1, 1, 1, 2, 0, 4),
    datetime(1, 1, 1, tzinfo=ZoneInfo("UTC")), datetime.max, time(1), time(1, 2, 3, 4, tzinfo=timezone.utc, fold=1),
    time(0, 0, 5), date(2020, 2, 29), timedelta(0), timedelta(days=-1, microseconds=3), timedelta(1, 5), timedelta.max,
    timedelta.min, timezone.utc, timezone(timedelta(0), "X"), odd, timezone(-odd.utcoffset(None)),
    timezone(-timedelta(hours=1), "it's"), timezone(timedelta(hours=5, minutes=30)), ZoneInfo("Europe/Paris"),
    1j, -1j, complex(2, 0), complex(-0.0, 1), complex(1, -0.0), complex(0, math.nan), complex(math.inf, -math.inf),
    complex(1e16, 1e-5), complex(math.nan, 0.1 + 0.2), fractions.Fraction(5), fractions.Fraction(-1, 3), frozenset(),
    collections.OrderedDict(), collections.Counter(), set(), collections.deque(), [], {}, (),
    [math.inf, -math.nan, -0.0, 1e15, 1e16, 5e-324, 0.1 + 0.2, 1e-4, 1e-5, 2.0 ** -44, 1e22, 1e23],
    [Decimal("1E+5"), Decimal("-0.10"), Decimal("NaN")], [datetime(2020, 1, 1), timedelta(1), 1j]]
random.seed(1)
powers = list(range(-1074, 1024))
for first in range(0, len(powers), 50):
    values.append([2.0 ** k for k in powers[first:first + 50]])
    values.append([random.uniform(1, 10) * 10 ** random.uniform(-320, 307) for _ in range(50)])
    values.append([round(random.uniform(0, 10 ** random.randrange(9)), random.randrange(9)) for _ in range(50)])
try:
    import pandas as pd
    values += [pd.Timedelta(1), pd.Timedelta("-1ns"), pd.Timedelta("1 days 02:03:04.000000005"), pd.Timedelta("1s"),
        pd.Timedelta(0), pd.Timedelta("-3 days"), pd.Timedelta("1ms"), pd.Timestamp("2020-01-01"),
        pd.Timestamp("2020-01-01 00:00:00.789"), pd.Timestamp("1900-01-01 00:00:00.000000001"),
        pd.Timestamp("2020-01-01 00:00:00.5", tz="UTC"), pd.Timestamp("2020-06-01", tz=timezone(-timedelta(hours=5)))]
    import pytz
    paris = pytz.timezone("Europe/Paris")
    values += [datetime(2020, 1, 1, tzinfo=pytz.UTC), paris.localize(datetime(2020, 7, 1)), paris.localize(datetime(
        2020, 1, 1)), datetime(2020, 1, 1, tzinfo=pytz.FixedOffset(-90)), pd.Timestamp("2020-06-01", tz="Europe/Paris")]
except ImportError:
    pass
try:
    import dateutil.tz
    values += [datetime(2020, 1, 1, tzinfo=dateutil.tz.tzutc())]
except ImportError:
    pass

for value in values:
    print(pickle.dumps(value).hex(), pickle.dumps((str(value), repr(value))).hex())
]==]
    local seen = 0
    for value, texts in dask.run_python(nil, program):gmatch "(%x+) (%x+)\n" do
      value, texts = pickle.loads(unhex(value)), pickle.loads(unhex(texts))
      assert.equal(texts[1], type(value) == "table" and getmetatable(value) and tostring(value) or py.repr(value))
      if not texts[2]:find("tzinfo=<", 1, true) then -- of pytz
        assert.equal(texts[2], py.repr(value, { width = 9999 }))
      end
      seen = seen + 1
    end
    assert.is_true(seen > 170, seen)
  end)

  it("cut long, deep and cyclic values", function()
    local cyclic = { 1 }
    cyclic[2] = cyclic
    assert.equal("[1, ...]", py.repr(cyclic))
    local deep = {}
    for _ = 1, 10000 do deep = { deep } end
    assert.is_true(#py.repr(deep) < 100)
    local long = {}
    for i = 1, 10000 do long[i] = i end
    assert.is_true(#py.repr(long) < 1000)
    assert.is_true(#py.repr(("x"):rep(1e6)) < 3000)
    assert.equal("[1, 2, ...]", py.repr({ 1, 2, 3 }, { items = 2 }))
    local broken = setmetatable({}, getmetatable(py.datetime(1, 1, 1)))
    assert.equal("[<broken datetime>]", py.repr { broken })
    local delta = setmetatable({ days = "x" }, pickle.types.timedelta)
    for _, tz in ipairs { delta, setmetatable({ offset = delta }, pickle.types.timezone),
      setmetatable({ offset = 0 / 0 }, pickle.types.timezone), setmetatable({}, pickle.types.ZoneInfo),
      setmetatable({ module = "pytz", name = "_p", args = 5 }, pickle.types.object) } do
      local one, other = py.datetime(2020, 1, 1), py.datetime(2020, 1, 1)
      one.tz, other.tz = tz, tz
      assert.matches("^%[", py.repr { one })
      assert.is_true(py.equal(one, other))
      assert.are_not.equal(one, py.datetime(2020, 1, 1))
    end
  end)

  it("say which type they go back as", function()
    for name, value in pairs { int = 1, float = 1.5, str = "a", bytes = "\xff", bool = true, NoneType = py.null,
      list = {}, dict = { a = 1 }, tuple = py.tuple {}, set = py.set {}, ["datetime.datetime"] = py.datetime(1, 1, 1),
      ["decimal.Decimal"] = py.Decimal "1", ["numpy.ndarray"] = require "saturn.array" { 1 }, ["m.C"] = py.object "m.C",
      ["pathlib.PosixPath"] = py.path "/", ["collections.OrderedDict"] = py.OrderedDict() } do
      assert.equal(name, py.type(value))
      local back = round(value)
      assert.equal(name, py.type(back))
    end
  end)

  it("are checked when they are made", function()
    raises("has no field 'hours'", py.datetime, { year = 1, month = 1, day = 1, hours = 1 })
    raises("needs", py.date, 2020)
    raises("takes a table", py.tuple, 5)
    raises("32 hexadecimal digits", py.UUID, "xyz")
    raises("UTF%-8", py.str, "\xff")
    raises("takes a string", py.bytes, 5)
    raises("one letter", py.array, "dd")
    local wrong = py.datetime(2020, 12, 1)
    wrong.month = 13
    local text, kind, message = pickle.dumps(wrong)
    assert.is_nil(text)
    assert.equal("value", kind)
    assert.matches("py%.datetime", message)
  end)

  it("have fields in their ranges", function()
    raises("py_spec%.lua:%d+: py%.date: 2021%-02 has no day 29", function() local _ = py.date(2021, 2, 29) end)
    for field, values in pairs { year = { 0, 10000, 1.5 }, month = { 0, 13 }, day = { 0, 32 }, hour = { -1, 24 },
      min = { 60 }, sec = { 60 }, usec = { -1, 1000000, 0 / 0 }, fold = { 2, true } } do
      for _, value in ipairs(values) do
        local moment = { year = 2020, month = 1, day = 1 }
        moment[field] = value
        raises(field .. " is a whole number from", py.datetime, moment)
      end
    end
    raises("hour is a whole number", py.time, 24)
    for _, date in ipairs { { 1900, 2, 29 }, { 2021, 4, 31 }, { 2023, 2, 29 }, { 2100, 2, 29 } } do
      raises("has no day", py.date, table.unpack(date))
      raises("has no day", py.datetime, table.unpack(date))
    end
    assert.equal("2000-02-29", tostring(py.date(2000, 2.0, "29")))
    raises("tz is py%.utc, a py%.timezone%(seconds%) or a py%.ZoneInfo", py.datetime,
      { year = 2020, month = 1, day = 1, tz = "UTC" })
    assert.is_nil(py.time { hour = 1, tz = py.null }.tz)
    raises("py%.ZoneInfo", py.timezone, "Europe/Paris")
    raises("less than a day", py.timezone, 86400)
    raises("at most 999999999 days", py.timedelta, 1e9)
    raises("too much", py.timedelta, { hours = 0 / 0 })
    raises("py%.complex takes numbers", py.complex, "1")
  end)

  it("are lists where Python has a sequence", function()
    for _, name in ipairs { "list", "tuple", "set", "frozenset", "deque", "OrderedDict" } do
      raises("py%." .. name .. " takes a list such as .* has the key a", py[name], { a = true })
      raises("beyond a hole, which saturn%.null fills", py[name], { [2] = 5 })
    end
    raises("takes a list", py.array, "d", { a = 1 })
    raises("takes a list", py.object, "m.C", { a = 1 })
    raises("takes a list", py.deque, "abc")
    raises("the list has a hole", py.tuple, { 1, nil, 3, nil, 5, nil })
    raises("maxlen", py.deque, {}, -1)
    assert.equal("[1, 2]", tostring(py.list(py.deque({ 1, 2 }, 2))))
    assert.equal("deque([1.5, 2.5])", tostring(py.deque(require "saturn.array" { 1.5, 2.5 })))
  end)

  it("make decimal numbers of the shortest text of a number", function()
    for text, value in pairs { ["12345678901234.56"] = 12345678901234.56, NaN = 0 / 0, Infinity = 1 / 0,
      ["-Infinity"] = -1 / 0, ["5"] = 5, ["1E+22"] = 1e22, ["0.1"] = 0.1, ["-0.0"] = -0.0 } do
      assert.equal(text, py.Decimal(value).value)
    end
    raises("text such as", py.Decimal, "1,5")
    raises("text such as", py.Decimal, {})
  end)

  it("compare by value, and keys are found by value", function()
    assert.equal(py.datetime(2020, 1, 1), py.datetime(2020, 1, 1))
    assert.is_true(py.date(2020, 1, 1) < py.date(2020, 1, 2))
    assert.is_true(py.timedelta { days = 1 } < py.timedelta { hours = 25 })
    assert.is_true(py.datetime { year = 2020, month = 1, day = 1, tz = py.utc } <
      py.datetime { year = 2020, month = 1, day = 1, tz = py.timezone(-3600) })
    assert.is_true(py.equal(py.tuple { 1, { a = 2 } }, py.tuple { 1, { a = 2 } }))
    assert.is_false(py.equal(py.tuple { 1 }, { 1 }))
    local dict = round(py.dict { [py.tuple { 1, 2 }] = "pair", [py.null] = "none", [1.5] = "half", a = "text" })
    assert.equal("pair", py.get(dict, py.tuple { 1, 2 }))
    assert.equal("none", py.get(dict, nil))
    assert.equal("half", py.get(dict, 1.5))
    assert.equal("text", py.get(dict, "a"))
    assert.is_nil(py.get(dict, py.tuple { 1 }))
    local both = pickle.loads "}(\x8c\1aK\1C\1aK\2u."
    assert.equal(1, py.get(both, "a"))
    assert.equal(2, py.get(both, py.bytes "a"))
    local turned = pickle.loads "}(C\1aK\2\x8c\1aK\1u."
    assert.equal(1, py.get(turned, "a"))
    assert.equal(2, py.get(turned, py.bytes "a"))
    assert.matches("^{.*1: 'x'.*}$", py.repr { "x", k = 2 })
    assert.matches("^{.*'k': 2.*}$", py.repr { "x", k = 2 })
    local nan = pickle.loads "}G\x7f\xf8\0\0\0\0\0\0K\1s."
    assert.equal(1, py.get(nan, 0 / 0))
  end)

  it("are equal when they are in Python", function()
    local function moment(hour, tz, min)
      return py.datetime { year = 2020, month = 1, day = 1, hour = hour, min = min or 0, tz = tz }
    end
    local paris = py.ZoneInfo "Europe/Paris"
    for _, pair in ipairs { { "1.0", "1.00" }, { "100", "1E+2" }, { "0", "-0.00" }, { "inf", "Infinity" } } do
      assert.equal(py.Decimal(pair[1]), py.Decimal(pair[2]))
    end
    for _, pair in ipairs { { "1", "-1" }, { "1", "10" }, { "nan", "nan" }, { "inf", "-inf" }, { "0", "inf" } } do
      assert.are_not.equal(py.Decimal(pair[1]), py.Decimal(pair[2]))
    end
    assert.equal(moment(1, py.timezone(3600)), moment(0, py.utc))
    assert.equal(moment(1, py.timezone(3600)), moment(0, py.ZoneInfo "UTC"))
    assert.equal(moment(1, paris), moment(1, paris))
    for _, pair in ipairs { { moment(1), moment(1, py.utc) }, { moment(1, paris), moment(1, py.timezone(3600)) },
      { moment(1, paris), moment(2, paris) }, { moment(1, paris), moment(1) }, { moment(1), moment(1, nil, 1) },
      { moment(1, py.timezone(3600)), moment(1, py.utc) }, { moment(0), py.date(2020, 1, 1) } } do
      assert.are_not.equal(pair[1], pair[2])
    end
  end)

  it("make fractions in lowest terms", function()
    local low = math.mininteger
    local cases = { { 2, 4 }, { -2, 4 }, { 2, -4 }, { 0, 5 }, { 0, low }, { low, low }, { low, 1 }, { low, -1 },
      { 1, low }, { -1, low }, { low, 2 }, { low, -2 }, { math.maxinteger, low }, { low, 3 }, { 6, low }, { -6, low } }
    local ours, theirs = {}, {}
    for i, case in ipairs(cases) do
      ours[i] = py.repr(py.Fraction(case[1], case[2]))
      theirs[i] = ("print(repr(Fraction(%d, %d)))"):format(case[1], case[2])
    end
    assert.equal(dask.run_python(nil, "from fractions import Fraction\n" .. table.concat(theirs, "\n")),
      table.concat(ours, "\n") .. "\n")
    assert.equal(py.Fraction(1, 2), py.Fraction(2, 4))
    raises("the denominator of a py%.Fraction is not 0", py.Fraction, 1, 0)
    raises("takes integers", py.Fraction, 1.5)
  end)

  it("have an order where Python's have one", function()
    local rows = {
      { "Decimal", { "-Infinity", "-1E+3", "-12.5", "-0.001", "0", "1E-30", "0.10", "0.5", "9.99", "10", "1E+2",
        "1E+40", "Infinity" }, function(text) return py.Decimal(text) end },
      { "Fraction", { { -7, 2 }, { -1, 3 }, { 0, 1 }, { 1, 3 }, { 333, 998 }, { 1, 2 },
        { math.maxinteger - 1, math.maxinteger }, { 1, 1 }, { math.maxinteger, math.maxinteger - 1 }, { 7, 2 } },
        function(x) return py.Fraction(x[1], x[2]) end },
      { "time", { { 0, 0 }, { 0, 1 }, { 1, 0 }, { 23, 59 } },
        function(x) return py.time { hour = x[1], min = x[2] } end },
      { "datetime64", { { -1, "D" }, { 0, "ns" }, { 1, "ns" }, { 1, "us" }, { 1, "s" }, { 1, "h" }, { 25, "h" },
        { 2, "D" } }, function(x) return py.datetime64(x[1], x[2]) end },
    }
    for _, row in ipairs(rows) do
      local name, list, make = table.unpack(row)
      for i = 1, #list do
        for j = 1, #list do
          local a, b, what = make(list[i]), make(list[j]), name .. " " .. i .. " " .. j
          assert.equal(i < j, a < b, what)
          assert.equal(i <= j, a <= b, what)
        end
      end
    end
    local nan, nat = py.Decimal "NaN", py.datetime64(math.mininteger, "ns")
    assert.is_false(nan < py.Decimal "1" or nan >= py.Decimal "1")
    assert.is_false(nat < py.datetime64(0, "ns") or nat >= py.datetime64(0, "ns"))
    assert.is_true(py.Decimal "1.0" <= py.Decimal "1" and py.Decimal "1" <= py.Decimal "1.0")
    raises("cannot be compared here", function() return py.datetime64(1, "M") < py.datetime64(1, "D") end)
    raises("a time and a duration", function() return py.datetime64(1) < py.datetime64(1, "ns", true) end)
    raises("beyond 64 bits", function()
      return py.Fraction(1, 2) < setmetatable({ numerator = py.int(("9"):rep(30)), denominator = 1 },
        getmetatable(py.Fraction(1, 2)))
    end)
  end)

  it("of pandas are equal and ordered by the moment", function()
    local list = {}
    local program = [=[
import pickle, sys, pandas as pd
T, D = pd.Timestamp, pd.Timedelta
values = [T("1960-01-01"), T("2020-01-01"), T("2020-01-01"), T("2020-01-01 00:00:00.000000001"),
    T("2020-01-01", tz="UTC"), T("2020-01-01 02:00", tz="Etc/GMT-1"), D(-5), D(0), D("1s"), D("1s")]
print("".join(len(p).to_bytes(8, "little").hex() + p.hex() for p in map(pickle.dumps, values)))]=]
    local text = dask.run_python(nil, program):gsub("%s", ""):gsub("%x%x", function(d)
      return string.char(tonumber(d, 16))
    end)
    local at = 1
    while at <= #text do
      local pickled
      pickled, at = ("<s8"):unpack(text, at)
      list[#list + 1] = pickle.loads(pickled)
    end
    assert.equal(10, #list)
    assert.is_true(list[2] == list[3] and list[1] ~= list[2] and list[9] == list[10])
    assert.is_true(list[1] < list[2] and list[2] <= list[3] and list[3] < list[4] and list[5] < list[6])
    assert.is_true(list[7] < list[8] and list[8] < list[9] and list[9] <= list[10])
    raises("with a time zone and one without", function() return list[2] < list[5] end)
    raises("py%.Timestamp can only be compared", function() return list[2] < list[7] end)
  end)

  it("that hold themselves are compared to an end", function()
    local function ring()
      local t = { 1, {} }
      t[2][1] = t
      return t
    end
    assert.is_true(py.equal(ring(), ring()))
    local other = ring()
    other[1] = 2
    assert.is_false(py.equal(ring(), other))
  end)

  it("that have no order say so", function()
    local function less(a, b) return a < b end
    local function at_most(a, b) return a <= b end
    local moment, date, delta = py.datetime(2020, 1, 1), py.date(2020, 1, 1), py.timedelta(1)
    local zoned = py.datetime { year = 2020, month = 1, day = 1, tz = py.utc }
    local named = py.datetime { year = 2020, month = 1, day = 1, tz = py.ZoneInfo "Europe/Paris" }
    for _, compare in ipairs { less, at_most } do
      for _, case in ipairs { { moment, 5 }, { 5, moment }, { delta, 5 }, { date, moment }, { moment, date },
        { delta, "a" }, { date, py.null } } do
        raises("py_spec%.lua:%d+: a py%.%a+ can only be compared with another", function()
          local result = compare(case[1], case[2])
          return result
        end)
      end
      raises("with a time zone and one without", compare, moment, zoned)
      raises("named zone", compare, named, zoned)
    end
    assert.is_true(py.timedelta(999999999) > py.timedelta(-999999999))
    assert.is_true(delta <= py.timedelta(1) and moment <= py.datetime(2020, 1, 1))
  end)

  it("count ranges of all sizes", function()
    local low, high = math.mininteger, math.maxinteger
    local cases = { { low, -1, 1 }, { low, high, 3 }, { high, low, -3 }, { high, low, low }, { 0, low, low },
      { 1, 1, 1 }, { 1, 0, 1 }, { 0, 10, 3 }, { 10, 0, -3 }, { 0, 9, 3 }, { 0, 1, high }, { low, high, high } }
    local ours, theirs = {}, {}
    for i, case in ipairs(cases) do
      ours[i] = ("%d"):format(#py.range(table.unpack(case)))
      theirs[i] = ("print(len(range(%d, %d, %d)))"):format(table.unpack(case))
    end
    assert.equal(dask.run_python(nil, table.concat(theirs, "\n")), table.concat(ours, "\n") .. "\n")
    for _, range in ipairs { py.range(low, high), py.range(low, high, 2), py.range(low, 0) } do
      raises("longer than 2%^63", function() return #range end)
    end
    raises("beyond 64 bits", function() return #py.range(py.int "1180591620717411303424") end)
    raises("the step of a py%.range is not 0", py.range, 1, 2, 0)
    raises("takes integers", py.range, "a")
    raises("the key of item 1 is NaN", py.OrderedDict, { { 0 / 0, 1 } })
  end)

  it("keep the order and the hidden parts of dicts out of the way", function()
    local dict = round(py.OrderedDict { { "z", 1 }, { "a", 2 }, { "m", 3 } })
    local keys = {}
    for key in pairs(dict) do keys[#keys + 1] = key end
    assert.same({ "z", "a", "m" }, keys)
    dict.new, dict.a = 4, nil
    keys = {}
    for key in pairs(round(dict)) do keys[#keys + 1] = key end
    assert.same({ "z", "m", "new" }, keys)
    local count = 0
    for _ in pairs(round(py.defaultdict("int", { x = 1 }))) do count = count + 1 end
    assert.equal(1, count)
  end)

  it("know time", function()
    local moment = py.datetime { year = 2020, month = 2, day = 29, hour = 12, usec = 500000, tz = py.timezone(3600) }
    assert.equal(1582974000.5, moment:timestamp())
    assert.equal("2020-02-29T12:00:00.500000+01:00", moment:isoformat())
    assert.equal(os.time { year = 2020, month = 2, day = 29, hour = 12 }, os.time(py.datetime(2020, 2, 29, 12)))
    assert.equal(90061.5, py.timedelta { days = 1, hours = 1, minutes = 1, seconds = 1.5 }:total_seconds())
    local paris = py.datetime { year = 2020, month = 1, day = 1, tz = py.ZoneInfo "Europe/Paris" }
    assert.equal("2020-01-01 00:00:00 Europe/Paris", tostring(paris))
    assert.equal("datetime.datetime(2020, 1, 1, 0, 0, tzinfo=zoneinfo.ZoneInfo(key='Europe/Paris'))", py.repr(paris))
    raises("py_spec%.lua:%d+: .* named zone has no known offset", function() local _ = paris:isoformat() end)
    raises("py_spec%.lua:%d+: .* named zone has no known offset", function() local _ = paris:timestamp() end)
    assert.equal(3, #py.range(9, 0, -3))
    local list = {}
    for i, value in pairs(py.range(9, 0, -3)) do list[i] = value end
    assert.same({ 9, 6, 3 }, list)
  end)
end)

describe("a time in a zone of another package", function()
  it("has the offset of UTC, and no long text", function()
    local program = [==[
import datetime, pickle
try:
    import dateutil.tz
    print("utc", pickle.dumps(datetime.datetime(2020, 1, 1, tzinfo=dateutil.tz.tzutc())).hex())
    print("dateutil", pickle.dumps(datetime.datetime(2020, 1, 1, tzinfo=dateutil.tz.gettz("Europe/Paris"))).hex())
    import pytz
    print("utc", pickle.dumps(datetime.datetime(2020, 1, 1, tzinfo=pytz.UTC)).hex())
except ImportError:
    pass
]==]
    for name, hex in dask.run_python(nil, program):gmatch "(%a+) (%x+)\n" do
      local moment = pickle.loads(unhex(hex))
      if name == "utc" then
        assert.equal(1577836800.0, moment:timestamp())
        assert.equal("2020-01-01T00:00:00+00:00", moment:isoformat())
      else
        assert.matches("^2020%-01%-01 00:00:00 dateutil%.tz%.[%a_]+%.tzfile$", tostring(moment))
        assert.matches("tzinfo=dateutil%.tz%.[%a_]+%.tzfile%)$", py.repr(moment))
        raises("named zone has no known offset", moment.timestamp, moment)
      end
    end
  end)
end)

describe("an exception", function()
  -- what a worker sends: tblib.pickling_support.unpickle_exception(KeyError, ("k",), ValueError("v"), None)
  local CHAIN = "\x80\5\x8c\x16tblib.pickling_support\x8c\x12unpickle_exception\x93(" ..
    "\x8c\x08builtins\x8c\x08KeyError\x93" .. "\x8c\1k\x85\x8c\x08builtins\x8c\nValueError\x93\x8c\1v\x85RNtR."

  it("has a class, arguments and a cause, and reads like Python's", function()
    local e = pickle.loads(CHAIN)
    assert.equal("exception", py.kind(e))
    assert.equal("builtins", e.module)
    assert.equal("KeyError", e.name)
    assert.equal("k", e.args[1])
    assert.equal("KeyError: 'k'", tostring(e))
    assert.equal("ValueError: v", tostring(e.cause))
    local info = py.exception_info(e)
    assert.equal("KeyError", info.type)
    assert.equal("'k'", info.message)
    assert.equal("ValueError", info.cause.type)
    assert.is_nil(py.exception_info(5))
    assert.equal("ValueError: v", tostring(round(e).cause or round(e).state.__cause__))
  end)
end)

describe("what an exception says", function()
  local junk = { {}, { 1 }, { "a" }, { 1, "b" }, { "a", "b" }, { "a", 5, 1 << 62, math.mininteger, "e" },
    { "a", "b", -5, 9, {} }, { "a", "b", 1 << 62, (1 << 62) + 1, "e" }, { 1, 2, 3, 4, 5 }, { 1, {}, {}, {}, {} },
    { "\xff", "\xff\xfe", 0, 1, "\xff" }, { math.mininteger, "\xff" }, { { 1 } }, { core.null, core.null, 5 } }

  it("is a text, whatever its arguments are", function()
    for class in ([[builtins.KeyError builtins.UnicodeDecodeError builtins.UnicodeEncodeError builtins.SyntaxError
      builtins.ExceptionGroup builtins.OSError json.decoder.JSONDecodeError subprocess.CalledProcessError
      urllib.error.URLError numpy.AxisError distributed.scheduler.KilledWorker distributed.scheduler.NoWorkerError
      distributed.scheduler.NoValidWorkerError mymod.Other]]):gmatch "%S+" do
      local module, name = class:match "^(.*)%.(%w+)$"
      for _, args in ipairs(junk) do
        local e = setmetatable({ module = module, name = name, args = args, attributes = { filename = args } },
          core.pickle.types.exception)
        assert.is_string(tostring(e))
      end
    end
  end)

  it("is what Python says", function()
    local program = [==[
import decimal, pickle
for e in [ValueError(), ValueError("a"), ValueError(b"a"), ValueError(b"\xff"), ValueError(bytearray(b"a")),
        ValueError(0.1 + 0.2), ValueError(1e16), ValueError(None), ValueError(True), ValueError([1.5, "a"]),
        ValueError(()), ValueError({}), ValueError(10 ** 30), ValueError(1j), ValueError(decimal.Decimal("1.50")),
        ValueError(ValueError(1.0)), ValueError("a", b"b", None), KeyError(b"k"), OSError(2, "no", b"file")]:
    print(pickle.dumps(e).hex(), pickle.dumps(str(e)).hex())
]==]
    for exception, text in dask.run_python(nil, program):gmatch "(%x+) (%x+)\n" do
      text = pickle.loads(unhex(text))
      exception = pickle.loads(unhex(exception))
      assert.equal(exception.name .. (text == "" and "" or ": ") .. text, tostring(exception))
    end
  end)

  it("stops where exceptions hold each other", function()
    local e = setmetatable({ module = "builtins", name = "ValueError" }, core.pickle.types.exception)
    e.args = { e }
    assert.is_string(tostring(e))
  end)
end)

describe("the module", function()
  it("leaves what is rare for later", function()
    local program = [[
      local py, loaded = require "saturn.py", package.loaded
      local before = tostring(loaded["saturn.pyvalue"]) .. " " .. tostring(loaded["saturn.pandas"])
      io.write(before, " ", py.repr(py.tuple { 1, 2 }), " ", type(loaded["saturn.pyvalue"]))]]
    local output = support.shell(support.lua() .. " -e " .. support.quote(program))
    assert.equal("nil nil (1, 2) table", output)
  end)
end)
