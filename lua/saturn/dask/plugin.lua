--- Files and plugins on the cluster: uploaded modules, plugins of workers, nannies and the scheduler.

local core = require "saturn.core"
local errors = require "saturn.error"
local failure = require "saturn.dask.failure"
local files = require "saturn.dask.files"
local node = require "saturn.dask.node"
local ops = require "saturn.dask.ops"
local plugins = require "saturn.dask.plugins"
local py = require "saturn.py"
local targets = require "saturn.dask.targets"

local ask = targets.ask

local M = {}

local function main_client(client)
  return rawget(client, "_client") or client
end

-- Workers and nannies answer one by one; the first error is raised.
local function check_replies(replies)
  for address, reply in pairs(replies) do
    if type(reply) == "table" and reply.status == "error" then
      local err = failure.of_reply(reply.exception, reply.traceback)
      err.worker = address
      error(err, 0)
    end
  end
end

local function unregister(client, on, name, timeout)
  client:check_open()
  timeout = timeout or client.request_timeout
  if on == "scheduler" then return ops.unregister_scheduler_plugin(client, name, timeout) end
  check_replies(ask(client, "unregister_" .. on .. "_plugin", { name = name }, timeout))
end

-- A plugin whose setup failed is taken away again: workers that come later would fail with it.
local function register(client, on, object, name, timeout)
  local pickle = errors.check(core.pickle.dumps(object))
  local op, args = ops.register_plugin(client.release, on, pickle, name)
  local replies = ask(client, op, args, timeout)
  if on == "scheduler" then return end
  local ok, err = pcall(check_replies, replies)
  if not ok then
    pcall(unregister, client, on, name, timeout)
    error(err, 0)
  end
end

-- ---- files ------------------------------------------------------------------------------------------------------

-- What pickle makes of a plugin that read a file.
local function upload_object(class, filename, data, load)
  local object = py.object("distributed.diagnostics.plugin." .. class)
  object.new = true
  object.state = py.dict { filename = filename, data = py.bytes(data), load = load }
  return object
end

-- For schedulers that have no plugin for it.
local WRITE_FILE = [[
def write_file(filename, data, load, dask_scheduler):
    import os, tempfile
    from distributed.utils import import_file
    folder = getattr(dask_scheduler, "_saturn_uploads", None)
    if folder is None:
        folder = dask_scheduler._saturn_uploads = tempfile.mkdtemp("-saturn-uploads")
        dask_scheduler._saturn_uploads_finalizer = __import__("weakref").finalize(
            dask_scheduler, __import__("shutil").rmtree, folder, True)
    path = os.path.join(folder, filename)
    with open(path, "wb") as file:
        file.write(data)
    if load:
        import_file(path)
]]

local function upload_to_scheduler(client, filename, data, load, name, timeout)
  if ops.has_scheduler_upload(client.release) then
    return register(client, "scheduler", upload_object("SchedulerUploadFile", filename, data, load), name, timeout)
  end
  local bounded = client:with { timeout = timeout or client.request_timeout }
  local ok, err = pcall(function()
    bounded:run_on_scheduler(py.fn(WRITE_FILE), filename, py.bytes(data), load)
  end)
  -- Such a scheduler need not import what its workers do, and may refuse to run functions.
  if not ok and (ops.scheduler_imports(client.release) or err.kind ~= "task") then error(err, 0) end
end

--- Sends a file to all workers, also to those that come later, and to the scheduler. A .py, .zip or .egg file can be
--- imported there at once; one of the same name is replaced.
---@param path string
---@param options table? load (true: import it, which shows its errors), timeout
---@return string name under which client:unregister_plugin stops sending it to later workers
function M.upload_file(client, path, options)
  if type(path) ~= "string" then errors.misuse(2, "upload_file needs the path of a file, not a %s", type(path)) end
  options = errors.options(options, { load = "boolean", timeout = "number" })
  client:check_open()
  local data, filename = files.read(path), files.basename(path)
  local load = options.load ~= false
  local name = "upload-" .. filename
  upload_to_scheduler(client, filename, data, load, name, options.timeout)
  register(client, "worker", upload_object("UploadFile", filename, data, load), name, options.timeout)
  main_client(client)._plugins = main_client(client)._plugins or {}
  main_client(client)._plugins[name] = "worker"
  return name
end

-- ---- plugins ----------------------------------------------------------------------------------------------------

local PLACES = { worker = true, nanny = true, scheduler = true }

-- The bases of a class that is given as source say what it is a plugin of.
local function place_in_source(callable)
  if not callable.source then return nil end
  local bases = callable.source:match("class%s+" .. callable.name .. "%s*%(([^)]*)%)") or ""
  local place = bases:match("(%a+)Plugin")
  place = place and place:lower()
  return PLACES[place] and place or nil
end

local function place_of(client, plugin, callable, on)
  if on then
    if not PLACES[on] then
      errors.misuse(3, "option 'on' must be \"worker\", \"nanny\" or \"scheduler\", not %q", on)
    end
    return on
  end
  if getmetatable(plugin) == plugins.Plugin then return plugin.on(client.release) end
  local place = callable and place_in_source(callable)
  if not place then errors.misuse(3, "say what it is a plugin of: {on = \"worker\"}, \"nanny\" or \"scheduler\"") end
  return place
end

-- The Python object: a class is called with the arguments.
local function object_of(plugin, callable, options)
  if getmetatable(plugin) == plugins.Plugin then return plugin.object end
  if not callable then return plugin end
  local args, kwargs = py.tuple(options.args or {}), py.dict(options.kwargs or {})
  return py.object("builtins.eval", { "c(*a, **k)", py.dict { c = py.callable(plugin), a = args, k = kwargs } })
end

local function name_of(plugin, callable)
  local base = getmetatable(plugin) == plugins.Plugin and plugin.name or callable and callable.prefix or plugin.name
  return ("%s-%s"):format(base, core.session.random(8))
end

--- Registers a plugin on all workers, all nannies or the scheduler; workers that come later get it too.
---@param plugin any one of saturn.plugins, a saturn.py.object, or a class by name or as saturn.py.fn[[...]]
---@param options table? on="worker"|"nanny"|"scheduler" (read off the base class of a class that is given as source),
--- name (a plugin of the same name is replaced), args and kwargs of the class, timeout
---@return string name for client:unregister_plugin
function M.register_plugin(client, plugin, options)
  options = errors.options(options, {
    on = "string", name = "string", args = "table", kwargs = "table", timeout = "number",
  })
  local made = getmetatable(plugin) == plugins.Plugin or py.kind(plugin) == "object"
  local callable = not made and node.callable(plugin, 2) or nil
  local on = place_of(client, plugin, callable, options.on)
  local name = options.name or name_of(plugin, callable)
  register(client, on, object_of(plugin, callable, options), name, options.timeout)
  local main = main_client(client)
  main._plugins = main._plugins or {}
  main._plugins[name] = on
  return name
end

--- Takes a plugin away; its teardown runs.
---@param name string
---@param options table? on="worker"|"nanny"|"scheduler" (known for plugins of this client, else "worker"), timeout
function M.unregister_plugin(client, name, options)
  if type(name) ~= "string" then errors.misuse(2, "unregister_plugin needs the plugin's name, not a %s", type(name)) end
  options = errors.options(options, { on = "string", timeout = "number" })
  if options.on and not PLACES[options.on] then
    errors.misuse(2, "option 'on' must be \"worker\", \"nanny\" or \"scheduler\", not %q", options.on)
  end
  local known = main_client(client)._plugins or {}
  unregister(client, options.on or known[name] or "worker", name, options.timeout)
  known[name] = nil
end

return M
