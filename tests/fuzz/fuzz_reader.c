/* A fuzz target of the reader: the input is what a hostile process left in shared memory.
 *
 *     header, sizeof(rmp_header) | SLOTS slots, RMP_SLOT_BYTES each | CAPACITY units, RMP_UNIT_BYTES each
 *
 * with the page padding of the file left out, and read as zeros where it ends. It is attached as a file,
 * and whatever attaching says of it, laid into three allocations of just that size and read: by a reader,
 * by a second one that takes over, then by producers and a reader that know of nothing. Every loop has a
 * bound that a sound reader never reaches. Run it under AddressSanitizer.
 *
 *     clang -fsanitize=fuzzer,address,undefined ... fuzz_reader.c      libFuzzer
 *     cc -DFUZZ_MAIN -fsanitize=address,undefined ... fuzz_reader.c    runs the files it is given, no fuzzer
 *     FUZZ_SEEDS=DIRECTORY (of the FUZZ_MAIN build)                    writes images of real rings instead
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crc32c.h"
#include "slots.h"
#include "segment.h"

#define CAPACITY 64u
#define SLOTS 4u
#define LENGTH_LIMIT 400u
#define SLOTS_AT sizeof(rmp_header)
#define UNITS_AT (SLOTS_AT + SLOTS * RMP_SLOT_BYTES)
#define IMAGE_BYTES (UNITS_AT + CAPACITY * RMP_UNIT_BYTES)
#define MOST_STEPS (3 * CAPACITY)

#define REQUIRE(condition)                                                              \
    do {                                                                                \
        if (!(condition)) {                                                             \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);     \
            abort();                                                                    \
        }                                                                               \
    } while (0)

static rmp_ring ring;
static uint8_t *payload;
static volatile uint8_t sink;

static uint8_t *allocate(size_t bytes) {
    void *memory = NULL;
    REQUIRE(posix_memalign(&memory, RMP_LINE, bytes) == 0);
    return memory;
}

static void prepare(void) {
    if (payload) return;
    ring = (rmp_ring){.header = (rmp_header *)allocate(sizeof(rmp_header)), .slots = allocate(SLOTS * RMP_SLOT_BYTES),
                      .units = allocate(CAPACITY * RMP_UNIT_BYTES), .capacity_units = CAPACITY, .slot_count = SLOTS,
                      .max_payload_bytes = LENGTH_LIMIT};
    payload = allocate(LENGTH_LIMIT);
}

static void take_image(const uint8_t *image) {
    memcpy(ring.header, image, sizeof(rmp_header));
    memcpy(ring.slots, image + SLOTS_AT, SLOTS * RMP_SLOT_BYTES);
    memcpy(ring.units, image + UNITS_AT, CAPACITY * RMP_UNIT_BYTES);
}

/* ---- attaching ---- */

#ifdef __linux__
#define FILE_DIRECTORY "/dev/shm"
#else
#define FILE_DIRECTORY "/tmp"
#endif

static void attach(const uint8_t *image) {
    static uint8_t bytes[2 * RMP_HEADER_BYTES + CAPACITY * RMP_UNIT_BYTES];
    char path[64];
    snprintf(path, sizeof path, FILE_DIRECTORY "/rmp_fuzz_test.%d", (int)getpid());
    memcpy(bytes, image, sizeof(rmp_header));
    memcpy(bytes + RMP_HEADER_BYTES, image + SLOTS_AT, SLOTS * RMP_SLOT_BYTES);
    memcpy(bytes + 2 * RMP_HEADER_BYTES, image + UNITS_AT, CAPACITY * RMP_UNIT_BYTES);
    int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    REQUIRE(file >= 0 && write(file, bytes, sizeof bytes) == (ssize_t)sizeof bytes);
    close(file);
    rmp_segment segment = {0};
    int result = rmp_segment_attach(&segment, path);
    unlink(path); /* now, so that an input that hangs leaves nothing behind */
    if (result != RMP_SEGMENT_OK) return;
    REQUIRE(segment.ring.units + segment.ring.capacity_units * RMP_UNIT_BYTES == segment.base + segment.bytes);
    REQUIRE(segment.ring.slots + segment.ring.slot_count * RMP_SLOT_BYTES <= segment.ring.units);
    for (unsigned copy = 0; copy < 2; copy++) {
        const uint8_t *table = rmp_segment_subscriptions(&segment, copy);
        uint64_t length = segment.ring.header->subscriptions_bytes;
        for (uint64_t i = 0; table && i < length; i++) sink = table[i];
        const uint8_t *configuration = rmp_segment_configuration(&segment, copy);
        uint64_t configuration_length = segment.ring.header->configuration_bytes;
        for (uint64_t i = 0; configuration && i < configuration_length; i++) sink = configuration[i];
    }
    rmp_segment_close(&segment, false);
}

/* ---- reading ---- */

static void deliver(const rmp_read *read) {
    REQUIRE(read->owner && read->owner < SLOTS);
    for (uint32_t i = 0; i < read->payload_bytes; i++) sink = payload[i];
    rmp_slots_missing(&ring, read->owner, read->owner_seq);
    if (rmp_slots_pass(&ring, read->owner, read->owner_seq) > 3) rmp_slots_give_up(&ring, read->owner, read->owner_seq);
}

/* True while there is more. */
static bool step(rmp_reader *reader, bool fence) {
    rmp_read read;
    rmp_reader_look(reader, &read);
    switch (read.kind) {
    case RMP_READ_RECORD:
        if (rmp_reader_copy(reader, &read, payload)) deliver(&read);
        if (read.kind == RMP_READ_BROKEN) return false; /* resynced in vain */
        break;
    case RMP_READ_BLOCKED: return fence ? rmp_reader_fence(reader, &read) : rmp_reader_abort_dead(reader, &read);
    case RMP_READ_EMPTY:
    case RMP_READ_BROKEN: return false;
    default: break;
    }
    REQUIRE(read.next > read.position && read.next - read.position <= CAPACITY);
    rmp_reader_advance(reader, &read);
    return true;
}

static void drain(rmp_reader *reader, bool fence) {
    unsigned steps = 0;
    while (step(reader, fence)) REQUIRE(++steps <= MOST_STEPS);
    for (uint32_t i = 0; i < reader->fenced_count; i += 2) rmp_reader_release_fenced(reader, reader->fenced[i]);
    rmp_reader_delivered(reader, reader->cursor);
    rmp_reader_release(reader);
}

static void mark(uint32_t slot) {
    const uint8_t uuid[16] = {0};
    uint64_t count = rmp_slots_unmarked(&ring, slot, RMP_MARK_ALL, 0);
    if (!count) return;
    rmp_mark_prepare(&ring, slot, count, ring.header->mark.seq + 1, 0, uuid);
    rmp_mark_begin(&ring);
    rmp_mark_done(&ring);
    REQUIRE(rmp_slots_unmarked(&ring, slot, RMP_MARK_ALL, 0) < count); /* or marking would have no end */
}

static void settle(void) {
    if (rmp_mark_times(&ring)) rmp_mark_done(&ring);
    for (uint32_t slot = 1; slot < SLOTS; slot++) {
        rmp_slots_owner(&ring, slot, rmp_ring_slot(&ring, slot)->state);
        rmp_slots_mark_dead(&ring, slot, rmp_ring_slot(&ring, slot)->state);
        rmp_slots_settle(&ring, slot);
        mark(slot);
        rmp_slots_write_off(&ring, slot);
        mark(slot);
    }
}

/* Claims end: each moves the tail, and a ring has room for so many. */
static void write_on(void) {
    uint32_t slot = rmp_slots_take(&ring, (rmp_process){.pid = 1}, 1);
    REQUIRE(slot < SLOTS);
    for (uint32_t i = 0; slot && i < CAPACITY; i++)
        if (rmp_ring_write(&ring, slot, i + 1, payload, 16 + 40 * (i % 8)) != RMP_OK) break;
    if (slot) rmp_slots_exit(&ring, slot);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes) {
    static uint8_t image[IMAGE_BYTES];
    prepare();
    memset(image, 0, sizeof image);
    memcpy(image, input, bytes < IMAGE_BYTES ? bytes : IMAGE_BYTES);
    attach(image);
    for (int fence = 0; fence < 2; fence++) {
        rmp_reader reader;
        take_image(image);
        rmp_reader_open(&reader, &ring);
        drain(&reader, fence);
        rmp_reader_open(&reader, &ring); /* the next dispatcher */
        drain(&reader, false);
        settle();
        for (int lap = 0; lap < 2; lap++) {
            write_on();
            drain(&reader, false);
        }
        fence ? rmp_ring_mark_broken(&ring) : rmp_ring_seal(&ring);
        rmp_reader_open(&reader, &ring);
        drain(&reader, false);
        rmp_reader_open(&reader, &ring);
        rmp_reader_salvage(&reader);
        drain(&reader, false);
        rmp_ring_finish_salvage(&ring);
    }
    return 0;
}

/* ---- mutations that get past the checks ---- */

#ifndef FUZZ_MAIN
size_t LLVMFuzzerMutate(uint8_t *data, size_t bytes, size_t most);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t bytes, size_t most, unsigned seed);

static uint64_t random_state;
static uint64_t random_below(uint64_t limit) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % limit;
}

static void put(uint8_t *image, size_t at, uint64_t value) { memcpy(image + at, &value, sizeof value); }
static uint64_t get(const uint8_t *image, size_t at) {
    uint64_t value;
    memcpy(&value, image + at, sizeof value);
    return value;
}

/* A record that proves itself, somewhere between free_pos and the tail. */
static void forge_record(uint8_t *image) {
    uint64_t free_pos = get(image, offsetof(rmp_header, free_pos));
    uint64_t position = free_pos + random_below(CAPACITY);
    uint32_t bytes = (uint32_t)random_below(LENGTH_LIMIT + 8), units = rmp_units_for(bytes);
    static const enum rmp_state states[] = {RMP_COMMITTED, RMP_COMMITTED, RMP_BUSY, RMP_ABORTED, RMP_FENCED, RMP_PAD};
    enum rmp_state state = states[random_below(6)];
    uint32_t owner = state == RMP_PAD ? RMP_OWNER_PAD : (uint32_t)random_below(SLOTS);
    if (position % CAPACITY + units > CAPACITY || state == RMP_PAD) units = CAPACITY - position % CAPACITY;
    size_t at = UNITS_AT + position % CAPACITY * RMP_UNIT_BYTES;
    if (at + RMP_RECORD_HEADER_BYTES + bytes > IMAGE_BYTES) return;
    uint64_t word = rmp_word(state, owner, units, position), owner_seq = random_below(1000);
    uint64_t sealed[3] = {owner_seq, position, word >> 3};
    uint32_t crc = rmp_crc32c(rmp_crc32c(0, image + at + RMP_RECORD_HEADER_BYTES, bytes), sealed, sizeof sealed);
    put(image, at, word);
    put(image, at + 8, (uint64_t)crc << 32 | bytes);
    put(image, at + 16, owner_seq);
}

static void forge_positions(uint8_t *image) {
    uint64_t base = random_below(4) ? random_below(1000) : get(image, offsetof(rmp_header, read_pos));
    uint64_t read = base + random_below(CAPACITY + 2), tail = read + random_below(CAPACITY + 2);
    put(image, offsetof(rmp_header, free_pos), base);
    if (random_below(2)) put(image, offsetof(rmp_header, read_pos), read);
    if (random_below(2)) put(image, offsetof(rmp_header, tail), tail);
    if (random_below(2))
        put(image, offsetof(rmp_header, tail) + 8, rmp_tail_claim((uint32_t)random_below(SLOTS), (uint32_t)random_below(8)));
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t bytes, size_t most, unsigned seed) {
    random_state = seed * 0x9e3779b97f4a7c15ull | 1;
    if (most < IMAGE_BYTES || random_below(2)) return LLVMFuzzerMutate(data, bytes, most);
    if (bytes < IMAGE_BYTES) memset(data + bytes, 0, IMAGE_BYTES - bytes);
    for (uint64_t times = 1 + random_below(4); times; times--) random_below(3) ? forge_record(data) : forge_positions(data);
    return IMAGE_BYTES;
}
#else

/* ---- without a fuzzer ---- */

static uint8_t image_read[1 << 20];

static void run_file(const char *path) {
    FILE *from = fopen(path, "rb");
    REQUIRE(from);
    size_t bytes = fread(image_read, 1, sizeof image_read, from);
    fclose(from);
    uint8_t *input = malloc(bytes ? bytes : 1); /* of just its size: what reads over its end is seen */
    memcpy(input, image_read, bytes);
    LLVMFuzzerTestOneInput(input, bytes);
    free(input);
}

static void save(const char *directory, const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/seed-%s", directory, name);
    FILE *to = fopen(path, "wb");
    REQUIRE(to);
    static uint8_t image[IMAGE_BYTES];
    memcpy(image, ring.header, sizeof(rmp_header));
    memcpy(image + SLOTS_AT, ring.slots, SLOTS * RMP_SLOT_BYTES);
    memcpy(image + UNITS_AT, ring.units, CAPACITY * RMP_UNIT_BYTES);
    size_t bytes = IMAGE_BYTES;
    while (bytes && !image[bytes - 1]) bytes--; /* read as zeros again */
    REQUIRE(fwrite(image, 1, bytes, to) == bytes);
    fclose(to);
}

/* Of a segment as rmp_segment_create makes it, with what names this process and run taken out. */
static rmp_reader start(void) {
    char path[64];
    snprintf(path, sizeof path, FILE_DIRECTORY "/rmp_fuzz_test.%d", (int)getpid());
    rmp_segment_options options = {.session_id = "seed", .capacity_units = CAPACITY, .slot_count = SLOTS,
                                   .max_payload_bytes = LENGTH_LIMIT};
    rmp_segment segment;
    REQUIRE(rmp_segment_create(&segment, path, &options) == RMP_SEGMENT_OK);
    unlink(path);
    prepare();
    memcpy(ring.header, segment.ring.header, sizeof(rmp_header));
    memcpy(ring.slots, segment.ring.slots, SLOTS * RMP_SLOT_BYTES);
    memcpy(ring.units, segment.ring.units, CAPACITY * RMP_UNIT_BYTES);
    rmp_segment_close(&segment, false);
    ring.header->owner_pid = 1, ring.header->owner_start_time = 0, ring.header->owner_pid_namespace = 0;
    for (uint32_t slot = 0; slot < SLOTS; slot++) rmp_ring_slot(&ring, slot)->pid_namespace = 0;
    for (uint32_t slot = 1; slot < SLOTS; slot++) REQUIRE(rmp_slots_take(&ring, (rmp_process){.pid = slot}, slot));
    memset(payload, 'x', LENGTH_LIMIT);
    rmp_reader reader;
    rmp_reader_open(&reader, &ring);
    return reader;
}

static void write_some(uint32_t count) {
    static uint64_t owner_seq;
    for (uint32_t i = 0; i < count; i++) rmp_ring_write(&ring, 1 + i % (SLOTS - 1), ++owner_seq, payload, 10 + 60 * (i % 7));
}

static void make_seeds(const char *directory) {
    uint64_t position;
    rmp_reader reader = start();
    save(directory, "empty");
    write_some(1);
    save(directory, "one");
    write_some(100);
    save(directory, "full");
    drain(&reader, false);
    write_some(12);
    save(directory, "wrapped");
    ring.units[20 * RMP_UNIT_BYTES + 30] ^= 4;
    save(directory, "damaged");
    reader = start();
    write_some(4);
    rmp_ring_claim(&ring, 1, 3, &position);
    save(directory, "claimed");
    write_some(2);
    save(directory, "busy");
    rmp_ring_abort(&ring, 1, position, 3);
    save(directory, "aborted");
    rmp_ring_claim(&ring, 2, 2, &position);
    write_some(3);
    while (step(&reader, true)) {
    }
    save(directory, "fenced");
    rmp_reader_delivered(&reader, reader.cursor);
    rmp_reader_release(&reader);
    save(directory, "held-back");
    rmp_ring_seal(&ring);
    save(directory, "sealed");
    start();
    rmp_slots_mark_dead(&ring, 2, rmp_ring_slot(&ring, 2)->state);
    rmp_ring_mark_broken(&ring);
    save(directory, "broken");
}

int main(int count, char **paths) {
    const char *seeds = getenv("FUZZ_SEEDS");
    if (seeds) make_seeds(seeds);
    for (int i = 1; i < count; i++) run_file(paths[i]);
    printf("%d images read\n", count - 1);
    return 0;
}
#endif
