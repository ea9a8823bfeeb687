/* SIGKILL of real processes at every point where another process can see what was done: nobody hangs,
 * survivors go on, and no more is lost than was killed. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring_test.h"

#define LENGTH_LIMIT 700u
#define SURVIVOR_RECORDS 300u

static const char *const producer_points[] = {
    "slot.taking",  "claim.helped",  "claim.padded",     "claim.claimed", "claim.published", "commit.header",
    "commit.copied",    "commit.committed", "wake.before",   "wake.turned",   "eventcount.wait",
};
#define POINTS (sizeof producer_points / sizeof producer_points[0])

static void check_next(dispatcher *self, const rmp_read *read, bool redelivered) {
    uint64_t *last = self->context;
    uint64_t number = check_payload(self->payload, read->payload_bytes, read->owner, LENGTH_LIMIT);
    CHECK(!redelivered);
    CHECK_EQUAL(number, last[read->owner] + 1); /* only a victim's last record can be missing */
    last[read->owner] = number;
}

static pid_t start_producer(const rmp_ring *ring, uint64_t records, const char *point, unsigned occurrence) {
    pid_t child = fork_child();
    if (child) return child;
    if (point) signal_at(point, occurrence, SIGKILL);
    uint32_t slot = take_slot(ring);
    for (uint64_t i = 0; i < records; i++)
        CHECK_EQUAL(emit(ring, slot, next_number(ring, slot), LENGTH_LIMIT), RMP_OK);
    rmp_slots_exit(ring, slot);
    _exit(0);
}

static void reap(pid_t *children, int *statuses, int count, int *running) {
    for (int i = 0; i < count; i++)
        if (children[i] && waitpid(children[i], &statuses[i], WNOHANG) == children[i]) {
            children[i] = 0;
            --*running;
        }
}

/* One victim and `survivors` others; returns whether the victim got as far as its death. */
static bool kill_one_of(int survivors, const char *point, unsigned occurrence) {
    rmp_segment segment = make_segment(64, 8, LENGTH_LIMIT);
    const rmp_ring *ring = &segment.ring;
    uint64_t last[8] = {0};
    dispatcher reader;
    dispatcher_open(&reader, ring);
    reader.deliver = check_next;
    reader.context = last;
    pid_t children[4];
    int statuses[4], running = survivors + 1;
    children[0] = start_producer(ring, SURVIVOR_RECORDS, point, occurrence);
    for (int i = 1; i <= survivors; i++) children[i] = start_producer(ring, SURVIVOR_RECORDS, NULL, 0);
    while (running) {
        dispatcher_drain(&reader);
        rmp_reader_wait(&reader.reader, 0, 1000000);
        reap(children, statuses, survivors + 1, &running);
    }
    dispatcher_drain(&reader); /* no write comes any more */
    dispatcher_finish_salvage(&reader);
    CHECK_EQUAL(ring->header->free_pos, rmp_ring_tail(ring));
    bool killed = was_killed(statuses[0]);
    CHECK(killed || (WIFEXITED(statuses[0]) && WEXITSTATUS(statuses[0]) == 0));
    for (int i = 1; i <= survivors; i++) CHECK(WIFEXITED(statuses[i]) && WEXITSTATUS(statuses[i]) == 0);
    uint64_t emitted = 0, lost = 0;
    for (uint32_t slot = 1; slot < ring->slot_count; slot++) {
        emitted += rmp_ring_slot(ring, slot)->emitted;
        lost += lost_of_slot(rmp_ring_slot(ring, slot));
    }
    CHECK(lost <= killed);
    CHECK_EQUAL(reader.corrupt, 0);
    CHECK_EQUAL(emitted, reader.delivered + lost);
    check_accounts(ring);
    CHECK(emitted >= SURVIVOR_RECORDS * (uint64_t)survivors);
    dispatcher_close(&reader);
    rmp_segment_close(&segment, false);
    return killed;
}

static void kill_at_every_point(int survivors) {
    const unsigned occurrences[] = {1, 2, 7, 40};
    for (size_t point = 0; point < POINTS; point++) {
        int killed = 0;
        for (size_t i = 0; i < sizeof occurrences / sizeof occurrences[0]; i++)
            killed += kill_one_of(survivors, producer_points[point], occurrences[i]);
        printf("    %s: killed %d times\n", producer_points[point], killed);
        CHECK(killed > 0 || strncmp(producer_points[point], "wake.", 5) == 0 || point + 1 == POINTS);
    }
}

TEST(a_producer_killed_at_any_point_loses_one_record_at_most) { kill_at_every_point(0); }
TEST(survivors_are_not_blocked_by_a_producer_killed_at_any_point) { kill_at_every_point(2); }

/* ---- the dead claim is the newest, and no write comes after it ---- */

typedef struct place {
    const char *name;
    uint64_t offset; /* of the claim that dies */
    uint32_t units;  /* of its record */
    bool full;       /* everything before it is still in the ring */
} place;

static const place places[] = {
    {"in the middle", 10, 4, false}, {"ends at the ring's end", 60, 4, false},
    {"behind padding", 62, 4, false}, {"at index 0", 0, 4, false},
    {"fills the ring", 60, 4, true},  {"one unit, last of the ring", 63, 1, false},
};

static void write_units(const rmp_ring *ring, uint32_t slot, uint64_t owner_seq, uint32_t units) {
    uint8_t payload[64 * 64] = {0};
    rmp_store_relaxed(&rmp_ring_slot(ring, slot)->emitted, owner_seq);
    CHECK_EQUAL(rmp_ring_write(ring, slot, owner_seq, payload, units * 64 - RMP_RECORD_HEADER_BYTES), RMP_OK);
}

static void recover_without_a_write(const place *place, const char *point) {
    rmp_segment segment = make_segment(64, 8, 32 * 64 - RMP_RECORD_HEADER_BYTES);
    const rmp_ring *ring = &segment.ring;
    uint32_t own = take_slot(ring);
    uint64_t sequence = 0;
    dispatcher reader;
    dispatcher_open(&reader, ring);
    uint64_t start = place->offset ? place->offset : 64;
    while (rmp_ring_tail(ring) < start) write_units(ring, own, ++sequence, 1);
    if (!place->full) dispatcher_drain(&reader);
    __atomic_fetch_or(&ring->header->data.wanted, 1u, __ATOMIC_RELAXED); /* as if the reader slept: the wake's points are met */
    pid_t victim = fork_child();
    if (!victim) {
        signal_at(point, 1, SIGKILL);
        write_units(ring, take_slot(ring), 1, place->units);
        _exit(0);
    }
    bool killed = was_killed(wait_child(victim));
    CHECK(killed || strcmp(point, "claim.padded") == 0);
    uint64_t position;
    if (place->full && rmp_ring_tail(ring) == 64) CHECK_EQUAL(rmp_ring_claim(ring, own, 1, &position), RMP_FULL);
    dispatcher_drain(&reader);
    dispatcher_finish_salvage(&reader);
    CHECK_EQUAL(ring->header->free_pos, rmp_ring_tail(ring));
    CHECK(sequence + 1 - reader.delivered <= 1);
    uint64_t before = reader.delivered;
    for (int i = 0; i < 100; i++) {
        write_units(ring, own, ++sequence, 5);
        dispatcher_drain(&reader);
    }
    CHECK_EQUAL(reader.delivered, before + 100);
    CHECK_EQUAL(reader.corrupt, 0);
    check_accounts(ring);
    dispatcher_close(&reader);
    rmp_segment_close(&segment, false);
}

TEST(the_reader_recovers_alone_wherever_the_dead_claim_lies) {
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        for (size_t point = 0; point < POINTS; point++)
            if (strcmp(producer_points[point], "eventcount.wait") != 0 && strcmp(producer_points[point], "slot.taking") != 0)
                recover_without_a_write(&places[i], producer_points[point]);
}

/* ---- the reader dies ---- */

#define LOG_RECORDS 4000u

typedef struct delivery_log {
    uint64_t count;
    struct { uint64_t number; bool redelivered; } entry[LOG_RECORDS + 64];
} delivery_log;

static void write_to_log(dispatcher *self, const rmp_read *read, bool redelivered) {
    delivery_log *log = self->context;
    uint64_t at = log->count;
    CHECK(at < LOG_RECORDS + 64);
    log->entry[at].number = check_payload(self->payload, read->payload_bytes, read->owner, LENGTH_LIMIT);
    log->entry[at].redelivered = redelivered;
    rmp_store_release(&log->count, at + 1);
}

static void read_as_child(const rmp_ring *ring, delivery_log *log, const uint32_t *done) {
    dispatcher reader;
    dispatcher_open(&reader, ring);
    reader.deliver = write_to_log;
    reader.context = log;
    for (;;) {
        bool last = rmp_load_acquire(done);
        dispatcher_drain(&reader);
        if (last) _exit(0);
        rmp_reader_wait(&reader.reader, 0, 1000000);
    }
}

/* Each record once; once more only right behind a restart, and then flagged. */
static void check_log(const delivery_log *log, uint64_t restarts) {
    uint64_t expected = 1, repeated = 0;
    for (uint64_t i = 0; i < log->count; i++) {
        bool repeats = expected > 1 && log->entry[i].number == expected - 1;
        CHECK(!repeats || log->entry[i].redelivered);
        CHECK(repeats || log->entry[i].number == expected);
        repeated += repeats;
        expected += !repeats;
    }
    CHECK_EQUAL(expected, LOG_RECORDS + 1);
    CHECK(repeated <= restarts);
}

static void kill_reader_at(const char *point) {
    const unsigned occurrences[] = {1, 2, 3, 50, 51, 333};
    const unsigned kills = sizeof occurrences / sizeof occurrences[0];
    rmp_segment segment = make_segment(64, 8, LENGTH_LIMIT);
    const rmp_ring *ring = &segment.ring;
    delivery_log *log = make_shared(sizeof *log);
    uint32_t *done = make_shared(sizeof *done);
    pid_t producer = start_producer(ring, LOG_RECORDS, NULL, 0);
    for (unsigned i = 0; i < kills; i++) {
        pid_t reader = fork_child();
        if (!reader) {
            signal_at(point, occurrences[i], SIGKILL);
            read_as_child(ring, log, done);
        }
        CHECK(was_killed(wait_child(reader)));
    }
    pid_t reader = fork_child();
    if (!reader) read_as_child(ring, log, done);
    check_exits_clean(producer);
    rmp_store_release(done, 1u);
    check_exits_clean(reader);
    check_log(log, kills);
    CHECK_EQUAL(ring->header->free_pos, rmp_ring_tail(ring));
    check_accounts(ring);
    rmp_segment_close(&segment, false);
}

TEST(a_reader_killed_at_any_point_loses_nothing_and_repeats_one_record_at_most) {
    const char *const points[] = {"dispatcher.passed", "dispatcher.called", "reader.delivered",
                                  "reader.unit_released", "reader.released"};
    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) kill_reader_at(points[i]);
}

/* It sleeps, or is about to: what its eventcount says afterwards must not keep the next one from waking. */
TEST(a_reader_killed_as_it_goes_to_sleep_is_followed) {
    rmp_segment segment = make_segment(64, 8, LENGTH_LIMIT);
    const rmp_ring *ring = &segment.ring;
    delivery_log *log = make_shared(sizeof *log);
    uint32_t *done = make_shared(sizeof *done);
    for (int i = 0; i < 3; i++) {
        pid_t reader = fork_child();
        if (!reader) {
            signal_at("eventcount.wait", 1, SIGKILL);
            read_as_child(ring, log, done);
        }
        CHECK(was_killed(wait_child(reader)));
    }
    pid_t reader = fork_child();
    if (!reader) read_as_child(ring, log, done);
    check_exits_clean(start_producer(ring, LOG_RECORDS, NULL, 0));
    rmp_store_release(done, 1u);
    check_exits_clean(reader);
    check_log(log, 0);
    rmp_segment_close(&segment, false);
}

/* ---- three producers, each killed at each point, both ways of a full ring ---- */

#define VICTIMS 3
#define VICTIM_RECORDS 30u

typedef struct victim_log {
    uint32_t slot;
    uint64_t returned, dropped; /* emits */
} victim_log;

/* As the library does: what finds no room is dropped and counted, at once or after a while. */
static void emit_or_drop(const rmp_ring *ring, victim_log *log, bool waits) {
    uint8_t payload[TEST_PAYLOAD_MAX];
    uint64_t number = next_number(ring, log->slot);
    uint32_t length = fill_payload(payload, log->slot, number, LENGTH_LIMIT);
    rmp_store_relaxed(&rmp_ring_slot(ring, log->slot)->emitted, number);
    enum rmp_result result = rmp_ring_write(ring, log->slot, number, payload, length);
    for (int tries = 0; waits && result == RMP_FULL && tries < 2; tries++) {
        rmp_ring_wait_for_space(ring, length, 200000);
        result = rmp_ring_write(ring, log->slot, number, payload, length);
    }
    if (result == RMP_FULL) {
        rmp_add_relaxed(&rmp_ring_slot(ring, log->slot)->lost_full, 1);
        log->dropped++;
    } else {
        CHECK_EQUAL(result, RMP_OK);
        log->returned++;
    }
}

/* Runs until it stands at its point, or, if that never comes, until its records are out. */
static pid_t stand_at(const rmp_ring *ring, const char *point, victim_log *log, bool waits, bool *ended) {
    __atomic_fetch_or(&ring->header->data.wanted, 1u, __ATOMIC_RELAXED); /* as if the reader slept */
    pid_t child = fork_child();
    if (!child) {
        signal_at(point, 1, SIGSTOP);
        log->slot = take_slot(ring);
        for (uint32_t i = 0; i < VICTIM_RECORDS; i++) emit_or_drop(ring, log, waits);
        rmp_slots_exit(ring, log->slot);
        _exit(0);
    }
    int status;
    CHECK_EQUAL(waitpid(child, &status, WUNTRACED), child);
    *ended = WIFEXITED(status);
    CHECK(*ended ? WEXITSTATUS(status) == 0 : WIFSTOPPED(status));
    return child;
}

static void count_by_slot(dispatcher *self, const rmp_read *read, bool redelivered) {
    uint64_t(*seen)[2] = self->context; /* by slot: the newest number, how many */
    uint64_t number = check_payload(self->payload, read->payload_bytes, read->owner, LENGTH_LIMIT);
    CHECK(!redelivered && number > seen[read->owner][0]);
    seen[read->owner][0] = number;
    seen[read->owner][1]++;
}

static void check_victim(const rmp_ring *ring, const victim_log *log, uint64_t delivered, bool killed) {
    if (!log->slot) return; /* killed before it had one */
    const rmp_slot *slot = rmp_ring_slot(ring, log->slot);
    CHECK(delivered >= log->returned && delivered <= log->returned + killed);
    CHECK(slot->lost_full >= log->dropped && slot->lost_full <= log->dropped + killed);
    CHECK(slot->lost_writer_died <= killed);
    CHECK_EQUAL(slot->lost_fenced + slot->lost_corrupt, 0);
    CHECK(delivered + slot->lost_full + slot->lost_writer_died <= log->returned + log->dropped + killed);
}

static void kill_three(const char *const at[VICTIMS], bool waits, victim_log *logs) {
    rmp_segment segment = make_segment(64, 8, LENGTH_LIMIT);
    const rmp_ring *ring = &segment.ring;
    pid_t children[VICTIMS];
    bool ended[VICTIMS];
    memset(logs, 0, VICTIMS * sizeof *logs);
    for (int i = 0; i < VICTIMS; i++) children[i] = stand_at(ring, at[i], &logs[i], waits, &ended[i]);
    for (int i = 0; i < VICTIMS; i++) {
        if (ended[i]) continue;
        kill(children[i], SIGKILL);
        CHECK(was_killed(wait_child(children[i])));
    }
    uint64_t seen[8][2] = {{0}};
    dispatcher reader;
    dispatcher_open(&reader, ring);
    reader.deliver = count_by_slot;
    reader.context = seen;
    dispatcher_drain(&reader); /* no write comes to its help */
    dispatcher_finish_salvage(&reader);
    CHECK_EQUAL(ring->header->free_pos, rmp_ring_tail(ring));
    CHECK_EQUAL(reader.corrupt, 0); /* nothing was searched for: each claim's length was known */
    for (int i = 0; i < VICTIMS; i++) check_victim(ring, &logs[i], seen[logs[i].slot][1], !ended[i]);
    victim_log survivor = {.slot = take_slot(ring)};
    uint64_t before = reader.delivered;
    for (int i = 0; i < 20; i++) {
        emit_or_drop(ring, &survivor, waits);
        dispatcher_drain(&reader);
    }
    CHECK_EQUAL(survivor.returned, 20);
    CHECK_EQUAL(reader.delivered, before + 20);
    check_accounts(ring);
    dispatcher_close(&reader);
    rmp_segment_close(&segment, false);
}

/* Every triple of points; with `count` every count-th of them. Each stands where the one before has left it. */
TEST_COUNTED(three_producers_killed_at_any_three_points_lose_one_record_each_at_most, 23) {
    victim_log *logs = make_shared(VICTIMS * sizeof *logs);
    const uint64_t triples = POINTS * POINTS * POINTS;
    for (uint64_t i = 0; i < 2 * triples; i += count) {
        const uint64_t triple = i / 2;
        const char *const at[VICTIMS] = {producer_points[triple % POINTS], producer_points[triple / POINTS % POINTS],
                                         producer_points[triple / POINTS / POINTS]};
        test_iteration = i + 1;
        kill_three(at, i % 2, logs);
    }
    test_iteration = 0;
}
