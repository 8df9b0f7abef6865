-- Real Dask for the specs: schedulers with workers of a named release, and its Python as an oracle.
--
--   local dask = require "spec.support.dask"
--   local cluster <close> = dask.start{ workers = 2 }      -- of the release in $DASK
--   cluster.address --> "tcp://127.0.0.1:40123"
--
-- Knows nothing of saturn. Everything a cluster started is gone after cluster:stop(), when it is collected, and when
-- this process dies in whatever way: see cluster.py, which does the work.
local cjson = require "cjson"
local support = require "spec.support"

local dask = {}

dask.default_version = "2022.12.1"

-- The release the specs are run for.
function dask.version()
  local v = os.getenv "DASK"
  return v and v ~= "" and v or dask.default_version
end

local pythons = {}

-- The path of a Python that has this release; an error if it cannot be had here.
function dask.python(version)
  version = version or dask.version()
  if not pythons[version] then
    local path = support.shell("tools/dask-env " .. support.quote(version))
    pythons[version] = (path:gsub("%s+$", ""))
  end
  return pythons[version]
end

-- What a Python program of this release prints; an error with its stderr when it fails or takes more than two minutes.
function dask.run_python(version, code, stdin)
  local dir <close> = support.tmpdir()
  support.write_all(dir.path .. "/program.py", code)
  support.write_all(dir.path .. "/stdin", stdin or "")
  return support.shell(("%senv -u LD_PRELOAD %s -B %s <%s"):format(support.bounded(120),
    support.quote(dask.python(version)), support.quote(dir.path .. "/program.py"),
    support.quote(dir.path .. "/stdin")))
end

local Cluster = {}
Cluster.__index = Cluster
Cluster.__name = "spec.cluster"

-- cjson reads every number as a float, and null as a value.
local function plain(v)
  if type(v) == "number" then return math.tointeger(v) or v end
  if v == cjson.null then return nil end
  if type(v) == "table" then
    for k, x in pairs(v) do v[k] = plain(x) end
  end
  return v
end

local function receive(self)
  local line = self._out and self._out:read "l"
  if not line then
    self:stop()
    error("the Dask of the tests died", 0)
  end
  local answer = plain(cjson.decode(line))
  if not answer.ok then error("the Dask of the tests: " .. tostring(answer.error), 0) end
  return answer
end

local function ask(self, request)
  assert(self._in, "the cluster is stopped")
  self._in:write(cjson.encode(request), "\n")
  self._in:flush()
  return receive(self)
end

-- An object without fields would be written as an array.
local function object(t)
  return t and next(t) ~= nil and t or nil
end

-- Starts a scheduler and its workers and returns when all are up. Options, none of them needed:
--   version         a release, else $DASK
--   workers         how many (2; as many as names)    names      their names ("w0", "w1", ...)
--   nthreads        of each worker (1)                resources  of each worker
--   memory_limit    of each worker ("2GiB")           nanny      true: under a nanny each
--   tls             true: with certificates of its own; see .tls
--   scheduler_args, worker_args   more arguments of distributed's Scheduler and Worker
--   config          Dask's configuration, {["distributed.comm.compression"] = "lz4"}
--   pythonpath      a list of directories
-- Fields: address, dashboard (a port), version, directory, scheduler_pid, workers = { {name, pid, address}, ... },
-- tls = { ca, cert, key (PEM texts), ca_file, cert_file, key_file (paths) }.
function dask.start(options)
  options = options or {}
  local request = { op = "start" }
  for k, v in pairs(options) do request[k] = v end
  for _, k in ipairs { "resources", "scheduler_args", "worker_args", "config", "names", "pythonpath" } do
    request[k] = object(request[k])
  end
  request.version = nil
  local python = dask.python(options.version)

  -- The pipe to its stdin is a FIFO that is unlinked as soon as both sides have it open.
  local dir <close> = support.tmpdir()
  local fifo = dir.path .. "/in"
  support.shell("mkfifo " .. support.quote(fifo))
  local self = setmetatable({}, Cluster)
  self._out = assert(io.popen(("exec env -u LD_PRELOAD %s -B spec/support/cluster.py <%s"):format(
    support.quote(python), support.quote(fifo)), "r"))
  self._in = assert(io.open(fifo, "w"))
  local ok, answer = pcall(ask, self, request)
  if not ok then
    self:stop()
    error(answer, 2)
  end
  answer.ok = nil
  for k, v in pairs(answer) do self[k] = v end
  return self
end

-- Kills worker number i of .workers and waits for its end; "TERM" lets it say goodbye.
function Cluster:kill_worker(i, signal)
  ask(self, { op = "kill_worker", index = i, signal = signal == "TERM" and 15 or 9 })
end

-- One more worker; takes name, nthreads, resources, memory_limit, nanny, worker_args. Returns its {name, pid, address}.
function Cluster:add_worker(options)
  local request = { op = "add_worker" }
  for k, v in pairs(options or {}) do request[k] = v end
  request.resources, request.worker_args = object(request.resources), object(request.worker_args)
  local worker = ask(self, request)
  worker.ok = nil
  self.workers[#self.workers + 1] = worker
  return worker
end

-- Freezes and thaws the scheduler: it accepts connections and says nothing.
function Cluster:stop_scheduler() ask(self, { op = "scheduler", signal = "SIGSTOP" }) end
function Cluster:cont_scheduler() ask(self, { op = "scheduler", signal = "SIGCONT" }) end

-- Ends the scheduler at once, or with "TERM" in its orderly way.
function Cluster:kill_scheduler(signal) ask(self, { op = "scheduler", signal = "SIG" .. (signal or "KILL") }) end

-- A new scheduler process on the same address; it knows nothing of what was.
function Cluster:restart_scheduler()
  local answer = ask(self, { op = "restart_scheduler" })
  self.scheduler_pid, self.dashboard = answer.scheduler_pid, answer.dashboard
end

-- The log of "scheduler" or of a worker by name.
function Cluster:log(name) return ask(self, { op = "log", name = name or "scheduler" }).log end

function Cluster:stop()
  local input, output = self._in, self._out
  self._in, self._out = nil, nil
  if input then
    pcall(function() input:write('{"op": "stop"}\n'):flush() end)
    input:close()
  end
  if output then output:close() end -- waits for its end
end

Cluster.__gc = Cluster.stop
Cluster.__close = Cluster.stop
function Cluster:__tostring() return "spec.cluster: " .. tostring(self.address) end

return dask
