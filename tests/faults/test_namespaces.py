"""Processes of another pid namespace, as containers are that share a /dev/shm: seen alive while they live, seen dead
when they have died. Their pids mean nothing here, or another process.

Needs a kernel that lets us make one: `unshare --pid`.
"""

import os
import resource
import signal
import subprocess
import sys

import pytest
from processes import TIMEOUT_SECONDS, await_that

from relay_mp import scope, subscribers
from relay_mp._deliver import liveness
from relay_mp._native import core
from relay_mp.testing import assert_no_loss

UNSHARE = ["unshare", "--pid", "--fork", "--kill-child"]


def _refusal():
    try:
        done = subprocess.run([*UNSHARE, "--mount-proc", "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "there is no unshare"
    return done.stderr.strip() if done.returncode else ""


pytestmark = [
    pytest.mark.timeout(150),
    pytest.mark.skipif(bool(_refusal()), reason=f"no pid namespace can be made: {_refusal()}"),
]

WORKER = """
import os, sys
from relay_mp import scope
scope.event("m")
print(os.getpid(), flush=True)
for line in sys.stdin:
    if line == "fork\\n":
        pid = os.fork()
        if not pid:
            scope.event("m")
            os.kill(os.getpid(), 9)
        os.waitpid(pid, 0)
    elif line == "die\\n":
        os.kill(os.getpid(), 11)
    scope.event("m")
    print("done", flush=True)
"""
# The first process of a namespace takes no signal that it does not expect, and its end is that of all the others.
BELOW_ANOTHER = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]]); sys.stdin.read()"


class Worker:
    """A process that emits when it is told to."""

    def __init__(self, *options, below=False):
        code = [BELOW_ANOTHER, WORKER] if below else [WORKER]
        self._process = subprocess.Popen(
            [*UNSHARE, *options, sys.executable, "-c", *code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = int(self._process.stdout.readline())

    def tell(self, what):
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()

    def do(self, what):
        self.tell(what)
        assert self._process.stdout.readline() == "done\n"

    def end(self):
        self._process.kill()
        self._process.communicate(timeout=TIMEOUT_SECONDS)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


def look_at_the_dead(session):
    """The dispatcher does, before it delivers on."""
    session._host._dispatcher._next_scan = 0.0
    for _ in range(2):  # the look follows the batch
        scope.event("look")
        subscribers.flush()


def live(session):
    return session._segment.slot_statuses().count(core.SLOT_LIVE)


@pytest.mark.parametrize("options", [["--mount-proc"], []], ids=["own /proc", "outer /proc"])
def test_a_process_of_another_namespace_is_not_taken_for_dead(session, seen, options):
    with Worker(*options) as worker:
        assert worker.pid != os.getpid()
        for _ in range(3):
            look_at_the_dead(session)
            worker.do("emit")
            assert live(session) == 2  # it, and this process
        subscribers.flush()
        assert [event.pid for event in seen if event.name == "m"] == [worker.pid] * 4
        assert_no_loss(session)


@pytest.mark.parametrize("below", [False, True], ids=["the first of its namespace", "another"])
def test_a_process_of_another_namespace_that_has_died_is_found(session, seen, below):
    """With its namespace, or without it."""
    with Worker("--mount-proc", below=below) as worker:
        look_at_the_dead(session)
        worker.tell("die") if below else worker.end()
        await_that(lambda: live(session) == 1, "the end of the dead one's slot")
    subscribers.flush()
    assert_no_loss(session)


def test_a_forked_child_of_another_namespace_that_was_killed_is_found(session, seen):
    with Worker("--mount-proc") as worker:
        look_at_the_dead(session)
        worker.do("fork")
        await_that(lambda: live(session) == 2, "the end of the child's slot")
        worker.do("emit")
        subscribers.flush()
        assert len({event.pid for event in seen if event.name == "m"}) == 2
        assert_no_loss(session)


def test_a_writer_of_another_namespace_that_was_stopped_and_killed_holds_nobody_up(session, seen):
    """Stopped it holds up delivery for as long as it lives; see tests/native for where it was."""
    with Worker("--mount-proc") as worker:
        look_at_the_dead(session)
        outer = session_pid(worker)
        os.kill(outer, signal.SIGSTOP)
        look_at_the_dead(session)
        assert live(session) == 2
        os.kill(outer, signal.SIGKILL)
        await_that(lambda: live(session) == 1, "the end of the dead one's slot")
    assert_no_loss(session)


def test_a_process_that_cannot_be_seen_counts_as_alive():
    """Of a namespace above this one or beside it: nothing here tells of its processes."""
    pid, start_time, namespace = core.process_self()
    assert not liveness.is_dead(pid, start_time + 2, namespace + 12345)
    assert not liveness.is_dead(1 << 22, 1, namespace + 12345)
    assert liveness.is_dead(pid, start_time + 2, namespace)


def test_a_process_that_cannot_be_looked_at_now_counts_as_alive():
    """No descriptor is left, and this process is not known yet: only its namespace is."""
    with Worker() as worker:
        outer = session_pid(worker)
        namespace = os.stat(f"/proc/{outer}/ns/pid").st_ino
        with open(f"/proc/{outer}/stat") as file:
            start_time = int(file.read().rpartition(")")[2].split()[19])
        assert liveness.is_dead(worker.pid, start_time - 2, namespace)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            dead = liveness.is_dead(worker.pid, start_time, namespace)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert not dead
        assert not liveness.is_dead(worker.pid, start_time, namespace)


def session_pid(worker):
    """What the worker is called here."""
    (pid,) = map(
        int,
        subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(worker._process.pid)], capture_output=True, text=True, check=True
        ).stdout.split(),
    )
    return pid


def test_a_session_within_a_namespace_that_shows_the_outer_processes_works(run_script):
    """`unshare --pid` without a /proc of its own: no start time can be had there, and none is taken from another."""
    out = run_script(
        """
import subprocess, sys
code = r'''
import os, time
import relay_mp
from relay_mp import scope, subscribers
from relay_mp._deliver import liveness
from relay_mp._native import core
with relay_mp.session() as session:
    seen = []
    subscribers.register("x", lambda event: seen.append(event.name))
    receive, send = os.pipe()
    pid = os.fork()
    if not pid:
        scope.event("first")
        os.read(receive, 1)
        scope.event("second")
        os.kill(os.getpid(), 9)
    while "first" not in seen:
        time.sleep(0.001)
    for _ in range(2):
        session._host._dispatcher._next_scan = 0.0
        scope.event("look")
        subscribers.flush()
    live = session._segment.slot_statuses().count(core.SLOT_LIVE)
    os.write(send, b"x")
    os.waitpid(pid, 0)
    deadline = time.monotonic() + 30
    while session._segment.slot_statuses().count(core.SLOT_LIVE) > 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    print(core.process_self()[1], live, session._segment.slot_statuses().count(core.SLOT_LIVE))
    print(subscribers.flush().lost, [name for name in seen if name != "look"])
'''
sys.exit(subprocess.run([*sys.argv[1:], sys.executable, "-c", code]).returncode)
""",
        *UNSHARE,
    ).stdout
    assert out == "0 2 1\n0 ['first', 'second']\n"
