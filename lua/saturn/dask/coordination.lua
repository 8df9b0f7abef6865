--- What the objects for coordination have in common: requests that the scheduler answers when something happened,
--- and requests whose answer nobody waits for.

local core = require "saturn.core"
local errors = require "saturn.error"
local loop = require "saturn.loop"

local M = {}

-- The scheduler keeps the time; this much longer is waited for its answer before it is taken to hang.
local GRACE = 5
-- With a timeout of zero some releases do not even look at what is there.
local SHORTEST = 0.001

--- The client behind a view.
---@param client saturn.Client
---@return saturn.Client
function M.client(client)
  return rawget(client, "_client") or client
end

--- Checks a name; without one makes one.
---@param name string?
---@param kind string "variable": what is named
---@param level integer? 2: misuse is the error of the caller of the function that calls this
function M.name(name, kind, level)
  if name == nil then return ("%s-%s"):format(kind, core.session.random(16)) end
  if type(name) ~= "string" then
    errors.misuse((level or 2) + 1, "the name of a %s is a string, not a %s", kind, type(name))
  end
  return name
end

--- Checks a timeout: seconds, or nil for no limit.
---@param timeout any
---@param level integer?
function M.timeout(timeout, level)
  if timeout ~= nil and (type(timeout) ~= "number" or timeout ~= timeout or timeout < 0) then
    errors.misuse((level or 2) + 1, "a timeout is a number of seconds from 0 on, not %s", tostring(timeout))
  end
  if timeout == math.huge then return nil end
  return timeout
end

--- A request that is answered when something happened; `timeout` goes to the scheduler, which gives up in time.
---@param client saturn.Client
---@param op string
---@param args table
---@param timeout number? seconds
---@param keep_nil boolean?
function M.wait(client, op, args, timeout, keep_nil)
  client:check_open()
  args.timeout = timeout and math.max(timeout, SHORTEST)
  return client.scheduler:call(op, args, timeout and timeout + GRACE, keep_nil)
end

--- `M.wait` whose timeout error says what was waited for.
---@param what string e.g. "nothing was put into the queue 'x'"
function M.wait_for(client, op, args, timeout, what, keep_nil)
  local ok, answer = pcall(M.wait, client, op, args, timeout, keep_nil)
  if ok then return answer end
  if timeout and errors.is_error(answer) and answer.kind == "timeout" then
    errors.raise("timeout", ("%s within %g seconds"):format(what, timeout), { type = answer.type })
  end
  error(answer, 0)
end

--- A short request.
function M.ask(client, op, args, keep_nil)
  client:check_open()
  return client.scheduler:call(op, args, client.request_timeout, keep_nil)
end

-- Requests under way whose answers are thrown away.
local Background = {}
Background.__index = Background
Background.__name = "saturn.background"

function Background:on_round()
  for call in pairs(self.calls) do
    if call:done() then
      self.calls[call] = nil
      call:close()
    end
  end
end

--- Sends a request and lets its answer be lost; raises nothing. For finalizers, which must not wait.
---@return saturn.PendingCall?
function M.background(client, op, args)
  if client.closed then return nil end
  local started, call = pcall(client.scheduler.start, client.scheduler, op, args)
  if not started then return nil end
  local background = client._background
  if not background then
    background = setmetatable({ calls = {} }, Background)
    client._background = background
    loop.listen(background)
  end
  background.calls[call] = true
  return call
end

--- Ends when the calls of `M.background` were answered, or after `timeout` seconds.
function M.settle(client, timeout)
  local background = client._background
  if not background or client.closed then return end
  loop.poll(function()
    background:on_round()
    return next(background.calls) == nil
  end, timeout)
end

return M
