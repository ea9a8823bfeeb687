/* A writer that is stopped between its claim and its commit, passed over, and let go again: it finds
 * out, nobody's record is harmed, and its space is nobody else's until then. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring_test.h"

#define LENGTH_LIMIT 300u

typedef struct fenced_scene {
    rmp_segment segment;
    dispatcher reader;
    pid_t writer;      /* stopped; its exit status is the result of its write */
    uint64_t position; /* of its claim */
    uint32_t own;      /* slot of this process */
    uint64_t sequence;
} fenced_scene;

static void write_own(fenced_scene *scene) { CHECK_EQUAL(emit(&scene->segment.ring, scene->own, ++scene->sequence, LENGTH_LIMIT), RMP_OK); }

static rmp_read blocked(fenced_scene *scene) {
    rmp_read read;
    rmp_reader_look(&scene->reader.reader, &read);
    CHECK_EQUAL(read.kind, RMP_READ_BLOCKED);
    CHECK_EQUAL(read.position, scene->position);
    return read;
}

static void stop_writer_at(fenced_scene *scene, const char *point, unsigned records_before) {
    memset(scene, 0, sizeof *scene);
    scene->segment = make_segment(64, 8, LENGTH_LIMIT);
    const rmp_ring *ring = &scene->segment.ring;
    scene->own = take_slot(ring);
    dispatcher_open(&scene->reader, ring);
    for (unsigned i = 0; i < records_before; i++) {
        write_own(scene);
        dispatcher_drain(&scene->reader);
    }
    scene->position = rmp_ring_tail(ring);
    scene->writer = fork_child();
    if (!scene->writer) {
        uint32_t slot = take_slot(ring);
        signal_at(point, 1, SIGSTOP);
        uint8_t payload[200];
        memset(payload, 0xee, sizeof payload);
        rmp_store_relaxed(&rmp_ring_slot(ring, slot)->emitted, 1);
        _exit((int)rmp_ring_write(ring, slot, 1, payload, sizeof payload));
    }
    wait_until_stopped(scene->writer);
    if ((scene->position & 63) + rmp_units_for(200) > 64) scene->position = (scene->position | 63) + 1;
}

static void fence(fenced_scene *scene) {
    while (dispatcher_step(&scene->reader)) {} /* padding before it */
    rmp_read read = blocked(scene);
    CHECK(rmp_reader_fence(&scene->reader.reader, &read));
    rmp_add_relaxed(&rmp_ring_slot(&scene->segment.ring, read.owner)->lost_fenced, 1);
}

static uint32_t writer_slot(const fenced_scene *scene) { return scene->own + 1; }

/* All others wrap, and stop in front of the fenced space; all of theirs is delivered. */
static void fill_up_to_the_fence(fenced_scene *scene) {
    const rmp_ring *ring = &scene->segment.ring;
    uint8_t byte = 1;
    uint64_t before = scene->reader.delivered, written = 0;
    for (;;) {
        rmp_store_relaxed(&rmp_ring_slot(ring, scene->own)->emitted, scene->sequence + 1);
        if (rmp_ring_write(ring, scene->own, scene->sequence + 1, &byte, 1) == RMP_FULL) break;
        scene->sequence++;
        written++;
        dispatcher_drain(&scene->reader);
        CHECK(ring->header->free_pos <= scene->position);
    }
    rmp_store_relaxed(&rmp_ring_slot(ring, scene->own)->emitted, scene->sequence);
    CHECK_EQUAL(scene->reader.delivered, before + written);
    CHECK_EQUAL(ring->header->free_pos, scene->position);
    CHECK_EQUAL(rmp_ring_tail(ring), scene->position + ring->capacity_units);
}

static void check_space_is_whole_again(fenced_scene *scene) {
    const rmp_ring *ring = &scene->segment.ring;
    dispatcher_drain(&scene->reader);
    CHECK_EQUAL(ring->header->free_pos, rmp_ring_tail(ring));
    uint64_t before = scene->reader.delivered;
    for (int i = 0; i < 100; i++) {
        write_own(scene);
        dispatcher_drain(&scene->reader);
    }
    CHECK_EQUAL(scene->reader.delivered, before + 100);
    CHECK_EQUAL(scene->reader.corrupt, 0);
}

static void end_scene(fenced_scene *scene) {
    dispatcher_finish_salvage(&scene->reader);
    check_accounts(&scene->segment.ring);
    CHECK_EQUAL(rmp_ring_slot(&scene->segment.ring, writer_slot(scene))->lost_fenced, 1);
    dispatcher_close(&scene->reader);
    rmp_segment_close(&scene->segment, false);
}

static void let_go(fenced_scene *scene) {
    kill(scene->writer, SIGCONT);
    int status = wait_child(scene->writer);
    CHECK(WIFEXITED(status));
    CHECK_EQUAL(WEXITSTATUS(status), RMP_OVERTAKEN);
}

static const char *const points[] = {"claim.claimed", "claim.published", "commit.header", "commit.copied"};
#define POINTS (sizeof points / sizeof points[0])

TEST(a_fenced_writer_finds_out_and_harms_nobody) {
    for (size_t i = 0; i < POINTS; i++)
        for (unsigned before = 0; before < 40; before += 3) {
            fenced_scene scene;
            stop_writer_at(&scene, points[i], before);
            fence(&scene);
            fill_up_to_the_fence(&scene);
            let_go(&scene);
            check_space_is_whole_again(&scene);
            end_scene(&scene);
        }
}

TEST(the_space_of_a_fenced_writer_that_is_killed_comes_back) {
    for (size_t i = 0; i < POINTS; i++) {
        fenced_scene scene;
        stop_writer_at(&scene, points[i], 7);
        fence(&scene);
        fill_up_to_the_fence(&scene);
        kill(scene.writer, SIGKILL);
        CHECK(was_killed(wait_child(scene.writer)));
        rmp_reader_release_fenced(&scene.reader.reader, scene.position);
        check_space_is_whole_again(&scene);
        end_scene(&scene);
    }
}

static void restart_reader(fenced_scene *scene) {
    dispatcher before = scene->reader;
    dispatcher_open(&scene->reader, &scene->segment.ring);
    scene->reader.delivered = before.delivered;
    dispatcher_close(&before);
}

/* A reader is gone, with all that only it knew, at each step behind the fence. */
TEST(a_new_reader_knows_what_the_last_one_fenced) {
    enum { FENCED, PASSED, RELEASED, DELIVERED_MORE, STEPS };
    for (size_t i = 0; i < POINTS; i++)
        for (int step = FENCED; step < STEPS; step++) {
            fenced_scene scene;
            stop_writer_at(&scene, points[i], 9);
            fence(&scene);
            if (step >= PASSED) CHECK(dispatcher_step(&scene.reader));
            if (step >= RELEASED) rmp_reader_release(&scene.reader.reader);
            if (step >= DELIVERED_MORE) {
                write_own(&scene);
                dispatcher_drain(&scene.reader);
            }
            restart_reader(&scene);
            fill_up_to_the_fence(&scene);
            let_go(&scene);
            check_space_is_whole_again(&scene);
            end_scene(&scene);
        }
}

/* A payload may look like fenced heads at each of its units. A reader is killed at each unit of its release: the next
 * one holds nothing back for what was never fenced. */
TEST(what_a_released_payload_says_is_no_fence) {
    enum { UNITS = 5, PAYLOAD_BYTES = UNITS * RMP_UNIT_BYTES - 24 };
    for (unsigned released = 1; released <= UNITS; released++) {
        rmp_segment segment = make_segment(64, 4, LENGTH_LIMIT);
        const rmp_ring *ring = &segment.ring;
        uint8_t payload[PAYLOAD_BYTES] = {0};
        for (uint32_t unit = 1; unit < UNITS; unit++) {
            uint64_t word = rmp_word(RMP_FENCED, 1, 1, unit);
            memcpy(payload + unit * RMP_UNIT_BYTES - 24, &word, sizeof word);
        }
        CHECK_EQUAL(rmp_ring_write(ring, 1, 1, payload, PAYLOAD_BYTES), RMP_OK);
        rmp_reader reader;
        rmp_reader_open(&reader, ring);
        rmp_reader_delivered(&reader, UNITS);
        pid_t child = fork_child();
        if (!child) {
            signal_at("reader.unit_released", released, SIGKILL);
            rmp_reader_release(&reader);
            _exit(1);
        }
        CHECK(was_killed(wait_child(child)));
        rmp_reader_open(&reader, ring);
        CHECK_EQUAL(reader.fenced_count, 0);
        rmp_reader_release(&reader);
        CHECK_EQUAL(ring->header->free_pos, UNITS);
        rmp_segment_close(&segment, false);
    }
}

/* More slow writers than the reader can remember: it waits for the next, and passes nothing unheld. */
TEST(no_more_is_fenced_than_can_be_remembered) {
    rmp_segment segment = make_segment(256, 8, LENGTH_LIMIT);
    const rmp_ring *ring = &segment.ring;
    rmp_reader reader;
    rmp_reader_open(&reader, ring);
    uint64_t positions[RMP_MAX_FENCED + 1];
    for (int i = 0; i <= RMP_MAX_FENCED; i++) CHECK_EQUAL(rmp_ring_claim(ring, 1, 2, &positions[i]), RMP_OK);
    rmp_read read;
    for (int i = 0; i < RMP_MAX_FENCED; i++) {
        rmp_reader_look(&reader, &read);
        CHECK(rmp_reader_fence(&reader, &read));
        rmp_reader_advance(&reader, &read);
    }
    rmp_reader_look(&reader, &read);
    CHECK(!rmp_reader_fence(&reader, &read));
    rmp_reader_look(&reader, &read);
    CHECK_EQUAL(read.kind, RMP_READ_BLOCKED);
    rmp_reader_delivered(&reader, read.position);
    rmp_reader_open(&reader, ring); /* a successor counts the same */
    CHECK_EQUAL(reader.fenced_count, RMP_MAX_FENCED);
    CHECK_EQUAL(rmp_ring_abort(ring, 1, positions[0], 2), RMP_OVERTAKEN);
    rmp_reader_release(&reader);
    CHECK_EQUAL(ring->header->free_pos, positions[1]);
    rmp_reader_look(&reader, &read);
    CHECK(rmp_reader_fence(&reader, &read));
    rmp_segment_close(&segment, false);
}

/* ---- fenced without mercy, while all run ---- */

#define WRITERS 4

typedef struct hurried {
    const rmp_ring *ring;
    uint64_t count, overtaken;
    uint32_t running;
} hurried;

static void dawdle(const char *name) {
    static __thread unsigned passes;
    if (name[0] == 'c' && ++passes % 7 == 0) sched_yield();
}

static void *write_hurriedly(void *argument) {
    hurried *job = argument;
    uint32_t slot = take_slot(job->ring);
    for (uint64_t i = 0; i < job->count; i++) {
        enum rmp_result result = emit(job->ring, slot, next_number(job->ring, slot), LENGTH_LIMIT);
        CHECK(result == RMP_OK || result == RMP_OVERTAKEN);
        if (result == RMP_OVERTAKEN) rmp_add_relaxed(&job->overtaken, 1);
    }
    rmp_slots_exit(job->ring, slot);
    rmp_add_acq_rel(&job->running, -1);
    return NULL;
}

static void check_rising(dispatcher *self, const rmp_read *read, bool redelivered) {
    uint64_t *last = self->context;
    uint64_t number = check_payload(self->payload, read->payload_bytes, read->owner, LENGTH_LIMIT);
    CHECK(!redelivered && number > last[read->owner]);
    last[read->owner] = number;
}

static void fence_whoever_blocks(dispatcher *reader) {
    rmp_read read;
    rmp_reader_look(&reader->reader, &read);
    if (read.kind == RMP_READ_BLOCKED && rmp_reader_fence(&reader->reader, &read))
        rmp_add_relaxed(&rmp_ring_slot(&reader->reader.ring, read.owner)->lost_fenced, 1);
}

TEST_COUNTED(a_reader_that_fences_at_once_loses_what_it_fences_and_nothing_else, 10000) {
    rmp_segment segment = make_segment(128, 8, LENGTH_LIMIT);
    hurried job = {&segment.ring, count, 0, WRITERS};
    uint64_t last[8] = {0};
    dispatcher reader;
    dispatcher_open(&reader, &segment.ring);
    reader.deliver = check_rising;
    reader.context = last;
    rmp_testpoint_hook = dawdle;
    pthread_t threads[WRITERS];
    for (int i = 0; i < WRITERS; i++) CHECK(pthread_create(&threads[i], NULL, write_hurriedly, &job) == 0);
    while (rmp_load_acquire(&job.running)) {
        while (dispatcher_step(&reader)) {}
        fence_whoever_blocks(&reader);
        rmp_reader_release(&reader.reader);
    }
    for (int i = 0; i < WRITERS; i++) pthread_join(threads[i], NULL);
    rmp_testpoint_hook = NULL;
    dispatcher_drain(&reader);
    CHECK_EQUAL(reader.corrupt, 0);
    CHECK_EQUAL(segment.ring.header->free_pos, rmp_ring_tail(&segment.ring));
    CHECK_EQUAL(reader.delivered + job.overtaken, count * WRITERS);
    printf("    %llu of %llu fenced\n", (unsigned long long)job.overtaken, (unsigned long long)count * WRITERS);
    dispatcher_close(&reader);
    rmp_segment_close(&segment, false);
}
