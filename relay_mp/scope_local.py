"""Registrations that belong to one scope: they see its subtree, and end with it.

Subscribers see it in every process. Middleware takes part in what is emitted and called while its scope is
open on the emitting stack, besides the global middleware, in the order that `relay_mp.guardrails` tells;
it is this process's, its forked children's, and, if it is named, that of every worker of the session.

The middleware functions are those of `relay_mp.guardrails`, `relay_mp.intercepts` and
`relay_mp.event_metadata`, with the scope's handle first. A name is unique in its family on its scope. They
raise ScopeError, a RuntimeError, where the scope has ended or another process pushed it, besides what those
raise.
"""

from collections.abc import Callable
from typing import Any

from relay_mp._emit import scope_end
from relay_mp._emit.callbacks import (
    EventMetadataInjector,
    EventSanitizeGuardrail,
    LlmConditionalExecutionGuardrail,
    LlmExecutionIntercept,
    LlmRequestIntercept,
    LlmSanitizeRequestGuardrail,
    LlmSanitizeResponseGuardrail,
    LlmStreamExecutionIntercept,
    ToolConditionalExecutionGuardrail,
    ToolExecutionIntercept,
    ToolRequestIntercept,
    ToolSanitizeGuardrail,
)
from relay_mp._emit.verbs import ScopeHandle, require_open
from relay_mp._session.membership import current, current_or_default, end_local_subscriptions
from relay_mp._session.registration import deregister, register
from relay_mp.events import Event
from relay_mp.subscribers import check_registration
from relay_mp.types import RuntimeRegistrationKind as _K

__all__ = [
    "deregister_event_metadata_injector",
    "deregister_llm_conditional_execution",
    "deregister_llm_execution",
    "deregister_llm_request",
    "deregister_llm_sanitize_request",
    "deregister_llm_sanitize_response",
    "deregister_llm_stream_execution",
    "deregister_mark_sanitize",
    "deregister_scope_sanitize_end",
    "deregister_scope_sanitize_start",
    "deregister_subscriber",
    "deregister_tool_conditional_execution",
    "deregister_tool_execution",
    "deregister_tool_request",
    "deregister_tool_sanitize_request",
    "deregister_tool_sanitize_response",
    "register_event_metadata_injector",
    "register_llm_conditional_execution",
    "register_llm_execution",
    "register_llm_request",
    "register_llm_sanitize_request",
    "register_llm_sanitize_response",
    "register_llm_stream_execution",
    "register_mark_sanitize",
    "register_scope_sanitize_end",
    "register_scope_sanitize_start",
    "register_subscriber",
    "register_tool_conditional_execution",
    "register_tool_execution",
    "register_tool_request",
    "register_tool_sanitize_request",
    "register_tool_sanitize_response",
]


def register_event_metadata_injector(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    injector: EventMetadataInjector | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Adds an injector: `injector(event)` returns metadata to add."""
    register(_K.EVENT_METADATA_INJECTOR, name, priority, injector, arguments, scope_handle)


def deregister_event_metadata_injector(scope_handle: ScopeHandle, name: str) -> bool:
    """Takes back what `register_event_metadata_injector` added. False if there is none of the name."""
    return deregister(_K.EVENT_METADATA_INJECTOR, name, scope_handle)


def register_mark_sanitize(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    guardrail: EventSanitizeGuardrail | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Adds a sanitizer of marks: `guardrail(event, fields)` returns the fields to show."""
    register(_K.MARK_SANITIZE_GUARDRAIL, name, priority, guardrail, arguments, scope_handle)


def deregister_mark_sanitize(scope_handle: ScopeHandle, name: str) -> bool:
    """Takes back what `register_mark_sanitize` added. False if there is none of the name."""
    return deregister(_K.MARK_SANITIZE_GUARDRAIL, name, scope_handle)


def register_scope_sanitize_start(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    guardrail: EventSanitizeGuardrail | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Adds a sanitizer of start events, those of calls included: `guardrail(event, fields)`."""
    register(_K.SCOPE_SANITIZE_START_GUARDRAIL, name, priority, guardrail, arguments, scope_handle)


def deregister_scope_sanitize_start(scope_handle: ScopeHandle, name: str) -> bool:
    """Takes back what `register_scope_sanitize_start` added. False if there is none of the name."""
    return deregister(_K.SCOPE_SANITIZE_START_GUARDRAIL, name, scope_handle)


def register_scope_sanitize_end(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    guardrail: EventSanitizeGuardrail | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Adds a sanitizer of end events, those of calls included: `guardrail(event, fields)`."""
    register(_K.SCOPE_SANITIZE_END_GUARDRAIL, name, priority, guardrail, arguments, scope_handle)


def deregister_scope_sanitize_end(scope_handle: ScopeHandle, name: str) -> bool:
    """Takes back what `register_scope_sanitize_end` added. False if there is none of the name."""
    return deregister(_K.SCOPE_SANITIZE_END_GUARDRAIL, name, scope_handle)


def register_tool_sanitize_request(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    guardrail: ToolSanitizeGuardrail | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Adds a sanitizer of what a tool's start shows: `guardrail(tool_name, args)` returns it."""
    register(_K.TOOL_SANITIZE_REQUEST_GUARDRAIL, name, priority, guardrail, arguments, scope_handle)


def deregister_tool_sanitize_request(scope_handle: ScopeHandle, name: str) -> bool:
    """Takes back what `register_tool_sanitize_request` added. False if there is none of the name."""
    return deregister(_K.TOOL_SANITIZE_REQUEST_GUARDRAIL, name, scope_handle)


def register_tool_sanitize_response(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    guardrail: ToolSanitizeGuardrail | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Adds a sanitizer of what a tool's end shows: `guardrail(tool_name, result)` returns it."""
    register(_K.TOOL_SANITIZE_RESPONSE_GUARDRAIL, name, priority, guardrail, arguments, scope_handle)


def deregister_tool_sanitize_response(scope_handle: ScopeHandle, name: str) -> bool:
    """Takes back what `register_tool_sanitize_response` added. False if there is none of the name."""
    return deregister(_K.TOOL_SANITIZE_RESPONSE_GUARDRAIL, name, scope_handle)


def register_tool_conditional_execution(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    guardrail: ToolConditionalExecutionGuardrail | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Adds a guardrail of tool calls: `guardrail(tool_name, args)` returns None, or why not."""
    register(_K.TOOL_CONDITIONAL_EXECUTION_GUARDRAIL, name, priority, guardrail, arguments, scope_handle)


def deregister_tool_conditional_execution(scope_handle: ScopeHandle, name: str) -> bool:
    """Takes back what `register_tool_conditional_execution` added. False if there is none of the name."""
    return deregister(_K.TOOL_CONDITIONAL_EXECUTION_GUARDRAIL, name, scope_handle)


def register_llm_sanitize_request(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    guardrail: LlmSanitizeRequestGuardrail | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Adds a sanitizer of what an LLM call's start shows: `guardrail(request, context)`."""
    register(_K.LLM_SANITIZE_REQUEST_GUARDRAIL, name, priority, guardrail, arguments, scope_handle)


def deregister_llm_sanitize_request(scope_handle: ScopeHandle, name: str) -> bool:
    """Takes back what `register_llm_sanitize_request` added. False if there is none of the name."""
    return deregister(_K.LLM_SANITIZE_REQUEST_GUARDRAIL, name, scope_handle)


def register_llm_sanitize_response(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    guardrail: LlmSanitizeResponseGuardrail | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Adds a sanitizer of what an LLM call's end shows: `guardrail(response, context)`."""
    register(_K.LLM_SANITIZE_RESPONSE_GUARDRAIL, name, priority, guardrail, arguments, scope_handle)


def deregister_llm_sanitize_response(scope_handle: ScopeHandle, name: str) -> bool:
    """Takes back what `register_llm_sanitize_response` added. False if there is none of the name."""
    return deregister(_K.LLM_SANITIZE_RESPONSE_GUARDRAIL, name, scope_handle)


def register_llm_conditional_execution(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    guardrail: LlmConditionalExecutionGuardrail | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Adds a guardrail of LLM calls: `guardrail(request)` returns None, or why not."""
    register(_K.LLM_CONDITIONAL_EXECUTION_GUARDRAIL, name, priority, guardrail, arguments, scope_handle)


def deregister_llm_conditional_execution(scope_handle: ScopeHandle, name: str) -> bool:
    """Takes back what `register_llm_conditional_execution` added. False if there is none of the name."""
    return deregister(_K.LLM_CONDITIONAL_EXECUTION_GUARDRAIL, name, scope_handle)


def register_tool_request(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    break_chain: bool,
    fn: ToolRequestIntercept | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Adds an intercept of tool arguments: `fn(tool_name, args)` returns those to go on with."""
    register(_K.TOOL_REQUEST_INTERCEPT, name, priority, fn, arguments, scope_handle, break_chain)


def deregister_tool_request(scope_handle: ScopeHandle, name: str) -> bool:
    """Takes back what `register_tool_request` added. False if there is none of the name."""
    return deregister(_K.TOOL_REQUEST_INTERCEPT, name, scope_handle)


def register_tool_execution(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    fn: ToolExecutionIntercept | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Adds an intercept around tools: `fn(tool_name, args, next_call)`."""
    register(_K.TOOL_EXECUTION_INTERCEPT, name, priority, fn, arguments, scope_handle)


def deregister_tool_execution(scope_handle: ScopeHandle, name: str) -> bool:
    """Takes back what `register_tool_execution` added. False if there is none of the name."""
    return deregister(_K.TOOL_EXECUTION_INTERCEPT, name, scope_handle)


def register_llm_request(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    break_chain: bool,
    fn: LlmRequestIntercept | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Adds an intercept of LLM requests: `fn(name, request, annotated)`."""
    register(_K.LLM_REQUEST_INTERCEPT, name, priority, fn, arguments, scope_handle, break_chain)


def deregister_llm_request(scope_handle: ScopeHandle, name: str) -> bool:
    """Takes back what `register_llm_request` added. False if there is none of the name."""
    return deregister(_K.LLM_REQUEST_INTERCEPT, name, scope_handle)


def register_llm_execution(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    fn: LlmExecutionIntercept | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Adds an intercept around LLM calls: `fn(name, request, next_call)` returns the response."""
    register(_K.LLM_EXECUTION_INTERCEPT, name, priority, fn, arguments, scope_handle)


def deregister_llm_execution(scope_handle: ScopeHandle, name: str) -> bool:
    """Takes back what `register_llm_execution` added. False if there is none of the name."""
    return deregister(_K.LLM_EXECUTION_INTERCEPT, name, scope_handle)


def register_llm_stream_execution(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    fn: LlmStreamExecutionIntercept | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Adds an intercept around streamed LLM calls: `fn(request, next_call)` returns chunks."""
    register(_K.LLM_STREAM_EXECUTION_INTERCEPT, name, priority, fn, arguments, scope_handle)


def deregister_llm_stream_execution(scope_handle: ScopeHandle, name: str) -> bool:
    """Takes back what `register_llm_stream_execution` added. False if there is none of the name."""
    return deregister(_K.LLM_STREAM_EXECUTION_INTERCEPT, name, scope_handle)


def register_subscriber(
    scope_handle: ScopeHandle,
    name: str,
    callback: Callable[[Event], object] | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Subscribes to all events emitted while the scope is open on the emitting stack, its end included.

    That is the emitter's active stack, not `handle=`. It holds in every process that the work went to.
    For one event, global subscribers come first, then local ones, those of outer scopes first.

    Args:
        scope_handle: an open scope of this process, or a root.
        name: unique on this scope.
        callback, arguments: as for subscribers.register.

    Raises:
        ScopeError: the scope has ended, or another process pushed it.
        TypeError, SubscriberError, SessionError: as for subscribers.register.
    """
    _require_handle(scope_handle)
    check_registration(name, callback, arguments)
    require_open(scope_handle, "register a subscriber on")
    current_or_default().register(name, callback, arguments, scope_handle._uuid)
    scope_end.watch(scope_handle._uuid, end_local_subscriptions)


def deregister_subscriber(scope_handle: ScopeHandle, name: str) -> bool:
    """Ends a local subscription; see subscribers.deregister.

    Raises:
        ScopeError: the scope has ended, or another process pushed it.
    """
    _require_handle(scope_handle)
    require_open(scope_handle, "deregister a subscriber of")
    session = current()
    return session is not None and session.deregister(name, scope_handle._uuid)


def _require_handle(handle: object) -> None:
    if not isinstance(handle, ScopeHandle):
        raise TypeError(f"scope_handle is a {type(handle).__name__}; expected ScopeHandle")
