#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "uuid7.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "eventcount.h"
#include "fork.h"

#define RANDOM_B_MASK ((1ull << 62) - 1)

typedef struct uuid_state {
    uint64_t epoch;
    uint64_t seed;
    uint64_t milliseconds;
    uint64_t random_b;
    uint64_t random_a;
} uuid_state;

static __thread uuid_state own;

uint64_t rmp_realtime_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

/* splitmix64 (Steele, Lea, Flood 2014): ids have to differ, not to be secret. */
static uint64_t next_random(void) {
    uint64_t value = own.seed += 0x9e3779b97f4a7c15ull;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9ull;
    value = (value ^ value >> 27) * 0x94d049bb133111ebull;
    return value ^ value >> 31;
}

static void seed(uint64_t epoch) {
    uint64_t entropy = 0;
    int source = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    if (source >= 0) {
        if (read(source, &entropy, sizeof entropy) != sizeof entropy) entropy = 0;
        close(source);
    }
    /* Out of descriptors: what differs between threads, processes and moments still does. */
    if (!entropy) entropy = rmp_monotonic_ns() ^ (uint64_t)getpid() << 40 ^ (uint64_t)(uintptr_t)&own;
    own = (uuid_state){.epoch = epoch, .seed = entropy};
}

void rmp_uuid7(uint8_t uuid[16], uint64_t now_us) {
    uint64_t epoch = rmp_fork_epoch();
    if (own.epoch != epoch) seed(epoch);
    uint64_t milliseconds = now_us / 1000u;
    if (milliseconds > own.milliseconds) {
        own.milliseconds = milliseconds;
        own.random_b = next_random() & RANDOM_B_MASK >> 1; /* room to grow */
        own.random_a = next_random() & 0xfff;
    } else {
        own.random_b = (own.random_b + 1 + (next_random() & 0xffffffffu)) & RANDOM_B_MASK;
    }
    uint64_t high = own.milliseconds << 16 | 0x7000u | own.random_a;
    uint64_t low = 1ull << 63 | own.random_b;
    for (int i = 0; i < 8; i++) uuid[i] = (uint8_t)(high >> (56 - 8 * i));
    for (int i = 0; i < 8; i++) uuid[8 + i] = (uint8_t)(low >> (56 - 8 * i));
}
