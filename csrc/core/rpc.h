/* A pool of comms to one server. Each carries one request at a time, in order; a request that is given up takes its
 * comm with it, since the late reply would be taken for the next one. */
#ifndef SATURN_RPC_H
#define SATURN_RPC_H

#include "comm.h"

typedef struct sat_rpc sat_rpc;
typedef struct sat_call sat_call;

/* Connects with the first call. The endpoint is copied, the reactor retained. */
sat_rpc *sat_rpc_new(sat_reactor *reactor, const sat_endpoint *endpoint, const sat_limits *limits, sat_error *err);
sat_rpc *sat_rpc_retain(sat_rpc *rpc);
void sat_rpc_release(sat_rpc *rpc); /* calls under way retain it */
/* Closes all comms; calls under way end with SAT_CLOSED and the reason, new ones are refused. */
void sat_rpc_close(sat_rpc *rpc, const char *reason);

/* Sends a request (its contents are taken, also on failure). With `ack` the reply is confirmed by a bare "OK", as a
 * worker's get_data wants it. */
sat_call *sat_rpc_call(sat_rpc *rpc, sat_outgoing *request, bool ack, sat_error *err);

/* SAT_OK: sat_call_reply has the reply; SAT_AGAIN; else why it failed. */
sat_status sat_call_state(const sat_call *call, sat_error *err);
sat_message *sat_call_reply(const sat_call *call); /* borrowed */
void sat_call_free(sat_call *call);                /* NULL is fine */

#endif
