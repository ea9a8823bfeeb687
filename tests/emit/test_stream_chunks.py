"""Which API a chunk is of, and what its mark says: for JSON, and for the objects of the providers' clients."""

import types

import pytest
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseTextDeltaEvent

from relay_mp._emit.stream_chunks import api_of_chunk, describe_chunk

DELTA = {"index": 1, "delta": {"content": "a"}, "finish_reason": None}
CHAT = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [DELTA]}
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
TEXT_DELTA = {
    "type": "response.output_text.delta", "content_index": 0, "delta": "a", "item_id": "i", "logprobs": [],
    "output_index": 0, "sequence_number": 1,
}  # fmt: skip


def like(**fields):
    return types.SimpleNamespace(**fields)


class Raises:
    def __getattr__(self, name):
        raise RuntimeError(name)


class Answers:
    """Has every attribute, as mocks do."""

    def __getattr__(self, name):
        return Answers()


KINDS = {
    "Chat": (CHAT, "openai_chat", {"choice_indices": [1], "event_type": "chat.completion.chunk"}),
    "Chat without its object": ({"choices": [DELTA]}, "openai_chat", {"choice_indices": [1]}),
    "Chat, the chunk with the usage": ({**CHAT, "choices": [], "usage": USAGE}, "openai_chat", {"usage": USAGE}),
    "Chat, usage null": ({**CHAT, "usage": None}, "openai_chat", {"usage": None}),
    "Chat, an object": (ChatCompletionChunk.model_validate(CHAT), "openai_chat", {"choice_indices": [1]}),
    "Responses": (TEXT_DELTA, "openai_responses", {"event_type": "response.output_text.delta"}),
    "Responses, an object": (
        ResponseTextDeltaEvent.model_validate(TEXT_DELTA), "openai_responses", {"event_type": TEXT_DELTA["type"]},
    ),
    "Anthropic": ({"type": "message_start", "message": {}}, "anthropic_messages", {"event_type": "message_start"}),
    "Anthropic, an object": (like(type="content_block_delta"), "anthropic_messages", {}),
    "Anthropic, ping": ({"type": "ping"}, "anthropic_messages", {"event_type": "ping"}),
    "Gemini": ({"candidates": [{"content": {}}]}, "gemini_generate_content", {"event_type": None}),
    "Gemini, only usage": ({"usageMetadata": {"promptTokenCount": 1}}, "gemini_generate_content", {}),
    "Gemini, an object": (like(candidates=[], usage_metadata=None), "gemini_generate_content", {}),
    "OCI, Cohere": ({"apiFormat": "COHERE", "text": "a"}, "oci_genai", {}),
    "OCI, generic": ({"message": {"role": "ASSISTANT"}}, "oci_genai", {}),
    "OCI, the end": ({"finishReason": "stop"}, "oci_genai", {}),
    "a text": ("[DONE]", None, {}),
    "nothing": (None, None, {}),
    "another object": ({"text": "a"}, None, {}),
    "one that raises": (Raises(), None, {}),
    "one that answers everything": (Answers(), None, {}),
    "choices of another type": ({"choices": 5}, None, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_the_api_of_a_chunk(name):
    chunk, api, _ = KINDS[name]
    assert api_of_chunk(chunk) == api


@pytest.mark.parametrize("name", KINDS)
def test_the_mark_of_a_chunk(name):
    chunk, api, details = KINDS[name]
    found = describe_chunk(4, chunk)
    provider = {"openai_chat": "openai_chat_completions", None: "unknown"}.get(api, api)
    assert (found["chunk_index"], found["provider"]) == (4, provider)
    assert {key: found.get(key) for key in details} == details


def test_a_choice_that_raises_costs_the_details_only():
    chunk = like(object="chat.completion.chunk", choices=[Raises()])
    assert describe_chunk(0, chunk) == {"chunk_index": 0, "provider": "openai_chat_completions"}
