local saturn = require "saturn"
local client = saturn.client(arg[1])
local N = 10000

local list = {}
for i = 1, N do list[i] = i end
assert(client:submit("operator.neg", 1):result() == -1)
local wall, cpu = saturn.loop.now(), os.clock()
local values = client:gather(client:map("operator.neg", list))
print("task_cpu " .. (os.clock() - cpu) / N)
print("elapsed " .. saturn.loop.now() - wall)
assert(#values == N and values[N] == -N)
client:close()
