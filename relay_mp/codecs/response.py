"""What the codecs of responses have in common: typed access to keys, usage, arguments of tool calls.

Reading a response is lenient about what is missing and strict about types: a key that is there and not
of its type means that this is no response of the API.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from relay_mp.annotated import AnnotatedLLMResponse
from relay_mp.errors import CodecError, PayloadError

__all__ = ["ResponseReader", "arguments_of", "read_response"]


def arguments_of(text: str | None) -> Any:
    """A tool call's arguments: decoded where they are JSON, the text where not, empty where missing."""
    if text is None:
        return {}
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


class ResponseReader:
    """The keys of one object of a response; it remembers which were asked for.

    Args:
        value: the object.
        where: what comes before its keys in messages.
    """

    def __init__(self, value: Mapping[str, Any], where: str = "") -> None:
        self._value = value
        self._where = where
        self._read: set[str] = set()

    def get(self, key: str, kind: type | None = None) -> Any:
        """A key's value, or None.

        Raises:
            PayloadError: it is there, is not null, and not of the type.
        """
        self._read.add(key)
        value = self._value.get(key)
        if value is not None and kind is not None and not isinstance(value, kind):
            raise PayloadError(f"{self._where}{key} is {value!r:.80}; expected {kind.__name__}")
        return value

    def objects(self, values: list[Any] | None, key: str) -> list[dict[str, Any]]:
        """A list's items, all of which are objects."""
        for index, value in enumerate(values or []):
            if not isinstance(value, dict):
                raise PayloadError(f"{self._where}{key}[{index}] is {value!r:.80}; expected an object")
        return values or []

    def usage(self, keys: Mapping[str, str], cached: tuple[str, str] | None = None) -> dict[str, Any] | None:
        """The `usage` object in the view's terms.

        Args:
            keys: the view's names, each with this API's.
            cached: where the tokens read from a cache are, inside.
        """
        raw = self.get("usage", dict)
        if raw is None:
            return None
        found = {name: raw.get(key) for name, key in keys.items()}
        if cached is not None:
            details = raw.get(cached[0])
            found["cache_read_tokens"] = details.get(cached[1]) if isinstance(details, dict) else None
        cost = raw.get("cost")
        if isinstance(cost, (int, float)):
            cost = {"total": cost}
        if cost is not None:
            found["cost"] = {"currency": "USD", **cost, "source": "provider_reported"}
        return found

    def rest(self, *known: str) -> dict[str, Any]:
        """The keys that nobody asked for."""
        return {key: item for key, item in self._value.items() if key not in self._read.union(known)}


def read_response(
    title: str, response: Any, read: Callable[[ResponseReader], Mapping[str, Any]]
) -> AnnotatedLLMResponse:
    """The view of a response, or the codec's error."""
    if not isinstance(response, Mapping):
        raise CodecError(f"{title}: the response is a {type(response).__name__}; expected an object")
    try:
        return AnnotatedLLMResponse.of(read(ResponseReader(response)))
    except (PayloadError, TypeError) as error:
        raise CodecError(f"{title}: {error}") from error
