"""Tool calls: a start and an end event around a piece of work, and the middleware that guards it.

    result = await tools.execute("search", {"query": q}, search)        managed: the whole pipeline
    result = tools.execute_sync("search", {"query": q}, search)         the same for synchronous code

    handle = tools.call("search", {"query": q})                         manual: the two events
    tools.call_end(handle, ToolExecutionResult({"hits": 3}))

A managed call asks the conditional guardrails, passes the arguments through the request intercepts, emits
the start, runs the tool through the execution intercepts, and emits the end. Sanitizers change what the
events show, never what the tool gets or returns. See `relay_mp.guardrails` and `relay_mp.intercepts`.

A managed call returns what the tool returned, and raises what it, or a middleware, raised: that very exception.
It is a scope: while the tool runs, it is the current one, so that what the tool emits stands below it. A manual call
is not: what is emitted between `call` and `call_end` is under the scope that the call was made in.

Full ring: each event may hold the call up to the session's `block_timeout`, and is dropped and counted
after that; with `on_full="drop"` at once. While nobody listens, no event is made; guardrails and intercepts run
all the same.

Every verb may be called from any thread, asyncio task and process, and after fork. A handle may be ended
by another process than the one that made it.
"""

import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from relay_mp._emit.arguments import check_name, thaw, with_outcome
from relay_mp._emit.calls import AnyHandle, ToolExecutionInterceptOutcome, ToolExecutionResult, ToolHandle, check_type
from relay_mp._emit.failures import STATUS_OK, Status
from relay_mp._emit.families import FAMILIES
from relay_mp._emit.handle import ScopeHandle
from relay_mp._emit.managed import (
    Inside,
    NextCall,
    begin_call,
    check_guardrails,
    copy_payload,
    copy_to_go_on_with,
    emit_marks,
    end_call,
    fail_call,
    intercepted,
    managed_metadata,
    manual_metadata,
    parent_of,
    reject_mark,
    returned,
    sanitize,
    through_intercepts,
)
from relay_mp._emit.middleware import Registration, registry, visible
from relay_mp._emit.settle import AWAIT, BLOCK, REFUSE, loop_is_running, of_program, run_now, settle
from relay_mp._native.core import active
from relay_mp.errors import RejectedError, described_type
from relay_mp.types import Json, RuntimeRegistrationKind, ScopeType, Timestamp, ToolAttributes

__all__ = ["call", "call_end", "conditional_execution", "execute", "execute_sync", "request_intercepts"]

_T = TypeVar("_T")

_TOOL = ScopeType.Tool.code
_GUARDRAILS = FAMILIES[RuntimeRegistrationKind.TOOL_CONDITIONAL_EXECUTION_GUARDRAIL]
_REQUESTS = FAMILIES[RuntimeRegistrationKind.TOOL_REQUEST_INTERCEPT]
_EXECUTIONS = FAMILIES[RuntimeRegistrationKind.TOOL_EXECUTION_INTERCEPT]
_REQUEST_SANITIZERS = FAMILIES[RuntimeRegistrationKind.TOOL_SANITIZE_REQUEST_GUARDRAIL]
_RESPONSE_SANITIZERS = FAMILIES[RuntimeRegistrationKind.TOOL_SANITIZE_RESPONSE_GUARDRAIL]

_NO_PROFILE: dict[str, Any] = {}


def call(
    name: str,
    args: Json,
    *,
    handle: AnyHandle | None = None,
    attributes: ToolAttributes | None = None,
    data: Json | None = None,
    metadata: Json | None = None,
    tool_call_id: str | None = None,
    timestamp: Timestamp | None = None,
) -> ToolHandle:
    """Begins a tool call that the caller runs: emits its start. No guardrail or intercept is asked.

    Args:
        name: the tool.
        args: its arguments: the start event's `data`, sanitized.
        handle: the scope that it is under; the current one if left out.
        attributes: flags.
        data: kept in the handle (`handle.data`), in no event.
        metadata: of both events.
        tool_call_id: the provider's name for the call; goes into `category_profile`.
        timestamp: a timezone-aware datetime, or nanoseconds since the epoch; now if left out.

    Returns:
        The handle, to be given to `call_end`.

    Raises:
        TypeError: an argument is not of its type.
        ValueError: the timestamp is naive.
        PayloadError: a payload holds a value that cannot be recorded; nothing was emitted.
        UnicodeEncodeError: the name has a lone surrogate.
    """
    if type(name) is not str:
        name = check_name(name)
    parent = parent_of(handle)
    bits, profile = _bits(attributes), _profile(tool_call_id)
    shown: Any = args
    if active() and registry.tools:
        shown = run_now(_sanitized(_REQUEST_SANITIZERS, name, args, BLOCK))
    return begin_call(ToolHandle, _TOOL, name, parent, bits, data, metadata, profile, shown, timestamp)


def call_end(
    handle: ToolHandle,
    result: ToolExecutionResult[Any],
    *,
    data: Json | None = None,
    metadata: Json | None = None,
    status: Status | None = None,
    timestamp: Timestamp | None = None,
) -> None:
    """Ends a tool call: emits its end. Called twice, it emits two.

    Args:
        handle: the call, from `call`.
        result: its result is the end event's `data`, sanitized; its annotation goes into
            `category_profile.tool_result_annotation`.
        data: the end event's `data` where the result, or what a sanitizer made of it, is None.
        metadata: merged over the start's, one level deep; where either is not a dict, it replaces it.
        status: how it ended: "OK", "ERROR" or "UNSET", or the exception that ended it. Nothing is said if left out.
        timestamp: as for `call`, kept as given. Left out: now, and always later than the start.

    Raises:
        TypeError: an argument is not of its type.
        ValueError: the timestamp is naive.
        PayloadError: a payload holds a value that cannot be recorded; nothing was emitted.
    """
    check_type(handle, ToolHandle, "handle")
    check_type(result, ToolExecutionResult, "result")
    if not active():
        return
    if status is not None:
        metadata = with_outcome(metadata, status, None)
    shown = result.result
    if registry.tools:
        shown = run_now(_sanitized(_RESPONSE_SANITIZERS, handle._name, shown, BLOCK))
    profile = _end_profile(handle, result)
    end_call(handle, _TOOL, shown, manual_metadata(handle, metadata), profile, timestamp, data)


async def execute(
    name: str,
    args: Json,
    func: Callable[[Any], ToolExecutionResult[_T] | Awaitable[ToolExecutionResult[_T]]],
    *,
    handle: AnyHandle | None = None,
    attributes: ToolAttributes | None = None,
    data: Json | None = None,
    metadata: Json | None = None,
    tool_call_id: str | None = None,
) -> ToolExecutionResult[_T]:
    """Runs a tool through the managed pipeline, see the module.

    The end's metadata gets `otel.status_code`: OK; ERROR, with `error.type` and the exception's type, message and
    stack trace, for an exception or a cancellation; UNSET for what ends the program.

    A synchronous tool runs in the event loop's thread, and holds up the loop while it runs: it may belong to that
    thread, as a connection to SQLite does, and a thread for each call costs ten times what the call does. For a tool
    that takes long, `await asyncio.to_thread(tools.execute_sync, name, args, func)` runs the whole call elsewhere,
    under the same scope.

    What the tool or a middleware raises passes unchanged.

    Args:
        name: the tool.
        args: its arguments.
        func: the tool: `func(args)`, synchronous or asynchronous.
        handle: the scope that it is under; the current one if left out.
        attributes: flags.
        data: the end event's `data` where the result, or what a sanitizer made of it, is None, and where the
            tool failed. No sanitizer sees it.
        metadata: of all the call's events, its guardrails' included.
        tool_call_id: the provider's name for the call; goes into `category_profile`.

    Returns:
        What the tool, or an execution intercept, returned.

    Raises:
        RejectedError: a guardrail said no; the tool was not run.
        CallbackError: the tool or a middleware returned what it must not.
        TypeError: an argument is not of its type.
        PayloadError: in strict mode, a payload cannot be recorded.
    """
    return await _execute(name, args, func, handle, attributes, data, metadata, tool_call_id, AWAIT)


def execute_sync(
    name: str,
    args: Json,
    func: Callable[[Any], ToolExecutionResult[_T]],
    *,
    handle: AnyHandle | None = None,
    attributes: ToolAttributes | None = None,
    data: Json | None = None,
    metadata: Json | None = None,
    tool_call_id: str | None = None,
) -> ToolExecutionResult[_T]:
    """`execute` for synchronous code, with or without a running event loop.

    Asynchronous guardrails and sanitizers run in a thread, each for at most `RELAY_MP_MIDDLEWARE_TIMEOUT_SECONDS`. An
    asynchronous execution intercept takes part as long as it waits for nothing but `next_call`.

    It raises what `execute` does, too.

    Args:
        name, args, handle, attributes, data, metadata, tool_call_id: as for `execute`.
        func: the tool: `func(args)`, synchronous.

    Returns:
        What the tool, or an execution intercept, returned.

    Raises:
        MiddlewareError: the tool or an execution intercept waits for something: use `await execute(...)`.
    """
    result: ToolExecutionResult[_T] = run_now(
        _execute(name, args, func, handle, attributes, data, metadata, tool_call_id, BLOCK)
    )
    return result


async def _execute(
    name: str,
    args: Any,
    func: Callable[[Any], Any],
    handle: AnyHandle | None,
    attributes: ToolAttributes | None,
    data: Any,
    metadata: Any,
    tool_call_id: str | None,
    mode: int,
) -> ToolExecutionResult[Any]:
    if type(name) is not str:
        name = check_name(name)
    parent = parent_of(handle)
    bits, profile = _bits(attributes), _profile(tool_call_id)
    active()  # takes over what the session has installed for its processes
    if registry.tools:
        return await _execute_guarded(name, args, func, parent, bits, data, metadata, profile, mode)
    call = begin_call(ToolHandle, _TOOL, name, parent, bits, data, metadata, profile, args, None)
    with Inside(call):
        try:
            result: Any = func(args)
            if type(result) is not ToolExecutionResult:
                result = await _result(name, result, mode)
            _end(call, result, result._result)
        except BaseException as error:
            fail_call(call, _TOOL, error, thaw(call._data))
            raise
    return result  # type: ignore[no-any-return]


async def _result(name: str, result: Any, mode: int) -> ToolExecutionResult[Any]:
    result = await settle(result, of_program(mode))
    if not isinstance(result, ToolExecutionResult):
        raise returned(result, f"tool {name!r}", "ToolExecutionResult, such as ToolExecutionResult(payload)")
    return result


def _end(call: ToolHandle, result: ToolExecutionResult[Any], shown: Any) -> None:
    if call.is_copy:
        return
    profile = call._profile if result._annotation is None else _end_profile(call, result)
    end_call(call, _TOOL, shown, managed_metadata(call, STATUS_OK), profile, fallback=thaw(call._data))


async def _execute_guarded(
    name: str,
    args: Any,
    func: Callable[[Any], Any],
    parent: ScopeHandle,
    bits: int,
    data: Any,
    metadata: Any,
    profile: dict[str, Any],
    mode: int,
) -> ToolExecutionResult[Any]:
    try:
        await _ask_guardrails(name, args, parent, metadata, mode)
    except RejectedError as error:
        reject_mark(name, parent, error, metadata)
        raise
    args = await _intercept_request(name, args, mode)
    shown = await _sanitized(_REQUEST_SANITIZERS, name, args, mode)
    call = begin_call(ToolHandle, _TOOL, name, parent, bits, data, metadata, profile, shown, None)
    marks: list[Any] = []
    with Inside(call):
        try:
            result = await _run(name, args, func, marks, mode)
            shown = await _sanitized(_RESPONSE_SANITIZERS, name, result._result, mode)
            _end(call, result, shown)
        except BaseException as error:
            fail_call(call, _TOOL, error, thaw(call._data))
            raise
    emit_marks(marks, call._uuid)
    return result


async def _run(
    name: str, args: Any, func: Callable[[Any], Any], marks: list[Any], mode: int
) -> ToolExecutionResult[Any]:
    async def innermost(value: Any) -> ToolExecutionResult[Any]:
        return await _result(name, func(value), mode)

    def arguments(value: Any, next_call: NextCall) -> tuple[Any, ...]:
        return name, copy_to_go_on_with(value, "args"), next_call

    def check(registration: Registration, outcome: Any) -> ToolExecutionResult[Any]:
        if not isinstance(outcome, ToolExecutionInterceptOutcome):
            raise returned(outcome, f"intercept {registration.name!r}", "ToolExecutionInterceptOutcome")
        marks.extend(outcome.pending_marks)
        return ToolExecutionResult(outcome.result, outcome.annotation)

    return await through_intercepts(visible(_EXECUTIONS), args, arguments, check, innermost)  # type: ignore[no-any-return]


# --------------------------------------------------------------------------------- parts of the pipeline


def request_intercepts(name: str, args: Json) -> Any:
    """Passes arguments through the request intercepts, and does nothing else. No event.

    Args:
        name: the tool.
        args: its arguments.

    Returns:
        The arguments that the last intercept returned; in a running event loop an awaitable of them.

    Raises:
        MiddlewareError: an intercept is asynchronous, and no event loop runs. What an intercept raises passes.
    """
    name = check_name(name)
    active()  # takes over what the session has installed for its processes
    if loop_is_running():
        return _intercept_request(name, args, AWAIT)
    return run_now(_intercept_request(name, args, REFUSE))


def conditional_execution(name: str, args: Json) -> Any:
    """Asks the conditional guardrails, and does nothing else. Each emits its pair of events.

    Args:
        name: the tool.
        args: its arguments.

    Returns:
        None if all allow it; in a running event loop an awaitable of that.

    Raises:
        RejectedError: one said no.
        MiddlewareError: one is asynchronous, and no event loop runs. What a guardrail raises passes.
        CallbackError: an answer is neither None nor a text.
    """
    name = check_name(name)
    parent = parent_of(None)
    active()  # takes over what the session has installed for its processes
    if loop_is_running():
        return _ask_guardrails(name, args, parent, None, AWAIT)
    return run_now(_ask_guardrails(name, args, parent, None, REFUSE))


async def _ask_guardrails(name: str, args: Any, parent: ScopeHandle, metadata: Any, mode: int) -> None:
    def arguments() -> tuple[Any, ...]:
        return name, copy_payload(args, "args")

    await check_guardrails(_GUARDRAILS, name, arguments, parent, metadata, mode)


async def _intercept_request(name: str, args: Any, mode: int) -> Any:
    for registration in visible(_REQUESTS):
        args = await intercepted(args, functools.partial(registration.callback, name), mode)
        if registration.break_chain:
            break
    return args


async def _sanitized(family: Any, name: str, payload: Any, mode: int) -> Any:
    if not visible(family):
        return payload

    def check(value: Any) -> Any:
        return copy_payload(value, "payload")

    def arguments(value: Any) -> tuple[Any, ...]:
        return name, check(value)

    # What the caller passed is checked here: it is not the sanitizer that fails.
    payload = copy_payload(payload, "data")
    return await sanitize(family, payload, arguments, check, mode, none_withholds=False)


# --------------------------------------------------------------------------------------------- arguments


def _bits(attributes: object) -> int:
    if attributes is None:
        return 0
    if not isinstance(attributes, ToolAttributes):
        raise TypeError(f"attributes is {described_type(attributes)}; expected ToolAttributes")
    return attributes.record_bits


def _profile(tool_call_id: object) -> dict[str, Any]:
    if tool_call_id is None:
        return _NO_PROFILE
    check_type(tool_call_id, str, "tool_call_id")
    return {"tool_call_id": tool_call_id}


def _end_profile(call: ToolHandle, result: ToolExecutionResult[Any]) -> dict[str, Any]:
    if result._annotation is None:
        return call._profile
    return {**call._profile, "tool_result_annotation": result._annotation}
