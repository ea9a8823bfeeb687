"""A live pool under random faults, and whether its accounts still match.

    python -m tests.faults.chaos --seconds 60 --seed 7 [--workers 4] [--dispatcher process] [--without STEP]

    seed ──▶ decisions ──▶ faults on workers, dispatcher, subscriber
                              │
    workers ──▶ ring ──▶ dispatcher ──▶ Ledger ──▶ FIFO ──▶ Book     what was delivered
       ├──────▶ shared counters ─────────────────────▶ Book     what had returned when its process died
       └──▶ ring ──▶ dispatcher ──▶ AtofExporter ──▶ files, moved by others ──▶ Files    what was exported

The run is made of rounds, each a session of its own with a small ring: every second one blocks when it
is full, the others drop; every second pair gives stopped writers up after a while. At the end of each
the book is balanced, from what the workers and the subscriber have counted themselves, not from what
the library says of itself alone. The seed gives the decisions: which fault, whom, how much, after how
many events; what the kernel makes of their moments it does not. Each kind of fault is a step that can be
left out, by its name in STEPS.

Prints one line of figures; on stderr what did not match. Runs on Linux.
"""

import argparse
import contextlib
import fcntl
import itertools
import json
import logging
import mmap
import os
import random
import select
import signal
import struct
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relay_mp import AtofExporter, AtofExporterConfig, scope, subscribers
from relay_mp._native import core
from relay_mp._session.membership import attach, current_session, session
from relay_mp._session.session import Session
from relay_mp._session.stats import Stats
from relay_mp.errors import FlushError, FlushTimeoutError, SegmentError, SessionError

__all__ = ["STEPS", "Book", "Decision", "Figures", "Files", "Ledger", "decisions", "main", "run"]

HANG_SECONDS = 30.0
"""No progress for so long, of what owes some, is a hang."""

ROUND_DECISIONS = 40
RING_BYTES = 256 * 1024
BLOCK_TIMEOUT_SECONDS = 0.02
STALL_TIMEOUT_SECONDS = 0.05
SIGTERM_TIMEOUT_SECONDS = 5.0
ROTATE_BYTES = 1 << 20
THREADS = 2
MAX_PRODUCERS_OF_A_ROUND = 1 << 16
_POLL_SECONDS = 0.0005

# ------------------------------------------------------------------------------------------- decisions

_FORK_IN_CALLBACK = "fork in the callback"
_BREAK_LOG = "break the log"
STEPS = {
    "kill": 30,
    "stop": 10,
    "fork": 12,
    "recycle": 8,
    "slow": 6,
    "flood": 8,
    "raise": 3,
    _FORK_IN_CALLBACK: 4,
    "flush": 6,
    _BREAK_LOG: 2,
    "move the file": 4,
    "remove the name": 1,
    "terminate the group": 1,
    "attach and detach": 3,
    "kill the dispatcher": 2,
    "kill the dispatcher in close": 1,
}
"""Each kind of fault, and how often it is chosen in comparison with the others."""

PROCESS_STEPS = {"kill the dispatcher", "kill the dispatcher in close"}
"""Those that need a dispatcher that is a process."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One fault. `after` so many more emits of the pool; `worker` is a place in it; `amount` as the fault has it."""

    fault: str
    worker: int
    amount: int
    after: int


def decisions(seed: int, workers: int, dispatcher: str, without: Collection[str] = ()) -> Iterator[Decision]:
    """The run's decisions, without end: the same for the same arguments; none of the steps `without`."""
    choose = random.Random(f"{seed} {workers} {dispatcher}")
    left_out = {*without, *(PROCESS_STEPS if dispatcher == "thread" else ())}
    weights = {step: weight for step, weight in STEPS.items() if step not in left_out}
    while True:
        (fault,) = choose.choices(list(weights), list(weights.values()))
        yield Decision(fault, choose.randrange(workers), choose.randint(1, 8), choose.randint(0, 200))


# --------------------------------------------------------------------------------- what was delivered

# kind, redelivered, whether the subscriber is slow, pid, producer (a loss: how many), number, seq
_RECORD = struct.Struct("=BBBxIIIQ")
_MARK, _LOSS, _FORK, _END = range(4)


class _Raises(logging.Handler):
    """A log receiver that is down."""

    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError("the log receiver is down, as it was told")


class Ledger:
    """The subscriber: a record for each event, into a FIFO. A mark may ask it for a fault of its own."""

    def __init__(self, path: str) -> None:
        # What it is told to do wrong is no news.
        self._log = logging.getLogger("relay_mp")
        self._log.setLevel(logging.CRITICAL)
        self._handler = _Raises()
        self._fifo = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self._slow_events = 0

    def __call__(self, event: Any) -> None:
        """Any event of the session."""
        if event.name == "relay_mp.loss":
            kind, producer, number = _LOSS, event.data["lost"], 0
        else:
            kind = _FORK if event.name == _FORK_IN_CALLBACK else _MARK
            producer, number = event.data["producer"], event.data["n"]
        slow = self._slow_events > 0
        # One write, and so whole or not at all.
        os.write(self._fifo, _RECORD.pack(kind, event.redelivered, slow, event.pid, producer, number, event.seq))
        if slow:
            self._slow_events -= 1
            time.sleep(0.001)
        if event.name == "slow":
            self._slow_events = event.data["amount"] * 20
        elif event.name in ("raise", _BREAK_LOG):
            if event.name == _BREAK_LOG:
                self._log.setLevel(logging.ERROR)
                self._log.addHandler(self._handler)
            raise RuntimeError("as it was told")
        elif event.name == _FORK_IN_CALLBACK and not event.redelivered:
            pid = os.fork()
            if not pid:
                scope.event("m", data={"producer": event.data["child"], "n": 0})
                os._exit(0)
            os.waitpid(pid, 0)

    def close(self) -> None:
        """Of one that a dispatcher process has made, called after the last event."""
        self._log.removeHandler(self._handler)
        self._log.setLevel(logging.CRITICAL)
        os.close(self._fifo)


@dataclass(slots=True)
class _Producer:
    delivered: int = 0
    last: int = -1


class Book:
    """One round's accounts. Fed by one thread; balanced when that has ended."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.delivered = 0
        self.redelivered = 0
        self.slow = 0
        self.newest_of_main = -1
        self.standstill_seconds = 0.0
        self._arrived_at = 0.0
        self._producers: dict[int, _Producer] = {}
        self._delivered_of: Counter[int] = Counter()
        self._marked_lost_of: Counter[int] = Counter()
        self._forks = 0
        self._last_seq = 0

    def begin_watch(self) -> None:
        """From now on, `standstill_seconds` is the longest time in which nothing was delivered."""
        self._arrived_at, self.standstill_seconds = time.monotonic(), 0.0

    def note_arrival(self) -> None:
        """Some records have come in."""
        now = time.monotonic()
        self.standstill_seconds = max(self.standstill_seconds, now - self._arrived_at)
        self._arrived_at = now

    def note(self, kind: int, redelivered: int, slow: int, pid: int, producer: int, number: int, seq: int) -> None:
        """One record of the ledger."""
        self.slow += slow
        if redelivered and seq == self._last_seq:
            self.redelivered += 1
            return  # it was delivered whole before the dispatcher died
        if seq <= self._last_seq:
            self.faults.append(f"seq {seq} came after {self._last_seq}")
        self._last_seq = seq
        if kind == _LOSS:
            self._marked_lost_of[pid] += producer
            return
        known = self._producers.setdefault(producer, _Producer())
        if number <= known.last:
            self.faults.append(f"number {number} of producer {producer} came after {known.last}")
        known.last = number
        known.delivered += 1
        self.delivered += 1
        self._forks += kind == _FORK
        self._delivered_of[pid] += 1
        if producer == 0:
            self.newest_of_main = number

    def balance(
        self,
        stats: Stats,
        returned: Counter[int],
        unfinished: Counter[int],
        *,
        visitors: Collection[int] = (),
    ) -> None:
        """Adds to `faults` what does not match.

        Args:
            stats: the session's, at rest.
            returned: how many emits had returned, by pid.
            unfinished: how many more each pid may have begun, one a thread, when it was killed.
            visitors: processes that were not attached all the time: what they emitted meanwhile is nobody's.
        """
        if stats.pending or stats.delivered + stats.lost != stats.emitted:
            self.faults.append(
                f"{stats.emitted} emitted, {stats.delivered} delivered, {stats.lost} lost, {stats.pending} pending"
            )
        if self.delivered != stats.delivered:
            self.faults.append(f"{self.delivered} seen, {stats.delivered} counted as delivered")
        if stats.lost != sum(self._marked_lost_of.values()):
            self.faults.append(f"{sum(self._marked_lost_of.values())} marked as lost, {stats.lost} counted")
        if stats.causes.get("writer_died", 0) > sum(unfinished.values()):
            self.faults.append(f"{stats.causes['writer_died']} lost by the death of {len(unfinished)} processes")
        seen = self._delivered_of.keys() | self._marked_lost_of.keys()
        strangers = Counter(dict.fromkeys(seen - returned.keys(), 1))
        if len(strangers) > self._forks:
            self.faults.append(f"{len(strangers)} processes emitted that nobody had started")
        # Children that the callback forks emit one mark each, and have no counters.
        returned = returned + strangers
        for pid in returned.keys() | seen:
            known = self._delivered_of[pid] + self._marked_lost_of[pid]
            least = 0 if pid in visitors else returned[pid]
            if not least <= known <= returned[pid] + unfinished[pid]:
                self.faults.append(
                    f"process {pid}: {returned[pid]} emits returned, {self._delivered_of[pid]} delivered, "
                    f"{self._marked_lost_of[pid]} marked as lost"
                )


# ------------------------------------------------------------------------------ what was exported


class Files:
    """What an AtofExporter has written of a round, while others move its file. Made and read by the main process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        config = AtofExporterConfig()
        config.output_directory, config.filename, config.rotate_bytes = folder, "events.jsonl", ROTATE_BYTES
        self._path = Path(config.path)
        self._moved = 0
        self._exporter = AtofExporter(config)
        self._exporter.register("files")

    def move(self) -> None:
        """As an operator does, or logrotate's `create`."""
        self._moved += 1
        with contextlib.suppress(FileNotFoundError):  # moved just now, and nothing was exported since
            self._path.rename(self._folder / f"moved-{self._moved}.jsonl")

    def balance(self, stats: Stats, *, dispatcher_killed: bool) -> list[str]:
        """What does not match, once the session has ended. Removes the files."""
        seqs: Counter[int] = Counter()
        damaged = 0
        for path in self._folder.glob("*.jsonl"):  # not the lock that a killed writer leaves
            for line in path.read_bytes().splitlines():
                try:
                    event = json.loads(line)
                except ValueError:
                    damaged += 1
                    continue
                if event["name"] != "relay_mp.loss":
                    seqs[event["metadata"]["relay_mp.origin"]["seq"]] += 1
            path.unlink()
        report = stats.exporters["files"]
        twice = sum(seqs.values()) - len(seqs)
        faults = []
        if not stats.delivered - report.lost <= len(seqs) <= stats.delivered:
            faults.append(f"{stats.delivered} delivered, {len(seqs)} in the files, {report.lost} lost by the exporter")
        if damaged or twice:
            faults.append(f"the files have {damaged} damaged lines and {twice} twice")
        if report.lost and not dispatcher_killed:
            faults.append(f"{report.lost} lost by the exporter: {report}")
        return faults


# ------------------------------------------------------------------------------------------ a worker


class _Counters:
    """Shared with all processes of a round: of each producer its pid and how many of its emits have returned."""

    def __init__(self) -> None:
        self._cells = memoryview(mmap.mmap(-1, MAX_PRODUCERS_OF_A_ROUND * 16)).cast("Q")
        self._next = 0

    def reserve(self, count: int) -> int:
        """The first of so many producers' numbers."""
        first, self._next = self._next, self._next + count
        if self._next > MAX_PRODUCERS_OF_A_ROUND:
            raise OverflowError("more producers than a round has counters for")
        return first

    def emit(self, producer: int, number: int, name: str = "m", **data: Any) -> None:
        """One mark, counted once it has returned."""
        self._cells[2 * producer] = os.getpid()
        scope.event(name, data={"producer": producer, "n": number, **data})
        self._cells[2 * producer + 1] = number + 1

    @property
    def total(self) -> int:
        return sum(self._cells[1 : 2 * self._next : 2])

    def by_pid(self) -> tuple[Counter[int], Counter[int]]:
        """Returned emits, and producers that have begun one."""
        returned: Counter[int] = Counter()
        producers: Counter[int] = Counter()
        for producer in range(self._next):
            pid = self._cells[2 * producer]
            if pid:
                returned[pid] += self._cells[2 * producer + 1]
                producers[pid] += 1
        return returned, producers


_COMMAND = struct.Struct("=cII")
_END_WORK = _COMMAND.pack(b"e", 0, 0)


class _Emitter:
    """What runs in a worker: threads that emit in bursts, and a main thread that does as it is told."""

    def __init__(self, counters: _Counters, first: int, seed: int) -> None:
        self._counters = counters
        self._flood = [0] * THREADS
        self._ending = False
        self._threads = [
            threading.Thread(target=self._emit, args=(n, first + n, random.Random(seed + n)), daemon=True)
            for n in range(THREADS)
        ]

    def _emit(self, index: int, producer: int, choose: random.Random) -> None:
        number = 0
        while not self._ending:
            text = "x" * int(20_000 * choose.random() ** 4)
            for _ in range(self._flood[index] or choose.randint(1, 40)):
                if self._ending:
                    break
                self._counters.emit(producer, number, text=text)
                number += 1
            self._flood[index] = 0
            time.sleep(0.001)  # a pace, so that the ring is sometimes empty too

    def run(self, commands: int) -> None:
        """Until it is told to end, or nobody is left to tell it."""
        for thread in self._threads:
            thread.start()
        while (command := os.read(commands, _COMMAND.size)) and command != _END_WORK:
            verb, first, count = _COMMAND.unpack(command)
            if verb == b"f":
                self._fork(first, count)
            else:
                self._flood = [count] * THREADS
        self._ending = True
        for thread in self._threads:
            thread.join()

    def _fork(self, first: int, count: int) -> None:
        pids = []
        for child in range(first, first + count):
            pid = os.fork()
            if not pid:
                for number in range(5):
                    self._counters.emit(child, number)
                os._exit(0)
            pids.append(pid)
        for pid in pids:
            os.waitpid(pid, 0)


def _visit(counters: _Counters, first: int, path: str, cycles: int) -> None:
    """A process whose main thread detaches and attaches beside threads that emit. Exits with 3 if it keeps slots."""
    ending = threading.Event()

    def emit(producer: int) -> None:
        for number in itertools.count():
            if ending.is_set():
                return
            counters.emit(producer, number)
            time.sleep(0.0002)

    threads = [threading.Thread(target=emit, args=(first + n,), daemon=True) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    kept = 0
    try:
        for _ in range(cycles):
            here = current_session()
            if here is not None:
                here.close()
            here = attach(path)
        own = [process for process in here.stats().processes if process.pid == os.getpid()]
        kept = sum(process.producers for process in own)
    except SegmentError:
        pass  # another step has removed its name, or it is closing
    ending.set()
    for thread in threads:
        thread.join()
    os._exit(3 if kept > THREADS + 1 else 0)


@dataclass(slots=True)
class _Worker:
    pid: int
    commands: int
    resume_after: int = 0
    """Decisions until a stopped one goes on; 0: it is not stopped."""
    status: int | None = None

    def has_ended(self) -> bool:
        """Whether it has, and is reaped."""
        if self.status is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = status if found else None
        return self.status is not None

    def end_at_once(self) -> None:
        """Of one that may hang."""
        if not self.has_ended():
            os.kill(self.pid, signal.SIGKILL)
            _, self.status = os.waitpid(self.pid, 0)
        if self.commands >= 0:
            os.close(self.commands)


# ------------------------------------------------------------------------------------------- the run


@dataclass(slots=True)
class Figures:
    """What a run has seen."""

    decisions: int = 0
    emitted: int = 0
    delivered: int = 0
    redelivered: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    dispatcher_kills: int = 0
    stops: int = 0
    forks: int = 0
    recycled: int = 0
    steps: Counter[str] = field(default_factory=Counter)
    """How often each was carried out."""
    worst_recovery_seconds: float = 0.0
    """The longest standstill of delivery between a kill and the first event emitted after it."""
    hangs: int = 0
    mismatches: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lost = " ".join(f"lost_{cause}={count}" for cause, count in sorted(self.lost.items()))
        return (
            f"decisions={self.decisions} emitted={self.emitted} delivered={self.delivered} "
            f"redelivered={self.redelivered} lost={sum(self.lost.values())} {lost}{' ' if lost else ''}"
            f"kills={self.kills} dispatcher_kills={self.dispatcher_kills} stops={self.stops} forks={self.forks} "
            f"recycled={self.recycled} worst_recovery_ms={self.worst_recovery_seconds * 1e3:.1f} hangs={self.hangs} "
            f"mismatches={len(self.mismatches)} steps={self._listed_steps() or 'none'}"
        )

    def _listed_steps(self) -> str:
        return ",".join(f"{step.replace(' ', '_')}:{count}" for step, count in sorted(self.steps.items()))


class _Hang(Exception):
    """Something that owes progress has made none."""


def _await(what: str, is_so: Callable[[], bool], progress: Callable[[], int] = lambda: 0) -> None:
    seen, deadline = progress(), time.monotonic() + HANG_SECONDS
    while not is_so():
        if progress() != seen:
            seen, deadline = progress(), time.monotonic() + HANG_SECONDS
        if time.monotonic() > deadline:
            raise _Hang(what)
        time.sleep(_POLL_SECONDS)


class _Round:
    """One session, its pool, its book."""

    def __init__(
        self,
        number: int,
        folder: str,
        workers: int,
        dispatcher: str,
        figures: Figures,
        without: Collection[str] = (),
    ) -> None:
        self._figures = figures
        self._number = number
        self._book = Book()
        self._counters = _Counters()
        self._main = self._counters.reserve(1)
        self._emitted_by_main = 0
        self._killed: set[int] = set()
        self._killed_dispatcher = -1
        self._kills_in_close = 0
        self._sigterms = 0
        self._visitors: list[_Worker] = []
        self._visited: set[int] = set()
        fifo = os.path.join(folder, f"ledger-{number}")
        os.mkfifo(fifo)
        self._fifo = os.open(fifo, os.O_RDWR | os.O_CLOEXEC)
        fcntl.fcntl(self._fifo, fcntl.F_SETPIPE_SZ, 1 << 20)
        self._reading = threading.Thread(target=self._read, name="chaos-ledger", daemon=True)
        # Every process of the round holds the writing end: the reading one tells when all have ended.
        self._all_ended, self._alive = os.pipe()
        self._earlier_handler = signal.signal(signal.SIGTERM, self._note_sigterm)
        self._session = self._open(fifo, folder, dispatcher)
        self._reading.start()
        self._files: Files | None = None
        if "move the file" not in without and number % 4 in (1, 2):  # of those that drop, and of those that block
            written = Path(folder, f"written-{number}")
            written.mkdir()
            self._files = Files(written)
        self._workers: list[_Worker] = []
        for place in range(workers):
            self._workers.append(self._start(place))

    def _open(self, fifo: str, folder: str, dispatcher: str) -> Session:
        opened = session(
            dispatcher=dispatcher,
            on_full="drop" if self._number % 2 else "block",
            ring_bytes=RING_BYTES,
            block_timeout_seconds=BLOCK_TIMEOUT_SECONDS,
            stall_timeout_seconds=STALL_TIMEOUT_SECONDS if self._number // 2 % 2 else 0.0,
            flush_timeout_seconds=HANG_SECONDS,
            recovery_directory=folder,
            on_sigterm="flush",
            sigterm_timeout_seconds=SIGTERM_TIMEOUT_SECONDS,
        )
        if dispatcher == "process":
            subscribers.register("ledger", "tests.faults.chaos:Ledger", arguments={"path": fifo})
        else:
            self._ledger = Ledger(fifo)
            subscribers.register("ledger", self._ledger)
        return opened

    def _note_sigterm(self, signum: int, frame: object) -> None:
        self._sigterms += 1

    def _read(self) -> None:
        rest = b""
        while True:
            rest += os.read(self._fifo, 1 << 16)
            self._book.note_arrival()
            whole = len(rest) // _RECORD.size * _RECORD.size
            for record in _RECORD.iter_unpack(rest[:whole]):
                if record[0] == _END:
                    return
                self._book.note(*record)
            rest = rest[whole:]

    # ---- workers ----

    def _start(self, place: int) -> _Worker:
        first = self._counters.reserve(THREADS)
        commands, told = os.pipe()
        pid = os.fork()
        if pid:
            os.close(commands)
            return _Worker(pid, told)
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            for other in [told, *(other.commands for other in self._workers)]:
                if other >= 0:  # else: that of the one it replaces
                    os.close(other)
            _Emitter(self._counters, first, place).run(commands)
            os._exit(0)
        finally:
            os._exit(1)

    def _replace(self, place: int) -> None:
        """The worker has ended, or is about to."""
        self._await_end(self._workers[place])
        self._workers[place] = self._start(place)

    def _await_end(self, worker: _Worker) -> None:
        if worker.commands >= 0:
            # Closing alone does not tell it: a sibling that was stopped as soon as it was forked still has
            # its copy of this end.
            with contextlib.suppress(BrokenPipeError):
                os.write(worker.commands, _END_WORK)
            os.close(worker.commands)
            worker.commands = -1
        _await(f"the end of worker {worker.pid}", worker.has_ended)
        if os.waitstatus_to_exitcode(worker.status or 0) not in (0, -signal.SIGKILL, -signal.SIGTERM):
            self._figures.mismatches.append(f"worker {worker.pid} ended with status {worker.status}")

    def _tell(self, worker: _Worker, verb: bytes, first: int, count: int) -> None:
        os.write(worker.commands, _COMMAND.pack(verb, first, count))

    def _emit(self, name: str, **data: Any) -> int:
        number = self._emitted_by_main
        self._emitted_by_main += 1
        self._counters.emit(self._main, number, name, **data)
        return number

    # ---- faults ----

    def suffer(self, decision: Decision) -> None:
        """One fault."""
        enough = self._counters.total + decision.after
        _await("the emits of the pool", lambda: self._counters.total >= enough, lambda: self._counters.total)
        for worker in self._workers:
            if worker.resume_after:
                worker.resume_after -= 1
                if not worker.resume_after:
                    os.kill(worker.pid, signal.SIGCONT)
        self._figures.decisions += 1
        self._figures.steps[decision.fault] += 1
        getattr(self, "_" + decision.fault.replace(" ", "_"))(decision, self._workers[decision.worker])

    def _kill(self, decision: Decision, worker: _Worker) -> None:
        slow, dispatcher = self._book.slow, self._session._segment.lease()[1]
        self._book.begin_watch()
        os.kill(worker.pid, signal.SIGKILL)
        self._figures.kills += 1
        self._killed.add(worker.pid)
        self._replace(decision.worker)
        if any(other.resume_after for other in self._workers) or dispatcher == self._killed_dispatcher:
            return  # else delivery may stand still for their sake
        self._await_delivery()
        if self._book.slow == slow:
            standstill = self._book.standstill_seconds
            self._figures.worst_recovery_seconds = max(self._figures.worst_recovery_seconds, standstill)

    def _await_delivery(self) -> None:
        """Until a mark of this process has come through; one that a full ring refuses is emitted again."""
        first = self._emit("m")
        latest = [time.monotonic()]

        def is_through() -> bool:
            if self._book.newest_of_main >= first:
                return True
            if time.monotonic() - latest[0] > 0.02:
                self._emit("m")
                latest[0] = time.monotonic()
            return False

        _await("delivery after a kill", is_through, lambda: self._book.delivered)

    def _stop(self, decision: Decision, worker: _Worker) -> None:
        # One goes on, or nobody would emit.
        if worker.resume_after or sum(not other.resume_after for other in self._workers) < 2:
            return
        os.kill(worker.pid, signal.SIGSTOP)
        self._figures.stops += 1
        worker.resume_after = decision.amount

    def _fork(self, decision: Decision, worker: _Worker) -> None:
        self._figures.forks += decision.amount
        self._tell(worker, b"f", self._counters.reserve(decision.amount), decision.amount)

    def _flood(self, decision: Decision, worker: _Worker) -> None:
        self._tell(worker, b"b", 0, decision.amount * 200)

    def _recycle(self, decision: Decision, worker: _Worker) -> None:
        if not worker.resume_after:
            self._figures.recycled += 1
            self._replace(decision.worker)

    def _slow(self, decision: Decision, worker: _Worker) -> None:
        self._emit("slow", amount=decision.amount)

    def _raise(self, decision: Decision, worker: _Worker) -> None:
        self._emit("raise")

    def _fork_in_the_callback(self, decision: Decision, worker: _Worker) -> None:
        self._figures.forks += 1
        self._emit(_FORK_IN_CALLBACK, child=self._counters.reserve(1))

    def _flush(self, decision: Decision, worker: _Worker) -> None:
        if not any(other.resume_after for other in self._workers):
            self._flush_all()

    def _flush_all(self) -> None:
        try:
            self._session.flush()
        except (FlushError, FlushTimeoutError) as error:
            raise _Hang(str(error)) from error

    def _kill_the_dispatcher(self, decision: Decision, worker: _Worker) -> None:
        self._kill_who_dispatches()

    def _kill_who_dispatches(self) -> None:
        _, pid, _ = self._session._segment.lease()
        if pid <= 0:
            return
        with contextlib.suppress(ProcessLookupError):  # its successor has not started yet
            os.kill(pid, signal.SIGKILL)
            self._figures.dispatcher_kills += 1
            self._killed_dispatcher = pid

    def _kill_the_dispatcher_in_close(self, decision: Decision, worker: _Worker) -> None:
        self._kills_in_close = decision.amount

    def _break_the_log(self, decision: Decision, worker: _Worker) -> None:
        self._emit(_BREAK_LOG)

    def _move_the_file(self, decision: Decision, worker: _Worker) -> None:
        if self._files is not None:
            self._files.move()

    def _remove_the_name(self, decision: Decision, worker: _Worker) -> None:
        """As cleaners of temporary files do, and systemd-logind."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._session.path)

    def _terminate_the_group(self, decision: Decision, worker: _Worker) -> None:
        """As a service manager stops a program: SIGTERM to the owner, which goes on here, and to all its workers."""
        come, tail, begun = self._sigterms, self._session._segment.tail, time.monotonic()
        targets = [os.getpid(), *(other.pid for other in self._workers)]
        for pid in targets if decision.amount % 2 else reversed(targets):
            os.kill(pid, signal.SIGTERM)
            if pid != os.getpid():
                self._killed.add(pid)
                os.kill(pid, signal.SIGCONT)
        _await("the program's own handler of SIGTERM", lambda: self._sigterms > come)
        is_late = time.monotonic() - begun >= SIGTERM_TIMEOUT_SECONDS
        if not is_late and self._session._segment.read_pos < tail:
            self._figures.mismatches.append(
                f"round {self._number}: SIGTERM has left undelivered what was emitted before"
            )
        for place in range(len(self._workers)):
            self._replace(place)

    def _attach_and_detach(self, decision: Decision, worker: _Worker) -> None:
        first = self._counters.reserve(THREADS)
        pid = os.fork()
        if not pid:
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                _visit(self._counters, first, self._session.path, decision.amount * 20)
            finally:
                os._exit(1)
        self._visitors.append(_Worker(pid, -1))
        self._visited.add(pid)

    # ---- the end ----

    def end(self) -> None:
        """Ends the pool, closes the session, balances the book."""
        for worker in self._workers:
            os.kill(worker.pid, signal.SIGCONT)
        for place in range(len(self._workers)):
            self._await_end(self._workers[place])
        self._workers.clear()
        for visitor in self._visitors:
            self._await_end_of_visitor(visitor)
        self._visitors.clear()
        os.close(self._alive)
        self._alive = -1
        if not select.select([self._all_ended], [], [], HANG_SECONDS)[0]:
            raise _Hang("the end of forked children")
        self._flush_all()
        # What a killed one had counted and not written is settled by the dispatcher's next look at the dead.
        _await("the accounts of the dead", lambda: not self._session.stats().pending)
        if self._kills_in_close:
            self._close_under_kills()
        stats = self._session.stats()
        self.close()
        self._balance(stats)

    def _await_end_of_visitor(self, visitor: _Worker) -> None:
        _await(f"the end of visitor {visitor.pid}", visitor.has_ended, lambda: self._counters.total)
        code = os.waitstatus_to_exitcode(visitor.status or 0)
        if code:
            what = "keeps the slots of its threads" if code == 3 else f"ended with status {visitor.status}"
            self._figures.mismatches.append(f"round {self._number}: visitor {visitor.pid} {what}")

    def _close_under_kills(self) -> None:
        """There is something left to deliver, and who delivers it is killed, once or twice."""
        for _ in range(self._kills_in_close * 50):
            self._emit("m")
        killing = threading.Thread(target=self._kill_in_close, name="chaos-kills", daemon=True)
        killing.start()
        self._session.close()
        killing.join()

    def _kill_in_close(self) -> None:
        segment = self._session._segment
        killed = 0
        with contextlib.suppress(SessionError):  # it is closed
            while killed <= self._kills_in_close % 2:
                if segment.state == core.STATE_CLOSING and segment.lease()[1] != self._killed_dispatcher:
                    self._kill_who_dispatches()
                    killed += 1
                time.sleep(_POLL_SECONDS)

    def _balance(self, stats: Stats) -> None:
        returned, producers = self._counters.by_pid()
        unfinished = Counter({pid: producers[pid] for pid in self._killed & producers.keys()})
        dispatcher_killed = self._killed_dispatcher >= 0
        self._book.balance(stats, returned, unfinished, visitors=self._visited)
        figures, book = self._figures, self._book
        if self._files is not None:
            final = self._session.stats()
            book.faults += self._files.balance(final, dispatcher_killed=dispatcher_killed)
        figures.mismatches += [f"round {self._number}: {fault}" for fault in book.faults]
        figures.emitted += stats.emitted
        figures.delivered += stats.delivered
        figures.redelivered += book.redelivered
        figures.lost.update(stats.causes)

    def close(self) -> None:
        """Leaves nothing behind, also after a hang. Idempotent."""
        for worker in (*self._workers, *self._visitors):
            worker.end_at_once()
        self._workers.clear()
        self._visitors.clear()
        if self._session.is_open:
            self._session.close()
        if signal.getsignal(signal.SIGTERM) == self._note_sigterm:
            signal.signal(signal.SIGTERM, self._earlier_handler)
        if self._reading.is_alive():
            os.write(self._fifo, _RECORD.pack(_END, 0, 0, 0, 0, 0, 0))
            self._reading.join()
            if hasattr(self, "_ledger"):
                self._ledger.close()
            for descriptor in (self._fifo, self._all_ended, self._alive):
                if descriptor >= 0:
                    os.close(descriptor)


def run(
    seed: int,
    *,
    workers: int = 4,
    dispatcher: str = "thread",
    seconds: float = 0.0,
    count: int = 0,
    without: Collection[str] = (),
    tell: Callable[[Decision], object] = lambda decision: None,
) -> Figures:
    """Rounds of faults for so many seconds, or for `count` decisions. Returns what was seen; raises nothing of it.

    `tell` is called with each decision before it is carried out. Steps `without` are left out.
    """
    figures = Figures()
    deadline = time.monotonic() + seconds
    chosen = decisions(seed, workers, dispatcher, without)
    with tempfile.TemporaryDirectory(prefix="relay_mp-chaos-") as folder:
        for number in itertools.count():
            round_ = _Round(number, folder, workers, dispatcher, figures, without)
            try:
                left = ROUND_DECISIONS if not count else min(ROUND_DECISIONS, count - figures.decisions)
                for decision in itertools.islice(chosen, left):
                    tell(decision)
                    round_.suffer(decision)
                round_.end()
            except _Hang as hang:
                figures.hangs += 1
                figures.mismatches.append(f"round {number}: hangs: {hang}")
            finally:
                round_.close()
            if figures.hangs or (figures.decisions >= count if count else time.monotonic() >= deadline):
                return figures
    return figures


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 1 if the accounts do not match, or something hung."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="how long; the round under way is finished")
    parser.add_argument("--decisions", type=int, default=0, help="how many, instead of a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--dispatcher", choices=("thread", "process"), default="thread")
    parser.add_argument("--without", choices=STEPS, action="append", default=[], help="a step to leave out; repeatable")
    parser.add_argument("--verbose", action="store_true", help="each decision on stderr, before it is carried out")
    given = parser.parse_args(arguments)
    # Forking with threads is what is tested here.
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*multi-threaded.*fork.*")
    figures = run(
        given.seed,
        workers=given.workers,
        dispatcher=given.dispatcher,
        seconds=given.seconds,
        count=given.decisions,
        without=given.without,
        tell=(lambda decision: print(decision, file=sys.stderr)) if given.verbose else (lambda decision: None),
    )
    print(f"seed={given.seed} dispatcher={given.dispatcher} workers={given.workers} {figures}")
    for mismatch in figures.mismatches:
        print(mismatch, file=sys.stderr)
    return 1 if figures.mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
