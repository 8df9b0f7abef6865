--- Calling Python functions on workers, nannies and the scheduler, past the scheduling of tasks.

local core = require "saturn.core"
local errors = require "saturn.error"
local failure = require "saturn.dask.failure"
local node = require "saturn.dask.node"
local py = require "saturn.py"
local targets = require "saturn.dask.targets"

local wire = core.wire

local M = {}

local function dumps(value)
  return wire.bin(errors.check(core.pickle.dumps(value)))
end

local function tuple_of(args, count)
  local items = {}
  for i = 1, count do
    local value = args[i]
    if value == nil then value = core.null end
    items[i] = value
  end
  return py.tuple(items)
end

local function dict_of(kwargs)
  local items = {}
  for name, value in pairs(kwargs or {}) do items[name] = value end
  return py.dict(items)
end

-- The fields of a request that calls `fn(...)` there.
local function call_of(fn, ...)
  node.callable(fn, 3)
  local args, count, kwargs = node.arguments(table.pack(...))
  return {
    ["function"] = dumps(py.callable(fn)),
    args = dumps(tuple_of(args, count)),
    kwargs = dumps(dict_of(kwargs)),
    wait = true,
  }
end

-- What one server answered: true and the value, or false and an error object.
local function outcome(reply)
  if type(reply) ~= "table" then return false, failure.of_reply(reply) end
  if reply.status ~= "OK" then return false, failure.of_reply(reply.exception, reply.traceback) end
  local result = reply.result
  if type(result) ~= "userdata" then return true, result end
  local value, kind, message = result:value()
  if value == nil and kind then return false, errors.new(kind, message) end
  return true, value
end

local ON_ERROR = { raise = true, ["return"] = true, ignore = true }

local function check_on_error(with)
  local on_error = with.on_error or "raise"
  if not ON_ERROR[on_error] then
    errors.misuse(3, "option 'on_error' must be \"raise\", \"return\" or \"ignore\", not %q", on_error)
  end
  return on_error
end

--- Calls a Python function on all workers at once, or on those of `client:with{workers=}`, in their main thread and
--- outside of the scheduling of tasks. A function with a parameter `dask_worker` is given the worker itself.
---
--- More options of the view: `nanny` (true: on the nannies of these workers), `on_error` ("raise": the first error is
--- raised; "return": it stands in the place of the value; "ignore": the worker is left out), `timeout` (seconds; no
--- limit when nil).
---@param fn any "package.module.name", saturn.py.ref(...) or saturn.py.fn[[...]]
---@param ... any arguments; saturn.py.kw{...} last for keyword arguments
---@return table<string, any> values by the worker's address; None is saturn.null
function M.run(client, fn, ...)
  local with = rawget(client, "_with") or {}
  local on_error = check_on_error(with)
  local message = call_of(fn, ...)
  message.op = "run"
  client:check_open()
  local replies = client.scheduler:call("broadcast", {
    msg = message, workers = targets.workers(client, nil, with.timeout), nanny = with.nanny or false,
    on_error = "return_pickle",
  }, with.timeout)
  local results = {}
  for address, reply in pairs(replies) do
    local ok, value = outcome(reply)
    if not ok and on_error == "raise" then
      value.worker = address
      error(value, 0)
    end
    if ok and value == nil then value = core.null end
    if ok or on_error == "return" then results[address] = value end
  end
  return results
end

--- Calls a Python function in the scheduler's process. A function with a parameter `dask_scheduler` is given the
--- scheduler itself. `client:with{timeout=}` bounds it.
---@param fn any "package.module.name", saturn.py.ref(...) or saturn.py.fn[[...]]
---@param ... any arguments; saturn.py.kw{...} last for keyword arguments
---@return any value
function M.run_on_scheduler(client, fn, ...)
  local with = rawget(client, "_with") or {}
  local args = call_of(fn, ...)
  client:check_open()
  local ok, value = outcome(client.scheduler:call("run_function", args, with.timeout))
  if not ok then error(value, 0) end
  return value
end

return M
