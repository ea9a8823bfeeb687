"""Prometheus where the dispatcher runs: counters fed by the stream, scraped over HTTP.

    event ──▶ counters and histograms of a registry of its own ──▶ GET /metrics, on the client's threads

Uses the official client, `prometheus_client`. Labels are category and name; names beyond a bound become
"other", so that a program that puts ids into names does not fill the memory of whoever scrapes it.
"""

import threading
from collections.abc import Sequence
from typing import Any

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
except ImportError as error:
    raise ImportError("Prometheus needs the extra: pip install 'relay_mp[prometheus]'") from error

from relay_mp._deliver.at_fork import abandon_in_child, unforked
from relay_mp._deliver.dispatcher import LOSS_MARK
from relay_mp._deliver.open_scopes import OpenScope, OpenScopes
from relay_mp._deliver.reports import ExporterReport
from relay_mp.events import Event, ScopeEvent
from relay_mp.observability.export.sink import Sink

__all__ = ["PrometheusSink"]

OTHER = "other"

_LABELS = ("category", "name")


class _Series(dict[tuple[str, ...], Any]):
    """A metric's series, by their labels: to ask the client for one takes as long as to count in it."""

    def __init__(self, metric: Any) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, labels: tuple[str, ...]) -> Any:
        series = self[labels] = self._metric.labels(*labels)
        return series


class _Begun(OpenScope):
    """Of each open scope only when it began: its end says the rest. All are of one size."""

    __slots__ = ("start_us",)
    start_us: int


class PrometheusSink(Sink):
    """Counts and times scopes, marks and losses, and serves them.

    Args:
        host: where it listens.
        port: 0: a free one, which is in the report's `place`.
        max_names: names that are labels; the others are counted as "other".
        max_open_scopes: scopes whose end is waited for; the oldest are given up beyond that.
        buckets: of the durations' histogram, in seconds.

    Raises:
        OSError: the port is taken.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        max_names: int,
        max_open_scopes: int,
        buckets: Sequence[float],
    ) -> None:
        super().__init__()
        if max_names < 1:
            raise ValueError(f"max_names is {max_names}; expected at least 1")
        self._max_names = max_names
        self._names: set[tuple[str, str]] = set()
        self._open: OpenScopes[_Begun] = OpenScopes(max_open_scopes, lambda begun: None)
        self._ending: threading.Thread | None = None
        registry = self._make_metrics(buckets)
        with unforked:
            self._server, self._thread = start_http_server(port, host, registry=registry)
            abandon_in_child(self)
        self._place = f"http://{host}:{self._server.server_port}/metrics"

    def _make_metrics(self, buckets: Sequence[float]) -> CollectorRegistry:
        registry = CollectorRegistry()

        def counter(name: str, what: str, labels: tuple[str, ...] = _LABELS) -> _Series:
            return _Series(Counter(name, what, labels, registry=registry))

        self._durations = _Series(Histogram(
            "relay_mp_scope_duration_seconds", "How long scopes took, from start to end.", _LABELS,
            buckets=buckets, registry=registry,
        ))  # fmt: skip
        self._started = counter("relay_mp_scopes_started", "Scopes that have begun.")
        self._errors = counter("relay_mp_scope_errors", "Scopes that ended with an error.")
        self._marks = counter("relay_mp_marks", "Marks.")
        self._lost = counter("relay_mp_events_lost", "Events that were emitted and lost.", ("cause",))
        self._orphans = Counter("relay_mp_orphan_ends", "Ends of scopes whose start was not seen.", registry=registry)
        open_scopes = Gauge("relay_mp_open_scopes", "Scopes that have begun and not ended.", registry=registry)
        open_scopes.set_function(lambda: len(self._open))
        return registry

    def _export(self, event: Event) -> None:
        if isinstance(event, ScopeEvent):
            labels = self._labels(event.category, event.name)
            if event.scope_category == "start":
                self._started[labels].inc()
                begun = _Begun(event.packed_uuid)
                begun.start_us = event.timestamp_us
                self._open.begin(begun)
            else:
                self._end(event, labels)
        elif event.name == LOSS_MARK:
            self._count_lost(event.data)
        else:
            self._marks[self._labels(event.category or "mark", event.name)].inc()
        self.count_exported()

    def _end(self, event: ScopeEvent, labels: tuple[str, str]) -> None:
        begun = self._open.end(event.packed_uuid)
        if begun is None:
            self._orphans.inc()
        else:
            self._durations[labels].observe(max(event.timestamp_us - begun.start_us, 0) / 1e6)
        metadata = event.metadata
        if isinstance(metadata, dict) and metadata.get("otel.status_code") == "ERROR":
            self._errors[labels].inc()

    def _count_lost(self, data: Any) -> None:
        causes = data.get("causes") if isinstance(data, dict) else None
        for cause, lost in causes.items() if isinstance(causes, dict) else ():
            if isinstance(lost, int):
                self._lost[cause,].inc(lost)

    def _labels(self, category: str, name: str) -> tuple[str, str]:
        found = (category, name)
        if found in self._names:
            return found
        if len(self._names) < self._max_names:
            self._names.add(found)
            return found
        return category, OTHER

    def _complete(self, report: ExporterReport) -> None:
        self._open.complete(report)
        report.place = self._place

    def _finish(self, _seconds: float | None) -> None:
        for _ in self._open.drain():
            pass  # counted as unfinished
        self._ending = threading.Thread(target=self._end_server, name="relay_mp-prometheus-end", daemon=True)
        self._ending.start()

    def _end_server(self) -> None:
        self._server.shutdown()  # takes up to half a second
        self._server.server_close()
        self._thread.join()

    def abandon(self) -> None:
        """Closes the port in this process only, such as a forked child."""
        self._server.socket.close()

    def _is_closed(self) -> bool:
        return self._ending is not None and not self._ending.is_alive()

    def close(self) -> None:
        """Waits until the port is free again."""
        super().close()
        if self._ending is not None:
            self._ending.join()
