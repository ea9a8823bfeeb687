"""A session that could not start, as in a container where nothing can be written: the program goes on without a record.

    session() ─▶ no segment, no dispatcher ─▶ strict: the error
                                          └─▶ else: one line in the log, and an UnrecordedSession

To the program it is a session: subscribers and exporters register, flushes return, closing ends it. Nothing is emitted,
as where nobody subscribes. `stats().unrecorded` says why. A worker that attaches to its handle gets one too.
"""

from collections.abc import Sequence
from typing import Any

from relay_mp._deliver.replacement import Named
from relay_mp._deliver.reports import ExporterReport
from relay_mp._deliver.subscriptions import Callback
from relay_mp._native import core
from relay_mp._session.flush import FlushResult
from relay_mp._session.session import Session
from relay_mp._session.settings import Settings
from relay_mp._session.stats import Stats
from relay_mp.errors import ConfigurationError, RelayError, SessionError, SubscriberError

__all__ = ["NO_PATH", "UnrecordedSession", "is_of_the_surroundings"]

NO_PATH = ""
"""In place of the path of its segment."""


def is_of_the_surroundings(error: BaseException) -> bool:
    """Whether a session could not start for what the process has found, rather than for what it was told."""
    if isinstance(error, RelayError):
        return isinstance(error, SessionError) and not isinstance(error, ConfigurationError)
    return isinstance(error, OSError | RuntimeError | MemoryError)


class UnrecordedSession(Session):
    """A session without a segment: it takes everything, and records nothing.

    Args:
        settings: what it was to be started with; None in a worker.
        session_id: the id that it would have had.
        why: why it could not start.
    """

    def __init__(self, settings: Settings | None, session_id: str, why: str) -> None:
        self.settings = settings
        self.path = NO_PATH
        self.id = session_id
        self._why = why
        self._epoch = core.fork_epoch()
        self._names: set[tuple[str, bytes | None]] = set()
        self._is_open = True

    @property
    def is_recorded(self) -> bool:
        """It is not."""
        return False

    @property
    def has_dispatcher_process(self) -> bool:
        """There is no dispatcher."""
        return False

    @property
    def _is_here(self) -> bool:
        """See Session."""
        return self._is_open

    @property
    def is_open(self) -> bool:
        """Whether it was not closed yet. Events are not taken."""
        return self._is_open

    @property
    def is_owner(self) -> bool:
        """Whether this process has tried to start it."""
        return self.settings is not None and not self._is_copy

    @property
    def dispatches_elsewhere(self) -> bool:
        """Nothing is dispatched."""
        return False

    def _in_child(self) -> Session:
        """See Session."""
        return UnrecordedSession(None, self.id, self._why)

    def stats(self) -> Stats:
        """Nothing was emitted; `unrecorded` says why."""
        return Stats(
            emitted=0,
            delivered=0,
            lost=0,
            pending=0,
            cut=0,
            replaced=0,
            causes={},
            processes=[],
            subscriber_errors=0,
            middleware_failures=0,
            ring_bytes=0,
            ring_used_bytes=0,
            stalled_pid=None,
            unrecorded=self._why,
        )

    def flush(self, timeout: float | None = None) -> FlushResult:
        """Returns at once: there is nothing to wait for."""
        self._flush_timeout(timeout)
        return FlushResult()

    async def flush_async(self, timeout: float | None = None) -> FlushResult:
        """`flush`."""
        return self.flush(timeout)

    def register(
        self, name: str, callback: Callback | str, arguments: dict[str, Any] | None, scope: bytes | None
    ) -> None:
        """Takes the name. The callback is never called."""
        if (name, scope) in self._names:
            raise SubscriberError(f"a subscriber {name!r} is already registered; deregister it first")
        self._names.add((name, scope))

    def is_known(self, name: str, callback: Callback | str) -> bool:
        """It has none."""
        return False

    def deregister(self, name: str, scope: bytes | None) -> bool:
        """Gives the name back."""
        found = (name, scope) in self._names
        self._names.discard((name, scope))
        return found

    def replace(self, remove: Sequence[str], add: Sequence[Named]) -> None:
        """Exchanges names."""
        self._names -= {(name, None) for name in remove}
        self._names |= {(each.name, None) for each in add}

    def subscriber_names(self) -> list[str]:
        """The names that are taken."""
        return [name for name, scope in self._names if scope is None]

    def request_exporter_flush(self, name: str) -> ExporterReport | None:
        """No exporter has begun."""
        return None

    def exporter_reports(self) -> dict[str, ExporterReport]:
        """No exporter has begun."""
        return {}

    def close_scope(self, scope: bytes) -> None:
        """The names of a scope are given back."""
        self._names = {(name, at) for name, at in self._names if at != scope}

    def close(self, timeout: float | None = None) -> None:
        """Ends it: the next session is tried anew. Idempotent."""
        self._flush_timeout(timeout)
        self._is_open = False

    def __repr__(self) -> str:
        return f"<relay_mp.Session {self.id} unrecorded {'open' if self._is_open else 'closed'}>"
