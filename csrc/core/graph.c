#include "graph.h"

#include <string.h>

/* Runs on the worker: `s` is the source, `n` the name it defines, `a` and `k` the arguments. The source is compiled
 * once per worker process, without what Dask's own modules import from __future__. The text is constant and the user's
 * arrives as data, so that the scheduler, which unpickles the graph, runs nothing of it. */
static const char run_source[] =
    "(lambda m: (m.get(s) or m.setdefault(s, (lambda g: (exec(compile(s, '<saturn>', 'exec', 0, 1), g), g)[1])"
    "({'__name__': '__saturn__'})))[n](*a, **k))"
    "(__import__('sys').modules.setdefault('__saturn_sources__', type(__import__('sys'))('__saturn_sources__')).__dict__)";

const sat_dialect *sat_dialect_of(sat_release release)
{
    if (release < 20230400) return &sat_dialect_d0;
    if (release < 20241200) return &sat_dialect_d1;
    if (release < 20250400) return &sat_dialect_d1b;
    return &sat_dialect_d2;
}

void sat_graph_init(sat_graph *graph, sat_release release)
{
    memset(graph, 0, sizeof *graph);
    graph->dialect = sat_dialect_of(release);
    graph->release = release;
    graph->fifo_timeout = "60s";
    sat_pickler_init(&graph->pickle);
    graph->dialect->begin(graph);
}

void sat_graph_free(sat_graph *graph)
{
    sat_pickler_free(&graph->pickle);
    sat_buf_free(&graph->task_map);
    sat_buf_free(&graph->deps_map);
    sat_buf_free(&graph->deps);
    sat_buf_free(&graph->args);
    sat_buf_free(&graph->keys);
    sat_buf_free(&graph->wanted);
    sat_buf_free(&graph->annotations);
}

sat_pickler *sat_graph_pickler(sat_graph *graph)
{
    return &graph->pickle;
}

/* ---- msgpack → pickle --------------------------------------------------------------------------- */

static void pickle_token(sat_pickler *pickle, sat_mp *scan, unsigned depth);

static void pickle_items(sat_pickler *pickle, sat_mp *scan, size_t count, unsigned depth)
{
    sat_pickle_mark(pickle);
    for (size_t i = 0; i < count; i++) pickle_token(pickle, scan, depth + 1);
}

static void pickle_token(sat_pickler *pickle, sat_mp *scan, unsigned depth)
{
    sat_mp_token token;
    if (depth > 64 || sat_mp_next(scan, &token, NULL) != SAT_OK) {
        sat_pickle_none(pickle);
        return;
    }
    switch (token.type) {
    case SAT_MP_NIL:
        sat_pickle_none(pickle);
        break;
    case SAT_MP_BOOL:
        sat_pickle_bool(pickle, token.as.boolean);
        break;
    case SAT_MP_INT:
        sat_pickle_int(pickle, token.as.integer);
        break;
    case SAT_MP_UINT:
        sat_pickle_uint(pickle, token.as.unsigned_integer);
        break;
    case SAT_MP_FLOAT:
        sat_pickle_float(pickle, token.as.number);
        break;
    case SAT_MP_STR:
        sat_pickle_str_memo(pickle, token.as.bytes.data, token.as.bytes.len);
        break;
    case SAT_MP_BIN:
        sat_pickle_bytes(pickle, token.as.bytes.data, token.as.bytes.len);
        break;
    case SAT_MP_ARRAY:
        pickle_items(pickle, scan, token.as.count, depth);
        sat_pickle_tuple_mark(pickle);
        break;
    case SAT_MP_MAP:
        sat_pickle_empty_dict(pickle);
        pickle_items(pickle, scan, 2 * token.as.count, depth);
        sat_pickle_setitems(pickle);
        break;
    }
}

void sat_pickle_msgpack(sat_pickler *pickle, sat_slice value)
{
    sat_mp scan = sat_mp_over(value.data, value.len);
    pickle_token(pickle, &scan, 0);
}

/* ---- tasks -------------------------------------------------------------------------------------- */

/* List and Tuple are given one list or tuple, not their items: of a single argument that is itself a list or tuple
 * they take the items. */
void sat_graph_wrap_begin(sat_pickler *pickle, char kind)
{
    const char *name = kind == 'l' ? "List" : kind == 't' ? "Tuple" : kind == 's' ? "Set" : "Dict";
    sat_pickle_global(pickle, "dask._task_spec", name);
    if (kind == 'd') sat_pickle_empty_dict(pickle);
    if (kind == 'l') sat_pickle_empty_list(pickle);
    sat_pickle_mark(pickle);
}

void sat_graph_wrap_end(sat_pickler *pickle, char kind)
{
    if (kind == 'd') sat_pickle_setitems(pickle);
    if (kind == 'l') sat_pickle_appends(pickle);
    if (kind == 's' || kind == 't') sat_pickle_tuple_mark(pickle);
    if (kind != 's') sat_pickle_tuple(pickle, 1);
    sat_pickle_reduce(pickle);
}

static void open_list(sat_graph *graph, bool wrap)
{
    if (wrap) {
        sat_graph_wrap_begin(&graph->pickle, 'l');
    } else {
        sat_pickle_empty_list(&graph->pickle);
        sat_pickle_mark(&graph->pickle);
    }
}

static void close_list(sat_graph *graph, bool wrap)
{
    if (wrap)
        sat_graph_wrap_end(&graph->pickle, 'l');
    else
        sat_pickle_appends(&graph->pickle);
}

static void open_dict(sat_graph *graph, bool wrap)
{
    if (wrap) {
        sat_graph_wrap_begin(&graph->pickle, 'd');
    } else {
        sat_pickle_empty_dict(&graph->pickle);
        sat_pickle_mark(&graph->pickle);
    }
}

static void close_dict(sat_graph *graph, bool wrap)
{
    if (wrap)
        sat_graph_wrap_end(&graph->pickle, 'd');
    else
        sat_pickle_setitems(&graph->pickle);
}

static bool wraps(const sat_graph *graph, const sat_task *task)
{
    return graph->dialect->wraps && task->has_refs;
}

/* A task from source is a call of eval with two arguments; the user's are inside the second. */
static sat_task eval_task(const sat_task *task)
{
    sat_task outer = *task;
    outer.module = "builtins";
    outer.name = "eval";
    outer.source = NULL;
    outer.has_kwargs = false;
    return outer;
}

static void pickle_text(sat_graph *graph, const char *text)
{
    sat_pickle_str_memo(&graph->pickle, text, strlen(text));
}

void sat_graph_task_begin(sat_graph *graph, const sat_task *task)
{
    sat_buf_append(&graph->keys, task->key.data, task->key.len);
    sat_buf_clear(&graph->deps);
    graph->dep_count = 0;
    if (task->source == NULL) {
        graph->dialect->open(graph, task);
        return;
    }
    sat_task outer = eval_task(task);
    graph->dialect->open(graph, &outer);
    pickle_text(graph, run_source);
    open_dict(graph, wraps(graph, task));
    pickle_text(graph, "s");
    sat_pickle_str_memo(&graph->pickle, task->source, task->source_len);
    pickle_text(graph, "n");
    pickle_text(graph, task->name);
    pickle_text(graph, "a");
    open_list(graph, wraps(graph, task));
}

static void end_source_args(sat_graph *graph, const sat_task *task)
{
    close_list(graph, wraps(graph, task));
    pickle_text(graph, "k");
    open_dict(graph, wraps(graph, task));
}

void sat_graph_kwargs(sat_graph *graph, const sat_task *task)
{
    if (task->source == NULL)
        graph->dialect->kwargs(graph, task);
    else
        end_source_args(graph, task);
}

void sat_graph_task_end(sat_graph *graph, const sat_task *task)
{
    graph->tasks++;
    if (task->source == NULL) {
        graph->dialect->close(graph, task);
        return;
    }
    if (!task->has_kwargs) end_source_args(graph, task);
    close_dict(graph, wraps(graph, task));
    close_dict(graph, wraps(graph, task));
    sat_task outer = eval_task(task);
    graph->dialect->close(graph, &outer);
}

void sat_graph_ref(sat_graph *graph, sat_slice key)
{
    graph->dialect->ref(graph, key);
}

void sat_graph_want(sat_graph *graph, sat_slice key)
{
    sat_buf_append(&graph->wanted, key.data, key.len);
    graph->wanted_count++;
}

void sat_graph_annotate(sat_graph *graph, const char *name, sat_slice value)
{
    msgpack_packer packer;
    sat_mp_packer(&packer, &graph->annotations);
    sat_mp_pack_text(&packer, name);
    sat_buf_append(&graph->annotations, value.data, value.len);
    graph->annotation_count++;
}

/* ---- the message -------------------------------------------------------------------------------- */

static bool buffers_failed(const sat_graph *graph)
{
    return graph->failed || graph->task_map.failed || graph->deps_map.failed || graph->deps.failed ||
           graph->args.failed || graph->keys.failed || graph->wanted.failed || graph->annotations.failed;
}

sat_status sat_graph_message(sat_graph *graph, sat_outgoing *out, sat_error *err)
{
    size_t len = out->head.len, count = out->count;
    sat_status status = buffers_failed(graph) ? sat_fail_nomem(err) : sat_pickler_status(&graph->pickle, err);
    if (status == SAT_OK) status = graph->dialect->message(graph, out, err);
    if (status == SAT_OK && out->head.failed) status = sat_fail_nomem(err);
    if (status != SAT_OK) {
        while (out->count > count) sat_block_release(out->frames[--out->count].block);
        out->head.len = len;
        out->head.failed = false;
    }
    return status;
}

/* {"__Pickled__": k}, its sub-header in frame k; such a value has no buffers behind it */
static sat_status pack_pickled(sat_outgoing *out, msgpack_packer *packer, const sat_pickler *pickle, sat_error *err)
{
    sat_buf header = SAT_BUF_INIT;
    msgpack_packer inner;
    sat_mp_packer(&inner, &header);
    msgpack_pack_map(&inner, 3);
    sat_mp_pack_text(&inner, "pickled-obj");
    sat_mp_pack_bin(&inner, pickle->out.data, pickle->out.len);
    sat_mp_pack_text(&inner, "num-sub-frames");
    msgpack_pack_int(&inner, 0);
    sat_mp_pack_text(&inner, "compression");
    msgpack_pack_array(&inner, 0);
    size_t index = header.failed ? 0 : sat_outgoing_copy(out, header.data, header.len);
    sat_buf_free(&header);
    if (index == 0 || sat_pickler_status(pickle, NULL) != SAT_OK) return sat_fail_nomem(err);
    msgpack_pack_map(packer, 1);
    sat_mp_pack_text(packer, "__Pickled__");
    msgpack_pack_uint64(packer, index);
    return SAT_OK;
}

static sat_status pack_annotations(const sat_graph *graph, sat_outgoing *out, msgpack_packer *packer, sat_error *err)
{
    sat_mp scan = sat_mp_over(graph->annotations.data, graph->annotations.len);
    sat_pickler pickle;
    sat_pickler_init(&pickle);
    sat_pickle_proto(&pickle);
    sat_pickle_empty_dict(&pickle);
    sat_pickle_mark(&pickle);
    for (size_t i = 0; i < 2 * graph->annotation_count; i++) pickle_token(&pickle, &scan, 0);
    sat_pickle_setitems(&pickle);
    sat_pickle_stop(&pickle);
    sat_mp_pack_text(packer, "annotations");
    sat_status status = pack_pickled(out, packer, &pickle, err);
    sat_pickler_free(&pickle);
    return status;
}

sat_status sat_graph_fields(sat_graph *graph, sat_outgoing *out, size_t own, msgpack_packer *packer, sat_error *err)
{
    bool annotated = graph->annotation_count > 0, spans = graph->release >= 20240502;
    sat_mp_packer(packer, &out->head);
    msgpack_pack_map(packer, own + 5 + graph->actors + annotated + spans);
    sat_mp_pack_text(packer, "op");
    sat_mp_pack_text(packer, "update-graph");
    /* A set: schedulers of 2024.11 to 2025.x take the keys whose data is lost out of it, and fail with a list. */
    sat_mp_pack_text(packer, "keys");
    sat_mp_pack_set(packer, graph->wanted_count);
    sat_buf_append(&out->head, graph->wanted.data, graph->wanted.len);
    sat_mp_pack_text(packer, "internal_priority");
    msgpack_pack_nil(packer);
    sat_mp_pack_text(packer, "submitting_task");
    msgpack_pack_nil(packer);
    sat_mp_pack_text(packer, "fifo_timeout");
    sat_mp_pack_text(packer, graph->fifo_timeout);
    if (graph->actors) {
        sat_mp_pack_text(packer, "actors");
        msgpack_pack_true(packer);
    }
    if (spans) { /* where Python lists the collections that were computed; there are none, and so nothing to keep */
        sat_mp_pack_text(packer, "span_metadata");
        msgpack_pack_map(packer, 0);
    }
    return annotated ? pack_annotations(graph, out, packer, err) : SAT_OK;
}
