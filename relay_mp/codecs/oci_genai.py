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
from typing import Any, ClassVar

from relay_mp.annotated import Array, count, number, text
from relay_mp.codecs.lenient import joined, objects_of, of_kind
from relay_mp.codecs.merge import merge_items
from relay_mp.codecs.request import NOT_GIVEN, Path, RequestCodec, Table, kind_of_message, put
from relay_mp.codecs.response import ResponseCodec, ResponseReader, arguments_of, id_of, with_ids
from relay_mp.codecs.spelling import camel
from relay_mp.codecs.streams import INCOMPLETE
from relay_mp.types import JsonObject

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


class OCIGenAIChatCodec(RequestCodec, ResponseCodec):
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
        listed: Table = {**self.FIELDS, ("params", "stop"): ((stop,), Array(text))}
        return {place: ((*path, *raw), shape) for place, (raw, shape) in listed.items()}

    def _format(self, content: JsonObject) -> str:
        return _format_of(self.body(content))

    def _known(self, content: JsonObject) -> set[str]:
        own = {"message", "chatHistory", "preambleOverride"} if self._format(content) == _COHERE else {"messages"}
        return super()._known(content) | own | {"apiFormat"}

    def read_api(self, content: JsonObject) -> JsonObject | None:
        """The details around the chat request, where there are such."""
        details = content if self.body_path(content) else {}
        return {
            "api": self.codec_id,
            "api_format": self._format(content),
            "compartment_id": of_kind(str, details.get("compartmentId")),
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
        """A list in the body; missing is empty, for a request may be of nothing but its details."""
        return [] if self.body(content).get(key) is None else super().items(content, key)

    def read_messages(self, content: JsonObject) -> list[JsonObject]:
        """The messages, whatever the format."""
        if self._format(content) != _COHERE:
            return self.fitting_messages(self.items(content, "messages"), self._read_message, "role")
        body = self.body(content)
        preamble, last = body.get("preambleOverride"), body.get("message")
        system: list[JsonObject] = [{"role": "system", "content": preamble}] if isinstance(preamble, str) else []
        asked: list[JsonObject] = [{"role": "user", "content": last}] if isinstance(last, str) else []
        turns = self.items(content, "chatHistory") if "chatHistory" in body else []
        return [*system, *self.fitting_messages(turns, self._read_turn, "role"), *asked]

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
            read: list[Any] | None = None if calls is None else [_read_call(call) for call in objects_of(calls)]
            return {"role": role, "content": content, "tool_calls": read}
        if role not in _ROLES_BACK or content is None or (role == "tool" and not isinstance(call_id, str)):
            return {"role": "provider_native", **self.native(role, message)}
        return {"role": role, "content": content, **({"tool_call_id": call_id} if role == "tool" else {})}

    def _read_content(self, content: Any) -> Any:
        """Texts alone become one text; else the parts."""
        if isinstance(content, str):
            return content
        parts = objects_of(content)
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
            raise self.no_place("a COHERE request whose last message is not a text of the user's", last)
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
        return list(zip(turns, self.fitting_messages(turns, self._read_turn, "role"), strict=True))

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

    def read_response(self, reader: ResponseReader) -> dict[str, Any]:
        """See `read_answer`; what else the answer's message and choice have is kept."""
        response, inner = _normal(reader.value)
        around, body = ResponseReader(response), ResponseReader(inner)
        read, extra = self._read_body(body)
        is_around = inner is not response
        more = around.rest("modelId", "modelVersion", "chatResponse") if is_around else {}
        version = around.get("modelVersion", str) if is_around else None
        return {
            **read,
            "model": around.get("modelId", str) if is_around else None,
            "usage": self.usage(response, body.get("usage")),
            "api_specific": {"api": self.codec_id, "api_format": _format_of(inner), "model_version": version},
            "extra": {key: item for key, item in {**more, **body.rest(), **extra}.items() if key != INCOMPLETE},
        }

    def read_answer(self, response: dict[str, Any]) -> dict[str, Any]:
        """The first choice is the answer, the others are its alternatives."""
        response, inner = _normal(response)
        read, _ = self._read_body(ResponseReader(inner))
        model = of_kind(str, response.get("modelId")) if inner is not response else None
        return {**read, "model": model, "usage": self.usage(response, inner.get("usage"))}

    def _read_body(self, body: ResponseReader) -> tuple[dict[str, Any], dict[str, Any]]:
        """The answer, and what of it goes to `extra`."""
        body.get("apiFormat")
        named = _format_of(body.value)
        if named == _COHERE:
            return self._read_cohere(body), {}
        read = self._read_choices(body, named == _V2)
        return read, read.pop("extra")

    def _read_cohere(self, body: ResponseReader) -> dict[str, Any]:
        reason = body.get("finishReason", str)
        return {
            "message": body.text("text"),
            "tool_calls": _response_calls(body.get("toolCalls")),
            "finish_reason": None if reason is None else _FINISH.get(reason, reason),
        }

    def _read_choices(self, body: ResponseReader, alone: bool) -> dict[str, Any]:
        """All choices, or, in COHEREV2, the only one."""
        first, *others = ({},) if alone else body.objects("choices") or ({},)
        choice = body if alone else ResponseReader(first)
        message = choice.inner("message")
        answer = self._read_choice(choice, message)
        rest_of_message, rest_of_choice = message.rest("role"), {} if alone else choice.rest("index")
        alternatives = [ResponseReader(each) for each in others]
        return {
            **({"id": body.text("id")} if alone else {}),
            **answer,
            "alternatives": [
                {"index": each.get("index"), **self._read_choice(each, each.inner("message"))} for each in alternatives
            ]
            or None,
            "extra": {
                **({"message": rest_of_message} if rest_of_message else {}),
                **({"choice": rest_of_choice} if rest_of_choice else {}),
            },
        }

    def _read_choice(self, choice: ResponseReader, message: ResponseReader) -> dict[str, Any]:
        reason, refusal = choice.get("finishReason", str), message.rest().get("refusal")
        content = message.get("content")
        parts = objects_of(content)
        thoughts = [part["thinking"] for part in parts if part.get("type") == "THINKING" and "thinking" in part]
        shown = content if not thoughts else [part for part in parts if part.get("type") != "THINKING"]
        return {
            "message": self._read_content(shown),
            "reasoning_content": message.get("reasoningContent", str)
            or joined([text for text in thoughts if isinstance(text, str)]),
            "refusal": of_kind(str, refusal),
            "tool_calls": _response_calls(message.get("toolCalls")),
            "finish_reason": None if reason is None else _FINISH.get(reason, reason),
        }


def _normal(response: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A result in the API's spelling, and the chat response in it, or it alone."""
    if isinstance(response.get("chat_response"), dict):
        response = camel(response)
    inner = response.get("chatResponse")
    return response, inner if isinstance(inner, dict) else response


def _format_of(body: dict[str, Any]) -> str:
    named = body.get("apiFormat")
    return named if isinstance(named, str) else "GENERIC"


def _joined_text(parts: list[Any]) -> str | None:
    if not all(part.get("type") == "TEXT" for part in parts):
        return None
    return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))


def _read_call(call: Any) -> JsonObject:
    function = call["function"] if isinstance(call.get("function"), dict) else call
    arguments = function.get("arguments")
    encoded = arguments if isinstance(arguments, str) else json.dumps(arguments, separators=(",", ":"))
    return {
        "id": of_kind(str, call.get("id")) or "",
        "type": "function",
        "function": {"name": of_kind(str, function.get("name")) or "", "arguments": encoded},
    }


def _render_call(call: Any, nested: bool) -> JsonObject:
    if nested:
        return {"id": call["id"], "type": "FUNCTION", "function": call["function"]}
    return {"id": call["id"], "type": "FUNCTION", **call["function"]}


def _response_calls(calls: Any) -> list[dict[str, Any]] | None:
    found = [_response_call(call) for call in objects_of(calls)]
    return with_ids([call for call in found if call is not None]) or None


def _response_call(call: Any) -> dict[str, Any] | None:
    function = call["function"] if isinstance(call.get("function"), dict) else call
    name = function.get("name")
    if not isinstance(name, str):
        return None
    arguments = function.get("parameters", function.get("arguments"))
    if isinstance(arguments, str):
        arguments = arguments_of(arguments)
    return {"id": id_of(call), "name": name, "arguments": arguments}
