"""Events a second into files and collectors: the library's exporters against nemo-relay's own of the same name.

Both have the same vocabulary, so that one function serves both. A round emits all events in one process and ends when
the exporter says that they are out; the library's ATOF file is also measured with producers in other processes.
"""

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
from benchmarks.fleet import Order, Sink, fleet
from benchmarks.harness import BenchmarkError, Part, Side, Unavailable, child, received
from benchmarks.payloads import EVENT_NAME, FOUR_FIELDS
from benchmarks.peers import RELAY, Relay

ROUNDS = 3
EVENTS = 20_000
LIBRARIES = {"relay_mp": "relay_mp", "nemo-relay": "nemo_relay"}


def _atof(library: Any, directory: str) -> Any:
    config = library.AtofExporterConfig()
    config.output_directory, config.filename = directory, "events.jsonl"
    return library.AtofExporter(config)


def _atif(library: Any, _directory: str) -> Any:
    return library.AtifExporter("benchmark", "agent", "1")


def _otlp(library: Any, directory: str) -> Any:
    config = library.OpenTelemetryConfig(
        transport="http_binary", endpoint=Path(directory, "endpoint").read_text(encoding="utf-8")
    )
    return library.OpenTelemetrySubscriber(config)


FORMATS: dict[str, Callable[[Any, str], Any]] = {"ATOF JSONL": _atof, "ATIF": _atif, "OTLP over HTTP": _otlp}
NEEDS = {"ATOF JSONL": "AtofExporter", "ATIF": "AtifExporter", "OTLP over HTTP": "OpenTelemetrySubscriber"}


@contextmanager
def exporting(library_name: str, format_name: str, events: int) -> Iterator[Callable[[], float]]:
    """A side: one process emits, and its exporter exports; events a second."""
    with ExitStack() as stack:
        try:
            library = importlib.import_module(library_name)
        except ImportError as error:
            raise Unavailable(f"not installed ({error})") from None
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-mp-bench-"))
        if format_name.startswith("OTLP"):
            stack.enter_context(_collector(directory))
        if library is relay_mp:
            stack.enter_context(RELAY.open())
        exporter = FORMATS[format_name](library, directory)
        exporter.register("benchmark")
        yield lambda: _rate(library, exporter, events)
        exporter.deregister("benchmark")
        if format_name == "ATOF JSONL":
            exporter.shutdown()
            _check_lines(Path(directory, "events.jsonl"), events)


def _rate(library: Any, exporter: Any, events: int) -> float:
    event, start = library.scope.event, time.perf_counter()
    with library.scope.scope("run", library.ScopeType.Agent):
        for _ in range(events):
            event(EVENT_NAME, data=FOUR_FIELDS)
    if hasattr(exporter, "force_flush"):
        exporter.force_flush()
    else:  # ATIF: the trajectory is made when it is asked for
        library.subscribers.flush()
        exporter.export()
        exporter.clear()
    return events / (time.perf_counter() - start)


def _check_lines(file: Path, events: int) -> None:
    with file.open("rb") as lines:
        number = sum(1 for _ in lines)
    if number % (events + 2):
        raise BenchmarkError(f"{file} has {number} lines; expected a multiple of {events} marks and a scope's two")


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
        exporters.append(_atof(relay_mp, directory))
        with fleet(Written(), FOUR_FIELDS, producers, lambda _read: Sink(None)) as started:
            order = Order(events // producers, timed=False)

            def run_round() -> float:
                run = started.run(order)
                return run.delivered / run.seconds

            yield run_round


@contextmanager
def _collector(directory: str) -> Iterator[None]:
    """An HTTP server in another process that takes whatever is posted; its URL is in the file `endpoint`."""
    with child(_collect) as pipe:
        Path(directory, "endpoint").write_text(f"http://127.0.0.1:{received(pipe)}/v1/traces", encoding="utf-8")
        yield


class _Accepting(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        return None


def _collect(pipe: Any) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Accepting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pipe.send(server.server_port)
    pipe.recv()


def run(part: Part) -> None:
    events = part.scaled(EVENTS, 200)
    for name in FORMATS:
        if not hasattr(relay_mp, NEEDS[name]):
            part.skip(name, f"relay_mp has no {NEEDS[name]} yet")
            continue
        sides = [Side(title, exporting, (module, name, events)) for title, module in LIBRARIES.items()]
        if name == "ATOF JSONL":
            sides += [Side(f"relay_mp, {n} producers", exporting_from, (n, events)) for n in (2, 8)]
        _add(part, f"exported, {name}", sides)


def _add(part: Part, group: str, sides: list[Side]) -> None:
    print(f"  {group}")
    reference: list[float] | None = None
    for side, rates in part.rounds(sides, part.scaled(ROUNDS)).items():
        reference = reference or rates
        ratio = round(float(np.median(np.array(rates) / np.array(reference))), 3)
        value = round(float(np.median(rates)))
        values = [round(rate) for rate in rates]
        part.add(group, side, unit="events/s", value=value, values=values, ratio=ratio)
        print(f"    {side:<44} {value:>9,} events/s  ratio {ratio:6.2f}", flush=True)
