"""A session that a test lends to the program it runs: what that program begins as its own session joins it.

    relay_events (relay_mp.testing) ─▶ lend(session)
    program: `with relay_mp.session():` ─▶ a JoinedSession of it, whose close flushes, and removes what the
                                           program has registered meanwhile; the session itself goes on

Runs in the process that owns the lent session, and in no other.
"""

from relay_mp._native import core
from relay_mp._session.session import Session
from relay_mp.errors import FlushError

__all__ = ["JoinedSession"]


class JoinedSession(Session):
    """A part in a lent session that is open until it is closed, with the lent session's settings.

    A forked child's copy of it ends nothing.

    Args:
        lent: the session, which this process owns.
    """

    def __init__(self, lent: Session) -> None:
        super().__init__(lent._segment, lent.settings, lent._host)
        self._own_dispatch = lent._own_dispatch
        self._before = set(self.subscriber_names())
        self._is_joined = True

    @property
    def is_open(self) -> bool:
        """Whether it was not closed yet, and the lent session is open."""
        return self._is_joined and super().is_open

    def close(self, timeout: float | None = None) -> None:
        """Flushes, and removes the subscribers and exporters that were registered since it was joined. Idempotent.

        Args:
            timeout: seconds for the flush; default `flush_timeout_seconds`.

        Raises:
            FlushError: called inside a subscriber's callback.
            FlushTimeoutError: not all was delivered within `timeout`.
        """
        if core.is_dispatching():
            raise FlushError("a session cannot be closed inside a subscriber's callback: it would wait for itself")
        if not self.is_open:
            return
        if self._is_copy:
            self._is_joined = False
            return
        try:
            self.flush(timeout)
        finally:
            for name in set(self.subscriber_names()) - self._before:  # those of a scope end with it
                self.deregister(name, None)
            self._is_joined = False
