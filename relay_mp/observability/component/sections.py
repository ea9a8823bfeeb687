"""Which exporters a section stands for: a sink of ATOF, an endpoint of OpenTelemetry, each is one of its own."""

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

from relay_mp.observability.atif.exporter import AtifFileExporter
from relay_mp.observability.atof.exporter import AtofExporter, AtofExporterConfig, AtofExporterMode
from relay_mp.observability.component.config import (
    AtifConfig,
    AtofConfig,
    AtofFileSinkConfig,
    AtofStreamSinkConfig,
    ExporterConfig,
    OpenTelemetrySectionConfig,
    PerfettoConfig,
    PrometheusConfig,
)
from relay_mp.observability.component.reading import Where
from relay_mp.observability.component.unit import Unit
from relay_mp.observability.export.base import Exporter, exporter
from relay_mp.observability.export.http import redacted_url
from relay_mp.observability.otel.section import opentelemetry_units
from relay_mp.observability.perfetto.exporter import PerfettoExporter
from relay_mp.observability.prometheus.exporter import PrometheusExporter

__all__ = ["SECTIONS", "units"]

SECTIONS: dict[str, tuple[Where, Any]] = {
    "atof": (Where("atof"), AtofConfig),
    "atif": (Where("atif"), AtifConfig),
    "opentelemetry": (Where("opentelemetry"), OpenTelemetrySectionConfig),
    "perfetto": (Where("perfetto"), PerfettoConfig),
    "prometheus": (Where("prometheus"), PrometheusConfig),
    "exporters": (Where("exporters"), list[ExporterConfig]),
}
"""Each with its place, and what it is read as."""


def units(name: str, section: Any) -> Iterator[Unit]:
    """The exporters of a section, none if it is not enabled.

    Args:
        name: of the section.
        section: as `SECTIONS` says, with None in place of what could not be read.
    """
    where = SECTIONS[name][0]
    if name == "exporters":
        yield from _further(section, where)
    elif section.enabled:
        yield from _UNITS[name](section, where)


def _atof(section: AtofConfig, where: Where) -> Iterator[Unit]:
    for index, sink in enumerate(section.sinks or ()):
        if sink is not None:
            config = _atof_file(sink) if isinstance(sink, AtofFileSinkConfig) else _atof_stream(sink)
            path = os.path.abspath(os.path.join(config.output_directory, config.filename))
            place = path if config.sink_type == "file" else redacted_url(config.url)
            make = functools.partial(AtofExporter, config)
            yield Unit(where.key("sinks").item(index), f"atof:{sink.name or place}", make)


def _atof_file(sink: AtofFileSinkConfig) -> AtofExporterConfig:
    config = AtofExporterConfig()
    config.output_directory = sink.output_directory or config.output_directory
    config.filename = sink.filename or config.filename
    config.mode = AtofExporterMode(sink.mode)
    config.fsync, config.rotate_bytes, config.rotated_files = sink.fsync, sink.rotate_bytes, sink.rotated_files
    return config


def _atof_stream(sink: AtofStreamSinkConfig) -> AtofExporterConfig:
    config = AtofExporterConfig()
    config.sink_type = "stream"
    for name in ("url", "transport", "headers", "header_env", "timeout_millis", "field_name_policy", "limits"):
        setattr(config, name, getattr(sink, name))
    return config


def _atif(section: AtifConfig, where: Where) -> Iterator[Unit]:
    storage = [one for one in section.storage or () if one is not None]
    directory = section.output_directory
    if directory is None and not storage:
        directory = os.getcwd()

    def make() -> Exporter:
        return AtifFileExporter(
            directory,
            filename_template=section.filename_template,
            storage=storage,
            agent_name=section.agent_name,
            agent_version=section.agent_version or "unknown",
            model_name=section.model_name,
            tool_definitions=section.tool_definitions,
            extra=section.extra,
            limits=section.limits,
            max_open_scopes=section.max_open_scopes,
            max_trajectory_events=section.max_trajectory_events,
        )

    yield Unit(where, f"atif:{os.path.abspath(directory) if directory else redacted_url(storage[0].endpoint)}", make)


def _perfetto(section: PerfettoConfig, where: Where) -> Iterator[Unit]:
    def make() -> PerfettoExporter:
        return PerfettoExporter(section.path, max_open_scopes=section.max_open_scopes, payloads=section.payloads)

    yield Unit(where, f"perfetto:{make().path}", make)


def _prometheus(section: PrometheusConfig, where: Where) -> Iterator[Unit]:
    def make() -> Exporter:
        return PrometheusExporter(
            host=section.host,
            port=section.port,
            max_names=section.max_names,
            max_open_scopes=section.max_open_scopes,
            buckets=section.buckets,
        )

    yield Unit(where, f"prometheus:{section.host}:{section.port}", make)


def _further(section: list[ExporterConfig | None], where: Where) -> Iterator[Unit]:
    for index, one in enumerate(section):
        if one is not None and one.enabled:
            make = functools.partial(exporter, one.kind, **one.arguments)
            yield Unit(where.item(index), one.name or one.kind, make)


_UNITS: dict[str, Callable[[Any, Where], Iterator[Unit]]] = {
    "atof": _atof,
    "atif": _atif,
    "opentelemetry": opentelemetry_units,
    "perfetto": _perfetto,
    "prometheus": _prometheus,
}
