"""Web servers: `run_servers.py SERVER [OPTION ...]`. A request is a task, whose parent is the caller's `traceparent`.

The session is begun in the server's main process, and the events are read from the file of its exporter, once a SIGTERM
has ended the server.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from workload import STAGES, end, numbers_of, tell

from relay_mp import PropagationContext

WAIT_SECONDS = 60
RECYCLED_AFTER = 4
"""Requests, where the server counts them."""

BEGIN = """
import relay_mp
def begin(**more):
    session = relay_mp.session(**more)
    config = relay_mp.AtofExporterConfig()
    config.output_directory, config.filename = ".", "events.jsonl"
    relay_mp.AtofExporter(config).register("file")
    return session
"""

GUNICORN = """
def on_starting(server):
    begin()

def on_exit(server):
    relay_mp.shutdown()
"""

UVICORN = """
if __name__ == "__main__":
    import uvicorn
    with begin(on_sigterm="flush"):
        uvicorn.run(
            "web_program:asgi_application", port=PORT, workers=2, log_level="error", limit_max_requests=RECYCLED_AFTER
        )
"""

HYPERCORN = """
if __name__ == "__main__":
    from hypercorn.config import Config
    from hypercorn.run import run
    config = Config()
    config.application_path, config.bind = "web_program:asgi_application", ["127.0.0.1:PORT"]
    config.workers, config.loglevel = 2, "ERROR"
    with begin(on_sigterm="flush"):
        run(config)
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def traceparent(stage):
    return f"00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920{STAGES[stage]:04d}-01"


def get(path, stage):
    """The body; None where the worker has died, the status where it has failed."""
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", headers={"traceparent": traceparent(stage)})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return None


def get_until_answered(path, stage):
    """Only for what emits nothing but its request: a server may not have noticed yet that its worker has died."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (answer := get(path, stage)) is None:
        assert server.poll() is None, "the server has ended"
        assert time.monotonic() < deadline, "the server did not answer"
        time.sleep(0.05)
    return answer


def work(stage):
    found = []
    for number in numbers_of(stage):
        get_until_answered("/ready", stage)
        pid = get(f"/task/{number}", stage)
        assert isinstance(pid, str), (number, pid)
        found.append(int(pid))
    return found


def wait_for_others(earlier):
    """Until a worker answers that has not before."""
    deadline = time.monotonic() + WAIT_SECONDS
    while int(get_until_answered("/pid", "recycled")) in earlier:
        assert time.monotonic() < deadline, "no worker is another"
        time.sleep(0.02)


def start(name, options):
    if name.startswith("gunicorn"):
        Path("conf.py").write_text(BEGIN + GUNICORN)
        recycled = ["--max-requests", str(RECYCLED_AFTER)] if name == "gunicorn" else []
        command = ["-m", "gunicorn", "-c", "conf.py", "-w", "2", "-b", f"127.0.0.1:{PORT}", "--log-level", "critical",
                   "--graceful-timeout", "5", *recycled, *options, "web_program:wsgi_application"]  # fmt: skip
    else:
        text = BEGIN + {"uvicorn": UVICORN, "hypercorn": HYPERCORN}[name]
        Path("program.py").write_text(text.replace("PORT", str(PORT)).replace("RECYCLED_AFTER", str(RECYCLED_AFTER)))
        command = ["program.py"]
    return subprocess.Popen(
        [sys.executable, *command], env={**os.environ, "TOUCHED": str(Path("touched.py").resolve())}
    )


def check_requests(events):
    """Of the server's own: errors, streamed bodies."""
    requests = {
        event["uuid"]: event for event in events if event["name"] == "GET" and event["scope_category"] == "start"
    }
    ended = [event for event in events if event["name"] == "GET" and event["scope_category"] == "end"]
    (failed,) = [event for event in ended if "exception.message" in (event["metadata"] or {})]
    assert failed["metadata"]["exception.message"] == "it"
    streamed = [event for event in events if event["name"] == "streamed"]
    assert streamed
    assert all(requests[event["parent_uuid"]]["data"]["path"] == event["data"] for event in streamed)


if __name__ == "__main__":
    PORT = free_port()
    name, *options = sys.argv[1:]
    Path("touched.py").write_text("")
    server = start(name, options)
    try:
        get_until_answered("/ready", "arrive")
        pids = {"arrive": work("arrive")}
        if name == "gunicorn-hup":
            server.send_signal(signal.SIGHUP)
        if name == "gunicorn-touch":
            Path("touched.py").write_text("changed = True\n")
        if name != "hypercorn":  # see the table's reasons
            wait_for_others(pids["arrive"])
            pids["recycled"] = work("recycled")
        assert get("/fail", "recycled") in {500, None}
        if name != "hypercorn":
            assert get("/die", "killed") is None
            pids["killed"] = work("killed")
        code = end(server)
        assert code in {0, -signal.SIGTERM}, code
    finally:
        with contextlib.suppress(OSError):
            server.kill()
        server.wait()
    events = [json.loads(line) for line in Path("events.jsonl").read_text().splitlines()]
    check_requests(events)
    scopes = {stage: PropagationContext.from_traceparent(traceparent(stage)).parent_uuid for stage in STAGES}
    tell(scopes, pids, events, sum(event["name"] == "relay_mp.loss" for event in events))
