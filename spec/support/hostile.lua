-- Peers that break Dask's protocol: see hostile.py.
--
--   local peers <close> = hostile.start()
--   peers:address "silent" --> "tcp://127.0.0.1:40123"
--   peers.keys.values      --> names of tasks to which the peer "fake" answers in a bad way
local cjson = require "cjson"
local dask = require "spec.support.dask"
local support = require "spec.support"

local hostile = {}

local Peers = {}
Peers.__index = Peers
Peers.__name = "spec.peers"

function hostile.start()
  local dir <close> = support.tmpdir()
  local fifo = dir.path .. "/in"
  support.shell("mkfifo " .. support.quote(fifo))
  local self = setmetatable({}, Peers)
  self._out = assert(io.popen(("exec env -u LD_PRELOAD %s -B spec/support/hostile.py <%s"):format(
    support.quote(dask.python()), support.quote(fifo)), "r"))
  self._in = assert(io.open(fifo, "w"))
  local line = assert(self._out:read "l", "the peers did not start")
  local told = cjson.decode(line)
  self.ports, self.keys = told.ports, told.keys
  return self
end

function Peers:address(name)
  return ("tcp://127.0.0.1:%d"):format(assert(self.ports[name], name))
end

function Peers:stop()
  local input, output = self._in, self._out
  self._in, self._out = nil, nil
  if input then input:close() end
  if output then output:close() end
end

Peers.__gc, Peers.__close = Peers.stop, Peers.stop

return hostile
