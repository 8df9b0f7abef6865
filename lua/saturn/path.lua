--- Paths of files that hold secrets: who confuses the options gives the secret itself, and an error must not show it.

local M = {}

local LONGEST = 100

--- Whether an error may show the text: it is short and looks like a path.
---@param text string
---@return boolean
function M.is_shown(text)
  if #text > LONGEST or text:find("[^%w%-._~/ ]") then return false end
  return text:find("^[.~]*/") ~= nil or text:find("%.%a%a%a?%a?%a?$") ~= nil
end

--- A system's reason why a file cannot be used, without the path in it where that is none to be shown.
---@param path string
---@param why string
---@return string
function M.reason(path, why)
  if path == "" or M.is_shown(path) then return why end
  local text, found = why:gsub(path:gsub("%p", "%%%0"), "the file")
  return found > 0 and text or "the file cannot be read" -- a reason that was too long has only a part of it
end

return M
