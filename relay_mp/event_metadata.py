"""Injectors: what adds metadata to every event.

Callbacks may be synchronous or asynchronous, and are called in ascending priority; within one priority the
global ones come first, then those of the scopes around (see `relay_mp.scope_local`), outer before inner,
and by name. A name is unique in its family. In place of a callable, `"package.module:attribute"` names one
that other processes can import too; with `arguments`, the attribute is called with them and returns it.

Every register function raises TypeError (an argument is not of its type), OverflowError (a priority of more
than 32 bits) and MiddlewareError, a RuntimeError (the name is taken, or what is named cannot be imported).
From any thread. What was registered before a fork holds in the child; the guide "Guardrails, intercepts,
injectors" has the other start methods.

An injector sees each event as it is so far and returns a dict: keys of letters, digits, `_` and `-`, in
parts joined by single dots, to strings, numbers, bools or lists of one of these. What is there already
stays. It fails open: one that raises, or returns what it must not, adds nothing. Injectors run before
sanitizers, in the emitting process, and only for what somebody listens to.
"""

from typing import Any

from relay_mp._emit import callbacks
from relay_mp._session.registration import deregister, register
from relay_mp.types import RuntimeRegistrationKind as _Kind

# --- Generated from relay_mp/_emit/families.py by `python -m tools.generate_registrations`: change that, not this.

__all__ = [
    "deregister_injector",
    "register_injector",
]


def register_injector(
    name: str,
    priority: int,
    injector: callbacks.EventMetadataInjector | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Registers an injector of metadata.

    `injector(event)` returns a dict to add to the event's metadata.
    If it raises, or returns something else, nothing is added.

    Args:
        name: unique among the global registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        injector: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
    """
    register(_Kind.EVENT_METADATA_INJECTOR, name, priority, injector, arguments)


def deregister_injector(name: str) -> bool:
    """Removes what `register_injector` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.
    """
    return deregister(_Kind.EVENT_METADATA_INJECTOR, name)


# --- End of the generated part.
