#include "random.h"

#include <openssl/rand.h>

enum { MAX_BYTES = 32 };

bool sat_random_hex(char *text, size_t bytes)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char random[MAX_BYTES];
    if (bytes > MAX_BYTES || RAND_bytes(random, (int)bytes) != 1) return false;
    for (size_t i = 0; i < bytes; i++) {
        text[2 * i] = digits[random[i] >> 4];
        text[2 * i + 1] = digits[random[i] & 15];
    }
    return true;
}
