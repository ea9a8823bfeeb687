"""One model of usage: what each provider's counts mean in the view's terms.

The same question has one answer for every provider:

    prompt_tokens            all that the model read: cached tokens, and what tools put into the prompt, among them
    completion_tokens        all that the model wrote: its thoughts among them
    total_tokens             as reported; of an API that reports none (Anthropic's), the sum of the two
    cache_read_tokens        of the prompt, what came from a cache
    cache_write_tokens       of the prompt, what was put into a cache
    uncached_input_tokens    of the prompt, the rest
    reasoning_tokens         of the completion, the thoughts
    tool_use_tokens          of the prompt, what tools put there

Providers differ: Anthropic counts cached tokens beside `input_tokens`, OpenAI within; Gemini counts thoughts beside
`candidatesTokenCount`, OpenAI within `completion_tokens`, and xAI beside it. A count that is not reported is absent,
never zero. Sources: the providers' API references of the objects named in `_NAMES`.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

from relay_mp.codecs.lenient import as_count, as_number

__all__ = ["cost_of", "usage_of"]

_Sum: TypeAlias = tuple[str, ...]
_Names: TypeAlias = dict[str, tuple[_Sum, ...]]

# Of each count: where it may be, the first that is there counts; several places in one are added up.
_CHAT: _Names = {
    "prompt_tokens": (("prompt_tokens",), ("input_tokens",)),
    "completion_tokens": (("completion_tokens",), ("output_tokens",)),
    "total_tokens": (("total_tokens",),),
    "cache_read_tokens": (
        ("prompt_tokens_details.cached_tokens",),
        ("input_tokens_details.cached_tokens",),
        ("prompt_cache_hit_tokens",),  # DeepSeek
        ("cached_tokens",),  # Moonshot
        ("num_cached_tokens",),  # Mistral
        ("cache_read_input_tokens",),  # LiteLLM
    ),
    "cache_write_tokens": (
        ("prompt_tokens_details.cache_write_tokens",),
        ("input_tokens_details.cache_write_tokens",),
        ("prompt_tokens_details.cache_creation_tokens",),
        ("cache_creation_input_tokens",),
    ),
    "reasoning_tokens": (
        ("completion_tokens_details.reasoning_tokens",),
        ("output_tokens_details.reasoning_tokens",),
        ("reasoning_tokens",),  # Perplexity
    ),
}
_ANTHROPIC: _Names = {
    "prompt_tokens": (("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),),
    "completion_tokens": (("output_tokens",),),
    "cache_read_tokens": (("cache_read_input_tokens",),),
    "cache_write_tokens": (("cache_creation_input_tokens",),),
    "reasoning_tokens": (("output_tokens_details.thinking_tokens",),),
}
_GEMINI: _Names = {
    "prompt_tokens": (("promptTokenCount", "toolUsePromptTokenCount"),),
    "completion_tokens": (("candidatesTokenCount", "thoughtsTokenCount"), ("responseTokenCount", "thoughtsTokenCount")),
    "total_tokens": (("totalTokenCount",),),
    "cache_read_tokens": (("cachedContentTokenCount",),),
    "reasoning_tokens": (("thoughtsTokenCount",),),
    "tool_use_tokens": (("toolUsePromptTokenCount",),),
}
_OCI: _Names = {
    "prompt_tokens": (("promptTokens",),),
    "completion_tokens": (("completionTokens",),),
    "total_tokens": (("totalTokens",),),
    "cache_read_tokens": (("promptTokensDetails.cachedTokens",),),
    "reasoning_tokens": (("completionTokensDetails.reasoningTokens",),),
}
_NAMES = {
    "openai_chat": _CHAT,
    "openai_responses": _CHAT,
    "anthropic_messages": _ANTHROPIC,
    "gemini_generate_content": _GEMINI,
    "oci_genai": _OCI,
}

_Paths: TypeAlias = tuple[tuple[tuple[str, str], ...], ...]
"""As `_Names`, with each place as a key and, if it is in an object there, the key inside."""

_PLACES: dict[str, dict[str, _Paths]] = {
    api: {
        name: tuple(tuple(term.partition(".")[::2] for term in terms) for terms in places)
        for name, places in names.items()
    }
    for api, names in _NAMES.items()
}

_REPORTING_TOTALS = ("openai_chat", "openai_responses", "oci_genai")
"""APIs whose servers do not agree on whether a completion's thoughts are in it, and whose totals tell."""

_COST_NAMES = {"total_cost": "total", "input_tokens_cost": "input", "output_tokens_cost": "output"}  # Perplexity


def usage_of(api: str, raw: Any, *, is_incomplete: bool = False) -> dict[str, Any] | None:
    """A provider's usage object in the view's terms.

    Args:
        api: a codec's `codec_id`.
        raw: the object.
        is_incomplete: whether it is of a stream that was broken off: no total is added up then, for more was
            written than is known.

    Returns:
        The counts that are known, and the cost if the provider reports it; None if it is not an object.
    """
    if not isinstance(raw, dict):
        return None
    found = {name: _first(raw, places) for name, places in _PLACES[api].items()}
    prompt, completion = found["prompt_tokens"], found["completion_tokens"]
    if api in _REPORTING_TOTALS:
        found["completion_tokens"] = _with_reasoning(found)
    elif found.get("total_tokens") is None and prompt is not None and completion is not None and not is_incomplete:
        found["total_tokens"] = prompt + completion
    found["uncached_input_tokens"] = _uncached(found)
    counts: dict[str, Any] = {name: count for name, count in found.items() if count is not None}
    return counts | cost_of(raw) if "cost" in raw or "cost_usd" in raw else counts


def _first(raw: Mapping[str, Any], places: _Paths) -> int | None:
    """The first place that has a count; where several are added up, those that are there."""
    for terms in places:
        total = None
        for outer, inner in terms:
            value = raw.get(outer)
            if value is not None and inner:
                value = value.get(inner) if isinstance(value, dict) else None
            count = None if value is None else as_count(value)
            if count is not None:
                total = count if total is None else total + count
        if total is not None:
            return total
    return None


def _with_reasoning(found: Mapping[str, int | None]) -> int | None:
    """The completion, with the thoughts in it.

    Where the reported total is prompt, completion and thoughts together, the thoughts are not in the completion: so
    xAI counts, and OCI for Gemini, which leaves out a completion that is nothing but thoughts.
    """
    prompt, completion, thoughts = found["prompt_tokens"], found["completion_tokens"], found["reasoning_tokens"]
    if not thoughts or prompt is None or found["total_tokens"] != prompt + (completion or 0) + thoughts:
        return completion
    return (completion or 0) + thoughts


def _uncached(found: Mapping[str, int | None]) -> int | None:
    prompt, parts = found["prompt_tokens"], [found.get("cache_read_tokens"), found.get("cache_write_tokens")]
    cached = [part for part in parts if part is not None]
    return prompt - sum(cached) if prompt is not None and cached and prompt >= sum(cached) else None


def cost_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    """`{"cost": ...}` if a usage object says what the call cost, in US dollars; else nothing.

    OpenRouter has a number, Perplexity an object of parts.
    """
    reported = raw.get("cost") if raw.get("cost") is not None else raw.get("cost_usd")
    if isinstance(reported, Mapping):
        named: dict[str, Any] = {_COST_NAMES.get(str(key), str(key)): item for key, item in reported.items()}
        numbers = {key: as_number(named.get(key)) for key in ("total", "input", "output", "cache_read", "cache_write")}
        texts = {key: item for key, item in named.items() if key not in numbers and isinstance(item, str)}
        cost: dict[str, Any] = {**texts, **{key: item for key, item in numbers.items() if item is not None}}
    else:
        total = as_number(reported)
        cost = {} if total is None else {"total": total}
    return {"cost": {"currency": "USD", **cost, "source": "provider_reported"}} if cost else {}
