-- One life of a cluster: connect, ready, scale, close. Run by control_plane.lua.
local conn <close> = require("saturn.cloud").connect()
local cluster = conn:cluster { n_workers = 1, nthreads = 1 }
cluster:scale(2)
if os.getenv "BENCH_CLOSE" then cluster:close() end
