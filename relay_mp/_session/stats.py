"""What became of a session's events: read from the counters in the segment, by anybody attached.

The counters are the producers' and the dispatcher's own words in shared memory; reading them costs
neither of them anything. They are exact at rest, as after a flush; in between, events under way show
as pending.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from relay_mp._deliver.dispatcher import LOSS_CAUSES
from relay_mp._deliver.reports import ExporterReport
from relay_mp._deliver.table import load_last_reports, load_reports
from relay_mp._native import core
from relay_mp._native.segments import Segment

CAUSES = LOSS_CAUSES
"""Why events of a process were lost."""

REMOVED = "removed"
CAUSES_OF_TOTALS = (REMOVED, "unregistered")
"""Why other events were lost: another program removed the segment's name, and they were not delivered before the
session was closed; no producer slot was left."""


@dataclass(frozen=True, slots=True)
class ProcessStats:
    """One process's events; pid 0: of producers whose slots others have taken over since.

    `emitted` = `delivered` + `lost` + `pending`. `cut` were delivered without what was over the size limit.
    `replaced`: values in payloads that could not be recorded, and were replaced. `producers`: its threads that have
    emitted and live.
    """

    pid: int
    emitted: int
    delivered: int
    lost: int
    pending: int
    cut: int
    replaced: int
    producers: int
    causes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stats:
    """A session's events, in all and by process. See `ProcessStats`."""

    emitted: int
    delivered: int
    lost: int
    pending: int
    cut: int
    replaced: int
    causes: dict[str, int]
    processes: list[ProcessStats]
    subscriber_errors: int
    middleware_failures: int
    """How often a worker could not get hold of middleware that the owner shares; each tells it once."""
    ring_bytes: int
    ring_used_bytes: int
    stalled_pid: int | None
    """The process whose unfinished event delivery waits for at this moment."""
    exporters: dict[str, ExporterReport] = field(default_factory=dict)
    """What exporters say of themselves, by the name they are registered under; those that have ended too. In a
    process where the dispatcher is not, as published: at most a second old, and exact after their `force_flush`."""
    refused_requests: int = 0
    """Requests to the dispatcher, such as a worker's registration, that it did not answer: another uid's, or for a name
    that the session does not allow."""
    unrecorded: str | None = None
    """Why nothing is recorded: the session could not start, as where shared memory has no room. None: it has."""

    def with_remains_lost(self) -> "Stats":
        """The same once what is pending can be delivered no more: the segment's name was `removed`."""
        causes = {**self.causes, REMOVED: self.pending} if self.pending else self.causes
        return replace(self, lost=self.lost + self.pending, pending=0, causes=causes)


def _columns(segment: Segment) -> Any:
    """The producers' slots as a NumPy structured array: a row a slot."""
    import numpy as np

    layout = np.dtype(
        {
            "names": list(core.SLOT_FIELDS),
            "formats": ["<u8"] * len(core.SLOT_FIELDS),
            "offsets": list(core.SLOT_FIELDS.values()),
            "itemsize": core.SLOT_BYTES,
        }
    )
    return np.frombuffer(segment.slots(), dtype=layout)


def _process(pid: int, rows: Any, *, past: bool, has_ended: bool, is_broken: bool) -> ProcessStats:
    """Sums of slots; `past`: of their earlier owners, else of the present ones."""

    def total(name: str) -> int:
        before = int(rows[f"base_{name}"].sum())
        if past:
            return before
        arrived = rows["passed"] - rows["passed_lost"] - rows["lost_poison"]
        now = arrived if name == "delivered" else rows[name]
        return int(now.sum()) - before

    causes = {cause: count for cause in CAUSES if (count := total(f"lost_{cause}"))}
    # Requests to the dispatcher, such as a worker's registration, travel in the ring but are not events.
    # A slot's newest may not have been emitted yet, or not have come through.
    controls, lost = total("controls"), sum(causes.values())
    ahead = [0 if past else int((rows["control_seq"] > rows[name]).sum()) for name in ("emitted", "passed")]
    emitted, delivered = total("emitted") - (controls - ahead[0]), max(total("delivered") - (controls - ahead[1]), 0)
    if is_broken and has_ended and emitted - delivered != lost:  # what could be read has been: the rest never comes
        causes["corrupt"] = causes.get("corrupt", 0) + emitted - delivered - lost
        lost = emitted - delivered
    elif has_ended and not is_broken:  # sealed and drained: what is still under way is refused, and was never emitted
        emitted = delivered + lost
    live = 0 if past else int(((rows["state"] & 0xFF) == core.SLOT_LIVE).sum())
    pending = max(emitted - delivered - lost, 0)
    return ProcessStats(pid, emitted, delivered, lost, pending, total("cut"), total("replaced"), live, causes)


def _merged(processes: list[ProcessStats], unregistered: int) -> dict[str, int]:
    causes: dict[str, int] = {}
    for process in processes:
        for cause, count in process.causes.items():
            causes[cause] = causes.get(cause, 0) + count
    if unregistered:
        causes["unregistered"] = unregistered
    return causes


def collect(segment: Segment, *, has_ended: bool = False, has_stopped: bool = False) -> Stats:
    """Reads a session's counters; `has_ended`: its ring is sealed, and all of it delivered.

    `has_stopped`: its dispatcher has ended, whether or not all is delivered.
    """
    import numpy as np

    is_broken = segment.state == core.STATE_BROKEN
    has_ended = has_ended or (is_broken and segment.read_pos == segment.tail)

    delivering = segment.delivering_slot
    rows = _columns(segment).copy()
    if delivering and delivering == segment.delivering_slot and rows["passed"][delivering]:
        rows["passed"][delivering] -= 1  # its callbacks have not returned
    rows = rows[(rows["state"] & 0xFF) != 0]
    pids = rows["state"] >> 32
    processes = [
        _process(
            int(pid),
            rows[(pids == pid) & (rows["start_time"] == start)],
            past=False,
            has_ended=has_ended,
            is_broken=is_broken,
        )
        for pid, start in np.unique(np.stack([pids, rows["start_time"]], axis=1), axis=0)
    ]
    past = _process(0, rows, past=True, has_ended=has_ended, is_broken=is_broken)
    if past.emitted:
        processes.append(past)
    unregistered = segment.lost_unregistered
    stalled = segment.stalled_slot
    causes = _merged(processes, unregistered)
    return Stats(
        emitted=sum(p.emitted for p in processes) + unregistered,
        delivered=sum(p.delivered for p in processes),
        lost=sum(causes.values()),
        pending=sum(p.pending for p in processes),
        cut=sum(p.cut for p in processes),
        replaced=sum(p.replaced for p in processes),
        causes=causes,
        processes=processes,
        subscriber_errors=segment.subscriber_errors,
        middleware_failures=segment.middleware_failures,
        ring_bytes=segment.ring_bytes,
        ring_used_bytes=segment.ring_used_bytes,
        stalled_pid=segment.slot_process(stalled)[0] if stalled else None,
        refused_requests=segment.refused_requests,
        exporters=load_last_reports(segment) if has_stopped else load_reports(segment),
    )
