# From a verb's arguments to a committed record, in one call. Included textually by core.pyx.

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
    text = PyUnicode_AsUTF8AndSize(<PyObject*>name, &length)
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


cdef int _cut(rmp_buffer* buffer, const size_t* ends, uint32_t limit) except -1:
    """Replaces payloads by their sizes, the largest first, until the record fits.

    `ends[0]` is where the first payload starts, `ends[i + 1]` where payload i ends.
    """
    cdef bint kept[4]
    cdef size_t total = ends[4], largest
    cdef int i, victim
    cdef rmp_buffer shorter
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
        total -= largest - 40
    shorter.bytes, shorter.length, shorter.capacity = NULL, 0, 0
    try:
        _checked(rmp_write_raw(&shorter, buffer.bytes, ends[0]))
        for i in range(4):
            if kept[i]:
                _checked(rmp_write_raw(&shorter, buffer.bytes + ends[i], ends[i + 1] - ends[i]))
            else:
                _write_payload(&shorter, {"relay_mp.cut": {"bytes": ends[i + 1] - ends[i] - 5}}, "cut")
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
    if process.pid and rmp_process_liveness(process) != DEAD_CODE:
        return False
    if not ring.header.dispatcher_is_process:
        return True
    process.pid = ring.header.owner_pid  # who starts the next one
    process.start_time = ring.header.owner_start_time
    return rmp_process_liveness(process) == DEAD_CODE


cdef int DEAD_CODE = 1


cdef inline void _number(rmp_producer* producer) noexcept:
    """Gives the thread's next event its number: from here on it counts as emitted, whatever becomes of it."""
    producer.owner_seq += 1
    store_u64(&producer.counters.emitted, producer.owner_seq)


cdef inline void _take_number_back(rmp_producer* producer) noexcept:
    """The event was never emitted after all. Only for the newest number."""
    producer.owner_seq -= 1
    store_u64(&producer.counters.emitted, producer.owner_seq)


cdef inline void _sealed_out(const rmp_ring* ring, rmp_producer* producer) noexcept:
    """The ring is sealed. The session has ended in between, and the event is outside it; or it is broken."""
    if load_u32(&ring.header.session_state) == RMP_BROKEN:
        add_u64(&producer.counters.lost_corrupt, 1)
    else:
        _take_number_back(producer)


cdef int _write_waiting(const rmp_ring* shared, rmp_producer* producer, const void* payload, uint32_t length) except -1:
    """The ring was full: wait for space, GIL released, until the session's deadline."""
    cdef rmp_ring ring = shared[0]
    cdef uint64_t epoch = rmp_fork_epoch()
    cdef uint64_t now = rmp_monotonic_ns()
    cdef uint64_t deadline = now + ring.header.block_timeout_ns
    cdef uint64_t look_for_dispatcher = now
    cdef int result = RMP_FULL
    rmp_attachment_enter()
    try:
        while now < deadline and load_u32(&ring.header.session_state) == RMP_OPEN:
            if now >= look_for_dispatcher:
                if _nobody_drains(&ring):
                    break
                look_for_dispatcher = now + 100_000_000
            with nogil:
                rmp_ring_wait_for_space(&ring, length, deadline - now)
                result = rmp_ring_write(&ring, producer.slot, producer.owner_seq, payload, length)
            if result != RMP_FULL:
                break
            # A signal handler may emit, which has to come first in the thread's numbers; or fork, after
            # which the child has a slot of its own; or close the session.
            _take_number_back(producer)
            try:
                PyErr_CheckSignals()
            finally:
                producer = rmp_producer_own()
                if producer != NULL and producer.slot:
                    _number(producer)
                else:
                    producer = NULL
            if producer == NULL:
                break
            now = rmp_monotonic_ns()
    finally:
        if epoch == rmp_fork_epoch():
            rmp_attachment_leave()
        if producer != NULL and result == RMP_FULL:
            add_u64(&producer.counters.lost_full, 1)
    if producer != NULL and result == RMP_SEALED:
        _sealed_out(&ring, producer)
    return result


cdef int _commit(const rmp_ring* ring, rmp_producer* producer, rmp_buffer* buffer) except -1:
    cdef int result
    _number(producer)
    result = rmp_ring_write(ring, producer.slot, producer.owner_seq, buffer.bytes, <uint32_t>buffer.length)
    if result == RMP_SEALED:
        _sealed_out(ring, producer)
    if result != RMP_FULL:
        return result
    if ring.header.drop_when_full or rmp_dispatching == rmp_fork_epoch():
        add_u64(&producer.counters.lost_full, 1)
        return result
    return _write_waiting(ring, producer, buffer.bytes, <uint32_t>buffer.length)


cdef uint32_t SMALLEST_LIMIT = 1024  # settings refuse such a limit, a header may say anything: no room for what a cut leaves
cdef size_t KEPT_BUFFER_BYTES = 1 << 20  # a thread keeps this much between events, so that one huge event is not for ever


cdef int _emit_record(const rmp_envelope* envelope, str name, str category_name, bytes stack, object data,
                      object metadata, object category_profile, object data_schema) except -1:
    """Encodes into the thread's buffer, then claims, copies and commits. Returns the ring's result."""
    cdef rmp_producer* producer = rmp_producer_own()
    cdef rmp_segment* segment
    cdef rmp_buffer buffer
    cdef size_t ends[5]
    cdef uint32_t limit
    cdef rmp_envelope shorter
    cdef uint64_t conversions = rmp_conversions
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
        segment = rmp_attachment()
        if rmp_free_threaded or rmp_conversions != conversions:
            # User code may have run: the session may have ended, or this may be a forked child now.
            producer = rmp_producer_own()
        if segment == NULL or producer == NULL:
            return RMP_SEALED
        if producer.slot == 0:
            add_u64_ordered(&segment.ring.header.lost_unregistered, 1)
            if _report_unregistered is not None:
                _report_unregistered()
            return RMP_FULL
        limit = segment.ring.max_payload_bytes
        if buffer.length > limit:
            if limit < SMALLEST_LIMIT:
                _number(producer)
                add_u64(&producer.counters.lost_full, 1)
                return RMP_FULL
            add_u64(&producer.counters.cut, 1)
            if ends[0] + 200 > limit:  # no room for the four markers: the name or the stack is the culprit
                shorter = envelope[0]
                if shorter.category == RMP_NAMED_CATEGORY:
                    shorter.category = RMP_NO_CATEGORY
                return _emit_record(&shorter, name[:limit // 16], None, _ends_of(stack, limit // 2),
                                    {"relay_mp.cut": {"bytes": buffer.length}}, None, None, None)
            _cut(&buffer, ends, limit)
        result = _commit(&segment.ring, producer, &buffer)
        return result
    finally:
        if producer != NULL and producer.buffer.bytes == NULL and buffer.capacity <= KEPT_BUFFER_BYTES:
            producer.buffer = buffer
        else:
            rmp_buffer_free(&buffer)


cdef object _event_hook = None


def set_event_hook(hook) -> None:
    """Sets what sees and may change each event's payloads before they are encoded; None: nothing does.

    It is called where the event is emitted, after it is known that somebody listens, with the arguments of `emit` less
    `not_before_us`, the timestamp being the one in use, and returns (data, metadata, category_profile, data_schema).
    Inherited by forked children.
    """
    global _event_hook
    _event_hook = hook


# What relay_mp._emit.verbs calls: see core.pxd.

cdef bint is_listening() except -1:
    return _listening(_synced(_attached()))


cdef bint wants_stacks() noexcept:
    return _stacks_matter()


cdef uint64_t own_fork_epoch() noexcept:
    return rmp_fork_epoch()


cdef int64_t clock_us() noexcept:
    return <int64_t>rmp_realtime_us()


cdef void make_uuid7(uint8_t* uuid, int64_t now_us) noexcept:
    rmp_uuid7(uuid, <uint64_t>now_us)


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
    """
    cdef rmp_producer* producer
    cdef rmp_slot* counters
    cdef rmp_envelope envelope
    cdef uint8_t uuid[16]
    cdef int result = RMP_SEALED
    envelope.kind, envelope.category, envelope.attributes = KIND_CONTROL_CODE, RMP_NO_CATEGORY, 0
    envelope.timestamp_us = clock_us()
    make_uuid7(uuid, envelope.timestamp_us)
    envelope.uuid, envelope.parent = uuid, NULL
    producer = rmp_producer_own()
    counters = producer.counters if producer != NULL and producer.slot else NULL
    if counters != NULL:
        rmp_slots_count_control(counters)
    try:
        result = _emit_record(&envelope, name, None, None, data, None, None, None)
    finally:
        producer = rmp_producer_own()
        if result != RMP_OK and counters != NULL and producer != NULL and producer.counters == counters:
            rmp_slots_uncount_control(counters)
    if producer != NULL and producer.slot == 0:
        raise RegistryFullError("every producer slot of the session is taken; raise max_producers (RELAY_MP_MAX_PRODUCERS)")
    if producer == NULL or result != RMP_OK:
        raise SessionError(f"the request {name!r} did not reach the dispatcher: the session has ended or its ring stayed full")
    return producer.slot, producer.owner_seq


cdef int KIND_CONTROL_CODE = 3
cdef int RECORD_FIELDS = 13
