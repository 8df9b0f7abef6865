-- A cluster of the service, its client over TLS, and files on its workers, on a real Dask of the release in $DASK.
local cloud = require "saturn.cloud"
local dask = require "spec.support.dask"
local files = require "saturn.cloud.files"
local loop = require "saturn.loop"
local py = require "saturn.py"
local service = require "saturn.local"
local support = require "spec.support"

local quote, raises = support.quote, support.raises

describe("a cluster of the service", function()
  local server, conn, cluster, keys_again

  setup(function()
    keys_again = support.one_key()
    server = service.start { test_control = true, python = dask.python() }
    conn = cloud.connect { base_url = server.base_url, token = server.token, proxy = "", poll_min = 0.05,
      poll_max = 0.5, on_warning = function() end }
    cluster = conn:cluster { n_workers = 2, nthreads = 1, wait_timeout = 120 }
    cluster:wait_for_workers(2, 60)
  end)
  teardown(function()
    if conn then conn:close() end
    if server then server:close() end
    keys_again()
  end)

  it("takes a client over TLS with the signed key", function()
    local client <close> = cluster:client()
    assert.equal(3, client:submit("operator.add", 1, 2):result(60))
    assert.truthy(client.version:find("^" .. dask.version():gsub("%.", "%%.")))
  end)

  it("is not collected while a client of it is in use", function()
    local weak = setmetatable({ conn:cluster() }, { __mode = "v" })
    local client = weak[1]:client()
    collectgarbage()
    collectgarbage()
    assert.truthy(weak[1])
    client:close()
    client = nil -- luacheck: no unused
    collectgarbage()
    collectgarbage()
    assert.is_nil(weak[1])
  end)

  it("tells of misuse at the caller's line", function()
    local ok, err = pcall(function() cluster:client { timeut = 5 } end)
    assert.is_false(ok)
    assert.truthy(err:find "^spec/e2e/cloud_spec.lua:%d+: unknown option 'timeut'", err)
  end)

  it("checks the scheduler's certificate, and its host name when asked to", function()
    local function client_with(fault, options)
      conn.http:call { method = "POST", path = "_test/faults", json = { faults = { { scheduler = fault } } } }
      local other = conn:cluster()
      local client <close> = other:client(options)
      return client
    end
    raises("tls", "certificate", client_with, "wrong_ca", { timeout = 5 })
    raises("tls", "certificate", client_with, "expired", { timeout = 5 })
    raises("tls", nil, client_with, "wrong_host", { timeout = 5, tls = { verify_host = true } })
    local client <close> = cluster:client { tls = { verify_host = true } }
    assert.equal(3, client:submit("operator.add", 1, 2):result(60))
  end)

  it("names a chain of another authority", function()
    cluster:forget_credentials()
    conn.http:call { method = "POST", path = "_test/faults", json = { faults = { { csr = "wrong_ca" } } } }
    raises("tls", "certificate", cluster.client, cluster, { timeout = 5 })
    cluster:forget_credentials()
    local client <close> = cluster:client()
    assert.truthy(client)
  end)

  describe("has files on its workers:", function()
    local dir, client

    setup(function()
      dir = support.tmpdir()
      client = cluster:client()
    end)
    teardown(function()
      client:close()
      dir:remove()
    end)

    local function make_source()
      local source = dir.path .. "/source"
      support.shell(("rm -rf %s && mkdir -p %s %s"):format(quote(source), quote(source .. "/sub dir"),
        quote(source .. "/.git")))
      support.write_all(source .. "/saturn_probe.py", "VALUE = 41\n")
      support.write_all(source .. "/sub dir/$(touch here); '\"", "\0\255binary")
      support.write_all(source .. "/.git/config", "not sent")
      return source
    end

    local function on_all_workers(expression)
      local info, results = client:scheduler_info(), {}
      for address in pairs(info.workers) do
        results[#results + 1] = client:with({ workers = address }):submit(py.fn("lambda: " .. expression)):result(60)
      end
      return results
    end

    it("a directory, with odd names and without .git", function()
      local source, target = make_source(), dir.path .. "/a b;c"
      local synced = cluster:sync_files(source, { to = target, sys_path = true, client = client })
      assert.equal(target .. "/", synced.path)
      assert.equal(2, synced.workers)
      assert.equal("\0\255binary", support.read_all(target .. "/sub dir/$(touch here); '\""))
      assert.is_false(support.exists(target .. "/.git/config"))
      assert.is_false(support.exists "here")
      assert.same({ 41, 41 }, on_all_workers "__import__('saturn_probe').VALUE")
      assert.same({ target .. "/" }, cluster:list_files())
    end)

    it("a file, renewed by the next call", function()
      local path, target = dir.path .. "/one.txt", dir.path .. "/deep/er/one.txt"
      for _, text in ipairs { "first", "second" } do
        support.write_all(path, text)
        cluster:sync_files(path, { to = target, client = client })
        assert.equal(text, support.read_all(target))
      end
      local listed = cluster:list_files { client = client }
      assert.equal(target, listed[#listed])
    end)

    it("on workers that come later too, until they are cleared", function()
      local target = dir.path .. "/deep/er/one.txt"
      os.remove(target)
      cluster:scale(3)
      cluster:wait_for_workers(3, 60)
      assert.is_true(support.eventually(function() return support.exists(target) end, 10))
      assert.same({ target }, cluster:clear_files(target, { client = client }))
      assert.same({ dir.path .. "/a b;c/" }, cluster:clear_files(nil, { client = client }))
      assert.same({}, cluster:list_files { client = client })
      os.remove(target)
      cluster:scale(2)
      loop.poll(function() return false end, 1)
      cluster:scale(3)
      cluster:wait_for_workers(3, 60)
      assert.is_false(support.exists(target))
    end)

    it("and others of a name that only resembles stay", function()
      local a, ab = dir.path .. "/x", dir.path .. "/xy"
      support.write_all(a, "a")
      support.write_all(ab, "ab")
      cluster:sync_files(ab, { client = client })
      cluster:sync_files(a, { client = client })
      assert.same({ a, ab }, cluster:list_files { client = client })
      cluster:clear_files(nil, { client = client })
    end)

    it("and a place that cannot be written to does not keep new workers from starting", function()
      local path = dir.path .. "/x"
      support.write_all(path, "x")
      raises("task", nil, cluster.sync_files, cluster, path, { to = path .. "/below/a/file", client = client })
      assert.same({}, cluster:list_files { client = client })
      local before = cluster:scheduler_info()
      cluster:scale(4)
      assert.equal(4, cluster:wait_for_workers(4, 60), before)
    end)

    it("and what cannot be read here is named", function()
      raises("value", "No such file", cluster.sync_files, cluster, dir.path .. "/absent")
      assert.has_error(function() cluster:sync_files() end)
      assert.has_error(function() cluster:sync_files("/tmp", { too = "/x" }) end)
    end)

    it("and a link that leads out of a directory is named before anything is sent", function()
      local source, target = dir.path .. "/links", dir.path .. "/links there"
      support.shell(("mkdir -p %s/sub/.git && cd %s && echo text >file && ln -s ../file sub/near && ln -s sub self && "
        .. "ln -s /etc sub/.git/ignored"):format(support.quote(source), support.quote(source)))
      cluster:sync_files(source, { to = target, client = client })
      assert.equal("text\n", support.read_all(target .. "/sub/near"))
      assert.equal("text\n", support.read_all(target .. "/self/near"))
      cluster:clear_files(nil, { client = client })
      for _, out in ipairs { "/etc/hosts", "../../x", "..//../links thereafter", source .. "/file" } do
        local link = source .. "/sub/odd name"
        support.shell(("ln -sf %s %s"):format(support.quote(out), support.quote(link)))
        local err = raises("value", nil, cluster.sync_files, cluster, source, { to = target, client = client })
        assert.truthy(err.message:find("in it sub/odd name is a symbolic link to " .. out .. ";", 1, true), err.message)
      end
      assert.same({}, cluster:list_files { client = client })
    end)

    it("as Python's dask_saturn keeps them", function()
      local listed = client:submit(py.fn [[
        from distributed import worker_client

        def publish():
            with worker_client() as client:
                client.publish_dataset(**{"SATURN__/from/python": b"data"})
                return sorted(client.list_datasets())
      ]]):result(60)
      assert.equal("SATURN__/from/python", listed[1])
      assert.same({ "/from/python" }, cluster:list_files { client = client })
      assert.same({ "/from/python" }, cluster:clear_files(nil, { client = client }))
    end)

    it("after the workers were set up", function()
      assert.truthy(cluster:setup_workers({ client = client }) >= 2)
      for _, value in ipairs(on_all_workers "__import__('os').getcwd() in __import__('sys').path") do
        assert.is_true(value)
      end
    end)
  end)

  it("is paths made absolute", function()
    for path, wanted in pairs { ["/a//b/./c"] = "/a/b/c", ["x"] = "/cwd/x", ["../y/"] = "/y", ["/../.."] = "/",
      ["."] = "/cwd" } do
      assert.equal(wanted, files.absolute(path, "/cwd"))
    end
    assert.equal(support.shell("pwd -P"):gsub("\n", "") .. "/z", files.absolute "z")
  end)
end)
