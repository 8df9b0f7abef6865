/* lua.c of the sanitized builds: a small interpreter linked with the sanitizers, so that the module can be loaded.
 * Takes [-e text]... [-l module]... [script [args]], or a script on stdin, as lua does.
 *
 * Its collector never rests, and memory can be made to run out: Lua's allocator and the module's malloc, calloc and
 * realloc (which the linker's --wrap leads here) count their calls together. The Lua module spec.memory has
 *   run(n, once, fn, ...) → how many calls were refused, then what pcall(fn, ...) returns
 * in which allocation n and all after it fail; with `once` only the first of Lua's own from n on, which makes Lua
 * collect all garbage right there and ask again. The collector rests meanwhile, for Lua has no memory to call a
 * finalizer then and drops what it would free. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);

/* The module can reach the wrappers by name only, so this cannot hang on a state. */
static struct {
    uint64_t left; /* allocations until they fail; UINT64_MAX: they do not */
    uint64_t refused;
    bool once;
} memory = {.left = UINT64_MAX};

static bool refuse(bool lua)
{
    if (memory.left == UINT64_MAX) return false;
    if (memory.left > 0) {
        memory.left--;
        return false;
    }
    if (memory.once) {
        if (!lua) return false;
        memory.left = UINT64_MAX;
    }
    memory.refused++;
    return true;
}

void *__wrap_malloc(size_t size)
{
    return refuse(false) ? NULL : malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return refuse(false) ? NULL : calloc(n, size);
}

void *__wrap_realloc(void *p, size_t size)
{
    return refuse(false) ? NULL : realloc(p, size);
}

static void *allocate(void *ud, void *p, size_t old, size_t size)
{
    (void)ud;
    if (size == 0) {
        free(p);
        return NULL;
    }
    /* Lua takes it that memory can always shrink */
    if ((p == NULL || size > old) && refuse(true)) return NULL;
    return realloc(p, size);
}

static int memory_run(lua_State *L)
{
    lua_Integer n = luaL_checkinteger(L, 1);
    luaL_argcheck(L, n > 0, 1, "the first allocation is 1");
    luaL_checktype(L, 3, LUA_TFUNCTION);
    memory.once = lua_toboolean(L, 2);
    memory.refused = 0;
    memory.left = (uint64_t)n - 1;
    lua_gc(L, LUA_GCSTOP);
    int status = lua_pcall(L, lua_gettop(L) - 3, LUA_MULTRET, 0);
    memory.left = UINT64_MAX;
    lua_gc(L, LUA_GCRESTART);
    lua_pushboolean(L, status == LUA_OK);
    lua_replace(L, 2);
    lua_pushinteger(L, (lua_Integer)memory.refused);
    lua_replace(L, 1);
    return lua_gettop(L);
}

static int open_memory(lua_State *L)
{
    static const luaL_Reg functions[] = {{"run", memory_run}, {NULL, NULL}};
    luaL_newlib(L, functions);
    return 1;
}

static int traceback(lua_State *L)
{
    luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
    return 1;
}

static int run(lua_State *L, int loaded, int nargs)
{
    if (loaded == LUA_OK) {
        int base = lua_gettop(L) - nargs;
        lua_pushcfunction(L, traceback);
        lua_insert(L, base);
        loaded = lua_pcall(L, nargs, 0, base);
        lua_remove(L, base);
    }
    if (loaded != LUA_OK) {
        fprintf(stderr, "lua: %s\n", luaL_tolstring(L, -1, NULL));
        lua_pop(L, 2);
        return 0;
    }
    return 1;
}

int main(int argc, char **argv)
{
    lua_State *L = luaL_newstate();
    if (L == NULL) return EXIT_FAILURE;
    lua_setallocf(L, allocate, NULL); /* the first one uses realloc and free as well */
    lua_gc(L, LUA_GCINC, 1, 300, 1); /* no pause, and thrice what is allocated, at each allocation */
    luaL_openlibs(L);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, open_memory);
    lua_setfield(L, -2, "spec.memory");
    lua_pop(L, 1);

    int script = 1;
    while (script + 1 < argc && (strcmp(argv[script], "-e") == 0 || strcmp(argv[script], "-l") == 0)) script += 2;
    lua_newtable(L);
    for (int i = 0; i < argc; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i - (script < argc ? script : 0));
    }
    lua_setglobal(L, "arg");

    int ok = 1;
    for (int i = 1; ok && i < script; i += 2) {
        if (strcmp(argv[i], "-e") == 0) {
            ok = run(L, luaL_loadbuffer(L, argv[i + 1], strlen(argv[i + 1]), "=(command line)"), 0);
        } else {
            lua_getglobal(L, "require");
            lua_pushstring(L, argv[i + 1]);
            ok = run(L, LUA_OK, 1);
        }
    }
    if (ok && (script < argc || script == 1)) {
        const char *name = script < argc && strcmp(argv[script], "-") != 0 ? argv[script] : NULL;
        int loaded = luaL_loadfile(L, name);
        int nargs = 0;
        for (int i = script + 1; loaded == LUA_OK && i < argc; i++, nargs++) {
            luaL_checkstack(L, 1, "too many arguments");
            lua_pushstring(L, argv[i]);
        }
        ok = run(L, loaded, nargs);
    }
    lua_close(L);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
