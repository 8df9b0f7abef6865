--- Events: a flag on the scheduler that clients and tasks set, clear and wait for.

local coordination = require "saturn.dask.coordination"

---@class saturn.Event
---@field name string
---@field client saturn.Client
local Event = {}
Event.__index = Event
Event.__name = "saturn.event"

local M = {}

--- Sets the flag and wakes all who wait for it.
function Event:set()
  coordination.ask(self.client, "event_set", { name = self.name })
end

--- Takes the flag back.
function Event:clear()
  coordination.ask(self.client, "event_clear", { name = self.name })
end

--- Waits until the flag is set.
---@param timeout number? seconds (default: no limit)
---@return boolean set false when the time was over first
function Event:wait(timeout)
  timeout = coordination.timeout(timeout, 2)
  return coordination.wait(self.client, "event_wait", { name = self.name }, timeout) == true
end

--- Whether the flag is set.
---@return boolean
function Event:is_set()
  return coordination.ask(self.client, "event_is_set", { name = self.name }) == true
end

-- Nothing is held here: a flag that is set stays on the scheduler.
function Event:close() end

Event.__close = Event.close

function Event:__tostring()
  return ("<saturn.event: %s>"):format(self.name)
end

--- An event of the cluster.
---@param client saturn.Client
---@param name string? known to all clients; without one it is made up
---@return saturn.Event
function M.event(client, name)
  name = coordination.name(name, "event", 2)
  return setmetatable({ name = name, client = coordination.client(client) }, Event)
end

return M
