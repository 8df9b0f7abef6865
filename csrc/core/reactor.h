/* What a Lua state waits on: watched descriptors and one curl multi handle, behind one descriptor and one timer.
 *
 * sat_reactor_poll is the only function of the core that may block, and only as long as it is told to; with
 * timeout 0 it never does. Callbacks run inside it, on the caller's thread, and must not block either.
 * Everything that uses a reactor retains it, so it outlives its last user whatever the order of collection. */
#ifndef SATURN_REACTOR_H
#define SATURN_REACTOR_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>

#include "status.h"

enum { SAT_READ = 1, SAT_WRITE = 2 };

typedef struct sat_reactor sat_reactor;
typedef struct sat_watch sat_watch;
typedef void (*sat_ready_fn)(void *arg, int events);

sat_reactor *sat_reactor_new(sat_error *err); /* one owner; NULL on failure */
sat_reactor *sat_reactor_retain(sat_reactor *reactor);
void sat_reactor_release(sat_reactor *reactor);

/* Readable whenever sat_reactor_poll(0) has something to do; -1 where the system has no such descriptor. */
int sat_reactor_fd(const sat_reactor *reactor);

/* Seconds until sat_reactor_poll must be called even without a ready descriptor; < 0: no need. */
double sat_reactor_timeout(const sat_reactor *reactor);

/* Waits up to `timeout` seconds (< 0: without end) for something to be ready and runs the callbacks.
 * SAT_AGAIN when a signal ended the wait early, so that the host's signal handling gets its turn. */
sat_status sat_reactor_poll(sat_reactor *reactor, double timeout, sat_error *err);

/* Inside a callback: nothing changed that a waiter could see (a part of a message came). sat_reactor_poll then goes on
 * waiting by itself, which for large messages saves its caller many rounds. */
void sat_reactor_quiet(sat_reactor *reactor);

/* Counts the rounds that ran a callback: a waiter that sees the same number need not look again. */
unsigned long sat_reactor_round(const sat_reactor *reactor);

/* Watches a descriptor, which stays the caller's. sat_watch_free may be called inside any callback. */
sat_watch *sat_watch_new(sat_reactor *reactor, int fd, int events, sat_ready_fn ready, void *arg, sat_error *err);
sat_status sat_watch_set(sat_watch *watch, int events, sat_error *err);
/* Calls ready(arg, SAT_READ) in the next round although the descriptor may be silent (bytes held by TLS). */
void sat_watch_again(sat_watch *watch);
void sat_watch_free(sat_watch *watch); /* NULL is fine */

/* A curl transfer on the reactor's multi handle. `done` is called once, unless it is removed before. */
typedef struct sat_transfer {
    CURL *easy;
    void (*done)(struct sat_transfer *transfer, CURLcode code);
} sat_transfer;

sat_status sat_transfer_add(sat_reactor *reactor, sat_transfer *transfer, sat_error *err);
void sat_transfer_remove(sat_reactor *reactor, sat_transfer *transfer); /* easy stays the caller's to clean up */

/* Keeps SIGPIPE from this thread while a TLS library writes. Begin and end pair up around the write. */
typedef struct sat_sigpipe {
    bool was_pending;
    bool was_blocked;
} sat_sigpipe;
void sat_sigpipe_begin(sat_sigpipe *guard);
void sat_sigpipe_end(const sat_sigpipe *guard);

double sat_now(void); /* monotonic seconds */
/* Sleeps, whatever is ready; for sat_reactor_poll's caller, to let small things gather. */
void sat_rest(double seconds);

#endif
