"""A session's life: how it starts, whom it belongs to, how it ends."""

import os
import pickle
import stat
import sys
import threading

import pytest

import relay_mp
from relay_mp import scope, subscribers
from relay_mp._session import naming
from relay_mp._session.membership import _State, current_session

WAIT_SECONDS = 30


# ---- start ----


def test_the_first_registration_starts_a_session():
    subscribers.register("x", id)
    session = current_session()
    assert session.is_owner
    assert session.is_open
    relay_mp.shutdown()
    assert current_session() is None


def test_two_threads_that_register_first_share_one_session():
    start, sessions, found = threading.Barrier(8), set(), []

    def register(number):
        start.wait(WAIT_SECONDS)
        subscribers.register(f"{number}", lambda event: found.append(number))
        sessions.add(current_session().path)

    threads = [threading.Thread(target=register, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    scope.event("m")
    subscribers.flush()
    relay_mp.shutdown()
    assert len(sessions) == 1
    assert sorted(found) == list(range(8))


def test_a_default_session_takes_its_settings_from_the_environment(monkeypatch):
    monkeypatch.setenv("RELAY_MP_RING_BYTES", "131072")
    subscribers.register("x", id)
    assert current_session().settings.ring_bytes == 131072
    relay_mp.shutdown()


def test_a_worker_that_starts_a_session_is_told_that_it_is_in_one(run_script):
    code = """
import os, relay_mp
with relay_mp.session():
    relay_mp.subscribers.register("x", id)
    if os.fork() == 0:
        relay_mp.scope.event("m")
        try:
            relay_mp.session()
        except relay_mp.SessionError as error:
            print(error, flush=True)
        os._exit(0)
    os.wait()
"""
    said = run_script(code).stdout
    assert said.startswith("a session inside a session: this process is attached to ")
    assert "another process owns; emit and register without session() here, or take relay_mp.current_session()" in said


def test_a_session_that_has_closed_is_not_entered_again(session):
    session.close()
    with pytest.raises(relay_mp.SessionError, match=r"owner closed> cannot be entered again; start another one with"):
        session.__enter__()


def test_a_session_inside_a_session_is_refused_and_does_no_harm(session, seen):
    scope.event("before")
    with pytest.raises(
        relay_mp.SessionError, match="a session inside a session: this process owns .* close that first"
    ):
        relay_mp.session()
    scope.event("after")
    subscribers.flush()
    assert [event.name for event in seen] == ["before", "after"]


def test_a_session_in_an_attached_process_is_refused(session, seen, run_script):
    out = run_script(
        """
import relay_mp
from relay_mp import scope
try:
    relay_mp.session()
except relay_mp.SessionError as error:
    print(error)
scope.event("still attached")
"""
    ).stdout
    assert "this process is attached to" in out
    subscribers.flush()
    assert [event.name for event in seen] == ["still attached"]


def test_the_segment_is_private_and_its_name_says_whose_it_is(session):
    status = os.stat(session.path)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_uid == os.geteuid()
    name = os.path.basename(session.path)
    assert name == f"relay_mp-{os.geteuid()}-{session.id}"
    boot, pid, start_time, _random = session.id.split("-")
    assert (int(pid, 16), int(start_time, 16)) == naming.maker(session.path)[:2]
    assert int(pid, 16) == os.getpid()
    with open("/proc/sys/kernel/random/boot_id") as file:
        assert file.read().startswith(boot)


def test_ids_are_never_used_twice():
    ids = set()
    for _ in range(3):
        with relay_mp.session() as session:
            ids.add(session.id)
    assert len(ids) == 3


# ---- end ----


def test_leaving_the_block_delivers_everything_and_removes_the_segment():
    found = []
    with relay_mp.session() as session:
        subscribers.register("x", lambda event: found.append(event.name))
        for i in range(1000):
            scope.event(f"{i}")
    assert found == [f"{i}" for i in range(1000)]
    assert not os.path.exists(session.path)
    assert current_session() is None
    assert not session.is_open
    assert "RELAY_MP_SESSION" not in os.environ
    assert "closed" in repr(session)


def test_leaving_the_block_by_an_exception_delivers_everything():
    found = []

    def block():
        with relay_mp.session():
            subscribers.register("x", lambda event: found.append(event.name))
            scope.event("m")
            raise LookupError

    with pytest.raises(LookupError):
        block()
    assert found == ["m"]


def test_close_is_idempotent():
    session = relay_mp.session()
    session.close()
    session.close()
    relay_mp.shutdown()
    assert not os.path.exists(session.path)


def test_close_from_two_threads_is_one_close():
    session, start, errors = relay_mp.session(), threading.Barrier(2), []

    def close():
        start.wait(WAIT_SECONDS)
        try:
            session.close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=close) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert not os.path.exists(session.path)


def test_a_session_begun_while_another_closes_is_whole():
    entered, opened = threading.Event(), threading.Event()

    def hold(_event):
        entered.set()
        assert opened.wait(WAIT_SECONDS)

    first = relay_mp.session()
    subscribers.register("hold", hold)
    scope.event("m")
    assert entered.wait(WAIT_SECONDS)
    closing = threading.Thread(target=first.close)
    closing.start()
    while first.is_open:
        pass
    second = []
    starting = threading.Thread(target=lambda: second.append(relay_mp.session()))
    starting.start()
    opened.set()
    closing.join()
    starting.join()
    found = []
    subscribers.register("x", lambda event: found.append(event.name))
    scope.event("of the second")
    subscribers.flush()
    second[0].close()
    assert found == ["of the second"]


def is_inside(thread, function):
    """Whether a thread is running a function just now, or something that it called."""
    frame = sys._current_frames().get(thread.ident)
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back
    return frame is not None


def test_a_callback_that_registers_while_others_close_and_begin_sessions_is_refused():
    entered, opened, errors, second = threading.Event(), threading.Event(), [], []

    def registers(_event):
        entered.set()
        assert opened.wait(WAIT_SECONDS)
        try:
            subscribers.register("late", id)
        except relay_mp.SessionError as error:
            errors.append(str(error))

    first = relay_mp.session(flush_timeout_seconds=3600)
    subscribers.register("registers", registers)
    scope.event("m")
    assert entered.wait(WAIT_SECONDS)
    closing = threading.Thread(target=first.close, daemon=True)
    closing.start()
    while first.is_open:
        pass
    starting = threading.Thread(target=lambda: second.append(relay_mp.session()), daemon=True)
    starting.start()
    while not is_inside(starting, _State.start):
        pass  # until it waits for the first to end
    opened.set()
    closing.join(WAIT_SECONDS)
    starting.join(WAIT_SECONDS)
    assert not closing.is_alive()
    (error,) = errors
    assert "inside a subscriber's callback, whose own session is closing" in error
    assert first.stats().pending == 0
    second[0].close()


@pytest.mark.parametrize("end", ["session.close", "relay_mp.shutdown", "session.flush", "subscribers.flush"])
@pytest.mark.parametrize(
    ("timeout", "error", "said"),
    [
        ("5", TypeError, "timeout is a str; expected seconds as a number, or None"),
        (True, TypeError, "timeout is a bool"),
        (float("nan"), ValueError, "timeout is nan; expected 0 to"),
        (float("inf"), ValueError, "timeout is inf; expected 0 to"),
        (-1, ValueError, "timeout is -1; expected 0 to"),
    ],
)
def test_a_wrong_timeout_is_refused_and_the_session_goes_on(session, seen, end, timeout, error, said):
    call = {
        "session.close": session.close,
        "relay_mp.shutdown": relay_mp.shutdown,
        "session.flush": session.flush,
        "subscribers.flush": subscribers.flush,
    }[end]
    with pytest.raises(error, match=said):
        call(timeout)
    assert session.is_open
    assert os.environ["RELAY_MP_SESSION"] == session.path
    scope.event("m")
    subscribers.flush()
    assert [event.name for event in seen] == ["m"]


def test_emitting_after_the_end_is_a_no_op():
    with relay_mp.session():
        subscribers.register("x", id)
        handle = scope.push("left open", relay_mp.ScopeType.Agent)
    scope.event("m", data=object())
    scope.pop(handle)


def test_a_session_that_lost_nothing_ends_silently(capfd):
    with relay_mp.session():
        subscribers.register("x", id)
        scope.event("m")
    assert capfd.readouterr() == ("", "")


def test_a_session_that_lost_something_says_so_in_one_line(capfd):
    entered, opened = threading.Event(), threading.Event()

    def hold(_event):
        entered.set()
        assert opened.wait(WAIT_SECONDS)

    with relay_mp.session(ring_bytes=65536, on_full="drop") as session:
        subscribers.register("x", hold)
        for _ in range(2000):
            scope.event("m")
        opened.set()
    lost = session.stats().lost
    assert lost > 0
    assert capfd.readouterr().err == (
        f"relay_mp: 2000 events emitted, {2000 - lost} delivered, {lost} lost (full {lost}), "
        "0 failures of subscribers\n"
    )


def test_a_close_whose_deadline_passes_keeps_what_is_left_and_says_where(run_script, tmp_path):
    out = run_script(
        """
import os, sys, threading
import relay_mp
from relay_mp import scope, subscribers
stuck = threading.Event()
session = relay_mp.session(directory=sys.argv[1])  # its own: others' sessions sweep /dev/shm
subscribers.register("x", lambda event: stuck.wait())
for i in range(10):
    scope.event(f"{i}")
session.close(timeout=0.01)
print(session.path)
""",
        tmp_path,
    )
    path = out.stdout.strip()
    assert f"not delivered in time are in {path}, see relay_mp.recover" in out.stderr
    file = str(tmp_path / "recovered.jsonl")
    assert relay_mp.recover(path, file) == file
    with open(file) as recovered:
        assert len(recovered.readlines()) == 10
    assert not os.path.exists(path)


SCRIPT = """
import os, sys
import relay_mp
from relay_mp import scope, subscribers
found = open(sys.argv[1], "w", buffering=1)
subscribers.register("x", lambda event: print(event.name, file=found))
for i in range(500):
    scope.event(f"{i}")
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise LookupError", 1),
        ("raise SystemExit('enough')", 1),
        ("import threading; threading.Thread(target=sys.exit).start()", 0),
        (
            "from multiprocessing import context; context.ForkProcess(target=scope.event, args=('500',)).start()",
            0,
        ),
    ],
)
def test_the_end_of_the_program_delivers_everything(run_script, tmp_path, end, code):
    run_script(SCRIPT + end, tmp_path / "found", returncode=code)
    names = (tmp_path / "found").read_text().split()
    assert names[:500] == [f"{i}" for i in range(500)]
    assert names[500:] == (["500"] if "Process" in end else [])


def test_children_that_nobody_joined_are_waited_for(run_script, tmp_path):
    code = """
import atexit, multiprocessing, sys
import relay_mp
from relay_mp import scope, subscribers
found = open(sys.argv[1], "w", buffering=1)
def work(go):
    go.recv()
    for i in range(100):
        scope.event(f"{i}")
context = multiprocessing.get_context("fork")
subscribers.register("x", lambda event: print(event.name, file=found))
receive, send = context.Pipe(False)
context.Process(target=work, args=(receive,)).start()
atexit.register(send.send, None)  # runs before the session's own
"""
    run_script(code, tmp_path / "found")
    assert (tmp_path / "found").read_text().split() == [f"{i}" for i in range(100)]


def test_a_worker_of_multiprocessing_may_own_a_session(run_script, tmp_path):
    code = """
import multiprocessing, sys
import relay_mp
from relay_mp import scope, subscribers
def work(path):
    found = open(path, "w", buffering=1)
    subscribers.register("x", lambda event: print(event.name, file=found))
    for i in range(100):
        scope.event(f"{i}")
process = multiprocessing.get_context("fork").Process(target=work, args=(sys.argv[1],))
process.start()
process.join()
assert process.exitcode == 0
"""
    run_script(code, tmp_path / "found")
    assert (tmp_path / "found").read_text().split() == [f"{i}" for i in range(100)]


# ---- children ----


def test_a_forked_child_that_leaves_the_block_ends_nothing(run_script):
    out = run_script(
        """
import os
import relay_mp
from relay_mp import scope, subscribers
names = []
with relay_mp.session() as session:
    subscribers.register("x", lambda event: names.append(event.name))
    pid = os.fork()
    scope.event("child" if pid == 0 else "parent")
    if pid:
        os.waitpid(pid, 0)
        assert os.path.exists(session.path)
        scope.event("parent again")
if pid == 0:
    os._exit(0)
print(sorted(names))
"""
    ).stdout
    assert out == "['child', 'parent', 'parent again']\n"


def test_a_forked_child_that_exits_normally_ends_nothing(run_script):
    out = run_script(
        """
import os, sys
import relay_mp
from relay_mp import scope, subscribers
names = []
session = relay_mp.session()
subscribers.register("x", lambda event: names.append(event.name))
pid = os.fork()
if pid == 0:
    scope.event("child")
    sys.exit(0)
os.waitpid(pid, 0)
scope.event("parent")
session.close()
print(sorted(names))
"""
    ).stdout
    assert out == "['child', 'parent']\n"


def test_the_handle_is_small_and_pickles(session):
    packed = pickle.dumps(session.handle)
    assert len(packed) < 300
    assert pickle.loads(packed) == session.handle
    assert session.handle.path == session.path


def test_an_interrupt_while_blocked_on_a_full_ring_comes_through(run_script):
    out = run_script(
        """
import os, signal, threading
import relay_mp
from relay_mp import scope, subscribers
entered, opened = threading.Event(), threading.Event()
names = []
def hold(event):
    names.append(event.name)
    entered.set()
    opened.wait()
session = relay_mp.session(ring_bytes=65536, block_timeout_seconds=3600)
subscribers.register("x", hold)
emitted = 0
blocked = threading.Event()
def interrupt():
    entered.wait()
    while session.stats().ring_used_bytes < 65536 - 256:
        pass
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
try:
    while True:
        scope.event(str(emitted))
        emitted += 1
except KeyboardInterrupt:
    pass
opened.set()
scope.event("after")
subscribers.flush()
stats = session.stats()
kept = [name for name in names if name.isdigit()]
assert kept == [str(i) for i in range(len(kept))]
print(stats.emitted == stats.delivered + stats.lost, stats.lost <= 1, len(kept) >= emitted, names[-1])
"""
    ).stdout
    assert out == "True True True after\n"


def test_a_fork_after_a_close_is_in_no_session(run_script):
    """The closed session must not be looked into again by the child."""
    run_script(
        """
import os, relay_mp
from relay_mp._session.membership import current_session
relay_mp.session().close()
child = os.fork()
if child == 0:
    assert current_session() is None
    relay_mp.scope.event("nobody listens")
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    )
