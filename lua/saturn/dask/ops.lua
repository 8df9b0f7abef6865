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
    client:settle(client.request_timeout) -- the request must not overtake the tasks
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

-- Python's repr of a part of a key.
local function repr(part)
  if type(part) == "table" then
    local items = {}
    for i, item in ipairs(part) do items[i] = repr(item) end
    return ("(%s%s)"):format(table.concat(items, ", "), #items == 1 and "," or "")
  end
  if type(part) ~= "string" then return tostring(part) end
  local quote = part:find("'", 1, true) and not part:find('"', 1, true) and '"' or "'"
  return quote .. part:gsub("\\", "\\\\"):gsub(quote == "'" and "'" or "\0", "\\%0") .. quote
end

--- A key as the scheduler knows it: before 2023.9 every key was a text, that of a tuple its repr.
function M.key(release, key)
  if release >= 20230900 or type(key) == "string" then return key end
  return type(key) == "table" and repr(key) or tostring(key)
end

-- What the scheduler's records say set off what follows.
local function stimulus(name)
  return ("%s-%d"):format(name, os.time())
end

--- Fields of the request that gives data to a worker. Until 2023.2.0 the worker told the scheduler too, unless it was
--- told not to, and the scheduler had data dropped that it had not heard of from the client yet.
function M.update_data(release, data)
  local args = { data = wire.map(data) }
  if release < 20230201 then args.report = false end
  return args
end

--- A restart request.
function M.restart(client, timeout, wait_for_workers)
  local args = { timeout = timeout, wait_for_workers = wait_for_workers }
  if client.release >= 20240400 then args.stimulus_id = stimulus("client-restart") end
  return args
end

--- Restarts some workers; their state by address: "OK", "timed out", "removed", or an error reply.
function M.restart_workers(client, workers, timeout, patience)
  if client.release < 20240400 then
    local message = { op = "restart", timeout = timeout }
    return client.scheduler:call("broadcast", { msg = message, workers = workers, nanny = true }, patience)
  end
  return client.scheduler:call("restart_workers", {
    workers = workers, timeout = timeout, on_error = "return", stimulus_id = stimulus("client-restart-workers"),
  }, patience)
end

local REGISTER = {
  worker = "register_worker_plugin", nanny = "register_nanny_plugin", scheduler = "register_scheduler_plugin",
}

--- The request that registers a plugin: its op and its fields.
---@param on "worker"|"nanny"|"scheduler"
---@param plugin string its pickle
function M.register_plugin(release, on, plugin, name)
  local args = { plugin = wire.bin(plugin), name = name }
  if on == "scheduler" or release >= 20230902 then args.idempotent = false end
  return REGISTER[on], args
end

--- Takes a scheduler plugin away. Before 2023.8 there was no request for it.
function M.unregister_scheduler_plugin(client, name, timeout)
  if client.release >= 20230800 then
    return client.scheduler:call("unregister_scheduler_plugin", { name = name }, timeout)
  end
  local remove = require("saturn.py").fn "lambda name, dask_scheduler: dask_scheduler.remove_plugin(name=name)"
  return client:with({ timeout = timeout }):run_on_scheduler(remove, name)
end

--- What PipInstall and CondaInstall are plugins of: of each worker at first, later of the scheduler, which looks after
--- the workers.
function M.install_plugin_on(release)
  return release >= 20231200 and "scheduler" or "worker"
end

--- Whether the scheduler can be sent a file as a plugin.
function M.has_scheduler_upload(release)
  return release >= 20230500
end

--- Whether the scheduler itself imports the functions of tasks.
function M.scheduler_imports(release)
  return release >= 20230400
end

-- ---- coordination -----------------------------------------------------------------------------------------------

--- Fields of the request that sets a variable. Since 2024.8.2 the scheduler waits for a key that it does not know.
function M.variable_set(release, args, timeout)
  if release >= 20240802 then args.timeout = timeout end
  return args
end

--- The message that says that a Future read from a variable is held by this client now.
function M.variable_received(release)
  return release >= 20240802 and "variable-future-received-confirm" or "variable-future-release"
end

--- Whether a lock is a semaphore with one lease, or something of its own that never expires.
function M.lock_is_semaphore(release)
  return release >= 20240701
end

--- Fields of the request that registers a semaphore. Before 2024.7.1 the time of a lease is the scheduler's own.
function M.semaphore_register(release, args, lease_timeout)
  if release >= 20240701 then args.lease_timeout = lease_timeout end
  return args
end

--- How Python's client of this release pickles a Future: until 2023.3.1 by its state, later by a call of its class.
function M.future_pickle(release)
  return release < 20230302 and "state" or "call"
end

-- Says in the stream that all before it was sent; a request with the same uid waits for that.
local function flush(client)
  local uid = client:new_key("flush")
  client:send { op = "publish_flush_batched_send", uid = uid }
  return uid
end

--- Publishes a dataset. A task submitted just before travels on the stream, so the request must not overtake it.
function M.publish_put(client, name, keys, data, override, timeout)
  local args = { override = override, client = client.id }
  if client.release >= 20260600 then
    args.names, args.keys, args.data, args.uid = { name }, { keys }, { data }, flush(client)
  else
    client:settle(timeout)
    args.name, args.keys, args.data = name, keys, data
  end
  client.scheduler:call("publish_put", args, timeout)
end

--- The dataset's record (`data`, `keys`), or nil.
function M.publish_get(client, name, timeout)
  if client.release >= 20260600 then
    local record = client.scheduler:call("publish_get", { names = { name } }, timeout)[1]
    return type(record) == "table" and record or nil
  end
  return client.scheduler:call("publish_get", { name = name, client = client.id }, timeout) or nil
end

--- Takes a dataset away.
function M.publish_delete(client, name, timeout)
  local args = { name = name }
  if client.release >= 20260600 then args = { names = { name }, client = client.id, uid = flush(client) } end
  client.scheduler:call("publish_delete", args, timeout)
end

--- Whether an override of a dataset lets the keys of the old one go.
function M.publish_frees(release)
  return release >= 20260600
end

--- How many log lines to ask for to get the last n: releases before 2023.2 gave the first n instead.
function M.log_count(release, n)
  if release < 20230200 then return nil end
  return n
end

--- The last n log lines, oldest first, of a reply to `logs`.
function M.last_lines(release, lines, n)
  local ordered = {}
  if release >= 20230200 then
    for i = #lines, 1, -1 do ordered[#ordered + 1] = lines[i] end
    return ordered
  end
  for i = math.max(1, #lines - (n or #lines) + 1), #lines do ordered[#ordered + 1] = lines[i] end
  return ordered
end

return M
