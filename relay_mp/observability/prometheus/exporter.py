"""The Prometheus exporter: how many scopes there were, how long they took, what failed and what was lost.

Served over HTTP by the process that the dispatcher runs in: one endpoint for all processes of a session,
no directory of files per process. Needs the extra: `pip install relay_mp[prometheus]`.

    relay_mp_scopes_started_total{category, name}       relay_mp_scope_errors_total{category, name}
    relay_mp_scope_duration_seconds{category, name}     relay_mp_marks_total{category, name}
    relay_mp_events_lost_total{cause}                   relay_mp_open_scopes, relay_mp_orphan_ends_total
"""

from collections.abc import Sequence
from typing import Any

from relay_mp.observability.export.base import Exporter

__all__ = ["PrometheusExporter"]


class PrometheusExporter(Exporter):
    """Serves metrics of the session's scopes and marks to Prometheus.

    Args:
        host: where it listens.
        port: 0: a free one; see `url`.
        max_names: how many pairs of category and name become labels; further names are counted as "other".
        max_open_scopes: scopes whose end is waited for; the oldest are given up beyond that, and their
            durations are not counted; default 1,000,000.
        buckets: of the histogram of durations, in seconds, rising.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        max_names: int | None = None,
        max_open_scopes: int | None = None,
        buckets: Sequence[float] | None = None,
    ) -> None:
        given: dict[str, Any] = {
            "host": host,
            "port": port,
            "max_names": max_names,
            "max_open_scopes": max_open_scopes,
            "buckets": list(buckets) if buckets is not None else None,
        }
        arguments = {name: value for name, value in given.items() if value is not None}
        super().__init__([("relay_mp.observability.prometheus.sink:PrometheusSink", arguments)])

    @property
    def url(self) -> str | None:
        """Where to scrape; None while it is not registered."""
        reports = list(self.report().values())
        return reports[0].place if reports else None
