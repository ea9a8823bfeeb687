"""The Chrome trace where the dispatcher runs: a slice is written when its scope ends, an instant at once.

    scope start ──▶ kept, with a lane of its thread ──▶ scope end ──▶ {"ph": "X"} ──▶ one append
    mark        ──▶ {"ph": "i"} ──▶ one append

Slices of one track must nest. Scopes of one thread need not: asyncio tasks interleave. So each thread has
lanes: a scope goes onto the lane on which its parent is the innermost, else onto an empty one. What does
not nest after all, as a scope that outlives the one around it, and what finds no lane, is drawn as an
asynchronous slice ({"ph": "b"}, {"ph": "e"}), which has a track to itself.

Times are microseconds since the trace's epoch, which is in the first line, and EPOCH_MARGIN_US before the first event
that is written: events of processes that begin together come in any order, times may be told afterwards, and
Perfetto drops what is negative. What is earlier still is drawn at the epoch, with its own times beside it. Where
events fall into the same microsecond, a scope's ends are drawn in by one nanosecond for each scope around it, so that
the order of nesting shows.
"""

import json
import os
import time
from collections.abc import Iterator
from typing import Any

from relay_mp._deliver.open_scopes import OpenScopes, OpenStart
from relay_mp._deliver.reports import ExporterReport
from relay_mp._log import logger
from relay_mp._native.shorten import CUT_KEY
from relay_mp._records.json_line import payload_json
from relay_mp._session.membership import session_id
from relay_mp.events import Event, ScopeEvent
from relay_mp.observability.export.sink import Sink
from relay_mp.observability.perfetto.trace_file import TraceFile

__all__ = ["PerfettoSink"]

CHECK_EVENTS, CHECK_SECONDS = 256, 1.0
"""How often it is looked whether the file still has a name."""

MAX_LANES = 64
"""Of one thread."""

LANE_THREADS = 1 << 22
"""Added to a thread's number for each further lane of it; above the kernel's thread numbers."""

MAX_DRAWN_IN_NS = 400
"""Less than half of the microsecond that a scope takes at least."""

EPOCH_MARGIN_US = 30 * 24 * 3600 * 1_000_000
"""So long before its first event a trace's epoch is."""

EXACT_NS = 1 << 52
"""Up to so long after the epoch, 52 days, a reader's floats tell nanoseconds apart; no scope is drawn in beyond."""

MAX_PAYLOAD_CHARACTERS = 8192
_NEVER = -(1 << 62)

_DATA, _METADATA, _PROFILE = 9, 10, 11
"""A record's payloads."""

_json = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode
_quoted = json.encoder.encode_basestring  # what that does with a text: an event has many


class _Slice(OpenStart[ScopeEvent]):
    """A scope that has begun."""

    __slots__ = ("begins_ns", "depth", "drawn_until_ns", "lane", "parent", "thread")

    def __init__(self, start: ScopeEvent, parent: "_Slice | None", depth: int, begins_ns: int) -> None:
        super().__init__(start)
        self.thread = (start.pid, start.thread_id)
        self.parent = parent
        self.depth = depth
        self.begins_ns = begins_ns
        self.lane: _Lane | None = None
        self.drawn_until_ns = _NEVER


class _Lane:
    """A track of a thread: the open scopes on it, outermost first, and until when it is drawn on."""

    __slots__ = ("drawn_until_ns", "number", "open")

    def __init__(self, number: int) -> None:
        self.number = number
        self.open: list[_Slice] = []
        self.drawn_until_ns = _NEVER


class _Thread:
    """A thread's lanes."""

    __slots__ = ("count", "empty")

    def __init__(self) -> None:
        self.count = 0
        self.empty: list[_Lane] = []

    def begin(self, piece: _Slice) -> None:
        """Chooses a lane for a scope that begins; none, if it is to have a track to itself."""
        parent = piece.parent
        if parent is not None and parent.thread == piece.thread and parent.lane is not None:
            lane = parent.lane
            if lane.open[-1] is parent and piece.begins_ns >= max(parent.begins_ns, parent.drawn_until_ns):
                lane.open.append(piece)
                piece.lane = lane
                return
        piece.lane = self._empty_lane(piece.begins_ns)
        if piece.lane is not None:
            piece.lane.open.append(piece)

    def _empty_lane(self, from_ns: int) -> _Lane | None:
        if self.empty and self.empty[-1].drawn_until_ns <= from_ns:
            return self.empty.pop()
        if self.count == MAX_LANES:
            return None
        self.count += 1
        return _Lane(self.count - 1)

    def end(self, piece: _Slice, ends_ns: int) -> _Lane | None:
        """The lane on which a scope that ends is drawn; None: on a track of its own."""
        lane = piece.lane
        if lane is None:
            return None
        position = lane.open.index(piece)
        for inner in lane.open[position + 1 :]:
            inner.lane = None  # they outlive it
        del lane.open[position:]
        if not lane.open:
            self.empty.append(lane)
        nests = ends_ns >= piece.drawn_until_ns
        if nests:
            lane.drawn_until_ns = max(lane.drawn_until_ns, ends_ns)
            if lane.open:
                lane.open[-1].drawn_until_ns = max(lane.open[-1].drawn_until_ns, ends_ns)
        return lane if nests else None


class PerfettoSink(Sink):
    """Writes the session as a Chrome trace, which Perfetto and chrome://tracing open.

    Args:
        path: absolute.
        mode: see TraceFile.
        max_open_scopes, max_open_bytes: see PerfettoExporter.
        payloads: whether slices and instants carry data and metadata.
    """

    def __init__(self, path: str, *, mode: str, max_open_scopes: int, max_open_bytes: int, payloads: bool) -> None:
        super().__init__()
        self._session_id = session_id()
        self._file = TraceFile.of_run(path, self._session_id, mode)
        self._payloads = payloads
        self._open: OpenScopes[_Slice] = OpenScopes(max_open_scopes, self._write_unfinished, max_open_bytes)
        self._threads: dict[tuple[int, int], _Thread] = {}
        self._named: set[tuple[int, int]] = set()
        self._flows = 0
        self._newest_us = 0
        self._exported_when_checked = 0
        self._next_check = 0.0

    def _export(self, event: Event) -> None:
        if event.redelivered and self._file.ends_with(event.uuid):
            self.count_exported()
            return  # written by the dispatcher that died, just before it could say so
        if self.taken % CHECK_EVENTS == 0 or time.monotonic() >= self._next_check:
            self._check_it_is_there()
        time_us = event.timestamp_us
        self._newest_us = max(self._newest_us, time_us)
        if self._file.epoch_us is None:
            self._file.begin(time_us - EPOCH_MARGIN_US)
        if isinstance(event, ScopeEvent) and event.scope_category == "start":
            self._begin(event)  # exported when its slice is written
            return
        if isinstance(event, ScopeEvent):
            self._end(event)
        else:
            self._instant(event, self._open.get(event.packed_parent), event.name)
        self.count_exported()

    def _check_it_is_there(self) -> None:
        """A file or directory that somebody has removed is made anew; what went with it is counted."""
        self._next_check = time.monotonic() + CHECK_SECONDS
        if self._file.is_removed:
            gone = self._counts.exported - self._exported_when_checked
            self.count_exported(-gone)
            self.count_dropped("removed", gone)
            self.count_failure(f"{self._file.path} was removed")
            logger.warning("%s was removed while it was written; %d events are counted as lost", self._file.path, gone)
            epoch_us = self._file.epoch_us
            self._file.close()
            self._file = TraceFile(self._file.path, self._session_id, "append")
            self._named.clear()
            if epoch_us is not None:
                self._file.begin(epoch_us)
        self._exported_when_checked = self._counts.exported

    def _begin(self, event: ScopeEvent) -> None:
        parent = self._open.get(event.packed_parent)
        depth = _depth_in(parent)
        piece = _Slice(event, parent, depth, self._drawn_from_ns(event.timestamp_us, depth))
        thread = self._threads.get(piece.thread)
        if thread is None:
            thread = self._threads[piece.thread] = _Thread()
        thread.begin(piece)
        self._open.begin(piece)

    def _end(self, event: ScopeEvent) -> None:
        piece = self._open.end(event.packed_uuid)
        if piece is None:
            self._instant(event, None, f"end of {event.name}")
        else:
            self._write_slice(piece, event.timestamp_us, event)

    def _write_unfinished(self, piece: _Slice) -> None:
        try:
            self._write_slice(piece, self._newest_us + 1, None)
        except Exception as error:  # counted there; it is another event that is in hand
            self.count_failure(error)

    def _write_slice(self, piece: _Slice, end_us: int, end: ScopeEvent | None) -> None:
        try:
            self._file.write(self._slice(piece, end_us, end))
        except Exception as error:  # the start is lost with it; its end is counted by who called
            self.count_dropped("unwritten" if isinstance(error, OSError) else type(error).__name__)
            raise
        finally:
            piece.parent = None  # else a chain of ended scopes would be kept by their youngest
            piece.let_go()
        self.count_exported()

    def _slice(self, piece: _Slice, end_us: int, end: ScopeEvent | None) -> str:
        """Its lines, behind those that they need."""
        start = piece.start
        ends_ns = max(self._drawn_until_ns(end_us, piece.depth), piece.begins_ns)
        lane = self._threads[piece.thread].end(piece, ends_ns)
        uuid, name, category, pid = start.uuid, start.name, _quoted(start.category), start.pid
        args = self._args(start, uuid, end, *self._slice_payloads(start, end))
        number = self._track(piece.thread, lane)
        if lane is not None:
            line = self._event("X", name, pid, number, piece.begins_ns)
            lines = f'{line},"cat":{category},"dur":{(ends_ns - piece.begins_ns) / 1000!r},"args":{args}}},\n'
        else:
            first = self._event("b", name, pid, number, piece.begins_ns)
            last = self._event("e", name, pid, number, ends_ns)
            shared = f',"cat":{category},"id":"{uuid}","args":'
            lines = f'{first}{shared}{args}}},\n{last}{shared}{{"uuid":"{uuid}"}}}},\n'
        arrow = self._arrow(piece, piece.parent, number) if piece.parent is not None and lane is not None else ""
        return self._names(piece.thread, lane) + arrow + lines

    def _instant(self, event: Event, parent: _Slice | None, name: str) -> None:
        thread = (event.pid, event.thread_id)
        lane = parent.lane if parent is not None and parent.thread == thread else None
        args = self._args(event, event.uuid, event, ("data", event, _DATA), ("metadata", event, _METADATA))
        at_ns = self._drawn_from_ns(event.timestamp_us, _depth_in(parent))
        line = self._event("i", name, event.pid, self._track(thread, lane), at_ns)
        scope = "t" if event.thread_id else "p"
        line += f',"cat":{_quoted(event.category or "mark")},"s":"{scope}","args":{args}}},\n'
        self._file.write(self._names(thread, lane) + line)

    def _arrow(self, piece: _Slice, parent: _Slice, number: int) -> str:
        """From the parent to a scope of another thread or process; only from a parent that is still open."""
        if parent.thread == piece.thread or parent.lane is None:
            return ""
        if self._open.get(parent.uuid) is not parent:
            return ""
        self._flows += 1
        # 64 bits in hexadecimal, all that Perfetto's trace processor takes. With the pid, as a successor appends.
        shared = f',"cat":"parent","id":"0x{os.getpid():x}{self._flows:08x}"'
        from_ns = max(parent.begins_ns, self._drawn_from_ns(piece.start.timestamp_us, parent.depth))
        tail = self._event("s", "child", parent.start.pid, self._track(parent.thread, parent.lane), from_ns)
        head = self._event("f", "child", piece.start.pid, number, max(piece.begins_ns, from_ns))
        return f'{self._names(parent.thread, parent.lane)}{tail}{shared}}},\n{head}{shared},"bp":"e"}},\n'

    @staticmethod
    def _event(phase: str, name: str, pid: int, thread: int, at_ns: int) -> str:
        """The beginning of a line."""
        return f'{{"ph":"{phase}","name":{_quoted(name)},"pid":{pid},"tid":{thread},"ts":{at_ns / 1000!r}'

    def _nanoseconds(self, time_us: int) -> int:
        return max(time_us - (self._file.epoch_us or 0), 0) * 1000

    def _drawn_from_ns(self, time_us: int, depth: int) -> int:
        at_ns = self._nanoseconds(time_us)
        return at_ns + depth if 0 < at_ns < EXACT_NS else at_ns

    def _drawn_until_ns(self, time_us: int, depth: int) -> int:
        at_ns = self._nanoseconds(time_us)
        return at_ns - depth if 0 < at_ns < EXACT_NS else at_ns

    def _times_before_the_epoch(self, event: Event, end: Event | None) -> Iterator[str]:
        """Of what is drawn at the epoch, since it was earlier."""
        for key, each in (("timestamp", event), ("end_timestamp", end)):
            if each is not None and each.timestamp_us < (self._file.epoch_us or 0):
                yield f'"{key}":"{each.timestamp}"'

    @staticmethod
    def _track(thread: tuple[int, int], lane: _Lane | None) -> int:
        return thread[1] + (lane.number * LANE_THREADS if lane is not None else 0)

    def _names(self, thread: tuple[int, int], lane: _Lane | None) -> str:
        """The names of a process and a thread, before the first event of theirs."""
        pid, number = thread[0], self._track(thread, lane)
        if (pid, number) in self._named:
            return ""
        named = [] if (pid, -1) in self._named else [_name("process_name", pid, 0, f"process {pid}")]
        said = "main thread" if thread[1] == pid else f"thread {thread[1]}"
        named.append(_name("thread_name", pid, number, said if number == thread[1] else f"{said}, beside it"))
        self._named |= {(pid, -1), (pid, number)}
        return "".join(named)

    @staticmethod
    def _slice_payloads(start: ScopeEvent, end: ScopeEvent | None) -> list[tuple[str, Event, int]]:
        """By name, where each is: what goes in, what comes out, and what describes the scope, its end's if it ended."""
        payloads: list[tuple[str, Event, int]] = [("input", start, _DATA)]
        if end is not None:
            payloads.append(("output", end, _DATA))
        last = end or start
        return [*payloads, ("metadata", last, _METADATA), ("category_profile", last, _PROFILE)]

    def _args(self, event: Event, uuid: str, end: Event | None, *payloads: tuple[str, Event, int]) -> str:
        """What an event has beside its place in the picture, as JSON. `end`: a mark itself; None: not ended yet."""
        parent = event.parent_uuid
        quoted = "null" if parent is None else f'"{parent}"'
        args = [f'"uuid":"{uuid}","parent_uuid":{quoted},"seq":{event.seq}']
        args += self._times_before_the_epoch(event, end if end is not event else None)
        if end is None:
            args.append('"unfinished":true')
        if isinstance(event, ScopeEvent) and event.scope_category == "start" and event.attributes:
            args.append(f'"attributes":{_json(event.attributes)}')
        for name, of, index in payloads if self._payloads else ():
            text = payload_json(of, index) or _json(of._fresh(index))
            if len(text) > MAX_PAYLOAD_CHARACTERS:
                text = _json({CUT_KEY: {"bytes": len(text.encode("utf-8", "replace"))}})
            if text != "null":
                args.append(f'"{name}":{text}')
        return f"{{{','.join(args)}}}"

    def _complete(self, report: ExporterReport) -> None:
        self._open.complete(report)

    def _finish(self, _seconds: float | None) -> None:
        try:
            for piece in self._open.drain():
                self._write_unfinished(piece)
        finally:
            self._file.close(_json(_END) + "]\n")


def _depth_in(parent: _Slice | None) -> int:
    return min(parent.depth + 1, MAX_DRAWN_IN_NS) if parent is not None else 0


_END = {"ph": "M", "name": "relay_mp_end", "pid": 0, "tid": 0, "args": {}}


def _line(event: dict[str, Any]) -> str:
    return _json(event) + ",\n"


def _name(kind: str, pid: int, thread: int, name: str) -> str:
    return _line({"ph": "M", "name": kind, "pid": pid, "tid": thread, "args": {"name": name}})
