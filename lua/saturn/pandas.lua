--- What pandas objects show to Lua: columns, index and values of the inert objects that a pickle holds. Nothing is
-- converted before it is asked for, and the object itself stays as it came, so that it goes back unchanged.

local core = require "saturn.core"
local array = require "saturn.array"
local py = require "saturn.py"

local types, extra, null = core.pickle.types, core.pickle.extra, core.null
local rawget, getmetatable = rawget, getmetatable

local M = {}

-- The inert object inside a frame, a series or an index.
local function inner(self)
  return rawget(self, extra)
end

local function unreadable(what)
  error("this release of pandas keeps " .. what .. " in a form that is not known here; convert it on the worker, " ..
    "for example with to_dict or to_numpy", 0)
end

local function field(object, name)
  local value = type(object) == "table" and rawget(object, name) or nil
  if value == null then return nil end
  return value
end

-- What a slice, an array of integers or a list says: positions from 1.
local function positions(places, n)
  local list = {}
  if py.kind(places) == "slice" then
    local step = places.step or 1
    for i = 0, n - 1 do list[i + 1] = (places.start or 0) + i * step + 1 end
  elseif array.is(places) then
    for i = 1, places.size do list[i] = places[i] + 1 end
  else
    return nil
  end
  return list
end

-- ---- points in time ------------------------------------------------------------------------------------------------

-- Units of pandas' time resolution codes, in a second.
local RESOLUTION = { [7] = 1, [8] = 1000, [9] = 1000000, [10] = 1000000000 }
local UNITS = { s = 1, ms = 1000, us = 1000000, ns = 1000000000 }

-- Year, month, day of a count of days since 1970-01-01.
local function date_of(days)
  local z = days + 719468
  local era = z // 146097
  local doe = z - era * 146097
  local yoe = (doe - doe // 1460 + doe // 36524 - doe // 146096) // 365
  local doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
  local mp = (5 * doy + 2) // 153
  local month = mp < 10 and mp + 3 or mp - 9
  return yoe + era * 400 + (month <= 2 and 1 or 0), month, doy - (153 * mp + 2) // 5 + 1
end

-- A count of units since 1970 as text, with as many digits as it needs.
local function moment_text(value, per_second)
  local seconds, fraction = value // per_second, value % per_second
  local year, month, day = date_of(seconds // 86400)
  local rest = seconds % 86400
  local text = ("%04d-%02d-%02d"):format(year, month, day)
  if rest == 0 and fraction == 0 then return text end
  text = ("%s %02d:%02d:%02d"):format(text, rest // 3600, rest // 60 % 60, rest % 60)
  if fraction ~= 0 then
    text = text .. "." .. ("%09d"):format(fraction * (1000000000 // per_second)):gsub("000$", ""):gsub("000$", "")
  end
  return text
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
  local year, month, day = date_of(seconds // 86400)
  if key == "year" then return year end
  if key == "month" then return month end
  if key == "day" then return day end
  if key == "hour" then return seconds % 86400 // 3600 end
  if key == "min" then return seconds // 60 % 60 end
  if key == "sec" then return seconds % 60 end
  if key == "nsec" then return value % per_second * (1000000000 // per_second) end
  return nil
end

function M.timestamp_text(self)
  local args = rawget(self, "args")
  local tz = args[3]
  local zoned = tz ~= nil and tz ~= null
  return moment_text(args[1], resolution(args, 4)) .. (zoned and " UTC" or "")
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

function M.timedelta_text(self)
  local args = rawget(self, "args")
  local per_second = resolution(args, 2)
  return tostring(py.timedelta { seconds = args[1] / per_second })
end

-- ---- columns -------------------------------------------------------------------------------------------------------

-- A value that pandas takes for missing becomes saturn.null in a list.
local function present(value)
  if py.kind(value) == "ref" and (value.name == "NA" or value.name == "NaT") then return null end
  if py.kind(value) == "object" and value.name == "__nat_unpickle" then return null end
  return value
end

-- A column: an array, or a list where NumPy has no type of its own for it.
local function plain(values)
  if array.is(values) then
    if values.ndim == 2 and values.shape[1] == 1 then values = values[1] end
    if values.ndim ~= 1 or values.typename ~= "object" then return values end
    local list = values:totable()
    for i = 1, #list do list[i] = present(list[i]) end
    return list
  end
  if py.kind(values) ~= "object" then return values end
  local state = field(values, "state")
  if values.name == "__pyx_unpickle_NDArrayBacked" and type(state) == "table" then
    -- dtype, array and attributes, in an order that differs by release
    local dtype, data
    for i = 1, #state do
      if array.is(state[i]) then data = data or state[i]
      elseif i <= 2 then dtype = dtype or state[i] end
    end
    if data == nil then return values end
    if py.kind(dtype) == "object" and dtype.name == "StringDtype" then
      local list = data:totable()
      for i = 1, #list do list[i] = type(list[i]) == "string" and list[i] or null end
      return list
    end
    if py.kind(dtype) == "object" and dtype.name == "CategoricalDtype" then
      local categories = M.values(field(dtype.state, "categories"))
      local list = {}
      for i = 1, data.size do
        local code = data[i]
        list[i] = code < 0 and null or categories[code + 1]
      end
      return list
    end
    return plain(data)
  end
  if type(state) == "table" and array.is(field(state, "_data")) and array.is(field(state, "_mask")) then
    local list = {}
    for i = 1, state._data.size do
      if state._mask[i] then list[i] = null else list[i] = state._data[i] end
    end
    return list
  end
  if type(state) == "table" and array.is(field(state, "_ndarray")) then return plain(state._ndarray) end
  return values
end

-- ---- Index ---------------------------------------------------------------------------------------------------------

-- _new_Index(class, {data = ..., name = ...}); a range has start, stop and step, a multi-index levels and codes.
local function index_parts(self)
  local args = field(inner(self), "args")
  local parts = type(args) == "table" and args[2]
  if type(parts) ~= "table" then unreadable("an index") end
  return parts, args[1]
end

local function index_length(self)
  local parts = index_parts(self)
  if parts.stop ~= nil then return #py.range(parts.start, parts.stop, parts.step) end
  if parts.codes ~= nil then return #parts.codes > 0 and parts.codes[1].size or 0 end
  local data = plain(parts.data)
  return array.is(data) and data.size or #data
end

--- The labels of an Index: an array, a list, or for a range a py.range; of a multi-index a list of py.tuple.
function M.values(self)
  local parts = index_parts(self)
  if parts.stop ~= nil then return py.range(parts.start, parts.stop, parts.step) end
  if parts.codes == nil then return plain(parts.data) end
  local levels, list = {}, {}
  for i, level in ipairs(parts.levels) do levels[i] = M.values(level) end
  for row = 1, index_length(self) do
    local label = {}
    for i, codes in ipairs(parts.codes) do
      local code = codes[row]
      if code < 0 then
        label[i] = null
      elseif py.kind(levels[i]) == "range" then
        label[i] = levels[i].start + code * levels[i].step
      else
        label[i] = levels[i][code + 1]
      end
    end
    list[row] = py.tuple(label)
  end
  return list
end

-- The label at a position from 1.
local function at(values, i)
  if py.kind(values) == "range" then return values.start + (i - 1) * values.step end
  return values[i]
end

local function to_list(values, n)
  local list = {}
  for i = 1, n do list[i] = at(values, i) end
  return list
end

-- ---- Series and DataFrame ------------------------------------------------------------------------------------------

local function manager(self)
  local state = field(inner(self), "state")
  local found = type(state) == "table" and (field(state, "_mgr") or field(state, "_data"))
  if type(found) ~= "table" then unreadable("a " .. py.kind(self)) end
  return found, state
end

-- Axes and blocks { values, positions }: arguments of BlockManager, or the state that a SingleBlockManager has.
local function layout(self)
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
  local record = type(state) == "table" and type(state[4]) == "table" and state[4]["0.14.1"]
  if type(record) ~= "table" then unreadable("a " .. py.kind(self)) end
  local blocks = {}
  for i, block in ipairs(record.blocks) do blocks[i] = { values = block.values, places = block.mgr_locs } end
  return record.axes, blocks
end

-- The column at a position from 1.
local function column_at(self, position)
  local _, blocks = layout(self)
  for _, block in ipairs(blocks) do
    local values = block.values
    local rows = array.is(values) and values.ndim == 2 and values.shape[1] or 1
    local places = positions(block.places, rows)
    if places == nil then unreadable("columns") end
    for i, place in ipairs(places) do
      if place == position then
        if array.is(values) and values.ndim == 2 then values = values[i] end
        return plain(values)
      end
    end
  end
  return nil
end

local function length(self)
  if py.kind(self) == "Index" then return index_length(self) end
  local axes = layout(self)
  return index_length(axes[#axes])
end
M.len = length

local function columns(self)
  local axes = layout(self)
  return to_list(M.values(axes[1]), index_length(axes[1]))
end

local Frame = {}

--- The column of this label; for labels that are names of methods, such as "rows".
function Frame.column(self, label)
  for i, name in ipairs(columns(self)) do
    if py.equal(name, label) then return column_at(self, i) end
  end
  return nil
end

--- Iterates over the rows: for i, row in df:rows() do print(row.name) end. A row is a table by column label.
function Frame.rows(self)
  local names, data, n = columns(self), {}, length(self)
  for i = 1, #names do data[i] = column_at(self, i) end
  local i = 0
  return function()
    i = i + 1
    if i > n then return nil end
    local row = {}
    for c, name in ipairs(names) do row[name] = data[c][i] end
    return i, row
  end
end

-- The text of an item: an element of a datetime64 array is but a number.
local function item(values, i)
  local value = values[i]
  if array.is(values) and values.unit and UNITS[values.unit] and values.dtype:find("M", 1, true) then
    if value == array.nat then return null end
    return moment_text(value, UNITS[values.unit])
  end
  return value
end

local function cell(value)
  if value == nil or value == null then return "" end
  if type(value) == "string" then
    return value:find('[",\r\n]') and '"' .. value:gsub('"', '""') .. '"' or value
  end
  return tostring(value)
end

--- The frame as CSV text: a line of column names, then a line a row. The index is left out, as with index=False.
function Frame.csv(self)
  local names, data, lines = columns(self), {}, {}
  local line = {}
  for c, name in ipairs(names) do
    data[c] = column_at(self, c)
    line[c] = cell(name)
  end
  lines[1] = table.concat(line, ",")
  for i = 1, length(self) do
    for c = 1, #names do line[c] = cell(item(data[c], i)) end
    lines[i + 1] = table.concat(line, ",")
  end
  return table.concat(lines, "\n") .. "\n"
end

local function frame_index(self, key)
  if key == "columns" then return columns(self) end
  if key == "index" then
    local axes = layout(self)
    return M.values(axes[2])
  end
  if key == "shape" then return { length(self), #columns(self) } end
  if key == "object" then return inner(self) end
  if Frame[key] ~= nil and type(key) == "string" then return Frame[key] end
  return Frame.column(self, key)
end

local function series_index(self, key)
  if key == "values" then return column_at(self, 1) or plain(select(2, layout(self))[1].values) end
  local axes, blocks = layout(self)
  if key == "index" then return M.values(axes[1]) end
  if key == "name" then
    local _, state = manager(self)
    return field(state, "_name") or field(state, "name")
  end
  if key == "object" then return inner(self) end
  local values = plain(blocks[1] and blocks[1].values)
  if math.type(key) == "integer" then return values[key] end
  local labels = M.values(axes[1])
  for i = 1, index_length(axes[1]) do
    if py.equal(at(labels, i), key) then return values[i] end
  end
  return nil
end

local function index_index(self, key)
  if key == "values" then return M.values(self) end
  if key == "name" then return field(index_parts(self), "name") end
  if key == "names" then return field(index_parts(self), "names") end
  if key == "object" then return inner(self) end
  if math.type(key) == "integer" and key >= 1 and key <= index_length(self) then return at(M.values(self), key) end
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
    local names = columns(self)
    return function()
      i = i + 1
      if names[i] ~= nil then return names[i], column_at(self, i) end
    end
  end
  local values, n = self.values, length(self)
  return function()
    i = i + 1
    if i <= n then return i, at(values, i) end
  end
end

-- ---- as text -------------------------------------------------------------------------------------------------------

local MAX_ROWS, MAX_COLUMNS, MAX_WIDTH = 10, 12, 24

local function short(value, i)
  if i then
    if py.kind(value) == "range" then value = at(value, i) else value = item(value, i) end
  end
  local text
  if value == nil or value == null then
    text = "None"
  elseif type(value) == "string" then
    text = value:gsub("[%c]", " ")
  else
    text = type(value) == "table" and py.repr(value, { width = 60, items = 5 }) or tostring(value)
  end
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

local function table_text(self)
  local kind, n = py.kind(self), length(self)
  local data, names = {}, {}
  local labels
  if kind == "DataFrame" then
    names, labels = columns(self), self.index
    for c = 1, math.min(#names, MAX_COLUMNS) do data[c] = column_at(self, c) end
  elseif kind == "Series" then
    labels, data[1] = self.index, self.values
  else
    labels = self.values
  end
  local rows = {}
  if kind == "DataFrame" then
    local head = { "" }
    for c = 1, #data do head[c + 1] = short(names[c]) end
    if #names > MAX_COLUMNS then head[#head + 1] = "..." end
    rows[1] = head
  end
  for i = 1, math.min(n, MAX_ROWS) do
    local row = { short(labels, i) }
    for c = 1, #data do row[c + 1] = short(data[c], i) end
    if #names > MAX_COLUMNS then row[#row + 1] = "..." end
    rows[#rows + 1] = row
  end
  local text = grid(rows)
  if n > MAX_ROWS then text = text .. "\n..." end
  local size = kind == "DataFrame" and ("[%d rows x %d columns]"):format(n, #names) or ("[%s of %d]"):format(kind, n)
  return text .. "\n" .. size
end

function M.tostring(self)
  local ok, text = pcall(table_text, self)
  return ok and text or "<pandas " .. tostring(py.kind(self)) .. ">"
end

return M
