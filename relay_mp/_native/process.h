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

#endif
