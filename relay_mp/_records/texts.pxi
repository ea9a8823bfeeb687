# Numbers, uuids and times as text. Included textually by records.pyx.

cdef extern from "text.h" nogil:
    enum:
        RMP_UUID_CHARACTERS
        RMP_MOST_DIGITS
        RMP_SHORT_DOUBLE_CHARACTERS
    void rmp_print_uuid(uint8_t* at, const uint8_t* uuid)
    size_t rmp_print_decimal(uint8_t* at, uint64_t value)
    void rmp_print_padded(uint8_t* at, uint32_t value, int count)
    size_t rmp_print_short_double(uint8_t* at, double value)
    int _raw "rmp_write_literal"(rmp_buffer* out, const char* text)
    int rmp_write_json_text(rmp_buffer* out, const uint8_t* text, size_t length)


cdef inline int _write_number(rmp_buffer* out, uint64_t magnitude, bint negative) noexcept nogil:
    if rmp_buffer_reserve(out, RMP_MOST_DIGITS + 1):
        return UNUSUAL
    if negative:
        out.bytes[out.length] = 45
        out.length += 1
    out.length += rmp_print_decimal(out.bytes + out.length, magnitude)
    return 0


cdef int _write_uuid(rmp_buffer* out, const uint8_t* uuid) noexcept nogil:
    if rmp_buffer_reserve(out, RMP_UUID_CHARACTERS):
        return UNUSUAL
    rmp_print_uuid(out.bytes + out.length, uuid)
    out.length += RMP_UUID_CHARACTERS
    return 0


cdef struct Moment:
    int64_t second  # since 1970
    uint32_t fraction_us


cdef inline Moment _moment(uint64_t timestamp_us, bint negative) noexcept nogil:
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


cdef size_t _put_year(uint8_t* at, int64_t year) noexcept nogil:
    """Beyond four digits with its sign, as ISO 8601's expanded years and the peer do."""
    cdef uint64_t magnitude = <uint64_t>(year if year >= 0 else -year)
    cdef size_t signs = 0 if 0 <= year <= 9999 else 1
    at[0] = 45 if year < 0 else 43
    if magnitude > 9999:
        return signs + rmp_print_decimal(at + signs, magnitude)
    rmp_print_padded(at + signs, <uint32_t>magnitude, 4)
    return signs + 4


cdef void _put_second(Second* written, int64_t since_1970) noexcept nogil:
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


cdef int _write_time(rmp_buffer* out, Moment moment, Second* newest) noexcept nogil:
    """RFC 3339 in UTC, with 0, 3 or 6 digits of fraction. `newest` is the second that was written last."""
    cdef uint8_t fraction[8]
    if newest.length == 0 or newest.second != moment.second:
        _put_second(newest, moment.second)
    if rmp_write_raw(out, newest.text, newest.length):
        return UNUSUAL
    if moment.fraction_us:
        fraction[1] = 46
        rmp_print_padded(fraction + 2, moment.fraction_us, 6)
        if rmp_write_raw(out, fraction + 1, 7 if moment.fraction_us % 1000 else 4):
            return UNUSUAL
    return _raw(out, b"+00:00")


cdef enum:
    TEXT_BYTES = 64  # more than a uuid or a time takes: it never grows


cdef object _ascii(const rmp_buffer* out, int failed):
    if failed:
        raise MemoryError("no memory for a text")  # it fits: never
    return PyUnicode_DecodeASCII(<const char*>out.bytes, <Py_ssize_t>out.length, NULL)


def canonical_uuid(bytes value not None) -> str:
    """16 bytes as the usual 36 characters, lower case.

    Raises:
        ValueError: they are not 16.
    """
    cdef uint8_t text[TEXT_BYTES]
    cdef rmp_buffer out
    if PyBytes_GET_SIZE(value) != 16:
        raise ValueError(f"a uuid has {PyBytes_GET_SIZE(value)} bytes; expected 16")
    out.bytes, out.length, out.capacity = text, 0, TEXT_BYTES
    return _ascii(&out, _write_uuid(&out, <const uint8_t*>PyBytes_AS_STRING(value)))


def rfc3339(timestamp_us) -> str:
    """Microseconds since the epoch as RFC 3339 in UTC, with 0, 3 or 6 digits of fraction, as needed.

    Raises:
        OverflowError: it is not in -2**63 to 2**64-1, which is what a record can hold.
    """
    cdef uint8_t text[TEXT_BYTES]
    cdef rmp_buffer out
    cdef Second newest
    cdef bint negative = timestamp_us < 0
    cdef uint64_t bits = <uint64_t><int64_t>timestamp_us if negative else <uint64_t>timestamp_us
    out.bytes, out.length, out.capacity = text, 0, TEXT_BYTES
    newest.length = 0
    return _ascii(&out, _write_time(&out, _moment(bits, negative), &newest))
