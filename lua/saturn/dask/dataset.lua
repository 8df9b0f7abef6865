--- Datasets: Futures, alone or in tables, under a name on the scheduler. They stay when the client that published them
--- leaves, until they are unpublished.

local coordination = require "saturn.dask.coordination"
local core = require "saturn.core"
local errors = require "saturn.error"
local ops = require "saturn.dask.ops"
local value = require "saturn.dask.value"

local M = {}

local function check_name(name)
  if type(name) ~= "string" then errors.misuse(3, "a dataset is named by a string, not a %s", type(name)) end
end

local function keys_of(client, futures)
  local keys = {}
  for i, each in ipairs(futures) do
    if not each:mine(client.session) then
      errors.misuse(3, "%s belongs to another client: publish it there", tostring(each))
    end
    keys[i] = each.key
  end
  return keys
end

-- The keys that only the dataset before held.
local function left_over(old, keys)
  local kept, left = {}, {}
  for _, key in ipairs(keys) do kept[core.wire.encode(key)] = true end
  for _, key in ipairs(old) do
    if not kept[core.wire.encode(key)] then left[#left + 1] = key end
  end
  return left
end

-- Until 2026.6 the scheduler goes on holding what an override replaced, under the name of the dataset.
local function release_old(client, name, old, keys)
  local left = old and left_over(old.keys, keys) or {}
  if #left > 0 then client:send { op = "client-releases-keys", keys = left, client = "published-" .. name } end
end

local function is_key_error(err)
  return errors.is_error(err) and err.type == "KeyError"
end

--- Publishes Futures under a name, for all clients, Python's too.
---@param client saturn.Client
---@param name string
---@param data any a Future, or tables with Futures in them; other data may stand among them
---@param options table? override (false): replace the dataset of this name
function M.publish(client, name, data, options)
  check_name(name)
  options = errors.options(options, { override = "boolean" })
  client = coordination.client(client)
  client:check_open()
  if data == nil then errors.misuse(2, "publish needs a Future or a table with Futures, got nil") end
  local keys = keys_of(client, value.futures_in(data))
  local override = options.override or false
  local leaks = override and not ops.publish_frees(client.release)
  local old = leaks and ops.publish_get(client, name, client.request_timeout)
  local ok, err = pcall(ops.publish_put, client, name, keys, value.serialize(client, data), override,
    client.request_timeout)
  if ok then return release_old(client, name, old, keys) end
  if not is_key_error(err) then error(err, 0) end
  errors.raise("value", ("the dataset '%s' exists already: unpublish it first, or give {override=true}"):format(name),
    { type = "KeyError" })
end

--- The names of all datasets.
---@param client saturn.Client
---@return string[]
function M.datasets(client)
  return coordination.ask(coordination.client(client), "publish_list", {})
end

--- What was published under a name, by whomever, with Futures of this client in it.
---@param client saturn.Client
---@param name string
---@param ... any what to return when there is none; without it that is an error
---@return any data Python collections come as inert objects: their Futures are in the second result
---@return saturn.Future[] futures all that the dataset holds
function M.dataset(client, name, ...)
  check_name(name)
  client = coordination.client(client)
  client:check_open()
  local record = ops.publish_get(client, name, client.request_timeout)
  if not record then
    if select("#", ...) > 0 then return (...), {} end
    errors.raise("value", ("there is no dataset '%s': client:datasets() has the names of all"):format(name),
      { type = "KeyError" })
  end
  local data, futures = value.decode(client, record.data, record.keys)
  if #futures > 0 then
    -- Had it been unpublished meanwhile, nobody would tell of its keys; and once it is, they are held here already.
    for _, each in ipairs(futures) do client:send { op = "report-key", key = each.key } end
    client:settle(client.request_timeout)
  end
  return data, futures
end

--- Takes a dataset away: what nobody else wants is released. Does nothing when there is none.
---@param client saturn.Client
---@param name string
function M.unpublish(client, name)
  check_name(name)
  client = coordination.client(client)
  client:check_open()
  local ok, err = pcall(ops.publish_delete, client, name, client.request_timeout)
  if not ok and not is_key_error(err) then error(err, 0) end
end

return M
