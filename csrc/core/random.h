/* Random names that nobody else has. */
#ifndef SATURN_RANDOM_H
#define SATURN_RANDOM_H

#include <stdbool.h>
#include <stddef.h>

/* 2 * bytes hexadecimal digits (no terminator) of good randomness; at most 32 bytes. False when there is none. */
bool sat_random_hex(char *text, size_t bytes);

#endif
