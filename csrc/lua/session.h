/* C side of the session face. */
#ifndef SATURN_LUA_SESSION_H
#define SATURN_LUA_SESSION_H

#include "../core/session.h"
#include "saturn_lua.h"

/* 1 and the msgpack of its key when the value at idx is a Future. Never raises. */
int satL_future_key(lua_State *L, int idx, sat_slice *key);

#endif
