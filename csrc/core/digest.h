/* SHA-256 of a value that is fed in pieces. */
#ifndef SATURN_DIGEST_H
#define SATURN_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SAT_DIGEST_SIZE = 32 };

typedef struct sat_digest sat_digest;

sat_digest *sat_digest_new(void); /* NULL when out of memory */
void sat_digest_free(sat_digest *digest); /* NULL is fine */

/* Starts anew. The first failure of this and the next sticks until the next reset; sat_digest_end tells. */
void sat_digest_reset(sat_digest *digest);
void sat_digest_update(sat_digest *digest, const void *data, size_t len);
/* A tag, the length and the bytes, so that no two sequences of fields are the same bytes. */
void sat_digest_field(sat_digest *digest, char tag, const void *data, size_t len);
bool sat_digest_end(sat_digest *digest, uint8_t out[SAT_DIGEST_SIZE]);

#endif
