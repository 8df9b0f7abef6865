local array = require "saturn.array"
local core = require "saturn.core"
local support = require "spec.support"

local unpack = table.unpack

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then
    return a == b and math.type(a) == math.type(b) or (a ~= a and b ~= b)
  end
  for k, v in pairs(a) do if not same(v, b[k]) then return false end end
  for k in pairs(b) do if a[k] == nil then return false end end
  return true
end

local function near(a, b)
  if type(a) == "table" then return near(a.re, b.re) and near(a.im, b.im) end
  if a ~= a or b ~= b then return a ~= a and b ~= b end
  return a == b or math.abs(a - b) <= 4e-16 * math.abs(b) * 4 + 1e-320
end

local numpy
for _, python in ipairs { "/usr/bin/python3", "python3" } do
  if not numpy and os.execute(python .. " -c 'import numpy' 2>/dev/null") then numpy = python end
end

describe("an array of Lua values", function()
  it("has the type and the shape of a nested table", function()
    local a = array { { 1, 2, 3 }, { 4, 5, 6 } }
    assert.equal("<i8", a.dtype)
    assert.equal("int64", a.typename)
    assert.same({ 2, 3 }, a.shape)
    assert.same({ 24, 8 }, a.strides)
    assert.same({ 2, 6, 48, 8, "C", true },
      { a.ndim, a.size, a.nbytes, a.itemsize, a.contiguous, a.writable })
    assert.equal(2, #a)
    assert.same({ { 1, 2, 3 }, { 4, 5, 6 } }, a:totable())
    assert.equal("<f8", array({ 1, 2.5 }).dtype)
    assert.equal("|b1", array({ true, false }).dtype)
    assert.equal("<U3", array({ "a", "h\u{e9}!" }).dtype)
    assert.equal("|S2", array({ "a", "\xff\xfe" }).dtype)
    assert.equal("<c16", array({ { re = 1, im = 2 }, 3 }).dtype)
    assert.same({ 0 }, array({}).shape)
    assert.same({ 2, 0 }, array({ {}, {} }).shape)
    assert.same({}, array(7).shape)
    assert.equal(7, array(7):get())
  end)

  it("takes a type and a shape", function()
    assert.equal("<f4", array({ 1, 2 }, { dtype = "f4" }).dtype)
    assert.equal("<f4", array({ 1, 2 }, "float32").dtype)
    assert.same({ { 1, 2 }, { 3, 4 } }, array({ 1, 2, 3, 4 }, { shape = { 2, 2 } }):totable())
    assert.equal("<U2", array({ "ab", "c" }, "U").dtype)
    assert.equal("|S2", array({ "ab", "c" }, "S").dtype)
    local r = array({ { x = 1, y = { 2, 3 } } }, "[('x', '<i4'), ('y', '>f8', (2,))]")
    assert.same({ x = 1, y = { 2.0, 3.0 } }, r[1])
    assert.same({ 1 }, r:field("x"):totable())
    assert.same({ { 2.0, 3.0 } }, r:field("y"):totable())
    assert.same({ { name = "x", dtype = "<i4", offset = 0, shape = {} },
      { name = "y", dtype = ">f8", offset = 4, shape = { 2 } } }, r.fields)
    local o = array({ "a", core.null, { 1 }, true }, "O")
    assert.same({ 4 }, o.shape)
    assert.equal(core.null, o[2])
    assert.same({ 1 }, o[3])
    assert.equal("<i2", array(array { 1, 2 }, "i2").dtype)
  end)

  it("refuses what has no type or is not regular", function()
    assert.error_matches(function() array { { 1, 2 }, { 3 } } end, "not regular")
    assert.error_matches(function() array { { 1 }, 2 } end, "not regular")
    assert.error_matches(function() array { 1, { 2 } } end, "table does not go")
    assert.error_matches(function() array { 1, "a" } end, "several types")
    assert.error_matches(function() array { true, 1 } end, "several types")
    assert.error_matches(function() array { print } end, "no array type for function")
    assert.error_matches(function() array { 1, nil, 3 } end, "nil")
    assert.error_matches(function() array() end, "value expected")
    assert.error_matches(function() array({ 1 }, "f3") end, "not an array type")
    assert.error_matches(function() array({ 1 }, { dtipe = "f8" }) end, "unknown option 'dtipe': did you mean 'dtype'")
    assert.error_matches(function() array({ 1, 2, 3 }, { shape = { 2, 2 } }) end, "do not fill")
    assert.error_matches(function() array({ 300 }, "i1") end, "300 does not fit into int8")
    assert.error_matches(function() array({ 1.5 }, "i4") end, "1.5 is not an integer")
    assert.error_matches(function() array({ "abc" }, "U2") end, "too long for U2")
    assert.error_matches(function() array({ nil, 1 }, "O") end, "nil")
    local loop = {}
    loop[1] = loop
    assert.error_matches(function() array(loop) end, "nested deeper")
  end)

  it("is made of zeros, of bytes", function()
    assert.same({ { 0.0, 0.0 }, { 0.0, 0.0 } }, array.zeros({ 2, 2 }):totable())
    assert.same({ 0, 0, 0 }, array.zeros(3, "u1"):totable())
    assert.same({ 0, 0 }, array.zeros(2, "O"):totable())
    assert.equal(0, array.zeros({}, "i4"):get())
    assert.same({ 1, 2 }, array.from_string("\1\0\2\0", "<i2"):totable())
    assert.same({ { 1 }, { 512 } }, array.from_string("\0\1\2\0", ">i2", { 2, 1 }):totable())
    assert.error_matches(function() array.from_string("abc", "i2") end, "no whole number")
    assert.error_matches(function() array.from_string("abcd", "i2", 3) end, "needs 6 bytes, there are 4")
    assert.error_matches(function() array.from_string("", "U") end, "no whole number")
    assert.error_matches(function() array.zeros(-1) end, "negative")
    assert.error_matches(function() array.zeros({ 1 << 40, 1 << 40 }) end, "larger than memory")
    assert.error_matches(function() array.zeros({ 0, 1 << 62, 1 << 62 }) end, "larger than memory")
    local many = {}
    for i = 1, 33 do many[i] = 1 end
    assert.error_matches(function() array.zeros(many) end, "too many dimensions")
  end)
end)

describe("elements", function()
  it("are read and set by 1-based indices", function()
    local a = array { { 1, 2, 3 }, { 4, 5, 6 } }
    assert.equal(6, a:get(2, 3))
    assert.equal(6, a:get(-1, -1))
    assert.equal(5, a[2][2])
    a:set(50, 2, 2):set(60, -1, -1)
    assert.same({ { 1, 2, 3 }, { 4, 50, 60 } }, a:totable())
    local row = a[1]
    row[2] = 20
    assert.equal(20, a:get(1, 2))
    assert.is_nil(a[0])
    assert.is_nil(a[3])
    assert.is_nil(row[1.5])
    assert.is_nil(a.nothing)
    assert.error_matches(function() a:get(3, 1) end, "out of range")
    assert.error_matches(function() a:get(1, 0) end, "out of range")
    assert.error_matches(function() a:get(1) end, "1 indices for an array of 2")
    assert.error_matches(function() a[1] = 5 end, "set%(value")
    assert.error_matches(function() row[4] = 5 end, "out of range")
    assert.error_matches(function() row.x = 5 end, "no field")
    assert.error_matches(function() a:set("x", 1, 1) end, "string does not go into an array of int64")
  end)

  it("are walked by ipairs and pairs", function()
    local seen = {}
    for i, v in ipairs(array { 5, 6 }) do seen[#seen + 1] = i .. "=" .. v end
    for i, v in pairs(array { { 7, 8 } }) do seen[#seen + 1] = i .. "=" .. v:sum() end
    assert.same({ "1=5", "2=6", "1=15" }, seen)
  end)

  it("keep 64 unsigned bits as the integer of the same bits", function()
    local a = array({ 1, -1 }, "u8")
    assert.equal(-1, a[2])
    assert.equal("array(uint64 [2]: 1, 18446744073709551615)", tostring(a))
    assert.equal(-1, a:max())
    assert.equal(1, a:min())
    assert.equal(2.0 ^ 63, a:mean())
    assert.equal(0, a:sum())
    a[1] = 2.0 ^ 63
    assert.equal(math.mininteger, a[1])
  end)

  it("of every kind come back as they were set", function()
    local cases = {
      { "b1", true, false }, { "i1", -128, 127 }, { "u1", 0, 255 }, { "<i2", -32768, 32767 },
      { ">i2", -32768, 32767 }, { ">u2", 0, 65535 }, { "i4", -2147483648, 2147483647 }, { ">u4", 0, 4294967295 },
      { ">i8", math.mininteger, math.maxinteger }, { "f2", 0.5, 65504.0 }, { ">f2", 2.0 ^ -24, -2.0 ^ -14 },
      { "f4", 0.5, math.huge }, { ">f8", 0.1, -math.huge }, { "S3", "a\0b", "" }, { "U2", "\u{1F600}x", "" },
      { ">U2", "\u{e9}", "ab" }, { "V2", "\0\1", "ab" }, { "M8[ns]", 1, array.nat }, { ">m8[25s]", -5, 7 },
      { "c8", { re = 1.5, im = -2.0 }, { re = 0.0, im = 0.0 } },
      { ">c16", { re = 0.1, im = 0.2 }, { re = 1.0, im = 0.0 } },
      { "O", "x", 1 },
    }
    for _, case in ipairs(cases) do
      local a = array({ case[2], case[3] }, case[1])
      assert.is_true(same({ case[2], case[3] }, a:totable()), case[1])
      assert.is_true(same(case[2], a[1]), case[1])
    end
    assert.equal("25s", array({ 1 }, "m8[25s]").unit)
    assert.equal("generic", array({ 1 }, "m8").unit)
    assert.is_nil(array({ 1 }).unit)
  end)

  it("that do not fit are refused", function()
    local cases = {
      { "u1", 256 }, { "u1", -1 }, { "i8", 2.0 ^ 63 }, { "i8", 0 / 0 }, { "u8", 2.0 ^ 64 }, { "u8", -1.0 },
      { "i4", "1" },
      { "b1", 2 }, { "f8", "1" }, { "f8", core.null }, { "S2", "abc" }, { "S2", 5 }, { "U2", "\xff" }, { "V2", "a" },
      { "c8", { 1, 2 } }, { "i4", 1 / 0 }, { "M8[s]", "2020" },
    }
    for _, case in ipairs(cases) do
      local a = array.zeros(1, case[1])
      local before = a:tostring()
      assert.is_false(pcall(a.set, a, case[2], 1), case[1])
      assert.equal(before, a:tostring())
    end
    local r = array.zeros(1, "[('x', '<i4')]")
    assert.error_matches(function() r[1] = { z = 1 } end, "no field 'z'")
    assert.error_matches(function() r[1] = 3 end, "table of its fields")
  end)

  it("fill an array", function()
    local a = array.zeros({ 3, 3 }, "i4")
    a:slice(nil, { 1, 3, 2 }):fill(7)
    assert.same({ { 7, 0, 7 }, { 7, 0, 7 }, { 7, 0, 7 } }, a:totable())
    assert.same({ "x", "x" }, array.zeros(2, "O"):fill("x"):totable())
  end)
end)

describe("a view", function()
  local a
  before_each(function() a = array { { 1, 2, 3, 4 }, { 5, 6, 7, 8 }, { 9, 10, 11, 12 } } end)

  it("is a slice, with the ends of string.sub", function()
    assert.same({ { 2, 3 }, { 6, 7 }, { 10, 11 } }, a:slice(nil, { 2, 3 }):totable())
    assert.same({ 9, 10, 11, 12 }, a:slice(-1):totable())
    assert.same({ { 12, 10 }, { 4, 2 } }, a:slice({ -1, 1, -2 }, { nil, nil, -2 }):totable())
    assert.same({ 4, 8, 12 }, a:slice(nil, 4):totable())
    assert.same({ { 1, 2, 3, 4 } }, a:slice({ -100, 1 }):totable())
    assert.same({ 0, 4 }, a:slice({ 3, 2 }).shape)
    assert.same({ 0, 4 }, a:slice({ 4, 100 }).shape)
    assert.same({ 0, 4 }, a:slice({ 1, -100 }).shape)
    assert.same({ 0, 4 }, a:slice({ 1, 2, -1 }).shape)
    assert.same({ { 1, 2, 3, 4 } }, a:slice({ 1, 3, math.maxinteger }):totable())
    assert.same({ { 9, 10, 11, 12 } }, a:slice({ nil, nil, math.mininteger }):totable())
    assert.same({ 3, 4 }, a:slice({ math.mininteger, math.maxinteger }).shape)
    assert.error_matches(function() a:slice({ 1, 2, 0 }) end, "step of 0")
    assert.error_matches(function() a:slice(4) end, "out of range")
    assert.error_matches(function() a:slice(1, 1, 1) end, "3 slices for an array of 2")
    assert.error_matches(function() a:slice({ 1.5 }) end, "integers")
  end)

  it("agrees with a plain loop for every slice", function()
    local v = array { 1, 2, 3, 4, 5 }
    for first = -7, 7 do
      for last = -7, 7 do
        for step = -3, 3 do
          if step ~= 0 and first ~= 0 and last ~= 0 then
            local from, to = first, last
            if from < 0 then from = from + 6 end
            if to < 0 then to = to + 6 end
            if step > 0 then from, to = math.max(from, 1), math.min(to, 5)
            else from, to = math.min(from, 5), math.max(to, 1) end
            local want = {}
            for i = from, to, step do want[#want + 1] = i end
            assert.same(want, v:slice({ first, last, step }):totable(), first .. " " .. last .. " " .. step)
          end
        end
      end
    end
  end)

  it("is transposed and reshaped", function()
    local t = a:transpose()
    assert.same({ 4, 3 }, t.shape)
    assert.equal("F", t.contiguous)
    assert.same({ 1, 5, 9 }, t[1]:totable())
    t:set(70, 3, 2)
    assert.equal(70, a:get(2, 3))
    assert.same({ 12 }, t:slice(4, { 3, 3 }):totable())
    assert.same({ 4, 3, 2 }, array.zeros({ 2, 3, 4 }):transpose().shape)
    assert.same({ 4, 2, 3 }, array.zeros({ 2, 3, 4 }):transpose(3, 1, 2).shape)
    assert.error_matches(function() a:transpose(1, 1) end, "twice")
    assert.same({ { 1, 2, 3, 4, 5, 6 }, { 70, 8, 9, 10, 11, 12 } }, a:reshape(2, -1):totable())
    assert.equal(a:pointer(), a:reshape(12):pointer())
    assert.same({ 1, 5, 9, 2, 6, 10, 3, 70, 11, 4, 8, 12 }, t:reshape { 12 }:totable())
    assert.are_not.equal(t:pointer(), t:reshape(12):pointer())
    assert.error_matches(function() a:reshape(5, -1) end, "do not fill")
    assert.error_matches(function() a:reshape(-1, -1) end, "negative")
    assert.error_matches(function() a:reshape(1 << 40, 1 << 40) end, "larger than memory")
    assert.same({ 0, 7 }, array.zeros { 0, 3 }:reshape(0, 7).shape)
  end)

  it("is viewed as elements of another type", function()
    local bytes = array.from_string(("<i4i4i4i4"):pack(1, 2, 3, -1), "|u1")
    local numbers = bytes:view "<i4"
    assert.same({ 1, 2, 3, -1 }, numbers:totable())
    assert.equal(bytes:pointer(), numbers:pointer())
    numbers[1] = 256
    assert.equal(1, bytes[2])
    assert.same({ { 256, 2 }, { 3, -1 } }, numbers:reshape(2, 2):totable())
    assert.same({ 2, 1 }, numbers:reshape(2, 2):view("<i8").shape)
    assert.same({ 2, 8 }, numbers:reshape(2, 2):view("|u1").shape)
    assert.same({ { x = 256, y = 2 }, { x = 3, y = -1 } }, bytes:view("[('x', '<i4'), ('y', '<i4')]"):totable())
    assert.equal(1.0, array(4607182418800017408):view("<f8"):get())
    assert.same({ 0 }, array.zeros(0):view("<i2").shape)
    assert.error_matches(function() bytes:view "<i5" end, "i5")
    assert.error_matches(function() bytes:slice({ 1, 15 }):view "<i4" end, "15 bytes are no whole number of <i4")
    assert.error_matches(function() array(1):view "<i4" end, "no whole number")
    assert.error_matches(function() bytes:slice({ nil, nil, 2 }):view "|i1" end, "not contiguous")
    assert.error_matches(function() a:transpose():view "<f8" end, "not contiguous")
    assert.error_matches(function() bytes:view "O" end, "no bytes")
    assert.error_matches(function() array({ "x" }, "O"):view "<i8" end, "no bytes")
    assert.error_matches(function() bytes:view "S0" end, "no whole number")
  end)

  it("shares memory, a copy does not", function()
    local row, copy = a[2], a:copy()
    a:set(0, 2, 1)
    assert.equal(0, row[1])
    assert.equal(5, copy:get(2, 1))
    assert.same({ { 1, 9 }, { 4, 12 } }, a:slice({ nil, nil, 2 }, { nil, nil, 3 }):copy():transpose():totable())
    local o = array({ 1, "x", 3 }, "O")
    o:slice({ 2, 3 })[1] = "y"
    assert.equal("y", o[2])
    local reversed = o:slice({ -1, 1, -1 })
    assert.same({ 3, "y", 1 }, reversed:totable())
    local apart = reversed:copy()
    reversed[1] = 0
    assert.same({ 3, "y", 1 }, apart:totable())
    assert.equal(0, o[3])
  end)

  it("outlives what it was made of", function()
    local row = a[3]
    a:close()
    a = nil
    collectgarbage()
    assert.same({ 9, 10, 11, 12 }, row:totable())
    row = array({ { x = 1, y = 2.5 } }, "[('x', '<i4'), ('y', '<f8')]"):field("y")
    collectgarbage()
    assert.equal(2.5, row[1])
  end)
end)

describe("an array as a whole", function()
  it("is converted", function()
    local a = array { -1.5, 2.75, 300 }
    assert.same({ -1, 2, 300 }, a:astype("i2"):totable())
    assert.same({ true, true, true }, a:astype("b1"):totable())
    assert.same({ -1.5, 2.75, 300.0 }, a:astype(">f4"):totable())
    assert.same({ 44, -1 }, array({ 300, -1 }):astype("i1"):totable())
    assert.same({ 1, 0 }, array({ true, false }):astype("i4"):totable())
    assert.same({ 65535 }, array({ -1 }):astype("u2"):totable())
    assert.is_true(same({ { re = 1.0, im = 0.0 } }, array({ 1 }):astype("c16"):totable()))
    assert.same({ 1500, -1, array.nat }, array({ 1500, -1, array.nat }, "M8[ms]"):astype("i8"):totable())
    assert.same({ 1, -1, array.nat }, array({ 1500, -1, array.nat }, "M8[ms]"):astype("M8[s]"):totable())
    assert.same({ 60 }, array({ 5 }, "M8[Y]"):astype("M8[M]"):totable())
    assert.same({ 7 * 86400 * 10 ^ 9 // 1 | 0 }, array({ 1 }, "m8[W]"):astype("m8[ns]"):totable())
    assert.same({ 5 }, array({ 2 }, "m8[25s]"):astype("m8[10s]"):totable())
    assert.same({ "ab", "" }, array({ "ab", "" }):astype("S"):totable())
    assert.same({ "ab" }, array({ "ab" }, "S4"):astype("U2"):totable())
    assert.same({ 1, "x" }, array({ 1, "x" }, "O"):copy():totable())
    assert.same({ 1, 2 }, array({ 1, 2 }, "O"):astype("i2"):totable())
    assert.same({ 1, 2 }, array({ 1, 2 }, "i2"):astype("O"):totable())
    assert.error_matches(function() array({ 300.0 }):astype("i1") end, "300 does not fit into int8")
    assert.error_matches(function() array({ 0 / 0 }):astype("i8") end, "does not fit into int64")
    assert.error_matches(function() array({ { re = 1, im = 1 } }):astype("f8") end, "complex")
    assert.error_matches(function() array({ 1 }):astype("U5") end, "cannot be converted to U5")
    assert.error_matches(function() array({ "\u{e9}" }):astype("S5") end, "only ASCII")
    assert.error_matches(function() array({ "abc" }):astype("U2") end, "too long")
    assert.error_matches(function() array({ 1 }, "M8[Y]"):astype("M8[D]") end, "cannot be converted")
    assert.error_matches(function() array({ math.maxinteger }, "M8[s]"):astype("M8[ns]") end, "does not fit")
    assert.error_matches(function() array({ "x" }, "O"):astype("i2") end, "string does not go")
  end)

  it("gives its bytes", function()
    local a = array({ { 1, 2 }, { 3, 4 } }, "<i2")
    assert.equal("\1\0\2\0\3\0\4\0", a:tostring())
    assert.equal("\1\0\3\0\2\0\4\0", a:transpose():tostring())
    assert.equal("", array({}):tostring())
    assert.error_matches(function() array({ 1 }, "O"):tostring() end, "no bytes")
    assert.equal("userdata", type(a:pointer()))
  end)

  it("is compared", function()
    local a = array { 1, 2, 3 }
    assert.is_true(a:equal(array({ 1, 2, 3 }, ">f4")))
    assert.is_true(a:equal(array({ 3, 2, 1 }):slice({ -1, 1, -1 })))
    assert.is_false(a:equal(array { 1, 2, 4 }))
    assert.is_false(a:equal(array { 1, 2 }))
    assert.is_false(a:equal(array { { 1, 2, 3 } }))
    assert.is_false(a:equal(array { "1", "2", "3" }))
    assert.is_false(array({ 0 / 0 }):equal(array { 0 / 0 }))
    assert.is_false(array({ array.nat }, "M8[s]"):equal(array({ array.nat }, "M8[s]")))
    assert.is_true(array({ -1 }, "u8"):equal(array({ -1 }, ">u8")))
    assert.is_false(array({ -1 }, "u8"):equal(array({ -1 }, "i8")))
    assert.is_true(array({ "a" }, "U1"):equal(array({ "a" }, ">U9")))
    assert.is_true(array({ "a", 1 }, "O"):equal(array({ "a", 1 }, "O")))
    assert.is_false(array({ "a", 1 }, "O"):equal(array({ "a", 2 }, "O")))
    local record = "[('x', '<f8'), ('y', '|S2')]"
    assert.is_true(array({ { x = 1, y = "a" } }, record):equal(array({ { x = 1, y = "a" } }, record)))
    assert.is_false(array({ { x = 1, y = "a" } }, record):equal(array({ { x = 1, y = "b" } }, record)))
    assert.is_true(array.zeros({ 0, 3 }):equal(array.zeros({ 0, 3 })))
    assert.error_matches(function() a:equal({ 1, 2, 3 }) end, "saturn.array expected")
  end)

  it("prints as one line", function()
    assert.equal("array(float64 [1000, 1000]: 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, ...)", tostring(array.zeros { 1000, 1000 }))
    assert.equal("array(int64 []: 5)", tostring(array(5)))
    assert.equal("array(float64 [0])", tostring(array {}))
    assert.equal([[array(U4 [2]: "a\"\x0a", "\\")]], tostring(array({ 'a"\n', "\\" }, "U4")))
    assert.equal("array(>i4 [1]: 7)", tostring(array({ 7 }, ">i4")))
    assert.equal("array(datetime64[ns] [2]: 5, NaT)", tostring(array({ 5, array.nat }, "M8[ns]")))
    assert.equal("array(object [3]: \"x\", table, null)",
      tostring(array({ "x", setmetatable({}, { __tostring = error }), core.null }, "O")))
    assert.equal('array(record [1]: {"x"=1, "y"=[...]})',
      tostring(array({ { x = 1, y = { 1, 2 } } }, "[('x', '<i4'), ('y', '<f8', (2,))]")))
    assert.equal('array(S100 [1]: "' .. ("x"):rep(32) .. '...")', tostring(array({ ("x"):rep(99) }, "S100")))
    assert.equal("saturn.array", getmetatable(array {}).__name)
  end)

  it("lets go of its memory when closed, any number of times", function()
    local kept
    do
      local a <close> = array { 1, 2 }
      kept = a
    end
    assert.error_matches(function() return kept[1] end, "closed")
    assert.error_matches(function() return kept.shape end, "closed")
    assert.error_matches(function() return kept:sum() end, "closed")
    kept:close()
    assert.equal("array(closed)", tostring(kept))
    assert.is_true(array.is(kept))
    assert.is_false(array.is {})
  end)

  it("makes the collector see the memory behind it", function()
    -- to a collector that counts userdata alone, these 200 are not worth a cycle
    local list = setmetatable({}, { __mode = "v" })
    for i = 1, 200 do list[i] = array.zeros(1 << 22, "u1") end
    local alive = 0
    for i = 1, 200 do if list[i] then alive = alive + 1 end end
    assert.is_true(alive < 100, alive .. " of 200 arrays of 4 MiB not collected")
  end)
end)

describe("a reduction", function()
  it("is exact for integers and wraps in 64 bits", function()
    assert.equal(6, array({ 1, 2, 3 }):sum())
    assert.equal(math.mininteger, array({ math.maxinteger, 1 }):sum())
    assert.equal(2.0 ^ 62, array({ math.maxinteger, 1 }):mean())
    assert.equal(-2.0 ^ 63, array({ math.mininteger, math.mininteger }):mean())
    assert.equal(-1.0, array({ -3, 1 }):mean())
    assert.equal(3, array({ true, true, false, true }):sum())
    assert.equal(0.75, array({ true, true, false, true }):mean())
    assert.is_true(array({ true, false }):max())
    assert.equal(200 * 255, array.zeros(200, "u1"):fill(255):sum())
    assert.equal(-128 * 5000, array.zeros(5000, "i1"):fill(-128):sum())
  end)

  it("keeps the accuracy of floats", function()
    local n = 1000003
    assert.is_true(math.abs(array.zeros(n):fill(0.1):sum() - n * 0.1) < 1e-9)
    assert.equal(n, array.zeros(n, "f4"):fill(1):sum())
    assert.equal(1e6, array.zeros({ 1000, 1000 }):fill(1):transpose():sum())
  end)

  it("answers NaN as NumPy does", function()
    local a = array { 1, 0 / 0, 3.5 }
    for _, name in ipairs { "sum", "mean", "min", "max" } do
      local r = a[name](a)
      assert.is_true(r ~= r, name)
    end
    local empty = array {}
    assert.equal(0.0, empty:sum())
    assert.is_true(empty:mean() ~= empty:mean())
    assert.error_matches(function() empty:min() end, "minimum of an empty array")
    assert.equal(array.nat, array({ 1, array.nat }, "M8[s]"):max())
    assert.equal(-math.huge, array({ -math.huge, 5 }):min())
  end)

  it("is refused where it means nothing", function()
    assert.error_matches(function() array({ "a" }):sum() end, "sum of a U1 array is not defined")
    assert.error_matches(function() array({ 1 }, "M8[s]"):mean() end, "not defined")
    assert.error_matches(function() array({ { re = 1, im = 1 } }):max() end, "not defined")
    assert.error_matches(function() array({ 1 }, "O"):sum() end, "not defined")
    assert.error_matches(function() array.zeros(2, "f16"):sum() end, "astype%('f8'%)")
    assert.error_matches(function() return array.zeros(2, "f16")[1] end, "depend on the machine")
    assert.equal("array(float128 [2]: ?, ?)", tostring(array.zeros(2, "f16")))
    assert.equal(32, #array.zeros(2, "f16"):tostring())
  end)
end)

describe("a type", function()
  it("is written as NumPy writes it", function()
    local cases = {
      ["f8"] = "<f8", ["=i4"] = "<i4", ["|u1"] = "|u1", ["<b1"] = "|b1", ["?"] = "|b1", ["b"] = "|i1",
      ["l"] = "<i8",
      ["float16"] = "<f2", ["int"] = "<i8", ["a5"] = "|S5", ["U3"] = "<U3", ["V7"] = "|V7", ["O8"] = "|O",
      ["M8[1ns]"] = "<M8[ns]", ["datetime64[D]"] = "<M8[D]", ["m8[generic]"] = "<m8", ["complex64"] = "<c8",
      ["|f8"] = "<f8",
      [ [=[ [ ( "a" , "f8" ) , ('b', [('c', 'i4')], 3) ] ]=] ] = "[('a', '<f8'), ('b', [('c', '<i4')], (3,))]",
      ["[(('title', 'n'), 'u1')]"] = "[('n', '|u1')]", ["[]"] = "[]",
      ["{'names': ['b', 'a'], 'formats': ['<i4', ('<f4', (2,))], 'offsets': [8, 0], 'itemsize': 16}"] =
        "{'names': ['b', 'a'], 'formats': ['<i4', ('<f4', (2,))], 'offsets': [8, 0], 'itemsize': 16}",
      ["{'names': ['a'], 'formats': ['<i4'], 'offsets': [4], 'itemsize': 12, 'aligned': True}"] =
        "[('', '|V4'), ('a', '<i4'), ('', '|V4')]",
    }
    for given, want in pairs(cases) do assert.equal(want, array.zeros(0, given).dtype) end
  end)

  it("that is none is refused", function()
    local cases = {
      "", "x", "f3", "i16", "b2", "c4", "U99999999999", "S-1", "f8 ", "<", "M8[", "M8[xs]", "M8[0s]", "M8[s]x",
      "f8[s]", "i4,f8", "[('a')]", "[('a', 'f8'", "[('a', 'f8'), 5]", "[('a', 'f8', (-1,))]", "[('a', 'O')]", "{}",
      "[(5, 'f8')]",
      "{'names': ['a'], 'formats': ['f8'], 'offsets': [4], 'itemsize': 8}", "[('a', 'f8', (99999, 99999, 99999))]",
      "{'names': ['a'], 'formats': ['f8'], 'offsets': [-1], 'itemsize': 8}", "['f8']", "[('a', 'V0', (9,))]",
      ("[('a', "):rep(40) .. "'f8'" .. (")]"):rep(40), ("["):rep(100000), "[('a', 'f8')] 5", "[('\\q', 'f8')]",
      "{'names': " .. ("["):rep(1000),
    }
    for _, text in ipairs(cases) do
      assert.is_false(pcall(array.zeros, 0, text), text:sub(1, 60))
    end
  end)
end)

describe("a file", function()
  local dir
  setup(function() dir = support.tmpdir() end)
  teardown(function() dir:remove() end)

  it("is mapped: read-only, shared, private", function()
    local path = dir.path .. "/raw"
    support.write_all(path, "headr" .. ("<i4"):pack(7) .. ("<i4"):pack(8) .. ("<i4"):pack(9))
    local a = array.open(path, { dtype = "<i4", offset = 5 })
    assert.same({ 7, 8, 9 }, a:totable())
    assert.is_false(a.writable)
    assert.error_matches(function() a[1] = 1 end, "read%-only")
    assert.error_matches(function() a:slice({ 1, 2 }):fill(1) end, "read%-only")
    assert.is_true(a:copy().writable)
    assert.same({ { 7 }, { 8 } }, array.open(path, { dtype = "<i4", offset = 5, shape = { 2, 1 } }):totable())
    array.open(path, { dtype = "<i4", offset = 5, mode = "c" })[1] = 70
    assert.equal(7, a[1])
    local shared = array.open(path, { dtype = "<i4", offset = 5, mode = "r+" })
    shared[2] = 80
    shared:close()
    assert.equal(80, array.open(path, { dtype = "<i4", offset = 5 })[2])
    assert.equal(17, array.open(path).size)
    assert.equal("|u1", array.open(path).dtype)
    support.write_all(path, "")
    assert.equal(0, array.open(path).size)
  end)

  it("that is not there or too short is an error of kind value", function()
    local path = dir.path .. "/short"
    support.write_all(path, "12345")
    support.raises("value", "No such file", array.open, dir.path .. "/none")
    support.raises("value", "No such file", array.load_npy, dir.path .. "/none")
    support.raises("value", "cannot create", array.save_npy, dir.path .. "/no/file", array { 1 })
    support.raises("value", "directory", array.open, dir.path)
    support.raises("value", "no whole number", array.open, path, { dtype = "i4" })
    support.raises("value", "shorter than the offset", array.open, path, { offset = 6 })
    support.raises("protocol", "more than the 5 bytes", array.open, path, { dtype = "i4", shape = { 2 } })
    support.raises("limit", "larger than memory", array.open, path, { dtype = "i4", shape = { 1 << 62, 4 } })
    support.raises("value", "not an .npy file", array.load_npy, path)
    assert.error_matches(function() array.open(path, { mod = "r" }) end, "did you mean 'mode'")
    assert.error_matches(function() array.open(path, { mode = "w" }) end, "'r', 'r%+' or 'c'")
    assert.error_matches(function() array.open(path, { dtype = "zz" }) end, "not an array type")
    assert.error_matches(function() array.open(path, { dtype = "O" }) end, "objects are not bytes")
    assert.error_matches(function() array.save_npy(path, {}) end, "needs an array")
  end)

  it("in .npy form is written and read", function()
    local path = dir.path .. "/a.npy"
    local a = array { { 1.5, 2.5 }, { 3.5, 4.5 } }
    for _, view in ipairs { a, a:transpose(), a:slice({ -1, 1, -1 }), a:slice(nil, 1), array(5), array {},
      array({ "h\u{e9}" }), a:astype(">f2"), array({ { ["\u{e9}"] = 1 } }, "[('\u{e9}', '<i4')]") } do
      array.save_npy(path, view)
      local back = array.load_npy(path)
      assert.is_true(back:equal(view), tostring(view))
      assert.equal(view.dtype, back.dtype)
      assert.is_true(back.writable)
      local mapped = array.open(path)
      assert.is_true(mapped:equal(view))
      assert.is_false(mapped.writable)
    end
    array.save_npy(path, a:transpose())
    assert.equal("F", array.load_npy(path).contiguous)
    support.raises("value", "Python objects", array.save_npy, path, array({ 1 }, "O"))
  end)

  it("of damaged .npy form is refused, at every length and with every byte changed", function()
    local path = dir.path .. "/b.npy"
    array.save_npy(path, array({ { x = 1, y = { 1, 2 } } }, "[('x', '<i4'), ('y', '<f8', (2,))]"))
    local bytes = support.read_all(path)
    local function try(text)
      support.write_all(path, text)
      local ok, a = pcall(array.load_npy, path)
      if not ok then
        assert.is_string(a.kind, tostring(a))
      else
        pcall(tostring, a)
        pcall(a.totable, a)
      end
      return ok
    end
    for n = 0, #bytes - 1 do assert.is_false(try(bytes:sub(1, n)), n) end
    for i = 1, #bytes do
      for _, c in ipairs { 0, 0x27, 0x28, 0x5b, 0x39, 0xff } do
        try(bytes:sub(1, i - 1) .. string.char(c) .. bytes:sub(i + 1))
      end
    end
    local function npy(header) return "\x93NUMPY\1\0" .. ("<s2"):pack(header) end
    for _, header in ipairs {
      "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", "{'descr': '<f8', 'fortran_order': False}",
      "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}", "{'descr': '<f8', 'descr': '<f8'}", "", "{",
      "{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 4)}",
      "{'descr': '<f8', 'fortran_order': False, 'shape': (9223372036854775808,)}",
      "{'descr': '<f8', 'fortran_order': True, 'shape': (0, 4611686018427387904, 4611686018427387904)}",
      "{'descr': '<f8', 'fortran_order': False, 'shape': (" .. ("1,"):rep(33) .. ")}",
      "{'descr': " .. ("["):rep(5000), "{'x': 1, 'descr': '<f8', 'fortran_order': False, 'shape': ()}",
    } do assert.is_false(try(npy(header) .. ("\0"):rep(64)), header:sub(1, 80)) end
    assert.is_true(try(npy "{'descr': '<f8', 'fortran_order': False, 'shape': (2L,)}" .. ("\0"):rep(16)))
    assert.is_false(try("\x93NUMPY\4\0\0\0"))
  end)
end)

describe("NumPy", function()
  local dir, cases

  setup(function()
    if not numpy then return end
    dir = support.tmpdir()
    support.shell(("%s spec/support/numpy_cases.py %s"):format(numpy, support.quote(dir.path)))
    cases = dofile(dir.path .. "/cases.lua")
  end)
  teardown(function() if dir then dir:remove() end end)

  -- Runs a script of the directory on a file of it.
  local function python(script, file)
    support.shell(("%s %s %s"):format(numpy, support.quote(dir.path .. "/" .. script),
      support.quote(dir.path .. "/" .. file)))
  end

  local function hex(a)
    return (a:tostring():gsub(".", function(c) return ("%02x"):format(c:byte()) end))
  end

  local function test(name, fn)
    it(name, function()
      if not numpy then return pending "no Python with NumPy" end
      fn()
    end)
  end

  test("agrees on every element, type and shape", function()
    assert.is_true(#cases > 50)
    for _, case in ipairs(cases) do
      for _, a in ipairs { array.load_npy(case.path), array.open(case.path) } do
        assert.equal(case.dtype, a.dtype)
        assert.is_true(same(case.shape, a.shape), case.path)
        if a.size > 0 then assert.equal(case.order, a.contiguous, case.path) end
        if a.size > 1 then assert.same(case.strides, a.strides) end
        assert.equal(case.nbytes, a.nbytes)
        assert.equal(case.bytes, a:tostring())
        assert.is_true(same(case.values, a:totable()), tostring(a))
        assert.is_nil(tostring(a):find "\n")
      end
    end
  end)

  test("agrees on sums, extremes and means", function()
    local compared = 0
    for _, case in ipairs(cases) do
      local a = array.load_npy(case.path)
      for _, name in ipairs { "sum", "min", "max", "mean" } do
        if case[name] ~= nil then
          local got = a[name](a)
          compared = compared + 1
          if type(case[name]) == "boolean" or math.type(case[name]) == "integer" then
            assert.equal(case[name], got, name .. " of " .. tostring(a))
          else
            assert.is_true(near(got, case[name]), ("%s of %s: %s, not %s"):format(name, tostring(a), got, case[name]))
          end
        else
          assert.is_false(pcall(a[name], a), name .. " of " .. tostring(a))
        end
      end
    end
    assert.is_true(compared > 100)
  end)

  test("reads what is written, views too", function()
    local out = {}
    for i, case in ipairs(cases) do
      local a = array.load_npy(case.path)
      local views = { { "x", a }, { "x.T", a:transpose() } }
      if a.ndim > 0 then
        views[#views + 1] = { "x[::-1]", a:slice({ nil, nil, -1 }) }
        views[#views + 1] = { "x[1:3]", a:slice({ 2, 3 }) }
        views[#views + 1] = { "x[..., ::2]", a:transpose():slice({ 1, -1, 2 }):transpose() }
      end
      if a.fields then
        for _, field in ipairs(a.fields) do
          views[#views + 1] = { ("x[%q]"):format(field.name), a:field(field.name) }
        end
      end
      for j, view in ipairs(views) do
        local path = ("%s/out-%d-%d.npy"):format(dir.path, i, j)
        array.save_npy(path, view[2])
        out[#out + 1] = table.concat({ case.path, view[1], path }, "\t")
      end
    end
    support.write_all(dir.path .. "/list", table.concat(out, "\n"))
    support.write_all(dir.path .. "/check.py", [[
import sys, numpy as np
for line in open(sys.argv[1], encoding="utf-8"):
    path, text, mine = line.rstrip("\n").split("\t")
    x = np.load(path)
    want, got = eval(text), np.load(mine)
    assert want.dtype == got.dtype and want.shape == got.shape, (text, want.dtype, got.dtype, want.shape, got.shape)
    assert want.tobytes() == got.tobytes(), (text, want, got)
]])
    python("check.py", "list")
  end)

  test("converts as astype does", function()
    local kinds = { "i1", "u1", ">i2", "u2", "i4", ">u4", "i8", "u8", "f2", ">f4", "f8", "c8", "b1" }
    local values = { 0, 1, 2, 100, 127 }
    local lines = {}
    for _, from in ipairs(kinds) do
      for _, to in ipairs(kinds) do
        if from ~= "b1" and (from ~= "c8" or to == "c8") then
          local a = array(values, from):astype(to)
          lines[#lines + 1] = from .. " " .. to .. " " .. hex(a)
        end
      end
    end
    for from, to in ("i8 i1,i8 u2,i8 u8,i8 b1,i8 f4,u8 i4"):gmatch "(%w+) (%w+)" do
      local wild = array({ -1, 256, 65537, math.mininteger, math.maxinteger }, from):astype(to)
      lines[#lines + 1] = "wild " .. from .. " " .. to .. " " .. hex(wild)
    end
    support.write_all(dir.path .. "/astype", table.concat(lines, "\n"))
    support.write_all(dir.path .. "/astype.py", [[
import sys, numpy as np
for line in open(sys.argv[1]):
    words = line.split()
    x = np.array([0, 1, 2, 100, 127])
    if words[0] == "wild":
        words, x = words[1:], np.array([-1, 256, 65537, -2**63, 2**63 - 1])
    want = x.astype(words[0]).astype(words[1]).tobytes().hex()
    assert want == words[2], (line, want)
]])
    python("astype.py", "astype")
  end)

  test("agrees on all half floats", function()
    local path = dir.path .. "/half.npy"
    support.write_all(dir.path .. "/half.py", [[
import sys, numpy as np
np.save(sys.argv[1], np.arange(65536, dtype="u2").view("f2"))
np.save(sys.argv[1] + ".f8.npy", np.arange(65536, dtype="u2").view("f2").astype("f8"))
rng = np.random.default_rng(1)
x = rng.standard_normal(20000) * 2.0 ** rng.integers(-30, 20, 20000)
m = np.arange(0, 65535, dtype="u2").view("f2").astype("f8")
m = m[np.isfinite(m)]
with np.errstate(all="ignore"):
    x = np.concatenate([x, (m[1:] + m[:-1]) / 2, np.nextafter((m[1:] + m[:-1]) / 2, 1e9)])
    np.save(sys.argv[1] + ".x.npy", x)
    np.save(sys.argv[1] + ".xh.npy", x.astype("f2"))
]])
    python("half.py", "half.npy")
    local half, wide = array.load_npy(path), array.load_npy(path .. ".f8.npy")
    assert.is_true(same(wide:totable(), half:astype("f8"):totable()))
    local x, xh = array.load_npy(path .. ".x.npy"), array.load_npy(path .. ".xh.npy")
    assert.equal(xh:tostring(), x:astype("f2"):tostring())
  end)
end)

-- Random views against a plain model of nested tables.
describe("views of views", function()
  it("reach the elements that they name", function()
    math.randomseed(11)
    for _ = 1, 300 do
      local shape, n = {}, 1
      for d = 1, math.random(1, 4) do
        shape[d] = math.random(1, 5)
        n = n * shape[d]
      end
      local values = {}
      for i = 1, n do values[i] = i end
      local a = array(values, { shape = shape, dtype = math.random() < 0.3 and "O" or "i4" })
      -- each dimension of the view: the flat step and start it has in `a`
      local dims, at, step = {}, 1, 1
      for d = #shape, 1, -1 do
        dims[d] = { n = shape[d], step = step }
        step = step * shape[d]
      end
      for _ = 1, 4 do
        local what = math.random(4)
        if what == 1 then
          a = a:transpose()
          for i = 1, #dims // 2 do dims[i], dims[#dims + 1 - i] = dims[#dims + 1 - i], dims[i] end
        elseif what == 2 and #dims > 0 then
          local args = {}
          for d, dim in ipairs(dims) do
            if dim.n > 0 and math.random() < 0.7 then
              local first, last = math.random(dim.n), math.random(dim.n)
              local s = (first <= last and 1 or -1) * math.random(2)
              args[d] = { first, last, s }
              at = at + (first - 1) * dim.step
              dim.n, dim.step = (last - first) // s + 1, dim.step * s
            end
          end
          a = a:slice(unpack(args, 1, #dims))
        elseif what == 3 and #dims > 1 and dims[1].n > 0 then
          local i = math.random(dims[1].n)
          a = a[i]
          at = at + (i - 1) * dims[1].step
          table.remove(dims, 1)
        elseif what == 4 then
          assert.is_true(a:copy():equal(a))
        end
      end
      local function build(d, flat)
        if d > #dims then return flat end
        local t = {}
        for i = 1, dims[d].n do t[i] = build(d + 1, flat + (i - 1) * dims[d].step) end
        return t
      end
      local want = build(1, at)
      assert.same(want, a:totable())
      assert.same(want, a:copy():totable())
      assert.same(want, a:astype("f8"):astype("i8"):totable())
    end
  end)
end)
