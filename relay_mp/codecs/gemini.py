"""Google's Gemini generateContent, request and response.

Source: Gemini API reference, "models.generateContent", `Content`, `Part`, `Tool`, `GenerationConfig`.

One content may hold what the view has as several messages: each answer of a function is a message of
its own there. Thoughts (`thought: true`) of a request are not in the view; they stay where they are.

Calls of functions may come without ids. Then the function's name is the call's id, and further calls of the same
function in one content are told apart as `name#2`, `name#3`; so are their answers, which come in the same order.
Both spellings are read, see `spelling`; a request in the SDK's is written in the API's, if it is changed at all.
"""

import json
from collections.abc import Iterator
from typing import Any, ClassVar, TypeAlias

from relay_mp.annotated import MESSAGE, TOOL, Array, count, number, text
from relay_mp.codecs.lenient import joined, objects_of, of_kind
from relay_mp.codecs.merge import align, merge, same
from relay_mp.codecs.request import NOT_GIVEN, RequestCodec, kind_of_message, kind_of_tool, put
from relay_mp.codecs.response import ResponseCodec, ResponseReader, arguments_of, id_of, text_of
from relay_mp.codecs.spelling import camel
from relay_mp.codecs.streams import INCOMPLETE
from relay_mp.types import JsonObject

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


class GeminiGenerateContentCodec(RequestCodec, ResponseCodec):
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
        ("params", "stop"): (("generationConfig", "stopSequences"), Array(text)),
    }

    def normal(self, content: JsonObject) -> JsonObject:
        """The API's spelling; texts in place of contents, as the SDK takes them, are contents of the user's."""
        if _SNAKE_REQUEST & content.keys() or _is_snake(content.get("contents")):
            content = camel(content)
        given: Any = content.get("contents")
        if isinstance(given, (str, dict)):
            given = [given]
        if isinstance(given, list) and (
            given is not content["contents"] or any(isinstance(each, str) for each in given)
        ):
            content = {**content, "contents": [_as_content(each) if isinstance(each, str) else each for each in given]}
        system: Any = content.get("systemInstruction")
        return {**content, "systemInstruction": {"parts": [{"text": system}]}} if isinstance(system, str) else content

    def read_api(self, content: JsonObject) -> JsonObject | None:
        """The view has no tagged fields for this API."""
        return None

    def _known(self, content: JsonObject) -> set[str]:
        return super()._known(content) | {"systemInstruction"}

    # ------------------------------------------------------------------------------------------- messages

    def read_messages(self, content: JsonObject) -> list[JsonObject]:
        """The system instruction, then the contents."""
        return [message for _, _, message in self._sources(content)]

    def _sources(self, content: JsonObject) -> Iterator[_Source]:
        """Each message with the content it is in, -1 for the system instruction, and its part there if it is one."""
        texts = [part["text"] for part in _parts(content.get("systemInstruction")) if isinstance(part.get("text"), str)]
        if texts:
            yield -1, 0, {"role": "system", "content": "\n".join(texts)}
        for index, item in enumerate(self.items(content, "contents")):
            for place, message in self._read_content(item):
                yield index, place, message

    def _read_content(self, content: Any) -> Iterator[tuple[int, JsonObject]]:
        parts = content.get("parts") if isinstance(content, dict) else None
        answers: list[Any] = [part["functionResponse"] for part in _parts(content) if part.get("functionResponse")]
        if not answers or not isinstance(parts, list) or len(answers) < len(parts) or not all(map(_is_answer, answers)):
            yield 0, self.fitting(MESSAGE, self._read_one, content, "role")
            return
        ids = _distinct([answer.get("id") or answer["name"] for answer in answers])
        for place, (id_, answer) in enumerate(zip(ids, answers, strict=True)):
            output = json.dumps(answer["response"], separators=(",", ":"), ensure_ascii=False, sort_keys=True)
            yield place, {"role": "tool", "content": output, "tool_call_id": id_}

    def _read_one(self, content: JsonObject) -> JsonObject:
        """A content that is one message."""
        role = content.get("role") or "user"
        parts = content.get("parts")
        if not isinstance(role, str) or role not in _ROLES or not isinstance(parts, list):
            raise self.error(f"a content has the role {role!r:.80} and {type(parts).__name__} parts")
        if not all(isinstance(part, dict) and part.get("functionResponse") is None for part in parts):
            raise self.error("a content has functionResponse beside other parts, or parts that are not objects")
        return self._read_spoken(_ROLES[role], [_without_nulls(part) for part in parts])

    def _read_spoken(self, role: str, parts: list[Any]) -> JsonObject:
        shown = [part for part in parts if not _is_hidden(part) and "functionCall" not in part]
        calls: list[Any] = self._read_calls([part["functionCall"] for part in parts if "functionCall" in part])
        content = _read_parts(shown)
        if calls and not shown:
            return {"role": role, "tool_calls": calls}
        return {"role": role, "content": content, **({"tool_calls": calls} if calls else {})}

    def _read_calls(self, calls: list[Any]) -> list[JsonObject]:
        for call in calls:
            if not isinstance(call, dict) or not isinstance(call.get("name"), str) or not call["name"]:
                raise self.error(f"a functionCall is {call!r:.80}; expected an object with a `name`")
        ids = _distinct([call.get("id") or call["name"] for call in calls])
        return [
            {"id": id_, "type": "function", "function": {"name": call["name"], "arguments": _encoded(call.get("args"))}}
            for id_, call in zip(ids, calls, strict=True)
        ]

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
        if role == "provider_native":
            return self.native_value(message)  # type: ignore[no-any-return]
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
            raise self.no_place("a call whose arguments are not an object", call)
        identity = {} if _is_name(call["id"], name) else {"id": call["id"]}
        return {"functionCall": {"name": name, "args": arguments, **identity}}

    def _render_answer(self, message: JsonObject, names: dict[str, str]) -> JsonObject:
        if not isinstance(message["content"], str):
            raise self.no_place("a tool's answer in parts", message)
        output = arguments_of(message["content"])
        response = output if isinstance(output, dict) else {"output": message["content"]}
        call = str(message["tool_call_id"])
        name = names.get(call, call)
        identity = {} if _is_name(call, name) else {"id": call}
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
        hidden = [part for part in _parts(original) if _is_hidden(part)]
        old, new = self._render(before, names, hidden), self._render(message, names, hidden)
        return merge(original, old, new)

    def _answer_names(self, content: JsonObject) -> dict[str, str]:
        names: dict[str, str] = {}
        for item in self.items(content, "contents"):
            found: list[Any] = [part.get("functionResponse") for part in _parts(item)]
            answers = [answer for answer in found if _is_answer(answer)]
            ids = _distinct([answer.get("id") or answer["name"] for answer in answers])
            names.update({id_: answer["name"] for id_, answer in zip(ids, answers, strict=True)})
        return names

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
        parts = _parts(old)
        if parts and were == [said]:
            return content
        if len(parts) > 1 or any(not isinstance(part.get("text"), str) for part in parts):
            raise self.no_place("a change of a systemInstruction of several parts, or of others than texts", said)
        earlier: dict[str, Any] = {"parts": [{"text": each} for each in were]}
        return put(content, ("systemInstruction",), merge(old, earlier, {"parts": [{"text": said}]}))

    # ------------------------------------------------------------------------------------------- tools

    def read_tools(self, content: JsonObject) -> list[JsonObject] | None:
        """Each declared function, and each other tool, is one of the view's."""
        return [tool for entry in self.items(content, "tools") for tool in self._read_entry(entry)] or None

    def _read_entry(self, entry: Any) -> list[JsonObject]:
        functions = entry.get("functionDeclarations") if isinstance(entry, dict) else None
        listed = functions if isinstance(functions, list) else []
        found = [self.fitting(TOOL, self.read_tool, function, "name") for function in listed]
        if not isinstance(entry, dict):
            return [self.fitting(TOOL, self.read_tool, entry, "name")]
        rest = {key: item for key, item in entry.items() if key != "functionDeclarations" or functions is not listed}
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
        entries = self.items(content, "tools")
        if not all(isinstance(entry, dict) for entry in entries):
            raise self.no_place("a change of tools that are not objects", entries)
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

    def read_response(self, reader: ResponseReader) -> dict[str, Any]:
        """See `read_answer`; what else the first candidate has is kept."""
        response = _normal(reader.value)
        reader = ResponseReader(response)
        usage = reader.get("usageMetadata", dict) or {}
        first = (objects_of(reader.get("candidates")) or [{}])[0]
        kept = {
            "thoughts_tokens": usage.get("thoughtsTokenCount"),
            **{name: first.get(key) for name, key in _KEPT.items()},
            **{key: item for key, item in first.items() if key not in _SHOWN},
        }
        api = {key: item for key, item in kept.items() if item is not None}
        return {
            **self._read_answer(response),
            "id": reader.text("responseId"),
            "api_specific": {"api": self.codec_id, **api} if api else None,
            "extra": reader.rest("modelVersion", INCOMPLETE),
        }

    def read_answer(self, response: dict[str, Any]) -> dict[str, Any]:
        """The first candidate is the answer, the others are its alternatives."""
        return self._read_answer(_normal(response))

    def _read_answer(self, response: dict[str, Any]) -> dict[str, Any]:
        candidates = objects_of(response.get("candidates"))
        answer = self._read_candidate(candidates[0] if candidates else {}, response.get("promptFeedback"))
        answer["model"] = text_of(response.get("modelVersion"))
        answer["usage"] = self.usage(response, response.get("usageMetadata"))
        if len(candidates) > 1:
            further = candidates[1:]
            answer["alternatives"] = [
                {"index": each.get("index"), **self._read_candidate(each, None)} for each in further
            ]
        return answer

    def _read_candidate(self, candidate: dict[str, Any], feedback: Any) -> dict[str, Any]:
        parts = [_without_nulls(part) for part in _parts(candidate.get("content"))]
        hidden = [part for part in parts if _is_hidden(part)]
        shown = [part for part in parts if "functionCall" not in part and not _is_hidden(part)]
        found = [part["functionCall"] for part in parts if isinstance(part.get("functionCall"), dict)]
        calls = [call for call in found if isinstance(call.get("name"), str) and call["name"]]
        ids = _distinct([id_of(call) or call["name"] for call in calls])
        reason = of_kind(str, candidate.get("finishReason"))
        return {
            "message": _read_parts(shown) if shown else None,
            "reasoning_content": joined([part["text"] for part in hidden if isinstance(part.get("text"), str)]),
            "tool_calls": [
                {"id": id_, "name": call["name"], "arguments": arguments_of(call.get("args"))}
                for id_, call in zip(ids, calls, strict=True)
            ]
            or None,
            "finish_reason": _finish_reason(reason, bool(calls), feedback),
        }


_KEPT = {
    "safety_ratings": "safetyRatings",
    "grounding_metadata": "groundingMetadata",
    "citation_metadata": "citationMetadata",
}
_SHOWN = {"content", "finishReason", *_KEPT.values()}


def _normal(response: dict[str, Any]) -> dict[str, Any]:
    """A response in the API's spelling."""
    is_snake = _SNAKE & response.keys() or _is_snake(response.get("candidates"))
    return camel(response) if is_snake else response


def _as_content(text: str) -> JsonObject:
    return {"role": "user", "parts": [{"text": text}]}


def _is_snake(value: Any) -> bool:
    """Whether an object of the API, or one of a list, is in the SDK's spelling; what functions get and give aside."""
    if isinstance(value, list):
        return any(_is_snake(each) for each in value)
    if not isinstance(value, dict):
        return False
    return bool(_SNAKE & value.keys()) or _is_snake(value.get("content")) or _is_snake(value.get("parts"))


_SNAKE_REQUEST = {"system_instruction", "generation_config", "tool_config", "safety_settings", "cached_content"}
_SNAKE = {
    "usage_metadata", "model_version", "response_id", "prompt_feedback", "create_time", "finish_reason",
    "safety_ratings", "function_call", "function_response", "inline_data", "file_data",
}  # fmt: skip


def _parts(content: Any) -> list[dict[str, Any]]:
    """The parts of a content that are objects."""
    return objects_of(content.get("parts")) if isinstance(content, dict) else []


def _without_nulls(part: Any) -> Any:
    return {key: item for key, item in part.items() if item is not None} if None in part.values() else part


def _is_answer(answer: Any) -> bool:
    return isinstance(answer, dict) and isinstance(answer.get("name"), str) and "response" in answer


def _distinct(ids: list[Any]) -> list[str]:
    """Ids with those that are there already numbered."""
    found: dict[str, None] = {}
    for id_ in map(str, ids):
        number = 2
        distinct = id_
        while distinct in found:
            distinct, number = f"{id_}#{number}", number + 1
        found[distinct] = None
    return list(found)


def _is_name(id_: str, name: str) -> bool:
    """Whether an id was made of the function's name, see the module."""
    return id_ == name or (id_.startswith(f"{name}#") and id_[len(name) + 1 :].isdigit())


def _encoded(arguments: Any) -> str:
    return json.dumps({} if arguments is None else arguments, separators=(",", ":"), ensure_ascii=False, sort_keys=True)


def _read_parts(parts: list[Any]) -> Any:
    """Texts alone become one text; else the parts."""
    if all(part.keys() == {"text"} and isinstance(part["text"], str) for part in parts):
        return "\n".join(part["text"] for part in parts)
    return [
        {**part, "type": "text"}
        if isinstance(part.get("text"), str)
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


def _finish_reason(reason: str | None, calls: bool, feedback: Any) -> str | None:
    if calls and reason in (None, "STOP"):
        return "tool_use"
    if reason is None:
        blocked = isinstance(feedback, dict) and feedback.get("blockReason") is not None
        return "content_filter" if blocked else None
    return None if reason == "FINISH_REASON_UNSPECIFIED" else _FINISH.get(reason, reason)
