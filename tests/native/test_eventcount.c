/* Sleeping and waking. The backstop is off here (an hour): one lost wake-up, and the test hangs. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring_test.h"

static void rmp_eventcount_notify(rmp_eventcount *eventcount) {
    rmp_fence_seq_cst(); /* pairs with the fence in rmp_eventcount_wait */
    rmp_eventcount_notify_fenced(eventcount);
}

static void backstop_off(void) { test_backstop_ns = 3600ull * 1000000000ull; }

/* Delivers so many records, asleep whenever there is none; then the producers have ended well. */
static void deliver_all(rmp_segment *segment, uint64_t records, const pid_t *producers, int producer_count) {
    dispatcher reader;
    dispatcher_open(&reader, &segment->ring);
    while (reader.delivered < records) {
        dispatcher_drain(&reader);
        if (reader.delivered < records) rmp_reader_wait(&reader.reader, 0, UINT64_MAX);
    }
    for (int i = 0; i < producer_count; i++) check_exits_clean(producers[i]);
    dispatcher_close(&reader);
    rmp_segment_close(segment, false);
}

/* Every record finds the reader asleep or about to be, and every delivery the producer. */
TEST_COUNTED(no_wake_up_is_lost_between_producer_and_reader, 200000) {
    backstop_off();
    rmp_segment segment = make_segment(64, 4, 64);
    const rmp_ring *ring = &segment.ring;
    pid_t child = fork_child();
    if (!child) {
        uint32_t slot = take_slot(ring);
        for (uint64_t n = 1; n <= count; n++) {
            CHECK_EQUAL(emit(ring, slot, n, 64), RMP_OK);
            uint64_t position = rmp_ring_tail(ring);
            while (rmp_load_acquire(&ring->header->read_pos) < position)
                rmp_ring_wait_for_delivery(ring, position, UINT64_MAX);
        }
        _exit(0);
    }
    deliver_all(&segment, count, &child, 1);
}

/* Three writers of a ring that has room for two records: nearly every claim sleeps for space. */
TEST_COUNTED(no_wake_up_is_lost_among_waiters_for_space, 100000) {
    backstop_off();
    rmp_segment segment = make_segment(64, 8, 31 * 64);
    const rmp_ring *ring = &segment.ring;
    pid_t children[3];
    for (int i = 0; i < 3; i++) {
        if ((children[i] = fork_child())) continue;
        uint32_t slot = take_slot(ring);
        static uint8_t payload[30 * 64];
        uint64_t first = next_number(ring, slot);
        for (uint64_t n = first; n < first + count / 3; n++) {
            rmp_store_relaxed(&rmp_ring_slot(ring, slot)->emitted, n);
            while (rmp_ring_write(ring, slot, n, payload, sizeof payload) == RMP_FULL)
                rmp_ring_wait_for_space(ring, sizeof payload, UINT64_MAX);
        }
        _exit(0);
    }
    deliver_all(&segment, count / 3 * 3, children, 3);
}

/* Three processes that each wait for their own record: the lowest place changes hands all the time. */
TEST_COUNTED(no_wake_up_is_lost_among_flushes, 30000) {
    backstop_off();
    rmp_segment segment = make_segment(64, 8, 64);
    const rmp_ring *ring = &segment.ring;
    pid_t children[3];
    for (int i = 0; i < 3; i++) {
        if ((children[i] = fork_child())) continue;
        uint32_t slot = take_slot(ring);
        uint64_t first = next_number(ring, slot);
        for (uint64_t n = first; n < first + count / 3; n++) {
            CHECK_EQUAL(emit(ring, slot, n, 64), RMP_OK);
            uint64_t position = rmp_ring_tail(ring);
            while (rmp_load_acquire(&ring->header->read_pos) < position)
                rmp_ring_wait_for_delivery(ring, position, UINT64_MAX);
        }
        _exit(0);
    }
    deliver_all(&segment, count / 3 * 3, children, 3);
}

/* ---- interleavings that are forced ---- */

typedef struct scene {
    rmp_eventcount eventcount;
    uint32_t condition;
    uint32_t at_point; /* 1: the waiter has looked, and has not slept yet; 2: it may go on */
} scene;

static scene *forced;
static const char *forced_point = "eventcount.wait";

static bool condition_holds(const void *context) { return rmp_load_acquire(&((const scene *)context)->condition); }

static void hold_at_point(const char *name) {
    if (strcmp(name, forced_point) != 0 || rmp_load_acquire(&forced->at_point)) return; /* the first time only */
    rmp_store_release(&forced->at_point, 1u);
    while (rmp_load_acquire(&forced->at_point) != 2) sched_yield();
}

/* A looks, in vain; the thing happens, and is notified; B arms the eventcount again and is content; only
 * now A goes to sleep. A's condition holds: it must not sleep on B's arming. */
TEST(a_waiter_does_not_sleep_on_another_waiters_arming) {
    backstop_off();
    scene *shared = forced = make_shared(sizeof *shared);
    pid_t waiter = fork_child();
    if (!waiter) {
        rmp_testpoint_hook = hold_at_point;
        while (!condition_holds(shared)) rmp_eventcount_wait(&shared->eventcount, condition_holds, shared, UINT64_MAX);
        _exit(0);
    }
    while (rmp_load_acquire(&shared->at_point) != 1) sched_yield();
    rmp_store_release(&shared->condition, 1u);
    rmp_eventcount_notify(&shared->eventcount);
    rmp_eventcount_wait(&shared->eventcount, condition_holds, shared, UINT64_MAX); /* B */
    rmp_store_release(&shared->at_point, 2u);
    check_exits_clean(waiter); /* hangs, if A sleeps */
}

TEST(an_eventcount_that_nobody_waits_on_costs_no_wake) {
    rmp_eventcount eventcount = {0};
    rmp_eventcount_notify(&eventcount);
    CHECK_EQUAL(eventcount.wanted, 0);
}

TEST(a_wait_ends_at_its_timeout) {
    backstop_off();
    scene never = {0};
    rmp_eventcount_wait(&never.eventcount, condition_holds, &never, 1000000);
    CHECK(!condition_holds(&never));
}

/* The waker dies between its change and its wake: the waiter is late by the backstop, not lost. */
TEST(the_backstop_saves_the_waiter_of_a_killed_waker) {
    test_backstop_ns = 20000000ull;
    const char *const points[] = {"wake.before", "wake.turned"};
    for (int i = 0; i < 2; i++) {
        scene *shared = make_shared(sizeof *shared);
        pid_t waiter = fork_child();
        if (!waiter) {
            while (!condition_holds(shared))
                rmp_eventcount_wait(&shared->eventcount, condition_holds, shared, UINT64_MAX);
            _exit(0);
        }
        while (!(rmp_load_acquire(&shared->eventcount.wanted) & 1)) sched_yield();
        pid_t waker = fork_child();
        if (!waker) {
            signal_at(points[i], 1, 9);
            rmp_store_release(&shared->condition, 1u);
            for (;;) rmp_eventcount_notify(&shared->eventcount);
        }
        CHECK(was_killed(wait_child(waker)));
        check_exits_clean(waiter);
    }
}

/* ---- flushes: who wakes whom, and when ---- */

typedef struct flushes {
    rmp_segment segment;
    rmp_ring *ring;
    rmp_reader reader;
} flushes;

static void flushes_open(flushes *self) {
    backstop_off();
    forced = make_shared(sizeof *forced);
    self->segment = make_segment(64, 4, 64);
    self->ring = &self->segment.ring;
    rmp_reader_open(&self->reader, self->ring);
}

/* A child that waits until `position` is delivered; it stops at `point`, if there is one, until it is let go. */
static pid_t start_flush(flushes *self, uint64_t position, const char *point) {
    pid_t waiter = fork_child();
    if (waiter) return waiter;
    if (point) forced_point = point;
    if (point) rmp_testpoint_hook = hold_at_point;
    while (rmp_load_acquire(&self->ring->header->read_pos) < position)
        rmp_ring_wait_for_delivery(self->ring, position, UINT64_MAX);
    _exit(0);
}

/* A waiter that has given up leaves its place and the armed eventcount behind. */
static void leave_a_place(flushes *self, uint64_t position) { rmp_ring_wait_for_delivery(self->ring, position, 0); }

static void wait_until_awaited(flushes *self, uint64_t position) {
    while (rmp_load_acquire(&self->ring->header->delivery_awaited) != position) sched_yield();
}

static void wait_until_held(void) {
    while (rmp_load_acquire(&forced->at_point) != 1) sched_yield();
}

static void let_go(void) { rmp_store_release(&forced->at_point, 2u); }

TEST(a_flush_is_woken_once_when_its_own_place_is_reached) {
    flushes all;
    flushes_open(&all);
    rmp_eventcount *eventcount = &all.ring->header->delivered;
    pid_t waiter = start_flush(&all, 1000, NULL);
    wait_until_awaited(&all, 1000);
    uint32_t calls = rmp_eventcount_calls(eventcount);
    for (uint64_t position = 1; position < 1000; position++) {
        rmp_reader_delivered(&all.reader, position);
        CHECK_EQUAL(rmp_eventcount_calls(eventcount), calls);
    }
    rmp_reader_delivered(&all.reader, 1000);
    CHECK_EQUAL(rmp_eventcount_calls(eventcount), calls + 4); /* the count is above the two bits */
    check_exits_clean(waiter);
    CHECK_EQUAL(all.ring->header->delivery_awaited, RMP_NOBODY_WAITS);
    rmp_segment_close(&all.segment, false);
}

TEST(each_of_several_flushes_returns_when_its_own_place_is_reached) {
    flushes all;
    flushes_open(&all);
    pid_t waiters[4]; /* the furthest first: each one lowers the place */
    for (uint64_t n = 4; n; n--) {
        waiters[n - 1] = start_flush(&all, n, NULL);
        wait_until_awaited(&all, n);
    }
    for (uint64_t n = 1; n <= 4; n++) {
        rmp_reader_delivered(&all.reader, n);
        check_exits_clean(waiters[n - 1]);
        if (n < 4) wait_until_awaited(&all, n + 1); /* who waits for more says so again */
    }
    rmp_segment_close(&all.segment, false);
}

/* It has not said its place when the reader looks; it must look itself before it sleeps. */
TEST(a_flush_does_not_sleep_on_what_was_delivered_before_it_said_its_place) {
    flushes all;
    flushes_open(&all);
    pid_t waiter = start_flush(&all, 1, "delivery.armed");
    wait_until_held();
    rmp_reader_delivered(&all.reader, 1);
    let_go();
    check_exits_clean(waiter);
    rmp_segment_close(&all.segment, false);
}

/* It trusts in a lower place, which the reader reaches and takes back; only now it goes to sleep. Had it armed it
 * after it had looked at that place, it would sleep with its own place said nowhere. */
TEST(a_flush_does_not_sleep_on_another_ones_place) {
    flushes all;
    flushes_open(&all);
    leave_a_place(&all, 1);
    pid_t waiter = start_flush(&all, 2, "delivery.awaited");
    wait_until_held();
    rmp_reader_delivered(&all.reader, 1);
    CHECK_EQUAL(all.ring->header->delivery_awaited, RMP_NOBODY_WAITS);
    let_go();
    wait_until_awaited(&all, 2); /* hangs, if it sleeps */
    rmp_reader_delivered(&all.reader, 2);
    check_exits_clean(waiter);
    rmp_segment_close(&all.segment, false);
}

/* The reader has notified, and a waiter arms it anew at once: it must not find the place that is reached. */
TEST(the_reader_takes_a_reached_place_back_before_it_notifies) {
    flushes all;
    flushes_open(&all);
    leave_a_place(&all, 1);
    pid_t reader = fork_child();
    if (!reader) {
        forced_point = "wake.turned";
        rmp_testpoint_hook = hold_at_point;
        rmp_reader_delivered(&all.reader, 1);
        rmp_reader_delivered(&all.reader, 2);
        _exit(0);
    }
    wait_until_held();
    pid_t waiter = start_flush(&all, 2, NULL);
    wait_until_awaited(&all, 2); /* hangs, if it trusts in the other place */
    let_go();
    check_exits_clean(reader);
    check_exits_clean(waiter);
    rmp_segment_close(&all.segment, false);
}

TEST(the_backstop_saves_the_flush_of_a_killed_reader) {
    const char *const points[] = {"wake.before", "wake.turned"};
    for (int i = 0; i < 2; i++) {
        flushes all;
        flushes_open(&all);
        test_backstop_ns = 20000000ull;
        pid_t waiter = start_flush(&all, 2, NULL);
        wait_until_awaited(&all, 2);
        leave_a_place(&all, 1);
        pid_t reader = fork_child();
        if (!reader) {
            signal_at(points[i], 1, 9);
            rmp_reader_delivered(&all.reader, 1);
        }
        CHECK(was_killed(wait_child(reader)));
        wait_until_awaited(&all, 2); /* its place is said again */
        rmp_reader_open(&all.reader, all.ring);
        rmp_reader_delivered(&all.reader, 2);
        check_exits_clean(waiter);
        rmp_segment_close(&all.segment, false);
    }
}
