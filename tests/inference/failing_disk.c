// Preloaded into a process, it makes opening some files fail as disks do: by their names, hang*, eio* and slow*.
// Of files called lost*, the status is never told.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

static int opened(const char *symbol, const char *path, int flags, mode_t mode) {
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    if (!strncmp(name, "hang", 4))
        for (;;) pause();
    if (!strncmp(name, "slow", 4)) sleep(2);
    if (!strncmp(name, "eio", 3)) {
        errno = EIO;
        return -1;
    }
    return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, symbol))(path, flags, mode);
}

static mode_t mode_of(va_list arguments) { return va_arg(arguments, mode_t); }

#define INSTEAD_OF(symbol)                                  \
    int symbol(const char *path, int flags, ...) {          \
        va_list arguments;                                  \
        va_start(arguments, flags);                         \
        mode_t mode = flags & O_CREAT ? mode_of(arguments) : 0; \
        va_end(arguments);                                  \
        return opened(#symbol, path, flags, mode);          \
    }

INSTEAD_OF(open)
INSTEAD_OF(open64)

static int status(const char *symbol, const char *path, void *buffer) {
    const char *slash = strrchr(path, '/');
    if (!strncmp(slash ? slash + 1 : path, "lost", 4))
        for (;;) pause();
    return ((int (*)(const char *, void *))dlsym(RTLD_NEXT, symbol))(path, buffer);
}

int stat(const char *path, void *buffer) { return status("stat", path, buffer); }
int stat64(const char *path, void *buffer) { return status("stat64", path, buffer); }
