-- luacheck: ignore 211/_.* (to be closed at the end of their scope is all they are for)
local core = require "saturn.core"
local loop = require "saturn.loop"
local support = require "spec.support"

local spawn = core.process.spawn
local SIGTERM, SIGKILL, SIGPIPE = 15, 9, 13

local function finish(process)
  return loop.wait(function()
    local code, how = process:poll()
    return code and { code, how }
  end, 5, "the process")
end

-- poll() has no descriptor behind it, so the specs that wait for it look again now and then.
local function patient(process)
  local deadline = loop.now() + 5
  while not process:poll() and loop.now() < deadline do loop.sleep(0.005) end
  return finish(process)
end

local function read_all(process, read)
  local text, done = "", false
  local fd = process:fd(read == "read_stderr" and "stderr" or "stdout")
  local _watch <close> = loop.watch(fd, "r")
  loop.wait(function()
    repeat
      local piece, why = process[read or "read"](process)
      text = text .. (piece or "")
      done = done or why == "eof"
    until not piece
    return done
  end, 5, "the output")
  return text
end

local function shell(script, options, ...)
  return assert(spawn({ "/bin/sh", "-c", script, "sh", ... }, options))
end

-- A zombie does not run; who reaps it is not for this process to say.
local function runs(pid)
  return support.shell(("ps -o stat= -p %d"):format(pid), true):find("^%s*[^Z%s]") ~= nil
end

describe("saturn.core.process", function()
  it("reads what the child writes and gets its exit status", function()
    local process <close> = shell('printf "%s\\n" "$1"; exit 7', nil, "a 'b'")
    assert.equal("a 'b'\n", read_all(process))
    assert.same({ 7, "exit" }, patient(process))
    assert.same({ 7, "exit" }, { process:poll() })
    assert.same({ n = 2, nil, "eof" }, table.pack(process:read()))
  end)

  it("never blocks: reading an idle child says again", function()
    local process <close> = shell "read -r line; echo \"got $line\""
    assert.same({ n = 2, nil, "again" }, table.pack(process:read()))
    assert.is_nil(process:poll())
    assert.equal(3, process:write "ab\n")
    assert.equal("got ab\n", read_all(process))
    assert.same({ 0, "exit" }, patient(process))
  end)

  it("takes only what the pipe holds when the child does not read", function()
    local process <close> = shell "exec sleep 60"
    local total, taken, why = 0
    repeat
      taken, why = process:write(("x"):rep(65536))
      total = total + (taken or 0)
    until not taken
    assert.equal("again", why)
    assert.is_true(total > 0)
    process:kill(SIGKILL)
    assert.same({ SIGKILL, "signal" }, patient(process))
    local ok, kind = process:write "x"
    assert.same({ nil, "closed" }, { ok, kind })
  end)

  it("ends the child's input by close_stdin, by collection and by close", function()
    for _, way in ipairs { "close_stdin", "collect", "close" } do
      local dir <close> = support.tmpdir()
      local file = dir.path .. "/ended"
      local process = shell('cat; echo yes >"$1"', nil, file)
      if way == "close_stdin" then
        process:close_stdin()
      elseif way == "close" then
        process:close()
        process:close()
      else
        process = nil -- luacheck: ignore 311
        collectgarbage() collectgarbage()
      end
      local deadline = loop.now() + 5
      while not support.exists(file) and loop.now() < deadline do loop.sleep(0.01) end
      assert.is_true(support.exists(file), way)
    end
  end)

  it("starts the child with default signals, an empty mask, and no pipe of another", function()
    local one <close> = shell "cat"
    local two <close> = shell "exec sleep 60"
    one:close_stdin()
    assert.same({ 0, "exit" }, patient(one))
    assert.is_nil(two:poll())
    two:kill(SIGKILL)
    local three <close> = shell("kill -PIPE $$; echo alive")
    assert.equal("", read_all(three))
    assert.same({ SIGPIPE, "signal" }, patient(three))
  end)

  it("adds to the environment and replaces what is there", function()
    local process <close> = shell('printf "%s|%s|%s" "$SPEC_NEW" "$HOME" "${PATH:+path}"',
      { env = { SPEC_NEW = "a=b c", HOME = "/nowhere" } })
    assert.equal("a=b c|/nowhere|path", read_all(process))
  end)

  it("keeps standard error apart, or away", function()
    local process <close> = shell("echo out; echo err >&2", { stderr = "pipe" })
    assert.equal("err\n", read_all(process, "read_stderr"))
    assert.equal("out\n", read_all(process))
    local quiet <close> = shell("echo err >&2 && echo out", { stderr = "null" })
    assert.equal("out\n", read_all(quiet))
    assert.is_nil(quiet:fd "stderr")
  end)

  it("signals the whole group", function()
    local process <close> = shell("sleep 60 & echo $!; wait", { group = true })
    local _watch <close> = loop.watch(process:fd(), "r")
    local child = tonumber(loop.wait(function() return process:read() end, 5, "the number"))
    assert.is_true(process:kill(SIGTERM))
    assert.same({ SIGTERM, "signal" }, patient(process))
    local deadline = loop.now() + 5
    while runs(child) and loop.now() < deadline do loop.sleep(0.01) end
    assert.is_false(runs(child))
    assert.same({ nil, "closed" }, { (process:kill(SIGTERM)), (select(2, process:kill(SIGTERM))) })
  end)

  it("says why a program cannot be started", function()
    if support.memcheck then return end -- valgrind makes a fork of posix_spawn's vfork, which cannot tell
    local process, kind, message = spawn { "/nonexistent/program" }
    assert.is_nil(process)
    assert.equal("connect", kind)
    assert.matches("cannot start /nonexistent/program: ", message, 1, true)
    assert.equal("connect", select(2, spawn { "saturn-no-such-program" }))
  end)

  it("refuses misuse", function()
    for _, call in ipairs {
      function() spawn() end,
      function() spawn {} end,
      function() spawn { 1 } end,
      function() spawn { "a\0b" } end,
      function() spawn({ "true" }, { stderr = "file" }) end,
      function() spawn({ "true" }, { env = { ["A=B"] = "x" } }) end,
      function() spawn({ "true" }, { env = { A = 1 } }) end,
      function() spawn({ "true" }, { env = "A=B" }) end,
    } do
      local ok, message = pcall(call)
      assert.is_false(ok)
      assert.equal("string", type(message))
    end
    local process <close> = shell "exit 0"
    assert.has_error(function() process:kill(1000) end)
    process:close()
    assert.has_error(function() process:read() end, "this process object is closed")
  end)

  it("leaves no descriptor behind", function()
    if not support.exists "/proc/self/stat" then return pending "needs /proc" end
    local function count()
      local out <close> = assert(io.popen("ls /proc/$PPID/fd | wc -l"))
      return tonumber(out:read "a")
    end
    collectgarbage() collectgarbage()
    local before = count()
    local ROUNDS = 20
    for _ = 1, ROUNDS do
      local _process <close> = shell("exit 0", { stderr = "pipe" })
      local _none <close> = spawn { "/nonexistent/program" }
    end
    local after = count() -- what earlier specs left may come and go meanwhile
    assert.is_true(after < before + ROUNDS // 2, ("%d descriptors, then %d"):format(before, after))
  end)

  it("says what it is", function()
    local process <close> = shell "exit 0"
    assert.equal("saturn.process " .. process:pid(), tostring(process))
    process:close()
    assert.matches("closed", tostring(process))
  end)
end)
