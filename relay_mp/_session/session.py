"""A session: one segment, one owner, one dispatcher; and this process's place in it.

    owner      `session(...)`, or the first registration in a process that is attached to nothing
    attached   a child that found its parent's word (see inheritance.py), or called `attach(handle)`

A process is in one session at a time. When the ring is full, what emitters do is the session's
`on_full` setting. A forked child finds itself attached: it never closes, unlinks or dispatches what
its parent owns.
"""

import atexit
import logging
import os
import sys
import threading
import time
from types import TracebackType
from typing import Any, NamedTuple, Self

from relay_mp._deliver import named
from relay_mp._deliver.dispatcher import REPLY_ERROR, REPLY_OK
from relay_mp._deliver.registry import Callback, Registry, Subscription
from relay_mp._emit import carry, context, scope_end
from relay_mp._native import core
from relay_mp._native.core import Segment
from relay_mp._session import flush as flushing
from relay_mp._session import hosts, inheritance, naming, recovery
from relay_mp._session import settings as settings_module
from relay_mp._session.flush import FlushResult
from relay_mp._session.settings import Settings
from relay_mp._session.stats import Stats, collect
from relay_mp.errors import FlushError, PropagationError, SegmentError, SessionError, SubscriberError

logger = logging.getLogger("relay_mp")


class SessionHandle(NamedTuple):
    """Names a session to other processes of the same user on the same machine. Small, picklable."""

    path: str


class Session:
    """This process's part in a session. Made by `session`, `attach` or the first registration.

    Attributes:
        path: the segment's file.
        id: the session's id, unique over time.
        settings: what it was started with; None in processes that only attached.
    """

    def __init__(self, segment: Segment, settings: Settings | None, host: hosts.Host | None) -> None:
        self._segment = segment
        self._host = host
        self._registry: Registry | None = host.registry if host else None
        self._epoch = core.fork_epoch()
        self._final_stats: Stats | None = None
        self.settings = settings
        self.path: str = segment.path
        self.id: str = segment.session_id

    @property
    def handle(self) -> SessionHandle:
        """For `attach` in another process."""
        return SessionHandle(self.path)

    @property
    def is_owner(self) -> bool:
        """Whether this process started the session, and so closes it."""
        return self._host is not None and self._epoch == core.fork_epoch()

    @property
    def is_open(self) -> bool:
        """Whether events are still taken."""
        return bool(self._segment.is_open and self._segment.state == core.STATE_OPEN)

    @property
    def dispatches_elsewhere(self) -> bool:
        """Whether callbacks run in another process, where only named subscribers are found."""
        return self._registry is None

    def stats(self) -> Stats:
        """What became of the session's events, in all and by process.

        Any process, any time; of a session that this process has closed, as it ended.

        Raises:
            SessionError: this process has detached itself from a session of another's.
        """
        return self._final_stats or collect(self._segment)

    def flush(self, timeout: float | None = None) -> FlushResult:
        """Waits until everything emitted before, by any process, has been delivered.

        Args:
            timeout: seconds; default `flush_timeout_seconds`.

        Returns:
            The session's losses so far.

        Raises:
            FlushTimeoutError: not within `timeout`; nothing is lost by that.
            FlushError: called inside a subscriber's callback, or the dispatcher has died.
        """
        timeout_seconds = self._flush_timeout(timeout)
        try:
            return flushing.flush(self._segment, timeout_seconds, is_abandoned=self._is_abandoned)
        except SessionError:
            return self._flushed_by_close()

    async def flush_async(self, timeout: float | None = None) -> FlushResult:
        """`flush` for a running event loop."""
        timeout_seconds = self._flush_timeout(timeout)
        try:
            return await flushing.flush_async(self._segment, timeout_seconds, is_abandoned=self._is_abandoned)
        except SessionError:
            return self._flushed_by_close()

    def _flushed_by_close(self) -> FlushResult:
        """The result where another thread closed the session meanwhile: closing delivers everything too."""
        stats = self._final_stats
        if stats is None:
            raise SessionError(f"this process has left the session of {self.path}; attach to it again to flush")
        if stats.pending:
            raise FlushError(
                f"the session was closed during the flush, with {stats.pending} events not delivered in time"
            )
        return FlushResult(stats.lost, stats.causes)

    def _flush_timeout(self, timeout: float | None) -> float:
        """A timeout as the caller gave it, checked before anything is touched; else the session's."""
        if timeout is not None:
            if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
                raise TypeError(f"timeout is a {type(timeout).__name__}; expected seconds as a number, or None")
            if not 0 <= timeout <= threading.TIMEOUT_MAX:
                raise ValueError(f"timeout is {timeout}; expected 0 to {threading.TIMEOUT_MAX:.0f} seconds")
            return timeout
        return (self.settings or settings_module.resolve()).flush_timeout_seconds

    def _is_abandoned(self) -> bool:
        if self._host is not None and self.is_owner:
            return not self._host.is_alive()
        return flushing.nobody_delivers(self._segment)

    # ---- subscribers ----

    def register(
        self, name: str, callback: Callback | str, arguments: dict[str, Any] | None, scope: bytes | None
    ) -> None:
        """See subscribers.register and scope_local.register_subscriber."""
        if self._registry is None:
            named_target = callback if isinstance(callback, str) else named.name_of(callback)
            self._request("register", name=name, target=named_target, arguments=arguments, scope=scope)
            return
        self._registry.require_free(name, scope)
        target = callback if isinstance(callback, str) else None
        call = named.resolve(callback, arguments) if isinstance(callback, str) else callback
        subscription = Subscription(name, call, scope, target=target, arguments=arguments)
        self._registry.add(subscription, lambda: self._segment.tail)

    def deregister(self, name: str, scope: bytes | None) -> bool:
        """See subscribers.deregister and scope_local.deregister_subscriber."""
        if self._registry is None:
            return self.is_open and self._request("deregister", name=name, scope=scope) == REPLY_OK
        return self._registry.remove(name, scope, lambda: self._segment.tail)

    def close_scope(self, scope: bytes) -> None:
        """A scope of this process has ended: its local subscribers go at this place in the stream."""
        if self._registry is None:
            core.emit_control("close_scope", {"scope": _text(scope)})
        else:
            self._registry.close_scope(scope, lambda: self._segment.tail)

    def _request(self, verb: str, *, scope: bytes | None, **request: Any) -> int:
        """Asks the dispatcher, which is elsewhere, and waits for its answer."""
        slot, owner_seq = core.emit_control(verb, {**request, "scope": _text(scope)})
        self.flush()
        answered, code, text = self._segment.read_reply(slot)
        if answered != owner_seq:
            raise SubscriberError(f"the dispatcher did not answer the request to {verb} {request.get('name')!r}")
        if code == REPLY_ERROR:
            raise SubscriberError(text)
        return int(code)

    # ---- end ----

    def close(self, timeout: float | None = None) -> None:
        """Ends the session, if this process owns it: flush, stop, unlink. Else only detaches. Idempotent.

        Says on stderr if anything was lost.

        Args:
            timeout: seconds for delivering what is left; default `flush_timeout_seconds`.

        Raises:
            FlushError: called inside a subscriber's callback.
            TypeError, ValueError: the timeout is no number of seconds; the session goes on.
        """
        if core.is_dispatching():
            raise FlushError("a session cannot be closed inside a subscriber's callback: it would wait for itself")
        deadline = time.monotonic() + self._flush_timeout(timeout)
        with _state.ending():
            if self._segment.is_open:
                try:
                    if self.is_owner:
                        self._end(deadline)
                finally:
                    self._segment.close()
                    core.stay_detached()
            _state.forget(self)

    def _end(self, deadline: float) -> None:
        assert self._host is not None
        inheritance.withdraw(self.path)
        # Sealed before the drain: an event is either claimed before and delivered, or refused; never in between.
        self._segment.set_state(core.STATE_CLOSING)
        self._segment.seal()
        complete = False
        try:
            complete = self._host.stop(max(deadline - time.monotonic(), 0.0))
        finally:  # also if a Ctrl-C ends the wait: what is left is then told, and kept
            stats = self._final_stats = collect(self._segment, has_ended=complete)
            self._segment.set_state(core.STATE_CLOSED)
            if complete:
                self._segment.unlink()
            self._tell(stats, complete)

    def _tell(self, stats: Stats, complete: bool) -> None:
        if stats.lost or stats.subscriber_errors or not complete:
            _summarise(stats, None if complete else self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        role = "owner" if self.is_owner else "attached"
        return f"<relay_mp.Session {self.id} {role} {'open' if self.is_open else 'closed'}>"


def _text(scope: bytes | None) -> str | None:
    return None if scope is None else scope.hex()


def _summarise(stats: Stats, left_in: str | None) -> None:
    causes = ", ".join(f"{cause} {count}" for cause, count in stats.causes.items()) or "none"
    line = (
        f"relay_mp: {stats.emitted} events emitted, {stats.delivered} delivered, {stats.lost} lost ({causes}), "
        f"{stats.subscriber_errors} failures of subscribers"
    )
    if left_in:
        line += f"; {stats.pending} not delivered in time are in {left_in}, see relay_mp.recover"
    print(line, file=sys.stderr)


# ---- which session this process is in ----

_AFTER_CHILDREN = -100
"""Of multiprocessing's finalizers those with a negative priority run once the children are joined."""


def _join_children() -> None:
    # multiprocessing joins them at exit too, but, if it was imported first, only after this session has
    # closed, which would refuse what they still have to emit.
    process = sys.modules.get("multiprocessing.process")
    for child in process.active_children() if process is not None else ():
        if not child.daemon:
            child.join()


class _State:
    """The process's session. The lock is for starting, attaching and closing only."""

    def __init__(self) -> None:
        self._lock, self._ending = threading.RLock(), threading.RLock()
        self._lock_epoch = core.fork_epoch()
        self._session: Session | None = None
        self._atexit = False
        self._warned_unregistered = False
        self._inherited: context.ScopeHandle | None = None
        self._inherited_epoch = 0
        self.next_id: str | None = None

    def _renew_locks(self) -> None:
        # Another thread may have held one when this process was forked, and is not here to release it.
        if self._lock_epoch != core.fork_epoch():
            self._lock, self._ending = threading.RLock(), threading.RLock()
            self._lock_epoch = core.fork_epoch()

    def lock(self) -> threading.RLock:
        self._renew_locks()
        return self._lock

    def ending(self) -> threading.RLock:
        """Held while a session ends: the next one begins behind it. Taken before `lock`, if both are: who ends
        a session waits for callbacks, which may need `lock`."""
        self._renew_locks()
        return self._ending

    def get(self) -> Session | None:
        session = self._session
        if session is not None and session._epoch != core.fork_epoch():
            session = self._session = Session(session._segment, None, None)
            self._warned_unregistered = False
        if session is not None and not session._segment.is_open:
            session = self._session = None
        return session

    def set(self, session: Session) -> None:
        self._session = session
        self._warned_unregistered = False

    def forget(self, session: Session) -> None:
        if self._session is session:
            self._session = None

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
        util = sys.modules.get("multiprocessing.util")
        if util is not None:
            # Workers of multiprocessing end without atexit; a worker may own a session too.
            util.Finalize(None, self._at_exit, exitpriority=_AFTER_CHILDREN)

    def own(self, session: Session) -> None:
        """Makes a session, just started, the process's."""
        self.set(session)
        self._close_at_exit()
        inheritance.publish(session.path)

    def resolve(self) -> None:
        """Attaches to the session that the parent left word of, if it is open. Never raises."""
        with self.lock():
            path = inheritance.find_session()
            if self._session is None and path:
                try:
                    self._enter(_open(path))
                except (SessionError, OSError) as error:
                    logger.debug("the parent's session cannot be attached: %s", error)

    def inherited_scope(self) -> context.ScopeHandle | None:
        """The scope that this process was started under; None if none, or if it is malformed."""
        if self._inherited_epoch != core.fork_epoch():
            self._inherited_epoch = core.fork_epoch()
            text = inheritance.find_scope()
            try:
                self._inherited = carry.scope_from_text(text) if text else None
            except PropagationError as error:
                logger.warning("%s is ignored: %s", inheritance.SCOPE_VARIABLE, error)
        return self._inherited

    def _enter(self, segment: Segment) -> Session:
        segment.make_current()
        session = Session(segment, None, None)
        self.set(session)
        inheritance.publish(segment.path)
        return session

    def attach(self, path: str) -> Session:
        with self.ending(), self.lock():
            session = self.get()
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
        with self.ending(), self.lock():
            session = current()
            if session is not None and session.is_open:
                role = "owns" if session.is_owner else "is attached to"
                raise SessionError(
                    f"a session inside a session: this process {role} {session.path}; close that first, or use it "
                    "(registering a subscriber starts a session by itself: call session() before)"
                )
            if session is not None:
                session.close()
            recovery.sweep(settings.directory, settings.recovery_directory)
            return _start(settings, self._take_id())

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
    segment = Segment.attach(path)
    if segment.state != core.STATE_OPEN:
        segment.close()
        raise SegmentError(f"the session of {path} has ended")
    return segment


def _start(settings: Settings, session_id: str) -> Session:
    if not os.path.isdir(settings.directory):
        raise SegmentError(
            f"no segment can be made in {settings.directory!r}: there is no such directory; expected one of a memory "
            "file system (directory, RELAY_MP_DIRECTORY)"
        )
    segment = Segment.create(
        naming.segment_path(settings.directory, session_id),
        session_id=session_id,
        ring_bytes=settings.ring_bytes,
        max_producers=settings.max_producers,
        max_event_bytes=settings.max_event_bytes,
        subscriptions_bytes=settings_module.SUBSCRIPTIONS_BYTES,
        block_timeout_ns=int(settings.block_timeout_seconds * 1e9),
        stall_timeout_ns=int(settings.stall_timeout_seconds * 1e9),
        drop_when_full=settings.on_full == "drop",
        dispatcher_is_process=settings.dispatcher == "process",
    )
    host = None
    try:
        segment.make_current()
        host = hosts.start(segment)
        session = Session(segment, settings, host)
        _state.own(session)
    except BaseException:  # a Ctrl-C too
        if host is not None:
            segment.seal()
            host.stop(0.0)
        inheritance.withdraw(segment.path)
        segment.close()
        segment.unlink()
        raise
    return session


_state = _State()


def _session_path() -> str | None:
    session = current()
    return session.path if session is not None and session.is_open else None


def _close_scope(scope: bytes) -> None:
    session = current()
    if session is None or not session.is_open:
        return
    try:
        session.close_scope(scope)
    except SessionError as error:  # the scope has ended all the same
        logger.error("the local subscribers of scope %s could not be ended: %s", scope.hex(), error)


def current() -> Session | None:
    """The session that this process is in, found now if its parent left word of one; None if none."""
    core.active()  # looks for the parent's session once in a process
    return _state.get()


def current_or_default() -> Session:
    """The process's session; a default one is started where there is none."""
    found = current()
    if found is not None and found.is_open:
        return found
    if core.is_dispatching():
        return session()  # refuses, without waiting for who closes the session and waits for this callback
    with _state.ending(), _state.lock():
        found = current()
        return found if found is not None and found.is_open else session()


def session(
    *,
    dispatcher: str | None = None,
    on_full: str | None = None,
    block_timeout_seconds: float | None = None,
    stall_timeout_seconds: float | None = None,
    flush_timeout_seconds: float | None = None,
    ring_bytes: int | None = None,
    max_event_bytes: int | None = None,
    max_producers: int | None = None,
    directory: str | None = None,
    recovery_directory: str | None = None,
) -> Session:
    """Starts a session that this process owns. A context manager: leaving it closes the session.

    Every argument left out is taken from `RELAY_MP_<NAME>` in the environment, then from the defaults
    of `Settings`, where each is described. Children of any start method attach by themselves. What dead
    sessions of this user left in `directory` is first written out and removed.

    When the ring is full, emits block up to `block_timeout_seconds` and then drop (`on_full="block"`),
    or drop at once (`"drop"`); what is dropped is counted in `stats()` and marked in the stream.

    Returns:
        The session, already running.

    Raises:
        SessionError: this process is in a session already, a setting is wrong, or no dispatcher process
            could be started.
        SegmentError: the segment could not be made, as when shared memory is full.
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


def adopt(segment: Segment, registry: Registry) -> None:
    """Makes a dispatcher process a part of the session it dispatches: its callbacks may emit and register."""
    segment.make_current()
    session = Session(segment, None, None)
    session._registry = registry
    _state.set(session)


def shutdown(timeout: float | None = None) -> None:
    """Closes this process's session, if it is in one: what the end of the process does by itself.

    Args:
        timeout: see `Session.close`.
    """
    session = current()
    if session is not None:
        session.close(timeout)


def session_id() -> str:
    """The id of this process's session, or of the next one it starts."""
    current()
    return _state.session_id()


core.set_hooks(_state.resolve, _state.report_unregistered)
context.set_session_hook(_session_path)
context.set_inherited_hook(_state.inherited_scope)
scope_end.set_end_hook(_close_scope)
