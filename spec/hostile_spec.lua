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
      local ok, err = pcall(client.gather, client, { good, bad })
      assert.is_false(ok)
      assert.is_true(errors.is_error(err), tostring(err))
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
