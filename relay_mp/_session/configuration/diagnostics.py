"""What of the owner's middleware cannot reach a process, and what has reached it and cannot be used.

    state.rows   ─▶ unreachable, tell    of this process: for reports, and once a session for the log
    note_failure ─▶ failures             of this process: texts, bounded
    the segment  ─▶ failures_of_all      of all processes: a count

In the owner, what cannot be reached is what others lack; elsewhere, what this process lacks.
"""

from collections import deque
from typing import NamedTuple

from relay_mp._emit.families import Family
from relay_mp._log import logger
from relay_mp._session import inheritance
from relay_mp._session.configuration.state import state
from relay_mp._session.configuration.table import Row

__all__ = ["Unreachable", "failures", "failures_of_all", "note_failure", "tell", "unreachable"]


KEPT_FAILURES = 100
"""A process keeps this many texts of what it could not use; all are counted in the segment."""

_failed: deque[str] = deque(maxlen=KEPT_FAILURES)


class Unreachable(NamedTuple):
    """A registration of the owner that only its forks have."""

    family: Family
    name: str
    why: str


def unreachable() -> list[Unreachable]:
    """The owner's registrations that workers which are not forks of it cannot have; in such a worker, those
    that it lacks."""
    return [_why_unreachable(row) for row in state.rows if not row.is_reachable]


def _why_unreachable(row: Row) -> Unreachable:
    if row.component is not None:
        why = (
            f"plugin {row.component.kind!r} is an object that no name leads to; register it as "
            '"package.module:attribute", or as a class at the top level of a module'
        )
    else:
        why = (
            "its callback is a lambda, a local function, a bound method or of __main__; register it as "
            '"package.module:attribute" with JSON arguments, or install it by a plugin'
        )
    return Unreachable(row.family, row.name, why)


def tell() -> None:
    """Says once in a session, for each registration that cannot cross, that it stays behind.

    Called where a process is handed the session by name: in the parent, as multiprocessing pickles a
    process that is not forked, whichever pool it is for, or as `pools.environ` is called; else in the
    child, where it attaches.
    """
    segment = state.open_segment
    if segment is None:
        return
    told = segment.configuration_told
    untold = [row for row in state.rows if row.number > told and not row.is_reachable]
    if untold:
        segment.set_configuration_told(max(row.number for row in untold))
    for found in map(_why_unreachable, untold):
        logger.warning(
            "%s %r does not reach workers that are not forked: %s", found.family.kind.value, found.name, found.why
        )


def note_failure(why: str) -> None:
    """Keeps a text, once."""
    if why not in _failed:
        _failed.append(why)


def failures() -> list[str]:
    """What has arrived in this process and could not be used, each once; the latest KEPT_FAILURES."""
    return list(_failed)


def failures_of_all() -> int:
    """How often that was so in all processes of the session."""
    segment = state.open_segment
    return segment.middleware_failures if segment is not None else 0


inheritance.set_handing_down_hook(tell)
