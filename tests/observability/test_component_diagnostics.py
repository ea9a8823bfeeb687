"""What is said about configurations of the observability component, beside what nemo_relay says."""

import json
import subprocess
import sys

import component_cases as cases
import pytest


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


def test_what_is_said_is_what_nemo_relay_says(said):
    ours, theirs = (dict(zip(cases.ALIKE, said[library], strict=False)) for library in ("relay_mp", "nemo_relay"))
    assert ours == theirs


def test_differences_from_nemo_relay_are_the_meant_ones(said):
    first = len(cases.ALIKE)
    for library, which in (("nemo_relay", 1), ("relay_mp", 2)):
        found = dict(zip(cases.DIFFERENT, said[library][first:], strict=False))
        assert found == {name: row[which] for name, row in cases.DIFFERENT.items()}, library


def test_policies_count_as_with_nemo_relay(said):
    """The document's and the component's own, in all combinations; a repeated and a disabled component."""
    first = len(cases.ALIKE) + len(cases.DIFFERENT)
    assert len(said["relay_mp"][first:]) == len(cases.POLICIES) + 2 == 34
    assert said["relay_mp"][first:] == said["nemo_relay"][first:]
