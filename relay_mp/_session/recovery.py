"""What dead sessions left behind: written out, then swept.

An owner that is killed leaves its segment, with what had not been delivered. The next session to start
on the machine, of the same user, finds it, writes those events as ATOF JSON lines, and removes it.
"""

import math
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from relay_mp._deliver.dispatcher import Dispatcher
from relay_mp._deliver.liveness import LIVE_STATUSES, holder_is_dead, is_dead
from relay_mp._deliver.private_files import free_name, is_own_file
from relay_mp._deliver.subscriptions import Subscriptions
from relay_mp._log import logger
from relay_mp._native import core
from relay_mp._native.reader import Record
from relay_mp._native.segments import Segment
from relay_mp._records.json_line import event_line
from relay_mp._session import naming
from relay_mp._session.settings import temporary_directory
from relay_mp.errors import SegmentError, SessionError
from relay_mp.events import Event

if TYPE_CHECKING:
    from relay_mp._deliver.jsonl import JsonlFile

PAST_IMAGE_SECONDS = 10.0
"""How long a dispatcher process is waited for whose owner has become another program."""

PATIENCE_SECONDS = 1.0
"""How long an event is waited for that a process which lives has begun and not finished."""

_recovering = threading.Lock()


def recover(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    origin: bool = True,
    force: bool = False,
) -> str | None:
    """Writes out what a dead session, or one closed too soon, had not delivered, and removes its segment.

    Args:
        path: the segment, as the warning or `Session.path` named it.
        output: the JSONL file to append to; default `relay-mp-recovered-<session id>.jsonl` in the
            current directory.
        origin: whether each line says who has emitted its event, see `AtofExporterConfig`. What an exporter's file
            has, with or without that, is not appended again.
        force: also where workers of a dead owner live, if nobody delivers what they emit. That ends the session for
            them: what they emit afterwards is not recorded. An event that one of them has not finished within
            PATIENCE_SECONDS is lost.

    Returns:
        The file, or None if nothing was left to deliver.

    Of a segment whose ring is damaged, what still proves itself is written.

    Raises:
        SegmentError: there is no such segment, it is not one of this version's, or nothing of its ring could be
            read: that one is removed.
        SessionError: the session still goes on, or the file cannot be written; then what it
            did not take stays in the segment.
    """
    segment = Segment.attach(os.fspath(path))
    try:
        with _recovering:
            alive = living_processes(segment)
            if alive and not (force and not is_attended(segment)):
                raise SessionError(f"the session of {segment.path} goes on: {_what_keeps_it(segment, alive)}")
            if alive:
                logger.warning("the session of %s has ended for %s, which may still emit", segment.path, _named(alive))
            file = os.path.abspath(output or _file_name(segment))
            return _drain(segment, lambda: file, origin)
    finally:
        segment.close()


def sweep(directory: str, recovery_directory: str) -> list[str]:
    """Recovers every dead segment of this uid in `directory`. Returns the files written; never raises.

    Args:
        directory: of the segments.
        recovery_directory: of the files; "": the temporary directory, which is looked for when there is an event to
            write.
    """
    written = []
    for path in naming.own_segments(directory):
        try:
            if not _has_ended(path):
                continue
            file = _sweep_one(path, recovery_directory)
        except (SegmentError, SessionError, OSError) as error:
            logger.warning("could not sweep %s: %s", path, str(error))
            continue
        if file:
            logger.warning("a dead session left undelivered events in %s; they are now in %s", path, file)
            written.append(file)
    return written


def salvage(segment: Segment, recovery_directory: str) -> str | None:
    """Writes out what a session has not delivered that this process ends, and whose segment nobody finds any more.

    Returns:
        The file. None: the dispatcher's thread is still in a callback, or no file could be written.
    """
    with _recovering:
        if not holder_is_dead(segment):
            return None
        try:
            return _drain(segment, lambda: _free_file(segment, recovery_directory))
        except (SegmentError, SessionError, OSError) as error:
            logger.warning("what the session of %s had not delivered could not be written: %s", segment.path, error)
            return None


def _has_ended(path: str) -> bool:
    """Whether its maker is dead, or another program by now, or has closed it without delivering all.

    Else the maker looks after it.
    """
    maker = naming.maker(path)
    if maker is None:
        return False
    if is_dead(*maker):
        return True
    if is_unfinished(path):
        return False  # being made just now
    try:
        segment = Segment.attach(path)
    except SegmentError as error:  # of another version of this package, which its maker runs
        logger.debug("the session of %s goes on, and cannot be looked at: %s", path, str(error))
        return False
    try:
        if is_of_past_image(segment):
            end_past_image(segment)
        return bool(segment.state == core.STATE_CLOSED)
    finally:
        segment.close()


def is_of_past_image(segment: Segment) -> bool:
    """Whether this process has started the session as another program, before it became this one (`os.exec*`).

    To be asked while this program owns no session.
    """
    return segment.owner == core.process_self()


def end_past_image(segment: Segment) -> None:
    """Ends such a session, as nobody else can. Its workers' emits find it closed; the next session recovers the rest.

    A dispatcher process is waited for, at most PAST_IMAGE_SECONDS: it delivers what is left.
    """
    segment.set_state(core.STATE_CLOSING)
    segment.seal()
    segment.call_dispatcher()
    own_pid, deadline = core.process_self()[0], time.monotonic() + PAST_IMAGE_SECONDS
    while segment.lease()[1] != own_pid and not holder_is_dead(segment):
        if time.monotonic() > deadline:
            return  # it goes on delivering; the session after this one is the next to look
        time.sleep(0.01)
    segment.drop_lease()
    segment.set_state(core.STATE_CLOSED)
    logger.warning(
        "process %d has become another program (exec) while it owned the session of %s: that session has ended",
        own_pid,
        segment.path,
    )


def is_unfinished(path: str) -> bool:
    """Whether its maker died before it was done: the magic, stored last, is missing. It holds nothing."""
    if not is_own_file(path):
        return False  # attaching refuses it
    with open(path, "rb") as file:
        return not any(file.read(8))


def _sweep_one(path: str, recovery_directory: str) -> str | None:
    if is_unfinished(path):
        os.unlink(path)
        return None
    segment = Segment.attach(path)
    try:
        with _recovering:
            alive = living_processes(segment)
            if alive and is_attended(segment):
                return None
            if alive:
                logger.warning("the session of %s goes on: %s", path, _what_keeps_it(segment, alive))
                return _snapshot(segment, lambda: _free_file(segment, recovery_directory))
            return _drain(segment, lambda: _free_file(segment, recovery_directory))
    finally:
        segment.close()


def _file_name(segment: Segment) -> str:
    return f"relay-mp-recovered-{segment.session_id}.jsonl"


def _free_file(segment: Segment, recovery_directory: str) -> str:
    return free_name(os.path.join(recovery_directory or temporary_directory(), _file_name(segment)))


def living_processes(segment: Segment) -> list[int]:
    """The processes of the session that are not certainly dead; none too where its owner has closed it."""
    if segment.state == core.STATE_CLOSED:
        return []
    found = [] if is_dead(*segment.owner) else [segment.owner[0]]
    _, holder, _ = segment.lease()
    # This process's own lease is of an earlier try, which failed: whoever recovers holds `_recovering`.
    if holder not in (0, core.process_self()[0]) and not holder_is_dead(segment):
        found.append(holder)
    statuses = enumerate(segment.slot_statuses())
    processes = dict.fromkeys(segment.slot_process(slot) for slot, status in statuses if status in LIVE_STATUSES)
    found += [process[0] for process in processes if not is_dead(*process)]
    return list(dict.fromkeys(found))


def _named(pids: list[int]) -> str:
    return f"process {pids[0]}" if len(pids) == 1 else f"processes {', '.join(map(str, pids))}"


def is_attended(segment: Segment) -> bool:
    """Whether somebody delivers what is in it: its owner, or a dispatcher process that has outlived the owner."""
    return not (is_dead(*segment.owner) and holder_is_dead(segment))


def _what_keeps_it(segment: Segment, alive: list[int]) -> str:
    these, are = _named(alive), "is" if len(alive) == 1 else "are"
    if is_attended(segment):
        return f"{these} {are} in it; recover it after its end"
    return (
        f"{these} {are} in it, but its owner, process {segment.owner[0]}, is dead, and nobody delivers its events; "
        f"end {these}: then the rest can be recovered. Or take relay_mp.recover(path, force=True), which ends the "
        "session for them"
    )


class _Drain(Dispatcher):
    """Writes every event to one file, and answers no requests: their senders are dead.

    What the file does not take stays in the segment, so that recovering can be tried again.
    """

    def __init__(self, segment: Segment, output: Callable[[], str], origin: bool) -> None:
        super().__init__(segment, Subscriptions(lambda subscribers, scope_locals: None))
        self._output = output
        self.file: JsonlFile | None = None
        self._session_id = segment.session_id.encode()
        self._says_origin = origin
        self._stall_seconds = PATIENCE_SECONDS
        self._max_deliveries = math.inf  # nobody dies of writing a line; a disk may be full any number of times

    def run_to(self, position: int) -> None:
        """Delivers what is before that position, but waits for no event that is not finished."""
        self._stall_seconds = 0.0  # who has begun it lives, and goes on
        self.run(lambda: self._segment.read_pos < position and self._reader.blocked_seconds < PATIENCE_SECONDS)

    def _deliver_run(self, batch: list[Record], start: int) -> int:
        return 0  # each line by itself: what the disk does not take stays

    def _publish(self, event: Event, position: int, stack: bytes | None) -> None:
        if self.file is None:
            from relay_mp._deliver.jsonl import JsonlFile

            self.file = JsonlFile(self._output())
        plain, with_origin = event_line(event, None), event_line(event, self._session_id)
        self.file.append(*((with_origin, plain) if self._says_origin else (plain, with_origin)))

    def _control(self, payload: bytes, slot: int, owner_seq: int, position: int, redelivered: bool) -> None:
        pass


def _snapshot(segment: Segment, output: Callable[[], str]) -> str | None:
    """Writes what is in the ring now, up to an event that a living process has not finished. The session goes on."""
    if not segment.take_lease(segment.lease()[0]):
        return None  # another session was first
    dispatcher = _Drain(segment, output, True)
    try:
        dispatcher.run_to(segment.tail)
    finally:
        if dispatcher.file is not None:
            dispatcher.file.close()
        segment.drop_lease()
    return dispatcher.file.path if dispatcher.file is not None and dispatcher.file.lines else None


def _drain(segment: Segment, output: Callable[[], str], origin: bool = True) -> str | None:
    if not segment.take_lease(segment.lease()[0]):
        return None  # another session was first
    segment.seal()
    dispatcher = _Drain(segment, output, origin)
    dispatcher.stop()
    try:
        dispatcher.run()
    except OSError as error:
        raise SessionError(
            f"not all events could be written to a file: {error}; the rest stays in {segment.path}"
        ) from error
    finally:
        if dispatcher.file is not None:
            dispatcher.file.close()
    segment.set_state(core.STATE_CLOSED)
    segment.unlink()
    if dispatcher.is_unreadable:
        raise SegmentError(
            f"the ring of {segment.path} is damaged beyond reading: nothing of it is left, and it is removed"
        )
    return dispatcher.file.path if dispatcher.file is not None and dispatcher.file.lines else None
