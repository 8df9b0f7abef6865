--- Waiting in cqueues: `require("saturn.loop.cqueues").install()`, and blocking calls in a coroutine that a cqueues
-- controller resumed yield to that controller. Each controller has a coroutine of its own that runs the rounds while
-- something waits.

local condition = require "cqueues.condition"
local cqueues = require "cqueues"
local loop = require "saturn.loop"

local M = {}

---@class saturn.loop.CqueuesHost: saturn.loop.Host
local Host = {}
Host.__index = Host

local hosts = setmetatable({}, { __mode = "k" }) -- controller → its host

local function host_of(controller)
  if not hosts[controller] then
    hosts[controller] = setmetatable({ controller = controller, changed = condition.new() }, Host)
  end
  return hosts[controller]
end

function Host:park(task) -- luacheck: no self
  task.condition = task.condition or condition.new()
  task.condition:wait()
end

function Host:wake(task) -- luacheck: no self
  if task.condition then task.condition:signal() end
end

-- The coroutine looks at what it is to wait for each time before it waits, so no change of that is missed.
local function drive(host)
  while host.armed do
    cqueues.poll({ pollfd = host.fd, events = host.fd and "r", timeout = host.seconds }, host.changed)
    if not host.armed then break end
    local ok, err = pcall(loop.turn, host)
    if not ok then
      host:start()
      error(err, 0)
    end
  end
  host.running = false
end

function Host:start()
  self.running = self.armed
  if self.armed then self.controller:wrap(drive, self) end
end

function Host:arm(fd, seconds)
  self.fd, self.seconds, self.armed = fd, seconds, true
  if self.running then self.changed:signal() else self:start() end
end

function Host:disarm()
  self.armed = false
  self.changed:signal()
end

local adapter = {
  current = function()
    local controller, directly = cqueues.running()
    return controller and directly and host_of(controller) or nil
  end,
}

--- From now on blocking calls yield in coroutines of cqueues.
function M.install()
  loop.adapter(adapter)
end

--- They block again.
function M.remove()
  loop.remove_adapter(adapter)
end

--- Callbacks (of Futures, of subscriptions) are called also while no coroutine waits, and the controller runs on, until
--- what is returned is closed.
---@param controller userdata? else that of the running coroutine
---@return saturn.loop.Kept
function M.start(controller)
  controller = controller or cqueues.running()
  if not controller then error("start needs a cqueues controller, or to be called in a coroutine of one", 2) end
  return loop.keep(host_of(controller))
end

return M
