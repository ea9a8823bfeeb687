"""Where a signal goes over HTTP: a receiver's address, and the path of the signal behind it.

    http://host:4318/base/?token=x ──signal_url──▶ http://host:4318/base/v1/traces?token=x

Knows no client and needs no extra: configurations and sections use it in any process. A query stays where it is, a
fragment is for nobody but the client. Slashes at the end of a base count as one. Source: OpenTelemetry specification,
"OpenTelemetry Protocol Exporter", "Endpoint URLs for OTLP/HTTP".
"""

from urllib.parse import urlsplit

__all__ = ["signal_url", "url_of_other_signal", "url_with_path"]


def signal_url(base: str, signal: str) -> str:
    """A signal's URL below a base, whatever path that has: what OTEL_EXPORTER_OTLP_ENDPOINT means.

    Args:
        base: the receiver's address, for all signals.
        signal: "traces", "logs" or "metrics".

    Raises:
        ValueError: the base cannot be parsed as a URL.
    """
    parts = urlsplit(base)
    return parts._replace(path=f"{parts.path.rstrip('/')}/v1/{signal}", fragment="").geturl()


def url_with_path(url: str, signal: str) -> str:
    """The URL; below it the signal's usual path, if it has none of its own but slashes.

    Raises:
        ValueError: it cannot be parsed as a URL.
    """
    return signal_url(url, signal) if "://" in url and not urlsplit(url).path.strip("/") else url


def url_of_other_signal(traces: str, signal: str) -> str:
    """Where another signal goes by the traces' URL: beside them if that ends in their usual path, else there too."""
    if not traces.partition("?")[0].rstrip("/").endswith("/v1/traces"):
        return traces
    parts = urlsplit(traces)
    return parts._replace(path=f"{parts.path.rstrip('/').removesuffix('/traces')}/{signal}").geturl()
