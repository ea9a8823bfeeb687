"""The pictures of README and docs: worker_pool.py in Phoenix and in Perfetto, and tools_and_llm.py in the view.

    python examples/screenshots.py [DIRECTORY]            default: where they have them, examples/screenshots
    python examples/screenshots.py [DIRECTORY] --view     only those of the view, which need no Phoenix and no Perfetto

Starts all without a network, see viewers.py; needs the extras `openinference` and `viewers`, and a Chromium.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import viewers
import worker_pool
from playwright.sync_api import Browser

import relay_mp

QUESTIONS = 6
WORKERS = 2
PROJECT = "worker_pool"
WIDTH, HEIGHT = 1280, 720


def main() -> None:
    """Runs the agents once, with both exporters; then takes the pictures."""
    named = [Path(argument) for argument in sys.argv[1:] if argument != "--view"]
    directory = named[0] if named else Path(__file__).with_name("screenshots")
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="relay-mp-screenshots-") as temporary, viewers.browser() as chromium:
        show_view(Path(temporary), chromium, directory)
    if "--view" in sys.argv:
        return
    with tempfile.TemporaryDirectory(prefix="relay-mp-screenshots-") as temporary:
        data = Path(temporary)
        with viewers.phoenix(data) as phoenix, viewers.browser() as chromium:
            spans = export_a_run(phoenix, data / "trace.json")
            show_phoenix(phoenix, spans, chromium, directory / "phoenix.png")
            show_perfetto(data / "trace.json", chromium, directory / "perfetto.png")


def export_a_run(phoenix: viewers.Phoenix, trace: Path) -> int:
    """Answers a few questions with both exporters registered; returns how many spans there are."""
    lines = Path(__file__).with_name("questions.txt").read_text(encoding="utf-8").splitlines()
    questions = [line for line in lines if line.strip() and not line.startswith("#")][:QUESTIONS]
    config = relay_mp.OpenTelemetryConfig("openinference", phoenix.traces_url)
    config.set_resource_attribute("openinference.project.name", PROJECT)
    starts: list[str] = []
    with relay_mp.session():
        exporters = {"phoenix": relay_mp.OpenTelemetrySubscriber(config), "file": relay_mp.PerfettoExporter(trace)}
        for name, exporter in exporters.items():
            exporter.register(name)
        relay_mp.subscribers.register("count", lambda event: starts.append(event.uuid) if is_start(event) else None)
        worker_pool.run(questions, WORKERS, "fork")
        for exporter in exporters.values():
            exporter.shutdown()
    return len(starts)


def is_start(event: relay_mp.ScopeEvent | relay_mp.MarkEvent) -> bool:
    return isinstance(event, relay_mp.ScopeEvent) and event.scope_category == "start"


def show_phoenix(phoenix: viewers.Phoenix, spans: int, chromium: Browser, file: Path) -> None:
    """The page of the run's trace, with the first agent selected."""
    found = phoenix.wait_for_spans(PROJECT, spans)
    agents = [span for span in found if span["name"] == "answer-question"]
    first = min(agents, key=lambda span: str(span["start_time"]))
    page = viewers.new_page(chromium, WIDTH, HEIGHT)
    page.goto(f"{phoenix.trace_page(PROJECT, first['context']['trace_id'])}?selectedSpanNodeId={first['id']}")
    page.get_by_text("How do I").first.wait_for()  # as all questions begin: it is in the agent's input
    page.wait_for_load_state("networkidle")
    save(page.screenshot(), file)
    page.close()


def show_perfetto(trace: Path, chromium: Browser, file: Path) -> None:
    """The tracks of all processes, zoomed to the first two agents; the first is selected: it shows its arguments."""
    with viewers.perfetto(trace, chromium, WIDTH, HEIGHT) as ui:
        ui.settle()  # there are tracks only now
        agents = ui.query("select id, ts, ts + dur as ended from slice where name = 'answer-question' order by ts")
        ui.page.evaluate(
            """([slice, first, last]) => {
                const trace = window.app.trace;
                for (const track of trace.workspace.flatTracks) track.expand();
                trace.timeline.setViewportTime(BigInt(first), BigInt(last));
                trace.selection.selectSqlEvent('slice', Number(slice));
                trace.raf.scheduleFullRedraw();
            }""",
            [agents[0]["id"], agents[0]["ts"], agents[1]["ended"]],
        )
        ui.settle()
        save(ui.page.screenshot(), file)


def show_view(data: Path, chromium: Browser, directory: Path) -> None:
    """A run of tools_and_llm.py with prices, in light and dark: a model's call is selected that asks for a tool."""
    prices = data / "prices.json"
    rates = {"input_per_million": 2.0, "output_per_million": 8.0}
    entry = {"provider": "openai", "model_id": "rules-1", "currency": "USD", "rates": rates}
    entry |= {"pricing_as_of": "2026-01-01", "pricing_source": "made up"}
    prices.write_text(json.dumps({"version": 1, "entries": [entry]}), encoding="utf-8")
    program = [sys.executable, Path(__file__).with_name("tools_and_llm.py"), "--workers", "3", "--output", data]
    environment = {**os.environ, "RELAY_MP_PRICES": str(prices)}
    subprocess.run(program, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=120)
    events = (next(data.glob("*.jsonl"))).rename(data / "tools_and_llm.jsonl")
    view = subprocess.Popen(
        [sys.executable, "-m", "relay_mp", "view", events, "--no-browser"], stdout=subprocess.PIPE, text=True
    )
    try:
        url = str(view.stdout.readline() if view.stdout else "").rpartition(" ")[2].strip()
        for scheme in ("light", "dark"):
            page = viewers.new_page(chromium, WIDTH, HEIGHT)
            page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            page.goto(url)
            page.locator("#states", has_text="complete").wait_for()
            page.locator("#query").fill("calls cat:llm")
            page.locator("#matches", has_text="found").wait_for()
            page.keyboard.press("Enter")
            page.locator("#detail .message").first.wait_for()
            page.locator("#query").fill("")
            page.locator("#table").focus()
            page.wait_for_timeout(500)
            save(page.screenshot(), directory / f"view-{scheme}.png")
            page.close()
    finally:
        view.terminate()
        view.wait(30)


def save(picture: bytes, file: Path) -> None:
    """Writes it, and says so."""
    file.write_bytes(picture)
    print(f"wrote {file}, {len(picture) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
