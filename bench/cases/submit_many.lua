local saturn = require "saturn"
local client = saturn.client(arg[1])
local N = 10000

assert(client:submit("operator.neg", 1):result() == -1)
local cpu, futures = os.clock(), {}
for i = 1, N do futures[i] = client:submit("operator.neg", i) end
print("task_cpu " .. (os.clock() - cpu) / N)
saturn.wait(futures)
client:close()
