/* The segment's bytes. One file in shared memory, mapped by every process of a session:
 *
 *     0                    header: identity, then the contended words, a cache line pair each
 *     RMP_HEADER_BYTES     slots: slot_count slots of RMP_SLOT_BYTES; slot 0 is never taken
 *     subscriptions_offset two copies of the dispatcher's subscriber table (process dispatcher)
 *     configuration_offset two copies of the middleware that the owner shares with its workers
 *     ring_offset          ring: capacity_units units of RMP_UNIT_BYTES
 *
 * A unit's first word (u64, little endian fields from bit 0):
 *
 *     FREE(p)     | state:3 = 0 | p:61                                    | nobody's, next used as p
 *     otherwise   | state:3     | owner:16 | units:16 | p_tag:29          | head of a record at p
 *
 * A record, `units` units long, never wraps:
 *
 *     0        8              12      16         24
 *     | word   | payload_bytes | crc   | owner_seq | payload ...
 *
 * The CRC-32C covers payload, owner_seq, position and the word without its state.
 */
#ifndef RMP_LAYOUT_H
#define RMP_LAYOUT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "atomics.h"

#define RMP_MAGIC 0x31504d59414c4552ull /* "RELAYMP1" */
#define RMP_LAYOUT_VERSION 6u

#define RMP_UNIT_BYTES 64u
#define RMP_RECORD_HEADER_BYTES 24u
#define RMP_MAX_UNITS 65535u       /* what `units:16` can say: 4 MiB - 64 B */
#define RMP_MIN_CAPACITY_UNITS 64u
#define RMP_LINE 128u /* two lines: adjacent-line prefetch pairs them */
#define RMP_HEADER_BYTES 4096u
#define RMP_SLOT_BYTES 768u
#define RMP_MAX_SLOTS 65534u
#define RMP_OWNER_PAD 0xffffu
#define RMP_OWNER_SEALED 0xfffeu
#define RMP_REPLY_TEXT_BYTES 400u
#define RMP_OWNER_ARGV_BYTES 1024u /* of the owner's command line; what is longer is cut */
#define RMP_NOBODY_WAITS UINT64_MAX

enum rmp_state { RMP_FREE = 0, RMP_BUSY = 1, RMP_COMMITTED = 2, RMP_ABORTED = 3, RMP_FENCED = 4, RMP_PAD = 5 };

/* 0 is what a mapping reads once its session is gone (see rmp_segment_close). Odd: emits count, as events or, of
 * a BROKEN one, as lost ("corrupt"). BROKEN: the tail was destroyed; only closing leads out of it. */
enum rmp_session_state { RMP_CLOSED = 0, RMP_OPEN = 1, RMP_CLOSING = 2, RMP_BROKEN = 3 };

/* Why an event never arrived. POISON: whoever delivered it died of it, again and again. */
enum rmp_cause { RMP_LOST_FULL, RMP_LOST_WRITER_DIED, RMP_LOST_FENCED, RMP_LOST_CORRUPT, RMP_LOST_POISON, RMP_CAUSES };

enum rmp_slot_status {
    RMP_SLOT_FREE = 0,    /* never taken */
    RMP_SLOT_TAKING = 1,  /* won by a producer that still writes its identity */
    RMP_SLOT_LIVE = 2,
    RMP_SLOT_EXITED = 3,  /* its thread ended in good order: nothing of it is unfinished; settled as a dead one is */
    RMP_SLOT_DEAD = 4,    /* its process died; settled by the dispatcher once read_pos is past retired_tail */
    RMP_SLOT_SETTLED = 5, /* dead and accounted for */
};

typedef struct rmp_record {
    uint64_t word;
    uint32_t payload_bytes;
    uint32_t crc;
    uint64_t owner_seq;
    uint8_t payload[];
} rmp_record;
static_assert(sizeof(rmp_record) == RMP_RECORD_HEADER_BYTES, "record header");

typedef struct rmp_eventcount {
    uint32_t wanted; /* bit 0: somebody sleeps until woken; bit 1: somebody naps; above: how often they were woken */
} rmp_eventcount;

/* The loss mark that is being put into the stream, written down before it is delivered: a dispatcher that
 * dies in between is followed by one that delivers the same mark again. */
typedef struct rmp_mark {
    uint64_t seq;        /* stays when the mark is done: the next one's is higher, whoever's it is */
    uint64_t begun;      /* marks of the session so far:56 | how often the one under way was begun:8, 0: none is */
    uint64_t slot;       /* whose events; 0: of producers that found no slot */
    uint64_t pid;
    uint64_t timestamp_us;
    uint8_t uuid[16];
    uint64_t lost[RMP_CAUSES];   /* what it tells */
    uint64_t marked[RMP_CAUSES]; /* the slot's, once it is done */
} rmp_mark;

typedef struct rmp_header {
    /* identity: written once, before the magic */
    uint64_t magic;
    uint32_t layout_version;
    uint32_t slot_count;
    uint64_t segment_bytes;
    uint64_t capacity_units;
    uint64_t subscriptions_offset;
    uint64_t subscriptions_bytes; /* of one of the two copies */
    uint64_t configuration_offset;
    uint64_t configuration_bytes; /* of one of the two copies */
    uint64_t ring_offset;
    uint64_t owner_start_time; /* clock ticks since boot, /proc/PID/stat field 22 */
    uint64_t owner_pid_namespace;
    uint32_t owner_pid;
    uint32_t uid;
    uint64_t block_timeout_ns;
    uint64_t stall_timeout_ns; /* 0: wait for a slow writer for ever */
    uint32_t max_payload_bytes;
    uint32_t drop_when_full;
    uint32_t dispatcher_is_process;
    char session_id[36];
    uint32_t max_deliveries; /* of one event, if they kill the dispatcher */
    uint32_t is_strict; /* what cannot be recorded is an error, not replaced */

    /* the newest claim: {pos, owner << 32 | units}; CASed by every producer */
    __attribute__((aligned(RMP_LINE))) rmp_pair tail;
    /* everything before it has been delivered; stored by the dispatcher */
    __attribute__((aligned(RMP_LINE))) uint64_t read_pos;
    /* everything before it may be claimed again, a lap later; stored by the dispatcher */
    __attribute__((aligned(RMP_LINE))) uint64_t free_pos;
    __attribute__((aligned(RMP_LINE))) rmp_eventcount data;      /* the dispatcher sleeps on it */
    __attribute__((aligned(RMP_LINE))) rmp_eventcount space;     /* producers of a full ring sleep on it */
    __attribute__((aligned(RMP_LINE))) rmp_eventcount delivered; /* flushes sleep on it */
    uint64_t delivery_awaited; /* the lowest position that one of them sleeps for; else RMP_NOBODY_WAITS */
    /* read by every emit, written seldom */
    __attribute__((aligned(RMP_LINE))) uint32_t session_state;
    uint32_t subscribers;  /* registrations alive: 0 makes emitting a no-op */
    uint32_t scope_locals; /* of them, scope-local: > 0 makes records carry the stack */
    uint32_t slot_cursor;  /* where the search for a slot starts: the longest retired is reused first */
    uint32_t configuration_version; /* counts the changes to the configuration; 0: there never was one */
    /* the dispatcher's own words */
    __attribute__((aligned(RMP_LINE))) rmp_pair lease; /* who dispatches: {epoch << 32 | pid, start time}; both or neither */
    uint64_t delivering_slot; /* whose record's callbacks run just now, 0: nobody's */
    uint64_t stalled_owner;    /* slot whose unfinished record holds delivery up, 0: none */
    uint64_t subscriptions[2]; /* length << 32 | generation of each copy; the CRC is in the copy */
    uint64_t subscriber_errors;
    uint64_t lost_unregistered; /* added to by producers that found no free slot */
    uint64_t begun; /* the newest record begun: owner_seq:40 | slot:16 | how often:8 */
    rmp_mark mark;
    /* the owner's word to its workers; the version above tells them to look */
    __attribute__((aligned(RMP_LINE))) uint64_t configuration[2]; /* as `subscriptions` */
    uint64_t configuration_told; /* the newest registration whose being out of workers' reach has been told */
    uint64_t middleware_failures; /* of middleware that a worker could not get hold of */
    uint64_t refused_requests; /* to the dispatcher: another uid's, or for a name that is not allowed */
    /* identity again: what is read by nobody but who looks from outside */
    __attribute__((aligned(RMP_LINE))) uint64_t started_us; /* when the session began, microseconds since the epoch */
    uint32_t owner_argv_bytes; /* of the whole command line, which may be longer than what is here of it */
    char owner_argv[RMP_OWNER_ARGV_BYTES]; /* an argument each between two zero bytes, as in /proc/PID/cmdline */
} rmp_header;
static_assert(sizeof(rmp_header) <= RMP_HEADER_BYTES, "header page");
static_assert(offsetof(rmp_header, tail) % 16 == 0, "cmpxchg16b alignment");
static_assert(offsetof(rmp_header, lease) % 16 == 0, "cmpxchg16b alignment");

/* One per producing thread. Counters run on through all the owners a slot ever has, so that totals
 * are exact whoever dies when; base_* say where the present owner began. */
typedef struct rmp_slot {
    uint64_t state; /* status:8 | generation:24 | pid:32, CASed */
    uint64_t start_time;
    uint64_t pid_namespace;
    uint64_t thread_id;
    uint64_t retired_tail; /* the tail when the owner was found gone */
    uint64_t base_emitted, base_delivered, base_cut, base_replaced, base_controls;
    uint64_t base_lost_full, base_lost_writer_died, base_lost_fenced, base_lost_corrupt, base_lost_poison;
    /* stored by the producer only */
    __attribute__((aligned(RMP_LINE))) uint64_t emitted; /* events begun; the newest one's owner_seq */
    uint64_t lost_full;
    /* of `emitted`, requests to the dispatcher, which are not events: {how many, owner_seq of the newest}; stored
     * before that is emitted, so that who counts events knows on which side of its count the newest is. One that
     * could not be emitted is taken back, so `low` may return: loaded as a pair by the slot's owner alone */
    rmp_pair controls;
    uint64_t cut; /* delivered, but without what was over the limit */
    uint64_t replaced; /* values in payloads that could not be recorded */
    /* stored by the dispatcher */
    __attribute__((aligned(RMP_LINE))) rmp_pair passed; /* {newest owner_seq passed, of these lost} */
    rmp_pair poison; /* {events given up though they had arrived, owner_seq of the newest}; not in passed.high */
    uint64_t lost_writer_died, lost_fenced;
    uint64_t lost_corrupt;       /* added to by the producer too, once the ring is BROKEN */
    uint64_t marked[RMP_CAUSES]; /* how many of the losses have their mark in the stream */
    uint64_t reply_seq; /* owner_seq of the control record answered last */
    uint32_t reply_code;
    char reply_text[RMP_REPLY_TEXT_BYTES];
} rmp_slot;
static_assert(sizeof(rmp_slot) <= RMP_SLOT_BYTES, "slot");
static_assert(offsetof(rmp_slot, controls) % 16 == 0, "cmpxchg16b alignment");
static_assert(offsetof(rmp_slot, passed) % 16 == 0, "cmpxchg16b alignment");
static_assert(offsetof(rmp_slot, poison) % 16 == 0, "cmpxchg16b alignment");

#define RMP_TAG_MASK ((1ull << 29) - 1)
/* `p_tag` repeats after 2^29 units (32 GiB written), and a released word is FREE(p) with p in full:
 * a word of an earlier lap is never taken for this one's. */
static inline uint64_t rmp_word_free(uint64_t position) { return position << 3; }
static inline uint64_t rmp_word(enum rmp_state state, uint32_t owner, uint32_t units, uint64_t position) {
    return (uint64_t)state | (uint64_t)owner << 3 | (uint64_t)units << 19 | (position & RMP_TAG_MASK) << 35;
}
static inline enum rmp_state rmp_word_state(uint64_t word) { return (enum rmp_state)(word & 7); }
static inline uint32_t rmp_word_owner(uint64_t word) { return (uint32_t)(word >> 3) & 0xffffu; }
static inline uint32_t rmp_word_units(uint64_t word) { return (uint32_t)(word >> 19) & 0xffffu; }
static inline uint64_t rmp_word_tag(uint64_t word) { return word >> 35; }

static inline uint64_t rmp_tail_claim(uint32_t owner, uint32_t units) { return (uint64_t)owner << 32 | units; }
static inline uint32_t rmp_tail_units(rmp_pair tail) { return (uint32_t)tail.high; }
static inline uint32_t rmp_tail_owner(rmp_pair tail) { return (uint32_t)(tail.high >> 32); }

static inline uint32_t rmp_units_for(uint32_t payload_bytes) {
    return (uint32_t)(((uint64_t)payload_bytes + RMP_RECORD_HEADER_BYTES + RMP_UNIT_BYTES - 1) / RMP_UNIT_BYTES);
}

static inline uint64_t rmp_slot_state(enum rmp_slot_status status, uint32_t generation, uint32_t pid) {
    return (uint64_t)status | (uint64_t)(generation & 0xffffffu) << 8 | (uint64_t)pid << 32;
}
static inline enum rmp_slot_status rmp_slot_status(uint64_t state) { return (enum rmp_slot_status)(state & 0xff); }
static inline uint32_t rmp_slot_generation(uint64_t state) { return (uint32_t)(state >> 8) & 0xffffffu; }
static inline uint32_t rmp_slot_pid(uint64_t state) { return (uint32_t)(state >> 32); }

#endif
