#include "digest.h"

#include <openssl/evp.h>
#include <stdlib.h>

struct sat_digest {
    EVP_MD_CTX *context;
    bool good;
};

sat_digest *sat_digest_new(void)
{
    sat_digest *digest = malloc(sizeof *digest);
    if (digest == NULL) return NULL;
    digest->context = EVP_MD_CTX_new();
    if (digest->context == NULL) {
        free(digest);
        return NULL;
    }
    sat_digest_reset(digest);
    return digest;
}

void sat_digest_free(sat_digest *digest)
{
    if (digest == NULL) return;
    EVP_MD_CTX_free(digest->context);
    free(digest);
}

void sat_digest_reset(sat_digest *digest)
{
    digest->good = EVP_DigestInit_ex(digest->context, EVP_sha256(), NULL) == 1;
}

void sat_digest_update(sat_digest *digest, const void *data, size_t len)
{
    if (digest->good && len > 0) digest->good = EVP_DigestUpdate(digest->context, data, len) == 1;
}

void sat_digest_field(sat_digest *digest, char tag, const void *data, size_t len)
{
    uint8_t head[9] = {(uint8_t)tag};
    for (unsigned i = 0; i < 8; i++) head[1 + i] = (uint8_t)((uint64_t)len >> (8 * i));
    sat_digest_update(digest, head, sizeof head);
    sat_digest_update(digest, data, len);
}

bool sat_digest_end(sat_digest *digest, uint8_t out[SAT_DIGEST_SIZE])
{
    unsigned len = 0;
    bool good = digest->good && EVP_DigestFinal_ex(digest->context, out, &len) == 1 && len == SAT_DIGEST_SIZE;
    digest->good = false;
    return good;
}
