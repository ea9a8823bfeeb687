"""Ctrl-C while a session ends: the first ends the wait for delivery; those behind it let the rest be told and kept.

Python delivers signals to the main thread, between two instructions of any code. What must not be left half done needs
a handler that raises no more.
"""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["OneInterrupt"]


class OneInterrupt:
    """A context manager: of the interrupts that come in its block, only the first raises. Elsewhere than in the main
    thread, and where the program's handler is not Python's, it does nothing."""

    def __init__(self) -> None:
        self._handler: Any = None
        self._has_raised = False

    def __enter__(self) -> Self:
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler) and threading.current_thread() is threading.main_thread():
            self._handler = handler
            signal.signal(signal.SIGINT, self._interrupt)
        return self

    def _interrupt(self, signum: int, frame: FrameType | None) -> None:
        if self._has_raised:
            return
        try:
            self._handler(signum, frame)
        except BaseException:
            self._has_raised = True
            raise

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self._handler is not None and signal.getsignal(signal.SIGINT) == self._interrupt:
            signal.signal(signal.SIGINT, self._handler)
