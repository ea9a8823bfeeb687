"""Events a second into files and collectors: the library's exporters against nemo-relay's own of the same name.

Both have the same vocabulary, so that one function serves both. A round emits all events in one process and ends when
the exporter says that they are out; what came out is then counted, and must be what went in. The library is measured
with its dispatcher in a thread of that process, and in a process of its own: nemo-relay exports in native threads of
its own, beside the emitting one. The ATOF file is also measured with producers in other processes.

    ATOF JSONL       marks with four fields, a line each, in a file
    ATIF             turns of one agent, an LLM call and a tool call each, as one trajectory: two steps a turn. No marks
                     in it, for nemo-relay's trajectories leave them out.
    OTLP over HTTP   the same turns, as two spans a turn, in protobuf, posted to a process on this machine that reads,
                     keeps and answers; what it kept is parsed when the measurement is over
"""

import gzip
import importlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

import relay_mp
from benchmarks.harness import Part
from benchmarks.needs import OTLP_MODULE
from benchmarks.payloads import LLM_REQUEST, LLM_RESPONSE, TOOL_ARGUMENTS, TOOL_RESULT
from relay_mp._bench.children import BenchmarkError, Unavailable, child, received
from relay_mp._bench.fleet import Order, Sink, fleet
from relay_mp._bench.payloads import EVENT_NAME, FOUR_FIELDS
from relay_mp._bench.peers import RELAY, RELAY_PROCESS, Relay
from relay_mp._bench.sides import Side

ROUNDS = 5
MARKS, TURNS = 20_000, 2_500
EVENTS_A_TURN, STEPS_A_TURN, SPANS_A_TURN = 4, 2, 2
FLUSH_SECONDS = 60.0
OURS, OURS_IN_PROCESS, THEIRS = "relay_mp", "relay_mp, dispatcher process", "nemo-relay"
ATOF, ATIF, OTLP = "ATOF JSONL", "ATIF", "OTLP over HTTP"

Emit = Callable[[int], None]
Exported = tuple[Callable[[Emit, int], None], Callable[[int, int], None]]
"""What lets something be emitted and returns when all of it is out; and what checks, given the rounds there were."""


def _marks(library: Any) -> Emit:
    event = library.scope.event

    def emit(events: int) -> None:
        for _ in range(events):
            event(EVENT_NAME, data=FOUR_FIELDS)

    return emit


def _turns(library: Any) -> Emit:
    llm, tools = library.llm, library.tools
    request, result = library.LLMRequest({}, LLM_REQUEST), library.ToolExecutionResult(TOOL_RESULT)

    def emit(events: int) -> None:
        for _ in range(events // EVENTS_A_TURN):
            llm.call_end(llm.call("chat", request, model_name="m-1"), LLM_RESPONSE)
            tools.call_end(tools.call("search", TOOL_ARGUMENTS, tool_call_id="call-1"), result)

    return emit


@contextmanager
def _atof(library: Any) -> Iterator[Exported]:
    with tempfile.TemporaryDirectory(prefix="relay-mp-bench-") as directory:
        exporter = _atof_exporter(library, directory)
        exporter.register("benchmark")

        def export(emit: Emit, events: int) -> None:
            emit(events)
            exporter.force_flush()

        def check(rounds: int, events: int) -> None:
            exporter.shutdown()
            with Path(directory, "events.jsonl").open("rb") as lines:
                _expect("lines", sum(1 for _ in lines), rounds * (events + 2))

        yield export, check


def _atof_exporter(library: Any, directory: str) -> Any:
    config = library.AtofExporterConfig()
    config.output_directory, config.filename = directory, "events.jsonl"
    return library.AtofExporter(config)


@contextmanager
def _atif(library: Any) -> Iterator[Exported]:
    exporter = library.AtifExporter("benchmark", "agent", "1")
    exporter.register("benchmark")
    steps = 0

    def export(emit: Emit, events: int) -> None:
        nonlocal steps
        emit(events)
        library.subscribers.flush()
        steps += len(exporter.export()["steps"])  # the trajectory is made when it is asked for
        exporter.clear()

    yield export, lambda rounds, events: _expect("steps", steps, rounds * events // EVENTS_A_TURN * STEPS_A_TURN)
    exporter.deregister("benchmark")


@contextmanager
def _otlp(library: Any) -> Iterator[Exported]:
    if not hasattr(library, "OpenTelemetrySubscriber"):
        raise Unavailable(f"{library.__name__} has no OpenTelemetrySubscriber")
    try:
        importlib.import_module(OTLP_MODULE)  # of relay_mp[otel]; what counts the spans comes with it
    except ImportError as error:
        raise Unavailable(f"not installed ({error})") from None
    with child(_collect) as pipe:
        endpoint = f"http://127.0.0.1:{received(pipe)}/v1/traces"
        config = library.OpenTelemetryConfig("full", endpoint)
        config.transport = "http_binary"
        exporter = library.OpenTelemetrySubscriber(config)
        exporter.register("benchmark")

        def export(emit: Emit, events: int) -> None:
            emit(events)
            library.subscribers.flush()
            exporter.force_flush()

        def check(rounds: int, events: int) -> None:
            exporter.shutdown()
            pipe.send("count")
            _expect("spans", received(pipe), rounds * (events // EVENTS_A_TURN * SPANS_A_TURN + 1))

        yield export, check


def _expect(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise BenchmarkError(f"{found} {what} came out; expected {expected}")


FORMATS: dict[str, tuple[Any, Any, int]] = {
    ATOF: (_atof, _marks, MARKS),
    ATIF: (_atif, _turns, TURNS * EVENTS_A_TURN),
    OTLP: (_otlp, _turns, TURNS * EVENTS_A_TURN),
}
"""What exports, what emits, and how many events a round has."""


@contextmanager
def exporting(library_name: str, format_name: str, events: int, relay: Relay = RELAY) -> Iterator[Callable[[], float]]:
    """A side: one process emits, and its exporter exports, the library's where `relay` says; events a second."""
    open_exporter, emitter, _ = FORMATS[format_name]
    rounds = 0
    with ExitStack() as stack:
        try:
            library = importlib.import_module(library_name)
        except ImportError as error:
            raise Unavailable(f"not installed ({error})") from None
        if library is relay_mp:
            stack.enter_context(relay.open())
        export, check = stack.enter_context(open_exporter(library))
        emit = emitter(library)

        def emit_in_scope(events: int) -> None:
            with library.scope.scope("run", library.ScopeType.Agent):
                emit(events)

        def run_round() -> float:
            nonlocal rounds
            rounds += 1
            start = time.perf_counter()
            export(emit_in_scope, events)
            return events / (time.perf_counter() - start)

        yield run_round
        check(rounds, events)


@contextmanager
def exporting_from(producers: int, events: int) -> Iterator[Callable[[], float]]:
    """A side: processes emit flat out, the library writes one ATOF file; events a second."""
    exporters: list[Any] = []

    class Written(Relay):
        """The session whose only subscriber is the file exporter, behind which the sink counts."""

        @contextmanager
        def consume(self, address: Any, on_event: Any) -> Iterator[None]:
            exporters[0].register("file")
            with super().consume(address, on_event):
                yield
            exporters[0].shutdown()

    with tempfile.TemporaryDirectory(prefix="relay-mp-bench-") as directory:
        exporters.append(_atof_exporter(relay_mp, directory))
        with fleet(Written(), FOUR_FIELDS, producers, lambda _read: Sink(None)) as started:
            order = Order(events // producers, timed=False)

            def run_round() -> float:
                run = started.run(order)
                return run.delivered / run.seconds

            yield run_round


# ------------------------------------------------------------------------------------------- the receiver


class _Accepting(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.bodies.append((self.headers.get("Content-Encoding"), body))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        return None


def _collect(pipe: Any) -> None:
    """A receiver's process: says its port, takes whatever is posted, and counts the spans when it is asked."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Accepting)
    server.daemon_threads = True
    server.bodies = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pipe.send(server.server_port)
    while pipe.recv() is not None:
        pipe.send(sum(_spans_in(*body) for body in server.bodies))  # type: ignore[attr-defined]


def _spans_in(encoding: str | None, body: bytes) -> int:
    request = importlib.import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    plain = gzip.decompress(body) if encoding == "gzip" else body
    found = request.ExportTraceServiceRequest.FromString(plain)
    return sum(len(scope.spans) for resource in found.resource_spans for scope in resource.scope_spans)


# ------------------------------------------------------------------------------------------- the part


def run(part: Part) -> None:
    for name, (_, _, most) in FORMATS.items():
        events = part.scaled(most, 200)
        sides = [
            Side(OURS, exporting, ("relay_mp", name, events)),
            Side(THEIRS, exporting, ("nemo_relay", name, events)),
            Side(OURS_IN_PROCESS, exporting, ("relay_mp", name, events, RELAY_PROCESS)),
        ]
        if name == ATOF:
            sides += [Side(f"relay_mp, {n} producers", exporting_from, (n, events)) for n in (2, 8)]
        _add(part, group(name), sides)


def group(format_name: str) -> str:
    """As its rows call it."""
    return f"exported, {format_name}"


def _add(part: Part, named: str, sides: list[Side]) -> None:
    print(f"  {named}")
    reference: list[float] | None = None
    for side, rates in part.rounds(sides, part.scaled(ROUNDS)).items():
        reference = reference or rates
        ratio = round(float(np.median(np.array(rates) / np.array(reference))), 3)
        value = round(float(np.median(rates)))
        values = [round(rate) for rate in rates]
        part.add(named, side, unit="events/s", value=value, values=values, ratio=ratio)
        print(f"    {side:<44} {value:>9,} events/s  ratio {ratio:6.2f}", flush=True)
