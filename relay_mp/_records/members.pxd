# A map's members in order, as ATOF's JSON has them.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memcmp

cdef enum:
    FEW = 24      # members that are sorted where they are

cdef struct Entry:
    const uint8_t* key
    uint32_t length
    const void* value  # what its reader makes of it


cdef inline int compare_keys(const Entry* a, const Entry* b) noexcept nogil:
    """By code points, as Python sorts: UTF-8 keeps that order."""
    cdef int order
    if a.length and b.length and a.key[0] != b.key[0]:  # mostly: no call
        return <int>a.key[0] - <int>b.key[0]
    order = memcmp(a.key, b.key, min(a.length, b.length))
    return order if order else (a.length > b.length) - (a.length < b.length)


cdef inline int _compare(const void* a, const void* b) noexcept nogil:
    """Of a key that is there twice, the first remains first."""
    cdef const Entry* one = <const Entry*>a
    cdef const Entry* other = <const Entry*>b
    cdef int order = compare_keys(one, other)
    return order if order else (one.key > other.key) - (one.key < other.key)


cdef inline void sort_members(Entry* entries, uint64_t count) noexcept nogil:
    cdef Entry moved
    cdef uint64_t i, at
    if count > FEW:
        qsort(entries, count, sizeof(Entry), _compare)
        return
    for i in range(1, count):
        moved = entries[i]
        at = i
        while at > 0 and compare_keys(&entries[at - 1], &moved) > 0:
            entries[at] = entries[at - 1]
            at -= 1
        entries[at] = moved
