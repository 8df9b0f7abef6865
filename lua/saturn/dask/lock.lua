--- Locks, semaphores and locks of several names at once.
--
-- A semaphore gives out leases, and a lock is a semaphore of one lease (before distributed 2024.7.1 it is something of
-- its own). A lease ends by itself when its holder is silent for `lease_timeout` seconds, so that a program that died
-- blocks nobody for ever; while this program waits for anything, its leases are refreshed five times as often. A
-- program that computes for longer than that without a wait in between loses its leases.

local core = require "saturn.core"
local coordination = require "saturn.dask.coordination"
local errors = require "saturn.error"
local loop = require "saturn.loop"
local ops = require "saturn.dask.ops"
local pickle = core.pickle
local wire = core.wire

local M = {}

local LEASE_TIMEOUT = 30
-- What closing waits for the scheduler to hear of it.
local CLOSE_PATIENCE = 2

---@class saturn.Lease
---@field id string
---@field lost boolean? it was not refreshed in time: somebody else may have had it since

-- ---- what all of them share -------------------------------------------------------------------------------------

local Holder = {}

local function label(self)
  return ("the %s '%s'"):format(self.kind, self.name)
end

local function check_open(self)
  if self.closed then errors.raise("closed", label(self) .. " was closed here: make it again") end
  self.client:check_open()
end

-- A number of seconds, or the table {timeout=}.
local function seconds(self, options, level)
  if type(options) == "number" or options == nil then return coordination.timeout(options, level + 1), {} end
  options = errors.options(options, self.ACQUIRE_KNOWN, level + 1)
  local count = options.num_locks
  if count and (count < 1 or count > #self.names) then
    errors.misuse(level + 1, "option 'num_locks' is from 1 to %d, the number of names; got %d", #self.names, count)
  end
  return coordination.timeout(options.timeout, level + 1), options
end

local function forget(self, lease)
  for i, each in ipairs(self.leases) do
    if each == lease then
      table.remove(self.leases, i)
      break
    end
  end
  if #self.leases == 0 and self.timer then
    self.timer:cancel()
    self.timer = nil
  end
end

-- Lets a lease go and waits for the scheduler to confirm.
local function release(self, lease)
  forget(self, lease)
  coordination.ask(self.client, self:release_request(lease))
  if lease.lost then
    errors.raise("lost", ("%s was not refreshed for %g seconds while this program held it, because it did not wait "
      .. "for anything meanwhile: others may have held it too. Call client:step() during long work, or give "
      .. "lease_timeout="):format(label(self), self.lease_timeout), { type = "lease" })
  end
end

local function release_all(self)
  for i = #self.leases, 1, -1 do
    local lease = self.leases[i]
    forget(self, lease)
    coordination.background(self.client, self:release_request(lease))
  end
end

local function acquire(self, timeout, options)
  check_open(self)
  local lease = { id = core.session.random(16) }
  local ok, got = pcall(self.acquire_lease, self, lease, timeout, options)
  if not ok then
    -- The scheduler may give the lease to a request that is no longer waited for.
    coordination.background(self.client, self:release_request(lease))
    error(got, 0)
  end
  if not got then return nil end
  if self.closed then -- while it waited: nobody would release it
    coordination.background(self.client, self:release_request(lease))
    check_open(self)
  end
  self.leases[#self.leases + 1] = lease
  self:keep_alive()
  return lease
end

--- Acquires it; waits while others have it.
---@param options table|number? {timeout=} or seconds (default: no limit); a multi_lock takes num_locks= too
---@return boolean acquired false when the time was over first
function Holder:acquire(options)
  local timeout, given = seconds(self, options, 2)
  return acquire(self, timeout, given) ~= nil
end

--- Releases what was acquired first by this object.
function Holder:release()
  check_open(self)
  local lease = self.leases[1]
  if not lease then
    errors.misuse(2, "%s cannot be released: this object does not hold it", label(self))
  end
  release(self, lease)
end

--- Whether this object holds it, and every refresh was in time.
---@return boolean
function Holder:held()
  if #self.leases == 0 then return false end
  for _, lease in ipairs(self.leases) do
    if lease.lost then return false end
  end
  return true
end

--- Releases all that this object holds. Safe to call twice; it happens at the end of its scope and of the client's
--- too, and when the object is collected.
function Holder:close()
  if self.closed then return end
  release_all(self)
  self.closed = true
  coordination.settle(self.client, CLOSE_PATIENCE)
end

local function collected(self)
  if self.closed then return end
  release_all(self)
end

---@class saturn.Held
local Held = {}
Held.__index = Held
Held.__name = "saturn.held"

--- Releases it. Safe to call twice. Raises a "lost" error when others may have held it too.
function Held:release()
  local lease = self.lease
  if not lease then return end
  self.lease = nil
  if self.holder.closed or self.holder.client.closed then return end
  release(self.holder, lease)
end

Held.close = Held.release

-- An error that ends the scope matters more than one of the release.
function Held:__close(err)
  if err == nil then return self:release() end
  pcall(self.release, self)
end

function Held:__gc()
  local lease, holder = self.lease, self.holder
  self.lease = nil
  if not lease or holder.closed then return end
  forget(holder, lease)
  coordination.background(holder.client, holder:release_request(lease))
end

function Held:__tostring()
  return ("<saturn.held: %s%s>"):format(label(self.holder), self.lease and "" or ", released")
end

--- Acquires it for a scope: `local held <close> = lock:hold(timeout)`. Raises a "timeout" error when the time is over
--- first.
---@param options table|number? as for acquire
---@return saturn.Held
function Holder:hold(options)
  local timeout, given = seconds(self, options, 2)
  local lease = acquire(self, timeout, given)
  if not lease then
    errors.raise("timeout", ("%s was not free within %g seconds"):format(label(self), timeout))
  end
  return setmetatable({ holder = self, lease = lease }, Held)
end

local function tostring_of(self)
  local state = self.closed and "closed" or #self.leases > 0 and "held" or "not held"
  return ("<saturn.%s: %s, %s>"):format(self.kind, self.name, state)
end

local function class(name, known)
  local new = { ACQUIRE_KNOWN = known }
  for method, fn in pairs(Holder) do new[method] = fn end
  new.__index, new.__name = new, name
  new.__close, new.__gc, new.__tostring = Holder.close, collected, tostring_of
  return new
end

local function make(meta, fields)
  fields.leases = {}
  local self = setmetatable(fields, meta)
  self.client:own(self)
  return self
end

-- ---- semaphores and locks ---------------------------------------------------------------------------------------

---@class saturn.Semaphore
---@field name string
---@field max_leases integer
---@field lease_timeout number seconds
---@field client saturn.Client
local Semaphore = class("saturn.semaphore", { timeout = "number" })

local function register(self)
  local endless = self.lease_timeout == math.huge
  coordination.ask(self.client, "semaphore_register", ops.semaphore_register(self.client.release,
    { name = self.name, max_leases = self.max_leases }, endless and core.null or self.lease_timeout))
  self.registered = true
end

function Semaphore:acquire_lease(lease, timeout)
  if not self.registered then register(self) end
  return coordination.wait(self.client, "semaphore_acquire", { name = self.name, lease_id = lease.id }, timeout)
end

function Semaphore:release_request(lease)
  return "semaphore_release", { name = self.name, lease_id = lease.id }
end

local function collect_refresh(self, sent)
  local call = self.refreshing
  if not call then return true end
  if not call:done() then return false end
  self.refreshing = nil
  if pcall(call.reply, call) then self.refreshed = sent end
  return true
end

-- Timers must not wait: each looks at the answer of the refresh before.
local function refresh(self)
  local time = loop.now()
  if self.client.closed then return self.timer:cancel() end
  local answered = collect_refresh(self, self.sent)
  if time - self.refreshed > self.lease_timeout then
    for _, lease in ipairs(self.leases) do lease.lost = true end
    self.refreshed = time
  end
  -- A refresh of a lease that the scheduler took back would make it anew, beside the one of its new holder.
  local ids = {}
  for _, lease in ipairs(self.leases) do
    if not lease.lost then ids[#ids + 1] = lease.id end
  end
  if not answered or #ids == 0 then return end
  local ok, call = pcall(self.client.scheduler.start, self.client.scheduler, "semaphore_refresh_leases",
    { name = self.name, lease_ids = ids })
  if ok then self.refreshing, self.sent = call, time end
end

function Semaphore:keep_alive()
  if self.timer or self.lease_timeout == math.huge then return end
  self.refreshed = loop.now()
  local weak = setmetatable({ self }, { __mode = "v" }) -- the timer must not keep the object
  local timer
  timer = loop.timer(self.lease_timeout / 5, function()
    if weak[1] then refresh(weak[1]) else timer:cancel() end
  end)
  self.timer = timer
end

--- How many leases are given out, to anybody.
---@return integer
function Semaphore:value()
  check_open(self)
  return coordination.ask(self.client, "semaphore_value", { name = self.name })
end

--- Takes the semaphore away on the scheduler, for all clients: who waits for a lease gets an error.
function Semaphore:delete()
  check_open(self)
  self.registered = false
  while #self.leases > 0 do forget(self, self.leases[1]) end
  coordination.ask(self.client, "semaphore_close", { name = self.name })
end

---@class saturn.Lock: saturn.Semaphore
local Lock = {}
for name, field in pairs(Semaphore) do Lock[name] = field end
Lock.__index, Lock.__name = Lock, "saturn.lock"

--- Whether anybody holds the lock.
---@return boolean
function Lock:locked()
  return self:value() > 0
end

-- ---- locks before 2024.7.1 --------------------------------------------------------------------------------------

---@class saturn.OldLock: saturn.Lock
local OldLock = class("saturn.lock", { timeout = "number" })
OldLock.locked = Lock.locked

function OldLock:keep_alive() end

-- In these releases a request whose time is over while others wait too fails over a check in the scheduler.
function OldLock:acquire_lease(lease, timeout)
  local ok, got = pcall(coordination.wait, self.client, "lock_acquire", { name = self.name, id = lease.id }, timeout)
  if ok then return got end
  if errors.is_error(got) and got.type == "AssertionError" then return false end
  error(got, 0)
end

function OldLock:release_request(lease)
  return "lock_release", { name = self.name, id = lease.id }
end

local LOCK_IDS = "lambda name, dask_scheduler: int(name in dask_scheduler.extensions['locks'].ids)"

-- The scheduler has no request for this.
function OldLock:value()
  check_open(self)
  local py = require "saturn.py"
  local reply = coordination.ask(self.client, "run_function", {
    ["function"] = wire.bin(errors.check(pickle.dumps(py.fn(LOCK_IDS)))),
    args = wire.bin(errors.check(pickle.dumps(py.tuple { self.name }))),
    kwargs = wire.bin(errors.check(pickle.dumps(py.dict {}))),
    wait = true,
  })
  if type(reply) ~= "table" or reply.status ~= "OK" then
    errors.raise("value", ("this scheduler, distributed %s, does not tell whether a lock is held: try "
      .. "lock:acquire(0)"):format(self.client.version))
  end
  return (type(reply.result) == "userdata" and reply.result:value() or reply.result)
end

-- ---- several locks at once --------------------------------------------------------------------------------------

---@class saturn.MultiLock
---@field names string[]
---@field name string the names, for messages
---@field client saturn.Client
local MultiLock = class("saturn.multi_lock", { timeout = "number", num_locks = "integer" })

function MultiLock:keep_alive() end

function MultiLock:acquire_lease(lease, timeout, options)
  return coordination.wait(self.client, "multi_lock_acquire",
    { locks = self.names, id = lease.id, num_locks = options.num_locks or #self.names }, timeout)
end

function MultiLock:release_request(lease)
  return "multi_lock_release", { id = lease.id }
end

-- ---- making them ------------------------------------------------------------------------------------------------

local function lease_timeout(options, level)
  local time = errors.options(options, { lease_timeout = "number" }, level + 1).lease_timeout or LEASE_TIMEOUT
  if time ~= time or time <= 0 then
    errors.misuse(level + 1, "lease_timeout is a number of seconds above 0, not %s", tostring(time))
  end
  return time
end

--- A lock of the cluster: one holder at a time among all clients and tasks, Python's too.
---@param client saturn.Client
---@param name string? known to all clients; without one it is made up
---@param options table? lease_timeout (30 s; math.huge: it never ends by itself)
---@return saturn.Lock
function M.lock(client, name, options)
  name = coordination.name(name, "lock", 2)
  local time = lease_timeout(options, 2)
  client = coordination.client(client)
  client:check_open()
  local meta = ops.lock_is_semaphore(client.release) and Lock or OldLock
  return make(meta, { kind = "lock", name = name, max_leases = 1, lease_timeout = time, client = client })
end

--- A semaphore of the cluster: at most `max_leases` holders at a time.
---@param client saturn.Client
---@param name string? known to all clients; without one it is made up
---@param max_leases integer? 1 by default; all who use the name must say the same
---@param options table? lease_timeout (30 s; math.huge: it never ends by itself)
---@return saturn.Semaphore
function M.semaphore(client, name, max_leases, options)
  name = coordination.name(name, "semaphore", 2)
  max_leases = max_leases or 1
  if math.type(max_leases) ~= "integer" or max_leases < 1 then
    errors.misuse(2, "max_leases is a whole number from 1 on, not %s", tostring(max_leases))
  end
  local time = lease_timeout(options, 2)
  local self = make(Semaphore, { kind = "semaphore", name = name, max_leases = max_leases, lease_timeout = time,
    client = coordination.client(client) })
  register(self)
  return self
end

local function check_names(names)
  if type(names) ~= "table" or #names == 0 then
    errors.misuse(3, "multi_lock takes a list of names, at least one; got %s", tostring(names))
  end
  local list, seen = {}, {}
  for i, name in ipairs(names) do
    if type(name) ~= "string" then
      errors.misuse(3, "the names of locks are strings, but number %d is a %s", i, type(name))
    end
    if not seen[name] then list[#list + 1] = name end
    seen[name] = true
  end
  return list
end

--- Several locks acquired together, which cannot deadlock with others who do the same. With num_locks= in acquire or
--- hold, that many of the names are enough. Its names have nothing to do with those of client:lock, and it has no
--- leases: what a program that died held stays held.
---@param client saturn.Client
---@param names string[]
---@return saturn.MultiLock
function M.multi_lock(client, names)
  names = check_names(names)
  client = coordination.client(client)
  client:check_open()
  return make(MultiLock, { kind = "multi_lock", name = table.concat(names, ", "), names = names, client = client })
end

return M
