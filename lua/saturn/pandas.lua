--- What pandas objects show to Lua: columns, index and values of the inert objects that a pickle holds. Nothing is
-- converted before it is asked for, and the object itself stays as it came, so that it goes back unchanged.

local core = require "saturn.core"
local array = require "saturn.array"
local arrow = require "saturn.arrow"
local py = require "saturn.py"
local pytext = require "saturn.pytext"
local pytime = require "saturn.pytime"

local types, extra, null = core.pickle.types, core.pickle.extra, core.null
local rawget, getmetatable = rawget, getmetatable

local M = {}

-- The inert object inside a frame, a series or an index.
local function inner(self)
  return rawget(self, extra)
end

local function unreadable(what, hint)
  error("pandas keeps " .. what .. " in a form that is not known here; convert it on the worker, for example with " ..
    (hint or "astype(str) or to_numpy"), 0)
end

local function field(object, name)
  local value = type(object) == "table" and rawget(object, name) or nil
  if value == null then return nil end
  return value
end

-- What was found out about an object, for as long as the object lives: a frame does not change, and decoding a column
-- of texts anew for each of its items would take quadratic time.
local known = setmetatable({}, { __mode = "k" })

local function facts(self)
  local found = known[self]
  if not found then
    found = { columns = {} }
    known[self] = found
  end
  return found
end

-- ---- numbers as text -----------------------------------------------------------------------------------------------

-- Rounds to what a float of this type can hold.
local NARROW = {
  float64 = function(value) return value end,
  float32 = function(value) return (("<f"):unpack(("<f"):pack(value))) end,
  float16 = function(value)
    local cell = array.zeros(1, "<f2")
    cell[1] = value
    return cell[1]
  end,
}
-- Digits that are always kept, digits that always suffice, and the least number that has them all.
local PRECISION = {
  float64 = { 15, 17, 2.2250738585072014e-308 },
  float32 = { 6, 9, 1.1754943508222875e-38 },
  float16 = { 3, 5, 6.103515625e-05 },
}

-- The digits and the exponent of the shortest number that reads back as a positive float.
local function shortest(value, typename)
  local narrow, precision = NARROW[typename], PRECISION[typename]
  for count = value < precision[3] and 1 or precision[1], precision[2] do
    local text = ("%%.%de"):format(count - 1):format(value)
    local first, rest, exponent = text:match("^(%d)%D?(%d*)e([+-]%d+)$")
    local digits = first .. rest
    local nearest = tonumber(first .. "." .. rest .. "e" .. exponent)
    if narrow(nearest) == value then return digits, math.tointeger(tonumber(exponent)) end
    -- above a power of two floats are further apart than below it: the next number up may be one that reads back
    local up = nearest < value and ("%d"):format(math.tointeger(tonumber(digits)) + 1)
    if up and #up == #digits and narrow(tonumber(up:sub(1, 1) .. "." .. up:sub(2) .. "e" .. exponent)) == value then
      return up, math.tointeger(tonumber(exponent))
    end
  end
end

-- The same, quickly, for most numbers; nil for others. Only at a power of two is the shortest text not the nearest.
local function usual_text(value)
  if value < 1e-4 or value >= 1e15 then return nil end
  local text = ("%.15g"):format(value)
  if tonumber(text) ~= value then
    text = ("%.16g"):format(value)
    if tonumber(text) ~= value then
      if ("<i8"):unpack(("<d"):pack(value)) & 0xfffffffffffff == 0 then return nil end
      text = ("%.17g"):format(value)
    end
  end
  local point = text:find("%D")
  if not point then return text .. ".0" end
  return text:byte(point) == 46 and text or (text:gsub("%D", ".")) -- the C library may use a comma
end

-- A float as Python's repr has it, of a narrower type as NumPy has it.
local function float_text(value, typename)
  local usual = (typename or "float64") == "float64" and usual_text(value)
  if usual then return usual end
  if value ~= value then return "nan" end
  if value == math.huge then return "inf" elseif value == -math.huge then return "-inf" end
  if value == 0 then return 1 / value < 0 and "-0.0" or "0.0" end
  local sign = value < 0 and "-" or ""
  value = math.abs(value)
  local digits, exponent = shortest(value, typename or "float64")
  digits = digits:gsub("0+$", "")
  if value < 1e-4 or value >= 1e16 then
    local point = #digits > 1 and "." or ""
    return ("%s%s%s%se%s%02d"):format(sign, digits:sub(1, 1), point, digits:sub(2), exponent < 0 and "-" or "+",
      math.abs(exponent))
  end
  if exponent < 0 then return sign .. "0." .. ("0"):rep(-exponent - 1) .. digits end
  digits = digits .. ("0"):rep(exponent + 1 - #digits)
  local fraction = digits:sub(exponent + 2)
  return sign .. digits:sub(1, exponent + 1) .. "." .. (fraction == "" and "0" or fraction)
end

local function complex_text(re, im)
  local function part(value) return (float_text(value):gsub("%.0$", "")) end
  if re == 0 and 1 / re > 0 then return part(im) .. "j" end
  local text = part(im)
  return ("(%s%s%sj)"):format(part(re), text:find("^-") and "" or "+", text)
end

-- ---- points in time ------------------------------------------------------------------------------------------------

-- Units of pandas' time resolution codes, in a second.
local RESOLUTION = { [7] = 1, [8] = 1000, [9] = 1000000, [10] = 1000000000 }
local UNITS = { s = 1, ms = 1000, us = 1000000, ns = 1000000000 }

-- Days since 1970-01-01 as text. The same day is often asked for again.
local last_days, last_date
local function date_text(days)
  if days ~= last_days then last_days, last_date = days, ("%04d-%02d-%02d"):format(pytime.date_of(days)) end
  return last_date
end

-- A count of units since 1970 as text: the date, and the time with so many digits after the second unless that is nil.
local function moment_text(value, per_second, digits)
  local seconds, fraction = value // per_second, value % per_second
  local text, rest = date_text(seconds // 86400), seconds % 86400
  if not digits then return text end
  text = ("%s %02d:%02d:%02d"):format(text, rest // 3600, rest // 60 % 60, rest % 60)
  if digits == 0 then return text end
  return text .. "." .. ("%09d"):format(fraction * (1000000000 // per_second)):sub(1, digits)
end

-- How many digits after the second Python's str gives a time: none, six, or nine.
local function digits_of(value, per_second)
  local nanoseconds = value % per_second * (1000000000 // per_second)
  return nanoseconds == 0 and 0 or nanoseconds % 1000 == 0 and 6 or 9
end

-- Seconds east of UTC; nil for a zone whose rules are not known here. What pytz has for the zone of a column says the
-- offset of one moment, long ago.
local function zone_offset(tz)
  if py.kind(tz) == "object" and pytime.class(tz) == "pytz._p" then return nil end
  local offset = pytime.offset(tz)
  return offset and offset // 1000000
end

-- A time in a zone: there, with the offset, or as UTC where the offset is not known.
local function zoned_text(value, per_second, tz)
  local offset = zone_offset(tz) or 0
  local text = moment_text(value + offset * per_second, per_second, digits_of(value, per_second))
  local east = math.abs(offset)
  text = ("%s%s%02d:%02d"):format(text, offset < 0 and "-" or "+", east // 3600, east // 60 % 60)
  return east % 60 ~= 0 and ("%s:%02d"):format(text, east % 60) or text
end

-- A count of units as pandas writes a Timedelta; without `long`, whole days have no time.
local function duration_text(value, per_second, long)
  local seconds, fraction = value // per_second, value % per_second
  local days, rest = seconds // 86400, seconds % 86400
  if rest == 0 and fraction == 0 and not long then return ("%d days"):format(days) end
  local sign = days < 0 and "+" or ""
  local text = ("%d days %s%02d:%02d:%02d"):format(days, sign, rest // 3600, rest // 60 % 60, rest % 60)
  local digits = digits_of(value, per_second)
  if digits == 0 then return text end
  return text .. "." .. ("%09d"):format(fraction * (1000000000 // per_second)):sub(1, digits)
end

local function resolution(args, i)
  return math.type(args[i]) == "integer" and RESOLUTION[args[i]] or RESOLUTION[10]
end

--- Fields of a Timestamp: year, month, day, hour, min, sec, nsec, tz, value (units since 1970, UTC), unit.
function M.timestamp_index(self, key)
  local args = rawget(self, "args")
  local per_second = resolution(args, 4)
  local value = args[1]
  local seconds = value // per_second
  if key == "value" then return value end
  if key == "tz" then
    local tz = args[3]
    if tz == nil or tz == null then return nil end
    return tz
  end
  if key == "unit" then
    for unit, n in next, UNITS do if n == per_second then return unit end end
  end
  if key == "timestamp" then return function() return value / per_second end end
  local year, month, day = pytime.date_of(seconds // 86400)
  if key == "year" then return year end
  if key == "month" then return month end
  if key == "day" then return day end
  if key == "hour" then return seconds % 86400 // 3600 end
  if key == "min" then return seconds // 60 % 60 end
  if key == "sec" then return seconds % 60 end
  if key == "nsec" then return value % per_second * (1000000000 // per_second) end
  return nil
end

--- Fields of a Timedelta: value (units) and unit.
function M.timedelta_index(self, key)
  local args = rawget(self, "args")
  local per_second = resolution(args, 2)
  if key == "value" then return args[1] end
  if key == "total_seconds" then return function() return args[1] / per_second end end
  if key == "unit" then
    for unit, n in next, UNITS do if n == per_second then return unit end end
  end
  return nil
end

-- ---- periods and intervals -----------------------------------------------------------------------------------------

-- What an ordinal of a period counts, by pandas' names of frequencies and of their classes.
local FREQUENCY = {
  M = "M", ME = "M", MonthEnd = "M", Y = "Y", A = "Y", YE = "Y", YearEnd = "Y", Q = "Q", QE = "Q", QuarterEnd = "Q",
  D = "D", Day = "D", h = "h", H = "h", Hour = "h", min = "min", T = "min", Minute = "min", s = "s", S = "s",
  Second = "s", ms = "ms", L = "ms", Milli = "ms", us = "us", U = "us", Micro = "us", ns = "ns", N = "ns", Nano = "ns",
}
local SUBSECOND = { ms = 3, us = 6, ns = 9 }

-- The frequency that a PeriodDtype or an offset says, nil for one that is not known here: weeks, business days, and
-- quarters of a year that does not end with December.
local function frequency(of)
  local args = field(of, "args")
  local first = type(args) == "table" and args[1]
  if type(first) == "string" then
    local name, anchor = first:match("^period%[%d*(%a+)%-?(%a*)%]$")
    local found = FREQUENCY[name]
    if found == "Q" and anchor ~= "DEC" and anchor ~= "" then return nil end
    return found
  end
  if py.kind(first) == "object" then return frequency(first) end
  local found = py.kind(of) == "object" and FREQUENCY[of.name] or nil
  if found == "Q" and args[3] ~= 12 then return nil end
  return found
end

local function period_text(ordinal, freq)
  if freq == "Y" then return ("%04d"):format(1970 + ordinal) end
  if freq == "Q" then return ("%04dQ%d"):format(1970 + ordinal // 4, ordinal % 4 + 1) end
  if freq == "M" then return ("%04d-%02d"):format(1970 + ordinal // 12, ordinal % 12 + 1) end
  if freq == "D" then return moment_text(ordinal * 86400, 1) end
  if freq == "h" then return moment_text(ordinal * 3600, 1, 0):sub(1, -4) end
  if freq == "min" then return moment_text(ordinal * 60, 1, 0):sub(1, -4) end
  return moment_text(ordinal, UNITS[freq], SUBSECOND[freq] or 0)
end

local function interval_text(left, right, closed)
  local open = (closed == "left" or closed == "both") and "[" or "("
  return ("%s%s, %s%s"):format(open, left, right, (closed == "right" or closed == "both") and "]" or ")")
end

-- ---- single values as text -----------------------------------------------------------------------------------------

-- A list that holds another twice, which holds another twice, has a text without end.
local WHOLE = { depth = 200, items = math.huge, width = 1 << 22 }
local AS_STR = {}
for name in ("int str Decimal Fraction UUID date time datetime timedelta path bytes Timedelta"):gmatch("%a+") do
  AS_STR[name] = true
end
local CONTAINER = {}
for name in ("list tuple dict set frozenset OrderedDict defaultdict Counter deque"):gmatch("%a+") do
  CONTAINER[name] = true
end

local function container_text(value, what)
  local text = py.repr(value, WHOLE)
  if #text > WHOLE.width then unreadable("a value whose text has more than 4 MiB in " .. what) end
  return text
end

-- Python's str of an object of a column, nil when pandas takes it for missing.
local function element_text(value, what)
  local kind = type(value)
  if value == nil or value == null then return nil end
  if kind == "string" then return value end
  if kind == "boolean" then return value and "True" or "False" end
  if math.type(value) == "integer" then return ("%d"):format(value) end
  if kind == "number" then
    if value ~= value then return nil end
    return float_text(value)
  end
  kind = py.kind(value)
  if kind == "float" then return element_text(value.value, what) end
  if kind == "complex" then return complex_text(value.re, value.im) end
  if kind == "Timestamp" then return (tostring(value):gsub(" UTC$", "+00:00")) end
  if AS_STR[kind] then return tostring(value) end
  if type(value) == "table" and (kind == nil or CONTAINER[kind]) then return container_text(value, what) end
  if kind == "datetime64" and UNITS[value.unit] then
    if value.value == array.nat then return nil end
    if value.delta then return duration_text(value.value, UNITS[value.unit], true) end
    return moment_text(value.value, UNITS[value.unit], digits_of(value.value, UNITS[value.unit]))
  end
  local args = kind == "object" and value.args
  if args and value.name == "Interval" and #args == 3 then
    return interval_text(element_text(args[1], what), element_text(args[2], what), args[3])
  end
  if args and value.name == "Period" and math.type(args[3]) == "integer" and frequency(args[2]) then
    return period_text(args[3], frequency(args[2]))
  end
  unreadable("a " .. (py.type(value) or type(value)) .. " in " .. what)
end

-- ---- columns -------------------------------------------------------------------------------------------------------

-- What a block or an index holds becomes a record:
--   values    what a program gets: an array, a py.range, or a list where NumPy has no type of its own for it
--   n         how many there are
--   text(i)   the text of one as to_csv writes it in its column, nil when it is missing
--   str(i)    the text of one by itself, as Python's str: a date has its time, also when all times are midnight

local function record(values, n, text, str)
  return { values = values, n = n, text = text, str = str or text }
end

-- A value that pandas takes for missing becomes saturn.null in a list, and bytes are a string.
local function present(value)
  local kind = py.kind(value)
  if kind == "ref" and (value.name == "NA" or value.name == "NaT") then return null end
  if kind == "object" and (value.name == "__nat_unpickle" or value.name == "_nat_unpickle") then return null end
  if kind == "bytes" then return value.value end
  return value
end

local function of_list(list, what)
  for i = 1, #list do list[i] = present(list[i]) end
  return record(list, #list, function(i) return element_text(list[i], what) end)
end

-- The digits that all times of a column have: nil when all of them are midnight.
local function common_digits(values, n, per_second)
  local day, unit, digits = 86400 * per_second, 1000000000 // per_second, nil
  for i = 1, n do
    local value = values[i]
    if value ~= array.nat and value % day ~= 0 then
      local nanoseconds = value % per_second * unit
      local needed = nanoseconds == 0 and 0 or nanoseconds % 1000000 == 0 and 3 or nanoseconds % 1000 == 0 and 6 or 9
      if not digits or digits < needed then digits = needed end
    end
  end
  return digits
end

-- Counts of units since 1970, array.nat where there is none; `shown` are what a program gets.
local function of_moments(values, n, unit, tz, shown)
  local per_second = UNITS[unit]
  local function str(i)
    local value = values[i]
    if value == array.nat then return nil end
    if tz then return zoned_text(value, per_second, tz) end
    return moment_text(value, per_second, digits_of(value, per_second))
  end
  if tz then return record(shown or values, n, str) end
  local known_digits, digits = false, nil
  return record(shown or values, n, function(i)
    if not known_digits then known_digits, digits = true, common_digits(values, n, per_second) end
    if values[i] == array.nat then return nil end
    return moment_text(values[i], per_second, digits)
  end, str)
end

local function of_durations(values, n, unit, shown)
  local per_second = UNITS[unit]
  local long
  return record(shown or values, n, function(i)
    if long == nil then long = common_digits(values, n, per_second) ~= nil end
    if values[i] == array.nat then return nil end
    return duration_text(values[i], per_second, long)
  end, function(i)
    return values[i] ~= array.nat and duration_text(values[i], per_second, true) or nil
  end)
end

local function integer_text(value) return ("%d"):format(value) end
local function boolean_text(value) return value and "True" or "False" end

-- `precision`: the type whose digits floats have, if it is not their own.
local function of_numbers(values, precision)
  local name, form = values.typename, integer_text
  if name == "bool" then
    form = boolean_text
  elseif name == "uint64" then
    form = pytext.unsigned
  elseif name:find("^float") then
    local narrow = precision or PRECISION[name] and name or "float64"
    form = function(value) if value == value then return float_text(value, narrow) end end
  elseif name:find("^complex") then
    form = function(value)
      if value.re == value.re and value.im == value.im then return complex_text(value.re, value.im) end
    end
  elseif name == "record" then
    form = function(value) return py.repr(value, WHOLE) end
  elseif not name:find("^u?int") then
    form = function(value) return tostring(value) end
  end
  return record(values, values.size, function(i) return form(values[i]) end)
end

local function of_array(values, what, tz)
  if values.ndim == 2 and values.shape[1] == 1 then values = values[1] end
  if values.ndim ~= 1 then unreadable(what) end
  if values.typename == "object" then return of_list(values:totable(), what) end
  if values.unit and UNITS[values.unit] then
    if values.typename:find("^timedelta") then return of_durations(values, values.size, values.unit) end
    local of_zone = of_moments(values, values.size, values.unit, tz)
    of_zone.tz = tz
    return of_zone
  end
  return of_numbers(values)
end

local function of_texts(data)
  local list = data:totable()
  for i = 1, #list do list[i] = type(list[i]) == "string" and list[i] or null end
  return record(list, #list, function(i) return list[i] ~= null and list[i] or nil end)
end

local function of_periods(data, dtype, what)
  local freq = frequency(dtype)
  return record(data, data.size, function(i)
    if data[i] == array.nat then return nil end
    if not freq then unreadable("the frequency of " .. what) end
    return period_text(data[i], freq)
  end)
end

local function at(values, i)
  if py.kind(values) == "range" then return values.start + (i - 1) * values.step end
  return values[i]
end

-- An end of an interval as it is when it comes by itself.
local function bound(side, i)
  local value = at(side.values, i)
  local unit = array.is(side.values) and UNITS[side.values.unit]
  if not unit then return value end
  local code
  for candidate, per_second in next, RESOLUTION do code = per_second == unit and candidate or code end
  if side.values.typename:find("^timedelta") then
    return setmetatable({ module = "pandas._libs.tslibs.timedeltas", name = "_timedelta_unpickle",
      args = py.tuple { value, code } }, types.Timedelta)
  end
  return setmetatable({ module = "pandas._libs.tslibs.timestamps", name = "_unpickle_timestamp",
    args = py.tuple { value, null, side.tz or null, code } }, types.Timestamp)
end

local function of_intervals(left, right, closed)
  local list = {}
  for i = 1, left.n do
    list[i] = left.text(i) and py.object("pandas.Interval", { bound(left, i), bound(right, i), closed }) or null
  end
  return record(list, left.n, function(i)
    return left.text(i) and interval_text(left.str(i), right.str(i), closed) or nil
  end)
end

-- An element as it is by itself, outside of its array.
local function single(values, i)
  if array.is(values) then return arrow.element(values, i) end
  return at(values, i)
end

local index_record

-- Categories of a time are decoded as one column of times, for it is the column that has or has not midnights alone.
local function of_categories(codes, categories)
  local n, list = codes.size, {}
  for i = 1, n do
    local code = codes[i]
    list[i] = code < 0 and null or single(categories.values, code + 1)
  end
  local unit = array.is(categories.values) and categories.values.unit
  if UNITS[unit] and not categories.arrow then
    local counts = {}
    for i = 1, n do counts[i] = codes[i] < 0 and array.nat or categories.values[codes[i] + 1] end
    if categories.values.typename:find("^timedelta") then return of_durations(counts, n, unit, list) end
    return of_moments(counts, n, unit, categories.tz, list)
  end
  return record(list, n, function(i)
    if codes[i] >= 0 then return categories.text(codes[i] + 1) end
  end, function(i)
    if codes[i] >= 0 then return categories.str(codes[i] + 1) end
  end)
end

local function of_masked(data, mask, what, precision)
  local numbers, list = precision and of_numbers(data, precision) or of_array(data, what), {}
  for i = 1, data.size do
    if mask[i] then list[i] = null else list[i] = single(data, i) end
  end
  return record(list, data.size, function(i)
    if not mask[i] then return numbers.text(i) end
  end)
end

-- The zone that Arrow names.
local function zone(name)
  if name == nil then return nil end
  if name == "UTC" then return py.utc end
  local sign, hours, minutes = name:match("^([+-])(%d%d):?(%d%d)$")
  if not sign then return py.ZoneInfo(name) end
  return py.timezone((sign == "-" and -60 or 60) * (hours * 60 + minutes))
end

-- Counts of units in an array, array.nat for what is missing.
local function with_nat(column)
  if not column.missing then return column.values end
  local values = column.values:copy()
  for i = 1, column.n do
    if column.missing[i] then values[i] = array.nat end
  end
  return values
end

-- In CSV these are what Python's str says of each by itself, and numbers are Python's.
local function of_arrow(column, what)
  local values, n, name = column.values, column.n, column.type.name
  local found
  if name == "timestamp" then
    local tz = zone(column.type.tz)
    found = of_moments(with_nat(column), n, column.type.unit, tz)
    found.tz = tz
  elseif name == "duration" then
    found = of_durations(with_nat(column), n, column.type.unit)
  elseif not array.is(values) then
    found = of_list(values, what)
  elseif column.missing then
    found = of_masked(values, column.missing, what, "float64")
  else
    found = of_numbers(values, "float64")
  end
  found.text, found.arrow = found.str, true
  return found
end

-- The array of pyarrow in an array class of pandas that is made of one.
local function arrow_array(values)
  local state = py.kind(values) == "object" and field(values, "state")
  local found = type(state) == "table" and (field(state, "_pa_array") or field(state, "_data"))
  return arrow.is(found) and found or nil
end

-- The dtype and the array of an array class of pandas that is made of one NumPy array.
local function backing(values)
  local state = py.kind(values) == "object" and field(values, "state")
  if type(state) ~= "table" then return nil end
  if values.name ~= "__pyx_unpickle_NDArrayBacked" then
    local data = field(state, "_ndarray")
    return array.is(data) and data or nil, field(state, "_dtype")
  end
  -- dtype, array and attributes, in an order that differs by release
  local dtype, data
  for i = 1, #state do
    if array.is(state[i]) then data = data or state[i]
    elseif i <= 2 then dtype = dtype or state[i] end
  end
  return data, dtype
end

-- Columns and indexes in others: categories that are intervals, in a multi-index, are six; more is not from pandas.
local MOST_NESTED = 8

local function nested(depth, what)
  depth = (depth or 0) + 1
  if depth > MOST_NESTED then unreadable(what) end
  return depth
end

-- The record of a block's values, or of this row of them when there are several.
local function decode(values, what, row, depth)
  depth = nested(depth, what)
  local data, dtype = values, nil
  if not array.is(values) then data, dtype = backing(values) end
  if data then
    if row and data.ndim == 2 then data = data[row] end
    local name = py.kind(dtype) == "object" and dtype.name
    if data.ndim == 2 and data.shape[1] == 1 then data = data[1] end
    if name == "StringDtype" then return of_texts(data) end
    if name == "CategoricalDtype" then
      local categories = field(field(dtype, "state"), "categories")
      return of_categories(data, index_record(categories, "the categories of " .. what, depth))
    end
    if name == "PeriodDtype" then return of_periods(data, dtype, what) end
    return of_array(data, what, name == "DatetimeTZDtype" and field(field(dtype, "state"), "tz") or nil)
  end
  local of_pyarrow = arrow_array(values)
  if of_pyarrow then return of_arrow(arrow.read(of_pyarrow), what) end
  local state = py.kind(values) == "object" and field(values, "state")
  if type(state) == "table" then
    if array.is(field(state, "_data")) and array.is(field(state, "_mask")) then
      return of_masked(state._data, state._mask, what)
    end
    local sides = values.name == "__pyx_unpickle_IntervalMixin" and field(state, 1) or state
    if field(sides, "_left") ~= nil and field(sides, "_right") ~= nil then
      local closed = field(field(field(sides, "_dtype"), "state"), "closed") or field(sides, "_closed")
      if type(closed) ~= "string" then unreadable(what) end
      return of_intervals(decode(sides._left, what, nil, depth), decode(sides._right, what, nil, depth), closed)
    end
  elseif type(values) == "table" and (py.kind(values) == nil or py.kind(values) == "list") then
    local list = {}
    for i = 1, #values do list[i] = values[i] end
    return of_list(list, what)
  end
  unreadable(what, field(values, "name") == "SparseArray" and "sparse.to_dense()" or nil)
end

-- ---- Index ---------------------------------------------------------------------------------------------------------

-- _new_Index(class, {data = ..., name = ...}); a range has start, stop and step, a multi-index levels and codes, an
-- index of intervals left, right and closed. Indexes of intervals, and of pandas 3 those of timedeltas, may be a
-- py.object.
local function index_parts(self, what)
  local holder = py.kind(self) == "Index" and inner(self) or self
  local args = field(holder, "args")
  local parts = type(args) == "table" and args[2]
  if type(parts) ~= "table" or not tostring(field(holder, "name")):find("^_new_%a*Index$") then
    unreadable(what, "reset_index")
  end
  return parts
end

local function of_range(parts)
  local range = py.range(parts.start, parts.stop, parts.step)
  return record(range, #range, function(i) return ("%d"):format(at(range, i)) end)
end

-- A label of a multi-index reads as Python's tuple of them.
local function of_levels(parts, what, depth)
  local levels, list = {}, {}
  for i, level in ipairs(parts.levels) do levels[i] = index_record(level, what, depth) end
  local n = #parts.codes > 0 and parts.codes[1].size or 0
  for row = 1, n do
    local label = {}
    for i, codes in ipairs(parts.codes) do
      if codes[row] < 0 then label[i] = null else label[i] = single(levels[i].values, codes[row] + 1) end
    end
    list[row] = py.tuple(label)
  end
  local function part(level, row)
    local code = parts.codes[level][row]
    return code >= 0 and levels[level].str(code + 1) or "nan"
  end
  local found = record(list, n, function(row)
    local texts = {}
    for level, value in ipairs(list[row]) do
      texts[level] = type(value) == "string" and py.repr(value) or part(level, row)
    end
    return ("(%s%s)"):format(table.concat(texts, ", "), #texts == 1 and "," or "")
  end)
  found.levels, found.part = #levels, part
  return found
end

function index_record(self, what, depth)
  depth = nested(depth, what)
  local cached = type(self) == "table" and known[self]
  if cached and cached.labels then return cached.labels end
  local parts = index_parts(self, what)
  local found
  if parts.stop ~= nil then
    found = of_range(parts)
  elseif parts.codes ~= nil then
    found = of_levels(parts, what, depth)
  elseif parts.left ~= nil and parts.right ~= nil then
    found = of_intervals(index_record(parts.left, what, depth), index_record(parts.right, what, depth), parts.closed)
  else
    found = decode(parts.data, what, nil, depth)
  end
  facts(self).labels = found
  return found
end

local function to_list(labels)
  local list = {}
  for i = 1, labels.n do list[i] = at(labels.values, i) end
  return list
end

-- Labels by position, for those that can be keys of a table, and the positions of the others.
local function positions(labels)
  if not labels.positions then
    local by_label, others = {}, {}
    for i = labels.n, 1, -1 do
      local label = labels.values[i]
      if type(label) == "table" or label ~= label then
        table.insert(others, i)
      elseif label ~= nil then
        by_label[label] = i
      end
    end
    labels.positions, labels.others = by_label, others
  end
  return labels.positions, labels.others
end

-- The first position of a label.
local function position_of(labels, key)
  if py.kind(labels.values) == "range" then
    local range, wanted = labels.values, type(key) == "number" and math.tointeger(key)
    if not wanted or (wanted - range.start) % range.step ~= 0 then return nil end
    local i = (wanted - range.start) // range.step + 1
    return i >= 1 and i <= labels.n and i or nil
  end
  local by_label, others = positions(labels)
  if type(key) ~= "table" then
    local found = key == key and by_label[key]
    if found then return found end
    for i = #others, 1, -1 do
      local label = labels.values[others[i]]
      if py.equal(label, key) or (label ~= label and key ~= key) then return others[i] end
    end
    return nil
  end
  for i = 1, labels.n do
    if py.equal(labels.values[i], key) then return i end
  end
  return nil
end

-- ---- Series and DataFrame ------------------------------------------------------------------------------------------

local function manager(self)
  local state = field(inner(self), "state")
  local found = type(state) == "table" and (field(state, "_mgr") or field(state, "_data"))
  if type(found) ~= "table" then unreadable("a " .. py.kind(self)) end
  return found, state
end

-- Axes and blocks { values, places }: arguments of BlockManager, or the state that a SingleBlockManager has.
local function read_layout(self)
  local found = manager(self)
  local args = field(found, "args")
  if type(args) == "table" and #args == 2 then
    local blocks = {}
    for i, block in ipairs(args[1]) do
      local parts = field(block, "args")
      if type(parts) ~= "table" then unreadable("a " .. py.kind(self)) end
      blocks[i] = { values = parts[1], places = parts[2] }
    end
    return args[2], blocks
  end
  local state = field(found, "state")
  local parts = type(state) == "table" and type(state[4]) == "table" and state[4]["0.14.1"]
  if type(parts) ~= "table" then unreadable("a " .. py.kind(self)) end
  local blocks = {}
  for i, block in ipairs(parts.blocks) do blocks[i] = { values = block.values, places = block.mgr_locs } end
  return parts.axes, blocks
end

local function layout(self)
  local about = facts(self)
  if not about.axes then about.axes, about.blocks = read_layout(self) end
  return about.axes, about.blocks
end

-- Which row of a block is the column at a position from 1; nil when it is in another block.
local function row_in(block, rows, position)
  local places = block.places
  if py.kind(places) == "slice" then
    local step, from = places.step or 1, position - 1 - (places.start or 0)
    if math.type(step) ~= "integer" or step == 0 or math.type(from) ~= "integer" then unreadable("columns") end
    local row = from % step == 0 and from // step
    return row and row >= 0 and row < rows and row + 1 or nil
  end
  if not array.is(places) then unreadable("columns") end
  if not block.rows then
    block.rows = {}
    for i = 1, places.size do block.rows[places[i] + 1] = i end
  end
  return block.rows[position]
end

local function column_labels(self)
  local axes = layout(self)
  return index_record(axes[1], "the column labels")
end

-- The record of the column at a position from 1.
local function column_record(self, position)
  local columns = facts(self).columns
  if columns[position] then return columns[position] end
  local _, blocks = layout(self)
  for _, block in ipairs(blocks) do
    local data = array.is(block.values) and block.values or backing(block.values)
    local rows = data and data.ndim == 2 and data.shape[1] or 1
    local row = row_in(block, rows, position)
    if row then
      local labels = column_labels(self)
      local what = "column " .. (py.repr(at(labels.values, position), { width = 60 }))
      columns[position] = decode(block.values, what, row)
      return columns[position]
    end
  end
  unreadable("a column")
end

local function series_record(self)
  local columns = facts(self).columns
  if not columns[1] then
    local _, blocks = layout(self)
    columns[1] = decode(blocks[1] and blocks[1].values, "the values of a series")
  end
  return columns[1]
end

-- Labels that cannot be read do not keep a frame from having a length.
local function length(self)
  if py.kind(self) == "Index" then return index_record(self, "an index").n end
  local axes = layout(self)
  local ok, labels = pcall(index_record, axes[#axes], "the index")
  if ok then return labels.n end
  if py.kind(self) == "Series" then return series_record(self).n end
  for position = 1, column_labels(self).n do
    local readable, column = pcall(column_record, self, position)
    if readable then return column.n end
  end
  error(labels, 0)
end
M.len = length

local function columns_of(self)
  return to_list(column_labels(self))
end

--- The labels of an Index: an array, a list, or for a range a py.range; of a multi-index a list of py.tuple.
function M.values(self)
  return index_record(self, "an index").values
end

local Frame = {}

--- The column of this label; for labels that are names of methods, such as "rows".
function Frame.column(self, label)
  local position = position_of(column_labels(self), label)
  return position and column_record(self, position).values
end

--- Iterates over the rows: for i, row in df:rows() do print(row.name) end. A row is a table by column label.
function Frame.rows(self)
  local names, data, n = columns_of(self), {}, length(self)
  for i, name in ipairs(names) do
    data[i] = column_record(self, i).values
    if name ~= name then names[i] = py.float(name) end -- no table has a NaN key
  end
  local i = 0
  return function()
    i = i + 1
    if i > n then return nil end
    local row = {}
    for c, name in ipairs(names) do row[name] = data[c][i] end
    return i, setmetatable(row, types.dict)
  end
end

-- Values with a comma, a quote or a line end are quoted, and a line that would be empty is not.
local function csv_line(texts)
  if #texts == 1 and texts[1] == "" then return '""' end
  for i, text in ipairs(texts) do
    if text:find('[",\r\n]') then texts[i] = '"' .. text:gsub('"', '""') .. '"' end
  end
  return table.concat(texts, ",")
end

--- The frame as CSV text: a line of column names, then a line a row. The index is left out, as with index=False.
function Frame.csv(self)
  local labels, data, lines, n = column_labels(self), {}, {}, length(self)
  for level = 1, labels.levels or 1 do
    local header = {}
    for c = 1, labels.n do header[c] = (labels.levels and labels.part(level, c) or labels.text(c)) or "" end
    lines[level] = csv_line(header)
  end
  for c = 1, labels.n do data[c] = column_record(self, c).text end
  local texts = {}
  for i = 1, n do
    for c = 1, labels.n do texts[c] = data[c](i) or "" end
    lines[#lines + 1] = csv_line(texts)
  end
  return table.concat(lines, "\n") .. "\n"
end

local function frame_index(self, key)
  if key == "columns" then return columns_of(self) end
  if key == "index" then
    local axes = layout(self)
    return index_record(axes[2], "the index").values
  end
  if key == "shape" then return { length(self), column_labels(self).n } end
  if key == "object" then return inner(self) end
  if Frame[key] ~= nil and type(key) == "string" then return Frame[key] end
  return Frame.column(self, key)
end

local Series = {}

--- The value of this label, also of one that is an integer or the name of a field, such as "name".
function Series.get(self, label)
  local axes = layout(self)
  local position = position_of(index_record(axes[1], "the index"), label)
  return position and series_record(self).values[position]
end

local function series_index(self, key)
  if key == "values" then return series_record(self).values end
  if key == "index" then
    local axes = layout(self)
    return index_record(axes[1], "the index").values
  end
  if key == "name" then
    local _, state = manager(self)
    return field(state, "_name") or field(state, "name")
  end
  if key == "object" then return inner(self) end
  local position = type(key) == "number" and math.tointeger(key)
  if position then return series_record(self).values[position] end
  if key == "get" then return Series.get end
  return Series.get(self, key)
end

local function index_index(self, key)
  if key == "values" then return M.values(self) end
  if key == "name" then return field(index_parts(self, "an index"), "name") end
  if key == "names" then return field(index_parts(self, "an index"), "names") end
  if key == "object" then return inner(self) end
  local labels = index_record(self, "an index")
  local position = type(key) == "number" and math.tointeger(key)
  if position and position >= 1 and position <= labels.n then return at(labels.values, position) end
  return nil
end

local by_type = { [types.DataFrame] = frame_index, [types.Series] = series_index, [types.Index] = index_index }

function M.index(self, key)
  if inner(self) == nil then return nil end
  return by_type[getmetatable(self)](self, key)
end

--- pairs: of a frame its columns by label, of a series and an index their values from 1.
function M.pairs(self)
  local i = 0
  if py.kind(self) == "DataFrame" then
    local names = columns_of(self)
    return function()
      i = i + 1
      if names[i] ~= nil then return names[i], column_record(self, i).values end
    end
  end
  local values, n = self.values, length(self)
  return function()
    i = i + 1
    if i <= n then return i, at(values, i) end
  end
end

-- ---- as text -------------------------------------------------------------------------------------------------------

local MAX_ROWS, MAX_COLUMNS, MAX_WIDTH = 10, 12, 32
local SHORT = { width = 60, items = 5 }

local function shown(of, i)
  if not of then return "?" end -- the column cannot be read, or its labels
  local value = at(of.values, i)
  if py.kind(value) == nil and type(value) == "table" or CONTAINER[py.kind(value)] and not of.levels then
    return py.repr(value, SHORT)
  end
  local ok, text = pcall(of.text, i)
  if not ok then return py.repr(value, SHORT) end
  if text == nil then return value ~= value and "NaN" or "None" end
  return (text:gsub("%c", " "))
end

local function short(of, i)
  local text = shown(of, i)
  return utf8.len(text) and utf8.len(text) > MAX_WIDTH and text:sub(1, utf8.offset(text, MAX_WIDTH - 2) - 1) .. "..."
    or text
end

local function grid(rows)
  local width = {}
  for _, row in ipairs(rows) do
    for c, text in ipairs(row) do width[c] = math.max(width[c] or 0, utf8.len(text) or #text) end
  end
  local lines = {}
  for r, row in ipairs(rows) do
    local line = {}
    for c, text in ipairs(row) do line[c] = (" "):rep(width[c] - (utf8.len(text) or #text)) .. text end
    lines[r] = table.concat(line, "  ")
  end
  return table.concat(lines, "\n")
end

-- The record, or nil when it cannot be read.
local function readable(read, ...)
  local ok, found = pcall(read, ...)
  return ok and found or nil
end

local function table_text(self)
  local kind, n = py.kind(self), length(self)
  local data, names, rows = {}, { n = 0 }, {}
  local labels
  if kind == "Index" then
    labels = index_record(self, "an index")
  else
    local axes = layout(self)
    labels = readable(index_record, axes[#axes], "the index")
  end
  local count = kind == "Series" and 1 or 0
  if kind == "Series" then data[1] = readable(series_record, self) end
  if kind == "DataFrame" then
    names = column_labels(self)
    count = math.min(names.n, MAX_COLUMNS)
    local head = { "" }
    for c = 1, count do
      data[c] = readable(column_record, self, c)
      head[c + 1] = short(names, c)
    end
    if names.n > MAX_COLUMNS then head[#head + 1] = "..." end
    rows[1] = head
  end
  for i = 1, math.min(n, MAX_ROWS) do
    local row = { short(labels, i) }
    for c = 1, count do row[c + 1] = short(data[c], i) end
    if names.n > MAX_COLUMNS then row[#row + 1] = "..." end
    rows[#rows + 1] = row
  end
  local text = grid(rows)
  if n > MAX_ROWS then text = text .. "\n..." end
  local size = kind == "DataFrame" and ("[%d rows x %d columns]"):format(n, names.n) or ("[%s of %d]"):format(kind, n)
  return text .. "\n" .. size
end

function M.tostring(self)
  local ok, text = pcall(table_text, self)
  return ok and text or "<pandas " .. tostring(py.kind(self)) .. ">"
end

return M
