--- Side by side with Python's client: the same scheduler, the same run, one process a measurement, in turn A B A B.
-- Each case is bench/cases/<name>.lua and <name>.py, which print `metric value` lines; the process itself is measured
-- from outside. What is compared are ratios of medians. CASE=name runs one case or all of one script, RUNS=n sets how
-- often.

package.path = "./?.lua;lua/?.lua;lua/?/init.lua;" .. package.path
package.cpath = "build/?.so;" .. package.cpath

local dask = require "spec.support.dask"
local json = require "cjson"
local plot = require "bench.plot"
local table_of = require "bench.table"

local PYTHON = os.getenv("PYTHON") or "/usr/bin/python3"
local VERSION = os.getenv("DASK") or "2022.12.1"
local RUNS = tonumber(os.getenv("RUNS") or 5)

-- case, how it is set up, and its rows: metric, title, unit, what is aimed for as python / saturn
local CASES = require "bench.cases"

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function measure(command)
  local pipe = assert(io.popen(PYTHON .. " bench/measure.py " .. command, "r"))
  local text = pipe:read("a")
  pipe:close()
  local result = json.decode(text)
  if result.code ~= 0 then error(command .. " failed:\n" .. result.out) end
  local metrics = { wall = result.wall, cpu = result.cpu, memory = result.memory }
  for name, value in result.out:gmatch("([%w_]+) ([-+.%w]+)\n") do metrics[name] = tonumber(value) end
  return metrics
end

local ENVIRONMENT = "env LUA_PATH='./?.lua;lua/?.lua;lua/?/init.lua;;' LUA_CPATH='build/?.so;;' "

local function command_of(side, case, arguments)
  local parts = {}
  for _, each in ipairs(arguments) do parts[#parts + 1] = quote(each) end
  local rest = table.concat(parts, " ")
  if side == "saturn" then
    return ENVIRONMENT .. ("%s bench/cases/%s.lua %s"):format(os.getenv("LUA") or "lua5.4", case, rest)
  end
  return ("%s bench/cases/%s.py %s"):format(PYTHON, case, rest)
end

local function median(values)
  table.sort(values)
  local n = #values
  return n % 2 == 1 and values[(n + 1) // 2] or (values[n // 2] + values[n // 2 + 1]) / 2
end

local function collect(samples, metrics)
  for name, value in pairs(metrics) do
    samples[name] = samples[name] or {}
    table.insert(samples[name], value)
  end
end

local function run_case(case, arguments)
  local samples = { saturn = {}, python = {} }
  local runs = case.runs or RUNS
  for run = case.long and 1 or 0, runs do -- run 0 warms up, which a long case does by itself
    for _, side in ipairs { "saturn", "python" } do
      local metrics = measure(command_of(side, case.script or case.name, arguments))
      if run > 0 then collect(samples[side], metrics) end
    end
  end
  return samples
end

local function rows_of(case, samples)
  local rows = {}
  for _, metric in ipairs(case.rows) do
    local ours, theirs = samples.saturn[metric.name], samples.python[metric.name]
    if ours then
      local a, b = median(ours), theirs and median(theirs)
      rows[#rows + 1] = {
        title = metric.title, unit = metric.unit, scale = metric.scale or 1, saturn = a, python = b,
        ratio = b and (metric.more_is_better and a / b or b / a), aim = metric.aim,
      }
    end
  end
  return rows
end

-- The cases that CASE names: one, or all of a script.
local function wanted(only)
  local list, names = {}, {}
  for _, case in ipairs(CASES) do
    names[#names + 1] = case.name
    if not only or only == case.name or only == case.script then list[#list + 1] = case end
  end
  if #list == 0 then error(("no case %s; there are %s"):format(only, table.concat(names, ", ")), 0) end
  return list
end

local function main()
  local rows, only = {}, os.getenv("CASE")
  local cases = wanted(only)
  print(("distributed %s, Python's client and saturn in turn, median of %d runs"):format(VERSION, RUNS))
  for _, case in ipairs(cases) do
    local cluster = case.cluster and dask.start { version = VERSION, workers = case.cluster, nthreads = 1 }
    local arguments = { cluster and cluster.address or "-", table.unpack(case.arguments or {}) }
    local ok, result = pcall(run_case, case, arguments)
    if cluster then cluster:stop() end
    if not ok then error(result, 0) end
    for _, row in ipairs(rows_of(case, result)) do
      rows[#rows + 1] = row
      print(table_of.line(row))
    end
  end
  if not only then
    local markdown = table_of.markdown(VERSION, rows)
    table_of.write("bench/results-" .. VERSION .. ".md", markdown)
    if os.getenv("NEWEST") == VERSION then table_of.replace("README.md", markdown) end
    plot.write("bench/results-" .. VERSION .. ".svg", VERSION, rows)
  end
end

main()
