"""Which provider a payload looks like, for events that carry one and no annotation.

Best effort, for exporters, so it runs where the dispatcher runs. A payload is taken for a provider's only
where its keys say so; what fits none, or cannot be decoded, has no view, and that is no error.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from relay_mp.annotated import AnnotatedLLMRequest, AnnotatedLLMResponse
from relay_mp.codecs.anthropic_messages import AnthropicMessagesCodec
from relay_mp.codecs.gemini import GeminiGenerateContentCodec
from relay_mp.codecs.oci_genai import OCIGenAIChatCodec
from relay_mp.codecs.openai_chat import OpenAIChatCodec
from relay_mp.codecs.openai_responses import OpenAIResponsesCodec
from relay_mp.errors import CodecError, PayloadError, RecordError
from relay_mp.events import Event, ScopeEvent
from relay_mp.types import JsonObject

__all__ = ["BuiltinCodec", "detect_request", "detect_response", "request_of", "response_of"]

BuiltinCodec = (
    OpenAIChatCodec | OpenAIResponsesCodec | AnthropicMessagesCodec | GeminiGenerateContentCodec | OCIGenAIChatCodec
)

_T = TypeVar("_T")

# Keys of a request with `messages` that Anthropic's API has and OpenAI's has not.
_ANTHROPIC_KEYS = {"system", "stop_sequences", "thinking", "top_k", "anthropic_version", "anthropic_beta"}
_ANTHROPIC_PARTS = {"tool_use", "tool_result", "thinking", "redacted_thinking", "document", "image"}

_CHAT = OpenAIChatCodec()
_RESPONSES = OpenAIResponsesCodec()
_ANTHROPIC = AnthropicMessagesCodec()
_GEMINI = GeminiGenerateContentCodec()
_OCI = OCIGenAIChatCodec()


class _Raw:
    """A request's body, as codecs want it."""

    def __init__(self, headers: JsonObject, content: JsonObject) -> None:
        self.headers = headers
        self.content = content


def detect_request(content: Any) -> BuiltinCodec | None:
    """The codec of the API that a request's body looks like, or None."""
    if not isinstance(content, Mapping):
        return None
    if isinstance(content.get("chatRequest"), Mapping) or "apiFormat" in content:
        return _OCI
    if isinstance(content.get("contents"), list):
        return _GEMINI
    if isinstance(content.get("messages"), list):
        return _ANTHROPIC if _is_anthropic(content) else _CHAT
    return _RESPONSES if isinstance(content.get("input"), (str, list)) and "model" in content else None


def _is_anthropic(content: Mapping[str, Any]) -> bool:
    tools = content.get("tools")
    declared = isinstance(tools, list) and any(isinstance(tool, dict) and "input_schema" in tool for tool in tools)
    return (
        bool(_ANTHROPIC_KEYS & content.keys())
        or declared
        or any(
            isinstance(part, dict) and part.get("type") in _ANTHROPIC_PARTS
            for message in content["messages"]
            if isinstance(message, dict) and isinstance(message.get("content"), list)
            for part in message["content"]
        )
    )


def detect_response(response: Any) -> BuiltinCodec | None:
    """The codec of the API that a response looks like, or None."""
    if not isinstance(response, Mapping):
        return None
    if isinstance(response.get("chatResponse"), Mapping):
        return _OCI
    if isinstance(response.get("candidates"), list):
        return _GEMINI
    if isinstance(response.get("choices"), list):
        return _CHAT
    if response.get("object") == "response" or isinstance(response.get("output"), list):
        return _RESPONSES
    is_message = response.get("type") == "message" and isinstance(response.get("content"), list)
    return _ANTHROPIC if is_message else None


def request_of(event: Event) -> AnnotatedLLMRequest | None:
    """The view of the request in an LLM call's start: the annotation it carries, else one of its raw payload.

    Args:
        event: any event; all but an LLM call's start have none.

    Returns:
        The view, or None if there is none or the payload is of no known API. Never raises for a payload.
    """
    if not isinstance(event, ScopeEvent) or event.category != "llm" or event.scope_category != "start":
        return None
    found = _quietly(lambda: event.annotated_request)
    data = event.data
    content = data.get("content") if isinstance(data, dict) else None
    codec = detect_request(content)
    if found is not None or codec is None:
        return found
    return _quietly(lambda: codec.decode(_Raw({}, content)))  # type: ignore[arg-type]


def response_of(event: Event) -> AnnotatedLLMResponse | None:
    """The view of the response in an LLM call's end: the annotation it carries, else one of its raw payload.

    Args:
        event: any event; all but an LLM call's end have none.

    Returns:
        The view, or None if there is none or the payload is of no known API. Never raises for a payload.
    """
    if not isinstance(event, ScopeEvent) or event.category != "llm" or event.scope_category != "end":
        return None
    found = _quietly(lambda: event.annotated_response)
    codec = detect_response(event.data)
    if found is not None or codec is None:
        return found
    return _quietly(lambda: codec.decode_response(event.data))


def _quietly(read: Callable[[], _T]) -> _T | None:
    try:
        return read()
    except (CodecError, PayloadError, RecordError):
        return None
