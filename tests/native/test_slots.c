/* Who has which slot, since when, and what became of each event. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring_test.h"

#define SLOTS 5u

static enum rmp_slot_status status_of(const rmp_ring *ring, uint32_t slot) {
    return rmp_slot_status(rmp_load_acquire(&rmp_ring_slot(ring, slot)->state));
}

static void write_one(const rmp_ring *ring, uint32_t slot, uint64_t owner_seq) {
    rmp_store_relaxed(&rmp_ring_slot(ring, slot)->emitted, owner_seq);
    CHECK_EQUAL(rmp_ring_write(ring, slot, owner_seq, "x", 1), RMP_OK);
}

TEST(slots_are_numbered_from_1_and_run_out) {
    rmp_segment segment = make_segment(64, SLOTS, 1000);
    const rmp_ring *ring = &segment.ring;
    bool taken[SLOTS] = {false};
    for (uint32_t i = 1; i < SLOTS; i++) {
        uint32_t slot = take_slot(ring);
        CHECK(slot < SLOTS && !taken[slot]);
        taken[slot] = true;
        CHECK_EQUAL(status_of(ring, slot), RMP_SLOT_LIVE);
        CHECK_EQUAL(rmp_slot_pid(rmp_ring_slot(ring, slot)->state), getpid());
        CHECK_EQUAL(rmp_ring_slot(ring, slot)->start_time, rmp_process_self().start_time);
    }
    CHECK_EQUAL(rmp_slots_take(ring, rmp_process_self(), 1), 0);
    rmp_slots_exit(ring, 3);
    CHECK_EQUAL(take_slot(ring), 3);
    CHECK_EQUAL(rmp_slot_generation(rmp_ring_slot(ring, 3)->state), 2);
    rmp_segment_close(&segment, false);
}

TEST(a_slot_is_used_again_only_when_free_pos_has_passed_its_end) {
    rmp_segment segment = make_segment(64, 2, 1000);
    const rmp_ring *ring = &segment.ring;
    dispatcher reader;
    dispatcher_open(&reader, ring);
    for (int owner = 0; owner < 6; owner++) {
        rmp_process next = rmp_process_self();
        next.start_time += (uint64_t)owner; /* each owner is another process */
        uint32_t slot = rmp_slots_take(ring, next, 1);
        CHECK_EQUAL(slot, 1);
        next.start_time += 1;
        uint64_t base = rmp_ring_slot(ring, slot)->emitted;
        CHECK_EQUAL(rmp_ring_slot(ring, slot)->base_emitted, base);
        CHECK_EQUAL(rmp_ring_slot(ring, slot)->base_delivered, base); /* all of its earlier owners' arrived */
        write_one(ring, slot, base + 1);
        bool dies = owner % 2;
        if (dies)
            rmp_slots_mark_dead(ring, slot, rmp_ring_slot(ring, slot)->state);
        else
            rmp_slots_exit(ring, slot);
        CHECK_EQUAL(rmp_slots_take(ring, next, 1), 0);
        CHECK_EQUAL(rmp_slots_settle(ring, slot), 0);
        CHECK_EQUAL(status_of(ring, slot), dies ? RMP_SLOT_DEAD : RMP_SLOT_EXITED); /* not delivered yet */
        CHECK(dispatcher_step(&reader));
        CHECK_EQUAL(rmp_slots_take(ring, next, 1), 0); /* delivered, not released */
        rmp_slots_settle(ring, slot);
        CHECK_EQUAL(status_of(ring, slot), dies ? RMP_SLOT_SETTLED : RMP_SLOT_EXITED);
        CHECK_EQUAL(rmp_slots_take(ring, next, 1), 0);
        rmp_reader_release(&reader.reader);
    }
    check_accounts(ring);
    dispatcher_close(&reader);
    rmp_segment_close(&segment, false);
}

TEST(the_next_thread_of_the_same_process_goes_on_at_once) {
    rmp_segment segment = make_segment(64, 2, 1000);
    const rmp_ring *ring = &segment.ring;
    dispatcher reader;
    dispatcher_open(&reader, ring);
    for (uint64_t thread = 1; thread <= 10; thread++) {
        CHECK_EQUAL(rmp_slots_take(ring, rmp_process_self(), thread), 1);
        CHECK_EQUAL(rmp_ring_slot(ring, 1)->emitted, thread - 1);
        CHECK_EQUAL(rmp_ring_slot(ring, 1)->base_emitted, 0); /* one process, one account */
        CHECK_EQUAL(rmp_ring_slot(ring, 1)->thread_id, thread);
        write_one(ring, 1, thread);
        rmp_slots_exit(ring, 1);
    }
    for (int i = 0; i < 10; i++) CHECK(dispatcher_step(&reader));
    check_accounts(ring);
    dispatcher_close(&reader);
    rmp_segment_close(&segment, false);
}

TEST(a_state_that_has_moved_on_is_not_marked_dead) {
    rmp_segment segment = make_segment(64, 2, 1000);
    const rmp_ring *ring = &segment.ring;
    uint32_t slot = take_slot(ring);
    uint64_t seen = rmp_ring_slot(ring, slot)->state;
    rmp_slots_exit(ring, slot);
    rmp_slots_mark_dead(ring, slot, seen);
    CHECK_EQUAL(status_of(ring, slot), RMP_SLOT_EXITED);
    CHECK_EQUAL(take_slot(ring), slot);
    rmp_slots_mark_dead(ring, slot, seen);
    CHECK_EQUAL(status_of(ring, slot), RMP_SLOT_LIVE);
    rmp_segment_close(&segment, false);
}

static const rmp_ring *watched;

/* What a dispatcher sees, and does, while a slot is TAKING. */
static void finish_the_salvage(const char *name) {
    if (strcmp(name, "slot.taking") != 0) return;
    rmp_testpoint_hook = NULL;
    rmp_slot *slot = rmp_ring_slot(watched, 1);
    CHECK_EQUAL(status_of(watched, 1), RMP_SLOT_TAKING);
    rmp_process taker = rmp_slots_owner(watched, 1, slot->state);
    CHECK_EQUAL(rmp_process_liveness(taker), RMP_ALIVE); /* whatever the owner before it left there */
    rmp_slots_mark_dead(watched, 1, slot->state);
    CHECK_EQUAL(status_of(watched, 1), RMP_SLOT_DEAD);
    rmp_slots_settle(watched, 1);
    CHECK_EQUAL(take_slot(watched), 1);
}

/* A slot of another process that has ended, then taken by us. Should anybody take us for dead all the
 * same, the slot is lost to us: two owners of one number could not be told apart. */
TEST(a_taker_that_was_taken_for_dead_does_not_get_the_slot) {
    for (int dies = 0; dies < 2; dies++) {
        rmp_segment segment = make_segment(64, 2, 1000);
        const rmp_ring *ring = watched = &segment.ring;
        dispatcher reader;
        dispatcher_open(&reader, ring);
        pid_t child = fork_child();
        if (!child) {
            rmp_process other = rmp_process_self();
            other.start_time--; /* as a process that began earlier */
            uint32_t slot = rmp_slots_take(ring, other, 1);
            if (!dies) rmp_slots_exit(ring, slot);
            _exit(0);
        }
        check_exits_clean(child);
        dispatcher_finish_salvage(&reader);
        rmp_testpoint_hook = finish_the_salvage;
        CHECK_EQUAL(rmp_slots_take(ring, rmp_process_self(), 1), 0);
        CHECK(!rmp_testpoint_hook);
        CHECK_EQUAL(rmp_slot_generation(rmp_ring_slot(ring, 1)->state), 3);
        dispatcher_close(&reader);
        rmp_segment_close(&segment, false);
    }
}

TEST(a_slot_whose_taker_was_killed_comes_back) {
    rmp_segment segment = make_segment(64, 2, 1000);
    const rmp_ring *ring = &segment.ring;
    dispatcher reader;
    dispatcher_open(&reader, ring);
    for (int i = 0; i < 4; i++) {
        pid_t child = fork_child();
        if (!child) {
            signal_at("slot.taking", 1, SIGKILL);
            take_slot(ring);
            _exit(0);
        }
        CHECK(was_killed(wait_child(child)));
        dispatcher_finish_salvage(&reader);
        uint32_t slot = take_slot(ring);
        if (i % 2) rmp_slots_exit(ring, slot);
        else rmp_slots_mark_dead(ring, slot, rmp_ring_slot(ring, slot)->state);
        rmp_slots_settle(ring, slot);
    }
    dispatcher_close(&reader);
    rmp_segment_close(&segment, false);
}

/* What the dispatcher does for a record: how many were missing before it, -1 if it was begun before. */
static int64_t pass(const rmp_ring *ring, uint32_t slot, uint64_t owner_seq) {
    uint64_t missing = rmp_slots_missing(ring, slot, owner_seq);
    CHECK_EQUAL(rmp_slots_missing(ring, slot, owner_seq), missing); /* asked again after a restart */
    return rmp_slots_pass(ring, slot, owner_seq) ? -1 : (int64_t)missing;
}

TEST(gaps_are_counted_once_and_repeats_are_told) {
    rmp_segment segment = make_segment(64, 4, 1000);
    const rmp_ring *ring = &segment.ring;
    uint32_t slot = take_slot(ring);
    CHECK_EQUAL(pass(ring, slot, 1), 0);
    CHECK_EQUAL(pass(ring, slot, 1), -1);
    rmp_ring_slot(ring, slot)->lost_full = 3;
    CHECK_EQUAL(pass(ring, slot, 5), 3);
    CHECK_EQUAL(lost_of_slot(rmp_ring_slot(ring, slot)), 3);
    CHECK_EQUAL(pass(ring, slot, 5), -1);
    CHECK_EQUAL(pass(ring, slot, 6), 0);
    CHECK_EQUAL(pass(ring, slot, 8), 1); /* nobody has counted it: its record was damaged */
    CHECK_EQUAL(rmp_ring_slot(ring, slot)->lost_corrupt, 1);
    CHECK_EQUAL(rmp_ring_slot(ring, slot)->passed.low, 8);
    CHECK_EQUAL(rmp_ring_slot(ring, slot)->passed.high, 4);
    rmp_ring_slot(ring, slot)->emitted = 12; /* four more begun, never seen: dead with their writer */
    rmp_slots_mark_dead(ring, slot, rmp_ring_slot(ring, slot)->state);
    CHECK_EQUAL(rmp_slots_settle(ring, slot), 4);
    CHECK_EQUAL(rmp_slots_settle(ring, slot), 0);
    CHECK_EQUAL(rmp_ring_slot(ring, slot)->lost_writer_died, 4);
    check_accounts(ring);
    rmp_segment_close(&segment, false);
}

TEST(a_record_is_counted_as_begun_until_another_is) {
    rmp_segment segment = make_segment(64, 4, 1000);
    const rmp_ring *ring = &segment.ring;
    uint32_t slot = take_slot(ring), other = take_slot(ring);
    for (uint32_t before = 0; before < 300; before++)
        CHECK_EQUAL(rmp_slots_pass(ring, slot, 1), before < 255 ? before : 255);
    CHECK_EQUAL(rmp_slots_pass(ring, other, 1), 0);
    CHECK_EQUAL(rmp_slots_pass(ring, other, 2), 0);
    CHECK_EQUAL(rmp_slots_pass(ring, slot, 1), 1); /* it has passed, that much is known */
    rmp_segment_close(&segment, false);
}

TEST(a_record_is_given_up_once) {
    rmp_segment segment = make_segment(64, 4, 1000);
    const rmp_ring *ring = &segment.ring;
    uint32_t slot = take_slot(ring);
    rmp_ring_slot(ring, slot)->emitted = 2;
    CHECK_EQUAL(rmp_slots_pass(ring, slot, 1), 0);
    CHECK_EQUAL(rmp_slots_pass(ring, slot, 2), 0);
    CHECK(rmp_slots_give_up(ring, slot, 2));
    CHECK(!rmp_slots_give_up(ring, slot, 2));
    CHECK_EQUAL(rmp_slots_unmarked(ring, slot, RMP_MARK_PASSED, 0), 1);
    check_accounts(ring);
    rmp_segment_close(&segment, false);
}

/* ---- marks ---- */

static void mark(const rmp_ring *ring, uint32_t slot, uint64_t count, uint64_t seq) {
    const uint8_t uuid[16] = {1, 2, 3};
    rmp_mark_prepare(ring, slot, count, seq, 4, uuid);
}

TEST(a_mark_tells_each_loss_once_and_by_its_cause) {
    rmp_segment segment = make_segment(64, 4, 1000);
    const rmp_ring *ring = &segment.ring;
    const rmp_mark *made = &ring->header->mark;
    uint32_t slot = take_slot(ring);
    rmp_slot *counters = rmp_ring_slot(ring, slot);
    counters->lost_full = 5; /* two of them behind the place where the mark comes */
    counters->lost_fenced = 1;
    counters->passed = (rmp_pair){4, 4};
    CHECK_EQUAL(rmp_slots_unmarked(ring, slot, RMP_MARK_PASSED, 0), 4);
    CHECK_EQUAL(rmp_slots_unmarked(ring, slot, RMP_MARK_ALL, 0), 6);
    mark(ring, slot, 4, 77);
    CHECK_EQUAL(rmp_mark_times(ring), 0);
    CHECK_EQUAL(rmp_slots_unmarked(ring, slot, RMP_MARK_PASSED, 0), 4); /* written down, not delivered */
    CHECK_EQUAL(rmp_mark_begin(ring), 0);
    CHECK_EQUAL(made->seq, 77);
    CHECK_EQUAL(made->pid, getpid());
    CHECK_EQUAL(made->lost[RMP_LOST_FULL], 3);
    CHECK_EQUAL(made->lost[RMP_LOST_FENCED], 1);
    CHECK_EQUAL(rmp_mark_begin(ring), 1); /* the dispatcher has died */
    CHECK_EQUAL(rmp_mark_times(ring), 2);
    rmp_mark_done(ring);
    CHECK_EQUAL(rmp_mark_times(ring), 0);
    CHECK_EQUAL(rmp_mark_count(ring), 1);
    CHECK_EQUAL(made->seq, 77); /* for the next one to come behind */
    CHECK_EQUAL(rmp_slots_unmarked(ring, slot, RMP_MARK_PASSED, 0), 0);
    CHECK_EQUAL(rmp_slots_unmarked(ring, slot, RMP_MARK_PASSED, 2), 2);
    CHECK_EQUAL(rmp_slots_unmarked(ring, slot, RMP_MARK_ALL, 0), 2);
    rmp_segment_close(&segment, false);
}

TEST(losses_of_threads_without_a_slot_are_marked_under_slot_0) {
    rmp_segment segment = make_segment(64, 4, 1000);
    const rmp_ring *ring = &segment.ring;
    ring->header->lost_unregistered = 7;
    CHECK_EQUAL(rmp_slots_unmarked(ring, 0, RMP_MARK_PASSED, 0), 7);
    mark(ring, 0, 7, 1);
    rmp_mark_begin(ring);
    CHECK_EQUAL(ring->header->mark.pid, 0);
    rmp_mark_done(ring);
    CHECK_EQUAL(rmp_slots_unmarked(ring, 0, RMP_MARK_PASSED, 0), 0);
    rmp_segment_close(&segment, false);
}

/* Else its last losses would be marked as another process's. */
TEST(a_slot_goes_to_another_process_only_when_its_losses_are_marked) {
    for (int dies = 0; dies < 2; dies++) {
        rmp_segment segment = make_segment(64, 2, 1000);
        const rmp_ring *ring = &segment.ring;
        dispatcher reader;
        dispatcher_open(&reader, ring);
        uint32_t slot = take_slot(ring);
        write_one(ring, slot, 1);
        rmp_ring_slot(ring, slot)->emitted = 2; /* dropped: the ring was full */
        rmp_ring_slot(ring, slot)->lost_full = 1;
        if (dies) rmp_slots_mark_dead(ring, slot, rmp_ring_slot(ring, slot)->state);
        else rmp_slots_exit(ring, slot);
        dispatcher_drain(&reader);
        rmp_process other = rmp_process_self();
        other.start_time++;
        CHECK_EQUAL(rmp_slots_take(ring, other, 1), 0);
        CHECK_EQUAL(rmp_slots_settle(ring, slot), 1);
        CHECK_EQUAL(rmp_slots_settle(ring, slot), 0);
        CHECK_EQUAL(rmp_slots_take(ring, other, 1), 0);
        mark(ring, slot, rmp_slots_unmarked(ring, slot, RMP_MARK_PASSED, 0), 1);
        CHECK_EQUAL(ring->header->mark.lost[RMP_LOST_FULL], 1);
        rmp_mark_begin(ring);
        CHECK_EQUAL(rmp_slots_take(ring, other, 1), 0);
        rmp_mark_done(ring);
        CHECK_EQUAL(rmp_slots_take(ring, other, 1), 1);
        dispatcher_close(&reader);
        rmp_segment_close(&segment, false);
    }
}

static void succeed(const char *name) {
    if (strcmp(name, "slot.settling") != 0) return;
    rmp_testpoint_hook = NULL;
    CHECK_EQUAL(take_slot(watched), 1);
    rmp_store_relaxed(&rmp_ring_slot(watched, 1)->emitted, 2); /* numbered, not claimed yet */
}

/* The next thread of the process has the slot already, and has begun an event: that one is not lost. */
TEST(settling_an_exited_thread_leaves_its_successors_events_alone) {
    rmp_segment segment = make_segment(64, 2, 1000);
    const rmp_ring *ring = &segment.ring;
    dispatcher reader;
    dispatcher_open(&reader, ring);
    uint32_t slot = take_slot(ring);
    write_one(ring, slot, 1);
    rmp_slots_exit(ring, slot);
    dispatcher_drain(&reader);
    watched = ring;
    rmp_testpoint_hook = succeed;
    CHECK_EQUAL(rmp_slots_settle(ring, slot), 0);
    CHECK(!rmp_testpoint_hook);
    CHECK_EQUAL(rmp_slots_settle(ring, slot), 0);
    write_one(ring, slot, 2);
    dispatcher_drain(&reader);
    CHECK_EQUAL(reader.missing, 0);
    check_accounts(ring);
    dispatcher_close(&reader);
    rmp_segment_close(&segment, false);
}

typedef struct contest {
    const rmp_ring *ring;
    uint32_t *holders; /* by slot: how many think it theirs */
    uint64_t rounds;
} contest;

static void *contend(void *argument) {
    contest *contest = argument;
    rmp_process self = rmp_process_self();
    for (uint64_t i = 0; i < contest->rounds;) {
        uint32_t slot = rmp_slots_take(contest->ring, self, 1);
        if (!slot) continue;
        CHECK_EQUAL(rmp_add_acq_rel(&contest->holders[slot], 1), 0);
        rmp_add_acq_rel(&contest->holders[slot], -1);
        rmp_slots_exit(contest->ring, slot);
        i++;
    }
    return NULL;
}

TEST_COUNTED(a_slot_has_one_holder_at_a_time, 200000) {
    rmp_segment segment = make_segment(64, SLOTS, 1000);
    uint32_t holders[SLOTS] = {0};
    contest contest = {&segment.ring, holders, count};
    pthread_t threads[8];
    for (int i = 0; i < 8; i++) CHECK(pthread_create(&threads[i], NULL, contend, &contest) == 0);
    for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
    rmp_segment_close(&segment, false);
}
