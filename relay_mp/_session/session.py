"""A session: one segment, one owner, one dispatcher; and this process's place in it.

    owner      the process that started it: holds the dispatcher, or started its process; closes it
    attached   any other: emits into it, flushes it, leaves it

Which session a process is in, and how it gets there, is membership.py's. When the ring is full, what
emitters do is the session's `on_full` setting. A forked child finds itself attached: it never closes,
unlinks or dispatches what its parent owns.
"""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from relay_mp._deliver import named
from relay_mp._deliver.replacement import Named
from relay_mp._deliver.reports import ExporterReport
from relay_mp._deliver.subscriptions import Callback, Subscriptions
from relay_mp._deliver.table import load_reports
from relay_mp._emit.locks import ForkSafeRLock
from relay_mp._log import logger
from relay_mp._native import core
from relay_mp._native.segments import Segment
from relay_mp._session import dispatch, hosts, inheritance, recovery
from relay_mp._session import flush as flushing
from relay_mp._session import settings as settings_module
from relay_mp._session.configuration import receiving
from relay_mp._session.flush import FlushResult
from relay_mp._session.interrupts import OneInterrupt
from relay_mp._session.notebook import is_notebook
from relay_mp._session.settings import Settings
from relay_mp._session.stats import Stats, collect
from relay_mp.errors import FlushError, SessionError, described_type

ending = ForkSafeRLock()
"""Held while a session ends: the next one begins behind it. Taken before membership's lock, if both are:
who ends a session waits for callbacks, which may need that one."""


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

    def __init__(
        self,
        segment: Segment,
        settings: Settings | None = None,
        host: hosts.Host | None = None,
        subscriptions: Subscriptions | None = None,
        inherited: frozenset[str] = frozenset(),
    ) -> None:
        """The owner passes its settings and host; who dispatches in this process, the dispatcher's subscriptions.

        `inherited`: in a forked child, the subscribers that the process it was forked from had registered.
        """
        self._segment = segment
        self._host = host
        self._own_dispatch = dispatch.choose(segment, subscriptions, self.flush)
        self._registered: set[str] = set()
        self._inherited = inherited
        self._epoch = core.fork_epoch()
        self._final_stats: Stats | None = None
        self.after_close: Callable[[], None] | None = None
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
        return self._host is not None and not self._is_copy

    @property
    def is_recorded(self) -> bool:
        """Whether it has started: one that cannot takes everything and records nothing, see `stats().unrecorded`."""
        return True

    @property
    def _is_here(self) -> bool:
        """Whether this process is still in the session."""
        return bool(self._segment.is_open)

    @property
    def _is_copy(self) -> bool:
        """Whether this is a forked child, which has its parent's object: it can end nothing of the parent's."""
        return self._epoch != core.fork_epoch()

    def _in_child(self) -> "Session":
        """What a forked child has in place of this: a part in the session of its own."""
        return Session(self._segment, inherited=self._inherited | self._registered)

    @property
    def _dispatch(self) -> dispatch.Dispatch:
        # A copy of the dispatcher's subscriptions is nobody's: to write them down would undo what the parent has now.
        return dispatch.choose(self._segment, None, self.flush) if self._is_copy else self._own_dispatch

    @property
    def is_open(self) -> bool:
        """Whether events are still taken."""
        return dispatch.takes_events(self._segment)

    @property
    def dispatches_elsewhere(self) -> bool:
        """Whether callbacks run in another process, where only named subscribers are found."""
        return self._dispatch.is_remote

    @property
    def has_dispatcher_process(self) -> bool:
        """Whether the owner started it with `dispatcher="process"`."""
        return bool(self._segment.dispatcher_is_process)

    def stats(self) -> Stats:
        """What became of the session's events, in all and by process.

        Any process, any time; of a session that this process has closed, as it ended.

        Raises:
            SessionError: this process has detached itself from a session of another's.
        """
        if self._final_stats is not None:
            return self._final_stats
        try:
            self._dispatch.publish_reports()
            return collect(self._segment)
        except SessionError:
            if self._final_stats is not None:  # another thread has closed it meanwhile
                return self._final_stats
            raise

    def flush(self, timeout: float | None = None) -> FlushResult:
        """Waits until everything emitted before, by any process, has been delivered.

        Args:
            timeout: seconds; default `flush_timeout_seconds`.

        Returns:
            The session's losses so far.

        Raises:
            FlushTimeoutError: not within `timeout`; nothing is lost by that.
            FlushError: called inside a subscriber's callback, the dispatcher has died, or the ring is damaged
                beyond reading.
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
                raise TypeError(f"timeout is {described_type(timeout)}; expected seconds as a number, or None")
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
        if scope is None:
            self.make_way(name)
            if self.is_known(name, callback):
                return
        self._allow(callback, arguments)
        self._dispatch.register(name, callback, arguments, scope)
        if scope is None:
            self._registered.add(name)
            self._inherited -= {name}

    def _allow(self, callback: Callback | str, arguments: dict[str, Any] | None) -> None:
        """What the owner registers, other processes may register too."""
        if self._host is None or not self.is_owner:
            return
        if isinstance(callback, str):
            self._host.allowed.note(callback, arguments)
        elif self.dispatches_elsewhere:
            self._host.allowed.note(named.name_of(callback), None)

    def is_known(self, name: str, callback: Callback | str) -> bool:
        """Whether this is a worker, and its session has that very subscriber already: it stays, and is not ours to end.

        So a module that registers as it is imported can be imported in workers.

        Raises:
            SubscriberError: the session has another one of that name.
        """
        if self.is_owner or core.is_dispatching() or name in self._registered:
            return False
        if not self._dispatch.is_known(name, callback):
            return False
        self._inherited |= {name}
        return True

    def make_way(self, name: str) -> bool:
        """Ends the subscriber of that name, in a notebook that registers it again. Whether there was one."""
        if not (self.is_owner and is_notebook() and not core.is_dispatching() and self.deregister(name, None)):
            return False
        self.flush()
        return True

    def deregister(self, name: str, scope: bytes | None) -> bool:
        """See subscribers.deregister and scope_local.deregister_subscriber."""
        if scope is None:
            inherited = self._inherited | self._registered if self._is_copy else self._inherited
            if name in inherited:
                logger.warning(
                    "subscriber %r is not ended: the process that this one was forked from has registered it",
                    name,
                )
                return False
            self._registered.discard(name)
        return self._dispatch.deregister(name, scope)

    def replace(self, remove: Sequence[str], add: Sequence[Named]) -> None:
        """Ends global named subscribers and begins others, at one place in the stream: see `_deliver.replacement`.

        To exchange some for others takes until the dispatcher has come to that place.

        Raises:
            SubscriberError, SessionError: all are as before.
            FlushTimeoutError: the dispatcher has not come there within the session's flush timeout; it does it then.
        """
        for each in add:
            self._allow(each.target, each.arguments)
        self._dispatch.replace(remove, add)
        self._registered.update(each.name for each in add)

    def subscriber_names(self) -> list[str]:
        """The live global subscribers, as far as this process knows them: the owner does."""
        return self._dispatch.subscriber_names()

    def request_exporter_flush(self, name: str) -> ExporterReport | None:
        """Makes the exporter of that name send what it has gathered, and tells how far it is; None: there is none."""
        self._dispatch.request_flush(name)
        return load_reports(self._segment).get(name)

    def exporter_reports(self) -> dict[str, ExporterReport]:
        """What exporters say of themselves, by the name they are registered under; see `Stats.exporters`."""
        if self._final_stats is not None:
            return self._final_stats.exporters
        self._dispatch.publish_reports()
        return load_reports(self._segment)

    def close_scope(self, scope: bytes) -> None:
        """A scope of this process has ended: its local subscribers go at this place in the stream."""
        self._dispatch.close_scope(scope)

    # ---- end ----

    def close(self, timeout: float | None = None) -> None:
        """Ends the session, if this process owns it: flush, stop, unlink. Else only detaches. Idempotent.

        Says on stderr if anything was lost.

        Args:
            timeout: seconds for delivering what is left; default `flush_timeout_seconds`.

        Raises:
            FlushError: called inside a subscriber's callback.
            TypeError, ValueError: the timeout is not a number of seconds; the session goes on.
        """
        if core.is_dispatching():
            raise FlushError("a session cannot be closed inside a subscriber's callback: it would wait for itself")
        deadline = time.monotonic() + self._flush_timeout(timeout)
        with ending, OneInterrupt():
            if self._segment.is_open:
                try:
                    if self.is_owner:
                        self._end(deadline)
                finally:
                    receiving.leave(self._segment)
                    self._segment.close()
                    core.stay_detached()
        if self.after_close is not None:
            self.after_close()

    def _end(self, deadline: float) -> None:
        assert self._host is not None
        complete = False
        try:
            # Sealed before the drain: an event is either claimed before and delivered, or refused; never in between.
            self._segment.set_state(core.STATE_CLOSING)
            self._segment.seal()
            complete = self._host.stop(max(deadline - time.monotonic(), 0.0))
        finally:  # also if a Ctrl-C ends the wait: what is left is then told, and kept
            try:
                if not complete:
                    self._segment.seal()
                    self._host.stop(0.0)
            finally:
                self._leave(complete)

    def _leave(self, complete: bool) -> None:
        try:
            self._tell(complete)
        finally:
            self._segment.set_state(core.STATE_CLOSED)
            if complete:
                self._segment.unlink()
            inheritance.withdraw(self.path)

    def _tell(self, complete: bool) -> None:
        try:
            stats = self._final_stats = collect(self._segment, has_ended=complete, has_stopped=True)
        except (ImportError, OSError) as error:  # as when NumPy is first needed here, and descriptors have run out
            print(f"relay_mp: what became of the events of {self.path} cannot be told: {error}", file=sys.stderr)
            return
        left = None
        if not complete:
            left = f"{stats.pending} not delivered in time {self._where_left()}"
            stats = self._final_stats
        is_whole = not (stats.lost or stats.cut or stats.replaced or stats.subscriber_errors or stats.refused_requests)
        if not is_whole or not complete or any(e.lost for e in stats.exporters.values()):
            _summarise(stats, left)

    def _where_left(self) -> str:
        """Where those are that were not delivered. Without a name nobody finds the segment again."""
        if self._segment.has_name:
            return f"are in {self.path}, see relay_mp.recover"
        assert self.settings is not None
        assert self._final_stats is not None
        file = recovery.salvage(self._segment, self.settings.recovery_directory)
        if file is not None:
            return f"are in {file}: {self.path} was removed by another program"
        self._final_stats = self._final_stats.with_remains_lost()
        return f"are lost: {self.path} was removed by another program"

    def __enter__(self) -> Self:
        if self.is_owner and not self.is_open:
            raise SessionError(f"{self!r} cannot be entered again; start another one with relay_mp.session()")
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        role = "owner" if self.is_owner else "attached"
        return f"<relay_mp.Session {self.id} {role} {'open' if self.is_open else 'closed'}>"


def _summarise(stats: Stats, left: str | None) -> None:
    failures = "failure" if stats.subscriber_errors == 1 else "failures"
    line = (
        f"relay_mp: {stats.emitted} events emitted, {stats.delivered} delivered, {stats.lost} lost"
        f"{_listed(stats.causes)}, {stats.subscriber_errors} {failures} of subscribers"
    )
    if stats.cut:
        line += f", {stats.cut} cut to max_event_bytes"
    if stats.refused_requests:
        line += f", {stats.refused_requests} {'request' if stats.refused_requests == 1 else 'requests'} refused"
    if stats.replaced:
        line += f", {stats.replaced} values replaced that cannot be recorded"
    for name, exporter in stats.exporters.items():
        if exporter.lost:
            causes = {**exporter.drops, **({"unconfirmed": exporter.unconfirmed} if exporter.unconfirmed else {})}
            line += f"; exporter {name!r} lost {exporter.lost} of {exporter.taken}{_listed(causes)}"
    if left:
        line += f"; {left}"
    print(line, file=sys.stderr)


def _listed(causes: dict[str, int]) -> str:
    return f" ({', '.join(f'{cause} {count}' for cause, count in causes.items())})" if causes else ""
