"""Waiting for exporters: until they are through with what they were given, or closed.

Any process. Exporters run where the dispatcher runs; they are asked to flush by name, and say in their reports how far
they are. Every wait has a deadline, after which they go on by themselves.
"""

import time
from collections.abc import Callable, Generator, Sequence

from relay_mp._deliver.reports import CLOSED, ExporterReport
from relay_mp._log import logger
from relay_mp._session.session import Session

__all__ = ["FLUSH_TIMEOUT_SECONDS", "Flushed", "is_closed", "wait", "wait_async"]


FLUSH_TIMEOUT_SECONDS = 10.0
"""How long is waited for what sinks still have to send, unless the caller says."""

_SHORTEST_NAP, _LONGEST_NAP = 0.001, 0.05

IsDone = Callable[[str, ExporterReport], bool]


def is_closed(_name: str, report: ExporterReport) -> bool:
    """Whether an exporter has ended."""
    return report.state == CLOSED


class Flushed:
    """Whether an exporter is through with what it had been given when it was first asked."""

    def __init__(self) -> None:
        self._goals: dict[str, int] = {}

    def __call__(self, name: str, report: ExporterReport) -> bool:
        return report.state == CLOSED or report.flushed >= self._goals.setdefault(name, report.taken)


def _naps(session: Session, names: Sequence[str], deadline: float, is_done: IsDone) -> Generator[float, None, bool]:
    """Asks the exporters to flush until all are done, and yields how long to sleep before the next look.

    Returns:
        False at the deadline.
    """
    nap, waiting = _SHORTEST_NAP, list(names)
    while True:
        if not session.is_open:
            return True  # closing it has waited for them
        waiting = [name for name in waiting if not _is_done(session, name, is_done)]
        if not waiting:
            return True
        if time.monotonic() >= deadline:
            logger.warning("exporter %s has not sent everything in time; it goes on", ", ".join(waiting))
            return False
        yield nap
        nap = min(nap * 2, _LONGEST_NAP)


def _is_done(session: Session, name: str, is_done: IsDone) -> bool:
    report = session.request_exporter_flush(name)
    return report is None or is_done(name, report)


def wait(session: Session, names: Sequence[str], deadline: float, is_done: IsDone) -> bool:
    """Waits until all exporters of those names are done.

    Args:
        session: whose exporters they are; once it is closed, they are done.
        names: under which they are registered; those that there are not count as done.
        deadline: of time.monotonic().
        is_done: asked with a name and a report.

    Returns:
        False at the deadline.
    """
    naps = _naps(session, names, deadline, is_done)
    while True:
        try:
            nap = next(naps)
        except StopIteration as end:
            return bool(end.value)
        time.sleep(nap)  # where greenlets run, the others do meanwhile


async def wait_async(session: Session, names: Sequence[str], deadline: float, is_done: IsDone) -> bool:
    """`wait` for a running event loop."""
    import asyncio

    naps = _naps(session, names, deadline, is_done)
    while True:
        try:
            nap = next(naps)
        except StopIteration as end:
            return bool(end.value)
        await asyncio.sleep(nap)
