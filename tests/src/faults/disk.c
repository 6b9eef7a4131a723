// A disk that fails, put between a process and its C library (LD_PRELOAD). Only what lies under MILLPOND_DISK_DIR is touched.
//
// MILLPOND_DISK_FAIL=op:n   the n-th write, sync or read fails with EIO; MILLPOND_DISK_NOTE gets the name of its file. With op:n+ all
//                           that come after it fail, too.
// MILLPOND_DISK_AIM=a:b     only calls for files whose names contain a, by threads whose names contain b, count and fail.
// MILLPOND_DISK_NOTE=file   every change of a directory, and every sync of one, is noted there, one a line:
//                             + directory inode kind name      a file (f) or directory (d) has this name now
//                             - directory name                 the name is gone
//                             > directory inode kind old/name  it has another name in the same directory
//                             = directory                      its entries are on disk
// MILLPOND_DISK_KEEP=dir    a sync of a file puts a copy of it there, under its inode; every new file gets a link there, and
//                           every new directory stays open, so that no inode is used again.
//
// With that, what a loss of power would have left can be made: see power.rs.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define PATH 4096

static const char *root, *note, *keep;
static char failing[16], file_aim[64], thread_aim[64];
static long fail_at;
static int for_good;
static atomic_long calls;

__attribute__((constructor)) static void start(void) {
  root = getenv("MILLPOND_DISK_DIR");
  note = getenv("MILLPOND_DISK_NOTE");
  keep = getenv("MILLPOND_DISK_KEEP");
  const char *fail = getenv("MILLPOND_DISK_FAIL");
  const char *aim = getenv("MILLPOND_DISK_AIM");
  if (fail) sscanf(fail, "%15[a-z]:%ld", failing, &fail_at);
  for_good = fail && strchr(fail, '+');
  if (aim) {
    snprintf(file_aim, sizeof file_aim, "%.*s", (int)strcspn(aim, ":"), aim);
    snprintf(thread_aim, sizeof thread_aim, "%s", strchr(aim, ':') ? strchr(aim, ':') + 1 : "");
  }
}

// The path of a file by its name in a directory, if it is ours.
static int ours(int at, const char *name, char *path) {
  if (!root || !name) return 0;
  if (name[0] == '/') {
    if (snprintf(path, PATH, "%s", name) >= PATH) return 0;
  } else {
    char link[64], base[PATH];
    if (at == AT_FDCWD) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    ssize_t length = readlink(link, base, sizeof base - 1);
    if (length <= 0) return 0;
    base[length] = 0;
    int whole = name[0] ? snprintf(path, PATH, "%s/%s", base, name) : snprintf(path, PATH, "%s", base);
    if (whole >= PATH) return 0;
  }
  size_t length = strlen(root);
  return strncmp(path, root, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static void line(const char *format, ...) {
  char text[PATH + 128];
  va_list list;
  va_start(list, format);
  int length = vsnprintf(text, sizeof text, format, list);
  va_end(list);
  int saved = errno;
  int fd = syscall(SYS_openat, AT_FDCWD, note, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
  if (fd >= 0) {
    syscall(SYS_write, fd, text, (size_t)length);
    syscall(SYS_close, fd);
  }
  errno = saved;
}

// Whether this call is the one that fails.
static int fails(const char *op, int fd) {
  char path[PATH];
  char thread[16] = "";
  if (!fail_at || strcmp(op, failing) || !ours(fd, "", path)) return 0;
  if (!strstr(strrchr(path, '/'), file_aim) || prctl(PR_GET_NAME, thread) || !strstr(thread, thread_aim)) return 0;
  long call = atomic_fetch_add(&calls, 1) + 1;
  if (for_good ? call < fail_at : call != fail_at) return 0;
  if (note) line("%s\n", path);
  errno = EIO;
  return 1;
}

static ino_t inode_of(const char *path, char *kind) {
  struct stat found;
  if (syscall(SYS_newfstatat, AT_FDCWD, path, &found, AT_SYMLINK_NOFOLLOW)) return 0;
  if (kind) *kind = S_ISDIR(found.st_mode) ? 'd' : 'f';
  return found.st_ino;
}

static ino_t parent_of(const char *path, const char **name) {
  char parent[PATH];
  snprintf(parent, PATH, "%s", path);
  char *slash = strrchr(parent, '/');
  *slash = 0;
  *name = path + (slash - parent) + 1;
  return inode_of(parent, 0);
}

static void appeared(const char *path) {
  const char *name;
  char kind = 'f';
  ino_t inode = inode_of(path, &kind), parent = parent_of(path, &name);
  line("+ %lu %lu %c %s\n", parent, inode, kind, name);
}

static void vanished(const char *path, ino_t parent) {
  line("- %lu %s\n", parent, strrchr(path, '/') + 1);
}

// A file is new: its inode must not come again.
static void hold(const char *path) {
  char other[PATH];
  snprintf(other, PATH, "%s/live-%lu", keep, inode_of(path, 0));
  syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, other, 0);
  appeared(path);
}

static int open_any(int at, const char *name, int flags, mode_t mode) {
  char path[PATH];
  int known = keep && (flags & O_CREAT) && ours(at, name, path);
  ino_t before = known ? inode_of(path, 0) : 0;
  int fd = syscall(SYS_openat, at, name, flags, mode);
  if (known && fd >= 0 && !before) hold(path);
  return fd;
}

#define MODE(flags, mode)                  \
  mode_t mode = 0;                         \
  if ((flags) & (O_CREAT | O_TMPFILE)) {   \
    va_list list;                          \
    va_start(list, flags);                 \
    mode = va_arg(list, mode_t);           \
    va_end(list);                          \
  }

int open(const char *name, int flags, ...) { MODE(flags, mode) return open_any(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags, mode) return open_any(AT_FDCWD, name, flags, mode); }
int openat(int at, const char *name, int flags, ...) { MODE(flags, mode) return open_any(at, name, flags, mode); }
int openat64(int at, const char *name, int flags, ...) { MODE(flags, mode) return open_any(at, name, flags, mode); }
int creat(const char *name, mode_t mode) { return open_any(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }

ssize_t write(int fd, const void *data, size_t size) { return fails("write", fd) ? -1 : syscall(SYS_write, fd, data, size); }
ssize_t writev(int fd, const struct iovec *parts, int count) { return fails("write", fd) ? -1 : syscall(SYS_writev, fd, parts, count); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return fails("write", fd) ? -1 : syscall(SYS_pwrite64, fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) { return pwrite(fd, data, size, at); }
ssize_t read(int fd, void *data, size_t size) { return fails("read", fd) ? -1 : syscall(SYS_read, fd, data, size); }
ssize_t pread(int fd, void *data, size_t size, off_t at) { return fails("read", fd) ? -1 : syscall(SYS_pread64, fd, data, size, at); }
ssize_t pread64(int fd, void *data, size_t size, off_t at) { return pread(fd, data, size, at); }

// The copy is whole before it takes the place of the one before.
static void keep_copy(int fd, ino_t inode) {
  char link[64], path[PATH], unfinished[PATH], data[1 << 16];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  snprintf(unfinished, PATH, "%s/new-%lu-%d", keep, inode, (int)syscall(SYS_gettid));
  snprintf(path, PATH, "%s/synced-%lu", keep, inode);
  int from = syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC, 0);
  int to = syscall(SYS_openat, AT_FDCWD, unfinished, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  ssize_t size;
  while ((size = syscall(SYS_read, from, data, sizeof data)) > 0) syscall(SYS_write, to, data, size);
  syscall(SYS_close, from);
  syscall(SYS_close, to);
  syscall(SYS_renameat2, AT_FDCWD, unfinished, AT_FDCWD, path, 0);
}

static int sync_any(int fd, long call) {
  char path[PATH];
  struct stat found;
  if (fails("sync", fd)) return -1;
  if (!keep || !ours(fd, "", path) || fstat(fd, &found)) return syscall(call, fd);
  if (S_ISDIR(found.st_mode)) line("= %lu\n", found.st_ino);
  else keep_copy(fd, found.st_ino);
  return 0; // the disk itself need not be waited for: the power is not really lost
}

int fsync(int fd) { return sync_any(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_any(fd, SYS_fdatasync); }

static int mkdir_any(int at, const char *name, mode_t mode) {
  char path[PATH];
  int result = syscall(SYS_mkdirat, at, name, mode);
  if (!result && keep && ours(at, name, path)) {
    syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    appeared(path);
  }
  return result;
}

int mkdir(const char *name, mode_t mode) { return mkdir_any(AT_FDCWD, name, mode); }
int mkdirat(int at, const char *name, mode_t mode) { return mkdir_any(at, name, mode); }

static int link_any(int from_at, const char *from, int to_at, const char *to, int flags) {
  char path[PATH];
  int result = syscall(SYS_linkat, from_at, from, to_at, to, flags);
  if (!result && keep && ours(to_at, to, path)) appeared(path);
  return result;
}

int link(const char *from, const char *to) { return link_any(AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int from_at, const char *from, int to_at, const char *to, int flags) { return link_any(from_at, from, to_at, to, flags); }

static int rename_any(int from_at, const char *from, int to_at, const char *to) {
  char old[PATH], new[PATH];
  const char *name;
  int known = keep && ours(from_at, from, old) && ours(to_at, to, new);
  ino_t parent = known ? parent_of(old, &name) : 0;
  int result = syscall(SYS_renameat2, from_at, from, to_at, to, 0);
  if (!result && known) {
    const char *was = strrchr(old, '/') + 1;
    char kind = 'f';
    ino_t inode = inode_of(new, &kind);
    if (parent == parent_of(new, &name)) {
      line("> %lu %lu %c %s/%s\n", parent, inode, kind, was, name);
    } else {
      appeared(new);
      vanished(old, parent);
    }
  }
  return result;
}

int rename(const char *from, const char *to) { return rename_any(AT_FDCWD, from, AT_FDCWD, to); }
int renameat(int from_at, const char *from, int to_at, const char *to) { return rename_any(from_at, from, to_at, to); }

static int unlink_any(int at, const char *name, int flags) {
  char path[PATH];
  const char *last;
  int known = keep && ours(at, name, path);
  ino_t parent = known ? parent_of(path, &last) : 0;
  int result = syscall(SYS_unlinkat, at, name, flags);
  if (!result && known) vanished(path, parent);
  return result;
}

int unlink(const char *name) { return unlink_any(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlink_any(AT_FDCWD, name, AT_REMOVEDIR); }
int unlinkat(int at, const char *name, int flags) { return unlink_any(at, name, flags); }
