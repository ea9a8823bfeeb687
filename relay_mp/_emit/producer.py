"""From the arguments of a public verb to one call of `core.emit`: what the verbs share.

Runs in every emitting process, on the caller's thread, between `relay_mp.scope` (later tools and LLM
calls) and the native core. The core takes times as microseconds, uuids as bytes, categories by number;
here the caller's datetimes, handles and dicts become that, and what cannot is refused before anything
is emitted or any scope moves.

A full ring: `core.emit` waits, GIL released, up to the session's `block_timeout`, or drops at once, as
the session's `on_full` says; either way it returns, and counts what it dropped. It raises only for
what the caller passed.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from relay_mp._emit import scope_end
from relay_mp._emit.context import (
    ScopeHandle,
    _current,
    ended_already,
    freeze,
    leave_handle,
    require_poppable,
    stack_uuids,
    thaw,
)
from relay_mp._native.core import active, emit, fork_epoch, scope_local_active
from relay_mp.errors import PayloadError, ScopeError
from relay_mp.events import KIND_END, SEVERITY_KEY
from relay_mp.types import DataSchema, LogSeverity

__all__ = [
    "check_handle",
    "check_name",
    "check_schema",
    "end_scope",
    "merge_metadata",
    "to_microseconds",
    "with_severity",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_microseconds(timestamp: object) -> int:
    """A timezone-aware datetime as microseconds since the epoch, exactly.

    Raises:
        TypeError: it is no datetime.
        ValueError: it is naive.
    """
    if not isinstance(timestamp, datetime):
        raise TypeError(f"timestamp is a {type(timestamp).__name__}; expected a timezone-aware datetime")
    if timestamp.utcoffset() is None:
        raise ValueError(
            f"timestamp {timestamp.isoformat()} is naive; expected a timezone-aware datetime, "
            "such as datetime.now(timezone.utc)"
        )
    return (timestamp - _EPOCH) // _MICROSECOND


def check_name(name: object) -> str:
    """A name as an exact str, which is what the core takes.

    Raises:
        TypeError: it is no str.
    """
    if not isinstance(name, str):
        raise TypeError(f"name is a {type(name).__name__}; expected str")
    return str.__str__(name)


def check_handle(handle: object) -> None:
    """Refuses what is no handle.

    Raises:
        TypeError: it is no ScopeHandle.
    """
    if not isinstance(handle, ScopeHandle):
        raise TypeError(f"handle is a {type(handle).__name__}; expected ScopeHandle")


def check_schema(data_schema: object) -> DataSchema:
    """A data schema reduced to its two keys.

    Raises:
        PayloadError: it is no mapping with a string `name` and a string `version`.
    """
    if isinstance(data_schema, Mapping):
        name, version = data_schema.get("name"), data_schema.get("version")
        if isinstance(name, str) and isinstance(version, str):
            return {"name": name, "version": version}
    raise PayloadError(f"data_schema is {data_schema!r:.200}; expected a dict with string name and version")


def merge_metadata(start: Any, end: Any) -> Any:
    """An end's metadata: the end's over the start's, one level deep; a null there overwrites.

    If either is no dict, the end's replaces the start's. An end's that was left out, None, keeps it.

    Args:
        start: the start's, frozen as the handle keeps it.
        end: the end's, as the caller passed it.
    """
    if start is None:
        return end
    thawed = thaw(start)
    if end is None:
        return thawed
    if not isinstance(thawed, dict):
        return end
    if not isinstance(end, dict):
        # A dataclass, or another thing that encodes as a map, merges as one.
        end = thaw(freeze(end, "metadata"))
        if not isinstance(end, dict):
            return end
    return {**thawed, **end}


def with_severity(metadata: Any, severity: object) -> dict[str, Any]:
    """A mark's metadata with its severity in it.

    Raises:
        TypeError: the severity is no LogSeverity.
        ScopeError: the metadata is no dict, and has no place for a severity (RuntimeError, as the peer's).
    """
    if not isinstance(severity, LogSeverity):
        raise TypeError(f"severity is a {type(severity).__name__}; expected LogSeverity")
    if metadata is None:
        return {SEVERITY_KEY: severity.value}
    if not isinstance(metadata, dict):
        raise ScopeError(
            f"metadata is a {type(metadata).__name__}; expected a dict where a severity is given, to hold it"
        )
    return {**metadata, SEVERITY_KEY: severity.value}


def end_scope(handle: ScopeHandle, output: Any, metadata: Any, timestamp: object) -> None:
    """Closes a scope, emits its end, and leaves it. If the end cannot be emitted, the scope stays open.

    Raises:
        ScopeError: it may not be popped.
        PayloadError: a payload is none.
        TypeError, ValueError: the timestamp is no timezone-aware datetime.
    """
    # What the usual case, the current scope, needs to know is known without a look at the chain.
    if _current.get() is not handle or handle._epoch != fork_epoch() or handle._parent is None:
        require_poppable(handle)
    try:
        handle._open.pop()
    except IndexError:
        raise ended_already(handle, "pop") from None
    try:
        start_us = handle._start_us
        end_us = None
        if timestamp is not None and active():
            end_us = to_microseconds(timestamp)
        if handle._metadata is not None and active():
            metadata = merge_metadata(handle._metadata, metadata)
        emit(
            KIND_END,
            handle._uuid,
            handle._parent,
            end_us,
            # Strictly later than the start, also if the clock was set back or the start lies ahead.
            start_us + 1 if start_us else 0,
            handle._name,
            handle._type.code,
            handle._attributes,
            # The scope's own chain: its subscribers see its end, wherever it is popped.
            stack_uuids(handle) if scope_local_active() else None,
            output,
            metadata,
            None,
            None,
        )
    except BaseException:
        handle._open.append(True)
        raise
    leave_handle(handle)
    if scope_end.local_scopes and handle._uuid in scope_end.local_scopes:
        scope_end.end(handle._uuid)
