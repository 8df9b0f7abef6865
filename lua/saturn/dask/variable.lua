--- Variables: a name on the scheduler that holds one value or one Future, for every client of it.

local coordination = require "saturn.dask.coordination"
local ops = require "saturn.dask.ops"
local value = require "saturn.dask.value"

---@class saturn.Variable
---@field name string
---@field client saturn.Client
local Variable = {}
Variable.__index = Variable
Variable.__name = "saturn.variable"

local M = {}

local function label(self)
  return ("the variable '%s'"):format(self.name)
end

--- Gives the variable a value and wakes those who wait for one. A Future in it stays alive on the cluster until the
--- variable gets another value or is deleted. Returns when the scheduler has it.
---@param what any a Future, or a value without Futures
---@param timeout number? seconds (default: the client's)
function Variable:set(what, timeout)
  timeout = coordination.timeout(timeout, 2) or self.client.request_timeout
  local client = self.client
  client:check_open()
  local args = value.record(client, what, label(self), 2)
  args.name = self.name
  client.scheduler:call("variable_set", ops.variable_set(client.release, args, timeout), timeout)
end

-- Until the scheduler hears that the Future arrived, it holds it, and the variable cannot let it go.
local function confirm(self, record)
  self.client:send {
    op = ops.variable_received(self.client.release), name = self.name, key = record.value, token = record.token,
  }
end

--- The variable's value; waits until it has one.
---@param timeout number? seconds (default: no limit)
---@return any value a Future when a Future was set
function Variable:get(timeout)
  timeout = coordination.timeout(timeout, 2)
  local client = self.client
  local record = coordination.wait_for(client, "variable_get", { name = self.name, client = client.id }, timeout,
    label(self) .. " was not set", true)
  local got, err = value.from_record(client, record, label(self))
  if record.type == "Future" then confirm(self, record) end
  if err then error(err, 0) end
  return got
end

--- Takes the variable away, for all clients. Returns when the scheduler has done it: it is told on the stream, and
--- `set`, a request of its own, could overtake that.
function Variable:delete()
  self.client:send { op = "variable_delete", name = self.name }
  self.client:settle(self.client.request_timeout)
end

-- Nothing is held here: the variable stays on the scheduler until it is deleted.
function Variable:close() end

Variable.__close = Variable.close

function Variable:__tostring()
  return ("<saturn.variable: %s>"):format(self.name)
end

--- A variable of the cluster.
---@param client saturn.Client
---@param name string? known to all clients; without one it is made up
---@return saturn.Variable
function M.variable(client, name)
  name = coordination.name(name, "variable", 2)
  return setmetatable({ name = name, client = coordination.client(client) }, Variable)
end

return M
