--- Where a Dask server is and with what credentials: checks the options and reads certificates from files.

local errors = require "saturn.error"
local path = require "saturn.path"

local M = {}

local LIMITS_KNOWN = { message = "number", frame = "number", depth = "number", nodes = "number", memo = "number" }
local TLS_KNOWN = { ca = "string", cert = "string", key = "string", verify_host = "boolean", server_name = "string" }

local function refuse(name, value, why)
  errors.raise("tls", ("tls.%s: %s: give the PEM text itself or the path of a file"):format(name,
    path.reason(value, why)))
end

-- A text with a line break or PEM's first word is PEM itself, anything else the path of a file. In variables and in
-- JSON that was escaped twice, PEM has \n for its line breaks.
local function pem(value, name)
  if not value or value:find("\n", 1, true) then return value end
  if value:find("-----BEGIN", 1, true) then return (value:gsub("\\r", ""):gsub("\\n", "\n")) end
  local file, why = io.open(value, "rb")
  if not file then refuse(name, value, why) end
  local text, read_why = file:read("a")
  file:close()
  if not text then refuse(name, value, value .. ": " .. read_why) end
  return text
end

--- The endpoint table that the C faces take.
---@param address string
---@param options table timeout, tls, limits, proxy
function M.new(address, options)
  local tls = errors.options(options.tls, TLS_KNOWN, 3)
  errors.options(options.limits, LIMITS_KNOWN, 3)
  return {
    address = address,
    timeout = options.timeout or 30,
    limits = options.limits,
    proxy = options.proxy,
    ca = pem(tls.ca, "ca"),
    cert = pem(tls.cert, "cert"),
    key = pem(tls.key, "key"),
    verify_host = tls.verify_host,
    server_name = tls.server_name,
  }
end

--- The same credentials for another server of the cluster (a worker).
function M.to(endpoint, address)
  local other = {}
  for name, value in pairs(endpoint) do other[name] = value end
  other.address, other.server_name = address, nil
  return other
end

return M
