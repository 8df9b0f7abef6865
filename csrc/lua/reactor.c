/* saturn.core.reactor: new() → reactor; reactor:poll(seconds), :fd(), :timeout(), :round(), :watch(fd, "r"|"w"|"rw"). */
#include "reactor.h"

#include <string.h>

#define REACTOR "saturn.reactor"
#define WATCH "saturn.watch"

sat_reactor *satL_check_reactor(lua_State *L, int idx)
{
    sat_reactor **box = luaL_checkudata(L, idx, REACTOR);
    if (*box == NULL) luaL_error(L, "this event loop is closed");
    return *box;
}

static int reactor_new(lua_State *L)
{
    sat_error err;
    sat_reactor **box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = NULL;
    luaL_setmetatable(L, REACTOR);
    *box = sat_reactor_new(&err);
    return *box ? 1 : satL_fail(L, &err);
}

static int reactor_gc(lua_State *L)
{
    sat_reactor **box = luaL_checkudata(L, 1, REACTOR);
    sat_reactor_release(*box);
    *box = NULL;
    return 0;
}

static int reactor_poll(lua_State *L)
{
    sat_error err;
    sat_reactor *reactor = satL_check_reactor(L, 1);
    sat_status status = sat_reactor_poll(reactor, luaL_optnumber(L, 2, -1.0), &err);
    if (status != SAT_OK && status != SAT_AGAIN) return satL_fail(L, &err);
    lua_pushboolean(L, status == SAT_OK);
    return 1;
}

static int reactor_fd(lua_State *L)
{
    int fd = sat_reactor_fd(satL_check_reactor(L, 1));
    if (fd < 0) return 0;
    lua_pushinteger(L, fd);
    return 1;
}

static int reactor_timeout(lua_State *L)
{
    double timeout = sat_reactor_timeout(satL_check_reactor(L, 1));
    if (timeout < 0) return 0;
    lua_pushnumber(L, timeout);
    return 1;
}

static int reactor_round(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)sat_reactor_round(satL_check_reactor(L, 1)));
    return 1;
}

static void watch_ready(void *arg, int events)
{
    (void)arg; /* the waiter looks at its descriptor itself; the round it wakes in is all it needs */
    (void)events;
}

static int reactor_watch(lua_State *L)
{
    sat_error err;
    sat_reactor *reactor = satL_check_reactor(L, 1);
    lua_Integer fd = luaL_checkinteger(L, 2);
    const char *mode = luaL_checkstring(L, 3);
    int events = (strchr(mode, 'r') ? SAT_READ : 0) | (strchr(mode, 'w') ? SAT_WRITE : 0);
    luaL_argcheck(L, fd >= 0 && fd <= 0x7fffffff, 2, "not a descriptor");
    luaL_argcheck(L, events != 0, 3, "expected 'r', 'w' or 'rw'");
    sat_watch **box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = NULL;
    luaL_setmetatable(L, WATCH);
    *box = sat_watch_new(reactor, (int)fd, events, watch_ready, NULL, &err);
    return *box ? 1 : satL_fail(L, &err);
}

static int watch_close(lua_State *L)
{
    sat_watch **box = luaL_checkudata(L, 1, WATCH);
    sat_watch_free(*box);
    *box = NULL;
    return 0;
}

static int now(lua_State *L)
{
    lua_pushnumber(L, sat_now());
    return 1;
}

static int rest(lua_State *L)
{
    sat_rest(luaL_checknumber(L, 1));
    return 0;
}

int satL_open_reactor(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"poll", reactor_poll},   {"fd", reactor_fd},       {"timeout", reactor_timeout},
        {"round", reactor_round}, {"watch", reactor_watch}, {NULL, NULL},
    };
    static const luaL_Reg meta[] = {{"__gc", reactor_gc}, {NULL, NULL}};
    static const luaL_Reg watch_methods[] = {{"close", watch_close}, {NULL, NULL}};
    static const luaL_Reg watch_meta[] = {{"__gc", watch_close}, {"__close", watch_close}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"new", reactor_new}, {"now", now}, {"rest", rest}, {NULL, NULL}};
    satL_class(L, REACTOR, methods, meta);
    satL_class(L, WATCH, watch_methods, watch_meta);
    lua_pop(L, 2);
    luaL_newlib(L, functions);
    return 1;
}
