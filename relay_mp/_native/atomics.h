/* Atomic operations with the memory order in the name, so that a diff shows it.
 *
 * Everything here works on memory that other processes map: only lock-free operations on naturally
 * aligned words are used. The 16-byte compare-and-swap is the one operation that C11 does not give
 * portably without libatomic (which may take a process-local lock, useless across processes).
 */
#ifndef RMP_ATOMICS_H
#define RMP_ATOMICS_H

#include <stdbool.h>
#include <stdint.h>

#ifdef RMP_TSAN
#include <sanitizer/tsan_interface.h>
#endif

#define rmp_load_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define rmp_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define rmp_store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define rmp_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define rmp_add_relaxed(p, v) __atomic_fetch_add((p), (v), __ATOMIC_RELAXED)
#define rmp_add_acq_rel(p, v) __atomic_fetch_add((p), (v), __ATOMIC_ACQ_REL)

static inline bool rmp_cas_acq_rel_u64(uint64_t *word, uint64_t expected, uint64_t desired) {
    return __atomic_compare_exchange_n(word, &expected, desired, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

static inline bool rmp_cas_acq_rel_u32(uint32_t *word, uint32_t expected, uint32_t desired) {
    return __atomic_compare_exchange_n(word, &expected, desired, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

static inline void rmp_fence_seq_cst(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

/* A full fence directly behind an atomic read-modify-write. On x86 the locked instruction was one
 * already (SDM vol. 3, 9.2.3.9), so only the compiler has to be held back: 20 cycles saved an event. */
static inline void rmp_fence_after_rmw(void) {
#if (defined(__x86_64__) || defined(__i386__)) && !defined(RMP_TSAN)
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
#else
    rmp_fence_seq_cst();
#endif
}

static inline void rmp_cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#endif
}

/* Two 64-bit words compared and swapped as one. 16-byte alignment is the caller's. */
typedef struct rmp_pair {
    uint64_t low;
    uint64_t high;
} __attribute__((aligned(16))) rmp_pair;

/* Acquire-release. Returns whether `*pair` was `expected` and is now `desired`. */
static inline bool rmp_cas_acq_rel_pair(rmp_pair *pair, rmp_pair expected, rmp_pair desired) {
#if defined(__x86_64__)
    bool swapped;
#ifdef RMP_TSAN
    /* ThreadSanitizer sees no assembly, so it is told. Its own 16-byte operation is two stores under a
     * lock of one process: torn for rmp_load_acquire_pair, and no operation at all between processes. */
    __tsan_release(pair);
#endif
    __asm__ volatile("lock cmpxchg16b %1"
                     : "=@ccz"(swapped), "+m"(*pair), "+a"(expected.low), "+d"(expected.high)
                     : "b"(desired.low), "c"(desired.high)
                     : "memory");
#ifdef RMP_TSAN
    __tsan_acquire(pair);
#endif
    return swapped;
#elif defined(__aarch64__)
    uint64_t low, high;
    uint32_t failed;
    for (;;) {
        __asm__ volatile("ldaxp %0, %1, %2" : "=&r"(low), "=&r"(high) : "Q"(*pair) : "memory");
        if (low != expected.low || high != expected.high) {
            __asm__ volatile("clrex" ::: "memory");
            return false;
        }
        __asm__ volatile("stlxp %w0, %2, %3, %1"
                         : "=&r"(failed), "=Q"(*pair)
                         : "r"(desired.low), "r"(desired.high)
                         : "memory");
        if (!failed) return true;
    }
#else
#error "relay_mp needs a 16-byte compare-and-swap: x86-64 and aarch64 are supported"
#endif
}

/* A consistent 16-byte value without a 16-byte load. Sound for pairs whose `low` never returns to an
 * earlier value and whose `high` changes only together with it, or in a way that a later
 * compare-and-swap of the pair detects: `high` was then read between two reads of the same `low`. */
static inline rmp_pair rmp_load_acquire_pair(const rmp_pair *pair) {
    rmp_pair value;
    uint64_t again = rmp_load_acquire(&pair->low);
    do {
        value.low = again;
        value.high = rmp_load_acquire(&pair->high);
        again = rmp_load_acquire(&pair->low);
    } while (again != value.low);
    return value;
}

#endif
