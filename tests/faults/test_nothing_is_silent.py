"""Nothing is silent: a removed name, dispatchers that die again and again, subscribers and workers that cannot begin.

What is lost by it is counted and told.
"""

import os
import signal
import subprocess
import sys
import time

import named_subscribers
import pytest
from ahead import LOSS, Hold
from processes import await_that

import relay_mp
from relay_mp import scope, subscribers
from relay_mp._deliver.liveness import is_dead
from relay_mp._deliver.reports import ExporterReport

pytestmark = pytest.mark.timeout(200)


@pytest.fixture
def lines(tmp_path):
    return tmp_path / "lines"


def dispatcher_of(session):
    return session._segment.lease()[1]


def kill_dispatcher_of(session):
    pid = dispatcher_of(session)
    os.kill(pid, signal.SIGKILL)
    return pid


def register(attribute, lines, **arguments):
    subscribers.register("x", f"named_subscribers:{attribute}", arguments={"path": str(lines), **arguments})


# ------------------------------------------------------------------------------------- a name that was removed


@pytest.mark.parametrize("dispatcher", ["thread", "process"])
def test_workers_find_a_session_whose_name_was_removed_by_its_owner(run_script, dispatcher, lines):
    with relay_mp.session(dispatcher=dispatcher) as session:
        register("Lines", lines)
        os.unlink(session.path)
        ran = run_script("import relay_mp; relay_mp.scope.event('worker'); print(relay_mp.current_session().id)")
        assert ran.stdout.split() == [session.id]
        assert f"{session.path} was removed by another program" in ran.stderr
        assert subscribers.flush().lost == 0
        assert named_subscribers.names(lines) == ["worker"]


def test_a_dispatcher_process_is_restarted_though_the_name_was_removed(lines):
    with relay_mp.session(dispatcher="process") as session:
        register("Lines", lines)
        scope.event("before")
        subscribers.flush()
        os.unlink(session.path)
        first = kill_dispatcher_of(session)
        scope.event("after")
        assert subscribers.flush().lost == 0
        assert dispatcher_of(session) != first
    assert named_subscribers.names(lines) == ["before", "after"]


def test_what_is_left_without_a_name_is_written_out_by_the_close(lines, tmp_path, capfd):
    entered, release = tmp_path / "entered", tmp_path / "release"
    os.mkfifo(entered)
    os.mkfifo(release)
    session = relay_mp.session(dispatcher="process", recovery_directory=tmp_path)
    register("Hold", lines, entered=str(entered), release=str(release))
    scope.event("hold")
    scope.event("left")
    with open(entered, "rb") as fifo:
        fifo.read(1)
    os.unlink(session.path)
    session.close(timeout=0)
    file = tmp_path / f"relay-mp-recovered-{session.id}.jsonl"
    assert f"2 not delivered in time are in {file}: {session.path} was removed" in capfd.readouterr().err
    assert [line.count("atof_version") for line in file.read_text().splitlines()] == [1, 1]
    assert session.stats().pending == 2


STUCK = """
import os, threading, relay_mp
from relay_mp import scope, subscribers
entered, release = threading.Event(), threading.Event()
def hold(event):
    entered.set()
    release.wait(60)
session = relay_mp.session()
subscribers.register("x", hold)
scope.event("hold")
scope.event("left")
entered.wait(60)
"""
"""A session whose subscriber is held, with another event behind it."""

WITHOUT_NAME_OR_THREAD = """
os.unlink(session.path)
session.close(timeout=0)
stats = session.stats()
print(stats.emitted, stats.delivered, stats.lost, stats.pending, stats.causes, flush=True)
os._exit(0)
"""


def test_what_is_left_without_a_name_in_a_stuck_thread_is_counted_as_removed(run_script):
    ran = run_script(STUCK + WITHOUT_NAME_OR_THREAD)
    assert ran.stdout == "2 0 2 0 {'removed': 2}\n"
    assert "2 not delivered in time are lost: /" in ran.stderr


CLOSES_ALL_DESCRIPTORS = """
import os, relay_mp
with relay_mp.session() as session:
    relay_mp.subscribers.register("x", print)
    old = session._segment.descriptor
    os.closerange(3, 256)
    mine = [os.open("/dev/null", os.O_RDONLY) for _ in range(old)]  # one of them has the old number
    print(old in mine, session._segment.descriptor)
print([os.fstat(file).st_rdev != 0 for file in mine if file == old])
"""


def test_a_program_that_has_closed_all_descriptors_loses_none_of_its_own_to_the_session(run_script):
    assert run_script(CLOSES_ALL_DESCRIPTORS).stdout == "True -1\n[True]\n"


NAMELESS = """
import os, signal, sys, time, relay_mp
from relay_mp import scope, subscribers
dispatcher, path = sys.argv[1:]
session = relay_mp.session(dispatcher=dispatcher)
subscribers.register("x", "named_subscribers:Lines", arguments={"path": path})
scope.event("owner")
subscribers.flush()
os.unlink(session.path)
owner = os.getpid()
if os.fork():
    os.kill(owner, signal.SIGKILL)
while os.getppid() == owner:
    time.sleep(0.01)
scope.event("worker")
try:
    print(subscribers.flush(60), flush=True)
except relay_mp.FlushError as error:
    print(error, flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(
    ("dispatcher", "said", "seen"),
    [
        ("thread", "lost with the last of its processes", ["owner"]),
        ("process", "FlushResult(lost=0", ["owner", "worker"]),
    ],
)
def test_nothing_hangs_when_the_owner_of_a_session_without_a_name_is_killed(lines, tmp_path, dispatcher, said, seen):
    """Its worker goes on. A dispatcher process delivers to the end; without one, the worker is told."""
    ran = subprocess.run(
        [sys.executable, "-c", NAMELESS, dispatcher, str(lines)],
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(__file__))},
        capture_output=True,
        text=True,
        timeout=120,  # until all that has its pipes has ended, the dispatcher process too
        check=False,
    )
    assert ran.returncode == -signal.SIGKILL
    assert said in ran.stdout, ran
    assert named_subscribers.names(lines) == seen


# ------------------------------------------------------------------------------------- bounded restarts

NEVER_AGAIN = """
import os
class Once:
    def __init__(self, mark):
        if os.path.exists(mark):
            os._exit(7)
        open(mark, "w").close()
    def __call__(self, event):
        pass
"""


@pytest.mark.parametrize("max_restarts", [0, 2])
def test_a_dispatcher_that_cannot_be_restarted_is_given_up_after_max_restarts(
    tmp_path, monkeypatch, capfd, caplog, max_restarts
):
    """Beside `max_deliveries`: then flushes fail, an emit into a full ring does not wait, and what is left is told."""
    (tmp_path / "never_again.py").write_text(NEVER_AGAIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    segments = tmp_path / "segments"
    segments.mkdir()
    settings = {"max_deliveries": 1, "max_restarts": max_restarts, "ring_bytes": 65536, "block_timeout_seconds": 3600}
    session = relay_mp.session(dispatcher="process", directory=segments, **settings)
    subscribers.register("x", "never_again:Once", arguments={"mark": str(tmp_path / "mark")})
    kill_dispatcher_of(session)
    await_that(lambda: dispatcher_of(session) == 0, "the end of the restarts")
    for _ in range(1000):
        scope.event("m", data="x" * 200)
    with pytest.raises(relay_mp.FlushError, match="dispatcher has died"):
        subscribers.flush()
    session.close()
    stats, said = session.stats(), capfd.readouterr().err
    assert f"{1 + max_restarts + 1} dispatcher processes in a row have ended" in caplog.text
    assert stats.emitted == stats.lost + stats.pending == 1000
    assert f"{stats.pending} not delivered in time are in {session.path}" in said
    os.unlink(session.path)


def test_a_worker_waits_for_no_dispatcher_that_was_given_up(tmp_path, monkeypatch, run_script):
    (tmp_path / "never_again.py").write_text(NEVER_AGAIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    segments = tmp_path / "segments"
    segments.mkdir()
    session = relay_mp.session(dispatcher="process", directory=segments, max_deliveries=1, max_restarts=0)
    subscribers.register("x", "never_again:Once", arguments={"mark": str(tmp_path / "mark")})
    kill_dispatcher_of(session)
    await_that(lambda: dispatcher_of(session) == 0, "the end of the restarts")
    code = """
from relay_mp import FlushError, scope, subscribers
scope.event("m")
try:
    subscribers.flush(3600)
except FlushError as error:
    print(error)
"""
    assert "dispatcher has died" in run_script(code).stdout
    session.close()
    os.unlink(session.path)


# ------------------------------------------------------------------------------------- killed while the session closes


class Keeps:
    """An exporter that keeps all that it is given."""

    def __init__(self):
        self.taken = 0

    def __call__(self, event):
        self.taken += 1

    def report(self):
        return ExporterReport(taken=self.taken, queued=self.taken)


def test_what_an_exporter_had_is_unconfirmed_if_the_dispatcher_is_killed_while_the_session_closes(capfd, caplog):
    session = relay_mp.session(dispatcher="process")
    subscribers.register("x", f"{__name__}:Keeps", arguments={})
    for i in range(1000):
        scope.event(f"{i}")
    await_that(lambda: session._segment.read_pos == session._segment.tail, "delivery")
    # As if the signal to all processes of a service came first: none is started any more.
    session._host._stopping = True
    kill_dispatcher_of(session)
    session.close()
    report, said = session.stats().exporters["x"], capfd.readouterr().err
    assert (report.taken, report.unconfirmed, report.lost) == (1000, 1000, 1000)
    assert "exporter 'x' lost 1000 of 1000 (unconfirmed 1000)" in said
    assert "ended with code -9 while the session was closed" in caplog.text


def test_a_loss_has_its_mark_though_the_dispatcher_is_killed_when_all_events_are_delivered(tmp_path, lines, capfd):
    """What is lost behind the last event is marked as the session closes: another dispatcher is started for that."""
    session = relay_mp.session(dispatcher="process", on_full="drop", ring_bytes=65536)
    register("Dies", lines, at=LOSS)
    with Hold(tmp_path):
        for _ in range(1000):
            scope.event("m", data="x" * 200)
    session.close()
    stats = session.stats()
    assert stats.lost > 0
    assert stats.pending == 0
    seen = [(name, redelivered) for name, _, redelivered, _ in named_subscribers.read(lines) if name == LOSS]
    assert seen == [(LOSS, False), (LOSS, True)]
    assert f"{stats.lost} lost (full {stats.lost})" in capfd.readouterr().err


# ------------------------------------------------------------------------------------- a subscriber that is absent

MINE = """
import json
class Mine:
    def __init__(self, path):
        self._path = path
    def __call__(self, event):
        with open(self._path, "a") as file:
            file.write(json.dumps([event.name, 0, False, 0]) + chr(10))
"""


def test_a_subscriber_that_cannot_be_made_again_is_tried_again_and_what_it_missed_is_counted(
    tmp_path, monkeypatch, lines, capfd
):
    module = tmp_path / "deployed.py"
    module.write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    with relay_mp.session(dispatcher="process") as session:
        subscribers.register("x", "deployed:Mine", arguments={"path": str(lines)})
        scope.event("before")
        subscribers.flush()
        module.write_text("half a deploy (")
        kill_dispatcher_of(session)
        for _ in range(5):
            scope.event("missed")
        subscribers.flush()
        assert session.stats().subscriber_errors == 5
        module.write_text(MINE + "# again\n")
        await_that(lambda: emits_one(lines), "the subscriber")
    stats = session.stats()
    seen = named_subscribers.names(lines)
    assert seen[0] == "before"
    assert seen.count("again") + stats.subscriber_errors - 5 == stats.emitted - 6
    said = capfd.readouterr().err
    assert "subscriber 'x' could not be made again" in said
    assert f"subscriber 'x' is there again; it did not see {stats.subscriber_errors} events" in said


def emits_one(lines):
    scope.event("again")
    subscribers.flush()
    time.sleep(0.05)
    return "again" in named_subscribers.names(lines)


def test_what_an_absent_exporter_missed_is_in_its_report(tmp_path):
    """Here its file is one that another process writes at the time."""
    config = relay_mp.AtofExporterConfig()
    config.output_directory, config.filename = str(tmp_path), "out.jsonl"
    with relay_mp.session(dispatcher="process") as session:
        relay_mp.AtofExporter(config).register("file")
        scope.event("before")
        subscribers.flush()
        os.rename(tmp_path / "out.jsonl", tmp_path / "kept")
        os.mkdir(tmp_path / "out.jsonl")  # in its place, for a moment
        kill_dispatcher_of(session)
        for _ in range(5):
            scope.event("missed")
        subscribers.flush()
        os.rmdir(tmp_path / "out.jsonl")
        await_that(lambda: emits_into(tmp_path / "out.jsonl"), "the exporter")
    report = session.stats().exporters["file"]
    written = sum(len(path.read_text().splitlines()) for path in (tmp_path / "kept", tmp_path / "out.jsonl"))
    assert report.drops == {"absent": session.stats().subscriber_errors}
    assert report.drops["absent"] >= 5
    assert report.exported == written == session.stats().delivered - report.dropped


def emits_into(file):
    scope.event("again")
    subscribers.flush()
    time.sleep(0.05)
    return file.exists() and file.read_text() != ""


# ------------------------------------------------------------------------------------- a worker that cannot attach

WORKER = """
import logging, sys, relay_mp
logging.basicConfig(level="WARNING", format="%(message)s")
{limit}
for _ in range(3):
    relay_mp.scope.event("m")
"""
LIMITS = {
    "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))": "limit of descriptors",
    "import resource; v = int(open('/proc/self/statm').read().split()[0]) * 4096 + 2**20; "
    "resource.setrlimit(resource.RLIMIT_AS, (v, v))": "limit of memory",
    "import os; os.chmod(os.environ['RELAY_MP_SESSION'], 0o644)": "mode 0600",
}


@pytest.mark.parametrize("limit", LIMITS)
def test_a_worker_that_cannot_attach_says_so_once_with_the_reason_and_what_to_do(run_script, limit):
    with relay_mp.session() as session:
        subscribers.register("x", lambda event: None)
        said = run_script(WORKER.format(limit=limit)).stderr
        assert said.count("cannot attach to the session of") == 1
        assert session.path in said
        assert LIMITS[limit] in said


LATER = """
import logging, os, resource, time, relay_mp
from relay_mp._session import attaching
logging.basicConfig(level="WARNING", format="%(message)s")
limit = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, limit[1]))
def emits():
    relay_mp.scope.event("m")
    with relay_mp.scope.scope("s", relay_mp.ScopeType.Function):
        pass
emits()
if os.fork() == 0:  # what the parent has missed is the parent's to count
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    relay_mp.scope.event("child")
    os._exit(0)
os.wait()
emits()
resource.setrlimit(resource.RLIMIT_NOFILE, limit)
attaching.time.monotonic = lambda: 1e18  # as if the pause were over
relay_mp.scope.event("at last")
print(os.getpid())
"""


def test_what_a_worker_emits_before_it_can_attach_is_counted_once_it_can(run_script, lines):
    with relay_mp.session() as session:
        register("Lines", lines)
        said = run_script(LATER).stderr
        subscribers.flush()
        stats = session.stats()
        assert (stats.emitted, stats.lost, stats.causes) == (8, 6, {"unregistered": 6})
        assert said.count("cannot attach to the session of") == 1
        assert "6 events that it emitted before are counted as lost (unregistered)" in said
    assert sorted(named_subscribers.names(lines)) == ["at last", "child", LOSS]


def test_a_process_that_outlives_its_parents_session_says_nothing(run_script):
    with relay_mp.session() as session:
        path = session.path
    ran = run_script(WORKER.format(limit=""), environment={"RELAY_MP_SESSION": path})
    assert ran.stderr == ""


# ------------------------------------------------------------------------------------- interrupts in close

TWICE = """
import signal, sys
from relay_mp._session import draining
waiting = draining._wait
def interrupted(ended, seconds):
    signal.raise_signal(signal.SIGINT)  # each time it begins to wait
    return waiting(ended, seconds)
draining._wait = interrupted
try:
    session.close(timeout=3600)
except KeyboardInterrupt:
    print("interrupted", flush=True)
print(session.stats().pending, os.path.exists(session.path), session.is_open)
print(signal.getsignal(signal.SIGINT), flush=True)
os.unlink(session.path)
os._exit(0)
"""


def test_two_interrupts_of_a_close_leave_it_told_and_kept(run_script):
    ran = run_script(STUCK + TWICE)
    assert ran.stdout.splitlines()[0] == "interrupted"
    assert ran.stdout.splitlines()[1].startswith("2 True False")
    assert "default_int_handler" in ran.stdout
    assert "2 not delivered in time are in" in ran.stderr


# ------------------------------------------------------------------------------------- time namespaces


def test_a_worker_in_a_time_namespace_counts_as_alive():
    unshare = ["unshare", "-T", "--fork", "--boottime", "100000"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no time namespace can be made here: it takes root, and Linux 5.6")
    code = "import relay_mp, sys; relay_mp.scope.event('m'); print(flush=True); sys.stdin.read()"
    with relay_mp.session() as session:
        subscribers.register("x", lambda event: None)
        worker = subprocess.Popen([*unshare, sys.executable, "-c", code], stdin=-1, stdout=-1)
        worker.stdout.readline()
        subscribers.flush()
        slots = [n for n, status in enumerate(session._segment.slot_statuses()) if status == 2]
        assert [is_dead(*session._segment.slot_process(slot)) for slot in slots if slot] == [False]
        worker.communicate()
        await_that(lambda: is_dead(*session._segment.slot_process(slots[-1])), "the worker's end to be seen")
