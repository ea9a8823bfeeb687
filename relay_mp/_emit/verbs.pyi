"""Types of the compiled module verbs.pyx; what each name does is said there.

`tests/native/test_stubs.py` compares the two.
"""

from collections.abc import Callable
from types import TracebackType
from typing import ParamSpec, TypeVar

from relay_mp._emit.calls import AnyHandle
from relay_mp._emit.failures import Status
from relay_mp._emit.handle import ScopeHandle
from relay_mp.types import DataSchema, Json, JsonObject, LogSeverity, ScopeAttributes, ScopeType, Timestamp

_P = ParamSpec("_P")
_R = TypeVar("_R")

def event(
    name: str,
    *,
    handle: AnyHandle | None = None,
    data: Json | None = None,
    data_schema: DataSchema | None = None,
    metadata: Json | None = None,
    severity: LogSeverity | None = None,
    timestamp: Timestamp | None = None,
) -> None: ...
def push(
    name: str,
    scope_type: ScopeType,
    *,
    handle: AnyHandle | None = None,
    attributes: ScopeAttributes | None = None,
    data: Json | None = None,
    metadata: Json | None = None,
    category_profile: JsonObject | None = None,
    input: Json | None = None,
    timestamp: Timestamp | None = None,
) -> ScopeHandle: ...
def pop(
    handle: ScopeHandle,
    *,
    output: Json | None = None,
    metadata: Json | None = None,
    category_profile: JsonObject | None = None,
    timestamp: Timestamp | None = None,
) -> None: ...
def begin(
    name: str,
    scope_type: ScopeType,
    *,
    parent: AnyHandle | None = None,
    uuid: str | None = None,
    trace: str | None = None,
    attributes: ScopeAttributes | None = None,
    data: Json | None = None,
    metadata: Json | None = None,
    category_profile: JsonObject | None = None,
    input: Json | None = None,
    timestamp: Timestamp | None = None,
) -> ScopeHandle: ...
def end(
    handle: ScopeHandle,
    *,
    output: Json | None = None,
    input: Json | None = None,
    scope_type: ScopeType | None = None,
    status: Status | None = None,
    metadata: Json | None = None,
    category_profile: JsonObject | None = None,
    timestamp: Timestamp | None = None,
) -> None: ...
def end_silently(handle: ScopeHandle) -> None: ...

class scope:
    def __init__(
        self,
        name: str,
        scope_type: ScopeType,
        *,
        handle: AnyHandle | None = None,
        attributes: ScopeAttributes | None = None,
        data: Json | None = None,
        metadata: Json | None = None,
        category_profile: JsonObject | None = None,
        input: Json | None = None,
        timestamp: Timestamp | None = None,
        end_timestamp: Timestamp | None = None,
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
