/* saturn.core.keypair: new() → pair; pair:request(common_name) → PEM, pair:pem() → PEM of the key,
 * pair:chain(text) → { {pem=, not_before=, not_after=, matches=}, ... }, number of certificates;
 * read_secret(path) → the file's text. */
#include "../core/keypair.h"

#include "../core/secret.h"
#include "saturn_lua.h"

#define KEYPAIR "saturn.keypair"
#define PEM "saturn.pem"
#define CHAIN "saturn.certificates"
#define SECRET "saturn.secret"

enum { CHAIN_ROOM = 2, SECRET_LIMIT = 64 * 1024 };

static sat_keypair *check_pair(lua_State *L)
{
    sat_keypair **box = luaL_checkudata(L, 1, KEYPAIR);
    if (*box == NULL) luaL_error(L, "this key is closed");
    return *box;
}

static int keypair_new(lua_State *L)
{
    sat_error err;
    sat_keypair **box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = NULL;
    luaL_setmetatable(L, KEYPAIR);
    *box = sat_keypair_new(&err);
    return *box ? 1 : satL_fail(L, &err);
}

static int pair_close(lua_State *L)
{
    sat_keypair **box = luaL_checkudata(L, 1, KEYPAIR);
    sat_keypair_free(*box);
    *box = NULL;
    return 0;
}

static int pair_tostring(lua_State *L)
{
    sat_keypair **box = luaL_checkudata(L, 1, KEYPAIR);
    lua_pushstring(L, *box ? "saturn.keypair (RSA 2048)" : "saturn.keypair (closed)");
    return 1;
}

/* Text on its way to Lua stands in a userdata, so that it is wiped even if Lua runs out of memory. */
static sat_pem *push_pem(lua_State *L)
{
    sat_pem *pem = lua_newuserdatauv(L, sizeof *pem, 0);
    *pem = (sat_pem){NULL, 0};
    luaL_setmetatable(L, PEM);
    return pem;
}

static int pem_gc(lua_State *L)
{
    sat_pem_free(luaL_checkudata(L, 1, PEM));
    return 0;
}

static int give_pem(lua_State *L, sat_status status, sat_pem *pem, const sat_error *err)
{
    if (status != SAT_OK) return satL_fail(L, err);
    lua_pushlstring(L, pem->text, pem->len);
    sat_pem_free(pem);
    return 1;
}

static int pair_pem(lua_State *L)
{
    sat_error err;
    const sat_keypair *pair = check_pair(L);
    sat_pem *pem = push_pem(L);
    return give_pem(L, sat_keypair_pem(pair, pem, &err), pem, &err);
}

static int pair_request(lua_State *L)
{
    sat_error err;
    size_t len;
    const sat_keypair *pair = check_pair(L);
    const char *common_name = luaL_checklstring(L, 2, &len);
    sat_pem *pem = push_pem(L);
    return give_pem(L, sat_keypair_request(pair, common_name, len, pem, &err), pem, &err);
}

typedef struct chain {
    sat_certificate certificates[CHAIN_ROOM];
} chain;

static int chain_gc(lua_State *L)
{
    chain *box = luaL_checkudata(L, 1, CHAIN);
    for (size_t i = 0; i < CHAIN_ROOM; i++) sat_pem_free(&box->certificates[i].pem);
    return 0;
}

static void push_certificate(lua_State *L, const sat_certificate *certificate)
{
    lua_createtable(L, 0, 4);
    lua_pushlstring(L, certificate->pem.text, certificate->pem.len);
    lua_setfield(L, -2, "pem");
    lua_pushinteger(L, certificate->not_before);
    lua_setfield(L, -2, "not_before");
    lua_pushinteger(L, certificate->not_after);
    lua_setfield(L, -2, "not_after");
    lua_pushboolean(L, certificate->matches);
    lua_setfield(L, -2, "matches");
}

static int pair_chain(lua_State *L)
{
    sat_error err;
    size_t len, count;
    const sat_keypair *pair = check_pair(L);
    const char *text = luaL_checklstring(L, 2, &len);
    chain *box = lua_newuserdatauv(L, sizeof *box, 0);
    for (size_t i = 0; i < CHAIN_ROOM; i++) box->certificates[i] = (sat_certificate){{NULL, 0}, 0, 0, false};
    luaL_setmetatable(L, CHAIN);
    if (sat_certificates_read(text, len, pair, box->certificates, CHAIN_ROOM, &count, &err) != SAT_OK)
        return satL_fail(L, &err);
    lua_newtable(L);
    for (size_t i = 0; i < CHAIN_ROOM && i < count; i++) {
        push_certificate(L, &box->certificates[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_pushinteger(L, (lua_Integer)count);
    return 2;
}

static int secret_gc(lua_State *L)
{
    sat_secret_free(luaL_checkudata(L, 1, SECRET));
    return 0;
}

static int read_secret(lua_State *L)
{
    sat_error err;
    const char *path = luaL_checkstring(L, 1);
    sat_secret *secret = lua_newuserdatauv(L, sizeof *secret, 0);
    *secret = (sat_secret){NULL, 0};
    luaL_setmetatable(L, SECRET);
    if (sat_secret_read(path, SECRET_LIMIT, secret, &err) != SAT_OK) return satL_fail(L, &err);
    lua_pushlstring(L, secret->data, secret->len);
    sat_secret_free(secret);
    return 1;
}

int satL_open_keypair(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"pem", pair_pem}, {"request", pair_request}, {"chain", pair_chain}, {"close", pair_close}, {NULL, NULL}};
    static const luaL_Reg meta[] = {
        {"__gc", pair_close}, {"__close", pair_close}, {"__tostring", pair_tostring}, {NULL, NULL}};
    static const luaL_Reg pem_meta[] = {{"__gc", pem_gc}, {NULL, NULL}};
    static const luaL_Reg chain_meta[] = {{"__gc", chain_gc}, {NULL, NULL}};
    static const luaL_Reg secret_meta[] = {{"__gc", secret_gc}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"new", keypair_new}, {"read_secret", read_secret}, {NULL, NULL}};
    satL_class(L, KEYPAIR, methods, meta);
    satL_class(L, PEM, NULL, pem_meta);
    satL_class(L, CHAIN, NULL, chain_meta);
    satL_class(L, SECRET, NULL, secret_meta);
    lua_pop(L, 4);
    luaL_newlib(L, functions);
    return 1;
}
