-- What Dask takes apart: each integer of the list is a frame with a header of its own.
local saturn = require "saturn"
local client, now = saturn.client(arg[1]), saturn.loop.now
local ITEMS = 100000

local future = client:submit(saturn.py.fn "lambda n: list(range(n))", ITEMS)
saturn.wait { future }
local cpu, start = os.clock(), now()
local list = future:result()
assert(#list == ITEMS and list[ITEMS] == ITEMS - 1)
print("item_cpu " .. (os.clock() - cpu) / ITEMS)
print("elapsed " .. now() - start)
client:close()
