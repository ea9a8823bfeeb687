"""The ATOF file of a dispatcher that is killed while lines are in it, or half in it, of what it has not delivered.

A subscriber stands still at a mark while the events behind it gather, so that they come in runs.
"""

import json
import os
import random
import signal
import time

import named_subscribers
import pytest
import step_subscribers
from ahead import LOSS, PROCESS, Hold, emit, numbers

import relay_mp
from relay_mp import AtofExporter, AtofExporterConfig, scope, subscribers
from relay_mp._deliver.dispatcher import RUN_EVENTS
from relay_mp._deliver.file_lock import NOTED_FILES
from relay_mp._deliver.jsonl import LOOKED_FOR_LINES, MAX_WRITE_BYTES, JsonlFile
from relay_mp.observability.atof.exporter import atof_file
from relay_mp.observability.export.base import Exporter


def names(directory):
    """Of all lines, those of files that were put aside first; each file has whole lines only."""
    found = []
    for path in [*sorted(directory.glob("events-*.jsonl")), directory / "events.jsonl"]:
        text = path.read_text()
        assert text == "" or text.endswith("\n")
        found += [json.loads(line)["name"] for line in text.splitlines()]
    return found


def exporter_of(directory, **settings):
    config = AtofExporterConfig()
    config.output_directory, config.filename = str(directory), "events.jsonl"
    for name, value in settings.items():
        setattr(config, name, value)
    return AtofExporter(config)


def check_report(session, lines):
    """Each line is counted once, and nothing else is."""
    report = session.stats().exporters["file"]
    assert (report.taken, report.exported, report.lost) == (lines, lines, 0)


# ------------------------------------------------------------------------------- killed, by itself or a neighbour


@PROCESS
@pytest.mark.parametrize(("where", "rotate_bytes"), [("before", 0), ("torn", 0), ("behind", 0), ("behind", 6000)])
def test_killed_at_a_write_of_many_lines_no_line_is_missing_torn_or_twice(session, tmp_path, where, rotate_bytes):
    directory, strikes = tmp_path / "out", tmp_path / "strikes"
    directory.mkdir()
    arguments = {"path": str(directory / "events.jsonl"), "rotate_bytes": rotate_bytes, "session_id": session.id}
    exporter = Exporter(
        [("run_subscribers:DyingFile", {**arguments, "strikes": str(strikes), "where": where, "deaths": 2})]
    )
    exporter.register("file")
    subscribers.register("x", "step_subscribers:Ledger", arguments={"path": str(tmp_path / "ledger")})
    with Hold(tmp_path):
        emit(400)
    exporter.force_flush()
    exporter.shutdown()
    assert len(strikes.read_text().splitlines()) == 2
    assert min(map(int, strikes.read_text().split())) > 10
    assert names(directory) == ["hold", *numbers(400)]
    assert [event[3] for event in step_subscribers.read(tmp_path / "ledger")] == ["hold", *numbers(400)]
    check_report(session, 401)


@PROCESS
@pytest.mark.parametrize("at", [RUN_EVENTS // 2, 3 * RUN_EVENTS])
def test_killed_by_a_callback_while_lines_are_ahead_the_file_has_each_once(session, tmp_path, at):
    exporter = exporter_of(tmp_path / "out")
    exporter.register("file")
    subscribers.register("dies", "named_subscribers:Dies", arguments={"path": str(tmp_path / "seen")})
    with Hold(tmp_path):
        emit(at)
        scope.event("die")
        emit(200)
    exporter.force_flush()
    exporter.shutdown()
    expected = ["hold", *numbers(at), "die", *numbers(200)]
    assert names(tmp_path / "out") == expected
    seen = [fields[0::2] for fields in named_subscribers.read(tmp_path / "seen")]
    again = expected.index("die") + 1
    assert [name for name, _ in seen] == [*expected[:again], "die", *expected[again:]]
    assert [redelivered for _, redelivered in seen] == [number == again for number in range(len(seen))]
    check_report(session, len(expected))


@PROCESS
@pytest.mark.parametrize("again", [0, 3])
def test_killed_while_lines_are_ahead_in_a_file_that_was_moved_each_is_there_once(session, tmp_path, again):
    """As logrotate moves it just then: the successor, and that one's, find the lines in the moved files."""
    exporter = exporter_of(tmp_path / "out")
    exporter.register("file")
    arguments = {"path": str(tmp_path / "seen"), "file": str(tmp_path / "out" / "events.jsonl")}
    subscribers.register("dies", "named_subscribers:MovesAndDies", arguments=arguments)
    expected = ["hold", *numbers(10), "die", *numbers(again), *["die"] * bool(again), *numbers(200)]
    with Hold(tmp_path):
        emit(10)
        scope.event("die")
        if again:
            emit(again)
            scope.event("die")
        emit(200)
    exporter.force_flush()
    exporter.shutdown()
    assert names(tmp_path / "out") == expected
    assert len(list((tmp_path / "out").glob("events-*.jsonl"))) == (2 if again else 1)
    check_report(session, len(expected))


@PROCESS
@pytest.mark.parametrize("rotate_bytes", [0, 4000])
def test_an_event_that_is_given_up_leaves_each_line_once(session, tmp_path, rotate_bytes):
    """The lines behind it were written ahead of it: the mark of its loss comes behind them, or in the next file."""
    exporter = exporter_of(tmp_path / "out", rotate_bytes=rotate_bytes)
    exporter.register("file")
    arguments = {"path": str(tmp_path / "ledger"), "kills": "kills"}
    subscribers.register("poisoned", "step_subscribers:Poisoned", arguments=arguments)
    with Hold(tmp_path):
        emit(5)
        scope.event("kills")
        emit(300)
    exporter.force_flush()
    exporter.shutdown()
    found = names(tmp_path / "out")
    assert [name for name in found if name != LOSS] == ["hold", *numbers(5), "kills", *numbers(300)]
    assert found.count(LOSS) == 1
    assert found.index(LOSS) <= RUN_EVENTS + 1
    assert [event[3] for event in step_subscribers.read(tmp_path / "ledger") if event[3] != "kills"] == [
        *["hold", *numbers(5), LOSS, *numbers(300)]
    ]
    assert session.stats().causes == {"poison": 1}
    report = session.stats().exporters["file"]
    assert report.exported == len(found)


@PROCESS
def test_what_a_callback_registers_while_lines_are_ahead_spoils_no_count(session, tmp_path):
    """Each registration writes the exporters' counts down, for a successor; the next callback kills."""
    exporter = exporter_of(tmp_path / "out")
    exporter.register("file")
    for name, kind in (("changes", "Changes"), ("dies", "Dies")):
        subscribers.register(name, f"named_subscribers:{kind}", arguments={"path": str(tmp_path / name)})
    with Hold(tmp_path):
        emit(5)
        scope.event("more")
        scope.event("die")
        emit(100)
    exporter.force_flush()
    exporter.shutdown()
    expected = ["hold", *numbers(5), "more", "die", *numbers(100)]
    assert names(tmp_path / "out") == expected
    check_report(session, len(expected))


OWNER_THAT_IS_KILLED = """
import os, signal, sys, threading
import relay_mp
from relay_mp import scope, subscribers
entered, opened = threading.Event(), threading.Event()
def callback(event):
    if event.name == "hold":
        entered.set()
        opened.wait()
    if event.name == "10":
        os.kill(os.getpid(), signal.SIGKILL)
relay_mp.session(recovery_directory=sys.argv[1])
subscribers.register("x", callback)
config = relay_mp.AtofExporterConfig()
config.output_directory, config.filename = sys.argv[1], "events.jsonl"
relay_mp.AtofExporter(config).register("file")
scope.event("hold")
entered.wait()
for i in range(200):
    scope.event(f"{i}")
opened.set()
threading.Event().wait()
"""


def test_what_a_killed_owner_had_in_its_file_ahead_is_recovered_too(run_script, tmp_path):
    run_script(OWNER_THAT_IS_KILLED, tmp_path, returncode=-signal.SIGKILL)
    with relay_mp.session(recovery_directory=str(tmp_path)):
        pass
    (recovered,) = tmp_path.glob("relay-mp-recovered-*.jsonl")
    again = [json.loads(line)["name"] for line in recovered.read_text().splitlines()]
    written = names(tmp_path)
    assert written == ["hold", *numbers(len(written) - 1)]
    assert again == numbers(200)[10:]
    assert 0 < len(written) - 1 - 10 <= RUN_EVENTS


def kill_at_random(session, tmp_path, kills, seed):
    chance = random.Random(seed)
    exporter = exporter_of(tmp_path / "out", rotate_bytes=chance.choice([0, 40_000]))
    exporter.register("file")
    if chance.random() < 0.5:
        subscribers.register("x", "step_subscribers:Ledger", arguments={"path": str(tmp_path / "ledger")})
    emitted = 0
    for _ in range(kills):
        pid = session._segment.lease()[1]
        count = chance.randrange(500, 4000)
        for i in range(count):
            scope.event(f"{emitted + i}")
        emitted += count
        time.sleep(chance.random() * 0.01)
        os.kill(pid, signal.SIGKILL)
        while session._segment.lease()[1] in (pid, 0):
            time.sleep(0.001)
    exporter.force_flush()
    exporter.shutdown()
    assert names(tmp_path / "out") == numbers(emitted)
    check_report(session, emitted)


@PROCESS
def test_killed_anywhere_the_file_has_each_line_once_and_the_report_counts_them(session, tmp_path):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    kill_at_random(session, tmp_path, 3, seed)


@PROCESS
@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(40))
def test_killed_anywhere_many_times(session, tmp_path, seed):
    kill_at_random(session, tmp_path, 10, seed)


# ------------------------------------------------------------------------------------------------ its bounds


class Line:
    """An event whose line has so many bytes."""

    def __init__(self, size, byte=b"x"):
        self.redelivered = False
        self._line = b'{"atof_version":"' + byte * size
        self._line = self._line[: size - 1] + b"\n"

    def to_json_line(self):
        return self._line


@pytest.mark.parametrize(("sizes", "taken"), [
    ([MAX_WRITE_BYTES // 2] * 2, 2),
    ([MAX_WRITE_BYTES // 2, MAX_WRITE_BYTES // 2 + 1], 1),
    ([MAX_WRITE_BYTES, 100], 1),
    ([MAX_WRITE_BYTES + 1, 100], 0),
])  # fmt: skip
def test_one_write_is_bounded(tmp_path, sizes, taken):
    sink = atof_file(str(tmp_path / "file"))
    assert sink.take_batch([Line(size) for size in sizes]) == taken
    assert (tmp_path / "file").stat().st_size == sum(sizes[:taken]) == sink._file.size_bytes
    assert sink.report().exported == taken
    sink.close()


def test_a_run_ends_where_the_file_is_long_enough(tmp_path):
    sink = atof_file(str(tmp_path / "file"), rotate_bytes=1000)
    events = [Line(400) for _ in range(10)]
    assert [sink.take_batch(events) for _ in range(3)] == [3, 3, 3]
    assert sorted(path.stat().st_size for path in tmp_path.glob("file*")) == [1200] * 3
    sink.close()


@pytest.mark.parametrize("policy", ["never", "flush", "always"])
def test_where_each_line_must_be_on_the_disk_before_the_next_it_takes_no_run(tmp_path, policy):
    sink = atof_file(str(tmp_path / "file"), fsync=policy)
    assert sink.take_batch([Line(100), Line(100)]) == (0 if policy == "always" else 2)
    sink.close()


def test_only_so_many_lines_are_looked_for(tmp_path):
    assert LOOKED_FOR_LINES >= 2 * RUN_EVENTS
    path = tmp_path / "file"
    there = [Line(100, b"a"), Line(100, b"b"), Line(100, b"c")]
    path.write_bytes(b"".join(event.to_json_line() for event in there))
    for new, found in ((LOOKED_FOR_LINES - 1, True), (LOOKED_FOR_LINES, False)):
        file = JsonlFile(str(path))
        assert [file.has(Line(100, b"%d " % n).to_json_line()) for n in range(new)] == [False] * new
        assert file.has(there[0].to_json_line()) is found
        file.close()


def test_a_line_longer_than_a_write_is_found(tmp_path):
    long = Line(3 * MAX_WRITE_BYTES)
    file = JsonlFile(str(tmp_path / "file"))
    file.append(Line(100).to_json_line())
    file.append(long.to_json_line())
    file.close()
    again = JsonlFile(str(tmp_path / "file"))
    again.append(long.to_json_line())
    again.append(Line(100).to_json_line())
    assert again.lines == 2
    again.close()
    assert (tmp_path / "file").stat().st_size == 200 + 3 * MAX_WRITE_BYTES


def test_half_a_line_at_the_end_of_a_moved_file_is_cut_off_and_written_whole_in_the_new_one(tmp_path):
    path, lines = tmp_path / "file", [Line(100, b"%d " % number).to_json_line() for number in range(4)]
    killed = JsonlFile(str(path))
    killed.write(b"".join(lines[:2]) + lines[2][:30], 3)
    killed.abandon()
    path.rename(tmp_path / "moved")
    file = JsonlFile(str(path))
    for line in lines[1:]:
        file.append(line)
    file.close()
    assert (tmp_path / "moved").read_bytes() == b"".join(lines[:2])
    assert path.read_bytes() == b"".join(lines[2:])
    assert sorted(other.name for other in tmp_path.iterdir()) == ["file", "moved"]


def test_so_many_moved_files_are_looked_for(tmp_path):
    path, lines = tmp_path / "file", [Line(100, b"%d " % number).to_json_line() for number in range(NOTED_FILES + 1)]
    for number, line in enumerate(lines):
        killed = JsonlFile(str(path))
        killed.write(line, 1)
        killed.abandon()
        path.rename(tmp_path / f"moved-{number}")
    file = JsonlFile(str(path))
    assert [file.has(line) for line in lines] == [False, False, *[True] * (NOTED_FILES - 1)]
    file.close()


@pytest.mark.parametrize("other", ["link", "pipe", "text"])
def test_what_stands_in_the_place_of_a_moved_file_is_left_alone(tmp_path, other):
    path, line, target = tmp_path / "file", Line(100).to_json_line(), tmp_path / "elsewhere"
    killed = JsonlFile(str(path))
    killed.write(line, 1)
    killed.abandon()
    path.unlink()
    if other == "link":
        target.write_bytes(b"not a line")
        (tmp_path / "moved").symlink_to(target)
    elif other == "pipe":
        os.mkfifo(tmp_path / "moved")
    else:
        (tmp_path / "moved").write_bytes(b"not a line")
    (tmp_path / ".file.lock").write_text(f"1\n{(tmp_path / 'moved').lstat().st_ino}\n")
    file = JsonlFile(str(path))
    file.append(line)
    file.close()
    assert path.read_bytes() == line
    if other != "pipe":
        assert (tmp_path / "moved").read_bytes() == b"not a line"


def test_a_write_that_fails_is_taken_back_and_the_lines_come_alone(tmp_path, monkeypatch):
    sink = atof_file(str(tmp_path / "file"))
    assert sink.take_batch([Line(100)]) == 1
    whole = os.write
    monkeypatch.setattr(os, "write", lambda file, block: whole(file, block[: min(len(block), 150)]))
    assert sink.take_batch([Line(100), Line(100)]) == 0
    assert (tmp_path / "file").stat().st_size == 100
    sink(Line(100))
    assert sink.report().exported == 2
    sink.close()
