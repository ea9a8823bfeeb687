"""What the codecs of responses have in common: lenient access to keys, and calls of tools.

A response is what a provider sent, so nothing in it is an error: a value of an unexpected type is left out of the
view, and what stands beside it stays. Only a response that is not an object has no view.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from relay_mp import pricing
from relay_mp.annotated import AnnotatedLLMResponse
from relay_mp.codecs.lenient import objects_of
from relay_mp.codecs.providers import Evidence, provider_of
from relay_mp.codecs.streams import INCOMPLETE, assemble
from relay_mp.codecs.usage import usage_of
from relay_mp.errors import CodecError, described_type
from relay_mp.types import Json

__all__ = [
    "ResponseCodec",
    "ResponseReader",
    "arguments_of",
    "id_of",
    "is_made_up",
    "text_of",
    "with_ids",
]


def arguments_of(value: Any) -> Any:
    """A tool call's arguments: decoded where they are the text of JSON, else as they are, empty where missing."""
    if value is None:
        return {}
    if not isinstance(value, str):
        return value
    try:
        return _decode(value)
    except (ValueError, RecursionError):
        return value


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


# Python's JSON knows NaN and infinities, which no other does: they become null, as in payloads.
_decode = json.JSONDecoder(parse_float=_finite, parse_constant=lambda _: None).decode


def text_of(value: Any) -> str | None:
    """A text; a whole number's digits, for ids that are numbers."""
    return value if isinstance(value, str) else str(value) if type(value) is int else None


def id_of(call: Mapping[str, Any], key: str = "id") -> str:
    """A call's id, which may be a number; empty if it has none."""
    return text_of(call.get(key)) or ""


def with_ids(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Calls of tools, each with an id: its own, or one made of its place.

    Servers that send no ids send several calls at once all the same; with one empty id they would be one call.
    """
    for place, call in enumerate(calls):
        if not call["id"]:
            call["id"] = _made_up(place)
    return calls


def _made_up(place: int) -> str:
    return f"call_{place}"


def is_made_up(call: Mapping[str, Any], place: int) -> bool:
    """Whether a call's id comes from a codec (see `with_ids`, and Gemini's names), not from the provider."""
    id_, name = call["id"], call["name"]
    return bool(id_ in (_made_up(place), name) or id_.startswith(f"{name}#"))


class ResponseReader:
    """The keys of one object of a response; it remembers which were asked for.

    Args:
        value: the object; anything else has no keys.
    """

    def __init__(self, value: Any) -> None:
        self._value: dict[str, Any] = value if isinstance(value, dict) else {}
        self._read: set[str] = set()

    def get(self, key: str, kind: type | None = None) -> Any:
        """A key's value; None if it is missing, null, or not of the type."""
        self._read.add(key)
        value = self._value.get(key)
        return value if kind is None or isinstance(value, kind) else None

    def text(self, key: str) -> str | None:
        """A key's text; a whole number's digits, for ids that are numbers."""
        return text_of(self.get(key))

    def inner(self, key: str) -> "ResponseReader":
        """A key's object."""
        return ResponseReader(self.get(key))

    def objects(self, key: str) -> list[dict[str, Any]]:
        """The objects in a key's list."""
        return objects_of(self.get(key))

    @property
    def value(self) -> dict[str, Any]:
        """The object itself."""
        return self._value

    def rest(self, *known: str) -> dict[str, Any]:
        """The keys that nobody asked for."""
        return {key: item for key, item in self._value.items() if key not in self._read.union(known)}


class ResponseCodec(ABC):
    """The response's half of the built-in codecs. It has no state: one may serve any number of threads."""

    TITLE: ClassVar[str]
    codec_id: ClassVar[str]

    @abstractmethod
    def read_response(self, reader: ResponseReader) -> Mapping[str, Any]:
        """The view's fields, those of `read_answer` among them. Values of another shape are dropped later."""

    @abstractmethod
    def read_answer(self, response: dict[str, Any]) -> dict[str, Any]:
        """Model, answer and usage: what a trajectory needs, without the rest of the response."""

    def usage(self, response: Mapping[str, Any], raw: Any) -> dict[str, Any] | None:
        """A usage object of this API in the view's terms."""
        return usage_of(self.codec_id, raw, is_incomplete=response.get(INCOMPLETE) is True)

    def decode_response(self, response: Json) -> AnnotatedLLMResponse:
        """The view of a response; with its cost where `relay_mp.pricing` is on.

        Args:
            response: a JSON object of this API, or the list of chunks of a streamed response.

        Raises:
            CodecError: it is neither.
        """
        view, whole = self.read(response)
        return pricing.priced(view, provider_of(Evidence(self.codec_id, response=whole)))

    def read(self, response: Any) -> tuple[AnnotatedLLMResponse, Mapping[str, Any]]:
        """The view without an estimated cost, and the response, which may have been put together of chunks.

        Raises:
            CodecError: see `decode_response`.
        """
        whole = self.whole(response)
        reader = ResponseReader(whole)
        incomplete = True if reader.get(INCOMPLETE) is True else None
        return AnnotatedLLMResponse.salvage({**self.read_response(reader), "incomplete": incomplete}), whole

    def whole(self, response: Any) -> dict[str, Any]:
        """The response as one object: put together, if it is a list of chunks.

        Raises:
            CodecError: see `decode_response`.
        """
        found = assemble(response) if isinstance(response, (list, tuple)) else response
        if isinstance(found, Mapping):
            return found if isinstance(found, dict) else dict(found)
        given = described_type(response)
        raise CodecError(f"{self.TITLE}: the response is {given}; expected an object, or a list of chunks")
