# Numbers, uuids and times as text, and whether a text is UTF-8. What fails has no memory.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from relay_mp._native.decode cimport rmp_is_ascii
from relay_mp._native.encode cimport RMP_ENCODE_NO_MEMORY, rmp_buffer, rmp_buffer_reserve, rmp_write_raw
from relay_mp._native.python cimport PyUnicode_DecodeUTF8
from relay_mp._native.text cimport (
    RMP_MOST_DIGITS,
    RMP_UUID_CHARACTERS,
    rmp_print_decimal,
    rmp_print_padded,
    rmp_print_uuid,
    rmp_write_literal,
)


cdef inline int write_number(rmp_buffer* out, uint64_t magnitude, bint negative) noexcept nogil:
    if rmp_buffer_reserve(out, RMP_MOST_DIGITS + 1):
        return RMP_ENCODE_NO_MEMORY
    if negative:
        out.bytes[out.length] = 45
        out.length += 1
    out.length += rmp_print_decimal(out.bytes + out.length, magnitude)
    return 0


cdef inline int write_uuid(rmp_buffer* out, const uint8_t* uuid) noexcept nogil:
    if rmp_buffer_reserve(out, RMP_UUID_CHARACTERS):
        return RMP_ENCODE_NO_MEMORY
    rmp_print_uuid(out.bytes + out.length, uuid)
    out.length += RMP_UUID_CHARACTERS
    return 0


cdef struct Moment:
    int64_t second  # since 1970
    uint32_t fraction_us


cdef inline Moment moment_of(uint64_t timestamp_us, bint negative) noexcept nogil:
    """Of microseconds since 1970; if negative, in two's complement."""
    cdef Moment moment
    cdef uint64_t before
    if not negative:
        moment.second, moment.fraction_us = <int64_t>(timestamp_us // 1000000), <uint32_t>(timestamp_us % 1000000)
        return moment
    before = 0 - timestamp_us
    moment.second = -<int64_t>((before + 999999) // 1000000)
    moment.fraction_us = <uint32_t>((1000000 - before % 1000000) % 1000000)
    return moment


cdef enum:
    SECOND_CHARACTERS = 40  # more than a sign, a year of 64 bits, month, day and time take

cdef struct Second:
    # The text of a second: what comes next is mostly in the same.
    int64_t second
    size_t length  # 0: none yet
    uint8_t text[SECOND_CHARACTERS]


cdef inline size_t _put_year(uint8_t* at, int64_t year) noexcept nogil:
    """Beyond four digits with its sign, as ISO 8601's expanded years and the peer do."""
    cdef uint64_t magnitude = <uint64_t>(year if year >= 0 else -year)
    cdef size_t signs = 0 if 0 <= year <= 9999 else 1
    at[0] = 45 if year < 0 else 43
    if magnitude > 9999:
        return signs + rmp_print_decimal(at + signs, magnitude)
    rmp_print_padded(at + signs, <uint32_t>magnitude, 4)
    return signs + 4


cdef inline void _put_second(Second* written, int64_t since_1970) noexcept nogil:
    """RFC 3339 in UTC up to the seconds, in the proleptic Gregorian calendar.

    Source: Howard Hinnant, chrono-Compatible Low-Level Date Algorithms, `civil_from_days`; counted from 4000 eras of
    400 years before the year 0, further back than a record's 64 bits of microseconds reach: no number is negative.
    """
    cdef uint64_t second = <uint64_t>(since_1970 + (719468 + 4000 * 146097) * <int64_t>86400)
    cdef uint64_t days = second // 86400
    cdef uint32_t second_of_day = <uint32_t>(second % 86400)
    cdef uint64_t era = days // 146097, day_of_era = days % 146097
    cdef uint64_t year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    cdef uint64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    cdef uint64_t shifted_month = (5 * day_of_year + 2) // 153
    cdef uint64_t month = shifted_month + 3 if shifted_month < 10 else shifted_month - 9
    cdef size_t year = _put_year(written.text, <int64_t>(year_of_era + era * 400 + (month <= 2)) - 4000 * 400)
    cdef uint8_t* at = written.text + year
    memcpy(at, b"-mm-ddThh:mm:ss", 15)
    rmp_print_padded(at + 1, <uint32_t>month, 2)
    rmp_print_padded(at + 4, <uint32_t>(day_of_year - (153 * shifted_month + 2) // 5 + 1), 2)
    rmp_print_padded(at + 7, second_of_day // 3600, 2)
    rmp_print_padded(at + 10, second_of_day // 60 % 60, 2)
    rmp_print_padded(at + 13, second_of_day % 60, 2)
    written.second, written.length = since_1970, year + 15


cdef inline int write_time(rmp_buffer* out, Moment moment, Second* newest) noexcept nogil:
    """RFC 3339 in UTC, with 0, 3 or 6 digits of fraction. `newest` is the second that was written last."""
    cdef uint8_t fraction[8]
    if newest.length == 0 or newest.second != moment.second:
        _put_second(newest, moment.second)
    if rmp_write_raw(out, newest.text, newest.length):
        return RMP_ENCODE_NO_MEMORY
    if moment.fraction_us:
        fraction[1] = 46
        rmp_print_padded(fraction + 2, moment.fraction_us, 6)
        if rmp_write_raw(out, fraction + 1, 7 if moment.fraction_us % 1000 else 4):
            return RMP_ENCODE_NO_MEMORY
    return rmp_write_literal(out, b"+00:00")


cdef inline int check_text(const uint8_t* text, uint64_t length) except -1:
    """Whether it is not UTF-8."""
    if not rmp_is_ascii(text, length):
        try:
            PyUnicode_DecodeUTF8(<const char*>text, <Py_ssize_t>length, NULL)
        except UnicodeDecodeError:
            return 1
    return 0
