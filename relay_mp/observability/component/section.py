"""The section `exporters`: any exporter by its kind, of this package or of another one."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from relay_mp.observability.export.base import exporter
from relay_mp.observability.export.findings import Report, Where
from relay_mp.observability.export.kinds import known_kinds
from relay_mp.observability.export.section import Planned, Section

__all__ = ["ExporterConfig"]


@dataclass(slots=True)
class ExporterConfig(Section):
    """Any exporter by its kind: an entry point of the group `relay_mp.exporters`.

    Attributes:
        kind: of the exporter.
        arguments: its settings, JSON types only.
        name: of the exporter in reports; None: its kind.
    """

    kind: str
    arguments: dict[str, Any] = field(default_factory=dict, repr=False)
    name: str | None = None
    enabled: bool = True

    def check(self, report: Report) -> None:
        """See Section."""
        known = known_kinds()
        if self.kind not in known:
            report.key("kind").error("unknown_exporter", f"is not a kind of exporter; there are {', '.join(known)}")

    def exporters(self, at: Where) -> Iterator[Planned]:
        """See Section."""
        yield Planned(at, self.name or self.kind, functools.partial(exporter, self.kind, **self.arguments))
