"""What a tap tells who watches, frame by frame, and in which order.

    HELLO ─▶ SNAPSHOT ... ─▶ EVENTS or MISSED ... ─▶ END

A frame is `relay_mp._records.batches`'s: its length, its kind, a body. SNAPSHOT and EVENTS have events for a body; of
the former there is at least one, the last one empty. The others' is msgpack.
"""

from typing import Any, NamedTuple

__all__ = ["END", "EVENTS", "HELLO", "MISSED", "SNAPSHOT", "Missed", "Opened"]

HELLO, SNAPSHOT, EVENTS, MISSED, END = range(5)


class Opened(NamedTuple):
    """What was open when a subscription began.

    Attributes:
        starts: the start events of the open scopes, oldest first.
        since_us: who has begun and not ended since then is among them; of a scope that had begun before only its end
            may come. Microseconds since the epoch.
        given_up: how many others were open, and given up for the bound on what is kept.
        delivered: events of the session that were delivered before.
    """

    starts: list[Any]
    since_us: int
    given_up: int
    delivered: int


class Missed(NamedTuple):
    """Events that did not fit. `seq` and `timestamp_us` are those of the last one."""

    events: int
    seq: int
    timestamp_us: int
