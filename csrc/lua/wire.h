/* C side of the message face: Lua values ↔ Dask messages. */
#ifndef SATURN_LUA_WIRE_H
#define SATURN_LUA_WIRE_H

#include "../core/frame.h"
#include "../core/msgpack.h"
#include "../core/stream.h"
#include "saturn_lua.h"

/* Pushes the value of one msgpack text of `message`. Maps become tables (nil fields are left out unless keep_nil,
 * which makes them saturn.null), bin becomes a string, a serialized value a "saturn.serialized" userdata that decodes
 * on demand. On failure pushes nothing and fills err. May raise out-of-memory: hold no C memory across it. */
sat_status satL_push_msgpack(lua_State *L, sat_message *message, sat_slice text, const sat_limits *limits, int keep_nil,
                             sat_error *err);

/* Packs the value at idx behind out->head, adding frames for serialized values. `out` must live in a userdata
 * (satL_new_outgoing), since this raises misuse errors. */
void satL_pack(lua_State *L, int idx, sat_outgoing *out);

/* Pushes a userdata that owns an empty message. */
sat_outgoing *satL_new_outgoing(lua_State *L);

/* Reads a connection's options at idx: {address=, ca=, cert=, key=, verify_host=, server_name=, proxy=, timeout=},
 * idx being absolute. What is wrong is returned, not raised, and `endpoint` is empty then; else the caller frees it, and
 * calls nothing before that which may raise. */
sat_status satL_read_endpoint(lua_State *L, int idx, sat_endpoint *endpoint, sat_error *err);

#endif
