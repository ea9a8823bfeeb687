"""What a `scope` block needs off the fast path: how it failed, and functions that run in one.

Runs in every emitting process, called by `verbs`.
"""

import functools
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, TypeVar, cast

__all__ = ["STATUS_OK", "failure_status", "run_in_blocks"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

STATUS_KEY = "otel.status_code"
DESCRIPTION_KEY = "otel.status_description"

# Never changed: the encoder reads them, and merging copies.
STATUS_OK = {STATUS_KEY: "OK"}
_STATUS_UNSET = {STATUS_KEY: "UNSET"}

# inspect.CO_COROUTINE: one constant is no reason to import inspect.
_CO_COROUTINE = 0x80


def failure_status(exc: BaseException) -> dict[str, str]:
    """The end's metadata of a block that an exception ended."""
    # Whoever was cancelled by asyncio has imported it; this package does not, for its import time.
    asyncio_exceptions = sys.modules.get("asyncio.exceptions")
    if asyncio_exceptions is not None and isinstance(exc, asyncio_exceptions.CancelledError):
        return {STATUS_KEY: "ERROR", DESCRIPTION_KEY: _describe(exc) or "cancelled"}
    if isinstance(exc, Exception):
        return {STATUS_KEY: "ERROR", DESCRIPTION_KEY: _describe(exc)}
    return _STATUS_UNSET


def _describe(exc: BaseException) -> str:
    # The scope must end, and the block's own exception come through, whatever its text is like.
    try:
        return str(exc).encode("utf-8", "backslashreplace").decode("utf-8")
    except Exception:
        return f"<{type(exc).__name__}, whose text could not be had>"


def run_in_blocks(function: Callable[_P, _R], block: Callable[[], AbstractContextManager[Any]]) -> Callable[_P, _R]:
    """The function, with a new block around each of its calls; a coroutine function's, until it has run."""
    if getattr(getattr(function, "__code__", None), "co_flags", 0) & _CO_COROUTINE:

        @functools.wraps(function)
        async def run_coroutine(*args: _P.args, **kwargs: _P.kwargs) -> Any:
            with block():
                return await cast("Awaitable[Any]", function(*args, **kwargs))

        return cast("Callable[_P, _R]", run_coroutine)

    @functools.wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with block():
            return function(*args, **kwargs)

    return run
