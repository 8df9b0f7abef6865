-- Dask's own configuration, as saturn.config reads it; Python's dask.config as the oracle.
local dask = require "spec.support.dask"
local saturn = require "saturn"
local support = require "spec.support"

local raises = support.raises

describe("saturn.config", function()
  local dir

  before_each(function() dir = support.tmpdir() end)
  after_each(function() dir:remove() end)

  local function write(name, text)
    local path = dir.path .. "/" .. name
    support.write_all(path, text)
    return path
  end

  local function load(places, env)
    return saturn.config.load { places = places, env = env or {} }
  end

  it("is empty where nothing is set", function()
    local config = load {}
    assert.is_nil(config.address)
    assert.same({}, config.options)
    assert.same({}, config.files)
    assert.is_nil(config:get "distributed.comm.timeouts.connect")
    assert.equal(5, config:get("distributed.client.heartbeat", 5))
    assert.equal("<saturn.config: no address, 0 files>", tostring(config))
    assert.same({}, load({ dir.path .. "/none" }).files)
  end)

  it("reads the variables", function()
    local config = load({}, {
      DASK_SCHEDULER_ADDRESS = "tls://host:8786",
      DASK_CLIENT_NAME = "'anna'",
      DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT = "1500ms",
      DASK_DISTRIBUTED__CLIENT__DIRECT_TO_WORKERS = "True",
      DASK_DISTRIBUTED__CLIENT__HEARTBEAT = "10s",
      DASK_DISTRIBUTED__COMM__TLS__CA_FILE = "/ca.pem",
      DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT = "/cert.pem",
      DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY = "/key.pem",
    })
    assert.equal("tls://host:8786", config.address)
    assert.same({
      name = "anna", timeout = 1.5, direct = true, tls = { ca = "/ca.pem", cert = "/cert.pem", key = "/key.pem" },
    }, config.options)
    assert.equal("10s", config:get "distributed.client.heartbeat")
    assert.equal("<saturn.config: tls://host:8786, 0 files>", tostring(config))
  end)

  it("reads YAML and JSON files by name, later ones over earlier ones, and the variables over all", function()
    write("a.yaml", "scheduler-address: tcp://a:1\ndistributed:\n  comm:\n    timeouts:\n      connect: 5s\n")
    write("b.yml", "distributed:\n  comm:\n    timeouts: {connect: 7}\n  client:\n    direct_to_workers: false\n")
    write("c.json", '{"client-name": "json", "scheduler-address": null}')
    write("d.txt", "client-name: text")
    local config = load { dir.path }
    assert.same({ dir.path .. "/a.yaml", dir.path .. "/b.yml", dir.path .. "/c.json" }, config.files)
    assert.equal("tcp://a:1", config.address)
    assert.same({ timeout = 7, name = "json", direct = false }, config.options)
    assert.equal(false, config:get "distributed.client.direct-to-workers")
    assert.equal(false, config:get("distributed.client.direct_to_workers", true))
    config = load({ dir.path }, { DASK_SCHEDULER_ADDRESS = "tcp://b:2" })
    assert.equal("tcp://b:2", config.address)
  end)

  it("looks where Dask looks", function()
    local root, home = support.tmpdir(), support.tmpdir()
    support.shell("mkdir -p " .. support.quote(home.path .. "/.config/dask"))
    support.write_all(root.path .. "/x.yaml", "client-name: root\nscheduler-address: tcp://root:1\n")
    support.write_all(home.path .. "/.config/dask/x.yaml", "client-name: home\n")
    local env = { DASK_ROOT_CONFIG = root.path, HOME = home.path }
    local config = saturn.config.load { env = env }
    assert.equal("home", config.options.name)
    assert.equal("tcp://root:1", config.address)
    env.DASK_CONFIG = write("own.yaml", "client-name: own")
    assert.equal("own", saturn.config.load({ env = env }).options.name)
    root:remove()
    home:remove()
  end)

  it("reads as Python does", function()
    write("a.yaml", [[
distributed:
  comm:
    timeouts: {connect: 500 ms}
    tls:
      ca_file: /etc/ca.pem
      client: {cert: /etc/both.pem}
scheduler_address: "tls://one:1"
]])
    write("b.yaml", "scheduler-address: 'tls://two:2'\nclient-name: ~\n")
    local answer = dask.run_python(nil, ([[
import dask.config
config = dask.config.collect(paths=[%q], env={"DASK_DISTRIBUTED__CLIENT__HEARTBEAT": "'7s'"})
print(dask.config.get("scheduler-address", config=config))
print(dask.config.get("distributed.comm.tls.ca-file", config=config))
print(dask.config.get("distributed.client.heartbeat", config=config))
]]):format(dir.path))
    local config = load({ dir.path }, { DASK_DISTRIBUTED__CLIENT__HEARTBEAT = "'7s'" })
    assert.equal(answer, ("%s\n%s\n%s\n"):format(config.address, config:get "distributed.comm.tls.ca-file",
      config:get "distributed.client.heartbeat"))
    assert.same({ ca = "/etc/ca.pem", cert = "/etc/both.pem", key = "/etc/both.pem" }, config.options.tls)
    assert.equal(0.5, config.options.timeout)
    assert.is_nil(config.options.name)
  end)

  it("says what is wrong, and where", function()
    local path = write("a.yaml", "a: [1, 2")
    raises("value", "a.yaml' is no YAML", load, { path })
    raises("value", "must hold names and values", load, { write("b.yaml", "just text") })
    raises("value", "list.yaml' must hold names and values, not just a list", load, { write("list.yaml", "- a: 1\n") })
    raises("value", "list.json' must hold names and values, not just a list", load, { write("list.json", "[1]") })
    raises("value", "is no JSON", load, { write("c.json", "{") })
    raises("value", "connect is 'soon', which is no time", load, {},
      { DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT = "soon" })
    raises("value", "scheduler%-address must be a text", load, { write("d.yaml", "scheduler-address: [1]") })
    raises("tls", "is not encrypted", load, {}, {
      DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION = "True", DASK_SCHEDULER_ADDRESS = "tcp://host:1",
    })
    local ok, message = pcall(function() saturn.config.load { place = {} } end)
    assert.is_false(ok)
    assert.truthy(message:find("config_spec.lua:%d+: unknown option 'place': did you mean 'places'"), message)
  end)

  it("says what is missing where YAML cannot be read", function()
    local path = write("a.yaml", "a: 1")
    local loaded = package.loaded.lyaml
    package.loaded.lyaml = nil
    package.preload.lyaml = function() error("not here") end
    local ok, err = pcall(raises, "value", "install the rock lyaml", load, { path })
    package.preload.lyaml, package.loaded.lyaml = nil, loaded
    assert.is_true(ok, tostring(err))
  end)
end)
