"""Callbacks that may be synchronous or asynchronous, run from either kind of code: the one runner.

Runs in every emitting process. Middleware chains are written once, as coroutines, and every callback's
result goes through `settle`. Whether a callback is asynchronous is seen by what it returns.

    managed calls       await the chain; `settle(result, AWAIT)` awaits there
    helpers             `run_now(chain)`; `settle(result, REFUSE)`: an awaitable is an error
    events, manual      `run_now(chain)`; `settle(result, BLOCK)`: an awaitable is run to its end, in a
    calls               thread and an event loop of its own, for at most `timeout_seconds()`

A synchronous callback that hangs holds up whoever called: nothing can stop it.
"""

import os
import sys
import threading
from collections.abc import Coroutine
from contextlib import suppress
from contextvars import copy_context
from typing import Any

from relay_mp.errors import MiddlewareError

__all__ = [
    "AWAIT",
    "BLOCK",
    "REFUSE",
    "is_awaitable",
    "loop_is_running",
    "of_program",
    "run_now",
    "settle",
    "timeout_seconds",
]

AWAIT, REFUSE, BLOCK = range(3)

TIMEOUT_SECONDS = 5.0
"""How long an asynchronous callback may hold up an event that is emitted by synchronous code."""

TIMEOUT_VARIABLE = "RELAY_MP_MIDDLEWARE_TIMEOUT_SECONDS"


def timeout_seconds() -> float:
    """TIMEOUT_SECONDS, or what TIMEOUT_VARIABLE says, in seconds.

    Raises:
        MiddlewareError: the variable holds no number from 0 to 86400.
    """
    given = os.environ.get(TIMEOUT_VARIABLE)
    if not given:
        return TIMEOUT_SECONDS
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise MiddlewareError(f"{TIMEOUT_VARIABLE}={given!r}; expected a number of seconds from 0 to 86400")
    return seconds


def is_awaitable(value: object) -> bool:
    """Whether a callback's result is to be awaited."""
    return hasattr(type(value), "__await__")


def loop_is_running() -> bool:
    """Whether the calling thread runs an event loop. Does not import asyncio: what does has done so."""
    events = sys.modules.get("asyncio.events")
    return events is not None and events._get_running_loop() is not None


async def settle(result: Any, mode: int) -> Any:
    """A callback's result, awaited if it is to be.

    Raises:
        MiddlewareError: it is to be awaited, and the caller is synchronous; or it took too long.
    """
    if not is_awaitable(result):
        return result
    if mode == AWAIT:
        return await result
    if mode == BLOCK:
        return _run_apart(result)
    _close(result)
    raise MiddlewareError(
        "an asynchronous callback needs an asynchronous caller: make the callback synchronous, or await the "
        "asynchronous form of the call in a running event loop"
    )


def of_program(mode: int) -> int:
    """The mode for what is the program's own, a provider or a tool: a synchronous call refuses what is to be awaited.

    It is refused before any of it has run: no request goes out whose answer nobody can wait for.
    """
    return AWAIT if mode == AWAIT else REFUSE


def run_now(chain: Coroutine[Any, Any, Any]) -> Any:
    """Runs a chain in synchronous code: its own steps do not wait, because its mode is not AWAIT.

    Raises:
        MiddlewareError: a callback in it waits for something that needs an event loop.
        StopIteration: a callback raised it. A coroutine can pass it on only as the cause of a RuntimeError.
    """
    try:
        chain.send(None)
        waits = MiddlewareError(
            "a callback of a synchronous call waits for something asynchronous: make the callback synchronous, or use "
            "the asynchronous form of the call"
        )
        chain.throw(waits)  # where it waits, so that its end is recorded with this error
    except StopIteration as stop:
        return stop.value
    except RuntimeError as error:
        found = _carried(error)
    else:
        found = waits
    with suppress(RuntimeError):  # what it does at its end waits, too
        chain.close()
    raise found


def _carried(error: RuntimeError) -> BaseException:
    """The StopIteration that the interpreter has made this error of, as it left the chain itself; else the error."""
    is_made_there = error.__traceback__ is not None and error.__traceback__.tb_next is None
    return error.__cause__ if is_made_there and isinstance(error.__cause__, StopIteration) else error


def _close(awaitable: Any) -> None:
    # Never started: no warning that it was never awaited.
    if hasattr(awaitable, "close"):
        awaitable.close()


def _run_apart(awaitable: Any) -> Any:
    import asyncio

    try:
        seconds = timeout_seconds()
    except MiddlewareError:
        _close(awaitable)
        raise
    outcome: list[tuple[Any, BaseException | None]] = []
    context = copy_context()
    too_long = MiddlewareError(f"an asynchronous callback has not ended within {seconds:g} s ({TIMEOUT_VARIABLE})")

    async def bounded() -> Any:
        running = asyncio.ensure_future(awaitable)
        await asyncio.wait([running], timeout=seconds)
        if running.done():
            return running.result()
        running.cancel()
        raise too_long

    def run() -> None:
        try:
            outcome.append((context.run(asyncio.run, bounded()), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, name="relay_mp middleware", daemon=True)
    thread.start()
    thread.join(seconds + 1)
    if not outcome:
        raise too_long
    value, error = outcome[0]
    if error is not None:
        raise error
    return value
