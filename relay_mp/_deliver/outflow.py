"""Frames to a socket whose reader may be slow, stopped or dead, by a thread that may never wait.

    send ─▶ the socket, as much as it takes at once ─▶ the rest waits here ─▶ a thread of its own, which may wait
                                                        └ `waiting_bytes`: who sends looks at it, and leaves out what
                                                          does not fit

The thread is started when something has to wait for the first time. Runs where the dispatcher runs; in a forked child
the descriptors are closed, and nothing else.
"""

import _socket
import contextlib
import os
import time
from collections import deque

from relay_mp._deliver.at_fork import abandon_in_child, unforked
from relay_mp._deliver.local_socket import NO_SIGNAL
from relay_mp._log import work_in_background
from relay_mp._threads import Condition, Thread

__all__ = ["Outflow"]

WRITE_SECONDS = 0.25
"""How long the thread waits in the system for a reader; then it looks whether it is to end."""

THREAD_NAME = "relay_mp-tap"


class Outflow:
    """The writing end of a connection. One thread sends; any may ask.

    Args:
        connection: it takes this over.
    """

    def __init__(self, connection: _socket.socket) -> None:
        self._connection = connection
        with unforked:
            # The same connection: the one never waits, the other only in this object's thread.
            self._waiting_connection = _socket.socket(
                _socket.AF_UNIX, _socket.SOCK_STREAM, 0, os.dup(connection.fileno())
            )
            abandon_in_child(self)
        self._connection.settimeout(0.0)
        self._waiting_connection.settimeout(WRITE_SECONDS)
        self._changed = Condition()
        self._frames: deque[tuple[memoryview, int]] = deque()
        self._has_thread = self._is_closed = False
        self.waiting_bytes = 0
        """Of the frames that wait, but for those that are not counted."""
        self.is_gone = False
        """Whether nobody reads any more."""

    def send(self, frame: bytes, *, is_counted: bool = True) -> None:
        """Sends a frame behind those before it. Never waits, never raises for the reader's sake."""
        with self._changed:
            left = memoryview(frame)
            if not self._frames and not self.is_gone:
                left = left[self._write(self._connection, left) :]
            if not left or self.is_gone:
                return
            counted = len(left) if is_counted else 0
            self._frames.append((left, counted))
            self.waiting_bytes += counted
            self._changed.notify_all()
            if not self._has_thread:
                self._has_thread = True
                Thread(target=self._write_the_rest, name=THREAD_NAME).start()

    def _write(self, connection: _socket.socket, left: memoryview) -> int:
        try:
            return connection.send(left, NO_SIGNAL)
        except (BlockingIOError, TimeoutError, InterruptedError):
            return 0
        except OSError:
            self.is_gone = True
            return 0

    def _write_the_rest(self) -> None:
        work_in_background()
        while (first := self._first()) is not None:
            # Nobody else writes as long as something waits.
            written = self._write(self._waiting_connection, first[0])
            with self._changed:
                if self._frames:
                    left, counted = self._frames.popleft()
                    left, done = left[written:], min(written, counted)
                    self.waiting_bytes -= done
                    if left and not self.is_gone:
                        self._frames.appendleft((left, counted - done))
                    self._changed.notify_all()

    def _first(self) -> tuple[memoryview, int] | None:
        with self._changed:
            while not self._frames and not self._is_closed and not self.is_gone:
                self._changed.wait()
            if self._frames and not self.is_gone:
                return self._frames[0]
            self._frames.clear()
            self.waiting_bytes = 0
            self._changed.notify_all()
            return None

    def has_reader(self) -> bool:
        """Whether somebody may still read: who has gone leaves the end of the connection."""
        if not self.is_gone and not self._is_closed:
            try:
                self.is_gone = not self._connection.recv(1)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:
                self.is_gone = True
        if self.is_gone:
            with self._changed:
                self._changed.notify_all()
        return not self.is_gone

    def close(self, seconds: float) -> None:
        """Ends the connection once what waits is written, but waits no longer than that. Idempotent."""
        deadline = time.monotonic() + seconds
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            while self._frames and not self.is_gone and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            self.is_gone = True
            self._changed.notify_all()
        for connection in (self._connection, self._waiting_connection):
            with contextlib.suppress(OSError):
                connection.shutdown(_socket.SHUT_WR)
            connection.close()

    def abandon(self) -> None:
        """Closes this process's descriptors, and nothing else."""
        self._connection.close()
        self._waiting_connection.close()
