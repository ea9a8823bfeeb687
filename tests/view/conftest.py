"""A Chromium of the system, and pages of the view in it. `tox -e view` has what these need."""

import importlib.util
import os
import shutil
import threading
import time

import pytest

from relay_mp.view.server import ViewServer

WAIT_SECONDS = 60.0


@pytest.fixture
def chromium():
    """Skipped where there is none; by `tox -e view`, it fails."""
    names = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")
    command = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    absent = [name for name in ("playwright", "axe_playwright_python") if importlib.util.find_spec(name) is None]
    if absent or command is None:
        reason = f"needs {', '.join(absent)}, of the extra `view-test`" if absent else "there is no Chromium"
        (pytest.fail if os.environ.get("RELAY_MP_TEST_VIEWERS") == "required" else pytest.skip)(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Its own sandbox cannot be had as root; it is shown nothing but this machine's own page.
        started = playwright.chromium.launch(executable_path=command, args=["--no-sandbox"])
        yield started
        started.close()
    for thread in threading.enumerate():
        if thread.name.startswith("asyncio-waitpid"):  # it waits for Playwright's own process
            thread.join(WAIT_SECONDS)


class Shown:
    """A page that shows rows.

    Attributes:
        page: Playwright's.
        requests: addresses that it asked for.
        errors: exceptions of its scripts, and what it wrote to the console as an error.
    """

    def __init__(self, context, rows):
        self.rows, self.requests, self.errors = rows, [], []
        self._server = ViewServer(rows)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = self._server.url
        self.page = context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)

    def open(self, fragment=""):
        """Opens it, and waits until all that is known is there."""
        self.page.goto(self.url + fragment)
        self.wait("relay.state.runs.length > 0 && relay.state.runs.every(run => run.state !== 'reading')")
        self.wait(f"relay.rows.size === {len(self.rows)}")
        return self

    def wait(self, condition):
        """Until an expression is true; `wait_for_function` needs `eval`, which the page's policy refuses."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not self.page.evaluate(f"typeof relay !== 'undefined' && ({condition})"):
            assert time.monotonic() < deadline, f"not within {WAIT_SECONDS} s: {condition}"
            self.page.wait_for_timeout(20)

    def row(self, name):
        """The first row of a name."""
        return self.page.evaluate(
            "name => [...Array(relay.rows.size).keys()].find(i => relay.rows.nameOf(i) === name)", name
        )

    def select(self, name):
        """Selects it, and waits for its detail."""
        self.page.evaluate("row => relay.select(row)", self.row(name))
        self.page.locator("#detail h2", has_text=name).wait_for()

    def close(self):
        self.page.close()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(WAIT_SECONDS)
        self.rows.close()


@pytest.fixture
def show(chromium):
    """Makes a page of rows: `show(rows, color_scheme="dark")`."""
    opened, contexts = [], []

    def make(rows, **options):
        contexts.append(chromium.new_context(**{"viewport": {"width": 1280, "height": 760}, **options}))
        opened.append(Shown(contexts[-1], rows))
        return opened[-1]

    yield make
    for each in opened:
        each.close()
    for context in contexts:
        context.close()
