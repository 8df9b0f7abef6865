/* A Lua state for the fuzz targets of the faces: its memory is bounded, and its allocations can be made to fail. */
#ifndef SATURN_FUZZ_LUA_STATE_H
#define SATURN_FUZZ_LUA_STATE_H

#include "../../csrc/core/status.h"
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int luaopen_saturn_core(lua_State *L);

/* More than this is never backed by an input of a few kilobytes. */
enum { STATE_MEMORY = 256 << 20 };

static struct {
    lua_State *L;
    size_t used;
    uint64_t left; /* allocations until they fail */
} state;

static void *state_alloc(void *ud, void *p, size_t old, size_t size)
{
    (void)ud;
    if (p == NULL) old = 0;
    if (size == 0) {
        free(p);
        state.used -= old;
        return NULL;
    }
    if (size > old) {
        if (state.used + size - old > STATE_MEMORY) abort();
        if (state.left == 0) return NULL;
        state.left--;
    }
    void *made = realloc(p, size);
    if (made != NULL) state.used += size - old;
    return made;
}

/* Opens the state once, and runs `source` in it, which returns what is left on the stack at 1. */
static lua_State *state_open(const char *source)
{
    if (state.L != NULL) return state.L;
    state.left = UINT64_MAX;
    state.L = lua_newstate(state_alloc, NULL);
    if (state.L == NULL) abort();
    luaL_openlibs(state.L);
    luaL_requiref(state.L, "saturn.core", luaopen_saturn_core, 0);
    lua_setglobal(state.L, "core");
    if (luaL_dostring(state.L, source) != LUA_OK) {
        fprintf(stderr, "%s\n", luaL_tolstring(state.L, -1, NULL));
        abort();
    }
    lua_settop(state.L, 1);
    return state.L;
}

/* Calls the function at 1 and `then` behind it with `arg`, protected. The first byte of the input says after how many
 * allocations memory runs out: 0 never. */
static void state_run(lua_State *L, lua_CFunction call, void *arg, uint8_t fail)
{
    static unsigned runs;
    lua_pushcfunction(L, call);
    lua_pushlightuserdata(L, arg);
    lua_pushvalue(L, 1);
    if (fail > 0) state.left = (uint64_t)fail - 1;
    int status = lua_pcall(L, 2, 0, 0);
    bool failed = state.left == 0;
    state.left = UINT64_MAX;
    if (status != LUA_OK && !failed) {
        fprintf(stderr, "raised: %s\n", luaL_tolstring(L, -1, NULL));
        abort();
    }
    lua_settop(L, 1);
    if (++runs % 16 == 0 || failed) lua_gc(L, LUA_GCCOLLECT);
}

/* What a reader of the Lua face gave: on failure a reason and an untouched stack, else the value, which the function
 * before it (state_run's) is called with. */
static inline int state_use(lua_State *L, sat_status status, const sat_error *err)
{
    if (status != SAT_OK) {
        if (lua_gettop(L) != 2 || err->status != status || err->text[0] == '\0') abort();
        return 0;
    }
    if (lua_gettop(L) != 3) abort();
    lua_call(L, 1, 0);
    return 0;
}

#endif
