/* Loaded before all else (LD_PRELOAD): counts the system calls that write below a folder, and lets one of them fail, write
   half, or end the process. Nothing happens until soak_arm. The counter is shared with the process that loaded it first. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NOTHING, FAIL, HALF, SIGNAL_BEFORE, SIGNAL_AFTER };

static int *count;
static char folder[PATH_MAX];
static int armed, at, action, value, lasting;

__attribute__((constructor)) static void begin(void) {
    count = mmap(NULL, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

void soak_arm(const char *where, int call, int what, int with, int lasts) {
    snprintf(folder, sizeof folder, "%s", where);
    *count = 0;
    at = call, action = what, value = with, lasting = lasts, armed = 1;
}

int soak_count(void) { return *count; }

static int below(const char *path) {
    size_t length = strlen(folder);
    return !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static int path_below(int directory, const char *path) {
    char place[64], full[PATH_MAX];
    if (!armed || !path) return 0;
    if (path[0] == '/') return below(path);
    if (directory == AT_FDCWD) strcpy(place, "/proc/self/cwd");
    else snprintf(place, sizeof place, "/proc/self/fd/%d", directory);
    ssize_t length = readlink(place, full, sizeof full - 1);
    if (length < 0) return 0;
    full[length] = 0;
    return below(full);
}

static int fd_below(int descriptor) {
    char place[64], full[PATH_MAX];
    if (!armed) return 0;
    snprintf(place, sizeof place, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(place, full, sizeof full - 1);
    if (length < 0) return 0;
    full[length] = 0;
    return below(full);
}

/* What is to happen to this call, which counts. */
static int turn(void) {
    int number = __atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST);
    if (number == at) return action;
    return lasting && number > at && at > 0 && action == FAIL ? FAIL : NOTHING;
}

/* The next call after half of a write fails. */
static void next_fails(void) { at = *count + 1, action = FAIL; }

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name)

#define CALL(type, counts, bad, expression) \
    do { \
        int what = (counts) ? turn() : NOTHING; \
        if (what == FAIL) { errno = value; return bad; } \
        if (what == SIGNAL_BEFORE) kill(getpid(), value); \
        type result = (expression); \
        if (what == SIGNAL_AFTER) { int kept = errno; kill(getpid(), value); errno = kept; } \
        return result; \
    } while (0)

#define WRITING(name, parameters, types, real_call, half_call, size) \
    ssize_t name parameters { \
        static ssize_t(*real) types; \
        if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name); \
        int what = fd_below(fd) ? turn() : NOTHING; \
        if (what == FAIL) { errno = value; return -1; } \
        if (what == HALF && (size) > 1) { next_fails(); return half_call; } \
        if (what == SIGNAL_BEFORE) kill(getpid(), value); \
        ssize_t result = what == SIGNAL_AFTER && (size) > 1 ? half_call : real_call; \
        if (what == SIGNAL_AFTER) kill(getpid(), value); \
        return result; \
    }

WRITING(write, (int fd, const void *data, size_t n), (int, const void *, size_t), real(fd, data, n), real(fd, data, n / 2), n)
WRITING(pwrite, (int fd, const void *data, size_t n, off_t o), (int, const void *, size_t, off_t), real(fd, data, n, o),
        real(fd, data, n / 2, o), n)
WRITING(pwrite64, (int fd, const void *data, size_t n, off64_t o), (int, const void *, size_t, off64_t), real(fd, data, n, o),
        real(fd, data, n / 2, o), n)
WRITING(writev, (int fd, const struct iovec *v, int n), (int, const struct iovec *, int), real(fd, v, n), real(fd, v, n / 2), n)

#define WRITES(flags) (((flags) & O_ACCMODE) != O_RDONLY || ((flags) & O_CREAT))
#define MODE \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list list; va_start(list, flags); mode = va_arg(list, mode_t); va_end(list); }

int open(const char *path, int flags, ...) {
    MODE REAL(int, open, const char *, int, ...);
    CALL(int, WRITES(flags) && path_below(AT_FDCWD, path), -1, real(path, flags, mode));
}
int open64(const char *path, int flags, ...) {
    MODE REAL(int, open64, const char *, int, ...);
    CALL(int, WRITES(flags) && path_below(AT_FDCWD, path), -1, real(path, flags, mode));
}
int openat(int where, const char *path, int flags, ...) {
    MODE REAL(int, openat, int, const char *, int, ...);
    CALL(int, WRITES(flags) && path_below(where, path), -1, real(where, path, flags, mode));
}
int openat64(int where, const char *path, int flags, ...) {
    MODE REAL(int, openat64, int, const char *, int, ...);
    CALL(int, WRITES(flags) && path_below(where, path), -1, real(where, path, flags, mode));
}
FILE *fopen(const char *path, const char *mode) {
    REAL(FILE *, fopen, const char *, const char *);
    CALL(FILE *, mode[0] != 'r' && path_below(AT_FDCWD, path), NULL, real(path, mode));
}
FILE *fopen64(const char *path, const char *mode) {
    REAL(FILE *, fopen64, const char *, const char *);
    CALL(FILE *, mode[0] != 'r' && path_below(AT_FDCWD, path), NULL, real(path, mode));
}
int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    CALL(int, path_below(AT_FDCWD, to), -1, real(from, to));
}
int renameat(int a, const char *from, int b, const char *to) {
    REAL(int, renameat, int, const char *, int, const char *);
    CALL(int, path_below(b, to), -1, real(a, from, b, to));
}
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    REAL(int, renameat2, int, const char *, int, const char *, unsigned);
    CALL(int, path_below(b, to), -1, real(a, from, b, to, flags));
}
int link(const char *from, const char *to) {
    REAL(int, link, const char *, const char *);
    CALL(int, path_below(AT_FDCWD, to), -1, real(from, to));
}
int linkat(int a, const char *from, int b, const char *to, int flags) {
    REAL(int, linkat, int, const char *, int, const char *, int);
    CALL(int, path_below(b, to), -1, real(a, from, b, to, flags));
}
int symlink(const char *to, const char *path) {
    REAL(int, symlink, const char *, const char *);
    CALL(int, path_below(AT_FDCWD, path), -1, real(to, path));
}
int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    CALL(int, path_below(AT_FDCWD, path), -1, real(path, mode));
}
int mkdirat(int where, const char *path, mode_t mode) {
    REAL(int, mkdirat, int, const char *, mode_t);
    CALL(int, path_below(where, path), -1, real(where, path, mode));
}
int fsync(int fd) {
    REAL(int, fsync, int);
    CALL(int, fd_below(fd), -1, real(fd));
}
int fdatasync(int fd) {
    REAL(int, fdatasync, int);
    CALL(int, fd_below(fd), -1, real(fd));
}
int ftruncate(int fd, off_t length) {
    REAL(int, ftruncate, int, off_t);
    CALL(int, fd_below(fd), -1, real(fd, length));
}
int ftruncate64(int fd, off64_t length) {
    REAL(int, ftruncate64, int, off64_t);
    CALL(int, fd_below(fd), -1, real(fd, length));
}
/* A close that fails has closed the file: it tells of data that could not be kept. */
int close(int fd) {
    REAL(int, close, int);
    int flags = armed && fd_below(fd) ? fcntl(fd, F_GETFL) : O_RDONLY;
    int what = (flags & O_ACCMODE) != O_RDONLY ? turn() : NOTHING;
    if (what == SIGNAL_BEFORE) kill(getpid(), value);
    int result = real(fd);
    if (what == FAIL) { errno = value; return -1; }
    if (what == SIGNAL_AFTER) kill(getpid(), value);
    return result;
}
