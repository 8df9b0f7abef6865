--- Waiting for many Futures: `wait` and `as_completed`.

local errors = require "saturn.error"
local future = require "saturn.dask.future"
local loop = require "saturn.loop"

local M = {}

local function check_futures(futures, level)
  if future.is_future(futures) then futures = { futures } end
  if type(futures) ~= "table" then errors.misuse(level + 1, "expected a list of Futures, not a %s", type(futures)) end
  for i, each in ipairs(futures) do
    if not future.is_future(each) then
      errors.misuse(level + 1, "expected a list of Futures, but element %d is a %s", i, type(each))
    end
  end
  return futures
end

local function split(futures)
  local done, not_done = {}, {}
  for _, each in ipairs(futures) do
    local list = each:done() and done or not_done
    list[#list + 1] = each
  end
  return done, not_done
end

local function one_done(futures)
  if #futures == 0 then return function() return true end end
  return function()
    for _, each in ipairs(futures) do
      if each:done() then return true end
    end
    return false
  end
end

--- Waits until all Futures (or, with return_when="first", at least one) are done.
---@param futures saturn.Future[]
---@param options table? timeout, return_when="all"|"first"
---@return saturn.Future[] done, saturn.Future[] not_done
function M.wait(futures, options)
  futures = check_futures(futures, 2)
  options = errors.options(options, { timeout = "number", return_when = "string" })
  local which = options.return_when or "all"
  if which ~= "all" and which ~= "first" then
    errors.misuse(2, "option 'return_when' must be \"all\" or \"first\", not %q", which)
  end
  if which == "all" then
    loop.wait_all(futures, function(each) return each:done() end, options.timeout, "waiting for all Futures")
  else
    loop.wait(one_done(futures), options.timeout, "waiting for the first Future")
  end
  return split(futures)
end

---@class saturn.AsCompleted
local AsCompleted = {}
AsCompleted.__index = AsCompleted
AsCompleted.__name = "saturn.as_completed"

local function add(self, each)
  local round = self.round
  self.pending = self.pending + 1
  each:on_done(function(done)
    if self.round ~= round then return end
    self.pending = self.pending - 1
    self.ready[#self.ready + 1] = done
  end)
end

--- Adds a Future to those waited for.
---@param each saturn.Future
function AsCompleted:add(each)
  check_futures({ each }, 2)
  add(self, each)
end

--- Adds a list of Futures.
function AsCompleted:update(futures)
  for _, each in ipairs(check_futures(futures, 2)) do add(self, each) end
end

--- How many have not been given out yet.
---@return integer
function AsCompleted:count()
  return self.pending + #self.ready - self.first + 1
end

function AsCompleted:is_empty()
  return self:count() == 0
end

--- Whether one can be had without waiting.
function AsCompleted:has_ready()
  return self.first <= #self.ready
end

local function left(self)
  return self.deadline and math.max(0, self.deadline - loop.now())
end

local function take(self)
  local each = self.ready[self.first]
  self.ready[self.first] = false
  self.first = self.first + 1
  if self.first > #self.ready then self.ready, self.first = {}, 1 end
  return each
end

-- Another coroutine may take the last one, or clear all, meanwhile.
local function wait_ready(self)
  loop.wait(function() return self:has_ready() or self.pending == 0 end, left(self), "the next Future")
  return self:has_ready()
end

--- The next Future that is done, and its value with `with_results`; nil when there are no more.
function AsCompleted:next()
  if not wait_ready(self) then return nil end
  local each = take(self)
  if not self.with_results then return each end
  local err = future.error_of(each)
  if err then
    if self.raise_errors then error(err, 0) end
    return each, nil, err
  end
  return each, each:result(left(self))
end

--- All Futures that are done by now, at least one; nil when there are no more.
---@return saturn.Future[]?
function AsCompleted:next_batch()
  if not wait_ready(self) then return nil end
  local batch = {}
  while self:has_ready() do batch[#batch + 1] = take(self) end
  return batch
end

-- An object and no function, so that saturn.safe can keep the error that ends its loop.
local Batches = { __name = "saturn.batches" }
Batches.__index = Batches

function Batches:__call() return self.source:next_batch() end

function Batches:__tostring() return "<saturn.batches of " .. tostring(self.source) .. ">" end

--- Iterates over batches: `for list in completed:batches() do`.
function AsCompleted:batches()
  return setmetatable({ source = self }, Batches)
end

--- Forgets all that are waited for.
function AsCompleted:clear()
  self.ready, self.first, self.pending, self.round = {}, 1, 0, self.round + 1
end

AsCompleted.__call = AsCompleted.next

function AsCompleted:__tostring()
  return ("<saturn.as_completed: %d ready, %d pending>"):format(#self.ready - self.first + 1, self.pending)
end

--- Iterates over Futures as they are done: `for future in saturn.as_completed(futures) do`. More may be added
--- meanwhile. With `with_results` each step gives the Future and its value, or the Future, nil and the error when
--- `raise_errors` is false.
---@param futures saturn.Future[]?
---@param options table? with_results, raise_errors (true), timeout
---@return saturn.AsCompleted
function M.as_completed(futures, options)
  options = errors.options(options, { with_results = "boolean", raise_errors = "boolean", timeout = "number" })
  futures = check_futures(futures or {}, 2)
  local self = setmetatable({
    ready = {}, first = 1, pending = 0, round = 0,
    with_results = options.with_results,
    raise_errors = options.raise_errors ~= false,
    deadline = options.timeout and loop.now() + options.timeout,
  }, AsCompleted)
  for _, each in ipairs(futures) do add(self, each) end
  return self
end

return M
