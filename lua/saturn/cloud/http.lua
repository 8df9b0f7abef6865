--- Calls to the service: one request after another or several at once, with redirects, retries and errors that say
--- what to do. Waiting is the loop's.

local core = require "saturn.core"
local errors = require "saturn.error"
local json = require "saturn.cloud.json"
local loop = require "saturn.loop"
local pytime = require "saturn.pytime"

local USER_AGENT = "saturn-lua/0.1"
local MAX_REDIRECTS = 5
local MAX_PAGES = 1000
local MAX_BODY = 64 * 1024 * 1024
local DEFAULT_TIMEOUT = 30
local DEFAULT_CONNECT_TIMEOUT = 10
local DEFAULT_RETRIES = 4
local DEFAULT_RETRY_DELAY = 0.5
local LONGEST_RETRY_DELAY = 15
local LONGEST_RETRY_AFTER = 120

---@class saturn.cloud.Http
---@field settings saturn.cloud.Settings
local Http = {}
Http.__index = Http
Http.__name = "saturn.http"

local M = {}

function Http:__tostring()
  return ("saturn.http %s"):format(self.settings.base_url)
end

---@param settings saturn.cloud.Settings
---@return saturn.cloud.Http
function M.new(settings)
  return setmetatable({ settings = settings, reached = false }, Http)
end

--- A number within 0 and 1 for the jitter of waits. It comes from the clock: the generator of math.random is the
--- program's, and must go on giving it the same numbers.
function M.jitter()
  local time = loop.now() * 1e5
  return time - math.floor(time)
end

-- ---- one exchange ------------------------------------------------------------------------------------------------

local function escape(text)
  return (tostring(text):gsub("[^%w%-._~]", function(c) return ("%%%02X"):format(c:byte()) end))
end
M.escape = escape

local function query_string(query)
  local names, parts = {}, {}
  for name in pairs(query or {}) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do parts[#parts + 1] = escape(name) .. "=" .. escape(query[name]) end
  return #parts > 0 and "?" .. table.concat(parts, "&") or ""
end

local function header_lines(settings, call, with_token)
  local lines = { "Accept: application/json, */*;q=0.5" }
  if with_token then lines[#lines + 1] = "Authorization: " .. settings.credentials:header() end
  if settings.version then lines[#lines + 1] = "X-Dask-Saturn-Version: " .. settings.version end
  if call.json then lines[#lines + 1] = "Content-Type: application/json" end
  for name, value in pairs(call.headers or {}) do lines[#lines + 1] = name .. ": " .. value end
  return lines
end

local function start(settings, call, url, method, body, with_token)
  return core.http.start(loop.reactor(), {
    url = url, method = method, body = body,
    headers = header_lines(settings, call, with_token),
    timeout = call.timeout or settings.timeout or DEFAULT_TIMEOUT,
    connect_timeout = settings.connect_timeout or DEFAULT_CONNECT_TIMEOUT,
    ca_file = settings.ca_file, ca_path = settings.ca_path, proxy = settings.proxy,
    once = call.repeatable == false, user_agent = USER_AGENT, max_body = settings.max_body or MAX_BODY,
  })
end

local function exchange(settings, call, url, method, body, with_token)
  local request <close> = errors.check(start(settings, call, url, method, body, with_token))
  loop.wait(function() return request:done() end)
  return request:response()
end

-- The token goes on to the same host only, and never from https to http.
local function keeps_token(from, to)
  local a, b = core.http.url(from), core.http.url(to)
  if not a or not b or a.host ~= b.host then return false end
  if a.scheme == b.scheme then return a.port == b.port end
  return a.scheme == "http" and a.port == "80" and b.port == "443"
end

-- A POST stays one, other than browsers have it: a service that moved still has to get the settings.
local function follow(settings, call, url, method, body)
  local with_token = true
  for _ = 1, MAX_REDIRECTS do
    local response, kind, message = exchange(settings, call, url, method, body, with_token)
    if not response or response.status < 300 or response.status > 399 or not response.redirect then
      return response, kind, message
    end
    with_token = with_token and keeps_token(url, response.redirect)
    url = response.redirect
    if response.status == 303 then method, body = "GET", nil end
  end
  return nil, "protocol", ("%s redirects without end: check base_url"):format(settings.host)
end

-- ---- what the service says ---------------------------------------------------------------------------------------

-- All that comes from the service and is shown, kept or passed to a callback is made here: none of it has the token,
-- should the service have sent that back, however JSON spells it. Only the renewal of a token reads answers elsewhere.
local function take(settings, response, kind, message)
  local function redact(text) return settings.credentials:redact(text) end
  if not response then return nil, kind, redact(message) end
  local answer = { status = response.status, bytes = #response.body, reused = response.reused, headers = {} }
  for name, value in pairs(response.headers) do answer.headers[name] = redact(value) end
  answer.data, answer.not_json = json.decode(response.body, redact)
  answer.body = redact(response.body)
  return answer
end

-- ---- retries -----------------------------------------------------------------------------------------------------

local MONTHS = { Jan = 1, Feb = 2, Mar = 3, Apr = 4, May = 5, Jun = 6, Jul = 7, Aug = 8, Sep = 9, Oct = 10, Nov = 11,
  Dec = 12 }

local function http_date(text)
  local day, month, year, hour, min, sec = text:match("^%a+, (%d+) (%a+) (%d+) (%d+):(%d+):(%d+) GMT$")
  if not day or not MONTHS[month] then return nil end
  local days = pytime.days_of(tonumber(year), MONTHS[month], tonumber(day))
  return days * 86400 + tonumber(hour) * 3600 + tonumber(min) * 60 + tonumber(sec)
end

--- Seconds that a Retry-After header asks to wait, or nil.
---@param value string?
---@param now number? seconds since 1970
---@return number?
function M.retry_after(value, now)
  if not value then return nil end
  local seconds = tonumber(value:match("^%s*(%d+)%s*$"))
  if seconds then return seconds end
  local time = http_date(value)
  return time and math.max(0, time - (now or os.time()))
end

-- 429 and 503 were not worked on. Behind 502 and 504 the call may have been, so only one that may be made twice is.
local TURNED_AWAY = { [429] = true, [503] = true }
local UNCERTAIN = { [502] = true, [504] = true }

local function may_retry(http, call, response, kind)
  if response then
    return TURNED_AWAY[response.status] or (UNCERTAIN[response.status] and call.repeatable ~= false)
  end
  -- a service that was never reached is more likely a wrong address than a short absence
  if kind == "connect" then return http.reached end
  return kind == "closed" and call.repeatable ~= false
end

local function retry_wait(http, response, attempt)
  local asked = response and M.retry_after(response.headers["retry-after"])
  if asked then return asked <= LONGEST_RETRY_AFTER and asked or nil end
  local base = (http.settings.retry_delay or DEFAULT_RETRY_DELAY) * 2 ^ attempt
  return math.min(base, LONGEST_RETRY_DELAY) * (0.5 + M.jitter() / 2)
end

local function report(settings, call, url, attempt, started, response, kind, message, wait)
  if not settings.on_request then return end
  settings.on_request {
    method = call.method or "GET", url = url, attempt = attempt + 1, elapsed = loop.now() - started,
    status = response and response.status, bytes = response and response.bytes, reused = response and response.reused,
    kind = kind, message = message, retry_in = wait,
  }
end

local function send(http, call, url, body)
  local settings = http.settings
  local retries = settings.retries or DEFAULT_RETRIES
  for attempt = 0, retries do
    local started = loop.now()
    local response, kind, message = take(settings, follow(settings, call, url, call.method or "GET", body))
    if response then http.reached = true end
    local wait = attempt < retries and may_retry(http, call, response, kind) and retry_wait(http, response, attempt)
    report(settings, call, url, attempt, started, response, kind, message, wait or nil)
    if not wait then return response, kind, message end
    loop.sleep(wait)
  end
end

-- ---- errors ------------------------------------------------------------------------------------------------------

local ADVICE = {
  connect = "cannot connect to %s: %s. Check base_url, the network, and the proxy settings",
  timeout = "%s gave no complete answer in time: %s. A longer timeout= may help",
  closed = "the connection to %s was lost: %s. The call may or may not have been carried out",
  tls = "no trusted connection to %s: %s. Where the installation has a certificate authority of its own, name its "
    .. "file with ca_file=",
  limit = "the answer of %s was not read: %s. max_body= sets the limit",
  protocol = "%s does not speak HTTP as it should: %s. Is base_url the address of a Saturn installation?",
}

local function network_error(settings, kind, message)
  local advice = ADVICE[kind] or "the call to %s failed: %s"
  errors.raise(kind, advice:format(settings.host, message:gsub("%.$", "")))
end

local LONGEST_TEXT = 2000

--- Text of a server as it may be shown: not without end, and without characters that move a terminal's cursor.
---@param text string
---@return string
function M.clean(text)
  return (text:sub(1, LONGEST_TEXT):gsub("[\0-\8\11-\31\127]", "?"))
end

local function shorten(text)
  text = text:gsub("%s+", " "):gsub("^ ", ""):gsub(" $", "")
  if #text <= 200 then return text end
  local cut = utf8.offset(text:sub(1, 204), -1) or 201
  return text:sub(1, math.min(cut - 1, 200)) .. "..."
end

-- What an error page says to a person, without its markup.
local function page_text(body)
  local text = body:sub(1, 16384):gsub("[^\x20-\x7e\x80-\xff]", " ")
  local title = text:match("<[Tt][Ii][Tt][Ll][Ee][^>]*>(.-)<")
  text = title or text:gsub("<[Ss][Tt][Yy][Ll][Ee].-</[Ss][Tt][Yy][Ll][Ee]>", " "):gsub("<[^>]*>", " ")
  return shorten(utf8.len(text) and text or text:gsub("[\x80-\xff]", "?"))
end

--- The service's own words about an error, and its code.
local function reason(response)
  local data = response.data
  if type(data) == "table" then
    local message = data.message or data.error or data.detail
    if type(message) == "string" and message ~= "" then return M.clean(message), data.error_code end
  end
  local text = page_text(response.body)
  return text ~= "" and text or "no reason given"
end

local NEXT_STEP = {
  [403] = "The token is not allowed to do this: use one with the scope for it",
  [404] = "Check the id, and that base_url is the address of a Saturn installation",
  [429] = "The service asks for fewer requests: try again later",
  [500] = "The service failed: its administrator finds the reason in its log",
  [502] = "The service is not reachable behind its proxy: try again later",
  [503] = "The service is not available for the moment: try again later",
  [504] = "The service did not answer its proxy in time: try again later",
}

local function auth_text(settings, message)
  return ("the service refused the token from %s: %s. Get a new one at %sapi/user/token, or from the resource's "
    .. "\"Connect Externally\""):format(settings.credentials.origin, message, settings.base_url)
end

local function status_error(settings, call, response)
  local message, code = reason(response)
  local fields = { status = response.status, code = code, reason = message }
  if response.status == 401 then errors.raise("auth", auth_text(settings, message:gsub("%.$", "")), fields) end
  local text = ("%s %s: %s (HTTP %d)"):format(call.method or "GET", call.path, message, response.status)
  local step = NEXT_STEP[response.status]
  errors.raise(response.status == 403 and "auth" or "api", step and text .. ". " .. step or text, fields)
end

-- ---- tokens that expire ------------------------------------------------------------------------------------------

local function is_expired(response)
  return response.status == 401 and reason(response):lower():find("expired", 1, true) ~= nil
end

-- A refresh token works once, and using it twice kills it: one coroutine refreshes, the others wait for it. `used` is
-- the header that was refused; another one by now means that somebody has refreshed already.
function Http:refresh_token(used)
  local credentials = self.settings.credentials
  if self.refreshing then loop.wait(function() return not self.refreshing end) end
  if credentials:header() ~= used then return true end
  local refresh = credentials:refresh_token()
  if not refresh then return false end
  self.refreshing = true
  local body = json.encode { grant_type = "refresh_token", refresh_token = refresh }
  local call = { method = "POST", path = "api/auth/token", json = {} }
  local url = self.settings.base_url .. call.path
  local ok, response = pcall(exchange, self.settings, call, url, "POST", body, false)
  self.refreshing = false
  if not ok then error(response, 0) end
  local data = response and response.status < 300 and json.decode(response.body)
  if type(data) ~= "table" or type(data.access_token) ~= "string" then return false end
  credentials:replace(data.access_token, data.refresh_token)
  if self.settings.on_token then self.settings.on_token(data.access_token, data.refresh_token) end
  return true
end

-- ---- the public call ---------------------------------------------------------------------------------------------

---@class saturn.cloud.Call
---@field method string? default GET
---@field path string below the base URL, no leading slash
---@field query table?
---@field json table? sent as JSON
---@field body string? sent as it is, without a content type
---@field headers table? more headers
---@field timeout number?
---@field repeatable boolean? false: not sent again unless the service turned it away untouched
---@field raw boolean? give the text of the answer
---@field scalar boolean? an answer that is neither an object nor a list is fine

local function body_of(call)
  if not call.json then return call.body end
  local text, message = json.encode(call.json)
  if not text then errors.raise("value", "the settings cannot be written as JSON: " .. message) end
  return text
end

local function decode(settings, call, response)
  if call.raw then return response.body end
  if response.body:find("^%s*$") then return {} end
  local data = response.data
  if response.not_json then
    errors.raise("protocol", ("%s %s: the answer is not JSON (%s): %q. Is base_url (%s) the address of a Saturn "
      .. "installation?"):format(call.method or "GET", call.path, response.headers["content-type"] or "no content type",
      page_text(response.body), settings.base_url), { status = response.status })
  end
  if data == nil then data = {} end
  if type(data) ~= "table" and not call.scalar then
    errors.raise("protocol", ("%s %s: the answer is JSON, but neither an object nor a list. Is base_url (%s) the "
      .. "address of a Saturn installation?"):format(call.method or "GET", call.path, settings.base_url))
  end
  return data
end

--- Makes a call and gives the decoded answer ({} for an empty one), raising an error object for every failure.
---@param call saturn.cloud.Call
---@return any data
function Http:call(call)
  local settings = self.settings
  local url = settings.base_url .. call.path .. query_string(call.query)
  local body = body_of(call)
  local used = settings.credentials:header()
  local response, kind, message = send(self, call, url, body)
  if response and is_expired(response) and self:refresh_token(used) then
    response, kind, message = send(self, call, url, body)
  end
  if not response then network_error(settings, kind, message) end
  if response.status >= 300 then status_error(settings, call, response) end
  return decode(settings, call, response)
end

--- Goes through the pages of a list.
---@param path string
---@param query table
---@param key_name string under which the key of the next page is sent
---@param read fun(data: table): integer gets each answer, and says how many rows it has
function Http:pages(path, query, key_name, read)
  local key = nil
  for _ = 1, MAX_PAGES do
    local page = { [key_name] = key }
    for name, value in pairs(query) do page[name] = value end
    local data = self:call { path = path, query = page }
    local count = read(data)
    local next_key = data.next_last_key or data.next_key
    if next_key == nil or next_key == key or count == 0 then return end
    if type(next_key) ~= "string" and type(next_key) ~= "number" then
      errors.raise("protocol", ("%s: the key of the next page is neither a text nor a number"):format(path))
    end
    key = next_key
  end
  errors.raise("limit", ("%s: the list has more than %d pages"):format(path, MAX_PAGES))
end

return M
