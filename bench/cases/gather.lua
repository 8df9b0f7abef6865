local saturn = require "saturn"
local client, now = saturn.client(arg[1]), saturn.loop.now
local parts = arg[2] == "four" and 4 or 1
local direct = arg[2] ~= "scheduler"
local BYTES = 200e6

local random = saturn.py.fn(([[
import numpy, pandas
def random(n, seed):
    values = numpy.random.default_rng(seed).integers(0, 2**63, n)
    return %s
]]):format(arg[2] == "frame" and "pandas.DataFrame(values.reshape(-1, 10))" or "values"))
local futures, best = {}, math.huge
for i = 1, parts do futures[i] = client:submit(random, BYTES // 8 // parts | 0, i) end
saturn.wait(futures)
for _ = 1, 6 do
  local start = now()
  local arrays = client:gather(futures, { direct = direct })
  best = math.min(best, now() - start)
  if arg[2] == "frame" then
    assert(#arrays[1] == BYTES // 80)
    arrays = nil -- luacheck: no unused
    collectgarbage()
  else
    assert(arrays[parts].size == BYTES // 8 // parts)
    for _, array in ipairs(arrays) do array:close() end
  end
end
print("rate " .. BYTES / best)

-- The yardstick: the same bytes from the same worker into a plain C program.
if arg[2] == "direct" and arg[3] then
  local key = futures[1].key
  local host, port = client:who_has(futures)[key][1]:match("^%a+://(.+):(%d+)$")
  local pipe = assert(io.popen(("%s %s %s %s"):format(arg[3], host, port, key)))
  local raw = tonumber(pipe:read("a"):match("rate (%d+)"))
  pipe:close()
  print("share " .. BYTES / best / raw)
end
client:close()
