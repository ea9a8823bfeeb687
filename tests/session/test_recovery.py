"""What dead sessions left behind: found, written out, removed; and never what is alive."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import psutil
import pytest

import relay_mp
from relay_mp import scope, subscribers
from relay_mp._native import core
from relay_mp._native.segments import Segment
from relay_mp._session import naming

WAIT_SECONDS = 30

DIES = """
import os, signal, sys
import relay_mp
from relay_mp import scope, subscribers
directory, count = sys.argv[1], int(sys.argv[2])
session = relay_mp.session(directory=directory)
subscribers.register("x", (lambda event: signal.pause()) if "stuck" in sys.argv else id)
for i in range(count):
    scope.event(f"{i}", data={"i": i})
if "stuck" not in sys.argv:
    subscribers.flush()
print(session.path, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def directory(tmp_path):
    """Where the dead ones' segments are."""
    path = tmp_path / "segments"
    path.mkdir()
    return path


@pytest.fixture
def recovered(tmp_path):
    return tmp_path / "recovered"


def die(run_script, directory, count, *arguments):
    return run_script(DIES, directory, count, *arguments, returncode=-9).stdout.strip()


def sweep(directory, recovered):
    with relay_mp.session(directory=str(directory), recovery_directory=str(recovered)):
        pass


def names(path):
    return [json.loads(line)["name"] for line in path.read_text().splitlines()]


def session_of(path):
    """A segment's session, and the process that made it: the id says which."""
    session = os.path.basename(path).split("-", 2)[2]
    return session, int(session.split("-")[1], 16)


def test_the_next_session_writes_out_what_a_killed_one_left(run_script, directory, recovered, caplog):
    path = die(run_script, directory, 100, "stuck")
    sweep(directory, recovered)
    (file,) = recovered.iterdir()
    assert file.name == f"relay-mp-recovered-{os.path.basename(path).split('-', 2)[2]}.jsonl"
    assert names(file) == [f"{i}" for i in range(100)]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["data"]["i"] for line in lines] == list(range(100))
    found = [line["metadata"]["relay_mp.origin"] for line in lines]
    assert {(origin["session"], origin["pid"]) for origin in found} == {session_of(path)}
    assert all(set(origin) == {"seq", "pid", "thread_id", "session"} for origin in found)
    places = [origin["seq"] for origin in found]
    assert places == sorted(set(places))
    assert list(directory.iterdir()) == []
    (record,) = [record for record in caplog.records if "dead session" in record.getMessage()]
    assert path in record.getMessage()
    assert str(file) in record.getMessage()


def test_recover_does_it_by_hand(run_script, directory, recovered):
    path = die(run_script, directory, 10, "stuck")
    file = recovered / "mine.jsonl"
    assert relay_mp.recover(path, str(file)) == str(file)
    assert names(file) == [f"{i}" for i in range(10)]
    assert not os.path.exists(path)
    with pytest.raises(relay_mp.SegmentError, match="there is no segment"):
        relay_mp.recover(path)


def test_recover_writes_lines_with_or_without_their_origin(run_script, directory, tmp_path):
    for number, origin in enumerate([True, False]):
        path = die(run_script, directory, 10, "stuck")
        file = tmp_path / f"{number}.jsonl"
        assert relay_mp.recover(path, file, origin=origin) == str(file)
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert [(line["metadata"] or {}).get("relay_mp.origin") is not None for line in lines] == [origin] * 10


@pytest.mark.parametrize("written_with", [True, False])
def test_what_a_file_has_is_not_appended_again_whichever_form_its_lines_have(
    run_script, directory, tmp_path, written_with
):
    path = die(run_script, directory, 10, "stuck")
    again, file = f"{path}-again", tmp_path / "events.jsonl"
    shutil.copy(path, again)
    assert relay_mp.recover(path, file, origin=written_with) == str(file)
    before = file.read_text()
    assert relay_mp.recover(again, file, origin=not written_with) == str(file)
    assert file.read_text() == before


def test_recover_names_its_file_by_the_session(run_script, directory, tmp_path, monkeypatch):
    path = die(run_script, directory, 1, "stuck")
    monkeypatch.chdir(tmp_path)
    file = relay_mp.recover(path)
    assert file == str(tmp_path / f"relay-mp-recovered-{os.path.basename(path).split('-', 2)[2]}.jsonl")


def test_a_dead_session_without_leftovers_goes_silently(run_script, directory, recovered, caplog):
    die(run_script, directory, 10)
    sweep(directory, recovered)
    assert not recovered.exists()
    assert list(directory.iterdir()) == []
    assert caplog.records == []


def test_recover_of_a_session_without_leftovers_returns_none(run_script, directory, recovered):
    path = die(run_script, directory, 10)
    assert relay_mp.recover(path, str(recovered)) is None
    assert not recovered.exists()


def test_a_living_session_is_left_alone(session, seen):
    expected = f"goes on: process {os.getpid()} is in it; recover it after its end"
    with pytest.raises(relay_mp.SessionError, match=expected):
        relay_mp.recover(session.path)
    scope.event("m")
    subscribers.flush()
    assert [event.name for event in seen] == ["m"]


def test_a_dead_owners_session_is_not_ended_while_a_worker_lives(directory, recovered, caplog):
    forks = """
if os.fork() == 0:
    scope.event("of the worker")
    print(os.getpid(), flush=True)
    signal.pause()
"""
    code = DIES.replace("print(", forks + "print(")
    with subprocess.Popen(
        [sys.executable, "-c", code, str(directory), "5", "stuck"], stdout=subprocess.PIPE, text=True
    ) as process:
        # Of the two lines either may come first; "/" sorts before the digits.
        path, worker_pid = sorted((process.stdout.readline().strip(), process.stdout.readline().strip()))
        process.wait(60)
        worker = psutil.Process(int(worker_pid))
        try:
            sweep(directory, recovered)
            assert os.path.exists(path)
            (record,) = [record for record in caplog.records if f"{path} goes on" in record.getMessage()]
            said = f"goes on: process {worker.pid} is in it, but its owner, process {process.pid}, is dead, and nobody"
            assert said in record.getMessage()
            with pytest.raises(relay_mp.SessionError, match=f"{said} .*; end process {worker.pid}: then"):
                relay_mp.recover(path, str(recovered))
        finally:
            worker.kill()
            psutil.wait_procs([worker], timeout=30)
    sweep(directory, recovered)
    assert not os.path.exists(path)
    (file,) = recovered.iterdir()
    assert sorted(names(file)) == sorted([*(f"{i}" for i in range(5)), "of the worker"])


WORKERS_THAT_GO_ON = """
for n in range(2):
    if os.fork() == 0:
        scope.event(f"before {n}")
        print(os.getpid(), flush=True)
        while not os.path.exists(sys.argv[1] + ".go"):
            time.sleep(0.01)
        scope.event(f"after {n}")
        print("emitted", flush=True)
        signal.pause()
"""


@contextlib.contextmanager
def workers_of_a_killed_owner(directory):
    """The segment's path, the workers, and what makes each emit once more."""
    code = DIES.replace("print(", "import time\n" + WORKERS_THAT_GO_ON + "print(")
    command = [sys.executable, "-c", code, str(directory), "5", "stuck"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        path, *pids = sorted(process.stdout.readline().strip() for _ in range(3))
        process.wait(60)
        workers = [psutil.Process(int(pid)) for pid in pids]

        def go_on():
            (directory.parent / f"{directory.name}.go").touch()
            assert [process.stdout.readline() for _ in workers] == ["emitted\n"] * 2

        try:
            yield path, workers, go_on
        finally:
            for worker in workers:
                worker.kill()
            psutil.wait_procs(workers, timeout=30)


def test_what_is_in_the_ring_of_a_dead_owner_is_written_while_its_workers_go_on(directory, recovered, caplog):
    with workers_of_a_killed_owner(directory) as (path, workers, go_on):
        sweep(directory, recovered)
        (file,) = recovered.iterdir()
        assert sorted(names(file)) == ["0", "1", "2", "3", "4", "before 0", "before 1"]
        pids = sorted(worker.pid for worker in workers)
        said = [record.getMessage() for record in caplog.records if "goes on" in record.getMessage()]
        assert any(f"processes {a}, {b} are in it" in said[0] for a, b in (pids, pids[::-1]))
        assert os.path.exists(path)
        go_on()
    sweep(directory, recovered)
    assert sorted(names(file)[7:]) == ["after 0", "after 1"]
    assert not os.path.exists(path)


def test_recovering_by_force_ends_the_session_for_workers_of_a_dead_owner(directory, recovered, caplog):
    recovered.mkdir()
    with workers_of_a_killed_owner(directory) as (path, workers, go_on):
        file = recovered / "file"
        assert relay_mp.recover(path, file, force=True) == str(file)
        assert sorted(names(file)) == ["0", "1", "2", "3", "4", "before 0", "before 1"]
        assert all(str(worker.pid) in caplog.text for worker in workers)
        assert not os.path.exists(path)
        go_on()  # their emits return, and are not recorded


def test_force_takes_no_session_that_somebody_delivers(session):
    with pytest.raises(relay_mp.SessionError, match="is in it; recover it after its end"):
        relay_mp.recover(session.path, force=True)


def test_what_the_file_does_not_take_stays_in_the_segment(run_script, directory, recovered, tmp_path):
    path = die(run_script, directory, 10, "stuck")
    recovered.mkdir()
    blocked = recovered / "blocked.jsonl"
    blocked.mkdir()
    with pytest.raises(relay_mp.SessionError, match="not all events could be written .* the rest stays in"):
        relay_mp.recover(path, str(blocked))
    assert os.path.exists(path)
    file = recovered / "free.jsonl"
    relay_mp.recover(path, str(file))
    assert names(file) == [f"{i}" for i in range(10)]


def test_a_request_that_a_dead_session_left_is_not_run(run_script, directory, recovered, tmp_path):
    path = die(run_script, directory, 0, "stuck")
    # A worker's registration that nobody had got to: it must not be resolved here.
    segment = Segment.attach(path)
    segment.make_current()
    touched = tmp_path / "touched"
    core.emit_control(
        "register",
        {"name": "x", "target": "named_subscribers:Closes", "arguments": {"path": str(touched)}, "scope": None},
    )
    segment.close()
    assert relay_mp.recover(path, str(recovered)) is None
    assert not touched.exists()
    assert not os.path.exists(path)


@pytest.fixture
def given_up(directory):
    """The path of a session of this very process that was closed with a stuck subscriber, so with all 5 left."""
    entered, opened = threading.Event(), threading.Event()

    def hold(_event):
        entered.set()
        assert opened.wait(WAIT_SECONDS)

    session = relay_mp.session(directory=directory)
    subscribers.register("hold", hold)
    scope.event("0")
    assert entered.wait(WAIT_SECONDS)
    for i in range(1, 5):
        scope.event(f"{i}")
    session.close(timeout=0)
    yield session.path
    opened.set()
    session._host._thread.join()


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_the_owner_itself_recovers_what_its_close_left(given_up, recovered, kind):
    assert relay_mp.recover(kind(given_up), kind(recovered)) == str(recovered)
    assert names(recovered) == [f"{i}" for i in range(5)]
    assert not os.path.exists(given_up)


def test_the_owners_next_session_recovers_what_its_close_left(given_up, directory, recovered):
    sweep(directory, recovered)
    (file,) = recovered.iterdir()
    assert names(file) == [f"{i}" for i in range(5)]
    assert not os.path.exists(given_up)


def test_an_unfinished_segment_of_a_dead_maker_is_removed(directory, recovered, run_script):
    name = os.path.basename(die(run_script, directory, 0))
    (directory / name).write_bytes(bytes(8192))
    sweep(directory, recovered)
    assert list(directory.iterdir()) == []


def test_a_damaged_segment_is_kept_and_told(directory, recovered, run_script, caplog):
    path = die(run_script, directory, 5, "stuck")
    os.truncate(path, 8192)
    sweep(directory, recovered)
    assert os.path.exists(path)
    (record,) = caplog.records
    assert f"could not sweep {path}" in record.getMessage()
    assert "truncated" in record.getMessage()


def test_what_is_no_segment_by_its_name_is_left_alone(directory, recovered, caplog):
    for name in ("other", f"relay_mp-{os.geteuid()}-x", f"relay_mp-{os.geteuid() + 1}-0-0-0-0"):
        (directory / name).write_text("mine")
    sweep(directory, recovered)
    assert len(list(directory.iterdir())) == 3
    assert caplog.records == []


def test_a_segment_of_an_earlier_boot_is_dead():
    assert naming.maker(f"/dev/shm/relay_mp-{os.geteuid()}-00000000-1-1-0") == (0, 0, 0)


def test_a_session_that_closed_in_time_leaves_nothing(directory, recovered):
    sweep(directory, recovered)
    assert list(directory.iterdir()) == []
