/* What each dialect makes of the same tasks. The golden messages were accepted by real schedulers. */
#include "check.h"
#include "graph.h"
#include "spell.h"

typedef struct named_key {
    uint8_t bytes[32];
    sat_slice slice;
} named_key;

static named_key key_of(const char *name)
{
    named_key key = {{(uint8_t)(0xa0 | strlen(name))}, {NULL, NULL, 1 + strlen(name)}};
    memcpy(key.bytes + 1, name, strlen(name));
    return key;
}

static sat_slice at(named_key *key)
{
    key->slice.data = key->bytes;
    return key->slice;
}

/* k1 = operator.add(1, 2), as in the golden messages */
static void add_task(sat_graph *graph)
{
    named_key k1 = key_of("k1");
    sat_task task = {.key = at(&k1), .module = "operator", .name = "add"};
    sat_graph_task_begin(graph, &task);
    sat_pickle_int(sat_graph_pickler(graph), 1);
    sat_pickle_int(sat_graph_pickler(graph), 2);
    sat_graph_task_end(graph, &task);
    sat_graph_want(graph, at(&k1));
}

/* k2 = sum([k1, 5], start=k1) */
static void add_sum(sat_graph *graph)
{
    named_key k1 = key_of("k1"), k2 = key_of("k2");
    sat_task task = {.key = at(&k2), .module = "builtins", .name = "sum", .has_kwargs = true, .has_refs = true};
    sat_pickler *pickle = sat_graph_pickler(graph);
    sat_graph_task_begin(graph, &task);
    if (graph->dialect->wraps) {
        sat_graph_wrap_begin(pickle, 'l');
    } else {
        sat_pickle_empty_list(pickle);
        sat_pickle_mark(pickle);
    }
    sat_graph_ref(graph, at(&k1));
    sat_pickle_int(pickle, 5);
    if (graph->dialect->wraps)
        sat_graph_wrap_end(pickle, 'l');
    else
        sat_pickle_appends(pickle);
    sat_graph_kwargs(graph, &task);
    sat_pickle_text(pickle, "start");
    sat_graph_ref(graph, at(&k1));
    sat_graph_task_end(graph, &task);
    sat_graph_want(graph, at(&k2));
}

/* The random token of an expression, made readable. */
static const char *without_token(char *text)
{
    static const char digits[] = "0123456789abcdef";
    for (char *at_ = text; (at_ = strchr(at_, '\'')) != NULL; at_++)
        if (strspn(at_ + 1, digits) == 32 && at_[33] == '\'') memmove(at_ + 1, at_ + 33, strlen(at_ + 33) + 1);
    return text;
}

static const char *message_of(sat_graph *graph, sat_buf *text)
{
    sat_outgoing out;
    sat_error err = {SAT_OK, ""};
    sat_outgoing_init(&out);
    CHECK_INT(sat_graph_message(graph, &out, &err), SAT_OK);
    CHECK_STR(err.text, "");
    spell_outgoing(text, &out);
    sat_outgoing_free(&out);
    return without_token((char *)text->data);
}

static void expect(sat_release release, bool both, const char *want)
{
    sat_graph graph;
    sat_buf text = SAT_BUF_INIT;
    sat_graph_init(&graph, release);
    add_task(&graph);
    if (both) add_sum(&graph);
    CHECK_STR(message_of(&graph, &text), want);
    sat_graph_free(&graph);
    sat_buf_free(&text);
}

#define HEAD(keys)                                                                                                       \
    "{op: update-graph, keys: {__Set__: true, as-list: [" keys "]}, "                                                    \
    "internal_priority: nil, submitting_task: nil, fifo_timeout: 60s, "
#define SPAN "span_metadata: {}, "
#define NONE_BEHIND ", num-sub-frames: 0, compression: []}}"
#define PICKLED(text) "{__Pickled__: {pickled-obj: pickle " text NONE_BEHIND

#define D0_HEAD "{op: update-graph, tasks: "
#define D0_TAIL                                                                                                          \
    ", priority: nil, submitting_task: nil, fifo_timeout: 60s, actors: nil, code: nil, annotations: {}}"

static void test_d0(void)
{
    expect(20221201, false,
           D0_HEAD "{k1: {function: pickle operator.add, args: pickle (1, 2)}}, "
                   "dependencies: {k1: {__Set__: true, as-list: []}}, keys: [k1]" D0_TAIL);
    expect(20230302, true,
           D0_HEAD "{k1: {function: pickle operator.add, args: pickle (1, 2)}, "
                   "k2: {function: pickle builtins.sum, args: pickle (['k1', 5]), kwargs: pickle {'start': 'k1'}}}, "
                   "dependencies: {k1: {__Set__: true, as-list: []}, k2: {__Set__: true, as-list: [k1, k1]}}, "
                   "keys: [k1, k2]" D0_TAIL);
}

#define HLG(tasks)                                                                                                       \
    "graph_header: {serializer: pickle, writeable: []}, graph_frames: [pickle "                                          \
    "distributed.protocol.serialize.ToPickle(dask.highlevelgraph.HighLevelGraph({'saturn': " tasks                       \
    "}, {'saturn': builtins.set()}))]}"

static void test_d1(void)
{
    static const char graph[] = HEAD("k1") HLG("{'k1': (operator.add, 1, 2)}");
    expect(20230400, false, graph);
    expect(20231201, false, graph);
    expect(20240501, false, graph);
    expect(20240502, false, HEAD("k1") SPAN HLG("{'k1': (operator.add, 1, 2)}"));
    expect(20241102, true,
           HEAD("k1, k2") SPAN HLG("{'k1': (operator.add, 1, 2), "
                                   "'k2': (dask.utils.apply, builtins.sum, "
                                   "[[distributed.utils_comm.WrappedKey('k1'), 5]], "
                                   "{'start': distributed.utils_comm.WrappedKey('k1')})}"));
}

#define SPEC "dask._task_spec."
#define TASKS                                                                                                            \
    "{'k1': " SPEC "Task('k1', operator.add, 1, 2), "                                                                    \
    "'k2': functools.partial(" SPEC "Task).build((" SPEC "Task, ('k2', builtins.sum, " SPEC "List([" SPEC                \
    "TaskRef('k1'), 5])), {'start': " SPEC "TaskRef('k1')}, None))()}"

static void test_d1b(void)
{
    expect(20241200, true, HEAD("k1, k2") SPAN HLG(TASKS));
    expect(20250301, true, HEAD("k1, k2") SPAN HLG(TASKS));
}

#define D2(tasks)                                                                                                        \
    "expr_ser: {__Serialized__: {serializer: pickle, writeable: [], num-sub-frames: 1} <- "                              \
    "dask._expr.Expr._reconstruct(dask._expr.LLGExpr, " tasks ", '', {})}}"

static void test_d2(void)
{
    expect(20250400, false, HEAD("k1") SPAN D2("{'k1': " SPEC "Task('k1', operator.add, 1, 2)}"));
    expect(20260800, true, HEAD("k1, k2") SPAN D2(TASKS));
}

/* The memory of arrays goes beside the pickle of an expression, as it was when it was written. */
static void test_buffers(void)
{
    sat_graph graph;
    sat_outgoing out;
    sat_error err = {SAT_OK, ""};
    named_key key = key_of("t");
    sat_task task = {.key = at(&key), .module = "builtins", .name = "len"};
    sat_block *block = sat_block_new(3);
    CHECK(block != NULL);
    memcpy(block->data, "abc", 3);
    sat_graph_init(&graph, 20260800);
    CHECK(sat_graph_pickler(&graph)->oob);
    sat_graph_task_begin(&graph, &task);
    sat_pickle_buffer(sat_graph_pickler(&graph), (sat_slice){block, block->data, 3}, false);
    sat_pickle_buffer(sat_graph_pickler(&graph), (sat_slice){block, block->data, 0}, false);
    sat_graph_task_end(&graph, &task);
    memcpy(block->data, "xyz", 3);
    sat_block_release(block);
    sat_outgoing_init(&out);
    CHECK_INT(sat_graph_message(&graph, &out, &err), SAT_OK);
    sat_graph_free(&graph);
    CHECK(out.count >= 4);
    CHECK_INT(out.frames[2].len, 3);
    CHECK(out.frames[2].len == 3 && memcmp(out.frames[2].data, "abc", 3) == 0);
    CHECK_INT(out.frames[3].len, 0);
    static const char header[] = "\x83\xaaserializer\xa6pickle\xa9writeable\x92\xc3\xc3\xaenum-sub-frames\x03";
    CHECK_INT(out.frames[0].len, sizeof header - 1);
    CHECK(out.frames[0].len == sizeof header - 1 && memcmp(out.frames[0].data, header, sizeof header - 1) == 0);
    sat_outgoing_free(&out);
    static const sat_release others[] = {20221201, 20231201, 20241201};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        sat_graph_init(&graph, others[i]);
        CHECK(!sat_graph_pickler(&graph)->oob);
        sat_graph_free(&graph);
    }
}

static void test_releases(void)
{
    static const struct {
        sat_release release;
        const char *name;
    } cases[] = {{20221200, "d0"}, {20230399, "d0"}, {20230400, "d1"}, {20241199, "d1"}, {20241200, "d1b"},
                 {20250399, "d1b"}, {20250400, "d2"}, {99991299, "d2"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK_STR(sat_dialect_of(cases[i].release)->name, cases[i].name);
}

/* A task from source is a call of eval; the user's text and arguments are data in its second argument. */
static void test_source(void)
{
    static const sat_release releases[] = {20221201, 20231201, 20241201, 20260800};
    static const char source[] = "def twice(x):\n    return 2 * x\n";
    for (size_t i = 0; i < sizeof releases / sizeof *releases; i++) {
        sat_graph graph;
        sat_buf text = SAT_BUF_INIT;
        named_key key = key_of("t");
        sat_task task = {.key = at(&key), .name = "twice", .source = source, .source_len = sizeof source - 1};
        sat_graph_init(&graph, releases[i]);
        sat_graph_task_begin(&graph, &task);
        sat_pickle_int(sat_graph_pickler(&graph), 21);
        sat_graph_task_end(&graph, &task);
        sat_graph_want(&graph, at(&key));
        const char *said = message_of(&graph, &text);
        CHECK(strstr(said, "builtins.eval") != NULL);
        CHECK(strstr(said, "{'s': 'def twice(x):\n    return 2 * x\n', 'n': 'twice', 'a': [21], 'k': {}}") != NULL);
        CHECK(strstr(said, "?") == NULL);
        sat_graph_free(&graph);
        sat_buf_free(&text);
    }
}

static void test_annotations(void)
{
    static const sat_release releases[] = {20221201, 20231201, 20241201, 20260800};
    for (size_t i = 0; i < sizeof releases / sizeof *releases; i++) {
        sat_graph graph;
        sat_buf text = SAT_BUF_INIT;
        sat_graph_init(&graph, releases[i]);
        sat_graph_annotate(&graph, "retries", (sat_slice){NULL, (const uint8_t *)"\x02", 1});
        sat_graph_annotate(&graph, "workers", (sat_slice){NULL, (const uint8_t *)"\x91\xa2w0", 4});
        graph.actors = true;
        graph.fifo_timeout = "100 ms";
        add_task(&graph);
        const char *said = message_of(&graph, &text);
        CHECK(strstr(said, "fifo_timeout: 100 ms, actors: true") != NULL);
        if (i == 0)
            CHECK(strstr(said, "annotations: {retries: {k1: 2}, workers: {k1: [w0]}}") != NULL);
        else
            CHECK(strstr(said, "annotations: " PICKLED("{'retries': 2, 'workers': ('w0')}")) != NULL);
        sat_graph_free(&graph);
        sat_buf_free(&text);
    }
}

/* What stands in the message already stays when a graph cannot be put behind it. */
static void test_failure_leaves_the_message(void)
{
    static const sat_release releases[] = {20221201, 20231201, 20260800};
    for (size_t i = 0; i < sizeof releases / sizeof *releases; i++) {
        sat_graph graph;
        sat_outgoing out;
        sat_error err;
        sat_outgoing_init(&out);
        sat_buf_str(&out.head, "before");
        CHECK_UINT(sat_outgoing_copy(&out, "frame", 5), 1);
        sat_graph_init(&graph, releases[i]);
        add_task(&graph);
        graph.failed = true;
        CHECK_INT(sat_graph_message(&graph, &out, &err), SAT_NOMEM);
        CHECK_MEM(out.head.data, out.head.len, "before", 6);
        CHECK_UINT(out.count, 1);
        sat_graph_free(&graph);
        sat_outgoing_free(&out);
    }
}

int main(void)
{
    RUN(test_d0);
    RUN(test_d1);
    RUN(test_d1b);
    RUN(test_d2);
    RUN(test_buffers);
    RUN(test_releases);
    RUN(test_source);
    RUN(test_annotations);
    RUN(test_failure_leaves_the_message);
    return check_done();
}
