-- Peers that break the protocol: each gets an error object of the right kind, in time, and nothing else breaks.
local errors = require "saturn.error"
local hostile = require "spec.support.hostile"
local loop = require "saturn.loop"
local saturn = require "saturn"
local support = require "spec.support"

local raises = support.raises

local PATIENCE = 10

describe("a peer that breaks the protocol", function()
  local peers

  setup(function() peers = hostile.start() end)
  teardown(function() if peers then peers:stop() end end)

  local function connect(name, options)
    options = options or {}
    options.timeout = options.timeout or PATIENCE
    return saturn.client(peers:address(name), options)
  end

  -- The fake scheduler behaves until a task is named after something else.
  local function task(client, key)
    return client:with { key = key }:submit("operator.add", 1, 2)
  end

  describe("while connecting:", function()
    local cases = {
      { "closes", "closed", "handshake: is it a Dask scheduler" },
      { "http", "protocol", "does not speak Dask's protocol" },
      { "noise", "protocol", "does not speak Dask's protocol" },
      { "hello_is_no_map", "protocol", "does not speak Dask's protocol" },
      { "hello_counts_2_to_60", "protocol", "does not speak Dask's protocol" },
      { "closes_after_hello", "closed", nil },
      { "counts_2_to_60", "limit", "limits.message" },
      { "counts_none", "protocol", "without frames" },
      { "frame_of_2_to_40", "limit", "limits.frame" },
      { "lengths_overflow", "limit", "limits.frame" },
      { "many_frames", "limit", "limits.frame" },
      { "broken_msgpack", "protocol", "reserved byte" },
      { "cut_msgpack", "protocol", nil },
      { "empty_msgpack", "protocol", nil },
      { "deep_msgpack", "limit", "limits.depth" },
      { "wide_msgpack", "protocol", nil },
      { "points_to_no_frame", "protocol", "frame that it does not have" },
      { "replies_nil", "protocol", "supports 2022.12 and newer" },
      { "replies_number", "protocol", "supports 2022.12 and newer" },
      { "replies_text", "protocol", "supports 2022.12 and newer" },
      { "replies_list", "protocol", "supports 2022.12 and newer" },
      { "replies_empty", "protocol", "supports 2022.12 and newer" },
      { "replies_packages_text", "protocol", "supports 2022.12 and newer" },
      { "replies_packages_number", "protocol", "supports 2022.12 and newer" },
      { "unknown_version", "protocol", "'unknown'.*supports 2022.12 and newer" },
      { "old", "protocol", "distributed 2021.10.0, which is too old: saturn supports 2022.12 and newer" },
      { "replies_error", "task", "versions: KeyError: versions" },
      { "replies_bare_error", "task", "versions" },
      { "replies_odd_error", "task", "versions" },
      { "cut_in_the_middle", "closed", "middle of a message" },
      { "stream_refuses", "connect", "refused the client: not you" },
      { "stream_number", "protocol", nil },
      { "stream_of_numbers", "protocol", "not a map" },
      { "stream_broken", "protocol", nil },
      { "stream_cut", "protocol", nil },
      { "stream_empty", "protocol", nil },
      { "stream_counts_2_to_60", "limit", "limits.message" },
    }
    for _, case in ipairs(cases) do
      it(case[1], function()
        local started = loop.now()
        local timeout = case[2] == "connect" and 0.3 or PATIENCE -- which is tried again
        local err = raises(case[2], case[3], connect, case[1], { timeout = timeout })
        assert.is_true(#err.message > 10)
        assert.is_true(loop.now() - started < 3, "it took " .. loop.now() - started .. " seconds")
      end)
    end

    for _, name in ipairs { "silent", "mute_after_hello", "stream_silent" } do
      it(name .. " is given up in time", function()
        local started = loop.now()
        local err = raises("timeout", connect, name, { timeout = 0.3 })
        assert.is_true(#err.message > 10)
        assert.is_true(loop.now() - started < 3)
      end)
    end
  end)

  describe("nobody is there:", function()
    it("a connection refused is tried again until the timeout, and then told", function()
      local started = loop.now()
      raises("connect", "refused the connection: is a scheduler running there%?", saturn.client,
        "tcp://127.0.0.1:1", { timeout = 0.3 })
      local took = loop.now() - started
      assert.is_true(took >= 0.25 and took < 3, took)
    end)

    it("a host that has no address", function()
      raises("connect", "host name cannot be resolved", saturn.client, "tcp://no-such-host.invalid:8786",
        { timeout = 0.3 })
    end)

    it("a host that does not answer", function()
      local started = loop.now()
      local ok, err = pcall(saturn.client, "tcp://192.0.2.1:8786", { timeout = 0.3 })
      assert.is_false(ok)
      assert.is_true(err.kind == "timeout" or err.kind == "connect", tostring(err))
      assert.is_true(loop.now() - started < 3)
    end)
  end)

  describe("results:", function()
    local client

    setup(function() client = connect "fake" end)
    teardown(function() client:close() end)

    local KINDS = { protocol = true, limit = true, value = true, lost = true, task = true, closed = true }
    local FINE = { good = true, large = true, plain = true, ["pickle-cycle"] = true }

    it("each bad one is an error object of its own, and the next is fine", function()
      for _, key in ipairs(peers.keys.values) do
        local future <close> = task(client, key)
        local ok, value = pcall(future.result, future, PATIENCE)
        if not ok then
          assert(errors.is_error(value), ("%s: %s"):format(key, tostring(value)))
          assert(KINDS[value.kind] and #value.message > 5, ("%s: %s"):format(key, tostring(value)))
        elseif not FINE[key] then
          assert(key:find "^pickle%-" or key:find "^collection%-" or key:find "^negative" or key:find "^plain",
            ("%s was read as %s"):format(key, tostring(value)))
        end
        local good <close> = task(client, "good")
        assert.equal(3, good:result(PATIENCE))
      end
    end)

    it("larger than the user's limit is told so", function()
      local small <close> = connect("fake", { limits = { frame = 1000 } })
      local future <close> = task(small, "large")
      raises("limit", "limits.frame %(1000%)", future.result, future, PATIENCE)
      local good <close> = task(small, "good")
      assert.equal(3, good:result(PATIENCE))
      local narrow <close> = connect("fake", { limits = { depth = 3 } })
      local deep <close> = task(narrow, "msgpack-deep")
      raises("limit", "3 %(limits.depth%)", deep.result, deep, PATIENCE)
    end)

    it("says what is wrong with the ones that users may meet", function()
      local texts = {
        ["error-serializer"] = { "value", "cannot pickle 'generator' object" },
        ["unknown-serializer"] = { "value", "serialized with 'arrow'" },
        ["unknown-type"] = { "value", "'cupy.ndarray'.*convert it on the worker" },
        ["unknown-compression"] = { "protocol", "'blosc'.*distributed.comm.compression" },
        ["pickle-deep"] = { "limit", "limits.depth" },
        ["collection-deep"] = { "limit", "limits.depth" },
        ["msgpack-deep"] = { "limit", "limits.depth" },
      }
      for key, want in pairs(texts) do
        local future <close> = task(client, key)
        raises(want[1], want[2], future.result, future, PATIENCE)
      end
    end)

    it("a reply that is no answer is told, at the latest after the timeout", function()
      for _, key in ipairs(peers.keys.replies) do
        local future <close> = task(client, key)
        local ok, err = pcall(future.result, future, 0.5)
        assert.is_false(ok)
        assert(errors.is_error(err), ("%s: %s"):format(key, tostring(err)))
        local good <close> = task(client, "good")
        assert.equal(3, good:result(PATIENCE))
      end
      local cut <close> = task(client, "gather-cut")
      raises("closed", cut.result, cut, PATIENCE)
      local never <close> = task(client, "gather-never")
      raises("timeout", never.result, never, 0.2)
      local good <close> = task(client, "good")
      assert.equal(3, good:result(PATIENCE))
    end)

    it("bad ones among good ones do not spoil the good", function()
      local good, bad = task(client, "good"), task(client, "pickle-cut")
      local ok, err = pcall(client.gather, client, { good, bad }, { timeout = PATIENCE })
      assert.is_false(ok)
      assert.is_true(errors.is_error(err), tostring(err))
      assert.not_equal("timeout", err.kind)
      assert.equal(3, good:result(PATIENCE))
    end)
  end)

  it("failures: each is a task error, however broken what describes it", function()
    local client <close> = connect "fake"
    for _, key in ipairs(peers.keys.errors) do
      local future <close> = task(client, key)
      local err = future:exception(PATIENCE)
      assert(errors.is_error(err) and err.kind == "task", ("%s: %s"):format(key, tostring(err)))
      assert.equal(key, err.key)
      assert.is_true(#tostring(err) > 5)
      assert.equal("string", type(err.message))
      raises("task", future.result, future, PATIENCE)
      local traceback = future:traceback(PATIENCE)
      assert.is_true(traceback == nil or type(traceback) == "string")
    end
    local good <close> = task(client, "erred-good")
    local err = good:exception(PATIENCE)
    assert.equal("ValueError", err.type)
    assert.equal("ValueError: no", err.message)
  end)

  it("odd messages of the stream are passed over", function()
    local client <close> = connect "fake"
    for _, key in ipairs(peers.keys.odd) do
      local future <close> = task(client, key)
      assert.equal(3, future:result(PATIENCE))
      assert.truthy(tostring(future))
    end
  end)

  describe("a stream that breaks ends its Futures at once:", function()
    local ways = { "stream-cut", "stream-frame", "stream-close", "stream-broken", "stream-number", "stream-count" }
    for _, key in ipairs(ways) do
      it(key, function()
        local client <close> = connect "fake"
        local other <close> = connect "fake"
        local pending, finished = task(client, "pending"), task(client, "good")
        assert.equal(3, finished:result(PATIENCE))
        local told
        pending:on_done(function(future) told = future.status end)
        local completed = saturn.as_completed { pending }
        local started = loop.now()
        local bad = task(client, key)
        local err = raises("lost", nil, pending.result, pending, PATIENCE)
        assert.is_true(#err.message > 20)
        assert.is_true(loop.now() - started < 3)
        raises("lost", finished.result, finished, PATIENCE)
        raises("lost", bad.result, bad, PATIENCE)
        assert.equal("lost", told)
        assert.equal(pending, completed:next())
        local ok, refused = pcall(client.submit, client, "operator.add", 1, 2)
        assert.is_false(ok)
        assert.is_true(errors.is_error(refused), tostring(refused))
        local fine <close> = task(other, "good")
        assert.equal(3, fine:result(PATIENCE))
        client:close()
        client:close()
      end)
    end
  end)

  describe("answers that are no answers to the request", function()
    local WAIT = 0.05
    local null = saturn.null
    local answers = {
      null, 5, "text", true, 1.5, {}, { 5 }, { { 5 } }, { { { 5 } } }, { a = 5 }, { a = "x" }, { a = { 5 } },
      { a = {} }, { a = { b = 5 } }, { workers = 5 }, { workers = { a = 5 } }, { workers = { a = {} } },
      { packages = 5 },
      { total_threads = "x", workers = {}, services = { dashboard = "x" } }, { status = "OK" },
      { status = "OK", result = 5 }, { keys = 5 }, { data = 5 }, { status = "error", exception = 5 },
    }
    local dir = support.tmpdir()
    local calls = {
      variable = function(c)
        c:variable "x":set(1, WAIT)
        return c:variable "x":get(WAIT)
      end,
      queue = function(c)
        c:queue "x":put(1, WAIT)
        return c:queue "x":get(WAIT)
      end,
      ["a queue's batch"] = function(c) return c:queue "x":get_many(true) end,
      event = function(c) return c:event "x":wait(WAIT), c:event "x":is_set() end,
      lock = function(c)
        local lock = c:lock "x"
        if lock:acquire(WAIT) then lock:release() end
      end,
      locked = function(c) return c:lock "x":locked() end,
      publish = function(c) return c:publish("x", 1) end,
      datasets = function(c) return c:datasets() end,
      dataset = function(c) return c:dataset "x" end,
      unpublish = function(c) return c:unpublish "x" end,
      metadata = function(c)
        c:set_metadata("a", 1)
        return c:get_metadata { "a", "b" }
      end,
      events = function(c) return c:events "a" end,
      run = function(c) return c:run "os.getpid" end,
      run_on_scheduler = function(c) return c:run_on_scheduler "os.getpid" end,
      upload_file = function(c) return c:upload_file "README.md" end,
      register_plugin = function(c) return c:register_plugin(saturn.plugins.PipInstall { packages = { "x" } }) end,
      unregister_plugin = function(c) return c:unregister_plugin "x" end,
      restart = function(c) return c:restart { timeout = WAIT } end,
      restart_workers = function(c) return c:restart_workers({ "tcp://a:1" }, { timeout = WAIT }) end,
      retire_workers = function(c) return c:retire_workers { "tcp://a:1" } end,
      rebalance = function(c) return c:rebalance(nil, { timeout = WAIT }) end,
      amm = function(c) return c:amm():running(WAIT) end,
      nthreads = function(c) return c:nthreads "w" end,
      who_has = function(c) return c:who_has "a" end,
      has_what = function(c) return c:has_what() end,
      processing = function(c) return c:processing() end,
      nbytes = function(c) return c:nbytes "a" end,
      call_stack = function(c) return c:call_stack() end,
      scheduler_logs = function(c) return c:scheduler_logs(3) end,
      worker_logs = function(c) return c:worker_logs(3) end,
      task_stream = function(c) return c:task_stream() end,
      profile = function(c) return c:profile() end,
      story = function(c) return c:story "a" end,
      performance_report = function(c) c:performance_report(dir.path .. "/report.html"):close() end,
      dump_cluster_state = function(c) return c:dump_cluster_state(dir.path .. "/dump") end,
      write_scheduler_file = function(c) return c:write_scheduler_file(dir.path .. "/scheduler.json") end,
      versions = function(c) return c:versions() end,
      scatter = function(c) return c:scatter({ 1 }, { timeout = WAIT }) end,
      broadcast = function(c) return c:scatter({ 1 }, { broadcast = true, timeout = WAIT }) end,
      retry = function(c) return c:retry { task(c, "erred-good") } end,
      held = function(c) return c:held "a" end,
      scheduler_info = function(c) return c:scheduler_info(), tostring(c) end,
      dashboard_link = function(c) return c.dashboard_link end,
      wait_for_workers = function(c) return c:wait_for_workers(1, WAIT) end,
      gather = function(c) return task(c, "good"):result(WAIT) end,
      direct = function(c) return c:gather({ task(c, "good") }, { direct = true, timeout = WAIT }) end,
    }

    local control
    local function answer_with(args) control.scheduler:call("answer-with", args, PATIENCE) end

    setup(function() control = connect "fake" end)
    after_each(function() answer_with {} end)
    teardown(function()
      control:close()
      dir:remove()
    end)

    for name, call in pairs(calls) do
      it(name, function()
        local client <close> = connect "fake"
        for i, answer in ipairs(answers) do
          answer_with { value = answer }
          local ok, err = pcall(call, client)
          assert(ok or errors.is_error(err), ("answer %d: %s"):format(i, tostring(err)))
        end
        answer_with {}
      end)
    end
  end)

  it("a thousand times, without a trace", function()
    collectgarbage()
    local function once(name)
      pcall(connect, name, { timeout = 1 })
      local client <close> = connect "fake"
      local future = task(client, "pickle-cut")
      pcall(future.result, future, 1)
    end
    for _ = 1, 3 do once "broken_msgpack" end
    collectgarbage()
    local function descriptors()
      local count = 0
      for _ in io.popen("ls /proc/self/fd 2>/dev/null || ls /dev/fd"):lines() do count = count + 1 end
      return count
    end
    local before = descriptors()
    for _ = 1, 30 do once "broken_msgpack" end
    collectgarbage()
    assert.is_true(descriptors() <= before + 2)
  end)
end)
