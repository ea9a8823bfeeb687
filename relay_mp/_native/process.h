/* Which process is this, and does that one still live?
 *
 * A pid alone identifies nothing: it is reused, a zombie still has it, and another pid namespace has
 * its own. So a process is named by pid, start time and namespace, and asked about through a pidfd
 * whose start time is compared after it was opened. kill(pid, 0) is never asked: it takes zombies and
 * reused pids for the living.
 */
#ifndef RMP_PROCESS_H
#define RMP_PROCESS_H

#include <stdint.h>

typedef struct rmp_process {
    uint32_t pid;
    uint64_t start_time;    /* clock ticks since boot; 0: unknown here */
    uint64_t pid_namespace; /* inode of /proc/self/ns/pid; 0: unknown here */
} rmp_process;

enum rmp_liveness { RMP_ALIVE, RMP_DEAD, RMP_UNKNOWN };

rmp_process rmp_process_self(void);

/* 0 if there is no such process, or no /proc of this pid namespace. */
uint64_t rmp_process_start_time(uint32_t pid);

/* UNKNOWN where this cannot be told from here: another pid namespace, no pidfd_open. */
enum rmp_liveness rmp_process_liveness(rmp_process process);

uint32_t rmp_thread_id(void);

/* ---- fork ----
 * A number that changes whenever the memory of this process has come into being by a fork, whoever
 * forked it (uWSGI and others call fork() in C, where no Python hook runs). Reading it is one load. */
extern uint64_t *rmp_fork_page; /* wiped to 0 in a child */
extern uint64_t rmp_fork_count;

uint64_t rmp_fork_renew(void);

static inline uint64_t rmp_fork_epoch(void) {
    uint64_t *page = __atomic_load_n(&rmp_fork_page, __ATOMIC_ACQUIRE);
    uint64_t epoch = page ? __atomic_load_n(page, __ATOMIC_RELAXED) : 0;
    return epoch ? epoch : rmp_fork_renew();
}

#endif
