--- Getting values: from the scheduler, or straight from the workers that hold them.

local core = require "saturn.core"
local endpoint = require "saturn.dask.endpoint"
local errors = require "saturn.error"
local loop = require "saturn.loop"
local server = require "saturn.dask.server"

local future_id = require("saturn.graph.key").future_id

local M = {}

local function is_future(value)
  local meta = type(value) == "userdata" and getmetatable(value)
  return meta and meta.__name == "saturn.future"
end

-- The name of an object of this library, which is no data: what stands in it is not the caller's. Nil for all else,
-- also for Python's values.
local function object_name(value)
  local meta = getmetatable(value)
  local name = type(meta) == "table" and rawget(meta, "__name")
  if type(name) ~= "string" or name:sub(1, 7) ~= "saturn." or name:sub(1, 10) == "saturn.py." then return nil end
  return name
end

--- Whether a table is an object of this library: a client, a lock, an actor. Walks over data pass by it.
---@param value table
---@return boolean
function M.is_object(value)
  return object_name(value) ~= nil
end

--- The Future that a value is, or that a persisted delayed value stands on; else nil.
---@return saturn.Future?
function M.future_of(value)
  if is_future(value) then return value end
  local delayed = package.loaded["saturn.graph.delayed"] -- not there: nobody has made a delayed value yet
  local node = delayed and delayed.node(value)
  return node and node.future
end

local future_of = M.future_of

local function is_call(value)
  return object_name(value) == "saturn.actor_call"
end

-- ---- fetching ---------------------------------------------------------------------------------------------------

local function value_of(serialized)
  if type(serialized) ~= "userdata" then return serialized end -- a scheduler may send what is plain as it is
  local value, kind, message = serialized:value()
  serialized:close() -- the message's memory is the arrays' alone from here on
  if value == nil and kind then errors.raise(kind, message) end
  return value
end

local function store(values, data)
  if type(data) ~= "table" then return end
  for key, serialized in pairs(data) do values[future_id(key)] = serialized end
end

local function through_scheduler(client, keys, values, timeout)
  local reply = client.scheduler:call("gather", { keys = keys }, timeout)
  if type(reply) == "table" and reply.status == "OK" then store(values, reply.data) end
end

local function worker_of(client, address)
  local worker = client._workers[address]
  if not worker then
    worker = server.new(endpoint.to(client._endpoint, address))
    client._workers[address] = worker
  end
  return worker
end

--- The connections to a worker, made when first asked for.
M.worker_of = worker_of

-- Which worker to ask for which keys: the holder with the fewest so far.
local function assign(who_has)
  local by_worker = {}
  for key, holders in pairs(who_has) do
    local best
    for _, address in ipairs(holders) do
      local mine = by_worker[address]
      if not best or #(mine or {}) < #(by_worker[best] or {}) then best = address end
    end
    if best then
      by_worker[best] = by_worker[best] or {}
      table.insert(by_worker[best], key)
    end
  end
  return by_worker
end

-- A worker may be out of reach from here, gone, or busy: what it did not give comes through the scheduler.
local function from_workers(client, keys, values, timeout)
  local who_has = client.scheduler:call("who_has", { keys = keys }, timeout)
  local calls = {}
  for address, theirs in pairs(assign(who_has)) do
    local ok, call = pcall(function()
      return worker_of(client, address):start("get_data", { keys = theirs, who = client.id }, true)
    end)
    if ok then calls[#calls + 1] = call end
  end
  local deadline = timeout and loop.now() + timeout
  for _, call in ipairs(calls) do
    local ok, reply = pcall(call.wait, call, deadline and math.max(0, deadline - loop.now()))
    if ok and type(reply) == "table" and reply.status == "OK" then store(values, reply.data) end
  end
end

local function missing_of(futures, values)
  local missing = {}
  for id, future in pairs(futures) do
    if not values[id] and future.status == "finished" then missing[#missing + 1] = future.key end
  end
  return missing
end

local function any_pending(futures, values)
  for id, future in pairs(futures) do
    if not values[id] and future.status == "pending" then return true end
  end
  return false
end

local UNDER_WAY = { waiting = true, ["no-worker"] = true, queued = true, processing = true }

-- Has the scheduler say what became of finished keys whose values did not come. Of those that are computed again it
-- says nothing before they are done: they are pending until then. The question comes last, so that no answer is
-- overtaken.
local function look_again(client, keys, timeout)
  local states = client.scheduler:call("get_task_status", { keys = keys }, timeout)
  for key, state in pairs(states) do
    if UNDER_WAY[state] then client.session:found(key, "pending") end
  end
  for _, key in ipairs(keys) do client:send { op = "report-key", key = key } end
end

local RETRIES = 20
-- What is finished takes a moment to come: who polls with no time to wait would never have it.
local SHORTEST_ASK = 1

--- The serialized values of finished Futures, by id. Data that was lost meanwhile is computed again, and waited for.
---@param futures table<string, saturn.Future>
local function fetch(client, futures, direct, timeout)
  local deadline = timeout and loop.now() + timeout
  local function left() return deadline and math.max(0, deadline - loop.now()) or nil end
  local function patience() return deadline and math.max(SHORTEST_ASK, left()) or nil end
  local values = {}
  local function pending() return any_pending(futures, values) end
  for _ = 1, RETRIES do
    loop.wait(function() return not pending() end, left(), "data that was lost and is computed again")
    local keys = missing_of(futures, values)
    if #keys == 0 then return values end
    if direct then
      from_workers(client, keys, values, patience())
      keys = missing_of(futures, values)
    end
    if #keys > 0 then through_scheduler(client, keys, values, patience()) end
    keys = missing_of(futures, values)
    if #keys > 0 then
      look_again(client, keys, patience())
      loop.poll(pending, math.min(left() or 0.2, 0.2))
    end
  end
  errors.raise("lost", "the result cannot be had from the cluster: its workers come and go too fast")
end

--- The value of one finished Future.
function M.one(client, future, timeout)
  client:check_open()
  local id = future:id()
  local values = fetch(client, { [id] = future }, client.direct, timeout)
  if values[id] then return value_of(values[id]) end
  local err = require("saturn.dask.future").error_of(future)
  if err then error(err, 0) end
  errors.raise("lost", ("the result of %s is lost"):format(tostring(future.key)))
end

-- ---- nested containers ------------------------------------------------------------------------------------------

local function collect(value, found, seen)
  local future = future_of(value)
  if future then
    local id = future:id()
    if id then
      if not found[id] then found[#found + 1] = future end
      found[id] = future
    end
  elseif type(value) == "table" and not seen[value] then
    seen[value] = true
    if is_call(value) then table.insert(found.calls, value) end
    if object_name(value) then return end
    for key, item in pairs(value) do
      collect(key, found, seen)
      collect(item, found, seen)
    end
  end
end

local DROPPED = {}

-- A copy with values in place of Futures and calls of actors. A list closes up over what was dropped.
local function rebuild(value, resolve, copies)
  local future = future_of(value)
  if future then return resolve(future) end
  if type(value) ~= "table" then return value end
  if is_call(value) then return resolve(value) end
  if object_name(value) then return value end
  if copies[value] then return copies[value] end
  local copy = setmetatable({}, getmetatable(value))
  copies[value] = copy
  local length, at = #value, 0
  for i = 1, length do
    local item = rebuild(value[i], resolve, copies)
    if item ~= DROPPED then
      at = at + 1
      if item == nil then item = core.null end
      rawset(copy, at, item)
    end
  end
  for key, item in pairs(value) do
    if not (math.type(key) == "integer" and key >= 1 and key <= length) then
      item = rebuild(item, resolve, copies)
      if item ~= DROPPED then rawset(copy, key, item == nil and core.null or item) end
    end
  end
  return copy
end

local KNOWN = { errors = "string", direct = "boolean", timeout = "number" }

local function check_options(options)
  options = errors.options(options, KNOWN, 3)
  if options.errors and options.errors ~= "raise" and options.errors ~= "skip" then
    errors.misuse(3, "option 'errors' must be \"raise\" or \"skip\", not %q", options.errors)
  end
  return options
end

local function check_mine(client, futures)
  for _, future in ipairs(futures) do
    if not future:mine(client.session) then
      errors.misuse(3, "%s belongs to another client: gather it there", tostring(future))
    end
  end
end

local function wait_all(futures, timeout)
  loop.wait_all(futures, function(each) return each.status ~= "pending" end, timeout, "gathering")
end

-- What a call of an actor gave: its value, or what stands for it when it failed.
local function value_of_call(call, skip)
  if not call.err then return call.value end
  if skip then return DROPPED end
  error(call.err, 0)
end

--- The values of all Futures and of the calls of actors in `nested`.
function M.gather(client, nested, options)
  options = check_options(options)
  local skip = options.errors == "skip"
  local direct = options.direct
  if direct == nil then direct = client.direct end
  local deadline = options.timeout and loop.now() + options.timeout
  local function left() return deadline and math.max(0, deadline - loop.now()) or nil end
  local futures = { calls = {} }
  collect(nested, futures, {})
  check_mine(client, futures)
  wait_all(futures, options.timeout)
  loop.wait_all(futures.calls, function(each) return each:done() end, left(), "gathering calls of actors")
  local error_of = require("saturn.dask.future").error_of
  local good = {}
  for _, future in ipairs(futures) do
    local err = error_of(future)
    if err and not skip then error(err, 0) end
    if not err then good[future:id()] = future end
  end
  local values = fetch(client, good, direct, left())
  local decoded = {}
  local function resolve(future)
    if type(future) == "table" then return value_of_call(future, skip) end
    local id = future:id()
    if decoded[id] == nil then
      local serialized = values[id]
      if serialized then
        decoded[id] = { value_of(serialized) }
      elseif skip then
        decoded[id] = DROPPED
      else
        error(error_of(future) or errors.new("lost", ("the result of %s is lost"):format(tostring(future.key))), 0)
      end
    end
    if decoded[id] == DROPPED then return DROPPED end
    return decoded[id][1]
  end
  local result = rebuild(nested, resolve, {})
  if result == DROPPED then return nil end
  return result
end

return M
