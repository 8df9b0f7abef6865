--- The tasks that delayed values need, each once and before those that need it. Nothing here recurses over tasks, so
-- that a chain may be as long as memory allows.

local delayed = require "saturn.graph.delayed"
local errors = require "saturn.error"

local node_of, is_delayed = delayed.node, delayed.is_delayed

local M = {}

-- Adds the delayed values in a table, at any depth, to `found`.
local function search(value, found, seen)
  if type(value) ~= "table" or seen[value] then return end
  if is_delayed(value) then
    found[#found + 1] = value
    return
  end
  seen[value] = true
  for key, item in next, value do
    if type(key) == "table" then search(key, found, seen) end
    if type(item) == "table" then search(item, found, seen) end
  end
end

-- What a table holds, looked for once however many tasks share it.
local function held(value, cache)
  local found = cache[value]
  if not found then
    found = {}
    search(value, found, {})
    cache[value] = found
  end
  return found
end

local function add_refs(value, refs, cache)
  if type(value) ~= "table" then return end
  if is_delayed(value) then
    refs[#refs + 1] = value
    return
  end
  for _, each in ipairs(held(value, cache)) do refs[#refs + 1] = each end
end

local NONE = {}

--- The delayed values that one needs directly.
---@param value saturn.Delayed
---@param cache table shared by the calls of one walk
---@return saturn.Delayed[]
function M.references(value, cache)
  local fields = node_of(value)
  if not fields.callable then return NONE end
  local refs = {}
  for i = 1, fields.nargs do add_refs(fields.args[i], refs, cache) end
  if fields.kwargs then add_refs(fields.kwargs, refs, cache) end
  return refs
end

local MOST_SHOWN = 10

local function raise_cycle(stack, height, key)
  local path, from = {}, 1
  for i = 1, height do
    if rawget(stack[i], "key") == key then from = i end
  end
  for i = from, math.min(height, from + MOST_SHOWN) do path[#path + 1] = tostring(rawget(stack[i], "key")) end
  path[#path + 1] = height > from + MOST_SHOWN and "..." or tostring(key)
  errors.raise("value", "the graph has a cycle, so it can never be computed: " .. table.concat(path, " needs "))
end

--- All that the roots need, what is needed before what needs it.
---@param roots saturn.Delayed[]
---@return saturn.Delayed[]
function M.order(roots)
  local order, state, cache = {}, {}, {}
  for _, root in ipairs(roots) do
    local stack, refs, position, height = { root }, {}, {}, 1
    while height > 0 do
      local value = stack[height]
      local key = rawget(value, "key")
      if not refs[height] then
        if state[key] == "done" then
          height = height - 1
          goto continue
        end
        if state[key] == "open" then raise_cycle(stack, height - 1, key) end
        state[key] = "open"
        refs[height], position[height] = M.references(value, cache), 0
      end
      position[height] = position[height] + 1
      local reference = refs[height][position[height]]
      if reference then
        height = height + 1
        stack[height] = reference
      else
        state[key] = "done"
        order[#order + 1] = value
        refs[height] = nil
        height = height - 1
      end
      ::continue::
    end
  end
  return order
end

return M
