"""The library's own log lines: bounded in number, and unable to harm the thread that writes one.

    logger.error(text, ...) ─▶ the first of its kind in 10 s: written, with its traceback
                            └▶ the others: counted; the next one written says how many there were

A kind is the text before its arguments are put in, with the first argument if that is a name. A handler that raises is
passed over. The dispatcher's and the exporters' threads (`work_in_background`) hand their lines to a writer thread, and
wait for it a moment only, so that a handler that blocks stops no delivery. Any thread of any process; fork-safe.
"""

import logging
import os
import sys
import threading
import time
from collections import OrderedDict, deque
from typing import Any

from relay_mp._threads import Event, Lock, RLock, Thread

__all__ = ["logger", "work_in_background"]

WINDOW_SECONDS = 10.0
"""After a line, those of its kind are counted for so long."""

MAX_KINDS = 256
"""So many kinds are told apart; the one that was written longest ago is forgotten beyond that."""

MAX_WAITING_LINES = 256
"""Lines that wait for the writer, as behind a handler that blocks; older ones are dropped beyond that."""

WAIT_SECONDS = 0.05
"""A background thread waits so long for its line to be written."""

WRITER_NAME = "relay_mp-log"

_target = logging.getLogger("relay_mp")
_threads = threading.local()


def work_in_background() -> None:
    """Tells that the calling thread is the library's: what it logs is written by another thread."""
    _threads.is_background = True


class _Kinds:
    """Decides which lines are written. By kind: when its last line was written, and how many were left out since."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: OrderedDict[tuple[Any, ...], list[float]] = OrderedDict()

    def left_out_before(self, kind: tuple[Any, ...]) -> int | None:
        """How many of the kind were left out since the last that was written; None: this one is left out too."""
        # With a deadline: a fork may have copied it locked, or a signal's handler may have interrupted its holder.
        is_locked = self._lock.acquire(timeout=WAIT_SECONDS)
        try:
            return self._look_up(kind, time.monotonic())
        finally:
            if is_locked:
                self._lock.release()

    def _look_up(self, kind: tuple[Any, ...], now: float) -> int | None:
        last = self._known.get(kind)
        if last is not None and now - last[0] < WINDOW_SECONDS:
            last[1] += 1
            return None
        self._known[kind] = [now, 0]
        self._known.move_to_end(kind)
        while len(self._known) > MAX_KINDS:
            self._known.popitem(last=False)
        return int(last[1]) if last else 0


class _Line:
    """A line on its way to the handlers."""

    def __init__(self, level: int, text: str, arguments: tuple[Any, ...], error: Any) -> None:
        self.level, self.text, self.arguments, self.error = level, text, arguments, error
        self.written = Event()

    def write(self) -> None:
        try:
            _target.log(self.level, self.text, *self.arguments, exc_info=self.error)
        except Exception as error:
            _complain(error)
        finally:
            self.written.set()


def _complain(error: BaseException) -> None:
    try:
        sys.stderr.write(f"relay_mp: a logging handler raised {type(error).__name__}: {error}\n")
    except Exception:
        return  # nobody is left to be told


class _Writer:
    """Writes the background threads' lines in a thread, which is there as long as there are some."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lines: deque[_Line] = deque(maxlen=MAX_WAITING_LINES)
        self._lock = RLock()  # a finalizer that logs may run where it is held
        self._is_running = False
        self._behind: _Line | None = None

    def write(self, line: _Line) -> None:
        if self._pid != os.getpid():  # a fork copies the lines, not the thread, and may copy the lock as it is held
            self._begin()
        with self._lock:
            self._lines.append(line)
            starts = not self._is_running
            self._is_running = True
        if starts:
            self._start()
        # Behind one that did not come through, nobody waits.
        if (self._behind is None or self._behind.written.is_set()) and not line.written.wait(WAIT_SECONDS):
            self._behind = line

    def _start(self) -> None:
        try:
            Thread(target=self._run, name=WRITER_NAME).start()
        except RuntimeError:  # no thread can be had, as when the interpreter ends
            self._run()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._lines:
                    self._is_running = False
                    return
                line = self._lines.popleft()
            try:
                line.write()
            except BaseException as error:  # such as a handler's SystemExit: the next line is written all the same
                _complain(error)


class Logger:
    """What the library's modules log with: the verbs of `logging.Logger` that they use, under the module's rules."""

    def __init__(self) -> None:
        self._kinds = _Kinds()
        self._writer = _Writer()

    def forget(self) -> None:
        """Every kind's next line is its first again: for tests."""
        self._kinds = _Kinds()

    def _log(self, level: int, text: str, arguments: tuple[Any, ...], error: Any) -> None:
        if not _target.isEnabledFor(level):
            return
        name = arguments[0] if arguments and isinstance(arguments[0], str) else None
        left_out = self._kinds.left_out_before((level, text, name))
        if left_out is None:
            return
        if left_out:
            text = f"{text} (and {left_out} more of this kind, which were not logged)"
        line = _Line(level, text, arguments, error)
        if getattr(_threads, "is_background", False):
            self._writer.write(line)
        else:
            line.write()

    def debug(self, text: str, *arguments: Any) -> None:
        """For who looks for a fault of the library's."""
        self._log(logging.DEBUG, text, arguments, None)

    def info(self, text: str, *arguments: Any) -> None:
        """What is good to know."""
        self._log(logging.INFO, text, arguments, None)

    def warning(self, text: str, *arguments: Any) -> None:
        """What may cost events, or is not as it was asked for."""
        self._log(logging.WARNING, text, arguments, None)

    def error(self, text: str, *arguments: Any, exc_info: BaseException | None = None) -> None:
        """What has failed."""
        self._log(logging.ERROR, text, arguments, exc_info)

    def exception(self, text: str, *arguments: Any) -> None:
        """What has failed with the exception that is being handled."""
        self._log(logging.ERROR, text, arguments, sys.exception())


logger = Logger()
