# cython: language_level=3, freethreading_compatible=True, annotation_typing=False
"""Scopes that have begun and not ended, kept within two bounds: how many, and how many bytes.

    start ──▶ begin(OpenStart(event)) ──▶ kept, by uuid and in the order of starts ──▶ end(uuid) ──▶ what was kept
                                              │ too many bytes: the oldest lose their payloads, one after the other
                                              └ still, or too many: the oldest is given up

Runs where the dispatcher runs: in exporters that need a scope's start at its end, and for whoever looks at a session
from outside. Scopes of killed workers never end, so that both bounds are reached one day. A scope whose payloads are
cut still has its uuid, parent, name, times and place; `{"relay_mp.cut": {"bytes": N}}` stands for each payload.

One thread at a time; the counts may be read from any.
"""

from relay_mp._native.python cimport PyBytes_GET_SIZE
from relay_mp._records.records cimport RecordView, kind_of

from relay_mp._records.cut import cut_payloads

cdef enum:
    START, END  # kinds of records: see relay_mp.events
    SHARED_BYTES = 1024  # an event's record below that is kept with what others have decoded of it

cdef Py_ssize_t NO_BOUND = <Py_ssize_t>((<size_t>-1) >> 1)


cdef class OpenScope:
    """What is kept of a scope. A sink derives its own.

    Args:
        uuid: the scope's, as it is in a record.
        size_bytes: what counts towards the bound in bytes.
    """

    def __init__(self, bytes uuid not None, Py_ssize_t size_bytes=0) -> None:
        self.uuid, self.size_bytes = uuid, size_bytes

    cpdef object cut(self):
        """Lets go of what can be done without; OpenScopes calls it, once, and looks at `size_bytes` then."""


cdef class OpenStart(OpenScope):
    """A scope's start, with its payloads until they are cut.

    Args:
        start: the event.
    """

    def __init__(self, RecordView start not None) -> None:
        self._hold(start)

    def __class_getitem__(cls, start):
        return cls

    cdef int _hold(self, RecordView start) except -1:
        self.uuid = start._read_field(1)
        self.size_bytes = PyBytes_GET_SIZE(start._record)
        if self.size_bytes >= SHARED_BYTES:
            # A view of its own, of the same bytes: what subscribers decode stays with the event that they share.
            start = type(start)(start._record, start.seq, start.pid, start.redelivered)
        self.start = start
        return 0

    cpdef object cut(self):
        """Markers stand for the payloads from now on."""
        cdef RecordView start = self.start
        cdef bytes record = cut_payloads(start._record)
        if record is not None:
            self.size_bytes -= PyBytes_GET_SIZE(start._record) - PyBytes_GET_SIZE(record)
            self.start = type(start)(record, start.seq, start.pid, start.redelivered)

    def let_go(self) -> None:
        """It has ended, and its start is wanted no more, although somebody may still refer to it; `start` is None."""
        self.start = None


cdef class OpenScopes:
    """Open scopes, up to the bounds.

    Args:
        limit: how many; the oldest is given up beyond that.
        give_up: called with what was kept of it.
        max_bytes: the sum of their `size_bytes`; beyond that the oldest are cut, then given up. None: what is kept is
            of one size.
    """

    def __init__(self, Py_ssize_t limit, give_up, max_bytes=None) -> None:
        if limit < 1:
            raise ValueError(f"max_open_scopes is {limit}; expected at least 1")
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_open_bytes is {max_bytes}; expected at least 1")
        self._open = {}
        self._oldest = self._newest = self._uncut = NULL
        self._limit = limit
        self._max_bytes = NO_BOUND if max_bytes is None else max_bytes
        self._give_up = give_up

    def __class_getitem__(cls, kept):
        return cls

    cpdef object begin(self, OpenScope kept):
        """A scope's start. One that is delivered again takes the place of the first.

        Raises:
            ValueError: it is kept already, here or elsewhere.
        """
        if kept._is_kept:
            raise ValueError("what is kept of a scope is in another place already; make a new one")
        cdef OpenScope earlier = self._open.setdefault(kept.uuid, kept)
        if earlier is not kept:
            self._remove(earlier)
            self._open[kept.uuid] = kept
        self._append(kept)
        if len(self._open) > self._limit:
            self._evict()
        if self.open_bytes > self._max_bytes:
            self._make_room()

    cpdef object end(self, uuid):
        """A scope's end: what was kept of its start; None, and counted, if that was not seen."""
        cdef OpenScope kept = self._open.pop(uuid, None)
        if kept is None:
            self.orphans += 1
        else:
            self._remove(kept)
        return kept

    def note(self, list events not None) -> None:
        """Events that follow each other in the stream: keeps what begins, as OpenStart, and lets go of what ends."""
        cdef RecordView event
        cdef OpenStart kept
        cdef int kind
        for event in events:
            kind = kind_of(event._record)
            if kind == START:
                kept = OpenStart.__new__(OpenStart)
                kept._hold(event)
                self.begin(kept)
            elif kind == END:
                self.end(event._read_field(1))

    cpdef object get(self, uuid):
        """What is kept of an open scope."""
        return None if uuid is None else self._open.get(uuid)

    cpdef object grow(self, OpenScope kept, Py_ssize_t size_bytes):
        """So many bytes more are kept of an open scope."""
        kept.size_bytes += size_bytes
        self.open_bytes += size_bytes
        if self.open_bytes > self._max_bytes:
            self._make_room()

    def snapshot(self):
        """What is kept of each, in the order of their starts."""
        cdef list kept = []
        cdef void *at = self._oldest if self._open else NULL
        while at != NULL:
            kept.append(<OpenScope>at)
            at = (<OpenScope>at)._newer
        return kept

    def drain(self):
        """Those that never ended, the newest first, so inner before outer; they are counted as unfinished."""
        cdef OpenScope kept
        while self._open:
            kept = <OpenScope>self._newest
            del self._open[kept.uuid]
            self._remove(kept)
            self.unfinished += 1
            yield kept

    def complete(self, report) -> None:
        """Adds its counts to a report."""
        report.open_scopes, report.open_bytes = len(self._open), self.open_bytes
        report.unfinished, report.orphans = self.unfinished, self.orphans
        report.cut, report.evicted = self.cut, self.evicted

    def __len__(self) -> int:
        return len(self._open)

    cdef int _append(self, OpenScope kept) except -1:
        kept._is_kept = True
        kept._older, kept._newer = self._newest, NULL
        if self._newest == NULL:
            self._oldest = <void*>kept
        else:
            (<OpenScope>self._newest)._newer = <void*>kept
        self._newest = <void*>kept
        if self._uncut == NULL:
            self._uncut = <void*>kept
        self.open_bytes += kept.size_bytes
        return 0

    cdef int _remove(self, OpenScope kept) except -1:
        """From the order; the caller takes it out of the dict, and holds it meanwhile."""
        if kept._older == NULL:
            self._oldest = kept._newer
        else:
            (<OpenScope>kept._older)._newer = kept._newer
        if kept._newer == NULL:
            self._newest = kept._older
        else:
            (<OpenScope>kept._newer)._older = kept._older
        if self._uncut == <void*>kept:
            self._uncut = kept._newer
        kept._older = kept._newer = NULL
        kept._is_kept = False
        self.open_bytes -= kept.size_bytes
        return 0

    cdef int _evict(self) except -1:
        cdef OpenScope oldest = <OpenScope>self._oldest
        del self._open[oldest.uuid]
        self._remove(oldest)
        self.evicted += 1
        self._give_up(oldest)
        return 0

    cdef int _make_room(self) except -1:
        cdef OpenScope kept
        cdef Py_ssize_t before
        while self.open_bytes > self._max_bytes and self._uncut != NULL:
            kept = <OpenScope>self._uncut
            self._uncut = kept._newer
            before = kept.size_bytes
            kept.cut()
            self.open_bytes -= before - kept.size_bytes
            self.cut += kept.size_bytes < before
        while self.open_bytes > self._max_bytes and self._oldest != NULL:
            self._evict()
        return 0
