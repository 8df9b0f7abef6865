-- Waiting: polls, timers and coroutines, without a network.
local core = require "saturn.core"
local errors = require "saturn.error"
local loop = require "saturn.loop"
local support = require "spec.support"

local raises = support.raises

local function took(fn)
  local started = loop.now()
  fn()
  return loop.now() - started
end

describe("loop", function()
  it("now: monotonic seconds", function()
    local a = loop.now()
    local b = loop.now()
    assert.equal("float", math.type(a))
    assert.is_true(b >= a)
  end)

  it("sleep: about so long", function()
    local seconds = took(function() loop.sleep(0.05) end)
    assert.is_true(seconds >= 0.05 and seconds < 2, seconds)
    assert.is_true(took(function() loop.sleep(0) end) < 1)
    assert.is_true(took(function() loop.sleep(-1) end) < 1)
  end)

  it("poll: what the condition gives, or nil after the timeout", function()
    assert.equal("yes", loop.poll(function() return "yes" end))
    assert.equal("yes", loop.poll(function() return "yes" end, 0))
    assert.is_nil(loop.poll(function() return false end, 0.01))
    assert.is_nil(loop.poll(function() return nil end, 0))
  end)

  it("without time to wait there is a round all the same, and the others go on", function()
    local ticks, looks = 0, 0
    local timer = loop.timer(0, function() ticks = ticks + 1 end)
    assert.is_true(loop.poll(function() return ticks > 0 end, 0))
    timer:cancel()
    raises("timeout", loop.wait, function()
      looks = looks + 1
      return false
    end, 0)
    assert.is_true(looks > 1)
    local ready, turns = false, 0
    local polling = loop.spawn(function()
      while not ready and turns < 1000000 do
        turns = turns + 1
        loop.sleep(0)
      end
    end)
    loop.sleep(0.01)
    ready = true
    polling:join(5)
    assert.is_true(turns < 1000000, "one coroutine kept the loop for itself")
  end)

  it("wait: raises a timeout that says what was waited for", function()
    assert.equal(1, loop.wait(function() return 1 end, 1, "one"))
    local err = raises("timeout", "the moon took longer than 0.01 seconds", loop.wait, function() end, 0.01, "the moon")
    assert.equal("timeout: the moon took longer than 0.01 seconds", tostring(err))
    raises("timeout", "the operation took longer than 0 seconds", loop.wait, function() end, 0)
  end)

  it("wait_all: looks at each item until it is done", function()
    local looks, timer = {}, loop.timer(0.001, function() end) -- conditions are looked at when something happened
    loop.wait_all({ 1, 2, 3 }, function(item)
      looks[item] = (looks[item] or 0) + 1
      return looks[item] >= item
    end, 5, "three")
    timer:cancel()
    assert.same({ 1, 2, 3 }, looks)
    loop.wait_all({}, function() return false end, 5, "nothing")
    raises("timeout", "two took", loop.wait_all, { 1, 2 }, function(item) return item == 1 end, 0.01, "two")
  end)

  it("passes an error of a condition on, and can be used again", function()
    local ok, err = pcall(loop.poll, function() error("mine", 0) end)
    assert.is_false(ok)
    assert.equal("mine", err)
    assert.equal(1, loop.poll(function() return 1 end))
  end)

  it("tells at the caller's line what is no function or no number", function()
    local nothing = function() end
    support.misuse("^what a timer calls must be a function, not nil", function() loop.timer(0.01) end)
    support.misuse("^the interval of a timer is a number", function() loop.timer("soon", nothing) end)
    support.misuse("^what to sleep for is a number of seconds, not string", function() loop.sleep "x" end)
    support.misuse("^what to sleep for", function() loop.sleep() end)
    support.misuse("^a timeout is a number of seconds", function() loop.step "x" end)
    support.misuse("^what loop.spawn runs must be a function, not number", function() loop.spawn(5) end)
    local ran = false
    support.misuse("^what loop.run runs must be a function, not nil", function()
      loop.run(function() ran = true end, nil, nothing)
    end)
    assert.is_false(ran)
  end)

  it("takes tables that can be called for functions", function()
    local seen = {}
    local callable = setmetatable({}, { __call = function(_, ...) seen[#seen + 1] = select("#", ...) end })
    local timer = loop.timer(0.001, callable)
    loop.sleep(0.01)
    timer:cancel()
    assert.equal(0, seen[1])
    seen = {}
    loop.spawn(callable, 1, nil):join()
    loop.run(callable, callable)
    assert.same({ 2, 0, 0 }, seen)
  end)

  describe("timer", function()
    it("is called again and again while something waits, until it is cancelled", function()
      local calls = 0
      local timer = loop.timer(0.01, function() calls = calls + 1 end)
      loop.poll(function() return calls >= 3 end, 5)
      assert.is_true(calls >= 3)
      timer:cancel()
      timer:cancel()
      local before = calls
      loop.sleep(0.05)
      assert.equal(before, calls)
    end)

    it("may cancel itself", function()
      local calls, timer = 0, nil
      timer = loop.timer(0.001, function()
        calls = calls + 1
        timer:cancel()
      end)
      loop.sleep(0.03)
      assert.equal(1, calls)
    end)

    it("that fails raises where something waits, and the next call goes on", function()
      local timer = loop.timer(0.001, function() error("tick", 0) end)
      local ok, err = pcall(loop.sleep, 1)
      timer:cancel()
      assert.is_false(ok)
      assert.equal("tick", err)
      loop.sleep(0.01)
    end)
  end)

  describe("coroutines", function()
    it("start at once and wait for each other", function()
      local order = {}
      local function note(text) order[#order + 1] = text end
      local ready = false
      local handle = loop.spawn(function(a, b)
        note("started " .. a .. b)
        loop.poll(function() return ready end)
        note "first"
        return 1, nil, 3
      end, "x", "y")
      note "after"
      assert.is_false(handle:done())
      loop.spawn(function()
        loop.sleep(0.01)
        note "second"
        ready = true
      end)
      local a, b, c = handle:join(5)
      assert.same({ 1, 3 }, { a, c })
      assert.is_nil(b)
      assert.is_true(handle:done())
      assert.equal(3, select("#", handle:join()))
      assert.same({ "started xy", "after", "second", "first" }, order)
    end)

    it("join: raises what was raised, of any kind, or a timeout", function()
      local text = loop.spawn(function() error("text", 0) end)
      local object = loop.spawn(function() errors.raise("value", "object") end)
      local none = loop.spawn(function() error(nil) end)
      assert.same({ false, "text" }, { pcall(text.join, text) })
      raises("value", "object", object.join, object)
      assert.same({ false }, { pcall(none.join, none) })
      local late = loop.spawn(function() loop.sleep(0.05) end)
      raises("timeout", "a coroutine took longer", late.join, late, 0)
      late:join(5)
    end)

    it("warn of an error that nobody asked for", function()
      local function warnings(program)
        local _, _, said = support.shell(("%s -e %s"):format(support.lua(), support.quote(
          'local loop = require "saturn.loop" warn "@on" ' .. program)))
        return said
      end
      local wanted = "Lua warning: saturn: a coroutine that nobody joined failed: lost\n"
      assert.equal(wanted, warnings 'loop.spawn(function() error("lost", 0) end) collectgarbage()')
      assert.equal(wanted, warnings [[
        loop.spawn(function() loop.sleep(0.01) error("lost", 0) end)
        collectgarbage()
        loop.sleep(0.05)]])
      assert.equal("", warnings 'pcall(loop.run, function() error("known", 0) end) collectgarbage()')
    end)

    it("run: all at once, the first error after all have ended", function()
      local ended = 0
      assert.is_true(took(function()
        loop.run(function() loop.sleep(0.1) end, function() loop.sleep(0.1) end, function() loop.sleep(0.1) end)
      end) < 0.29)
      local ok, err = pcall(loop.run, function()
        error("first", 0)
      end, function()
        loop.sleep(0.01)
        ended = ended + 1
        error("second", 0)
      end, function()
        loop.sleep(0.02)
        ended = ended + 1
      end)
      assert.is_false(ok)
      assert.equal("first", err)
      assert.equal(2, ended)
      loop.run()
    end)

    it("run inside run", function()
      local order = {}
      loop.run(function()
        loop.run(function()
          loop.sleep(0.02)
          order[#order + 1] = "inner"
        end)
        order[#order + 1] = "outer"
      end, function() order[#order + 1] = "beside" end)
      assert.same({ "beside", "inner", "outer" }, order)
    end)

    it("an error of a condition is raised in the coroutine that waits for it", function()
      local caught
      loop.run(function()
        local ok, err = pcall(loop.poll, function()
          if coroutine.isyieldable() and caught == nil then caught = false end
          if caught == false then error("condition", 0) end
        end, 1)
        caught = { ok, err }
      end)
      assert.same({ false, "condition" }, caught)
    end)

    it("their timeouts end them, though nothing else happens", function()
      local result
      loop.run(function() result = { loop.poll(function() return false end, 0.02) } end)
      assert.same({}, result)
    end)

    it("go on when something that is no event made their condition true", function()
      local flag = false
      local handle = loop.spawn(function() return loop.poll(function() return flag end) end)
      flag = "by the program"
      assert.equal("by the program", handle:join(5))
      flag = false
      handle = loop.spawn(function() return loop.poll(function() return flag end) end)
      flag = "by the program"
      loop.step(5)
      assert.is_true(handle:done())
      flag = false
      loop.run(function() loop.poll(function() return flag end) end, function() flag = true end)
    end)

    it("a chain of a thousand", function()
      local at, list = 0, {}
      for i = 1, 1000 do
        list[i] = function()
          loop.poll(function() return at == 1000 - i end)
          at = at + 1
        end
      end
      loop.run(table.unpack(list))
      assert.equal(1000, at)
    end)

    it("a coroutine of the program's own inside one of the loop blocks, and the others go on", function()
      local beside = false
      loop.run(function()
        loop.sleep(0.01)
        beside = true
      end, function()
        coroutine.wrap(function() loop.poll(function() return beside end, 5) end)()
        assert.is_true(beside)
      end)
    end)
  end)

  it("step: one round that does not block", function()
    local resumed = false
    loop.spawn(function()
      loop.sleep(0)
      resumed = true
    end)
    local deadline = loop.now() + 5
    while not resumed and loop.now() < deadline do loop.step() end
    assert.is_true(resumed)
    assert.is_true(took(function() loop.step() end) < 1)
    assert.is_true(took(function() loop.step(0.02) end) < 1)
  end)

  it("tells a host what to wait for and how long", function()
    local fd = loop.pollfd()
    assert.is_true(fd == nil or (math.type(fd) == "integer" and fd >= 0))
    assert.equal(fd, loop.pollfd())
    assert.equal("r", loop.events())
    local timer = loop.timer(10, function() end)
    local timeout = loop.timeout()
    timer:cancel()
    assert.is_true(timeout <= 10 and timeout >= 0)
  end)

  it("watch: refuses what is no descriptor", function()
    assert.has_error(function() loop.watch(-1, "r") end)
    assert.has_error(function() loop.watch(0, "x") end)
    raises("connect", "cannot watch a descriptor", loop.watch, 987654, "r")
  end)

  it("tells each listener after a round, also when one of them fails", function()
    local told = {}
    local a = { on_round = function() told.a = true error("a", 0) end }
    local b = { on_round = function() told.b = true error("b", 0) end }
    loop.listen(a)
    loop.listen(b)
    local ok, err = pcall(loop.step)
    a.on_round, b.on_round = function() end, function() end
    assert.is_false(ok)
    assert.truthy(err == "a" or err == "b")
    assert.same({ a = true, b = true }, told)
    loop.step()
  end)

  it("the reactor is not entered inside its own callback, and goes with its state", function()
    local reactor = assert(core.reactor.new())
    assert.is_boolean(reactor:poll(0))
    assert.is_nil(reactor:timeout())
    assert.is_true(math.type(reactor:round()) == "integer")
  end)
end)
