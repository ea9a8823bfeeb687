/* Numbers, uuids and JSON's texts, written into room that is there or into a buffer that grows.
 *
 * Runs where the dispatcher runs, once or more for every event that becomes a line of JSON. No Python. Two digits, decimal
 * or hexadecimal, come from a table at a time; texts are looked at and copied eight bytes at a time.
 */
#ifndef RMP_TEXT_H
#define RMP_TEXT_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "encode.h"

/* "00" to "99", and "00" to "ff" */
#define RMP_TEN(first) first "0" first "1" first "2" first "3" first "4" first "5" first "6" first "7" first "8" first "9"
#define RMP_SIXTEEN(first) RMP_TEN(first) first "a" first "b" first "c" first "d" first "e" first "f"
static const char rmp_decimal_pairs[] =
    RMP_TEN("0") RMP_TEN("1") RMP_TEN("2") RMP_TEN("3") RMP_TEN("4")
    RMP_TEN("5") RMP_TEN("6") RMP_TEN("7") RMP_TEN("8") RMP_TEN("9");
static const char rmp_hexadecimal_pairs[] =
    RMP_SIXTEEN("0") RMP_SIXTEEN("1") RMP_SIXTEEN("2") RMP_SIXTEEN("3")
    RMP_SIXTEEN("4") RMP_SIXTEEN("5") RMP_SIXTEEN("6") RMP_SIXTEEN("7")
    RMP_SIXTEEN("8") RMP_SIXTEEN("9") RMP_SIXTEEN("a") RMP_SIXTEEN("b")
    RMP_SIXTEEN("c") RMP_SIXTEEN("d") RMP_SIXTEEN("e") RMP_SIXTEEN("f");

#define RMP_UUID_CHARACTERS 36
#define RMP_MOST_DIGITS 20 /* of 64 bits */
#define RMP_SHORT_DOUBLE_CHARACTERS 24 /* more than a sign, 15 digits, a point and four zeros */

/* Appends a literal, whose length the compiler knows only where it is written. 0, or a negative RMP_ENCODE_ code. */
__attribute__((always_inline)) static inline int rmp_write_literal(rmp_buffer *out, const char *text) {
    size_t length = strlen(text);
    if (rmp_buffer_reserve(out, length)) return RMP_ENCODE_NO_MEMORY;
    memcpy(out->bytes + out->length, text, length);
    out->length += length;
    return 0;
}

/* The usual form, lower case: RMP_UUID_CHARACTERS. */
static inline void rmp_print_uuid(uint8_t *at, const uint8_t *uuid) {
    static const uint8_t places[16] = {0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34};
    for (int i = 0; i < 16; i++) memcpy(at + places[i], rmp_hexadecimal_pairs + 2 * uuid[i], 2);
    at[8] = at[13] = at[18] = at[23] = '-';
}

/* Returns how many digits it has written: at most RMP_MOST_DIGITS. */
static inline size_t rmp_print_decimal(uint8_t *at, uint64_t value) {
    uint8_t digits[RMP_MOST_DIGITS];
    size_t first = RMP_MOST_DIGITS;
    for (; value >= 100; value /= 100) memcpy(digits + (first -= 2), rmp_decimal_pairs + 2 * (value % 100), 2);
    if (value >= 10) memcpy(digits + (first -= 2), rmp_decimal_pairs + 2 * value, 2);
    else digits[--first] = (uint8_t)('0' + value);
    memcpy(at, digits + first, RMP_MOST_DIGITS - first);
    return RMP_MOST_DIGITS - first;
}

/* The value's last `count` digits, with leading zeros; `count` is even. */
static inline void rmp_print_padded(uint8_t *at, uint32_t value, int count) {
    for (int i = count; i; value /= 100) memcpy(at + (i -= 2), rmp_decimal_pairs + 2 * (value % 100), 2);
}

/* The digits of `value` are decimal / 10^places, without zeros at their end; 0 < value. Returns whether there are such
 * of at most 15 digits, for values that Python's repr() writes without an exponent; where it is in doubt, they are not.
 *
 * Why these digits are the shortest that read back as `value`, which is what repr() writes: both the decimal, below
 * 2^53, and the power of ten, at most 10^22, are floats without an error, so that their quotient is the float nearest
 * to decimal / 10^places, and that is `value`: the digits read back as it. No two decimals of at most 15 digits read
 * back as the same float, since floats are closer to each other than such decimals are (DBL_DIG); so no other that
 * short does, and of these digits those at the end that are 0 are left out. */
static inline int rmp_short_decimal(double value, uint64_t *decimal, int *places) {
    static const int64_t limit = 1000000000000000; /* 10^15 */
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19};
    if (!(value >= 1e-4 && value < 1e15)) return 0;
    uint64_t bits;
    memcpy(&bits, &value, 8);
    /* Times 10^at it has 15 digits. 1233 / 4096 is log 2; one too many or too few, where that is not enough, and the
     * decimal is taken with one digit less, or the quotient says that it does not fit: too few are never wrong. */
    int at = 14 - (int)((((int)(bits >> 52) - 1023) * 1233) >> 12);
    if (at <= 14 && value >= powers[15 - at]) at--;
    int64_t digits = (int64_t)(value * powers[at] + 0.5);
    if (digits >= limit && at) digits = (int64_t)(value * powers[--at] + 0.5);
    if (digits >= limit || (double)digits / powers[at] != value) return 0;
    while (at >= 4 && digits % 10000 == 0) digits /= 10000, at -= 4;
    while (at > 0 && digits % 10 == 0) digits /= 10, at--;
    *decimal = (uint64_t)digits;
    *places = at;
    return 1;
}

/* A finite float as Python's repr() writes it. Returns how many characters, at most RMP_SHORT_DOUBLE_CHARACTERS; 0: it
 * is not one of those that are written here. */
static inline size_t rmp_print_short_double(uint8_t *at, double value) {
    uint8_t digits[RMP_MOST_DIGITS];
    uint8_t *start = at;
    uint64_t decimal = 0;
    int places = 0;
    if (value != 0 && !rmp_short_decimal(fabs(value), &decimal, &places)) return 0;
    if (signbit(value)) *at++ = '-';
    int count = (int)rmp_print_decimal(digits, decimal), whole = count - places;
    if (whole <= 0) { /* 0.00ddd */
        memcpy(at, "0.0000", 6);
        at += 2 - whole;
        memcpy(at, digits, (size_t)count);
        return (size_t)(at + count - start);
    }
    memcpy(at, digits, (size_t)whole);
    at += whole;
    *at++ = '.';
    if (places) memcpy(at, digits + whole, (size_t)places);
    else *at = '0';
    return (size_t)(at + (places ? places : 1) - start);
}

/* Whether a byte of these eight cannot stand in a JSON text as it is: below 32, '"' or '\\'. */
static inline int rmp_needs_escape(uint64_t bytes) {
    const uint64_t ones = 0x0101010101010101u, highs = 0x8080808080808080u;
    uint64_t quotes = bytes ^ ones * '"', backslashes = bytes ^ ones * '\\';
    uint64_t found = ((bytes - ones * 32) & ~bytes) | ((quotes - ones) & ~quotes) | ((backslashes - ones) & ~backslashes);
    return (found & highs) != 0;
}

/* Copies the bytes before the first that has to be escaped; returns how many. */
static inline size_t rmp_copy_plain(uint8_t *to, const uint8_t *text, size_t length) {
    size_t i = 0;
    uint64_t eight;
    for (; length - i >= 8; i += 8) {
        memcpy(&eight, text + i, 8);
        if (rmp_needs_escape(eight)) break;
        memcpy(to + i, &eight, 8);
    }
    for (; i < length && text[i] >= 32 && text[i] != '"' && text[i] != '\\'; i++) to[i] = text[i];
    return i;
}

#define RMP_ESCAPE_CHARACTERS 6

static inline size_t rmp_print_escape(uint8_t *at, uint8_t byte) {
    static const char letters[32] = {[8] = 'b', [9] = 't', [10] = 'n', [12] = 'f', [13] = 'r'};
    char letter = byte < 32 ? letters[byte] : (char)byte;
    at[0] = '\\';
    if (letter) {
        at[1] = (uint8_t)letter;
        return 2;
    }
    memcpy(at + 1, "u00", 3);
    memcpy(at + 4, rmp_hexadecimal_pairs + 2 * byte, 2);
    return RMP_ESCAPE_CHARACTERS;
}

/* Appends a text in JSON's quotes: ", \ and control characters are escaped, as Python's json module does. 0, or a
 * negative RMP_ENCODE_ code. */
static inline int rmp_write_json_text(rmp_buffer *out, const uint8_t *text, size_t length) {
    if (rmp_buffer_reserve(out, length + 2)) return RMP_ENCODE_NO_MEMORY;
    out->bytes[out->length++] = '"';
    for (;;) {
        size_t plain = rmp_copy_plain(out->bytes + out->length, text, length);
        out->length += plain;
        if (plain == length) break;
        if (rmp_buffer_reserve(out, length - plain + RMP_ESCAPE_CHARACTERS + 1)) return RMP_ENCODE_NO_MEMORY;
        out->length += rmp_print_escape(out->bytes + out->length, text[plain]);
        text += plain + 1;
        length -= plain + 1;
    }
    out->bytes[out->length++] = '"';
    return 0;
}

#endif
