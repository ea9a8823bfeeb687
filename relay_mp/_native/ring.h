/* The ring: many producers in many processes, one reader, records in the order of their claims.
 *
 * What happens when it is full: rmp_ring_claim returns RMP_FULL and has claimed nothing (but perhaps
 * the padding that its record needs at the ring's end); whether to wait (rmp_ring_wait_for_space) or to
 * drop is the caller's.
 *
 * Why a dead producer cannot wedge it: the tail says of the newest claim how long it is and whose,
 * and every claim first publishes the header of the newest one ("help"). So only the newest claim
 * can lack a header, and its length is known: the reader never has to guess, scan or time out.
 * Modelled, with kills at every step, in tests/model/ring_model.cpp.
 *
 * Nothing here allocates, locks, or knows of Python. Lengths and positions found in shared memory
 * are checked against bounds kept in private memory before they are used.
 */
#ifndef RMP_RING_H
#define RMP_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "eventcount.h"
#include "layout.h"

/* A process's own view; sizes are copied out of the header once, when it is checked. */
typedef struct rmp_ring {
    rmp_header *header;
    uint8_t *slots;
    uint8_t *units;
    uint64_t capacity_units; /* a power of two */
    uint32_t slot_count;
    uint32_t max_payload_bytes;
} rmp_ring;

enum rmp_result {
    RMP_OK = 0,
    RMP_FULL = 1,
    RMP_SEALED = 2,   /* the session has ended */
    RMP_OVERTAKEN = 3 /* the claim was fenced before its commit: the record is lost */
};

static inline rmp_slot *rmp_ring_slot(const rmp_ring *ring, uint32_t owner) {
    return (rmp_slot *)(ring->slots + (uint64_t)owner * RMP_SLOT_BYTES);
}
static inline rmp_record *rmp_ring_record(const rmp_ring *ring, uint64_t position) {
    return (rmp_record *)(ring->units + (position & (ring->capacity_units - 1)) * RMP_UNIT_BYTES);
}

/* Makes all units free. For the creator, before anybody else maps the segment. */
void rmp_ring_format(const rmp_ring *ring);

/* ---- producers ---- */

/* `units` in 1..min(capacity / 2, RMP_MAX_UNITS). */
enum rmp_result rmp_ring_claim(const rmp_ring *ring, uint32_t owner, uint32_t units, uint64_t *position);

/* Fills a claim and makes it readable. RMP_OK or RMP_OVERTAKEN. */
enum rmp_result rmp_ring_commit(const rmp_ring *ring, uint32_t owner, uint64_t position, uint64_t owner_seq,
                                const void *payload, uint32_t payload_bytes, uint32_t payload_crc);

/* Gives a claim up; the reader skips it. */
enum rmp_result rmp_ring_abort(const rmp_ring *ring, uint32_t owner, uint64_t position, uint32_t units);

/* Claim, copy, commit, wake. `payload_bytes` at most max_payload_bytes. */
enum rmp_result rmp_ring_write(const rmp_ring *ring, uint32_t owner, uint64_t owner_seq, const void *payload,
                               uint32_t payload_bytes);

/* Sleeps until space may be there, at most min(timeout, backstop). */
void rmp_ring_wait_for_space(const rmp_ring *ring, uint32_t payload_bytes, uint64_t timeout_ns);

/* No claim succeeds any more; everything claimed before can still be committed and read. */
void rmp_ring_seal(const rmp_ring *ring);

/* The reader found the ring BROKEN: seals it, with a tail that no delivery ever reaches, so that nobody
 * waits for space, no flush takes its events for delivered, and every later reader finds it BROKEN too,
 * until one has salvaged it to its end (rmp_ring_finish_salvage). */
void rmp_ring_mark_broken(const rmp_ring *ring);

/* Everything that could be read of a broken ring has been: the tail is where delivery is. */
void rmp_ring_finish_salvage(const rmp_ring *ring);

static inline uint64_t rmp_ring_tail(const rmp_ring *ring) { return rmp_load_acquire(&ring->header->tail.low); }

/* Sleeps until delivery has reached `position`, at most min(timeout, backstop). */
void rmp_ring_wait_for_delivery(const rmp_ring *ring, uint64_t position, uint64_t timeout_ns);

/* ---- the reader: one at a time, by the session's lease ---- */

#define RMP_MAX_FENCED 64

typedef struct rmp_reader {
    rmp_ring ring;
    uint64_t cursor;   /* next record to look at; runs ahead of read_pos within a batch */
    uint64_t read_pos; /* private copies of what this reader alone stores */
    uint64_t free_pos;
    uint64_t fenced[RMP_MAX_FENCED]; /* skipped, in order, but their writers may still write */
    uint32_t fenced_count;
    bool salvages;          /* the tail is not believed: see rmp_reader_salvage */
    uint64_t budget_units;  /* of checksums, for what is salvaged */
    uint32_t calls_heard;   /* of the eventcount `data`: see rmp_reader_rest */
} rmp_reader;

enum rmp_read_kind {
    RMP_READ_EMPTY,
    RMP_READ_RECORD,
    RMP_READ_BLOCKED,  /* claimed by `owner`, not committed yet */
    RMP_READ_SKIPPED,  /* nothing to deliver up to `next`: padding, aborted, or fenced before */
    RMP_READ_CORRUPT,  /* no record up to `next` can be trusted */
    RMP_READ_BROKEN    /* the tail itself is nonsense: this segment cannot be read further */
};

typedef struct rmp_read {
    enum rmp_read_kind kind;
    enum rmp_state state;
    uint32_t owner;
    uint32_t payload_bytes;
    uint64_t position;
    uint64_t next;
    uint64_t owner_seq;
    uint32_t crc;
    uint64_t word;
} rmp_read;

/* Starts where the last reader stopped. */
void rmp_reader_open(rmp_reader *reader, const rmp_ring *ring);

/* Looks at the cursor; never blocks. A RECORD still has to be copied. */
void rmp_reader_look(rmp_reader *reader, rmp_read *read);

/* Goes on without the tail of a BROKEN ring: up to a lap behind free_pos, every committed record that proves
 * itself by its CRC is read, and nothing else. False: not even free_pos and the cursor can be believed, and
 * nothing can be read. */
bool rmp_reader_salvage(rmp_reader *reader);

/* Copies the payload out and checks it there. False: damaged; `*read` is then CORRUPT, resynced. */
bool rmp_reader_copy(rmp_reader *reader, rmp_read *read, void *destination);

static inline void rmp_reader_advance(rmp_reader *reader, const rmp_read *read) { reader->cursor = read->next; }

/* The owner of a BLOCKED claim is dead: true if the record was given up (else look again). */
bool rmp_reader_abort_dead(rmp_reader *reader, const rmp_read *read);

/* The owner of a BLOCKED claim is too slow. Its space stays untouched until it has noticed. */
bool rmp_reader_fence(rmp_reader *reader, const rmp_read *read);

/* The owner of a fenced claim is dead and will never notice. */
void rmp_reader_release_fenced(rmp_reader *reader, uint64_t position);

/* Everything before `position` has been delivered. */
void rmp_reader_delivered(rmp_reader *reader, uint64_t position);

/* Hands the space behind read_pos back. */
void rmp_reader_release(rmp_reader *reader);

/* Sleeps until there may be something at the cursor, at most min(timeout, backstop), after a spin. */
void rmp_reader_wait(rmp_reader *reader, uint64_t spin_ns, uint64_t timeout_ns);

/* The same for longer than the backstop: until there may be something, somebody calls (rmp_eventcount_call), also if
 * that was since the last rest, or `until_ns` (monotonic); for 2 ms only, where a claim is not finished. */
void rmp_reader_rest(rmp_reader *reader, uint64_t spin_ns, uint64_t until_ns);

/* Between the spin and the sleep: short naps, which producers need not end, until `until_ns` (monotonic). The
 * longer it is since the last news, `since_ns`, the longer the naps. Whether there is something at the cursor. */
bool rmp_reader_nap(rmp_reader *reader, uint64_t since_ns, uint64_t until_ns);

#endif
