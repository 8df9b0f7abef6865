-- Waiting in coroutines, in the loops of hosts and by hand, on a real scheduler of the release in $DASK.
local dask = require "spec.support.dask"
local loop = require "saturn.loop"
local saturn = require "saturn"
local support = require "spec.support"

local py = saturn.py
local raises = support.raises

local PATIENCE = 30 -- seconds that nothing here should take
local TICK = 0.005  -- of the hosts' timers

-- ---- hosts: run(functions, tick) runs them as coroutines of the host until all have ended, with a timer of the host
-- that calls tick() until then; sleep(seconds) waits in the host's way

local function together(functions, spawn, ended)
  local left, failure = #functions, nil
  for _, fn in ipairs(functions) do
    spawn(function()
      local ok, err = pcall(fn)
      if not ok then failure = failure or err end
      left = left - 1
      if left == 0 then ended() end
    end)
  end
  return function() return left > 0 end, function()
    if failure then error(failure, 0) end
    assert.equal(0, left, "coroutines that never ended")
  end
end

local HOSTS = {}

function HOSTS.cqueues(cqueues, module)
  local host = {}
  function host.run(functions, tick)
    local controller = cqueues.new()
    local running, check = together(functions, function(fn) controller:wrap(fn) end, function() end)
    controller:wrap(function()
      while running() do
        cqueues.sleep(TICK)
        tick()
      end
    end)
    local ok, err = controller:loop(PATIENCE)
    check()
    assert(ok, err)
  end
  function host.start(fn) -- runs until what `fn` gets is closed
    local controller = cqueues.new()
    fn(module.start(controller))
    assert(controller:loop(PATIENCE))
    assert.is_true(controller:empty())
  end
  return host
end

function HOSTS.luv(uv, module)
  local host = {}
  function host.run(functions, tick)
    local timer = uv.new_timer()
    local _, check = together(functions, function(fn) coroutine.wrap(fn)() end, function() timer:close() end)
    if not timer:is_closing() then timer:start(0, TICK * 1000, tick) end
    uv.run()
    check()
  end
  function host.start(fn)
    fn(module.start())
    uv.run()
  end
  return host
end

function HOSTS.copas(copas, module)
  local host = {}
  function host.run(functions, tick)
    local running, check = together(functions, copas.addthread, function() end)
    copas.addthread(function()
      while running() do
        copas.pause(TICK)
        tick()
      end
    end)
    copas.loop()
    check()
  end
  function host.start(fn)
    fn(module.start())
    copas.loop()
  end
  return host
end

local function nothing() end

describe("loops", function()
  local cluster, client

  setup(function()
    cluster = dask.start { workers = 2, nthreads = 2 }
    client = saturn.client(cluster.address, { timeout = PATIENCE })
  end)
  teardown(function()
    if client then client:close() end
    if cluster then cluster:stop() end
  end)

  local function sleeping(seconds)
    return client:with { pure = false }:submit("time.sleep", seconds)
  end

  local function failing()
    return client:with { pure = false }:submit("operator.truediv", 1, 0)
  end

  -- Functions that submit and fetch, several times each, and leave their sums in `sums`.
  local function adders(count, rounds, sums)
    local functions = {}
    for i = 1, count do
      functions[i] = function()
        local total = 0
        for j = 1, rounds do total = total + client:submit("operator.add", i, j):result(PATIENCE) end
        sums[i] = total
      end
    end
    return functions
  end

  local function check_sums(sums, count, rounds)
    for i = 1, count do assert.equal(i * rounds + rounds * (rounds + 1) // 2, sums[i]) end
  end

  -- What every way to run several functions at once must do.
  local function behaves(run)
    it("runs several submits at once", function()
      local sums = {}
      run(adders(8, 3, sums))
      check_sums(sums, 8, 3)
    end)

    it("goes on with one while another waits", function()
      local event = client:event()
      local order = {}
      run {
        function()
          assert.is_true(event:wait(PATIENCE))
          order[#order + 1] = "waited"
        end,
        function()
          client:submit("operator.add", 1, 1):result(PATIENCE)
          order[#order + 1] = "set"
          event:set()
        end,
      }
      assert.same({ "set", "waited" }, order)
    end)

    it("raises errors and timeouts in the coroutine they belong to", function()
      local slow = sleeping(0.4)
      local ended = 0
      run {
        function()
          assert.equal("ZeroDivisionError", raises("task", function() failing():result(PATIENCE) end).type)
          ended = ended + 1
        end,
        function()
          raises("timeout", "took longer than 0.1 seconds", function() slow:result(0.1) end)
          ended = ended + 1
        end,
        function()
          slow:result(PATIENCE)
          ended = ended + 1
        end,
      }
      assert.equal(3, ended)
    end)

    it("closes a client at the end of a scope", function()
      local other
      run {
        function()
          local own <close> = saturn.client(cluster.address, { timeout = PATIENCE })
          other = own
          assert.equal(3, own:submit("operator.add", 1, 2):result(PATIENCE))
        end,
      }
      assert.is_true(other.closed)
    end)

    it("blocks where a coroutine cannot yield", function()
      local list = { 3, 1, 2 }
      run {
        function()
          table.sort(list, function(a, b) return client:submit("operator.lt", a, b):result(PATIENCE) end)
        end,
        function() client:submit("operator.add", 4, 4):result(PATIENCE) end,
      }
      assert.same({ 1, 2, 3 }, list)
    end)
  end

  describe("loop.run", function()
    behaves(function(functions) loop.run(table.unpack(functions)) end)

    it("raises an error after all have ended", function()
      local ended
      raises("task", function()
        loop.run(function() failing():result(PATIENCE) end, function()
          sleeping(0.2):result(PATIENCE)
          ended = true
        end)
      end)
      assert.is_true(ended)
    end)
  end)

  describe("loop.spawn", function()
    it("starts at once and is joined", function()
      local handle = loop.spawn(function(a, b)
        return client:submit("operator.add", a, b):result(PATIENCE), "more"
      end, 2, 3)
      assert.is_false(handle:done())
      assert.same({ 5, "more" }, { handle:join(PATIENCE) })
      assert.is_true(handle:done())
    end)

    it("raises in join what the coroutine raised", function()
      local handle = loop.spawn(function() failing():result(PATIENCE) end)
      raises("task", function() handle:join(PATIENCE) end)
    end)

    it("join takes a timeout", function()
      local handle = loop.spawn(function() sleeping(0.3):result(PATIENCE) end)
      raises("timeout", "a coroutine", function() handle:join(0.05) end)
      handle:join(PATIENCE)
    end)

    it("goes on in the next round after a plain yield", function()
      local future, turns = sleeping(0.1), 0
      local handle = loop.spawn(function()
        while not future:done() do
          turns = turns + 1
          coroutine.yield()
        end
      end)
      handle:join(PATIENCE)
      assert.is_true(turns > 0)
    end)
  end)

  it("an error in a callback is raised by the wait, and the next wait goes on", function()
    local first, second = sleeping(0.1), sleeping(0.1)
    local told
    first:on_done(function() error("from the callback", 0) end)
    second:on_done(function() told = true end)
    local ok, err = pcall(saturn.wait, { first, second }, { timeout = PATIENCE })
    assert.is_false(ok)
    assert.equal("from the callback", err)
    saturn.wait({ first, second }, { timeout = PATIENCE })
    assert.is_true(loop.poll(function() return told end, PATIENCE))
  end)

  describe("by hand", function()
    local socket = require "socket"

    -- What a host does that has a loop of its own: wait for the descriptor and the time, and step.
    local function host_loop(running, step)
      local fd = client:pollfd()
      local watched = { getfd = function() return fd end, dirty = function() return false end }
      local deadline = loop.now() + PATIENCE
      while running() and loop.now() < deadline do
        socket.select(fd and { watched }, nil, math.min(client:timeout() or 1, 1))
        step()
      end
      assert.is_false(running())
    end

    it("steps a client from a host's loop", function()
      assert.equal("r", client:events())
      local futures, done, steps = client:map("operator.mul", { 1, 2, 3 }, { 5, 6, 7 }), 0, 0
      for _, future in ipairs(futures) do future:on_done(function() done = done + 1 end) end
      host_loop(function() return done < 3 end, function()
        steps = steps + 1
        client:step()
      end)
      assert.same({ 5, 12, 21 }, client:gather(futures))
      if client:pollfd() then assert.is_true(steps < 50, steps .. " steps for three results") end
    end)

    it("steps coroutines of loop.spawn from a host's loop", function()
      local sums, handles = {}, {}
      for i, fn in ipairs(adders(5, 3, sums)) do handles[i] = loop.spawn(fn) end
      host_loop(function()
        for _, handle in ipairs(handles) do
          if not handle:done() then return true end
        end
        return false
      end, function() client:step() end)
      check_sums(sums, 5, 3)
    end)

    it("step waits for as long as it is told to", function()
      local started = loop.now()
      local future = sleeping(0.3)
      repeat client:step(0.1) until future:done() or loop.now() > started + PATIENCE
      assert.is_true(future:done())
    end)
  end)

  for name, make in pairs(HOSTS) do
    describe(name, function()
      local has, library = pcall(require, name)
      if not has then
        pending("needs the Lua module " .. name)
        return
      end

      local module = require("saturn.loop." .. name)
      local host = make(library, module)
      setup(module.install)
      teardown(module.remove)

      behaves(function(functions) host.run(functions, nothing) end)

      it("the host's timer ticks while a call waits", function()
        local event, ticks, waited = client:event(), 0, nil
        host.run({
          function() waited = event:wait(PATIENCE) end,
          function() -- nothing sets the event unless the host's timer goes on
            while ticks < 10 do loop.sleep(TICK) end
            event:set()
          end,
        }, function() ticks = ticks + 1 end)
        assert.is_true(waited)
        assert.is_true(ticks >= 10)
      end)

      it("sleeps as a blocking call does", function()
        local ticks, slept = 0, nil
        host.run({
          function()
            local started = loop.now()
            loop.sleep(0.2)
            slept = loop.now() - started
          end,
        }, function() ticks = ticks + 1 end)
        assert.is_true(slept >= 0.2)
        assert.is_true(ticks >= 5)
      end)

      it("does not run rounds while nothing happens", function()
        local turn, rounds = loop.turn, 0
        finally(function() loop.turn = turn end)
        loop.turn = function(...) -- luacheck: ignore
          rounds = rounds + 1
          return turn(...)
        end
        host.run({ function() sleeping(0.5):result(PATIENCE) end }, nothing)
        if client:pollfd() then assert.is_true(rounds < 40, rounds .. " rounds for one result") end
      end)

      it("wakes the others when one steps the network by itself", function()
        local sums, left = {}, 6
        local functions = {}
        for i, fn in ipairs(adders(6, 3, sums)) do
          functions[i] = function()
            fn()
            left = left - 1
          end
        end
        functions[#functions + 1] = function()
          while left > 0 do
            client:step()
            loop.sleep(0.001)
          end
        end
        host.run(functions, function() client:step() end)
        check_sums(sums, 6, 3)
      end)

      it("runs loop.run inside of its coroutines", function()
        local sums = {}
        host.run({
          function() loop.run(table.unpack(adders(3, 3, sums))) end,
          function() client:submit("operator.add", 5, 5):result(PATIENCE) end,
        }, nothing)
        check_sums(sums, 3, 3)
      end)

      it("an error in a callback is raised where a coroutine waits", function()
        local future = sleeping(0.1)
        local caught, result
        future:on_done(function() error("from the callback", 0) end)
        host.run({
          function()
            caught = select(2, pcall(loop.sleep, PATIENCE))
            result = client:submit("operator.add", 2, 2):result(PATIENCE)
          end,
        }, nothing)
        assert.equal("from the callback", caught)
        assert.equal(4, result)
      end)

      it("a callback may make calls that block", function()
        local future, sum = sleeping(0.05), nil
        future:on_done(function() sum = client:submit("operator.add", 3, 3):result(PATIENCE) end)
        host.run({ function() loop.poll(function() return sum end, PATIENCE) end }, nothing)
        assert.equal(6, sum)
      end)

      it("start: callbacks are called without a coroutine, until it is closed", function()
        local done, values = 0, {}
        host.start(function(kept)
          assert.truthy(tostring(kept):find "running")
          for i = 1, 3 do
            client:with { pure = false }:submit("operator.neg", i):on_done(function(future)
              values[i] = future.status
              done = done + 1
              if done == 3 then
                kept:close()
                kept:close()
              end
            end)
          end
        end)
        assert.same({ "finished", "finished", "finished" }, values)
      end)

      it("start: a call that nobody waits for goes out", function()
        local answered
        host.start(function(kept)
          local own = require("saturn.dask.server").new { address = cluster.address } -- connects first
          local call = own:start("identity")
          local timer
          timer = loop.timer(0.01, function()
            if not call:done() then return end
            answered = call:reply()
            timer:cancel()
            own:close()
            kept:close()
          end)
        end)
        assert.equal("Scheduler", answered.type)
      end)

      it("blocks again after it was removed", function()
        module.remove()
        finally(module.install)
        local ticks = 0
        host.run({ function() sleeping(0.1):result(PATIENCE) end }, function() ticks = ticks + 1 end)
        assert.is_true(ticks <= 2)
      end)
    end)
  end

  it("py.fn tasks run while coroutines wait", function()
    local square = py.fn [[lambda x: x * x]]
    local values = {}
    local functions = {}
    for i = 1, 4 do functions[i] = function() values[i] = client:submit(square, i):result(PATIENCE) end end
    loop.run(table.unpack(functions))
    assert.same({ 1, 4, 9, 16 }, values)
  end)
end)
