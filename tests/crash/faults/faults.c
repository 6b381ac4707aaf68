/* Faults of the system, for the unmodified program: preloaded (LD_PRELOAD), switched by the test through one page of
 * shared memory while the program runs.
 *
 *     FAULTS_FOLDER     real path of the folder whose files are affected
 *     FAULTS_SWITCHES   a file with `struct switches`, mapped by both sides
 *
 * full        writes: ENOSPC (a file may still be made longer by a hole, which needs no room)
 * sync_fails  fsync, fdatasync of a file: EIO (what becomes of a folder's sync SQLite does not ask)
 * read_only   opening for writing, writing, removing: EROFS, as after the kernel has remounted a failing disk
 * no_files    opening in the folder: EMFILE, and from the first failure to the last anywhere
 * clock       nanoseconds by which CLOCK_REALTIME is wrong; the monotonic clock is right
 *
 * Each fault counts the calls that it could strike, and strikes those with the numbers `begins` to `ends` - 1.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct fault {
    volatile int64_t begins, ends, calls;
};

struct switches {
    volatile int64_t clock;
    struct fault full, sync_fails, read_only, no_files;
};

enum { DESCRIPTORS = 4096 };
static struct switches none, *switches = &none;
static const char *folder;
static char affected[DESCRIPTORS];

static int (*real_open)(const char *, int, ...);
static int (*real_close)(int);
static int (*real_access)(const char *, int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_unlink)(const char *);
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void prepare(void) {
    if (real_open) return;
    real_close = dlsym(RTLD_NEXT, "close");
    real_access = dlsym(RTLD_NEXT, "access");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    real_open = dlsym(RTLD_NEXT, "open64");
    const char *path = getenv("FAULTS_SWITCHES");
    folder = getenv("FAULTS_FOLDER");
    int descriptor = path && folder ? real_open(path, O_RDWR | O_CLOEXEC) : -1;
    void *page = descriptor < 0 ? MAP_FAILED : mmap(NULL, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (page == MAP_FAILED) {
        dprintf(2, "faults: FAULTS_FOLDER and FAULTS_SWITCHES must be set\n");
        _exit(78);
    }
    real_close(descriptor);
    switches = page;
}

static int fail(int error) {
    errno = error;
    return -1;
}

static int strikes_at(const struct fault *fault, int64_t call) { return fault->begins <= call && call < fault->ends; }

static int strikes(struct fault *fault) {
    return strikes_at(fault, __atomic_add_fetch(&fault->calls, 1, __ATOMIC_SEQ_CST));
}

static int is_inside(const char *path) {
    size_t length = strlen(folder);
    return !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static int is_affected(int descriptor) { return descriptor >= 0 && descriptor < DESCRIPTORS && affected[descriptor]; }

/* Opening. */

static int open_any(const char *path, int flags, mode_t mode) {
    prepare();
    int inside = is_inside(path);
    struct fault *no_files = &switches->no_files;
    if (inside ? strikes(no_files) : strikes_at(no_files, no_files->calls)) return fail(EMFILE);
    if (inside && flags & (O_ACCMODE | O_CREAT) && strikes(&switches->read_only)) return fail(EROFS);
    int descriptor = real_open(path, flags, mode);
    if (descriptor >= 0 && descriptor < DESCRIPTORS) affected[descriptor] = inside && path[strlen(folder)];
    return descriptor;
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return open_any(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return open_any(path, flags, mode);
}

int close(int descriptor) {
    prepare();
    if (is_affected(descriptor)) affected[descriptor] = 0;
    return real_close(descriptor);
}

int access(const char *path, int mode) {
    prepare();
    return mode & W_OK && is_inside(path) && strikes(&switches->read_only) ? fail(EROFS) : real_access(path, mode);
}

/* Writing. */

static ssize_t write_at(int descriptor, const void *data, size_t length, off_t offset) {
    prepare();
    if (is_affected(descriptor)) {
        if (strikes(&switches->read_only)) return fail(EROFS);
        if (strikes(&switches->full)) return fail(ENOSPC);
    }
    return real_pwrite(descriptor, data, length, offset);
}

ssize_t pwrite(int descriptor, const void *data, size_t length, off_t offset) {
    return write_at(descriptor, data, length, offset);
}

ssize_t pwrite64(int descriptor, const void *data, size_t length, off64_t offset) {
    return write_at(descriptor, data, length, offset);
}

static int cut_to(int descriptor, off_t length) {
    prepare();
    return is_affected(descriptor) && strikes(&switches->read_only) ? fail(EROFS) : real_ftruncate(descriptor, length);
}

int ftruncate(int descriptor, off_t length) { return cut_to(descriptor, length); }
int ftruncate64(int descriptor, off64_t length) { return cut_to(descriptor, length); }

int fsync(int descriptor) {
    prepare();
    return is_affected(descriptor) && strikes(&switches->sync_fails) ? fail(EIO) : real_fsync(descriptor);
}

int fdatasync(int descriptor) {
    prepare();
    return is_affected(descriptor) && strikes(&switches->sync_fails) ? fail(EIO) : real_fdatasync(descriptor);
}

int unlink(const char *path) {
    prepare();
    return is_inside(path) && strikes(&switches->read_only) ? fail(EROFS) : real_unlink(path);
}

/* The clock. */

int clock_gettime(clockid_t clock, struct timespec *now) {
    prepare();
    int result = real_clock_gettime(clock, now);
    int64_t shift = switches->clock;
    if (result || !shift || clock != CLOCK_REALTIME) return result;
    int64_t at = (int64_t)now->tv_sec * 1000000000 + now->tv_nsec + shift;
    now->tv_sec = at / 1000000000;
    now->tv_nsec = at % 1000000000;
    return 0;
}
