"""Types of the compiled module verbs.pyx; what each name does is said there.

`tests/native/test_stubs.py` compares the two.
"""

import threading
from collections.abc import Callable
from contextvars import ContextVar
from datetime import datetime
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from relay_mp.errors import ScopeError
from relay_mp.types import DataSchema, Json, LogSeverity, ScopeAttributes, ScopeType

_P = ParamSpec("_P")
_R = TypeVar("_R")

ROOT_NAME: str
FOREIGN: int

class ScopeHandle:
    _stack: bytes | None
    def __init__(
        self,
        uuid: bytes,
        parent: bytes | None,
        name: str,
        scope_type: ScopeType,
        attributes: int,
        data: Any,
        metadata: Any,
        outer: ScopeHandle | None,
        trace: bytes | None,
        epoch: int,
    ) -> None: ...
    @property
    def uuid(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def scope_type(self) -> ScopeType: ...
    @property
    def attributes(self) -> ScopeAttributes: ...
    @property
    def parent_uuid(self) -> str | None: ...
    @property
    def data(self) -> Json: ...
    @property
    def metadata(self) -> Json: ...
    @property
    def _uuid(self) -> bytes: ...
    @property
    def _parent(self) -> bytes | None: ...
    @property
    def _trace(self) -> bytes | None: ...
    @property
    def _name(self) -> str: ...
    @property
    def _type(self) -> ScopeType: ...
    @property
    def _attributes(self) -> int: ...
    @property
    def _data(self) -> Any: ...
    @property
    def _metadata(self) -> Any: ...
    @property
    def _outer(self) -> ScopeHandle | None: ...
    @property
    def _epoch(self) -> int: ...
    @property
    def _open(self) -> bool: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, _memo: object) -> Self: ...

_current: ContextVar[ScopeHandle | None]

class _ThreadScopes(threading.local):
    root: ScopeHandle | None
    installed: ScopeHandle | None

thread_scopes: _ThreadScopes

def portable(handle: ScopeHandle) -> tuple[Any, ...]: ...
def make_foreign_handle(
    uuid: bytes,
    parent: bytes | None,
    name: str,
    type_code: int,
    attributes: int = 0,
    trace: bytes | None = None,
    data: Any = None,
    metadata: Any = None,
    outer: ScopeHandle | None = None,
) -> ScopeHandle: ...
def make_root() -> ScopeHandle: ...
def set_inherited_hook(hook: Callable[[], ScopeHandle | None] | None) -> None: ...
def current_scope() -> ScopeHandle: ...
def nearest_open(handle: ScopeHandle) -> ScopeHandle: ...
def stack_uuids(handle: ScopeHandle) -> bytes: ...
def record_stack() -> bytes | None: ...
def ended_already(handle: ScopeHandle, purpose: str) -> ScopeError: ...
def require_open(handle: ScopeHandle, purpose: str) -> None: ...
def check_handle(handle: object) -> None: ...
def event(
    name: str,
    *,
    handle: ScopeHandle | None = None,
    data: Json | None = None,
    data_schema: DataSchema | None = None,
    metadata: Json | None = None,
    severity: LogSeverity | None = None,
    timestamp: datetime | None = None,
) -> None: ...
def push(
    name: str,
    scope_type: ScopeType,
    *,
    handle: ScopeHandle | None = None,
    attributes: ScopeAttributes | None = None,
    data: Json | None = None,
    metadata: Json | None = None,
    input: Json | None = None,
    timestamp: datetime | None = None,
) -> ScopeHandle: ...
def pop(
    handle: ScopeHandle,
    *,
    output: Json | None = None,
    metadata: Json | None = None,
    timestamp: datetime | None = None,
) -> None: ...

class scope:
    def __init__(
        self,
        name: str,
        scope_type: ScopeType,
        *,
        handle: ScopeHandle | None = None,
        attributes: ScopeAttributes | None = None,
        data: Json | None = None,
        metadata: Json | None = None,
        input: Json | None = None,
        timestamp: datetime | None = None,
        end_timestamp: datetime | None = None,
    ) -> None: ...
    def __enter__(self) -> ScopeHandle: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def __call__(self, function: Callable[_P, _R]) -> Callable[_P, _R]: ...
    def _another(self) -> scope: ...
