"""What is registered, and gates that decide each time whether a registration takes part.

    list_runtime_registrations()                                  subscribers and middleware, global ones
    register_conditional_middleware_guardrail(name, kinds, registration_name, guardrail)

A gate matches global registrations by kind and effective name. It is asked each time such a registration
would be called, in the process that would call it: middleware's where the event is emitted or the call is
made, a subscriber's where the dispatcher runs (so a gate of a subscriber belongs into the owner of a session
with `dispatcher="thread"`). None lets the registration take part, a text does not. A gate that raises, or
returns anything else, lets it. Several gates of one registration are asked by name; the first text decides.
"""

from collections.abc import Callable, Iterable
from typing import TypeAlias

from relay_mp._emit.arguments import check_name
from relay_mp._emit.middleware import GLOBAL_API, Gate, registry
from relay_mp._session.membership import current_session
from relay_mp.errors import MiddlewareError, described_type
from relay_mp.types import (
    RuntimeRegistrationIdentity,
    RuntimeRegistrationKind,
    RuntimeRegistrationOwner,
    RuntimeRegistrationOwnerKind,
)

__all__ = [
    "ConditionalMiddlewareGuardrail",
    "RuntimeRegistrationIdentity",
    "RuntimeRegistrationKind",
    "RuntimeRegistrationOwner",
    "RuntimeRegistrationOwnerKind",
    "deregister_conditional_middleware_guardrail",
    "list_runtime_registrations",
    "register_conditional_middleware_guardrail",
]

ConditionalMiddlewareGuardrail: TypeAlias = Callable[[set[RuntimeRegistrationKind], str], str | None]


def register_conditional_middleware_guardrail(
    name: str,
    kinds: set[RuntimeRegistrationKind],
    registration_name: str,
    guardrail: ConditionalMiddlewareGuardrail,
) -> None:
    """Adds a gate, see the module.

    Args:
        name: the gate's, unique among gates.
        kinds: of which kinds the registrations are.
        registration_name: their effective name.
        guardrail: `guardrail(kinds, registration_name)` returns None, or why not; synchronous.

    Raises:
        TypeError: an argument is not of its type.
        MiddlewareError: the name is taken, or there are no kinds.
    """
    if not callable(guardrail):
        raise TypeError(f"guardrail is {described_type(guardrail)}; expected a callable")
    checked = frozenset(map(_check_kind, kinds))
    if not checked:
        raise MiddlewareError("kinds is empty; expected at least one RuntimeRegistrationKind")
    registry.add_gate(Gate(check_name(name), checked, check_name(registration_name), guardrail))


def deregister_conditional_middleware_guardrail(name: str) -> bool:
    """Takes a gate back. False if there is none of the name."""
    return registry.remove_gate(check_name(name))


def list_runtime_registrations(
    kinds: Iterable[RuntimeRegistrationKind] | None = None,
) -> list[RuntimeRegistrationIdentity]:
    """The global registrations of this process, and the subscribers of the session if this is its owner.

    Args:
        kinds: which kinds; all if left out.

    Returns:
        By kind, in the order of RuntimeRegistrationKind, then by name.

    Raises:
        TypeError: one of `kinds` is not a RuntimeRegistrationKind.
    """
    wanted = set(RuntimeRegistrationKind) if kinds is None else set(map(_check_kind, kinds))
    found = [
        RuntimeRegistrationIdentity(r.family.kind, r.local_name, r.name, r.owner)
        for r in sorted(registry.all(), key=lambda r: r.name)
        if r.scope is None
    ]
    found += [
        RuntimeRegistrationIdentity(RuntimeRegistrationKind.SUBSCRIBER, name, name, GLOBAL_API)
        for name in _subscribers()
    ]
    order = list(RuntimeRegistrationKind)
    return sorted((item for item in found if item.kind in wanted), key=lambda item: order.index(item.kind))


def _subscribers() -> list[str]:
    session = current_session()
    return [] if session is None else sorted(session.subscriber_names())


def _check_kind(kind: object) -> RuntimeRegistrationKind:
    if not isinstance(kind, RuntimeRegistrationKind):
        raise TypeError(f"{kind!r:.80} is {described_type(kind)}; expected RuntimeRegistrationKind")
    return kind
