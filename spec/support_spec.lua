-- The specs stand on spec/support: what it starts is really up, and really gone afterwards.
local dask = require "spec.support.dask"
local support = require "spec.support"

describe("spec.support.dask", function()
  it("starts a scheduler with named workers and leaves nothing behind", function()
    local cluster = dask.start { workers = 2, names = { "alpha", "beta" }, resources = { GPU = 1 } }
    assert.matches("^tcp://127%.0%.0%.1:%d+$", cluster.address)
    assert.equal(dask.version(), cluster.version)
    assert.same({ "alpha", "beta" }, { cluster.workers[1].name, cluster.workers[2].name })
    local seen = dask.run_python(nil, [[
import sys
from distributed import Client
with Client(sys.stdin.read()) as c:
    print(sorted(w["name"] for w in c.scheduler_info()["workers"].values()), c.submit(sum, [1, 2]).result())
]], cluster.address)
    assert.equal("['alpha', 'beta'] 3\n", seen)

    local extra = cluster:add_worker { name = "gamma" }
    assert.is_true(support.alive(extra.pid))
    cluster:kill_worker(3)
    assert.is_false(support.alive(extra.pid))
    assert.matches("gamma", cluster:log "scheduler")

    cluster:stop()
    cluster:stop()
    assert.is_false(support.alive(cluster.scheduler_pid))
    for _, worker in ipairs(cluster.workers) do assert.is_false(support.alive(worker.pid)) end
    assert.is_false(support.exists(cluster.directory))
  end)

  it("speaks TLS with certificates of its own", function()
    local cluster <close> = dask.start { workers = 1, tls = true }
    assert.matches("^tls://", cluster.address)
    assert.matches("BEGIN CERTIFICATE", cluster.tls.ca)
    assert.matches("BEGIN CERTIFICATE", cluster.tls.cert)
    assert.matches("BEGIN PRIVATE KEY", cluster.tls.key)
    assert.equal(cluster.tls.key, support.read_all(cluster.tls.key_file))
  end)

  it("stops a scheduler that is frozen", function()
    local cluster = dask.start { workers = 1 }
    cluster:stop_scheduler()
    cluster:stop()
    assert.is_false(support.alive(cluster.scheduler_pid))
  end)

  it("ends with the process that started it, however that ends", function()
    local out = support.shell(support.quote(support.lua()) .. [[ -e '
      local cluster = require("spec.support.dask").start { workers = 1 }
      print(cluster.scheduler_pid, cluster.workers[1].pid, cluster.directory)
      io.stdout:flush()
      os.execute "kill -9 $PPID"' ]], true)
    local scheduler, worker, directory = out:match "(%d+)%s+(%d+)%s+(%S+)"
    assert.is_truthy(directory)
    assert.is_true(support.eventually(function()
      return not support.alive(scheduler) and not support.alive(worker) and not support.exists(directory)
    end, 10))
  end)

  it("says why a release cannot be had", function()
    assert.error_matches(function() dask.python "0.0.nothing" end, "unknown release '0.0.nothing'")
  end)
end)

describe("spec.support", function()
  it("removes its directories", function()
    local path
    do
      local dir <close> = support.tmpdir()
      path = dir.path
      support.write_all(path .. "/a file", "text")
      assert.equal("text", support.read_all(path .. "/a file"))
    end
    assert.is_false(support.exists(path))
  end)

  it("knows the kind of an error", function()
    local err = { kind = "timeout", message = "not within 2 s" }
    assert.equal(err, support.assert_kind(err, "timeout", "2 s"))
    assert.equal(err, support.raises("timeout", error, err))
    assert.error_matches(function() support.assert_kind(err, "closed") end, 'kind "closed", not "timeout"')
    assert.error_matches(function() support.assert_kind("text", "closed") end, "not a string: text")
    assert.error_matches(function() support.raises("closed", function() end) end, "nothing was raised")
  end)
end)
