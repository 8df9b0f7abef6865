-- The error object, and the checks that raise misuse errors.
local errors = require "saturn.error"

local KNOWN = {
  timeout = "number", name = "string", workers = "string|table", n = "integer", fn = "callable", x = "any",
  flag = "boolean",
}

-- Where the message of a misuse error says that it happened.
local function line_of(err)
  return tonumber(err:match "^spec/error_spec.lua:(%d+): ")
end

local function here() return debug.getinfo(2, "l").currentline end

describe("error objects", function()
  it("have a kind, a message and more fields", function()
    local err = errors.new("api", "no such cluster", { status = 404 })
    assert.equal("api", err.kind)
    assert.equal("no such cluster", err.message)
    assert.equal(404, err.status)
    assert.is_true(err:is "api")
    assert.is_false(err:is "auth")
    assert.equal("api: no such cluster", tostring(err))
    assert.equal("saturn.error", getmetatable(err).__name)
    assert.is_true(errors.is_error(err))
    for _, other in ipairs { "text", 5, {}, setmetatable({}, {}), print } do assert.is_false(errors.is_error(other)) end
    assert.is_false(errors.is_error(nil))
  end)

  it("fields cannot take the place of kind and message", function()
    local err = errors.new("value", "right", { kind = "wrong", message = "wrong" })
    assert.equal("value", err.kind)
    assert.equal("right", err.message)
  end)

  it("of a task read like a Python traceback, with what they were raised from", function()
    local cause = errors.new("task", "KeyError: 'x'", { traceback = '  File "a.py", line 1, in f\n\n' })
    local err = errors.new("task", "ValueError: no", { cause = cause, traceback = '  File "b.py", line 2, in g' })
    assert.equal([[
Traceback (most recent call last):
  File "a.py", line 1, in f
KeyError: 'x'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "b.py", line 2, in g
ValueError: no]], tostring(err))
    assert.equal("ValueError: no", tostring(errors.new("task", "ValueError: no")))
    assert.equal("ValueError: no", tostring(errors.new("task", "ValueError: no", { traceback = "" })))
  end)

  it("raise and check", function()
    local ok, err = pcall(errors.raise, "limit", "too large", { key = "k" })
    assert.is_false(ok)
    assert.equal("k", err.key)
    assert.same({ 1, 2 }, { errors.check(1, 2) })
    assert.same({ false, "x" }, { errors.check(false, "x") })
    assert.equal(1, select("#", errors.check(nil)))
    ok, err = pcall(errors.check, nil, "closed", "gone")
    assert.is_false(ok)
    assert.equal("closed: gone", tostring(err))
  end)

  it("first: calls all, raises the first error at the end", function()
    local call, calls = errors.first(), {}
    call(function(a, b) calls[#calls + 1] = a + b end, 1, 2)
    call(error, "first", 0)
    call(error, "second", 0)
    call(function() calls[#calls + 1] = "last" end)
    local ok, err = pcall(call)
    assert.is_false(ok)
    assert.equal("first", err)
    assert.same({ 3, "last" }, calls)
    errors.first()()
    local none = errors.first()
    none(error, nil)
    assert.is_false((pcall(none)))
  end)
end)

describe("misuse", function()
  local function public(options)
    local checked = errors.options(options, KNOWN)
    return checked
  end

  it("options: nothing is an empty table, a table is itself", function()
    assert.same({}, public(nil))
    local options = { timeout = 1, name = "x", workers = {}, n = 3, fn = print, x = {}, flag = false }
    assert.equal(options, public(options))
    assert.truthy(public { workers = "w" })
    assert.truthy(public { n = 3.0 })
    assert.truthy(public { fn = setmetatable({}, { __call = print }) })
  end)

  it("options: names an unknown one and the closest known one, at the caller's line", function()
    local line
    local ok, err = pcall(function()
      line = here() + 1
      public { timeuot = 1 }
    end)
    assert.is_false(ok)
    assert.equal(line, line_of(err))
    assert.truthy(err:find("unknown option 'timeuot': did you mean 'timeout'?", 1, true))
    for wrong, right in pairs { worker = "workers", nmae = "name", flags = "flag", [1] = "fn" } do
      ok, err = pcall(function() public { [wrong] = 1 } end)
      assert.is_false(ok)
      assert.truthy(err:find("unknown option '" .. wrong .. "'", 1, true))
      assert.truthy(wrong == 1 or err:find("did you mean '" .. right .. "'", 1, true), err)
    end
  end)

  it("options: says what type was wanted", function()
    local cases = {
      { { timeout = "5" }, "option 'timeout' must be number, not string" },
      { { workers = 5 }, "option 'workers' must be string or table, not number" },
      { { n = 1.5 }, "option 'n' must be integer, not number" },
      { { n = "1" }, "option 'n' must be integer, not string" },
      { { fn = {} }, "option 'fn' must be callable, not table" },
      { { fn = "print" }, "option 'fn' must be callable, not string" },
      { { flag = 0 }, "option 'flag' must be boolean, not number" },
      { 5, "options must be a table, not number" },
      { "timeout=5", "options must be a table, not string" },
    }
    for _, case in ipairs(cases) do
      local line
      local ok, err = pcall(function()
        line = here() + 1
        public(case[1])
      end)
      assert.is_false(ok)
      assert.equal(line, line_of(err))
      assert.truthy(err:find(case[2], 1, true), err)
    end
  end)

  it("misuse: at the line of the public function's caller, or of its caller", function()
    local lines = {}
    local function public_function(level) errors.misuse(level, "%s is %d", "it", 5) end
    local function user(level)
      lines[2] = here() + 1
      public_function(level)
      return lines
    end
    for level = 2, 3 do
      local ok, err = pcall(function()
        lines[3] = here() + 1
        user(level)
        return lines
      end)
      assert.is_false(ok)
      assert.equal(lines[level], line_of(err))
      assert.truthy(err:find("it is 5", 1, true))
    end
  end)
end)
