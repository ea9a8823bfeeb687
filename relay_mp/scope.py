"""Scopes and marks: the verbs that most programs need, from any thread of any process.

Full ring: emitting then waits, up to the session's `block_timeout` (10 s by default), and drops the
event if there is still no room; with `on_full="drop"` it drops at once. What was dropped is counted,
and reported in the stream, by `flush()` and by `session.stats()`. A scope whose events were dropped is
open and closed like any other.

    with scope.scope("answer", ScopeType.Agent, input={"question": q}) as handle:
        scope.event("plan made", data={"steps": 3})
        with scope.scope("search", ScopeType.Retriever):
            ...

While nobody listens, no session or no subscriber anywhere, marks are a near-free no-op that checks
nothing, and scopes keep the stack but emit nothing.

Every verb here may be called from any thread, asyncio task, process, and after fork: the current scope
belongs to the calling context, see `relay_mp._emit.context`. No verb takes a lock. Inside a
subscriber's callback they work too; what is emitted there comes later in the stream.
"""

import functools
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

from relay_mp._emit.context import (
    ScopeHandle,
    _current,
    current_scope,
    freeze,
    leave_handle,
    stack_uuids,
)
from relay_mp._emit.metrics import METRIC_SCHEMA, measurements_payload
from relay_mp._emit.producer import (
    check_handle,
    check_name,
    check_schema,
    end_scope,
    to_microseconds,
    with_severity,
)
from relay_mp._native.core import active, emit, fork_epoch, scope_local_active, uuid7
from relay_mp.errors import PayloadError, ScopeError
from relay_mp.events import KIND_MARK, KIND_START
from relay_mp.types import (
    DataSchema,
    Json,
    LogSeverity,
    MetricMeasurement,
    ScopeAttributes,
    ScopeType,
)

__all__ = ["event", "get_handle", "metric", "pop", "push", "scope"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

STATUS_KEY = "otel.status_code"
DESCRIPTION_KEY = "otel.status_description"

# inspect.CO_COROUTINE: one constant is no reason to import inspect.
_CO_COROUTINE = 0x80

# Never changed: the encoder reads them, and merging copies.
_STATUS_OK = {STATUS_KEY: "OK"}
_STATUS_UNSET = {STATUS_KEY: "UNSET"}


def get_handle() -> ScopeHandle:
    """The current scope: the innermost open one of this context.

    Returns:
        Its handle; the root's, named `root`, where no scope is open.
    """
    return current_scope()


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
) -> ScopeHandle:
    """Opens a scope, makes it the current one, and emits its start.

    Emits one event: a full ring may hold the call up, see the module. From any thread and process.

    Args:
        name: what the work is called.
        scope_type: what kind of work it is.
        handle: its parent; the current scope if left out. Also one that has ended or is another
            process's.
        attributes: flags.
        data: kept in the handle (`handle.data`), in no event.
        metadata: of the start event; the end's is merged over it.
        input: the start event's `data`.
        timestamp: timezone-aware; now if left out.

    Returns:
        The handle, to be given to `pop`.

    Raises:
        TypeError: an argument is not of its type.
        ValueError: the timestamp is naive.
        PayloadError: a payload is none; no scope was opened.
        UnicodeEncodeError: the name has a lone surrogate; no scope was opened.
    """
    return _push(name, scope_type, handle, attributes, data, metadata, input, timestamp)


def _push(
    name: str,
    scope_type: ScopeType,
    parent: ScopeHandle | None,
    attributes: ScopeAttributes | None,
    data: Any,
    metadata: Any,
    input_: Any,
    timestamp: datetime | None,
) -> ScopeHandle:
    if type(name) is not str:
        name = check_name(name)
    if type(scope_type) is not ScopeType:
        raise TypeError(f"scope_type is a {type(scope_type).__name__}; expected ScopeType")
    outer = _current.get()
    if outer is None or not outer._open:
        outer = current_scope()
    if parent is None:
        parent = outer
    else:
        check_handle(parent)
    flags = 0 if attributes is None else _flags(attributes)
    frozen_data = frozen_metadata = None
    if data is not None:
        frozen_data = freeze(data, "data") if active() else _freeze_unheard(data)
    if metadata is not None:
        frozen_metadata = freeze(metadata, "metadata") if active() else _freeze_unheard(metadata)
    uuid = uuid7()
    trace = outer._trace or uuid
    handle = ScopeHandle(
        uuid, parent._uuid, name, scope_type, flags, frozen_data, frozen_metadata, outer, trace, fork_epoch()
    )
    # 0 while nobody listens, when the core looks at nothing else.
    handle._start_us = emit(
        KIND_START,
        uuid,
        parent._uuid,
        None if timestamp is None or not active() else to_microseconds(timestamp),
        0,
        name,
        scope_type.code,
        flags,
        stack_uuids(outer) if scope_local_active() else None,
        input_,
        metadata,
        None,
        None,
    )
    _current.set(handle)
    return handle


def _flags(attributes: object) -> int:
    if not isinstance(attributes, ScopeAttributes):
        raise TypeError(
            f"attributes is a {type(attributes).__name__}; expected ScopeAttributes, "
            "such as ScopeAttributes(ScopeAttributes.PARALLEL)"
        )
    return attributes.value


def _freeze_unheard(payload: Any) -> Any:
    # While nobody listens, nothing raises for what nobody would have seen.
    try:
        return freeze(payload, "payload")
    except PayloadError:
        return None


def pop(
    handle: ScopeHandle,
    *,
    output: Json | None = None,
    metadata: Json | None = None,
    timestamp: datetime | None = None,
) -> None:
    """Ends a scope: emits its end, and goes back to the nearest open scope around it.

    Emits one event: a full ring may hold the call up, see the module. From any thread, task or context
    of the process that pushed the scope; in a context where another scope inside it is still current,
    that one goes first.

    Args:
        handle: the scope, from `push`.
        output: the end event's `data`.
        metadata: merged over the start's, one level deep; where either is no dict, it replaces it.
        timestamp: timezone-aware, kept as given even if before the start. Left out: now, and always
            later than the start.

    Raises:
        ScopeError: it has ended, is a root, another process's, or not this context's innermost.
        TypeError: an argument is not of its type; the scope stays open.
        ValueError: the timestamp is naive; the scope stays open.
        PayloadError: a payload is none; the scope stays open.
    """
    check_handle(handle)
    end_scope(handle, output, metadata, timestamp)


def event(
    name: str,
    *,
    handle: ScopeHandle | None = None,
    data: Json | None = None,
    data_schema: DataSchema | None = None,
    metadata: Json | None = None,
    severity: LogSeverity | None = None,
    timestamp: datetime | None = None,
) -> None:
    """Emits a mark: a point in time with a name. Nothing at all while nobody listens.

    Emits one event: a full ring may hold the call up, see the module. From any thread and process.

    Args:
        name: what happened.
        handle: the parent; the current scope if left out. Who sees the mark depends on the current
            scope, not on this.
        data: what is to be known about it.
        data_schema: the schema that `data` follows; keys other than `name` and `version` are dropped.
        metadata: what describes the event rather than the work.
        severity: makes it a log line; goes into metadata as `relay_mp.log.severity`.
        timestamp: timezone-aware; now if left out.

    Raises:
        TypeError: an argument is not of its type.
        ValueError: the timestamp is naive.
        PayloadError: a payload is none, or the schema lacks a string name or version.
        ScopeError: a severity is given, and metadata that is no dict.
        UnicodeEncodeError: the name has a lone surrogate.
    """
    if not active():
        return
    if type(name) is not str:
        name = check_name(name)
    if handle is not None:
        check_handle(handle)
    if data_schema is not None:
        data_schema = check_schema(data_schema)
    if severity is not None:
        metadata = with_severity(metadata, severity)
    current = _current.get()
    if current is None or not current._open:
        current = current_scope()
    emit(
        KIND_MARK,
        uuid7(),
        (handle or current)._uuid,
        None if timestamp is None else to_microseconds(timestamp),
        0,
        name,
        None,
        0,
        # Scope-local subscribers follow the stack that is in use, whatever the mark's parent.
        stack_uuids(current) if scope_local_active() else None,
        data,
        metadata,
        None,
        data_schema,
    )


def metric(
    name: str,
    measurements: Sequence[MetricMeasurement],
    *,
    handle: ScopeHandle | None = None,
    metadata: Json | None = None,
    timestamp: datetime | None = None,
) -> None:
    """Emits a mark that carries measurements, all or none. Nothing at all while nobody listens.

    Emits one event: a full ring may hold the call up, see the module. From any thread and process.

    Args:
        name: the mark's name.
        measurements: at least one. Those of the same name, but for case, agree in kind, value type and
            unit.
        handle: the parent; the current scope if left out.
        metadata: what describes the event rather than the work.
        timestamp: timezone-aware; now if left out.

    Raises:
        TypeError: an argument is not of its type.
        ValueError: the timestamp is naive.
        PayloadError: there is no measurement, or one does not hold together; the message says which.
        UnicodeEncodeError: the name has a lone surrogate.
    """
    if not active():
        return
    if type(name) is not str:
        name = check_name(name)
    if handle is not None:
        check_handle(handle)
    current = current_scope()
    emit(
        KIND_MARK,
        uuid7(),
        (handle or current)._uuid,
        None if timestamp is None else to_microseconds(timestamp),
        0,
        name,
        None,
        0,
        stack_uuids(current) if scope_local_active() else None,
        measurements_payload(measurements),
        metadata,
        None,
        METRIC_SCHEMA,
    )


class scope:
    """A scope for the length of a `with` block. It ends however the block ends, and says how.

    The end's metadata gets `otel.status_code`: OK; ERROR, with the exception's text as
    `otel.status_description`, for an Exception or a cancellation; UNSET for what ends the program, such
    as KeyboardInterrupt and GeneratorExit. There is no end `data`: use `push` and `pop` for an output.

    A child forked inside the block leaves it silently: the scope is its parent's to end.

    Emits two events: a full ring may hold the block's entry and exit up, see the module. One object
    serves any number of blocks, one after the other. As a decorator it opens a scope for each call;
    of an `async def`, for as long as the coroutine runs.

    Args:
        name: what the work is called.
        scope_type: what kind of work it is.
        handle: its parent; the current scope if left out.
        attributes: flags.
        data: kept in the handle, in no event.
        metadata: of both events.
        input: the start event's `data`.
        timestamp: of the start; timezone-aware, now if left out.
        end_timestamp: of the end, kept as given even if before the start.

    Returns:
        A context manager whose target is the scope's handle.

    Raises:
        ScopeError: on leaving, if the block popped the scope itself, or left one inside it open.
        TypeError, ValueError, PayloadError, UnicodeEncodeError: on entering, as `push`.
    """

    __slots__ = (
        "_attributes",
        "_data",
        "_end_timestamp",
        "_handle",
        "_input",
        "_metadata",
        "_name",
        "_parent",
        "_timestamp",
        "_type",
    )

    _handle: ScopeHandle | None

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
    ) -> None:
        self._name = name
        self._type = scope_type
        self._parent = handle
        self._attributes = attributes
        self._data = data
        self._metadata = metadata
        self._input = input
        self._timestamp = timestamp
        self._end_timestamp = end_timestamp
        self._handle = None

    def __enter__(self) -> ScopeHandle:
        if self._handle is not None:
            raise ScopeError(f"the block of scope {self._name!r} is running already; make another for each")
        if self._end_timestamp is not None:
            # Refused before the work, not after it, when the scope could no longer be ended.
            to_microseconds(self._end_timestamp)
        handle = self._handle = _push(
            self._name,
            self._type,
            self._parent,
            self._attributes,
            self._data,
            self._metadata,
            self._input,
            self._timestamp,
        )
        return handle

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        handle = self._handle
        if handle is None:
            raise ScopeError(f"the block of scope {self._name!r} was left without being entered")
        self._handle = None
        if handle._epoch != fork_epoch():
            leave_handle(handle)
            return
        status = _STATUS_OK if exc is None else _failure_status(exc)
        end_scope(handle, None, status, self._end_timestamp)

    def __call__(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """The function, with a scope around each of its calls."""
        if getattr(getattr(function, "__code__", None), "co_flags", 0) & _CO_COROUTINE:

            @functools.wraps(function)
            async def run_coroutine(*args: _P.args, **kwargs: _P.kwargs) -> Any:
                with self._another():
                    return await cast("Awaitable[Any]", function(*args, **kwargs))

            return cast("Callable[_P, _R]", run_coroutine)

        @functools.wraps(function)
        def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            with self._another():
                return function(*args, **kwargs)

        return run

    def _another(self) -> "scope":
        return scope(
            self._name,
            self._type,
            handle=self._parent,
            attributes=self._attributes,
            data=self._data,
            metadata=self._metadata,
            input=self._input,
            timestamp=self._timestamp,
            end_timestamp=self._end_timestamp,
        )


def _failure_status(exc: BaseException) -> dict[str, str]:
    # Whoever was cancelled by asyncio has imported it; this package does not, for its import time.
    asyncio_exceptions = sys.modules.get("asyncio.exceptions")
    if asyncio_exceptions is not None and isinstance(exc, asyncio_exceptions.CancelledError):
        return {STATUS_KEY: "ERROR", DESCRIPTION_KEY: _describe(exc) or "cancelled"}
    if isinstance(exc, Exception):
        return {STATUS_KEY: "ERROR", DESCRIPTION_KEY: _describe(exc)}
    return _STATUS_UNSET


def _describe(exc: BaseException) -> str:
    # The scope must end, and the block's own exception come through, whatever its text is like.
    try:
        return str(exc).encode("utf-8", "backslashreplace").decode("utf-8")
    except Exception:
        return f"<{type(exc).__name__}, whose text could not be had>"
