/* digest(...): the name of a call by its content, the same for equal calls.
 *
 * Values are fed as they are sent, but for what has no order: the pairs of a table come in whatever order its hash has,
 * so the digests of the pairs are sorted. */
#include "digest.h"

#include <stdlib.h>
#include <string.h>

#include "../core/digest.h"
#include "../core/msgpack.h"
#include "array.h"
#include "pickle.h"
#include "pyvalue.h"
#include "session.h"
#include "wire.h"

#define DIGEST "saturn.digest"

enum { MAX_DEPTH = 200, STACK_NEED = 12, TEXT_BYTES = 16 };

typedef struct box {
    sat_digest *digest;
    sat_pickler pickler;
} box;

static sat_status feed(lua_State *L, box *to, int idx, int depth, sat_error *err);

static int box_gc(lua_State *L)
{
    box *b = luaL_checkudata(L, 1, DIGEST);
    sat_digest_free(b->digest);
    b->digest = NULL;
    sat_pickler_free(&b->pickler);
    sat_pickler_init(&b->pickler);
    return 0;
}

static box *new_box(lua_State *L)
{
    box *b = lua_newuserdatauv(L, sizeof *b, 0);
    b->digest = NULL;
    sat_pickler_init(&b->pickler);
    if (luaL_newmetatable(L, DIGEST)) {
        lua_pushcfunction(L, box_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    b->digest = sat_digest_new();
    if (b->digest == NULL) luaL_error(L, "out of memory");
    return b;
}

/* ---- references: the key stands for the value ----------------------------------------------------- */

static bool is_ref(lua_State *L, int idx)
{
    sat_slice key;
    if (satL_future_key(L, idx, &key)) return true;
    if (lua_type(L, idx) != LUA_TTABLE || luaL_getmetafield(L, idx, "__saturn_ref") == LUA_TNIL) return false;
    lua_pop(L, 1);
    return true;
}

/* The msgpack of its key; what keeps the bytes is left on the stack. */
static sat_slice push_ref_key(lua_State *L, int idx)
{
    sat_slice key;
    idx = lua_absindex(L, idx);
    if (satL_future_key(L, idx, &key)) {
        lua_pushnil(L);
        return key;
    }
    sat_outgoing *out = satL_new_outgoing(L);
    lua_pushliteral(L, "key");
    lua_rawget(L, idx);
    satL_pack(L, -1, out);
    lua_pop(L, 1);
    return (sat_slice){NULL, out->head.data, out->head.len};
}

static int pickled_is_ref(lua_State *L, int idx, void *arg)
{
    (void)arg;
    return is_ref(L, idx);
}

static sat_status pickled_ref(lua_State *L, int idx, sat_pickler *out, void *arg, sat_error *err)
{
    (void)arg;
    (void)err;
    sat_slice key = push_ref_key(L, idx);
    sat_pickle_bytes(out, key.data, key.len);
    sat_pickle_tuple(out, 1);
    lua_pop(L, 1);
    return SAT_OK;
}

/* ---- values --------------------------------------------------------------------------------------- */

static sat_status feed_pickled(lua_State *L, box *to, int idx, sat_error *err)
{
    satL_ref_hooks hooks = {.is_ref = pickled_is_ref, .write_ref = pickled_ref};
    sat_pickler *p = &to->pickler;
    sat_pickler_reset(p);
    sat_status status = satL_pickle_value(L, idx, p, &hooks, err);
    if (status == SAT_OK) sat_digest_field(to->digest, 'p', p->out.data, p->out.len);
    return status;
}

static sat_status feed_array(lua_State *L, box *to, int idx, satL_array_view *view, sat_error *err)
{
    if (view->data == NULL) return feed_pickled(L, to, idx, err);
    satL_array_push_contiguous(L, idx);
    satL_array_view_of(L, -1, view);
    const char *descr = view->descr ? view->descr : view->dtype;
    char order = (char)view->contiguous;
    sat_digest_field(to->digest, 'a', descr, strlen(descr));
    sat_digest_update(to->digest, &order, 1);
    sat_digest_field(to->digest, 'n', view->shape, (size_t)view->ndim * sizeof *view->shape);
    sat_digest_field(to->digest, 'b', view->data, view->nbytes);
    lua_pop(L, 1);
    return SAT_OK;
}

static sat_status feed_list(lua_State *L, box *to, int idx, char tag, int depth, sat_error *err)
{
    lua_Integer n = (lua_Integer)lua_rawlen(L, idx);
    sat_status status = SAT_OK;
    sat_digest_field(to->digest, tag, &n, sizeof n);
    for (lua_Integer i = 1; i <= n && status == SAT_OK; i++) {
        lua_rawgeti(L, idx, i);
        status = feed(L, to, lua_gettop(L), depth + 1, err);
        lua_pop(L, 1);
    }
    return status;
}

static int compare(const void *a, const void *b)
{
    return memcmp(a, b, SAT_DIGEST_SIZE);
}

/* The digest of the values on top of the stack, which stay there. */
static sat_status digest_top(lua_State *L, box *part, int count, int depth, uint8_t *out, sat_error *err)
{
    int top = lua_gettop(L);
    sat_status status = SAT_OK;
    sat_digest_reset(part->digest);
    for (int i = top - count + 1; i <= top && status == SAT_OK; i++) status = feed(L, part, i, depth + 1, err);
    if (status == SAT_OK && !sat_digest_end(part->digest, out))
        return sat_fail(err, SAT_VALUE, "the system has no SHA-256");
    return status;
}

/* Is the key below the value on top one that hides details of a table? */
static bool hidden(lua_State *L)
{
    return lua_type(L, -2) == LUA_TLIGHTUSERDATA && lua_touserdata(L, -2) == (const void *)&satL_py_extra;
}

/* Pairs or, of a set, items. */
static sat_status feed_unordered(lua_State *L, box *to, int idx, char tag, int depth, sat_error *err)
{
    size_t n = 0, at = 0;
    bool set = tag != 'D';
    sat_status status = SAT_OK;
    for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) n++;
    box *part = new_box(L);
    uint8_t *digests = lua_newuserdatauv(L, n * SAT_DIGEST_SIZE + 1, 0);
    lua_pushnil(L);
    while (status == SAT_OK && at < n && lua_next(L, idx)) {
        if (!hidden(L)) status = digest_top(L, part, set ? 1 : 2, depth, digests + at++ * SAT_DIGEST_SIZE, err);
        lua_pop(L, 1);
    }
    if (status == SAT_OK) {
        qsort(digests, at, SAT_DIGEST_SIZE, compare);
        sat_digest_field(to->digest, tag, digests, at * SAT_DIGEST_SIZE);
    }
    return status;
}

static bool is_list(lua_State *L, int idx)
{
    if (lua_rawlen(L, idx) > 0) return true;
    lua_pushnil(L);
    if (!lua_next(L, idx)) return true;
    lua_pop(L, 2);
    return false;
}

static sat_status feed_table(lua_State *L, box *to, int idx, int depth, sat_error *err)
{
    if (is_ref(L, idx)) {
        sat_slice key = push_ref_key(L, idx);
        sat_digest_field(to->digest, 'r', key.data, key.len);
        return SAT_OK;
    }
    switch (satL_py_type(L, idx)) {
    case PY_NONE_:
        return is_list(L, idx) ? feed_list(L, to, idx, 'l', depth, err) : feed_unordered(L, to, idx, 'D', depth, err);
    case PY_LIST:
        return feed_list(L, to, idx, 'l', depth, err);
    case PY_TUPLE:
        return feed_list(L, to, idx, 't', depth, err);
    case PY_DICT:
    case PY_KW:
        return feed_unordered(L, to, idx, 'D', depth, err);
    case PY_SET:
        return feed_unordered(L, to, idx, 'S', depth, err);
    case PY_FROZENSET:
        return feed_unordered(L, to, idx, 'F', depth, err);
    default:
        return feed_pickled(L, to, idx, err);
    }
}

static sat_status feed_scalar(lua_State *L, box *to, int idx, sat_error *err)
{
    size_t len;
    sat_slice key;
    satL_array_view view;
    if (lua_isnil(L, idx) || satL_is_null(L, idx)) {
        sat_digest_field(to->digest, 'N', NULL, 0);
    } else if (lua_isboolean(L, idx)) {
        sat_digest_field(to->digest, lua_toboolean(L, idx) ? '1' : '0', NULL, 0);
    } else if (lua_isinteger(L, idx)) {
        lua_Integer value = lua_tointeger(L, idx);
        sat_digest_field(to->digest, 'i', &value, sizeof value);
    } else if (lua_type(L, idx) == LUA_TNUMBER) {
        lua_Number value = lua_tonumber(L, idx);
        sat_digest_field(to->digest, 'd', &value, sizeof value);
    } else if (lua_type(L, idx) == LUA_TSTRING) {
        const char *text = lua_tolstring(L, idx, &len);
        sat_digest_field(to->digest, 's', text, len);
    } else if (satL_future_key(L, idx, &key)) {
        sat_digest_field(to->digest, 'r', key.data, key.len);
    } else if (satL_array_view_of(L, idx, &view)) {
        return feed_array(L, to, idx, &view, err);
    } else {
        return feed_pickled(L, to, idx, err);
    }
    return SAT_OK;
}

static sat_status feed(lua_State *L, box *to, int idx, int depth, sat_error *err)
{
    int top = lua_gettop(L);
    if (depth > MAX_DEPTH)
        return sat_fail(err, SAT_LIMIT, "the value nests deeper than %d; is there a cycle in it?", MAX_DEPTH);
    if (!lua_checkstack(L, STACK_NEED)) return sat_fail_nomem(err);
    sat_status status = lua_type(L, idx) == LUA_TTABLE ? feed_table(L, to, idx, depth, err) : feed_scalar(L, to, idx, err);
    lua_settop(L, top);
    return status;
}

/* digest(module | nil, name, source | nil, args, nargs, kwargs | nil) → 32 hexadecimal digits, or nil, kind, message */
int satL_digest(lua_State *L)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t out[SAT_DIGEST_SIZE];
    char text[2 * TEXT_BYTES];
    sat_error err;
    sat_status status = SAT_OK;
    luaL_checktype(L, 4, LUA_TTABLE);
    lua_Integer nargs = luaL_checkinteger(L, 5);
    lua_settop(L, 6);
    box *b = new_box(L);
    for (int i = 1; i <= 3 && status == SAT_OK; i++) status = feed(L, b, i, 0, &err);
    for (lua_Integer i = 1; i <= nargs && status == SAT_OK; i++) {
        lua_rawgeti(L, 4, i);
        status = feed(L, b, lua_gettop(L), 0, &err);
        lua_pop(L, 1);
    }
    if (status == SAT_OK) sat_digest_field(b->digest, 'k', NULL, 0);
    if (status == SAT_OK) status = feed(L, b, 6, 0, &err);
    if (status == SAT_OK && !sat_digest_end(b->digest, out))
        status = sat_fail(&err, SAT_VALUE, "the system has no SHA-256");
    if (status != SAT_OK) return satL_fail(L, &err);
    for (size_t i = 0; i < TEXT_BYTES; i++) {
        text[2 * i] = digits[out[i] >> 4];
        text[2 * i + 1] = digits[out[i] & 15];
    }
    lua_pushlstring(L, text, sizeof text);
    return 1;
}
