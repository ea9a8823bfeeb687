"""A million scopes that are open at once, in each sink that keeps them (Perfetto's is in test_perfetto.py)."""

import os

import pytest
from receiver import Receiver

from relay_mp._native import core
from relay_mp.events import KIND_END, KIND_START, decode, pack_record
from relay_mp.observability.atif.exporter import atif as atif_sink
from relay_mp.observability.otel.traces import OpenTelemetryConfig, OpenTelemetrySubscriber
from relay_mp.observability.otel.traces_sink import TracesSink
from relay_mp.observability.prometheus.exporter import prometheus
from relay_mp.types import CATEGORIES

AGENT, FUNCTION = CATEGORIES.index("agent"), CATEGORIES.index("function")


def event(kind, number):
    """Of the scopes 1, 2, ..., of which the first is an agent and the others are directly in it."""
    uuid, parent = number.to_bytes(16), None if number == 1 else (1).to_bytes(16)
    category = AGENT if number == 1 else FUNCTION
    return decode(pack_record(kind, uuid, parent, core.now_us(), "s", category, thread_id=7), number, os.getpid())


@pytest.fixture
def make(tmp_path):
    """Makes the sink of that name, with a bound."""
    with Receiver() as receiver:

        def traces(bound):
            config = OpenTelemetryConfig("full", f"{receiver.url}/v1/traces")
            config.max_open_scopes = bound
            ((_, arguments),) = OpenTelemetrySubscriber(config)._sinks
            return TracesSink(**arguments)

        def atif(bound):
            return atif_sink(output_directory=str(tmp_path), max_open_scopes=bound, max_trajectory_events=bound)

        kinds = {"atif": atif, "otlp": traces, "prometheus": lambda bound: prometheus(max_open_scopes=bound)}
        yield lambda name, bound: kinds[name](bound)


@pytest.mark.parametrize("scopes", [5_000, pytest.param(1_000_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", ["atif", "otlp", "prometheus"])
def test_open_scopes_are_kept_up_to_the_bound_and_each_is_accounted_for(make, name, scopes):
    sink = make(name, scopes)
    for number in range(1, scopes + 1):
        sink(event(KIND_START, number))
    report = sink.report()
    assert (report.open_scopes, report.evicted, report.dropped) == (scopes, 0, 0)

    sink(event(KIND_START, scopes + 1))
    report = sink.report()
    # ATIF gives up whole trajectories, and what comes under one that is gone belongs to none.
    assert (report.open_scopes, report.evicted) == ((0, scopes) if name == "atif" else (scopes, 1))

    for number in range(2, scopes + 2, 2):
        sink(event(KIND_END, number))
    sink.close()
    report = sink.report()
    taken = scopes + 1 + len(range(2, scopes + 2, 2))
    assert report.taken == taken == report.exported + report.ignored + report.dropped
    assert set(report.drops) <= {"full", "shutdown"}
