"""Session ids and the names of segments: uid, boot, pid, start time and randomness.

So that a name is never used twice, and says by itself whose it is and whether it can still be alive.
"""

import os

from relay_mp._deliver.private_files import is_own_file
from relay_mp._log import logger
from relay_mp._native import core

PREFIX = "relay_mp-"


def _boot() -> str:
    return core.boot_id()[:8] or "0" * 8


def new_session_id() -> str:
    """At most 35 characters: <boot>-<pid>-<start time>-<random>, in hexadecimal."""
    pid, start_time, _ = core.process_self()
    return f"{_boot()}-{pid:x}-{start_time:x}-{os.urandom(4).hex()}"


def segment_path(directory: str, session_id: str) -> str:
    """The segment of a session."""
    return os.path.join(directory, f"{PREFIX}{os.geteuid()}-{session_id}")


def own_segments(directory: str) -> list[str]:
    """The segments of this uid in a directory; what others have put there under such a name is passed over."""
    prefix = f"{PREFIX}{os.geteuid()}-"
    try:
        named = [os.path.join(directory, name) for name in sorted(os.listdir(directory)) if name.startswith(prefix)]
        own = [path for path in named if is_own_file(path)]
    except OSError:
        return []
    if len(own) < len(named):
        logger.warning(
            "%d names in %s are like those of this user's segments, and are links or another user's: passed over",
            len(named) - len(own),
            directory,
        )
    return own


def session_id_of(path: str) -> str:
    """The session's id that is in its segment's name."""
    return os.path.basename(path).removeprefix(f"{PREFIX}{os.geteuid()}-")


def maker(path: str) -> tuple[int, int, int] | None:
    """(pid, start time, pid namespace) of the process that made a segment, by its name; None for another name.

    The namespace is this process's own: a process of another one is not found by its pid here, and its
    segments are told apart by the header.
    """
    fields = session_id_of(path).split("-")
    try:
        boot, pid, start_time, _ = fields
        own_boot, found = _boot(), (int(pid, 16), int(start_time, 16), core.process_self()[2])
    except ValueError:
        return None
    return (0, 0, 0) if boot != own_boot else found
