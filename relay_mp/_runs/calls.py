"""What an LLM call used, and what it cost.

Tokens are those of the response's usage, in the view's terms (`relay_mp.codecs.usage`); the cost is the provider's
own, or, where `relay_mp.pricing` has been given prices, worked out. What is not reported is absent, never zero.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from relay_mp._runs.reading import RecordedEvent
from relay_mp._runs.records import event_of
from relay_mp.codecs.detect import answer_of
from relay_mp.errors import RecordError

TOKENS = ("prompt_tokens", "completion_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
"""The counts that are added up: all that was read, all that was written; of the former what came from a cache and what
was put there, of the latter the thoughts."""


@dataclass(slots=True)
class Usage:
    """Tokens and costs of a call, or of several.

    Attributes:
        tokens: by the names of TOKENS.
        costs: by currency.
    """

    tokens: Counter[str] = field(default_factory=Counter)
    costs: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Usage") -> None:
        """Adds another's to this one's."""
        self.tokens.update(other.tokens)
        self.costs.update(other.costs)

    @property
    def input_tokens(self) -> int:
        """All that models read."""
        return self.tokens["prompt_tokens"]

    @property
    def output_tokens(self) -> int:
        """All that models wrote."""
        return self.tokens["completion_tokens"]

    def to_dict(self) -> dict[str, Any]:
        """JSON types; only what is known."""
        return {"tokens": dict(self.tokens), "cost": dict(self.costs)}

    def __bool__(self) -> bool:
        return bool(self.tokens or self.costs)


def usage_of_call(start: RecordedEvent | None, end: RecordedEvent) -> tuple[Usage, str | None]:
    """What an LLM call used, and the model that answered, as far as its events say.

    Args:
        start: the call's start, if there is one.
        end: the call's end.
    """
    profile = end.fields.get("category_profile") or {}
    try:
        start_event = None if start is None else event_of(start)
        answer = answer_of(end.fields.get("data"), profile.get("annotated_response"), start_event, event_of(end)) or {}
    except RecordError:
        answer = {}
    model = answer.get("model") or profile.get("model_name") or _asked_model(start)
    return _usage(answer.get("usage")), model if isinstance(model, str) else None


def _usage(reported: Any) -> Usage:
    usage = Usage()
    if not isinstance(reported, dict):
        return usage
    usage.tokens.update({name: count for name in TOKENS if isinstance(count := reported.get(name), int)})
    cost = reported.get("cost")
    if isinstance(cost, dict) and isinstance(total := cost.get("total"), int | float):
        usage.costs[str(cost.get("currency") or "USD")] = total  # type: ignore[assignment]
    return usage


def _asked_model(start: RecordedEvent | None) -> Any:
    profile = None if start is None else start.fields.get("category_profile")
    return profile.get("model_name") if isinstance(profile, dict) else None
