"""An OTLP receiver, from where the dispatcher runs: what is sent to it, and what its answers mean.

    request, encoded ──▶ Outbox ──▶ Transport.send ──▶ POST (http/protobuf)  ┐
                                                   └─▶ unary call (gRPC)     ┴─▶ response, or Retryable, or Refused

One way for all signals: a sink puts its items into its outbox, and the outbox's thread sends them, encoded, by
`Transport.send`. Resources are the official SDK's, with its detectors and its environment variables.

Why not the SDK's own OTLP exporters: they repeat failed attempts by themselves, inside `export`, and say of a
batch only that it failed. So there would be two mechanisms of retry, the deadline of neither would hold, a 400
would look like a 503, and a receiver that takes part of a batch would look like one that takes it all. And their
encoder needs an SDK span for each span: measured with 14 attributes, 280 us a span, where filling the message
itself takes 48. Spans, which are many, are written by `_otlp.pyx`, logs and metrics into messages.

Environment, where the configuration leaves a default; `OTEL_EXPORTER_OTLP_<SIGNAL>_*` before
`OTEL_EXPORTER_OTLP_*`, and read as the Python SDK reads them:

    ENDPOINT       the general one gets `v1/<signal>` behind it, the signal's own is taken as it is
    PROTOCOL       "grpc" or "http/protobuf"
    HEADERS        `key=value,...`, percent-encoded; those of the configuration win
    TIMEOUT        of one attempt, in seconds
    OTEL_BSP_*, OTEL_BLRP_*   MAX_QUEUE_SIZE, MAX_EXPORT_BATCH_SIZE, and SCHEDULE_DELAY in milliseconds, for
                   traces and logs
    COMPRESSION    "gzip", "deflate" (HTTP only) or "none"
    CERTIFICATE, CLIENT_KEY, CLIENT_CERTIFICATE, INSECURE
    OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_EXPERIMENTAL_RESOURCE_DETECTORS
    OTEL_SDK_DISABLED   nothing is exported; what comes is counted as ignored

Proxies are honoured by gRPC alone. GRPC_ENABLE_FORK_SUPPORT is set to 0 unless it is set: see below.

Source of what is for the moment and what is not: OTLP 1.x, "Failures" and "Partial Success".
"""

import gzip
import logging
import os
import ssl
import zlib
from collections.abc import Mapping
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

# A fork under gRPC's own fork handlers loses calls, which are then sent twice, and now and then ends the parent with a
# SIGSEGV (2 and 1 of 40 runs with 8 forked workers, grpcio 1.85; without them none of 100). Nothing here uses gRPC in
# the child of a fork. gRPC looks at this when it is first used.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

try:
    import grpc
    from google.rpc.error_details_pb2 import RetryInfo
    from google.rpc.status_pb2 import Status as RpcStatus
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
    from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope as ScopeMessage
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext
    from opentelemetry.util.re import parse_env_headers
except ImportError as error:
    raise ImportError("OpenTelemetry needs the extra: pip install 'relay_mp[otel]'") from error

from relay_mp.observability.http import HttpReceiver, resolve_headers
from relay_mp.observability.otel import DEFAULT_SERVICE_NAME, DEFAULT_TIMEOUT_MILLIS, TRANSPORTS
from relay_mp.observability.outbox import Limits, Refused, Retryable

__all__ = [
    "Signal",
    "Transport",
    "attempt_limits",
    "connect",
    "encode_origin",
    "frame",
    "is_disabled",
    "make_resource",
]

logger = logging.getLogger("relay_mp")

Signal = Literal["traces", "logs", "metrics"]

CONTENT_TYPE = "application/x-protobuf"

RETRYABLE_STATUSES = frozenset((429, 502, 503, 504))

_SERVICES = {
    "traces": trace_service_pb2.DESCRIPTOR.services_by_name["TraceService"],
    "logs": logs_service_pb2.DESCRIPTOR.services_by_name["LogsService"],
    "metrics": metrics_service_pb2.DESCRIPTOR.services_by_name["MetricsService"],
}
_RESPONSES: dict[str, Any] = {
    "traces": trace_service_pb2.ExportTraceServiceResponse,
    "logs": logs_service_pb2.ExportLogsServiceResponse,
    "metrics": metrics_service_pb2.ExportMetricsServiceResponse,
}
_REJECTED = {"traces": "rejected_spans", "logs": "rejected_log_records", "metrics": "rejected_data_points"}


class Transport(Protocol):
    """Sends requests of one signal. One thread at a time."""

    def send(self, body: bytes, timeout_seconds: float) -> int:
        """Sends one request, encoded.

        Returns:
            How many of the spans, records or points in it the receiver has rejected, for good.

        Raises:
            Retryable: it may work later.
            Refused: it will not.
        """

    def close(self) -> None:
        """Closes the connection."""


# ------------------------------------------------------------------------------------ environment


def _variable(signal: str, name: str) -> str | None:
    """A variable of the signal, else the one for all signals; None if neither is set, or empty."""
    own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}", "").strip()
    return own or os.environ.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip() or None


def is_disabled() -> bool:
    """Whether OTEL_SDK_DISABLED says so."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _transport_name(signal: str, connection: Mapping[str, Any]) -> str:
    asked = _variable(signal, "PROTOCOL")
    if connection["transport"] != TRANSPORTS[0] or asked is None:
        return str(connection["transport"])
    known = {"grpc": "grpc", "http/protobuf": "http_binary"}
    if asked not in known:
        logger.warning("the OTLP protocol %r of the environment is none of %s; http/protobuf it is", asked, list(known))
    return known.get(asked, "http_binary")


def _endpoint(signal: str, transport: str, connection: Mapping[str, Any]) -> str:
    given = str(connection["endpoint"]).strip()
    if given:
        return with_path(given, signal) if transport == "http_binary" else given
    own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "").strip()
    general = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    if transport == "grpc":
        return own or general or "http://localhost:4317"
    return own or f"{(general or 'http://localhost:4318').removesuffix('/')}/v1/{signal}"


def with_path(url: str, signal: str) -> str:
    """The URL, with the signal's usual path if it has none."""
    return f"{url}/v1/{signal}" if "://" in url and not urlsplit(url).path else url


def attempt_limits(signal: Signal, connection: Mapping[str, Any], **defaults: Any) -> Limits:
    """The bounds of a signal's outbox: the connection's, then the environment's, then the defaults."""
    seconds = connection["timeout_millis"] / 1000
    asked = _variable(signal, "TIMEOUT")
    if connection["timeout_millis"] == DEFAULT_TIMEOUT_MILLIS and asked is not None:
        try:
            seconds = float(asked)
        except ValueError:
            logger.warning("the OTLP timeout %r of the environment is no number of seconds; %s it is", asked, seconds)
    return Limits(**{"timeout_seconds": seconds, **defaults, **_batching(signal), **connection["limits"]})


_BATCHING = {
    "MAX_QUEUE_SIZE": ("max_queue_items", 1),
    "MAX_EXPORT_BATCH_SIZE": ("max_batch_items", 1),
    "SCHEDULE_DELAY": ("schedule_delay_seconds", 0.001),
}


def _batching(signal: str) -> dict[str, float]:
    """What the environment says of the SDK's batch processors."""
    found: dict[str, float] = {}
    prefix = {"traces": "OTEL_BSP_", "logs": "OTEL_BLRP_"}.get(signal)
    for name, (limit, unit) in _BATCHING.items() if prefix else ():
        text = os.environ.get(f"{prefix}{name}", "").strip()
        if text.isdecimal() and int(text):
            found[limit] = int(text) * unit
        elif text:
            logger.warning("%s%s is %r, no number above 0; it is not heeded", prefix, name, text)
    return found


def _headers(signal: str, connection: Mapping[str, Any]) -> dict[str, str]:
    """Lower case, as gRPC wants them."""
    found: dict[str, str] = dict(parse_env_headers(_variable(signal, "HEADERS") or "", liberal=True))
    for name, value in resolve_headers(connection["headers"], connection["header_env"]).items():
        found[name.lower()] = value
    return found


def _compression(signal: str, known: tuple[str, ...]) -> str:
    asked = (_variable(signal, "COMPRESSION") or "none").lower()
    if asked not in known:
        logger.warning("the OTLP compression %r of the environment is none of %s; none it is", asked, list(known))
    return asked if asked in known else "none"


# --------------------------------------------------------------------------------------- resource


def make_resource(connection: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> Resource:
    """The resource of the configuration, of the environment, and of the SDK, the first wins.

    Args:
        connection: see OtlpConfig.connection.
        more: attributes that win over all.
    """
    given = {
        "service.namespace": connection["service_namespace"],
        "service.version": connection["service_version"],
        **connection["resource_attributes"],
        **(more or {}),
    }
    if connection["service_name"] != DEFAULT_SERVICE_NAME:
        given.setdefault("service.name", connection["service_name"])
    return Resource.create({name: value for name, value in given.items() if value is not None})


def encode_origin(resource: Resource, connection: Mapping[str, Any]) -> tuple[ResourceMessage, ScopeMessage, str]:
    """A resource and the instrumentation scope as messages, and the schema's URL, by the official encoder."""
    scope = InstrumentationScope(connection["instrumentation_scope"])
    span = ReadableSpan("", SpanContext(1, 1, False), resource=resource, instrumentation_scope=scope)
    (encoded,) = encode_spans([span]).resource_spans
    return encoded.resource, encoded.scope_spans[0].scope, encoded.schema_url


def frame(field_number: int, message: bytes) -> bytes:
    """An encoded message as a field of another one. Source: Protocol Buffers, Encoding: tag, length, bytes."""
    size, head = len(message), bytearray((field_number << 3 | 2,))
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + message


# ---------------------------------------------------------------------------------------- receivers


def connect(signal: Signal, connection: Mapping[str, Any]) -> Transport:
    """The receiver of the configuration, or of the environment. Connects when it first sends.

    Raises:
        ValueError: the endpoint is no address, or a variable of `header_env` is not set.
        OSError: a certificate cannot be read.
    """
    transport = _transport_name(signal, connection)
    endpoint = _endpoint(signal, transport, connection)
    headers = _headers(signal, connection)
    return (_Http if transport == "http_binary" else _Grpc)(signal, endpoint, headers)


class _Http:
    """OTLP/HTTP, binary."""

    def __init__(self, signal: str, endpoint: str, headers: dict[str, str]) -> None:
        self._signal = signal
        self._compression = _compression(signal, ("none", "gzip", "deflate"))
        if self._compression != "none":
            headers = {**headers, "content-encoding": self._compression}
        self._receiver = HttpReceiver(endpoint, headers, context=_ssl_context(signal), retryable=RETRYABLE_STATUSES)

    def send(self, body: bytes, timeout_seconds: float) -> int:
        if self._compression == "gzip":
            body = gzip.compress(body)
        elif self._compression == "deflate":
            body = zlib.compress(body)
        return _rejected(self._signal, self._receiver.post(body, CONTENT_TYPE, timeout_seconds))

    def close(self) -> None:
        self._receiver.close()


def _ssl_context(signal: str) -> ssl.SSLContext | None:
    """What the environment says of certificates; None: the usual."""
    authority, chain = _variable(signal, "CERTIFICATE"), _variable(signal, "CLIENT_CERTIFICATE")
    if authority is None and chain is None:
        return None
    context = ssl.create_default_context(cafile=authority)
    if chain is not None:
        context.load_cert_chain(chain, _variable(signal, "CLIENT_KEY"))
    return context


_RETRYABLE_CODES = frozenset(
    (
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    )
)


class _Grpc:
    """OTLP/gRPC."""

    def __init__(self, signal: str, endpoint: str, headers: dict[str, str]) -> None:
        self._signal = signal
        self._endpoint = endpoint
        self._metadata = tuple(headers.items())
        parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
        if parts.scheme not in ("", "http", "https") or not parts.hostname:
            raise ValueError(f"endpoint is {endpoint!r}; expected http://host:port, https://host:port or host:port")
        insecure = (_variable(signal, "INSECURE") or "").lower() == "true"
        self._is_secure = parts.scheme == "https" or (not parts.scheme and not insecure)
        self._target = parts.netloc
        self._credentials = _grpc_credentials(signal) if self._is_secure else None
        gzips = _compression(signal, ("none", "gzip")) == "gzip"
        self._compression = grpc.Compression.Gzip if gzips else grpc.Compression.NoCompression
        service = _SERVICES[signal]
        self._method = f"/{service.full_name}/{service.methods[0].name}"
        self._channel: grpc.Channel | None = None

    def send(self, body: bytes, timeout_seconds: float) -> int:
        if self._channel is None:
            self._channel = self._open()
        # The bytes go as they are: neither side of the call needs a serializer.
        call = self._channel.unary_unary(self._method)
        try:
            answer = call(body, timeout=timeout_seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                self.close()  # a channel that could not connect would wait, by itself, before it tries again
            raise self._failure(error) from None
        return _rejected(self._signal, answer)

    def _open(self) -> grpc.Channel:
        # No limit of its own for answers; retries are the outbox's.
        options = (("grpc.enable_retries", 0), ("grpc.max_receive_message_length", -1))
        if self._credentials is not None:
            return grpc.secure_channel(self._target, self._credentials, options, self._compression)
        return grpc.insecure_channel(self._target, options, self._compression)

    def _failure(self, error: Any) -> Exception:
        message = f"{self._endpoint} answered {error.code().name}: {error.details()}"
        after = _retry_delay(error)
        # Exhausted for good, or for the moment: that it gives a delay says which.
        recovers = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and after is not None
        if error.code() in _RETRYABLE_CODES or recovers:
            return Retryable(message, after)
        return Refused(message)

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def _grpc_credentials(signal: str) -> grpc.ChannelCredentials:
    def read(name: str) -> bytes | None:
        path = _variable(signal, name)
        if path is None:
            return None
        with open(path, "rb") as file:
            return file.read()

    return grpc.ssl_channel_credentials(read("CERTIFICATE"), read("CLIENT_KEY"), read("CLIENT_CERTIFICATE"))


def _retry_delay(error: Any) -> float | None:
    """For how long the receiver asked to be left alone; source: google.rpc.RetryInfo."""
    trailing = dict(error.trailing_metadata() or ())
    info = RetryInfo()
    try:
        if "google.rpc.retryinfo-bin" in trailing:
            info.ParseFromString(trailing["google.rpc.retryinfo-bin"])
            return float(info.retry_delay.ToTimedelta().total_seconds())
        status = RpcStatus.FromString(trailing.get("grpc-status-details-bin", b""))
    except ValueError:  # it is no such message
        return None
    for detail in status.details:
        if detail.Unpack(info):
            return float(info.retry_delay.ToTimedelta().total_seconds())
    return None


def _rejected(signal: str, answer: bytes) -> int:
    """How much of a request that was taken was not; a warning without that is logged."""
    if not answer:
        return 0
    try:
        partial = _RESPONSES[signal].FromString(answer).partial_success
    except ValueError:  # not every receiver answers with a message
        return 0
    rejected = int(getattr(partial, _REJECTED[signal]))
    if rejected or partial.error_message:
        logger.warning("the OTLP receiver rejected %d of %s: %.200s", rejected, signal, partial.error_message)
    return rejected
