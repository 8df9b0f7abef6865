-- "luarocks make" in this folder is for Lua 5.4, whatever the default of the machine is.
return "5.4"
