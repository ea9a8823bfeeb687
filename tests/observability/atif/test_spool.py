"""Records from a dispatcher process to who asks for them: each once, whatever the dispatcher dies of."""

import threading

import named_subscribers
import pytest
from ahead import LOSS, PROCESS, Hold, emit, numbers

from relay_mp import AtifExporter, scope, subscribers
from relay_mp._deliver.dispatcher import RUN_EVENTS
from relay_mp.events import KIND_MARK, MarkEvent, pack_record
from relay_mp.observability.atif.spool import Spool, read_records


def event(number, data=None):
    uuid = bytes(14) + number.to_bytes(2, "big")
    return MarkEvent(pack_record(KIND_MARK, uuid, None, 0, f"{number}", data=data), number, 1)


def names(records):
    return [MarkEvent(record, 0, 1).name for record in records]


def read(path, start=0):
    with path.open("rb") as file:
        return read_records(file, start)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "spool").touch()
    return tmp_path / "spool"


def test_whole_records_are_read_and_the_rest_later(path):
    spool = Spool(str(path))
    spool(event(0))
    assert spool.take_batch([event(1, "x" * 300), event(2, "x" * 70_000)]) == 2
    whole = path.read_bytes()
    records, end = read(path)
    assert (names(records), end) == (["0", "1", "2"], len(whole))
    for cut in (1, 100, 69_999, 70_000 + 200):
        path.write_bytes(whole[:-cut])
        records, end = read(path)
        path.write_bytes(whole)
        rest, behind = read(path, end)
        assert names(records) + names(rest) == ["0", "1", "2"]
        assert behind == len(whole)
    spool.close()


@pytest.mark.parametrize("torn", [1, 2, 20])
def test_a_successor_cuts_off_what_is_torn_and_writes_nothing_twice(path, torn):
    first = Spool(str(path))
    first(event(0))
    first.take_batch([event(1), event(2)])
    first.close()
    with path.open("ab") as file:
        file.write(path.read_bytes()[:torn])
    second = Spool(str(path))
    for number in range(1, 4):
        second(event(number))
    second.take_batch([event(4), event(5)])
    second.close()
    assert names(read(path)[0]) == numbers(6)


def test_what_does_not_fit_is_taken_back(small_disk):
    path = small_disk / "spool"
    path.touch()
    spool = Spool(str(path))
    assert spool.take_batch([event(n, "x" * 1000) for n in range(RUN_EVENTS)]) == 0
    spool(event(0, "x" * 1000))
    with pytest.raises(OSError, match=r"no room for 100\d\d\d bytes of 1 events"):
        spool(event(1, "x" * 100_000))
    assert spool.take_batch([event(2), event(3)]) == 2
    spool.close()
    assert names(read(path)[0]) == ["0", "2", "3"]


@PROCESS
def test_two_that_ask_at_once_gather_each_record_once(session, monkeypatch):
    exporter = AtifExporter("run", "a", "1")
    exporter.register("atif")
    emit(10)
    subscribers.flush()
    other = threading.Thread(target=exporter.export)

    def read_while_the_other_asks(file, start):
        if other.ident is None:
            other.start()
            other.join(0.05)  # it waits for this one; else it is through by then
        return read_records(file, start)

    monkeypatch.setattr("relay_mp.observability.atif.exporter.read_records", read_while_the_other_asks)
    exporter.export()
    other.join()
    assert seen_by(exporter) == numbers(10)
    exporter.deregister("atif")


def seen_by(exporter):
    return [event["name"] for event in exporter.export()["extra"]["observed_events"]]


@PROCESS
def test_killed_while_records_are_ahead_each_is_there_once(session, tmp_path):
    exporter = AtifExporter("run", "a", "1")
    exporter.register("atif")
    subscribers.register("dies", "named_subscribers:Dies", arguments={"path": str(tmp_path / "seen")})
    with Hold(tmp_path):
        emit(20)
        scope.event("die")
        emit(200)
    subscribers.flush()
    assert seen_by(exporter) == ["hold", *numbers(20), "die", *numbers(200)]
    assert [fields[2] for fields in named_subscribers.read(tmp_path / "seen")].count(True) == 1
    exporter.deregister("atif")


@PROCESS
def test_the_mark_of_a_loss_comes_behind_what_is_ahead(session, tmp_path):
    exporter = AtifExporter("run", "a", "1")
    exporter.register("atif")
    arguments = {"path": str(tmp_path / "ledger"), "kills": "kills"}
    subscribers.register("poisoned", "step_subscribers:Poisoned", arguments=arguments)
    with Hold(tmp_path):
        emit(5)
        scope.event("kills")
        emit(100)
    subscribers.flush()
    found = seen_by(exporter)
    assert sorted(found) == sorted(["hold", *numbers(5), "kills", *numbers(100), LOSS])
    assert [name for name in found if name != LOSS] == ["hold", *numbers(5), "kills", *numbers(100)]
    exporter.deregister("atif")
