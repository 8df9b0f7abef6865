--- How Python writes numbers, points in time and durations: part of saturn.py, loaded with pyvalue.lua.

local math_type = math.type

local M = {}

-- ---- numbers -------------------------------------------------------------------------------------------------------

-- The digits of a positive float with so many of them, and its decimal exponent; nil when they do not read back as it.
local function digits_of(value, count)
  local mantissa, exponent = ("%%.%de"):format(count - 1):format(value):match "^(.*)e(.*)$"
  local digits = mantissa:gsub("%D", "") -- the decimal point is the locale's
  exponent = math.tointeger(tonumber(exponent))
  if tonumber(("%se%d"):format(digits, exponent - count + 1)) == value then return digits, exponent end
end

-- Above a power of two the floats lie wider than below it: there the nearest number of 16 digits may not read back,
-- but the next one does.
local function next_digits_of(value)
  local mantissa, exponent = ("%.15e"):format(value):match "^(.*)e(.*)$"
  local digits = ("%d"):format(math.tointeger(tonumber((mantissa:gsub("%D", "")))) + 1)
  exponent = math.tointeger(tonumber(exponent))
  if #digits == 16 and tonumber(("%se%d"):format(digits, exponent - 15)) == value then return digits, exponent end
end

local SMALLEST_NORMAL = 2.2250738585072014e-308

-- The fewest digits that read back as the same positive float. 15 are exact for all floats but the smallest, whose
-- precision is less.
local function shortest(value)
  for count = value < SMALLEST_NORMAL and 1 or 15, 16 do
    local digits, exponent = digits_of(value, count)
    if digits then return digits, exponent end
  end
  local digits, exponent = next_digits_of(value)
  if digits then return digits, exponent end
  return digits_of(value, 17)
end

--- The shortest text that reads back as the same float, as Python's repr writes it: with an exponent from 1e16 on and
--- below 1e-4.
---@param value number
---@return string
function M.float(value)
  value = value * 1.0 -- not + 0.0, which makes 0 of -0
  if value ~= value then return "nan" end
  local sign = (value < 0 or 1 / value < 0) and "-" or ""
  value = math.abs(value)
  if value == math.huge then return sign .. "inf" end
  if value == 0 then return sign .. "0.0" end
  local digits, exponent = shortest(value)
  digits = digits:gsub("0+$", "")
  if exponent < -4 or exponent >= 16 then
    local rest = digits:sub(2)
    return ("%s%s%s%se%s%02d"):format(sign, digits:sub(1, 1), rest == "" and "" or ".", rest,
      exponent < 0 and "-" or "+", math.abs(exponent))
  end
  if exponent < 0 then return sign .. "0." .. ("0"):rep(-exponent - 1) .. digits end
  local whole, rest = digits:sub(1, exponent + 1), digits:sub(exponent + 2)
  return sign .. whole .. ("0"):rep(exponent + 1 - #whole) .. "." .. (rest == "" and "0" or rest)
end

--- A Lua number as Python writes it.
---@param value number
function M.number(value)
  return math_type(value) == "integer" and ("%d"):format(value) or M.float(value)
end

-- A part of a complex number: 2 and not 2.0.
local function part(value)
  return (M.float(value):gsub("%.0$", ""))
end

--- 1j, (1-2j): a real part of 0 is not written, but -0 is.
function M.complex(self)
  local re, im = self.re * 1.0, part(self.im)
  if re == 0 and 1 / re > 0 then return im .. "j" end
  return ("(%s%s%sj)"):format(part(re), im:find "^%-" and "" or "+", im)
end

-- The sign, digits and exponent of a decimal number's text; for an infinity or NaN its sign and its name in Python.
local function decimal_parts(text)
  local sign, rest = text:gsub("[%s_]", ""):match "^([+-]?)(.*)$"
  sign = sign == "-" and "-" or ""
  local whole, fraction, tail = rest:match "^(%d*)%.?(%d*)(.*)$"
  local exponent = tail == "" and 0 or math.tointeger(tonumber(tail:match "^[eE]([+-]?%d+)$"))
  if whole .. fraction ~= "" and exponent and math.abs(exponent) < 1 << 62 then
    local digits = (whole .. fraction):gsub("^0+(.)", "%1")
    return sign, digits, exponent - #fraction
  end
  local word, payload = rest:lower():match "^(%a+)(%d*)$"
  if (word == "inf" or word == "infinity") and payload == "" then return sign, nil, "Infinity" end
  if word == "nan" or word == "snan" then
    return sign, nil, (word == "nan" and "NaN" or "sNaN") .. payload:gsub("^0+", "")
  end
end

--- The text of a decimal number as Python writes it; nil when it is none.
---@param text string
---@return string?
function M.decimal(text)
  local sign, digits, exponent = decimal_parts(text)
  if not sign then return nil end
  if not digits then return sign .. exponent end
  local point = #digits + exponent -- how many digits stand before the point
  if exponent <= 0 and point > -6 then
    if exponent == 0 then return sign .. digits end
    if point <= 0 then return sign .. "0." .. ("0"):rep(-point) .. digits end
    return sign .. digits:sub(1, point) .. "." .. digits:sub(point + 1)
  end
  local rest = digits:sub(2)
  return ("%s%s%s%sE%+d"):format(sign, digits:sub(1, 1), rest == "" and "" or ".", rest, point - 1)
end

--- A text that two decimal numbers share when they are equal: 1.0 and 1.00. nil for NaN, which equals nothing.
---@param text string
---@return string?
function M.decimal_value(text)
  local sign, digits, exponent = decimal_parts(text)
  if not sign then return text end
  if not digits then return exponent == "Infinity" and sign .. exponent or nil end
  if digits == "0" then return "0" end
  local short = digits:gsub("0+$", "")
  if short == "" then return "0" end
  return ("%s%se%d"):format(sign, short, exponent + #digits - #short)
end

--- The digits of a 64-bit integer without a sign.
---@param value integer
---@return string
function M.unsigned(value)
  if value >= 0 then return ("%d"):format(value) end
  local tens = (value >> 1) // 5
  return ("%d%d"):format(tens, value - tens * 10)
end

--- Compares two decimal numbers given as texts: -1, 0, 1, or nil when one is no number.
---@param a string
---@param b string
---@return integer?
function M.compare_decimals(a, b)
  local x, y = M.decimal_value(a), M.decimal_value(b)
  if not (x and y) then return nil end
  local function parts(value) -- sign, digits, the power of ten behind the first digit
    local sign, digits, exponent = value:match("^(-?)(%d+)e?(-?%d*)$")
    if not digits then return value:find("^-") and -1 or 1, "1", math.huge end
    if digits == "0" then return 0, "0", 0 end
    return sign == "-" and -1 or 1, digits, #digits + tonumber(exponent)
  end
  local x_sign, x_digits, x_power = parts(x)
  local y_sign, y_digits, y_power = parts(y)
  if x_sign ~= y_sign then return x_sign < y_sign and -1 or 1 end
  if x_power ~= y_power then return x_power < y_power and -x_sign or x_sign end
  if x_digits == y_digits then return 0 end
  return x_digits < y_digits and -x_sign or x_sign
end

return M
