"""Which exporters the section `opentelemetry` stands for: one for each endpoint of traces, logs and metrics."""

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

from relay_mp.observability.component.config import (
    OpenTelemetryEndpointConfig,
    OpenTelemetryLogSectionConfig,
    OpenTelemetryMetricSectionConfig,
    OpenTelemetrySectionConfig,
    OpenTelemetrySignalEndpointConfig,
)
from relay_mp.observability.component.reading import Where
from relay_mp.observability.component.unit import Unit
from relay_mp.observability.export.base import Exporter
from relay_mp.observability.export.http import redacted_url
from relay_mp.observability.otel.exporter import OpenTelemetryConfig, OpenTelemetrySubscriber, OtlpConfig
from relay_mp.observability.otel.logs import OpenTelemetryLogConfig, OpenTelemetryLogSubscriber
from relay_mp.observability.otel.metrics import OpenTelemetryMetricConfig, OpenTelemetryMetricSubscriber
from relay_mp.types import LogSeverity, MetricTemporality

__all__ = ["opentelemetry_units"]


def opentelemetry_units(section: OpenTelemetrySectionConfig, where: Where) -> Iterator[Unit]:
    """An exporter for each endpoint of each signal.

    Args:
        section: enabled; with None in place of what could not be read.
        where: its place.
    """
    for index, endpoint in enumerate(section.endpoints):
        if endpoint is not None:
            make = functools.partial(_traces, endpoint)
            place = f"opentelemetry.traces:{endpoint.type}:{redacted_url(endpoint.endpoint)}"
            yield Unit(where.key("endpoints").item(index), place, make)
    makers: dict[str, _MakeSignal] = {"logs": _logs, "metrics": _metrics}
    for name, make_signal in makers.items():
        signal = getattr(section, name)
        if signal is not None and signal.enabled:
            own = [(where.part(name).key("endpoints").item(i), e) for i, e in enumerate(signal.endpoints or ()) if e]
            for at, to in own or _derived(section, where.part(name), name):
                made = functools.partial(make_signal, to, signal)
                yield Unit(at, f"opentelemetry.{name}:{redacted_url(to.endpoint)}", made)


_SignalEndpoint = tuple[Where, OpenTelemetrySignalEndpointConfig]
_MakeSignal = Callable[[OpenTelemetrySignalEndpointConfig, Any], Exporter]


def _derived(section: OpenTelemetrySectionConfig, where: Where, signal: str) -> Iterator[_SignalEndpoint]:
    """Endpoints of the traces, for a signal that has none of its own; those of several projections once."""
    known: list[OpenTelemetrySignalEndpointConfig] = []
    for endpoint in section.endpoints:
        if endpoint is not None:
            to = OpenTelemetrySignalEndpointConfig(re.sub("/v1/traces/?$", f"/v1/{signal}", endpoint.endpoint))
            for name in _SHARED:
                setattr(to, name, getattr(endpoint, name))
            if to not in known:
                known.append(to)
                yield where, to


def _logs(endpoint: OpenTelemetrySignalEndpointConfig, section: OpenTelemetryLogSectionConfig) -> Exporter:
    config = OpenTelemetryLogConfig(endpoint.endpoint)
    _copy_endpoint(endpoint, config)
    severity = "warn" if section.minimum_severity == "warning" else section.minimum_severity
    config.minimum_severity = LogSeverity(severity)
    names = "max_queue_size", "max_export_batch_size", "scheduled_delay_millis", "completed_span_context_ttl_millis"
    for name in names:
        setattr(config, name, getattr(section, name))
    return OpenTelemetryLogSubscriber(config)


def _metrics(endpoint: OpenTelemetrySignalEndpointConfig, section: OpenTelemetryMetricSectionConfig) -> Exporter:
    config = OpenTelemetryMetricConfig(endpoint.endpoint)
    _copy_endpoint(endpoint, config)
    config.temporality = MetricTemporality(section.temporality)
    for name in ("export_interval_millis", "max_instruments", "cardinality_limit"):
        setattr(config, name, getattr(section, name))
    return OpenTelemetryMetricSubscriber(config)


def _traces(endpoint: OpenTelemetryEndpointConfig) -> Exporter:
    config = OpenTelemetryConfig(endpoint.type, endpoint.endpoint)
    _copy_endpoint(endpoint, config)
    names = "mark_projection", "mark_exclude_names", "attribute_mappings"
    for name in (*names, "promote_metadata_prefixes", "promote_resource_metadata_prefixes"):
        setattr(config, name, getattr(endpoint, name))
    if endpoint.completed_span_context_ttl_millis is not None:
        config.completed_span_context_ttl_millis = endpoint.completed_span_context_ttl_millis
    config.limits = _limits(endpoint)
    return OpenTelemetrySubscriber(config)


_SHARED = (
    "transport", "headers", "header_env", "service_name", "service_namespace", "service_version",
    "resource_attributes", "instrumentation_scope", "timeout_millis",
)  # fmt: skip


def _copy_endpoint(endpoint: OpenTelemetryEndpointConfig | OpenTelemetrySignalEndpointConfig, to: OtlpConfig) -> None:
    for name in _SHARED:
        setattr(to, name, getattr(endpoint, name))


def _limits(section: Any) -> dict[str, Any]:
    """The peer's bounds of a queue as those of a queue."""
    given = {
        "max_queue_items": section.max_queue_size,
        "max_batch_items": section.max_export_batch_size,
        "schedule_delay_seconds": section.scheduled_delay_millis and section.scheduled_delay_millis / 1000,
    }
    return {name: value for name, value in given.items() if value is not None}
