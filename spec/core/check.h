/* A unit test in plain C: a program a test file, linked with the core's static library.
 *
 *   #include "check.h"
 *   #include "buf.h"
 *
 *   static void test_empty(void) { CHECK(buf_len(&b) == 0); CHECK_STR(text, "..."); }
 *
 *   int main(void) { RUN(test_empty); return check_done(); }
 *
 * Prints TAP: one "ok" or "not ok" line for each RUN, a "# file:line: ..." line for each check that does not hold. A
 * check that fails lets the test go on, REQUIRE returns from it. */
#ifndef SATURN_CHECK_H
#define SATURN_CHECK_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct check_state {
    int tests, failed, skipped; /* of RUN */
    int errors;                 /* checks that failed in the test that runs */
    const char *skip;           /* why the test that runs was skipped */
};

static struct check_state check_state_;

#if defined(__GNUC__)
#define CHECK_UNUSED_ __attribute__((unused))
#else
#define CHECK_UNUSED_
#endif

CHECK_UNUSED_ static int check_that_(int ok, const char *file, int line, const char *text) {
    if (!ok) {
        check_state_.errors++;
        printf("# %s:%d: does not hold: %s\n", file, line, text);
    }
    return ok;
}

CHECK_UNUSED_ static int check_int_(intmax_t got, intmax_t want, const char *file, int line, const char *text) {
    if (got == want) return 1;
    check_state_.errors++;
    printf("# %s:%d: %s is %" PRIdMAX ", not %" PRIdMAX "\n", file, line, text, got, want);
    return 0;
}

CHECK_UNUSED_ static int check_uint_(uintmax_t got, uintmax_t want, const char *file, int line, const char *text) {
    if (got == want) return 1;
    check_state_.errors++;
    printf("# %s:%d: %s is %" PRIuMAX ", not %" PRIuMAX "\n", file, line, text, got, want);
    return 0;
}

CHECK_UNUSED_ static int check_str_(const char *got, const char *want, const char *file, int line, const char *text) {
    if (got == want || (got && want && strcmp(got, want) == 0)) return 1;
    check_state_.errors++;
    printf("# %s:%d: %s is \"%s\", not \"%s\"\n", file, line, text, got ? got : "(null)", want ? want : "(null)");
    return 0;
}

CHECK_UNUSED_ static void check_hex_(const char *label, const void *p, size_t n) {
    const unsigned char *b = (const unsigned char *)p;
    printf("#   %s %zu bytes:", label, n);
    for (size_t i = 0; i < n && i < 64; i++) printf(" %02x", b[i]);
    printf(n > 64 ? " ...\n" : "\n");
}

CHECK_UNUSED_ static int check_mem_(const void *got, size_t gn, const void *want, size_t wn, const char *file, int line,
                                    const char *text) {
    if (gn == wn && (gn == 0 || memcmp(got, want, gn) == 0)) return 1;
    check_state_.errors++;
    printf("# %s:%d: %s differs\n", file, line, text);
    check_hex_("got ", got, gn);
    check_hex_("want", want, wn);
    return 0;
}

/* The condition holds. */
#define CHECK(cond) check_that_((cond) ? 1 : 0, __FILE__, __LINE__, #cond)
/* Equal integers, strings (NULL equals NULL only), bytes (each with its length). */
#define CHECK_INT(got, want) check_int_((intmax_t)(got), (intmax_t)(want), __FILE__, __LINE__, #got)
#define CHECK_UINT(got, want) check_uint_((uintmax_t)(got), (uintmax_t)(want), __FILE__, __LINE__, #got)
#define CHECK_STR(got, want) check_str_((got), (want), __FILE__, __LINE__, #got)
#define CHECK_MEM(got, got_len, want, want_len) \
    check_mem_((got), (size_t)(got_len), (want), (size_t)(want_len), __FILE__, __LINE__, #got)
/* As CHECK, and leaves the test function when it does not hold. */
#define REQUIRE(cond) \
    do { \
        if (!CHECK(cond)) return; \
    } while (0)
/* Leaves the test function as skipped, for a reason. */
#define SKIP(reason) \
    do { \
        check_state_.skip = (reason); \
        return; \
    } while (0)

#define RUN(test) check_run_((test), #test)

CHECK_UNUSED_ static void check_run_(void (*test)(void), const char *name) {
    check_state_.errors = 0;
    check_state_.skip = NULL;
    check_state_.tests++;
    test();
    if (check_state_.errors) {
        check_state_.failed++;
        printf("not ok %d - %s\n", check_state_.tests, name);
    } else if (check_state_.skip) {
        check_state_.skipped++;
        printf("ok %d - %s # SKIP %s\n", check_state_.tests, name, check_state_.skip);
    } else {
        printf("ok %d - %s\n", check_state_.tests, name);
    }
    fflush(stdout);
}

/* The plan and the exit status of the program. */
CHECK_UNUSED_ static int check_done(void) {
    printf("1..%d\n", check_state_.tests);
    fflush(stdout);
    return check_state_.failed || !check_state_.tests ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
