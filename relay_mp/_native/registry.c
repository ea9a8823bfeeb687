#include "registry.h"

#include "testpoint.h"

static bool was_of(const rmp_slot *slot, uint64_t state, rmp_process process) {
    return rmp_slot_status(state) == RMP_SLOT_EXITED && rmp_slot_pid(state) == process.pid &&
           rmp_load_relaxed(&slot->start_time) == process.start_time &&
           rmp_load_relaxed(&slot->pid_namespace) == process.pid_namespace;
}

/* A thread that ended in good order left nothing unfinished, and its numbers run on: the next thread of
 * the same process may go on with them at once, however far behind delivery is. */
static bool is_reusable(const rmp_ring *ring, const rmp_slot *slot, uint64_t state, rmp_process process) {
    enum rmp_slot_status status = rmp_slot_status(state);
    if (status == RMP_SLOT_FREE || was_of(slot, state, process)) return true;
    if (status != RMP_SLOT_EXITED && status != RMP_SLOT_SETTLED) return false;
    return rmp_load_acquire(&ring->header->free_pos) >= rmp_load_acquire(&slot->retired_tail);
}

static uint64_t lost_of(const rmp_slot *slot) {
    return rmp_load_relaxed(&slot->lost_full) + rmp_load_relaxed(&slot->lost_writer_died) +
           rmp_load_relaxed(&slot->lost_fenced) + rmp_load_relaxed(&slot->lost_corrupt);
}

static void identify(rmp_slot *slot, rmp_process process) {
    rmp_pair passed = rmp_load_acquire_pair(&slot->passed);
    rmp_store_relaxed(&slot->pid_namespace, process.pid_namespace);
    rmp_store_relaxed(&slot->start_time, process.start_time);
    rmp_store_relaxed(&slot->base_emitted, rmp_load_relaxed(&slot->emitted));
    rmp_store_relaxed(&slot->base_delivered, passed.low - passed.high);
    rmp_store_relaxed(&slot->base_controls, rmp_load_relaxed(&slot->controls));
    rmp_store_relaxed(&slot->base_cut, rmp_load_relaxed(&slot->cut));
    rmp_store_relaxed(&slot->base_lost_full, rmp_load_relaxed(&slot->lost_full));
    rmp_store_relaxed(&slot->base_lost_writer_died, rmp_load_relaxed(&slot->lost_writer_died));
    rmp_store_relaxed(&slot->base_lost_fenced, rmp_load_relaxed(&slot->lost_fenced));
    rmp_store_relaxed(&slot->base_lost_corrupt, rmp_load_relaxed(&slot->lost_corrupt));
}

uint32_t rmp_registry_take(const rmp_ring *ring, rmp_process process, uint64_t thread_id) {
    uint32_t count = ring->slot_count;
    uint32_t start = rmp_load_relaxed(&ring->header->slot_cursor) % count;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number = (start + i) % count;
        rmp_slot *slot = rmp_ring_slot(ring, number);
        uint64_t state = rmp_load_acquire(&slot->state);
        if (number == 0 || !is_reusable(ring, slot, state, process)) continue;
        bool same_process = was_of(slot, state, process);
        uint32_t generation = rmp_slot_generation(state) + 1;
        if (!rmp_cas_acq_rel_u64(&slot->state, state, rmp_slot_state(RMP_SLOT_TAKING, generation, process.pid)))
            continue;
        RMP_TESTPOINT("registry.taking");
        if (!same_process) identify(slot, process);
        rmp_store_relaxed(&slot->thread_id, thread_id);
        if (!rmp_cas_acq_rel_u64(&slot->state, rmp_slot_state(RMP_SLOT_TAKING, generation, process.pid),
                                 rmp_slot_state(RMP_SLOT_LIVE, generation, process.pid)))
            continue; /* taken for dead meanwhile: no longer ours, and perhaps somebody's already */
        rmp_store_relaxed(&ring->header->slot_cursor, (number + 1) % count);
        return number;
    }
    return 0;
}

rmp_process rmp_registry_owner(const rmp_ring *ring, uint32_t number, uint64_t state_seen) {
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

void rmp_registry_exit(const rmp_ring *ring, uint32_t number) {
    rmp_slot *slot = rmp_ring_slot(ring, number);
    uint64_t state = rmp_load_acquire(&slot->state);
    if (rmp_slot_status(state) == RMP_SLOT_LIVE) retire(ring, slot, state, RMP_SLOT_EXITED);
}

void rmp_registry_mark_dead(const rmp_ring *ring, uint32_t number, uint64_t state_seen) {
    enum rmp_slot_status status = rmp_slot_status(state_seen);
    if (status == RMP_SLOT_LIVE || status == RMP_SLOT_TAKING)
        retire(ring, rmp_ring_slot(ring, number), state_seen, RMP_SLOT_DEAD);
}

static void store_passed(rmp_slot *slot, rmp_pair before, uint64_t owner_seq, uint64_t lost) {
    rmp_pair after = {owner_seq, before.high + lost};
    rmp_cas_acq_rel_pair(&slot->passed, before, after); /* both or neither, whenever the dispatcher dies */
}

uint64_t rmp_registry_settle(const rmp_ring *ring, uint32_t number) {
    rmp_slot *slot = rmp_ring_slot(ring, number);
    uint64_t state = rmp_load_acquire(&slot->state);
    if (rmp_slot_status(state) != RMP_SLOT_DEAD) return 0;
    if (rmp_load_acquire(&ring->header->read_pos) < rmp_load_acquire(&slot->retired_tail)) return 0;
    rmp_pair passed = rmp_load_acquire_pair(&slot->passed);
    uint64_t emitted = rmp_load_acquire(&slot->emitted);
    uint64_t trailing = emitted > passed.low ? emitted - passed.low : 0;
    store_passed(slot, passed, emitted > passed.low ? emitted : passed.low, trailing);
    /* What is missing and was not counted by its cause died with its writer. */
    uint64_t missing = passed.high + trailing, counted = lost_of(slot);
    if (missing > counted) rmp_add_relaxed(&slot->lost_writer_died, missing - counted);
    rmp_store_release(&slot->state, rmp_slot_state(RMP_SLOT_SETTLED, rmp_slot_generation(state), rmp_slot_pid(state)));
    return trailing;
}

uint64_t rmp_registry_pass(const rmp_ring *ring, uint32_t number, uint64_t owner_seq, bool *redelivered) {
    rmp_slot *slot = rmp_ring_slot(ring, number);
    rmp_pair passed = rmp_load_acquire_pair(&slot->passed);
    *redelivered = owner_seq <= passed.low;
    if (*redelivered) return 0;
    uint64_t missing = owner_seq - passed.low - 1;
    store_passed(slot, passed, owner_seq, missing);
    /* The producer counted what it dropped before it went on, the dispatcher what it skipped: the rest
     * was in records whose heads told no owner any more. */
    uint64_t counted = lost_of(slot);
    if (passed.high + missing > counted) rmp_add_relaxed(&slot->lost_corrupt, passed.high + missing - counted);
    return missing;
}
