"""What an exporter says of itself: how much it was given, and what became of it.

    sink (a subscriber's callback, where the dispatcher runs) ──▶ report()
        ──▶ Subscriptions.reports ──▶ the segment, with the table of subscribers ──▶ session.stats().exporters

Any callback may have these methods beside its call; `Subscription` looks for them by name:

    take_batch(events)  takes of these events, which follow each other in the stream, so many from the first as it
                      can, ahead of the other callbacks; returns how many. With the next it is called. Never forks
    report()          an ExporterReport; any thread
    request_flush()            sends now what it has gathered; returns at once
    finish(seconds)   no more events come; sends what is left within that time; returns at once
    close()           waits for what `finish` began
    begin(opened)     before its first event: which scopes are open, see frames.Opened. In the dispatcher's thread
    check()           between events, about twice a second: False ends it, for it is of no use any more
    end_stream()      the session has ended, before `finish`
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

__all__ = ["CLOSED", "FAILING", "RUNNING", "ExporterReport"]

RUNNING, FAILING, CLOSED = "running", "failing", "closed"


@dataclass(slots=True)
class ExporterReport:
    """An exporter's counts, since its registration. `taken` is the sum of `exported`, `ignored`,
    `dropped`, `unconfirmed` and `queued`.

    Attributes:
        state: "running"; "failing" while the newest attempt failed; "closed" after the last event.
        taken: events that it was given.
        exported: of them, those that are where they should be.
        ignored: of them, those that its format has no place for.
        drops: of them, those that were given up, by cause.
        unconfirmed: of them, those that a dispatcher that was killed had taken and may not have exported: an
            upper bound.
        queued: of them, those still on their way.
        flushed: of them, from the first, those that no longer wait for anything but later events.
        failures: attempts that failed, those that were repeated with success too.
        open_scopes: scopes that have begun and not ended, where it keeps them.
        open_bytes: what it keeps of them counts so much towards `max_open_bytes`.
        unfinished: scopes that were exported without their end.
        orphans: ends of scopes whose start it has not seen.
        cut: open scopes (of trajectories: events) whose payloads were given up because they took too many bytes.
        evicted: open scopes given up because there were too many, or because they took too many bytes.
        overflowed: measurements that went into an overflow series because there were too many others.
        last_error: the newest failure, in words.
        place: where it is reached, for those that are asked rather than send.
        buffers: whether what it has taken may be in memory only.
    """

    state: str = RUNNING
    taken: int = 0
    exported: int = 0
    ignored: int = 0
    drops: dict[str, int] = field(default_factory=dict)
    unconfirmed: int = 0
    queued: int = 0
    flushed: int = 0
    failures: int = 0
    open_scopes: int = 0
    open_bytes: int = 0
    unfinished: int = 0
    orphans: int = 0
    cut: int = 0
    evicted: int = 0
    overflowed: int = 0
    last_error: str | None = None
    place: str | None = None
    buffers: bool = True

    @property
    def dropped(self) -> int:
        """Events that were given up, of all causes."""
        return sum(self.drops.values())

    @property
    def lost(self) -> int:
        """Events that are not, or perhaps not, where they should be."""
        return self.dropped + self.unconfirmed

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> "ExporterReport":
        """From what another process wrote; what this version does not know, or is not of its type, is left out."""
        known = cls()
        for name in _NAMES:
            value, default = found.get(name), getattr(known, name)
            if type(value) is type(default) or (default is None and isinstance(value, str)):
                setattr(known, name, value)
        known.drops = {str(cause): count for cause, count in known.drops.items() if type(count) is int}
        return known

    def after(self, earlier: "ExporterReport") -> "ExporterReport":
        """The sum with what an earlier run of the same exporter counted."""
        summed = ExporterReport(**{name: getattr(self, name) for name in _NAMES})
        for name in _SUMMED:
            setattr(summed, name, getattr(self, name) + getattr(earlier, name))
        causes = {**earlier.drops, **self.drops}
        summed.drops = {cause: earlier.drops.get(cause, 0) + self.drops.get(cause, 0) for cause in causes}
        summed.last_error = self.last_error or earlier.last_error
        return summed

    def after_kill(self, delivered_since: int) -> "ExporterReport":
        """What the run that ended with its dispatcher's death amounts to.

        Args:
            delivered_since: events that the dispatcher began to deliver after it had published this report. The last
                may be delivered again, which an exporter that does not buffer leaves out of its counts.
        """
        ended = ExporterReport.from_dict(self.to_dict())
        ended.taken += delivered_since
        if self.buffers:
            ended.unconfirmed += self.queued + delivered_since
        else:
            ended.exported += delivered_since
        ended.queued = ended.open_scopes = ended.open_bytes = 0
        ended.flushed = ended.taken
        return ended


_NAMES = tuple(f.name for f in fields(ExporterReport))
_SUMMED = (
    "taken", "exported", "ignored", "unconfirmed", "flushed", "failures", "unfinished", "orphans", "cut",
    "evicted", "overflowed",
)  # fmt: skip
