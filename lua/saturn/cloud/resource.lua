--- What a cluster hangs on: a workspace, a deployment or a job. A cluster follows its parent: it stops with it.

local errors = require "saturn.error"
local http = require "saturn.cloud.http"
local loop = require "saturn.loop"

---@class saturn.Resource
---@field kind "workspace"|"deployment"|"job"
---@field id string
---@field name string
---@field owner string?
---@field state string? "running", "pending", "stopping", "stopped" or "error", when it was last asked
---@field spec table the recipe as the service keeps it
local Resource = {}
Resource.__index = Resource
Resource.__name = "saturn.resource"

local M = { Resource = Resource }

M.kinds = { workspace = "workspaces", deployment = "deployments", job = "jobs" }

local DEFAULT_WAIT = 600
local POLL_MIN, POLL_MAX = 5, 30

function Resource:__tostring()
  return ("saturn.resource %s %s (%s)"):format(self.kind, self.name, self.state or "not asked")
end

local function fill(self, recipe)
  local spec = type(recipe.spec) == "table" and recipe.spec or {}
  local state = type(recipe.state) == "table" and recipe.state or {}
  self.spec, self.id, self.state = spec, state.id or self.id, state.status
  self.name = spec.name or self.name
  self.owner = type(spec.owner) == "string" and spec.owner or self.owner
  return self
end

local function new(connection, kind, recipe)
  return fill(setmetatable({ connection = connection, kind = kind, name = "?" }, Resource), recipe)
end

--- All of one kind.
---@param connection table
---@param kind string
---@param query table? owner_name, name
---@return saturn.Resource[]
function M.list(connection, kind, query)
  local all, asked = {}, { type = kind }
  for name, value in pairs(query or {}) do asked[name] = value end
  connection.http:pages("api/recipes", asked, "last_key", function(data)
    if type(data.recipes) ~= "table" then
      errors.raise("protocol", ("the service's list of %s cannot be read"):format(M.kinds[kind]))
    end
    for _, recipe in ipairs(data.recipes) do
      if type(recipe) ~= "table" then errors.raise("protocol", "a recipe in the service's list is no object") end
      if recipe.type == nil or recipe.type == kind then all[#all + 1] = new(connection, kind, recipe) end
    end
    return #data.recipes
  end)
  return all
end

local function described(list)
  local names = {}
  for i, resource in ipairs(list) do names[i] = resource.name end
  table.sort(names)
  return #names > 0 and "there are " .. table.concat(names, ", ") or "there are none"
end

--- The one with this name.
---@param connection table
---@param kind string
---@param name string
---@param owner string? owner's name, where several have one of that name
---@return saturn.Resource
function M.find(connection, kind, name, owner)
  local found = {}
  for _, resource in ipairs(M.list(connection, kind, { name = name, owner_name = owner })) do
    if resource.name == name then found[#found + 1] = resource end
  end
  if #found == 1 then return found[1] end
  if #found > 1 then
    errors.raise("value", ("there are %d %s named '%s': say whose with owner_name="):format(#found, M.kinds[kind],
      name))
  end
  errors.raise("value", ("there is no %s named '%s'; %s"):format(kind, name, described(M.list(connection, kind))))
end

--- Asks for its state.
---@return string? state
function Resource:status()
  local recipe = self.connection.http:call {
    path = ("api/recipes/%s/%s"):format(self.kind, http.escape(self.name)), query = { owner_name = self.owner },
  }
  return fill(self, recipe).state
end

local function wait_for(self, wanted, timeout)
  local settings = self.connection.settings
  local deadline = loop.now() + timeout
  local pause = settings.poll_min or POLL_MIN
  while true do
    local state = self:status()
    if state == wanted then return self end
    if state == "error" then
      errors.raise("api", ("%s %s did not come to be %s: its status is error. Its logs in the Saturn interface may "
        .. "tell why"):format(self.kind, self.name, wanted))
    end
    local left = deadline - loop.now()
    if left <= 0 then
      errors.raise("timeout", ("%s %s is not %s after %g seconds (status: %s)"):format(self.kind, self.name, wanted,
        timeout, tostring(state)))
    end
    loop.sleep(math.min(left, pause * (1 + http.jitter())))
    pause = math.min(pause * 2, settings.poll_max or POLL_MAX)
  end
end

local KNOWN = { wait_timeout = "number", wait = "boolean" }

local function act(self, action, wanted, options)
  self.connection.http:call {
    method = "POST", path = ("api/%s/%s/%s"):format(M.kinds[self.kind], http.escape(self.id), action), json = {},
    repeatable = action ~= "restart",
  }
  local wait = options.wait
  if wait == nil then wait = self.kind ~= "job" or action ~= "start" end
  if not wait then return self end
  return wait_for(self, wanted, options.wait_timeout or DEFAULT_WAIT)
end

--- Starts it and waits until it runs. A job is only begun: `wait` is false for one unless said otherwise.
---@param options table? wait = true, wait_timeout = 600
---@return saturn.Resource
function Resource:start(options)
  return act(self, "start", "running", errors.options(options, KNOWN))
end

--- Stops it, and with it its cluster, and waits until it has.
---@param options table? wait = true, wait_timeout = 600
---@return saturn.Resource
function Resource:stop(options)
  return act(self, "stop", "stopped", errors.options(options, KNOWN))
end

--- Stops and starts it, and waits until it runs.
---@param options table? wait = true, wait_timeout = 600
---@return saturn.Resource
function Resource:restart(options)
  return act(self, "restart", "running", errors.options(options, KNOWN))
end

--- The records of the clusters that hang on it.
---@return table[]
function Resource:clusters()
  local own, field = {}, self.kind .. "_id"
  for _, record in ipairs(self.connection:clusters()) do
    if record[field] == self.id then own[#own + 1] = record end
  end
  return own
end

return M
