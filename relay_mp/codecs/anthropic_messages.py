"""Anthropic's Messages, request and response.

Source: Anthropic's API reference, "Create a Message".
"""

from typing import Any, ClassVar

from relay_mp.annotated import (
    REQUEST_APIS,
    AnnotatedLLMRequest,
    Array,
    count,
    flag,
    mapping,
    number,
    text,
)
from relay_mp.codecs.lenient import joined, objects_of
from relay_mp.codecs.merge import merge, same
from relay_mp.codecs.parts import PartName
from relay_mp.codecs.request import NOT_GIVEN, RequestCodec, put
from relay_mp.codecs.response import ResponseCodec, ResponseReader, arguments_of, id_of, text_of, with_ids
from relay_mp.types import JsonObject

__all__ = ["AnthropicMessagesCodec"]

_ROLES = {"user", "assistant", "system"}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_CHOICES_BACK = {word: name for name, word in _CHOICES.items()}
_NO_PARALLEL = "disable_parallel_tool_use"

_FINISH = {"end_turn": "complete", "max_tokens": "length", "tool_use": "tool_use"}


class AnthropicMessagesCodec(RequestCodec, ResponseCodec):
    """Messages. Stateless, any thread and process."""

    TITLE = "Anthropic Messages"
    codec_id = "anthropic_messages"
    PROVIDER = codec_id
    PARTS: ClassVar = {
        "text": PartName("text", "text", "text"),
        "image": PartName("image", "image", None),
        "document": PartName("file", "file", None),
        "tool_use": PartName("tool_use", "input", "input", ("id", "name")),
        "tool_result": PartName("tool_result", "content", "content", ("tool_use_id",)),
    }
    FIELDS: ClassVar = {
        ("model",): (("model",), text),
        ("params", "max_tokens"): (("max_tokens",), count),
        ("params", "temperature"): (("temperature",), number),
        ("params", "top_p"): (("top_p",), number),
        ("params", "stop"): (("stop_sequences",), Array(text)),
        ("stream",): (("stream",), flag),
        ("metadata",): (("metadata",), mapping),
        ("service_tier",): (("service_tier",), text),
        **{
            ("api_specific", key): ((key,), shape)
            for key, shape in REQUEST_APIS["anthropic_messages"].optional.items()
            if key != "user_profile_id"  # in beta: it stays in `extra`, as with the peer
        },
    }

    def _known(self, content: JsonObject) -> set[str]:
        return super()._known(content) | {"system"}

    # ------------------------------------------------------------------------------------------- messages

    def read_messages(self, content: JsonObject) -> list[JsonObject]:
        """The messages; tool calls and results are parts of them here."""
        return self.fitting_messages(self.items(content, self.MESSAGES), self._read_message, "role")

    def _read_message(self, message: JsonObject) -> JsonObject:
        role = message.get("role")
        if not isinstance(role, str):
            raise self.error(f"a message has the role {role!r:.80}; expected a str")
        if role not in _ROLES or message.keys() - {"role", "content"}:
            return {"role": "provider_native", **self.native(role, message)}
        return {"role": role, "content": self._read_content(message.get("content"))}

    def _read_content(self, content: Any) -> Any:
        if not isinstance(content, (str, list)):
            raise self.error(f"content is {content!r:.80}; expected a str or a list")
        return content if isinstance(content, str) else self.read_parts(content)

    def render_message(self, message: JsonObject) -> list[Any]:
        """A view's message as Messages has it; an assistant's tool calls become blocks."""
        role = message["role"]
        if role == "provider_native":
            return [self.native_value(message)]
        if role not in _ROLES:
            raise self.no_place(f"a message of role {role!r}", message)
        content: Any = message.get("content")
        calls: Any = message.get("tool_calls") or []
        if not calls and isinstance(content, str):
            return [{"role": role, "content": content}]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else self.render_parts(content or [])
        return [{"role": role, "content": blocks + [self._render_call(call) for call in calls]}]

    def _render_call(self, call: Any) -> JsonObject:
        arguments = arguments_of(call["function"]["arguments"])
        return {"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": arguments}

    def read_more(self, content: JsonObject) -> dict[str, Any]:
        """The system prompt, and whether one turn may call several tools."""
        found: dict[str, Any] = {}
        if isinstance(content.get("system"), (str, list)):
            found["instructions"] = self._read_content(content["system"])
        choice = content.get("tool_choice")
        if isinstance(choice, dict) and isinstance(choice.get(_NO_PARALLEL), bool):
            found["parallel_tool_calls"] = not choice[_NO_PARALLEL]
        return found

    def _write_field(self, content: JsonObject, path: tuple[str, ...], item: Any) -> JsonObject:
        if path == ("parallel_tool_calls",):
            return content  # it is written with the choice
        if path != ("instructions",):
            return super()._write_field(content, path, item)
        if item is NOT_GIVEN:
            return put(content, ("system",), item)
        new = item if isinstance(item, str) else self.render_parts(item)
        old = content.get("system")
        rendered = self.render_parts(self.read_parts(old)) if isinstance(old, list) else old
        return put(content, ("system",), merge(old, rendered, new))

    # ------------------------------------------------------------------------------------------- tools

    def read_tool(self, tool: JsonObject) -> JsonObject:
        """A tool of the caller's, or what else this API has."""
        if "type" in tool or not isinstance(tool.get("name"), str) or "input_schema" not in tool:
            return {"type": "provider_native", **self.native(tool.get("type"), tool)}
        function = {"name": tool["name"], "description": tool.get("description"), "parameters": tool["input_schema"]}
        rest = {key: item for key, item in tool.items() if key not in ("name", "description", "input_schema")}
        return {**rest, "type": "function", "function": function}

    def render_tool(self, tool: JsonObject) -> Any:
        """A function as this API declares it."""
        if tool["type"] == "provider_native":
            return self.native_value(tool)
        function = dict(tool["function"])  # type: ignore[arg-type]
        if "parameters" in function:
            function["input_schema"] = function.pop("parameters")
        return {**{key: item for key, item in tool.items() if key not in ("type", "function")}, **function}

    def read_choice(self, choice: Any) -> Any:
        """A word, a function, or what else this API has."""
        kind = choice.get("type") if isinstance(choice, dict) else None
        if isinstance(kind, str) and kind in _CHOICES:
            return _CHOICES[kind]
        if kind == "tool" and isinstance(choice.get("name"), str):
            return {"type": "function", "function": {"name": choice["name"]}}
        return self.native(kind, choice)

    def render_choice(self, choice: Any) -> Any:
        """A view's choice as this API has it."""
        if isinstance(choice, str):
            return {"type": _CHOICES_BACK[choice]}
        named = {"type": "tool", "name": choice["function"]["name"]} if "function" in choice else None
        return named or self.native_value(choice)

    def write_choice(self, content: JsonObject, before: AnnotatedLLMRequest, after: AnnotatedLLMRequest) -> JsonObject:
        """The choice of a tool carries too whether one turn may call several."""
        old, new = self._choice(before), self._choice(after)
        if same(old, new):
            return content
        return put(content, ("tool_choice",), NOT_GIVEN if new is None else merge(content.get("tool_choice"), old, new))

    def _choice(self, view: AnnotatedLLMRequest) -> Any:
        choice = view.tool_choice
        parallel = view.parallel_tool_calls
        if choice is None and parallel is None:
            return None
        rendered = self.render_choice("auto" if choice is None else choice)
        whole = parallel is None or not isinstance(rendered, dict)
        return rendered if whole else {**rendered, _NO_PARALLEL: not parallel}

    # ------------------------------------------------------------------------------------------ response

    def read_response(self, reader: ResponseReader) -> dict[str, Any]:
        """See `read_answer`; the blocks are kept as they are."""
        return {
            **self.read_answer(reader.value),
            "id": reader.text("id"),
            "api_specific": {
                "api": self.codec_id,
                "content_blocks": reader.get("content", list),
                "object_type": reader.get("type"),
                **{key: reader.get(key) for key in _KEPT},
            },
            "extra": reader.rest("model", "usage"),
        }

    def read_answer(self, response: dict[str, Any]) -> dict[str, Any]:
        """Texts of the blocks are joined with line breaks, thoughts too."""
        blocks, reason = objects_of(response.get("content")), response.get("stop_reason")
        return {
            "model": text_of(response.get("model")),
            "message": joined(_texts(blocks, "text")),
            "reasoning_content": joined(_texts(blocks, "thinking")),
            "tool_calls": with_ids([_read_call(block) for block in blocks if _is_call(block)]) or None,
            "finish_reason": _FINISH.get(reason, reason) if isinstance(reason, str) else None,
            "usage": self.usage(response, response.get("usage")),
        }


_KEPT = ("container", "role", "service_tier", "stop_reason", "stop_sequence")


def _texts(blocks: list[dict[str, Any]], kind: str) -> list[str]:
    """What blocks of one type say; the key is called as the type is."""
    return [block[kind] for block in blocks if block.get("type") == kind and isinstance(block.get(kind), str)]


def _is_call(block: dict[str, Any]) -> bool:
    return block.get("type") == "tool_use" and isinstance(block.get("name"), str)


def _read_call(block: dict[str, Any]) -> dict[str, Any]:
    arguments = arguments_of(block.get("input"))
    return {"id": id_of(block), "name": block["name"], "arguments": arguments}
