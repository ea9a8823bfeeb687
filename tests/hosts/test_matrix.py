"""The host matrix: what must hold, wherever workers live. A row is a host, a cell a test, and each row one real run.

    arrive     every event of every task arrives, once, and the session has lost none
    parent     a task stands under the scope, or the request, that submitted it, and under nothing that others left open
    recycled   so it is in workers that came in the place of others
    killed     what a killed worker had emitted is there; what was submitted after that arrives, under its own submitter
    leftovers  no process, no segment, and no scope that is open but those that tasks left so

A cell is `yes`, or a word that says why there is nothing to assert: see `REASONS`. The programs are in `programs/`; all
run the work of programs/workload.py. Rows whose packages only the extra `hosts` has are for `tox -e hosts`.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

COLUMNS = ("arrive", "parent", "recycled", "killed", "leftovers")

TABLE = """
host                           | program                             | arrive | parent | recycled | killed | leftovers
------------------------------ | ----------------------------------- | ------ | ------ | -------- | ------ | ---------
Pool fork                      | pools pool relay_mp fork            | yes    | yes    | yes      | yes    | yes
Pool spawn                     | pools pool relay_mp spawn           | yes    | yes    | yes      | yes    | yes
Pool forkserver                | pools pool relay_mp forkserver      | yes    | yes    | yes      | yes    | yes
Pool instrumented              | pools pool multiprocessing fork     | yes    | yes    | yes      | yes    | yes
ProcessPoolExecutor fork       | pools executor - fork               | yes    | yes    | fork     | yes    | yes
ProcessPoolExecutor spawn      | pools executor - spawn              | yes    | yes    | yes      | yes    | yes
ProcessPoolExecutor forkserver | pools executor - forkserver         | yes    | yes    | yes      | yes    | yes
Process fork                   | pools process relay_mp fork         | yes    | yes    | each     | yes    | yes
Process forkserver             | pools process relay_mp forkserver   | yes    | yes    | each     | yes    | yes
Process instrumented           | pools process multiprocessing spawn | yes    | yes    | each     | yes    | yes
os.fork                        | pools fork                          | yes    | yes    | each     | yes    | yes
subprocess                     | pools subprocess                    | yes    | yes    | each     | yes    | yes
subprocess, attach             | pools attach                        | yes    | yes    | each     | yes    | yes
ThreadPoolExecutor             | pools threads                       | yes    | yes    | inside   | inside | yes
asyncio                        | pools asyncio                       | yes    | yes    | inside   | inside | yes
joblib                         | pools joblib                        | yes    | yes    | yes      | yes    | yes
loky                           | pools loky                          | yes    | yes    | yes      | yes    | yes
multiprocess fork              | pools pool multiprocess fork        | yes    | yes    | yes      | yes    | yes
multiprocess spawn             | pools pool multiprocess spawn       | yes    | yes    | yes      | yes    | yes
multiprocess forkserver        | pools pool multiprocess forkserver  | yes    | yes    | yes      | yes    | yes
billiard fork                  | pools pool billiard fork            | yes    | yes    | yes      | yes    | yes
billiard spawn                 | pools pool billiard spawn           | yes    | yes    | yes      | yes    | yes
pathos                         | pools pathos                        | yes    | yes    | yes      | yes    | yes
mpire                          | pools mpire - fork                  | yes    | yes    | yes      | yes    | yes
gevent                         | pools greenlets gevent              | yes    | yes    | inside   | inside | yes
eventlet                       | pools greenlets eventlet            | yes    | yes    | inside   | inside | yes
Dask tasks                     | clusters dask-tasks                 | yes    | yes    | yes      | yes    | yes
Dask actors                    | clusters dask-actors                | yes    | yes    | yes      | yes    | yes
Ray tasks                      | clusters ray-tasks                  | yes    | yes    | yes      | yes    | yes
Ray actors                     | clusters ray-actors                 | yes    | yes    | yes      | yes    | yes
Celery prefork                 | celery prefork                      | yes    | yes    | yes      | yes    | yes
Celery threads                 | celery threads                      | yes    | yes    | worker   | worker | yes
Celery gevent                  | celery gevent                       | yes    | yes    | worker   | worker | yes
Celery prefork, 2 streams      | celery prefork apart                | yes    | yes    | yes      | yes    | yes
Celery threads, 2 streams      | celery threads apart                | yes    | yes    | worker   | worker | yes
Celery gevent, 2 streams       | celery gevent apart                 | yes    | yes    | worker   | worker | yes
gunicorn sync                  | servers gunicorn                    | yes    | yes    | yes      | yes    | yes
gunicorn gthread               | servers gunicorn -k gthread         | yes    | yes    | yes      | yes    | yes
gunicorn gevent                | servers gunicorn -k gevent          | yes    | yes    | yes      | yes    | yes
gunicorn preload               | servers gunicorn --preload          | yes    | yes    | yes      | yes    | yes
gunicorn reload (SIGHUP)       | servers gunicorn-hup                | yes    | yes    | yes      | yes    | yes
gunicorn --reload              | servers gunicorn-touch --reload     | yes    | yes    | yes      | yes    | yes
uvicorn --workers              | servers uvicorn                     | yes    | yes    | yes      | yes    | yes
hypercorn --workers            | servers hypercorn                   | yes    | yes    | drops    | ends   | yes
pytest-xdist                   | fixture xdist                       | yes    | yes    | yes      | yes    | yes
pytest-forked                  | fixture forked                      | yes    | yes    | yes      | yes    | yes
unittest                       | fixture unittest                    | yes    | yes    | yes      | yes    | yes
"""

REASONS = {
    "drops": "the server drops the requests that are under way when a worker has had its last (`max_requests`)",
    "ends": "the server ends as a whole when one of its workers is killed",
    "fork": "the standard library refuses `max_tasks_per_child` under fork",
    "each": "each task has a process of its own",
    "inside": "its tasks run in the program's own process, which ends with it",
    "worker": "its tasks run in the worker's one process, which neither recycles nor outlives a kill",
}

TASKS = 4
"""Of each stage, as programs/workload.py has it."""

HERE = Path(__file__).parent
TIMEOUT_SECONDS = 180
ENDING_SECONDS = 20
"""What a host's helpers have to end in, once its program has: multiprocessing's forkserver, Ray's own processes."""

EXTRA = {
    "billiard": ["billiard"],
    "celery": ["celery", "redis"],
    "dask-actors": ["distributed"],
    "dask-tasks": ["distributed"],
    "eventlet": ["eventlet"],
    "forked": ["pytest_forked"],
    "gevent": ["gevent"],
    "gunicorn": ["gunicorn"],
    "gunicorn-hup": ["gunicorn"],
    "gunicorn-touch": ["gunicorn"],
    "hypercorn": ["hypercorn"],
    "loky": ["loky"],
    "mpire": ["mpire"],
    "multiprocess": ["multiprocess"],
    "pathos": ["pathos"],
    "ray-actors": ["ray"],
    "ray-tasks": ["ray"],
    "uvicorn": ["uvicorn"],
}
"""Packages that a row needs, by a word of its program, and that only the extra `hosts` has."""


class Row(NamedTuple):
    host: str
    program: str
    cells: dict[str, str]

    @property
    def needs(self) -> list[str]:
        return [name for word in self.program.split() for name in EXTRA.get(word, [])]


def rows() -> list[Row]:
    lines = [[cell.strip() for cell in line.split("|")] for line in TABLE.strip().splitlines()]
    return [Row(host, program, dict(zip(COLUMNS, cells, strict=True))) for host, program, *cells in lines[2:]]


ROWS = rows()


def test_every_cell_is_asserted_or_has_a_reason():
    used = {cell for row in ROWS for cell in row.cells.values()} - {"yes"}
    assert used == set(REASONS)
    assert len({row.host for row in ROWS}) == len(ROWS)


# ---- the runs ----


class Account(NamedTuple):
    """Of one run: what programs/workload.py wrote, and what was left afterwards."""

    owner: int
    scopes: dict[str, str]
    pids: dict[str, list[int]]
    events: list[dict]
    lost: int
    processes: list[str]
    segments: list[str]


def _marked(mark: str) -> list[str]:
    """Processes that have the run's mark in their environment, as all that it has started have."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MATRIX") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid}: {' '.join(process.cmdline())[:120]}")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def _run(row: Row, directory: Path) -> Account:
    segments, account = directory / "segments", directory / "account.json"
    segments.mkdir()
    name, *arguments = row.program.split()
    mark = str(directory)
    paths = os.pathsep.join([str(HERE / "programs"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {
        **os.environ, "PYTHONPATH": paths, "MATRIX": mark, "ACCOUNT": str(account), "RELAY_MP_DIRECTORY": str(segments)
    }  # fmt: skip
    output = directory / "output"
    with open(output, "w") as file:  # not a pipe: a helper that outlives the program would hold it open
        done = subprocess.run(
            [sys.executable, str(HERE / "programs" / f"run_{name}.py"), *arguments],
            env=environment, cwd=directory, stdout=file, stderr=file, timeout=TIMEOUT_SECONDS, check=False,
        )  # fmt: skip
    assert done.returncode == 0, output.read_text()
    deadline = time.monotonic() + ENDING_SECONDS
    while (processes := _marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return Account(**json.loads(account.read_text()), processes=processes, segments=os.listdir(segments))


class Runs:
    """Each row is run once, at the first of its cells; a run that fails, fails them all."""

    def __init__(self, directories: pytest.TempPathFactory) -> None:
        self._directories = directories
        self._found: dict[str, Account | BaseException] = {}

    def __call__(self, row: Row) -> Account:
        if row.host not in self._found:
            try:
                self._found[row.host] = _run(row, self._directories.mktemp("row"))
            except (AssertionError, subprocess.TimeoutExpired) as error:
                self._found[row.host] = error
        found = self._found[row.host]
        if isinstance(found, BaseException):
            raise AssertionError(f"the program of {row.host} has failed: {found}")
        return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory)


# ---- the cells ----


def _starts(account: Account) -> dict[str, dict]:
    return {event["name"]: event for event in account.events if event.get("scope_category") == "start"}


def _numbers(stage: str) -> range:
    first = {"arrive": 0, "recycled": 100, "killed": 200}[stage]
    return range(first, first + TASKS)


def _assert_stands_under(account: Account, event: dict, stage: str) -> None:
    """Below the stage's scope; in a web server, below the request that stands under it."""
    by_uuid = {start["uuid"]: start for start in account.events if start.get("scope_category") == "start"}
    parent = by_uuid.get(event["parent_uuid"])
    if parent is not None and parent["name"] == "GET":
        event = parent
    assert event["parent_uuid"] == account.scopes[stage], (event["name"], stage)


def _assert_whole(account: Account, stage: str) -> None:
    """Every event of the stage's tasks is there once, under its submitter."""
    starts, counts = _starts(account), Counter((event["name"], event.get("scope_category")) for event in account.events)
    inside = Counter(event["data"] for event in account.events if event["name"] == "inside")
    for number in _numbers(stage):
        name = f"work {number}"
        assert counts[name, "start"] == counts[name, "end"] == inside[number] == 1, (name, counts)
        _assert_stands_under(account, starts[name], stage)


def assert_arrive(account: Account) -> None:
    assert account.lost == 0
    _assert_whole(account, "arrive")


def assert_parent(account: Account) -> None:
    starts = _starts(account)
    for stage in account.pids:
        for number in _numbers(stage):
            _assert_stands_under(account, starts[f"work {number}"], stage)
    for event in account.events:
        if event["name"] == "inside":
            assert event["parent_uuid"] == starts[f"work {event['data']}"]["uuid"]


def assert_recycled(account: Account) -> None:
    assert set(account.pids["recycled"]) - set(account.pids["arrive"]), "no worker has been recycled"
    _assert_whole(account, "recycled")


def assert_killed(account: Account) -> None:
    words = [event for event in account.events if event["name"] == "last words"]  # several where the host tries again
    assert len({event["uuid"] for event in words}) == len(words) > 0
    for event in words:
        _assert_stands_under(account, event, "killed")
    assert account.lost == 0
    _assert_whole(account, "killed")


def assert_leftovers(account: Account) -> None:
    assert (account.processes, account.segments) == ([], [])
    ended = {event["uuid"] for event in account.events if event.get("scope_category") == "end"}
    still_open = Counter(event["name"] for event in account.events if event.get("scope_category") == "start"
                         and event["uuid"] not in ended)  # fmt: skip
    names = Counter(event["name"] for event in account.events)
    died = {"GET": names["last words"]} if names["GET"] else {}  # the request's scope
    assert still_open == Counter({"left open": TASKS // 2 * len(account.pids), **died})


ASSERT = {
    "arrive": assert_arrive,
    "parent": assert_parent,
    "recycled": assert_recycled,
    "killed": assert_killed,
    "leftovers": assert_leftovers,
}

CELLS = [
    pytest.param(row, column, id=f"{row.host}-{column}", marks=[pytest.mark.long] if row.needs else [])
    for row in ROWS
    for column in COLUMNS
    if row.cells[column] == "yes"
]


@pytest.mark.parametrize(("row", "column"), CELLS)
def test_cell(runs, needs, row, column):
    needs(*row.needs)
    ASSERT[column](runs(row))
