"""The golden files: what each exporter makes of the scenarios.

python tests/observability/golden.py     writes them anew; look at the difference before you commit it
"""

import json
import re
import sys
import tempfile
import urllib.request
from pathlib import Path

import relay_mp
from relay_mp import AtifFileExporter, AtofExporter, AtofExporterConfig, PerfettoExporter, PrometheusExporter

sys.path.insert(0, str(Path(__file__).parent))
from scenarios import SCENARIOS

from relay_mp.observability.perfetto_sink import LANE_THREADS

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
    with relay_mp.session():
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
        "atof.jsonl": (directory / "events.jsonl").read_text(),
        "atif.json": json.dumps(trajectories, indent=1, ensure_ascii=False) + "\n",
        "perfetto.json": _without_process(trace),
        "prometheus.txt": re.sub(r"(?m)^(# .*|.*_created.*|.*_bucket.*)\n", "", metrics),
    }


def _without_process(trace):
    """A trace with the numbers of process and thread replaced, and `seq` left out."""
    numbers = {number for event in json.loads(trace) for number in (event["pid"], event["tid"]) if number}
    for number in sorted(numbers, reverse=True):
        trace = re.sub(rf"(?<=[ :]){number}(?=[,.}}\" ])", str(1 + number // LANE_THREADS), trace)
    return re.sub(r'"seq":\d+(,|(?=}))', "", trace).replace(",}", "}")


def main():
    DIRECTORY.mkdir(exist_ok=True)
    for name, scenario in SCENARIOS.items():
        with tempfile.TemporaryDirectory() as directory:
            for file, text in exports(scenario, Path(directory)).items():
                (DIRECTORY / f"{name}.{file}").write_text(text)


if __name__ == "__main__":
    main()
