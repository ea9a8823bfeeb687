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
from relay_mp.observability.export.sink import MAX_OPEN_SCOPES

__all__ = ["PrometheusExporter", "prometheus"]

MAX_NAMES = 1000
BUCKETS_SECONDS = (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class PrometheusExporter(Exporter):
    """Serves metrics of the session's scopes and marks to Prometheus.

    Args:
        host: where it listens.
        port: 0: a free one; see `url`.
        max_names: how many pairs of category and name become labels; further names are counted as "other"; default
            1000.
        max_open_scopes: scopes whose end is waited for; the oldest are given up beyond that, and their
            durations are not counted; default 1,000,000.
        buckets: of the histogram of durations, in seconds, in increasing order; default: 0.1 ms to 5 minutes.
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
        arguments: dict[str, Any] = {
            "host": host,
            "port": port,
            "max_names": MAX_NAMES if max_names is None else max_names,
            "max_open_scopes": MAX_OPEN_SCOPES if max_open_scopes is None else max_open_scopes,
            "buckets": list(BUCKETS_SECONDS if buckets is None else buckets),
        }
        super().__init__([("relay_mp.observability.prometheus.sink:PrometheusSink", arguments)])

    @property
    def url(self) -> str | None:
        """Where to scrape; None while it is not registered."""
        reports = list(self.report().values())
        return reports[0].place if reports else None


def prometheus(**settings: Any) -> Any:
    """The kind of exporter of that name: a sink.

    Args:
        settings: as of PrometheusExporter.
    """
    return PrometheusExporter().make_sink(**settings)
