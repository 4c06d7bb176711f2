/* A folder on a disk that fails at its N-th change, for LD_PRELOAD.

   From the environment, read again in every new process:

     FAILING_DISK_FOLDER  The folder, an absolute path without links.
     FAILING_DISK_HOW     kill: SIGKILL instead of the N-th change.
                          full: the N-th that takes room and all such after it
                          end with ENOSPC.
     FAILING_DISK_AT      N, from 1; 0 for never.
     FAILING_DISK_LOG     Where each change is written down, a line each.

   The line of a rename has the old name too; "+" marks what takes room.

   A change is a call of the C library that makes, writes, flushes, renames or
   removes a file or a folder below that folder. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FREES, TAKES_ROOM };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pid_t process;
static char folder[4096];
static int is_kill, log_file = -1;
static long at, seen, room_seen;

static void read_environment(void) {
  const char *value = getenv("FAILING_DISK_FOLDER");
  process = getpid();
  seen = room_seen = 0;
  folder[0] = 0;
  if (!value) return;
  snprintf(folder, sizeof folder, "%s", value);
  value = getenv("FAILING_DISK_HOW");
  is_kill = value && !strcmp(value, "kill");
  value = getenv("FAILING_DISK_AT");
  at = value ? atol(value) : 0;
  value = getenv("FAILING_DISK_LOG");
  log_file = value ? syscall(SYS_openat, AT_FDCWD, value,
                             O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)
                   : -1;
}

/* Whether this change fails; errno is then set. */
static int fails(const char *call, const char *old, const char *path,
                 int room) {
  int full = 0;
  size_t length;
  pthread_mutex_lock(&lock);
  if (process != getpid()) read_environment();
  length = strlen(folder);
  if (length && !strncmp(path, folder, length) &&
      (path[length] == '/' || !path[length])) {
    char line[16384];
    int size;
    seen += 1;
    room_seen += room;
    if (!strncmp(old, folder, length)) old += length + 1;
    size = snprintf(line, sizeof line, "%s%s%s%s %s\n", room ? "+" : "", call,
                    *old ? " " : "", old,
                    path[length] ? path + length + 1 : ".");
    if (log_file >= 0 && size > 0) syscall(SYS_write, log_file, line, size);
    if (at && is_kill && seen == at) {
      kill(getpid(), SIGKILL);
      for (;;) pause();
    }
    full = at && !is_kill && room && room_seen >= at;
  }
  pthread_mutex_unlock(&lock);
  if (full) errno = ENOSPC;
  return full;
}

static void of_descriptor(int file, char *path, size_t size) {
  char name[64];
  ssize_t length;
  snprintf(name, sizeof name, "/proc/self/fd/%d", file);
  length = readlink(name, path, size - 1);
  path[length < 0 ? 0 : length] = 0;
}

static void of_name(int base, const char *name, char *path) {
  path[0] = 0;
  if (name[0] != '/') {
    if (base == AT_FDCWD) {
      if (!getcwd(path, 4096)) path[0] = 0;
    } else {
      of_descriptor(base, path, 4096);
    }
    strcat(path, "/");
  }
  strncat(path, name, 4000);
}

static int fails_at(const char *call, int base, const char *name, int room) {
  char path[8192];
  int error = errno;
  if (!name) return 0;
  of_name(base, name, path);
  errno = error;
  return fails(call, "", path, room);
}

static int fails_rename(int from_base, const char *from, int base,
                        const char *to) {
  char path[8192], old[8192];
  int error = errno;
  of_name(from_base, from, old);
  of_name(base, to, path);
  errno = error;
  return fails("rename", old, path, FREES);
}

static int fails_file(const char *call, int file, int room) {
  char path[4096];
  int error = errno;
  of_descriptor(file, path, sizeof path);
  errno = error;
  return fails(call, "", path, room);
}

#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define IS_CHANGE(flags) ((flags) & (O_CREAT | O_TRUNC))
#define MODE(last) \
  mode_t mode = 0; \
  if ((flags) & (O_CREAT | O_TMPFILE)) { \
    va_list rest; \
    va_start(rest, last); \
    mode = va_arg(rest, mode_t); \
    va_end(rest); \
  }

#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    REAL(name); \
    MODE(flags) \
    if (IS_CHANGE(flags) && fails_at("open", AT_FDCWD, path, TAKES_ROOM)) \
      return -1; \
    return real(path, flags, mode); \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
  int name(int base, const char *path, int flags, ...) { \
    REAL(name); \
    MODE(flags) \
    if (IS_CHANGE(flags) && fails_at("open", base, path, TAKES_ROOM)) \
      return -1; \
    return real(base, path, flags, mode); \
  }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name) \
  FILE *name(const char *path, const char *mode) { \
    REAL(name); \
    if (mode[0] != 'r' && fails_at("fopen", AT_FDCWD, path, TAKES_ROOM)) \
      return NULL; \
    return real(path, mode); \
  }
FOPEN(fopen)
FOPEN(fopen64)

ssize_t write(int file, const void *data, size_t size) {
  REAL(write);
  return fails_file("write", file, TAKES_ROOM) ? -1 : real(file, data, size);
}

#define PWRITE(name, offset_type) \
  ssize_t name(int file, const void *data, size_t size, offset_type offset) { \
    REAL(name); \
    if (fails_file("write", file, TAKES_ROOM)) return -1; \
    return real(file, data, size, offset); \
  }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int file, const struct iovec *parts, int count) {
  REAL(writev);
  return fails_file("write", file, TAKES_ROOM) ? -1 : real(file, parts, count);
}

size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
  REAL(fwrite);
  return fails_file("fwrite", fileno(file), TAKES_ROOM)
             ? 0
             : real(data, size, count, file);
}

int fflush(FILE *file) {
  REAL(fflush);
  if (file && fails_file("fflush", fileno(file), TAKES_ROOM)) return EOF;
  return real(file);
}

int fclose(FILE *file) {
  REAL(fclose);
  if (fails_file("fclose", fileno(file), FREES)) return EOF;
  return real(file);
}

int fsync(int file) {
  REAL(fsync);
  return fails_file("fsync", file, TAKES_ROOM) ? -1 : real(file);
}

int fdatasync(int file) {
  REAL(fdatasync);
  return fails_file("fsync", file, TAKES_ROOM) ? -1 : real(file);
}

#define TRUNCATE(name, offset_type) \
  int name(int file, offset_type size) { \
    REAL(name); \
    return fails_file("truncate", file, FREES) ? -1 : real(file, size); \
  }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

int mkdir(const char *path, mode_t mode) {
  REAL(mkdir);
  if (fails_at("mkdir", AT_FDCWD, path, TAKES_ROOM)) return -1;
  return real(path, mode);
}

int mkdirat(int base, const char *path, mode_t mode) {
  REAL(mkdirat);
  if (fails_at("mkdir", base, path, TAKES_ROOM)) return -1;
  return real(base, path, mode);
}

int rename(const char *from, const char *to) {
  REAL(rename);
  return fails_rename(AT_FDCWD, from, AT_FDCWD, to) ? -1 : real(from, to);
}

int renameat(int from_base, const char *from, int base, const char *to) {
  REAL(renameat);
  if (fails_rename(from_base, from, base, to)) return -1;
  return real(from_base, from, base, to);
}

int link(const char *from, const char *to) {
  REAL(link);
  return fails_at("link", AT_FDCWD, to, TAKES_ROOM) ? -1 : real(from, to);
}

int unlink(const char *path) {
  REAL(unlink);
  return fails_at("unlink", AT_FDCWD, path, FREES) ? -1 : real(path);
}

int unlinkat(int base, const char *path, int flags) {
  REAL(unlinkat);
  return fails_at("unlink", base, path, FREES) ? -1 : real(base, path, flags);
}

int rmdir(const char *path) {
  REAL(rmdir);
  return fails_at("rmdir", AT_FDCWD, path, FREES) ? -1 : real(path);
}
