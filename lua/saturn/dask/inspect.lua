--- Looking into a cluster: versions, where data is, what runs, logs, records of what ran.

local errors = require "saturn.error"
local targets = require "saturn.dask.targets"

local ask = targets.ask

local M = {}

-- ---- versions ---------------------------------------------------------------------------------------------------

-- Only these must be the same on the scheduler as on the workers; of the others the workers alone are compared.
local MATTER_ON_SCHEDULER = {
  dask = true, distributed = true, cloudpickle = true, tornado = true, toolz = true, lz4 = true, python = true,
}

local function sorted_keys(set)
  local list = {}
  for key in pairs(set) do list[#list + 1] = key end
  table.sort(list)
  return list
end

local function package_names(scheduler, workers)
  local names = {}
  for name in pairs(scheduler.packages or {}) do names[name] = true end
  for _, worker in pairs(workers) do
    for name in pairs(worker.packages or {}) do names[name] = true end
  end
  return sorted_keys(names)
end

local function version_in(node, name)
  return tostring((node.packages or {})[name] or "MISSING")
end

-- {name, version on the scheduler, versions on the workers} of each package that differs.
local function mismatches(scheduler, workers)
  local rows = {}
  for _, name in ipairs(package_names(scheduler, workers)) do
    local on_scheduler, on_workers = version_in(scheduler, name), {}
    for _, worker in pairs(workers) do on_workers[version_in(worker, name)] = true end
    local all = {}
    for version in pairs(on_workers) do all[version] = true end
    if MATTER_ON_SCHEDULER[name] then all[on_scheduler] = true end
    if #sorted_keys(all) > 1 then
      rows[#rows + 1] = { name, on_scheduler, table.concat(sorted_keys(on_workers), ", ") }
    end
  end
  return rows
end

local function ascii_table(columns, rows)
  local widths = {}
  for i, title in ipairs(columns) do
    widths[i] = #title
    for _, row in ipairs(rows) do widths[i] = math.max(widths[i], #row[i]) end
  end
  local function line(cells)
    local parts = {}
    for i, cell in ipairs(cells) do parts[i] = " " .. cell .. (" "):rep(widths[i] - #cell) .. " |" end
    return "|" .. table.concat(parts)
  end
  local dashes = {}
  for i, width in ipairs(widths) do dashes[i] = ("-"):rep(width + 2) end
  local bar = "+" .. table.concat(dashes, "+") .. "+"
  local lines = { bar, line(columns), bar }
  for _, row in ipairs(rows) do lines[#lines + 1] = line(row) end
  lines[#lines + 1] = bar
  return table.concat(lines, "\n")
end

local function mismatch_text(scheduler, workers)
  local rows = mismatches(scheduler, workers)
  if #rows == 0 then return nil end
  return "Mismatched versions found\n\n" .. ascii_table({ "Package", "Scheduler", "Workers" }, rows)
end

---@class saturn.Versions
---@field scheduler table host and packages, each name → version
---@field workers table<string, table> address → the same
---@field client table saturn, lua
---@field warning string? a table of the packages whose versions differ; nil when all fit

--- The versions of the software of the scheduler and all workers. Workers that do not answer are left out.
---@param options table? packages (more Python packages to ask for), timeout
---@return saturn.Versions
function M.versions(client, options)
  options = errors.options(options, { packages = "table", timeout = "number" })
  local packages = options.packages or {}
  local scheduler = ask(client, "versions", { packages = packages }, options.timeout)
  local workers = ask(client, "broadcast", {
    msg = { op = "versions", packages = packages }, on_error = "ignore",
  }, options.timeout)
  return {
    scheduler = scheduler,
    workers = workers,
    client = { saturn = require("saturn")._VERSION, lua = _VERSION:match("%d.*") },
    warning = mismatch_text(scheduler, workers),
  }
end

return M
