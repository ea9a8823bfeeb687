/* The producers of a session: a slot per emitting thread, and what became of its events.
 *
 * A slot's life: FREE -> TAKING -> LIVE -> EXITED (thread ended) or DEAD -> SETTLED (process died)
 * -> TAKING ... An owner number is used again only once free_pos has passed the tail seen at its
 * end, so that no word in the ring can name the wrong owner; save by another thread of the same process,
 * if its thread exited, since that changes nothing that a word says.
 */
#ifndef RMP_REGISTRY_H
#define RMP_REGISTRY_H

#include "process.h"
#include "ring.h"

/* Returns the slot's number, 0 if all are taken. */
uint32_t rmp_registry_take(const rmp_ring *ring, rmp_process process, uint64_t thread_id);

/* The process to ask about before a slot in `state_seen` is marked dead. A slot that is TAKING still has
 * the start time of the owner before: the pid alone decides then, which is right but for a reused one. */
rmp_process rmp_registry_owner(const rmp_ring *ring, uint32_t slot, uint64_t state_seen);

/* The calling thread emits no more. For its own slot only. */
void rmp_registry_exit(const rmp_ring *ring, uint32_t slot);

/* The slot's process is dead: its owner is retired at the present tail. */
void rmp_registry_mark_dead(const rmp_ring *ring, uint32_t slot, uint64_t state_seen);

/* Dispatcher: everything a dead owner could have claimed has passed; count what never arrived.
 * Returns the number of its events settled as lost now. */
uint64_t rmp_registry_settle(const rmp_ring *ring, uint32_t slot);

/* Dispatcher: a record of `slot` with `owner_seq` is about to be delivered. Returns how many of the
 * same owner's events before it are missing. `*redelivered`: it was passed before a restart. */
uint64_t rmp_registry_pass(const rmp_ring *ring, uint32_t slot, uint64_t owner_seq, bool *redelivered);

#endif
