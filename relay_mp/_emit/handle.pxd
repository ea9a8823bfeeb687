# A scope's handle, as the other compiled modules see it: its fields, and what they may do with them. handle.pyx is where it
# is written and explained.

cimport cython
from libc.stdint cimport int64_t, uint8_t

from relay_mp._native.python cimport PyBytes_FromStringAndSize

cdef enum:
    UUID_BYTES = 16
    FOREIGN_EPOCH = -1  # no process's fork epoch


cdef class ScopeHandle:
    # What is shown to Python is made when it is asked for: a scope that nobody looks at is one allocation.
    # `is_open` decides, by an atomic exchange, who ends the scope. `frozen_data` and `frozen_metadata`: see
    # arguments.freeze. `trace` is what `traceparent` calls the trace: the outermost emitted scope,
    # inherited, so that it costs nothing to find. `stack` is a cache. `epoch` is the `fork_epoch` of the
    # process that pushed it, FOREIGN in a copy that was unpickled. `frozen_profile` is the category_profile of both events. `outer` and `stack` change while others
    # may look: only by the functions below.
    cdef uint8_t uuid_bytes[16]
    cdef uint8_t parent_bytes[16]
    cdef uint8_t trace_bytes[16]
    cdef bint has_parent
    cdef bint has_trace
    cdef int is_open
    cdef int type_code
    cdef unsigned int attribute_bits
    cdef int64_t epoch
    cdef int64_t start_us
    cdef str name_text
    cdef object frozen_data
    cdef object frozen_metadata
    cdef object frozen_profile
    cdef ScopeHandle outer
    cdef bytes stack
    cdef object __weakref__


cdef int type_code_of(object scope_type) except -1
cdef ScopeHandle scope_of(object handle)


cdef inline ScopeHandle checked_handle(object handle):
    return <ScopeHandle>handle if isinstance(handle, ScopeHandle) else scope_of(handle)


cdef inline bytes uuid_object(const uint8_t* field):
    return PyBytes_FromStringAndSize(<const char*>field, UUID_BYTES)


# Without a GIL a reference may be read only under the lock that it is changed under; with one these cost nothing.

cdef inline ScopeHandle outer_of(ScopeHandle handle):
    with cython.critical_section(handle):
        return handle.outer


cdef inline int set_outer(ScopeHandle handle, ScopeHandle outer) except -1:
    with cython.critical_section(handle):
        handle.outer = outer
    return 0


cdef inline bytes known_stack(ScopeHandle handle):
    with cython.critical_section(handle):
        return handle.stack


cdef inline int keep_stack(ScopeHandle handle, bytes stack) except -1:
    with cython.critical_section(handle):
        handle.stack = stack
    return 0
