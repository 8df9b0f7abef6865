/* lua.c of the sanitized builds: a small interpreter linked with the sanitizers, so that the module can be loaded.
 * Takes [-e text]... [-l module]... [script [args]], or a script on stdin, as lua does. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    luaL_openlibs(L);

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
