/* saturn.core.files: list(path) → the names in a directory, in no order, or nothing when it is none. */
#include <dirent.h>
#include <string.h>

#include "saturn_lua.h"

#define DIRECTORY "saturn.directory"

static int directory_gc(lua_State *L)
{
    DIR **box = luaL_checkudata(L, 1, DIRECTORY);
    if (*box) closedir(*box);
    *box = NULL;
    return 0;
}

static int files_list(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    DIR **box = lua_newuserdatauv(L, sizeof(DIR *), 0);
    *box = NULL;
    luaL_setmetatable(L, DIRECTORY);
    *box = opendir(path);
    if (*box == NULL) return 0;
    lua_newtable(L);
    const struct dirent *entry;
    for (lua_Integer at = 1; (entry = readdir(*box)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        lua_pushstring(L, entry->d_name);
        lua_rawseti(L, -2, at++);
    }
    closedir(*box);
    *box = NULL;
    return 1;
}

int satL_open_files(lua_State *L)
{
    static const luaL_Reg meta[] = {{"__gc", directory_gc}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"list", files_list}, {NULL, NULL}};
    satL_class(L, DIRECTORY, NULL, meta);
    lua_pop(L, 1);
    luaL_newlib(L, functions);
    return 1;
}
