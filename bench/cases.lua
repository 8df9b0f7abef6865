--- What is measured. `aim` is how many times better than Python's client a row should be.

local MS, US, MIB = 1e3, 1e6, 1 / 1048576
local MB = 1e-6

-- 200 MB of random numbers, from the scheduler, from one worker, or from four at once
local function gather(title, mode, aim, ...)
  return {
    name = "gather_" .. mode, script = "gather", arguments = { mode, os.getenv("RAW_GATHER") },
    cluster = mode == "four" and 4 or 1,
    rows = {
      { name = "rate", title = "gather 200 MB " .. title, unit = "MB/s", scale = MB, more_is_better = true, aim = aim },
      ...,
    },
  }
end

local function scatter(title, mode, aim)
  return {
    name = "scatter_" .. mode, script = "scatter", arguments = { mode }, cluster = 1,
    rows = {
      { name = "rate", title = "scatter 200 MB " .. title, unit = "MB/s", scale = MB, more_is_better = true,
        aim = aim },
    },
  }
end

local function codec(title, what)
  return {
    name = "codec_" .. what, script = "codec", arguments = { what },
    rows = {
      { name = "decode", title = "unpickle " .. title, unit = "ms", scale = MS, aim = 1 },
      { name = "encode", title = "pickle " .. title, unit = "ms", scale = MS, aim = 1 },
    },
  }
end

return {
  {
    name = "cold_start", cluster = 1,
    rows = {
      { name = "wall", title = "start, one result, exit: wall", unit = "ms", scale = MS, aim = 15 },
      { name = "cpu", title = "start, one result, exit: CPU", unit = "ms", scale = MS },
      { name = "memory", title = "start, one result, exit: peak memory", unit = "MiB", scale = MIB, aim = 8 },
    },
  },
  {
    name = "round_trip", cluster = 1,
    rows = {
      { name = "median", title = "submit, result: median", unit = "ms", scale = MS, aim = 1.8 },
      { name = "p90", title = "submit, result: 90 %", unit = "ms", scale = MS },
    },
  },
  {
    name = "map_gather", cluster = 2, runs = 1, long = true,
    rows = {
      { name = "task_cpu", title = "map and gather of 10,000: client CPU a task", unit = "µs", scale = US, aim = 15 },
      { name = "elapsed", title = "map and gather of 10,000: wall", unit = "s" },
    },
  },
  {
    name = "submit_many", cluster = 2, runs = 1, long = true,
    rows = {
      { name = "task_cpu", title = "10,000 submits: client CPU a task", unit = "µs", scale = US, aim = 20 },
    },
  },
  {
    name = "list", cluster = 1, runs = 3,
    rows = {
      { name = "item_cpu", title = "gather a list of 100,000 integers: client CPU an item", unit = "µs", scale = US,
        aim = 1 },
      { name = "elapsed", title = "gather a list of 100,000 integers: wall", unit = "s" },
    },
  },
  gather("through the scheduler", "scheduler", 1),
  gather("from a worker", "direct", 1, {
    name = "memory", title = "gather 200 MB from a worker: peak memory", unit = "MiB", scale = MIB,
  }, {
    name = "share", title = "gather 200 MB from a worker: share of plain C's rate", unit = "",
  }),
  gather("from four workers", "four", 1),
  gather("as a data frame from a worker", "frame", 1),
  scatter("through the scheduler", "scheduler", 1),
  scatter("to a worker", "direct", 1),
  codec("a list of a million integers", "integers"),
  codec("a list of a million floats", "floats"),
  codec("a list of a million different short strings", "strings"),
  codec("a list of a million strings of 50 bytes", "texts"),
  codec("100,000 rows as dictionaries", "rows"),
  {
    name = "graph", arguments = { "100000", "3" }, runs = 3,
    rows = {
      { name = "task", title = "graph of 100,000 tasks built and encoded: a task", unit = "µs", scale = US, aim = 10 },
      { name = "bytes", title = "the same: bytes a task", unit = "B" },
    },
  },
  {
    name = "graph_of_a_million", script = "graph", arguments = { "1000000", "1" }, runs = 1, long = true,
    rows = {
      { name = "task", title = "graph of a million tasks built, encoded: a task", unit = "µs", scale = US, aim = 10 },
      { name = "memory", title = "the same: peak memory", unit = "MiB", scale = MIB },
    },
  },
}
