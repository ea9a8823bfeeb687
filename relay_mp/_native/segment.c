#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE_BYTES 4096u

static uint64_t round_up(uint64_t bytes) { return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES; }

/* The one place that says where things are, from the four sizes that decide it. */
static void place(rmp_header *header, uint64_t capacity_units, uint32_t slot_count, uint64_t subscriptions_bytes,
                  uint64_t configuration_bytes) {
    header->capacity_units = capacity_units;
    header->slot_count = slot_count;
    header->subscriptions_bytes = subscriptions_bytes;
    header->subscriptions_offset = round_up(RMP_HEADER_BYTES + (uint64_t)slot_count * RMP_SLOT_BYTES);
    header->configuration_bytes = configuration_bytes;
    header->configuration_offset = round_up(header->subscriptions_offset + 2 * subscriptions_bytes);
    header->ring_offset = round_up(header->configuration_offset + 2 * configuration_bytes);
    header->segment_bytes = header->ring_offset + capacity_units * RMP_UNIT_BYTES;
}

static void view(rmp_segment *segment, const rmp_header *sizes) {
    segment->ring = (rmp_ring){
        .header = (rmp_header *)segment->base,
        .slots = segment->base + RMP_HEADER_BYTES,
        .units = segment->base + sizes->ring_offset,
        .capacity_units = sizes->capacity_units,
        .slot_count = sizes->slot_count,
        .max_payload_bytes = sizes->max_payload_bytes,
    };
}

/* What `place` may be given, and what a record's header can say. */
static bool are_sizes_sane(uint64_t units, uint32_t slot_count, uint32_t max_payload_bytes) {
    if (units < RMP_MIN_CAPACITY_UNITS || units & (units - 1) || units > UINT64_MAX / 2 / RMP_UNIT_BYTES) return false;
    if (slot_count < 2 || slot_count > RMP_MAX_SLOTS) return false;
    return rmp_units_for(max_payload_bytes) <= RMP_MAX_UNITS && rmp_units_for(max_payload_bytes) <= units / 2;
}

static int map(rmp_segment *segment, int file, uint64_t bytes) {
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (base == MAP_FAILED) return -errno;
    segment->users = malloc(sizeof *segment->users);
    if (!segment->users) {
        munmap(base, bytes);
        return -ENOMEM;
    }
    *segment->users = 1;
    segment->base = base;
    segment->bytes = bytes;
    return RMP_SEGMENT_OK;
}

static void identify(rmp_header *header, const rmp_segment_options *options) {
    rmp_process self = rmp_process_self();
    header->owner_pid = self.pid;
    header->owner_start_time = self.start_time;
    header->owner_pid_namespace = self.pid_namespace;
    header->uid = (uint32_t)geteuid();
    header->layout_version = RMP_LAYOUT_VERSION;
    header->block_timeout_ns = options->block_timeout_ns;
    header->stall_timeout_ns = options->stall_timeout_ns;
    header->max_payload_bytes = options->max_payload_bytes;
    header->drop_when_full = options->drop_when_full;
    header->dispatcher_is_process = options->dispatcher_is_process;
    header->max_deliveries = options->max_deliveries;
    header->is_strict = options->is_strict;
    header->started_us = options->started_us;
    header->owner_argv_bytes = options->owner_argv ? options->owner_argv_bytes : 0;
    if (header->owner_argv_bytes)
        memcpy(header->owner_argv, options->owner_argv,
               header->owner_argv_bytes < RMP_OWNER_ARGV_BYTES ? header->owner_argv_bytes : RMP_OWNER_ARGV_BYTES);
    header->delivery_awaited = RMP_NOBODY_WAITS;
    strncpy(header->session_id, options->session_id, sizeof header->session_id - 1);
    rmp_store_relaxed(&header->session_state, RMP_OPEN);
}

/* Most producers share the creator's namespace; one that dies while it takes a slot has not said. */
static void name_namespaces(const rmp_ring *ring) {
    for (uint32_t number = 0; number < ring->slot_count; number++)
        rmp_ring_slot(ring, number)->pid_namespace = ring->header->owner_pid_namespace;
}

int rmp_segment_create(rmp_segment *segment, const char *path, const rmp_segment_options *options) {
    if (!are_sizes_sane(options->capacity_units, options->slot_count, options->max_payload_bytes) ||
        options->subscriptions_bytes > UINT32_MAX || options->configuration_bytes > UINT32_MAX)
        return RMP_SEGMENT_SIZES;
    rmp_header sizes = {.max_payload_bytes = options->max_payload_bytes};
    place(&sizes, options->capacity_units, options->slot_count, options->subscriptions_bytes,
          options->configuration_bytes);
    int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file < 0) return -errno;
    int result = rmp_file_allocate(file, sizes.segment_bytes);
    if (result == RMP_SEGMENT_OK) result = map(segment, file, sizes.segment_bytes);
    close(file);
    if (result != RMP_SEGMENT_OK) {
        unlink(path);
        return result;
    }
    view(segment, &sizes);
    rmp_header *header = segment->ring.header;
    place(header, options->capacity_units, options->slot_count, options->subscriptions_bytes,
          options->configuration_bytes);
    identify(header, options);
    name_namespaces(&segment->ring);
    rmp_ring_format(&segment->ring);
    rmp_store_release(&header->magic, RMP_MAGIC); /* pairs with the load in check: last: half a segment has none */
    return RMP_SEGMENT_OK;
}

static int check_file(int file, uint64_t *bytes) {
    struct stat status;
    if (fstat(file, &status) < 0) return -errno;
    *bytes = (uint64_t)status.st_size;
    if (status.st_uid != geteuid()) return RMP_SEGMENT_FOREIGN;
    if (!S_ISREG(status.st_mode) || (status.st_mode & 0777) != 0600) return RMP_SEGMENT_MODE;
    return *bytes < RMP_HEADER_BYTES ? RMP_SEGMENT_TRUNCATED : RMP_SEGMENT_OK;
}

static int check(const rmp_header *header, uint64_t bytes, rmp_header *sizes) {
    if (rmp_load_acquire(&header->magic) != RMP_MAGIC) return RMP_SEGMENT_MAGIC;
    if (header->layout_version != RMP_LAYOUT_VERSION) return RMP_SEGMENT_VERSION;
    /* Each read once: another process may write them between a check and a use. */
    uint64_t said_bytes = rmp_load_relaxed(&header->segment_bytes), units = rmp_load_relaxed(&header->capacity_units);
    uint64_t subscriptions_bytes = rmp_load_relaxed(&header->subscriptions_bytes);
    uint64_t configuration_bytes = rmp_load_relaxed(&header->configuration_bytes);
    uint32_t slot_count = rmp_load_relaxed(&header->slot_count);
    sizes->max_payload_bytes = rmp_load_relaxed(&header->max_payload_bytes);
    if (said_bytes != bytes) return said_bytes > bytes ? RMP_SEGMENT_TRUNCATED : RMP_SEGMENT_SIZES;
    if (!are_sizes_sane(units, slot_count, sizes->max_payload_bytes)) return RMP_SEGMENT_SIZES;
    if (units > bytes / RMP_UNIT_BYTES || subscriptions_bytes > bytes || configuration_bytes > bytes) return RMP_SEGMENT_SIZES;
    place(sizes, units, slot_count, subscriptions_bytes, configuration_bytes);
    return sizes->segment_bytes == bytes ? RMP_SEGMENT_OK : RMP_SEGMENT_SIZES;
}

int rmp_segment_attach_file(rmp_segment *segment, int file) {
    uint64_t bytes = 0;
    int result = check_file(file, &bytes);
    if (result == RMP_SEGMENT_OK) result = map(segment, file, bytes);
    if (result != RMP_SEGMENT_OK) return result;
    rmp_header sizes = {0};
    result = check((rmp_header *)segment->base, bytes, &sizes);
    if (result == RMP_SEGMENT_OK) {
        view(segment, &sizes);
    } else {
        segment->found_version = rmp_load_relaxed(&((rmp_header *)segment->base)->layout_version);
        rmp_segment_close(segment, false);
    }
    return result;
}

int rmp_segment_attach(rmp_segment *segment, const char *path) {
    int file = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (file < 0) return -errno;
    int result = rmp_segment_attach_file(segment, file);
    close(file);
    return result;
}

void rmp_segment_keep(const rmp_segment *segment) { __atomic_add_fetch(segment->users, 1, __ATOMIC_ACQ_REL); }

void rmp_segment_close(rmp_segment *segment, bool range_stays) {
    bool is_last = __atomic_sub_fetch(segment->users, 1, __ATOMIC_ACQ_REL) == 0;
    if (is_last && range_stays) { /* the count stays too: who has not said that he is inside may still say it */
        mmap(segment->base, segment->bytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    } else if (is_last) {
        munmap(segment->base, segment->bytes);
        free(segment->users);
    }
    segment->base = NULL;
    segment->users = NULL;
}

/* Where a copy of a table is, if what the header says lies within the mapping; else NULL. */
static uint8_t *table(const rmp_segment *segment, const uint64_t *offset_word, const uint64_t *bytes_word, unsigned copy) {
    uint64_t end = (uint64_t)(segment->ring.units - segment->base);
    /* Each read once, as in `check`. */
    uint64_t bytes = rmp_load_relaxed(bytes_word);
    uint64_t offset = rmp_load_relaxed(offset_word) + copy * bytes;
    return offset < RMP_HEADER_BYTES || offset > end || bytes > end - offset ? NULL : segment->base + offset;
}

uint8_t *rmp_segment_subscriptions(const rmp_segment *segment, unsigned copy) {
    const rmp_header *header = segment->ring.header;
    return table(segment, &header->subscriptions_offset, &header->subscriptions_bytes, copy);
}

uint8_t *rmp_segment_configuration(const rmp_segment *segment, unsigned copy) {
    const rmp_header *header = segment->ring.header;
    return table(segment, &header->configuration_offset, &header->configuration_bytes, copy);
}
