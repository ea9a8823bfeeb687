"""Where the dispatcher runs: a thread of the owner, or an interpreter of its own.

A host starts it, says whether it lives, and stops it once the sealed ring is drained. If the ring is found
broken, the dispatcher delivers what it still can and ends; none is started in its place.
"""

from typing import Protocol

from relay_mp._deliver.allowed import Allowed
from relay_mp._deliver.dispatcher import OpenBounds
from relay_mp._deliver.subscriptions import Subscriptions
from relay_mp._native.segments import Segment
from relay_mp._session.settings import Settings
from relay_mp._session.thread_host import ThreadHost
from relay_mp.errors import SessionError


class Host(Protocol):
    """What a session's owner asks of it."""

    allowed: Allowed

    @property
    def subscriptions(self) -> Subscriptions | None:
        """Where it is a thread of this process."""

    def is_alive(self) -> bool:
        """Whether events are delivered, now or after a restart."""

    def stop(self, timeout_seconds: float) -> bool:
        """Ends it. True if everything was delivered by then."""


def start(segment: Segment, settings: Settings) -> Host:
    """Starts the dispatcher that the settings ask for."""
    allowed = Allowed(settings.allowed_subscribers)
    bounds = OpenBounds(settings.max_open_scopes, settings.max_open_bytes)
    if not segment.dispatcher_is_process:
        return ThreadHost(segment, allowed, bounds)
    try:
        from relay_mp._session.process_host import ProcessHost
    except OSError as error:  # no descriptor is left to read the module
        raise SessionError(f"the dispatcher process could not be started: {error}") from error
    return ProcessHost(segment, allowed, bounds, settings.max_restarts)
