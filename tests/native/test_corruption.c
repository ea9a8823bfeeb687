/* Random bit flips in a segment that is being read. No crash, no hang, no record that nobody wrote; and
 * where only the ring is hit, every record that was not comes out. Run it under AddressSanitizer: header,
 * slots and ring are separate allocations here, so a step out of one of them is seen. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdlib.h>

#include "ring_test.h"

#define CAPACITY 64u
#define SLOTS 8u
#define LENGTH_LIMIT 400u
#define RECORDS_MAX 64u

typedef struct written {
    uint64_t position, owner_seq;
    uint32_t owner, units;
    bool committed, delivered;
} written;

typedef struct victim {
    rmp_ring ring;
    rmp_reader reader;
    uint8_t *payload; /* exactly max_payload_bytes */
    written records[RECORDS_MAX];
    uint32_t count;
    uint64_t next_seq[SLOTS];
    bool damaged[CAPACITY]; /* units whose records may be lost */
    bool header_hit;
} victim;

static uint64_t random_state;

static uint64_t next_random(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}
static uint64_t random_below(uint64_t limit) { return next_random() % limit; }

static uint8_t *allocate(size_t bytes) {
    void *memory = NULL;
    CHECK(posix_memalign(&memory, RMP_LINE, bytes) == 0);
    return memory;
}

static void prepare(victim *self) {
    self->ring = (rmp_ring){.header = (rmp_header *)allocate(sizeof(rmp_header)), .slots = allocate(SLOTS * RMP_SLOT_BYTES),
                            .units = allocate(CAPACITY * RMP_UNIT_BYTES), .capacity_units = CAPACITY,
                            .slot_count = SLOTS, .max_payload_bytes = LENGTH_LIMIT};
    self->payload = allocate(LENGTH_LIMIT);
}

static void dispose(victim *self) {
    free(self->ring.header);
    free(self->ring.slots);
    free(self->ring.units);
    free(self->payload);
}

static bool write_next(victim *self, bool finish) {
    uint32_t owner = 1 + (uint32_t)random_below(SLOTS - 1);
    uint8_t payload[LENGTH_LIMIT];
    uint64_t owner_seq = ++self->next_seq[owner], position;
    uint32_t bytes = fill_payload(payload, owner, owner_seq, LENGTH_LIMIT), units = rmp_units_for(bytes);
    if (rmp_ring_claim(&self->ring, owner, units, &position) != RMP_OK) return false;
    uint64_t kind = finish ? 0 : random_below(10); /* 8: given up, 9: its writer died */
    bool committed = kind < 8 && rmp_ring_commit(&self->ring, owner, position, owner_seq, payload, bytes,
                                                 rmp_crc32c(0, payload, bytes)) == RMP_OK;
    if (kind == 8) rmp_ring_abort(&self->ring, owner, position, units);
    CHECK(self->count < RECORDS_MAX);
    self->records[self->count++] = (written){position, owner_seq, owner, units, committed, false};
    return true;
}

/* True while there is more. The cursor moves on with every step, or the step was the last. */
static bool step(victim *self, void (*deliver)(victim *, const rmp_read *)) {
    rmp_reader *reader = &self->reader;
    rmp_read read;
    rmp_reader_look(reader, &read);
    if (read.kind == RMP_READ_RECORD && rmp_reader_copy(reader, &read, self->payload)) deliver(self, &read);
    if (read.kind == RMP_READ_BLOCKED) return rmp_reader_abort_dead(reader, &read);
    if (read.kind == RMP_READ_BROKEN) CHECK(self->header_hit);
    if (read.kind == RMP_READ_EMPTY || read.kind == RMP_READ_BROKEN) return false;
    CHECK(read.next > read.position && read.next - read.position <= CAPACITY);
    rmp_reader_advance(reader, &read);
    return true;
}

static void drain(victim *self, void (*deliver)(victim *, const rmp_read *)) {
    uint32_t steps = 0;
    while (step(self, deliver)) CHECK(++steps <= 3 * CAPACITY);
    for (uint32_t i = 0; i < self->reader.fenced_count; i++) rmp_reader_release_fenced(&self->reader, self->reader.fenced[i]);
    rmp_reader_delivered(&self->reader, self->reader.cursor);
    if (!self->header_hit || self->reader.cursor - self->reader.free_pos <= CAPACITY) rmp_reader_release(&self->reader);
}

/* It is, byte for byte, a record that was written just there. */
static void match(victim *self, const rmp_read *read) {
    for (uint32_t i = 0; i < self->count; i++) {
        written *record = &self->records[i];
        if (record->position != read->position) continue;
        CHECK(record->committed && !record->delivered);
        CHECK_EQUAL(read->owner, record->owner);
        CHECK_EQUAL(read->owner_seq, record->owner_seq);
        CHECK_EQUAL(check_payload(self->payload, read->payload_bytes, read->owner, LENGTH_LIMIT), record->owner_seq);
        record->delivered = true;
        return;
    }
    CHECK(!"a record that nobody wrote");
}

static void ignore(victim *self, const rmp_read *read) {
    (void)self;
    (void)read;
}

/* A ring somewhere in its life, with some records to read. */
static void fill(victim *self) {
    memset(self->ring.header, 0, sizeof(rmp_header));
    memset(self->ring.slots, 0, SLOTS * RMP_SLOT_BYTES);
    memset(self->ring.units, 0, CAPACITY * RMP_UNIT_BYTES);
    memset(self->next_seq, 0, sizeof self->next_seq);
    memset(self->damaged, 0, sizeof self->damaged);
    self->header_hit = false;
    rmp_ring_format(&self->ring);
    rmp_reader_open(&self->reader, &self->ring);
    for (uint64_t earlier = random_below(40); earlier; earlier--) {
        self->count = 0;
        write_next(self, true);
        drain(self, ignore);
    }
    self->count = 0;
    for (uint64_t records = 1 + random_below(40); records && write_next(self, false);) records--;
}

static void flip(uint8_t *bytes, uint64_t bit) { bytes[bit / 8] ^= (uint8_t)(1u << bit % 8); }

static void flip_in_ring(victim *self) {
    uint64_t bit = random_below(CAPACITY * RMP_UNIT_BYTES * 8);
    if (random_below(2)) bit = bit / 512 * 512 + random_below(64); /* where it hurts: a unit's first word */
    flip(self->ring.units, bit);
    self->damaged[bit / 512] = true;
}

static void flip_anywhere(victim *self) {
    const uint64_t header_bits = sizeof(rmp_header) * 8, slot_bits = SLOTS * RMP_SLOT_BYTES * 8;
    uint64_t bit = random_below(header_bits + slot_bits + CAPACITY * RMP_UNIT_BYTES * 8);
    if (bit >= header_bits + slot_bits) {
        flip_in_ring(self);
        return;
    }
    self->header_hit = true;
    if (bit < header_bits)
        flip((uint8_t *)self->ring.header, bit);
    else
        flip(self->ring.slots, bit - header_bits);
}

static void flip_hot_word(victim *self) {
    rmp_header *header = self->ring.header;
    uint8_t *words[] = {(uint8_t *)&header->tail, (uint8_t *)&header->tail + 8, (uint8_t *)&header->read_pos,
                        (uint8_t *)&header->free_pos, (uint8_t *)&header->data, (uint8_t *)&header->space};
    flip(words[random_below(6)], random_below(random_below(2) ? 8 : 32));
    self->header_hit = true;
}

/* A damaged head that is no longer, or never was, COMMITTED has no CRC behind it: as far as it says that
 * it reaches, records can be skipped with it. */
static void spread_damage(victim *self) {
    for (uint32_t i = 0; i < self->count; i++) {
        const written *record = &self->records[i];
        uint64_t word = rmp_ring_record(&self->ring, record->position)->word;
        uint32_t units = record->units;
        bool hit = false;
        for (uint32_t unit = 0; unit < units; unit++) hit |= self->damaged[(record->position + unit) % CAPACITY];
        if (hit && rmp_word_state(word) != RMP_COMMITTED && rmp_word_units(word) > units) units = rmp_word_units(word);
        for (uint32_t unit = 0; hit && unit < units && unit < CAPACITY; unit++)
            self->damaged[(record->position + unit) % CAPACITY] = true;
    }
}

static void check_untouched_came_out(const victim *self) {
    for (uint32_t i = 0; i < self->count; i++)
        CHECK(self->records[i].delivered || !self->records[i].committed || self->damaged[self->records[i].position % CAPACITY]);
}

static void pass(const rmp_ring *ring, uint32_t slot, uint64_t owner_seq) {
    rmp_slots_missing(ring, slot, owner_seq);
    rmp_slots_pass(ring, slot, owner_seq);
}

/* The segment goes on being used by all who know nothing of the damage. */
static void use_on(victim *self) {
    const rmp_ring *ring = &self->ring;
    for (int i = 0; i < 4; i++) {
        uint32_t slot = rmp_slots_take(ring, (rmp_process){.pid = 1}, 1);
        CHECK(slot < SLOTS);
        if (slot) pass(ring, slot, next_random());
        if (slot && i % 2) rmp_slots_exit(ring, slot);
    }
    for (uint32_t slot = 1; slot < SLOTS; slot++) {
        rmp_slots_mark_dead(ring, slot, rmp_ring_slot(ring, slot)->state);
        rmp_slots_settle(ring, slot);
    }
    for (int lap = 0; lap < 4; lap++) {
        self->count = 0;
        uint32_t writes = 0;
        while (writes < 40 && write_next(self, true)) writes++;
        if (self->header_hit) {
            drain(self, ignore);
            continue;
        }
        CHECK(writes > 5);
        drain(self, match);
        /* A unit that was hit while nobody's refuses the next record that begins there: its writer is told. */
        for (uint32_t i = 0; i < self->count; i++) {
            CHECK(self->records[i].committed || lap < 2);
            CHECK_EQUAL(self->records[i].delivered, self->records[i].committed);
        }
        CHECK_EQUAL(ring->header->free_pos, rmp_ring_tail(ring));
    }
}

TEST_COUNTED(bit_flips_cost_no_more_than_the_records_they_hit, 50000) {
    victim victim;
    prepare(&victim);
    for (test_iteration = 1; test_iteration <= count; test_iteration++) {
        random_state = test_iteration * 0x9e3779b97f4a7c15ull;
        fill(&victim);
        bool restarted = random_below(3) == 0;
        for (uint64_t flips = 1 + (test_iteration % 2) * random_below(8); flips; flips--)
            if (test_iteration % 4 < 2)
                flip_in_ring(&victim);
            else if (test_iteration % 8 < 4)
                flip_anywhere(&victim);
            else
                flip_hot_word(&victim);
        spread_damage(&victim);
        if (restarted) rmp_reader_open(&victim.reader, &victim.ring);
        drain(&victim, match);
        if (!victim.header_hit) check_untouched_came_out(&victim);
        use_on(&victim);
    }
    test_iteration = 0;
    dispose(&victim);
}
