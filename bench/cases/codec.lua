local saturn = require "saturn"
local pickle, now = require("saturn.core").pickle, saturn.loop.now

local make = {
  integers = function(i) return i * 7919 end,
  floats = function(i) return i / 7 end,
  strings = function(i) return "item " .. i end,
  texts = function(i) return ("%050d"):format(i) end,
  rows = function(i) return { id = i, name = "row " .. i, value = i / 3, good = i % 2 == 0 } end,
}
local list = {}
for i = 1, arg[2] == "rows" and 100000 or 1000000 do list[i] = make[arg[2]](i) end

local function best_of(fn)
  local best = math.huge
  for _ = 1, 3 do
    collectgarbage()
    local start = now()
    fn()
    best = math.min(best, now() - start)
  end
  return best
end

local text = pickle.dumps(list)
print("encode " .. best_of(function() pickle.dumps(list) end))
list = nil
print("decode " .. best_of(function() assert(pickle.loads(text)) end))
