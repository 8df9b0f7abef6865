/* One conversation with a Dask server: connection, handshake, messages both ways.
 *
 * The handshake is sent together with what is queued first: the server reads it before anything else, so nothing
 * waits for its answer. It announces no compression, so values come as they are, and pickle protocol 5, so that the
 * memory of arrays and frames comes beside the pickles and is copied by nobody. */
#ifndef SATURN_COMM_H
#define SATURN_COMM_H

#include "frame.h"
#include "stream.h"

typedef struct sat_comm sat_comm;

/* All are called inside sat_reactor_poll and may free the comm. */
typedef struct sat_comm_handler {
    void (*message)(void *arg, sat_message *message); /* borrowed: retain to keep */
    void (*drained)(void *arg);                       /* all that was queued has left; may be NULL */
    void (*closed)(void *arg, const sat_error *why);  /* once; nothing is called after it */
    void *arg;
} sat_comm_handler;

sat_comm *sat_comm_open(sat_reactor *reactor, const sat_endpoint *endpoint, const sat_limits *limits,
                        const sat_comm_handler *handler, sat_error *err);
void sat_comm_free(sat_comm *comm);

/* Takes the contents of `out` (left empty, also on failure) and sends as much as fits; the rest goes in later rounds.
 * A connection found broken here is reported by `closed` in the next round. */
sat_status sat_comm_send(sat_comm *comm, sat_outgoing *out, sat_error *err);

bool sat_comm_connected(const sat_comm *comm); /* the handshake was answered */
bool sat_comm_idle(const sat_comm *comm);      /* nothing waits to be sent */
void sat_comm_wake(sat_comm *comm);            /* calls `drained` in the next round */

#endif
