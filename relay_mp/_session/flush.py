"""Waiting until everything emitted before now has been delivered."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from relay_mp._deliver.liveness import holder_is_dead, is_dead
from relay_mp._native import core
from relay_mp._native.segments import Segment
from relay_mp._session.stats import CAUSES
from relay_mp._threads import Naps
from relay_mp.errors import FlushError, FlushTimeoutError

LOOK_FOR_DISPATCHER_SECONDS = 0.1
_SHORTEST_NAP, _LONGEST_NAP = 0.0005, 0.02


@dataclass(frozen=True, slots=True)
class FlushResult:
    """What a flush found: all events before it are delivered, except those lost in the session so far."""

    lost: int = 0
    causes: dict[str, int] = field(default_factory=dict)


def _wait_for(segment: Segment, timeout_seconds: float, *, is_abandoned: Callable[[], bool]) -> Iterator[int]:
    """Yields the position to wait for until it is delivered; raises when it will not be."""
    if core.is_dispatching():
        raise FlushError(
            "flush() inside a subscriber's callback would wait for itself: call it from another thread, "
            "after the callback has returned"
        )
    _require_whole(segment)
    position = segment.tail
    now = time.monotonic()
    deadline, next_look = now + timeout_seconds, now + LOOK_FOR_DISPATCHER_SECONDS
    while segment.read_pos < position:
        yield position
        _require_whole(segment)
        now = time.monotonic()
        if now >= deadline:
            raise FlushTimeoutError(_why(segment, position, timeout_seconds))
        if now >= next_look:
            next_look = now + LOOK_FOR_DISPATCHER_SECONDS
            if is_abandoned() and segment.read_pos < position:
                raise FlushError(f"the session's dispatcher has died; what it had not delivered {_remains(segment)}")


def _remains(segment: Segment) -> str:
    if segment.has_name:
        return "is still in the segment"
    return "is lost with the last of its processes: another program has removed the segment's name"


def _require_whole(segment: Segment) -> None:
    if segment.state == core.STATE_BROKEN:
        raise FlushError(
            f"the ring of {segment.path} was damaged beyond reading: what could still be read is delivered, the rest "
            "is counted as lost (corrupt), and so is what is emitted now; close the session, and start another"
        )


def nobody_delivers(segment: Segment) -> bool:
    """Whether the dispatcher is dead and stays so: a process is started again by its owner, if that lives and has not
    given it up, which it says by a lease that nobody has."""
    is_restarted = segment.dispatcher_is_process and segment.lease()[1] != 0 and not is_dead(*segment.owner)
    return holder_is_dead(segment) and not is_restarted


def _why(segment: Segment, position: int, timeout_seconds: float) -> str:
    waiting = (position - segment.read_pos) * core.UNIT_BYTES
    stalled = segment.stalled_slot
    who = "a subscriber is slow or stuck"
    if stalled:
        who = f"process {segment.slot_process(stalled)[0]} has not finished an event"
    return (
        f"{waiting} bytes of events were not delivered within {timeout_seconds:g} s: {who}; they are still in the ring"
    )


def _result(segment: Segment) -> FlushResult:
    # Not by stats.collect, whose first use imports NumPy: a flush may have to do without descriptors.
    counted = zip((*CAUSES, "unregistered"), segment.losses(), strict=True)
    causes = {cause: count for cause, count in counted if count}
    return FlushResult(sum(causes.values()), causes)


def flush(segment: Segment, timeout_seconds: float, *, is_abandoned: Callable[[], bool]) -> FlushResult:
    """Blocks, GIL released, until all that was emitted before has been delivered. Other greenlets run meanwhile.

    `is_abandoned` is asked every 100 ms, whether it never will be.
    """
    deadline, nap = time.monotonic() + timeout_seconds, Naps()
    for position in _wait_for(segment, timeout_seconds, is_abandoned=is_abandoned):
        if not nap():
            segment.wait_delivered(position, max(deadline - time.monotonic(), 0.0))
    return _result(segment)


async def flush_async(segment: Segment, timeout_seconds: float, *, is_abandoned: Callable[[], bool]) -> FlushResult:
    """The same without blocking the event loop: it looks again after ever longer naps."""
    import asyncio  # lazily: it takes as long to import as all of this package

    nap = _SHORTEST_NAP
    for _ in _wait_for(segment, timeout_seconds, is_abandoned=is_abandoned):
        await asyncio.sleep(nap)
        nap = min(nap * 2, _LONGEST_NAP)
    return _result(segment)
