"""The other processes' side: each new version of the table becomes registrations of theirs.

    enter ─▶ before an event, the core sees another version ─▶ sync ─▶ rows gone, rows new ─▶ registry.exchange

A process's own registration of a name keeps its place before one that arrives. The registry's lock is held meanwhile;
none of the owner's code is run.
"""

from collections.abc import Sequence
from typing import Any

from relay_mp._emit.families import FAMILIES, Family
from relay_mp._emit.middleware import GLOBAL_API, Registration, registry
from relay_mp._log import logger
from relay_mp._native import core
from relay_mp._native.segments import Segment
from relay_mp._session.configuration.arrived import Arrived
from relay_mp._session.configuration.diagnostics import note_failure, tell
from relay_mp._session.configuration.state import state
from relay_mp._session.configuration.table import Row, decode
from relay_mp.errors import ConfigurationError, MiddlewareError

__all__ = ["enter", "leave", "sync"]


_READ_ATTEMPTS = 100
"""Both copies are torn only if the owner has written twice while one was read."""


def enter(segment: Segment) -> None:
    """This process is attached to a session: it has that session's middleware before its first event."""
    with registry.lock:
        state.enter(segment)


def leave(segment: Segment) -> None:
    """This process has left a session: what has arrived from it goes, what is its own stays."""
    with registry.lock:
        if state.segment is segment:
            state.forget()


def sync() -> None:
    """Brings this process's middleware up to date. Called by the core, before an event; never raises."""
    try:
        with registry.lock:
            segment = state.open_segment
            if segment is None:
                return
            version, table = _read(segment)
            if not state.is_owner:
                _apply(segment, version, table)
            core.set_configuration_seen(version)
    except Exception:
        logger.exception("the session's middleware cannot be brought up to date in process %d", core.process_self()[0])


def _read(segment: Segment) -> tuple[int, bytes | None]:
    for _ in range(_READ_ATTEMPTS):
        version, table = segment.load_configuration()
        if version == 0 or table is not None:
            break
    return version, table


def _apply(segment: Segment, version: int, table: bytes | None) -> None:
    try:
        rows = decode(table) if version else ()
    except ConfigurationError as error:
        segment.count_middleware_failure()
        note_failure(str(error))
        logger.error("%s; until it is whole again, this process withholds payloads and refuses guarded calls", error)
        _exchange((), {-1 - n: _refusing(family, error) for n, family in enumerate(_guarding())})
        return
    numbers = {row.number for row in rows}
    gone = [number for number in state.shared if number not in numbers]
    new = [row for row in rows if row.number not in state.shared]
    _exchange(gone, {row.number: _registration(row) for row in new if row.is_reachable})
    state.rows = tuple(row for row in new if not row.is_reachable)
    tell()


def _exchange(gone: Sequence[int], come: dict[int, Registration]) -> None:
    registry.exchange(remove=[state.shared[number] for number in gone], add=come.values())
    for number in gone:
        del state.shared[number]
    state.shared.update(come)


def _registration(row: Row) -> Registration:
    return Registration(
        family=row.family,
        name=row.name,
        priority=row.priority,
        callback=Arrived(row),
        break_chain=row.break_chain,
        scope=row.scope,
        target=row.target,
        arguments=row.arguments,
        local_name=row.local_name,
        owner=GLOBAL_API if row.component is None else row.component.owner,
        arrived=True,
    )


def _guarding() -> list[Family]:
    return [family for family in FAMILIES.values() if family.kind.value.endswith("_guardrail")]


def _refusing(family: Family, error: Exception) -> Registration:
    def refuse(*_arguments: Any) -> Any:
        raise MiddlewareError(str(error))

    name = "relay_mp.configuration"
    return Registration(family=family, name=name, priority=-(1 << 31), callback=refuse, arrived=True)


core.set_configuration_hook(sync)
