--- The second half of saturn.py: constructors of the rarer types, texts for people, comparison. Loaded when first used.

local core = require "saturn.core"
local pytext = require "saturn.pytext"
local pytime = require "saturn.pytime"

local codec, null = core.pickle, core.null
local types, extra = codec.types, codec.extra
local getmetatable, setmetatable, rawget, type = getmetatable, setmetatable, rawget, type
local math_type = math.type

local M = {}

--- Completes the module `py` and the metatables; the other arguments are helpers of py.lua.
function M.extend(py, kind, bad, shown, make_ref, check_sequence)

--- An integer of any size, from its decimal digits; a plain Lua integer when it fits one.
---@param value string|integer
function py.int(value)
  if kind(value) == "int" then return value end
  if math_type(value) == "integer" then return value end
  if math_type(value) == "float" and value % 1 == 0 then value = ("%.0f"):format(value) end
  if type(value) ~= "string" then bad(1, "py.int takes decimal digits or an integer, not %s", shown(value)) end
  local le, _, message = codec.int_from_text((value:gsub("[%s_]", "")))
  if not le then bad(1, "py.int: %s", message) end
  if #le > 8 then return setmetatable({ le = le }, types.int) end
  if le == "" then return 0 end
  return (("<i" .. #le):unpack(le))
end

--- A float, even where its value is a whole number and a Lua table key would become an integer.
function py.float(value)
  if math_type(value) == nil then bad(1, "py.float takes a number, not %s", shown(value)) end
  return setmetatable({ value = value + 0.0 }, types.float)
end

-- The constructor py[name]: its values by name or in this order; `checks` may refuse or replace them.
local function fields(name, names, defaults, ...)
  local checks = { ... }
  py[name] = function(first, ...)
    local value
    if type(first) == "table" and not kind(first) then
      value = {}
      for key, item in pairs(first) do
        local known = false
        for _, candidate in ipairs(names) do known = known or candidate == key end
        if not known then
          bad(1, "py.%s has no field '%s'; its fields are %s", name, tostring(key), table.concat(names, ", "))
        end
        value[key] = item
      end
    else
      local given = table.pack(first, ...)
      if given.n > #names then bad(1, "py.%s takes at most %d values", name, #names) end
      value = {}
      for i = 1, given.n do value[names[i]] = given[i] end
    end
    for key, default in pairs(defaults) do
      if value[key] == nil then
        if default == "required" then bad(1, "py.%s needs %s", name, key) end
        value[key] = default
      end
    end
    for _, check in ipairs(checks) do check(value, name) end
    return setmetatable(value, types[name])
  end
end

-- Checks that a field is a whole number in a range, and makes an integer of it.
local function check_integer(value, name, field, low, high)
  local given = value[field]
  if given == nil then return end
  local whole = math.tointeger(tonumber(given))
  if not whole or whole < low or whole > high then
    local have = type(given) == "number" and tostring(given) or shown(given)
    bad(3, "py.%s: %s is a whole number from %d to %d, not %s", name, field, low, high, have)
  end
  value[field] = whole
end

local DAYS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

local function check_date(value, name)
  check_integer(value, name, "year", 1, 9999)
  check_integer(value, name, "month", 1, 12)
  local year, month = value.year, value.month
  local leap = month == 2 and year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
  local last = DAYS[month] + (leap and 1 or 0)
  check_integer(value, name, "day", 1, 31)
  if value.day > last then
    bad(2, "py.%s: %04d-%02d has no day %d", name, year, month, value.day)
  end
end

local ZONES = { timezone = true, ZoneInfo = true, object = true, ref = true }

local function check_time(value, name)
  check_integer(value, name, "hour", 0, 23)
  check_integer(value, name, "min", 0, 59)
  check_integer(value, name, "sec", 0, 59)
  check_integer(value, name, "usec", 0, 999999)
  check_integer(value, name, "fold", 0, 1)
  local tz = value.tz
  if tz == null then value.tz = nil return end
  if tz ~= nil and not ZONES[kind(tz)] then
    bad(2, "py.%s: tz is py.utc, a py.timezone(seconds) or a py.ZoneInfo \"Area/City\", not %s", name, shown(tz))
  end
end

local function check_timezone(value)
  local offset, seconds = value.offset, value.offset
  if kind(offset) == "timedelta" then seconds = offset.days * 86400 + offset.seconds + offset.microseconds / 1e6 end
  if math_type(seconds) == nil then
    bad(2, "py.timezone takes an offset in seconds or a py.timedelta, not %s%s", shown(offset),
      type(offset) == "string" and "; for a name there is py.ZoneInfo" or "")
  end
  if not (seconds > -86400 and seconds < 86400) then bad(2, "the offset of a py.timezone is less than a day") end
end

local function check_complex(value)
  for _, part in ipairs { "re", "im" } do
    if math_type(value[part]) == nil then bad(2, "py.complex takes numbers, not %s", shown(value[part])) end
  end
end

-- The quotient of two integers where the wanted sign is known: only -2^63 / -1 does not fit an integer.
local function quotient(value, divisor, negative)
  local result = value // divisor
  if result == math.mininteger and not negative then return py.int "9223372036854775808" end
  return result
end

-- Makes it what Python makes of it, so that equal ones are equal here. The divisor is negative, for -2^63 has no
-- positive twin.
local function reduce(value)
  local numerator, denominator = value.numerator, value.denominator
  local divisor, rest = numerator, denominator
  if divisor > 0 then divisor = -divisor end
  if rest > 0 then rest = -rest end
  while rest ~= 0 do divisor, rest = rest, math.fmod(divisor, rest) end
  if denominator < 0 then
    value.numerator = quotient(numerator, divisor, numerator > 0)
    value.denominator = quotient(denominator, divisor, false)
  else
    value.numerator, value.denominator = -(numerator // divisor), -(denominator // divisor)
  end
end

local function check_fraction(value)
  for _, part in ipairs { "numerator", "denominator" } do
    local given = value[part]
    if kind(given) ~= "int" then
      local whole = math_type(given) and math.tointeger(given)
      if not whole then bad(2, "py.Fraction takes integers, not %s", shown(given)) end
      value[part] = whole
    end
  end
  if value.denominator == 0 then bad(2, "the denominator of a py.Fraction is not 0") end
  -- Python reduces what is larger; here there is no arithmetic for it
  if math_type(value.numerator) and math_type(value.denominator) then reduce(value) end
end

fields("complex", { "re", "im" }, { re = 0.0, im = 0.0 }, check_complex)
fields("Fraction", { "numerator", "denominator" }, { numerator = "required", denominator = 1 }, check_fraction)
fields("datetime", { "year", "month", "day", "hour", "min", "sec", "usec", "tz", "fold" },
  { year = "required", month = "required", day = "required", hour = 0, min = 0, sec = 0, usec = 0 },
  check_date, check_time)
fields("date", { "year", "month", "day" }, { year = "required", month = "required", day = "required" }, check_date)
fields("time", { "hour", "min", "sec", "usec", "tz", "fold" }, { hour = 0, min = 0, sec = 0, usec = 0 }, check_time)
fields("timezone", { "offset", "name" }, { offset = "required" }, check_timezone)
fields("ZoneInfo", { "key" }, { key = "required" })
fields("datetime64", { "value", "unit", "delta" }, { value = "required", unit = "ns" })
fields("Decimal", { "value" }, { value = "required" })
fields("UUID", { "value" }, { value = "required" })
fields("path", { "value", "kind" }, { value = "required", kind = "PosixPath" })
fields("dtype", { "value", "shape" }, { value = "required" })

local make_decimal, make_uuid = py.Decimal, py.UUID

--- A decimal number from its text, or from a number: the shortest text that reads back as the same float.
---@param value string|number
function py.Decimal(value)
  if math_type(value) == "float" then value = pytext.float(value) end
  if math_type(value) or kind(value) == "int" then value = tostring(value) end
  local text = type(value) == "string" and pytext.decimal(value)
  if not text then bad(1, "py.Decimal takes a number or a text such as \"1.50\", not %s", shown(value)) end
  return make_decimal(text)
end

function py.UUID(text)
  local hex = type(text) == "string" and text:gsub("[-{}]", ""):lower() or ""
  if #hex ~= 32 or hex:find("%X") then bad(1, "py.UUID takes 32 hexadecimal digits") end
  return make_uuid((hex:gsub("^(" .. ("%x"):rep(8) .. ")(%x%x%x%x)(%x%x%x%x)(%x%x%x%x)", "%1-%2-%3-%4-")))
end

py.utc = py.timezone { offset = 0 }

local DAY = 86400
local MOST_DAYS = 999999999

--- A duration: py.timedelta{ days=, hours=, minutes=, seconds=, milliseconds=, microseconds=, weeks= }, or days,
--- seconds, microseconds. Normalized as Python does it.
function py.timedelta(days, seconds, microseconds)
  local given = days
  if type(given) ~= "table" then given = { days = days, seconds = seconds, microseconds = microseconds } end
  local scale = { weeks = 7 * DAY, days = DAY, hours = 3600, minutes = 60, seconds = 1, milliseconds = 1e-3,
    microseconds = 1e-6 }
  local whole, micro = 0, 0
  for name, value in pairs(given) do
    local factor = scale[name]
    if not factor then bad(1, "py.timedelta has no field '%s'", tostring(name)) end
    if math_type(value) == nil then bad(1, "py.timedelta: %s is a number, not %s", name, shown(value)) end
    -- so that the sums below are what an integer holds
    if value ~= value or math.abs(value + 0.0) * factor >= 2 * MOST_DAYS * DAY then
      bad(1, "py.timedelta: %s = %s is too much", name, tostring(value))
    end
    if factor < 1 then
      micro = micro + value * (factor == 1e-3 and 1000 or 1)
    else
      local seconds_of = value * factor
      local floor = math.floor(seconds_of)
      whole = whole + floor
      micro = micro + (seconds_of - floor) * 1000000
    end
  end
  micro = math.floor(micro + 0.5)
  whole = whole + micro // 1000000
  if whole // DAY < -MOST_DAYS or whole // DAY > MOST_DAYS then
    bad(1, "a py.timedelta has at most %d days, not %d", MOST_DAYS, math.floor(whole // DAY))
  end
  return setmetatable({
    days = math.floor(whole // DAY), seconds = math.floor(whole % DAY), microseconds = micro % 1000000,
  }, types.timedelta)
end

-- A copy of a list, into `into`; nil is an empty one.
local function copy_list(items, what, into)
  if items == nil then return into end
  if type(items) == "table" then
    check_sequence(items, what, 2)
  elseif not core.array.is(items) then
    bad(2, "%s takes a list, not %s", what, shown(items))
  end
  return table.move(items, 1, #items, 1, into)
end

--- range(stop), range(start, stop) or range(start, stop, step)
function py.range(start, stop, step)
  if stop == nil then start, stop = 0, start end
  local range = { start = start, stop = stop, step = step or 1 }
  for _, part in ipairs { "start", "stop", "step" } do
    local given = range[part]
    if kind(given) ~= "int" then
      range[part] = math_type(given) and math.tointeger(given)
      if not range[part] then bad(1, "py.range takes integers, not %s", shown(given)) end
    end
  end
  if range.step == 0 then bad(1, "the step of a py.range is not 0") end
  return setmetatable(range, types.range)
end

--- slice(stop), slice(start, stop) or slice(start, stop, step); nil is None
function py.slice(...)
  local n = select("#", ...)
  local start, stop, step = ...
  if n == 1 then start, stop = nil, start end
  return setmetatable({ start = start, stop = stop, step = step }, types.slice)
end

--- A dict that keeps its order, from a list of { key, value } pairs.
function py.OrderedDict(pairs_list)
  local dict, order = {}, {}
  if pairs_list ~= nil then copy_list(pairs_list, "py.OrderedDict", {}) end
  for i, pair in ipairs(pairs_list or {}) do
    if type(pair) ~= "table" or pair[1] == nil then bad(1, "py.OrderedDict: item %d is no { key, value }", i) end
    if pair[1] ~= pair[1] then bad(1, "py.OrderedDict: the key of item %d is NaN: write py.float(0/0)", i) end
    if dict[pair[1]] == nil then order[#order + 1] = pair[1] end
    dict[pair[1]] = pair[2] == nil and null or pair[2]
  end
  dict[extra] = order
  return setmetatable(dict, types.OrderedDict)
end

--- A collections.defaultdict; factory is the name of a Python class such as "list".
function py.defaultdict(factory, items)
  local dict = {}
  for key, value in pairs(items or {}) do dict[key] = value end
  if factory ~= nil and factory ~= null then dict[extra] = make_ref(factory, 2) end
  return setmetatable(dict, types.defaultdict)
end

function py.deque(items, maxlen)
  if maxlen ~= nil and (math_type(maxlen) ~= "integer" or maxlen < 0) then
    bad(1, "py.deque: maxlen is an integer that is not negative, not %s", shown(maxlen))
  end
  return setmetatable(copy_list(items, "py.deque", { maxlen = maxlen }), types.deque)
end

--- An array.array; for NumPy arrays see saturn.array.
function py.array(typecode, items)
  if type(typecode) ~= "string" or #typecode ~= 1 then bad(1, "py.array takes a type code of one letter") end
  return setmetatable(copy_list(items, "py.array", { typecode = typecode }), types.array)
end

--- Any other Python object: the call of a class or function, made when the pickle is loaded.
---@param class string|table its name
---@param args table? sequence
---@param kwargs table?
function py.object(class, args, kwargs)
  local ref = make_ref(class, 2)
  return setmetatable({
    module = ref.module, name = ref.name,
    args = setmetatable(copy_list(args, "py.object", {}), types.tuple),
    kwargs = kwargs and py.dict(kwargs) or nil,
  }, types.object)
end

-- ---- integers of any size -----------------------------------------------------------------------------------------

-- -1, 0, 1, or nil when the two have no order. Little-endian two's complement without superfluous bytes.
local function compare_int(a, b)
  local function negative(le) return #le > 0 and le:byte(-1) >= 128 end
  local na, nb = negative(a), negative(b)
  if na ~= nb then return na and -1 or 1 end
  if #a ~= #b then return ((#a < #b) ~= na) and -1 or 1 end
  if a == b then return 0 end
  for i = #a, 1, -1 do
    local x, y = a:byte(i), b:byte(i)
    if x ~= y then return x < y and -1 or 1 end
  end
  return 0
end

local function le_of(value)
  if kind(value) == "int" then return value.le end
  if math_type(value) == "float" then
    if value ~= value or value == math.huge or value == -math.huge then return nil end
    value = ("%.0f"):format(math.floor(value))
    return (codec.int_from_text(value))
  end
  if math_type(value) == "integer" then return (codec.int_from_text(("%d"):format(value))) end
  return nil
end

local function order(a, b)
  local x, y = le_of(a), le_of(b)
  if x and y then return compare_int(x, y) end
  local big = x and b or a -- the float that is no number or infinite
  if type(big) ~= "number" then error("attempt to compare " .. shown(a) .. " with " .. shown(b), 3) end
  if big ~= big then return nil end
  return ((big > 0) == (big == b)) and -1 or 1
end

local Int = types.int
function Int.__tostring(self) return (codec.int_to_text(rawget(self, "le") or "")) end
function Int.__eq(a, b) return kind(a) == "int" and kind(b) == "int" and a.le == b.le end
function Int.__lt(a, b) return order(a, b) == -1 end
function Int.__le(a, b) local o = order(a, b) return o == -1 or o == 0 end
function Int.__concat(a, b) return tostring(a) .. tostring(b) end
Int.__index = {
  --- The nearest Lua float.
  tonumber = function(self)
    local text = tostring(self)
    return tonumber(text:find("0x", 1, true) and (text:sub(1, 1) == "-" and -math.huge or math.huge) or text .. ".0")
  end,
}

-- ---- repr ----------------------------------------------------------------------------------------------------------

local ESCAPES = { ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\\"] = "\\\\" }

local function quote(text, is_bytes)
  local mark = text:find("'", 1, true) and not text:find('"', 1, true) and '"' or "'"
  text = text:gsub("[%c\\'\"\127]", function(c)
    if c == mark then return "\\" .. c end
    return ESCAPES[c] or (c:find("[\"']") and c) or ("\\x%02x"):format(c:byte())
  end)
  if is_bytes then text = text:gsub("[\128-\255]", function(c) return ("\\x%02x"):format(c:byte()) end) end
  return (is_bytes and "b" or "") .. mark .. text .. mark
end

local repr_any

-- Appends to the state's parts; stops when the text is long enough.
local function add(state, text)
  state.parts[#state.parts + 1] = text
  state.length = state.length + #text
end

local function add_items(state, value, open, close, from, count)
  add(state, open)
  for i = from, count do
    if i > from then add(state, ", ") end
    if i - from >= state.items or state.length > state.width then
      add(state, "...")
      break
    end
    repr_any(state, rawget(value, i))
  end
  add(state, close)
end

local function add_pairs(state, value, open, close, equals)
  add(state, open)
  local n = 0
  local function pair(key, item)
    if n > 0 then add(state, ", ") end
    n = n + 1
    if n > state.items or state.length > state.width then
      add(state, "...")
      return false
    end
    if equals == "=" and type(key) == "string" then add(state, key) else repr_any(state, key) end
    add(state, equals)
    repr_any(state, item)
    return true
  end
  if rawget(value, extra) and kind(value) == "OrderedDict" then
    for key, item in pairs(value) do
      if not pair(key, item) then break end
    end
  else
    -- in a fixed order where there is one, so that two runs print the same
    local keys, sortable = {}, true
    for key in next, value do
      if key ~= extra then
        keys[#keys + 1] = key
        sortable = sortable and type(key) == type(keys[1]) and (type(key) == "string" or type(key) == "number")
      end
      if #keys > 10000 then sortable = false break end
    end
    if sortable then table.sort(keys) end
    for _, key in ipairs(keys) do
      if not pair(key, rawget(value, key)) then break end
    end
  end
  add(state, close)
end

local class_text = pytime.class

-- One line for each type that is not a container.
local SCALARS = {
  int = function(self) return tostring(self) end,
  float = function(self) return pytext.number(self.value) end,
  str = function(self) return quote(self.value) end,
  bytes = function(self) return quote(self.value, true) end,
  bytearray = function(self) return "bytearray(" .. quote(self.value, true) .. ")" end,
  complex = pytext.complex,
  Decimal = function(self) return ("Decimal('%s')"):format(self.value) end,
  Fraction = function(self)
    return ("Fraction(%s, %s)"):format(tostring(self.numerator), tostring(self.denominator))
  end,
  UUID = function(self) return ("UUID('%s')"):format(tostring(self.value)) end,
  range = function(self)
    if self.step == 1 then return ("range(%s, %s)"):format(tostring(self.start), tostring(self.stop)) end
    return ("range(%s, %s, %s)"):format(tostring(self.start), tostring(self.stop), tostring(self.step))
  end,
  slice = function(self)
    local function part(value) return value == nil and "None" or py.repr(value) end
    return ("slice(%s, %s, %s)"):format(part(self.start), part(self.stop), part(self.step))
  end,
  datetime = pytime.repr.datetime,
  date = pytime.repr.date,
  time = pytime.repr.time,
  timedelta = pytime.repr.timedelta,
  timezone = pytime.repr.timezone,
  ZoneInfo = pytime.repr.ZoneInfo,
  path = function(self) return ("%s(%s)"):format(self.kind or "PosixPath", quote(tostring(self.value))) end,
  dtype = function(self) return ("dtype('%s')"):format(tostring(self.value)) end,
  Timestamp = pytime.repr.Timestamp,
  Timedelta = pytime.repr.Timedelta,
  datetime64 = function(self)
    local class = self.delta and "timedelta64" or "datetime64"
    return ("%s(%s, '%s')"):format(class, tostring(self.value), tostring(self.unit))
  end,
  ref = function(self) return class_text(self) end,
  fn = function(self) return ("<Python function %s>"):format(self.label or self.name) end,
  traceback = function(self) return ("<traceback of %d frames>"):format(#self) end,
}

local function add_object(state, value)
  add(state, class_text(value))
  add(state, "(")
  local args, first = rawget(value, "args"), true
  if type(args) == "table" then
    for i = 1, #args do
      if not first then add(state, ", ") end
      first = false
      if i > state.items or state.length > state.width then add(state, "...") break end
      repr_any(state, args[i])
    end
  end
  for _, field in ipairs { "kwargs", "state", "listitems", "dictitems" } do
    local part = rawget(value, field)
    if part ~= nil and (type(part) ~= "table" or next(part) ~= nil) then
      if not first then add(state, ", ") end
      first = false
      if field ~= "kwargs" then add(state, field .. "=") end
      repr_any(state, part)
    end
  end
  add(state, ")")
end

-- The hidden field is no item.
local function empty(value)
  local key = next(value)
  if key == extra then key = next(value, key) end
  return key == nil
end

local function is_sequence(value)
  local count = 0
  for _ in next, value do count = count + 1 end
  return count == #value
end

local function add_table(state, value, what)
  if what == nil or what == "list" then
    if next(value) == nil or is_sequence(value) then return add_items(state, value, "[", "]", 1, #value) end
    return add_pairs(state, value, "{", "}", ": ")
  end
  if what == "tuple" then
    add_items(state, value, "(", #value == 1 and ",)" or ")", 1, #value)
  elseif what == "set" then
    if #value == 0 then return add(state, "set()") end
    add_items(state, value, "{", "}", 1, #value)
  elseif (what == "frozenset" or what == "OrderedDict" or what == "Counter") and empty(value) then
    add(state, what .. "()")
  elseif what == "frozenset" then
    add_items(state, value, "frozenset({", "})", 1, #value)
  elseif what == "dict" then
    add_pairs(state, value, "{", "}", ": ")
  elseif what == "OrderedDict" or what == "Counter" then
    add_pairs(state, value, what .. "({", "})", ": ")
  elseif what == "defaultdict" then
    local factory = rawget(value, extra)
    add_pairs(state, value, "defaultdict(" .. (factory and class_text(factory) or "None") .. ", {", "})", ": ")
  elseif what == "kw" then
    add_pairs(state, value, "kw(", ")", "=")
  elseif what == "deque" then
    local close = math_type(value.maxlen) and ("], maxlen=%s)"):format(tostring(value.maxlen)) or "])"
    add_items(state, value, "deque([", close, 1, #value)
  elseif what == "array" then
    add_items(state, value, ("array('%s', ["):format(tostring(rawget(value, "typecode"))), "])", 1, #value)
  elseif what == "DataFrame" or what == "Series" or what == "Index" then
    add(state, "<pandas " .. what .. ">") -- as part of something; tostring shows more
  else
    add_object(state, value)
  end
end

function repr_any(state, value)
  local what = type(value)
  if what == "nil" or value == null then
    add(state, "None")
  elseif what == "boolean" then
    add(state, value and "True" or "False")
  elseif what == "number" then
    add(state, pytext.number(value))
  elseif what == "string" then
    local long = #value > state.width
    add(state, quote(long and value:sub(1, state.width) or value, not codec.is_utf8(value)) .. (long and "..." or ""))
  elseif what == "table" then
    local name = kind(value)
    local scalar = name and SCALARS[name]
    if scalar then
      local ok, text = pcall(scalar, value) -- a field may be missing or of another type
      return add(state, ok and text or ("<broken %s>"):format(name))
    end
    local meta = getmetatable(value)
    if name == nil and type(meta) == "table" and meta.__tostring then return add(state, tostring(value)) end
    if state.path[value] or state.level >= state.depth then return add(state, "...") end
    state.path[value] = true
    state.level = state.level + 1
    add_table(state, value, name)
    state.level = state.level - 1
    state.path[value] = nil
  else
    add(state, tostring(value))
  end
end

--- A readable text of any value, much as Python's repr. Cycles, depth, long containers and texts are cut with "...".
---@param value any
---@param opts { depth: integer?, items: integer?, width: integer? }?
---@return string
function py.repr(value, opts)
  opts = opts or {}
  local state = { parts = {}, length = 0, path = {}, level = 0,
    depth = opts.depth or 8, items = opts.items or 100, width = opts.width or 2000 }
  repr_any(state, value)
  return table.concat(state.parts)
end

local function tostring_of(self) return py.repr(self) end
for name, meta in pairs(types) do
  if name ~= "int" and not pytime.text[name] then meta.__tostring = tostring_of end
end

function types.str.__tostring(self) return self.value end
function types.bytes.__tostring(self) return self.value end
function types.bytearray.__tostring(self) return self.value end
function types.float.__tostring(self) return pytext.number(self.value) end
function types.Decimal.__tostring(self) return self.value end
function types.UUID.__tostring(self) return tostring(rawget(self, "value")) end
function types.path.__tostring(self) return self.value end
function types.complex.__tostring(self) return pytext.complex(self) end
function types.Fraction.__tostring(self)
  if self.denominator == 1 then return tostring(self.numerator) end
  return ("%s/%s"):format(tostring(self.numerator), tostring(self.denominator))
end
-- ---- exceptions -----------------------------------------------------------------------------------------------------

--- The frames as Python prints them, without a heading.
function types.traceback.__tostring(self)
  local lines = {}
  for i, frame in ipairs(self) do
    lines[i] = ('  File "%s", line %d, in %s'):format(frame.file or "?", frame.line or 0, frame.name or "?")
  end
  return table.concat(lines, "\n")
end

local function exception_message(self) return require("saturn.exception").text(self) end

function types.exception.__tostring(self)
  local message = exception_message(self)
  return message == "" and class_text(self) or class_text(self) .. ": " .. message
end

--- What a pickled exception says, whatever its class: { type, module, name, message, args, traceback, cause }; nil
--- when the value is no exception. `type` is the class as Python names it in a traceback.
---@param value any
---@return table?
function py.exception_info(value, depth)
  local what = kind(value)
  if (what ~= "exception" and what ~= "object") or (depth or 0) > 50 then return nil end
  local traceback = rawget(value, "traceback")
  return {
    type = class_text(value),
    module = rawget(value, "module"),
    name = rawget(value, "name"),
    message = exception_message(value),
    args = rawget(value, "args"),
    traceback = traceback ~= nil and tostring(traceback) or nil,
    cause = py.exception_info(rawget(value, "cause"), (depth or 0) + 1),
    value = value,
  }
end

-- ---- equality, order, iteration -------------------------------------------------------------------------------

local equal

-- The elements of object arrays are compared as values are; of all others as NumPy does it, the type included.
local function equal_arrays(a, b, depth, seen)
  if not (core.array.is(a) and core.array.is(b)) then return a == b end
  if a.dtype ~= b.dtype then return false end
  if a.dtype ~= "|O" then
    return a:equal(b) or seen.nan and equal(a.shape, b.shape, depth + 1, seen) and a:tostring() == b:tostring()
  end
  return #a.shape == #b.shape and equal(a.shape, b.shape, depth + 1, seen)
    and equal(a:totable(), b:totable(), depth + 1, seen)
end

-- Python gives the items of a set in any order.
local function equal_sets(a, b, depth, seen)
  if #a ~= #b then return false end
  local plain, others = {}, {}
  for _, item in ipairs(b) do
    if type(item) == "table" then others[#others + 1] = item else plain[item] = true end
  end
  for _, item in ipairs(a) do
    if not plain[item] then
      local found
      for i, other in ipairs(others) do
        if equal(item, other, depth + 1, seen) then found = i break end
      end
      if not found then return false end
      table.remove(others, found)
    end
  end
  return true
end

-- An offset may be given in seconds; a decoded one is a timedelta.
local function equal_timezones(a, b, depth, seen)
  local x, y = pytime.offset(a), pytime.offset(b)
  if not (x and y) then x, y = a.offset, b.offset end
  return equal(x, y, depth + 1, seen) and equal(a.name, b.name, depth + 1, seen)
end

-- 1.0 and 1.00 are equal; NaN equals nothing.
local function equal_decimals(a, b)
  if type(a) ~= "string" or type(b) ~= "string" then return a == b end
  local value = pytext.decimal_value(a)
  return value ~= nil and value == pytext.decimal_value(b)
end

local function equal_items(a, b, depth, seen)
  local n = 0
  for key, value in next, a do
    local other = rawget(b, key)
    if other == nil and type(key) == "table" then
      for candidate, item in next, b do
        if type(candidate) == "table" and equal(key, candidate, depth + 1, seen) then
          other = item
          break
        end
      end
    end
    if other == nil or not equal(value, other, depth + 1, seen) then return false end
    n = n + 1
  end
  for _ in next, b do n = n - 1 end
  return n == 0
end

-- NaN inside an object is what the object is made of, not a number to be compared.
local function equal_objects(a, b, depth, seen)
  local before = seen.nan
  seen.nan = true
  local same = equal_items(a, b, depth, seen)
  seen.nan = before
  return same
end

local COMPARE = {
  timezone = equal_timezones, set = equal_sets, frozenset = equal_sets, object = equal_objects,
  DataFrame = equal_objects, Series = equal_objects, Index = equal_objects,
  Decimal = function(a, b) return equal_decimals(a.value, b.value) end,
  float = function(a, b) return a.value == b.value or (a.value ~= a.value and b.value ~= b.value) end,
}

local function equal_tables(a, b, depth, seen)
  local what = kind(a)
  if what == "datetime" then
    local same = pytime.equal(a, b)
    if same ~= nil then return same end
  end
  return (COMPARE[what] or equal_items)(a, b, depth, seen)
end

function equal(a, b, depth, seen)
  if rawequal(a, b) then return true end
  if type(a) ~= "table" or type(b) ~= "table" then
    if type(a) == "number" and type(b) == "number" then return a == b or (seen.nan and a ~= a and b ~= b) end
    local ka, kb = kind(a), kind(b)
    if ka == "float" or kb == "float" then
      a, b = ka and a.value or a, kb and b.value or b
      return a == b or (a ~= a and b ~= b)
    end
    if (ka == "str" or ka == "bytes") and type(b) == "string" then return ka == "str" and a.value == b end
    if (kb == "str" or kb == "bytes") and type(a) == "string" then return kb == "str" and a == b.value end
    if type(a) == "userdata" and type(b) == "userdata" then return equal_arrays(a, b, depth, seen) end
    return type(a) == type(b) and a == b
  end
  if getmetatable(a) ~= getmetatable(b) or depth > 200 then return false end
  local before = seen[a]
  if rawequal(before, b) then return true end -- they are being compared already
  seen[a] = b
  local same = equal_tables(a, b, depth, seen)
  seen[a] = before
  return same
end

--- Equal by value, types included: py.equal(py.tuple{1}, py.tuple{1}).
function py.equal(a, b)
  return equal(a, b, 0, {})
end

pytime.ordered("Decimal", function(a, b)
  local result = pytext.compare_decimals(a.value, b.value)
  return result
end)

-- By whole parts, and where those are equal by what is left, turned over: nothing gets larger than it is.
local function compare_fractions(a, b, c, d)
  local x, y = a // b, c // d
  if x ~= y then return x < y and -1 or 1 end
  a, c = a - x * b, c - y * d
  if a == 0 or c == 0 then return a == c and 0 or a == 0 and -1 or 1 end
  return -compare_fractions(b, a, d, c)
end

pytime.ordered("Fraction", function(a, b)
  for _, part in ipairs { a.numerator, a.denominator, b.numerator, b.denominator } do
    if math_type(part) ~= "integer" then error("fractions beyond 64 bits cannot be compared here", 4) end
  end
  local result = compare_fractions(a.numerator, a.denominator, b.numerator, b.denominator)
  return result
end)

for _, name in ipairs { "complex", "Decimal", "Fraction", "UUID", "range", "slice", "datetime", "date", "time",
  "timedelta", "timezone", "ZoneInfo", "path", "dtype", "datetime64", "ref", "str", "bytes", "bytearray", "float",
  "Timestamp", "Timedelta" } do
  types[name].__eq = function(a, b) return equal(a, b, 0, {}) end
end

--- The item of a dict whose key equals this one by value; for keys that are tables, such as tuples.
---@param dict table
---@param key any
function py.get(dict, key)
  if type(dict) ~= "table" then bad(1, "py.get takes a dict, not %s", shown(dict)) end
  if key == nil then key = null end
  if key == key then
    local found = rawget(dict, key)
    if found ~= nil then return found end
  end
  if type(key) ~= "table" and key == key then return nil end
  for candidate, value in next, dict do
    if type(candidate) == "table" and (equal(candidate, key, 0, {}) or
      (key ~= key and kind(candidate) == "float" and candidate.value ~= candidate.value)) then
      return value
    end
  end
  return nil
end

-- pairs() over what Python's items() gives, in the order of an OrderedDict.
local function ordered_pairs(self)
  local list, done, i, key = rawget(self, extra) or {}, {}, 0, nil
  return function()
    while i < #list do
      i = i + 1
      local candidate = list[i]
      local value = rawget(self, candidate)
      if value ~= nil and not done[candidate] then
        done[candidate] = true
        return candidate, value
      end
    end
    local value
    repeat
      key, value = next(self, key)
    until key == nil or (key ~= extra and not done[key])
    return key, value
  end
end
types.OrderedDict.__pairs = ordered_pairs
types.defaultdict.__pairs = function(self)
  return function(dict, key)
    local value
    key, value = next(dict, key)
    if key == extra then key, value = next(dict, key) end
    return key, value
  end, self
end

-- How often `step` goes into `span`; both are unsigned.
local function unsigned_quotient(span, step)
  if step < 0 then return math.ult(span, step) and 0 or 1 end
  local half = (span >> 1) // step << 1
  return half + (math.ult(span - half * step, step) and 0 or 1)
end

types.range.__len = function(self)
  local start, stop, step = self.start, self.stop, self.step
  if not (math_type(start) == "integer" and math_type(stop) == "integer" and math_type(step) == "integer") then
    error("a range of integers beyond 64 bits cannot be counted here", 2)
  end
  if step < 0 then start, stop, step = stop, start, -step end
  if step == 0 or start >= stop then return 0 end
  -- the difference may be more than an integer holds, but not as an unsigned one
  local steps = unsigned_quotient(stop - start - 1, step)
  if steps < 0 or steps == math.maxinteger then error("this range is longer than 2^63 - 1", 2) end
  return steps + 1
end
-- for i, value in pairs(range)
types.range.__pairs = function(self)
  local n = #self
  return function(_, i)
    if i < n then return i + 1, self.start + i * self.step end
  end, self, 0
end
types.ref.__concat = function(a, b) return tostring(a) .. tostring(b) end

-- pandas objects: see pandas.lua.
function types.Timestamp.__index(self, key) return require("saturn.pandas").timestamp_index(self, key) end
function types.Timedelta.__index(self, key) return require("saturn.pandas").timedelta_index(self, key) end
for _, name in ipairs { "DataFrame", "Series", "Index" } do
  types[name].__index = function(self, key) return require("saturn.pandas").index(self, key) end
  types[name].__tostring = function(self) return require("saturn.pandas").tostring(self) end
  types[name].__newindex = function()
    error(("a %s cannot be changed here: send a dict of columns and call \"pandas.DataFrame\""):format(name), 2)
  end
  types[name].__len = function(self) return require("saturn.pandas").len(self) end
  types[name].__pairs = function(self) return require("saturn.pandas").pairs(self) end
end

-- ---- types ----------------------------------------------------------------------------------------------------

local PYTHON = {
  float = "float", str = "str", bytes = "bytes", bytearray = "bytearray", int = "int", complex = "complex",
  list = "list", dict = "dict", tuple = "tuple", set = "set", frozenset = "frozenset", range = "range",
  slice = "slice", kw = "dict",
  OrderedDict = "collections.OrderedDict", defaultdict = "collections.defaultdict", Counter = "collections.Counter",
  deque = "collections.deque", array = "array.array", Decimal = "decimal.Decimal", Fraction = "fractions.Fraction",
  UUID = "uuid.UUID", datetime = "datetime.datetime", date = "datetime.date", time = "datetime.time",
  timedelta = "datetime.timedelta", timezone = "datetime.timezone", ZoneInfo = "zoneinfo.ZoneInfo",
  dtype = "numpy.dtype", fn = "function", ref = "type", traceback = "traceback", DataFrame = "pandas.DataFrame",
  Timestamp = "pandas.Timestamp", Timedelta = "pandas.Timedelta", Series = "pandas.Series", Index = "pandas.Index",
}

--- The name of the Python type that a value goes back as.
---@param value any
---@return string
function py.type(value)
  local what = type(value)
  if value == nil or value == null then return "NoneType" end
  if what == "boolean" then return "bool" end
  if what == "number" then return math_type(value) == "integer" and "int" or "float" end
  if what == "string" then return codec.is_utf8(value) and "str" or "bytes" end
  local name = kind(value)
  if name == "path" then return "pathlib." .. (value.kind or "PosixPath") end
  if name == "datetime64" then return value.delta and "numpy.timedelta64" or "numpy.datetime64" end
  if name == "object" or name == "exception" then return class_text(value) end
  if name then return PYTHON[name] end
  if what == "table" then return (#value > 0 or next(value) == nil) and "list" or "dict" end
  local meta = getmetatable(value)
  if type(meta) == "table" and meta.__name == "saturn.array" then return "numpy.ndarray" end
  return what
end
end

return M
