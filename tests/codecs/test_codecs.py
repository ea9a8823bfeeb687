"""Codecs: what they read, against the peer; that a change is all that changes; what is not theirs is refused."""

import asyncio
import copy
import json
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import codec_cases
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_mp import LLMRequestInterceptOutcome, codecs, intercepts, llm, subscribers
from relay_mp._emit.calls import LLMRequest
from relay_mp.annotated import MAX_DEPTH, AnnotatedLLMRequest, AnnotatedLLMResponse
from relay_mp.codecs import merge
from relay_mp.errors import CallbackError, CodecError, PayloadError, RecordError
from relay_mp.events import KIND_END, KIND_START, decode, pack_record

CODECS = [
    codecs.OpenAIChatCodec,
    codecs.OpenAIResponsesCodec,
    codecs.AnthropicMessagesCodec,
    codecs.GeminiGenerateContentCodec,
    codecs.OCIGenAIChatCodec,
]

# ------------------------------------------------------------------------------------------ against the peer

# What differs from the peer on purpose: the start of the cases' names, how many they are, and why.
DIFFERENCES = {
    'OpenAIChatCodec request {"messages": [{"role": "user", "content": "hi"}], "function_call": null}': (
        1, "a null is what leaving the key out is, for every key"),
    'OpenAIResponsesCodec request {"input": "hi", "conversation": null}': (1, "as above"),
    "OCIGenAIChatCodec response null": (1, "a response that is no object is refused, as by every other codec"),
    "OCIGenAIChatCodec response []": (1, "as above"),
    'OCIGenAIChatCodec response "text"': (1, "as above"),
    "change AnthropicMessagesCodec: append call": (1, "there the call is lost without a word"),
    "change OpenAIResponsesCodec: append call": (1, "there the call is lost without a word"),
    "change GeminiGenerateContentCodec: last content": (1, "there a content's unknown keys are lost"),
    "change GeminiGenerateContentCodec: append answer": (1, "no id is made up for a call that had none"),
    "change GeminiGenerateContentCodec: reverse": (1, "there moved contents are mixed up with those in their place"),
    "change OCIGenAIChatCodec: drop the first": (1, "there messages that nobody changed lose unknown keys"),
    "change OCIGenAIChatCodec: reverse": (1, "as above"),
    "change COHERE: ": (4, "there turns that nobody changed lose tool calls and unknown keys"),
}  # fmt: skip

# What differs by a rule, on purpose; each case is under the first rule that explains it.
RULES = {
    "one odd field never loses the whole view; there it fails": 591,
    "usage is one model: Anthropic's cached tokens are the prompt's, Gemini's thoughts are output": 51,
    "calls without ids are told apart by their place; there all have the id ''": 61,
}
USAGE_ADDITIONS = {"uncached_input_tokens", "reasoning_tokens", "tool_use_tokens"}


def _rule(ours, theirs):
    """Which rule explains a difference, or None."""
    odd, counted, named = RULES
    if theirs == "RuntimeError":
        return odd if isinstance(ours, dict) else None
    if not isinstance(ours, dict) or not isinstance(theirs, dict):
        return None
    keys = {key for key in ours.keys() | theirs.keys() if _text(ours.get(key)) != _text(theirs.get(key))}
    if keys == {"usage"}:
        return counted
    ids = [call["id"] for call in theirs.get("tool_calls") or ()]
    return named if keys == {"tool_calls"} and "" in ids else None


def _without_additions(answer):
    """An answer without the counts that only this library has."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    if not usage:
        return answer
    return {**answer, "usage": {name: count for name, count in usage.items() if name not in USAGE_ADDITIONS}}


@pytest.fixture(scope="module")
def answers():
    """What both libraries answer, by the case's name: ours, the peer's."""
    cases = Path(codec_cases.__file__)
    peers = subprocess.run([sys.executable, cases], check=True, capture_output=True, text=True, timeout=60)
    ours = codec_cases.run(codecs, LLMRequest)
    return json.loads(json.dumps(ours)), json.loads(peers.stdout)


def _text(answer):
    return json.dumps(answer, sort_keys=True)


def test_answers_are_the_peers_but_for_the_listed_differences(answers):
    ours, peers = answers
    assert ours.keys() == peers.keys()
    assert len(ours) > 1500
    ours = {name: _without_additions(answer) for name, answer in ours.items()}
    different = [name for name in ours if _text(ours[name]) != _text(peers[name])]
    listed = {start: [name for name in different if name.startswith(start)] for start in DIFFERENCES}
    assert {start: len(names) for start, names in listed.items()} == {
        start: number for start, (number, _) in DIFFERENCES.items()
    }
    explained = {name for names in listed.values() for name in names}
    rules = Counter(_rule(ours[name], peers[name]) for name in different if name not in explained)
    assert rules == RULES


# ---------------------------------------------------------------------------------------- a change is all

unknown = st.dictionaries(
    st.sampled_from(["x_one", "x_two", "x_three"]),
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.floats(0, 1) | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=4,
    ),
    max_size=2,
)
words = st.text(max_size=12)
names = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
schema = st.fixed_dictionaries({"type": st.just("object")}, optional={"properties": unknown})
arguments = unknown.map(json.dumps)


def objects(required, /, **optional):
    """Objects with keys of their own and, now and then, unknown ones."""
    known = st.fixed_dictionaries(required, optional=optional)
    return st.builds(lambda one, other: {**other, **one}, known, st.one_of(st.just({}), unknown))


def tagged(kind, /, **keys):
    return objects({"type": st.just(kind), **keys})


def said(role, parts, /, **optional):
    content = words | st.lists(parts, max_size=3)
    return objects({"role": st.just(role), "content": content}, **optional)


chat_function = objects({"name": names}, description=words, parameters=schema, strict=st.booleans())
chat_parts = st.one_of(
    tagged("text", text=words),
    tagged("image_url", image_url=objects({"url": words}, detail=st.just("low"))),
    tagged("input_audio", input_audio=objects({"data": words, "format": st.just("wav")})),
    tagged("file", file=objects({}, file_id=words)),
    tagged("refusal", refusal=words),
    tagged("video", video=words),
)
called = objects({"name": names, "arguments": arguments})
chat_call = objects({"id": names, "type": st.just("function"), "function": called})
chat_messages = st.one_of(
    said("system", chat_parts),
    said("user", chat_parts, name=st.none() | names),
    st.builds(
        lambda message, empty: {**message, "content": None} if empty else message,
        said("assistant", chat_parts, tool_calls=st.lists(chat_call, max_size=2), refusal=st.none() | words),
        st.booleans(),
    ),
    objects({"role": st.just("tool"), "content": words, "tool_call_id": names}),
)
sampling = {"temperature": st.floats(0, 2) | st.integers(0, 2), "top_p": st.floats(0, 1)}
chat = objects(
    {"model": names, "messages": st.lists(chat_messages, max_size=4)},
    **sampling,
    stop=words | st.lists(words, max_size=2) | st.none(),
    max_tokens=st.none() | st.integers(1, 99),
    max_completion_tokens=st.integers(1, 99),
    tools=st.lists(tagged("function", function=chat_function) | tagged("custom", custom=unknown)),
    tool_choice=st.sampled_from(["auto", "none", "required"]) | tagged("allowed_tools", allowed_tools=unknown),
    stream=st.booleans(),
    stream_options=unknown,
    response_format=unknown,
    metadata=unknown,
    seed=st.integers(-9, 9),
    logit_bias=unknown,
)
anthropic_parts = st.one_of(
    tagged("text", text=words),
    tagged("image", source=unknown),
    tagged("document", source=unknown),
    tagged("tool_use", id=names, name=names, input=unknown),
    tagged("tool_result", tool_use_id=names, content=words | st.lists(tagged("text", text=words), max_size=2)),
    tagged("thinking", thinking=words, signature=words),
)
anthropic = objects(
    {
        "model": names,
        "max_tokens": st.integers(1, 99),
        "messages": st.lists(said("user", anthropic_parts) | said("assistant", anthropic_parts), max_size=4),
    },
    **sampling,
    system=words | st.lists(tagged("text", text=words), max_size=2),
    stop_sequences=st.lists(words, max_size=2),
    tools=st.lists(
        objects({"name": names, "input_schema": schema}, description=st.none() | words)
        | tagged("web_search_20250305", name=names),
        max_size=2,
    ),
    tool_choice=objects({"type": st.sampled_from(["auto", "any", "none"])}, disable_parallel_tool_use=st.booleans())
    | tagged("tool", name=names),
    top_k=st.integers(1, 9),
    thinking=unknown,
    metadata=unknown,
    stream=st.booleans(),
)
responses_parts = st.one_of(
    tagged("input_text", text=words),
    tagged("input_image", image_url=words),
    tagged("input_file", file_id=words),
    tagged("input_audio", input_audio=unknown),
)
responses_items = st.one_of(
    said("user", responses_parts),
    st.builds(lambda item: {"type": "message", **item}, said("user", responses_parts)),
    said("assistant", tagged("output_text", text=words, annotations=st.just([])) | tagged("refusal", refusal=words)),
    tagged("function_call", call_id=names, name=names, arguments=arguments),
    tagged("function_call_output", call_id=names, output=words),
    tagged("reasoning", id=names, summary=st.just([])),
)
responses = objects(
    {"model": names, "input": words | st.lists(responses_items, max_size=4)},
    **sampling,
    instructions=st.none() | words,
    max_output_tokens=st.integers(1, 99),
    tools=st.lists(
        objects({"type": st.just("function"), "name": names}, parameters=schema, strict=st.none() | st.booleans())
        | tagged("web_search", filters=unknown),
        max_size=2,
    ),
    tool_choice=st.sampled_from(["auto", "required"]) | tagged("function", name=names) | tagged("file_search"),
    reasoning=unknown,
    store=st.booleans(),
    text=unknown,
    truncation=st.just("auto"),
)
gemini_shown = objects({"text": words}) | objects({"inlineData": unknown}) | objects({"fileData": unknown})
gemini_thought = objects({"text": words, "thought": st.just(True)})
gemini_call = objects({"functionCall": objects({"name": names}, args=unknown, id=names)}, thoughtSignature=words)
gemini_answer = objects({"functionResponse": objects({"name": names, "response": unknown}, id=names)})
gemini_contents = st.one_of(
    objects({"role": st.just("user"), "parts": st.lists(gemini_shown, max_size=3)}),
    objects({"role": st.just("model"), "parts": st.lists(gemini_shown | gemini_thought | gemini_call, max_size=4)}),
    objects({"role": st.just("user"), "parts": st.lists(gemini_answer, min_size=1, max_size=3)}),
)
gemini = objects(
    {"contents": st.lists(gemini_contents, max_size=4)},
    model=names,
    systemInstruction=objects({"parts": st.lists(objects({"text": words}), max_size=2)}),
    generationConfig=objects({}, **{**sampling, "topK": st.integers(1, 9), "maxOutputTokens": st.integers(1, 99)}),
    tools=st.lists(
        objects({"functionDeclarations": st.lists(objects({"name": names}, description=words), max_size=2)})
        | objects({"googleSearch": unknown}),
        max_size=2,
    ),
    toolConfig=unknown,
    safetySettings=st.just([]),
)
oci_parts = tagged("TEXT", text=words) | tagged("IMAGE", imageUrl=unknown)
oci_call = objects({"type": st.just("FUNCTION"), "id": names, "name": names, "arguments": arguments})
oci_messages = st.one_of(
    *(objects({"role": st.just(role), "content": st.lists(oci_parts, max_size=2)}) for role in ("SYSTEM", "USER")),
    objects({"role": st.just("ASSISTANT")}, content=st.lists(oci_parts), toolCalls=st.lists(oci_call, max_size=2)),
    objects({"role": st.just("TOOL"), "content": st.lists(oci_parts, max_size=2), "toolCallId": names}),
)
oci_chat = objects(
    {"apiFormat": st.sampled_from(["GENERIC", "COHEREV2"]), "messages": st.lists(oci_messages, max_size=4)},
    temperature=st.floats(0, 2),
    maxTokens=st.integers(1, 99),
    stop=st.lists(words, max_size=2),
    tools=st.lists(tagged("FUNCTION", name=names), max_size=2),
    toolChoice=objects({"type": st.just("AUTO")}),
)
oci_turn = objects({"role": st.sampled_from(["USER", "CHATBOT", "SYSTEM"]), "message": words})
oci_cohere = objects(
    {"apiFormat": st.just("COHERE"), "message": words},
    chatHistory=st.lists(oci_turn | objects({"role": st.just("TOOL"), "toolResults": st.just([])}), max_size=3),
    preambleOverride=words,
    stopSequences=st.lists(words, max_size=2),
)
oci = objects(
    {"chatRequest": oci_chat | oci_cohere},
    compartmentId=names,
    servingMode=st.fixed_dictionaries({"servingType": st.just("ON_DEMAND"), "modelId": names}),
)
requests = st.one_of(
    st.tuples(st.just(codec), content)
    for codec, content in zip(CODECS, [chat, responses, anthropic, gemini, oci], strict=True)
)
HEADERS = {"x-request": "1"}


@given(requests)
def test_an_unchanged_view_gives_the_request_back_and_serializes(given_request):
    codec, content = given_request
    original = LLMRequest(HEADERS, content)
    kept = copy.deepcopy(original.content)
    view = codec().decode(original)
    encoded = codec().encode(view, original)
    assert merge.same(encoded.content, kept)
    assert encoded.headers == HEADERS
    assert merge.same(original.content, kept)
    assert AnnotatedLLMRequest.from_dict(json.loads(json.dumps(view.to_dict()))) == view
    assert pickle.loads(pickle.dumps(view)) == view


PLACES = {
    "OpenAIChatCodec": ("messages", "temperature"),
    "OpenAIResponsesCodec": ("input", "temperature"),
    "AnthropicMessagesCodec": ("messages", "temperature"),
    "GeminiGenerateContentCodec": ("contents", "generationConfig"),
    "OCIGenAIChatCodec": ("chatRequest", "chatRequest"),
}


@given(requests)
def test_a_parameter_is_changed_and_nothing_else(given_request):
    codec, content = given_request
    original = LLMRequest({}, content)
    view = codec().decode(original)
    view.params = {**(view.params or {}), "temperature": 0.125}
    encoded = codec().encode(view, original)
    assert codec().decode(encoded) == view
    place = PLACES[codec.__name__][1]
    expected = copy.deepcopy(original.content)
    if place == "temperature":
        expected["temperature"] = 0.125
    else:
        expected.setdefault(place, {})["temperature"] = 0.125
    assert merge.same(encoded.content, expected)


@given(requests)
def test_a_message_is_added_and_nothing_else(given_request):
    codec, content = given_request
    original = LLMRequest({}, content)
    view = codec().decode(original)
    before = view.messages
    view.messages = [*before, {"role": "user", "content": "and now?"}]
    encoded = codec().encode(view, original).content
    place = PLACES[codec.__name__][0]
    rest, added = copy.deepcopy(original.content), copy.deepcopy(encoded)
    old, new = rest.pop(place), added.pop(place)
    assert merge.same(added, rest)
    if isinstance(old, list):
        assert merge.same(new[: len(old)], old)
        assert len(new) == len(old) + 1
    assert codec().decode(LLMRequest({}, encoded)).messages == view.messages


@given(requests, st.randoms(use_true_random=False))
def test_moved_messages_keep_what_the_view_does_not_know(given_request, random):
    codec, content = given_request
    if codec in (codecs.GeminiGenerateContentCodec, codecs.OCIGenAIChatCodec) or isinstance(content.get("input"), str):
        return  # not one list of messages
    original = LLMRequest({}, content)
    view = codec().decode(original)
    place = PLACES[codec.__name__][0]
    order = list(range(len(view.messages)))
    random.shuffle(order)
    view.messages = [view.messages[index] for index in order]
    encoded = codec().encode(view, original).content[place]
    old = original.content[place]
    key = lambda item: json.dumps(item, sort_keys=True)  # noqa: E731
    assert sorted(map(key, encoded)) == sorted(map(key, old))


def test_a_text_within_a_message_is_changed_and_nothing_else():
    content = {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "old", "cache_control": {"ttl": "1h"}},
                    {"type": "image_url", "image_url": {"url": "u", "unknown": 1}, "beside": 2},
                ],
            },
            {"role": "assistant", "content": None, "name": None},
        ]
    }
    original = LLMRequest({}, content)
    view = codecs.OpenAIChatCodec().decode(original)
    messages = view.messages
    messages[0]["content"][0]["text"] = "new"
    view.messages = messages
    expected = copy.deepcopy(content)
    expected["messages"][0]["content"][0]["text"] = "new"
    assert codecs.OpenAIChatCodec().encode(view, original).content == expected


def test_a_thought_stays_where_it_is_when_what_is_beside_it_changes():
    content = {
        "contents": [
            {
                "role": "model",
                "parts": [
                    {"text": "old"},
                    {"text": "hm", "thought": True},
                    {"functionCall": {"name": "f", "args": {"q": 1}}, "thoughtSignature": "s"},
                ],
            }
        ]
    }
    original = LLMRequest({}, content)
    view = codecs.GeminiGenerateContentCodec().decode(original)
    messages = view.messages
    messages[0]["content"] = "new"
    view.messages = messages
    encoded = codecs.GeminiGenerateContentCodec().encode(view, original).content["contents"][0]["parts"]
    assert {"text": "hm", "thought": True} in encoded
    assert {"text": "new"} in encoded
    assert content["contents"][0]["parts"][2] in encoded
    assert len(encoded) == 3


@pytest.mark.parametrize("old", [None, {"parts": []}, {"parts": [{"text": "be brief", "x": 1}], "x": 2}])
@pytest.mark.parametrize("new", [None, "be very brief"])
def test_a_system_instruction_comes_changes_and_goes(old, new):
    content = {"contents": [], **({} if old is None else {"systemInstruction": old})}
    original = LLMRequest({}, content)
    view = codecs.GeminiGenerateContentCodec().decode(original)
    others = [message for message in view.messages if message["role"] != "system"]
    view.messages = [*([] if new is None else [{"role": "system", "content": new}]), *others]
    encoded = codecs.GeminiGenerateContentCodec().encode(view, original)
    assert codecs.GeminiGenerateContentCodec().decode(encoded).messages == view.messages
    if new is not None and old is not None and old["parts"]:
        assert encoded.content["systemInstruction"] == {"parts": [{"text": new, "x": 1}], "x": 2}


@pytest.mark.parametrize("codec", CODECS)
def test_a_change_of_another_api_is_refused(codec):
    content = codec_cases.CHANGED[codec.__name__]
    original = LLMRequest({}, content)
    view = codec().decode(original)
    view.api_specific = {"api": "custom", "api_name": "x", "data": 1}
    with pytest.raises(CodecError, match="api_specific is of 'custom'; expected"):
        codec().encode(view, original)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("content", [None, [], "text", 1])
def test_a_request_that_is_no_object_is_refused(codec, content):
    with pytest.raises(CodecError, match="expected an object"):
        codec().decode(LLMRequest({}, content))


@pytest.mark.parametrize("codec", CODECS)
def test_encode_refuses_what_is_no_view(codec):
    with pytest.raises(CodecError, match="annotated is a dict; expected AnnotatedLLMRequest"):
        codec().encode({}, LLMRequest({}, codec_cases.CHANGED[codec.__name__]))


@pytest.mark.parametrize("codec", CODECS)
def test_built_in_codecs_are_codecs_and_pickle(codec):
    assert isinstance(codec(), codecs.LlmCodec)
    assert isinstance(codec(), codecs.LlmResponseCodec)
    assert type(pickle.loads(pickle.dumps(codec()))) is codec


# -------------------------------------------------------------------------------------------------- views


def test_reading_a_field_gives_a_copy():
    view = AnnotatedLLMRequest([{"role": "user", "content": "hi"}])
    view.messages[0]["content"] = "changed"
    assert view.messages == [{"role": "user", "content": "hi"}]


def test_a_view_copies_what_it_is_given():
    messages = [{"role": "user", "content": "hi"}]
    view = AnnotatedLLMRequest(messages)
    messages[0]["content"] = "changed"
    assert view.last_user_message() == "hi"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("messages", [{"role": "wizard"}], r"messages\[0\].role is 'wizard'"),
        ("messages", [{"role": "user"}], r"messages\[0\] has no 'content'"),
        ("messages", None, "messages is None"),
        ("messages", [{"role": "user", "content": [{"type": "zip"}]}], r"messages\[0\].content\[0\].type is 'zip'"),
        ("params", {"temperature": "hot"}, "params.temperature is 'hot'"),
        ("params", {"max_tokens": -1}, "params.max_tokens is -1"),
        ("tools", [{"type": "function"}], r"tools\[0\] has no 'function'"),
        ("tool_choice", "maybe", "tool_choice is 'maybe'"),
        ("api_specific", {"api": "unknown"}, "api_specific.api is 'unknown'"),
        ("extra", {1: 2}, "extra has a key that is not a str"),
        ("extra", {"x": object()}, r"extra.x is <object"),
        ("top_logprobs", 2**64, "top_logprobs is"),
    ],
)
def test_a_value_of_another_shape_is_refused_by_place(field, value, message):
    view = AnnotatedLLMRequest([])
    kept = view.to_dict()
    with pytest.raises(PayloadError, match=message):
        setattr(view, field, value)
    assert view.to_dict() == kept


def test_a_cyclic_value_is_refused():
    cyclic = {}
    cyclic["self"] = cyclic
    with pytest.raises(PayloadError, match=f"nests deeper than {MAX_DEPTH}"):
        AnnotatedLLMRequest([], extra=cyclic)


def test_nesting_up_to_the_bound_is_kept():
    value = {"end": 1}
    for _ in range(MAX_DEPTH - 2):
        value = {"in": value}
    assert AnnotatedLLMRequest([], extra={"deep": value}).extra == {"deep": value}
    with pytest.raises(PayloadError):
        AnnotatedLLMRequest([], extra={"deep": {"one": value}})


def test_a_response_does_not_change():
    view = AnnotatedLLMResponse(id="r")
    with pytest.raises(AttributeError):
        view.id = "other"


def test_a_finish_reason_of_the_providers_own_is_serialized_as_unknown():
    view = AnnotatedLLMResponse(finish_reason="pause_turn")
    assert view.to_dict() == {"finish_reason": {"unknown": "pause_turn"}}
    assert AnnotatedLLMResponse.from_dict(view.to_dict()) == view
    with pytest.raises(PayloadError):
        AnnotatedLLMResponse(finish_reason={"other": "x"})


def test_texts_are_found():
    view = AnnotatedLLMRequest(
        [
            {
                "role": "developer",
                "content": [{"type": "refusal", "refusal": "r"}, {"type": "text", "text": "be brief"}],
            },
            {"role": "user", "content": "first"},
            {"role": "user", "content": [{"type": "image", "image": {}}]},
        ]
    )
    assert (view.system_prompt(), view.last_user_message(), view.has_tool_calls()) == ("be brief", "first", False)
    view.instructions = "be very brief"
    assert view.system_prompt() == "be very brief"
    view.messages = [{"role": "tool_call", "call_id": "c", "name": "f", "arguments": {}}]
    assert view.has_tool_calls()
    answer = AnnotatedLLMResponse(message=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])
    assert answer.response_text() == "a"


# ------------------------------------------------------------------------------------------------ detection


def event(kind, data, profile=None):
    record = pack_record(kind, b"1" * 16, None, 1, "call", "llm", data=data, category_profile=profile)
    return decode(record, 63, 1)


@given(requests)
def test_a_raw_request_is_recognized(given_request):
    codec, content = given_request
    body = LLMRequest({}, content).content
    found = codecs.detect_request(body)
    # Messages without anything of Anthropic's own are the same in both APIs.
    if codec is not codecs.AnthropicMessagesCodec or type(found) is codec:
        assert type(found) is codec or codec is codecs.OpenAIChatCodec
    start = event(KIND_START, {"content": body, "headers": {}})
    assert codecs.request_of(start) == found.decode(LLMRequest({}, content))


@pytest.mark.parametrize(
    ("codec", "response"),
    [
        (codecs.OpenAIChatCodec, codec_cases.CHAT_RESPONSE),
        (codecs.AnthropicMessagesCodec, codec_cases.ANTHROPIC_RESPONSE),
        (codecs.OpenAIResponsesCodec, codec_cases.RESPONSES_RESPONSE),
        (codecs.GeminiGenerateContentCodec, codec_cases.GEMINI_RESPONSE),
        (codecs.OCIGenAIChatCodec, codec_cases.OCI_RESPONSE),
    ],
)
def test_a_raw_response_is_recognized(codec, response):
    assert type(codecs.detect_response(response)) is codec
    assert codecs.response_of(event(KIND_END, response)) == codec().decode_response(response)
    assert codecs.response_of(event(KIND_START, response)) is None


@pytest.mark.parametrize("payload", [None, 1, "text", [], {}, {"messages": 1}, {"prompt": "x"}, {"choices": "x"}])
def test_what_is_of_no_provider_has_no_view(payload):
    assert codecs.detect_request(payload) is None
    assert codecs.detect_response(payload) is None
    assert codecs.request_of(event(KIND_START, {"content": payload})) is None
    assert codecs.response_of(event(KIND_END, payload)) is None


def test_what_is_odd_in_a_payload_leaves_the_rest_of_its_view():
    asked = codecs.request_of(event(KIND_START, {"content": {"messages": [1], "model": "m", "temperature": "hot"}}))
    kept = {"role": "provider_native", "provider": "openai_chat", "kind": "unknown", "value": 1}
    assert (asked.model, asked.messages, asked.params) == ("m", [kept], None)
    answered = codecs.response_of(event(KIND_END, {"choices": [1], "model": "m", "usage": {"prompt_tokens": 1.0}}))
    assert (answered.model, answered.usage) == ("m", {"prompt_tokens": 1})


@pytest.mark.parametrize(
    ("name", "headers", "model", "api", "provider"),
    [
        ("model", {}, "claude-x", "anthropic_messages", "anthropic"),
        ("anthropic", {}, "m", "anthropic_messages", "anthropic"),
        ("model", {"Anthropic-Version": "2023-06-01"}, "m", "anthropic_messages", "anthropic"),
        ("model", {}, "m", "openai_chat", "openai"),
        ("mistral", {}, "m", "openai_chat", "mistral_ai"),
    ],
)
def test_of_a_call_that_failed_name_headers_and_model_tell_the_provider(name, headers, model, api, provider):
    content = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    given = {"content": content, "headers": headers}
    start = decode(pack_record(KIND_START, b"1" * 16, None, 1, name, "llm", data=given), 1, 1)
    end = decode(pack_record(KIND_END, b"1" * 16, None, 2, name, "llm", data=None), 2, 1)
    call = codecs.call_of(start, end)
    assert (call.api, call.provider, call.response) == (api, provider, None)
    assert call.request.api_specific["api"] == api


def test_what_is_odd_in_an_annotation_leaves_the_rest_of_it():
    given = {"model": "m", "usage": {"prompt_tokens": -1, "completion_tokens": 2}, "tool_calls": [{"id": 1}], "mine": 3}
    end = event(KIND_END, None, {"annotated_response": given})
    view = codecs.response_of(end)
    assert (view.model, view.usage, view.tool_calls, view.extra) == ("m", {"completion_tokens": 2}, [], {"mine": 3})
    with pytest.raises(RecordError):
        _ = end.annotated_response


def test_the_annotation_goes_before_the_raw_payload():
    view = AnnotatedLLMRequest([], model="annotated")
    start = event(KIND_START, {"content": {"messages": [], "model": "raw"}}, {"annotated_request": view.to_dict()})
    assert codecs.request_of(start) == view
    damaged = event(KIND_START, {"content": {"messages": [], "model": "raw"}}, {"annotated_request": {"messages": 1}})
    assert codecs.request_of(damaged).model == "raw"
    answer = AnnotatedLLMResponse(id="annotated")
    end = event(KIND_END, codec_cases.CHAT_RESPONSE, {"annotated_response": answer.to_dict()})
    assert codecs.response_of(end) == answer


# -------------------------------------------------------------------------------------- codecs that fail


class FailingCodec:
    """Fails at the named step, and is OpenAI Chat's elsewhere."""

    def __init__(self, step):
        self.step = step
        self.inner = codecs.OpenAIChatCodec()

    def _do(self, step, *arguments):
        if self.step == step:
            raise LookupError(f"{step} failed")
        return 5 if self.step == f"{step} returns rubbish" else getattr(self.inner, step)(*arguments)

    def decode(self, request):
        return self._do("decode", request)

    def encode(self, annotated, original):
        return self._do("encode", annotated, original)

    def decode_response(self, response):
        return self._do("decode_response", response)


CHAT = LLMRequest({}, {"model": "m", "messages": [{"role": "user", "content": "hi"}]})


def call_with(codec=None, response_codec=None):
    send = lambda request: codec_cases.CHAT_RESPONSE  # noqa: E731
    return asyncio.run(llm.execute("provider", CHAT, send, codec=codec, response_codec=response_codec))


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("decode", LookupError),
        ("encode", LookupError),
        ("decode returns rubbish", PayloadError),
        ("encode returns rubbish", CallbackError),
    ],
)
def test_a_request_codec_that_fails_where_an_intercept_needs_it_fails_the_call_before_its_start(seen, step, error):
    intercepts.register_llm_request(
        "i", 1, False, lambda name, request, view: LLMRequestInterceptOutcome(request, view)
    )
    try:
        with pytest.raises(error):
            call_with(codec=FailingCodec(step))
        subscribers.flush()
        assert seen == []
        assert call_with(codec=FailingCodec("none")) == codec_cases.CHAT_RESPONSE
    finally:
        intercepts.deregister_llm_request("i")


@pytest.mark.parametrize("step", ["decode", "encode", "decode returns rubbish", "encode returns rubbish"])
def test_a_request_codec_that_fails_where_only_events_need_it_fails_no_call(seen, step):
    assert call_with(codec=FailingCodec(step)) == codec_cases.CHAT_RESPONSE
    subscribers.flush()
    assert (seen[0].annotated_request is None) == step.startswith("decode")


@pytest.mark.parametrize("step", ["decode_response", "decode_response returns rubbish"])
def test_a_response_codec_that_fails_leaves_the_call_and_its_end_event(seen, step):
    assert call_with(codec=FailingCodec(step), response_codec=FailingCodec(step)) == codec_cases.CHAT_RESPONSE
    subscribers.flush()
    start, end = seen
    assert start.annotated_request.model == "m"
    assert end.annotated_response is None
    assert end.data == codec_cases.CHAT_RESPONSE
    assert end.metadata["otel.status_code"] == "OK"


def test_events_give_their_annotations_as_views(seen):
    call_with(codecs.OpenAIChatCodec(), codecs.OpenAIChatCodec())
    subscribers.flush()
    start, end = seen
    assert start.annotated_request == codecs.OpenAIChatCodec().decode(CHAT)
    assert end.annotated_response == codecs.OpenAIChatCodec().decode_response(codec_cases.CHAT_RESPONSE)
    assert (start.annotated_response, end.annotated_request) == (None, None)


def test_a_damaged_annotation_is_no_view():
    damaged = event(KIND_START, None, {"annotated_request": {"messages": 1}})
    with pytest.raises(RecordError, match="annotated_request is malformed: messages is 1"):
        _ = damaged.annotated_request
