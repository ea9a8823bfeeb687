/* One process, one thread: what each call of the ring does, at every place of the ring. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdlib.h>

#include "ring_test.h"

#define OWNER 1u

static rmp_read look(rmp_reader *reader) {
    rmp_read read;
    rmp_reader_look(reader, &read);
    return read;
}

static void pass(rmp_reader *reader, const rmp_read *read) {
    rmp_reader_advance(reader, read);
    rmp_reader_delivered(reader, read->next);
}

/* Moves a drained ring on to `offset` units from its start. */
static void move_to(const rmp_ring *ring, rmp_reader *reader, uint64_t offset) {
    while ((reader->cursor & (ring->capacity_units - 1)) != offset) {
        uint64_t position;
        CHECK_EQUAL(rmp_ring_claim(ring, OWNER, 1, &position), RMP_OK);
        CHECK_EQUAL(rmp_ring_abort(ring, OWNER, position, 1), RMP_OK);
        rmp_read read = look(reader);
        CHECK_EQUAL(read.kind, RMP_READ_SKIPPED);
        pass(reader, &read);
        rmp_reader_release(reader);
    }
}

static void write_bytes(const rmp_ring *ring, uint64_t owner_seq, uint32_t bytes) {
    uint8_t *payload = malloc(bytes + 1u);
    CHECK(payload);
    for (uint32_t i = 0; i < bytes; i++) payload[i] = (uint8_t)(owner_seq + i * 13);
    CHECK_EQUAL(rmp_ring_write(ring, OWNER, owner_seq, payload, bytes), RMP_OK);
    free(payload);
}

static void read_bytes(rmp_reader *reader, uint64_t owner_seq, uint32_t bytes) {
    rmp_read read = look(reader);
    if (read.kind == RMP_READ_SKIPPED) { /* the padding before it */
        CHECK_EQUAL(read.state, RMP_PAD);
        CHECK_EQUAL(read.next & (reader->ring.capacity_units - 1), 0);
        pass(reader, &read);
        read = look(reader);
    }
    CHECK_EQUAL(read.kind, RMP_READ_RECORD);
    CHECK_EQUAL(read.owner, OWNER);
    CHECK_EQUAL(read.owner_seq, owner_seq);
    CHECK_EQUAL(read.payload_bytes, bytes);
    uint8_t *payload = malloc(bytes + 1u);
    CHECK(payload && rmp_reader_copy(reader, &read, payload));
    for (uint32_t i = 0; i < bytes; i++) CHECK_EQUAL(payload[i], (uint8_t)(owner_seq + i * 13));
    free(payload);
    pass(reader, &read);
}

static void check_all_free(const rmp_reader *reader) {
    const rmp_ring *ring = &reader->ring;
    CHECK_EQUAL(ring->header->free_pos, reader->free_pos);
    for (uint64_t p = reader->free_pos; p < reader->free_pos + ring->capacity_units; p++)
        CHECK(rmp_ring_record(ring, p)->word == rmp_word_free(p));
}

TEST(format_makes_an_empty_ring) {
    rmp_segment segment = make_segment(64, 4, 1000);
    rmp_reader reader;
    rmp_reader_open(&reader, &segment.ring);
    CHECK_EQUAL(look(&reader).kind, RMP_READ_EMPTY);
    check_all_free(&reader);
    rmp_segment_close(&segment, false);
}

TEST(payloads_of_every_size_come_back) {
    const uint32_t largest = 32 * 64 - RMP_RECORD_HEADER_BYTES;
    rmp_segment segment = make_segment(64, 4, largest);
    rmp_reader reader;
    rmp_reader_open(&reader, &segment.ring);
    for (uint32_t bytes = 0; bytes <= largest; bytes++) {
        write_bytes(&segment.ring, bytes + 1, bytes);
        read_bytes(&reader, bytes + 1, bytes);
        CHECK_EQUAL(look(&reader).kind, RMP_READ_EMPTY);
        rmp_reader_release(&reader);
    }
    check_all_free(&reader);
    rmp_segment_close(&segment, false);
}

TEST(the_largest_record_that_the_format_can_say_comes_back) {
    const uint32_t largest = RMP_MAX_UNITS * RMP_UNIT_BYTES - RMP_RECORD_HEADER_BYTES;
    rmp_segment segment = make_segment(131072, 4, largest);
    rmp_reader reader;
    rmp_reader_open(&reader, &segment.ring);
    for (uint64_t n = 1; n <= 5; n++) {
        write_bytes(&segment.ring, n, largest);
        read_bytes(&reader, n, largest);
        rmp_reader_release(&reader);
    }
    check_all_free(&reader);
    rmp_segment_close(&segment, false);
}

TEST(records_wrap_at_every_offset_with_every_length) {
    rmp_segment segment = make_segment(64, 4, 32 * 64 - RMP_RECORD_HEADER_BYTES);
    rmp_reader reader;
    rmp_reader_open(&reader, &segment.ring);
    uint64_t owner_seq = 0;
    for (uint64_t offset = 0; offset < 64; offset++)
        for (uint32_t units = 1; units <= 32; units++) {
            move_to(&segment.ring, &reader, offset);
            uint32_t bytes = units * 64 - RMP_RECORD_HEADER_BYTES - units % 3;
            uint64_t before = rmp_ring_tail(&segment.ring), room = 64 - offset;
            write_bytes(&segment.ring, ++owner_seq, bytes);
            CHECK_EQUAL(rmp_ring_tail(&segment.ring) - before, units > room ? room + units : units);
            read_bytes(&reader, owner_seq, bytes);
            CHECK_EQUAL(look(&reader).kind, RMP_READ_EMPTY);
            rmp_reader_release(&reader);
            check_all_free(&reader);
        }
    rmp_segment_close(&segment, false);
}

TEST(a_claim_blocks_the_reader_until_it_is_committed_or_aborted) {
    rmp_segment segment = make_segment(64, 4, 1000);
    const rmp_ring *ring = &segment.ring;
    rmp_reader reader;
    rmp_reader_open(&reader, ring);
    uint64_t first, second;
    CHECK_EQUAL(rmp_ring_claim(ring, 1, 2, &first), RMP_OK);
    CHECK_EQUAL(rmp_ring_claim(ring, 2, 3, &second), RMP_OK);
    rmp_read read = look(&reader);
    CHECK_EQUAL(read.kind, RMP_READ_BLOCKED);
    CHECK_EQUAL(read.owner, 1);
    uint8_t payload[150] = {9};
    CHECK_EQUAL(rmp_ring_commit(ring, 2, second, 1, payload, 150, rmp_crc32c(0, payload, 150)), RMP_OK);
    CHECK_EQUAL(look(&reader).kind, RMP_READ_BLOCKED);
    CHECK_EQUAL(rmp_ring_abort(ring, 1, first, 2), RMP_OK);
    read = look(&reader);
    CHECK_EQUAL(read.kind, RMP_READ_SKIPPED);
    CHECK_EQUAL(read.next, second);
    pass(&reader, &read);
    read = look(&reader);
    CHECK_EQUAL(read.kind, RMP_READ_RECORD);
    CHECK_EQUAL(read.owner, 2);
    rmp_segment_close(&segment, false);
}

TEST(a_full_ring_refuses_and_is_unchanged) {
    rmp_segment segment = make_segment(64, 4, 31 * 64);
    const rmp_ring *ring = &segment.ring;
    rmp_reader reader;
    rmp_reader_open(&reader, ring);
    for (uint64_t n = 1; n <= 8; n++) write_bytes(ring, n, 8 * 64 - RMP_RECORD_HEADER_BYTES);
    uint8_t *before = malloc(segment.bytes);
    CHECK(before);
    memcpy(before, segment.base, segment.bytes);
    uint64_t position = 77;
    for (uint32_t units = 1; units <= 32; units++) CHECK_EQUAL(rmp_ring_claim(ring, 2, units, &position), RMP_FULL);
    CHECK_EQUAL(position, 77);
    CHECK(memcmp(before, segment.base, segment.bytes) == 0);
    free(before);
    for (uint64_t n = 1; n <= 8; n++) read_bytes(&reader, n, 8 * 64 - RMP_RECORD_HEADER_BYTES);
    CHECK_EQUAL(rmp_ring_claim(ring, 2, 1, &position), RMP_FULL); /* delivered, not released */
    rmp_reader_release(&reader);
    CHECK_EQUAL(rmp_ring_claim(ring, 2, 1, &position), RMP_OK);
    rmp_segment_close(&segment, false);
}

TEST(a_full_ring_claims_at_most_the_padding) {
    rmp_segment segment = make_segment(64, 4, 31 * 64);
    const rmp_ring *ring = &segment.ring;
    rmp_reader reader;
    rmp_reader_open(&reader, ring);
    for (uint64_t n = 1; n <= 3; n++) write_bytes(ring, n, 20 * 64 - RMP_RECORD_HEADER_BYTES);
    uint64_t position;
    CHECK_EQUAL(rmp_ring_claim(ring, 2, 5, &position), RMP_FULL); /* 4 units are left, at the end */
    CHECK_EQUAL(rmp_ring_tail(ring), 64);
    for (uint64_t n = 1; n <= 3; n++) read_bytes(&reader, n, 20 * 64 - RMP_RECORD_HEADER_BYTES);
    rmp_read read = look(&reader);
    CHECK_EQUAL(read.state, RMP_PAD);
    CHECK_EQUAL(read.next, 64);
    pass(&reader, &read);
    rmp_reader_release(&reader);
    check_all_free(&reader);
    rmp_segment_close(&segment, false);
}

TEST(a_sealed_ring_takes_no_claim_and_gives_what_it_has) {
    rmp_segment segment = make_segment(64, 4, 1000);
    const rmp_ring *ring = &segment.ring;
    rmp_reader reader;
    rmp_reader_open(&reader, ring);
    uint64_t late, refused;
    write_bytes(ring, 1, 100);
    CHECK_EQUAL(rmp_ring_claim(ring, OWNER, rmp_units_for(100), &late), RMP_OK);
    rmp_ring_seal(ring);
    rmp_ring_seal(ring);
    CHECK_EQUAL(rmp_ring_claim(ring, OWNER, 1, &refused), RMP_SEALED);
    uint8_t payload[100];
    for (uint32_t i = 0; i < sizeof payload; i++) payload[i] = (uint8_t)(2 + i * 13);
    CHECK_EQUAL(rmp_ring_commit(ring, OWNER, late, 2, payload, 100, rmp_crc32c(0, payload, 100)), RMP_OK);
    read_bytes(&reader, 1, 100);
    read_bytes(&reader, 2, 100);
    CHECK_EQUAL(look(&reader).kind, RMP_READ_EMPTY);
    rmp_segment_close(&segment, false);
}

/* The cursor runs ahead of delivery within a batch: what is fenced there must not free what is not delivered. */
TEST(release_stops_at_read_pos_when_a_fenced_claim_lies_beyond) {
    rmp_segment segment = make_segment(64, 4, 1000);
    const rmp_ring *ring = &segment.ring;
    rmp_reader reader;
    rmp_reader_open(&reader, ring);
    write_bytes(ring, 1, 100);
    write_bytes(ring, 2, 100);
    uint64_t slow;
    CHECK_EQUAL(rmp_ring_claim(ring, 2, 3, &slow), RMP_OK);
    for (int i = 0; i < 2; i++) {
        rmp_read read = look(&reader);
        CHECK_EQUAL(read.kind, RMP_READ_RECORD);
        rmp_reader_advance(&reader, &read);
    }
    rmp_read read = look(&reader);
    CHECK_EQUAL(read.kind, RMP_READ_BLOCKED);
    CHECK(rmp_reader_fence(&reader, &read));
    rmp_reader_release(&reader);
    CHECK_EQUAL(ring->header->free_pos, 0);
    CHECK_EQUAL(rmp_ring_abort(ring, 2, slow, 3), RMP_OVERTAKEN);
    rmp_segment_close(&segment, false);
}

TEST(a_bad_tail_is_reported_and_never_followed) {
    rmp_segment segment = make_segment(64, 4, 1000);
    const rmp_ring *ring = &segment.ring;
    write_bytes(ring, 1, 100);
    rmp_pair good = ring->header->tail;
    const rmp_pair bad[] = {{65, good.high}, {1ull << 63, good.high}, {2, 1ull << 32 | 3}, {~0ull, ~0ull}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        rmp_reader reader;
        rmp_reader_open(&reader, ring);
        ring->header->tail = bad[i];
        CHECK_EQUAL(look(&reader).kind, RMP_READ_BROKEN);
        ring->header->tail = good;
        CHECK_EQUAL(look(&reader).kind, RMP_READ_RECORD);
    }
    rmp_segment_close(&segment, false);
}

/* Between a look and its copy the tail goes bad and the record too: the search for the next is bounded. */
TEST(a_tail_that_goes_bad_during_resync_is_reported) {
    rmp_segment segment = make_segment(64, 4, 1000);
    const rmp_ring *ring = &segment.ring;
    write_bytes(ring, 1, 100);
    rmp_reader reader;
    rmp_reader_open(&reader, ring);
    rmp_read read = look(&reader);
    CHECK_EQUAL(read.kind, RMP_READ_RECORD);
    rmp_ring_record(ring, 0)->payload[0] ^= 1;
    ring->header->tail.low = 1ull << 62;
    uint8_t payload[1000];
    CHECK(!rmp_reader_copy(&reader, &read, payload));
    CHECK_EQUAL(read.kind, RMP_READ_BROKEN);
    rmp_segment_close(&segment, false);
}

static uint32_t crc_by_the_bit(const uint8_t *bytes, size_t length) {
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < length; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0x82f63b78u & (0u - (crc & 1)));
    }
    return ~crc;
}

TEST(crc32c_of_long_payloads_is_that_of_the_definition) { /* from 1536 bytes on three streams are joined */
    static uint8_t bytes[8192];
    uint32_t state = 1;
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)((state = state * 1664525u + 1013904223u) >> 24);
    static const size_t lengths[] = {1528, 1535, 1536, 1537, 1544, 3071, 3072, 3073, 5000, 8100};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
        for (size_t offset = 0; offset < 9; offset++) {
            uint32_t expected = crc_by_the_bit(bytes + offset, lengths[i]);
            CHECK_EQUAL(rmp_crc32c(0, bytes + offset, lengths[i]), expected);
            uint32_t begun = rmp_crc32c(0, bytes + offset, 7);
            CHECK_EQUAL(rmp_crc32c(begun, bytes + offset + 7, lengths[i] - 7), expected);
        }
}

/* What is behind a damaged head is searched for the next record. A payload that looks like a head, of another position,
 * is none: it would be passed over with all that it says it is as long as. */
TEST(resync_passes_over_a_payload_that_looks_like_a_head_of_another_position) {
    enum { UNITS = 5, PAYLOAD_BYTES = UNITS * RMP_UNIT_BYTES - 24 };
    for (int aborted = 0; aborted < 2; aborted++) {
        rmp_segment segment = make_segment(64, 4, 1024);
        const rmp_ring *ring = &segment.ring;
        uint8_t payload[PAYLOAD_BYTES] = {0};
        for (uint32_t unit = 1; unit < UNITS; unit++) {
            uint64_t word = rmp_word(aborted ? RMP_ABORTED : RMP_FENCED, 1, UNITS, unit + 64);
            memcpy(payload + unit * RMP_UNIT_BYTES - 24, &word, sizeof word);
        }
        CHECK_EQUAL(rmp_ring_write(ring, 1, 1, payload, PAYLOAD_BYTES), RMP_OK);
        CHECK_EQUAL(rmp_ring_write(ring, 1, 2, payload, 10), RMP_OK);
        CHECK_EQUAL(rmp_ring_write(ring, 1, 3, payload, PAYLOAD_BYTES), RMP_OK);
        rmp_store_relaxed(&rmp_ring_record(ring, 0)->word, 7);
        rmp_reader reader;
        rmp_reader_open(&reader, ring);
        rmp_read read;
        rmp_reader_look(&reader, &read);
        CHECK_EQUAL(read.kind, RMP_READ_CORRUPT);
        CHECK_EQUAL(read.next, UNITS);
        rmp_segment_close(&segment, false);
    }
}

TEST(crc32c_agrees_with_its_specification) {
    CHECK_EQUAL(rmp_crc32c(0, "123456789", 9), 0xe3069283u); /* RFC 3720 and every catalogue */
    uint8_t bytes[32] = {0};
    CHECK_EQUAL(rmp_crc32c(0, bytes, 32), 0x8a9136aau); /* RFC 3720, B.4 */
    memset(bytes, 0xff, sizeof bytes);
    CHECK_EQUAL(rmp_crc32c(0, bytes, 32), 0x62a8ab43u);
    for (uint8_t i = 0; i < 32; i++) bytes[i] = i;
    CHECK_EQUAL(rmp_crc32c(0, bytes, 32), 0x46dd794eu);
    for (size_t cut = 0; cut <= 32; cut++)
        CHECK_EQUAL(rmp_crc32c(rmp_crc32c(0, bytes, cut), bytes + cut, 32 - cut), 0x46dd794eu);
}
