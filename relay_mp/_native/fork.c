#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "fork.h"

#include <pthread.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

#include "platform.h"

uint64_t *rmp_fork_page;
uint64_t rmp_fork_count;

static void wipe_page(void) {
    uint64_t *page = __atomic_load_n(&rmp_fork_page, __ATOMIC_RELAXED);
    if (page) __atomic_store_n(page, 0, __ATOMIC_RELAXED);
}

/* Wiped twice. The kernel also sees a raw clone(). The handler is there for kernels that do not wipe, and for an
 * emulator that says yes and does nothing (qemu-user 7.2). */
static uint64_t *make_page(void) {
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    uint64_t *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return NULL;
    rmp_wipe_on_fork(page, size);
    pthread_atfork(NULL, NULL, wipe_page);
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
