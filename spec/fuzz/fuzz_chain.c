/* The reader of certificate chains. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "keypair.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sat_error err;
    size_t count;
    sat_certificate out[2] = {{{NULL, 0}, 0, 0, false}, {{NULL, 0}, 0, 0, false}};
    sat_status status = sat_certificates_read((const char *)data, size, NULL, out, 2, &count, &err);
    for (size_t i = 0; i < 2; i++) {
        if ((out[i].pem.text != NULL) != (status == SAT_OK && i < count)) abort();
        sat_pem_free(&out[i].pem);
    }
    return 0;
}
