/* Sleeping and waking. The backstop is off here (an hour): one lost wake-up, and the test hangs. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring_test.h"

static void rmp_gate_open(rmp_gate *gate) {
    rmp_fence_seq_cst(); /* pairs with the fence in rmp_gate_wait */
    rmp_gate_open_fenced(gate);
}

static void backstop_off(void) { test_backstop_ns = 3600ull * 1000000000ull; }

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
    dispatcher reader;
    dispatcher_open(&reader, ring);
    while (reader.delivered < count) {
        dispatcher_drain(&reader);
        if (reader.delivered < count) rmp_reader_wait(&reader.reader, 0, UINT64_MAX);
    }
    check_exits_clean(child);
    dispatcher_close(&reader);
    rmp_segment_close(&segment, false);
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
    dispatcher reader;
    dispatcher_open(&reader, ring);
    while (reader.delivered < count / 3 * 3) {
        dispatcher_drain(&reader);
        if (reader.delivered < count / 3 * 3) rmp_reader_wait(&reader.reader, 0, UINT64_MAX);
    }
    for (int i = 0; i < 3; i++) check_exits_clean(children[i]);
    dispatcher_close(&reader);
    rmp_segment_close(&segment, false);
}

/* ---- an interleaving that is forced ---- */

typedef struct scene {
    rmp_gate gate;
    uint32_t condition;
    uint32_t at_gate; /* 1: the waiter has looked, and has not slept yet; 2: it may go on */
} scene;

static scene *forced;

static bool condition_holds(const void *context) { return rmp_load_acquire(&((const scene *)context)->condition); }

static void hold_at_gate(const char *name) {
    if (strcmp(name, "gate.wait") != 0) return;
    rmp_store_release(&forced->at_gate, 1u);
    while (rmp_load_acquire(&forced->at_gate) != 2) sched_yield();
}

/* A looks, in vain; the thing happens, and the gate opens; B arms the gate again and is content; only
 * now A goes to sleep. A's condition holds: it must not sleep on B's arming. */
TEST(a_waiter_does_not_sleep_on_another_waiters_arming) {
    backstop_off();
    scene *shared = forced = make_shared(sizeof *shared);
    pid_t waiter = fork_child();
    if (!waiter) {
        rmp_testpoint_hook = hold_at_gate;
        while (!condition_holds(shared)) rmp_gate_wait(&shared->gate, condition_holds, shared, UINT64_MAX);
        _exit(0);
    }
    while (rmp_load_acquire(&shared->at_gate) != 1) sched_yield();
    rmp_store_release(&shared->condition, 1u);
    rmp_gate_open(&shared->gate);
    rmp_gate_wait(&shared->gate, condition_holds, shared, UINT64_MAX); /* B */
    rmp_store_release(&shared->at_gate, 2u);
    check_exits_clean(waiter); /* hangs, if A sleeps */
}

TEST(a_gate_that_nobody_waits_at_costs_no_wake) {
    rmp_gate gate = {0};
    rmp_gate_open(&gate);
    CHECK_EQUAL(gate.wanted, 0);
}

TEST(a_wait_ends_at_its_timeout) {
    backstop_off();
    scene never = {0};
    rmp_gate_wait(&never.gate, condition_holds, &never, 1000000);
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
            while (!condition_holds(shared)) rmp_gate_wait(&shared->gate, condition_holds, shared, UINT64_MAX);
            _exit(0);
        }
        while (!(rmp_load_acquire(&shared->gate.wanted) & 1)) sched_yield();
        pid_t waker = fork_child();
        if (!waker) {
            signal_at(points[i], 1, 9);
            rmp_store_release(&shared->condition, 1u);
            for (;;) rmp_gate_open(&shared->gate);
        }
        CHECK(was_killed(wait_child(waker)));
        check_exits_clean(waiter);
    }
}
