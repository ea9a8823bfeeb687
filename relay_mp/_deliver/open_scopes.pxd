# What compiled sinks derive from and call. open_scopes.pyx is where it is written and explained.

from relay_mp._records.records cimport RecordView


cdef class OpenScope:
    cdef readonly bytes uuid
    cdef readonly Py_ssize_t size_bytes
    cdef void *_older   # its neighbours while it is kept; borrowed, for OpenScopes holds them
    cdef void *_newer
    cdef bint _is_kept
    cpdef object cut(self)


cdef class OpenStart(OpenScope):
    cdef readonly RecordView start
    cdef int _hold(self, RecordView start) except -1
    cpdef object cut(self)


cdef class OpenScopes:
    cdef dict _open
    cdef void *_oldest
    cdef void *_newest
    cdef void *_uncut   # the oldest that has its payloads still; those before it have lost them
    cdef Py_ssize_t _limit, _max_bytes
    cdef object _give_up
    cdef readonly Py_ssize_t open_bytes, cut, evicted, unfinished, orphans
    cdef int _append(self, OpenScope kept) except -1
    cdef int _remove(self, OpenScope kept) except -1
    cdef int _evict(self) except -1
    cdef int _make_room(self) except -1
    cpdef object begin(self, OpenScope kept)
    cpdef object end(self, uuid)
    cpdef object get(self, uuid)
    cpdef object grow(self, OpenScope kept, Py_ssize_t size_bytes)
