"""Attaching: by handle, by itself, and to what should not be attached to."""

import concurrent.futures
import multiprocessing
import os
import struct

import pytest

import relay_mp
from relay_mp import scope, subscribers
from relay_mp._native import core
from relay_mp._native.segments import Segment
from relay_mp._session.membership import current_session

# Where the header has them: see layout.h.
MAGIC_AT, VERSION_AT, BYTES_AT, CAPACITY_AT = 0, 8, 16, 24


def emit(name):
    scope.event(name)
    return os.getpid()


# ---- what works ----


def test_attaching_twice_is_once(session):
    assert relay_mp.attach(session.handle) is session
    assert relay_mp.attach(session.path) is session


@pytest.mark.parametrize("method", ["forkserver", "fork", "spawn"])
def test_attach_is_a_pools_initializer(session, seen, method):
    context = multiprocessing.get_context(method)
    with context.Pool(2, initializer=relay_mp.attach, initargs=(session.handle,)) as pool:
        pids = set(pool.map(emit, ["a", "b", "c"]))
        pool.close()
        pool.join()
    with concurrent.futures.ProcessPoolExecutor(
        1, mp_context=context, initializer=relay_mp.attach, initargs=(session.handle,)
    ) as executor:
        pids.add(executor.submit(emit, "d").result())
    subscribers.flush()
    assert sorted(event.name for event in seen) == ["a", "b", "c", "d"]
    assert {event.pid for event in seen} == pids


def test_a_process_without_the_variable_attaches_by_the_handle(session, seen, run_script):
    run_script(
        """
import sys
import relay_mp
from relay_mp import scope
scope.event("nobody's")
session = relay_mp.attach(relay_mp.SessionHandle(sys.argv[1]))
assert not session.is_owner
assert session.settings is None
scope.event("m")
session.close()
scope.event("nobody's either")
""",
        session.path,
        environment={"RELAY_MP_SESSION": ""},
    )
    subscribers.flush()
    assert [event.name for event in seen] == ["m"]
    assert os.path.exists(session.path)


def test_an_owner_attaches_to_no_other(session, run_script, tmp_path):
    with pytest.raises(relay_mp.SessionError, match="this process owns the session of .*; close it before attaching"):
        relay_mp.attach(str(tmp_path / "other"))
    assert current_session() is session


def test_an_attached_process_changes_to_another_session(run_script, tmp_path):
    out = run_script(
        """
import os, sys
import relay_mp
from relay_mp import scope, subscribers
def owner():
    ask, answer = os.pipe(), os.pipe()
    if os.fork() == 0:
        names = []
        session = relay_mp.session()
        subscribers.register("x", lambda event: names.append(event.name))
        os.write(answer[1], session.path.encode())
        os.read(ask[0], 1)
        session.close()
        os.write(answer[1], " ".join(names).encode())
        os._exit(0)
    return ask[1], answer[0], os.read(answer[0], 4096).decode()
owners = [owner(), owner()]
for ask, answer, path in owners:
    relay_mp.attach(path)
    scope.event("for " + path[-4:])
for ask, answer, path in owners:
    os.write(ask, b"x")
    print(os.read(answer, 4096).decode() == "for " + path[-4:])
    os.wait()
"""
    ).stdout
    assert out == "True\nTrue\n"


def leave():
    """What a worker does that leaves the session before it ends."""
    scope.event("before")
    relay_mp.shutdown()
    scope.event("after")
    with scope.scope("after", relay_mp.ScopeType.Agent):
        pass


@pytest.mark.parametrize("method", ["forkserver", "fork", "spawn"])
def test_a_worker_that_has_left_the_session_stays_outside(session, seen, method):
    worker = multiprocessing.get_context(method).Process(target=leave)
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    subscribers.flush()
    assert [event.name for event in seen] == ["before"]


@pytest.mark.parametrize("handle", [None, 5])
def test_what_is_no_handle_is_a_type_error(session, handle):
    with pytest.raises(TypeError, match=type(handle).__name__):
        relay_mp.attach(handle)
    assert session.is_open


def test_a_session_that_has_ended_cannot_be_attached(run_script):
    with relay_mp.session() as session:
        handle = session.handle
    with pytest.raises(relay_mp.SegmentError, match=f"there is no segment {handle.path}: its session has ended"):
        relay_mp.attach(handle)
    assert current_session() is None


def test_a_child_that_outlives_the_session_emits_into_nothing(run_script):
    out = run_script(
        """
import os
import relay_mp
from relay_mp import scope, subscribers
done, go = os.pipe(), os.pipe()
session = relay_mp.session()
subscribers.register("x", id)
pid = os.fork()
if pid == 0:
    scope.event("m")
    os.write(done[1], b"x")
    os.read(go[0], 1)
    scope.event("too late", data=object())
    try:
        relay_mp.attach(session.handle)
    except relay_mp.SegmentError as error:
        print("ended" in str(error), flush=True)
    os._exit(0)
os.read(done[0], 1)
session.close()
os.write(go[1], b"x")
print(os.waitpid(pid, 0)[1], session.stats().emitted)
"""
    ).stdout
    assert out == "True\n0 1\n"


# ---- what is refused ----


@pytest.fixture
def segment(tmp_path):
    """A segment file that would be attached, to be damaged."""
    path = str(tmp_path / "segment")
    made = Segment.create(
        path,
        session_id="x",
        ring_bytes=65536,
        max_producers=4,
        max_event_bytes=8192,
        subscriptions_bytes=4096,
        configuration_bytes=4096,
        block_timeout_ns=0,
        stall_timeout_ns=0,
        drop_when_full=True,
        dispatcher_is_process=False,
    )
    made.close()
    Segment.attach(path).close()
    return path


def refused(path, said):
    with pytest.raises(relay_mp.SegmentError) as caught:
        relay_mp.attach(str(path))
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert current_session() is None
    assert "RELAY_MP_SESSION" not in os.environ


def overwrite(path, at, layout, value):
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(struct.pack(layout, value))


def test_a_missing_one_is_refused(tmp_path):
    refused(tmp_path / "none", "there is no segment")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_foreign_one_is_refused(segment):
    os.chown(segment, 12345, -1)
    refused(segment, "belongs to another user; only segments of the own uid are attached")


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o700])
def test_one_that_others_could_touch_is_refused(segment, mode):
    os.chmod(segment, mode)
    refused(segment, "is not a regular file of mode 0600")


def test_a_symlink_is_refused(segment, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(segment)
    refused(link, "failed: Too many levels of symbolic links")


def test_a_directory_is_refused(tmp_path):
    refused(tmp_path, "failed: Is a directory")


@pytest.mark.parametrize("size", [0, 100, 4095, 4096, 8192, -64])
def test_a_truncated_one_is_refused(segment, size):
    os.truncate(segment, size if size >= 0 else os.path.getsize(segment) + size)
    refused(segment, "is shorter than its header says; it was truncated or is still being made")


def test_one_that_is_too_long_is_refused(segment):
    os.truncate(segment, os.path.getsize(segment) + 4096)
    refused(segment, "sizes in its header that contradict")


def test_what_is_no_segment_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"something else" * 1000)
    path.chmod(0o600)
    refused(path, "is not a relay_mp segment, or not a finished one")


def test_one_of_another_version_is_refused(segment):
    overwrite(segment, VERSION_AT, "<I", core.LAYOUT_VERSION + 1)
    versions = core.LAYOUT_VERSION + 1, core.LAYOUT_VERSION
    found = "has layout version {}; this relay_mp has another layout version, {}".format(*versions)
    refused(segment, f"{found}: use one relay_mp version")


@pytest.mark.parametrize("capacity", [0, 63, 65, 1 << 40, (1 << 64) - 1])
def test_impossible_sizes_are_refused(segment, capacity):
    overwrite(segment, CAPACITY_AT, "<Q", capacity)
    refused(segment, "sizes in its header that contradict")


@pytest.mark.parametrize("damage", [lambda path: os.truncate(path, 100), os.unlink])
def test_a_child_whose_parents_segment_is_no_good_emits_into_nothing(segment, damage, run_script):
    damage(segment)
    out = run_script(
        """
from relay_mp import scope, subscribers
scope.event("m", data=object())
found = []
subscribers.register("x", found.append)
scope.event("own")
subscribers.flush()
print(len(found))
""",
        environment={"RELAY_MP_SESSION": segment},
    ).stdout
    assert out == "1\n"


@pytest.mark.parametrize("text", ["{", '{"stack":"zz"}', "x" * 100_000])
def test_a_malformed_inherited_scope_is_ignored_with_a_warning(session, seen, run_script, text):
    result = run_script("from relay_mp import scope; scope.event('m')", environment={"RELAY_MP_SCOPE": text})
    subscribers.flush()
    assert [event.name for event in seen] == ["m"]
    assert "RELAY_MP_SCOPE is ignored" in result.stderr
