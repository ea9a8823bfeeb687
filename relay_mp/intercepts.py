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

from relay_mp._emit import callbacks
from relay_mp._session.registration import deregister, register
from relay_mp.types import RuntimeRegistrationKind as _Kind

# --- Generated from relay_mp/_emit/families.py by `python -m tools.generate_registrations`: change that, not this.

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
    fn: callbacks.ToolRequestIntercept | str,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Registers an intercept of tool calls' arguments.

    `fn(tool_name, args)` returns the arguments to go on with.
    If it raises, or returns something else, the call fails.

    Args:
        name: unique among the global registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        break_chain: whether the rest of the chain is left out after it.
        fn: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
    """
    register(_Kind.TOOL_REQUEST_INTERCEPT, name, priority, fn, arguments, break_chain=break_chain)


def deregister_tool_request(name: str) -> bool:
    """Removes what `register_tool_request` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.
    """
    return deregister(_Kind.TOOL_REQUEST_INTERCEPT, name)


def register_tool_execution(
    name: str, priority: int, fn: callbacks.ToolExecutionIntercept | str, *, arguments: dict[str, Any] | None = None
) -> None:
    """Registers an intercept around tool calls.

    `fn(tool_name, args, next_call)` returns a `ToolExecutionInterceptOutcome`.
    If it raises, or returns something else, the call fails.

    Args:
        name: unique among the global registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        fn: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
    """
    register(_Kind.TOOL_EXECUTION_INTERCEPT, name, priority, fn, arguments)


def deregister_tool_execution(name: str) -> bool:
    """Removes what `register_tool_execution` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.
    """
    return deregister(_Kind.TOOL_EXECUTION_INTERCEPT, name)


def register_llm_request(
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
        name: unique among the global registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        break_chain: whether the rest of the chain is left out after it.
        fn: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
    """
    register(_Kind.LLM_REQUEST_INTERCEPT, name, priority, fn, arguments, break_chain=break_chain)


def deregister_llm_request(name: str) -> bool:
    """Removes what `register_llm_request` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.
    """
    return deregister(_Kind.LLM_REQUEST_INTERCEPT, name)


def register_llm_execution(
    name: str, priority: int, fn: callbacks.LlmExecutionIntercept | str, *, arguments: dict[str, Any] | None = None
) -> None:
    """Registers an intercept around LLM calls.

    `fn(name, request, next_call)` returns the response.
    If it raises, or returns something else, the call fails.

    Args:
        name: unique among the global registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        fn: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
    """
    register(_Kind.LLM_EXECUTION_INTERCEPT, name, priority, fn, arguments)


def deregister_llm_execution(name: str) -> bool:
    """Removes what `register_llm_execution` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.
    """
    return deregister(_Kind.LLM_EXECUTION_INTERCEPT, name)


def register_llm_stream_execution(
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
        name: unique among the global registrations of this family.
        priority: the lowest runs first; -2**31 to 2**31 - 1.
        fn: synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.
        arguments: only with a name: the attribute is called with them, and returns the callback.

    Raises:
        TypeError: an argument is not of its type.
        OverflowError: the priority has more than 32 bits.
        MiddlewareError: the name is taken, or what is named cannot be imported.
    """
    register(_Kind.LLM_STREAM_EXECUTION_INTERCEPT, name, priority, fn, arguments)


def deregister_llm_stream_execution(name: str) -> bool:
    """Removes what `register_llm_stream_execution` registered. Calls in progress may still use it.

    Returns:
        False if there is none of that name.
    """
    return deregister(_Kind.LLM_STREAM_EXECUTION_INTERCEPT, name)


# --- End of the generated part.
