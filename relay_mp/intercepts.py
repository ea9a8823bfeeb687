"""Intercepts: what changes a managed call on its way to the tool or provider, and back.

    tool_request, llm_request       change the request, before the start event; with `break_chain` the rest
                                    of the chain is not called
    tool_execution, llm_execution,  wrap the call: `next_call` is the rest of it, to be awaited any number
    llm_stream_execution            of times, also at once, or not at all

Callbacks may be synchronous or asynchronous, and are called in ascending priority; within one priority the
global ones come first, then those of the scopes around (see `relay_mp.scope_local`), outer before inner,
and by name. A name is unique in its family. In place of a callable, `"package.module:attribute"` names one
that other processes can import too; with `arguments`, the attribute is called with them and returns it.

Every register function raises TypeError (an argument is not of its type), OverflowError (a priority of more
than 32 bits) and MiddlewareError, a RuntimeError (the name is taken, or what is named cannot be imported).
From any thread. What was registered before a fork holds in the child; the guide "Guardrails, intercepts,
injectors" has the other start methods.

An intercept that raises, or returns what it must not, fails the call with CallbackError. `next_call` works
while the intercept runs (a stream's: until its stream has ended), each time in a branch of the scope stack
of its own; what it raises is what the rest of the call raised. A tool's intercept returns
`ToolExecutionInterceptOutcome`, a request's `LLMRequestInterceptOutcome`.
"""

from typing import Any

from relay_mp._emit.callbacks import (
    LlmExecutionIntercept,
    LlmRequestIntercept,
    LlmStreamExecutionIntercept,
    ToolExecutionIntercept,
    ToolRequestIntercept,
)
from relay_mp._session.registration import deregister, register
from relay_mp.types import RuntimeRegistrationKind as _K

__all__ = [
    "deregister_llm_execution",
    "deregister_llm_request",
    "deregister_llm_stream_execution",
    "deregister_tool_execution",
    "deregister_tool_request",
    "register_llm_execution",
    "register_llm_request",
    "register_llm_stream_execution",
    "register_tool_execution",
    "register_tool_request",
]


def register_tool_request(
    name: str,
    priority: int,
    break_chain: bool,
    fn: ToolRequestIntercept | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Adds an intercept of tool arguments: `fn(tool_name, args)` returns those to go on with."""
    register(_K.TOOL_REQUEST_INTERCEPT, name, priority, fn, arguments, break_chain=break_chain)


def deregister_tool_request(name: str) -> bool:
    """Takes back what `register_tool_request` added. False if there is none of the name."""
    return deregister(_K.TOOL_REQUEST_INTERCEPT, name)


def register_tool_execution(
    name: str, priority: int, fn: ToolExecutionIntercept | str, *, arguments: dict[str, Any] | None = None
) -> None:
    """Adds an intercept around tools: `fn(tool_name, args, next_call)`."""
    register(_K.TOOL_EXECUTION_INTERCEPT, name, priority, fn, arguments)


def deregister_tool_execution(name: str) -> bool:
    """Takes back what `register_tool_execution` added. False if there is none of the name."""
    return deregister(_K.TOOL_EXECUTION_INTERCEPT, name)


def register_llm_request(
    name: str,
    priority: int,
    break_chain: bool,
    fn: LlmRequestIntercept | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Adds an intercept of LLM requests: `fn(name, request, annotated)`."""
    register(_K.LLM_REQUEST_INTERCEPT, name, priority, fn, arguments, break_chain=break_chain)


def deregister_llm_request(name: str) -> bool:
    """Takes back what `register_llm_request` added. False if there is none of the name."""
    return deregister(_K.LLM_REQUEST_INTERCEPT, name)


def register_llm_execution(
    name: str, priority: int, fn: LlmExecutionIntercept | str, *, arguments: dict[str, Any] | None = None
) -> None:
    """Adds an intercept around LLM calls: `fn(name, request, next_call)` returns the response."""
    register(_K.LLM_EXECUTION_INTERCEPT, name, priority, fn, arguments)


def deregister_llm_execution(name: str) -> bool:
    """Takes back what `register_llm_execution` added. False if there is none of the name."""
    return deregister(_K.LLM_EXECUTION_INTERCEPT, name)


def register_llm_stream_execution(
    name: str, priority: int, fn: LlmStreamExecutionIntercept | str, *, arguments: dict[str, Any] | None = None
) -> None:
    """Adds an intercept around streamed LLM calls: `fn(request, next_call)` returns chunks."""
    register(_K.LLM_STREAM_EXECUTION_INTERCEPT, name, priority, fn, arguments)


def deregister_llm_stream_execution(name: str) -> bool:
    """Takes back what `register_llm_stream_execution` added. False if there is none of the name."""
    return deregister(_K.LLM_STREAM_EXECUTION_INTERCEPT, name)
