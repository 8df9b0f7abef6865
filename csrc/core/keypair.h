/* The client's RSA key, its certificate request, and the certificates that come back (libcrypto).
 *
 * A key lives in memory only and is wiped when it is freed. PEM text that holds it is given in a sat_pem, which
 * wipes its bytes too. */
#ifndef SATURN_KEYPAIR_H
#define SATURN_KEYPAIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "status.h"

typedef struct sat_keypair sat_keypair;

/* PEM text; the owner calls sat_pem_free. Zero-initialise it first. */
typedef struct sat_pem {
    char *text;
    size_t len;
} sat_pem;
void sat_pem_free(sat_pem *pem); /* wipes, frees, zeroes */

sat_keypair *sat_keypair_new(sat_error *err); /* RSA, 2048 bits, e = 65537; NULL on failure */
void sat_keypair_free(sat_keypair *pair);     /* NULL is fine */

/* The key as PKCS#1 PEM without a password. */
sat_status sat_keypair_pem(const sat_keypair *pair, sat_pem *pem, sat_error *err);

/* A certificate request for this common name, byte for byte what dask-saturn makes: PKCS#10, SHA-256, and the
 * extensions basicConstraints (critical, empty), extendedKeyUsage (critical, clientAuth) and subjectKeyIdentifier. */
sat_status sat_keypair_request(const sat_keypair *pair, const char *common_name, size_t len, sat_pem *pem,
                               sat_error *err);

/* One certificate of a chain. */
typedef struct sat_certificate {
    sat_pem pem;
    int64_t not_before; /* seconds since 1970 */
    int64_t not_after;
    bool matches; /* its public key is that of the pair */
} sat_certificate;

/* Reads at most `room` certificates from `text` in their order; other blocks and text between them are skipped, and
 * line ends may be CRLF. *count is how many there are, which may be more than `room`. The filled ones are the caller's:
 * sat_pem_free each (on failure there are none). `pair` may be NULL. */
sat_status sat_certificates_read(const char *text, size_t len, const sat_keypair *pair, sat_certificate *out,
                                 size_t room, size_t *count, sat_error *err);

#endif
