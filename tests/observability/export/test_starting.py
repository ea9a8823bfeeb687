"""An exporter that cannot start: what waits for it, what is dropped, what is told; and what replaces what."""

import pytest

import relay_mp
from relay_mp import scope, subscribers
from relay_mp._deliver.replacement import Named
from relay_mp.errors import SubscriberError
from relay_mp.observability.export import starting
from relay_mp.observability.export.sink import Sink
from relay_mp.observability.export.starting import Waiting, start


class Collecting(Sink):
    """Keeps names."""

    made = 0

    def __init__(self, **_arguments):
        super().__init__()
        type(self).made += 1
        self.names = []

    def _export(self, event):
        if event.name == "bad":
            raise KeyError("bad")
        self.names.append(event.name)
        self.count_exported()


class Refusing:
    """Its making fails."""

    def __init__(self, **_arguments):
        raise ValueError("never")


class Absent:
    """Stands for an event."""

    def __init__(self, name):
        self.name = name


def failing(error, times):
    """Makes a sink, after so many failures."""
    left = [times]

    def make():
        if left[0]:
            left[0] -= 1
            raise SubscriberError("it failed") from error
        return Collecting()

    return make


def quick(make, limit=10):
    waiting = Waiting(make, limit)
    waiting._pause = 0.0
    return waiting


def test_a_sink_that_starts_at_once_is_the_sink_itself():
    sink = start("test_starting:Collecting", {})
    assert type(sink).__name__ == "Collecting"


def test_what_waits_is_handed_over_in_order_and_what_comes_later_behind_it():
    waiting = quick(failing(OSError("port taken"), 3))
    waiting.request_flush()
    waiting._next_attempt = float("inf")
    for number in range(4):
        waiting(Absent(f"{number}"))
    report = waiting.report()
    assert (report.state, report.taken, report.queued, report.flushed) == ("failing", 4, 4, 0)
    assert report.last_error == "OSError: port taken"
    while waiting.request_flush() is None:
        pass
    waiting(Absent("4"))
    assert waiting._sink.names == ["0", "1", "2", "3", "4"]
    report = waiting.report()
    assert (report.state, report.taken, report.exported, report.failures) == ("running", 5, 5, 3)


def test_what_waits_is_bounded_and_the_rest_is_counted():
    waiting = quick(failing(OSError(), 10_000), limit=3)
    waiting._next_attempt = float("inf")
    for number in range(5):
        waiting(Absent(f"{number}"))
    report = waiting.report()
    assert (report.queued, report.drops, report.taken) == (3, {"not_started": 2}, 5)
    waiting.finish()
    report = waiting.report()
    assert (report.state, report.queued, report.drops) == ("closed", 0, {"not_started": 5})
    waiting.close()


def test_the_last_moment_is_an_attempt_too():
    waiting = quick(failing(OSError(), 1))
    waiting.request_flush()
    waiting._next_attempt = float("inf")
    waiting(Absent("0"))
    waiting.finish()
    assert waiting._sink.names == ["0"]
    assert waiting.report().state == "closed"


def test_what_cannot_come_right_is_not_tried_again():
    calls = []

    def make():
        calls.append(1)
        raise SubscriberError("it failed") from ValueError("no such setting")

    waiting = quick(make)
    for number in range(5):
        waiting(Absent(f"{number}"))
        waiting.request_flush()
    assert len(calls) == 1
    report = waiting.report()
    assert (report.drops, report.queued, report.last_error) == ({"not_started": 5}, 0, "ValueError: no such setting")


def test_pauses_double_up_to_a_bound():
    waiting = Waiting(failing(OSError(), 100), 1)
    pauses = []
    for _ in range(20):
        pauses.append(waiting._pause)
        waiting.request_flush()
    assert pauses[:4] == [0.05, 0.1, 0.2, 0.4]
    assert pauses[-1] == starting.LONGEST_PAUSE_SECONDS


def test_a_sink_that_fails_on_what_has_waited_goes_on(caplog):
    waiting = quick(failing(OSError(), 1))
    waiting.request_flush()
    waiting._next_attempt = float("inf")
    for name in ("0", "bad", "1"):
        waiting(Absent(name))
    waiting.request_flush()
    report = waiting.report()
    assert (waiting._sink.names, report.drops) == (["0", "1"], {"KeyError": 1})
    assert "an exporter that has started failed" in caplog.text


# ---- replacing at one place ----


@pytest.mark.parametrize("session", ["thread", "process"], indirect=True)
def test_replacing_is_idempotent_and_leaves_what_is_alike(session):
    one = Named("one", "test_starting:Collecting", {})
    session.replace([], [one])
    scope.event("m")
    session.replace(["one", "nobody"], [one])
    session.replace([], [one])
    subscribers.flush()
    assert session.request_exporter_flush("one").exported == 1


@pytest.mark.parametrize("session", ["thread", "process"], indirect=True)
def test_what_cannot_be_replaced_goes_on_at_the_same_place(session, tmp_path):
    from_file = "relay_mp.observability.atof.exporter:atof_file"
    old = Named("old", from_file, {"path": str(tmp_path / "a.jsonl")})
    session.replace([], [old])
    scope.event("1")
    new = [Named("new", from_file, {"path": str(tmp_path / "b.jsonl")}), Named("bad", "test_starting:Refusing", {})]
    with pytest.raises(relay_mp.SubscriberError, match="ValueError: never"):
        session.replace(["old"], new)
    scope.event("2")
    subscribers.flush()
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "b.jsonl").read_text() == ""
    assert session._segment.subscribers == 1
    session.replace(["old"], [])
    assert session._segment.subscribers == 0
