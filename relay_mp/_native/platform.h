/* What the operating system is asked for. A port to another system writes these functions, and nothing else:
 *
 *     eventcount.c, process.c, fork.c, segment.c, core.pyx  ->  platform.h  ->  platform_linux.c or platform_darwin.c
 *
 * Each function has an answer for "not on this system", and its caller has a fallback. -DRMP_WITHOUT_FUTEX,
 * _PIDFD, _WIPEONFORK, _START_TIME and _PID_NAMESPACE give that answer on Linux too, so that the fallbacks are
 * tested where the tests run (tests/platforms/fallbacks.py).
 */
#ifndef RMP_PLATFORM_H
#define RMP_PLATFORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- waiting for a word of shared memory ---- */

/* Sleeps until somebody wakes the word, or `timeout_ns` have passed; not at all if the word is not `value`. May
 * return early. False: the system has no such wait between processes. */
bool rmp_word_wait(uint32_t *word, uint32_t value, uint64_t timeout_ns);

/* Ends all such sleeps. */
void rmp_word_wake(uint32_t *word);

/* ---- processes and threads ---- */

enum rmp_liveness { RMP_ALIVE, RMP_DEAD, RMP_UNKNOWN };

/* Whether a process of this number runs: a zombie is dead. DEAD and ALIVE are certain. */
enum rmp_liveness rmp_pid_liveness(uint32_t pid);

/* Tells processes of the same number apart. In a unit of the system's own; 0: unknown. All processes read
 * the same value of the same process. */
uint64_t rmp_process_start_time(uint32_t pid);

/* In which the numbers of this process hold; 0: there is one for all, or it is unknown. */
uint64_t rmp_pid_namespace(void);

uint32_t rmp_thread_id(void);

/* From where to where the calling thread's C stack may be used. False: unknown. */
bool rmp_stack_bounds(uintptr_t *low, uintptr_t *high);

/* Makes the kernel wipe this page in a forked child. False: it cannot. */
bool rmp_wipe_on_fork(void *page, size_t bytes);

/* ---- the machine ---- */

/* Differs after each boot: at most `room` - 1 characters. False: unknown. */
bool rmp_boot_id(char *id, size_t room);

/* Gives an empty file its length, and as far as the system can, its room: 0 or -errno. Interrupted by a signal, it
 * has done nothing that the next call would not. */
int rmp_file_allocate(int file, uint64_t bytes);

#endif
