local saturn = require "saturn"
local client, now = saturn.client(arg[1]), saturn.loop.now

local times = {}
for i = -19, 200 do
  local start = now()
  assert(client:submit("operator.add", i, 1):result() == i + 1)
  if i > 0 then times[i] = now() - start end
end
table.sort(times)
print("median " .. times[100])
print("p90 " .. times[180])
client:close()
