"""Celery's own worker, with Redis' own server: `run_celery.py POOL [apart]`.

As a child of the publisher the worker is in its session. Apart it has one of its own, begun at `worker_init`, whose
stream names the publisher's scopes as parents.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from workload import Host, end, run, tell

POOL, APART = sys.argv[1], "apart" in sys.argv[2:]
WAIT_SECONDS = 60


def start_redis():
    """A Redis server of this program's own, and its URL."""
    import redis

    path = Path("redis.sock").resolve()
    command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", "."]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            redis.Redis(unix_socket_path=str(path)).ping()
            return server, f"redis+socket://{path}"
        except redis.exceptions.ConnectionError:
            assert time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.02)


class Celery(Host):
    """`instrument()` where the application is made: celery_program.py."""

    def open(self):
        import celery_program

        self.program = celery_program
        if not APART:
            self.worker = start_worker()

    def map(self, numbers):
        return [result.get(timeout=WAIT_SECONDS) for result in [self.program.work.delay(each) for each in numbers]]

    def kill(self):
        if POOL == "prefork":
            with pytest.raises(Exception, match="SIGKILL"):
                self.program.dies.delay().get(timeout=WAIT_SECONDS)

    def close(self):
        self.program.outer.delay(900).get(timeout=WAIT_SECONDS)
        with pytest.raises(LookupError):
            self.program.fails.delay().get(timeout=WAIT_SECONDS)
        if not APART:
            assert end(self.worker) == 0


def start_worker():
    command = [sys.executable, "-m", "celery", "-A", "celery_program", "worker", "--pool", POOL, "--concurrency", "2",
               "--loglevel", "ERROR", "--without-gossip", "--without-mingle"]  # fmt: skip
    if POOL == "prefork":
        command += ["--max-tasks-per-child", "2"]
    return subprocess.Popen(command, env={**os.environ, "BEGINS": "1" if APART else ""})


def told():
    return json.loads(Path(os.environ["ACCOUNT"]).read_text())


def check_more(events):
    """A task that a task publishes stands under it; a task that fails says of what."""
    outer, inner = [
        next(event for event in events if event["name"] == name and event["scope_category"] == "start")
        for name in ("outer 900", "work 900")
    ]
    assert inner["parent_uuid"] == outer["uuid"]
    (failed,) = [event for event in events if event["name"] == "fails" and event["scope_category"] == "end"]
    assert failed["metadata"]["exception.message"] == "it"


def tell_of_the_workers_stream(worker):
    """The account has the publisher's scopes; the events are those of the worker's own stream."""
    assert end(worker) == 0
    account = told()
    assert not [event for event in account["events"] if event["name"].startswith("work")]
    events = [json.loads(line) for line in Path("worker.jsonl").read_text().splitlines()]
    lost = account["lost"] + sum(event["name"] == "relay_mp.loss" for event in events)
    tell(account["scopes"], account["pids"], events, lost)


if __name__ == "__main__":
    server, url = start_redis()
    os.environ["REDIS"] = url
    try:
        apart = start_worker() if APART else None
        run(Celery())
        if apart is not None:
            tell_of_the_workers_stream(apart)
        check_more(told()["events"])
    finally:
        server.terminate()
        server.wait()
