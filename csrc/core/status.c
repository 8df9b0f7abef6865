#include "status.h"

#include <stdarg.h>
#include <stdio.h>

sat_status sat_fail(sat_error *err, sat_status status, const char *format, ...)
{
    if (err != NULL) {
        va_list args;
        err->status = status;
        va_start(args, format);
        (void)vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
    }
    return status;
}

sat_status sat_fail_nomem(sat_error *err)
{
    return sat_fail(err, SAT_NOMEM, "out of memory");
}

const char *sat_status_kind(sat_status status)
{
    switch (status) {
    case SAT_CONNECT:
        return "connect";
    case SAT_TLS:
        return "tls";
    case SAT_TIMEOUT:
        return "timeout";
    case SAT_CLOSED:
    case SAT_EOF:
        return "closed";
    case SAT_VALUE:
    case SAT_MISUSE:
        return "value";
    case SAT_CANCELLED:
        return "cancelled";
    case SAT_LOST:
        return "lost";
    case SAT_LIMIT:
    case SAT_NOMEM:
        return "limit";
    case SAT_OK:
    case SAT_AGAIN:
    case SAT_PROTOCOL:
        break;
    }
    return "protocol";
}
