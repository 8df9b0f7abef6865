--- Data from here to the cluster: through the scheduler, or straight to the workers.

local core = require "saturn.core"
local delayed = require "saturn.graph.delayed"
local errors = require "saturn.error"
local gather = require "saturn.dask.gather"
local keys = require "saturn.graph.key"
local loop = require "saturn.loop"
local ops = require "saturn.dask.ops"
local py = require "saturn.py"
local scattered = require "saturn.dask.scattered"

local wire = core.wire

local M = {}

-- ---- values as the wire has them -----------------------------------------------------------------------------------

local function class_pickle(name)
  return wire.bin(core.pickle.dumps(py.ref(name)))
end

local class_of = setmetatable({}, {
  __index = function(self, name)
    local pickle = class_pickle(name)
    rawset(self, name, pickle)
    return pickle
  end,
})

local function as_bytes(text)
  return wire.serialized({
    serializer = "dask", type = "bytes", ["type-serialized"] = class_of["builtins.bytes"], ["sub-header"] = wire.map {},
  }, { text })
end

-- An array is one frame: its own memory, which is sent from where it is.
local function as_array(array)
  if not array.contiguous then array = array:copy() end
  return wire.serialized({
    serializer = "dask", type = "numpy.ndarray", ["type-serialized"] = class_of["numpy.ndarray"],
    ["sub-header"] = wire.map { dtype = { 0, array.dtype }, shape = array.shape, strides = array.strides,
      writeable = { true } },
  }, { array })
end

-- The arrays in a value go from where they are, too.
local function as_pickle(value)
  local pickle, buffers = errors.check(core.pickle.dumps(value, { buffers = true }))
  local writeable, frames = {}, { pickle }
  for i, buffer in ipairs(buffers) do writeable[i], frames[i + 1] = true, buffer end
  return wire.serialized({ serializer = "pickle", writeable = writeable }, frames)
end

local function is_array(value)
  return type(value) == "userdata" and core.array.is(value)
end

-- The name of its Python type, for the key, and the value as a message carries it.
local function convert(value)
  if type(value) == "string" then
    if core.pickle.is_utf8(value) then return "str", as_pickle(value) end
    return "bytes", as_bytes(value)
  end
  local kind = py.kind(value)
  if kind == "bytes" then return "bytes", as_bytes(value.value) end
  if kind then return kind, as_pickle(value) end
  if type(value) == "table" then return #value > 0 and "list" or "dict", as_pickle(value) end
  if type(value) == "number" then return math.type(value) == "integer" and "int" or "float", as_pickle(value) end
  if is_array(value) then
    if value.fields or value.dtype == "|O" or value.size == 0 then return "ndarray", as_pickle(value) end
    return "ndarray", as_array(value)
  end
  return type(value) == "boolean" and "bool" or "object", as_pickle(value)
end

-- ---- the two ways --------------------------------------------------------------------------------------------------

---@class saturn.Scatter
---@field client saturn.Client
---@field data table<any, any> serialized values by key
---@field keys any[]
---@field futures table<any, saturn.Future> those that are there before the data goes
---@field names table<any, any> what a key is or should have been, of those that may come again
---@field fixed boolean? the keys are the caller's
---@field workers (string|integer)[]?
---@field broadcast boolean|integer|nil
---@field patience number seconds until a worker must be there
---@field deadline number?

local function left(job)
  return job.deadline and math.max(0, job.deadline - loop.now())
end

local function through_scheduler(job)
  job.client.scheduler:call("scatter", {
    data = wire.map(job.data), workers = job.workers or core.null, client = job.client.id,
    broadcast = job.broadcast or false, timeout = job.patience,
  }, job.deadline and left(job) + 1)
end

local FIRST_LOOK, LONGEST_LOOK = 0.02, 0.5

-- The addresses of workers that run, in an order that does not depend on the run.
local function running_workers(job)
  local stop, pause = loop.now() + job.patience, FIRST_LOOK
  while true do
    local list = {}
    local running = job.client.scheduler:call("ncores_running", { workers = job.workers }, left(job))
    for address in pairs(running) do list[#list + 1] = address end
    table.sort(list)
    if #list > 0 then return list end
    if loop.now() >= stop then
      errors.raise("timeout", ("scatter: no worker to hold the data within %g seconds"):format(job.patience))
    end
    loop.sleep(pause)
    pause = math.min(pause * 1.5, LONGEST_LOOK)
  end
end

local function to_workers(job)
  local client, addresses = job.client, running_workers(job)
  local share, who_has, nbytes = {}, {}, {}
  for i, key in ipairs(job.keys) do
    local address = addresses[(i - 1) % #addresses + 1]
    share[address] = share[address] or {}
    share[address][key] = job.data[key]
    who_has[key] = { address }
  end
  local calls = {}
  for address, data in pairs(share) do
    calls[#calls + 1] = gather.worker_of(client, address):start("update_data", ops.update_data(client.release, data))
  end
  for _, call in ipairs(calls) do
    for key, size in pairs(call:wait(left(job)).nbytes) do nbytes[key] = size end
  end
  client.scheduler:call("update_data", { who_has = wire.map(who_has), nbytes = wire.map(nbytes), client = client.id },
    left(job))
  if job.broadcast then
    client.scheduler:call("replicate", { keys = job.keys, workers = job.workers,
      n = job.broadcast ~= true and job.broadcast or nil }, left(job))
  end
end

-- Workers may advertise addresses that cannot be reached from here.
local function send(job, direct)
  if not direct then return through_scheduler(job) end
  local ok, err = pcall(to_workers, job)
  if ok then return end
  if not errors.is_error(err) or err.kind ~= "connect" then error(err, 0) end
  through_scheduler(job)
end

-- ---- keys and Futures ----------------------------------------------------------------------------------------------

local function any_pending(futures)
  for _, each in pairs(futures) do
    if each.status == "pending" then return true end
  end
  return false
end

local function release_all(futures)
  for _, each in pairs(futures) do each:release() end
end

-- Sends what is not there yet; gives a Future for each key.
local function deliver(job, direct)
  local client, futures, again = job.client, {}, false
  local missing = {}
  for _, key in ipairs(job.keys) do
    if not futures[key] then
      local name, each = job.names[key], job.futures[key] or client.session:future(key, client, true)
      local there = each.status == "finished" and not job.workers and not job.broadcast
      if not there then missing[#missing + 1] = key end
      again = again or job.fixed and each.status == "pending" and scattered.was_let_go(client, name)
      if name then scattered.note(client, name, key, each) end
      futures[key] = each
    end
  end
  if #missing == 0 then return futures end
  job.keys = missing
  local data = {}
  for _, key in ipairs(missing) do data[key] = job.data[key] end
  job.data = data
  local ok, err = pcall(function()
    -- A key that was let go and is sent again: the request must not overtake what the stream says of the first.
    if again then client:settle(left(job)) end
    send(job, direct)
    loop.wait(function() return not any_pending(futures) end, left(job), "scatter")
    for _, each in pairs(futures) do each:hold() end
    client.session:flush()
    -- Unlike a task's result it cannot be computed again: it is there for the next connection before this one may go.
    if client.held_name then client:settle(left(job)) end
  end)
  if not ok then
    release_all(futures)
    error(err, 0)
  end
  return futures
end

local KNOWN = { broadcast = "boolean|integer", workers = "string|integer|table", hash = "boolean", direct = "boolean",
  timeout = "number" }

local function check_options(options)
  options = errors.options(options, KNOWN, 4)
  if math.type(options.broadcast) and options.broadcast < 1 then
    errors.misuse(4, "option 'broadcast' is true for all workers, or how many are to hold the data, from 1 on")
  end
  return options
end

local function new_job(client, options)
  return {
    client = rawget(client, "_client") or client,
    data = {}, keys = {}, names = {}, futures = {},
    workers = options.workers ~= nil and type(options.workers) ~= "table" and { options.workers } or options.workers,
    broadcast = options.broadcast or nil,
    patience = options.timeout or client.request_timeout,
    deadline = options.timeout and loop.now() + options.timeout,
  }
end

local function refuse_future(value)
  if gather.future_of(value) then errors.misuse(4, "%s is on the cluster already", tostring(value)) end
  if delayed.is_delayed(value) then
    errors.misuse(4, "%s has no value yet: client:persist computes it on the cluster", tostring(value))
  end
end

-- The key that equal values have in common; nil for a value that holds itself.
local function content_key(value, kind)
  local ok, key = pcall(keys.content, kind, { name = "scatter" }, { value }, 1)
  if ok then return key end
  if errors.is_error(key) and key.kind == "limit" then return nil end
  error(key, 0)
end

local function is_direct(client, options)
  if options.direct == nil then return client.direct end
  return options.direct
end

local function scatter_list(client, values, count, options)
  options = check_options(options)
  client:check_open()
  local job, order, chosen = new_job(client, options), {}, {}
  for i = 1, count do
    local value = values[i]
    refuse_future(value)
    local kind, serialized = convert(value)
    local name = options.hash ~= false and content_key(value, kind) or nil
    if name and not chosen[name] then
      local future = scattered.future(job.client, name, kind)
      local key = future.key
      chosen[name], job.names[key], job.futures[key] = key, name, future
    end
    local key = name and chosen[name] or client:new_key(kind)
    job.keys[i], order[i], job.data[key] = key, key, serialized
  end
  if count == 0 then return {} end
  local futures, list = deliver(job, is_direct(client, options)), {}
  for i, key in ipairs(order) do list[i] = futures[key] end
  return list
end

--- Sends a value to the cluster, where tasks find it without its being sent again with each of them.
---@param value any a table goes as a whole: scatter_list and scatter_dict send the elements one by one
---@param options table? broadcast: true for a copy on every worker, or how many copies; workers: names or addresses
--- that may hold it; hash: equal values are one key (the default), false: a new key; direct: straight to the workers;
--- timeout: seconds for a worker to be there and the data to arrive (without one the client's for the former)
---@return saturn.Future
function M.scatter(client, value, options)
  local list = scatter_list(client, { value }, 1, options)
  return list[1]
end

--- Sends each element of a list by itself.
---@param values any[]
---@param options table? as for scatter
---@return saturn.Future[]
function M.scatter_list(client, values, options)
  if type(values) ~= "table" then errors.misuse(2, "scatter_list needs a list of values, not a %s", type(values)) end
  if #values == 0 and next(values) ~= nil then
    errors.misuse(2, "scatter_list needs a list of values: scatter_dict sends a table by its keys")
  end
  local list = scatter_list(client, values, #values, options)
  return list
end

--- Sends each element of a table by itself, under the key that it has in the table, as Python's scatter of a dict does.
---@param values table<string, any>
---@param options table? as for scatter, but for hash
---@return table<string, saturn.Future>
function M.scatter_dict(client, values, options)
  if type(values) ~= "table" then
    errors.misuse(2, "scatter_dict needs a table of values by key, not a %s", type(values))
  end
  options = errors.options(options, KNOWN)
  client:check_open()
  local job, names = new_job(client, options), {}
  job.fixed = true
  for name, value in pairs(values) do
    refuse_future(value)
    keys.check(name, 2)
    local key = ops.key(client.release, name)
    local _, serialized = convert(value)
    job.keys[#job.keys + 1], job.data[key], names[key], job.names[key] = key, serialized, name, keys.id(key)
  end
  if #job.keys == 0 then return {} end
  local by_name = {}
  for key, each in pairs(deliver(job, is_direct(client, options))) do by_name[names[key]] = each end
  return by_name
end

return M
