# slots.h: producers' slots, and what was lost through them. What each name does is said there.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from relay_mp._native.layout cimport rmp_slot
from relay_mp._native.process cimport rmp_process
from relay_mp._native.ring cimport rmp_ring


cdef extern from "slots.h" nogil:
    uint32_t rmp_slots_take(const rmp_ring* ring, rmp_process process, uint64_t thread_id)
    void rmp_slots_exit(const rmp_ring* ring, uint32_t slot)
    rmp_process rmp_slots_owner(const rmp_ring* ring, uint32_t slot, uint64_t state_seen)
    void rmp_slots_mark_dead(const rmp_ring* ring, uint32_t slot, uint64_t state_seen)
    uint64_t rmp_slots_settle(const rmp_ring* ring, uint32_t slot)
    void rmp_slots_write_off(const rmp_ring* ring, uint32_t slot)
    uint64_t rmp_slots_missing(const rmp_ring* ring, uint32_t slot, uint64_t owner_seq)
    void rmp_slots_count_control(rmp_slot* slot)
    void rmp_slots_uncount_control(rmp_slot* slot)
    uint32_t rmp_slots_pass(const rmp_ring* ring, uint32_t slot, uint64_t owner_seq)
    bint rmp_slots_give_up(const rmp_ring* ring, uint32_t slot, uint64_t owner_seq)
    enum:
        RMP_MARK_PASSED
        RMP_MARK_ALL
    uint64_t rmp_slots_unmarked(const rmp_ring* ring, uint32_t slot, int part, uint64_t missing)
    void rmp_mark_prepare(const rmp_ring* ring, uint32_t slot, uint64_t count, uint64_t seq, uint64_t timestamp_us,
                          const uint8_t* uuid)
    uint64_t rmp_mark_begin(const rmp_ring* ring)
    uint64_t rmp_mark_times(const rmp_ring* ring)
    uint64_t rmp_mark_count(const rmp_ring* ring)
    void rmp_mark_done(const rmp_ring* ring)
