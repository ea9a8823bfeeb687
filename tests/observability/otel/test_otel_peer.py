"""The same run exported by `nemo_relay` and by this library, to the same receiver: what is equal, and all that is not.

The differences on purpose are in OURS_ALONE, THEIRS_ALONE and OTHER_VALUES, by projection; whatever else
differs fails the test.
"""

import json

import nemo_relay
import pytest
from otlp_receiver import OtlpReceiver, plain
from spans import attributes_of, is_remote

import relay_mp

REQUEST = {
    "model": "gpt-4",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    "temperature": 0.5,
    "max_tokens": 10,
    "tools": [
        {"type": "function", "function": {"name": "search", "description": "d", "parameters": {"type": "object"}}},
    ],
}
CALL = {"id": "c1", "type": "function", "function": {"name": "search", "arguments": '{"q":1}'}}
RESPONSE = {
    "id": "r-1",
    "model": "gpt-4-x",
    "choices": [
        {"message": {"role": "assistant", "content": "Yes", "tool_calls": [CALL]}, "finish_reason": "tool_calls"},
    ],
    "usage": {
        "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 3},
    },
}  # fmt: skip
TRACE, PARENT = "4bf92f35-77b3-4da6-a3ce-929d0e0e4736", "01900000-0000-7000-80f0-67aa0ba902b7"

# What differs on purpose, by projection. Names are compared with `relay_mp` for `nemo_relay`.
OURS_ALONE = {
    "full": {
        "process.pid", "thread.id", "relay_mp.seq", "relay_mp.mark.seq",
        *(f"relay_mp.end.metadata.exception.{part}" for part in ("type", "message", "stacktrace")),  # of blocks too
    },
    "gen_ai": {
        "process.pid", "thread.id",
        "gen_ai.tool.call.arguments", "gen_ai.tool.call.result",  # the conventions have them, opt-in
        "gen_ai.tool.definitions",
        "gen_ai.retrieval.query.text",
    },
    "openinference": {
        "process.pid", "thread.id", "relay_mp.mark.seq",
        "agent.name", "tool.id", "llm.system", "llm.provider",
        "embedding.embeddings.0.embedding.text",
        "input.value", "input.mime_type", "output.value", "output.mime_type",  # of an LLM call: its JSON, not a text
        "relay_mp.handle_attributes",  # of LLM calls too
    },
}  # fmt: skip
THEIRS_ALONE = {
    # `input` and `output` repeat `data`; the instance's id is the parent_uuid of an outermost agent.
    "full": ("relay_mp.start.input", "relay_mp.end.output", "relay_mp.session.instance_id"),
    "gen_ai": (),
    "openinference": (
        "relay_mp.start.", "relay_mp.end.", "relay_mp.session.instance_id",  # repeat input.value and output.value
        "openinference.metadata.",  # repeats `metadata`
    ),
}  # fmt: skip
OTHER_VALUES = {
    # The model that answered is in end.data.model. An error's type is the exception's, the peer's is "_OTHER".
    "full": {"relay_mp.model_name", "error.type"},
    # The order of keys: compared as JSON below.
    "gen_ai": {"gen_ai.input.messages", "gen_ai.output.messages", "error.type"},
    # An LLM call's input and output as a text made of messages; a finish reason in Relay's words, not the API's; a
    # string as JSON rather than as it is.
    "openinference": {
        "input.value", "input.mime_type", "output.value", "output.mime_type", "llm.finish_reason", "tool.parameters",
        "tool_call.function.arguments", "metadata", "llm.invocation_parameters", "llm.tools.0.tool.json_schema",
    },
}  # fmt: skip


def scenario(library):
    """What both do."""
    scope, types = library.scope, library.ScopeType
    with scope.scope("planner", types.Agent, input={"q": "?"}, metadata={"user": "alice", "n": 1}) as agent:
        scope.event("planned", data={"steps": 2}, metadata={"m": 1})
        with scope.scope("step", types.Function):
            pass
        tool = library.tools.call("search", {"q": "x"}, tool_call_id="call-1")
        library.tools.call_end(tool, library.ToolExecutionResult({"found": 3}))
        call = library.llm.call("openai", library.LLMRequest({}, REQUEST), model_name="gpt-4")
        library.llm.call_end(call, RESPONSE)
        for kind in ("Retriever", "Embedder", "Reranker", "Guardrail", "Evaluator", "Custom", "Unknown"):
            with scope.scope(f"a {kind}", getattr(types, kind), input="in"):
                pass
        try:
            with scope.scope("fails", types.Function):
                raise ValueError("boom")
        except ValueError:
            pass
    scope.event("late", handle=agent, data=1)
    with scope.scope("late child", types.Function, handle=agent):
        pass
    for root in (TRACE, None):
        context = library.PropagationContext(PARENT, root)
        with library.use_scope_stack(library.create_scope_stack_from_propagation(context)):
            with scope.scope(f"under {root}", types.Agent):
                scope.event("inside")
            scope.event(f"mark under {root}")


def exported(library, otel_type):
    """The spans, by name."""
    with OtlpReceiver() as receiver:
        exporter = library.OpenTelemetrySubscriber(library.OpenTelemetryConfig(otel_type, receiver.url("traces")))
        exporter.register("traces")
        scenario(library)
        library.subscribers.flush()
        exporter.force_flush()
        exporter.deregister("traces")
        exporter.shutdown()
        return {span.name.removesuffix(" in"): span for span in receiver.spans}


@pytest.fixture(scope="module", params=["full", "gen_ai", "openinference"])
def both(request):
    """A projection, and the spans of the peer and of this library."""
    theirs = exported(nemo_relay, request.param)
    with relay_mp.session():
        ours = exported(relay_mp, request.param)
    return request.param, theirs, ours


def parent(spans, span):
    """The name of a span's parent, the id of one that is not here."""
    named = {other.span_id: name for name, other in spans.items()}
    return named.get(span.parent_span_id, span.parent_span_id.hex())


def test_spans_are_named_and_placed_as_the_peers(both):
    _, theirs, ours = both
    assert ours.keys() == theirs.keys()
    for name, span in theirs.items():
        assert parent(ours, ours[name]) == parent(theirs, span), name
        own = {"trace": span.trace_id[8:] == span.span_id, "remote": is_remote(span), "flags": span.flags}
        mine = ours[name]
        assert {
            "trace": mine.trace_id[8:] == mine.span_id, "remote": is_remote(mine), "flags": mine.flags,
        } == own, name  # fmt: skip
        if span.trace_id.hex() == TRACE.replace("-", ""):
            assert mine.trace_id == span.trace_id


def test_kinds_statuses_and_events_are_the_peers(both):
    _, theirs, ours = both
    for name, span in theirs.items():
        assert ours[name].kind == span.kind, name
        assert (ours[name].status.code, ours[name].status.message) == (span.status.code, span.status.message), name
        exceptions = ["exception"] if name == "fails" else []  # the peer has none
        assert [event.name for event in ours[name].events] == [*(event.name for event in span.events), *exceptions]


def test_ids_are_the_uuids_as_the_peers(both):
    otel_type, theirs, ours = both
    if otel_type == "gen_ai":
        return  # has no uuids
    for spans, prefix in ((theirs, "nemo_relay"), (ours, "relay_mp")):
        for span in spans.values():
            found = attributes_twice(span)
            uuid = found.get(f"{prefix}.uuid", found.get(f"{prefix}.mark.uuid"))
            assert uuid.replace("-", "")[16:] == span.span_id.hex()


def attributes_twice(span):
    """A span's attributes, where a key may be there twice, as in the peer's: the last counts."""
    return {pair.key: plain(pair.value) for pair in span.attributes}


def test_attributes_differ_from_the_peers_where_it_is_said(both):
    otel_type, theirs, ours = both
    varying = {"relay_mp.uuid", "relay_mp.parent_uuid", "relay_mp.mark.uuid", "relay_mp.mark.parent_uuid"}
    for name, span in theirs.items():
        expected = {k.replace("nemo_relay", "relay_mp"): v for k, v in attributes_twice(span).items()}
        expected = {k: v for k, v in expected.items() if not k.startswith(THEIRS_ALONE[otel_type] or "\0")}
        found = attributes_of(ours[name])
        assert found.keys() - expected.keys() <= OURS_ALONE[otel_type], name
        assert expected.keys() - found.keys() == set(), name
        for key in expected.keys() - varying - OTHER_VALUES[otel_type]:
            assert found[key] == expected[key], (name, key)


def test_messages_are_the_peers(both):
    otel_type, theirs, ours = both
    if otel_type != "gen_ai":
        return
    for key in ("gen_ai.input.messages", "gen_ai.output.messages"):
        mine, others = (json.loads(attributes_twice(spans["chat gpt-4"])[key]) for spans in (ours, theirs))
        assert mine == others
