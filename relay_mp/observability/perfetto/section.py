"""The section `perfetto`: one trace file."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from relay_mp.observability.export.checks import check_at_least
from relay_mp.observability.export.findings import Report, Where
from relay_mp.observability.export.section import Planned, Section, default_of
from relay_mp.observability.perfetto.exporter import PerfettoExporter, PerfettoExporterMode

__all__ = ["PerfettoConfig"]


@dataclass(slots=True)
class PerfettoConfig(Section):
    """A Chrome trace. See `PerfettoExporter` for what each field does.

    Attributes:
        path: None: `relay-mp-trace-<session id>.json` in the current directory.
    """

    enabled: bool = False
    path: str | None = None
    mode: Literal["new", "append", "overwrite"] = default_of(PerfettoExporter, "mode").value
    max_open_scopes: int | None = None
    max_open_bytes: int | None = None
    payloads: bool = default_of(PerfettoExporter, "payloads")

    def check(self, report: Report) -> None:
        """See Section."""
        check_at_least(self, report, 1, "max_open_scopes", "max_open_bytes")

    def exporters(self, at: Where) -> Iterator[Planned]:
        """See Section."""
        yield Planned(at, f"perfetto:{self._make()._path}", self._make)

    def _make(self) -> PerfettoExporter:
        return PerfettoExporter(**{**self.settings(), "mode": PerfettoExporterMode(self.mode)})
