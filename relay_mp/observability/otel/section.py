"""The section `opentelemetry`: one exporter for each endpoint of traces, logs and metrics."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from relay_mp.observability.export.base import Exporter
from relay_mp.observability.export.checks import check_at_least, check_extra, check_limits, check_requests, check_url
from relay_mp.observability.export.endpoint import redacted_url
from relay_mp.observability.export.findings import Report, Where
from relay_mp.observability.export.section import Planned, Section, configure, placed
from relay_mp.observability.otel.exporter import OtlpConfig, OtlpTransport, queue_limits
from relay_mp.observability.otel.logs import RECORD_LIMITS, OpenTelemetryLogConfig, OpenTelemetryLogSubscriber
from relay_mp.observability.otel.metrics import OpenTelemetryMetricConfig, OpenTelemetryMetricSubscriber
from relay_mp.observability.otel.traces import (
    SPAN_LIMITS,
    MarkProjection,
    OpenTelemetryConfig,
    OpenTelemetrySubscriber,
    Projection,
)
from relay_mp.observability.otel.urls import url_of_other_signal
from relay_mp.types import LogSeverity, MetricTemporality

__all__ = [
    "OpenTelemetryEndpointConfig",
    "OpenTelemetryLogSectionConfig",
    "OpenTelemetryMetricSectionConfig",
    "OpenTelemetrySectionConfig",
    "OpenTelemetrySignalEndpointConfig",
]

_TRACES = OpenTelemetryConfig("full")
_LOGS = OpenTelemetryLogConfig()
_METRICS = OpenTelemetryMetricConfig()


@dataclass(slots=True)
class OpenTelemetryEndpointConfig(Section):
    """One receiver of traces, in one projection. See `OpenTelemetryConfig` for what each field does.

    Attributes:
        max_queue_size: of the queue; None: as `Limits` has it. So are `max_export_batch_size` and
            `scheduled_delay_millis`.
        completed_span_context_ttl_millis: None: as `OpenTelemetryConfig` has it. So are the four limits.
    """

    # The fields that an OtlpConfig has too are written out: they stand in the order of nemo_relay's dataclass.
    type: Projection
    endpoint: str = field(repr=False)
    mark_projection: MarkProjection = _TRACES.mark_projection
    mark_exclude_names: list[str] = field(default_factory=_TRACES.mark_exclude_names.copy)
    attribute_mappings: list[dict[str, str]] = field(default_factory=list)
    transport: OtlpTransport = _TRACES.transport
    service_name: str = _TRACES.service_name
    service_namespace: str | None = _TRACES.service_namespace
    service_version: str | None = _TRACES.service_version
    instrumentation_scope: str = _TRACES.instrumentation_scope
    timeout_millis: int = _TRACES.timeout_millis
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    header_env: dict[str, str] = field(default_factory=dict)
    resource_attributes: dict[str, str] = field(default_factory=dict)
    max_queue_size: int | None = None
    max_export_batch_size: int | None = None
    scheduled_delay_millis: int | None = None
    completed_span_context_ttl_millis: int | None = None
    promote_metadata_prefixes: list[str] = field(default_factory=list)
    promote_resource_metadata_prefixes: list[str] = field(default_factory=list)
    attribute_value_length_limit: int | None = None
    attribute_count_limit: int | None = None
    event_attribute_count_limit: int | None = None
    event_count_limit: int | None = None

    def check(self, report: Report) -> None:
        """See Section."""
        _check_receiver(self, report)
        _check_queue(self, report)
        check_at_least(self, report, 0, *SPAN_LIMITS)
        for index, mapping in enumerate(self.attribute_mappings):
            for name in ("key", "alias"):
                if not mapping.get(name):
                    report.key("attribute_mappings").item(index).key(name).invalid("is missing")

    def exporters(self, at: Where) -> Iterator[Planned]:
        """See Section."""
        yield Planned(at, f"opentelemetry.traces:{self.type}:{redacted_url(self.endpoint)}", self._make)

    def _make(self) -> Exporter:
        limits = queue_limits(self.max_queue_size, self.max_export_batch_size, self.scheduled_delay_millis)
        return OpenTelemetrySubscriber(configure(OpenTelemetryConfig(self.type), self, limits=limits))


@dataclass(slots=True)
class OpenTelemetrySignalEndpointConfig(OtlpConfig, Section):
    """One receiver of logs or metrics. See `OtlpConfig` for what each field does."""

    endpoint: str = field(repr=False)

    def check(self, report: Report) -> None:
        """See Section."""
        _check_receiver(self, report)
        check_limits(self, report)


def _check_receiver(endpoint: Any, report: Report) -> None:
    if endpoint.transport == "http_binary" or "//" in endpoint.endpoint or not endpoint.endpoint.strip():
        check_url(endpoint.endpoint, report.key("endpoint"))
    check_requests(endpoint, report)


def _check_queue(section: Any, report: Report) -> None:
    counts = "max_queue_size", "max_export_batch_size", "scheduled_delay_millis"
    check_at_least(section, report, 1, *counts, "completed_span_context_ttl_millis")
    queue, batch = section.max_queue_size, section.max_export_batch_size
    if queue is not None and batch is not None and batch > queue > 0:
        report.key("max_export_batch_size").unsupported(f"is {batch}, above max_queue_size, {queue}")


@dataclass(slots=True)
class OpenTelemetryLogSectionConfig(Section):
    """Marks with a severity, as log records. Without endpoints of its own, those of the traces."""

    enabled: bool = False
    endpoints: list[OpenTelemetrySignalEndpointConfig] | None = None
    minimum_severity: Literal["trace", "debug", "info", "warn", "warning", "error"] = _LOGS.minimum_severity.value
    max_queue_size: int = _LOGS.max_queue_size
    max_export_batch_size: int = _LOGS.max_export_batch_size
    scheduled_delay_millis: int = _LOGS.scheduled_delay_millis
    completed_span_context_ttl_millis: int = _LOGS.completed_span_context_ttl_millis
    attribute_value_length_limit: int | None = None
    attribute_count_limit: int | None = None

    def check(self, report: Report) -> None:
        """See Section."""
        for place, endpoint in placed(report, "endpoints", self.endpoints):
            endpoint.check(place)
        _check_queue(self, report)
        check_at_least(self, report, 0, *RECORD_LIMITS)

    def to(self, endpoint: OpenTelemetrySignalEndpointConfig) -> Exporter:
        """The exporter to one of its endpoints, or to one of the traces'."""
        severity = LogSeverity("warn" if self.minimum_severity == "warning" else self.minimum_severity)
        config = configure(OpenTelemetryLogConfig(), endpoint)
        return OpenTelemetryLogSubscriber(configure(config, self, minimum_severity=severity))


@dataclass(slots=True)
class OpenTelemetryMetricSectionConfig(Section):
    """Measurements, as metrics. Without endpoints of its own, those of the traces."""

    enabled: bool = False
    endpoints: list[OpenTelemetrySignalEndpointConfig] | None = None
    export_interval_millis: int = _METRICS.export_interval_millis
    temporality: Literal["cumulative", "delta", "low_memory"] = _METRICS.temporality.value
    max_instruments: int = _METRICS.max_instruments
    cardinality_limit: int = _METRICS.cardinality_limit

    def check(self, report: Report) -> None:
        """See Section."""
        for place, endpoint in placed(report, "endpoints", self.endpoints):
            endpoint.check(place)
        check_at_least(self, report, 1, "export_interval_millis", "max_instruments", "cardinality_limit")

    def to(self, endpoint: OpenTelemetrySignalEndpointConfig) -> Exporter:
        """The exporter to one of its endpoints, or to one of the traces'."""
        config = configure(OpenTelemetryMetricConfig(), endpoint)
        temporality = MetricTemporality(self.temporality)
        return OpenTelemetryMetricSubscriber(configure(config, self, temporality=temporality))


@dataclass(slots=True)
class OpenTelemetrySectionConfig(Section):
    """Traces, logs and metrics to OTLP receivers (extra `otel`). OpenInference is an endpoint's `type`."""

    enabled: bool = False
    endpoints: list[OpenTelemetryEndpointConfig] = field(default_factory=list)
    logs: OpenTelemetryLogSectionConfig | None = None
    metrics: OpenTelemetryMetricSectionConfig | None = None

    def check(self, report: Report) -> None:
        """See Section."""
        signals = list(self._signals())
        for name, _ in signals if report.version == 3 else ():
            report.key(name).unsupported("is not in version 3; set version = 4")
        if self.enabled and not self.endpoints and not any(signal.enabled for _, signal in signals):
            report.key("endpoints").unsupported("has no endpoint; expected one, or logs or metrics with one")
        for place, endpoint in placed(report, "endpoints", self.endpoints):
            endpoint.check(place)
        for name, signal in signals:
            place = report.part(name)
            if self.enabled and signal.enabled and not (signal.endpoints or self.endpoints):
                place.key("endpoints").unsupported("has no endpoint, nor have the traces; expected one")
            signal.check(place)
        if self.enabled:
            check_extra("otel", report, "opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.grpc")
            if any(endpoint and endpoint.type == "openinference" for endpoint in self.endpoints):
                check_extra("openinference", report, "openinference.semconv")

    def exporters(self, at: Where) -> Iterator[Planned]:
        """See Section."""
        for place, endpoint in placed(at, "endpoints", self.endpoints):
            yield from endpoint.exporters(place)
        for name, signal in self._signals():
            own = list(placed(at.part(name), "endpoints", signal.endpoints))
            for where, to in own or self._derived(at.part(name), name) if signal.enabled else ():
                make = functools.partial(signal.to, to)
                yield Planned(where, f"opentelemetry.{name}:{redacted_url(to.endpoint)}", make)

    def _signals(self) -> Iterator[tuple[str, OpenTelemetryLogSectionConfig | OpenTelemetryMetricSectionConfig]]:
        if self.logs is not None:
            yield "logs", self.logs
        if self.metrics is not None:
            yield "metrics", self.metrics

    def _derived(self, where: Where, signal: str) -> Iterator[tuple[Where, OpenTelemetrySignalEndpointConfig]]:
        """Endpoints of the traces, for a signal that has none of its own; those of several projections once."""
        known: list[OpenTelemetrySignalEndpointConfig] = []
        for _, endpoint in placed(where, "endpoints", self.endpoints):
            url = url_of_other_signal(endpoint.endpoint, signal)
            to: OpenTelemetrySignalEndpointConfig
            to = configure(OpenTelemetrySignalEndpointConfig(url), endpoint, endpoint=url)
            if to not in known:
                known.append(to)
                yield where, to
