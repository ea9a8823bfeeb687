#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/syscall.h>
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#endif

/* A pid namespace whose /proc was not mounted anew shows the pids of the one around it. */
static bool proc_is_of_another_namespace(void) {
    char text[32];
    ssize_t length = readlink("/proc/self", text, sizeof text - 1);
    if (length <= 0) return false;
    text[length] = 0;
    return strtoul(text, NULL, 10) != (unsigned long)getpid();
}

uint64_t rmp_process_start_time(uint32_t pid) {
    char path[32], text[1024];
    if (proc_is_of_another_namespace()) return 0;
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    if (length <= 0) return 0;
    text[length] = 0;
    const char *field = strrchr(text, ')'); /* the name, field 2, may hold anything, ')' too */
    for (int number = 2; field && number < 22; number++) field = strchr(field + 1, ' ');
    return field ? strtoull(field + 1, NULL, 10) : 0;
}

static uint64_t own_pid_namespace(void) {
    struct stat status;
    return stat("/proc/self/ns/pid", &status) == 0 ? (uint64_t)status.st_ino : 0;
}

rmp_process rmp_process_self(void) {
    uint32_t pid = (uint32_t)getpid();
    return (rmp_process){pid, rmp_process_start_time(pid), own_pid_namespace()};
}

enum rmp_liveness rmp_process_liveness(rmp_process process) {
#ifdef __linux__
    /* Asked every time: a forked child may be in another namespace than its parent was. */
    if (process.pid_namespace != own_pid_namespace()) return RMP_UNKNOWN;
    int handle = (int)syscall(SYS_pidfd_open, process.pid, 0);
    if (handle < 0) return errno == ESRCH ? RMP_DEAD : RMP_UNKNOWN;
    /* The handle is opened first: if the start time read now fits, it is this process's. */
    struct pollfd exited = {handle, POLLIN, 0};
    int ended = poll(&exited, 1, 0);
    close(handle);
    if (ended > 0) return RMP_DEAD;
    if (!process.start_time) return RMP_ALIVE;
    uint64_t start_time = rmp_process_start_time(process.pid);
    if (!start_time) return RMP_UNKNOWN;
    return start_time == process.start_time ? RMP_ALIVE : RMP_DEAD;
#else
    (void)process;
    return RMP_UNKNOWN;
#endif
}

uint32_t rmp_thread_id(void) {
#ifdef __linux__
    return (uint32_t)syscall(SYS_gettid);
#else
    uint64_t id;
    pthread_threadid_np(NULL, &id);
    return (uint32_t)id;
#endif
}

/* ---- fork ---- */

uint64_t *rmp_fork_page;
uint64_t rmp_fork_count;

static void wipe_page(void) {
    uint64_t *page = __atomic_load_n(&rmp_fork_page, __ATOMIC_RELAXED);
    if (page) __atomic_store_n(page, 0, __ATOMIC_RELAXED);
}

static uint64_t *make_page(void) {
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    uint64_t *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return NULL;
#ifdef MADV_WIPEONFORK
    if (madvise(page, size, MADV_WIPEONFORK) == 0) return page;
#endif
    pthread_atfork(NULL, NULL, wipe_page); /* misses only a raw clone() */
    return page;
}

/* No lock: a child forked while another thread held one would wait for ever at its first event. */
static uint64_t *the_page(void) {
    uint64_t *page = __atomic_load_n(&rmp_fork_page, __ATOMIC_ACQUIRE);
    if (page) return page;
    uint64_t *made = make_page();
    if (!made) return NULL;
    if (__atomic_compare_exchange_n(&rmp_fork_page, &page, made, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return made;
    munmap(made, (size_t)sysconf(_SC_PAGESIZE)); /* another thread was first */
    return page;
}

uint64_t rmp_fork_renew(void) {
    uint64_t *page = the_page();
    uint64_t epoch = __atomic_add_fetch(&rmp_fork_count, 1, __ATOMIC_RELAXED);
    if (!page) return epoch;
    uint64_t wiped = 0;
    if (!__atomic_compare_exchange_n(page, &wiped, epoch, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        return wiped; /* another thread was first */
    return epoch;
}
