"""The receivers of OTLP logs and metrics, and the programs in which people look at a run."""

import importlib
import importlib.util
import os
from pathlib import Path

import pytest
from otlp_receiver import PROTOCOLS, OtlpReceiver

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(params=PROTOCOLS)
def receiver(request):
    with OtlpReceiver(request.param) as receiver:
        yield receiver


@pytest.fixture
def http():
    """Where the protocol makes no difference."""
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture
def viewers(request, monkeypatch):
    """examples/viewers.py. Where what the test's module names as `NEEDED` is not there, the test is skipped; by
    `tox -e viewers`, it fails."""
    monkeypatch.syspath_prepend(EXAMPLES)
    modules, command = request.module.NEEDED
    absent = [name for name in ("playwright", *modules) if importlib.util.find_spec(name) is None]
    if not absent:
        viewers = importlib.import_module("viewers")
        if getattr(viewers, f"{command}_command")() is not None:
            return viewers
    reason = f"needs {', '.join(absent)}, of the extra `viewers`" if absent else f"there is no {command}"
    (pytest.fail if os.environ.get("RELAY_MP_TEST_VIEWERS") == "required" else pytest.skip)(reason)


@pytest.fixture
def own_temporary_directory(tmp_path, monkeypatch):
    """The temporary directory of this process and of those that it starts: the test's own."""
    directory = tmp_path / "tmp"
    directory.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(directory))
    monkeypatch.setenv("TMPDIR", str(directory))
    return directory
