"""Small and read-only containers: a smaller ring, then the temporary directory, and at last a program without a record.

The file systems are real: a tmpfs of a few MB, or one that is mounted read-only, in a mount namespace of its own.
Where the tests may not make one, those that need it are skipped.
"""

import os
import subprocess
import sys

import named_subscribers
import pytest

import relay_mp
from relay_mp import ToolExecutionResult, scope, subscribers, tools
from relay_mp._session import settings as settings_module

pytestmark = pytest.mark.timeout(150)

MIB = 1 << 20
OVERHEAD_BYTES = 2 * MIB
"""Of a segment, for other things than its ring, at most."""


def may_mount():
    command = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


needs_mounts = pytest.mark.skipif(
    not may_mount(), reason="only the superuser can mount a file system (unshare --mount)"
)


def run_in_container(mounts, code, *arguments, environment=None):
    """Runs Python where the shell commands `mounts` have been run; returns what it printed, and its log."""
    mounted = f'set -e; {mounts}; exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mounted, "sh", sys.executable, "-c", code, *map(str, arguments)]
    tests = os.path.dirname(os.path.dirname(__file__))
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "PYTHONPATH": tests, "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout.splitlines(), ran.stderr.splitlines()


SMALL = "mount -t tmpfs -o size={} none /dev/shm"
PROGRAM = """
import sys
import relay_mp
from relay_mp import scope, subscribers
seen = []
subscribers.register("seen", seen.append)
scope.event("m")
subscribers.flush()
session = relay_mp.current_session()
found = session.settings
print(len(seen), found.directory, found.ring_bytes, found.max_event_bytes, session.stats().unrecorded)
"""


@needs_mounts
def test_where_shared_memory_has_less_room_the_ring_is_smaller_with_one_warning():
    (printed,), log = run_in_container(SMALL.format("8m"), PROGRAM)
    assert printed == f"1 /dev/shm {4 * MIB} {MIB // 2} None"
    (warning,) = log
    assert warning.startswith(f"the session goes on in /dev/shm with a ring of {4 * MIB} bytes")
    assert "make the ring smaller (ring_bytes, RELAY_MP_RING_BYTES) or free shared memory" in warning


@needs_mounts
def test_a_ring_is_not_smaller_than_the_least_that_was_asked_for():
    """At the bound: with a least size of 4 MiB it is made; with the next larger one, in the temporary directory."""
    fits = {"RELAY_MP_MIN_RING_BYTES": str(4 * MIB)}
    (printed,), _ = run_in_container(SMALL.format("8m"), PROGRAM, environment=fits)
    assert printed == f"1 /dev/shm {4 * MIB} {MIB // 2} None"
    (printed,), log = run_in_container(
        SMALL.format("8m"), PROGRAM, environment={"RELAY_MP_MIN_RING_BYTES": str(8 * MIB), "TMPDIR": "/var/tmp"}
    )
    assert printed == f"1 /var/tmp {16 * MIB} {2 * MIB} None"
    assert len(log) == 1


@needs_mounts
def test_a_smaller_ring_takes_every_event_that_was_asked_for():
    environment = {"RELAY_MP_MAX_EVENT_BYTES": str(MIB), "TMPDIR": "/var/tmp"}  # an eighth of 8 MiB
    (printed,), _ = run_in_container(SMALL.format("8m"), PROGRAM, environment=environment)
    assert printed == f"1 /var/tmp {16 * MIB} {MIB} None"


@needs_mounts
@pytest.mark.parametrize("mounts", [SMALL.format("64k"), SMALL.format("64m,ro")], ids=["no room", "read-only"])
def test_without_room_in_shared_memory_the_temporary_directory_serves_with_one_warning(mounts):
    (printed,), (warning,) = run_in_container(mounts, PROGRAM, environment={"TMPDIR": "/var/tmp"})
    assert printed == f"1 /var/tmp {16 * MIB} {2 * MIB} None"
    assert warning.startswith("the session goes on in /var/tmp")


@needs_mounts
def test_five_sessions_start_in_a_container_with_64_mb_of_shared_memory():
    code = f"""
import subprocess, sys
program = {PROGRAM!r} + "sys.stdout.flush(); sys.stdin.read()"
running = []
for _ in range(5):
    each = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    print(each.stdout.readline().split()[:3])
    running.append(each)
for each in running:
    each.communicate()
"""
    printed, _ = run_in_container(SMALL.format("64m"), code)
    assert printed[:3] == [str(["1", "/dev/shm", str(16 * MIB)])] * 3
    assert [line.split(",")[:2] for line in printed[3:]] == [["['1'", " '/dev/shm'"]] * 2


# --------------------------------------------------------------------------------------------- nowhere at all

READ_ONLY = (
    "mount -t tmpfs -o size=64k,ro none /dev/shm; "
    # What is in them stays: the interpreter may be there.
    "for place in /tmp /var/tmp; do mount --bind $place $place; mount -o remount,bind,ro $place; done; "
    "mount -t tmpfs -o ro none /usr/tmp 2>/dev/null || true; "
    "mount -t tmpfs -o ro none /mnt; cd /mnt"
)

AGENT = """
import sys
import relay_mp
from relay_mp import LLMRequest, ScopeType, ToolExecutionResult, llm, scope, scope_local, subscribers, tools
seen = []
exporter = relay_mp.AtofExporter(relay_mp.AtofExporterConfig())
exporter.register("file")
trajectories = relay_mp.AtifFileExporter(".")
trajectories.register("trajectories")
subscribers.register("seen", seen.append)
relay_mp.plugin.activate({"version": 1, "components": [
    {"kind": "observability", "config": {"atof": {"enabled": True, "sinks": [{"type": "file"}]}}}]})
with scope.scope("agent", ScopeType.Agent) as handle:
    scope_local.register_subscriber(handle, "local", seen.append)
    scope.event("m", data={"x": 1})
    print(tools.execute_sync("t", {}, lambda args: ToolExecutionResult(41)).result + 1)
    print(llm.execute_sync("m", LLMRequest({}, {}), lambda request: {"answer": 42}))
with relay_mp.pools.ThreadPoolExecutor(1) as pool:
    print(pool.submit(abs, -42).result())
subscribers.flush()
print(exporter.force_flush(), exporter.report(), subscribers.deregister("seen"), subscribers.deregister("seen"))
stats = relay_mp.current_session().stats()
print(stats.emitted, len(seen), stats.unrecorded)
exporter.shutdown()
relay_mp.shutdown()
"""


@needs_mounts
def test_where_nothing_can_be_written_the_program_goes_on_without_a_record():
    printed, log = run_in_container(READ_ONLY, AGENT)
    assert printed[:4] == ["42", "{'answer': 42}", "42", "True {} True False"]
    assert printed[4].startswith("0 0 ")
    assert "Read-only file system" in printed[4]
    (line,) = log
    assert line.startswith("nothing is recorded, for the session could not start: creating /dev/shm/")
    assert "Make room, or name a directory that has some (directory, RELAY_MP_DIRECTORY)" in line


@needs_mounts
def test_in_strict_mode_it_is_an_error_that_says_what_was_found():
    code = """
import relay_mp
try:
    relay_mp.session(strict=True)
except relay_mp.SegmentError as error:
    print(error)
"""
    (printed,), log = run_in_container(READ_ONLY, code)
    assert "Read-only file system" in printed
    assert log == []
    (printed,), _ = run_in_container(
        READ_ONLY,
        "from relay_mp import subscribers, SegmentError\ntry: subscribers.register('x', print)\n"
        "except SegmentError: print('refused')",
        environment={"RELAY_MP_STRICT": "1"},
    )
    assert printed == "refused"


@needs_mounts
def test_a_directory_for_recovered_events_is_needed_only_by_who_recovers_some():
    """Shared memory works, and nothing else can be written: a session starts, and what it cannot recover stays."""
    only_shared_memory = "mount -t tmpfs -o size=64m none /dev/shm; " + READ_ONLY.partition("; ")[2]
    die = """
import os, signal, threading
import relay_mp
from relay_mp import scope, subscribers
subscribers.register("x", lambda event: threading.Event().wait())
scope.event("kept")
os.kill(os.getpid(), signal.SIGKILL)
"""
    code = f"""
import os, subprocess, sys
{PROGRAM}
relay_mp.shutdown()
subprocess.run([sys.executable, "-c", {die!r}])
with relay_mp.session():
    print(len(os.listdir("/dev/shm")))
print(len(os.listdir("/dev/shm")))
"""
    printed, log = run_in_container(only_shared_memory, code)
    assert printed == [f"1 /dev/shm {16 * MIB} {2 * MIB} None", "2", "1"]
    (line,) = log
    assert line.startswith("could not sweep /dev/shm/relay_mp-")
    assert "No usable temporary directory found" in line


# ------------------------------------------------------------------------------------------ without a container


@pytest.fixture
def no_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("RELAY_MP_DIRECTORY", str(tmp_path / "missing"))


def test_without_its_directory_a_program_goes_on_and_is_told_once(no_directory, caplog):
    with relay_mp.session() as session:
        subscribers.register("x", print)
        with pytest.raises(relay_mp.SubscriberError, match="already registered"):
            subscribers.register("x", print)
        with scope.scope("s", relay_mp.ScopeType.Agent):
            assert tools.execute_sync("t", {}, lambda _args: ToolExecutionResult(1)).result == 1
        assert subscribers.flush() == relay_mp.FlushResult()
        assert "there is no such directory" in session.stats().unrecorded
        assert session.stats().emitted == 0
        assert "RELAY_MP_SESSION" not in os.environ
        assert "unrecorded open" in repr(session)
    assert len(caplog.records) == 1
    assert subscribers.deregister("x") is False


def test_the_next_session_is_tried_anew(no_directory, monkeypatch):
    unrecorded = relay_mp.session()
    monkeypatch.delenv("RELAY_MP_DIRECTORY")
    with relay_mp.session() as session:
        assert session.stats().unrecorded is None
        assert not unrecorded.is_open


def test_a_worker_that_attaches_to_its_handle_goes_on_too(no_directory, run_script):
    code = """
import multiprocessing, relay_mp
from relay_mp import scope
def work(handle):
    relay_mp.attach(handle)
    scope.event("m")
    print(relay_mp.current_session().stats().unrecorded, flush=True)
if __name__ == "__main__":
    with relay_mp.session() as session:
        worker = multiprocessing.get_context("fork").Process(target=work, args=(session.handle,))
        worker.start()
        worker.join()
        print(worker.exitcode)
        print(relay_mp.attach(session.handle) is session)
"""
    assert run_script(code).stdout.splitlines()[1:] == ["0", "True"]


def test_a_dispatcher_process_that_cannot_start_costs_nothing_unless_strict(monkeypatch, caplog):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(relay_mp.SessionError, match="the dispatcher process could not be started"):
        relay_mp.session(dispatcher="process", strict=True)
    with relay_mp.session(dispatcher="process") as session:
        subscribers.register("x", named_subscribers.Lines("/dev/null").__call__)
        assert "the dispatcher process could not be started" in session.stats().unrecorded


def test_what_the_program_says_wrongly_is_an_error_all_the_same(no_directory):
    with pytest.raises(relay_mp.SessionError, match="min_ring_bytes=1 is outside"):
        relay_mp.session(min_ring_bytes=1)
    with pytest.raises(relay_mp.SessionError, match="max_event_bytes"):
        relay_mp.session(ring_bytes=1 << 16, max_event_bytes=1 << 16)


def test_the_least_size_of_a_ring_is_bounded_like_the_ring():
    assert settings_module.resolve(min_ring_bytes=settings_module.MIN_RING_BYTES).min_ring_bytes == 1 << 16
    assert settings_module.resolve(ring_bytes=1 << 16).min_ring_bytes == 1 << 16
    assert settings_module.resolve(min_ring_bytes=(1 << 20) + 1).min_ring_bytes == 2 << 20
    assert settings_module.resolve(max_event_bytes=1 << 20).min_ring_bytes == 8 << 20
