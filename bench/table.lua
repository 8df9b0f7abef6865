--- Rows of figures as text.

local M = {}

local function figure(value)
  if value >= 100 then return ("%.0f"):format(value) end
  if value >= 10 then return ("%.1f"):format(value) end
  return ("%.2f"):format(value)
end

M.figure = figure

--- One row for a terminal.
function M.line(row)
  if not row.python then return ("%-48s saturn %9s %s"):format(row.title, figure(row.saturn * row.scale), row.unit) end
  local ours, theirs = figure(row.saturn * row.scale), figure(row.python * row.scale)
  return ("%-48s saturn %9s %-5s python %9s %-5s  %6s ×%s"):format(row.title, ours, row.unit, theirs, row.unit,
    figure(row.ratio), row.aim and "  (aim " .. row.aim .. ")" or "")
end

--- All rows as a Markdown table.
function M.write(path, version, rows)
  local file = assert(io.open(path, "w"))
  file:write(("| distributed %s | saturn | Python's client | better by |\n"):format(version))
  file:write("| --- | ---: | ---: | ---: |\n")
  for _, row in ipairs(rows) do
    local theirs = row.python and figure(row.python * row.scale) .. " " .. row.unit or ""
    file:write(("| %s | %s %s | %s | %s |\n"):format(row.title, figure(row.saturn * row.scale), row.unit, theirs,
      row.ratio and figure(row.ratio) .. " ×" or ""))
  end
  file:close()
end

return M
