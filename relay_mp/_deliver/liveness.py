"""Which producers have died. Runs where the dispatcher runs, when it is held up and once a second.

A process is asked for only when somebody needs the answer: the native half opens a pidfd, looks
whether it has ended, and compares the start time, which tells a reused pid (see process.h). That holds
no descriptor between questions, so that a thousand workers cost none, and needs no watching of starts.
Where the kernel has no pidfd, psutil answers.
"""

from relay_mp._native import core
from relay_mp._native.core import Reader, Segment

LIVE_STATUSES = (core.SLOT_TAKING, core.SLOT_LIVE)

SCAN_SECONDS = 1.0


def is_dead(pid: int, start_time: int, pid_namespace: int) -> bool:
    """True only if the process has certainly ended."""
    answer = core.process_liveness(pid, start_time, pid_namespace)
    if answer == core.UNKNOWN and pid_namespace in (0, core.process_self()[2]):
        return _has_ended(pid)
    return bool(answer == core.DEAD)


def _has_ended(pid: int) -> bool:
    """psutil's answer. What cannot be looked at, as when no descriptor is left, counts as alive: ask again."""
    try:
        import psutil  # type: ignore[import-untyped]
    except (ImportError, OSError):
        return False
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, OSError):
        return False


def holder_is_dead(segment: Segment) -> bool:
    """Whether nobody dispatches: the lease was never taken, or its holder has ended."""
    _, pid, start_time = segment.lease()
    return pid == 0 or is_dead(pid, start_time, segment.owner[2])


class Liveness:
    """What the dispatcher knows of the session's producers."""

    def __init__(self, segment: Segment, reader: Reader) -> None:
        self._segment = segment
        self._reader = reader

    def slot_is_dead(self, slot: int) -> bool:
        return is_dead(*self._segment.slot_process(slot))

    def retire(self, slot: int) -> None:
        """Marks a slot, whose process is dead, for settling."""
        self._segment.mark_dead(slot, self._segment.slot_state(slot))

    def scan(self) -> tuple[list[int], int]:
        """Retires the dead, frees what they fenced off, settles what can be settled.

        Returns:
            The slots of which events were newly found lost, and the number of live producers.
        """
        for position, slot in self._reader.fenced_slots():
            if self.slot_is_dead(slot):
                self._reader.forgive(position)
        lost, live = [], 0
        known: dict[tuple[int, int, int], bool] = {}
        for slot, status in self._occupied():
            if status in LIVE_STATUSES:
                process = self._segment.slot_process(slot)
                if process not in known:
                    known[process] = is_dead(*process)
                if not known[process]:
                    live += 1
                    continue
                self.retire(slot)
            if self._segment.settle(slot):
                lost.append(slot)
        return lost, live

    def _occupied(self) -> list[tuple[int, int]]:
        return [
            (slot, status)
            for slot, status in enumerate(self._segment.slot_statuses())
            if status in LIVE_STATUSES or status == core.SLOT_DEAD
        ]
