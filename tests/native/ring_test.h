/* The native ring's tests: what they share. One binary, a named test each:
 *
 *     ring_test [--list] [name[=count] ...]
 *
 * `count` is the number of records, cycles or flips of the tests that have one. A failed check ends the
 * process with its file and line; a forked child's ends the test through its exit status.
 */
#ifndef RMP_RING_TEST_H
#define RMP_RING_TEST_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

#include "crc32c.h"
#include "slots.h"
#include "segment.h"
#include "testpoint.h"

#if defined(__SANITIZE_THREAD__)
#define TEST_IS_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TEST_IS_TSAN 1
#endif
#endif

/* ---- the harness ---- */

typedef struct test_case {
    const char *name;
    uint64_t default_count;
    void (*run)(uint64_t count);
    struct test_case *next;
} test_case;

void test_register(test_case *test);

extern uint64_t test_iteration; /* of a random test; a failure reports it */

#define TEST_COUNTED(test_name, count_default)                                                      \
    static void run_##test_name(uint64_t count);                                                    \
    static test_case case_##test_name = {#test_name, count_default, run_##test_name, NULL};         \
    __attribute__((constructor)) static void register_##test_name(void) { test_register(&case_##test_name); } \
    static void run_##test_name(uint64_t count __attribute__((unused)))
#define TEST(test_name) TEST_COUNTED(test_name, 0)

__attribute__((noreturn, format(printf, 3, 4))) void test_fail(const char *file, int line, const char *format, ...);

#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) test_fail(__FILE__, __LINE__, "%s", #condition);      \
    } while (0)
#define CHECK_EQUAL(left, right)                                                                         \
    do {                                                                                                 \
        long long left_ = (long long)(left), right_ = (long long)(right);                                \
        if (left_ != right_) test_fail(__FILE__, __LINE__, "%s == %s: %lld, %lld", #left, #right, left_, right_); \
    } while (0)

/* ---- memory and processes ---- */

/* In shared memory without a name: forked children have it too. */
rmp_segment make_segment(uint64_t capacity_units, uint32_t slot_count, uint32_t max_payload_bytes);

/* Zeroed, shared with forked children. */
void *make_shared(size_t bytes);

/* fork(), but the child dies with its parent. Flushes first. */
pid_t fork_child(void);
int wait_child(pid_t child); /* its wait status */
void wait_until_stopped(pid_t child);
void check_exits_clean(pid_t child);
bool was_killed(int status);

/* SIGKILL or SIGSTOP of this very process at the `occurrence`th pass (from 1) of the point `name`. */
void signal_at(const char *name, unsigned occurrence, int signal_number);

/* ---- records ---- */

/* Event `number` (from 1) of a producer: its length, and bytes that depend on all of it. */
#define TEST_PAYLOAD_MIN 16u
#define TEST_PAYLOAD_MAX 4096u
uint32_t fill_payload(uint8_t *payload, uint32_t slot, uint64_t number, uint32_t length_limit);
uint32_t payload_length(uint32_t slot, uint64_t number, uint32_t length_limit);
/* The event's number. Fails unless each byte is as fill_payload made it. */
uint64_t check_payload(const uint8_t *payload, uint32_t bytes, uint32_t slot, uint32_t length_limit);

/* Emits as a producer does: count, claim, wait while full. */
enum rmp_result emit(const rmp_ring *ring, uint32_t slot, uint64_t number, uint32_t length_limit);

/* A slot of the calling process. */
uint32_t take_slot(const rmp_ring *ring);

/* What the next event of the slot is numbered: a late starter can get the slot of one that has ended. */
uint64_t next_number(const rmp_ring *ring, uint32_t slot);

/* ---- a small dispatcher, as the real one orders its steps ---- */

typedef struct dispatcher {
    rmp_reader reader;
    uint8_t *payload;
    uint64_t delivered, redelivered, missing, corrupt, aborted;
    void (*deliver)(struct dispatcher *self, const rmp_read *read, bool redelivered);
    void (*tell)(struct dispatcher *self, const rmp_mark *mark, bool redelivered);
    void *context;
} dispatcher;

void dispatcher_open(dispatcher *self, const rmp_ring *ring);
void dispatcher_close(dispatcher *self);

/* The mark that a dispatcher died of, or with. */
void dispatcher_resume_mark(dispatcher *self);

/* One record or gap. False: nothing to do now (empty, or blocked by a living writer). */
bool dispatcher_step(dispatcher *self);

/* Steps until there is nothing to do; then releases. */
void dispatcher_drain(dispatcher *self);

/* Marks slots of dead processes, and settles those whose records have passed. */
void dispatcher_finish_salvage(dispatcher *self);

/* Every slot: emitted == delivered + lost. All processes have ended, everything is drained. */
void check_accounts(const rmp_ring *ring);

uint64_t lost_of_slot(const rmp_slot *slot);

#endif
