-- The nil, err face, on a scheduler that is fake (spec/support/hostile.py), so without Dask's workers.
local hostile = require "spec.support.hostile"
local raising = require "saturn"
local saturn = require "saturn.safe"
local support = require "spec.support"

local py = saturn.py
local misuse = support.misuse
local PATIENCE = 10

local function failed(kind, pattern, ...)
  assert.is_nil((...))
  return support.assert_kind(select(2, ...), kind, pattern)
end

describe("saturn.safe", function()
  local peers, client

  setup(function()
    peers = hostile.start()
    client = assert(saturn.client(peers:address "fake", { timeout = PATIENCE }))
  end)
  teardown(function()
    if client then client:close() end
    if peers then peers:stop() end
  end)

  local function task(key, ...) return client:with { key = key }:submit("operator.add", ...) end

  it("has what saturn has", function()
    assert.equal(raising._VERSION, saturn._VERSION)
    assert.equal(raising.null, saturn.null)
    assert.equal(raising.py, saturn.py)
    assert.equal(raising.error, saturn.error)
    assert.is_nil(saturn.no_such_thing)
    assert.equal(saturn.client, saturn.client)
    assert.equal(saturn.loop, saturn.loop)
    for _, name in ipairs { "connect", "client", "wait", "as_completed" } do
      assert.equal("function", type(saturn[name]))
    end
  end)

  it("a client that cannot connect: nil and the error", function()
    failed("connect", "refused the connection", saturn.client("tcp://127.0.0.1:1", { timeout = 0.2 }))
    failed("connect", "expected tcp://host:port", saturn.client "127.0.0.1")
    failed("limit", "limits.frame", saturn.client(peers:address "frame_of_2_to_40", { timeout = PATIENCE }))
    failed("timeout", nil, saturn.client(peers:address "silent", { timeout = 0.2 }))
    failed("closed", nil, saturn.client(peers:address "closes", { timeout = PATIENCE }))
    local nothing <close> = saturn.client("tcp://127.0.0.1:1", { timeout = 0.1 })
    assert.is_nil(nothing)
  end)

  it("results and errors of Futures", function()
    local good, bad, erred = task("good", 1, 2), task("pickle-cut", 1, 2), task("erred-good", 1, 2)
    assert.equal(3, good:result(PATIENCE))
    assert.equal(1, select("#", good:result(PATIENCE)))
    failed("protocol", "broken pickle", bad:result(PATIENCE))
    local err = failed("task", "ValueError: no", erred:result(PATIENCE))
    assert.equal("ValueError", err.type)
    assert.equal("ValueError", erred:exception(PATIENCE).type) -- asked for, so it is the result
    assert.is_nil(good:exception(PATIENCE))
    local pending <close> = task("pending", 1)
    failed("timeout", "the task pending took longer", pending:result(0.02))
    assert.equal("pending", pending.status)
    assert.is_false(pending:done())
    assert.equal("good", good.key)
  end)

  it("Futures go in and out wherever they are", function()
    local good = task("good", 1, 2)
    assert.truthy(task("good", good, { good, { x = good } }, py.tuple { good }, py.kw { k = good, l = { good } }))
    assert.same({ 3, { a = 3 } }, client:gather { good, { a = good } })
    assert.equal("text", client:gather "text")
    failed("task", "ValueError", client:gather { good, task("erred-good", 1) })
    assert.same({ 3 }, client:gather({ task("erred-good", 1), good }, { errors = "skip" }))
    local keyed = assert(client:with { key = { "good", "large" } }:map("operator.neg", { 1, 2 }))
    assert.equal(2, #keyed)
    assert.equal("saturn.future", getmetatable(keyed[1]).__name)
    assert.equal(3, keyed[1]:result(PATIENCE))
  end)

  it("objects are one and the same each time", function()
    local good = task("good", 1, 2)
    assert.is_true(good.client == client)
    assert.is_true(rawequal(good.client, client))
    assert.is_true(good == task("good", 1, 2))
    assert.is_false(good == task("large", 1, 2))
    assert.is_true(rawequal(good.result, good.result))
    assert.equal("<Future: finished, key: good>", (function()
      good:result(PATIENCE)
      return tostring(good)
    end)())
    assert.equal("saturn.client", getmetatable(client).__name)
    assert.truthy(tostring(client):find "^<saturn.client: tcp://")
  end)

  it("a field that has to be asked for is absent when that fails", function()
    local other = saturn.client(peers:address "fake", { timeout = PATIENCE })
    assert.equal(peers:address "fake", other.address)
    other:close()
    assert.is_nil(other.dashboard_link)
  end)

  it("wait: two lists, or nil and the error", function()
    local good, pending <close> = task("good", 1), task("pending", 1)
    local done, not_done = saturn.wait({ good, pending }, { return_when = "first", timeout = PATIENCE })
    assert.is_true(done[1] == good)
    assert.is_true(not_done[1] == pending)
    assert.equal("function", type(done[1].result))
    assert.equal(3, done[1]:result(PATIENCE))
    failed("timeout", "waiting for all Futures", saturn.wait({ good, pending }, { timeout = 0.02 }))
  end)

  it("as_completed: in a loop", function()
    local seen, n = {}, 0
    local iterator = saturn.as_completed({ task("good", 1), task("large", 1) }, { with_results = true,
      timeout = PATIENCE })
    for future, value in iterator do
      n = n + 1
      seen[future.key] = value
    end
    assert.equal(2, n)
    assert.equal(3, seen.good)
    assert.equal(5000, #seen.large)
    assert.is_nil(iterator.err)
    iterator:add(task("good", 1))
    assert.equal(1, iterator:count())
    assert.equal("good", iterator:next().key)
    local batches = 0
    for batch in saturn.as_completed({ task("good", 1) }, { timeout = PATIENCE }):batches() do
      batches = batches + #batch
      assert.equal(3, batch[1]:result(PATIENCE))
    end
    assert.equal(1, batches)
  end)

  it("as_completed: an error ends the loop and can be looked at; the loop can go on", function()
    local good, bad = task("good", 1), task("erred-good", 1)
    local iterator = saturn.as_completed({ bad, good }, { with_results = true, timeout = PATIENCE })
    local n, failures = 0, 0
    repeat
      for _ in iterator do n = n + 1 end
      if iterator.err then
        failures = failures + 1
        support.assert_kind(iterator.err, "task", "ValueError")
      end
    until not iterator.err
    assert.same({ 1, 1 }, { n, failures })
    local pending <close> = task("pending", 1)
    local batches = saturn.as_completed({ pending }, { timeout = 0.02 }):batches()
    for _ in batches do error "nothing is done" end
    support.assert_kind(batches.err, "timeout", "the next Future")
    local late = saturn.as_completed({ pending }, { timeout = 0.02 })
    for _ in late do error "not reached" end
    support.assert_kind(late.err, "timeout")
    failed("timeout", nil, late:next())
  end)

  it("what is called back sees the same objects", function()
    local good, told = task("good", 1, 2), nil
    good:on_done(function(future) told = { future == good, future:result(PATIENCE) } end)
    assert.equal(3, good:result(PATIENCE))
    saturn.loop.poll(function() return told end, PATIENCE)
    assert.same({ true, 3 }, told)
    good:on_done(function(future) told = future end)
    assert.is_true(rawequal(good, told))
  end)

  it("coroutines of the loop", function()
    local good, result = task("good", 1), nil
    saturn.loop.run(function() result = { good:result(PATIENCE) } end, function()
      failed("task", "ValueError", task("erred-good", 1):result(PATIENCE))
    end)
    assert.same({ 3 }, result)
    local handle = saturn.loop.spawn(function(future) return future, 5 end, good)
    local back, five = handle:join(PATIENCE)
    assert.is_true(rawequal(back, good))
    assert.equal(5, five)
    failed("timeout", "ever took longer", saturn.loop.wait(function() end, 0.01, "ever"))
    handle = saturn.loop.spawn(function() raising.error.raise("value", "mine") end)
    failed("value", "mine", handle:join(PATIENCE))
    handle = saturn.loop.spawn(function() error("text", 0) end)
    local ok, err = pcall(handle.join, handle)
    assert.is_false(ok)
    assert.truthy(tostring(err):find "text$")
  end)

  it("misuse is raised at the caller's line", function()
    misuse("a Lua function cannot run on a Dask worker", function() client:submit(print) end)
    misuse("unknown option 'timeuot'", function() saturn.client(peers:address "fake", { timeuot = 1 }) end)
    misuse("saturn.client needs a cluster", function() saturn.client(5) end)
    misuse("unknown option 'worker'", function() client:with { worker = 1 } end)
    misuse("expected a list of Futures", function() saturn.wait(5) end)
    misuse("option 'errors' must be", function() client:gather({}, { errors = "x" }) end)
    misuse("wait_for_workers needs", function() client:wait_for_workers(0) end)
  end)

  it("values are values", function()
    local good = task("good", 1)
    failed("value", "cannot be an argument", (function()
      local released = task("large", 1)
      released:release()
      return client:submit("abs", released)
    end)())
    assert.truthy(saturn.array { 1, 2, 3 })
    assert.equal("userdata", type(saturn.array { 1, 2, 3 }))
    failed("value", nil, saturn.array.load_npy "/nowhere/at/all.npy")
    assert.truthy(good)
  end)

  it("delayed values", function()
    local add = saturn.delayed "operator.add"
    local total = add(1, add(2, 3)) + 4
    assert.equal("saturn.delayed", getmetatable(total).__name)
    assert.truthy(tostring(total):find "^<saturn.delayed")
    assert.equal("string", type(total.key))
    failed("value", "cannot be written", total:visualize "/nowhere/at/all.dot")
  end)

  it("both faces at once do not know of each other", function()
    local plain <close> = raising.client(peers:address "fake", { timeout = PATIENCE })
    local future = plain:with { key = "erred-good" }:submit("abs", 1)
    support.raises("task", future.result, future, PATIENCE)
    failed("task", nil, task("erred-good", 1):result(PATIENCE))
    assert.equal("userdata", type(future))
  end)

  it("a proxy keeps its object, and lets it go when it is collected", function()
    local inner = setmetatable({}, { __mode = "v" })
    do
      local future = task("large", 1)
      local key = future.key
      future:on_done(function() end)
      collectgarbage()
      assert.equal(key, future.key)
      inner[1] = future
    end
    collectgarbage()
    collectgarbage()
    assert.is_nil(inner[1])
  end)

  it("closes at the end of a scope, and twice; afterwards everything says so", function()
    local kept
    do
      local other <close> = assert(saturn.client(peers:address "fake", { timeout = PATIENCE }))
      kept = other
    end
    assert.is_true(kept.closed)
    kept:close()
    failed("closed", "the client is closed", kept:submit("abs", 1))
    failed("closed", nil, kept:gather {})
    failed("closed", nil, kept:scheduler_info())
  end)
end)
