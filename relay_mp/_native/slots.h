/* The producers of a session: a slot per emitting thread, and what became of its events.
 *
 * A slot's life: FREE -> TAKING -> LIVE -> EXITED (thread ended) or DEAD -> SETTLED (process died)
 * -> TAKING ... An owner number is used again only once free_pos has passed the tail seen at its
 * end, so that no word in the ring can name the wrong owner, and once each of its losses has its mark in
 * the stream, so that no mark can; save by another thread of the same process, if its thread exited, since
 * that changes nothing that either says.
 *
 * Marks of losses: an event is lost, counted by its cause, and marked, in this order. What is counted and
 * not marked is known from the slot alone, so a dispatcher that dies takes no mark along; what is being
 * marked is written down in the header first (rmp_mark), so its successor marks the same again, once.
 */
#ifndef RMP_SLOTS_H
#define RMP_SLOTS_H

#include "process.h"
#include "ring.h"

/* Returns the slot's number, 0 if all are taken. */
uint32_t rmp_slots_take(const rmp_ring *ring, rmp_process process, uint64_t thread_id);

/* Takes that one, such as the one that the thread had before. False: it cannot be had. */
bool rmp_slots_take_this(const rmp_ring *ring, uint32_t number, rmp_process process, uint64_t thread_id);

/* The process to ask about before a slot in `state_seen` is marked dead. A slot that is TAKING still has
 * the start time of the owner before: the pid alone decides then, which is right but for a reused one. */
rmp_process rmp_slots_owner(const rmp_ring *ring, uint32_t slot, uint64_t state_seen);

/* The calling thread emits no more. For its own slot only. */
void rmp_slots_exit(const rmp_ring *ring, uint32_t slot);

/* The slot's process is dead: its owner is retired at the present tail. */
void rmp_slots_mark_dead(const rmp_ring *ring, uint32_t slot, uint64_t state_seen);

/* Dispatcher: everything that an owner who has died or exited could have claimed has passed; count what
 * never arrived. Returns the number of its events settled as lost now. */
uint64_t rmp_slots_settle(const rmp_ring *ring, uint32_t slot);

/* Dispatcher, of a BROKEN ring that has been read as far as it can be: what a slot's owner emitted and nobody
 * has counted is lost. One that is just counting an event itself may have it counted twice. */
void rmp_slots_write_off(const rmp_ring *ring, uint32_t slot);

/* Producer: its next event will be a request; call before it is emitted, and the other if it could not be. */
void rmp_slots_count_control(rmp_slot *slot);
void rmp_slots_uncount_control(rmp_slot *slot);

/* Dispatcher: a record of `slot` with `owner_seq` is next. Returns how many of the same owner's events
 * before it are missing, which are now all counted by some cause; 0 if it was passed before. Repeatable. */
uint64_t rmp_slots_missing(const rmp_ring *ring, uint32_t slot, uint64_t owner_seq);

/* Dispatcher: that record is about to be delivered, and what is missing before it is marked. Returns how
 * often it was passed before, by dispatchers that died (at most 255). */
uint32_t rmp_slots_pass(const rmp_ring *ring, uint32_t slot, uint64_t owner_seq);

/* Dispatcher: the record passed last is given up, since it kills whoever delivers it. False: it was before. */
bool rmp_slots_give_up(const rmp_ring *ring, uint32_t slot, uint64_t owner_seq);

/* ---- marks of losses; for the dispatcher ---- */

enum rmp_marked_part {
    RMP_MARK_PASSED, /* what has passed: the next record of the slot stands behind it */
    RMP_MARK_ALL     /* what is counted: no record of the slot comes any more */
};

/* How many losses of a slot have no mark yet, with `missing` more that have not passed. Slot 0: of producers
 * that found none. */
uint64_t rmp_slots_unmarked(const rmp_ring *ring, uint32_t slot, enum rmp_marked_part part, uint64_t missing);

/* Writes down, in the header, the mark of `count` of them. It is not under way until rmp_mark_begin. */
void rmp_mark_prepare(const rmp_ring *ring, uint32_t slot, uint64_t count, uint64_t seq, uint64_t timestamp_us,
                      const uint8_t uuid[16]);

/* The mark under way is about to be delivered. Returns how often it was begun before (at most 255). */
uint64_t rmp_mark_begin(const rmp_ring *ring);

/* How often the mark under way was begun; 0: there is none. */
uint64_t rmp_mark_times(const rmp_ring *ring);

/* How many marks were begun so far. */
uint64_t rmp_mark_count(const rmp_ring *ring);

/* It has been. */
void rmp_mark_done(const rmp_ring *ring);

#endif
