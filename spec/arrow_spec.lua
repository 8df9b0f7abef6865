-- Arrow arrays as pyarrow pickles them, made here by hand; that pandas' own are read is in e2e/frames_spec.lua.
local array = require "saturn.array"
local arrow = require "saturn.arrow"
local core = require "saturn.core"
local py = require "saturn.py"
local support = require "spec.support"

local null, raises = core.null, support.raises

local function call(name, ...) return py.object("pyarrow.lib." .. name, { ... }) end

local function alias(name) return call("type_for_alias", name) end

local function buffer(bytes) return call("py_buffer", array.from_string(bytes, "|u1")) end

local function data(kind, n, buffers, more)
  more = more or {}
  for i = 1, 3 do buffers[i] = buffers[i] or null end
  return py.tuple { kind, n, more.nulls or -1, more.offset or 0, py.list(buffers), py.list(more.children or {}),
    more.dictionary or null }
end

local function whole(...) return call("_restore_array", data(...)) end

local function list(value) return arrow.list(arrow.read(value)) end

local function int64(...) return buffer(("<" .. ("i8"):rep(select("#", ...))):pack(...)) end

describe("an array of Arrow", function()
  it("of numbers is an array over its buffer, from its offset on", function()
    local bytes = int64(1, 2, 3, 4)
    local column = arrow.read(whole(alias "int64", 2, { nil, bytes }, { offset = 1 }))
    assert.equal("<i8", column.values.dtype)
    assert.same({ 2, 3 }, column.values:totable())
    assert.is_nil(column.missing)
    bytes.args[1]:set(9, 9)
    assert.equal(9, column.values[1])
  end)

  it("has what its bits say is missing", function()
    local bits = buffer("\x05\x01") -- 0, 2 and 8
    local column = arrow.read(whole(alias "int8", 3, { bits, buffer(("abcdefghij")) }, { offset = 6 }))
    assert.same({ true, true, false }, column.missing:totable())
    assert.same({ null, null, ("i"):byte() }, arrow.list(column))
    assert.is_nil(arrow.read(whole(alias "int8", 1, { bits, buffer "a" }, { nulls = 0 })).missing)
    assert.same({ true, false, false, true },
      list(whole(alias "bool", 4, { nil, buffer "\x90\x04" }, { offset = 7, nulls = 0 })))
  end)

  it("of texts is a list of strings", function()
    local small = buffer(("<i4i4i4i4"):pack(0, 1, 1, 4))
    assert.same({ "a", "", "b\0c" }, list(whole(alias "string", 3, { nil, small, buffer "ab\0cd" })))
    assert.same({ "", "b\0c" }, list(whole(alias "binary", 2, { nil, small, buffer "ab\0cd" }, { offset = 1 })))
    assert.same({ "a", null }, list(whole(alias "large_string", 2, { buffer "\1", int64(0, 1, 2), buffer "ab" })))
    assert.same({ "" }, list(whole(alias "large_binary", 1, { nil, int64(0, 0) })))
    assert.same({ "ab", "\0c" }, list(whole(call("binary", 2), 2, { nil, buffer "ab\0c" })))
    assert.same({ "", "" }, list(whole(call("binary", 0), 2, { nil, buffer "" })))
  end)

  it("of times has Python's dates and times, and counts in arrays", function()
    local function ints(...) return buffer(("<" .. ("i4"):rep(select("#", ...))):pack(...)) end
    assert.same({ py.date(1970, 1, 2), py.date(1969, 12, 31) },
      list(whole(alias "date32[day]", 2, { nil, ints(1, -1) })))
    assert.same({ py.date(1969, 12, 31) }, list(whole(alias "date64[ms]", 1, { nil, int64(-86400000) })))
    assert.same({ py.time { hour = 1, min = 2, sec = 3, usec = 4000 } },
      list(whole(alias "time32[ms]", 1, { nil, ints(3723004) })))
    assert.same({ py.time { sec = 1, usec = 500000 } },
      list(whole(call("time64", "ns"), 1, { nil, int64(1500000999) })))
    local column = arrow.read(whole(call("timestamp", "us", "UTC"), 1, { nil, int64(5) }))
    assert.equal("<M8[us]", column.values.dtype)
    assert.equal("UTC", column.type.tz)
    assert.equal(py.datetime64(5, "us"), arrow.list(column)[1])
    assert.equal("<m8[s]", arrow.read(whole(alias "duration[s]", 1, { nil, int64(5) })).values.dtype)
  end)

  it("of decimals has all digits", function()
    local function decimals(size, scale, bytes)
      local texts = list(whole(call("decimal" .. size * 8, 38, scale), #bytes // size, { nil, buffer(bytes) }))
      for i, value in ipairs(texts) do texts[i] = value.value end
      return texts
    end
    assert.same({ "1.50", "-0.05", "0.00" }, decimals(16, 2, ("<i8i8i8i8i8i8"):pack(150, 0, -5, -1, 0, 0)))
    assert.same({ "18446744073709551616" }, decimals(16, 0, ("<i8i8"):pack(0, 1)))
    assert.same({ "7E+2" }, decimals(4, -2, ("<i4"):pack(7)))
    assert.same({ "-1" }, decimals(8, 0, ("<i8"):pack(-1)))
    assert.same({ "1.2" }, decimals(32, 1, ("<i8i8i8i8"):pack(12, 0, 0, 0)))
  end)

  it("of others in it is a list of what those are", function()
    local field = call("field", "item", alias "int64", true, null)
    local items = data(alias "int64", 3, { buffer "\x05", int64(1, 2, 3) })
    local offsets = buffer(("<i4i4i4i4"):pack(0, 2, 2, 3))
    local inside = { children = { items } }
    assert.same({ { 1, null }, {}, { 3 } }, list(whole(call("list_", field), 3, { nil, offsets }, inside)))
    assert.same({ { 1, null } }, list(whole(call("large_list", field), 1, { nil, int64(0, 2) }, inside)))
    assert.same({ { 3 } }, list(whole(call("list_", field, 1), 1, {}, { children = { items }, offset = 2 })))
    local row = call("struct", py.list { call("field", "a", alias "int64"), call("field", "b", alias "bool") })
    local flags = data(alias "bool", 3, { nil, buffer "\6" })
    assert.same({ { a = null, b = true }, null }, list(whole(row, 2, { buffer "\x02" },
      { children = { items, flags }, offset = 1 })))
    local words = data(alias "string", 2, { nil, buffer(("<i4i4i4"):pack(0, 1, 3)), buffer "abc" })
    assert.same({ "bc", null, "a" }, list(whole(call("dictionary", alias "int8", alias "string", false), 3,
      { buffer "\x05", buffer "\1\9\0" }, { dictionary = words })))
    assert.same({ null, null }, list(whole(alias "null", 2, {})))
  end)

  it("in chunks is one column", function()
    local function chunk(...) return whole(alias "int64", select("#", ...), { nil, int64(...) }) end
    local column = arrow.read(call("chunked_array", py.list { chunk(1, 2), chunk(3) }, alias "int64"))
    assert.same({ 1, 2, 3 }, column.values:totable())
    assert.is_nil(column.missing)
    local holes = whole(alias "int64", 1, { buffer "\0", int64(5) })
    assert.same({ 1, null }, list(call("chunked_array", py.list { chunk(1), holes }, alias "int64")))
    local text = whole(alias "string", 1, { nil, buffer(("<i4i4"):pack(0, 1)), buffer "x" })
    assert.same({ "x", "x" }, list(call("chunked_array", py.list { text, text }, alias "string")))
    for _, kind in ipairs { alias "int64", alias "bool", alias "string", alias "null", alias "date32[day]",
      call("list_", call("field", "item", alias "int8")), call("struct", py.list {}), call("decimal128", 5, 2),
      call("dictionary", alias "int8", alias "string", false), call("binary", 3), call("timestamp", "ns", null) } do
      local none = arrow.read(call("chunked_array", py.list {}, kind))
      assert.equal(0, none.n)
      assert.same({}, arrow.list(none))
    end
  end)

  it("of an older protocol has its bytes in the pickle", function()
    for _, bytes in ipairs { "\7\0\0\0\0\0\0\0", py.bytes "\7\0\0\0\0\0\0\0", py.bytearray "\7\0\0\0\0\0\0\0" } do
      assert.same({ 7 }, list(whole(alias "int64", 1, { nil, call("py_buffer", bytes) })))
    end
  end)

  it("comes from a pickle with its buffers as arrays, and goes back so", function()
    local made = core.pickle.loads(core.pickle.dumps(py.object("pyarrow.lib.py_buffer", { py.bytes "abc" })))
    assert.equal("|u1", made.args[1].dtype)
    assert.same({ 97, 98, 99 }, made.args[1]:totable())
    assert.is_false(made.args[1].writable)
    assert.equal("pyarrow.lib.py_buffer", made.module .. "." .. made.name)
    local again = core.pickle.loads(core.pickle.dumps(made))
    assert.same({ 97, 98, 99 }, again.args[1]:totable())
  end)

  it("that is broken is refused", function()
    local function refused(pattern, ...) raises("protocol", pattern, arrow.read, whole(...)) end
    refused("ends before its last", alias "int64", 2, { nil, int64(1) })
    refused("ends before its last", alias "int64", 1, { nil, int64(1) }, { offset = 1 })
    refused("ends before its last", alias "int64", 1, {})
    refused("ends before its last", alias "int64", 1 << 47, { nil, int64(1) }, { offset = 1 << 47 })
    refused("bits end", alias "int8", 9, { buffer "\1", buffer(("a"):rep(9)) })
    refused("bits end", alias "bool", 1, {})
    refused("offsets end", alias "string", 2, { nil, buffer(("<i4i4"):pack(0, 0)) })
    refused("offsets end", alias "string", 1, {})
    refused("outside", alias "string", 1, { nil, buffer(("<i4i4"):pack(0, 2)), buffer "a" })
    refused("outside", alias "string", 1, { nil, buffer(("<i4i4"):pack(1, 0)), buffer "ab" })
    refused("outside", alias "large_string", 1, { nil, int64(0, -1), buffer "ab" })
    refused("outside", alias "large_string", 1, { nil, int64(-1, 0), buffer "ab" })
    refused("without length", alias "int64", -1, {})
    refused("without length", alias "int64", 1.5, {})
    refused("without length", alias "int64", 1 << 60, {})
    refused("buffer without bytes", alias "int64", 1, { nil, call("py_buffer", 5) })
    refused("no size", call("binary", -1), 1, {})
    refused("no names", call("struct", py.list { 1 }), 1, {})
    local items = data(alias "int8", 1, { nil, buffer "a" })
    local field = call("field", "item", alias "int8")
    refused("outside of its items", call("list_", field), 1, { nil, buffer(("<i4i4"):pack(0, 2)) },
      { children = { items } })
    refused("outside of its items", call("list_", field), 1, { nil, buffer(("<i4i4"):pack(-1, 1)) },
      { children = { items } })
    refused("outside of its items", call("list_", field, 2), 1, {}, { children = { items } })
    refused("without length", call("list_", field), 1, { nil, buffer(("<i4i4"):pack(0, 0)) })
    refused("ends before its struct", call("struct", py.list { field }), 2, {}, { children = { items } })
    local words = data(alias "string", 0, {})
    refused("does not have", call("dictionary", alias "int8", alias "string"), 1, { nil, buffer "\1" },
      { dictionary = words })
    refused("no integers", call("dictionary", call("list_", field), alias "string"), 1, {}, { dictionary = words })
    raises("value", "string_view is not known", arrow.read, whole(alias "string_view", 1, {}))
    raises("value", "is not known", arrow.read, whole(call("map_", field, field), 1, {}))
    raises("value", "is not known", arrow.read, whole("int64", 1, {}))
    raises("protocol", "no array", arrow.read, call("chunked_array", py.list { call("chunked_array", py.list {}) }))
    assert.is_false(arrow.is(5) or arrow.is(py.object("m._restore_array", {})) or arrow.is(call("array")))
  end)

  it("that is more than its bytes could be is refused", function()
    local field = call("field", "item", alias "int8")
    local function limited(pattern, value) raises("limit", pattern, arrow.read, value) end
    limited("no bytes of their own", whole(alias "null", 1 << 40, {}))
    limited("no bytes of their own", whole(call("list_", field, 0), 1 << 40, {},
      { children = { data(alias "int8", 0, {}) } }))
    limited("no bytes of their own", whole(call("struct", py.list {}), 1 << 40, {}))
    local text = ("a"):rep(1 << 20)
    for _, bytes in ipairs { array.from_string(text, "|u1"), py.bytes(text), py.bytearray(text) } do
      local chunk, chunks = whole(alias "int8", 1 << 20, { nil, call("py_buffer", bytes) }), {}
      for i = 1, 20 do chunks[i] = chunk end
      limited("no bytes of their own", call("chunked_array", py.list(chunks), alias "int8"))
    end
    -- each is in the next one twice, which makes 2^60 of the first
    local pair = call("struct", py.list { field, call("field", "other", alias "int8") })
    local inner = data(alias "null", 1, {})
    for _ = 1, 60 do inner = data(pair, 1, {}, { children = { inner, inner } }) end
    limited("no bytes of their own", call("_restore_array", inner))
    local own = data(call("list_", field, 1), 1, {}, { children = {} })
    own[6][1] = own
    limited("more than 64 others", call("_restore_array", own))
  end)
end)
