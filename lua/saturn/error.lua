--- The error object of everything that fails at run time, and the checks that raise misuse errors.
--
-- A failure at run time raises a table with `kind`, `message` and, by kind, more fields (`status`, `key`, `type`,
-- `args`, `traceback`, `notes`, `cause`, `context`). Misuse (a wrong type, an unknown option) raises a plain string at
-- the caller's line.

---@alias saturn.ErrorKind
---| "connect"   # no connection could be made
---| "timeout"   # a deadline passed
---| "closed"    # the connection or the object is closed
---| "tls"       # TLS handshake or certificate
---| "auth"      # the service refused the credentials
---| "api"       # the service answered with an error; see `status`
---| "protocol"  # the peer's bytes break the protocol
---| "limit"     # larger than one of the `limits`
---| "value"     # a value that cannot be converted
---| "task"      # a task raised; see `type`, `args`, `traceback`
---| "cancelled" # the task was cancelled
---| "lost"      # the result was lost with its worker or its scheduler

---@class saturn.Error
---@field kind saturn.ErrorKind
---@field message string one or more lines for a person
---@field status integer? HTTP status (api, auth)
---@field key string? the task's key (task, cancelled, lost)
---@field type string? Python class name (task)
---@field args table? arguments of the Python exception (task)
---@field traceback string? Python traceback, formatted (task)
---@field notes string[]? what was added with add_note() (task)
---@field cause saturn.Error? what the Python exception was raised from (task)
---@field context saturn.Error? what was being handled when it was raised, where there is no cause (task)
local Error = {}
Error.__index = Error
Error.__name = "saturn.error"

local M = { Error = Error }

local function task_text(err)
  local lines = {}
  if err.cause then
    lines[#lines + 1] = tostring(err.cause)
    lines[#lines + 1] = "\nThe above exception was the direct cause of the following exception:\n"
  elseif err.context then
    lines[#lines + 1] = tostring(err.context)
    lines[#lines + 1] = "\nDuring handling of the above exception, another exception occurred:\n"
  end
  if err.traceback and err.traceback ~= "" then
    lines[#lines + 1] = "Traceback (most recent call last):"
    lines[#lines + 1] = (err.traceback:gsub("\n+$", ""))
  end
  lines[#lines + 1] = err.message
  for _, note in ipairs(err.notes or {}) do lines[#lines + 1] = note end
  return table.concat(lines, "\n")
end

function Error:__tostring()
  if self.kind == "task" then return task_text(self) end
  return ("%s: %s"):format(self.kind, self.message)
end

--- True when the error is of this kind.
---@param kind saturn.ErrorKind
---@return boolean
function Error:is(kind)
  return self.kind == kind
end

--- Makes an error object without raising it.
---@param kind saturn.ErrorKind
---@param message string
---@param fields table? more fields
---@return saturn.Error
function M.new(kind, message, fields)
  local err = setmetatable({}, Error)
  for name, value in pairs(fields or {}) do err[name] = value end
  err.kind, err.message = kind, message
  return err
end

--- Raises an error object.
---@param kind saturn.ErrorKind
---@param message string
---@param fields table?
function M.raise(kind, message, fields)
  error(M.new(kind, message, fields), 0)
end

--- Passes the results of a C face on, raising when it answered `nil, kind, message`.
function M.check(value, ...)
  if value == nil then
    local kind, message = ...
    if kind ~= nil then M.raise(kind, message) end
  end
  return value, ...
end

--- Makes a function that calls what it is given and keeps the first error; called with nothing it raises that.
---@return fun(fn: function?, ...: any)
function M.first()
  local failed, first = false, nil
  return function(fn, ...)
    if fn == nil then
      if failed then error(first, 0) end
      return
    end
    local ok, err = pcall(fn, ...)
    if not ok and not failed then failed, first = true, err end
  end
end

---@param value any
---@return boolean
function M.is_error(value)
  return getmetatable(value) == Error
end

--- Raises a misuse error at the line of the function `level` calls up (2: the caller of the public function).
function M.misuse(level, format, ...)
  error(format:format(...), (level or 2) + 1)
end

--- Checks a timeout that stands among a function's arguments.
---@param timeout number?
---@param level integer? 2: at the caller of the function that calls this
function M.timeout(timeout, level)
  if timeout ~= nil and type(timeout) ~= "number" then
    error(("a timeout is a number of seconds, not %s"):format(type(timeout)), (level or 2) + 1)
  end
end

local function distance(a, b)
  local previous = {}
  for j = 0, #b do previous[j] = j end
  for i = 1, #a do
    local current = { [0] = i }
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      current[j] = math.min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + cost)
    end
    previous = current
  end
  return previous[#b]
end

local function closest(name, known)
  local best, best_distance
  for candidate in pairs(known) do
    local d = distance(name, candidate)
    if not best or d < best_distance or (d == best_distance and candidate < best) then
      best, best_distance = candidate, d
    end
  end
  return best
end

local function kind_matches(value, kind)
  if kind == "any" then return true end
  if kind == "integer" then return math.type(value) == "integer" or (type(value) == "number" and value % 1 == 0) end
  if kind == "callable" then
    local meta = getmetatable(value)
    return type(value) == "function" or (type(meta) == "table" and meta.__call ~= nil)
  end
  return type(value) == kind
end

local function matches(value, kinds)
  for kind in kinds:gmatch("[^|]+") do
    if kind_matches(value, kind) then return true end
  end
  return false
end

--- Checks a function that stands among a function's arguments: a table or userdata that can be called will do.
---@param fn any
---@param what string the function that got it, and what for
---@param level integer? 2: at the caller of the function that calls this
function M.callable(fn, what, level)
  if not kind_matches(fn, "callable") then
    error(("%s must be a function, not %s"):format(what, type(fn)), (level or 2) + 1)
  end
end

--- Checks a table of options against what is known: `{ name = "type|type" }`, with the types of `type()` and
--- "integer", "callable", "any". Raises a misuse error that names an unknown option and the closest known one.
---@param options table?
---@param known table<string, string>
---@param level integer? 2: at the caller of the function that calls this
---@return table options an empty table for nil
function M.options(options, known, level)
  level = (level or 2) + 1
  if options == nil then return {} end
  if type(options) ~= "table" then error(("options must be a table, not %s"):format(type(options)), level) end
  for name, value in pairs(options) do
    local kinds = known[name]
    if not kinds then
      local like = closest(tostring(name), known)
      error(("unknown option '%s': did you mean '%s'?"):format(tostring(name), tostring(like)), level)
    end
    if not matches(value, kinds) then
      error(("option '%s' must be %s, not %s"):format(name, kinds:gsub("|", " or "), type(value)), level)
    end
  end
  return options
end

return M
