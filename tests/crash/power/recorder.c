/* Records every change that a process makes to one SQLite database, for rebuilding the disk after a power cut.
 *
 * Preloaded into the unmodified program (LD_PRELOAD). It performs each call and then appends what was done, with its
 * data, to a log. One lock is held around both, so the log has the order in which the changes happened, and a sync in
 * it covers exactly the writes before it. disk.py reads the log.
 *
 *     POWER_DATABASE   real path of the database; it, -wal, -journal and their folder are recorded, nothing else
 *     POWER_MARKS      a file; what is written to it goes into the log as a mark, in the same order
 *     POWER_LOG        the log
 *     POWER_END        end the process before the Nth change (0 or unset: never)
 *
 * The -shm file is left out: it is rebuilt from the log of the database after a crash and is never synced. A call that
 * could change these files and is not understood here ends the process with a message: better no result than a wrong one.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum kind { CREATED = 1, WRITTEN, CUT, SYNCED, UNLINKED, FOLDER_SYNCED, MARK };
enum { FOLDER = -1, MARKS = -2 }; /* beside the numbers of files, which begin with 1 */
enum { DESCRIPTORS = 4096, FILES = 4096, ENDED_BY_CUT = 77, ENDED_BY_US = 78 };

struct header {
    uint32_t kind, file;
    uint64_t offset;
    uint32_t length;
} __attribute__((packed));

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *database, *marks;
static char folder[4096];
static int log_to = -1, recorded[DESCRIPTORS], files;
static ino_t inodes[FILES];
static long changes, end_at;

static int (*real_open)(const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_unlink)(const char *);
static int (*real_rename)(const char *, const char *);
static void *(*real_mmap)(void *, size_t, int, int, int, off_t);

static void give_up(const char *why) {
    dprintf(2, "recorder: %s\n", why);
    _exit(ENDED_BY_US);
}

__attribute__((constructor)) static void prepare(void) {
    if (real_open) return;
    real_close = dlsym(RTLD_NEXT, "close");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_write = dlsym(RTLD_NEXT, "write");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_rename = dlsym(RTLD_NEXT, "rename");
    real_mmap = dlsym(RTLD_NEXT, "mmap64");
    real_open = dlsym(RTLD_NEXT, "open64");
    const char *log = getenv("POWER_LOG"), *end = getenv("POWER_END");
    database = getenv("POWER_DATABASE");
    marks = getenv("POWER_MARKS");
    if (!log || !database || !marks) give_up("POWER_DATABASE, POWER_MARKS and POWER_LOG must be set");
    end_at = end ? atol(end) : 0;
    snprintf(folder, sizeof folder, "%s", database);
    *strrchr(folder, '/') = 0;
    log_to = real_open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_to < 0) give_up("cannot open the log");
}

/* What follows the database's path in a path that is recorded, or null. */
static const char *ending_of(const char *path) {
    size_t length = strlen(database);
    if (strncmp(path, database, length)) return NULL;
    const char *ending = path + length;
    return !*ending || !strcmp(ending, "-wal") || !strcmp(ending, "-journal") ? ending : NULL;
}

static int recorded_as(int descriptor) {
    return descriptor >= 0 && descriptor < DESCRIPTORS ? recorded[descriptor] : 0;
}

static void append(enum kind kind, uint32_t file, uint64_t offset, const void *data, size_t length) {
    struct header header = {kind, file, offset, (uint32_t)length};
    if (real_write(log_to, &header, sizeof header) != sizeof header) give_up("cannot write the log");
    if (length && real_write(log_to, data, length) != (ssize_t)length) give_up("cannot write the log");
}

/* The power may go before each change: the change is not done then, and not recorded. */
static void begin_change(void) {
    pthread_mutex_lock(&lock);
    if (end_at && ++changes >= end_at) _exit(ENDED_BY_CUT);
}

static int end_change(void) {
    int kept = errno;
    pthread_mutex_unlock(&lock);
    errno = kept;
    return 0;
}

/* Opening and closing: which descriptor is which file. A name that is made again is another file. */

static int number_of(int descriptor, const char *ending, int is_new) {
    struct stat status;
    if (fstat(descriptor, &status)) give_up("cannot stat a file");
    if (!is_new)
        for (int file = files; file > 0; file--)
            if (inodes[file] == status.st_ino) return file;
    if (!is_new) give_up("the database was there before the recorder");
    if (++files >= FILES) give_up("too many files");
    inodes[files] = status.st_ino;
    append(CREATED, (uint32_t)files, 0, ending, strlen(ending));
    return files;
}

static int open_any(const char *path, int flags, mode_t mode) {
    prepare();
    const char *ending = ending_of(path);
    int is_folder = !strcmp(path, folder), is_marks = !strcmp(path, marks);
    if (!ending && !is_folder && !is_marks) return real_open(path, flags, mode);
    pthread_mutex_lock(&lock);
    int is_new = access(path, F_OK) != 0;
    int descriptor = real_open(path, flags, mode);
    if (descriptor >= DESCRIPTORS) give_up("too many descriptors");
    if (descriptor >= 0) {
        if (ending) recorded[descriptor] = number_of(descriptor, ending, is_new);
        else recorded[descriptor] = is_folder ? FOLDER : MARKS;
        if (ending && flags & O_TRUNC) append(CUT, (uint32_t)recorded[descriptor], 0, NULL, 0);
    }
    end_change();
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
    if (recorded_as(descriptor)) recorded[descriptor] = 0;
    return real_close(descriptor);
}

/* Changes. */

static ssize_t write_at(int descriptor, const void *data, size_t length, off_t offset) {
    prepare();
    int file = recorded_as(descriptor);
    if (file <= 0) return real_pwrite(descriptor, data, length, offset);
    begin_change();
    ssize_t done = real_pwrite(descriptor, data, length, offset);
    if (done > 0) append(WRITTEN, (uint32_t)file, (uint64_t)offset, data, (size_t)done);
    end_change();
    return done;
}

ssize_t pwrite(int descriptor, const void *data, size_t length, off_t offset) {
    return write_at(descriptor, data, length, offset);
}

ssize_t pwrite64(int descriptor, const void *data, size_t length, off64_t offset) {
    return write_at(descriptor, data, length, offset);
}

ssize_t write(int descriptor, const void *data, size_t length) {
    prepare();
    int file = recorded_as(descriptor);
    if (file > 0) give_up("write() on the database is not understood");
    if (file != MARKS) return real_write(descriptor, data, length);
    pthread_mutex_lock(&lock);
    append(MARK, 0, 0, data, length);
    end_change();
    return (ssize_t)length;
}

static int cut_to(int descriptor, off_t length) {
    prepare();
    int file = recorded_as(descriptor);
    if (file <= 0) return real_ftruncate(descriptor, length);
    begin_change();
    int result = real_ftruncate(descriptor, length);
    if (!result) append(CUT, (uint32_t)file, (uint64_t)length, NULL, 0);
    end_change();
    return result;
}

int ftruncate(int descriptor, off_t length) { return cut_to(descriptor, length); }
int ftruncate64(int descriptor, off64_t length) { return cut_to(descriptor, length); }

static int sync_by(int (*real)(int), int descriptor) {
    int file = recorded_as(descriptor);
    if (!file || file == MARKS) return real(descriptor);
    begin_change();
    int result = real(descriptor);
    if (!result) append(file == FOLDER ? FOLDER_SYNCED : SYNCED, file == FOLDER ? 0 : (uint32_t)file, 0, NULL, 0);
    end_change();
    return result;
}

int fsync(int descriptor) {
    prepare();
    return sync_by(real_fsync, descriptor);
}

int fdatasync(int descriptor) {
    prepare();
    return sync_by(real_fdatasync, descriptor);
}

int unlink(const char *path) {
    prepare();
    const char *ending = ending_of(path);
    if (!ending) return real_unlink(path);
    begin_change();
    int result = real_unlink(path);
    if (!result) append(UNLINKED, 0, 0, ending, strlen(ending));
    end_change();
    return result;
}

/* What SQLite does not do to these files. */

int rename(const char *from, const char *to) {
    prepare();
    if (ending_of(from) || ending_of(to)) give_up("rename() of the database is not understood");
    return real_rename(from, to);
}

static void *map(void *at, size_t length, int protection, int flags, int descriptor, off_t offset) {
    prepare();
    if (recorded_as(descriptor) > 0 && protection & PROT_WRITE && flags & MAP_SHARED)
        give_up("mmap() of the database is not understood");
    return real_mmap(at, length, protection, flags, descriptor, offset);
}

void *mmap(void *at, size_t length, int protection, int flags, int descriptor, off_t offset) {
    return map(at, length, protection, flags, descriptor, offset);
}

void *mmap64(void *at, size_t length, int protection, int flags, int descriptor, off64_t offset) {
    return map(at, length, protection, flags, descriptor, offset);
}
