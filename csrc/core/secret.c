#include "secret.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void sat_secret_free(sat_secret *secret)
{
    if (secret->data) {
        OPENSSL_cleanse(secret->data, secret->len);
        free(secret->data);
    }
    *secret = (sat_secret){NULL, 0};
}

static sat_status check_file(int fd, const char *path, sat_error *err)
{
    struct stat info;
    if (fstat(fd, &info) != 0) return sat_fail(err, SAT_VALUE, "cannot read %s: %s", path, strerror(errno));
    if (S_ISDIR(info.st_mode)) return sat_fail(err, SAT_VALUE, "cannot read %s: it is a directory", path);
    /* a pipe, such as a shell's <(command), has no lasting mode to judge */
    if (S_ISREG(info.st_mode) && (info.st_mode & (S_IRGRP | S_IWGRP | S_IROTH | S_IWOTH)) != 0)
        return sat_fail(err, SAT_VALUE,
                        "%s can be read by others (mode %03o), so the token in it is not used: run chmod 600 '%s'", path,
                        (unsigned)(info.st_mode & 0777), path);
    return SAT_OK;
}

static sat_status read_all(int fd, const char *path, size_t limit, sat_secret *out, sat_error *err)
{
    while (out->len <= limit) {
        ssize_t n = read(fd, out->data + out->len, limit + 1 - out->len);
        if (n == 0) return SAT_OK;
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return sat_fail(err, SAT_VALUE, "cannot read %s: %s", path, strerror(errno));
        out->len += (size_t)n;
    }
    return sat_fail(err, SAT_VALUE, "%s is longer than %zu bytes, so it is not what it should be", path, limit);
}

sat_status sat_secret_read(const char *path, size_t limit, sat_secret *out, sat_error *err)
{
    *out = (sat_secret){NULL, 0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return sat_fail(err, SAT_VALUE, "cannot read %s: %s", path, strerror(errno));
    sat_status status = check_file(fd, path, err);
    if (status == SAT_OK) {
        out->data = malloc(limit + 1);
        status = out->data ? read_all(fd, path, limit, out, err) : sat_fail_nomem(err);
    }
    close(fd);
    if (status != SAT_OK) sat_secret_free(out);
    return status;
}
