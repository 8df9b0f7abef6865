/* What a plain C program gets from a worker's socket: asks for one key with a hand-made message and reads the reply
 * into memory. The yardstick for gathering straight from a worker.   raw_gather HOST PORT KEY → "rate BYTES_A_SECOND" */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char hello[] = "\x83\xab" "compression\xc0\xa6" "python\x93\x03\x09\x00\xaf" "pickle-protocol\x04";

static void stop(const char *why)
{
    fprintf(stderr, "raw_gather: %s\n", why);
    exit(1);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void send_message(int fd, const void *text, size_t len)
{
    uint64_t head[3] = {16 + len, 1, len};
    if (write(fd, head, sizeof head) != sizeof head || write(fd, text, len) != (ssize_t)len) stop("cannot send");
}

static void read_all(int fd, void *data, size_t len)
{
    for (size_t got = 0; got < len;) {
        ssize_t n = read(fd, (char *)data + got, len - got);
        if (n <= 0) stop("the worker closed the connection");
        got += (size_t)n;
    }
}

static size_t read_message(int fd)
{
    uint64_t head[2], total = 0;
    read_all(fd, head, sizeof head);
    if (head[1] == 0 || head[1] > 1000) stop("an unexpected message");
    uint64_t *lengths = calloc(head[1], 8);
    read_all(fd, lengths, 8 * head[1]);
    for (uint64_t i = 0; i < head[1]; i++) total += lengths[i];
    void *body = NULL;
    if (posix_memalign(&body, 1 << 21, total ? total : 1) != 0) stop("out of memory");
#if defined(MADV_HUGEPAGE)
    (void)madvise(body, total, MADV_HUGEPAGE);
#endif
    read_all(fd, body, total);
    free(body);
    free(lengths);
    return total;
}

int main(int argc, char **argv)
{
    char request[512];
    if (argc != 4 || strlen(argv[3]) > 200) stop("usage: raw_gather HOST PORT KEY");
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    inet_pton(AF_INET, argv[1], &address.sin_addr);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) stop("cannot connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    send_message(fd, hello, sizeof hello - 1);
    read_message(fd);
    int len = snprintf(request, sizeof request, "\x84\xa2op\xa8get_data\xa5reply\xc3\xa4keys\x91\xd9%c%s\xa3who\xa3raw",
                       (int)strlen(argv[3]), argv[3]);
    double best = 0;
    for (int i = 0; i < 6; i++) {
        double start = now();
        send_message(fd, request, (size_t)len);
        size_t bytes = read_message(fd);
        double rate = (double)bytes / (now() - start);
        send_message(fd, "\xa2OK", 3);
        if (rate > best) best = rate;
    }
    printf("rate %.0f\n", best);
    return 0;
}
