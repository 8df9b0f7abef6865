#include "session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_BUCKETS = 64, MAX_TYPES = 4096, LIST_HEADER = 5, DESIRE_BATCH = 10000 };

typedef struct event {
    struct event *next;
    sat_message *message;
    sat_slice map;
} event;

/* A batch that the scheduler may not have read yet: what is needed to send it again. */
typedef struct sent {
    struct sent *next;
    uint64_t number; /* the echo that says it was read */
    sat_outgoing batch;
    size_t ops;
} sent;

struct sat_session {
    size_t refs;
    sat_comm *comm; /* NULL: no connection */
    bool registered;
    bool closed; /* for good */
    bool keeps; /* goes on without a connection */
    char *keep; /* the name keys are held under, or NULL */
    sat_buf echo; /* keeps: the msgpack key that echoes ask for */
    uint64_t asked, echoed; /* echoes on this connection */
    sent *sent_first, *sent_last;
    /* What the scheduler has yet to say of a key that was released while it was pending must not be taken for that of the
     * next task of its name: behind such releases goes a probe, a question whose answer tells what came before it. */
    sat_buf probe; /* the msgpack key that probes ask for */
    uint32_t probes, answered; /* on this connection */
    bool loose; /* a key that was pending is among the releases */
    double heard;
    sat_error failure;
    sat_key **buckets;
    size_t nbuckets;
    size_t count;
    sat_outgoing batch; /* head: a list header of fixed size, then the ops */
    size_t ops;
    sat_buf releases; /* msgpack keys to be released, sent before any later op */
    size_t nreleases;
    sat_buf holds; /* msgpack keys to be held, likewise; one of the two is empty */
    size_t nholds;
    sat_key **fresh; /* keys of the last graph, referred to until the caller had time to do so */
    size_t nfresh;
    sat_key *changed_first, *changed_last;
    event *event_first, *event_last;
    char **types; /* names by index; 0 is "" */
    size_t ntypes;
};

/* ---- keys --------------------------------------------------------------------------------------- */

static uint32_t hash_bytes(const uint8_t *data, size_t len)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < len; i++) hash = (hash ^ data[i]) * 16777619u;
    return hash;
}

static sat_key **find_link(const sat_session *session, const uint8_t *name, size_t len, uint32_t hash)
{
    sat_key **link = &session->buckets[hash & (session->nbuckets - 1)];
    while (*link && !((*link)->hash == hash && (*link)->len == len && memcmp((*link)->name, name, len) == 0))
        link = &(*link)->next;
    return link;
}

static void grow_table(sat_session *session)
{
    size_t nbuckets = session->nbuckets * 2;
    sat_key **buckets = calloc(nbuckets, sizeof *buckets);
    if (buckets == NULL) return; /* longer chains are not wrong */
    for (size_t i = 0; i < session->nbuckets; i++) {
        sat_key *next;
        for (sat_key *key = session->buckets[i]; key; key = next) {
            next = key->next;
            key->next = buckets[key->hash & (nbuckets - 1)];
            buckets[key->hash & (nbuckets - 1)] = key;
        }
    }
    free(session->buckets);
    session->buckets = buckets;
    session->nbuckets = nbuckets;
}

sat_key *sat_session_find(sat_session *session, const uint8_t *name, size_t len)
{
    return *find_link(session, name, len, hash_bytes(name, len));
}

static void unlist(sat_session *session, sat_key *key)
{
    sat_key **link = find_link(session, key->name, key->len, key->hash);
    if (*link == key) {
        *link = key->next;
        session->count--;
    }
    key->listed = false;
}

/* New keys have no future: the scheduler will not hear of them. */
static bool hopeless(const sat_session *session)
{
    return session->closed || (session->comm == NULL && !session->keeps);
}

/* The probe that a key begun now comes after. */
static uint32_t last_probe(const sat_session *session)
{
    if (session->comm && session->loose) return session->probes + 1;
    return session->answered < session->probes ? session->probes : 0;
}

static sat_key *want(sat_session *session, const uint8_t *name, size_t len, bool *begun)
{
    *begun = false;
    if (len > UINT32_MAX) return NULL;
    uint32_t hash = hash_bytes(name, len);
    sat_key *key = *find_link(session, name, len, hash);
    if (key && !hopeless(session) && (key->state == SAT_KEY_CANCELLED || key->state == SAT_KEY_LOST)) {
        unlist(session, key);
        key->session = NULL;
        key = NULL;
    }
    if (key) {
        key->refs++;
        return key;
    }
    if (session->count >= session->nbuckets) grow_table(session);
    key = calloc(1, sizeof *key + len);
    if (key == NULL) return NULL;
    memcpy(key->name, name, len);
    key->len = (uint32_t)len;
    key->hash = hash;
    key->refs = 1;
    key->session = session;
    key->state = SAT_KEY_PENDING;
    key->after = last_probe(session);
    key->listed = true;
    if (hopeless(session)) key->state = SAT_KEY_LOST;
    sat_key **link = find_link(session, name, len, hash);
    key->next = *link;
    *link = key;
    session->count++;
    *begun = true;
    return key;
}

static void batch_releases(sat_session *session);
static void batch_holds(sat_session *session);

static void wake(sat_session *session)
{
    if (session->comm) sat_comm_wake(session->comm);
}

static void queue_hold(sat_session *session, const sat_key *key)
{
    if (!session->keeps || session->closed) return;
    batch_releases(session);
    sat_buf_append(&session->holds, key->name, key->len);
    if (session->holds.failed) {
        session->holds.failed = false; /* not held: it ends with this connection */
        return;
    }
    session->nholds++;
    wake(session);
}

sat_key *sat_session_want(sat_session *session, const uint8_t *name, size_t len, bool hold)
{
    bool begun;
    sat_key *key = want(session, name, len, &begun);
    if (begun && hold) queue_hold(session, key);
    if (begun && !hold) key->after = 0; /* a request makes it known, which may overtake the probe */
    return key;
}

void sat_key_hold(sat_key *key)
{
    if (key->session && key->listed) queue_hold(key->session, key);
}

static void clear_error(sat_key *key)
{
    if (key->error) {
        sat_message_release(key->error->message);
        free(key->error);
        key->error = NULL;
    }
    free(key->reason);
    key->reason = NULL;
}

static void queue_release(sat_session *session, const sat_key *key)
{
    if (hopeless(session)) return;
    batch_holds(session);
    sat_buf_append(&session->releases, key->name, key->len);
    if (session->releases.failed) {
        session->releases.failed = false; /* not told: the scheduler keeps the result until the client closes */
        return;
    }
    session->nreleases++;
    session->loose = session->loose || key->state == SAT_KEY_PENDING;
    wake(session);
}

void sat_key_release(sat_key *key)
{
    if (key == NULL || --key->refs > 0) return;
    sat_session *session = key->session;
    if (session && key->listed) {
        unlist(session, key);
        queue_release(session, key);
    }
    clear_error(key);
    free(key);
}

size_t sat_session_count(const sat_session *session)
{
    return session->count;
}

static void set_state(sat_session *session, sat_key *key, sat_key_state state)
{
    if (state != SAT_KEY_ERROR && (key->error || key->reason)) clear_error(key);
    key->state = (uint8_t)state;
    if (!key->watched || key->changed) return;
    key->changed = true;
    key->refs++;
    key->next_changed = NULL;
    if (session->changed_last)
        session->changed_last->next_changed = key;
    else
        session->changed_first = key;
    session->changed_last = key;
}

sat_key *sat_session_changed(const sat_session *session)
{
    return session->changed_first;
}

void sat_session_told(sat_session *session)
{
    sat_key *key = session->changed_first;
    session->changed_first = key->next_changed;
    if (session->changed_first == NULL) session->changed_last = NULL;
    key->changed = false;
    sat_key_release(key);
}

static void set_reason(sat_key *key, const void *text, size_t len)
{
    free(key->reason);
    key->reason = len ? malloc(len + 1) : NULL;
    if (key->reason == NULL) return;
    memcpy(key->reason, text, len);
    key->reason[len] = '\0';
}

void sat_key_mark(sat_key *key, sat_key_state state, const char *reason)
{
    if (key->session == NULL) return;
    set_state(key->session, key, state);
    if (reason) set_reason(key, reason, strlen(reason));
}

static bool desirable(const sat_key *key)
{
    return key->state != SAT_KEY_CANCELLED && key->state != SAT_KEY_LOST;
}

void sat_session_forget_all(sat_session *session, sat_key_state state, const char *reason)
{
    for (size_t i = 0; i < session->nbuckets; i++)
        for (sat_key *key = session->buckets[i]; key; key = key->next) {
            if (!desirable(key)) continue;
            set_state(session, key, state);
            if (reason) set_reason(key, reason, strlen(reason));
        }
}

size_t sat_session_keys(sat_session *session, sat_key **keys, size_t room)
{
    size_t found = 0;
    for (size_t i = 0; i < session->nbuckets; i++)
        for (sat_key *key = session->buckets[i]; key && found < room; key = key->next)
            if (desirable(key)) keys[found++] = key;
    return found;
}

/* The keys of a connection that is gone are nothing to the next one. */
static void unlist_all(sat_session *session)
{
    for (size_t i = 0; i < session->nbuckets; i++) {
        for (sat_key *key = session->buckets[i]; key; key = key->next) {
            key->listed = false;
            key->session = NULL;
        }
        session->buckets[i] = NULL;
    }
    session->count = 0;
}

/* ---- types -------------------------------------------------------------------------------------- */

const char *sat_session_type(const sat_session *session, uint16_t type)
{
    return session && type < session->ntypes && session->types[type] ? session->types[type] : "";
}

static uint16_t intern_type(sat_session *session, const char *name)
{
    for (size_t i = 1; i < session->ntypes; i++)
        if (strcmp(session->types[i], name) == 0) return (uint16_t)i;
    if (session->ntypes >= MAX_TYPES) return 0;
    char **types = realloc(session->types, (session->ntypes + 2) * sizeof *types);
    if (types == NULL) return 0;
    session->types = types;
    if (session->ntypes == 0) types[session->ntypes++] = NULL;
    char *copy = malloc(strlen(name) + 1);
    if (copy == NULL) return 0;
    types[session->ntypes] = strcpy(copy, name);
    return (uint16_t)session->ntypes++;
}

/* The pickle of a class is a module and a name; one made of source (by cloudpickle) is not, and stays unnamed. */
static uint16_t read_type(sat_session *session, const sat_mp_token *token)
{
    sat_pickle_scan scan;
    sat_pickle_op op, module = {.len = 0}, name = {.len = 0};
    char text[160];
    sat_pickle_scan_init(&scan, token->as.bytes.data, token->as.bytes.len, NULL);
    for (int i = 0; i < 8 && sat_pickle_next(&scan, &op, NULL) == SAT_OK; i++) {
        if (op.kind == SAT_PK_STR) {
            module = name;
            name = op;
        } else if (op.kind == SAT_PK_GLOBAL) {
            module = op;
            name = (sat_pickle_op){.data = op.data2, .len = op.len2};
            break;
        } else if (op.kind != SAT_PK_MEMOIZE && op.kind != SAT_PK_PUT) {
            break;
        }
    }
    if (name.len == 0 || name.len > 70 || module.len > 70) return 0;
    bool builtin = module.len == 8 && memcmp(module.data, "builtins", 8) == 0;
    if (module.len == 0 || builtin)
        snprintf(text, sizeof text, "%.*s", (int)name.len, (const char *)name.data);
    else
        snprintf(text, sizeof text, "%.*s.%.*s", (int)module.len, (const char *)module.data, (int)name.len,
                 (const char *)name.data);
    return intern_type(session, text);
}

/* ---- incoming ----------------------------------------------------------------------------------- */

/* The fields of one stream message that the session itself reads. */
typedef struct fields {
    sat_mp_token op;
    sat_slice key;
    sat_slice keys;
    sat_slice exception;
    sat_slice traceback;
    sat_mp_token type;
    sat_mp_token reason;
    sat_mp_token msg;
    sat_mp_token error;
} fields;

static bool is_text(const sat_mp_token *token)
{
    return token->type == SAT_MP_STR;
}

typedef struct short_text {
    const char *data;
    int len;
} short_text;

/* At most 190 bytes of a text; nothing of anything else. */
static short_text text_of(const sat_mp_token *token)
{
    if (!is_text(token)) return (short_text){"", 0};
    return (short_text){(const char *)token->as.bytes.data, token->as.bytes.len < 190 ? (int)token->as.bytes.len : 190};
}

static sat_status read_field(sat_mp *scan, fields *found, sat_error *err)
{
    sat_mp_token name, token = {.type = SAT_MP_NIL};
    sat_slice value;
    sat_status status = sat_mp_next(scan, &name, err);
    if (status == SAT_OK) status = sat_mp_value(scan, &value, err);
    if (status != SAT_OK) return status == SAT_EOF ? sat_fail(err, SAT_PROTOCOL, "a stream message is cut off") : status;
    sat_mp inner = sat_mp_over(value.data, value.len);
    (void)sat_mp_next(&inner, &token, NULL);
    if (sat_mp_is(&name, "op"))
        found->op = token;
    else if (sat_mp_is(&name, "key"))
        found->key = value;
    else if (sat_mp_is(&name, "keys"))
        found->keys = value;
    else if (sat_mp_is(&name, "exception"))
        found->exception = value;
    else if (sat_mp_is(&name, "traceback") && token.type != SAT_MP_NIL)
        found->traceback = value;
    else if (sat_mp_is(&name, "type"))
        found->type = token;
    else if (sat_mp_is(&name, "reason"))
        found->reason = token;
    else if (sat_mp_is(&name, "msg"))
        found->msg = token;
    else if (sat_mp_is(&name, "error"))
        found->error = token;
    return SAT_OK;
}

/* "reason: msg", of which either may be missing; the scheduler's word for no reason is none. */
static void set_cancel_reason(sat_key *key, const fields *found)
{
    char text[400];
    short_text reason = text_of(&found->reason), msg = text_of(&found->msg);
    if (reason.len == 7 && memcmp(reason.data, "unknown", 7) == 0) reason.len = 0;
    int len = snprintf(text, sizeof text, "%.*s%s%.*s", reason.len, reason.data, reason.len && msg.len ? ": " : "", msg.len,
                       msg.data);
    if (len > 0) set_reason(key, text, (size_t)len < sizeof text ? (size_t)len : sizeof text - 1);
}

static void free_sent(sat_session *session)
{
    sent *first = session->sent_first;
    session->sent_first = first->next;
    if (session->sent_first == NULL) session->sent_last = NULL;
    sat_outgoing_free(&first->batch);
    free(first);
}

static void echoed(sat_session *session)
{
    session->echoed++;
    while (session->sent_first && session->sent_first->number <= session->echoed) free_sent(session);
}

/* The key that a message is about, unless that is an earlier task of its name. */
static sat_key *find_key(sat_session *session, sat_slice name)
{
    sat_key *key = name.len ? sat_session_find(session, name.data, name.len) : NULL;
    return key && key->after > session->answered ? NULL : key;
}

static bool is_name(sat_slice name, const sat_buf *other)
{
    return other->len > 0 && name.len == other->len && memcmp(name.data, other->data, name.len) == 0;
}

static void cancel_key(sat_session *session, sat_slice name, const fields *found)
{
    if (session->keeps && is_name(name, &session->echo)) {
        echoed(session);
        return;
    }
    if (is_name(name, &session->probe)) {
        session->answered++;
        return;
    }
    sat_key *key = find_key(session, name);
    if (key == NULL) return;
    if (key->state == SAT_KEY_CANCELLED && key->reason) return; /* this client did it, and knows best why */
    set_state(session, key, SAT_KEY_CANCELLED);
    set_cancel_reason(key, found);
}

/* keys: a list, or {"__Set__": true, "as-list": [...]} */
static void cancel_keys(sat_session *session, const fields *found)
{
    sat_mp scan = sat_mp_over(found->keys.data, found->keys.len);
    sat_mp_token token;
    sat_slice name;
    if (found->keys.len == 0 || sat_mp_next(&scan, &token, NULL) != SAT_OK) return;
    if (token.type == SAT_MP_MAP) {
        for (size_t i = token.as.count; i > 0; i--) {
            sat_mp_token field;
            if (sat_mp_next(&scan, &field, NULL) != SAT_OK) return;
            if (sat_mp_is(&field, "as-list")) break;
            if (sat_mp_skip(&scan, NULL) != SAT_OK) return;
        }
        if (sat_mp_next(&scan, &token, NULL) != SAT_OK) return;
    }
    if (token.type != SAT_MP_ARRAY) return;
    for (size_t i = 0; i < token.as.count && sat_mp_value(&scan, &name, NULL) == SAT_OK; i++)
        cancel_key(session, name, found);
}

static sat_status task_erred(sat_session *session, sat_key *key, sat_message *message, const fields *found, sat_error *err)
{
    sat_key_error *error = calloc(1, sizeof *error);
    if (error == NULL) return sat_fail_nomem(err);
    clear_error(key);
    error->message = sat_message_retain(message);
    error->exception = found->exception;
    error->traceback = found->traceback;
    key->error = error;
    set_state(session, key, SAT_KEY_ERROR);
    return SAT_OK;
}

static sat_status queue_event(sat_session *session, sat_message *message, sat_slice map, sat_error *err)
{
    event *fresh = malloc(sizeof *fresh);
    if (fresh == NULL) return sat_fail_nomem(err);
    *fresh = (event){NULL, sat_message_retain(message), map};
    if (session->event_last)
        session->event_last->next = fresh;
    else
        session->event_first = fresh;
    session->event_last = fresh;
    return SAT_OK;
}

sat_message *sat_session_event(sat_session *session, sat_slice *map)
{
    event *first = session->event_first;
    if (first == NULL) return NULL;
    sat_message *message = first->message;
    *map = first->map;
    session->event_first = first->next;
    if (session->event_first == NULL) session->event_last = NULL;
    free(first);
    return message;
}

static sat_status stream_started(sat_session *session, const fields *found, sat_error *err)
{
    if (is_text(&found->error) && found->error.as.bytes.len > 0)
        return sat_fail(err, SAT_CONNECT, "the scheduler refused the client: %.*s", (int)found->error.as.bytes.len,
                        (const char *)found->error.as.bytes.data);
    session->registered = true;
    return SAT_OK;
}

static sat_status handle_key(sat_session *session, sat_message *message, const fields *found, bool *known, sat_error *err)
{
    sat_key *key = find_key(session, found->key);
    *known = true;
    if (key && key->state == SAT_KEY_CANCELLED) key = NULL; /* it stays so; what comes was on its way */
    if (sat_mp_is(&found->op, "key-in-memory")) {
        if (key == NULL) return SAT_OK;
        if (found->type.type == SAT_MP_BIN) key->type = read_type(session, &found->type);
        if (key->state != SAT_KEY_FINISHED) set_state(session, key, SAT_KEY_FINISHED);
    } else if (sat_mp_is(&found->op, "task-erred")) {
        return key ? task_erred(session, key, message, found, err) : SAT_OK;
    } else if (sat_mp_is(&found->op, "lost-data")) {
        if (key) set_state(session, key, SAT_KEY_PENDING);
    } else if (sat_mp_is(&found->op, "task-retried")) {
        if (key) set_state(session, key, SAT_KEY_PENDING);
    } else if (sat_mp_is(&found->op, "cancelled-key")) {
        cancel_key(session, found->key, found);
    } else if (sat_mp_is(&found->op, "cancelled-keys")) {
        cancel_keys(session, found);
    } else {
        *known = false;
    }
    return SAT_OK;
}

static sat_status handle_map(sat_session *session, sat_message *message, sat_slice map, size_t pairs, sat_mp *scan,
                             sat_error *err)
{
    fields found;
    bool known = false;
    memset(&found, 0, sizeof found);
    for (size_t i = 0; i < pairs; i++) {
        sat_status status = read_field(scan, &found, err);
        if (status != SAT_OK) return status;
    }
    map.len = (size_t)(scan->pos - map.data);
    sat_status status = handle_key(session, message, &found, &known, err);
    if (known || status != SAT_OK) return status;
    if (sat_mp_is(&found.op, "stream-start")) return stream_started(session, &found, err);
    if (sat_mp_is(&found.op, "restart"))
        sat_session_forget_all(session, SAT_KEY_CANCELLED, "the scheduler was restarted");
    if (is_text(&found.op)) return queue_event(session, message, map, err);
    return SAT_OK;
}

static sat_status handle_message(sat_session *session, sat_message *message, sat_error *err)
{
    sat_mp scan = sat_mp_over(message->frames[0].data, message->frames[0].len);
    sat_mp_token token;
    size_t count = 1;
    sat_slice map = {NULL, scan.pos, 0};
    sat_status status = sat_mp_next(&scan, &token, err);
    bool list = status == SAT_OK && token.type == SAT_MP_ARRAY;
    if (list) count = token.as.count;
    for (size_t i = 0; i < count && status == SAT_OK; i++) {
        if (list) {
            map.data = scan.pos;
            status = sat_mp_next(&scan, &token, err);
        }
        if (status == SAT_OK && token.type != SAT_MP_MAP)
            status = sat_fail(err, SAT_PROTOCOL, "a stream message is not a map");
        if (status == SAT_OK) status = handle_map(session, message, map, token.as.count, &scan, err);
    }
    return status == SAT_EOF ? sat_fail(err, SAT_PROTOCOL, "a stream message is empty") : status;
}

/* ---- the stream --------------------------------------------------------------------------------- */

static void release_fresh(sat_session *session)
{
    size_t count = session->nfresh;
    sat_key **fresh = session->fresh;
    session->fresh = NULL;
    session->nfresh = 0;
    for (size_t i = 0; i < count; i++) sat_key_release(fresh[i]);
    free(fresh);
}

/* Nothing that was put off will be sent. */
static void forget_unsent(sat_session *session)
{
    sat_outgoing_free(&session->batch);
    session->ops = 0;
    sat_buf_free(&session->releases);
    session->nreleases = 0;
    sat_buf_free(&session->holds);
    session->nholds = 0;
    sat_session_forget_sent(session);
}

static void end(sat_session *session, const sat_error *why)
{
    if (session->comm == NULL) return;
    session->failure = *why;
    session->registered = false;
    sat_comm_free(session->comm);
    session->comm = NULL;
    if (session->keeps) return;
    sat_session_forget_all(session, SAT_KEY_LOST, why->text);
    forget_unsent(session);
}

static void on_message(void *arg, sat_message *message)
{
    sat_session *session = arg;
    sat_error err;
    session->heard = sat_now();
    sat_status status = handle_message(session, message, &err);
    if (status != SAT_OK) end(session, &err);
}

static void on_drained(void *arg)
{
    release_fresh(arg);
    sat_session_flush(arg);
}

static void on_closed(void *arg, const sat_error *why)
{
    end(arg, why);
}

static sat_status send_registration(sat_session *session, const char *id, sat_error *err)
{
    sat_outgoing out;
    msgpack_packer packer;
    sat_outgoing_init(&out);
    sat_mp_packer(&packer, &out.head);
    msgpack_pack_map(&packer, 4);
    sat_mp_pack_text(&packer, "op");
    sat_mp_pack_text(&packer, "register-client");
    sat_mp_pack_text(&packer, "client");
    sat_mp_pack_text(&packer, id);
    sat_mp_pack_text(&packer, "reply");
    msgpack_pack_false(&packer);
    sat_mp_pack_text(&packer, "versions");
    msgpack_pack_map(&packer, 0);
    return sat_comm_send(session->comm, &out, err);
}

static void pack_keys_op(sat_buf *buf, const char *op, const char *client, size_t count, const sat_buf *keys)
{
    msgpack_packer packer;
    sat_mp_packer(&packer, buf);
    msgpack_pack_map(&packer, client ? 3 : 2);
    sat_mp_pack_text(&packer, "op");
    sat_mp_pack_text(&packer, op);
    if (client) {
        sat_mp_pack_text(&packer, "client");
        sat_mp_pack_text(&packer, client);
    }
    sat_mp_pack_text(&packer, "keys");
    msgpack_pack_array(&packer, count);
    if (keys) sat_buf_append(buf, keys->data, keys->len);
}

/* The name exists on the scheduler once it wants something, even nothing; before that, a release in it would be an error
 * that ends the stream. */
static sat_status send_keep(sat_session *session, sat_error *err)
{
    sat_outgoing out;
    sat_outgoing_init(&out);
    pack_keys_op(&out.head, "client-desires-keys", session->keep, 0, NULL);
    return sat_comm_send(session->comm, &out, err);
}

static bool copy_outgoing(sat_outgoing *to, const sat_outgoing *from)
{
    bool ok = true;
    sat_outgoing_init(to);
    sat_buf_append(&to->head, from->head.data, from->head.len);
    for (size_t i = 0; i < from->count && ok; i++) ok = sat_outgoing_frame(to, from->frames[i]) > 0;
    if (ok && !to->head.failed) return true;
    sat_outgoing_free(to);
    return false;
}

/* Asks for a key that no task has: the answer, that it is cancelled, says that all before was read. */
static void pack_question(sat_buf *buf, const sat_buf *key)
{
    msgpack_packer packer;
    sat_mp_packer(&packer, buf);
    msgpack_pack_map(&packer, 2);
    sat_mp_pack_text(&packer, "op");
    sat_mp_pack_text(&packer, "report-key");
    sat_mp_pack_text(&packer, "key");
    sat_buf_append(buf, key->data, key->len);
}

/* Sends a batch, which has room for its number of ops. One that may have to be sent again ends with an echo. */
static sat_status transmit(sat_session *session, sat_outgoing *batch, size_t ops, sat_error *err)
{
    if (session->keeps) {
        pack_question(&batch->head, &session->echo);
        session->asked++;
        ops++;
    }
    for (unsigned i = 0; i < 4 && !batch->head.failed; i++)
        batch->head.data[1 + i] = (uint8_t)(ops >> (24 - 8 * i));
    return sat_comm_send(session->comm, batch, err);
}

/* Without memory for it the batch is not sent again, which is no worse than without keeping. */
static void remember(sat_session *session, const sat_outgoing *batch, size_t ops)
{
    sent *entry = calloc(1, sizeof *entry);
    if (entry == NULL || !copy_outgoing(&entry->batch, batch)) {
        free(entry);
        return;
    }
    entry->ops = ops;
    entry->number = session->asked + 1;
    if (session->sent_last)
        session->sent_last->next = entry;
    else
        session->sent_first = entry;
    session->sent_last = entry;
}

static sat_status send_again(sat_session *session, sat_error *err)
{
    sat_status status = SAT_OK;
    for (sent *each = session->sent_first; each && status == SAT_OK; each = each->next) {
        sat_outgoing copy;
        each->number = session->asked + 1;
        status = copy_outgoing(&copy, &each->batch) ? transmit(session, &copy, each->ops, err) : sat_fail_nomem(err);
    }
    return status;
}

void sat_session_forget_sent(sat_session *session)
{
    while (session->sent_first) free_sent(session);
}

/* A key that no task has. It is of this connection: an answer of the last one may still come. */
static sat_status name_question(sat_buf *name, const char *prefix, const char *id, sat_error *err)
{
    msgpack_packer packer;
    sat_buf_clear(name);
    sat_mp_packer(&packer, name);
    msgpack_pack_str(&packer, strlen(prefix) + strlen(id));
    msgpack_pack_str_body(&packer, prefix, strlen(prefix));
    msgpack_pack_str_body(&packer, id, strlen(id));
    return name->failed ? sat_fail_nomem(err) : SAT_OK;
}

static sat_status begin_probing(sat_session *session, const char *id, sat_error *err)
{
    session->probes = session->answered = 0;
    session->loose = false;
    for (size_t i = 0; i < session->nbuckets; i++)
        for (sat_key *key = session->buckets[i]; key; key = key->next) key->after = 0;
    return name_question(&session->probe, "saturn-probe-", id, err);
}

static sat_status begin_keeping(sat_session *session, const char *id, sat_error *err)
{
    session->asked = session->echoed = 0;
    sat_status status = name_question(&session->echo, "saturn-echo-", id, err);
    if (status == SAT_OK && session->keep) status = send_keep(session, err);
    return status == SAT_OK ? send_again(session, err) : status;
}

sat_session *sat_session_new(const char *keep, sat_error *err)
{
    sat_session *session = calloc(1, sizeof *session);
    sat_key **buckets = calloc(FIRST_BUCKETS, sizeof *buckets);
    bool ok = session && buckets && (keep == NULL || sat_copy_text(keep, strlen(keep), &session->keep) == SAT_OK);
    if (!ok) {
        free(session);
        free(buckets);
        sat_fail_nomem(err);
        return NULL;
    }
    session->refs = 1;
    session->keeps = keep != NULL;
    session->buckets = buckets;
    session->nbuckets = FIRST_BUCKETS;
    sat_outgoing_init(&session->batch);
    (void)sat_fail(&session->failure, SAT_CLOSED, "the client is not connected");
    return session;
}

sat_status sat_session_connect(sat_session *session, sat_reactor *reactor, const sat_endpoint *endpoint,
                               const sat_limits *limits, const char *id, sat_error *err)
{
    sat_comm_handler handler = {on_message, on_drained, on_closed, session};
    if (session->closed) return sat_fail(err, SAT_CLOSED, "%s", session->failure.text);
    sat_session_drop(session, "a new connection is made");
    if (!session->keeps) unlist_all(session);
    session->keeps = session->keep != NULL;
    session->heard = sat_now();
    session->comm = sat_comm_open(reactor, endpoint, limits, &handler, &session->failure);
    sat_status status = session->comm ? send_registration(session, id, &session->failure) : session->failure.status;
    if (status == SAT_OK) status = begin_probing(session, id, &session->failure);
    if (status == SAT_OK && session->keeps) status = begin_keeping(session, id, &session->failure);
    if (status == SAT_OK) return SAT_OK;
    if (err) *err = session->failure;
    sat_comm_free(session->comm);
    session->comm = NULL;
    return status;
}

sat_session *sat_session_retain(sat_session *session)
{
    session->refs++;
    return session;
}

static void free_keys(sat_session *session)
{
    while (sat_session_changed(session)) sat_session_told(session);
    unlist_all(session);
    free(session->buckets);
}

void sat_session_release(sat_session *session)
{
    sat_message *message;
    sat_slice map;
    if (session == NULL || --session->refs > 0) return;
    session->refs = 1; /* closing looks at keys, which must not come back here */
    sat_session_close(session, "the client was collected");
    free_keys(session);
    while ((message = sat_session_event(session, &map)) != NULL) sat_message_release(message);
    forget_unsent(session);
    sat_buf_free(&session->echo);
    sat_buf_free(&session->probe);
    free(session->keep);
    for (size_t i = 1; i < session->ntypes; i++) free(session->types[i]);
    free(session->types);
    free(session);
}

/* {"op": "close-client", "client": keep}: whatever is held in that name is let go */
static void let_go(sat_session *session)
{
    sat_buf map = SAT_BUF_INIT;
    msgpack_packer packer;
    if (session->keep == NULL) return;
    sat_mp_packer(&packer, &map);
    msgpack_pack_map(&packer, 2);
    sat_mp_pack_text(&packer, "op");
    sat_mp_pack_text(&packer, "close-client");
    sat_mp_pack_text(&packer, "client");
    sat_mp_pack_text(&packer, session->keep);
    if (!map.failed) (void)sat_session_send(session, map.data, map.len, NULL);
    sat_buf_free(&map);
}

void sat_session_close(sat_session *session, const char *reason)
{
    static const uint8_t close_client[] = "\x81\xa2op\xac" "close-client";
    static const uint8_t close_stream[] = "\x81\xa2op\xac" "close-stream";
    sat_error why;
    if (session->closed) return;
    release_fresh(session);
    if (session->comm) {
        let_go(session);
        (void)sat_session_send(session, close_client, sizeof close_client - 1, NULL);
        (void)sat_session_send(session, close_stream, sizeof close_stream - 1, NULL);
    }
    session->keeps = false;
    session->closed = true;
    (void)sat_fail(&why, SAT_CLOSED, "%s", reason);
    if (session->comm)
        end(session, &why);
    else
        sat_session_forget_all(session, SAT_KEY_LOST, reason);
}

void sat_session_drop(sat_session *session, const char *reason)
{
    sat_error why;
    (void)sat_fail(&why, SAT_CLOSED, "%s", reason);
    end(session, &why);
}

void sat_session_detach(sat_session *session)
{
    batch_releases(session);
    batch_holds(session);
    free(session->keep);
    session->keep = NULL;
}

void sat_session_give_up(sat_session *session, const char *reason)
{
    if (!session->keeps || session->comm) return;
    session->keeps = false;
    sat_session_forget_all(session, SAT_KEY_LOST, reason);
    forget_unsent(session);
}

sat_status sat_session_state(const sat_session *session, sat_error *err)
{
    if (session->comm == NULL) {
        if (err) *err = session->failure;
        return session->failure.status;
    }
    return session->registered ? SAT_OK : SAT_AGAIN;
}

bool sat_session_drained(const sat_session *session)
{
    return session->comm == NULL || (session->ops == 0 && session->nreleases == 0 && session->nholds == 0 &&
                                     sat_comm_idle(session->comm));
}

bool sat_session_acknowledged(const sat_session *session)
{
    return session->comm && session->sent_first == NULL && session->echoed >= session->asked &&
           sat_session_drained(session);
}

double sat_session_heard(const sat_session *session)
{
    return session->heard;
}

/* ---- outgoing ----------------------------------------------------------------------------------- */

static void begin_batch(sat_session *session)
{
    static const uint8_t placeholder[LIST_HEADER] = {0xdd, 0, 0, 0, 0};
    if (session->batch.head.len == 0) sat_buf_append(&session->batch.head, placeholder, LIST_HEADER);
}

static void batch_keys(sat_session *session, const char *op, const char *client, size_t count, const sat_buf *keys)
{
    begin_batch(session);
    pack_keys_op(&session->batch.head, op, client, count, keys);
    session->ops++;
}

/* The releases so far go before whatever is sent next: a later op may want one of the keys again. */
static void batch_releases(sat_session *session)
{
    static const char op[] = "client-releases-keys";
    if (session->nreleases == 0) return;
    batch_keys(session, op, NULL, session->nreleases, &session->releases);
    if (session->keep) batch_keys(session, op, session->keep, session->nreleases, &session->releases);
    sat_buf_clear(&session->releases);
    session->nreleases = 0;
    if (session->loose && session->comm) {
        pack_question(&session->batch.head, &session->probe);
        session->ops++;
        session->probes++;
    }
    session->loose = false;
}

/* And so do the holds: a later op may release one of the keys. */
static void batch_holds(sat_session *session)
{
    if (session->nholds == 0) return;
    if (session->keep) batch_keys(session, "client-desires-keys", session->keep, session->nholds, &session->holds);
    sat_buf_clear(&session->holds);
    session->nholds = 0;
}

void sat_session_flush(sat_session *session)
{
    sat_error err;
    if (session->comm == NULL || !sat_comm_idle(session->comm)) return;
    batch_releases(session);
    batch_holds(session);
    if (session->ops == 0) return;
    size_t ops = session->ops;
    session->ops = 0;
    if (session->keeps) remember(session, &session->batch, ops);
    if (transmit(session, &session->batch, ops, &err) != SAT_OK) end(session, &err);
}

/* SAT_OK when an op may be added: it is sent now or, by a session that keeps, when there is a connection again. */
static sat_status begin_op(sat_session *session, sat_error *err)
{
    if (hopeless(session)) return sat_session_state(session, err);
    batch_releases(session);
    batch_holds(session);
    begin_batch(session);
    return session->batch.head.failed ? sat_fail_nomem(err) : SAT_OK;
}

/* Refers to the wanted keys of a graph that was just sent, and holds them with one op behind it. */
static void keep_wanted(sat_session *session, const sat_buf *wanted, size_t count)
{
    sat_mp scan = sat_mp_over(wanted->data, wanted->len);
    sat_slice name;
    session->fresh = count ? calloc(count, sizeof *session->fresh) : NULL;
    while (session->fresh && session->nfresh < count && sat_mp_value(&scan, &name, NULL) == SAT_OK) {
        bool begun;
        sat_key *key = want(session, name.data, name.len, &begun);
        if (key == NULL) break;
        session->fresh[session->nfresh++] = key;
    }
    if (session->keep && count > 0) batch_keys(session, "client-desires-keys", session->keep, count, wanted);
}

sat_status sat_session_submit(sat_session *session, sat_graph *graph, sat_error *err)
{
    sat_buf wanted = SAT_BUF_INIT;
    size_t count = graph->wanted_count;
    release_fresh(session);
    sat_status status = begin_op(session, err);
    if (status != SAT_OK) return status;
    if (session->keeps) sat_buf_append(&wanted, graph->wanted.data, graph->wanted.len);
    status = sat_graph_message(graph, &session->batch, err);
    if (status == SAT_OK) {
        session->ops++;
        if (session->keeps && !wanted.failed) keep_wanted(session, &wanted, count);
        sat_session_flush(session);
    }
    sat_buf_free(&wanted);
    return status;
}

sat_status sat_session_send(sat_session *session, const uint8_t *map, size_t len, sat_error *err)
{
    sat_status status = begin_op(session, err);
    if (status != SAT_OK) return status;
    sat_buf_append(&session->batch.head, map, len);
    if (session->batch.head.failed) return sat_fail_nomem(err);
    session->ops++;
    sat_session_flush(session);
    return SAT_OK;
}

/* Held they are already, unless somebody let the name go. */
static void desire(sat_session *session, size_t count, const sat_buf *keys)
{
    static const char op[] = "client-desires-keys";
    if (count == 0) return;
    batch_keys(session, op, NULL, count, keys);
    if (session->keep) batch_keys(session, op, session->keep, count, keys);
}

sat_status sat_session_desire(sat_session *session, sat_error *err)
{
    sat_buf keys = SAT_BUF_INIT;
    size_t count = 0;
    sat_status status = begin_op(session, err);
    for (size_t i = 0; i < session->nbuckets && status == SAT_OK; i++)
        for (const sat_key *key = session->buckets[i]; key; key = key->next) {
            if (!desirable(key)) continue;
            sat_buf_append(&keys, key->name, key->len);
            if (++count < DESIRE_BATCH) continue;
            desire(session, count, &keys);
            sat_buf_clear(&keys);
            count = 0;
        }
    if (status == SAT_OK) desire(session, count, &keys);
    if (keys.failed || session->batch.head.failed) status = sat_fail_nomem(err);
    sat_buf_free(&keys);
    if (status == SAT_OK) sat_session_flush(session);
    return status;
}
