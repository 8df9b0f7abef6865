/* The writer of pickles, Lua value → opcodes, and the Lua face of both directions. */
#include "pickle.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "pyvalue.h"

enum { BATCH = 1000, RUN = 100, SHARED_KEY = 40, KEY_CACHE = 64 };

/* A table or userdata that is being written, inside those above it. */
typedef struct nest {
    const void *self;
    struct nest *above;
    bool opaque; /* no container that Dask looks through */
} nest;

typedef struct writer {
    lua_State *L;
    sat_pickler *p;
    const satL_ref_hooks *hooks;
    sat_error *err;
    size_t depth, max_depth;
    nest *nest; /* the innermost */
    const void *meta; /* the metatable last met, and what it says */
    satL_py meta_type;
    struct {
        const char *text;
        uint32_t memo;
    } keys[KEY_CACHE]; /* dict keys written before, by address: short strings are unique and the value keeps them */
    bool refs; /* the value holds references somewhere, so that containers must be looked through */
} writer;

static sat_status put(writer *w, int idx);

static sat_status refuse(writer *w, const char *what)
{
    return sat_fail(w->err, SAT_VALUE, "%s", what);
}

static sat_status too_deep(writer *w)
{
    return sat_fail(w->err, SAT_LIMIT, "the value nests deeper than %zu (limits.depth); is there a cycle in it?",
                    w->max_depth);
}

/* The field of the table at idx, raw, on top of the stack. */
static int field(lua_State *L, int idx, const char *name)
{
    idx = lua_absindex(L, idx);
    lua_pushstring(L, name);
    return lua_rawget(L, idx);
}

static sat_status put_field(writer *w, int idx, const char *name)
{
    field(w->L, idx, name);
    sat_status status = put(w, lua_gettop(w->L));
    lua_pop(w->L, 1);
    return status;
}

/* Whether the table has a metatable, and what type that says; the last answer is kept: tables of one kind come in rows. */
static bool type_of(writer *w, int idx, satL_py *type)
{
    lua_State *L = w->L;
    *type = PY_NONE_;
    if (!lua_getmetatable(L, idx)) return false;
    const void *meta = lua_topointer(L, -1);
    lua_pop(L, 1);
    if (meta != w->meta) {
        w->meta_type = satL_py_type(L, idx);
        w->meta = meta;
    }
    *type = w->meta_type;
    return true;
}

static bool is_ref(writer *w, int idx)
{
    return w->hooks != NULL && w->hooks->is_ref != NULL && w->hooks->is_ref(w->L, idx, w->hooks->arg);
}

/* Does the value hold a reference? `visited` is a table of the tables seen. Depth is bounded by put. */
static bool holds_ref(writer *w, int idx, int visited, size_t depth)
{
    lua_State *L = w->L;
    bool found = false;
    int type = lua_type(L, idx);
    if (type != LUA_TTABLE && type != LUA_TUSERDATA) return false;
    if (is_ref(w, idx)) return true;
    if (type != LUA_TTABLE || depth > w->max_depth || !lua_checkstack(L, 8)) return false;
    idx = lua_absindex(L, idx);
    lua_pushvalue(L, idx);
    if (lua_rawget(L, visited) != LUA_TNIL) {
        lua_pop(L, 1);
        return false;
    }
    lua_pop(L, 1);
    lua_pushvalue(L, idx);
    lua_pushboolean(L, 1);
    lua_rawset(L, visited);
    lua_pushnil(L);
    while (!found && lua_next(L, idx)) {
        found = holds_ref(w, lua_gettop(L), visited, depth + 1) ||
                holds_ref(w, lua_gettop(L) - 1, visited, depth + 1);
        lua_pop(L, 1);
    }
    if (found) lua_pop(L, 1);
    return found;
}

static bool contains_ref(writer *w, int idx)
{
    lua_State *L = w->L;
    if (w->hooks == NULL || w->hooks->is_ref == NULL) return false;
    idx = lua_absindex(L, idx);
    lua_newtable(L);
    bool found = holds_ref(w, idx, lua_gettop(L), 0);
    lua_pop(L, 1);
    return found;
}

/* The container at idx goes between wrap_begin and wrap_end. */
static bool wrapped(writer *w, int idx)
{
    return w->refs && w->hooks->wraps && contains_ref(w, idx);
}

/* ------------------------------------------------------------------ strings */

static void put_string(writer *w, int idx)
{
    size_t len;
    const char *text = lua_tolstring(w->L, idx, &len);
    if (sat_utf8_valid((const uint8_t *)text, len))
        sat_pickle_str(w->p, text, len);
    else
        sat_pickle_bytes(w->p, text, len);
}

/* The string in field `value` of a boxed value. */
static sat_status put_boxed(writer *w, int idx, satL_py type)
{
    size_t len;
    field(w->L, idx, "value");
    const char *text = lua_type(w->L, -1) == LUA_TSTRING ? lua_tolstring(w->L, -1, &len) : NULL;
    sat_status status = SAT_OK;
    if (text == NULL) {
        status = sat_fail(w->err, SAT_VALUE, "a %s has no string in its field 'value'", satL_py_name(type) + 7);
    } else if (type == PY_BYTES) {
        sat_pickle_bytes(w->p, text, len);
    } else if (type == PY_BYTEARRAY) {
        sat_pickle_bytearray(w->p, text, len);
    } else if (sat_utf8_lenient((const uint8_t *)text, len)) {
        sat_pickle_str(w->p, text, len);
    } else {
        status = refuse(w, "a string that is not UTF-8 cannot be a Python str; use py.bytes");
    }
    lua_pop(w->L, 1);
    return status;
}

/* ----------------------------------------------------------------- sequences */

/* The numbers among the items i to last, as far as they come in a row; gives the index of the item behind them. */
static lua_Integer put_numbers(writer *w, int idx, lua_Integer i, lua_Integer last)
{
    lua_State *L = w->L;
    int top = lua_gettop(L);
    bool more = true;
    while (more && i <= last) {
        lua_Integer until = last - i < RUN ? last : i + RUN - 1;
        uint8_t *at = sat_pickle_room(w->p, RUN);
        if (at == NULL) return last + 1; /* the pickler has failed */
        for (; i <= until; i++) {
            more = lua_rawgeti(L, idx, i) == LUA_TNUMBER;
            if (!more) break;
            at = lua_isinteger(L, -1) ? sat_pickle_put_int(at, lua_tointeger(L, -1))
                                      : sat_pickle_put_float(at, lua_tonumber(L, -1));
        }
        sat_pickle_wrote(w->p, at);
        lua_settop(L, top);
    }
    return i;
}

static sat_status check_hashable(writer *w, int idx, const char *what);

/* The items 1 to n of the table at idx, bare. end closes a batch; NULL: one batch. `hashed`: those of a set. */
static sat_status put_all(writer *w, int idx, lua_Integer n, void (*end)(sat_pickler *), bool hashed)
{
    lua_State *L = w->L;
    sat_status status = SAT_OK;
    lua_Integer i = 1, last = end != NULL && n > BATCH ? BATCH : n;
    if (!lua_checkstack(L, RUN + 32)) return sat_fail_nomem(w->err);
    while (i <= n && status == SAT_OK) {
        switch (lua_rawgeti(L, idx, i)) {
        case LUA_TNUMBER:
            lua_pop(L, 1);
            i = put_numbers(w, idx, i, last);
            break;
        case LUA_TNIL:
            lua_pop(L, 1);
            return sat_fail(w->err, SAT_VALUE, "a sequence has a hole at %lld; use saturn.null for None", (long long)i);
        default:
            if (hashed) status = check_hashable(w, lua_gettop(L), "an item of a set");
            if (status == SAT_OK) status = put(w, lua_gettop(L));
            lua_pop(L, 1);
            i++;
        }
        if (i > last && i <= n) {
            end(w->p);
            sat_pickle_mark(w->p);
            last = n - last > BATCH ? last + BATCH : n;
        }
    }
    return status;
}

static sat_status put_items(writer *w, int idx, lua_Integer n, void (*end)(sat_pickler *))
{
    return put_all(w, idx, n, end, false);
}

static sat_status put_list(writer *w, int idx)
{
    lua_Integer n = (lua_Integer)lua_rawlen(w->L, idx);
    sat_pickle_empty_list(w->p);
    sat_pickle_put(w->p, lua_topointer(w->L, idx));
    if (n == 0) return SAT_OK;
    sat_pickle_mark(w->p);
    sat_status status = put_items(w, idx, n, sat_pickle_appends);
    sat_pickle_appends(w->p);
    return status;
}

static sat_status put_tuple(writer *w, int idx)
{
    const void *self = lua_topointer(w->L, idx);
    lua_Integer n = (lua_Integer)lua_rawlen(w->L, idx);
    if (n > 3) sat_pickle_mark(w->p);
    sat_status status = put_items(w, idx, n, NULL);
    if (status != SAT_OK) return status;
    if (sat_pickle_has(w->p, self)) {
        /* an item led back here, and the tuple was made on that way */
        if (n > 3) sat_pickle_pop_mark(w->p);
        else for (lua_Integer i = 0; i < n; i++) sat_pickle_pop(w->p);
        (void)sat_pickle_get(w->p, self);
        return SAT_OK;
    }
    if (n > 3) sat_pickle_tuple_mark(w->p);
    else sat_pickle_tuple(w->p, (unsigned)n);
    if (n > 0) sat_pickle_put(w->p, self);
    return SAT_OK;
}

static sat_status put_set(writer *w, int idx, bool frozen)
{
    const void *self = lua_topointer(w->L, idx);
    lua_Integer n = (lua_Integer)lua_rawlen(w->L, idx);
    if (!frozen) {
        sat_pickle_empty_set(w->p);
        sat_pickle_put(w->p, self);
        if (n == 0) return SAT_OK;
    }
    sat_pickle_mark(w->p);
    sat_status status = put_all(w, idx, n, frozen ? NULL : sat_pickle_additems, true);
    if (frozen) sat_pickle_frozenset(w->p);
    else sat_pickle_additems(w->p);
    if (frozen) sat_pickle_put(w->p, self);
    return status;
}

/* --------------------------------------------------------------------- dicts */

/* Refuses what Python does not take as a key of a dict or an item of a set. */
static sat_status check_hashable(writer *w, int idx, const char *what)
{
    lua_State *L = w->L;
    if (lua_type(L, idx) != LUA_TTABLE || is_ref(w, idx)) return SAT_OK;
    switch (satL_py_type(L, idx)) {
    case PY_NONE_:
    case PY_LIST:
    case PY_DEQUE:
        return sat_fail(w->err, SAT_VALUE, "a list cannot be %s; use py.tuple", what);
    case PY_DICT:
    case PY_ORDEREDDICT:
    case PY_DEFAULTDICT:
    case PY_COUNTER:
        return sat_fail(w->err, SAT_VALUE, "a dict cannot be %s", what);
    case PY_SET:
        return sat_fail(w->err, SAT_VALUE, "a set cannot be %s; use py.frozenset", what);
    default:
        return SAT_OK;
    }
}

static void put_string_key(writer *w, int idx)
{
    size_t len;
    const char *text = lua_tolstring(w->L, idx, &len);
    size_t slot = ((uintptr_t)text >> 4 ^ (uintptr_t)text >> 10) % KEY_CACHE;
    if (w->keys[slot].text == text) {
        sat_pickle_ref(w->p, w->keys[slot].memo);
    } else if (!sat_utf8_valid((const uint8_t *)text, len)) {
        sat_pickle_bytes(w->p, text, len);
    } else if (len > SHARED_KEY) {
        sat_pickle_str(w->p, text, len);
    } else {
        uint32_t memo = sat_pickle_str_memo(w->p, text, len);
        if (memo != SAT_PICKLE_NO_MEMO) {
            w->keys[slot].text = text;
            w->keys[slot].memo = memo;
        }
    }
}

static sat_status put_key(writer *w, int idx)
{
    lua_State *L = w->L;
    int type = lua_type(L, idx);
    if (type == LUA_TSTRING) {
        put_string_key(w, idx);
        return SAT_OK;
    }
    sat_status status = check_hashable(w, idx, "a key of a dict");
    return status == SAT_OK ? put(w, idx) : status;
}

/* The key and value on top of the stack. */
static sat_status put_pair(writer *w)
{
    int top = lua_gettop(w->L);
    sat_status status = put_key(w, top - 1);
    return status == SAT_OK ? put(w, top) : status;
}

/* BARE: the pairs alone. BATCHED: between MARK and SETITEMS, a thousand at a time, nothing when there are none. */
typedef enum pairs_mode { BARE, BATCHED } pairs_mode;

static void begin_pair(writer *w, size_t n, pairs_mode mode)
{
    if (mode == BARE || n % BATCH != 0) return;
    if (n > 0) sat_pickle_setitems(w->p);
    sat_pickle_mark(w->p);
}

/* The pairs of an OrderedDict whose order is on top of the stack; keys that came later follow. */
static sat_status put_ordered(writer *w, int idx, pairs_mode mode, size_t *n)
{
    lua_State *L = w->L;
    sat_status status = SAT_OK;
    int order = lua_gettop(L), done = order + 1;
    lua_Integer len = (lua_Integer)lua_rawlen(L, order);
    lua_newtable(L);
    for (lua_Integer i = 1; i <= len && status == SAT_OK; i++) {
        lua_rawgeti(L, order, i);
        lua_pushvalue(L, -1);
        bool again = lua_rawget(L, done) != LUA_TNIL;
        lua_pop(L, 1);
        lua_pushvalue(L, -1);
        if (lua_rawget(L, idx) != LUA_TNIL && !again) {
            begin_pair(w, (*n)++, mode);
            status = put_pair(w);
            lua_pop(L, 1);
            lua_pushboolean(L, 1);
            lua_rawset(L, done);
        } else {
            lua_pop(L, 2);
        }
    }
    lua_pushnil(L);
    while (status == SAT_OK && lua_next(L, idx)) {
        lua_pushvalue(L, -2);
        bool again = lua_rawget(L, done) != LUA_TNIL || lua_touserdata(L, -3) == (const void *)&satL_py_extra;
        lua_pop(L, 1);
        if (!again) {
            begin_pair(w, (*n)++, mode);
            status = put_pair(w);
        }
        lua_pop(L, 1);
    }
    lua_settop(L, order);
    return status;
}

static sat_status put_pairs(writer *w, int idx, pairs_mode mode, bool hidden)
{
    lua_State *L = w->L;
    sat_status status = SAT_OK;
    size_t n = 0;
    if (hidden && lua_rawgetp(L, idx, &satL_py_extra) == LUA_TTABLE && satL_py_type(L, idx) == PY_ORDEREDDICT) {
        status = put_ordered(w, idx, mode, &n);
        lua_pop(L, 1);
    } else {
        if (hidden) lua_pop(L, 1);
        lua_pushnil(L);
        int key = lua_gettop(L);
        while (lua_next(L, idx)) {
            if (hidden && lua_touserdata(L, key) == (const void *)&satL_py_extra) {
                lua_settop(L, key);
                continue;
            }
            begin_pair(w, n++, mode);
            status = put_key(w, key);
            if (status == SAT_OK) status = put(w, key + 1);
            if (status != SAT_OK) return status; /* put takes the rest off the stack */
            lua_settop(L, key);
        }
    }
    if (mode == BATCHED && n > 0) sat_pickle_setitems(w->p);
    return status;
}

static sat_status put_dict(writer *w, int idx)
{
    sat_pickle_empty_dict(w->p);
    sat_pickle_put(w->p, lua_topointer(w->L, idx));
    return put_pairs(w, idx, BATCHED, false);
}

static sat_status put_dict_subclass(writer *w, int idx, satL_py type)
{
    lua_State *L = w->L;
    sat_status status = SAT_OK;
    const void *self = lua_topointer(L, idx);
    sat_pickle_global(w->p, "collections",
                      type == PY_COUNTER ? "Counter" : type == PY_DEFAULTDICT ? "defaultdict" : "OrderedDict");
    if (type == PY_DEFAULTDICT && lua_rawgetp(L, idx, &satL_py_extra) != LUA_TNIL) {
        status = put(w, lua_gettop(L));
        sat_pickle_tuple(w->p, 1);
    } else {
        sat_pickle_tuple(w->p, 0);
    }
    if (type == PY_DEFAULTDICT) lua_pop(L, 1);
    sat_pickle_reduce(w->p);
    sat_pickle_put(w->p, self);
    return status == SAT_OK ? put_pairs(w, idx, BATCHED, true) : status;
}

/* ---------------------------------------------------------- tables of no type */

typedef enum shape { SHAPE_LIST, SHAPE_DICT, SHAPE_MIXED, SHAPE_SPARSE } shape;

static shape shape_of(lua_State *L, int idx, lua_Integer n)
{
    lua_Integer integers = 0;
    bool others = false, outside = false;
    lua_pushnil(L);
    while (lua_next(L, idx)) {
        lua_pop(L, 1);
        if (lua_isinteger(L, -1)) {
            lua_Integer key = lua_tointeger(L, -1);
            integers++;
            if (key < 1 || key > n) outside = true;
        } else {
            others = true;
        }
    }
    if (integers == 0) return others ? SHAPE_DICT : SHAPE_LIST;
    if (others) return SHAPE_MIXED;
    return outside || integers != n ? SHAPE_SPARSE : SHAPE_LIST;
}

static sat_status bad_shape(writer *w, shape kind)
{
    if (kind == SHAPE_MIXED)
        return refuse(w, "a table has both a sequence and other keys; use py.dict, or py.list for the sequence alone");
    return refuse(w, "a table has integer keys that are no sequence from 1; use py.dict, or saturn.null to fill the "
                     "holes");
}

static sat_status bad_table(writer *w, int idx)
{
    return bad_shape(w, shape_of(w->L, idx, (lua_Integer)lua_rawlen(w->L, idx)));
}

/* A table that has no sequence: a dict, or the empty list. */
static sat_status put_unordered(writer *w, int idx)
{
    lua_State *L = w->L;
    const void *self = lua_topointer(L, idx);
    lua_pushnil(L);
    int key = lua_gettop(L);
    if (!lua_next(L, idx)) {
        sat_pickle_empty_list(w->p);
        sat_pickle_put(w->p, self);
        return SAT_OK;
    }
    sat_pickle_empty_dict(w->p);
    sat_pickle_put(w->p, self);
    size_t n = 0;
    do {
        sat_status status = SAT_OK;
        begin_pair(w, n++, BATCHED);
        if (lua_type(L, key) == LUA_TSTRING) put_string_key(w, key);
        else status = lua_isinteger(L, key) ? bad_table(w, idx) : put_key(w, key);
        if (status == SAT_OK) status = put(w, key + 1);
        if (status != SAT_OK) return status; /* put_nested takes the rest off the stack */
        lua_settop(L, key);
    } while (lua_next(L, idx));
    sat_pickle_setitems(w->p);
    return SAT_OK;
}

/* Whether the table has n entries. */
static bool has_entries(lua_State *L, int idx, lua_Integer n)
{
    lua_Integer count = 0;
    lua_pushnil(L);
    while (lua_next(L, idx)) {
        lua_pop(L, 1);
        if (++count <= n) continue;
        lua_pop(L, 1);
        return false;
    }
    return count == n;
}

/* A table of no type. */
static sat_status put_plain(writer *w, int idx)
{
    lua_Integer n = (lua_Integer)lua_rawlen(w->L, idx);
    if (n == 0) return put_unordered(w, idx);
    return has_entries(w->L, idx, n) ? put_list(w, idx) : bad_table(w, idx);
}

/* A container with references in it, written as the dialect wants it. */
static sat_status put_wrapped(writer *w, int idx, char kind)
{
    lua_State *L = w->L;
    sat_status status;
    lua_Integer n = (lua_Integer)lua_rawlen(L, idx);
    w->hooks->wrap_begin(w->p, kind, w->hooks->arg);
    status = kind == 'd' ? put_pairs(w, idx, BARE, false) : put_items(w, idx, n, NULL);
    w->hooks->wrap_end(w->p, kind, w->hooks->arg);
    return status;
}

/* ------------------------------------------------------------- scalars by name */

/* An integer field, or the default when it is absent. */
static bool int_field(lua_State *L, int idx, const char *name, lua_Integer low, lua_Integer high, lua_Integer otherwise,
                      lua_Integer *out)
{
    int isnum = 1;
    *out = otherwise;
    if (field(L, idx, name) != LUA_TNIL) *out = lua_tointegerx(L, -1, &isnum);
    lua_pop(L, 1);
    return isnum && *out >= low && *out <= high;
}

static sat_status put_datetime(writer *w, int idx, satL_py type)
{
    lua_State *L = w->L;
    uint8_t b[10];
    size_t len = 0;
    lua_Integer value = 0, fold = 0;
    const char *name = type == PY_DATETIME ? "datetime" : type == PY_DATE ? "date" : "time";
    bool ok = type == PY_DATE || int_field(L, idx, "fold", 0, 1, 0, &fold);
    if (type != PY_TIME) {
        ok = ok && int_field(L, idx, "year", 1, 9999, 0, &value);
        b[len++] = (uint8_t)(value >> 8);
        b[len++] = (uint8_t)value;
        ok = ok && int_field(L, idx, "month", 1, 12, 0, &value);
        b[len++] = (uint8_t)(value | (fold ? 0x80 : 0));
        ok = ok && int_field(L, idx, "day", 1, 31, 0, &value);
        b[len++] = (uint8_t)value;
        fold = 0;
    }
    if (type != PY_DATE) {
        ok = ok && int_field(L, idx, "hour", 0, 23, 0, &value);
        b[len++] = (uint8_t)(value | (fold ? 0x80 : 0));
        ok = ok && int_field(L, idx, "min", 0, 59, 0, &value);
        b[len++] = (uint8_t)value;
        ok = ok && int_field(L, idx, "sec", 0, 59, 0, &value);
        b[len++] = (uint8_t)value;
        ok = ok && int_field(L, idx, "usec", 0, 999999, 0, &value);
        b[len++] = (uint8_t)(value >> 16);
        b[len++] = (uint8_t)(value >> 8);
        b[len++] = (uint8_t)value;
    }
    if (!ok) return sat_fail(w->err, SAT_VALUE, "a field of a py.%s is missing or out of range", name);
    sat_pickle_global(w->p, "datetime", name);
    sat_pickle_bytes(w->p, b, len);
    sat_status status = SAT_OK;
    if (type != PY_DATE && field(L, idx, "tz") != LUA_TNIL) {
        status = put(w, lua_gettop(L));
        sat_pickle_tuple(w->p, 2);
    } else {
        sat_pickle_tuple(w->p, 1);
    }
    if (type != PY_DATE) lua_pop(L, 1);
    sat_pickle_reduce(w->p);
    return status;
}

static sat_status put_timedelta(writer *w, int idx)
{
    static const char *const fields[3] = {"days", "seconds", "microseconds"};
    lua_Integer value;
    sat_pickle_global(w->p, "datetime", "timedelta");
    for (int i = 0; i < 3; i++) {
        if (!int_field(w->L, idx, fields[i], LUA_MININTEGER, LUA_MAXINTEGER, 0, &value))
            return refuse(w, "the fields days, seconds and microseconds of a py.timedelta are integers");
        sat_pickle_int(w->p, value);
    }
    sat_pickle_tuple(w->p, 3);
    sat_pickle_reduce(w->p);
    return SAT_OK;
}

/* {offset = a timedelta or seconds, name = optional} */
static sat_status put_timezone(writer *w, int idx)
{
    lua_State *L = w->L;
    sat_status status = SAT_OK;
    sat_pickle_global(w->p, "datetime", "timezone");
    if (field(L, idx, "offset") == LUA_TNUMBER) {
        double seconds = lua_tonumber(L, -1);
        double whole = floor(seconds);
        if (!(fabs(seconds) < 86400)) {
            lua_pop(L, 1);
            return refuse(w, "the offset of a py.timezone is less than a day");
        }
        sat_pickle_global(w->p, "datetime", "timedelta");
        sat_pickle_int(w->p, 0);
        sat_pickle_int(w->p, (int64_t)whole);
        sat_pickle_int(w->p, (int64_t)floor((seconds - whole) * 1e6 + 0.5));
        sat_pickle_tuple(w->p, 3);
        sat_pickle_reduce(w->p);
    } else if (satL_py_type(L, -1) == PY_TIMEDELTA) {
        status = put(w, lua_gettop(L));
    } else {
        status = refuse(w, "the offset of a py.timezone is a number of seconds or a py.timedelta");
    }
    lua_pop(L, 1);
    if (field(L, idx, "name") == LUA_TSTRING) {
        put_string(w, -1);
        sat_pickle_tuple(w->p, 2);
    } else {
        sat_pickle_tuple(w->p, 1);
    }
    lua_pop(L, 1);
    sat_pickle_reduce(w->p);
    return status;
}

/* module.name(fields...) */
static sat_status put_call(writer *w, int idx, const char *module, const char *name, const char *const *fields,
                           unsigned n)
{
    sat_status status = SAT_OK;
    sat_pickle_global(w->p, module, name);
    for (unsigned i = 0; i < n && status == SAT_OK; i++) status = put_field(w, idx, fields[i]);
    sat_pickle_tuple(w->p, n);
    sat_pickle_reduce(w->p);
    return status;
}

static sat_status put_int(writer *w, int idx)
{
    lua_State *L = w->L;
    size_t len;
    sat_status status = SAT_OK;
    if (field(L, idx, "le") == LUA_TSTRING) {
        const char *le = lua_tolstring(L, -1, &len);
        sat_pickle_long(w->p, le, len);
    } else {
        status = refuse(w, "this py.int holds no number; make it with py.int(\"digits\")");
    }
    lua_pop(L, 1);
    return status;
}

static sat_status put_float(writer *w, int idx)
{
    int isnum;
    field(w->L, idx, "value");
    lua_Number value = lua_tonumberx(w->L, -1, &isnum);
    lua_pop(w->L, 1);
    if (!isnum) return refuse(w, "this py.float holds no number");
    sat_pickle_float(w->p, value);
    return SAT_OK;
}

static sat_status put_global_of(writer *w, int idx)
{
    lua_State *L = w->L;
    size_t module_len, name_len;
    sat_status status = SAT_OK;
    if (field(L, idx, "module") == LUA_TSTRING && field(L, idx, "name") == LUA_TSTRING) {
        const char *module = lua_tolstring(L, -2, &module_len), *name = lua_tolstring(L, -1, &name_len);
        sat_pickle_globaln(w->p, module, module_len, name, name_len);
    } else {
        status = refuse(w, "a reference or object has no module and name");
    }
    return status; /* put takes the strings off */
}

/* A function from source: eval of a constant text with the user's text as data. */
static sat_status put_fn(writer *w, int idx)
{
    static const char text[] =
        "(lambda g: (exec(compile(s, '<lua>', 'exec', 0, 1), g), g[n])[1])({'__name__': '__saturn__'})";
    sat_status status;
    if (w->hooks != NULL)
        return refuse(w, "a py.fn can be the function of a task, not a value in its arguments; name an importable "
                         "function");
    sat_pickle_global(w->p, "builtins", "eval");
    sat_pickle_text(w->p, text);
    sat_pickle_empty_dict(w->p);
    sat_pickle_mark(w->p);
    sat_pickle_text(w->p, "s");
    status = put_field(w, idx, "source");
    sat_pickle_text(w->p, "n");
    if (status == SAT_OK) status = put_field(w, idx, "name");
    sat_pickle_setitems(w->p);
    sat_pickle_tuple(w->p, 2);
    sat_pickle_reduce(w->p);
    return status;
}

/* ------------------------------------------------------------- inert objects */

/* The sequence at the named field as a tuple; nothing there is the empty one. `bare`: its items only. */
static sat_status put_args(writer *w, int idx, bool bare)
{
    lua_State *L = w->L;
    sat_status status = SAT_OK;
    if (field(L, idx, "args") == LUA_TTABLE) {
        int args = lua_gettop(L);
        lua_Integer n = (lua_Integer)lua_rawlen(L, args);
        if (!bare && n > 3) sat_pickle_mark(w->p);
        status = put_items(w, args, n, NULL);
        if (!bare && n > 3) sat_pickle_tuple_mark(w->p);
        else if (!bare) sat_pickle_tuple(w->p, (unsigned)n);
    } else if (!lua_isnil(L, -1)) {
        status = refuse(w, "the args of a py.object are a sequence");
    } else if (!bare) {
        sat_pickle_tuple(w->p, 0);
    }
    lua_pop(L, 1);
    return status;
}

static sat_status put_class(writer *w, int idx)
{
    lua_State *L = w->L;
    sat_status status;
    if (field(L, idx, "class") != LUA_TNIL) status = put(w, lua_gettop(L));
    else status = put_global_of(w, idx);
    return status;
}

/* The pairs of an exception's attributes but for its arguments, which it has by itself. */
static sat_status put_attributes(writer *w, int idx)
{
    lua_State *L = w->L;
    sat_status status = SAT_OK;
    if (field(L, idx, "attributes") == LUA_TTABLE) {
        int attributes = lua_gettop(L), key = attributes + 1;
        for (lua_pushnil(L); status == SAT_OK && lua_next(L, attributes); lua_settop(L, key)) {
            const char *name = lua_type(L, key) == LUA_TSTRING ? lua_tostring(L, key) : "";
            if (strcmp(name, "args") == 0) continue;
            status = put_key(w, key);
            if (status == SAT_OK) status = put(w, key + 1);
        }
    }
    return status; /* put takes the rest off the stack */
}

/* BaseException takes a dict of attributes as its state, those that Python keeps beside the others too. */
static sat_status put_exception_state(writer *w, int idx, int state)
{
    static const char *const names[][2] = {{"cause", "__cause__"}, {"context", "__context__"},
                                           {"suppress_context", "__suppress_context__"}, {"notes", "__notes__"}};
    lua_State *L = w->L;
    sat_status status = SAT_OK;
    sat_pickle_empty_dict(w->p);
    sat_pickle_mark(w->p);
    if (lua_istable(L, state)) status = put_pairs(w, state, BARE, false);
    if (status == SAT_OK) status = put_attributes(w, idx);
    for (size_t i = 0; i < sizeof names / sizeof *names && status == SAT_OK; i++) {
        if (field(L, idx, names[i][0]) != LUA_TNIL) {
            sat_pickle_text(w->p, names[i][1]);
            status = put(w, lua_gettop(L));
        }
        lua_pop(L, 1);
    }
    sat_pickle_setitems(w->p);
    sat_pickle_build(w->p);
    return status;
}

static bool has_attributes(lua_State *L, int idx)
{
    static const char *const names[] = {"attributes", "cause", "context", "suppress_context", "notes"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        bool found = field(L, idx, names[i]) != LUA_TNIL;
        lua_pop(L, 1);
        if (found) return true;
    }
    return false;
}

static sat_status put_state(writer *w, int idx, satL_py type)
{
    lua_State *L = w->L;
    sat_status status = SAT_OK;
    bool attributes = type == PY_EXCEPTION && has_attributes(L, idx);
    int kind = field(L, idx, "state"), state = lua_gettop(L);
    if (attributes && (kind == LUA_TNIL || kind == LUA_TTABLE)) {
        status = put_exception_state(w, idx, state);
    } else if (kind != LUA_TNIL) {
        status = put(w, state);
        sat_pickle_build(w->p);
    }
    lua_pop(L, 1);
    return status;
}

/* The calls that gave the object its state, each of which has it as its first argument. */
static sat_status put_calls(writer *w, int idx)
{
    lua_State *L = w->L;
    sat_status status = SAT_OK;
    if (lua_rawgetp(L, idx, &satL_py_extra) == LUA_TTABLE) {
        int calls = lua_gettop(L);
        lua_Integer n = (lua_Integer)lua_rawlen(L, calls);
        for (lua_Integer i = 1; i <= n && status == SAT_OK; i++) {
            lua_rawgeti(L, calls, i);
            status = put(w, calls + 1);
            sat_pickle_pop(w->p);
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
    return status;
}

static sat_status put_object(writer *w, int idx, satL_py type)
{
    lua_State *L = w->L;
    const void *self = lua_topointer(L, idx);
    bool is_new = field(L, idx, "new") != LUA_TNIL && lua_toboolean(L, -1);
    bool kwargs = field(L, idx, "kwargs") != LUA_TNIL;
    sat_status status = SAT_OK;
    lua_pop(L, 2);
    if (kwargs && !is_new) {
        /* functools.partial(cls, *args, **kwargs)(), for REDUCE knows no keywords */
        sat_pickle_global(w->p, "functools", "partial");
        status = put_class(w, idx);
        sat_pickle_tuple(w->p, 1);
        sat_pickle_reduce(w->p);
        sat_pickle_mark(w->p);
        if (status == SAT_OK) status = put_class(w, idx);
        if (status == SAT_OK) status = put_args(w, idx, false);
        if (status == SAT_OK) status = put_field(w, idx, "kwargs");
        sat_pickle_none(w->p);
        sat_pickle_tuple_mark(w->p);
        sat_pickle_build(w->p);
        sat_pickle_tuple(w->p, 0);
        sat_pickle_reduce(w->p);
    } else {
        status = put_class(w, idx);
        if (status == SAT_OK) status = put_args(w, idx, false);
        if (status == SAT_OK && kwargs) status = put_field(w, idx, "kwargs");
        if (!is_new) sat_pickle_reduce(w->p);
        else if (kwargs) sat_pickle_newobj_ex(w->p);
        else sat_pickle_newobj(w->p);
    }
    if (status != SAT_OK) return status;
    sat_pickle_put(w->p, self);
    if (field(L, idx, "listitems") == LUA_TTABLE && lua_rawlen(L, -1) > 0) {
        sat_pickle_mark(w->p);
        status = put_items(w, lua_gettop(L), (lua_Integer)lua_rawlen(L, -1), sat_pickle_appends);
        sat_pickle_appends(w->p);
    }
    lua_pop(L, 1);
    if (status == SAT_OK && field(L, idx, "dictitems") == LUA_TTABLE)
        status = put_pairs(w, lua_gettop(L), BATCHED, false);
    if (status == SAT_OK) status = put_state(w, idx, type);
    return status == SAT_OK ? put_calls(w, idx) : status;
}

/* -------------------------------------------------------------------- arrays */

static sat_status put_descr(writer *w, const sat_dtype *type, size_t depth);

/* What numpy.dtype() takes: a type string, or for records a dict of names, formats, offsets and itemsize. */
static sat_status put_dtype_spec(writer *w, const sat_dtype *type, size_t depth)
{
    if (sat_dtype_is_record(type)) return put_descr(w, type, depth);
    const char *text = sat_dtype_str(type);
    sat_pickle_str_memo(w->p, text, strlen(text));
    return SAT_OK;
}

static sat_status put_descr(writer *w, const sat_dtype *type, size_t depth)
{
    sat_pickler *p = w->p;
    sat_status status = SAT_OK;
    if (depth > SAT_DTYPE_MAX_DEPTH) return too_deep(w);
    sat_pickle_empty_dict(p);
    sat_pickle_mark(p);
    sat_pickle_text(p, "names");
    sat_pickle_empty_list(p);
    sat_pickle_mark(p);
    for (size_t i = 0; i < type->nfields; i++) sat_pickle_str(p, type->fields[i].name, type->fields[i].name_len);
    sat_pickle_appends(p);
    sat_pickle_text(p, "formats");
    sat_pickle_empty_list(p);
    sat_pickle_mark(p);
    for (size_t i = 0; i < type->nfields && status == SAT_OK; i++) {
        const sat_field *f = &type->fields[i];
        status = put_dtype_spec(w, f->type, depth + 1);
        if (f->ndim > 0) {
            sat_pickle_mark(p);
            for (int k = 0; k < f->ndim; k++) sat_pickle_int(p, f->shape[k]);
            sat_pickle_tuple_mark(p);
            sat_pickle_tuple(p, 2);
        }
    }
    sat_pickle_appends(p);
    sat_pickle_text(p, "offsets");
    sat_pickle_empty_list(p);
    sat_pickle_mark(p);
    for (size_t i = 0; i < type->nfields; i++) sat_pickle_uint(p, type->fields[i].offset);
    sat_pickle_appends(p);
    sat_pickle_text(p, "itemsize");
    sat_pickle_uint(p, type->itemsize);
    sat_pickle_setitems(p);
    return status;
}

/* numpy.dtype(spec) */
static sat_status put_dtype_of(writer *w, const sat_dtype *type)
{
    sat_pickle_global(w->p, "numpy", "dtype");
    sat_status status = put_dtype_spec(w, type, 0);
    sat_pickle_tuple(w->p, 1);
    sat_pickle_reduce(w->p);
    return status;
}

static sat_status put_dtype(writer *w, int idx)
{
    lua_State *L = w->L;
    size_t len;
    sat_dtype *type;
    if (field(L, idx, "value") != LUA_TSTRING) return refuse(w, "a py.dtype has no type string in its field 'value'");
    /* what Lua may raise in comes first: nobody would release the type */
    bool sub = field(L, idx, "shape") == LUA_TTABLE;
    const char *text = lua_tolstring(L, -2, &len);
    sat_status status = sat_dtype_parse(text, len, &type, w->err);
    if (status != SAT_OK) return status;
    if (sub) sat_pickle_global(w->p, "numpy", "dtype");
    status = put_dtype_of(w, type);
    sat_dtype_release(type);
    if (sub && status == SAT_OK) {
        status = put(w, lua_gettop(L));
        sat_pickle_tuple(w->p, 2);
        sat_pickle_tuple(w->p, 1);
        sat_pickle_reduce(w->p);
    }
    return status;
}

static void put_shape(writer *w, const satL_array_view *view)
{
    if (view->ndim > 3) sat_pickle_mark(w->p);
    for (int i = 0; i < view->ndim; i++) sat_pickle_int(w->p, view->shape[i]);
    if (view->ndim > 3) sat_pickle_tuple_mark(w->p);
    else sat_pickle_tuple(w->p, (unsigned)view->ndim);
}

/* numpy.core.multiarray._reconstruct, the one form that takes Python objects. */
static sat_status put_object_array(writer *w, int idx, const satL_array_view *view)
{
    lua_State *L = w->L;
    sat_pickler *p = w->p;
    sat_pickle_global(p, "numpy.core.multiarray", "_reconstruct");
    sat_pickle_global(p, "numpy", "ndarray");
    sat_pickle_int(p, 0);
    sat_pickle_tuple(p, 1);
    sat_pickle_bytes(p, "b", 1);
    sat_pickle_tuple(p, 3);
    sat_pickle_reduce(p);
    sat_pickle_put(p, lua_touserdata(L, idx));
    sat_pickle_mark(p);
    sat_pickle_int(p, 1);
    put_shape(w, view);
    sat_status status = put_dtype_of(w, view->type);
    sat_pickle_bool(p, false);
    satL_array_push_list(L, idx);
    int list = lua_gettop(L);
    sat_pickle_empty_list(p);
    if (view->size > 0) {
        sat_pickle_mark(p);
        if (status == SAT_OK) status = put_items(w, list, (lua_Integer)view->size, sat_pickle_appends);
        sat_pickle_appends(p);
    }
    sat_pickle_tuple_mark(p);
    sat_pickle_build(p);
    return status;
}

/* numpy.ndarray(shape, dtype, buffer, 0, None, order); a copy of it where the buffer would be read-only bytes. */
static sat_status put_array(writer *w, int idx)
{
    lua_State *L = w->L;
    sat_pickler *p = w->p;
    satL_array_view view;
    const void *self = lua_touserdata(L, idx);
    if (!satL_array_view_of(L, idx, &view)) return refuse(w, "an array was closed");
    if (view.type->kind == 'O') return put_object_array(w, idx, &view);
    if (view.contiguous == 0) {
        satL_array_push_contiguous(L, idx);
        if (!satL_array_view_of(L, -1, &view)) return refuse(w, "an array was closed");
    }
    bool oob = p->oob && p->protocol >= 5 && view.block != NULL && view.nbytes >= p->oob_min;
    if (!oob) sat_pickle_global(p, "numpy", "array");
    sat_pickle_global(p, "numpy", "ndarray");
    sat_pickle_mark(p);
    put_shape(w, &view);
    sat_status status = sat_dtype_is_record(view.type) ? put_dtype_of(w, view.type) : put_dtype_spec(w, view.type, 0);
    if (oob) sat_pickle_buffer(p, (sat_slice){view.block, view.data, view.nbytes}, false);
    else sat_pickle_bytes(p, view.data, view.nbytes);
    if (view.contiguous == 'F') {
        sat_pickle_int(p, 0);
        sat_pickle_none(p);
        sat_pickle_str(p, "F", 1);
    }
    sat_pickle_tuple_mark(p);
    sat_pickle_reduce(p);
    if (!oob) {
        sat_pickle_tuple(p, 1);
        sat_pickle_reduce(p);
    }
    sat_pickle_put(p, self);
    return status;
}

/* numpy.datetime64(value, unit) */
static sat_status put_datetime64(writer *w, int idx)
{
    lua_State *L = w->L;
    lua_Integer value;
    bool delta = field(L, idx, "delta") != LUA_TNIL && lua_toboolean(L, -1);
    if (!int_field(L, idx, "value", LUA_MININTEGER, LUA_MAXINTEGER, 0, &value) || field(L, idx, "unit") != LUA_TSTRING)
        return refuse(w, "a py.datetime64 has an integer 'value' and a string 'unit'");
    size_t len = strcmp(lua_tostring(L, -1), "generic") == 0 ? 0 : lua_rawlen(L, -1);
    sat_pickle_global(w->p, "numpy", delta ? "timedelta64" : "datetime64");
    if (value == LUA_MININTEGER) sat_pickle_str(w->p, "NaT", 3);
    else sat_pickle_int(w->p, value);
    if (len > 0) put_string(w, -1);
    sat_pickle_tuple(w->p, len > 0 ? 2 : 1);
    sat_pickle_reduce(w->p);
    return SAT_OK;
}

static sat_status put_deque(writer *w, int idx)
{
    lua_Integer maxlen, n = (lua_Integer)lua_rawlen(w->L, idx);
    sat_pickle_global(w->p, "collections", "deque");
    if (field(w->L, idx, "maxlen") != LUA_TNIL) {
        if (!int_field(w->L, idx, "maxlen", 0, LUA_MAXINTEGER, 0, &maxlen))
            return refuse(w, "the maxlen of a py.deque is an integer");
        sat_pickle_tuple(w->p, 0);
        sat_pickle_int(w->p, maxlen);
        sat_pickle_tuple(w->p, 2);
    } else {
        sat_pickle_tuple(w->p, 0);
    }
    sat_pickle_reduce(w->p);
    sat_pickle_put(w->p, lua_topointer(w->L, idx));
    if (n == 0) return SAT_OK;
    sat_pickle_mark(w->p);
    sat_status status = put_items(w, idx, n, sat_pickle_appends);
    sat_pickle_appends(w->p);
    return status;
}

/* array.array(typecode, [numbers]) */
static sat_status put_carray(writer *w, int idx)
{
    sat_pickle_global(w->p, "array", "array");
    sat_status status = put_field(w, idx, "typecode");
    if (status == SAT_OK) {
        lua_Integer n = (lua_Integer)lua_rawlen(w->L, idx);
        sat_pickle_empty_list(w->p);
        if (n > 0) {
            sat_pickle_mark(w->p);
            status = put_items(w, idx, n, sat_pickle_appends);
            sat_pickle_appends(w->p);
        }
    }
    sat_pickle_tuple(w->p, 2);
    sat_pickle_reduce(w->p);
    sat_pickle_put(w->p, lua_topointer(w->L, idx));
    return status;
}

static sat_status put_path(writer *w, int idx)
{
    lua_State *L = w->L;
    const char *name = "PosixPath";
    if (field(L, idx, "kind") == LUA_TSTRING) name = lua_tostring(L, -1);
    if (strcmp(name, "PosixPath") != 0 && strcmp(name, "PurePosixPath") != 0 && strcmp(name, "WindowsPath") != 0 &&
        strcmp(name, "PureWindowsPath") != 0)
        return refuse(w, "the kind of a py.path is PosixPath, PurePosixPath, WindowsPath or PureWindowsPath");
    static const char *const fields[] = {"value"};
    return put_call(w, idx, "pathlib", name, fields, 1);
}

/* ---------------------------------------------------------------- any value */

static sat_status put_typed(writer *w, int idx, satL_py type)
{
    static const char *const complex_fields[] = {"re", "im"}, *const fraction[] = {"numerator", "denominator"},
                             *const value[] = {"value"}, *const range[] = {"start", "stop", "step"},
                             *const key[] = {"key"};
    switch (type) {
    case PY_LIST:
        return wrapped(w, idx) ? put_wrapped(w, idx, 'l') : put_list(w, idx);
    case PY_TUPLE:
        return wrapped(w, idx) ? put_wrapped(w, idx, 't') : put_tuple(w, idx);
    case PY_SET:
        return wrapped(w, idx) ? put_wrapped(w, idx, 's') : put_set(w, idx, false);
    case PY_FROZENSET:
        return put_set(w, idx, true);
    case PY_KW:
        if (w->depth > 1)
            return refuse(w, "py.kw{...} goes last among the arguments of a call, not inside another value");
        return wrapped(w, idx) ? put_wrapped(w, idx, 'd') : put_dict(w, idx);
    case PY_DICT:
        return wrapped(w, idx) ? put_wrapped(w, idx, 'd') : put_dict(w, idx);
    case PY_ORDEREDDICT:
    case PY_DEFAULTDICT:
    case PY_COUNTER:
        return put_dict_subclass(w, idx, type);
    case PY_DEQUE:
        return put_deque(w, idx);
    case PY_CARRAY:
        return put_carray(w, idx);
    case PY_INT:
        return put_int(w, idx);
    case PY_FLOAT:
        return put_float(w, idx);
    case PY_STR:
    case PY_BYTES:
    case PY_BYTEARRAY:
        return put_boxed(w, idx, type);
    case PY_COMPLEX:
        return put_call(w, idx, "builtins", "complex", complex_fields, 2);
    case PY_DECIMAL:
        return put_call(w, idx, "decimal", "Decimal", value, 1);
    case PY_FRACTION:
        return put_call(w, idx, "fractions", "Fraction", fraction, 2);
    case PY_UUID:
        return put_call(w, idx, "uuid", "UUID", value, 1);
    case PY_RANGE:
        return put_call(w, idx, "builtins", "range", range, 3);
    case PY_SLICE:
        return put_call(w, idx, "builtins", "slice", range, 3);
    case PY_ZONEINFO:
        return put_call(w, idx, "zoneinfo", "ZoneInfo", key, 1);
    case PY_DATETIME:
    case PY_DATE:
    case PY_TIME:
        return put_datetime(w, idx, type);
    case PY_TIMEDELTA:
        return put_timedelta(w, idx);
    case PY_TIMEZONE:
        return put_timezone(w, idx);
    case PY_PATH:
        return put_path(w, idx);
    case PY_DTYPE:
        return put_dtype(w, idx);
    case PY_DATETIME64:
        return put_datetime64(w, idx);
    case PY_REF:
        return put_global_of(w, idx);
    case PY_FN:
        return put_fn(w, idx);
    case PY_TRACEBACK:
        return put_field(w, idx, "object");
    case PY_OBJECT:
    case PY_EXCEPTION:
    case PY_TIMESTAMP:
    case PY_PANDAS_TIMEDELTA:
        return put_object(w, idx, type);
    case PY_DATAFRAME:
    case PY_SERIES:
    case PY_INDEX:
        if (lua_rawgetp(w->L, idx, &satL_py_extra) == LUA_TTABLE) return put(w, lua_gettop(w->L));
        return sat_fail(w->err, SAT_VALUE, "a %s cannot be made in Lua; make it on the cluster",
                        satL_py_name(type) + 7);
    case PY_NONE_:
    case PY_COUNT_:
        break;
    }
    return refuse(w, "internal error: a value of unknown type");
}

static bool is_container(satL_py type)
{
    switch (type) {
    case PY_LIST:
    case PY_TUPLE:
    case PY_SET:
    case PY_FROZENSET:
    case PY_KW:
    case PY_DICT:
    case PY_ORDEREDDICT:
    case PY_DEFAULTDICT:
    case PY_COUNTER:
        return true;
    default:
        return false;
    }
}

static sat_status put_table(writer *w, int idx)
{
    lua_State *L = w->L;
    satL_py type;
    bool meta = type_of(w, idx, &type);
    if (type != PY_NONE_) {
        w->nest->opaque = !is_container(type);
        return put_typed(w, idx, type);
    }
    if (meta && luaL_getmetafield(L, idx, "__name") == LUA_TSTRING)
        return sat_fail(w->err, SAT_VALUE, "a %s cannot be sent to Python", lua_tostring(L, -1));
    if (!wrapped(w, idx)) return put_plain(w, idx);
    shape kind = shape_of(L, idx, (lua_Integer)lua_rawlen(L, idx));
    if (kind != SHAPE_LIST && kind != SHAPE_DICT) return bad_shape(w, kind);
    return put_wrapped(w, idx, kind == SHAPE_LIST ? 'l' : 'd');
}

/* Is this inside itself, with nothing but containers on the way from the value's top? Dask looks for keys in the
 * containers of an argument and never comes to an end there. */
static bool inside_itself(const writer *w, const void *self)
{
    bool inside = false;
    for (const nest *each = w->nest; each != NULL; each = each->above) {
        if (each->opaque) return false;
        if (each->self == self) inside = true;
    }
    return inside;
}

static sat_status put_nested(writer *w, int idx)
{
    lua_State *L = w->L;
    int top = lua_gettop(L);
    const void *self = lua_topointer(L, idx);
    sat_status status;
    if (is_ref(w, idx)) {
        if (w->hooks->write_ref == NULL) return refuse(w, "a reference to a task has no place here");
        status = w->hooks->write_ref(L, idx, w->p, w->hooks->arg, w->err);
        lua_settop(L, top);
        return status;
    }
    if (sat_pickle_get(w->p, self)) {
        if (w->hooks == NULL || !inside_itself(w, self)) return SAT_OK;
        return refuse(w, "an argument holds itself, and Dask looks through containers without end: scatter it, or put "
                         "it into a py.object");
    }
    if (w->depth >= w->max_depth) return too_deep(w);
    if (!lua_checkstack(L, 32)) return too_deep(w);
    nest here = {self, w->nest, lua_type(L, idx) != LUA_TTABLE};
    w->nest = &here;
    w->depth++;
    if (lua_type(L, idx) == LUA_TTABLE) {
        status = put_table(w, idx);
    } else {
        satL_array_view view;
        if (satL_array_view_of(L, idx, &view))
            status = put_array(w, idx);
        else if (luaL_getmetafield(L, idx, "__name") == LUA_TSTRING)
            status = sat_fail(w->err, SAT_VALUE, "a %s cannot be sent to Python", lua_tostring(L, -1));
        else
            status = refuse(w, "a userdata cannot be sent to Python");
    }
    w->depth--;
    w->nest = here.above;
    lua_settop(L, top);
    return status;
}

/* idx is absolute. */
static sat_status put(writer *w, int idx)
{
    lua_State *L = w->L;
    switch (lua_type(L, idx)) {
    case LUA_TNIL:
        sat_pickle_none(w->p);
        return SAT_OK;
    case LUA_TBOOLEAN:
        sat_pickle_bool(w->p, lua_toboolean(L, idx));
        return SAT_OK;
    case LUA_TNUMBER:
        if (lua_isinteger(L, idx))
            sat_pickle_int(w->p, lua_tointeger(L, idx));
        else
            sat_pickle_float(w->p, lua_tonumber(L, idx));
        return SAT_OK;
    case LUA_TSTRING:
        put_string(w, idx);
        return SAT_OK;
    case LUA_TTABLE:
    case LUA_TUSERDATA:
        return put_nested(w, idx);
    case LUA_TLIGHTUSERDATA:
        if (!satL_is_null(L, idx)) return refuse(w, "a light userdata cannot be sent to Python");
        sat_pickle_none(w->p);
        return SAT_OK;
    case LUA_TFUNCTION:
        return refuse(w, "a Lua function cannot run on the cluster; name a Python function (\"package.module.name\") "
                         "or give its source with saturn.py.fn");
    default:
        return sat_fail(w->err, SAT_VALUE, "a Lua %s cannot be sent to Python", luaL_typename(L, idx));
    }
}

sat_status satL_pickle_value(lua_State *L, int idx, sat_pickler *out, const satL_ref_hooks *hooks, sat_error *err)
{
    writer w = {.L = L, .p = out, .hooks = hooks, .err = err, .max_depth = out->depth};
    int top = lua_gettop(L);
    idx = lua_absindex(L, idx);
    if (!lua_checkstack(L, 32)) return sat_fail_nomem(err);
    sat_pickle_forget(out); /* addresses of an earlier value may be in use again */
    w.refs = hooks != NULL && hooks->wraps && contains_ref(&w, idx);
    sat_status status = put(&w, idx);
    sat_pickle_forget(out);
    lua_settop(L, top);
    return status == SAT_OK ? sat_pickler_status(out, err) : status;
}

/* ------------------------------------------------------------------ Lua face */

static int free_pickler(lua_State *L)
{
    sat_pickler_free(lua_touserdata(L, 1));
    return 0;
}

/* A pickler that is freed with its userdata, which is pushed. */
static sat_pickler *new_pickler(lua_State *L)
{
    sat_pickler *p = lua_newuserdatauv(L, sizeof *p, 0);
    sat_pickler_init(p);
    if (luaL_newmetatable(L, "saturn.pickler")) {
        lua_pushcfunction(L, free_pickler);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    return p;
}

/* dumps(value[, {protocol = 4, buffers = false, depth = 200}]) → pickle[, list of buffers: arrays of bytes, the memory
 * of the arrays in the value] */
static int dumps(lua_State *L)
{
    sat_error err;
    bool buffers = false;
    lua_Integer protocol = 4;
    lua_settop(L, 2);
    sat_pickler *p = new_pickler(L);
    if (!lua_isnil(L, 2)) {
        luaL_checktype(L, 2, LUA_TTABLE);
        if (lua_getfield(L, 2, "buffers") != LUA_TNIL) buffers = lua_toboolean(L, -1);
        if (lua_getfield(L, 2, "protocol") != LUA_TNIL) protocol = luaL_checkinteger(L, -1);
        else if (buffers) protocol = 5;
        luaL_argcheck(L, protocol == 4 || protocol == 5, 2, "protocol is 4 or 5");
        if (lua_getfield(L, 2, "depth") != LUA_TNIL) {
            lua_Integer depth = luaL_checkinteger(L, -1);
            luaL_argcheck(L, depth > 0 && depth <= 2000, 2, "depth is from 1 to 2000");
            p->depth = (size_t)depth;
        }
        lua_pop(L, 3);
    }
    p->protocol = (int)protocol;
    p->oob = buffers;
    sat_pickle_proto(p);
    sat_status status = satL_pickle_value(L, 1, p, NULL, &err);
    sat_pickle_stop(p);
    if (status == SAT_OK) status = sat_pickler_status(p, &err);
    if (status != SAT_OK) return satL_fail(L, &err);
    lua_pushlstring(L, (const char *)p->out.data, p->out.len);
    if (!buffers) return 1;
    lua_createtable(L, (int)p->nbuffers, 0);
    for (size_t i = 0; i < p->nbuffers; i++) {
        int64_t n = (int64_t)p->buffers[i].len;
        if (satL_array_push(L, "|u1", 1, &n, NULL, p->buffers[i], &err) != SAT_OK) return satL_fail(L, &err);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 2;
}

/* The bytes of a string or of an array, which stay the value's. */
static sat_slice check_bytes(lua_State *L, int idx)
{
    satL_array_view view;
    size_t len;
    if (satL_array_view_of(L, idx, &view) && view.contiguous != 0 && view.data != NULL)
        return (sat_slice){view.block, view.data, view.nbytes};
    luaL_argcheck(L, lua_type(L, idx) == LUA_TSTRING, 2, "buffers is a list of strings and arrays");
    const char *data = lua_tolstring(L, idx, &len);
    return (sat_slice){NULL, (const uint8_t *)data, len};
}

/* loads(pickle[, {limits = {...}, buffers = {strings or arrays}}]) → value, or nil, kind, message */
static int loads(lua_State *L)
{
    sat_error err;
    size_t len, nbuffers = 0;
    sat_slice *buffers = NULL;
    sat_limits limits = SAT_LIMITS_DEFAULT;
    const char *text = luaL_checklstring(L, 1, &len);
    lua_settop(L, 2);
    if (!lua_isnil(L, 2)) {
        luaL_checktype(L, 2, LUA_TTABLE);
        lua_getfield(L, 2, "limits");
        satL_check_limits(L, 3, &limits);
        if (lua_getfield(L, 2, "buffers") == LUA_TTABLE) {
            nbuffers = (size_t)lua_rawlen(L, -1);
            buffers = lua_newuserdatauv(L, (nbuffers + 1) * sizeof *buffers, 0);
            for (size_t i = 0; i < nbuffers; i++) {
                lua_rawgeti(L, 4, (lua_Integer)i + 1);
                buffers[i] = check_bytes(L, -1);
                lua_pop(L, 1); /* the list keeps it */
            }
        }
    }
    sat_slice pickle = {NULL, (const uint8_t *)text, len};
    sat_status status = satL_unpickle(L, pickle, buffers, nbuffers, &limits, &err);
    return status == SAT_OK ? 1 : satL_fail(L, &err);
}

/* int_from_text("digits") → the bytes of a py.int, or nil, kind, message */
static int int_from_text(lua_State *L)
{
    sat_error err;
    size_t len;
    const char *text = luaL_checklstring(L, 1, &len);
    sat_pickler *p = new_pickler(L);
    if (sat_bigint_parse(text, len, &p->out, &err) != SAT_OK) return satL_fail(L, &err);
    lua_pushlstring(L, p->out.len ? (const char *)p->out.data : "", p->out.len);
    return 1;
}

static int int_to_text(lua_State *L)
{
    sat_error err;
    size_t len;
    const char *le = luaL_checklstring(L, 1, &len);
    sat_pickler *p = new_pickler(L);
    if (sat_bigint_text((const uint8_t *)le, len, &p->out, &err) != SAT_OK) return satL_fail(L, &err);
    lua_pushlstring(L, (const char *)p->out.data, p->out.len);
    return 1;
}

static int is_utf8(lua_State *L)
{
    size_t len;
    const char *text = luaL_checklstring(L, 1, &len);
    lua_pushboolean(L, sat_utf8_valid((const uint8_t *)text, len));
    return 1;
}

int satL_open_pickle(lua_State *L)
{
    static const luaL_Reg functions[] = {{"dumps", dumps},
                                         {"loads", loads},
                                         {"int_from_text", int_from_text},
                                         {"int_to_text", int_to_text},
                                         {"is_utf8", is_utf8},
                                         {NULL, NULL}};
    luaL_newlib(L, functions);
    /* types.dict and so on: the metatables, for lua/saturn/py.lua to give them methods */
    lua_createtable(L, 0, PY_COUNT_);
    for (int type = PY_NONE_ + 1; type < PY_COUNT_; type++) {
        lua_newtable(L);
        satL_py_set(L, (satL_py)type);
        lua_getmetatable(L, -1);
        lua_remove(L, -2);
        lua_setfield(L, -2, satL_py_name((satL_py)type) + (sizeof "saturn.py." - 1));
    }
    lua_setfield(L, -2, "types");
    lua_pushlightuserdata(L, (void *)(uintptr_t)&satL_py_extra);
    lua_setfield(L, -2, "extra");
    return 1;
}
