--- Files on all workers of a cluster, present and future.
--
-- What runs on the workers is Python source from here, so they need nothing but Dask. One task publishes the content
-- as a dataset, named as dask-saturn names it, and registers a worker plugin that holds it; Dask runs the plugin on
-- every worker, also on those that come later.

local core = require "saturn.core"
local errors = require "saturn.error"
local loop = require "saturn.loop"

local M = {}

local DEFAULT_TIMEOUT = 300
local MAX_MESSAGE = 2000

-- The plugin. Written so that it runs on every Python since 3.8.
local PLUGIN = [==[
import importlib
import io
import os
import sys
import tarfile
import tempfile

from distributed.comm import resolve_address
from distributed.diagnostics.plugin import WorkerPlugin


def add_path(path):
    if path not in sys.path:
        sys.path.append(path)


def prepare(worker):
    # a client made inside a task then has the same address as the worker's own, and Futures can pass between them
    try:
        worker.scheduler.addr = resolve_address(worker.scheduler.addr)
    except Exception:
        pass
    add_path(os.getcwd())


def write_file(path, data):
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".saturn-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def check_member(member, root):
    target = os.path.realpath(os.path.join(root, member.name))
    if target != root and not target.startswith(root.rstrip(os.sep) + os.sep):
        raise ValueError("a file of the archive would leave its directory: %r" % member.name)
    if not (member.isfile() or member.isdir() or member.issym()):
        raise ValueError("not a file, directory or symbolic link: %r" % member.name)


def write_directory(path, data):
    os.makedirs(path, exist_ok=True)
    root = os.path.realpath(path)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(root, filter="data")
            return
        for member in archive:
            check_member(member, root)
            archive.extract(member, root, set_attrs=True)


class SaturnFiles(WorkerPlugin):
    def __init__(self, path, data, sys_path):
        self.path, self.data, self.sys_path = path, data, sys_path
        self.name = "saturn_files:" + path

    def setup(self, worker):
        prepare(worker)
        if self.path.endswith("/"):
            write_directory(self.path, self.data)
        elif self.path:
            write_file(self.path, self.data)
        if self.path and self.sys_path:
            add_path(os.path.dirname(self.path))
        importlib.invalidate_caches()
]==]

local SYNC = [==[
from distributed import worker_client

PREFIX = "SATURN__"


def is_part(name, path):
    return name == PREFIX + path or (path.endswith("/") and name.startswith(PREFIX + path))


def register(client, plugin):
    call = getattr(client, "register_plugin", None) or client.register_worker_plugin
    try:
        return call(plugin)
    except BaseException:
        # it stays registered otherwise, and no new worker could start
        try:
            client.unregister_worker_plugin(plugin.name)
        except Exception:
            pass
        raise


def sync_files(source, path, data, sys_path):
    space = {"__name__": "saturn_files"}
    exec(source, space)
    plugin = space["SaturnFiles"](path, data, sys_path)
    with worker_client() as client:
        workers = register(client, plugin)
        if path:
            for name in list(client.list_datasets()):
                if isinstance(name, str) and is_part(name, path):
                    client.unpublish_dataset(name)
            client.publish_dataset(**{PREFIX + path: data})
    return len(workers or {})
]==]

local LIST = [==[
from distributed import worker_client

PREFIX = "SATURN__"


def list_files():
    with worker_client() as client:
        names = list(client.list_datasets())
    return sorted(name[len(PREFIX):] for name in names if isinstance(name, str) and name.startswith(PREFIX))
]==]

local CLEAR = [==[
from distributed import worker_client

PREFIX = "SATURN__"


def clear_files(path):
    cleared = []
    with worker_client() as client:
        for name in list(client.list_datasets()):
            if not isinstance(name, str) or not name.startswith(PREFIX):
                continue
            if path is not None and name != PREFIX + path:
                continue
            client.unpublish_dataset(name)
            cleared.append(name[len(PREFIX):])
            try:
                client.unregister_worker_plugin("saturn_files:" + name[len(PREFIX):])
            except Exception:
                pass  # published by Python's dask_saturn, which has a plugin of its own
    return sorted(cleared)
]==]

-- ---- on this machine ---------------------------------------------------------------------------------------------

-- Everything that a program writes, without a shell between: a path is an argument and never a text to be parsed.
local function output_of(argv)
  local process <close> = errors.check(core.process.spawn(argv, { stderr = "pipe" }))
  process:close_stdin()
  local _ <close> = loop.watch(process:fd "stdout", "r")
  local _ <close> = loop.watch(process:fd "stderr", "r")
  local pieces, said = {}, ""
  local function drain(read, keep)
    while true do
      local piece, why = read(process)
      if not piece then return why ~= "again" end
      keep(piece)
    end
  end
  loop.wait(function()
    local out_ended = drain(process.read, function(piece) pieces[#pieces + 1] = piece end)
    local err_ended = drain(process.read_stderr, function(piece) said = (said .. piece):sub(1, MAX_MESSAGE) end)
    return out_ended and err_ended
  end)
  local code
  while not code do
    code = process:poll()
    if not code then loop.sleep(0.002) end
  end
  if code ~= 0 then return nil, said:gsub("%s+$", "") end
  return table.concat(pieces)
end

local function current_directory()
  local text, why = output_of { "pwd", "-P" }
  if not text then errors.raise("value", "the current directory is not known: " .. why) end
  return (text:gsub("\n$", ""))
end

--- An absolute path without ".", ".." and double slashes, as Python's os.path.abspath makes it.
---@param path string
---@param directory string? what a relative path starts from
---@return string
function M.absolute(path, directory)
  if path:sub(1, 1) ~= "/" then path = (directory or current_directory()) .. "/" .. path end
  local parts = {}
  for part in path:gmatch "[^/]+" do
    if part == ".." then
      parts[#parts] = nil
    elseif part ~= "." then
      parts[#parts + 1] = part
    end
  end
  return "/" .. table.concat(parts, "/")
end

-- "file" with its content, "directory", or nil and why not.
local function read_path(path)
  local file, why = io.open(path, "rb")
  if not file then return nil, why end
  local content, problem, code = file:read("a")
  file:close()
  if content then return "file", content end
  if code == 21 then return "directory" end -- EISDIR everywhere
  return nil, problem
end

-- What a symbolic link stands for must be in the directory, too, or Python takes nothing of the whole archive.
local function check_links(path, to)
  local links = output_of { "find", path .. "/.", "-name", ".git", "-prune", "-o", "-type", "l", "-print", "-exec",
    "readlink", "{}", ";" }
  for link, target in (links or ""):gmatch "(/[^\n]*)\n([^\n]*)\n" do
    link = link:sub(#path + #"/./" + 1)
    local leads = M.absolute(target, to .. (link:match "^(.*/)" or ""))
    if target:sub(1, 1) == "/" or (leads .. "/"):sub(1, #to) ~= to then
      errors.raise("value", ("%s cannot be sent: in it %s is a symbolic link to %s; only relative links that stay in "
        .. "the directory can be"):format(path, link, target))
    end
  end
end

local function archive_of(path)
  local archive, why = output_of { "tar", "--exclude", ".git", "-czf", "-", "-C", path, "." }
  if not archive then errors.raise("value", ("the directory %s cannot be packed: %s"):format(path, why)) end
  return archive
end

-- The name that the content has on the workers, and the content.
local function pack(path, target)
  local from = M.absolute(path)
  local to = target and M.absolute(target) or from
  local kind, content = read_path(from)
  if not kind then errors.raise("value", ("%s cannot be read: %s"):format(from, content)) end
  if kind == "file" then return to, content end
  to = to:gsub("/$", "") .. "/"
  check_links(from, to)
  return to, archive_of(from)
end

-- ---- on the workers ----------------------------------------------------------------------------------------------

local function with_client(cluster, options, work)
  if options.client then return work(options.client) end
  local client <close> = cluster:client()
  return work(client)
end

local function run(client, options, source, ...)
  local future = client:submit(require("saturn.py").fn(source), ...)
  return future:result(options.timeout or DEFAULT_TIMEOUT)
end

local KNOWN = { client = "table", timeout = "number", to = "string", sys_path = "boolean" }

---@class saturn.SyncedFiles
---@field path string the path on the workers; a directory's ends with "/"
---@field bytes integer what was sent
---@field workers integer how many workers have it now

--- Puts a file or a directory on all workers, under the same absolute path.
---@param cluster table
---@param path string
---@param options table? to, sys_path, client, timeout
---@return saturn.SyncedFiles
function M.sync(cluster, path, options)
  if type(path) ~= "string" or path == "" then errors.misuse(3, "sync_files: a path is needed") end
  options = errors.options(options, KNOWN, 3)
  local py = require "saturn.py"
  local to, content = pack(path, options.to)
  return with_client(cluster, options, function(client)
    local workers = run(client, options, SYNC, PLUGIN, to, py.bytes(content), options.sys_path or false)
    return { path = to, bytes = #content, workers = workers }
  end)
end

local LIST_KNOWN = { client = "table", timeout = "number" }

local function strings(list)
  local copy = {}
  for i, item in ipairs(list) do copy[i] = item end
  return copy
end

--- The paths that are kept for the workers, by this library or by Python's dask_saturn.
---@return string[]
function M.list(cluster, options)
  options = errors.options(options, LIST_KNOWN, 3)
  return with_client(cluster, options, function(client) return strings(run(client, options, LIST)) end)
end

--- Keeps a path (nil: all) no longer for new workers. The files on those that run stay. Gives what was cleared.
---@return string[]
function M.clear(cluster, path, options)
  if path ~= nil and type(path) ~= "string" then errors.misuse(3, "clear_files: the path must be a string or nil") end
  options = errors.options(options, LIST_KNOWN, 3)
  return with_client(cluster, options, function(client)
    return strings(run(client, options, CLEAR, path))
  end)
end

--- What dask-saturn's SaturnSetup does: the workers know the scheduler by its address, so that Futures pass between a
--- task's own client and the worker's, and import from their current directory.
---@return integer workers
function M.setup(cluster, options)
  options = errors.options(options, LIST_KNOWN, 3)
  return with_client(cluster, options, function(client)
    return run(client, options, SYNC, PLUGIN, "", "", false)
  end)
end

return M
