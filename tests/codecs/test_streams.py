"""Streamed responses through `llm.stream_execute`: what the end event has, also of one that is broken off."""

import asyncio

import pytest
from wire_payloads import CASES

from relay_mp import LLMRequest, codecs, llm, subscribers

STREAMS = {case.name: case for case in CASES if isinstance(case.response, list)}


def stream(case, collector=None, stop_after=None, **options):
    """Calls the case's provider, and reads its chunks, or some of them."""
    chunks = codecs.StreamCollector() if collector is None else collector

    async def provider(_request):
        for chunk in case.response:
            yield chunk

    async def call():
        found = await llm.stream_execute(
            "model", LLMRequest({}, case.request), provider, chunks, chunks.response, **options
        )
        read = 0
        async for _ in found:
            read += 1
            if read == stop_after:
                await found.aclose()
                break

    asyncio.run(call())
    subscribers.flush()


@pytest.mark.parametrize("name", STREAMS)
def test_a_collectors_response_is_that_of_the_chunks(seen, name):
    case = STREAMS[name]
    stream(case)
    end = seen[-1]
    assert end.scope_category == "end"
    view = codecs.response_of(end)
    assert view == codecs.detect_response(case.response).decode_response(case.response)
    assert isinstance(end.data, dict)
    assert (view.message, view.finish_reason) == (case.message, case.reason)


def test_a_response_codec_annotates_a_streams_end(seen):
    stream(STREAMS["Anthropic stream: thinking and input_json_delta"], response_codec=codecs.AnthropicMessagesCodec())
    assert seen[-1].annotated_response.reasoning_content == "Easy."
    assert seen[-1].annotated_response.tool_calls[0]["arguments"] == {"a": 2, "b": 2}


def test_a_stream_that_its_reader_leaves_is_marked_incomplete(seen):
    case = STREAMS["chat stream: usage in the last chunk"]
    stream(case, stop_after=2, response_codec=codecs.OpenAIChatCodec())
    end = seen[-1]
    assert end.metadata["otel.status_code"] == "ERROR"
    view = end.annotated_response
    assert (view.incomplete, view.message, view.usage, view.finish_reason) == (True, "4", None, None)


@pytest.mark.parametrize("name", STREAMS)
def test_every_beginning_of_a_stream_has_a_view_that_invents_no_tokens(name):
    case = STREAMS[name]
    codec = codecs.detect_response(case.response)
    whole = codec.decode_response(case.response)
    for length in range(1, len(case.response)):
        begun = case.response[:length]
        if codecs.detect_response(begun) is None:
            continue
        view = codec.decode_response(begun)
        said, known = view.message or "", view.usage or {}
        assert isinstance(said, str)
        assert (whole.message or "").startswith(said)
        for count in known.values():
            assert count <= max((whole.usage or {}).values(), default=0)
        assert view.incomplete is True or view.finish_reason is not None


def test_chunks_of_no_known_api_are_kept_as_they_are():
    collector = codecs.StreamCollector()
    for chunk in ("a", {"x": 1}):
        collector(chunk)
    assert collector.response() == ["a", {"x": 1}]


def test_chunks_of_a_client_are_collected_as_json():
    from openai.types.chat import ChatCompletionChunk

    collector = codecs.StreamCollector()
    for chunk in STREAMS["chat stream: two tool calls in deltas"].response:
        collector(ChatCompletionChunk.model_validate({"created": 1, **chunk}))
    view = codecs.OpenAIChatCodec().decode_response(collector.response())
    assert [call["arguments"] for call in view.tool_calls] == [{"a": 2, "b": 2}, {}]


def test_a_chunk_that_cannot_be_made_json_loses_no_other():
    class Odd:
        def to_dict(self):
            raise ValueError("of the client")

    case = next(case for case in STREAMS.values() if case.message == "4")
    collector = codecs.StreamCollector()
    for chunk in [*case.response, Odd()]:
        collector(chunk)
    assert collector.response() == codecs.streams.assemble(case.response)


@pytest.mark.parametrize("repeated", [False, True])
def test_deltas_of_calls_without_numbers_and_ids_stay_apart(repeated):
    """Whole calls in chunks of their own, and one call whose name is sent with every part of its arguments."""
    texts = ['{"a":', "1}"] if repeated else ['{"a":1}', '{"a":1}']
    deltas = [{"tool_calls": [{"function": {"name": "f", "arguments": text}}]} for text in texts]
    chunks = [{"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    view = codecs.OpenAIChatCodec().decode_response(chunks)
    assert [call["arguments"] for call in view.tool_calls] == [{"a": 1}] * (1 if repeated else 2)
    assert len({call["id"] for call in view.tool_calls}) == len(view.tool_calls)
