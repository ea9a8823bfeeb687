"""gunicorn and uvicorn themselves: one stream for all workers, and nothing of it lost at SIGTERM."""

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import relay_mp

HERE = Path(__file__).parent
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

GUNICORN = """
import relay_mp

def on_starting(server):
    relay_mp.session()
    config = relay_mp.AtofExporterConfig()
    config.output_directory, config.filename = DIRECTORY, "events.jsonl"
    relay_mp.AtofExporter(config).register("file")

def on_exit(server):
    relay_mp.shutdown()
"""

UVICORN = """
import relay_mp, uvicorn

if __name__ == "__main__":
    with relay_mp.session(on_sigterm="flush"):
        config = relay_mp.AtofExporterConfig()
        config.output_directory, config.filename = DIRECTORY, "events.jsonl"
        relay_mp.AtofExporter(config).register("file")
        uvicorn.run("web_program:asgi_application", port=PORT, workers=2, log_level="error")
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(port, path):
    """The body; None where the worker has died, the status where it has failed."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"traceparent": TRACEPARENT})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return None


@pytest.fixture
def serve(tmp_path, run_script):
    """Starts a server, and waits until it answers; `stop()` sends SIGTERM and gives its exit code."""
    started = []

    def start(command, port, **environment):
        paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        process = subprocess.Popen(
            [sys.executable, *command], cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths, **environment}
        )
        started.append(process)
        run_script.pids.add(process.pid)
        deadline = time.monotonic() + 60
        while get(port, "/ready") is None:
            assert process.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server did not answer"
            time.sleep(0.05)

        def stop():
            process.send_signal(signal.SIGTERM)
            return process.wait(60)

        return stop

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def ask(port):
    """What the matrix asks of each server: work in both workers, an error, a death, work after it."""
    pids = {get(port, f"/{number}") for number in range(30)}
    assert get(port, "/fail") in {500, None}
    assert get(port, "/die") is None
    deadline = time.monotonic() + 30
    while get(port, "/after") is None:  # the server may not have noticed yet
        assert time.monotonic() < deadline
    return {pid for pid in pids if isinstance(pid, str)}


def check(lines):
    """Every request of `ask` is in one stream, with its parent, and has ended where its worker has not died."""
    events = [json.loads(line) for line in lines]
    starts = {event["uuid"]: event for event in events if event.get("scope_category") == "start"}
    ends = [event["uuid"] for event in events if event.get("scope_category") == "end"]
    requests = {uuid: event for uuid, event in starts.items() if event["name"] == "GET"}
    works = [event for event in starts.values() if event["name"].startswith("work /")]
    assert {f"work /{number}" for number in range(30)} <= {event["name"] for event in works}
    for event in works:
        assert requests[event["parent_uuid"]]["data"]["path"] == event["name"].removeprefix("work ")
    for event in requests.values():
        assert event["parent_uuid"].replace("-", "").endswith("b7ad6b7169203331")
    for event in events:
        if event["name"] == "streamed":
            assert requests[event["parent_uuid"]]["data"]["path"] == event["data"]
    assert [
        e["name"] for e in events if requests.get(e["parent_uuid"], {"data": {}})["data"].get("path") == "/die"
    ] == ["last words"]
    failed = [e for e in events if e["uuid"] in requests and "exception.message" in (e["metadata"] or {})]
    assert [event["metadata"]["exception.message"] for event in failed] == ["it"]
    left_open = [requests[uuid]["data"]["path"] for uuid in requests if uuid not in ends]
    assert left_open == ["/die"]


KINDS = {
    "sync": [],
    "preload": ["--preload"],
    "gthread": ["-k", "gthread", "--threads", "4"],
    "gevent": ["-k", "gevent"],
    "recycling": ["--max-requests", "5"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_gunicorn_has_one_stream_and_sigterm_loses_nothing(serve, needs, tmp_path, kind):
    needs("gunicorn", *(["gevent"] if kind == "gevent" else []))
    (tmp_path / "conf.py").write_text(GUNICORN.replace("DIRECTORY", repr(str(tmp_path))))
    port = free_port()
    stop = serve(
        ["-m", "gunicorn", "-c", "conf.py", "-w", "2", "-b", f"127.0.0.1:{port}", "--log-level", "critical",
         *KINDS[kind], "web_program:wsgi_application"],
        port,
    )  # fmt: skip
    pids = ask(port)
    assert stop() == 0
    if kind == "recycling":
        assert len(pids) > 2
    check((tmp_path / "events.jsonl").read_text().splitlines())


def test_uvicorns_workers_have_one_stream_and_sigterm_loses_nothing(serve, needs, tmp_path):
    needs("uvicorn")
    port = free_port()
    program = UVICORN.replace("DIRECTORY", repr(str(tmp_path))).replace("PORT", str(port))
    (tmp_path / "program.py").write_text(program)
    stop = serve(["program.py"], port)
    ask(port)
    stop()
    check((tmp_path / "events.jsonl").read_text().splitlines())


class Receiver(http.server.BaseHTTPRequestHandler):
    """Takes ATOF lines, slowly."""

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        self.server.bodies.append(self.rfile.read(length))
        time.sleep(0.02)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def receiver():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.bodies = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_one_process_of_uvicorn_exports_what_it_has_at_sigterm(serve, needs, receiver, tmp_path):
    """uvicorn ends by the signal's default action: nothing of the interpreter's exit runs."""
    needs("uvicorn")
    port = free_port()
    command = ["-m", "uvicorn", "web_program:asgi_application", "--port", str(port), "--log-level", "error"]
    stop = serve(command, port, OWN_SESSION=f"http://127.0.0.1:{receiver.server_port}/")
    for number in range(50):
        get(port, f"/{number}")
    assert stop() == -signal.SIGTERM
    text = b"".join(receiver.bodies).decode()
    assert [number for number in range(50) if text.count(f'"work /{number}"') != 2] == []
    with relay_mp.session(recovery_directory=str(tmp_path)):
        pass  # removes the segment, in which nothing was left
    assert list(tmp_path.glob("relay-mp-recovered-*")) == []
