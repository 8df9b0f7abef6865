/* saturn.core.session: the client's stream, graphs and Futures as userdata.
 *
 * A Future is a userdata that holds one reference to its key; collecting it lets the key go. Its methods beyond those
 * here are put by Lua into the table `session.Future`. Its client is its user value. */
#include "session.h"

#include <limits.h>
#include <string.h>

#include "../core/graph.h"
#include "../core/random.h"
#include "../core/session.h"
#include "digest.h"
#include "pickle.h"
#include "pyvalue.h"
#include "reactor.h"
#include "wire.h"

#define SESSION "saturn.session"
#define GRAPH "saturn.graph"
#define FUTURE "saturn.future"
#define KEYS "saturn.session.keys"

typedef struct session_box {
    sat_session *session;
    sat_limits limits;
} session_box;

typedef struct graph_box {
    sat_graph graph;
    sat_session *session;
    bool open;
} graph_box;

typedef struct future_box {
    sat_key *key;
} future_box;

/* ---- keys --------------------------------------------------------------------------------------- */

/* The msgpack of a key. */
typedef struct key_bytes {
    uint8_t small[2 + UINT8_MAX]; /* of a short string, which nearly every key is */
} key_bytes;

/* The msgpack of the key at idx. Pushes one value, which must stay while the slice is used. */
static sat_slice push_key(lua_State *L, int idx, key_bytes *bytes)
{
    size_t len = 0;
    idx = lua_absindex(L, idx);
    const char *text = lua_type(L, idx) == LUA_TSTRING ? lua_tolstring(L, idx, &len) : NULL;
    if (text && len <= UINT8_MAX && sat_utf8_valid((const uint8_t *)text, len)) {
        size_t head = len < 32 ? 1 : 2;
        bytes->small[0] = len < 32 ? (uint8_t)(0xa0 | len) : 0xd9;
        bytes->small[1] = (uint8_t)len;
        memcpy(bytes->small + head, text, len);
        lua_pushvalue(L, idx);
        return (sat_slice){NULL, bytes->small, head + len};
    }
    sat_outgoing *out = satL_new_outgoing(L);
    if (lua_type(L, idx) != LUA_TSTRING && lua_type(L, idx) != LUA_TTABLE && lua_type(L, idx) != LUA_TUSERDATA &&
        !lua_isinteger(L, idx))
        luaL_error(L, "a key must be a string, not a %s", luaL_typename(L, idx));
    satL_pack(L, idx, out);
    return (sat_slice){NULL, out->head.data, out->head.len};
}

int satL_future_key(lua_State *L, int idx, sat_slice *key)
{
    future_box *box = luaL_testudata(L, idx, FUTURE);
    if (box == NULL || box->key == NULL) return 0;
    *key = (sat_slice){NULL, box->key->name, box->key->len};
    return 1;
}

/* ---- futures ------------------------------------------------------------------------------------ */

static const char *const state_names[] = {"pending", "finished", "error", "cancelled", "lost"};

static future_box *check_future(lua_State *L, int idx)
{
    return luaL_checkudata(L, idx, FUTURE);
}

static const char *status_of(const future_box *box)
{
    return box->key ? state_names[box->key->state] : "cancelled";
}

static void push_key_value(lua_State *L, const sat_key *key)
{
    sat_limits limits = SAT_LIMITS_DEFAULT;
    sat_error err;
    if (key == NULL || satL_push_msgpack(L, NULL, (sat_slice){NULL, key->name, key->len}, &limits, 1, &err) != SAT_OK)
        lua_pushnil(L);
    if (lua_istable(L, -1)) satL_py_set(L, PY_TUPLE);
}

static int future_index(lua_State *L)
{
    future_box *box = check_future(L, 1);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
    const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
    if (strcmp(name, "status") == 0)
        lua_pushstring(L, status_of(box));
    else if (strcmp(name, "key") == 0)
        push_key_value(L, box->key);
    else if (strcmp(name, "client") == 0)
        lua_getiuservalue(L, 1, 1);
    else if (strcmp(name, "type") == 0 && box->key && box->key->type > 0 && box->key->session)
        lua_pushstring(L, sat_session_type(box->key->session, box->key->type));
    else
        lua_pushnil(L);
    return 1;
}

static int future_release(lua_State *L)
{
    future_box *box = check_future(L, 1);
    sat_key *key = box->key;
    box->key = NULL;
    sat_key_release(key);
    return 0;
}

static int future_tostring(lua_State *L)
{
    future_box *box = check_future(L, 1);
    const char *type = box->key ? sat_session_type(box->key->session, box->key->type) : "";
    push_key_value(L, box->key);
    const char *key = luaL_tolstring(L, -1, NULL);
    lua_pushfstring(L, "<Future: %s%s%s, key: %s>", status_of(box), *type ? ", type: " : "", type, key);
    return 1;
}

static int future_eq(lua_State *L)
{
    future_box *a = luaL_testudata(L, 1, FUTURE), *b = luaL_testudata(L, 2, FUTURE);
    lua_pushboolean(L, a && b && a->key && a->key == b->key);
    return 1;
}

/* What names a key in tables of the client: the key itself when it is a string, else its msgpack. */
static void push_id(lua_State *L, const sat_key *key)
{
    sat_mp scan = {key->name, key->name + key->len};
    sat_mp_token token;
    if (sat_mp_next(&scan, &token, NULL) == SAT_OK && token.type == SAT_MP_STR)
        lua_pushlstring(L, (const char *)token.as.bytes.data, token.as.bytes.len);
    else
        lua_pushlstring(L, (const char *)key->name, key->len);
}

static int future_id(lua_State *L)
{
    future_box *box = check_future(L, 1);
    if (box->key == NULL) return 0;
    push_id(L, box->key);
    return 1;
}

/* The end of a scope calls the method `release`, which may be more than the one above. */
static int future_close(lua_State *L)
{
    (void)check_future(L, 1);
    lua_settop(L, 1);
    lua_getfield(L, 1, "release");
    lua_insert(L, 1);
    lua_call(L, 1, 0);
    return 0;
}

/* watch(on | nil): whether session:changed() tells when the state changes; nil is true */
static int future_watch(lua_State *L)
{
    future_box *box = check_future(L, 1);
    if (box->key) box->key->watched = lua_isnone(L, 2) || lua_toboolean(L, 2);
    return 0;
}

/* reason() → why it was cancelled or lost, or nil */
static int future_reason(lua_State *L)
{
    future_box *box = check_future(L, 1);
    if (box->key == NULL || box->key->reason == NULL) return 0;
    lua_pushstring(L, box->key->reason);
    return 1;
}

/* failure() → exception, traceback: each a pickle, or a serialized value that holds one, or nil */
static int future_failure(lua_State *L)
{
    future_box *box = check_future(L, 1);
    sat_limits limits = SAT_LIMITS_DEFAULT;
    sat_error err;
    if (box->key == NULL || box->key->error == NULL) return 0;
    const sat_key_error *error = box->key->error;
    sat_slice parts[] = {error->exception, error->traceback};
    for (int i = 0; i < 2; i++) {
        if (parts[i].len == 0)
            lua_pushnil(L);
        else if (satL_push_msgpack(L, error->message, parts[i], &limits, 0, &err) != SAT_OK)
            return satL_fail(L, &err);
    }
    return 2;
}

/* mark("cancelled" | "pending", reason | nil): what this client did to the task, before the scheduler says so. "pending"
 * is only for a task that failed. */
static int future_mark(lua_State *L)
{
    static const char *const names[] = {"pending", "cancelled", NULL};
    future_box *box = check_future(L, 1);
    sat_key_state state = luaL_checkoption(L, 2, NULL, names) ? SAT_KEY_CANCELLED : SAT_KEY_PENDING;
    if (box->key && (state == SAT_KEY_CANCELLED || box->key->state == SAT_KEY_ERROR))
        sat_key_mark(box->key, state, luaL_optstring(L, 3, NULL));
    return 0;
}

/* hold(): of a Future that was made before the scheduler knew its key */
static int future_hold(lua_State *L)
{
    future_box *box = check_future(L, 1);
    if (box->key) sat_key_hold(box->key);
    return 0;
}

/* mine(session) → whether it belongs to this session (or its task is over for good) and was not released */
static int future_mine(lua_State *L)
{
    future_box *box = check_future(L, 1);
    session_box *session = luaL_checkudata(L, 2, SESSION);
    bool mine = box->key && (box->key->session == session->session || box->key->session == NULL);
    lua_pushboolean(L, mine && session->session);
    return 1;
}

static void push_future(lua_State *L, sat_session *session, sat_slice name, int client, bool hold)
{
    future_box *box = lua_newuserdatauv(L, sizeof *box, 1);
    box->key = NULL;
    luaL_setmetatable(L, FUTURE);
    lua_pushvalue(L, client);
    lua_setiuservalue(L, -2, 1);
    box->key = sat_session_want(session, name.data, name.len, hold);
    if (box->key == NULL) luaL_error(L, "out of memory");
}

/* ---- references in arguments -------------------------------------------------------------------- */

/* A table stands for a task when its metatable says so; its key is in the field `key`. */
static bool is_ref_table(lua_State *L, int idx)
{
    if (lua_type(L, idx) != LUA_TTABLE || luaL_getmetafield(L, idx, "__saturn_ref") == LUA_TNIL) return false;
    lua_pop(L, 1);
    return true;
}

static int is_ref(lua_State *L, int idx, void *arg)
{
    (void)arg;
    return luaL_testudata(L, idx, FUTURE) != NULL || is_ref_table(L, idx);
}

static sat_status check_ref(const graph_box *box, const sat_key *key, sat_error *err)
{
    if (key == NULL) return sat_fail(err, SAT_VALUE, "a Future that was released cannot be an argument");
    if (key->state == SAT_KEY_CANCELLED)
        return sat_fail(err, SAT_CANCELLED, "a Future that was cancelled%s%s cannot be an argument",
                        key->reason ? ": " : "", key->reason ? key->reason : "");
    if (key->state == SAT_KEY_LOST) return sat_fail(err, SAT_LOST, "a Future whose result is lost cannot be an argument");
    if (key->session != box->session)
        return sat_fail(err, SAT_VALUE, "a Future of another client cannot be an argument: publish it as a dataset, or "
                                        "gather it and scatter it here");
    return SAT_OK;
}

static sat_status write_ref(lua_State *L, int idx, sat_pickler *out, void *arg, sat_error *err)
{
    graph_box *box = arg;
    future_box *future = luaL_testudata(L, idx, FUTURE);
    (void)out;
    if (future) {
        sat_status status = check_ref(box, future->key, err);
        if (status == SAT_OK) sat_graph_ref(&box->graph, (sat_slice){NULL, future->key->name, future->key->len});
        return status;
    }
    lua_pushliteral(L, "key");
    lua_rawget(L, idx < 0 ? idx - 1 : idx);
    key_bytes bytes;
    sat_slice key = push_key(L, -1, &bytes);
    sat_graph_ref(&box->graph, key);
    lua_pop(L, 2);
    return SAT_OK;
}

static void wrap_begin(sat_pickler *out, char kind, void *arg)
{
    (void)arg;
    sat_graph_wrap_begin(out, kind);
}

static void wrap_end(sat_pickler *out, char kind, void *arg)
{
    (void)arg;
    sat_graph_wrap_end(out, kind);
}

/* ---- graphs ------------------------------------------------------------------------------------- */

static graph_box *check_graph(lua_State *L, int idx)
{
    graph_box *box = luaL_checkudata(L, idx, GRAPH);
    if (!box->open) luaL_error(L, "this graph was sent");
    return box;
}

/* session:graph(release) */
static int session_graph(lua_State *L)
{
    session_box *session = luaL_checkudata(L, 1, SESSION);
    lua_Integer release = luaL_checkinteger(L, 2);
    graph_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    box->open = false;
    box->session = session->session;
    luaL_setmetatable(L, GRAPH);
    sat_graph_init(&box->graph, (sat_release)release);
    box->open = true;
    return 1;
}

static int graph_gc(lua_State *L)
{
    graph_box *box = luaL_checkudata(L, 1, GRAPH);
    if (box->open) sat_graph_free(&box->graph);
    box->open = false;
    return 0;
}

static bool any_ref(lua_State *L, int args, lua_Integer count, int kwargs)
{
    bool found = false;
    for (lua_Integer i = 1; i <= count && !found; i++) {
        int type = lua_rawgeti(L, args, i);
        found = type == LUA_TTABLE || type == LUA_TUSERDATA;
        lua_pop(L, 1);
    }
    return found || kwargs;
}

static sat_status pickle_args(lua_State *L, graph_box *box, int args, lua_Integer count, const satL_ref_hooks *hooks,
                              sat_error *err)
{
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, args, i);
        sat_status status = satL_pickle_value(L, lua_gettop(L), sat_graph_pickler(&box->graph), hooks, err);
        lua_pop(L, 1);
        if (status != SAT_OK) return status;
    }
    return SAT_OK;
}

static sat_status pickle_kwargs(lua_State *L, graph_box *box, int kwargs, const satL_ref_hooks *hooks, sat_error *err)
{
    for (lua_pushnil(L); lua_next(L, kwargs); lua_pop(L, 1)) {
        size_t len;
        if (lua_type(L, -2) != LUA_TSTRING) {
            lua_pop(L, 2);
            return sat_fail(err, SAT_VALUE, "the names of keyword arguments must be strings");
        }
        const char *name = lua_tolstring(L, -2, &len);
        sat_pickle_str_memo(sat_graph_pickler(&box->graph), name, len);
        sat_status status = satL_pickle_value(L, lua_gettop(L), sat_graph_pickler(&box->graph), hooks, err);
        if (status != SAT_OK) {
            lua_pop(L, 2);
            return status;
        }
    }
    return SAT_OK;
}

/* graph:task(key, module, name, source | nil, args, nargs, kwargs | nil) → true, or nil, kind, message. A graph in
 * which a task failed is unfit to be sent: make a new one. */
static int graph_task(lua_State *L)
{
    sat_error err;
    graph_box *box = check_graph(L, 1);
    key_bytes key;
    size_t source_len = 0;
    sat_task task = {.module = luaL_optstring(L, 3, ""), .name = luaL_checkstring(L, 4)};
    task.source = lua_isnoneornil(L, 5) ? NULL : luaL_checklstring(L, 5, &source_len);
    luaL_checktype(L, 6, LUA_TTABLE);
    lua_Integer count = luaL_checkinteger(L, 7);
    int kwargs = lua_istable(L, 8);
    lua_settop(L, 8);
    task.source_len = source_len;
    task.has_kwargs = kwargs;
    task.has_refs = any_ref(L, 6, count, kwargs);
    task.key = push_key(L, 2, &key);
    satL_ref_hooks hooks = {.is_ref = is_ref, .write_ref = write_ref, .wraps = box->graph.dialect->wraps,
                            .wrap_begin = wrap_begin, .wrap_end = wrap_end, .arg = box};
    sat_graph_task_begin(&box->graph, &task);
    sat_status status = pickle_args(L, box, 6, count, &hooks, &err);
    if (status == SAT_OK && kwargs) {
        sat_graph_kwargs(&box->graph, &task);
        status = pickle_kwargs(L, box, 8, &hooks, &err);
    }
    if (status != SAT_OK) {
        graph_gc(L);
        return satL_fail(L, &err);
    }
    sat_graph_task_end(&box->graph, &task);
    lua_pushboolean(L, 1);
    return 1;
}

static int graph_want(lua_State *L)
{
    graph_box *box = check_graph(L, 1);
    key_bytes key;
    sat_graph_want(&box->graph, push_key(L, 2, &key));
    return 0;
}

static int graph_annotate(lua_State *L)
{
    graph_box *box = check_graph(L, 1);
    const char *name = luaL_checkstring(L, 2);
    sat_outgoing *out = satL_new_outgoing(L);
    satL_pack(L, 3, out);
    sat_graph_annotate(&box->graph, name, (sat_slice){NULL, out->head.data, out->head.len});
    return 0;
}

/* graph:options(interactive, actors): interactive tasks come before batches that were sent a while ago */
static int graph_options(lua_State *L)
{
    graph_box *box = check_graph(L, 1);
    box->graph.fifo_timeout = lua_toboolean(L, 2) ? "100 ms" : "60s";
    box->graph.actors = lua_toboolean(L, 3);
    return 0;
}

static int graph_size(lua_State *L)
{
    graph_box *box = check_graph(L, 1);
    lua_pushinteger(L, (lua_Integer)box->graph.tasks);
    lua_pushinteger(L, (lua_Integer)(box->graph.pickle.out.len + box->graph.task_map.len + box->graph.deps_map.len));
    return 2;
}

/* ---- sessions ----------------------------------------------------------------------------------- */

static session_box *check_session(lua_State *L)
{
    session_box *box = luaL_checkudata(L, 1, SESSION);
    if (box->session == NULL) luaL_error(L, "this session is closed");
    return box;
}

/* Connects to what the table at 3 says, registering as its field `id`. */
static sat_status connect_session(lua_State *L, session_box *box, sat_error *err)
{
    sat_endpoint endpoint;
    sat_reactor *reactor = satL_check_reactor(L, 2);
    lua_getfield(L, 3, "limits");
    satL_check_limits(L, -1, &box->limits);
    lua_getfield(L, 3, "id");
    const char *id = luaL_checkstring(L, -1);
    sat_status status = satL_read_endpoint(L, 3, &endpoint, err);
    if (status != SAT_OK) return status;
    status = sat_session_connect(box->session, reactor, &endpoint, &box->limits, id, err);
    sat_endpoint_free(&endpoint);
    lua_pop(L, 2);
    return status;
}

/* open(reactor, options) → a session, or nil, kind, message. options: address, id, keep (the name that keys are held
 * under), tls material, proxy, timeout, limits */
static int session_open(lua_State *L)
{
    sat_error err;
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    session_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    box->session = NULL;
    luaL_setmetatable(L, SESSION);
    lua_insert(L, 1);
    lua_getfield(L, 3, "keep");
    box->session = sat_session_new(luaL_optstring(L, -1, NULL), &err);
    lua_pop(L, 1);
    if (box->session == NULL || connect_session(L, box, &err) != SAT_OK) return satL_fail(L, &err);
    lua_settop(L, 1);
    return 1;
}

/* session:connect(reactor, options) → true, or nil, kind, message: a new connection, as open made the first */
static int session_connect(lua_State *L)
{
    sat_error err;
    session_box *box = check_session(L);
    luaL_checktype(L, 3, LUA_TTABLE);
    if (connect_session(L, box, &err) != SAT_OK) return satL_fail(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

static int session_gc(lua_State *L)
{
    session_box *box = luaL_checkudata(L, 1, SESSION);
    if (box->session) sat_session_close(box->session, "the client was closed");
    sat_session_release(box->session);
    box->session = NULL;
    return 0;
}

static int session_state(lua_State *L)
{
    sat_error err;
    sat_status status = sat_session_state(check_session(L)->session, &err);
    if (status != SAT_OK && status != SAT_AGAIN) return satL_fail(L, &err);
    lua_pushboolean(L, status == SAT_OK);
    return 1;
}

/* session:future(key, client, mark): one more reference to the key. A mark is not held: the scheduler does not know
 * the key (yet). */
static int session_future(lua_State *L)
{
    session_box *box = check_session(L);
    luaL_checkany(L, 3);
    int mark = lua_toboolean(L, 4);
    key_bytes bytes;
    sat_slice key = push_key(L, 2, &bytes);
    push_future(L, box->session, key, 3, !mark);
    return 1;
}

/* session:submit(graph) → true, or nil, kind, message. The graph is used up. */
static int session_submit(lua_State *L)
{
    sat_error err;
    session_box *box = check_session(L);
    graph_box *graph = check_graph(L, 2);
    sat_status status = sat_session_submit(box->session, &graph->graph, &err);
    graph->open = false;
    sat_graph_free(&graph->graph);
    if (status != SAT_OK) return satL_fail(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

static int session_send(lua_State *L)
{
    sat_error err;
    session_box *box = check_session(L);
    luaL_checktype(L, 2, LUA_TTABLE);
    sat_outgoing *out = satL_new_outgoing(L);
    satL_pack(L, 2, out);
    if (out->count > 0) return luaL_error(L, "an op of the stream carries no serialized values");
    if (sat_session_send(box->session, out->head.data, out->head.len, &err) != SAT_OK) return satL_fail(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

static int event_gc(lua_State *L)
{
    sat_message **box = luaL_checkudata(L, 1, "saturn.event");
    sat_message_release(*box);
    *box = NULL;
    return 0;
}

/* session:event() → the next message that is not about keys, as a table, or nil */
static int session_event(lua_State *L)
{
    sat_error err;
    sat_slice map;
    session_box *box = check_session(L);
    sat_message **message = lua_newuserdatauv(L, sizeof *message, 0);
    *message = NULL;
    luaL_setmetatable(L, "saturn.event");
    *message = sat_session_event(box->session, &map);
    if (*message == NULL) return 0;
    if (satL_push_msgpack(L, *message, map, &box->limits, 1, &err) != SAT_OK) return satL_fail(L, &err);
    return 1;
}

/* session:changed() → the id of the next watched Future whose state changed, or nil */
static int session_changed(lua_State *L)
{
    sat_session *session = check_session(L)->session;
    const sat_key *key = sat_session_changed(session);
    if (key == NULL) return 0;
    push_id(L, key);
    sat_session_told(session);
    return 1;
}

static int session_flush(lua_State *L)
{
    sat_session_flush(check_session(L)->session);
    return 0;
}

static int session_drained(lua_State *L)
{
    lua_pushboolean(L, sat_session_drained(check_session(L)->session));
    return 1;
}

static int session_count(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)sat_session_count(check_session(L)->session));
    return 1;
}

static int session_close(lua_State *L)
{
    session_box *box = luaL_checkudata(L, 1, SESSION);
    if (box->session) sat_session_close(box->session, luaL_optstring(L, 2, "the client was closed"));
    return 0;
}

/* drop(reason): gives the connection up */
static int session_drop(lua_State *L)
{
    sat_session_drop(check_session(L)->session, luaL_checkstring(L, 2));
    return 0;
}

static int session_detach(lua_State *L)
{
    sat_session_detach(check_session(L)->session);
    return 0;
}

/* give_up(reason): keeps no longer */
static int session_give_up(lua_State *L)
{
    sat_session_give_up(check_session(L)->session, luaL_checkstring(L, 2));
    return 0;
}

static int session_acknowledged(lua_State *L)
{
    lua_pushboolean(L, sat_session_acknowledged(check_session(L)->session));
    return 1;
}

static int session_forget_sent(lua_State *L)
{
    sat_session_forget_sent(check_session(L)->session);
    return 0;
}

/* heard() → when the last message came, in the reactor's seconds */
static int session_heard(lua_State *L)
{
    lua_pushnumber(L, sat_session_heard(check_session(L)->session));
    return 1;
}

typedef struct keys_box {
    size_t count;
    sat_key *keys[]; /* a reference each */
} keys_box;

static int keys_gc(lua_State *L)
{
    keys_box *box = luaL_checkudata(L, 1, KEYS);
    for (size_t i = 0; i < box->count; i++) sat_key_release(box->keys[i]);
    box->count = 0;
    return 0;
}

/* keys() → a list of the keys that are neither cancelled nor lost */
static int session_keys(lua_State *L)
{
    session_box *session = check_session(L);
    lua_settop(L, 1);
    size_t room = sat_session_count(session->session);
    keys_box *box = lua_newuserdatauv(L, sizeof *box + room * sizeof box->keys[0], 0);
    box->count = 0;
    luaL_setmetatable(L, KEYS);
    box->count = sat_session_keys(session->session, box->keys, room);
    for (size_t i = 0; i < box->count; i++) box->keys[i]->refs++;
    lua_createtable(L, box->count < INT_MAX ? (int)box->count : 0, 0);
    for (size_t i = 0; i < box->count; i++) {
        push_key_value(L, box->keys[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_replace(L, 1); /* the table first, then what is to be let go */
    lua_insert(L, 1);
    (void)keys_gc(L);
    lua_settop(L, 2);
    return 1;
}

/* found(key, "pending" | "lost", reason | nil): what the scheduler knows of the key after a new connection. A failure
 * that is known stays, whether or not the scheduler still knows it. */
static int session_found(lua_State *L)
{
    static const char *const names[] = {"pending", "lost", NULL};
    session_box *box = check_session(L);
    sat_key_state state = luaL_checkoption(L, 3, NULL, names) ? SAT_KEY_LOST : SAT_KEY_PENDING;
    const char *reason = luaL_optstring(L, 4, NULL);
    key_bytes bytes;
    sat_slice name = push_key(L, 2, &bytes);
    sat_key *key = sat_session_find(box->session, name.data, name.len);
    if (key && key->state != (uint8_t)state && !(state == SAT_KEY_LOST && key->state == SAT_KEY_ERROR))
        sat_key_mark(key, state, reason);
    return 0;
}

/* desire() → true, or nil, kind, message */
static int session_desire(lua_State *L)
{
    sat_error err;
    if (sat_session_desire(check_session(L)->session, &err) != SAT_OK) return satL_fail(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

/* random(bytes) → that many random bytes as hexadecimal digits */
static int random_text(lua_State *L)
{
    char text[64];
    lua_Integer bytes = luaL_checkinteger(L, 1);
    luaL_argcheck(L, bytes > 0 && bytes <= 32, 1, "from 1 to 32");
    if (!sat_random_hex(text, (size_t)bytes)) return luaL_error(L, "the system has no randomness");
    lua_pushlstring(L, text, 2 * (size_t)bytes);
    return 1;
}

/* dialect(release) → its name */
static int dialect(lua_State *L)
{
    lua_pushstring(L, sat_dialect_of((sat_release)luaL_checkinteger(L, 1))->name);
    return 1;
}

/* The Future class: its methods are one table, shared with Lua as `session.Future`. */
static void make_future_class(lua_State *L)
{
    static const luaL_Reg methods[] = {{"release", future_release}, {"close", future_release}, {"id", future_id},
                                       {"watch", future_watch},     {"reason", future_reason}, {"failure", future_failure},
                                       {"mine", future_mine},       {"mark", future_mark},       {"hold", future_hold},
                                       {NULL, NULL}};
    static const luaL_Reg meta[] = {{"__gc", future_release},     {"__close", future_close},
                                    {"__tostring", future_tostring}, {"__eq", future_eq}, {NULL, NULL}};
    luaL_newmetatable(L, FUTURE);
    luaL_setfuncs(L, meta, 0);
    luaL_newlib(L, methods);
    lua_pushvalue(L, -1);
    lua_pushcclosure(L, future_index, 1);
    lua_setfield(L, -3, "__index");
    lua_remove(L, -2);
}

int satL_open_session(lua_State *L)
{
    static const luaL_Reg session_methods[] = {
        {"state", session_state}, {"future", session_future}, {"graph", session_graph},     {"submit", session_submit},
        {"send", session_send},   {"event", session_event},   {"changed", session_changed}, {"flush", session_flush},
        {"drained", session_drained}, {"count", session_count}, {"close", session_close},
        {"connect", session_connect}, {"drop", session_drop}, {"detach", session_detach}, {"give_up", session_give_up},
        {"acknowledged", session_acknowledged}, {"forget_sent", session_forget_sent}, {"heard", session_heard},
        {"keys", session_keys}, {"found", session_found}, {"desire", session_desire}, {NULL, NULL},
    };
    static const luaL_Reg session_meta[] = {{"__gc", session_gc}, {"__close", session_close}, {NULL, NULL}};
    static const luaL_Reg graph_methods[] = {{"task", graph_task},         {"want", graph_want}, {"annotate", graph_annotate},
                                             {"options", graph_options},   {"size", graph_size}, {NULL, NULL}};
    static const luaL_Reg graph_meta[] = {{"__gc", graph_gc}, {"__close", graph_gc}, {NULL, NULL}};
    static const luaL_Reg event_meta[] = {{"__gc", event_gc}, {NULL, NULL}};
    static const luaL_Reg keys_meta[] = {{"__gc", keys_gc}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"open", session_open}, {"dialect", dialect}, {"random", random_text},
                                         {"digest", satL_digest}, {NULL, NULL}};
    satL_class(L, SESSION, session_methods, session_meta);
    satL_class(L, GRAPH, graph_methods, graph_meta);
    satL_class(L, "saturn.event", NULL, event_meta);
    satL_class(L, KEYS, NULL, keys_meta);
    lua_pop(L, 4);
    luaL_newlib(L, functions);
    make_future_class(L);
    lua_setfield(L, -2, "Future");
    return 1;
}
