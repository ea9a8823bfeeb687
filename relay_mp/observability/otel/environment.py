"""What the standard environment variables say of an OTLP receiver, where the configuration leaves a default.

`OTEL_EXPORTER_OTLP_<SIGNAL>_*` before `OTEL_EXPORTER_OTLP_*`, read where the dispatcher runs, when an exporter
starts, and as the Python SDK reads them:

    ENDPOINT       the general one gets `v1/<signal>` behind it, the signal's own is taken as it is
    PROTOCOL       "grpc" or "http/protobuf"
    HEADERS        `key=value,...`, percent-encoded; those of the configuration win
    TIMEOUT        of one attempt, in seconds
    COMPRESSION    "gzip", "deflate" (HTTP only) or "none"
    CERTIFICATE    a file of the authorities that are trusted, instead of the usual ones
    CLIENT_CERTIFICATE, CLIENT_KEY   files, for a receiver that asks who is there; the key may be in the first
    INSECURE       "true": no TLS where a gRPC endpoint has no scheme
    OTEL_BSP_*, OTEL_BLRP_*   MAX_QUEUE_SIZE, MAX_EXPORT_BATCH_SIZE, and SCHEDULE_DELAY in milliseconds, for
                   traces and logs
    OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_EXPERIMENTAL_RESOURCE_DETECTORS   as the SDK reads them
    OTEL_SDK_DISABLED   nothing is exported; what comes is counted as ignored

Proxies are those of the environment too: over HTTP see http.py, over gRPC its own reading of `https_proxy`,
`http_proxy` and `no_proxy`.
"""

import os
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from relay_mp._log import logger

try:
    from opentelemetry.util.re import parse_env_headers
except ImportError as error:
    raise ImportError("OpenTelemetry needs the extra: pip install 'relay_mp[otel]'") from error

from relay_mp.observability.export.batch_queue import Limits
from relay_mp.observability.export.endpoint import resolve_headers
from relay_mp.observability.otel.exporter import DEFAULTS

__all__ = [
    "Certificates",
    "attempt_limits",
    "certificates_of",
    "compression_of",
    "endpoint_of",
    "headers_of",
    "is_disabled",
    "transport_name",
    "variable",
]


def variable(signal: str, name: str) -> str | None:
    """A variable of the signal, else the one for all signals; None if neither is set, or empty."""
    own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}", "").strip()
    return own or os.environ.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip() or None


def is_disabled() -> bool:
    """Whether OTEL_SDK_DISABLED says so."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def transport_name(signal: str, connection: Mapping[str, Any]) -> str:
    """See OtlpConfig.transport."""
    asked = variable(signal, "PROTOCOL")
    if connection["transport"] != DEFAULTS.transport or asked is None:
        return str(connection["transport"])
    known = {"grpc": "grpc", "http/protobuf": "http_binary"}
    if asked not in known:
        logger.warning("the OTLP protocol %r of the environment is none of %s; http/protobuf it is", asked, list(known))
    return known.get(asked, "http_binary")


def endpoint_of(signal: str, transport: str, connection: Mapping[str, Any]) -> str:
    """Where a signal goes: over HTTP with its path, over gRPC perhaps without a scheme."""
    given = str(connection["endpoint"]).strip()
    if given:
        return _with_path(given, signal) if transport == "http_binary" else given
    own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "").strip()
    general = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    if transport == "grpc":
        return own or general or "http://localhost:4317"
    return own or f"{(general or 'http://localhost:4318').removesuffix('/')}/v1/{signal}"


def _with_path(url: str, signal: str) -> str:
    """The URL, with the signal's usual path if it has none."""
    return f"{url}/v1/{signal}" if "://" in url and not urlsplit(url).path else url


def attempt_limits(signal: str, connection: Mapping[str, Any], **defaults: Any) -> Limits:
    """The bounds of a signal's queue: the connection's, then the environment's, then the defaults."""
    seconds = connection["timeout_millis"] / 1000
    asked = variable(signal, "TIMEOUT")
    if connection["timeout_millis"] == DEFAULTS.timeout_millis and asked is not None:
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


def headers_of(signal: str, connection: Mapping[str, Any]) -> dict[str, str]:
    """The environment's headers and the configuration's; in lower case, as gRPC wants them."""
    found: dict[str, str] = dict(parse_env_headers(variable(signal, "HEADERS") or "", liberal=True))
    for name, value in resolve_headers(connection["headers"], connection["header_env"]).items():
        found[name.lower()] = value
    return found


def compression_of(signal: str, known: tuple[str, ...]) -> str:
    """One of those that are known, "none" if the environment says anything else."""
    asked = (variable(signal, "COMPRESSION") or "none").lower()
    if asked not in known:
        logger.warning("the OTLP compression %r of the environment is none of %s; none it is", asked, list(known))
    return asked if asked in known else "none"


class Certificates(NamedTuple):
    """Files of TLS. `key` is set where `chain` is."""

    authority: str | None
    chain: str | None
    key: str | None

    def context(self) -> ssl.SSLContext | None:
        """What they come to; None: the usual.

        Raises:
            OSError: a file cannot be read, or is not what it should be.
        """
        if self.authority is None and self.chain is None:
            return None
        context = ssl.create_default_context(cafile=self.authority)
        if self.chain is not None:
            # An encrypted key is an error: nobody is there to be asked for the password.
            context.load_cert_chain(self.chain, self.key, password="")
        return context


def certificates_of(signal: str) -> Certificates:
    """Which files the environment names, once it is known that they can be used.

    Raises:
        OSError: see Certificates.context.
    """
    chain, key = variable(signal, "CLIENT_CERTIFICATE"), variable(signal, "CLIENT_KEY")
    if key is not None and chain is None:
        logger.warning("the OTLP client key of the environment is not heeded: there is no client certificate")
    authority = variable(signal, "CERTIFICATE")
    for found in (Certificates(authority, None, None), Certificates(None, chain, key or chain)):
        try:
            found.context()
        except OSError as error:
            name = "CERTIFICATE" if found.chain is None else "CLIENT_CERTIFICATE or CLIENT_KEY"
            files = " and ".join(sorted({repr(path) for path in found if path}))
            raise OSError(f"the OTLP {name} of the environment, {files}: {error}") from error
    return Certificates(authority, chain, key or chain if chain else None)
