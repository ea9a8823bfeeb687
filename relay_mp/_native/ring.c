#include "ring.h"

#include <string.h>

#include "copy.h"
#include "crc32c.h"
#include "testpoint.h"

#ifdef RMP_TEST_POINTS
void (*rmp_testpoint_hook)(const char *name);
#endif

void rmp_ring_format(const rmp_ring *ring) {
    for (uint64_t p = 0; p < ring->capacity_units; p++)
        rmp_store_relaxed(&rmp_ring_record(ring, p)->word, rmp_word_free(p));
}

/* ---- claim, commit ---- */

/* Gives the newest claim its header if it has none yet. Anybody may, at any time: the swap succeeds
 * only while the unit is FREE for just this position, and a position comes only once. */
static void publish(const rmp_ring *ring, rmp_pair tail) {
    uint32_t units = rmp_tail_units(tail), owner = rmp_tail_owner(tail);
    if (!units) return;
    uint64_t position = tail.low - units;
    uint64_t *word = &rmp_ring_record(ring, position)->word;
    if (rmp_load_relaxed(word) != rmp_word_free(position)) return;
    enum rmp_state state = owner == RMP_OWNER_PAD ? RMP_PAD : RMP_BUSY;
    rmp_cas_acq_rel_u64(word, rmp_word_free(position), rmp_word(state, owner, units, position));
}

enum rmp_result rmp_ring_claim(const rmp_ring *ring, uint32_t owner, uint32_t units, uint64_t *position) {
    rmp_header *header = ring->header;
    for (;;) {
        rmp_pair tail = rmp_load_acquire_pair(&header->tail);
        if (rmp_tail_owner(tail) == RMP_OWNER_SEALED) return RMP_SEALED;
        publish(ring, tail);
        RMP_TESTPOINT("claim.helped");
        uint64_t room = ring->capacity_units - (tail.low & (ring->capacity_units - 1));
        bool pad = units > room;
        uint64_t length = pad ? room : units;
        /* Pairs with the release in rmp_reader_release: the words up to there are FREE. */
        if (tail.low + length - rmp_load_acquire(&header->free_pos) > ring->capacity_units) {
            rmp_pair again = rmp_load_acquire_pair(&header->tail);
            if (again.low == tail.low) return RMP_FULL;
            continue; /* free_pos may have passed a tail that others moved meanwhile */
        }
        rmp_pair next = {tail.low + length, rmp_tail_claim(pad ? RMP_OWNER_PAD : owner, (uint32_t)length)};
        if (!rmp_cas_acq_rel_pair(&header->tail, tail, next)) continue;
        if (pad) {
            RMP_TESTPOINT("claim.padded");
            continue; /* published by the help of the next round, or by anybody */
        }
        RMP_TESTPOINT("claim.claimed");
        publish(ring, next);
        RMP_TESTPOINT("claim.published");
        *position = tail.low;
        return RMP_OK;
    }
}

/* Turns the caller's own BUSY word. Only a fence can have come between; then the space is the
 * reader's again as soon as the word says that the writer knows. */
static enum rmp_result finish(const rmp_ring *ring, uint32_t owner, uint64_t position, uint32_t units,
                              enum rmp_state state) {
    uint64_t *word = &rmp_ring_record(ring, position)->word;
    if (rmp_cas_acq_rel_u64(word, rmp_word(RMP_BUSY, owner, units, position), rmp_word(state, owner, units, position)))
        return RMP_OK;
    RMP_TESTPOINT("commit.overtaken");
    rmp_cas_acq_rel_u64(word, rmp_word(RMP_FENCED, owner, units, position),
                        rmp_word(RMP_ABORTED, owner, units, position));
    return RMP_OVERTAKEN;
}

static uint32_t record_crc(uint32_t payload_crc, uint64_t owner_seq, uint64_t position, uint64_t word) {
    uint64_t sealed[3] = {owner_seq, position, word >> 3};
    return rmp_crc32c(payload_crc, sealed, sizeof sealed);
}

enum rmp_result rmp_ring_commit(const rmp_ring *ring, uint32_t owner, uint64_t position, uint64_t owner_seq,
                                const void *payload, uint32_t payload_bytes, uint32_t payload_crc) {
    rmp_record *record = rmp_ring_record(ring, position);
    uint32_t units = rmp_units_for(payload_bytes);
    record->payload_bytes = payload_bytes;
    record->crc = record_crc(payload_crc, owner_seq, position, rmp_word(RMP_COMMITTED, owner, units, position));
    record->owner_seq = owner_seq;
    RMP_TESTPOINT("commit.header");
    rmp_copy(record->payload, payload, payload_bytes);
    RMP_TESTPOINT("commit.copied");
    enum rmp_result result = finish(ring, owner, position, units, RMP_COMMITTED);
    RMP_TESTPOINT("commit.committed");
    rmp_fence_after_rmw(); /* pairs with the fence in rmp_eventcount_wait: no lost wake-up */
    rmp_eventcount_notify_fenced(&ring->header->data);
    return result;
}

enum rmp_result rmp_ring_abort(const rmp_ring *ring, uint32_t owner, uint64_t position, uint32_t units) {
    enum rmp_result result = finish(ring, owner, position, units, RMP_ABORTED);
    rmp_fence_after_rmw();
    rmp_eventcount_notify_fenced(&ring->header->data);
    return result;
}

enum rmp_result rmp_ring_write(const rmp_ring *ring, uint32_t owner, uint64_t owner_seq, const void *payload,
                               uint32_t payload_bytes) {
    uint64_t position;
    uint32_t payload_crc = rmp_crc32c(0, payload, payload_bytes);
    enum rmp_result result = rmp_ring_claim(ring, owner, rmp_units_for(payload_bytes), &position);
    if (result != RMP_OK) return result;
    return rmp_ring_commit(ring, owner, position, owner_seq, payload, payload_bytes, payload_crc);
}

void rmp_ring_seal(const rmp_ring *ring) {
    for (;;) {
        rmp_pair tail = rmp_load_acquire_pair(&ring->header->tail);
        if (rmp_tail_owner(tail) == RMP_OWNER_SEALED) return;
        publish(ring, tail);
        rmp_pair sealed = {tail.low, rmp_tail_claim(RMP_OWNER_SEALED, 0)};
        if (!rmp_cas_acq_rel_pair(&ring->header->tail, tail, sealed)) continue;
        rmp_fence_after_rmw(); /* whoever waits for space has to learn that there will be none */
        rmp_eventcount_notify_fenced(&ring->header->space);
        return;
    }
}

void rmp_ring_mark_broken(const rmp_ring *ring) {
    rmp_header *header = ring->header;
    for (;;) {
        rmp_pair tail = rmp_load_acquire_pair(&header->tail);
        uint64_t beyond = rmp_load_acquire(&header->read_pos) + ring->capacity_units + 1;
        if (!rmp_cas_acq_rel_pair(&header->tail, tail, (rmp_pair){beyond, rmp_tail_claim(RMP_OWNER_SEALED, 0)})) continue;
        rmp_fence_after_rmw(); /* as in rmp_ring_seal; a flush has to learn it too */
        rmp_eventcount_notify_fenced(&header->space);
        rmp_eventcount_notify_fenced(&header->delivered);
        return;
    }
}

void rmp_ring_finish_salvage(const rmp_ring *ring) {
    rmp_header *header = ring->header;
    for (;;) {
        rmp_pair tail = rmp_load_acquire_pair(&header->tail);
        rmp_pair end = {rmp_load_acquire(&header->read_pos), rmp_tail_claim(RMP_OWNER_SEALED, 0)};
        if (rmp_cas_acq_rel_pair(&header->tail, tail, end)) return;
    }
}

/* ---- waiting ---- */

typedef struct space_wanted {
    const rmp_ring *ring;
    uint64_t units;
} space_wanted;

static bool has_space(const void *context) {
    const space_wanted *wanted = context;
    const rmp_ring *ring = wanted->ring;
    uint64_t tail = rmp_ring_tail(ring);
    uint64_t room = ring->capacity_units - (tail & (ring->capacity_units - 1));
    uint64_t length = wanted->units > room ? room : wanted->units;
    return tail + length - rmp_load_acquire(&ring->header->free_pos) <= ring->capacity_units;
}

void rmp_ring_wait_for_space(const rmp_ring *ring, uint32_t payload_bytes, uint64_t timeout_ns) {
    space_wanted wanted = {ring, rmp_units_for(payload_bytes)};
    if (!has_space(&wanted)) rmp_eventcount_kick(&ring->header->data);
    rmp_eventcount_wait(&ring->header->space, has_space, &wanted, timeout_ns);
}

/* Delivery goes on record by record, and a flush waits for the last of many. Woken at each of them, it cost the reader
 * a system call a record, and took its core or its GIL: a quarter of all time. So who sleeps says up to where, and the
 * reader wakes all sleepers when it has reached the lowest of these places; who waits for more says so again.
 *
 *     waiter: arm the eventcount; lower delivery_awaited to the own place, unless it is that low; fence; look at
 *             read_pos; sleep, unless it was notified since it was armed
 *     reader: store read_pos; fence; if it is armed and delivery_awaited reached: set it to RMP_NOBODY_WAITS;
 *             notify
 *
 * The fences: either the reader sees the waiter's place, or a lower one, or the waiter sees read_pos. A waiter that
 * trusts in a lower place, which the reader is just taking back, has armed it before that: the reader's notifying
 * comes behind, and the waiter does not sleep, or is woken. So is one whose place the reader overwrites. With any two
 * of these steps the other way round a waiter can sleep with its place said nowhere: test_eventcount.c forces each.
 *
 * A waiter that is gone leaves its place behind: one needless wake. The reader can die in between: see the backstop. */
static bool is_delivered(const rmp_ring *ring, uint64_t position) {
    return rmp_load_acquire(&ring->header->read_pos) >= position;
}

static void await_delivery(rmp_header *header, uint64_t position) {
    uint64_t lowest = rmp_load_relaxed(&header->delivery_awaited);
    while (lowest > position && !rmp_cas_acq_rel_u64(&header->delivery_awaited, lowest, position))
        lowest = rmp_load_relaxed(&header->delivery_awaited);
}

void rmp_ring_wait_for_delivery(const rmp_ring *ring, uint64_t position, uint64_t timeout_ns) {
    rmp_header *header = ring->header;
    if (!is_delivered(ring, position)) rmp_eventcount_kick(&header->data);
    uint32_t armed = rmp_eventcount_arm(&header->delivered);
    RMP_TESTPOINT("delivery.armed");
    await_delivery(header, position);
    RMP_TESTPOINT("delivery.awaited");
    rmp_fence_seq_cst(); /* pairs with the one in rmp_reader_release */
    if (!is_delivered(ring, position)) rmp_eventcount_sleep(&header->delivered, armed, timeout_ns);
}

/* The reader's part: see above. The fence is the caller's. */
static void notify_delivered_fenced(rmp_header *header, uint64_t read_pos) {
    if (!(rmp_load_relaxed(&header->delivered.wanted) & 1)) return;
    if (rmp_load_relaxed(&header->delivery_awaited) > read_pos) return;
    rmp_store_relaxed(&header->delivery_awaited, RMP_NOBODY_WAITS); /* released by the swap in rmp_eventcount_wake */
    rmp_eventcount_wake(&header->delivered);
}

/* ---- reading ---- */

/* Whether `word` can be the head of a record at `position`, inside [position, end). */
static bool is_head(const rmp_reader *reader, uint64_t word, uint64_t position, uint64_t end) {
    enum rmp_state state = rmp_word_state(word);
    uint32_t units = rmp_word_units(word), owner = rmp_word_owner(word);
    uint64_t room = reader->ring.capacity_units - (position & (reader->ring.capacity_units - 1));
    if (state == RMP_FREE || state > RMP_PAD || rmp_word_tag(word) != (position & RMP_TAG_MASK)) return false;
    if (!units || units > room || units > end - position) return false;
    if (state == RMP_PAD) return owner == RMP_OWNER_PAD && units == room; /* padding ends where the ring does */
    return owner && owner < reader->ring.slot_count;
}

static bool has_valid_length(const rmp_reader *reader, uint32_t payload_bytes, uint32_t units) {
    return payload_bytes <= reader->ring.max_payload_bytes && rmp_units_for(payload_bytes) == units;
}

/* Whether [free_pos, cursor) can be: a window that no damaged word of the header stretches, nor wraps around
 * the end of the numbers, where differences would still look small. */
static bool is_plausible_window(const rmp_reader *reader) {
    return reader->free_pos <= UINT64_MAX - reader->ring.capacity_units && /* positions never wrap */
           reader->free_pos <= reader->cursor && reader->cursor - reader->free_pos <= reader->ring.capacity_units;
}

/* A fenced claim that this reader passes holds its space back, whoever fenced it: the last reader may
 * have died between the fence and its next step. False: there is no room to remember it. */
static bool hold_fenced(rmp_reader *reader, uint64_t position) {
    if (reader->fenced_count && reader->fenced[reader->fenced_count - 1] >= position) return true;
    if (reader->fenced_count == RMP_MAX_FENCED) return false;
    reader->fenced[reader->fenced_count++] = position;
    return true;
}

void rmp_reader_open(rmp_reader *reader, const rmp_ring *ring) {
    memset(reader, 0, sizeof *reader);
    reader->ring = *ring;
    reader->read_pos = reader->cursor = rmp_load_acquire(&ring->header->read_pos);
    reader->free_pos = rmp_load_acquire(&ring->header->free_pos);
    if (!is_plausible_window(reader)) return; /* every look will say BROKEN */
    /* The last reader may have died with fenced claims passed but not released. Its release goes from
     * the newest unit to the oldest: a head that is not FREE yet still tells its record's length. */
    for (uint64_t p = reader->free_pos; p < reader->read_pos;) {
        uint64_t word = rmp_load_acquire(&rmp_ring_record(ring, p)->word);
        bool head = is_head(reader, word, p, reader->read_pos);
        if (head && rmp_word_state(word) == RMP_FENCED && !hold_fenced(reader, p)) return;
        p += head ? rmp_word_units(word) : 1;
    }
}

static bool is_plausible_tail(const rmp_reader *reader, rmp_pair tail) {
    return is_plausible_window(reader) && tail.low >= reader->cursor &&
           tail.low - reader->free_pos <= reader->ring.capacity_units &&
           rmp_tail_units(tail) <= tail.low - reader->free_pos;
}

static uint32_t committed_crc(const rmp_read *read, const void *payload) {
    return record_crc(rmp_crc32c(0, payload, read->payload_bytes), read->owner_seq, read->position, read->word);
}

/* Whether a record at `position` can be trusted in resync: a committed one proves itself by its CRC,
 * the others carry 29 bits of their position. A CRC costs its record's length of `budget_units`. */
static bool is_trusted(const rmp_reader *reader, uint64_t position, uint64_t end, uint64_t *budget_units) {
    const rmp_record *record = rmp_ring_record(&reader->ring, position);
    uint64_t word = rmp_load_acquire(&record->word);
    if (!is_head(reader, word, position, end)) return false;
    if (rmp_word_state(word) != RMP_COMMITTED) return true;
    rmp_read read = {.position = position, .owner_seq = record->owner_seq, .word = word,
                     .payload_bytes = rmp_load_relaxed(&record->payload_bytes)}; /* read once: it is checked */
    if (!has_valid_length(reader, read.payload_bytes, rmp_word_units(word))) return false;
    if (*budget_units < rmp_word_units(word)) return false;
    *budget_units -= rmp_word_units(word);
    return committed_crc(&read, record->payload) == record->crc;
}

/* The record at `read->position` is damaged: find the next that is not. The newest claim's start is
 * known from the tail, so the search always ends at a true boundary. What is hostile can make every unit
 * look like the head of a long record: without a budget the search took the square of the ring's length. */
#define RESYNC_LAPS 4u

static void resync(const rmp_reader *reader, rmp_read *read) {
    if (reader->salvages) { /* it was whole when it was looked at */
        read->kind = RMP_READ_CORRUPT;
        read->next = read->position + 1;
        return;
    }
    rmp_pair tail = rmp_load_acquire_pair(&reader->ring.header->tail);
    read->kind = RMP_READ_BROKEN;
    if (!is_plausible_tail(reader, tail) || tail.low == read->position) return; /* bounds the search */
    uint64_t newest = tail.low - rmp_tail_units(tail);
    uint64_t position = read->position + 1, budget_units = RESYNC_LAPS * reader->ring.capacity_units;
    while (position < newest && !is_trusted(reader, position, tail.low, &budget_units)) position++;
    read->kind = RMP_READ_CORRUPT;
    read->next = read->position < newest ? position : tail.low;
}

bool rmp_reader_salvage(rmp_reader *reader) {
    reader->salvages = true;
    reader->budget_units = RESYNC_LAPS * reader->ring.capacity_units;
    return is_plausible_window(reader);
}

static void read_head(rmp_reader *reader, rmp_read *read, uint64_t word) {
    const rmp_record *record = rmp_ring_record(&reader->ring, read->position);
    read->word = word;
    read->state = rmp_word_state(word);
    read->owner = rmp_word_owner(word);
    read->next = read->position + rmp_word_units(word);
    if (read->state != RMP_COMMITTED) return;
    read->kind = RMP_READ_RECORD;
    read->payload_bytes = rmp_load_relaxed(&record->payload_bytes); /* read once: it is checked */
    read->owner_seq = record->owner_seq;
    read->crc = record->crc;
    if (!has_valid_length(reader, read->payload_bytes, rmp_word_units(word))) resync(reader, read);
}

static void look_without_tail(rmp_reader *reader, rmp_read *read) {
    uint64_t position = reader->cursor, end = reader->free_pos + reader->ring.capacity_units, word = 0;
    read->kind = RMP_READ_EMPTY;
    if (!is_plausible_window(reader) || position == end) return;
    for (; position < end; position++) {
        word = rmp_load_acquire(&rmp_ring_record(&reader->ring, position)->word);
        if (rmp_word_state(word) == RMP_COMMITTED && is_trusted(reader, position, end, &reader->budget_units)) break;
    }
    read->kind = RMP_READ_CORRUPT;
    read->next = position;
    if (position == reader->cursor) read_head(reader, read, word);
}

void rmp_reader_look(rmp_reader *reader, rmp_read *read) {
    rmp_ring *ring = &reader->ring;
    memset(read, 0, sizeof *read);
    read->position = read->next = reader->cursor;
    if (reader->salvages) {
        look_without_tail(reader, read);
        return;
    }
    rmp_pair tail = rmp_load_acquire_pair(&ring->header->tail);
    read->kind = RMP_READ_BROKEN;
    if (!is_plausible_window(reader)) return; /* also of an empty ring: its release would never end */
    read->kind = RMP_READ_EMPTY;
    if (tail.low == reader->cursor) return;
    read->kind = RMP_READ_BROKEN;
    if (!is_plausible_tail(reader, tail)) return;

    rmp_record *record = rmp_ring_record(ring, reader->cursor);
    uint64_t word = rmp_load_acquire(&record->word); /* pairs with the commit's release */
    if (word == rmp_word_free(reader->cursor)) {     /* only the newest claim can lack its header */
        publish(ring, rmp_load_acquire_pair(&ring->header->tail));
        word = rmp_load_acquire(&record->word);
    }
    if (!is_head(reader, word, reader->cursor, tail.low)) {
        resync(reader, read);
        return;
    }
    enum rmp_state state = rmp_word_state(word);
    read->kind = state == RMP_BUSY ? RMP_READ_BLOCKED : RMP_READ_SKIPPED;
    if (state == RMP_FENCED && !hold_fenced(reader, reader->cursor)) read->kind = RMP_READ_BLOCKED;
    read_head(reader, read, word);
}

bool rmp_reader_copy(rmp_reader *reader, rmp_read *read, void *destination) {
    rmp_copy(destination, rmp_ring_record(&reader->ring, read->position)->payload, read->payload_bytes);
    if (committed_crc(read, destination) == read->crc) return true;
    resync(reader, read);
    return false;
}

static bool turn_busy(rmp_reader *reader, const rmp_read *read, enum rmp_state state) {
    uint32_t units = rmp_word_units(read->word);
    return rmp_cas_acq_rel_u64(&rmp_ring_record(&reader->ring, read->position)->word, read->word,
                               rmp_word(state, read->owner, units, read->position));
}

bool rmp_reader_abort_dead(rmp_reader *reader, const rmp_read *read) { return turn_busy(reader, read, RMP_ABORTED); }

bool rmp_reader_fence(rmp_reader *reader, const rmp_read *read) {
    if (reader->fenced_count == RMP_MAX_FENCED || !turn_busy(reader, read, RMP_FENCED)) return false;
    return hold_fenced(reader, read->position);
}

void rmp_reader_release_fenced(rmp_reader *reader, uint64_t position) {
    uint64_t *word = &rmp_ring_record(&reader->ring, position)->word;
    uint64_t found = rmp_load_acquire(word);
    if (rmp_word_state(found) != RMP_FENCED) return;
    rmp_cas_acq_rel_u64(word, found, (found & ~7ull) | RMP_ABORTED);
}

void rmp_reader_delivered(rmp_reader *reader, uint64_t position) {
    reader->read_pos = position;
    rmp_store_release(&reader->ring.header->read_pos, position);
    RMP_TESTPOINT("reader.delivered");
    /* Unfenced: a flush that falls asleep just now is woken by the next record, or at the batch's end. */
    notify_delivered_fenced(reader->ring.header, position);
}

/* Up to where space can be handed back: the oldest fenced writer that may still write holds it. */
static uint64_t release_limit(rmp_reader *reader) {
    uint32_t noticed = 0;
    while (noticed < reader->fenced_count) {
        uint64_t word = rmp_load_acquire(&rmp_ring_record(&reader->ring, reader->fenced[noticed])->word);
        if (rmp_word_state(word) == RMP_FENCED) break;
        noticed++;
    }
    reader->fenced_count -= noticed;
    memmove(reader->fenced, reader->fenced + noticed, reader->fenced_count * sizeof reader->fenced[0]);
    if (!reader->fenced_count || reader->fenced[0] > reader->read_pos) return reader->read_pos; /* cursor runs ahead */
    return reader->fenced[0];
}

void rmp_reader_release(rmp_reader *reader) {
    rmp_ring *ring = &reader->ring;
    uint64_t limit = release_limit(reader);
    if (limit > reader->free_pos && limit - reader->free_pos <= ring->capacity_units) {
        /* Newest first: whoever takes over after a crash in here finds the oldest heads intact. */
        for (uint64_t p = limit; p-- > reader->free_pos;) {
            rmp_store_relaxed(&rmp_ring_record(ring, p)->word, rmp_word_free(p + ring->capacity_units));
            RMP_TESTPOINT("reader.unit_released");
        }
        reader->free_pos = limit;
        rmp_store_release(&ring->header->free_pos, limit); /* pairs with the acquire in rmp_ring_claim */
        RMP_TESTPOINT("reader.released");
    }
    rmp_fence_seq_cst(); /* for both; pairs with those in rmp_eventcount_wait and rmp_ring_wait_for_delivery */
    rmp_eventcount_notify_fenced(&ring->header->space);
    notify_delivered_fenced(ring->header, reader->read_pos);
}

/* Something to look at: a claim beyond the cursor whose head is not BUSY. */
static bool has_news(const void *context) {
    const rmp_reader *reader = context;
    if (rmp_ring_tail(&reader->ring) == reader->cursor) return false;
    uint64_t word = rmp_load_acquire(&rmp_ring_record(&reader->ring, reader->cursor)->word);
    return rmp_word_state(word) != RMP_BUSY;
}

void rmp_reader_wait(rmp_reader *reader, uint64_t spin_ns, uint64_t timeout_ns) {
    uint64_t until = rmp_monotonic_ns() + spin_ns;
    do {
        if (has_news(reader)) return;
        for (int i = 0; i < 32; i++) rmp_cpu_relax();
    } while (rmp_monotonic_ns() < until);
    rmp_eventcount_wait(&reader->ring.header->data, has_news, reader, timeout_ns);
}

/* A claim that is not finished: its writer may be dead, so it is looked at this often. */
#define RMP_HELD_UP_NS 2000000u

static bool is_held_up(const rmp_reader *reader) { return rmp_ring_tail(&reader->ring) != reader->cursor; }

void rmp_reader_rest(rmp_reader *reader, uint64_t spin_ns, uint64_t until_ns) {
    const rmp_eventcount *data = &reader->ring.header->data;
    for (bool held_up = false;; spin_ns = 0) {
        uint32_t calls = rmp_eventcount_calls(data);
        uint64_t now = rmp_monotonic_ns();
        bool is_over = held_up || calls != reader->calls_heard || now >= until_ns || has_news(reader);
        reader->calls_heard = calls; /* whoever calls from here on is heard by the next look */
        if (is_over) return;
        held_up = is_held_up(reader);
        uint64_t most_ns = held_up ? RMP_HELD_UP_NS : UINT64_MAX;
        rmp_reader_wait(reader, spin_ns, until_ns - now < most_ns ? until_ns - now : most_ns);
    }
}

/* Of the time since the last news, so that what comes at intervals waits for a fraction of one. */
#define RMP_NAP_FRACTION 2u
#define RMP_SHORTEST_NAP_NS 50000u
#define RMP_LONGEST_NAP_NS 500000u

bool rmp_reader_nap(rmp_reader *reader, uint64_t since_ns, uint64_t until_ns) {
    for (;;) {
        if (has_news(reader)) return true;
        uint64_t now = rmp_monotonic_ns();
        if (now >= until_ns || is_held_up(reader)) return false;
        uint64_t nap_ns = (now - since_ns) / RMP_NAP_FRACTION;
        if (nap_ns < RMP_SHORTEST_NAP_NS) nap_ns = RMP_SHORTEST_NAP_NS;
        if (nap_ns > RMP_LONGEST_NAP_NS) nap_ns = RMP_LONGEST_NAP_NS;
        rmp_eventcount_nap(&reader->ring.header->data, has_news, reader, nap_ns);
    }
}
