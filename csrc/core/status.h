/* Status codes and error text shared by the whole core.
 *
 * A function that can fail returns a sat_status and, on anything but SAT_OK, SAT_AGAIN and SAT_EOF,
 * fills the sat_error it was given (which may be NULL). Nothing in the core aborts, prints or exits. */
#ifndef SATURN_STATUS_H
#define SATURN_STATUS_H

typedef enum sat_status {
    SAT_OK = 0,   /* done */
    SAT_AGAIN,    /* nothing to do now: wait for the descriptor and call again */
    SAT_EOF,      /* the peer closed in an orderly way, or the input is used up */
    SAT_NOMEM,    /* an allocation failed */
    SAT_PROTOCOL, /* bytes that break the wire format */
    SAT_LIMIT,    /* well-formed, but larger than a limit; the text names the limit */
    SAT_CONNECT,  /* could not connect */
    SAT_TLS,      /* TLS handshake or certificate */
    SAT_TIMEOUT,  /* a deadline passed */
    SAT_CLOSED,   /* the connection was lost or is closed */
    SAT_VALUE,    /* a value that cannot be converted */
    SAT_CANCELLED, /* refers to a task that was cancelled */
    SAT_LOST,     /* refers to a result that is lost */
    SAT_MISUSE    /* the caller broke the contract of the function */
} sat_status;

typedef struct sat_error {
    sat_status status;
    char text[512]; /* one sentence, no secret in it */
} sat_error;

#if defined(__GNUC__)
#define SAT_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define SAT_PRINTF(fmt, args)
#endif

/* Sets *err (when not NULL) and returns status, so that a caller can `return sat_fail(...)`. */
sat_status sat_fail(sat_error *err, sat_status status, const char *format, ...) SAT_PRINTF(3, 4);

/* sat_fail with SAT_NOMEM and the standard text. */
sat_status sat_fail_nomem(sat_error *err);

/* The public error kind ("connect", "protocol", "limit", ...) of a status; a static string. */
const char *sat_status_kind(sat_status status);

#endif
