-- What is installed is complete: a copy of the sources, built and installed apart, gives a working module.
local support = require "spec.support"

local quote = support.quote

-- A copy of the files that belong to the project, with no build in it.
local function checkout(path)
  support.shell(([[
    list=$(git ls-files --cached --others --exclude-standard 2>/dev/null)
    [ -n "$list" ] || list=$(find . -path ./build -prune -o -path ./lua_modules -prune -o -type f -print)
    printf '%%s\n' "$list" | while read -r f; do [ ! -f "$f" ] || printf '%%s\n' "$f"; done | tar cf - -T - |
      tar xf - -C %s]]):format(quote(path)))
end

-- A run with sanitizers has its interpreter first in PATH: it is no part of this.
local PLAIN = '[ -z "$SANITIZE" ] || PATH=${PATH#*:}\n'

local function make(dir, command)
  return support.shell((PLAIN .. [[
    unset BUILD SANITIZE MAKELEVEL MFLAGS SPEC DASK
    export MAKEFLAGS=-j$(getconf _NPROCESSORS_ONLN)
    cd %s && %s 2>&1]]):format(quote(dir), command))
end

-- Loads the module from its installed place alone, in another folder, and prints where the C core came from.
local function load_from(tree)
  return support.shell((PLAIN .. "cd / && LUA_PATH=%s LUA_CPATH=%s lua5.4 -e %s"):format(
    quote(tree .. "/share/lua/5.4/?.lua;" .. tree .. "/share/lua/5.4/?/init.lua;;"),
    quote(tree .. "/lib/lua/5.4/?.so;;"),
    quote 'local s = require "saturn" assert(s.client) print(package.searchpath("saturn.core", package.cpath))'))
end

describe("the build", function()
  local dir

  setup(function()
    dir = support.tmpdir()
    checkout(dir.path)
  end)
  teardown(function() dir:remove() end)

  it("installs a complete module and builds nothing twice", function()
    make(dir.path, "make CFLAGS=-O0")
    assert.equal("", make(dir.path, "make CFLAGS=-O0"))
    local command = "cd / && %s/bin/saturn local --python /nonexistent"
    local _, _, here = support.shell(command:format(quote(dir.path)), true)
    assert.truthy(here:find "needs a Python with Dask", here) -- the command finds the module that is beside it
    local tree = dir.path .. "/tree"
    make(dir.path, "make CFLAGS=-O0 install PREFIX=" .. quote(tree))
    assert.equal(tree .. "/lib/lua/5.4/saturn/core.so\n", load_from(tree))
    for _, file in ipairs { "saturn/init.lua", "saturn/safe.lua", "saturn/local/service.py" } do
      assert.is_true(support.exists(tree .. "/share/lua/5.4/" .. file), file .. " is not installed")
    end
    local _, _, said = support.shell(command:format(quote(tree)), true)
    assert.truthy(said:find "needs a Python with Dask", said) -- so it found the module
    make(dir.path, "make uninstall PREFIX=" .. quote(tree))
    assert.is_false(support.exists(tree .. "/lib/lua/5.4/saturn/core.so"))
  end)

  it("makes a rock", function()
    if not os.execute "command -v luarocks >/dev/null" then return pending "luarocks is not there" end
    local tree = dir.path .. "/rock"
    make(dir.path, "luarocks make --tree " .. quote(tree))
    assert.equal(tree .. "/lib/lua/5.4/saturn/core.so\n", load_from(tree))
  end)

  it("exports nothing but its entry", function()
    local symbols = support.shell(("nm -D --defined-only %s/build/saturn/core.so 2>/dev/null || true"):format(dir.path))
    for name in symbols:gmatch "%x+ [A-Z] (%S+)" do assert.equal("luaopen_saturn_core", name) end
  end)
end)
