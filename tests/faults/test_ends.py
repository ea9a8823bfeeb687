"""How processes end, and are interrupted: nothing that an emit has returned from is lost, and what is on stderr is
the program's own."""

import mmap
import sys
from subprocess import run

import named_subscribers
import pytest
import workers
from processes import TIMEOUT_SECONDS, long

from relay_mp import subscribers

pytestmark = pytest.mark.timeout(150)


# ----------------------------------------------------------------------- sys.exit and atexit in a worker

WORKERS = """
import sys
import relay_mp
import workers
from relay_mp import pools, subscribers
method, how = sys.argv[1:]
with relay_mp.session() as session:
    seen = []
    subscribers.register("x", seen.append)
    context = pools.get_context(method)
    processes = [context.Process(target=getattr(workers, how), args=(n,)) for n in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    lost = subscribers.flush().lost
    marks = [sum(event.kind == "mark" and event.data["worker"] == n for event in seen) for n in range(2)]
    ends = [event for event in seen if getattr(event, "scope_category", "") == "end"]
    print([process.exitcode for process in processes], lost, marks, len(ends))
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_sys_exit_in_a_worker_loses_nothing_and_says_nothing(run_script, method):
    done = run_script(WORKERS, method, "leave")
    marks = [workers.MARKS] * 2
    assert (done.stdout, done.stderr) == (f"[3, 3] 0 {marks} 2\n", "")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_sys_exit_with_a_message_prints_that_and_no_more(run_script, method):
    done = run_script(WORKERS, method, "leave_with_a_message")
    assert done.stdout == f"[1, 1] 0 {[workers.MARKS] * 2} 0\n"
    assert done.stderr.splitlines() == ["the user's own words"] * 2


FORKED_RUN_ATEXIT = sys.version_info >= (3, 13)
"""Whether multiprocessing's forked children run what is registered with atexit."""


@pytest.mark.parametrize(
    ("method", "runs_atexit"), [("fork", FORKED_RUN_ATEXIT), ("spawn", True), ("forkserver", FORKED_RUN_ATEXIT)]
)
def test_an_exception_in_atexit_of_a_worker_is_the_users_own(run_script, method, runs_atexit):
    """Where multiprocessing's children run it at all, its emits are still delivered."""
    done = run_script(WORKERS, method, "raise_at_exit")
    assert done.stdout == f"[0, 0] 0 {[workers.MARKS + runs_atexit] * 2} 0\n"
    assert done.stderr.count("RuntimeError: the user's own") == done.stderr.count("Traceback") == 2 * runs_atexit


# ------------------------------------------------------------------------------- atexit in the owner

ATEXIT = """
import atexit, sys
def late():
    scope.event("after the close")
    raise RuntimeError("the user's own, late")
atexit.register(late)
import relay_mp
from relay_mp import scope, subscribers
session = relay_mp.session(dispatcher=sys.argv[1])
subscribers.register("x", "named_subscribers:Lines", arguments={"path": sys.argv[2]})
def early():
    scope.event("in atexit")
    raise RuntimeError("the user's own, early")
atexit.register(early)
for n in range(100):
    scope.event(f"{n}")
if sys.argv[3] == "raise":
    raise RuntimeError("the user's own, at once")
sys.exit(3)
"""


@pytest.mark.parametrize(("how", "code"), [("raise", 1), ("exit", 3)])
@pytest.mark.parametrize("dispatcher", ["thread", "process"])
def test_exceptions_in_atexit_of_the_owner_lose_nothing(run_script, tmp_path, dispatcher, how, code):
    """Handlers run last in, first out: what is registered after the session runs before it closes."""
    lines = tmp_path / "lines"
    done = run_script(ATEXIT, dispatcher, lines, how, returncode=code)
    assert named_subscribers.names(lines) == [*(f"{n}" for n in range(100)), "in atexit"]
    own = ["early", "late", *(["at once"] if how == "raise" else [])]
    assert done.stderr.count("Traceback") == len(own)
    assert all(f"RuntimeError: the user's own, {which}\n" in done.stderr for which in own)
    assert "relay_mp/" not in done.stderr


# ---------------------------------------------------------------- threads that emit while the interpreter ends

DAEMONS = """
import mmap, sys, threading
from relay_mp import scope
with open(sys.argv[1], "r+b") as file:
    returned = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
def emit(thread):
    while True:
        scope.event("m", data={"text": "x" * 300})
        returned[thread] += 1
for n in range(4):
    threading.Thread(target=emit, args=(n,), daemon=True).start()
while not all(returned[:4]):
    pass
"""


@pytest.mark.parametrize("session", [{"block_timeout_seconds": 3600.0}], indirect=True)
def test_threads_that_emit_while_their_interpreter_ends_lose_nothing(session, tmp_path):
    """Daemon threads are stopped anywhere, one perhaps between its claim and its commit: that has not returned."""
    counted: dict[int, int] = {}

    def count(event):
        counted[event.pid] = counted.get(event.pid, 0) + (event.name == "m")

    subscribers.register("count", count)
    returned = []
    for number in range(5):
        cells = tmp_path / f"{number}"
        cells.write_bytes(bytes(mmap.PAGESIZE))
        command = [sys.executable, "-c", DAEMONS, str(cells)]
        done = run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        returned.append(sum(memoryview(cells.read_bytes()).cast("Q")[:4]))
    subscribers.flush()
    assert len(counted) == 5
    for found, expected in zip(counted.values(), returned, strict=True):
        assert expected <= found <= expected + 4


# ------------------------------------------------------------------------------------------ interrupted

INTERRUPTED = """
import os, random, signal, sys, threading
import relay_mp
from relay_mp import scope, subscribers
interrupts, dispatcher, lines = int(sys.argv[1]), sys.argv[2], sys.argv[3]
choose = random.Random(interrupts)
progress = acknowledged = 0
def interrupt():
    for number in range(interrupts):
        enough = progress + choose.randint(0, 40)
        while acknowledged < number or progress < enough:
            os.sched_yield()
        for _ in range(choose.randint(0, 200)):
            pass
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
returned, tries = set(), 0
with relay_mp.session(dispatcher=dispatcher) as session:
    subscribers.register("x", "named_subscribers:Lines", arguments={"path": lines})
    thread = threading.Thread(target=interrupt)
    thread.start()
    while acknowledged < interrupts:
        try:
            while True:
                progress += 1
                tries += 1
                name = f"{tries}"
                kind = tries % 8
                if kind == 0:
                    with scope.scope(name, relay_mp.ScopeType.Agent, data={"text": "x" * 100}):
                        scope.event("inside")
                elif kind == 1 and tries % 40 == 1:
                    subscribers.flush()
                    continue
                else:
                    scope.event(name, data={"text": "x" * 1000})
                returned.add(tries)
        except KeyboardInterrupt:
            acknowledged += 1
    thread.join()
    subscribers.flush()
    stats = session.stats()
    # An emit that was interrupted while it waited for space has not returned: its event is given up, and counted.
    assert stats.lost <= interrupts and stats.causes.keys() <= {"full"}, stats
    assert stats.emitted == stats.delivered + stats.lost, stats
with open(lines + ".returned", "w") as file:
    print(*sorted(returned), sep="\\n", file=file)
print(stats.emitted, stats.delivered, stats.lost)
"""


@pytest.mark.parametrize("interrupts", [100, long(2000)])
@pytest.mark.parametrize("dispatcher", ["thread", "process"])
def test_interrupts_at_any_moment_lose_nothing(run_script, tmp_path, interrupts, dispatcher):
    """No emit that has returned is lost; and all that is on stderr is the line that tells of those that had not."""
    lines = tmp_path / "lines"
    done = run_script(INTERRUPTED, interrupts, dispatcher, lines)
    emitted, passed, lost = map(int, done.stdout.split())
    numbers = f"{emitted} events emitted, {passed} delivered, {lost} lost (full {lost}), 0 failures of subscribers"
    assert done.stderr == (f"relay_mp: {numbers}\n" if lost else "")
    delivered = set(named_subscribers.names(lines))
    returned = (tmp_path / "lines.returned").read_text().split()
    assert len(returned) > interrupts
    assert set(returned) <= delivered
