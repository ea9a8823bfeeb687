/* platform.h for Linux: futex, pidfd, /proc. */
#ifdef __linux__

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "platform.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

/* ---- waiting for a word of shared memory ---- */

#ifndef RMP_WITHOUT_FUTEX
/* Shared futexes (no FUTEX_PRIVATE_FLAG): waiters and wakers are different processes. */
bool rmp_word_wait(uint32_t *word, uint32_t value, uint64_t timeout_ns) {
    struct timespec timeout = {(time_t)(timeout_ns / 1000000000u), (long)(timeout_ns % 1000000000u)};
    syscall(SYS_futex, word, FUTEX_WAIT, value, &timeout, NULL, 0);
    return true;
}

void rmp_word_wake(uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0); }
#else
bool rmp_word_wait(uint32_t *word, uint32_t value, uint64_t timeout_ns) {
    (void)word, (void)value, (void)timeout_ns;
    return false;
}

void rmp_word_wake(uint32_t *word) { (void)word; }
#endif

/* ---- processes and threads ---- */

/* All that kill says for certain: it takes a zombie for alive. */
static enum rmp_liveness ask_kill(uint32_t pid) {
    return kill((pid_t)pid, 0) < 0 && errno == ESRCH ? RMP_DEAD : RMP_UNKNOWN;
}

enum rmp_liveness rmp_pid_liveness(uint32_t pid) {
#ifdef RMP_WITHOUT_PIDFD
    return ask_kill(pid);
#else
    int handle = (int)syscall(SYS_pidfd_open, pid, 0);
    if (handle < 0) return ask_kill(pid);
    struct pollfd exited = {handle, POLLIN, 0};
    int ended = poll(&exited, 1, 0);
    close(handle);
    return ended > 0 ? RMP_DEAD : RMP_ALIVE;
#endif
}

#ifndef RMP_WITHOUT_START_TIME
/* A pid namespace whose /proc was not mounted anew shows the pids of the one around it. */
static bool proc_is_of_another_namespace(void) {
    char text[32];
    ssize_t length = readlink("/proc/self", text, sizeof text - 1);
    if (length <= 0) return false;
    text[length] = 0;
    return strtoul(text, NULL, 10) != (unsigned long)getpid();
}

/* By how many clock ticks /proc shifts start times for who is in this time namespace (Linux 5.6). False: unknown, for
 * what is written there is of the namespace that this process has made for its children. */
static bool time_namespace_ticks(int64_t *ticks) {
    struct stat own, of_children;
    *ticks = 0;
    if (stat("/proc/self/ns/time", &own) < 0) return errno == ENOENT;
    if (stat("/proc/self/ns/time_for_children", &of_children) < 0 || own.st_ino != of_children.st_ino) return false;
    int file = open("/proc/self/timens_offsets", O_RDONLY | O_CLOEXEC);
    if (file < 0) return errno == ENOENT;
    char text[256];
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    if (length <= 0) return false;
    text[length] = 0;
    long long seconds, nanoseconds;
    const char *line = strstr(text, "boottime");
    if (!line || sscanf(line, "boottime %lld %lld", &seconds, &nanoseconds) != 2) return false;
    long ticks_per_second = sysconf(_SC_CLK_TCK);
    *ticks = seconds * ticks_per_second + nanoseconds / (1000000000 / ticks_per_second);
    return true;
}

/* In clock ticks since boot, as the machine counts, not the time namespace. From the first thread's file: an emulator (qemu-user) makes up /proc/PID/stat for the
 * process that reads its own, with another start time than its neighbours read. */
uint64_t rmp_process_start_time(uint32_t pid) {
    char path[48], text[1024];
    int64_t shift;
    if (proc_is_of_another_namespace() || !time_namespace_ticks(&shift)) return 0;
    snprintf(path, sizeof path, "/proc/%u/task/%u/stat", pid, pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    if (length <= 0) return 0;
    text[length] = 0;
    const char *field = strrchr(text, ')'); /* the name, field 2, may hold anything, ')' too */
    for (int number = 2; field && number < 22; number++) field = strchr(field + 1, ' ');
    return field ? (uint64_t)((int64_t)strtoull(field + 1, NULL, 10) - shift) : 0;
}
#else
uint64_t rmp_process_start_time(uint32_t pid) {
    (void)pid;
    return 0;
}
#endif

uint64_t rmp_pid_namespace(void) {
#ifdef RMP_WITHOUT_PID_NAMESPACE
    return 0;
#else
    struct stat status;
    return stat("/proc/self/ns/pid", &status) == 0 ? (uint64_t)status.st_ino : 0;
#endif
}

uint32_t rmp_thread_id(void) { return (uint32_t)syscall(SYS_gettid); }

bool rmp_stack_bounds(uintptr_t *low, uintptr_t *high) {
    pthread_attr_t attributes;
    void *base = NULL;
    size_t bytes = 0, guard = 0;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0) return false;
    bool is_known = pthread_attr_getstack(&attributes, &base, &bytes) == 0 && bytes != 0;
    pthread_attr_getguardsize(&attributes, &guard);
    pthread_attr_destroy(&attributes);
    *low = (uintptr_t)base + guard; /* some C libraries count it in, some do not */
    *high = (uintptr_t)base + bytes;
    return is_known;
}

bool rmp_wipe_on_fork(void *page, size_t bytes) {
#if defined(MADV_WIPEONFORK) && !defined(RMP_WITHOUT_WIPEONFORK)
    return madvise(page, bytes, MADV_WIPEONFORK) == 0;
#else
    (void)page, (void)bytes;
    return false;
#endif
}

/* ---- the machine ---- */

bool rmp_boot_id(char *id, size_t room) {
    int file = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    ssize_t length = read(file, id, room - 1);
    close(file);
    if (length <= 0) return false;
    id[length] = 0;
    id[strcspn(id, "\n")] = 0;
    return true;
}

int rmp_file_allocate(int file, uint64_t bytes) {
    int result;
    do result = posix_fallocate(file, 0, (off_t)bytes);
    while (result == EINTR);
    return -result;
}

#else
typedef int rmp_platform_linux_is_empty; /* C wants something in each file */
#endif
