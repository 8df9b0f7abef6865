-- Operating a real cluster of the release in $DASK: functions on its processes, files, plugins, where data is put,
-- restarting and retiring workers, its end.
local dask = require "spec.support.dask"
local errors = require "saturn.error"
local saturn = require "saturn"
local support = require "spec.support"

local loop, py = saturn.loop, saturn.py
local keys_of, misuse, raises = support.keys_of, support.misuse, support.raises

local PATIENCE = 30 -- seconds that nothing here should take

describe("cluster operations", function()
  local cluster, client, dir

  setup(function()
    dir = support.tmpdir()
    cluster = dask.start {
      workers = 2, nthreads = 1, nanny = true,
      config = { -- data is moved by what the keys take, however little that is
        ["distributed.worker.memory.rebalance.measure"] = "managed",
        ["distributed.worker.memory.rebalance.sender-min"] = 0,
        ["distributed.worker.memory.rebalance.sender-recipient-gap"] = 0,
        ["distributed.scheduler.allowed-failures"] = 1,
      },
    }
    client = saturn.client(cluster.address, { timeout = PATIENCE })
  end)
  teardown(function()
    if client then client:close() end
    if cluster then cluster:stop() end
    dir:remove()
  end)

  -- Addresses of the workers by name, as they are now.
  local function addresses()
    local by_name = {}
    for address, worker in pairs(client:scheduler_info().workers) do by_name[worker.name] = address end
    return by_name
  end

  local name_of_worker = py.fn "lambda dask_worker: dask_worker.name"

  describe("run", function()
    it("test_run: a value of each worker, or of some", function()
      local at = addresses()
      assert.same({ [at.w0] = 3, [at.w1] = 3 }, client:run("operator.add", 1, 2))
      assert.same({ [at.w1] = "w1" }, client:with({ workers = at.w1 }):run(name_of_worker))
      assert.same({ [at.w0] = "w0" }, client:with({ workers = { "w0" } }):run(name_of_worker))
      assert.same({ [at.w0] = 12, [at.w1] = 12 }, client:run(py.fn "lambda x, y=1: x * y", 3, py.kw { y = 4 }))
      assert.same({ [at.w0] = saturn.null, [at.w1] = saturn.null }, client:run(py.fn "lambda x: x", nil))
    end)

    it("runs in the processes of the nannies", function()
      local workers, nannies = client:run("os.getpid"), client:with({ nanny = true }):run("os.getpid")
      assert.same(keys_of(workers), keys_of(nannies))
      for address, pid in pairs(workers) do assert.not_equal(pid, nannies[address]) end
      local parents = client:run("os.getppid")
      local children = client:with({ nanny = true }):run(py.fn "lambda dask_worker: dask_worker.process.pid")
      assert.same(workers, children)
      assert.same(keys_of(parents), keys_of(workers))
    end)

    it("test_run_exception: raises, returns or ignores it", function()
      local bad = py.fn [[
def bad(dask_worker):
    if dask_worker.name == "w1":
        raise ValueError("wrong", dask_worker.name)
    return 1
]]
      local at = addresses()
      local err = raises("task", "wrong", client.run, client, bad)
      assert.equal("ValueError", err.type)
      assert.equal(at.w1, err.worker)
      assert.truthy(err.traceback:find("line 3, in bad", 1, true), err.traceback)
      local returned = client:with({ on_error = "return" }):run(bad)
      assert.equal(1, returned[at.w0])
      assert.is_true(errors.is_error(returned[at.w1]))
      assert.same({ [at.w0] = 1 }, client:with({ on_error = "ignore" }):run(bad))
      misuse("^option 'on_error'", function()
        client:with({ on_error = "rise" }):run(bad)
      end)
      assert.equal(2, #keys_of(client:run("os.getpid")))
    end)

    it("test_run_coroutine", function()
      local values = client:run(py.fn [[
async def wait(x):
    import asyncio
    await asyncio.sleep(0.01)
    return x
]], 5)
      for _, value in pairs(values) do assert.equal(5, value) end
    end)

    it("says what cannot be run", function()
      misuse("^a Lua function cannot run", function() client:run(function() end) end)
      raises("task", "No module named 'nosuch'", client.run, client, "nosuch.fn")
      raises("value", "no worker named 'w9'", function() client:with({ workers = "w9" }):run("os.getpid") end)
      raises("value", nil, function() client:run("print", client:submit("operator.add", 1, 2)) end)
    end)

    it("ends after its timeout, and the client goes on", function()
      raises("timeout", "no answer", function()
        client:with({ workers = "w0", timeout = 0.1 }):run("time.sleep", 0.5)
      end)
      assert.equal(2, #keys_of(client:run("os.getpid")))
    end)

    it("test_run_on_scheduler", function()
      assert.equal(cluster.address, client:run_on_scheduler(py.fn "lambda dask_scheduler: dask_scheduler.address"))
      assert.equal(3, client:run_on_scheduler("operator.add", 1, 2))
      assert.is_nil(client:run_on_scheduler(py.fn "lambda: None"))
      local err = raises("task", "division by zero", client.run_on_scheduler, client, "operator.truediv", 1, 0)
      assert.equal("ZeroDivisionError", err.type)
    end)
  end)

  describe("upload_file", function()
    local function write(name, text)
      local path = dir.path .. "/" .. name
      support.write_all(path, text)
      return path
    end

    it("test_upload_file: what replaces a module is seen", function()
      for value = 1, 2 do
        client:upload_file(write("saturn_uploaded.py", ("def f():\n    return %d\n"):format(value)))
        assert.equal(value, client:with({ pure = false }):submit("saturn_uploaded.f"):result(PATIENCE))
        for _, each in pairs(client:run("saturn_uploaded.f")) do assert.equal(value, each) end
      end
    end)

    it("the scheduler imports it too", function()
      client:upload_file(write("saturn_on_scheduler.py", "def f(x):\n    return 3 * x\n"))
      assert.equal(6, client:run_on_scheduler("saturn_on_scheduler.f", 2))
    end)

    it("test_upload_file_zip", function()
      dask.run_python(nil, ([[
import zipfile
with zipfile.ZipFile(%q, "w") as z:
    z.writestr("saturn_zipped/__init__.py", "from .inner import f")
    z.writestr("saturn_zipped/inner.py", "def f(): return 'zipped'")
]]):format(dir.path .. "/saturn_zipped.zip"))
      client:upload_file(dir.path .. "/saturn_zipped.zip")
      assert.equal("zipped", client:submit("saturn_zipped.f"):result(PATIENCE))
    end)

    it("test_upload_file_exception: its error is raised; later workers do not get it", function()
      raises("task", "broken on purpose", client.upload_file, client,
        write("saturn_broken.py", 'raise ValueError("broken on purpose")'))
      raises("value", "cannot be read", client.upload_file, client, dir.path .. "/none.py")
      misuse("^upload_file needs", function() client:upload_file(nil) end)
      assert.equal(3, client:submit("operator.add", 1, 2):result(PATIENCE))
    end)

    it("sends any file, without importing it", function()
      client:upload_file(write("saturn_data.txt", "some text"), { load = false })
      local read = py.fn [[
def read(dask_worker):
    with open(dask_worker.local_directory + "/saturn_data.txt") as f:
        return f.read()
]]
      for _, text in pairs(client:run(read)) do assert.equal("some text", text) end
    end)

    it("test_upload_file_new_worker: a worker that comes later has it", function()
      client:upload_file(write("saturn_late.py", "def f():\n    return 'late'\n"))
      local worker = cluster:add_worker { name = "late" }
      assert.same({ [worker.address] = "late" }, client:with({ workers = "late" }):run("saturn_late.f"))
      client:retire_workers("late")
    end)
  end)

  describe("plugins", function()
    local counter = py.fn [[
from distributed.diagnostics.plugin import WorkerPlugin

class Counter(WorkerPlugin):
    def __init__(self, start=0):
        self.start = start
    def setup(self, worker):
        worker.saturn_count = self.start
    def teardown(self, worker):
        worker.saturn_count = "gone"
]]
    local count = py.fn "lambda dask_worker: getattr(dask_worker, 'saturn_count', None)"

    it("of workers, from source: set up with arguments, replaced, torn down", function()
      local at = addresses()
      local name = client:register_plugin(counter, { kwargs = { start = 7 } })
      assert.truthy(name:find "^Counter%-%x+$")
      assert.same({ [at.w0] = 7, [at.w1] = 7 }, client:run(count))
      assert.equal(name, client:register_plugin(counter, { name = name, args = { 8 } }))
      assert.same({ [at.w0] = 8, [at.w1] = 8 }, client:run(count))
      client:unregister_plugin(name)
      assert.same({ [at.w0] = "gone", [at.w1] = "gone" }, client:run(count))
      raises("task", "does not exist", client.unregister_plugin, client, name)
    end)

    it("of the scheduler", function()
      local marker = py.fn [[
from distributed.diagnostics.plugin import SchedulerPlugin

class Marker(SchedulerPlugin):
    def start(self, scheduler):
        scheduler.saturn_mark = "here"
]]
      client:register_plugin(marker, { name = "marker" })
      assert.equal("here", client:run_on_scheduler(py.fn "lambda dask_scheduler: dask_scheduler.saturn_mark"))
      local known = py.fn "lambda dask_scheduler: 'marker' in dask_scheduler.plugins"
      assert.is_true(client:run_on_scheduler(known))
      client:unregister_plugin("marker")
      assert.is_false(client:run_on_scheduler(known))
    end)

    it("of nannies", function()
      local marker = py.fn [[
from distributed.diagnostics.plugin import NannyPlugin

class Marker(NannyPlugin):
    def setup(self, nanny):
        nanny.saturn_mark = "here"
]]
      local name = client:register_plugin(marker)
      local marks = client:with({ nanny = true }):run(py.fn "lambda dask_worker: dask_worker.saturn_mark")
      for _, mark in pairs(marks) do assert.equal("here", mark) end
      assert.equal(2, #keys_of(marks))
      client:unregister_plugin(name)
    end)

    it("by name, with arguments", function()
      local path = dir.path .. "/saturn_by_name.py"
      support.write_all(path, "def f():\n    return 'by name'\n")
      local class = "distributed.diagnostics.plugin.UploadFile"
      local name = client:register_plugin(class, { on = "worker", args = { path } })
      for _, value in pairs(client:run("saturn_by_name.f")) do assert.equal("by name", value) end
      client:unregister_plugin(name)
      misuse("^say what it is a plugin of", function()
        client:register_plugin(class)
      end)
    end)

    it("one whose setup fails is an error, and is not kept", function()
      raises("task", "on purpose", client.register_plugin, client, py.fn [[
from distributed.diagnostics.plugin import WorkerPlugin

class Bad(WorkerPlugin):
    def setup(self, worker):
        raise RuntimeError("on purpose")
]], { name = "bad" })
      raises("task", "does not exist", client.unregister_plugin, client, "bad")
    end)

    it("PipInstall says why pip failed", function()
      local options = { packages = "saturn-no-such-package", pip_options = { "--no-such-option" } }
      local pip = saturn.plugins.PipInstall(options)
      raises("task", "pip install failed", client.register_plugin, client, pip, { timeout = PATIENCE })
      misuse("^give the packages", function() saturn.plugins.PipInstall {} end)
    end)

    it("Environ sets variables of restarted workers", function()
      client:register_plugin(saturn.plugins.Environ { SATURN_SPEC = "set", SATURN_NUMBER = 5 }, { timeout = PATIENCE })
      client:wait_for_workers(2, PATIENCE)
      local values = client:run(py.fn [[
def variables():
    import os
    return os.environ.get("SATURN_SPEC"), os.environ.get("SATURN_NUMBER")
]])
      assert.equal(2, #keys_of(values))
      for _, pair in pairs(values) do assert.same({ "set", "5" }, { pair[1], pair[2] }) end
    end)
  end)

  describe("replicate/rebalance", function()
    local function copies(future) return #client:who_has(future)[future.key] end

    it("test_replicate: to all workers, and back to one", function()
      local x = client:submit("operator.add", 1, 2)
      client:replicate(x)
      assert.equal(2, copies(x))
      client:replicate({ x }, { n = 1 })
      assert.equal(1, copies(x))
    end)

    it("test_replicate_workers: to the workers that are named", function()
      local at = addresses()
      local x = client:with({ workers = "w0" }):submit("operator.add", 1, 2)
      client:replicate({ x }, { workers = { "w0", "w1" } })
      assert.equal(2, copies(x))
      client:replicate({ x }, { n = 1, workers = { "w1" } })
      local holders = {}
      for _, address in ipairs(client:who_has(x)[x.key]) do holders[address] = true end
      assert.is_true(holders[at.w1])
      misuse("^replicate needs Futures", function() client:replicate() end)
    end)

    it("test_rebalance: 100 and 0 become 50 and 50", function()
      -- What earlier tests left in memory would count.
      assert.is_truthy(support.eventually(function()
        collectgarbage()
        return next(client:who_has()) == nil
      end, 10))
      local at, numbers = addresses(), {}
      for i = 1, 100 do numbers[i] = i end
      local futures = client:with({ workers = "w0" }):map("operator.neg", numbers)
      saturn.wait(futures, { timeout = PATIENCE })
      local function held()
        local counts = { [at.w0] = 0, [at.w1] = 0 }
        for _, holders in pairs(client:who_has(futures)) do counts[holders[1]] = counts[holders[1]] + 1 end
        return counts
      end
      assert.same({ [at.w0] = 100, [at.w1] = 0 }, held())
      client:rebalance(futures)
      assert.same({ [at.w0] = 50, [at.w1] = 50 }, held())
      assert.equal(-100, futures[100]:result(PATIENCE))
    end)

    it("the active memory manager drops copies that nobody needs", function()
      local amm = client:amm()
      amm:stop()
      assert.is_false(amm:running())
      local x = client:submit("operator.add", 1, 3)
      client:replicate(x)
      amm:run_once()
      assert.is_truthy(support.eventually(function() return copies(x) == 1 end, 10))
      amm:start()
      assert.is_true(amm:running())
      amm:stop()
    end)
  end)

  describe("restart", function()
    it("test_restart_workers: other processes under the same nannies", function()
      local at, before = addresses(), client:run("os.getpid")
      assert.same({ [at.w0] = "OK" }, client:restart_workers("w0", { timeout = PATIENCE }))
      local now = addresses()
      local after = client:run("os.getpid")
      assert.not_equal(before[at.w0], after[now.w0])
      assert.equal(before[at.w1], after[now.w1])
      misuse("^restart_workers needs", function() client:restart_workers() end)
    end)

    it("a task that kills its workers fails, and the nannies start others", function()
      local before = client:run("os.getpid")
      local killer = client:submit(py.fn "lambda: __import__('os')._exit(1)")
      local after_it = client:submit("operator.neg", killer)
      local err = raises("task", "^KilledWorker: 2 workers died while they ran the task '", killer.result, killer,
        PATIENCE)
      assert.equal("distributed.scheduler.KilledWorker", err.type)
      assert.truthy(err.message:find(("'%s', the last of them at tcp://127.0.0.1:"):format(killer.key), 1, true))
      assert.equal(err.message, raises("task", nil, after_it.result, after_it, PATIENCE).message)
      client:wait_for_workers(2, PATIENCE)
      assert.not_same(before, client:run("os.getpid"))
      assert.equal(5, client:submit("operator.add", 1, 4):result(PATIENCE))
    end)

    it("restart_workers refuses workers without a nanny", function()
      cluster:add_worker { name = "plain", nanny = false }
      raises("value", "without a nanny", client.restart_workers, client, "plain")
      client:retire_workers("plain")
    end)

    local restart_tests = "test_restart, test_multiple_clients_restart, "
      .. "test_scheduler_restart_exception_on_cancelled_futures"
    it(restart_tests, function()
      local other <close> = saturn.client(cluster.address, { timeout = PATIENCE })
      local x = client:submit("operator.add", 1, 2)
      local y = other:submit("operator.add", 3, 4)
      assert.equal(7, y:result(PATIENCE))
      local running = client:submit("time.sleep", 2)
      x:result(PATIENCE)
      local before = client:run(py.fn "lambda: __import__('os').getpid()")
      client:restart { timeout = PATIENCE }
      assert.is_truthy(loop.poll(function()
        return x:cancelled() and y:cancelled() and running:cancelled()
      end, 10))
      raises("cancelled", "restarted", x.result, x, PATIENCE)
      raises("cancelled", "restarted", y.result, y, PATIENCE)
      local pids = {}
      for _, pid in pairs(before) do pids[pid] = true end
      client:wait_for_workers(2, PATIENCE)
      for _, pid in pairs(client:run("os.getpid")) do assert.is_nil(pids[pid]) end
      assert.same({}, client:who_has())
      assert.equal(5, client:submit("operator.add", 2, 3):result(PATIENCE))
      assert.equal(6, other:submit("operator.add", 3, 3):result(PATIENCE))
    end)
  end)

  describe("retire_workers", function()
    it("takes no options for workers", function()
      misuse("^workers are a list .* 'n' is no place in one", function() client:retire_workers { n = 1 } end)
      misuse("^workers are a list", function() client:retire_workers { "w1", foo = 1 } end)
      misuse("^workers are a list", function() client:restart_workers { timeout = 5 } end)
      misuse("^workers are a list", function() client:replicate("x", { workers = { n = 1 } }) end)
      misuse("^a worker is named", function() client:retire_workers { {} } end)
    end)

    it("copies what only they hold", function()
      local at = addresses()
      local x = client:with({ workers = "w0", allow_other_workers = true }):submit("operator.add", 20, 3)
      x:result(PATIENCE)
      assert.same({ at.w0 }, keys_of(client:retire_workers("w0")))
      assert.same({ at.w1 }, client:who_has(x)[x.key])
      assert.equal(23, x:result(PATIENCE))
      raises("value", "no worker named", client.retire_workers, client, "w0")
      assert.is_nil(client:nthreads()[at.w0])
    end)
  end)

  describe("shutdown", function()
    it("ends the scheduler and closes the client", function()
      client:shutdown(PATIENCE)
      assert.is_truthy(tostring(client):find "closed")
      assert.is_truthy(support.eventually(function()
        local ok, made = pcall(saturn.client, cluster.address, { timeout = 0.5 })
        if ok then made:close() end
        return not ok
      end, 10))
      client:shutdown()
      raises("closed", nil, client.nthreads, client)
    end)
  end)
end)
