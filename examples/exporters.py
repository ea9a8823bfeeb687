"""One run of a few agents in two processes, in every format that there is.

    python examples/exporters.py [DIRECTORY]

    events.jsonl    ATOF: the stream itself, an event a line
    atif/*.json     ATIF: a trajectory for each top-level agent
    trace.json      a picture for https://ui.perfetto.dev or chrome://tracing: drop it there
    metrics.txt     what Prometheus would have scraped at the end (needs relay_mp[prometheus])

Spans go to the OpenTelemetry receiver of OTEL_EXPORTER_OTLP_ENDPOINT, such as Phoenix, if that is set (needs
relay_mp[openinference]). What each exporter says of itself is printed at the end.
"""

import importlib.util
import os
import sys
import tempfile
import urllib.request
from pathlib import Path

import relay_mp
from relay_mp import ScopeType, pools, scope


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
        with scope.scope("checker", ScopeType.Agent), scope.scope("model", ScopeType.Llm):
            scope.event("checked", severity=relay_mp.LogSeverity.Info)
        return f"{found} has {letters} letters"


def exporters(directory: Path) -> dict[str, relay_mp.observability.Exporter]:
    """All of them, by the name to register them under."""
    atof = relay_mp.AtofExporterConfig()
    atof.output_directory, atof.filename = str(directory), "events.jsonl"
    atof.mode = relay_mp.AtofExporterMode.Overwrite
    template = "{metadata.topic}-{session_id}.json"
    (directory / "trace.json").unlink(missing_ok=True)
    found: dict[str, relay_mp.observability.Exporter] = {
        "atof": relay_mp.AtofExporter(atof),
        "atif": relay_mp.AtifFileExporter(directory / "atif", filename_template=template, agent_name="letters"),
        "perfetto": relay_mp.PerfettoExporter(directory / "trace.json"),
    }
    if importlib.util.find_spec("prometheus_client"):
        found["prometheus"] = relay_mp.PrometheusExporter()
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        config = relay_mp.OpenTelemetryConfig("openinference")
        config.service_name = "letters"
        found["otel"] = relay_mp.OpenTelemetrySubscriber(config)
    return found


def main() -> None:
    """Runs the agents, then shows what was written."""
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="relay-mp-exporters-"))
    directory.mkdir(parents=True, exist_ok=True)
    questions = ["How long is a segment?", "How long is a ring?", "How long is a unit?"]
    with relay_mp.session() as session:
        running = exporters(directory)
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
