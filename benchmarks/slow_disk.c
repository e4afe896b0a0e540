/* A network file system to measure against: every open, stat and opendir below $SLOW_ROOT takes $SLOW_US microseconds
 * longer. Loaded by LD_PRELOAD; the wait is outside the kernel, so threads wait side by side as they do for a server. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void wait_if_slow(const char *path)
{
    const char *root = getenv("SLOW_ROOT"), *us = getenv("SLOW_US");
    if (root && us && path && strncmp(path, root, strlen(root)) == 0)
        usleep(atoi(us));
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define MODE(flags) \
    mode_t mode = 0; \
    if (__OPEN_NEEDS_MODE(flags)) { va_list list; va_start(list, flags); mode = va_arg(list, mode_t); va_end(list); }

int open(const char *path, int flags, ...) { MODE(flags) wait_if_slow(path); return REAL(open)(path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) wait_if_slow(path); return REAL(open64)(path, flags, mode); }
DIR *opendir(const char *path) { wait_if_slow(path); return REAL(opendir)(path); }
int stat(const char *path, struct stat *to) { wait_if_slow(path); return REAL(stat)(path, to); }
int stat64(const char *path, struct stat64 *to) { wait_if_slow(path); return REAL(stat64)(path, to); }
int fstatat64(int at, const char *path, struct stat64 *to, int flags)
{
    wait_if_slow(path);
    return REAL(fstatat64)(at, path, to, flags);
}
