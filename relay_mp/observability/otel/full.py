"""The projection `full`: all that the events of a scope say, under `relay_mp.*`.

    relay_mp.uuid, .parent_uuid, .scope_type, .handle_attributes, .seq     what the scope is
    relay_mp.start.data.*, relay_mp.end.data.*, .metadata.*, ...           what its start and its end carried
    relay_mp.llm.cost.total, .currency                                     what an LLM call cost (relay_mp.pricing)
    relay_mp.mark.*                                                        what a mark carried

The costs are there while `relay_mp.pricing` is on: to look for one that the provider has reported, each response
would have to be decoded, which this projection never does else.

Objects are taken apart one level deep; what is further in is JSON text.
"""

from typing import Any

from relay_mp import pricing
from relay_mp.codecs import call_of
from relay_mp.events import MarkEvent, ScopeEvent
from relay_mp.observability.otel.otlp import AttributeNames, SpanWriter

__all__ = ["FullProjection"]

_OWN = {"model_name": "relay_mp.model_name", "tool_call_id": "relay_mp.tool_call_id"}
"""Keys of `category_profile` that have a name of their own, as in the peer."""


def _payloads(prefix: str, **before: str) -> AttributeNames:
    """What the attributes of an event's payloads begin with, and `before` those of other fields."""
    fields = ("data", "metadata", "category_profile", "data_schema")
    return AttributeNames({**before, **{field: f"{prefix}.{field}" for field in fields}}, _OWN)


_SCOPE = AttributeNames(
    {
        "uuid": "relay_mp.uuid",
        "parent_uuid": "relay_mp.parent_uuid",
        "category": "relay_mp.scope_type",
        "attributes": "relay_mp.handle_attributes",
        "seq": "relay_mp.seq",
    }
)
_START, _END = _payloads("relay_mp.start"), _payloads("relay_mp.end")
_MARK = _payloads(
    "relay_mp.mark",
    uuid="relay_mp.mark.uuid",
    parent_uuid="relay_mp.mark.parent_uuid",
    seq="relay_mp.mark.seq",
    category="relay_mp.mark.category",
)


def _cost(start: ScopeEvent | None, end: ScopeEvent) -> dict[str, Any]:
    answer = call_of(start, end).response
    usage = None if answer is None else answer.usage
    cost: Any = (usage or {}).get("cost") or {}
    return {f"relay_mp.llm.cost.{name}": cost[name] for name in ("total", "currency") if cost.get(name) is not None}


class FullProjection:
    """See the module. What any projection has: the names below, and these methods."""

    shows_marks = True
    """Whether marks are shown at all."""

    takes_mappings = True
    """Whether attributes may get second names."""

    names_errors = True
    """Whether a scope that failed has the conventions' `error.type`."""

    calls = frozenset(("tool", "llm", "retriever", "embedder", "reranker"))
    """Categories whose spans are of the kind CLIENT; others are INTERNAL."""

    def name(self, event: ScopeEvent) -> str:
        """What the span is called."""
        return event.name

    def write(self, span: SpanWriter, start: ScopeEvent | None, end: ScopeEvent | None) -> None:
        """Writes the attributes of a scope's span; one of its two events may be missing."""
        span.add(_SCOPE, start or end)
        if start is not None:
            span.add(_START, start)
        if end is not None:
            span.add(_END, end)
            if end.category == "llm" and pricing.is_on():
                span.update(_cost(start, end))

    def write_mark(self, span: SpanWriter, mark: MarkEvent) -> None:
        """Writes those of a mark's span event, or span."""
        span.add(_MARK, mark)

    def write_mark_span(self, span: SpanWriter, mark: MarkEvent, *, as_tool: bool) -> None:
        """Writes what a mark's own span carries besides, as a tool or not."""
        if as_tool:
            span.update({"relay_mp.mark.projection": "tool", "relay_mp.scope_type": "tool"})
