"""Gemini's two spellings: `usageMetadata`, as its API has it, and `usage_metadata`, as dumps of Google's SDK have it.

Only the keys of the API's own objects are changed, one level after another; what a function is called with, or
answers, is the caller's and stays as it is. Nulls of a dump, which stand for what is not there, are left out.
"""

from collections.abc import Mapping
from typing import Any

__all__ = ["camel"]

_OWNED = frozenset(("args", "response", "parameters", "parametersJsonSchema", "responseSchema", "labels", "output"))
"""Keys whose values are not the API's own."""


def camel(value: Any) -> Any:
    """JSON of the API in its own spelling, without nulls; a copy where there is something to change."""
    if isinstance(value, Mapping):
        found = {}
        for key, item in value.items():
            if item is not None:
                name = _camel_key(key)
                found[name] = item if name in _OWNED else camel(item)
        return found
    return [camel(item) for item in value] if isinstance(value, (list, tuple)) else value


def _camel_key(key: str) -> str:
    if "_" not in key.strip("_"):
        return key
    first, *rest = key.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)
