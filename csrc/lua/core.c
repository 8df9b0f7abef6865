/* The one C module, saturn.core: a table with a table for each face. */
#include "saturn_lua.h"

#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
int luaopen_saturn_core(lua_State *L);

int luaopen_saturn_core(lua_State *L)
{
    static const luaL_Reg faces[] = {
        {"reactor", satL_open_reactor}, {"process", satL_open_process}, {"http", satL_open_http},
        {"keypair", satL_open_keypair}, {"pickle", satL_open_pickle},   {"array", satL_open_array},
        {"wire", satL_open_wire},       {"rpc", satL_open_rpc},         {"session", satL_open_session},
        {"files", satL_open_files},     {"arrow", satL_open_arrow},
        {NULL, NULL},
    };
    lua_newtable(L);
    for (const luaL_Reg *face = faces; face->name; face++) {
        face->func(L);
        lua_setfield(L, -2, face->name);
    }
    satL_push_null(L);
    lua_setfield(L, -2, "null");
    return 1;
}
