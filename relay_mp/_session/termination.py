"""SIGTERM, with `on_sigterm="flush"`: what was emitted is delivered and exported before the process ends of it.

    SIGTERM ──▶ a thread of its own, for which the main thread waits at most `sigterm_timeout_seconds`
                    the program has a handler of its own     delivers and exports; the session goes on
                    it has none, and ends                    closes the session
            ──▶ the earlier handler, or the signal's default

The thread may need a lock that the interrupted code holds: then the deadline ends the wait. A second SIGTERM does not
wait. Python runs handlers in the main thread, between two instructions: while that thread is in a long call of C, a
SIGTERM waits for it. That is why the setting is off by default. A forked child has the earlier handler.
"""

import os
import signal
import time
from types import FrameType
from typing import Any

from relay_mp._log import logger
from relay_mp._session.exporting import Flushed, wait
from relay_mp._session.session import Session
from relay_mp._threads import Event, Thread
from relay_mp.errors import RelayError

__all__ = ["heed"]

_PIECE_SECONDS = 0.1
"""The main thread looks so often whether it may go on."""


def _set(handler: Any) -> bool:
    """False outside the main thread, where Python can set none. To `threading` each greenlet is a thread."""
    try:
        signal.signal(signal.SIGTERM, handler)
    except ValueError:
        return False
    return True


class _Termination:
    """The handler, for one session of this process."""

    def __init__(self, session: Session, timeout_seconds: float, earlier: Any) -> None:
        self._session = session
        self._timeout_seconds = timeout_seconds
        self._earlier = earlier
        self._has_come = self._came_while_closing = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        first, self._has_come = not self._has_come, True
        if first and self._session.is_owner and self._session._segment.is_open:
            if not self._session.is_open:  # it is being closed, maybe by what is interrupted here: see `after_close`
                self._came_while_closing = True
                return
            self._finish()
        self._has_come = False
        self._go_on(signum, frame)

    def _finish(self) -> None:
        deadline, done = time.monotonic() + self._timeout_seconds, Event()
        try:
            Thread(target=self._run, args=(deadline, done), name="relay_mp-sigterm").start()
        except RuntimeError:  # the interpreter ends
            return
        while not done.wait(_PIECE_SECONDS):
            if time.monotonic() > deadline:
                logger.warning(
                    "SIGTERM: not everything was delivered and exported within %g s (sigterm_timeout_seconds, "
                    "RELAY_MP_SIGTERM_TIMEOUT_SECONDS)",
                    self._timeout_seconds,
                )
                return

    def _run(self, deadline: float, done: Any) -> None:
        try:
            if self._earlier is signal.SIG_DFL:
                self._session.close(self._timeout_seconds)
            else:
                self._session.flush(self._timeout_seconds)
                wait(self._session, list(self._session.exporter_reports()), deadline, Flushed())
        except RelayError as error:
            logger.warning("SIGTERM: %s", error)
        finally:
            done.set()

    def _go_on(self, signum: int, frame: FrameType | None) -> None:
        if callable(self._earlier):
            self._earlier(signum, frame)
        elif self._earlier is signal.SIG_DFL:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

    def after_close(self) -> None:
        """The session has been closed: the earlier handler is in its place again, and gets what came meanwhile."""
        self.withdraw()
        if self._came_while_closing:
            self._came_while_closing = False
            os.kill(os.getpid(), signal.SIGTERM)

    def withdraw(self) -> None:
        """Puts the earlier handler back, unless somebody has set another. Outside the main thread it cannot."""
        found: object = signal.getsignal(signal.SIGTERM)
        if found is self:
            _set(self._earlier)


_heeded: _Termination | None = None
_is_hooked = False


def _in_forked_child() -> None:
    # What is its parent's to flush is its parent's; and a child in a long call of C ends at once, as without us.
    if _heeded is not None:
        _heeded.withdraw()


def heed(session: Session) -> None:
    """Puts the handler in its place: called when a session whose settings ask for it has started."""
    global _heeded, _is_hooked
    settings = session.settings
    assert settings is not None  # it is the owner's
    earlier = signal.getsignal(signal.SIGTERM)
    termination = _Termination(session, settings.sigterm_timeout_seconds, earlier)
    if earlier is None or not _set(termination):
        reason = "its handler was not set by Python" if earlier is None else "only the main thread can set a handler"
        logger.warning("on_sigterm='flush' has no effect: %s; start the session in the main thread, first", reason)
        return
    _heeded = termination
    session.after_close = _heeded.after_close
    if not _is_hooked:
        _is_hooked = True
        os.register_at_fork(after_in_child=_in_forked_child)
