"""The golden files: what each exporter makes of the scenarios.

python tests/observability/golden.py     writes them anew; look at the difference before you commit it
"""

import contextlib
import json
import re
import sys
import tempfile
import urllib.request
from pathlib import Path

from google.protobuf.json_format import MessageToDict

import relay_mp
from relay_mp import (
    AtifFileExporter,
    AtofExporter,
    AtofExporterConfig,
    OpenTelemetryConfig,
    OpenTelemetryLogConfig,
    OpenTelemetryLogSubscriber,
    OpenTelemetryMetricConfig,
    OpenTelemetryMetricSubscriber,
    OpenTelemetrySubscriber,
    PerfettoExporter,
    PrometheusExporter,
)

sys.path.insert(0, str(Path(__file__).parent))
from otlp_receiver import OtlpReceiver, attributes, plain
from scenarios import BEGIN_US, SCENARIOS

from relay_mp.observability.perfetto.sink import LANE_THREADS

PROJECTIONS = ("full", "gen_ai", "openinference")

DIRECTORY = Path(__file__).parent / "golden"


def exports(scenario, directory):
    """By file name, the text that each exporter makes of a scenario."""
    config = AtofExporterConfig()
    config.output_directory, config.filename = str(directory), "events.jsonl"
    prometheus = PrometheusExporter()
    exporters = {
        "atof": AtofExporter(config),
        "atif": AtifFileExporter(directory / "atif"),
        "perfetto": PerfettoExporter(directory / "trace.json"),
        "prometheus": prometheus,
    }
    with contextlib.ExitStack() as stack:
        receivers = {projection: stack.enter_context(OtlpReceiver()) for projection in PROJECTIONS}
        for projection, of_traces in receivers.items():
            config = OpenTelemetryConfig(projection, of_traces.endpoint)
            config.service_name = "golden"
            exporters[projection] = OpenTelemetrySubscriber(config)
        receiver = stack.enter_context(OtlpReceiver())
        exporters["otel_logs"] = OpenTelemetryLogSubscriber(OpenTelemetryLogConfig(receiver.endpoint))
        exporters["otel_metrics"] = OpenTelemetryMetricSubscriber(OpenTelemetryMetricConfig(receiver.endpoint))
        stack.enter_context(relay_mp.session())
        for name, exporter in exporters.items():
            exporter.register(name)
        scenario()
        relay_mp.subscribers.flush()
        with urllib.request.urlopen(prometheus.url, timeout=30) as answer:
            metrics = answer.read().decode()
        for exporter in exporters.values():
            exporter.shutdown()
    trajectories = [json.loads(path.read_text()) for path in sorted((directory / "atif").glob("*.json"))]
    trace = (directory / "trace.json").read_text()
    return {
        "atof.jsonl": _without_origin((directory / "events.jsonl").read_text()),
        "atif.json": json.dumps(trajectories, indent=1, ensure_ascii=False) + "\n",
        "perfetto.json": _without_process(trace),
        **{f"otel_{name}.json": _spans(of_traces) for name, of_traces in receivers.items()},
        "otel_logs.json": _logs(receiver),
        "otel_metrics.json": _metrics(receiver),
        "prometheus.txt": re.sub(r"(?m)^(# .*|.*_created.*|.*_bucket.*)\n", "", metrics),
    }


def _without_origin(lines):
    """Lines without what of their origin differs from run to run."""
    origin = r'"relay_mp.origin":{"pid":\d+,"seq":\d+,"session":"[-0-9a-f]+","thread_id":\d+}'
    return re.sub(origin, '"relay_mp.origin":{"pid":1,"seq":1,"session":"","thread_id":1}', lines)


def _without_process(trace):
    """A trace with the numbers of process and thread replaced, and `seq` left out."""
    numbers = {number for event in json.loads(trace) for number in (event["pid"], event["tid"]) if number}
    for number in sorted(numbers, reverse=True):
        trace = re.sub(rf"(?<=[ :]){number}(?=[,.}}\" ])", str(1 + number // LANE_THREADS), trace)
    trace = re.sub(r'"session":"[^"]*"', '"session":""', trace)
    return re.sub(r'"seq":\d+(,|(?=}))', "", trace).replace(",}", "}")


def _spans(receiver):
    """Spans as JSON: ids in hexadecimal, times in microseconds since the first."""
    sent = receiver.sent("traces")
    begin_ns = min(one.item.start_time_unix_nano for one in sent)
    assert {one.resource["service.name"] for one in sent} == {"golden"}
    spans = [_span(one.item, begin_ns) for one in sent]
    return json.dumps(spans, indent=1, ensure_ascii=False) + "\n"


def _span(span, begin_ns):
    def micros(time_ns):
        return (time_ns - begin_ns) // 1000

    return {
        "name": span.name,
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_span_id": span.parent_span_id.hex(),
        "kind": span.kind,
        "flags": hex(span.flags),
        "from_us": micros(span.start_time_unix_nano),
        "until_us": micros(span.end_time_unix_nano),
        "status": [span.status.code, span.status.message],
        "attributes": _stable(attributes(span.attributes)),
        "events": [
            {"name": one.name, "at_us": micros(one.time_unix_nano), "attributes": _stable(attributes(one.attributes))}
            for one in span.events
        ],
    }


def _stable(found):
    """Attributes without what differs from run to run."""
    varying = ("process.pid", "thread.id", "relay_mp.seq", "relay_mp.mark.seq")
    return {key: value for key, value in found.items() if key not in varying}


def _logs(receiver):
    """Records as JSON, in the same way."""
    records = [
        {
            "event_name": record.event_name,
            "at_us": record.time_unix_nano // 1000 - BEGIN_US,
            "severity": [record.severity_number, record.severity_text],
            "body": plain(record.body),
            "trace_id": record.trace_id.hex(),
            "span_id": record.span_id.hex(),
            "flags": hex(record.flags),
            "attributes": _stable(attributes(record.attributes)),
        }
        for record in receiver.logs
    ]
    return json.dumps(records, indent=1, ensure_ascii=False) + "\n"


def _metrics(receiver):
    """Metrics as OTLP's JSON, without times."""
    text = json.dumps([MessageToDict(metric) for metric in receiver.metrics], indent=1, ensure_ascii=False) + "\n"
    return re.sub(r'\n *"(startT|t)imeUnixNano": "\d+",', "", text)


def main():
    DIRECTORY.mkdir(exist_ok=True)
    for name, scenario in SCENARIOS.items():
        with tempfile.TemporaryDirectory() as directory:
            for file, text in exports(scenario, Path(directory)).items():
                (DIRECTORY / f"{name}.{file}").write_text(text)


if __name__ == "__main__":
    main()
