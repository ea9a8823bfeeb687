"""What is shown of work that takes long: one line on standard error, on a terminal only, gone when the work is done."""

import time
from types import TracebackType
from typing import Self

from relay_mp.cli.terminal import Terminal, shortened
from relay_mp.cli.units import plural

SILENT_SECONDS = 1.0
"""Work that is done by then shows nothing."""

PAUSE_SECONDS = 0.1
"""Between two changes of the line."""


class Progress:
    """The line, for use in `with`.

    Args:
        terminal: where to.
        what: "reading events.jsonl".
        total_bytes: how much there is to do; None: not known.
    """

    def __init__(self, terminal: Terminal, what: str, total_bytes: int | None = None) -> None:
        self._terminal = terminal
        self._what = what
        self._total = total_bytes
        self._next = time.monotonic() + SILENT_SECONDS
        self._is_shown = False

    def update(self, done_bytes: int, events: int) -> None:
        """So far the work has come."""
        if self._terminal.shows_progress and time.monotonic() >= self._next:
            self._next = time.monotonic() + PAUSE_SECONDS
            share = f"{min(done_bytes / self._total, 1):.0%}, " if self._total else ""
            self._write(f"{self._what}: {share}{plural(events, 'event')}")

    def say(self, text: str) -> None:
        """The work has come to another part."""
        if self._terminal.shows_progress and time.monotonic() >= self._next:
            self._write(f"{self._what}: {text}")

    def _write(self, text: str) -> None:
        self._terminal.err.write(f"\r\x1b[2K{shortened(text, 78)}")
        self._terminal.err.flush()
        self._is_shown = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_shown:
            self._terminal.err.write("\r\x1b[2K")
            self._terminal.err.flush()
