"""OTLP over HTTP, binary: where a queue's thread posts a signal's requests."""

import gzip
import zlib

from relay_mp.observability.export.http import HttpReceiver
from relay_mp.observability.otel.environment import certificates_of, compression_of

__all__ = ["HttpWire"]

CONTENT_TYPE = "application/x-protobuf"

RETRYABLE_STATUSES = frozenset((429, 502, 503, 504))
"""Source: OTLP 1.x, "Failures", "OTLP/HTTP"."""


class HttpWire:
    """See transport.Wire.

    Raises:
        ValueError: the endpoint is not an address.
        OSError: a certificate cannot be used.
    """

    def __init__(self, signal: str, endpoint: str, headers: dict[str, str]) -> None:
        self._compression = compression_of(signal, ("none", "gzip", "deflate"))
        if self._compression != "none":
            headers = {**headers, "content-encoding": self._compression}
        context = certificates_of(signal).context()
        self._receiver = HttpReceiver(endpoint, headers, context=context, retryable=RETRYABLE_STATUSES)

    def post(self, body: bytes, timeout_seconds: float) -> bytes:
        """See transport.Wire."""
        if self._compression == "gzip":
            body = gzip.compress(body)
        elif self._compression == "deflate":
            body = zlib.compress(body)
        return self._receiver.post(body, CONTENT_TYPE, timeout_seconds)

    def close(self) -> None:
        """Closes the connection."""
        self._receiver.close()
