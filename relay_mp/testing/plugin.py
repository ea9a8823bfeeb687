"""The pytest plugin: one fixture and one marker. Loaded by pytest through the entry point `pytest11`."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from relay_mp import subscribers
from relay_mp._native.encoder import set_strict
from relay_mp._session.membership import current_session, lend, session
from relay_mp._session.session import Session
from relay_mp.errors import SessionError
from relay_mp.testing import SUBSCRIBER, RelayEvents

MARKER = "relay_mp"


def pytest_configure(config: pytest.Config) -> None:
    """Makes the marker known, as `--strict-markers` asks."""
    config.addinivalue_line(
        "markers", f"{MARKER}(strict=True): whether `relay_events` refuses what cannot be recorded, or replaces it"
    )


@pytest.fixture
def relay_events(request: pytest.FixtureRequest) -> Iterator[RelayEvents]:
    """The events that the test and its child processes emit, in a session of the test's own: see relay_mp.testing."""
    marker = request.node.get_closest_marker(MARKER)
    strict = marker.kwargs.get("strict", True) if marker is not None else True
    set_strict(process=strict)
    try:
        with _session(strict) as own:
            if not own.is_recorded:
                raise SessionError(f"relay_events has no session to listen to: {own.stats().unrecorded}")
            lend(own)
            yield RelayEvents(own)
    finally:
        lend(None)
        set_strict(process=False)


@contextmanager
def _session(strict: bool) -> Iterator[Session]:
    """A session for the test; the one that this process has, if there is one, which then goes on."""
    found = current_session()
    if found is None or not found.is_open:
        with session(strict=strict) as own:
            yield own
        return
    try:
        yield found
    finally:
        if found.is_open:
            subscribers.deregister(SUBSCRIBER)
