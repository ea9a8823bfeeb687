/* The emitting side of a process: which session it is attached to, and each thread's place in it.
 *
 * One session at a time. A thread takes its slot at its first event and gives it back when it ends.
 * A forked child finds out by itself (rmp_fork_epoch) that its parent's slots are not its own.
 */
#ifndef RMP_PRODUCER_H
#define RMP_PRODUCER_H

#include "encode.h"
#include "fork.h"
#include "segment.h"

typedef struct rmp_producer {
    uint64_t fork_epoch;
    uint64_t attachment; /* which attachment of this process `slot` is for */
    rmp_slot *counters;
    uint64_t owner_seq;
    uint32_t slot; /* 0: none could be had */
    uint32_t thread_id;
    rmp_buffer buffer;   /* empty while an event further up this thread's stack is being encoded */
} rmp_producer;

/* NULL when this process is attached to nothing. Valid as long as the caller keeps the GIL, or has
 * said rmp_attachment_enter. */
rmp_segment *rmp_attachment(void);

/* Makes `segment` this process's session. The caller has detached from any earlier one. */
void rmp_attachment_set(const rmp_segment *segment);

/* Leaves the session: thread slots given back, memory unmapped. */
void rmp_attachment_clear(void);

/* Brackets a stretch without the GIL in which the mapping must stay readable. */
void rmp_attachment_enter(void);
void rmp_attachment_leave(void);

/* Set at start by a binding without a GIL, where nothing tells whether another thread is inside an emit. */
extern bool rmp_free_threaded;

/* Whether a thread of this process is in such a stretch, in whichever mapping. */
bool rmp_attachment_in_use(void);

/* The calling thread's place in the attached session, taken now if it has none. NULL when not
 * attached; `slot` is 0 when all are taken. */
rmp_producer *rmp_producer_own(void);

#endif
