"""dispatcher="process": an interpreter of its own, restarted when it dies, outliving its owner."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import named_subscribers
import psutil
import pytest

import relay_mp
from relay_mp import pools, scope, subscribers


@pytest.fixture
def session():
    with relay_mp.session(dispatcher="process") as session:
        yield session


@pytest.fixture
def lines(tmp_path):
    return tmp_path / "lines"


def register(attribute, lines, name="x", **arguments):
    subscribers.register(name, f"named_subscribers:{attribute}", arguments={"path": str(lines), **arguments})


def dispatcher_of(session):
    return session._segment.lease()[1]


def emit(first, last):
    for i in range(first, last):
        scope.event(f"{i}")


def counted(names):
    """What is not a mark of the library's own, without the repetitions of events that are told to be such."""
    return [name for name in names if name.isdigit()]


# ---- what it is ----


def test_it_is_a_process_of_its_own_that_ends_with_the_session(lines):
    with relay_mp.session(dispatcher="process") as session:
        pid = dispatcher_of(session)
        assert pid != os.getpid()
        assert psutil.Process(pid).cmdline()[-1] == session.path
        register("Lines", lines)
        emit(0, 1000)
    assert named_subscribers.names(lines) == [f"{i}" for i in range(1000)]
    assert not psutil.pid_exists(pid)
    assert not os.path.exists(session.path)


def test_the_users_main_module_is_not_imported_again(run_script):
    out = run_script(
        """
import relay_mp
print("main")
with relay_mp.session(dispatcher="process"):
    relay_mp.subscribers.register("x", "named_subscribers:ignores")
    relay_mp.scope.event("m")
"""
    ).stdout
    assert out == "main\n"


RECORDS_ITS_PATH = """
import json, sys
class Record:
    def __init__(self, path):
        with open(path, "w") as file:
            json.dump([sys.path, sys.flags.safe_path, sys.flags.isolated, sys.flags.optimize], file)
    def __call__(self, event):
        pass
"""


@pytest.mark.parametrize("flags", [[], ["-P"], ["-I"]])
def test_nothing_is_imported_from_the_working_directory(tmp_path, flags):
    """Others may have put modules there. A script elsewhere imports none of them, and neither does its dispatcher."""
    program, there, found = tmp_path / "program.py", tmp_path / "cwd", tmp_path / "found"
    there.mkdir()
    program.write_text(
        "import relay_mp, numpy\n"
        "with relay_mp.session(dispatcher='process'):\n"
        "    relay_mp.subscribers.register('s', 'builtins:id'); relay_mp.scope.event('e')\n"
        "    relay_mp.subscribers.flush()\n"
    )
    for name in ("numpy", "msgpack", "marshal", "os", "json", "runpy", "relay_mp"):
        (there / f"{name}.py").write_text(f"open({str(found)!r}, 'a').write('{name} '); raise SystemExit(3)\n")
    command = [sys.executable, *flags, str(program)]
    ran = subprocess.run(command, cwd=there, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr, found.exists()) == (0, "", False)


@pytest.mark.parametrize("flags", [[], ["-P"], ["-I"], ["-O"]])
def test_it_has_the_owners_flags_and_path(tmp_path, flags):
    """Entry by entry: a colon is a part of a name, as is an empty entry, which is the working directory."""
    odd, out = tmp_path / "with:colon", tmp_path / "out"
    odd.mkdir()
    (odd / "of_odd_place.py").write_text(RECORDS_ITS_PATH)
    program = tmp_path / "program.py"
    program.write_text(
        "import json, sys, relay_mp\n"
        f"sys.path += [{str(odd)!r}, '']\n"
        "with relay_mp.session(dispatcher='process'):\n"
        f"    relay_mp.subscribers.register('s', 'of_odd_place:Record', arguments={{'path': {str(out)!r}}})\n"
        "print(json.dumps([sys.path, sys.flags.safe_path, sys.flags.isolated, sys.flags.optimize]))\n"
    )
    command = [sys.executable, *flags, str(program)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert json.loads(ran.stdout) == json.loads(out.read_text()), ran.stderr


def test_a_default_session_may_have_one(run_script, lines):
    code = """
import sys
from relay_mp import scope, subscribers
subscribers.register("x", "named_subscribers:Lines", arguments={"path": sys.argv[1]})
for i in range(100):
    scope.event(f"{i}")
"""
    run_script(code, lines, environment={"RELAY_MP_DISPATCHER": "process"})
    assert named_subscribers.names(lines) == [f"{i}" for i in range(100)]


def test_ctrl_c_of_the_terminal_does_not_reach_it(session, lines):
    register("Lines", lines)
    pid = dispatcher_of(session)
    assert os.getsid(pid) != os.getsid(0)
    os.kill(pid, signal.SIGINT)
    emit(0, 10)
    subscribers.flush()
    assert dispatcher_of(session) == pid
    assert len(named_subscribers.names(lines)) == 10


def test_workers_events_arrive_in_their_order(session, lines):
    register("Lines", lines)
    processes = [pools.get_context("fork").Process(target=emit, args=(n * 1000, n * 1000 + 250)) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    subscribers.flush()
    found = named_subscribers.read(lines)
    assert len(found) == 1000
    for n, process in enumerate(processes):
        assert [name for name, pid, *_ in found if pid == process.pid] == [f"{n * 1000 + i}" for i in range(250)]


# ---- it dies ----


def test_killed_in_a_callback_it_is_restarted_and_nothing_is_lost(session, lines):
    register("Dies", lines)
    first = dispatcher_of(session)
    emit(0, 100)
    scope.event("die")
    emit(100, 200)
    assert subscribers.flush().lost == 0
    found = named_subscribers.read(lines)
    assert dispatcher_of(session) != first
    assert counted(name for name, *_ in found) == [f"{i}" for i in range(200)]
    assert [(name, redelivered) for name, _, redelivered, _ in found if name == "die"] == [
        ("die", False),
        ("die", True),
    ]
    assert [name for name, _, redelivered, _ in found if redelivered] == ["die"]
    assert session.stats().lost == 0


def test_killed_anywhere_it_loses_nothing_and_repeats_at_most_one(session, lines):
    register("Lines", lines)
    kills = 3
    for n in range(kills):
        emit(n * 400, n * 400 + 200)
        os.kill(dispatcher_of(session), signal.SIGKILL)
        emit(n * 400 + 200, n * 400 + 400)
        assert subscribers.flush().lost == 0
    found = named_subscribers.read(lines)
    repeated = [name for name, _, redelivered, _ in found if redelivered]
    assert len(repeated) <= kills
    kept = []
    for name, *_ in found:
        if not kept or kept[-1] != name:  # a repeated one follows its first delivery at once
            kept.append(name)
    assert kept == [f"{i}" for i in range(kills * 400)]
    assert len(found) - len(kept) <= len(repeated)


def test_registrations_and_removals_outlive_it(session, lines, tmp_path):
    register("Lines", lines, name="stays")
    register("Lines", tmp_path / "gone", name="goes")
    with scope.scope("s", relay_mp.ScopeType.Agent) as handle:
        relay_mp.scope_local.register_subscriber(
            handle, "local", "named_subscribers:Lines", arguments={"path": str(tmp_path / "local")}
        )
        assert subscribers.deregister("goes")
        first = dispatcher_of(session)
        os.kill(first, signal.SIGKILL)
        scope.event("in it")
        subscribers.flush()
    assert dispatcher_of(session) != first
    scope.event("after")
    subscribers.flush()
    assert named_subscribers.names(lines) == ["s", "in it", "s", "after"]
    assert named_subscribers.names(tmp_path / "gone") == ["s"]
    assert named_subscribers.names(tmp_path / "local") == ["in it", "s"]
    with pytest.raises(relay_mp.SubscriberError, match="already registered"):
        register("Lines", lines, name="stays")


def test_a_request_that_kills_it_is_answered_by_the_next_one(session, lines):
    scope.event("nobody's")
    register("DiesWhileItIsMade", lines)
    emit(0, 3)
    subscribers.flush()
    assert named_subscribers.names(lines) == ["0", "1", "2"]
    assert subscribers.deregister("x") is True


def test_killed_just_before_the_close_it_is_restarted_to_drain(lines):
    with relay_mp.session(dispatcher="process") as session:
        register("Lines", lines)
        dispatcher = dispatcher_of(session)
        os.kill(dispatcher, signal.SIGSTOP)
        emit(0, 50)
        os.kill(dispatcher, signal.SIGKILL)
    kept = list(dict.fromkeys(named_subscribers.names(lines)))
    assert kept == [f"{i}" for i in range(50)]
    assert session.stats().lost == 0
    assert not os.path.exists(session.path)


def test_a_worker_that_flushes_waits_for_the_next_one(session, lines, run_script):
    register("Lines", lines)
    first = dispatcher_of(session)
    run_script(
        """
import os, signal, sys
from relay_mp import scope, subscribers
os.kill(int(sys.argv[1]), signal.SIGSTOP)
scope.event("m")
os.kill(int(sys.argv[1]), signal.SIGKILL)
assert subscribers.flush().lost == 0
""",
        first,
    )
    assert named_subscribers.names(lines) == ["m"]


def test_a_close_whose_deadline_passes_kills_it_and_keeps_what_is_left(lines, tmp_path, capfd):
    entered, release = tmp_path / "entered", tmp_path / "release"
    os.mkfifo(entered)
    os.mkfifo(release)
    session = relay_mp.session(dispatcher="process", directory=tmp_path)  # others' sessions sweep /dev/shm
    register("Hold", lines, entered=str(entered), release=str(release))
    scope.event("hold")
    emit(0, 10)
    with open(entered, "rb") as fifo:
        fifo.read(1)
    pid = dispatcher_of(session)
    session.close(timeout=0)
    assert not psutil.pid_exists(pid)
    assert f"are in {session.path}, see relay_mp.recover" in capfd.readouterr().err
    assert os.path.exists(session.path)
    os.unlink(session.path)


def test_an_interrupt_ends_a_close_that_waits_for_it_and_keeps_what_is_left(run_script, lines, tmp_path):
    entered, release = tmp_path / "entered", tmp_path / "release"
    os.mkfifo(entered)
    os.mkfifo(release)
    segments = tmp_path / "segments"
    segments.mkdir()
    out = run_script(
        """
import os, signal, sys, threading
import psutil
import relay_mp
from relay_mp import scope, subscribers
lines, entered, release, directory = sys.argv[1:]
session = relay_mp.session(dispatcher="process", directory=directory)
subscribers.register("x", "named_subscribers:Hold", arguments=dict(path=lines, entered=entered, release=release))
scope.event("hold")
for i in range(10):
    scope.event(f"{i}")
open(entered, "rb").read(1)
main = threading.main_thread().ident
def interrupt():
    while session.is_open or sys._current_frames()[main].f_code.co_filename != threading.__file__:
        pass  # until it waits for the dispatcher
    signal.pthread_kill(main, signal.SIGINT)
interrupter = threading.Thread(target=interrupt)
interrupter.start()
try:
    session.close(timeout=3600)
except KeyboardInterrupt:
    print("interrupted")
interrupter.join()
print(psutil.Process().children(recursive=True), os.path.exists(session.path), session.stats().pending)
relay_mp.recover(session.path, lines + ".recovered")
print(session.path, os.path.exists(session.path))
""",
        *(lines, entered, release, segments),
    )
    path = out.stdout.split()[-2]
    assert out.stdout.splitlines() == ["interrupted", "[] True 11", f"{path} False"]
    assert f"11 not delivered in time are in {path}, see relay_mp.recover" in out.stderr
    recovered = (tmp_path / "lines.recovered").read_text().splitlines()
    assert [json.loads(line)["name"] for line in recovered] == ["hold", *(f"{i}" for i in range(10))]


# ---- the owner dies ----

OWNER = """
import os, signal, sys
import relay_mp
from relay_mp import scope, subscribers
session = relay_mp.session(dispatcher="process")
subscribers.register("x", "named_subscribers:Lines", arguments={"path": sys.argv[1]})
dispatcher = session._segment.lease()[1]
os.kill(dispatcher, signal.SIGSTOP)
for i in range(500):
    scope.event(f"{i}")
print(session.path, dispatcher, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def run_owner(code, lines):
    """Where the segment of the killed owner is, and its dispatcher's pid. That one keeps stderr open: not piped."""
    paths = os.pathsep.join([os.path.dirname(named_subscribers.__file__), os.environ.get("PYTHONPATH", "")])
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(lines)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths.rstrip(os.pathsep)},
    )
    with owner:
        path, pid = owner.stdout.readline().split()
        assert owner.wait(60) == -signal.SIGKILL
    return path, int(pid)


def test_it_drains_what_a_killed_owner_left_and_removes_the_segment(lines):
    path, pid = run_owner(OWNER, lines)
    assert os.path.exists(path)
    dispatcher = psutil.Process(pid)
    dispatcher.resume()
    dispatcher.wait(timeout=60)
    assert named_subscribers.names(lines) == [f"{i}" for i in range(500)]
    assert not os.path.exists(path)


def test_it_goes_on_while_workers_of_a_killed_owner_live(lines):
    code = OWNER.replace("os.kill(dispatcher, signal.SIGSTOP)", "").replace(
        "print(",
        """
subscribers.flush()
receive, send = os.pipe()
if os.fork() == 0:
    os.close(send)
    scope.event("here")
    os.read(receive, 1)  # its end: the owner is dead
    for i in range(500, 1000):
        scope.event(f"{i}")
    os._exit(0)
print(""",
    )
    path, pid = run_owner(code, lines)
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(timeout=60)
    assert counted(named_subscribers.names(lines)) == [f"{i}" for i in range(1000)]
    assert not os.path.exists(path)


# ---- it cannot start ----


def test_one_that_cannot_start_is_a_clear_error_and_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(relay_mp.SessionError, match="dispatcher process ended with code 1 instead of starting"):
        relay_mp.session(dispatcher="process", directory=str(tmp_path), strict=True)
    assert list(tmp_path.iterdir()) == []
    assert "RELAY_MP_SESSION" not in os.environ


def test_an_interpreter_that_is_not_there_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with pytest.raises(relay_mp.SessionError, match="dispatcher process could not be started"):
        relay_mp.session(dispatcher="process", directory=str(tmp_path), strict=True)
    assert list(tmp_path.iterdir()) == []


def test_a_second_one_for_the_same_session_refuses(session):
    program = "from relay_mp._session import dispatcher_process; dispatcher_process.run()"
    command = [sys.executable, "-c", program, session.path]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert f"process {dispatcher_of(session)} dispatches {session.path} already" in second.stderr


@pytest.mark.parametrize(
    "place",
    [
        "process_host.sleep = interrupt",  # while it starts
        "inheritance.publish = interrupt",  # just started
    ],
)
def test_an_interrupt_while_it_starts_leaves_nothing(run_script, lines, place):
    out = run_script(
        f"""
import os, signal, sys, time
import psutil
import relay_mp
from relay_mp import scope, subscribers
from relay_mp._session import inheritance, naming, process_host, settings
publish, sleep = inheritance.publish, process_host.sleep
def interrupt(*_):
    process_host.sleep, inheritance.publish = sleep, publish
    signal.raise_signal(signal.SIGINT)
{place}
try:
    relay_mp.session(dispatcher="process")
except KeyboardInterrupt:
    print("interrupted")
print(psutil.Process().children(recursive=True), os.environ.get("RELAY_MP_SESSION"))
print([path for path in naming.own_segments(settings.SHARED_MEMORY) if f"-{{os.getpid():x}}-" in path])
with relay_mp.session(dispatcher="process"):
    subscribers.register("x", "named_subscribers:Lines", arguments=dict(path=sys.argv[1]))
    scope.event("of the next")
""",
        lines,
    ).stdout
    assert out.splitlines() == ["interrupted", "[] None", "[]"]
    assert named_subscribers.names(lines) == ["of the next"]
