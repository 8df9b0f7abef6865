#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

/* Where a send cannot ask for it, libcurl has set the socket to raise no SIGPIPE. */
#if defined(MSG_NOSIGNAL)
#define NO_SIGNAL MSG_NOSIGNAL
#else
#define NO_SIGNAL 0
#endif

/* A peer that is gone without a word is noticed after half a minute, as Dask's own servers do. */
enum { KEEP_IDLE = 10, KEEP_INTERVAL = 5, KEEP_COUNT = 4, UNSENT_MILLISECONDS = 30000 };

struct sat_stream {
    sat_transfer transfer;
    sat_reactor *reactor;
    sat_watch *watch; /* NULL until connected */
    sat_ready_fn ready;
    void *arg;
    struct curl_slist *resolve;
    bool tls;
    curl_socket_t socket; /* closed here; CURL_SOCKET_BAD until connected */
    curl_socket_t plain; /* read and written directly: libcurl would hand on small pieces; CURL_SOCKET_BAD with TLS or a proxy */
    bool heard; /* the peer has sent something; told of TLS only */
    sat_status state;
    sat_error failure;
    char name[300]; /* for messages: scheme://host:port */
};

/* ---- endpoints -------------------------------------------------------------------------------- */

sat_status sat_copy_text(const char *text, size_t len, char **to)
{
    *to = malloc(len + 1);
    if (*to == NULL) return SAT_NOMEM;
    memcpy(*to, text, len);
    (*to)[len] = '\0';
    return SAT_OK;
}

static sat_status bad_address(const char *address, sat_error *err)
{
    return sat_fail(err, SAT_CONNECT, "'%.200s' is not a scheduler address: expected tcp://host:port or tls://host:port",
                    address);
}

static sat_status parse_port(const char *text, int *port)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (end == text || *end != '\0' || value < 1 || value > 65535) return SAT_CONNECT;
    *port = (int)value;
    return SAT_OK;
}

sat_status sat_endpoint_parse(sat_endpoint *endpoint, const char *address, sat_error *err)
{
    bool tls = strncasecmp(address, "tls://", 6) == 0;
    if (!tls && strncasecmp(address, "tcp://", 6) != 0) return bad_address(address, err);
    const char *host = address + 6;
    const char *colon = strrchr(host, ':');
    if (colon == NULL || colon == host || parse_port(colon + 1, &endpoint->port) != SAT_OK)
        return bad_address(address, err);
    size_t len = (size_t)(colon - host);
    if (len > 2 && host[0] == '[' && host[len - 1] == ']') {
        host++;
        len -= 2;
    }
    if (len > 255 || strcspn(host, "/@?#") < len) return bad_address(address, err);
    endpoint->tls = tls;
    return sat_copy_text(host, len, &endpoint->host) == SAT_OK ? SAT_OK : sat_fail_nomem(err);
}

static bool copy_member(char **to, const char *from)
{
    *to = NULL;
    return from == NULL || sat_copy_text(from, strlen(from), to) == SAT_OK;
}

sat_status sat_endpoint_copy(sat_endpoint *to, const sat_endpoint *from, sat_error *err)
{
    memset(to, 0, sizeof *to);
    to->port = from->port;
    to->tls = from->tls;
    to->verify_host = from->verify_host;
    to->connect_timeout = from->connect_timeout;
    if (copy_member(&to->host, from->host) && copy_member(&to->ca_pem, from->ca_pem) &&
        copy_member(&to->cert_pem, from->cert_pem) && copy_member(&to->key_pem, from->key_pem) &&
        copy_member(&to->server_name, from->server_name) && copy_member(&to->proxy, from->proxy))
        return SAT_OK;
    sat_endpoint_free(to);
    return sat_fail_nomem(err);
}

void sat_endpoint_free(sat_endpoint *endpoint)
{
    if (endpoint->key_pem) OPENSSL_cleanse(endpoint->key_pem, strlen(endpoint->key_pem));
    free(endpoint->host);
    free(endpoint->ca_pem);
    free(endpoint->cert_pem);
    free(endpoint->key_pem);
    free(endpoint->server_name);
    free(endpoint->proxy);
    memset(endpoint, 0, sizeof *endpoint);
}

/* ---- connecting ------------------------------------------------------------------------------- */

static sat_status curl_failure(sat_stream *stream, CURLcode code, sat_error *err)
{
    const char *why = curl_easy_strerror(code);
    long verify = 0;
    switch (code) {
    case CURLE_OPERATION_TIMEDOUT:
        return sat_fail(err, SAT_TIMEOUT, "%s did not answer in time: is the address right and reachable from here?",
                        stream->name);
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return sat_fail(err, SAT_CONNECT, "%s: the host name cannot be resolved", stream->name);
    case CURLE_COULDNT_CONNECT:
        return sat_fail(err, SAT_CONNECT, "%s refused the connection: is a scheduler running there?", stream->name);
    case CURLE_PEER_FAILED_VERIFICATION:
        curl_easy_getinfo(stream->transfer.easy, CURLINFO_SSL_VERIFYRESULT, &verify);
        return sat_fail(err, SAT_TLS, "%s: its certificate is not signed by the given CA (code %ld): pass the CA of this "
                                      "cluster as tls.ca", stream->name, verify);
    case CURLE_SSL_CERTPROBLEM:
        return sat_fail(err, SAT_TLS, "%s: the client certificate or key cannot be used: check tls.cert and tls.key",
                        stream->name);
    case CURLE_SSL_CACERT_BADFILE:
        return sat_fail(err, SAT_TLS, "%s: tls.ca is not a PEM certificate", stream->name);
    case CURLE_SSL_CONNECT_ERROR:
        return sat_fail(err, SAT_TLS, "%s: no TLS connection: does the scheduler listen on tls, and is the host name the "
                                      "one it is known by?", stream->name);
    case CURLE_OUT_OF_MEMORY:
        return sat_fail_nomem(err);
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
        return sat_fail(err, SAT_CONNECT, "%s is not an address that can be connected to", stream->name);
    default:
        return sat_fail(err, stream->state == SAT_OK ? SAT_CLOSED : SAT_CONNECT, "%s: %s", stream->name, why);
    }
}

static void watch_ready(void *arg, int events)
{
    sat_stream *stream = arg;
    stream->ready(stream->arg, events);
}

static void connected(sat_transfer *transfer, CURLcode code)
{
    sat_stream *stream = (sat_stream *)(void *)transfer;
    curl_socket_t socket = CURL_SOCKET_BAD;
    if (code != CURLE_OK) {
        stream->state = curl_failure(stream, code, &stream->failure);
    } else if (curl_easy_getinfo(transfer->easy, CURLINFO_ACTIVESOCKET, &socket) != CURLE_OK ||
               socket == CURL_SOCKET_BAD) {
        stream->state = sat_fail(&stream->failure, SAT_CONNECT, "%s: the connection was lost at once", stream->name);
    } else {
        stream->socket = socket;
        if (stream->plain != CURL_SOCKET_BAD) stream->plain = socket;
        stream->watch = sat_watch_new(stream->reactor, socket, SAT_READ, watch_ready, stream, &stream->failure);
        stream->state = stream->watch ? SAT_OK : stream->failure.status;
    }
    stream->ready(stream->arg, SAT_READ | SAT_WRITE);
}

static CURLcode set_pem(CURL *easy, CURLoption option, const char *pem)
{
    if (pem == NULL) return CURLE_OK;
    struct curl_blob blob = {.data = (void *)(uintptr_t)pem, .len = strlen(pem), .flags = CURL_BLOB_COPY};
    return curl_easy_setopt(easy, option, &blob);
}

static CURLcode set_tls(CURL *easy, const sat_endpoint *endpoint)
{
    CURLcode code = curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, endpoint->verify_host ? 2L : 0L);
    if (!code) code = curl_easy_setopt(easy, CURLOPT_SSL_ENABLE_ALPN, 0L);
    if (!code) code = curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (!code && endpoint->ca_pem) {
        /* the given CA is to be the only one: without this the system's directory is trusted as well */
        (void)curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
        (void)curl_easy_setopt(easy, CURLOPT_CAINFO, NULL);
        code = set_pem(easy, CURLOPT_CAINFO_BLOB, endpoint->ca_pem);
    }
    if (!code) code = set_pem(easy, CURLOPT_SSLCERT_BLOB, endpoint->cert_pem);
    if (!code) code = set_pem(easy, CURLOPT_SSLKEY_BLOB, endpoint->key_pem);
    return code;
}

/* SNI is the host of the URL; another server name is put there and resolved to the real host. */
static CURLcode set_url(sat_stream *stream, const sat_endpoint *endpoint)
{
    char url[600];
    char route[700];
    const char *host = endpoint->server_name ? endpoint->server_name : endpoint->host;
    bool v6 = strchr(host, ':') != NULL;
    snprintf(url, sizeof url, "%s://%s%.255s%s:%d", endpoint->tls ? "https" : "http", v6 ? "[" : "", host, v6 ? "]" : "",
             endpoint->port);
    if (endpoint->server_name) {
        bool to_v6 = strchr(endpoint->host, ':') != NULL;
        snprintf(route, sizeof route, "::%s%.255s%s:%d", to_v6 ? "[" : "", endpoint->host, to_v6 ? "]" : "", endpoint->port);
        stream->resolve = curl_slist_append(NULL, route);
        if (stream->resolve == NULL) return CURLE_OUT_OF_MEMORY;
        CURLcode code = curl_easy_setopt(stream->transfer.easy, CURLOPT_CONNECT_TO, stream->resolve);
        if (code) return code;
    }
    return curl_easy_setopt(stream->transfer.easy, CURLOPT_URL, url);
}

/* libcurl closes what it takes for an idle connection that died, and a stream is one to it. The number must not go to
 * another connection while it is watched here. */
static int close_socket(void *arg, curl_socket_t socket)
{
    const sat_stream *stream = arg;
    return socket == stream->socket ? 0 : close(socket);
}

/* Best effort: a socket without these works. */
static int tune_socket(void *arg, curl_socket_t socket, curlsocktype purpose)
{
    int count = KEEP_COUNT, unsent = UNSENT_MILLISECONDS;
    (void)arg;
    (void)purpose;
    (void)fcntl(socket, F_SETFD, FD_CLOEXEC); /* a child process would keep the connection open */
#ifdef TCP_KEEPCNT
    (void)setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
#endif
#ifdef TCP_USER_TIMEOUT
    (void)setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &unsent, sizeof unsent);
#endif
    (void)count;
    (void)unsent;
    return CURL_SOCKOPT_OK;
}

static CURLcode set_socket(sat_stream *stream)
{
    CURL *easy = stream->transfer.easy;
    CURLcode code = curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    if (!code) code = curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, (long)KEEP_IDLE);
    if (!code) code = curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, (long)KEEP_INTERVAL);
    if (!code) code = curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, tune_socket);
    if (!code) code = curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, close_socket);
    if (!code) code = curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, stream);
    return code;
}

static CURLcode set_options(sat_stream *stream, const sat_endpoint *endpoint)
{
    CURL *easy = stream->transfer.easy;
    long timeout = (long)(endpoint->connect_timeout * 1e3);
    CURLcode code = set_url(stream, endpoint);
    if (!code) code = curl_easy_setopt(easy, CURLOPT_CONNECT_ONLY, 1L);
    if (!code) code = curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    if (!code) code = set_socket(stream);
    if (!code) code = curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
    if (!code) code = curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, timeout > 0 ? timeout : 30000L);
    /* a Dask comm is no HTTP: only a proxy that was asked for, and then as a tunnel */
    if (!code) code = curl_easy_setopt(easy, CURLOPT_PROXY, endpoint->proxy ? endpoint->proxy : "");
    if (!code) code = curl_easy_setopt(easy, CURLOPT_HTTPPROXYTUNNEL, endpoint->proxy ? 1L : 0L);
    if (!code && endpoint->tls) code = set_tls(easy, endpoint);
    return code;
}

sat_stream *sat_stream_open(sat_reactor *reactor, const sat_endpoint *endpoint, sat_ready_fn ready, void *arg,
                            sat_error *err)
{
    sat_stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL) {
        sat_fail_nomem(err);
        return NULL;
    }
    snprintf(stream->name, sizeof stream->name, "%s://%.255s:%d", endpoint->tls ? "tls" : "tcp", endpoint->host,
             endpoint->port);
    stream->reactor = sat_reactor_retain(reactor);
    stream->ready = ready;
    stream->arg = arg;
    stream->tls = endpoint->tls;
    stream->socket = CURL_SOCKET_BAD;
    stream->plain = endpoint->tls || endpoint->proxy ? CURL_SOCKET_BAD : 0; /* known once connected */
    stream->state = SAT_AGAIN;
    stream->transfer.done = connected;
    stream->transfer.easy = curl_easy_init();
    CURLcode code = stream->transfer.easy ? set_options(stream, endpoint) : CURLE_OUT_OF_MEMORY;
    if (code) {
        (void)curl_failure(stream, code, err);
        sat_stream_free(stream);
        return NULL;
    }
    if (sat_transfer_add(reactor, &stream->transfer, err) != SAT_OK) {
        sat_stream_free(stream);
        return NULL;
    }
    return stream;
}

void sat_stream_free(sat_stream *stream)
{
    if (stream == NULL) return;
    sat_watch_free(stream->watch);
    if (stream->transfer.easy) {
        sat_sigpipe guard;
        sat_transfer_remove(stream->reactor, &stream->transfer);
        sat_sigpipe_begin(&guard);
        curl_easy_cleanup(stream->transfer.easy);
        sat_sigpipe_end(&guard);
    }
    if (stream->socket != CURL_SOCKET_BAD) close(stream->socket);
    curl_slist_free_all(stream->resolve);
    sat_reactor_release(stream->reactor);
    free(stream);
}

/* ---- bytes ------------------------------------------------------------------------------------ */

sat_status sat_stream_state(const sat_stream *stream, sat_error *err)
{
    if (stream->state != SAT_OK && stream->state != SAT_AGAIN && err != NULL) *err = stream->failure;
    return stream->state;
}

const char *sat_stream_name(const sat_stream *stream)
{
    return stream->name;
}

static sat_status transfer_failed(sat_stream *stream, CURLcode code, sat_error *err)
{
    /* with TLS 1.3 the server looks at the client's certificate after the handshake, so its refusal comes here */
    if (stream->tls && !stream->heard)
        return sat_fail(err, SAT_TLS, "%s closed the TLS connection: it wants a certificate that it accepts; pass one as "
                                      "tls.cert and tls.key", stream->name);
    return sat_fail(err, SAT_CLOSED, "the connection to %s was lost: %s", stream->name, curl_easy_strerror(code));
}

bool sat_stream_drained_by(const sat_stream *stream, size_t asked, size_t got)
{
    return stream->plain != CURL_SOCKET_BAD && got < asked;
}

static sat_status socket_failed(const sat_stream *stream, sat_error *err)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return SAT_AGAIN;
    return sat_fail(err, SAT_CLOSED, "the connection to %s was lost: %s", stream->name, strerror(errno));
}

static sat_status plain_recv(const sat_stream *stream, void *data, size_t len, size_t *got, sat_error *err)
{
    ssize_t n = recv(stream->plain, data, len, 0);
    if (n < 0) return socket_failed(stream, err);
    *got = (size_t)n;
    return n > 0 ? SAT_OK : SAT_EOF;
}

static sat_status plain_send(const sat_stream *stream, const void *data, size_t len, size_t *sent, sat_error *err)
{
    ssize_t n = send(stream->plain, data, len, NO_SIGNAL);
    if (n < 0) return socket_failed(stream, err);
    *sent = (size_t)n;
    return SAT_OK;
}

sat_status sat_stream_recv(sat_stream *stream, void *data, size_t len, size_t *got, sat_error *err)
{
    if (stream->plain != CURL_SOCKET_BAD) return plain_recv(stream, data, len, got, err);
    CURLcode code = curl_easy_recv(stream->transfer.easy, data, len, got);
    if (code == CURLE_AGAIN) return SAT_AGAIN;
    if (code != CURLE_OK) return transfer_failed(stream, code, err);
    stream->heard = stream->heard || *got > 0;
    return *got > 0 ? SAT_OK : SAT_EOF;
}

sat_status sat_stream_send(sat_stream *stream, const void *data, size_t len, size_t *sent, sat_error *err)
{
    sat_sigpipe guard;
    if (stream->plain != CURL_SOCKET_BAD) return plain_send(stream, data, len, sent, err);
    sat_sigpipe_begin(&guard);
    CURLcode code = curl_easy_send(stream->transfer.easy, data, len, sent);
    sat_sigpipe_end(&guard);
    if (code == CURLE_AGAIN) return SAT_AGAIN;
    if (code != CURLE_OK) return transfer_failed(stream, code, err);
    return SAT_OK;
}

sat_status sat_stream_want_write(sat_stream *stream, bool want, sat_error *err)
{
    if (stream->watch == NULL) return SAT_OK;
    return sat_watch_set(stream->watch, want ? SAT_READ | SAT_WRITE : SAT_READ, err);
}

void sat_stream_quiet(sat_stream *stream)
{
    sat_reactor_quiet(stream->reactor);
}

void sat_stream_again(sat_stream *stream)
{
    if (stream->watch) sat_watch_again(stream->watch);
}
