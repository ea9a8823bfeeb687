"""Which session this process is in, and how it got there.

    owner      `session(...)`, or the first registration in a process that is attached to nothing
    attached   a child that found its parent's word (see inheritance.py), or called `attach(handle)`

A process is in one session at a time. The word is looked for once in a process, at its first emit or
registration; a forked child has its parent's session without looking.
"""

import atexit
import os

from relay_mp._deliver.subscriptions import Subscriptions
from relay_mp._emit import carry, context, replaced
from relay_mp._emit.current import set_inherited_hook
from relay_mp._emit.handle import ScopeHandle
from relay_mp._emit.locks import ForkSafeRLock
from relay_mp._log import logger
from relay_mp._native import core
from relay_mp._native.segments import Segment
from relay_mp._session import attaching, hosts, inheritance, naming, placing, pool_workers, recovery
from relay_mp._session import settings as settings_module
from relay_mp._session.configuration import publishing, receiving
from relay_mp._session.session import Session, SessionHandle, ending
from relay_mp._session.settings import Settings
from relay_mp._session.shared import JoinedSession
from relay_mp._session.unrecorded import NO_PATH, UnrecordedSession, is_of_the_surroundings
from relay_mp._threads import nap, switches
from relay_mp.errors import PropagationError, SegmentError, SessionError

_AFTER_CHILDREN = -100
"""Of multiprocessing's finalizers those with a negative priority run once the children are joined."""


def _join_children() -> None:
    # multiprocessing joins them at exit too, but, if it was imported first, only after this session has
    # closed, which would refuse what they still have to emit.
    for process in inheritance.loaded("process"):
        for child in process.active_children():
            if not child.daemon:
                child.join()


class _State:
    """The process's session. The lock is for starting and attaching only, never for an emit."""

    def __init__(self) -> None:
        self.lock = ForkSafeRLock()
        self._session: Session | None = None
        self._atexit = False
        self._warned_unregistered = False
        self._attempts: attaching.Attempts | None = None
        self._inherited: ScopeHandle | None = None
        self._inherited_epoch = 0
        self.next_id: str | None = None
        self.lent: Session | None = None

    def get(self) -> Session | None:
        session = self._session
        if session is None or not session._is_here:
            self._session = None  # closed, here or in the parent before the fork
        elif session._is_copy:
            self._session = session._in_child()
            self._warned_unregistered = False
        return self._session

    def set(self, session: Session) -> None:
        self._session = session
        self._warned_unregistered = False

    def _at_exit(self) -> None:
        session = self.get()
        if session is not None and session.is_owner:
            _join_children()
            session.close()

    def _close_at_exit(self) -> None:
        """Sees to it that the end of the process closes its session."""
        if not self._atexit:
            self._atexit = True
            atexit.register(self._at_exit)
        for util in inheritance.loaded("util"):
            # Workers of multiprocessing end without atexit; a worker may own a session too.
            util.Finalize(None, self._at_exit, exitpriority=_AFTER_CHILDREN)

    def own(self, session: Session) -> None:
        """Makes a session, just started, the process's."""
        self.set(session)
        self._close_at_exit()
        inheritance.publish(session.path)

    def resolve(self, is_for_event: bool) -> bool:
        """Attaches to the session that the parent left word of, if it is open. Never raises.

        Returns:
            Whether that goes on and cannot be attached yet: this is to be asked again. If it `is_for_event`, that event
            is counted once it can.
        """
        with self.lock:
            path = inheritance.find_session()
            if self.get() is not None or not path:
                return False
            if self._attempts is None or not self._attempts.is_of_this_process:
                self._attempts = attaching.Attempts(path)
            if not self._attempts.is_due(is_for_event):
                return True
            try:
                found = attaching.find(path)
                if isinstance(found, str):
                    logger.debug("the parent's session is not attached: %s", found)
                elif recovery.is_of_past_image(found):
                    inheritance.withdraw(path)
                    recovery.end_past_image(found)
                    found.close()
                else:
                    self._enter(found)
                    self._attempts.settle(found)
            except (SessionError, OSError) as error:
                self._attempts.note_failure(error, is_for_event)
                return True
            return False

    def inherited_scope(self) -> ScopeHandle | None:
        """The scope that this process was started under; None if none, if it is malformed, or in a pool's worker."""
        if pool_workers.is_pool_worker():
            pool_workers.warn_once()
            return None
        if self._inherited_epoch != core.fork_epoch():
            self._inherited_epoch = core.fork_epoch()
            text = inheritance.find_scope()
            try:
                self._inherited = carry.scope_from_text(text) if text else None
            except PropagationError as error:
                logger.warning("%s is ignored: %s", inheritance.SCOPE_VARIABLE, error)
        return self._inherited

    def _enter(self, segment: Segment) -> Session:
        receiving.enter(segment)
        segment.make_current()
        session = Session(segment)
        self.set(session)
        inheritance.publish(segment.path)
        return session

    def attach(self, path: str) -> Session:
        with ending, self.lock:
            session = self.get()
            if path == NO_PATH:
                if session is not None and session.is_open:
                    return session
                return self._go_on_unrecorded(None, "the session's owner could not start it")
            if session is not None:
                if session.path == path and session.is_open:
                    return session
                if session.is_owner:
                    raise SessionError(
                        f"this process owns the session of {session.path}; close it before attaching to {path}"
                    )
            segment = _open(path)  # before the old one is left: if it raises, that goes on
            if session is not None:
                session.close()
            return self._enter(segment)

    def start(self, settings: Settings) -> Session:
        if core.is_dispatching():
            raise SessionError(
                "a session cannot be started inside a subscriber's callback, whose own session is closing: "
                "register before it is closed"
            )
        with ending, self.lock:
            session = current_session()
            if session is not None and session.is_open and session is self.lent:
                return JoinedSession(session)
            if session is not None and session.is_open and session.is_recorded:
                raise SessionError(f"a session inside a session: this process {_way_out(session)}")
            if session is not None:
                session.close()
            try:
                return _start(settings, self._take_id())
            except Exception as error:
                if settings.strict and isinstance(
                    error, OSError
                ):  # of a module that is loaded late, without descriptors
                    raise SegmentError(f"the session cannot start: {error}") from error
                if settings.strict or not is_of_the_surroundings(error):
                    raise
                return self._go_on_unrecorded(settings, str(error))

    def _go_on_unrecorded(self, settings: Settings | None, why: str) -> Session:
        session = UnrecordedSession(settings, self._take_id(), why)
        self.set(session)
        if settings is not None:
            logger.error(
                "nothing is recorded, for the session could not start: %s. The program goes on; strict=True "
                "(RELAY_MP_STRICT=1) makes this an error",
                why,
            )
        return session

    def session_id(self) -> str:
        """The session's id, or the one that the next session of this process will have."""
        session = self.get()
        if session is not None:
            return session.id
        if self.next_id is None:
            self.next_id = naming.new_session_id()
        return self.next_id

    def _take_id(self) -> str:
        session_id, self.next_id = self.session_id(), None
        return session_id

    def report_unregistered(self) -> None:
        if not self._warned_unregistered:
            self._warned_unregistered = True
            logger.error(
                "process %d cannot emit: every producer slot of the session is taken; its events are counted as lost "
                "(unregistered). Raise max_producers (RELAY_MP_MAX_PRODUCERS)",
                core.process_self()[0],
            )


def _open(path: str) -> Segment:
    found = attaching.find(path)
    if isinstance(found, str):
        raise SegmentError(found)
    return found


def _way_out(session: Session) -> str:
    if session.is_owner:
        return (
            f"owns {session.path}; close that first, or use it "
            "(registering a subscriber starts a session by itself: call session() before)"
        )
    if inheritance.imports_main():
        return (
            f"is a worker that imports the main program, whose session is {session.path}. Start the session there "
            'under `if __name__ == "__main__":`, as everything that a worker must not run again'
        )
    return (
        f"is attached to {session.path}, which another process owns; emit and register without session() here, or "
        "take relay_mp.current_session()"
    )


def _start(settings: Settings, session_id: str) -> Session:
    pool_workers.warn_of_older()
    for directory in placing.directories(settings):
        recovery.sweep(directory, settings.recovery_directory)
    segment, settings = placing.place(settings, session_id)
    host = None
    try:
        segment.make_current()
        publishing.own(segment)
        host = hosts.start(segment, settings)
        session = Session(segment, settings, host, host.subscriptions)
        _state.own(session)
        if settings.on_sigterm == "flush":
            from relay_mp._session import termination

            termination.heed(session)
    except BaseException:  # a Ctrl-C too
        if host is not None:
            segment.seal()
            host.stop(0.0)
        receiving.leave(segment)
        inheritance.withdraw(segment.path)
        segment.close()
        segment.unlink()
        raise
    return session


_state = _State()


def _session_path() -> str | None:
    session = current_session()
    return (session.path or None) if session is not None and session.is_open else None


def end_local_subscriptions(scope: bytes) -> None:
    """A scope with local subscribers has ended: they end at this place of the stream."""
    session = current_session()
    if session is None or not session.is_open:
        return
    try:
        session.close_scope(scope)
    except SessionError as error:  # the scope has ended all the same
        logger.error("the local subscribers of scope %s could not be ended: %s", scope.hex(), error)


def current_session() -> Session | None:
    """The session that this process is in, None where it is in none.

    A child process attaches to its parent's session here, if it has not emitted anything yet. No session is started.
    The session may have ended: see `Session.is_open`. Any thread of any process.
    """
    core.active()  # looks for the parent's session once in a process
    return _state.get()


def current_or_default() -> Session:
    """The process's session; a default one is started where there is none."""
    found = current_session()
    if found is not None and found.is_open:
        return found
    if core.is_dispatching():
        return session()  # refuses, without waiting for who closes the session and waits for this callback
    with ending, _state.lock:
        found = current_session()
        return found if found is not None and found.is_open else session()


def session(
    *,
    dispatcher: str | None = None,
    on_full: str | None = None,
    block_timeout_seconds: float | None = None,
    stall_timeout_seconds: float | None = None,
    flush_timeout_seconds: float | None = None,
    max_deliveries: int | None = None,
    max_restarts: int | None = None,
    ring_bytes: int | None = None,
    min_ring_bytes: int | None = None,
    max_event_bytes: int | None = None,
    max_producers: int | None = None,
    configuration_bytes: int | None = None,
    allowed_subscribers: str | None = None,
    max_open_scopes: int | None = None,
    max_open_bytes: int | None = None,
    directory: str | None = None,
    recovery_directory: str | None = None,
    strict: bool | None = None,
    on_sigterm: str | None = None,
    sigterm_timeout_seconds: float | None = None,
) -> Session:
    """Starts a session that this process owns. A context manager: leaving it closes the session.

    Every argument left out is taken from `RELAY_MP_<NAME>` in the environment, then from the defaults
    of `Settings`, where each is described. Children of any start method attach by themselves. What dead
    sessions of this user left in `directory` is first written out and removed.

    When the ring is full, emits block up to `block_timeout_seconds` and then drop (`on_full="block"`),
    or drop at once (`"drop"`); what is dropped is counted in `stats()` and marked in the stream.

    Where there is no room for `ring_bytes`, the ring is smaller, down to `min_ring_bytes`, and then in the temporary
    directory, unless `directory` is given; a warning says so. A session that cannot start at all costs the program
    nothing: one line in the log says why, the program goes on, nothing is recorded, and `stats().unrecorded` says so.

    Returns:
        The session, already running.

    Raises:
        SessionError: this process is in a session already, or a setting is wrong. With `strict`: no dispatcher
            process could be started.
        SegmentError: with `strict`: the segment could not be made, as when shared memory is full.
    """
    arguments = {name: value for name, value in locals().items() if value is not None}
    return _state.start(settings_module.resolve(**arguments))


def attach(handle: SessionHandle | str) -> Session:
    """Attaches this process to a session; for a pool's initializer, where children do not by themselves.

    Args:
        handle: `session.handle`, or a segment's path.

    Returns:
        This process's part in the session. Idempotent.

    Raises:
        SegmentError: no such session, or its segment is foreign, truncated, or of another version.
        SessionError: this process owns another session.
        TypeError: the handle is neither.
    """
    return _state.attach(handle.path if isinstance(handle, SessionHandle) else os.fspath(handle))


def adopt(segment: Segment, subscriptions: Subscriptions) -> None:
    """Makes a dispatcher process a part of the session it dispatches: its callbacks may emit and register."""
    receiving.enter(segment)
    segment.make_current()
    _state.set(Session(segment, subscriptions=subscriptions))


def shutdown(timeout: float | None = None) -> None:
    """Closes this process's session, if it is in one: what the end of the process does by itself.

    Args:
        timeout: see `Session.close`.
    """
    session = current_session()
    if session is not None:
        session.close(timeout)


def lend(session: Session | None) -> None:
    """Lends this process's session to what calls `session()` meanwhile, which joins it; None: to nobody any more."""
    _state.lent = session


def session_id() -> str:
    """The id of this process's session, or of the next one it starts."""
    current_session()
    return _state.session_id()


core.set_hooks(_state.resolve, _state.report_unregistered)
core.set_replaced_hook(replaced.tell)
core.set_greenlet_hooks(switches, nap)
context.set_session_hook(_session_path)
set_inherited_hook(_state.inherited_scope)
