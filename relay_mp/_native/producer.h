/* The emitting side of a process: which session it is attached to, and each thread's place in it.
 *
 * One session at a time. A thread takes its slot at its first event and gives it back when it ends, or when the process
 * leaves the session. A forked child finds out by itself (rmp_fork_epoch) that its parent's slots are not its own.
 *
 * The mapping is there as long as somebody says that he needs it: whoever has opened it, and whoever is inside it for
 * longer than a stretch of C that keeps the GIL. Whatever else can run meanwhile, such as a signal's handler, a finalizer or
 * another thread, may end the session; it does not end the mapping.
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
    uint32_t last_slot; /* so that a thread that comes and goes uses up no more than one */
    uint32_t thread_id;
    rmp_buffer buffer;   /* empty while an event further up this thread's stack is being encoded */
    uint32_t waits;      /* from rmp_wait_begin to rmp_wait_end, which nest: nobody else gives its slot back */
    struct rmp_producer *next, *before; /* of the process's threads that have emitted */
} rmp_producer;

/* NULL when this process is attached to nothing. Valid as long as the caller keeps the GIL and runs nothing that may run
 * other code of Python: no allocation of an object, which may collect garbage, and no call. */
rmp_segment *rmp_attachment(void);

/* The same; NULL also where the producer's place is in another attachment. */
rmp_segment *rmp_attachment_of(const rmp_producer *producer);

/* Which attachment of this process that is; 0: none. */
uint64_t rmp_attachment_number(void);

/* Makes `segment` this process's session. The caller has detached from any earlier one. */
void rmp_attachment_set(const rmp_segment *segment);

/* Leaves the session: thread slots given back, memory unmapped. */
void rmp_attachment_clear(void);

/* The calling thread waits with an event in its hands: the mapping and its slot stay its own meanwhile, whoever ends the
 * session. A forked child that comes back from it does not end it. */
typedef struct rmp_wait {
    rmp_segment segment;
    uint64_t attachment;
} rmp_wait;
rmp_wait rmp_wait_begin(void);

/* Behind what may have run meanwhile: the thread's place in the session that it waits for, of a forked child one of its
 * own; NULL: it has none any more. Also if another thread has left the session. */
rmp_producer *rmp_wait_place(const rmp_wait *wait);

void rmp_wait_end(rmp_wait *wait);

/* Set at start by a binding without a GIL, where nothing tells whether another thread is inside an emit. */
extern bool rmp_free_threaded;

/* The calling thread's place in the attached session, taken now if it has none. NULL when not
 * attached; `slot` is 0 when all are taken. */
rmp_producer *rmp_producer_own(void);

#endif
