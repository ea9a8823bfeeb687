"""Where a session's segment is made, and how large its ring is: what is asked for, or what there is room for.

    /dev/shm: ring_bytes ─▶ half of it ─▶ ... ─▶ min_ring_bytes ─▶ temporary directory: the same ─▶ an error
              as soon as one fits: a segment, with one warning if it is not what was asked for

Containers have 64 MB of /dev/shm, or none that can be written to. With `directory` given, no other is tried. Runs in
the process that starts a session.
"""

import errno
import os
import sys
from collections.abc import Iterator
from dataclasses import replace

from relay_mp._log import logger
from relay_mp._native.segments import Segment
from relay_mp._session import naming
from relay_mp._session import settings as settings_module
from relay_mp._session.settings import EVENT_SHARE_OF_RING, Settings
from relay_mp.errors import SegmentError

__all__ = ["directories", "place"]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)


def place(settings: Settings, session_id: str) -> tuple[Segment, Settings]:
    """Makes the segment.

    Returns:
        It, and the settings as they have come true.

    Raises:
        SegmentError: it can be made nowhere; says what was found in each place.
    """
    refusals: list[str] = []
    for directory in directories(settings):
        for ring_bytes in _sizes(settings):
            found = _with(settings, directory, ring_bytes)
            try:
                segment = _create(found, session_id)
            except SegmentError as error:
                refusal = error
            else:
                if refusals:
                    logger.warning("%s: %s", _outcome(settings, found), refusals[0])
                return segment, found
            refusals.append(str(refusal))
            if not _is_for_lack_of_room(refusal):
                break
    found_there = "; ".join(dict.fromkeys(refusals)) or "there is neither shared memory nor a temporary directory"
    raise SegmentError(f"{found_there}. Make room, or name a directory that has some (directory, RELAY_MP_DIRECTORY)")


def directories(settings: Settings) -> Iterator[str]:
    """Where the segment may be made, in order: the one that was asked for, or all that there are by default."""
    if settings.directory:
        yield settings.directory
        return
    if os.path.isdir(settings_module.SHARED_MEMORY):
        yield settings_module.SHARED_MEMORY
    try:
        yield settings_module.temporary_directory()
    except OSError as error:
        logger.debug("there is no temporary directory for a segment: %s", error)


def _sizes(settings: Settings) -> Iterator[int]:
    ring_bytes = settings.ring_bytes
    while ring_bytes >= settings.min_ring_bytes:
        yield ring_bytes
        ring_bytes //= 2


def _with(settings: Settings, directory: str, ring_bytes: int) -> Settings:
    largest = ring_bytes // EVENT_SHARE_OF_RING
    return replace(
        settings,
        directory=directory,
        ring_bytes=ring_bytes,
        max_event_bytes=min(settings.max_event_bytes, largest),
    )


def _outcome(asked: Settings, found: Settings) -> str:
    size = "" if found.ring_bytes == asked.ring_bytes else f" with a ring of {found.ring_bytes} bytes"
    return f"the session goes on in {found.directory}{size} (asked for: {asked.ring_bytes})"


def _is_for_lack_of_room(refusal: SegmentError) -> bool:
    return isinstance(refusal.__cause__, OSError) and refusal.__cause__.errno in _NO_ROOM


def _create(settings: Settings, session_id: str) -> Segment:
    if not os.path.isdir(settings.directory):
        raise SegmentError(
            f"no segment can be made in {settings.directory!r}: there is no such directory; expected one of a memory "
            "file system (directory, RELAY_MP_DIRECTORY)"
        )
    return Segment.create(
        naming.segment_path(settings.directory, session_id),
        session_id=session_id,
        ring_bytes=settings.ring_bytes,
        max_producers=settings.max_producers,
        max_event_bytes=settings.max_event_bytes,
        subscriptions_bytes=settings_module.SUBSCRIPTIONS_BYTES,
        configuration_bytes=settings.configuration_bytes,
        block_timeout_ns=int(settings.block_timeout_seconds * 1e9),
        stall_timeout_ns=int(settings.stall_timeout_seconds * 1e9),
        drop_when_full=settings.on_full == "drop",
        dispatcher_is_process=settings.dispatcher == "process",
        max_deliveries=settings.max_deliveries,
        strict=settings.strict,
        owner_argv=_own_argv(),
    )


def _own_argv() -> bytes:
    """This process's command line, a zero byte between two arguments: `relay_mp.sessions()` shows it."""
    return b"\0".join(os.fsencode(argument) for argument in sys.orig_argv)
