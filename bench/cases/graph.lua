-- Nothing is sent: what is measured is what the client does before the bytes leave.
local core = require "saturn.core"
local ops = require "saturn.dask.ops"
local now = require("saturn.loop").now
local N = tonumber(arg[2])

local release = ops.release(os.getenv("DASK"))
local listener = assert(require("saturn.loop").reactor())
local session = assert(core.session.open(listener, { address = "tcp://127.0.0.1:1", id = "bench" }))
local function build()
  local graph, prefix = session:graph(release), core.session.random(12)
  local args = {}
  for i = 1, N do
    local key = ("add-%s%08x"):format(prefix, i)
    args[1], args[2] = i, 1
    assert(graph:task(key, "operator", "add", nil, args, 2))
    graph:want(key)
  end
  return graph
end
local best, graph = math.huge, nil
for _ = 1, tonumber(arg[3]) do
  collectgarbage()
  local start = now()
  graph = build()
  best = math.min(best, now() - start)
end
local _, bytes = graph:size()
print("task " .. best / N)
print("bytes " .. bytes / N)
