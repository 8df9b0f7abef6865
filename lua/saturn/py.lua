--- Python values as Lua sees them: references to Python code, and a table with a metatable for each Python type that
-- Lua has no word for. docs/values.md lists the shapes. Reading and writing of pickles is in the C core.
--
-- Every program that sends a task needs what is here; the rest (constructors of rarer types, repr, comparison) is in
-- pyvalue.lua and is loaded when it is first used.

local core = require "saturn.core"

local codec, null = core.pickle, core.null
local types = codec.types
local getmetatable, setmetatable, type = getmetatable, setmetatable, type

local py = { null = null }

-- A metatable's own type name, "dict" for saturn.py.dict.
local name_of = {}
for name, meta in pairs(types) do name_of[meta] = name end

local function kind(value)
  return type(value) == "table" and name_of[getmetatable(value)] or nil
end

-- Level 1 is the line that called the function that calls this one.
local function bad(level, format, ...)
  error(format:format(...), level + 2)
end

local function shown(value)
  if type(value) == "string" then return ("%q"):format(value) end
  return kind(value) and "a py." .. kind(value) or "a " .. type(value)
end

-- ---- references to Python code ---------------------------------------------------------------------------------

local IDENTIFIER = "^[%a_\128-\255][%w_\128-\255]*$"

local function dotted(text)
  if text == "" or text:find("..", 1, true) or text:sub(1, 1) == "." or text:sub(-1) == "." then return false end
  for part in text:gmatch("[^.]+") do
    if not part:find(IDENTIFIER) then return false end
  end
  return true
end

local function split(text)
  local module, name = text:match("^([^:]*):([^:]*)$")
  if module then return module, name end
  module, name = text:match("^(.*)%.([^.]*)$")
  if module then return module, name end
  return "builtins", text
end

local function make_ref(text, level)
  if kind(text) == "ref" then return text end
  if type(text) ~= "string" then
    bad(level, "a Python name is a string such as \"package.module.name\", not %s", shown(text))
  end
  local ref = py.callable(text)
  if not ref then
    bad(level, "%q is no Python name: write \"package.module.name\", \"module:Class.method\" or a builtin's name",
      text)
  end
  return ref
end

--- A Python class or function by name: "package.module.name" (split at the last dot), a builtin's bare name, or
--- "module:Class.method".
---@param name string
---@return table ref with `module` and `name`
function py.ref(name)
  return make_ref(name, 1)
end

-- The top-level statements of a Python text in order: { line = its first line, from = position }. Strings, comments,
-- brackets and continued lines are passed over, so that a "def" inside them is not taken for one.
local function statements(text)
  local found, at, depth, fresh = {}, 1, 0, true
  local size = #text
  while at <= size do
    local c = text:sub(at, at)
    if fresh then
      local indent = text:match("^[ \t]*", at)
      local after = text:sub(at + #indent, at + #indent)
      if after == "\n" or after == "#" or after == "\r" or after == "" then
        at = at + #indent
      else
        if indent == "" then found[#found + 1] = { from = at, line = text:match("^[^\n]*", at) } end
        at = at + #indent
      end
      fresh = false
      c = text:sub(at, at)
    end
    if c == "#" then
      at = text:find("\n", at, true) or size + 1
    elseif c == "'" or c == '"' then
      local quote = text:sub(at, at + 2) == c:rep(3) and c:rep(3) or c
      at = at + #quote
      while at <= size do
        if text:sub(at, at) == "\\" then
          at = at + 2
        elseif text:sub(at, at + #quote - 1) == quote then
          at = at + #quote
          break
        elseif #quote == 1 and text:sub(at, at) == "\n" then
          break -- an unfinished string: Python will say so
        else
          at = at + 1
        end
      end
    elseif c == "(" or c == "[" or c == "{" then
      depth, at = depth + 1, at + 1
    elseif c == ")" or c == "]" or c == "}" then
      depth, at = math.max(depth - 1, 0), at + 1
    elseif c == "\\" then
      at = at + (text:sub(at + 1, at + 2) == "\r\n" and 3 or 2)
    elseif c == "\n" then
      fresh, at = depth == 0, at + 1
    else
      at = (text:find("[#'\"()%[%]{}\\\n]", at + 1)) or size + 1
    end
  end
  return found
end

-- Takes the indentation of the first line of code from every line that has it; a line of a long string need not.
local function dedent(text)
  local margin = ("\n" .. text):match("\n([ \t]*)[^%s#]")
  if not margin or margin == "" then return text end
  return (("\n" .. text):gsub("\n" .. margin, "\n"):sub(2))
end

local NO_EXPRESSION = {}
for word in ([[import from if for while with try return assert raise del global nonlocal pass break continue
  elif else except finally]]):gmatch("%S+") do
  NO_EXPRESSION[word] = true
end

local function defined(line)
  return line:match("^def%s+([%w_\128-\255]+)") or line:match("^async%s+def%s+([%w_\128-\255]+)") or
    line:match("^class%s+([%w_\128-\255]+)")
end

--- A Python function from its source: a lambda or another expression, or a text whose last top-level `def` or `class`
--- is the function; its imports and helpers may stand above it. The text is indented as it is in the Lua source.
---@param source string
---@param name string? which of the text's functions, when not the last
---@return table fn with `source`, `name` and `label` (for keys)
function py.fn(source, name)
  if type(source) ~= "string" then bad(1, "py.fn takes Python source text, not %s", shown(source)) end
  if source:find("\0", 1, true) then bad(1, "py.fn: Python source cannot hold a NUL character") end
  if not codec.is_utf8(source) then bad(1, "py.fn: Python source must be UTF-8") end
  local text = dedent((source:gsub("\r\n", "\n")))
  local list = statements(text)
  if #list == 0 then bad(1, "py.fn: the text holds no Python code") end
  local last_name, known = nil, {}
  for _, statement in ipairs(list) do
    local found = defined(statement.line)
    if found then
      last_name = found
      known[found] = true
    end
  end
  if name ~= nil then
    if type(name) ~= "string" or not known[name] then
      bad(1, "py.fn: the text has no top-level def or class %s", shown(name))
    end
    return setmetatable({ source = text, name = name, label = name }, types.fn)
  end
  local last = list[#list]
  local is_lambda = last.line:find("^lambda[%s:]") ~= nil
  if is_lambda or (not last_name and #list == 1) then
    local word = last.line:match("^[%a_]+")
    if word and NO_EXPRESSION[word] or last.line:find("^[%a_][%w_]*%s*=[^=]") then
      bad(1, "py.fn: give a lambda, or a text with a top-level def; this is neither: %s", last.line:sub(1, 60))
    end
    local expression = text:sub(last.from):gsub("%s+$", "")
    return setmetatable({
      source = text:sub(1, last.from - 1) .. "_saturn_function = (" .. expression .. "\n)\n",
      name = "_saturn_function",
      label = is_lambda and "lambda" or "expression",
    }, types.fn)
  end
  if not last_name then bad(1, "py.fn: the text has no top-level def or class, and its last statement is no lambda") end
  return setmetatable({ source = text, name = last_name, label = last_name }, types.fn)
end

--- What a public function takes for Python code: a name, a py.ref or a py.fn.
---@param value any
---@return table? callable a ref or fn; nil when the value names no Python code
function py.callable(value)
  local what = kind(value)
  if what == "ref" or what == "fn" then return value end
  if type(value) ~= "string" then return nil end
  local module, name = split(value)
  if not (dotted(module) and dotted(name)) then return nil end
  return setmetatable({ module = module, name = name }, types.ref)
end

--- True for what py.kw made.
function py.is_kw(value)
  return kind(value) == "kw"
end

-- ---- constructors ----------------------------------------------------------------------------------------------

local ATTRIBUTE = { deque = "maxlen", array = "typecode" } -- fields of sequences that are no items

-- Refuses a table with other keys than 1, 2, ... n: only those would be sent.
local function check_sequence(items, what, level)
  local size, count, attribute = #items, 0, ATTRIBUTE[kind(items)]
  for key in next, items do
    if attribute and key == attribute then
      count = count - 1
    elseif math.type(key) ~= "integer" or key < 1 or key > size then
      local have = type(key) == "table" and shown(key) or tostring(key)
      bad(level + 1, "%s takes a list such as {\"a\", \"b\"}, with the keys 1, 2, ... n; this table has the key %s%s",
        what, have, math.type(key) == "integer" and " beyond a hole, which saturn.null fills" or "")
    end
    count = count + 1
  end
  if count ~= size then bad(level + 1, "%s: the list has a hole; saturn.null fills it", what) end
end

local SEQUENCES = { list = true, tuple = true, set = true, frozenset = true }

local function tagged(name)
  local meta = types[name]
  py[name] = function(items)
    if items == nil then items = {} end
    if type(items) ~= "table" then bad(1, "py.%s takes a table, not %s", name, shown(items)) end
    local old = getmetatable(items)
    if old == meta then return items end
    if SEQUENCES[name] then
      check_sequence(items, "py." .. name, 1)
      if old ~= nil then items = table.move(items, 1, #items, 1, {}) end
    elseif old ~= nil then
      -- a copy, so that the other value stays what it is
      local copy = {}
      for k, v in next, items do copy[k] = v end
      items = copy
    end
    return setmetatable(items, meta)
  end
end
for _, name in ipairs { "list", "dict", "tuple", "set", "frozenset", "kw", "Counter" } do tagged(name) end

local function boxed(name, check)
  py[name] = function(value)
    if kind(value) == name then return value end
    local what = kind(value)
    if what == "bytes" or what == "str" or what == "bytearray" then value = value.value end
    if type(value) ~= "string" then bad(1, "py.%s takes a string, not %s", name, shown(value)) end
    if check and not codec.is_utf8(value) then bad(1, "py.str takes UTF-8; use py.bytes for other bytes") end
    return setmetatable({ value = value }, types[name])
  end
end
boxed "bytes"
boxed "bytearray"
boxed("str", true)

--- The short name of the type of a saturn.py value ("tuple", "datetime", ...), nil for other Lua values.
py.kind = kind

-- ---- the rest, when it is first used ------------------------------------------------------------------------------

local complete = false
local function load_rest()
  if complete then return end
  complete = true
  setmetatable(py, nil)
  require("saturn.pyvalue").extend(py, kind, bad, shown, make_ref, check_sequence)
end

setmetatable(py, {
  __index = function(self, key)
    load_rest()
    return self[key]
  end,
})

-- Stand-ins that the rest replaces.
for _, meta in pairs(types) do
  function meta.__tostring(self)
    load_rest()
    return tostring(self)
  end
end

local function stand_in(event, call, ...)
  for _, name in ipairs { ... } do
    types[name][event] = function(...)
      load_rest()
      return call(...)
    end
  end
end
stand_in("__eq", function(a, b) return a == b end, "int", "complex", "Decimal", "Fraction", "UUID", "range", "slice",
  "datetime", "date", "time", "timedelta", "timezone", "ZoneInfo", "path", "dtype", "datetime64", "ref", "str", "bytes",
  "bytearray", "float", "Timestamp", "Timedelta")
local ORDERED = { "int", "date", "datetime", "time", "timedelta", "datetime64", "Decimal", "Fraction", "Timestamp",
  "Timedelta" }
stand_in("__lt", function(a, b) return a < b end, table.unpack(ORDERED))
stand_in("__le", function(a, b) return a <= b end, table.unpack(ORDERED))
stand_in("__newindex", function(self, key, value) self[key] = value end, "DataFrame", "Series", "Index")
stand_in("__index", function(self, key) return self[key] end, "int", "datetime", "timedelta", "DataFrame", "Series",
  "Index", "Timestamp", "Timedelta")
stand_in("__len", function(self) return #self end, "range", "DataFrame", "Series", "Index")
stand_in("__pairs", function(self) return pairs(self) end, "range", "OrderedDict", "defaultdict", "DataFrame",
  "Series", "Index")
stand_in("__concat", function(a, b) return a .. b end, "int", "ref")

return py
