-- The whole job, from a token to results: lua examples/demo.lua
--
-- It runs on the service that comes with the library. For a Saturn installation only the first call differs:
--   saturn.connect{ base_url = "https://app.community.saturnenterprise.io", token_file = "token.json" }

local saturn = require "saturn"
local py = saturn.py

local conn <close> = saturn.connect("local")
print("connected", conn)
for i, size in ipairs(conn:sizes()) do
  if i <= 3 then print("size", size.name, size.display) end
end

local cluster <close> = conn:cluster{
  n_workers = 2, worker_size = "medium", nthreads = 1, shutdown_on_close = true,
  on_status = function(status, elapsed) print("cluster", ("%s after %.1f s"):format(status, elapsed)) end,
}
print("dashboard", cluster.dashboard_link)

local client <close> = cluster:client()
print("workers", client:wait_for_workers(2, 60))
print("client", client)

-- a function by name, then many at once, then a result that needs the others
print("submit", client:submit("operator.add", 1, 2):result())
local squares = client:map("operator.mul", { 1, 2, 3, 4 }, { 1, 2, 3, 4 })
print("map", table.concat(client:gather(squares), " "), "sum " .. client:submit("sum", squares):result())

-- a NumPy array comes back as an array; keyword arguments are in py.kw
local array = client:submit("numpy.linspace", 0, 1, py.kw{ num = 1000 }):result()
print("array", array.typename, "mean " .. array:mean())

-- a function from source, and a task that fails
local inverse = py.fn[[
def inverse(x):
    return 1 / x
]]
print("source", client:submit(inverse, 8):result())
local ok, err = pcall(function() return client:submit(inverse, 0):result() end)
print("failed", not ok and err.type)
print(err)

print("scale", cluster:scale(3))
print("workers", client:wait_for_workers(3, 60))
client:close()
cluster:close()
print("closed", cluster:status())
