"""Google's Gemini generateContent, request and response.

Source: Gemini API reference, "models.generateContent", `Content`, `Part`, `Tool`, `GenerationConfig`.

One content may hold what the view has as several messages: each answer of a function is a message of
its own there. Thoughts (`thought: true`) are not in the view; they stay where they are.
"""

import json
from collections.abc import Iterator
from typing import Any, ClassVar, TypeAlias

from relay_mp.annotated import AnnotatedLLMResponse, array, count, number, text
from relay_mp.codecs.merge import align, merge, same
from relay_mp.codecs.request import NOT_GIVEN, RequestCodec, kind_of_message, kind_of_tool, put
from relay_mp.codecs.response import ResponseReader, arguments_of, read_response
from relay_mp.types import Json, JsonObject

__all__ = ["GeminiGenerateContentCodec"]

_PROVIDER = "gemini"
_DATA = ("inlineData", "fileData", "executableCode", "codeExecutionResult")
_ROLES = {"user": "user", "model": "assistant"}
_ROLES_BACK = {"user": "user", "assistant": "model"}
_FILTERED = {
    "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY",
}  # fmt: skip
_FINISH = {"STOP": "complete", "MAX_TOKENS": "length", **dict.fromkeys(_FILTERED, "content_filter")}


_Source: TypeAlias = tuple[int, int, JsonObject]
"""The content that a message is in, its part there if it is one, and the message."""


def _native(kind: str, value: Any) -> JsonObject:
    return {"type": "provider_native", "provider": _PROVIDER, "kind": kind, "value": value}


def _is_hidden(part: Any) -> bool:
    return part.get("thought") is True


class GeminiGenerateContentCodec(RequestCodec):
    """generateContent. Stateless, any thread and process.

    `toolConfig` stays in `extra`: what it says is more than a choice of a tool.
    """

    TITLE = "Gemini generateContent"
    codec_id = "gemini_generate_content"
    PROVIDER = _PROVIDER
    MESSAGES = "contents"
    TOOL_CHOICE = ""
    FIELDS: ClassVar = {
        ("model",): (("model",), text),
        ("params", "temperature"): (("generationConfig", "temperature"), number),
        ("params", "top_p"): (("generationConfig", "topP"), number),
        ("params", "max_tokens"): (("generationConfig", "maxOutputTokens"), count),
        ("params", "stop"): (("generationConfig", "stopSequences"), array(text)),
    }

    def read_api(self, content: JsonObject) -> JsonObject | None:
        """The view has no tagged fields for this API."""
        return None

    def _known(self, content: JsonObject) -> set[str]:
        return super()._known(content) | {"systemInstruction"}

    # ------------------------------------------------------------------------------------------- messages

    def read_messages(self, content: JsonObject) -> list[JsonObject]:
        """The system instruction, then the contents."""
        settings = content.get("generationConfig", {})
        if not isinstance(settings, dict):
            raise self.error(f"generationConfig is {settings!r:.80}; expected an object")
        return [message for _, _, message in self._sources(content)]

    def _sources(self, content: JsonObject) -> Iterator[_Source]:
        """Each message with the content it is in, -1 for the system instruction, and its part there if it is one."""
        system = content.get("systemInstruction")
        if system is not None:
            texts = [part.get("text") for part in self._parts(system, "systemInstruction")]
            if not all(isinstance(each, str) for each in texts):
                raise self.error("systemInstruction has a part that is no text; expected texts only")
            if texts:
                yield -1, 0, {"role": "system", "content": "\n".join(texts)}
        for index, item in enumerate(self.items(content, "contents")):
            for place, message in self._read_content(item):
                yield index, place, message

    def _parts(self, content: Any, where: str) -> list[Any]:
        parts = content.get("parts") if isinstance(content, dict) else None
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            raise self.error(f"{where} is {content!r:.80}; expected an object with a list of `parts`")
        return parts

    def _read_content(self, content: JsonObject) -> Iterator[tuple[int, JsonObject]]:
        role = content.get("role") or "user"
        if not isinstance(role, str) or role not in _ROLES:
            raise self.error(f"a content has the role {role!r:.80}; expected 'user' or 'model'")
        parts = self._parts(content, "a content")
        answers = [part["functionResponse"] for part in parts if isinstance(part.get("functionResponse"), dict)]
        if not answers:
            yield 0, self._read_spoken(_ROLES[role], parts)
            return
        if len(answers) < len(parts):
            raise self.error("a content has functionResponse beside other parts; expected one or the other")
        for place, answer in enumerate(answers):
            if not isinstance(answer.get("name"), str) or "response" not in answer:
                raise self.error(f"a functionResponse is {answer!r:.80}; expected `name` and `response`")
            output = json.dumps(answer["response"], separators=(",", ":"), ensure_ascii=False, sort_keys=True)
            yield place, {"role": "tool", "content": output, "tool_call_id": answer.get("id") or answer["name"]}

    def _read_spoken(self, role: str, parts: list[Any]) -> JsonObject:
        shown = [part for part in parts if not _is_hidden(part) and "functionCall" not in part]
        calls: list[Any] = [self._read_call(part["functionCall"]) for part in parts if "functionCall" in part]
        content = _read_parts(shown, self.error)
        if calls and not shown:
            return {"role": role, "tool_calls": calls}
        return {"role": role, "content": content, **({"tool_calls": calls} if calls else {})}

    def _read_call(self, call: Any) -> JsonObject:
        name = call.get("name") if isinstance(call, dict) else None
        if not isinstance(name, str) or not name:
            raise self.error(f"a functionCall is {call!r:.80}; expected an object with a `name`")
        arguments = call.get("args", {})
        if not isinstance(arguments, dict):
            raise self.error(f"functionCall.args is {arguments!r:.80}; expected an object")
        encoded = json.dumps(arguments, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
        return {
            "id": call.get("id") or name,
            "type": "function",
            "function": {"name": name, "arguments": encoded},
        }

    def render_message(self, message: JsonObject) -> list[Any]:
        """A view's message as one content."""
        return [self._render(message, {}, [])]

    def _render(self, message: JsonObject, names: dict[str, str], hidden: list[Any]) -> JsonObject:
        """A view's message as a content.

        Args:
            message: the view's.
            names: the functions by the ids of their calls, for answers, which name them.
            hidden: parts of the original that the view does not show.
        """
        role = message["role"]
        if role == "tool":
            return {"role": "user", "parts": [self._render_answer(message, names)]}
        if role not in _ROLES_BACK or "name" in message:
            raise self.no_place(f"a message of role {role!r}{' with a name' if 'name' in message else ''}", message)
        content: Any = message.get("content")
        calls: Any = message.get("tool_calls") or []
        parts: list[Any] = [{"text": content}] if isinstance(content, str) and (content or not calls) else []
        if isinstance(content, list):
            parts = [self._render_shown(part) for part in content]
        rendered = [self._render_call(call) for call in calls]
        return {"role": _ROLES_BACK[str(role)], "parts": [*hidden, *parts, *rendered]}

    def _render_shown(self, part: Any) -> Any:
        if part["type"] == "provider_native":
            return self.native_value(part)
        if part["type"] != "text":
            raise self.no_place(f"a content part of type {part['type']!r}", part)
        return {key: item for key, item in part.items() if key != "type"}

    def _render_call(self, call: Any) -> JsonObject:
        name = call["function"]["name"]
        arguments = arguments_of(call["function"]["arguments"])
        if not isinstance(arguments, dict):
            raise self.no_place("a call whose arguments are no object", call)
        identity = {} if call["id"] == name else {"id": call["id"]}
        return {"functionCall": {"name": name, "args": arguments, **identity}}

    def _render_answer(self, message: JsonObject, names: dict[str, str]) -> JsonObject:
        if not isinstance(message["content"], str):
            raise self.no_place("a tool's answer in parts", message)
        output = arguments_of(message["content"])
        response = output if isinstance(output, dict) else {"output": message["content"]}
        call = str(message["tool_call_id"])
        name = names.get(call, call)
        identity = {} if call == name else {"id": call}
        return {"functionResponse": {"name": name, "response": response, **identity}}

    def write_messages(self, content: JsonObject, before: list[JsonObject], after: list[JsonObject]) -> JsonObject:
        """Contents are put together anew; one whose messages are all there and unchanged stays as it is."""
        sources = list(self._sources(content))
        names = _call_names(before) | _call_names(after) | self._answer_names(content)
        contents: list[Any] = []
        open_at: int | None = None
        content = self._write_system(content, before, after)
        for message, link in zip(after, align(before, after, kind_of_message), strict=True):
            if message["role"] == "system":
                continue
            at = None if link is None else sources[link][0]
            part_of_last = at is not None and at == open_at and message["role"] == "tool"
            merged = self._merge_content(content, message, None if link is None else sources[link], names)
            if part_of_last:
                contents[-1] = {**contents[-1], "parts": contents[-1]["parts"] + merged["parts"]}
            else:
                contents.append(merged)
            open_at = at
        return put(content, ("contents",), contents)

    def _merge_content(
        self, content: JsonObject, message: JsonObject, source: _Source | None, names: dict[str, str]
    ) -> Any:
        if source is None:
            return self._render(message, names, [])
        index, place, before = source
        original = self.items(content, "contents")[index]
        if message["role"] == "tool":
            original = {**original, "parts": [original["parts"][place]]}
        if same(before, message):
            return original
        hidden = [part for part in original["parts"] if _is_hidden(part)]
        old, new = self._render(before, names, hidden), self._render(message, names, hidden)
        return merge(original, old, new)

    def _answer_names(self, content: JsonObject) -> dict[str, str]:
        answers = (
            part["functionResponse"]
            for item in self.items(content, "contents")
            for part in item["parts"]
            if isinstance(part.get("functionResponse"), dict)
        )
        return {answer.get("id") or answer["name"]: answer["name"] for answer in answers}

    def _write_system(self, content: JsonObject, before: list[JsonObject], after: list[JsonObject]) -> JsonObject:
        """The API has one instruction: several system messages are joined, as its parts are when they are read."""
        texts, were = _system_texts(after), _system_texts(before)
        if same(texts, were):
            return content
        if not all(isinstance(each, str) for each in texts) or any("name" in each for each in after):
            raise self.no_place("a system message in parts, or a message with a name", after)
        if not texts:
            return put(content, ("systemInstruction",), NOT_GIVEN)
        said = "\n".join(str(each) for each in texts)
        old: Any = content.get("systemInstruction")
        parts = [] if old is None else old["parts"]
        if parts and were == [said]:
            return content
        if len(parts) > 1:
            raise self.no_place("a change of a systemInstruction of several parts", said)
        earlier: dict[str, Any] = {"parts": [{"text": each} for each in were]}
        return put(content, ("systemInstruction",), merge(old, earlier, {"parts": [{"text": said}]}))

    # ------------------------------------------------------------------------------------------- tools

    def read_tools(self, content: JsonObject) -> list[JsonObject] | None:
        """Each declared function, and each other tool, is one of the view's."""
        if "tools" not in content:
            return None
        return [tool for entry in self.items(content, "tools") for tool in self._read_entry(entry)] or None

    def _read_entry(self, entry: JsonObject) -> list[JsonObject]:
        functions = entry.get("functionDeclarations")
        if functions is not None and not isinstance(functions, list):
            raise self.error(f"functionDeclarations is {functions!r:.80}; expected a list")
        rest = {key: item for key, item in entry.items() if key != "functionDeclarations"}
        found = [self.read_tool(function) for function in functions or []]
        if rest or functions is None:
            found.append(_native(min(rest, default="unknown"), rest))
        return found

    def read_tool(self, tool: Any) -> JsonObject:
        """One declared function."""
        return {"type": "function", "function": tool}

    def render_tool(self, tool: JsonObject) -> Any:
        """A function as it is declared, or another tool's entry."""
        if tool["type"] == "provider_native":
            return self.native_value(tool)
        function: Any = tool["function"]
        if "strict" in function:
            raise self.no_place("a function that is `strict`", tool)
        return function

    def write_tools(self, content: JsonObject, before: list[JsonObject], after: list[JsonObject] | None) -> JsonObject:
        """New functions go to the first entry that declares any; an entry that is empty goes."""
        if not after:
            return put(content, ("tools",), NOT_GIVEN)
        entries: list[Any] = [dict(entry) for entry in content.get("tools") or []]  # type: ignore[union-attr,arg-type]
        sources = [
            (index, entry["functionDeclarations"][place] if tool["type"] == "function" else None)
            for index, entry in enumerate(entries)
            for place, tool in enumerate(self._read_entry(entry))
        ]
        rebuilt: list[JsonObject] = [{} for _ in entries]
        added: list[tuple[JsonObject, Any]] = []
        for tool, link in zip(after, align(before, after, kind_of_tool), strict=True):
            rendered = self.render_tool(tool)
            if link is None:
                added.append((tool, rendered))
                continue
            index, original = sources[link]
            if original is None:
                rebuilt[index].update(rendered)
            else:
                merged = merge(original, self.render_tool(before[link]), rendered)
                rebuilt[index].setdefault("functionDeclarations", []).append(merged)  # type: ignore[union-attr]
        for tool, rendered in added:
            _add_tool(rebuilt, tool, rendered)
        return put(content, ("tools",), [entry for entry in rebuilt if entry])

    def read_choice(self, choice: Any) -> Any:
        """Never asked for: see the class."""
        raise NotImplementedError

    def render_choice(self, choice: Any) -> Any:
        """The choice of a tool is in `extra`, as `toolConfig`."""
        raise self.no_place("tool_choice (set `toolConfig` in `extra`)", choice)

    # ------------------------------------------------------------------------------------------ response

    def decode_response(self, response: Json) -> AnnotatedLLMResponse:
        """The view of a response: of its first candidate, without thoughts.

        Args:
            response: a JSON object of this API.

        Raises:
            CodecError: it is none; the message says where.
        """
        return read_response(self.TITLE, response, self._read_response)

    def _read_response(self, reader: ResponseReader) -> dict[str, Any]:
        candidates = reader.objects(reader.get("candidates", list), "candidates")
        candidate = ResponseReader(candidates[0] if candidates else {}, "candidates[0].")
        content = ResponseReader(candidate.get("content", dict) or {}, "candidates[0].content.")
        parts = content.objects(content.get("parts", list), "parts")
        calls = [self._read_call(part["functionCall"]) for part in parts if "functionCall" in part]
        shown = [part for part in parts if "functionCall" not in part and not _is_hidden(part)]
        usage = reader.get("usageMetadata", dict)
        api = {
            "thoughts_tokens": None if usage is None else usage.get("thoughtsTokenCount"),
            "safety_ratings": candidate.get("safetyRatings"),
            "grounding_metadata": candidate.get("groundingMetadata"),
            "citation_metadata": candidate.get("citationMetadata"),
        }
        reason = _finish_reason(candidate.get("finishReason", str), bool(calls), reader.rest().get("promptFeedback"))
        api = {key: item for key, item in {**api, **candidate.rest()}.items() if item is not None}
        return {
            "id": reader.get("responseId", str),
            "model": reader.get("modelVersion", str),
            "message": _read_parts(shown, self.error) if shown else None,
            "tool_calls": [_as_response_call(call) for call in calls] or None,
            "finish_reason": reason,
            "usage": None if usage is None else _read_usage(usage),
            "api_specific": {"api": "gemini_generate_content", **api} if api else None,
            "extra": reader.rest(),
        }


def _read_parts(parts: list[Any], error: Any) -> Any:
    """Texts alone become one text; else the parts."""
    for part in parts:
        if "text" in part and not isinstance(part["text"], str):
            raise error(f"a part's text is {part['text']!r:.80}; expected a str")
    if all(part.keys() == {"text"} for part in parts):
        return "\n".join(part["text"] for part in parts)
    return [
        {"type": "text", **part}
        if "text" in part
        else _native(next((key for key in _DATA if key in part), "unknown"), part)
        for part in parts
    ]


def _system_texts(messages: list[JsonObject]) -> list[Any]:
    return [message["content"] for message in messages if message["role"] == "system"]


def _call_names(messages: list[JsonObject]) -> dict[str, str]:
    calls: list[Any] = [call for message in messages for call in message.get("tool_calls") or []]  # type: ignore[union-attr]
    return {call["id"]: call["function"]["name"] for call in calls}


def _add_tool(entries: list[JsonObject], tool: JsonObject, rendered: Any) -> None:
    if tool["type"] != "function":
        entries.append(rendered)
        return
    for entry in entries:
        functions: Any = entry.get("functionDeclarations")
        if functions is not None:
            functions.append(rendered)
            return
    entries.append({"functionDeclarations": [rendered]})


def _as_response_call(call: Any) -> JsonObject:
    function = call["function"]
    return {"id": call["id"], "name": function["name"], "arguments": arguments_of(function["arguments"])}


def _finish_reason(reason: str | None, calls: bool, feedback: Any) -> str | None:
    if calls and reason in (None, "STOP"):
        return "tool_use"
    if reason is None:
        blocked = isinstance(feedback, dict) and feedback.get("blockReason") is not None
        return "content_filter" if blocked else None
    return None if reason == "FINISH_REASON_UNSPECIFIED" else _FINISH.get(reason, reason)


def _read_usage(usage: dict[str, Any]) -> dict[str, Any]:
    total = usage.get("totalTokenCount")
    parts = [usage.get(key) for key in ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")]
    known = [part for part in parts if isinstance(part, int)]
    return {
        "prompt_tokens": usage.get("promptTokenCount"),
        "completion_tokens": usage.get("candidatesTokenCount"),
        "total_tokens": sum(known) if total is None and known else total,
        "cache_read_tokens": usage.get("cachedContentTokenCount"),
    }
