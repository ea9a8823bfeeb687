"""The dispatcher as a process: how the session's owner starts it, watches it, and starts another when it dies.

What runs in it is dispatcher_process.py. Loaded only for a session with `dispatcher="process"`: `subprocess` alone is
a thirtieth of what `import relay_mp` would cost.
"""

import contextlib
import marshal
import os
import subprocess
import sys
import time

from relay_mp._deliver.allowed import Allowed
from relay_mp._deliver.at_fork import unforked
from relay_mp._deliver.dispatcher import OpenBounds
from relay_mp._log import logger, work_in_background
from relay_mp._native import core
from relay_mp._native.segments import Segment
from relay_mp._session import inheritance
from relay_mp._session.draining import is_drained, wait_for_end
from relay_mp._session.settings import ALLOWED_VARIABLE, OPEN_VARIABLES
from relay_mp._threads import Event, Thread, nap, popen, sleep, wait
from relay_mp.errors import SessionError

START_TIMEOUT_SECONDS = 20.0
RESTART_PAUSE_SECONDS, MAX_RESTART_PAUSE_SECONDS = 0.1, 5.0
STEADY_SECONDS = 60.0
"""A dispatcher process that has lived so long was not started in vain, though there was nothing to deliver."""

_PROGRAM = (
    "import marshal, sys; sys.path[:] = marshal.load(sys.stdin.buffer); "
    "from relay_mp._session import dispatcher_process; dispatcher_process.run()"
)
"""Of the dispatcher process. Until it has the owner's path it imports nothing but what is built in: `python -c` and
`python -m` put the working directory first, in which others may have placed modules. PYTHONPATH would not do: a colon
ends an entry there, and `-I` and `-E` ignore it."""


class _Restarts:
    """Bounds how often in a row a dispatcher process is started again without having delivered anything.

    At first without a pause: an event of which it dies is given up after `max_deliveries`. Beyond those, `most`
    times with ever longer pauses.
    """

    def __init__(self, segment: Segment, most: int) -> None:
        self._segment = segment
        self._most = most
        self._started_at, self._read_pos = time.monotonic(), segment.read_pos
        self.in_vain = 0

    def has_started(self) -> None:
        """Another one runs."""
        self._started_at = time.monotonic()

    def next_pause(self) -> float | None:
        """Seconds to wait before another is started. None: there were too many."""
        before, self._read_pos = self._read_pos, self._segment.read_pos
        if before != self._read_pos or time.monotonic() - self._started_at > STEADY_SECONDS:
            self.in_vain = 0
        self.in_vain += 1
        beyond = self.in_vain - self._segment.max_deliveries
        if beyond > self._most:
            return None
        return 0.0 if beyond <= 0 else float(min(RESTART_PAUSE_SECONDS * 2.0**beyond, MAX_RESTART_PAUSE_SECONDS))


class ProcessHost:
    """An interpreter that runs `relay_mp._session.dispatcher_process`, with the owner's flags and its `sys.path`.

    Not multiprocessing, which would import the user's main module again. A thread of the owner waits
    for it and starts another if it dies.
    """

    subscriptions = None  # they are over there

    def __init__(self, segment: Segment, allowed: Allowed, bounds: OpenBounds, max_restarts: int) -> None:
        self._segment = segment
        self.allowed = allowed
        self._bounds = bounds
        self._restarts = _Restarts(segment, max_restarts)
        self._stopping = self._has_failed = False
        self._given_up = Event()
        self._ended = Event()
        self._process = self._start()
        try:
            self._watch = Thread(target=self._watch_over, name="relay_mp-dispatcher-watch")
            self._watch.start()
        except BaseException:  # a Ctrl-C too
            self._given_up.set()
            self._process.kill()
            self._process.wait()
            raise

    def _start(self) -> "subprocess.Popen[bytes]":
        inherited = (inheritance.SESSION_VARIABLE, inheritance.SCOPE_VARIABLE)
        environment = {name: value for name, value in os.environ.items() if name not in inherited}
        environment[ALLOWED_VARIABLE] = self.allowed.as_setting()
        environment |= dict(zip(OPEN_VARIABLES, map(str, self._bounds), strict=True))
        # As multiprocessing does it.
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        descriptor = self._segment.descriptor  # by which it is found: others may have removed the name
        handed_over = [] if descriptor < 0 else [descriptor]
        command = [sys.executable, *flags, "-c", _PROGRAM, *map(str, handed_over), self._segment.path]
        # A session of its own: the terminal's Ctrl-C is for the workers, not for what records their end.
        try:
            process = _launch(command, environment, handed_over)
        except OSError as error:
            raise SessionError(f"the dispatcher process could not be started: {error}") from error
        try:
            self._await_lease(process)
        except BaseException:  # a Ctrl-C too: nobody else would end it
            process.kill()
            process.wait()
            raise
        return process

    def _await_lease(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while self._segment.lease()[1] != process.pid:
            if process.poll() is not None or self._given_up.is_set() or time.monotonic() > deadline:
                raise SessionError(
                    f"the dispatcher process ended with code {process.returncode} instead of starting within "
                    f"{START_TIMEOUT_SECONDS:g} s; its error is on stderr"
                )
            if not nap(0.002):
                sleep(0.002)

    def _watch_over(self) -> None:
        work_in_background()
        try:
            self._restart_when_dead()
        finally:
            self._ended.set()

    def _restart_when_dead(self) -> None:
        while True:
            code = self._process.wait()
            if self._given_up.is_set() or not self._segment.is_open:
                return
            if self._has_done_its_part(code):
                if code:
                    logger.warning(
                        "the dispatcher process ended with code %s while the session was closed: what its exporters "
                        "had not sent is counted as unconfirmed",
                        code,
                    )
                return
            logger.warning("the dispatcher process ended with code %s; starting another", code)
            if not self._start_another():
                return

    def _start_another(self) -> bool:
        while (pause := self._restarts.next_pause()) is not None:
            if self._given_up.wait(pause):
                return False
            self._warn_if_nameless()
            try:
                self._process = self._start()
            except SessionError:
                if not self._given_up.is_set():
                    logger.exception("no dispatcher could be started; trying again")
            else:
                self._restarts.has_started()
                return True
        self._fail()
        return False

    def _warn_if_nameless(self) -> None:
        if not self._segment.has_name:
            logger.warning(
                "%s was removed by another program, such as a cleaner of temporary files or systemd-logind "
                "(RemoveIPC=yes); the session goes on without that name",
                self._segment.path,
            )

    def _fail(self) -> None:
        """Nobody delivers any more: emits must not wait for space, nor flushes for delivery."""
        self._has_failed = True
        if self._segment.take_lease(self._segment.lease()[0]):
            self._segment.drop_lease()
        logger.error(
            "%d dispatcher processes in a row have ended, or could not start, without delivering anything; no other is "
            "started (max_restarts, RELAY_MP_MAX_RESTARTS). Events are kept until the ring is full, then dropped and "
            "counted; closing the session says what is left",
            self._restarts.in_vain,
        )

    def _has_done_its_part(self, code: int) -> bool:
        if not is_drained(self._segment):
            return False
        # A broken ring is drained when what could be read of it has been; nothing more comes.
        if self._segment.state == core.STATE_BROKEN:
            return True
        return self._stopping and (code == 0 or not self._segment.has_unmarked_losses)

    def is_alive(self) -> bool:
        return not self._has_failed  # if it dies, another is started

    def stop(self, timeout_seconds: float) -> bool:
        """True if everything was delivered by then. The sealed ring tells the process to end."""
        self._stopping = True
        self._segment.call_dispatcher()
        try:
            wait_for_end(self._segment, self._ended, timeout_seconds)
        finally:  # also if a Ctrl-C ends the wait: it must not go on with a segment that is given up
            self._given_up.set()
            while not self._ended.is_set():
                self._process.kill()  # again if the watch has just started another
                wait(self._ended, RESTART_PAUSE_SECONDS)
            self._watch.join()
        return is_drained(self._segment)


def _launch(command: list[str], environment: dict[str, str], handed_over: list[int]) -> "subprocess.Popen[bytes]":
    # A child that is forked meanwhile would keep Popen's own pipe open, for whose end Popen waits, and that of stdin.
    with unforked:
        process: subprocess.Popen[bytes] = popen()(
            command, env=environment, stdin=subprocess.PIPE, pass_fds=handed_over, start_new_session=True
        )
        try:
            _hand_path_over(process)
        except BaseException:  # a Ctrl-C too
            process.kill()
            process.wait()
            raise
        return process


def _hand_path_over(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    path = [entry for entry in sys.path if isinstance(entry, str)]
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:  # it has ended: who waits for it says so
        pipe.write(marshal.dumps(path))
