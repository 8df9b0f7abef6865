-- Loss: the scheduler, the network or a worker goes away, and comes back.
local dask = require "spec.support.dask"
local loop = require "saturn.loop"
local proxies = require "spec.support.proxy"
local saturn = require "saturn"
local support = require "spec.support"

local py = saturn.py
local misuse, raises, settles = support.misuse, support.raises, support.settles

local PATIENCE = 30 -- seconds that nothing here should take
local SOON = 8 -- seconds: far less than PATIENCE, and enough for a machine that is busy

local GATE = [[
def wait(name, value=None):
    from distributed import Event
    Event(name).wait(60)
    return value
]]

local function eventually(condition, seconds) return loop.poll(condition, seconds or 10) end

-- Runs fn, which must not take longer than that.
local function within(seconds, fn, ...)
  local started = loop.now()
  local results = table.pack(fn(...))
  local took = loop.now() - started
  assert.is_true(took < seconds, ("took %.2f s instead of at most %g s"):format(took, seconds))
  return table.unpack(results, 1, results.n)
end

describe("loss", function()
  local cluster, observer, proxy
  local names = 0

  setup(function()
    cluster = dask.start { workers = 2, nthreads = 2 }
    observer = saturn.client(cluster.address, { timeout = PATIENCE })
    proxy = proxies.start(cluster.address)
  end)
  teardown(function()
    if observer then observer:close() end
    if proxy then proxy:stop() end
    if cluster then cluster:stop() end
  end)

  -- Whatever a test that failed has left.
  before_each(function() proxy:mend() end)

  local function connect(options)
    local all = { timeout = PATIENCE }
    for name, value in pairs(options or {}) do all[name] = value end
    return saturn.client(proxy.address, all)
  end

  -- A client that resumes, and the list of what it said of its connection.
  local function connect_again(options)
    local said = {}
    local all = { resume = true, on_status = function(status) said[#said + 1] = status end }
    for name, value in pairs(options or {}) do all[name] = value end
    return connect(all), said
  end

  local function new_name(prefix)
    names = names + 1
    return ("%s-%d"):format(prefix, names)
  end

  -- A task that goes on when it is told to.
  local function gate(client, value)
    local name = new_name "gate"
    return client:submit(py.fn(GATE), name, value), function()
      observer.scheduler:call("event_set", { name = name }, PATIENCE)
    end
  end

  -- What the scheduler thinks of a key: a word, or nil when it does not know it.
  local function state_of(key)
    return observer.scheduler:call("get_task_status", { keys = { key } }, PATIENCE)[key]
  end

  local function is_state(key, state)
    local found
    return settles(function()
      found = state_of(key)
      return found == state
    end) or ("the state of %s is %s"):format(key, found)
  end

  local function holders(key)
    return observer.scheduler:call("who_has", { keys = { key } }, PATIENCE)[key]
  end

  local function knows_client(name)
    local names_of = py.fn "lambda dask_scheduler: list(dask_scheduler.clients)"
    for _, each in ipairs(observer:run_on_scheduler(names_of)) do
      if each == name then return true end
    end
    return false
  end

  describe("without resume", function()
    it("all Futures end at once, with the reason, and so does what waits", function()
      local said = {}
      local client <close> = connect { on_status = function(...) said[#said + 1] = { ... } end }
      local done = client:submit("operator.add", 1, 2)
      local pending, open = gate(client, 1)
      assert.equal(3, done:result(PATIENCE))
      local told = {}
      pending:on_done(function(each) told[#told + 1] = each.status end)
      local queue = client:queue(new_name "queue")
      local result, got, gathered, next_one
      local waiting = {
        loop.spawn(function() result = table.pack(pcall(pending.result, pending, PATIENCE)) end),
        loop.spawn(function() got = table.pack(pcall(queue.get, queue, PATIENCE)) end),
        loop.spawn(function() gathered = table.pack(pcall(client.gather, client, { done, pending })) end),
        loop.spawn(function() next_one = saturn.as_completed({ pending }):next() end),
      }
      loop.sleep(0.05)
      proxy:cut()
      within(SOON, function() for _, each in ipairs(waiting) do each:join(PATIENCE) end end)
      support.assert_kind(result[2], "lost", "the connection")
      support.assert_kind(got[2], "closed", "lost")
      support.assert_kind(gathered[2], "lost", "the connection")
      assert.equal(pending, next_one)
      assert.same({ "lost" }, told)
      assert.equal("lost", done.status)
      assert.truthy(done:reason():find "connection")
      assert.equal("lost", client.status)
      assert.truthy(tostring(client):find ", lost>")
      assert.equal(1, #said)
      assert.equal("lost", said[1][1])
      assert.truthy(said[1][2]:find "connection")
      open()
    end)

    it("test_client_disconnect_exception_on_cancelled_futures: every call says why and what to do", function()
      local client <close> = connect()
      local lost = client:submit("operator.add", 1, 2)
      lost:result(PATIENCE)
      proxy:cut()
      assert.is_true(eventually(function() return client.status == "lost" end, SOON))
      raises("lost", "connection", lost.result, lost, PATIENCE)
      support.assert_kind(lost:exception(PATIENCE), "lost", "connection")
      assert.same({ lost }, (saturn.wait({ lost }, { timeout = PATIENCE })))
      local said = "client:reconnect%(%), or make a new client"
      raises("closed", said, client.submit, client, "operator.add", 1, 2)
      raises("closed", said, client.gather, client, { lost })
      raises("closed", said, client.map, client, "operator.neg", { 1 })
      raises("closed", said, client.scatter, client, 1)
      raises("closed", said, client.scheduler_info, client)
      raises("closed", said, client.who_has, client)
      raises("closed", said, client.cancel, client, lost)
      raises("closed", said, client.run, client, "os.getpid")
      lost:release()
    end)

    it("test_reconnect: reconnect makes the client usable again; what was lost stays lost", function()
      local said = {}
      local client <close> = connect { on_status = function(status) said[#said + 1] = status end }
      local id = client.id
      local first = client:with { key = "again" }:submit("operator.add", 1, 2)
      first:result(PATIENCE)
      proxy:cut()
      assert.is_true(eventually(function() return client.status == "lost" end, SOON))
      client:reconnect(PATIENCE)
      assert.equal("connected", client.status)
      assert.are_not.equal(id, client.id)
      assert.same({ "lost", "connected" }, said)
      assert.equal("lost", first.status)
      raises("lost", "cannot be an argument", client.submit, client, "operator.neg", first)
      local second = client:with { key = "again" }:submit("operator.add", 2, 2)
      first:release()
      assert.equal(4, second:result(PATIENCE))
      assert.equal("memory", state_of "again")
      client:reconnect() -- nothing to do
      assert.equal(4, second:result(PATIENCE))
    end)

    it("test_reconnect_timeout: reconnect gives up in time, and can be tried again", function()
      local client <close> = connect()
      proxy:refuse()
      proxy:cut()
      assert.is_true(eventually(function() return client.status == "lost" end, SOON))
      within(SOON, raises, "connect", "refused", client.reconnect, client, 0.3)
      assert.equal("lost", client.status)
      proxy:accept()
      client:reconnect(PATIENCE)
      assert.equal(3, client:submit("operator.add", 1, 2):result(PATIENCE))
    end)

    it("a connection cut in the middle of a message, either way", function()
      local client <close> = connect()
      local big = client:submit(py.fn "lambda: __import__('os').urandom(3000000)")
      assert.is_true(is_state(big.key, "memory"))
      proxy:cut_after("down", 1000000)
      within(SOON, function()
        local err = select(2, pcall(big.result, big, PATIENCE))
        assert.truthy(err.kind == "closed" or err.kind == "lost", tostring(err))
      end)
      client:reconnect(PATIENCE)
      proxy:cut_after("up", 1000000)
      local list = {}
      for i = 1, 50000 do list[i] = i end
      local futures = client:map("operator.neg", list)
      within(SOON, raises, "lost", "connection", client.gather, client, futures)
      client:reconnect(PATIENCE)
      assert.equal(3, client:submit("operator.add", 1, 2):result(PATIENCE))
    end)

    it("test_cleanup_after_broken_client_connection: its keys go, those of others stay", function()
      local client <close> = connect()
      local mine = client:with { key = new_name "mine" }:submit("operator.add", 1, 2)
      local key = new_name "shared"
      local shared = client:with { key = key }:submit("operator.add", 1, 3)
      local theirs = observer:with { key = key }:submit("operator.add", 1, 3)
      client:gather { mine, shared }
      theirs:result(PATIENCE)
      local mine_key = mine.key
      proxy:cut()
      assert.is_true(is_state(mine_key, nil))
      assert.equal("memory", state_of(key))
      assert.equal(4, theirs:result(PATIENCE))
      assert.is_true(eventually(function() return shared.status == "lost" end, SOON))
    end)

    it("a scheduler that says nothing: calls end at their timeouts, and go on when it does", function()
      local client <close> = connect { timeout = 0.4 }
      local future = client:submit("operator.add", 1, 2)
      future:result(PATIENCE)
      cluster:stop_scheduler()
      local later = client:submit("operator.add", 2, 2)
      within(SOON, function()
        raises("timeout", nil, later.result, later, 0.2)
        raises("timeout", nil, client.gather, client, { future }, { timeout = 0.2 })
        raises("timeout", nil, client.scheduler_info, client)
        raises("timeout", nil, saturn.client, cluster.address, { timeout = 0.3 })
      end)
      cluster:cont_scheduler()
      assert.equal(4, later:result(PATIENCE))
      assert.equal("connected", client.status)
    end)

    it("close does not wait for a scheduler that says nothing", function()
      local client = connect()
      local future = client:submit("operator.add", 1, 2)
      cluster:stop_scheduler()
      within(SOON, client.close, client)
      cluster:cont_scheduler()
      assert.equal("lost", future.status)
      raises("closed", "is closed", client.submit, client, "operator.add", 1, 2)
    end)

    it("heartbeat: silence is a loss, whether the scheduler or the network causes it", function()
      local client <close> = connect { heartbeat = 0.4 }
      local pending, open = gate(client, 1)
      loop.sleep(1)
      assert.equal("connected", client.status)
      cluster:stop_scheduler()
      within(SOON, raises, "lost", "has not answered for 0.4 seconds", pending.result, pending, PATIENCE)
      cluster:cont_scheduler()
      client:reconnect(PATIENCE)
      local second, open_second = gate(client, 2)
      proxy:hold()
      within(SOON, raises, "lost", "has not answered", second.result, second, PATIENCE)
      proxy:go()
      open()
      open_second()
      raises("closed", nil, client.submit, client, "operator.add", 1, 2)
    end)

    it("options are checked", function()
      for _, case in ipairs {
        { { heartbeat = 0 }, "'heartbeat'" }, { { heartbeat = "5" }, "'heartbeat'" }, { { resume = "" }, "'resume'" },
        { { resume = 5 }, "'resume'" }, { { on_status = true }, "'on_status'" },
      } do
        misuse(case[2], function() saturn.client(cluster.address, case[1]) end)
      end
      misuse("^release_held needs the name", function() observer:release_held() end)
      misuse("^only a client with the option 'resume'", function() observer:detach() end)
    end)
  end)

  describe("resume", function()
    it("pending Futures become finished, finished ones stay usable", function()
      local client <close>, said = connect_again()
      local done = client:submit("operator.add", 1, 2)
      local failed = client:submit("operator.truediv", 1, 0)
      local pending, open = gate(client, 5)
      local after = client:submit("operator.add", pending, done)
      local scattered = client:scatter(new_name "data")
      assert.equal(3, done:result(PATIENCE))
      raises("task", "division", failed.result, failed, PATIENCE)
      local id = client.id
      proxy:cut()
      assert.is_true(eventually(function() return #said == 2 end, PATIENCE))
      assert.same({ "connecting", "connected" }, said)
      assert.are_not.equal(id, client.id)
      assert.equal("pending", pending.status)
      assert.equal(3, done:result(PATIENCE))
      assert.truthy(scattered:result(PATIENCE):find "^data")
      raises("task", "division", failed.result, failed, PATIENCE)
      open()
      assert.equal(8, after:result(PATIENCE))
      assert.equal(5, pending:result(PATIENCE))
      assert.equal(9, client:submit("operator.add", after, 1):result(PATIENCE))
    end)

    it("an error in on_status is raised where the program waits, and stops nothing", function()
      for _, bad in ipairs { "connecting", "connected" } do
        local client <close> = connect { resume = true, on_status = function(status)
          if status == bad then error("on " .. status, 0) end
        end }
        local pending, open = gate(client, 5)
        client:settle(PATIENCE)
        proxy:cut()
        local ok, err = pcall(pending.result, pending, PATIENCE)
        assert.is_false(ok)
        assert.equal("on " .. bad, err)
        open()
        assert.equal(5, pending:result(PATIENCE))
        assert.equal("connected", client.status)
      end
    end)

    it("waiting calls go on within their timeouts; what ended meanwhile is found", function()
      local client <close>, said = connect_again()
      local pending, open = gate(client, 5)
      local bad = client:submit("operator.truediv", pending, 0)
      local result, gathered, completed
      local waiting = {
        loop.spawn(function() result = pending:result(PATIENCE) end),
        loop.spawn(function() gathered = client:gather({ pending }, { timeout = PATIENCE }) end),
        loop.spawn(function() completed = saturn.as_completed({ pending }, { timeout = PATIENCE }):next() end),
      }
      assert.is_true(is_state(pending.key, "processing"))
      proxy:refuse()
      proxy:cut()
      assert.is_true(eventually(function() return said[1] == "connecting" end, SOON))
      assert.equal("connecting", client.status)
      within(SOON, raises, "timeout", nil, pending.result, pending, 0.2)
      open()
      assert.is_true(is_state(bad.key, "erred"))
      assert.equal("memory", state_of(pending.key))
      assert.equal("pending", pending.status)
      proxy:accept()
      for _, each in ipairs(waiting) do each:join(PATIENCE) end
      assert.equal(5, result)
      assert.equal(5, gathered[1])
      assert.equal(pending, completed)
      raises("task", "division", bad.result, bad, PATIENCE)
    end)

    it("calls made meanwhile wait for the connection, within the client's timeout", function()
      local client <close>, said = connect_again { timeout = 5 }
      local first = client:submit("operator.add", 1, 2)
      first:result(PATIENCE)
      proxy:refuse()
      proxy:cut()
      assert.is_true(eventually(function() return said[1] == "connecting" end, SOON))
      client.request_timeout = 0.2
      within(SOON, raises, "timeout", "connecting again", client.submit, client, "operator.add", 1, 2)
      client.request_timeout = PATIENCE
      local second, workers
      local waiting = {
        loop.spawn(function() second = client:submit("operator.add", first, 2) end),
        loop.spawn(function() workers = client:wait_for_workers(2, PATIENCE) end),
      }
      loop.sleep(0.05)
      assert.is_nil(second)
      proxy:accept()
      for _, each in ipairs(waiting) do each:join(PATIENCE) end
      assert.equal(5, second:result(PATIENCE))
      assert.equal(2, workers)
    end)

    it("a graph that was cut off on its way is sent again", function()
      local client <close>, said = connect_again()
      client:submit("operator.add", 1, 2):result(PATIENCE)
      proxy:cut_after("up", 40000)
      local list, want = {}, 0
      for i = 1, 1000 do
        list[i] = i
        want = want - i
      end
      local futures = client:map("operator.neg", list)
      local values = client:gather(futures, { timeout = PATIENCE })
      assert.same({ "connecting", "connected" }, said)
      local sum = 0
      for _, value in ipairs(values) do sum = sum + value end
      assert.equal(want, sum)
    end)

    it("a result that was cut off on its way is asked for again", function()
      local client <close>, said = connect_again()
      local big = client:submit(py.fn "lambda: __import__('os').urandom(3000000)")
      assert.is_true(is_state(big.key, "memory"))
      proxy:cut_after("down", 1000000)
      assert.equal(3000000, #big:result(PATIENCE))
      assert.same({ "connecting", "connected" }, said)
      proxy:cut_after("down", 1000000)
      assert.equal(3000000, #client:gather({ big }, { direct = true, timeout = PATIENCE })[1])
    end)

    it("a network that drops packets: with a heartbeat it is noticed, and the client goes on", function()
      local client <close>, said = connect_again { heartbeat = 0.4 }
      local pending, open = gate(client, 5)
      assert.is_true(is_state(pending.key, "processing"))
      proxy:hold()
      assert.is_true(eventually(function() return said[1] == "connecting" end, SOON))
      open()
      proxy:cut()
      proxy:go()
      assert.equal(5, pending:result(PATIENCE))
      assert.equal("connected", client.status)
    end)

    it("again and again", function()
      local client <close>, said = connect_again()
      local futures = {}
      for round = 1, 5 do
        for i = 1, 20 do futures[#futures + 1] = client:submit("operator.add", round, i) end
        proxy:cut()
        assert.is_true(eventually(function() return #said == 2 * round end, PATIENCE))
      end
      local values = client:gather(futures, { timeout = PATIENCE })
      for i, value in ipairs(values) do assert.equal((i - 1) // 20 + 1 + (i - 1) % 20 + 1, value) end
    end)

    it("topics go on", function()
      local client <close>, said = connect_again()
      local heard, topic = {}, new_name "topic"
      local subscription = client:subscribe(topic, function(message) heard[#heard + 1] = message end)
      client:settle(PATIENCE)
      observer:log_event(topic, "one")
      assert.is_true(eventually(function() return #heard == 1 end))
      proxy:cut()
      assert.is_true(eventually(function() return #said == 2 end, PATIENCE))
      client:settle(PATIENCE)
      observer:log_event(topic, "two")
      assert.is_true(eventually(function() return #heard == 2 end))
      assert.same({ "one", "two" }, heard)
      subscription:close()
    end)

    it("a Future that is released lets its key go: before and after a loss, and without a connection", function()
      local client <close>, said = connect_again()
      local futures = client:map("operator.neg", { 1, 2, 3 })
      client:gather(futures)
      local keys = { futures[1].key, futures[2].key, futures[3].key }
      futures[1]:release()
      client:settle(PATIENCE)
      assert.is_true(is_state(keys[1], nil))
      proxy:refuse()
      proxy:cut()
      assert.is_true(eventually(function() return said[1] == "connecting" end, SOON))
      assert.equal("memory", state_of(keys[2]))
      futures[2]:release()
      proxy:accept()
      assert.is_true(eventually(function() return #said == 2 end, PATIENCE))
      client:settle(PATIENCE)
      assert.is_true(is_state(keys[2], nil))
      assert.equal("memory", state_of(keys[3]))
      futures[3]:release()
      client:settle(PATIENCE)
      assert.is_true(is_state(keys[3], nil))
    end)

    it("close lets everything go", function()
      local client = connect_again()
      local name = client.held_name
      local futures = client:map("operator.neg", { 1, 2, 3 })
      futures[4] = client:scatter(new_name "data")
      client:gather(futures)
      local keys = {}
      for i, each in ipairs(futures) do keys[i] = each.key end
      assert.is_true(knows_client(name))
      client:close()
      for _, key in ipairs(keys) do assert.is_true(is_state(key, nil)) end
      assert.is_false(knows_client(name))
    end)

    it("cancel and a second client: what both want stays for the other", function()
      local client <close> = connect_again()
      local other <close>, said = connect_again()
      local key = new_name "both"
      local mine = client:with { key = key }:submit("operator.add", 1, 2)
      local theirs = other:with { key = key }:submit("operator.add", 1, 2)
      client:gather { mine }
      other:gather { theirs }
      mine:release()
      client:settle(PATIENCE)
      proxy:cut()
      assert.is_true(eventually(function() return #said == 2 end, PATIENCE))
      assert.equal("memory", state_of(key))
      assert.equal(3, theirs:result(PATIENCE))
      local pending, open = gate(other, 1)
      pending:cancel()
      assert.equal("cancelled", pending.status)
      open()
      theirs:release()
      other:settle(PATIENCE)
      assert.is_true(is_state(key, nil))
    end)

    it("detach leaves everything behind; a client of the same name takes it up", function()
      local name = new_name "night"
      local client = connect { resume = name }
      local pending, open = gate(client, 5)
      local done = client:with { key = name .. "-sum" }:submit("operator.add", 1, 2)
      done:result(PATIENCE)
      assert.equal("saturn-keep-" .. name, client:detach(PATIENCE))
      assert.equal("closed", client.status)
      assert.equal("memory", state_of(name .. "-sum"))
      open()
      local second <close> = connect { resume = name }
      local found = {}
      for _, each in ipairs(second:held()) do found[each.key] = each end
      assert.equal(3, found[name .. "-sum"]:result(PATIENCE))
      local other = found[pending.key or ""] or found[next(found) == name .. "-sum" and next(found, next(found))
        or next(found)]
      assert.equal(5, other:result(PATIENCE))
      second:close()
      assert.is_true(is_state(name .. "-sum", nil))
      assert.is_false(knows_client("saturn-keep-" .. name))
    end)

    it("a process that dies: its results are found, or let go by name", function()
      local name = new_name "dead"
      local program = ([[
        local saturn = require "saturn"
        local client = saturn.client(%q, { timeout = %d, resume = %q })
        local futures = client:map("operator.neg", { 1, 2, 3 })
        client:gather(futures)
        client:settle(%d)
        print(futures[1].key)
        io.stdout:flush()
        os.execute "kill -9 $PPID"
      ]]):format(cluster.address, PATIENCE, name, PATIENCE)
      local dir <close> = support.tmpdir()
      support.write_all(dir.path .. "/program.lua", program)
      local key = support.shell(("%s %s"):format(support.lua(), support.quote(dir.path .. "/program.lua")), true)
      key = key:match "^%S+"
      assert.truthy(key)
      assert.equal("memory", state_of(key))
      local client = connect { resume = name }
      local held = client:held()
      assert.equal(3, #held)
      table.sort(held, function(a, b) return a.key < b.key end)
      assert.same({ -1, -2, -3 }, { table.unpack(client:gather(held)) })
      client:detach(PATIENCE)
      assert.equal(3, #observer:held(name))
      collectgarbage()
      observer:release_held(name)
      collectgarbage()
      observer:settle(PATIENCE)
      assert.is_true(is_state(key, nil))
      assert.is_false(knows_client("saturn-keep-" .. name))
      assert.same({}, observer:held(name))
      observer:release_held(new_name "nobody")
      assert.equal(3, observer:submit("operator.add", 1, 2):result(PATIENCE))
    end)

    it("release_held of its own name: the client goes on with what it wants", function()
      local client <close>, said = connect_again()
      local future = client:submit("operator.add", 1, 2)
      future:result(PATIENCE)
      client:release_held(client.held_name)
      assert.same({}, observer:held(client.held_name))
      assert.equal("memory", state_of(future.key))
      future:release()
      client:settle(PATIENCE)
      local second = client:submit("operator.add", 1, 3)
      assert.equal(4, second:result(PATIENCE))
      assert.same({}, said)
    end)

    it("gives up in time: Futures are lost, with the reasons, and reconnect begins anew", function()
      local client <close>, said = connect_again { resume_timeout = 1 }
      local future = client:submit("operator.add", 1, 2)
      future:result(PATIENCE)
      local pending, open = gate(client, 5)
      local key = future.key
      proxy:refuse()
      proxy:cut()
      within(SOON, raises, "lost", "given up", pending.result, pending, PATIENCE)
      assert.equal("lost", future.status)
      assert.same({ "connecting", "lost" }, said)
      raises("closed", "given up", client.submit, client, "operator.add", 1, 2)
      open()
      proxy:accept()
      client:reconnect(PATIENCE)
      local second = client:submit("operator.add", 1, 3)
      assert.equal(4, second:result(PATIENCE))
      proxy:cut()
      assert.is_true(eventually(function() return said[#said] == "connected" and #said == 5 end, PATIENCE))
      assert.equal(4, second:result(PATIENCE))
      assert.equal("lost", future.status)
      assert.equal("memory", state_of(key))
      client:close()
      assert.is_true(is_state(key, nil))
    end)

    it("is closed while it connects", function()
      local client, said = connect_again()
      local future = client:submit("operator.add", 1, 2)
      future:result(PATIENCE)
      local name = client.held_name
      proxy:refuse()
      proxy:cut()
      assert.is_true(eventually(function() return said[1] == "connecting" end, SOON))
      within(2 * SOON, client.close, client)
      assert.equal("lost", future.status)
      proxy:accept()
      loop.sleep(0.3)
      assert.equal("closed", client.status)
      assert.same({ "connecting" }, said)
      observer:release_held(name)
    end)
  end)

  describe("worker death", function()
    local dead = 0

    -- Kills the worker at an address without a word of goodbye.
    local function kill(address)
      for i = #cluster.workers, 1, -1 do -- an address may have been that of a worker killed before
        if cluster.workers[i].address == address then
          cluster:kill_worker(i)
          dead = dead + 1
          return
        end
      end
      error("no worker at " .. tostring(address))
    end

    before_each(function()
      for _ = 1, dead do cluster:add_worker {} end
      dead = 0
      local seen = {}
      local both = settles(function()
        seen = {}
        for address, worker in pairs(observer:scheduler_info().workers) do
          seen[#seen + 1] = address .. " " .. tostring(worker.status)
          if worker.status ~= "running" then return false end
        end
        return #seen == 2
      end, PATIENCE)
      assert.is_true(both, "workers: " .. table.concat(seen, ", "))
    end)

    local function addresses()
      local list = {}
      for address in pairs(observer:nthreads()) do list[#list + 1] = address end
      table.sort(list)
      return list
    end

    it("test_remove_worker: what was computed is computed again for the next gather", function()
      local futures = observer:map("operator.neg", { 1, 2, 3, 4, 5, 6 })
      observer:gather(futures)
      kill(holders(futures[1].key)[1])
      assert.same({ -1, -2, -3, -4, -5, -6 }, { table.unpack(observer:gather(futures, { timeout = PATIENCE })) })
    end)

    it("data that is computed again is waited for, also when the scheduler said nothing of it", function()
      local future, open = gate(observer, 3)
      observer:settle(PATIENCE)
      local says = "lambda key, dask_scheduler: dask_scheduler.report({'op': 'key-in-memory', 'key': key})"
      observer:run_on_scheduler(py.fn(says), future.key)
      assert.is_true(eventually(function() return future.status == "finished" end, SOON))
      within(SOON, raises, "timeout", "computed again", future.result, future, 1)
      assert.equal("pending", future.status)
      open()
      assert.equal(3, future:result(PATIENCE))
    end)

    it("test_receive_lost_key: a finished Future is pending again, and finished", function()
      local first, second = table.unpack(addresses())
      local name = new_name "gate"
      local open = function() observer.scheduler:call("event_set", { name = name }, PATIENCE) end
      open()
      local future = observer:with { workers = { first }, allow_other_workers = true }:submit(py.fn(GATE), name, 3)
      future:result(PATIENCE)
      assert.same({ first }, holders(future.key))
      observer.scheduler:call("event_clear", { name = name }, PATIENCE)
      kill(first)
      assert.is_true(eventually(function() return future.status == "pending" end, PATIENCE))
      open()
      assert.equal(3, future:result(PATIENCE))
      assert.same({ second }, holders(future.key))
    end)

    it("test_submit_after_failed_worker: what depends on lost data is computed all the same", function()
      local parts = observer:map("operator.neg", { 1, 2, 3, 4, 5, 6 })
      local total = observer:submit("sum", parts)
      assert.equal(-21, total:result(PATIENCE))
      kill(holders(parts[1].key)[1])
      assert.equal(-42, observer:submit("operator.add", total, observer:submit("sum", parts)):result(PATIENCE))
    end)

    it("test_broken_worker_during_computation: the result is right", function()
      local first = addresses()[1]
      local list = {}
      for i = 1, 40 do list[i] = i end
      local futures = observer:map(py.fn "lambda x: __import__('time').sleep(0.03) or x", list)
      local total = observer:submit("sum", futures)
      assert.is_true(eventually(function()
        for _, each in ipairs(futures) do
          if each:done() then return true end
        end
      end, PATIENCE))
      kill(first)
      assert.equal(820, total:result(PATIENCE))
    end)

    for _, direct in ipairs { false, true } do
      it("killed during a gather, direct=" .. tostring(direct) .. ": the values are right", function()
        local list = {}
        for i = 1, 30 do list[i] = i end
        local futures = observer:map(py.fn "lambda i: bytes([i]) * 1000000", list)
        saturn.wait(futures, { timeout = PATIENCE })
        local values
        local gathering = loop.spawn(function()
          values = observer:gather(futures, { direct = direct, timeout = PATIENCE })
        end)
        loop.sleep(0.01)
        kill(holders(futures[1].key)[1])
        gathering:join(PATIENCE)
        for i = 1, 30 do assert.is_true(values[i] == string.char(i):rep(1000000)) end
      end)
    end

    it("test_lose_scattered_data and test_gather_lost: cancelled, and everything says so", function()
      local first = addresses()[1]
      local data = observer:scatter(new_name "data", { workers = { first } })
      local computed = observer:submit("operator.neg", 1)
      computed:result(PATIENCE)
      kill(first)
      assert.is_true(eventually(function() return data.status == "cancelled" end, PATIENCE))
      raises("cancelled", nil, data.result, data, PATIENCE)
      raises("cancelled", nil, observer.gather, observer, { data, computed })
      raises("cancelled", nil, observer.submit, observer, "len", data)
      assert.same({ -1 }, { table.unpack(observer:gather({ data, computed }, { errors = "skip" })) })
    end)

    it("test_partially_lose_scattered_data: a copy elsewhere keeps it", function()
      local data
      assert.is_true(settles(function() -- a worker that came a moment ago may miss the copy
        data = observer:scatter(new_name "data", { broadcast = true })
        return #holders(data.key) == 2
      end))
      kill(addresses()[1])
      assert.truthy(data:result(PATIENCE):find "^data")
      assert.equal("finished", data.status)
    end)

    it("test_scatter_compute_lose: what depends on it is cancelled too", function()
      local first, second = table.unpack(addresses())
      local data = observer:scatter({ names, 2, 3 }, { workers = { first } })
      local waits, open = gate(observer, 1)
      local total = observer:with { workers = { second } }:submit("sum", data, waits)
      kill(first)
      assert.is_true(eventually(function() return data.status == "cancelled" and total.status ~= "pending" end,
        PATIENCE))
      assert.equal("cancelled", total.status)
      open()
    end)

    it("what is submitted on data that the scheduler lost is cancelled", function()
      local data = observer:scatter({ 1, 2, 3 })
      observer:run_on_scheduler(py.fn [[
def forget(key, dask_scheduler):
    for client in list(dask_scheduler.tasks[key].who_wants):
        dask_scheduler.client_releases_keys(keys=[key], client=client.client_key, stimulus_id="forget")
]], data.key)
      local total = observer:submit("sum", data)
      raises("cancelled", nil, total.result, total, PATIENCE)
      assert.equal("cancelled", total.status)
      assert.equal(6, observer:submit("sum", { 1, 2, 3 }):result(PATIENCE))
    end)

    it("a worker lost while the client is away: with resume the result is computed again", function()
      local client <close>, said = connect_again()
      local computed = client:submit("operator.neg", 1)
      computed:result(PATIENCE)
      local first = holders(computed.key)[1]
      local data = client:scatter(new_name "data", { workers = { first } })
      proxy:refuse()
      proxy:cut()
      assert.is_true(eventually(function() return said[1] == "connecting" end, SOON))
      kill(first)
      assert.is_true(is_state(data.key, nil))
      proxy:accept()
      assert.equal(-1, computed:result(PATIENCE))
      assert.is_true(eventually(function() return data.status == "lost" end, PATIENCE))
      raises("lost", "does not know", data.result, data, PATIENCE)
    end)
  end)

  describe("restart", function()
    it("test_multiple_clients_restart and test_scheduler_restart_exception_on_cancelled_futures", function()
      local client <close>, said = connect_again()
      local mine, theirs = client:submit("operator.add", 1, 2), observer:submit("operator.add", 1, 3)
      mine:result(PATIENCE)
      theirs:result(PATIENCE)
      observer:restart { wait_for_workers = false, timeout = PATIENCE }
      assert.is_true(eventually(function() return mine.status ~= "finished" and theirs.status ~= "finished" end))
      raises("cancelled", "restarted", mine.result, mine, PATIENCE)
      raises("cancelled", "restarted", theirs.result, theirs, PATIENCE)
      local worker = cluster:add_worker {}
      assert.equal(7, client:with { workers = { worker.address } }:submit("operator.add", 3, 4):result(PATIENCE))
      assert.same({}, said)
    end)
  end)

  -- The last: the cluster is another one after it.
  describe("scheduler death", function()
    it("test_reconnect: killed, and started anew at its address", function()
      local lost_said = {}
      local plain <close> = saturn.client(cluster.address, { timeout = PATIENCE,
        on_status = function(status) lost_said[#lost_said + 1] = status end })
      local keeping <close> = saturn.client(cluster.address, { timeout = PATIENCE, resume = true })
      local pending = gate(plain, 1)
      local held = keeping:submit("operator.add", 1, 2)
      local waits = gate(keeping, 1)
      held:result(PATIENCE)
      cluster:kill_scheduler()
      within(SOON, raises, "lost", "connection", pending.result, pending, PATIENCE)
      assert.same({ "lost" }, lost_said)
      within(SOON, raises, "connect", "refused", plain.reconnect, plain, 0.2)
      within(SOON, raises, "timeout", nil, waits.result, waits, 0.2)
      assert.equal("connecting", keeping.status)
      assert.equal("pending", waits.status)
      cluster:restart_scheduler()
      raises("lost", "does not know the task any more", waits.result, waits, PATIENCE)
      assert.equal("lost", held.status)
      assert.equal("connected", keeping.status)
      plain:reconnect(PATIENCE)
      cluster:add_worker {}
      assert.equal(4, plain:submit("operator.add", 1, 3):result(PATIENCE))
      assert.equal(5, keeping:submit("operator.add", 1, 4):result(PATIENCE))
    end)

    it("test_client_timeout: a client waits for a scheduler that is not there yet", function()
      cluster:kill_scheduler()
      raises("connect", "refused", saturn.client, cluster.address, { timeout = 0.3 })
      local client
      local connecting = loop.spawn(function() client = saturn.client(cluster.address, { timeout = PATIENCE }) end)
      loop.sleep(0.1)
      cluster:restart_scheduler()
      connecting:join(PATIENCE)
      assert.equal("Scheduler", client:scheduler_info().type)
      client:close()
    end)
  end)
end)
