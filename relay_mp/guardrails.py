"""Guardrails: what may stop a call, and what events may show of it.

    conditional_execution   runs before a managed call: returns None to allow it, or the reason against it
    sanitize_request,       change what the start and end events of tool and LLM calls show, never what the
    sanitize_response       tool or provider gets or returns
    mark_sanitize,          change `data`, `metadata` and `category_profile` of every event of their kind
    scope_sanitize_*

Callbacks may be synchronous or asynchronous, and are called in ascending priority; within one priority the
global ones come first, then those of the scopes around (see `relay_mp.scope_local`), outer before inner,
and by name. A name is unique in its family. In place of a callable, `"package.module:attribute"` names one
that other processes can import too; with `arguments`, the attribute is called with them and returns it.

Every register function raises TypeError (an argument is not of its type), OverflowError (a priority of more
than 32 bits) and MiddlewareError, a RuntimeError (the name is taken, or what is named cannot be imported).
From any thread. What was registered before a fork holds in the child; the guide "Guardrails, intercepts,
injectors" has the other start methods.

Sanitizers run in the emitting process, before anything enters shared memory, and fail closed: one that
raises, or returns what it must not, withholds the payload, and the rest of its chain is not called. A
conditional guardrail that does so fails the call. The first rejection ends the chain: the call's mark is
emitted, and RejectedError raised. Where synchronous code emits, an asynchronous sanitizer has
`RELAY_MP_MIDDLEWARE_TIMEOUT_SECONDS` (5 s) to end, in a thread of its own; a synchronous one that hangs
holds the call up.
"""

from typing import Any

from relay_mp._emit import callbacks
from relay_mp._session.registration import deregister, register
from relay_mp.types import RuntimeRegistrationKind as _Kind

# --- Generated from relay_mp/_emit/families.py by `python -m tools.generate_registrations`: change that, not this.

__all__ = [
    "deregister_llm_conditional_execution",
    "deregister_llm_sanitize_request",
    "deregister_llm_sanitize_response",
    "deregister_mark_sanitize",
    "deregister_scope_sanitize_end",
    "deregister_scope_sanitize_start",
    "deregister_tool_conditional_execution",
    "deregister_tool_sanitize_request",
    "deregister_tool_sanitize_response",
    "register_llm_conditional_execution",
    "register_llm_sanitize_request",
    "register_llm_sanitize_response",
    "register_mark_sanitize",
    "register_scope_sanitize_end",
    "register_scope_sanitize_start",
    "register_tool_conditional_execution",
    "register_tool_sanitize_request",
    "register_tool_sanitize_response",
]


def register_mark_sanitize(
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
        name: unique among the global registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        guardrail: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
    """
    register(_Kind.MARK_SANITIZE_GUARDRAIL, name, priority, guardrail, arguments)


def deregister_mark_sanitize(name: str) -> bool:
    """Removes what `register_mark_sanitize` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.
    """
    return deregister(_Kind.MARK_SANITIZE_GUARDRAIL, name)


def register_scope_sanitize_start(
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
        name: unique among the global registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        guardrail: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
    """
    register(_Kind.SCOPE_SANITIZE_START_GUARDRAIL, name, priority, guardrail, arguments)


def deregister_scope_sanitize_start(name: str) -> bool:
    """Removes what `register_scope_sanitize_start` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.
    """
    return deregister(_Kind.SCOPE_SANITIZE_START_GUARDRAIL, name)


def register_scope_sanitize_end(
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
        name: unique among the global registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        guardrail: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
    """
    register(_Kind.SCOPE_SANITIZE_END_GUARDRAIL, name, priority, guardrail, arguments)


def deregister_scope_sanitize_end(name: str) -> bool:
    """Removes what `register_scope_sanitize_end` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.
    """
    return deregister(_Kind.SCOPE_SANITIZE_END_GUARDRAIL, name)


def register_tool_sanitize_request(
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
        name: unique among the global registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        guardrail: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
    """
    register(_Kind.TOOL_SANITIZE_REQUEST_GUARDRAIL, name, priority, guardrail, arguments)


def deregister_tool_sanitize_request(name: str) -> bool:
    """Removes what `register_tool_sanitize_request` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.
    """
    return deregister(_Kind.TOOL_SANITIZE_REQUEST_GUARDRAIL, name)


def register_tool_sanitize_response(
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
        name: unique among the global registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        guardrail: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
    """
    register(_Kind.TOOL_SANITIZE_RESPONSE_GUARDRAIL, name, priority, guardrail, arguments)


def deregister_tool_sanitize_response(name: str) -> bool:
    """Removes what `register_tool_sanitize_response` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.
    """
    return deregister(_Kind.TOOL_SANITIZE_RESPONSE_GUARDRAIL, name)


def register_tool_conditional_execution(
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
        name: unique among the global registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        guardrail: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
    """
    register(_Kind.TOOL_CONDITIONAL_EXECUTION_GUARDRAIL, name, priority, guardrail, arguments)


def deregister_tool_conditional_execution(name: str) -> bool:
    """Removes what `register_tool_conditional_execution` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.
    """
    return deregister(_Kind.TOOL_CONDITIONAL_EXECUTION_GUARDRAIL, name)


def register_llm_sanitize_request(
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
        name: unique among the global registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        guardrail: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
    """
    register(_Kind.LLM_SANITIZE_REQUEST_GUARDRAIL, name, priority, guardrail, arguments)


def deregister_llm_sanitize_request(name: str) -> bool:
    """Removes what `register_llm_sanitize_request` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.
    """
    return deregister(_Kind.LLM_SANITIZE_REQUEST_GUARDRAIL, name)


def register_llm_sanitize_response(
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
        name: unique among the global registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        guardrail: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
    """
    register(_Kind.LLM_SANITIZE_RESPONSE_GUARDRAIL, name, priority, guardrail, arguments)


def deregister_llm_sanitize_response(name: str) -> bool:
    """Removes what `register_llm_sanitize_response` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.
    """
    return deregister(_Kind.LLM_SANITIZE_RESPONSE_GUARDRAIL, name)


def register_llm_conditional_execution(
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
        name: unique among the global registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        guardrail: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
    """
    register(_Kind.LLM_CONDITIONAL_EXECUTION_GUARDRAIL, name, priority, guardrail, arguments)


def deregister_llm_conditional_execution(name: str) -> bool:
    """Removes what `register_llm_conditional_execution` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.
    """
    return deregister(_Kind.LLM_CONDITIONAL_EXECUTION_GUARDRAIL, name)


# --- End of the generated part.
