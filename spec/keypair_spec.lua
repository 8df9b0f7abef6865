-- The client's key, its certificate request and the certificates that come back, against Python's cryptography and
-- the openssl program.
local core = require "saturn.core"
local support = require "spec.support"

local quote = support.quote
local NAME = "Dask Client 0123456789abcdef0123456789abcdef"

-- What dask-saturn 0.4.4 does with this key.
local REQUEST_IN_PYTHON = [[
import sys
from cryptography import x509
from cryptography.x509.oid import NameOID, ExtendedKeyUsageOID
from cryptography.hazmat.primitives import hashes, serialization
key = serialization.load_pem_private_key(open(sys.argv[1], "rb").read(), None)
request = (x509.CertificateSigningRequestBuilder()
  .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, sys.argv[2])]))
  .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
  .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True)
  .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
  .sign(key, hashes.SHA256()))
sys.stdout.write(request.public_bytes(serialization.Encoding.PEM).decode())
]]

local function python()
  for _, name in ipairs { os.getenv "SATURN_PYTHON" or "python3", "/usr/bin/python3" } do
    if os.execute(quote(name) .. " -c 'import cryptography' 2>/dev/null") then return name end
  end
end

-- A certificate for the pair's key, signed by itself.
local function self_signed(dir, pair)
  support.write_all(dir .. "/key.pem", pair:pem())
  return support.shell(("openssl req -x509 -new -key %s -subj /CN=one -days 2"):format(quote(dir .. "/key.pem")))
end

describe("a key pair", function()
  local pair, dir

  setup(function()
    pair = assert(core.keypair.new())
    dir = support.tmpdir()
  end)
  teardown(function()
    pair:close()
    dir:remove()
  end)

  it("makes the request that dask-saturn makes, byte for byte", function()
    local with = python()
    if not with then return pending "no Python with cryptography" end
    support.write_all(dir.path .. "/key.pem", pair:pem())
    support.write_all(dir.path .. "/request.py", REQUEST_IN_PYTHON)
    local wanted = support.shell(("%s %s %s %s"):format(quote(with), quote(dir.path .. "/request.py"),
      quote(dir.path .. "/key.pem"), quote(NAME)))
    local request = pair:request(NAME)
    assert.equal(wanted, request)
    assert.equal(1054, #request)
  end)

  it("writes its key as PKCS#1 without a password, and never in a tostring", function()
    local pem = pair:pem()
    assert.truthy(pem:find "^%-%-%-%-%-BEGIN RSA PRIVATE KEY%-%-%-%-%-\n")
    assert.equal("saturn.keypair (RSA 2048)", tostring(pair))
  end)

  it("reads a chain with CRLF, text around and other blocks in it", function()
    local one = self_signed(dir.path, pair)
    local other = self_signed(dir.path, assert(core.keypair.new()))
    local text = ("subject=one\n" .. one .. "\nsome text\n" .. pair:request(NAME) .. other):gsub("\n", "\r\n")
    local chain, count = pair:chain(text)
    assert.equal(2, count)
    assert.equal(one, chain[1].pem)
    assert.equal(other, chain[2].pem)
    assert.is_true(chain[1].matches)
    assert.is_false(chain[2].matches)
    assert.is_true(chain[1].not_before <= os.time() and os.time() < chain[1].not_after)
    assert.is_true(math.abs(chain[1].not_after - os.time() - 2 * 86400) < 60)
  end)

  it("gives the first two of a longer chain, and counts all", function()
    local one = self_signed(dir.path, pair)
    local chain, count = pair:chain(one .. one .. one)
    assert.equal(3, count)
    assert.equal(2, #chain)
  end)

  it("finds no certificate where there is none", function()
    for _, text in ipairs { "", "no PEM at all", pair:request(NAME), "-----BEGIN CERTIFICATE-----" } do
      local chain, count, message = pair:chain(text)
      if chain then assert.equal(0, count) else assert.equal("tls", count, message) end
    end
  end)

  it("refuses a malformed certificate", function()
    local block = "-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n"
    for _, body in ipairs { "AAAA", "****", "", ("QUFB"):rep(50) } do
      local chain, kind, message = pair:chain(block:format(body):rep(2))
      assert.is_nil(chain)
      assert.equal("tls", kind)
      assert.truthy(message:find "malformed")
    end
    local chain, kind, message = pair:chain(self_signed(dir.path, pair):rep(65))
    assert.is_nil(chain)
    assert.equal("limit", kind, message)
  end)

  it("can be closed twice and is of no use then", function()
    local other <close> = assert(core.keypair.new())
    other:close()
    other:close()
    assert.has_error(function() other:pem() end)
    assert.equal("saturn.keypair (closed)", tostring(other))
  end)
end)

describe("a file with a secret", function()
  local dir
  setup(function() dir = support.tmpdir() end)
  teardown(function() dir:remove() end)

  it("is read when only its owner can", function()
    local path = dir.path .. "/token"
    support.write_all(path, "secret")
    support.shell("chmod 600 " .. quote(path))
    assert.equal("secret", core.keypair.read_secret(path))
    support.shell("chmod 400 " .. quote(path))
    assert.equal("secret", core.keypair.read_secret(path))
  end)

  it("is refused when others can, with the command that helps", function()
    local path = dir.path .. "/open"
    support.write_all(path, "secret")
    for _, mode in ipairs { "640", "604", "620", "602" } do
      support.shell("chmod " .. mode .. " " .. quote(path))
      local text, kind, message = core.keypair.read_secret(path)
      assert.is_nil(text)
      assert.equal("value", kind)
      assert.truthy(message:find("mode " .. mode, 1, true))
      assert.truthy(message:find("chmod 600 '" .. path .. "'", 1, true))
    end
  end)

  it("is refused when it is absent, a directory or too long", function()
    local long = dir.path .. "/long"
    support.write_all(long, ("x"):rep(65537))
    support.shell("chmod 600 " .. quote(long))
    for _, path in ipairs { dir.path .. "/absent", dir.path, long } do
      local text, kind = core.keypair.read_secret(path)
      assert.is_nil(text)
      assert.equal("value", kind)
    end
  end)
end)
