/* HTTP requests on a reactor's curl multi handle: start, wait for done, read the response, free.
 *
 * Connections are kept alive and shared by all requests of one reactor. Redirects are not followed here: the caller
 * sees them, and decides which headers may go where. Nothing is read from the environment but libcurl's own proxy
 * variables (http_proxy, https_proxy, all_proxy, no_proxy), and those not when `proxy` is set. */
#ifndef SATURN_HTTP_H
#define SATURN_HTTP_H

#include <stdbool.h>
#include <stddef.h>

#include "buf.h"
#include "reactor.h"
#include "status.h"

typedef struct sat_http sat_http;

/* Everything is copied by sat_http_start; NULL and 0 mean "as libcurl does", unless said otherwise. */
typedef struct sat_http_options {
    const char *url; /* http or https */
    const char *method;
    const char *const *headers; /* "Name: value"; header_count of them */
    size_t header_count;
    const char *body; /* NULL: none. An empty body is sent with Content-Length: 0 */
    size_t body_len;
    double connect_timeout; /* seconds for name, connection and TLS; 0: libcurl's 300 */
    double timeout;         /* seconds for everything; 0: none */
    const char *ca_file;
    const char *ca_path;
    const char *proxy; /* "" : none, whatever the environment says */
    const char *user_agent;
    bool once;       /* never sent twice: libcurl repeats a request by itself when a kept connection turns out dead */
    size_t max_body; /* bytes of the response's body after decompression; 0: no bound */
} sat_http_options;

/* Owned by the request, valid until it is freed. */
typedef struct sat_http_response {
    long status;
    const char *body;
    size_t body_len;
    const char *headers; /* raw lines of the last header block, CRLF each */
    size_t headers_len;
    const char *redirect; /* absolute URL a 3xx points to, or NULL */
    const char *url;      /* the URL that was asked for */
    long new_connections; /* 0: the request went over a connection that was open already */
} sat_http_response;

/* Starts a request, which retains the reactor. NULL on failure. The caller frees it with sat_http_free. */
sat_http *sat_http_start(sat_reactor *reactor, const sat_http_options *options, sat_error *err);

bool sat_http_done(const sat_http *request);

/* After done: SAT_OK and the response, whatever its status; else why there is none. Before: SAT_AGAIN. */
sat_status sat_http_result(const sat_http *request, sat_http_response *response, sat_error *err);

void sat_http_free(sat_http *request); /* NULL is fine; ends a request that is under way */

/* Parts of an absolute http or https URL. */
typedef struct sat_url {
    char *scheme, *host, *port, *path;
    bool has_user; /* it holds a user name or a password */
    char *text;    /* the whole, normalised */
} sat_url;

/* Resolves `reference` (NULL: none) against `base`. On SAT_OK the parts are the caller's: sat_url_free. */
sat_status sat_url_resolve(const char *base, const char *reference, sat_url *url, sat_error *err);
void sat_url_free(sat_url *url);

#endif
