#include "reactor.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define USE_EPOLL 0
#define USE_KQUEUE 0
#if defined(SAT_POLL_ONLY)
/* what a system without either has; also for tests */
#elif defined(__linux__)
#undef USE_EPOLL
#define USE_EPOLL 1
#include <sys/epoll.h>
#elif defined(__APPLE__) || defined(__FreeBSD__) || defined(__NetBSD__) || defined(__OpenBSD__) || \
    defined(__DragonFly__)
#undef USE_KQUEUE
#define USE_KQUEUE 1
#include <sys/event.h>
#endif

enum { MAX_EVENTS = 64 };

struct sat_watch {
    sat_reactor *reactor;
    int fd;
    int events;
    bool again;
    bool dead;
    sat_ready_fn ready;
    void *arg;
    sat_watch *next;
    sat_watch **link; /* where the pointer to this one stands */
};

struct sat_reactor {
    size_t refs;
    int fd; /* epoll or kqueue, or -1 */
    CURLM *multi;
    double timer; /* when curl wants to be called, or < 0 */
    unsigned long round;
    bool dispatching;
    bool news;  /* something was called that a waiter may want to look at */
    bool quiet; /* the callback that runs said that it changed nothing of the kind */
    size_t agains;
    size_t count;
    sat_watch *watches;
    struct pollfd *polled; /* poll backend: scratch of capacity `capacity` */
    sat_watch **polled_watch;
    size_t capacity;
};

double sat_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void sat_rest(double seconds)
{
    if (seconds > 0) (void)poll(NULL, 0, (int)(seconds * 1e3));
}

/* ---- SIGPIPE ---------------------------------------------------------------------------------- */

void sat_sigpipe_begin(sat_sigpipe *guard)
{
    sigset_t pipe_only, pending, old;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    guard->was_pending = sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE) == 1;
    guard->was_blocked = pthread_sigmask(SIG_BLOCK, &pipe_only, &old) == 0 && sigismember(&old, SIGPIPE) == 1;
}

void sat_sigpipe_end(const sat_sigpipe *guard)
{
    sigset_t pipe_only, pending;
    int signal_number;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    if (!guard->was_pending && sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE) == 1)
        sigwait(&pipe_only, &signal_number); /* ours: take it off before the mask opens */
    if (!guard->was_blocked) pthread_sigmask(SIG_UNBLOCK, &pipe_only, NULL);
}

/* ---- descriptors ------------------------------------------------------------------------------ */

#if USE_EPOLL
static uint32_t epoll_events(int events)
{
    return (events & SAT_READ ? (uint32_t)EPOLLIN : 0) | (events & SAT_WRITE ? (uint32_t)EPOLLOUT : 0);
}

static sat_status backend_control(sat_watch *watch, int op, sat_error *err)
{
    struct epoll_event event = {.events = epoll_events(watch->events), .data = {.ptr = watch}};
    if (epoll_ctl(watch->reactor->fd, op, watch->fd, &event) == 0) return SAT_OK;
    return sat_fail(err, SAT_CONNECT, "cannot watch a descriptor: %s", strerror(errno));
}

static sat_status backend_add(sat_watch *watch, sat_error *err)
{
    return backend_control(watch, EPOLL_CTL_ADD, err);
}

static sat_status backend_change(sat_watch *watch, int before, sat_error *err)
{
    (void)before;
    return backend_control(watch, EPOLL_CTL_MOD, err);
}

static void backend_remove(sat_watch *watch)
{
    (void)backend_control(watch, EPOLL_CTL_DEL, NULL);
}

static int backend_open(void)
{
    return epoll_create1(EPOLL_CLOEXEC);
}
#elif USE_KQUEUE
/* Reading and writing are filters of their own, of which only those that are there can be deleted. */
static sat_status backend_filters(sat_watch *watch, int events, unsigned short flags, sat_error *err)
{
    struct kevent changes[2];
    int count = 0;
    if (events & SAT_READ) EV_SET(&changes[count++], watch->fd, EVFILT_READ, flags, 0, 0, (void *)watch);
    if (events & SAT_WRITE) EV_SET(&changes[count++], watch->fd, EVFILT_WRITE, flags, 0, 0, (void *)watch);
    if (count == 0 || kevent(watch->reactor->fd, changes, count, NULL, 0, NULL) == 0) return SAT_OK;
    return sat_fail(err, SAT_CONNECT, "cannot watch a descriptor: %s", strerror(errno));
}

static sat_status backend_add(sat_watch *watch, sat_error *err)
{
    return backend_filters(watch, watch->events, EV_ADD, err);
}

static sat_status backend_change(sat_watch *watch, int before, sat_error *err)
{
    (void)backend_filters(watch, before & ~watch->events, EV_DELETE, NULL);
    return backend_filters(watch, watch->events & ~before, EV_ADD, err);
}

static void backend_remove(sat_watch *watch)
{
    (void)backend_filters(watch, watch->events & SAT_READ, EV_DELETE, NULL);
    (void)backend_filters(watch, watch->events & SAT_WRITE, EV_DELETE, NULL);
}

static int backend_open(void)
{
    int fd = kqueue();
    if (fd >= 0) (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    return fd;
}
#else
static sat_status backend_add(sat_watch *watch, sat_error *err)
{
    sat_reactor *reactor = watch->reactor;
    if (reactor->count < reactor->capacity) return SAT_OK;
    size_t capacity = reactor->capacity ? reactor->capacity * 2 : 16;
    struct pollfd *polled = realloc(reactor->polled, capacity * sizeof *polled);
    if (polled == NULL) return sat_fail_nomem(err);
    reactor->polled = polled;
    sat_watch **watches = realloc(reactor->polled_watch, capacity * sizeof *watches);
    if (watches == NULL) return sat_fail_nomem(err);
    reactor->polled_watch = watches;
    reactor->capacity = capacity;
    return SAT_OK;
}

static sat_status backend_change(sat_watch *watch, int before, sat_error *err)
{
    (void)watch;
    (void)before;
    (void)err;
    return SAT_OK;
}

static void backend_remove(sat_watch *watch)
{
    (void)watch;
}
#endif

sat_watch *sat_watch_new(sat_reactor *reactor, int fd, int events, sat_ready_fn ready, void *arg, sat_error *err)
{
    sat_watch *watch = malloc(sizeof *watch);
    if (watch == NULL) {
        sat_fail_nomem(err);
        return NULL;
    }
    *watch = (sat_watch){.reactor = reactor, .fd = fd, .events = events, .ready = ready, .arg = arg};
    if (backend_add(watch, err) != SAT_OK) {
        free(watch);
        return NULL;
    }
    watch->next = reactor->watches;
    watch->link = &reactor->watches;
    if (watch->next) watch->next->link = &watch->next;
    reactor->watches = watch;
    reactor->count++;
    sat_reactor_retain(reactor);
    return watch;
}

sat_status sat_watch_set(sat_watch *watch, int events, sat_error *err)
{
    int before = watch->events;
    if (before == events) return SAT_OK;
    watch->events = events;
    return backend_change(watch, before, err);
}

void sat_watch_again(sat_watch *watch)
{
    if (watch->again) return;
    watch->again = true;
    watch->reactor->agains++;
}

static void watch_unlink(sat_watch *watch)
{
    *watch->link = watch->next;
    if (watch->next) watch->next->link = watch->link;
    watch->reactor->count--;
    free(watch);
}

void sat_watch_free(sat_watch *watch)
{
    if (watch == NULL || watch->dead) return;
    sat_reactor *reactor = watch->reactor;
    backend_remove(watch);
    if (watch->again) reactor->agains--;
    watch->again = false;
    watch->dead = true;
    /* a round under way may still hold a pointer to it */
    if (!reactor->dispatching) watch_unlink(watch);
    sat_reactor_release(reactor);
}

/* ---- curl ------------------------------------------------------------------------------------- */

static void multi_action(sat_reactor *reactor, curl_socket_t socket, int events)
{
    int running;
    sat_sigpipe guard;
    sat_sigpipe_begin(&guard);
    (void)curl_multi_socket_action(reactor->multi, socket, events, &running);
    sat_sigpipe_end(&guard);
}

static void socket_ready(void *arg, int events)
{
    sat_watch *watch = arg;
    int mask = (events & SAT_READ ? CURL_CSELECT_IN : 0) | (events & SAT_WRITE ? CURL_CSELECT_OUT : 0);
    multi_action(watch->reactor, watch->fd, mask);
}

static int on_socket(CURL *easy, curl_socket_t socket, int what, void *arg, void *socket_arg)
{
    sat_reactor *reactor = arg;
    sat_watch *watch = socket_arg;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        sat_watch_free(watch);
        curl_multi_assign(reactor->multi, socket, NULL);
        return 0;
    }
    int events = (what & CURL_POLL_IN ? SAT_READ : 0) | (what & CURL_POLL_OUT ? SAT_WRITE : 0);
    if (watch != NULL) return sat_watch_set(watch, events, NULL) == SAT_OK ? 0 : -1;
    watch = sat_watch_new(reactor, socket, events, socket_ready, NULL, NULL);
    if (watch == NULL) return -1;
    watch->arg = watch;
    curl_multi_assign(reactor->multi, socket, watch);
    return 0;
}

static int on_timer(CURLM *multi, long milliseconds, void *arg)
{
    sat_reactor *reactor = arg;
    (void)multi;
    reactor->timer = milliseconds < 0 ? -1.0 : sat_now() + (double)milliseconds * 1e-3;
    return 0;
}

sat_status sat_transfer_add(sat_reactor *reactor, sat_transfer *transfer, sat_error *err)
{
    if (curl_easy_setopt(transfer->easy, CURLOPT_PRIVATE, transfer) != CURLE_OK ||
        curl_multi_add_handle(reactor->multi, transfer->easy) != CURLM_OK)
        return sat_fail_nomem(err);
    return SAT_OK;
}

void sat_transfer_remove(sat_reactor *reactor, sat_transfer *transfer)
{
    sat_sigpipe guard;
    sat_sigpipe_begin(&guard);
    (void)curl_multi_remove_handle(reactor->multi, transfer->easy);
    sat_sigpipe_end(&guard);
}

static bool finish_transfers(sat_reactor *reactor)
{
    CURLMsg *message;
    int left;
    bool any = false;
    while ((message = curl_multi_info_read(reactor->multi, &left)) != NULL) {
        sat_transfer *transfer = NULL;
        CURLcode code = message->data.result;
        if (message->msg != CURLMSG_DONE) continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&transfer);
        any = true;
        if (transfer != NULL) transfer->done(transfer, code);
    }
    return any;
}

/* ---- reactor ---------------------------------------------------------------------------------- */

sat_reactor *sat_reactor_new(sat_error *err)
{
    sat_reactor *reactor = calloc(1, sizeof *reactor);
    if (reactor == NULL) {
        sat_fail_nomem(err);
        return NULL;
    }
    reactor->refs = 1;
    reactor->timer = -1.0;
    reactor->fd = -1;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(reactor);
        sat_fail(err, SAT_CONNECT, "libcurl cannot be initialised");
        return NULL;
    }
#if USE_EPOLL || USE_KQUEUE
    reactor->fd = backend_open();
    if (reactor->fd < 0) {
        sat_fail(err, SAT_CONNECT, "no descriptor for the event loop: %s", strerror(errno));
        sat_reactor_release(reactor);
        return NULL;
    }
#endif
    reactor->multi = curl_multi_init();
    if (reactor->multi == NULL) {
        sat_fail_nomem(err);
        sat_reactor_release(reactor);
        return NULL;
    }
    curl_multi_setopt(reactor->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(reactor->multi, CURLMOPT_SOCKETDATA, reactor);
    curl_multi_setopt(reactor->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(reactor->multi, CURLMOPT_TIMERDATA, reactor);
    return reactor;
}

sat_reactor *sat_reactor_retain(sat_reactor *reactor)
{
    reactor->refs++;
    return reactor;
}

void sat_reactor_release(sat_reactor *reactor)
{
    if (reactor == NULL || --reactor->refs > 0) return;
    /* curl's own idle connections hold watches that retain the reactor only while they are watched; cleaning
     * the multi handle closes them, and each removal must not come back here */
    reactor->refs = SIZE_MAX / 2;
    if (reactor->multi) curl_multi_cleanup(reactor->multi);
    while (reactor->watches) watch_unlink(reactor->watches);
    if (reactor->fd >= 0) close(reactor->fd);
    free(reactor->polled);
    free(reactor->polled_watch);
    free(reactor);
    curl_global_cleanup();
}

int sat_reactor_fd(const sat_reactor *reactor)
{
    return reactor->fd;
}

unsigned long sat_reactor_round(const sat_reactor *reactor)
{
    return reactor->round;
}

double sat_reactor_timeout(const sat_reactor *reactor)
{
    if (reactor->agains > 0) return 0.0;
    if (reactor->timer < 0) return -1.0;
    double left = reactor->timer - sat_now();
    return left > 0 ? left : 0.0;
}

static int wait_milliseconds(const sat_reactor *reactor, double timeout)
{
    double own = sat_reactor_timeout(reactor);
    if (own >= 0 && (timeout < 0 || own < timeout)) timeout = own;
    if (timeout < 0) return -1;
    return timeout > 1e6 ? 1000000000 : (int)ceil(timeout * 1e3);
}

static void dispatch(sat_watch *watch, int events)
{
    sat_reactor *reactor = watch->reactor;
    if (watch->dead || events == 0) return;
    reactor->quiet = false;
    watch->ready(watch->arg, events);
    if (!reactor->quiet) reactor->news = true;
}

void sat_reactor_quiet(sat_reactor *reactor)
{
    reactor->quiet = true;
}

#if USE_EPOLL
static int backend_wait(sat_reactor *reactor, int milliseconds)
{
    struct epoll_event events[MAX_EVENTS];
    int n = epoll_wait(reactor->fd, events, MAX_EVENTS, milliseconds);
    for (int i = 0; i < n; i++) {
        uint32_t got = events[i].events;
        sat_watch *watch = events[i].data.ptr;
        int mask = (got & EPOLLIN ? SAT_READ : 0) | (got & EPOLLOUT ? SAT_WRITE : 0);
        if (got & (EPOLLERR | EPOLLHUP)) mask |= watch->events; /* the reader or writer meets the error itself */
        dispatch(watch, mask);
    }
    return n;
}
#elif USE_KQUEUE
static int backend_wait(sat_reactor *reactor, int milliseconds)
{
    struct kevent events[MAX_EVENTS];
    struct timespec limit = {.tv_sec = milliseconds / 1000, .tv_nsec = milliseconds % 1000 * 1000000L};
    int n = kevent(reactor->fd, NULL, 0, events, MAX_EVENTS, milliseconds < 0 ? NULL : &limit);
    for (int i = 0; i < n; i++) {
        sat_watch *watch = (void *)events[i].udata;
        dispatch(watch, events[i].filter == EVFILT_READ ? SAT_READ : SAT_WRITE); /* either meets the error itself */
    }
    return n;
}
#else
static int backend_wait(sat_reactor *reactor, int milliseconds)
{
    nfds_t count = 0;
    for (sat_watch *watch = reactor->watches; watch; watch = watch->next) {
        short mask = (short)((watch->events & SAT_READ ? POLLIN : 0) | (watch->events & SAT_WRITE ? POLLOUT : 0));
        reactor->polled[count] = (struct pollfd){.fd = watch->fd, .events = mask};
        reactor->polled_watch[count++] = watch;
    }
    int n = poll(reactor->polled, count, milliseconds);
    for (nfds_t i = 0; n > 0 && i < count; i++) {
        short got = reactor->polled[i].revents;
        sat_watch *watch = reactor->polled_watch[i];
        int mask = (got & POLLIN ? SAT_READ : 0) | (got & POLLOUT ? SAT_WRITE : 0);
        if (got & (POLLERR | POLLHUP | POLLNVAL)) mask |= watch->events;
        dispatch(watch, mask);
    }
    return n;
}
#endif

static void dispatch_again(sat_reactor *reactor)
{
    for (sat_watch *watch = reactor->watches; watch && reactor->agains > 0; watch = watch->next) {
        if (!watch->again) continue;
        watch->again = false;
        reactor->agains--;
        dispatch(watch, SAT_READ);
    }
}

static void bury_dead(sat_reactor *reactor)
{
    sat_watch *watch = reactor->watches;
    while (watch) {
        sat_watch *next = watch->next;
        if (watch->dead) watch_unlink(watch);
        watch = next;
    }
}

/* One wait and its callbacks; *moved tells whether anything was called. */
static sat_status one_round(sat_reactor *reactor, double timeout, bool *moved, sat_error *err)
{
    int milliseconds = wait_milliseconds(reactor, timeout);
    reactor->dispatching = true;
    bool agains = reactor->agains > 0;
    if (agains) dispatch_again(reactor);
    errno = 0;
    int n = backend_wait(reactor, milliseconds);
    int failure = n < 0 ? errno : 0;
    bool timer = reactor->timer >= 0 && sat_now() >= reactor->timer;
    if (timer) {
        reactor->timer = -1.0;
        multi_action(reactor, CURL_SOCKET_TIMEOUT, 0);
    }
    bool finished = finish_transfers(reactor);
    reactor->dispatching = false;
    bury_dead(reactor);
    if (timer || finished) reactor->news = true;
    *moved = n > 0 || agains;
    if (failure == EINTR) return SAT_AGAIN;
    if (failure != 0) return sat_fail(err, SAT_CONNECT, "waiting for the network failed: %s", strerror(failure));
    return SAT_OK;
}

sat_status sat_reactor_poll(sat_reactor *reactor, double timeout, sat_error *err)
{
    if (reactor->dispatching) return sat_fail(err, SAT_MISUSE, "the event loop was entered inside its own callback");
    double deadline = timeout > 0 ? sat_now() + timeout : 0;
    bool moved = true;
    sat_status status = SAT_OK;
    sat_reactor_retain(reactor);
    reactor->news = false;
    while (status == SAT_OK && moved && !reactor->news) {
        status = one_round(reactor, timeout, &moved, err);
        if (timeout == 0) break;
        if (timeout > 0) {
            timeout = deadline - sat_now();
            if (timeout <= 0) break;
        }
    }
    if (reactor->news) reactor->round++;
    sat_reactor_release(reactor);
    return status;
}
