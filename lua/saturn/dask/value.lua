--- Values that travel outside tasks: in variables, queues, datasets and calls of actors.
--
-- What msgpack holds without loss (nil, booleans, numbers, strings) goes as it is, as Python's client sends it; all
-- else goes as a pickle that the scheduler does not open. A Future inside a value goes as a reference, in the form in
-- which Python's client of the same release pickles its own.

local core = require "saturn.core"
local errors = require "saturn.error"
local future = require "saturn.dask.future"
local gather = require "saturn.dask.gather"
local ops = require "saturn.dask.ops"
local py = require "saturn.py"

local dumps, null, wire = core.pickle.dumps, core.null, core.wire
local types = core.pickle.types

local M = {}

-- ---- Futures inside values --------------------------------------------------------------------------------------

local function collect(value, found, seen)
  local a_future = gather.future_of(value)
  if a_future then
    local id = a_future:id()
    if not id then errors.raise("value", "a Future that was released cannot be part of a value") end
    future.check_there(a_future)
    if not found[id] then
      found[id] = a_future
      found[#found + 1] = a_future
    end
  elseif type(value) == "table" and not seen[value] and not gather.is_object(value) then
    seen[value] = true
    for _, item in next, value do collect(item, found, seen) end
  end
end

--- The Futures in any nesting of tables, each once.
---@param value any
---@return saturn.Future[]
function M.futures_in(value)
  local found = {}
  collect(value, found, {})
  local list = {}
  for i, each in ipairs(found) do list[i] = each end
  return list
end

-- A key as Python has it: what is a list here is a tuple there.
local function python_key(key)
  if type(key) ~= "table" then return key end
  local tuple = {}
  for i, part in ipairs(key) do tuple[i] = python_key(part) end
  return py.tuple(tuple)
end

local function reference(client, a_future)
  local key = python_key(a_future.key)
  if ops.future_pickle(client.release) == "call" then return py.object("distributed.client.Future", { key }) end
  local object = py.object("distributed.client.Future")
  object.new, object.state = true, py.tuple { key, client.address }
  return object
end

-- A copy with references in place of Futures. Objects of this library are left to the pickler, which refuses them.
local function refer(client, value, copies)
  local a_future = gather.future_of(value)
  if a_future then return reference(client, a_future) end
  if type(value) ~= "table" or gather.is_object(value) then return value end
  if copies[value] then return copies[value] end
  local copy = setmetatable({}, getmetatable(value))
  copies[value] = copy
  for key, item in next, value do rawset(copy, key, refer(client, item, copies)) end
  return copy
end

-- ---- to the scheduler -------------------------------------------------------------------------------------------

--- A value as a pickle in a message.
---@param client saturn.Client
---@param value any tables may hold Futures
function M.serialize(client, value)
  if #M.futures_in(value) > 0 then value = refer(client, value, {}) end
  return wire.serialized({ serializer = "pickle", writeable = {} }, { errors.check(dumps(value)) })
end

local PLAIN = { ["nil"] = true, boolean = true, number = true, string = true }

--- A value without Futures for a place that only msgpack is needed for.
function M.encode(client, value)
  if PLAIN[type(value)] or value == null then return value end
  return M.serialize(client, value)
end

--- What a variable or a queue is given: `{ key = key }` of a Future, or `{ data = value }`.
---@param what string "a variable", for the error
---@param level integer? 2: misuse is the error of the caller of the function that calls this
function M.record(client, value, what, level)
  value = gather.future_of(value) or value
  if future.is_future(value) then
    if not value:id() then
      errors.misuse((level or 2) + 1, "the Future was released and cannot be put into %s", what)
    end
    if not value:mine(client.session) then
      errors.misuse((level or 2) + 1, "%s belongs to another client: put it into %s there", tostring(value), what)
    end
    future.check_there(value)
    return { key = value.key }
  end
  if #M.futures_in(value) > 0 then
    errors.misuse((level or 2) + 1, "%s holds one Future or plain data, not a table with Futures in it, whose results "
      .. "nobody would keep: put each by itself, or publish the table with client:publish", what)
  end
  return { data = M.encode(client, value) }
end

-- ---- from the scheduler -----------------------------------------------------------------------------------------

--- A Future of a key that another client may have made.
---@param client saturn.Client
---@return saturn.Future
function M.future(client, key)
  local made = client.session:future(key, client)
  client:send { op = "client-desires-keys", keys = { key }, client = client.id }
  return made
end

-- The key of a pickled Future, else nil.
local function key_of(value)
  if getmetatable(value) ~= types.object or value.module ~= "distributed.client" or value.name ~= "Future" then
    return nil
  end
  local args, state = rawget(value, "args"), rawget(value, "state")
  if type(args) == "table" and args[1] ~= nil then return args[1] end
  return type(state) == "table" and state[1] or nil
end

local function resolve(client, value, made, seen)
  if type(value) ~= "table" or seen[value] then return value end
  local key = key_of(value)
  if key ~= nil then
    local id = wire.encode(key)
    if not made[id] then
      made[id] = client.session:future(key, client)
      made[#made + 1] = made[id]
    end
    return made[id]
  end
  seen[value] = true
  for name, item in next, value do
    if type(item) == "table" then rawset(value, name, resolve(client, item, made, seen)) end
  end
  return value
end

--- The Lua value of what came, with Futures in place of references to them. None is nil.
---@param client saturn.Client
---@param value any plain, or a serialized value
---@param keys table? more keys that are wanted
---@return any value
---@return saturn.Future[] futures those in the value and those of `keys`
function M.decode(client, value, keys)
  if type(value) == "userdata" and value ~= null then
    local kind, message
    value, kind, message = value:value()
    if value == nil and kind then errors.raise(kind, message) end
  end
  if value == null then value = nil end
  local made = {}
  for _, key in ipairs(keys or {}) do resolve(client, py.object("distributed.client.Future", { key }), made, {}) end
  value = resolve(client, value, made, {})
  local futures, wanted = {}, {}
  for i, each in ipairs(made) do futures[i], wanted[i] = each, each.key end
  if #wanted > 0 then client:send { op = "client-desires-keys", keys = wanted, client = client.id } end
  return value, futures
end

--- What a variable or a queue answered: a Future, or a value.
---@param record table type, value, state
function M.from_record(client, record, what)
  if record.type ~= "Future" then return (M.decode(client, record.value)) end
  local made = M.future(client, record.value)
  if record.state == "lost" or record.state == "forgotten" then
    return nil, errors.new("lost", ("%s holds the Future of %s, which the scheduler has forgotten: the cluster was "
      .. "restarted since"):format(what, tostring(made.key)), { key = made.key })
  end
  return made
end

return M
