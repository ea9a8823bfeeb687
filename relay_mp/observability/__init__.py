"""Exporters: subscribers that take the stream out of the process. One format a file.

    base.py        what an exporter is to the program: register, deregister, force_flush, shutdown
    sink.py        what it is to the stream, where the dispatcher runs; outbox.py, http.py: how it sends
    atof, atif     the formats: NAME.py for the program, the rest of NAME where the dispatcher runs
    otel           OpenTelemetry: otel_traces with the projections otel_full, otel_gen_ai and openinference; otel_logs,
                   otel_metrics
    config.py      all of them from one configuration: the sections; loaded on first use
    component.py   the plugin of kind "observability": reading.py, checks.py and sections.py are its parts,
                   starting.py its part where the dispatcher runs
"""

import importlib
from typing import TYPE_CHECKING

from relay_mp.observability.atif import HttpStorageConfig
from relay_mp.observability.base import Exporter, exporter

if TYPE_CHECKING:
    from relay_mp.observability.config import (
        OBSERVABILITY_PLUGIN_KIND,
        AtifConfig,
        AtofConfig,
        AtofEndpointConfig,
        AtofFileSinkConfig,
        AtofStreamSinkConfig,
        ComponentSpec,
        ConfigPolicy,
        ExporterConfig,
        ObservabilityConfig,
        OpenTelemetryEndpointConfig,
        OpenTelemetryLogSectionConfig,
        OpenTelemetryMetricSectionConfig,
        OpenTelemetrySectionConfig,
        OpenTelemetrySignalEndpointConfig,
        PerfettoConfig,
        PrometheusConfig,
    )
else:

    def __getattr__(name):
        # Making so many dataclasses took 22 ms where the rest of the package took 143 (python -X importtime).
        if name in __all__:
            return getattr(importlib.import_module("relay_mp.observability.config"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return __all__


__all__ = [
    "OBSERVABILITY_PLUGIN_KIND",
    "AtifConfig",
    "AtofConfig",
    "AtofEndpointConfig",
    "AtofFileSinkConfig",
    "AtofStreamSinkConfig",
    "ComponentSpec",
    "ConfigPolicy",
    "Exporter",
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
    "exporter",
]
