--- The options that client:with{...} gives to calls: checks, keys and annotations.

local core = require "saturn.core"
local errors = require "saturn.error"
local keys = require "saturn.graph.key"
local ops = require "saturn.dask.ops"

local M = {}

local KNOWN = {
  key = "any", priority = "number", retries = "integer", workers = "string|integer|table",
  allow_other_workers = "boolean", resources = "table", pure = "boolean", actor = "boolean", tags = "string|table",
  batch_size = "integer", nanny = "boolean", on_error = "string", timeout = "number", -- of run and run_on_scheduler
}

-- A list of texts; one text is a list of one.
local function texts(value, name, level)
  if type(value) == "string" then value = { value } end
  for i = 1, #value do
    if type(value[i]) ~= "string" or value[i] == "" then
      errors.misuse(level + 1, "option '%s' must be a text or a list of texts, but element %d is a %s", name, i,
        type(value[i]))
    end
  end
  if #value == 0 then errors.misuse(level + 1, "option '%s' must not be empty", name) end
  return value
end

-- Names or addresses of workers. A name may be a whole number, as Python's LocalCluster gives them, and is not the text
-- of it.
local function workers_of(value, level)
  local list = {}
  for i, each in ipairs(type(value) == "table" and value or { value }) do
    list[i] = type(each) == "number" and math.tointeger(each) or each
    if each == "" or type(each) ~= "string" and math.type(list[i]) ~= "integer" then
      errors.misuse(level + 1, "option 'workers' must be a name, a number or an address of a worker, or a list of "
        .. "them, but element %d is a %s", i, type(each))
    end
  end
  if #list == 0 then errors.misuse(level + 1, "option 'workers' must not be empty") end
  return list
end

local function check_resources(resources, level)
  for name, amount in pairs(resources) do
    if type(name) ~= "string" or type(amount) ~= "number" then
      errors.misuse(level + 1, "option 'resources' gives an amount by name, such as {GPU = 1}")
    end
  end
end

local function is_list(key)
  return type(key) == "table" and getmetatable(key) == nil
end

local function check_key(key, level)
  for _, each in ipairs(is_list(key) and key or { key }) do keys.check(each, level + 1) end
end

local function uuid()
  local hex = core.session.random(16)
  return ("%s-%s-4%s-a%s-%s"):format(hex:sub(1, 8), hex:sub(9, 12), hex:sub(14, 16), hex:sub(18, 20), hex:sub(21, 32))
end

-- Tags make spans as Python's span() does: one id a tag, behind those of the spans around it.
local function span_of(tags, outer)
  local span = { name = {}, ids = {} }
  if outer then
    table.move(outer.name, 1, #outer.name, 1, span.name)
    table.move(outer.ids, 1, #outer.ids, 1, span.ids)
  end
  for _, tag in ipairs(tags) do
    span.name[#span.name + 1] = tag
    span.ids[#span.ids + 1] = uuid()
  end
  return span
end

local function at_least(options, name, least, level)
  local value = options[name]
  if value and value < least then errors.misuse(level + 1, "option '%s' must be at least %d", name, least) end
  return value and math.tointeger(value)
end

--- Checked options on top of those of the view they are given to.
---@param outer table?
---@param options table
---@param level integer 2: at the caller of the function that calls this
---@return table
function M.merge(outer, options, level)
  options = errors.options(options, KNOWN, level + 1)
  local merged = {}
  for name, value in pairs(outer or {}) do merged[name] = value end
  for name, value in pairs(options) do merged[name] = value end
  if options.key ~= nil then check_key(options.key, level + 1) end
  merged.retries = at_least(merged, "retries", 0, level + 1)
  merged.batch_size = at_least(merged, "batch_size", 1, level + 1)
  if options.workers then merged.workers = workers_of(options.workers, level + 1) end
  if options.resources then check_resources(options.resources, level + 1) end
  if options.tags then merged.span = span_of(texts(options.tags, "tags", level + 1), outer and outer.span) end
  return merged
end

local function of(client)
  return rawget(client, "_with") or {}
end

--- Writes the options of a view into a graph.
function M.annotate(client, graph)
  local with = of(client)
  if with.priority then graph:annotate("priority", with.priority) end
  if with.retries then graph:annotate("retries", with.retries) end
  if with.workers then graph:annotate("workers", with.workers) end
  if with.allow_other_workers ~= nil then graph:annotate("allow_other_workers", with.allow_other_workers) end
  if with.resources then graph:annotate("resources", core.wire.map(with.resources)) end
  if with.span then graph:annotate("span", with.span) end
end

--- The key of one call.
function M.key(client, callable, args, nargs, kwargs)
  local with = of(client)
  if with.key ~= nil then
    if is_list(with.key) then errors.misuse(3, "option 'key' is a list, which names the calls of map, not one call") end
    return ops.key(client.release, with.key)
  end
  if with.pure then return keys.content(callable.prefix, callable, args, nargs, kwargs) end
  return client:new_key(callable.prefix)
end

--- What gives the key of each of several calls: `key_of(i, args, nargs, kwargs)`.
function M.keys(client, callable, count)
  local with = of(client)
  local key, prefix = with.key, callable.prefix
  if is_list(key) then
    if #key ~= count then errors.misuse(3, "option 'key' has %d keys for %d calls", #key, count) end
    return function(i) return ops.key(client.release, key[i]) end
  end
  if key ~= nil then
    if type(key) ~= "string" then
      errors.misuse(3, "option 'key' of map is a text, the leading part of all keys, or a list of keys")
    end
    prefix = key
  end
  if with.pure then
    return function(_, args, nargs, kwargs) return keys.content(prefix, callable, args, nargs, kwargs) end
  end
  return function() return client:new_key(prefix) end
end

--- How many calls of map go into one message.
function M.batch_size(client, count)
  return math.max(1, of(client).batch_size or count)
end

--- Raises a misuse error when the view names keys, which a graph does itself.
function M.refuse_key(client, what)
  if of(client).key ~= nil then
    errors.misuse(3, "option 'key' is for submit and map; the tasks of %s have their own keys", what)
  end
end

return M
