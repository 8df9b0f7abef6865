#include "http.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_HEADERS = 256 * 1024 };

struct sat_http {
    sat_transfer transfer; /* first: `done` gets a pointer to it */
    sat_reactor *reactor;
    struct curl_slist *headers;
    sat_buf body;
    sat_buf head;
    size_t max_body;
    double timeout;
    bool added;
    bool done;
    bool body_too_long;
    bool head_too_long;
    CURLcode code;
    char text[CURL_ERROR_SIZE];
};

/* ---- callbacks of libcurl: they note what happened and never raise ----------------------------- */

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
    sat_http *request = arg;
    size_t len = size * count;
    if (request->max_body > 0 && len > request->max_body - request->body.len) {
        request->body_too_long = true;
        return 0;
    }
    sat_buf_append(&request->body, data, len);
    return request->body.failed ? 0 : len;
}

static size_t on_header(char *data, size_t size, size_t count, void *arg)
{
    sat_http *request = arg;
    size_t len = size * count;
    /* a new block (after 100 Continue, say) replaces the one before */
    if (len >= 5 && memcmp(data, "HTTP/", 5) == 0) sat_buf_clear(&request->head);
    if (len > MAX_HEADERS - request->head.len) {
        request->head_too_long = true;
        return 0;
    }
    sat_buf_append(&request->head, data, len);
    return request->head.failed ? 0 : len;
}

static void on_done(sat_transfer *transfer, CURLcode code)
{
    sat_http *request = (sat_http *)transfer;
    request->done = true;
    request->code = code;
}

/* ---- start ------------------------------------------------------------------------------------- */

static CURLcode restrict_protocols(CURL *easy)
{
#if LIBCURL_VERSION_NUM >= 0x075500
    return curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    return curl_easy_setopt(easy, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
}

static bool add_header(sat_http *request, const char *line)
{
    struct curl_slist *list = curl_slist_append(request->headers, line);
    if (list == NULL) return false;
    request->headers = list;
    return true;
}

static bool set_headers(sat_http *request, const sat_http_options *options)
{
    bool typed = false;
    for (size_t i = 0; i < options->header_count; i++) {
        if (!add_header(request, options->headers[i])) return false;
        if (strncmp(options->headers[i], "Content-Type:", 13) == 0) typed = true;
    }
    /* libcurl would call every body a web form, and wait for a 100 Continue before a long one */
    if (!typed && !add_header(request, "Content-Type:")) return false;
    return add_header(request, "Expect:");
}

static long milliseconds(double seconds)
{
    if (seconds > 2e6) return 2000000000L;
    return seconds < 1e-3 ? 1L : (long)(seconds * 1e3);
}

#define SET(option, value)                                                                     \
    do {                                                                                       \
        CURLcode code_ = curl_easy_setopt(easy, (option), (value));                            \
        if (code_ != CURLE_OK) return code_;                                                   \
    } while (0)

static CURLcode set_method(CURL *easy, const sat_http_options *options)
{
    const char *method = options->method ? options->method : "GET";
    bool post = strcmp(method, "POST") == 0;
    if (post || options->body != NULL) {
        SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)(options->body ? options->body_len : 0));
        SET(CURLOPT_COPYPOSTFIELDS, options->body ? options->body : "");
    }
    if (!post && strcmp(method, "GET") != 0) SET(CURLOPT_CUSTOMREQUEST, method);
    return CURLE_OK;
}

static CURLcode set_network(CURL *easy, const sat_http_options *options)
{
    SET(CURLOPT_NOSIGNAL, 1L);
    if (options->connect_timeout > 0) SET(CURLOPT_CONNECTTIMEOUT_MS, milliseconds(options->connect_timeout));
    if (options->timeout > 0) SET(CURLOPT_TIMEOUT_MS, milliseconds(options->timeout));
    if (options->ca_file) SET(CURLOPT_CAINFO, options->ca_file);
    if (options->ca_path) SET(CURLOPT_CAPATH, options->ca_path);
    if (options->proxy) SET(CURLOPT_PROXY, options->proxy);
    SET(CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE); /* the token is not the proxy's */
    SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    SET(CURLOPT_TCP_KEEPALIVE, 1L);
    if (options->once) SET(CURLOPT_FRESH_CONNECT, 1L);
    return CURLE_OK;
}

static CURLcode set_options(sat_http *request, const sat_http_options *options)
{
    CURL *easy = request->transfer.easy;
    CURLcode code;
    SET(CURLOPT_ERRORBUFFER, request->text);
    SET(CURLOPT_URL, options->url);
    SET(CURLOPT_HTTPHEADER, request->headers);
    SET(CURLOPT_ACCEPT_ENCODING, "");
    if (options->user_agent) SET(CURLOPT_USERAGENT, options->user_agent);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, request);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, request);
    if ((code = restrict_protocols(easy)) != CURLE_OK) return code;
    if ((code = set_network(easy, options)) != CURLE_OK) return code;
    return set_method(easy, options);
}

sat_http *sat_http_start(sat_reactor *reactor, const sat_http_options *options, sat_error *err)
{
    sat_http *request = calloc(1, sizeof *request);
    if (request == NULL) {
        sat_fail_nomem(err);
        return NULL;
    }
    request->reactor = sat_reactor_retain(reactor);
    request->transfer.done = on_done;
    request->transfer.easy = curl_easy_init();
    request->max_body = options->max_body;
    request->timeout = options->timeout;
    if (request->transfer.easy == NULL || !set_headers(request, options)) {
        sat_http_free(request);
        sat_fail_nomem(err);
        return NULL;
    }
    CURLcode code = set_options(request, options);
    if (code != CURLE_OK) {
        sat_http_free(request);
        sat_fail(err, SAT_MISUSE, "libcurl refused an option of the request: %s", curl_easy_strerror(code));
        return NULL;
    }
    if (sat_transfer_add(reactor, &request->transfer, err) != SAT_OK) {
        sat_http_free(request);
        return NULL;
    }
    request->added = true;
    return request;
}

void sat_http_free(sat_http *request)
{
    if (request == NULL) return;
    if (request->added) sat_transfer_remove(request->reactor, &request->transfer);
    if (request->transfer.easy) curl_easy_cleanup(request->transfer.easy);
    curl_slist_free_all(request->headers);
    sat_buf_free(&request->body);
    sat_buf_free(&request->head);
    sat_reactor_release(request->reactor);
    free(request);
}

/* ---- result ------------------------------------------------------------------------------------ */

bool sat_http_done(const sat_http *request)
{
    return request->done;
}

static sat_status status_of(CURLcode code)
{
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_INTERFACE_FAILED:
    case CURLE_PROXY:
        return SAT_CONNECT;
    case CURLE_OPERATION_TIMEDOUT:
        return SAT_TIMEOUT;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_ENGINE_NOTFOUND:
    case CURLE_SSL_ENGINE_SETFAILED:
    case CURLE_SSL_ENGINE_INITFAILED:
        return SAT_TLS;
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2_STREAM:
        return SAT_CLOSED;
    case CURLE_OUT_OF_MEMORY:
        return SAT_NOMEM;
    default:
        return SAT_PROTOCOL;
    }
}

static sat_status failure(const sat_http *request, sat_error *err)
{
    const char *text = request->text[0] ? request->text : curl_easy_strerror(request->code);
    if (request->body_too_long)
        return sat_fail(err, SAT_LIMIT, "the response is longer than the limit of %zu bytes", request->max_body);
    if (request->head_too_long)
        return sat_fail(err, SAT_LIMIT, "the headers of the response are longer than %d bytes", MAX_HEADERS);
    if (request->body.failed || request->head.failed) return sat_fail_nomem(err);
    return sat_fail(err, status_of(request->code), "%s", text);
}

sat_status sat_http_result(const sat_http *request, sat_http_response *response, sat_error *err)
{
    char *redirect = NULL, *url = NULL;
    if (!request->done) return SAT_AGAIN;
    if (request->code != CURLE_OK) return failure(request, err);
    *response = (sat_http_response){
        .body = request->body.data ? (const char *)request->body.data : "",
        .body_len = request->body.len,
        .headers = request->head.data ? (const char *)request->head.data : "",
        .headers_len = request->head.len,
    };
    curl_easy_getinfo(request->transfer.easy, CURLINFO_RESPONSE_CODE, &response->status);
    curl_easy_getinfo(request->transfer.easy, CURLINFO_REDIRECT_URL, &redirect);
    curl_easy_getinfo(request->transfer.easy, CURLINFO_EFFECTIVE_URL, &url);
    curl_easy_getinfo(request->transfer.easy, CURLINFO_NUM_CONNECTS, &response->new_connections);
    response->redirect = redirect;
    response->url = url ? url : "";
    return SAT_OK;
}

/* ---- URLs -------------------------------------------------------------------------------------- */

static char *part(CURLU *handle, CURLUPart what, unsigned int flags)
{
    char *from = NULL, *copy = NULL;
    if (curl_url_get(handle, what, &from, flags) != CURLUE_OK) return NULL;
    size_t size = strlen(from) + 1;
    copy = malloc(size);
    if (copy) memcpy(copy, from, size);
    curl_free(from);
    return copy;
}

static bool has_part(CURLU *handle, CURLUPart what)
{
    char *from = NULL;
    bool has = curl_url_get(handle, what, &from, 0) == CURLUE_OK;
    curl_free(from);
    return has;
}

static sat_status read_parts(CURLU *handle, sat_url *url, sat_error *err)
{
    url->scheme = part(handle, CURLUPART_SCHEME, 0);
    if (url->scheme && strcmp(url->scheme, "http") != 0 && strcmp(url->scheme, "https") != 0)
        return sat_fail(err, SAT_VALUE, "its scheme is neither http nor https");
    url->host = part(handle, CURLUPART_HOST, 0);
    url->port = part(handle, CURLUPART_PORT, CURLU_DEFAULT_PORT);
    url->path = part(handle, CURLUPART_PATH, 0);
    url->text = part(handle, CURLUPART_URL, 0);
    url->has_user = has_part(handle, CURLUPART_USER) || has_part(handle, CURLUPART_PASSWORD);
    if (!url->scheme || !url->host || !url->port || !url->path || !url->text) return sat_fail_nomem(err);
    return SAT_OK;
}

sat_status sat_url_resolve(const char *base, const char *reference, sat_url *url, sat_error *err)
{
    CURLUcode code;
    *url = (sat_url){NULL, NULL, NULL, NULL, false, NULL};
    CURLU *handle = curl_url();
    if (handle == NULL) return sat_fail_nomem(err);
    code = curl_url_set(handle, CURLUPART_URL, base, 0);
    if (code == CURLUE_OK && reference) code = curl_url_set(handle, CURLUPART_URL, reference, 0);
    sat_status status;
    if (code == CURLUE_OUT_OF_MEMORY)
        status = sat_fail_nomem(err);
    else if (code != CURLUE_OK)
        status = sat_fail(err, SAT_VALUE, "it is not an absolute http or https URL");
    else
        status = read_parts(handle, url, err);
    curl_url_cleanup(handle);
    if (status != SAT_OK) sat_url_free(url);
    return status;
}

void sat_url_free(sat_url *url)
{
    free(url->scheme);
    free(url->host);
    free(url->port);
    free(url->path);
    free(url->text);
    *url = (sat_url){NULL, NULL, NULL, NULL, false, NULL};
}
