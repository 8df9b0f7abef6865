-- For fuzz_lua_json.c: returns a function that gives each call of the control plane the same answer, and raises unless
-- the call gave a value or raised an error object, without the token in it.
package.path = "lua/?.lua;lua/?/init.lua;" .. package.path

local core = require "saturn.core"
local cloud = require "saturn.cloud"
local clusters = require "saturn.cloud.cluster"
local errors = require "saturn.error"
local loop = require "saturn.loop"

local TOKEN = "fuzz-token"
local STATUS = { 200, 200, 200, 200, 201, 204, 400, 401, 404, 409, 500 }

local status, body

local Response = {}
Response.__index = Response
Response.__close = function() end
function Response:done() return self ~= nil end
function Response:response() return { status = self.status, body = self.body, headers = { ["x-request"] = body } } end
function Response:close() self.closed = true end

core.http.start = function()
  return setmetatable({ status = status, body = body }, Response)
end
loop.sleep = function() end

local connection = cloud.connect { base_url = "https://fuzz.invalid", token = TOKEN, refresh_token = "refresh",
  retries = 0, external = true, on_warning = function() end }

local function on_status(word, elapsed, details)
  assert(type(word) == "string" and type(elapsed) == "number" and type(details) == "table")
end

local function cluster()
  return clusters.new(connection, "fuzz", { shutdown_on_close = false })
end

local OPTIONS = { wait_timeout = 0, on_status = on_status, worker_size = "large", n_workers = 2 }

local CALLS = {
  function() return connection:ping() end,
  function() return connection:user() end,
  function() return connection:sizes() end,
  function() return connection:clusters() end,
  function() return connection:workspaces() end,
  function() return connection:resource("workspace", "large"):status() end,
  function() return connection:resource("deployment", "large"):clusters() end,
  function() return connection:resource("job", "large"):start { wait_timeout = 0, wait = true } end,
  function() return connection:cluster(OPTIONS) end,
  function() return connection:cluster { name = "large", wait_timeout = 0 } end,
  function() return connection:cluster { cluster_id = "large", wait_timeout = 0, on_running = "reset" } end,
  function() return connection:cluster { cluster_url = "https://fuzz.invalid/large" } end,
  function() return connection:reset(OPTIONS) end,
  function() return cluster():status() end,
  function() return cluster():describe() end,
  function() return cluster():refresh() end,
  function() return cluster():scheduler_info() end,
  function() return cluster():wait_for_workers(3, 0) end,
  function() return cluster():scale(3) end,
  function() return cluster():adapt(1, 3) end,
  function() return cluster():logs() end,
  function() return cluster():summary() end,
  function() return cluster():workers() end,
  function() return cluster():history() end,
  function() return cluster():start { wait_timeout = 0 } end,
  function() return cluster():restart { wait_timeout = 0 } end,
  function() return cluster():stop() end,
  function() return cluster():close() end,
}

-- ---- JSON from bytes, each of which chooses a part -----------------------------------------------------------------

local NAMES = { "id", "name", "status", "state", "spec", "owner", "recipes", "type", "next_last_key", "next_key",
  "dask_clusters", "server_options", "size", "display", "display_name", "disabled", "disabled_message", "errors",
  "warnings", "message", "error", "detail", "error_code", "scheduler_address", "dashboard_link", "workers", "n_workers",
  "logs", "log", "text", "pod_name", "component", "time", "history", "worker_size", "workspace_id", "deployment_id",
  "job_id", "access_token", "refresh_token", TOKEN, "0", "" }
local STRINGS = { "", "large", "fuzz", "ready", "running", "pending", "stopped", "closed", "error", "expired", "job",
  "workspace", "tls://host:8786", "tcp://host:1", "http://host/status", TOKEN, "a" .. TOKEN .. "\\u0000", "%s%d", "<p>",
  "\\ud83d\\ude00", "\\u001b[2J", "\xff" }
local NUMBERS = { "0", "1", "-1", "2", "3.5", "1e300", "-0.0", "9223372036854775808", "1e999" }

local function reader(bytes)
  local at = 0
  return function(n)
    at = at + 1
    return (bytes:byte(at) or 0) % n + 1
  end
end

local function json(choose, depth)
  local what = depth > 6 and choose(4) or choose(9)
  if what == 1 then return "null" end
  if what == 2 then return choose(2) == 1 and "true" or "false" end
  if what == 3 then return NUMBERS[choose(#NUMBERS)] end
  if what == 4 then return '"' .. STRINGS[choose(#STRINGS)] .. '"' end
  local parts = {}
  for i = 1, choose(5) - 1 do
    local name = what > 6 and ('"%s":'):format(NAMES[choose(#NAMES)]) or ""
    parts[i] = name .. json(choose, depth + 1)
  end
  local text = table.concat(parts, ",")
  return what > 6 and "{" .. text .. "}" or "[" .. text .. "]"
end

-- ---- one run --------------------------------------------------------------------------------------------------------

local function shown(value)
  local text = tostring(value)
  assert(not text:find(TOKEN, 1, true), "the token is shown")
end

-- The first byte chooses the call, the second the status, and whether the rest is the text itself.
return function(input)
  local choose = reader(input)
  local call, kind = CALLS[choose(#CALLS)], choose(256)
  status = STATUS[kind % #STATUS + 1]
  body = kind > 200 and input:sub(3) or json(choose, 0)
  local ok, result = pcall(call)
  if not ok and not errors.is_error(result) then error(result, 0) end
  shown(result)
  if type(result) == "table" then
    for _, item in pairs(result) do shown(item) end
  end
end
