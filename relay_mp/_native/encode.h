/* msgpack into a buffer that grows: what an event is turned into before it claims space in the ring.
 *
 * Runs in the emitting thread, on memory private to it: no atomics, no locks, and no Python, so that the
 * same writers serve the record's envelope (core.pyx) and the payloads (encoder.pyx). Encoding is done
 * before the ring is touched, which is why the buffer may grow here and nothing may fail later.
 *
 * Every writer picks the smallest encoding of its value, as msgpack-python's Packer(use_bin_type=True)
 * does; the tests hold the two to the same bytes. The one exception is the bin 32 that wraps a payload:
 * its length is known only afterwards, and a header of fixed width is cheaper than moving the payload.
 *
 * Format: https://github.com/msgpack/msgpack/blob/master/spec.md
 */
#ifndef RMP_ENCODE_H
#define RMP_ENCODE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "copy.h"

#if defined(__GNUC__) || defined(__clang__)
#define RMP_ENCODE_LIKELY(condition) __builtin_expect(!!(condition), 1)
#else
#define RMP_ENCODE_LIKELY(condition) (condition)
#endif

enum {
    RMP_ENCODE_NO_MEMORY = -1,
    RMP_ENCODE_TOO_LONG = -2, /* more than msgpack's 32-bit lengths can say */
};

/* Zero-initialised is empty and valid. `bytes` moves when the buffer grows: keep offsets, not pointers. */
typedef struct rmp_buffer {
    uint8_t *bytes;
    size_t length;
    size_t capacity;
} rmp_buffer;

/* Makes room for `extra_bytes` more. 0, or RMP_ENCODE_NO_MEMORY with the buffer as it was. */
int rmp_buffer_grow(rmp_buffer *buffer, size_t extra_bytes);

/* Frees the memory and leaves an empty, usable buffer. */
void rmp_buffer_free(rmp_buffer *buffer);

static inline int rmp_buffer_reserve(rmp_buffer *buffer, size_t extra_bytes)
{
    if (RMP_ENCODE_LIKELY(extra_bytes <= buffer->capacity - buffer->length)) {
        return 0;
    }
    return rmp_buffer_grow(buffer, extra_bytes);
}

/* Shifts, not a byte-swap intrinsic: gcc and clang make one instruction of them, on either endianness. */
static inline void rmp_store_be16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline void rmp_store_be32(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 24);
    at[1] = (uint8_t)(value >> 16);
    at[2] = (uint8_t)(value >> 8);
    at[3] = (uint8_t)value;
}

static inline void rmp_store_be64(uint8_t *at, uint64_t value)
{
    rmp_store_be32(at, (uint32_t)(value >> 32));
    rmp_store_be32(at + 4, (uint32_t)value);
}

/* The put functions write one head into room that the caller has reserved, and return its size in bytes.
 * RMP_HEAD_BYTES is the most any of them writes. */
#define RMP_HEAD_BYTES 9

static inline size_t rmp_put8(uint8_t *at, uint8_t tag, uint8_t value)
{
    at[0] = tag;
    at[1] = value;
    return 2;
}

static inline size_t rmp_put16(uint8_t *at, uint8_t tag, uint16_t value)
{
    at[0] = tag;
    rmp_store_be16(at + 1, value);
    return 3;
}

static inline size_t rmp_put32(uint8_t *at, uint8_t tag, uint32_t value)
{
    at[0] = tag;
    rmp_store_be32(at + 1, value);
    return 5;
}

static inline size_t rmp_put64(uint8_t *at, uint8_t tag, uint64_t value)
{
    at[0] = tag;
    rmp_store_be64(at + 1, value);
    return 9;
}

static inline size_t rmp_put_uint(uint8_t *at, uint64_t value)
{
    if (value < 0x80) {
        at[0] = (uint8_t)value;
        return 1;
    }
    if (value <= UINT8_MAX) {
        return rmp_put8(at, 0xcc, (uint8_t)value);
    }
    if (value <= UINT16_MAX) {
        return rmp_put16(at, 0xcd, (uint16_t)value);
    }
    if (value <= UINT32_MAX) {
        return rmp_put32(at, 0xce, (uint32_t)value);
    }
    return rmp_put64(at, 0xcf, value);
}

static inline size_t rmp_put_int(uint8_t *at, int64_t value)
{
    if (value >= 0) {
        return rmp_put_uint(at, (uint64_t)value);
    }
    if (value >= -32) {
        at[0] = (uint8_t)value;
        return 1;
    }
    if (value >= INT8_MIN) {
        return rmp_put8(at, 0xd0, (uint8_t)value);
    }
    if (value >= INT16_MIN) {
        return rmp_put16(at, 0xd1, (uint16_t)value);
    }
    if (value >= INT32_MIN) {
        return rmp_put32(at, 0xd2, (uint32_t)value);
    }
    return rmp_put64(at, 0xd3, (uint64_t)value);
}

static inline size_t rmp_put_str_header(uint8_t *at, uint32_t length_bytes)
{
    if (length_bytes < 32) {
        at[0] = (uint8_t)(0xa0 | length_bytes);
        return 1;
    }
    if (length_bytes <= UINT8_MAX) {
        return rmp_put8(at, 0xd9, (uint8_t)length_bytes);
    }
    if (length_bytes <= UINT16_MAX) {
        return rmp_put16(at, 0xda, (uint16_t)length_bytes);
    }
    return rmp_put32(at, 0xdb, length_bytes);
}

static inline size_t rmp_put_bin_header(uint8_t *at, uint32_t length_bytes)
{
    if (length_bytes <= UINT8_MAX) {
        return rmp_put8(at, 0xc4, (uint8_t)length_bytes);
    }
    if (length_bytes <= UINT16_MAX) {
        return rmp_put16(at, 0xc5, (uint16_t)length_bytes);
    }
    return rmp_put32(at, 0xc6, length_bytes);
}

static inline size_t rmp_put_container_header(uint8_t *at, uint8_t small_tag, uint8_t tag16, uint32_t count)
{
    if (count < 16) {
        at[0] = (uint8_t)(small_tag | count);
        return 1;
    }
    if (count <= UINT16_MAX) {
        return rmp_put16(at, tag16, (uint16_t)count);
    }
    return rmp_put32(at, (uint8_t)(tag16 + 1), count);
}

/* The writers: 0, or a negative RMP_ENCODE_ code with nothing written. */

static inline int rmp_write_byte(rmp_buffer *buffer, uint8_t byte)
{
    int failed = rmp_buffer_reserve(buffer, 1);
    if (failed) {
        return failed;
    }
    buffer->bytes[buffer->length++] = byte;
    return 0;
}

static inline int rmp_write_nil(rmp_buffer *buffer)
{
    return rmp_write_byte(buffer, 0xc0);
}

static inline int rmp_write_bool(rmp_buffer *buffer, int value)
{
    return rmp_write_byte(buffer, value ? 0xc3 : 0xc2);
}

static inline int rmp_write_int(rmp_buffer *buffer, int64_t value)
{
    int failed = rmp_buffer_reserve(buffer, RMP_HEAD_BYTES);
    if (failed) {
        return failed;
    }
    buffer->length += rmp_put_int(buffer->bytes + buffer->length, value);
    return 0;
}

static inline int rmp_write_uint(rmp_buffer *buffer, uint64_t value)
{
    int failed = rmp_buffer_reserve(buffer, RMP_HEAD_BYTES);
    if (failed) {
        return failed;
    }
    buffer->length += rmp_put_uint(buffer->bytes + buffer->length, value);
    return 0;
}

/* Written as it is: turning NaN and infinities into nil is the payload's rule, not msgpack's. */
static inline int rmp_write_double(rmp_buffer *buffer, double value)
{
    uint64_t bits;
    int failed = rmp_buffer_reserve(buffer, RMP_HEAD_BYTES);
    if (failed) {
        return failed;
    }
    memcpy(&bits, &value, sizeof bits);
    buffer->length += rmp_put64(buffer->bytes + buffer->length, 0xcb, bits);
    return 0;
}

static inline int rmp_write_array_header(rmp_buffer *buffer, size_t count)
{
    int failed = count > UINT32_MAX ? RMP_ENCODE_TOO_LONG : rmp_buffer_reserve(buffer, RMP_HEAD_BYTES);
    if (failed) {
        return failed;
    }
    buffer->length += rmp_put_container_header(buffer->bytes + buffer->length, 0x90, 0xdc, (uint32_t)count);
    return 0;
}

static inline int rmp_write_map_header(rmp_buffer *buffer, size_t count)
{
    int failed = count > UINT32_MAX ? RMP_ENCODE_TOO_LONG : rmp_buffer_reserve(buffer, RMP_HEAD_BYTES);
    if (failed) {
        return failed;
    }
    buffer->length += rmp_put_container_header(buffer->bytes + buffer->length, 0x80, 0xde, (uint32_t)count);
    return 0;
}

/* Bytes that are msgpack already. */
static inline int rmp_write_raw(rmp_buffer *buffer, const void *bytes, size_t length_bytes)
{
    int failed = rmp_buffer_reserve(buffer, length_bytes);
    if (failed) {
        return failed;
    }
    rmp_copy(buffer->bytes + buffer->length, bytes, length_bytes);
    buffer->length += length_bytes;
    return 0;
}

/* `bytes` must be valid UTF-8. */
static inline int rmp_write_str(rmp_buffer *buffer, const char *bytes, size_t length_bytes)
{
    int failed = length_bytes > UINT32_MAX ? RMP_ENCODE_TOO_LONG
                                           : rmp_buffer_reserve(buffer, length_bytes + RMP_HEAD_BYTES);
    uint8_t *at;
    if (failed) {
        return failed;
    }
    at = buffer->bytes + buffer->length;
    at += rmp_put_str_header(at, (uint32_t)length_bytes);
    rmp_copy(at, bytes, length_bytes);
    buffer->length = (size_t)(at - buffer->bytes) + length_bytes;
    return 0;
}

static inline int rmp_write_bin_header(rmp_buffer *buffer, size_t length_bytes)
{
    int failed = length_bytes > UINT32_MAX ? RMP_ENCODE_TOO_LONG : rmp_buffer_reserve(buffer, RMP_HEAD_BYTES);
    if (failed) {
        return failed;
    }
    buffer->length += rmp_put_bin_header(buffer->bytes + buffer->length, (uint32_t)length_bytes);
    return 0;
}

static inline int rmp_write_bin(rmp_buffer *buffer, const void *bytes, size_t length_bytes)
{
    int failed = length_bytes > UINT32_MAX ? RMP_ENCODE_TOO_LONG
                                           : rmp_buffer_reserve(buffer, length_bytes + RMP_HEAD_BYTES);
    if (failed) {
        return failed;
    }
    buffer->length += rmp_put_bin_header(buffer->bytes + buffer->length, (uint32_t)length_bytes);
    return rmp_write_raw(buffer, bytes, length_bytes);
}

static inline size_t rmp_put_uuid(uint8_t *at, const uint8_t *uuid)
{
    if (uuid == NULL) {
        at[0] = 0xc0;
        return 1;
    }
    at[0] = 0xc4;
    at[1] = 16;
    memcpy(at + 2, uuid, 16);
    return 18;
}

/* What every record begins with: an array's header, its kind, two uuids (the second may be NULL), a time. One
 * reserve for them all. */
static inline int rmp_write_envelope(rmp_buffer *buffer, uint32_t fields, int kind, const uint8_t *uuid,
                                     const uint8_t *parent, int64_t timestamp_us)
{
    int failed = rmp_buffer_reserve(buffer, 3 * RMP_HEAD_BYTES + 2 * 18);
    uint8_t *at;
    if (failed) {
        return failed;
    }
    at = buffer->bytes + buffer->length;
    at += rmp_put_container_header(at, 0x90, 0xdc, fields);
    at += rmp_put_int(at, kind);
    at += rmp_put_uuid(at, uuid);
    at += rmp_put_uuid(at, parent);
    at += rmp_put_int(at, timestamp_us);
    buffer->length = (size_t)(at - buffer->bytes);
    return 0;
}

#define RMP_BIN32_HEADER_BYTES 5

/* Opens a bin whose length is not known yet; `*offset` goes to rmp_bin32_end. Nests. */
static inline int rmp_bin32_begin(rmp_buffer *buffer, size_t *offset)
{
    int failed = rmp_buffer_reserve(buffer, RMP_BIN32_HEADER_BYTES);
    if (failed) {
        return failed;
    }
    *offset = buffer->length;
    buffer->length += rmp_put32(buffer->bytes + buffer->length, 0xc6, 0);
    return 0;
}

static inline int rmp_bin32_end(rmp_buffer *buffer, size_t offset)
{
    size_t length_bytes = buffer->length - offset - RMP_BIN32_HEADER_BYTES;
    if (length_bytes > UINT32_MAX) {
        return RMP_ENCODE_TOO_LONG;
    }
    rmp_store_be32(buffer->bytes + offset + 1, (uint32_t)length_bytes);
    return 0;
}

#endif
