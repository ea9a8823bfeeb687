"""The dispatcher as a thread of the session's owner."""

import time

from relay_mp._deliver import table
from relay_mp._deliver.allowed import Allowed
from relay_mp._deliver.dispatcher import Dispatcher, OpenBounds
from relay_mp._deliver.subscriptions import Subscriptions
from relay_mp._log import logger, work_in_background
from relay_mp._native import core
from relay_mp._native.segments import Segment
from relay_mp._session.draining import is_drained, wait_for_end
from relay_mp._threads import Event, Thread, apart


class ThreadHost:
    """A daemon thread of the owner."""

    def __init__(self, segment: Segment, allowed: Allowed, bounds: OpenBounds) -> None:
        self._segment = segment
        self.allowed = allowed
        subscriptions = Subscriptions(
            segment.set_subscribers, lambda: table.save(segment, subscriptions, has_successor=False)
        )
        self.subscriptions = subscriptions
        segment.take_lease(segment.lease()[0])
        self._dispatcher = Dispatcher(segment, self.subscriptions, allowed, bounds)
        self._ended = Event()
        self._thread = Thread(target=self._run, name="relay_mp-dispatcher")
        self._thread.start()

    def _run(self) -> None:
        work_in_background()
        epoch = core.fork_epoch()
        try:
            self._dispatcher.run()
        except Exception:
            if core.fork_epoch() != epoch:
                raise  # of a child that a callback has forked: its own
            if self._segment.is_open:  # else: closed at the deadline of a stop, which says so itself
                logger.exception("the dispatcher has stopped; events are kept until the ring is full, then dropped")
                self._segment.drop_lease()
        finally:
            self._ended.set()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self, timeout_seconds: float) -> bool:
        """True if everything was delivered by then."""
        self._dispatcher.stop()
        deadline = time.monotonic() + timeout_seconds
        if not wait_for_end(self._segment, self._ended, timeout_seconds):
            return False
        self._thread.join()
        apart(self.subscriptions.close, max(deadline - time.monotonic(), 0.0))
        self.subscriptions.publish_reports()
        return is_drained(self._segment)
