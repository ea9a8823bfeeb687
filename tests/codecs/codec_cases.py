"""Requests, responses and changes of requests, run through the codecs of this library and of the peer.

Imports neither, so that one interpreter can run it with one and another with the other:
`python tests/codecs/codec_cases.py` prints what `nemo_relay` answers, as JSON. See tests/codecs/test_codecs.py.
"""

import copy
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

FIELDS = (
    "messages", "instructions", "model", "params", "tools", "tool_choice", "api_specific", "extra", "store",
    "previous_response_id", "truncation", "reasoning", "include", "user", "metadata", "service_tier",
    "parallel_tool_calls", "max_output_tokens", "max_tool_calls", "top_logprobs", "stream",
)  # fmt: skip
RESPONSE_FIELDS = (
    "id", "model", "message", "tool_calls", "finish_reason", "usage", "optimization_summary", "api_specific", "extra",
)  # fmt: skip

FUNCTION = {"name": "look_up", "description": "looks up", "parameters": {"type": "object"}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"q": 1}'}}

CHAT_PARTS: list[Any] = [
    {"type": "text", "text": "look", "cache_control": {"type": "ephemeral"}},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}},
    {"type": "image_url", "image_url": {"url": "u", "unknown": 1}, "beside": 2},
    {"type": "image_url", "image_url": "u"},
    {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
    {"type": "file", "file": {"file_id": "f"}},
    {"type": "refusal", "refusal": "no"},
    {"type": "video", "video": 1},
    {"no": "type"},
    {"type": "text"},
    "no object",
]
CHAT_MESSAGES: list[Any] = [
    {"role": "system", "content": "be brief"},
    {"role": "developer", "content": [{"type": "text", "text": "be brief"}], "name": "dev"},
    {"role": "user", "content": "hi", "name": None},
    {"role": "user", "content": "hi", "unknown": 1},
    {"role": "user", "content": None},
    {"role": "user"},
    {"role": "assistant"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "assistant", "content": "x", "tool_calls": [], "name": "a"},
    {"role": "assistant", "content": "x", "tool_calls": None},
    {"role": "assistant", "content": "x", "refusal": None},
    {"role": "assistant", "content": "x", "function_call": {"name": "f", "arguments": "{}"}},
    {"role": "assistant", "content": "x", "tool_calls": [{**CALL, "unknown": 1}]},
    {"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "g", "input": "x"}}]},
    {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f"}}]},
    {"role": "tool", "content": "found", "tool_call_id": "c1"},
    {"role": "tool", "content": "found"},
    {"role": "function", "content": None, "name": "f"},
    {"role": "wizard", "content": "x"},
    {"content": "x"},
    1,
]
CHAT_KEYS: dict[str, Any] = {
    "model": "m", "temperature": 1, "top_p": 0.5, "stop": "END", "max_tokens": 3, "frequency_penalty": 1,
    "presence_penalty": 0.5, "logit_bias": {"1": 2}, "logprobs": True, "top_logprobs": 3, "n": 2, "seed": -3,
    "stream": True, "stream_options": {"include_usage": True}, "response_format": {"type": "text"}, "user": "u",
    "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "parallel_tool_calls": False,
    "reasoning_effort": "low", "modalities": ["text"], "audio": {"voice": "x"}, "prediction": {"type": "content"},
    "web_search_options": {}, "verbosity": "low", "safety_identifier": "s", "prompt_cache_key": "k",
    "prompt_cache_retention": "24h", "prompt_cache_options": {}, "moderation": {}, "functions": [FUNCTION],
    "function_call": "auto", "unknown": {"b": [1, None]},
}  # fmt: skip
CHAT_TOOLS: list[Any] = [
    {"type": "function", "function": FUNCTION},
    {"type": "function", "function": {**FUNCTION, "strict": True, "unknown": 1}, "beside": 2},
    {"type": "function", "function": {"name": "f", "description": None, "strict": None}},
    {"type": "function", "function": {}},
    {"type": "function"},
    {"type": "custom", "custom": {"name": "g"}},
    {"unknown": 1},
]
CHOICES: list[Any] = [
    "auto", "none", "required", "other", None, {"type": "allowed_tools"},
    {"type": "function", "function": {"name": "f"}}, {"type": "function", "name": "f"},
]  # fmt: skip

ANTHROPIC_PARTS: list[Any] = [
    {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}, "cache_control": {}},
    {"type": "document", "source": {"type": "text", "data": "x"}, "title": "t"},
    {"type": "tool_use", "id": "t1", "name": "f", "input": {"q": 1}},
    {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "x"}], "is_error": True},
    {"type": "tool_result", "tool_use_id": "t1"},
    {"type": "thinking", "thinking": "hm", "signature": "s"},
    {"type": "redacted_thinking", "data": "x"},
    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
    {"unknown": 1},
    "no object",
]
ANTHROPIC_KEYS: dict[str, Any] = {
    "model": "m", "max_tokens": 9, "temperature": 1, "top_p": 0.5, "top_k": 3, "stop_sequences": ["a"], "stream": True,
    "system": "be brief", "metadata": {"user_id": "u"}, "service_tier": "auto", "container": "c", "inference_geo": "eu",
    "thinking": {"type": "enabled", "budget_tokens": 5}, "cache_control": {"type": "ephemeral"},
    "output_config": {"effort": "low"}, "mcp_servers": [], "context_management": {}, "user_profile_id": "p",
    "unknown": {"b": [1, None]},
}  # fmt: skip
ANTHROPIC_TOOLS: list[Any] = [
    {"name": "f", "description": "d", "input_schema": {"type": "object"}},
    {"name": "f", "input_schema": {}, "description": None, "cache_control": {}},
    {"type": "custom", "name": "f", "input_schema": {}},
    {"type": "web_search_20250305", "name": "web_search", "max_uses": 5},
    {"name": "f"},
    1,
]
ANTHROPIC_CHOICES: list[Any] = [
    {"type": "auto"}, {"type": "any", "disable_parallel_tool_use": False}, {"type": "none"}, {"type": "zip"}, "auto",
    {"type": "tool", "name": "f", "disable_parallel_tool_use": True}, {"type": "tool"},
]  # fmt: skip

RESPONSES_ITEMS: list[Any] = [
    {"role": "user", "content": "hi"},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi", "unknown": 1}]},
    {"role": "user", "content": [{"type": "input_image", "image_url": "u", "detail": "low"}]},
    {"role": "user", "content": [{"type": "input_file", "file_id": "f"}, {"type": "zip"}]},
    {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "A"}}]},
    {"role": "assistant", "content": [{"type": "output_text", "text": "x", "annotations": []}]},
    {"type": "message", "id": "m", "status": "completed", "role": "assistant", "content": []},
    {"role": "assistant", "content": "x"},
    {"role": "developer", "content": "x"},
    {"role": "tool", "content": "x"},
    {"role": "user", "content": "x", "name": "n"},
    {"role": "user"},
    {"type": "function_call", "id": "i", "call_id": "c", "name": "f", "arguments": '{ "a" : 1}', "unknown": 1},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "no JSON"},
    {"type": "function_call", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "a"}], "id": "i"},
    {"type": "function_call_output", "call_id": "c"},
    {"type": "reasoning", "id": "r", "summary": []},
    {"type": "item_reference", "id": "r"},
    {"id": "r"},
    1,
]
RESPONSES_KEYS: dict[str, Any] = {
    "model": "m", "instructions": "be brief", "temperature": 1, "top_p": 0.5, "max_output_tokens": 9,
    "max_tool_calls": 2, "store": True, "previous_response_id": "p", "truncation": "auto", "reasoning": {"effort": "x"},
    "include": ["a"], "user": "u", "metadata": {"a": "b"}, "service_tier": "auto", "parallel_tool_calls": True,
    "top_logprobs": 2, "stream": True, "background": False, "context_management": [], "conversation": "c",
    "prompt": {"id": "p"}, "prompt_cache_key": "k", "prompt_cache_options": {}, "prompt_cache_retention": "24h",
    "safety_identifier": "s", "stream_options": {}, "text": {"format": {}}, "moderation": {}, "unknown": {"b": [1]},
}  # fmt: skip
RESPONSES_TOOLS: list[Any] = [
    {"type": "function", **FUNCTION, "strict": None, "unknown": 1},
    {"type": "function", "function": {"name": "f"}},
    {"type": "function"},
    {"type": "web_search"},
    {"name": "f"},
]

GEMINI_CONTENTS: list[Any] = [
    {"role": "user", "parts": [{"text": "hi"}], "unknown": 1},
    {"parts": [{"text": "one"}, {"text": "two"}]},
    {"role": "user", "parts": [{"text": "one", "unknown": 1}, {"inlineData": {"mimeType": "image/png", "data": "A"}}]},
    {"role": "user", "parts": [{"fileData": {"fileUri": "u"}, "videoMetadata": {}}, {"zip": 1}, {}]},
    {"role": "user", "parts": []},
    {"role": "model", "parts": [{"text": "hm", "thought": True}, {"text": "so"}]},
    {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"q": 1}}, "thoughtSignature": "s"}]},
    {"role": "model", "parts": [{"text": "a"}, {"functionCall": {"id": "c", "name": "f"}}, {"executableCode": {}}]},
    {"role": "model", "parts": [{"functionCall": {"args": {}}}]},
    {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"r": 1}}}]},
    {
        "role": "user",
        "parts": [
            {"functionResponse": {"name": "f", "response": {"r": 1}, "id": "c"}, "unknown": 1},
            {"functionResponse": {"name": "g", "response": {}}},
        ],
    },
    {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {}}}, {"text": "a"}]},
    {"role": "user", "parts": [{"functionResponse": {"name": "f"}}]},
    {"role": "user", "parts": [{"text": 1}]},
    {"role": "system", "parts": [{"text": "x"}]},
    {"role": "user"},
    1,
]
GEMINI_KEYS: dict[str, Any] = {
    "model": "m", "systemInstruction": {"parts": [{"text": "be"}, {"text": "brief"}]}, "safetySettings": [],
    "generationConfig": {"temperature": 1, "topP": 0.5, "topK": 3, "maxOutputTokens": 8, "stopSequences": ["a"]},
    "toolConfig": {"functionCallingConfig": {"mode": "AUTO"}}, "cachedContent": "c", "labels": {}, "stream": True,
    "unknown": {"b": [1, None]},
}  # fmt: skip
GEMINI_TOOLS: list[Any] = [
    {"functionDeclarations": [{**FUNCTION, "unknown": 1}, {"name": "g"}]},
    {"functionDeclarations": [{"name": "f"}], "googleSearch": {}},
    {"functionDeclarations": []},
    {"functionDeclarations": [{}]},
    {"urlContext": {}, "codeExecution": {}},
    {},
    1,
]

OCI_MESSAGES: list[Any] = [
    {"role": "SYSTEM", "content": [{"type": "TEXT", "text": "be brief"}], "name": "n"},
    {"role": "USER", "content": [{"type": "TEXT", "text": "a", "unknown": 1}, {"type": "TEXT", "text": "b"}]},
    {"role": "USER", "content": [{"type": "TEXT", "text": "a"}, {"type": "IMAGE", "imageUrl": {"url": "u"}}]},
    {"role": "USER", "content": "a", "unknown": 1},
    {"role": "USER"},
    {"role": "ASSISTANT"},
    {
        "role": "ASSISTANT",
        "content": [],
        "toolCalls": [{"type": "FUNCTION", "id": "c", "name": "f", "arguments": "{}", "unknown": 1}],
    },
    {"role": "ASSISTANT", "toolCalls": [{"id": "c", "type": "FUNCTION", "function": {"name": "f", "arguments": "{}"}}]},
    {"role": "TOOL", "content": [{"type": "TEXT", "text": "r"}], "toolCallId": "c"},
    {"role": "TOOL", "content": [{"type": "TEXT", "text": "r"}]},
    {"role": "DEVELOPER", "content": [{"type": "TEXT", "text": "r"}]},
    1,
]
OCI_KEYS: dict[str, Any] = {
    "temperature": 1, "topP": 0.5, "topK": 3, "maxTokens": 9, "stop": ["a"], "isStream": True, "seed": 2,
    "tools": [{"type": "FUNCTION", "name": "f"}, "zip"], "toolChoice": {"type": "AUTO"}, "metadata": {"a": "b"},
    "isParallelToolCalls": True, "unknown": {"b": [1, None]},
}  # fmt: skip
COHERE: dict[str, Any] = {
    "apiFormat": "COHERE",
    "message": "and now?",
    "chatHistory": [
        {"role": "USER", "message": "u", "unknown": 1},
        {"role": "CHATBOT", "message": "b", "toolCalls": [{"name": "f", "parameters": {"a": 1}}]},
        {"role": "TOOL", "toolResults": []},
        {"role": "SYSTEM", "message": "s"},
    ],
    "preambleOverride": "be brief",
    "maxTokens": 5,
    "stopSequences": ["a"],
    "documents": [],
}
DETAILS: dict[str, Any] = {
    "compartmentId": "c",
    "servingMode": {"servingType": "ON_DEMAND", "modelId": "m"},
    "unknown": 1,
}


def generic(**keys: Any) -> dict[str, Any]:
    """OCI details around a chat request in the GENERIC format."""
    return {**DETAILS, "chatRequest": {"apiFormat": "GENERIC", "messages": [], **keys}}


def _wrong(value: Any) -> list[Any]:
    """Values of other types than a key's."""
    return [None, *(other for other in ("s", 1, 1.5, True, [], {}) if type(other) is not type(value))]


def _requests() -> Iterator[tuple[str, Any]]:
    chat: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
    anthropic: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
    responses: dict[str, Any] = {"input": "hi"}
    gemini: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    for codec, base, keys in (
        ("OpenAIChatCodec", chat, CHAT_KEYS),
        ("AnthropicMessagesCodec", anthropic, ANTHROPIC_KEYS),
        ("OpenAIResponsesCodec", responses, RESPONSES_KEYS),
        ("GeminiGenerateContentCodec", gemini, GEMINI_KEYS),
    ):
        yield from ((codec, content) for content in ({}, {"unknown": 1}, base, {**base, **keys}))
        for key, value in keys.items():
            yield codec, {**base, key: value}
            yield from ((codec, {**base, key: wrong}) for wrong in _wrong(value))
        yield from ((codec, {next(iter(base)): wrong}) for wrong in (None, 1, {}, []))
    yield "OpenAIChatCodec", {**chat, "max_tokens": 1, "max_completion_tokens": 2}
    yield from (("OpenAIChatCodec", {"messages": [message]}) for message in CHAT_MESSAGES)
    for part in CHAT_PARTS:
        yield from (("OpenAIChatCodec", {"messages": [{"role": role, "content": [part]}]}) for role in ("user", "tool"))
    yield from (("OpenAIChatCodec", {**chat, "tools": [tool]}) for tool in CHAT_TOOLS)
    yield from (("OpenAIChatCodec", {**chat, "tool_choice": choice}) for choice in CHOICES)
    for role in ("user", "assistant", "system", "tool"):
        yield from (
            ("AnthropicMessagesCodec", {"messages": [{"role": role, "content": [part]}]}) for part in ANTHROPIC_PARTS
        )
    yield from (("AnthropicMessagesCodec", {**anthropic, "tools": [tool]}) for tool in ANTHROPIC_TOOLS)
    yield from (("AnthropicMessagesCodec", {**anthropic, "tool_choice": choice}) for choice in ANTHROPIC_CHOICES)
    yield from (("AnthropicMessagesCodec", {**anthropic, "system": [part]}) for part in ANTHROPIC_PARTS[:2])
    yield from (("OpenAIResponsesCodec", {"input": [item]}) for item in RESPONSES_ITEMS)
    yield from (("OpenAIResponsesCodec", {**responses, "tools": [tool]}) for tool in RESPONSES_TOOLS)
    yield from (("OpenAIResponsesCodec", {**responses, "tool_choice": choice}) for choice in CHOICES)
    yield from (("GeminiGenerateContentCodec", {"contents": [content]}) for content in GEMINI_CONTENTS)
    yield from (("GeminiGenerateContentCodec", {**gemini, "tools": [tool]}) for tool in GEMINI_TOOLS)
    for details in ({}, DETAILS, {"messages": []}, generic(**OCI_KEYS), {**DETAILS, "chatRequest": COHERE}):
        yield "OCIGenAIChatCodec", details
    yield from (("OCIGenAIChatCodec", generic(messages=[message])) for message in OCI_MESSAGES)
    for key, value in OCI_KEYS.items():
        yield from (("OCIGenAIChatCodec", generic(**{key: each})) for each in [value, *_wrong(value)])
    for key in ("message", "chatHistory", "preambleOverride", "stopSequences"):
        for wrong in _wrong(COHERE[key]):
            yield "OCIGenAIChatCodec", {"chatRequest": {**COHERE, key: wrong}}


CHAT_RESPONSE: dict[str, Any] = {
    "id": "r", "object": "chat.completion", "created": 1, "model": "m", "system_fingerprint": "f",
    "service_tier": "default",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "cost": 0.5,
              "prompt_tokens_details": {"cached_tokens": 1}},
}  # fmt: skip
ANTHROPIC_RESPONSE: dict[str, Any] = {
    "id": "r", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None, "stop_reason": "tool_use",
    "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, ANTHROPIC_PARTS[3], ANTHROPIC_PARTS[6]],
    "usage": {"input_tokens": 5, "output_tokens": 2, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 4},
    "container": None, "unknown": 1,
}  # fmt: skip
RESPONSES_RESPONSE: dict[str, Any] = {
    "id": "r", "object": "response", "created_at": 1, "status": "completed", "error": None, "model": "m",
    "incomplete_details": None, "store": True, "truncation": "disabled", "reasoning": {"effort": None}, "unknown": 1,
    "output": [
        {"type": "reasoning", "id": "rs", "summary": []},
        {"type": "message", "content": [{"type": "output_text", "text": "a"}, {"type": "output_text", "text": "b"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"q": 1}'},
        {"type": "function_call", "arguments": "no JSON"},
        1,
    ],
    "usage": {"input_tokens": 5, "input_tokens_details": {"cached_tokens": 1}, "output_tokens": 2, "total_tokens": 7,
              "output_tokens_details": {"reasoning_tokens": 1}},
}  # fmt: skip
GEMINI_RESPONSE: dict[str, Any] = {
    "candidates": [
        {
            "content": {"role": "model", "parts": [{"text": "hm", "thought": True}, {"text": "hi"},
                                                   {"functionCall": {"name": "f", "args": {"q": 1}}}]},
            "finishReason": "STOP", "index": 0, "safetyRatings": [], "citationMetadata": {}, "avgLogprobs": -0.1,
        }
    ],
    "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7, "thoughtsTokenCount": 3,
                      "cachedContentTokenCount": 1},
    "modelVersion": "m", "responseId": "r", "createTime": "t", "promptFeedback": {}, "unknown": 1,
}  # fmt: skip
OCI_RESPONSE: dict[str, Any] = {
    "modelId": "m", "modelVersion": "1", "unknown": 1,
    "chatResponse": {
        "apiFormat": "GENERIC", "timeCreated": "t",
        "choices": [{"index": 0, "message": {"role": "ASSISTANT", "content": [{"type": "TEXT", "text": "hi"}],
                                             "toolCalls": [{"id": "c", "name": "f", "arguments": '{"q": 1}'}]},
                     "finishReason": "stop", "logprobs": {}}],
        "usage": {"promptTokens": 5, "completionTokens": 2, "totalTokens": 7,
                  "promptTokensDetails": {"cachedTokens": 1}},
    },
}  # fmt: skip
REASONS = (
    "stop", "length", "tool_calls", "function_call", "content_filter", "end_turn", "max_tokens", "stop_sequence",
    "tool_use", "pause_turn", "STOP", "MAX_TOKENS", "SAFETY", "OTHER", "FINISH_REASON_UNSPECIFIED", "COMPLETE",
    "TOOL_CALL", None, 1,
)  # fmt: skip


def _responses() -> Iterator[tuple[str, Any]]:
    whole = {
        "OpenAIChatCodec": CHAT_RESPONSE,
        "AnthropicMessagesCodec": ANTHROPIC_RESPONSE,
        "OpenAIResponsesCodec": RESPONSES_RESPONSE,
        "GeminiGenerateContentCodec": GEMINI_RESPONSE,
        "OCIGenAIChatCodec": OCI_RESPONSE,
    }
    for codec, response in whole.items():
        yield from ((codec, value) for value in (response, {}, None, [], "text", {"error": {"message": "no"}}))
        for key, value in response.items():
            yield codec, {other: item for other, item in response.items() if other != key}
            yield from ((codec, {**response, key: wrong}) for wrong in _wrong(value))
    # A chunk of a stream is no response: little of it has a place in the view.
    yield "OpenAIChatCodec", {"id": "c", "object": "chat.completion.chunk", "choices": [{"delta": {"content": "x"}}]}
    yield "AnthropicMessagesCodec", {"type": "message_start", "message": {"id": "x"}}
    yield "OpenAIResponsesCodec", {"type": "response.completed", "response": {"id": "x"}}
    yield "OpenAIResponsesCodec", {"output_text": "short"}
    for reason in REASONS:
        yield "OpenAIChatCodec", {"choices": [{"message": {}, "finish_reason": reason}]}
        yield "AnthropicMessagesCodec", {"stop_reason": reason}
        yield "GeminiGenerateContentCodec", {"candidates": [{"finishReason": reason}]}
        yield "OCIGenAIChatCodec", {"chatResponse": {"choices": [{"finishReason": reason}]}}
        yield "OCIGenAIChatCodec", {"chatResponse": {"apiFormat": "COHERE", "text": "x", "finishReason": reason}}
        yield "OpenAIResponsesCodec", {"status": "incomplete", "incomplete_details": {"reason": reason}}
        yield "OpenAIResponsesCodec", {"status": reason}
    for message in (
        None, {"content": ""}, {"content": 1}, {"content": [{"type": "text", "text": "a"}]}, {"tool_calls": [CALL]},
        {"tool_calls": [{}]}, {"tool_calls": [{"function": {"name": "f"}}]}, {"tool_calls": "x"},
        {"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "no JSON"}}]},
        {"content": "x", "refusal": "r"},
    ):  # fmt: skip
        yield "OpenAIChatCodec", {"choices": [{"message": message}]}
    for usage in ({}, {"prompt_tokens": 1}, {"prompt_tokens": -1}, {"prompt_tokens": "x"}, {"cost": {"total": 1}}):
        yield "OpenAIChatCodec", {"usage": usage}
    for parts in ([], [{"text": "a"}, {"text": "b"}], [{"inlineData": {}}, {}], [{"functionCall": {"name": "f"}}], [1]):
        yield "GeminiGenerateContentCodec", {"candidates": [{"content": {"parts": parts}}]}
    yield "GeminiGenerateContentCodec", {"promptFeedback": {"blockReason": "SAFETY"}}
    for content in ("x", None, [], [{"type": "TEXT", "text": "a"}, {"type": "TEXT", "text": "b"}], [{"type": "ZIP"}]):
        yield "OCIGenAIChatCodec", {"chatResponse": {"choices": [{"message": {"content": content, "refusal": "r"}}]}}


# --------------------------------------------------------------------------------------- changes of a view


def _append(message: Any) -> Callable[[Any], None]:
    return lambda messages: messages.append(message)


def _first_text(messages: Any) -> None:
    message = next(each for each in messages if each["role"] == "user")
    if isinstance(message["content"], str):
        message["content"] = "changed"
    else:
        message["content"][0]["text"] = "changed"


def _last_content(messages: Any) -> None:
    messages[-1]["content"] = "changed"


MESSAGE_CHANGES: dict[str, Callable[[Any], Any]] = {
    "first text": _first_text,
    "last content": _last_content,
    "append user": _append({"role": "user", "content": "more"}),
    "append parts": _append({"role": "user", "content": [{"type": "text", "text": "more"}]}),
    "append assistant": _append({"role": "assistant", "content": "more"}),
    "append call": _append({"role": "assistant", "content": "hm", "tool_calls": [CALL]}),
    "append answer": _append({"role": "tool", "content": "found", "tool_call_id": "c1"}),
    "append refusal": _append({"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}),
    "append image": _append({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}),
    "append developer": _append({"role": "developer", "content": "be brief"}),
    "append call item": _append({"role": "tool_call", "call_id": "c", "name": "f", "arguments": {"q": 1}}),
    "append result item": _append({"role": "tool_result", "call_id": "c", "output": "found"}),
    "append foreign": _append({"role": "provider_native", "provider": "other", "kind": "k", "value": {}}),
    "drop the first": lambda messages: messages.pop(0),
    "reverse": lambda messages: messages.reverse(),
}
FIELD_CHANGES: list[tuple[str, Any]] = [
    ("model", "other"), ("model", None), ("params", None), ("instructions", "be brief"), ("instructions", None),
    ("params", {"temperature": 0.25, "stop": ["x", "y"], "max_tokens": 7, "top_p": 0.75}), ("extra", {}),
    ("params", {"temperature": 0.25, "max_tokens": 7}), ("extra", {"unknown": 2, "other": 3}),
    ("tools", None), ("tools", []), ("tools", [{"type": "function", "function": {**FUNCTION, "name": "other"}}]),
    ("tool_choice", None), ("tool_choice", "required"),
    ("tool_choice", {"type": "function", "function": {"name": "other"}}), ("store", True), ("user", "other"),
    ("metadata", {"x": "y"}), ("stream", True), ("parallel_tool_calls", True), ("max_output_tokens", 5),
    ("reasoning", {"effort": "high"}), ("service_tier", "flex"), ("api_specific", None),
    ("api_specific", {"api": "custom", "api_name": "x", "data": 1}),
]  # fmt: skip
CHANGED: dict[str, Any] = {
    "OpenAIChatCodec": {
        **{key: CHAT_KEYS[key] for key in ("model", "temperature", "stop", "n", "unknown")},
        "max_completion_tokens": 3, "tools": [CHAT_TOOLS[1], CHAT_TOOLS[5]],
        "tool_choice": {"type": "function", "function": {"name": "f", "unknown": 1}},
        "messages": [{"role": "user", "content": CHAT_PARTS[:3]}, CHAT_MESSAGES[7], CHAT_MESSAGES[3]],
    },
    "AnthropicMessagesCodec": {
        **{key: ANTHROPIC_KEYS[key] for key in ("model", "max_tokens", "temperature", "top_k", "unknown")},
        "tools": [ANTHROPIC_TOOLS[1], ANTHROPIC_TOOLS[3]], "tool_choice": ANTHROPIC_CHOICES[5],
        "messages": [{"role": "user", "content": ANTHROPIC_PARTS[:2]},
                     {"role": "assistant", "content": [ANTHROPIC_PARTS[6], ANTHROPIC_PARTS[3]]},
                     {"role": "user", "content": "bye"}],
    },
    "OpenAIResponsesCodec": {
        **{key: RESPONSES_KEYS[key] for key in ("model", "temperature", "max_output_tokens", "unknown")},
        "tools": [RESPONSES_TOOLS[0], RESPONSES_TOOLS[3]],
        "tool_choice": {"type": "function", "name": "f", "unknown": 1},
        "input": [RESPONSES_ITEMS[1], RESPONSES_ITEMS[5], RESPONSES_ITEMS[17], RESPONSES_ITEMS[12], RESPONSES_ITEMS[0]],
    },
    "GeminiGenerateContentCodec": {
        **{key: GEMINI_KEYS[key] for key in ("model", "generationConfig", "toolConfig", "unknown")},
        "systemInstruction": {"parts": [{"text": "be brief", "unknown": 1}], "unknown": 1},
        "tools": [GEMINI_TOOLS[1]],
        "contents": [GEMINI_CONTENTS[2], GEMINI_CONTENTS[5], GEMINI_CONTENTS[6], GEMINI_CONTENTS[0]],
    },
    "OCIGenAIChatCodec": generic(**{
        **{key: OCI_KEYS[key] for key in ("temperature", "maxTokens", "unknown")},
        "tools": [{"type": "FUNCTION", "name": "f"}],
        "messages": [OCI_MESSAGES[2], OCI_MESSAGES[0], {"role": "USER", "content": "bye"}],
    }),
}  # fmt: skip


def _changes() -> Iterator[tuple[str, str, Any, str, Any]]:
    for codec, content in CHANGED.items():
        for label, change in MESSAGE_CHANGES.items():
            yield f"{codec}: {label}", codec, content, "messages", change
        for field, value in FIELD_CHANGES:
            yield f"{codec}: {field}={json.dumps(value)}", codec, content, field, value
    yield "responses: text", "OpenAIResponsesCodec", {"input": "hi"}, "messages", _first_text
    cohere = {**DETAILS, "chatRequest": COHERE}
    for label, change in MESSAGE_CHANGES.items():
        yield f"COHERE: {label}", "OCIGenAIChatCodec", cohere, "messages", change


# -------------------------------------------------------------------------------------------------- running


def _view(decode: Callable[[Any], Any], given: Callable[[], Any], fields: tuple[str, ...]) -> dict[str, Any]:
    view = decode(given())
    return {name: getattr(view, name) for name in fields if getattr(view, name) is not None}


def _outcome(run: Callable[[], Any]) -> Any:
    try:
        return run()
    except RuntimeError:
        return "RuntimeError"


def _change(request: Any, codec: Any, content: Any, field: str, change: Any) -> Any:
    original = request({"h": "1"}, content)
    view = codec.decode(original)
    if callable(change):
        messages = view.messages
        change(messages)
        view.messages = messages
    else:
        setattr(view, field, change)
    return codec.encode(view, original).content


def run(codecs: Any, request: Any) -> dict[str, Any]:
    """What the codecs answer, by the case's name.

    Args:
        codecs: the module that has the five classes.
        request: the class of requests.
    """
    found: dict[str, Any] = {}
    for name, content in _requests():
        codec = getattr(codecs, name)()
        found[f"{name} request {json.dumps(content)}"] = _outcome(
            partial(_view, codec.decode, lambda content=content: request({}, content), FIELDS)
        )
    for name, response in _responses():
        codec = getattr(codecs, name)()
        found[f"{name} response {json.dumps(response)}"] = _outcome(
            partial(_view, codec.decode_response, lambda response=response: response, RESPONSE_FIELDS)
        )
    for label, name, content, field, new in _changes():
        codec = getattr(codecs, name)()
        change = partial(_change, request, codec, copy.deepcopy(content), field, copy.deepcopy(new))
        found[f"change {label}"] = _outcome(change)
    return found


if __name__ == "__main__":
    import nemo_relay

    json.dump(run(nemo_relay.codecs, nemo_relay.LLMRequest), sys.stdout)
