"""What a line says of who has emitted its event: a file alone tells processes apart."""

import json
import os
import signal
import threading

import pytest

import relay_mp
from relay_mp import AtofExporter, AtofExporterConfig, ScopeType, pools, scope, subscribers

BOTH = pytest.mark.parametrize("session", ["thread", "process"], indirect=True)
KEY = "relay_mp.origin"


def exporter_of(directory, **settings):
    return AtofExporter(AtofExporterConfig(output_directory=str(directory), filename="events.jsonl", **settings))


def events_of(directory):
    return [json.loads(line) for line in (directory / "events.jsonl").read_text().splitlines()]


def origins(directory):
    return {event["name"]: event["metadata"][KEY] for event in events_of(directory)}


@BOTH
def test_each_line_says_process_thread_session_and_place(session, tmp_path):
    exporter = exporter_of(tmp_path)
    exporter.register("file")
    with scope.scope("outer", ScopeType.Agent, metadata={"mine": 1}):
        scope.event("bare")
    exporter.shutdown()
    found = events_of(tmp_path)
    assert [event["metadata"].get("mine") for event in found] == [1, None, 1]
    for event in found:
        origin = event["metadata"][KEY]
        assert set(origin) == {"seq", "pid", "thread_id", "session"}
        assert (origin["pid"], origin["session"]) == (os.getpid(), session.id)
        assert origin["thread_id"] == threading.get_native_id()
    places = [event["metadata"][KEY]["seq"] for event in found]
    assert places == sorted(set(places))


def work(number):
    scope.event(f"of {number}")


@BOTH
def test_a_file_alone_tells_processes_apart(session, tmp_path):
    exporter = exporter_of(tmp_path)
    exporter.register("file")
    workers = [pools.Process(target=work, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    exporter.shutdown()
    found = origins(tmp_path)
    assert [found[f"of {number}"]["pid"] for number in range(3)] == [worker.pid for worker in workers]


def test_an_exporter_made_before_its_session_names_the_session_in_which_it_writes(tmp_path):
    with relay_mp.session():
        exporter = exporter_of(tmp_path)
    with relay_mp.session() as session:
        exporter.register("file")
        scope.event("m")
        exporter.shutdown()
    assert origins(tmp_path)["m"]["session"] == session.id


def test_an_origin_that_an_event_brings_along_is_kept(session, tmp_path):
    exporter = exporter_of(tmp_path)
    exporter.register("file")
    scope.event("forwarded", metadata={KEY: {"host": "other"}})
    exporter.shutdown()
    assert origins(tmp_path) == {"forwarded": {"host": "other"}}


def test_metadata_that_is_not_an_object_is_left_as_it_is(session, tmp_path):
    exporter = exporter_of(tmp_path)
    exporter.register("file")
    scope.event("listed", metadata=[1])
    exporter.shutdown()
    assert [event["metadata"] for event in events_of(tmp_path)] == [[1]]


def test_events_in_the_program_have_no_origin_in_their_metadata(session, tmp_path):
    seen = []
    subscribers.register("seen", seen.append)
    exporter = exporter_of(tmp_path)
    exporter.register("file")
    scope.event("m")
    exporter.shutdown()
    assert seen[0].metadata is None
    assert KEY not in seen[0].to_json()


@pytest.mark.parametrize("origin", [None, 1, "yes"])
def test_an_origin_that_is_not_a_bool_is_refused(tmp_path, origin):
    with pytest.raises(TypeError, match="origin is .*; expected True or False"):
        exporter_of(tmp_path, origin=origin)
    with pytest.raises(TypeError, match="origin is .*; expected True or False"):
        AtofExporter(AtofExporterConfig(sink_type="stream", url="http://127.0.0.1:1", origin=origin))


@pytest.mark.parametrize("origin", [True, False])
@pytest.mark.parametrize("session", ["process"], indirect=True)
def test_after_the_dispatcher_was_killed_no_line_is_there_twice(session, tmp_path, origin, capfd):
    exporter = exporter_of(tmp_path, origin=origin)
    exporter.register("file")
    for number in range(200):
        scope.event(f"{number}")
        if number == 100:
            os.kill(session._segment.lease()[1], signal.SIGKILL)
    exporter.shutdown()
    found = events_of(tmp_path)
    assert [event["name"] for event in found if event["name"] != "relay_mp.loss"] == [f"{n}" for n in range(200)]
    assert all((KEY in (event["metadata"] or {})) is origin for event in found)
    session.close()
    capfd.readouterr()
