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

from collections.abc import Sequence

from relay_mp._emit.arguments import check_name, to_microseconds
from relay_mp._emit.calls import AnyHandle
from relay_mp._emit.context import use_scope as use
from relay_mp._emit.current import current_scope
from relay_mp._emit.handle import ScopeHandle, scope_handle
from relay_mp._emit.metrics import METRIC_SCHEMA, measurements_payload
from relay_mp._emit.verbs import begin, end, event, pop, push, scope
from relay_mp._native.core import active
from relay_mp.types import Json, MetricMeasurement, Timestamp

__all__ = ["begin", "end", "event", "get_handle", "metric", "pop", "push", "scope", "use"]


def get_handle() -> ScopeHandle:
    """The current scope: the innermost open one of this context.

    Returns:
        Its handle; the root's, named `root`, where no scope is open.
    """
    return current_scope()


def metric(
    name: str,
    measurements: Sequence[MetricMeasurement],
    *,
    handle: AnyHandle | None = None,
    metadata: Json | None = None,
    timestamp: Timestamp | None = None,
) -> None:
    """Emits a mark that carries measurements, all or none. Nothing at all while nobody listens.

    Emits one event: a full ring may hold the call up, see the module. From any thread and process.

    Args:
        name: the mark's name.
        measurements: at least one. Those of the same name, but for case, agree in kind, value type and
            unit.
        handle: the parent; the current scope if left out.
        metadata: what describes the event rather than the work.
        timestamp: a timezone-aware datetime, or nanoseconds since the epoch; now if left out.

    Raises:
        TypeError: an argument is not of its type.
        ValueError: the timestamp is naive.
        PayloadError: there is no measurement, or one does not hold together; the message says which. One whose value
            is NaN or infinite is left out and counted (`stats().replaced`), unless in strict mode.
        UnicodeEncodeError: the name has a lone surrogate.
    """
    if not active():
        return
    if type(name) is not str:
        name = check_name(name)
    if handle is not None:
        scope_handle(handle)  # refused likewise
    if timestamp is not None:
        to_microseconds(timestamp)  # refused before the measurements are looked at
    payload = measurements_payload(measurements)
    if payload is None:
        return
    event(name, handle=handle, data=payload, data_schema=METRIC_SCHEMA, metadata=metadata, timestamp=timestamp)
