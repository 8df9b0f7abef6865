-- A network that fails on command, for the specs: a TCP proxy in a process of its own.
--
--   local proxy <close> = require "spec.support.proxy".start(cluster.address)
--   proxy.address --> the same scheme on another port
local dask = require "spec.support.dask"
local support = require "spec.support"

local Proxy = {}
Proxy.__index = Proxy
Proxy.__name = "spec.proxy"

local proxy = {}

-- Starts one in front of an address; it ends with :stop(), when it is collected, and with this process.
function proxy.start(address)
  local scheme, host, port = address:match("^(%a+)://(.+):(%d+)$")
  local dir <close> = support.tmpdir()
  local fifo = dir.path .. "/in"
  support.shell("mkfifo " .. support.quote(fifo))
  local self = setmetatable({}, Proxy)
  self._out = assert(io.popen(("exec env -u LD_PRELOAD %s -B spec/support/proxy.py %s %s <%s"):format(
    support.quote(dask.python()), support.quote(host), port, support.quote(fifo)), "r"))
  self._in = assert(io.open(fifo, "w"))
  local own = assert(self._out:read "l", "the proxy of the tests did not start")
  self.address = ("%s://127.0.0.1:%s"):format(scheme, own)
  return self
end

local function ask(self, command)
  self._in:write(command, "\n")
  self._in:flush()
  local answer = assert(self._out:read "l", "the proxy of the tests died")
  if answer ~= "ok" and not tonumber(answer) then error("the proxy of the tests: " .. answer, 3) end
  return tonumber(answer)
end

-- Resets all connections.
function Proxy:cut() ask(self, "cut") end

-- Resets them once so many more bytes have gone to the server ("up") or come from it ("down").
function Proxy:cut_after(way, bytes) ask(self, ("cut_after %s %d"):format(way, bytes)) end

-- Lets nothing through any more, and breaks nothing; lets it through again.
function Proxy:hold() ask(self, "hold") end
function Proxy:go() ask(self, "go") end

-- Takes no new connections; does again.
function Proxy:refuse() ask(self, "refuse") end
function Proxy:accept() ask(self, "accept") end

-- Undoes whatever was done to it.
function Proxy:mend() ask(self, "mend") end

-- How many connections were made since the last count.
function Proxy:count() return ask(self, "count") end

function Proxy:stop()
  local input, output = self._in, self._out
  self._in, self._out = nil, nil
  if input then input:close() end
  if output then output:close() end
end

Proxy.__gc = Proxy.stop
Proxy.__close = Proxy.stop

return proxy
