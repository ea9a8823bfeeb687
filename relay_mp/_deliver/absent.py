"""A named subscriber that could not be made again after a restart of the dispatcher.

    table.restore ─▶ Absent, in its place ─▶ each event that it does not see counts as a failure of a subscriber,
                                             and for an exporter as dropped (`absent`)
    Dispatcher, once a second ─▶ Subscriptions.retry_absent ─▶ `attempt` ─▶ the subscriber itself, from there on

The cause may pass: a module that is just deployed anew, a file that another process still writes, no descriptor.
"""

import importlib
import time
from collections.abc import Callable
from typing import Any

from relay_mp._deliver import named
from relay_mp._deliver.reports import CLOSED, FAILING, ExporterReport
from relay_mp._log import logger
from relay_mp.errors import SubscriberError

__all__ = ["DROPPED", "FIRST_PAUSE_SECONDS", "LONGEST_PAUSE_SECONDS", "Absent"]

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
"""Between two attempts: each pause is twice the one before, up to the longest."""

DROPPED = "absent"
"""Why an exporter has not exported what came meanwhile."""


class Absent:
    """Stands for such a subscriber, as its callback.

    Args:
        name: it is registered under.
        target: "package.module:attribute".
        arguments: see named.find.
        why: it could not be made.
        is_exporter: whether it has a report.
    """

    def __init__(
        self, name: str, target: str, arguments: dict[str, Any] | None, why: str, *, is_exporter: bool
    ) -> None:
        self._name, self._target, self._arguments, self._why = name, target, arguments, why
        self._is_exporter = is_exporter
        self._pause = FIRST_PAUSE_SECONDS
        self._next_attempt = time.monotonic() + self._pause
        self._state = FAILING
        self.missed = 0

    def __call__(self, _event: object) -> None:
        """An event that it does not see."""
        self.missed += 1
        raise SubscriberError(f"it could not be made again after a restart of the dispatcher: {self._why}")

    def attempt(self) -> Callable[..., Any] | None:
        """The callback, if it is time to try and can be made."""
        if time.monotonic() < self._next_attempt:
            return None
        importlib.invalidate_caches()
        try:
            callback = named.resolve(self._target, self._arguments)
        except SubscriberError as error:
            self._why = str(error)
            self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
            self._next_attempt = time.monotonic() + self._pause
            return None
        logger.warning("subscriber %r is there again; it did not see %d events", self._name, self.missed)
        return callback

    def report(self) -> ExporterReport | None:
        """What an exporter would say."""
        if not self._is_exporter:
            return None
        missed = self.missed
        drops = {DROPPED: missed} if missed else {}
        return ExporterReport(self._state, taken=missed, drops=drops, flushed=missed, last_error=self._why)

    def finish(self, _seconds: float | None = None) -> None:
        """No more events come."""
        self._state = CLOSED
