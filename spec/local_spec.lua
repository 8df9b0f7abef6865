-- luacheck: ignore 211/_.* (to be closed at the end of their scope is all they are for)
local cjson = require "cjson"
local dask = require "spec.support.dask"
local errors = require "saturn.error"
local loop = require "saturn.loop"
local service = require "saturn.local"
local support = require "spec.support"

local quote = support.quote

local function start(options)
  options = options or {}
  options.python = options.python or dask.python()
  return service.start(options)
end

-- One request with curl: status, body (decoded when it is JSON), headers in lower case.
local function call(s, method, path, body, more)
  more = more or {}
  local token = more.token == nil and s.token or more.token
  local command = ("curl -sS -m 30 -i -X %s %s %s %s %s %s"):format(method,
    token and "-H " .. quote("Authorization: " .. (more.scheme or "token") .. " " .. token) or "",
    body and "--data-binary " .. quote(type(body) == "table" and cjson.encode(body) or body) or "",
    more.wait and "-H 'Prefer: wait=" .. more.wait .. "'" or "", more.curl or "", quote(s.base_url .. path))
  local text, status, err = support.shell(command, true)
  local head, content = text:match("^(.-)\r\n\r\n(.*)$")
  local code = head and tonumber(head:match("^HTTP/%S+ (%d+)"))
  if not code then return nil, status, err end
  local ok, decoded = pcall(cjson.decode, content)
  return code, ok and decoded or content, head:lower(), status
end

local function ready(s, body)
  local code, cluster = call(s, "POST", "/api/dask_clusters?is_external=true", body or { n_workers = 1 }, { wait = 60 })
  assert.equal(201, code)
  assert.equal("ready", cluster.status, cjson.encode(cluster.errors))
  return cluster, "/api/dask_clusters/" .. cluster.id
end

local function runs(pid)
  return support.shell(("ps -o stat= -p %d"):format(pid), true):find("^%s*[^Z%s]") ~= nil
end

-- The processes of a service's group, without those that only wait to be reaped.
local function group(pid)
  local out = support.shell("ps -eo pgid=,stat=,pid=")
  local pids = {}
  for pgid, stat, member in out:gmatch("(%d+)%s+(%S+)%s+(%d+)") do
    if tonumber(pgid) == pid and stat:sub(1, 1) ~= "Z" then pids[#pids + 1] = tonumber(member) end
  end
  return pids
end

local function directory(s)
  local out = support.shell("ps -eo args= | grep '[s]aturn-local-guard'", true)
  for path, pid in out:gmatch("saturn%-local%-guard (%S+) (%d+)") do
    if tonumber(pid) == s.pid then return path end
  end
end

local function gone(s, path)
  return support.eventually(function() return #group(s.pid) == 0 and not os.rename(path, path) end, 10)
end

local function workers(s, base, n)
  return support.eventually(function()
    local _, info = call(s, "GET", base .. "/scheduler_info")
    local count = 0
    for _ in pairs(type(info) == "table" and info.workers or {}) do count = count + 1 end
    return count == n
  end, 30)
end

local function request_file(dir)
  local command = "cd %s && openssl req -new -newkey rsa:2048 -nodes -keyout key.pem -subj '/CN=Client' -out csr.pem"
  support.shell(command:format(quote(dir.path)))
  return support.read_all(dir.path .. "/csr.pem")
end

-- A client of the cluster with what the service signed; prints what the expression gives.
local CLIENT = [[
import sys, json
from distributed import Client
from distributed.security import Security
a = json.load(sys.stdin)
s = Security(tls_client_key=a["key"], tls_client_cert=a["cert"], tls_ca_file=a["ca"], require_encryption=True)
try:
    with Client(a["address"], security=s, timeout=15) as c:
        print(c.submit(pow, 2, 10).result(timeout=30), len(c.scheduler_info()["workers"]))
except Exception as e:
    print("failed", type(e).__name__, e)
]]

-- Leaves one task that never lets go of the interpreter, with a child of its own, on each of two workers.
local BUSY = [=[
import sys, json, os, time
from distributed import Client
from distributed.security import Security
a = json.load(sys.stdin)
s = Security(tls_client_key=a["key"], tls_client_cert=a["cert"], tls_ca_file=a["ca"], require_encryption=True)
def busy():
    import subprocess, re
    subprocess.Popen(["sleep", "3600"])
    re.match(r"(a+)+$", "a" * 64 + "b")
c = Client(a["address"], security=s, timeout=15)
c.wait_for_workers(2)
tasks = [c.submit(busy, pure=False, workers=[w]) for w in c.scheduler_info()["workers"]]
time.sleep(1)
print("busy", flush=True)
os._exit(0)
]=]

local function connect(s, base, address, program)
  local dir <close> = support.tmpdir()
  local csr = request_file(dir)
  local code, chain = call(s, "POST", base .. "/csr", csr, { curl = "-H Content-Type:" })
  assert.equal(200, code)
  local leaf, ca = chain:match("^(%-%-%-%-%-BEGIN.-END CERTIFICATE%-%-%-%-%-\n)(.*)$")
  return dask.run_python(nil, program or CLIENT, cjson.encode {
    address = address, key = support.read_all(dir.path .. "/key.pem"), cert = leaf, ca = ca,
  })
end

describe("saturn.local", function()
  describe("the eleven calls", function()
    local s
    setup(function() s = start() end)
    teardown(function() s:close() end)

    it("starts a cluster in steps and runs a task over TLS", function()
      local code, sizes = call(s, "GET", "/api/dask_clusters/info")
      assert.equal(200, code)
      assert.equal("Large - 2 cores - 16 GB RAM", sizes.server_options.size[2].display)

      local first
      code, first = call(s, "POST", "/api/dask_clusters?is_external=true", { n_workers = 2, nthreads = 1 })
      assert.equal(201, code)
      assert.equal("pending", first.status)
      assert.same({}, first.errors)
      local cluster, base = ready(s, { n_workers = 2, nthreads = 1 })
      assert.equal(first.id, cluster.id)
      assert.same({}, cluster.warnings)

      local info
      code, info = call(s, "GET", base .. "/info?is_external=true")
      assert.equal(200, code)
      assert.matches("^tls://localhost:%d+$", info.scheduler_address)
      code, info.inside = call(s, "GET", base .. "/info")
      assert.equal(200, code)
      assert.equal(info.scheduler_address:gsub("localhost", "127.0.0.1"), info.inside.scheduler_address)
      assert.is_true(workers(s, base, 2))
      assert.equal("1024 2\n", connect(s, base, info.scheduler_address))
      assert.same({ 200, { status = "running" } }, { call(s, "GET", base .. "/status"), { status = "running" } })
      code, cluster = call(s, "GET", base)
      assert.equal(200, code)
      assert.equal("running", cluster.status)

      -- Settings of a running cluster change nothing, and the answer says so.
      code, cluster = call(s, "POST", "/api/dask_clusters", { n_workers = 3 }, { wait = 5 })
      assert.equal(201, code)
      assert.equal("ready", cluster.status)
      assert.matches("^Unable to update the specification of a running dask cluster%.", cluster.warnings[1])
      assert.equal(2, cluster.n_workers)

      assert.equal(204, (call(s, "POST", base .. "/adapt", { minimum = 1, maximum = 2 })))
      code, cluster = call(s, "GET", base)
      assert.same({ 200, 1, 2 }, { code, cluster.adaptive.minimum, cluster.adaptive.maximum })
      assert.equal(204, (call(s, "POST", base .. "/scale", { n = 1 })))
      code, cluster = call(s, "GET", base)
      assert.same({ 200, cjson.null }, { code, cluster.adaptive })
      assert.is_true(workers(s, base, 1))

      local reset
      code, reset = call(s, "POST", "/api/dask_clusters/reset", { n_workers = 2 })
      assert.same({ 200, cluster.id }, { code, reset.id })
      ready(s, {})
      assert.is_true(workers(s, base, 2))
      -- A client keeps the address of a cluster that was reset.
      local _, again = call(s, "GET", base .. "/info?is_external=true")
      assert.equal(info.scheduler_address, again.scheduler_address)

      assert.equal(201, (call(s, "POST", base .. "/close", "")))
      code, cluster = call(s, "GET", base)
      assert.same({ 200, "stopped" }, { code, cluster.status })
      code, cluster = call(s, "GET", base .. "/status")
      assert.same({ 409, "not_running" }, { code, cluster.error_code })
      assert.equal(201, (call(s, "POST", base .. "/close", "")))
    end)

    it("checks the token", function()
      for _, more in ipairs { { token = false }, { token = "wrong" }, { scheme = "Basic" }, { token = "" } } do
        local code, body, head = call(s, "GET", "/api/user", nil, more)
        assert.equal(401, code)
        assert.equal("unauthorized", body.error_code)
        assert.matches("www%-authenticate:", head)
      end
      assert.equal(200, (call(s, "GET", "/api/user", nil, { scheme = "Bearer" })))
    end)

    it("answers what it does not know or take with JSON", function()
      for status, request in pairs {
        [404] = { "GET", "/api/dask_clusters/nope" }, [405] = { "PUT", "/api/dask_clusters" },
        [400] = { "POST", "/api/dask_clusters", "{" },
      } do
        local code, body = call(s, table.unpack(request))
        assert.equal(status, code)
        assert.equal("string", type(body.message))
      end
      for _, path in ipairs { "/", "/api/nope", "/_test/requests", "/api/dask_clusters/nope/info" } do
        assert.equal(404, (call(s, "GET", path)))
      end
      for _, body in ipairs {
        { worker_size = "huge" }, { n_workers = "two" }, { n_workers = -1 }, { n_workers = 100000 },
        { nthreads = 1.5 }, { worker_is_spot = "no" }, { memory_limit = "much" },
      } do
        local code, answer = call(s, "POST", "/api/dask_clusters", body)
        assert.equal(400, code)
        assert.equal("validation_error", answer.error_code)
        assert.matches(next(body) .. ": ", answer.message, 1, true)
      end
      local _, clusters = call(s, "GET", "/api/dask_clusters")
      local base = "/api/dask_clusters/" .. clusters.dask_clusters[1].id
      assert.equal(400, (call(s, "POST", base .. "/csr", "no request")))
      assert.equal(409, (call(s, "POST", base .. "/scale", { n = 1 })))
    end)

    it("keeps one cluster for each project of the old style", function()
      local _, a = call(s, "POST", "/api/dask_clusters", { project_id = ("a"):rep(32), n_workers = 0 }, { wait = 60 })
      local _, b = call(s, "POST", "/api/dask_clusters", { project_id = ("a"):rep(32), n_workers = 0 }, { wait = 60 })
      local _, list = call(s, "GET", "/api/dask_clusters")
      assert.equal(a.id, b.id)
      assert.not_equal(a.id, list.dask_clusters[1].id)
      assert.equal(201, (call(s, "POST", "/api/dask_clusters/" .. a.id .. "/close", "")))
    end)
  end)

  it("serves today's calls", function()
    local s <close> = start()
    local _, spaces = call(s, "GET", "/api/workspaces?name=local")
    local code, made = call(s, "POST", "/api/dask_clusters",
      { resource = { workspace_id = spaces.workspaces[1].id }, n_workers = 1, nthreads = 1 })
    local base = "/api/dask_clusters/" .. made.id
    assert.same({ 201, "stopped", spaces.workspaces[1].id }, { code, made.status, made.workspace_id })
    local started
    code, started = call(s, "POST", base .. "/start", "", { wait = 60 })
    assert.same({ 200, "running" }, { code, started.status })
    assert.is_true(workers(s, base, 1))
    local _, summary = call(s, "GET", base .. "/runtimesummary")
    assert.same({ count = 1, pending_count = 0, running_count = 1, error_count = 0 }, summary.worker_summary)
    local _, pods = call(s, "GET", base .. "/workers/runtimesummary")
    assert.equal("running", pods.workers[1].status)
    local _, logs = call(s, "GET", base .. "/logs?component=scheduler")
    assert.matches("Scheduler at:", logs.logs[1].logs)
    local _, history = call(s, "GET", base .. "/history")
    assert.equal("created", history.history[1].event)
    assert.equal(409, (call(s, "DELETE", base)))
    code, started = call(s, "POST", base .. "/restart", "", { wait = 60 })
    assert.same({ 200, "running" }, { code, started.status })
    -- A cluster follows its parent.
    assert.equal(200, (call(s, "POST", "/api/workspaces/" .. spaces.workspaces[1].id .. "/stop", "")))
    assert.equal("stopped", select(2, call(s, "GET", base)).status)
    assert.equal(204, (call(s, "DELETE", base)))
    assert.equal(404, (call(s, "GET", base)))
    local _, page = call(s, "GET", "/api/dask_clusters?page_size=1")
    assert.equal(cjson.null, page.next_key)
    assert.equal(200, (call(s, "GET", "/api/status")))
    assert.equal("job", select(2, call(s, "GET", "/api/recipes?type=job")).recipes[1].type)

    local refresh = { grant_type = "refresh_token", refresh_token = s.refresh_token }
    local _, new = call(s, "POST", "/api/auth/token", refresh, { token = false })
    assert.equal(401, (call(s, "POST", "/api/auth/token", refresh, { token = false })))
    local old
    code, old = call(s, "GET", "/api/user")
    assert.same({ 401, "token_expired" }, { code, old.error_code })
    assert.matches("expired", old.message)
    assert.equal(200, (call(s, "GET", "/api/user", nil, { token = new.access_token })))
  end)

  describe("scripted faults", function()
    local s
    setup(function() s = start { test_control = true } end)
    teardown(function() s:close() end)
    local function faults(...)
      local code, body = call(s, "POST", "/_test/faults", { faults = { ... } })
      assert.equal(200, code, cjson.encode(body))
    end

    it("answers with what was asked for, as often as was asked", function()
      faults({ path = "/api/user", status = 502, body = "<html>Bad Gateway</html>", times = 2 },
        { path = "/api/user", status = 429, json = { message = "slow down" }, headers = { ["Retry-After"] = "3" } })
      for _ = 1, 2 do
        local code, body, head = call(s, "GET", "/api/user")
        assert.same({ 502, "<html>Bad Gateway</html>" }, { code, body })
        assert.matches("content%-type: text/html", head)
      end
      local code, body, head = call(s, "GET", "/api/user")
      assert.same({ 429, "slow down" }, { code, body.message })
      assert.matches("retry%-after: 3", head)
      assert.equal(200, (call(s, "GET", "/api/user")))
    end)

    it("spoils the way an answer is sent", function()
      faults { path = "/api/user", truncate = 5 }
      local _, _, _, status = call(s, "GET", "/api/user")
      assert.equal(18, status) -- curl: partial file
      faults { path = "/api/user", close = true }
      assert.is_nil((call(s, "GET", "/api/user")))
      faults { path = "/api/user", slow = { chunk = 20, interval = 0.05 } }
      local began = loop.now()
      assert.equal(200, (call(s, "GET", "/api/user")))
      assert.is_true(loop.now() - began > 0.15)
      faults { path = "/api/user", delay = 0.3 }
      began = loop.now()
      assert.equal(200, (call(s, "GET", "/api/user")))
      assert.is_true(loop.now() - began > 0.3)
      faults { path = "/api/user", body = "not JSON" }
      assert.equal("not JSON", select(2, call(s, "GET", "/api/user")))
      faults { expire_token = true }
      assert.matches("expired", select(2, call(s, "GET", "/api/user")).message)
      local _, new = call(s, "POST", "/api/auth/token",
        { grant_type = "refresh_token", refresh_token = s.refresh_token }, { token = false })
      s.token, s.refresh_token = new.access_token, new.refresh_token
    end)

    it("plays a sequence of statuses", function()
      faults { cluster_status = { "pending", "starting", "error" }, errors = { "no room" } }
      local seen = {}
      for i = 1, 3 do
        local _, body = call(s, "POST", "/api/dask_clusters", { n_workers = 0 })
        seen[i] = body.status
        assert.same({ "no room" }, body.errors)
      end
      assert.same({ "pending", "starting", "error" }, seen)
    end)

    it("signs badly and sends to schedulers that fail", function()
      local _, base = ready(s, {})
      assert.equal(204, (call(s, "POST", base .. "/scale", { n = 1 })))
      assert.is_true(workers(s, base, 1))
      local address = select(2, call(s, "GET", base .. "/info?is_external=true")).scheduler_address
      assert.equal("1024 1\n", connect(s, base, address))
      for _, how in ipairs { "wrong_ca", "expired" } do
        faults { csr = how }
        assert.matches("^failed", connect(s, base, address))
      end
      faults { csr = "one" }
      local dir <close> = support.tmpdir()
      local csr = request_file(dir)
      local _, chain = call(s, "POST", base .. "/csr", csr)
      assert.equal(1, select(2, chain:gsub("BEGIN CERTIFICATE", "")))
      for _, how in ipairs { "wrong_ca", "expired", "wrong_host", "garbage", "close", "silent", "refused" } do
        faults { scheduler = how }
        local code, info = call(s, "GET", base .. "/info?is_external=true")
        assert.equal(200, code)
        assert.matches("^tls://localhost:%d+$", info.scheduler_address)
        assert.not_equal(address, info.scheduler_address)
      end
      assert.equal(address, select(2, call(s, "GET", base .. "/info?is_external=true")).scheduler_address)
    end)

    it("remembers the requests without the secrets", function()
      call(s, "GET", "/_test/requests?clear=true")
      call(s, "GET", "/api/user?a=b")
      local _, seen = call(s, "GET", "/_test/requests")
      assert.equal(1, #seen.requests)
      local r = seen.requests[1]
      assert.same({ "GET", "/api/user", "a=b", 200, "token <secret>" },
        { r.method, r.path, r.query, r.status, r.headers.authorization })
      assert.is_nil(cjson.encode(seen):find(s.token, 1, true))
    end)

    it("names what a rule must not hold", function()
      local code, body = call(s, "POST", "/_test/faults", { faults = { { stutus = 500 } } })
      assert.same({ 400, "unknown: stutus" }, { code, body.message })
    end)
  end)

  it("asks for the project where it is told to", function()
    local s <close> = start { require_project_id = true }
    local code, body = call(s, "POST", "/api/dask_clusters", {})
    assert.equal(400, code)
    assert.matches("project_id", body.message)
  end)

  it("serves HTTPS for tests", function()
    local s <close> = start { https = "valid" }
    assert.matches("^https://localhost:", s.base_url)
    assert.equal(200, (call(s, "GET", "/api/user", nil, { curl = "--cacert " .. s.ca_file })))
    assert.is_nil((call(s, "GET", "/api/user")))
    local old <close> = start { https = "expired" }
    assert.is_nil((call(old, "GET", "/api/user", nil, { curl = "--cacert " .. old.ca_file })))
  end)

  describe("its life", function()
    it("writes the token for this user only, and takes it away", function()
      local dir <close> = support.tmpdir()
      local file = dir.path .. "/token.json"
      local s = start { token_file = file }
      assert.equal(s.token, cjson.decode(support.read_all(file)).token)
      assert.matches("^%-rw%-%-%-%-%-%-%-", support.shell("ls -l " .. quote(file)))
      assert.equal("", support.shell("ps -eo args= | grep -F " .. s.token .. " | grep -v grep", true))
      assert.is_nil(tostring(s):find(s.token, 1, true))
      s:close()
      assert.is_false(support.exists(file))
    end)

    it("ends on close with all that it started, twice", function()
      local s = start()
      local path = directory(s)
      local _, base = ready(s, { n_workers = 1 })
      assert.is_true(workers(s, base, 1))
      assert.is_true(#group(s.pid) >= 2)
      assert.is_true(s:alive())
      s:close()
      s:close()
      assert.is_false(s:alive())
      assert.same({}, group(s.pid))
      assert.is_nil(os.rename(path, path))
      assert.matches("closed", tostring(s))
    end)

    it("ends when it is told to over HTTP", function()
      local s <close> = start()
      assert.equal(401, (call(s, "POST", "/_shutdown", "", { token = "wrong" })))
      assert.equal(200, (call(s, "POST", "/_shutdown", "")))
      assert.is_true(support.eventually(function() return not s:alive() end))
    end)

    it("ends when its object is collected", function()
      local s = start()
      local seen = { pid = s.pid }
      local path = directory(seen)
      s = nil -- luacheck: ignore
      collectgarbage() collectgarbage()
      assert.is_true(gone(seen, path))
    end)

    it("ends with its parent, also when that or the service itself is killed", function()
      for _, victim in ipairs { "parent", "service" } do
        local dir <close> = support.tmpdir()
        support.write_all(dir.path .. "/parent.lua", [[
local s = require "saturn.local".start { python = arg[1] }
os.execute(("curl -s -o /dev/null -X POST -d '{\"n_workers\":2}' -H 'Prefer: wait=60' -H 'Authorization: token %s' "
  .. "%s/api/dask_clusters"):format(s.token, s.base_url))
print(s.pid, (io.popen "echo $PPID":read "n"))
io.stdout:flush()
os.execute "sleep 3600 & echo $!; wait"
]])
        local out <close> = assert(io.popen(("exec %s %s %s"):format(support.lua(),
          quote(dir.path .. "/parent.lua"), quote(dask.python()))))
        local seen, parent, sleeper = { pid = out:read "n" }, out:read "n", out:read "n"
        local path = directory(seen)
        assert.is_truthy(path)
        assert.is_true(support.eventually(function() return #group(seen.pid) >= 4 end, 30))
        support.shell(("kill -9 %d"):format(victim == "parent" and parent or seen.pid))
        assert.is_true(gone(seen, path), victim)
        support.shell(("kill -9 %d %d"):format(parent, sleeper), true)
        assert.is_true(support.eventually(function() return not runs(parent) end))
      end
    end)

    it("leaves no busy task behind, however it ends", function()
      for _, signal in ipairs { 9, 15 } do
        local s = start()
        local path = directory(s)
        local _, base = ready(s, { n_workers = 2, nthreads = 1 })
        local address = select(2, call(s, "GET", base .. "/info?is_external=true")).scheduler_address
        assert.equal("busy\n", connect(s, base, address, BUSY))
        local sleeping = support.shell("ps -eo pgid=,args= | grep '[s]leep 3600'")
        assert.matches("%f[%d]" .. s.pid .. " ", sleeping)
        support.shell(("kill -%d %d"):format(signal, s.pid))
        assert.is_true(gone(s, path), signal)
        s:close()
      end
    end)

    it("lets two run at once", function()
      local a <close> = start()
      local b <close> = start()
      assert.not_equal(a.base_url, b.base_url)
      assert.equal(401, (call(a, "GET", "/api/user", nil, { token = b.token })))
      assert.equal(200, (call(b, "GET", "/api/user")))
    end)
  end)

  describe("without what it needs", function()
    local function fake(dir, script)
      local path = dir.path .. "/python"
      support.write_all(path, "#!/bin/sh\n" .. script .. "\n")
      support.shell("chmod +x " .. quote(path))
      return path
    end

    it("names the command that installs it", function()
      local dir <close> = support.tmpdir()
      local refusal = [[echo '{"error": "it has no Dask", "hint": "apt install it"}'; exit 3]]
      for script, pattern in pairs {
        [refusal] = "it has no Dask.*: apt install it$",
        ["echo 'no such module' >&2; exit 1"] = "no such module.*python3%-distributed",
        ["echo garbage"] = "pip install",
      } do
        local err = support.raises("connect", pattern, service.start, { python = fake(dir, script) })
        assert.is_true(errors.is_error(err))
      end
      local pattern = support.memcheck and "/nonexistent" or "cannot start /nonexistent" -- see process_spec
      support.raises("connect", pattern, service.start, { python = "/nonexistent" })
    end)

    it("says why the service could not start where there is Dask", function()
      local err = support.raises("connect", "^the local service could not start: the token cannot be written to "
        .. "/nonexistent/x: No such file or directory$", service.start, { token_file = "/nonexistent/x" })
      assert.is_nil(err.message:find("install", 1, true))
      local dir <close> = support.tmpdir()
      local python = fake(dir, [[echo '{"failed": "no \"room\""}']])
      support.raises("connect", 'could not start: no "room"$', service.start, { python = python })
    end)

    it("leaves no token file of the command's own behind", function()
      local dir <close> = support.tmpdir()
      local asked = dir.path .. "/asked"
      local python = fake(dir, 'echo "$*" >' .. quote(asked) .. [[; echo '{"failed": "no room"}']])
      local _, status, said = support.shell(("env -u XDG_RUNTIME_DIR %s bin/saturn local --python %s"):format(
        quote(support.lua()), quote(python)), true)
      assert.equal(1, status)
      assert.equal("saturn: connect: the local service could not start: no room\n", said)
      local file = support.read_all(asked):match "%-%-token%-file=(%S+)"
      assert.is_truthy(file)
      assert.is_false(support.exists(file))
    end)

    it("says so when Dask is missing from a real Python", function()
      local dir <close> = support.tmpdir()
      -- -S leaves out the places where packages are.
      local python = fake(dir, "exec " .. quote(dask.python()) .. ' -S -E "$@"')
      support.raises("connect", "no Dask %(the module distributed%).*install", service.start, { python = python })
    end)

    it("gives up in time", function()
      local dir <close> = support.tmpdir()
      support.raises("timeout", "local service", service.start, { python = fake(dir, "sleep 60"), timeout = 0.3 })
    end)

    it("refuses an unknown option", function()
      assert.has_error(function() service.start { pyton = "x" } end, "unknown option 'pyton': did you mean 'python'?")
    end)
  end)
end)
