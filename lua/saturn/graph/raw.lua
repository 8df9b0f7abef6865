--- Raw graphs: tables of tasks by name, as Dask's own graphs are dictionaries. They become delayed values, with keys of
-- their own on the cluster: equal names in two graphs, or a text in an argument that is the name of a task, are no
-- matter.

local delayed = require "saturn.graph.delayed"
local errors = require "saturn.error"
local keys = require "saturn.graph.key"
local node = require "saturn.dask.node"
local py = require "saturn.py"

local M = {}

---@class saturn.Task a call in a raw graph
local Task = { __name = "saturn.task" }

---@class saturn.Key stands for the task of this name
---@field key any
local Key = { __name = "saturn.key", __saturn_ref = true }

local CALL = {}

function Task:__tostring()
  return ("<saturn.task: %s>"):format(rawget(self, CALL).callable.prefix)
end

function Key:__tostring()
  return ("<saturn.key: %s>"):format(tostring(rawget(self, "key")))
end

--- A call for a raw graph. Its arguments may hold saturn.key "name", Futures, delayed values and other tasks, in tables
--- of any depth.
---@param fn any "package.module.name", saturn.py.ref(...) or saturn.py.fn[[...]]
---@param ... any arguments; saturn.py.kw{...} last for keyword arguments
---@return saturn.Task
function M.task(fn, ...)
  local callable = node.callable(fn, 2)
  local args, nargs, kwargs = node.arguments(table.pack(...))
  return setmetatable({ [CALL] = { callable = callable, args = args, nargs = nargs, kwargs = kwargs } }, Task)
end

--- Stands for the result of a raw graph's task of this name. Outside a graph: for the task of this key on the cluster.
---@param name any a string, an integer or a saturn.py.tuple of those
---@return saturn.Key
function M.key(name)
  return setmetatable({ key = keys.check(name, 2) }, Key)
end

-- ---- raw graph → delayed values ------------------------------------------------------------------------------------

---@class saturn.RawGraph
---@field specs table<string, table> { name, spec } by the name's id
---@field nodes table<string, saturn.Delayed> made so far, by id
---@field waiting table nodes whose spec is still to be looked at

local function no_such_key(graph, name, level)
  local known = {}
  for _, entry in pairs(graph.specs) do
    if type(entry.name) == "string" then known[#known + 1] = ("%q"):format(entry.name) end
  end
  table.sort(known)
  local list = table.concat(known, ", ", 1, math.min(#known, 8))
  errors.misuse(level + 1, "the graph has no task %s; it has %s%s", tostring(name), list, #known > 8 and ", ..." or "")
end

-- The node of a name; its content follows when its turn comes.
local function node_for(graph, name, level)
  local id = keys.id(name)
  local value = graph.nodes[id]
  if value then return value end
  local entry = graph.specs[id]
  if not entry then no_such_key(graph, name, level + 1) end
  value = delayed.placeholder(keys.unique(keys.prefix(name)))
  graph.nodes[id] = value
  graph.waiting[#graph.waiting + 1] = { value, entry.spec }
  return value
end

local resolve

local function resolve_table(graph, value, seen, level)
  if seen[value] then return seen[value] end
  seen[value] = value
  local copy
  for key, item in next, value do
    local new_key, new_item = resolve(graph, key, seen, level + 1), resolve(graph, item, seen, level + 1)
    if not rawequal(new_key, key) or not rawequal(new_item, item) then
      if not copy then
        copy = {}
        for k, v in next, value do copy[k] = v end
      end
      if not rawequal(new_key, key) then copy[key] = nil end
      copy[new_key] = new_item
    end
  end
  if copy then
    setmetatable(copy, getmetatable(value))
    seen[value] = copy
  end
  return copy or value
end

-- The value with nodes in place of names and tasks; a table without any is the same table.
function resolve(graph, value, seen, level)
  if type(value) ~= "table" then return value end
  local meta = getmetatable(value)
  if meta == Key then return (node_for(graph, rawget(value, "key"), level + 1)) end
  if meta == Task then
    local inner = delayed.placeholder(keys.unique(rawget(value, CALL).callable.prefix))
    graph.waiting[#graph.waiting + 1] = { inner, value }
    return inner
  end
  if meta and meta.__saturn_ref then return value end
  return (resolve_table(graph, value, seen, level + 1)) -- no tail call: levels of errors count functions
end

local function fill(graph, value, spec, level)
  if getmetatable(spec) ~= Task then
    delayed.fill_literal(value, resolve(graph, spec, {}, level + 1))
    return
  end
  local given, args, seen = rawget(spec, CALL), {}, {}
  for i = 1, given.nargs do args[i] = resolve(graph, given.args[i], seen, level + 1) end
  local kwargs = given.kwargs and resolve(graph, given.kwargs, seen, level + 1)
  delayed.fill(value, given.callable, args, given.nargs, kwargs)
end

local function read_specs(tasks, level)
  local specs = {}
  for name, spec in next, tasks do
    keys.check(name, level + 1)
    specs[keys.id(name)] = { name = name, spec = spec }
  end
  return specs
end

-- Nested lists of names → the same lists of nodes; every node is put into `roots` too.
local function select(graph, names, roots, level)
  if type(names) == "table" and getmetatable(names) == nil then
    local list = {}
    for i, name in ipairs(names) do list[i] = select(graph, name, roots, level + 1) end
    return list
  end
  if getmetatable(names) == Key then names = rawget(names, "key") end
  if not keys.is_key(names) then
    errors.misuse(level + 1, "expected the name of a task or a list of names, not a %s", py.kind(names) or type(names))
  end
  local value = node_for(graph, names, level + 1)
  roots[#roots + 1] = value
  return value
end

--- Turns what `names` needs of a raw graph into delayed values.
---@param tasks table name → saturn.task(...), saturn.key(...), a Future, a delayed value or a plain value
---@param names any a name, or nested lists of names
---@return any nodes in the nesting of names
---@return saturn.Delayed[] roots the same in one list
function M.convert(tasks, names, level)
  if type(tasks) ~= "table" or getmetatable(tasks) ~= nil and py.kind(tasks) ~= "dict" then
    errors.misuse(level + 1, "a graph is a table of tasks by name, not %s", type(tasks) == "table" and tostring(tasks)
      or "a " .. type(tasks))
  end
  local graph = { specs = read_specs(tasks, level + 1), nodes = {}, waiting = {} }
  local roots = {}
  local nodes = select(graph, names, roots, level + 1)
  while #graph.waiting > 0 do
    local next_one = table.remove(graph.waiting)
    fill(graph, next_one[1], next_one[2], level + 1)
  end
  return nodes, roots
end

return M
