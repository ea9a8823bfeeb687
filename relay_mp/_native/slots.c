#include "slots.h"

#include <string.h>

#include "testpoint.h"

static bool was_of(const rmp_slot *slot, uint64_t state, rmp_process process) {
    return rmp_slot_status(state) == RMP_SLOT_EXITED && rmp_slot_pid(state) == process.pid &&
           rmp_load_relaxed(&slot->start_time) == process.start_time &&
           rmp_load_relaxed(&slot->pid_namespace) == process.pid_namespace;
}

/* What was emitted through it has been delivered, or is counted and marked as lost. */
static bool is_accounted(const rmp_ring *ring, uint32_t number) {
    const rmp_slot *slot = rmp_ring_slot(ring, number);
    return rmp_load_acquire_pair(&slot->passed).low >= rmp_load_relaxed(&slot->emitted) &&
           rmp_slots_unmarked(ring, number, RMP_MARK_ALL, 0) == 0;
}

/* A thread that ended in good order left nothing unfinished, and its numbers run on: the next thread of
 * the same process may go on with them at once, however far behind delivery is. */
static bool is_reusable(const rmp_ring *ring, uint32_t number, uint64_t state, rmp_process process) {
    const rmp_slot *slot = rmp_ring_slot(ring, number);
    enum rmp_slot_status status = rmp_slot_status(state);
    if (status == RMP_SLOT_FREE || was_of(slot, state, process)) return true;
    if (status != RMP_SLOT_EXITED && status != RMP_SLOT_SETTLED) return false;
    return rmp_load_acquire(&ring->header->free_pos) >= rmp_load_acquire(&slot->retired_tail) &&
           is_accounted(ring, number);
}

/* Of those that never arrived; `poison` are apart. */
static uint64_t lost_of(const rmp_slot *slot) {
    return rmp_load_relaxed(&slot->lost_full) + rmp_load_relaxed(&slot->lost_writer_died) +
           rmp_load_relaxed(&slot->lost_fenced) + rmp_load_relaxed(&slot->lost_corrupt);
}

void rmp_slots_count_control(rmp_slot *slot) {
    rmp_pair controls = rmp_load_acquire_pair(&slot->controls);
    rmp_cas_acq_rel_pair(&slot->controls, controls, (rmp_pair){controls.low + 1, rmp_load_relaxed(&slot->emitted) + 1});
}

void rmp_slots_uncount_control(rmp_slot *slot) {
    rmp_pair controls = rmp_load_acquire_pair(&slot->controls);
    rmp_cas_acq_rel_pair(&slot->controls, controls, (rmp_pair){controls.low - 1, 0});
}

/* A slot's requests, for its next owner. One that was counted and never emitted, as its owner died just then, does not count:
 * the next owner's first event has its number. */
static uint64_t settled_controls(rmp_slot *slot) {
    if (rmp_load_acquire_pair(&slot->controls).high > rmp_load_relaxed(&slot->emitted)) rmp_slots_uncount_control(slot);
    return rmp_load_relaxed(&slot->controls.low);
}

static void identify(rmp_slot *slot, rmp_process process) {
    rmp_pair passed = rmp_load_acquire_pair(&slot->passed), poison = rmp_load_acquire_pair(&slot->poison);
    rmp_store_relaxed(&slot->pid_namespace, process.pid_namespace);
    rmp_store_relaxed(&slot->start_time, process.start_time);
    rmp_store_relaxed(&slot->base_emitted, rmp_load_relaxed(&slot->emitted));
    rmp_store_relaxed(&slot->base_delivered, passed.low - passed.high - poison.low);
    rmp_store_relaxed(&slot->base_controls, settled_controls(slot));
    rmp_store_relaxed(&slot->base_cut, rmp_load_relaxed(&slot->cut));
    rmp_store_relaxed(&slot->base_replaced, rmp_load_relaxed(&slot->replaced));
    rmp_store_relaxed(&slot->base_lost_full, rmp_load_relaxed(&slot->lost_full));
    rmp_store_relaxed(&slot->base_lost_writer_died, rmp_load_relaxed(&slot->lost_writer_died));
    rmp_store_relaxed(&slot->base_lost_fenced, rmp_load_relaxed(&slot->lost_fenced));
    rmp_store_relaxed(&slot->base_lost_corrupt, rmp_load_relaxed(&slot->lost_corrupt));
    rmp_store_relaxed(&slot->base_lost_poison, poison.low);
}

bool rmp_slots_take_this(const rmp_ring *ring, uint32_t number, rmp_process process, uint64_t thread_id) {
    if (number == 0 || number >= ring->slot_count) return false;
    rmp_slot *slot = rmp_ring_slot(ring, number);
    uint64_t state = rmp_load_acquire(&slot->state);
    if (!is_reusable(ring, number, state, process)) return false;
    bool same_process = was_of(slot, state, process);
    uint32_t generation = rmp_slot_generation(state) + 1;
    if (!rmp_cas_acq_rel_u64(&slot->state, state, rmp_slot_state(RMP_SLOT_TAKING, generation, process.pid))) return false;
    RMP_TESTPOINT("slot.taking");
    if (!same_process) identify(slot, process);
    rmp_store_relaxed(&slot->thread_id, thread_id);
    /* Else taken for dead meanwhile: no longer ours, and perhaps somebody's already. */
    return rmp_cas_acq_rel_u64(&slot->state, rmp_slot_state(RMP_SLOT_TAKING, generation, process.pid),
                               rmp_slot_state(RMP_SLOT_LIVE, generation, process.pid));
}

uint32_t rmp_slots_take(const rmp_ring *ring, rmp_process process, uint64_t thread_id) {
    uint32_t count = ring->slot_count;
    uint32_t start = rmp_load_relaxed(&ring->header->slot_cursor) % count;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number = (start + i) % count;
        if (!rmp_slots_take_this(ring, number, process, thread_id)) continue;
        rmp_store_relaxed(&ring->header->slot_cursor, (number + 1) % count);
        return number;
    }
    return 0;
}

rmp_process rmp_slots_owner(const rmp_ring *ring, uint32_t number, uint64_t state_seen) {
    const rmp_slot *slot = rmp_ring_slot(ring, number);
    bool identified = rmp_slot_status(state_seen) != RMP_SLOT_TAKING;
    return (rmp_process){.pid = rmp_slot_pid(state_seen),
                         .start_time = identified ? rmp_load_relaxed(&slot->start_time) : 0,
                         .pid_namespace = rmp_load_relaxed(&slot->pid_namespace)};
}

static void retire(const rmp_ring *ring, rmp_slot *slot, uint64_t state, enum rmp_slot_status status) {
    rmp_store_release(&slot->retired_tail, rmp_ring_tail(ring));
    uint64_t retired = rmp_slot_state(status, rmp_slot_generation(state), rmp_slot_pid(state));
    rmp_cas_acq_rel_u64(&slot->state, state, retired);
}

void rmp_slots_exit(const rmp_ring *ring, uint32_t number) {
    rmp_slot *slot = rmp_ring_slot(ring, number);
    uint64_t state = rmp_load_acquire(&slot->state);
    if (rmp_slot_status(state) == RMP_SLOT_LIVE) retire(ring, slot, state, RMP_SLOT_EXITED);
}

void rmp_slots_mark_dead(const rmp_ring *ring, uint32_t number, uint64_t state_seen) {
    enum rmp_slot_status status = rmp_slot_status(state_seen);
    if (status == RMP_SLOT_LIVE || status == RMP_SLOT_TAKING)
        retire(ring, rmp_ring_slot(ring, number), state_seen, RMP_SLOT_DEAD);
}

static void store_passed(rmp_slot *slot, rmp_pair before, uint64_t owner_seq, uint64_t lost) {
    rmp_pair after = {owner_seq, before.high + lost};
    rmp_cas_acq_rel_pair(&slot->passed, before, after); /* both or neither, whenever the dispatcher dies */
}

/* What is missing and was not counted by its cause is counted by this one. */
static void count_rest(rmp_slot *slot, uint64_t missing, uint64_t *cause) {
    uint64_t counted = lost_of(slot);
    if (missing > counted) rmp_add_relaxed(cause, missing - counted);
}

uint64_t rmp_slots_settle(const rmp_ring *ring, uint32_t number) {
    rmp_slot *slot = rmp_ring_slot(ring, number);
    uint64_t state = rmp_load_acquire(&slot->state);
    bool died = rmp_slot_status(state) == RMP_SLOT_DEAD;
    if (!died && rmp_slot_status(state) != RMP_SLOT_EXITED) return 0;
    if (rmp_load_acquire(&ring->header->read_pos) < rmp_load_acquire(&slot->retired_tail)) return 0;
    RMP_TESTPOINT("slot.settling");
    rmp_pair passed = rmp_load_acquire_pair(&slot->passed);
    uint64_t emitted = rmp_load_acquire(&slot->emitted);
    /* An exited one may have a successor by now, of the same process: what that one has begun is not lost.
     * Looked at after `emitted`: a number of the successor's own is seen only together with its state. */
    if (rmp_load_acquire(&slot->state) != state) return 0;
    uint64_t trailing = emitted > passed.low ? emitted - passed.low : 0;
    if (trailing || died) count_rest(slot, passed.high + trailing, died ? &slot->lost_writer_died : &slot->lost_corrupt);
    RMP_TESTPOINT("slot.counted");
    if (trailing) store_passed(slot, passed, emitted, trailing);
    RMP_TESTPOINT("slot.settled");
    if (died)
        rmp_store_release(&slot->state, rmp_slot_state(RMP_SLOT_SETTLED, rmp_slot_generation(state), rmp_slot_pid(state)));
    return trailing;
}

void rmp_slots_write_off(const rmp_ring *ring, uint32_t number) {
    rmp_slot *slot = rmp_ring_slot(ring, number);
    rmp_pair passed = rmp_load_acquire_pair(&slot->passed);
    uint64_t emitted = rmp_load_acquire(&slot->emitted);
    if (emitted > passed.low) count_rest(slot, passed.high + emitted - passed.low, &slot->lost_corrupt);
}

uint64_t rmp_slots_missing(const rmp_ring *ring, uint32_t number, uint64_t owner_seq) {
    rmp_slot *slot = rmp_ring_slot(ring, number);
    rmp_pair passed = rmp_load_acquire_pair(&slot->passed);
    if (owner_seq <= passed.low + 1) return 0;
    uint64_t missing = owner_seq - passed.low - 1;
    /* The producer counted what it dropped before it went on, the dispatcher what it skipped: the rest
     * was in records whose heads told no owner any more. */
    count_rest(slot, passed.high + missing, &slot->lost_corrupt);
    return missing;
}

#define BEGUN_SEQ_MASK ((1ull << 40) - 1)

uint32_t rmp_slots_pass(const rmp_ring *ring, uint32_t number, uint64_t owner_seq) {
    rmp_slot *slot = rmp_ring_slot(ring, number);
    uint64_t record = (owner_seq & BEGUN_SEQ_MASK) << 24 | (uint64_t)(number & 0xffffu) << 8;
    uint64_t begun = rmp_load_relaxed(&ring->header->begun);
    uint32_t before = (begun & ~0xffull) == record ? (uint32_t)(begun & 0xff) : 0;
    rmp_store_release(&ring->header->begun, record | (before < 0xff ? before + 1 : before));
    RMP_TESTPOINT("slot.begun");
    rmp_pair passed = rmp_load_acquire_pair(&slot->passed);
    if (owner_seq <= passed.low) return before ? before : 1;
    store_passed(slot, passed, owner_seq, owner_seq - passed.low - 1);
    RMP_TESTPOINT("slot.passed");
    return 0; /* whoever wrote `begun` before died before its first callback */
}

bool rmp_slots_give_up(const rmp_ring *ring, uint32_t number, uint64_t owner_seq) {
    rmp_slot *slot = rmp_ring_slot(ring, number);
    rmp_pair poison = rmp_load_acquire_pair(&slot->poison);
    if (poison.high >= owner_seq) return false;
    rmp_cas_acq_rel_pair(&slot->poison, poison, (rmp_pair){poison.low + 1, owner_seq}); /* once, whenever we die */
    RMP_TESTPOINT("slot.given_up");
    return true;
}

/* ---- marks of losses ---- */

#define MARK_TIMES 0xffull

static uint64_t counted_of(const rmp_ring *ring, uint32_t number, enum rmp_cause cause) {
    const rmp_slot *slot = rmp_ring_slot(ring, number);
    if (!number) return cause == RMP_LOST_FULL ? rmp_load_acquire(&ring->header->lost_unregistered) : 0;
    switch (cause) {
    case RMP_LOST_FULL: return rmp_load_acquire(&slot->lost_full);
    case RMP_LOST_WRITER_DIED: return rmp_load_relaxed(&slot->lost_writer_died);
    case RMP_LOST_FENCED: return rmp_load_relaxed(&slot->lost_fenced);
    case RMP_LOST_CORRUPT: return rmp_load_relaxed(&slot->lost_corrupt);
    default: return rmp_load_acquire_pair(&slot->poison).low;
    }
}

uint64_t rmp_slots_unmarked(const rmp_ring *ring, uint32_t number, enum rmp_marked_part part, uint64_t missing) {
    const rmp_slot *slot = rmp_ring_slot(ring, number);
    uint64_t marked = 0, total = missing;
    for (int cause = 0; cause < RMP_CAUSES; cause++) {
        marked += rmp_load_acquire(&slot->marked[cause]);
        if (!number || part == RMP_MARK_ALL) total += counted_of(ring, number, cause);
    }
    if (number && part == RMP_MARK_PASSED)
        total += rmp_load_acquire_pair(&slot->passed).high + rmp_load_acquire_pair(&slot->poison).low;
    return total > marked ? total - marked : 0;
}

void rmp_mark_prepare(const rmp_ring *ring, uint32_t number, uint64_t count, uint64_t seq, uint64_t timestamp_us,
                      const uint8_t uuid[16]) {
    const rmp_slot *slot = rmp_ring_slot(ring, number);
    rmp_mark *mark = &ring->header->mark;
    mark->seq = seq;
    mark->slot = number;
    mark->pid = number ? rmp_slot_pid(rmp_load_acquire(&slot->state)) : 0;
    mark->timestamp_us = timestamp_us;
    memcpy(mark->uuid, uuid, sizeof mark->uuid);
    /* Only the producer counts ahead of its place in the stream, what it drops: that is for the next mark, so
     * the other causes come first. What no cause counts, as after damage, ends here as corrupt. */
    for (int cause = RMP_CAUSES - 1; cause >= 0; cause--) {
        uint64_t counted = counted_of(ring, number, cause), marked = rmp_load_relaxed(&slot->marked[cause]);
        uint64_t share = counted > marked ? counted - marked : 0;
        mark->lost[cause] = share < count ? share : count;
        count -= mark->lost[cause];
    }
    mark->lost[number ? RMP_LOST_CORRUPT : RMP_LOST_FULL] += count;
    for (int cause = 0; cause < RMP_CAUSES; cause++)
        mark->marked[cause] = rmp_load_relaxed(&slot->marked[cause]) + mark->lost[cause];
    RMP_TESTPOINT("mark.prepared");
}

uint64_t rmp_mark_begin(const rmp_ring *ring) {
    uint64_t begun = rmp_load_acquire(&ring->header->mark.begun), before = begun & MARK_TIMES;
    if (!before) begun += MARK_TIMES + 1;
    rmp_store_release(&ring->header->mark.begun, before < MARK_TIMES ? begun + 1 : begun);
    RMP_TESTPOINT("mark.begun");
    return before;
}

uint64_t rmp_mark_times(const rmp_ring *ring) { return rmp_load_acquire(&ring->header->mark.begun) & MARK_TIMES; }

uint64_t rmp_mark_count(const rmp_ring *ring) { return rmp_load_acquire(&ring->header->mark.begun) / (MARK_TIMES + 1); }

void rmp_mark_done(const rmp_ring *ring) {
    rmp_mark *mark = &ring->header->mark;
    uint64_t number = rmp_load_relaxed(&mark->slot); /* read once: it is checked */
    for (int cause = 0; number < ring->slot_count && cause < RMP_CAUSES; cause++) {
        rmp_store_release(&rmp_ring_slot(ring, (uint32_t)number)->marked[cause], mark->marked[cause]);
        RMP_TESTPOINT("mark.stored");
    }
    rmp_store_release(&mark->begun, rmp_load_relaxed(&mark->begun) & ~MARK_TIMES);
    RMP_TESTPOINT("mark.done");
}
