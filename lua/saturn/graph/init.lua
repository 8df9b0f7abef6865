--- Graphs: delayed values and raw graphs. Nothing here knows a cluster; client:compute, :persist and :get send them.

local delayed = require "saturn.graph.delayed"
local raw = require "saturn.graph.raw"

return { delayed = delayed.delayed, task = raw.task, key = raw.key }
