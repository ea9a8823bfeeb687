"""Types of the compiled module verbs.pyx; what each name does is said there.

`tests/native/test_stubs.py` compares the two.
"""

from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import ParamSpec, TypeVar

from relay_mp._emit.handle import ScopeHandle
from relay_mp.types import DataSchema, Json, LogSeverity, ScopeAttributes, ScopeType

_P = ParamSpec("_P")
_R = TypeVar("_R")

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
def end_silently(handle: ScopeHandle) -> None: ...

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
