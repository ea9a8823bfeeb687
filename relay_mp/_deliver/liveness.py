"""Which producers have died. Runs where the dispatcher runs, when it is held up and once a second.

A process is asked for only when somebody needs the answer: the native half opens a pidfd, looks
whether it has ended, and compares the start time, which tells a reused pid (see process.h). That holds
no descriptor between questions, so that a thousand workers cost none, and needs no watching of starts.
Where the kernel has no pidfd, the start time alone tells a reused pid, and psutil a zombie.

A process in a pid namespace below this one, as a container has it, is looked for in /proc by what it calls
itself, and then asked about by what it is called here. One that cannot be seen from here counts as alive.
"""

import os

from relay_mp._native import core
from relay_mp._native.reader import Reader
from relay_mp._native.segments import Segment

LIVE_STATUSES = (core.SLOT_TAKING, core.SLOT_LIVE)

SCAN_SECONDS = 1.0


def is_dead(pid: int, start_time: int, pid_namespace: int) -> bool:
    """True only if the process has certainly ended."""
    answer = core.process_liveness(pid, start_time, pid_namespace)
    if answer != core.UNKNOWN:
        return bool(answer == core.DEAD)
    if pid_namespace in (0, core.process_self()[2]):
        return _has_ended(pid)
    return _namespaces.is_dead(pid, start_time, pid_namespace)


def _has_ended(pid: int) -> bool:
    """psutil's answer. What cannot be looked at, as when no descriptor is left, counts as alive: ask again."""
    try:
        import psutil  # type: ignore[import-untyped]
    except (ImportError, OSError):
        return False
    try:
        process = psutil.Process(pid)
        # The first thread of a process may have ended, and is a zombie, while others run: the process lives.
        return bool(process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1)
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, OSError):
        return False


def pid_here(pid: int, start_time: int, pid_namespace: int) -> int:
    """What a process is called in this one's /proc; 0 if it cannot be seen from here."""
    try:
        if pid_namespace in (0, core.process_self()[2]):
            return pid if not os.path.exists("/proc/self") or os.readlink("/proc/self") == str(os.getpid()) else 0
        return _namespaces.find(pid, start_time, pid_namespace)
    except OSError:
        return 0


class _Namespaces:
    """Processes of other pid namespaces, as far as this process's /proc shows them.

    What it shows once it always shows: those below this one. So one of its processes that is not there
    has ended, and a namespace that is not there any more has ended with all that was in it.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._known_as: dict[tuple[int, int, int], int] = {}

    def is_dead(self, pid: int, start_time: int, pid_namespace: int) -> bool:
        process = pid, start_time, pid_namespace
        try:
            pid_here = self._known_as.get(process) or self.find(*process)
        except OSError:
            return False  # no look is possible, as when no descriptor is left: ask again
        if not pid_here:
            return pid_namespace in self._seen
        if not is_dead(pid_here, start_time, core.process_self()[2]):
            self._known_as[process] = pid_here
            return False
        self._known_as.pop(process, None)
        return True

    def find(self, pid: int, start_time: int, pid_namespace: int) -> int:
        """What it is called here; 0 if it is not to be seen."""
        found, own_namespace = 0, core.process_self()[2]
        for pid_here in _visible_pids():
            try:
                is_inside = os.stat(f"/proc/{pid_here}/ns/pid").st_ino == pid_namespace
            except PermissionError:
                is_inside = None  # it may be
            except OSError:
                continue
            if is_inside:
                self._seen.add(pid_namespace)
            if is_inside is not False and _innermost_pid(pid_here) == pid:
                found = found if is_dead(pid_here, start_time, own_namespace) else pid_here
        return found


def _visible_pids() -> list[int]:
    """Of all processes in /proc; none where /proc is of another pid namespace than this process."""
    if os.readlink("/proc/self") != str(os.getpid()):
        return []
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _innermost_pid(pid_here: int) -> int:
    """What a process calls itself; 0 if it has just ended, or is another user's."""
    try:
        with open(f"/proc/{pid_here}/status", encoding="utf-8", errors="replace") as file:
            return next((int(line.split()[-1]) for line in file if line.startswith("NSpid:")), 0)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0


_namespaces = _Namespaces()


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

    def scan(self) -> int:
        """Retires the dead, frees what they fenced off, settles what can be settled.

        Returns:
            The number of live producers.
        """
        for position, slot in self._reader.fenced_slots():
            if self.slot_is_dead(slot):
                self._reader.release_fenced(position)
        live = 0
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
            self._segment.settle(slot)
        return live

    def _occupied(self) -> list[tuple[int, int]]:
        return [
            (slot, status)
            for slot, status in enumerate(self._segment.slot_statuses().rstrip(b"\0"))  # free ones: most of them
            if status in LIVE_STATUSES or status in (core.SLOT_EXITED, core.SLOT_DEAD)
        ]
