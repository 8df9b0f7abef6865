--- Requests to one Dask server (the scheduler, a worker): a call waits for its reply and turns an error reply into
--- an error object.

local core = require "saturn.core"
local errors = require "saturn.error"
local loop = require "saturn.loop"
local shapes = require "saturn.dask.shapes"

---@class saturn.Server
---@field address string
---@field recover (fun(op: string, err: any, timeout: number?, tries: integer): boolean)? if a call that failed is to
--- be made again
local Server = {}
Server.__index = Server
Server.__name = "saturn.server"

local M = {}

--- A pool of connections to the server at `endpoint.address`; connects with the first call.
---@param endpoint table address, ca, cert, key, verify_host, server_name, proxy, timeout, limits
---@return saturn.Server
function M.new(endpoint)
  return setmetatable({
    address = endpoint.address,
    endpoint = endpoint,
    rpc = errors.check(core.rpc.new(loop.reactor(), endpoint)),
  }, Server)
end

-- A handler that raised answers with its exception as text; Python's own words say best what was wrong.
local function raise_remote(op, reply)
  local text = reply.exception_text or reply.text
  if type(text) ~= "string" then text = "the request failed" end
  local name, rest = text:match("^([%w_.]+)%((.*)%)$")
  local message = rest and rest:match("^'(.*)'$") or rest and rest:match('^"(.*)"$') or rest
  local traceback = type(reply.traceback_text) == "string" and reply.traceback_text or nil
  local kind = name == "TimeoutError" and "timeout" or "task"
  errors.raise(kind, ("%s: %s"):format(op, message and message ~= "" and name .. ": " .. message or text),
    { type = name, traceback = traceback })
end

---@class saturn.PendingCall
local Call = {}
Call.__index = Call

--- Starts a request without waiting for it.
---@param op string
---@param args table? the request's fields
---@param ack boolean? confirm the reply, as a worker's get_data wants it
---@return saturn.PendingCall
function Server:start(op, args, ack)
  local request = { op = op, reply = true }
  for name, value in pairs(args or {}) do request[name] = value end
  local call = errors.check(self.rpc:call(request, ack))
  loop.started()
  return setmetatable({ op = op, server = self, call = call }, Call)
end

function Call:done()
  return self.call:done()
end

--- The reply; raises when the request failed.
---@param keep_nil boolean? None inside tables as saturn.null, and dictionaries as py.dict
function Call:reply(keep_nil)
  local reply = errors.check(self.call:reply(keep_nil))
  self.call:close()
  if type(reply) == "table" and reply.status == "uncaught-error" then raise_remote(self.op, reply) end
  shapes.check(self.op, reply)
  return reply
end

--- Waits for the reply. After a timeout the connection is dropped: its late reply would be taken for the next one.
---@param timeout number?
---@param keep_nil boolean?
function Call:wait(timeout, keep_nil)
  local call = self.call
  local done = loop.poll(function() return call:done() end, timeout)
  if not done then
    call:close()
    errors.raise("timeout", ("%s: no answer from %s within %g seconds"):format(self.op, self.server.address, timeout))
  end
  return self:reply(keep_nil)
end

--- Gives the request up.
function Call:close()
  self.call:close()
end

--- Sends a request and waits for its reply.
---@param op string
---@param args table?
---@param timeout number?
---@param keep_nil boolean?
function Server:call(op, args, timeout, keep_nil)
  if not self.recover then return self:start(op, args):wait(timeout, keep_nil) end
  local deadline, tries = timeout and loop.now() + timeout, 0
  local function left() return deadline and math.max(0, deadline - loop.now()) end
  while true do
    local ok, reply = pcall(function() return self:start(op, args):wait(left(), keep_nil) end)
    if ok then return reply end
    tries = tries + 1
    if not self.recover(op, reply, left(), tries) then error(reply, 0) end
  end
end

--- Drops all connections: requests under way end with this reason, later ones connect anew.
---@param reason string
function Server:renew(reason)
  self.rpc:close(reason)
  self.rpc = errors.check(core.rpc.new(loop.reactor(), self.endpoint))
end

function Server:close()
  self.rpc:close()
end

Server.__close = Server.close

M.raise_remote = raise_remote

return M
