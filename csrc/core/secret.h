/* Reading a file that holds a secret. */
#ifndef SATURN_SECRET_H
#define SATURN_SECRET_H

#include <stddef.h>

#include "status.h"

typedef struct sat_secret {
    char *data;
    size_t len;
} sat_secret;

/* Reads the whole file of at most `limit` bytes into *out (sat_secret_free). Refuses a regular file that the group or
 * others may read or write, with the chmod to run in the text: SAT_VALUE, as for every failure but SAT_NOMEM. The
 * check is made on the open file, so that it cannot be exchanged in between. */
sat_status sat_secret_read(const char *path, size_t limit, sat_secret *out, sat_error *err);
void sat_secret_free(sat_secret *secret); /* wipes, frees, zeroes */

#endif
