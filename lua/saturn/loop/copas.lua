--- Waiting in Copas (4 or newer): `require("saturn.loop.copas").install()`, and blocking calls in its threads yield to
-- `copas.loop()`.

local copas = require "copas"
local loop = require "saturn.loop"

local M = {}

---@class saturn.loop.CopasHost: saturn.loop.Host
local host = {}

-- For Copas the reactor is a server: one whose descriptor is readable now and then, and which never has a client.
local server = setmetatable({}, { __tostring = function() return "tcp{saturn}" end })

local driver       -- the thread that runs the rounds, made when first needed
local readable     -- whether a round is due now
local due          -- when the next is due at the latest

function server:settimeout() end -- luacheck: no self
function server:dirty() return false end -- luacheck: no self
function server:getfd() return self.fd end

function server:accept() -- luacheck: no self
  readable = true
  copas.wakeup(driver)
end

local start

local function turn()
  readable, due = false, nil
  local ok, err = pcall(loop.turn, host)
  if ok then return end
  start()
  error(err, 0)
end

local function drive()
  while true do
    local left = due and due - loop.now()
    if readable or (left and left <= 0) then
      turn()
    elseif left then
      copas.pause(left)
    else
      copas.pauseforever()
    end
  end
end

function start()
  driver = copas.addthread(drive)
end

function host:park(task) -- luacheck: no self
  task.co = coroutine.running()
  copas.pauseforever()
end

function host:wake(task) -- luacheck: no self
  copas.wakeup(task.co)
end

function host:arm(fd, seconds) -- luacheck: no self
  due = seconds and loop.now() + seconds
  if not driver then start() else copas.wakeup(driver) end
  if not fd or server.fd then return end
  server.fd = fd
  copas.addserver(server, function() end)
end

function host:disarm() -- luacheck: no self
  due = nil
  if server.fd then copas.removeserver(server, true) end
  server.fd = nil
  copas.wakeup(driver)
end

local adapter = {
  any = true,
  current = function() return host end,
}

--- From now on blocking calls yield in threads of Copas.
function M.install()
  loop.adapter(adapter)
end

--- They block again.
function M.remove()
  loop.remove_adapter(adapter)
end

--- Callbacks (of Futures, of subscriptions) are called also while no thread waits, and `copas.loop()` goes on, until
--- what is returned is closed.
---@return saturn.loop.Kept
function M.start()
  return loop.keep(host)
end

return M
