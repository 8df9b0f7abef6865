--- `require "saturn.safe"`: the same API that returns `nil, err` where saturn raises an error object.
--
--   local saturn = require "saturn.safe"
--   local client, err = saturn.client("tcp://10.0.0.1:8786")
--   if not client then return print(err.kind, err.message) end
--
-- Objects made through it behave so too. Misuse (a wrong type, an unknown option) is still raised, as a string at the
-- caller's line. In a `for` loop over an object the error ends the loop and is then the object's field `err`.
--
-- Nothing of the API is written down here. Objects come out behind a proxy, which calls the object's own functions,
-- turns what they raise into results, and hands proxies on in place of other objects; what goes in is turned back.
-- The library never sees a proxy and the program never sees an object, so neither has to know of the other.

local errors = require "saturn.error"
local saturn = require "saturn"

local getmetatable, next, pcall, rawget, select, setmetatable, type =
  getmetatable, next, pcall, rawget, select, setmetatable, type

local objects = setmetatable({}, { __mode = "k" })   -- proxy → object
local proxies = setmetatable({}, { __mode = "kv" })  -- object → its proxy, while the program holds it
local metas = setmetatable({}, { __mode = "k" })     -- an object's metatable → its proxies'; false: not an object's
local methods = setmetatable({}, { __mode = "k" })   -- function that raises → function that returns nil, err
local raising = setmetatable({}, { __mode = "k" })   -- the same backwards
local callbacks = setmetatable({}, { __mode = "k" }) -- the program's function → function that the library calls
local ended = setmetatable({}, { __mode = "k" })     -- proxy → the error that ended its loop

-- These are values, not objects: they go through as they are.
local VALUES = { ["saturn.error"] = true, ["saturn.array"] = true }
local VALUES_PREFIX = "saturn.py."

local proxy_meta -- function(metatable): the metatable of proxies of such objects

local function meta_of(value)
  local meta = getmetatable(value)
  if type(meta) ~= "table" then return false end
  local known = metas[meta]
  if known == nil then
    local name = rawget(meta, "__name")
    local is_object = type(name) == "string" and name:sub(1, 7) == "saturn." and not VALUES[name]
      and name:sub(1, #VALUES_PREFIX) ~= VALUES_PREFIX
    known = is_object and proxy_meta(meta)
    metas[meta] = known
  end
  return known
end

local function proxy_of(object, meta)
  local proxy = proxies[object]
  if not proxy then
    proxy = setmetatable({}, meta)
    objects[proxy], proxies[object] = object, proxy
  end
  return proxy
end

-- ---- tables that hold objects -----------------------------------------------------------------------------------

local function is_value(value)
  local meta = getmetatable(value)
  return type(meta) == "table" and VALUES[rawget(meta, "__name")] or false
end

-- Whether `found` holds for the value or for something inside.
local function holds(value, found, seen)
  if found(value) then return true end
  if type(value) ~= "table" or seen[value] or is_value(value) then return false end
  seen[value] = true
  for key, item in next, value do
    if holds(key, found, seen) or holds(item, found, seen) then return true end
  end
  return false
end

local function copy(value, found, replace, copies)
  if found(value) then return replace(value) end
  if type(value) ~= "table" or is_value(value) then return value end
  if copies[value] then return copies[value] end
  local new = {}
  copies[value] = new
  for key, item in next, value do
    new[copy(key, found, replace, copies)] = copy(item, found, replace, copies)
  end
  return setmetatable(new, getmetatable(value))
end

-- The same value with replacements, in copies of the tables; the value itself when there is nothing to replace.
local function replaced(value, found, replace)
  if not holds(value, found, {}) then return value end
  return copy(value, found, replace, {})
end

-- ---- the way in and the way out -----------------------------------------------------------------------------------

local safe_function, callback

local function is_proxy(value) return objects[value] ~= nil end
local function object_of(value) return objects[value] end

local function is_object(value)
  local kind = type(value)
  return (kind == "table" or kind == "userdata") and meta_of(value) and true or false
end

local function to_proxy(value) return proxy_of(value, meta_of(value)) end

local function inward(value)
  local kind = type(value)
  if kind == "function" then return raising[value] or callback(value) end
  return kind == "table" and replaced(value, is_proxy, object_of) or value
end

local function outward(value)
  local kind = type(value)
  if kind == "function" then return safe_function(value) end
  if kind == "userdata" then return is_object(value) and to_proxy(value) or value end
  return kind == "table" and replaced(value, is_object, to_proxy) or value
end

local function each(convert, ...)
  local n = select("#", ...)
  if n == 0 then return end
  if n == 1 then return (convert((...))) end
  local values = table.pack(...)
  for i = 1, n do values[i] = convert(values[i]) end
  return table.unpack(values, 1, n)
end

-- A misuse error has no position yet: what raised it was called from C.
local function again(err, level)
  local placed = type(err) ~= "string" or err:find("^[^\n]-:%d+: ")
  error(err, placed and 0 or level + 1)
end

local function finish(ok, ...)
  if ok then return each(outward, ...) end
  local err = ...
  if errors.is_error(err) then return nil, err end
  again(err, 2)
end

function safe_function(fn)
  local safe = methods[fn]
  if not safe then
    safe = function(...) return finish(pcall(fn, each(inward, ...))) end
    methods[fn], raising[safe] = safe, fn
  end
  return safe
end

-- What the library calls back sees proxies; what it returns goes in.
function callback(fn)
  local called = callbacks[fn]
  if not called then
    called = function(...) return each(inward, fn(each(outward, ...))) end
    callbacks[fn], methods[called] = called, fn
  end
  return called
end

-- ---- proxies ------------------------------------------------------------------------------------------------------

local EVENTS = {}
for event in ([[add sub mul div mod pow unm idiv band bor bxor shl shr bnot concat len lt le pairs close]])
  :gmatch "%a+" do
  EVENTS[#EVENTS + 1] = "__" .. event
end

local function field(object, name) return object[name] end

-- A field that has to be asked for is absent when that fails.
local function index(proxy, name)
  local ok, value = pcall(field, objects[proxy], name)
  if ok then
    if value == nil and name == "err" then return ended[proxy] end
    return outward(value)
  end
  if errors.is_error(value) then return nil end
  again(value, 2)
end

local function newindex(proxy, name, value)
  objects[proxy][name] = inward(value)
end

local function same(a, b) return inward(a) == inward(b) end

-- An iterator's nil would look like its end.
local function remember(proxy, first, err, ...)
  ended[proxy] = first == nil and err or nil
  return first, err, ...
end

function proxy_meta(meta)
  local new = { __name = meta.__name, __index = index, __newindex = newindex, __eq = same }
  for _, event in ipairs(EVENTS) do
    if meta[event] then new[event] = safe_function(meta[event]) end
  end
  if meta.__call then
    local call = safe_function(meta.__call)
    new.__call = function(proxy, ...) return remember(proxy, call(proxy, ...)) end
  end
  new.__tostring = function(proxy) return tostring(objects[proxy]) end
  return new
end

-- ---- the module -----------------------------------------------------------------------------------------------------

-- Python values and error objects are the same for both.
local SHARED = { py = true, error = true, null = true }
local MODULE = { __index = index, __newindex = newindex }

return setmetatable({}, {
  __index = function(self, name)
    local value = saturn[name]
    if type(value) == "table" and not SHARED[name] and not is_object(value) then
      value = proxy_of(value, MODULE)
    elseif value ~= nil and not SHARED[name] then
      value = outward(value)
    end
    if value ~= nil then rawset(self, name, value) end
    return value
  end,
})
