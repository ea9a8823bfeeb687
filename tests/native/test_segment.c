/* The segment's file: made whole or not at all, and attached only if it is what it says. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring_test.h"

static char directory[64], path[96];

static void clean_up(void) {
    unlink(path);
    rmdir(directory);
}

static const rmp_segment_options sizes = {.session_id = "0123456789abcdef0123456789abcdef", .capacity_units = 256,
                                          .subscriptions_bytes = 5000, .configuration_bytes = 6000, .block_timeout_ns = 7, .stall_timeout_ns = 8,
                                          .slot_count = 11, .max_payload_bytes = 1000, .drop_when_full = 1,
                                          .dispatcher_is_process = 1};

static void make_place(void) {
    strcpy(directory, "/dev/shm/rmp_segment_test.XXXXXX");
    CHECK(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/segment", directory);
}

static void make_file(rmp_segment *segment) {
    make_place();
    if (rmp_segment_create(segment, path, &sizes) != RMP_SEGMENT_OK) {
        clean_up();
        CHECK(!"rmp_segment_create");
    }
}

/* Cleans up before it fails. */
static void expect_attach(int expected) {
    rmp_segment other = {0};
    int result = rmp_segment_attach(&other, path);
    if (result == RMP_SEGMENT_OK) rmp_segment_close(&other, false);
    if (result != expected) clean_up();
    CHECK_EQUAL(result, expected);
}

TEST(what_is_created_can_be_attached) {
    rmp_segment segment, other;
    make_file(&segment);
    int result = rmp_segment_attach(&other, path);
    struct stat status;
    stat(path, &status);
    clean_up();
    CHECK_EQUAL(result, RMP_SEGMENT_OK);
    CHECK_EQUAL(status.st_mode & 07777, 0600);
    CHECK_EQUAL(status.st_size, segment.bytes);
    CHECK(status.st_blocks * 512 >= status.st_size); /* preallocated: never SIGBUS */
    const rmp_header *header = other.ring.header;
    CHECK_EQUAL(other.ring.capacity_units, 256);
    CHECK_EQUAL(other.ring.slot_count, 11);
    CHECK_EQUAL(other.ring.max_payload_bytes, 1000);
    CHECK(strcmp(header->session_id, sizes.session_id) == 0);
    CHECK(header->block_timeout_ns == 7 && header->stall_timeout_ns == 8 && header->drop_when_full && header->dispatcher_is_process);
    CHECK_EQUAL(header->owner_pid, getpid());
    CHECK_EQUAL(header->session_state, RMP_OPEN);
    CHECK(rmp_segment_subscriptions(&other, 0) && rmp_segment_subscriptions(&other, 1));
    CHECK(rmp_segment_subscriptions(&other, 1) + 5000 <= rmp_segment_configuration(&other, 0));
    CHECK(rmp_segment_configuration(&other, 0) && rmp_segment_configuration(&other, 1));
    CHECK(rmp_segment_configuration(&other, 1) + 6000 <= other.ring.units);
    rmp_reader reader;
    rmp_read read;
    rmp_reader_open(&reader, &segment.ring);
    CHECK_EQUAL(rmp_ring_write(&other.ring, 1, 1, "across", 6), RMP_OK);
    rmp_reader_look(&reader, &read);
    CHECK_EQUAL(read.kind, RMP_READ_RECORD);
    rmp_segment_close(&other, false);
    rmp_segment_close(&segment, false);
}

TEST(sizes_that_no_record_could_use_are_refused) {
    make_place();
    rmp_segment_options bad[] = {sizes, sizes, sizes, sizes, sizes, sizes};
    bad[0].capacity_units = 255;
    bad[1].capacity_units = 32;
    bad[2].slot_count = 1;
    bad[3].slot_count = RMP_MAX_SLOTS + 1;
    bad[4].max_payload_bytes = 128 * 64;
    bad[5].capacity_units = 1ull << 62;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        rmp_segment segment;
        int result = rmp_segment_create(&segment, path, &bad[i]);
        bool left = access(path, F_OK) == 0;
        unlink(path);
        if (result != RMP_SEGMENT_SIZES || left) clean_up();
        CHECK_EQUAL(result, RMP_SEGMENT_SIZES);
        CHECK(!left);
    }
    clean_up();
}

TEST(a_file_that_exists_is_not_taken_over) {
    rmp_segment segment, second;
    make_file(&segment);
    int result = rmp_segment_create(&second, path, &sizes);
    bool kept = access(path, F_OK) == 0;
    clean_up();
    CHECK_EQUAL(result, -EEXIST);
    CHECK(kept);
    rmp_segment_close(&segment, false);
}

TEST(what_is_no_segment_of_ours_is_refused) {
    rmp_segment segment;
    make_file(&segment);
    char elsewhere[128];
    snprintf(elsewhere, sizeof elsewhere, "%s/moved", directory);
    expect_attach(RMP_SEGMENT_OK);
    chmod(path, 0644);
    expect_attach(RMP_SEGMENT_MODE);
    chmod(path, 0600);
    if (geteuid() == 0) {
        CHECK(chown(path, 1, 1) == 0);
        expect_attach(RMP_SEGMENT_FOREIGN);
        CHECK(chown(path, 0, 0) == 0);
    }
    CHECK(rename(path, elsewhere) == 0);
    expect_attach(-ENOENT);
    CHECK(symlink(elsewhere, path) == 0);
    expect_attach(-ELOOP);
    unlink(path);
    CHECK(mkfifo(path, 0600) == 0);
    expect_attach(RMP_SEGMENT_MODE);
    CHECK(rename(elsewhere, path) == 0);
    expect_attach(RMP_SEGMENT_OK);
    clean_up();
    rmp_segment_close(&segment, false);
}

#define REFUSED_WITH(field, value, error)          \
    do {                                           \
        __typeof__(header->field) good = header->field; \
        header->field = (value);                   \
        expect_attach(error);                      \
        header->field = good;                      \
    } while (0)

TEST(a_header_that_lies_is_refused) {
    rmp_segment segment;
    make_file(&segment);
    rmp_header *header = segment.ring.header;
    REFUSED_WITH(magic, 0, RMP_SEGMENT_MAGIC);
    REFUSED_WITH(magic, header->magic + 1, RMP_SEGMENT_MAGIC);
    REFUSED_WITH(layout_version, RMP_LAYOUT_VERSION + 1, RMP_SEGMENT_VERSION);
    REFUSED_WITH(segment_bytes, header->segment_bytes + 4096, RMP_SEGMENT_TRUNCATED);
    REFUSED_WITH(segment_bytes, header->segment_bytes - 4096, RMP_SEGMENT_SIZES);
    REFUSED_WITH(capacity_units, 0, RMP_SEGMENT_SIZES);
    REFUSED_WITH(capacity_units, 128, RMP_SEGMENT_SIZES);
    REFUSED_WITH(capacity_units, 255, RMP_SEGMENT_SIZES);
    REFUSED_WITH(capacity_units, 1ull << 63, RMP_SEGMENT_SIZES);
    REFUSED_WITH(slot_count, 0, RMP_SEGMENT_SIZES);
    REFUSED_WITH(slot_count, 1000, RMP_SEGMENT_SIZES);
    REFUSED_WITH(slot_count, UINT32_MAX, RMP_SEGMENT_SIZES);
    REFUSED_WITH(subscriptions_bytes, 50000, RMP_SEGMENT_SIZES);
    REFUSED_WITH(subscriptions_bytes, 1ull << 63, RMP_SEGMENT_SIZES);
    REFUSED_WITH(configuration_bytes, 50000, RMP_SEGMENT_SIZES);
    REFUSED_WITH(configuration_bytes, 1ull << 63, RMP_SEGMENT_SIZES);
    REFUSED_WITH(max_payload_bytes, 128 * 64, RMP_SEGMENT_SIZES);
    REFUSED_WITH(max_payload_bytes, UINT32_MAX, RMP_SEGMENT_SIZES);
    expect_attach(RMP_SEGMENT_OK);
    header->subscriptions_offset = ~0ull - 100; /* the offsets that are read again */
    CHECK(!rmp_segment_subscriptions(&segment, 0));
    header->configuration_offset = ~0ull - 100;
    CHECK(!rmp_segment_configuration(&segment, 0));
    clean_up();
    rmp_segment_close(&segment, false);
}

TEST(a_truncated_file_is_refused) {
    rmp_segment segment;
    make_file(&segment);
    uint64_t bytes = segment.bytes;
    rmp_segment_close(&segment, false);
    const uint64_t lengths[] = {bytes - 1, bytes - 4096, 4096, 4095, 100, 0};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        CHECK(truncate(path, (off_t)lengths[i]) == 0);
        expect_attach(RMP_SEGMENT_TRUNCATED);
    }
    clean_up();
}

TEST(a_segment_closed_under_one_that_has_not_said_that_it_is_inside_reads_as_closed) {
    rmp_segment segment = make_segment(64, 4, 1000);
    rmp_segment used = segment;
    uint64_t position;
    CHECK_EQUAL(rmp_ring_claim(&used.ring, 1, 1, &position), RMP_OK);
    rmp_segment_close(&segment, true);
    CHECK_EQUAL(used.ring.header->session_state, RMP_CLOSED);
    CHECK_EQUAL(rmp_ring_commit(&used.ring, 1, position, 1, "x", 1, rmp_crc32c(0, "x", 1)), RMP_OVERTAKEN);
    munmap(used.base, used.bytes);
    free(used.users);
}

TEST(a_segment_that_is_kept_outlives_its_close_and_goes_with_the_last) {
    rmp_segment segment = make_segment(64, 4, 1000);
    rmp_segment first = segment, second = segment;
    uint64_t position;
    rmp_segment_keep(&first);
    rmp_segment_keep(&second);
    CHECK_EQUAL(rmp_ring_claim(&first.ring, 1, 1, &position), RMP_OK);
    rmp_segment_close(&segment, false);
    CHECK_EQUAL(first.ring.header->session_state, RMP_OPEN);
    CHECK_EQUAL(rmp_ring_commit(&first.ring, 1, position, 1, "x", 1, rmp_crc32c(0, "x", 1)), RMP_OK);
    uint8_t *base = first.base;
    rmp_segment_close(&first, false);
    unsigned char resident;
    CHECK_EQUAL(mincore(base, 4096, &resident), 0);
    rmp_segment_close(&second, false);
    CHECK_EQUAL(mincore(base, 4096, &resident), -1); /* nothing is mapped there */
}

static int fill_small_file_system(void) {
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) return 77;
    if (mount("none", directory, "tmpfs", 0, "size=256k") != 0) return 77;
    rmp_segment segment;
    rmp_segment_options large = sizes;
    large.capacity_units = 8192;
    int result = rmp_segment_create(&segment, path, &large);
    bool left = access(path, F_OK) == 0;
    CHECK_EQUAL(result, -ENOSPC);
    CHECK(!left);
    CHECK_EQUAL(rmp_segment_create(&segment, path, &sizes), RMP_SEGMENT_OK); /* the space was given back */
    return 0;
}

TEST(a_full_file_system_is_an_error_and_leaves_no_file) {
    make_place();
    pid_t child = fork_child();
    if (!child) _exit(fill_small_file_system());
    int status = wait_child(child);
    clean_up();
    CHECK(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) puts("    skipped: no right to mount a small tmpfs");
    else CHECK_EQUAL(WEXITSTATUS(status), 0);
}
