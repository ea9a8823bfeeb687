"""The projection `gen_ai`: OpenTelemetry's semantic conventions for generative AI, and nothing else.

    agent      `invoke_agent {name}`     gen_ai.agent.*
    llm        `chat {model}`            gen_ai.request.*, gen_ai.response.*, gen_ai.usage.*, messages
    tool       `execute_tool {name}`     gen_ai.tool.*
    embedder   `embeddings {model}`      retriever: `retrieval`

Other scopes are spans without attributes of their own, marks are not shown: the conventions have no word
for them. Messages, usage and provider are those of the call's annotation, or of its payload where a codec knows it
(relay_mp.codecs). One name is not the conventions' own, for they have none: `gen_ai.usage.cost`, in US dollars, which
Langfuse reads. Source: OpenTelemetry semantic conventions for generative AI systems, spans and agent
spans, 1.38 (development); its JSON schemas of input and output messages.
"""

import json
from typing import Any

from relay_mp.annotated import AnnotatedLLMRequest, AnnotatedLLMResponse
from relay_mp.codecs import LlmCall, call_of
from relay_mp.codecs.lenient import objects_of
from relay_mp.events import MarkEvent, ScopeEvent
from relay_mp.observability.otel.otlp import SpanWriter
from relay_mp.observability.otel.values import json_text

__all__ = ["COST_USD", "GenAiProjection", "cost_usd", "model_of", "profile_of", "shown"]

COST_USD = "gen_ai.usage.cost"

_OPERATIONS = {
    "agent": "invoke_agent",
    "llm": "chat",
    "tool": "execute_tool",
    "embedder": "embeddings",
    "retriever": "retrieval",
}

_FINISH_REASONS = {"complete": "stop", "tool_use": "tool_call"}
_REQUEST_KEYS = {
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "n": "gen_ai.request.choice.count",
    "seed": "gen_ai.request.seed",
    "top_k": "gen_ai.request.top_k",
}


class GenAiProjection:
    """See the module, and FullProjection for what the methods do."""

    shows_marks = False
    takes_mappings = False
    names_errors = True
    calls = frozenset(("llm", "embedder", "retriever"))

    def name(self, event: ScopeEvent) -> str:
        """What the span is called."""
        operation = _OPERATIONS.get(event.category)
        if operation is None:
            return event.name
        if event.category in ("agent", "tool"):
            return f"{operation} {event.name}"
        model = profile_of(event).get("model_name")
        return f"{operation} {model}" if isinstance(model, str) else operation

    def write(self, span: SpanWriter, start: ScopeEvent | None, end: ScopeEvent | None) -> None:
        """Writes the attributes of a scope's span; one of its two events may be missing."""
        span.update(self._attributes(start, end))

    def _attributes(self, start: ScopeEvent | None, end: ScopeEvent | None) -> dict[str, Any]:
        event: Any = start or end
        operation = _OPERATIONS.get(event.category)
        found: dict[str, Any] = {} if operation is None else {"gen_ai.operation.name": operation}
        if event.category == "agent":
            found["gen_ai.agent.name"] = event.name
        elif event.category == "tool":
            found |= _tool(event, start, end)
        elif event.category == "llm":
            call = call_of(start, end)
            found |= _request(start, call) | _response(call)
        elif event.category == "embedder":
            found["gen_ai.request.model"] = profile_of(event).get("model_name")
        elif event.category == "retriever" and start is not None and isinstance(start.data, str):
            found["gen_ai.retrieval.query.text"] = start.data
        return found

    def write_mark(self, span: SpanWriter, mark: MarkEvent) -> None:
        """Nothing."""

    def write_mark_span(self, span: SpanWriter, mark: MarkEvent, *, as_tool: bool) -> None:
        """Nothing."""


def profile_of(event: ScopeEvent | None) -> dict[str, Any]:
    """An event's category_profile; empty if there is none."""
    profile = event.category_profile if event is not None else None
    return profile if isinstance(profile, dict) else {}


def model_of(event: ScopeEvent | None, view: AnnotatedLLMRequest | AnnotatedLLMResponse | None) -> str | None:
    """The model that a call's start or end names: its view's, else the caller's."""
    model = view.model if view is not None and view.model else profile_of(event).get("model_name")
    return model if isinstance(model, str) else None


def cost_usd(usage: dict[str, Any], name: str = "total") -> float | None:
    """What a call cost, or a part of it, in US dollars; None if that is not known, or known in another currency."""
    cost = usage.get("cost")
    if not isinstance(cost, dict) or cost.get("currency", "USD") != "USD":
        return None
    found = cost.get(name)
    return float(found) if isinstance(found, (int, float)) else None


def _tool(event: ScopeEvent, start: ScopeEvent | None, end: ScopeEvent | None) -> dict[str, Any]:
    return {
        "gen_ai.tool.name": event.name,
        "gen_ai.tool.call.id": profile_of(event).get("tool_call_id"),
        "gen_ai.tool.call.arguments": json_text(start.data) if start is not None and start.data is not None else None,
        "gen_ai.tool.call.result": json_text(end.data) if end is not None and end.data is not None else None,
    }


def _request(start: ScopeEvent | None, call: LlmCall) -> dict[str, Any]:
    view = call.request
    model = None if start is None else model_of(start, view)
    found: dict[str, Any] = {"gen_ai.request.model": model, "gen_ai.provider.name": call.provider}
    if view is None:
        return found
    api: dict[str, Any] = view.api_specific or {}
    params: dict[str, Any] = view.params or {}
    stop = params.get("stop")
    found |= {
        "gen_ai.request.temperature": params.get("temperature"),
        "gen_ai.request.top_p": params.get("top_p"),
        "gen_ai.request.max_tokens": params.get("max_tokens") or view.max_output_tokens,
        "gen_ai.request.stop_sequences": tuple(stop) if stop else None,
    }
    found |= {name: api[key] for key, name in _REQUEST_KEYS.items() if isinstance(api.get(key), (int, float))}
    if view.instructions:
        found["gen_ai.system_instructions"] = json_text(_parts(view.instructions))
    found["gen_ai.input.messages"] = json_text([_message(message) for message in view.messages])
    if view.tools:
        found["gen_ai.tool.definitions"] = json_text([_definition(tool) for tool in view.tools])
    return found


def _definition(tool: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", **tool["function"]} if tool["type"] == "function" else tool


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """A message of the view as the conventions have it."""
    message = shown(message)
    role = message["role"]
    if role == "tool":
        part = {"type": "tool_call_response", "id": message["tool_call_id"], "response": message["content"]}
        return {"role": "tool", "parts": [part]}
    if role == "tool_result":
        part = {"type": "tool_call_response", "id": message["call_id"], "response": message["output"]}
        return {"role": "tool", "parts": [part]}
    if role == "tool_call":
        return {"role": "assistant", "parts": [_call(message["call_id"], message["name"], message["arguments"])]}
    if role == "provider_native":
        return {"role": "assistant", "parts": [{"type": message["kind"], "content": message["value"]}]}
    parts = _parts(message.get("content"))
    parts += [
        _call(call["id"], call["function"]["name"], _decoded(call["function"]["arguments"]))
        for call in message.get("tool_calls") or ()
    ]
    name = {"name": message["name"]} if message.get("name") else {}
    return {"role": role, "parts": parts, **name}


_SPEAKERS = ("system", "developer", "user", "assistant", "tool")


def shown(message: dict[str, Any]) -> dict[str, Any]:
    """A message that the view keeps whole (`provider_native`), as far as it is one of a chat with some keys more.

    Dumps of SDKs have such keys (`refusal: null`, `annotations: []`): the view must keep them, a reader need not see
    them. What else is kept whole is returned as it is.
    """
    value = message.get("value") if message["role"] == "provider_native" else None
    if not isinstance(value, dict) or value.get("role") not in _SPEAKERS:
        return message
    content = value.get("content")
    found = {
        "role": value["role"],
        "content": content if isinstance(content, str) or content is None else json_text(content),
    }
    if value["role"] == "tool":
        return {**found, "tool_call_id": value.get("tool_call_id")}
    return {**found, "tool_calls": [_chat_call(call) for call in objects_of(value.get("tool_calls"))]}


def _chat_call(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else json_text(arguments)
    return {"id": call.get("id"), "function": {"name": function.get("name"), "arguments": text}}


def _parts(content: Any) -> list[dict[str, Any]]:
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "content": content}]
    return [_part(part) for part in content]


def _part(part: dict[str, Any]) -> dict[str, Any]:
    kind = part["type"]
    if kind == "text":
        return {"type": "text", "content": part["text"]}
    if kind == "image_url":
        return {"type": "uri", "modality": "image", "uri": part["image_url"]["url"]}
    if kind == "tool_use":
        return _call(part["id"], part["name"], part["input"])
    if kind == "tool_result":
        return {"type": "tool_call_response", "id": part["tool_use_id"], "response": part["content"]}
    return part


def _call(id_: Any, name: Any, arguments: Any) -> dict[str, Any]:
    return {"type": "tool_call", "id": id_, "name": name, "arguments": arguments}


def _decoded(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def _response(call: LlmCall) -> dict[str, Any]:
    view = call.response
    if view is None:
        return {}
    usage = view.usage or {}
    answers: list[dict[str, Any]] = [_first_answer(view), *(view.alternatives or ())]
    reasons = tuple(str(_reason(answer)) for answer in answers if answer.get("finish_reason"))
    return {
        "gen_ai.response.id": view.id,
        "gen_ai.response.model": view.model,
        "gen_ai.response.finish_reasons": reasons or None,
        "gen_ai.output.messages": json_text([_answer(answer) for answer in answers]),
        "gen_ai.usage.input_tokens": usage.get("prompt_tokens"),
        "gen_ai.usage.output_tokens": usage.get("completion_tokens"),
        "gen_ai.usage.cache_read.input_tokens": usage.get("cache_read_tokens"),
        "gen_ai.usage.cache_creation.input_tokens": usage.get("cache_write_tokens"),
        "gen_ai.usage.reasoning.output_tokens": usage.get("reasoning_tokens"),
        COST_USD: cost_usd(usage),
    }


def _first_answer(view: AnnotatedLLMResponse) -> dict[str, Any]:
    return {
        "message": view.message,
        "reasoning_content": view.reasoning_content,
        "refusal": view.refusal,
        "tool_calls": view.tool_calls,
        "finish_reason": view.finish_reason,
    }


def _reason(answer: dict[str, Any]) -> str | None:
    reason = answer.get("finish_reason")
    return _FINISH_REASONS.get(str(reason), reason)


def _answer(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer, or an alternative, as the conventions' output message: thoughts first, as they were thought."""
    thoughts, refusal = answer.get("reasoning_content"), answer.get("refusal")
    parts: list[dict[str, Any]] = [{"type": "reasoning", "content": thoughts}] if thoughts else []
    parts += _parts(answer.get("message"))
    parts += [{"type": "refusal", "content": refusal}] if refusal else []
    parts += [_call(call["id"], call["name"], call["arguments"]) for call in answer.get("tool_calls") or ()]
    return {"role": "assistant", "parts": parts, "finish_reason": _reason(answer) or "unknown"}
