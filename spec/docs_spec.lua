-- The Lua of README.md and docs/*.md runs, and prints what it says behind "-->".
--
-- The snippets of a page run in order and see each other's locals. "<!-- sketch -->" in the line above one: it is only
-- compiled; "<!-- needs: name -->": it runs where this Lua module is there.
local dask = require "spec.support.dask"
local service = require "saturn.local"
local support = require "spec.support"

-- The snippets of a page: { line=, text=, sketch=, needs= }.
local function snippets(path)
  local list, mark, current, number = {}, "", nil, 0
  for line in io.lines(path) do
    number = number + 1
    if current and line == "```" then
      current.text = table.concat(current, "\n")
      list[#list + 1], current = current, nil
    elseif current then
      current[#current + 1] = line
    elseif line == "```lua" then
      current = { line = number, sketch = mark == "<!-- sketch -->", needs = mark:match "^<!%-%- needs: ([%w_.]+)" }
    end
    mark = line
  end
  return list
end

local function words(text)
  return (text:gsub("%s+", " "):gsub("^ ", ""):gsub(" $", ""))
end

-- Locals at the start of a line become globals of the page's environment, where the next snippet finds them.
local function opened(text)
  text = ("\n" .. text):gsub("\nlocal (function )", "\n%1"):gsub("\nlocal ([%w_, <>]-=)", function(names)
    return "\n" .. names:gsub("<%a+>", "")
  end)
  return text:sub(2)
end

local function compile(path, snippet, environment)
  local text = ("\n"):rep(snippet.line) .. opened(snippet.text)
  return assert(load(text, "@" .. path, "t", environment))
end

-- What print is to print, by line.
local function expectations(snippet)
  local expected = {}
  local number = snippet.line
  for line in (snippet.text .. "\n"):gmatch "(.-)\n" do
    number = number + 1
    local code, text = line:match "^(.-)%-%->(.*)$"
    if code and code:find "print%f[%W]" then expected[number] = words(text) end
  end
  return expected
end

local function run(path, snippet, environment)
  local expected, met, wrong = expectations(snippet), {}, {}
  function environment.print(...)
    local number = debug.getinfo(2, "l").currentline
    local printed = {}
    for i = 1, select("#", ...) do printed[i] = tostring((select(i, ...))) end
    local text = words(table.concat(printed, " "))
    if expected[number] and expected[number] ~= text then -- not raised here, in the middle of a host's loop
      wrong[#wrong + 1] = ("%s:%d says %q, but it is %q"):format(path, number, expected[number], text)
    end
    met[number] = true
  end
  compile(path, snippet, environment)()
  for number in pairs(expected) do
    if not met[number] then wrong[#wrong + 1] = ("%s:%d printed nothing"):format(path, number) end
  end
  assert.same({}, wrong)
end

describe("docs", function()
  local cluster, server, files

  setup(function()
    files = support.tmpdir()
    cluster = dask.start { workers = 2, nthreads = 2 }
    server = service.start { python = dask.python() }
    support.write_all(files.path .. "/token.json", ('{"token": "%s"}'):format(server.token))
    support.shell("chmod 600 " .. support.quote(files.path .. "/token.json"))
  end)
  teardown(function()
    if server then server:close() end
    if cluster then cluster:stop() end
    if files then files:remove() end
  end)

  -- What only its reader has, and what is too large for a test.
  local function with_stand_ins(text)
    local stand_ins = {
      ['"tcp://127.0.0.1:8786"'] = ("%q"):format(cluster.address),
      ["saturn.client()"] = ("saturn.client(%q)"):format(cluster.address),
      ['"https://app.community.saturnenterprise.io"'] = ("%q"):format(server.base_url),
      ['"token.json"'] = ("%q"):format(files.path .. "/token.json"),
      ["n_workers = 4"] = "n_workers = 1", ["nthreads = 32"] = "nthreads = 1",
      ["wait_for_workers(4"] = "wait_for_workers(1",
      ['"time.sleep", 60'] = '"time.sleep", 1', -- nothing stops a thread of a worker
      [":scale(8)"] = ":scale(2)", [":adapt(1, 10)"] = ":adapt(1, 2)",
    }
    for from, to in pairs(stand_ins) do
      text = text:gsub((from:gsub("%p", "%%%0")), (to:gsub("%%", "%%%%")))
    end
    return text
  end

  local function page(path)
    local environment = setmetatable({}, { __index = _G })
    for _, snippet in ipairs(snippets(path)) do
      snippet.text = with_stand_ins(snippet.text)
      if snippet.sketch or (snippet.needs and not pcall(require, snippet.needs)) then
        compile(path, snippet, environment)
      else
        run(path, snippet, environment)
      end
    end
    for _, name in ipairs { "client", "cluster", "conn" } do
      if rawget(environment, name) then environment[name]:close() end
    end
  end

  for path in support.shell("ls README.md docs/*.md"):gmatch "%S+" do
    if #snippets(path) > 0 then
      it(path, function() page(path) end)
    end
  end
end)
