/* C side of the pickle codec, for the faces that embed pickles in messages and graphs. */
#ifndef SATURN_LUA_PICKLE_H
#define SATURN_LUA_PICKLE_H

#include "../core/pickle.h"
#include "saturn_lua.h"

/* How a value that stands for a task's result (a Future, a delayed) is written: the dialect of the scheduler decides.
 * All functions are C and raise no Lua error; NULL hooks make such a value a SAT_VALUE error. */
typedef struct satL_ref_hooks {
    /* 1 when the value at idx is a reference */
    int (*is_ref)(lua_State *L, int idx, void *arg);
    /* writes the reference at idx and notes the dependency */
    sat_status (*write_ref)(lua_State *L, int idx, sat_pickler *out, void *arg, sat_error *err);
    /* true: containers that hold a reference at any depth are written between these two instead of as plain
     * literals (dask._task_spec.List and the like). kind is 'l' list, 't' tuple, 's' set, 'd' dict. Between them
     * stand the bare items, of a dict key, value, key, value. */
    int wraps;
    void (*wrap_begin)(sat_pickler *out, char kind, void *arg);
    void (*wrap_end)(sat_pickler *out, char kind, void *arg);
    void *arg;
} satL_ref_hooks;

/* Writes the value at idx (no PROTO, no STOP). Out-of-band: when `oob` of the pickler is on, large contiguous arrays are
 * referred to instead of copied. A py.kw at idx itself is written as a dict. A py.fn is refused when there are hooks,
 * for in a graph it would run where the graph is unpickled.
 * Never leaves anything on the Lua stack; raises no Lua error but out-of-memory (the pickler's memory must live in a
 * userdata). On failure part of the value is in the output: sat_pickle_tell before, sat_pickle_rollback after. */
sat_status satL_pickle_value(lua_State *L, int idx, sat_pickler *out, const satL_ref_hooks *hooks, sat_error *err);

/* Reads one whole pickle and pushes its value. `pickle.block` (may be NULL) and the buffers let arrays share the
 * received bytes. On failure pushes nothing and fills err. */
sat_status satL_unpickle(lua_State *L, sat_slice pickle, const sat_slice *buffers, size_t nbuffers,
                         const sat_limits *limits, sat_error *err);

#endif
