"""ATIF where the dispatcher runs: events are gathered by top-level agent, each of which becomes a file.

    event ──▶ which agent's? (by parent uuid) ──▶ gathered ──▶ agent has ended ──▶ trajectory_of ──▶ file
                                                                                          └──▶ queue ──▶ POST

A trajectory is written when its agent and all scopes in it have ended. What comes later still, such as a
mark under a scope that has ended, writes the file again, as long as the trajectory is remembered. What is
gathered is bounded: those that are written are forgotten first, then the oldest lose their payloads, at
last the oldest is written as it is. With
HTTP storage the file is the recovery copy: it is removed once the receiver has the trajectory, unless it is
wanted, and sent again by a dispatcher that is started after one that was killed.
"""

import contextlib
import json
import os
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from relay_mp._deliver.private_files import open_file, own_directory, unforeseen_name
from relay_mp._deliver.reports import ExporterReport
from relay_mp._log import logger
from relay_mp._records.cut import cut_payloads
from relay_mp._threads import Lock
from relay_mp.events import Event, ScopeEvent
from relay_mp.observability.atif.filenames import check_template, render
from relay_mp.observability.atif.model import AgentInfo, collection_pause, trajectory_of
from relay_mp.observability.atif.storage import HttpStorageConfig
from relay_mp.observability.export.batch_queue import BatchQueue, Limits
from relay_mp.observability.export.endpoint import resolve_headers
from relay_mp.observability.export.http import HttpReceiver
from relay_mp.observability.export.sink import Sink, brief

__all__ = ["AtifSink"]

MAX_REMEMBERED = 64
"""Trajectories that are written and kept, for events that come late."""

REWRITE_SHARE = 8

CONTENT_TYPE = "application/json"
FILENAME_HEADER, SESSION_HEADER = "X-Relay-Mp-Atif-Filename", "X-Relay-Mp-Atif-Session-Id"

_json = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode


class _Gathered:
    """The records of one top-level agent's events. Uuids of scopes are packed, but the agent's own."""

    __slots__ = ("cut_events", "open_scopes", "path", "records", "size_bytes", "uuid", "uuids", "written_events")

    def __init__(self, uuid: str, path: str) -> None:
        self.uuid = uuid
        self.path = path
        self.records: list[bytes] = []  # no events: a collection of garbage would go through them, again and again
        self.uuids: list[bytes] = []
        self.open_scopes: set[bytes] = set()
        self.written_events = 0
        self.cut_events = 0  # the first ones, whose payloads are gone where they had any
        self.size_bytes = 0

    @property
    def unwritten_events(self) -> int:
        return len(self.records) - self.written_events

    def cut_next(self) -> bool:
        """Whether the oldest record that has not been looked at has lost payloads by this."""
        record = self.records[self.cut_events]
        shorter = cut_payloads(record)
        if shorter is not None:
            self.records[self.cut_events] = shorter
            self.size_bytes -= len(record) - len(shorter)
        self.cut_events += 1
        return shorter is not None


def _write_whole(path: str, body: bytes) -> None:
    """Or not at all: a reader never sees half a file."""
    half = unforeseen_name(f"{path}.part")
    try:
        with open(open_file(half, os.O_WRONLY), "wb") as file:
            file.write(body)
        os.replace(half, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(half)
        raise


def _whereabouts(path: str) -> str:
    return f"it is in {path}" if os.path.exists(path) else "there is no copy of it"


class AtifSink(Sink):
    """One trajectory for each top-level agent scope: one that has no agent around it.

    Args:
        agent_name, agent_version, model_name, tool_definitions, extra: what trajectories say of the agent.
        output_directory: absolute; where files go. None, with storage: the recovery copies only, in
            `recovery_directory`.
        filename_template: see filenames.py; `{session_id}` is the agent scope's uuid.
        storage: where trajectories are posted to: the fields of an HttpStorageConfig.
        recovery_directory: where copies are until the receiver has them; relative to the temporary directory.
        limits: see Limits.
        max_open_scopes: the oldest trajectory is written as it is beyond that.
        max_open_bytes: see AtifFileExporter.
        max_trajectory_events: of one trajectory; what is beyond is dropped and counted ("trajectory_full").
    """

    def __init__(
        self,
        *,
        agent_name: str,
        agent_version: str,
        model_name: str | None,
        tool_definitions: list[dict[str, Any]] | None,
        extra: dict[str, Any] | None,
        output_directory: str | None,
        filename_template: str,
        storage: dict[str, Any] | None,
        recovery_directory: str,
        limits: dict[str, Any],
        max_open_scopes: int,
        max_open_bytes: int,
        max_trajectory_events: int,
    ) -> None:
        super().__init__()
        check_template(filename_template)
        if output_directory is None and storage is None:
            raise ValueError("there is neither an output_directory nor a storage; expected one of them, or both")
        self._info = AgentInfo(agent_name, agent_version, model_name, tool_definitions, extra)
        self._template = filename_template
        self._keeps_files = output_directory is not None
        self._directory = recovery_directory if output_directory is None else output_directory
        self._max_open_scopes, self._max_events = max_open_scopes, max_trajectory_events
        self._max_bytes, self._gathered_bytes = max_open_bytes, 0
        self._places: dict[bytes | None, _Gathered | None] = {}
        self._has_directory = True
        self._open: dict[str, _Gathered] = {}
        self._uncut: OrderedDict[str, _Gathered] = OrderedDict()  # of those that are open
        self._remembered: dict[str, _Gathered] = {}
        self._unfinished = self._orphans = self._cut = self._evicted = 0
        self._queue: BatchQueue | None = None
        self._receiver: HttpReceiver | None = None
        self._gathering = Lock()  # `request_flush` writes from another thread
        if storage is not None:
            self._start_storage(limits, HttpStorageConfig(**storage))

    def _start_storage(self, limits: dict[str, Any], storage: HttpStorageConfig) -> None:
        self._receiver = HttpReceiver(storage.endpoint, resolve_headers(storage.headers, storage.header_env))
        bounds = {"timeout_seconds": storage.timeout_millis / 1000, "schedule_delay_seconds": 0.0, **limits}
        self._queue = BatchQueue(
            self, self._send, Limits(**{**bounds, "max_batch_items": 1}), given_up=self._keep, ended=self._end_storage
        )
        if not self._keeps_files:
            self._open_recovery_directory()

    def _open_recovery_directory(self) -> None:
        try:
            self._directory = own_directory(os.path.join(tempfile.gettempdir(), self._directory))
        except OSError as error:
            self._has_directory = False
            logger.warning("trajectories have no recovery copies, for there is no directory for them: %s", brief(error))
            return
        self._send_what_was_left()

    # ---- which trajectory ----

    def _export(self, event: Event) -> None:
        event.to_json_line()  # all of it is read: what is damaged costs this event, not the trajectory
        with self._gathering:
            self._gather(event)

    def _gather(self, event: Event) -> None:
        size_bytes = len(event._record)
        if self._gathered_bytes + size_bytes > self._max_bytes:
            self._make_bytes(size_bytes)
        gathered = self._place(event)
        if gathered is None:
            self.count_ignored()
            return
        if len(gathered.records) >= self._max_events:
            self.count_dropped("trajectory_full")
        else:
            gathered.records.append(event._record)
            gathered.size_bytes += size_bytes
            self._gathered_bytes += size_bytes
            if len(gathered.records) == gathered.cut_events + 1 and gathered.uuid in self._open:
                self._uncut[gathered.uuid] = gathered
        # What comes late writes the whole file again: a share of it at a time, or when flushed.
        if not gathered.open_scopes and gathered.unwritten_events > gathered.written_events // REWRITE_SHARE:
            self._write(gathered)

    def _place(self, event: Event) -> _Gathered | None:
        if not isinstance(event, ScopeEvent):
            return self._places.get(event.packed_parent)
        uuid = event.packed_uuid
        if event.scope_category == "end":
            return self._place_end(event, uuid)
        if len(self._places) >= self._max_open_scopes:
            self._make_room()
        gathered = self._places.get(event.packed_parent)
        if gathered is None and event.category == "agent":
            name = render(self._template, event.uuid, event.metadata)
            gathered = self._open[event.uuid] = _Gathered(event.uuid, os.path.join(self._directory, name))
        self._places[uuid] = gathered
        if gathered is not None:
            gathered.uuids.append(uuid)
            gathered.open_scopes.add(uuid)
        return gathered

    def _place_end(self, event: ScopeEvent, uuid: bytes) -> _Gathered | None:
        if uuid not in self._places:
            self._orphans += 1
            return self._places.get(event.packed_parent)
        gathered = self._places[uuid]
        if gathered is None:
            del self._places[uuid]
        else:
            gathered.open_scopes.discard(uuid)
        return gathered

    def _make_room(self) -> None:
        """Forgets what is written, then what is open the longest, in whole trajectories; at last single scopes."""
        if self._remembered:
            self._forget(next(iter(self._remembered.values())))
        elif self._open:
            self._evict()
        else:
            self._evicted += 1
            del self._places[next(iter(self._places))]

    def _make_bytes(self, size_bytes: int) -> None:
        """Makes room for an event of that size: forgets what is written, cuts what is open, and writes it as it is."""
        most = self._max_bytes - size_bytes
        while self._gathered_bytes > most and self._remembered:
            self._forget(next(iter(self._remembered.values())))
        while self._gathered_bytes > most and self._uncut:
            self._cut_payloads(next(iter(self._uncut.values())), most)
        while self._gathered_bytes > most and self._open:
            self._evict()

    def _cut_payloads(self, gathered: _Gathered, most: int) -> None:
        while self._gathered_bytes > most and gathered.cut_events < len(gathered.records):
            before = gathered.size_bytes
            self._cut += gathered.cut_next()
            self._gathered_bytes -= before - gathered.size_bytes
        if gathered.cut_events == len(gathered.records):
            del self._uncut[gathered.uuid]

    def _evict(self) -> None:
        oldest = next(iter(self._open.values()))
        self._evicted += len(oldest.open_scopes)
        self._write_unfinished(oldest)
        self._forget(oldest)

    def _forget(self, gathered: _Gathered) -> None:
        if gathered.unwritten_events:
            self._write_unfinished(gathered)
        self._open.pop(gathered.uuid, None)
        self._uncut.pop(gathered.uuid, None)
        self._remembered.pop(gathered.uuid, None)
        self._gathered_bytes -= gathered.size_bytes
        for uuid in gathered.uuids:
            self._places.pop(uuid, None)

    # ---- writing ----

    def _write_unfinished(self, gathered: _Gathered) -> None:
        self._unfinished += len(gathered.open_scopes)
        gathered.open_scopes.clear()
        self._write(gathered)

    def _write(self, gathered: _Gathered) -> None:
        self._open.pop(gathered.uuid, None)
        self._uncut.pop(gathered.uuid, None)
        self._remembered.pop(gathered.uuid, None)
        self._remembered[gathered.uuid] = gathered
        while len(self._remembered) > MAX_REMEMBERED:
            self._forget(next(iter(self._remembered.values())))
        events, gathered.written_events = gathered.unwritten_events, len(gathered.records)
        path = gathered.path
        try:
            body = self._render(gathered)
            self._store(path, body)
        except Exception as error:
            logger.error("the trajectory of agent %s was not written: %s", gathered.uuid, brief(error))
            self.count_failure(error)
            self.count_dropped("unwritten", events)
            return
        if self._queue is None:
            self.count_exported(events)
        elif not self._queue.put((gathered.uuid, path, body), len(body), events=events):
            logger.warning("a trajectory is not sent, for too many wait; %s", _whereabouts(path))

    def _write_late(self) -> None:
        for gathered in list(self._remembered.values()):
            if gathered.unwritten_events and not gathered.open_scopes:
                self._write(gathered)

    def _render(self, gathered: _Gathered) -> bytes:
        with collection_pause:  # the encoder too makes containers that no cycle goes through
            trajectory = trajectory_of(gathered.records, self._info, gathered.uuid, gathered.uuid)
            return _json(trajectory).encode("utf-8", "replace")  # a tool call's arguments may hold lone surrogates

    def _store(self, path: str, body: bytes) -> None:
        if not self._has_directory:
            return
        try:
            _write_whole(path, body)
        except OSError as error:
            if self._keeps_files:
                raise
            logger.warning("a trajectory has no recovery copy: %s", brief(error))
            self.count_failure(error)  # the receiver may take it all the same

    # ---- storage; on the queue's thread ----

    def _send(self, items: Sequence[tuple[str, str, bytes]], timeout_seconds: float) -> None:
        ((uuid, path, body),) = items
        assert self._receiver is not None
        names = {FILENAME_HEADER: os.path.relpath(path, self._directory), SESSION_HEADER: uuid}
        self._receiver.post(body, CONTENT_TYPE, timeout_seconds, **names)
        if not self._keeps_files:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _end_storage(self) -> None:
        """Not before: a directory that goes while a trajectory is being written takes that along."""
        assert self._receiver is not None
        self._receiver.close()
        if not self._keeps_files:
            with contextlib.suppress(OSError):  # there are copies in it
                os.rmdir(self._directory)

    def _keep(self, item: tuple[str, str, bytes]) -> None:
        logger.warning("the trajectory of agent %s could not be sent; %s", item[0], _whereabouts(item[1]))

    def _send_what_was_left(self) -> None:
        """Recovery copies of this session's last dispatcher, which was killed."""
        assert self._queue is not None
        for directory, _, names in os.walk(self._directory):
            for name in sorted(names):
                path = os.path.join(directory, name)
                if name.endswith(".json"):
                    with open(path, "rb") as file:
                        body = file.read()
                    self._queue.put((os.path.splitext(name)[0], path, body), len(body), events=0)

    # ---- lifecycle ----

    def _complete(self, report: ExporterReport) -> None:
        report.open_scopes = sum(len(gathered.open_scopes) for gathered in self._open.copy().values())
        report.open_bytes = self._gathered_bytes
        report.unfinished, report.orphans = self._unfinished, self._orphans
        report.cut, report.evicted = self._cut, self._evicted
        if self._queue is not None:
            report.flushed = self._queue.flushed(report.taken)

    def _is_closed(self) -> bool:
        return self._queue is None or self._queue.is_closed

    def request_flush(self) -> None:
        """Writes what came late; sends now what is written."""
        with self._gathering:
            self._write_late()
        if self._queue is not None:
            self._queue.request_flush()

    def _finish(self, seconds: float | None) -> None:
        with self._gathering:
            for gathered in [*self._open.values(), *self._remembered.values()]:
                if gathered.unwritten_events or gathered.open_scopes:
                    self._write_unfinished(gathered)
        if self._queue is not None:
            self._queue.finish(seconds)

    def close(self) -> None:
        """Writes trajectories that have not ended, waits for what is being sent."""
        super().close()
        if self._queue is not None:
            self._queue.close()
