--- What a person sees on a terminal while a cluster starts: one line on standard error. Nothing anywhere else.

local core = require "saturn.core"

local M = {}

local function on_terminal()
  return core.http.is_terminal(2)
end

--- Shows a message to whoever sits at the terminal; elsewhere it goes to Lua's warnings, which are off by default.
---@param text string
function M.warn(text)
  text = text:gsub("[\0-\8\11-\31\127]", "?")
  if on_terminal() then
    io.stderr:write("saturn: ", text, "\n")
  else
    warn("saturn: " .. text)
  end
end

---@class saturn.cloud.Line
local Line = {}
Line.__index = Line
Line.__name = "saturn.progress_line"

--- A line that is written again and again, or nil where there is no terminal. End it with `close`.
---@return saturn.cloud.Line?
function M.line()
  if not on_terminal() then return nil end
  return setmetatable({ open = false }, Line)
end

function Line:show(text)
  io.stderr:write("\r\27[K", (text:gsub("%c", "?")))
  io.stderr:flush()
  self.open = true
end

--- Takes the line away for other output; the next `show` brings it back.
function Line:clear()
  if not self.open then return end
  io.stderr:write("\r\27[K")
  io.stderr:flush()
  self.open = false
end

function Line:close()
  self:clear()
end
Line.__close = Line.close

return M
