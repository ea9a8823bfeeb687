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

from relay_mp._emit import callbacks, scope_end
from relay_mp._emit.current import require_open
from relay_mp._emit.handle import ScopeHandle
from relay_mp._session.membership import current_or_default, current_session, end_local_subscriptions
from relay_mp._session.registration import deregister, register
from relay_mp.errors import described_type
from relay_mp.events import Event
from relay_mp.subscribers import check_registration
from relay_mp.types import RuntimeRegistrationKind as _Kind

# --- Generated from relay_mp/_emit/families.py by `python -m tools.generate_registrations`: change that, not this.

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
    injector: callbacks.EventMetadataInjector | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Registers an injector of metadata.

    `injector(event)` returns a dict to add to the event's metadata.
    If it raises, or returns something else, nothing is added.

    Args:
        scope_handle: an open scope of this process, or a root.
        name: unique among this scope's registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        injector: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
        ScopeError: the scope has ended, or another process pushed it.
    """
    register(_Kind.EVENT_METADATA_INJECTOR, name, priority, injector, arguments, scope_handle)


def deregister_event_metadata_injector(scope_handle: ScopeHandle, name: str) -> bool:
    """Removes what `register_event_metadata_injector` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.

    Raises:
        TypeError: scope_handle is not a ScopeHandle.
        ScopeError: the scope has ended, or another process pushed it.
    """
    return deregister(_Kind.EVENT_METADATA_INJECTOR, name, scope_handle)


def register_mark_sanitize(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    guardrail: callbacks.EventSanitizeGuardrail | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Registers a sanitizer of marks.

    `guardrail(event, fields)` returns the fields to show.
    If it raises, or returns something else, the event shows no payload.

    Args:
        scope_handle: an open scope of this process, or a root.
        name: unique among this scope's registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        guardrail: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
        ScopeError: the scope has ended, or another process pushed it.
    """
    register(_Kind.MARK_SANITIZE_GUARDRAIL, name, priority, guardrail, arguments, scope_handle)


def deregister_mark_sanitize(scope_handle: ScopeHandle, name: str) -> bool:
    """Removes what `register_mark_sanitize` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.

    Raises:
        TypeError: scope_handle is not a ScopeHandle.
        ScopeError: the scope has ended, or another process pushed it.
    """
    return deregister(_Kind.MARK_SANITIZE_GUARDRAIL, name, scope_handle)


def register_scope_sanitize_start(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    guardrail: callbacks.EventSanitizeGuardrail | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Registers a sanitizer of the start events of scopes and calls.

    `guardrail(event, fields)` returns the fields to show.
    If it raises, or returns something else, the event shows no payload.

    Args:
        scope_handle: an open scope of this process, or a root.
        name: unique among this scope's registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        guardrail: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
        ScopeError: the scope has ended, or another process pushed it.
    """
    register(_Kind.SCOPE_SANITIZE_START_GUARDRAIL, name, priority, guardrail, arguments, scope_handle)


def deregister_scope_sanitize_start(scope_handle: ScopeHandle, name: str) -> bool:
    """Removes what `register_scope_sanitize_start` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.

    Raises:
        TypeError: scope_handle is not a ScopeHandle.
        ScopeError: the scope has ended, or another process pushed it.
    """
    return deregister(_Kind.SCOPE_SANITIZE_START_GUARDRAIL, name, scope_handle)


def register_scope_sanitize_end(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    guardrail: callbacks.EventSanitizeGuardrail | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Registers a sanitizer of the end events of scopes and calls.

    `guardrail(event, fields)` returns the fields to show.
    If it raises, or returns something else, the event shows no payload.

    Args:
        scope_handle: an open scope of this process, or a root.
        name: unique among this scope's registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        guardrail: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
        ScopeError: the scope has ended, or another process pushed it.
    """
    register(_Kind.SCOPE_SANITIZE_END_GUARDRAIL, name, priority, guardrail, arguments, scope_handle)


def deregister_scope_sanitize_end(scope_handle: ScopeHandle, name: str) -> bool:
    """Removes what `register_scope_sanitize_end` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.

    Raises:
        TypeError: scope_handle is not a ScopeHandle.
        ScopeError: the scope has ended, or another process pushed it.
    """
    return deregister(_Kind.SCOPE_SANITIZE_END_GUARDRAIL, name, scope_handle)


def register_tool_sanitize_request(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    guardrail: callbacks.ToolSanitizeGuardrail | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Registers a sanitizer of the arguments in tool calls' start events.

    `guardrail(tool_name, args)` returns the arguments to show.
    If it raises, or returns something else, the event shows no payload.

    Args:
        scope_handle: an open scope of this process, or a root.
        name: unique among this scope's registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        guardrail: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
        ScopeError: the scope has ended, or another process pushed it.
    """
    register(_Kind.TOOL_SANITIZE_REQUEST_GUARDRAIL, name, priority, guardrail, arguments, scope_handle)


def deregister_tool_sanitize_request(scope_handle: ScopeHandle, name: str) -> bool:
    """Removes what `register_tool_sanitize_request` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.

    Raises:
        TypeError: scope_handle is not a ScopeHandle.
        ScopeError: the scope has ended, or another process pushed it.
    """
    return deregister(_Kind.TOOL_SANITIZE_REQUEST_GUARDRAIL, name, scope_handle)


def register_tool_sanitize_response(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    guardrail: callbacks.ToolSanitizeGuardrail | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Registers a sanitizer of the results in tool calls' end events.

    `guardrail(tool_name, result)` returns the result to show.
    If it raises, or returns something else, the event shows no payload.

    Args:
        scope_handle: an open scope of this process, or a root.
        name: unique among this scope's registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        guardrail: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
        ScopeError: the scope has ended, or another process pushed it.
    """
    register(_Kind.TOOL_SANITIZE_RESPONSE_GUARDRAIL, name, priority, guardrail, arguments, scope_handle)


def deregister_tool_sanitize_response(scope_handle: ScopeHandle, name: str) -> bool:
    """Removes what `register_tool_sanitize_response` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.

    Raises:
        TypeError: scope_handle is not a ScopeHandle.
        ScopeError: the scope has ended, or another process pushed it.
    """
    return deregister(_Kind.TOOL_SANITIZE_RESPONSE_GUARDRAIL, name, scope_handle)


def register_tool_conditional_execution(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    guardrail: callbacks.ToolConditionalExecutionGuardrail | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Registers a guardrail that can reject tool calls.

    `guardrail(tool_name, args)` returns the reason to reject one, or None.
    If it raises, or returns something else, the call fails.

    Args:
        scope_handle: an open scope of this process, or a root.
        name: unique among this scope's registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        guardrail: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
        ScopeError: the scope has ended, or another process pushed it.
    """
    register(_Kind.TOOL_CONDITIONAL_EXECUTION_GUARDRAIL, name, priority, guardrail, arguments, scope_handle)


def deregister_tool_conditional_execution(scope_handle: ScopeHandle, name: str) -> bool:
    """Removes what `register_tool_conditional_execution` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.

    Raises:
        TypeError: scope_handle is not a ScopeHandle.
        ScopeError: the scope has ended, or another process pushed it.
    """
    return deregister(_Kind.TOOL_CONDITIONAL_EXECUTION_GUARDRAIL, name, scope_handle)


def register_tool_request(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    break_chain: bool,
    fn: callbacks.ToolRequestIntercept | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Registers an intercept of tool calls' arguments.

    `fn(tool_name, args)` returns the arguments to go on with.
    If it raises, or returns something else, the call fails.

    Args:
        scope_handle: an open scope of this process, or a root.
        name: unique among this scope's registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        break_chain: whether the rest of the chain is left out after it.
        fn: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
        ScopeError: the scope has ended, or another process pushed it.
    """
    register(_Kind.TOOL_REQUEST_INTERCEPT, name, priority, fn, arguments, scope_handle, break_chain=break_chain)


def deregister_tool_request(scope_handle: ScopeHandle, name: str) -> bool:
    """Removes what `register_tool_request` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.

    Raises:
        TypeError: scope_handle is not a ScopeHandle.
        ScopeError: the scope has ended, or another process pushed it.
    """
    return deregister(_Kind.TOOL_REQUEST_INTERCEPT, name, scope_handle)


def register_tool_execution(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    fn: callbacks.ToolExecutionIntercept | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Registers an intercept around tool calls.

    `fn(tool_name, args, next_call)` returns a `ToolExecutionInterceptOutcome`.
    If it raises, or returns something else, the call fails.

    Args:
        scope_handle: an open scope of this process, or a root.
        name: unique among this scope's registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        fn: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
        ScopeError: the scope has ended, or another process pushed it.
    """
    register(_Kind.TOOL_EXECUTION_INTERCEPT, name, priority, fn, arguments, scope_handle)


def deregister_tool_execution(scope_handle: ScopeHandle, name: str) -> bool:
    """Removes what `register_tool_execution` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.

    Raises:
        TypeError: scope_handle is not a ScopeHandle.
        ScopeError: the scope has ended, or another process pushed it.
    """
    return deregister(_Kind.TOOL_EXECUTION_INTERCEPT, name, scope_handle)


def register_llm_sanitize_request(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    guardrail: callbacks.LlmSanitizeRequestGuardrail | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Registers a sanitizer of the requests in LLM calls' start events.

    `guardrail(request, context)` returns the `LLMRequest` to show, or None.
    If it raises, or returns something else, the event shows no payload.

    Args:
        scope_handle: an open scope of this process, or a root.
        name: unique among this scope's registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        guardrail: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
        ScopeError: the scope has ended, or another process pushed it.
    """
    register(_Kind.LLM_SANITIZE_REQUEST_GUARDRAIL, name, priority, guardrail, arguments, scope_handle)


def deregister_llm_sanitize_request(scope_handle: ScopeHandle, name: str) -> bool:
    """Removes what `register_llm_sanitize_request` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.

    Raises:
        TypeError: scope_handle is not a ScopeHandle.
        ScopeError: the scope has ended, or another process pushed it.
    """
    return deregister(_Kind.LLM_SANITIZE_REQUEST_GUARDRAIL, name, scope_handle)


def register_llm_sanitize_response(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    guardrail: callbacks.LlmSanitizeResponseGuardrail | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Registers a sanitizer of the responses in LLM calls' end events.

    `guardrail(response, context)` returns the response to show, or None.
    If it raises, or returns something else, the event shows no payload.

    Args:
        scope_handle: an open scope of this process, or a root.
        name: unique among this scope's registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        guardrail: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
        ScopeError: the scope has ended, or another process pushed it.
    """
    register(_Kind.LLM_SANITIZE_RESPONSE_GUARDRAIL, name, priority, guardrail, arguments, scope_handle)


def deregister_llm_sanitize_response(scope_handle: ScopeHandle, name: str) -> bool:
    """Removes what `register_llm_sanitize_response` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.

    Raises:
        TypeError: scope_handle is not a ScopeHandle.
        ScopeError: the scope has ended, or another process pushed it.
    """
    return deregister(_Kind.LLM_SANITIZE_RESPONSE_GUARDRAIL, name, scope_handle)


def register_llm_conditional_execution(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    guardrail: callbacks.LlmConditionalExecutionGuardrail | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Registers a guardrail that can reject LLM calls.

    `guardrail(request)` returns the reason to reject one, or None.
    If it raises, or returns something else, the call fails.

    Args:
        scope_handle: an open scope of this process, or a root.
        name: unique among this scope's registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        guardrail: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
        ScopeError: the scope has ended, or another process pushed it.
    """
    register(_Kind.LLM_CONDITIONAL_EXECUTION_GUARDRAIL, name, priority, guardrail, arguments, scope_handle)


def deregister_llm_conditional_execution(scope_handle: ScopeHandle, name: str) -> bool:
    """Removes what `register_llm_conditional_execution` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.

    Raises:
        TypeError: scope_handle is not a ScopeHandle.
        ScopeError: the scope has ended, or another process pushed it.
    """
    return deregister(_Kind.LLM_CONDITIONAL_EXECUTION_GUARDRAIL, name, scope_handle)


def register_llm_request(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    break_chain: bool,
    fn: callbacks.LlmRequestIntercept | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Registers an intercept of LLM requests.

    `fn(name, request, annotated)` returns an `LLMRequestInterceptOutcome`.
    If it raises, or returns something else, the call fails.

    Args:
        scope_handle: an open scope of this process, or a root.
        name: unique among this scope's registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        break_chain: whether the rest of the chain is left out after it.
        fn: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
        ScopeError: the scope has ended, or another process pushed it.
    """
    register(_Kind.LLM_REQUEST_INTERCEPT, name, priority, fn, arguments, scope_handle, break_chain=break_chain)


def deregister_llm_request(scope_handle: ScopeHandle, name: str) -> bool:
    """Removes what `register_llm_request` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.

    Raises:
        TypeError: scope_handle is not a ScopeHandle.
        ScopeError: the scope has ended, or another process pushed it.
    """
    return deregister(_Kind.LLM_REQUEST_INTERCEPT, name, scope_handle)


def register_llm_execution(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    fn: callbacks.LlmExecutionIntercept | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Registers an intercept around LLM calls.

    `fn(name, request, next_call)` returns the response.
    If it raises, or returns something else, the call fails.

    Args:
        scope_handle: an open scope of this process, or a root.
        name: unique among this scope's registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        fn: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
        ScopeError: the scope has ended, or another process pushed it.
    """
    register(_Kind.LLM_EXECUTION_INTERCEPT, name, priority, fn, arguments, scope_handle)


def deregister_llm_execution(scope_handle: ScopeHandle, name: str) -> bool:
    """Removes what `register_llm_execution` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.

    Raises:
        TypeError: scope_handle is not a ScopeHandle.
        ScopeError: the scope has ended, or another process pushed it.
    """
    return deregister(_Kind.LLM_EXECUTION_INTERCEPT, name, scope_handle)


def register_llm_stream_execution(
    scope_handle: ScopeHandle,
    name: str,
    priority: int,
    fn: callbacks.LlmStreamExecutionIntercept | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Registers an intercept around streamed LLM calls.

    `fn(request, next_call)` returns an asynchronous iterator of chunks.
    If it raises, or returns something else, the call fails.

    Args:
        scope_handle: an open scope of this process, or a root.
        name: unique among this scope's registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        fn: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
        ScopeError: the scope has ended, or another process pushed it.
    """
    register(_Kind.LLM_STREAM_EXECUTION_INTERCEPT, name, priority, fn, arguments, scope_handle)


def deregister_llm_stream_execution(scope_handle: ScopeHandle, name: str) -> bool:
    """Removes what `register_llm_stream_execution` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.

    Raises:
        TypeError: scope_handle is not a ScopeHandle.
        ScopeError: the scope has ended, or another process pushed it.
    """
    return deregister(_Kind.LLM_STREAM_EXECUTION_INTERCEPT, name, scope_handle)


# --- End of the generated part.


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
    session = current_session()
    return session is not None and session.deregister(name, scope_handle._uuid)


def _require_handle(handle: object) -> None:
    if not isinstance(handle, ScopeHandle):
        raise TypeError(f"scope_handle is {described_type(handle)}; expected ScopeHandle")
