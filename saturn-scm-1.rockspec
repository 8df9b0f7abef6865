rockspec_format = "3.0"
package = "saturn"
version = "scm-1"
source = {
  url = "git+https://github.com/saturn-lua/saturn.git",
  branch = "main",
}
description = {
  summary = "A native client of Dask's distributed scheduler and of Saturn Cloud, with a C core",
  detailed = [[
Starts Dask clusters on Saturn Cloud or on this machine and runs Python on them from Lua: futures, delayed graphs,
NumPy arrays, coordination objects. Speaks the scheduler's own protocol; no Python is needed on the client's side.]],
  license = "MIT",
  labels = { "dask", "distributed", "cluster", "cloud", "python" },
}
supported_platforms = { "unix" }
dependencies = {
  "lua >= 5.4, < 5.5",
  "lua-cjson >= 2.1",
  "argparse >= 0.7",
}
test_dependencies = {
  "busted >= 2.1",
}
-- zlib is used where it is there, libsnappy when a frame needs it; their absence is no error.
external_dependencies = {
  CURL = { library = "curl" },
  CRYPTO = { library = "crypto" },
  MSGPACK = { library = "msgpackc" },
  LZ4 = { library = "lz4" },
  ZSTD = { library = "zstd" },
}
-- The same for both steps, so that the second finds nothing to build anew.
local variables = {
  CC = "$(CC)",
  CFLAGS = "$(CFLAGS)",
  LUA = "$(LUA)",
  LUA_INCDIR = "$(LUA_INCDIR)",
  CURL_INCDIR = "$(CURL_INCDIR)",
  CURL_LIBDIR = "$(CURL_LIBDIR)",
  CRYPTO_INCDIR = "$(CRYPTO_INCDIR)",
  CRYPTO_LIBDIR = "$(CRYPTO_LIBDIR)",
  MSGPACK_INCDIR = "$(MSGPACK_INCDIR)",
  MSGPACK_LIBDIR = "$(MSGPACK_LIBDIR)",
  LZ4_INCDIR = "$(LZ4_INCDIR)",
  LZ4_LIBDIR = "$(LZ4_LIBDIR)",
  ZSTD_INCDIR = "$(ZSTD_INCDIR)",
  ZSTD_LIBDIR = "$(ZSTD_LIBDIR)",
  LUADIR = "$(LUADIR)",
  LIBDIR = "$(LIBDIR)",
  BINDIR = "$(BINDIR)",
}
build = {
  type = "make",
  build_variables = variables,
  install_variables = variables,
}
test = {
  type = "command",
  command = "make test",
}
