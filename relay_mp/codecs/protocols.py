"""What `relay_mp.llm` asks of a codec: duck-typed, no base class needed.

A codec runs in the emitting process, on the thread or in the task that makes the call, and may be used
by many at once: keep no state in it.
"""

from typing import Protocol, TypeVar, runtime_checkable

from relay_mp.annotated import AnnotatedLLMRequest, AnnotatedLLMResponse
from relay_mp.types import Json, JsonObject

__all__ = ["LlmCodec", "LlmResponseCodec", "Request"]


class Request(Protocol):
    """What codecs need of a request; `LLMRequest` has it."""

    def __init__(self, headers: JsonObject, content: JsonObject) -> None: ...

    @property
    def headers(self) -> JsonObject:
        """Headers, as the provider's client sends them."""
        ...

    @property
    def content(self) -> JsonObject:
        """The request's body, a JSON object."""
        ...


R = TypeVar("R", bound=Request)


@runtime_checkable
class LlmCodec(Protocol):
    """Translates requests, so that intercepts can read and change them in the same terms for all providers.

    If either method raises, or returns something else, the managed call fails with that error before its
    start event: a request that was to be changed must not go out unchanged.
    """

    def decode(self, request: R, /) -> AnnotatedLLMRequest:
        """The view of a provider's request.

        Args:
            request: as it was given to `llm.execute`.
        """
        ...

    def encode(self, annotated: AnnotatedLLMRequest, original: R, /) -> R:
        """The provider's request after the view has been changed.

        Args:
            annotated: the view, changed.
            original: what it was decoded from. What the view does not know must be kept.
        """
        ...


@runtime_checkable
class LlmResponseCodec(Protocol):
    """Translates responses, for the end event's annotation. What the caller gets is not touched.

    If it raises, or returns something else, the end event goes without an annotation, and that is logged.
    """

    def decode_response(self, response: Json, /) -> AnnotatedLLMResponse:
        """The view of a provider's response.

        Args:
            response: as the provider's callback returned it.
        """
        ...
