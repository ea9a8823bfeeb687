"""Who asks the dispatcher, and whether it may: a request is answered for the dispatcher's own uid only.

    a request's slot ─▶ its process ─▶ its uids, by the kernel ─▶ the dispatcher's own ─▶ Allowed ─▶ answered
                                                              └▶ others                        └▶ refused

A worker that gave up root after a fork still has root's ring mapped. What it asks for would be done with the rights of
the dispatcher. All uids count, real, effective and saved: who has given up only some of them can run a setuid program
that takes them back.
The kernel is asked when a request is answered, never at an emit. Runs where the dispatcher runs.

A process that writes into the segment by hand can pass for another one: what it reaches then is bounded by `Allowed`.
"""

import os
from collections.abc import Sequence
from typing import Any

from relay_mp._deliver.allowed import Allowed
from relay_mp._deliver.liveness import is_dead, pid_here
from relay_mp._log import logger
from relay_mp._native.segments import Segment
from relay_mp._native.shorten import CUT_KEY
from relay_mp.errors import SubscriberError

__all__ = ["Askers", "told_uids"]

HARMLESS_OF_THE_DEAD = ("close_scope", "deregister", "request_flush")
"""Requests that are carried out though their process has ended: they import nothing, and end what was its own."""


def told_uids() -> list[int]:
    """What this process says of itself with each request: it counts where the kernel tells the dispatcher nothing."""
    return list(os.getresuid()) if hasattr(os, "getresuid") else [os.getuid(), os.geteuid()]


def _uids(pid: int) -> list[int] | None:
    """Real, effective, saved, as the kernel has them; None if it does not tell. Not the owner of /proc/PID: that is
    root for every process that has changed its uid."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as status:
            line = next((line for line in status if line.startswith("Uid:")), "")
        return [int(uid) for uid in line.split()[1:4]] or None
    except OSError:
        return None if os.path.exists("/proc/self/status") else _uids_by_psutil(pid)


def _uids_by_psutil(pid: int) -> list[int] | None:
    import psutil  # type: ignore[import-untyped]

    try:
        return list(psutil.Process(pid).uids())
    except (OSError, psutil.Error):
        return None


class Askers:
    """Refuses requests of processes with other uids than this one's, and names that the session does not allow.

    Args:
        segment: the session's.
        allowed: what other processes than the owner may have imported.
    """

    def __init__(self, segment: Segment, allowed: Allowed) -> None:
        self._segment = segment
        self._allowed = allowed
        self._has_told = False

    def require(self, verb: str, request: dict[str, Any], slot: int) -> None:
        """Whether the request that came through this slot may be answered. One that may not is counted.

        Raises:
            SubscriberError: says what was found, and what to do.
        """
        process = self._segment.slot_process(slot)
        try:
            _require_uid(verb, request, process)
            check = self._allowed.note if process == self._segment.owner else self._allowed.require
            for target, arguments in _named_in(verb, request):
                check(target, arguments)
        except SubscriberError as error:
            self._segment.count_refused_request()
            if not self._has_told:
                self._has_told = True
                logger.error("a request of process %d: %s. Later refusals are only counted", process[0], error)
            raise


def _named_in(verb: str, request: dict[str, Any]) -> list[tuple[Any, Any]]:
    """What the request would have imported, with its arguments."""
    if CUT_KEY in request:
        return []  # refused for its size
    if verb == "register":
        return [(request["target"], request["arguments"])]
    return [(target, arguments) for _, target, arguments in request["add"]] if verb == "replace" else []


def _require_uid(verb: str, request: dict[str, Any], process: tuple[int, int, int]) -> None:
    found, expected, told = _found(process), _uids(os.getpid()), request.get("uids")
    if found is None and is_dead(*process):
        if verb in HARMLESS_OF_THE_DEAD:
            return
        raise _refusal(verb, request, "its process has ended, and the uid is not known any more")
    if found is None or expected is None:
        found, expected = (told if isinstance(told, list) else None), told_uids()
    if found is not None and found != expected:
        raise _refusal(verb, request, f"its process has uid {_listed(found)}")


def _found(process: tuple[int, int, int]) -> list[int] | None:
    pid = pid_here(*process)
    found = _uids(pid) if pid else None
    # Looked at afterwards: a pid that was used again in between tells of somebody else.
    return found if found is not None and not is_dead(*process) else None


def _refusal(verb: str, request: dict[str, Any], why: str) -> SubscriberError:
    what = "register" if verb == "is_known" else verb  # which is what the program has called
    return SubscriberError(
        f"the request to {what} {request.get('name')!r:.80} is refused: {why}; expected uid {_listed(told_uids())}, "
        "the dispatcher's own. Ask before the process changes its uid, or in the process that owns the session"
    )


def _listed(uids: Sequence[object]) -> str:
    return str(uids[0]) if len(set(uids)) == 1 else f"{'/'.join(map(str, uids))} (real/effective/saved)"
