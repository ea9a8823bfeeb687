# Numbers, uuids and times as text. Included textually by _records.pyx.

cdef inline int _raw(rmp_buffer* out, const char* text) noexcept nogil:
    return rmp_write_raw(out, text, strlen(text))


cdef int _write_number(rmp_buffer* out, uint64_t magnitude, bint negative) noexcept nogil:
    cdef char digits[24]
    cdef int at = 24
    while True:
        at -= 1
        digits[at] = 48 + magnitude % 10
        magnitude //= 10
        if magnitude == 0:
            break
    if negative:
        at -= 1
        digits[at] = 45
    return rmp_write_raw(out, &digits[at], 24 - at)


cdef int _write_digits(rmp_buffer* out, uint64_t value, int count) noexcept nogil:
    cdef char digits[8]
    cdef int at
    for at in range(count - 1, -1, -1):
        digits[at] = 48 + value % 10
        value //= 10
    return rmp_write_raw(out, digits, count)


cdef int _write_uuid(rmp_buffer* out, const uint8_t* uuid) noexcept nogil:
    cdef const char* hexadecimal = b"0123456789abcdef"
    cdef char text[36]
    cdef int i, at = 0
    for i in range(16):
        if i == 4 or i == 6 or i == 8 or i == 10:
            text[at] = 45
            at += 1
        text[at] = hexadecimal[uuid[i] >> 4]
        text[at + 1] = hexadecimal[uuid[i] & 15]
        at += 2
    return rmp_write_raw(out, text, 36)


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


cdef int _write_year(rmp_buffer* out, int64_t year) noexcept nogil:
    """Beyond four digits with its sign, as ISO 8601's expanded years and the peer do."""
    cdef uint64_t magnitude = <uint64_t>(year if year >= 0 else -year)
    if 0 <= year <= 9999:
        return _write_digits(out, magnitude, 4)
    if rmp_write_byte(out, 45 if year < 0 else 43):
        return UNUSUAL
    return _write_digits(out, magnitude, 4) if magnitude <= 9999 else _write_number(out, magnitude, False)


cdef int _write_time(rmp_buffer* out, Moment moment) noexcept nogil:
    """RFC 3339 in UTC, with 0, 3 or 6 digits of fraction, in the proleptic Gregorian calendar.

    Source: Howard Hinnant, chrono-Compatible Low-Level Date Algorithms, `civil_from_days`; counted from 4000 eras of
    400 years before the year 0, further back than a record's 64 bits of microseconds reach: no number is negative.
    """
    cdef uint64_t second = <uint64_t>(moment.second + (719468 + 4000 * 146097) * <int64_t>86400)
    cdef uint64_t days = second // 86400, second_of_day = second % 86400
    cdef uint64_t era = days // 146097, day_of_era = days % 146097
    cdef uint64_t year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    cdef uint64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    cdef uint64_t shifted_month = (5 * day_of_year + 2) // 153
    cdef uint64_t month = shifted_month + 3 if shifted_month < 10 else shifted_month - 9
    cdef int64_t year = <int64_t>(year_of_era + era * 400 + (month <= 2)) - 4000 * 400
    cdef int failed = _write_year(out, year) or rmp_write_byte(out, 45)
    failed = failed or _write_digits(out, month, 2) or rmp_write_byte(out, 45)
    failed = failed or _write_digits(out, day_of_year - (153 * shifted_month + 2) // 5 + 1, 2) or rmp_write_byte(out, 84)
    failed = failed or _write_digits(out, second_of_day // 3600, 2) or rmp_write_byte(out, 58)
    failed = failed or _write_digits(out, second_of_day // 60 % 60, 2) or rmp_write_byte(out, 58)
    failed = failed or _write_digits(out, second_of_day % 60, 2)
    if moment.fraction_us:
        failed = failed or rmp_write_byte(out, 46)
        failed = failed or (_write_digits(out, moment.fraction_us, 6) if moment.fraction_us % 1000
                            else _write_digits(out, moment.fraction_us // 1000, 3))
    return failed or _raw(out, b"+00:00")


cdef enum:
    TEXT_BYTES = 64  # more than a uuid or a time takes


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
    cdef bint negative = timestamp_us < 0
    cdef uint64_t bits = <uint64_t><int64_t>timestamp_us if negative else <uint64_t>timestamp_us
    out.bytes, out.length, out.capacity = text, 0, TEXT_BYTES
    return _ascii(&out, _write_time(&out, _moment(bits, negative)))
