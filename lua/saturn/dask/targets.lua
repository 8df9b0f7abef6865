--- What a call is about: workers by address or name, keys by Future or name. Shared by the calls that look into the
-- cluster and those that operate it.

local errors = require "saturn.error"
local future = require "saturn.dask.future"
local ops = require "saturn.dask.ops"

local M = {}

--- A request to the scheduler; waits at most `timeout` seconds (default: the client's).
---@param client saturn.Client
---@param op string
---@param args table?
---@param timeout number?
---@param keep_nil boolean? None as saturn.null, and dictionaries as py.dict
function M.ask(client, op, args, timeout, keep_nil)
  client:check_open()
  return client.scheduler:call(op, args, timeout or client.request_timeout, keep_nil)
end

local function is_address(text)
  return text:find("^%a[%w+]*://") ~= nil
end

local function by_name(client, timeout)
  local names = {}
  for address, worker in pairs(M.ask(client, "identity", ops.identity(client.release, -1), timeout).workers) do
    names[tostring(worker.name)] = address
  end
  return names
end

local function resolve(client, list, timeout)
  local names
  local addresses = {}
  for i, each in ipairs(list) do
    local text = tostring(each)
    if not is_address(text) then
      names = names or by_name(client, timeout)
      if not names[text] then
        errors.raise("value", ("the cluster has no worker named '%s': give a name or an address that "
          .. "client:scheduler_info().workers has"):format(text))
      end
      text = names[text]
    end
    addresses[i] = text
  end
  return addresses
end

-- Options in the place of the workers would be an empty list, and the call would do nothing.
local function check_workers(workers, level)
  for i, each in pairs(workers) do
    if math.type(i) ~= "integer" then
      errors.misuse(level + 1, "workers are a list of addresses or names, and '%s' is no place in one: options stand "
        .. "in a table of their own behind it", tostring(i))
    end
    if type(each) ~= "string" and math.type(each) ~= "integer" then
      errors.misuse(level + 1, "a worker is named by its address or its name, but number %d is a %s", i, type(each))
    end
  end
end

--- Addresses of the workers that are meant: those given, else those of the view (`client:with{workers=}`), else nil
--- for all.
---@param client saturn.Client
---@param workers string|integer|table? addresses or names
---@param timeout number?
---@param level integer? 2: misuse is the error of the caller of the function that calls this
---@return string[]?
function M.workers(client, workers, timeout, level)
  local with = rawget(client, "_with")
  if workers == nil and with then workers = with.workers end
  if workers == nil then return nil end
  if type(workers) ~= "table" then workers = { workers } end
  check_workers(workers, (level or 2) + 1)
  client:check_open()
  return resolve(client, workers, timeout)
end

--- Keys of one Future or key, or of a list of them; nil stays nil.
---@param what any
---@param level integer?
---@return table?
function M.keys(what, level)
  if what == nil then return nil end
  if future.is_future(what) or type(what) == "string" then what = { what } end
  if type(what) ~= "table" then
    errors.misuse((level or 2) + 1, "expected Futures or keys, not a %s", type(what))
  end
  local keys = {}
  for i, each in ipairs(what) do
    if future.is_future(each) then each = each.key end
    if each == nil then errors.misuse((level or 2) + 1, "Future number %d was released", i) end
    keys[i] = each
  end
  return keys
end

return M
