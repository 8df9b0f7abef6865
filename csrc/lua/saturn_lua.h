/* What the Lua faces share. Every face is a satL_open_<name> that pushes one table of functions.
 *
 * Failure at run time: a function returns nil, kind, message (satL_fail); misuse raises luaL_error.
 * A Lua error is a longjmp: memory that C holds across any call that can raise lives in a userdata. */
#ifndef SATURN_LUA_H
#define SATURN_LUA_H

#include <lauxlib.h>
#include <lua.h>

#include "../core/buf.h"
#include "../core/limits.h"
#include "../core/status.h"

/* Pushes nil, kind, message and returns 3. */
int satL_fail(lua_State *L, const sat_error *err);

/* Makes the metatable `name` with these methods and metamethods (either list may be NULL), sets __name and
 * __index (a table of the methods), and leaves it on the stack. */
void satL_class(lua_State *L, const char *name, const luaL_Reg *methods, const luaL_Reg *meta);

/* saturn.null, Python's None inside a container: a light userdata. */
void satL_push_null(lua_State *L);
int satL_is_null(lua_State *L, int idx);

/* Reads a table of limits at idx (nil or none: defaults stay) into *limits; an unknown name or a bad number raises. */
void satL_check_limits(lua_State *L, int idx, sat_limits *limits);

int satL_open_reactor(lua_State *L);
int satL_open_process(lua_State *L);
int satL_open_http(lua_State *L);
int satL_open_keypair(lua_State *L);
int satL_open_pickle(lua_State *L);
int satL_open_array(lua_State *L);
int satL_open_wire(lua_State *L);
int satL_open_rpc(lua_State *L);
int satL_open_session(lua_State *L);
int satL_open_files(lua_State *L);
int satL_open_arrow(lua_State *L);

#endif
