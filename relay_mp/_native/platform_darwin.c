/* platform.h for macOS: wait on address, kqueue, proc_pidinfo.
 *
 * NEVER RUN. It is compiled for both processors by every run of tests/platforms/macos_compile.py, from the system's
 * documentation and headers; the project has had no machine to run it on. What a first run has to look at is in
 * docs/explanation/platforms.md.
 */
#ifdef __APPLE__

#include "platform.h"

#include <dlfcn.h>
#include <errno.h>
#include <libproc.h>
#include <pthread.h>
#include <string.h>
#include <sys/event.h>
#include <sys/sysctl.h>
#include <unistd.h>

/* ---- waiting for a word of shared memory ----
 * os_sync_wait_on_address came with macOS 14.4, and its header with the kit for it: so its functions are looked up
 * when the library is loaded, and declared here (after os/os_sync_wait_on_address.h and os/clock.h). */

#define ADDRESS_IS_SHARED 1u      /* OS_SYNC_WAIT_ON_ADDRESS_SHARED, OS_SYNC_WAKE_BY_ADDRESS_SHARED */
#define CLOCK_OF_THE_TIMEOUT 32u  /* OS_CLOCK_MACH_ABSOLUTE_TIME */

static int (*wait_on_address)(void *address, uint64_t value, size_t size, uint32_t flags, uint32_t clock,
                              uint64_t timeout_ns);
static int (*wake_all_by_address)(void *address, size_t size, uint32_t flags);

__attribute__((constructor)) static void look_up(void) {
    void *wait = dlsym(RTLD_DEFAULT, "os_sync_wait_on_address_with_timeout");
    void *wake = dlsym(RTLD_DEFAULT, "os_sync_wake_by_address_all");
    if (!wait || !wake) return;
    memcpy(&wait_on_address, &wait, sizeof wait); /* C has no conversion of an object pointer to a function's */
    memcpy(&wake_all_by_address, &wake, sizeof wake);
}

bool rmp_word_wait(uint32_t *word, uint32_t value, uint64_t timeout_ns) {
    if (!wait_on_address) return false;
    if (timeout_ns) /* 0 is refused as invalid */
        wait_on_address(word, value, sizeof *word, ADDRESS_IS_SHARED, CLOCK_OF_THE_TIMEOUT, timeout_ns);
    return true;
}

void rmp_word_wake(uint32_t *word) {
    if (wake_all_by_address) wake_all_by_address(word, sizeof *word, ADDRESS_IS_SHARED);
}

/* ---- processes and threads ---- */

/* A kqueue that is told of the process's end: there is none of a zombie. */
enum rmp_liveness rmp_pid_liveness(uint32_t pid) {
    int queue = kqueue();
    if (queue < 0) return RMP_UNKNOWN;
    struct kevent change, event;
    const struct timespec at_once = {0, 0};
    EV_SET(&change, pid, EVFILT_PROC, EV_ADD | EV_ONESHOT, NOTE_EXIT, 0, NULL);
    int found = kevent(queue, &change, 1, &event, 1, &at_once);
    int error = found < 0 ? errno : found > 0 && event.flags & EV_ERROR ? (int)event.data : 0;
    close(queue);
    if (error) return error == ESRCH ? RMP_DEAD : RMP_UNKNOWN;
    return found > 0 ? RMP_DEAD : RMP_ALIVE;
}

/* In hundredths of a second since the epoch: as fine as Linux's, and short enough for a session's id. */
uint64_t rmp_process_start_time(uint32_t pid) {
    struct proc_bsdinfo info;
    int bytes = proc_pidinfo((int)pid, PROC_PIDTBSDINFO, 0, &info, sizeof info);
    return bytes == (int)sizeof info ? info.pbi_start_tvsec * 100u + info.pbi_start_tvusec / 10000u : 0;
}

uint64_t rmp_pid_namespace(void) { return 0; }

uint32_t rmp_thread_id(void) {
    uint64_t id = 0;
    pthread_threadid_np(NULL, &id);
    return (uint32_t)id;
}

bool rmp_stack_bounds(uintptr_t *low, uintptr_t *high) {
    *high = (uintptr_t)pthread_get_stackaddr_np(pthread_self());
    *low = *high - pthread_get_stacksize_np(pthread_self());
    return true;
}

bool rmp_wipe_on_fork(void *page, size_t bytes) {
    (void)page, (void)bytes;
    return false;
}

/* ---- the machine ---- */

bool rmp_boot_id(char *id, size_t room) {
    size_t bytes = room;
    if (sysctlbyname("kern.bootsessionuuid", id, &bytes, NULL, 0) < 0 || !bytes) return false;
    id[bytes - 1] = 0;
    return true;
}

/* There is no posix_fallocate: a full file system shows later. */
int rmp_file_allocate(int file, uint64_t bytes) { return ftruncate(file, (off_t)bytes) < 0 ? -errno : 0; }

#else
typedef int rmp_platform_darwin_is_empty; /* C wants something in each file */
#endif
