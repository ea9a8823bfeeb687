"""A program that runs agents, for the commands that look at one."""

import subprocess
import sys

import pytest

AGENTS = """
import sys, threading, time
import relay_mp
from relay_mp import ScopeType, scope

ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
with relay_mp.session(directory=sys.argv[1]):
    relay_mp.subscribers.register("count", lambda event: None)
    print("ready", flush=True)
    while not ended.wait(0.01):
        with scope.scope("support", ScopeType.Agent):
            try:
                with scope.scope("search", ScopeType.Tool, input={"user": {"name": "ann"}}):
                    scope.event("looked", data={"hits": [3, 4]})
                    raise KeyError("gone")
            except KeyError:
                pass
            with scope.scope("answer", ScopeType.Function):
                pass
"""


@pytest.fixture
def agents(tmp_path, _nothing_is_left_behind):
    """A running program with a session in `tmp_path`, which ends when its input does."""
    command = [sys.executable, "-c", AGENTS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        _nothing_is_left_behind.pids.add(process.pid)
        assert process.stdout.readline() == "ready\n"
        yield process
        process.stdin.close()
        assert process.wait(60) == 0
