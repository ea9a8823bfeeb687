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

from relay_mp._emit.callbacks import (
    EventSanitizeGuardrail,
    LlmConditionalExecutionGuardrail,
    LlmSanitizeRequestGuardrail,
    LlmSanitizeResponseGuardrail,
    ToolConditionalExecutionGuardrail,
    ToolSanitizeGuardrail,
)
from relay_mp._session.registration import deregister, register
from relay_mp.types import RuntimeRegistrationKind as _K

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
    name: str, priority: int, guardrail: EventSanitizeGuardrail | str, *, arguments: dict[str, Any] | None = None
) -> None:
    """Adds a sanitizer of marks: `guardrail(event, fields)` returns the fields to show."""
    register(_K.MARK_SANITIZE_GUARDRAIL, name, priority, guardrail, arguments)


def deregister_mark_sanitize(name: str) -> bool:
    """Takes back what `register_mark_sanitize` added. False if there is none of the name."""
    return deregister(_K.MARK_SANITIZE_GUARDRAIL, name)


def register_scope_sanitize_start(
    name: str, priority: int, guardrail: EventSanitizeGuardrail | str, *, arguments: dict[str, Any] | None = None
) -> None:
    """Adds a sanitizer of start events, those of calls included: `guardrail(event, fields)`."""
    register(_K.SCOPE_SANITIZE_START_GUARDRAIL, name, priority, guardrail, arguments)


def deregister_scope_sanitize_start(name: str) -> bool:
    """Takes back what `register_scope_sanitize_start` added. False if there is none of the name."""
    return deregister(_K.SCOPE_SANITIZE_START_GUARDRAIL, name)


def register_scope_sanitize_end(
    name: str, priority: int, guardrail: EventSanitizeGuardrail | str, *, arguments: dict[str, Any] | None = None
) -> None:
    """Adds a sanitizer of end events, those of calls included: `guardrail(event, fields)`."""
    register(_K.SCOPE_SANITIZE_END_GUARDRAIL, name, priority, guardrail, arguments)


def deregister_scope_sanitize_end(name: str) -> bool:
    """Takes back what `register_scope_sanitize_end` added. False if there is none of the name."""
    return deregister(_K.SCOPE_SANITIZE_END_GUARDRAIL, name)


def register_tool_sanitize_request(
    name: str, priority: int, guardrail: ToolSanitizeGuardrail | str, *, arguments: dict[str, Any] | None = None
) -> None:
    """Adds a sanitizer of what a tool's start shows: `guardrail(tool_name, args)` returns it."""
    register(_K.TOOL_SANITIZE_REQUEST_GUARDRAIL, name, priority, guardrail, arguments)


def deregister_tool_sanitize_request(name: str) -> bool:
    """Takes back what `register_tool_sanitize_request` added. False if there is none of the name."""
    return deregister(_K.TOOL_SANITIZE_REQUEST_GUARDRAIL, name)


def register_tool_sanitize_response(
    name: str, priority: int, guardrail: ToolSanitizeGuardrail | str, *, arguments: dict[str, Any] | None = None
) -> None:
    """Adds a sanitizer of what a tool's end shows: `guardrail(tool_name, result)` returns it."""
    register(_K.TOOL_SANITIZE_RESPONSE_GUARDRAIL, name, priority, guardrail, arguments)


def deregister_tool_sanitize_response(name: str) -> bool:
    """Takes back what `register_tool_sanitize_response` added. False if there is none of the name."""
    return deregister(_K.TOOL_SANITIZE_RESPONSE_GUARDRAIL, name)


def register_tool_conditional_execution(
    name: str,
    priority: int,
    guardrail: ToolConditionalExecutionGuardrail | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Adds a guardrail of tool calls: `guardrail(tool_name, args)` returns None, or why not."""
    register(_K.TOOL_CONDITIONAL_EXECUTION_GUARDRAIL, name, priority, guardrail, arguments)


def deregister_tool_conditional_execution(name: str) -> bool:
    """Takes back what `register_tool_conditional_execution` added. False if there is none of the name."""
    return deregister(_K.TOOL_CONDITIONAL_EXECUTION_GUARDRAIL, name)


def register_llm_sanitize_request(
    name: str, priority: int, guardrail: LlmSanitizeRequestGuardrail | str, *, arguments: dict[str, Any] | None = None
) -> None:
    """Adds a sanitizer of what an LLM call's start shows: `guardrail(request, context)`."""
    register(_K.LLM_SANITIZE_REQUEST_GUARDRAIL, name, priority, guardrail, arguments)


def deregister_llm_sanitize_request(name: str) -> bool:
    """Takes back what `register_llm_sanitize_request` added. False if there is none of the name."""
    return deregister(_K.LLM_SANITIZE_REQUEST_GUARDRAIL, name)


def register_llm_sanitize_response(
    name: str, priority: int, guardrail: LlmSanitizeResponseGuardrail | str, *, arguments: dict[str, Any] | None = None
) -> None:
    """Adds a sanitizer of what an LLM call's end shows: `guardrail(response, context)`."""
    register(_K.LLM_SANITIZE_RESPONSE_GUARDRAIL, name, priority, guardrail, arguments)


def deregister_llm_sanitize_response(name: str) -> bool:
    """Takes back what `register_llm_sanitize_response` added. False if there is none of the name."""
    return deregister(_K.LLM_SANITIZE_RESPONSE_GUARDRAIL, name)


def register_llm_conditional_execution(
    name: str,
    priority: int,
    guardrail: LlmConditionalExecutionGuardrail | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Adds a guardrail of LLM calls: `guardrail(request)` returns None, or why not."""
    register(_K.LLM_CONDITIONAL_EXECUTION_GUARDRAIL, name, priority, guardrail, arguments)


def deregister_llm_conditional_execution(name: str) -> bool:
    """Takes back what `register_llm_conditional_execution` added. False if there is none of the name."""
    return deregister(_K.LLM_CONDITIONAL_EXECUTION_GUARDRAIL, name)
