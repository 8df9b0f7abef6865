--- Waiting in libuv's loop: `require("saturn.loop.luv").install()`, and blocking calls in any coroutine yield until
-- `uv.run()` resumes it. Outside of coroutines they block; callbacks (`future:on_done`) do without, see `start`.

local loop = require "saturn.loop"
local uv = require "luv"

local M = {}

---@class saturn.loop.LuvHost: saturn.loop.Host
local host = {}

local poll, timer -- made when first needed
local woken = {}  -- coroutines to resume
local turning     -- whether this resumes them soon

-- An error of one coroutine must not keep the others from going on; libuv's loop gets the first of them.
local function resume_woken(failure)
  local list = woken
  woken = {}
  for _, co in ipairs(list) do
    local ok, err = coroutine.resume(co)
    if not ok and failure == nil then failure = debug.traceback(co, tostring(err)) end
  end
  if failure ~= nil then error(failure, 0) end
end

local function turn()
  turning = true
  local ok, err = pcall(loop.turn, host)
  turning = false
  resume_woken(not ok and tostring(err) or nil)
end

local function milliseconds(seconds)
  return math.ceil(math.min(seconds, 1e6) * 1000)
end

function host:park(task) -- luacheck: no self
  task.co = coroutine.running()
  coroutine.yield()
end

function host:wake(task)
  woken[#woken + 1] = task.co
  if not turning then self:arm() end
end

function host:arm(fd, seconds) -- luacheck: no self
  if #woken > 0 and not turning then seconds = 0 end
  timer = timer or assert(uv.new_timer())
  if fd and not poll then poll = assert(uv.new_poll(fd)) end
  if fd and not poll:is_active() then poll:start("r", turn) end
  if seconds then timer:start(milliseconds(seconds), 0, turn) else timer:stop() end
end

function host:disarm() -- luacheck: no self
  if poll then poll:stop() end
  if timer and (turning or #woken == 0) then timer:stop() end
end

local adapter = {
  any = true,
  current = function() return host end,
}

--- From now on blocking calls yield in coroutines.
function M.install()
  loop.adapter(adapter)
end

--- They block again.
function M.remove()
  loop.remove_adapter(adapter)
end

--- Callbacks (of Futures, of subscriptions) are called also while no coroutine waits, and `uv.run()` goes on, until
--- what is returned is closed.
---@return saturn.loop.Kept
function M.start()
  return loop.keep(host)
end

return M
