--- Drawings of graphs, in Graphviz's language; Graphviz makes pictures of them.

local core = require "saturn.core"
local delayed = require "saturn.graph.delayed"
local errors = require "saturn.error"
local loop = require "saturn.loop"
local walk = require "saturn.graph.walk"

local M = {}

local function quoted(text)
  return '"' .. tostring(text):gsub('[\\"]', "\\%0"):gsub("\n", "\\n") .. '"'
end

local function statement(value, cache, lines)
  local fields, key = delayed.node(value), quoted(rawget(value, "key"))
  local label = fields.callable and fields.callable.prefix or "Future"
  local shape = (not fields.callable or fields.callable.name == "identity") and "box" or "ellipse"
  lines[#lines + 1] = ("  %s [label=%s, shape=%s];"):format(key, quoted(label), shape)
  for _, reference in ipairs(walk.references(value, cache)) do
    lines[#lines + 1] = ("  %s -> %s;"):format(quoted(rawget(reference, "key")), key)
  end
end

--- The text of the drawing.
---@param roots saturn.Delayed[]
---@return string
function M.dot(roots)
  local lines, cache = { "digraph saturn {", "  rankdir=BT;", "  node [fontname=\"sans-serif\"];" }, {}
  for _, value in ipairs(walk.order(roots)) do statement(value, cache, lines) end
  lines[#lines + 1] = "}\n"
  return table.concat(lines, "\n")
end

local function write(path, text)
  local file, why = io.open(path, "wb")
  if not file then errors.raise("value", ("the drawing cannot be written: %s"):format(why)) end
  local ok, problem = file:write(text)
  file:close()
  if not ok then errors.raise("value", ("the drawing cannot be written: %s"):format(problem)) end
end

local LOOK_AGAIN = 0.02

-- The exit status, or nil and why there is none.
local function run(command, timeout)
  local ok, process = pcall(core.process.spawn, command, { stderr = "null" })
  if not ok or not process then return nil end
  local _ <close> = process
  process:close_stdin()
  local deadline = loop.now() + timeout
  repeat
    repeat local piece = process:read() until not piece
    local status, how = process:poll()
    if status then return how == "exit" and status or -1 end
    loop.sleep(LOOK_AGAIN)
  until loop.now() > deadline
  process:kill()
  errors.raise("timeout", ("Graphviz took longer than %g seconds to draw the graph"):format(timeout))
end

local NO_SUCH_PROGRAM = 127

--- Draws what the roots need into a file. The ending of its name says what it is to be: .dot (or .gv) for the text,
--- .svg, .png, .pdf for a picture, which Graphviz's `dot` makes. Without Graphviz the text is written beside it and an
--- error says so.
---@param roots saturn.Delayed[]
---@param path string
---@param options table? timeout (60 seconds)
function M.visualize(roots, path, options)
  if type(path) ~= "string" then errors.misuse(3, "visualize needs the name of a file, such as \"graph.svg\"") end
  options = errors.options(options, { timeout = "number" }, 3)
  local stem, format = path:match("^(.+)%.(%w+)$")
  if not stem then
    errors.misuse(3, "%q has no ending that says what to draw, such as .svg, .png, .pdf or .dot", path)
  end
  local text = M.dot(roots)
  if format == "dot" or format == "gv" then return write(path, text) end
  local source = stem .. ".dot"
  write(source, text)
  local status = run({ "dot", "-T" .. format, "-o", path, source }, options.timeout or 60)
  if status == nil or status == NO_SUCH_PROGRAM then
    errors.raise("value", ("Graphviz's program 'dot' is not there to draw %s: the graph was written to %s instead; "
      .. "install Graphviz, or draw that file elsewhere"):format(path, source))
  end
  if status ~= 0 then
    errors.raise("value", ("Graphviz cannot draw %s (does it know the format '%s'?): the graph was written to %s"
      ):format(path, format, source))
  end
  os.remove(source)
end

return M
