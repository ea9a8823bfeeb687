"""Where ATOF goes: lines in a file, or lines in HTTP requests. Runs where the dispatcher runs.

    events ─▶ FileSink ──▶ JsonlFile: the lines are with the kernel before an event counts as delivered
    event ──▶ StreamSink ──▶ line ──▶ BatchQueue ──▶ POST

The file: whatever kills the dispatcher, no line is half there, and its successor writes none twice.
The stream: what the receiver has acknowledged is exported. A dispatcher that is killed takes its queue
with it, which its successor reports as `unconfirmed`.
"""

import contextlib
import json
import os
import time
from collections.abc import Sequence
from typing import Any

from relay_mp._deliver.jsonl import MAX_WRITE_BYTES, JsonlFile
from relay_mp._deliver.reports import CLOSED, FAILING, RUNNING, ExporterReport
from relay_mp._log import logger
from relay_mp._records.json_line import event_line, json_lines
from relay_mp._session.membership import session_id as current_session_id
from relay_mp.events import Event
from relay_mp.observability.export.batch_queue import BatchQueue, Limits, QueuedSink
from relay_mp.observability.export.endpoint import resolve_headers
from relay_mp.observability.export.http import HttpReceiver
from relay_mp.observability.export.sink import brief

__all__ = ["FileSink", "StreamSink"]

CHECK_EVENTS, CHECK_SECONDS = 256, 1.0
"""How often it is looked whether the file still has its name."""

CONTENT_TYPE = "application/x-ndjson"


class FileSink:
    """Appends ATOF lines to a file. Not a `Sink`: it keeps nothing, and its call is the fast path.

    Args:
        path: absolute.
        fsync: "never", "flush" (when flushed and closed) or "always" (each event, before the next).
        rotate_bytes: a file this long is put aside before the next line; 0: never.
        rotated_files: how many of those put aside are kept; 0: all.
        session_id: goes into the names of files that are put aside.
        origin: whether lines say who has emitted their events.

    Raises:
        OSError: see JsonlFile. When called: what could not be written is counted, the file ends whole.
    """

    def __init__(
        self, path: str, *, fsync: str, rotate_bytes: int, rotated_files: int, session_id: str, origin: bool
    ) -> None:
        self._path = path
        self._fsync = fsync
        self._rotate_bytes = rotate_bytes or 1 << 62
        self._rotated_files = rotated_files
        self._session_id = session_id
        self._origin = _origin_of_lines(origin)
        self._file = JsonlFile(path)
        self._redelivered = self._dropped = self._removed = self._failures = 0
        self._last_error: str | None = None
        self._is_failing = self._is_finished = False
        self._lines_when_checked = 0
        self._next_check = 0.0

    def __call__(self, event: Event) -> None:
        """One event, in the order of the stream."""
        self._redelivered += event.redelivered
        try:
            line = event_line(event, self._origin)
            # It may be the file's last line: not before that is known does a new file begin.
            if not self._file.has(line):
                self._prepare(1)
                self._file.write(line, 1)
            if self._fsync == "always":
                self._file.flush()
        except Exception as error:
            self._dropped += 1
            self._failures += 1
            self._last_error, self._is_failing = brief(error), True
            raise
        self._is_failing = False

    def take_batch(self, events: list[Event]) -> int:
        """Of events in the order of the stream, so many from the first as one write can take.

        None where each has to be on the disk before the next, and where something fails, which the call then says
        and counts. What a dispatcher that died has written ahead comes by calls first.
        """
        if self._is_failing or self._fsync == "always":
            return 0
        self._file.settle()
        try:
            self._prepare(len(events))
            # As many as fit into one write, up to where the file is long enough to be put aside.
            room_bytes = max(self._rotate_bytes - self._file.size_bytes, 0)
            block, lines = json_lines(events, MAX_WRITE_BYTES, room_bytes, self._origin)
            if lines:
                self._file.write(block, lines)
        except Exception:
            return 0
        return lines

    def _prepare(self, events: int) -> None:
        """Before so many are written: puts a file aside that is long enough, and sees to it that there is one."""
        unchecked = self._file.lines + events - self._lines_when_checked
        if self._file.size_bytes >= self._rotate_bytes:
            self._rotate()
        elif unchecked > CHECK_EVENTS or time.monotonic() >= self._next_check:
            self._check_it_is_there()

    def _check_it_is_there(self) -> None:
        """A file that somebody has moved or removed is made anew; what went with a removed one is counted."""
        if self._file.is_removed:
            gone = self._file.lines - self._lines_when_checked
            self._removed += gone
            self._failures += 1
            self._last_error = f"{self._path} was removed"
            logger.warning("%s was removed while it was written; %d of its lines are counted as lost", self._path, gone)
            self._file.begin_anew(is_removed=True)
        elif self._file.is_moved:
            if self._fsync != "never":
                self._file.flush()
            self._file.begin_anew()
        self._lines_when_checked = self._file.lines
        self._next_check = time.monotonic() + CHECK_SECONDS

    def _rotate(self) -> None:
        self._check_it_is_there()
        if self._file.size_bytes:
            if self._fsync != "never":
                self._file.flush()
            os.rename(self._path, self._rotated_name(self._next_number()))
            self._file.begin_anew()
            self._remove_old()
        self._lines_when_checked = self._file.lines

    def _rotated_name(self, number: int) -> str:
        stem, suffix = os.path.splitext(self._path)
        session = "" if self._session_id in os.path.basename(stem) else f"-{self._session_id}"
        return f"{stem}{session}.{number:04d}{suffix}"

    def _numbers(self) -> list[int]:
        """Of the files of this session that have been put aside."""
        before, after = self._rotated_name(0).rsplit("0000", 1)
        found = [name[len(before) : len(name) - len(after)] for name in self._siblings() if name.startswith(before)]
        return sorted(int(number) for number in found if number.isdigit())

    def _siblings(self) -> list[str]:
        directory = os.path.dirname(self._path)
        return [os.path.join(directory, name) for name in os.listdir(directory)]

    def _next_number(self) -> int:
        return max(self._numbers(), default=0) + 1

    def _remove_old(self) -> None:
        if self._rotated_files:
            for number in self._numbers()[: -self._rotated_files]:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._rotated_name(number))

    def report(self) -> ExporterReport:
        """See ExporterReport."""
        # What is delivered again is in the account of the dispatcher that died (ExporterReport.after_kill).
        lines = self._file.lines - self._redelivered
        drops = {"unwritten": self._dropped, "removed": self._removed}
        taken = lines + self._dropped
        return ExporterReport(
            state=CLOSED if self._is_finished else FAILING if self._is_failing else RUNNING,
            taken=taken,
            exported=lines - self._removed,
            drops={cause: count for cause, count in drops.items() if count},
            flushed=taken,
            failures=self._failures,
            last_error=self._last_error,
            buffers=False,
        )

    def request_flush(self) -> None:
        """With fsync="flush", waits for the disk."""
        if self._fsync == "flush":
            self._file.flush()

    def finish(self, _seconds: float | None = None) -> None:
        """Closes the file."""
        if self._is_finished:
            return
        try:
            self._check_it_is_there()
            self.request_flush()
        finally:
            self._file.close()
            self._is_finished = True

    def close(self) -> None:
        """See `finish`."""
        self.finish()


def _origin_of_lines(origin: bool) -> bytes | None:
    """The session of the dispatcher, in which the events are emitted; None if lines are not to say it."""
    return current_session_id().encode() if origin else None


class StreamSink(QueuedSink):
    """Posts ATOF lines to a receiver, in order, each at least once: what was sent and not answered is sent again.

    Args:
        url: http or https.
        transport: "http_post": a request an event; "ndjson": as many lines a request as have gathered.
        headers: of every request.
        header_env: header names to the names of environment variables that hold their values.
        timeout_millis: of one attempt.
        field_name_policy: "preserve", or "replace_dots": dots in keys become underscores.
        origin: whether lines say who has emitted their events.
        limits: see Limits.

    Raises:
        ValueError: the URL is not an address, or a variable is not set.
    """

    def __init__(
        self,
        url: str,
        *,
        transport: str,
        headers: dict[str, str],
        header_env: dict[str, str],
        timeout_millis: int,
        field_name_policy: str,
        origin: bool,
        limits: dict[str, Any],
    ) -> None:
        super().__init__()
        self._receiver = HttpReceiver(url, resolve_headers(headers, header_env))
        self._origin = _origin_of_lines(origin)
        self._replaces_dots = field_name_policy == "replace_dots"
        bounds = {"timeout_seconds": timeout_millis / 1000, **limits}
        if transport == "http_post":
            bounds["max_batch_items"] = 1
        self._queue = BatchQueue(self, self._send, Limits(**bounds), ended=self._receiver.close)

    def _export(self, event: Event) -> None:
        line = event_line(event, self._origin)
        if self._replaces_dots:
            line = f"{_json(without_dots(json.loads(line)))}\n".encode("utf-8", "surrogatepass")
        self._queue.put(line, len(line))

    def _send(self, lines: Sequence[bytes], timeout_seconds: float) -> None:
        self._receiver.post(b"".join(lines), CONTENT_TYPE, timeout_seconds)


_json = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode


def without_dots(value: Any) -> Any:
    """A payload with underscores for the dots in its keys; where that makes two equal, one gets another underscore."""
    if isinstance(value, list):
        return [without_dots(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: without_dots(item) for key, item in value.items() if "." not in key}
    for key, item in value.items():
        if "." in key:
            plain = key.replace(".", "_")
            while plain in kept:
                plain += "_"
            kept[plain] = without_dots(item)
    return dict(sorted(kept.items()))
