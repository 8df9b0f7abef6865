--- Files that a call reads and writes.

local errors = require "saturn.error"

local M = {}

--- The whole of a file.
---@param path string
---@return string
function M.read(path)
  local file, why = io.open(path, "rb")
  if not file then errors.raise("value", ("the file cannot be read: %s"):format(why)) end
  local text, read_why = file:read("a")
  file:close()
  if not text then errors.raise("value", ("'%s' cannot be read: %s"):format(path, read_why)) end
  return text
end

--- Writes a file, or raises and leaves none that is half written under this name.
---@param path string
---@param text string
function M.write(path, text)
  local partial = path .. ".part"
  local file, why = io.open(partial, "wb")
  if not file then errors.raise("value", ("the file cannot be written: %s"):format(why)) end
  local ok, write_why = file:write(text)
  local closed, close_why = file:close()
  if ok and closed then ok, write_why = os.rename(partial, path) end
  if not (ok and closed) then
    os.remove(partial)
    errors.raise("value", ("'%s' cannot be written: %s"):format(path, write_why or close_why))
  end
end

--- Raises when a file cannot be made here: better said before the work than after it.
---@param path string
function M.check_writable(path)
  local partial = path .. ".part"
  local file, why = io.open(partial, "wb")
  if not file then errors.raise("value", ("the file cannot be written: %s"):format(why)) end
  file:close()
  os.remove(partial)
end

--- The last part of a path.
---@param path string
---@return string
function M.basename(path)
  return path:match("([^/]+)$") or path
end

local function crc_table()
  local sums = {}
  for byte = 0, 255 do
    local sum = byte
    for _ = 1, 8 do sum = sum & 1 == 1 and (sum >> 1) ~ 0xEDB88320 or sum >> 1 end
    sums[byte] = sum
  end
  return sums
end

local PIECE = 4096

local function crc32(text)
  local sums, sum = crc_table(), 0xFFFFFFFF
  for from = 1, #text, PIECE do
    for _, byte in ipairs { text:byte(from, math.min(from + PIECE - 1, #text)) } do
      sum = sums[(sum ~ byte) & 255] ~ (sum >> 8)
    end
  end
  return sum ~ 0xFFFFFFFF
end

local STORED = 65535

--- A text in the format of gzip, stored as it is: readers of Dask's dumps want the format, not the size.
---@param text string
---@return string
function M.gzip(text)
  local parts = { "\31\139\8\0\0\0\0\0\0\255" }
  local from = 1
  repeat
    local piece = text:sub(from, from + STORED - 1)
    from = from + STORED
    parts[#parts + 1] = ("<BI2I2"):pack(from > #text and 1 or 0, #piece, ~#piece & 0xFFFF)
    parts[#parts + 1] = piece
  until from > #text
  parts[#parts + 1] = ("<I4I4"):pack(crc32(text), #text & 0xFFFFFFFF)
  return table.concat(parts)
end

return M
