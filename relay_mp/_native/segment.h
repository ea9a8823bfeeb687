/* A session's file in shared memory: made, checked, mapped, given up.
 *
 * Opened natively, outside multiprocessing.resource_tracker, which unlinks segments that others still
 * use (CPython gh-82300). Preallocated: a full file system is an error here, never a SIGBUS later.
 * Only the owner keeps a descriptor, see segments.pyx. Nothing that the file says is believed before it has been checked against
 * what the file system says.
 */
#ifndef RMP_SEGMENT_H
#define RMP_SEGMENT_H

#include "process.h"
#include "ring.h"

typedef struct rmp_segment {
    uint8_t *base;
    uint64_t bytes;
    uint32_t *users; /* how many of this process need the mapping: who has opened it, and each stretch that is inside it */
    rmp_ring ring;
    uint32_t found_version; /* of the layout, where that is why attaching was refused */
} rmp_segment;

typedef struct rmp_segment_options {
    const char *session_id; /* at most 35 characters */
    uint64_t capacity_units; /* a power of two, at least RMP_MIN_CAPACITY_UNITS */
    uint64_t subscriptions_bytes;
    uint64_t configuration_bytes;
    uint64_t block_timeout_ns;
    uint64_t stall_timeout_ns;
    uint32_t slot_count;
    uint32_t max_payload_bytes;
    uint32_t drop_when_full;
    uint32_t dispatcher_is_process;
    uint32_t max_deliveries;
    uint32_t is_strict;
    uint64_t started_us;
    uint32_t owner_argv_bytes;
    const char *owner_argv; /* NULL: it is not told */
} rmp_segment_options;

enum rmp_segment_error {
    RMP_SEGMENT_OK = 0, /* a negative result is -errno of the system call that failed */
    RMP_SEGMENT_FOREIGN = 1,
    RMP_SEGMENT_MODE = 2,
    RMP_SEGMENT_TRUNCATED = 3,
    RMP_SEGMENT_MAGIC = 4,
    RMP_SEGMENT_VERSION = 5,
    RMP_SEGMENT_SIZES = 6,
};

int rmp_segment_create(rmp_segment *segment, const char *path, const rmp_segment_options *options);

int rmp_segment_attach(rmp_segment *segment, const char *path);

/* The same by an open descriptor, which stays the caller's: the file may have lost its name. */
int rmp_segment_attach_file(rmp_segment *segment, int file);

/* One more needs the mapping, until it says rmp_segment_close of a copy of `segment`. The caller knows that it is there. */
void rmp_segment_keep(const rmp_segment *segment);

/* One less needs the mapping; with the last one the shared memory is given back. `range_stays`: somebody who has not said
 * so may still be inside; the address range then stays, backed by private zeros, in which every session reads as closed. */
void rmp_segment_close(rmp_segment *segment, bool range_stays);

uint8_t *rmp_segment_subscriptions(const rmp_segment *segment, unsigned copy);
uint8_t *rmp_segment_configuration(const rmp_segment *segment, unsigned copy);

#endif
