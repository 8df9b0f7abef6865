--- RPC and stream shapes that differ by release. The only Lua file that looks at a version.

local M = {}

--- "2024.12.1+anything" → 20241201; nil when the text has no release in it.
---@param text string?
---@return integer?
function M.release(text)
  local year, month, patch = tostring(text or ""):match("^(%d%d%d%d)%.(%d+)%.(%d+)")
  if not year then return nil end
  return year * 10000 + month * 100 + math.min(99, math.tointeger(patch))
end

M.oldest = 20221200

local wire = require("saturn.core").wire

--- How a client cancels keys. Until 2023.3.0 it was a request, later a message of the stream.
function M.cancel(client, keys, force, reason, message)
  if client.release < 20230301 then
    client.scheduler:call("cancel", { keys = keys, client = client.id, force = force }, client.request_timeout)
    return
  end
  local op = { op = "cancel-keys", keys = keys, force = force }
  if client.release >= 20250300 then
    op.reason, op.msg = reason or "unknown", message or ""
  end
  client:send(op)
end

--- The fields of an identity request that keep its answer small.
function M.identity(release, n_workers)
  if release >= 20250400 and n_workers then return { n_workers = n_workers } end
  return {}
end

--- A restart request.
function M.restart(client, timeout, wait_for_workers)
  local args = { timeout = timeout, wait_for_workers = wait_for_workers }
  if client.release >= 20240400 then args.stimulus_id = client:stimulus("client-restart") end
  return args
end

--- Fields of a request that registers a worker plugin.
function M.worker_plugin(release, plugin, name)
  local args = { plugin = wire.bin(plugin), name = name }
  if release >= 20230902 then args.idempotent = false end
  return args
end

return M
