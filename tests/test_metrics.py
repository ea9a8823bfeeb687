"""Metrics as marks, against the peer: which measurements pass, what they become, and what refuses the others."""

import json
import subprocess
import sys

import metric_cases
import pytest

import relay_mp
from relay_mp import MetricKind, MetricMeasurement, MetricValueType, scope
from relay_mp._emit.metrics import MAX_BOUNDARIES
from relay_mp.errors import PayloadError


@pytest.mark.parametrize("session", [{"strict": True}], indirect=True, ids=["strict"])
def test_measurements_are_taken_and_refused_as_by_the_peer(session):
    command = [sys.executable, metric_cases.__file__]
    peers = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)
    ours = json.loads(json.dumps(metric_cases.run(relay_mp)))
    assert len(ours) > 250
    assert {name: ours[name] for name in ours if ours[name] != peers[name]} == {}
    assert ours.keys() == peers.keys()


def histogram(boundaries):
    return MetricMeasurement("m", MetricKind.Histogram, MetricValueType.F64, 1.0, boundaries=boundaries)


def test_boundaries_up_to_the_bound(seen):
    scope.metric("measured", [histogram(range(MAX_BOUNDARIES))])
    with pytest.raises(PayloadError, match="has 65 entries; expected at most 64"):
        scope.metric("measured", [histogram(range(MAX_BOUNDARIES + 1))])


@pytest.mark.parametrize("boundaries", ["12", ["x"], [None], 5])
def test_boundaries_that_are_no_numbers_are_refused_at_once(boundaries):
    with pytest.raises(TypeError):
        histogram(boundaries)
