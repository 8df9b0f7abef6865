--- What the answers to requests look like, as far as they are looked into here. Of a peer that sends something else an
--- error tells where it is wrong.

local core = require "saturn.core"
local errors = require "saturn.error"

local M = {}

local null = core.null

-- A shape is the name of a type, or a function that gives what is wrong with a value: where, and what it is.
local function fault(value, shape)
  if type(shape) == "function" then return shape(value) end
  if type(value) ~= shape then return ("is a %s, not a %s"):format(type(value), shape) end
end

local function inside(name, why)
  return ("[%s]%s%s"):format(tostring(name), why:sub(1, 1) == "[" and "" or " ", why)
end

local function each(shape)
  return function(value)
    if type(value) ~= "table" then return fault(value, "table") end
    for name, item in next, value do
      local why = fault(item, shape)
      if why then return inside(name, why) end
    end
  end
end

local function record(fields)
  return function(value)
    if type(value) ~= "table" then return fault(value, "table") end
    for name, shape in pairs(fields) do
      local why = fault(value[name], shape)
      if why then return inside(name, why) end
    end
  end
end

local function maybe(shape)
  return function(value)
    if value ~= nil and value ~= null then return fault(value, shape) end
  end
end

-- One record, or a list of them.
local function records(value)
  if type(value) == "table" and value.type == nil then return fault(value, each "table") end
  return fault(value, "table")
end

-- By op; the last are parts of answers.
local SHAPES = {
  broadcast = "table",
  events = each "table",
  get_story = each "table",
  get_task_status = "table",
  get_task_stream = each "table",
  identity = record {
    workers = each(record { nthreads = "number" }),
    total_threads = maybe "number", n_workers = maybe "number",
  },
  logs = each "table",
  performance_report = "string",
  publish_get = maybe(record { keys = maybe "table" }),
  queue_get = records,
  rebalance = maybe(record { keys = maybe "table" }),
  restart_workers = "table",
  retry = "table",
  register_nanny_plugin = "table", register_worker_plugin = "table",
  semaphore_value = "number",
  unregister_nanny_plugin = "table", unregister_worker_plugin = "table",
  variable_get = "table",
  who_has = each "table",
  worker_logs = each(each "table"),
  ["versions of a node"] = record { packages = maybe "table" },
  ["story of a node"] = each "table",
  ["keys of a client"] = "table",
}

--- Raises unless the answer to `op` has its shape; one that has none passes.
---@param op string
---@param value any
function M.check(op, value)
  local shape = SHAPES[op]
  if value == false then value = nil end -- an answer that is None
  local why = shape and fault(value, shape)
  if why then errors.raise("protocol", ("%s: the answer is not what Dask's is: it %s"):format(op, why)) end
end

return M
