"""ATIF: what is gathered and written, where to, and what happens when it cannot be."""

import copy
import json
import os
import signal

import pytest
import scenarios
from nat.atif import Trajectory
from receiver import WAIT_SECONDS, Receiver, closed_port, wait_until

import relay_mp
from relay_mp import AtifExporter, AtifFileExporter, ScopeType, scope, subscribers
from relay_mp._deliver import private_files
from relay_mp.observability import HttpStorageConfig
from relay_mp.observability.atif.filenames import check_template, render

BOTH = pytest.mark.parametrize("session", ["thread", "process"], indirect=True)
QUICK = {"retry_initial_seconds": 0.01, "retry_max_seconds": 0.05}
pytestmark = pytest.mark.usefixtures("own_temporary_directory")


def agent(name, *marks):
    with scope.scope(name, ScopeType.Agent) as handle:
        for mark in marks:
            scope.event(mark)
    return handle


def written(directory):
    """By agent's name, its trajectory."""
    found = [json.loads(path.read_text()) for path in directory.rglob("*.json")]
    for trajectory in found:
        Trajectory.model_validate(trajectory)
    return {trajectory["extra"]["ancestry"]["function_name"]: trajectory for trajectory in found}


def marks(trajectory):
    return [event["name"] for event in trajectory["extra"].get("observed_events", ())]


# ---- AtifExporter ----


@BOTH
def test_it_gathers_until_it_is_asked(session):
    exporter = AtifExporter("run-1", "planner", "1.0", model_name="m", tool_definitions=[{"name": "t"}], extra={"k": 1})
    exporter.register("atif")
    scenarios.one_agent()
    subscribers.flush()
    found = exporter.export()
    untouched = copy.deepcopy(found)
    Trajectory.model_validate(found)
    assert (found["session_id"], found["trajectory_id"]) == ("run-1", "run-1")
    assert found["agent"] == {
        "name": "planner",
        "version": "1.0",
        "model_name": "m",
        "tool_definitions": [{"name": "t"}],
        "extra": {"k": 1},
    }
    assert [step["source"] for step in found["steps"]] == ["user", "agent", "agent", "agent"]
    assert [step["message"] for step in found["steps"][:2]] == ["What is a ring?", "Let me look."]
    assert len(found["subagent_trajectories"]) == 1
    found["steps"][0]["extra"].clear()
    found["steps"][1]["extra"]["llm_response"].clear()
    assert json.loads(exporter.export_json()) == untouched  # a trajectory is its caller's own
    exporter.clear()
    assert exporter.export()["steps"] == []
    scenarios.interleaved()
    assert exporter.deregister("atif") is True
    assert exporter.deregister("atif") is False
    assert len(exporter.export()["steps"]) in (0, 5)  # flushed or not: nothing raises
    assert os.listdir(os.environ["TMPDIR"]) == []


@BOTH
def test_agents_side_by_side_are_one_trajectory_of_the_run(session):
    exporter = AtifExporter("run", "a", "1")
    exporter.register("atif")
    with pytest.raises(relay_mp.SubscriberError, match="registered as 'atif'; deregister it first"):
        exporter.register("again")
    scenarios.interleaved()
    subscribers.flush()
    found = exporter.export()
    assert [step["message"] for step in found["steps"]] == ["of a", "of b", "to a", "", "to b"]
    assert "subagent_trajectories" not in found
    exporter.deregister("atif")


def test_its_arguments_are_checked():
    with pytest.raises(TypeError, match="agent_version is an int; expected str"):
        AtifExporter("s", "a", 1)


# ---- files ----


@BOTH
def test_each_top_level_agent_is_a_file_when_it_has_ended(session, tmp_path):
    exporter = AtifFileExporter(tmp_path / "out", agent_name="n", agent_version="2")
    exporter.register("atif")
    outer = scope.push("outer", ScopeType.Function)
    with scope.scope("first", ScopeType.Agent) as first:
        agent("inner", "inside")
    exporter.force_flush()
    assert set(written(tmp_path / "out")) == {"first"}
    agent("second")
    held = scope.push("open", ScopeType.Agent)
    scope.event("under way")
    exporter.force_flush()
    assert set(written(tmp_path / "out")) == {"first", "second"}
    exporter.shutdown()
    found = written(tmp_path / "out")
    assert set(found) == {"first", "second", "open"}
    assert found["open"]["extra"]["invocation"] == {
        "framework": "relay_mp",
        "invocation_id": held.uuid,
        "status": "unfinished",
    }
    assert marks(found["open"]) == ["under way"]
    assert found["first"]["session_id"] == first.uuid
    assert (tmp_path / "out" / f"relay-mp-atif-{first.uuid}.json").exists()
    report = session.stats().exporters["atif"]
    assert (report.unfinished, report.lost, report.ignored) == (1, 0, 1)
    assert not list((tmp_path / "out").glob("*.part"))
    scope.pop(held)
    scope.pop(outer)


def test_what_comes_late_is_written_too(session, tmp_path):
    exporter = AtifFileExporter(tmp_path)
    exporter.register("atif")
    handle = agent("a", *(f"{i}" for i in range(50)))
    scope.event("late", handle=handle)
    with scope.scope("later scope", ScopeType.Function, handle=handle):
        scope.event("later mark")
    exporter.force_flush()
    assert marks(written(tmp_path)["a"])[50:] == ["late", "later scope", "later mark", "later scope"]
    exporter.shutdown()
    assert session.stats().exporters["atif"].exported == 56


def test_a_trajectory_is_bounded(session, tmp_path, capfd):
    exporter = AtifFileExporter(tmp_path, max_trajectory_events=10)
    exporter.register("atif")
    agent("a", *(f"{i}" for i in range(20)))
    agent("b", "m")
    exporter.shutdown()
    assert marks(written(tmp_path)["a"]) == [f"{i}" for i in range(9)]
    assert marks(written(tmp_path)["b"]) == ["m"]
    report = session.stats().exporters["atif"]
    assert report.drops == {"trajectory_full": 12}
    session.close()
    capfd.readouterr()


def test_open_scopes_are_bounded_by_whole_trajectories(session, tmp_path):
    exporter = AtifFileExporter(tmp_path, max_open_scopes=10)
    exporter.register("atif")
    opened = [scope.push("long", ScopeType.Agent)] + [scope.push(f"{n}", ScopeType.Function) for n in range(20)]
    for handle in reversed(opened):
        scope.pop(handle)
    exporter.shutdown()
    report = session.stats().exporters["atif"]
    assert (report.unfinished, report.evicted) == (10, 11)  # then one of those outside any trajectory
    assert "long" in written(tmp_path)
    assert report.taken == report.exported + report.ignored


def test_what_is_gathered_is_bounded_in_bytes_and_what_is_written_goes_first(session, tmp_path):
    exporter = AtifFileExporter(tmp_path, max_open_bytes=4000)
    exporter.register("atif")
    agent("written", *("m" * 50 for _ in range(20)))
    with scope.scope("open", ScopeType.Agent, input="x" * 1000):
        scope.event("first", data="x" * 1000)
        exporter.force_flush()
        report = session.stats().exporters["atif"]
        assert (report.cut, report.evicted, report.open_scopes) == (0, 0, 1)  # what was written is forgotten
        assert report.open_bytes <= 4000
        for _ in range(4):
            scope.event("next", data="x" * 1000)
        exporter.force_flush()
        report = session.stats().exporters["atif"]
        assert (report.evicted, report.open_scopes) == (0, 1)
        assert report.open_bytes <= 4000
        assert report.cut > 2
    exporter.shutdown()
    found = written(tmp_path)
    assert marks(found["open"]) == ["first", *["next"] * 4]
    assert found["open"]["extra"]["input"] == {"relay_mp.cut": {"bytes": 1003}}
    report = session.stats().exporters["atif"]
    assert report.taken == report.exported


def test_trajectories_with_nothing_left_to_cut_are_written_as_they_are(session, tmp_path):
    exporter = AtifFileExporter(tmp_path, max_open_bytes=1000)
    exporter.register("atif")
    opened = [scope.push(f"{n}", ScopeType.Agent, handle=scope.get_handle()) for n in range(4)]
    for handle in reversed(opened):
        for _ in range(10):
            scope.event("m", handle=handle)
        scope.pop(handle)
    exporter.shutdown()
    report = session.stats().exporters["atif"]
    assert report.evicted >= 1
    assert report.cut == 0
    assert report.taken == report.exported + report.ignored


@pytest.mark.parametrize("session", ["process"], indirect=True)
def test_what_a_killed_dispatcher_had_gathered_is_counted(session, tmp_path, capfd):
    exporter = AtifFileExporter(tmp_path)
    exporter.register("atif")
    agent("before", "m")
    handle = scope.push("cut", ScopeType.Agent)
    scope.event("gathered")
    exporter.force_flush()
    os.kill(session._segment.lease()[1], signal.SIGKILL)
    scope.event("after the kill")
    scope.pop(handle)
    agent("after", "m")
    exporter.shutdown()
    assert set(written(tmp_path)) == {"before", "after"}
    report = session.stats().exporters["atif"]
    assert report.exported == 6
    assert report.unconfirmed >= 2
    assert report.orphans == 1
    session.close()
    assert "unconfirmed" in capfd.readouterr().err


# ---- names of files ----


@pytest.mark.parametrize(
    ("template", "metadata", "expected"),
    [
        ("a-{session_id}.json", None, "a-S.json"),
        ("{metadata.user}/{session_id}.json", {"user": "alice"}, "alice/S.json"),
        ("{metadata.user}-{session_id}.json", {"user": "../../x y/ü"}, "-..-x-y--S.json"),
        ("{metadata.user}-{session_id}.json", {"user": "..."}, "unknown-S.json"),
        ("{metadata.user}-{session_id}.json", None, "unknown-S.json"),
        ("{metadata.user:-nobody}-{session_id}.json", {"user": None}, "nobody-S.json"),
        ("{metadata.n}-{session_id}.json", {"n": 7}, "7-S.json"),
        ("{metadata.n}-{session_id}.json", {"n": ["x"]}, "unknown-S.json"),
        ("{metadata.user}-{session_id}.json", {"user": "x" * 500}, "x" * 64 + "-S.json"),
    ],
)
def test_metadata_goes_into_names_only_as_far_as_it_is_safe(template, metadata, expected):
    check_template(template)
    assert render(template, "S", metadata) == expected


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("fixed.json", "has no '{session_id}'"),
        ("../{session_id}.json", "not a relative path that stays"),
        ("/tmp/{session_id}.json", "not a relative path that stays"),
        ("a//{session_id}.json", "not a relative path that stays"),
        ("{user}-{session_id}.json", "a brace that is not a placeholder"),
        ("{session_id}-{metadata.x", "a brace that is not a placeholder"),
    ],
)
def test_a_template_that_is_not_safe_is_refused(template, said):
    with pytest.raises(ValueError, match=said):
        AtifFileExporter("out", filename_template=template)


@BOTH
def test_files_go_where_the_template_says(session, tmp_path):
    exporter = AtifFileExporter(tmp_path, filename_template="{metadata.team:-none}/{session_id}.json")
    exporter.register("atif")
    with scope.scope("a", ScopeType.Agent, metadata={"team": "red"}) as a:
        pass
    b = agent("b")
    exporter.shutdown()
    assert (tmp_path / "red" / f"{a.uuid}.json").exists()
    assert (tmp_path / "none" / f"{b.uuid}.json").exists()


# ---- storage ----


@BOTH
def test_trajectories_are_posted_and_the_recovery_copies_go(session, tmp_path):
    with Receiver([503]) as receiver:
        exporter = AtifFileExporter(storage=HttpStorageConfig(receiver.url, {"X-Key": "1"}), limits=QUICK)
        exporter.register("atif")
        handle = agent("a", "m")
        assert exporter.force_flush() is True
        (body,) = receiver.bodies
        assert json.loads(body)["trajectory_id"] == handle.uuid
        assert receiver.headers[0]["X-Relay-Mp-Atif-Session-Id"] == handle.uuid
        assert receiver.headers[0]["X-Relay-Mp-Atif-Filename"] == f"relay-mp-atif-{handle.uuid}.json"
        assert receiver.headers[0]["X-Key"] == "1"
        report = session.stats().exporters["atif"]
        assert (report.exported, report.failures, report.lost) == (3, 1, 0)
        exporter.shutdown()
    assert list((tmp_path / "tmp").rglob("*.json")) == []


@BOTH
def test_what_cannot_be_sent_stays_in_the_recovery_copy(session, tmp_path, capfd):
    exporter = AtifFileExporter(
        storage=HttpStorageConfig(f"http://127.0.0.1:{closed_port()}/"),
        limits={**QUICK, "shutdown_timeout_seconds": 0.05},
    )
    exporter.register("atif")
    agent("a", "m")
    exporter.shutdown()
    assert set(written(tmp_path / "tmp")) == {"a"}
    assert session.stats().exporters["atif"].drops == {"shutdown": 3}
    session.close()
    capfd.readouterr()


@BOTH
def test_files_and_storages_are_independent(session, tmp_path, capfd):
    with Receiver() as receiver:
        exporter = AtifFileExporter(
            tmp_path / "out",
            storage=[HttpStorageConfig(f"http://127.0.0.1:{closed_port()}/"), HttpStorageConfig(receiver.url)],
            limits={**QUICK, "retry_deadline_seconds": 1.0},
        )
        exporter.register("atif")
        agent("a")
        assert exporter.force_flush() is True
        exporter.shutdown()
        assert len(receiver.bodies) == 1
    assert set(written(tmp_path / "out")) == {"a"}
    reports = session.stats().exporters
    assert {name: report.exported for name, report in reports.items()} == {"atif": 2, "atif.2": 0, "atif.3": 2}
    session.close()
    capfd.readouterr()


@pytest.mark.parametrize("session", ["process"], indirect=True)
def test_a_successor_sends_what_a_killed_dispatcher_had_written(session, tmp_path, capfd):
    with Receiver(["stall"]) as receiver:
        limits = {**QUICK, "timeout_seconds": WAIT_SECONDS}
        exporter = AtifFileExporter(storage=HttpStorageConfig(receiver.url), limits=limits)
        exporter.register("atif")
        first = agent("first", "m")
        receiver.await_request()
        os.kill(session._segment.lease()[1], signal.SIGKILL)
        receiver.release.set()
        second = agent("second", "m")
        exporter.shutdown()
        assert {json.loads(body)["trajectory_id"] for body in receiver.bodies} == {first.uuid, second.uuid}
    assert list((tmp_path / "tmp").rglob("*.json")) == []
    session.close()
    capfd.readouterr()


def test_a_directory_of_copies_that_is_emptied_stays_for_the_one_that_is_being_written(session, tmp_path, monkeypatch):
    """The first is sent, and its copy removed, between the making of the directory for the second and its writing."""
    made, make_directories = [], private_files.make_directories

    def make_directories_then_wait(path):
        make_directories(path)
        made.append(path)
        if len(made) == 2:
            receiver.release.set()
            wait_until(lambda: session.stats().exporters["atif"].exported)

    with Receiver(["stall"]) as receiver:
        limits = {**QUICK, "timeout_seconds": WAIT_SECONDS}
        exporter = AtifFileExporter(storage=HttpStorageConfig(receiver.url), limits=limits)
        exporter.register("atif")
        monkeypatch.setattr(private_files, "make_directories", make_directories_then_wait)
        first = agent("first", "m")
        receiver.await_request()
        second = agent("second", "m")
        exporter.shutdown()
        assert [json.loads(body)["trajectory_id"] for body in receiver.bodies] == [first.uuid, second.uuid]
    assert len(made) == 2
    assert list((tmp_path / "tmp").iterdir()) == []


def test_there_must_be_somewhere_to_write_to():
    with pytest.raises(ValueError, match="neither an output_directory nor a storage"):
        AtifFileExporter()
    with pytest.raises(TypeError, match="storage is or has a dict; expected HttpStorageConfig"):
        AtifFileExporter(storage=[{"endpoint": "http://127.0.0.1:1/"}])


@BOTH
def test_a_full_disk_is_counted_and_leaves_whole_files(session, small_disk, capfd):
    exporter = AtifFileExporter(small_disk)
    exporter.register("atif")
    for n in range(100):
        agent(f"{n}", "m" * 1000)
    exporter.shutdown()
    found = written(small_disk)
    report = session.stats().exporters["atif"]
    assert 0 < len(found) < 100
    assert report.exported == 3 * len(found)
    assert report.drops == {"unwritten": 300 - report.exported}
    assert not list(small_disk.glob("*.part"))
    assert session.stats().lost == 0
    session.close()
    capfd.readouterr()


@pytest.mark.parametrize(
    ("said", "shown"),
    [("NaN", None), ("-Infinity ", None), ("1e999", None), ("1.5", 1.5), ('"\\ud800"', "?")],
)
def test_a_file_is_json_in_utf_8_whatever_a_models_arguments_are(session, tmp_path, said, shown):
    exporter = AtifFileExporter(tmp_path / "out")
    exporter.register("atif")
    asked = {"id": "c", "function": {"name": "f", "arguments": f'{{"x": {said}}}'}}
    with scope.scope("planner", ScopeType.Agent):
        call = scope.push("openai", ScopeType.Llm)
        scope.pop(call, output={"choices": [{"message": {"content": "", "tool_calls": [asked]}}]})
    exporter.shutdown()
    (path,) = (tmp_path / "out").iterdir()
    text = path.read_bytes().decode()
    (step,) = json.loads(text, parse_constant=pytest.fail)["steps"]
    assert step["tool_calls"][0]["arguments"] == {"x": shown}
