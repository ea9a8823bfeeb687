# What the other compiled modules call of the core: without a Python call, and without an object for what a C value can
# say. core.pyx is where it is written and explained. These functions are the way to what a process has once, such as
# its attachment and its fork epoch: of a C source with such state, every module that links it has a copy.

from libc.stdint cimport int64_t, uint8_t, uint64_t

from relay_mp._native.segment cimport rmp_segment

cdef enum:
    RMP_NO_CATEGORY = -1     # `category` where there is none
    RMP_NAMED_CATEGORY = -2  # where its name is passed beside it

# The part of an event that needs no encoding of Python values. Uuids are 16 bytes, borrowed.
cdef struct rmp_envelope:
    int kind
    int category
    unsigned int attributes
    int64_t timestamp_us
    const uint8_t* uuid
    const uint8_t* parent  # NULL: none

# For relay_mp._emit: an event.
cdef bint is_listening() except -1
cdef bint wants_stacks() noexcept
cdef uint64_t own_fork_epoch() noexcept
cdef int64_t clock_us() noexcept
cdef void make_uuid7(uint8_t* uuid, int64_t now_us) noexcept
cdef int emit_event(const rmp_envelope* envelope, str name, object category_name, bytes stack, object data,
                    object metadata, object category_profile, object data_schema) except -1

# For segments and their reader: the session that this process emits to, and that they are inside of a mapping. A forked
# child does not leave what its parent has entered: `entered` is the fork epoch.
cdef void attach_to(const rmp_segment* segment) noexcept
cdef void detach() noexcept
cdef void close_mapping(rmp_segment* segment) noexcept
cdef uint64_t enter_mapping(const rmp_segment* segment) noexcept
cdef void leave_mapping(const rmp_segment* segment, uint64_t entered) noexcept
cdef bint dispatches_here() noexcept
