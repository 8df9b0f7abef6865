-- Small helpers of the specs.
local support = {}

-- A word of the shell.
function support.quote(text) return "'" .. tostring(text):gsub("'", "'\\''") .. "'" end

function support.read_all(path)
  local f <close> = assert(io.open(path, "rb"))
  return assert(f:read "a")
end

function support.write_all(path, data)
  local f <close> = assert(io.open(path, "wb"))
  assert(f:write(data))
end

function support.exists(path)
  local f = io.open(path, "rb")
  if f then f:close() end
  return f ~= nil
end

-- The stdout of a command; an error with its stderr when it fails. A second result: its exit status, when `any` is
-- true and a failure is no error.
function support.shell(command, any)
  local errors = os.tmpname()
  local pipe = assert(io.popen("{ " .. command .. "\n} 2>" .. support.quote(errors), "r"))
  local output = pipe:read "a"
  local ok, _, status = pipe:close()
  local text = support.read_all(errors)
  os.remove(errors)
  if not ok and not any then
    error(("%s\nfailed with status %d: %s"):format(command, status, text ~= "" and text or output), 2)
  end
  return output, status, text
end

-- What bounds a command that must not hang, in front of it; nothing where the system has no such program.
function support.bounded(seconds)
  if support.has_timeout == nil then
    support.has_timeout = os.execute "command -v timeout >/dev/null 2>&1" == true
  end
  return support.has_timeout and ("timeout -k 5 %d "):format(seconds) or ""
end

local Dir = { __name = "spec.tmpdir" }
Dir.__index = Dir
function Dir:remove()
  local path = self.path
  if path and not self.removed then
    self.removed = true
    os.execute("rm -rf " .. support.quote(path))
  end
end
Dir.__gc, Dir.__close = Dir.remove, Dir.remove
function Dir:__tostring() return self.path end

-- A new directory with a .path, removed by :remove(), at the end of its scope and when collected.
function support.tmpdir()
  local path = os.tmpname()
  os.remove(path)
  assert(os.execute("mkdir -m 700 " .. support.quote(path)))
  return setmetatable({ path = path }, Dir)
end

-- The interpreter the specs run in, for those that start another.
function support.lua() return os.getenv "LUA" or arg and arg[-1] or "lua5.4" end

-- The error must be an error object of this kind; with a pattern, its message must match. Returns the error.
function support.assert_kind(err, kind, pattern)
  if type(err) ~= "table" and type(err) ~= "userdata" then
    error(("expected an error of kind %q, not a %s: %s"):format(kind, type(err), tostring(err)), 2)
  end
  if err.kind ~= kind then
    error(("expected an error of kind %q, not %q: %s"):format(kind, tostring(err.kind), tostring(err)), 2)
  end
  if pattern and not tostring(err.message):find(pattern) then
    error(("the message of the %s error does not match %q: %s"):format(kind, pattern, tostring(err.message)), 2)
  end
  return err
end

-- Calls fn(...), which must raise an error object of this kind. Returns the error.
function support.raises(kind, pattern, fn, ...)
  if type(pattern) == "function" then return support.raises(kind, nil, pattern, fn, ...) end
  local ok, err = pcall(fn, ...)
  if ok then error(("expected an error of kind %q, but nothing was raised"):format(kind), 2) end
  local same, text = pcall(support.assert_kind, err, kind, pattern)
  if not same then error(text, 2) end
  return err
end

-- Calls fn, which must raise an error that is a text, at a line of the file that called this, and match the pattern
-- behind that.
function support.misuse(pattern, fn)
  local ok, err = pcall(fn)
  if ok then error("expected a misuse error, but nothing was raised", 2) end
  local file = debug.getinfo(2, "S").short_src
  local at = type(err) == "string" and err:sub(1, #file) == file and err:match("^:%d+: ()", #file + 1)
  if not at or not err:sub(at):find(pattern) then
    error(("expected a misuse error at a line of %s that matches %q: %s"):format(file, pattern, tostring(err)), 2)
  end
end

-- What is in a value, without the metatables that Python's values come with.
function support.plain(value)
  if type(value) ~= "table" then return value end
  local copy = {}
  for k, v in pairs(value) do copy[k] = support.plain(v) end
  return copy
end

-- The keys of a table, sorted.
function support.keys_of(map)
  local list = {}
  for key in pairs(map) do list[#list + 1] = key end
  table.sort(list)
  return list
end

-- True while a process runs (a zombie counts).
function support.alive(pid) return (os.execute(("kill -0 %d 2>/dev/null"):format(pid))) == true end

-- Calls fn until it returns something true, for at most so many seconds (5); returns that, or nil.
function support.eventually(fn, seconds)
  local stop = os.time() + (seconds or 5) + 1
  repeat
    local result = fn()
    if result then return result end
    os.execute "sleep 0.05"
  until os.time() >= stop
end

-- Asks in turns of saturn's loop until the answer is true, for at most so many seconds (10); returns it, or nil.
-- Unlike a condition of the loop, the function may call the library.
function support.settles(ask, seconds)
  local loop = require "saturn.loop"
  local deadline = loop.now() + (seconds or 10)
  repeat
    local result = ask()
    if result then return result end
    loop.sleep(0.02)
  until loop.now() > deadline
end

-- Whether this runs under valgrind.
support.memcheck = (os.getenv "MEMCHECK" or "") ~= ""

-- Until the function that it gives is called all keys are one under valgrind, where making one takes seconds.
function support.one_key()
  if not support.memcheck then return function() end end
  local keypair = require("saturn.core").keypair
  local new, pair = keypair.new, assert(keypair.new())
  local kept = setmetatable({}, { __close = function() end, __index = function(_, name)
    return name == "close" and function() end or function(_, ...) return pair[name](pair, ...) end
  end })
  keypair.new = function() return kept end
  return function() keypair.new = new end
end

return support
