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


PEERS_FIELDS = """
import dataclasses, json, sys
from importlib import import_module
module = import_module(sys.argv[1] + ".observability")
names = [name for name in dir(module) if name.endswith("Config") or name in ("ComponentSpec", "ConfigPolicy")]
def plain(field):
    if field.default_factory is not dataclasses.MISSING:
        made = field.default_factory()
        return dataclasses.asdict(made) if dataclasses.is_dataclass(made) else made
    return "required" if field.default is dataclasses.MISSING else field.default
print(json.dumps({name: {f.name: plain(f) for f in dataclasses.fields(getattr(module, name))} for name in names}))
"""

OTHER_DEFAULTS = {
    ("AtifConfig", "agent_name"): ("NeMo Relay", "relay_mp"),
    ("AtifConfig", "filename_template"): ("nemo-relay-atif-{session_id}.json", "relay-mp-atif-{session_id}.json"),
}


def test_sections_have_the_fields_and_defaults_of_nemo_relays():
    """All of them but S3 storage; more fields, and sections, are of this package."""
    theirs, ours = (
        json.loads(
            subprocess.run([sys.executable, "-c", PEERS_FIELDS, library], capture_output=True, check=True).stdout
        )
        for library in ("nemo_relay", "relay_mp")
    )
    assert set(theirs) - set(ours) == {"S3StorageConfig"}
    for name in set(theirs) & set(ours):
        different = {
            (name, field): (default, ours[name].get(field, "missing"))
            for field, default in theirs[name].items()
            if ours[name].get(field, "missing") != default
        }
        assert different == {place: pair for place, pair in OTHER_DEFAULTS.items() if place[0] == name}
        assert list(theirs[name]) == [field for field in ours[name] if field in theirs[name]]
