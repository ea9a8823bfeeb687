"""A dispatcher process that is killed at each of its steps, and a record that kills it each time.

The steps are the test points of the native half: a copy of the package is built with them (`with_points`), in
which a process can be told to kill itself at the n-th pass of one (strike.c). The dispatcher's own steps lie
between them: what a callback does before it dies is in step_subscribers.py.
"""

import os
import shutil
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest
import step_subscribers

import relay_mp
from relay_mp import scope, subscribers

pytestmark = pytest.mark.timeout(240)

HERE = Path(__file__).parent
PACKAGE = Path(relay_mp.__file__).parent
PROJECT = HERE.parents[1] / "pyproject.toml"
BUILD_TIMEOUT_SECONDS = 120
KILLS_TIMEOUT_SECONDS = 200  # each kill waits until another interpreter has the package
LOSS = "relay_mp.loss"


def build_with_points(module, directory):
    """Builds one of the copy's extension modules anew, from pyproject's list of its sources."""
    target = directory / module["name"].replace(".", "/")
    sources = [directory / source for source in module["sources"]]
    sources[0] = sources[0].with_suffix(".c")
    assert sources[0].exists(), f"{sources[0].name} is not there: pip install -e . leaves it beside {target.name}.pyx"
    command = [
        *(os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang") or "cc").split(),
        *("-std=c11", "-O0", "-fno-strict-aliasing", "-fPIC", "-shared", "-pthread", "-w", "-DRMP_TEST_POINTS"),
        *(f"-I{target.parent}", f"-I{sysconfig.get_paths()['include']}", *map(str, sources), str(HERE / "strike.c")),
        *("-fvisibility=hidden", "-o", f"{target}{sysconfig.get_config_var('EXT_SUFFIX')}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT_SECONDS, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def with_points(tmp_path_factory):
    """A directory for PYTHONPATH, with a relay_mp whose native half has its test points."""
    copy = tmp_path_factory.mktemp("with_points")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, copy / "relay_mp", ignore=ignored)
    for module in tomllib.loads(PROJECT.read_text(encoding="utf-8"))["tool"]["setuptools"]["ext-modules"]:
        if "relay_mp/_native/ring.c" in module["sources"]:
            build_with_points(module, copy)
    return copy


# ------------------------------------------------------------------------------------- killed at each step

# At which passes: the first, and one within a batch.
POINTS = {
    "slot.begun": (1,),
    "slot.passed": (1, 40),
    "mark.prepared": (1,),
    "mark.begun": (1,),
    "mark.stored": (3,),
    "mark.done": (1,),
    "slot.counted": (1,),
    "slot.settled": (1,),
    "reader.delivered": (1,),
    "reader.unit_released": (100,),
    "reader.released": (1,),
    "eventcount.wait": (1,),
}

KILLED_AT_EACH_STEP = """
import os, select, signal, sys, threading, time
import relay_mp
from relay_mp import scope, subscribers
from relay_mp._native import core
assert "with_points" in relay_mp.__file__, relay_mp.__file__
os.chdir(os.path.dirname(os.path.dirname(relay_mp.__file__)))  # `python -m` looks there first

ledger, strikes = sys.argv[1], sys.argv[2].split(",")
STRIKE = "RELAY_MP_TEST_STRIKE"
TIMEOUT = 0.2
receive, stop = os.pipe()
told, tell = os.pipe()
emitted = {}

def emit(producer, count):
    first = emitted.get(producer, 0)
    for n in range(first, first + count):
        scope.event("m", data=[producer, n, "x" * 600])
    emitted[producer] = first + count

def flush_for_ever():
    flushes, worst = 0, 0.0
    while not select.select([receive], [], [], 0)[0]:
        scope.event("m", data=["worker", flushes, ""])
        flushes += 1
        began = time.monotonic()
        try:
            subscribers.flush(timeout=TIMEOUT)
        except (relay_mp.FlushError, relay_mp.FlushTimeoutError):
            pass
        worst = max(worst, time.monotonic() - began - TIMEOUT)
    os.write(tell, f"{flushes} {worst * 1e3:.1f}".encode())
    os._exit(0)

with relay_mp.session(dispatcher="process", on_full="drop", ring_bytes=65536, max_event_bytes=8192) as session:
    subscribers.register("ledger", "step_subscribers:Ledger", arguments={"path": ledger})
    worker = os.fork()
    if not worker:
        os.close(stop)  # so that it ends with the owner, however that ends
        flush_for_ever()
    lease = lambda: session._segment.lease()[1]
    os.environ[STRIKE] = f"{strikes[0]}:9"
    before = lease()
    os.kill(before, signal.SIGKILL)
    kills = 1
    for number, strike in enumerate(strikes):
        deadline = time.monotonic() + 60
        while lease() in (before, 0):
            assert time.monotonic() < deadline, f"no dispatcher comes after {strike}"
            time.sleep(0.001)
        before = lease()  # it has the strike: the next one's is
        if number + 1 < len(strikes):
            os.environ[STRIKE] = f"{strikes[number + 1]}:9"
        else:
            del os.environ[STRIKE]
        while lease() == before:
            assert time.monotonic() < deadline, f"{strike} kills nobody"
            emit("main", 150)  # more than the ring has room for
            thread = threading.Thread(target=emit, args=(f"thread {number}", 150))  # it ends with losses
            thread.start()
            thread.join()
            if "counted" in strike or "settled" in strike:
                time.sleep(0.3)  # its place comes with a look at who has ended, once a second
        kills += 1
    os.write(stop, b".")
    assert os.waitpid(worker, 0)[1] == 0
    emit("main", 10)
    subscribers.flush()
    deadline = time.monotonic() + 60
    while session.stats().pending:
        assert time.monotonic() < deadline, session.stats()
        time.sleep(0.01)
stats = session.stats()
flushes, worst = os.read(told, 100).decode().split()
for process in stats.processes:
    print("process", process.pid, process.emitted, process.delivered, process.lost)
print("total", stats.emitted, stats.delivered, stats.lost, kills)
print(f"{kills} kills, {flushes} flushes of a worker, {worst} ms over the timeout at worst", file=sys.stderr)
"""


def without_repetitions(events, kills):
    """What was delivered, but for what came again right behind its first delivery and says so."""
    kept, repeated = [], 0
    for event in events:
        seq, pid, redelivered, name, data = event
        repeated += redelivered
        if redelivered and kept and kept[-1][0] == seq:
            assert kept[-1][1:2] + kept[-1][3:] == [pid, name, data]
            continue
        assert not kept or seq > kept[-1][0], f"{event} after {kept[-1]}"
        kept.append(event)
    assert repeated <= kills
    return kept


def check_accounts(ledger, out):
    """Each emit is delivered once or marked as lost once, under its process."""
    *processes, total = [line.split() for line in out.splitlines()]
    emitted, delivered, lost, kills = map(int, total[1:])
    kept = without_repetitions(step_subscribers.read(ledger), kills)
    marks = [event for event in kept if event[3] == LOSS]
    assert (len(kept) - len(marks), sum(mark[4]["lost"] for mark in marks)) == (delivered, lost)
    assert emitted == delivered + lost
    assert lost > 0
    assert all(mark[4]["causes"] == {"full": mark[4]["lost"]} for mark in marks)
    for _, pid, of_it, arrived, missing in processes:
        assert int(of_it) == int(arrived) + int(missing)
        assert sum(event[1] == int(pid) for event in kept if event[3] != LOSS) == int(arrived)
        assert sum(mark[4]["lost"] for mark in marks if mark[4]["pid"] == int(pid)) == int(missing)
    following = {}
    for *_, data in [event for event in kept if event[3] != LOSS]:
        producer, n, _ = data
        assert n > following.get(producer, -1)
        following[producer] = n
    return kills


def kill_at(run_script, with_points, tmp_path, strikes):
    ledger = tmp_path / "ledger"
    path = os.pathsep.join([str(with_points), str(HERE.parent)])
    done = run_script(
        f"import sys; sys.path.insert(0, {str(with_points)!r})\n" + KILLED_AT_EACH_STEP,
        *(ledger, ",".join(strikes)),
        environment={"PYTHONPATH": path},
        timeout_seconds=KILLS_TIMEOUT_SECONDS,
    )
    print(done.stderr.splitlines()[-1])
    assert check_accounts(ledger, done.stdout) == len(strikes) + 1


@pytest.mark.parametrize("half", [0, 1])
def test_killed_at_each_step_it_loses_no_event_and_no_mark_of_a_loss(run_script, with_points, tmp_path, half):
    strikes = [f"{point}:{nth}" for point, passes in POINTS.items() for nth in passes]
    kill_at(run_script, with_points, tmp_path, strikes[half::2])


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_killed_a_thousand_times_at_its_steps(run_script, with_points, tmp_path):
    """Each point at its first passes, in turn: 1,000 kills, 10 a session."""
    points = [point for point in POINTS if not point.endswith(("counted", "settled"))]
    for part in range(100):
        folder = tmp_path / f"{part}"
        folder.mkdir()
        nth = 1 + part * 7 % 60
        # It waits before the first event that it is started for; then there is always one, with a worker that flushes.
        strikes = [f"{point}:{1 if point == 'eventcount.wait' else nth}" for point in points]
        kill_at(run_script, with_points, folder, strikes)


# -------------------------------------------------------------------------------- what kills it each time


@pytest.mark.parametrize("max_deliveries", [1, 3])
def test_an_event_that_kills_it_each_time_is_given_up_counted_and_marked(tmp_path, capfd, max_deliveries):
    ledger = tmp_path / "ledger"
    with relay_mp.session(dispatcher="process", max_deliveries=max_deliveries) as session:
        subscribers.register("x", "step_subscribers:Poisoned", arguments={"path": str(ledger), "kills": "kills"})
        for name in ("before", "kills", "after"):
            scope.event(name)
        result = subscribers.flush()
        assert (result.lost, result.causes) == (1, {"poison": 1})
        stats = session.stats()
    assert (stats.emitted, stats.delivered, stats.lost, stats.pending) == (3, 2, 1, 0)
    (process,) = stats.processes
    assert process.causes == {"poison": 1}
    found = [(name, redelivered) for _, _, redelivered, name, _ in step_subscribers.read(ledger)]
    again = [("kills", True)] * (max_deliveries - 1)
    assert found == [("before", False), ("kills", False), *again, (LOSS, False), ("after", False)]
    seqs = [event[0] for event in step_subscribers.read(ledger)]
    assert seqs == sorted(seqs)
    (mark,) = [data for *_, name, data in step_subscribers.read(ledger) if name == LOSS]
    assert mark == {"pid": os.getpid(), "lost": 1, "causes": {"poison": 1}}
    said = capfd.readouterr().err
    assert f"has ended {max_deliveries} times while it delivered" in said
    assert "'kills'" in said


def test_a_mark_that_kills_it_each_time_is_given_up_and_the_stream_goes_on(tmp_path, capfd):
    ledger = tmp_path / "ledger"
    with relay_mp.session(dispatcher="process", max_deliveries=1) as session:
        # The loss of the first brings about a mark that kills as well.
        subscribers.register("x", "step_subscribers:Poisoned", arguments={"path": str(ledger), "kills": ""})
        scope.event("kills")
        assert subscribers.flush().causes == {"poison": 1}
        assert session.stats().lost == 1
    assert [name for _, _, _, name, _ in step_subscribers.read(ledger)] == ["kills", LOSS]
    assert "the mark is given up, the loss stays counted" in capfd.readouterr().err


def test_a_request_that_kills_it_each_time_is_refused(tmp_path):
    ledger = tmp_path / "ledger"
    with relay_mp.session(dispatcher="process", max_deliveries=2) as session:
        subscribers.register("x", "step_subscribers:Ledger", arguments={"path": str(ledger)})
        with pytest.raises(relay_mp.SubscriberError, match="has ended 2 times while it delivered this request"):
            subscribers.register("y", "step_subscribers:NeverMade", arguments={})
        scope.event("m")
        assert subscribers.flush().lost == 0
        assert session.stats().emitted == 1
    assert [name for _, _, _, name, _ in step_subscribers.read(ledger)] == ["m"]
