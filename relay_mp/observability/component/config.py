"""What the observability component is configured with: sections, as objects or as the tables of `plugins.toml`.

    ObservabilityConfig ─▶ ComponentSpec ─▶ PluginConfig(components=[...]) ─▶ plugin.initialize

Names and defaults are those of `nemo_relay.observability` where it has them. A section whose `enabled` is false
is checked, and exports nothing. What may be in which field is checked by `plugin.validate` and `initialize`, not
when the objects are made. Secrets are named, not written down: `header_env` has names of environment variables,
which are looked up where the dispatcher runs; headers are not in any `repr`.

A format is a row here: a field of `ObservabilityConfig` whose type is the section of the format's `section.py`.
"""

from dataclasses import dataclass, field

from relay_mp._plugins.document import ConfigPolicy
from relay_mp.observability.atif.section import AtifConfig
from relay_mp.observability.atif.storage import HttpStorageConfig
from relay_mp.observability.atof.section import (
    AtofConfig,
    AtofEndpointConfig,
    AtofFileSinkConfig,
    AtofStreamSinkConfig,
)
from relay_mp.observability.component.section import ExporterConfig
from relay_mp.observability.export.section import Table, to_json
from relay_mp.observability.otel.section import (
    OpenTelemetryEndpointConfig,
    OpenTelemetryLogSectionConfig,
    OpenTelemetryMetricSectionConfig,
    OpenTelemetrySectionConfig,
    OpenTelemetrySignalEndpointConfig,
)
from relay_mp.observability.perfetto.section import PerfettoConfig
from relay_mp.observability.prometheus.section import PrometheusConfig
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


@dataclass(slots=True)
class ObservabilityConfig(Table):
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
        return {"kind": OBSERVABILITY_PLUGIN_KIND, "enabled": self.enabled, "config": to_json(self.config)}
