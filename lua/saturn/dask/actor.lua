--- Actors: an object of a Python class that lives on one worker, whose methods are called from here.
--
-- Methods are called by name, `actor:call("increment", 1)`, and not as `actor:increment(1)`: so no method of the class
-- can be in the way of one of the actor, and a call that goes over the network looks like one.

local core = require "saturn.core"
local coordination = require "saturn.dask.coordination"
local endpoint = require "saturn.dask.endpoint"
local errors = require "saturn.error"
local failure = require "saturn.dask.failure"
local future = require "saturn.dask.future"
local loop = require "saturn.loop"
local node = require "saturn.dask.node"
local server = require "saturn.dask.server"
local value = require "saturn.dask.value"
local wire = core.wire

---@class saturn.Actor
---@field key string its task's key
---@field future saturn.Future of the object; finished once it is made
---@field address string? the worker it lives on, once known
---@field timeout number? seconds that `call` and `get` wait (nil: no limit)
---@field ordered boolean false: a call is sent without waiting for the one before, for methods that are coroutines
local Actor = {}
Actor.__name = "saturn.actor"
Actor.__index = Actor
Actor.__saturn_ref = true -- as an argument of a task it stands for the object

local M = {}

-- ---- calls ------------------------------------------------------------------------------------------------------

---@class saturn.ActorCall
---@field name string the method or attribute
local Call = {}
Call.__index = Call
Call.__name = "saturn.actor_call"

local function finish(call, result, err)
  if call.is_done then return end
  call.is_done, call.value, call.err = true, result, err
  if call.pending then call.pending:close() end
  call.pending, call.args = nil, nil
end

local function lost(self, why)
  return errors.new("lost", ("%s is gone: %s. What it held is lost; make a new one with client:actor"):format(
    tostring(self), why), { key = self.key })
end

local function fail_all(self, err)
  self.failed = err
  for _, list in ipairs { self.sent, self.waiting } do
    for i = #list, 1, -1 do
      finish(list[i], nil, err)
      list[i] = nil
    end
  end
end

-- ---- where it lives ---------------------------------------------------------------------------------------------

-- The scheduler makes an actor of a lost worker never again; other tasks it would.
local function check_alive(self)
  local status = self.future.status
  if status == "finished" then
    self.made = true
    return true
  end
  if status == "pending" and not self.made then return false end
  local err = not self.made and future.error_of(self.future)
    or lost(self, ("its worker%s died or left"):format(self.address and " " .. self.address or ""))
  fail_all(self, err)
  return false
end

local function ask(self)
  local scheduler = self.client.scheduler
  self.asked = self.asked or scheduler:start("who_has", { keys = { self.key } })
  if not self.asked:done() then return nil end
  local asked = self.asked
  self.asked = nil
  return asked:reply()
end

-- Runs where the loop tells of the network, so an error is one of the calls and not of whoever waits there.
local function find(self)
  if self.address then return true end
  local ok, who_has = pcall(ask, self)
  if not ok then
    fail_all(self, who_has)
  elseif who_has then
    local _, holders = next(who_has)
    self.address = holders and holders[1]
    if not self.address then fail_all(self, lost(self, "no worker has it")) end
  end
  return self.address ~= nil
end

local function worker(client, address)
  local found = client._workers[address]
  if not found then
    found = server.new(endpoint.to(client._endpoint, address))
    client._workers[address] = found
  end
  return found
end

local function send(self, call)
  local client = self.client
  call.direct = client.direct and not self.proxied
  if call.direct then
    call.pending = worker(client, self.address):start(call.op, call.args)
    return
  end
  local msg = { op = call.op }
  for name, arg in pairs(call.args) do msg[name] = arg end
  call.pending = client.scheduler:start("proxy", { worker = self.address, msg = msg })
end

-- ---- answers ----------------------------------------------------------------------------------------------------

local UNREACHABLE = { OSError = true, CommClosedError = true, ConnectionRefusedError = true, TimeoutError = true }

-- The scheduler passes on what the worker said as the text of an exception within an exception:
-- proxy: Exception: AttributeError("'Counter' object has no attribute 'nope'")
local function unwrap(err)
  local name, text = err.message:match("^proxy: Exception: ([%w_.]+)%((.*)%)$")
  if not name then name, text = err.type, err.message:gsub("^actor_%a+: [%w_.]+: ", "") end
  if not name then return err end
  text = text:gsub("\\(['\"])", "%1"):gsub("^(['\"])(.*)%1$", "%2")
  return errors.new(err.kind, ("%s: %s"):format(name, text), { type = name, key = err.key })
end

-- The error of a request that failed as a whole: the worker is out of reach, or has no such object or method.
local function request_error(self, err)
  if not errors.is_error(err) then return err end
  err = unwrap(err)
  if err.kind == "connect" or err.kind == "closed" or UNREACHABLE[err.type] then
    return lost(self, ("its worker %s cannot be reached (%s)"):format(self.address, err.message))
  end
  if err.type == "KeyError" then return lost(self, ("its worker %s does not have it any more"):format(self.address)) end
  return err
end

local function read(self, reply)
  if type(reply) ~= "table" then
    return nil, errors.new("protocol", ("%s: the worker gave no answer"):format(tostring(self)), { key = self.key })
  end
  if reply.status ~= "OK" then return nil, failure.of_reply(reply.exception, reply.traceback, self.key) end
  return (value.decode(self.client, reply.result))
end

-- A worker may be out of reach from here, and not from the scheduler.
local function send_by_scheduler(self, call, err)
  if not call.direct or not errors.is_error(err) or err.kind ~= "connect" then return false end
  self.proxied = true
  table.insert(self.waiting, 1, call)
  return true
end

local function collect(self, call)
  local got, reply = pcall(call.pending.reply, call.pending)
  if not got then
    if not send_by_scheduler(self, call, reply) then finish(call, nil, request_error(self, reply)) end
    return
  end
  local ok, result, err = pcall(read, self, reply)
  if not ok then result, err = nil, result end
  finish(call, result, err)
end

local function collect_all(self)
  local sent, left = self.sent, {}
  for _, call in ipairs(sent) do
    if not call.is_done and call.pending:done() then
      collect(self, call)
    elseif not call.is_done then
      left[#left + 1] = call
    end
  end
  self.sent = left
end

local function send_next(self)
  while #self.waiting > 0 and (#self.sent == 0 or not self.ordered) do
    local call = table.remove(self.waiting, 1)
    if not call.is_done then
      local ok, err = pcall(send, self, call)
      if ok then self.sent[#self.sent + 1] = call else finish(call, nil, err) end
    end
  end
end

-- Moves everything on as far as it goes without waiting.
local function advance(self)
  if self.failed or #self.sent + #self.waiting == 0 then return end
  if self.client.closed then return fail_all(self, errors.new("closed", "the client was closed")) end
  collect_all(self)
  if check_alive(self) and find(self) then send_next(self) end
end

--- Called by the loop after the network moved.
function Actor:on_round()
  advance(self)
end

local function start(self, name, op, args)
  if self.failed then error(self.failed, 0) end
  self.client:check_open()
  local call = setmetatable({ actor = self, name = name, op = op, args = args, is_done = false }, Call)
  table.insert(self.waiting, call)
  advance(self)
  return call
end

-- ---- the public face --------------------------------------------------------------------------------------------

--- Whether the call is over, well or not.
---@return boolean
function Call:done()
  advance(self.actor)
  return self.is_done
end

--- Waits for the call and gives what the method returned; raises what it raised ("task"), "lost" when the actor's
--- worker died, "timeout" when the time is over first: the call goes on then, and its result can be asked for again.
---@param timeout number? seconds (default: no limit)
---@return any
function Call:result(timeout)
  timeout = coordination.timeout(timeout, 2)
  loop.wait(function() return self:done() end, timeout, ("%s of %s"):format(self.name, tostring(self.actor)))
  if self.err then error(self.err, 0) end
  return self.value
end

-- The method runs on, and its place in the order with it: there is nothing to give up.
function Call:close() end

Call.__close = Call.close

function Call:__tostring()
  local state = not self.is_done and "pending" or self.err and "error" or "finished"
  return ("<saturn.actor_call: %s, %s>"):format(self.name, state)
end

local function check_name(name, what, level)
  if type(name) ~= "string" then
    errors.misuse(level + 1, "the first argument is the name of %s, not a %s", what, type(name))
  end
end

local function serialize_all(client, args, nargs, kwargs)
  local list, map = {}, {}
  for i = 1, nargs do list[i] = value.serialize(client, args[i]) end
  for name, each in next, kwargs or {} do map[name] = value.serialize(client, each) end
  return list, wire.map(map)
end

--- Calls a method and does not wait for it. Calls of one actor run in the order in which they were started.
---@param method string
---@param ... any arguments: values; saturn.py.kw{...} last for keyword arguments. A Future arrives as Python's Future,
--- not as its value, as it does when Python's client calls
---@return saturn.ActorCall call with `:result(timeout)` and `:done()`
function Actor:start(method, ...)
  check_name(method, "a method", 2)
  local args, nargs, kwargs = node.arguments(table.pack(...))
  local list, map = serialize_all(self.client, args, nargs, kwargs)
  return start(self, method, "actor_execute",
    { actor = self.key, ["function"] = method, args = list, kwargs = map })
end

--- Calls a method and waits for what it returns, at most `actor.timeout` seconds. For a limit of one call:
--- `actor:start(method, ...):result(timeout)`.
---@param method string
---@param ... any as for start
---@return any
function Actor:call(method, ...)
  check_name(method, "a method", 2)
  return self:start(method, ...):result(self.timeout)
end

--- Reads an attribute of the object, after the calls that were started before.
---@param attribute string
---@param timeout number? seconds (default: `actor.timeout`)
---@return any
function Actor:get(attribute, timeout)
  check_name(attribute, "an attribute", 2)
  timeout = coordination.timeout(timeout, 2) or self.timeout
  return start(self, attribute, "actor_attribute", { actor = self.key, attribute = attribute }):result(timeout)
end

--- Waits until the object is made; raises what its constructor raised.
---@param timeout number? seconds (default: no limit)
function Actor:wait(timeout)
  timeout = coordination.timeout(timeout, 2)
  if self.failed then error(self.failed, 0) end
  local err = self.future:exception(timeout)
  if err then error(err, 0) end
end

--- Lets the object go: when nobody else has a reference, it is deleted on its worker. Safe to call twice.
function Actor:close()
  if self.closed then return end
  self.closed = true
  fail_all(self, errors.new("closed", ("%s was closed"):format(tostring(self)), { key = self.key }))
  self.future:release()
end

Actor.__close = Actor.close

function Actor:__tostring()
  return ("<saturn.actor: %s, key: %s%s>"):format(self.class, self.key, self.closed and ", closed" or "")
end

--- Makes an object of a Python class on a worker and keeps it there. Options of `client:with` say on which. Returns at
--- once; what the constructor raises, the first call raises.
---@param client saturn.Client
---@param class any "package.module.Class", saturn.py.ref(...) or saturn.py.fn of a text that defines a class
---@param ... any arguments of the constructor, as for client:submit
---@return saturn.Actor
function M.actor(client, class, ...)
  local callable = node.callable(class, 2)
  local made = client:with { actor = true }:submit(class, ...)
  local self = setmetatable({
    client = coordination.client(client), future = made, key = made.key, class = callable.prefix, ordered = true,
    waiting = {}, sent = {},
  }, Actor)
  loop.listen(self)
  return self
end

return M
