"""A worker that initializes the owner's configuration makes no second exporter, and removes none of the owner's."""

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import component_workers
import pytest

from relay_mp import plugin, scope, subscribers
from relay_mp._plugins import files

WORKERS = 2


@pytest.fixture(autouse=True)
def _own_configuration(tmp_path, monkeypatch, session):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(files, "SYSTEM_FILE", tmp_path / "etc" / "plugins.toml")
    yield
    plugin.clear()


def run(method, path):
    """What each worker's report says."""
    if method == "subprocess":
        code = "import json, sys, component_workers; print(json.dumps(component_workers.work(sys.argv[1])))"
        paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        command = [sys.executable, "-c", code, path]
        environment = {**os.environ, "PYTHONPATH": paths}
        return [
            json.loads(subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True).stdout)
            for _ in range(WORKERS)
        ]
    with multiprocessing.get_context(method).Pool(WORKERS) as pool:
        found = pool.map(component_workers.work, [path] * WORKERS, chunksize=1)
        pool.close()
        pool.join()
    return found


@pytest.mark.parametrize(
    ("method", "session"),
    [("fork", "thread"), ("fork", "process"), ("spawn", "thread"), ("forkserver", "process"), ("subprocess", "thread")],
    indirect=["session"],
)
def test_the_owners_exporters_are_everybodys(session, method, tmp_path):
    path = str(tmp_path / "a.jsonl")
    plugin.activate(component_workers.config(path))
    scope.event("before")
    assert run(method, path) == [[]] * WORKERS
    scope.event("after")
    subscribers.flush()
    events = [json.loads(line) for line in Path(path).read_text().splitlines()]
    found = [(each["name"], each["data"]) for each in events]
    assert (found[0], found[-1]) == (("before", None), ("after", None))
    assert sorted(name for name, _ in found[1:-1]) == ["cleared"] * WORKERS + ["worker"] * WORKERS
    session.request_exporter_flush("relay-mp-plugin.v1.observability:1:atof:shared")
    assert list(session.stats().exporters) == ["relay-mp-plugin.v1.observability:1:atof:shared"]
    assert plugin.report()["exporters"]["atof:shared"]["taken"] == 2 * WORKERS + 2


def test_what_the_owner_has_not_configured_is_told_in_the_worker(session, seen, tmp_path):
    path = tmp_path / "a.jsonl"
    assert run("fork", str(path)) == [["observability.exporter_not_installed"]] * WORKERS
    subscribers.flush()
    assert len(seen) == 2 * WORKERS
    assert not path.exists()
