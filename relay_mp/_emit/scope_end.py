"""Which scopes of this process have scope-local registrations: those whose end has to be told.

Empty in nearly every program, so that ending a scope costs one look at an empty set.
"""

from collections.abc import Callable

local_scopes: set[bytes] = set()
"""Uuids of open scopes, pushed by this process, with local registrations."""


def _nobody(_scope: bytes) -> None:
    return None


_on_end: Callable[[bytes], None] = _nobody


def set_end_hook(hook: Callable[[bytes], None]) -> None:
    """Sets who is told that a scope in `local_scopes` has ended, after its end was emitted."""
    global _on_end
    _on_end = hook


def end(scope: bytes) -> None:
    """A scope of `local_scopes` has ended."""
    local_scopes.discard(scope)
    _on_end(scope)
