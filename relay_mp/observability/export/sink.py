"""What every exporter is to the stream: a callback that takes events where the dispatcher runs.

    dispatcher ──▶ Sink.__call__ ──▶ _export (a format's own) ──▶ a file, at once
                                          └──▶ BatchQueue (batch_queue.py) ──▶ its thread ──▶ a receiver

The dispatcher's thread does no network I/O: whatever may wait goes through an `BatchQueue`. What a sink was
given and what became of it is in its report, and so in `session.stats().exporters`. If it raises, that
is counted as a drop here and as a subscriber's failure by the dispatcher, and the stream goes on.
"""

from relay_mp._deliver.reports import CLOSED, FAILING, RUNNING, ExporterReport
from relay_mp._threads import Lock
from relay_mp.events import Event

__all__ = ["MAX_OPEN_BYTES", "MAX_OPEN_SCOPES", "Sink", "brief"]

MAX_OPEN_SCOPES = 1_000_000
"""Scopes that a sink keeps until they end; the oldest are given up beyond that."""

MAX_OPEN_BYTES = 64 << 20
"""Of what a sink keeps of them; beyond that the oldest lose their payloads, then are given up."""

MAX_ERROR_CHARACTERS = 400
"""Of a failure in a report. gRPC says why a receiver is not trusted only after 250."""


def brief(error: BaseException | str) -> str:
    """An error in one line that fits into a report."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return text.encode("utf-8", "replace").decode()[:MAX_ERROR_CHARACTERS]


class Sink:
    """The base of what takes events. A subclass has `_export`, and `_finish` and `_close` where there is need.

    Made, called, finished and closed where the dispatcher runs; `report` and `request_flush` from any thread there.
    """

    buffers = True
    """Whether what was taken may be in memory only, and so be lost if the dispatcher is killed."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts = ExporterReport(buffers=self.buffers)
        self._finished = False

    def __call__(self, event: Event) -> None:
        """One event, in the order of the stream. What is raised goes to the dispatcher, which goes on."""
        self._counts.taken += 1
        try:
            self._export(event)
        except Exception as error:
            self.count_failure(error)
            self.count_dropped(type(error).__name__)
            raise

    def _export(self, event: Event) -> None:
        raise NotImplementedError

    @property
    def taken(self) -> int:
        """Events that it was given so far."""
        return self._counts.taken

    def count_exported(self, events: int = 1) -> None:
        """Events are where they should be."""
        with self._lock:
            self._counts.exported += events
            self._counts.state = RUNNING

    def count_ignored(self, events: int = 1) -> None:
        """Events for which the format has no place."""
        with self._lock:
            self._counts.ignored += events

    def count_dropped(self, cause: str, events: int = 1) -> None:
        """Events were given up."""
        if not events:
            return
        with self._lock:
            self._counts.drops[cause] = self._counts.drops.get(cause, 0) + events

    def count_failure(self, error: BaseException | str) -> None:
        """An attempt failed."""
        with self._lock:
            self._counts.failures += 1
            self._counts.last_error = brief(error)
            self._counts.state = FAILING

    def report(self) -> ExporterReport:
        """See ExporterReport. Any thread."""
        with self._lock:
            counts = ExporterReport.from_dict(self._counts.to_dict())
        if self._finished and self._is_closed():
            counts.state = CLOSED
        counts.queued = max(counts.taken - counts.exported - counts.ignored - counts.dropped, 0)
        counts.flushed = counts.taken
        self._complete(counts)
        return counts

    def _complete(self, report: ExporterReport) -> None:
        """Adds to a report what only the subclass knows."""

    def _is_closed(self) -> bool:
        """Whether all that `finish` began is done."""
        return True

    def request_flush(self) -> None:
        """Sends now what has gathered; returns at once."""

    def finish(self, seconds: float | None = None) -> None:
        """No more events come. Returns at once, idempotent; `close` waits.

        Args:
            seconds: for what is on its way; default: the sink's own.
        """
        if not self._finished:
            try:
                self._finish(seconds)
            finally:
                self._finished = True

    def _finish(self, seconds: float | None) -> None:
        """The subclass's part of `finish`."""

    def close(self) -> None:
        """Waits for what `finish` began; frees what is held. Idempotent."""
        self.finish()
