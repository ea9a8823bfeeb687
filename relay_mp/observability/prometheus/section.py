"""The section `prometheus`: one endpoint to scrape."""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from relay_mp.observability.export.checks import check_at_least, check_extra
from relay_mp.observability.export.findings import Report, Where
from relay_mp.observability.export.section import Planned, Section, default_of
from relay_mp.observability.prometheus.exporter import PrometheusExporter

__all__ = ["PrometheusConfig"]


@dataclass(slots=True)
class PrometheusConfig(Section):
    """Metrics that are scraped (extra `prometheus`). See `PrometheusExporter` for what each field does."""

    enabled: bool = False
    host: str = default_of(PrometheusExporter, "host")
    port: int = default_of(PrometheusExporter, "port")
    max_names: int | None = None
    max_open_scopes: int | None = None
    buckets: list[float] | None = None

    def check(self, report: Report) -> None:
        """See Section."""
        check_at_least(self, report, 1, "max_names", "max_open_scopes")
        if not 0 <= self.port <= 65535:
            report.key("port").unsupported(f"is {self.port}; expected 0 to 65535")
        if any(not low < high for low, high in itertools.pairwise(self.buckets or ())):
            report.key("buckets").unsupported("must be in strictly increasing order")
        if self.enabled:
            check_extra("prometheus", report, "prometheus_client")

    def exporters(self, at: Where) -> Iterator[Planned]:
        """See Section."""
        make = functools.partial(PrometheusExporter, **self.settings())
        yield Planned(at, f"prometheus:{self.host}:{self.port}", make)
