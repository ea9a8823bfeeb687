"""What the standard environment variables say of an OTLP receiver, where the configuration leaves a default.

`OTEL_EXPORTER_OTLP_<SIGNAL>_*` before `OTEL_EXPORTER_OTLP_*`, read where the dispatcher runs, when an exporter
starts, and as the Python SDK reads them:

    ENDPOINT       over HTTP the general one is a base, below which `v1/<signal>` is put (urls.py); the signal's own is
                   taken as it is
    PROTOCOL       "grpc" or "http/protobuf"
    HEADERS        `key=value,...`, percent-encoded; those of the configuration win
    TIMEOUT        of one attempt, in seconds; above 0, for no attempt may wait without an end
    COMPRESSION    "gzip", "deflate" (HTTP only) or "none"
    CERTIFICATE    a file of the authorities that are trusted, instead of the usual ones
    CLIENT_CERTIFICATE, CLIENT_KEY   files, for a receiver that asks who is there; the key may be in the first
    INSECURE       "true": no TLS where a gRPC endpoint has no scheme
    OTEL_BSP_*, OTEL_BLRP_*   MAX_QUEUE_SIZE, MAX_EXPORT_BATCH_SIZE, and SCHEDULE_DELAY in milliseconds, for
                   traces and logs
    OTEL_ATTRIBUTE_*, OTEL_SPAN_*, OTEL_EVENT_*, OTEL_LOGRECORD_*   limits of attributes and events: COUNT_LIMIT and
                   VALUE_LENGTH_LIMIT, and OTEL_SPAN_EVENT_COUNT_LIMIT; there are none that are not set
    OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_EXPERIMENTAL_RESOURCE_DETECTORS   as the SDK reads them
    OTEL_SDK_DISABLED   nothing is exported; what comes is counted as ignored

What a variable says and cannot be used is left out, with a warning, and the default stands, as the specification of
the variables asks for; but for endpoints and certificates, without which another receiver than the one meant would be
sent to, or trusted. They, and what an argument says and cannot be used, are errors.

Proxies are those of the environment too: over HTTP see http.py, over gRPC its own reading of `https_proxy`,
`http_proxy` and `no_proxy`.
"""

import math
import os
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple

from relay_mp._log import logger

try:
    from opentelemetry.util.re import parse_env_headers
except ImportError as error:
    raise ImportError("OpenTelemetry needs the extra: pip install 'relay_mp[otel]'") from error

from relay_mp.observability.export.batch_queue import Limits
from relay_mp.observability.export.endpoint import check_headers, header_trouble, resolve_headers
from relay_mp.observability.otel.exporter import DEFAULTS, MAX_COUNT, MAX_TIMEOUT_MILLIS
from relay_mp.observability.otel.urls import signal_url, url_with_path

__all__ = [
    "Certificates",
    "attempt_limits",
    "certificates_of",
    "compression_of",
    "endpoint_of",
    "headers_of",
    "is_disabled",
    "limit_of",
    "transport_name",
    "variable",
    "whole_number",
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
        logger.warning("the OTLP protocol %r is not one of %s; http/protobuf it is", asked, list(known))
    return known.get(asked, "http_binary")


def endpoint_of(signal: str, transport: str, connection: Mapping[str, Any]) -> str:
    """Where a signal goes: over HTTP with its path, over gRPC perhaps without a scheme."""
    given = str(connection["endpoint"]).strip()
    if given:
        return url_with_path(given, signal) if transport == "http_binary" else given
    own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "").strip()
    general = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    if transport == "grpc":
        return own or general or "http://localhost:4317"
    return own or signal_url(general or "http://localhost:4318", signal)


def attempt_limits(signal: str, connection: Mapping[str, Any], **defaults: Any) -> Limits:
    """The bounds of a signal's queue: the connection's, then the environment's, then the defaults."""
    seconds = connection["timeout_millis"] / 1000
    if connection["timeout_millis"] == DEFAULTS.timeout_millis:
        seconds = _timeout_seconds(signal, seconds)
    return Limits(**{"timeout_seconds": seconds, **defaults, **_batching(signal), **connection["limits"]})


def _timeout_seconds(signal: str, default: float) -> float:
    asked = variable(signal, "TIMEOUT")
    try:
        seconds = default if asked is None else float(asked)
    except ValueError:
        seconds = math.nan
    if 0 < seconds <= MAX_TIMEOUT_MILLIS / 1000:
        return seconds
    what = "the OTLP timeout %.80r of the environment is not a number of seconds above 0, %d at most; %s it is"
    logger.warning(what, asked, MAX_TIMEOUT_MILLIS // 1000, default)
    return default


def whole_number(name: str, most: int, *, least: int = 0) -> int | None:
    """A variable that holds a whole number; None, with a warning, if it holds anything else, and if it is not set."""
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS and least <= int(text) <= most:
        return int(text)
    logger.warning("%s is %.80r, not a whole number from %d to %d; it is not heeded", name, text, least, most)
    return None


def limit_of(configured: int | None, *names: str) -> int | None:
    """A limit: the configuration's, else that of the first variable which has one; None: there is none."""
    if configured is not None:
        return configured
    found = (whole_number(name, MAX_COUNT) for name in names)
    return next((limit for limit in found if limit is not None), None)


MAX_DIGITS = 20
"""Of a number in a variable, leading zeros included."""

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
        number = whole_number(f"{prefix}{name}", MAX_TIMEOUT_MILLIS, least=1)
        if number is not None:
            found[limit] = number * unit
    return found


def headers_of(signal: str, transport: str, connection: Mapping[str, Any]) -> dict[str, str]:
    """The environment's headers and the configuration's; in lower case, as gRPC wants them.

    Raises:
        ValueError: the configuration has one that cannot be sent. One of the environment is left out, with a warning.
    """
    over_grpc = transport == "grpc"
    found: dict[str, str] = {}
    for name, value in parse_env_headers(variable(signal, "HEADERS") or "", liberal=True).items():
        trouble = header_trouble(name, value, over_grpc=over_grpc)
        if trouble is None:
            found[name] = value
        else:
            logger.warning("the OTLP header %a of the environment is left out: it %s", name, trouble)
    own = resolve_headers(connection["headers"], connection["header_env"])
    check_headers(own, over_grpc=over_grpc)
    return found | {name.lower(): value for name, value in own.items()}


def compression_of(signal: str, known: tuple[str, ...]) -> str:
    """One of those that are known, "none" if the environment says anything else."""
    asked = (variable(signal, "COMPRESSION") or "none").lower()
    if asked not in known:
        logger.warning("the OTLP compression %r of the environment is not one of %s; none it is", asked, list(known))
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
