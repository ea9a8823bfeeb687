"""The section `atof`: one exporter for each of its sinks, a file or a stream."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from relay_mp.observability.atof.exporter import (
    AtofExporter,
    AtofExporterConfig,
    AtofExporterMode,
    FieldNamePolicy,
    FsyncPolicy,
    Transport,
)
from relay_mp.observability.export.checks import check_at_least, check_limits, check_requests, check_url
from relay_mp.observability.export.endpoint import redacted_url
from relay_mp.observability.export.findings import Report, Where
from relay_mp.observability.export.section import Planned, Section, configure, default_of, placed

__all__ = ["AtofConfig", "AtofEndpointConfig", "AtofFileSinkConfig", "AtofStreamSinkConfig"]


class _Sink(Section):
    """What files and streams have alike."""

    __slots__ = ()

    name: str | None


@dataclass(slots=True)
class AtofFileSinkConfig(_Sink):
    """A file of JSON lines. See `AtofExporterConfig` for what each field does.

    Attributes:
        output_directory: None: the current one.
        filename: None: `relay-mp-events-<session id>.jsonl`.
        name: of the exporter in reports; None: from the path.
    """

    TYPE: ClassVar[str] = "file"

    output_directory: str | None = None
    filename: str | None = None
    mode: Literal["append", "overwrite"] = default_of(AtofExporterConfig, "mode").value
    fsync: FsyncPolicy = default_of(AtofExporterConfig, "fsync")
    rotate_bytes: int = default_of(AtofExporterConfig, "rotate_bytes")
    rotated_files: int = default_of(AtofExporterConfig, "rotated_files")
    orphan_wait_seconds: float = default_of(AtofExporterConfig, "orphan_wait_seconds")
    origin: bool = default_of(AtofExporterConfig, "origin")
    name: str | None = None

    def check(self, report: Report) -> None:
        """See Section."""
        check_at_least(self, report, 0, "rotate_bytes", "rotated_files", "orphan_wait_seconds")

    def exporters(self, at: Where) -> Iterator[Planned]:
        """See Section."""
        config = configure(AtofExporterConfig(), self, mode=AtofExporterMode(self.mode))
        yield Planned(at, f"atof:{self.name or config.path}", functools.partial(AtofExporter, config))


@dataclass(slots=True)
class AtofStreamSinkConfig(_Sink):
    """JSON lines to an HTTP receiver. See `AtofExporterConfig` for what each field does.

    Attributes:
        name: of the exporter in reports; None: from the URL.
        limits: bounds of queue, batch and retries, by name; see `relay_mp.observability.Limits`.
    """

    TYPE: ClassVar[str] = "stream"

    url: str = field(repr=False)
    transport: Transport = default_of(AtofExporterConfig, "transport")
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    header_env: dict[str, str] = field(default_factory=dict)
    timeout_millis: int = default_of(AtofExporterConfig, "timeout_millis")
    field_name_policy: FieldNamePolicy = default_of(AtofExporterConfig, "field_name_policy")
    origin: bool = default_of(AtofExporterConfig, "origin")
    name: str | None = None
    limits: dict[str, Any] = field(default_factory=dict)

    def check(self, report: Report) -> None:
        """See Section."""
        check_url(self.url, report.key("url"))
        check_requests(self, report)
        check_limits(self, report)

    def exporters(self, at: Where) -> Iterator[Planned]:
        """See Section."""
        config = configure(AtofExporterConfig(sink_type="stream"), self)
        yield Planned(at, f"atof:{self.name or redacted_url(self.url)}", functools.partial(AtofExporter, config))


AtofEndpointConfig = AtofStreamSinkConfig


@dataclass(slots=True)
class AtofConfig(Section):
    """The stream itself, as ATOF JSON lines, to any number of files and receivers."""

    enabled: bool = False
    sinks: list[AtofFileSinkConfig | AtofStreamSinkConfig] | None = None

    def check(self, report: Report) -> None:
        """See Section."""
        if self.enabled and not self.sinks:
            report.key("sinks").unsupported("has no sink; expected at least one, or enabled = false")
        names: set[str] = set()
        sink: _Sink
        for place, sink in placed(report, "sinks", self.sinks):
            if sink.name is not None:
                if not sink.name or sink.name in names:
                    place.key("name").unsupported("is that of another sink" if sink.name else "is empty")
                names.add(sink.name)
            sink.check(place)

    def exporters(self, at: Where) -> Iterator[Planned]:
        """See Section."""
        for place, sink in placed(at, "sinks", self.sinks):
            yield from sink.exporters(place)
