"""Events of lines: ATOF 0.1, from this library or another program, with or without who has emitted them.

    {"kind":"scope","scope_category":"start","metadata":{"relay_mp.origin":{"pid":7,"seq":41,...}}, ...}
        ──▶ RecordedEvent(kind="start", pid=7, seq=41, ...)

A line that is not an event is counted, with its place and what is wrong with it, and the next one is read. A dead
program's last line may be half there: that is one of those.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

from relay_mp._runs.files import Lines, size_bytes, whole_set
from relay_mp.events import ORIGIN_KEY, Event, ScopeEvent

Kind: TypeAlias = Literal["start", "end", "mark"]

MAX_BAD_LINES_KEPT = 20
"""Lines that are not events are all counted; of so many it is kept where they are and what is wrong."""

REPORT_EVENTS = 2048
"""How often it is told how far reading has come."""

_decode = json.JSONDecoder().decode  # json.loads looks at each line's encoding first

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(slots=True)
class RecordedEvent:
    """One event of a recorded run.

    Attributes:
        kind: whether it starts or ends a scope, or is a mark.
        uuid: the scope's, or the mark's own.
        parent_uuid: the scope around it, of which the file need not have an event.
        timestamp_us: microseconds since the epoch.
        name: as it was emitted.
        category: None for marks without one.
        pid, thread_id: who has emitted it; None where the file does not say.
        seq: its place in its session's one order; None where the file does not say.
        session: the session's id; None where the file does not say.
        fields: the event in canonical ATOF, without the origin that the attributes have.
    """

    kind: Kind
    uuid: str
    parent_uuid: str | None
    timestamp_us: int
    name: str
    category: str | None
    pid: int | None
    thread_id: int | None
    seq: int | None
    session: str | None
    fields: dict[str, Any]


@dataclass
class BadLines:
    """Lines that are not events.

    Attributes:
        count: how many.
        first: of the first MAX_BAD_LINES_KEPT, "file:line: what is wrong".
    """

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, path: str, line: int, why: str) -> None:
        """One more."""
        self.count += 1
        if len(self.first) < MAX_BAD_LINES_KEPT:
            self.first.append(f"{path}:{line}: {why}")


class Recording:
    """The events of files, in the order of the files and of their lines.

    Iterating reads the files; each time from the start, and `bad` counts anew. Memory is used for one line at a time.

    Args:
        paths: files of ATOF JSON lines, "-" for standard input. What was put aside by rotation is read before each.
        on_progress: called with the bytes and the events read so far, every REPORT_EVENTS events.

    Attributes:
        paths: all files that are read.
        size_bytes: of all of them; None with standard input.
        bad: what is not an event, of the newest reading.
    """

    def __init__(self, paths: Sequence[str], on_progress: Callable[[int, int], object] | None = None) -> None:
        self.paths = whole_set(paths)
        self.size_bytes = size_bytes(self.paths)
        self.bad = BadLines()
        self.on_progress = on_progress

    def __iter__(self) -> Iterator[RecordedEvent]:
        """Raises OSError: a file cannot be read."""
        self.bad = BadLines()
        events = before_bytes = 0
        for path in self.paths:
            lines = Lines(path)
            number = 0
            for number, line in enumerate(lines, 1):
                if not (line := line.strip()):
                    continue
                try:
                    yield event_of_line(line)
                except ValueError as error:
                    self.bad.add(path, number, str(error))
                events += 1
                if not events % REPORT_EVENTS and self.on_progress is not None:
                    self.on_progress(before_bytes + lines.bytes_read(), events)
            if lines.is_cut_off:
                self.bad.add(path, number + 1, "the compressed file ends in the middle")
            before_bytes += size_bytes([path]) or 0


def event_of_line(line: bytes | str) -> RecordedEvent:
    """The event in a line of JSON.

    Raises:
        ValueError: it is not one; the message says why.
    """
    try:
        fields = _decode(line if isinstance(line, str) else line.decode())
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise ValueError("JSON that is nested too deep to be read") from error
    if not isinstance(fields, dict):
        raise ValueError(f"JSON, but not an event: expected an object, found {type(fields).__name__}")
    return event_of_fields(fields)


def event_of_fields(fields: dict[str, Any]) -> RecordedEvent:
    """The event that an object of ATOF describes. It is the caller's no more: the origin is taken out of it.

    Raises:
        ValueError: something that every event has is missing, or of another type.
    """
    kind = _kind(fields)
    get = fields.get
    uuid, name, parent, category = get("uuid"), get("name"), get("parent_uuid"), get("category")
    if not (isinstance(uuid, str) and isinstance(name, str)):
        key = "name" if isinstance(uuid, str) else "uuid"
        raise ValueError(f"not an event: {key!r} is {fields.get(key)!r:.60}; expected a text")
    origin = _taken_origin(fields)
    return RecordedEvent(
        kind,
        uuid,
        parent if isinstance(parent, str) else None,
        _microseconds(fields.get("timestamp")),
        name,
        category if isinstance(category, str) else None if kind == "mark" else "unknown",
        _number(origin.get("pid")),
        _number(origin.get("thread_id")),
        _number(origin.get("seq")),
        session if isinstance(session := origin.get("session"), str) else None,
        fields,
    )


def recorded(event: Event, session: str | None = None) -> RecordedEvent:
    """A live event as a recorded one, so that what reads files shows running programs too.

    Args:
        event: as a subscriber gets it.
        session: the id of its session.
    """
    kind: Kind = event.scope_category if isinstance(event, ScopeEvent) else "mark"
    return RecordedEvent(
        kind,
        event.uuid,
        event.parent_uuid,
        event.timestamp_us,
        event.name,
        event.category,
        event.pid,
        event.thread_id,
        event.seq,
        session,
        event.to_dict(),
    )


def _kind(fields: dict[str, Any]) -> Kind:
    kind, half = fields.get("kind"), fields.get("scope_category")
    if kind == "mark":
        return "mark"
    if kind == "scope" and half in ("start", "end"):
        return "start" if half == "start" else "end"
    if kind == "scope":
        raise ValueError(f"not an event: 'scope_category' is {half!r:.60}; expected 'start' or 'end'")
    raise ValueError(f"not an event: 'kind' is {kind!r:.60}; expected 'scope' or 'mark'")


def _taken_origin(fields: dict[str, Any]) -> dict[str, Any]:
    metadata = fields.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get(ORIGIN_KEY), dict):
        return {}
    origin: dict[str, Any] = metadata.pop(ORIGIN_KEY)
    if not metadata:
        fields["metadata"] = None
    return origin


def _microseconds(timestamp: Any) -> int:
    """ATOF's timestamp: RFC 3339, or whole microseconds since the epoch."""
    if isinstance(timestamp, int) and not isinstance(timestamp, bool):
        return timestamp
    try:
        moment = datetime.fromisoformat(timestamp)
        return (moment - _EPOCH) // _MICROSECOND
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"not an event: 'timestamp' is {timestamp!r:.60}; expected RFC 3339 with a time zone, or microseconds"
        ) from error


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
