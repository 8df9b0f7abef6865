/* saturn.core.arrow: the layouts of Arrow that are no arrays of NumPy, bits and texts of any length. The rest of Arrow is
 * lua/saturn/arrow.lua. Buffers are arrays of bytes; positions count from 0. What does not fit together gives nil, kind,
 * message. */
#include <string.h>

#include "array.h"
#include "saturn_lua.h"

enum { TABLE_HINT = 1 << 20 };

/* The bytes of the array of bytes at idx. */
static const uint8_t *check_buffer(lua_State *L, int idx, size_t *len)
{
    satL_array_view view;
    if (!satL_array_view_of(L, idx, &view) || view.itemsize != 1 || view.contiguous != 'C')
        luaL_argerror(L, idx, "an array of bytes is needed");
    *len = view.nbytes;
    return view.data;
}

static int broken(lua_State *L, const char *what)
{
    sat_error err;
    sat_fail(&err, SAT_PROTOCOL, "broken Arrow data: %s", what);
    return satL_fail(L, &err);
}

static size_t check_count(lua_State *L, int idx)
{
    lua_Integer n = luaL_checkinteger(L, idx);
    luaL_argcheck(L, n >= 0 && (lua_Unsigned)n <= SIZE_MAX / 16, idx, "a count is 0 or more");
    return (size_t)n;
}

/* bits(buffer, from, n, zeros) → an array of n booleans, true for the bits that are set, or with `zeros` for the others */
static int bits(lua_State *L)
{
    size_t len, from = check_count(L, 2), n = check_count(L, 3);
    const uint8_t *buffer = check_buffer(L, 1, &len);
    bool zeros = lua_toboolean(L, 4);
    int64_t shape = (int64_t)n;
    uint8_t *data;
    sat_error err;
    if ((from + n) / 8 + ((from + n) % 8 > 0) > len) return broken(L, "the bits end before the last one");
    if (satL_array_push_new(L, "|b1", 1, &shape, &data, &err) != SAT_OK) return satL_fail(L, &err);
    for (size_t i = 0; i < n; i++) data[i] = ((buffer[(from + i) >> 3] >> ((from + i) & 7)) & 1) != zeros;
    return 1;
}

/* Of the offsets, `width` bytes each, the one at i. */
static uint64_t offset_at(const uint8_t *offsets, size_t width, size_t i)
{
    return width == 4 ? sat_get_le32(offsets + i * 4) : sat_get_le64(offsets + i * 8);
}

/* texts(offsets, width, data, from, n, missing) → a list of n strings, saturn.null where the booleans of `missing`, if it
 * is not nil, say so. Text i lies between the offsets i and i + 1. */
static int texts(lua_State *L)
{
    size_t offsets_len, len = 0, missing_len = 0, width = check_count(L, 2), from = check_count(L, 4),
                        n = check_count(L, 5);
    const uint8_t *offsets = check_buffer(L, 1, &offsets_len);
    const uint8_t *data = lua_isnil(L, 3) ? NULL : check_buffer(L, 3, &len);
    const uint8_t *missing = lua_isnoneornil(L, 6) ? NULL : check_buffer(L, 6, &missing_len);
    luaL_argcheck(L, width == 4 || width == 8, 2, "offsets have 4 or 8 bytes");
    luaL_argcheck(L, missing == NULL || missing_len == n, 6, "as many booleans as texts are needed");
    if (n > 0 && from + n + 1 > offsets_len / width) return broken(L, "the offsets end before the last text");
    lua_createtable(L, n > TABLE_HINT ? TABLE_HINT : (int)n, 0);
    uint64_t start = n > 0 ? offset_at(offsets, width, from) : 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t end = offset_at(offsets, width, from + i + 1);
        if (end < start || end > len) return broken(L, "a text lies outside of the bytes");
        if (missing != NULL && missing[i])
            satL_push_null(L);
        else
            lua_pushlstring(L, end > start ? (const char *)data + start : "", (size_t)(end - start));
        lua_rawseti(L, -2, (lua_Integer)i + 1);
        start = end;
    }
    return 1;
}

int satL_open_arrow(lua_State *L)
{
    static const luaL_Reg functions[] = {{"bits", bits}, {"texts", texts}, {NULL, NULL}};
    luaL_newlib(L, functions);
    return 1;
}
