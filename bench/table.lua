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
function M.markdown(version, rows)
  local lines = { ("| distributed %s | saturn | Python's client | better by |"):format(version),
    "| --- | ---: | ---: | ---: |" }
  for _, row in ipairs(rows) do
    local theirs = row.python and figure(row.python * row.scale) .. " " .. row.unit or ""
    lines[#lines + 1] = ("| %s | %s %s | %s | %s |"):format(row.title, figure(row.saturn * row.scale), row.unit, theirs,
      row.ratio and figure(row.ratio) .. " ×" or "")
  end
  return table.concat(lines, "\n") .. "\n"
end

local function write_all(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

M.write = write_all

--- Puts the table in the place of the one that a document has.
function M.replace(path, markdown)
  local file = assert(io.open(path))
  local text = file:read("a")
  file:close()
  local first = assert(text:find("| distributed ", 1, true), path .. " has no table of figures")
  local after = text:find("\n\n", first, true)
  write_all(path, text:sub(1, first - 1) .. markdown .. text:sub(after + 1))
end

return M
