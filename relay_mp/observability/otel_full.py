"""The projection `full`: all that the events of a scope say, under `relay_mp.*`.

    relay_mp.uuid, .parent_uuid, .scope_type, .handle_attributes, .seq     what the scope is
    relay_mp.start.data.*, relay_mp.end.data.*, .metadata.*, ...           what its start and its end carried
    relay_mp.mark.*                                                        what a mark carried

Objects are taken apart one level deep; what is further in is JSON text.
"""

from typing import Any, NamedTuple

from relay_mp.events import Event, MarkEvent, ScopeEvent
from relay_mp.observability._otlp import flatten
from relay_mp.observability.otel_values import add_flat

__all__ = ["CLIENT", "INTERNAL", "FullProjection", "error_type", "mark_attributes"]

INTERNAL, CLIENT = 1, 3
"""Span.SpanKind."""

_OWN = {"model_name": "relay_mp.model_name", "tool_call_id": "relay_mp.tool_call_id"}
"""Keys of `category_profile` that have a name of their own, as in the peer."""

_DATA, _METADATA, _PROFILE = 9, 10, 11
"""The payloads' places in a record."""

_CALLS = frozenset(("tool", "llm", "retriever", "embedder", "reranker"))


class _Names(NamedTuple):
    """What the attributes of an event's payloads begin with."""

    data: str
    metadata: str
    category_profile: str
    data_schema: str


def _names(prefix: str) -> _Names:
    return _Names(*(f"{prefix}.{field}" for field in _Names._fields))


_START, _END, _MARK = _names("relay_mp.start"), _names("relay_mp.end"), _names("relay_mp.mark")


class FullProjection:
    """See the module. What any projection has: the names below, and these methods."""

    shows_marks = True
    """Whether marks are shown at all."""

    takes_mappings = True
    """Whether attributes may get second names."""

    def name(self, event: ScopeEvent) -> str:
        """What the span is called."""
        return event.name

    def kind(self, event: ScopeEvent) -> int:
        """Its Span.SpanKind."""
        return CLIENT if event.category in _CALLS else INTERNAL

    def attributes(self, start: ScopeEvent | None, end: ScopeEvent | None) -> dict[str, Any]:
        """What the span carries; one of its two events may be missing."""
        event: Any = start or end
        found: dict[str, Any] = {
            "relay_mp.uuid": event.uuid,
            "relay_mp.parent_uuid": event.parent_uuid,
            "relay_mp.scope_type": event.category,
            "relay_mp.handle_attributes": event.attributes or "[]",
            "relay_mp.seq": event.seq,
        }
        if start is not None:
            _add_payloads(found, _START, start)
        if end is not None:
            _add_payloads(found, _END, end)
            found |= error_type(end)
        return found

    def mark_attributes(self, mark: MarkEvent) -> dict[str, Any]:
        """What a mark's span event, or span, carries."""
        return mark_attributes(mark)

    def mark_span_attributes(self, mark: MarkEvent, *, as_tool: bool) -> dict[str, Any]:
        """What a mark's own span carries besides, as a tool or not."""
        return {"relay_mp.mark.projection": "tool", "relay_mp.scope_type": "tool"} if as_tool else {}


def error_type(end: ScopeEvent | None) -> dict[str, str]:
    """The conventions' `error.type` of a scope that failed: an event has an error's text, not its type."""
    failed = end is not None and isinstance(end.metadata, dict) and end.metadata.get("otel.status_code") == "ERROR"
    return {"error.type": "_OTHER"} if failed else {}


def _add_payloads(found: dict[str, Any], names: _Names, event: Event) -> None:
    data, metadata, profile, schema = names
    if not flatten(found, data, event, _DATA):
        add_flat(found, data, event.data)
    if not flatten(found, metadata, event, _METADATA):
        add_flat(found, metadata, event.metadata)
    if not flatten(found, profile, event, _PROFILE, _OWN):
        _add_profile(found, profile, event.category_profile)
    found[schema] = event.data_schema


def _add_profile(found: dict[str, Any], prefix: str, profile: Any) -> None:
    if isinstance(profile, dict):
        found |= {name: profile[key] for key, name in _OWN.items() if key in profile}
        add_flat(found, prefix, {key: value for key, value in profile.items() if key not in _OWN} or None)


def mark_attributes(mark: MarkEvent) -> dict[str, Any]:
    """What a mark says."""
    found: dict[str, Any] = {
        "relay_mp.mark.uuid": mark.uuid,
        "relay_mp.mark.parent_uuid": mark.parent_uuid,
        "relay_mp.mark.seq": mark.seq,
    }
    if mark.category is not None:
        found["relay_mp.mark.category"] = mark.category
    _add_payloads(found, _MARK, mark)
    return found
