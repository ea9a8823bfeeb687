"""What the public functions that register middleware share: arguments checked, names resolved.

guardrails, intercepts, event_metadata, scope_local  ->  here  ->  the registry of relay_mp._emit
"""

import operator
from collections.abc import Callable
from typing import Any

from relay_mp._deliver import named
from relay_mp._emit.arguments import check_name
from relay_mp._emit.current import require_open
from relay_mp._emit.families import FAMILIES
from relay_mp._emit.handle import ScopeHandle
from relay_mp._emit.middleware import Registration, registry
from relay_mp._native import core
from relay_mp.errors import MiddlewareError, SubscriberError, described_type
from relay_mp.types import RuntimeRegistrationKind

__all__ = ["deregister", "register"]

_PRIORITIES = range(-(2**31), 2**31)


def register(
    kind: RuntimeRegistrationKind,
    name: str,
    priority: int,
    callback: object,
    arguments: dict[str, Any] | None = None,
    scope_handle: ScopeHandle | None = None,
    break_chain: bool = False,
) -> None:
    """Registers one callback of one family.

    Args:
        kind: the family.
        name: unique in the family; on a scope, there.
        priority: lower runs first, -2**31 to 2**31 - 1.
        callback: a callable, or "package.module:attribute", imported now.
        arguments: with a name: the attribute is called with these and returns the callback.
        scope_handle: an open scope of this process that it belongs to; None: global.
        break_chain: ends the chain after it.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or the callback cannot be imported.
        ScopeError: the scope has ended, or another process pushed it.
    """
    family = FAMILIES[kind]
    name = check_name(name)
    priority = operator.index(priority)
    if priority not in _PRIORITIES:
        raise OverflowError(f"priority is {priority}; expected -2**31 to 2**31 - 1")
    scope = None
    if scope_handle is not None:
        scope = _open_scope(scope_handle, "register middleware on")
    target = callback if isinstance(callback, str) else None
    registration = Registration(
        family=family,
        name=name,
        priority=priority,
        callback=_callable(callback, arguments, family.kind.value),
        break_chain=bool(break_chain),
        scope=scope,
        target=target,
        arguments=arguments,
    )
    core.active()  # takes over what the session has installed for its processes
    registry.exchange(add=(registration,))


def deregister(kind: RuntimeRegistrationKind, name: str, scope_handle: ScopeHandle | None = None) -> bool:
    """Takes one back. Calls that have begun go on with what they have resolved.

    Returns:
        False if there is none of the name.

    Raises:
        ScopeError: the scope has ended, or another process pushed it.
    """
    scope = None
    if scope_handle is not None:
        scope = _open_scope(scope_handle, "deregister middleware of")
    return registry.remove(FAMILIES[kind], name, scope)


def _open_scope(handle: object, purpose: str) -> bytes:
    if not isinstance(handle, ScopeHandle):
        raise TypeError(f"scope_handle is {described_type(handle)}; expected ScopeHandle")
    require_open(handle, purpose)
    return handle._uuid


def _callable(callback: object, arguments: dict[str, Any] | None, what: str) -> Callable[..., Any]:
    if isinstance(callback, str):
        try:
            return named.resolve(callback, arguments, what)
        except SubscriberError as error:
            raise MiddlewareError(str(error)) from error.__cause__
    if not callable(callback):
        raise TypeError(f'the {what} is {described_type(callback)}; expected a callable or "package.module:attribute"')
    if arguments is not None:
        raise TypeError('arguments are for a callback that is named, "package.module:attribute"')
    return callback
