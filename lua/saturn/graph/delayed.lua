--- Delayed values: nodes of a graph that is sent later. Calls, arithmetic, indexing and method calls on them make
-- more nodes. A node is a table with its key in the field `key`, which is how the encoder writes a reference to it;
-- everything else is under one private key, so that every other name is free for the Python value's own fields.

local errors = require "saturn.error"
local keys = require "saturn.graph.key"
local node = require "saturn.dask.node"
local py = require "saturn.py"

local M = {}

---@class saturn.Delayed
---@field key string the key of its task
local Delayed = { __name = "saturn.delayed", __saturn_ref = true }

---@class saturn.DelayedFunction
local Function = { __name = "saturn.delayed.function" }

-- The private field. Not a string, so that it is no name of a Python field; not pickled, should one be sent by mistake.
local NODE = {}
local CALLABLE = {}

---@class saturn.GraphNode what a delayed value is made of
---@field callable table? module, name, source, prefix; nil when the value is on the cluster already
---@field args table
---@field nargs integer
---@field kwargs table?
---@field future saturn.Future? the task that has the value
---@field pure boolean?
---@field owner saturn.Delayed? of a field: the value it is read from
---@field field string?

--- What stands behind a delayed value; nil for anything else.
---@return saturn.GraphNode?
function M.node(value)
  return getmetatable(value) == Delayed and rawget(value, NODE) or nil
end

--- Whether the value is a delayed one.
---@return boolean
function M.is_delayed(value)
  return getmetatable(value) == Delayed
end

local IDENTITY = { module = "toolz.functoolz", name = "identity", prefix = "value" }
local APPLY = py.fn "lambda function, *args, **kwargs: function(*args, **kwargs)"
local METHOD = py.fn "lambda value, name, *args, **kwargs: getattr(value, name)(*args, **kwargs)"
-- Lua writes an item and an attribute the same way.
local FIELD = py.fn [[
def field(value, name):
    try:
        return value[name]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return getattr(value, name)
]]

local function from_source(fn, prefix)
  return { name = fn.name, source = fn.source, prefix = prefix }
end

local FIELD_CALLABLE = from_source(FIELD, "field")
local APPLY_CALLABLE = from_source(APPLY, "apply")

local function new(callable, args, nargs, kwargs, pure, key)
  if not key then
    key = pure and keys.content(callable.prefix, callable, args, nargs, kwargs) or keys.unique(callable.prefix)
  end
  local fields = { callable = callable, args = args, nargs = nargs, kwargs = kwargs, pure = pure }
  return setmetatable({ key = key, [NODE] = fields }, Delayed)
end

--- A node whose content is given later by M.fill: its key is known first, as raw graphs need it.
function M.placeholder(key)
  return setmetatable({ key = key, [NODE] = {} }, Delayed)
end

--- Gives a placeholder its content.
function M.fill(value, callable, args, nargs, kwargs)
  local fields = rawget(value, NODE)
  fields.callable, fields.args, fields.nargs, fields.kwargs = callable, args, nargs, kwargs
end

--- A node for a value that may hold references.
function M.fill_literal(value, literal)
  M.fill(value, IDENTITY, { literal }, 1, nil)
end

--- A delayed value that a Future backs.
function M.of_future(future)
  if future.key == nil then errors.raise("value", "a delayed value cannot stand on a Future that was released") end
  return setmetatable({ key = future.key, [NODE] = { future = future } }, Delayed)
end

-- ---- calls --------------------------------------------------------------------------------------------------------

-- A delayed function as an argument is the function.
local function plain_functions(args, nargs)
  for i = 1, nargs do
    if getmetatable(args[i]) == Function then args[i] = rawget(args[i], CALLABLE).ref end
  end
end

-- Takes Python's own two options of a delayed call out of the keyword arguments.
local function call_options(kwargs, options)
  local key, pure = options.key_of_call, options.pure
  if not kwargs then return nil, key, pure end
  local rest = {}
  for name, value in pairs(kwargs) do
    if name == "dask_key_name" then
      if type(value) ~= "string" or value == "" then
        errors.misuse(4, "dask_key_name is a string, the key of the call")
      end
      key = value
    elseif name == "pure" and type(value) == "boolean" then
      pure = value
    else
      rest[name] = value
    end
  end
  return next(rest) ~= nil and py.kw(rest) or nil, key, pure
end

local function call(callable, packed, options)
  local args, nargs, kwargs = node.arguments(packed)
  plain_functions(args, nargs)
  local key, pure
  kwargs, key, pure = call_options(kwargs, options)
  return new(callable, args, nargs, kwargs, pure, key)
end

local GETITEM = { module = "operator", name = "getitem", prefix = "getitem" }

-- The first n items of a call that gives a tuple.
local function parts(whole, n)
  local items = {}
  for i = 1, n do items[i] = new(GETITEM, { whole, i - 1 }, 2, nil, true) end
  return table.unpack(items, 1, n)
end

function Function:__call(...)
  local callable = rawget(self, CALLABLE)
  local value = call(callable, table.pack(...), callable.options)
  if callable.options.nout then return parts(value, callable.options.nout) end
  return value
end

function Function:__tostring()
  local callable = rawget(self, CALLABLE)
  return ("<saturn.delayed.function: %s>"):format(callable.prefix)
end

function Function.__newindex()
  errors.misuse(1, "a delayed function cannot be changed")
end

local NO_OPTIONS = {}

-- value.name(...) and value:name(...) are the same method call.
local function call_field(fields, packed)
  if packed.n > 0 and rawequal(packed[1], fields.owner) then
    packed = table.pack(fields.owner, fields.field, table.unpack(packed, 2, packed.n))
  else
    packed = table.pack(fields.owner, fields.field, table.unpack(packed, 1, packed.n))
  end
  return (call(from_source(METHOD, fields.field), packed, NO_OPTIONS))
end

function Delayed:__call(...)
  local fields = rawget(self, NODE)
  if fields.field then return (call_field(fields, table.pack(...))) end -- no tail calls: levels of errors count them
  return (call(APPLY_CALLABLE, table.pack(self, ...), NO_OPTIONS))
end

-- ---- fields and operators: equal ones are one task ------------------------------------------------------------------

local own = {}

--- Draws the graph: an .svg, .png or .pdf file through Graphviz, or its text into a .dot file.
---@param path string
---@param options table? timeout (60 seconds) for Graphviz
function own.visualize(self, path, options)
  require("saturn.graph.draw").visualize({ self }, path, options)
end

function own.compute()
  errors.misuse(2, "a delayed value has no client of its own: use client:compute(value), which gives a Future")
end

function own.persist()
  errors.misuse(2, "a delayed value has no client of its own: use client:persist(value)")
end

function Delayed:__index(name)
  if own[name] then return own[name] end
  if type(name) ~= "string" then return new(GETITEM, { self, name }, 2, nil, true) end
  local value = new(FIELD_CALLABLE, { self, name }, 2, nil, true)
  local fields = rawget(value, NODE)
  fields.owner, fields.field = self, name
  return value
end

function Delayed.__newindex()
  errors.misuse(2, "a delayed value cannot be changed: make a new one by calling a function with it")
end

function Delayed:__tostring()
  return ("<saturn.delayed: %s>"):format(tostring(rawget(self, "key")))
end

local function operator(event, name)
  local callable = { module = "operator", name = name, prefix = (name:gsub("_$", "")) }
  Delayed[event] = function(a, b) return new(callable, { a, b }, 2, nil, true) end
end

local function unary(event, module, name)
  local callable = { module = module, name = name, prefix = name }
  Delayed[event] = function(value) return new(callable, { value }, 1, nil, true) end
end

for event, name in pairs {
  __add = "add", __sub = "sub", __mul = "mul", __div = "truediv", __idiv = "floordiv", __mod = "mod", __pow = "pow",
  __band = "and_", __bor = "or_", __bxor = "xor", __shl = "lshift", __shr = "rshift", __concat = "concat",
} do
  operator(event, name)
end
unary("__unm", "operator", "neg")
unary("__bnot", "operator", "invert")
unary("__len", "builtins", "len")

-- Lua turns the result of a comparison into a boolean, so it cannot be a node.
local function refuse_comparison(sign, name)
  return function()
    errors.misuse(2, "Lua makes a boolean of every comparison: for a delayed one call saturn.delayed \"operator.%s\" "
      .. "with both values instead of writing %s", name, sign)
  end
end
Delayed.__lt = refuse_comparison("< or >", "lt")
Delayed.__le = refuse_comparison("<= or >=", "le")

-- ---- making them --------------------------------------------------------------------------------------------------

local KNOWN = { pure = "boolean", nout = "integer", key = "string" }

local function delayed_function(fn, options)
  local callable = node.callable(fn, 3)
  if options.nout and options.nout < 1 then
    errors.misuse(3, "option 'nout' counts the parts of a result, from 1 on")
  end
  return setmetatable({ [CALLABLE] = {
    module = callable.module, name = callable.name, source = callable.source, prefix = options.key or callable.prefix,
    ref = py.callable(fn), options = { pure = options.pure, nout = options.nout and math.tointeger(options.nout) },
  } }, Function)
end

local function is_function(value)
  local kind = py.kind(value)
  return type(value) == "string" or type(value) == "function" or kind == "ref" or kind == "fn"
end

--- Makes a delayed function of the name or source of a Python function, or a delayed value of anything else: a table
--- may hold delayed values, and a Future becomes a value to go on with. A text as a value is saturn.py.str "text".
---@param value any
---@param options table? pure: equal calls are one task; nout: a call gives so many delayed values; key: of a function
--- the leading part of its calls' keys, of a value its key
---@return any delayed
function M.delayed(value, options)
  options = errors.options(options, KNOWN)
  if M.is_delayed(value) then return value end
  if is_function(value) then return (delayed_function(value, options)) end
  local meta = type(value) == "userdata" and getmetatable(value)
  if meta and meta.__name == "saturn.future" then return M.of_future(value) end
  local kind = py.kind(value) or type(value) == "table" and (#value > 0 and "list" or "dict") or type(value)
  local callable = { module = IDENTITY.module, name = IDENTITY.name, prefix = kind }
  return new(callable, { value }, 1, nil, options.pure, options.key)
end

return M
