"""Traces to an OTLP receiver that is down, slow, full, or refuses; and a dispatcher that is killed."""

import os
import signal

import pytest
from otlp_receiver import PROTOCOLS, OtlpReceiver
from receiver import WAIT_SECONDS, Receiver
from spans import attributes_of

from relay_mp import OpenTelemetryConfig, OpenTelemetrySubscriber, ScopeType, scope

QUICK = {"retry_initial_seconds": 0.01, "retry_max_seconds": 0.05, "schedule_delay_seconds": 0.01}
BOTH = pytest.mark.parametrize("protocol", PROTOCOLS)
PROCESS = pytest.mark.parametrize("session", ["process"], indirect=True)


def traces(receiver, *, timeout_millis=3000, **limits):
    config = OpenTelemetryConfig("full", receiver.endpoint)
    config.transport = "grpc" if receiver.protocol == "grpc" else "http_binary"
    config.timeout_millis = timeout_millis
    config.limits = {**QUICK, **limits}
    exporter = OpenTelemetrySubscriber(config)
    exporter.register("traces")
    return exporter


def emit(count, prefix=""):
    """Scopes, so twice as many events."""
    for number in range(count):
        with scope.scope(f"{prefix}{number}", ScopeType.Function):
            pass


def names(count, prefix=""):
    return [f"{prefix}{number}" for number in range(count)]


def said(receiver):
    return [span.name for span in receiver.spans]


@BOTH
@pytest.mark.parametrize("step", ["throttled", ("throttled", 0), "unavailable", "cut"])
def test_what_may_work_later_is_sent_again(session, protocol, step):
    if protocol == "grpc" and step == "throttled":
        step = ("throttled", 0.01)  # RESOURCE_EXHAUSTED without RetryInfo is for good: OTLP, "Failures"
    with OtlpReceiver(protocol, plan=[step, step]) as receiver:
        exporter = traces(receiver)
        emit(5)
        assert exporter.force_flush() is True
        assert said(receiver) == names(5)
        report = session.stats().exporters["traces"]
        assert (report.exported, report.drops) == (10, {})
        # A kept connection that is cut is opened again once, at once, which is no failure.
        assert report.failures in ((1, 2) if step == "cut" else (2,))
        exporter.shutdown()


@BOTH
def test_what_is_refused_is_dropped_and_the_rest_goes_on(session, protocol):
    with OtlpReceiver(protocol, plan=["refused"]) as receiver:
        exporter = traces(receiver, max_batch_items=1)
        emit(5)
        assert exporter.force_flush() is True
        assert said(receiver) == names(5)[1:]
        report = session.stats().exporters["traces"]
        assert (report.exported, report.drops, report.failures) == (8, {"refused": 2}, 1)
        assert ("400 Bad Request" if protocol != "grpc" else "INVALID_ARGUMENT") in report.last_error
        diagnostics = exporter.runtime_diagnostics()
        assert diagnostics.get("otel.traces_export_failed").count == 1
        assert diagnostics.get("otel.traces_dropped.refused").count == 2
        assert diagnostics.get("nothing") is None
        exporter.shutdown()
        assert exporter.runtime_diagnostics().get("otel.traces_dropped.refused").count == 2


def test_exhausted_without_a_delay_is_for_good_over_grpc(session):
    with OtlpReceiver("grpc", plan=["throttled"]) as receiver:
        exporter = traces(receiver)
        emit(1)
        exporter.shutdown()
        assert session.stats().exporters["traces"].drops == {"refused": 2}
        assert receiver.requests == 1


@BOTH
def test_spans_that_the_receiver_rejects_are_counted(session, protocol, caplog):
    with OtlpReceiver(protocol, plan=[("partial", 2, "too old")]) as receiver:
        exporter = traces(receiver, schedule_delay_seconds=WAIT_SECONDS)
        emit(5)
        exporter.shutdown()
        report = session.stats().exporters["traces"]
    assert (report.taken, report.exported, report.drops) == (10, 6, {"rejected": 4})
    assert "rejected 2 of traces: too old" in caplog.text


@BOTH
def test_fewer_than_no_spans_cannot_be_rejected(session, protocol):
    with OtlpReceiver(protocol, plan=[("partial", -2, "nonsense")]) as receiver:
        exporter = traces(receiver, schedule_delay_seconds=WAIT_SECONDS)
        emit(5)
        exporter.shutdown()
        report = session.stats().exporters["traces"]
    assert (report.taken, report.exported, report.drops, report.failures) == (10, 10, {}, 0)


def test_a_delay_of_any_length_is_one_that_the_deadline_ends(session):
    with OtlpReceiver("grpc", plan=[("throttled", 1e15)]) as receiver:
        exporter = traces(receiver, retry_deadline_seconds=0.2)
        emit(1)
        exporter.force_flush()
        assert session.stats().exporters["traces"].drops == {"deadline": 2}
        assert receiver.requests == 1
        exporter.shutdown()


@BOTH
@PROCESS
def test_a_receiver_that_is_down_holds_up_nothing_and_every_drop_is_counted(session, protocol, capfd):
    receiver = OtlpReceiver(protocol)
    receiver.close()
    exporter = traces(receiver, retry_deadline_seconds=0.2, max_queue_items=10)
    emit(50)
    session.flush()
    exporter.force_flush()
    report = session.stats().exporters["traces"]
    assert (report.taken, report.exported, report.dropped) == (100, 0, 100)
    assert set(report.drops) == {"full", "deadline"}
    assert session.stats().lost == session.stats().subscriber_errors == 0
    exporter.shutdown()
    session.close()
    assert "exporter 'traces' lost 100 of 100" in capfd.readouterr().err


@BOTH
def test_a_receiver_that_comes_back_gets_what_has_waited(session, protocol):
    receiver = OtlpReceiver(protocol)
    try:
        receiver.down()
        exporter = traces(receiver)
        emit(5)
        session.flush()
        exporter.force_flush(0.05)
        receiver.up()
        assert exporter.force_flush() is True
        assert said(receiver) == names(5)
        exporter.shutdown()
    finally:
        receiver.close()


@BOTH
def test_a_receiver_that_stalls_holds_up_nothing(session, protocol):
    with OtlpReceiver(protocol, plan=["stall"]) as receiver:
        exporter = traces(receiver, timeout_millis=WAIT_SECONDS * 1000)
        emit(1)
        receiver.await_request()
        emit(200, "more ")
        session.flush()  # all is delivered while the first request still has no answer
        assert session.stats().pending == 0
        assert receiver.spans == []
        receiver.release.set()
        exporter.shutdown()
        assert sorted(said(receiver)) == sorted([*names(1), *names(200, "more ")])


@BOTH
def test_an_attempt_that_takes_too_long_is_made_again(session, protocol):
    with OtlpReceiver(protocol, plan=["stall"]) as receiver:
        exporter = traces(receiver, timeout_millis=50)
        emit(1)
        receiver.await_request()
        receiver.await_acknowledged("traces")
        receiver.release.set()
        exporter.shutdown()
        assert set(said(receiver)) == {"0"}
        assert session.stats().exporters["traces"].failures >= 1


@BOTH
def test_shutdown_gives_up_in_time_and_counts_it(session, protocol, capfd):
    receiver = OtlpReceiver(protocol)
    receiver.close()
    exporter = traces(receiver, shutdown_timeout_seconds=0.1)
    with scope.scope("open", ScopeType.Agent):
        emit(5)
        exporter.shutdown()
        report = session.stats().exporters["traces"]
    assert (report.state, report.taken, report.unfinished) == ("closed", 11, 1)
    assert (report.drops, report.exported) == ({"shutdown": 11}, 0)
    session.close()
    capfd.readouterr()


@PROCESS
@BOTH
def test_a_dispatcher_that_is_killed_in_mid_batch(session, protocol, capfd):
    """What it had is counted; its successor goes on, and says of the ends whose start went with it that they are."""
    with OtlpReceiver(protocol, plan=["stall"]) as receiver:
        exporter = traces(receiver, timeout_millis=WAIT_SECONDS * 1000)
        emit(1)
        receiver.await_request()
        with scope.scope("across", ScopeType.Agent):
            emit(20, "queued ")
            session.flush()
            os.kill(session._segment.lease()[1], signal.SIGKILL)
            receiver.release.set()
            emit(10, "after ")
        assert exporter.force_flush() is True
        report = session.stats().exporters["traces"]
        spans = {span.name: attributes_of(span) for span in receiver.spans}
        exporter.shutdown()
    assert {f"after {number}" for number in range(10)} <= set(spans)
    assert spans["across"]["relay_mp.orphan"] is True
    assert report.taken == report.exported + report.unconfirmed
    assert report.unconfirmed >= 43
    assert report.exported >= 21
    session.close()
    assert "unconfirmed" in capfd.readouterr().err


def test_a_receiver_that_gets_more_than_a_batch_gets_several(session):
    with OtlpReceiver() as receiver:
        exporter = traces(receiver, max_batch_items=4, schedule_delay_seconds=WAIT_SECONDS)
        emit(10)
        exporter.shutdown()
        assert [len(r.resource_spans[0].scope_spans[0].spans) for r in receiver.received["traces"]] == [4, 4, 2]


def test_an_answer_that_is_no_otlp_is_no_failure(session):
    """Not every receiver answers with a message."""
    with Receiver(plan=[200, 204, 202]) as receiver:
        config = OpenTelemetryConfig("full", receiver.url)
        config.limits = {**QUICK, "max_batch_items": 1}
        exporter = OpenTelemetrySubscriber(config)
        exporter.register("traces")
        emit(3)
        exporter.shutdown()
        assert session.stats().exporters["traces"].exported == 6
