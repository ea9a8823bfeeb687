"""Oracle's OCI Generative AI chat: `ChatDetails` and `ChatResult`, in all their formats.

Source: OCI API reference, Generative AI Inference, `ChatDetails`, `GenericChatRequest`,
`CohereChatRequest`, `CohereChatRequestV2`.

    ChatDetails                        one format a request, in its `apiFormat`:
      compartmentId, servingMode         GENERIC, COHEREV2   `messages`
      chatRequest ──────────────────►    COHERE              `preambleOverride`, `chatHistory`, `message`

A `chatRequest` alone is accepted as well, and a `chatResponse` alone. Tools and the choice of one are not
alike in the formats; they are kept whole.
"""

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from relay_mp.annotated import AnnotatedLLMResponse, array, count, number, text
from relay_mp.codecs.merge import merge_items
from relay_mp.codecs.request import NOT_GIVEN, Path, RequestCodec, Table, kind_of_message, put
from relay_mp.codecs.response import ResponseReader, arguments_of, read_response
from relay_mp.types import Json, JsonObject

__all__ = ["OCIGenAIChatCodec"]

_COHERE = "COHERE"
_V2 = "COHEREV2"
_ROLES = {"SYSTEM": "system", "USER": "user", "ASSISTANT": "assistant", "TOOL": "tool"}
_ROLES_BACK = {name: role for role, name in _ROLES.items()}
_TURNS = {"SYSTEM": "system", "USER": "user", "CHATBOT": "assistant"}
_TURNS_BACK = {name: role for role, name in _TURNS.items()}
_FINISH = {
    **{"stop": "complete", "length": "length", "tool_calls": "tool_use", "content_filter": "content_filter"},
    "max_tokens": "length",
    **{"COMPLETE": "complete", "MAX_TOKENS": "length", "TOOL_CALL": "tool_use"},
}


class OCIGenAIChatCodec(RequestCodec):
    """OCI Generative AI chat. Stateless, any thread and process."""

    TITLE = "OCI GenAI"
    codec_id = "oci_genai"
    PROVIDER = codec_id
    TOOL_CHOICE = "toolChoice"
    FIELDS: ClassVar = {
        ("params", "temperature"): (("temperature",), number),
        ("params", "top_p"): (("topP",), number),
        ("params", "max_tokens"): (("maxTokens",), count),
    }

    def body_path(self, content: JsonObject) -> Path:
        """The chat request is inside of its details, where there are such."""
        return ("chatRequest",) if isinstance(content.get("chatRequest"), dict) else ()

    def body(self, content: JsonObject) -> JsonObject:
        """The chat request."""
        found = content.get("chatRequest")
        return found if isinstance(found, dict) else content

    def table(self, content: JsonObject) -> Table:
        """The formats call the stop sequences differently."""
        path = self.body_path(content)
        stop = "stopSequences" if self._format(content) == _COHERE else "stop"
        listed = {**self.FIELDS, ("params", "stop"): ((stop,), array(text))}
        return {place: ((*path, *raw), shape) for place, (raw, shape) in listed.items()}

    def _format(self, content: JsonObject) -> str:
        named = self.body(content).get("apiFormat")
        return named if isinstance(named, str) else "GENERIC"

    def _known(self, content: JsonObject) -> set[str]:
        own = {"message", "chatHistory", "preambleOverride"} if self._format(content) == _COHERE else {"messages"}
        return super()._known(content) | own | {"apiFormat"}

    def read_api(self, content: JsonObject) -> JsonObject | None:
        """The details around the chat request, where there are such."""
        details = content if self.body_path(content) else {}
        return {
            "api": self.codec_id,
            "api_format": self._format(content),
            "compartment_id": _of(str, details.get("compartmentId")),
            "serving_mode": details.get("servingMode"),
        }

    def read_more(self, content: JsonObject) -> dict[str, Any]:
        """The model is named by the serving mode: on demand by its id, dedicated by its endpoint."""
        mode = content.get("servingMode") if self.body_path(content) else None
        names = [mode.get("modelId"), mode.get("endpointId")] if isinstance(mode, dict) else []
        return {"model": next((name for name in names if isinstance(name, str)), None)}

    def _write_field(self, content: JsonObject, path: Path, item: Any) -> JsonObject:
        # Those of `api_specific` say how the request is addressed; a view without them changes nothing.
        if path[0] == "api_specific" and item is NOT_GIVEN:
            return content
        return super()._write_field(content, path, item)

    # ------------------------------------------------------------------------------------------- messages

    def items(self, content: JsonObject, key: str) -> list[Any]:
        """A list in the body; missing is empty. Tools may be of any form."""
        found = self.body(content).get(key)
        if key == "tools" and isinstance(found, list):
            return found
        return [] if found is None and key != "chatHistory" else super().items(content, key)

    def read_messages(self, content: JsonObject) -> list[JsonObject]:
        """The messages, whatever the format."""
        if self._format(content) != _COHERE:
            return [self._read_message(message) for message in self.items(content, "messages")]
        body = self.body(content)
        preamble, last = body.get("preambleOverride"), body.get("message")
        system: list[JsonObject] = [{"role": "system", "content": preamble}] if isinstance(preamble, str) else []
        asked: list[JsonObject] = [{"role": "user", "content": last}] if isinstance(last, str) else []
        turns = self.items(content, "chatHistory") if "chatHistory" in body else []
        return [*system, *(self._read_turn(turn) for turn in turns), *asked]

    def _read_turn(self, turn: JsonObject) -> JsonObject:
        role, said = turn.get("role"), turn.get("message")
        if isinstance(role, str) and role in _TURNS and isinstance(said, str):
            return {"role": _TURNS[role], "content": said}
        return {"role": "provider_native", **self.native(role, turn)}

    def _read_message(self, message: JsonObject) -> JsonObject:
        spelt = message.get("role")
        role = _ROLES.get(spelt.upper(), spelt.lower()) if isinstance(spelt, str) else "user"
        content = self._read_content(message.get("content"))
        call_id = message.get("toolCallId")
        if role == "assistant":
            calls = message.get("toolCalls")
            read: list[Any] | None = None if calls is None else [_read_call(call) for call in _objects(calls)]
            return {"role": role, "content": content, "tool_calls": read}
        if role not in _ROLES_BACK or content is None or (role == "tool" and not isinstance(call_id, str)):
            return {"role": "provider_native", **self.native(role, message)}
        return {"role": role, "content": content, **({"tool_call_id": call_id} if role == "tool" else {})}

    def _read_content(self, content: Any) -> Any:
        """Texts alone become one text; else the parts."""
        if isinstance(content, str):
            return content
        parts = _objects(content)
        if not parts:
            return None
        joined = _joined_text(parts)
        return [self._read_oci_part(part) for part in parts] if joined is None else joined

    def _read_oci_part(self, part: JsonObject) -> JsonObject:
        if part.get("type") != "TEXT":
            return {"type": "provider_native", **self.native(part.get("type"), part)}
        rest = {key: item for key, item in part.items() if key not in ("type", "text")}
        return {**rest, "type": "text", "text": part.get("text") or ""}

    def render_message(self, message: JsonObject) -> list[Any]:
        """A view's message in the GENERIC format."""
        return [self._render(message, nested=False)]

    def _render(self, message: JsonObject, nested: bool) -> Any:
        role = message["role"]
        if role == "provider_native":
            return self.native_value(message)
        if role not in _ROLES_BACK:
            raise self.no_place(f"a message of role {role!r}", message)
        rendered: JsonObject = {"role": _ROLES_BACK[str(role)], "content": self._render_content(message.get("content"))}
        calls: Any = message.get("tool_calls")
        if calls is not None:
            rendered["toolCalls"] = [_render_call(call, nested) for call in calls]
        if role == "tool":
            rendered["toolCallId"] = message["tool_call_id"]
        return rendered

    def _render_content(self, content: Any) -> list[Any]:
        if content is None:
            return []
        if isinstance(content, str):
            return [{"type": "TEXT", "text": content}]
        return [self._render_oci_part(part) for part in content]

    def _render_oci_part(self, part: Any) -> Any:
        if part["type"] == "provider_native":
            return self.native_value(part)
        if part["type"] != "text":
            raise self.no_place(f"a content part of type {part['type']!r}", part)
        return {**part, "type": "TEXT"}

    def write_messages(self, content: JsonObject, before: list[JsonObject], after: list[JsonObject]) -> JsonObject:
        """The messages as they are now, whatever the format."""
        named = self._format(content)
        if named == _COHERE:
            return self._write_turns(content, after)
        original = self.items(content, "messages")
        merged = merge_items(original, before, after, kind_of_message, lambda each: [self._render(each, named == _V2)])
        return put(content, (*self.body_path(content), "messages"), merged)

    def _write_turns(self, content: JsonObject, after: list[JsonObject]) -> JsonObject:
        path = self.body_path(content)
        *earlier, last = after or [{"role": None}]
        if last["role"] != "user" or not isinstance(last.get("content"), str):
            raise self.no_place("a COHERE request whose last message is no text of the user's", last)
        content = put(content, (*path, "message"), last["content"])
        preamble = NOT_GIVEN
        if earlier and earlier[0]["role"] == "system" and "preambleOverride" in self.body(content):
            preamble = self._text(earlier.pop(0))
        if preamble is not NOT_GIVEN or isinstance(self.body(content).get("preambleOverride"), str):
            content = put(content, (*path, "preambleOverride"), preamble)
        history = self._history(content)
        turns, spoken = [turn for turn, _ in history], [said for _, said in history]
        turns = merge_items(turns, spoken, earlier, kind_of_message, self._turn)
        return put(content, (*path, "chatHistory"), turns) if turns or history else content

    def _history(self, content: JsonObject) -> list[tuple[Any, JsonObject]]:
        """The turns with what they were read as."""
        turns = self.items(content, "chatHistory") if "chatHistory" in self.body(content) else []
        return [(turn, self._read_turn(turn)) for turn in turns]

    def _turn(self, message: JsonObject) -> list[Any]:
        if message["role"] == "provider_native":
            return [self.native_value(message)]
        if message["role"] not in _TURNS_BACK or message.get("tool_calls"):
            raise self.no_place("a turn with tool calls, or of a tool, in the COHERE format", message)
        return [{"role": _TURNS_BACK[str(message["role"])], "message": self._text(message)}]

    def _text(self, message: JsonObject) -> str:
        content = message.get("content")
        if not isinstance(content, str):
            raise self.no_place("content in parts, in the COHERE format", message)
        return content

    # ------------------------------------------------------------------------------------------- tools

    def read_tools(self, content: JsonObject) -> list[JsonObject] | None:
        """The tools, kept whole."""
        return None if self.body(content).get("tools") is None else super().read_tools(content)

    def read_tool(self, tool: Any) -> JsonObject:
        """A tool, kept whole."""
        kind = tool.get("type") if isinstance(tool, dict) else None
        return {"type": "provider_native", **self.native(kind, tool)}

    def render_tool(self, tool: JsonObject) -> Any:
        """A function as the GENERIC format declares it."""
        if tool["type"] == "provider_native":
            return self.native_value(tool)
        function: Any = tool["function"]
        return {"type": "FUNCTION", **{key: item for key, item in function.items() if key != "strict"}}

    def read_choice(self, choice: Any) -> Any:
        """The choice of a tool, kept whole."""
        if choice is None:
            return None
        return self.native(choice.get("type") if isinstance(choice, dict) else None, choice)

    def render_choice(self, choice: Any) -> Any:
        """Only what was kept whole."""
        if isinstance(choice, str) or "provider" not in choice:
            raise self.no_place("tool_choice (other than native to this API)", choice)
        return self.native_value(choice)

    # ------------------------------------------------------------------------------------------ response

    def decode_response(self, response: Json) -> AnnotatedLLMResponse:
        """The view of a chat result: of its first choice. Values that are not of their type are left out.

        Args:
            response: a JSON object of this API.

        Raises:
            CodecError: it is none; the message says where.
        """
        return read_response(self.TITLE, response, self._read_result)

    def _read_result(self, reader: ResponseReader) -> dict[str, Any]:
        inner = reader.rest().get("chatResponse")
        body = ResponseReader(inner) if isinstance(inner, dict) else reader
        around = {}
        if body is not reader:
            around = {key: _of(str, reader.get(key)) for key in ("modelId", "modelVersion")}
            reader.get("chatResponse")
        named = _of(str, body.get("apiFormat")) or "GENERIC"
        read = self._read_cohere(body) if named == _COHERE else self._read_choice_of(body, named == _V2)
        usage = body.get("usage")
        extra = {**reader.rest(), **body.rest(), **read.pop("extra", {})}
        return {
            **read,
            "model": around.get("modelId"),
            "usage": _read_usage(usage),
            "api_specific": {"api": self.codec_id, "api_format": named, "model_version": around.get("modelVersion")},
            "extra": extra,
        }

    def _read_cohere(self, body: ResponseReader) -> dict[str, Any]:
        reason = _of(str, body.get("finishReason"))
        calls = [_response_call(call, index) for index, call in enumerate(_objects(body.get("toolCalls")))]
        return {
            "message": _of(str, body.get("text")),
            "tool_calls": [call for call in calls if call] or None,
            "finish_reason": None if reason is None else _FINISH.get(reason, reason),
        }

    def _read_choice_of(self, body: ResponseReader, alone: bool) -> dict[str, Any]:
        """The first choice, or, in COHEREV2, the only one."""
        choices = [] if alone else _objects(body.get("choices"))
        choice = body if alone else ResponseReader(choices[0] if choices else {})
        message = ResponseReader(_of(dict, choice.get("message")) or {})
        reason = _of(str, choice.get("finishReason"))
        calls = [_response_call(call, index) for index, call in enumerate(_objects(message.get("toolCalls")))]
        content = message.get("content")
        rest_of_message = message.rest("role")
        rest_of_choice = {} if alone else choice.rest("index")
        identity = {"id": _of(str, body.get("id"))} if alone else {}
        return {
            **identity,
            "message": self._read_content(content),
            "tool_calls": [call for call in calls if call] or None,
            "finish_reason": None if reason is None else _FINISH.get(reason, reason),
            "extra": {
                **({"message": rest_of_message} if rest_of_message else {}),
                **({"choice": rest_of_choice} if rest_of_choice else {}),
            },
        }


def _of(kind: type, value: Any) -> Any:
    return value if isinstance(value, kind) else None


def _objects(value: Any) -> list[Any]:
    """The objects of a list; none where there is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _joined_text(parts: list[Any]) -> str | None:
    if not all(part.get("type") == "TEXT" for part in parts):
        return None
    return "".join(part.get("text") or "" for part in parts)


def _read_call(call: Any) -> JsonObject:
    function = call["function"] if isinstance(call.get("function"), dict) else call
    arguments = function.get("arguments")
    encoded = arguments if isinstance(arguments, str) else json.dumps(arguments, separators=(",", ":"))
    return {
        "id": _of(str, call.get("id")) or "",
        "type": "function",
        "function": {"name": _of(str, function.get("name")) or "", "arguments": encoded},
    }


def _render_call(call: Any, nested: bool) -> JsonObject:
    if nested:
        return {"id": call["id"], "type": "FUNCTION", "function": call["function"]}
    return {"id": call["id"], "type": "FUNCTION", **call["function"]}


def _response_call(call: Any, index: int) -> dict[str, Any] | None:
    function = call["function"] if isinstance(call.get("function"), dict) else call
    name = function.get("name")
    if not isinstance(name, str):
        return None
    arguments = function.get("parameters", function.get("arguments"))
    if isinstance(arguments, str):
        arguments = arguments_of(arguments)
    return {"id": _of(str, call.get("id")) or f"call_{index}", "name": name, "arguments": arguments}


def _read_usage(usage: Any) -> dict[str, Any] | None:
    if not isinstance(usage, Mapping):
        return None
    details = usage.get("promptTokensDetails")
    found = {
        "prompt_tokens": usage.get("promptTokens"),
        "completion_tokens": usage.get("completionTokens"),
        "total_tokens": usage.get("totalTokens"),
        "cache_read_tokens": details.get("cachedTokens") if isinstance(details, dict) else None,
    }
    counts = {name: value for name, value in found.items() if type(value) is int and value >= 0}
    return counts or None
