#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "eventcount.h"

#include <time.h>

#include "platform.h"
#include "testpoint.h"

uint64_t rmp_monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Where the system cannot wait for a word of shared memory: sleep a little, and look again. */
static void sleep_while(uint32_t *word, uint32_t value, uint64_t timeout_ns) {
    uint64_t deadline = rmp_monotonic_ns() + timeout_ns;
    uint64_t sleep_ns = 20000;
    while (rmp_load_acquire(word) == value && rmp_monotonic_ns() < deadline) {
        struct timespec pause = {0, (long)sleep_ns};
        nanosleep(&pause, NULL);
        if (sleep_ns < 1000000) sleep_ns *= 2;
    }
}

static void wait_while(uint32_t *word, uint32_t value, uint64_t timeout_ns) {
    if (!rmp_word_wait(word, value, timeout_ns)) sleep_while(word, value, timeout_ns);
}

static bool swap(uint32_t *word, uint32_t *expected, uint32_t desired) {
    return __atomic_compare_exchange_n(word, expected, desired, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* The one who sleeps here says how: `bit` on, the other off. */
static uint32_t say(rmp_eventcount *eventcount, uint32_t bit) {
    uint32_t seen = rmp_load_acquire(&eventcount->wanted);
    while ((seen & 3) != bit && !swap(&eventcount->wanted, &seen, (seen & ~3u) | bit)) {
    }
    rmp_fence_seq_cst(); /* pairs with the notifier's fence: one of us sees the other's store */
    return (seen & ~3u) | bit;
}

uint32_t rmp_eventcount_arm(rmp_eventcount *eventcount) { return say(eventcount, 1); }

void rmp_eventcount_sleep(rmp_eventcount *eventcount, uint32_t armed, uint64_t timeout_ns) {
    RMP_TESTPOINT("eventcount.wait");
    wait_while(&eventcount->wanted, armed, timeout_ns < RMP_BACKSTOP_NS ? timeout_ns : RMP_BACKSTOP_NS);
}

void rmp_eventcount_wait(rmp_eventcount *eventcount, bool (*ready)(const void *), const void *context,
                         uint64_t timeout_ns) {
    uint32_t armed = rmp_eventcount_arm(eventcount);
    if (ready(context)) return; /* the bit stays on: it costs the next notifier one system call, no more */
    rmp_eventcount_sleep(eventcount, armed, timeout_ns);
}

void rmp_eventcount_nap(rmp_eventcount *eventcount, bool (*ready)(const void *), const void *context, uint64_t nap_ns) {
    uint32_t said = say(eventcount, 2);
    if (!ready(context)) wait_while(&eventcount->wanted, said, nap_ns);
}

void rmp_eventcount_wake(rmp_eventcount *eventcount) {
    RMP_TESTPOINT("wake.before");
    uint32_t seen = rmp_load_acquire(&eventcount->wanted);
    while (seen & 3) {
        if (!swap(&eventcount->wanted, &seen, (seen & ~3u) + 4)) continue; /* bits off, count one up */
        RMP_TESTPOINT("wake.turned");
        rmp_word_wake(&eventcount->wanted);
        return;
    }
}

void rmp_eventcount_call(rmp_eventcount *eventcount) {
    uint32_t seen = rmp_load_acquire(&eventcount->wanted);
    while (!swap(&eventcount->wanted, &seen, (seen & ~3u) + 4)) {
    }
    rmp_word_wake(&eventcount->wanted);
}
