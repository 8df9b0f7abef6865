--- Queues: values and Futures that clients and tasks hand to each other, first in, first out.

local coordination = require "saturn.dask.coordination"
local errors = require "saturn.error"
local loop = require "saturn.loop"
local value = require "saturn.dask.value"

---@class saturn.Queue
---@field name string
---@field maxsize integer how many values fit; 0: no limit. What the first who made the queue said holds
---@field client saturn.Client
local Queue = {}
Queue.__index = Queue
Queue.__name = "saturn.queue"

local M = {}

-- What closing waits for the scheduler to hear of it.
local CLOSE_PATIENCE = 2

local function label(self)
  return ("the queue '%s'"):format(self.name)
end

local function check_open(self)
  if self.closed then errors.raise("closed", label(self) .. " was closed here: make it again with client:queue") end
  self.client:check_open()
end

-- The scheduler counts a Future before it looks for a free place and forgets to count back.
local function uncount(self, args, err)
  if args.key ~= nil and errors.is_error(err) and not err.message:find("unknown to scheduler", 1, true) then
    pcall(self.client.send, self.client, { op = "queue-future-release", name = self.name, key = args.key })
  end
end

--- Puts a value at the end; waits while the queue is full. A Future in it stays alive on the cluster.
---@param what any a Future, or a value without Futures
---@param timeout number? seconds (default: no limit)
function Queue:put(what, timeout)
  timeout = coordination.timeout(timeout, 2)
  check_open(self)
  local args = value.record(self.client, what, label(self), 2)
  args.name = self.name
  local ok, err = pcall(coordination.wait_for, self.client, "queue_put", args, timeout,
    label(self) .. " had no free place")
  if ok then return end
  uncount(self, args, err)
  error(err, 0)
end

-- The value of a record, or the error that stands for it.
local function take(self, record)
  local got, err = value.from_record(self.client, record, label(self))
  if record.type == "Future" then
    self.client:send { op = "queue-future-release", name = self.name, key = record.value }
  end
  return got, err
end

local function get(self, timeout)
  local record = coordination.wait_for(self.client, "queue_get", { name = self.name, client = self.client.id },
    timeout, label(self) .. " stayed empty", true)
  return take(self, record)
end

--- Takes the first value; waits while there is none.
---@param timeout number? seconds (default: no limit)
---@return any
function Queue:get(timeout)
  timeout = coordination.timeout(timeout, 2)
  check_open(self)
  local got, err = get(self, timeout)
  if err then error(err, 0) end
  return got
end

local function add(list, got, err)
  if got == nil then got = err or require("saturn.core").null end
  list[#list + 1] = got
end

local function get_batch(self, batch)
  local records = coordination.wait(self.client, "queue_get",
    { name = self.name, client = self.client.id, batch = batch }, nil, true)
  local list = {}
  for _, record in ipairs(records) do add(list, take(self, record)) end
  return list
end

-- The scheduler takes no timeout with a number, and a request given up would lose what it had taken already.
local function get_each(self, count, timeout)
  local deadline, list = loop.now() + timeout, {}
  while #list < count do
    local ok, got, err = pcall(get, self, math.max(0, deadline - loop.now()))
    if not ok then
      if errors.is_error(got) and got.kind == "timeout" then break end
      error(got, 0)
    end
    add(list, got, err)
  end
  return list
end

--- Takes several values.
--
-- `true` takes all there are, without waiting. A number waits for as many; with a timeout it gives those that came
-- until then, which may be fewer. None is saturn.null in the list, and a Future that is lost the error that says so.
---@param count integer|true
---@param timeout number? seconds (default: no limit)
---@return table list
function Queue:get_many(count, timeout)
  timeout = coordination.timeout(timeout, 2)
  if count ~= true and (math.type(count) ~= "integer" or count < 1) then
    errors.misuse(2, "get_many takes a number of values from 1 on, or true for all there are; got %s", tostring(count))
  end
  check_open(self)
  if count == true or not timeout then return get_batch(self, count) end
  return get_each(self, count, timeout)
end

--- How many values wait in the queue.
---@return integer
function Queue:size()
  check_open(self)
  return coordination.ask(self.client, "queue_qsize", { name = self.name, client = self.client.id })
end

--- Says that this program needs the queue no more. When all who made it have said so, the queue goes, with all that is
--- in it. Safe to call twice. A queue that is only collected stays: others may still come for its values.
function Queue:close()
  if self.closed then return end
  self.closed = true
  if self.client.closed then return end
  self.client:send { op = "queue_release", name = self.name }
  -- A queue of this name that is made next is a request of its own, which could overtake that.
  pcall(self.client.settle, self.client, CLOSE_PATIENCE)
end

Queue.__close = Queue.close

function Queue:__tostring()
  return ("<saturn.queue: %s%s>"):format(self.name, self.closed and ", closed" or "")
end

--- A queue of the cluster; made there when it is not there yet.
---@param client saturn.Client
---@param name string? known to all clients; without one it is made up
---@param maxsize integer? how many values fit (0: no limit)
---@return saturn.Queue
function M.queue(client, name, maxsize)
  name = coordination.name(name, "queue", 2)
  if maxsize ~= nil and (math.type(maxsize) ~= "integer" or maxsize < 0) then
    errors.misuse(2, "the maxsize of a queue is a whole number from 0 (no limit) on, not %s", tostring(maxsize))
  end
  client = coordination.client(client)
  coordination.ask(client, "queue_create", { name = name, client = client.id, maxsize = maxsize or 0 })
  return setmetatable({ name = name, maxsize = maxsize or 0, client = client }, Queue)
end

return M
