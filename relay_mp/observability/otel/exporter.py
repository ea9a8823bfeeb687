"""OpenTelemetry, as the program sees it: what an OTLP receiver is told, and what is shared by its signals.

    otel.py              configurations and subscribers: plain values, any process, no OpenTelemetry needed
    otel_environment.py  what the `OTEL_*` variables say, where the dispatcher runs
    otel_transport.py    resource and receiver; otel_http.py and otel_grpc.py are the two ways to it
    otel_traces.py       spans; the projections are `otel_full.py`, `otel_gen_ai.py` and `openinference.py`

Needs the extra: `pip install relay_mp[otel]`. What a configuration leaves at its default gives way to the
standard environment variables (`OTEL_SERVICE_NAME`, `OTEL_EXPORTER_OTLP_ENDPOINT` and so on, see
otel_environment.py), which are read where the dispatcher runs. So are the variables that `header_env` names:
what is secret is in no argument, report or log.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from relay_mp.observability.export.base import Exporter

__all__ = [
    "OpenTelemetryConfig",
    "OpenTelemetryRuntimeDiagnostic",
    "OpenTelemetryRuntimeDiagnostics",
    "OpenTelemetrySubscriber",
    "OtlpConfig",
    "OtlpSubscriber",
]

TRANSPORTS = ("http_binary", "grpc")
PROJECTIONS = ("full", "gen_ai", "openinference")
MARK_PROJECTIONS = ("inherit", "event", "tool")

DEFAULT_SERVICE_NAME = "unknown_service"
DEFAULT_TIMEOUT_MILLIS = 3000


class OtlpConfig:
    """One OTLP receiver. Attributes may be set until the subscriber is made.

    Attributes:
        endpoint: URL of the receiver; over HTTP one without a path gets `/v1/traces`, `/v1/logs` or
            `/v1/metrics`. "": by the environment, else this machine's port 4318 (HTTP) or 4317 (gRPC).
        transport: "http_binary" or "grpc".
        headers: of every request.
        header_env: header names to names of environment variables that hold their values, looked up where
            the dispatcher runs.
        service_name, service_namespace, service_version: attributes of the resource.
        resource_attributes: further ones.
        instrumentation_scope: the name under which the spans, records or metrics are sent.
        timeout_millis: of one attempt.
        limits: bounds of queue, batch and retries by name, see `relay_mp.observability.Limits`.
    """

    def __init__(self, endpoint: str = "") -> None:
        self.endpoint = endpoint
        self.transport: str = "http_binary"
        self.headers: dict[str, str] = {}
        self.header_env: dict[str, str] = {}
        self.service_name = DEFAULT_SERVICE_NAME
        self.service_namespace: str | None = None
        self.service_version: str | None = None
        self.resource_attributes: dict[str, str] = {}
        self.instrumentation_scope = "opentelemetry"
        self.timeout_millis = DEFAULT_TIMEOUT_MILLIS
        self.limits: dict[str, Any] = {}

    def set_header(self, key: str, value: str) -> None:
        """Adds one header."""
        self.headers[key] = value

    def set_resource_attribute(self, key: str, value: str) -> None:
        """Adds one attribute of the resource."""
        self.resource_attributes[key] = value

    def connection(self) -> dict[str, Any]:
        """What a sink needs to know of the receiver, JSON types only; see otel_transport.connect.

        Raises:
            TypeError, ValueError: an attribute is not what it should be.
        """
        check_choice("transport", self.transport, TRANSPORTS)
        for name in ("endpoint", "service_name", "instrumentation_scope"):
            _check_text(name, getattr(self, name))
        for name in ("service_namespace", "service_version"):
            if getattr(self, name) is not None:
                _check_text(name, getattr(self, name))
        for name in ("headers", "header_env", "resource_attributes"):
            check_texts(name, getattr(self, name))
        check_count("timeout_millis", self.timeout_millis, 1)
        if not isinstance(self.limits, dict):
            raise TypeError(f"limits is a {type(self.limits).__name__}; expected dict")
        return {name: getattr(self, name) for name in _CONNECTION}

    def __repr__(self) -> str:
        # Headers are often secret.
        return f"{type(self).__name__}(endpoint={self.endpoint!r}, transport={self.transport!r})"


_CONNECTION = (
    "endpoint", "transport", "headers", "header_env", "service_name", "service_namespace", "service_version",
    "resource_attributes", "instrumentation_scope", "timeout_millis", "limits",
)  # fmt: skip


class OpenTelemetryConfig(OtlpConfig):
    """Where and how spans are exported. Attributes may be set until the subscriber is made; see OtlpConfig for more.

    Args:
        otel_type: the projection, the attribute `type`.
        endpoint: see OtlpConfig; may be left out here.

    Attributes:
        type: "full": all that the events say, under `relay_mp.*`; "gen_ai": OpenTelemetry's conventions
            for generative AI, and no more; "openinference": OpenInference's, and what they have no word for.
        mark_projection: a mark under a scope that is open: "event": an event of its span; "tool": a span of
            its own, of no length, shown as a tool; "inherit": as the projection has it, an event, and nothing
            with "gen_ai".
        mark_exclude_names: marks that are left out.
        attribute_mappings: `[{"key": ..., "alias": ...}]`: a span's attribute gets a second name; not
            with "gen_ai".
        promote_metadata_prefixes: metadata whose keys begin so become attributes of spans under their own
            names.
        promote_resource_metadata_prefixes: the same, as attributes of the resource.
        completed_span_context_ttl_millis: how long it is remembered which trace a scope was of that has
            ended, for what comes late.
        max_open_scopes: scopes whose end is waited for; the oldest is exported as unfinished beyond that.
        max_attribute_bytes: of one attribute's value; what is longer is cut, and says so. Default: 2 MiB, the largest
            event of the default ring.
    """

    def __init__(self, otel_type: Literal["full", "gen_ai", "openinference"], endpoint: str = "") -> None:
        super().__init__(endpoint)
        self.type: str = otel_type
        self.mark_projection: str = "inherit"
        self.mark_exclude_names: list[str] = ["llm.chunk"]
        self.attribute_mappings: list[dict[str, str]] = []
        self.promote_metadata_prefixes: list[str] = []
        self.promote_resource_metadata_prefixes: list[str] = []
        self.completed_span_context_ttl_millis = 60_000
        self.max_open_scopes = 1_000_000
        self.max_attribute_bytes = 2 << 20

    def arguments(self) -> dict[str, Any]:
        """The sink's arguments, JSON types only.

        Raises:
            TypeError, ValueError: an attribute is not what it should be.
        """
        check_choice("type", self.type, PROJECTIONS)
        check_choice("mark_projection", self.mark_projection, MARK_PROJECTIONS)
        for name in ("mark_exclude_names", "promote_metadata_prefixes", "promote_resource_metadata_prefixes"):
            _check_list(name, getattr(self, name))
        for mapping in self.attribute_mappings:
            if set(mapping) != {"key", "alias"} or not all(isinstance(text, str) and text for text in mapping.values()):
                raise ValueError(f"attribute_mappings has {mapping!r}; expected {{'key': ..., 'alias': ...}}")
        check_count("completed_span_context_ttl_millis", self.completed_span_context_ttl_millis, 0)
        check_count("max_open_scopes", self.max_open_scopes, 1)
        check_count("max_attribute_bytes", self.max_attribute_bytes, 16)
        return {"connection": self.connection(), "projection": self.type, **{n: getattr(self, n) for n in _TRACES}}


_TRACES = (
    "mark_projection", "mark_exclude_names", "attribute_mappings", "promote_metadata_prefixes",
    "promote_resource_metadata_prefixes", "completed_span_context_ttl_millis", "max_open_scopes",
    "max_attribute_bytes",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class OpenTelemetryRuntimeDiagnostic:
    """One thing that went wrong, and how often.

    Attributes:
        code: such as `otel.traces_export_failed` or `otel.traces_dropped.full`.
        message: in words.
        count: attempts, or events.
    """

    code: str
    message: str
    count: int


@dataclass(frozen=True, slots=True)
class OpenTelemetryRuntimeDiagnostics:
    """What has gone wrong so far; `session.stats().exporters` has the same in numbers, and all that went right."""

    entries: list[OpenTelemetryRuntimeDiagnostic]

    def get(self, code: str) -> OpenTelemetryRuntimeDiagnostic | None:
        """The entry of that code, if there is one."""
        return next((entry for entry in self.entries if entry.code == code), None)


class OtlpSubscriber(Exporter):
    """Exports one signal to one OTLP receiver: what its subscribers for traces, logs and metrics share."""

    signal = ""
    """"traces", "logs" or "metrics"."""

    def __init__(self, target: str, arguments: dict[str, Any]) -> None:
        self._endpoint = arguments["connection"]["endpoint"]
        super().__init__([(target, arguments)])

    def _describe(self) -> str:
        return f"this exporter of {self.signal} to {self._endpoint or 'the OTLP endpoint of the environment'}"

    def runtime_diagnostics(self) -> OpenTelemetryRuntimeDiagnostics:
        """What has gone wrong since the registration: attempts that failed, events that were given up."""
        entries = []
        prefix = f"otel.{self.signal}"
        for report in self.report().values():
            if report.failures:
                message = f"export of {self.signal} failed; the newest time: {report.last_error}"
                entries.append(OpenTelemetryRuntimeDiagnostic(f"{prefix}_export_failed", message, report.failures))
            for cause, count in sorted(report.drops.items()):
                message = f"events given up: {cause}"
                entries.append(OpenTelemetryRuntimeDiagnostic(f"{prefix}_dropped.{cause}", message, count))
            if report.unconfirmed:
                message = "events that a dispatcher that was killed may not have exported"
                entries.append(OpenTelemetryRuntimeDiagnostic(f"{prefix}_unconfirmed", message, report.unconfirmed))
        return OpenTelemetryRuntimeDiagnostics(entries)


class OpenTelemetrySubscriber(OtlpSubscriber):
    """Exports scopes as spans, over OTLP.

    A span is sent when its scope has ended. Its id is the last half of the scope's uuid, its trace's id the
    outermost scope's uuid, or that of the `traceparent` it came under: every exporter in every process says the
    same. Scopes that have not ended at shutdown are sent as they are, with `relay_mp.unfinished`, and counted.
    Ends whose start was not seen, as after the kill of a dispatcher process, become spans of no length with
    `relay_mp.orphan`, and are counted.

    The receiver is never waited for by the dispatcher: spans are queued, up to bounds (`limits`), and sent by a
    thread, which repeats what failed for the moment. Of a receiver that is down, slow or refuses, all that the
    program sees are the counts in `report()`, `runtime_diagnostics()` and `session.stats().exporters`.

    Args:
        config: read now; later changes to it have no effect.

    Raises:
        TypeError, ValueError: it holds what it should not.
    """

    signal = "traces"

    def __init__(self, config: OpenTelemetryConfig) -> None:
        if not isinstance(config, OpenTelemetryConfig):
            raise TypeError(f"config is a {type(config).__name__}; expected OpenTelemetryConfig")
        super().__init__("relay_mp.observability.otel.traces:TracesSink", config.arguments())


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Refuses what is not one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, choices))}")


def check_count(name: str, value: object, least: int) -> None:
    """Refuses what is no int, or less than the least."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is a {type(value).__name__}; expected int")
    if value < least:
        raise ValueError(f"{name} is {value}; expected at least {least}")


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} is a {type(value).__name__}; expected str")


def check_texts(name: str, value: object) -> None:
    """Refuses what is no dict of str to str; the values, which may be secret, are not shown."""
    if not isinstance(value, dict) or not all(isinstance(text, str) for pair in value.items() for text in pair):
        raise TypeError(f"{name} is a {type(value).__name__}; expected a dict of str to str")


def _check_list(name: str, value: object) -> None:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{name} is {value!r:.80}; expected a list of str")
