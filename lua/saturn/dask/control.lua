--- What a client does with tasks that are on their way: cancel, retry, let them run without a Future.

local delayed = require "saturn.graph.delayed"
local errors = require "saturn.error"
local future = require "saturn.dask.future"
local keys = require "saturn.graph.key"
local ops = require "saturn.dask.ops"

local M = {}

local function add(each, found, seen)
  local id = each:id()
  if id and not seen[id] then
    seen[id] = true
    found[#found + 1] = each
  end
end

local function collect(value, found, seen)
  if future.is_future(value) then return add(value, found, seen) end
  if type(value) ~= "table" or seen[value] then return end
  seen[value] = true
  local node = delayed.node(value)
  if node then
    if node.future then add(node.future, found, seen) end
    return
  end
  for i = 1, #value do collect(value[i], found, seen) end
  for key, item in next, value do
    if type(key) == "table" or type(key) == "userdata" then collect(key, found, seen) end
    if math.type(key) ~= "integer" then collect(item, found, seen) end
  end
end

--- The Futures in a value, in tables of any depth, each once; those that back delayed values too.
---@param nested any
---@return saturn.Future[]
function M.futures_of(_, nested)
  local found = {}
  collect(nested, found, {})
  return found
end

-- The Futures of this client in `nested`; anything else in it is a mistake of the caller's caller.
local function own_futures(client, nested, what)
  local found = M.futures_of(client, nested)
  if #found == 0 and (type(nested) ~= "table" or next(nested) ~= nil) and not future.is_future(nested) then
    errors.misuse(3, "%s needs a Future or a table of Futures, and there is none in the %s it was given", what,
      type(nested))
  end
  for _, each in ipairs(found) do
    if not each:mine(client.session) then
      errors.misuse(3, "%s belongs to another client: %s it there", tostring(each), what)
    end
  end
  return found
end

local function keys_of(futures)
  local list = {}
  for i, each in ipairs(futures) do list[i] = each.key end
  return list
end

local function reason_of(options)
  if options.reason and options.message then return ("%s: %s"):format(options.reason, options.message) end
  return options.reason or options.message
end

M.cancel_known = { force = "boolean", reason = "string", message = "string" }

--- Cancels tasks: their Futures are cancelled at once, and so is what depends on them. A task that another client wants
--- too goes on for that one, unless `force` is given. Code that runs on a worker already is not interrupted.
---@param futures any a Future, or tables of them at any depth
---@param options table? force; reason and message, which those who wait are told (by schedulers from 2025.3 on)
function M.cancel(client, futures, options)
  options = errors.options(options, M.cancel_known)
  client:check_open()
  local found = own_futures(client, futures, "cancel")
  if #found == 0 then return end
  for _, each in ipairs(found) do each:mark("cancelled", reason_of(options)) end
  ops.cancel(client, keys_of(found), options.force or false, options.reason, options.message)
  -- What the scheduler has to say of these keys is in when this returns, so that they may be submitted anew.
  client:settle(client.request_timeout)
end

-- Asks for the state of keys anew.
local function ask_again(client, futures)
  for _, each in ipairs(futures) do client:send { op = "report-key", key = each.key } end
end

--- Runs failed tasks again, and the failed tasks that they depend on.
---@param futures any a Future, or tables of them at any depth
function M.retry(client, futures)
  client:check_open()
  local found = own_futures(client, futures, "retry")
  -- What the scheduler has still to say of the failure must not be taken for that of the next try.
  client:settle(client.request_timeout)
  local failed = {}
  for _, each in ipairs(found) do
    if each.status == "error" then failed[#failed + 1] = each end
  end
  if #failed == 0 then return end
  -- Pending at once: the scheduler's word for it comes on another connection than the reply, perhaps later.
  for _, each in ipairs(failed) do each:mark("pending") end
  local ok, reply = pcall(client.scheduler.call, client.scheduler, "retry",
    { keys = keys_of(failed), client = client.id }, client.request_timeout)
  if not ok then
    pcall(ask_again, client, failed)
    error(reply, 0)
  end
  local retried = {}
  for _, key in ipairs(reply) do retried[keys.future_id(key)] = true end
  for _, each in ipairs(failed) do
    if not retried[each:id()] then ask_again(client, { each }) end
  end
end

-- What stands for those who forgot, at the scheduler.
local NOBODY = "fire-and-forget"

-- The scheduler drops the wish when the task ends. One that comes after the end would hold the result for ever, so it
-- is taken back when the end is known here.
local function forget(client, key)
  client:send { op = "client-desires-keys", keys = { key }, client = NOBODY }
  local held = client.session:future(key, client)
  held:on_done(function()
    held:release()
    pcall(client.send, client, { op = "client-releases-keys", keys = { key }, client = NOBODY })
  end)
end

--- Lets tasks run to their end without anybody holding their Futures. What they return is dropped.
---@param futures any a Future, or tables of them at any depth; those that back delayed values too
function M.fire_and_forget(futures)
  local found = M.futures_of(nil, futures)
  if #found == 0 and (type(futures) ~= "table" or next(futures) ~= nil) then
    errors.misuse(2, "fire_and_forget needs a Future or a table of Futures, not a %s", type(futures))
  end
  for _, each in ipairs(found) do
    if not each:done() then forget(each.client, each.key) end
  end
end

return M
