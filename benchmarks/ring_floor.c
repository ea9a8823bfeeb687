/* The ring without Python, for the benchmarks. Nothing here is part of the library.
 *
 *     ring_floor write BYTES     a number of calls on stdin, a line each; for each line one on stdout: nanoseconds of
 *     ring_floor memcpy BYTES    all of them in a loop, then of each. `write`: claim, copy with CRC, commit, wake.
 *     ring_floor ring BYTES      the same as memcpy, but each call into the next place of 64 MiB of shared memory.
 *     ring_floor claim SEGMENT   takes a slot of a live session, claims, says so, and never commits: to be killed
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <signal.h>
#include <unistd.h>

#include "slots.h"
#include "segment.h"

#define CAPACITY_UNITS (UINT64_C(1) << 18) /* 16 MiB, the library's default */
#define MAX_PAYLOAD_BYTES (UINT32_C(1) << 20)
#define MAX_CALLS 100000

static rmp_segment segment;
static rmp_reader reader;
static uint32_t slot;
static uint64_t owner_seq;
static uint8_t payload[MAX_PAYLOAD_BYTES], copy[MAX_PAYLOAD_BYTES];
static uint32_t payload_bytes;

__attribute__((noreturn)) static void fail(const char *what, long long code) {
    fprintf(stderr, "ring_floor: %s: %lld\n", what, code);
    exit(1);
}

static void write_once(void) {
    if (rmp_ring_write(&segment.ring, slot, ++owner_seq, payload, payload_bytes) != RMP_OK) fail("the ring is full", 0);
}

static void copy_once(void) {
    memcpy(copy, payload, payload_bytes);
    __asm__ volatile("" ::: "memory"); /* the copy is wanted */
}

/* As the ring of the payloads' curve: more than any cache holds, and each place comes again only a lap later. */
#define LAP_BYTES (UINT64_C(64) << 20)

static uint8_t *lap;
static uint64_t lap_at;

static void copy_onwards(void) {
    if (lap_at + payload_bytes > LAP_BYTES) lap_at = 0;
    memcpy(lap + lap_at, payload, payload_bytes);
    lap_at += (payload_bytes + 63) / 64 * 64;
}

static void open_lap(void) {
    lap = mmap(NULL, LAP_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (lap == MAP_FAILED) fail("no shared memory", errno);
    memset(lap, 1, LAP_BYTES); /* its pages are there, as the ring's are once it has been formatted */
}

static void nothing(void) { __asm__ volatile("" ::: "memory"); }

/* All that was written is passed and its space released: untimed. */
static void drain(void) {
    rmp_read read;
    for (;;) {
        rmp_reader_look(&reader, &read);
        if (read.kind != RMP_READ_RECORD && read.kind != RMP_READ_SKIPPED) break;
        rmp_reader_advance(&reader, &read);
        rmp_reader_delivered(&reader, read.next);
    }
    rmp_reader_release(&reader);
}

static uint64_t clock_cost(void) {
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < 1000; i++) {
        uint64_t start = rmp_monotonic_ns(), taken = rmp_monotonic_ns() - start;
        if (taken < least) least = taken;
    }
    return least;
}

static uint64_t whole(void (*call)(void), long calls) {
    uint64_t start = rmp_monotonic_ns();
    for (long i = 0; i < calls; i++) call();
    return rmp_monotonic_ns() - start;
}

static void rounds(void (*call)(void), bool writes) {
    static uint64_t samples[MAX_CALLS];
    uint64_t cost = clock_cost();
    for (long calls; scanf("%ld", &calls) == 1;) {
        if (calls < 1 || calls > MAX_CALLS) fail("calls", calls);
        for (long i = 0; i < calls; i++) {
            uint64_t start = rmp_monotonic_ns();
            call();
            uint64_t taken = rmp_monotonic_ns() - start;
            samples[i] = taken > cost ? taken - cost : 0;
        }
        if (writes) drain();
        uint64_t empty = whole(nothing, calls), all = whole(call, calls);
        if (writes) drain();
        printf("%" PRIu64, all > empty ? all - empty : 0);
        for (long i = 0; i < calls; i++) printf(" %" PRIu64, samples[i]);
        putchar('\n');
        fflush(stdout);
    }
}

static void take_slot(void) {
    slot = rmp_slots_take(&segment.ring, rmp_process_self(), rmp_thread_id());
    if (!slot) fail("no slot is left", 0);
    owner_seq = rmp_load_relaxed(&rmp_ring_slot(&segment.ring, slot)->emitted);
}

static void open_ring(void) {
    char path[64];
    snprintf(path, sizeof path, "/dev/shm/rmp_floor.%d", (int)getpid());
    rmp_segment_options options = {.session_id = "floor", .capacity_units = CAPACITY_UNITS, .slot_count = 8,
                                   .max_payload_bytes = MAX_PAYLOAD_BYTES};
    int result = rmp_segment_create(&segment, path, &options);
    if (result != RMP_SEGMENT_OK) fail("the segment cannot be made", result);
    unlink(path);
    rmp_reader_open(&reader, &segment.ring);
    take_slot();
}

static void claim_for_ever(const char *path) {
    int result = rmp_segment_attach(&segment, path);
    if (result != RMP_SEGMENT_OK) fail("the segment cannot be attached", result);
    take_slot();
    rmp_store_release(&rmp_ring_slot(&segment.ring, slot)->emitted, ++owner_seq);
    uint64_t position;
    if (rmp_ring_claim(&segment.ring, slot, 4, &position) != RMP_OK) fail("the ring is full", 0);
    puts("claimed");
    fflush(stdout);
    for (;;) pause();
}

int main(int count, char **arguments) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (count != 3) fail("arguments", count);
    if (strcmp(arguments[1], "claim") == 0) claim_for_ever(arguments[2]);
    payload_bytes = (uint32_t)strtoul(arguments[2], NULL, 10);
    if (payload_bytes > MAX_PAYLOAD_BYTES) fail("bytes", payload_bytes);
    bool writes = strcmp(arguments[1], "write") == 0;
    bool copies_onwards = strcmp(arguments[1], "ring") == 0;
    if (writes) open_ring();
    if (copies_onwards) open_lap();
    rounds(writes ? write_once : copies_onwards ? copy_onwards : copy_once, writes);
    return 0;
}
