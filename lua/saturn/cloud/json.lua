--- JSON as the service speaks it, on lua-cjson: integers come back as integers, and its errors as messages.

local ok, cjson = pcall(require, "cjson")
if not ok then error("saturn needs lua-cjson: apt install lua-cjson, or luarocks install lua-cjson", 0) end

local M = {}

local MAX_DEPTH = 100

-- An instance of our own, so that its settings are nobody else's.
local codec = cjson.new and cjson.new() or cjson
if cjson.new then
  codec.decode_max_depth(MAX_DEPTH)
  codec.encode_max_depth(MAX_DEPTH)
  codec.encode_invalid_numbers(false)
end

-- Some releases of cjson give every number as a float, some give integers: both are made the same here.
local function normalise(value, text_of)
  local kind = type(value)
  if kind == "number" then return math.tointeger(value) or value end
  if kind == "string" and text_of then return text_of(value) end
  if kind ~= "table" then return value end
  local result = {}
  for key, item in pairs(value) do
    if item ~= cjson.null then result[normalise(key, text_of)] = normalise(item, text_of) end
  end
  return result
end

--- The value of a JSON text, null as nil; nil and a message when it is not JSON.
---@param text string
---@param text_of (fun(text: string): string)? what stands for each string and name in it
---@return any value
---@return string? message
function M.decode(text, text_of)
  local decoded, value = pcall(codec.decode, text)
  if not decoded then return nil, (tostring(value):gsub("^[^:]*:%d+: ", "")) end
  if value == cjson.null then return nil end
  return normalise(value, text_of)
end

--- The JSON text of a value; nil and a message when it has none.
---@param value any
---@return string? text
---@return string? message
function M.encode(value)
  local encoded, text = pcall(codec.encode, value)
  if not encoded then return nil, (tostring(text):gsub("^[^:]*:%d+: ", "")) end
  return text
end

return M
