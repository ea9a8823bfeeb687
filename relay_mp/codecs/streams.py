"""From the chunks of a streamed response to the response, in the shape that the API has without streaming.

    chunks (what the provider's stream yields, as JSON) ──assemble──► one response ──codec──► the view

A stream may be broken off: then the response has what came until then, and is marked with `INCOMPLETE`. Counts of
tokens are those that the provider has sent, none are made up. `StreamCollector` does this for
`relay_mp.llm.stream_execute`. Runs where the response is asked for: in the finalizer, or where an exporter reads it.

Sources: the streaming parts of the API references of OpenAI (Chat Completions, Responses), Anthropic (Messages),
Google (streamGenerateContent) and Oracle (Generative AI Inference, chat).
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from relay_mp._emit.stream_chunks import api_of_chunk
from relay_mp.codecs.lenient import objects_of
from relay_mp.codecs.spelling import camel

__all__ = ["INCOMPLETE", "StreamCollector", "api_of_chunks", "assemble"]

INCOMPLETE = "relay_mp.incomplete"
"""The key of an assembled response that is True where the stream ended too early."""

_Object = dict[str, Any]


class StreamCollector:
    """Collector and finalizer for `relay_mp.llm.stream_execute`:

        chunks = StreamCollector()
        stream = await llm.stream_execute("openai", request, provider, chunks, chunks.response)

    The end event then carries the response as the provider would have sent it at once. One for each stream; not for
    several threads at a time.
    """

    def __init__(self) -> None:
        self._chunks: list[Any] = []

    def __call__(self, chunk: Any) -> None:
        """Takes a chunk: JSON, or an object of the provider's client that has `model_dump` or `to_dict`."""
        self._chunks.append(chunk)

    def response(self) -> Any:
        """The response so far; the chunks themselves where they are of no known API."""
        plain = [_plain(chunk) for chunk in self._chunks]
        whole = assemble(plain)
        return plain if whole is None else whole


def _plain(chunk: Any) -> Any:
    for name, arguments in (("model_dump", {"mode": "json"}), ("to_dict", {})):
        method = getattr(type(chunk), name, None)
        if method is not None:
            try:
                return method(chunk, **arguments)
            except Exception:  # of the client's: the other chunks have their answer all the same
                return chunk
    return chunk


def assemble(chunks: Iterable[Any]) -> _Object | None:
    """The response that chunks are of; None if they are of no known API.

    Args:
        chunks: as the stream yielded them. What is not an object, such as `"[DONE]"`, is passed over.
    """
    objects = [chunk for chunk in chunks if isinstance(chunk, dict)]
    api = api_of_chunks(objects)
    return None if api is None else _ASSEMBLERS[api](objects)


def api_of_chunks(chunks: Iterable[Any]) -> str | None:
    """The `codec_id` of the API whose chunks these are, by the first that says so; or None."""
    return next((api for api in map(api_of_chunk, chunks) if api is not None), None)


def _marked(response: _Object, is_complete: bool) -> _Object:
    return response if is_complete else {**response, INCOMPLETE: True}


def _add_text(target: _Object, key: str, more: Any) -> None:
    """Appends a delta: a text to a text, a list of parts to a list."""
    if not isinstance(more, (str, list)) or (not more and target.get(key) is not None):
        return
    have = target.get(key)
    if not isinstance(have, (str, list)):
        target[key] = more
    elif isinstance(have, str) and isinstance(more, str):
        target[key] = have + more
    else:
        target[key] = _parts(have) + _parts(more)


def _parts(content: str | list[Any]) -> list[Any]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []


def _keep(target: _Object, source: Mapping[str, Any], *but: str) -> None:
    """Keys of the envelope: the first value that is not null or empty counts; Azure's first chunk has an empty id."""
    for key, item in source.items():
        if key not in but and target.get(key) in (None, "", []):
            target[key] = item


def _by_place(items: dict[int, _Object]) -> list[_Object]:
    return [items[place] for place in sorted(items)]


def _place(value: Any, otherwise: int = 0) -> int:
    return value if type(value) is int and value >= 0 else otherwise


# ------------------------------------------------------------------------------- OpenAI Chat Completions


def _chat(chunks: list[_Object]) -> _Object:
    whole: _Object = {}
    choices: dict[int, _Object] = {}
    for chunk in chunks:
        _keep(whole, chunk, "choices", "usage", "object")
        groq = chunk.get("x_groq")
        for place in (groq, chunk):
            usage = place.get("usage") if isinstance(place, dict) else None
            if isinstance(usage, dict):
                whole["usage"] = usage  # where several come, each counts all that was before
        for delta in objects_of(chunk.get("choices")):
            _add_choice(choices, delta)
    found = _by_place(choices)
    for choice in found:
        for call in choice["message"].get("tool_calls", ()):
            del call["index"]
    is_complete = bool(found) and all(choice.get("finish_reason") is not None for choice in found)
    return _marked({**whole, "object": "chat.completion", "choices": found}, is_complete)


def _add_choice(choices: dict[int, _Object], delta: _Object) -> None:
    place = _place(delta.get("index"))
    choice = choices.setdefault(place, {"index": place, "message": {"role": "assistant"}})
    message: _Object = choice["message"]
    more = delta.get("delta")
    more = more if isinstance(more, dict) else {}
    for key in ("content", "reasoning_content", "reasoning", "refusal"):
        _add_text(message, key, more.get(key))
    for call in objects_of(more.get("tool_calls")):
        _add_call(message.setdefault("tool_calls", []), call)
    legacy = more.get("function_call")
    if isinstance(legacy, dict):
        _add_function(message.setdefault("function_call", {}), legacy)
    _keep(choice, delta, "delta", "index", "logprobs")


def _add_call(calls: list[_Object], delta: _Object) -> None:
    call = _call_of(calls, delta)
    if call is None:
        call = {"id": None, "type": "function", "function": {}, "index": delta.get("index")}
        calls.append(call)
    call["id"] = call["id"] or delta.get("id")
    function = delta.get("function")
    if isinstance(function, dict):
        _add_function(call["function"], function)


def _call_of(calls: list[_Object], delta: _Object) -> _Object | None:
    """The call that a delta goes on with; None for a new one.

    OpenAI numbers the calls and names each once. Others number all of them 0, or none, and send each whole: there a
    further id, or a further name after whole arguments, begins a further call.
    """
    index, id_, function = delta.get("index"), delta.get("id"), delta.get("function")
    same = [call for call in calls if call["index"] == index]
    if not same:
        return None
    last = same[-1]
    if id_ and last["id"] and id_ != last["id"]:
        return next((call for call in same if call["id"] == id_), None)
    is_named = isinstance(function, dict) and bool(function.get("name"))
    return None if is_named and not id_ and _is_whole(last["function"].get("arguments")) else last


def _is_whole(arguments: Any) -> bool:
    if not isinstance(arguments, str):
        return arguments is not None
    try:
        json.loads(arguments)
    except (ValueError, RecursionError):
        return False
    return True


def _add_function(function: _Object, delta: _Object) -> None:
    function["name"] = function.get("name") or delta.get("name")
    arguments = delta.get("arguments")
    if isinstance(arguments, str):
        _add_text(function, "arguments", arguments)
    elif arguments is not None:
        function["arguments"] = arguments


# ---------------------------------------------------------------------------------- Anthropic Messages

_ANTHROPIC_DELTAS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


def _anthropic(chunks: list[_Object]) -> _Object:
    whole: _Object = {"type": "message", "role": "assistant"}
    blocks: dict[int, _Object] = {}
    inputs: dict[int, str] = {}
    is_complete = False
    for chunk in chunks:
        kind = chunk.get("type")
        if kind == "message_start" and isinstance(chunk.get("message"), dict):
            whole.update(chunk["message"])
        elif kind == "content_block_start" and isinstance(chunk.get("content_block"), dict):
            blocks[_place(chunk.get("index"))] = dict(chunk["content_block"])
        elif kind == "content_block_delta" and isinstance(chunk.get("delta"), dict):
            _add_block(blocks, inputs, _place(chunk.get("index")), chunk["delta"])
        elif kind == "message_delta":
            _add_message_delta(whole, chunk)
        elif kind == "error":
            whole["error"] = chunk.get("error")
        is_complete = is_complete or kind == "message_stop" or whole.get("stop_reason") is not None
    for place, text in inputs.items():
        if text:
            blocks[place]["input"] = _decoded(text)
    return _marked({**whole, "content": _by_place(blocks)}, is_complete)


def _add_block(blocks: dict[int, _Object], inputs: dict[int, str], place: int, delta: _Object) -> None:
    kind = delta.get("type")
    if kind == "input_json_delta":
        blocks.setdefault(place, {"type": "tool_use"})
        inputs[place] = inputs.get(place, "") + str(delta.get("partial_json") or "")
    elif kind == "citations_delta":
        block = blocks.setdefault(place, {"type": "text"})
        block["citations"] = [*objects_of(block.get("citations")), delta.get("citation")]
    elif str(kind) in _ANTHROPIC_DELTAS:
        key = _ANTHROPIC_DELTAS[str(kind)]
        block = blocks.setdefault(place, {"type": "thinking" if key == "signature" else key})
        _add_text(block, key, delta.get(key))


def _add_message_delta(whole: _Object, chunk: _Object) -> None:
    """Its counts are of the message so far; those that it leaves out are the start's."""
    delta, usage = chunk.get("delta"), chunk.get("usage")
    if isinstance(delta, dict):
        whole.update({key: item for key, item in delta.items() if item is not None})
    if isinstance(usage, dict):
        before = whole.get("usage")
        known = {key: item for key, item in usage.items() if item is not None}
        whole["usage"] = {**(before if isinstance(before, dict) else {}), **known}


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text  # broken off


# ------------------------------------------------------------------------------------- OpenAI Responses

_LAST_EVENTS = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")


def _responses(chunks: list[_Object]) -> _Object:
    """The last event has the whole response; without it, what its items' own events say."""
    whole: _Object = {"object": "response"}
    items: dict[int, _Object] = {}
    for chunk in chunks:
        kind, response = chunk.get("type"), chunk.get("response")
        if kind in _LAST_EVENTS and isinstance(response, dict):
            return dict(response) if response.get("output") else {**response, "output": _by_place(items)}
        if isinstance(response, dict):
            whole.update(response)
        if isinstance(kind, str):
            _add_item_event(items, kind, chunk)
        if kind == "error":
            whole["error"] = {key: chunk.get(key) for key in ("code", "message", "param")}
    whole.pop("status", None)  # "in_progress" is why it stopped for nobody
    return _marked({**whole, "output": _by_place(items)}, False)


def _add_item_event(items: dict[int, _Object], kind: str, event: _Object) -> None:
    place, item = _place(event.get("output_index")), event.get("item")
    if kind in ("response.output_item.added", "response.output_item.done") and isinstance(item, dict):
        items[place] = {**item}
        return
    delta = event.get("delta")
    if kind not in _DELTAS or not isinstance(delta, str):
        return
    item_type, listed, part_type, key = _DELTAS[kind]
    target = items.setdefault(place, {"type": item_type, "id": event.get("item_id")})
    if listed:
        at = _place(event.get("summary_index" if listed == "summary" else "content_index"))
        parts = target[listed] = objects_of(target.get(listed))
        parts += [{"type": part_type, key: ""} for _ in range(len(parts), min(at, _MAX_PARTS) + 1)]
        target = parts[min(at, _MAX_PARTS)] = {**parts[min(at, _MAX_PARTS)]}
    _add_text(target, key, delta)


_MAX_PARTS = 1024
"""Parts of one item; a larger index is taken for this one, so that a wrong one cannot fill the memory."""

_DELTAS = {
    "response.output_text.delta": ("message", "content", "output_text", "text"),
    "response.refusal.delta": ("message", "content", "refusal", "refusal"),
    "response.reasoning_summary_text.delta": ("reasoning", "summary", "summary_text", "text"),
    "response.reasoning_text.delta": ("reasoning", "content", "reasoning_text", "text"),
    "response.function_call_arguments.delta": ("function_call", "", "", "arguments"),
    "response.custom_tool_call_input.delta": ("custom_tool_call", "", "", "input"),
}
"""What an event adds to: the type of its item, the list in it, the type and the text of the part in that."""


# --------------------------------------------------------------------------------------------- Gemini


def _gemini(chunks: list[_Object]) -> _Object:
    whole: _Object = {}
    candidates: dict[int, _Object] = {}
    for chunk in map(camel, chunks):
        _keep(whole, chunk, "candidates", "usageMetadata")
        if isinstance(chunk.get("usageMetadata"), dict):
            whole["usageMetadata"] = {**whole.get("usageMetadata", {}), **chunk["usageMetadata"]}
        for more in objects_of(chunk.get("candidates")):
            place = _place(more.get("index"))
            candidate = candidates.setdefault(place, {"index": place, "content": {"role": "model", "parts": []}})
            _add_parts(candidate["content"]["parts"], more.get("content"))
            candidate.update({key: item for key, item in more.items() if key not in ("content", "index")})
    found = _by_place(candidates)
    feedback = whole.get("promptFeedback")
    is_blocked = isinstance(feedback, dict) and feedback.get("blockReason") is not None
    is_complete = is_blocked or (bool(found) and all(each.get("finishReason") is not None for each in found))
    return _marked({**whole, "candidates": found}, is_complete)


def _add_parts(parts: list[_Object], content: Any) -> None:
    for part in objects_of(content.get("parts") if isinstance(content, dict) else None):
        last = parts[-1] if parts else {}
        plain = ({"text"}, {"text", "thought"})
        same_kind = set(part) in plain and set(last) in plain and bool(part.get("thought")) == bool(last.get("thought"))
        if same_kind and isinstance(part["text"], str) and isinstance(last["text"], str):
            last["text"] += part["text"]
        elif part.get("text") != "" or len(part) > 1:
            parts.append(dict(part))


# ---------------------------------------------------------------------------------------------- OCI


def _oci(chunks: list[_Object]) -> _Object:
    formats = [chunk["apiFormat"] for chunk in chunks if isinstance(chunk.get("apiFormat"), str)]
    named = formats[0] if formats else "GENERIC"
    response, is_complete = _oci_cohere(chunks) if named == "COHERE" else _oci_choices(chunks, named)
    return _marked({"chatResponse": {"apiFormat": named, **response}}, is_complete)


def _oci_cohere(chunks: list[_Object]) -> tuple[_Object, bool]:
    """Texts; the last chunk, which has the reason, may repeat them as one."""
    whole: _Object = {}
    said, repeated = "", None
    for chunk in chunks:
        _keep(whole, chunk, "text", "pad")
        text = chunk.get("text")
        if isinstance(text, str) and chunk.get("finishReason") is None:
            said += text
        elif isinstance(text, str):
            repeated = text
    return {**whole, "text": said or repeated}, whole.get("finishReason") is not None


def _oci_choices(chunks: list[_Object], named: str) -> tuple[_Object, bool]:
    """Messages; usage comes after the reason."""
    whole: _Object = {}
    choices: dict[int, _Object] = {}
    for chunk in chunks:
        _keep(whole, chunk, "message", "index", "finishReason", "pad")
        place = _place(chunk.get("index"))
        is_message = isinstance(chunk.get("message"), dict)
        if is_message or chunk.get("finishReason") is not None:
            choice = choices.setdefault(place, {"index": place, "message": {"role": "ASSISTANT"}})
            _keep(choice, {"finishReason": chunk.get("finishReason")})
        if is_message:
            _add_oci_message(choice["message"], chunk["message"])
    found = _by_place(choices)
    is_complete = bool(found) and all(choice.get("finishReason") is not None for choice in found)
    return {**whole, **(found[0] if found else {})} if named == "COHEREV2" else {**whole, "choices": found}, is_complete


def _add_oci_message(message: _Object, more: _Object) -> None:
    for part in objects_of(more.get("content")):
        _add_oci_part(message.setdefault("content", []), part)
    for key in ("reasoningContent", "refusal"):
        _add_text(message, key, more.get(key))
    for call in objects_of(more.get("toolCalls")):
        _add_oci_call(message.setdefault("toolCalls", []), call)


def _add_oci_part(parts: list[_Object], part: _Object) -> None:
    if parts and part.get("type") == parts[-1].get("type") == "TEXT":
        _add_text(parts[-1], "text", part.get("text"))
    elif part.get("text") != "":
        parts.append(dict(part))


def _add_oci_call(calls: list[_Object], delta: _Object) -> None:
    """A call without a name goes on with the arguments of the last."""
    if calls and not delta.get("name") and (not delta.get("id") or delta["id"] == calls[-1].get("id")):
        _add_text(calls[-1], "arguments", delta.get("arguments"))
    else:
        calls.append(dict(delta))


_ASSEMBLERS: dict[str, Callable[[list[_Object]], _Object]] = {
    "openai_chat": _chat,
    "openai_responses": _responses,
    "anthropic_messages": _anthropic,
    "gemini_generate_content": _gemini,
    "oci_genai": _oci,
}
