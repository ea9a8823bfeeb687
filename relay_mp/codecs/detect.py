"""Which provider a payload looks like, for events that carry one and no annotation.

For exporters, so it runs where the dispatcher runs, when an exporter asks. A payload is taken for a provider's only
where its keys say so; what fits none has no view, and that is not an error.

    start, end ──call_of──► LlmCall: both views, the API, the provider, the cost where `relay_mp.pricing` is on

Request and response are looked at together: messages without anything of Anthropic's own are the same in its API and
in OpenAI's, and the response tells.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from relay_mp import pricing
from relay_mp.annotated import AnnotatedLLMRequest, AnnotatedLLMResponse
from relay_mp.codecs.anthropic_messages import AnthropicMessagesCodec
from relay_mp.codecs.gemini import GeminiGenerateContentCodec
from relay_mp.codecs.oci_genai import OCIGenAIChatCodec
from relay_mp.codecs.openai_chat import OpenAIChatCodec
from relay_mp.codecs.openai_responses import OpenAIResponsesCodec
from relay_mp.codecs.providers import OF_API, Evidence, provider_of
from relay_mp.codecs.streams import INCOMPLETE, api_of_chunks
from relay_mp.errors import CodecError, PayloadError, RecordError
from relay_mp.events import Event, ScopeEvent
from relay_mp.types import JsonObject

__all__ = [
    "BuiltinCodec",
    "LlmCall",
    "answer_of",
    "call_of",
    "detect_request",
    "detect_response",
    "last_message",
    "request_of",
    "response_of",
]

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
_BY_ID: dict[str, BuiltinCodec] = {
    "openai_chat": _CHAT,
    "openai_responses": _RESPONSES,
    "anthropic_messages": _ANTHROPIC,
    "gemini_generate_content": _GEMINI,
    "oci_genai": _OCI,
}
_SAME_MESSAGES = (_CHAT, _ANTHROPIC)
"""APIs whose requests may look the same."""


class _Raw:
    """A request's body, as codecs want it."""

    def __init__(self, headers: JsonObject, content: JsonObject) -> None:
        self.headers = headers
        self.content = content


class LlmCall(NamedTuple):
    """What is known of an LLM call.

    Attributes:
        request: the view of the request; None if there is none.
        response: the view of the response, with its cost if that is known; None if there is none.
        api: the API, as a codec's `codec_id`; None if it is not known.
        provider: who served it, as `gen_ai.provider.name` has it; None if it is not known.
    """

    request: AnnotatedLLMRequest | None
    response: AnnotatedLLMResponse | None
    api: str | None
    provider: str | None


# ------------------------------------------------------------------------------------------- payloads


def detect_request(content: Any) -> BuiltinCodec | None:
    """The codec of the API that a request's body looks like, or None."""
    if not isinstance(content, Mapping):
        return None
    if any(isinstance(content.get(key), Mapping) for key in ("chatRequest", "chat_request")) or "apiFormat" in content:
        return _OCI
    if isinstance(content.get("contents"), (list, str)):
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
            isinstance(part, dict) and str(part.get("type")) in _ANTHROPIC_PARTS
            for message in content["messages"]
            if isinstance(message, dict) and isinstance(message.get("content"), list)
            for part in message["content"]
        )
    )


def detect_response(response: Any) -> BuiltinCodec | None:  # noqa: PLR0911 - a shape a line
    """The codec of the API that a response looks like, or a list of the chunks of a streamed one; or None."""
    if isinstance(response, list):
        return _BY_ID.get(api_of_chunks(response) or "")
    if not isinstance(response, Mapping):
        return None
    if isinstance(response.get("choices"), list):
        return _OCI if "apiFormat" in response else _CHAT
    if isinstance(response.get("candidates"), list) or _BLOCKED & response.keys():
        return _GEMINI
    if response.get("type") == "message" and isinstance(response.get("content"), list):
        return _ANTHROPIC
    if response.get("object") == "response" or isinstance(response.get("output"), list):
        return _RESPONSES
    is_oci = any(isinstance(response.get(key), Mapping) for key in ("chatResponse", "chat_response"))
    return _OCI if is_oci else None


_BLOCKED = {"promptFeedback", "prompt_feedback"}
"""A response of Gemini's to a prompt that was blocked has no candidates."""


# ---------------------------------------------------------------------------------------------- events


def request_of(event: Event) -> AnnotatedLLMRequest | None:
    """The view of the request in an LLM call's start: the annotation it carries, else one of its raw payload.

    Args:
        event: any event; all but an LLM call's start have none.

    Returns:
        The view, or None if there is none or the payload is of no known API. Never raises for a payload.
    """
    return call_of(event, None).request


def response_of(event: Event) -> AnnotatedLLMResponse | None:
    """The view of the response in an LLM call's end: the annotation it carries, else one of its raw payload.

    Args:
        event: any event; all but an LLM call's end have none.

    Returns:
        The view, or None if there is none or the payload is of no known API. Never raises for a payload.
    """
    return call_of(None, event).response


def call_of(start: Event | None, end: Event | None) -> LlmCall:
    """What the events of an LLM call say of it, looked at together.

    Args:
        start: the call's start; None, or any other event: not there.
        end: the call's end, likewise.

    Never raises for a payload.
    """
    given, headers, asked = _request(start)
    answered = _response(end)
    asked_by, answered_by = detect_request(given), detect_response(answered)
    name = next((each.name for each in (start, end) if isinstance(each, ScopeEvent)), "")
    if asked_by in _SAME_MESSAGES:
        asked_by = answered_by if answered_by in _SAME_MESSAGES else _unanswered(asked_by, name, headers, given)
    if asked is None and asked_by is not None:
        codec = asked_by
        asked = _quietly(lambda: codec.decode(_Raw({}, given)))
    response, whole = _answer(end, answered, answered_by)
    api = _api_of(response) or _api_of(asked) or _id_of(answered_by) or _id_of(asked_by)
    provider = provider_of(Evidence(api, name, headers, _object(given), whole))
    if response is not None and pricing.is_on() and isinstance(end, ScopeEvent):
        model = asked.model if asked is not None else None
        response = pricing.priced(response, provider, model, _time_of(end))
    return LlmCall(asked, response, api, provider)


def _unanswered(codec: BuiltinCodec | None, name: str, headers: Mapping[str, Any], given: Any) -> BuiltinCodec | None:
    """The codec of messages that nobody has answered, so that only their surroundings tell: a call that failed."""
    evidence = Evidence("openai_chat", name, headers, _object(given))
    return _ANTHROPIC if provider_of(evidence) == "anthropic" and "max_tokens" in given else codec


def answer_of(response: Any, annotated: Any, start: Event | None, end: Event) -> Mapping[str, Any] | None:
    """Model, answer and usage of a response's view, whose shapes nobody has checked, in a fraction of `call_of`'s time.

    For trajectories, which are made of thousands of calls. The request is not decoded, and looked at only where
    `relay_mp.pricing` is on.

    Args:
        response: the end's payload.
        annotated: the end's annotation, if it has one.
        start, end: the call's events.

    Returns:
        Fields of the view; None if the response is of no known API and has no annotation.
    """
    codec = detect_response(response)
    whole = {} if codec is None else codec.whole(response)
    if isinstance(annotated, dict) and annotated:
        values: dict[str, Any] = annotated
    elif codec is not None:
        values = codec.read_answer(whole)
        if whole.get(INCOMPLETE) is True:
            values["incomplete"] = True
    else:
        return None
    if not pricing.is_on():
        return values
    given, headers, _ = _request(start)
    evidence = Evidence(_id_of(codec), (end if start is None else start).name, headers, _object(given), whole)
    return _priced(values, provider_of(evidence), given, _time_of(end))


def _priced(values: dict[str, Any], provider: str | None, given: Any, at: datetime) -> dict[str, Any]:
    usage, model = values.get("usage"), values.get("model") or _model_of(given)
    if not isinstance(usage, dict) or not isinstance(model, str) or usage.get("cost") or values.get("incomplete"):
        return values
    cost = pricing.cost_of(model, usage, provider=provider, at=at)
    return values if cost is None else {**values, "usage": {**usage, "cost": cost}}


def _model_of(request: Any) -> Any:
    """The model that a raw request names; OCI's names it in its serving mode."""
    found = _object(request)
    mode = _object(found.get("servingMode", found.get("serving_mode")))
    return found.get("model") or mode.get("modelId") or mode.get("model_id")


def _time_of(event: Event) -> datetime:
    return datetime.fromtimestamp(event.timestamp_us / 1e6, UTC)


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _id_of(codec: BuiltinCodec | None) -> str | None:
    return None if codec is None else codec.codec_id


def _api_of(view: AnnotatedLLMRequest | AnnotatedLLMResponse | None) -> str | None:
    api = None if view is None else (view.api_specific or {}).get("api")
    return api if isinstance(api, str) and api in OF_API else None


def _is_llm(event: Event | None, category: str) -> bool:
    return isinstance(event, ScopeEvent) and event.category == "llm" and event.scope_category == category


def _request(start: Event | None) -> tuple[Any, Mapping[str, Any], AnnotatedLLMRequest | None]:
    """The raw request, its headers, and its annotation."""
    if start is None or not _is_llm(start, "start"):
        return None, {}, None
    data = start.data
    content, headers = (data.get("content"), data.get("headers")) if isinstance(data, dict) else (None, None)
    return content, _object(headers), _annotation(start, "annotated_request", AnnotatedLLMRequest)


def _response(end: Event | None) -> Any:
    return end.data if end is not None and _is_llm(end, "end") else None


def _answer(
    end: Event | None, raw: Any, codec: BuiltinCodec | None
) -> tuple[AnnotatedLLMResponse | None, Mapping[str, Any]]:
    """The view of the response, and the response as one object."""
    annotated = None
    if end is not None and _is_llm(end, "end"):
        annotated = _annotation(end, "annotated_response", AnnotatedLLMResponse)
    read = None if codec is None else _quietly(lambda: codec.read(raw))
    if read is None:
        return annotated, _object(raw)
    return (read[0] if annotated is None else annotated), read[1]


_V = TypeVar("_V", AnnotatedLLMRequest, AnnotatedLLMResponse)


def _annotation(event: Event, key: str, view: type[_V]) -> _V | None:
    """An event's annotation, as far as it is well formed; None if it has none, or nothing in it is."""
    profile = event.category_profile
    given = profile.get(key) if isinstance(profile, dict) else None
    if not isinstance(given, dict) or not given:
        return None
    found = view.salvage_dict(given)
    known = found.to_dict().keys() - found.extra.keys()
    return found if known - {"messages"} or found.to_dict().get("messages") else None


def _quietly(read: Callable[[], _T]) -> _T | None:
    try:
        return read()
    except (CodecError, PayloadError, RecordError):
        return None


def last_message(content: Any) -> JsonObject | None:
    """The last message of a request, without reading those before it: a history may be long. None if there is none.

    Args:
        content: a request's body.
    """
    codec = detect_request(content)
    if codec is None:
        return None
    messages = _quietly(lambda: codec.read_messages(codec.normal(_shortened(codec, content))))
    return messages[-1] if messages else None


def _shortened(codec: BuiltinCodec, content: JsonObject) -> JsonObject:
    """A request with the last of its messages only; in OCI's formats all of them, of which the last is elsewhere."""
    messages = content.get(codec.MESSAGES)
    return {**content, codec.MESSAGES: messages[-1:]} if isinstance(messages, list) else dict(content)
