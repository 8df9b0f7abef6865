-- Connections and clusters, against the service in lua/saturn/local with a real Dask and its scripted faults.
local cloud = require "saturn.cloud"
local loop = require "saturn.loop"
local service = require "saturn.local"
local start = require "saturn.cloud.start"
local support = require "spec.support"

local raises = support.raises

local function connect(server, options)
  local all = { base_url = server.base_url, token = server.token, proxy = "", retry_delay = 0.01, poll_min = 0.05,
    poll_max = 0.2, on_warning = function() end }
  for name, value in pairs(options or {}) do all[name] = value end
  return cloud.connect(all)
end

describe("the control plane", function()
  local server, conn, keys_again

  setup(function()
    keys_again = support.one_key()
    server = service.start { test_control = true }
    conn = connect(server)
  end)
  teardown(function()
    server:close()
    keys_again()
  end)

  local function faults(...)
    conn.http:call { method = "POST", path = "_test/faults", json = { faults = { ... } } }
  end

  local function requests()
    return conn.http:call({ path = "_test/requests", query = { clear = "true" } }).requests
  end

  local function fresh()
    conn.http:call { method = "DELETE", path = "_test/faults" }
    requests()
  end

  before_each(fresh)

  -- The cluster of the token, running with one worker. Others close it; it is started again when needed.
  local function running(options)
    local all = { n_workers = 1, nthreads = 1 }
    for name, value in pairs(options or {}) do all[name] = value end
    return conn:cluster(all)
  end

  describe("connection", function()
    it("lists the sizes", function()
      local sizes = conn:sizes()
      assert.equal("large", sizes[2].name)
      assert.truthy(sizes[2].display:find "GB RAM")
      assert.equal("integer", math.type(sizes[2].cores))
    end)

    it("says who answers and who asks", function()
      assert.equal("ok", conn:ping().status)
      assert.equal("local", conn:user().username)
      assert.equal(1, select("#", conn:ping()))
      assert.equal(1, select("#", conn:user()))
    end)

    it("makes no request by itself, and takes a URL alone", function()
      connect(server)
      local other = connect { base_url = "http://127.0.0.1:1", token = "t0" }
      assert.truthy(tostring(other):find("http://127.0.0.1:1/", 1, true))
      assert.same({}, requests())
    end)

    it("is of no use when closed, and closes twice", function()
      local other <close> = connect(server)
      other:close()
      other:close()
      raises("closed", "closed", other.sizes, other)
      raises("closed", "closed", other.cluster, other)
      assert.truthy(tostring(other):find "closed%)$")
    end)
  end)

  describe("errors", function()
    it("of a wrong token say where to get one", function()
      local wrong = connect(server, { token = "wrong-token" })
      local err = raises("auth", "refused the token from the arguments.*api/user/token", wrong.sizes, wrong)
      assert.equal(401, err.status)
      assert.is_nil(tostring(err):find("wrong-token", 1, true))
      raises("auth", nil, wrong.cluster, wrong)
    end)

    it("carry the status and the server's message", function()
      faults({ path = "/api/dask_clusters/info", status = 404, json = { message = "Nothing here.",
        error_code = "not_found" } })
      local err = raises("api", "Nothing here.*HTTP 404.*base_url", conn.sizes, conn)
      assert.equal(404, err.status)
      assert.equal("Nothing here.", err.reason)
      assert.equal("not_found", err.code)
    end)

    it("trim a page of HTML to what it says", function()
      faults({ path = "/api/dask_clusters/info", status = 500, body = "<html><head><style>p{}</style><title>"
        .. "500 Internal Server Error</title></head><body><h1>Oops</h1></body></html>" })
      local err = raises("api", "500 Internal Server Error %(HTTP 500%)", conn.sizes, conn)
      assert.equal(500, err.status)
      assert.is_nil(err.message:find("<", 1, true))
      faults({ path = "/api/dask_clusters/info", status = 500, body = ("<p>no end "):rep(1000) })
      err = raises("api", "no end", conn.sizes, conn)
      assert.is_true(#err.message < 400)
      faults({ path = "/api/dask_clusters/info", status = 500, body = "" })
      raises("api", "no reason given", conn.sizes, conn)
    end)

    it("let no server move the cursor of a terminal", function()
      faults({ path = "/api/dask_clusters/info", status = 400, json = { message = "a\27[2Jb" .. ("c"):rep(1e5) } })
      local err = raises("api", "a%?%[2Jb", conn.sizes, conn)
      assert.is_true(#err.message < 3000)
      faults({ cluster_status = { "error" }, errors = { "\27]0;x\7" } })
      raises("api", "%?%]0;x%?", conn.cluster, conn)
    end)

    it("name the address that refuses connections", function()
      local nobody = connect({ base_url = "http://127.0.0.1:1", token = "t0" })
      raises("connect", "127.0.0.1.*Check base_url", nobody.sizes, nobody)
      local unknown = connect({ base_url = "http://no-such-host.invalid", token = "t0" })
      raises("connect", "no%-such%-host.invalid", unknown.cluster, unknown)
    end)

    it("tell of a body that is no JSON, or not the expected one", function()
      faults({ path = "/api/dask_clusters/info", status = 200, body = "<html><title>Sign in</title></html>" })
      raises("protocol", "not JSON.*Sign in.*base_url", conn.sizes, conn)
      faults({ path = "/api/dask_clusters/info", status = 200, json = { server_options = { size = { 1 } } } })
      raises("protocol", "without a name", conn.sizes, conn)
      faults({ path = "/api/dask_clusters", status = 200, json = { dask_clusters = { 1 } } })
      raises("protocol", "no object", conn.clusters, conn)
      for _, answer in ipairs { { a = 1 }, { server_options = 1 }, { 1, 2 } } do
        faults({ path = "/api/dask_clusters/info", status = 200, json = answer })
        raises("protocol", "sizes cannot be read", conn.sizes, conn)
      end
      for _, body in ipairs { "3", '"ready"', "true" } do
        faults({ path = "/api/dask_clusters", status = 200, body = body })
        raises("protocol", "neither an object nor a list", conn.cluster, conn)
      end
      for _, body in ipairs { "", "null", "[]", '{"status": 1}', '{"id": "x"}' } do
        faults({ path = "/api/dask_clusters", status = 200, body = body })
        raises("protocol", "no status", conn.cluster, conn)
      end
      faults({ path = "/api/dask_clusters", status = 200, body = '{"status": "ready"}' })
      raises("protocol", "not its id", conn.cluster, conn)
    end)

    it("of a start show all that the service says", function()
      faults({ cluster_status = { "error" }, errors = { "No quota.", "Ask somebody." } })
      local err = raises("api", "could not be started: No quota. Ask somebody.", conn.cluster, conn)
      assert.same({ "No quota.", "Ask somebody." }, err.errors)
      faults({ cluster_status = { "error" } })
      raises("api", "no reason", conn.cluster, conn)
    end)

    it("of an unknown size name those there are", function()
      raises("value", "worker_size '9xlarge'.*Choose one of: medium %(", conn.cluster, conn,
        { worker_size = "9xlarge" })
      raises("value", "scheduler_size 'tiny'", conn.reset, conn, { scheduler_size = "tiny" })
      for _, request in ipairs(requests()) do assert.equal("/api/dask_clusters/info", request.path) end
    end)

    it("of misuse of a connection's and a cluster's calls stand at the caller's line", function()
      local misuse = support.misuse
      for _, list in ipairs { "workspaces", "deployments", "jobs" } do
        misuse("^unknown option 'foo'", function() conn[list](conn, { foo = 1 }) end)
      end
      faults({ path = "/api/recipes", status = 200, json = { recipes = { { spec = { name = "x" } } } } })
      local job = conn:resource("job", "x")
      for _, action in ipairs { "start", "stop", "restart" } do
        misuse("^unknown option 'foo'", function() job[action](job, { foo = 1 }) end)
      end
      local cluster = require("saturn.cloud.cluster").new(conn, "x", {})
      misuse("^sync_files: a path is needed", function() cluster:sync_files() end)
      misuse("^unknown option 'foo'", function() cluster:sync_files("x", { foo = 1 }) end)
      misuse("^unknown option 'foo'", function() cluster:list_files { foo = 1 } end)
      misuse("^clear_files: the path", function() cluster:clear_files(5) end)
      misuse("^options must be a table", function() cluster:setup_workers(5) end)
      misuse("^options must be a table, not number", function() cluster:client(5) end)
      misuse("^a timeout is a number of seconds", function() cluster:wait_for_workers(9, "x") end)
    end)

    it("of misuse stand at the caller's line", function()
      for _, options in ipairs { { n_worker = 1 }, { n_workers = "1" }, { n_workers = -1 }, { nthreads = 0 },
        { on_running = "stop" }, { shutdown_on_close = "never" } } do
        local ok, err = pcall(function() conn:cluster(options) end)
        assert.is_false(ok)
        assert.equal("string", type(err))
        assert.truthy(err:find "^spec/cloud_spec.lua:%d+: ", err)
      end
    end)
  end)

  describe("a token that the service sends back", function()
    local CLUSTERS = "/api/dask_clusters"
    local echoing, shown, escaped

    -- Everything that is shown to a program: results, errors, and what callbacks are told.
    local function note(value, seen)
      seen = seen or {}
      if type(value) ~= "table" then
        shown[#shown + 1] = tostring(value)
      elseif not seen[value] and value ~= echoing then
        seen[value] = true
        if (getmetatable(value) or {}).__tostring then shown[#shown + 1] = tostring(value) end
        for name, item in pairs(value) do
          note(name, seen)
          note(item, seen)
        end
      end
    end

    before_each(function()
      shown, escaped = {}, server.token:gsub("^.", function(first) return ("\\u%04x"):format(first:byte()) end)
      echoing = connect(server, { retries = 0, poll_min = 0.01, poll_max = 0.01, on_request = note,
        on_warning = note })
    end)

    -- The call with these answers: what was shown names the token, but does not hold it.
    local function check(fn, ...)
      fresh()
      faults(...)
      local ok, result = pcall(fn)
      note { result }
      local text = table.concat(shown, "\n")
      assert.is_nil(text:find(server.token, 1, true), text)
      assert.truthy(text:find("[token]", 1, true), text)
      shown = {}
      return ok
    end

    local function answer(path, json, status)
      return { path = path, status = status or 200, json = json }
    end

    local function begin()
      return echoing:cluster { wait_timeout = 0.05, on_status = function(...) note { ... } end }
    end

    it("is in no error", function()
      local bad = "bad " .. server.token
      for status = 400, 403 do
        check(function() return echoing:user() end,
          answer("/api/user", { message = bad, error_code = "code-" .. bad }, status))
      end
      check(function() return echoing:user() end, { path = "/api/user", status = 500,
        body = '{"message": "bad ' .. escaped .. '"}' })
      check(function() return echoing:user() end, { path = "/api/user", status = 200, body = "<p>" .. bad .. "</p>",
        headers = { ["Content-Type"] = "text/" .. server.token } })
      check(begin, answer(CLUSTERS, { status = "error", id = "x", errors = { bad } }))
      check(begin, answer(CLUSTERS, { status = bad, id = "x" }))
      check(function() return echoing:cluster { worker_size = "none" } end,
        answer(CLUSTERS .. "/info", { server_options = { size = { { name = server.token, display = bad } } } }))
      check(function() return echoing:cluster { name = "none" } end,
        answer(CLUSTERS, { dask_clusters = { { name = bad, id = "x" } } }))
      check(function() return echoing:resource("job", "none") end,
        { path = "/api/recipes", status = 200, times = 2, json = { recipes = { { spec = { name = bad } } } } })
    end)

    it("is in no object, callback or record", function()
      local id = "id-" .. server.token
      assert.is_true(check(function() return echoing:user() end,
        answer("/api/user", { username = { [server.token] = id } })))
      assert.is_true(check(function() return echoing:user() end,
        { path = "/api/user", status = 200, body = '{"username": "' .. escaped .. '"}' }))
      assert.is_true(check(function()
        local cluster = begin()
        cluster.started = false
        return cluster
      end, answer(CLUSTERS, { status = "ready", id = id, name = id, warnings = { id } }),
        answer(CLUSTERS .. "/id-*/info", { scheduler_address = "tcp://" .. id .. ":1",
          dashboard_link = "http://x/?token=" .. server.token })))
    end)
  end)

  describe("start", function()
    it("repeats the same POST until ready, and tells of each answer", function()
      running()
      requests()
      faults({ cluster_status = { "pending", "starting", "ready" }, warnings = { "Careful.", "Careful." } })
      local seen, warnings = {}, {}
      local watched = connect(server, { on_warning = function(text) warnings[#warnings + 1] = text end })
      local cluster = watched:cluster { n_workers = 1, nthreads = 1, worker_is_spot = false,
        on_status = function(status, elapsed, details)
          seen[#seen + 1] = { status, elapsed, details.next_poll, #details.warnings }
        end }
      assert.same({ "pending", 0 }, { seen[1][1], math.floor(seen[1][2]) })
      assert.equal("starting", seen[2][1])
      assert.equal("ready", seen[3][1])
      assert.equal("number", type(seen[1][3]))
      assert.is_nil(seen[3][3])
      assert.same({ 1, 0, 0 }, { seen[1][4], seen[2][4], seen[3][4] })
      assert.same({ "Careful." }, warnings)
      assert.same({ "Careful." }, cluster.warnings)
      assert.is_true(cluster.started)
      local posts = {}
      for _, request in ipairs(requests()) do
        if request.method == "POST" and request.path == "/api/dask_clusters" then posts[#posts + 1] = request end
      end
      assert.equal(3, #posts)
      for _, post in ipairs(posts) do
        assert.equal("is_external=true", post.query)
        assert.equal(posts[1].body, post.body)
      end
      assert.truthy(posts[1].body:find('"worker_is_spot":false', 1, true))
      assert.is_nil(posts[1].body:find("null", 1, true))
      cluster.started = false
    end)

    it("takes 'running' for 'ready'", function()
      running()
      faults({ cluster_status = { "running" } })
      assert.equal(running().status_word, "running")
    end)

    it("gives up after wait_timeout, and says that the cluster goes on", function()
      faults({ cluster_status = { "pending", "pending", "pending", "pending", "pending", "pending", "pending",
        "pending", "pending", "pending" } })
      local err = raises("timeout", "not ready after 0.3 seconds.*goes on starting", conn.cluster, conn,
        { wait_timeout = 0.3 })
      assert.equal("string", type(err.id))
    end)

    it("outlasts looks that get no answer", function()
      running()
      requests()
      local few = connect(server, { retries = 0 })
      local seen = {}
      faults({ cluster_status = { "pending" } }, { path = "/api/dask_clusters", status = 503, body = "down" },
        { path = "/api/dask_clusters", truncate = 5 })
      local cluster = few:cluster { on_status = function(status) seen[#seen + 1] = status end }
      assert.same({ "pending", "no answer", "no answer", "ready" }, seen)
      assert.equal(2, #cluster.warnings)
      cluster.started = false
      faults({ path = "/api/dask_clusters", status = 503, body = "down" })
      raises("api", "down", few.cluster, few)
    end)

    it("says what becomes of a cluster whose start is interrupted", function()
      local warnings = {}
      local watched = connect(server, { on_warning = function(text) warnings[#warnings + 1] = text end })
      local function interrupt() error "interrupted!" end
      faults({ cluster_status = { "pending", "pending" } })
      local ok, err = pcall(watched.cluster, watched, { on_status = interrupt })
      assert.is_false(ok)
      assert.truthy(tostring(err):find "interrupted!")
      assert.truthy(warnings[1]:find "goes on starting")
      pcall(watched.cluster, watched, { on_status = interrupt, shutdown_on_close = true })
      assert.truthy(warnings[2]:find "was shut down")
    end)

    it("waits within dask-saturn's bounds", function()
      for k, bounds in ipairs { { 5, 10 }, { 10, 20 }, { 20, 40 }, { 30, 60 }, { 30, 60 } } do
        for jitter = 0, 9 do
          local wait = start.backoff(k, 5, 60, jitter / 10)
          assert.is_true(wait >= bounds[1] and wait < bounds[2])
        end
      end
    end)

    it("asks for no sizes unless one is given", function()
      running()
      local paths = {}
      for i, request in ipairs(requests()) do paths[i] = request.path end
      assert.is_nil(table.concat(paths, " "):find("dask_clusters/info", 1, true))
      running { worker_size = "medium", on_running = "warn" }
      assert.equal("/api/dask_clusters/info", requests()[1].path)
    end)

    it("sends project_id without a version to old servers", function()
      local old <close> = service.start { test_control = true, require_project_id = true }
      local older = connect(old, { project_id = ("ab"):rep(16) })
      faults({ cluster_status = { "ready" } })
      older.http:call { method = "POST", path = "_test/faults", json = { faults = { { path = "/api/dask_clusters",
        status = 200, json = { id = "c1", status = "ready" } } , { path = "/api/dask_clusters/c1/info", status = 200,
        json = { scheduler_address = "tcp://x:1", dashboard_link = "http://x" } } } } }
      local cluster = older:cluster {}
      assert.equal("tcp://x:1", cluster.scheduler_address)
      assert.is_nil(cluster:credentials())
      local post = older.http:call({ path = "_test/requests" }).requests[1]
      assert.equal(('{"project_id":"%s"}'):format(("ab"):rep(16)), post.body)
      assert.is_nil(post.headers["x-dask-saturn-version"])
    end)
  end)

  describe("cluster", function()
    local cluster

    setup(function()
      fresh() -- what the test before left
      cluster = running()
    end)

    it("knows where it is", function()
      assert.truthy(cluster.scheduler_address:find "^tls://localhost:%d+$")
      assert.equal(32, #cluster.id)
      assert.equal("local", cluster.name)
      assert.truthy(tostring(cluster):find "^saturn.cluster local %(tls://localhost:%d+%)$")
      assert.equal("running", cluster:status())
      assert.truthy(cluster:scheduler_info().address)
      assert.equal("running", cluster:describe().status)
    end)

    it("waits for workers, seldom asking", function()
      assert.is_true(cluster:wait_for_workers(1, 20) >= 1)
      requests()
      raises("timeout", "of 9 workers", cluster.wait_for_workers, cluster, 9, 1)
      assert.is_true(#requests() <= 6)
    end)

    it("counts workers also where the scheduler lists only some", function()
      faults({ path = "*/scheduler_info", status = 200, json = { n_workers = 7, workers = { a = {} } } })
      assert.equal(7, cluster:wait_for_workers(7, 1))
    end)

    it("scales and adapts, and says what changed", function()
      assert.truthy(tostring(cluster:scale(2)):find "^scaled from 1 to 2 workers")
      cluster:wait_for_workers(2, 20)
      assert.equal("scaling adaptively from 1 to 2 workers", tostring(cluster:adapt(1, 2)))
      local change = cluster:scale(1)
      assert.is_true(change.adaptive_off)
      assert.equal("scaled to 1 worker; adaptive scaling was on and is off now", tostring(change))
      assert.equal("scaled from 1 to 1 worker", tostring(cluster:scale(1)))
      assert.has_error(function() cluster:scale(-1) end)
      assert.has_error(function() cluster:adapt(2, 1) end)
      raises("api", "outside", cluster.scale, cluster, 100000)
    end)

    it("has its key signed by the service, once", function()
      requests()
      local tls = cluster:credentials()
      assert.truthy(tls.key:find "BEGIN RSA PRIVATE KEY")
      assert.truthy(tls.cert:find "BEGIN CERTIFICATE")
      assert.not_equal(tls.cert, tls.ca)
      assert.equal(tls, cluster:credentials())
      for _, value in pairs(cluster) do assert.not_equal(tls, value) end
      local seen = requests()
      assert.equal(1, #seen)
      assert.truthy(seen[1].path:find "/csr$")
      assert.is_nil(seen[1].headers["content-type"])
      assert.truthy(seen[1].body:find "^%-%-%-%-%-BEGIN CERTIFICATE REQUEST")
    end)

    it("refuses chains that cannot be right", function()
      local function sign_with(how)
        cluster:forget_credentials()
        faults({ csr = how })
        return cluster:credentials()
      end
      raises("tls", "signed the key with 1 certificate where", sign_with, "one")
      raises("tls", "0 certificates", sign_with, "empty")
      raises("tls", "cannot be used: .*malformed", sign_with, "garbage")
      raises("tls", "expired already", sign_with, "expired")
      assert.truthy(sign_with("extra").ca:find "BEGIN CERTIFICATE")
      assert.is_nil(sign_with("crlf").cert:find("\r", 1, true))
      local other = sign_with "extra"
      keys_again()
      faults({ path = "*/csr", body = other.cert .. other.ca })
      cluster:forget_credentials()
      raises("tls", "not for the key", cluster.credentials, cluster)
      keys_again = support.one_key()
    end)

    it("shows its logs in the old form and the new", function()
      assert.equal("string", type(tostring(cluster:logs())))
      faults({ path = "*/logs", status = 200, json = { logs = "one line" } })
      assert.equal("one line", tostring(cluster:logs()))
      faults({ path = "*/logs", status = 200, json = { logs = { { pod_name = "p", logs = "text" } } } })
      assert.equal("== p ==\ntext", tostring(cluster:logs { component = "worker" }))
      faults({ path = "*/logs", status = 200, json = { "a", "b" } })
      assert.equal("a\nb", tostring(cluster:logs()))
    end)

    it("tells its history, pods and summary", function()
      assert.equal("created", cluster:history()[1].event)
      assert.equal("running", cluster:summary().status)
      assert.truthy(#cluster:workers() >= 1)
    end)

    it("falls back on the record for its status", function()
      faults({ path = "*/status", status = 500, body = "" })
      assert.equal("running", cluster:status())
      faults({ path = "/api/dask_clusters/*", status = 500, body = "", times = 2 })
      assert.is_nil(cluster:status())
    end)

    it("says that it is not running when it was stopped", function()
      local other = running()
      other:stop()
      raises("closed", "not running: its status is stopped", other.scheduler_info, other)
      other:start { wait_timeout = 60 }
      assert.equal("running", other:status())
      assert.is_true(other:wait_for_workers(1, 20) >= 1)
    end)

    it("warns of settings that were not applied, raises, or resets, as told", function()
      local warnings = {}
      local watched = connect(server, { on_warning = function(text) warnings[#warnings + 1] = text end })
      watched:cluster { nthreads = 2 }
      assert.truthy(warnings[1]:find "Unable to update")
      assert.truthy(warnings[2]:find "nthreads is 1, not 2")
      raises("api", "nthreads is 1, not 2.*on_running", watched.cluster, watched,
        { nthreads = 2, on_running = "error" })
      local again = watched:cluster { nthreads = 2, on_running = "reset" }
      assert.equal(2, again:describe().nthreads)
      again:reset { nthreads = 1, n_workers = 1 }
      assert.equal(1, again:describe().nthreads)
    end)

    it("is found by id, by name and by URL", function()
      local id = running().id
      assert.equal(id, conn:cluster({ cluster_id = id }).id)
      assert.equal(id, conn:cluster({ name = "local" }).id)
      assert.equal(id, conn:cluster({ cluster_url = server.base_url .. "/api/dask_clusters/" .. id .. "/" }).id)
      raises("value", "no cluster named 'other'; there are local", conn.cluster, conn, { name = "other" })
      raises("api", "not found", conn.cluster, conn, { cluster_id = "other" })
      assert.equal(id, conn:clusters()[1].id)
    end)

    it("is restarted by id, with settings changed while it is stopped", function()
      local byid = conn:cluster { cluster_id = running().id, nthreads = 2, on_running = "reset" }
      assert.equal(2, byid:describe().nthreads)
      byid:restart()
      assert.equal("running", byid:status())
      byid:reset { nthreads = 1 }
      assert.equal(1, byid:describe().nthreads)
      assert.is_true(byid.started)
      byid:stop()
      byid = conn:cluster { cluster_id = byid.id, nthreads = 1 }
      assert.is_true(byid.started)
      assert.equal(1, byid:describe().nthreads)
    end)

    it("closes twice, and is of no use then", function()
      local closing <close> = running()
      closing:close()
      closing:close()
      assert.equal("closed", closing:status())
      assert.truthy(tostring(closing):find "closed%)$")
      for _, method in ipairs { "scheduler_info", "logs", "client", "stop", "describe" } do
        raises("closed", "is closed", closing[method], closing)
      end
      raises("closed", "is closed", closing.scale, closing, 1)
    end)

    it("is stopped where the service has no close any more", function()
      local closing = running()
      faults({ path = "*/close", status = 404, json = { message = "gone" } })
      closing:close()
      local seen = requests()
      assert.truthy(seen[#seen].path:find "/stop$")
    end)
  end)

  describe("resource", function()
    it("is listed and found by name", function()
      assert.equal("local", conn:workspaces()[1].name)
      assert.equal(1, #conn:deployments())
      assert.equal("job", conn:jobs()[1].kind)
      local workspace = conn:resource("workspace", "local")
      assert.equal("saturn.resource workspace local (running)", tostring(workspace))
      raises("value", "no job named 'nightly'; there are local", conn.resource, conn, "job", "nightly")
      assert.has_error(function() conn:resource("notebook", "x") end)
      assert.has_error(function() conn:resource("job") end)
    end)

    it("takes its cluster with it when it stops", function()
      local cluster = running()
      local workspace = conn:resource("workspace", "local")
      assert.equal(cluster.id, workspace:clusters()[1].id)
      assert.equal("stopped", workspace:stop().state)
      raises("closed", "stopped", cluster.scheduler_info, cluster)
      assert.equal("running", workspace:start().state)
      assert.equal("running", workspace:restart({ wait = false }):status())
    end)

    it("tells when it does not come up", function()
      local workspace = conn:resource("workspace", "local")
      local down = { spec = { name = "local" }, state = { id = workspace.id, status = "error" } }
      faults({ path = "/api/recipes/workspace/local", status = 200, json = down })
      raises("api", "its status is error", workspace.start, workspace)
      down.state.status = "pending"
      faults({ path = "/api/recipes/workspace/local", status = 200, json = down, times = 99 })
      raises("timeout", "not running after 0.2", workspace.start, workspace, { wait_timeout = 0.2 })
    end)

    it("is read over all pages", function()
      local one = { type = "job", spec = { name = "one" }, state = { id = "1", status = "stopped" } }
      local two = { type = "job", spec = { name = "two" }, state = { id = "2", status = "stopped" } }
      faults({ path = "/api/recipes", status = 200, json = { recipes = { one }, next_last_key = "k" } },
        { path = "/api/recipes", status = 200, json = { recipes = { two } } })
      local jobs = conn:jobs { owner_name = "me" }
      assert.same({ "one", "two" }, { jobs[1].name, jobs[2].name })
      local seen = requests()
      assert.equal("owner_name=me&type=job", seen[1].query)
      assert.equal("last_key=k&owner_name=me&type=job", seen[2].query)
      faults({ path = "/api/recipes", status = 200, json = { a = 1 } })
      raises("protocol", "list of jobs", conn.jobs, conn)
      faults({ path = "/api/recipes", status = 200, json = { recipes = { one }, next_key = { 1 } } })
      raises("protocol", "next page", conn.jobs, conn)
    end)
  end)

  describe("the end of a cluster", function()
    local function closes()
      local count = 0
      for _, request in ipairs(requests()) do
        if request.path:find "/close$" then count = count + 1 end
      end
      return count
    end

    -- A script of its own, whose end is the end of its Lua state.
    local function script(body)
      local text = ([[
        local conn = require("saturn.cloud").connect { base_url = %q, token = %q, proxy = "", poll_min = 0.05,
          on_warning = function(text) io.stdout:write("warning: ", text, "\n") end }
        local function cluster(options)
          options.n_workers, options.nthreads = 1, 1
          return conn:cluster(options)
        end
        %s]]):format(server.base_url, server.token, body)
      local output, _, said = support.shell(support.quote(support.lua()) .. " -e " .. support.quote(text), true)
      return output, said
    end

    before_each(function()
      running():close()
      requests()
    end)

    it("comes with shutdown_on_close, however the script ends", function()
      for _, body in ipairs {
        "local c <close> = cluster{ shutdown_on_close = true }",
        "Keep = cluster{ shutdown_on_close = true }",
        "Keep = cluster{ shutdown_on_close = true } error 'ends the script'",
        "cluster{ shutdown_on_close = true } collectgarbage()",
        "Keep = cluster{ shutdown_on_close = true } os.exit(3, true)",
        "Keep = cluster{ shutdown_on_close = true } conn:close()",
        "local c <close> = cluster{ shutdown_on_close = true } c:close() conn:close()",
        "coroutine.wrap(function() local c <close> = cluster{ shutdown_on_close = true } end)()",
      } do
        local output, said = script(body)
        assert.equal("", output, body)
        assert.equal(1, closes(), body .. ": " .. said)
      end
    end)

    -- Runs a script on a terminal of its own and interrupts it when it has printed "now".
    local ON_TERMINAL = [[
import os, pty, signal, sys
pid, fd = pty.fork()
if pid == 0: os.execvp(sys.argv[1], sys.argv[1:])
seen, sent = b"", False
while True:
    try: piece = os.read(fd, 4096)
    except OSError: break
    if not piece: break
    seen += piece
    if b"now" in seen and not sent:
        sent = True
        os.kill(pid, signal.SIGINT)
os.waitpid(pid, 0)
sys.stdout.write(seen.decode())
]]

    local function on_terminal(body)
      local text = ([[
        local conn = require("saturn.cloud").connect { base_url = %q, token = %q, proxy = "", poll_min = 0.05 }
        %s]]):format(server.base_url, server.token, body)
      return (support.shell(("python3 -c %s %s -e %s"):format(support.quote(ON_TERMINAL),
        support.quote(support.lua()), support.quote(text)), true))
    end

    -- The interpreter that sanitized runs use leaves Ctrl-C to the system, which ends the process.
    local handles_interrupts = (os.getenv "SANITIZE" or "") == ""

    it("comes on Ctrl-C too", function()
      if not handles_interrupts then return pending "this interpreter does not handle Ctrl-C" end
      local output = on_terminal [[
        local cluster <close> = conn:cluster { n_workers = 1, nthreads = 1, shutdown_on_close = true }
        print "now"
        require("saturn.loop").sleep(30)]]
      assert.truthy(output:find "interrupted!")
      assert.equal(1, closes())
    end)

    it("on Ctrl-C during the start is stated", function()
      if not handles_interrupts then return pending "this interpreter does not handle Ctrl-C" end
      local words = { "pending", "pending", "pending", "pending", "pending", "pending", "pending", "pending" }
      faults({ cluster_status = words })
      local output = on_terminal [[
        conn:cluster { n_workers = 1, nthreads = 1, on_status = function() print "now" end }]]
      assert.truthy(output:find "saturn: the start was broken off: cluster %x+ goes on starting", output)
      assert.equal(0, closes())
      faults({ cluster_status = words })
      output = on_terminal [[
        conn:cluster { n_workers = 1, nthreads = 1, shutdown_on_close = true, on_status = function() print "now" end }]]
      assert.truthy(output:find "saturn: the start was broken off: cluster %x+ was shut down", output)
      assert.equal(1, closes())
    end)

    it("shows one line of progress on a terminal, and takes it away", function()
      faults({ cluster_status = { "pending", "starting" } })
      local output = on_terminal [[
        local cluster <close> = conn:cluster { n_workers = 1, nthreads = 1, shutdown_on_close = true }
        print "done"]]
      assert.truthy(output:find("\r\27[Ksaturn: starting the cluster: pending, 0 s", 1, true), output)
      assert.truthy(output:find("\r\27[Kdone", 1, true), output)
      assert.equal("", (script "cluster{ shutdown_on_close = true }:close()"))
    end)

    it("does not come to a cluster that was found running, unless asked for", function()
      local found = running()
      script "local c <close> = cluster{ shutdown_on_close = true }"
      assert.equal(0, closes())
      assert.equal("running", found:status())
      script 'local c <close> = cluster{ shutdown_on_close = "always" }'
      assert.equal(1, closes())
    end)

    it("does not come to one that was never had", function()
      faults({ cluster_status = { "error" } }, { path = "/api/dask_clusters/*/info", status = 500, times = 1 })
      local text = 'pcall(cluster, { shutdown_on_close = "always" }) collectgarbage() conn:close()'
      assert.equal("", (script(text)))
      assert.equal(0, closes())
    end)

    it("is left to the user otherwise, with one warning", function()
      local output = script "local c <close> = cluster{} Keep = c"
      assert.truthy(output:find "^warning: cluster local goes on running.*cluster:close%(%)")
      assert.equal(1, select(2, output:gsub("warning", "")))
      assert.equal("", (script "local c <close> = cluster{}"), "it was found running")
      assert.equal(0, closes())
    end)
  end)
end)

describe("the local default", function()
  it("is a service, a connection and a cluster in one", function()
    local cluster <close> = cloud.local_cluster { n_workers = 1, threads_per_worker = 1, memory_limit = "1GB" }
    assert.equal(1, cluster:wait_for_workers(1, 20))
    local pid = cluster.connection.service.pid
    assert.is_true(support.alive(pid))
    cluster:close()
    cluster:close()
    assert.is_false(support.alive(pid))
  end)

  it("tells of misuse at the caller's line", function()
    for _, call in ipairs {
      function() cloud.local_cluster { n_worker = 1 } end,
      function() cloud.local_cluster { n_workers = -1 } end,
      function() local _ = cloud.connect("local", { pyton = "x" }) end,
    } do
      local ok, err = pcall(call)
      assert.is_false(ok)
      assert.truthy(tostring(err):find "^spec/cloud_spec.lua:%d+: ", err)
    end
    raises("connect", "needs a Python with Dask", cloud.connect, "local", { python = "/nonexistent/python" })
  end)

  it("ends with the connection", function()
    local pid
    do
      local conn <close> = cloud.connect "local"
      pid = conn.service.pid
      local seen = {}
      conn:cluster { n_workers = 1, nthreads = 1, on_status = function(status) seen[#seen + 1] = status end }
      assert.equal("pending", seen[1])
      assert.equal("ready", seen[#seen])
    end
    assert.is_false(support.alive(pid))
  end)

  it("runs several at once", function()
    local a <close> = cloud.connect "local"
    local b <close> = cloud.connect "local"
    local addresses = {}
    local function begin(conn)
      return function()
        local cluster <close> = conn:cluster { n_workers = 0, nthreads = 1 }
        addresses[#addresses + 1] = cluster.scheduler_address
        cluster:close()
      end
    end
    loop.run(begin(a), begin(b))
    assert.equal(2, #addresses)
    assert.not_equal(addresses[1], addresses[2])
    assert.not_equal(a.base_url, b.base_url)
  end)
end)
