/* A non-blocking byte stream, tcp or tls, on libcurl's CONNECT_ONLY. */
#ifndef SATURN_STREAM_H
#define SATURN_STREAM_H

#include "reactor.h"

/* Where and how to connect. Strings are copied by whoever keeps the struct; PEM texts live in memory only. */
typedef struct sat_endpoint {
    char *host; /* name or address; IPv6 without brackets */
    int port;
    bool tls;
    bool verify_host; /* Dask never checks the name in the certificate; off unless asked for */
    char *ca_pem;     /* the only trust anchor; NULL: the system's */
    char *cert_pem;
    char *key_pem;
    char *server_name; /* SNI when it is not `host` */
    char *proxy;
    double connect_timeout; /* seconds */
} sat_endpoint;

/* "tcp://host:port" or "tls://host:port" into an empty endpoint. sat_endpoint_free wipes the key. */
sat_status sat_endpoint_parse(sat_endpoint *endpoint, const char *address, sat_error *err);
sat_status sat_endpoint_copy(sat_endpoint *to, const sat_endpoint *from, sat_error *err);
void sat_endpoint_free(sat_endpoint *endpoint);
/* A copy of `len` characters with a terminator into *to: SAT_OK or SAT_NOMEM. */
sat_status sat_copy_text(const char *text, size_t len, char **to);

typedef struct sat_stream sat_stream;

/* Starts to connect. `ready(arg, events)` is called when the stream is connected, has bytes, has room after a
 * SAT_AGAIN from send, or has failed; never after sat_stream_free. The stream retains the reactor. */
sat_stream *sat_stream_open(sat_reactor *reactor, const sat_endpoint *endpoint, sat_ready_fn ready, void *arg,
                            sat_error *err);
void sat_stream_free(sat_stream *stream); /* closes */

/* SAT_OK connected, SAT_AGAIN still connecting, else why it failed. */
sat_status sat_stream_state(const sat_stream *stream, sat_error *err);

const char *sat_stream_name(const sat_stream *stream); /* scheme://host:port */

/* Whether less than `asked` means that nothing more is there now; with TLS it does not. */
bool sat_stream_drained_by(const sat_stream *stream, size_t asked, size_t got);

/* SAT_OK and *got > 0; SAT_AGAIN; SAT_EOF when the peer closed; else an error. */
sat_status sat_stream_recv(sat_stream *stream, void *data, size_t len, size_t *got, sat_error *err);
sat_status sat_stream_send(sat_stream *stream, const void *data, size_t len, size_t *sent, sat_error *err);

/* Whether to be called when there is room to write. */
sat_status sat_stream_want_write(sat_stream *stream, bool want, sat_error *err);
/* Inside `ready`: see sat_reactor_quiet. */
void sat_stream_quiet(sat_stream *stream);
/* Come back in the next round: bytes may be left although the descriptor is silent. */
void sat_stream_again(sat_stream *stream);

#endif
