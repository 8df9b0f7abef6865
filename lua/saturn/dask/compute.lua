--- Sends graphs: delayed values and raw graphs become tasks.

local delayed = require "saturn.graph.delayed"
local errors = require "saturn.error"
local future = require "saturn.dask.future"
local gather = require "saturn.dask.gather"
local options_of_call = require "saturn.dask.options"
local raw = require "saturn.graph.raw"
local walk = require "saturn.graph.walk"

local M = {}

local function the_client(client)
  return rawget(client, "_client") or client
end

local function check_future(client, value, a_future)
  if not a_future:id() then
    errors.raise("value", ("%s stands on a Future that was released"):format(tostring(value)))
  end
  if not a_future:mine(client.session) then
    errors.raise("value", ("%s stands on a Future of another client"):format(tostring(value)))
  end
  future.check_there(a_future)
end

-- Sends what the roots need and gives a Future for each.
local function submit(client, roots)
  local graph, tasks = client:new_graph(false), 0
  for _, value in ipairs(walk.order(roots)) do
    local node = delayed.node(value)
    if node.future then
      check_future(client, value, node.future)
    else
      tasks = tasks + 1
      client:add_task(graph, rawget(value, "key"), node.callable, node.args, node.nargs, node.kwargs)
    end
  end
  local wanted, futures = {}, {}
  for _, root in ipairs(roots) do
    local key = rawget(root, "key")
    if not delayed.node(root).future and not wanted[key] then
      graph:want(key)
      wanted[key] = true
    end
  end
  if tasks > 0 then errors.check(client.session:submit(graph)) end
  for i, root in ipairs(roots) do
    futures[i] = client.session:future(rawget(root, "key"), the_client(client))
  end
  return futures
end

-- One delayed value, or a plain table of them, or several: a shape, and the delayed values in one list.
local function roots_of(packed, what)
  local roots, shape = {}, {}
  local function take(value, place)
    if not delayed.is_delayed(value) then
      errors.misuse(4, "%s needs delayed values, but %s is a %s: see saturn.delayed", what, place, type(value))
    end
    roots[#roots + 1] = value
    return #roots
  end
  if packed.n == 1 and type(packed[1]) == "table" and getmetatable(packed[1]) == nil then
    for name, value in pairs(packed[1]) do shape[name] = take(value, "element " .. tostring(name)) end
    return roots, shape
  end
  for i = 1, packed.n do shape[i] = take(packed[i], "argument " .. i) end
  if packed.n == 0 then errors.misuse(3, "%s needs a delayed value", what) end
  return roots, packed.n == 1 and 1 or shape
end

local function in_shape(shape, items)
  if shape == 1 then return items[1] end
  local shaped = {}
  for name, at in pairs(shape) do shaped[name] = items[at] end
  return shaped
end

--- Computes delayed values: a Future for one, a list of Futures for several, and for a table of delayed values a table
--- of Futures. What they share is computed once.
---@param ... any delayed values, or one table of them
---@return any
function M.compute(client, ...)
  options_of_call.refuse_key(client, "compute")
  local roots, shape = roots_of(table.pack(...), "compute")
  return in_shape(shape, submit(client, roots))
end

--- Computes delayed values and keeps the results on the cluster: gives delayed values that stand on them, in the shape
--- that compute has. They are kept as long as these live.
---@param ... any delayed values, or one table of them
---@return any
function M.persist(client, ...)
  options_of_call.refuse_key(client, "persist")
  local roots, shape = roots_of(table.pack(...), "persist")
  local items = submit(client, roots)
  for i, each in ipairs(items) do items[i] = delayed.of_future(each) end
  return in_shape(shape, items)
end

local function futures_for(nodes, by_node)
  if not delayed.is_delayed(nodes) then
    local list = {}
    for i, each in ipairs(nodes) do list[i] = futures_for(each, by_node) end
    return list
  end
  return by_node[nodes]
end

--- Computes what some tasks of a raw graph need and gives their values.
---@param graph table name → saturn.task(...), saturn.key(...), a Future, a delayed value or a plain value
---@param names any a name, or nested lists of names
---@param options table? timeout in seconds; direct, as for gather
---@return any values in the nesting of names
function M.get(client, graph, names, options)
  options = errors.options(options, { timeout = "number", direct = "boolean" })
  options_of_call.refuse_key(client, "get")
  client:check_open()
  local nodes, roots = raw.convert(graph, names, 2)
  if #roots == 0 then return nodes end
  local by_node = {}
  for i, each in ipairs(submit(client, roots)) do by_node[roots[i]] = each end
  return gather.gather(the_client(client), futures_for(nodes, by_node), options)
end

return M
