"""Types of the compiled module current.pyx; what each name does is said there.

`tests/native/test_stubs.py` compares the two.
"""

import threading
from collections.abc import Callable
from contextvars import ContextVar

from relay_mp._emit.handle import ScopeHandle
from relay_mp.errors import ScopeError

_current: ContextVar[ScopeHandle | None]

class _ThreadScopes(threading.local):
    root: ScopeHandle | None
    installed: ScopeHandle | None

thread_scopes: _ThreadScopes

def set_inherited_hook(hook: Callable[[], ScopeHandle | None] | None) -> None: ...
def current_scope() -> ScopeHandle: ...
def nearest_open(handle: ScopeHandle) -> ScopeHandle: ...
def stack_uuids(handle: ScopeHandle) -> bytes: ...
def record_stack() -> bytes | None: ...
def ended_already(handle: ScopeHandle, purpose: str) -> ScopeError: ...
def require_open(handle: ScopeHandle, purpose: str) -> None: ...
