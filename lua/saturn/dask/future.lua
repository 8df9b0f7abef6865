--- The methods of a Future. The object itself is a userdata of the C core, which counts references to its key and
--- lets it go on the cluster when the last is collected.

local core = require "saturn.core"
local errors = require "saturn.error"
local failure = require "saturn.dask.failure"
local gather = require "saturn.dask.gather"
local loop = require "saturn.loop"

---@class saturn.Future
---@field key string
---@field status "pending"|"finished"|"error"|"cancelled"|"lost"
---@field type string? the Python type of the result, once known
---@field client saturn.Client
local Future = core.session.Future

local M = { Future = Future }

--- Whether the value is a Future.
function M.is_future(value)
  return type(value) == "userdata" and getmetatable(value) ~= nil and getmetatable(value).__name == "saturn.future"
end

--- The error object of a Future that did not finish well; nil when it did or is pending.
function M.error_of(self)
  local status = self.status
  if status == "error" then return failure.of_future(self) end
  if status == "cancelled" then
    if not self:id() then return errors.new("cancelled", "the Future was released") end
    local reason = self:reason()
    return errors.new("cancelled", ("%s was cancelled%s"):format(self.key, reason and ": " .. reason or ""),
      { key = self.key })
  end
  if status == "lost" then
    local reason = self:reason()
    return errors.new("lost", ("the result of %s is lost%s"):format(self.key, reason and ": " .. reason or ""),
      { key = self.key })
  end
  return nil
end

--- Raises the error of a Future whose task the scheduler knows no more: what stands on it would be waited for without
--- end.
function M.check_there(self)
  local status = self.status
  if status == "cancelled" or status == "lost" then error(M.error_of(self), 0) end
end

local function wait_done(self, timeout)
  if self.status ~= "pending" then return end
  loop.wait(function() return self.status ~= "pending" end, timeout, "the task " .. tostring(self.key))
end

--- Waits for the task and gives its value; raises what the task raised.
---@param timeout number?
function Future:result(timeout)
  errors.timeout(timeout)
  local deadline = timeout and loop.now() + timeout
  wait_done(self, timeout)
  local err = M.error_of(self)
  if err then error(err, 0) end
  return gather.one(self.client, self, deadline and math.max(0, deadline - loop.now()))
end

--- Waits for the task and gives the error it raised, or nil.
---@param timeout number?
---@return saturn.Error?
function Future:exception(timeout)
  errors.timeout(timeout)
  wait_done(self, timeout)
  return M.error_of(self)
end

--- Waits for the task and gives the Python traceback of its failure, or nil.
---@param timeout number?
---@return string?
function Future:traceback(timeout)
  errors.timeout(timeout)
  local err = self:exception(timeout)
  return err and err.traceback
end

--- Whether the task is over, well or not.
---@return boolean
function Future:done()
  return self.status ~= "pending"
end

---@return boolean
function Future:cancelled()
  return self.status == "cancelled"
end

--- Cancels the task: those who wait for it are told, and what depends on it is cancelled too.
---@param options table? force, reason, message
function Future:cancel(options)
  local control = require "saturn.dask.control"
  control.cancel(self.client, self, errors.options(options, control.cancel_known))
end

--- Runs the task again after it failed.
function Future:retry()
  require("saturn.dask.control").retry(self.client, self)
end

local release = Future.release

--- Lets the task's key go: with the last Future of it the cluster forgets the result. Those who wait for this one are
--- told that it is cancelled. Safe to call twice.
function Future:release()
  local id, client = self:id(), self.client
  release(self)
  if id then client:tell(id) end
end

Future.close = Future.release

--- Calls `fn(future)` once the task is over or the Future is released (at once when it is). An error in it is raised
--- where the loop is stepped.
---@param fn fun(future: saturn.Future)
function Future:on_done(fn)
  errors.callable(fn, "the callback of on_done")
  if self:done() then return fn(self) end
  local stop
  stop = self.client:watch(self, function()
    if not self:done() then return end
    stop()
    fn(self)
  end)
end

-- The methods are put into the class when this file is loaded; calling this says that it is.
function M.install() end

return M
