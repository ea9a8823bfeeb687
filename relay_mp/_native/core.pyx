# cython: language_level=3, freethreading_compatible=True
"""The emitting side of the native half: this process's attachment to a session, and the way of an event into its ring.

    verbs ──▶ emit_event ──▶ encoder ──▶ the thread's buffer ──▶ ring ──▶ reader (where the dispatcher runs)

What a process has once is here, and linked here alone: the attachment, the fork epoch, each thread's ids. The other
bindings, `segments` and `reader`, come to it through core.pxd; with `encoder` these modules are the only bindings of the
C half, and the only places where a native code becomes an exception. Nothing here knows what an event means: a record
is an envelope of scalars and four payloads.

When the ring is full, `emit` waits with the GIL released until the session's block_timeout has passed
(on_full="block") or gives up at once (on_full="drop", and always in the dispatcher's own thread, which
would wait for itself). What is given up is counted in the thread's slot.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from relay_mp._native.atomics cimport (
    add_u64,
    add_u64_ordered,
    load_u32,
    load_u32_relaxed,
    rmp_load_acquire_pair,
    rmp_pair,
    store_u64,
)
from relay_mp._native.encode cimport (
    rmp_bin32_begin,
    rmp_bin32_end,
    rmp_buffer,
    rmp_buffer_free,
    rmp_write_bin,
    rmp_write_envelope,
    rmp_write_int,
    rmp_write_nil,
    rmp_write_raw,
    rmp_write_str,
)
from relay_mp._native.encoder cimport conversions_run, encode_name, encode_value
from relay_mp._native.fork cimport rmp_fork_epoch
from relay_mp._native.eventcount cimport rmp_monotonic_ns
from relay_mp._native.layout cimport (
    RMP_BROKEN,
    RMP_LAYOUT_VERSION,
    RMP_MAX_SLOTS,
    RMP_MAX_UNITS,
    RMP_MIN_CAPACITY_UNITS,
    RMP_OPEN,
    RMP_RECORD_HEADER_BYTES,
    RMP_SLOT_BYTES,
    RMP_SLOT_DEAD,
    RMP_SLOT_EXITED,
    RMP_SLOT_LIVE,
    RMP_SLOT_TAKING,
    RMP_UNIT_BYTES,
    rmp_slot,
)
from relay_mp._native.platform cimport rmp_boot_id, rmp_thread_id
from relay_mp._native.process cimport rmp_process, rmp_process_liveness, rmp_process_self
from relay_mp._native.producer cimport (
    rmp_attachment,
    rmp_attachment_clear,
    rmp_attachment_number,
    rmp_attachment_of,
    rmp_attachment_set,
    rmp_free_threaded,
    rmp_producer,
    rmp_producer_own,
    rmp_wait,
    rmp_wait_begin,
    rmp_wait_end,
    rmp_wait_place,
)
from relay_mp._native.python cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
    PyErr_CheckSignals,
    PyUnicode_AsUTF8AndSize,
    PyUnicode_DATA,
    PyUnicode_GET_LENGTH,
    PyUnicode_IS_COMPACT_ASCII,
)
from relay_mp._native.slots cimport rmp_slots_count_control, rmp_slots_uncount_control
from relay_mp._native.ring cimport RMP_FULL, RMP_OK, RMP_SEALED, rmp_ring, rmp_ring_wait_for_space, rmp_ring_write
from relay_mp._native.segment cimport rmp_segment, rmp_segment_close, rmp_segment_keep
from relay_mp._native.uuid7 cimport rmp_realtime_us, rmp_uuid7

from relay_mp._native.encoder import Packed, pack, set_replaced_hook as _set_encoders_hook
from relay_mp._native.shorten import CUT_KEY as _CUT_KEY, shorten
from relay_mp.errors import RegistryFullError, SessionError


cdef extern from *:
    """
    #include <stddef.h>
    #define RMP_SLOT_FIELD(field) offsetof(rmp_slot, field)
    enum {
        rmp_at_state = RMP_SLOT_FIELD(state), rmp_at_start_time = RMP_SLOT_FIELD(start_time), rmp_at_pid_namespace = RMP_SLOT_FIELD(pid_namespace),
        rmp_at_thread_id = RMP_SLOT_FIELD(thread_id), rmp_at_retired_tail = RMP_SLOT_FIELD(retired_tail), rmp_at_emitted = RMP_SLOT_FIELD(emitted),
        rmp_at_cut = RMP_SLOT_FIELD(cut), rmp_at_replaced = RMP_SLOT_FIELD(replaced), rmp_at_base_replaced = RMP_SLOT_FIELD(base_replaced), rmp_at_controls = RMP_SLOT_FIELD(controls), rmp_at_control_seq = RMP_SLOT_FIELD(controls.high),
        rmp_at_base_controls = RMP_SLOT_FIELD(base_controls), rmp_at_lost_full = RMP_SLOT_FIELD(lost_full), rmp_at_lost_writer_died = RMP_SLOT_FIELD(lost_writer_died),
        rmp_at_lost_fenced = RMP_SLOT_FIELD(lost_fenced), rmp_at_lost_corrupt = RMP_SLOT_FIELD(lost_corrupt), rmp_at_base_emitted = RMP_SLOT_FIELD(base_emitted),
        rmp_at_base_delivered = RMP_SLOT_FIELD(base_delivered), rmp_at_base_cut = RMP_SLOT_FIELD(base_cut), rmp_at_base_lost_full = RMP_SLOT_FIELD(base_lost_full),
        rmp_at_base_lost_writer_died = RMP_SLOT_FIELD(base_lost_writer_died), rmp_at_base_lost_fenced = RMP_SLOT_FIELD(base_lost_fenced), rmp_at_base_lost_corrupt = RMP_SLOT_FIELD(base_lost_corrupt),
        rmp_at_passed = RMP_SLOT_FIELD(passed), rmp_at_passed_lost = RMP_SLOT_FIELD(passed.high),
        rmp_at_lost_poison = RMP_SLOT_FIELD(poison.low), rmp_at_base_lost_poison = RMP_SLOT_FIELD(base_lost_poison),
    };
    """
    enum:
        rmp_at_state, rmp_at_start_time, rmp_at_pid_namespace, rmp_at_thread_id
        rmp_at_retired_tail, rmp_at_emitted, rmp_at_cut, rmp_at_replaced, rmp_at_base_replaced, rmp_at_lost_full
        rmp_at_lost_writer_died, rmp_at_lost_fenced, rmp_at_lost_corrupt, rmp_at_base_emitted
        rmp_at_base_delivered, rmp_at_base_cut, rmp_at_base_lost_full, rmp_at_base_lost_writer_died
        rmp_at_base_lost_fenced, rmp_at_base_lost_corrupt, rmp_at_passed, rmp_at_passed_lost, rmp_at_controls, rmp_at_control_seq, rmp_at_base_controls
        rmp_at_lost_poison, rmp_at_base_lost_poison


# ---- what Python needs of the layout ----

UNIT_BYTES = RMP_UNIT_BYTES
MIN_RING_BYTES = RMP_MIN_CAPACITY_UNITS * RMP_UNIT_BYTES
MAX_EVENT_BYTES = RMP_MAX_UNITS * RMP_UNIT_BYTES - RMP_RECORD_HEADER_BYTES
MAX_PRODUCERS = RMP_MAX_SLOTS - 1
LAYOUT_VERSION = RMP_LAYOUT_VERSION
SLOT_BYTES = RMP_SLOT_BYTES
SLOT_FIELDS = {
    "state": rmp_at_state, "start_time": rmp_at_start_time, "pid_namespace": rmp_at_pid_namespace,
    "thread_id": rmp_at_thread_id, "retired_tail": rmp_at_retired_tail, "emitted": rmp_at_emitted,
    "cut": rmp_at_cut, "replaced": rmp_at_replaced, "base_replaced": rmp_at_base_replaced, "lost_full": rmp_at_lost_full, "lost_writer_died": rmp_at_lost_writer_died,
    "lost_fenced": rmp_at_lost_fenced, "lost_corrupt": rmp_at_lost_corrupt, "base_emitted": rmp_at_base_emitted,
    "base_delivered": rmp_at_base_delivered, "base_cut": rmp_at_base_cut, "base_lost_full": rmp_at_base_lost_full,
    "base_lost_writer_died": rmp_at_base_lost_writer_died, "base_lost_fenced": rmp_at_base_lost_fenced, "base_lost_corrupt": rmp_at_base_lost_corrupt,
    "passed": rmp_at_passed, "passed_lost": rmp_at_passed_lost, "controls": rmp_at_controls, "control_seq": rmp_at_control_seq,
    "base_controls": rmp_at_base_controls, "lost_poison": rmp_at_lost_poison, "base_lost_poison": rmp_at_base_lost_poison,
}
STATE_CLOSED, STATE_OPEN, STATE_CLOSING, STATE_BROKEN = 0, 1, 2, 3
SLOT_TAKING, SLOT_LIVE, SLOT_EXITED, SLOT_DEAD = RMP_SLOT_TAKING, RMP_SLOT_LIVE, RMP_SLOT_EXITED, RMP_SLOT_DEAD
ALIVE, DEAD, UNKNOWN = 0, 1, 2
KIND_SCOPE_START, KIND_SCOPE_END, KIND_MARK, KIND_CONTROL = 0, 1, 2, 3


# ---- processes, ids and clocks ----

def process_self() -> tuple:
    """(pid, start time in a unit of the system's own, pid namespace) of this process; 0 is unknown."""
    cdef rmp_process own = rmp_process_self()
    return own.pid, own.start_time, own.pid_namespace


def process_liveness(pid: int, start_time: int, pid_namespace: int) -> int:
    """ALIVE, DEAD, or UNKNOWN where it cannot be told from here."""
    cdef rmp_process process
    process.pid = pid
    process.start_time = start_time
    process.pid_namespace = pid_namespace
    return rmp_process_liveness(process)


def boot_id() -> str:
    """Differs after each boot of the machine; empty where the system has none."""
    cdef char id[64]
    return (<bytes>id).decode("ascii", "replace") if rmp_boot_id(id, sizeof(id)) else ""


def fork_epoch() -> int:
    """A number that differs from the parent's in every forked child, whoever forked."""
    return rmp_fork_epoch()


def thread_id() -> int:
    """The kernel's number of the calling thread."""
    return rmp_thread_id()


def uuid7() -> bytes:
    """A new UUIDv7, 16 bytes. Any thread of any process; forked children seed anew."""
    cdef uint8_t uuid[16]
    rmp_uuid7(uuid, rmp_realtime_us())
    return PyBytes_FromStringAndSize(<const char*>uuid, 16)


def now_us() -> int:
    """Wall clock, microseconds since the epoch."""
    return rmp_realtime_us()


# ---- which session this process emits to, and whether anybody listens ----

cdef extern from *:
    """
    /* Which process epoch this thread dispatches in: a fork inside a callback does not inherit it. */
    static __thread uint64_t rmp_dispatching;
    #ifdef Py_GIL_DISABLED
    #define RMP_WITHOUT_GIL 1
    #else
    #define RMP_WITHOUT_GIL 0
    #endif
    """
    uint64_t rmp_dispatching
    bint RMP_WITHOUT_GIL


cdef object _resolve = None          # called in a process that knows no session yet, until it says that it need not
cdef object _report_unregistered = None
cdef uint64_t _resolved_epoch = 0    # the process epoch in which _resolve has run; 0: it is to run again


def set_hooks(resolve, report_unregistered) -> None:
    """Sets what runs when a process emits without knowing a session, and when all its slots are taken.

    `resolve` is given whether it is for an event, and says whether it is to be asked again.
    """
    global _resolve, _report_unregistered
    _resolve = resolve
    _report_unregistered = report_unregistered


def stay_detached() -> None:
    """This process has left its session: it does not look for its parent's again by itself."""
    global _resolved_epoch
    _resolved_epoch = rmp_fork_epoch()


cdef rmp_segment* _attach_late(bint for_event) except? NULL:
    """Off the emit path: look for the session that the parent left word of. Once per process, unless it goes on and
    cannot be attached yet."""
    global _resolved_epoch
    _resolved_epoch = rmp_fork_epoch()
    if _resolve is not None and _resolve(for_event):
        _resolved_epoch = 0
    return rmp_attachment()


cdef inline rmp_segment* _attached(bint for_event) except? NULL:
    cdef rmp_segment* segment = rmp_attachment()
    if segment != NULL or _resolved_epoch == rmp_fork_epoch():
        return segment
    return _attach_late(for_event)


cdef uint32_t NEVER_SEEN = 0xFFFFFFFF
cdef uint32_t _configuration_seen = NEVER_SEEN  # what this process has of the session's middleware
cdef object _reconfigure = None


def set_configuration_hook(reconfigure) -> None:
    """Sets what runs, where an event is about to be emitted, when the session's configuration has changed."""
    global _reconfigure
    _reconfigure = reconfigure


def set_configuration_seen(version: int) -> None:
    """Says which version of the session's configuration this process has."""
    global _configuration_seen
    _configuration_seen = version


cdef inline rmp_segment* _synced(rmp_segment* segment) except? NULL:
    """The attachment again, once this process has the middleware that the owner shares.

    Relaxed: who was given work has been given what was published before it by the same hand; the table itself is
    read behind an acquire. What runs on a change may end the session.
    """
    if segment != NULL and load_u32_relaxed(&segment.ring.header.configuration_version) != _configuration_seen:
        if _reconfigure is not None and load_u32(&segment.ring.header.session_state) == RMP_OPEN:
            _reconfigure()
            return rmp_attachment()
    return segment


cdef inline bint _listening(rmp_segment* segment) noexcept:
    # Odd: open, or broken; then what is emitted is counted as lost.
    return (segment != NULL and load_u32(&segment.ring.header.session_state) & 1
            and load_u32(&segment.ring.header.subscribers) != 0)


def active() -> bool:
    """Whether an event emitted now would reach a subscriber, or be missed by one: in a broken session it counts as lost.

    Before it answers, this process's middleware is up to date.
    """
    return _listening(_synced(_attached(False)))


cdef bint _stacks_wanted = False


def set_stacks_wanted(wanted: bool) -> None:
    """Says whether this process needs the emitting stack with every event, for middleware of its own scopes."""
    global _stacks_wanted
    _stacks_wanted = wanted


cdef inline bint _stacks_matter() noexcept:
    cdef rmp_segment* segment = rmp_attachment()
    return _stacks_wanted or (segment != NULL and load_u32(&segment.ring.header.scope_locals) != 0)


def scope_local_active() -> bool:
    """Whether records have to carry the emitting stack."""
    return _stacks_matter()


def set_dispatching(dispatching: bool) -> None:
    """Says whether the calling thread is the dispatcher's: it must never wait for itself."""
    global rmp_dispatching
    rmp_dispatching = rmp_fork_epoch() if dispatching else 0


def is_dispatching() -> bool:
    """Whether the calling thread is delivering events: a subscriber's callback runs in it.

    What a callback's own instrumentation would emit comes back to the callback: an integration asks this, and emits
    nothing then. False in a child that a callback has forked. Any thread; costs a call.
    """
    return dispatches_here()


def _note_free_threading() -> None:
    global rmp_free_threaded
    rmp_free_threaded = RMP_WITHOUT_GIL


_note_free_threading()


# ---- from a verb's arguments to a committed record, in one call ----

cdef int _out_of_memory() except -1:
    raise MemoryError("no memory for the encoded event")


cdef inline int _checked(int code) except -1:
    return 0 if code == 0 else _out_of_memory()


cdef int _write_stack(rmp_buffer* buffer, bytes stack) except -1:
    if stack is None:
        return _checked(rmp_write_nil(buffer))
    return _checked(rmp_write_bin(buffer, PyBytes_AS_STRING(stack), PyBytes_GET_SIZE(stack)))


cdef inline int _write_name(rmp_buffer* buffer, str name) except -1:
    cdef Py_ssize_t length
    cdef const char* text
    if PyUnicode_IS_COMPACT_ASCII(<PyObject*>name):
        return _checked(rmp_write_str(buffer, <const char*>PyUnicode_DATA(<PyObject*>name),
                                      <size_t>PyUnicode_GET_LENGTH(<PyObject*>name)))
    try:
        text = PyUnicode_AsUTF8AndSize(<PyObject*>name, &length)
    except UnicodeEncodeError:
        return encode_name(buffer, name)
    return _checked(rmp_write_str(buffer, text, length))


cdef inline int _write_category(rmp_buffer* buffer, int category, str category_name) except -1:
    if category == RMP_NO_CATEGORY:
        return _checked(rmp_write_nil(buffer))
    if category == RMP_NAMED_CATEGORY:
        return _write_name(buffer, category_name)
    return _checked(rmp_write_int(buffer, category))


cdef inline int _write_payload(rmp_buffer* buffer, object value, object path) except -1:
    return _checked(rmp_write_nil(buffer)) if value is None else _write_value(buffer, value, path)


cdef int _write_value(rmp_buffer* buffer, object value, object path) except -1:
    cdef size_t offset = 0
    _checked(rmp_bin32_begin(buffer, &offset))
    encode_value(buffer, value, path)
    return _checked(rmp_bin32_end(buffer, offset))


cdef int _cut(rmp_buffer* buffer, const size_t* ends, uint32_t limit, bint is_request) except -1:
    """Replaces the largest texts of payloads by their sizes, then whole payloads, the largest first, until the record fits.

    Of a request to the dispatcher no part would do: the dispatcher refuses it, by the marker of the whole.

    `ends[0]` is where the first payload starts, `ends[i + 1]` where payload i ends.
    """
    cdef bint kept[4]
    cdef size_t total = ends[4], largest
    cdef int i, victim
    cdef rmp_buffer shorter
    cdef list shortened = [None] * 4
    cdef bytes payload
    for i in range(4):
        kept[i] = True
    while total > limit:
        victim, largest = -1, 40
        for i in range(4):
            if kept[i] and ends[i + 1] - ends[i] > largest:
                victim, largest = i, ends[i + 1] - ends[i]
        if victim < 0:
            break
        kept[victim] = False
        # Behind the header of a bin, which has 5 bytes.
        payload = buffer.bytes[ends[victim] + 5:ends[victim + 1]]
        if is_request or total - largest >= limit:
            payload = None
        else:
            payload = shorten(payload, max(<int64_t>(limit - (total - largest)) - 5, 0))
        shortened[victim] = payload
        total -= largest - (40 if payload is None else len(payload) + 5)
    shorter.bytes, shorter.length, shorter.capacity = NULL, 0, 0
    try:
        _checked(rmp_write_raw(&shorter, buffer.bytes, ends[0]))
        for i in range(4):
            if kept[i]:
                _checked(rmp_write_raw(&shorter, buffer.bytes + ends[i], ends[i + 1] - ends[i]))
            elif shortened[i] is not None:
                payload = shortened[i]
                _checked(rmp_write_bin(&shorter, PyBytes_AS_STRING(payload), len(payload)))
            else:
                _write_payload(&shorter, {_CUT_KEY: {"bytes": ends[i + 1] - ends[i] - 5}}, "cut")
        buffer.length = 0
        _checked(rmp_write_raw(buffer, shorter.bytes, shorter.length))
    finally:
        rmp_buffer_free(&shorter)
    return 0


cdef bytes _ends_of(bytes stack, uint32_t limit):
    """Of a stack too deep for an event, the innermost and the outermost scopes: who most likely has subscribers."""
    cdef uint32_t half = limit // 32 * 16
    return stack if stack is None or len(stack) <= 2 * half else stack[:half] + stack[len(stack) - half:]


cdef bint _nobody_drains(const rmp_ring* ring) noexcept:
    """Whether waiting for space is waiting for nothing: the dispatcher is gone and stays gone."""
    cdef rmp_process process
    cdef rmp_pair lease = rmp_load_acquire_pair(&ring.header.lease)
    process.pid = <uint32_t>lease.low
    process.start_time = lease.high
    process.pid_namespace = ring.header.owner_pid_namespace
    if not process.pid:
        return True  # who would start one has given up
    if rmp_process_liveness(process) != DEAD_CODE:
        return False
    if not ring.header.dispatcher_is_process:
        return True
    process.pid = ring.header.owner_pid  # who starts the next one
    process.start_time = ring.header.owner_start_time
    return rmp_process_liveness(process) == DEAD_CODE


cdef int DEAD_CODE = 1


cdef inline void _number(rmp_producer* producer) noexcept nogil:
    """Gives the thread's next event its number: from here on it counts as emitted, whatever becomes of it."""
    producer.owner_seq += 1
    store_u64(&producer.counters.emitted, producer.owner_seq)


cdef inline void _take_number_back(rmp_producer* producer) noexcept nogil:
    """The event was never emitted after all. Only for the newest number."""
    producer.owner_seq -= 1
    store_u64(&producer.counters.emitted, producer.owner_seq)


cdef inline void _sealed_out(const rmp_ring* ring, rmp_producer* producer) noexcept nogil:
    """The ring is sealed. The session has ended in between, and the event is outside it; or it is broken."""
    if load_u32(&ring.header.session_state) == RMP_BROKEN:
        add_u64(&producer.counters.lost_corrupt, 1)
    else:
        _take_number_back(producer)


# ---- from a buffer to the ring ----
#
# What is in the mapping is touched here, and `nogil` is the compiler's word that nothing else runs meanwhile: no object is
# allocated, so no garbage is collected, and no handler runs, which might end the session. Each begins at the attachment anew.

cdef enum:
    NOT_ATTACHED = -1  # the session has ended, or this process has left it
    NO_SLOT = -2       # all are taken; counted
    TOO_LONG = -3      # for this session


cdef int _write(rmp_producer* producer, const rmp_buffer* buffer) noexcept nogil:
    """Claims, copies and commits. Returns the ring's result, or one of the above.

    Args:
        producer: the thread's own, which may be of an attachment that has ended; NULL: there is none.
    """
    cdef rmp_segment* segment
    cdef int result
    if producer == NULL:
        return NOT_ATTACHED
    segment = rmp_attachment_of(producer)
    if segment == NULL:
        rmp_producer_own()  # the same, in the present attachment
        segment = rmp_attachment_of(producer)
        if segment == NULL:
            return NOT_ATTACHED
    if producer.slot == 0:
        add_u64_ordered(&segment.ring.header.lost_unregistered, 1)
        return NO_SLOT
    if buffer.length > segment.ring.max_payload_bytes:
        return TOO_LONG
    _number(producer)
    result = rmp_ring_write(&segment.ring, producer.slot, producer.owner_seq, buffer.bytes, <uint32_t>buffer.length)
    if result == RMP_SEALED:
        _sealed_out(&segment.ring, producer)
    return result


cdef inline bint _is_dropped() noexcept nogil:
    """The ring is full: whether who emits gives up at once."""
    return rmp_attachment().ring.header.drop_when_full or rmp_dispatching == rmp_fork_epoch()


cdef inline void _given_up(rmp_producer* producer, bint is_request) noexcept nogil:
    """The ring stayed full: an event is lost, and counted. A request was never made: who asks gets an error."""
    if is_request:
        _take_number_back(producer)
    else:
        add_u64(&producer.counters.lost_full, 1)


cdef uint32_t _limit_of_too_long() noexcept nogil:
    """How long an event may be; one is too long, and counted, as cut or, where not even that is possible, as lost: 0."""
    cdef rmp_segment* segment = rmp_attachment()
    cdef rmp_producer* producer = rmp_producer_own()
    if segment == NULL or producer == NULL or producer.slot == 0:
        return 0
    if segment.ring.max_payload_bytes < SMALLEST_LIMIT:
        _number(producer)
        add_u64(&producer.counters.lost_full, 1)
        return 0
    add_u64(&producer.counters.cut, 1)
    return segment.ring.max_payload_bytes


cdef object _switches_hook = None
cdef object _nap_hook = None


def set_greenlet_hooks(switches, nap) -> None:
    """Tells who lets other greenlets run while a thread of theirs finds the ring full.

    Args:
        switches: says whether the calling thread runs greenlets; it switches to none.
        nap: `nap(seconds)` lets the others run.
    """
    global _switches_hook, _nap_hook
    _switches_hook, _nap_hook = switches, nap


cdef int _write_waiting(rmp_producer* producer, const void* payload, uint32_t length, bint is_request) except -1:
    """The ring was full: wait for space, GIL released, until the session's deadline. Other greenlets run meanwhile."""
    cdef bint greenlets = _switches_hook is not None and _switches_hook()
    cdef rmp_wait wait = rmp_wait_begin()
    cdef const rmp_ring* ring = &wait.segment.ring
    cdef uint64_t epoch = rmp_fork_epoch()
    cdef uint64_t now = rmp_monotonic_ns()
    cdef uint64_t deadline = now + ring.header.block_timeout_ns
    cdef uint64_t look_for_dispatcher = now
    cdef int result = RMP_FULL
    try:
        while now < deadline and load_u32(&ring.header.session_state) == RMP_OPEN:
            if now >= look_for_dispatcher:
                if _nobody_drains(ring):
                    break
                look_for_dispatcher = now + 100_000_000
            with nogil:
                if not greenlets:
                    rmp_ring_wait_for_space(ring, length, deadline - now)
                result = rmp_ring_write(ring, producer.slot, producer.owner_seq, payload, length)
            if result != RMP_FULL:
                break
            _take_number_back(producer)
            try:
                PyErr_CheckSignals()
                if greenlets:
                    _nap_hook(0.001)
            finally:
                # A handler, or another greenlet, may have emitted, which comes first in the thread's numbers; or forked, after which the child
                # has a slot of its own; or closed the session. Or another thread has: then the event is lost, and counted.
                producer = rmp_wait_place(&wait)
                if producer != NULL:
                    _number(producer)
            if producer == NULL or rmp_attachment_number() != wait.attachment:
                break
            now = rmp_monotonic_ns()
    finally:
        if producer != NULL and result == RMP_FULL:
            _given_up(producer, is_request)
        if producer != NULL and result == RMP_SEALED:
            _sealed_out(ring, producer)
        if epoch == rmp_fork_epoch():
            rmp_wait_end(&wait)
    return result


cdef uint32_t SMALLEST_LIMIT = 1024  # settings refuse such a limit, a header may say anything: no room for what a cut leaves
cdef size_t KEPT_BUFFER_BYTES = 1 << 20  # a thread keeps this much between events, so that one huge event is not for ever


cdef int _write_otherwise(int result, rmp_producer* producer, rmp_buffer* buffer, const size_t* ends,
                          const rmp_envelope* envelope, str name, bytes stack) except -1:
    """What becomes of an event that did not go into the ring at once, as `result` says. Returns the ring's result."""
    cdef bint is_request = envelope.kind == KIND_CONTROL_CODE
    cdef uint32_t limit
    cdef rmp_envelope shorter
    if result == TOO_LONG:
        limit = _limit_of_too_long()
        if limit == 0:
            return RMP_FULL
        if ends[0] + 200 > limit:  # no room for the four markers: the name or the stack is the culprit
            shorter = envelope[0]
            if shorter.category == RMP_NAMED_CATEGORY:
                shorter.category = RMP_NO_CATEGORY
            return _emit_record(&shorter, name[:limit // 16], None, _ends_of(stack, limit // 2),
                                {_CUT_KEY: {"bytes": buffer.length}}, None, None, None)
        _cut(buffer, ends, limit, is_request)
        result = _write(rmp_producer_own(), buffer)
    if result == RMP_FULL and not _is_dropped():
        return _write_waiting(producer, buffer.bytes, <uint32_t>buffer.length, is_request)
    if result == RMP_FULL:
        _given_up(producer, is_request)
    if result == NO_SLOT:
        if _report_unregistered is not None:
            _report_unregistered()
        return RMP_FULL
    return RMP_SEALED if result < 0 else result  # below 0: the session has ended, and the event is outside it


cdef int _emit_record(const rmp_envelope* envelope, str name, str category_name, bytes stack, object data,
                      object metadata, object category_profile, object data_schema) except -1:
    """Encodes into the thread's buffer, then claims, copies and commits. Returns the ring's result."""
    cdef rmp_producer* producer = rmp_producer_own()
    cdef rmp_buffer buffer
    cdef size_t ends[5]
    cdef uint64_t conversions = conversions_run
    cdef int result = RMP_SEALED
    if producer == NULL:
        return RMP_SEALED
    # Conversions may run user code that emits: the buffer is out of its place meanwhile.
    buffer = producer.buffer
    producer.buffer.bytes, producer.buffer.length, producer.buffer.capacity = NULL, 0, 0
    buffer.length = 0
    try:
        _checked(rmp_write_envelope(&buffer, RECORD_FIELDS, envelope.kind, envelope.uuid, envelope.parent,
                                    envelope.timestamp_us))
        _write_name(&buffer, name)
        _write_category(&buffer, envelope.category, category_name)
        _checked(rmp_write_int(&buffer, envelope.attributes))
        _checked(rmp_write_int(&buffer, producer.thread_id))
        _write_stack(&buffer, stack)
        ends[0] = buffer.length
        _write_payload(&buffer, data, "data")
        ends[1] = buffer.length
        _write_payload(&buffer, metadata, "metadata")
        ends[2] = buffer.length
        _write_payload(&buffer, category_profile, "category_profile")
        ends[3] = buffer.length
        _write_payload(&buffer, data_schema, "data_schema")
        ends[4] = buffer.length
        if rmp_free_threaded or conversions_run != conversions:
            # User code may have run: this may be a forked child now.
            producer = rmp_producer_own()
        result = _write(producer, &buffer)
        if result != RMP_OK:
            result = _write_otherwise(result, producer, &buffer, ends, envelope, name, stack)
        return result
    finally:
        if producer != NULL and producer.buffer.bytes == NULL and buffer.capacity <= KEPT_BUFFER_BYTES:
            producer.buffer = buffer
        else:
            rmp_buffer_free(&buffer)


cdef object _replaced_hook = None


def set_replaced_hook(hook) -> None:
    """Tells who is told of each value that could not be recorded and was replaced: `hook(path, what)`. It must not raise."""
    global _replaced_hook
    _replaced_hook = hook


def _count_replaced(str path, str what) -> None:
    """The encoder has replaced a value in a payload of this thread's."""
    cdef rmp_producer* producer = rmp_producer_own()
    if producer != NULL and producer.slot:
        add_u64(&producer.counters.replaced, 1)
    if _replaced_hook is not None:
        _replaced_hook(path, what)


_set_encoders_hook(_count_replaced)

cdef object _event_hook = None


def set_event_hook(hook) -> None:
    """Sets what sees and may change each event's payloads before they are encoded; None: nothing does.

    It is called where the event is emitted, after it is known that somebody listens, with the arguments of `emit` less
    `not_before_us`, the timestamp being the one in use, and returns (data, metadata, category_profile, data_schema).
    Inherited by forked children.
    """
    global _event_hook
    _event_hook = hook


# What other compiled modules call: see core.pxd.

cdef bint is_listening() except -1:
    return _listening(_synced(_attached(True)))


cdef bint wants_stacks() noexcept:
    return _stacks_matter()


cdef uint64_t own_fork_epoch() noexcept:
    return rmp_fork_epoch()


cdef int64_t clock_us() noexcept:
    return <int64_t>rmp_realtime_us()


cdef void make_uuid7(uint8_t* uuid, int64_t now_us) noexcept:
    rmp_uuid7(uuid, <uint64_t>now_us)


cdef void attach_to(const rmp_segment* segment) noexcept:
    global _configuration_seen
    _configuration_seen = NEVER_SEEN
    rmp_attachment_set(segment)


cdef void detach() noexcept:
    rmp_attachment_clear()


cdef void close_mapping(rmp_segment* segment) noexcept:
    rmp_segment_close(segment, rmp_free_threaded)


cdef uint64_t enter_mapping(const rmp_segment* segment) noexcept:
    rmp_segment_keep(segment)
    return rmp_fork_epoch()


cdef void leave_mapping(const rmp_segment* segment, uint64_t entered) noexcept:
    cdef rmp_segment left = segment[0]
    if entered == rmp_fork_epoch():
        rmp_segment_close(&left, rmp_free_threaded)


cdef bint dispatches_here() noexcept:
    return rmp_dispatching == rmp_fork_epoch()


cdef tuple _hooked(const rmp_envelope* envelope, str name, object category_name, bytes stack, object data, object metadata,
                   object category_profile, object data_schema):
    """What the hook makes of the payloads."""
    cdef object category = category_name
    if envelope.category != RMP_NAMED_CATEGORY:
        category = None if envelope.category == RMP_NO_CATEGORY else envelope.category
    return _event_hook(envelope.kind, PyBytes_FromStringAndSize(<const char*>envelope.uuid, 16),
                       None if envelope.parent == NULL else PyBytes_FromStringAndSize(<const char*>envelope.parent, 16),
                       envelope.timestamp_us, name, category, envelope.attributes, stack, data, metadata, category_profile,
                       data_schema)


cdef int emit_event(const rmp_envelope* envelope, str name, object category_name, bytes stack, object data,
                    object metadata, object category_profile, object data_schema) except -1:
    """The one way of every verb's event into the ring. The caller has asked `is_listening`."""
    if _event_hook is not None:
        data, metadata, category_profile, data_schema = _hooked(envelope, name, category_name, stack, data, metadata,
                                                                category_profile, data_schema)
    return _emit_record(envelope, name, category_name, stack, data, metadata, category_profile, data_schema)


cdef const uint8_t* _uuid_bytes(bytes uuid) except NULL:
    if PyBytes_GET_SIZE(uuid) != 16:
        raise ValueError(f"a uuid has {PyBytes_GET_SIZE(uuid)} bytes; expected 16")
    return <const uint8_t*>PyBytes_AS_STRING(uuid)


def emit(int kind, bytes uuid not None, bytes parent, timestamp_us, int64_t not_before_us, str name not None, category,
         unsigned int attributes, bytes stack, data, metadata, category_profile, data_schema):
    """Encodes one event and commits it to the ring: once this has returned, it survives the process.

    When the ring is full: see the module's text. Any thread of any process; fork-safe; no lock, no I/O.

    Args:
        kind: KIND_SCOPE_START, KIND_SCOPE_END or KIND_MARK.
        uuid, parent: 16 bytes; parent may be None.
        timestamp_us: microseconds since the epoch; None: now, but not before `not_before_us`.
        category: None, an index into types.CATEGORIES, or a name.
        stack: uuids of the emitting stack, 16 bytes each, innermost first, or None.

    Returns:
        The timestamp used; 0 when nobody listens, in which case nothing was looked at.

    Raises:
        PayloadError: a payload cannot be encoded; nothing was emitted.
        ValueError: a uuid has not 16 bytes.
        UnicodeEncodeError: the name has a lone surrogate.
    """
    cdef rmp_envelope envelope
    if not is_listening():
        return 0
    envelope.kind = kind
    envelope.uuid = _uuid_bytes(uuid)
    envelope.parent = NULL if parent is None else _uuid_bytes(parent)
    envelope.attributes = attributes
    envelope.category = RMP_NO_CATEGORY
    if category is not None:
        envelope.category = RMP_NAMED_CATEGORY if type(category) is str else category
    envelope.timestamp_us = max(clock_us(), not_before_us) if timestamp_us is None else timestamp_us
    emit_event(&envelope, name, category if type(category) is str else None, stack, data, metadata, category_profile,
               data_schema)
    return envelope.timestamp_us


def emit_control(name: str, data) -> tuple:
    """Puts a request to the dispatcher into the stream, whether or not anybody subscribes.

    Returns:
        (slot, owner_seq) under which the reply will appear.

    Raises:
        SessionError: not attached, the session ended, or the ring stayed full.
        RegistryFullError: no slot left.
        PayloadError: `data` has what is not JSON; in a request nothing is replaced.
    """
    cdef rmp_producer* producer
    cdef rmp_slot* counters
    cdef uint64_t attachment
    cdef rmp_envelope envelope
    cdef uint8_t uuid[16]
    cdef int result = RMP_SEALED
    envelope.kind, envelope.category, envelope.attributes = KIND_CONTROL_CODE, RMP_NO_CATEGORY, 0
    envelope.timestamp_us = clock_us()
    make_uuid7(uuid, envelope.timestamp_us)
    envelope.uuid, envelope.parent = uuid, NULL
    data = Packed(pack(data))
    producer = rmp_producer_own()
    attachment = rmp_attachment_number()
    counters = producer.counters if producer != NULL and producer.slot else NULL
    if counters != NULL:
        rmp_slots_count_control(counters)
    try:
        result = _emit_record(&envelope, name, None, None, data, None, None, None)
    finally:
        producer = rmp_producer_own()
        if (result != RMP_OK and counters != NULL and producer != NULL and producer.counters == counters
                and rmp_attachment_number() == attachment):
            rmp_slots_uncount_control(counters)
    if producer != NULL and producer.slot == 0:
        raise RegistryFullError("every producer slot of the session is taken; raise max_producers (RELAY_MP_MAX_PRODUCERS)")
    if producer == NULL or result != RMP_OK:
        raise SessionError(f"the request {name!r} did not reach the dispatcher: the session has ended or its ring stayed full")
    return producer.slot, producer.owner_seq


cdef int KIND_CONTROL_CODE = 3
cdef int RECORD_FIELDS = 13
