"""Exporters: subscribers that take the stream out of the process. A format is a folder.

    export/      what every exporter shares
    component/   all of them from one configuration; loaded on first use
    atof/ atif/ otel/ perfetto/ prometheus/    the formats: `exporter.py` for the program, `sink.py` where the
                                               dispatcher runs, `section.py` for a configuration; nothing of another
                                               format

`sink.py` and `outbox.py` are import paths that moved to `export/`.
"""

import importlib
from typing import TYPE_CHECKING

from relay_mp.observability.export.base import Exporter, exporter

if TYPE_CHECKING:
    from relay_mp.observability.atif.storage import HttpStorageConfig
    from relay_mp.observability.component.config import (
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
    from relay_mp.observability.export.batch_queue import Limits
    from relay_mp.observability.export.sink import Sink
else:
    # No exporter's module is imported above: a thread that imports one waits for this package, and another thread that
    # imports this package would wait for that module.
    _LOADED_LATE = {"HttpStorageConfig": "atif.storage", "Limits": "export.batch_queue", "Sink": "export.sink"}

    def __getattr__(name):
        # The dataclasses, and the exporters that they stand for, take longer to load than all the rest here.
        if name in __all__:
            module = _LOADED_LATE.get(name, "component.config")
            return getattr(importlib.import_module(f"relay_mp.observability.{module}"), name)
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
    "Limits",
    "ObservabilityConfig",
    "OpenTelemetryEndpointConfig",
    "OpenTelemetryLogSectionConfig",
    "OpenTelemetryMetricSectionConfig",
    "OpenTelemetrySectionConfig",
    "OpenTelemetrySignalEndpointConfig",
    "PerfettoConfig",
    "PrometheusConfig",
    "Sink",
    "exporter",
]
