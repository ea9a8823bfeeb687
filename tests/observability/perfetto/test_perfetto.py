"""The Chrome trace: slices, lanes, arrows, and what is in the file after a kill."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc

import pytest
import scenarios
import trace_format

import relay_mp
from relay_mp import PerfettoExporter, ScopeType, pools, scope
from relay_mp._native import core
from relay_mp._native.core import uuid7
from relay_mp._native.encoder import pack
from relay_mp.errors import RecordError
from relay_mp.events import decode, pack_record
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


def test_a_finished_trace_is_continued_on_the_same_clock(session, path):
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


def test_a_file_that_is_something_else_is_refused_and_kept(session, path):
    path.parent.mkdir()
    path.write_text("dear diary\n")
    with pytest.raises(relay_mp.SubscriberError, match="is there already, and no trace of relay_mp"):
        PerfettoExporter(path).register("trace")
    assert path.read_text() == "dear diary\n"


def test_a_second_writer_is_refused(session, exporter, path):
    with pytest.raises(relay_mp.SubscriberError, match="is being written by another process or exporter"):
        PerfettoExporter(path).register("second")


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
