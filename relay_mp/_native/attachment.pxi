# Which session this process emits to, and whether anybody listens. Included textually by core.pyx.

cdef object _resolve = None          # called once in a process that knows no session yet
cdef object _report_unregistered = None
cdef uint64_t _resolved_epoch = 0    # the process epoch in which _resolve has run


def set_hooks(resolve, report_unregistered) -> None:
    """Sets what runs when a process emits without knowing a session, and when all its slots are taken."""
    global _resolve, _report_unregistered
    _resolve = resolve
    _report_unregistered = report_unregistered


def stay_detached() -> None:
    """This process has left its session: it does not look for its parent's again by itself."""
    global _resolved_epoch
    _resolved_epoch = rmp_fork_epoch()


cdef rmp_segment* _attach_late() except? NULL:
    """Off the emit path: once per process, look for the session that the parent left word of."""
    global _resolved_epoch
    _resolved_epoch = rmp_fork_epoch()
    if _resolve is not None:
        _resolve()
    return rmp_attachment()


cdef inline rmp_segment* _attached() except? NULL:
    cdef rmp_segment* segment = rmp_attachment()
    if segment != NULL or _resolved_epoch == rmp_fork_epoch():
        return segment
    return _attach_late()


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
    return is_listening()


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
    """Whether the calling thread is the dispatcher's (and not a fork of it)."""
    return rmp_dispatching == rmp_fork_epoch()


def _note_free_threading() -> None:
    global rmp_free_threaded
    rmp_free_threaded = RMP_WITHOUT_GIL


_note_free_threading()
