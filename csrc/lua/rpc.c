/* saturn.core.rpc: new(reactor, options) → rpc; rpc:call(request, ack) → call; call:done(), call:reply(keep_nil). */
#include "../core/rpc.h"

#include "reactor.h"
#include "wire.h"

#define RPC "saturn.rpc"
#define CALL "saturn.call"

typedef struct rpc_box {
    sat_rpc *rpc;
    sat_limits limits;
} rpc_box;

typedef struct call_box {
    sat_call *call;
    sat_limits limits;
} call_box;

static int rpc_new(lua_State *L)
{
    sat_error err;
    sat_endpoint endpoint;
    sat_reactor *reactor = satL_check_reactor(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    rpc_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    box->rpc = NULL;
    luaL_setmetatable(L, RPC);
    lua_getfield(L, 2, "limits");
    satL_check_limits(L, -1, &box->limits);
    lua_pop(L, 1);
    if (satL_read_endpoint(L, 2, &endpoint, &err) != SAT_OK) return satL_fail(L, &err);
    box->rpc = sat_rpc_new(reactor, &endpoint, &box->limits, &err);
    sat_endpoint_free(&endpoint);
    return box->rpc ? 1 : satL_fail(L, &err);
}

/* close(reason | nil) */
static int rpc_close(lua_State *L)
{
    rpc_box *box = luaL_checkudata(L, 1, RPC);
    const char *reason = luaL_optstring(L, 2, "the connection was closed");
    if (box->rpc) sat_rpc_close(box->rpc, reason);
    sat_rpc_release(box->rpc);
    box->rpc = NULL;
    return 0;
}

static int rpc_gc(lua_State *L)
{
    lua_settop(L, 1); /* __close is given the error too, which is no reason */
    return rpc_close(L);
}

static int rpc_call(lua_State *L)
{
    sat_error err;
    rpc_box *box = luaL_checkudata(L, 1, RPC);
    luaL_checktype(L, 2, LUA_TTABLE);
    int ack = lua_toboolean(L, 3);
    call_box *call = lua_newuserdatauv(L, sizeof *call, 0);
    call->call = NULL;
    call->limits = box->limits;
    luaL_setmetatable(L, CALL);
    sat_outgoing *out = satL_new_outgoing(L);
    satL_pack(L, 2, out);
    if (box->rpc == NULL) {
        (void)sat_fail(&err, SAT_CLOSED, "the connection was closed");
        return satL_fail(L, &err);
    }
    call->call = sat_rpc_call(box->rpc, out, ack, &err);
    lua_pop(L, 1);
    return call->call ? 1 : satL_fail(L, &err);
}

static call_box *check_call(lua_State *L)
{
    call_box *box = luaL_checkudata(L, 1, CALL);
    if (box->call == NULL) luaL_error(L, "this call is closed");
    return box;
}

static int call_done(lua_State *L)
{
    lua_pushboolean(L, sat_call_state(check_call(L)->call, NULL) != SAT_AGAIN);
    return 1;
}

/* reply(keep_nil) → the reply's value, or nil, kind, message. A reply of nil is `false`, with keep_nil null. */
static int call_reply(lua_State *L)
{
    sat_error err;
    call_box *box = check_call(L);
    int keep_nil = lua_toboolean(L, 2);
    sat_status status = sat_call_state(box->call, &err);
    if (status == SAT_AGAIN) return luaL_error(L, "this call is not done");
    if (status != SAT_OK) return satL_fail(L, &err);
    sat_message *reply = sat_call_reply(box->call);
    if (satL_push_msgpack(L, reply, reply->frames[0], &box->limits, keep_nil, &err) != SAT_OK) return satL_fail(L, &err);
    if (lua_isnil(L, -1)) {
        if (keep_nil)
            satL_push_null(L);
        else
            lua_pushboolean(L, 0);
    }
    return 1;
}

static int call_close(lua_State *L)
{
    call_box *box = luaL_checkudata(L, 1, CALL);
    sat_call_free(box->call);
    box->call = NULL;
    return 0;
}

int satL_open_rpc(lua_State *L)
{
    static const luaL_Reg methods[] = {{"call", rpc_call}, {"close", rpc_close}, {NULL, NULL}};
    static const luaL_Reg meta[] = {{"__gc", rpc_gc}, {"__close", rpc_gc}, {NULL, NULL}};
    static const luaL_Reg call_methods[] = {{"done", call_done}, {"reply", call_reply}, {"close", call_close}, {NULL, NULL}};
    static const luaL_Reg call_meta[] = {{"__gc", call_close}, {"__close", call_close}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"new", rpc_new}, {NULL, NULL}};
    satL_class(L, RPC, methods, meta);
    satL_class(L, CALL, call_methods, call_meta);
    lua_pop(L, 2);
    luaL_newlib(L, functions);
    return 1;
}
