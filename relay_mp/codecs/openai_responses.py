"""OpenAI's Responses, request and response.

Source: OpenAI's API reference, "Create a model response" and "The response object".
"""

import json
from typing import Any, ClassVar

from relay_mp.annotated import (
    REQUEST_APIS,
    AnnotatedLLMResponse,
    array,
    count,
    flag,
    json_copy,
    mapping,
    number,
    text,
)
from relay_mp.annotated import tool_choice as choice_shape
from relay_mp.codecs.parts import PartName
from relay_mp.codecs.request import RequestCodec, put
from relay_mp.codecs.response import ResponseReader, arguments_of, read_response
from relay_mp.errors import PayloadError
from relay_mp.types import Json, JsonObject

__all__ = ["OpenAIResponsesCodec"]

_ROLES = {"system", "developer", "user", "assistant"}
_FINISH_INCOMPLETE = {"max_output_tokens": "length", "content_filter": "content_filter"}
_FILES = {"input_image": PartName("image", "image", None), "input_file": PartName("file", "file", None)}


class OpenAIResponsesCodec(RequestCodec):
    """Responses. Stateless, any thread and process."""

    TITLE = "OpenAI Responses"
    codec_id = "openai_responses"
    PROVIDER = codec_id
    MESSAGES = "input"
    PARTS: ClassVar = {
        "input_text": PartName("text", "text", "text"),
        "output_text": PartName("text", "text", "text"),
        "refusal": PartName("refusal", "refusal", "refusal"),
        **_FILES,
    }
    FIELDS: ClassVar = {
        ("model",): (("model",), text),
        ("instructions",): (("instructions",), text),
        ("params", "temperature"): (("temperature",), number),
        ("params", "top_p"): (("top_p",), number),
        ("params", "max_tokens"): (("max_output_tokens",), count),
        ("max_output_tokens",): (("max_output_tokens",), count),
        ("max_tool_calls",): (("max_tool_calls",), count),
        ("store",): (("store",), flag),
        ("previous_response_id",): (("previous_response_id",), text),
        ("truncation",): (("truncation",), json_copy),
        ("reasoning",): (("reasoning",), mapping),
        ("include",): (("include",), array(json_copy)),
        ("user",): (("user",), text),
        ("metadata",): (("metadata",), mapping),
        ("service_tier",): (("service_tier",), text),
        ("parallel_tool_calls",): (("parallel_tool_calls",), flag),
        ("top_logprobs",): (("top_logprobs",), count),
        ("stream",): (("stream",), flag),
        **{("api_specific", key): ((key,), shape) for key, shape in REQUEST_APIS["openai_responses"].optional.items()},
    }

    # ------------------------------------------------------------------------------------------- messages

    def read_messages(self, content: JsonObject) -> list[JsonObject]:
        """The input items; a plain text is the user's one message."""
        given = content.get("input")
        if isinstance(given, str):
            return [{"role": "user", "content": given}]
        return [self._read_item(item) for item in self.items(content, "input")]

    def _read_item(self, item: JsonObject) -> JsonObject:
        kind = item.get("type", "message" if "role" in item else None)
        if kind == "function_call":
            return self._read_call(item)
        if kind == "function_call_output":
            rest = {key: value for key, value in item.items() if key != "type"}
            return {**rest, "role": "tool_result"}
        if kind == "message" and item.get("role") in _ROLES and not item.keys() - {"type", "role", "content"}:
            parts = item.get("content")
            read: Any = self.read_parts(parts) if isinstance(parts, list) else parts
            return {"role": item["role"], "content": read}
        return {"role": "provider_native", **self.native(kind, item)}

    def _read_call(self, item: JsonObject) -> JsonObject:
        arguments = item.get("arguments")
        if not isinstance(arguments, str):
            raise self.error(f"a function_call has the arguments {arguments!r:.80}; expected a str")
        rest = {key: value for key, value in item.items() if key != "type"}
        return {**rest, "role": "tool_call", "arguments": arguments_of(arguments)}

    def render_message(self, message: JsonObject) -> list[Any]:
        """A view's message as input items: one, or the text and each of the calls of an assistant."""
        role = message["role"]
        rest = {key: item for key, item in message.items() if key != "role"}
        if role == "provider_native":
            return [self.native_value(message)]
        if role == "tool_call":
            return [{"type": "function_call", **rest, "arguments": _arguments_text(rest["arguments"])}]
        if role == "tool_result":
            return [{"type": "function_call_output", **rest}]
        if role not in _ROLES:
            raise self.no_place(f"a message of role {role!r}", message)
        calls: Any = message.get("tool_calls") or []
        rendered = [] if calls and message.get("content") is None else [self._render_spoken(message)]
        return rendered + [_render_call(call) for call in calls]

    def _render_spoken(self, message: JsonObject) -> JsonObject:
        role = message["role"]
        content: Any = message.get("content")
        if content is None:
            raise self.no_place("a message without content", message)
        if not isinstance(content, str):
            spoken = "output_text" if role == "assistant" else "input_text"
            names = {spoken: PartName("text", "text", "text"), **_FILES}
            if role == "assistant":
                names["refusal"] = PartName("refusal", "refusal", "refusal")
            content = self.render_parts([_as_image(part) for part in content], names)
        return {"type": "message", "role": role, "content": content}

    def write_messages(self, content: JsonObject, before: list[JsonObject], after: list[JsonObject]) -> JsonObject:
        """A plain text becomes a list of items where it is no longer one message of the user's."""
        given = content.get("input")
        if not isinstance(given, str):
            return super().write_messages(content, before, after)
        if len(after) == 1 and after[0].keys() == {"role", "content"} and after[0]["role"] == "user":
            alone = after[0]["content"]
            if isinstance(alone, str):
                return put(content, ("input",), alone)
        items = put(content, ("input",), [{"type": "message", "role": "user", "content": given}])
        return super().write_messages(items, before, after)

    # ------------------------------------------------------------------------------------------- tools

    def read_tool(self, tool: JsonObject) -> JsonObject:
        """A function, or what else this API has."""
        if tool.get("type") != "function":
            return {"type": "provider_native", **self.native(tool.get("type"), tool)}
        nested = tool.get("function")
        if isinstance(nested, dict) and "name" not in tool:
            return tool
        return {"type": "function", "function": {key: item for key, item in tool.items() if key != "type"}}

    def render_tool(self, tool: JsonObject) -> Any:
        """A function as this API declares it: flat."""
        if tool["type"] == "provider_native":
            return self.native_value(tool)
        function: Any = tool["function"]
        return {**{key: item for key, item in tool.items() if key != "function"}, **function}

    def read_choice(self, choice: Any) -> Any:
        """A word, a function, or what else this API has."""
        named = choice
        if isinstance(choice, dict) and choice.get("type") == "function" and isinstance(choice.get("name"), str):
            named = {"type": "function", "function": {"name": choice["name"]}}
        try:
            return choice_shape(named, "tool_choice")
        except PayloadError:
            return self.native("tool_choice", choice)

    def render_choice(self, choice: Any) -> Any:
        """A view's choice as this API has it."""
        if isinstance(choice, str):
            return choice
        return self.native_value(choice) if "provider" in choice else {"type": "function", **choice["function"]}

    # ------------------------------------------------------------------------------------------ response

    def decode_response(self, response: Json) -> AnnotatedLLMResponse:
        """The view of a response; its texts are joined with line breaks.

        Args:
            response: a JSON object of this API.

        Raises:
            CodecError: it is none; the message says where.
        """
        return read_response(self.TITLE, response, _read_output)


def _arguments_text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, separators=(",", ":"))


def _render_call(call: Any) -> JsonObject:
    return {"type": "function_call", "call_id": call["id"], **call["function"]}


def _as_image(part: JsonObject) -> JsonObject:
    if part["type"] != "image_url":
        return part
    source: Any = part["image_url"]
    rest = {key: item for key, item in part.items() if key not in ("type", "image_url")}
    detail = {"detail": source["detail"]} if "detail" in source else {}
    return {"type": "image", "image": {"image_url": source["url"], **detail, **rest}}


def _read_output(reader: ResponseReader) -> dict[str, Any]:
    items = reader.get("output", list)
    objects = [item for item in items or [] if isinstance(item, dict)]
    texts = [part["text"] for item in objects for part in _text_parts(item)]
    status, details = reader.get("status", str), reader.get("incomplete_details")
    if not texts and isinstance(reader.rest().get("output_text"), str):
        texts = [reader.rest()["output_text"]]
    kept = ("input_tokens_details", "output_tokens_details")
    usage = reader.get("usage", dict) or {}
    return {
        "id": reader.get("id", str),
        "model": reader.get("model", str),
        "message": "\n".join(texts) if texts else None,
        "tool_calls": [_read_call(item) for item in objects if item.get("type") == "function_call"] or None,
        "finish_reason": _finish_reason(status, details),
        "usage": reader.usage(
            {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens", "total_tokens": "total_tokens"},
            cached=("input_tokens_details", "cached_tokens"),
        ),
        "api_specific": {
            "api": "openai_responses",
            "output_items": items,
            "status": status,
            "incomplete_details": details,
            **{key: usage.get(key) for key in kept},
            **{
                key: reader.get(key)
                for key in ("previous_response_id", "reasoning", "service_tier", "store", "truncation")
            },
        },
        "extra": reader.rest(),
    }


def _text_parts(item: dict[str, Any]) -> list[dict[str, Any]]:
    parts = item.get("content")
    if item.get("type") != "message" or not isinstance(parts, list):
        return []
    return [
        part
        for part in parts
        if isinstance(part, dict) and part.get("type") == "output_text" and isinstance(part.get("text"), str)
    ]


def _read_call(item: dict[str, Any]) -> dict[str, Any]:
    arguments = item.get("arguments")
    return {
        "id": item.get("call_id") or "",
        "name": item.get("name") or "",
        "arguments": arguments_of(arguments if isinstance(arguments, str) else None),
    }


def _finish_reason(status: str | None, details: Any) -> str | None:
    if status == "completed":
        return "complete"
    reason = details.get("reason") if isinstance(details, dict) else None
    if status == "incomplete" and isinstance(reason, str):
        return _FINISH_INCOMPLETE.get(reason, reason)
    return status
