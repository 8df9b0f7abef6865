-- Where the base URL and the token come from, and in which order.
local cloud = require "saturn.cloud"
local json = require "saturn.cloud.json"
local support = require "spec.support"

local quote, raises = support.quote, support.raises

local URL = "https://app.example.org"
local CLEAR = { "SATURN_BASE_URL", "BASE_URL", "SATURN_TOKEN", "SATURN_TOKEN_FILE", "SATURN_REFRESH_TOKEN",
  "SATURN_IS_INTERNAL", "SATURN_VERSION", "SATURN_RESOURCE_TYPE", "PREFECT__CONTEXT__FLOW_RUN_ID", "XDG_CONFIG_HOME",
  "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR" }

-- Resolves options in a process with just these variables; prints one line for each expression, or the error.
local PROGRAM = [[
local settings = require "saturn.cloud.settings"
local ok, s = pcall(settings.resolve, %s)
if not ok then print(s.kind, (s.message:gsub("\n", " "))) os.exit(0) end
local token = s.credentials:header():gsub("^token ", "")
print(s.base_url, token, s.credentials.origin)
print(s.external, s.version, s.prefect_flow_run, s.in_prefect, s.ca_file, s.project_id)
]]

describe("settings", function()
  local dir

  setup(function()
    dir = support.tmpdir()
    os.execute("mkdir -p " .. quote(dir.path .. "/config/saturn"))
  end)
  teardown(function() dir:remove() end)

  local function private(name, text)
    local path = dir.path .. "/" .. name
    support.write_all(path, text)
    support.shell("chmod 600 " .. quote(path))
    return path
  end

  local function resolve(env, options)
    local words = { "env" }
    for _, name in ipairs(CLEAR) do words[#words + 1] = "-u " .. name end
    words[#words + 1] = "HOME=" .. quote(dir.path)
    for name, value in pairs(env) do words[#words + 1] = name .. "=" .. quote(value) end
    words[#words + 1] = quote(support.lua())
    words[#words + 1] = "-e " .. quote(PROGRAM:format(options or "{}"))
    local text = support.shell(table.concat(words, " "))
    return text:match "^([^\n]*)", text:match "\n([^\n]*)"
  end

  local function profiles(config)
    private("config/saturn/config.json", json.encode(config))
    return { XDG_CONFIG_HOME = dir.path .. "/config" }
  end

  after_each(function() os.remove(dir.path .. "/config/saturn/config.json") end)

  it("come from the argument first, then SATURN_ variables, then BASE_URL", function()
    local env = { SATURN_BASE_URL = "https://two.org", BASE_URL = "https://three.org", SATURN_TOKEN = "envtoken" }
    assert.equal("https://two.org/\tenvtoken\tSATURN_TOKEN", (resolve(env)))
    assert.equal("https://one.org/\targtoken\tthe arguments",
      (resolve(env, '{ base_url = "https://one.org", token = "argtoken" }')))
    assert.equal("https://three.org/\tenvtoken\tSATURN_TOKEN",
      (resolve({ BASE_URL = "https://three.org", SATURN_TOKEN = "envtoken" })))
  end)

  it("take dask-saturn's name of the token, and a token file", function()
    assert.equal(URL .. "/\told\tthe arguments", (resolve({ BASE_URL = URL }, '{ saturn_token = "old" }')))
    local path = private("token.json", '{"token": "filetoken"}\n')
    local bare = private("token", "  baretoken\n")
    assert.equal(URL .. "/\tfiletoken\t" .. path, (resolve({ BASE_URL = URL, SATURN_TOKEN_FILE = path })))
    assert.equal(URL .. "/\tbaretoken\t" .. bare,
      (resolve({ BASE_URL = URL, SATURN_TOKEN = "x" }, ("{ token_file = %q }"):format(bare))))
  end)

  it("come from profiles: a named one before the environment, the default one last", function()
    local env = profiles { default = "prod", profiles = { prod = { base_url = "https://prod.org", token = "prodtoken" },
      test = { base_url = "https://test.org", token = "testtoken" } } }
    assert.equal("https://prod.org/\tprodtoken\tthe default profile", (resolve(env)))
    assert.equal("https://test.org/\ttesttoken\tprofile 'test'", (resolve(env, '{ profile = "test" }')))
    env.SATURN_BASE_URL, env.SATURN_TOKEN = "https://env.org", "envtoken"
    assert.equal("https://env.org/\tenvtoken\tSATURN_TOKEN", (resolve(env)))
    assert.equal("https://test.org/\ttesttoken\tprofile 'test'", (resolve(env, '{ profile = "test" }')))
    local _, message = resolve(env, '{ profile = "none" }'):match "^(%S+)\t(.*)$"
    assert.truthy(message:find("the profiles are prod, test", 1, true))
  end)

  it("name what is wrong in a profile", function()
    local env = profiles { profiles = { a = { base_url = 1 }, b = { base_ur = "x" }, c = { timeout = -1 } } }
    assert.truthy(resolve(env, '{ profile = "a" }'):find "^value\tprofile 'a' in .*: option 'base_url' must be string")
    assert.truthy(resolve(env, '{ profile = "b" }'):find "did you mean 'base_url'")
    assert.truthy(resolve(env, '{ profile = "c" }'):find "must be a number, 0 or more")
    private("config/saturn/config.json", "[")
    assert.truthy(resolve(env, '{ profile = "a" }'):find "is not a JSON object")
  end)

  it("never send a profile's token to another service", function()
    local env = profiles { default = "prod", profiles = { prod = { base_url = URL, token = "prodtoken" } } }
    env.SATURN_BASE_URL = "https://elsewhere.org"
    assert.truthy(resolve(env):find "^auth\tno token for elsewhere.org")
    assert.truthy(resolve({ XDG_CONFIG_HOME = env.XDG_CONFIG_HOME },
      '{ profile = "prod", base_url = "https://elsewhere.org" }'):find "^auth\tno token")
    assert.truthy(resolve(env):find("(that of the default profile is for https://app.example.org/ only)", 1, true))
  end)

  it("send a profile's token however the address of its service is written", function()
    local env = profiles { default = "prod", profiles = { prod = { base_url = URL, token = "prodtoken" } } }
    for _, same in ipairs { URL .. "/", URL .. ":443/", "HTTPS://APP.example.org", URL .. "/page" } do
      env.SATURN_BASE_URL = same
      assert.equal(URL .. "/\tprodtoken\tthe default profile", (resolve(env)))
    end
    for _, other in ipairs { "http://app.example.org", URL .. "/sub/", URL .. ":444" } do
      env.SATURN_BASE_URL = other
      assert.truthy(resolve(env):find "^auth\tno token")
    end
  end)

  it("know who is outside, as dask-saturn does", function()
    local env = { SATURN_BASE_URL = URL, SATURN_TOKEN = "t0" }
    local function second(more, options)
      local all = {}
      for name, value in pairs(env) do all[name] = value end
      for name, value in pairs(more) do all[name] = value end
      return select(2, resolve(all, options))
    end
    assert.equal("true\t0.4.4\tnil\tfalse\tnil\tnil", second {})
    assert.equal("false\t0.4.4\tnil\tfalse\tnil\tnil", second { SATURN_IS_INTERNAL = "True" })
    assert.equal("true\t0.4.4\tnil\tfalse\tnil\tnil", second({ SATURN_IS_INTERNAL = "true" }, "{ external = true }"))
    assert.equal("true\tnil\tnil\tfalse\tnil\tp1", second({}, '{ project_id = "p1" }'))
    local run = { PREFECT__CONTEXT__FLOW_RUN_ID = "run", SATURN_RESOURCE_TYPE = "PrefectFlow" }
    assert.equal("true\t0.4.4\tnil\ttrue\tnil\tnil", second(run))
    run.SATURN_VERSION = "2021.08.16"
    assert.equal("true\t0.4.4\trun\ttrue\tnil\tnil", second(run))
    assert.equal("true\t0.4.4\tnil\tfalse\t/ca.pem\tnil", second { REQUESTS_CA_BUNDLE = "/ca.pem" })
  end)

  it("say what is missing", function()
    assert.truthy(resolve({}):find "^value\tno base URL: pass base_url=.*SATURN_BASE_URL.*profile")
    assert.truthy(resolve({ BASE_URL = URL }):find "^auth\tno token for app.example.org: .*token_file=.*api/user/token")
  end)

  it("refuse a base URL that is not one, without showing a password in it", function()
    for _, url in ipairs { "app.example.org", "ftp://x.org", "https://", "https:// x", "" } do
      raises("value", "https://app.community", cloud.connect, { base_url = url, token = "t" })
    end
    local err = raises("value", "user name or password", cloud.connect,
      { base_url = "https://me:word@x.org", token = "t" })
    assert.is_nil(err.message:find("word@", 1, true))
  end)

  it("drop the page behind the last slash of the base URL, as dask-saturn does", function()
    local function base(url) return cloud.connect({ base_url = url, token = "t" }).base_url end
    assert.equal("https://x.org/", base "https://x.org/dash")
    assert.equal("https://x.org/sub/", base "https://x.org/sub/dash?q=1#f")
    assert.equal("http://x.org:8000/", base "http://x.org:8000")
    assert.equal("http://[::1]:8000/", base "http://[::1]:8000")
  end)

  it("refuse a token that cannot be one, without showing it", function()
    for _, token in ipairs { "two words", "a\nb", "   " } do
      local err = raises("auth", nil, cloud.connect, { base_url = URL, token = token })
      assert.is_nil(err.message:find(token, 1, true))
    end
  end)

  it("refuse a token file that others can read, or that holds something else", function()
    local path = private("open.json", '{"token": "t"}')
    support.shell("chmod 644 " .. quote(path))
    raises("value", "chmod 600", cloud.connect, { base_url = URL, token_file = path })
    for _, text in ipairs { "{}", '{"token": 1}', "{", "{}x" } do
      raises("value", '"token"', cloud.connect, { base_url = URL, token_file = private("bad.json", text) })
    end
    raises("value", "No such file", cloud.connect, { base_url = URL, token_file = dir.path .. "/absent" })
  end)

  it("do not show a token that was given for its file", function()
    for _, token in ipairs { "0123456789abcdef0123456789abcdef", "{\"token\": \"abcdef\"}", ("eyJh.x"):rep(40),
      ("x"):rep(5000) } do
      local err = raises("value", "the file", cloud.connect, { base_url = URL, token_file = token })
      assert.is_nil(err.message:find(token:sub(1, 30), 1, true))
    end
  end)

  it("refuse unknown options at the caller's line", function()
    local ok, err = pcall(cloud.connect, { base_ur = URL })
    assert.is_false(ok)
    assert.truthy(err:find "unknown option 'base_ur': did you mean 'base_url'")
    ok, err = pcall(cloud.connect, { base_url = 1 })
    assert.is_false(ok)
    assert.truthy(err:find "'base_url' must be string")
    ok, err = pcall(function() cloud.connect { base_url = URL, timeout = -1 } end)
    assert.is_false(ok)
    assert.truthy(err:find "^spec/settings_spec.lua:%d+: option 'timeout' must be a number, 0 or more")
    ok, err = pcall(function() cloud.connect(1) end)
    assert.is_false(ok)
    assert.truthy(err:find "^spec/settings_spec.lua:%d+: ")
  end)

  it("show no token anywhere", function()
    local conn = cloud.connect { base_url = URL, token = "very-secret", refresh_token = "also-secret" }
    local function walk(value, seen)
      assert.is_nil(tostring(value):find("-secret", 1, true))
      if type(value) ~= "table" or seen[value] then return end
      seen[value] = true
      for key, item in pairs(value) do
        walk(key, seen)
        walk(item, seen)
      end
    end
    walk(conn, {})
    assert.equal("saturn.connection https://app.example.org/ (external, token from the arguments)", tostring(conn))
  end)
end)
