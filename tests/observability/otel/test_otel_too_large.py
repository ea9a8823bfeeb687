"""A receiver that takes only so many bytes at once: batches are halved, and what is too large alone is counted."""

import logging

import grpc
import pytest
from otlp_receiver import SIGNALS, OtlpReceiver
from receiver import WAIT_SECONDS, Receiver

import relay_mp
from relay_mp import LogSeverity, MetricKind, MetricMeasurement, MetricTemporality, MetricValueType, ScopeType, scope
from relay_mp.observability.export.batch_queue import Refused, Retryable, TooLarge
from relay_mp.observability.otel.grpc import GrpcWire

QUICK = {"retry_initial_seconds": 0.01, "retry_max_seconds": 0.05}
TOO_LARGE = "too_large"


class Narrow(Receiver):
    """Refuses bodies of more than so many bytes. Keeps the sizes that it has refused, and what it has taken."""

    def __init__(self, signal, most):
        self.signal, self.most, self.status = SIGNALS[signal], most, 413
        self.refused, self.taken = [], []
        super().__init__()

    def next_step(self, handler):
        size = int(handler.headers["Content-Length"])
        if size <= self.most:
            return 200
        self.refused.append(size)
        return self.status

    def acknowledge(self, handler, body):
        self.taken.append((len(body), self.signal.request.FromString(body)))

    @property
    def items(self):
        return [
            item
            for _, request in self.taken
            for of_resource in getattr(request, self.signal.resources)
            for of_scope in getattr(of_resource, self.signal.scopes)
            for item in getattr(of_scope, self.signal.items)
        ]


def traces(url, **limits):
    config = relay_mp.OpenTelemetryConfig("gen_ai", url)
    config.limits = {**QUICK, "schedule_delay_seconds": WAIT_SECONDS, **limits}
    exporter = relay_mp.OpenTelemetrySubscriber(config)
    exporter.register("otlp")
    return exporter


def emit(names):
    for name in names:
        with scope.scope(name, ScopeType.Function):
            pass


def names(count, bytes_each=300):
    return [f"{number:0{bytes_each}}" for number in range(count)]


def size_of(count):
    """Of the body that has so many of the names."""
    with Narrow("traces", 1 << 30) as receiver, relay_mp.session():
        exporter = traces(url_of(receiver))
        emit(names(count))
        exporter.shutdown()
        ((size, _),) = receiver.taken
    return size


def url_of(receiver):
    return receiver.url.partition("/events")[0]


@pytest.mark.parametrize("short", [0, 1])
def test_a_batch_is_halved_from_the_first_byte_above_the_bound(short):
    """At the bound nothing is refused; one byte less, and the batch goes in two."""
    most = size_of(8) - short
    with Narrow("traces", most) as receiver, relay_mp.session() as session:
        exporter = traces(url_of(receiver))
        emit(names(8))
        exporter.shutdown()
        report = session.stats().exporters["otlp"]
        assert [span.name for span in receiver.items] == names(8)
        assert receiver.refused == [most + 1] * short
        assert len(receiver.taken) == 1 + short
    assert (report.exported, report.drops, report.failures) == (16, {}, short)


def test_halves_are_halved_until_they_are_taken_and_keep_their_order(caplog):
    with Narrow("traces", size_of(3)) as receiver, relay_mp.session() as session:
        exporter = traces(url_of(receiver))
        emit(names(21))
        exporter.shutdown()
        report = session.stats().exporters["otlp"]
        assert [span.name for span in receiver.items] == names(21)
        assert max(size for size, _ in receiver.taken) <= receiver.most
    assert (report.taken, report.exported, report.drops) == (42, 42, {})
    assert report.failures == len(receiver.refused) > 0
    assert caplog.text == ""


def test_what_is_too_large_alone_is_dropped_counted_and_told_in_one_line(caplog):
    large = [3, 4, 9]
    said = [name * 20 if number in large else name for number, name in enumerate(names(12))]
    with caplog.at_level(logging.WARNING), Narrow("traces", size_of(4)) as receiver, relay_mp.session() as session:
        exporter = traces(url_of(receiver))
        emit(said)
        exporter.shutdown()
        report = session.stats().exporters["otlp"]
        assert [span.name for span in receiver.items] == [name for name in said if len(name) < 1000]
        assert exporter.runtime_diagnostics().get(f"otel.traces_dropped.{TOO_LARGE}").count == 6
    assert (report.taken, report.exported, report.drops) == (24, 18, {TOO_LARGE: 6})
    assert report.failures == len(receiver.refused)
    (line,) = [record.getMessage() for record in caplog.records if "gives up" in record.getMessage()]
    assert "an exporter gives up 2 events: TooLarge: " in line
    assert "answered 413" in line


def test_later_batches_are_no_larger_than_what_was_taken():
    with Narrow("traces", size_of(4)) as receiver, relay_mp.session():
        exporter = traces(url_of(receiver))
        emit(names(8))
        exporter.force_flush()
        refused = len(receiver.refused)
        assert refused == 1
        for _ in range(5):
            emit(names(8))
            exporter.force_flush()
        assert len(receiver.refused) == refused
        assert len(receiver.items) == 48
        exporter.shutdown()


@pytest.mark.parametrize(("said", "halves"), [("http: request body too large", True), ("because of you", False)])
def test_a_400_is_a_413_where_its_text_says_so(said, halves):
    class Answering(Narrow):
        def handle(self, handler):
            if int(handler.headers["Content-Length"]) <= self.most:
                super().handle(handler)
                return
            handler.rfile.read(int(handler.headers["Content-Length"]))
            handler.send_response(400)
            handler.send_header("Content-Length", str(len(said)))
            handler.end_headers()
            handler.wfile.write(said.encode())

    with Answering("traces", size_of(4)) as receiver, relay_mp.session() as session:
        exporter = traces(url_of(receiver))
        emit(names(8))
        exporter.shutdown()
        report = session.stats().exporters["otlp"]
    assert (report.exported, report.drops) == ((16, {}) if halves else (0, {"refused": 16}))


def test_the_halves_have_one_deadline_which_shutdown_brings_nearer():
    """The second half is not taken in time: it is given up with its own events, and no other."""
    with Narrow("traces", size_of(4)) as receiver, relay_mp.session() as session:
        exporter = traces(url_of(receiver), retry_deadline_seconds=0.3)
        receiver.acknowledge = lambda handler, body: setattr(receiver, "status", 503) or setattr(receiver, "most", 0)
        emit(names(8))
        exporter.force_flush()
        report = session.stats().exporters["otlp"]
        exporter.shutdown()
    assert (report.exported, report.drops) == (8, {"deadline": 8})


def test_log_records_are_halved_and_the_one_too_large_is_counted():
    with Narrow("logs", 4000) as receiver, relay_mp.session() as session:
        config = relay_mp.OpenTelemetryLogConfig(url_of(receiver))
        config.limits = {**QUICK, "schedule_delay_seconds": WAIT_SECONDS}
        exporter = relay_mp.OpenTelemetryLogSubscriber(config)
        exporter.register("otlp")
        for number in range(20):
            scope.event(str(number), data="x" * (5000 if number == 7 else 100), severity=LogSeverity.Warn)
        exporter.shutdown()
        report = session.stats().exporters["otlp"]
        assert [record.event_name for record in receiver.items] == [str(n) for n in range(20) if n != 7]
    assert (report.taken, report.exported, report.drops) == (20, 19, {TOO_LARGE: 1})


@pytest.mark.parametrize("temporality", [MetricTemporality.Cumulative, MetricTemporality.Delta])
def test_points_are_halved_and_the_one_too_large_is_counted(temporality, caplog):
    with Narrow("metrics", 4000) as receiver, relay_mp.session() as session:
        config = relay_mp.OpenTelemetryMetricConfig(url_of(receiver))
        config.temporality = temporality
        config.limits = QUICK
        exporter = relay_mp.OpenTelemetryMetricSubscriber(config)
        exporter.register("otlp")
        for number in range(40):
            attributes = {"who": f"{number:0{5000 if number == 7 else 50}}"}
            counter = MetricMeasurement("n", MetricKind.Counter, MetricValueType.U64, 1, attributes=attributes)
            scope.metric("m", [counter])
        exporter.shutdown()
        report = session.stats().exporters["otlp"]
        points = [point for metric in receiver.items for point in metric.sum.data_points]
    assert [int(point.attributes[0].value.string_value) for point in points] == [n for n in range(40) if n != 7]
    assert (report.taken, report.exported, report.drops) == (40, 39, {TOO_LARGE: 1})
    assert "a point of a metric is given up: TooLarge: " in caplog.text


class Answer:
    """An error as gRPC's client raises it."""

    def __init__(self, code, details):
        self.code, self.details = (lambda: code), (lambda: details)

    def trailing_metadata(self):
        return ()


@pytest.mark.parametrize(
    ("code", "details", "means"),
    [
        ("RESOURCE_EXHAUSTED", "SERVER: Received message larger than max (9000000 vs. 4194304)", TooLarge),
        ("RESOURCE_EXHAUSTED", "grpc: received message larger than max (9000000 vs. 4194304)", TooLarge),
        ("RESOURCE_EXHAUSTED", "gRPC message exceeds maximum size 4194304: 9000000", TooLarge),
        ("RESOURCE_EXHAUSTED", "Received message exceeds the maximum configured message size.", TooLarge),
        (
            "OUT_OF_RANGE",
            "Error, decoded message length too large: found 9000000 bytes, the limit is: 4194304",
            TooLarge,
        ),
        ("OUT_OF_RANGE", "for the moment", Retryable),
        ("RESOURCE_EXHAUSTED", "quota", Refused),
        ("RESOURCE_EXHAUSTED", None, Refused),
        ("INVALID_ARGUMENT", "Received message larger than max", Refused),
    ],
)
def test_what_servers_over_grpc_say_of_a_message_that_is_too_large(code, details, means):
    wire = GrpcWire("traces", "http://127.0.0.1:1", {})
    assert type(wire._failure(Answer(grpc.StatusCode[code], details))) is means


@pytest.fixture
def narrow_grpc(monkeypatch):
    """A receiver whose server itself refuses messages of more than 3000 bytes."""
    made = grpc.server

    def server(threads, options):
        return made(threads, options=[("grpc.max_receive_message_length", 3000)])

    monkeypatch.setattr(grpc, "server", server)
    with OtlpReceiver("grpc") as receiver:
        yield receiver


def test_over_grpc_a_message_that_is_too_large_is_halved(session, narrow_grpc):
    config = relay_mp.OpenTelemetryConfig("gen_ai", narrow_grpc.endpoint)
    config.transport, config.limits = "grpc", {**QUICK, "schedule_delay_seconds": WAIT_SECONDS}
    exporter = relay_mp.OpenTelemetrySubscriber(config)
    exporter.register("otlp")
    said = [name * 20 if number == 5 else name for number, name in enumerate(names(16))]
    emit(said)
    exporter.shutdown()
    assert [span.name for span in narrow_grpc.spans] == [name for name in said if len(name) < 1000]
    report = session.stats().exporters["otlp"]
    assert (report.taken, report.exported, report.drops) == (32, 30, {TOO_LARGE: 2})
    assert "RESOURCE_EXHAUSTED" in report.last_error
