"""Metrics over HTTP, scraped and parsed by the official parser."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families
from receiver import wait_until

import relay_mp
from relay_mp import PrometheusExporter, ScopeType, scope, subscribers

BOTH = pytest.mark.parametrize("session", ["thread", "process"], indirect=True)


def scrape(url):
    """By sample name and labels, the value."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def exporter(session):
    exporter = PrometheusExporter()
    exporter.register("prometheus")
    yield exporter
    exporter.shutdown()


@BOTH
def test_a_scrape_has_counts_durations_and_errors(session, exporter):
    with scope.scope("a", ScopeType.Agent):
        for _ in range(3):
            with scope.scope("t", ScopeType.Tool):
                scope.event("m")
    with pytest.raises(LookupError), scope.scope("t", ScopeType.Tool):
        raise LookupError
    held = scope.push("open", ScopeType.Function)
    exporter.force_flush()
    found = scrape(exporter.url)
    tool = ("category=tool", "name=t")
    assert found["relay_mp_scopes_started_total", *tool] == 4
    assert found["relay_mp_scope_duration_seconds_count", *tool] == 4
    assert found["relay_mp_scope_duration_seconds_sum", *tool] > 0
    assert found["relay_mp_scope_errors_total", *tool] == 1
    assert found["relay_mp_marks_total", "category=mark", "name=m"] == 3
    assert found[("relay_mp_open_scopes",)] == 1
    assert found[("relay_mp_orphan_ends_total",)] == 0
    scope.pop(held)


def test_durations_are_the_events_own(session):
    from scenarios import Story

    exporter = PrometheusExporter(buckets=[0.0015, 1.0])
    exporter.register("prometheus")
    story = Story()
    for _ in range(2):
        story.end(story.start("s", "function"))
    long = story.start("s", "function")
    story.clock_us += 500_000
    story.end(long)
    exporter.force_flush()
    found = scrape(exporter.url)
    labels = ("category=function",)
    assert found["relay_mp_scope_duration_seconds_bucket", *labels, "le=0.0015", "name=s"] == 2
    assert found["relay_mp_scope_duration_seconds_bucket", *labels, "le=1.0", "name=s"] == 3
    assert found["relay_mp_scope_duration_seconds_sum", *labels, "name=s"] == pytest.approx(0.503)
    exporter.shutdown()


def test_names_are_bounded(session):
    exporter = PrometheusExporter(max_names=3)
    exporter.register("prometheus")
    for n in range(10):
        scope.event(f"m{n}")
    exporter.force_flush()
    found = {key[2]: value for key, value in scrape(exporter.url).items() if key[0] == "relay_mp_marks_total"}
    assert found == {"name=m0": 1, "name=m1": 1, "name=m2": 1, "name=other": 7}
    exporter.shutdown()


def test_losses_are_counted_by_cause():
    go_on, entered = threading.Event(), threading.Event()

    def slow(_event):
        entered.set()
        assert go_on.wait(30)

    with relay_mp.session(on_full="drop", ring_bytes=64 * 1024) as session:
        exporter = PrometheusExporter()
        exporter.register("prometheus")
        subscribers.register("slow", slow)
        scope.event("first")
        assert entered.wait(30)
        for n in range(5000):
            scope.event("m", data=n)
        go_on.set()
        subscribers.flush()
        scope.event("last")
        exporter.force_flush()
        found = scrape(exporter.url)
        lost = session.stats().lost
        assert lost > 0
        assert found["relay_mp_events_lost_total", "cause=full"] == lost
        exporter.shutdown()


def test_odd_names_are_labels_all_the_same(session, exporter):
    odd = 'quote " backslash \\ newline \n tab \t \x00 ü'
    scope.event(odd)
    exporter.force_flush()
    marks = [key for key in scrape(exporter.url) if key[0] == "relay_mp_marks_total"]
    assert marks == [("relay_mp_marks_total", "category=mark", f"name={odd}")]


@BOTH
def test_the_port_is_free_again_after_shutdown(session):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for _ in range(2):
        exporter = PrometheusExporter(port=port)
        exporter.register("prometheus")
        assert exporter.url == f"http://127.0.0.1:{port}/metrics"
        scrape(exporter.url)
        exporter.shutdown()
    with pytest.raises(OSError, match="refused"):
        scrape(f"http://127.0.0.1:{port}/metrics")


@BOTH
def test_scrapers_that_stall_or_cut_hold_up_nothing(session):
    """Neither the stream, nor another scraper, nor the end."""
    exporter = PrometheusExporter()
    exporter.register("prometheus")
    port = int(exporter.url.rsplit(":", 1)[1].split("/")[0])
    request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"
    for number in range(200):
        scope.event(f"m{number}")
    with contextlib.ExitStack() as stack:
        for said in (b"", request, request + b"\r\n", b"\x16\x03\x01 no HTTP\r\n\r\n"):
            stalled = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            stalled.sendall(said)  # and reads nothing
            with socket.create_connection(("127.0.0.1", port)) as cut:
                cut.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                cut.sendall(said)  # closing it is a reset
        scope.event("after")
        exporter.force_flush()
        assert scrape(exporter.url)["relay_mp_marks_total", "category=mark", "name=after"] == 1
        exporter.shutdown()
    report = session.stats().exporters["prometheus"]
    assert (report.state, report.exported, report.lost) == ("closed", 201, 0)
    # The official client's threads for the stalled ones end now, with their connections.
    wait_until(lambda: not [thread for thread in threading.enumerate() if "process_request" in thread.name])


def test_a_port_that_is_taken_is_said_at_registration(session, exporter):
    port = int(exporter.url.rsplit(":", 1)[1].split("/")[0])
    with pytest.raises(relay_mp.SubscriberError, match="in use"):
        PrometheusExporter(port=port).register("second")


@pytest.mark.parametrize("session", ["process"], indirect=True)
def test_a_restarted_dispatcher_serves_again(session, exporter):
    scope.event("m")
    exporter.force_flush()
    os.kill(session._segment.lease()[1], signal.SIGKILL)
    scope.event("m")
    exporter.force_flush()
    assert scrape(exporter.url)["relay_mp_marks_total", "category=mark", "name=m"] >= 1


def test_without_the_extra_it_says_what_to_install(tmp_path):
    (tmp_path / "prometheus_client.py").write_text("raise ImportError")
    code = "import relay_mp\nrelay_mp.session()\nrelay_mp.PrometheusExporter().register('x')"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert "Prometheus needs the extra: pip install 'relay_mp[prometheus]'" in ran.stderr
