/* The key, its request, the chain reader and the reader of secret files, without Lua. */
#include "check.h"

#include "keypair.h"
#include "secret.h"

#include <sys/stat.h>
#include <unistd.h>

static const char name[] = "Dask Client 0123456789abcdef0123456789abcdef";

/* A certificate of a P-256 key, valid from 2026-11-22 for ten years. */
static const char certificate[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBdDCCARmgAwIBAgIUQxCQckd8/qGX5KrYTERPLGXqsAMwCgYIKoZIzj0EAwIw\n"
    "DzENMAsGA1UEAwwEdGVzdDAeFw0yNjExMjIyMDI3MDBaFw0zNjExMTkyMDI3MDBa\n"
    "MA8xDTALBgNVBAMMBHRlc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARtoT95\n"
    "RzRolmR0x3oLdOEctiwaCTzq2R+rXY95mY+Yi/XHChtPfALliiwlmy0WDUY5B2uD\n"
    "U04R34ojbb5qckv6o1MwUTAdBgNVHQ4EFgQUTJDZTQHiBGcngPpVrzYQY9QaRtgw\n"
    "HwYDVR0jBBgwFoAUTJDZTQHiBGcngPpVrzYQY9QaRtgwDwYDVR0TAQH/BAUwAwEB\n"
    "/zAKBggqhkjOPQQDAgNJADBGAiEAr4zRyFa6+6/w0i3F+QUHoP+DcIkddIMKdJxR\n"
    "lrppct8CIQDWsFHA9k5XgQLkEpmpaFKdLeSfFo+dK6Xn5Rrer3y42A==\n"
    "-----END CERTIFICATE-----\n";

static void test_key_and_request(void)
{
    sat_error err;
    sat_pem key = {NULL, 0}, request = {NULL, 0};
    sat_keypair *pair = sat_keypair_new(&err);
    REQUIRE(pair != NULL);
    CHECK_INT(sat_keypair_pem(pair, &key, &err), SAT_OK);
    CHECK(key.text && strncmp(key.text, "-----BEGIN RSA PRIVATE KEY-----\n", 32) == 0);
    CHECK_INT(sat_keypair_request(pair, name, strlen(name), &request, &err), SAT_OK);
    CHECK_UINT(request.len, 1054);
    CHECK(request.text && strncmp(request.text, "-----BEGIN CERTIFICATE REQUEST-----\n", 36) == 0);
    sat_pem_free(&request);
    CHECK_INT(sat_keypair_request(pair, name, 0, &request, &err), SAT_MISUSE);
    CHECK(request.text == NULL);
    sat_pem_free(&key);
    sat_pem_free(&key);
    sat_keypair_free(pair);
    sat_keypair_free(NULL);
}

static void read_chain(const char *text, sat_status want, size_t want_count)
{
    sat_error err;
    size_t count = 99;
    sat_certificate out[2] = {{{NULL, 0}, 0, 0, false}, {{NULL, 0}, 0, 0, false}};
    CHECK_INT(sat_certificates_read(text, strlen(text), NULL, out, 2, &count, &err), want);
    CHECK_UINT(count, want_count);
    for (size_t i = 0; i < 2; i++) {
        CHECK((out[i].pem.text != NULL) == (i < want_count));
        if (out[i].pem.text) CHECK_STR(out[i].pem.text, certificate);
        if (out[i].pem.text) CHECK(out[i].not_after - out[i].not_before == INT64_C(3650) * 86400);
        sat_pem_free(&out[i].pem);
    }
}

static void test_chain(void)
{
    char text[8192];
    read_chain("", SAT_OK, 0);
    read_chain("no PEM", SAT_OK, 0);
    read_chain(certificate, SAT_OK, 1);
    (void)snprintf(text, sizeof text, "subject=x\r\n%s\n\n%stail", certificate, certificate);
    read_chain(text, SAT_OK, 2);
    (void)snprintf(text, sizeof text, "%s%s%s", certificate, certificate, certificate);
    read_chain(text, SAT_OK, 3);
    (void)snprintf(text, sizeof text, "%s-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", certificate);
    read_chain(text, SAT_TLS, 0);
    (void)snprintf(text, sizeof text, "%s-----BEGIN CERTIFICATE-----\nAAAA", certificate);
    read_chain(text, SAT_TLS, 0);
}

static void test_secret(void)
{
    sat_error err;
    sat_secret secret;
    char path[] = "/tmp/saturn-secret-XXXXXX";
    int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    CHECK_INT(write(fd, "token", 5), 5);
    close(fd);
    CHECK_INT(sat_secret_read(path, 5, &secret, &err), SAT_OK);
    CHECK_MEM(secret.data, secret.len, "token", 5);
    sat_secret_free(&secret);
    CHECK_INT(sat_secret_read(path, 4, &secret, &err), SAT_VALUE);
    CHECK(secret.data == NULL);
    CHECK_INT(chmod(path, 0644), 0);
    CHECK_INT(sat_secret_read(path, 100, &secret, &err), SAT_VALUE);
    CHECK(strstr(err.text, "chmod 600") != NULL);
    unlink(path);
    CHECK_INT(sat_secret_read(path, 100, &secret, &err), SAT_VALUE);
    CHECK_INT(sat_secret_read("/", 100, &secret, &err), SAT_VALUE);
}

int main(void)
{
    RUN(test_key_and_request);
    RUN(test_chain);
    RUN(test_secret);
    return check_done();
}
