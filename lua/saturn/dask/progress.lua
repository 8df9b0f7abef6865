--- Progress of many Futures for a person who waits: a bar for each kind of task.

local core = require "saturn.core"
local errors = require "saturn.error"
local future = require "saturn.dask.future"
local loop = require "saturn.loop"

local M = {}

local REDRAW = 0.1      -- seconds between two looks of the bars
local LINE_EVERY = 5    -- seconds between two lines where there is no terminal
local LONGEST_NAME = 25

-- ---- prefixes ---------------------------------------------------------------------------------------------------

-- The part of a key that names the kind of task, as Dask's own displays have it: its leading words of letters, up to
-- the first that looks like an id.
local function prefix_of(key)
  if type(key) == "table" then key = key[1] end
  local text = tostring(key)
  local first, rest = text:match("^([^-]*)(.*)$")
  if not first:find("^[%a\128-\255]") then
    first = first:match("^[^,]*"):gsub("^[_'()\"]+", ""):gsub("[_'()\"]+$", "")
  end
  local prefix = first
  for word in rest:gmatch("-([^-]*)") do
    if not word:find("^[%a\128-\255]+$") or (#word == 8 and word:find("^%x+$")) then break end
    prefix = prefix .. "-" .. word
  end
  if #prefix == 32 and prefix:find("^%x+$") then return "data" end
  return prefix ~= "" and prefix or "other"
end

---@class saturn.progress.Group
---@field name string
---@field total integer
---@field done integer
---@field failed integer
---@field started number
---@field ended number?

local function count(group, each, now)
  group.done = group.done + 1
  if each.status ~= "finished" then group.failed = group.failed + 1 end
  if group.done == group.total then group.ended = now end
end

-- Groups in the order in which they first occur.
local function groups_of(futures)
  local groups, by_name, now = {}, {}, loop.now()
  for _, each in ipairs(futures) do
    local name = prefix_of(each.key)
    local group = by_name[name]
    if not group then
      group = { name = name, total = 0, done = 0, failed = 0, started = now }
      by_name[name] = group
      groups[#groups + 1] = group
    end
    group.total = group.total + 1
  end
  return groups, by_name
end

-- ---- text -------------------------------------------------------------------------------------------------------

local function clock(seconds)
  seconds = math.floor(seconds + 0.5)
  if seconds < 60 then return ("%ds"):format(seconds) end
  if seconds < 3600 then return ("%dm%02ds"):format(seconds // 60, seconds % 60) end
  return ("%dh%02dm"):format(seconds // 3600, seconds % 3600 // 60)
end

local function rate_text(rate)
  if rate >= 100 then return ("%.0f/s"):format(rate) end
  if rate >= 1 then return ("%.1f/s"):format(rate) end
  return ("%.1f/min"):format(rate * 60)
end

-- "12/100, 2 failed, 3.1/s, 28s left"
local function numbers(group, fresh, now)
  local parts = { ("%d/%d"):format(group.done, group.total) }
  if group.failed > 0 then parts[#parts + 1] = ("%d failed"):format(group.failed) end
  local seconds = (group.ended or now) - group.started
  local counted = group.done - fresh
  if counted > 0 and seconds > 0 then parts[#parts + 1] = rate_text(counted / seconds) end
  if group.ended then
    parts[#parts + 1] = "in " .. clock(seconds)
  elseif counted > 0 and seconds > 0 then
    parts[#parts + 1] = clock((group.total - group.done) * seconds / counted) .. " left"
  end
  return table.concat(parts, ", ")
end

local function shown_name(name)
  name = name:gsub("%c", "?")
  if #name <= LONGEST_NAME then return name end
  local cut = utf8.len(name) and utf8.offset(name, LONGEST_NAME - 2) or LONGEST_NAME - 2
  return cut and name:sub(1, cut - 1) .. "..." or name
end

local function bar(group, width)
  local full = group.total > 0 and width * group.done // group.total or width
  return "[" .. ("#"):rep(full) .. (" "):rep(width - full) .. "]"
end

-- ---- displays ---------------------------------------------------------------------------------------------------

---@class saturn.progress.Display
local Bars = {}
Bars.__index = Bars

-- A line that the terminal breaks would spoil the next drawing.
local COLUMNS, NARROWEST = 79, 5

function Bars:draw(now)
  local texts, width = {}, self.width
  for i, group in ipairs(self.groups) do
    texts[i] = numbers(group, group.fresh, now)
    width = math.min(width, COLUMNS - self.name_width - #texts[i] - 4)
  end
  width = math.max(width, NARROWEST)
  local lines = {}
  if self.drawn > 0 then lines[1] = ("\27[%dA"):format(self.drawn) end
  for i, group in ipairs(self.groups) do
    local name = shown_name(group.name)
    lines[#lines + 1] = ("\r\27[K%s%s %s %s\n"):format(name, (" "):rep(self.name_width - #name), bar(group, width),
      texts[i])
  end
  self.drawn = #self.groups
  self.out:write(table.concat(lines))
  self.out:flush()
end

local Lines = {}
Lines.__index = Lines

function Lines:draw(now, last)
  for _, group in ipairs(self.groups) do
    local told = self.told[group]
    if told ~= group.done and (last or group.ended or now - self.time >= LINE_EVERY) then
      self.told[group] = group.done
      self.out:write(("%s: %s\n"):format(shown_name(group.name), numbers(group, group.fresh, now)))
    end
  end
  if now - self.time >= LINE_EVERY then self.time = now end
  self.out:flush()
end

local function is_terminal(out)
  if out == io.stderr then return core.http.is_terminal(2) end
  if out == io.stdout then return core.http.is_terminal(1) end
  return false
end

local function display_of(groups, options)
  local out = options.out or io.stderr
  local terminal = options.terminal
  if terminal == nil then terminal = is_terminal(out) end
  if not terminal then return setmetatable({ out = out, groups = groups, told = {}, time = loop.now() }, Lines) end
  local widest = 0
  for _, group in ipairs(groups) do widest = math.max(widest, #shown_name(group.name)) end
  return setmetatable({ out = out, groups = groups, drawn = 0, name_width = widest, width = options.width or 30 }, Bars)
end

-- ---- waiting ----------------------------------------------------------------------------------------------------

local function check_futures(futures)
  if future.is_future(futures) then futures = { futures } end
  if type(futures) ~= "table" then errors.misuse(3, "progress needs a list of Futures, not a %s", type(futures)) end
  for i, each in ipairs(futures) do
    if not future.is_future(each) then
      errors.misuse(3, "progress needs a list of Futures, but element %d is a %s", i, type(each))
    end
  end
  return futures
end

local function watch(futures, by_name, state)
  for _, each in ipairs(futures) do
    local group = by_name[prefix_of(each.key)]
    each:on_done(function(done)
      if state.over then return end
      count(group, done, loop.now())
      state.left = state.left - 1
    end)
  end
  -- What was done before does not tell how fast it goes.
  for _, group in pairs(by_name) do group.fresh = group.done end
end

local function wait(display, state, deadline)
  while state.left > 0 do
    local now = loop.now()
    display:draw(now)
    local left = deadline and deadline - now
    if left and left <= 0 then return false end
    local next_look = left and math.min(left, REDRAW) or REDRAW
    loop.poll(function() return state.left == 0 end, next_look)
  end
  return true
end

--- Waits until all Futures are done and shows how far they are: on a terminal one bar for each kind of task, drawn
--- anew at most ten times a second, elsewhere a line every five seconds and at the end. Failed tasks are counted, not
--- raised.
---@param futures saturn.Future|saturn.Future[]
---@param options table? out (a file, io.stderr), terminal (whether it is one; found out for io.stderr and io.stdout),
--- width (of a bar, 30), timeout (seconds)
---@return saturn.Future[] futures the same
function M.progress(futures, options)
  futures = check_futures(futures)
  options = errors.options(options, {
    out = "any", terminal = "boolean", width = "integer", timeout = "number",
  })
  local groups, by_name = groups_of(futures)
  local state = { left = #futures, over = false }
  watch(futures, by_name, state)
  local display = display_of(groups, options)
  local ok, finished = xpcall(wait, function(err) return err end, display, state,
    options.timeout and loop.now() + options.timeout)
  state.over = true
  display:draw(loop.now(), true) -- the last look stays on the screen, whole, also after an error
  if not ok then error(finished, 0) end
  if not finished then
    errors.raise("timeout", ("%d of %d tasks were not done within %g seconds"):format(state.left, #futures,
      options.timeout))
  end
  return futures
end

M.prefix_of = prefix_of

return M
