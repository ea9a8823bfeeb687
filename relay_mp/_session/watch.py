"""Watching a session from outside: its open scopes, then its events as they come, in any process of the same user.

    watch() ─▶ attach, look ─▶ a socket of one's own ─▶ ask for a tap (asking.py) ─▶ Watch
    tap, where the dispatcher runs ─▶ socket ─▶ Watch.read ─▶ Batch ─▶ for event in watch

The watching process is not in the session: it emits nothing, and holds a slot only while it asks. What its viewer is
too slow for is missed by it alone, and told at its place by a mark `relay_mp.missed`. The subscription belongs to the
watching process, and ends within a second of it, however it ends.
"""

import _socket
import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import msgpack  # type: ignore[import-untyped]

from relay_mp._deliver import tap
from relay_mp._deliver.at_fork import abandon_in_child
from relay_mp._deliver.frames import END, EVENTS, HELLO, MISSED, SNAPSHOT, Missed
from relay_mp._deliver.liveness import holder_is_dead
from relay_mp._deliver.local_socket import Listener
from relay_mp._log import logger
from relay_mp._native import core
from relay_mp._native.segments import Segment
from relay_mp._records import batches
from relay_mp._session import asking, attaching, naming, seen
from relay_mp._session import flush as flushing
from relay_mp._session.seen import SessionInfo
from relay_mp._session.session import SessionHandle
from relay_mp._session.settings import PREFIX, temporary_directory
from relay_mp._session.stats import Stats, collect
from relay_mp.errors import SegmentError, SessionError, described_type
from relay_mp.events import Event, MarkEvent, decode, view_of

__all__ = ["MISSED_MARK", "WATCH_MARK", "Batch", "Watch", "watch"]

WATCH_MARK = "relay_mp.watch"
"""The mark at the beginning of what is watched: since when all open scopes are known."""

MISSED_MARK = "relay_mp.missed"
"""The mark at the place of events that this viewer alone has missed."""

BUFFER_VARIABLE = f"{PREFIX}WATCH_BUFFER_BYTES"
BUFFER_BYTES = 4 * 1024 * 1024
MIN_BUFFER_BYTES, MAX_BUFFER_BYTES = 64 * 1024, 1 << 30

LOOK_SECONDS = 0.25
"""How long it waits for news before it looks whether the session is still there."""

RETURN_SECONDS = 2.0
"""How long it waits, after the connection has ended, for a sign that the dispatcher has: for then another one comes."""

SLOW, RESTARTED, CUT_OFF = "slow", "restarted", "cut off"
"""Why events were missed: the viewer was slow; the dispatcher's process was killed, or the session ended, with what it
had not handed on yet."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What came next.

    Attributes:
        events: in their order, with the marks that tell of what was missed. May be empty.
        missed: how many events that viewer has missed among these, or before them.
        snapshot: whether these are starts of scopes that were open when watching began, or began again.
        ended: whether there is no more to come.
    """

    events: list[Event]
    missed: int = 0
    snapshot: bool = False
    ended: bool = False


class Watch:
    """An iterator over a session's events, from outside; made by `relay_mp.watch`. A context manager.

    First comes a mark `relay_mp.watch`, then the start events of the scopes that are open, oldest first, then the
    stream. It ends when the session does. One thread reads; any may close. A forked child has no part in it.

    Attributes:
        missed: events that this viewer has missed so far, in all.
        why_ended: in words, once it has ended.
    """

    def __init__(self, segment: Segment, listener: Listener, connection: _socket.socket) -> None:
        self._segment, self._listener = segment, listener
        self._epoch = core.fork_epoch()
        self._last_info = seen.read(segment)
        self._buffer = bytearray()
        self._received = self._base = self._last_seq = 0
        self._is_in_snapshot = True
        self._has_tap = self._has_end = self._is_sent_away = self._is_closed = False
        self.missed = 0
        self.why_ended: str | None = None
        self._take(connection)

    def _take(self, connection: _socket.socket) -> None:
        connection.settimeout(LOOK_SECONDS)
        self._connection: _socket.socket | None = connection
        self._holder = self._segment.lease()[0]
        self._buffer.clear()
        abandon_in_child(self)

    # ---- reading ----

    def __iter__(self) -> Iterator[Event]:
        for batch in self.batches():
            yield from batch.events

    def batches(self, timeout: float | None = None) -> Iterator[Batch]:
        """Batch by batch, up to the one that has `ended`.

        Args:
            timeout: seconds after which an empty batch is given, where nothing comes; default: never.
        """
        while True:
            batch = self.read(timeout)
            yield batch
            if batch.ended:
                return

    def read(self, timeout: float | None = None) -> Batch:
        """What has come since, or comes next: as much as there is, up to the end of the snapshot.

        Args:
            timeout: how long to wait for it, in seconds, where there is nothing yet; then the batch is empty.
                Default: until something comes.

        Raises:
            SessionError: it is closed, or of the process that this one was forked from.
        """
        self._require_mine()
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.why_ended is None:
            batch = self._take_frames()
            if batch is not None:
                return batch
            left = LOOK_SECONDS if deadline is None else min(deadline - time.monotonic(), LOOK_SECONDS)
            if self._has_end or not self._receive(max(left, 0.0)):
                self._look_for_end()
            if deadline is not None and time.monotonic() >= deadline and not self._has_frame():
                break
        return self._last_batch() if self.why_ended is not None else Batch([])

    def _require_mine(self) -> None:
        if self._epoch != core.fork_epoch():
            raise SessionError("this watch is the parent process's; call relay_mp.watch() in this one")
        if self._is_closed:
            raise SessionError(f"this watch of {self._last_info.path} is closed; call relay_mp.watch() again")

    def _receive(self, seconds: float) -> bool:
        """Whether anything has come. A connection that has ended is put away."""
        if self._connection is None:
            self._take_successor(seconds)
            return False
        self._connection.settimeout(seconds)
        try:
            received = self._connection.recv(1 << 18)
        except (BlockingIOError, TimeoutError, InterruptedError):
            return False
        except OSError:
            received = b""
        if received:
            self._buffer += received
            return True
        if self._connection is not None:
            self._connection.close()
        self._connection, self._ended_at = None, time.monotonic()
        return False

    def _take_successor(self, seconds: float) -> None:
        """A dispatcher process that was started again makes its tap anew, which connects as the first one did."""
        connection = self._listener.accept(seconds)
        if connection is not None:
            self._take(connection)
            self._is_in_snapshot = True

    def _look_for_end(self) -> None:
        """Nothing comes just now: whether nothing will."""
        segment = self._segment
        if self._has_end or segment.state == core.STATE_CLOSED:
            self.why_ended = "the session has ended"
        elif flushing.nobody_delivers(segment):
            self.why_ended = "the session's processes have ended, and nobody delivers what is left"
        elif self._connection is None and self._is_given_up():
            self.why_ended, self._is_sent_away = "the session goes on, but has ended this watch", True

    def _is_given_up(self) -> bool:
        """The connection has ended: whether the dispatcher, alive, has ended it. One that has died is replaced."""
        if self._segment.lease()[0] != self._holder or holder_is_dead(self._segment):
            self._ended_at = time.monotonic()
        return time.monotonic() - self._ended_at > RETURN_SECONDS

    # ---- frames ----

    def _has_frame(self) -> bool:
        if len(self._buffer) < batches.FRAME_HEAD_BYTES:
            return False
        return len(self._buffer) >= 4 + int.from_bytes(self._buffer[:4], "little")

    def _take_frames(self) -> Batch | None:
        """All that has come whole; of a snapshot and what follows it only the former. None: nothing has."""
        events: list[Event] = []
        missed, at, has_news, snapshot = self.missed, 0, False, self._is_in_snapshot
        while len(self._buffer) - at >= batches.FRAME_HEAD_BYTES and self._is_in_snapshot == snapshot:
            end = at + 4 + int.from_bytes(self._buffer[at : at + 4], "little")
            if end > len(self._buffer):
                break
            body = bytes(memoryview(self._buffer)[at + batches.FRAME_HEAD_BYTES : end])
            events += self._events_of(self._buffer[at + 4], body)
            at, has_news = end, True
        del self._buffer[:at]
        return Batch(events, self.missed - missed, snapshot) if has_news else None

    def _events_of(self, kind: int, body: bytes) -> list[Event]:
        if kind == HELLO:
            return self._begin(*msgpack.unpackb(body))
        if kind == SNAPSHOT:
            self._is_in_snapshot = bool(body)
            return batches.unpack(body, _event)
        if kind == EVENTS:
            return self._count(batches.unpack(body, _event))
        if kind == MISSED:
            missed = Missed(*msgpack.unpackb(body))
            return self._miss(missed.events, SLOW, missed.seq, missed.timestamp_us)
        self._has_end = kind == END
        return []

    def _count(self, events: list[Event]) -> list[Event]:
        if events and events[0].seq <= self._last_seq:  # what the dispatcher that was killed had handed on already
            events = [event for event in events if event.seq > self._last_seq]
        if events:
            self._last_seq = events[-1].seq
        self._received += len(events)
        return events

    def _begin(self, since_us: int, given_up: int, delivered: int) -> list[Event]:
        data = {"complete_since_us": since_us, "given_up": given_up}
        mark = self._mark(WATCH_MARK, data, self._last_seq + 1, core.now_us())
        if not self._has_tap:  # the first one says from where events are counted
            self._has_tap, self._base = True, delivered
        lost = delivered - self._base - self._received - self.missed
        return [*self._miss(lost, RESTARTED, self._last_seq + 1, core.now_us()), mark]

    def _miss(self, events: int, why: str, seq: int, timestamp_us: int) -> list[Event]:
        if events <= 0:
            return []
        self.missed += events
        return [self._mark(MISSED_MARK, {"missed": events, "why": why}, seq, timestamp_us)]

    def _mark(self, name: str, data: dict[str, Any], seq: int, timestamp_us: int) -> MarkEvent:
        return MarkEvent.from_fields(
            name, uuid=core.uuid7(), timestamp_us=timestamp_us, seq=seq, pid=os.getpid(), data=data
        )

    def _last_batch(self) -> Batch:
        """What the tap had not handed on is not known by it, but by the session's counts."""
        events: list[Event] = []
        before = self.missed
        if not self._has_end and self._connection is None and not self._is_sent_away:
            missed = self._segment.events_delivered - self._base - self._received - self.missed
            events = self._miss(missed, CUT_OFF, self._last_seq + 1, core.now_us())
        return Batch(events, self.missed - before, ended=True)

    # ---- beside the stream ----

    @property
    def session(self) -> SessionInfo:
        """The session as it is now; once it has ended, or this is closed, as it was when it was looked at last."""
        if not self._is_closed and self._segment.state != core.STATE_CLOSED:
            self._last_info = seen.read(self._segment)
        return self._last_info

    def stats(self) -> Stats:
        """The session's counts, by process, exporters' too: see `relay_mp.Session.stats`.

        Raises:
            SessionError: it is closed, or of the process that this one was forked from.
        """
        self._require_mine()
        return collect(self._segment)

    def fileno(self) -> int:
        """What becomes readable when something comes, for `select`; -1 where there is no connection. It changes when
        the session's dispatcher process is started again."""
        return -1 if self._connection is None else self._connection.fileno()

    def close(self) -> None:
        """Ends watching; the session goes on. Idempotent. From any thread; in a forked child nothing happens."""
        if self._is_closed or self._epoch != core.fork_epoch():
            return
        self._is_closed = True
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(_socket.SHUT_RDWR)
            self._connection.close()
        self._listener.close()
        self._segment.close()

    def abandon(self) -> None:
        """In a forked child: closes its descriptors, and nothing else."""
        if self._connection is not None:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_connection"):
            self.close()

    def __repr__(self) -> str:
        return f"<relay_mp.Watch of {self._last_info.id} {'closed' if self._is_closed else 'open'}>"


def _event(record: bytes, seq: int, pid: int, redelivered: bool) -> Event:
    return view_of(record, seq, pid, redelivered) or decode(record, seq, pid, redelivered)


# ---- making one ----


def watch(
    session: SessionHandle | str | int | None = None,
    *,
    directory: str | None = None,
    buffer_bytes: int | None = None,
    timeout: float = 10.0,
) -> Watch:
    """Watches a session from any process of the same user: an iterator of its events, from now on.

    Args:
        session: which one: a handle; a segment's path; the beginning of its id, or of its id's last part; its owner's
            pid. Default: the only living one.
        directory: where sessions are looked for; see `sessions`.
        buffer_bytes: how much may wait for this viewer where the dispatcher runs, 64 KiB to 1 GiB; what comes then is
            missed, and told. Default: the environment's RELAY_MP_WATCH_BUFFER_BYTES, or 4 MiB.
        timeout: how long to wait for the session's dispatcher, in seconds.

    The watching process is not in the session and emits nothing. While nobody else subscribes, the session's processes
    emit for it. A viewer that is slow, stopped or dead costs an emit nothing, and other subscribers no event. Not in a
    subscriber's callback.

    Raises:
        SessionError: there is no such session, or more than one, which are listed; it has ended, or nobody delivers in
            it.
        SegmentError: it cannot be attached to, as one of another version.
        FlushTimeoutError: the dispatcher did not answer in time, as behind a subscriber that is stuck.
        SubscriberError: the dispatcher refused it.
        TypeError, ValueError: an argument is not what it should be.
    """
    room = _room(buffer_bytes)
    path = seen.find(session, directory)
    segment = attaching.find(path)
    if isinstance(segment, str):
        raise SegmentError(segment)
    listener = None
    try:
        if flushing.nobody_delivers(segment):
            raise SessionError(f"nobody delivers in the session of {path} any more; see relay_mp.recover")
        listener = _listen(segment)
        return Watch(segment, listener, _connected(segment, listener, room, timeout))
    except BaseException:
        if listener is not None:
            listener.close()
        segment.close()
        raise


def _room(buffer_bytes: int | None) -> int:
    source = "buffer_bytes" if buffer_bytes is not None else BUFFER_VARIABLE
    given: Any = buffer_bytes if buffer_bytes is not None else os.environ.get(BUFFER_VARIABLE) or BUFFER_BYTES
    if isinstance(given, bool) or not isinstance(given, int | str):
        raise TypeError(f"{source} is {described_type(given)}; expected bytes as a whole number")
    try:
        room = int(given)
    except ValueError:
        raise ValueError(f"{source}={given!r} is not a whole number, such as {BUFFER_BYTES}") from None
    if not MIN_BUFFER_BYTES <= room <= MAX_BUFFER_BYTES:
        raise ValueError(f"{source}={room} is outside {MIN_BUFFER_BYTES} to {MAX_BUFFER_BYTES}")
    return room


def _listen(segment: Segment) -> Listener:
    """Beside the segment, which the dispatcher sees, too; or in the temporary directory, where nothing can be made."""
    name = naming.new_session_id()
    try:
        return Listener(os.path.dirname(os.path.abspath(segment.path)), name)
    except OSError as error:
        logger.debug("no socket can be made beside %s: %s", segment.path, error)
        return Listener(temporary_directory(), name)


def _connected(segment: Segment, listener: Listener, room: int, timeout: float) -> _socket.socket:
    deadline = time.monotonic() + timeout
    name = f"{WATCH_MARK}-{os.path.basename(os.path.dirname(listener.path)).rpartition('-')[2]}-{os.getpid()}"
    arguments = {"path": listener.path, "buffer_bytes": room}
    asking.ask(segment, "register", timeout, name=name, target=tap.TARGET, arguments=arguments, is_owned=True)
    connection = listener.accept(max(deadline - time.monotonic(), LOOK_SECONDS))
    if connection is None:
        raise SessionError(f"the dispatcher of {segment.path} has answered, but not connected to {listener.path}")
    return connection
