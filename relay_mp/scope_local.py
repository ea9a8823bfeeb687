"""Registrations that belong to one scope: they see its subtree, in every process, and end with it."""

from collections.abc import Callable
from typing import Any

from relay_mp._emit import scope_end
from relay_mp._emit.verbs import ScopeHandle, require_open
from relay_mp._session.membership import current, current_or_default, end_local_subscriptions
from relay_mp.events import Event
from relay_mp.subscribers import check_registration

__all__ = ["deregister_subscriber", "register_subscriber"]


def register_subscriber(
    scope_handle: ScopeHandle,
    name: str,
    callback: Callable[[Event], object] | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Subscribes to all events emitted while the scope is open on the emitting stack, its end included.

    That is the emitter's active stack, not `handle=`. It holds in every process that the work went to.
    For one event, global subscribers come first, then local ones, those of outer scopes first.

    Args:
        scope_handle: an open scope of this process, or a root.
        name: unique on this scope.
        callback, arguments: as for subscribers.register.

    Raises:
        ScopeError: the scope has ended, or another process pushed it.
        TypeError, SubscriberError, SessionError: as for subscribers.register.
    """
    _require_handle(scope_handle)
    check_registration(name, callback, arguments)
    require_open(scope_handle, "register a subscriber on")
    current_or_default().register(name, callback, arguments, scope_handle._uuid)
    scope_end.watch(scope_handle._uuid, end_local_subscriptions)


def deregister_subscriber(scope_handle: ScopeHandle, name: str) -> bool:
    """Ends a local subscription; see subscribers.deregister.

    Raises:
        ScopeError: the scope has ended, or another process pushed it.
    """
    _require_handle(scope_handle)
    require_open(scope_handle, "deregister a subscriber of")
    session = current()
    return session is not None and session.deregister(name, scope_handle._uuid)


def _require_handle(handle: object) -> None:
    if not isinstance(handle, ScopeHandle):
        raise TypeError(f"scope_handle is a {type(handle).__name__}; expected ScopeHandle")
