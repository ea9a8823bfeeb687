"""OTLP over gRPC: where a queue's thread calls a signal's service. The one module that imports `grpc`.

GRPC_ENABLE_FORK_SUPPORT is set to 0 unless it is set: a fork under gRPC's own fork handlers loses calls, which are
then sent twice, and now and then ends the parent with a SIGSEGV (2 and 1 of 40 runs with 8 forked workers, grpcio
1.85; without them none of 100). Nothing here uses gRPC in the child of a fork. gRPC looks at it when it is first used.
"""

import os
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

try:
    import grpc
    from google.rpc.error_details_pb2 import RetryInfo
    from google.rpc.status_pb2 import Status as RpcStatus
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
    from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
except ImportError as error:
    raise ImportError("OpenTelemetry needs the extra: pip install 'relay_mp[otel]'") from error

from relay_mp.observability.export.batch_queue import Refused, Retryable, TooLarge
from relay_mp.observability.export.endpoint import Secrets, is_loopback, redacted_url
from relay_mp.observability.otel.environment import certificates_of, compression_of, variable

__all__ = ["GrpcWire"]

_SERVICES = {
    "traces": trace_service_pb2.DESCRIPTOR.services_by_name["TraceService"],
    "logs": logs_service_pb2.DESCRIPTOR.services_by_name["LogsService"],
    "metrics": metrics_service_pb2.DESCRIPTOR.services_by_name["MetricsService"],
}

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


_TOO_LARGE = (
    "message larger than max",
    "message exceeds maximum size",
    "message exceeds the maximum configured message size",
    "message length too large",
)
"""What gRPC's servers say of a message that is too large: C++, Python and Go; Java; .NET; Rust, as OUT_OF_RANGE."""


class GrpcWire:
    """See transport.Wire.

    Raises:
        ValueError: the endpoint is not an address.
        OSError: a certificate cannot be used.
    """

    def __init__(self, signal: str, endpoint: str, headers: dict[str, str]) -> None:
        self._secrets = Secrets(headers)
        self._metadata = tuple(headers.items())
        parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
        if parts.scheme not in ("", "http", "https") or not parts.hostname:
            raise ValueError(
                f"endpoint is {redacted_url(endpoint)!r}; expected http://host:port, https://host:port or host:port"
            )
        self._endpoint = redacted_url(endpoint) if parts.scheme else parts.netloc.rpartition("@")[2]
        insecure = (variable(signal, "INSECURE") or "").lower() == "true"
        self._is_secure = parts.scheme == "https" or (not parts.scheme and not insecure)
        self._target = parts.netloc.rpartition("@")[2]
        self._is_loopback = is_loopback(parts.hostname)
        self._credentials = _credentials(signal) if self._is_secure else None
        gzips = compression_of(signal, ("none", "gzip")) == "gzip"
        self._compression = grpc.Compression.Gzip if gzips else grpc.Compression.NoCompression
        service = _SERVICES[signal]
        self._method = f"/{service.full_name}/{service.methods[0].name}"
        self._channel: grpc.Channel | None = None

    def post(self, body: bytes, timeout_seconds: float) -> bytes:
        """See transport.Wire."""
        if self._channel is None:
            self._channel = self._open()
        # The bytes go as they are: neither side of the call needs a serializer.
        call = self._channel.unary_unary(self._method)
        try:
            answer: bytes = call(body, timeout=timeout_seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                self.close()  # a channel that could not connect would wait, by itself, before it tries again
            raise self._failure(error) from None
        return answer

    def _open(self) -> grpc.Channel:
        # No limit of its own for answers; retries are the queue's; no proxy reaches this machine's loopback.
        options = [("grpc.enable_retries", 0), ("grpc.max_receive_message_length", -1)]
        options += [("grpc.enable_http_proxy", 0)] if self._is_loopback else []
        if self._credentials is not None:
            return grpc.secure_channel(self._target, self._credentials, options, self._compression)
        return grpc.insecure_channel(self._target, options, self._compression)

    def _failure(self, error: Any) -> Exception:
        message = f"{self._endpoint} answered {error.code().name}: {self._secrets.hide(error.details() or '')}"
        after = _retry_delay(error)
        # Exhausted for good, or for the moment: that it gives a delay says which.
        recovers = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and after is not None
        if not recovers and _is_too_large(error):
            return TooLarge(message)
        return Retryable(message, after) if error.code() in _RETRYABLE_CODES or recovers else Refused(message)

    def close(self) -> None:
        """Closes the channel."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def _credentials(signal: str) -> grpc.ChannelCredentials:
    def read(path: str | None) -> bytes | None:
        if path is None:
            return None
        with open(path, "rb") as file:
            return file.read()

    files = certificates_of(signal)
    return grpc.ssl_channel_credentials(read(files.authority), read(files.key), read(files.chain))


def _is_too_large(error: Any) -> bool:
    """Whether a message had too many bytes. The code alone says also that the receiver is overloaded."""
    text = (error.details() or "").lower()
    codes = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OUT_OF_RANGE
    return error.code() in codes and any(said in text for said in _TOO_LARGE)


def _retry_delay(error: Any) -> float | None:
    """For how long the receiver asked to be left alone; source: google.rpc.RetryInfo."""
    trailing = dict(error.trailing_metadata() or ())
    info = RetryInfo()
    try:
        if "google.rpc.retryinfo-bin" in trailing:
            info.ParseFromString(trailing["google.rpc.retryinfo-bin"])
            return _seconds(info)
        status = RpcStatus.FromString(trailing.get("grpc-status-details-bin", b""))
    except ValueError:  # it is not such a message
        return None
    for detail in status.details:
        if detail.Unpack(info):
            return _seconds(info)
    return None


def _seconds(info: RetryInfo) -> float:
    """Not by a timedelta, which has no room for all that a receiver may say."""
    return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
