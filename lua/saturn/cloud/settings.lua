--- Where the service is and who we are: options, environment and profiles, in one order.
--
-- Each value is taken from the first of: the argument (a profile that is named in the arguments counts as one), the
-- SATURN_ variables, BASE_URL, the default profile of the settings file. Nothing is read before `resolve` is called.

local core = require "saturn.core"
local errors = require "saturn.error"
local json = require "saturn.cloud.json"
local paths = require "saturn.path"

local M = {}

--- Options of `saturn.connect`, with their types.
M.known = {
  base_url = "string", token = "string", token_file = "string", refresh_token = "string", saturn_token = "string",
  project_id = "string", profile = "string", external = "boolean", version = "string",
  timeout = "number", connect_timeout = "number", ca_file = "string", ca_path = "string", proxy = "string",
  retries = "integer", retry_delay = "number", max_body = "integer", poll_min = "number", poll_max = "number",
  on_request = "callable", on_warning = "callable",
}

--- Checks types, and that numbers are not negative. Misuse is raised `level` up.
---@param options table?
---@param level integer
---@return table options
function M.check(options, level)
  options = errors.options(options, M.known, level + 1)
  for name, value in pairs(options) do
    if type(value) == "number" and (value < 0 or value ~= value) then
      errors.misuse(level + 1, "option '%s' must be a number, 0 or more", name)
    end
  end
  return options
end

-- The version of dask-saturn whose protocol this is; the service compares it.
local PROTOCOL_VERSION = "0.4.4"

local function env(name)
  local value = os.getenv(name)
  if value ~= "" then return value end
end

--- The settings file: saturn/config.json in the XDG config directory. nil where there is no home.
---@return string?
function M.config_path()
  local directory = env "XDG_CONFIG_HOME"
  if not directory then
    local home = env "HOME"
    directory = home and home .. "/.config"
  end
  return directory and directory .. "/saturn/config.json"
end

local function exists(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

-- A token that was given for its file is not shown.
local function read_private(path)
  local text, kind, why = core.keypair.read_secret(path)
  if not text then errors.raise(kind, paths.reason(path, why)) end
  return text
end

local function read_config()
  local path = M.config_path()
  if not path or not exists(path) then return { profiles = {} }, path end
  local config, message = json.decode(read_private(path))
  if type(config) ~= "table" then
    errors.raise("value", ("%s is not a JSON object (%s)"):format(path, message or "another JSON value"))
  end
  if type(config.profiles) ~= "table" then config.profiles = {} end
  return config, path
end

local function profile_names(config)
  local names = {}
  for name in pairs(config.profiles) do names[#names + 1] = tostring(name) end
  table.sort(names)
  return #names > 0 and "the profiles are " .. table.concat(names, ", ") or "it holds no profiles"
end

-- The named profile, or (name nil) the default one, or {}.
local function read_profile(name)
  local config, path = read_config()
  local wanted = name or config.default
  if wanted == nil then return {} end
  local profile = config.profiles[wanted]
  if type(profile) ~= "table" then
    errors.raise("value", ("there is no profile '%s' in %s: %s"):format(tostring(wanted), path or "the settings file",
      profile_names(config)))
  end
  local ok, problem = pcall(M.check, profile, 1)
  if not ok then
    errors.raise("value", ("profile '%s' in %s: %s"):format(wanted, path, problem:gsub("^[^:\n]+:%d+: ", "")))
  end
  return profile
end

-- ---- tokens ------------------------------------------------------------------------------------------------------

local function trim(text)
  return (text:gsub("^%s+", ""):gsub("%s+$", ""))
end

--- The token in a file: `{"token": "..."}` as the service's page saves it, or the bare token.
---@param path string
---@return string token
---@return string? refresh_token
function M.read_token_file(path)
  local text = trim(read_private(path))
  if text:sub(1, 1) ~= "{" then return text end
  local data, message = json.decode(text)
  if type(data) ~= "table" or type(data.token or data.access_token) ~= "string" then
    errors.raise("value", ('%s does not hold {"token": "..."}%s'):format(paths.reason(path, path),
      message and ": " .. message or ""))
  end
  return data.token or data.access_token, type(data.refresh_token) == "string" and data.refresh_token or nil
end

local function check_token(token, origin)
  token = trim(token)
  if token == "" then errors.raise("auth", ("the token from %s is empty"):format(origin)) end
  -- the text is a header's value; what it looks like is the service's business
  if token:find("[%s%c]") then
    errors.raise("auth", ("the token from %s holds a space or a line break: copy it again, alone"):format(origin))
  end
  return token
end

local function token_of(source)
  if source.token then return source.token, nil, source.names.token end
  if source.token_file then
    local token, refresh = M.read_token_file(source.token_file)
    return token, refresh, source.token_file
  end
end

---@class saturn.cloud.Credentials
---@field origin string where the token came from
local Credentials = {}
Credentials.__index = Credentials
Credentials.__name = "saturn.credentials"

-- The secrets stand beside the object, not in it: whoever prints its fields does not find them.
local secrets = setmetatable({}, { __mode = "k" })

function Credentials:__tostring()
  return ("saturn.credentials (from %s)"):format(self.origin)
end

--- The value of the Authorization header.
function Credentials:header()
  local secret = secrets[self]
  if not secret then errors.raise("closed", "this connection is closed") end
  return "token " .. secret.token
end

function Credentials:refresh_token()
  return secrets[self] and secrets[self].refresh
end

--- Puts a new token in place of the old one.
function Credentials:replace(token, refresh)
  if secrets[self] then secrets[self] = { token = token, refresh = refresh } end
end

-- What is shorter is no secret, and a word that answers may well have in them.
local SHORTEST_SECRET = 8

--- `text` without the token, should a server have echoed it.
function Credentials:redact(text)
  local secret = secrets[self]
  for _, value in pairs(secret or {}) do
    if #value >= SHORTEST_SECRET then text = text:gsub((value:gsub("%p", "%%%0")), "[token]") end
  end
  return text
end

function Credentials:forget()
  secrets[self] = nil
end

local function new_credentials(token, refresh, origin)
  local credentials = setmetatable({ origin = origin }, Credentials)
  secrets[credentials] = { token = token, refresh = refresh }
  return credentials
end

-- ---- sources -----------------------------------------------------------------------------------------------------

local function source(name, values, names)
  local result = { name = name, names = setmetatable(names or {}, { __index = function() return name end }) }
  for key in pairs(M.known) do result[key] = values[key] end
  result.token = values.token or values.saturn_token
  return result
end

local function environment()
  return source("the environment", {
    base_url = env "SATURN_BASE_URL" or env "BASE_URL",
    token = env "SATURN_TOKEN",
    token_file = env "SATURN_TOKEN_FILE",
    refresh_token = env "SATURN_REFRESH_TOKEN",
  }, {
    base_url = env "SATURN_BASE_URL" and "SATURN_BASE_URL" or "BASE_URL",
    token = "SATURN_TOKEN",
  })
end

local function sources(options)
  local list = { source("the arguments", options) }
  if options.profile then list[2] = source(("profile '%s'"):format(options.profile), read_profile(options.profile)) end
  list[#list + 1] = environment()
  return list
end

local function first(list, key)
  for _, from in ipairs(list) do
    if from[key] ~= nil then return from[key], from end
  end
end

-- ---- base URL ----------------------------------------------------------------------------------------------------

--- ":port" unless it is the scheme's own.
function M.port_suffix(url)
  local own = url.scheme == "https" and "443" or "80"
  return url.port == own and "" or ":" .. url.port
end

local BAD_URL = "the base URL from %s is not one (%s): %s. It looks like https://app.community.saturnenterprise.io"

-- As dask-saturn joins: the part behind the last slash is a page, not a directory.
local function base_of(url)
  return ("%s://%s%s%s"):format(url.scheme, url.host:lower(), M.port_suffix(url), url.path:match("^.*/") or "/")
end

local function check_base_url(text, origin)
  local url, _, message = core.http.url(text)
  if not url then errors.raise("value", BAD_URL:format(origin, text, message)) end
  if url.has_user then
    errors.raise("value", BAD_URL:format(origin, "not shown", "it holds a user name or password"))
  end
  url.base = base_of(url)
  return url
end

-- ---- whose token --------------------------------------------------------------------------------------------------

-- A profile's token goes to that profile's service only, however its address is written: this gives the address, nil
-- when any will do.
local function bound_to(from)
  if not from.is_profile or from.base_url == nil then return nil end
  local url = core.http.url(from.base_url)
  return url and base_of(url) or "a service without an address"
end

-- Without a token: nil, and that one was passed over, if so.
local function find_token(list, base)
  local passed_over = ""
  for _, from in ipairs(list) do
    local only = bound_to(from)
    if only == nil or only == base then
      local token, refresh, origin = token_of(from)
      if token then return check_token(token, origin), refresh or from.refresh_token, origin end
    elseif from.token or from.token_file then
      passed_over = (" (that of %s is for %s only)"):format(from.name, only)
    end
  end
  return nil, passed_over
end

-- ---- what dask-saturn takes from the environment of Saturn's own machines ------------------------------------------

local function is_external(options)
  if options ~= nil then return options end
  return (env "SATURN_IS_INTERNAL" or "false"):lower() == "false"
end

local function version_at_least(version, wanted)
  local have = {}
  for number in version:gmatch("%d+") do have[#have + 1] = math.tointeger(tonumber(number)) or 0 end
  for i, number in ipairs(wanted) do
    if (have[i] or 0) ~= number then return (have[i] or 0) > number end
  end
  return true
end

local function prefect_flow_run()
  if version_at_least(env "SATURN_VERSION" or "2021.07.19", { 2021, 8, 16 }) then
    return env "PREFECT__CONTEXT__FLOW_RUN_ID"
  end
end

local function ca_from_environment()
  return env "REQUESTS_CA_BUNDLE" or env "CURL_CA_BUNDLE" or env "SSL_CERT_FILE", env "SSL_CERT_DIR"
end

local function require_base_url(list)
  local text, from = first(list, "base_url")
  if not text then
    errors.raise("value", "no base URL: pass base_url=\"https://app...\", set SATURN_BASE_URL, or write a profile in "
      .. (M.config_path() or "saturn/config.json") .. ". saturn.connect(\"local\") needs none")
  end
  return check_base_url(text, from.names.base_url)
end

local function require_credentials(list, url)
  local token, other, origin = find_token(list, url.base)
  if not token then
    errors.raise("auth", ("no token for %s%s: pass token= or token_file=, or set SATURN_TOKEN or SATURN_TOKEN_FILE. "
      .. "A signed-in browser shows one at %sapi/user/token; save that page as token.json"):format(url.host, other,
      url.base))
  end
  return new_credentials(token, other, origin)
end

-- The default profile is looked at only for what is missing, so that a file that cannot be read disturbs nobody else.
local function with_default_profile(list, options)
  local has_token = first(list, "token") or first(list, "token_file")
  if options.profile or (first(list, "base_url") and has_token) then return end
  list[#list + 1] = source("the default profile", read_profile(nil))
end

-- A service on this machine, such as the one of this library: asking it more often costs nobody anything.
local NEARBY_POLL_MIN, NEARBY_POLL_MAX = 0.01, 5

local function is_loopback(host)
  return host == "localhost" or host == "[::1]" or host:find("^127%.%d+%.%d+%.%d+$") ~= nil
end

---@class saturn.cloud.Settings
---@field base_url string ends with "/"
---@field host string
---@field credentials saturn.cloud.Credentials
---@field external boolean
---@field project_id string?
---@field nearby boolean the service is on this machine
---@field version string? sent as X-Dask-Saturn-Version, not together with a project_id

--- Options, environment and profile made into settings. Raises "value" or "auth" for what is missing or malformed.
---@param options table checked against `known`
---@return saturn.cloud.Settings
function M.resolve(options)
  local list = sources(options)
  with_default_profile(list, options)
  for _, from in ipairs(list) do from.is_profile = from.name:find("profile", 1, true) ~= nil end
  local url = require_base_url(list)
  local settings = {}
  for key in pairs(M.known) do settings[key] = first(list, key) end
  settings.token, settings.saturn_token, settings.refresh_token, settings.token_file = nil, nil, nil, nil
  settings.base_url, settings.host, settings.scheme = url.base, url.host, url.scheme
  settings.credentials = require_credentials(list, url)
  settings.nearby = is_loopback(url.host)
  if settings.nearby then
    settings.proxy = settings.proxy or "" -- no proxy leads back to this machine
    settings.poll_min = settings.poll_min or NEARBY_POLL_MIN
    settings.poll_max = settings.poll_max or NEARBY_POLL_MAX
  end
  settings.external = is_external(settings.external)
  settings.version = not settings.project_id and (settings.version or PROTOCOL_VERSION) or nil
  settings.prefect_flow_run = prefect_flow_run()
  settings.in_prefect = (env "SATURN_RESOURCE_TYPE" or ""):sub(1, 7) == "Prefect"
  local ca_file, ca_path = ca_from_environment()
  if not settings.ca_file and not settings.ca_path then settings.ca_file, settings.ca_path = ca_file, ca_path end
  return settings
end

return M
