"""The sessions of this user, as any of its processes sees them: found by their segments, read from their headers.

    directories ─▶ names of segments ─▶ attach, look, detach ─▶ SessionInfo

Nothing is emitted, no slot of the session is taken, and its processes notice nothing. The owner's command line is in
the segment, which has mode 0600: only this user reads it. Any process, in a session of its own or in none.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from relay_mp._deliver.liveness import is_dead
from relay_mp._native import core
from relay_mp._native.segments import Segment
from relay_mp._session import naming, placing, recovery
from relay_mp._session import settings as settings_module
from relay_mp._session.session import SessionHandle
from relay_mp._session.stats import CAUSES
from relay_mp.errors import SegmentError, SessionError, described_type

__all__ = ["LEFT", "SessionInfo", "find", "read", "sessions"]

OPEN, CLOSING, BROKEN, LEFT, UNREADABLE = "open", "closing", "broken", "left", "unreadable"

_STATES = {core.STATE_OPEN: OPEN, core.STATE_CLOSING: CLOSING, core.STATE_BROKEN: BROKEN}

_ARGV_CUT = "..."


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as it was when it was looked at.

    Attributes:
        id: the session's id, unique over time.
        path: its segment.
        owner_pid: the process that started it.
        owner_argv: that process's command line. Of a long one the first 1024 bytes; "..." is then the last argument.
        started: when the session began; UTC.
        state: "open"; "closing" while its owner delivers the rest; "broken" once its ring is damaged; "left" if its
            owner is dead and nobody delivers, see `relay_mp.recover`; "unreadable": see `problem`.
        dispatcher: "thread" or "process".
        processes: its living processes: the owner, the dispatcher's, and those that have emitted.
        emitted: events so far; `delivered` + `lost` + `pending`, but for what happens during the look.
        delivered: of them, those that subscribers have been given.
        lost: of them, those that nobody will ever get.
        causes: of those that are lost, how many by cause; see `relay_mp.Stats`.
        ring_bytes: the size of its ring.
        ring_used_bytes: how much of that is not delivered yet.
        problem: why it cannot be looked at, as when another version of this package has made it; then the counts are 0.
    """

    id: str
    path: str
    owner_pid: int
    owner_argv: tuple[str, ...] = ()
    started: datetime | None = None
    state: str = OPEN
    dispatcher: str = ""
    processes: tuple[int, ...] = ()
    emitted: int = 0
    delivered: int = 0
    lost: int = 0
    causes: dict[str, int] = field(default_factory=dict)
    ring_bytes: int = 0
    ring_used_bytes: int = 0
    problem: str | None = None

    @property
    def handle(self) -> SessionHandle:
        """For `relay_mp.watch` and `relay_mp.attach`."""
        return SessionHandle(self.path)


def sessions(directory: str | None = None, *, left: bool = False) -> list[SessionInfo]:
    """The living sessions of this user on this machine, the oldest first.

    Args:
        directory: where their segments are; default: the setting `directory`, or /dev/shm and the temporary one.
        left: also what dead sessions have left, which `relay_mp.recover` writes out.

    From any process. A session whose segment's name was removed by another program is not found.
    """
    settings = settings_module.resolve(directory=directory)
    # One directory may have two names.
    named = [path for place in placing.directories(settings) for path in naming.own_segments(place)]
    paths = {os.path.realpath(path): path for path in named}
    found = [info for path in paths.values() for info in _look(path)]
    living = [info for info in found if left or info.state != LEFT]
    return sorted(living, key=lambda info: (info.started is None, info.started or 0, info.id))


def _look(path: str) -> Iterator[SessionInfo]:
    """The session of a segment; none where it has ended, or is only being made."""
    try:
        segment = Segment.attach(path)
    except SegmentError as error:
        maker = naming.maker(path)
        if os.path.exists(path) and maker is not None and not is_dead(*maker) and not recovery.is_unfinished(path):
            yield SessionInfo(naming.session_id_of(path), path, maker[0], state=UNREADABLE, problem=str(error))
        return
    try:
        if segment.state in _STATES:
            yield read(segment)
        elif segment.read_pos != segment.tail:
            yield read(segment, LEFT)
    finally:
        segment.close()


def read(segment: Segment, state: str | None = None) -> SessionInfo:
    """A session's header and counts, as they are now; `state` if that is known better than by looking."""
    counted = zip((*CAUSES, "unregistered"), segment.losses(), strict=True)
    causes = {cause: count for cause, count in counted if count}
    state = state or (_STATES[segment.state] if recovery.is_attended(segment) else LEFT)
    return SessionInfo(
        segment.session_id,
        segment.path,
        segment.owner[0],
        _arguments(*segment.owner_argv),
        datetime.fromtimestamp(segment.started_us / 1e6, UTC),
        state,
        "process" if segment.dispatcher_is_process else "thread",
        tuple(recovery.living_processes(segment)),
        segment.events_emitted,
        segment.events_delivered,
        sum(causes.values()),
        causes,
        segment.ring_bytes,
        segment.ring_used_bytes,
    )


def _arguments(kept: bytes, is_whole: bool) -> tuple[str, ...]:
    arguments = [argument.decode("utf-8", "replace") for argument in kept.split(b"\0")] if kept else []
    return (*arguments, *([] if is_whole else [_ARGV_CUT]))


def find(session: SessionHandle | str | int | None, directory: str | None = None) -> str:
    """The path of the one living session that is meant.

    Args:
        session: a handle; a segment's path; the beginning of a session's id or of its last part; its owner's pid; or
            None: the only one there is.
        directory: see `sessions`.

    Raises:
        SessionError: there is none, or more than one; they are listed.
        TypeError: it is none of these.
    """
    if isinstance(session, SessionHandle):
        return session.path
    if isinstance(session, str) and os.sep in session:
        return session
    if session is not None and (isinstance(session, bool) or not isinstance(session, str | int)):
        raise TypeError(
            f"session is {described_type(session)}; expected a SessionHandle, a path, an id's beginning, a pid or None"
        )
    living = sessions(directory)
    meant = living if session is None else [info for info in living if _is_meant(info, str(session))]
    if len(meant) != 1:
        raise SessionError(_choice(session, meant, living))
    if meant[0].problem is not None:
        raise SegmentError(meant[0].problem)
    return meant[0].path


def _is_meant(info: SessionInfo, text: str) -> bool:
    return bool(text) and (
        text == str(info.owner_pid) or info.id.startswith(text) or info.id.rpartition("-")[2].startswith(text)
    )


def _choice(session: str | int | None, meant: list[SessionInfo], living: list[SessionInfo]) -> str:
    which = "" if session is None else f" that {str(session)!r} names"
    if not living:
        return (
            "there is no living session of this user; start one, or name its directory (directory, RELAY_MP_DIRECTORY)"
        )
    if meant:
        return f"there are {len(meant)} living sessions{which}; name one of them: {_listed(meant)}"
    return f"there is no living session{which}; there are: {_listed(living)}"


def _listed(found: list[SessionInfo]) -> str:
    commands = [" ".join(" ".join(info.owner_argv).split())[:80] for info in found]  # one line each
    return "; ".join(
        f"{info.id} of process {info.owner_pid} ({command})" for info, command in zip(found, commands, strict=True)
    )
