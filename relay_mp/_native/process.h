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

#include "platform.h"

typedef struct rmp_process {
    uint32_t pid;
    uint64_t start_time;    /* rmp_process_start_time; 0: unknown here */
    uint64_t pid_namespace; /* rmp_pid_namespace; 0: unknown here */
} rmp_process;

rmp_process rmp_process_self(void);

/* UNKNOWN where this cannot be told from here: another pid namespace, or no pidfd_open and the start time fits. */
enum rmp_liveness rmp_process_liveness(rmp_process process);

/* ---- fork ----
 * A number that changes whenever the memory of this process has come into being by a fork, whoever
 * forked it (uWSGI and others call fork() in C, where no Python hook runs). Reading it is one load. */
extern uint64_t *rmp_fork_page; /* 0 in a child */
extern uint64_t rmp_fork_count;

uint64_t rmp_fork_renew(void);

static inline uint64_t rmp_fork_epoch(void) {
    uint64_t *page = __atomic_load_n(&rmp_fork_page, __ATOMIC_ACQUIRE);
    uint64_t epoch = page ? __atomic_load_n(page, __ATOMIC_RELAXED) : 0;
    return epoch ? epoch : rmp_fork_renew();
}

#endif
