--- Dask's own configuration, as far as it concerns a client: `DASK_*` variables and YAML files. Read when a call asks
--- for it, never before.
--
-- Places, as Dask has them, the later ones first in rank: the directory $DASK_ROOT_CONFIG (else /etc/dask),
-- ~/.config/dask, and $DASK_CONFIG, a file or a directory; of a directory its .yaml, .yml and .json files by name; then
-- the variables. Keys are written with - or _, which are the same.

local core = require "saturn.core"
local errors = require "saturn.error"
local files = require "saturn.dask.files"

local M = {}

-- The keys that can be set by a variable: there are no others that concern a client.
local KEYS = {
  "scheduler-address", "client-name", "distributed.client.direct-to-workers", "distributed.client.heartbeat",
  "distributed.comm.timeouts.connect", "distributed.comm.require-encryption", "distributed.comm.tls.ca-file",
  "distributed.comm.tls.client.cert", "distributed.comm.tls.client.key",
}

-- ---- values -----------------------------------------------------------------------------------------------------

local WORDS = { True = true, False = false, ["true"] = true, ["false"] = false }

-- A variable holds a Python literal; what is none is a text.
local function literal(text)
  if text == "None" then return nil end
  if WORDS[text] ~= nil then return WORDS[text] end
  local quoted = text:match("^'([^']*)'$") or text:match('^"([^"]*)"$')
  return quoted or tonumber(text) or text
end

local UNITS = {
  us = 1e-6, ms = 1e-3, s = 1, sec = 1, second = 1, seconds = 1, m = 60, min = 60, minute = 60, minutes = 60,
  h = 3600, hour = 3600, hours = 3600, d = 86400, day = 86400, days = 86400,
}

--- Seconds of a number or a text such as "30s", "500 ms", "1.5 minutes".
---@param value any
---@param key string
---@return number?
local function seconds(value, key)
  if value == nil or type(value) == "number" then return value end
  local number, unit = tostring(value):match("^%s*([%d.]*)%s*(%a*)%s*$")
  number = number == "" and 1 or tonumber(number)
  local scale = UNITS[unit == "" and "s" or unit and unit:lower()]
  if not number or not scale then
    errors.raise("value", ("%s is '%s', which is no time: write it as \"30s\" or \"500 ms\""):format(key,
      tostring(value)))
  end
  return number * scale
end

local function text_of(value, key)
  if value == nil or type(value) == "string" then return value end
  errors.raise("value", ("%s must be a text, not a %s"):format(key, type(value)))
end

-- ---- nested tables ----------------------------------------------------------------------------------------------

local function canonical(name)
  return (tostring(name):gsub("_", "-"))
end

local function merge(into, from)
  for name, value in pairs(from) do
    name = canonical(name)
    if type(value) == "table" then
      if type(into[name]) ~= "table" then into[name] = {} end
      merge(into[name], value)
    else
      into[name] = value
    end
  end
end

local function lookup(values, key)
  local value = values
  for name in key:gmatch("[^.]+") do
    if type(value) ~= "table" then return nil end
    value = value[canonical(name)]
  end
  return value
end

local function put(values, key, value)
  local branch = values
  for name in key:gmatch("([^.]+)%.") do
    if type(branch[name]) ~= "table" then branch[name] = {} end
    branch = branch[name]
  end
  branch[key:match("[^.]+$")] = value
end

-- ---- files ------------------------------------------------------------------------------------------------------

-- A library's own None is nil here.
local function without_null(value, null)
  if value == null then return nil end
  if type(value) ~= "table" then return value end
  local copy = {}
  for name, item in pairs(value) do copy[name] = without_null(item, null) end
  return copy
end

local function read_yaml(text, path)
  local there, lyaml = pcall(require, "lyaml")
  if not there then
    errors.raise("value", ("'%s' is YAML, which needs the Lua module lyaml to be read: install the rock lyaml or the "
      .. "package lua-yaml"):format(path))
  end
  local ok, value = pcall(lyaml.load, text)
  if not ok then errors.raise("value", ("'%s' is no YAML: %s"):format(path, tostring(value))) end
  return without_null(value, lyaml.null)
end

local function read_json(text, path)
  local cjson = require "cjson"
  local ok, value = pcall(cjson.decode, text)
  if not ok then errors.raise("value", ("'%s' is no JSON: %s"):format(path, tostring(value))) end
  return without_null(value, cjson.null)
end

local function read_file(path)
  local text = files.read(path)
  local value
  if path:lower():find("%.json$") then value = read_json(text, path) else value = read_yaml(text, path) end
  local is_list = type(value) == "table" and #value > 0
  if value ~= nil and (type(value) ~= "table" or is_list) then
    errors.raise("value", ("'%s' must hold names and values, not just a %s"):format(path,
      is_list and "list" or type(value)))
  end
  return value or {}
end

local SUFFIXES = { yaml = true, yml = true, json = true }

local function exists(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

-- The files of a place: itself, or those in the directory. A place that is not there has none.
local function files_of(place)
  local names = core.files.list(place)
  if not names then return exists(place) and { place } or {} end
  table.sort(names)
  local found = {}
  for _, name in ipairs(names) do
    local suffix = name:match("%.(%a+)$")
    if suffix and SUFFIXES[suffix:lower()] then found[#found + 1] = place:gsub("/+$", "") .. "/" .. name end
  end
  return found
end

local function default_places(getenv)
  local places = { getenv("DASK_ROOT_CONFIG") or "/etc/dask" }
  local home = getenv("HOME")
  if home then places[#places + 1] = home .. "/.config/dask" end
  places[#places + 1] = getenv("DASK_CONFIG")
  return places
end

local function read_environment(values, getenv)
  for _, key in ipairs(KEYS) do
    local variable = "DASK_" .. key:gsub("%.", "__"):gsub("-", "_"):upper()
    local text = getenv(variable)
    if text and text ~= "" then put(values, key, literal(text)) end
  end
end

-- ---- what a client makes of it ------------------------------------------------------------------------------------

---@class saturn.Config
---@field address string? the scheduler's address
---@field options table for saturn.client: timeout, name, direct, tls
---@field files string[] the files that were read, in order
local Config = {}
Config.__index = Config
Config.__name = "saturn.config"

function Config:__tostring()
  return ("<saturn.config: %s, %d file%s>"):format(self.address or "no address", #self.files,
    #self.files == 1 and "" or "s")
end

--- The value of a key such as "distributed.comm.timeouts.connect"; `default` when it is not set.
---@param key string
---@param default any
function Config:get(key, default)
  local value = lookup(self._values, key)
  if value == nil then return default end
  return value
end

-- A certificate file may hold the key too.
local function tls_of(config)
  local tls = "distributed.comm.tls."
  local ca, cert = text_of(config:get(tls .. "ca-file"), tls .. "ca-file"), config:get(tls .. "client.cert")
  cert = text_of(cert, tls .. "client.cert")
  local key = text_of(config:get(tls .. "client.key"), tls .. "client.key") or cert
  if not (ca or cert) then return nil end
  return { ca = ca, cert = cert, key = key }
end

local function options_of(config)
  local connect, direct = "distributed.comm.timeouts.connect", "distributed.client.direct-to-workers"
  local options = {
    timeout = seconds(config:get(connect), connect),
    name = text_of(config:get("client-name"), "client-name"),
    tls = tls_of(config),
  }
  local is_direct = config:get(direct)
  if is_direct ~= nil then options.direct = is_direct == true end
  return options
end

--- Reads Dask's configuration. `saturn.client(config.address, config.options)` uses it, and so does
--- `saturn.client(nil, {config = true})`.
---@param options table? places (files and directories instead of Dask's own), env (a table instead of the environment)
---@return saturn.Config
function M.load(options)
  options = errors.options(options, { places = "table", env = "table" })
  local getenv = options.env and function(name) return options.env[name] end or os.getenv
  local config = setmetatable({ files = {}, _values = {} }, Config)
  for _, place in ipairs(options.places or default_places(getenv)) do
    for _, path in ipairs(files_of(place)) do
      merge(config._values, read_file(path))
      config.files[#config.files + 1] = path
    end
  end
  read_environment(config._values, getenv)
  config.address = text_of(config:get("scheduler-address"), "scheduler-address")
  config.options = options_of(config)
  if config:get("distributed.comm.require-encryption") == true and config.address
    and not config.address:find("^tls://") and not config.address:find("^wss://") then
    errors.raise("tls", ("distributed.comm.require-encryption is set, but %s is not encrypted"):format(config.address))
  end
  return config
end

return M
