/* Bytes of the unit tests written as hexadecimal digits; blanks between them are for the reader. */
#ifndef SATURN_TEST_BYTES_H
#define SATURN_TEST_BYTES_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"

static inline int digit_(char c)
{
    const char *digits = "0123456789abcdef";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* Appends the bytes that the digits say. */
static inline void bytes_hex(sat_buf *buf, const char *text)
{
    int high = -1;
    for (; *text; text++) {
        int value = digit_(*text);
        if (value < 0) continue;
        if (high < 0) {
            high = value;
        } else {
            sat_buf_u8(buf, (uint8_t)(high << 4 | value));
            high = -1;
        }
    }
}

/* A copy of exactly len bytes, so that a tool sees a step too far. Free it. */
static inline uint8_t *bytes_exact(const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    if (copy && len) memcpy(copy, data, len);
    return copy;
}

#endif
