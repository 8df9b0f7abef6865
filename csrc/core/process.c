#if defined(__linux__) || defined(__FreeBSD__) || defined(__NetBSD__) || defined(__OpenBSD__)
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* pipe2 */
#endif
#define HAVE_PIPE2 1
#endif

#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "reactor.h"

static const size_t most = 1 << 20; /* bytes of one read or write: their result has to fit in ssize_t */

#if defined(__APPLE__)
#include <crt_externs.h>
#define environ (*_NSGetEnviron())
#else
extern char **environ;
#endif

struct sat_process {
    pid_t pid;
    int in;  /* write end of the child's standard input */
    int out; /* read ends */
    int error;
    bool group;
    bool ended;
    bool signalled;
    int code;
};

static void close_fd(int *fd)
{
    if (*fd >= 0) close(*fd); /* not again on EINTR: the descriptor is gone by then */
    *fd = -1;
}

/* Above the standard ones: a host may run with some of those closed, and dup2 onto itself would keep FD_CLOEXEC. */
static bool move_up(int *fd)
{
    if (*fd > 2) return true;
    int up = fcntl(*fd, F_DUPFD_CLOEXEC, 3);
    if (up < 0) return false;
    close(*fd);
    *fd = up;
    return true;
}

static bool make_pipe(int *read_end, int *write_end)
{
    int ends[2];
#if defined(HAVE_PIPE2)
    if (pipe2(ends, O_CLOEXEC) != 0) return false;
#else
    if (pipe(ends) != 0) return false;
    (void)fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    (void)fcntl(ends[1], F_SETFD, FD_CLOEXEC);
#endif
    *read_end = ends[0];
    *write_end = ends[1];
    return move_up(read_end) && move_up(write_end);
}

static bool set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

static size_t count(const char *const *list)
{
    size_t n = 0;
    while (list != NULL && list[n] != NULL) n++;
    return n;
}

static bool same_name(const char *a, const char *b)
{
    size_t len = strcspn(a, "=");
    return strncmp(a, b, len) == 0 && b[len] == '=';
}

/* A list of pointers to the texts of the environment and of `add`; the list alone is the caller's to free. */
static const char **merge_environment(const char *const *add)
{
    const char *const *have = (const char *const *)environ;
    const char **out = calloc(count(have) + count(add) + 1, sizeof *out);
    if (out == NULL) return NULL;
    size_t n = 0;
    for (size_t i = 0; have != NULL && have[i] != NULL; i++) {
        bool replaced = false;
        for (size_t j = 0; add != NULL && add[j] != NULL && !replaced; j++) replaced = same_name(add[j], have[i]);
        if (!replaced) out[n++] = have[i];
    }
    for (size_t j = 0; add != NULL && add[j] != NULL; j++) out[n++] = add[j];
    return out;
}

static int set_actions(posix_spawn_file_actions_t *actions, int in, int out, int error, int flags)
{
    int rc = posix_spawn_file_actions_adddup2(actions, in, 0);
    if (rc == 0) rc = posix_spawn_file_actions_adddup2(actions, out, 1);
    if (rc == 0 && error >= 0) rc = posix_spawn_file_actions_adddup2(actions, error, 2);
    if (rc == 0 && (flags & SAT_PROCESS_STDERR_NULL))
        rc = posix_spawn_file_actions_addopen(actions, 2, "/dev/null", O_WRONLY, 0);
#if defined(__APPLE__)
    if (rc == 0 && !(flags & (SAT_PROCESS_STDERR_NULL | SAT_PROCESS_STDERR_PIPE)))
        rc = posix_spawn_file_actions_addinherit_np(actions, 2);
#endif
    return rc;
}

static int set_attributes(posix_spawnattr_t *attributes, int flags)
{
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    sigdelset(&all, SIGKILL); /* cannot be set, and some systems refuse the attempt */
    sigdelset(&all, SIGSTOP);
    short options = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
    if (flags & SAT_PROCESS_GROUP) options |= POSIX_SPAWN_SETPGROUP;
#if defined(__APPLE__)
    options |= POSIX_SPAWN_CLOEXEC_DEFAULT; /* no pipe2 there: another thread's fork must not matter */
#endif
    int rc = posix_spawnattr_setsigmask(attributes, &none);
    if (rc == 0) rc = posix_spawnattr_setsigdefault(attributes, &all);
    if (rc == 0 && (flags & SAT_PROCESS_GROUP)) rc = posix_spawnattr_setpgroup(attributes, 0);
    if (rc == 0) rc = posix_spawnattr_setflags(attributes, options);
    return rc;
}

/* An errno, 0 when the child runs. */
static int spawn(sat_process *process, const char *const *argv, const char *const *env, int flags, int in, int out,
                 int error)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int rc = posix_spawn_file_actions_init(&actions);
    if (rc != 0) return rc;
    rc = posix_spawnattr_init(&attributes);
    if (rc == 0) {
        rc = set_actions(&actions, in, out, error, flags);
        if (rc == 0) rc = set_attributes(&attributes, flags);
        if (rc == 0)
            /* posix_spawn takes char *const[] for historical reasons and changes nothing. */
            rc = posix_spawnp(&process->pid, argv[0], &actions, &attributes, (char *const *)(const void *)argv,
                              (char *const *)(const void *)env);
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

sat_status sat_process_spawn(const char *const *argv, const char *const *env, int flags, sat_process **process,
                             sat_error *err)
{
    *process = NULL;
    if (argv == NULL || argv[0] == NULL) return sat_fail(err, SAT_MISUSE, "no program to start");
    sat_process *new = calloc(1, sizeof *new);
    const char **environment = merge_environment(env);
    int child_in = -1, child_out = -1, child_error = -1, rc = 0;
    if (new == NULL || environment == NULL) {
        free(new);
        free(environment);
        return sat_fail_nomem(err);
    }
    new->pid = -1;
    new->in = new->out = new->error = -1;
    new->group = (flags & SAT_PROCESS_GROUP) != 0;
    if (!make_pipe(&child_in, &new->in) || !make_pipe(&new->out, &child_out) ||
        ((flags & SAT_PROCESS_STDERR_PIPE) && !make_pipe(&new->error, &child_error)) || !set_nonblocking(new->in) ||
        !set_nonblocking(new->out) || (new->error >= 0 && !set_nonblocking(new->error)))
        rc = errno;
    if (rc == 0) rc = spawn(new, argv, environment, flags, child_in, child_out, child_error);
    close_fd(&child_in);
    close_fd(&child_out);
    close_fd(&child_error);
    free(environment);
    if (rc != 0) {
        new->pid = -1;
        sat_process_free(new);
        return sat_fail(err, SAT_CONNECT, "cannot start %s: %s", argv[0], strerror(rc));
    }
    *process = new;
    return SAT_OK;
}

void sat_process_free(sat_process *process)
{
    if (process == NULL) return;
    close_fd(&process->in);
    close_fd(&process->out);
    close_fd(&process->error);
    if (process->pid > 0) (void)sat_process_poll(process, NULL, NULL);
    free(process);
}

pid_t sat_process_pid(const sat_process *process)
{
    return process->pid;
}

int sat_process_fd(const sat_process *process, int which)
{
    return which == SAT_STDERR ? process->error : process->out;
}

sat_status sat_process_read(sat_process *process, int which, void *data, size_t cap, size_t *len, sat_error *err)
{
    int fd = sat_process_fd(process, which);
    *len = 0;
    if (fd < 0) return SAT_EOF;
    ssize_t got;
    do got = read(fd, data, cap < most ? cap : most);
    while (got < 0 && errno == EINTR);
    if (got > 0) {
        *len = (size_t)got;
        return SAT_OK;
    }
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return SAT_AGAIN;
    if (got == 0) return SAT_EOF; /* the descriptor stays: it may be watched */
    return sat_fail(err, SAT_CLOSED, "cannot read from process %ld: %s", (long)process->pid, strerror(errno));
}

sat_status sat_process_write(sat_process *process, const void *data, size_t len, size_t *written, sat_error *err)
{
    *written = 0;
    if (process->in < 0) return sat_fail(err, SAT_CLOSED, "the standard input of the process is closed");
    sat_sigpipe guard;
    ssize_t put;
    int code;
    sat_sigpipe_begin(&guard);
    do put = write(process->in, data, len < most ? len : most);
    while (put < 0 && errno == EINTR);
    code = errno;
    sat_sigpipe_end(&guard);
    if (put >= 0) {
        *written = (size_t)put;
        return SAT_OK;
    }
    if (code == EAGAIN || code == EWOULDBLOCK) return SAT_AGAIN;
    close_fd(&process->in);
    return sat_fail(err, SAT_CLOSED, "cannot write to process %ld: %s", (long)process->pid, strerror(code));
}

void sat_process_close_stdin(sat_process *process)
{
    close_fd(&process->in);
}

sat_status sat_process_poll(sat_process *process, int *code, bool *signalled)
{
    if (!process->ended) {
        int status = 0;
        pid_t got;
        do got = waitpid(process->pid, &status, WNOHANG);
        while (got < 0 && errno == EINTR);
        if (got == 0) return SAT_AGAIN;
        process->ended = true;
        process->signalled = got > 0 && WIFSIGNALED(status);
        /* ECHILD: the host ignores SIGCHLD or waits for every child itself. */
        process->code = got < 0 ? -1 : process->signalled ? WTERMSIG(status) : WEXITSTATUS(status);
    }
    if (code != NULL) *code = process->code;
    if (signalled != NULL) *signalled = process->signalled;
    return SAT_OK;
}

sat_status sat_process_kill(sat_process *process, int signal_number, sat_error *err)
{
    if (process->ended) return sat_fail(err, SAT_CLOSED, "process %ld has ended", (long)process->pid);
    if (kill(process->group ? -process->pid : process->pid, signal_number) == 0) return SAT_OK;
    return sat_fail(err, errno == EINVAL ? SAT_MISUSE : SAT_CLOSED, "cannot signal process %ld: %s",
                    (long)process->pid, strerror(errno));
}
