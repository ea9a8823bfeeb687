"""The dispatcher as a process: `python -m relay_mp._session.dispatcher_process SEGMENT`.

Started by the owner of a session with dispatcher="process", and again if it dies. Ends when the owner
has sealed the ring and it is drained; or, if the owner has died, once the workers are gone too, at the
latest ORPHAN_GRACE_SECONDS later, and then removes the segment itself.
"""

import signal
import sys
import time
from typing import Any

import msgpack  # type: ignore[import-untyped]

from relay_mp._deliver import named
from relay_mp._deliver.dispatcher import Dispatcher, logger
from relay_mp._deliver.liveness import holder_is_dead, is_dead
from relay_mp._deliver.registry import Registry, Subscription
from relay_mp._native import core
from relay_mp._native.core import Segment
from relay_mp._session import membership
from relay_mp.errors import SegmentError, SessionError, SubscriberError

ORPHAN_GRACE_SECONDS = 10.0
OWNER_CHECK_SECONDS = 0.2
_ROW_FIELDS = 6


class _Owner:
    """Whether there is still a reason to go on."""

    def __init__(self, segment: Segment, dispatcher: Dispatcher) -> None:
        self._segment = segment
        self._dispatcher = dispatcher
        self._next_check = 0.0
        self._died_at: float | None = None

    @property
    def is_dead(self) -> bool:
        return self._died_at is not None

    def check(self) -> bool:
        """Asked before each batch. Seals the ring when nobody else is left to."""
        now = time.monotonic()
        if self._segment.state == core.STATE_BROKEN:
            pass  # it ends by itself, once it has delivered what can be read
        elif self._segment.state != core.STATE_OPEN:
            self._segment.seal()  # the owner may just be about to: nothing is claimed behind the last look
            self._dispatcher.stop()
        elif now >= self._next_check:
            self._next_check = now + OWNER_CHECK_SECONDS
            if self._died_at is None and is_dead(*self._segment.owner):
                self._died_at = now
                logger.warning("the owner of session %s has died; delivering what is left", self._segment.session_id)
            if self._died_at is not None and self._is_abandoned(now - self._died_at):
                self._segment.set_state(core.STATE_CLOSING)
                self._segment.seal()
        return True

    def _is_abandoned(self, seconds: float) -> bool:
        return seconds >= ORPHAN_GRACE_SECONDS or (seconds >= 1.0 and self._dispatcher.live_producers == 0)


def _save(segment: Segment, registry: Registry) -> None:
    """Leaves the registrations in the segment, for the next dispatcher if this one dies."""
    table: list[list[Any]] = [
        [s.name, s.target, s.arguments, s.scope, s.since, s.until] for s in registry.all() if s.target
    ]
    segment.store_subscriptions(msgpack.packb(table))


def _rows(table: bytes) -> list[Any]:
    try:
        rows = msgpack.unpackb(table)
    except ValueError:
        return [None]
    return rows if isinstance(rows, list) else [None]


def _is_row(row: Any) -> bool:
    """Whether it is what `_save` writes: the segment is not trusted, and an error here would end each successor too."""
    if not isinstance(row, list) or len(row) != _ROW_FIELDS:
        return False
    name, target, arguments, scope, since, until = row
    return (
        isinstance(name, str)
        and isinstance(target, str)
        and (arguments is None or isinstance(arguments, dict))
        and (scope is None or isinstance(scope, bytes))
        and type(since) is int
        and type(until) is int
    )


def _restore(segment: Segment, registry: Registry) -> None:
    """Takes over the registrations that an earlier dispatcher has left. What cannot be is told in the log."""
    rows = _rows(segment.load_subscriptions() or b"\x90")
    found, damaged = [], sum(not _is_row(row) for row in rows)
    if damaged:
        logger.error("the table of named subscribers is damaged: %d of its rows are passed over", damaged)
    for name, target, arguments, scope, since, until in filter(_is_row, rows):
        try:
            callback = named.resolve(target, arguments)
        except SubscriberError:
            logger.exception("subscriber %r is not there any more after a restart of the dispatcher", name)
            continue
        found.append(Subscription(name, callback, scope, since, until, target, arguments))
    registry.restore(found)


def _take_lease(segment: Segment) -> None:
    word = segment.lease()[0]
    if not holder_is_dead(segment) or not segment.take_lease(word):
        raise SessionError(f"process {segment.lease()[1]} dispatches {segment.path} already")


def main(path: str) -> int:
    """Dispatches until there is no more to come. Returns the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    segment = Segment.attach(path)
    registry = Registry(segment.set_subscribers, lambda: _save(segment, registry))
    membership.adopt(segment, registry)
    _restore(segment, registry)
    _take_lease(segment)
    dispatcher = Dispatcher(segment, registry)
    owner, epoch = _Owner(segment, dispatcher), core.fork_epoch()
    dispatcher.run(owner.check)
    if core.fork_epoch() != epoch:
        return 0  # a child that a callback forked and that came back from it
    registry.close()
    if owner.is_dead:
        segment.set_state(core.STATE_CLOSED)
        segment.unlink()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1]))
    except (SegmentError, SessionError) as error:
        sys.exit(f"relay_mp dispatcher: {error}")
