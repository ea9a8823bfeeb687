"""A bounded queue with a thread of its own: how a sink sends without holding up the dispatcher.

    dispatcher ──put──▶ queue (bounded in items and bytes) ──▶ thread: batch ──▶ send ──▶ receiver
                                                                  ▲                │
                                                                  └── backoff ◀────┘ Retryable

A full queue drops what is put, at once, and counts it: the receiver is slower than the stream. An
attempt that fails for the moment is repeated after pauses that double, with jitter, until the batch's
deadline; one that is refused for good is not. One that is too large for the receiver is sent in halves, down to
the item that is too large alone, which is dropped. Exponential backoff with full jitter: M. Brooker,
"Exponential Backoff And Jitter", AWS Architecture Blog, 2015; which statuses are for the moment (429,
502, 503, 504), and the use of Retry-After: OTLP 1.x, "Failures", and RFC 9110, section 10.2.3.
"""

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any, TypeAlias

from relay_mp._deliver.reports import ExporterReport
from relay_mp._log import logger, work_in_background
from relay_mp._threads import Condition, Thread
from relay_mp.observability.export.sink import Sink, brief

__all__ = ["BatchQueue", "Item", "Limits", "QueuedSink", "Refused", "Retryable", "TooLarge"]


MAX_LIMIT = 1 << 40
"""Of items and of bytes."""

MAX_SECONDS = (1 << 31) - 1
"""Of what is a time: 68 years. Locks and sockets can wait for that long, and not for much more."""

CLOSE_GRACE_SECONDS = 0.5
"""How long closing waits beyond the deadline, for a thread that is about to end."""

DROP_FULL, DROP_REFUSED, DROP_DEADLINE, DROP_SHUTDOWN = "full", "refused", "deadline", "shutdown"
DROP_TOO_LARGE = "too_large"


class Retryable(Exception):
    """An attempt that failed for the moment. `after_seconds`: how long the receiver asked to be left alone."""

    def __init__(self, message: str, after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.after_seconds = after_seconds


class Refused(Exception):
    """An attempt that will fail as often as it is made."""


class TooLarge(Refused):
    """An attempt with more bytes than the receiver takes; with fewer it may work."""


Item: TypeAlias = tuple[Any, int, int, int]
"""One thing to send: the payload, how many events it stands for in the counts, its size in bytes, and how many events
the sink had taken before its first. A plain tuple: there are many, and the garbage collector need not look at them."""


@dataclass(frozen=True)
class Limits:
    """The bounds of a queue.

    Args:
        max_queue_items: what may wait; beyond it, what is put is dropped ("full").
        max_queue_bytes: the same in bytes.
        max_batch_items: how much goes out in one attempt, at most.
        max_batch_bytes: the same in bytes; an item that is larger goes alone. A receiver that refuses as much as too
            large gets less at once from then on, down to a half of what it has refused.
        schedule_delay_seconds: how long a batch gathers before it is sent, unless it is full.
        timeout_seconds: of one attempt; above 0.
        retry_initial_seconds: the longest first pause.
        retry_max_seconds: the longest later pause.
        retry_deadline_seconds: of one batch, all attempts and pauses; then it is dropped ("deadline").
        shutdown_timeout_seconds: for all that is left at the end; then it is dropped ("shutdown").
    """

    max_queue_items: int = 8192
    max_queue_bytes: int = 64 * 1024 * 1024
    max_batch_items: int = 512
    max_batch_bytes: int = 4 * 1024 * 1024
    schedule_delay_seconds: float = 0.2
    timeout_seconds: float = 3.0
    retry_initial_seconds: float = 0.1
    retry_max_seconds: float = 5.0
    retry_deadline_seconds: float = 60.0
    shutdown_timeout_seconds: float = 5.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, whole = getattr(self, field.name), isinstance(field.default, int)
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                raise TypeError(f"{field.name} is {value!r}; expected {'an int' if whole else 'a number of seconds'}")
            most = MAX_LIMIT if whole else MAX_SECONDS
            if not 0 <= value <= most or (whole and not value):
                raise ValueError(f"{field.name} is {value}; expected {int(whole)} to {most}")
        if not self.timeout_seconds:
            raise ValueError(f"timeout_seconds is 0; expected above 0 to {MAX_SECONDS}: no attempt would be in time")


class BatchQueue:
    """See the module. Made where the dispatcher runs; `put`, `request_flush`, `finish` and `close` from there.

    Args:
        sink: whose counts it keeps.
        send: sends a batch of payloads within the given seconds; called by the thread, one at a time.
            Raises Retryable (as any OSError is taken to be), TooLarge, or anything else for a refusal.
        limits: the bounds.
        given_up: called by the thread with a payload that is dropped after it was queued.
        ended: called by the thread after the last attempt.
        name: of the thread.
    """

    def __init__(
        self,
        sink: Sink,
        send: Callable[[Sequence[Any], float], object],
        limits: Limits,
        *,
        given_up: Callable[[Any], object] | None = None,
        ended: Callable[[], object] = lambda: None,
        name: str = "relay_mp-exporter",
    ) -> None:
        self._sink = sink
        self._send = send
        self._limits = limits
        self._given_up = given_up
        self._ended = ended
        self._queue: deque[Item] = deque()
        self._queued_bytes = 0
        self._batch_bytes = limits.max_batch_bytes
        self._sending = 0
        self._changed = Condition()
        self._flush_requested = self._is_finished = self._is_abandoned = False
        self._deadline: float | None = None
        self._thread = Thread(target=self._run, name=name)
        self._thread.start()

    # ---- the dispatcher's side ----

    def put(self, payload: Any, size_bytes: int, *, events: int = 1) -> bool:
        """Queues something to send. False, and counted, if there is no room."""
        return self.put_all([(payload, events, size_bytes, self._sink.taken - events)]) == 1

    def put_all(self, items: Sequence[Item]) -> int:
        """Queues things to send, in order. Returns how many; those for which there is no room are counted."""
        limits, queue, dropped = self._limits, self._queue, 0
        with self._changed:
            waited, was_full = len(queue), self._has_full_batch
            most = 0 if self._is_finished else limits.max_queue_items
            for item in items:
                _, events, size_bytes, _ = item
                if len(queue) < most and self._queued_bytes + size_bytes <= limits.max_queue_bytes:
                    queue.append(item)
                    self._queued_bytes += size_bytes
                else:
                    dropped += events
            wait = len(queue)
            # The thread sleeps until there is something, and then until that is a batch.
            if wait > waited and (not waited or (self._has_full_batch and not was_full)):
                self._changed.notify()
        self._sink.count_dropped(DROP_FULL, dropped)
        return wait - waited

    def add(self, events: int = 1) -> bool:
        """Counts further events with the newest item, whose payload takes them along. False if none waits."""
        with self._changed:
            if len(self._queue) == self._sending:
                return False
            payload, counted, size_bytes, before = self._queue[-1]
            self._queue[-1] = payload, counted + events, size_bytes, before if counted else self._sink.taken - events
            return True

    def request_flush(self) -> None:
        """Sends what is there without waiting for more."""
        with self._changed:
            self._flush_requested = self._has_events
            self._changed.notify()

    def finish(self, seconds: float | None = None) -> None:
        """No more is put; what is left has `seconds`, by default the limits', to be sent."""
        own = self._limits.shutdown_timeout_seconds
        with self._changed:
            self._is_finished = True
            deadline = time.monotonic() + (own if seconds is None else min(seconds, own))
            self._deadline = deadline if self._deadline is None else min(deadline, self._deadline)
            self._changed.notify()

    def close(self) -> None:
        """Waits for the thread's end, or the deadline; then what is left, an attempt under way too, is given up."""
        self.finish()
        assert self._deadline is not None
        self._thread.join(max(self._deadline - time.monotonic(), 0.0) + CLOSE_GRACE_SECONDS)
        if self._thread.is_alive():
            with self._changed:
                self._is_abandoned = True
                left = list(self._queue)
                self._queue.clear()
            self._give_up(left, DROP_SHUTDOWN)

    @property
    def is_closed(self) -> bool:
        """Whether nothing is left to do."""
        return self._is_abandoned or not self._thread.is_alive()

    def flushed(self, taken: int) -> int:
        """How many of the events that the sink has taken are past this queue, from the first."""
        with self._changed:
            return next((before for _, events, _, before in self._queue if events), taken)

    # ---- the thread's side ----

    def _run(self) -> None:
        work_in_background()
        while batch := self._next_batch():
            self._deliver(batch)
            with self._changed:
                if self._is_abandoned:
                    break
                for _, _, size_bytes, _ in batch:
                    self._queue.popleft()
                    self._queued_bytes -= size_bytes
                self._sending = 0
                self._flush_requested = self._flush_requested and self._has_events
        self._ended()

    def _next_batch(self) -> list[Item]:
        """What goes out next; it stays in the queue until its fate is known. Empty at the end."""
        with self._changed:
            while not self._queue and not self._is_finished:
                self._changed.wait()
            gathers_until = time.monotonic() + self._limits.schedule_delay_seconds
            while self._queue and not self._has_full_batch and not self._is_hurried:
                left = gathers_until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            self._flush_requested = False
            batch = self._first_items()
            self._sending = len(batch)
            return batch

    @property
    def _has_events(self) -> bool:
        return any(events for _, events, _, _ in self._queue)

    @property
    def _has_full_batch(self) -> bool:
        return len(self._queue) >= self._limits.max_batch_items or self._queued_bytes >= self._batch_bytes

    @property
    def _is_hurried(self) -> bool:
        return self._flush_requested or self._is_finished

    def _first_items(self) -> list[Item]:
        batch: list[Item] = []
        room = self._batch_bytes
        for item in islice(self._queue, self._limits.max_batch_items):
            _, _, size_bytes, _ = item
            room -= size_bytes
            if batch and room < 0:
                break
            batch.append(item)
        return batch

    def _deliver(self, batch: list[Item]) -> None:
        """Sends a batch; in parts, in its order, where the receiver asks for less at once."""
        deadline = time.monotonic() + self._limits.retry_deadline_seconds
        parts = [batch]
        while parts:
            part = parts.pop()
            try:
                if not self._deliver_part(part, deadline):
                    parts += self._halve(part)
            except Exception as error:  # the thread must live as long as the sink
                logger.exception("an exporter failed")
                self._settle(part, type(error).__name__)

    def _halve(self, part: list[Item]) -> list[list[Item]]:
        """The halves of what was too large, the first one last; later batches are no larger than they are."""
        bound = sum(size_bytes for _, _, size_bytes, _ in part) // 2
        if bound:
            self._batch_bytes = min(self._batch_bytes, bound)
        half = len(part) // 2
        return [part[half:], part[:half]]

    def _deliver_part(self, batch: list[Item], deadline: float) -> bool:
        """Sends a part until its fate is known. False: it is too large, and there is more than one item in it."""
        pause = self._limits.retry_initial_seconds
        while True:
            seconds = self._time_left(deadline)
            if seconds <= 0:
                self._settle(batch, DROP_SHUTDOWN if self._is_finished else DROP_DEADLINE)
                return True
            try:
                self._send([payload for payload, _, _, _ in batch], min(self._limits.timeout_seconds, seconds))
            except (Retryable, OSError) as error:
                self._sink.count_failure(error)
                asked = error.after_seconds if isinstance(error, Retryable) else None
                self._pause(deadline, random.uniform(0, pause) if asked is None else asked)
                pause = min(pause * 2, self._limits.retry_max_seconds)
            except Exception as error:
                self._sink.count_failure(error)
                is_too_large = isinstance(error, TooLarge)
                if is_too_large and len(batch) > 1:
                    return False
                logger.warning("an exporter gives up %d events: %s", _events_of(batch), brief(error))
                self._settle(batch, DROP_TOO_LARGE if is_too_large else DROP_REFUSED)
                return True
            else:
                self._settle(batch, None)
                return True

    def _settle(self, batch: list[Item], drop: str | None) -> None:
        """The batch's fate is known, unless `close` has decided it before."""
        if self._is_abandoned:
            return
        if drop is None:
            self._sink.count_exported(_events_of(batch))
        else:
            self._give_up(batch, drop)

    def _time_left(self, deadline: float) -> float:
        if self._deadline is not None:
            deadline = min(deadline, self._deadline)
        return deadline - time.monotonic()

    def _pause(self, deadline: float, seconds: float) -> None:
        ends = time.monotonic() + seconds
        with self._changed:
            while (left := min(ends - time.monotonic(), self._time_left(deadline))) > 0:
                self._changed.wait(left)  # woken by `finish`, which may bring the deadline nearer

    def _give_up(self, batch: list[Item], cause: str) -> None:
        for payload, events, _, _ in batch:
            self._sink.count_dropped(cause, events)
            if self._given_up is not None:
                try:
                    self._given_up(payload)
                except Exception as error:
                    self._sink.count_failure(error)


def _events_of(batch: list[Item]) -> int:
    return sum(events for _, events, _, _ in batch)


class QueuedSink(Sink):
    """The base of a sink whose events wait in a queue, `_queue`, that the subclass makes."""

    _queue: BatchQueue

    def _complete(self, report: ExporterReport) -> None:
        report.flushed = self._queue.flushed(report.taken)

    def _is_closed(self) -> bool:
        return self._queue.is_closed

    def request_flush(self) -> None:
        """Sends now what has gathered."""
        self._queue.request_flush()

    def _finish(self, seconds: float | None) -> None:
        self._queue.finish(seconds)

    def close(self) -> None:
        """Waits until all is sent or given up."""
        super().close()
        self._queue.close()
