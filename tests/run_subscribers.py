"""Named subscribers that take runs of events ahead of the others: what they were given, and how they end."""

import os
import signal
from pathlib import Path
from typing import Any, ClassVar

from relay_mp._records.json_line import event_line
from relay_mp.observability.atof.sink import FileSink


class Takes:
    """Keeps the names it was given. Takes as many of a run as `takes` says in turn, then all."""

    made: ClassVar[list["Takes"]] = []

    def __init__(self, takes: list[int] | None = None, error: str = "") -> None:
        self.runs: list[list[str]] = []
        self.names: list[str] = []
        self.called: list[str] = []
        self._takes = list(takes or [])
        self._error = error
        Takes.made.append(self)

    def __call__(self, event: Any) -> None:
        self.called.append(event.name)
        self.names.append(event.name)

    def take_batch(self, events: list[Any]) -> int:
        if self._error:
            raise RuntimeError(self._error)
        self.runs.append([event.name for event in events])
        count = self._takes.pop(0) if self._takes else len(events)
        self.names += self.runs[-1][: max(count, 0)]
        return count


class DyingFile(FileSink):
    """A FileSink that kills its process in its second run of more than one event, `deaths` times in all.

    Each death leaves a line in the file `strikes`: how many events the run had.
    """

    def __init__(self, path: str, strikes: str, where: str, deaths: int, **settings: Any) -> None:
        usual = {"fsync": "never", "rotate_bytes": 0, "rotated_files": 0, "session_id": "", "origin": True}
        super().__init__(path, **{**usual, **settings})
        self._strikes, self._where = Path(strikes), where
        self._deaths_left = deaths - len(self._strikes.read_text().splitlines() if self._strikes.exists() else [])
        self._runs = 0

    def take_batch(self, events: list[Any]) -> int:
        self._runs += len(events) > 1
        if self._runs < 2 or self._deaths_left <= 0:
            return super().take_batch(events)
        with self._strikes.open("a") as file:
            file.write(f"{len(events)}\n")
        if self._where == "torn":
            block = b"".join(event_line(event, self._origin) for event in events)
            os.write(self._file._file, block[: len(block) // 2 + 7])
        elif self._where == "behind":
            super().take_batch(events)
        os.kill(os.getpid(), signal.SIGKILL)
        return 0
