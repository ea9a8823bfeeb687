"""Celery's own worker with Redis' own server: a task's scopes stand under its publisher's."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest

pytest.importorskip("celery")
pytest.importorskip("redis")

PUBLISHER = """
import json, os, signal, subprocess, sys
from collections import Counter
import relay_mp
from relay_mp import ScopeType, scope, subscribers
sys.path.insert(0, HOSTS)
directory, pool, apart = sys.argv[1:]
if apart == "apart":
    os.environ["DIRECTORY"] = directory
else:
    session = relay_mp.session()
import celery_program
from celery_program import dies, fails, leaves_a_scope_open, outer, work

command = [sys.executable, "-m", "celery", "-A", "celery_program", "worker", "--pool", pool, "--concurrency", "2",
           "--loglevel", "ERROR", "--without-gossip", "--without-mingle"]
if pool == "prefork":
    command += ["--max-tasks-per-child", "3"]
environment = {**os.environ, "PYTHONPATH": HOSTS}
worker = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
if apart == "apart":
    session = relay_mp.session(directory=directory)
seen = []
subscribers.register("seen", lambda event: seen.append(json.loads(event.to_json())))
with scope.scope("first", ScopeType.Agent) as first:
    pids = {result.get(timeout=60) for result in [work.delay(number) for number in range(10)]}
    outer.delay(10).get(timeout=60)
with scope.scope("second", ScopeType.Agent) as second:
    leaves_a_scope_open.delay().get(timeout=60)
    again = [work.delay(number) for number in range(20, 24)]
    for result in again:
        result.get(timeout=60)
    try:
        fails.delay().get(timeout=60)
    except LookupError:
        pass
    else:
        raise SystemExit("it did not fail")
if pool == "prefork":
    with scope.scope("third", ScopeType.Agent) as third:
        try:
            dies.delay().get(timeout=60)
        except Exception as error:
            assert "WorkerLost" in type(error).__name__, error
        work.delay(30).get(timeout=60)
worker.send_signal(signal.SIGTERM)
assert worker.wait(60) == 0, worker.returncode
if apart == "apart":
    found = [json.loads(line) for line in open(directory + "/worker.jsonl")]
    assert not [event for event in seen if event["name"].startswith("work")]
else:
    assert subscribers.flush().lost == 0
    found = seen
starts = {event["name"]: event for event in found if event.get("scope_category") == "start"}
ends = Counter(event["name"] for event in found if event.get("scope_category") == "end")
for number in range(10):
    assert starts[f"work {number}"]["parent_uuid"] == first.uuid
    assert ends[f"work {number}"] == 1
for number in range(20, 24):  # after a task that had left a scope open
    assert starts[f"work {number}"]["parent_uuid"] == second.uuid
assert starts["outer 10"]["parent_uuid"] == first.uuid
assert starts["work 10"]["parent_uuid"] == starts["outer 10"]["uuid"]
assert starts["fails"]["parent_uuid"] == second.uuid
end, = [event for event in found if event["name"] == "fails" and event["scope_category"] == "end"]
assert end["metadata"]["exception.message"] == "it"
inside = [event for event in found if event["name"] == "inside"]
assert len(inside) == (16 if pool == "prefork" else 15), len(inside)
assert all(starts[f"work {event['data']}"]["uuid"] == event["parent_uuid"] for event in inside)
if pool == "prefork":
    assert len(pids) > 2  # recycled
    assert [event["parent_uuid"] for event in found if event["name"] == "last words"] == [third.uuid]
    assert starts["work 30"]["parent_uuid"] == third.uuid
session.close()
assert session.stats().lost == 0
print("whole", [name for name in os.listdir(directory) if name.startswith("relay_mp")])
"""


@pytest.fixture
def redis(tmp_path):
    """The URL of a Redis server of this test's own."""
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server; Debian's package redis-server has it")
    import redis as client

    path = tmp_path / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    client.Redis(unix_socket_path=str(path)).ping()
                    break
                except client.exceptions.ConnectionError:
                    assert time.monotonic() < deadline, "redis-server did not start"
                    time.sleep(0.02)
            yield f"redis+socket://{path}"
        finally:
            server.terminate()


@pytest.mark.parametrize("apart", ["a child", "apart"])
@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent"])
def test_a_tasks_scopes_stand_under_its_publishers(run_script, needs, redis, tmp_path, pool, apart):
    """In a worker that the publisher has started, one stream; in one that was started apart, a stream of its own."""
    needs("celery", "redis", *(["gevent"] if pool == "gevent" else []))
    program = PUBLISHER.replace("HOSTS", repr(str(Path(__file__).parent)))
    environment = {"BROKER": redis, "BACKEND": redis}
    ran = run_script(program, tmp_path, pool, apart, environment=environment, timeout_seconds=120)
    assert ran.stdout == "whole []\n", ran.stderr


UNINSTRUMENT = """
from celery import signals
from relay_mp.integrations import celery
before = [len(signal.receivers) for signal, _ in celery._receivers()]
celery.instrument()
celery.instrument()
print([len(signal.receivers) - count for (signal, _), count in zip(celery._receivers(), before)])
celery.uninstrument()
celery.uninstrument()
print([len(signal.receivers) - count for (signal, _), count in zip(celery._receivers(), before)])
"""


def test_instrumenting_twice_is_once_and_can_be_taken_back(run_script, needs):
    needs("celery")
    assert run_script(UNINSTRUMENT).stdout == "[1, 1, 1]\n[0, 0, 0]\n"
