-- Actors on a real cluster: through the scheduler and directly, among clients, and when a worker dies.
local dask = require "spec.support.dask"
local saturn = require "saturn"
local server = require "saturn.dask.server"
local support = require "spec.support"

local loop, py, raises = saturn.loop, saturn.py, support.raises

local COUNTER = py.fn [[
class Counter:
    limit = 100

    def __init__(self, n=0):
        if n < 0:
            raise ValueError("negative")
        self.n = n
        self.seen = []

    def add(self, by=1):
        self.n += by
        return self.n

    def append(self, value):
        self.seen.append(value)

    def fail(self, text):
        raise KeyError(text)

    def slow(self, seconds):
        import time
        time.sleep(seconds)
        return seconds

    async def wait(self):
        import asyncio
        while self.n == 0:
            await asyncio.sleep(0.01)
        return self.n

    def echo(self, *args, **kwargs):
        return [list(args), kwargs]

    def result_of(self, future):
        return type(future).__name__
]]

describe("actors", function()
  local cluster, client, direct

  setup(function()
    cluster = dask.start { workers = 2, nthreads = 1 }
    client = saturn.client(cluster.address, { timeout = 10 })
    direct = saturn.client(cluster.address, { timeout = 10, direct = true })
  end)
  teardown(function()
    if client then client:close() end
    if direct then direct:close() end
    if cluster then cluster:stop() end
  end)

  local function each_way(fn)
    return function()
      fn(client)
      fn(direct)
    end
  end

  it("test_client_actions: methods and attributes, through the scheduler and directly", each_way(function(c)
    local actor <close> = c:actor(COUNTER, 5)
    assert.equal(6, actor:call "add")
    assert.equal(16, actor:call("add", 10))
    assert.equal(17, actor:call("add", py.kw { by = 1 }))
    assert.equal(17, actor:get "n")
    assert.equal(100, actor:get("limit", 5))
    assert.is_nil(actor:call("append", 1))
    local echo = actor:call("echo", { 1, { 2 } }, "text", saturn.null, py.kw { k = { a = 1 } })
    assert.equal(2, echo[1][1][2][1])
    assert.equal("text", echo[1][2])
    assert.equal(saturn.null, echo[1][3])
    assert.equal(1, echo[2].k.a)
    assert.equal("Future", actor:call("result_of", c:submit("operator.add", 1, 1)))
    assert.truthy(tostring(actor):find "^<saturn.actor: Counter, key: Counter")
  end))

  it("test_client_actions_by_name: a class that the workers can import", function()
    local actor <close> = client:actor("collections.Counter", "abba")
    assert.equal(2, actor:call("get", "a"))
    local pairs_list = actor:call("most_common", 1)
    assert.equal(2, pairs_list[1][2])
  end)

  it("test_linear_access: calls run in the order in which they were started", each_way(function(c)
    local actor <close> = c:actor(COUNTER)
    local calls = {}
    for i = 1, 100 do calls[i] = actor:start("append", i) end
    local seen = actor:get("seen", 10)
    assert.equal(100, #seen)
    for i = 1, 100 do assert.equal(i, seen[i]) end
    for i = 1, 100 do
      assert.is_true(calls[i]:done())
      assert.is_nil(calls[i]:result(0))
    end
    assert.equal("<saturn.actor_call: append, finished>", tostring(calls[1]))
  end))

  it("without order, a call may wait on the worker for what a later one does", function()
    local actor <close> = client:actor(COUNTER)
    actor.ordered = false
    local waiting = actor:start "wait"
    assert.equal(7, actor:call("add", 7))
    assert.equal(7, waiting:result(5))
  end)

  it("test_exceptions_create: what the constructor raises, waiting and the first call raise", function()
    local actor <close> = client:actor(COUNTER, -1)
    local err = raises("task", "negative", actor.wait, actor, 10)
    assert.equal("ValueError", err.type)
    err = raises("task", "negative", actor.call, actor, "add")
    assert.equal("ValueError", err.type)
    raises("task", "negative", actor.get, actor, "n", 5)
  end)

  it("test_exceptions_method: a call raises what the method raises, and the next one works", each_way(function(c)
    local actor <close> = c:actor(COUNTER)
    local err = raises("task", "boom", actor.call, actor, "fail", "boom")
    assert.equal("KeyError", err.type)
    assert.truthy(err.traceback:find "in fail")
    err = raises("task", "nope", actor.call, actor, "nope")
    assert.equal("AttributeError", err.type)
    err = raises("task", "nope", actor.get, actor, "nope", 5)
    assert.equal("AttributeError", err.type)
    raises("task", "unexpected keyword", actor.call, actor, "add", py.kw { what = 1 })
    assert.equal(1, actor:call "add")
  end))

  it("test_timeout: the call goes on, and its result can be asked for again", function()
    local actor <close> = client:actor(COUNTER)
    actor:wait(10)
    local call = actor:start("slow", 0.5)
    local start = loop.now()
    raises("timeout", "slow of <saturn.actor", call.result, call, 0.1)
    assert.is_true(loop.now() - start < 0.45)
    assert.is_false(call:done())
    actor.timeout = 0.01
    raises("timeout", actor.call, actor, "add")
    actor.timeout = nil
    assert.equal(0.5, call:result(5))
    assert.equal(2, actor:call "add") -- the one that was given up ran too
  end)

  it("test_gc: closing an actor deletes the object on its worker", function()
    local actor = client:actor(COUNTER)
    actor:wait(10)
    local key = actor.key
    assert.equal(1, #client.scheduler:call("who_has", { keys = { key } }, 5)[key])
    actor:close()
    actor:close()
    local stop = loop.now() + 5
    local holders
    repeat
      holders = client.scheduler:call("who_has", { keys = { key } }, 5)[key]
    until #holders == 0 or loop.now() > stop
    assert.equal(0, #holders)
    raises("closed", "was closed", actor.call, actor, "add")
    raises("closed", actor.wait, actor, 1)
    assert.truthy(tostring(actor):find "closed")
  end)

  it("test_future_dependencies: a task uses the actor, as does the constructor a Future", function()
    local actor <close> = client:actor(COUNTER, client:submit("operator.add", 20, 20))
    assert.equal(41, actor:call "add")
    local task = client:submit(py.fn [[
def use(counter):
    return counter.add(1).result()
]], actor)
    assert.equal(42, task:result(10))
    assert.equal(42, actor:get "n")
  end)

  it("test_workers: an actor lives where client:with says", function()
    for _, worker in ipairs(cluster.workers) do
      local actor <close> = client:with { workers = worker.address }:actor(COUNTER)
      assert.equal(1, actor:call "add")
      assert.equal(worker.address, actor.address)
    end
  end)

  it("a worker that cannot be reached from here is called through the scheduler", function()
    local far <close> = saturn.client(cluster.address, { timeout = 10, direct = true })
    for _, worker in ipairs(cluster.workers) do
      far._workers[worker.address] = server.new { address = "tcp://127.0.0.1:1", timeout = 1 }
    end
    local actor <close> = far:actor(COUNTER)
    assert.equal(1, actor:call "add")
    assert.equal(2, actor:call "add")
  end)

  it("coroutines call at the same time", function()
    local actor <close> = client:actor(COUNTER)
    local sum = 0
    local function work()
      for _ = 1, 10 do
        actor:call "add"
        sum = sum + 1
      end
    end
    loop.run(work, work, work)
    assert.equal(30, sum)
    assert.equal(30, actor:get "n")
  end)

  it("says at the caller's line what is wrong", function()
    local actor <close> = client:actor(COUNTER)
    local ok, err = pcall(function() actor:call(5) end)
    assert.is_false(ok)
    assert.truthy(err:find "^spec/e2e/actor_spec.lua:%d+: the first argument is the name of a method", err)
    ok, err = pcall(function() client:actor(function() end) end)
    assert.is_false(ok)
    assert.truthy(err:find "^spec/e2e/actor_spec.lua:%d+: a Lua function cannot run", err)
    assert.has_error(function() actor:get("n", "soon") end)
    assert.has_error(function() actor:get() end)
    assert.equal(0, actor:get "n")
  end)

  it("gather: calls give their values, and other objects stay what they are", function()
    local actor <close> = client:actor(COUNTER)
    local lock = client:lock "gathered"
    local deep = { deep = actor:start("add", 2) }
    local got = client:gather({ actor:start "add", client:submit("abs", -1), deep, actor, lock, client },
      { timeout = 10 })
    assert.same({ 3, 1, 2 }, { got[1], got[2], got[3].deep })
    assert.is_true(rawequal(actor, got[4]) and rawequal(lock, got[5]) and rawequal(client, got[6]))
    assert.same({ 7 }, client:gather({ actor:start("fail", "no"), client:submit("abs", -7) }, { errors = "skip" }))
    assert.equal("KeyError", raises("task", client.gather, client, { actor:start("fail", "no") }).type)
    raises("timeout", client.gather, client, actor:start("slow", 1), { timeout = 0.1 })
  end)

  it("an object of this library is refused where values travel, and the client lives on", function()
    local actor <close> = client:actor(COUNTER)
    local x = client:submit("abs", -1)
    raises("value", "a saturn.actor cannot be sent", actor.start, actor, "append", actor)
    raises("value", "a saturn.actor cannot be sent", client.publish, client, "objects", { actor, x })
    raises("value", "a saturn.client cannot be sent", client.publish, client, "objects", { { client }, x })
    setmetatable({ session = client.session, scheduler = client.scheduler }, getmetatable(client)) -- a copy of it
    collectgarbage()
    collectgarbage()
    assert.equal("connected", client.status)
    assert.equal(1, actor:call "add")
  end)

  it("test_failed_worker: the death of its worker ends calls at once, with a clear error", each_way(function(c)
    local spare = cluster:add_worker {}
    local index = #cluster.workers
    local actor <close> = c:with { workers = spare.address }:actor(COUNTER)
    assert.equal(1, actor:call "add")
    local under_way, waiting = actor:start("slow", 30), actor:start "add"
    assert.is_false(under_way:done())
    cluster:kill_worker(index)
    local start = loop.now()
    local err = raises("lost", "is gone: its worker", under_way.result, under_way, 15)
    assert.equal(actor.key, err.key)
    raises("lost", "client:actor", waiting.result, waiting, 15)
    raises("lost", actor.call, actor, "add")
    raises("lost", actor.wait, actor, 1)
    assert.is_true(loop.now() - start < 10)
    local new <close> = c:actor(COUNTER)
    assert.equal(1, new:call "add")
  end))
end)
