# ring.h: claim, commit, read, release. What each name does is said there.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from relay_mp._native.layout cimport rmp_header, rmp_slot


cdef extern from "ring.h" nogil:
    ctypedef struct rmp_ring:
        rmp_header* header
        uint8_t* slots
        uint64_t capacity_units
        uint32_t slot_count
        uint32_t max_payload_bytes
    enum:
        RMP_OK
        RMP_FULL
        RMP_SEALED
        RMP_OVERTAKEN
        RMP_READ_EMPTY
        RMP_READ_RECORD
        RMP_READ_BLOCKED
        RMP_READ_SKIPPED
        RMP_READ_CORRUPT
        RMP_READ_BROKEN
        RMP_FENCED
    ctypedef struct rmp_reader:
        rmp_ring ring
        uint64_t cursor
        uint64_t read_pos
        uint64_t free_pos
        uint64_t fenced[64]
        uint32_t fenced_count
    ctypedef struct rmp_read:
        int kind
        int state
        uint32_t owner
        uint32_t payload_bytes
        uint64_t position
        uint64_t next
        uint64_t owner_seq
        uint64_t word
    rmp_slot* rmp_ring_slot(const rmp_ring* ring, uint32_t owner)
    int rmp_ring_write(const rmp_ring* ring, uint32_t owner, uint64_t owner_seq, const void* payload,
                       uint32_t payload_bytes)
    void rmp_ring_wait_for_space(const rmp_ring* ring, uint32_t payload_bytes, uint64_t timeout_ns)
    void rmp_ring_seal(const rmp_ring* ring)
    void rmp_ring_mark_broken(const rmp_ring* ring)
    void rmp_ring_finish_salvage(const rmp_ring* ring)
    uint64_t rmp_ring_tail(const rmp_ring* ring)
    void rmp_ring_wait_for_delivery(const rmp_ring* ring, uint64_t position, uint64_t timeout_ns)
    void rmp_reader_open(rmp_reader* reader, const rmp_ring* ring)
    void rmp_reader_look(rmp_reader* reader, rmp_read* read)
    bint rmp_reader_salvage(rmp_reader* reader)
    bint rmp_reader_copy(rmp_reader* reader, rmp_read* read, void* destination)
    void rmp_reader_advance(rmp_reader* reader, const rmp_read* read)
    bint rmp_reader_abort_dead(rmp_reader* reader, const rmp_read* read)
    bint rmp_reader_fence(rmp_reader* reader, const rmp_read* read)
    void rmp_reader_release_fenced(rmp_reader* reader, uint64_t position)
    void rmp_reader_delivered(rmp_reader* reader, uint64_t position)
    void rmp_reader_release(rmp_reader* reader)
    void rmp_reader_rest(rmp_reader* reader, uint64_t spin_ns, uint64_t until_ns)
    bint rmp_reader_nap(rmp_reader* reader, uint64_t since_ns, uint64_t until_ns)
