"""This process's part in the session's middleware: what it has published, or what has arrived here.

    own, enter ─▶ segment ─▶ leave          publishing.py writes it as the owner, receiving.py elsewhere

One object a process; a fork has its parent's, and is then no owner.
"""

from relay_mp._emit.middleware import Registration, registry
from relay_mp._native import core
from relay_mp._native.segments import Segment
from relay_mp._session.configuration.table import Row

__all__ = ["state"]

NO_PROCESS = -1
"""A fork_epoch that no process has."""


class State:
    """Changed under the registry's lock, which a fork finds free.

    Attributes:
        segment: of the session that this process is in; None if in none.
        rows: in the owner, all; elsewhere, those that cannot be had here.
        shared: registrations by the number of their row: in the owner what it has published, elsewhere what has
            arrived.
    """

    def __init__(self) -> None:
        self.segment: Segment | None = None
        self.rows: tuple[Row, ...] = ()
        self.shared: dict[int, Registration] = {}
        self._owner_epoch = NO_PROCESS

    @property
    def is_owner(self) -> bool:
        """Whether the session is this process's own, not only its parent's."""
        return self._owner_epoch == core.fork_epoch()

    @property
    def open_segment(self) -> Segment | None:
        """The segment, while this process is in an open session."""
        segment = self.segment
        return segment if segment is not None and segment.is_open else None

    def own(self, segment: Segment) -> None:
        """The process has started that session."""
        self.forget()
        self.segment, self._owner_epoch = segment, core.fork_epoch()

    def enter(self, segment: Segment) -> None:
        """The process is attached to that session."""
        if self.segment is not segment:
            self.forget()
        self.segment, self._owner_epoch = segment, NO_PROCESS

    def forget(self) -> None:
        """The process is in no session any more: what has arrived goes, what is its own stays."""
        self.segment, arrived = None, [each for each in self.shared.values() if each.arrived]
        self.shared, self.rows = {}, ()
        registry.exchange(remove=arrived)


state = State()
