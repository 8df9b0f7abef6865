-- What users give that is no good, on a real scheduler of the release in $DASK: each is an error of the right kind
-- whose message says what to do, and everything else stays usable.
local dask = require "spec.support.dask"
local errors = require "saturn.error"
local loop = require "saturn.loop"
local saturn = require "saturn"
local support = require "spec.support"

local py = saturn.py
local misuse, raises = support.misuse, support.raises

local PATIENCE = 30

describe("bad input", function()
  local cluster, client

  setup(function()
    cluster = dask.start { workers = 1, nthreads = 1 }
    client = saturn.client(cluster.address, { timeout = PATIENCE })
  end)
  teardown(function()
    if client then client:close() end
    if cluster then cluster:stop() end
  end)

  -- The client still does what it did.
  after_each(function()
    if client and not client.closed then assert.equal(3, client:submit("operator.add", 1, 2):result(PATIENCE)) end
  end)

  describe("functions:", function()
    it("a Lua function", function()
      misuse("a Lua function cannot run on a Dask worker.*saturn.py.fn", function()
        client:submit(function(x) return x + 1 end, 1)
      end)
      misuse("a Lua function cannot run on a Dask worker", function() client:map(print, { 1, 2 }) end)
    end)

    it("a module that is not there", function()
      local future = client:submit("no_such_module.function", 1)
      local err = raises("task", nil, future.result, future, PATIENCE)
      assert.truthy(tostring(err):find("ModuleNotFoundError: No module named 'no_such_module'", 1, true), tostring(err))
      assert.equal("error", future.status)
    end)

    it("a name that its module has not", function()
      local future = client:submit("operator.no_such_function", 1)
      local err = raises("task", nil, future.result, future, PATIENCE)
      assert.truthy(tostring(err):find("no_such_function", 1, true), tostring(err))
    end)

    it("what cannot be called", function()
      local future = client:submit("math.pi", 1)
      if client.release >= 20230400 and client.release < 20241200 then
        -- these take a tuple for a call only when its first element can be called, else for a value
        assert.equal(1, future:result(PATIENCE)[2])
        return
      end
      local err = raises("task", nil, future.result, future, PATIENCE)
      assert.truthy(tostring(err):find "not callable", tostring(err))
    end)

    it("arguments that do not fit", function()
      local future = client:submit("operator.add", 1)
      assert.equal("TypeError", raises("task", "2 arguments", future.result, future, PATIENCE).type)
      future = client:submit("sorted", { 1 }, py.kw { no_such_option = 1 })
      assert.equal("TypeError", raises("task", "no_such_option", future.result, future, PATIENCE).type)
    end)

    it("source with a syntax error", function()
      local future = client:submit(py.fn "def f(x):\n    return x +\n", 1)
      local err = raises("task", "invalid syntax", future.result, future, PATIENCE)
      assert.equal("SyntaxError", err.type)
    end)

    it("source that fails before it defines anything", function()
      local future = client:submit(py.fn "import no_such_module\ndef f(x):\n    return x\n", 1)
      assert.equal("ModuleNotFoundError", raises("task", "no_such_module", future.result, future, PATIENCE).type)
    end)

    it("several of them among good ones spoil only what needs them", function()
      local bad = client:map("operator.truediv", { 1, 1 }, { 0, 2 })
      saturn.wait(bad, { timeout = PATIENCE })
      assert.same({ "error", "finished" }, { bad[1].status, bad[2].status })
      assert.equal(0.5, bad[2]:result(PATIENCE))
    end)
  end)

  describe("tasks that raise:", function()
    it("test_errors_dont_block", function()
      local futures = { client:submit("operator.truediv", 1, 0), client:submit("abs", -1),
        client:submit("operator.truediv", 1, 0), client:submit("abs", -2) }
      assert.equal(1, futures[2]:result(PATIENCE))
      assert.equal(2, futures[4]:result(PATIENCE))
      assert.equal("ZeroDivisionError", futures[3]:exception(PATIENCE).type)
    end)

    it("an exception whose arguments are anything", function()
      local future = client:submit(py.fn [[
        class Strange(Exception):
            def __reduce__(self):
                raise RuntimeError("cannot be pickled")

        def f():
            raise Strange(object())
      ]])
      local err = raises("task", nil, future.result, future, PATIENCE)
      assert.is_true(#err.message > 5)
      future = client:submit(py.fn "def f():\n    raise ValueError({'a': [1, (2,)]}, b'x', None, 1.5)")
      err = raises("task", nil, future.result, future, PATIENCE)
      assert.equal("ValueError", err.type)
      assert.equal(4, #err.args)
    end)

    it("test_long_error: a text of a megabyte", function()
      local future = client:submit(py.fn "def f():\n    raise ValueError('x' * 1000000)")
      local err = raises("task", "ValueError", future.result, future, PATIENCE)
      assert.is_true(#err.message <= 1000100)
    end)
  end)

  describe("values that cannot be converted:", function()
    it("as arguments", function()
      for _, value in ipairs { print, coroutine.create(print), io.stdout, { x = { print } },
        py.kw { f = print }, { [print] = 1 } } do
        local ok, err = pcall(client.submit, client, "str", value)
        assert.is_false(ok)
        assert(errors.is_error(err) and (err.kind == "value" or err.kind == "limit"), tostring(err))
        assert.is_true(#err.message > 20, err.message)
      end
      local deep = {}
      for _ = 1, 100000 do deep = { deep } end
      local ok, err = pcall(client.submit, client, "str", deep)
      assert.is_false(ok)
      assert.is_true(errors.is_error(err), tostring(err))
      raises("value", nil, client.map, client, "abs", { 1, print, 3 })
      raises("value", "names of keyword arguments", client.submit, client, "dict", py.kw { 5 })
    end)

    it("one bad element of a map leaves nothing behind", function()
      collectgarbage() -- what earlier tests left is not to go meanwhile
      local before = client.session:count()
      raises("value", nil, client.map, client, "abs", { 1, 2, print })
      assert.equal(before, client.session:count())
    end)

    it("as results", function()
      local generator = client:submit(py.fn "lambda: (i for i in [1])")
      raises("value", "could not serialize", generator.result, generator, PATIENCE)
      assert.equal("finished", generator.status)
      local odd = client:submit(py.fn "class Odd:\n    x = 1\ndef f():\n    return Odd()")
      local ok, value = pcall(odd.result, odd, PATIENCE)
      assert.is_true(ok or errors.is_error(value), tostring(value))
      local good = client:submit("abs", -1)
      raises("value", nil, client.gather, client, { good, generator })
      assert.equal(1, good:result(PATIENCE))
    end)

    it("results larger than the limit", function()
      local small <close> = saturn.client(cluster.address, { timeout = PATIENCE, limits = { frame = 100000 } })
      local future = small:submit(py.fn "lambda: 'x' * 200000")
      raises("limit", "limits.frame %(100000%)", future.result, future, PATIENCE)
      assert.equal("finished", future.status)
      assert.equal(200000, small:submit("len", future):result(PATIENCE))
    end)

    it("a Future of another client, of a closed one, or one that was released", function()
      local other = saturn.client(cluster.address, { timeout = PATIENCE })
      local foreign = other:submit("abs", -1)
      raises("value", "publish it as a dataset", client.submit, client, "abs", foreign)
      raises("value", nil, client.submit, client, "sum", { { foreign } })
      other:close()
      local ok, err = pcall(client.submit, client, "abs", foreign)
      assert.is_false(ok)
      assert.is_true(errors.is_error(err), tostring(err))
      local mine = client:submit("abs", -1)
      mine:release()
      raises("value", "released", client.submit, client, "abs", mine)
      raises("cancelled", nil, mine.result, mine, 1)
    end)
  end)

  it("timeouts that are no numbers", function()
    local future = client:submit("abs", -1)
    misuse("a timeout is a number of seconds, not string", function() future:result "soon" end)
    misuse("a timeout is a number of seconds, not table", function() future:exception {} end)
    misuse("a timeout is a number of seconds, not table", function() future:traceback {} end)
    misuse("a timeout is a number of seconds, not boolean", function() client:wait_for_workers(1, true) end)
    misuse("a timeout is a number of seconds, not string", function() loop.spawn(print):join "x" end)
    assert.equal(1, future:result(PATIENCE))
  end)

  it("options of a Future and lists that hold something else", function()
    local future <close> = client:submit("abs", -1)
    misuse("^unknown option 'foo'", function() future:cancel { foo = 1 } end)
    misuse("^options must be a table, not number", function() future:cancel(5) end)
    misuse("^expected a list of Futures, not a number", function() saturn.as_completed(5) end)
    misuse("^expected a list of Futures, but element 1", function() saturn.as_completed { 5 } end)
    misuse("^expected a list of Futures, but element 1", function() saturn.as_completed():update { 5 } end)
    misuse("^expected a list of Futures, but element 1", function() saturn.as_completed():add(5) end)
    assert.equal(1, future:result(PATIENCE))
  end)

  it("callbacks that cannot be called", function()
    local future <close> = client:submit("time.sleep", 0.1)
    misuse("^the callback of on_done must be a function, not nil", function() future:on_done(nil) end)
    misuse("^the callback of on_done must be a function, not number", function() future:on_done(5) end)
    misuse("^a timeout is a number of seconds, not string", function() client:step "x" end)
    local told = setmetatable({}, { __call = function(self, each) self.future = each end })
    future:on_done(told)
    loop.wait(function() return told.future end, PATIENCE)
    assert.equal(future, told.future)
    misuse("^the callback of on_done", function() future:on_done {} end)
  end)

  it("an object that is used as a method's self by mistake", function()
    local future = client:submit("abs", -1)
    assert.has_error(function() future.result() end)
    assert.has_error(function() future.result(5) end)
    assert.has_error(function() client.submit "abs" end)
    assert.equal(1, future:result(PATIENCE))
  end)

  -- The last: it ends the cluster's scheduler.
  it("a scheduler that died: what is pending ends at once with a reason, and the rest says so", function()
    local other = saturn.client(cluster.address, { timeout = 2 })
    local finished = other:submit("abs", -1)
    assert.equal(1, finished:result(PATIENCE))
    local pending = other:submit("time.sleep", 60)
    local waiting = loop.spawn(function() return pending:result() end)
    local told
    pending:on_done(function(future) told = future.status end)
    local started = loop.now()
    cluster:kill_scheduler()
    local err = raises("lost", nil, waiting.join, waiting, PATIENCE)
    assert.is_true(loop.now() - started < 10)
    assert.is_true(#err.message > 20, err.message)
    assert.equal("lost", told)
    raises("lost", nil, finished.result, finished, 1)
    raises("lost", nil, saturn.as_completed({ pending }, { with_results = true }).next,
      saturn.as_completed({ pending }, { with_results = true }))
    for _, call in ipairs { { "submit", "abs", 1 }, { "map", "abs", { 1 } }, { "scheduler_info" }, { "versions" },
      { "wait_for_workers", 1, 1 }, { "gather", { finished } } } do
      local ok, why = pcall(other[call[1]], other, table.unpack(call, 2))
      assert.is_false(ok, call[1])
      assert(errors.is_error(why) and #why.message > 10, ("%s: %s"):format(call[1], tostring(why)))
    end
    assert.is_true(loop.now() - started < 25)
    other:close()
    client:close()
    raises("connect", "is a scheduler running there", saturn.client, cluster.address, { timeout = 0.5 })
  end)
end)
