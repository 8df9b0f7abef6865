-- Looking into a real cluster of the release in $DASK: versions, where tasks go and data is, logs, records of what ran,
-- files, progress.
local dask = require "spec.support.dask"
local loop = require "saturn.loop"
local saturn = require "saturn"
local support = require "spec.support"

local py = saturn.py
local keys_of, misuse, raises = support.keys_of, support.misuse, support.raises

local PATIENCE = 30 -- seconds that nothing here should take

local function has(list, item)
  for _, each in ipairs(list) do
    if each == item then return true end
  end
  return false
end

-- What a display writes to.
local function paper()
  local sheet = { text = "" }
  function sheet.write(_, ...) sheet.text = sheet.text .. table.concat { ... } end
  function sheet.flush() end
  return sheet
end

describe("inspecting", function()
  local cluster, client, at

  setup(function()
    cluster = dask.start {
      workers = 2, nthreads = 1, resources = { A = 1 },
      config = {
        ["distributed.worker.profile.interval"] = "5ms", ["distributed.worker.profile.cycle"] = "50ms",
      },
    }
    client = saturn.client(cluster.address, { timeout = PATIENCE })
    at = {}
    for _, worker in ipairs(cluster.workers) do at[worker.name] = worker.address end
  end)
  teardown(function()
    if client then client:close() end
    if cluster then cluster:stop() end
  end)

  local events = 0

  -- A function whose tasks wait until the gate is opened, and how to open it, which the end of the test does too.
  local function gate()
    events = events + 1
    local name = "gate-" .. events
    finally(function() client.scheduler:call("event_set", { name = name }, PATIENCE) end)
    local fn = py.fn(([[
def held_back(value=None):
    from distributed import Event
    Event(%q).wait(60)
    return value
]]):format(name))
    return fn, function() client.scheduler:call("event_set", { name = name }, PATIENCE) end
  end

  -- Asks again and again until the answer is true.
  local function settles(ask)
    return support.settles(ask, PATIENCE) or error("what was waited for did not happen", 2)
  end

  -- Waits until the task runs. The scheduler may not have heard of it yet.
  local function running(future)
    return settles(function()
      for address, tasks in pairs(client:call_stack()) do
        if tasks[future.key] then return address end
      end
    end)
  end

  describe("versions", function()
    it("of the scheduler, the workers and the client", function()
      local versions = client:versions()
      assert.equal(client.version, versions.scheduler.packages.distributed)
      assert.same(keys_of(client:nthreads()), keys_of(versions.workers))
      for _, worker in pairs(versions.workers) do assert.same(versions.scheduler.packages, worker.packages) end
      assert.equal(saturn._VERSION, versions.client.saturn)
      assert.equal("5.4", versions.client.lua)
      assert.is_nil(versions.warning)
    end)

    it("warns of those that differ, and asks for more packages", function()
      client:with({ workers = "w1" }):run(py.fn [[
def pretend():
    from distributed import versions
    real = versions.get_package_info
    def get_package_info(packages):
        return dict(real(packages), numpy="0.0.1", dask="0.0.2")
    versions.get_package_info = get_package_info
    versions.real_package_info = real
]])
      local versions = client:versions { packages = { "cryptography" } }
      client:with({ workers = "w1" }):run(py.fn [[
def stop():
    from distributed import versions
    versions.get_package_info = versions.real_package_info
]])
      assert.is_string(versions.scheduler.packages.cryptography)
      assert.truthy(versions.warning:find("^Mismatched versions found\n\n%+%-"), versions.warning)
      assert.truthy(versions.warning:find("| numpy ", 1, true), versions.warning)
      assert.truthy(versions.warning:find("| dask ", 1, true))
      assert.truthy(versions.warning:find("0.0.2, ", 1, true))
      assert.is_nil(versions.warning:find("| tornado", 1, true))
      assert.is_nil(client:versions().warning)
    end)
  end)

  describe("restrictions", function()
    it("test_restrictions_submit: a task runs where it may", function()
      local x = client:with({ workers = "w0" }):submit("operator.add", 1, 2)
      local y = client:with({ workers = { at.w1 } }):submit("operator.add", 1, 3)
      saturn.wait({ x, y }, { timeout = PATIENCE })
      assert.same({ [x.key] = { at.w0 }, [y.key] = { at.w1 } }, client:who_has { x, y })
      assert.same({ at.w0 }, client:who_has(x.key)[x.key])
      assert.is_true(has(client:has_what()[at.w0], x.key))
      assert.is_false(has(client:has_what("w1")[at.w1], x.key))
      assert.same({ "nosuch" }, keys_of(client:who_has "nosuch"))
      assert.same({}, client:who_has("nosuch").nosuch)
    end)

    it("test_unrunnable_task_runs: it waits for its worker", function()
      local x = client:with({ workers = "w-later" }):submit("operator.add", 2, 2)
      assert.is_truthy(settles(function() return client:story(x)[1] end))
      client:settle(PATIENCE)
      assert.equal("pending", x.status)
      for _, keys in pairs(client:processing()) do assert.is_false(has(keys, x.key)) end
      -- A name that nobody has yet is a host to the scheduler, and becomes that of the worker who comes with it:
      -- any worker there will do.
      local worker = cluster:add_worker { name = "w-later", worker_args = { host = "127.0.0.2" } }
      finally(function() client:retire_workers("w-later") end)
      assert.equal(4, x:result(PATIENCE))
      assert.same({ worker.address }, client:who_has(x)[x.key])
    end)

    it("test_allow_restrictions: other workers are only second best", function()
      local x = client:with({ workers = "w-none", allow_other_workers = true }):submit("operator.add", 3, 3)
      assert.equal(6, x:result(PATIENCE))
    end)
  end)

  describe("resources", function()
    it("resources::test_resource_submit: lands where the resource is, waits where there is none", function()
      local none = client:with({ resources = { B = 1 } }):submit("operator.add", 1, 2)
      local some = client:with({ resources = { A = 1 } }):submit("operator.add", 1, 3)
      assert.equal(4, some:result(PATIENCE))
      assert.equal("pending", none.status)
      local worker = cluster:add_worker { name = "w-b", resources = { B = 1 } }
      finally(function() client:retire_workers("w-b") end)
      assert.equal(3, none:result(PATIENCE))
      assert.same({ worker.address }, client:who_has(none)[none.key])
    end)

    it("resources::test_submit_many_non_overlapping: one at a time where there is one of it", function()
      local peak = py.fn [[
def peak(i):
    import builtins, threading, time
    state = builtins.__dict__.setdefault("_saturn_peak", [0, threading.Lock(), 0])
    with state[1]:
        state[0] += 1
        state[2] = max(state[2], state[0])
    time.sleep(0.005)
    with state[1]:
        state[0] -= 1
    return state[2]
]]
      local wide = cluster:add_worker { name = "wide", nthreads = 4, resources = { C = 1 } }
      finally(function() client:retire_workers("wide") end)
      local numbers = {}
      for i = 1, 10 do numbers[i] = i end
      local values = client:gather(client:with({ resources = { C = 1 } }):map(peak, numbers), { timeout = PATIENCE })
      for i = 1, 10 do assert.equal(1, values[i]) end
      assert.equal(4, client:nthreads()[wide.address])
    end)
  end)

  describe("priorities", function()
    local done = py.fn [[
def done(name, value):
    import builtins
    builtins.__dict__.setdefault("_saturn_order_" + name, []).append(value)
]]

    local function order(name)
      local list = client:with({ workers = "w0" }):run(py.fn [[
def order(name):
    import builtins
    return builtins.__dict__.pop("_saturn_order_" + name)
]], name)[at.w0]
      return { table.unpack(list) }
    end

    local ready = py.fn "lambda dask_worker: sum(t.state == 'ready' for t in dask_worker.state.tasks.values())"

    -- All are submitted while the worker is held back, so that their order is the scheduler's choice.
    local function held(submit)
      local fn, open = gate()
      local worker = client:with { workers = "w0" }
      local blocker = worker:submit(fn)
      running(blocker)
      local futures = submit()
      settles(function() return worker:run(ready)[at.w0] == #futures end)
      open()
      saturn.wait(futures, { timeout = PATIENCE })
      for _, future in ipairs(futures) do assert.equal("finished", future.status) end
    end

    it("priorities::test_submit: high comes before low", function()
      held(function()
        local futures = {}
        for i, priority in ipairs { -1, 0, 5, -3, 2 } do
          futures[i] = client:with({ workers = "w0", priority = priority }):submit(done, "submit", priority)
        end
        return futures
      end)
      assert.same({ 5, 2, 0, -1, -3 }, order "submit")
    end)

    it("priorities::test_map", function()
      held(function()
        local low = client:with({ workers = "w0", priority = -1 }):map(done, { "map", "map" }, { 1, 1 })
        local high = client:with({ workers = "w0", priority = 1 }):map(done, { "map", "map" }, { 2, 2 })
        return { low[1], low[2], high[1], high[2] }
      end)
      assert.same({ 2, 2, 1, 1 }, order "map")
    end)
  end)

  describe("what runs", function()
    it("processing, call_stack and nbytes", function()
      local fn, open = gate()
      local x = client:with({ workers = "w1" }):submit(fn, 5)
      assert.equal(at.w1, running(x))
      assert.same({ [at.w1] = { x.key } }, client:processing("w1"))
      local stack = table.concat(client:call_stack(x)[at.w1][x.key])
      assert.truthy(stack:find("in held_back", 1, true), stack)
      assert.truthy(stack:find("line 3", 1, true), stack)
      open()
      assert.equal(5, x:result(PATIENCE))
      assert.same({ [at.w1] = {} }, client:processing("w1"))
      assert.same({}, client:call_stack(x))
      local bytes = client:nbytes(x, { summary = false })
      assert.is_true(bytes[x.key] > 0 and bytes[x.key] < 1000)
      assert.equal(bytes[x.key], client:nbytes(x).held_back)
      assert.same({ [at.w0] = 1, [at.w1] = 1 }, client:nthreads())
      assert.same({ [at.w0] = 1 }, client:nthreads "w0")
    end)

    it("refuses what names nothing", function()
      misuse("^expected Futures or keys, not a number", function() client:who_has(5) end)
      misuse("^a worker is named", function() client:nthreads { {} } end)
      misuse("^unknown option 'sumary'", function() client:nbytes(nil, { sumary = true }) end)
      raises("value", "no worker named 'w9'", client.nthreads, client, "w9")
    end)
  end)

  describe("logs", function()
    it("the last lines, oldest first", function()
      client:run_on_scheduler(py.fn [[
def write():
    import logging
    for i in range(3):
        logging.getLogger("distributed.scheduler").warning("saturn line %d", i)
]])
      local lines = client:scheduler_logs(2)
      assert.equal(2, #lines)
      assert.equal("WARNING", lines[1].level)
      assert.truthy(lines[1].message:find("saturn line 1$"), lines[1].message)
      assert.truthy(lines[2].message:find("saturn line 2$"), lines[2].message)
      local all = client:scheduler_logs()
      assert.is_true(#all > 3)
      assert.equal(lines[2].message, all[#all].message)
      misuse("^the number of log lines", function() client:scheduler_logs(0) end)
    end)

    it("of workers", function()
      client:run(py.fn [[
def write(dask_worker):
    import logging
    for i in range(2):
        logging.getLogger("distributed.worker").warning("line %d of %s", i, dask_worker.name)
]])
      local logs = client:worker_logs(1)
      assert.truthy(logs[at.w0][1].message:find("line 1 of w0$"))
      assert.truthy(logs[at.w1][1].message:find("line 1 of w1$"))
      assert.same({ at.w1 }, keys_of(client:worker_logs(1, { workers = "w1" })))
    end)
  end)

  describe("story", function()
    it("of a task, by the scheduler and its worker", function()
      local x = client:submit("operator.add", 7, 2)
      x:result(PATIENCE)
      local states, workers = {}, {}
      for _, event in ipairs(client:story(x)) do
        if event.source == "scheduler" then
          assert.equal(x.key, event.key)
          states[#states + 1] = event.start .. ">" .. event.finish
          assert.is_true(math.abs(event.time - os.time()) < 3600)
        else
          workers[event.source] = true
        end
        assert.is_string(event.stimulus)
      end
      assert.same({ "released>waiting", "waiting>processing", "processing>memory" }, states)
      assert.same(client:who_has(x)[x.key], keys_of(workers))
      assert.same({}, client:story "nosuch")
    end)
  end)

  describe("records", function()
    it("task_stream: when and where tasks ran", function()
      client:task_stream { start = 0, stop = 0 }
      local x = client:with({ workers = "w0" }):submit("operator.add", 8, 2)
      x:result(PATIENCE)
      local record = settles(function()
        local last = client:task_stream { count = 1 }
        return last[1] and last[1].key == x.key and last[1]
      end)
      assert.equal(at.w0, record.worker)
      assert.equal("OK", record.status)
      assert.equal("int", record.typename)
      assert.equal("compute", record.startstops[#record.startstops].action)
      assert.is_true(record.startstops[1].stop >= record.startstops[1].start)
      assert.is_true(#client:task_stream() >= 1)
    end)

    it("profile: the stacks that were sampled", function()
      local busy = py.fn [[
def busy(seconds):
    import time
    end = time.time() + seconds
    while time.time() < end:
        sum(range(1000))
]]
      client:submit(busy, 0.3):result(PATIENCE)
      local function names(tree, found)
        found[tree.description.name] = true
        for _, child in pairs(tree.children) do names(child, found) end
        return found
      end
      settles(function() return names(client:profile(), {}).busy end)
      assert.is_true(client:profile().count > 0)
      assert.is_true(names(client:profile { key = "busy" }, {}).busy)
      assert.equal(2, #keys_of(client:profile { merge_workers = false }))
      assert.is_table(client:profile({ scheduler = true }).children)
    end)
  end)

  describe("files", function()
    it("write_scheduler_file: for another client", function()
      local dir <close> = support.tmpdir()
      local path = dir.path .. "/scheduler.json"
      client:write_scheduler_file(path)
      local other <close> = saturn.client({ scheduler_file = path }, { timeout = PATIENCE })
      assert.equal(9, other:submit("operator.add", 4, 5):result(PATIENCE))
      local answer = dask.run_python(nil, ([[
from distributed import Client
with Client(scheduler_file=%q, set_as_default=False) as c:
    print(c.submit(len, "abcd").result())
]]):format(path))
      assert.equal("4\n", answer)
      raises("value", "cannot be written", client.write_scheduler_file, client, dir.path .. "/none/x.json")
    end)

    it("the configuration of Dask says where the scheduler is", function()
      local dir <close> = support.tmpdir()
      support.write_all(dir.path .. "/dask.yaml", "scheduler-address: " .. cluster.address .. "\nclient-name: anna\n")
      local config = saturn.config.load { places = { dir.path }, env = {} }
      local other <close> = saturn.client(nil, { config = config, timeout = PATIENCE })
      assert.equal(cluster.address, other.address)
      assert.equal("anna", other.name)
      assert.equal(5, other:submit("operator.add", 2, 3):result(PATIENCE))
      local third <close> = saturn.client(cluster.address, { config = config, name = "berta", timeout = PATIENCE })
      assert.equal("berta", third.name)
    end)

    it("dump_cluster_state: for Python's tools", function()
      local dir <close> = support.tmpdir()
      local x = client:submit("operator.add", 8, 3)
      x:result(PATIENCE)
      local path = client:dump_cluster_state(dir.path .. "/dump")
      assert.equal(dir.path .. "/dump.msgpack.gz", path)
      local answer = dask.run_python(nil, ([[
from distributed.cluster_dump import DumpArtefact
dump = DumpArtefact.from_url(%q)
print(dump["scheduler"]["tasks"][%q]["state"], len(dump["workers"]), sorted(dump))
]]):format(path, x.key))
      assert.equal("memory 2 ['scheduler', 'versions', 'workers']\n", answer)
    end)

    it("performance_report: an HTML page, where the scheduler can draw", function()
      local dir <close> = support.tmpdir()
      local path = dir.path .. "/report.html"
      local report = client:performance_report(path, { code = "the calling code" })
      assert.is_truthy(tostring(report):find "recording")
      client:submit("operator.add", 8, 4):result(PATIENCE)
      if client:versions({ packages = { "bokeh" } }).scheduler.packages.bokeh then
        report:close()
        local html = support.read_all(path)
        assert.truthy(html:find("Dask Performance Report", 1, true))
        assert.truthy(html:find("the calling code", 1, true))
      else
        raises("task", "need the Python package bokeh on the scheduler", report.close, report)
        assert.is_false(support.exists(path))
      end
      report:close()
      assert.is_truthy(tostring(report):find "closed")
      assert.equal(3, client:submit("operator.add", 1, 2):result(PATIENCE))
      raises("value", "cannot be written", client.performance_report, client, dir.path .. "/none/x.html")
    end)
  end)

  describe("progress", function()
    it("bars on a terminal, drawn anew, whole at the end", function()
      local out = paper()
      local futures = client:map("operator.neg", { 1, 2, 3 })
      futures[4] = client:submit("operator.truediv", 1, 0)
      assert.equal(futures, saturn.progress(futures, { out = out, terminal = true, timeout = PATIENCE }))
      local last = out.text:match(".*\27%[2A(.*)$") or out.text
      assert.truthy(last:find("neg +%[#+%] 3/3, [^\n]*in %d+s\n"), last)
      assert.truthy(last:find("truediv +%[#+%] 1/1, 1 failed"), last)
      for line in last:gmatch "[^\n]+" do assert.is_true(#line:gsub("\27%[%a", "") <= 80, line) end
    end)

    it("draws at most ten times a second", function()
      local out = paper()
      local draws = 0
      local write = out.write
      function out.write(...)
        draws = draws + 1
        return write(...)
      end
      local started = loop.now()
      local futures = {}
      for i = 1, 100 do futures[i] = client:submit("time.sleep", 0.002) end
      saturn.progress(futures, { out = out, terminal = true, timeout = PATIENCE })
      assert.is_true(draws <= 2 + 10 * (loop.now() - started), draws)
      assert.truthy(out.text:find "100/100")
    end)

    it("lines elsewhere", function()
      local out = paper()
      saturn.progress(client:map("operator.neg", { 4, 5, 6 }), { out = out, timeout = PATIENCE })
      assert.truthy(out.text:find "^neg: 3/3, [^\n]+\n$", out.text)
      assert.is_nil(out.text:find "[\27\r]")
      assert.same({}, saturn.progress({}, { out = out }))
    end)

    it("leaves whole lines behind when it gives up", function()
      local fn, open = gate()
      local x = client:submit(fn, 1)
      local out = paper()
      raises("timeout", "1 of 1 tasks were not done", saturn.progress, x, { out = out, terminal = true, timeout = 0.2 })
      assert.truthy(out.text:find "held_back %[ +%] 0/1\n$", out.text)
      open()
      assert.equal(1, x:result(PATIENCE))
      misuse("^progress needs a list of Futures, but element 1", function()
        saturn.progress { 5 }
      end)
    end)

    it("names kinds of tasks as Dask does", function()
      local prefix_of = require("saturn.dask.progress").prefix_of
      local names = {
        ["inc-0123456789abcdef0123"] = "inc", ["read-csv-0123abcd"] = "read-csv", ["x"] = "x", ["('z-1', 0)"] = "z",
        ["0123456789abcdef0123456789abcdef"] = "data", ["add-me-deadbeef-1"] = "add-me", ["a-1-b"] = "a",
      }
      for key, name in pairs(names) do assert.equal(name, prefix_of(key)) end
      assert.equal("z", prefix_of { "z-1", 0, 1 })
    end)
  end)

  describe("tostring", function()
    it("says address, workers, threads, memory and dashboard, and asks nobody", function()
      local other <close> = saturn.client(cluster.address, { timeout = PATIENCE })
      cluster:stop_scheduler()
      local text = tostring(other)
      cluster:cont_scheduler()
      assert.equal(("<saturn.client: %s, distributed %s, 2 workers, 2 threads, 4.0 GiB, dashboard %s>"):format(
        cluster.address, other.version, ("http://127.0.0.1:%d/status"):format(cluster.dashboard)), text)
      local worker = cluster:add_worker { name = "third", nthreads = 3 }
      other:wait_for_workers(3, PATIENCE)
      assert.truthy(tostring(other):find("3 workers, 5 threads", 1, true))
      assert.is_string(worker.address)
      client:retire_workers("third")
      other:close()
      local closed = ("<saturn.client: %s, distributed %s, closed>"):format(cluster.address, other.version)
      assert.equal(closed, tostring(other))
    end)
  end)
end)
