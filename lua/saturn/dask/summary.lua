--- What a scheduler said of itself, in short: for tostring(client), which must not ask.

local M = {}

---@class saturn.Summary
---@field services table
---@field workers integer
---@field threads integer
---@field memory number bytes

--- The summary of an answer to `identity`. Newer schedulers count their workers themselves.
---@param identity table
---@return saturn.Summary
function M.of(identity)
  local services = type(identity.services) == "table" and identity.services or {}
  if identity.total_threads then
    return {
      services = services, workers = identity.n_workers, threads = identity.total_threads,
      memory = tonumber(identity.total_memory) or 0,
    }
  end
  local summary = { services = services, workers = 0, threads = 0, memory = 0 }
  for _, worker in pairs(identity.workers) do
    summary.workers = summary.workers + 1
    summary.threads = summary.threads + worker.nthreads
    summary.memory = summary.memory + (tonumber(worker.memory_limit) or 0)
  end
  return summary
end

--- Where the dashboard is, as seen from here; nil when the scheduler has none.
---@param summary saturn.Summary
---@param address string the scheduler's
---@return string?
function M.dashboard(summary, address)
  local port = math.tointeger(summary.services.dashboard)
  local host = address:match("^%a[%w+]*://(.+):%d+$")
  if not port or not host then return nil end
  return ("http://%s:%d/status"):format(host, port)
end

local UNITS = { "B", "kiB", "MiB", "GiB", "TiB", "PiB" }

local function bytes_text(bytes)
  local unit = 1
  while bytes >= 1024 and unit < #UNITS do bytes, unit = bytes / 1024, unit + 1 end
  return ("%.1f %s"):format(bytes, UNITS[unit])
end

local function counted(n, what)
  return ("%d %s%s"):format(n, what, n == 1 and "" or "s")
end

--- "2 workers, 4 threads, 3.7 GiB, dashboard http://..."
---@param summary saturn.Summary
---@param address string
---@return string
function M.text(summary, address)
  local parts = { counted(summary.workers, "worker"), counted(summary.threads, "thread"), bytes_text(summary.memory) }
  local link = M.dashboard(summary, address)
  if link then parts[#parts + 1] = "dashboard " .. link end
  return table.concat(parts, ", ")
end

return M
