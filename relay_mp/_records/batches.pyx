# cython: language_level=3, freethreading_compatible=True, annotation_typing=False
"""Events in batches, as one process hands them to another: their records, each behind its length, pid and seq.

    frame   | bytes that follow:4 | kind:1 | body |
    body    | record:4 | pid:4 | seq:8, whose highest bit says redelivered | record ... | the next ...

What is not a batch of events has a body of its own: see relay_mp._deliver.frames. Little endian; both ends are on one
machine. One pass over the events and one object, whatever their number.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from relay_mp._native.python cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from relay_mp._records.records cimport RecordView

from relay_mp.errors import RecordError

cdef enum:
    FRAME_HEAD = 5
    RECORD_HEAD = 16

cdef uint64_t REDELIVERED = <uint64_t>1 << 63

FRAME_HEAD_BYTES = FRAME_HEAD


cdef inline void _put32(uint8_t* at, uint32_t value) noexcept:
    memcpy(at, &value, 4)


cdef inline uint32_t _get32(const uint8_t* at) noexcept:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return value


def frame(int kind, bytes body not None) -> bytes:
    """A frame with any body."""
    cdef bytes made = PyBytes_FromStringAndSize(NULL, FRAME_HEAD + PyBytes_GET_SIZE(body))
    cdef uint8_t* at = <uint8_t*>PyBytes_AS_STRING(made)
    _put32(at, <uint32_t>(1 + PyBytes_GET_SIZE(body)))
    at[4] = <uint8_t>kind
    memcpy(at + FRAME_HEAD, PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body))
    return made


def size_of(list events not None) -> int:
    """What `pack` takes for these events, in bytes."""
    cdef Py_ssize_t total = FRAME_HEAD + RECORD_HEAD * len(events)
    cdef RecordView event
    for event in events:
        total += PyBytes_GET_SIZE(event._record)
    return total


def pack(int kind, list events not None) -> bytes:
    """A frame of events.

    Raises:
        OverflowError: together they have 4 GiB, or a pid or seq is not one.
    """
    cdef Py_ssize_t total = size_of(events), length
    cdef bytes made
    cdef uint8_t* at
    cdef uint64_t place
    cdef uint32_t pid
    cdef RecordView event
    if total > <Py_ssize_t>0xffffffff:
        raise OverflowError(f"a batch of {total} bytes is above 4 GiB; send it in parts")
    made = PyBytes_FromStringAndSize(NULL, total)
    at = <uint8_t*>PyBytes_AS_STRING(made)
    _put32(at, <uint32_t>(total - 4))
    at[4] = <uint8_t>kind
    at += FRAME_HEAD
    for event in events:
        length, pid, place = PyBytes_GET_SIZE(event._record), event.pid, event.seq
        if event.redelivered:
            place |= REDELIVERED
        _put32(at, <uint32_t>length)
        _put32(at + 4, pid)
        memcpy(at + 8, &place, 8)
        memcpy(at + RECORD_HEAD, PyBytes_AS_STRING(event._record), length)
        at += RECORD_HEAD + length
    return made


def unpack(bytes body not None, make) -> list:
    """The events of a frame's body.

    Args:
        body: what is behind a frame's kind.
        make: called as make(record, seq, pid, redelivered) for each.

    Raises:
        RecordError: it is not such a body.
    """
    cdef Py_ssize_t at = 0, end = PyBytes_GET_SIZE(body), length
    cdef const uint8_t* start
    cdef uint64_t place
    cdef list events = []
    while at < end:
        start = <const uint8_t*>PyBytes_AS_STRING(body) + at
        length = _get32(start) if end - at >= RECORD_HEAD else end
        if length > end - at - RECORD_HEAD:
            raise RecordError(f"a batch of {end} bytes is cut off, or damaged, at {at}")
        memcpy(&place, start + 8, 8)
        events.append(make(PyBytes_FromStringAndSize(<const char*>start + RECORD_HEAD, length), place & ~REDELIVERED,
                           _get32(start + 4), (place & REDELIVERED) != 0))
        at += RECORD_HEAD + length
    return events
