"""What the observability component is configured with: sections, as objects or as the tables of `plugins.toml`.

    ObservabilityConfig ─▶ ComponentSpec ─▶ PluginConfig(components=[...]) ─▶ plugin.initialize

Names and defaults are those of `nemo_relay.observability` where it has them. A section whose `enabled` is false
is checked, and exports nothing. What may be in which field is checked by `plugin.validate` and `initialize`, not
when the objects are made. Secrets are named, not written down: `header_env` has names of environment variables,
which are looked up where the dispatcher runs; headers are not in any `repr`.
"""

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, Literal

from relay_mp._plugins.document import ConfigPolicy
from relay_mp.observability.atif.exporter import HttpStorageConfig
from relay_mp.types import JsonObject

__all__ = [
    "CONFIG_VERSION",
    "OBSERVABILITY_PLUGIN_KIND",
    "AtifConfig",
    "AtofConfig",
    "AtofEndpointConfig",
    "AtofFileSinkConfig",
    "AtofStreamSinkConfig",
    "ComponentSpec",
    "ConfigPolicy",
    "ExporterConfig",
    "HttpStorageConfig",
    "ObservabilityConfig",
    "OpenTelemetryEndpointConfig",
    "OpenTelemetryLogSectionConfig",
    "OpenTelemetryMetricSectionConfig",
    "OpenTelemetrySectionConfig",
    "OpenTelemetrySignalEndpointConfig",
    "PerfettoConfig",
    "PrometheusConfig",
]

OBSERVABILITY_PLUGIN_KIND = "observability"
CONFIG_VERSION = 4
"""Of the component's config: the peer's, whose sections these are."""


def _to_json(value: Any) -> Any:
    """A section as a JSON object, with its `type` where there is a choice of them; None is left out."""
    if is_dataclass(value) and not isinstance(value, type):
        kind = getattr(value, "TYPE", None)
        found = {"type": kind} if kind else {}
        for one in fields(value):
            item = getattr(value, one.name)
            if item is not None:
                found[one.name] = _to_json(item)
        return found
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    if isinstance(value, dict):
        return {key: _to_json(item) for key, item in value.items() if item is not None}
    return value


class _Section:
    """The base of all of them."""

    __slots__ = ()

    def to_dict(self) -> JsonObject:
        """The section as a JSON object, without what is None."""
        found: JsonObject = _to_json(self)
        return found


@dataclass(slots=True)
class AtofFileSinkConfig(_Section):
    """A file of JSON lines. See `AtofExporterConfig` for what each field does.

    Attributes:
        output_directory: None: the current one.
        filename: None: `relay-mp-events-<session id>.jsonl`.
        name: of the exporter in reports; None: from the path.
    """

    TYPE: ClassVar[str] = "file"

    output_directory: str | None = None
    filename: str | None = None
    mode: Literal["append", "overwrite"] = "append"
    fsync: Literal["never", "flush", "always"] = "never"
    rotate_bytes: int = 0
    rotated_files: int = 0
    name: str | None = None


@dataclass(slots=True)
class AtofStreamSinkConfig(_Section):
    """JSON lines to an HTTP receiver. See `AtofExporterConfig` for what each field does.

    Attributes:
        name: of the exporter in reports; None: from the URL.
        limits: bounds of queue, batch and retries, by name; see `relay_mp.observability.Limits`.
    """

    TYPE: ClassVar[str] = "stream"

    url: str
    transport: Literal["http_post", "ndjson"] = "http_post"
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    header_env: dict[str, str] = field(default_factory=dict)
    timeout_millis: int = 3000
    field_name_policy: Literal["preserve", "replace_dots"] = "preserve"
    name: str | None = None
    limits: dict[str, Any] = field(default_factory=dict)


AtofEndpointConfig = AtofStreamSinkConfig


@dataclass(slots=True)
class AtofConfig(_Section):
    """The stream itself, as ATOF JSON lines, to any number of files and receivers."""

    enabled: bool = False
    sinks: list[AtofFileSinkConfig | AtofStreamSinkConfig] | None = None


@dataclass(slots=True)
class AtifConfig(_Section):
    """A trajectory for each top-level agent. See `AtifFileExporter` for what each field does.

    Attributes:
        output_directory: None: the current one, unless there is storage.
    """

    enabled: bool = False
    agent_name: str = "relay_mp"
    agent_version: str | None = None
    model_name: str = "unknown"
    tool_definitions: list[dict[str, Any]] | None = None
    extra: dict[str, Any] | None = None
    output_directory: str | None = None
    filename_template: str = "relay-mp-atif-{session_id}.json"
    storage: list[HttpStorageConfig] | None = None
    limits: dict[str, Any] = field(default_factory=dict)
    max_open_scopes: int | None = None
    max_trajectory_events: int | None = None


@dataclass(slots=True)
class OpenTelemetryEndpointConfig(_Section):
    """One receiver of traces, in one projection."""

    type: Literal["full", "gen_ai", "openinference"]
    endpoint: str
    mark_projection: Literal["inherit", "event", "tool"] = "inherit"
    mark_exclude_names: list[str] = field(default_factory=lambda: ["llm.chunk"])
    attribute_mappings: list[dict[str, str]] = field(default_factory=list)
    transport: Literal["http_binary", "grpc"] = "http_binary"
    service_name: str = "unknown_service"
    service_namespace: str | None = None
    service_version: str | None = None
    instrumentation_scope: str = "opentelemetry"
    timeout_millis: int = 3000
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    header_env: dict[str, str] = field(default_factory=dict)
    resource_attributes: dict[str, str] = field(default_factory=dict)
    max_queue_size: int | None = None
    max_export_batch_size: int | None = None
    scheduled_delay_millis: int | None = None
    completed_span_context_ttl_millis: int | None = None
    promote_metadata_prefixes: list[str] = field(default_factory=list)
    promote_resource_metadata_prefixes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class OpenTelemetrySignalEndpointConfig(_Section):
    """One receiver of logs or metrics."""

    endpoint: str
    transport: Literal["http_binary", "grpc"] = "http_binary"
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    header_env: dict[str, str] = field(default_factory=dict)
    resource_attributes: dict[str, str] = field(default_factory=dict)
    service_name: str = "unknown_service"
    service_namespace: str | None = None
    service_version: str | None = None
    instrumentation_scope: str = "opentelemetry"
    timeout_millis: int = 3000


@dataclass(slots=True)
class OpenTelemetryLogSectionConfig(_Section):
    """Marks with a severity, as log records. Without endpoints of its own, those of the traces."""

    enabled: bool = False
    endpoints: list[OpenTelemetrySignalEndpointConfig] | None = None
    minimum_severity: Literal["trace", "debug", "info", "warn", "warning", "error"] = "info"
    max_queue_size: int = 2048
    max_export_batch_size: int = 512
    scheduled_delay_millis: int = 1000
    completed_span_context_ttl_millis: int = 60000


@dataclass(slots=True)
class OpenTelemetryMetricSectionConfig(_Section):
    """Measurements, as metrics. Without endpoints of its own, those of the traces."""

    enabled: bool = False
    endpoints: list[OpenTelemetrySignalEndpointConfig] | None = None
    export_interval_millis: int = 60000
    temporality: Literal["cumulative", "delta", "low_memory"] = "cumulative"
    max_instruments: int = 256
    cardinality_limit: int = 2000


@dataclass(slots=True)
class OpenTelemetrySectionConfig(_Section):
    """Traces, logs and metrics to OTLP receivers (extra `otel`). OpenInference is an endpoint's `type`."""

    enabled: bool = False
    endpoints: list[OpenTelemetryEndpointConfig] = field(default_factory=list)
    logs: OpenTelemetryLogSectionConfig | None = None
    metrics: OpenTelemetryMetricSectionConfig | None = None


@dataclass(slots=True)
class PerfettoConfig(_Section):
    """A Chrome trace. See `PerfettoExporter` for what each field does.

    Attributes:
        path: None: `relay-mp-trace-<session id>.json` in the current directory.
    """

    enabled: bool = False
    path: str | None = None
    max_open_scopes: int | None = None
    payloads: bool = True


@dataclass(slots=True)
class PrometheusConfig(_Section):
    """Metrics that are scraped (extra `prometheus`). See `PrometheusExporter` for what each field does."""

    enabled: bool = False
    host: str = "127.0.0.1"
    port: int = 0
    max_names: int | None = None
    max_open_scopes: int | None = None
    buckets: list[float] | None = None


@dataclass(slots=True)
class ExporterConfig(_Section):
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


@dataclass(slots=True)
class ObservabilityConfig(_Section):
    """All exporters of a session.

    Attributes:
        version: of this document: 4; 3 is one without logs and metrics.
        exporters: further ones, of this package's kinds or of others'.
        policy: what is done about what is not known, where the plugin configuration's own policy is at its default.
        enable_full_payloads: has no effect: LLM events always have their full payloads here.
    """

    version: int = CONFIG_VERSION
    atof: AtofConfig | None = None
    atif: AtifConfig | None = None
    opentelemetry: OpenTelemetrySectionConfig | None = None
    perfetto: PerfettoConfig | None = None
    prometheus: PrometheusConfig | None = None
    exporters: list[ExporterConfig] | None = None
    policy: ConfigPolicy = field(default_factory=ConfigPolicy)
    enable_full_payloads: bool = False


@dataclass(slots=True)
class ComponentSpec:
    """The observability component of a plugin configuration.

    Args:
        config: an `ObservabilityConfig`, or a dict of the same shape.
        enabled: whether it is activated; if not, it is validated all the same.
    """

    config: ObservabilityConfig | JsonObject
    enabled: bool = True

    def to_dict(self) -> JsonObject:
        """The component as the JSON object of a document."""
        return {"kind": OBSERVABILITY_PLUGIN_KIND, "enabled": self.enabled, "config": _to_json(self.config)}
