"""One run of a few agents in two processes, in every format that there is.

    python examples/exporters.py [DIRECTORY]

    events.jsonl    ATOF: the stream itself, an event a line
    atif/*.json     ATIF: a trajectory for each top-level agent
    trace.json      a picture for https://ui.perfetto.dev or chrome://tracing: drop it there
    metrics.txt     what Prometheus would have scraped at the end (needs relay_mp[prometheus])
    otlp/*.jsonl    what an OpenTelemetry receiver was sent, traces, logs and metrics (needs relay_mp[openinference])

The last are written by a stand-in for a receiver. If OTEL_EXPORTER_OTLP_ENDPOINT is set, they go there instead, as to
Phoenix or a collector. What each exporter says of itself is printed at the end; what an extra is missing for, first.
"""

import contextlib
import importlib.util
import os
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import relay_mp
from relay_mp import ScopeType, pools, scope

HISTOGRAM, U64 = relay_mp.MetricKind.Histogram, relay_mp.MetricValueType.U64


def answer(question: str) -> str:
    """One agent: it asks a model, uses a tool that the model asked for, and has a helper check the answer."""
    topic = question.rstrip("?").split()[-1]
    with scope.scope("agent", ScopeType.Agent, input={"question": question}, metadata={"topic": topic}):
        scope.event("plan made", data={"steps": 2})
        request = {"messages": [{"role": "user", "content": question}]}
        with scope.scope("model", ScopeType.Llm, input=request):
            found = topic
        with scope.scope("count letters", ScopeType.Tool, input={"word": found}):
            letters = len(found)
            scope.metric("counted", [relay_mp.MetricMeasurement("letters", HISTOGRAM, U64, letters)])
        with scope.scope("checker", ScopeType.Agent), scope.scope("model", ScopeType.Llm):
            scope.event("checked", severity=relay_mp.LogSeverity.Info)
        return f"{found} has {letters} letters"


def exporters(directory: Path, collector: str) -> dict[str, relay_mp.observability.Exporter]:
    """All of them, by the name to register them under. `collector`: where OpenTelemetry goes by default."""
    atof = relay_mp.AtofExporterConfig()
    atof.output_directory, atof.filename = str(directory), "events.jsonl"
    atof.mode = relay_mp.AtofExporterMode.Overwrite
    template = "{metadata.topic}-{session_id}.json"
    for old in directory.glob("otlp/*.jsonl"):
        old.unlink()
    found: dict[str, relay_mp.observability.Exporter] = {
        "atof": relay_mp.AtofExporter(atof),
        "atif": relay_mp.AtifFileExporter(directory / "atif", filename_template=template, agent_name="letters"),
        "perfetto": relay_mp.PerfettoExporter(directory / "trace.json", mode=relay_mp.PerfettoExporterMode.Overwrite),
    }
    if has("prometheus_client", "prometheus"):
        found["prometheus"] = relay_mp.PrometheusExporter()
    if has("openinference", "openinference"):
        endpoint = "" if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") else collector  # "": by the environment
        spans = relay_mp.OpenTelemetryConfig("openinference", endpoint)
        logs, metrics = relay_mp.OpenTelemetryLogConfig(endpoint), relay_mp.OpenTelemetryMetricConfig(endpoint)
        for config in (spans, logs, metrics):
            config.service_name = "letters"
        found["otel traces"] = relay_mp.OpenTelemetrySubscriber(spans)
        found["otel logs"] = relay_mp.OpenTelemetryLogSubscriber(logs)
        found["otel metrics"] = relay_mp.OpenTelemetryMetricSubscriber(metrics)
    return found


def has(module: str, extra: str) -> bool:
    """Whether an extra is installed; says so if not."""
    if importlib.util.find_spec(module):
        return True
    print(f"left out: {extra}, pip install 'relay_mp[{extra}]'")
    return False


@contextlib.contextmanager
def stand_in(directory: Path) -> Iterator[str]:
    """The address of a receiver that keeps each request as a line of JSON, in a file for each signal."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            keep(directory / f"{Path(self.path).name}.jsonl", self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            return None

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def keep(path: Path, body: bytes) -> None:
    """Adds an OTLP request, as protobuf's JSON has it, in which ids are base64."""
    from google.protobuf import json_format
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    messages = {"traces": ExportTraceServiceRequest, "logs": ExportLogsServiceRequest}
    request = messages.get(path.stem, ExportMetricsServiceRequest).FromString(body)
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json_format.MessageToJson(request, indent=None) + "\n")


def main() -> None:
    """Runs the agents, then shows what was written."""
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="relay-mp-exporters-"))
    directory.mkdir(parents=True, exist_ok=True)
    questions = ["How long is a segment?", "How long is a ring?", "How long is a unit?"]
    with stand_in(directory / "otlp") as collector, relay_mp.session() as session:
        running = exporters(directory, collector)
        for name, exporter in running.items():
            exporter.register(name)
        with scope.scope("run", ScopeType.Function), pools.ProcessPoolExecutor(2) as pool:
            print(*pool.map(answer, questions), sep="\n")
        relay_mp.subscribers.flush()
        prometheus = running.get("prometheus")
        if isinstance(prometheus, relay_mp.PrometheusExporter) and prometheus.url:
            with urllib.request.urlopen(prometheus.url, timeout=10) as metrics:
                (directory / "metrics.txt").write_bytes(metrics.read())
        for exporter in running.values():
            exporter.shutdown()
        for name, report in session.stats().exporters.items():
            print(f"{name}: {report.taken} events, {report.exported} exported, {report.ignored} none of it")
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        print(f"{path.stat().st_size:>8} bytes  {path}")


if __name__ == "__main__":
    main()
