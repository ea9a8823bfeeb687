"""ATIF to an HTTP receiver that is well, slow, or answers with what it should not; and without its recovery copies."""

import json
import shutil

import pytest
from receiver import WAIT_SECONDS, Receiver, wait_until

from relay_mp import AtifFileExporter, ScopeType, scope, subscribers
from relay_mp.observability import HttpStorageConfig

BOTH = pytest.mark.parametrize("session", ["thread", "process"], indirect=True)
QUICK = {"retry_initial_seconds": 0.01, "retry_max_seconds": 0.05}


@pytest.fixture(autouse=True)
def copies(own_temporary_directory):
    """Where the recovery copies are: in a temporary directory of the test's own."""
    return lambda: sorted(path.stem.removeprefix("relay-mp-atif-") for path in own_temporary_directory.rglob("*.json"))


def storage(receiver, timeout_millis=3000, **limits):
    to = HttpStorageConfig(receiver.url, timeout_millis=timeout_millis)
    exporter = AtifFileExporter(storage=to, limits={**QUICK, **limits})
    exporter.register("atif")
    return exporter


def agent(name):
    with scope.scope(name, ScopeType.Agent) as handle:
        scope.event("said")
    return handle.uuid


def posted(receiver):
    return [json.loads(body)["trajectory_id"] for body in receiver.bodies]


@BOTH
@pytest.mark.parametrize("step", [429, 503, (503, {"Retry-After": "0"}), "cut"])
def test_what_may_work_later_is_sent_again(session, copies, step):
    with Receiver([step, step]) as receiver:
        exporter = storage(receiver)
        sent = [agent("a"), agent("b")]
        assert exporter.force_flush() is True
        assert posted(receiver) == sent
        assert copies() == []
        exporter.shutdown()
    report = session.stats().exporters["atif"]
    assert (report.exported, report.drops) == (6, {})
    assert report.failures == 2


@BOTH
def test_what_is_refused_stays_in_its_copy_and_the_rest_goes_on(session, copies, capfd):
    with Receiver([400]) as receiver:
        exporter = storage(receiver)
        refused, taken = agent("refused"), agent("taken")
        exporter.shutdown()
        assert posted(receiver) == [taken]
    assert copies() == [refused]
    report = session.stats().exporters["atif"]
    assert (report.exported, report.drops, report.failures) == (3, {"refused": 3}, 1)
    assert "400 Bad Request" in report.last_error
    session.close()
    capfd.readouterr()


@BOTH
def test_a_receiver_that_stalls_holds_up_nothing(session, copies):
    with Receiver(["stall"]) as receiver:
        exporter = storage(receiver, timeout_millis=WAIT_SECONDS * 1000)
        sent = [agent("first")]
        receiver.await_request()
        sent += [agent(str(number)) for number in range(20)]
        subscribers.flush()  # all is delivered, and written, while the first request still has no answer
        assert session.stats().pending == 0
        assert copies() == sorted(sent)
        receiver.release.set()
        exporter.shutdown()
        assert posted(receiver) == sent
    assert copies() == []


def test_an_attempt_that_takes_too_long_is_made_again(session):
    with Receiver(["stall"]) as receiver:
        exporter = storage(receiver, timeout_millis=50)
        sent = agent("a")
        wait_until(lambda: receiver.bodies)
        receiver.release.set()
        exporter.shutdown()
        assert posted(receiver) == [sent]
    assert session.stats().exporters["atif"].failures >= 1


@BOTH
def test_copies_that_are_removed_while_they_wait_are_not_missed(session, tmp_path, copies):
    with Receiver(["stall"]) as receiver:
        exporter = storage(receiver, timeout_millis=WAIT_SECONDS * 1000)
        sent = [agent("first"), agent("second")]
        receiver.await_request()
        subscribers.flush()
        assert copies() == sorted(sent)
        for directory in (tmp_path / "tmp").iterdir():
            shutil.rmtree(directory)
        sent.append(agent("third"))
        receiver.release.set()
        exporter.shutdown()
        assert posted(receiver) == sent
    assert session.stats().exporters["atif"].lost == 0
    assert copies() == []


@BOTH
@pytest.mark.parametrize("taken", [True, False])
def test_without_room_for_its_copy_a_trajectory_is_sent_all_the_same(session, monkeypatch, small_disk, taken, capfd):
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    large = "x" * (1 << 17)  # twice the disk
    with Receiver([] if taken else [400]) as receiver:
        exporter = storage(receiver)
        with scope.scope("agent", ScopeType.Agent, input=large) as handle:
            pass
        exporter.shutdown()
        assert posted(receiver) == [handle.uuid] * taken
    report = session.stats().exporters["atif"]
    assert (report.exported, report.drops) == ((2, {}) if taken else (0, {"refused": 2}))
    assert report.failures == (1 if taken else 2)
    assert ("No space left" in report.last_error) is taken
    assert list(small_disk.rglob("*")) == []
    session.close()
    capfd.readouterr()


@BOTH
def test_a_directory_of_files_that_is_removed_is_made_anew(session, tmp_path):
    exporter = AtifFileExporter(tmp_path / "runs")
    exporter.register("atif")
    agent("before")
    exporter.force_flush()
    shutil.rmtree(tmp_path / "runs")
    after = agent("after")
    exporter.shutdown()
    assert [path.stem.removeprefix("relay-mp-atif-") for path in (tmp_path / "runs").iterdir()] == [after]
    assert session.stats().exporters["atif"].exported == 6
