"""Instructions of what every event takes, counted by valgrind: what CI can judge, for no other work changes them.

    python -m benchmarks.callgrind      prints instructions a call, by phase

    loop        an empty loop, which is taken off the others
    mark        scope.event with four fields
    packb       msgpack.packb of the same record
    take        a mark's record out of the ring, and its event made
    deliver     an event to one callback that does nothing
    read        an event's name, time and data
    json        an event's line of JSON
    origin      the same with who has emitted it
    with        an empty `with scope.scope(...)` block: two records

One process does all under callgrind. A call of getppid, which nothing else here makes, parts the phases: callgrind
dumps its counters there. The dispatcher is held in a callback meanwhile, so that only this thread runs; what is taken
from the ring is taken by a reader of our own, from behind the record that the dispatcher holds. Garbage is not
collected: whether a collection falls into a phase hangs on what was allocated before it, and is a tenth of `read`.
"""

import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import msgpack

import relay_mp
from relay_mp._bench.payloads import EVENT_NAME, FOUR_FIELDS, record
from relay_mp._native import core
from relay_mp._native.reader import Reader, Record
from relay_mp._native.segments import Segment
from relay_mp._records.json_line import json_lines
from relay_mp.events import view_of

CALLS = 500
RING_BYTES = 4 << 20
_REST = "rest"  # what is between the phases: the first runs, which the interpreter specialises
PHASES = ["loop", "mark", "packb", _REST, "take", "deliver", "read", "json", "origin", _REST, "with"]
TIMEOUT_SECONDS = 240
_INSIDE = "inside"
_SESSION_ID = b"019ad1f4-6f0c-7cc4-b7c4-0123456789ab"


def instructions() -> dict[str, float]:
    """Instructions of one call, by what is called; the loop's own are taken off.

    Raises:
        FileNotFoundError: there is no valgrind.
        RuntimeError: it failed, or counted other phases than were run.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise FileNotFoundError("valgrind is not installed")
    with tempfile.TemporaryDirectory(prefix="relay-mp-bench-") as directory:
        out = os.path.join(directory, "out")
        options = ["--tool=callgrind", "--dump-before=getppid", f"--callgrind-out-file={out}"]
        ran = subprocess.run(
            [valgrind, *options, sys.executable, "-m", "benchmarks.callgrind", _INSIDE],
            cwd=Path(__file__).parent.parent,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
        )  # fmt: skip
        dumps = sorted(Path(directory).glob("out.*"), key=lambda path: int(path.suffix[1:]))
        phases = [path for path in dumps if "--dump-before=getppid" in path.read_text(encoding="utf-8")]
        if ran.returncode or len(phases) != 1 + len(PHASES):
            raise RuntimeError(f"{len(phases)} dumps, expected {1 + len(PHASES)}; code {ran.returncode}\n{ran.stderr}")
        counts = dict(zip(PHASES, map(_total, phases[1:]), strict=True))  # the first is the start
    return {name: (counts[name] - counts["loop"]) / CALLS for name in PHASES if name not in ("loop", _REST)}


def _total(dump: Path) -> int:
    (total,) = re.findall(r"^totals: (\d+)$", dump.read_text(encoding="utf-8"), re.MULTILINE)
    return int(total)


def _inside() -> None:
    gc.disable()
    held = threading.Event()

    def hold(_event: relay_mp.Event) -> None:
        held.set()
        threading.Event().wait()

    session = relay_mp.session(ring_bytes=RING_BYTES)
    relay_mp.subscribers.register("hold", hold)
    relay_mp.scope.event(EVENT_NAME, data=FOUR_FIELDS)
    if not held.wait(TIMEOUT_SECONDS):
        raise RuntimeError("the dispatcher does not deliver")
    packed = record()
    taker = _Taker(Segment.attach(session.path))
    _run([_loop, _mark, lambda: _packb(packed)])
    _run([taker.take, taker.deliver, taker.read, taker.json, taker.origin])  # the marks, both times
    _run([_with])
    # The session is left as a crash would leave it: closing imports NumPy, which takes longer here than all the rest.
    os.unlink(session.path)
    os._exit(0)


def _run(phases: list[Callable[[], None]]) -> None:
    for phase in phases:  # the interpreter specialises what it runs, the thread takes its slot and its buffer
        phase()
    for phase in phases:
        os.getppid()
        phase()
    os.getppid()


def _loop() -> None:
    for _ in range(CALLS):
        pass


def _mark() -> None:
    event = relay_mp.scope.event
    for _ in range(CALLS):
        event(EVENT_NAME, data=FOUR_FIELDS)


def _packb(packed: list[object]) -> None:
    packb = msgpack.packb
    for _ in range(CALLS):
        packb(packed)


def _with() -> None:
    scope, kind = relay_mp.scope.scope, relay_mp.ScopeType.Function
    for _ in range(CALLS):
        with scope("w", kind):
            pass


class _Taker:
    """The dispatcher's steps, one at a time: CALLS records are taken, then delivered, then read."""

    def __init__(self, segment: Segment) -> None:
        self._reader = Reader(segment, view_of)
        self._reader.next_batch(1, 0.0)  # the one that the dispatcher holds
        self._batch: list[Record] = []
        self._events: list[relay_mp.Event] = []
        core.set_dispatching(True)

    def take(self) -> None:
        self._batch = self._reader.next_batch(CALLS, 0.0)
        if len(self._batch) != CALLS:
            raise RuntimeError(f"{len(self._batch)} records in the ring, expected {CALLS}")

    def deliver(self) -> None:
        self._events = self._reader.events(self._batch, 0, CALLS)
        done = self._reader.deliver(self._batch, 0, CALLS, (_ignore,), _fail, self, self.snapshot)
        if done != CALLS:
            raise RuntimeError(f"{done} records delivered, expected {CALLS}")

    snapshot = None

    def read(self) -> None:
        for event in self._events:
            event.name, event.timestamp_us, event.data  # noqa: B018

    def json(self) -> None:
        json_lines(self._events, 1 << 24, 1 << 24)

    def origin(self) -> None:
        json_lines(self._events, 1 << 24, 1 << 24, _SESSION_ID)


def _ignore(_event: relay_mp.Event) -> None:
    pass


def _fail(_which: int, _event: relay_mp.Event, error: BaseException) -> None:
    raise error


if __name__ == "__main__":
    if sys.argv[1:] == [_INSIDE]:
        _inside()
    print({name: round(count) for name, count in instructions().items()})
