/* Which process is alive, what a fork leaves behind, and ids that never repeat. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fork.h"
#include "ring_test.h"
#include "uuid7.h"

/* Without pidfd only the dead are known for certain, and a zombie is not among them. */
#ifdef RMP_WITHOUT_PIDFD
#define SEEN_RUNNING RMP_UNKNOWN
#define SEEN_AS_ZOMBIE RMP_UNKNOWN
#else
#define SEEN_RUNNING RMP_ALIVE
#define SEEN_AS_ZOMBIE RMP_DEAD
#endif

static rmp_process named(pid_t pid) {
    rmp_process process = rmp_process_self();
    process.pid = (uint32_t)pid;
    process.start_time = rmp_process_start_time(process.pid);
    return process;
}

TEST(this_process_is_alive) {
    rmp_process self = rmp_process_self();
    CHECK_EQUAL(self.pid, getpid());
    CHECK(self.start_time && self.pid_namespace);
    CHECK_EQUAL(rmp_process_liveness(self), SEEN_RUNNING);
    self.start_time = 0; /* not known: the pid decides */
    CHECK_EQUAL(rmp_process_liveness(self), SEEN_RUNNING);
}

TEST(a_zombie_is_dead) {
    pid_t child = fork_child();
    if (!child) {
        pause();
        _exit(0);
    }
    rmp_process process = named(child);
    CHECK_EQUAL(rmp_process_liveness(process), SEEN_RUNNING);
    kill(child, SIGKILL);
    siginfo_t info;
    CHECK(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT) == 0);
    CHECK(kill(child, 0) == 0); /* takes it for alive */
    CHECK_EQUAL(rmp_process_liveness(process), SEEN_AS_ZOMBIE);
    wait_child(child);
    CHECK_EQUAL(rmp_process_liveness(process), RMP_DEAD);
}

TEST(a_reused_pid_is_dead) {
    rmp_process earlier = rmp_process_self();
    earlier.start_time -= 2; /* one tick is rounding, see process.c */
    CHECK_EQUAL(rmp_process_liveness(earlier), RMP_DEAD);
}

/* qemu-user makes up some of /proc for the process that reads about itself. */
TEST(a_process_and_its_neighbours_read_the_same_start_time) {
    uint64_t *own = make_shared(sizeof *own);
    pid_t child = fork_child();
    if (!child) {
        rmp_store_release(own, rmp_process_self().start_time);
        pause();
        _exit(0);
    }
    while (!rmp_load_acquire(own)) sched_yield();
    CHECK_EQUAL(*own, rmp_process_start_time((uint32_t)child));
    rmp_process process = named(child);
    process.start_time = *own;
    CHECK_EQUAL(rmp_process_liveness(process), SEEN_RUNNING);
    kill(child, SIGKILL);
    wait_child(child);
}

TEST(another_namespace_cannot_be_judged) {
    rmp_process foreign = rmp_process_self();
    foreign.pid_namespace++;
    CHECK_EQUAL(rmp_process_liveness(foreign), RMP_UNKNOWN);
    foreign.pid = 0x7ffffff0;
    CHECK_EQUAL(rmp_process_liveness(foreign), RMP_UNKNOWN);
}

TEST(a_stopped_process_is_alive) {
    pid_t child = fork_child();
    if (!child) {
        raise(SIGSTOP);
        _exit(0);
    }
    wait_until_stopped(child);
    CHECK_EQUAL(rmp_process_liveness(named(child)), SEEN_RUNNING);
    kill(child, SIGCONT);
    check_exits_clean(child);
}

static void *outlive(void *released) {
    while (!rmp_load_acquire((uint32_t *)released)) sched_yield();
    _exit(0);
}

TEST(a_process_whose_first_thread_has_ended_is_alive) {
    uint32_t *released = make_shared(sizeof *released);
    pid_t child = fork_child();
    if (!child) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, outlive, released) == 0);
        syscall(SYS_exit, 0); /* this thread only */
    }
    rmp_process process = named(child);
    char path[64], state = 0;
    while (state != 'Z') { /* of the first thread */
        snprintf(path, sizeof path, "/proc/%d/task/%d/stat", (int)child, (int)child);
        FILE *file = fopen(path, "r");
        CHECK(file && fscanf(file, "%*d (%*[^)]) %c", &state) == 1);
        fclose(file);
    }
    CHECK_EQUAL(rmp_process_liveness(process), SEEN_RUNNING);
    rmp_store_release(released, 1u);
    check_exits_clean(child);
}

static pid_t raw_clone(void) { return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); }

static void check_that_forks_are_noticed(pid_t (*make_child)(void)) {
    uint64_t here = rmp_fork_epoch();
    CHECK(here != 0);
    CHECK_EQUAL(rmp_fork_epoch(), here);
    pid_t child = make_child();
    if (!child) {
        uint64_t there = rmp_fork_epoch();
        bool fresh = there && there != here && rmp_fork_epoch() == there;
        pid_t grandchild = fork();
        if (!grandchild) _exit(rmp_fork_epoch() == there || rmp_fork_epoch() == here);
        _exit(!fresh || wait_child(grandchild) != 0);
    }
    check_exits_clean(child);
    CHECK_EQUAL(rmp_fork_epoch(), here);
}

TEST(a_fork_is_noticed) { check_that_forks_are_noticed(fork_child); }

/* A page of the test's own: old kernels refuse to wipe, and qemu-user 7.2 says yes and does not. */
static bool pages_are_wiped(void) {
    uint64_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    if (!rmp_wipe_on_fork(page, 4096)) return false;
    *page = 1;
    pid_t child = raw_clone();
    if (!child) _exit(*page != 0);
    bool wiped = wait_child(child) == 0;
    munmap(page, 4096);
    return wiped;
}

TEST(a_raw_clone_is_noticed_where_pages_are_wiped) {
    if (pages_are_wiped())
        check_that_forks_are_noticed(raw_clone);
    else
        puts("left out: no page is wiped on fork here");
}

/* ---- ids ---- */

#define IDS 40000u
#define MAKERS 4

static void *make_ids(void *argument) {
    uint8_t(*ids)[16] = argument;
    for (uint32_t i = 0; i < IDS; i++) rmp_uuid7(ids[i], rmp_realtime_us());
    return NULL;
}

static int compare_ids(const void *left, const void *right) { return memcmp(left, right, 16); }

static void check_form(uint8_t (*ids)[16], uint32_t count) {
    uint64_t now = rmp_realtime_us() / 1000;
    for (uint32_t i = 0; i < count; i++) {
        CHECK_EQUAL(ids[i][6] >> 4, 7);
        CHECK_EQUAL(ids[i][8] >> 6, 2);
        uint64_t milliseconds = 0;
        for (int byte = 0; byte < 6; byte++) milliseconds = milliseconds << 8 | ids[i][byte];
        CHECK(milliseconds <= now && now - milliseconds < 60000);
    }
}

TEST(uuid7_ids_sort_within_a_thread_and_differ_everywhere) {
    const uint32_t makers = 2 * MAKERS + 1;
    uint8_t(*ids)[16] = make_shared((size_t)makers * IDS * 16);
    make_ids(ids); /* the state that forked children inherit */
    pthread_t threads[MAKERS];
    pid_t children[MAKERS];
    for (uint32_t i = 0; i < MAKERS; i++)
        if (!(children[i] = fork_child())) {
            make_ids(ids + (1 + i) * IDS);
            _exit(0);
        }
    for (uint32_t i = 0; i < MAKERS; i++)
        CHECK(pthread_create(&threads[i], NULL, make_ids, ids + (1 + MAKERS + i) * IDS) == 0);
    for (uint32_t i = 0; i < MAKERS; i++) pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < MAKERS; i++) check_exits_clean(children[i]);
    check_form(ids, makers * IDS);
    for (uint32_t maker = 0; maker < makers; maker++)
        for (uint32_t i = 1; i < IDS; i++) CHECK(compare_ids(ids[maker * IDS + i - 1], ids[maker * IDS + i]) < 0);
    qsort(ids, (size_t)makers * IDS, 16, compare_ids);
    for (uint32_t i = 1; i < makers * IDS; i++) CHECK(compare_ids(ids[i - 1], ids[i]) != 0);
}
