-- Writes docs/parity.md: which tests of Python's client stand again in the specs here, under their own names.
-- lua tools/parity.lua, from the root of the checkout.

local function lines_of(command)
  local pipe = assert(io.popen(command))
  local list = {}
  for line in pipe:lines() do list[#list + 1] = line end
  pipe:close()
  return list
end

local function tests_of(path)
  local group, tests = {}, {}
  for line in io.lines(path) do
    local indent, name = line:match('^(%s*)describe%(?%s*"([^"]+)"')
    if name then
      for depth in pairs(group) do
        if depth >= #indent then group[depth] = nil end
      end
      group[#indent] = name
    end
    local test, what = line:match('%f[%w]it%(?%s*"([%w_:, ]*test_[%w_]+)[:,]?%s*([^"]*)"')
    if test then
      local deepest
      for depth in pairs(group) do
        if not deepest or depth > deepest then deepest = depth end
      end
      tests[#tests + 1] = { group = deepest and group[deepest] or "", name = test, what = what }
    end
  end
  return tests
end

local function cell(text)
  return (text:gsub("|", "\\|"))
end

local out = {
  "# Parity with Python's client", "",
  "Written by `tools/parity.lua` from the specs: the tests of Dask's own suite that stand again here under their",
  "names.",
  "Each runs against real schedulers of every release in the matrix.", "",
  "| group | test | what it checks | spec |", "| --- | --- | --- | --- |",
}
local count = 0
for _, path in ipairs(lines_of("ls spec/e2e/*_spec.lua")) do
  for _, test in ipairs(tests_of(path)) do
    count = count + 1
    out[#out + 1] = ("| %s | `%s` | %s | %s |"):format(cell(test.group), cell(test.name), cell(test.what), path)
  end
end
out[#out + 1] = ("\n%d tests.\n"):format(count)
out[#out + 1] = [[
Left out, since it means nothing outside of Python or is gone from Dask: `get_executor`, `recreate_task_locally` and
`recreate_error_locally`, what is for code inside tasks (`get_worker`, `secede`, ...), Pub/Sub, notebook widgets, and
the graph builders of arrays and data frames, which are driven by naming their functions. `UploadDirectory`: upload a
.zip instead.]]
local file = assert(io.open("docs/parity.md", "w"))
file:write(table.concat(out, "\n"), "\n")
file:close()
