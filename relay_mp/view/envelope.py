"""What the columns need of a line: identity, times, name, process, outcome, tokens and cost.

Runs for every line of a file, so it reads no payload: a canonical line is cut at places that cannot be inside of a
payload, and only metadata of the program's own is parsed, and the profile of an LLM call's end. Any other line is read
as the commands read it, as a whole (`relay_mp._runs.reading`).

    {"atof_version":"0.1","attributes":[],"category":"tool","category_profile":..., "data":..., "data_schema":...,
     "kind":"scope","metadata":{...},"name":"dig","parent_uuid":"...","scope_category":"end","timestamp":"...","uuid":"..."}
     ^ the last such key ................................................................. up to the line's end

A quote within a JSON string is escaped, so `,"kind":"` stands between members only. What follows it up to the line's
last brace is valid JSON member by member, so it stands in the outermost object, and not in a payload's.
"""

import json
import re
from datetime import UTC, datetime
from typing import Any, NamedTuple

from relay_mp._runs.calls import Usage, usage_of_call
from relay_mp._runs.reading import RecordedEvent, event_of_line
from relay_mp._runs.run import LLM, LOSS_MARK
from relay_mp.events import ORIGIN_KEY
from relay_mp.types import CATEGORIES

__all__ = ["END", "MARK", "MARK_KIND", "START", "Envelope", "envelope"]

START, END, MARK = 0, 1, 2

MARK_KIND = len(CATEGORIES)
"""The kind of a row that is a mark; below it stand the categories of scopes."""

_PHASES = {"start": START, "end": END, "mark": MARK}
_KINDS = {name.encode(): index for index, name in enumerate(CATEGORIES)}
_LLM = CATEGORIES.index(LLM)
_UNKNOWN = CATEGORIES.index("unknown")
_LOSS = LOSS_MARK.encode()
_NO_USAGE = (0, 0, 0.0)

_KIND = b',"kind":"'
_HEAD = re.compile(
    rb'\{"atof_version":"0\.1",(?:"attributes":\[(?:"\w+",?)*\],)?"category":(?:null|"(\w+)"),"category_profile":'
)
_TAIL = (
    rb',"name":"([^"\\]*)","parent_uuid":(?:null|"([^"\\]+)")(?:,"scope_category":"(start|end)")?'
    rb',"timestamp":"([^"\\]+)","uuid":"([^"\\]+)"\}\s*'
)
# What most lines end with: metadata of the library's own.
_PLAIN = re.compile(
    rb',"kind":"\w+","metadata":\{(?:"otel\.status_code":"(?:OK|UNSET)",)?(?:"pid":\d+,)?"relay_mp\.origin":'
    rb'\{"pid":(\d+),"seq":\d+,"session":"[^"\\]*","thread_id":(\d+)\}\}' + _TAIL
)
_OTHER = re.compile(rb',"kind":"\w+","metadata":(.*)' + _TAIL, re.DOTALL)
_decode_at = json.JSONDecoder().raw_decode


class Envelope(NamedTuple):
    """What the columns need of one event.

    Attributes:
        phase: START, END or MARK.
        time_us: microseconds since the epoch.
        kind: the index of the category in `CATEGORIES`, or MARK_KIND.
        pid, thread_id: who emitted it; 0 where the line does not say.
        is_error: the scope failed.
        read_tokens, written_tokens, cost: of an LLM call's end; 0 where none is reported.
        lost: events that this mark says were lost.
    """

    phase: int
    uuid: bytes
    parent: bytes | None
    time_us: int
    name: bytes
    kind: int
    pid: int
    thread_id: int
    is_error: bool
    read_tokens: int
    written_tokens: int
    cost: float
    lost: int


def envelope(line: bytes) -> Envelope:
    """The envelope of one line.

    Raises:
        ValueError: the line holds no event: it is cut short, or is something else.
    """
    at = line.rfind(_KIND)
    head = _HEAD.match(line) if at >= 0 else None
    if head is None:
        return _of_event(event_of_line(line))
    if found := _PLAIN.fullmatch(line, at):
        first, second, name, parent, half, timestamp, uuid = found.groups()
        pid, thread_id, is_error = int(first), int(second), False
    elif found := _OTHER.fullmatch(line, at):
        metadata, name, parent, half, timestamp, uuid = found.groups()
        try:
            parsed = json.loads(metadata)
        except ValueError:
            return _of_event(event_of_line(line))
        (pid, thread_id), is_error = _origin(parsed), _is_error(parsed)
    else:
        return _of_event(event_of_line(line))
    phase = MARK if half is None else END if half == b"end" else START
    kind = MARK_KIND if half is None else _KINDS.get(head[1], _UNKNOWN)
    usage = _NO_USAGE
    if kind == _LLM and phase == END:
        usage = _usage_of_line(line, head.end())
    elif name == _LOSS:
        return _of_event(event_of_line(line))
    return Envelope(phase, uuid, parent, _time_us(timestamp), name, kind, pid, thread_id, is_error, *usage, 0)


def _of_event(event: RecordedEvent) -> Envelope:
    phase = _PHASES[event.kind]
    kind = MARK_KIND if phase == MARK else _KINDS.get(str(event.category).encode(), _UNKNOWN)
    metadata, data, lost = event.fields.get("metadata"), event.fields.get("data"), 0
    if event.name == LOSS_MARK and isinstance(data, dict) and isinstance(data.get("causes"), dict):
        lost = sum(map(_count, data["causes"].values()))
    usage = _counted(usage_of_call(None, event)[0]) if kind == _LLM and phase == END else _NO_USAGE
    pid = _count(event.pid) or _origin(metadata)[0]
    parent = None if event.parent_uuid is None else event.parent_uuid.encode("utf-8", "replace")
    return Envelope(
        phase, event.uuid.encode("utf-8", "replace"), parent, event.timestamp_us, event.name.encode("utf-8", "replace"),
        kind, pid, _count(event.thread_id), _is_error(metadata), *usage, lost,
    )  # fmt: skip


def _origin(metadata: Any) -> tuple[int, int]:
    """Process and thread; an event without them may name its process itself."""
    if type(metadata) is not dict:
        return 0, 0
    origin = metadata.get(ORIGIN_KEY)
    if type(origin) is dict:
        return _count(origin.get("pid")), _count(origin.get("thread_id"))
    return _count(metadata.get("pid")), 0


def _is_error(metadata: Any) -> bool:
    """As `relay_mp._runs.run` says it."""
    return type(metadata) is dict and (
        metadata.get("otel.status_code") == "ERROR"
        or bool(metadata.get("exception.type") or metadata.get("error.type"))
    )


def _usage_of_line(line: bytes, at: int) -> tuple[int, int, float]:
    """Tokens read and written, and the cost, of an LLM call's end.

    The view that a codec gave of the response has them. Only the profile, which begins at `at`, is parsed for it: the
    payload behind it may be long. Where there is no such view the event is read as a whole.
    """
    if not line.startswith(b"null", at):
        found: Any = _decode_at(line[at:].decode("utf-8", "replace"))[0]
        for key in ("annotated_response", "usage"):
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, dict):
            cost = found.get("cost")
            total = cost.get("total") if isinstance(cost, dict) else None
            price = float(total) if isinstance(total, int | float) else 0.0
            return _count(found.get("prompt_tokens")), _count(found.get("completion_tokens")), price
    return _counted(usage_of_call(None, event_of_line(line))[0])


def _counted(usage: Usage) -> tuple[int, int, float]:
    """Costs are in dollars mostly; those in other currencies are not added to them, and stand in the detail."""
    return _count(usage.input_tokens), _count(usage.output_tokens), float(usage.costs["USD"])


def _count(value: Any) -> int:
    """A count that fits into a column; 0 for anything else."""
    return value if type(value) is int and 0 <= value < 1 << 32 else 0


_seconds: dict[bytes, int] = {}
_MOST_SECONDS = 10_000


def _time_us(timestamp: bytes) -> int:
    """Microseconds since the epoch; most lines are of a second that another line had."""
    if len(timestamp) != 32 or not timestamp.endswith(b"+00:00"):
        timestamp = datetime.fromisoformat(timestamp.decode()).astimezone(UTC).isoformat("T", "microseconds").encode()
    second = timestamp[:19]
    start = _seconds.get(second)
    if start is None:
        if len(_seconds) >= _MOST_SECONDS:
            _seconds.clear()
        start = _seconds[second] = int(datetime.fromisoformat(second.decode() + "+00:00").timestamp())
    return start * 1_000_000 + int(timestamp[20:26])
