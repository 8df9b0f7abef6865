-- Connect, ready, scale, close: requests sent and wall time, beside dask-saturn 0.4.4 against the same service, which
-- is the one in lua/saturn/local with a real Dask. Both sides are processes of their own.
--
-- Of dask-saturn's time on a stopped cluster 5 to 9 seconds are its first pause between two looks. Against a service
-- on another machine this library makes the same pause; one on loopback it asks more often.
--
-- PYTHON names a Python with Dask (tools/dask-env finds one). dask-saturn comes from PyPI into a folder beside the
-- environments; where PyPI cannot be reached its side is left out.

local http = require "saturn.cloud.http"
local loop = require "saturn.loop"
local service = require "saturn.local"
local settings = require "saturn.cloud.settings"

local PYTHON = os.getenv "PYTHON" or "/usr/bin/python3"
local LUA = os.getenv "LUA" or arg and arg[-1] or "lua5.4"
local PACKAGES = "dask-saturn==0.4.4 requests urllib3 certifi idna charset-normalizer"
local ROUNDS = 3

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

local function dask_saturn()
  local cache = os.getenv "XDG_CACHE_HOME" or (os.getenv "HOME" or "/tmp") .. "/.cache"
  local path = cache .. "/saturn/dask-saturn-0.4.4"
  local mark = io.open(path .. "/dask_saturn/__init__.py", "rb")
  if mark then
    mark:close()
    return path
  end
  local install = ("%s -m pip install --quiet --no-deps --target %s %s >/dev/null 2>&1"):format(quote(PYTHON),
    quote(path), PACKAGES)
  return os.execute(install) and path or nil
end

-- The token goes by a file that only this user can read: an argument would be seen by all.
local token_file = os.tmpname()

local function run(server, command, close)
  local file = assert(io.open(token_file, "w"))
  file:write(server.token)
  file:close()
  local env = ("SATURN_BASE_URL=%s SATURN_TOKEN=\"$(cat %s)\" %s"):format(quote(server.base_url), quote(token_file),
    close and "BENCH_CLOSE=1 " or "")
  local started = loop.now()
  local ok = os.execute(env .. command .. " >/dev/null 2>&1")
  return loop.now() - started, ok
end

local function median(list)
  table.sort(list)
  return list[(#list + 1) // 2]
end

local function measure(name, situation, command)
  local server <close> = service.start { test_control = true, python = PYTHON }
  local calls = http.new(settings.resolve { base_url = server.base_url, token = server.token, proxy = "" })
  local function requests() return calls:call({ path = "_test/requests", query = { clear = "true" } }).requests end
  calls:call { path = "api/user" }
  -- "running": the cluster is there and stays; "stopped": it is started and closed in each round
  local close = situation == "stopped"
  if not close then run(server, command, false) end
  local times, counts = {}, {}
  for round = 1, ROUNDS do
    requests()
    local seconds, ok = run(server, command, close)
    if not ok then
      print(("%-12s %-10s failed"):format(name, situation))
      return
    end
    times[round], counts[round] = seconds, #requests()
  end
  print(("%-12s %-10s %6d %11.2f s"):format(name, situation, median(counts), median(times)))
end

print(("%-12s %-10s %6s %13s"):format("client", "cluster", "calls", "wall"))
local path = dask_saturn()
for _, situation in ipairs { "stopped", "running" } do
  measure("saturn", situation, quote(LUA) .. " bench/control_plane_client.lua")
  if path then
    measure("dask-saturn", situation, ("%s bench/control_plane_client.py %s"):format(quote(PYTHON), quote(path)))
  end
end
if not path then print "dask-saturn 0.4.4 cannot be installed here: its side is left out" end

os.remove(token_file)
