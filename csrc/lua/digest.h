/* C side of the names of calls by content. */
#ifndef SATURN_LUA_DIGEST_H
#define SATURN_LUA_DIGEST_H

#include "saturn_lua.h"

int satL_digest(lua_State *L);

#endif
