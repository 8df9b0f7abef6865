#include "random.h"

#include <unistd.h>
#if defined(__APPLE__)
#include <sys/random.h>
#endif

enum { MAX_BYTES = 32 };

bool sat_random_hex(char *text, size_t bytes)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char random[MAX_BYTES];
    if (bytes > MAX_BYTES || getentropy(random, bytes) != 0) return false;
    for (size_t i = 0; i < bytes; i++) {
        text[2 * i] = digits[random[i] >> 4];
        text[2 * i + 1] = digits[random[i] & 15];
    }
    return true;
}
