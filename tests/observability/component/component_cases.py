"""What nemo_relay's observability component and this one say about the same documents.

python component_cases.py nemo_relay|relay_mp < cases.json > outcomes.json
"""

import importlib
import json
import sys
from typing import Any

SINK = {"type": "stream", "url": "http://127.0.0.1:9"}
TRACES = {"type": "full", "endpoint": "http://127.0.0.1:9"}
SIGNAL = {"endpoint": "http://127.0.0.1:9"}
STORAGE = {"type": "http", "endpoint": "http://127.0.0.1:9"}


def stream(**settings: Any) -> Any:
    return {"atof": {"enabled": True, "sinks": [{**SINK, **settings}]}}


def file(**settings: Any) -> Any:
    return {"atof": {"enabled": True, "sinks": [{"type": "file", **settings}]}}


def atif(**settings: Any) -> Any:
    return {"atif": {"enabled": True, **settings}}


def traces(**settings: Any) -> Any:
    return {"opentelemetry": {"enabled": True, "endpoints": [{**TRACES, **settings}]}}


def logs(**settings: Any) -> Any:
    return {"opentelemetry": {"enabled": True, "logs": {"enabled": True, "endpoints": [SIGNAL], **settings}}}


def metrics(**settings: Any) -> Any:
    return {"opentelemetry": {"enabled": True, "metrics": {"enabled": True, "endpoints": [SIGNAL], **settings}}}


UNSET = "RELAY_MP_NO_SUCH_VARIABLE"

ALIKE: dict[str, Any] = {
    "nothing": {},
    "version 3": {"version": 3},
    "version 4": {"version": 4},
    "version 5": {"version": 5},
    "version 1": {"version": 1},
    "unknown section": {"foo": 1},
    "unknown policy": {"policy": {"foo": "warn"}},
    "null sections": {"atof": None, "atif": None, "opentelemetry": None},
    "empty sections": {"atof": {}, "atif": {}, "opentelemetry": {}},
    "atof without sinks": {"atof": {"enabled": True}},
    "atof with no sinks": {"atof": {"enabled": True, "sinks": []}},
    "atof unknown field": {"atof": {"enabled": False, "foo": 1}},
    "file": file(),
    "file elsewhere": file(output_directory="/nowhere/at/all", filename="x"),
    "file, mode": file(mode="x"),
    "stream": stream(),
    "stream, ftp": stream(url="ftp://x"),
    "stream, no url": stream(url=""),
    "stream, no time": stream(timeout_millis=0),
    "stream, transport": stream(transport="x"),
    "stream, dots": stream(field_name_policy="x"),
    "stream, unset variable": stream(header_env={"authorization": UNSET}),
    "stream, empty variable": stream(header_env={"authorization": ""}),
    "stream, header twice": stream(headers={"A": "b"}, header_env={"a": "PATH"}),
    "stream, header's name": stream(headers={"A b": "b"}),
    "stream, header's value": stream(headers={"A": "b\n"}),
    "stream, empty name": stream(name=""),
    "two streams of one name": {"atof": {"enabled": True, "sinks": [{**SINK, "name": "a"}, {**SINK, "name": "a"}]}},
    "two streams to one place": {"atof": {"enabled": True, "sinks": [SINK, SINK]}},
    "disabled, ftp": {"atof": {"enabled": False, "sinks": [{**SINK, "url": "ftp://x"}]}},
    "atif": atif(),
    "atif, no placeholder": atif(filename_template="x.json"),
    "atif, upwards": atif(filename_template="../{session_id}.json"),
    "atif, unknown field": atif(foo=1),
    "storage": atif(storage=[STORAGE]),
    "storage, ftp": atif(storage=[{**STORAGE, "endpoint": "ftp://x"}]),
    "storage, unset variable": atif(storage=[{**STORAGE, "header_env": {"a": UNSET}}]),
    "storage, no time": atif(storage=[{**STORAGE, "timeout_millis": 0}]),
    "traces": traces(),
    "traces, none": {"opentelemetry": {"enabled": True}},
    "traces, blank": traces(endpoint=" "),
    "traces, transport": traces(transport="x"),
    "traces, unknown field": traces(foo=1),
    "traces, header twice": traces(headers={"a": "b"}, header_env={"A": "PATH"}),
    "traces, header's name": traces(headers={"a b": "b"}),
    "traces, mappings": traces(attribute_mappings=[{"key": "b", "alias": "c"}]),
    "otel unknown field": {"opentelemetry": {"foo": 1}},
    "logs": logs(),
    "logs, off": {"opentelemetry": {"logs": {"enabled": True, "endpoints": [SIGNAL]}}},
    "logs, no endpoint": logs(endpoints=[]),
    "logs, of the traces": {"opentelemetry": {"enabled": True, "endpoints": [TRACES], "logs": {"enabled": True}}},
    "logs, severity": logs(minimum_severity="x"),
    "logs, bounds": logs(max_queue_size=0, max_export_batch_size=0),
    "logs, batch above queue": logs(max_queue_size=5),
    "logs, version 3": {"version": 3, **logs()},
    "metrics": metrics(),
    "metrics, no endpoint": metrics(endpoints=[]),
    "metrics, temporality": metrics(temporality="x"),
    "metrics, bounds": metrics(export_interval_millis=0, max_instruments=0, cardinality_limit=0),
    "openinference as a section": {"openinference": {"enabled": True}},
    "several": {
        "foo": 1,
        "atof": {"enabled": True, "sinks": [{**SINK, "url": "x", "timeout_millis": 0}, {"type": "file", "mode": "q"}]},
        "atif": {"enabled": True, "filename_template": "a"},
    },
}

INVALID = "error observability.invalid_plugin_config observability -"


def warning(code: str, component: str, field: str) -> str:
    return f"warning observability.{code} {component} {field}"


def error(code: str, component: str, field: str) -> str:
    return f"error observability.{code} {component} {field}"


def invalid(component: str, field: str) -> str:
    return error("invalid_plugin_config", component, field)


def unsupported(component: str, field: str) -> str:
    return error("unsupported_value", component, field)


NAMED = "the peer says that one part of the whole is wrong, this names the part, and each that is"
NOTICED = "what has no meaning is a setting that silently does not count"
REFUSED = "the peer leaves the exporter out, or fails when it starts; a configuration that cannot work is no warning"

# What: document, what nemo_relay says, what this says, why.
DIFFERENT: dict[str, tuple[Any, list[str], list[str], str]] = {
    "version, a string": ({"version": "4"}, [INVALID], [invalid("observability", "version")], NAMED),
    "policy": (
        {"policy": {"unknown_field": "x"}},
        [INVALID],
        [invalid("observability", "policy.unknown_field")],
        NAMED,
    ),
    "enabled, a string": ({"atof": {"enabled": "yes"}}, [INVALID], [invalid("atof", "enabled")], NAMED),
    "a list for a section": ({"atof": []}, [], [invalid("atof", "-")], "the peer takes it for an empty table"),
    "no type": (file() | {"atof": {"sinks": [{}]}}, [INVALID], [invalid("atof", "sinks[0]")], NAMED),
    "type": ({"atof": {"sinks": [{"type": "x"}]}}, [INVALID], [invalid("atof", "sinks[0].type")], NAMED),
    "url missing": ({"atof": {"sinks": [{"type": "stream"}]}}, [INVALID], [invalid("atof", "sinks[0].url")], NAMED),
    "a filename that is none": (file(filename=3), [INVALID], [invalid("atof", "sinks[0].filename")], NAMED),
    "below zero": (stream(timeout_millis=-1), [INVALID], [unsupported("atof", "sinks[0].timeout_millis")], NAMED),
    "a header that is none": (stream(headers={"A": 1}), [INVALID], [invalid("atof", "sinks[0].headers.A")], NAMED),
    "endpoint missing": (
        atif(storage=[{"type": "http"}]),
        [INVALID],
        [unsupported("atif", "storage[0].endpoint")],
        NAMED,
    ),
    "projection": (traces(type="x"), [INVALID], [unsupported("opentelemetry", "endpoints[0].type")], NAMED),
    "mark_projection": (
        traces(mark_projection="x"),
        [INVALID],
        [unsupported("opentelemetry", "endpoints[0].mark_projection")],
        NAMED,
    ),
    "mapping": (
        traces(attribute_mappings=[{"key": "b"}]),
        [INVALID],
        [invalid("opentelemetry", "endpoints[0].attribute_mappings[0].alias")],
        NAMED,
    ),
    "unknown field of a sink": (stream(foo=1), [], [warning("unknown_field", "atof", "sinks[0].foo")], NOTICED),
    "unknown field of storage": (
        atif(storage=[{**STORAGE, "foo": 1}]),
        [],
        [warning("unknown_field", "atif", "storage[0].foo")],
        NOTICED,
    ),
    "unknown field of logs": (
        logs(endpoints=[{**SIGNAL, "bar": 1}]),
        [warning("unknown_field", "opentelemetry.logs", "bar")],
        [warning("unknown_field", "opentelemetry.logs", "endpoints[0].bar")],
        "the place is told",
    ),
    "unknown placeholder": (
        atif(filename_template="{session_id}{foo}.json"),
        [],
        [unsupported("atif", "filename_template")],
        "the braces would be in the file's name",
    ),
    "an array for extra": (atif(extra=[]), [], [invalid("atif", "extra")], "ATIF says that it is an object"),
    "two writers of one file": (
        {"atof": {"enabled": True, "sinks": [{"type": "file", "filename": "a"}, {"type": "file", "filename": "a"}]}},
        [],
        [error("duplicate_destination", "atof", "sinks[1]")],
        "the peer writes each event twice",
    ),
    "traces, unset variable": (
        traces(header_env={"a": UNSET}),
        [],
        [unsupported("opentelemetry", "endpoints[0].header_env.a")],
        REFUSED,
    ),
    "traces, no address": (traces(endpoint="x"), [], [unsupported("opentelemetry", "endpoints[0].endpoint")], REFUSED),
    "traces, bounds": (
        traces(max_queue_size=0, scheduled_delay_millis=0),
        [
            warning("invalid_otel_endpoint", "opentelemetry", "endpoints[0].max_queue_size"),
            warning("invalid_otel_endpoint", "opentelemetry", "endpoints[0].scheduled_delay_millis"),
        ],
        [
            unsupported("opentelemetry", "endpoints[0].max_queue_size"),
            unsupported("opentelemetry", "endpoints[0].scheduled_delay_millis"),
        ],
        REFUSED,
    ),
    "logs, transport": (
        logs(endpoints=[{**SIGNAL, "transport": "q"}]),
        [
            unsupported("opentelemetry.logs", "endpoints"),
            unsupported("opentelemetry.logs", "endpoints[0].transport"),
        ],
        [unsupported("opentelemetry.logs", "endpoints[0].transport")],
        "once is enough",
    ),
    "earlier fields of atof": (
        {"atof": {"output_directory": "x"}},
        [
            error("legacy_atof_field", "atof", "output_directory"),
            warning("unknown_field", "atof", "output_directory"),
        ],
        [
            error("legacy_atof_field", "atof", "output_directory"),
            warning("unknown_field", "atof", "output_directory"),
        ],
        "none",
    ),
    "websocket": (
        stream(transport="websocket", url="ws://127.0.0.1:9"),
        [],
        [unsupported("atof", "sinks[0].transport")],
        "there is no such transport here",
    ),
    "storage in S3": (
        atif(storage=[{"type": "s3", "bucket": "b"}]),
        [],
        [invalid("atif", "storage[0].type")],
        "there is no such storage here",
    ),
    "sections of this one": (
        {"perfetto": {}, "prometheus": {}, "exporters": []},
        [
            warning("unknown_field", "observability", "exporters"),
            warning("unknown_field", "observability", "perfetto"),
            warning("unknown_field", "observability", "prometheus"),
        ],
        [],
        "the peer has none of them",
    ),
}

_CHOICES = ("ignore", "warn", "error", None)

POLICIES = [
    {"document": document, "component": component, "name": name, "config": config}
    for name, config in (("unknown_field", {"foo": 1}), ("unsupported_value", file(mode="q")))
    for document in _CHOICES
    for component in _CHOICES
]


def _said(plugin: Any, document: Any) -> list[str]:
    found = plugin.validate(document)["diagnostics"]
    return sorted(
        f"{each['level']} {each['code']} {each.get('component', '-')} {each.get('field', '-')}" for each in found
    )


def _component(config: Any) -> Any:
    return {"kind": "observability", "config": config}


def main(library: str) -> None:
    """Validates what comes on stdin; see the module."""
    plugin = importlib.import_module(library).plugin
    json.dump([_said(plugin, document) for document in json.load(sys.stdin)], sys.stdout)


def documents() -> list[Any]:
    """All of them, in the order of the tables above."""
    plain = [*ALIKE.values(), *(each[0] for each in DIFFERENT.values())]
    found: list[Any] = [{"components": [_component(config)]} for config in plain]
    for each in POLICIES:
        config = {**each["config"], **({"policy": {each["name"]: each["component"]}} if each["component"] else {})}
        policy = {"policy": {each["name"]: each["document"]}} if each["document"] else {}
        found.append({"components": [_component(config)], **policy})
    found.append({"components": [_component({}), _component({})]})
    found.append({"components": [{**_component({"atof": {"enabled": True}}), "enabled": False}]})
    return found


if __name__ == "__main__":
    main(sys.argv[1])
