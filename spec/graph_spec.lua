-- Delayed values and raw graphs, without a cluster.
local core = require "saturn.core"
local delayed_room = require "saturn.graph.delayed"
local draw = require "saturn.graph.draw"
local keys = require "saturn.graph.key"
local options = require "saturn.dask.options"
local ops = require "saturn.dask.ops"
local raw = require "saturn.graph.raw"
local saturn = require "saturn"
local support = require "spec.support"
local walk = require "saturn.graph.walk"

local py, delayed, task, key = saturn.py, saturn.delayed, saturn.task, saturn.key
local misuse, raises = support.misuse, support.raises
local inc, add = delayed "mymod.inc", delayed "operator.add"

local function order_of(...)
  return walk.order { ... }
end

-- The position of each key in the order.
local function places(order)
  local place = {}
  for i, value in ipairs(order) do place[value.key] = i end
  return place
end

local function digest(...)
  local args = table.pack(...)
  return assert(core.session.digest("m", "f", nil, args, args.n))
end

describe("saturn.delayed", function()
  it("makes a function of a name, a reference or source", function()
    for _, fn in ipairs { "mymod.inc", py.ref "mymod:Class.inc", py.fn "lambda inc: inc" } do
      local value = delayed(fn)(1)
      assert.truthy(delayed_room.is_delayed(value))
      assert.truthy(value.key:find "^%w+%-%x+$")
    end
    assert.equal("<saturn.delayed.function: inc>", tostring(inc))
    assert.truthy(tostring(inc(1)):find "^<saturn%.delayed: inc%-%x+>$")
  end)

  it("refuses a Lua function and says what to use", function()
    misuse("Lua function cannot run.-saturn%.py%.fn", function() delayed(print) end)
    misuse("'puer'.-'pure'", function() delayed("f", { puer = true }) end)
    misuse("nout", function() delayed("f", { nout = 0 }) end)
  end)

  it("gives every call a key of its own, equal ones the same when pure", function()
    assert.not_equal(inc(1).key, inc(1).key)
    local pure = delayed("mymod.inc", { pure = true })
    assert.equal(pure(1).key, pure(1).key)
    assert.not_equal(pure(1).key, pure(2).key)
    assert.not_equal(pure(1).key, pure(1.0).key)
    assert.not_equal(pure(1).key, delayed("mymod.dec", { pure = true })(1).key)
    assert.equal(pure({ a = 1, b = 2 }, py.kw { c = 3, d = 4 }).key, pure({ b = 2, a = 1 }, py.kw { d = 4, c = 3 }).key)
    local x = inc(1)
    assert.equal(pure(x).key, pure(x).key)
    assert.not_equal(pure(x).key, pure(inc(1)).key)
  end)

  it("takes dask_key_name and pure as Python does, and a prefix", function()
    assert.equal("mine", inc(1, py.kw { dask_key_name = "mine" }).key)
    assert.equal(inc(1, py.kw { pure = true }).key, inc(1, py.kw { pure = true }).key)
    assert.truthy(delayed("mymod.inc", { key = "load" })(1).key:find "^load%-")
    assert.is_nil(delayed_room.node(inc(1, py.kw { dask_key_name = "x" })).kwargs)
    misuse("dask_key_name", function() inc(1, py.kw { dask_key_name = 5 }) end)
  end)

  it("builds nodes of arithmetic, .., indexing and calls", function()
    local x = inc(1)
    local function name_of(value) return delayed_room.node(value).callable.name end
    local names = {}
    for i, value in ipairs { x + 1, 1 - x, x * x, x / 2, x // 2, x % 2, x ^ 2, x & 1, x | 1, x ~ 1, x << 1, x >> 1,
      x .. "a", -x, ~x, #x, x[0], "10" + x } do names[i] = name_of(value) end
    assert.same({ "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and_", "or_", "xor", "lshift", "rshift",
      "concat", "neg", "invert", "len", "getitem", "add" }, names)
    assert.same({ 1, x }, { table.unpack(delayed_room.node(1 - x).args, 1, 2) })
    assert.equal((x + 1).key, (x + 1).key)
    assert.not_equal((x + 1).key, (x - 1).key)
    assert.equal(x.field.key, x["field"].key)
    local with_method, with_field = x:method(1, py.kw { a = 2 }), x.method(1)
    assert.truthy(with_method.key:find "^method%-")
    assert.same({ x, "method", 1 }, { table.unpack(delayed_room.node(with_method).args, 1, 3) })
    assert.same({ a = 2 }, { a = delayed_room.node(with_method).kwargs.a })
    assert.same({ x, "method", 1 }, { table.unpack(delayed_room.node(with_field).args, 1, 3) })
    assert.same({ x, 1 }, { table.unpack(delayed_room.node(x(1)).args, 1, 2) })
  end)

  it("says why a comparison is no node, and that it cannot be changed", function()
    local x = inc(1)
    misuse("operator%.lt", function() return x < 1 end)
    misuse("operator%.le", function() return x >= 1 end)
    misuse("cannot be changed", function() x.field = 1 end)
    misuse("client:compute", function() x:compute() end)
    assert.has_error(function() return table.unpack(x) end)
    assert.equal(x, x)
    assert.not_equal(x, inc(1))
  end)

  it("gives several values for nout", function()
    local q, r, none = delayed("divmod", { nout = 2 })(17, 5)
    assert.is_nil(none)
    assert.not_equal(q.key, r.key)
    assert.equal(3, #order_of(q, r))
  end)

  it("takes values, which may hold delayed ones", function()
    local x = inc(1)
    local value = delayed { x, { deep = inc(2) } }
    assert.truthy(value.key:find "^list%-")
    assert.equal(3, #order_of(value))
    assert.equal(x, delayed(x))
    assert.truthy(delayed(saturn.null).key)
    assert.equal("given", delayed(5, { key = "given" }).key)
    assert.equal(delayed({ 1, 2 }, { pure = true }).key, delayed({ 1, 2 }, { pure = true }).key)
  end)

  it("passes a delayed function on as the function", function()
    local value = delayed "map"(inc, { 1, 2 })
    assert.equal("ref", py.kind(delayed_room.node(value).args[1]))
  end)
end)

describe("the order of a graph", function()
  it("has each shared node once, and what is needed first", function()
    local a = inc(1)
    local b, c = inc(a), add(a, { a, { a } })
    local d = add(b, py.kw { other = c })
    local order = order_of(d)
    local place = places(order)
    assert.equal(4, #order)
    assert.is_true(place[a.key] < place[b.key] and place[a.key] < place[c.key])
    assert.equal(4, place[d.key])
    assert.equal(4, #order_of(d, a, d, b))
  end)

  it("is of what is needed only", function()
    local a = inc(1)
    local b = inc(a)
    inc(b)
    assert.equal(2, #order_of(b))
  end)

  it("is found for a chain of 100,000 and for a list of 100,000", function()
    local chain, list = inc(0), {}
    for i = 1, 100000 do
      chain = inc(chain)
      list[i] = inc(i)
    end
    assert.equal(100001, #order_of(chain))
    local order = order_of(delayed "sum"(list))
    assert.equal(100001, #order)
    assert.truthy(order[100001].key:find "^sum")
  end)

  it("looks through a table that many tasks share once", function()
    local shared, tasks = {}, {}
    for i = 1, 2000 do shared[i] = i end
    shared[2001] = inc(1)
    for i = 1, 2000 do tasks[i] = add(i, shared) end
    local start = os.clock()
    assert.equal(2001, #walk.order(tasks))
    assert.is_true(os.clock() - start < 2)
  end)

  it("is refused for a cycle, and the error shows it", function()
    local list = {}
    local a = inc(list, py.kw { dask_key_name = "a" })
    list[1] = inc(a, py.kw { dask_key_name = "b" })
    local err = raises("value", "cycle", walk.order, { a })
    assert.truthy(err.message:find("a needs b needs a", 1, true))
  end)

  it("passes over tables that hold themselves", function()
    local list = { inc(1) }
    list[2] = list
    assert.equal(2, #order_of(add(list)))
  end)
end)

describe("raw graphs", function()
  local function convert(graph, names) return raw.convert(graph, names, 2) end

  it("become delayed values with keys of their own", function()
    local nodes, roots = convert({ a = 1, b = task("operator.add", key "a", 10), c = task("operator.neg", 1) }, "b")
    assert.equal(nodes, roots[1])
    assert.truthy(nodes.key:find "^b%-%x+$")
    local order = walk.order(roots)
    assert.equal(2, #order)
    assert.truthy(order[1].key:find "^a%-%x+$")
  end)

  it("keep the nesting of names; tuples and integers are names", function()
    local graph = { [py.tuple { "x", 1 }] = 5, [3] = task("operator.neg", key(py.tuple { "x", 1 })), a = key(3) }
    local nodes, roots = convert(graph, { "a", { 3, py.tuple { "x", 1 } }, {} })
    assert.equal(nodes[2][1], roots[2])
    assert.same({}, nodes[3])
    assert.equal(3, #walk.order(roots))
    assert.truthy(nodes[2][2].key:find "^x%-")
  end)

  it("may nest tasks, names and delayed values in tables, without changing those tables", function()
    local args = { key "a", { deep = task("mymod.inc", key "a") }, inc(2) }
    local _, roots = convert({ a = 1, b = task("operator.add", args, py.kw { start = key "a" }) }, "b")
    assert.equal(4, #walk.order(roots))
    assert.equal("saturn.key", getmetatable(args[1]).__name)
    assert.equal("saturn.task", getmetatable(args[2].deep).__name)
  end)

  it("of 30,000 deep are no problem; a cycle is an error", function()
    local graph = { [0] = 1 }
    for i = 1, 30000 do graph[i] = task("mymod.inc", key(i - 1)) end
    local _, roots = convert(graph, 30000)
    assert.equal(30001, #walk.order(roots))
    _, roots = convert({ a = key "b", b = task("mymod.inc", key "c"), c = key "a" }, "a")
    raises("value", "cycle", walk.order, roots)
  end)

  it("that are none say what is wrong", function()
    misuse("a key is a string", function() key {} end)
    misuse("a key is a string", function() key(py.tuple { "x", true }) end)
    misuse("Lua function cannot run", function() task(print) end)
    local function get(...) raw.convert(...) end
    misuse('no task c; it has "a", "b"', function() get({ a = 1, b = 2 }, "c", 2) end)
    misuse('no task z; it has "a"', function() get({ a = task("f", { key "z" }) }, "a", 2) end)
    misuse("a graph is a table", function() get(5, "a", 2) end)
    misuse("name of a task", function() get({ a = 1 }, true, 2) end)
    misuse("a key is a string", function() get({ [true] = 1 }, "a", 2) end)
  end)
end)

describe("visualize", function()
  it("writes Graphviz's language", function()
    local dir <close> = support.tmpdir()
    local total = delayed "sum" { inc(1, py.kw { dask_key_name = 'a "1"' }), inc(2) }
    total:visualize(dir.path .. "/graph.dot")
    local text = support.read_all(dir.path .. "/graph.dot")
    assert.equal(draw.dot { total }, text)
    assert.truthy(text:find "^digraph saturn {\n")
    assert.truthy(text:find('"a \\"1\\"" [label="inc", shape=ellipse];', 1, true))
    local _, edges = text:gsub(" %-> ", "")
    assert.equal(2, edges)
  end)

  it("draws with Graphviz, or writes the text and says what is missing", function()
    local dir <close> = support.tmpdir()
    local path = dir.path .. "/graph.svg"
    if os.execute "command -v dot >/dev/null 2>&1" then
      inc(1):visualize(path)
      assert.truthy(support.read_all(path):find("<svg", 1, true))
      raises("value", "graph%.nosuch", function() inc(1):visualize(dir.path .. "/graph.nosuch") end)
    else
      local err = raises("value", "install Graphviz", function() inc(1):visualize(path) end)
      assert.truthy(err.message:find(dir.path .. "/graph.dot", 1, true))
      assert.truthy(support.exists(dir.path .. "/graph.dot"))
    end
  end)

  it("refuses what it cannot do", function()
    misuse("name of a file", function() inc(1):visualize() end)
    misuse("no ending", function() inc(1):visualize "graph" end)
    raises("value", "cannot be written", function() inc(1):visualize "/nonexistent/graph.dot" end)
  end)
end)

describe("content keys", function()
  it("are equal for equal values, whatever the order of their tables", function()
    local names = {}
    for i = 1, 50 do names[i] = "name" .. i end
    local up, down = {}, {}
    for i = 1, 50 do
      up[names[i]], down[names[51 - i]] = i, 51 - i
    end
    assert.equal(digest(up), digest(down))
    assert.equal(digest(py.set { 1, "a", 2.5 }), digest(py.set { 2.5, 1, "a" }))
    assert.equal(digest { 1, { 2, "x" } }, digest { 1, { 2, "x" } })
    assert.equal(digest(saturn.array { 1, 2, 3 }), digest(saturn.array { 3, 2, 1 }:slice { -1, 1, -1 }))
    assert.equal(32, #digest())
  end)

  it("differ for different values", function()
    local seen = {}
    for i, value in ipairs {
      1, 1.0, "1", true, false, saturn.null, {}, py.dict {}, { 1 }, py.tuple { 1 }, py.set { 1 }, py.frozenset { 1 },
      { { 1 } }, { 1, 1 }, { a = 1 }, { a = 2 }, { b = 1 }, "ab", { "a", "b" }, { "ab" }, { { "a" }, "b" }, "\xff",
      saturn.array { 1, 2 }, saturn.array { 1.0, 2.0 }, saturn.array { { 1, 2 } }, py.ref "a.b", py.bytes "1",
      py.timedelta { days = 1 }, inc(1, py.kw { dask_key_name = "k" }), "k",
    } do
      local name = digest(value)
      assert.is_nil(seen[name], ("values %d and %s are not told apart"):format(i, tostring(seen[name])))
      seen[name] = i
    end
    assert.not_equal(digest(1, 2), digest { 1, 2 })
    assert.not_equal(core.session.digest("m", "f", nil, {}, 0), core.session.digest("m", "g", nil, {}, 0))
    assert.not_equal(core.session.digest("m", "f", nil, {}, 0), core.session.digest(nil, "f", "m", {}, 0))
    assert.not_equal(core.session.digest("m", "f", nil, { 1 }, 1), core.session.digest("m", "f", nil, {}, 0, { 1 }))
  end)

  it("of what cannot be sent are errors", function()
    local cycle = {}
    cycle[1] = cycle
    local args = { cycle }
    local value, kind, message = core.session.digest("m", "f", nil, args, 1)
    assert.same({ nil, "limit" }, { value, kind })
    assert.truthy(message:find "cycle")
    value, kind = core.session.digest("m", "f", nil, { print }, 1)
    assert.same({ nil, "value" }, { value, kind })
  end)
end)

describe("keys", function()
  it("are texts on schedulers before 2023.9", function()
    assert.equal("('z', 0)", ops.key(20221201, py.tuple { "z", 0 }))
    assert.equal("('z',)", ops.key(20230801, py.tuple { "z" }))
    assert.equal("7", ops.key(20221201, 7))
    assert.equal("text", ops.key(20221201, "text"))
    assert.equal([[("it's", ('a"\'', 1))]], ops.key(20221201, py.tuple { "it's", py.tuple { "a\"'", 1 } }))
    local tuple = py.tuple { "z", 0 }
    assert.equal(tuple, ops.key(20230900, tuple))
  end)

  it("are strings, integers and tuples of those", function()
    for _, good in ipairs { "a", 1, py.tuple { "a", 1, 2.5 }, py.tuple { py.tuple { "a" }, 1 } } do
      assert.is_true(keys.is_key(good))
    end
    for _, bad in ipairs { "", 1.5, true, {}, { "a" }, py.tuple {}, py.tuple { true }, py.list { "a" }, "\xff" } do
      assert.is_false(keys.is_key(bad))
    end
  end)
end)

describe("a graph that is written", function()
  it("keeps nothing in Lua for a task", function()
    local reactor = core.reactor.new()
    local session = assert(core.session.open(reactor, { address = "tcp://127.0.0.1:1", id = "flat" }))
    for _, release in ipairs { 20221201, 20231201, 20241201, 20260800 } do
      local graph, args = session:graph(release), { 1, 2 }
      local function add_tasks(first, last)
        for i = first, last do
          local name = ("add-%08x"):format(i)
          assert(graph:task(name, "operator", "add", nil, args, 2))
          graph:want(name)
        end
        local _, bytes = graph:size()
        collectgarbage()
        collectgarbage()
        return bytes, collectgarbage "count"
      end
      local bytes, before = add_tasks(1, 1000)
      local more, after = add_tasks(1001, 5000)
      assert.is_true(after - before < 100, ("%.0f KiB"):format(after - before))
      assert.is_true(more < bytes * 5.5, ("%d bytes, then %d"):format(bytes, more))
    end
    session:close()
  end)
end)

describe("an argument that holds itself", function()
  it("is refused where Dask would look through it without end", function()
    local reactor = core.reactor.new()
    local session = assert(core.session.open(reactor, { address = "tcp://127.0.0.1:1", id = "cycle" }))
    local list, dict, shared = {}, { x = {} }, { 1 }
    list[1], dict.x[1] = list, dict
    local tuple = py.tuple { {} }
    tuple[1][1] = tuple
    local object = py.object("m.C", { list })
    local behind = { py.object("m.C", {}) }
    behind[1].args[1] = behind
    for _, release in ipairs { 20221201, 20231201, 20241201, 20260800 } do
      local function kind_of(value)
        local done, kind, message = session:graph(release):task("key", "builtins", "len", nil, { value }, 1)
        assert.truthy(done or message:find "holds itself", message)
        return done and "fine" or kind
      end
      for _, each in ipairs { list, dict, tuple, { { list } } } do assert.equal("value", kind_of(each)) end
      for _, each in ipairs { { shared, shared }, { object, object }, behind } do
        assert.equal("fine", kind_of(each))
      end
    end
    session:close()
  end)
end)

describe("options of calls", function()
  local function merge(outer, given) return options.merge(outer, given, 2) end

  it("of a view come on top of those it was made from", function()
    local first = merge(nil, { priority = 1, retries = 2.0, tags = "a" })
    local second = merge(first, { priority = 5, workers = "w0", tags = { "b", "c" } })
    assert.same({ 5, 2, { "w0" } }, { second.priority, second.retries, second.workers })
    assert.equal("integer", math.type(second.retries))
    assert.same({ "a", "b", "c" }, second.span.name)
    assert.equal(first.span.ids[1], second.span.ids[1])
    assert.equal(3, #second.span.ids)
    assert.truthy(second.span.ids[3]:find "^%x%x%x%x%x%x%x%x%-%x%x%x%x%-4%x%x%x%-a%x%x%x%-%x+$")
    assert.equal(1, #first.span.ids)
  end)

  it("are checked", function()
    local function with(given) merge(nil, given) end
    for name, given in pairs {
      retries = { retries = -1 }, workers = { workers = {} }, ["'workers'.-element 2"] = { workers = { "a", 5.5 } },
      resources = { resources = { "GPU" } }, tags = { tags = { "" } }, batch_size = { batch_size = 0 },
      ["a key is"] = { key = true }, ["'priority'.-number"] = { priority = "high" },
      ["did you mean 'workers'"] = { worker = 1 },
    } do
      assert.error_matches(function() with(given) end, name)
    end
  end)
end)
