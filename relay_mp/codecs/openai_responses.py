"""OpenAI's Responses, request and response.

Source: OpenAI's API reference, "Create a model response" and "The response object".
"""

import json
from typing import Any, ClassVar

from relay_mp.annotated import (
    REQUEST_APIS,
    Array,
    count,
    flag,
    json_copy,
    mapping,
    number,
    text,
)
from relay_mp.annotated import tool_choice as choice_shape
from relay_mp.codecs.lenient import joined, objects_of
from relay_mp.codecs.parts import PartName
from relay_mp.codecs.request import RequestCodec, put
from relay_mp.codecs.response import ResponseCodec, ResponseReader, arguments_of, id_of, text_of, with_ids
from relay_mp.errors import PayloadError
from relay_mp.types import JsonObject

__all__ = ["OpenAIResponsesCodec"]

_ROLES = {"system", "developer", "user", "assistant"}
_FINISH_INCOMPLETE = {"max_output_tokens": "length", "content_filter": "content_filter"}
_FILES = {"input_image": PartName("image", "image", None), "input_file": PartName("file", "file", None)}


class OpenAIResponsesCodec(RequestCodec, ResponseCodec):
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
        ("include",): (("include",), Array(json_copy)),
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
        return self.fitting_messages(self.items(content, "input"), self._read_item, "type")

    def _read_item(self, item: JsonObject) -> JsonObject:
        kind = item.get("type", "message" if "role" in item else None)
        if kind == "function_call":
            return self._read_call(item)
        if kind == "function_call_output":
            rest = {key: value for key, value in item.items() if key != "type"}
            return {**rest, "role": "tool_result"}
        if kind == "message" and str(item.get("role")) in _ROLES and not item.keys() - {"type", "role", "content"}:
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

    def read_response(self, reader: ResponseReader) -> dict[str, Any]:
        """See `read_answer`; the output's items are kept as they are."""
        usage = reader.get("usage", dict) or {}
        answer = self.read_answer(reader.value)
        return {
            **answer,
            "id": reader.text("id"),
            "api_specific": {
                "api": self.codec_id,
                "output_items": reader.get("output", list),
                **{key: usage.get(key) for key in ("input_tokens_details", "output_tokens_details")},
                **{key: reader.get(key) for key in _KEPT},
            },
            "extra": reader.rest("model"),
        }

    def read_answer(self, response: dict[str, Any]) -> dict[str, Any]:
        """Texts of the output are joined with line breaks."""
        items = objects_of(response.get("output"))
        texts = [text for item in items for text in _texts(item, "message", "content", "text", "output_text")]
        if not texts and isinstance(response.get("output_text"), str):
            texts = [response["output_text"]]
        refusals = [text for item in items for text in _texts(item, "message", "content", "refusal", "refusal")]
        return {
            "model": text_of(response.get("model")),
            "message": joined(texts),
            "reasoning_content": _reasoning(items),
            "refusal": joined(refusals),
            "tool_calls": with_ids([_read_call(item) for item in items if str(item.get("type")) in _CALLS]) or None,
            "finish_reason": _finish_reason(response.get("status"), response.get("incomplete_details")),
            "usage": self.usage(response, response.get("usage")),
        }


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


_CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
_KEPT = (
    "incomplete_details", "previous_response_id", "reasoning", "service_tier", "status", "store", "truncation",
)  # fmt: skip


def _texts(item: dict[str, Any], item_type: str, listed: str, key: str, part_type: str) -> list[str]:
    """The texts of an item's parts of one type."""
    if item.get("type") != item_type:
        return []
    parts = [part for part in objects_of(item.get(listed)) if part.get("type") == part_type]
    return [part[key] for part in parts if isinstance(part.get(key), str)]


def _reasoning(items: list[dict[str, Any]]) -> str | None:
    """The thoughts themselves, which open models show, else their summary."""
    for listed, part_type in (("content", "reasoning_text"), ("summary", "summary_text")):
        texts = [text for item in items for text in _texts(item, "reasoning", listed, "text", part_type)]
        if texts:
            return joined(texts)
    return None


def _read_call(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": id_of(item, "call_id") or id_of(item),
        "name": text_of(item.get("name")) or "",
        "arguments": arguments_of(item.get(_CALLS[item["type"]])),
    }


def _finish_reason(status: Any, details: Any) -> str | None:
    if status == "completed":
        return "complete"
    reason = details.get("reason") if isinstance(details, dict) else None
    if status == "incomplete" and isinstance(reason, str):
        return _FINISH_INCOMPLETE.get(reason, reason)
    return status if isinstance(status, str) else None
