#include "saturn_lua.h"

#include <string.h>

static const char null_tag = 0;

int satL_fail(lua_State *L, const sat_error *err)
{
    lua_pushnil(L);
    lua_pushstring(L, sat_status_kind(err->status));
    lua_pushstring(L, err->text);
    return 3;
}

void satL_class(lua_State *L, const char *name, const luaL_Reg *methods, const luaL_Reg *meta)
{
    luaL_newmetatable(L, name);
    if (meta != NULL) luaL_setfuncs(L, meta, 0);
    lua_newtable(L);
    if (methods != NULL) luaL_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
}

void satL_push_null(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)(uintptr_t)&null_tag);
}

int satL_is_null(lua_State *L, int idx)
{
    return lua_touserdata(L, idx) == (const void *)&null_tag && lua_islightuserdata(L, idx);
}

static uint64_t *limit_field(sat_limits *limits, const char *name)
{
    if (strcmp(name, "message") == 0) return &limits->message;
    if (strcmp(name, "frame") == 0) return &limits->frame;
    if (strcmp(name, "depth") == 0) return &limits->depth;
    if (strcmp(name, "nodes") == 0) return &limits->nodes;
    if (strcmp(name, "memo") == 0) return &limits->memo;
    return NULL;
}

enum { MAX_DEPTH = 10000 }; /* values are walked on the C stack */

void satL_check_limits(lua_State *L, int idx, sat_limits *limits)
{
    idx = lua_absindex(L, idx);
    *limits = (sat_limits)SAT_LIMITS_DEFAULT;
    if (lua_isnoneornil(L, idx)) return;
    luaL_checktype(L, idx, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
        const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
        uint64_t *field = limit_field(limits, name);
        lua_Number value = lua_tonumber(L, -1);
        if (field == NULL)
            luaL_error(L, "unknown limit '%s': the limits are message, frame, depth, nodes and memo", name);
        else if (lua_type(L, -1) != LUA_TNUMBER || !(value >= 1 && value <= 9e15))
            luaL_error(L, "limit '%s' must be a number from 1 to 9e15", name);
        else if (field == &limits->depth && value > MAX_DEPTH)
            luaL_error(L, "limit 'depth' must be at most %d", (int)MAX_DEPTH);
        else
            *field = (uint64_t)value;
    }
}
