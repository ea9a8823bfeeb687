/* How much is left of the calling thread's C stack: what recurses asks before it goes deeper. Threads may have stacks of
 * 32 KiB (threading.stack_size), of which Python itself takes a part.
 *
 * The first question of a thread asks the system; the main thread's answer may be read from a file. So it is asked where
 * something nests deeper than is usual, and only there.
 */
#ifndef RMP_STACK_H
#define RMP_STACK_H

#include "platform.h"

static __thread struct {
    uintptr_t low, high;
} rmp_own_stack;

/* Whether so many bytes are left; true where that is unknown, as on the stack of a fiber. */
static inline bool rmp_stack_has(size_t bytes) {
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    if (!rmp_own_stack.high && !rmp_stack_bounds(&rmp_own_stack.low, &rmp_own_stack.high)) {
        rmp_own_stack.low = 0;
        rmp_own_stack.high = 1;
    }
    bool is_on_it = here >= rmp_own_stack.low && here < rmp_own_stack.high;
    return !is_on_it || here - rmp_own_stack.low >= bytes;
}

#endif
