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

from relay_mp._emit.callbacks import (
    EventMetadataInjector,
)
from relay_mp._session.registration import deregister, register
from relay_mp.types import RuntimeRegistrationKind as _K

__all__ = [
    "deregister_injector",
    "register_injector",
]


def register_injector(
    name: str, priority: int, injector: EventMetadataInjector | str, *, arguments: dict[str, Any] | None = None
) -> None:
    """Adds an injector: `injector(event)` returns metadata to add."""
    register(_K.EVENT_METADATA_INJECTOR, name, priority, injector, arguments)


def deregister_injector(name: str) -> bool:
    """Takes back what `register_injector` added. False if there is none of the name."""
    return deregister(_K.EVENT_METADATA_INJECTOR, name)
