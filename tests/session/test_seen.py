"""`relay_mp.sessions()`: what other processes of this user see of the sessions that live."""

import os
import re
import struct
import sys
import time
from datetime import UTC, datetime

import pytest

import relay_mp
from relay_mp import scope, subscribers
from relay_mp._native import core
from relay_mp._native.segments import OWNER_ARGV_BYTES, Segment
from relay_mp._session import seen

VERSION_AT = 8

LOOK = """
import json, sys
import relay_mp
for info in relay_mp.sessions(sys.argv[1]):
    counts = [info.emitted, info.delivered, info.lost]
    print(json.dumps([info.id, info.owner_pid, info.owner_argv, info.processes, *counts]))
"""

OWNS = """
import os, signal, sys
import relay_mp
from relay_mp import scope, subscribers
with relay_mp.session(directory=sys.argv[1]) as session:
    subscribers.register("x", id)
    scope.event("m")
    subscribers.flush()
    print(session.path, flush=True)
    sys.stdin.read()
"""

DIES = """
import os, signal, sys
import relay_mp
from relay_mp import scope, subscribers
session = relay_mp.session(directory=sys.argv[1])
subscribers.register("x", lambda event: signal.pause())
scope.event("m")
print(session.path, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def directory(tmp_path):
    return str(tmp_path)


@pytest.fixture
def here(directory):
    """A session in a directory in which there is no other."""
    with relay_mp.session(directory=directory, ring_bytes=1 << 20) as session:
        yield session


def only(directory, **options):
    (info,) = relay_mp.sessions(directory, **options)
    return info


def test_a_session_says_who_owns_it_since_when_and_what_it_has(here, directory):
    before = datetime.now(UTC)
    subscribers.register("x", id)
    for _ in range(3):
        scope.event("m")
    subscribers.flush()
    info = only(directory)
    assert (info.id, info.path, info.owner_pid) == (here.id, here.path, os.getpid())
    assert info.owner_argv[: len(sys.orig_argv)] == tuple(sys.orig_argv)[: len(info.owner_argv)]
    assert 0 <= (before - info.started).total_seconds() < 3600
    assert (info.state, info.dispatcher, info.problem) == ("open", "thread", None)
    assert info.processes == (os.getpid(),)
    assert (info.emitted, info.delivered, info.lost, info.causes) == (3, 3, 0, {})
    assert (info.ring_bytes, info.handle) == (1 << 20, here.handle)


def test_counts_are_those_of_stats_requests_are_no_events(directory, run_script):
    with relay_mp.session(directory=directory, dispatcher="process") as session:
        subscribers.register("x", "builtins:id")
        scope.event("m")
        session.flush()
        info, stats = only(directory), session.stats()
        assert (info.emitted, info.delivered, info.lost) == (stats.emitted, stats.delivered, stats.lost) == (1, 1, 0)
        assert len(info.processes) == 2


def test_another_process_sees_it_and_is_not_seen(here, directory, run_script):
    subscribers.register("x", id)
    scope.event("m")
    subscribers.flush()
    out = run_script(LOOK, directory, environment={"RELAY_MP_SESSION": ""}).stdout
    assert out.count("\n") == 1
    assert f'["{here.id}", {os.getpid()}' in out
    assert f"[{os.getpid()}], 1, 1, 0]" in out
    assert [process.pid for process in here.stats().processes] == [os.getpid()]


def test_looking_needs_no_numpy_and_takes_no_slot(here, directory, run_script):
    code = f"{LOOK}\nassert not {{'numpy', 'psutil'}} & set(sys.modules)"
    run_script(code, directory, environment={"RELAY_MP_SESSION": ""})
    assert set(here._segment.slot_statuses()) == {0}


def test_of_a_session_that_has_ended_nothing_is_seen(directory):
    with relay_mp.session(directory=directory):
        assert len(relay_mp.sessions(directory)) == 1
    assert relay_mp.sessions(directory) == []
    assert relay_mp.sessions(directory, left=True) == []


def test_what_a_killed_owner_left_is_seen_if_one_asks(directory, run_script):
    path = run_script(DIES, directory, returncode=-9).stdout.strip()
    assert relay_mp.sessions(directory) == []
    info = only(directory, left=True)
    assert (info.path, info.state, info.processes) == (path, "left", ())
    assert info.emitted == 1
    relay_mp.recover(path, os.path.join(directory, "rest.jsonl"))
    assert relay_mp.sessions(directory, left=True) == []


def test_names_that_are_no_sessions_are_passed_over(here, directory):
    with open(f"{here.path}x", "wb") as file:
        file.write(b"nothing")
    os.chmod(f"{here.path}x", 0o600)
    infos = {info.path: info for info in relay_mp.sessions(directory)}
    assert infos[here.path].problem is None
    assert "shorter than its header" in infos[f"{here.path}x"].problem  # its name says that this process makes it
    os.unlink(f"{here.path}x")


def test_one_of_another_layout_says_what_was_found_what_was_expected_and_what_to_do(here, directory):
    with open(here.path, "r+b") as file:
        file.seek(VERSION_AT)
        file.write(struct.pack("<I", core.LAYOUT_VERSION - 1))
    info = only(directory)
    assert (info.state, info.id, info.owner_pid) == ("unreadable", here.id, os.getpid())
    versions = core.LAYOUT_VERSION - 1, core.LAYOUT_VERSION
    expected = "has layout version {}; this relay_mp has another layout version, {}: use one".format(*versions)
    assert expected in info.problem
    with pytest.raises(relay_mp.SegmentError, match=re.escape(expected)):
        seen.find(None, directory)
    with open(here.path, "r+b") as file:
        file.seek(VERSION_AT)
        file.write(struct.pack("<I", core.LAYOUT_VERSION))


@pytest.mark.parametrize("excess", [-1, 0, 1, 5000])
def test_the_command_line_is_kept_up_to_its_bound(tmp_path, excess):
    argv = b"a\0" + b"b" * (OWNER_ARGV_BYTES - 2 + excess)
    segment = Segment.create(
        str(tmp_path / "segment"), session_id="s", ring_bytes=1 << 16, max_producers=4, max_event_bytes=4096,
        subscriptions_bytes=4096, configuration_bytes=4096, block_timeout_ns=0, stall_timeout_ns=0,
        drop_when_full=False, dispatcher_is_process=False, owner_argv=argv,
    )  # fmt: skip
    try:
        kept, is_whole = segment.owner_argv
        assert (kept, is_whole) == (argv[:OWNER_ARGV_BYTES], excess <= 0)
        assert seen._arguments(kept, is_whole)[0] == "a"
        assert seen._arguments(kept, is_whole)[2:] == (() if excess <= 0 else ("...",))
        assert abs(segment.started_us - time.time() * 1e6) < 3600e6
    finally:
        segment.close()
        segment.unlink()


def test_the_segment_is_readable_by_its_user_only(here):
    assert os.stat(here.path).st_mode & 0o777 == 0o600


# ---- which one is meant ----


@pytest.mark.parametrize(
    "named", [lambda s: s.handle, lambda s: s.path, lambda s: s.id, lambda s: s.id[:-2], lambda s: s.id.split("-")[-1]]
)
def test_a_session_is_found_by_its_handle_path_or_an_ids_beginning(here, directory, named):
    assert seen.find(named(here), directory) == here.path


def test_a_session_is_found_by_its_owners_pid_or_as_the_only_one(here, directory):
    assert seen.find(os.getpid(), directory) == seen.find(str(os.getpid()), directory) == here.path
    assert seen.find(None, directory) == here.path


def test_without_a_session_the_error_says_what_to_do(directory):
    with pytest.raises(relay_mp.SessionError, match="no living session of this user; start one, or name its directory"):
        seen.find(None, directory)


def test_of_several_sessions_the_error_lists_them(here, directory, run_script, tmp_path):
    code = OWNS.replace(
        "    sys.stdin.read()",
        f"""
    from relay_mp._session import seen
    for session in (None, "nonsense"):
        try:
            seen.find(session, {directory!r})
        except relay_mp.SessionError as error:
            print(error)
""",
    )
    out = run_script(code, directory, environment={"RELAY_MP_SESSION": ""}).stdout
    several, none = out.splitlines()[1:]
    assert several.startswith("there are 2 living sessions; name one of them: ")
    assert none.startswith("there is no living session that 'nonsense' names; there are: ")
    assert all(here.id in line and f"of process {os.getpid()} (" in line for line in (several, none))


@pytest.mark.parametrize("wrong", [1.5, True, ["a"]])
def test_what_names_no_session_is_a_type_error(wrong, directory):
    with pytest.raises(TypeError, match="expected a SessionHandle, a path, an id's beginning, a pid or None"):
        seen.find(wrong, directory)
