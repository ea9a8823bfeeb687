"""uvicorn itself, as one process: nothing is lost at SIGTERM. Servers with workers are in test_matrix.py."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import relay_mp
from tests.observability.receiver import Receiver

HERE = Path(__file__).parent / "programs"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(port, path):
    """The body; None where the worker has died, the status where it has failed."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
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


class Slow(Receiver):
    """Takes ATOF lines, slowly."""

    def acknowledge(self, handler, body):
        time.sleep(0.02)
        super().acknowledge(handler, body)


@pytest.fixture
def receiver():
    with Slow() as server:
        yield server


def test_one_process_of_uvicorn_exports_what_it_has_at_sigterm(serve, needs, receiver, tmp_path):
    """uvicorn ends by the signal's default action: nothing of the interpreter's exit runs."""
    needs("uvicorn")
    port = free_port()
    command = ["-m", "uvicorn", "web_program:asgi_application", "--port", str(port), "--log-level", "error"]
    stop = serve(command, port, OWN_SESSION=receiver.url)
    for number in range(50):
        get(port, f"/task/{number}")
    assert stop() == -signal.SIGTERM
    text = b"".join(receiver.bodies).decode()
    assert [number for number in range(50) if text.count(f'"work {number}"') != 2] == []
    with relay_mp.session(recovery_directory=str(tmp_path)):
        pass  # removes the segment, in which nothing was left
    assert list(tmp_path.glob("relay-mp-recovered-*")) == []
