"""A ring whose tail was destroyed: what can be read is delivered, it is said once, and nobody waits or tries again."""

import json
import os
import signal
import struct

import pytest
import step_subscribers

import relay_mp
from relay_mp import scope, subscribers
from relay_mp._native import core
from relay_mp._native.segments import Segment
from relay_mp._session.recovery import sweep

TAIL_AT, READ_POS_AT = 256, 384
GARBAGE = 1 << 40


def write_word(path, at, value):
    with open(path, "r+b", buffering=0) as file:
        file.seek(at)
        file.write(struct.pack("<Q", value))


@pytest.fixture
def broken(tmp_path, capfd):  # capfd: what is said from here on
    """A session with a dispatcher process whose tail was destroyed behind ten events, and what the process saw."""
    ledger = tmp_path / "ledger"
    with relay_mp.session(dispatcher="process", directory=str(tmp_path), block_timeout_seconds=3600) as session:
        subscribers.register("x", "step_subscribers:Ledger", arguments={"path": str(ledger)})
        dispatcher = session._segment.lease()[1]
        os.kill(dispatcher, signal.SIGSTOP)
        for n in range(10):
            scope.event(f"{n}")
        write_word(session.path, TAIL_AT, GARBAGE)
        os.kill(dispatcher, signal.SIGCONT)
        assert session._host._ended.wait(60)  # nobody starts another
        yield session, ledger


def test_what_can_be_read_is_delivered_and_it_is_said_once(broken, capfd):
    session, ledger = broken
    with pytest.raises(relay_mp.FlushError, match="was damaged beyond reading"):
        subscribers.flush()
    for _ in range(5):
        scope.event("too late")
    session.close()
    assert [name for _, _, _, name, _ in step_subscribers.read(ledger)] == [f"{n}" for n in range(10)]
    stats = session.stats()
    assert (stats.emitted, stats.delivered, stats.lost, stats.causes) == (15, 10, 5, {"corrupt": 5})
    assert not os.path.exists(session.path)
    said = capfd.readouterr().err
    assert said.count("damaged beyond reading") == 1
    assert "starting another" not in said
    assert "15 events emitted, 10 delivered, 5 lost (corrupt 5)" in said
    assert "relay_mp.recover" not in said


def test_the_next_session_works(broken):
    session, _ = broken
    with pytest.raises(relay_mp.FlushError):
        session.flush(3600)
    session.close()
    names = []
    with relay_mp.session():
        subscribers.register("seen", lambda event: names.append(event.name))
        scope.event("m")
        assert subscribers.flush().lost == 0
    assert names == ["m"]


OWNER = """
import os, signal, struct, sys
import relay_mp
from relay_mp import scope, subscribers
session = relay_mp.session(directory=sys.argv[1])
subscribers.register("x", lambda event: signal.pause())
for n in range(10):
    scope.event(f"{n}")
with open(session.path, "r+b", buffering=0) as file:
    for at in map(int, sys.argv[2:]):
        file.seek(at)
        file.write(struct.pack("<Q", 1 << 40 | at << 42))
print(session.path, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def segments(tmp_path):
    folder = tmp_path / "segments"
    folder.mkdir()
    return folder


def leave(run_script, segments, *words):
    """The segment of a killed owner, with those words of its header destroyed."""
    return run_script(OWNER, segments, *words, returncode=-signal.SIGKILL).stdout.strip()


def test_what_a_killed_owner_left_without_a_tail_is_recovered(run_script, segments, tmp_path):
    path, file = leave(run_script, segments, TAIL_AT), tmp_path / "file.jsonl"
    assert relay_mp.recover(path, file) == str(file)
    assert [json.loads(line)["name"] for line in file.read_text().splitlines()] == [f"{n}" for n in range(10)]
    assert not os.path.exists(path)


def test_what_cannot_be_read_at_all_is_said_once_and_removed(run_script, segments, tmp_path, caplog):
    path = leave(run_script, segments, TAIL_AT, READ_POS_AT)
    assert sweep(str(segments), str(tmp_path)) == []
    assert any("nothing of it is left, and it is removed" in record.getMessage() for record in caplog.records)
    assert not os.path.exists(path)
    caplog.clear()
    assert sweep(str(segments), str(tmp_path)) == []
    assert caplog.records == []


def test_recovering_what_cannot_be_read_at_all_is_an_error(run_script, segments, tmp_path):
    path = leave(run_script, segments, TAIL_AT, READ_POS_AT)
    with pytest.raises(relay_mp.SegmentError, match="damaged beyond reading: nothing of it is left, and it is removed"):
        relay_mp.recover(path, tmp_path / "file.jsonl")
    assert not os.path.exists(path)


def test_a_broken_session_stays_broken_until_it_is_closed(tmp_path):
    segment = Segment.create(
        str(tmp_path / "segment"), session_id="broken", ring_bytes=1 << 16, max_producers=2, max_event_bytes=4096,
        subscriptions_bytes=0, configuration_bytes=0, block_timeout_ns=0, stall_timeout_ns=0, drop_when_full=False,
        dispatcher_is_process=False,
    )  # fmt: skip
    segment.mark_broken()
    for state in (core.STATE_OPEN, core.STATE_CLOSING):
        segment.set_state(state)
        assert segment.state == core.STATE_BROKEN
    segment.set_state(core.STATE_CLOSED)
    assert segment.state == core.STATE_CLOSED
    segment.close()
    segment.unlink()
