"""Payloads that formats choke on: what becomes of them in each export, and that the rest is not disturbed.

In an emitting call NaN and infinities become null, lone surrogates and nesting beyond 128 are refused
(PayloadError), more than `max_event_bytes` is cut. So exporters see control characters, large and deep
payloads, and, in records of other writers, anything that msgpack can say.
"""

import contextlib
import json
import urllib.request

import pytest
from nat.atif import Trajectory
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans
from otlp_receiver import OtlpReceiver
from prometheus_client.parser import text_string_to_metric_families
from receiver import Receiver
from spans import attributes_of, by_name

import relay_mp
from relay_mp import (
    AtifFileExporter,
    AtofExporter,
    AtofExporterConfig,
    OpenTelemetryConfig,
    OpenTelemetrySubscriber,
    PerfettoExporter,
    PrometheusExporter,
    ScopeType,
    scope,
)
from relay_mp._native import core
from relay_mp.events import decode, pack_record
from relay_mp.observability.atif.exporter import atif
from relay_mp.observability.atof.exporter import atof_file
from relay_mp.observability.otel.traces_sink import TracesSink
from relay_mp.observability.perfetto.exporter import perfetto
from relay_mp.observability.prometheus.exporter import prometheus

# Of the size that a program's has: an event of 1 MiB fits.
BOTH = pytest.mark.parametrize(
    "session",
    [{"dispatcher": dispatcher, "ring_bytes": 16 << 20} for dispatcher in ("thread", "process")],
    ids=["thread", "process"],
    indirect=True,
)

PROJECTIONS = ("full", "gen_ai", "openinference")

CONTROLS = "".join(map(chr, range(32))) + "\x7f\x80\u2028\u2029\ufeff\uffff\U0001f600"


def deep(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


@BOTH
def test_odd_payloads_arrive_in_every_export(session, tmp_path):
    odd = {
        "controls": CONTROLS,
        CONTROLS: "as a key",
        "large": "x" * (1 << 20),
        "deep": deep(120),
        "nan": float("nan"),
        "infinity": [float("inf"), -float("inf")],
        "huge": 2**64 - 1,
        "dots.in.key": {"": None},
        "surrogate": "\ud800",
        "object": object(),
    }
    file, stream = AtofExporterConfig(), AtofExporterConfig()
    file.output_directory, file.filename = str(tmp_path), "events.jsonl"
    with Receiver() as receiver, contextlib.ExitStack() as stack:
        otlp = {projection: stack.enter_context(OtlpReceiver()) for projection in PROJECTIONS}
        stream.sink_type, stream.url, stream.transport = "stream", receiver.url, "ndjson"
        prometheus = PrometheusExporter()
        exporters = {
            "atof": AtofExporter([file, stream]),
            "atif": AtifFileExporter(tmp_path / "atif"),
            "trace": PerfettoExporter(tmp_path / "trace.json"),
            "prometheus": prometheus,
        }
        for projection, one in otlp.items():
            exporters[projection] = OpenTelemetrySubscriber(OpenTelemetryConfig(projection, one.endpoint))
        for name, exporter in exporters.items():
            exporter.register(name)
        with scope.scope(CONTROLS, ScopeType.Agent, input=odd, metadata={CONTROLS: CONTROLS}):
            scope.event(CONTROLS, data=odd)
            scope.event("after")
        relay_mp.subscribers.flush()
        with urllib.request.urlopen(prometheus.url, timeout=30) as answer:
            metrics = list(text_string_to_metric_families(answer.read().decode()))
        for exporter in exporters.values():
            exporter.shutdown()
        streamed = b"".join(receiver.bodies)
        spans = {projection: one.spans for projection, one in otlp.items()}
    written = (tmp_path / "events.jsonl").read_bytes()
    assert streamed == written
    start, mark, after, end = (json.loads(line) for line in written.decode().split("\n")[:-1])
    expected = {
        **odd, "nan": None, "infinity": [None, None], "surrogate": "\ufffd",
        "object": {"relay_mp.unrecorded": {"type": "object"}},
    }  # fmt: skip
    assert mark["data"] == start["data"] == expected
    assert end["name"] == mark["name"] == CONTROLS
    assert after["name"] == "after"
    (path,) = (tmp_path / "atif").iterdir()
    trajectory = json.loads(path.read_text())
    Trajectory.model_validate(trajectory)
    assert trajectory["extra"]["input"] == expected
    trace = json.loads((tmp_path / "trace.json").read_text())
    assert [event["name"] for event in trace if event["ph"] in "Xi"] == [CONTROLS, "after", CONTROLS]
    names = {sample.labels.get("name") for family in metrics for sample in family.samples}
    assert CONTROLS in names
    check_spans(spans, expected)
    reports = session.stats().exporters
    assert reports["gen_ai"].ignored == 2
    assert all((r.taken, r.exported + r.ignored, r.dropped) == (4, 4, 0) for r in reports.values())
    assert len(reports) == len(exporters) + 1
    assert session.stats().lost == session.stats().subscriber_errors == session.stats().cut == 0


def check_spans(spans, expected):
    # The second mark is a span of its own: the first has filled its parent's.
    assert {name: sorted(span.name for span in found)[1:] for name, found in spans.items()} == {
        "full": ["mark:after"], "gen_ai": [], "openinference": ["mark:after"],
    }  # fmt: skip
    full, gen_ai, inference = (next(s for s in found if s.name != "mark:after") for found in spans.values())
    assert full.name == inference.name == CONTROLS
    assert gen_ai.name == f"invoke_agent {CONTROLS}"
    assert [event.name for event in full.events] == [CONTROLS]
    found = attributes_of(full)
    for key, value in expected.items():
        said = found[f"relay_mp.start.data.{key}"]
        assert (said if isinstance(value, str) else json.loads(said)) == value
    assert json.loads(attributes_of(inference)["input.value"]) == expected


def test_a_value_that_is_too_long_is_cut_and_says_so(session):
    with OtlpReceiver() as receiver:
        config = OpenTelemetryConfig("full", receiver.endpoint)
        config.max_attribute_bytes = 100
        exporter = OpenTelemetrySubscriber(config)
        exporter.register("traces")
        with scope.scope("a" * 200, ScopeType.Agent, input={"text": "ü" * 100, "list": ["x"] * 100, "fits": "y" * 100}):
            pass
        with scope.scope("many", ScopeType.Agent, input={str(number): number for number in range(65)}):
            pass
        exporter.shutdown()
        spans = by_name(receiver.spans)
    cut, many = attributes_of(spans["a" * 100 + "…(200 bytes)"]), attributes_of(spans["many"])
    assert cut["relay_mp.start.data.text"] == "ü" * 50 + "…(200 bytes)"
    assert cut["relay_mp.start.data.list"].endswith("…(401 bytes)")
    assert cut["relay_mp.start.data.fits"] == "y" * 100
    # More keys than an object may have as attributes of their own.
    assert many["relay_mp.start.data"].startswith('{"0":0,')


def otlp_sink(projection):
    def make(_directory):
        sink = TracesSink(**OpenTelemetryConfig(projection, "http://127.0.0.1:1").arguments())
        sent = sink._queue.put_all = Sent(sink)  # encoded, and there it ends: what is looked at is the sink
        sink.sent = sent.spans
        return sink

    return make


class Sent:
    """In a queue's place: keeps what is put, which is then exported."""

    def __init__(self, sink):
        self.sink, self.spans = sink, []

    def __call__(self, items):
        for (span, _resource, _events), events, _size_bytes, _before in items:
            self.spans += ScopeSpans.FromString(span).spans
            self.sink.count_exported(events)
        return len(items)


SINKS = {
    "atof": lambda directory: atof_file(str(directory / "e.jsonl")),
    "atif": lambda directory: atif(output_directory=str(directory / "atif")),
    "perfetto": lambda directory: perfetto(str(directory / "t.json")),
    "prometheus": lambda directory: prometheus(),
    **{f"otel {projection}": otlp_sink(projection) for projection in PROJECTIONS},
}

AGENT = bytes(15) + b"\1"


def event_of(kind, uuid, name="n", **payloads):
    parent = None if uuid == AGENT else AGENT
    return decode(pack_record(kind, uuid, parent, core.now_us(), name, 0 if kind < 2 else None, **payloads), 1, 1)


@pytest.mark.parametrize("kind", SINKS)
@pytest.mark.parametrize(
    "payload",
    ["\ud800 lone", {"\udfff": 1}, {1: "no string"}, b"bytes", deep(500), {"a": float("nan")}, 2**64 - 1, {"": {}}],
    ids=["surrogate", "surrogate key", "int key", "bytes", "deep", "nan", "u64", "empty"],
)
def test_a_record_of_another_writer_harms_no_other_event(kind, payload, tmp_path):
    """Such a payload cannot be emitted; if it stands in a record all the same, that event may be dropped, no other."""
    sink = SINKS[kind](tmp_path)
    try:
        record = event_of(2, bytes(15) + b"\2", data=payload, metadata={"k": payload})
    except (UnicodeEncodeError, ValueError):
        record = surrogate_record(payload)
    events = [event_of(0, AGENT), event_of(2, bytes(15) + b"\3", "before"), record]
    events += [event_of(2, bytes(15) + b"\4", "after"), event_of(1, AGENT)]
    raised = 0
    for event in events:
        try:
            sink(event)
        except Exception:
            raised += 1
    sink.finish()
    sink.close()
    report = sink.report()
    assert raised <= 1
    assert (report.taken, report.queued, report.state) == (5, 0, "closed")
    assert report.exported + report.ignored + report.dropped == 5
    if kind.startswith("otel"):
        check_traces(kind, sink.sent)
    check_output(kind, tmp_path, kept=report.exported + report.ignored)


def surrogate_record(payload):
    """A record with a lone surrogate in it, as msgpack writes it when told to."""
    import msgpack

    packed = msgpack.packb(payload, unicode_errors="surrogatepass")
    fields = [2, bytes(15) + b"\2", AGENT, core.now_us(), "n", None, 0, 0, None, packed, None, None, None]
    return decode(msgpack.packb(fields), 1, 1)


def check_traces(kind, spans):
    names = [event.name for span in spans for event in span.events]
    assert [span.name.split()[-1] for span in spans] == ["n"]
    assert kind == "otel gen_ai" or {"before", "after"} <= set(names)


def check_output(kind, directory, kept):
    if kind == "atof":
        lines = (directory / "e.jsonl").read_bytes().decode("utf-8", "surrogatepass").split("\n")[:-1]
        assert len([json.loads(line) for line in lines]) == kept
    if kind == "atif":
        (path,) = (directory / "atif").iterdir()
        observed = json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))["extra"]["observed_events"]
        assert {"before", "after"} <= {event["name"] for event in observed}
        assert kept >= 4
    if kind == "perfetto":
        text = (directory / "t.json").read_bytes().decode()
        shown = {event["name"] for event in json.loads(text) if event["ph"] in "Xi"}
        assert {"before", "after"} <= shown
