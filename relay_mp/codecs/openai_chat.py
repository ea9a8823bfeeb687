"""OpenAI's Chat Completions, request and response.

Source: OpenAI's API reference, "Create chat completion" and "The chat completion object".
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from relay_mp.annotated import (
    REQUEST_APIS,
    AnnotatedLLMResponse,
    count,
    flag,
    mapping,
    number,
    text,
)
from relay_mp.annotated import tool_choice as choice_shape
from relay_mp.codecs.parts import PartName
from relay_mp.codecs.request import NOT_GIVEN, Path, RequestCodec, Table, put
from relay_mp.codecs.response import ResponseReader, arguments_of, read_response
from relay_mp.errors import PayloadError
from relay_mp.types import Json, JsonObject

__all__ = ["OpenAIChatCodec"]

_MAX_TOKENS = ("params", "max_tokens")

# The keys of a message that the view has words for; one with any other key is kept whole.
_ROLES = {
    "system": {"role", "content", "name"},
    "developer": {"role", "content", "name"},
    "user": {"role", "content", "name"},
    "assistant": {"role", "content", "name", "tool_calls"},
    "tool": {"role", "content", "tool_call_id"},
    "function": {"role", "content", "name"},
}
_PARTS = {
    "text": PartName("text", "text", "text"),
    "image_url": PartName("image_url", "image_url", "image_url"),
    "input_audio": PartName("audio", "audio", "input_audio"),
    "file": PartName("file", "file", "file"),
    "refusal": PartName("refusal", "refusal", "refusal"),
}

_FINISH = {
    "stop": "complete",
    "length": "length",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "content_filter",
}


def stop_shape(value: Any, where: str) -> list[str]:
    """One stop sequence, or several."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise PayloadError(f"{where} is {value!r:.80}; expected a str or a list of str")
    return [text(item, where) for item in value]


class OpenAIChatCodec(RequestCodec):
    """Chat Completions. Stateless, any thread and process."""

    TITLE = "OpenAI Chat"
    codec_id = "openai_chat"
    PROVIDER = codec_id
    PARTS: ClassVar = _PARTS
    FIELDS: ClassVar = {
        ("model",): (("model",), text),
        ("params", "temperature"): (("temperature",), number),
        ("params", "top_p"): (("top_p",), number),
        ("params", "stop"): (("stop",), stop_shape),
        ("store",): (("store",), flag),
        ("user",): (("user",), text),
        ("metadata",): (("metadata",), mapping),
        ("service_tier",): (("service_tier",), text),
        ("parallel_tool_calls",): (("parallel_tool_calls",), flag),
        ("top_logprobs",): (("top_logprobs",), count),
        ("stream",): (("stream",), flag),
        **{("api_specific", key): ((key,), shape) for key, shape in REQUEST_APIS["openai_chat"].optional.items()},
    }

    def table(self, content: JsonObject) -> Table:
        """The limit has an old and a new name; the new one counts where it is given."""
        name = "max_tokens" if content.get("max_completion_tokens") is None else "max_completion_tokens"
        return {**self.FIELDS, _MAX_TOKENS: ((name,), count)}

    def _known(self, content: JsonObject) -> set[str]:
        return super()._known(content) | {"max_tokens", "max_completion_tokens"}

    def _write_field(self, content: JsonObject, path: Path, item: Any) -> JsonObject:
        content = super()._write_field(content, path, item)
        if path == _MAX_TOKENS and item is NOT_GIVEN:
            content = put(put(content, ("max_tokens",), item), ("max_completion_tokens",), item)
        return content

    # ------------------------------------------------------------------------------------------- messages

    def read_messages(self, content: JsonObject) -> list[JsonObject]:
        """The messages; what this API has and the view has not is kept whole, as `provider_native`."""
        return [self._read_message(message) for message in self.items(content, self.MESSAGES)]

    def _read_message(self, message: JsonObject) -> JsonObject:
        role = message.get("role")
        if not isinstance(role, str):
            raise self.error(f"a message has the role {role!r:.80}; expected a str")
        if message.keys() - _ROLES.get(role, set()) or not self._plain_calls(message.get("tool_calls")):
            return {"role": "provider_native", **self.native(role, message)}
        read: dict[str, Any] = {key: item for key, item in message.items() if item is not None}
        if isinstance(read.get("content"), list):
            read["content"] = self.read_parts(read["content"])
        return {"content": None, **read} if role == "function" else read

    def _plain_calls(self, calls: Any) -> bool:
        return not isinstance(calls, list) or all(
            isinstance(call, dict)
            and call.keys() == {"id", "type", "function"}
            and call["type"] == "function"
            and isinstance(call["function"], dict)
            and call["function"].keys() == {"name", "arguments"}
            for call in calls
        )

    def render_message(self, message: JsonObject) -> list[Any]:
        """A view's message as Chat Completions has it."""
        role = message["role"]
        if role == "provider_native":
            return [self.native_value(message)]
        if role not in _ROLES:
            raise self.no_place(f"a message of role {role!r}", message)
        rendered: dict[str, Any] = dict(message)
        if isinstance(rendered.get("content"), list):
            rendered["content"] = self.render_parts(message["content"])
        return [rendered]

    # ------------------------------------------------------------------------------------------- tools

    def read_tool(self, tool: JsonObject) -> JsonObject:
        """A function, or what else this API has."""
        if tool.get("type") != "function":
            return {"type": "provider_native", **self.native(tool.get("type"), tool)}
        return tool

    def render_tool(self, tool: JsonObject) -> Any:
        """The view's functions are this API's."""
        return self.native_value(tool) if tool["type"] == "provider_native" else tool

    def read_choice(self, choice: Any) -> Any:
        """A word, a function, or what else this API has."""
        try:
            return choice_shape(choice, "tool_choice")
        except PayloadError:
            return self.native("tool_choice", choice)

    def render_choice(self, choice: Any) -> Any:
        """The view's choices are this API's."""
        return self.native_value(choice) if isinstance(choice, dict) and "provider" in choice else choice

    # ------------------------------------------------------------------------------------------ response

    def decode_response(self, response: Json) -> AnnotatedLLMResponse:
        """The view of a chat completion: of its first choice.

        Args:
            response: a JSON object of this API.

        Raises:
            CodecError: it is none; the message says where.
        """
        return read_response(self.TITLE, response, _read_completion)


def _read_completion(reader: ResponseReader) -> dict[str, Any]:
    choices = reader.objects(reader.get("choices", list), "choices")
    choice = ResponseReader(choices[0], "choices[0].") if choices else ResponseReader({}, "")
    message = ResponseReader(choice.get("message", dict) or {}, "choices[0].message.")
    usage = reader.usage(
        {"prompt_tokens": "prompt_tokens", "completion_tokens": "completion_tokens", "total_tokens": "total_tokens"},
        cached=("prompt_tokens_details", "cached_tokens"),
    )
    reason = choice.get("finish_reason", str)
    return {
        "id": reader.get("id", str),
        "model": reader.get("model", str),
        "message": message.get("content", str),
        "tool_calls": _read_calls(message),
        "finish_reason": None if reason is None else _FINISH.get(reason, reason),
        "usage": usage,
        "api_specific": {
            "api": "openai_chat",
            "logprobs": choice.get("logprobs"),
            "system_fingerprint": reader.get("system_fingerprint", str),
            "service_tier": reader.get("service_tier", str),
        },
        "extra": reader.rest("choices"),
    }


def _read_calls(message: ResponseReader) -> list[dict[str, Any]] | None:
    calls = message.get("tool_calls", list)
    if calls is None:
        return None
    found = []
    for call in message.objects(calls, "tool_calls"):
        function = call.get("function")
        if isinstance(function, Mapping) and function.get("name") is not None:
            arguments = ResponseReader(function, "function.").get("arguments", str)
            found.append({"id": call.get("id") or "", "name": function["name"], "arguments": arguments_of(arguments)})
    return found
