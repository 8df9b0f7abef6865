std = "lua54"
cache = false
codes = true
max_line_length = 120
exclude_files = { "build/**", "lua_modules/**", ".luarocks/**" }
-- A method may ignore its self, and a name that starts with _ says that it is not used.
self = false
files["spec"] = { std = "+busted" }
files["*.rockspec"] = { std = "+rockspec" }
files["rockspec"] = { std = "+rockspec" }
files[".busted"] = { std = "lua54" }
files[".luarocks/config-5.4.lua"] = { allow_defined_top = true, ignore = { "131" } }
