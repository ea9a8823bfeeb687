"""The file of a trace: which one it is, and lines that are whole after each write.

    [                                                       a new file begins with its epoch and its session
    {"ph":"M","name":"relay_mp_epoch",...},
    {"ph":"X",...},
    {"ph":"M","name":"relay_mp_end",...}]                   what a writer adds that has finished

Source of the format: "Trace Event Format", D. Sinclair and others, the JSON array form, whose closing
bracket may be missing: so the file opens also after a kill.
"""

import contextlib
import json
import os
from typing import Any

from relay_mp._deliver.jsonl import last_line_break
from relay_mp._deliver.locked_file import LockedFile

__all__ = ["TraceFile", "path_of_run"]

EPOCH_NAME = "relay_mp_epoch"

_json = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode


def path_of_run(path: str, session_id: str) -> str:
    """Where a run is written whose file has something else in it: a name beside it, which has the session's id."""
    stem, suffix = os.path.splitext(path)
    return path if session_id in os.path.basename(stem) else f"{stem}-{session_id}{suffix}"


class TraceFile(LockedFile):
    """A file of the JSON array form, whole after each write.

    Args:
        path: absolute.
        session_id: of the session that writes. A trace that this session has begun goes on in every mode.
        mode: what is done where the file has something else: "append" goes on with a trace, "overwrite" empties it,
            "new" leaves it alone.

    Raises:
        FileExistsError: somebody else writes it; or mode is "new", and it is not a trace of this session.
        OSError: it cannot be opened; or mode is "append", and it is not a trace of relay_mp.
    """

    def __init__(self, path: str, session_id: str, mode: str) -> None:
        super().__init__(path)
        self._session_id = session_id
        self.epoch_us: int | None = None
        self._open(lambda: self._go_on(mode))

    @classmethod
    def of_run(cls, path: str, session_id: str, mode: str) -> "TraceFile":
        """The file in which a run is written: in mode "new", the one beside it if `path` has something else."""
        if mode == "new":
            with contextlib.suppress(FileExistsError):
                return cls(path, session_id, mode)
        return cls(path_of_run(path, session_id) if mode == "new" else path, session_id, mode)

    def _go_on(self, mode: str) -> None:
        self._end = os.fstat(self._file).st_size
        if self._end:
            self.epoch_us = self._begin_at_what_is_there(mode)

    def _begin_at_what_is_there(self, mode: str) -> int | None:
        head = self._head()
        if head is not None and (mode == "append" or head.get("session") == self._session_id):
            return self._resume(head)
        if mode == "overwrite":
            os.ftruncate(self._file, 0)
            self._end = 0
            return None
        if mode == "new":
            raise FileExistsError(f"{self.path} is there already, and not of this session; it is left alone")
        raise OSError(f"{self.path} is there already, and it is not a trace of relay_mp; give each run its own")

    def _head(self) -> dict[str, Any] | None:
        """What the first line says of the trace; None where the file is not a trace of relay_mp."""
        first = os.pread(self._file, 1024, 0).split(b"\n")
        try:
            head: dict[str, Any] = json.loads(first[1].rstrip(b",]"))["args"]
            return {**head, "epoch_us": int(head["epoch_us"])}
        except (IndexError, KeyError, TypeError, ValueError):
            return None

    def _resume(self, head: dict[str, Any]) -> int:
        # Half a line of a writer that was killed, or the last line of one that had finished, goes.
        finished = os.pread(self._file, 2, self._end - 2) == b"]\n"
        self._end = last_line_break(self._file, self._end - 2 if finished else self._end)
        os.ftruncate(self._file, self._end)
        epoch_us: int = head["epoch_us"]
        return epoch_us

    @property
    def is_removed(self) -> bool:
        """Whether the file has no name any more, or could not be made anew."""
        return self._file < 0 or super().is_removed

    def ends_with(self, text: str) -> bool:
        """Whether the last line contains a text."""
        start = last_line_break(self._file, max(self._end - 1, 0))
        return text.encode() in os.pread(self._file, self._end - start, start)

    def begin(self, epoch_us: int) -> None:
        """Writes the head, if the file is new."""
        if self.epoch_us is None:
            args = {"epoch_us": epoch_us, "session": self._session_id}
            head = {"ph": "M", "name": EPOCH_NAME, "pid": 0, "tid": 0, "args": args}
            self.write(f"[\n{_json(head)},\n")
            self.epoch_us = epoch_us

    def write(self, text: str) -> None:
        """Appends whole lines; what could be written only in part is taken back."""
        data = text.encode("utf-8", "replace")
        self._append(data, f"{len(data)} bytes")

    def close(self, last: str | None = None) -> None:
        """Closes the file, with a last line if one is given. Idempotent."""
        if self._file >= 0:
            try:
                if last is not None and self.epoch_us is not None:
                    self.write(last)
            finally:
                self._close()
