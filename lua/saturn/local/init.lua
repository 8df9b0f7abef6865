--- The embedded service: Saturn's cluster API on loopback, with Dask's LocalCluster behind it, as a child process.
--
-- The child's standard input is a pipe from this process, so it ends with this object, with the Lua state, and with
-- this process even when that is killed.

-- luacheck: ignore 211/_.* (to be closed at the end of their scope is all they are for)

local core = require "saturn.core"
local errors = require "saturn.error"
local loop = require "saturn.loop"

local MODULE, FILE = ...
local START_TIMEOUT = 30
local CLOSE_TIMEOUT = 15
local SIGKILL = 9
local LONGEST_ANSWER = 65536
local CANDIDATES = { "python3", "/usr/bin/python3", "python" }
local INSTALL = 'apt install python3-distributed python3-cryptography, or pip install "dask[distributed]" cryptography'

---@class saturn.LocalService
---@field base_url string
---@field token string
---@field refresh_token string what POST /api/auth/token takes
---@field token_file string? where the token was written
---@field ca_file string? with `https`: the certificate that signed the service's own
---@field pid integer
---@field python string the program that runs it
local Service = {}
Service.__index = Service
Service.__name = "saturn.local_service"

local M = { Service = Service }

-- Every process that was started and whose end was not seen yet. Held here, it is not finalized together with a
-- service that is collected; the next start collects the status of those that have ended since.
local processes = {}

local function reap()
  for process in pairs(processes) do
    if process:poll() then
      processes[process] = nil
      process:close()
    end
  end
end

local function script()
  local file = FILE
  if type(file) ~= "string" or not file:find("%.lua$") then
    file = package.searchpath(MODULE or "saturn.local", package.path) or debug.getinfo(1, "S").source:sub(2)
  end
  return (file:gsub("[^/]*$", "")) .. "service.py"
end

local function arguments(python, options)
  local argv = { python, script() }
  local function add(word) argv[#argv + 1] = word end
  if options.test_control then add "--test-control" end
  if options.require_project_id then add "--require-project-id" end
  if options.verbose then add "--verbose" end
  if options.token_file then add("--token-file=" .. options.token_file) end
  if options.https then add("--https=" .. options.https) end
  return argv
end

local function json_string(text, name)
  local value = text:match('"' .. name .. '": "(.-[^\\])"')
  return value and (value:gsub("\\u(%x%x%x%x)", function(hex) return utf8.char(tonumber(hex, 16)) end)
    :gsub('\\(["\\/])', "%1"))
end

-- The first line of the child's standard output; what it said on standard error when there is none.
local function first_line(process, deadline)
  local text, said, ended = "", "", false
  local _out <close> = loop.watch(process:fd(), "r")
  local function ready()
    repeat
      local piece, why = process:read()
      text = text .. (piece or "")
      ended = why ~= nil and why ~= "again"
    until not piece
    return ended or text:find("\n", 1, true) or #text > LONGEST_ANSWER
  end
  if not loop.poll(ready, deadline - loop.now()) then
    errors.raise("timeout", "the local service did not start in time; give it longer with the option timeout")
  end
  local line = text:match("^[^\n]*\n")
  if not line and process:fd "stderr" then
    local _err <close> = loop.watch(process:fd "stderr", "r")
    loop.poll(function()
      repeat
        local piece, why = process:read_stderr()
        said = (said .. (piece or "")):sub(-LONGEST_ANSWER)
        ended = why ~= nil and why ~= "again"
      until not piece
      return ended
    end, 2)
  end
  return line, said
end

-- A service, or nil and why not and what to do about it.
local function try(python, options, deadline)
  local process, kind, message = core.process.spawn(arguments(python, options),
    { group = true, stderr = options.verbose and "inherit" or "pipe" })
  if not process then
    if kind == "connect" then return nil, message end
    errors.raise(kind, message)
  end
  processes[process] = true
  local _guard <close> = setmetatable({}, { __close = function()
    if process then
      process:kill(SIGKILL)
      process:close_stdin()
    end
  end })
  local line, said = first_line(process, deadline)
  if not line then
    local last = said:match("([^\n]+)%s*$")
    return nil, python .. " could not run the local service" .. (last and ": " .. last or "")
  end
  local base_url, token = json_string(line, "base_url"), json_string(line, "token")
  -- another Python would fail as this one did
  local failed = json_string(line, "failed")
  if failed then errors.raise("connect", "the local service could not start: " .. failed) end
  if not base_url or not token then
    return nil, json_string(line, "error") or (python .. " gave an answer that is none"), json_string(line, "hint")
  end
  local service = setmetatable({
    base_url = base_url, token = token, refresh_token = json_string(line, "refresh_token"),
    token_file = json_string(line, "token_file"), ca_file = json_string(line, "ca_file"),
    pid = process:pid(), python = python, process = process,
  }, Service)
  process = nil
  return service
end

local OPTIONS = {
  python = "string", timeout = "number", test_control = "boolean", token_file = "string",
  require_project_id = "boolean", https = "string", verbose = "boolean",
}

--- Starts a service. `python` (else the variable SATURN_PYTHON, else the first of the usual ones that has Dask) runs
--- it; `token_file` is written with the token for this user only, and removed at the end; `verbose` shows what the
--- workers print. For tests: `test_control`, `require_project_id`, `https` ("valid", "expired", "wrong_host").
---@param options table?
---@return saturn.LocalService
function M.start(options)
  options = errors.options(options, OPTIONS)
  reap()
  local named = options.python or os.getenv "SATURN_PYTHON"
  if named == "" then named = nil end
  local deadline = loop.now() + (options.timeout or START_TIMEOUT)
  local reasons, advice = {}, nil
  for _, python in ipairs(named and { named } or CANDIDATES) do
    local service, reason, hint = try(python, options, deadline)
    if service then return service end
    reasons[#reasons + 1] = reason
    if hint and (not advice or hint:find "^apt ") then advice = hint end
  end
  errors.raise("connect", ("the local service needs a Python with Dask (%s). Install it with: %s"):format(
    table.concat(reasons, "; "), advice or INSTALL))
end

--- True while the process runs.
---@return boolean
function Service:alive()
  return self.process ~= nil and self.process:poll() == nil
end

--- Ends the service with every cluster it runs, and waits until it is gone. Safe to call twice.
---@param timeout number? seconds until it is killed; default 15
function Service:close(timeout)
  local process = self.process
  if not process then return end
  self.process = nil
  process:close_stdin()
  local deadline = loop.now() + (timeout or CLOSE_TIMEOUT)
  do -- its standard output stays open until it ends
    local _watch <close> = loop.watch(process:fd(), "r")
    loop.poll(function()
      local text, why = process:read()
      return not text and why ~= "again"
    end, timeout or CLOSE_TIMEOUT)
  end
  while not process:poll() and loop.now() < deadline do loop.sleep(0.002) end
  if not process:poll() then
    process:kill(SIGKILL)
    loop.poll(function() return process:poll() end, 1)
  end
  reap()
end

-- A finalizer must not wait: the end of its standard input is what the child goes by.
function Service:__gc()
  local process = self.process
  if not process then return end
  self.process = nil
  process:close_stdin()
end

Service.__close = function(self) self:close() end

function Service:__tostring()
  return ("saturn.local_service %s%s"):format(self.base_url, self.process and "" or " (closed)")
end

return M
