"""What sanitizers of LLM payloads are told about the codec of the call, and annotations made by codecs.

Runs in the emitting process. A codec is any object with `decode` and `encode` (requests) or
`decode_response`; the built-in ones are in `relay_mp.codecs`, and have a `codec_id`.
"""

from typing import Any, Literal, NamedTuple

from relay_mp._emit.calls import LLMRequest
from relay_mp._log import logger
from relay_mp.errors import CallbackError, PayloadError, described_type

__all__ = [
    "LlmCodecIdentity",
    "LlmSanitizeRequestContext",
    "LlmSanitizeResponseContext",
    "annotation_of",
    "decode_request",
    "decode_response",
    "encode_request",
]

_BUILT_IN = "relay_mp.codecs"


class LlmCodecIdentity(NamedTuple):
    """Which codec a call has.

    `kind` is "none", "builtin" (of the library, `id` says which), "runtime" (its class has a `codec_id`,
    which is `id`), or "opaque".
    """

    kind: Literal["none", "builtin", "runtime", "opaque"]
    id: str | None


def _identify(codec: Any) -> LlmCodecIdentity:
    if codec is None:
        return LlmCodecIdentity("none", None)
    codec_id = getattr(codec, "codec_id", None)
    if not isinstance(codec_id, str):
        return LlmCodecIdentity("opaque", None)
    module = type(codec).__module__
    is_built_in = module == _BUILT_IN or module.startswith(f"{_BUILT_IN}.")
    return LlmCodecIdentity("builtin" if is_built_in else "runtime", codec_id)


class _SanitizeContext:
    """What both have."""

    __slots__ = ("_codec",)

    def __init__(self, codec: Any) -> None:
        self._codec = codec

    @property
    def codec(self) -> LlmCodecIdentity:
        """Which codec the call has."""
        return _identify(self._codec)

    def resolve_codec(self) -> Any:
        """The codec itself, to see the payload in its normalized form; None where there is none."""
        return self._codec


class LlmSanitizeRequestContext(_SanitizeContext):
    """What a request sanitizer is told about its call: the request codec."""

    __slots__ = ()


class LlmSanitizeResponseContext(_SanitizeContext):
    """What a response sanitizer is told about its call: the response codec."""

    __slots__ = ()


def decode_request(codec: Any, request: LLMRequest) -> Any:
    """The request in its normalized form. What the codec raises passes."""
    annotated = codec.decode(request)
    annotation_of(annotated, "annotated_request")
    return annotated


def encode_request(codec: Any, annotated: Any, request: LLMRequest) -> LLMRequest:
    """The request with what was changed in its normalized form. Its headers stay. What the codec raises passes.

    Raises:
        CallbackError: the codec returned what is not a request.
    """
    encoded = codec.encode(annotated, request)
    if not isinstance(encoded, LLMRequest):
        raise CallbackError(f"the codec's encode returned {described_type(encoded)}; expected LLMRequest")
    return request.with_content_of(encoded)


def decode_response(codec: Any, response: Any) -> Any:
    """The normalized form of a response, as JSON; None, and a line in the log, if the codec fails."""
    try:
        return annotation_of(codec.decode_response(response), "annotated_response")
    except Exception:
        logger.exception("the response codec %r failed; the event has no annotation", type(codec).__name__)
        return None


def annotation_of(annotated: Any, argument: str) -> Any:
    """An annotation as events show it.

    Args:
        annotated: an object with `to_dict`, such as AnnotatedLLMResponse, or a dict.
        argument: what it is called, for the error.

    Raises:
        PayloadError: it is neither.
    """
    if hasattr(annotated, "to_dict"):
        annotated = annotated.to_dict()
    if not isinstance(annotated, dict):
        raise PayloadError(f"{argument} is {described_type(annotated)}; expected an annotation or a dict")
    return annotated
