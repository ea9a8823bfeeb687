"""Marks as log records over OTLP, to real receivers of both protocols: what arrives, where it belongs, what is lost."""

import json
import os
import signal
import threading
import uuid
from collections import Counter

import pytest
from otlp_receiver import OtlpReceiver, attributes, plain
from receiver import wait_until

import relay_mp
from relay_mp import (
    LogSeverity,
    MetricKind,
    MetricMeasurement,
    MetricValueType,
    OpenTelemetryConfig,
    OpenTelemetryLogConfig,
    OpenTelemetryLogSubscriber,
    OpenTelemetrySubscriber,
    PropagationContext,
    ScopeType,
    scope,
    subscribers,
)
from relay_mp._native import core
from relay_mp.events import KIND_MARK, decode, pack_record
from relay_mp.observability.otel.logs_sink import MAX_BODY_DEPTH, LogsSink

BOTH = pytest.mark.parametrize("session", ["thread", "process"], indirect=True)
CONTROLS = "".join(map(chr, range(32))) + "\x7f\x80\u2028\u2029\ufeff\uffff\U0001f600"


def configured(config, receiver, **settings):
    config.transport = "grpc" if receiver.protocol == "grpc" else "http_binary"
    config.limits = {
        "schedule_delay_seconds": 3600.0,
        "retry_initial_seconds": 0.01,
        "retry_max_seconds": 0.01,
        **settings.pop("limits", {}),
    }
    for setting, value in settings.items():
        assert hasattr(config, setting)
        setattr(config, setting, value)
    return config


def subscriber(receiver, name="logs", **settings):
    made = OpenTelemetryLogSubscriber(configured(OpenTelemetryLogConfig(receiver.endpoint), receiver, **settings))
    made.register(name)
    return made


def names(receiver):
    return [record.event_name for record in receiver.logs]


@BOTH
def test_marks_arrive_as_records(session, receiver):
    made = subscriber(receiver, service_name="svc", instrumentation_scope="mine")
    schema = {"name": "example.cache", "version": "1"}
    with scope.scope("agent", ScopeType.Agent) as agent:
        scope.event("plain")
        scope.event("full", data={"b": [1, 2.5, None, {"c": True}], "a": "x"}, metadata={"k": "v", "n": {"d": 1}},
                    data_schema=schema, severity=LogSeverity.Warn)  # fmt: skip
        with scope.scope("inner", ScopeType.Tool) as inner:
            scope.event("inside", data="text", severity=LogSeverity.Error)
        scope.event("late", handle=inner, data=5)
        measurement = MetricMeasurement("m", MetricKind.Counter, MetricValueType.U64, 1)
        scope.metric("no log", [measurement])
        scope.event("below", severity=LogSeverity.Debug)
    scope.event("top", data=2**64 - 1)
    made.shutdown()
    sent = {one.item.event_name: one for one in receiver.sent("logs")}
    assert list(sent) == ["plain", "full", "inside", "late", "top"]
    assert {(one.resource["service.name"], one.scope.name) for one in sent.values()} == {("svc", "mine")}
    record = sent["full"].item
    assert (record.severity_number, record.severity_text) == (13, "WARN")
    assert plain(record.body) == {"a": "x", "b": [1, 2.5, None, {"c": True}]}
    found = attributes(record.attributes)
    assert found.pop("process.pid") == os.getpid()
    assert found.pop("thread.id") == threading.get_native_id()
    assert found.pop("relay_mp.mark.seq") > 0
    assert uuid.UUID(found.pop("relay_mp.mark.uuid")).version == 7
    assert found == {
        "relay_mp.atof.version": "0.1",
        "relay_mp.mark.name": "full",
        "relay_mp.mark.parent_uuid": agent.uuid,
        "relay_mp.mark.data_schema.name": "example.cache",
        "relay_mp.mark.data_schema.version": "1",
        "relay_mp.mark.metadata": {"k": "v", "n": {"d": 1}},
    }
    assert record.time_unix_nano < record.observed_time_unix_nano
    assert (sent["plain"].item.severity_text, sent["plain"].item.HasField("body")) == ("INFO", False)
    assert plain(sent["inside"].item.body) == "text"
    assert plain(sent["late"].item.body) == 5
    assert plain(sent["top"].item.body) == str(2**64 - 1)
    agent_id, inner_id = uuid.UUID(agent.uuid).bytes, uuid.UUID(inner.uuid).bytes
    where = {name: (one.item.trace_id, one.item.span_id) for name, one in sent.items()}
    assert where["plain"] == where["full"] == (agent_id, agent_id[8:])
    assert where["inside"] == where["late"] == (agent_id, inner_id[8:])
    assert where["top"] == (b"", b"")
    report = session.stats().exporters["logs"]
    assert (report.taken, report.exported, report.ignored, report.lost) == (11, 5, 6, 0)


@pytest.mark.parametrize("minimum", LogSeverity)
def test_marks_below_the_minimum_are_ignored(session, http, minimum):
    made = subscriber(http, minimum_severity=minimum)
    for severity in LogSeverity:
        scope.event(severity.name, severity=severity)
    scope.event("none", metadata={"relay_mp.log.severity": "loud"})
    made.shutdown()
    expected = [s.name for s in LogSeverity if s.code >= minimum.code] + ["none"] * (minimum.code <= 2)
    assert names(http) == expected
    numbers = {record.event_name: record.severity_number for record in http.logs}
    assert numbers == {
        name: {"Trace": 1, "Debug": 5, "Info": 9, "none": 9, "Warn": 13, "Error": 17}[name] for name in expected
    }


def test_records_belong_to_the_spans_of_the_traces(session, receiver):
    traces = OpenTelemetrySubscriber(configured(OpenTelemetryConfig("full", receiver.endpoint), receiver))
    traces.register("traces")
    made = subscriber(receiver)
    remote = PropagationContext("0190b0a1-0000-7000-8000-00000000000a", "0190b0a1-0000-7000-8000-00000000000b")
    with scope.scope("agent", ScopeType.Agent):
        scope.event("in agent")
        with scope.scope("tool", ScopeType.Tool):
            scope.event("in tool")
    stack = relay_mp.create_scope_stack_from_propagation(remote)
    with relay_mp.use_scope_stack(stack):
        scope.event("under remote")
        with scope.scope("remote child", ScopeType.Function):
            scope.event("in remote child")
    traces.shutdown()
    made.shutdown()
    spans = {span.name: span for span in receiver.spans}
    where = {record.event_name: (record.trace_id, record.span_id) for record in receiver.logs}
    for name, span in (("in agent", "agent"), ("in tool", "tool"), ("in remote child", "remote child")):
        assert where[name] == (spans[span].trace_id, spans[span].span_id)
    assert where["under remote"][0] == spans["remote child"].trace_id == uuid.UUID(remote.root_uuid).bytes
    assert where["under remote"][1] == uuid.UUID(remote.parent_uuid).bytes[8:]


def test_a_scope_that_ended_long_ago_is_nobodys_parent(session, http):
    made = subscriber(http, completed_span_context_ttl_millis=0)
    with scope.scope("agent", ScopeType.Agent) as agent:
        scope.event("in time")
    scope.event("late", handle=agent)
    made.shutdown()
    assert [bool(record.span_id) for record in http.logs] == [True, False]


def test_losses_are_warnings(http):
    go_on, entered = threading.Event(), threading.Event()

    def slow(_event):
        entered.set()
        assert go_on.wait(30)

    with relay_mp.session(on_full="drop", ring_bytes=64 * 1024) as session:
        made = subscriber(http, minimum_severity=LogSeverity.Warn)
        subscribers.register("slow", slow)
        scope.event("first")
        assert entered.wait(30)
        for n in range(5000):
            scope.event("m", data=n)
        go_on.set()
        subscribers.flush()
        scope.event("last")
        made.shutdown()
        lost = session.stats().lost
    assert lost > 0
    assert {record.severity_text for record in http.logs} == {"WARN"}
    assert sum(plain(record.body)["lost"] for record in http.logs) == lost


# --------------------------------------------------------------------------------------- payloads


def deep(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("session", [{"ring_bytes": 16 << 20}], indirect=True, ids=["16 MiB"])
def test_odd_payloads_arrive(session, receiver):
    odd = {
        "controls": CONTROLS,
        CONTROLS: "as a key",
        "large": "x" * (1 << 20),
        "nan": float("nan"),
        "infinity": [float("inf"), -float("inf")],
        "huge": 2**64 - 1,
        "empty": {"": [{}, []]},
        "surrogate": "\ud800",
    }
    made = subscriber(receiver)
    scope.event(CONTROLS, data=odd, metadata={CONTROLS: CONTROLS})
    scope.event("deep", data=deep(120), metadata={"d": deep(120)})
    scope.event("after")
    made.shutdown()
    first, nested, after = receiver.logs
    expected = {**odd, "nan": None, "infinity": [None, None], "huge": str(2**64 - 1), "surrogate": "\ufffd"}
    assert plain(first.body) == expected
    assert first.event_name == CONTROLS
    assert attributes(first.attributes)["relay_mp.mark.metadata"] == {CONTROLS: CONTROLS}
    body = plain(nested.body)
    for _ in range(MAX_BODY_DEPTH):
        (body,) = body
    rest = 120 - MAX_BODY_DEPTH
    assert body == "[" * rest + "1" + "]" * rest
    assert after.event_name == "after"
    report = session.stats().exporters["logs"]
    assert (report.exported, report.lost) == (3, 0)


TOO_DEEP = b"\x91" * 600 + b"\x01"  # as msgpack writes arrays; its own writer refuses so many


@pytest.mark.parametrize(
    "payload",
    ["\ud800 lone", {"\udfff": 1}, {1: "no string"}, b"bytes", TOO_DEEP, {"a": float("nan")}, 2**64 - 1, {"": {}}],
    ids=["surrogate", "surrogate key", "int key", "bytes", "deep", "nan", "u64", "empty"],
)
def test_a_record_of_another_writer_harms_no_other(http, payload):
    import msgpack

    config = configured(OpenTelemetryLogConfig(http.endpoint), http)
    sink = LogsSink(**config.arguments())
    packed = payload if payload is TOO_DEEP else msgpack.packb(payload, unicode_errors="surrogatepass")
    fields = [KIND_MARK, bytes(15) + b"\2", None, core.now_us(), "odd", None, 0, 0, None, packed, None, None, None]
    events = [
        decode(pack_record(KIND_MARK, bytes(15) + b"\1", None, core.now_us(), "before", None), 1, 1),
        decode(msgpack.packb(fields), 1, 1),
        decode(pack_record(KIND_MARK, bytes(15) + b"\3", None, core.now_us(), "after", None), 1, 1),
    ]
    for event in events:
        try:
            sink(event)
        except Exception:
            assert event.name == "odd"
    sink.close()
    report = sink.report()
    assert (report.taken, report.exported + report.dropped, report.state) == (3, 3, "closed")
    assert [name for name in names(http) if name != "odd"] == ["before", "after"]
    assert len(names(http)) == report.exported


# ------------------------------------------------------------------------------------------ faults


@pytest.mark.parametrize("step", ["unavailable", ("throttled", 0), "cut"])
def test_what_fails_for_the_moment_is_sent_again(session, receiver, step):
    made = subscriber(receiver)
    receiver.plan += [step, step]
    scope.event("a")
    scope.event("b")
    assert made.force_flush()
    assert names(receiver) == ["a", "b"]
    made.shutdown()
    report = session.stats().exporters["logs"]
    assert (report.exported, report.failures, report.lost) == (2, 2, 0)


def test_what_is_refused_is_counted_and_the_rest_goes_on(session, receiver):
    made = subscriber(receiver)
    receiver.plan += ["refused"]
    scope.event("a")
    assert made.force_flush()
    scope.event("b")
    made.shutdown()
    assert names(receiver) == ["b"]
    report = session.stats().exporters["logs"]
    assert (report.exported, report.drops) == (1, {"refused": 1})


def test_records_that_a_receiver_rejects_are_counted(session, receiver):
    made = subscriber(receiver)
    receiver.plan += [("partial", 2, "too old")]
    for name in "abc":
        scope.event(name)
    assert made.force_flush()
    assert made.runtime_diagnostics().get("otel.logs_dropped.rejected").count == 2
    made.shutdown()
    report = session.stats().exporters["logs"]
    assert (report.exported, report.drops, report.last_error) == (
        1,
        {"rejected": 2},
        "the receiver rejected 2 of 3 records",
    )


def test_a_receiver_that_is_down_costs_what_does_not_fit(session, receiver):
    made = subscriber(receiver, max_queue_size=50, max_export_batch_size=10)
    receiver.down()
    for n in range(100):
        scope.event(str(n))
    subscribers.flush()
    assert made.report()["logs"].drops == {"full": 50}
    wait_until(lambda: made.report()["logs"].failures)
    receiver.up()
    assert made.force_flush()
    assert names(receiver) == [str(n) for n in range(50)]
    assert all(len(request.resource_logs[0].scope_logs[0].log_records) <= 10 for request in receiver.received["logs"])
    made.shutdown()
    report = session.stats().exporters["logs"]
    assert (report.exported, report.drops) == (50, {"full": 50})


def test_what_is_left_at_shutdown_is_given_up_in_time(session, receiver):
    made = subscriber(receiver, limits={"shutdown_timeout_seconds": 0.1, "timeout_seconds": 60.0})
    receiver.plan += ["stall"]
    scope.event("a")
    scope.event("b")
    made.shutdown()
    report = session.stats().exporters["logs"]
    assert (report.state, report.drops) == ("closed", {"shutdown": 2})
    receiver.release.set()


@pytest.mark.parametrize("session", ["process"], indirect=True)
def test_after_a_killed_dispatcher_every_record_is_exported_or_counted(session, http):
    made = subscriber(http)
    scope.event("first")
    assert made.force_flush()
    http.plan += ["stall"]
    for n in range(5):
        scope.event(f"taken {n}")
    subscribers.flush()
    session.request_exporter_flush("logs")
    wait_until(lambda: http.requests == 2)  # in mid-batch
    os.kill(session._segment.lease()[1], signal.SIGKILL)
    http.release.set()
    for n in range(5):
        scope.event(f"after {n}")
    assert made.force_flush()
    found = Counter(names(http))
    assert all(found[f"after {n}"] == 1 for n in range(5))
    assert found["first"] == 1
    made.shutdown()
    report = session.stats().exporters["logs"]
    assert report.exported + report.unconfirmed == report.taken
    assert report.exported == found.total()
    assert report.unconfirmed >= 11 - found.total()


def test_the_environment_is_honoured(session, monkeypatch, http):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", http.url("logs"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "api-key=secret")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from the environment")
    monkeypatch.setenv("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "2")
    monkeypatch.setenv("OTEL_BLRP_SCHEDULE_DELAY", "3600000")
    made = OpenTelemetryLogSubscriber(OpenTelemetryLogConfig())
    made.register("logs")
    for name in "abcde":
        scope.event(name)
    http.await_acknowledged("logs", 2)  # full batches wait for nothing
    made.shutdown()
    assert names(http) == list("abcde")
    assert {sent.resource["service.name"] for sent in http.sent("logs")} == {"from the environment"}
    assert {headers["api-key"] for headers in http.headers} == {"secret"}
    assert {headers["content-encoding"] for headers in http.headers} == {"gzip"}


# -------------------------------------------------------------------------------------- processes


WORKERS = """
import sys
import relay_mp
from relay_mp import LogSeverity, OpenTelemetryLogConfig, OpenTelemetryLogSubscriber, ScopeType, pools, scope

def work(worker):
    with scope.scope(f"worker {worker}", ScopeType.Agent):
        for n in range(100):
            with scope.scope("step", ScopeType.Function):
                scope.event("m", data=[worker, n], severity=LogSeverity.Info)

if __name__ == "__main__":
    endpoint, transport, dispatcher, path = sys.argv[1:]
    with relay_mp.session(dispatcher=dispatcher) as session:
        config = OpenTelemetryLogConfig(endpoint)
        config.transport, config.scheduled_delay_millis = transport, 5
        made = OpenTelemetryLogSubscriber(config)
        made.register("logs")
        atof = relay_mp.AtofExporterConfig()
        atof.output_directory, atof.filename = path, "events.jsonl"
        lines = relay_mp.AtofExporter(atof)
        lines.register("lines")
        with scope.scope("run", ScopeType.Function):
            workers = [pools.Process(target=work, args=(n,)) for n in range(8)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        assert all(worker.exitcode == 0 for worker in workers)
        made.shutdown()
        lines.shutdown()
        report = session.stats().exporters["logs"]
        assert (report.exported, report.lost, report.queued) == (800, 0, 0), report
"""


@pytest.mark.parametrize(
    ("protocol", "dispatcher"),
    [("grpc", "thread"), pytest.param("http/protobuf", "process", marks=pytest.mark.long)],
)
def test_the_records_of_many_processes_are_their_marks(protocol, dispatcher, run_script, tmp_path):
    with OtlpReceiver(protocol) as receiver:
        transport = "grpc" if protocol == "grpc" else "http_binary"
        run_script(WORKERS, receiver.endpoint, transport, dispatcher, tmp_path)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    (run,) = [event["uuid"] for event in events if event["name"] == "run" and event["scope_category"] == "start"]
    expected = [
        (event["uuid"], event["data"], uuid.UUID(run).bytes, uuid.UUID(event["parent_uuid"]).bytes[8:])
        for event in events
        if event["kind"] == "mark"
    ]
    found = [
        (attributes(r.attributes)["relay_mp.mark.uuid"], plain(r.body), r.trace_id, r.span_id) for r in receiver.logs
    ]
    assert len(expected) == 800
    assert found == expected  # in the order of the stream, too
    pids = {attributes(record.attributes)["process.pid"] for record in receiver.logs}
    assert len(pids) == 8


@pytest.mark.long
def test_workers_forked_beside_grpcs_threads_harm_no_call_and_no_process(run_script, tmp_path):
    """gRPC's own fork handlers did: 3 of 40 runs sent a batch twice, or ended with a SIGSEGV."""
    for number in range(60):
        directory = tmp_path / str(number)
        directory.mkdir()
        with OtlpReceiver("grpc") as receiver:
            run_script(WORKERS, receiver.endpoint, "grpc", "thread", directory)
        assert len(receiver.logs) == 800


# ------------------------------------------------------------------------------- what is misused


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("minimum_severity", "info", TypeError),
        ("max_queue_size", 0, ValueError),
        ("max_export_batch_size", 0, ValueError),
        ("max_export_batch_size", 2049, ValueError),
        ("scheduled_delay_millis", 0, ValueError),
        ("completed_span_context_ttl_millis", -1, ValueError),
        ("max_open_scopes", 0, ValueError),
        ("transport", "carrier pigeon", ValueError),
    ],
)
def test_misuse_is_said_at_once(name, value, error):
    config = OpenTelemetryLogConfig("http://127.0.0.1:1")
    setattr(config, name, value)
    with pytest.raises(error, match=name):
        OpenTelemetryLogSubscriber(config)
