/* msgpack, read: one value's head at a time, from bytes that nobody vouches for.
 *
 * Runs where the dispatcher runs, on a private copy of a record. No memory, no recursion, no Python: what is made of a
 * value is its reader's business, and how deep it goes. The counterpart of encode.h, for more than that writes: all
 * of msgpack but extensions and floats of 32 bits, which no record has.
 *
 * Format: https://github.com/msgpack/msgpack/blob/master/spec.md
 */
#ifndef RMP_DECODE_H
#define RMP_DECODE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define RMP_DECODE_UNKNOWN (-1) /* the bytes end too early, or are of none of these kinds */

/* What a value is, by the largest of its forms. */
enum rmp_kind {
    RMP_KIND_NIL = 0xc0,
    RMP_KIND_FALSE = 0xc2,
    RMP_KIND_TRUE = 0xc3,
    RMP_KIND_BIN = 0xc6,
    RMP_KIND_DOUBLE = 0xcb,
    RMP_KIND_UINT = 0xcf,
    RMP_KIND_INT = 0xd3,
    RMP_KIND_TEXT = 0xdb,
    RMP_KIND_LIST = 0xdd,
    RMP_KIND_MAP = 0xdf,
};

typedef struct rmp_cursor {
    const uint8_t *at, *end;
} rmp_cursor;

/* By the first byte: the kind (0: unknown), how many bytes of a number follow, and which bits are the number if none do. */
typedef struct rmp_form {
    uint8_t kind, width, mask;
} rmp_form;

static const rmp_form rmp_forms[256] = {
    [0x00 ... 0x7f] = {RMP_KIND_UINT, 0, 0x7f},
    [0x80 ... 0x8f] = {RMP_KIND_MAP, 0, 0x0f},
    [0x90 ... 0x9f] = {RMP_KIND_LIST, 0, 0x0f},
    [0xa0 ... 0xbf] = {RMP_KIND_TEXT, 0, 0x1f},
    [0xc0] = {RMP_KIND_NIL, 0, 0},
    [0xc2] = {RMP_KIND_FALSE, 0, 0},
    [0xc3] = {RMP_KIND_TRUE, 0, 0},
    [0xc4] = {RMP_KIND_BIN, 1, 0},
    [0xc5] = {RMP_KIND_BIN, 2, 0},
    [0xc6] = {RMP_KIND_BIN, 4, 0},
    [0xcb] = {RMP_KIND_DOUBLE, 8, 0},
    [0xcc] = {RMP_KIND_UINT, 1, 0},
    [0xcd] = {RMP_KIND_UINT, 2, 0},
    [0xce] = {RMP_KIND_UINT, 4, 0},
    [0xcf] = {RMP_KIND_UINT, 8, 0},
    [0xd0] = {RMP_KIND_INT, 1, 0},
    [0xd1] = {RMP_KIND_INT, 2, 0},
    [0xd2] = {RMP_KIND_INT, 4, 0},
    [0xd3] = {RMP_KIND_INT, 8, 0},
    [0xd9] = {RMP_KIND_TEXT, 1, 0},
    [0xda] = {RMP_KIND_TEXT, 2, 0},
    [0xdb] = {RMP_KIND_TEXT, 4, 0},
    [0xdc] = {RMP_KIND_LIST, 2, 0},
    [0xdd] = {RMP_KIND_LIST, 4, 0},
    [0xde] = {RMP_KIND_MAP, 2, 0},
    [0xdf] = {RMP_KIND_MAP, 4, 0},
    [0xe0 ... 0xff] = {RMP_KIND_INT, 0, 0xff},
};

/* Shifts, as in encode.h: one load and a byte swap. */
static inline uint64_t rmp_load_be16(const uint8_t *at) { return (uint64_t)at[0] << 8 | at[1]; }
static inline uint64_t rmp_load_be32(const uint8_t *at) {
    return (uint64_t)((uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3]);
}
static inline uint64_t rmp_load_be64(const uint8_t *at) { return rmp_load_be32(at) << 32 | rmp_load_be32(at + 4); }

/* A head of more than one byte. */
__attribute__((noinline, unused)) static int rmp_read_long_head(rmp_cursor *cursor, rmp_form form, uint64_t *number) {
    const uint8_t *at = cursor->at;
    if ((size_t)(cursor->end - at) <= form.width) return RMP_DECODE_UNKNOWN;
    uint64_t value;
    int bits = 8 * form.width;
    switch (form.width) {
    case 1: value = at[1]; break;
    case 2: value = rmp_load_be16(at + 1); break;
    case 4: value = rmp_load_be32(at + 1); break;
    default: value = rmp_load_be64(at + 1);
    }
    if (form.kind == RMP_KIND_INT && value >> (bits - 1) && bits < 64) value |= ~(uint64_t)0 << bits;
    *number = value;
    cursor->at = at + 1 + form.width;
    return 0;
}

/* Reads one head: what the value is, and its number: the integer (negative ones in two's complement), the float's bits,
 * the length in bytes, or how many elements or members there are. 0 or RMP_DECODE_UNKNOWN; then the cursor stays.
 * Most are one byte: those are read where they are asked for. */
static inline int rmp_read_head(rmp_cursor *cursor, uint8_t *kind, uint64_t *number) {
    if (cursor->at >= cursor->end) return RMP_DECODE_UNKNOWN;
    rmp_form form = rmp_forms[*cursor->at];
    if (!form.kind) return RMP_DECODE_UNKNOWN;
    *kind = form.kind;
    if (form.width) return rmp_read_long_head(cursor, form, number);
    uint8_t value = *cursor->at++ & form.mask;
    *number = form.kind == RMP_KIND_INT ? (uint64_t)(int64_t)(int8_t)value : value;
    return 0;
}

/* Passes `length` bytes; `*start` is the first of them. */
static inline int rmp_take(rmp_cursor *cursor, uint64_t length, const uint8_t **start) {
    if ((uint64_t)(cursor->end - cursor->at) < length) return RMP_DECODE_UNKNOWN;
    *start = cursor->at;
    cursor->at += length;
    return 0;
}

/* Passes so many values, however deep: counts what is left to pass instead of descending. */
__attribute__((noinline, unused)) static int rmp_skip_all(rmp_cursor *cursor, uint64_t left) {
    const uint8_t *start;
    uint64_t number;
    uint8_t kind;
    for (; left; left--) {
        if (rmp_read_head(cursor, &kind, &number)) return RMP_DECODE_UNKNOWN;
        if (kind == RMP_KIND_TEXT || kind == RMP_KIND_BIN) {
            if (rmp_take(cursor, number, &start)) return RMP_DECODE_UNKNOWN;
        } else if (kind == RMP_KIND_LIST) {
            left += number;
        } else if (kind == RMP_KIND_MAP) {
            left += 2 * number;
        }
    }
    return 0;
}

/* Passes one value. */
static inline int rmp_skip(rmp_cursor *cursor) {
    const uint8_t *start;
    uint64_t number;
    uint8_t kind;
    if (rmp_read_head(cursor, &kind, &number)) return RMP_DECODE_UNKNOWN;
    if (kind == RMP_KIND_TEXT || kind == RMP_KIND_BIN) return rmp_take(cursor, number, &start);
    if (kind == RMP_KIND_LIST) return rmp_skip_all(cursor, number);
    if (kind == RMP_KIND_MAP) return rmp_skip_all(cursor, 2 * number);
    return 0;
}

/* Whether all bytes are below 0x80: text that needs no look at its UTF-8. */
static inline int rmp_is_ascii(const uint8_t *bytes, size_t length) {
    uint64_t seen = 0, word;
    for (; length >= 8; bytes += 8, length -= 8) {
        memcpy(&word, bytes, 8);
        seen |= word;
    }
    for (; length; bytes++, length--) seen |= *bytes;
    return !(seen & 0x8080808080808080u);
}

#endif
