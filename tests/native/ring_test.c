#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "ring_test.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

unsigned long long test_backstop_ns = 50000000ull;

/* ---- the harness ---- */

uint64_t test_iteration;
static test_case *tests;

void test_register(test_case *test) {
    test->next = tests;
    tests = test;
}

void test_fail(const char *file, int line, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s:%d: check failed: ", file, line);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, test_iteration ? " (iteration %llu)\n" : "\n", (unsigned long long)test_iteration);
    fflush(NULL);
    _exit(1);
}

static void run(const test_case *test, const char *count) {
    uint64_t before = rmp_monotonic_ns();
    printf("%s ...\n", test->name);
    fflush(stdout);
    test->run(count ? strtoull(count, NULL, 10) : test->default_count);
    printf("%s ok, %.2f s\n", test->name, (double)(rmp_monotonic_ns() - before) / 1e9);
    fflush(stdout);
}

static bool run_named(char *wanted) {
    char *count = strchr(wanted, '=');
    if (count) *count++ = 0;
    for (const test_case *test = tests; test; test = test->next) {
        if (strcmp(test->name, wanted) != 0) continue;
        run(test, count);
        return true;
    }
    fprintf(stderr, "no test is called %s: see --list\n", wanted);
    return false;
}

int main(int argument_count, char **arguments) {
    if (argument_count == 2 && strcmp(arguments[1], "--list") == 0) {
        for (const test_case *test = tests; test; test = test->next) puts(test->name);
        return 0;
    }
    for (int i = 1; i < argument_count; i++)
        if (!run_named(arguments[i])) return 2;
    for (const test_case *test = tests; argument_count == 1 && test; test = test->next) run(test, NULL);
    return 0;
}

/* ---- memory and processes ---- */

rmp_segment make_segment(uint64_t capacity_units, uint32_t slot_count, uint32_t max_payload_bytes) {
    static unsigned number;
    char path[64];
    snprintf(path, sizeof path, "/dev/shm/rmp_ring_test.%d.%u", (int)getpid(), number++);
    rmp_segment segment;
    rmp_segment_options options = {.session_id = "test", .capacity_units = capacity_units,
                                   .slot_count = slot_count, .max_payload_bytes = max_payload_bytes};
    CHECK_EQUAL(rmp_segment_create(&segment, path, &options), RMP_SEGMENT_OK);
    CHECK(unlink(path) == 0);
    return segment;
}

void *make_shared(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    return memory;
}

pid_t fork_child(void) {
    fflush(NULL);
    pid_t parent = getpid(), child = fork();
    CHECK(child >= 0);
    if (child > 0) return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    return 0;
}

int wait_child(pid_t child) {
    int status;
    pid_t waited;
    do waited = waitpid(child, &status, 0);
    while (waited < 0 && errno == EINTR);
    CHECK_EQUAL(waited, child);
    return status;
}

void wait_until_stopped(pid_t child) {
    int status;
    CHECK_EQUAL(waitpid(child, &status, WUNTRACED), child);
    CHECK(WIFSTOPPED(status));
}

void check_exits_clean(pid_t child) {
    int status = wait_child(child);
    CHECK(WIFEXITED(status));
    CHECK_EQUAL(WEXITSTATUS(status), 0);
}

bool was_killed(int status) { return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL; }

static struct {
    const char *name;
    unsigned remaining;
    int signal_number;
} armed;

static void strike(const char *name) {
    if (strcmp(name, armed.name) == 0 && armed.remaining && --armed.remaining == 0) kill(getpid(), armed.signal_number);
}

void signal_at(const char *name, unsigned occurrence, int signal_number) {
    armed.name = name;
    armed.remaining = occurrence;
    armed.signal_number = signal_number;
    rmp_testpoint_hook = strike;
}

/* ---- records ---- */

static uint64_t mix(uint64_t value) {
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9ull;
    value = (value ^ value >> 27) * 0x94d049bb133111ebull;
    return value ^ value >> 31;
}

uint32_t payload_length(uint32_t slot, uint64_t number, uint32_t length_limit) {
    uint64_t random = mix(number * 65537 + slot);
    return TEST_PAYLOAD_MIN + (uint32_t)(random % (length_limit - TEST_PAYLOAD_MIN + 1));
}

uint32_t fill_payload(uint8_t *payload, uint32_t slot, uint64_t number, uint32_t length_limit) {
    uint32_t length = payload_length(slot, number, length_limit);
    uint64_t head[2] = {slot, number};
    memcpy(payload, head, sizeof head);
    for (uint32_t i = sizeof head; i < length; i++) payload[i] = (uint8_t)(number * 31 + slot * 7 + i);
    return length;
}

uint64_t check_payload(const uint8_t *payload, uint32_t bytes, uint32_t slot, uint32_t length_limit) {
    uint8_t expected[TEST_PAYLOAD_MAX];
    uint64_t head[2];
    CHECK(bytes >= sizeof head && length_limit <= sizeof expected);
    memcpy(head, payload, sizeof head);
    CHECK_EQUAL(bytes, fill_payload(expected, slot, head[1], length_limit));
    CHECK(memcmp(payload, expected, bytes) == 0);
    return head[1];
}

enum rmp_result emit(const rmp_ring *ring, uint32_t slot, uint64_t number, uint32_t length_limit) {
    uint8_t payload[TEST_PAYLOAD_MAX];
    CHECK(length_limit <= sizeof payload);
    uint32_t length = fill_payload(payload, slot, number, length_limit);
    rmp_store_relaxed(&rmp_ring_slot(ring, slot)->emitted, number);
    enum rmp_result result;
    while ((result = rmp_ring_write(ring, slot, number, payload, length)) == RMP_FULL)
        rmp_ring_wait_for_space(ring, length, UINT64_MAX);
    return result;
}

uint32_t take_slot(const rmp_ring *ring) {
    uint32_t slot = rmp_slots_take(ring, rmp_process_self(), rmp_thread_id());
    CHECK(slot != 0);
    return slot;
}

uint64_t next_number(const rmp_ring *ring, uint32_t slot) {
    return rmp_load_relaxed(&rmp_ring_slot(ring, slot)->emitted) + 1;
}

/* ---- a small dispatcher ---- */

void dispatcher_open(dispatcher *self, const rmp_ring *ring) {
    memset(self, 0, sizeof *self);
    rmp_reader_open(&self->reader, ring);
    self->payload = malloc(ring->max_payload_bytes + 1u);
    CHECK(self->payload);
}

void dispatcher_close(dispatcher *self) { free(self->payload); }

static enum rmp_liveness ask_slot(const rmp_ring *ring, uint32_t number, uint64_t state) {
    enum rmp_slot_status status = rmp_slot_status(state);
    if (status == RMP_SLOT_DEAD || status == RMP_SLOT_SETTLED) return RMP_DEAD;
    if (status != RMP_SLOT_LIVE && status != RMP_SLOT_TAKING) return RMP_UNKNOWN;
    return rmp_process_liveness(rmp_slots_owner(ring, number, state));
}

static bool give_up_blocked(dispatcher *self, const rmp_read *read) {
    rmp_slot *slot = rmp_ring_slot(&self->reader.ring, read->owner);
    uint64_t state = rmp_load_acquire(&slot->state);
    if (ask_slot(&self->reader.ring, read->owner, state) != RMP_DEAD) return false;
    rmp_slots_mark_dead(&self->reader.ring, read->owner, state);
    if (!rmp_reader_abort_dead(&self->reader, read)) return true;
    rmp_add_relaxed(&slot->lost_writer_died, 1);
    self->aborted++;
    return true;
}

static void tell_mark(dispatcher *self) {
    const rmp_ring *ring = &self->reader.ring;
    bool redelivered = rmp_mark_begin(ring) != 0;
    if (self->tell) self->tell(self, &ring->header->mark, redelivered);
    RMP_TESTPOINT("dispatcher.told");
    rmp_mark_done(ring);
}

static void mark(dispatcher *self, uint32_t slot, uint64_t count) {
    const uint8_t uuid[16] = {0};
    const rmp_ring *ring = &self->reader.ring;
    if (!count) return;
    rmp_mark_prepare(ring, slot, count, ring->header->mark.seq + 1, 0, uuid);
    tell_mark(self);
}

void dispatcher_resume_mark(dispatcher *self) {
    if (rmp_mark_times(&self->reader.ring)) tell_mark(self);
}

static void deliver(dispatcher *self, const rmp_read *read) {
    const rmp_ring *ring = &self->reader.ring;
    uint64_t missing = rmp_slots_missing(ring, read->owner, read->owner_seq);
    if (missing) mark(self, read->owner, rmp_slots_unmarked(ring, read->owner, RMP_MARK_PASSED, missing));
    self->missing += missing;
    bool redelivered = rmp_slots_pass(ring, read->owner, read->owner_seq) != 0;
    RMP_TESTPOINT("dispatcher.passed");
    if (self->deliver) self->deliver(self, read, redelivered);
    RMP_TESTPOINT("dispatcher.called");
    self->delivered++;
    self->redelivered += redelivered;
}

static void go_on(dispatcher *self, const rmp_read *read) {
    rmp_reader_advance(&self->reader, read);
    rmp_reader_delivered(&self->reader, read->next);
    if (read->next - self->reader.free_pos >= self->reader.ring.capacity_units / 8) rmp_reader_release(&self->reader);
}

bool dispatcher_step(dispatcher *self) {
    rmp_read read;
    rmp_reader_look(&self->reader, &read);
    if (read.kind == RMP_READ_EMPTY) return false;
    CHECK(read.kind != RMP_READ_BROKEN);
    if (read.kind == RMP_READ_BLOCKED) return give_up_blocked(self, &read);
    CHECK(read.next > read.position);
    if (read.kind == RMP_READ_RECORD && rmp_reader_copy(&self->reader, &read, self->payload)) deliver(self, &read);
    if (read.kind == RMP_READ_CORRUPT) self->corrupt++;
    go_on(self, &read);
    return true;
}

void dispatcher_drain(dispatcher *self) {
    while (dispatcher_step(self)) {}
    rmp_reader_release(&self->reader);
}

void dispatcher_finish_salvage(dispatcher *self) {
    const rmp_ring *ring = &self->reader.ring;
    for (uint32_t number = 1; number < ring->slot_count; number++) {
        rmp_slot *slot = rmp_ring_slot(ring, number);
        uint64_t state = rmp_load_acquire(&slot->state);
        if (ask_slot(ring, number, state) == RMP_DEAD) rmp_slots_mark_dead(ring, number, state);
        rmp_slots_settle(ring, number);
        mark(self, number, rmp_slots_unmarked(ring, number, RMP_MARK_PASSED, 0));
    }
}

uint64_t lost_of_slot(const rmp_slot *slot) {
    return slot->lost_full + slot->lost_writer_died + slot->lost_fenced + slot->lost_corrupt + slot->poison.low;
}

void check_accounts(const rmp_ring *ring) {
    for (uint32_t number = 1; number < ring->slot_count; number++) {
        const rmp_slot *slot = rmp_ring_slot(ring, number);
        if (rmp_slot_status(slot->state) == RMP_SLOT_FREE) continue;
        uint64_t delivered = slot->passed.low - slot->passed.high - slot->poison.low;
        CHECK_EQUAL(slot->emitted, delivered + lost_of_slot(slot));
    }
}
