/* C side of the reactor face, for the faces that hang on one. */
#ifndef SATURN_LUA_REACTOR_H
#define SATURN_LUA_REACTOR_H

#include "../core/reactor.h"
#include "saturn_lua.h"

/* The reactor of the userdata at idx; raises when it is something else. Borrowed: retain it to keep it. */
sat_reactor *satL_check_reactor(lua_State *L, int idx);

#endif
