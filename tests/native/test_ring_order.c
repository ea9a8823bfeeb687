/* Many producers, one reader: each payload whole, each producer's records in the order they were emitted. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "ring_test.h"

#define PRODUCERS_MAX 8
#define LENGTH_LIMIT 336u /* 176 bytes on average, the prototype's figure */

typedef struct tally {
    uint64_t last[PRODUCERS_MAX + 1]; /* by slot: they are taken from 1 */
} tally;

static void count_in_order(dispatcher *self, const rmp_read *read, bool redelivered) {
    tally *seen = self->context;
    CHECK(!redelivered && read->owner <= PRODUCERS_MAX);
    uint64_t number = check_payload(self->payload, read->payload_bytes, read->owner, LENGTH_LIMIT);
    CHECK_EQUAL(number, seen->last[read->owner] + 1);
    CHECK_EQUAL(number, read->owner_seq);
    seen->last[read->owner] = number;
}

/* Until `total` have been delivered. Sleeps as the real dispatcher does. */
static void deliver_all(const rmp_ring *ring, uint64_t total) {
    tally seen = {{0}};
    dispatcher reader;
    dispatcher_open(&reader, ring);
    reader.deliver = count_in_order;
    reader.context = &seen;
    while (reader.delivered < total) {
        if (dispatcher_step(&reader)) continue;
        rmp_reader_release(&reader.reader);
        rmp_reader_wait(&reader.reader, 20000, UINT64_MAX);
    }
    dispatcher_drain(&reader);
    CHECK_EQUAL(reader.delivered, total);
    CHECK_EQUAL(reader.missing, 0);
    dispatcher_close(&reader);
}

typedef struct job {
    const rmp_ring *ring;
    uint64_t count;
} job;

static void *produce(void *argument) {
    const job *job = argument;
    uint32_t slot = take_slot(job->ring);
    uint64_t first = next_number(job->ring, slot);
    for (uint64_t i = 0; i < job->count; i++) CHECK_EQUAL(emit(job->ring, slot, first + i, LENGTH_LIMIT), RMP_OK);
    rmp_slots_exit(job->ring, slot);
    return NULL;
}

static void run_threads(uint64_t capacity_units, int threads, uint64_t count) {
    rmp_segment segment = make_segment(capacity_units, 16, LENGTH_LIMIT);
    job job = {&segment.ring, count};
    pthread_t running[PRODUCERS_MAX];
    for (int i = 0; i < threads; i++) CHECK(pthread_create(&running[i], NULL, produce, &job) == 0);
    deliver_all(&segment.ring, count * (uint64_t)threads);
    for (int i = 0; i < threads; i++) pthread_join(running[i], NULL);
    check_accounts(&segment.ring);
    rmp_segment_close(&segment, false);
}

static void run_processes(uint64_t capacity_units, int processes, uint64_t count) {
    rmp_segment segment = make_segment(capacity_units, 16, LENGTH_LIMIT);
    job job = {&segment.ring, count};
    uint64_t before = rmp_monotonic_ns();
    pid_t children[PRODUCERS_MAX];
    for (int i = 0; i < processes; i++)
        if (!(children[i] = fork_child())) {
            produce(&job);
            _exit(0);
        }
    deliver_all(&segment.ring, count * (uint64_t)processes);
    double seconds = (double)(rmp_monotonic_ns() - before) / 1e9;
    printf("    %d producers x %llu: %.2f M records/s\n", processes, (unsigned long long)count,
           (double)count * processes / seconds / 1e6);
    for (int i = 0; i < processes; i++) check_exits_clean(children[i]);
    check_accounts(&segment.ring);
    rmp_segment_close(&segment, false);
}

TEST_COUNTED(order_and_payloads_hold_with_4_threads, 50000) { run_threads(4096, 4, count); }
TEST_COUNTED(order_and_payloads_hold_with_4_threads_in_the_smallest_ring, 20000) { run_threads(64, 4, count); }
TEST_COUNTED(order_and_payloads_hold_with_2_processes, 500000) { run_processes(16384, 2, count); }
TEST_COUNTED(order_and_payloads_hold_with_8_processes, 100000) { run_processes(16384, 8, count); }
TEST_COUNTED(order_and_payloads_hold_with_8_processes_in_the_smallest_ring, 10000) { run_processes(64, 8, count); }
