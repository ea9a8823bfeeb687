#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "process.h"

#include <unistd.h>

rmp_process rmp_process_self(void) {
    uint32_t pid = (uint32_t)getpid();
    return (rmp_process){pid, rmp_process_start_time(pid), rmp_pid_namespace()};
}

enum rmp_liveness rmp_process_liveness(rmp_process process) {
    /* Asked every time: a forked child may be in another namespace than its parent was. */
    if (process.pid_namespace != rmp_pid_namespace()) return RMP_UNKNOWN;
    /* Whether it runs is asked first: if the start time read after that fits, it is this process that ran. */
    enum rmp_liveness liveness = rmp_pid_liveness(process.pid);
    if (liveness == RMP_DEAD || !process.start_time) return liveness;
    uint64_t start_time = rmp_process_start_time(process.pid);
    if (!start_time) return RMP_UNKNOWN;
    /* Ticks of one time namespace, rounded in another, differ by one; no pid comes round in so short a time. */
    uint64_t apart = start_time > process.start_time ? start_time - process.start_time : process.start_time - start_time;
    return apart <= 1 ? liveness : RMP_DEAD;
}
