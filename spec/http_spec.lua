-- The HTTP calls, against the service in lua/saturn/local with its scripted faults.
local core = require "saturn.core"
local errors = require "saturn.error"
local http = require "saturn.cloud.http"
local cloud_json = require "saturn.cloud.json"
local loop = require "saturn.loop"
local service = require "saturn.local"
local support = require "spec.support"

local raises = support.raises

-- The least of the settings that the calls need, made as `connect` makes them.
local function new_http(server, options)
  local settings = { base_url = server.base_url, token = server.token, proxy = "", retry_delay = 0.01 }
  for name, value in pairs(options or {}) do settings[name] = value end
  return http.new(require("saturn.cloud.settings").resolve(settings))
end

describe("http", function()
  local server, calls

  setup(function()
    server = service.start { test_control = true }
    calls = new_http(server)
  end)
  teardown(function() server:close() end)
  before_each(function()
    calls:call { method = "DELETE", path = "_test/faults" }
    calls:call { path = "_test/requests", query = { clear = "true" } }
  end)

  local function faults(...)
    calls:call { method = "POST", path = "_test/faults", json = { faults = { ... } } }
  end

  local function requests()
    return calls:call({ path = "_test/requests" }).requests
  end


  it("sends what dask-saturn sends", function()
    calls:call { path = "api/status" }
    pcall(calls.call, calls, { method = "POST", path = "api/dask_clusters/none/close", body = "" })
    pcall(calls.call, calls, { method = "POST", path = "api/dask_clusters/none/scale", json = { n = 3 } })
    local seen = requests()
    assert.equal("token <secret>", seen[1].headers.authorization)
    assert.equal("0.4.4", seen[1].headers["x-dask-saturn-version"])
    assert.truthy(seen[1].headers["user-agent"]:find "^saturn%-lua/")
    assert.is_nil(seen[2].headers["content-type"])
    assert.equal("0", seen[2].headers["content-length"])
    assert.equal("application/json", seen[3].headers["content-type"])
    assert.equal('{"n":3}', seen[3].body)
    assert.equal(seen[1].connection, seen[3].connection, "the connection is kept")
  end)

  it("makes several requests at once through the loop", function()
    faults({ path = "/api/status", delay = 0.3, times = 3 })
    local started, versions = loop.now(), {}
    local function ask() table.insert(versions, (calls:call({ path = "api/status" }).version)) end
    loop.run(ask, ask, ask)
    assert.equal(3, #versions)
    assert.is_true(loop.now() - started < 0.75)
  end)

  it("bounds the length of an answer", function()
    faults({ path = "/api/status", status = 200, body = ("x"):rep(5000) })
    local small = new_http(server, { max_body = 1000 })
    raises("limit", "1000 bytes.*max_body", small.call, small, { path = "api/status" })
    assert.equal("ok", small:call({ path = "api/status" }).status)
  end)

  it("gives up on a slow answer", function()
    faults({ path = "/api/status", slow = { chunk = 1, interval = 0.2 } })
    local hasty = new_http(server, { timeout = 0.3 })
    raises("timeout", "timeout=", hasty.call, hasty, { path = "api/status" })
    assert.equal("ok", calls:call({ path = "api/status" }).status)
  end)

  it("repeats what a busy service turned away, and waits as long as it is told", function()
    for _, status in ipairs { 429, 502, 503, 504 } do
      faults({ path = "/api/status", status = status, body = "busy", times = 2 })
      assert.equal("ok", calls:call({ path = "api/status" }).status)
    end
    assert.equal(12, #requests())
    faults({ path = "/api/status", status = 503, headers = { ["Retry-After"] = "1" } })
    local started = loop.now()
    calls:call { path = "api/status" }
    assert.is_true(loop.now() - started >= 1)
    faults({ path = "/api/status", status = 503, headers = { ["Retry-After"] = "7200" } })
    raises("api", "HTTP 503.*try again later", calls.call, calls, { path = "api/status" })
  end)

  it("repeats after a lost connection", function()
    faults({ path = "/api/status", close = true })
    assert.equal("ok", calls:call({ path = "api/status" }).status)
    faults({ path = "/api/status", truncate = 5 })
    assert.equal("ok", calls:call({ path = "api/status" }).status)
  end)

  it("does not repeat what may be done once only, unless it was turned away untouched", function()
    local call = { path = "api/status", repeatable = false }
    faults({ path = "/api/status", close = true })
    raises("closed", "may or may not", calls.call, calls, call)
    faults({ path = "/api/status", status = 502 })
    raises("api", "HTTP 502", calls.call, calls, call)
    faults({ path = "/api/status", status = 503 })
    assert.equal("ok", calls:call(call).status)
  end)

  it("ends the retries with the error", function()
    faults({ path = "/api/status", status = 503, body = "<h1>down</h1>", times = 10 })
    local few = new_http(server, { retries = 2 })
    local err = raises("api", "down %(HTTP 503%)", few.call, few, { path = "api/status" })
    assert.equal(503, err.status)
    assert.equal(3, #requests())
  end)

  it("reads Retry-After as seconds and as a date", function()
    assert.equal(120, http.retry_after("120"))
    assert.equal(60, http.retry_after("Wed, 21 Oct 2015 07:28:00 GMT", 1445412420))
    assert.equal(0, http.retry_after("Wed, 21 Oct 2015 07:28:00 GMT", 1445412490))
    assert.is_nil(http.retry_after("soon"))
    assert.is_nil(http.retry_after(nil))
  end)

  it("follows redirects, and gives the token to the same host only", function()
    faults({ path = "/api/status", status = 302, headers = { Location = "/api/user" } })
    assert.equal("local", calls:call({ path = "api/status" }).username)
    local other <close> = service.start { test_control = true }
    local asked = new_http(other)
    faults({ path = "/api/status", status = 307, headers = { Location = other.base_url .. "/api/status" } })
    local err = raises("auth", nil, calls.call, calls, { path = "api/status" })
    assert.equal(401, err.status)
    local seen = asked:call({ path = "_test/requests" }).requests
    assert.equal("/api/status", seen[1].path)
    assert.is_nil(seen[1].headers.authorization)
    faults({ path = "/api/status", status = 302, headers = { Location = "/api/status" }, times = 20 })
    raises("protocol", "redirects without end", calls.call, calls, { path = "api/status" })
  end)

  it("goes through a proxy that is named, in the options or the environment", function()
    -- the service answers whatever host it is asked for, as a proxy does
    local through = new_http(server, { base_url = "http://saturn.invalid", proxy = server.base_url })
    assert.equal("ok", through:call({ path = "api/status" }).status)
    local program = ([[
      local conn = require("saturn.cloud").connect { base_url = "http://saturn.invalid", token = %q }
      io.write(conn:ping().status)]]):format(server.token)
    local command = support.quote(support.lua()) .. " -e " .. support.quote(program)
    assert.equal("ok", support.shell("env http_proxy=" .. server.base_url .. " " .. command))
    local _, status = support.shell("env http_proxy=" .. server.base_url .. " no_proxy=saturn.invalid " .. command
      .. " 2>/dev/null", true)
    assert.not_equal(0, status)
  end)

  it("keeps a POST a POST when the service moved", function()
    faults({ path = "/api/dask_clusters/x/scale", status = 301,
      headers = { Location = "/api/dask_clusters/y/scale" } })
    raises("api", "not found", calls.call, calls, { method = "POST", path = "api/dask_clusters/x/scale",
      json = { n = 1 } })
    local seen = requests()
    assert.equal("POST", seen[2].method)
    assert.equal('{"n":1}', seen[2].body)
  end)

  it("tells on_request of each request, without a secret", function()
    local seen = {}
    local watched = new_http(server, { on_request = function(event) seen[#seen + 1] = event end })
    faults({ path = "/api/status", status = 503 })
    watched:call { path = "api/status", query = { a = "b c" } }
    assert.equal(2, #seen)
    assert.equal(503, seen[1].status)
    assert.equal("number", type(seen[1].retry_in))
    assert.equal(200, seen[2].status)
    assert.equal(server.base_url .. "/api/status?a=b%20c", seen[2].url)
    for _, event in ipairs(seen) do
      for _, value in pairs(event) do assert.is_nil(tostring(value):find(server.token, 1, true)) end
    end
  end)

  it("keeps the token out of errors even when the service echoes it", function()
    faults({ path = "/api/status", status = 400, json = { message = "bad token " .. server.token } })
    local err = raises("api", "bad token %[token%]", calls.call, calls, { path = "api/status" })
    for _, value in pairs(err) do assert.is_nil(tostring(value):find(server.token, 1, true)) end
  end)

  it("renews a token that expired, once for all who wait", function()
    local short <close> = service.start { test_control = true }
    local renewing = new_http(short, { refresh_token = short.refresh_token })
    renewing:call { method = "POST", path = "_test/faults",
      json = { faults = { { path = "/api/status", expire_token = true } } } }
    local versions = {}
    local function ask() table.insert(versions, (renewing:call({ path = "api/status" }).version)) end
    loop.run(ask, ask, ask)
    assert.equal(3, #versions)
    local plain = new_http(short)
    local err = raises("auth", "expired.*api/user/token", plain.call, plain, { path = "api/status" })
    assert.equal(401, err.status)
  end)

  it("leaves no request behind when waiting is interrupted", function()
    faults({ path = "/api/status", delay = 0.5 })
    local ok = pcall(function()
      local stop = loop.timer(0.1, function() error "interrupted!" end)
      local _ <close> = setmetatable({}, { __close = function() stop:cancel() end })
      calls:call { path = "api/status" }
    end)
    assert.is_false(ok)
    assert.equal("ok", calls:call({ path = "api/status" }).status)
  end)
end)

describe("https", function()
  it("is verified against the given authority", function()
    local server <close> = service.start { test_control = true, https = "valid" }
    assert.equal("ok", new_http(server, { ca_file = server.ca_file }):call({ path = "api/status" }).status)
    local plain = new_http(server)
    raises("tls", "ca_file=", plain.call, plain, { path = "api/status" })
    local absent = new_http(server, { ca_file = "/nonexistent/ca.pem" })
    raises("tls", "/nonexistent/ca.pem", absent.call, absent, { path = "api/status" })
  end)

  it("refuses a certificate that expired or names another host", function()
    for _, how in ipairs { "expired", "wrong_host" } do
      local server <close> = service.start { test_control = true, https = how }
      local calls = new_http(server, { ca_file = server.ca_file })
      raises("tls", "localhost", calls.call, calls, { path = "api/status" })
    end
  end)
end)

describe("the C face of http", function()
  local reactor = loop.reactor()

  it("takes URLs apart and joins them", function()
    local url = core.http.url("HTTPS://Example.org/a/b?q=1")
    assert.same({ "https", "443", "/a/b", false }, { url.scheme, url.port, url.path, url.has_user })
    assert.is_true(core.http.url("https://me:word@example.org").has_user)
    assert.equal("https://example.org/c", core.http.url("https://example.org/a/b", "/c").text)
    for _, text in ipairs { "", "example.org/x", "ftp://example.org", "https://", "file:///etc/passwd", "a b" } do
      local result, kind = core.http.url(text)
      assert.is_nil(result, text)
      assert.equal("value", kind)
    end
  end)

  it("refuses headers with control characters and options of wrong types", function()
    local start = core.http.start
    for _, options in ipairs {
      {}, { url = 1 }, { url = "http://x", headers = { "A: b\r\nC: d" } }, { url = "http://x", headers = { {} } },
      { url = "http://x", timeout = -1 }, { url = "http://x", timeout = "soon" }, { url = "http://x\0y" },
    } do
      assert.has_error(function() start(reactor, options) end)
    end
  end)

  it("can be closed at any time, also twice", function()
    local request = assert(core.http.start(reactor, { url = "http://127.0.0.1:1/", proxy = "" }))
    assert.equal("saturn.http_request (under way)", tostring(request))
    assert.has_error(function() request:response() end, "the request is not done")
    request:close()
    request:close()
    assert.has_error(function() request:done() end)
  end)

  it("does not speak other protocols", function()
    local request <close> = assert(core.http.start(reactor, { url = "file:///etc/passwd" }))
    loop.wait(function() return request:done() end, 5, "the answer")
    local response, kind = request:response()
    assert.is_nil(response)
    assert.equal("protocol", kind)
  end)
end)

describe("JSON", function()
  it("gives integers as integers", function()
    local value = cloud_json.decode '{"a": 1, "b": [2, 2.5, null], "c": null, "big": 1e300}'
    assert.equal("integer", math.type(value.a))
    assert.equal("integer", math.type(value.b[1]))
    assert.equal("float", math.type(value.b[2]))
    assert.equal("float", math.type(value.big))
    assert.is_nil(value.c)
    assert.is_nil(value.b[3])
  end)

  it("reports what is not JSON", function()
    for _, text in ipairs { "", "<html>", "{", ("["):rep(500) } do
      local value, message = cloud_json.decode(text)
      assert.is_nil(value)
      assert.equal("string", type(message))
    end
    assert.is_nil(cloud_json.encode(function() end))
    assert.is_nil(cloud_json.encode({ 0 / 0 }))
    assert.equal('{"n":4}', cloud_json.encode { n = 4.0 })
    assert.is_false(errors.is_error(cloud_json))
  end)
end)
