"""The projection `openinference`: OpenInference's conventions, for Phoenix and the like.

    openinference.span.kind          by the scope's category
    input.value, output.value        what its start and end carried, as text or JSON, with their mime types
    metadata                         the end's metadata, else the start's, as JSON; without an exception's traceback,
                                     which is in the span's event `exception`
    llm.*                            model, parameters, messages, tools, tokens and costs of an LLM call
    tool.*, tool_call.*              a tool call's
    relay_mp.*                       what the conventions have no word for: identity, category_profile, marks

Messages, tools and tokens are those of the call's annotation, or of its payload where a codec knows it
(relay_mp.codecs). Names are those of the package `openinference-semantic-conventions`; needs the extra:
`pip install relay_mp[openinference]`.
"""

from typing import Any

try:
    from openinference.semconv.trace import (
        DocumentAttributes,
        EmbeddingAttributes,
        ImageAttributes,
        MessageAttributes,
        MessageContentAttributes,
        OpenInferenceMimeTypeValues,
        OpenInferenceSpanKindValues,
        RerankerAttributes,
        SpanAttributes,
        ToolAttributes,
        ToolCallAttributes,
    )
except ImportError as error:
    raise ImportError("OpenInference needs the extra: pip install 'relay_mp[openinference]'") from error

from relay_mp.annotated import AnnotatedLLMRequest, AnnotatedLLMResponse
from relay_mp.codecs import call_of
from relay_mp.events import MarkEvent, ScopeEvent
from relay_mp.observability.otel.full import FullProjection
from relay_mp.observability.otel.gen_ai import cost_usd, model_of, profile_of, shown
from relay_mp.observability.otel.otlp import SpanWriter
from relay_mp.observability.otel.values import json_text

__all__ = ["OpenInferenceProjection"]

_KINDS = {
    "agent": OpenInferenceSpanKindValues.AGENT.value,
    "tool": OpenInferenceSpanKindValues.TOOL.value,
    "llm": OpenInferenceSpanKindValues.LLM.value,
    "retriever": OpenInferenceSpanKindValues.RETRIEVER.value,
    "embedder": OpenInferenceSpanKindValues.EMBEDDING.value,
    "reranker": OpenInferenceSpanKindValues.RERANKER.value,
    "guardrail": OpenInferenceSpanKindValues.GUARDRAIL.value,
    "evaluator": OpenInferenceSpanKindValues.EVALUATOR.value,
}
_CHAIN = OpenInferenceSpanKindValues.CHAIN.value
_TEXT, _JSON = OpenInferenceMimeTypeValues.TEXT.value, OpenInferenceMimeTypeValues.JSON.value

# The conventions' names for what OpenTelemetry calls otherwise: whose product it is, and who hosts it. A server that
# speaks an API which is not its own has the system of the API.
_SYSTEMS = {
    "openai_chat": "openai",
    "openai_responses": "openai",
    "anthropic_messages": "anthropic",
    "gemini_generate_content": "vertexai",
    "oci_genai": "oci",
}
_SYSTEMS_OF_PROVIDERS = {"mistral_ai": "mistralai", "cohere": "cohere"}
_HOSTS = {
    "gcp.gemini": "google", "gcp.vertex_ai": "google", "oci.genai": "oracle", "mistral_ai": "mistralai", "x_ai": "xai",
    "azure.ai.openai": "azure", "azure.ai.inference": "azure", "aws.bedrock": "aws",
}  # fmt: skip
_FINISH_REASONS = {"complete": "stop", "tool_use": "tool_calls"}

_STACKTRACE = "exception.stacktrace"

MAX_MESSAGES = 256
"""Of a request; the oldest of more are left out of `llm.input_messages`, not of `input.value`."""


class OpenInferenceProjection(FullProjection):
    """See the module, and FullProjection for what the methods do."""

    names_errors = False

    def write(self, span: SpanWriter, start: ScopeEvent | None, end: ScopeEvent | None) -> None:
        """Writes the attributes of a scope's span; one of its two events may be missing."""
        span.update(self._attributes(start, end))

    def _attributes(self, start: ScopeEvent | None, end: ScopeEvent | None) -> dict[str, Any]:
        event: Any = start or end
        category = event.category
        found: dict[str, Any] = {
            SpanAttributes.OPENINFERENCE_SPAN_KIND: _KINDS.get(category, _CHAIN),
            "relay_mp.uuid": event.uuid,
            "relay_mp.parent_uuid": event.parent_uuid,
            "relay_mp.scope_type": category,
            "relay_mp.handle_attributes": event.attributes or "[]",
        }
        given = start.data if start is not None else None
        returned = end.data if end is not None else None
        if category == "llm":
            found |= _llm(start, end)
            given = given.get("content", given) if isinstance(given, dict) else given
        found |= _value(SpanAttributes.INPUT_VALUE, SpanAttributes.INPUT_MIME_TYPE, given)
        found |= _value(SpanAttributes.OUTPUT_VALUE, SpanAttributes.OUTPUT_MIME_TYPE, returned)
        if category in _MORE:
            found |= _MORE[category](event, given, returned)
        metadata = _shown_metadata((end or event).metadata)
        if metadata:
            found[SpanAttributes.METADATA] = json_text(metadata)
        return found

    def write_mark_span(self, span: SpanWriter, mark: MarkEvent, *, as_tool: bool) -> None:
        """Writes what a mark's own span carries besides, as a tool or not."""
        span.update(_mark_as_tool(mark) if as_tool else {SpanAttributes.OPENINFERENCE_SPAN_KIND: _CHAIN})


def _shown_metadata(metadata: Any) -> Any:
    """Without the traceback of an exception, which is in the span's event `exception`, where Phoenix shows it."""
    if isinstance(metadata, dict) and _STACKTRACE in metadata:
        return {key: value for key, value in metadata.items() if key != _STACKTRACE}
    return metadata


def _mark_as_tool(mark: MarkEvent) -> dict[str, Any]:
    return {
        SpanAttributes.OPENINFERENCE_SPAN_KIND: _KINDS["tool"],
        "relay_mp.mark.projection": "tool",
        SpanAttributes.TOOL_NAME: mark.name,
        ToolCallAttributes.TOOL_CALL_FUNCTION_NAME: mark.name,
        **_value(SpanAttributes.OUTPUT_VALUE, SpanAttributes.OUTPUT_MIME_TYPE, mark.data),
        SpanAttributes.METADATA: json_text(mark.metadata) if mark.metadata else None,
    }


def _value(name: str, mime_type: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    is_text = isinstance(value, str)
    return {name: value if is_text else json_text(value), mime_type: _TEXT if is_text else _JSON}


# ----------------------------------------------------------------------------------- tools and the rest


def _tool(event: ScopeEvent, given: Any, _returned: Any) -> dict[str, Any]:
    arguments = json_text(given) if given is not None else None
    id_ = profile_of(event).get("tool_call_id")
    return {
        SpanAttributes.TOOL_NAME: event.name,
        SpanAttributes.TOOL_ID: id_,
        SpanAttributes.TOOL_PARAMETERS: arguments,
        ToolCallAttributes.TOOL_CALL_ID: id_,
        ToolCallAttributes.TOOL_CALL_FUNCTION_NAME: event.name,
        ToolCallAttributes.TOOL_CALL_FUNCTION_ARGUMENTS_JSON: arguments,
    }


def _agent(event: ScopeEvent, _given: Any, _returned: Any) -> dict[str, Any]:
    return {SpanAttributes.AGENT_NAME: event.name}


def _documents(prefix: str, value: Any) -> dict[str, Any]:
    """Documents, where a payload is a list of texts, or of objects with a text."""
    found: dict[str, Any] = {}
    values = value.get("documents", value) if isinstance(value, dict) else value
    for number, document in enumerate(values if isinstance(values, list) else ()):
        place = f"{prefix}.{number}."
        if isinstance(document, str):
            found[place + DocumentAttributes.DOCUMENT_CONTENT] = document
        elif isinstance(document, dict):
            found[place + DocumentAttributes.DOCUMENT_CONTENT] = document.get("content", document.get("text"))
            found[place + DocumentAttributes.DOCUMENT_ID] = document.get("id")
            found[place + DocumentAttributes.DOCUMENT_SCORE] = document.get("score")
            rest = {k: v for k, v in document.items() if k not in ("content", "text", "id", "score")}
            found[place + DocumentAttributes.DOCUMENT_METADATA] = json_text(rest) if rest else None
    return found


def _retriever(_event: ScopeEvent, _given: Any, returned: Any) -> dict[str, Any]:
    return _documents(SpanAttributes.RETRIEVAL_DOCUMENTS, returned)


def _reranker(event: ScopeEvent, given: Any, returned: Any) -> dict[str, Any]:
    return {
        RerankerAttributes.RERANKER_QUERY: given.get("query") if isinstance(given, dict) else None,
        RerankerAttributes.RERANKER_MODEL_NAME: profile_of(event).get("model_name"),
        **_documents(RerankerAttributes.RERANKER_INPUT_DOCUMENTS, given),
        **_documents(RerankerAttributes.RERANKER_OUTPUT_DOCUMENTS, returned),
    }


def _embedder(event: ScopeEvent, given: Any, _returned: Any) -> dict[str, Any]:
    texts = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    found: dict[str, Any] = {SpanAttributes.EMBEDDING_MODEL_NAME: profile_of(event).get("model_name")}
    for number, text in enumerate(texts):
        if isinstance(text, str):
            place = f"{SpanAttributes.EMBEDDING_EMBEDDINGS}.{number}.{EmbeddingAttributes.EMBEDDING_TEXT}"
            found[place] = text
    return found


_MORE = {"tool": _tool, "agent": _agent, "retriever": _retriever, "reranker": _reranker, "embedder": _embedder}


# ------------------------------------------------------------------------------------------- LLM calls


def _llm(start: ScopeEvent | None, end: ScopeEvent | None) -> dict[str, Any]:
    asked, answered, api, provider = call_of(start, end)
    requested, used = model_of(start, asked), model_of(end, answered)
    system = None if api is None else _SYSTEMS_OF_PROVIDERS.get(str(provider), _SYSTEMS[api])
    found: dict[str, Any] = {
        SpanAttributes.LLM_MODEL_NAME: used or requested,
        SpanAttributes.LLM_SYSTEM: system,
        SpanAttributes.LLM_PROVIDER: None if provider is None else _HOSTS.get(provider, provider),
    }
    if asked is not None:
        found |= _request(asked)
    if answered is not None:
        found |= _response(answered)
    return found


def _request(view: AnnotatedLLMRequest) -> dict[str, Any]:
    parameters = {**(view.params or {}), **{k: v for k, v in (view.api_specific or {}).items() if k != "api"}}
    found: dict[str, Any] = {SpanAttributes.LLM_INVOCATION_PARAMETERS: json_text(parameters) if parameters else None}
    messages: list[dict[str, Any]] = list(view.messages)
    if view.instructions:
        messages = [{"role": "system", "content": view.instructions}, *messages]
    for number, message in enumerate(messages[-MAX_MESSAGES:]):
        _add_message(found, f"{SpanAttributes.LLM_INPUT_MESSAGES}.{number}.", message)
    for number, tool in enumerate(view.tools or ()):
        found[f"{SpanAttributes.LLM_TOOLS}.{number}.{ToolAttributes.TOOL_JSON_SCHEMA}"] = json_text(tool)
    return found


def _add_message(found: dict[str, Any], place: str, message: dict[str, Any]) -> None:
    message = shown(message)
    role = message["role"]
    if role in ("tool_call", "tool_result", "provider_native"):
        message = _as_chat(message)
        role = message["role"]
    found[place + MessageAttributes.MESSAGE_ROLE] = role
    found[place + MessageAttributes.MESSAGE_NAME] = message.get("name")
    found[place + MessageAttributes.MESSAGE_TOOL_CALL_ID] = message.get("tool_call_id")
    content = message.get("content")
    if isinstance(content, list):
        for number, part in enumerate(content):
            _add_part(found, f"{place}{MessageAttributes.MESSAGE_CONTENTS}.{number}.", part)
    else:
        found[place + MessageAttributes.MESSAGE_CONTENT] = content
    for number, call in enumerate(message.get("tool_calls") or ()):
        function = call["function"]
        _add_call(found, place, number, call["id"], function["name"], function["arguments"])


def _as_chat(message: dict[str, Any]) -> dict[str, Any]:
    """A message that is an item of its own, as one of a chat."""
    if message["role"] == "tool_result":
        return {"role": "tool", "content": _text_of(message["output"]), "tool_call_id": message["call_id"]}
    if message["role"] == "provider_native":
        return {"role": "assistant", "content": json_text(message["value"])}
    function = {"name": message["name"], "arguments": _text_of(message["arguments"])}
    return {"role": "assistant", "tool_calls": [{"id": message["call_id"], "function": function}]}


def _add_part(found: dict[str, Any], place: str, part: dict[str, Any]) -> None:
    kind = part["type"]
    if kind == "image_url":
        image = f"{MessageContentAttributes.MESSAGE_CONTENT_IMAGE}.{ImageAttributes.IMAGE_URL}"
        found[place + MessageContentAttributes.MESSAGE_CONTENT_TYPE] = "image"
        found[place + image] = part["image_url"]["url"]
        return
    text = part["text"] if kind == "text" else json_text(part)
    found[place + MessageContentAttributes.MESSAGE_CONTENT_TYPE] = "text"
    found[place + MessageContentAttributes.MESSAGE_CONTENT_TEXT] = text


def _add_call(found: dict[str, Any], place: str, number: int, id_: str, name: str, arguments: str) -> None:
    place = f"{place}{MessageAttributes.MESSAGE_TOOL_CALLS}.{number}."
    found[place + ToolCallAttributes.TOOL_CALL_ID] = id_
    found[place + ToolCallAttributes.TOOL_CALL_FUNCTION_NAME] = name
    found[place + ToolCallAttributes.TOOL_CALL_FUNCTION_ARGUMENTS_JSON] = arguments


def _text_of(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value)


def _response(view: AnnotatedLLMResponse) -> dict[str, Any]:
    found = _usage(view.usage or {})
    reason = view.finish_reason
    found[SpanAttributes.LLM_FINISH_REASON] = _FINISH_REASONS.get(str(reason), reason)
    _add_answer(found, 0, view.message, view.reasoning_content, view.refusal, view.tool_calls)
    for number, other in enumerate(view.alternatives or (), 1):
        answer: dict[str, Any] = other
        named = (answer.get(key) for key in ("message", "reasoning_content", "refusal", "tool_calls"))
        _add_answer(found, number, *named)
    return found


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    prompt, completion, total = (usage.get(f"{name}_tokens") for name in ("prompt", "completion", "total"))
    if total is None and prompt is not None and completion is not None:
        total = prompt + completion
    parts = [cost_usd(usage, name) for name in ("input", "cache_read", "cache_write")]
    known = [part for part in parts if part is not None]
    return {
        SpanAttributes.LLM_TOKEN_COUNT_PROMPT: prompt,
        SpanAttributes.LLM_TOKEN_COUNT_COMPLETION: completion,
        SpanAttributes.LLM_TOKEN_COUNT_TOTAL: total,
        SpanAttributes.LLM_TOKEN_COUNT_PROMPT_DETAILS_CACHE_READ: usage.get("cache_read_tokens"),
        SpanAttributes.LLM_TOKEN_COUNT_PROMPT_DETAILS_CACHE_WRITE: usage.get("cache_write_tokens"),
        SpanAttributes.LLM_TOKEN_COUNT_COMPLETION_DETAILS_REASONING: usage.get("reasoning_tokens"),
        SpanAttributes.LLM_COST_TOTAL: cost_usd(usage),
        SpanAttributes.LLM_COST_PROMPT: sum(known) if known else None,
        SpanAttributes.LLM_COST_COMPLETION: cost_usd(usage, "output"),
        SpanAttributes.LLM_COST_PROMPT_DETAILS_CACHE_READ: parts[1],
        SpanAttributes.LLM_COST_PROMPT_DETAILS_CACHE_WRITE: parts[2],
    }


def _add_answer(found: dict[str, Any], number: int, message: Any, thoughts: Any, refusal: Any, calls: Any) -> None:
    """An output message. Thoughts are a content item of their own; a refusal is what was said."""
    place = f"{SpanAttributes.LLM_OUTPUT_MESSAGES}.{number}."
    _add_message(found, place, {"role": "assistant", "content": refusal if message is None else message})
    if thoughts:
        taken = len(message) if isinstance(message, list) else 0
        item = f"{place}{MessageAttributes.MESSAGE_CONTENTS}.{taken}."
        found[item + MessageContentAttributes.MESSAGE_CONTENT_TYPE] = "reasoning"
        found[item + MessageContentAttributes.MESSAGE_CONTENT_TEXT] = thoughts
    for at, call in enumerate(calls or ()):
        _add_call(found, place, at, call["id"], call["name"], _text_of(call["arguments"]))
