--- What is measured. `aim` is how many times better than Python's client a row should be.

local MS, US, MIB = 1e3, 1e6, 1 / 1048576

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
    name = "map_gather", cluster = 2, runs = 3,
    rows = {
      { name = "task_cpu", title = "map and gather of 10,000: client CPU a task", unit = "µs", scale = US, aim = 15 },
      { name = "elapsed", title = "map and gather of 10,000: wall", unit = "s" },
    },
  },
  {
    name = "submit_many", cluster = 2, runs = 3,
    rows = {
      { name = "task_cpu", title = "10,000 submits: client CPU a task", unit = "µs", scale = US, aim = 20 },
    },
  },
}
