"""`core.set_event_hook`: what may change an event's payloads before they are encoded."""

from collections.abc import Iterator

import pytest

import relay_mp
from relay_mp._native import core


@pytest.fixture
def _no_hook_after() -> Iterator[None]:
    yield
    core.set_event_hook(None)
    core.set_stacks_wanted(False)


pytestmark = pytest.mark.usefixtures("_no_hook_after")


def test_hook_gets_the_arguments_of_emit_and_gives_the_payloads(session, seen):
    calls = []

    def hook(*arguments):
        calls.append(arguments)
        return {"data": 1}, {"metadata": 2}, {"profile": 3}, {"name": "n", "version": "v"}

    core.set_event_hook(hook)
    relay_mp.scope.event("m", data={"secret": 1}, metadata="x")
    session.flush()
    (event,) = seen
    kind, uuid, parent, timestamp_us, name, category, attributes, stack, *payloads = calls[0]
    assert (kind, uuid.hex(), parent.hex()) == (
        core.KIND_MARK,
        event.uuid.replace("-", ""),
        event.parent_uuid.replace("-", ""),
    )
    assert (timestamp_us, name, category, attributes, stack) == (event.timestamp_us, "m", None, 0, None)
    assert payloads == [{"secret": 1}, "x", None, None]
    assert (event.data, event.metadata, event.category_profile) == ({"data": 1}, {"metadata": 2}, {"profile": 3})
    assert event.data_schema == {"name": "n", "version": "v"}


def test_hook_is_not_called_while_nobody_listens(session):
    calls = []
    core.set_event_hook(lambda *arguments: calls.append(arguments))
    relay_mp.scope.event("m")
    assert calls == []


def test_stacks_come_with_every_event_where_they_are_wanted(session, seen):
    with relay_mp.scope.scope("a", relay_mp.ScopeType.Agent) as handle:
        relay_mp.scope.event("without")
        core.set_stacks_wanted(True)
        relay_mp.scope.event("with")
        core.set_stacks_wanted(False)
    session.flush()
    stacks = {event.name: event.stack for event in seen if event.kind == "mark"}
    assert stacks["without"] is None
    assert stacks["with"][0] == handle.uuid
