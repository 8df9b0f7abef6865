--- Rows of figures as a picture: how many times better than Python's client, on a logarithmic axis.

local figure = require("bench.table").figure

local M = {}

local LEFT, WIDTH, ROW, TOP = 330, 420, 24, 46

local function escape(text)
  return (text:gsub("&", "&amp;"):gsub("<", "&lt;"))
end

-- From the power of two below all ratios to the one above them.
local function scale_of(rows)
  local least, most = 0.5, 2
  for _, row in ipairs(rows) do
    while row.ratio < least do least = least / 2 end
    while row.ratio > most do most = most * 2 end
  end
  return function(ratio) return LEFT + WIDTH * math.log(ratio / least) / math.log(most / least) end, least, most
end

local function axis(out, x_of, least, most, height)
  local tick = least
  while tick <= most do
    local x = x_of(tick)
    out[#out + 1] = ('<line x1="%.0f" y1="%d" x2="%.0f" y2="%d" stroke="%s"/>'):format(x, TOP - 6, x, height - 10,
      tick == 1 and "#555" or "#ddd")
    out[#out + 1] = ('<text x="%.0f" y="%d" text-anchor="middle" fill="#555">%g×</text>'):format(x, TOP - 12, tick)
    tick = tick * 2
  end
end

local function with_ratio(all)
  local rows = {}
  for _, row in ipairs(all) do
    if row.ratio then rows[#rows + 1] = row end
  end
  return rows
end

--- Writes an SVG.
function M.write(path, version, all)
  local rows = with_ratio(all)
  local x_of, least, most = scale_of(rows)
  local height = TOP + ROW * #rows + 16
  local out = {
    ('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">'):format(
      LEFT + WIDTH + 70, height),
    '<rect width="100%" height="100%" fill="white"/>',
    ('<text x="10" y="20" font-weight="bold">Better than Python\'s client by, distributed %s</text>'):format(version),
  }
  axis(out, x_of, least, most, height)
  for i, row in ipairs(rows) do
    local y, one, x = TOP + ROW * (i - 1), x_of(1), x_of(row.ratio)
    out[#out + 1] = ('<text x="%d" y="%d" text-anchor="end">%s</text>'):format(LEFT - 8, y + 14, escape(row.title))
    out[#out + 1] = ('<rect x="%.1f" y="%d" width="%.1f" height="14" fill="%s"/>'):format(math.min(one, x), y + 3,
      math.abs(x - one), row.ratio >= 1 and "#2a7ab0" or "#c0504d")
    out[#out + 1] = ('<text x="%.1f" y="%d">%s×</text>'):format(math.max(one, x) + 5, y + 14, figure(row.ratio))
  end
  out[#out + 1] = "</svg>\n"
  local file = assert(io.open(path, "w"))
  file:write(table.concat(out, "\n"))
  file:close()
end

return M
