/* Makes the n-th call that writes below a directory fail, as a dying or a full disk does.
 *
 * Loaded with LD_PRELOAD it sits below Python and below SQLite, both of which call libc. A process says
 * with faulty_arm which directory is watched, which call fails (counted from 1; 0: none) and how
 * (EIO, ENOSPC); with `lasting` every call from that one on fails. faulty_calls tells how many calls
 * were counted, faulty_fired whether one failed. Reads, closes and locks are let through.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define HANDLES 4096

static char watched[4096];
static long failing;
static int failing_with, failing_lasts;
static atomic_long calls;
static atomic_int fired;
static atomic_char below[HANDLES];

void faulty_arm(const char *directory, long at, int error, int lasting)
{
    strncpy(watched, directory, sizeof watched - 1);
    failing_with = error;
    failing_lasts = lasting;
    atomic_store(&calls, 0);
    atomic_store(&fired, 0);
    failing = at;
}

long faulty_calls(void) { return atomic_load(&calls); }
int faulty_fired(void) { return atomic_load(&fired); }

static int fails(void)
{
    long number = atomic_fetch_add(&calls, 1) + 1;

    if (!failing || number < failing || (number > failing && !failing_lasts))
        return 0;
    atomic_store(&fired, 1);
    errno = failing_with;
    return 1;
}

static int is_below(const char *path)
{
    return watched[0] && path && strncmp(path, watched, strlen(watched)) == 0;
}

static int is_ours(int handle)
{
    return handle >= 0 && handle < HANDLES && atomic_load(&below[handle]);
}

static void *real(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);

    if (!found)
        abort();
    return found;
}

#define REAL(name, type)            \
    static __typeof__(type) *next;  \
    if (!next)                      \
        next = (__typeof__(type) *)real(name)

static int opened(int handle, const char *path)
{
    if (handle >= 0 && handle < HANDLES)
        atomic_store(&below[handle], is_below(path));
    return handle;
}

/* Opening to read alone is no write: a database that cannot be read is another story. */
#define WRITES(flags) (((flags) & O_ACCMODE) != O_RDONLY)

#define OPEN(name)                                                 \
    int name(const char *path, int flags, ...)                     \
    {                                                              \
        mode_t mode = 0;                                           \
        va_list rest;                                              \
        REAL(#name, int(const char *, int, ...));              \
        if (flags & (O_CREAT | O_TMPFILE)) {                       \
            va_start(rest, flags);                                 \
            mode = va_arg(rest, mode_t);                           \
            va_end(rest);                                          \
        }                                                          \
        if (is_below(path) && WRITES(flags) && fails())            \
            return -1;                                             \
        return opened(next(path, flags, mode), path);              \
    }
OPEN(open)
OPEN(open64)

int close(int handle)
{
    REAL("close", int(int));
    if (handle >= 0 && handle < HANDLES)
        atomic_store(&below[handle], 0);
    return next(handle);
}

#define ON_HANDLE(result, name, parameters, arguments)   \
    result name parameters                               \
    {                                                    \
        REAL(#name, result parameters);              \
        if (is_ours(handle) && fails())                  \
            return -1;                                   \
        return next arguments;                           \
    }
ON_HANDLE(ssize_t, write, (int handle, const void *data, size_t size), (handle, data, size))
ON_HANDLE(ssize_t, pwrite, (int handle, const void *data, size_t size, off_t at), (handle, data, size, at))
ON_HANDLE(ssize_t, pwrite64, (int handle, const void *data, size_t size, off64_t at), (handle, data, size, at))
ON_HANDLE(ssize_t, writev, (int handle, const struct iovec *parts, int count), (handle, parts, count))
ON_HANDLE(int, fsync, (int handle), (handle))
ON_HANDLE(int, fdatasync, (int handle), (handle))
ON_HANDLE(int, ftruncate, (int handle, off_t size), (handle, size))
ON_HANDLE(int, ftruncate64, (int handle, off64_t size), (handle, size))
ON_HANDLE(int, fchmod, (int handle, mode_t mode), (handle, mode))

/* This one returns the error instead of setting it. */
#define ALLOCATE(name, offset)                              \
    int name(int handle, offset at, offset size)            \
    {                                                       \
        REAL(#name, int(int, offset, offset));          \
        if (is_ours(handle) && fails())                     \
            return failing_with;                            \
        return next(handle, at, size);                      \
    }
ALLOCATE(posix_fallocate, off_t)
ALLOCATE(posix_fallocate64, off64_t)

#define ON_PATH(name, parameters, arguments)       \
    int name parameters                            \
    {                                              \
        REAL(#name, int parameters);           \
        if (is_below(path) && fails())             \
            return -1;                             \
        return next arguments;                     \
    }
ON_PATH(mkdir, (const char *path, mode_t mode), (path, mode))
ON_PATH(chmod, (const char *path, mode_t mode), (path, mode))
ON_PATH(unlink, (const char *path), (path))
ON_PATH(rename, (const char *path, const char *target), (path, target))
