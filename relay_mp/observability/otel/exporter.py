"""What the exporters of traces, logs and metrics share, as the program sees them: the receiver, and what went wrong.

    OtlpConfig      ◀── OpenTelemetryConfig (traces.py), OpenTelemetryLogConfig, OpenTelemetryMetricConfig
    OtlpSubscriber  ◀── OpenTelemetrySubscriber and so on: each registers the sink of its signal

Plain values, in any process; OpenTelemetry itself is not needed before the dispatcher makes the sink. What a
configuration leaves at its default gives way to the standard environment variables (`OTEL_SERVICE_NAME`,
`OTEL_EXPORTER_OTLP_ENDPOINT` and so on, see environment.py), which are read where the dispatcher runs. So are the
variables that `header_env` names: what is secret is in no argument, report or log.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias, get_args

from relay_mp.errors import described_type
from relay_mp.observability.export.base import Exporter
from relay_mp.observability.export.endpoint import check_headers, redacted_url

__all__ = [
    "OpenTelemetryRuntimeDiagnostic",
    "OpenTelemetryRuntimeDiagnostics",
    "OtlpConfig",
    "OtlpSubscriber",
]

OtlpTransport: TypeAlias = Literal["http_binary", "grpc"]


@dataclass(slots=True, eq=False, repr=False)
class OtlpConfig:
    """One OTLP receiver. Attributes may be set until the subscriber is made.

    Attributes:
        endpoint: URL of the receiver; over HTTP one without a path, or with "/" only, gets `/v1/traces`, `/v1/logs`
            or `/v1/metrics`, before its query. "": by the environment, else this machine's port 4318 (HTTP) or 4317
            (gRPC).
        transport: "http_binary" or "grpc".
        headers: of every request.
        header_env: header names to names of environment variables that hold their values, looked up where
            the dispatcher runs.
        resource_attributes: of the resource, beside those of the next three.
        service_name, service_namespace, service_version: attributes of the resource.
        instrumentation_scope: the name under which the spans, records or metrics are sent.
        timeout_millis: of one attempt: 1 to 2**31 - 1.
        limits: bounds of queue, batch and retries by name, see `relay_mp.observability.Limits`.
    """

    endpoint: str = ""
    transport: OtlpTransport = "http_binary"
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    header_env: dict[str, str] = field(default_factory=dict)
    resource_attributes: dict[str, str] = field(default_factory=dict)
    service_name: str = "unknown_service"
    service_namespace: str | None = None
    service_version: str | None = None
    instrumentation_scope: str = "opentelemetry"
    timeout_millis: int = 3000
    limits: dict[str, Any] = field(default_factory=dict)

    def set_header(self, key: str, value: str) -> None:
        """Adds one header."""
        self.headers[key] = value

    def set_resource_attribute(self, key: str, value: str) -> None:
        """Adds one attribute of the resource."""
        self.resource_attributes[key] = value

    def connection(self) -> dict[str, Any]:
        """What a sink needs to know of the receiver, JSON types only; see transport.connect.

        Raises:
            TypeError, ValueError: an attribute is not what it should be.
        """
        check_choice("transport", self.transport, get_args(OtlpTransport))
        for name in ("endpoint", "service_name", "instrumentation_scope"):
            _check_text(name, getattr(self, name))
        for name in ("service_namespace", "service_version"):
            if getattr(self, name) is not None:
                _check_text(name, getattr(self, name))
        for name in ("headers", "header_env", "resource_attributes"):
            check_texts(name, getattr(self, name))
        over_grpc = self.transport == "grpc"
        check_headers(self.headers, over_grpc=over_grpc)
        check_headers(dict.fromkeys(self.header_env, ""), over_grpc=over_grpc)
        check_count("timeout_millis", self.timeout_millis, 1, MAX_TIMEOUT_MILLIS)
        if not isinstance(self.limits, dict):
            raise TypeError(f"limits is {described_type(self.limits)}; expected dict")
        return {one.name: getattr(self, one.name) for one in fields(OtlpConfig)}

    def __repr__(self) -> str:
        # Headers are often secret.
        endpoint = redacted_url(os.fspath(self.endpoint))
        return f"{type(self).__name__}(endpoint={endpoint!r}, transport={self.transport!r})"


MAX_TIMEOUT_MILLIS = (1 << 31) - 1
"""Of one attempt: the most that OpenTelemetry's variables have to be able to say, 24 days."""

MAX_COUNT = (1 << 31) - 1
"""Of attributes, of events, of a text's characters: the most that a limit can say. dropped_*_count has 32 bits."""

DEFAULTS = OtlpConfig()
"""What gives way to the environment."""

DEFAULT_EXPORT_INTERVAL_MILLIS = 60_000
"""From one export of metrics to the next; it gives way to the environment, too."""


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
        self._endpoint = redacted_url(os.fspath(arguments["connection"]["endpoint"]))
        super().__init__([(target, arguments)])

    def kind(self, connection: dict[str, Any] | None, **settings: Any) -> Any:
        """A sink, as a kind of exporter makes it.

        Args:
            connection: in place of what an OtlpConfig has.
            settings: arguments of the sink in place of this exporter's.
        """
        ((_, arguments),) = self._sinks
        return self.make_sink(connection={**arguments["connection"], **(connection or {})}, **settings)

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


def queue_limits(
    max_queue_size: int | None, max_export_batch_size: int | None, scheduled_delay_millis: int | None
) -> dict[str, Any]:
    """OpenTelemetry's names of a queue's bounds, as those of `Limits`; what is None is left out."""
    given = {
        "max_queue_items": max_queue_size,
        "max_batch_items": max_export_batch_size,
        "schedule_delay_seconds": scheduled_delay_millis and scheduled_delay_millis / 1000,
    }
    return {name: value for name, value in given.items() if value is not None}


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Refuses what is not one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, choices))}")


def check_count(name: str, value: object, least: int, most: int | None = None) -> None:
    """Refuses what is not an int, less than the least, or more than the most."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is {described_type(value)}; expected int")
    if value < least:
        raise ValueError(f"{name} is {value}; expected at least {least}")
    if most is not None and value > most:
        raise ValueError(f"{name} is {value}; expected at most {most}")


def check_limits(config: Any, names: Sequence[str]) -> None:
    """Refuses attributes that are neither None nor a count."""
    for name in names:
        if getattr(config, name) is not None:
            check_count(name, getattr(config, name), 0, MAX_COUNT)


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} is {described_type(value)}; expected str")


def check_texts(name: str, value: object) -> None:
    """Refuses what is not a dict of str to str; the values, which may be secret, are not shown."""
    if not isinstance(value, dict):
        raise TypeError(f"{name} is {described_type(value)}; expected a dict of str to str")
    for key, text in value.items():
        if not isinstance(key, str) or not isinstance(text, str):
            found = f"{type(key).__name__} to {type(text).__name__}"
            raise TypeError(f"{name} has an item that is {found}; expected a dict of str to str")
