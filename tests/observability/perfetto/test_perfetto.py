"""The Chrome trace: slices, lanes, arrows, and what is in the file after a kill."""

import asyncio
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import scenarios
import trace_format

import relay_mp
from relay_mp import PerfettoExporter, ScopeType, pools, scope
from relay_mp._native import core
from relay_mp._native.core import uuid7
from relay_mp._native.encoder import pack
from relay_mp.errors import RecordError
from relay_mp.events import decode, pack_record, rfc3339
from relay_mp.observability.perfetto.exporter import PerfettoExporterMode as Mode
from relay_mp.observability.perfetto.exporter import perfetto

BOTH = pytest.mark.parametrize("session", ["thread", "process"], indirect=True)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / "trace.json"


@pytest.fixture
def exporter(session, path):
    exporter = PerfettoExporter(path)
    exporter.register("trace")
    yield exporter
    exporter.shutdown()


def read(path):
    """A finished trace."""
    return json.loads(path.read_text())


def read_unfinished(path):
    """A trace whose closing bracket is missing, as its readers take it."""
    text = path.read_text()
    assert text.endswith(",\n")
    return json.loads(text[:-2] + "]")


def slices(events):
    return [event for event in events if event["ph"] in "Xb"]


def named(events, name):
    (found,) = [event for event in events if event["name"] == name]
    return found


# ---- what it shows ----


@BOTH
def test_scopes_are_slices_and_marks_are_instants(session, exporter, path):
    with scope.scope("outer", ScopeType.Agent, input={"q": 1}, metadata={"k": "v"}):
        with scope.scope("inner", ScopeType.Tool):
            scope.event("m", data=[1])
        scope.event("n")
    exporter.shutdown()
    events = read(path)
    trace_format.check(events)
    outer, inner, mark = named(events, "outer"), named(events, "inner"), named(events, "m")
    assert (outer["cat"], inner["cat"], mark["cat"]) == ("agent", "tool", "mark")
    assert outer["args"]["input"] == {"q": 1}
    assert outer["args"]["metadata"]["k"] == "v"
    assert mark["args"]["data"] == [1]
    assert inner["args"]["parent_uuid"] == outer["args"]["uuid"]
    assert outer["ts"] <= inner["ts"] <= mark["ts"] <= inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"]
    names = {event["args"]["name"] for event in events if event["name"] in ("process_name", "thread_name")}
    assert names == {f"process {os.getpid()}", "main thread"}


def test_payloads_may_be_left_out_and_large_ones_are(session, path, tmp_path):
    bare = PerfettoExporter(tmp_path / "bare.json", payloads=False)
    bare.register("bare")
    full = PerfettoExporter(path)
    full.register("full")
    scope.event("small", data={"a": 1})
    scope.event("large", data="x" * 10_000)
    bare.shutdown()
    full.shutdown()
    assert "data" not in named(read(tmp_path / "bare.json"), "small")["args"]
    assert named(read(path), "small")["args"]["data"] == {"a": 1}
    assert named(read(path), "large")["args"]["data"] == {"relay_mp.cut": {"bytes": 10_002}}


def test_tasks_that_interleave_are_on_lanes_of_their_own(session, exporter, path):
    async def task(number):
        with scope.scope(f"task {number}", ScopeType.Function):
            await asyncio.sleep(0)
            with scope.scope(f"step {number}", ScopeType.Tool):
                await asyncio.sleep(0)

    async def main():
        with scope.scope("all", ScopeType.Function):
            await asyncio.gather(*(task(n) for n in range(100)))

    asyncio.run(main())
    exporter.shutdown()
    events = read(path)
    reached = trace_format.check(events)
    assert reached == []  # arrows are for other threads and processes
    assert len(slices(events)) == 201
    lanes = {event["tid"] for event in events if event["ph"] == "X"}
    assert 1 < len(lanes) <= 64
    for n in range(100):  # a step is in its task, wherever that is drawn
        task_slice, step = named(slices(events), f"task {n}"), named(slices(events), f"step {n}")
        assert task_slice["ph"] == "b" or (step["ph"] == "X" and step["tid"] == task_slice["tid"]) or n >= 63


def test_a_scope_that_outlives_its_parent_has_a_track_to_itself(session, exporter, path):
    story = scenarios.Story()
    outer = story.start("outer", "function")
    inner = story.start("inner", "function", outer)
    innermost = story.start("innermost", "function", inner)
    story.end(innermost)
    story.end(outer)
    after = story.start("after", "function", inner)
    story.end(after)
    story.end(inner)
    exporter.shutdown()
    events = read(path)
    trace_format.check(events)
    assert {event["name"]: event["ph"] for event in slices(events)} == {
        "outer": "X",
        "inner": "b",
        "innermost": "X",
        "after": "X",
    }


def test_times_that_run_backwards_still_nest(session, exporter, path):
    story = scenarios.Story()
    outer = story.start("outer", "function")
    for n in range(5):
        story.clock_us -= 1500
        inner = story.start(f"{n}", "function", outer)
        story.clock_us += 9000
        story.end(inner)
        story.clock_us -= 7000
    story.clock_us = scenarios.BEGIN_US
    story.end(outer)
    exporter.shutdown()
    events = read(path)
    trace_format.check(events)
    assert len(slices(events)) == 6


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_arrows_lead_from_a_parent_to_its_children_in_other_processes(session, exporter, path, method):
    with scope.scope("parent", ScopeType.Function):
        workers = [pools.get_context(method).Process(target=child_scope, args=(n,)) for n in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    exporter.shutdown()
    events = read(path)
    parent = named(slices(events), "parent")["args"]["uuid"]
    children = {named(slices(events), f"child {n}")["args"]["uuid"] for n in range(2)}
    reached = trace_format.check(events)
    assert {pair[0] for pair in reached} == {parent}
    assert {pair[1] for pair in reached} == children
    assert len({event["pid"] for event in slices(events)}) == 3


def child_scope(number):
    with scope.scope(f"child {number}", ScopeType.Agent):
        pass


# ---- the file ----


@BOTH
def test_what_has_not_ended_is_written_at_shutdown(session, path):
    exporter = PerfettoExporter(path)
    exporter.register("trace")
    outer = scope.push("outer", ScopeType.Agent)
    inner = scope.push("inner", ScopeType.Agent)
    exporter.force_flush()
    assert session.stats().exporters["trace"].open_scopes == 2
    exporter.shutdown()
    events = read(path)
    trace_format.check(events)
    assert [event["args"]["unfinished"] for event in slices(events)] == [True, True]
    assert [event["ph"] for event in slices(events)] == ["X", "X"]
    report = session.stats().exporters["trace"]
    assert (report.unfinished, report.open_scopes, report.exported) == (2, 0, 2)
    scope.pop(inner)
    scope.pop(outer)


def test_open_scopes_are_bounded(session, path):
    exporter = PerfettoExporter(path, max_open_scopes=5)
    exporter.register("trace")
    opened = [scope.push(f"{n}", ScopeType.Function) for n in range(8)]
    exporter.force_flush()
    assert session.stats().exporters["trace"].evicted == 3
    assert [event["name"] for event in slices(read_unfinished(path))] == ["0", "1", "2"]
    for handle in reversed(opened):
        scope.pop(handle)
    exporter.shutdown()
    assert session.stats().exporters["trace"].orphans == 3
    trace_format.check(read(path))


@pytest.mark.parametrize("session", ["process"], indirect=True)
def test_after_the_dispatcher_was_killed_the_trace_goes_on(session, exporter, path, capfd):
    for n in range(3):
        held = scope.push(f"held {n}", ScopeType.Function)
        exporter.force_flush()
        for i in range(100):
            with scope.scope(f"{n} {i}", ScopeType.Tool):
                pass
        os.kill(session._segment.lease()[1], signal.SIGKILL)
        for i in range(100):
            with scope.scope(f"{n} and {i}", ScopeType.Tool):
                pass
        scope.pop(held)
        exporter.force_flush()
    exporter.shutdown()
    events = read(path)
    trace_format.check(events)
    shown = [event["name"].removeprefix("end of ") for event in events if event["ph"] in "Xbi"]
    expected = {f"{n} {part}{i}" for n in range(3) for part in ("", "and ") for i in range(100)}
    assert set(shown) == expected | {f"held {n}" for n in range(3)}
    assert len(shown) == len(set(shown))  # none twice
    assert session.stats().exporters["trace"].orphans >= 3
    session.close()
    capfd.readouterr()


@pytest.mark.parametrize("cut", [1, 30])
def test_half_a_line_of_a_killed_writer_is_cut_off(session, path, cut):
    first = PerfettoExporter(path)
    first.register("trace")
    scope.event("kept")
    scope.event("cut")
    first.shutdown()
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(lines[:-2])[:-cut])
    again = PerfettoExporter(path)
    again.register("trace")
    scope.event("new")
    again.shutdown()
    events = read(path)
    trace_format.check(events)
    assert [event["name"] for event in events if event["ph"] == "i"] == ["kept", "new"]


def test_what_a_session_has_written_goes_on_on_the_same_clock(session, path):
    for n in range(3):
        exporter = PerfettoExporter(path)
        exporter.register("trace")
        scope.event(f"{n}")
        exporter.shutdown()
    events = read(path)
    marks = [event for event in events if event["ph"] == "i"]
    assert [event["name"] for event in marks] == ["0", "1", "2"]
    assert sorted(event["ts"] for event in marks) == [event["ts"] for event in marks]
    assert sum(event["name"] == "relay_mp_epoch" for event in events) == 1


# ---- a file that is there ----

NEW, APPEND, OVERWRITE = Mode.New, Mode.Append, Mode.Overwrite
DISPATCHERS = pytest.mark.parametrize("dispatcher", ["thread", "process"])


def run_once(path, name, *modes, dispatcher="thread"):
    """A run of a session of its own; gives the file that it says it has written."""
    with relay_mp.session(dispatcher=dispatcher):
        exporter = PerfettoExporter(path, **({"mode": modes[0]} if modes else {}))
        exporter.register("trace")
        scope.event(name)
        exporter.shutdown()
        return exporter.path


def marks_of(path):
    events = json.loads(Path(path).read_text())
    trace_format.check(events)
    return [event["name"] for event in events if event["ph"] == "i"]


@DISPATCHERS
def test_a_second_run_is_written_beside_the_first_by_default(path, dispatcher):
    written = [run_once(path, f"{n}", dispatcher=dispatcher) for n in range(3)]
    assert written[0] == str(path)
    assert [marks_of(file) for file in written] == [["0"], ["1"], ["2"]]
    assert sorted(str(file) for file in path.parent.iterdir()) == sorted(written)


def test_the_name_beside_the_first_has_the_sessions_id(path):
    run_once(path, "first")
    with relay_mp.session() as session:
        exporter = PerfettoExporter(path)
        exporter.register("trace")
        exporter.shutdown()
        assert exporter.path == str(path.with_name(f"trace-{session.id}.json"))


@DISPATCHERS
def test_append_goes_on_with_the_trace_of_an_earlier_run_on_the_same_clock(path, dispatcher):
    assert {run_once(path, f"{n}", APPEND, dispatcher=dispatcher) for n in range(3)} == {str(path)}
    assert marks_of(path) == ["0", "1", "2"]
    times = [event["ts"] for event in read(path) if event["ph"] == "i"]
    assert times == sorted(times)


@DISPATCHERS
def test_overwrite_has_the_newest_run_alone_and_does_not_warn(path, dispatcher, caplog):
    assert {run_once(path, f"{n}", OVERWRITE, dispatcher=dispatcher) for n in range(3)} == {str(path)}
    assert marks_of(path) == ["2"]
    assert caplog.records == []


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("session", ["process"], indirect=True)
def test_in_no_mode_does_a_dispatchers_successor_lose_what_its_session_has_written(session, path, mode, capfd):
    exporter = PerfettoExporter(path, mode=mode)
    exporter.register("trace")
    scope.event("before")
    exporter.force_flush()
    os.kill(session._segment.lease()[1], signal.SIGKILL)
    scope.event("after")
    exporter.shutdown()
    assert exporter.path == str(path)
    assert [path.name] == [file.name for file in path.parent.iterdir()]
    assert marks_of(path) == ["before", "after"]
    session.close()
    capfd.readouterr()


def test_a_file_that_is_something_else_is_kept_and_the_run_is_written_beside_it(path):
    path.parent.mkdir()
    path.write_text("dear diary\n")
    assert marks_of(run_once(path, "m")) == ["m"]
    assert path.read_text() == "dear diary\n"


def test_nothing_is_appended_to_a_file_that_is_something_else(session, path):
    path.parent.mkdir()
    path.write_text("dear diary\n")
    with pytest.raises(relay_mp.SubscriberError, match="is there already, and it is not a trace of relay_mp"):
        PerfettoExporter(path, mode=APPEND).register("trace")
    assert path.read_text() == "dear diary\n"


@pytest.mark.parametrize("mode", [APPEND, OVERWRITE])
def test_a_second_writer_is_refused(session, exporter, path, mode):
    with pytest.raises(relay_mp.SubscriberError, match="is being written by another process or exporter"):
        PerfettoExporter(path, mode=mode).register("second")


def test_a_second_writer_writes_beside_the_first_and_a_third_is_refused(session, exporter, path):
    second = PerfettoExporter(path)
    second.register("second")
    with pytest.raises(relay_mp.SubscriberError, match="is being written by another process or exporter"):
        PerfettoExporter(path).register("third")
    scope.event("m")
    second.shutdown()
    exporter.shutdown()
    assert marks_of(path) == marks_of(path.with_name(f"trace-{session.id}.json")) == ["m"]


@pytest.mark.parametrize("mode", ["append", None, 1])
def test_a_mode_that_is_none_is_refused(mode):
    with pytest.raises(TypeError, match=r"mode is .*; expected PerfettoExporterMode\.New, \.Append or \.Overwrite"):
        PerfettoExporter("trace.json", mode=mode)


def test_a_kind_has_the_modes_by_name(path):
    run_once(path, "first")
    for mode in ("overwrite", "append"):
        with relay_mp.session():
            relay_mp.observability.exporter("perfetto", path=str(path), mode=mode).register("trace")
            scope.event(mode)
    assert marks_of(path) == ["overwrite", "append"]


# ---- times before the first event ----

DAY_US = 24 * 3600 * 1_000_000
EARLIER_US = {"microsecond": 1, "hours": 5 * 3600 * 1_000_000, "weeks": 29 * DAY_US}
FAR_US = {"months": 200 * DAY_US, "years": 10 * 365 * DAY_US, "1970": scenarios.BEGIN_US, "1900": 124 * 365 * DAY_US}


def told_afterwards(by_us):
    """A scope with another in it, and a mark, which were so much earlier than what was emitted before."""
    story = scenarios.Story()
    story.mark("first")
    story.clock_us -= by_us
    outer = story.start("outer", "agent")
    story.end(story.start("inner", "tool", outer))
    story.mark("early", outer)
    story.end(outer)
    story.clock_us = scenarios.BEGIN_US + 1_000_000
    story.mark("last")


def not_before(events):
    """The events' times, none of which is negative."""
    times = {event["name"]: event["ts"] for event in events if "ts" in event}
    assert min(times.values()) >= 0
    return times


@pytest.mark.parametrize("by_us", EARLIER_US.values(), ids=EARLIER_US)
def test_what_is_told_afterwards_is_in_its_place(session, exporter, path, by_us):
    told_afterwards(by_us)
    exporter.shutdown()
    events = read(path)
    trace_format.check(events)
    times = not_before(events)
    assert (times["early"] - times["first"]) // 1 == 4_000 - by_us
    assert times["last"] - times["first"] == 1_000_000
    assert not any("timestamp" in event["args"] for event in events if event["ph"] in "Xbi")


@pytest.mark.parametrize("by_us", FAR_US.values(), ids=FAR_US)
def test_what_is_far_past_is_drawn_at_the_epoch_with_its_own_time_beside_it(session, exporter, path, by_us):
    told_afterwards(by_us)
    exporter.shutdown()
    events = read(path)
    trace_format.check(events)
    times = not_before(events)
    assert set(times) == {"first", "outer", "inner", "early", "last"}
    assert times["outer"] == times["inner"] == times["early"] == 0
    assert times["last"] - times["first"] == 1_000_000
    begin_us = scenarios.BEGIN_US + 1_000 - by_us
    assert named(events, "outer")["args"]["timestamp"] == rfc3339(begin_us + 1_000)
    assert named(events, "outer")["args"]["end_timestamp"] == rfc3339(begin_us + 5_000)
    assert named(events, "early")["args"]["timestamp"] == rfc3339(begin_us + 4_000)
    assert "end_timestamp" not in named(events, "early")["args"]


@pytest.mark.parametrize("later_us", [*FAR_US.values()], ids=[*FAR_US])
def test_long_after_the_first_event_times_are_whole_microseconds_and_nest(session, exporter, path, later_us):
    story = scenarios.Story()
    story.clock_us = scenarios.BEGIN_US - later_us
    story.mark("first")
    story.clock_us = scenarios.BEGIN_US
    scopes = [story.start("0", "agent")]
    for depth in range(1, 50):
        story.clock_us -= 1000  # in the same microsecond
        scopes.append(story.start(f"{depth}", "tool", scopes[-1]))
    for each in reversed(scopes):
        story.end(each)
        story.clock_us -= 1000
    exporter.shutdown()
    events = read(path)
    trace_format.check(events)
    times = not_before(events)
    assert {event["ph"] for event in slices(events)} == {"X"}
    assert {times[f"{depth}"] - times["first"] for depth in range(50)} == {later_us}


def begin_together(release):
    release.wait(30)
    for _ in range(20):
        with scope.scope("w", ScopeType.Function):
            scope.event("m")


def test_no_event_of_four_forked_processes_that_begin_together_is_before_the_epoch(session, exporter, path):
    forked = multiprocessing.get_context("fork")
    release = forked.Event()
    workers = [forked.Process(target=begin_together, args=(release,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    release.set()
    for worker in workers:
        worker.join()
    exporter.shutdown()
    events = read(path)
    trace_format.check(events)
    not_before(events)
    assert sum(event["ph"] in "Xi" for event in events) == 4 * 20 * 2


@BOTH
def test_a_full_disk_is_counted_and_leaves_whole_lines(session, small_disk, capfd):
    exporter = PerfettoExporter(small_disk / "trace.json")
    exporter.register("trace")
    for n in range(1000):
        scope.event(f"{n}")
    exporter.shutdown()
    report = session.stats().exporters["trace"]
    text = (small_disk / "trace.json").read_text()
    events = json.loads(text if text.endswith("]\n") else text[:-2] + "]")
    assert [e["name"] for e in events if e["ph"] == "i"] == [f"{n}" for n in range(report.exported)]
    assert 0 < report.exported < 1000
    assert report.dropped == session.stats().subscriber_errors == 1000 - report.exported
    session.close()
    capfd.readouterr()


def test_a_directory_that_is_removed_is_made_anew_and_what_went_with_it_is_counted(session, exporter, path, capfd):
    for n in range(10):
        scope.event(f"{n}")
    exporter.force_flush()
    shutil.rmtree(path.parent)
    for n in range(1000):
        scope.event(f"later {n}")
    exporter.shutdown()
    events = read(path)
    trace_format.check(events)
    shown = [event["name"] for event in events if event["ph"] == "i"]
    assert shown == [f"later {n}" for n in range(1000 - len(shown), 1000)]
    report = session.stats().exporters["trace"]
    assert len(shown) >= 1000 - 256
    assert report.taken == report.exported + report.drops["removed"] == 1010
    assert report.drops["removed"] >= 1000 - len(shown)
    session.close()
    capfd.readouterr()


# ---- bounds ----


def test_open_scopes_that_take_too_many_bytes_lose_their_payloads_and_nothing_else(session, path):
    exporter = PerfettoExporter(path, max_open_bytes=2500)
    exporter.register("trace")
    opened = [scope.push(f"{n}", ScopeType.Function, input="x" * 1000) for n in range(4)]
    exporter.force_flush()
    report = session.stats().exporters["trace"]
    assert (report.cut, report.evicted, report.open_scopes) == (2, 0, 4)
    assert report.open_bytes <= 2500
    for handle in reversed(opened):
        scope.pop(handle)
    exporter.shutdown()
    events = read(path)
    trace_format.check(events)
    shown = {event["name"]: event["args"]["input"] for event in slices(events)}
    cut = {"relay_mp.cut": {"bytes": 1003}}
    assert shown == {"0": cut, "1": cut, "2": "x" * 1000, "3": "x" * 1000}
    assert session.stats().exporters["trace"].orphans == 0


def begin_of(number, parent=None):
    record = pack_record(0, number.to_bytes(16), parent, core.now_us(), "s", 1, thread_id=7)
    return decode(record, number, os.getpid())


@pytest.mark.parametrize("scopes", [5_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_a_million_open_scopes_cost_memory_but_no_time_squared(tmp_path, scopes):
    sink = perfetto(str(tmp_path / "t.json"), max_open_scopes=scopes)
    tracemalloc.start()
    for number in range(1, scopes + 1):
        sink(begin_of(number))
    bytes_each = tracemalloc.get_traced_memory()[0] / scopes
    tracemalloc.stop()
    assert bytes_each < 2000
    assert sink.report().open_scopes == scopes
    sink(begin_of(scopes + 1))
    assert (sink.report().open_scopes, sink.report().evicted) == (scopes, 1)
    sink.close()
    assert sink.report().unfinished == scopes
    with open(tmp_path / "t.json") as file:
        shown = sum('"unfinished":true' in line for line in file)
    assert shown == scopes + 1


def test_importing_the_package_does_not_import_the_sinks():
    code = "import sys, relay_mp; print([m for m in sys.modules if 'sink' in m or m in ('http.client', 'ssl')])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("ends", [True, False])
def test_a_scope_that_cannot_be_written_is_counted_and_harms_no_other(tmp_path, ends):
    sink, payload = perfetto(str(tmp_path / "t.json")), pack({"text": "whole"})
    first, second = uuid7(), uuid7()
    start = pack_record(0, first, None, 1, "first", 3, data={"text": "whole"})
    damaged = start.replace(payload, b"\xc1" * len(payload))
    assert damaged != start
    # What does not end is written last first: the damaged one comes before the other.
    sink(decode(pack_record(0, second, None, 2, "second", 3), 1, 1))
    sink(decode(damaged, 2, 1))
    if ends:
        with pytest.raises(RecordError):
            sink(decode(pack_record(1, first, None, 3, "first", 3), 3, 1))
    sink.close()
    report = sink.report()
    assert (report.exported, report.drops, report.queued) == (1, {"RecordError": 1 + ends}, 0)
    assert [line["name"] for line in json.loads((tmp_path / "t.json").read_text()) if line["ph"] in "Xb"] == ["second"]
