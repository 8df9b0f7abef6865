/* The client's stream to the scheduler: registration, the table of wanted keys with their states, and batching.
 *
 * A key is known by its msgpack bytes. sat_session_want gives one reference to a sat_key; when the last goes, the
 * scheduler is told (in batches, before anything that is sent later). Messages are sent at once while nothing is on
 * its way; what comes meanwhile goes together in one list.
 *
 * The session outlives its connection. When that breaks, all keys become SAT_KEY_LOST, unless the session keeps: then
 * it holds its keys on the scheduler under a second name, which no connection stands for, so that they stay there.
 * Its keys stay as they are, ops wait, and after sat_session_connect what the scheduler may not have read is sent
 * again. What it has read is known by echoes: each batch ends with a question that is answered in its turn. */
#ifndef SATURN_SESSION_H
#define SATURN_SESSION_H

#include "comm.h"
#include "graph.h"

typedef struct sat_session sat_session;

typedef enum sat_key_state {
    SAT_KEY_PENDING,
    SAT_KEY_FINISHED,
    SAT_KEY_ERROR,
    SAT_KEY_CANCELLED,
    SAT_KEY_LOST
} sat_key_state;

/* Why a task failed, as it came: two msgpack values of one message. */
typedef struct sat_key_error {
    sat_message *message;
    sat_slice exception;
    sat_slice traceback; /* len 0: none */
} sat_key_error;

typedef struct sat_key {
    struct sat_key *next;         /* in its hash bucket */
    struct sat_key *next_changed; /* in the list of changes */
    sat_session *session;         /* NULL when the session is gone, or the key has begun anew */
    sat_key_error *error;         /* SAT_KEY_ERROR */
    char *reason;                 /* SAT_KEY_CANCELLED, SAT_KEY_LOST: from the scheduler, or NULL */
    uint32_t hash;
    uint32_t refs;
    uint32_t len;
    uint32_t after; /* the probe before whose answer what comes is about an earlier task of this name; 0: none */
    uint16_t type; /* index for sat_session_type; 0: not told */
    uint8_t state;
    bool watched; /* changes are put in the list of changes */
    bool changed; /* stands in it */
    bool listed;  /* still in the table */
    uint8_t name[];
} sat_key;

/* Not connected yet. keep: the name that keys are held under, or NULL. */
sat_session *sat_session_new(const char *keep, sat_error *err);
/* Opens the stream and registers as `id`; an open one is dropped. Retains the reactor. */
sat_status sat_session_connect(sat_session *session, sat_reactor *reactor, const sat_endpoint *endpoint,
                               const sat_limits *limits, const char *id, sat_error *err);
sat_session *sat_session_retain(sat_session *session);
void sat_session_release(sat_session *session);

/* Says goodbye, lets go what is held, and closes for good; all keys become SAT_KEY_LOST with `reason`. Does nothing the
 * second time. */
void sat_session_close(sat_session *session, const char *reason);
/* Gives the connection up, as if it had broken. */
void sat_session_drop(sat_session *session, const char *reason);
/* From now on what is held stays held, after the close as well: somebody else is to take it up. */
void sat_session_detach(sat_session *session);
/* Without a connection: none is hoped for any more, and all keys become SAT_KEY_LOST with `reason`. */
void sat_session_give_up(sat_session *session, const char *reason);

/* SAT_AGAIN until registered, SAT_OK, or why the connection ended. */
sat_status sat_session_state(const sat_session *session, sat_error *err);
/* Everything that was sent has left this process. */
bool sat_session_drained(const sat_session *session);
/* The scheduler has read all that was sent. Only a session that keeps can tell. */
bool sat_session_acknowledged(const sat_session *session);
/* Forgets what would be sent again: the scheduler that comes next does not understand it. */
void sat_session_forget_sent(sat_session *session);
/* When the last message came (sat_now), or the connection was asked for. */
double sat_session_heard(const sat_session *session);

/* One more reference to the key; NULL when out of memory. A key that is not known, or was cancelled or lost, begins
 * anew as pending, without those who hold the old one being told. hold: not if the scheduler does not know it and hears
 * of it by a request of its own. */
sat_key *sat_session_want(sat_session *session, const uint8_t *name, size_t len, bool hold);
void sat_key_release(sat_key *key);
/* Holds a key that sat_session_want was not to hold: only now the scheduler knows it. */
void sat_key_hold(sat_key *key);
/* Sets the state to what this client has asked for. reason may be NULL. */
void sat_key_mark(sat_key *key, sat_key_state state, const char *reason);
sat_key *sat_session_find(sat_session *session, const uint8_t *name, size_t len); /* borrowed, or NULL */
size_t sat_session_count(const sat_session *session);

/* At most `room` keys of the table that are not cancelled or lost, borrowed; returns how many. */
size_t sat_session_keys(sat_session *session, sat_key **keys, size_t room);
/* After a new connection: asks for the results of all keys that are not cancelled or lost. */
sat_status sat_session_desire(sat_session *session, sat_error *err);

/* The name of the Python type of a finished key ("int", "numpy.ndarray"); "" when unknown. */
const char *sat_session_type(const sat_session *session, uint16_t type);

/* The first watched key whose state changed, which the list of them holds. NULL: none. */
sat_key *sat_session_changed(const sat_session *session);
/* Takes that key from the list. */
void sat_session_told(sat_session *session);

/* The next message of the stream that is not about keys (restart, event, ...): *map is one msgpack map of the message,
 * which the caller owns. NULL: none. */
sat_message *sat_session_event(sat_session *session, sat_slice *map);

/* Sends the graph; on failure nothing of it is sent. */
sat_status sat_session_submit(sat_session *session, sat_graph *graph, sat_error *err);
/* Sends one op: a msgpack map, without further frames. */
sat_status sat_session_send(sat_session *session, const uint8_t *map, size_t len, sat_error *err);
/* Sends what waits, if nothing is on its way. */
void sat_session_flush(sat_session *session);

/* Sets every key to this state: the scheduler has forgotten them all (restart, lost connection). */
void sat_session_forget_all(sat_session *session, sat_key_state state, const char *reason);

#endif
