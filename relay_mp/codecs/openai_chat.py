"""OpenAI's Chat Completions, request and response, and what others who speak it add to it.

Source: OpenAI's API reference, "Create chat completion" and "The chat completion object";
those of Mistral, DeepSeek, OpenRouter, vLLM and Ollama for the thoughts in a message.
"""

from typing import Any, ClassVar

from relay_mp.annotated import (
    REQUEST_APIS,
    count,
    flag,
    mapping,
    number,
    text,
)
from relay_mp.annotated import tool_choice as choice_shape
from relay_mp.codecs.lenient import joined, objects_of, of_kind
from relay_mp.codecs.parts import PartName
from relay_mp.codecs.request import NOT_GIVEN, Path, RequestCodec, Table, put
from relay_mp.codecs.response import ResponseCodec, ResponseReader, arguments_of, id_of, text_of, with_ids
from relay_mp.errors import PayloadError
from relay_mp.types import JsonObject

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


class OpenAIChatCodec(RequestCodec, ResponseCodec):
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
        return self.fitting_messages(self.items(content, self.MESSAGES), self._read_message, "role")

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

    def read_response(self, reader: ResponseReader) -> dict[str, Any]:
        """See `read_answer`; log probabilities are those of the first choice."""
        choices = reader.objects("choices")
        return {
            **self.read_answer(reader.value),
            "id": reader.text("id"),
            "api_specific": {
                "api": self.codec_id,
                "logprobs": choices[0].get("logprobs") if choices else None,
                "system_fingerprint": reader.get("system_fingerprint"),
                "service_tier": reader.get("service_tier"),
            },
            "extra": reader.rest("model", "usage"),
        }

    def read_answer(self, response: dict[str, Any]) -> dict[str, Any]:
        """The first choice is the answer, the others are its alternatives."""
        choices = objects_of(response.get("choices"))
        answer = _read_choice(choices[0] if choices else {})
        answer["model"] = text_of(response.get("model"))
        answer["usage"] = self.usage(response, response.get("usage"))
        if len(choices) > 1:
            answer["alternatives"] = [{"index": each.get("index"), **_read_choice(each)} for each in choices[1:]]
        return answer


def _read_choice(choice: dict[str, Any]) -> dict[str, Any]:
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    reason, said = choice.get("finish_reason"), message.get("content")
    content, thoughts = (said, []) if isinstance(said, str) else _read_content(said)
    return {
        "message": of_kind(str, choice.get("text")) if content is None else content,
        "reasoning_content": _reasoning(message) or joined(thoughts),
        "refusal": message.get("refusal"),
        "tool_calls": _read_calls(message),
        "finish_reason": _FINISH.get(reason, reason) if isinstance(reason, str) else None,
    }


def _read_content(content: Any) -> tuple[Any, list[str]]:
    """A message's content, and the thoughts in it. Parts that are all text are one text, as Mistral means them."""
    if not isinstance(content, list):
        return of_kind(str, content), []
    parts = objects_of(content)
    thoughts = [text for part in parts if part.get("type") == "thinking" for text in _thinking(part.get("thinking"))]
    shown = [part for part in parts if part.get("type") != "thinking"]
    texts = [part["text"] for part in shown if part.get("type") == "text" and isinstance(part.get("text"), str)]
    if len(texts) == len(shown):
        return joined(texts, ""), thoughts
    return [_CODEC.read_parts([part])[0] for part in shown], thoughts


def _thinking(value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else [part.get("text") for part in objects_of(value)]
    return [text for text in texts if isinstance(text, str)]


def _reasoning(message: dict[str, Any]) -> str | None:
    """DeepSeek, vLLM and Mistral call it `reasoning_content`, Ollama, OpenRouter and newer vLLM `reasoning`."""
    for key in ("reasoning_content", "reasoning"):
        found = message.get(key)
        if found and isinstance(found, str):
            return found
    texts = [detail.get("text") or detail.get("summary") for detail in objects_of(message.get("reasoning_details"))]
    return joined([text for text in texts if isinstance(text, str)], "")


def _read_calls(message: dict[str, Any]) -> list[dict[str, Any]] | None:
    calls, legacy = message.get("tool_calls"), message.get("function_call")
    if not isinstance(calls, list) and not isinstance(legacy, dict):
        return None
    found = [_read_call(call) for call in objects_of(calls)]
    if not found and isinstance(legacy, dict):
        found = [_read_call({"function": legacy})]
    return with_ids([call for call in found if call is not None])


def _read_call(call: dict[str, Any]) -> dict[str, Any] | None:
    """A function's call, or a custom tool's, whose input is a text; None for what has no name."""
    function = call.get("function")
    if not isinstance(function, dict):
        custom = of_kind(dict, call.get("custom")) or {}
        function = {"name": custom.get("name"), "arguments": custom.get("input")}
    if not isinstance(function.get("name"), str):
        return None
    arguments = arguments_of(function.get("arguments"))
    return {"id": id_of(call), "name": function["name"], "arguments": arguments}


_CODEC = OpenAIChatCodec()
