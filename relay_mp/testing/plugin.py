"""The pytest plugin: one fixture. Loaded by pytest through the entry point `pytest11`."""

from collections.abc import Iterator

import pytest

from relay_mp._session.membership import session
from relay_mp.testing import RelayEvents


@pytest.fixture
def relay_events() -> Iterator[RelayEvents]:
    """A session of the test's own, and the events that it and its child processes emit: see relay_mp.testing."""
    with session() as own:
        yield RelayEvents(own)
