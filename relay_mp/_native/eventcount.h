/* Sleeping until another process has changed something: a an eventcount on a futex word.
 *
 * The waiter says that it sleeps (bit 0 of `wanted`), fences, looks again, sleeps. The notifier changes the
 * thing, fences, looks at `wanted`. Without either fence each can miss the other's store, and the
 * waiter sleeps on a thing that is there (the Linux BPF ring buffer was patched for its lack). The
 * backstop bounds what a waker that died between its store and its wake can cost.
 *
 * A nap is a short sleep that notifiers need not end: they look at bit 0 only, so that an event which
 * comes during a nap costs its emitter no system call. Who is in a hurry (a flush, a full ring) kicks.
 */
#ifndef RMP_EVENTCOUNT_H
#define RMP_EVENTCOUNT_H

#include <stdbool.h>
#include <stdint.h>

#include "layout.h"

#ifndef RMP_BACKSTOP_NS
#define RMP_BACKSTOP_NS 40000000ull /* at most 50 ms, so that a writer that died alone is skipped within them */
#endif

uint64_t rmp_monotonic_ns(void);

/* A wait in its two steps, for waiters who have more to say than that they sleep: says so, and gives what to sleep on;
 * sleeps, unless it was notified since. In between the caller fences and looks whether it has to. */
uint32_t rmp_eventcount_arm(rmp_eventcount *eventcount);
void rmp_eventcount_sleep(rmp_eventcount *eventcount, uint32_t armed, uint64_t timeout_ns);

/* Sleeps until it is notified, `ready(context)` holds, or `timeout_ns` have passed (cut to the
 * backstop). May return early: callers loop on their own condition and deadline. */
void rmp_eventcount_wait(rmp_eventcount *eventcount, bool (*ready)(const void *), const void *context,
                         uint64_t timeout_ns);

/* Sleeps until `nap_ns` have passed, a kick, or at once if `ready(context)` holds. For one waiter only. */
void rmp_eventcount_nap(rmp_eventcount *eventcount, bool (*ready)(const void *), const void *context, uint64_t nap_ns);

/* Ends a sleep or a nap. */
void rmp_eventcount_wake(rmp_eventcount *eventcount);

/* Ends a sleep or a nap, also one that has not begun yet: who goes by rmp_eventcount_calls finds out. For what is not
 * a change of the thing that is waited for, such as that the waiter is to end. */
void rmp_eventcount_call(rmp_eventcount *eventcount);

/* Changes whenever somebody wakes or calls. */
static inline uint32_t rmp_eventcount_calls(const rmp_eventcount *eventcount) {
    return rmp_load_acquire(&eventcount->wanted) & ~3u;
}

/* To be called after the change, behind a full fence of the caller's: one load when nobody sleeps. */
static inline void rmp_eventcount_notify_fenced(rmp_eventcount *eventcount) {
    if (rmp_load_relaxed(&eventcount->wanted) & 1) rmp_eventcount_wake(eventcount);
}

/* To be called by who waits for what the napping one is to do. One load when it is awake. */
static inline void rmp_eventcount_kick(rmp_eventcount *eventcount) {
    rmp_fence_seq_cst(); /* pairs with the fence in rmp_eventcount_nap */
    if (rmp_load_relaxed(&eventcount->wanted) & 3) rmp_eventcount_wake(eventcount);
}

#endif
