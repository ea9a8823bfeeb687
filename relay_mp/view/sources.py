"""Fills rows from a file of JSON lines, or from a living session: each source in a thread of its own.

file     ──lines──▶ envelope, offset ──▶ rows        once, from the first line to the last
session  ──events─▶ line ─▶ envelope, kept line ──▶ rows        until it ends, or the viewer does
"""

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from relay_mp._log import logger
from relay_mp._records.json_line import event_line
from relay_mp._runs.files import STANDARD_INPUT, size_bytes, whole_set
from relay_mp.events import Event
from relay_mp.view.envelope import Envelope, envelope
from relay_mp.view.payloads import FilePayloads, KeptPayloads
from relay_mp.view.rows import Rows, Run

__all__ = ["Batches", "add_files", "add_session"]

BATCH_LINES = 2000


class Batch(Protocol):
    """What came next in a session, see `relay_mp.watch`."""

    @property
    def events(self) -> list[Event]:
        """In their order."""

    @property
    def missed(self) -> int:
        """How many this viewer has missed."""

    @property
    def ended(self) -> bool:
        """Whether there is no more to come."""


class Batches(Protocol):
    """What `relay_mp.watch` returns, as far as it is used here."""

    def batches(self) -> Iterable[Batch]:
        """As they come."""

    def close(self) -> None:
        """Ends the iteration."""


def add_files(rows: Rows, paths: Sequence[str]) -> threading.Thread:
    """Reads files of JSON lines into rows, as one run; returns the thread that does.

    Args:
        rows: where they go.
        paths: files, or "-". What was put aside by rotation is read before each; files may be compressed.

    Raises:
        OSError: one is not there.
    """
    all_paths = whole_set(paths)
    size = size_bytes(all_paths)
    lines = FilePayloads()
    run = rows.add_run(os.path.basename(paths[0]) if paths[0] != STANDARD_INPUT else "standard input", lines)
    return _start(run, "view-files", lambda: _read(rows, run, lines, all_paths, size))


def _read(rows: Rows, run: Run, lines: FilePayloads, paths: Sequence[str], size: int | None) -> None:
    batch: list[tuple[Envelope, int]] = []
    for path in paths:
        for line in lines.add(path):
            event = _event(run, line)
            if event is not None:
                batch.append((event, lines.end - len(line)))
            if len(batch) == BATCH_LINES:
                rows.take(run, batch)
                batch = []
                run.progress = min(lines.end / size, 1.0) if size else 0.0
    rows.take(run, batch)
    run.state, run.progress = "complete", 1.0


def _event(run: Run, line: bytes) -> Envelope | None:
    try:
        return envelope(line)
    except ValueError:
        run.unreadable += bool(line.strip())
        return None


def add_session(rows: Rows, name: str, session: str, watch: Batches) -> threading.Thread:
    """Takes a living session's events as they come; returns the thread that does.

    Args:
        rows: where they go.
        name: what the page calls it.
        session: its id, which stands in the lines.
        watch: the events; closed when they end.
    """
    kept = KeptPayloads()
    run = rows.add_run(name, kept)
    run.state = "live"
    return _start(run, "view-live", lambda: _follow(rows, run, kept, session.encode(), watch))


def _follow(rows: Rows, run: Run, kept: KeptPayloads, session: bytes, watch: Batches) -> None:
    try:
        for batch in watch.batches():
            found = ((_event(run, line), line) for line in (event_line(event, session) for event in batch.events))
            rows.take(run, [(event, kept.keep(line)) for event, line in found if event is not None])
            run.missed += batch.missed
            if batch.ended:
                break
    finally:
        watch.close()
    run.state = "ended"


def _start(run: Run, name: str, work: Callable[[], None]) -> threading.Thread:
    def guarded() -> None:
        try:
            work()
        except Exception as error:
            logger.exception("the view of %s ended", run.name)
            run.state, run.problem = "failed", f"{type(error).__name__}: {error}"

    thread = threading.Thread(target=guarded, name=name, daemon=True)
    thread.start()
    return thread
