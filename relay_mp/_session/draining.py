"""Waits until a dispatcher has delivered what is left in the sealed ring, and has ended."""

import time
from typing import Any

from relay_mp._native.segments import Segment
from relay_mp._threads import wait

GRACE_SECONDS = 2.0
"""How long a dispatcher that has delivered everything may take to notice that it is to end."""

INTERRUPT_SECONDS = 0.5
"""No wait is longer: a Ctrl-C that comes between Python's last look for signals and the system call that waits is
noticed only when that call returns (CPython)."""


def is_drained(segment: Segment) -> bool:
    """Whether everything in the ring has been delivered."""
    return bool(segment.read_pos == segment.tail)


def _wait(ended: Any, seconds: float) -> bool:
    """Whether it is set within `seconds`. Not Thread.join with a timeout: interrupted by a Ctrl-C, that takes the
    thread for ended (CPython 3.11, 3.12)."""
    deadline = time.monotonic() + seconds
    while not wait(ended, min(max(deadline - time.monotonic(), 0.0), INTERRUPT_SECONDS)):
        if time.monotonic() >= deadline:
            return False
    return True


def wait_for_end(segment: Segment, ended: Any, seconds: float) -> bool:
    """Whether it has ended within `seconds`, and the grace for one that has delivered everything."""
    return _wait(ended, seconds) or (is_drained(segment) and _wait(ended, GRACE_SECONDS))
