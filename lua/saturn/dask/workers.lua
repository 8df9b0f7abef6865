--- Operating the workers: restarting and retiring them, placing their data, ending the cluster.

local errors = require "saturn.error"
local failure = require "saturn.dask.failure"
local future = require "saturn.dask.future"
local loop = require "saturn.loop"
local ops = require "saturn.dask.ops"
local targets = require "saturn.dask.targets"

local ask = targets.ask

local M = {}

-- The scheduler says that time is up before the client would.
local GRACE = 5

-- ---- restarting and retiring ------------------------------------------------------------------------------------

--- Forgets all tasks of all clients and starts all workers anew. Futures are cancelled. Workers without a nanny end.
---@param options table? wait_for_workers (true: until as many are back), timeout (seconds for the workers to end and
--- come back; four times the client's)
function M.restart(client, options)
  options = errors.options(options, { wait_for_workers = "boolean", timeout = "number" })
  local timeout = options.timeout or 4 * client.request_timeout
  ask(client, "restart", ops.restart(client, timeout, options.wait_for_workers ~= false), timeout + GRACE)
end

local function check_nannies(client, addresses, timeout)
  local known = ask(client, "identity", ops.identity(client.release, -1), timeout).workers
  for _, address in ipairs(addresses) do
    local worker = known[address]
    if not worker then errors.raise("value", ("the cluster has no worker %s"):format(address)) end
    if not worker.nanny then
      errors.raise("value", ("%s cannot be restarted: it runs without a nanny, which would start it again"
        ):format(address))
    end
  end
end

local function check_restarted(results)
  local late = {}
  for address, state in pairs(results) do
    if type(state) == "table" then error(failure.of_reply(state.exception, state.traceback), 0) end
    if state == "timed out" then late[#late + 1] = address end
  end
  if #late > 0 then
    table.sort(late)
    errors.raise("timeout", ("workers that did not restart in time: %s"):format(table.concat(late, ", ")))
  end
end

--- Starts some workers anew, each under its nanny. What they hold is lost and computed again when it is needed.
---@param workers string|table addresses or names
---@param options table? timeout (seconds; four times the client's), raise_for_error (true; false: the result says it)
---@return table<string, string> "OK", "timed out" or "removed" by address
function M.restart_workers(client, workers, options)
  options = errors.options(options, { timeout = "number", raise_for_error = "boolean" })
  local timeout = options.timeout or 4 * client.request_timeout
  local addresses = targets.workers(client, workers, timeout)
  if not addresses then errors.misuse(2, "restart_workers needs the workers, by address or name") end
  check_nannies(client, addresses, timeout)
  local results = ops.restart_workers(client, addresses, timeout, timeout + GRACE)
  if options.raise_for_error ~= false then check_restarted(results) end
  return results
end

--- Takes workers out of the cluster once what only they hold was copied to others. Without `workers` the scheduler
--- chooses: idle ones, or as `n`, `minimum`, `target` and `memory_ratio` say.
---@param workers string|table? addresses or names
---@param options table? close_workers (true: end their processes), remove (true: forget them at once), n (how many),
--- minimum (how many stay), target (how many are wanted), memory_ratio, timeout
---@return table<string, table> what is known of the retired, by address
function M.retire_workers(client, workers, options)
  options = errors.options(options, {
    close_workers = "boolean", remove = "boolean", n = "integer", minimum = "integer", target = "integer",
    memory_ratio = "number", timeout = "number",
  })
  local addresses = targets.workers(client, workers, options.timeout)
  local args = {
    workers = addresses, close_workers = options.close_workers ~= false, remove = options.remove ~= false,
  }
  if not addresses then
    args.n, args.minimum, args.target = options.n, options.minimum, options.target
    args.memory_ratio = options.memory_ratio
  end
  return ask(client, "retire_workers", args, options.timeout)
end

-- ---- data -------------------------------------------------------------------------------------------------------

local function wait_for(futures, timeout)
  if future.is_future(futures) then futures = { futures } end
  if type(futures) ~= "table" then return end
  for _, each in ipairs(futures) do
    if future.is_future(each) then
      loop.wait(function() return each:done() end, timeout, "the data that is to be copied")
    end
  end
end

--- Copies results to more workers. Waits for the Futures first.
---@param futures any Futures or keys, one or a list
---@param options table? n (how many copies; all workers when nil), workers (addresses or names), branching_factor (2),
--- timeout
function M.replicate(client, futures, options)
  options = errors.options(options, {
    n = "integer", workers = "string|table", branching_factor = "integer", timeout = "number",
  })
  local keys = targets.keys(futures)
  if not keys then errors.misuse(2, "replicate needs Futures or keys") end
  wait_for(futures, options.timeout)
  ask(client, "replicate", {
    keys = keys, n = options.n, branching_factor = options.branching_factor or 2,
    workers = targets.workers(client, options.workers, options.timeout),
  }, options.timeout)
end

--- Moves results between workers until their memory is about equally full. Waits for the Futures first.
---@param futures any? Futures or keys, one or a list; all results when nil
---@param options table? workers (addresses or names), timeout
function M.rebalance(client, futures, options)
  options = errors.options(options, { workers = "string|table", timeout = "number" })
  local keys = targets.keys(futures)
  wait_for(futures, options.timeout)
  local reply = ask(client, "rebalance", {
    keys = keys, workers = targets.workers(client, options.workers, options.timeout),
  }, options.timeout)
  if type(reply) == "table" and reply.status ~= "OK" then
    local missing = {}
    for i, key in ipairs(reply.keys or {}) do missing[i] = tostring(key) end
    errors.raise("lost", ("keys that could not be moved: %s"):format(table.concat(missing, ", ")))
  end
end

---@class saturn.ActiveMemoryManager
local Amm = {}
Amm.__index = Amm
Amm.__name = "saturn.amm"

function Amm:__tostring()
  return ("<saturn.amm: of %s>"):format(self.client.address)
end

local function amm_method(method)
  return function(self, timeout)
    return ask(self.client, "amm_handler", { method = method }, timeout)
  end
end

--- Begins to look after the data every now and then, as its policies say (copies that nobody needs are dropped).
---@param timeout number?
Amm.start = amm_method "start"

--- Ends it.
---@param timeout number?
Amm.stop = amm_method "stop"

--- Lets it look once, now.
---@param timeout number?
Amm.run_once = amm_method "run_once"

--- Whether it looks every now and then.
---@param timeout number?
---@return boolean
Amm.running = amm_method "running"

--- The scheduler's active memory manager, with `start`, `stop`, `run_once` and `running`.
---@return saturn.ActiveMemoryManager
function M.amm(client)
  client:check_open()
  return setmetatable({ client = rawget(client, "_client") or client }, Amm)
end

-- ---- the end ----------------------------------------------------------------------------------------------------

--- Ends the scheduler and its workers, and closes this client. Other clients lose their cluster too.
---@param timeout number? seconds to wait for the scheduler's end (the client's)
function M.shutdown(client, timeout)
  client = rawget(client, "_client") or client
  if client.closed then return end
  local call = client.scheduler:start("terminate")
  -- It may end before it answers.
  local ok, err = pcall(call.wait, call, timeout or client.request_timeout)
  client:close()
  if not ok and not (errors.is_error(err) and (err.kind == "closed" or err.kind == "connect")) then error(err, 0) end
end

return M
