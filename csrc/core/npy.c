#include "npy.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint8_t MAGIC[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};

enum { ALIGNMENT = 64 };

bool sat_npy_is(const uint8_t *bytes, size_t len)
{
    return len >= sizeof MAGIC && memcmp(bytes, MAGIC, sizeof MAGIC) == 0;
}

static sat_status parse_fields(sat_literal *lit, sat_npy *out, sat_buf *key)
{
    bool has_order = false, has_shape = false;
    if (!sat_literal_take(lit, '{')) return sat_fail(lit->err, SAT_VALUE, ".npy file: the header is not a dict");
    while (!sat_literal_take(lit, '}')) {
        sat_buf_clear(key);
        sat_status status = sat_literal_string(lit, key);
        if (status != SAT_OK) return status;
        sat_buf_u8(key, '\0');
        if (key->failed) return sat_fail_nomem(lit->err);
        if (!sat_literal_take(lit, ':'))
            return sat_fail(lit->err, SAT_VALUE, ".npy file: a ':' is missing in the header");
        const char *name = (const char *)key->data;
        if (strcmp(name, "descr") == 0 && out->type == NULL) {
            status = sat_literal_dtype(lit, &out->type);
        } else if (strcmp(name, "fortran_order") == 0) {
            sat_literal_space(lit);
            out->fortran = lit->p < lit->end && *lit->p == 'T';
            has_order = true;
            status = sat_literal_skip(lit);
        } else if (strcmp(name, "shape") == 0) {
            has_shape = true;
            status = sat_literal_shape(lit, &out->ndim, out->shape);
        } else {
            status = sat_fail(lit->err, SAT_VALUE, ".npy file: an unknown or repeated key in the header");
        }
        if (status != SAT_OK) return status;
        if (sat_literal_take(lit, ',')) continue;
        if (!sat_literal_take(lit, '}')) return sat_fail(lit->err, SAT_VALUE, ".npy file: the header has no end");
        break;
    }
    if (out->type == NULL || !has_order || !has_shape)
        return sat_fail(lit->err, SAT_VALUE, ".npy file: the header lacks descr, fortran_order or shape");
    return SAT_OK;
}

sat_status sat_npy_parse(const uint8_t *bytes, size_t len, sat_npy *out, sat_error *err)
{
    memset(out, 0, sizeof *out);
    if (!sat_npy_is(bytes, len) || len < 10) return sat_fail(err, SAT_VALUE, "not an .npy file");
    unsigned version = bytes[6];
    if (version < 1 || version > 3)
        return sat_fail(err, SAT_VALUE, ".npy file: version %u.%u of the format is not known", version,
                        (unsigned)bytes[7]);
    size_t start = version == 1 ? 10 : 12;
    if (len < start) return sat_fail(err, SAT_VALUE, ".npy file: it ends in its header");
    size_t header = version == 1 ? sat_get_le16(bytes + 8) : sat_get_le32(bytes + 8);
    if (header > len - start) return sat_fail(err, SAT_VALUE, ".npy file: it ends in its header");

    sat_literal lit = {.p = (const char *)bytes + start, .end = (const char *)bytes + start + header,
                       .latin1 = version < 3, .depth = 0, .err = err};
    sat_buf key = SAT_BUF_INIT;
    sat_status status = parse_fields(&lit, out, &key);
    sat_buf_free(&key);
    out->data = start + header;
    if (status == SAT_OK && out->type->kind == 'O')
        status = sat_fail(err, SAT_VALUE, ".npy file: it holds Python objects as a pickle, not an array of bytes");
    if (status != SAT_OK) {
        sat_dtype_release(out->type);
        out->type = NULL;
    }
    return status;
}

sat_status sat_npy_header(const sat_dtype *type, int ndim, const int64_t *shape, bool fortran, sat_buf *out,
                          sat_error *err)
{
    sat_buf text = SAT_BUF_INIT;
    char number[32];
    bool ascii = true;
    if (type->kind == 'O') return sat_fail(err, SAT_VALUE, "an array of Python objects cannot be saved as .npy");

    sat_buf_str(&text, "{'descr': ");
    if (!sat_dtype_is_record(type)) sat_buf_u8(&text, '\'');
    sat_buf_str(&text, sat_dtype_str(type));
    if (!sat_dtype_is_record(type)) sat_buf_u8(&text, '\'');
    sat_buf_str(&text, fortran ? ", 'fortran_order': True, 'shape': (" : ", 'fortran_order': False, 'shape': (");
    for (int i = 0; i < ndim; i++) {
        (void)snprintf(number, sizeof number, "%s%" PRId64, i > 0 ? ", " : "", shape[i]);
        sat_buf_str(&text, number);
    }
    sat_buf_str(&text, ndim == 1 ? ",), }" : "), }");
    for (size_t i = 0; i < text.len; i++) ascii = ascii && text.data[i] < 0x80;

    unsigned version = !ascii ? 3 : text.len + ALIGNMENT + 10 > UINT16_MAX ? 2 : 1;
    size_t start = version == 1 ? 10 : 12;
    while ((start + text.len + 1) % ALIGNMENT != 0 && !text.failed) sat_buf_u8(&text, ' ');
    sat_buf_u8(&text, '\n');
    sat_buf_append(out, MAGIC, sizeof MAGIC);
    sat_buf_u8(out, (uint8_t)version);
    sat_buf_u8(out, 0);
    if (version == 1)
        sat_buf_le16(out, (uint16_t)text.len);
    else
        sat_buf_le32(out, (uint32_t)text.len);
    sat_buf_append(out, text.data, text.len);
    bool failed = text.failed || out->failed || text.len > UINT32_MAX;
    sat_buf_free(&text);
    return failed ? sat_fail_nomem(err) : SAT_OK;
}

/* ---- files ---- */

static sat_status file_error(sat_error *err, const char *doing, const char *path)
{
    return sat_fail(err, SAT_VALUE, "cannot %s '%.300s': %s", doing, path, strerror(errno));
}

static bool write_elements(FILE *file, const sat_ndarray *nd)
{
    uint8_t gathered[8192];
    sat_nd_walk walk;
    size_t offset;
    size_t size = nd->type->itemsize;
    size_t held = 0;
    int64_t n;
    if (size == 0) return true;
    sat_nd_walk_begin(&walk, nd, false);
    while ((n = sat_nd_walk_next(&walk, INT64_MAX, &offset)) > 0) {
        const uint8_t *p = nd->base + offset;
        if (walk.stride == (int64_t)size) {
            if (held > 0 && fwrite(gathered, 1, held, file) != held) return false;
            held = 0;
            if (fwrite(p, size, (size_t)n, file) != (size_t)n) return false;
            continue;
        }
        for (int64_t i = 0; i < n; i++, p += walk.stride) {
            if (held + size > sizeof gathered) {
                if (held > 0 && fwrite(gathered, 1, held, file) != held) return false;
                held = 0;
            }
            if (size > sizeof gathered) {
                if (fwrite(p, 1, size, file) != size) return false;
            } else {
                memcpy(gathered + held, p, size);
                held += size;
            }
            if (i == n - 1) break; /* p must not leave the array */
        }
    }
    return held == 0 || fwrite(gathered, 1, held, file) == held;
}

sat_status sat_npy_save(const char *path, const sat_ndarray *nd, sat_error *err)
{
    sat_buf header = SAT_BUF_INIT;
    bool fortran = sat_nd_contiguous(nd) == 'F';
    sat_status status = sat_npy_header(nd->type, nd->ndim, nd->shape, fortran, &header, err);
    if (status != SAT_OK) {
        sat_buf_free(&header);
        return status;
    }
    sat_ndarray rows = *nd;
    if (fortran) {
        int order[SAT_ND_MAX_DIMS];
        for (int i = 0; i < nd->ndim; i++) order[i] = nd->ndim - 1 - i;
        sat_nd_permute(&rows, order);
    }
    FILE *file = fopen(path, "wb");
    if (file == NULL) {
        status = file_error(err, "create", path);
    } else {
        bool ok = fwrite(header.data, 1, header.len, file) == header.len && write_elements(file, &rows);
        int cause = errno;
        if (fclose(file) != 0 && ok) {
            cause = errno;
            ok = false;
        }
        errno = cause;
        if (!ok) status = file_error(err, "write", path);
    }
    sat_buf_free(&header);
    return status;
}

static sat_status open_file(const char *path, int flags, int *fd, struct stat *info, sat_error *err)
{
    *fd = open(path, flags | O_CLOEXEC);
    if (*fd < 0) return file_error(err, "open", path);
    if (fstat(*fd, info) != 0) {
        sat_status status = file_error(err, "read", path);
        (void)close(*fd);
        return status;
    }
    if (S_ISDIR(info->st_mode)) {
        (void)close(*fd);
        errno = EISDIR;
        return file_error(err, "read", path);
    }
    return SAT_OK;
}

sat_status sat_file_read(const char *path, sat_block **out, sat_error *err)
{
    struct stat info;
    int fd;
    sat_buf bytes = SAT_BUF_INIT;
    *out = NULL;
    sat_status status = open_file(path, O_RDONLY, &fd, &info, err);
    if (status != SAT_OK) return status;
    /* one byte more than expected, so that the end is seen without growing */
    size_t room = info.st_size > 0 && (uintmax_t)info.st_size < SIZE_MAX / 2 ? (size_t)info.st_size + 1 : 65536;
    for (;;) {
        if (!sat_buf_reserve(&bytes, bytes.len < room ? room - bytes.len : 65536)) {
            status = sat_fail_nomem(err);
            break;
        }
        size_t want = bytes.cap - bytes.len;
        if (want > (size_t)1 << 30) want = (size_t)1 << 30; /* some systems refuse more than 2 GiB at once */
        ssize_t got = read(fd, bytes.data + bytes.len, want);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) status = file_error(err, "read", path);
        if (got <= 0) break;
        bytes.len += (size_t)got;
    }
    (void)close(fd);
    if (status == SAT_OK) {
        *out = sat_block_adopt(bytes.data, bytes.len, NULL, NULL);
        if (*out == NULL) status = sat_fail_nomem(err);
    }
    if (status != SAT_OK) sat_buf_free(&bytes);
    return status;
}

static void unmap(void *data, size_t len, void *arg)
{
    (void)arg;
    (void)munmap(data, len);
}

sat_status sat_file_map(const char *path, char mode, sat_block **out, sat_error *err)
{
    struct stat info;
    int fd;
    *out = NULL;
    sat_status status = open_file(path, mode == '+' ? O_RDWR : O_RDONLY, &fd, &info, err);
    if (status != SAT_OK) return status;
    if (!S_ISREG(info.st_mode)) {
        (void)close(fd);
        return sat_fail(err, SAT_VALUE, "cannot map '%.300s': not a regular file", path);
    }
    if (info.st_size == 0 || (uintmax_t)info.st_size > PTRDIFF_MAX) {
        (void)close(fd);
        if (info.st_size != 0) return sat_fail(err, SAT_LIMIT, "cannot map '%.300s': larger than memory", path);
        *out = sat_block_new(0);
        return *out != NULL ? SAT_OK : sat_fail_nomem(err);
    }
    size_t len = (size_t)info.st_size;
    int protection = mode == 'r' ? PROT_READ : PROT_READ | PROT_WRITE;
    void *data = mmap(NULL, len, protection, mode == '+' ? MAP_SHARED : MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) status = file_error(err, "map", path);
    (void)close(fd); /* the map stays */
    if (status != SAT_OK) return status;
    *out = sat_block_adopt(data, len, unmap, NULL);
    if (*out == NULL) {
        (void)munmap(data, len);
        return sat_fail_nomem(err);
    }
    return SAT_OK;
}
