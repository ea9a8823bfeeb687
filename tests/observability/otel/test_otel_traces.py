"""OpenTelemetry traces: which span stands where, says what, and goes to whom."""

import json
import random
import uuid as uuids

import grpc
import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from otlp_receiver import PROTOCOLS, OtlpReceiver
from spans import STATUSES, attributes_of, by_name, is_remote

import relay_mp
from relay_mp import (
    OpenTelemetryConfig,
    OpenTelemetrySubscriber,
    PropagationContext,
    ScopeType,
    create_scope_stack_from_propagation,
    llm,
    scope,
    tools,
    use_scope_stack,
)
from relay_mp._native import core
from relay_mp._native.encoder import pack
from relay_mp.errors import RecordError
from relay_mp.events import decode, pack_record
from relay_mp.observability.otel import places
from relay_mp.observability.otel import spans as spans_module
from relay_mp.observability.otel import traces_sink as traces_module
from relay_mp.observability.otel.traces_sink import TracesSink

PROJECTIONS = ("full", "gen_ai", "openinference")
REQUEST = {
    "model": "gpt-4",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Look."}, {"type": "image_url", "image_url": {"url": "u"}}],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c0", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
        },
        {"role": "tool", "tool_call_id": "c0", "content": "3"},
    ],
    "temperature": 0.5,
    "max_tokens": 10,
    "stop": ["x", "y"],
    "seed": 7,
    "tools": [{"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}],
}
RESPONSE = {
    "id": "r-1",
    "model": "gpt-4-x",
    "choices": [
        {
            "message": {
                "role": "assistant",
                "content": "Yes.",
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "search", "arguments": '{"q":1}'}},
                ],
            },
            "finish_reason": "tool_calls",
        }
    ],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 3}},
}
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def configure(receiver, otel_type="full", **settings):
    config = OpenTelemetryConfig(otel_type, receiver.endpoint)
    config.transport = "grpc" if receiver.protocol == "grpc" else "http_binary"
    for name, value in settings.items():
        assert hasattr(config, name)
        setattr(config, name, value)
    return config


def exported(scenario, otel_type="full", protocol="http/protobuf", **settings):
    """The spans that a receiver gets of a scenario, and the exporter's report."""
    with OtlpReceiver(protocol) as receiver, relay_mp.session() as session:
        exporter = OpenTelemetrySubscriber(configure(receiver, otel_type, **settings))
        exporter.register("traces")
        scenario()
        exporter.shutdown()
        report = session.stats().exporters["traces"]
        assert report.taken == report.exported + report.ignored + report.dropped
        assert report.state == "closed"
        return receiver.spans, report


def half(uuid, which):
    digits = uuid.replace("-", "")
    return bytes.fromhex(digits)[8:] if which == "span" else bytes.fromhex(digits)


# ------------------------------------------------------------------------------------ ids and places


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ids_come_from_uuids_and_parents_from_scopes(protocol):
    handles = {}

    def scenario():
        handles["outer"] = scope.push("outer", ScopeType.Agent)
        handles["inner"] = scope.push("inner", ScopeType.Function)
        scope.pop(handles["inner"])
        scope.pop(handles["outer"])
        with scope.scope("late child", ScopeType.Function, handle=handles["outer"]):
            pass
        with scope.scope("another", ScopeType.Agent) as handles["another"]:
            pass

    spans, report = exported(scenario, protocol=protocol)
    spans = by_name(spans)
    outer = handles["outer"].uuid
    for name in ("outer", "inner", "late child"):
        assert spans[name].trace_id == half(outer, "trace")
    for name, handle in handles.items():
        assert spans[name].span_id == half(handle.uuid, "span")
    assert spans["outer"].parent_span_id == spans["another"].parent_span_id == b""
    assert spans["inner"].parent_span_id == spans["late child"].parent_span_id == half(outer, "span")
    assert spans["another"].trace_id == half(handles["another"].uuid, "trace")
    assert not any(map(is_remote, spans.values()))
    assert (report.taken, report.exported, report.lost, report.orphans) == (8, 8, 0, 0)


def test_times_are_the_events(session):
    seen = []
    relay_mp.subscribers.register("seen", seen.append)
    with OtlpReceiver() as receiver:
        exporter = OpenTelemetrySubscriber(configure(receiver))
        exporter.register("traces")
        with scope.scope("a", ScopeType.Function):
            scope.event("m")
        exporter.shutdown()
        (span,) = receiver.spans
    times = [event.timestamp_us * 1000 for event in seen]
    assert [span.start_time_unix_nano, span.events[0].time_unix_nano, span.end_time_unix_nano] == times


def test_a_remote_traceparent_is_kept_for_scopes_marks_and_calls():
    def scenario():
        with use_scope_stack(create_scope_stack_from_propagation(PropagationContext.from_traceparent(TRACEPARENT))):
            with scope.scope("scope", ScopeType.Agent):
                scope.event("inside")
                with scope.scope("deeper", ScopeType.Function):
                    pass
            scope.event("mark")
            tools.call_end(tools.call("tool", {}), relay_mp.ToolExecutionResult(1))

    spans = by_name(exported(scenario)[0])
    assert set(spans) == {"scope", "deeper", "mark:mark", "tool"}
    assert {span.trace_id.hex() for span in spans.values()} == {"4bf92f3577b34da6a3ce929d0e0e4736"}
    for name in ("scope", "mark:mark", "tool"):
        assert spans[name].parent_span_id.hex() == "00f067aa0ba902b7"
        assert is_remote(spans[name])
    assert spans["deeper"].parent_span_id == spans["scope"].span_id
    assert not is_remote(spans["deeper"])


def test_a_remote_trace_is_kept_with_scope_local_subscribers_and_in_workers(run_script):
    """The stack that scope-local subscribers need ends in the remote trace, as the one that a worker inherits does."""
    code = """
import concurrent.futures, multiprocessing, os, relay_mp
from relay_mp import ScopeType, scope, pools
from relay_mp.events import Event

def work():
    scope.event("in worker")
    with scope.scope("worker", ScopeType.Function):
        pass

def main():
    seen = []
    context = relay_mp.PropagationContext.from_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    with relay_mp.session():
        relay_mp.subscribers.register("seen", seen.append)
        with relay_mp.use_scope_stack(relay_mp.create_scope_stack_from_propagation(context)):
            worker = pools.Process(target=work)
            worker.start()
            worker.join()
            with scope.scope("local", ScopeType.Function) as local:
                relay_mp.scope_local.register_subscriber(local, "mine", id)
                scope.event("with stack")
        scope.event("elsewhere")
        relay_mp.subscribers.flush()
        for event in seen:
            if event.kind == "mark" or event.scope_category == "start":
                print("said", event.name, event.remote_trace.hex() if event.remote_trace else None)

if __name__ == "__main__":
    main()
"""
    said = [line.split(maxsplit=1)[1] for line in run_script(code).stdout.splitlines() if line.startswith("said")]
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    expected = [f"in worker {trace}", f"worker {trace}", f"local {trace}", f"with stack {trace}", "elsewhere None"]
    assert sorted(said) == sorted(expected)


def test_a_context_without_root_and_an_unknown_parent_begin_a_trace():
    """NeMo-Relay 1022: a parent of which nothing is known is not made up."""

    def scenario():
        context = PropagationContext("01900000-0000-7000-80f0-67aa0ba902b7")
        with use_scope_stack(create_scope_stack_from_propagation(context)), scope.scope("a", ScopeType.Agent):
            pass

    ((span,), _) = exported(scenario)
    assert span.parent_span_id == b""
    assert span.trace_id[8:] == span.span_id
    assert attributes_of(span)["relay_mp.parent_uuid"] == "01900000-0000-7000-80f0-67aa0ba902b7"
    assert not is_remote(span)


def test_what_capture_traceparent_says_is_what_is_exported():
    said = []

    def scenario():
        with scope.scope("outer", ScopeType.Agent), scope.scope("inner", ScopeType.Function):
            said.append(relay_mp.capture_traceparent())

    spans = by_name(exported(scenario)[0])
    assert said == [f"00-{spans['inner'].trace_id.hex()}-{spans['inner'].span_id.hex()}-01"]


def test_exporters_of_two_processes_agree_on_ids(run_script):
    """One program's scope is the parent of another one's; each has a session and an exporter of its own."""
    code = """
import sys, relay_mp
from relay_mp import ScopeType, scope
endpoint, traceparent = sys.argv[1:]
with relay_mp.session():
    exporters = [relay_mp.OpenTelemetrySubscriber(relay_mp.OpenTelemetryConfig("full", endpoint)) for _ in range(2)]
    for number, exporter in enumerate(exporters):
        exporter.register(f"traces {number}")
    context = relay_mp.PropagationContext.from_traceparent(traceparent) if traceparent else None
    stack = relay_mp.create_scope_stack_from_propagation(context) if context else relay_mp.create_scope_stack()
    with relay_mp.use_scope_stack(stack), scope.scope("there" if traceparent else "here", ScopeType.Agent):
        print(relay_mp.capture_traceparent())
    for exporter in exporters:
        exporter.shutdown()
"""
    with OtlpReceiver() as receiver:
        said = run_script(code, receiver.endpoint, "").stdout.strip()
        run_script(code, receiver.endpoint, said)
        here, there = ([s for s in receiver.spans if s.name == name] for name in ("here", "there"))
    assert len(here) == len(there) == 2
    assert here[0] == here[1]
    assert there[0] == there[1]
    assert there[0].trace_id == here[0].trace_id == half(said.split("-")[1], "trace")
    assert there[0].parent_span_id == here[0].span_id
    assert is_remote(there[0])


# ------------------------------------------------------------------------------------------ marks


def one_mark():
    with scope.scope("a", ScopeType.Agent, metadata={"team.name": "t"}) as handle:
        scope.event("m", data={"k": 1}, metadata={"team.name": "m", "other": 2})
        scope.event("llm.chunk", data=1)
    scope.event("late", handle=handle)


def test_marks_are_events_of_the_open_span_or_spans_of_no_length():
    """NeMo-Relay 381, 870: a mark after the end of its parent keeps its place, and is no child of the last span."""
    spans = by_name(exported(one_mark)[0])
    assert set(spans) == {"a", "mark:late"}
    assert [event.name for event in spans["a"].events] == ["m", "llm.chunk"]
    found = attributes_of(spans["a"].events[0])
    assert (found["relay_mp.mark.data.k"], found["relay_mp.mark.metadata.other"]) == (1, 2)
    late = spans["mark:late"]
    assert (late.trace_id, late.parent_span_id) == (spans["a"].trace_id, spans["a"].span_id)
    assert late.start_time_unix_nano == late.end_time_unix_nano
    assert attributes_of(late)["relay_mp.mark.orphan"] is True


@pytest.mark.parametrize("otel_type", ["full", "openinference"])
def test_marks_as_tools_are_spans_but_for_the_excluded(otel_type):
    spans = by_name(exported(one_mark, otel_type, mark_projection="tool")[0])
    assert set(spans) == {"a", "mark:m", "mark:late"}
    assert [event.name for event in spans["a"].events] == ["llm.chunk"]
    assert spans["mark:m"].parent_span_id == spans["a"].span_id
    found = attributes_of(spans["mark:m"])
    assert found["relay_mp.mark.projection"] == "tool"
    assert "relay_mp.mark.orphan" not in found
    if otel_type == "openinference":
        assert (found["openinference.span.kind"], found["tool.name"], found["output.value"]) == ("TOOL", "m", '{"k":1}')


def test_gen_ai_has_no_marks_and_counts_them():
    spans, report = exported(one_mark, "gen_ai")
    assert [span.name for span in spans] == ["invoke_agent a"]
    assert not spans[0].events
    assert (report.exported, report.ignored) == (2, 3)


def test_marks_beyond_the_bound_of_a_span_become_spans(monkeypatch):
    def scenario():
        with scope.scope("a", ScopeType.Agent):
            for number in range(5):
                scope.event(f"m{number}", data="x" * 100)

    monkeypatch.setattr(spans_module, "MAX_SPAN_EVENT_BYTES", 500)
    spans, report = exported(scenario)
    found = by_name(spans)
    kept = [event.name for event in found["a"].events]
    assert kept == ["m0", "m1"]
    assert set(found) == {"a", "mark:m2", "mark:m3", "mark:m4"}
    assert all(found[name].parent_span_id == found["a"].span_id for name in found if name != "a")
    assert report.exported == report.taken == 7


# --------------------------------------------------------------------------- what is late, or never comes


def test_scopes_that_have_not_ended_are_exported_as_unfinished():
    def scenario():
        outer = scope.push("outer", ScopeType.Agent)
        scope.event("m")
        scope.push("inner", ScopeType.Function)
        with scope.scope("done", ScopeType.Function):
            pass
        assert outer

    with use_scope_stack(relay_mp.create_scope_stack()):  # no other test is to be in these scopes
        spans, report = exported(scenario)
    found = by_name(spans)
    unfinished = {name for name, span in found.items() if attributes_of(span).get("relay_mp.unfinished")}
    assert unfinished == {"outer", "inner"}
    assert found["inner"].parent_span_id == found["outer"].span_id
    assert [event.name for event in found["outer"].events] == ["m"]
    assert STATUSES[found["outer"].status.code] == "UNSET"
    assert found["outer"].end_time_unix_nano == found["done"].end_time_unix_nano
    assert (report.unfinished, report.open_scopes, report.lost) == (2, 0, 0)


class Events:
    """A sink that is fed by hand, and a clock."""

    def __init__(self, receiver, **settings):
        config = configure(receiver)
        self.sink = TracesSink(**{**config.arguments(), **settings})
        self.clock_us = core.now_us()

    def __call__(self, kind, number, parent=None, *, name=None, after_us=1000, data=None):
        self.clock_us += after_us
        uuid, over = self.uuid(number), None if parent is None else self.uuid(parent)
        category = None if kind == 2 else 0
        record = pack_record(kind, uuid, over, self.clock_us, name or f"n{number}", category, data=data)
        self.sink(decode(record, 1, 1))

    @staticmethod
    def uuid(number):
        return uuids.UUID(int=(0x7 << 76) | number).bytes

    def end(self):
        self.sink.finish()
        self.sink.close()
        return self.sink.report()


def test_an_end_without_a_start_is_a_span_of_no_length_and_counted():
    with OtlpReceiver() as receiver:
        emit = Events(receiver)
        emit(0, 1)
        emit(1, 2, 1)  # NeMo-Relay: an orphan's end, its parent is known
        emit(1, 3, 9)  # nor that
        emit(1, 1)
        report = emit.end()
        spans = by_name(receiver.spans)
    assert report.orphans == 2
    for name in ("n2", "n3"):
        assert attributes_of(spans[name])["relay_mp.orphan"] is True
        assert spans[name].start_time_unix_nano == spans[name].end_time_unix_nano
    assert spans["n2"].parent_span_id == spans["n1"].span_id
    assert spans["n2"].trace_id == spans["n1"].trace_id
    assert spans["n3"].parent_span_id == b""
    assert (report.taken, report.exported) == (4, 4)


@pytest.mark.parametrize("projection", ["full", "openinference"])
def test_open_scopes_that_take_too_many_bytes_lose_their_payloads_and_nothing_else(projection):
    with OtlpReceiver() as receiver:
        emit = Events(receiver, projection=projection, max_open_bytes=25_000)
        for number in (1, 2, 3):
            emit(0, number, number - 1 or None, data={"said": "x" * 10_000})
        for number in (3, 2, 1):
            emit(1, number, number - 1 or None)
        report = emit.end()
        spans = by_name(receiver.spans)
    assert (report.cut, report.evicted, report.taken, report.exported, report.open_bytes) == (1, 0, 6, 6, 0)
    assert spans["n2"].parent_span_id == spans["n1"].span_id
    lasted_us = {name: (span.end_time_unix_nano - span.start_time_unix_nano) / 1000 for name, span in spans.items()}
    assert lasted_us == {"n1": 5000, "n2": 3000, "n3": 1000}
    shown = {name: str(attributes_of(span)) for name, span in sorted(spans.items())}
    assert ["relay_mp.cut" in text for text in shown.values()] == [True, False, False]
    assert ["x" * 10_000 in text for text in shown.values()] == [False, True, True]


def test_marks_of_open_scopes_count_towards_the_bytes():
    with OtlpReceiver() as receiver:
        emit = Events(receiver, max_open_bytes=2000)
        emit(0, 1)
        for number in range(2, 20):
            emit(2, number, 1, data="x" * 500)
        report = emit.end()
        spans = receiver.spans
    assert report.evicted == 1
    assert report.taken == report.exported == 19
    assert len(spans) > 2  # the scope with the first marks, and the others by themselves


def test_open_scopes_beyond_the_bound_are_given_up_oldest_first():
    with OtlpReceiver() as receiver:
        emit = Events(receiver, max_open_scopes=2)
        for number in (1, 2, 3):
            emit(0, number, number - 1 or None)
        emit(1, 3, 2)
        emit(1, 2, 1)
        emit(1, 1)
        report = emit.end()
        spans = receiver.spans
    assert (report.evicted, report.orphans, report.taken, report.exported) == (1, 1, 6, 6)
    first = [attributes_of(span).keys() for span in spans if span.name == "n1"]
    assert ["relay_mp.unfinished" in found for found in first] == [True, False]
    assert ["relay_mp.orphan" in found for found in first] == [False, True]
    rest = by_name([span for span in spans if span.name != "n1"])
    assert rest["n3"].parent_span_id == rest["n2"].span_id
    assert len({span.trace_id for span in spans}) == 1  # what was given up is remembered for a while


@pytest.mark.parametrize(("after_us", "is_known"), [(59_000_000, True), (61_000_000, False)])
def test_a_late_child_finds_its_trace_for_as_long_as_is_set(after_us, is_known):
    with OtlpReceiver() as receiver:
        emit = Events(receiver)
        emit(0, 1)
        emit(1, 1)
        emit(0, 2, 1, after_us=after_us)
        emit(1, 2, 1)
        emit.end()
        spans = by_name(receiver.spans)
    assert (spans["n2"].trace_id == spans["n1"].trace_id) is is_known
    assert (spans["n2"].parent_span_id == spans["n1"].span_id) is is_known


def test_the_memory_of_ended_scopes_is_bounded(monkeypatch):
    monkeypatch.setattr(places, "MAX_ENDED_SCOPES", 2)
    with OtlpReceiver() as receiver:
        emit = Events(receiver)
        for number in (1, 2, 3):
            emit(0, number)
            emit(1, number)
        for number in (1, 2, 3):
            emit(2, 10 + number, number, name=str(number))
        assert len(emit.sink._spans.traces._ended) == 2
        emit.end()
        spans = by_name(receiver.spans)
    assert [bool(spans[f"mark:{number}"].parent_span_id) for number in (1, 2, 3)] == [False, True, True]


def test_a_span_never_ends_before_it_begins():
    with OtlpReceiver() as receiver:
        emit = Events(receiver)
        emit(0, 1)
        emit(1, 1, after_us=-5_000_000)
        emit(0, 2, after_us=-(1 << 60))
        emit(1, 2, after_us=0)
        emit.end()
        spans = by_name(receiver.spans)
    assert spans["n1"].start_time_unix_nano == spans["n1"].end_time_unix_nano > 0
    assert spans["n2"].start_time_unix_nano == 0  # before 1970: OTLP has no such times


# ---------------------------------------------------------------------------------- runs of events


def a_stream(lot, events=3000):
    """Records of scopes and marks that interleave, some of them late, unknown or unfinished, and some damaged."""
    open_scopes, clock_us = [], core.now_us()
    for number in range(1, events + 1):
        uuid, clock_us = Events.uuid(number), clock_us + lot.randrange(50)
        parent = lot.choice(open_scopes) if open_scopes and lot.random() < 0.9 else None
        kind = lot.choice([0, 0, 1, 1, 2])
        if kind == 1 and open_scopes and lot.random() < 0.95:
            uuid = open_scopes.pop(lot.randrange(len(open_scopes)))
        elif kind == 0:
            open_scopes.append(uuid)
        metadata = lot.choice([None, {"team.name": "a"}, {"otel.status_code": "ERROR"}, {"b": number}])
        record = pack_record(
            kind, uuid, parent, clock_us, f"n{number}", None if kind == 2 else 3, 0, 7, None, {"n": number}, metadata
        )
        yield (record[:-4] if lot.random() < 0.01 else record), number, lot.choice([1, 2])


def in_runs(sink, records, lot):
    """Feeds a sink as the dispatcher does. How often it has raised."""
    raised = at = 0
    while at < len(records):
        count = sink.take_batch([decode(*record) for record in records[at : at + lot.randrange(1, 64)]])
        if not count:
            raised += one_by_one(sink, records[at : at + 1])
            count = 1
        at += count
    return raised


def one_by_one(sink, records):
    raised = 0
    for record in records:
        try:
            sink(decode(*record))
        except RecordError:
            raised += 1
    return raised


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_open_scopes": 20},
        {"max_open_bytes": 2000},
        {"mark_projection": "tool"},
        {"promote_resource_metadata_prefixes": ["team."], "max_span_events": 2},
    ],
)
def test_a_run_of_events_becomes_what_its_events_become_one_by_one(settings):
    lot = random.Random(5)
    records = list(a_stream(lot))
    found = []
    for feed in (one_by_one, lambda sink, records: in_runs(sink, records, lot)):
        sink = TracesSink(**{**OpenTelemetryConfig("full", "http://127.0.0.1:1").arguments(), **settings})
        queued = []
        sink._queue.put_all = lambda items, queued=queued: queued.extend(items)
        raised = feed(sink, records)
        sink.finish()
        report = sink.report()
        sink.close()
        assert raised == report.drops["RecordError"] == report.failures > 10
        found.append((queued, report))
    assert found[0][0] == found[1][0]
    assert found[0][1] == found[1][1]
    assert found[0][1].taken == len(records)


def test_an_event_that_failed_in_a_run_and_never_comes_back_harms_no_other():
    lot = random.Random(6)
    sink = TracesSink(**OpenTelemetryConfig("full", "http://127.0.0.1:1").arguments())
    (whole, *_), damaged = next(a_stream(lot)), b"\x9d\x00"
    assert sink.take_batch([decode(whole, 1, 1), decode(damaged, 2, 1), decode(whole, 3, 1)]) == 1
    assert sink.take_batch([decode(whole, 3, 1)]) == 0
    sink(decode(whole, 3, 1))
    assert sink.take_batch([decode(whole, 4, 1)]) == 1
    assert (sink.report().taken, sink.report().dropped) == (3, 0)
    sink.finish(0.0)
    sink.close()


@pytest.mark.parametrize("feed", [one_by_one, lambda sink, records: in_runs(sink, records, random.Random(7))])
def test_a_scope_whose_span_cannot_be_made_is_counted_with_all_that_was_kept_of_it(feed):
    uuid, payload = Events.uuid(1), pack({"text": "whole"})
    start = pack_record(0, uuid, None, 1, "scope", 3, 0, 7, None, {"text": "whole"})
    damaged = start.replace(payload, b"\xc1" * len(payload))
    assert damaged != start
    mark = pack_record(2, Events.uuid(2), uuid, 2, "mark")
    end = pack_record(1, uuid, None, 3, "scope", 3)
    sink = TracesSink(**OpenTelemetryConfig("full", "http://127.0.0.1:1").arguments())
    assert feed(sink, [(damaged, 1, 1), (mark, 2, 1), (end, 3, 1)]) == 1
    report = sink.report()
    sink.close()
    assert (report.taken, report.drops, report.queued, report.open_scopes) == (3, {"RecordError": 3}, 0, 0)


# ------------------------------------------------------------------------------------ projections


def a_turn():
    with scope.scope("planner", ScopeType.Agent, input={"q": "?"}, metadata={"user": "alice"}) as agent:
        call = llm.call("openai", relay_mp.LLMRequest({"secret": "h"}, REQUEST), model_name="gpt-4")
        llm.call_end(call, RESPONSE)
        used = tools.call("search", {"q": 1}, tool_call_id="c1")
        tools.call_end(used, relay_mp.ToolExecutionResult({"found": 3}))
        with scope.scope("find", ScopeType.Retriever, input="a text"):
            pass
        try:
            with scope.scope("fails", ScopeType.Function):
                raise ValueError("boom")
        except ValueError:
            pass
    assert agent


@pytest.mark.parametrize("otel_type", PROJECTIONS)
def test_every_projection_has_the_same_tree_statuses_and_workers(otel_type):
    spans = exported(a_turn, otel_type)[0]
    names = [span.name.split()[-1] for span in spans]
    assert len(spans) == 5
    (root,) = [span for span in spans if not span.parent_span_id]
    assert all(span.parent_span_id == root.span_id for span in spans if span is not root)
    statuses = {STATUSES[span.status.code] for span in spans}
    assert statuses == {"OK", "ERROR", "UNSET"}  # tools have none
    (failed,) = [span for span in spans if span.name == "fails"]
    assert (STATUSES[failed.status.code], failed.status.message) == ("ERROR", "boom")
    assert {"planner", "fails"} <= set(names)
    for span in spans:
        found = attributes_of(span)
        assert found["process.pid"] > 0 < found["thread.id"]
        assert not any("secret" in str(value) for key, value in found.items() if otel_type != "full")


def test_full_has_all_that_the_events_say():
    spans = by_name(exported(a_turn)[0])
    agent, call = attributes_of(spans["planner"]), attributes_of(spans["openai"])
    assert agent["relay_mp.start.data.q"] == "?"
    assert agent["relay_mp.end.metadata.user"] == "alice"
    assert agent["relay_mp.scope_type"] == "agent"
    assert json.loads(call["relay_mp.start.data.content"]) == REQUEST
    assert json.loads(call["relay_mp.end.data.usage"]) == RESPONSE["usage"]
    assert call["relay_mp.model_name"] == "gpt-4"
    assert attributes_of(spans["search"])["relay_mp.tool_call_id"] == "c1"


def test_gen_ai_keeps_the_conventions():
    spans = by_name(exported(a_turn, "gen_ai")[0])
    assert set(spans) == {"invoke_agent planner", "chat gpt-4", "execute_tool search", "retrieval", "fails"}
    call = attributes_of(spans["chat gpt-4"])
    assert call["gen_ai.provider.name"] == "openai"
    assert (call["gen_ai.request.temperature"], call["gen_ai.request.max_tokens"]) == (0.5, 10)
    assert (call["gen_ai.request.seed"], call["gen_ai.request.stop_sequences"]) == (7, ["x", "y"])
    assert (call["gen_ai.response.id"], call["gen_ai.response.model"]) == ("r-1", "gpt-4-x")
    assert call["gen_ai.response.finish_reasons"] == ["tool_call"]
    tokens = ("input_tokens", "output_tokens", "cache_read.input_tokens")
    assert [call[f"gen_ai.usage.{name}"] for name in tokens] == [10, 5, 3]
    asked = json.loads(call["gen_ai.input.messages"])
    assert [message["role"] for message in asked] == ["system", "user", "assistant", "tool"]
    assert [part["type"] for message in asked for part in message["parts"]] == [
        "text", "text", "uri", "tool_call", "tool_call_response",
    ]  # fmt: skip
    (answered,) = json.loads(call["gen_ai.output.messages"])
    assert answered["finish_reason"] == "tool_call"
    assert answered["parts"][1] == {"type": "tool_call", "id": "c1", "name": "search", "arguments": {"q": 1}}
    tool = attributes_of(spans["execute_tool search"])
    assert (tool["gen_ai.tool.call.id"], tool["gen_ai.tool.call.result"]) == ("c1", '{"found":3}')
    assert attributes_of(spans["fails"])["error.type"] == "ValueError"
    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI")}
    used = {key for span in spans.values() for key in attributes_of(span) if key.startswith("gen_ai")}
    # The lowest release of OpenTelemetry that the extra allows knows half of the conventions for generative AI.
    if "gen_ai.retrieval.query.text" in known:
        assert used <= known
    # SpanKind: a call to a model goes out, an agent and a tool are run here.
    assert [spans[name].kind for name in ("chat gpt-4", "invoke_agent planner", "execute_tool search")] == [3, 1, 1]


def test_openinference_keeps_the_conventions():
    spans = by_name(exported(a_turn, "openinference")[0])
    kinds = {name: attributes_of(span)["openinference.span.kind"] for name, span in spans.items()}
    assert kinds == {"planner": "AGENT", "openai": "LLM", "search": "TOOL", "find": "RETRIEVER", "fails": "CHAIN"}
    call = attributes_of(spans["openai"])
    assert (call["llm.model_name"], call["llm.system"]) == ("gpt-4-x", "openai")
    assert json.loads(call["llm.invocation_parameters"])["temperature"] == 0.5
    assert call["llm.input_messages.0.message.content"] == "Be brief."
    assert call["llm.input_messages.1.message.contents.0.message_content.text"] == "Look."
    assert call["llm.input_messages.1.message.contents.1.message_content.image.image.url"] == "u"
    assert call["llm.input_messages.2.message.tool_calls.0.tool_call.function.arguments"] == '{"a":1}'
    assert call["llm.input_messages.3.message.tool_call_id"] == "c0"
    assert call["llm.output_messages.0.message.content"] == "Yes."
    assert call["llm.output_messages.0.message.tool_calls.0.tool_call.function.name"] == "search"
    counts = ("prompt", "completion", "total", "prompt_details.cache_read")
    assert [call[f"llm.token_count.{name}"] for name in counts] == [10, 5, 15, 3]
    assert json.loads(call["input.value"]) == REQUEST
    assert (call["input.mime_type"], call["output.mime_type"]) == ("application/json", "application/json")
    assert "search" in json.loads(call["llm.tools.0.tool.json_schema"])["function"]["name"]
    tool = attributes_of(spans["search"])
    assert (tool["tool.name"], tool["tool_call.id"], tool["output.value"]) == ("search", "c1", '{"found":3}')
    found = attributes_of(spans["find"])
    assert (found["input.value"], found["input.mime_type"]) == ("a text", "text/plain")
    assert json.loads(attributes_of(spans["planner"])["metadata"])["user"] == "alice"


def test_anthropics_tokens_count_those_of_the_cache():
    def scenario():
        call = llm.call("a", relay_mp.LLMRequest({}, {"model": "c", "system": "s", "max_tokens": 1, "messages": []}))
        usage = {"input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 4}
        message = {"type": "message", "id": "m", "model": "c", "role": "assistant", "content": [], "usage": usage}
        llm.call_end(call, message)

    found = attributes_of(exported(scenario, "gen_ai")[0][0])
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (8, 2)
    assert found["gen_ai.provider.name"] == "anthropic"
    found = attributes_of(exported(scenario, "openinference")[0][0])
    assert (found["llm.token_count.prompt"], found["llm.token_count.total"]) == (8, 10)


@pytest.mark.parametrize("otel_type", ["full", "openinference"])
def test_attributes_get_second_names(otel_type):
    mappings = [{"key": "relay_mp.scope_type", "alias": "kind"}, {"key": "nothing", "alias": "none"}]
    spans = by_name(exported(a_turn, otel_type, attribute_mappings=mappings)[0])
    assert attributes_of(spans["planner"])["kind"] == "agent"
    assert "none" not in attributes_of(spans["planner"])


@pytest.mark.parametrize("otel_type", PROJECTIONS)
def test_metadata_is_promoted_to_attributes_and_to_the_resource(otel_type):
    with OtlpReceiver() as receiver, relay_mp.session():
        config = configure(receiver, otel_type)
        config.promote_metadata_prefixes = ["user."]
        config.promote_resource_metadata_prefixes = ["tenant."]
        exporter = OpenTelemetrySubscriber(config)
        exporter.register("traces")
        for tenant in ("a", "b"):
            metadata = {"tenant.id": tenant, "tenant.deep": {"no": 1}, "user.id": 7}
            inner = scope.scope(f"in {tenant}", ScopeType.Function, metadata={"tenant.id": "not mine"})
            with scope.scope(tenant, ScopeType.Function, metadata=metadata), inner:
                pass
        exporter.shutdown()
        sent = {one.item.name: one for one in receiver.sent("traces")}
    assert {name: one.resource.get("tenant.id") for name, one in sent.items()} == {
        "a": "a", "in a": "a", "b": "b", "in b": "b",
    }  # fmt: skip
    assert "tenant.deep" not in sent["a"].resource
    assert attributes_of(sent["a"].item)["user.id"] == 7


# ------------------------------------------------------------------------- configuration and environment


def test_resource_and_headers_are_those_of_the_configuration(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "s3cret")
    with OtlpReceiver() as receiver, relay_mp.session() as session:
        config = configure(receiver, service_name="svc", service_namespace="ns", service_version="1.2")
        config.set_resource_attribute("deployment.environment.name", "test")
        config.set_header("x-plain", "p")
        config.header_env = {"Authorization": "MY_TOKEN"}
        config.instrumentation_scope = "mine"
        exporter = OpenTelemetrySubscriber(config)
        exporter.register("traces")
        with scope.scope("a", ScopeType.Function):
            pass
        exporter.shutdown()
        ((_, resource, under),) = receiver.sent("traces")
        (headers,) = receiver.headers
        shown = repr(config) + repr(session.stats().exporters)
    assert resource["service.name"] == "svc"
    assert (resource["service.namespace"], resource["service.version"]) == ("ns", "1.2")
    assert resource["deployment.environment.name"] == "test"
    assert resource["telemetry.sdk.name"] == "opentelemetry"
    assert under.name == "mine"
    headers = {name.lower(): value for name, value in headers.items()}
    assert (headers["x-plain"], headers["authorization"]) == ("p", "s3cret")
    assert "s3cret" not in shown


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("prefix", ["OTEL_EXPORTER_OTLP", "OTEL_EXPORTER_OTLP_TRACES"])
def test_the_environment_fills_what_the_configuration_leaves_open(protocol, prefix, monkeypatch):
    with OtlpReceiver(protocol) as receiver, relay_mp.session():
        own = "TRACES" in prefix
        monkeypatch.setenv(f"{prefix}_ENDPOINT", receiver.url("traces") if own else receiver.endpoint)
        monkeypatch.setenv(f"{prefix}_PROTOCOL", protocol)
        monkeypatch.setenv(f"{prefix}_HEADERS", "x-a=from%20env,x-b=1")
        monkeypatch.setenv(f"{prefix}_COMPRESSION", "gzip")
        monkeypatch.setenv(f"{prefix}_TIMEOUT", "7")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "of-env")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=ring,service.name=not-this")
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "77")
        config = OpenTelemetryConfig("full")
        config.set_header("x-b", "mine")
        exporter = OpenTelemetrySubscriber(config)
        exporter.register("traces")
        with scope.scope("a", ScopeType.Function):
            pass
        exporter.shutdown()
        ((_, resource, _),) = receiver.sent("traces")
        headers = {name.lower(): value for name, value in receiver.headers[0].items()}
        limits = traces_module.attempt_limits("traces", config.connection())
        compression = traces_module.connect("traces", config.connection())._wire._compression
    assert (resource["service.name"], resource["team"]) == ("of-env", "ring")
    assert (headers["x-a"], headers["x-b"]) == ("from env", "mine")
    assert compression == ("gzip" if protocol != "grpc" else grpc.Compression.Gzip)  # gRPC's own headers are not shown
    assert protocol == "grpc" or headers["content-encoding"] == "gzip"
    assert (limits.timeout_seconds, limits.max_queue_items) == (7.0, 77)


def test_the_configuration_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "of-env")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1/nowhere")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "7")
    with OtlpReceiver() as receiver, relay_mp.session():
        config = configure(receiver, service_name="mine", timeout_millis=1234)
        exporter = OpenTelemetrySubscriber(config)
        exporter.register("traces")
        with scope.scope("a", ScopeType.Function):
            pass
        exporter.shutdown()
        ((_, resource, _),) = receiver.sent("traces")
    assert resource["service.name"] == "mine"
    assert traces_module.attempt_limits("traces", config.connection()).timeout_seconds == 1.234


def test_a_disabled_sdk_exports_nothing_and_counts_it(monkeypatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    spans, report = exported(one_mark)
    assert spans == []
    assert (report.taken, report.ignored) == (5, 5)


@pytest.mark.parametrize(
    ("sampler", "argument", "expected"),
    [
        ("always_off", "", 0),
        ("traceidratio", "0", 0),
        ("parentbased_traceidratio", "1", 40),
        ("always_on", "", 40),
        ("traceidratio", "much", 40),
        ("x", "", 40),
    ],
)
def test_samplers_that_take_all_or_nothing(sampler, argument, expected, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    spans, report = exported(lambda: [pair() for _ in range(20)])
    assert len(spans) == expected
    assert report.exported == 2 * expected
    assert report.orphans == 0


def pair():
    with scope.scope("a", ScopeType.Function), scope.scope("b", ScopeType.Function):
        pass


def test_a_trace_is_sampled_as_a_whole_and_alike_everywhere(monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    spans, report = exported(lambda: [pair() for _ in range(200)])
    traces = {span.trace_id for span in spans}
    assert 50 < len(traces) < 150  # of 200; outside with a chance of 1e-12
    assert len(spans) == 2 * len(traces)
    assert all(traces_module.make_sampler()(trace) for trace in traces)
    assert report.ignored == 800 - 2 * len(spans)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"type": "nope"}, "type is 'nope'; expected one of 'full', 'gen_ai', 'openinference'"),
        ({"transport": "http"}, "transport is 'http'; expected one of 'http_binary', 'grpc'"),
        ({"mark_projection": "x"}, "mark_projection is 'x'"),
        ({"attribute_mappings": [{"key": "x"}]}, "attribute_mappings has"),
        ({"attribute_mappings": [{"key": "x", "alias": ""}]}, "attribute_mappings has"),
        ({"timeout_millis": 0}, "timeout_millis is 0; expected at least 1"),
        ({"max_open_scopes": 0}, "max_open_scopes is 0"),
        ({"max_open_bytes": 0}, "max_open_bytes is 0"),
        ({"headers": {"a": 1}}, "headers has an item that is str to int; expected a dict of str to str"),
        ({"service_name": 1}, "service_name is an int; expected str"),
        ({"mark_exclude_names": "llm.chunk"}, "expected a list of str"),
    ],
)
def test_bad_settings_are_refused_where_they_are_given(settings, error):
    config = OpenTelemetryConfig("full")
    for name, value in settings.items():
        setattr(config, name, value)
    with pytest.raises((TypeError, ValueError)) as caught:
        OpenTelemetrySubscriber(config)
    assert error in str(caught.value)


def test_bad_addresses_and_missing_secrets_are_refused_at_registration(session):
    for transport, endpoint in [("http_binary", "nope"), ("grpc", "ftp://x"), ("http_binary", "http://")]:
        config = OpenTelemetryConfig("full", endpoint)
        config.transport = transport
        with pytest.raises(relay_mp.SubscriberError, match="expected http://"):
            OpenTelemetrySubscriber(config).register("traces")
    config = OpenTelemetryConfig("full")
    config.header_env = {"Authorization": "NO_SUCH_VARIABLE"}
    with pytest.raises(relay_mp.SubscriberError, match="for the header 'Authorization' is not set"):
        OpenTelemetrySubscriber(config).register("traces")


@pytest.mark.parametrize(
    ("otel_type", "missing", "extra"),
    [("full", "opentelemetry", "otel"), ("full", "grpc", "otel"), ("openinference", "openinference", "openinference")],
)
def test_without_the_extra_the_error_names_it(otel_type, missing, extra, run_script):
    code = """
import sys
otel_type, missing = sys.argv[1:]
sys.modules[missing] = None
import relay_mp
config = relay_mp.OpenTelemetryConfig(otel_type)
config.transport = "grpc" if missing == "grpc" else "http_binary"  # which does without
with relay_mp.session():
    try:
        relay_mp.OpenTelemetrySubscriber(config).register("traces")
    except Exception as error:
        print(type(error).__name__, error)
"""
    said = run_script(code, otel_type, missing).stdout
    assert f"pip install 'relay_mp[{extra}]'" in said


def test_opentelemetry_is_loaded_by_the_first_registration_only(run_script):
    code = """
import sys, relay_mp
config = relay_mp.OpenTelemetryConfig("full")
exporter = relay_mp.OpenTelemetrySubscriber(config)
print([name for name in sys.modules if name.startswith(("opentelemetry", "grpc", "google.protobuf"))])
"""
    assert run_script(code).stdout.strip() == "[]"
