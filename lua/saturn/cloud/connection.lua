--- The service of one installation, seen with one token.

local clusters = require "saturn.cloud.cluster"
local errors = require "saturn.error"
local http = require "saturn.cloud.http"
local launch = require "saturn.cloud.launch"
local loop = require "saturn.loop"
local progress = require "saturn.cloud.progress"
local resources = require "saturn.cloud.resource"
local start = require "saturn.cloud.start"

---@class saturn.Connection
---@field base_url string
---@field settings saturn.cloud.Settings
---@field http saturn.cloud.Http
local Connection = {}
Connection.__index = Connection
Connection.__name = "saturn.connection"

local M = {}

local CLUSTERS = "api/dask_clusters"

function Connection:__tostring()
  local settings = self.settings
  return ("saturn.connection %s (%s, token from %s%s)"):format(settings.base_url,
    settings.external and "external" or "internal", settings.credentials.origin, self.closed and ", closed" or "")
end

--- Passes a warning on: to `on_warning`, else to the terminal, else to Lua's warnings.
---@param text string
function Connection:warn(text)
  if self.settings.on_warning then return self.settings.on_warning(text) end
  progress.warn(text)
end

-- ---- the service -------------------------------------------------------------------------------------------------

--- Whether the service answers: `{ status=, version= }`.
---@return table
function Connection:ping()
  return self.http:call { path = "api/status" }
end

--- Who the token stands for.
---@return table
function Connection:user()
  return self.http:call { path = "api/user" }
end

--- The sizes of machines: a list of `{ name=, display=, ... }`, as the service orders them.
---@return table[]
function Connection:sizes()
  local data = self.http:call { path = CLUSTERS .. "/info" }
  local list = type(data) == "table" and type(data.server_options) == "table" and data.server_options.size
  if type(list) ~= "table" then
    errors.raise("protocol", "the service's list of sizes cannot be read: is base_url the address of a Saturn "
      .. "installation?")
  end
  for _, size in ipairs(list) do
    if type(size) ~= "table" or type(size.name) ~= "string" then
      errors.raise("protocol", "the service's list of sizes holds one without a name")
    end
    size.display = size.display or size.display_name
  end
  return list
end

local function check_rows(list, path, name)
  for _, row in ipairs(list) do
    if type(row) ~= "table" then errors.raise("protocol", ("%s: a row of %s is no object"):format(path, name)) end
  end
end

--- All pages of a list.
---@param path string
---@param name string the field that holds the list
---@param query table?
---@return table[]
function Connection:pages(path, name, query)
  local all = {}
  self.http:pages(path, query or {}, "next_key", function(data)
    local list = data[name] or (data[1] and data) or {}
    if type(list) ~= "table" then errors.raise("protocol", ("%s: the list of %s is none"):format(path, name)) end
    check_rows(list, path, name)
    table.move(list, 1, #list, #all + 1, all)
    return #list
  end)
  return all
end

local LIST_OPTIONS = { owner_name = "string", owner_id = "string", user_id = "string", group_id = "string",
  org_id = "string" }

--- The clusters that the token may see: a list of records with `id`, `name`, `status` and more.
---@param options table? owner_name, owner_id, user_id, group_id, org_id
---@return table[]
function Connection:clusters(options)
  return self:pages(CLUSTERS, "dask_clusters", errors.options(options, LIST_OPTIONS))
end

-- ---- what clusters hang on -----------------------------------------------------------------------------------------

local RESOURCE_OPTIONS = { owner_name = "string" }

--- The workspaces that the token may see.
---@param options table? owner_name
---@return saturn.Resource[]
function Connection:workspaces(options)
  return resources.list(self, "workspace", errors.options(options, RESOURCE_OPTIONS))
end

--- The deployments that the token may see.
---@param options table? owner_name
---@return saturn.Resource[]
function Connection:deployments(options)
  return resources.list(self, "deployment", errors.options(options, RESOURCE_OPTIONS))
end

--- The jobs that the token may see.
---@param options table? owner_name
---@return saturn.Resource[]
function Connection:jobs(options)
  return resources.list(self, "job", errors.options(options, RESOURCE_OPTIONS))
end

--- One workspace, deployment or job, by its name.
---@param kind "workspace"|"deployment"|"job"
---@param name string
---@param options table? owner_name
---@return saturn.Resource
function Connection:resource(kind, name, options)
  if not resources.kinds[kind] then
    errors.misuse(2, "a resource is a \"workspace\", a \"deployment\" or a \"job\", not %s", tostring(kind))
  end
  if type(name) ~= "string" then errors.misuse(2, "the name of a %s must be a string", kind) end
  return resources.find(self, kind, name, errors.options(options, RESOURCE_OPTIONS).owner_name)
end

-- ---- clusters -----------------------------------------------------------------------------------------------------

local function find_by_name(self, name)
  local found, names = {}, {}
  for _, record in ipairs(self:clusters()) do
    if record.name == name then found[#found + 1] = record.id end
    names[#names + 1] = tostring(record.name)
  end
  if #found == 1 then return found[1] end
  if #found > 1 then
    errors.raise("value", ("%d clusters are named '%s'; choose one with cluster_id=: %s"):format(#found, name,
      table.concat(found, ", ")))
  end
  table.sort(names)
  errors.raise("value", ("there is no cluster named '%s'; there %s"):format(name,
    #names > 0 and "are " .. table.concat(names, ", ") or "are none at all"))
end

local CLUSTER_KNOWN = { cluster_url = "string", cluster_id = "string", name = "string" }
for name, kinds in pairs(start.known) do CLUSTER_KNOWN[name] = kinds end

local function id_in_url(url)
  local id = url:gsub("[?#].*$", ""):gsub("/+$", ""):match("([^/]+)$")
  if not id then errors.raise("value", ("cluster_url %q names no cluster"):format(url)) end
  return id
end

local function check_open(self)
  if self.closed then errors.raise("closed", "this connection is closed") end
end

--- A cluster, ready to use: the one that the token (or the project_id) stands for, or the one named by `cluster_id`,
--- `name` or `cluster_url`. Starts it unless it runs, and waits.
---@param options table?
---@return saturn.Cluster
function Connection:cluster(options)
  options = start.check(errors.options(options, CLUSTER_KNOWN))
  check_open(self)
  if options.cluster_url then return clusters.new(self, id_in_url(options.cluster_url), options):refresh() end
  start.check_sizes(self, options)
  local id = options.cluster_id or (options.name and find_by_name(self, options.name))
  if id then return launch.by_id(clusters.new(self, id, options), options) end
  return launch.selected(clusters.new(self, "", options), options)
end

--- Recreates the cluster with these settings (the others are reset), and waits until it is ready.
---@param options table? as for `cluster`
---@return saturn.Cluster
function Connection:reset(options)
  options = start.check(errors.options(options, start.known))
  check_open(self)
  start.check_sizes(self, options)
  return launch.reset(clusters.new(self, "", options), options)
end

-- ---- the end -----------------------------------------------------------------------------------------------------

--- Forgets the token, after ending the clusters that were to end with it. Safe to call twice.
function Connection:close()
  if self.closed then return end
  local problem
  for cluster in pairs(self.open) do
    local ok, err = pcall(clusters.finish, cluster)
    if not ok then problem = problem or err end
  end
  self.closed = true
  self.settings.credentials:forget()
  if self.service then self.service:close() end
  if problem then error(problem, 0) end
end

function Connection:__close()
  self:close()
end

--- A connection with these settings. No request is made.
---@param settings saturn.cloud.Settings
---@param service table? the embedded service that this connection owns
---@return saturn.Connection
function M.new(settings, service)
  -- made before any cluster, so that at the end of the Lua state it is still there when a cluster is to be closed
  loop.reactor()
  local self = setmetatable({
    settings = settings, http = http.new(settings), base_url = settings.base_url, external = settings.external,
    service = service, closed = false, open = setmetatable({}, { __mode = "k" }),
  }, Connection)
  if settings.scheme == "http" and settings.external and not settings.nearby then
    self:warn(("the token goes to %s without encryption: use https"):format(settings.host))
  end
  return self
end

return M
