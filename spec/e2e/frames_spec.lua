-- Frames of pandas as Lua shows them, with the pandas of the release in $DASK as the oracle: Python makes each value
-- and says what it is; the pickle is read here. That frames come from and go back to a worker is in values_spec.lua.
local core = require "saturn.core"
local dask = require "spec.support.dask"
local saturn = require "saturn"

local array, null, py = saturn.array, saturn.null, saturn.py

-- Each line of stdin is an expression; each line of stdout has, in hexadecimal, its pickle, and what the second
-- expression of the line gives for it, as text.
local PROGRAM = [=[
import binascii, datetime, decimal, functools, pickle, sys, uuid, warnings
warnings.simplefilter("ignore")
import numpy as np, pandas as pd
from pandas import DataFrame, Series, Timedelta, Timestamp
nan = float("nan")
moments = pd.date_range
dated = pd.CategoricalIndex(pd.interval_range(Timestamp("2020"), periods=2))
old = int(pd.__version__.split(".")[0]) < 2
try: import pyarrow as pa
except ImportError: pa = None
def A(values, kind): return pd.array(values, dtype=pd.ArrowDtype(kind))
def freq(name):
    names = {"h": "H", "Y": "A", "min": "T", "s": "S", "ms": "L", "us": "U", "ns": "N"}
    return names.get(name, name) if tuple(map(int, pd.__version__.split(".")[:2])) < (2, 2) else name
def periods(name):
    known = pd.period_range("1969-11-28 05:06:07.5", periods=3, freq=freq(name))
    return known.append(pd.PeriodIndex([pd.NaT], freq=freq(name)))
def csv(value): return value.to_csv(index=False)
def columns(value):
    """The CSV of each column of a small frame, all of which tostring shows."""
    if len(value) > 10 or value.columns.nlevels > 1 or not value.columns.is_unique or not 0 < value.size < 20: return ""
    return "".join(csv(value.iloc[:, [i]]) for i in range(value.shape[1]))
for line in sys.stdin:
    expression, question = line.rstrip("\n").split("\t")
    value = eval(expression)
    answer = str(eval(question)(value)).encode()
    print(binascii.hexlify(pickle.dumps(value, 5)).decode(), binascii.hexlify(answer).decode())
]=]

local function unhex(text)
  return (text:gsub("%x%x", function(digits) return string.char(tonumber(digits, 16)) end))
end

-- For a list of expressions the decoded values and Python's answers.
local function ask(expressions, question)
  local lines = {}
  for i, expression in ipairs(expressions) do lines[i] = expression .. "\t" .. question .. "\n" end
  local output, list = dask.run_python(nil, PROGRAM, table.concat(lines)), {}
  for pickle, answer in output:gmatch("(%x+) (%x*)") do
    local value, _, message = core.pickle.loads(unhex(pickle))
    assert(message == nil, message)
    list[#list + 1] = { value = value, answer = unhex(answer) }
  end
  assert.equal(#expressions, #list)
  return list
end

local function hex(text)
  return (text:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))
end

-- Python's str of a value that is sent back.
local function sent(value)
  return (dask.run_python(nil, "import pickle, sys; print(pickle.loads(bytes.fromhex(sys.stdin.read())))",
    hex(core.pickle.dumps(value))))
end

local function expressions(text)
  local list = {}
  for line in text:gmatch("[^\n]+") do list[#list + 1] = line:match("^%s*(%S.-)%s*$") end
  return list
end

local function fails(pattern, ...)
  local ok, message = pcall(...)
  assert.is_false(ok)
  assert.match(pattern, message)
end

local CSV = expressions [==[
  DataFrame({"a": []})
  DataFrame({"a": [1, 2], "b": [0.1 + 0.2, 1 / 3]})
  DataFrame({"x": [1.0, nan, float("inf"), -float("inf"), -0.0, 0.0]})
  DataFrame({"x": [1e15, 1e16, 123456789.123456789, 1e-4, 1e-5, 5e-324, 1.7976931348623157e308, 2.0**-44, 1e22, 1e23]})
  DataFrame({"x": np.random.RandomState(7).randint(-2**63, 2**63 - 1, 500).view("f8")})
  DataFrame({"x": 10.0 ** np.arange(-30, 31), "y": 2.0 ** np.arange(-30, 31), "z": 1 / np.arange(1.0, 62)})
  DataFrame({"x": np.array([0.1, 1 / 3, 1e-5, 1e-45, 3.4e38, 2**-20, nan], "f4")})
  DataFrame({"x": np.array([0.1, 1 / 3, 6e-8, 12.5, 2**-10, 2**-14, nan], "f2")})
  DataFrame({"b": [True, False]})
  DataFrame({"b": [True, None]})
  DataFrame({"u": np.array([1, 2**63, 2**64 - 1], "u8"), "i": np.array([-2**63, 0, 2**63 - 1])})
  DataFrame({"s": ["a", None, nan, 'q"uo,te', "nl\nx", "", " x", "'y'", "é"]})
  DataFrame({"s": ["a", None, 'q"uo,te', "nl\nx"], "n": [1, 2, 3, 4]})
  DataFrame({"": ["x"]})
  DataFrame({"z": np.array([1 + 2j, 3, 1j, complex(-0.0, 1), complex(nan, 1), 1e20 + 1.5j, complex(1, -0.0)])})
  DataFrame({"t": moments("2020", periods=3)})
  DataFrame({"t": moments("2020", periods=3, freq="D").insert(1, pd.NaT)})
  DataFrame({"t": moments("2020", periods=3, freq=freq("h"))})
  DataFrame({"t": moments("2020", periods=3, freq=freq("ms"))})
  DataFrame({"t": moments("2020", periods=3, freq=freq("us"))})
  DataFrame({"t": moments("2020", periods=3, freq=freq("ns"))})
  DataFrame({"t": moments("1969-12-30", periods=3), "u": moments("2021", periods=3, freq=freq("h"))})
  DataFrame({"t": moments("2020", periods=2), "n": [1, 2], "u": moments("2021", periods=2), "m": [3, 4]})
  DataFrame({"t": moments("2020", periods=2), "n": [1, 2], "u": moments("2021", periods=2)}).copy()[["u", "n", "t"]]
  DataFrame(np.array([["2020-01-01", "2020-01-01T01"], ["NaT", "1920-01-01T01:00:00.5"]], "M8[ns]"))
  DataFrame({"t": np.array(["2020-01-01", "1000-01-01"], "M8[s]")} if not old else {"t": [1]})
  DataFrame({"t": moments("2020", periods=2, tz="UTC"), "u": moments("2021", periods=2, tz="UTC")})
  DataFrame({"t": moments("2020-01-01", periods=2, tz=datetime.timezone(datetime.timedelta(hours=-3.5)))})
  DataFrame({"d": pd.to_timedelta([1, 2], unit="s"), "e": pd.to_timedelta([1, None], unit="h")})
  DataFrame({"d": pd.to_timedelta([1, -2], unit="D"), "e": pd.to_timedelta([0, None], unit="D")})
  DataFrame({"d": pd.to_timedelta(["1 days 02:03:04.000000005", "-1ns", None])})
  DataFrame({"d": pd.to_timedelta([1500, -1], unit="ms")})
  DataFrame(np.array([[1, 2], [3, 86400 * 10**9 + 1]], "m8[ns]"))
  DataFrame({"c": pd.Categorical(["u", "v", None, "u"]), "d": pd.Categorical([3, 1, 2, 1])})
  DataFrame({"c": pd.Categorical([0.1, None, 2.5]), "b": pd.Categorical([True, None, False])})
  DataFrame({"c": pd.Categorical(moments("2020", periods=2)), "d": pd.Categorical(pd.to_timedelta([1, 2]))})
  DataFrame({"c": pd.Categorical(moments("2020", periods=2, freq=freq("h")).insert(0, pd.NaT))})
  DataFrame({"c": pd.Categorical(moments("2020", periods=2, tz="UTC"))})
  DataFrame({"i": pd.array([1, None, 3], dtype="Int64"), "j": pd.array([True, None, False], dtype="boolean")})
  DataFrame({"f": pd.array([1.5, None, 0.1], dtype="Float64"), "g": pd.array([1.5, None, 0.1], dtype="Float32")})
  DataFrame({"i": pd.array(np.array([1, 2**64 - 1], "u8")), "s": pd.array(["a", None], dtype="string")})
  DataFrame({n: periods(n) for n in ("M", "Y", "Q", "D", "h", "min", "s", "ms", "us", "ns", "2M")})
  DataFrame({"v": pd.interval_range(0, 2), "w": pd.interval_range(0.0, 2, closed="left")})
  DataFrame({"v": pd.arrays.IntervalArray.from_tuples([(0, 1), nan], closed="neither"), "n": [1, 2]})
  DataFrame({"v": pd.cut(Series([1, 2, 3, None]), [0, 1.5, 3])})
  DataFrame({"v": pd.interval_range(Timedelta("1D"), periods=2, closed="both")})
  DataFrame({"o": [1, "x", 2.5, None, nan, pd.NaT, pd.NA, 2**70, True, 0.1, 1 + 2j]}, dtype=object)
  DataFrame({"o": [Timestamp("2020"), Timestamp("2020-01-01 00:00:00.5", tz="UTC"), Timedelta(1)]}, dtype=object)
  DataFrame({"o": [pd.Period("2020-01"), pd.Interval(0, 1.5), decimal.Decimal("1.50"), uuid.UUID(int=5)]})
  DataFrame({"o": [datetime.date(2020, 1, 1), datetime.time(1, 2), datetime.timedelta(1)]}, dtype=object)
  DataFrame({"o": [datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc), None]}, dtype=object)
  DataFrame({"o": [[1, 2], ["a,b", 0.5], {"a": 1}, (1, "x")]})
  DataFrame([[1, 2], [3, 4]], columns=["a", "a"])
  DataFrame([[1, 2], [3, 4]], columns=[1.5, None])
  DataFrame([[1, 2]], columns=[True, 'x,"y'])
  DataFrame([[1, 2]], columns=[datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)])
  DataFrame([[1, 2]], columns=moments("2020", periods=2))
  DataFrame([[1, 2]], columns=moments("2020", periods=2, tz="UTC"))
  DataFrame([[1, 2]], columns=pd.to_timedelta([1, 2]))
  DataFrame([[1, 2]], columns=pd.interval_range(0, 2))
  DataFrame([[1, 2, 3, 4]], columns=periods("M"))
  DataFrame([[1, 2], [3, 4]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("a,b", "y")], names=["k", None]))
  DataFrame([[1, 2]], columns=pd.MultiIndex.from_product([["a,b"], moments("2020", periods=2)]))
  DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", nan), ("b", 1.5)]))
  DataFrame({"a": [1, 2, 3], "b": [.5, 1, 2], "c": [4, 5, 6]}).iloc[::-1, ::2]
  DataFrame(np.arange(24, dtype=">i4").reshape(6, 4))
]==]

-- Columns of Arrow, where the release has it.
local ARROW = expressions [==[
  DataFrame({"s": ["a", None, "", "é", 'q"uo,te']}, dtype="string[pyarrow]")
  DataFrame({"s": A(["a", None, "x" * 50], pa.string())})
  DataFrame({"s": A(["a", None, "x" * 50], pa.large_string())[1:]})
  DataFrame({"i": A([1, None, -3], pa.int8()), "u": A([1, 2**64 - 1, None], pa.uint64())})
  DataFrame({"i": A([1, 2, 3], pa.int64()), "j": A([1, 2, 3], pa.uint16())}).iloc[1:]
  DataFrame({"f": A([0.1, 1 / 3, 1e300], pa.float64()), "g": A([1.5, None, 0.25], pa.float64())})
  DataFrame({"g": A([0.5, None, 0.25], pa.float32()), "h": A([0.125, 2048, -1.5], pa.float16())})
  DataFrame({"b": A([True, None, False] * 5, pa.bool_()), "c": A([True, False, True] * 5, pa.bool_())}).iloc[3:]
  DataFrame({"n": A([None, None], pa.null())})
  DataFrame({"d": A([datetime.date(2020, 2, 29), None, datetime.date(1, 1, 1)], pa.date32())})
  DataFrame({"d": A([datetime.date(2020, 2, 29), None, datetime.date(1969, 12, 31)], pa.date64())})
  DataFrame({"t": A([datetime.time(1, 2, 3), None, datetime.time(23, 59, 59)], pa.time32("s"))})
  DataFrame({"t": A([datetime.time(1, 2, 3, 4), None, datetime.time(0)], pa.time64("us"))})
  DataFrame({"t": A([Timestamp("2020-01-01"), None, Timestamp("2020-01-01 12:00:00.5")], pa.timestamp("ns"))})
  DataFrame({"t": A([Timestamp("2020-01-01"), None, Timestamp("1960-01-01 12:00")], pa.timestamp("us"))})
  DataFrame({"t": A([Timestamp("2020-01-01", tz="UTC"), None], pa.timestamp("s", "UTC"))})
  DataFrame({"t": A([Timestamp("2020-01-01", tz="UTC"), None], pa.timestamp("ms", "-03:30"))})
  DataFrame({"d": A([Timedelta("1s"), None, Timedelta("-1ns")], pa.duration("ns"))})
  DataFrame({"d": A([Timedelta("1D"), None], pa.duration("s"))})
  DataFrame({"s": A([{"a": 1, "b": "x"}, None, {"a": 2, "b": ""}], pa.struct({"a": pa.int8(), "b": pa.string()}))})
  DataFrame({"d": A([decimal.Decimal("1.50"), None, decimal.Decimal("-0.05")], pa.decimal128(10, 2))})
  DataFrame({"d": A([decimal.Decimal(2**100), None, decimal.Decimal(-1)], pa.decimal128(38, 0))})
  DataFrame({"c": A(["u", None, "v", "u"], pa.dictionary(pa.int8(), pa.string()))})
  DataFrame({"c": pd.Categorical(A(["u", None, "v", "u"], pa.string()))})
  DataFrame({"s": A([None], pa.string()), "i": A([None], pa.int64()), "b": A([None], pa.bool_())})
  DataFrame({"s": A([], pa.string()), "i": A([], pa.int64()), "b": A([], pa.bool_())})
  DataFrame([[1, 2]], columns=pd.Index(["a", "b"], dtype="string[pyarrow]"))
  DataFrame({"a": [1, 2]}, index=pd.Index(["x", "y"], dtype="string[pyarrow]"))
  pd.concat([DataFrame({"s": A([x, None], pa.string()), "i": A([1, None], pa.int64())}) for x in "ab"])
]==]

local TEXTS = expressions [==[
  Timestamp("2020-01-01")
  Timestamp("2020-01-01 12:34:56.789")
  Timestamp("1960-01-01 12:34:56.123456789")
  Timestamp("2020-07-01 12:00", tz=datetime.timezone.utc)
  Timestamp("2020-07-01 12:00", tz=datetime.timezone(datetime.timedelta(hours=-3.5)))
  Timedelta(0)
  Timedelta(1)
  Timedelta(-1)
  Timedelta("1 days 02:03:04.5")
  Timedelta("106751 days 23:47:16.854775807")
]==]

describe("a frame of pandas", function()
  it("is the CSV text that to_csv writes", function()
    for i, case in ipairs(ask(CSV, "csv")) do
      assert.equal(CSV[i] .. "\n" .. case.answer, CSV[i] .. "\n" .. case.value:csv())
    end
  end)

  describe("with columns of Arrow", function()
    local cases
    setup(function()
      local there = dask.run_python(nil, "import importlib.util as u; print(u.find_spec('pyarrow') is not None)")
      cases = there:find "True" and ask(ARROW, "csv") or {}
      assert.equal(dask.version() >= "2025", #cases > 0)
    end)

    it("is the CSV text that to_csv writes", function()
      for i, case in ipairs(cases) do
        assert.equal(ARROW[i] .. "\n" .. case.answer, ARROW[i] .. "\n" .. case.value:csv())
      end
    end)

    it("shows them in its text", function()
      for i, case in ipairs(cases) do
        local text = tostring(case.value)
        assert.is_nil(text:find("^<pandas") or text:find("?", 1, true), ARROW[i] .. "\n" .. text)
      end
    end)

    it("goes back as it came", function()
      local lines = {}
      for i, case in ipairs(cases) do lines[i] = ARROW[i] .. "\t" .. hex(core.pickle.dumps(case.value)) .. "\n" end
      local output = dask.run_python(nil, PROGRAM:match("^(.*)\nfor line") .. [[

for line in sys.stdin:
    expression, back = line.rstrip("\n").split("\t")
    pd.testing.assert_frame_equal(eval(expression), pickle.loads(bytes.fromhex(back)))
    print("same")
]], table.concat(lines))
      assert.equal(("same\n"):rep(#cases), output)
    end)

    it("gives numbers and times as arrays, and lists of all else", function()
      if #cases == 0 then return end
      local frame = ask({ 'DataFrame({"i": A([1, 2], pa.int16()), "m": A([1, None], pa.int8()), '
        .. '"b": A([True, False], pa.bool_()), "t": A([Timestamp(5), None], pa.timestamp("ns")), '
        .. '"l": A([[1, None], None], pa.list_(pa.int64())), "n": A([[[1], []], [[2, 3]]], '
        .. 'pa.large_list(pa.list_(pa.int8()))), "f": A([["a", "b"], None], pa.list_(pa.string(), 2)), '
        .. '"y": A([b"a\\xff", None], pa.binary()), "z": A([b"ab", None], pa.binary(2)), '
        .. '"k": A([[datetime.datetime(1970, 1, 1, 0, 0, 1)], []], pa.list_(pa.timestamp("ms"))), '
        .. '"d": A([datetime.date(2020, 1, 2), None], pa.date32())})' }, "len")[1].value
      assert.equal("<i2", frame.i.dtype)
      assert.is_false(frame.i.writable)
      assert.same({ 1, 2 }, frame.i:totable())
      assert.same({ 1, null }, frame.m)
      assert.same({ true, false }, frame.b:totable())
      assert.same({ 5, array.nat }, frame.t:totable())
      assert.same({ { 1, null }, null }, frame.l)
      assert.same({ { { 1 }, {} }, { { 2, 3 } } }, frame.n)
      assert.same({ { "a", "b" }, null }, frame.f)
      assert.same({ "a\xff", null }, frame.y)
      assert.same({ "ab", null }, frame.z)
      assert.equal(py.datetime64(1000, "ms"), frame.k[1][1])
      assert.equal(py.date(2020, 1, 2), frame.d[1])
    end)
  end)

  it("is UTC in CSV where the rules of a zone are not known", function()
    local case = ask({ 'DataFrame({"t": moments("2020-07-01", periods=3, freq=freq("h"), tz="Europe/Paris")})' },
      "lambda value: csv(value.assign(t=value.t.dt.tz_convert('UTC')))")[1]
    assert.equal(case.answer, case.value:csv())
  end)

  it("has the text of bytes in CSV, and bytes as they came", function()
    local frame = ask({ 'DataFrame({"o": [b"a,b", None]})' }, "csv")[1].value
    assert.equal('o\n"a,b"\n""\n', frame:csv())
    assert.equal("a,b", frame.o[1])
    local next_row = frame:rows()
    local _, row = next_row()
    assert.equal("a,b", row.o)
    _, row = next_row()
    assert.equal(null, row.o)
  end)

  it("shows in its text what its columns hold", function()
    for i, case in ipairs(ask(CSV, "columns")) do
      local text = tostring(case.value)
      assert.is_nil(text:find("^<pandas"), CSV[i])
      assert.is_nil(text:find("?", 1, true), CSV[i] .. "\n" .. text)
      for line in case.answer:gmatch("[^\n]+") do
        if #line <= 32 and not line:find('"', 1, true) then
          assert.is_truthy(text:find(line, 1, true), CSV[i] .. "\n" .. text .. "\nlacks " .. line)
        end
      end
    end
  end)

  it("gives its columns and rows, also of times that pandas keeps together", function()
    local frame = ask({ 'DataFrame({"t": moments("2020", periods=2), "n": [1, 2], "u": moments("2021", periods=2)})' },
      "lambda value: value.u.astype('i8').sum()")[1]
    local sum = 0
    for _, row in frame.value:rows() do sum = sum + row.u end
    assert.equal(frame.answer, ("%d"):format(sum))
    assert.equal(2, frame.value.t.size)
    assert.same({ 2, 3 }, frame.value.shape)
  end)

  it("has intervals that go back as such", function()
    local list = ask({ 'DataFrame({"v": pd.interval_range(0, 2)})',
      'DataFrame({"v": pd.interval_range(Timestamp("2020", tz="Europe/Paris"), periods=1, closed="left")})',
      'DataFrame({"v": pd.interval_range(Timedelta("1D"), periods=1, closed="both")})' }, "lambda value: value.v[0]")
    local interval = list[1].value.v[1]
    assert.same({ 0, 1, "right" }, { interval.args[1], interval.args[2], interval.args[3] })
    assert.equal(2019, list[2].value.v[1].args[1].year)
    assert.match("^v\n\"?%[2019%-12%-31 23:00:00%+00:00, 2020%-01%-01 23:00:00%+00:00%)\"?\n$", list[2].value:csv())
    for _, case in ipairs(list) do assert.equal(case.answer, (sent(case.value.v[1]):gsub("%s+$", ""))) end
  end)

  it("has a shape, columns and text when its rows are labelled by intervals or timedeltas", function()
    local list = ask(expressions [==[
      DataFrame({"a": [1, 2]}, index=pd.interval_range(0, 2))
      DataFrame({"a": [1, 2]}, index=pd.to_timedelta([1, 2], unit="s"))
      DataFrame({"a": [1, 2, 3]}).groupby(pd.cut(Series([1, 2, 3]), [0.0, 2.0, 3.0]), observed=False).sum()
      DataFrame({"a": [1, 2]}, index=pd.MultiIndex.from_arrays([pd.interval_range(0, 2), pd.to_timedelta([1, 2])]))
      DataFrame({"a": [1, 2]}, index=pd.MultiIndex.from_arrays([dated]))
    ]==], "csv")
    for _, case in ipairs(list) do
      assert.same({ 2, 1 }, case.value.shape)
      assert.equal(2, #case.value)
      assert.same({ "a" }, case.value.columns)
      assert.equal(case.answer, case.value:csv())
    end
    assert.match("%(0, 1%]  1\n", tostring(list[1].value))
    assert.match("0 days 00:00:02  2\n", tostring(list[2].value))
    assert.match("%(2%.0, 3%.0%]  3\n", tostring(list[3].value))
    assert.equal(2, #list[3].value.index)
  end)

  it("that is more than its bytes could say is refused", function()
    local frame = ask({ 'DataFrame({"v": [functools.reduce(lambda x, _: [x, x], range(60), [1])]})' }, "len")[1].value
    local ok, message = pcall(frame.csv, frame)
    assert.is_false(ok)
    assert.match("a value whose text has more than 4 MiB in column 'v'", message)
  end)

  it("that holds itself is refused", function()
    local frame = ask({ 'DataFrame({"v": pd.interval_range(0, 2)})' }, "csv")[1].value
    local intervals = frame.object.state._mgr.args[1][1].args[1]
    local sides = intervals.state._left and intervals.state or intervals.state[1]
    sides._left = intervals
    local ok, message = pcall(function() return frame.v end)
    assert.is_false(ok)
    assert.match("form that is not known here", message)
  end)

  it("keeps boxed bytes and shows what is in them", function()
    local frame = ask({ 'DataFrame({"o": ["boxed", None]}, dtype=object)' }, "csv")[1].value
    local objects = frame.object.state._mgr.args[1][1].args[1]
    objects:set(py.bytes "a,b", 1, 1)
    assert.equal("a,b", frame.o[1])
    assert.equal('o\n"a,b"\n""\n', frame:csv())
    assert.match("0   a,b\n", tostring(frame))
    assert.equal("bytes", py.kind(objects:get(1, 1)))
    assert.match("b'a,b'", sent(frame))
  end)

  it("names the column that cannot be read", function()
    local list = ask(expressions [==[
      DataFrame({"n": [1, 2], "sp": pd.arrays.SparseArray([0, 1])})
      DataFrame({"w": pd.period_range("2020-01-01", periods=2, freq="W")})
      DataFrame({"o": [1, Ellipsis]})
    ]==], "str")
    local sparse = list[1].value
    assert.same({ 2, 2 }, sparse.shape)
    assert.same({ 1, 2 }, sparse.n:totable())
    fails("column 'sp'.*sparse%.to_dense", sparse.csv, sparse)
    fails("column 'sp'.*sparse%.to_dense", sparse.rows, sparse)
    fails("column 'sp'.*sparse%.to_dense", function() return sparse.sp end)
    assert.match("0  1   %?\n1  2   %?\n", tostring(sparse))
    fails("column 'w'.*astype%(str%)", list[2].value.csv, list[2].value)
    fails("column 'o'.*astype%(str%)", list[3].value.csv, list[3].value)
  end)

  it("has times and large integers as they are by themselves where no array says what they are", function()
    local list = ask(expressions [==[
      DataFrame({"d": pd.to_datetime(["2020", None]), "k": list("ab"), "v": 1}).groupby(["d", "k"], dropna=False).sum()
      DataFrame({"c": pd.Categorical(pd.to_datetime(["2020", None]))})
      DataFrame({"u": pd.array([2**64 - 1, None, 5], dtype="UInt64")})
      DataFrame({"t": pd.Categorical(pd.to_timedelta([1, None], unit="s"))})
    ]==], "len")
    local labels = list[1].value.index
    local unit = labels[1][1].unit
    assert.equal(1577836800 * ({ s = 1, us = 1000000, ns = 1000000000 })[unit], labels[1][1].value)
    assert.equal("datetime64", py.kind(labels[1][1]))
    assert.equal(null, labels[2][1])
    assert.equal("datetime64", py.kind(list[2].value.c[1]))
    assert.equal(null, list[2].value.c[2])
    assert.same({ "18446744073709551615", null, 5 },
      { tostring(list[3].value.u[1]), list[3].value.u[2], list[3].value.u[3] })
    assert.is_true(list[4].value.t[1].delta)
  end)

  it("has rows that go back as dicts, whatever the labels are", function()
    local frame = ask({ "DataFrame(np.arange(12).reshape(3, 4))" }, "len")[1].value
    local _, row = frame:rows()()
    assert.equal("dict", py.kind(row))
    for _, text in ipairs { sent(row), py.repr(row) } do
      for i = 0, 3 do assert.match(i .. ": " .. i, text) end
    end
  end)

  it("cannot be changed, and says so", function()
    local list = ask(expressions [==[
      DataFrame({"a": [1, 2]})
      Series([1, 2])
      pd.Index([1, 2])
    ]==], "len")
    for _, case in ipairs(list) do
      fails("cannot be changed here", function() case.value.a = { 3, 4 } end)
      fails("cannot be changed here", function() case.value[1] = 5 end)
    end
  end)

  it("equals another of the same, also with NaN in it", function()
    local text = [==[DataFrame({"a": [1.5, nan], "s": ["x", None]}, index=["p", "q"])]==]
    local list = ask({ text, text, (text:gsub("1%.5", "2.5")) }, "len")
    assert.is_true(py.equal(list[1].value, list[2].value))
    assert.is_false(py.equal(list[1].value, list[3].value))
  end)

  it("has rows also when a label is NaN", function()
    local frame = ask({ 'DataFrame([[1, 2]], columns=[1.5, nan])' }, "csv")[1].value
    local count = 0
    for _, row in frame:rows() do
      count = count + 1
      assert.equal(1, row[1.5])
      assert.equal(2, py.get(row, 0 / 0))
    end
    assert.equal(1, count)
    assert.equal(2, frame:column(0 / 0)[1])
  end)
end)

describe("a series of pandas", function()
  it("has the value of each label, whatever the label is called", function()
    local list = ask(expressions [==[
      DataFrame({"name": [1], "index": [2], "values": [3], "get": [4], "n": [5]}).iloc[0]
      Series([1, 2, 3], index=[10, 2, 1])
      Series([1, 2, 3])[1:]
      Series([1, 2], index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)]))
      Series(["x", "y"], index=[nan, True])
    ]==], "str")
    local row = list[1].value
    for i, label in ipairs { "name", "index", "values", "get", "n" } do assert.equal(i, row:get(label)) end
    assert.equal(5, row.n)
    assert.equal(0, row.name)
    assert.is_nil(row:get("none"))
    assert.same({ 3, 1, 3 }, { list[2].value:get(1), list[2].value[1], list[2].value:get(1.0) })
    assert.same({ 2, 2 }, { list[3].value:get(1), list[3].value[1] })
    assert.is_nil(list[3].value:get(0))
    assert.is_nil(list[3].value:get(3))
    assert.equal(2, list[4].value:get(py.tuple { "b", 2 }))
    assert.same({ "x", "y" }, { list[5].value:get(0 / 0), list[5].value:get(true) })
    assert.is_nil(list[3].value:get "1")
    assert.equal(2, list[3].value[1.0])
  end)

  it("takes the same time for each of its items", function()
    local function seconds(count)
      local list = ask(expressions(([==[
        Series(["item%d" % i for i in range(COUNT)])
        Series(["a", "b"] * (COUNT // 2), dtype="category")
        pd.Index(["item%d" % i for i in range(COUNT)])
        Series(range(COUNT), index=["item%d" % i for i in range(COUNT)])
      ]==]):gsub("COUNT", count)), "len")
      local started = os.clock()
      for _, case in ipairs(list) do
        assert.equal(count, #case.value)
        for i = 1, count do assert(case.value[i] ~= nil) end
      end
      for i = 0, count - 1 do assert(list[4].value["item" .. i] == i) end
      return os.clock() - started
    end
    assert.is_true(seconds(20000) < 30 * seconds(2000)) -- 100 times if each took as long as there are items
    assert.equal(null, ask({ 'Series(["a", None])' }, "len")[1].value[2])
  end)

  it("is let go with what was found out about it", function()
    local weak = setmetatable({}, { __mode = "k" })
    do
      local series = ask({ 'Series(["a", "b"], index=["x", "y"])' }, "len")[1].value
      assert.equal("b", series.y)
      weak[series] = true
    end
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(weak))
  end)
end)

describe("a time of pandas", function()
  it("reads as Python's str", function()
    for i, case in ipairs(ask(TEXTS, "str")) do assert.equal(case.answer, tostring(case.value), TEXTS[i]) end
  end)
end)

