/* saturn.core.http: start(reactor, options) → request; request:done(), :response(), :close(); url(base[, reference]);
 * is_terminal(fd). */
#include "../core/http.h"

#include <string.h>
#include <unistd.h>

#include "reactor.h"

#define REQUEST "saturn.http_request"
#define URL "saturn.url_parts"

enum { MAX_HEADER_LINES = 64 };

static sat_http *check_request(lua_State *L)
{
    sat_http **box = luaL_checkudata(L, 1, REQUEST);
    if (*box == NULL) luaL_error(L, "this request is closed");
    return *box;
}

/* ---- start ------------------------------------------------------------------------------------- */

/* The strings stay in the options table, which is on the stack while they are used. */
static const char *field(lua_State *L, const char *name, size_t *len)
{
    const char *text = NULL;
    int type = lua_getfield(L, 2, name);
    if (type == LUA_TSTRING)
        text = lua_tolstring(L, -1, len);
    else if (type != LUA_TNIL)
        luaL_error(L, "'%s' must be a string", name);
    lua_pop(L, 1);
    return text;
}

static const char *plain_field(lua_State *L, const char *name)
{
    size_t len = 0;
    const char *text = field(L, name, &len);
    if (text != NULL && strlen(text) != len) luaL_error(L, "'%s' holds a zero byte", name);
    return text;
}

static double number_field(lua_State *L, const char *name)
{
    int is_number = 1;
    double value = lua_getfield(L, 2, name) == LUA_TNIL ? 0 : lua_tonumberx(L, -1, &is_number);
    lua_pop(L, 1);
    if (!is_number || !(value >= 0 && value < 1e15)) luaL_error(L, "'%s' must be a number, 0 or more", name);
    return value;
}

static bool flag_field(lua_State *L, const char *name)
{
    lua_getfield(L, 2, name);
    bool value = lua_toboolean(L, -1) != 0;
    lua_pop(L, 1);
    return value;
}

static const char *check_header(lua_State *L)
{
    size_t len = 0;
    const char *line = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &len) : NULL;
    if (line == NULL) luaL_error(L, "a header must be a string");
    /* a line break would start another header; the text may hold the token, so it is not shown */
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f) luaL_error(L, "a header holds a control character");
    return line;
}

static size_t read_headers(lua_State *L, const char **lines)
{
    size_t count = 0;
    if (lua_getfield(L, 2, "headers") == LUA_TTABLE) {
        lua_Integer n = luaL_len(L, -1);
        luaL_argcheck(L, n <= MAX_HEADER_LINES, 2, "too many headers");
        for (lua_Integer i = 1; i <= n; i++) {
            lua_rawgeti(L, -1, i);
            lines[count++] = check_header(L);
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
    return count;
}

static int http_start(lua_State *L)
{
    sat_error err;
    const char *lines[MAX_HEADER_LINES];
    sat_http_options options = {0};
    sat_reactor *reactor = satL_check_reactor(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    options.url = plain_field(L, "url");
    luaL_argcheck(L, options.url != NULL, 2, "no url");
    options.method = plain_field(L, "method");
    options.body = field(L, "body", &options.body_len);
    options.connect_timeout = number_field(L, "connect_timeout");
    options.timeout = number_field(L, "timeout");
    options.ca_file = plain_field(L, "ca_file");
    options.ca_path = plain_field(L, "ca_path");
    options.proxy = plain_field(L, "proxy");
    options.user_agent = plain_field(L, "user_agent");
    options.once = flag_field(L, "once");
    options.max_body = (size_t)number_field(L, "max_body");
    options.headers = lines;
    options.header_count = read_headers(L, lines);
    sat_http **box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = NULL;
    luaL_setmetatable(L, REQUEST);
    *box = sat_http_start(reactor, &options, &err);
    return *box ? 1 : satL_fail(L, &err);
}

/* ---- response ---------------------------------------------------------------------------------- */

static int request_done(lua_State *L)
{
    lua_pushboolean(L, sat_http_done(check_request(L)));
    return 1;
}

/* One "Name: value" line into the table on top, under the name in lower case. */
static void push_header(lua_State *L, const char *line, size_t len)
{
    luaL_Buffer name;
    const char *colon = memchr(line, ':', len);
    if (colon == NULL) return;
    size_t name_len = (size_t)(colon - line);
    const char *value = colon + 1, *end = line + len;
    while (value < end && (*value == ' ' || *value == '\t')) value++;
    luaL_buffinit(L, &name);
    for (size_t i = 0; i < name_len; i++) {
        char c = line[i];
        luaL_addchar(&name, (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c));
    }
    luaL_pushresult(&name);
    lua_pushlstring(L, value, (size_t)(end - value));
    lua_rawset(L, -3);
}

static void push_headers(lua_State *L, const char *text, size_t len)
{
    const char *end = text + len;
    lua_newtable(L);
    while (text < end) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        const char *next = stop ? stop + 1 : end;
        if (stop == NULL) stop = end;
        if (stop > text && stop[-1] == '\r') stop--;
        push_header(L, text, (size_t)(stop - text));
        text = next;
    }
}

static int request_response(lua_State *L)
{
    sat_error err;
    sat_http_response response;
    sat_status status = sat_http_result(check_request(L), &response, &err);
    if (status == SAT_AGAIN) return luaL_error(L, "the request is not done");
    if (status != SAT_OK) return satL_fail(L, &err);
    lua_createtable(L, 0, 6);
    lua_pushinteger(L, response.status);
    lua_setfield(L, -2, "status");
    lua_pushlstring(L, response.body, response.body_len);
    lua_setfield(L, -2, "body");
    push_headers(L, response.headers, response.headers_len);
    lua_setfield(L, -2, "headers");
    lua_pushstring(L, response.redirect);
    lua_setfield(L, -2, "redirect");
    lua_pushstring(L, response.url);
    lua_setfield(L, -2, "url");
    lua_pushboolean(L, response.new_connections == 0);
    lua_setfield(L, -2, "reused");
    return 1;
}

static int request_close(lua_State *L)
{
    sat_http **box = luaL_checkudata(L, 1, REQUEST);
    sat_http *request = *box;
    *box = NULL;
    sat_http_free(request);
    return 0;
}

static int request_tostring(lua_State *L)
{
    sat_http **box = luaL_checkudata(L, 1, REQUEST);
    const char *state = *box == NULL ? "closed" : sat_http_done(*box) ? "done" : "under way";
    lua_pushfstring(L, "saturn.http_request (%s)", state);
    return 1;
}

/* ---- URLs -------------------------------------------------------------------------------------- */

static int url_gc(lua_State *L)
{
    sat_url_free(luaL_checkudata(L, 1, URL));
    return 0;
}

static void set_part(lua_State *L, const char *name, const char *text)
{
    lua_pushstring(L, text);
    lua_setfield(L, -2, name);
}

/* url(base[, reference]) → { text=, scheme=, host=, port=, path=, has_user= } or nil, kind, message */
static int http_url(lua_State *L)
{
    sat_error err;
    const char *base = luaL_checkstring(L, 1);
    const char *reference = luaL_optstring(L, 2, NULL);
    sat_url *url = lua_newuserdatauv(L, sizeof *url, 0);
    *url = (sat_url){NULL, NULL, NULL, NULL, false, NULL};
    luaL_setmetatable(L, URL);
    if (sat_url_resolve(base, reference, url, &err) != SAT_OK) return satL_fail(L, &err);
    lua_createtable(L, 0, 6);
    set_part(L, "text", url->text);
    set_part(L, "scheme", url->scheme);
    set_part(L, "host", url->host);
    set_part(L, "port", url->port);
    set_part(L, "path", url->path);
    lua_pushboolean(L, url->has_user);
    lua_setfield(L, -2, "has_user");
    sat_url_free(url);
    return 1;
}

/* Whether a descriptor is a terminal: who shows progress asks. */
static int is_terminal(lua_State *L)
{
    lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
    return 1;
}

int satL_open_http(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"done", request_done}, {"response", request_response}, {"close", request_close}, {NULL, NULL}};
    static const luaL_Reg meta[] = {
        {"__gc", request_close}, {"__close", request_close}, {"__tostring", request_tostring}, {NULL, NULL}};
    static const luaL_Reg url_meta[] = {{"__gc", url_gc}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"start", http_start}, {"url", http_url}, {"is_terminal", is_terminal},
                                         {NULL, NULL}};
    satL_class(L, REQUEST, methods, meta);
    satL_class(L, URL, NULL, url_meta);
    lua_pop(L, 2);
    luaL_newlib(L, functions);
    return 1;
}
