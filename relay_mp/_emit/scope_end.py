"""Which scopes of this process have scope-local registrations: those whose end has to be told.

Empty in nearly every program, so that ending a scope costs one look at an empty dict.
"""

from collections.abc import Callable

local_scopes: dict[bytes, tuple[Callable[[bytes], None], ...]] = {}
"""Open scopes, pushed by this process, with local registrations, and whom to tell of their end."""


def watch(scope: bytes, on_end: Callable[[bytes], None]) -> None:
    """`on_end(scope)` is called once the scope's end has been emitted; once, however often it is asked for."""
    told = local_scopes.get(scope, ())
    if on_end not in told:
        local_scopes[scope] = (*told, on_end)


def end(scope: bytes) -> None:
    """A scope of `local_scopes` has ended."""
    for on_end in local_scopes.pop(scope, ()):
        on_end(scope)
