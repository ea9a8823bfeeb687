"""What is short: descriptors, disks, the directory of the output. A clear error or a counted failure, and the
application goes on; nothing half-written is taken for whole."""

import json
import os
import shutil
import signal

import named_subscribers
import pytest

import relay_mp
from relay_mp import scope, subscribers
from relay_mp.testing import assert_no_loss

pytestmark = pytest.mark.timeout(150)

# ------------------------------------------------------------------------------------- out of descriptors

EXHAUST = """
import os, resource
held = []
def exhaust():
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        pass
def relent():
    while held:
        os.close(held.pop())
"""


def test_emitting_needs_no_descriptor(run_script):
    code = (
        EXHAUST
        + """
import threading
import relay_mp
from relay_mp import scope, subscribers
with relay_mp.session() as session:
    seen = []
    subscribers.register("x", seen.append)
    subscribers.flush()  # loads NumPy
    exhaust()
    def emit():
        for i in range(100):
            scope.event("m")
    threads = [threading.Thread(target=emit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pid = os.fork()
    if not pid:
        emit()
        os._exit(0)
    print(os.waitpid(pid, 0)[1], subscribers.flush().lost, len(seen))
    relent()
"""
    )
    assert run_script(code).stdout == "0 0 500\n"


def test_attaching_without_a_descriptor_is_a_clear_error_that_harms_nobody(run_script):
    """A worker that finds its session so goes on with its own work, outside it; `attach` says why."""
    code = (
        EXHAUST
        + """
import subprocess, sys
import relay_mp
from relay_mp import scope, subscribers
with relay_mp.session() as session:
    seen = []
    subscribers.register("x", lambda event: seen.append(event.name))
    worker = r'''
import resource, sys
import relay_mp
from relay_mp import scope
exec(sys.argv[1])
exhaust()
try:
    relay_mp.attach(sys.argv[2])
except relay_mp.SegmentError as error:
    relent()
    print(error)
else:
    print("attached")
relay_mp.attach(sys.argv[2])
scope.event("attached later")
'''
    command = [sys.executable, "-c", worker, sys.argv[1], session.path]
    print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="")
    by_itself = "import sys; from relay_mp import scope; exec(sys.argv[1]); exhaust(); scope.event('m'); print('on')"
    command = [sys.executable, "-c", by_itself, sys.argv[1]]
    print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="")
    subscribers.flush()
    print(seen)
"""
    )
    first, *rest = run_script(code, EXHAUST).stdout.splitlines()
    assert "attaching to" in first
    assert "Too many open files" in first
    assert rest == ["on", "['attached later']"]


def test_the_dead_are_found_when_there_is_a_descriptor_again(run_script):
    """While it can look at no process, the dispatcher takes none for dead, and delivers on."""
    code = (
        EXHAUST
        + """
import os, signal, time
import relay_mp
from relay_mp import scope, subscribers
from relay_mp._native import core
with relay_mp.session() as session:
    names = []
    subscribers.register("x", lambda event: names.append(event.name))
    subscribers.flush()  # loads NumPy
    pid = os.fork()
    if not pid:
        scope.event("of the dead")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    exhaust()
    for name in "first", "second":
        session._host._dispatcher._next_scan = 0.0  # it looks at once
        scope.event(name)
        subscribers.flush()
    relent()
    live = lambda: session._segment.slot_statuses().count(core.SLOT_LIVE)
    deadline = time.monotonic() + 30
    while live() > 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    print(names, live())
"""
    )
    assert run_script(code).stdout == "['of the dead', 'first', 'second'] 1\n"


def test_a_session_without_a_descriptor_is_a_clear_error_and_leaves_nothing(run_script, tmp_path):
    code = (
        EXHAUST
        + """
import sys
import relay_mp
for dispatcher in ("thread", "process"):
    exhaust()
    try:
        relay_mp.session(directory=sys.argv[1], dispatcher=dispatcher, strict=True)
    except relay_mp.RelayError as error:
        relent()
        print(type(error).__name__, error)
    held.clear()
with relay_mp.session(directory=sys.argv[1]):
    pass
"""
    )
    out = run_script(code, tmp_path).stdout.splitlines()
    assert len(out) == 2
    assert all("Too many open files" in line for line in out)
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------- out of disk


def test_a_segment_that_has_no_room_is_a_clear_error_and_leaves_nothing(small_disk):
    with pytest.raises(relay_mp.SegmentError, match="no room for .* make the ring smaller"):
        relay_mp.session(directory=small_disk, strict=True)
    assert list(small_disk.iterdir()) == []
    assert "RELAY_MP_SESSION" not in os.environ


def test_recovering_to_a_full_disk_keeps_the_rest_and_goes_on_elsewhere(run_script, small_disk, tmp_path):
    """Each event is in one of the two files, whole; none is in both."""
    segments = tmp_path / "segments"
    segments.mkdir()
    done = run_script(
        """
import os, signal, sys
import relay_mp
from relay_mp import scope, subscribers
session = relay_mp.session(directory=sys.argv[1])
subscribers.register("x", lambda event: signal.pause())
for i in range(1000):
    scope.event(f"{i}", data={"text": "x" * 100})
print(session.path, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
""",
        segments,
        returncode=-signal.SIGKILL,
    )
    path = done.stdout.strip()
    first, second = small_disk / "first.jsonl", tmp_path / "second.jsonl"
    with pytest.raises(relay_mp.SessionError, match="not all events could be written .* the rest stays in"):
        relay_mp.recover(path, first)
    assert os.path.exists(path)
    assert relay_mp.recover(path, second) == str(second)
    assert not os.path.exists(path)
    names = [[json.loads(line)["name"] for line in file.read_text().splitlines()] for file in (first, second)]
    assert names[0]
    assert [*names[0], *names[1]] == [f"{i}" for i in range(1000)]


def test_an_output_directory_that_goes_away_is_no_concern_of_the_application(session, tmp_path):
    """The file is open: the exporter writes on; emits, other subscribers and the close do not notice."""
    folder = tmp_path / "gone"
    names = []
    subscribers.register("x", lambda event: names.append(event.name))
    config = relay_mp.AtofExporterConfig()
    config.output_directory, config.filename = str(folder), "events.jsonl"
    exporter = relay_mp.AtofExporter(config)
    exporter.register("file")
    scope.event("0")
    subscribers.flush()
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    scope.event("1")
    subscribers.flush()
    assert names == ["0", "1"]
    assert_no_loss(session)
    assert session.stats().subscriber_errors == 0
    exporter.shutdown()


def test_an_output_directory_that_is_gone_when_the_dispatcher_dies_is_made_again(tmp_path):
    """The next dispatcher opens the file anew; the stream is whole in the two files together."""
    folder = tmp_path / "gone"
    config = relay_mp.AtofExporterConfig()
    config.output_directory, config.filename = str(folder), "events.jsonl"
    exporter = relay_mp.AtofExporter(config)
    with relay_mp.session(dispatcher="process") as session:
        exporter.register("file")
        scope.event("0")
        subscribers.flush()
        first = (folder / "events.jsonl").read_text()
        shutil.rmtree(folder)
        os.kill(session._segment.lease()[1], signal.SIGKILL)
        scope.event("1")
        subscribers.flush()
        assert_no_loss(session)
    second = (folder / "events.jsonl").read_text()
    assert [json.loads(line)["name"] for line in (first + second).splitlines()] == ["0", "1"]


def test_an_output_directory_that_cannot_be_made_again_is_told_and_the_others_go_on(tmp_path, capfd):
    """A file stands where it was: a line in the log says so, what it misses is counted, and the others go on."""
    folder = tmp_path / "gone"
    config = relay_mp.AtofExporterConfig()
    config.output_directory, config.filename = str(folder), "events.jsonl"
    with relay_mp.session(dispatcher="process") as session:
        relay_mp.AtofExporter(config).register("file")
        subscribers.register("x", "named_subscribers:Lines", arguments={"path": str(tmp_path / "lines")})
        shutil.rmtree(folder)
        folder.write_text("in the way")
        os.kill(session._segment.lease()[1], signal.SIGKILL)
        scope.event("1")
        subscribers.flush()
        assert_no_loss(session)
    assert named_subscribers.names(tmp_path / "lines") == ["1"]
    said = capfd.readouterr().err
    assert "subscriber 'file' could not be made again after a restart of the dispatcher" in said
    assert "exporter 'file' lost 1 of 1 (absent 1)" in said
    assert folder.read_text() == "in the way"
