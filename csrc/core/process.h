/* A child process with pipes to it. Nothing here blocks, and nothing touches the host's signal handling.
 *
 * The child starts with default signal handling and an empty signal mask. The pipe ends kept here are closed on
 * exec, so the end of the parent, however it comes, is the end of the child's standard input. */
#ifndef SATURN_PROCESS_H
#define SATURN_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "status.h"

typedef struct sat_process sat_process;

enum {
    SAT_PROCESS_GROUP = 1,       /* a process group of its own; sat_process_kill reaches all of it */
    SAT_PROCESS_STDERR_NULL = 2, /* standard error to /dev/null; without either flag it is inherited */
    SAT_PROCESS_STDERR_PIPE = 4  /* standard error to a pipe, for sat_process_read_error */
};

enum { SAT_STDOUT = 1, SAT_STDERR = 2 };

/* Starts argv[0], looked up in PATH. `env` holds "NAME=value" texts that are added to this process's environment or
 * take the place of what is there, or is NULL; both lists end with NULL and stay the caller's. On SAT_OK *process is
 * the caller's to sat_process_free. SAT_CONNECT: the program could not be started. */
sat_status sat_process_spawn(const char *const *argv, const char *const *env, int flags, sat_process **process,
                             sat_error *err);

/* Closes the pipes and reaps the child if it has ended; it does not end it. NULL is fine. */
void sat_process_free(sat_process *process);

pid_t sat_process_pid(const sat_process *process);

/* The read end of SAT_STDOUT or SAT_STDERR, for watching, open until sat_process_free; -1 when it was never there. */
int sat_process_fd(const sat_process *process, int which);

/* Up to `cap` bytes. SAT_AGAIN: none now. SAT_EOF: every writer has closed its end. */
sat_status sat_process_read(sat_process *process, int which, void *data, size_t cap, size_t *len, sat_error *err);

/* Writes what the pipe takes now, *written bytes. SAT_AGAIN: none. SAT_CLOSED: nobody reads any more. */
sat_status sat_process_write(sat_process *process, const void *data, size_t len, size_t *written, sat_error *err);

void sat_process_close_stdin(sat_process *process);

/* SAT_AGAIN while it runs. SAT_OK once it has ended: *code is its exit status, or the signal's number when *signalled;
 * -1 when the host has already collected the status. */
sat_status sat_process_poll(sat_process *process, int *code, bool *signalled);

/* Sends a signal. SAT_CLOSED once sat_process_poll has seen the end: the number may be another process's by then. */
sat_status sat_process_kill(sat_process *process, int signal_number, sat_error *err);

#endif
