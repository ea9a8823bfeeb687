"""ATOF to an HTTP receiver that is well, down, slow, or answers with what it should not."""

import os
import signal
import threading

import pytest
from receiver import WAIT_SECONDS, Receiver, closed_port

import relay_mp
from relay_mp import AtofExporter, AtofExporterConfig, scope, subscribers
from relay_mp.observability.export.http import _seconds

BOTH = pytest.mark.parametrize("session", ["thread", "process"], indirect=True)
QUICK = {"retry_initial_seconds": 0.01, "retry_max_seconds": 0.05, "schedule_delay_seconds": 0.01}

NO_DATE = f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT"


def stream(url, transport="ndjson", **limits):
    config = AtofExporterConfig()
    config.sink_type, config.url, config.transport = "stream", url, transport
    config.limits = {**QUICK, **limits}
    return config


@pytest.fixture
def receiver():
    with Receiver() as receiver:
        yield receiver


def emit(count, prefix=""):
    for i in range(count):
        scope.event(f"{prefix}{i}")


def names(count):
    return [str(i) for i in range(count)]


@BOTH
@pytest.mark.parametrize("transport", ["http_post", "ndjson"])
def test_every_event_arrives_once_in_order(session, receiver, transport):
    exporter = AtofExporter(stream(receiver.url, transport))
    exporter.register("stream")
    emit(50)
    assert exporter.force_flush() is True
    assert receiver.names == names(50)
    assert (len(receiver.bodies) == 50) is (transport == "http_post")
    report = session.stats().exporters["stream"]
    assert (report.taken, report.exported, report.queued, report.drops) == (50, 50, 0, {})
    exporter.shutdown()
    assert session.stats().exporters["stream"].state == "closed"
    assert receiver.headers[0]["Content-Type"] == "application/x-ndjson"


def test_without_origin_lines_are_the_canonical_json(session, receiver):
    lines = []
    subscribers.register("lines", lambda event: lines.append(event.to_json()))
    config = stream(receiver.url)
    config.origin = False
    exporter = AtofExporter(config)
    exporter.register("stream")
    with scope.scope("s", relay_mp.ScopeType.Tool, input={"a": "ü\u2028"}):
        emit(3)
    exporter.shutdown()
    assert b"".join(receiver.bodies).decode() == "".join(line + "\n" for line in lines)


@BOTH
def test_headers_may_come_from_the_environment_by_name(receiver, monkeypatch, session):
    config = stream(receiver.url)
    config.headers, config.header_env = {"X-Plain": "1"}, {"Authorization": "PATH"}
    exporter = AtofExporter(config)
    exporter.register("stream")
    emit(1)
    exporter.shutdown()
    assert receiver.headers[0]["X-Plain"] == "1"
    assert receiver.headers[0]["Authorization"] == os.environ["PATH"]


def test_a_variable_that_is_not_set_is_said_at_registration(session, receiver):
    config = stream(receiver.url)
    config.header_env = {"Authorization": "NO_SUCH_VARIABLE"}
    with pytest.raises(relay_mp.SubscriberError, match="variable for the header 'Authorization' is not set"):
        AtofExporter(config).register("stream")


@BOTH
@pytest.mark.parametrize("step", [429, 503, (503, {"Retry-After": "0"}), (503, {"Retry-After": NO_DATE}), "cut"])
def test_what_may_work_later_is_sent_again(session, receiver, step):
    receiver.plan.extend([step, step])
    exporter = AtofExporter(stream(receiver.url))
    exporter.register("stream")
    emit(10)
    assert exporter.force_flush() is True
    assert receiver.names == names(10)
    report = session.stats().exporters["stream"]
    assert (report.exported, report.drops, report.failures) == (10, {}, 2)
    exporter.shutdown()


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("3", 3.0), ("0", 0.0), ("-1", 0.0), ("inf", 60.0), ("Fri, 31 Dec 9999 23:59:59 GMT", 60.0)]
    + [(said, None) for said in (None, "nan", "soon", NO_DATE)],
)
def test_how_long_a_receiver_asks_to_be_left_alone(said, seconds):
    assert _seconds(said) == seconds


@BOTH
def test_what_is_refused_is_dropped_and_the_rest_goes_on(session, receiver):
    receiver.plan.extend([400])
    exporter = AtofExporter(stream(receiver.url, "http_post"))
    exporter.register("stream")
    emit(10)
    assert exporter.force_flush() is True
    assert receiver.names == names(10)[1:]
    report = session.stats().exporters["stream"]
    assert (report.exported, report.drops, report.failures) == (9, {"refused": 1}, 1)
    assert "answered 400 Bad Request: because of 400" in report.last_error
    exporter.shutdown()


@BOTH
def test_a_receiver_that_is_down_holds_up_nothing_and_every_drop_is_counted(session, tmp_path, capfd):
    stream_config = stream(f"http://127.0.0.1:{closed_port()}/", retry_deadline_seconds=0.2, max_queue_items=20)
    file_config = AtofExporterConfig()
    file_config.output_directory, file_config.filename = str(tmp_path), "events.jsonl"
    exporter = AtofExporter([stream_config, file_config])
    exporter.register("both")
    emit(100)
    session.flush()
    exporter.force_flush()
    reports = session.stats().exporters
    assert reports["both"].taken == 100
    assert reports["both"].exported == 0
    assert set(reports["both"].drops) == {"full", "deadline"}
    assert reports["both"].dropped == 100
    assert (reports["both.2"].exported, reports["both.2"].dropped) == (100, 0)
    assert session.stats().lost == session.stats().subscriber_errors == 0
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 100
    exporter.shutdown()
    session.close()
    assert "exporter 'both' lost 100 of 100 (full" in capfd.readouterr().err


@BOTH
def test_a_receiver_that_stalls_holds_up_nothing(session, receiver):
    receiver.plan.append("stall")
    exporter = AtofExporter(stream(receiver.url, timeout_seconds=WAIT_SECONDS))
    exporter.register("stream")
    emit(1)
    receiver.await_request()
    emit(500, "more ")
    session.flush()  # all is delivered while the first request still has no answer
    assert session.stats().pending == 0
    assert receiver.bodies == []
    receiver.release.set()
    exporter.shutdown()
    assert len(receiver.names) == 501


@pytest.mark.parametrize("step", ["stall", "drip"])
def test_an_attempt_that_takes_too_long_is_made_again(session, receiver, step):
    """All of it counts, not the wait for its next byte."""
    receiver.plan.append(step)
    exporter = AtofExporter(stream(receiver.url, timeout_seconds=0.05))
    exporter.register("stream")
    emit(5)
    assert exporter.force_flush() is True
    assert receiver.names == names(5)
    assert session.stats().exporters["stream"].failures >= 1
    exporter.shutdown()


@BOTH
def test_shutdown_gives_up_in_time_and_counts_it(session, capfd):
    exporter = AtofExporter(stream(f"http://127.0.0.1:{closed_port()}/", shutdown_timeout_seconds=0.1))
    exporter.register("stream")
    emit(30)
    exporter.shutdown()
    report = session.stats().exporters["stream"]
    assert (report.state, report.drops) == ("closed", {"shutdown": 30})
    session.close()
    capfd.readouterr()


@BOTH
def test_closing_the_session_sends_what_is_queued(session, receiver):
    AtofExporter(stream(receiver.url, schedule_delay_seconds=WAIT_SECONDS)).register("stream")
    emit(20)
    session.close()
    assert receiver.names == names(20)
    report = session.stats().exporters["stream"]
    assert (report.state, report.exported) == ("closed", 20)


def test_closing_waits_for_no_attempt_that_is_under_way(session, receiver, capfd):
    receiver.plan.append("stall")
    AtofExporter(stream(receiver.url, timeout_seconds=WAIT_SECONDS)).register("stream")
    scope.event("m")
    receiver.await_request()
    session.close(0.1)  # the attempt would go on for half a minute
    report = session.stats().exporters["stream"]
    assert (report.state, report.exported, report.drops) == ("closed", 0, {"shutdown": 1})
    receiver.release.set()
    for thread in threading.enumerate():
        if thread.name == "relay_mp-exporter":
            thread.join(WAIT_SECONDS)
    assert receiver.requests >= 1
    capfd.readouterr()


@pytest.mark.parametrize("session", ["process"], indirect=True)
def test_what_a_dispatcher_that_did_not_end_in_time_had_queued_is_counted(session, receiver, capfd):
    receiver.plan.append("stall")
    limits = {"timeout_seconds": WAIT_SECONDS, "shutdown_timeout_seconds": WAIT_SECONDS}
    AtofExporter(stream(receiver.url, **limits)).register("stream")
    scope.event("m")
    receiver.await_request()
    session.close(0.2)  # the attempt would go on for half a minute
    report = session.stats().exporters["stream"]
    assert (report.taken, report.exported, report.unconfirmed) == (1, 0, 1)
    assert "exporter 'stream' lost 1 of 1 (unconfirmed 1)" in capfd.readouterr().err


@pytest.mark.parametrize("session", ["process"], indirect=True)
def test_what_a_killed_dispatcher_had_queued_is_counted(session, receiver, capfd):
    receiver.plan.append("stall")
    exporter = AtofExporter(stream(receiver.url, timeout_seconds=WAIT_SECONDS))
    exporter.register("stream")
    emit(1)
    receiver.await_request()
    emit(40, "queued ")
    session.flush()
    os.kill(session._segment.lease()[1], signal.SIGKILL)
    receiver.release.set()
    emit(10, "after ")
    assert exporter.force_flush() is True
    report = session.stats().exporters["stream"]
    arrived = set(receiver.names)
    assert {f"after {i}" for i in range(10)} <= arrived
    assert report.taken == report.exported + report.unconfirmed
    assert report.unconfirmed >= 41
    assert report.exported >= 10
    exporter.shutdown()
    session.close()
    assert "unconfirmed" in capfd.readouterr().err


def test_dots_in_keys_may_be_replaced(session, receiver):
    config = stream(receiver.url)
    config.field_name_policy = "replace_dots"
    exporter = AtofExporter(config)
    exporter.register("stream")
    scope.event("m", data=[{"a.b": {"c.d": 1}, "a_b": 2}], metadata={"x.y": None})
    exporter.shutdown()
    (event,) = receiver.events
    assert event["data"] == [{"a_b": 2, "a_b_": {"c_d": 1}}]
    assert event["metadata"].pop("relay_mp_origin")["session"] == session.id
    assert event["metadata"] == {"x_y": None}
    assert list(event) == sorted(event)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("url", "ftp://there", "url is 'ftp://there'; a stream sink needs one that begins with"),
        ("transport", "websocket", "transport is 'websocket'; expected one of 'http_post', 'ndjson'"),
        ("field_name_policy", "drop", "field_name_policy is 'drop'; expected one of"),
        ("timeout_millis", 0, "timeout_millis is 0; expected at least 1"),
    ],
)
def test_a_wrong_configuration_is_refused(field, value, said):
    config = stream("http://127.0.0.1:1/")
    setattr(config, field, value)
    with pytest.raises(ValueError, match=said):
        AtofExporter(config)


def test_a_wrong_bound_is_said_at_registration(session):
    with pytest.raises(relay_mp.SubscriberError, match="max_queue_items is 0; expected 1 to"):
        AtofExporter(stream("http://127.0.0.1:1/", max_queue_items=0)).register("stream")
