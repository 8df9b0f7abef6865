local saturn = require "saturn"
local client, now = saturn.client(arg[1]), saturn.loop.now
local BYTES = 200e6

local file = assert(io.open("/dev/urandom", "rb"))
local array = saturn.array.from_string(file:read(BYTES | 0), "i8", { BYTES // 8 | 0 })
file:close()
local best = math.huge
for _ = 1, 6 do
  local start = now()
  local future = client:scatter(array, { direct = arg[2] == "direct", hash = false })
  best = math.min(best, now() - start)
  assert(future:done())
  future:release()
  saturn.loop.sleep(0.2) -- the worker frees it meanwhile
end
print("rate " .. BYTES / best)
client:close()
