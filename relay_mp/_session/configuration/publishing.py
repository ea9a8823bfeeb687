"""The owner's side: what it registers is written to the segment, as a new version of the table.

    registry.exchange ─▶ changed ─▶ a row for each registration ─▶ segment.store_configuration

A registration keeps its number as long as it is registered. If the table cannot be stored, the change of the registry
is taken back: what is active in the owner is what the other processes have.
"""

import contextlib
from collections.abc import Sequence

from relay_mp._deliver import named
from relay_mp._emit.arguments import freeze_setting, thaw
from relay_mp._emit.middleware import Registration, registry
from relay_mp._native import core
from relay_mp._native.segments import Segment
from relay_mp._plugins.components import Component
from relay_mp._session import inheritance
from relay_mp._session.configuration.state import state
from relay_mp._session.configuration.table import Row, encode
from relay_mp.errors import SubscriberError
from relay_mp.types import RuntimeRegistrationOwner

__all__ = ["own", "share"]


class _Published:
    """What rows are made from besides the registrations. Changed under the registry's lock."""

    def __init__(self) -> None:
        self.last_number = 0
        self.components: dict[RuntimeRegistrationOwner, Component] = {}


_published = _Published()


def own(segment: Segment) -> None:
    """This process has started a session: what it has registered so far is shared, and every change to it.

    Raises:
        ConfigurationError: there is no room for it.
        PayloadError: arguments of a registration are not JSON.
    """
    with registry.lock:
        state.own(segment)
        _publish(segment)


def share(components: Sequence[Component]) -> None:
    """Says what the plugin components are of which registrations are shared from now on."""
    _published.components = {component.owner: component for component in components}


def _changed(_removed: Sequence[Registration], _added: Sequence[Registration]) -> None:
    segment = state.open_segment
    if state.is_owner and segment is not None:
        _publish(segment)


def _publish(segment: Segment) -> None:
    shared_before, last_number_before = state.shared, _published.last_number
    state.shared = _numbered(registry.all())
    try:
        rows = tuple(_row(number, registration) for number, registration in state.shared.items())
        version = segment.store_configuration(encode(rows))
    except BaseException:
        state.shared, _published.last_number = shared_before, last_number_before
        raise
    state.rows = rows
    core.set_configuration_seen(version)
    inheritance.publish(segment.path)  # multiprocessing may have been imported since


def _numbered(registrations: Sequence[Registration]) -> dict[int, Registration]:
    known = {id(registration): number for number, registration in state.shared.items()}
    shared = {}
    for registration in registrations:
        number = known.get(id(registration))
        if number is None:
            number = _published.last_number = _published.last_number + 1
        shared[number] = registration
    return shared


def _row(number: int, registration: Registration) -> Row:
    target, component = registration.target, _published.components.get(registration.owner)
    arguments = None if registration.arguments is None else thaw(freeze_setting(registration.arguments, "arguments"))
    if target is None and component is None:
        with contextlib.suppress(SubscriberError):
            target = named.name_of(registration.callback)
    return Row(
        number,
        registration.family.kind.value,
        registration.name,
        registration.local_name,
        registration.priority,
        registration.break_chain,
        registration.scope,
        target,
        arguments,
        component,
    )


registry.on_change(_changed)
