"""`relay_mp.watch()`: a session seen from other processes, which come, are slow, are stopped, die, and fork."""

import concurrent.futures
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import relay_mp
from relay_mp import ScopeType, scope, subscribers
from relay_mp._deliver import tap
from relay_mp._native import core
from relay_mp._session import watch as watching

WAIT_SECONDS = 60.0

VIEWER = """
import json, os, sys, time
import relay_mp
path, until, *options = sys.argv[1:]
watch = relay_mp.watch(path, **json.loads(options[0] if options else "{}"))
print("watching", flush=True)
for batch in watch.batches():
    for event in batch.events:
        kind = event.kind if event.kind == "mark" else event.scope_category
        print(json.dumps([event.name, kind, event.pid, event.seq, event.data, batch.snapshot]), flush=True)
        if event.name == until:
            sys.exit()
print("ended", watch.why_ended, watch.missed, flush=True)
"""


@pytest.fixture
def directory(tmp_path):
    return str(tmp_path)


@pytest.fixture
def watched(request, directory):
    """A session in a directory in which there is no other."""
    dispatcher = getattr(request, "param", "thread")
    with relay_mp.session(directory=directory, ring_bytes=1 << 20, dispatcher=dispatcher) as session:
        yield session


both = pytest.mark.parametrize("watched", ["thread", "process"], indirect=True)


class Viewer:
    """Another process, of another program, that watches."""

    def __init__(self, path, until="last", code=VIEWER, **options):
        environment = {**os.environ, "RELAY_MP_SESSION": ""}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, path, until, json.dumps(options)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            bufsize=0,  # else a line that is read takes some of the next along
        )  # fmt: skip
        self.pid = self.process.pid
        line = self.process.stdout.readline()
        assert line == b"watching\n", line + self.process.communicate()[1]

    def seen(self, returncode=0):
        """Its rows, and its other lines, once it has ended."""
        out, err = self.process.communicate(timeout=WAIT_SECONDS)
        assert self.process.returncode == returncode, err
        assert not err
        lines = out.decode().splitlines()
        return [json.loads(line) for line in lines if line[0] == "["], [line for line in lines if line[0] != "["]

    def kill(self, number=signal.SIGKILL):
        os.kill(self.pid, number)


def await_that(is_so, what):
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)


def names(rows, *, marks=False):
    return [row[0] for row in rows if marks or not row[0].startswith("relay_mp.")]


def read_until(watch, name):
    """All that comes up to the event of that name."""
    found, deadline = [], time.monotonic() + WAIT_SECONDS
    while not any(event.name == name for event in found):
        assert time.monotonic() < deadline, [event.name for event in found]
        batch = watch.read(1.0)
        assert not batch.ended, watch.why_ended
        found += batch.events
    return found


# ---- the stream ----


@both
def test_another_process_sees_each_event_as_subscribers_do(watched):
    viewer = Viewer(watched.path)
    with scope.scope("work", ScopeType.Agent, input={"a": 1}):
        scope.event("step", data={"b": "ä" * 1000})
    scope.event("last")
    rows, _ = viewer.seen()
    assert [row[:3] for row in rows[1:]] == [
        ["work", "start", os.getpid()], ["step", "mark", os.getpid()], ["work", "end", os.getpid()],
        ["last", "mark", os.getpid()],
    ]  # fmt: skip
    assert rows[0][0] == "relay_mp.watch"
    assert [row[4] for row in rows[1:3]] == [{"a": 1}, {"b": "ä" * 1000}]
    assert [row[3] for row in rows] == sorted({row[3] for row in rows})


@both
def test_it_ends_with_the_session_and_says_so(watched):
    viewer = Viewer(watched.path)
    for number in range(500):
        scope.event(f"{number}")
    watched.close()
    rows, lines = viewer.seen()
    assert names(rows) == [f"{number}" for number in range(500)]
    assert lines == ["ended the session has ended 0"]
    assert os.listdir(os.path.dirname(watched.path)) == []


@both
def test_three_watch_at_once_beside_a_subscriber_and_each_sees_all(watched, tmp_path):
    subscribers.register("x", "named_subscribers:Lines", arguments={"path": str(tmp_path / "lines")})
    viewers = [Viewer(watched.path) for _ in range(3)]
    for number in range(1000):
        scope.event(f"{number}")
    scope.event("last")
    for viewer in viewers:
        assert names(viewer.seen()[0]) == [*(f"{number}" for number in range(1000)), "last"]
    watched.flush()
    assert len((tmp_path / "lines").read_text().splitlines()) == 1001


@both
def test_workers_are_seen_whether_they_began_before_or_after(watched, run_script):
    code = """
import sys
from relay_mp import scope
sys.stdin.readline()
scope.event("worker")
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as before:
        viewer = Viewer(watched.path)
        before.communicate("\n", timeout=WAIT_SECONDS)
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as after:
        after.communicate("\n", timeout=WAIT_SECONDS)
    scope.event("last")
    rows, _ = viewer.seen()
    assert [row[2] for row in rows if row[0] == "worker"] == [before.pid, after.pid]


def test_the_owner_watches_its_own_session(watched):
    with relay_mp.watch(watched.handle) as watch:
        scope.event("m")
        assert [event.name for event in read_until(watch, "m")] == ["relay_mp.watch", "m"]
        assert watch.session.id == watched.id
        assert watch.stats().emitted == 1


def test_events_are_those_that_subscribers_get_attribute_by_attribute(watched):
    seen = []
    subscribers.register("seen", seen.append)
    with relay_mp.watch(watched.path) as watch:
        with scope.scope("a", ScopeType.Tool, input={"x": [1, None]}, metadata={"m": 1}):
            pass
        found = [event for event in read_until(watch, "a") if event.name == "a"]
        subscribers.flush()
        while len(found) < 2:
            found += watch.read(1.0).events
    assert [event.to_json() for event in found] == [event.to_json() for event in seen]
    for name in ("seq", "pid", "thread_id", "redelivered", "timestamp_us"):
        assert [getattr(event, name) for event in found] == [getattr(event, name) for event in seen]


def test_a_viewer_does_not_emit_and_holds_no_slot(watched):
    viewer = Viewer(watched.path)
    scope.event("m")
    subscribers.flush()
    info = relay_mp.sessions(os.path.dirname(watched.path))[0]
    assert info.processes == (os.getpid(),)
    assert info.emitted == 1
    assert sum(process.emitted for process in watched.stats().processes if process.pid == viewer.pid) == 0
    scope.event("last")
    viewer.seen()


def test_without_another_subscriber_the_session_emits_for_the_viewer_only(watched):
    scope.event("nobody's")
    viewer = Viewer(watched.path)
    scope.event("last")
    assert names(viewer.seen()[0]) == ["last"]
    await_that(lambda: not watched._segment.subscribers, "the subscription's end")
    scope.event("nobody's")
    assert watched.stats().emitted == 1


def test_a_read_that_nothing_comes_for_is_empty_after_its_time(watched):
    with relay_mp.watch(watched.path) as watch:
        assert watch.read(WAIT_SECONDS).snapshot
        assert watch.read(0) == watch.read(0.01) == watching.Batch([])


# ---- what was open before ----

WORKER = """
import sys
from relay_mp import ScopeType, scope
with scope.scope("worker's", ScopeType.Tool, input={"w": 1}):
    print("open", flush=True)
    sys.stdin.readline()
"""


@both
def test_who_comes_late_sees_each_open_scope_with_its_true_start_and_no_orphan(watched, tmp_path):
    subscribers.register("x", "named_subscribers:Lines", arguments={"path": str(tmp_path / "lines")})
    before = core.now_us()
    with scope.scope("outer", ScopeType.Agent, input={"big": "x" * 5000}) as outer:
        after = core.now_us()
        with scope.scope("over", ScopeType.Agent):
            pass
        with subprocess.Popen(
            [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as worker:
            assert worker.stdout.readline() == "open\n"
            watched.flush()
            with relay_mp.watch(watched.path) as watch:
                first = watch.read(WAIT_SECONDS)
                assert first.snapshot
                worker.communicate("\n", timeout=WAIT_SECONDS)
                scope.event("last")
                rest = read_until(watch, "last")
    starts = first.events[1:]
    assert [(event.name, event.scope_category, event.pid) for event in starts] == [
        ("outer", "start", os.getpid()), ("worker's", "start", worker.pid),
    ]  # fmt: skip
    assert (starts[0].uuid, starts[0].data) == (outer.uuid, {"big": "x" * 5000})
    assert before <= starts[0].timestamp_us <= after <= starts[1].timestamp_us
    assert [(event.name, event.uuid) for event in rest][:1] == [("worker's", starts[1].uuid)]
    assert first.events[0].data["complete_since_us"] <= starts[0].timestamp_us


def test_scopes_that_began_while_nobody_subscribed_are_said_to_be_unknown(watched):
    with scope.scope("unknown", ScopeType.Agent), relay_mp.watch(watched.path) as watch:
        before = time.time() * 1e6
        first = watch.read(WAIT_SECONDS)
        assert [event.name for event in first.events] == ["relay_mp.watch"]
        assert abs(first.events[0].data["complete_since_us"] - before) < 60e6


def snapshot(directory, dispatcher, tmp_path, **settings):
    """Three scopes begin, and then a viewer: when it does, and with what, the session's mark and the starts."""
    with (
        relay_mp.session(directory=directory, ring_bytes=1 << 20, dispatcher=dispatcher, **settings) as session,
        contextlib.ExitStack() as blocks,
    ):
        subscribers.register("x", "named_subscribers:Lines", arguments={"path": str(tmp_path / "lines")})
        for name in "abc":
            blocks.enter_context(scope.scope(name, ScopeType.Agent, input={"text": name * 1000}))
        session.flush()
        began_us = core.now_us()
        with relay_mp.watch(session.path) as watch:
            mark, *starts = watch.read(WAIT_SECONDS).events
    return began_us, mark.data, [(event.name, "relay_mp.cut" in event.data) for event in starts]


@pytest.mark.parametrize("dispatcher", ["thread", "process"])
@pytest.mark.parametrize(
    ("settings", "given_up", "kept"),
    [
        ({"max_open_scopes": 3}, 0, [("a", False), ("b", False), ("c", False)]),
        ({"max_open_scopes": 2}, 1, [("b", False), ("c", False)]),
        ({"max_open_scopes": 0}, 0, []),
        ({"max_open_bytes": 2500}, 0, [("a", True), ("b", False), ("c", False)]),
        ({"max_open_bytes": 1}, 3, []),
    ],
)
def test_what_is_kept_of_open_scopes_has_two_bounds(directory, dispatcher, tmp_path, settings, given_up, kept):
    began_us, data, found = snapshot(directory, dispatcher, tmp_path, **settings)
    assert found == kept
    assert data["given_up"] == given_up
    # Where nothing is kept, what began before the viewer is not known, and said to be so.
    assert (data["complete_since_us"] >= began_us) == (settings.get("max_open_scopes") == 0)


# ---- a viewer ends ----


@both
def test_a_viewer_that_is_killed_is_gone_within_a_second_and_nobody_else_loses_anything(watched, tmp_path, caplog):
    """The clock is read to say when, as the promise does; the events go on at about 1,000 a second."""
    subscribers.register("x", "named_subscribers:Lines", arguments={"path": str(tmp_path / "lines")})
    viewer = Viewer(watched.path)
    assert watched._segment.subscribers == 2
    count = 0
    deadline = time.monotonic() + WAIT_SECONDS
    for _ in range(200):
        scope.event("before")
        count += 1
        time.sleep(0.001)
    viewer.kill()
    while watched._segment.subscribers == 2 and time.monotonic() < deadline:
        scope.event("after")
        count += 1
        time.sleep(0.001)
    assert watched._segment.subscribers == 1
    viewer.process.communicate(timeout=WAIT_SECONDS)
    watched.flush()
    assert len((tmp_path / "lines").read_text().splitlines()) == count
    assert watched.stats().lost == 0
    assert len(caplog.records) <= 3


@both
def test_an_idle_session_too_is_left_by_a_viewer_that_is_killed(watched):
    viewer = Viewer(watched.path)
    assert watched._segment.subscribers == 1
    viewer.kill()
    viewer.process.communicate(timeout=WAIT_SECONDS)
    await_that(lambda: not watched._segment.subscribers, "the subscription's end")


@both
def test_a_subscription_ends_with_its_process_though_a_child_of_it_has_its_socket(watched):
    """A child that was made without Python's fork has the descriptors still."""
    code = VIEWER.replace(
        'print("watching"',
        """
import ctypes
pid = ctypes.CDLL(None).vfork and ctypes.CDLL(None).syscall(57)  # fork, behind Python's back
if pid == 0:
    time.sleep(600)
    os._exit(0)
print(pid, file=sys.stderr)
print("watching\"""",
    )
    viewer = Viewer(watched.path, code=code)
    child = int(viewer.process.stderr.readline())
    try:
        viewer.kill()
        await_that(lambda: not watched._segment.subscribers, "the subscription's end")
        assert psutil.pid_exists(child)
    finally:
        os.kill(child, signal.SIGKILL)
        viewer.process.communicate(timeout=WAIT_SECONDS)


def test_a_watch_that_is_closed_ends_its_subscription_and_leaves_nothing(watched, directory):
    watch = relay_mp.watch(watched.path)
    (made,) = [name for name in os.listdir(directory) if name.startswith("relay_mp-watch-")]
    assert os.stat(os.path.join(directory, made)).st_mode & 0o777 == 0o700
    watch.close()
    watch.close()
    assert os.listdir(directory) == [os.path.basename(watched.path)]
    await_that(lambda: not watched._segment.subscribers, "the subscription's end")
    with pytest.raises(relay_mp.SessionError, match="is closed; call relay_mp.watch"):
        watch.read(0)


def test_a_forked_child_of_a_viewer_has_no_part_in_it(watched):
    code = """
import os, sys
import relay_mp
path, until = sys.argv[1:3]
watch = relay_mp.watch(path)
pid = os.fork()
if pid == 0:
    try:
        watch.read(0)
    except relay_mp.SessionError as error:
        os.write(2, str(error).encode())
    watch.close()
    os._exit(0)
os.waitpid(pid, 0)
print("watching", flush=True)
for event in watch:
    if event.name == until:
        print("seen")
        break
watch.close()
"""
    viewer = Viewer(watched.path, code=code)
    scope.event("last")
    out, err = viewer.process.communicate(timeout=WAIT_SECONDS)
    assert (out, err) == (b"seen\n", b"this watch is the parent process's; call relay_mp.watch() in this one")


# ---- a viewer is slow ----


@both
def test_a_stopped_viewer_is_told_what_it_missed_at_its_place(watched):
    viewer = Viewer(watched.path, buffer_bytes=watching.MIN_BUFFER_BYTES)
    scope.event("first")
    watched.flush()
    viewer.kill(signal.SIGSTOP)
    await_that(lambda: psutil.Process(viewer.pid).status() == psutil.STATUS_STOPPED, "the stop")
    for number in range(5000):
        scope.event(f"{number}", data="x" * 500)
    watched.flush()
    viewer.kill(signal.SIGCONT)
    with concurrent.futures.ThreadPoolExecutor(1) as reader:
        seen = reader.submit(viewer.seen)
        number = 5000
        while not seen.done():  # the first may be missed, too
            scope.event("last", data=number)
            number += 1
            time.sleep(0.01)
    rows, _ = seen.result()
    told = [row for row in rows if row[0] == "relay_mp.missed"]
    assert told
    assert all(row[4]["why"] == "slow" for row in told)
    came = [row[0] for row in rows if row[0].isdigit()]
    assert came == sorted(came, key=int)
    assert len(came) + sum(row[4]["missed"] for row in told) == rows[-1][4]
    place = rows.index(told[0])
    before = int(next(row[0] for row in reversed(rows[:place]) if row[0].isdigit()))
    following = rows[place + 1]
    assert before + told[0][4]["missed"] + 1 == (int(following[0]) if following[0].isdigit() else following[4])
    assert [row[3] for row in rows] == sorted(row[3] for row in rows)


def test_what_was_missed_is_told_though_nothing_follows(watched):
    with relay_mp.watch(watched.path, buffer_bytes=watching.MIN_BUFFER_BYTES) as watch:
        for _ in range(5000):
            scope.event("m", data="x" * 500)
        watched.flush()
        came, deadline = 0, time.monotonic() + WAIT_SECONDS
        while came + watch.missed < 5000 and time.monotonic() < deadline:
            came += sum(event.name == "m" for event in watch.read(1.0).events)
        assert 0 < watch.missed < 5000
        assert came + watch.missed == 5000


def test_a_session_closes_though_a_viewer_is_stopped(watched):
    viewer = Viewer(watched.path, until="none")
    viewer.kill(signal.SIGSTOP)
    for _ in range(3000):
        scope.event("m", data="x" * 1000)
    watched.close()
    viewer.kill(signal.SIGCONT)
    rows, lines = viewer.seen()
    missed = int(lines[-1].split()[-1])
    assert lines[-1].startswith("ended the session has ended")
    assert len(names(rows)) + missed == 3000
    assert missed == sum(row[4]["missed"] for row in rows if row[0] == "relay_mp.missed")


@pytest.mark.parametrize("excess", [-1, 0, 1])
def test_the_buffer_holds_what_it_may_and_no_more(excess):
    sent = []

    class Out:
        is_gone, waiting_bytes = False, 1

        def send(self, frame, *, is_counted=True):
            sent.append(frame)

    made = tap.Tap.__new__(tap.Tap)
    made._missed, made._last_missed, made._out = 0, (0, 0), Out()
    event = relay_mp.MarkEvent.from_fields("m", uuid=bytes(16), timestamp_us=5, seq=7, pid=1, data="x" * 100)
    size = len(tap.batches.pack(tap.EVENTS, [event]))
    made._buffer_bytes = 1 + size - excess
    assert made.take_batch([event]) == 1
    assert bool(sent) == (excess <= 0)
    assert made._missed == (excess > 0)


# ---- the session ends, or its dispatcher ----


@both
def test_an_owner_that_is_killed_ends_the_watch(directory, run_script, watched):
    code = """
import sys, time
import relay_mp
from relay_mp import scope, subscribers
session = relay_mp.session(directory=sys.argv[1], dispatcher=sys.argv[2])
print(session.path, flush=True)
while True:
    scope.event("m")
    time.sleep(0.001)
"""
    dispatcher = "process" if watched.has_dispatcher_process else "thread"
    command = [sys.executable, "-c", code, directory, dispatcher]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "RELAY_MP_SESSION": ""},
    ) as owner:
        path = owner.stdout.readline().strip()
        with relay_mp.watch(path) as watch:
            read_until(watch, "m")
            owner.kill()
            batches = list(watch.batches())
            assert batches[-1].ended
            assert watch.why_ended is not None
    if os.path.exists(path):
        relay_mp.recover(path, os.path.join(directory, "rest.jsonl"))


@pytest.mark.parametrize("watched", ["process"], indirect=True)
def test_a_dispatcher_that_is_killed_is_replaced_and_the_watch_goes_on(watched):
    with relay_mp.watch(watched.path) as watch:
        scope.event("before")
        read_until(watch, "before")
        os.kill(watched._segment.lease()[1], signal.SIGKILL)
        for number in range(300):
            scope.event(f"{number}")
        scope.event("last")
        found = read_until(watch, "last")
        came = [event.name for event in found if event.name.isdigit()]
        assert came == sorted(set(came), key=int)
        assert len(came) + watch.missed == 300
        (mark,) = [event for event in found if event.name == "relay_mp.watch"]
        assert mark.data["complete_since_us"] <= time.time() * 1e6  # since the successor's start: it knows none before


# ---- what cannot be watched ----


def test_a_session_that_has_ended_is_not_watched(directory, watched):
    watched.close()
    with pytest.raises(relay_mp.SegmentError, match="there is no segment|has ended"):
        relay_mp.watch(watched.path)


def test_a_callback_cannot_watch_its_own_session(watched):
    said = []

    def callback(_event):
        try:
            relay_mp.watch(watched.path)
        except relay_mp.SessionError as error:
            said.append(str(error))

    subscribers.register("x", callback)
    scope.event("m")
    subscribers.flush()
    assert said == ["a subscriber's callback cannot ask to register: the dispatcher would wait for itself"]


def test_a_dispatcher_that_is_stuck_is_an_error_after_the_time(watched):
    release = []
    subscribers.register("x", lambda event: await_that(lambda: release, "release"))
    scope.event("m")
    with pytest.raises(relay_mp.FlushTimeoutError, match="a subscriber is slow or stuck"):
        relay_mp.watch(watched.path, timeout=0.2)
    release.append(True)
    watched.flush()
    await_that(lambda: watched._segment.subscribers == 1, "the end of a subscription whose viewer has given up")
    assert [name for name in os.listdir(os.path.dirname(watched.path)) if "watch" in name] == []


@pytest.mark.parametrize(
    ("given", "error"),
    [(0, ValueError), (64 * 1024 - 1, ValueError), ((1 << 30) + 1, ValueError), (True, TypeError), ([], TypeError)],
)
def test_a_buffer_that_is_none_is_refused(watched, given, error):
    with pytest.raises(error, match="buffer_bytes"):
        relay_mp.watch(watched.path, buffer_bytes=given)


def test_the_buffers_default_is_the_environments(watched, monkeypatch):
    monkeypatch.setenv("RELAY_MP_WATCH_BUFFER_BYTES", "70000")
    assert watching._room(None) == 70000
    monkeypatch.setenv("RELAY_MP_WATCH_BUFFER_BYTES", "many")
    with pytest.raises(ValueError, match="RELAY_MP_WATCH_BUFFER_BYTES='many' is not a whole number"):
        relay_mp.watch(watched.path)


def test_every_slot_taken_is_said(directory):
    with relay_mp.session(directory=directory, max_producers=1) as session:
        subscribers.register("x", id)
        scope.event("m")
        with pytest.raises(relay_mp.RegistryFullError, match="every producer slot of the session is taken"):
            relay_mp.watch(session.path)


def test_a_session_that_allows_nothing_else_allows_to_be_watched(directory):
    with relay_mp.session(directory=directory, allowed_subscribers="none") as session:
        viewer = Viewer(session.path)
        scope.event("last")
        assert names(viewer.seen()[0]) == ["last"]


def test_a_segment_in_a_long_path_is_watched(tmp_path):
    place = tmp_path / ("d" * 100)
    place.mkdir()
    with relay_mp.session(directory=str(place)) as session, relay_mp.watch(session.path) as watch:
        scope.event("m")
        read_until(watch, "m")
    assert list(Path(place).iterdir()) == []
