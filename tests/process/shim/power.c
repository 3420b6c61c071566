/* Preloaded into a broker: remembers what a loss of power would take from the store's file.
 *
 * The page cache outlives a killed process, so that a kill alone never loses a write. Before each
 * write to the file, what stood there goes into a journal (an ordinary file, which outlives the
 * kill for the same reason). A sync that has succeeded empties the journal. What is in it after a
 * kill is what was never synced: the test puts all of it back, or some.
 *
 *   POWER_FILE     the end of the path of the file that is watched
 *   POWER_JOURNAL  where the journal is
 *   POWER_NOSYNC   syncs do nothing and say that they did
 *
 * A record is three numbers of 64 bits in the machine's order (offset, length, the file's length
 * before) and the bytes that stood there. LMDB writes with pwrite, writev and write through one
 * descriptor and syncs that; its meta pages go through another one that syncs by itself. Whatever
 * else would change the file unseen ends the process.
 */
#define _GNU_SOURCE
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
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

_Static_assert(sizeof(long) == 8, "offsets are passed in one register");

enum { DESCRIPTORS = 65536, WATCHED = 1, SYNCS_ITSELF = 2 };

static const char *watched;
static int nosync;
static int journal = -1;
static int file = -1; /* to read what stands there; some descriptors only write */
static off_t journal_end;
static unsigned char kinds[DESCRIPTORS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void give_up(const char *why) {
    dprintf(2, "power.c: %s: %s\n", why, strerror(errno));
    abort();
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("POWER_JOURNAL");
    watched = getenv("POWER_FILE");
    nosync = getenv("POWER_NOSYNC") != NULL;
    if (path == NULL || watched == NULL)
        give_up("POWER_FILE and POWER_JOURNAL are to be set");
    journal = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (journal < 0)
        give_up(path);
}

static int kind(int fd) {
    return fd >= 0 && fd < DESCRIPTORS ? kinds[fd] : 0;
}

static void record(const void *bytes, size_t count) {
    if (syscall(SYS_pwrite64, journal, bytes, count, journal_end) != (ssize_t)count)
        give_up("the journal cannot be written");
    journal_end += count;
}

/* Remembers what stands where something is to be written. */
static void remember(off_t offset, size_t length) {
    struct stat about;
    if (fstat(file, &about) != 0)
        give_up("the file's length is unknown");
    uint64_t head[3] = {offset, length, about.st_size};
    char *bytes = calloc(1, length + 1); /* beyond the end stands nothing: zeros */
    if (bytes == NULL || syscall(SYS_pread64, file, bytes, length, offset) < 0)
        give_up("what stands there cannot be read");
    record(head, sizeof head);
    record(bytes, length);
    free(bytes);
}

static void forget(off_t end) {
    if (nosync)
        return;
    if (syscall(SYS_ftruncate, journal, end) != 0)
        give_up("the journal cannot be cut");
    journal_end = end;
}

static ssize_t watched_write(int fd, const struct iovec *parts, int count, off_t offset) {
    size_t length = 0;
    for (int i = 0; i < count; i++)
        length += parts[i].iov_len;
    pthread_mutex_lock(&lock);
    off_t before = journal_end;
    remember(offset, length);
    ssize_t written = syscall(SYS_pwritev, fd, parts, (long)count, (long)offset, 0L);
    int error = errno;
    if (written == (ssize_t)length && kind(fd) == SYNCS_ITSELF)
        forget(before); /* it alone is safe */
    pthread_mutex_unlock(&lock);
    errno = error;
    return written;
}

/* At the place where the descriptor stands, which moves. */
static ssize_t watched_append(int fd, const struct iovec *parts, int count) {
    off_t offset = syscall(SYS_lseek, fd, 0, SEEK_CUR);
    ssize_t written = watched_write(fd, parts, count, offset);
    if (written > 0)
        syscall(SYS_lseek, fd, offset + written, SEEK_SET);
    return written;
}

static int opened(int fd, const char *path, int flags) {
    size_t length = strlen(path), end = watched == NULL ? 0 : strlen(watched);
    int writes = (flags & O_ACCMODE) != O_RDONLY;
    if (fd < 0 || !writes || watched == NULL || length < end || strcmp(path + length - end, watched))
        return fd;
    if (fd >= DESCRIPTORS)
        give_up("a descriptor is too high");
    pthread_mutex_lock(&lock);
    if (file < 0)
        file = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        give_up(path);
    kinds[fd] = flags & (O_DSYNC | O_SYNC) ? SYNCS_ITSELF : WATCHED;
    pthread_mutex_unlock(&lock);
    return fd;
}

static int open_at(int folder, const char *path, int flags, unsigned mode) {
    return opened(syscall(SYS_openat, folder, path, flags, mode), path, flags);
}

#define MODE(flags, mode)                                                                          \
    unsigned mode = 0;                                                                             \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                         \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode = va_arg(rest, unsigned);                                                             \
        va_end(rest);                                                                              \
    }

int open(const char *path, int flags, ...) {
    MODE(flags, mode)
    return open_at(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE(flags, mode)
    return open_at(AT_FDCWD, path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...) {
    MODE(flags, mode)
    return open_at(folder, path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...) {
    MODE(flags, mode)
    return open_at(folder, path, flags, mode);
}

int close(int fd) {
    if (kind(fd))
        kinds[fd] = 0;
    return syscall(SYS_close, fd);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    struct iovec part = {(void *)bytes, length};
    if (kind(fd))
        return watched_write(fd, &part, 1, offset);
    return syscall(SYS_pwrite64, fd, bytes, length, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    return pwrite(fd, bytes, length, offset);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    if (kind(fd))
        return watched_write(fd, parts, count, offset);
    return syscall(SYS_pwritev, fd, parts, (long)count, (long)offset, 0L);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) {
    return pwritev(fd, parts, count, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    return kind(fd) ? watched_append(fd, parts, count) : syscall(SYS_writev, fd, parts, (long)count);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    struct iovec part = {(void *)bytes, length};
    return kind(fd) ? watched_append(fd, &part, 1) : syscall(SYS_write, fd, bytes, length);
}

int ftruncate(int fd, off_t length) {
    struct stat about;
    if (!kind(fd))
        return syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&lock);
    if (fstat(fd, &about) != 0)
        give_up("the file's length is unknown");
    remember(length, about.st_size > length ? about.st_size - length : 0);
    int done = syscall(SYS_ftruncate, fd, length);
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate64(int fd, off64_t length) {
    return ftruncate(fd, length);
}

static int sync_of(long call, int fd) {
    if (!kind(fd))
        return syscall(call, fd);
    if (nosync)
        return 0;
    pthread_mutex_lock(&lock);
    int done = syscall(call, fd);
    if (done == 0)
        forget(0);
    pthread_mutex_unlock(&lock);
    return done;
}

int fdatasync(int fd) {
    return sync_of(SYS_fdatasync, fd);
}

int fsync(int fd) {
    return sync_of(SYS_fsync, fd);
}

void *mmap(void *at, size_t length, int rights, int flags, int fd, off_t offset) {
    if (kind(fd) && (rights & PROT_WRITE) && (flags & MAP_SHARED))
        give_up("the file is written through a map, which nobody watches");
    return (void *)syscall(SYS_mmap, at, length, (long)rights, (long)flags, (long)fd, offset);
}

void *mmap64(void *at, size_t length, int rights, int flags, int fd, off64_t offset) {
    return mmap(at, length, rights, flags, fd, offset);
}
