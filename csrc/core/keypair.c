#include "keypair.h"

#include <limits.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_BITS = 2048, MAX_CERTIFICATES = 64 };

struct sat_keypair {
    EVP_PKEY *key;
};

/* The reason of libcrypto's first error, which it keeps in a queue of the thread; the queue is emptied. */
static sat_status crypto_failed(sat_error *err, const char *what)
{
    unsigned long code = ERR_get_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    ERR_clear_error();
    return sat_fail(err, SAT_TLS, "%s: %s", what, reason ? reason : "libcrypto gives no reason");
}

/* ---- PEM text ---------------------------------------------------------------------------------- */

void sat_pem_free(sat_pem *pem)
{
    if (pem->text) {
        OPENSSL_cleanse(pem->text, pem->len);
        free(pem->text);
    }
    *pem = (sat_pem){NULL, 0};
}

/* Takes the bytes of a memory BIO, which wipes its own copy when it is freed. */
static sat_status take_text(BIO *bio, sat_pem *pem, sat_error *err)
{
    char *data = NULL;
    long len = BIO_get_mem_data(bio, &data);
    if (len <= 0 || data == NULL) return crypto_failed(err, "no PEM text was made");
    pem->text = malloc((size_t)len + 1);
    if (pem->text == NULL) return sat_fail_nomem(err);
    memcpy(pem->text, data, (size_t)len);
    pem->text[len] = '\0';
    pem->len = (size_t)len;
    return SAT_OK;
}

/* ---- the key ----------------------------------------------------------------------------------- */

static EVP_PKEY *generate(void)
{
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_id(EVP_PKEY_RSA, NULL);
    if (context != NULL && EVP_PKEY_keygen_init(context) == 1 &&
        EVP_PKEY_CTX_set_rsa_keygen_bits(context, KEY_BITS) == 1) /* e is 65537 by default */
        (void)EVP_PKEY_keygen(context, &key);
    EVP_PKEY_CTX_free(context);
    return key;
}

sat_keypair *sat_keypair_new(sat_error *err)
{
    sat_keypair *pair = malloc(sizeof *pair);
    if (pair == NULL) {
        sat_fail_nomem(err);
        return NULL;
    }
    pair->key = generate();
    if (pair->key == NULL) {
        crypto_failed(err, "an RSA key could not be made");
        free(pair);
        return NULL;
    }
    return pair;
}

void sat_keypair_free(sat_keypair *pair)
{
    if (pair == NULL) return;
    EVP_PKEY_free(pair->key); /* clears the private numbers */
    free(pair);
}

sat_status sat_keypair_pem(const sat_keypair *pair, sat_pem *pem, sat_error *err)
{
    sat_status status;
    BIO *bio = BIO_new(BIO_s_mem());
    if (bio == NULL) return sat_fail_nomem(err);
    if (PEM_write_bio_PrivateKey_traditional(bio, pair->key, NULL, NULL, 0, NULL, NULL) != 1)
        status = crypto_failed(err, "the key could not be written");
    else
        status = take_text(bio, pem, err);
    BIO_free(bio);
    return status;
}

/* ---- the certificate request ------------------------------------------------------------------- */

static bool add_extension(STACK_OF(X509_EXTENSION) * list, int nid, int critical, const unsigned char *der, int len)
{
    X509_EXTENSION *extension = NULL;
    ASN1_OCTET_STRING *value = ASN1_OCTET_STRING_new();
    bool added = false;
    if (value != NULL && ASN1_OCTET_STRING_set(value, der, len) == 1)
        extension = X509_EXTENSION_create_by_NID(NULL, nid, critical, value);
    if (extension != NULL) added = sk_X509_EXTENSION_push(list, extension) > 0;
    if (!added) X509_EXTENSION_free(extension);
    ASN1_OCTET_STRING_free(value);
    return added;
}

/* SHA-1 over the public key's BIT STRING content, as an OCTET STRING. */
static bool key_identifier(X509_REQ *request, unsigned char out[2 + 20])
{
    const unsigned char *bytes = NULL;
    int len = 0;
    unsigned int digest_len = 0;
    unsigned char digest[EVP_MAX_MD_SIZE];
    if (X509_PUBKEY_get0_param(NULL, &bytes, &len, NULL, X509_REQ_get_X509_PUBKEY(request)) != 1) return false;
    if (EVP_Digest(bytes, (size_t)len, digest, &digest_len, EVP_sha1(), NULL) != 1 || digest_len != 20) return false;
    out[0] = 0x04;
    out[1] = 20;
    memcpy(out + 2, digest, 20);
    return true;
}

static bool add_extensions(X509_REQ *request)
{
    static const unsigned char no_ca[] = {0x30, 0x00};
    static const unsigned char client_auth[] = {0x30, 0x0a, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02};
    unsigned char identifier[22];
    STACK_OF(X509_EXTENSION) *list = sk_X509_EXTENSION_new_null();
    bool done = list != NULL && key_identifier(request, identifier) &&
                add_extension(list, NID_basic_constraints, 1, no_ca, (int)sizeof no_ca) &&
                add_extension(list, NID_ext_key_usage, 1, client_auth, (int)sizeof client_auth) &&
                add_extension(list, NID_subject_key_identifier, 0, identifier, (int)sizeof identifier) &&
                X509_REQ_add_extensions(request, list) == 1;
    sk_X509_EXTENSION_pop_free(list, X509_EXTENSION_free);
    return done;
}

static bool set_subject(X509_REQ *request, const char *common_name, int len)
{
    X509_NAME *name = X509_NAME_new();
    bool done = name != NULL &&
                X509_NAME_add_entry_by_NID(name, NID_commonName, V_ASN1_UTF8STRING, (const unsigned char *)common_name,
                                           len, -1, 0) == 1 &&
                X509_REQ_set_subject_name(request, name) == 1;
    X509_NAME_free(name);
    return done;
}

static bool fill_request(X509_REQ *request, EVP_PKEY *key, const char *common_name, int len)
{
    return X509_REQ_set_version(request, 0) == 1 && set_subject(request, common_name, len) &&
           X509_REQ_set_pubkey(request, key) == 1 && add_extensions(request) &&
           X509_REQ_sign(request, key, EVP_sha256()) > 0;
}

sat_status sat_keypair_request(const sat_keypair *pair, const char *common_name, size_t len, sat_pem *pem,
                               sat_error *err)
{
    sat_status status;
    if (len == 0 || len > INT_MAX / 2) return sat_fail(err, SAT_MISUSE, "a common name needs 1 to 2^30 bytes");
    X509_REQ *request = X509_REQ_new();
    BIO *bio = BIO_new(BIO_s_mem());
    if (request == NULL || bio == NULL)
        status = sat_fail_nomem(err);
    else if (!fill_request(request, pair->key, common_name, (int)len) || PEM_write_bio_X509_REQ(bio, request) != 1)
        status = crypto_failed(err, "the certificate request could not be made");
    else
        status = take_text(bio, pem, err);
    X509_REQ_free(request);
    BIO_free(bio);
    return status;
}

/* ---- certificates ------------------------------------------------------------------------------ */

static bool seconds_of(const ASN1_TIME *time, int64_t *out)
{
    int days = 0, seconds = 0;
    ASN1_TIME *epoch = ASN1_TIME_set(NULL, 0);
    bool done = epoch != NULL && ASN1_TIME_diff(&days, &seconds, epoch, time) == 1;
    ASN1_TIME_free(epoch);
    *out = (int64_t)days * 86400 + seconds;
    return done;
}

static sat_status keep_certificate(X509 *x509, const sat_keypair *pair, sat_certificate *out, sat_error *err)
{
    sat_status status;
    BIO *bio = BIO_new(BIO_s_mem());
    if (bio == NULL) return sat_fail_nomem(err);
    *out = (sat_certificate){{NULL, 0}, 0, 0, false};
    if (!seconds_of(X509_get0_notBefore(x509), &out->not_before) ||
        !seconds_of(X509_get0_notAfter(x509), &out->not_after) || PEM_write_bio_X509(bio, x509) != 1)
        status = crypto_failed(err, "a certificate of the chain is malformed");
    else
        status = take_text(bio, &out->pem, err);
    if (status == SAT_OK && pair != NULL) out->matches = X509_check_private_key(x509, pair->key) == 1;
    ERR_clear_error();
    BIO_free(bio);
    return status;
}

static bool is_certificate(const char *name)
{
    return strcmp(name, PEM_STRING_X509) == 0 || strcmp(name, PEM_STRING_X509_OLD) == 0;
}

/* The next block of any kind. SAT_EOF when there is none. */
static sat_status next_block(BIO *bio, char **name, unsigned char **der, long *len, sat_error *err)
{
    char *header = NULL;
    if (PEM_read_bio(bio, name, &header, der, len) == 1) {
        OPENSSL_free(header);
        return SAT_OK;
    }
    unsigned long code = ERR_peek_last_error();
    if (ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE) {
        ERR_clear_error();
        return SAT_EOF;
    }
    return crypto_failed(err, "the certificate chain is malformed");
}

static sat_status read_block(const char *name, const unsigned char *der, long len, const sat_keypair *pair,
                             sat_certificate *out, size_t room, size_t *count, sat_error *err)
{
    sat_status status = SAT_OK;
    if (!is_certificate(name)) return SAT_OK;
    if (*count >= MAX_CERTIFICATES)
        return sat_fail(err, SAT_LIMIT, "the chain holds more than %d certificates", MAX_CERTIFICATES);
    X509 *x509 = d2i_X509(NULL, &der, len);
    if (x509 == NULL) return crypto_failed(err, "a certificate of the chain is malformed");
    if (*count < room) status = keep_certificate(x509, pair, &out[*count], err);
    if (status == SAT_OK) (*count)++;
    X509_free(x509);
    return status;
}

sat_status sat_certificates_read(const char *text, size_t len, const sat_keypair *pair, sat_certificate *out,
                                 size_t room, size_t *count, sat_error *err)
{
    sat_status status;
    *count = 0;
    if (len > INT_MAX) return sat_fail(err, SAT_LIMIT, "the certificate chain is longer than 2 GiB");
    if (len == 0) return SAT_OK;
    BIO *bio = BIO_new_mem_buf(text, (int)len);
    if (bio == NULL) return sat_fail_nomem(err);
    do {
        char *name = NULL;
        unsigned char *der = NULL;
        long der_len = 0;
        status = next_block(bio, &name, &der, &der_len, err);
        if (status == SAT_OK) status = read_block(name, der, der_len, pair, out, room, count, err);
        OPENSSL_free(name);
        OPENSSL_free(der);
    } while (status == SAT_OK);
    BIO_free(bio);
    if (status == SAT_EOF) return SAT_OK;
    for (size_t i = 0; i < room && i < *count; i++) sat_pem_free(&out[i].pem);
    *count = 0;
    return status;
}
