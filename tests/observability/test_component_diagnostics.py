"""What is said about configurations of the observability component, beside what nemo_relay says."""

import json
import subprocess
import sys

import component_cases as cases
import pytest

import relay_mp
from relay_mp import plugin


@pytest.fixture(scope="module")
def said():
    """By library, what it says about each of the documents."""
    found = {}
    for library in ("nemo_relay", "relay_mp"):
        done = subprocess.run(
            [sys.executable, cases.__file__, library],
            input=json.dumps(cases.documents()),
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        found[library] = json.loads(done.stdout)
    return found


def place(name):
    return [*cases.ALIKE, *cases.DIFFERENT].index(name)


@pytest.mark.parametrize("name", cases.ALIKE)
def test_what_is_said_is_what_nemo_relay_says(said, name):
    assert said["relay_mp"][place(name)] == said["nemo_relay"][place(name)]


@pytest.mark.parametrize("name", cases.DIFFERENT)
def test_differences_from_nemo_relay_are_the_meant_ones(said, name):
    _, theirs, ours, _ = cases.DIFFERENT[name]
    assert said["nemo_relay"][place(name)] == theirs
    assert said["relay_mp"][place(name)] == ours


def test_policies_count_as_with_nemo_relay(said):
    """The document's and the component's own, in all combinations; a repeated and a disabled component."""
    first = len(cases.ALIKE) + len(cases.DIFFERENT)
    assert len(said["relay_mp"][first:]) == len(cases.POLICIES) + 2 == 34
    assert said["relay_mp"][first:] == said["nemo_relay"][first:]
