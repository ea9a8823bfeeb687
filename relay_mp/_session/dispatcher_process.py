"""The dispatcher as a process: an interpreter that calls `run`, with the path of the segment as its argument.

Started by the owner of a session with dispatcher="process", and again if it dies. Ends when the owner
has sealed the ring and it is drained; or, if the owner has died, once the workers are gone too, at the
latest ORPHAN_GRACE_SECONDS later, and then removes the segment itself.
"""

import os
import signal
import sys
import time
from typing import NoReturn

from relay_mp._deliver import table
from relay_mp._deliver.allowed import ANY, Allowed
from relay_mp._deliver.dispatcher import OPEN_BOUNDS, Dispatcher, OpenBounds
from relay_mp._deliver.file_lock import write_for
from relay_mp._deliver.liveness import holder_is_dead, is_dead
from relay_mp._deliver.subscriptions import Subscriptions
from relay_mp._log import logger, work_in_background
from relay_mp._native import core
from relay_mp._native.segments import Segment
from relay_mp._session import membership
from relay_mp._session.settings import ALLOWED_VARIABLE, OPEN_VARIABLES
from relay_mp.errors import SegmentError, SessionError

ORPHAN_GRACE_SECONDS = 10.0
OWNER_CHECK_SECONDS = 0.2


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


def _take_lease(segment: Segment) -> None:
    word = segment.lease()[0]
    if not holder_is_dead(segment) or not segment.take_lease(word):
        raise SessionError(f"process {segment.lease()[1]} dispatches {segment.path} already")


def _attach(path: str, descriptor: int | None) -> Segment:
    try:
        return Segment.attach(path, descriptor)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _open_bounds() -> OpenBounds:
    """As the owner has handed them over."""
    given = (os.environ.get(name, default) for name, default in zip(OPEN_VARIABLES, OPEN_BOUNDS, strict=True))
    return OpenBounds(*map(int, given))


def main(path: str, descriptor: int | None = None) -> int:
    """Dispatches until there is no more to come.

    Args:
        path: the segment.
        descriptor: of its file, by which it is found though its name may be gone.

    Returns:
        The exit code.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    work_in_background()
    segment = _attach(path, descriptor)
    subscriptions = Subscriptions(segment.set_subscribers, lambda: table.save(segment, subscriptions))
    membership.adopt(segment, subscriptions)
    write_for(segment.owner)
    allowed = Allowed(os.environ.get(ALLOWED_VARIABLE) or ANY)
    table.restore(segment, subscriptions, allowed)
    _take_lease(segment)
    dispatcher = Dispatcher(segment, subscriptions, allowed, _open_bounds())
    owner, epoch = _Owner(segment, dispatcher), core.fork_epoch()
    dispatcher.run(owner.check)
    if core.fork_epoch() != epoch:
        return 0  # a child that a callback forked and that came back from it
    subscriptions.close()
    subscriptions.publish_reports()
    if owner.is_dead:
        segment.set_state(core.STATE_CLOSED)
        segment.unlink()
    return 0


def run() -> NoReturn:
    """The whole of the process."""
    try:
        *descriptor, path = sys.argv[1:]
        sys.exit(main(path, *map(int, descriptor)))
    except (SegmentError, SessionError) as error:
        sys.exit(f"relay_mp dispatcher: {error}")
