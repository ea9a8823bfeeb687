"""An OTLP receiver, from where the dispatcher runs: what is sent to it, and what its answers mean.

    request, encoded ──▶ BatchQueue ──▶ Transport.send ──▶ http.py: POST (http/protobuf)  ┐
                                                   └─▶ grpc.py: unary call            ┴─▶ response, or Retryable,
                                                                                               or Refused

One way for all signals: a sink puts its items into its queue, and the queue's thread sends them, encoded, by
`Transport.send`. Resources are the official SDK's, with its detectors and its environment variables; the others
are in environment.py.

Why not the SDK's own OTLP exporters: they repeat failed attempts by themselves, inside `export`, and say of a
batch only that it failed. So there would be two mechanisms of retry, the deadline of neither would hold, a 400
would look like a 503, and a receiver that takes part of a batch would look like one that takes it all. And their
encoder needs an SDK span for each span: measured with 14 attributes, 280 us a span, where filling the message
itself takes 48. Spans, log records and attributes are written by `otlp.pyx`, the few points of metrics into messages.

Source of what is for the moment and what is not: OTLP 1.x, "Failures" and "Partial Success".
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

from relay_mp._log import logger

try:
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
    from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
    from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext
except ImportError as error:
    raise ImportError("OpenTelemetry needs the extra: pip install 'relay_mp[otel]'") from error

from relay_mp.observability.export.endpoint import Secrets
from relay_mp.observability.otel.environment import endpoint_of, headers_of, transport_name
from relay_mp.observability.otel.exporter import DEFAULTS
from relay_mp.observability.otel.http import HttpWire
from relay_mp.observability.otel.otlp import frame

__all__ = ["Envelope", "Signal", "Transport", "connect", "make_envelope"]


Signal = Literal["traces", "logs", "metrics"]

_RESPONSES: dict[str, Any] = {
    "traces": trace_service_pb2.ExportTraceServiceResponse,
    "logs": logs_service_pb2.ExportLogsServiceResponse,
    "metrics": metrics_service_pb2.ExportMetricsServiceResponse,
}
_REJECTED = {"traces": "rejected_spans", "logs": "rejected_log_records", "metrics": "rejected_data_points"}


class Wire(Protocol):
    """Carries requests of one signal, and their answers. One thread at a time."""

    def post(self, body: bytes, timeout_seconds: float) -> bytes:
        """Sends one request, encoded; returns the answer, or raises Retryable, TooLarge or Refused."""

    def close(self) -> None:
        """Closes the connection."""


class Transport:
    """Sends requests of one signal. One thread at a time."""

    def __init__(self, signal: Signal, wire: Wire, secrets: Secrets) -> None:
        self._signal = signal
        self._wire = wire
        self._secrets = secrets

    def send(self, body: bytes, timeout_seconds: float) -> int:
        """Sends one request, encoded.

        Returns:
            How many of the spans, records or points in it the receiver has rejected, for good.

        Raises:
            Retryable: it may work later.
            TooLarge: it may work with less in it.
            Refused: it will not.
        """
        return self._rejected(self._wire.post(body, timeout_seconds))

    def _rejected(self, answer: bytes) -> int:
        """How much of a request that was taken was not; a warning without that is logged."""
        if not answer:
            return 0
        try:
            partial = _RESPONSES[self._signal].FromString(answer).partial_success
        except ValueError:  # not every receiver answers with a message
            return 0
        rejected = max(int(getattr(partial, _REJECTED[self._signal])), 0)  # signed, as the protocol has it
        if rejected or partial.error_message:
            said = self._secrets.hide(partial.error_message)
            logger.warning("the OTLP receiver rejected %d of %s: %.200s", rejected, self._signal, said)
        return rejected

    def close(self) -> None:
        """Closes the connection."""
        self._wire.close()


def connect(signal: Signal, connection: Mapping[str, Any]) -> Transport:
    """The receiver of the configuration, or of the environment. Connects when it first sends.

    Raises:
        ValueError: the endpoint is not an address, or a variable of `header_env` is not set.
        OSError: a certificate cannot be used.
    """
    transport = transport_name(signal, connection)
    endpoint = endpoint_of(signal, transport, connection)
    headers = headers_of(signal, transport, connection)
    if transport == "http_binary":
        wire: Wire = HttpWire(signal, endpoint, headers)
    else:
        # Whoever exports over HTTP only has no gRPC in the process, nor its fork handlers switched off.
        from relay_mp.observability.otel.grpc import GrpcWire

        wire = GrpcWire(signal, endpoint, headers)
    return Transport(signal, wire, Secrets(headers))


# --------------------------------------------------------------------------------------- resource


class Envelope(NamedTuple):
    """What is around spans, log records or metrics in a request: their resource and instrumentation scope, encoded.

    A request for export has a list of what is of one resource, which has a list of what is of one scope, which has the
    items: fields 1, 2 and 2, whatever the signal. Items are encoded once, so that a queue holds bytes. Joined behind
    the encoding of a message without items they are that message with them: protobuf's fields may come in any order,
    one by one.
    """

    of_resource: bytes
    of_scope: bytes

    def request(self, items: bytes) -> bytes:
        """A request, encoded. Several that are joined are one.

        Args:
            items: encoded, each as the field 2 of what is of one scope.
        """
        return frame(1, self.of_resource + frame(2, self.of_scope + items))


def make_envelope(connection: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> Envelope:
    """By the official encoder. The resource is the configuration's, the environment's and the SDK's; the first wins.

    Args:
        connection: see OtlpConfig.connection.
        more: attributes of the resource that win over all.
    """
    scope = InstrumentationScope(connection["instrumentation_scope"])
    span = ReadableSpan(
        "", SpanContext(1, 1, False), resource=_make_resource(connection, more), instrumentation_scope=scope
    )
    (encoded,) = encode_spans([span]).resource_spans
    # Resource and scope are the same messages in all signals, and so are the numbers of their fields.
    of_resource = ResourceSpans(resource=encoded.resource, schema_url=encoded.schema_url)
    return Envelope(of_resource.SerializeToString(), ScopeSpans(scope=encoded.scope_spans[0].scope).SerializeToString())


def _make_resource(connection: Mapping[str, Any], more: Mapping[str, Any] | None) -> Resource:
    given = {
        "service.namespace": connection["service_namespace"],
        "service.version": connection["service_version"],
        **connection["resource_attributes"],
        **(more or {}),
    }
    if connection["service_name"] != DEFAULTS.service_name:
        given.setdefault("service.name", connection["service_name"])
    return Resource.create({name: value for name, value in given.items() if value is not None})
