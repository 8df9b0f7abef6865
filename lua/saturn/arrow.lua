--- Arrow arrays as pyarrow pickles them: an inert object that holds a type and buffers becomes a column. What has a
-- type of NumPy's stays in its buffer, which is the memory that was received. The layouts are those of Arrow's
-- columnar format, https://arrow.apache.org/docs/format/Columnar.html.

local array = require "saturn.array"
local core = require "saturn.core"
local errors = require "saturn.error"
local py = require "saturn.py"
local pytext = require "saturn.pytext"
local pytime = require "saturn.pytime"

local null = core.null

local M = {}

---@class saturn.arrow.Type
---@field name string Arrow's: "int64", "double", "large_string", "timestamp", "list", ...
---@field unit string? of times and durations: "s", "ms", "us", "ns"
---@field tz string? of timestamps
---@field scale integer? of decimals
---@field size integer? of what has a fixed size
---@field index string? of dictionaries: the dtype of their indices
---@field names string[]? of structs

---@class saturn.arrow.Column
---@field type saturn.arrow.Type
---@field n integer
---@field values saturn.Array|any[] an array of numbers, booleans or times, else a list, in which missing is saturn.null
---@field missing saturn.Array? booleans, where values is an array and something is missing

local function broken(what)
  errors.raise("protocol", "broken Arrow data: " .. what)
end

local function unknown(name)
  errors.raise("value", ("Arrow's type %s is not known here: convert it on the worker"):format(tostring(name)))
end

-- ---- what an inert object of pyarrow says ---------------------------------------------------------------------------

local function given(value)
  if value == null then return nil end
  return value
end

-- The name and the arguments of a call of pyarrow; nil for anything else.
local function call_of(value)
  if py.kind(value) ~= "object" or value.module ~= "pyarrow.lib" or type(value.args) ~= "table" then return nil end
  return value.name, value.args
end

local function names_of(fields)
  local names = {}
  for i, field in ipairs(type(fields) == "table" and fields or {}) do
    local name, args = call_of(field)
    if name ~= "field" or type(args[1]) ~= "string" then broken("a struct whose fields have no names") end
    names[i] = args[1]
  end
  return names
end

local NUMBERS = { int8 = "|i1", int16 = "<i2", int32 = "<i4", int64 = "<i8", uint8 = "|u1", uint16 = "<u2",
  uint32 = "<u4", uint64 = "<u8", halffloat = "<f2", float = "<f4", double = "<f8" }

local TYPES = {
  type_for_alias = function(args)
    local text = tostring(args[1])
    local name, unit = text:match("^(%w+)%[(%a+)%]$")
    return { name = name or text, unit = unit }
  end,
  timestamp = function(args) return { name = "timestamp", unit = args[1], tz = given(args[2]) } end,
  duration = function(args) return { name = "duration", unit = args[1] } end,
  time32 = function(args) return { name = "time32", unit = args[1] } end,
  time64 = function(args) return { name = "time64", unit = args[1] } end,
  binary = function(args) return { name = "fixed_size_binary", size = args[1] } end,
  dictionary = function(args)
    local name, alias = call_of(args[1])
    local index = name == "type_for_alias" and NUMBERS[alias[1]]
    if not index then broken("a dictionary whose indices are no integers") end
    return { name = "dictionary", index = index }
  end,
  list_ = function(args)
    return given(args[2]) and { name = "fixed_size_list", size = args[2] } or { name = "list" }
  end,
  large_list = function() return { name = "large_list" } end,
  struct = function(args) return { name = "struct", names = names_of(args[1]) } end,
}
for name, size in pairs { decimal32 = 4, decimal64 = 8, decimal128 = 16, decimal256 = 32 } do
  TYPES[name] = function(args) return { name = "decimal", size = size, scale = args[2] } end
end

local function parse_type(value)
  local name, args = call_of(value)
  local make = TYPES[name]
  if not make then unknown(name or py.type(value)) end
  return make(args)
end

-- ---- buffers ------------------------------------------------------------------------------------------------------

-- What a buffer was made of: an array of bytes, or a string; anything else is not of pyarrow.
local function content_of(buffer)
  local name, args = call_of(buffer)
  local data = name == "py_buffer" and args[1]
  if type(data) == "table" and type(data.value) == "string" then return data.value end
  return data
end

-- The bytes of a buffer, nil for none. Protocols before 5 have them as bytes or a bytearray.
local function bytes_of(buffer)
  if buffer == nil or buffer == null then return nil end
  local data = content_of(buffer)
  if array.is(data) then return data end
  if type(data) ~= "string" then broken("a buffer without bytes") end
  return array.from_string(data, "|u1", #data)
end

-- n elements of a buffer from position `from` (from 0) on, as an array over its memory.
local function window(buffer, dtype, from, n)
  if n == 0 then return array.zeros(0, dtype) end
  local bytes, width = bytes_of(buffer), array.zeros(1, dtype).itemsize
  if not bytes or (from + n) * width > bytes.size then broken("a buffer ends before its last element") end
  return bytes:slice({ from * width + 1, (from + n) * width }):view(dtype)
end

local function missing_of(data)
  local bytes = data.nulls ~= 0 and bytes_of(data.buffers[1])
  if not bytes then return nil end
  return errors.check(core.arrow.bits(bytes, data.offset, data.n, true))
end

-- ---- what a small message may not become ---------------------------------------------------------------------------

local MOST_UNBACKED, EACH, MOST_DEPTH = 10000000, 100, 64

-- What the arrays of one column may take that no bytes of their own back.
local function new_budget()
  return { left = MOST_UNBACKED, depth = 0, seen = {} }
end

local function spend(budget, amount)
  budget.left = budget.left - amount
  if budget.left < 0 then
    errors.raise("limit", ("an Arrow array has more than %d elements of no bytes of their own"):format(MOST_UNBACKED))
  end
end

-- An array counts as so many elements, and as the bytes of each of its buffers that another array has too.
local function charge(budget, buffers)
  spend(budget, EACH)
  for _, buffer in ipairs(buffers) do
    local data = content_of(buffer)
    local place, size = data, type(data) == "string" and #data
    if array.is(data) then place, size = data:pointer(), data.nbytes end
    if size then
      if budget.seen[place] then spend(budget, size) end
      budget.seen[place] = true
    end
  end
end

-- ---- one reader a type --------------------------------------------------------------------------------------------

local PER_SECOND = { s = 1, ms = 1000, us = 1000000, ns = 1000000000 }

local read

local function column(data, values, missing)
  return { type = data.type, n = data.n, values = values, missing = missing }
end

-- A list of what make gives for each element of an array.
local function made(data, values, make)
  local missing, list = missing_of(data), {}
  for i = 1, data.n do
    if missing and missing[i] then list[i] = null else list[i] = make(values[i]) end
  end
  return column(data, list)
end

local function fixed(dtype)
  return function(data) return column(data, window(data.buffers[2], dtype, data.offset, data.n), missing_of(data)) end
end

local function counts(data, letter)
  local unit = data.type.unit
  if not PER_SECOND[unit] then unknown(data.type.name) end
  local dtype = ("<%s8[%s]"):format(letter, unit)
  return column(data, window(data.buffers[2], dtype, data.offset, data.n), missing_of(data))
end

local function texts(width)
  return function(data)
    local offsets = bytes_of(data.buffers[2]) or array.zeros(0, "|u1")
    return column(data, errors.check(core.arrow.texts(offsets, width, bytes_of(data.buffers[3]), data.offset, data.n,
      missing_of(data))))
  end
end

local function fixed_binary(data)
  local size = data.type.size
  if math.type(size) ~= "integer" or size < 0 then broken("bytes of no size") end
  if size == 0 then
    spend(data.budget, data.n)
    return made(data, {}, function() return "" end)
  end
  return made(data, window(data.buffers[2], "|V" .. size, data.offset, data.n), function(value) return value end)
end

local function date(days)
  return py.date(pytime.date_of(days))
end

local function date64(data)
  return made(data, window(data.buffers[2], "<i8", data.offset, data.n), function(ms) return date(ms // 86400000) end)
end

-- Python's times have microseconds; what is beyond them is dropped, as pyarrow does it.
local function times(width)
  return function(data)
    local per_second = PER_SECOND[data.type.unit]
    if not per_second then unknown(data.type.name) end
    return made(data, window(data.buffers[2], width, data.offset, data.n), function(value)
      local seconds = value // per_second
      return py.time { hour = seconds // 3600, min = seconds // 60 % 60, sec = seconds % 60,
        usec = value % per_second * 1000000 // per_second }
    end)
  end
end

-- The text of an integer with `scale` digits behind the point.
local function decimal_text(digits, scale)
  if scale <= 0 then return scale < 0 and ("%sE+%d"):format(digits, -scale) or digits end
  local sign, whole = digits:match("^(-?)(%d+)$")
  whole = ("0"):rep(scale + 1 - #whole) .. whole
  return ("%s%s.%s"):format(sign, whole:sub(1, -scale - 1), whole:sub(-scale))
end

local function decimals(data)
  local scale = data.type.scale
  if math.type(scale) ~= "integer" or scale > 1000 then broken("a decimal without a scale") end
  return made(data, window(data.buffers[2], "|V" .. data.type.size, data.offset, data.n), function(le)
    return py.Decimal(decimal_text(errors.check(core.pickle.int_to_text(le)), scale))
  end)
end

local function dictionary(data)
  if data.n == 0 then return column(data, {}) end
  local codes = window(data.buffers[2], data.type.index, data.offset, data.n)
  local categories = M.list(read(data.dictionary, data.budget))
  return made(data, codes, function(code)
    if #categories == 0 and code == 0 then return null end -- within a struct that is missing
    local value = categories[code + 1]
    if value == nil then broken("an index that its dictionary does not have") end
    return value
  end)
end

-- Lists whose items are those of the only child from bounds(i) on.
local function lists(data, bounds)
  if data.n == 0 then return column(data, {}) end
  local items = M.list(read(data.children[1], data.budget))
  local missing, list = missing_of(data), {}
  for i = 1, data.n do
    local first, last = bounds(i)
    if missing and missing[i] then
      list[i] = null
    else
      if first < 0 or last > #items or first > last then broken("a list lies outside of its items") end
      list[i] = table.move(items, first + 1, last, 1, {})
    end
  end
  return column(data, list)
end

local function by_offsets(dtype)
  return function(data)
    local offsets = window(data.buffers[2], dtype, data.offset, data.n == 0 and 0 or data.n + 1)
    return lists(data, function(i) return offsets[i], offsets[i + 1] end)
  end
end

local function by_size(data)
  local size = data.type.size
  if math.type(size) ~= "integer" or size < 0 then broken("lists of no size") end
  if size == 0 then spend(data.budget, data.n) end
  return lists(data, function(i) return (data.offset + i - 1) * size, (data.offset + i) * size end)
end

local function structs(data)
  if data.n == 0 then return column(data, {}) end
  local names, fields, missing, list = data.type.names, {}, missing_of(data), {}
  if #names == 0 then spend(data.budget, data.n) end
  for c in ipairs(names) do
    fields[c] = M.list(read(data.children[c], data.budget))
    if #fields[c] < data.offset + data.n then broken("a field ends before its struct") end
  end
  for i = 1, data.n do
    local row = {}
    for c, name in ipairs(names) do row[name] = fields[c][data.offset + i] end
    list[i] = missing and missing[i] and null or py.dict(row)
  end
  return column(data, list)
end

local READERS = {
  bool = function(data)
    local bytes = data.n > 0 and bytes_of(data.buffers[2]) or array.zeros(0, "|u1")
    return column(data, errors.check(core.arrow.bits(bytes, data.offset, data.n)), missing_of(data))
  end,
  null = function(data)
    local list = {}
    spend(data.budget, data.n)
    for i = 1, data.n do list[i] = null end
    return column(data, list)
  end,
  timestamp = function(data) return counts(data, "M") end,
  duration = function(data) return counts(data, "m") end,
  date32 = function(data) return made(data, window(data.buffers[2], "<i4", data.offset, data.n), date) end,
  date64 = date64, time32 = times "<i4", time64 = times "<i8",
  string = texts(4), large_string = texts(8), binary = texts(4), large_binary = texts(8),
  fixed_size_binary = fixed_binary, decimal = decimals, dictionary = dictionary,
  list = by_offsets "<i4", large_list = by_offsets "<i8", fixed_size_list = by_size, struct = structs,
}
for name, dtype in pairs(NUMBERS) do READERS[name] = fixed(dtype) end

local function is_count(value)
  return math.type(value) == "integer" and value >= 0 and value < 1 << 48
end

-- The column of what _restore_array is called with: type, length, nulls, offset, buffers, children, dictionary.
function read(raw, budget)
  if type(raw) ~= "table" or not is_count(raw[2]) or not is_count(raw[4]) or type(raw[5]) ~= "table" then
    broken("an array without length and buffers")
  end
  local data = { type = parse_type(raw[1]), n = raw[2], nulls = raw[3], offset = raw[4], buffers = raw[5],
    children = type(raw[6]) == "table" and raw[6] or {}, dictionary = given(raw[7]), budget = budget }
  local reader = READERS[data.type.name]
  if not reader then unknown(data.type.name) end
  charge(budget, data.buffers)
  if budget.depth == MOST_DEPTH then
    errors.raise("limit", ("Arrow arrays in more than %d others"):format(MOST_DEPTH))
  end
  budget.depth = budget.depth + 1
  local result = reader(data)
  budget.depth = budget.depth - 1
  return result
end

-- ---- the public part ----------------------------------------------------------------------------------------------

--- An element of an array as it is by itself: a time or duration as a py.datetime64, saturn.null for none, and an
--- integer beyond 63 bits as a py.int.
---@param values saturn.Array of one dimension
---@param i integer
function M.element(values, i)
  local value, unit = values[i], values.unit
  if unit then
    if value == array.nat then return null end
    return py.datetime64(value, unit, values.typename:find("^timedelta") and true or nil)
  end
  if math.type(value) == "integer" and value < 0 and values.typename == "uint64" then
    return py.int(pytext.unsigned(value))
  end
  return value
end

--- The elements as a list, saturn.null for what is missing.
---@param self saturn.arrow.Column
---@return any[]
function M.list(self)
  if not array.is(self.values) then return self.values end
  local list = {}
  for i = 1, self.n do
    if self.missing and self.missing[i] then list[i] = null else list[i] = M.element(self.values, i) end
  end
  return list
end

local function all_missing(columns)
  local parts, any = {}, false
  for i, each in ipairs(columns) do
    any = any or each.missing ~= nil
    parts[i] = each.missing and each.missing:tostring() or ("\0"):rep(each.n)
  end
  return any and table.concat(parts) or nil
end

-- One column of several.
local function joined(columns)
  local first, n = columns[1], 0
  for _, each in ipairs(columns) do n = n + each.n end
  if not array.is(first.values) then
    local list = {}
    for _, each in ipairs(columns) do table.move(each.values, 1, each.n, #list + 1, list) end
    return { type = first.type, n = n, values = list }
  end
  local parts, missing = {}, all_missing(columns)
  for i, each in ipairs(columns) do parts[i] = each.values:tostring() end
  return { type = first.type, n = n, values = array.from_string(table.concat(parts), first.values.dtype, n),
    missing = missing and array.from_string(missing, "|b1", n) or nil }
end

--- Whether the value is an array of pyarrow, whole or in chunks.
function M.is(value)
  local name = call_of(value)
  return name == "_restore_array" or name == "chunked_array"
end

--- The column of an array of pyarrow. Raises an error object for what cannot be read.
---@param value table the inert object
---@return saturn.arrow.Column
function M.read(value)
  local name, args = call_of(value)
  local budget = new_budget()
  if name == "_restore_array" then return read(args[1], budget) end
  local columns = {}
  for i, chunk in ipairs(type(args[1]) == "table" and args[1] or {}) do
    local kind, inner = call_of(chunk)
    if kind ~= "_restore_array" then broken("a chunk that is no array") end
    columns[i] = read(inner[1], budget)
  end
  if #columns > 0 then return #columns == 1 and columns[1] or joined(columns) end
  return read({ args[2], 0, 0, 0, {}, {}, null }, budget)
end

return M
