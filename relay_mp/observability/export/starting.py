"""An exporter that may not be able to start yet: it is tried again, and what comes meanwhile waits, up to a bound.

    start("module:attribute", arguments) ──▶ the sink itself, if it can be made now
                                         └─▶ Waiting ──▶ queue ──▶ the sink, once it can be made

Runs where the dispatcher runs. The observability component registers its exporters by this, so that a port that
is taken, or a directory that cannot be made, is in that exporter's report, and stops neither the others nor the
application. What may come right, an OSError, is tried again, at the next event or flush after a pause that
doubles; what will not, such as a setting that the sink refuses, is not.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from relay_mp._deliver import named
from relay_mp._deliver.reports import CLOSED, FAILING, ExporterReport
from relay_mp._log import logger
from relay_mp._threads import Lock
from relay_mp.errors import SubscriberError
from relay_mp.events import Event
from relay_mp.observability.export.sink import brief

__all__ = ["DROP_NOT_STARTED", "MAX_WAITING_EVENTS", "Waiting", "start"]

MAX_WAITING_EVENTS = 8192
"""Events that wait for an exporter to start; what is beyond is dropped and counted."""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 30.0

DROP_NOT_STARTED = "not_started"


def start(target: str, arguments: dict[str, Any], max_waiting_events: int = MAX_WAITING_EVENTS) -> Any:
    """Makes a sink by its name; where that fails, what stands in for it. Never raises.

    Args:
        target: "package.module:attribute".
        arguments: of the sink.
        max_waiting_events: see MAX_WAITING_EVENTS.
    """
    waiting = Waiting(lambda: named.resolve(target, arguments, "exporter"), max_waiting_events)
    return waiting.request_flush() or waiting


class Waiting:
    """Stands in for a sink that could not be made so far. Called, finished and closed as that would be.

    Args:
        make: makes the sink.
        limit: how many events wait at most.
    """

    def __init__(self, make: Callable[[], Any], limit: int) -> None:
        self._make = make
        self._limit = limit
        self._sink: Any = None
        self._lock = Lock()
        self._queue: deque[Event] = deque()
        self._dropped = self._failures = 0
        self._last_error = ""
        self._may_come_right = True
        self._is_closed = False
        self._pause = FIRST_PAUSE_SECONDS
        self._next_attempt = 0.0

    def __call__(self, event: Event) -> None:
        """One event: to the sink, or it waits for it. What the sink raises goes to the dispatcher."""
        if self._sink is None:
            with self._lock:
                if time.monotonic() >= self._next_attempt:
                    self._attempt()
                if self._sink is None:
                    self._keep(event)
                    return
        self._sink(event)

    def _keep(self, event: Event) -> None:
        if self._may_come_right and len(self._queue) < self._limit:
            self._queue.append(event)
        else:
            self._dropped += 1

    def _attempt(self) -> None:
        """Makes the sink, and hands it what has waited. Under the lock, so that nothing overtakes."""
        if self._sink is not None or not self._may_come_right or self._is_closed:
            return
        try:
            sink = self._make()
        except SubscriberError as error:
            self._note_failure(error)
            return
        while self._queue:
            event = self._queue.popleft()
            try:
                sink(event)
            except Exception:  # in its report; as the dispatcher would
                logger.exception("an exporter that has started failed on %r", event)
        self._sink = sink

    def _note_failure(self, error: SubscriberError) -> None:
        self._may_come_right = isinstance(error.__cause__, OSError)
        self._last_error = brief(error.__cause__ or error)
        if not self._failures:
            then = "it is tried again" if self._may_come_right else "it stays out until it is configured anew"
            logger.warning("an exporter could not be started, and %s: %s", then, self._last_error)
        self._failures += 1
        self._next_attempt = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
        if not self._may_come_right:
            self._dropped += len(self._queue)
            self._queue.clear()

    def request_flush(self) -> Any:
        """Tries again, now. Returns the sink, if there is one by now."""
        with self._lock:
            self._attempt()
        if self._sink is not None and callable(getattr(self._sink, "request_flush", None)):
            self._sink.request_flush()
        return self._sink

    def report(self) -> ExporterReport | None:
        """The sink's, with what was dropped before it started; that of one that fails, while there is none."""
        sink = self._sink
        if sink is None:
            waiting = len(self._queue)
            drops = {DROP_NOT_STARTED: self._dropped} if self._dropped else {}
            return ExporterReport(
                state=CLOSED if self._is_closed else FAILING,
                taken=self._dropped + waiting,
                drops=drops,
                queued=waiting,
                flushed=self._dropped,
                failures=self._failures,
                last_error=self._last_error,
            )
        report = sink.report() if callable(getattr(sink, "report", None)) else None
        if not isinstance(report, ExporterReport):
            return None
        earlier = ExporterReport(taken=self._dropped, flushed=self._dropped, failures=self._failures)
        earlier.drops = {DROP_NOT_STARTED: self._dropped} if self._dropped else {}
        earlier.last_error = self._last_error
        return report.after(earlier)

    def finish(self, seconds: float | None = None) -> None:
        """No more events come. A last attempt; what waits for a sink in vain is dropped and counted."""
        with self._lock:
            if self._queue:
                self._attempt()
            self._is_closed = True
            self._dropped += len(self._queue)
            self._queue.clear()
        if self._sink is not None and callable(getattr(self._sink, "finish", None)):
            self._sink.finish(seconds)

    def close(self) -> None:
        """Ends the sink, if there is one."""
        self.finish()
        if self._sink is not None and callable(getattr(self._sink, "close", None)):
            self._sink.close()
