--- Points in time, durations and time zones of Python: texts, order, equality. Part of saturn.py, loaded with
-- pyvalue.lua.

local py = require "saturn.py"
local core = require "saturn.core"

local types = core.pickle.types
local math_type, rawget, type = math.type, rawget, type
local kind = py.kind

local M = {}

local SECOND = 1000000 -- in microseconds, in which all is counted here
local DAY = 86400 * SECOND

-- Microseconds of a timedelta; those of the longest do not fit an integer, but those of an offset do.
local function micros(delta)
  return delta.days * DAY + delta.seconds * SECOND + delta.microseconds
end

--- The name of an object's class or of a reference, as Python writes it.
function M.class(self)
  local module, name = rawget(self, "module"), rawget(self, "name")
  if type(name) ~= "string" then name = "?" end
  if type(module) ~= "string" or module == "builtins" then return name end
  return module .. "." .. name
end

-- ---- time zones ----------------------------------------------------------------------------------------------------

local function utc() return 0 end

-- An offset that Python can have, from seconds; else nil.
local function seconds(value)
  return math_type(value) and value > -86400 and value < 86400 and math.floor(value * SECOND + 0.5) or nil
end

local function args_of(tz)
  local args = rawget(tz, "args")
  return type(args) == "table" and args or {}
end

-- The offset of what other packages have for a zone, by class; for pytz the one that goes with this very moment.
local FOREIGN = {
  ["pytz._UTC"] = utc, ["pytz.UTC"] = utc, ["pytz.utc"] = utc,
  ["dateutil.tz.tz.tzutc"] = utc, ["dateutil.tz.tzutc"] = utc,
  ["pytz.FixedOffset"] = function(args) return math_type(args[1]) and seconds(args[1] * 60) end,
  ["pytz._p"] = function(args) return seconds(args[2]) end,
}

local ALWAYS_UTC = { UTC = true, ["Etc/UTC"] = true, Zulu = true, ["Etc/Zulu"] = true }

-- The offset of a zone in microseconds; nil for no zone, false when it is not known here.
local function offset_of(tz)
  local what = kind(tz)
  if tz == nil then return nil end
  if what == nil then return false end
  if what == "ZoneInfo" then return ALWAYS_UTC[tz.key] and 0 or false end
  if what == "timezone" then
    local offset = tz.offset
    if kind(offset) ~= "timedelta" then return seconds(offset) or false end
    return math_type(offset.days) and math_type(offset.seconds) and math_type(offset.microseconds)
      and micros(offset) or false
  end
  local foreign = FOREIGN[M.class(tz)]
  return foreign and foreign(args_of(tz)) or false
end

--- The offset of a zone in microseconds; nil for no zone, false when it is not known here.
M.offset = offset_of

-- +01:00, with seconds and microseconds when there are any.
local function offset_text(offset)
  local sign = offset < 0 and "-" or "+"
  offset = math.abs(offset)
  local whole, rest = offset // SECOND, offset % SECOND
  local text = ("%s%02d:%02d"):format(sign, whole // 3600, whole // 60 % 60)
  if whole % 60 ~= 0 or rest ~= 0 then text = ("%s:%02d"):format(text, whole % 60) end
  return rest ~= 0 and ("%s.%06d"):format(text, rest) or text
end

-- A zone whose offset is not known: its key, or its class, for a zone of dateutil holds a long table.
local function zone_name(tz)
  if type(tz) ~= "table" then return tostring(tz) end
  local what = kind(tz)
  if what == "ZoneInfo" then return tostring(tz.key) end
  if what ~= "object" then return tostring(tz) end
  local first = args_of(tz)[1]
  if M.class(tz) == "pytz._p" and type(first) == "string" then return first end
  -- dateutil makes its zones with a function that gets the class
  return M.class(kind(first) == "ref" and first or tz)
end

local function zone_text(tz)
  local offset = offset_of(tz)
  if offset == nil then return "" end
  return offset and offset_text(offset) or " " .. zone_name(tz)
end

-- ---- str -----------------------------------------------------------------------------------------------------------

local function clock(self)
  local text = ("%02d:%02d:%02d"):format(self.hour or 0, self.min or 0, self.sec or 0)
  return (self.usec or 0) ~= 0 and ("%s.%06d"):format(text, self.usec) or text
end

local TEXT = {}

function TEXT.date(self) return ("%04d-%02d-%02d"):format(self.year, self.month, self.day) end
function TEXT.time(self) return clock(self) .. zone_text(self.tz) end
function TEXT.datetime(self) return TEXT.date(self) .. " " .. clock(self) .. zone_text(self.tz) end

function TEXT.timedelta(self)
  local days, rest = self.days, self.seconds
  local text = ("%d:%02d:%02d"):format(rest // 3600, rest // 60 % 60, rest % 60)
  if self.microseconds ~= 0 then text = ("%s.%06d"):format(text, self.microseconds) end
  if days == 0 then return text end
  return ("%d day%s, %s"):format(days, math.abs(days) == 1 and "" or "s", text)
end

function TEXT.timezone(self)
  if self.name then return tostring(self.name) end
  local offset = offset_of(self)
  if not offset then return "timezone" end
  return offset == 0 and "UTC" or "UTC" .. offset_text(offset)
end

function TEXT.ZoneInfo(self) return tostring(self.key) end

-- ---- repr ----------------------------------------------------------------------------------------------------------

local REPR = {}

function REPR.timedelta(self)
  local parts = {}
  for _, field in ipairs { "days", "seconds", "microseconds" } do
    if self[field] ~= 0 then parts[#parts + 1] = ("%s=%d"):format(field, self[field]) end
  end
  return ("datetime.timedelta(%s)"):format(#parts == 0 and "0" or table.concat(parts, ", "))
end

function REPR.ZoneInfo(self) return ("zoneinfo.ZoneInfo(key=%s)"):format(py.repr(self.key)) end

function REPR.timezone(self)
  local offset = offset_of(self)
  if offset == 0 and not self.name then return "datetime.timezone.utc" end
  local name = self.name and ", " .. py.repr(self.name) or ""
  local delta = { days = offset // DAY, seconds = offset % DAY // SECOND, microseconds = offset % SECOND }
  return ("datetime.timezone(%s%s)"):format(REPR.timedelta(delta), name)
end

local REPR_OF_FOREIGN = { ["pytz._UTC"] = "<UTC>", ["dateutil.tz.tz.tzutc"] = "tzutc()" }

local function zone_repr(tz)
  if REPR[kind(tz)] then return REPR[kind(tz)](tz) end
  local class = kind(tz) == "object" and M.class(tz)
  if class == "pytz.FixedOffset" then return py.repr(tz) end
  return REPR_OF_FOREIGN[class] or zone_name(tz)
end

-- hour, minute, and what follows if it is not 0
local function clock_repr(self)
  local text = ("%d, %d"):format(self.hour or 0, self.min or 0)
  local second, micro = self.sec or 0, self.usec or 0
  if second ~= 0 or micro ~= 0 then text = ("%s, %d"):format(text, second) end
  return micro ~= 0 and ("%s, %d"):format(text, micro) or text
end

function REPR.date(self) return ("datetime.date(%d, %d, %d)"):format(self.year, self.month, self.day) end

function REPR.datetime(self)
  return ("datetime.datetime(%d, %d, %d, %s%s%s)"):format(self.year, self.month, self.day, clock_repr(self),
    (self.fold or 0) ~= 0 and ", fold=1" or "", self.tz ~= nil and ", tzinfo=" .. zone_repr(self.tz) or "")
end

-- the two last in the other order: so Python has it
function REPR.time(self)
  return ("datetime.time(%s%s%s)"):format(clock_repr(self),
    self.tz ~= nil and ", tzinfo=" .. zone_repr(self.tz) or "", (self.fold or 0) ~= 0 and ", fold=1" or "")
end

--- The reprs by type.
M.repr = REPR

-- ---- pandas --------------------------------------------------------------------------------------------------------

local PER_SECOND = { s = 1, ms = 1000, us = 1000000, ns = 1000000000 }

-- .789000, or 9 digits when there are nanoseconds; the fraction is in units
local function fraction_text(fraction, per_second)
  if fraction == 0 then return "" end
  return "." .. (("%09d"):format(fraction * (PER_SECOND.ns // per_second)):gsub("000$", "", 1))
end

--- A pandas.Timestamp: in its own zone where the offset is known, else in UTC.
function TEXT.Timestamp(self)
  local tz, per_second = self.tz, PER_SECOND[self.unit]
  local offset = offset_of(tz)
  local here = self
  if offset and offset ~= 0 then
    local args = table.move(rawget(self, "args"), 1, 4, 1, {})
    args[1] = self.value + offset // SECOND * per_second
    here = setmetatable({ args = args }, types.Timestamp)
  end
  local zone = offset and offset_text(offset) or offset == false and " UTC" or ""
  return ("%04d-%02d-%02d %02d:%02d:%02d%s%s"):format(here.year, here.month, here.day, here.hour, here.min, here.sec,
    fraction_text(self.value % per_second, per_second), zone)
end

--- A pandas.Timedelta: always with its days, and "+" where they are negative.
function TEXT.Timedelta(self)
  local per_second = PER_SECOND[self.unit]
  local rest, fraction = self.value // per_second, self.value % per_second
  local days, clock_of = rest // 86400, rest % 86400
  return ("%d days %s%02d:%02d:%02d%s"):format(days, days < 0 and "+" or "", clock_of // 3600, clock_of // 60 % 60,
    clock_of % 60, fraction_text(fraction, per_second))
end

--- The texts by type; they are in the metatables too.
M.text = TEXT
for name, text in pairs(TEXT) do types[name].__tostring = text end

local function pandas_zone(tz)
  if TEXT[kind(tz)] then return TEXT[kind(tz)](tz) end
  local class = M.class(tz)
  return class == "pytz._UTC" and "UTC" or REPR_OF_FOREIGN[class] or zone_name(tz)
end

function REPR.Timestamp(self)
  local text, tz = TEXT.Timestamp(self), self.tz
  if tz == nil then return ("Timestamp('%s')"):format(text) end
  text = text:gsub("([+-]%d%d):(%d%d)$", "%1%2")
  return ("Timestamp('%s', tz='%s')"):format(text, pandas_zone(tz))
end

function REPR.Timedelta(self) return ("Timedelta('%s')"):format(TEXT.Timedelta(self)) end

-- ---- order and equality --------------------------------------------------------------------------------------------

--- Days since 1970-01-01 in the proleptic Gregorian calendar.
---@param year integer
---@param month integer
---@param day integer
---@return integer
local function days_of(year, month, day)
  if month <= 2 then year = year - 1 end
  local era = year // 400
  local of_era = year - era * 400
  local of_year = (153 * (month + (month > 2 and -3 or 9)) + 2) // 5 + day - 1
  return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468
end
M.days_of = days_of

--- Year, month and day of a count of days since 1970-01-01.
---@param days integer
---@return integer year
---@return integer month
---@return integer day
function M.date_of(days)
  local z = days + 719468
  local era = z // 146097
  local doe = z - era * 146097
  local yoe = (doe - doe // 1460 + doe // 36524 - doe // 146096) // 365
  local doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
  local mp = (5 * doy + 2) // 153
  local month = mp < 10 and mp + 3 or mp - 9
  return yoe + era * 400 + (month <= 2 and 1 or 0), month, doy - (153 * mp + 2) // 5 + 1
end

-- Microseconds since 1970 as the clock shows it, and in UTC.
local function wall(value)
  return days_of(value.year, value.month, value.day) * DAY + (value.usec or 0) +
    ((value.hour or 0) * 3600 + (value.min or 0) * 60 + (value.sec or 0)) * SECOND
end

local function instant(value)
  return wall(value) - (offset_of(value.tz) or 0)
end

local function same_kind(a, b, what)
  if kind(a) == what and kind(b) == what then return end
  local other = kind(a) == what and b or a
  local have = kind(other) and "py." .. kind(other) or type(other)
  error(("a py.%s can only be compared with another py.%s, not with a %s"):format(what, what, have), 4)
end

-- Refuses what Python refuses to compare, and what is not known here.
local function comparable(a, b)
  local x, y = offset_of(a.tz), offset_of(b.tz)
  if x == false or y == false then
    error("a time in a named zone has no known offset here; compare on the worker", 5)
  end
  if (x == nil) ~= (y == nil) then error("a time with a time zone and one without cannot be compared", 5) end
end

-- Both in one number would be more than an integer holds.
local function seconds_and_micros(delta)
  return delta.days * 86400 + delta.seconds, delta.microseconds
end

--- Gives the values of a kind an order. `compare` gives a number below, at or above 0, or nil when there is no order:
--- then neither is less. Its errors are told at level 4.
---@param what string
---@param compare fun(a: table, b: table): number?
function M.ordered(what, compare)
  local meta = types[what]
  local function order(a, b)
    same_kind(a, b, what)
    local result = compare(a, b)
    return result
  end
  -- no tail calls: the levels of the errors count on it
  function meta.__lt(a, b)
    local result = order(a, b)
    return result ~= nil and result < 0
  end
  function meta.__le(a, b)
    local result = order(a, b)
    return result ~= nil and result <= 0
  end
end

-- Compares by one number, or by two.
local function by(key, check)
  return function(a, b)
    if check then check(a, b) end
    local x, x_rest = key(a)
    local y, y_rest = key(b)
    if x == y then x, y = x_rest or 0, y_rest or 0 end
    return x < y and -1 or x > y and 1 or 0
  end
end

local function of_day(value)
  return ((value.hour or 0) * 3600 + (value.min or 0) * 60 + (value.sec or 0)) * SECOND + (value.usec or 0)
    - (offset_of(value.tz) or 0)
end

-- Units of NumPy that are whole seconds.
local LONG = { m = 60, h = 3600, D = 86400, W = 604800 }

-- A count of units as seconds, and nanoseconds beside them.
local function seconds_and_nanos(value, unit)
  if LONG[unit] then return value * LONG[unit], 0 end
  local per_second = PER_SECOND[unit]
  return value // per_second, value % per_second * (1000000000 // per_second)
end

local function pandas_key(self)
  return seconds_and_nanos(self.value, self.unit)
end

local function pandas_zones(a, b)
  if (a.tz == nil) ~= (b.tz == nil) then
    error("a time with a time zone and one without cannot be compared", 5)
  end
end

local function compare_counts(a, b)
  if (a.delta or false) ~= (b.delta or false) then error("a time and a duration cannot be compared", 4) end
  if a.value == math.mininteger or b.value == math.mininteger then return nil end
  if a.unit == b.unit then return a.value < b.value and -1 or a.value > b.value and 1 or 0 end
  local function known(unit) return PER_SECOND[unit] or LONG[unit] end
  if not (known(a.unit) and known(b.unit)) then
    error(("counts of %s and of %s cannot be compared here"):format(a.unit, b.unit), 4)
  end
  local order = by(pandas_key)(a, b)
  return order
end

M.ordered("date", by(wall))
M.ordered("datetime", by(instant, comparable))
M.ordered("time", by(of_day, comparable))
M.ordered("timedelta", by(seconds_and_micros))
M.ordered("Timestamp", by(pandas_key, pandas_zones))
M.ordered("Timedelta", by(pandas_key))
M.ordered("datetime64", compare_counts)

-- Has it all its fields, as numbers? A program may have changed them.
local function sound(value)
  if not (math_type(value.year) and math_type(value.month) and math_type(value.day)) then return false end
  for _, field in ipairs { "hour", "min", "sec", "usec" } do
    if math_type(rawget(value, field) or 0) == nil then return false end
  end
  return true
end

--- Are two datetimes equal in Python? nil when only a comparison of their fields can tell.
function M.equal(a, b)
  if not (sound(a) and sound(b)) then return nil end
  local x, y = offset_of(a.tz), offset_of(b.tz)
  if (x == nil) ~= (y == nil) then return false end
  if x == false or y == false then return nil end
  return instant(a) == instant(b)
end

-- ---- methods -------------------------------------------------------------------------------------------------------

local function check_offset(self)
  if offset_of(self.tz) == false then
    error("a time in a named zone has no known offset here; convert it on the worker", 3)
  end
end

types.timedelta.__index = {
  total_seconds = function(self)
    local whole, rest = seconds_and_micros(self)
    return math.abs(whole) < 1 << 40 and (whole * SECOND + rest) / SECOND or whole + rest / SECOND
  end,
}
types.datetime.__index = {
  --- Seconds since 1970: UTC when the value knows its offset, else local time as os.time takes it.
  timestamp = function(self)
    check_offset(self)
    if self.tz ~= nil then return instant(self) / SECOND end
    return os.time { year = self.year, month = self.month, day = self.day, hour = self.hour or 0, min = self.min or 0,
      sec = self.sec or 0 } + (self.usec or 0) / SECOND
  end,
  isoformat = function(self)
    check_offset(self)
    return (tostring(self):gsub(" ", "T", 1))
  end,
}

return M
