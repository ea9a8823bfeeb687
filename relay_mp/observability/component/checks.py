"""What there is to say about sections whose fields have the right types: values, variables, extras, files.

Looks at the environment and at directories, and changes nothing. Nothing that may be a secret is repeated.
"""

import importlib.metadata
import importlib.util
import itertools
import os
import re
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from relay_mp.observability.atif.filenames import check_template
from relay_mp.observability.component.config import (
    AtifConfig,
    AtofConfig,
    AtofStreamSinkConfig,
    ExporterConfig,
    OpenTelemetryEndpointConfig,
    OpenTelemetrySectionConfig,
    PerfettoConfig,
    PrometheusConfig,
)
from relay_mp.observability.component.reading import Findings, Where
from relay_mp.observability.export.base import Exporter
from relay_mp.observability.export.batch_queue import Limits
from relay_mp.observability.export.http import check_header_value
from relay_mp.observability.export.kinds import ENTRY_POINTS

__all__ = ["check", "check_together"]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header's name: RFC 9110, section 5.6.2."""


def check(name: str, section: Any, version: int, findings: Findings) -> None:
    """Notes what is wrong with a section, enabled or not.

    Args:
        name: of the section.
        section: as read, with None in place of what could not be.
        version: of the component's config.
        findings: takes what there is to say.
    """
    _CHECKS[name](section, version, findings)


# --------------------------------------------------------------------------------------------- single values


def _check_at_least(section: Any, where: Where, findings: Findings, least: int, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        if value is not None and value < least:
            findings.unsupported(where.key(name), f"is {value}; expected at least {least}")


def _check_url(url: str, where: Where, findings: Findings) -> None:
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not url.strip():
        findings.unsupported(where, "is empty; expected http://host... or https://host...")
    elif not is_one:
        findings.unsupported(where, "is no address; expected http://host... or https://host...")
    elif parts.username or parts.password:
        findings.unsupported(where, "holds a user or password; put them into header_env, as an authorization header")


def _check_headers(section: Any, where: Where, findings: Findings) -> None:
    """Plain ones, and those whose values are in the environment."""
    for kind in ("headers", "header_env"):
        for name in getattr(section, kind):
            if not _TOKEN.fullmatch(name):
                findings.unsupported(where.key(kind).key(name), "is no name of a header")
    for name, value in section.headers.items():
        if not check_header_value(value):
            findings.unsupported(where.key("headers").key(name), "has a character that no header may have")
    plain = {name.lower() for name in section.headers}
    for name, variable in section.header_env.items():
        message = _trouble_of_variable(variable)
        if name.lower() in plain:
            message = "is in headers too; keep one of them"
        if message:
            findings.unsupported(where.key("header_env").key(name), message)


def _trouble_of_variable(variable: str) -> str | None:
    # Its name is not repeated: people put the secret itself there by mistake.
    if not variable:
        return "is empty; expected the name of an environment variable"
    value = os.environ.get(variable)
    if value is None:
        return "names an environment variable that is not set"
    if not check_header_value(value):
        return "names an environment variable whose value no header may have; is there a line break in it?"
    return None


def _check_limits(section: Any, where: Where, findings: Findings) -> None:
    try:
        Limits(**section.limits)
    except (TypeError, ValueError) as error:
        findings.unsupported(where.key("limits"), f"cannot be used: {error}")


def _has_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of a package around it
        return False


def _check_extra(extra: str, modules: Sequence[str], where: Where, findings: Findings) -> None:
    if not all(map(_has_module, modules)):
        findings.error("missing_extra", where, f"needs the extra {extra!r}: pip install 'relay_mp[{extra}]'")


# -------------------------------------------------------------------------------------------------- sections


def _check_atof(section: AtofConfig, _version: int, findings: Findings) -> None:
    where = Where("atof")
    if section.enabled and not section.sinks:
        findings.unsupported(where.key("sinks"), "has no sink; expected at least one, or enabled = false")
    names: set[str] = set()
    for index, sink in enumerate(section.sinks or ()):
        place = where.key("sinks").item(index)
        if sink is None:
            continue
        if sink.name is not None:
            if not sink.name or sink.name in names:
                findings.unsupported(place.key("name"), "is that of another sink" if sink.name else "is empty")
            names.add(sink.name)
        if isinstance(sink, AtofStreamSinkConfig):
            _check_url(sink.url, place.key("url"), findings)
            _check_at_least(sink, place, findings, 1, "timeout_millis")
            _check_headers(sink, place, findings)
            _check_limits(sink, place, findings)
        else:
            _check_at_least(sink, place, findings, 0, "rotate_bytes", "rotated_files")


def _check_atif(section: AtifConfig, _version: int, findings: Findings) -> None:
    where = Where("atif")
    try:
        check_template(section.filename_template)
    except ValueError as error:
        findings.unsupported(where.key("filename_template"), f"cannot be used: {error}")
    for index, storage in enumerate(section.storage or ()):
        place = where.key("storage").item(index)
        if storage is not None:
            _check_url(storage.endpoint, place.key("endpoint"), findings)
            _check_at_least(storage, place, findings, 1, "timeout_millis")
            _check_headers(storage, place, findings)
    _check_limits(section, where, findings)
    _check_at_least(section, where, findings, 1, "max_open_scopes", "max_trajectory_events")


def _check_opentelemetry(section: OpenTelemetrySectionConfig, version: int, findings: Findings) -> None:
    where = Where("opentelemetry")
    signals = {name: signal for name in ("logs", "metrics") if (signal := getattr(section, name)) is not None}
    for name in signals if version == 3 else ():
        findings.unsupported(where.key(name), "is not in version 3; set version = 4")
    if section.enabled and not section.endpoints and not any(signal.enabled for signal in signals.values()):
        findings.unsupported(where.key("endpoints"), "has no endpoint; expected one, or logs or metrics with one")
    for index, endpoint in enumerate(section.endpoints):
        if endpoint is not None:
            _check_traces(endpoint, where.key("endpoints").item(index), findings)
    for name, signal in signals.items():
        _check_signal(signal, section, where.part(name), findings)
    if section.logs is not None:
        counts = "max_queue_size", "max_export_batch_size", "scheduled_delay_millis"
        _check_queue(section.logs, where.part("logs"), findings, *counts, "completed_span_context_ttl_millis")
    if section.metrics is not None:
        counts = "export_interval_millis", "max_instruments", "cardinality_limit"
        _check_at_least(section.metrics, where.part("metrics"), findings, 1, *counts)
    if section.enabled:
        modules = ["opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.grpc"]
        _check_extra("otel", modules, where, findings)
        if any(endpoint and endpoint.type == "openinference" for endpoint in section.endpoints):
            _check_extra("openinference", ["openinference.semconv"], where, findings)


def _check_endpoint(endpoint: Any, where: Where, findings: Findings) -> None:
    if endpoint.transport == "http_binary" or "//" in endpoint.endpoint or not endpoint.endpoint.strip():
        _check_url(endpoint.endpoint, where.key("endpoint"), findings)
    _check_at_least(endpoint, where, findings, 1, "timeout_millis")
    _check_headers(endpoint, where, findings)


def _check_traces(endpoint: OpenTelemetryEndpointConfig, where: Where, findings: Findings) -> None:
    _check_endpoint(endpoint, where, findings)
    counts = "max_queue_size", "max_export_batch_size", "scheduled_delay_millis"
    _check_queue(endpoint, where, findings, *counts, "completed_span_context_ttl_millis")
    for index, mapping in enumerate(endpoint.attribute_mappings):
        for name in ("key", "alias"):
            if not mapping.get(name):
                findings.invalid(where.key("attribute_mappings").item(index).key(name), "is missing")


def _check_queue(section: Any, where: Where, findings: Findings, *names: str) -> None:
    _check_at_least(section, where, findings, 1, *names)
    queue, batch = section.max_queue_size, section.max_export_batch_size
    if queue is not None and batch is not None and batch > queue > 0:
        findings.unsupported(where.key("max_export_batch_size"), f"is {batch}, above max_queue_size, {queue}")


def _check_signal(signal: Any, section: OpenTelemetrySectionConfig, where: Where, findings: Findings) -> None:
    if section.enabled and signal.enabled and not (signal.endpoints or section.endpoints):
        findings.unsupported(where.key("endpoints"), "has no endpoint, nor have the traces; expected one")
    for index, endpoint in enumerate(signal.endpoints or ()):
        if endpoint is not None:
            _check_endpoint(endpoint, where.key("endpoints").item(index), findings)


def _check_perfetto(section: PerfettoConfig, _version: int, findings: Findings) -> None:
    _check_at_least(section, Where("perfetto"), findings, 1, "max_open_scopes")


def _check_prometheus(section: PrometheusConfig, _version: int, findings: Findings) -> None:
    where = Where("prometheus")
    _check_at_least(section, where, findings, 1, "max_names", "max_open_scopes")
    if not 0 <= section.port <= 65535:
        findings.unsupported(where.key("port"), f"is {section.port}; expected 0 to 65535")
    buckets = section.buckets or [1.0]
    if any(not low < high for low, high in itertools.pairwise(buckets)):
        findings.unsupported(where.key("buckets"), "does not rise")
    if section.enabled:
        _check_extra("prometheus", ["prometheus_client"], where, findings)


def _check_further(section: list[ExporterConfig | None], _version: int, findings: Findings) -> None:
    known = importlib.metadata.entry_points(group=ENTRY_POINTS).names
    for index, one in enumerate(section):
        if one is not None and one.kind not in known:
            place = Where("exporters").item(index).key("kind")
            findings.error("unknown_exporter", place, f"is no kind of exporter; there are {', '.join(sorted(known))}")


_CHECKS: dict[str, Callable[[Any, int, Findings], None]] = {
    "atof": _check_atof,
    "atif": _check_atif,
    "opentelemetry": _check_opentelemetry,
    "perfetto": _check_perfetto,
    "prometheus": _check_prometheus,
    "exporters": _check_further,
}


# -------------------------------------------------------------------------------------------------- together


def check_together(made: Sequence[tuple[Where, Exporter]], findings: Findings) -> None:
    """Notes files that two exporters would write, and directories that are not there and cannot be made."""
    writers: dict[str, Where] = {}
    for where, exporter in made:
        for _, arguments in exporter._sinks:
            given = arguments.get("arguments", arguments)
            path, directory = given.get("path"), given.get("output_directory")
            if isinstance(path, str):
                other = writers.setdefault(os.path.realpath(path), where)
                if other is not where:
                    findings.error("duplicate_destination", where, f"would write the file that {other} writes")
                directory = os.path.dirname(os.path.abspath(path))
            trouble = _trouble_of_directory(directory) if isinstance(directory, str) else None
            if trouble:
                message = f"cannot be written now, and is tried again while the session runs: {trouble}"
                findings.warn("unusable_directory", where, message)


def _trouble_of_directory(directory: str) -> str | None:
    """Why a directory cannot be written, or made."""
    found = directory
    while not os.path.lexists(found) and os.path.dirname(found) != found:
        found = os.path.dirname(found)
    if not os.path.isdir(found):
        return f"{found} is no directory"
    if not os.access(found, os.W_OK | os.X_OK):
        return f"no permission to write in {found}"
    return None
