"""Finding the segment of a session that goes on, by its name or its owner's descriptor; and trying again.

    path ─▶ Segment.attach(path)
         └▶ no such name ─▶ /proc/<owner>/fd/<number>, if it is open on that very file, though deleted

Names are removed by others: by cleaners of temporary files, and by systemd-logind (RemoveIPC=yes) at a logout. Any
process of the same user.
"""

import errno
import os
import time
from collections.abc import Iterator

from relay_mp._deliver.liveness import is_dead
from relay_mp._log import logger
from relay_mp._native import core
from relay_mp._native.segments import Segment
from relay_mp._session import naming
from relay_mp.errors import SegmentError

__all__ = ["RETRY_SECONDS", "Attempts", "find"]

RETRY_SECONDS = 1.0
"""Between two attempts of a process that cannot attach: what it lacks, such as a descriptor, may be there by then."""

_DELETED = " (deleted)"

_ADVICE = {
    errno.EMFILE: "raise its limit of descriptors (ulimit -n), or close some",
    errno.ENFILE: "the machine has no descriptor left",
    errno.ENOMEM: "raise its limit of memory (ulimit -v), or make the ring smaller (ring_bytes, RELAY_MP_RING_BYTES)",
    errno.EACCES: "run it as the session's user, or give it a session of its own (without RELAY_MP_SESSION)",
    errno.EPERM: "run it as the session's user, or give it a session of its own (without RELAY_MP_SESSION)",
}


def find(path: str) -> Segment | str:
    """The segment of an open session, attached; or, as a text, why there is none any more.

    Raises:
        SegmentError: the session may go on, but this process cannot attach to it.
    """
    try:
        segment = Segment.attach(path)
    except SegmentError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        found = _by_its_owner(path)
        if found is None:
            return str(error)
        segment = found
    if segment.state != core.STATE_OPEN:
        segment.close()
        return f"the session of {path} has ended"
    return segment


def _by_its_owner(path: str) -> Segment | None:
    owner = naming.maker(path)
    if owner is None or is_dead(*owner):
        return None
    for entry in _open_on(owner[0], os.path.realpath(path) + _DELETED):
        descriptor = os.open(entry, os.O_RDWR | os.O_CLOEXEC)
        try:
            segment = Segment.attach(path, descriptor)
        finally:
            os.close(descriptor)
        logger.warning(
            "%s was removed by another program, such as a cleaner of temporary files or systemd-logind "
            "(RemoveIPC=yes); its session goes on, and is found by its owner, process %d",
            path,
            owner[0],
        )
        return segment
    return None


def _open_on(pid: int, target: str) -> Iterator[str]:
    """The descriptors of a process that are open on it."""
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError as error:
        logger.debug("the descriptors of process %d cannot be seen: %s", pid, error)
        return
    for name in names:
        try:
            if os.readlink(f"{folder}/{name}") == target:
                yield f"{folder}/{name}"
        except OSError:  # just closed
            continue


class Attempts:
    """Of a process to attach to the session in which it was started: what it emits until it can is counted then.

    Args:
        path: of the session's segment.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._epoch = core.fork_epoch()
        self._missed = 0
        self._next = 0.0
        self._has_warned = False

    @property
    def is_of_this_process(self) -> bool:
        """Whether it was not inherited by a fork: what the parent has missed is the parent's to count."""
        return self._epoch == core.fork_epoch()

    def is_due(self, is_for_event: bool) -> bool:
        """Whether it is time for an attempt. If not, the event is missed."""
        if time.monotonic() >= self._next:
            return True
        self._missed += is_for_event
        return False

    def note_failure(self, error: Exception, is_for_event: bool) -> None:
        """Another one was in vain."""
        self._missed += is_for_event
        self._next = time.monotonic() + RETRY_SECONDS
        if not self._has_warned:
            self._has_warned = True
            _warn_of(self._path, error)

    def settle(self, segment: Segment) -> None:
        """The last one was not."""
        if self._missed and segment.subscribers:
            segment.count_unattached(self._missed)
            logger.warning(
                "process %d has attached to the session of %s; %d events that it emitted before are counted as lost "
                "(unregistered)",
                *(core.process_self()[0], self._path, self._missed),
            )
        self._missed = 0


def _warn_of(path: str, error: Exception) -> None:
    """Says that this process cannot attach to the session in which it was started, and what to do."""
    cause = error if isinstance(error, OSError) else error.__cause__
    advice = _ADVICE.get(cause.errno or 0, "") if isinstance(cause, OSError) else ""
    logger.warning(
        "process %d cannot attach to the session of %s, and nothing of what it emits until it can is recorded: %s%s",
        core.process_self()[0],
        path,
        error,
        f"; {advice}" if advice else "",
    )
