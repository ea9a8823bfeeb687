"""LLM calls: manual, managed and streamed; credentials, traces, codecs, and what bad input does to them."""

import asyncio
import gc
import json
from pathlib import Path

import pytest

import relay_mp
from relay_mp import LLMAttributes, LLMRequest, LLMRequestInterceptOutcome, ScopeType

strict = pytest.mark.parametrize("session", [{"strict": True}], indirect=True, ids=["strict"])
REQUEST = LLMRequest({"X-A": "1"}, {"model": "m"})
SECRET = "s3cr3t-value"
CREDENTIALS = {
    "Authorization": SECRET,
    "proxy-authorization": SECRET,
    "COOKIE": SECRET,
    "X-Api-Key": SECRET,
    " api-key": SECRET,
    "x-goog-api-key": SECRET,
    "anthropic-api-key": SECRET,
}
INTERRUPTED = {"otel.status_code": "ERROR", "otel.status_description": "stream closed before its end"}


def run(coroutine):
    return asyncio.run(coroutine)


@pytest.fixture(autouse=True)
def _no_middleware_left():
    yield
    assert relay_mp.runtime_registrations.list_runtime_registrations() == []


# --------------------------------------------------------------------------------- requests, manual


def test_a_request_is_its_own_copy_and_hides_its_values():
    headers, content = {"b": "1", "a": SECRET}, {"messages": [{"n": (1, 2)}]}
    request = LLMRequest(headers, content)
    content["messages"].append(1)
    request.content["messages"].append(2)
    assert (list(request.headers), request.content) == (["a", "b"], {"messages": [{"n": [1, 2]}]})
    assert SECRET not in repr(request)
    for bad in (lambda: LLMRequest(None, {}), lambda: LLMRequest([], {})):
        with pytest.raises(TypeError):
            bad()


@strict
def test_in_strict_mode_a_request_that_cannot_be_recorded_is_refused(session):
    for headers, content in [({"a": object()}, {}), ({}, object()), ({1: 2}, {})]:
        with pytest.raises(relay_mp.PayloadError):
            LLMRequest(headers, content)


def test_a_body_that_cannot_be_recorded_reaches_the_provider_as_it_is(session, seen):
    body = {"image": b"\x89PNG", "caption": "cat"}
    given = []
    run(relay_mp.llm.execute("p", LLMRequest({}, body), lambda request: given.append(request.content)))
    session.flush()
    assert given[0] is body
    assert seen[0].data["content"] == {"caption": "cat", "image": {"relay_mp.unrecorded": {"type": "bytes"}}}


@pytest.mark.parametrize("content", [{"b": [1, {"é": None}], "a": 0.5}, [], "text", 7, 0.5, True, None])
@pytest.mark.parametrize("headers", [{}, CREDENTIALS, {"X-B": 1, **CREDENTIALS, "X-A": [None]}])
def test_every_call_with_a_request_shows_the_same_of_it(session, seen, headers, content):
    request = LLMRequest(headers, content)
    calls = [relay_mp.llm.call("p", request) for _ in range(3)]
    relay_mp.llm.call("p", request.with_headers({"Cookie": SECRET, "X-C": 1}))
    relay_mp.guardrails.register_scope_sanitize_start("all", 1, lambda event, fields: fields)
    calls.append(relay_mp.llm.call("p", request))  # by way of who changes events
    relay_mp.guardrails.deregister_scope_sanitize_start("all")
    session.flush()
    expected = {"content": content, "headers": {k: v for k, v in sorted(headers.items()) if v != SECRET}}
    expected = [json.dumps(expected, sort_keys=True)] * len(calls)
    other = json.dumps({"content": content, "headers": {"X-C": 1}}, sort_keys=True)
    assert [json.dumps(event.to_dict()["data"]) for event in seen] == [*expected[:3], other, expected[3]]


def test_manual_call_is_a_pair_of_events(session, seen):
    handle = relay_mp.llm.call(
        "openai", REQUEST, data={"d": 1}, metadata={"m": 1}, model_name="mm", attributes=LLMAttributes(3)
    )
    relay_mp.llm.call_end(handle, {"r": 1}, metadata={"n": 2}, annotated_response={"id": "x"})
    session.flush()
    start, end = (event.to_dict() for event in seen)
    assert (start["category"], start["attributes"]) == ("llm", ["stateful", "streaming"])
    assert start["data"] == {"content": {"model": "m"}, "headers": {"X-A": "1"}}
    assert start["category_profile"] == {"model_name": "mm"}
    assert (end["uuid"], end["data"]) == (handle.uuid, {"r": 1})
    assert end["metadata"] == {"m": 1, "n": 2, "otel.status_code": "OK"}
    assert end["category_profile"] == {"model_name": "mm", "annotated_response": {"id": "x"}}


@strict
def test_bad_arguments_are_refused_and_emit_nothing(session, seen):
    handle = relay_mp.llm.call("p", REQUEST)
    session.flush()
    seen.clear()
    for make, error in [
        (lambda: relay_mp.llm.call("p", {"a": 1}), TypeError),
        (lambda: relay_mp.llm.call(1, REQUEST), TypeError),
        (lambda: relay_mp.llm.call("p", REQUEST, model_name=1), TypeError),
        (lambda: relay_mp.llm.call("p", REQUEST, attributes=1), TypeError),
        (lambda: relay_mp.llm.call("p", REQUEST, data=object()), relay_mp.PayloadError),
        (lambda: relay_mp.llm.call_end(3, 1), TypeError),
        (lambda: relay_mp.llm.call_end(handle, object()), relay_mp.PayloadError),
        (lambda: relay_mp.llm.call_end(handle, 1, annotated_response=3), relay_mp.PayloadError),
        (lambda: run(relay_mp.llm.execute("p", 3, lambda request: 1)), TypeError),
    ]:
        with pytest.raises(error):
            make()
    session.flush()
    assert seen == []


# -------------------------------------------------------------------- credentials, traces, managed


def test_credentials_reach_the_provider_and_never_shared_memory(session, seen):
    given = []

    def leak(request, context):
        assert SECRET not in str(request.headers)
        return LLMRequest({**CREDENTIALS, "kept": "1"}, request.content)

    async def main():
        await relay_mp.llm.execute("p", request, lambda r: given.append(r.headers))
        relay_mp.guardrails.register_llm_sanitize_request("leak", 0, leak)
        await relay_mp.llm.execute("p", request, lambda r: given.append(r.headers))
        relay_mp.guardrails.deregister_llm_sanitize_request("leak")
        relay_mp.llm.call("p", request)

    request = LLMRequest({**CREDENTIALS, "X-A": "1"}, {"model": "m"})
    run(main())
    session.flush()
    assert [[headers[name] for name in CREDENTIALS] for headers in given] == [[SECRET] * len(CREDENTIALS)] * 2
    shown = [e.data["headers"] for e in seen if e.scope_category == "start"]
    assert shown == [{"X-A": "1"}, {"kept": "1"}, {"X-A": "1"}]
    assert SECRET.encode() not in Path(session.path).read_bytes()


def test_the_provider_gets_one_traceparent_that_names_the_call(session, seen):
    given = []

    async def main():
        theirs = LLMRequest({"TraceParent": "theirs"}, {})
        await relay_mp.llm.execute("p", theirs, lambda r: given.append(r.headers))
        with relay_mp.scope.scope("agent", ScopeType.Agent) as scope:
            await relay_mp.llm.execute("p", theirs, lambda r: given.append(r.headers))
            outcome = await relay_mp.llm.request_intercepts("p", theirs)
            assert outcome.request.headers == {"traceparent": relay_mp.capture_traceparent()}
        return scope

    scope = run(main())
    session.flush()
    calls = [e for e in seen if e.name == "p" and e.scope_category == "start"]
    traces = [calls[0].uuid, scope.uuid]
    assert given == [
        {"traceparent": f"00-{trace.replace('-', '')}-{call.uuid.replace('-', '')[16:]}-01"}
        for trace, call in zip(traces, calls, strict=True)
    ]


def test_no_trace_is_made_up_where_nobody_listens():
    given = []
    run(relay_mp.llm.execute("p", REQUEST, given.append))
    assert given[0].headers == {"X-A": "1"}


def test_failures_cancellations_and_values_that_are_none(session, seen):
    def failing(request):
        raise KeyError("k")

    async def main():
        for provider, error in ((failing, KeyError), (3, TypeError)):
            with pytest.raises(error):
                await relay_mp.llm.execute("p", REQUEST, provider, data={"d": 1})
        assert await relay_mp.llm.execute("p", REQUEST, lambda request: None, data={"d": 2}) is None

    run(main())
    session.flush()
    ends = [e for e in seen if e.scope_category == "end"]
    assert [e.metadata.get("exception.type") for e in ends] == ["KeyError", "TypeError", None]
    assert [e.data for e in ends] == [{"d": 1}] * 2 + [{"d": 2}]


@strict
def test_in_strict_mode_a_response_that_cannot_be_recorded_fails_the_call(session, seen):
    with pytest.raises(relay_mp.PayloadError, match="^data: unsupported type object"):
        run(relay_mp.llm.execute("p", REQUEST, lambda request: object(), data={"d": 1}))
    session.flush()
    assert (seen[-1].data, seen[-1].metadata["otel.status_code"]) == ({"d": 1}, "ERROR")


# ------------------------------------------------------------------------------------------- codecs


class Codec:
    """The smallest codec there can be."""

    def __init__(self, failing=()):
        self.failing = failing

    def decode(self, request):
        if "decode" in self.failing:
            raise ValueError("decode")
        return View(request.content)

    def encode(self, view, original):
        if "encode" in self.failing:
            return {"not": "a request"}
        return LLMRequest({"dropped": "1"}, view.fields)

    def decode_response(self, response):
        if "decode_response" in self.failing:
            raise ValueError("decode_response")
        return {"seen": response}


class View:
    def __init__(self, fields):
        self.fields = fields

    def to_dict(self):
        return {"view": self.fields}


@pytest.fixture
def request_intercept():
    names = []

    def register(callback):
        names.append(f"intercept {len(names)}")
        relay_mp.intercepts.register_llm_request(names[-1], 0, False, callback)

    yield register
    for name in names:
        relay_mp.intercepts.deregister_llm_request(name)


def test_a_codec_shows_the_request_to_intercepts_and_writes_it_back(session, seen, request_intercept):
    def change(name, request, view):
        view.fields["model"] = "changed"
        return LLMRequestInterceptOutcome(request, view)

    request_intercept(change)
    given = []
    run(relay_mp.llm.execute("p", REQUEST, lambda r: given.append(r) or 5, codec=Codec(), response_codec=Codec()))
    session.flush()
    start, end = seen
    assert given[0].content == {"model": "changed"}
    assert start.data == {"content": {"model": "changed"}, "headers": {"X-A": "1"}}
    assert start.category_profile == {"annotated_request": {"view": {"model": "changed"}}}
    assert end.category_profile == {"annotated_response": {"seen": 5}}


def test_with_a_codec_an_intercept_changes_the_view_only(session, seen, request_intercept):
    outcomes = [
        lambda name, request, view: LLMRequestInterceptOutcome(request),
        lambda name, request, view: LLMRequestInterceptOutcome(LLMRequest({}, {"other": 1}), view),
    ]
    for outcome in outcomes:
        request_intercept(outcome)
        with pytest.raises(relay_mp.CallbackError, match="left annotated_request out|changed the request"):
            run(relay_mp.llm.execute("p", REQUEST, lambda request: 1, codec=Codec()))
    session.flush()
    assert seen == []


def test_a_request_codec_that_fails_where_an_intercept_needs_it_fails_the_call(session, seen, request_intercept):
    request_intercept(lambda name, request, view: LLMRequestInterceptOutcome(request, view))
    with pytest.raises(ValueError, match="decode"):
        run(relay_mp.llm.execute("p", REQUEST, lambda request: 1, codec=Codec(["decode"])))
    with pytest.raises(relay_mp.CallbackError, match="encode returned a dict; expected LLMRequest"):
        run(relay_mp.llm.execute("p", REQUEST, lambda request: 1, codec=Codec(["encode"])))
    session.flush()
    assert seen == []


def test_a_codec_that_fails_where_only_events_need_it_costs_the_annotation(session, seen):
    assert run(relay_mp.llm.execute("p", REQUEST, lambda r: 1, codec=Codec(["decode"]))) == 1
    session.flush()
    assert [event.category_profile for event in seen] == [{}, {}]
    assert run(relay_mp.llm.execute("p", REQUEST, lambda r: 1, response_codec=Codec(["decode_response"]))) == 1
    session.flush()
    assert (seen[-1].data, seen[-1].category_profile) == (1, {})


def test_annotations_follow_what_sanitizers_left(session, seen):
    relay_mp.guardrails.register_llm_sanitize_request("s", 0, lambda request, context: LLMRequest({}, {"red": 1}))
    relay_mp.guardrails.register_llm_sanitize_response("s", 0, lambda response, context: "red")
    try:
        run(relay_mp.llm.execute("p", REQUEST, lambda r: "secret", codec=Codec(), response_codec=Codec()))
        relay_mp.llm.call_end(relay_mp.llm.call("p", REQUEST), "secret", annotated_response={"text": "secret"})
    finally:
        relay_mp.guardrails.deregister_llm_sanitize_request("s")
        relay_mp.guardrails.deregister_llm_sanitize_response("s")
    session.flush()
    assert [e.category_profile for e in seen] == [
        {"annotated_request": {"view": {"red": 1}}}, {"annotated_response": {"seen": "red"}}, {}, {},
    ]  # fmt: skip
    assert not any("secret" in e.to_json() for e in seen)


def test_sanitizers_are_told_the_codec():
    class Named(Codec):
        codec_id = "mine"

    told = []

    def sanitizer(request, context):
        told.append((*context.codec, type(context.resolve_codec()).__name__))
        return request

    with relay_mp.session():
        relay_mp.subscribers.register("s", lambda event: None)
        relay_mp.guardrails.register_llm_sanitize_request("s", 0, sanitizer)
        for codec in (None, Codec(), Named()):
            run(relay_mp.llm.execute("p", REQUEST, lambda request: 1, codec=codec))
        relay_mp.guardrails.deregister_llm_sanitize_request("s")
    assert told == [("none", None, "NoneType"), ("opaque", None, "Codec"), ("runtime", "mine", "Named")]


# ------------------------------------------------------------------------------------------ streams


class Reading:
    """One streamed call: its collector and finalizer, and what became of its source."""

    def __init__(self, failing=()):
        self.failing = failing
        self.chunks = []
        self.finalized = 0
        self.closed = False

    async def provider(self, request):
        try:
            for index in range(3):
                if "provider" in self.failing and index == 2:
                    raise KeyError("k")
                yield object() if "chunk" in self.failing and index == 1 else {"i": index}
        finally:
            self.closed = True

    def collector(self, chunk):
        if "collector" in self.failing:
            raise KeyError("collector")
        self.chunks.append(chunk)

    def finalizer(self):
        self.finalized += 1
        if "finalizer" in self.failing:
            raise KeyError("finalizer")
        return {"n": len(self.chunks)}

    async def open(self, provider=None, **options):
        provider = provider or self.provider
        return await relay_mp.llm.stream_execute("p", REQUEST, provider, self.collector, self.finalizer, **options)


def end_of(session, seen):
    session.flush()
    (end,) = [e for e in seen if e.kind == "scope" and e.scope_category == "end"]
    return end


def chunk_marks(seen):
    return [e.data["chunk_index"] for e in seen if e.name == "llm.chunk"]


def test_a_stream_is_collected_finalized_and_ended_once(session, seen):
    async def main():
        stream = await (await reading.open())
        assert [chunk async for chunk in stream] == [{"i": 0}, {"i": 1}, {"i": 2}]
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
            await stream.aclose()

    reading = Reading()
    run(main())
    end = end_of(session, seen)
    assert (end.data, end.metadata, reading.finalized) == ({"n": 3}, {"otel.status_code": "OK"}, 1)
    assert chunk_marks(seen) == [0, 1, 2]
    assert {e.parent_uuid for e in seen if e.name == "llm.chunk"} == {end.uuid}


def test_a_stream_that_is_closed_early_closes_its_source_and_is_interrupted(session, seen):
    async def main():
        stream = await reading.open()
        await anext(stream)
        await stream.aclose()
        assert reading.closed
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    reading = Reading()
    run(main())
    end = end_of(session, seen)
    assert (end.data, end.metadata, reading.finalized, chunk_marks(seen)) == ({"n": 1}, INTERRUPTED, 1, [0])


def test_a_stream_that_is_dropped_is_interrupted(session, seen):
    async def main():
        stream = await reading.open()
        await anext(stream)
        del stream
        gc.collect()

    reading = Reading()
    run(main())
    end = end_of(session, seen)
    assert (end.data, end.metadata, reading.finalized) == ({"n": 1}, INTERRUPTED, 1)


def test_a_reader_that_is_cancelled_interrupts_the_stream(session, seen):
    async def waiting(request):
        yield {"i": 0}
        ready.set()
        await asyncio.Event().wait()

    async def read():
        return [chunk async for chunk in await reading.open(waiting)]

    async def main():
        task = asyncio.create_task(read())
        await ready.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    reading, ready = Reading(), asyncio.Event()
    run(main())
    end = end_of(session, seen)
    assert (end.data, end.metadata) == ({"n": 1}, INTERRUPTED)


@pytest.mark.parametrize(
    ("failing", "data", "kind"),
    [
        ("provider", {"n": 2}, "KeyError"),
        ("collector", {"n": 0}, "KeyError"),
    ],
)
def test_what_fails_in_a_stream_ends_it_with_error(session, seen, failing, data, kind):
    async def main():
        stream = await reading.open()
        with pytest.raises(KeyError):
            async for _ in stream:
                pass
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    reading = Reading([failing])
    run(main())
    end = end_of(session, seen)
    assert (end.data, end.metadata["otel.status_code"], end.metadata.get("exception.type")) == (data, "ERROR", kind)
    assert reading.closed


def test_a_chunk_that_cannot_be_recorded_reaches_the_reader_as_it_is(session, seen):
    async def main():
        return [chunk async for chunk in await reading.open()]

    reading = Reading(["chunk"])
    assert [type(chunk) for chunk in run(main())] == [dict, object, dict]
    assert end_of(session, seen).metadata == {"otel.status_code": "OK"}


def test_a_finalizer_that_fails_leaves_the_end_without_data(session, seen):
    async def main():
        return [chunk async for chunk in await Reading(["finalizer"]).open()]

    assert len(run(main())) == 3
    end = end_of(session, seen)
    assert (end.data, end.metadata) == (None, {"otel.status_code": "OK"})


def test_what_fails_before_there_is_a_stream_is_raised_by_the_call(session, seen):
    async def failing(request):
        raise KeyError("k")

    for provider, error, match in [
        (failing, KeyError, "k"),
        (lambda request: 1, relay_mp.CallbackError, "iterator"),
        (3, TypeError, "callable"),
    ]:
        with pytest.raises(error, match=match):
            run(Reading().open(provider))
    session.flush()
    assert [e.scope_category for e in seen] == ["start", "end"] * 3


def test_a_source_keeps_its_scopes_to_itself(session, seen):
    async def provider(request):
        with relay_mp.scope.scope("source", ScopeType.Function):
            for index in range(2):
                relay_mp.scope.event(f"from source {index}")
                yield index

    async def main():
        with relay_mp.scope.scope("reader", ScopeType.Agent) as reader:
            async for _ in await Reading().open(provider):
                relay_mp.scope.event("from reader")
                assert relay_mp.scope.get_handle() == reader

    run(main())
    session.flush()
    starts = {e.name: e.uuid for e in seen if e.kind == "scope" and e.scope_category == "start"}
    assert {e.parent_uuid for e in seen if e.name == "from reader"} == {starts["reader"]}
    assert {e.parent_uuid for e in seen if e.name.startswith("from source")} == {starts["source"]}
    assert [e.name for e in seen if e.kind == "scope" and e.scope_category == "end"] == ["source", "p", "reader"]


def test_two_readers_of_one_stream_share_its_chunks(session, seen):
    async def main():
        stream = await Reading().open()
        first = await asyncio.gather(anext(stream), anext(stream))
        return [*first, *[chunk async for chunk in stream]]

    assert run(main()) == [{"i": 0}, {"i": 1}, {"i": 2}]
    assert end_of(session, seen).data == {"n": 3}


def test_a_continuation_of_a_stream_works_until_the_intercepts_stream_has_ended(session, seen):
    kept = []

    async def lazily(request, next_call):
        kept.append(next_call)
        for _ in range(2):
            async for chunk in await next_call(request):
                yield chunk

    async def main():
        chunks = [chunk async for chunk in await Reading().open()]
        with pytest.raises(relay_mp.CallbackError, match="has ended"):
            await kept[0](REQUEST)
        return chunks

    relay_mp.intercepts.register_llm_stream_execution("lazily", 0, lazily)
    try:
        assert len(run(main())) == 6
    finally:
        relay_mp.intercepts.deregister_llm_stream_execution("lazily")
    assert end_of(session, seen).data == {"n": 6}


def test_chunk_marks_tell_the_kind_of_chunk_and_not_its_text(session, seen):
    chunks = [
        {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": SECRET}}]},
        {"object": "chat.completion.chunk", "choices": None, "usage": {"total_tokens": 3}},
        {"type": "content_block_delta", "delta": {"text": SECRET}},
        {"type": "response.output_text.delta", "delta": SECRET},
        SECRET,
    ]

    async def provider(request):
        for chunk in chunks:
            yield chunk

    async def main():
        return [chunk async for chunk in await Reading().open(provider)]

    assert run(main()) == chunks
    session.flush()
    providers = [e.data["provider"] for e in seen if e.name == "llm.chunk"]
    assert providers == ["openai_chat_completions"] * 2 + ["anthropic_messages", "openai_responses", "unknown"]
    assert not any(SECRET in e.to_json() for e in seen if e.name == "llm.chunk")
