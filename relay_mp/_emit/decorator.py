"""A scope around each call of a function, for as long as the call's work takes: `@scope.scope(...)`, `pools.propagate`.

    function                 the scope spans the call
    coroutine function       the awaiting
    generator function,      the reading; the scope is current while the body runs, and not while its reader does:
    asynchronous or not
                                 reader:  next() ───┐        ┌── item ──▶ reader's own scope again
                                                    ▼        │
                                 body:        scope current ─┘ yield
    what returns a coroutine or a generator, such as a plain wrapper around one, or an object with an asynchronous
    `__call__`: from the call to the end of what it returned
    partial, staticmethod, classmethod: as what is inside

`inspect.iscoroutinefunction` and its kind say of the result what they say of the function: frameworks ask them.
Runs in every emitting process. The body's scope belongs to the call, so any number may run side by side.
"""

import functools
import types
import weakref
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, TypeVar, cast

from relay_mp._emit.current import _current as current
from relay_mp.errors import described_type

__all__ = ["run_in_blocks"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

Block = Callable[[], AbstractContextManager[Any]]


def run_in_blocks(function: Callable[_P, _R], block: Block) -> Callable[_P, _R]:
    """The function, with a new block around each of its calls; see the module.

    Args:
        function: any callable; a staticmethod or classmethod object too.
        block: makes the context manager of one call.

    Raises:
        TypeError: it cannot be called.
    """
    if isinstance(function, staticmethod | classmethod):
        return cast("Callable[_P, _R]", type(function)(run_in_blocks(function.__func__, block)))
    if not callable(function):
        raise TypeError(f"a scope was given {described_type(function)} to decorate; expected a callable")
    flags = _flags(function)
    if flags & _CO_COROUTINE:
        wrap: Callable[..., Any] = _coroutine_function
    elif flags & _CO_ASYNC_GENERATOR:
        wrap = _async_generator_function
    elif flags & _CO_GENERATOR:
        wrap = _generator_function
    else:
        wrap = _plain_function
    wrapped: Callable[_P, _R] = functools.update_wrapper(wrap(function, lambda: _Apart(block())), function)
    return wrapped


# inspect's constants: importing it for three of them does not pay: that takes as long as a third of this package.
_CO_GENERATOR, _CO_COROUTINE, _CO_ASYNC_GENERATOR = 0x20, 0x80, 0x200


def _flags(function: Any) -> int:
    """The flags of the code that a call runs, as `inspect` finds them: through partials and bound methods."""
    while isinstance(function, functools.partial | types.MethodType):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    code = getattr(function, "__code__", None)
    return code.co_flags if isinstance(code, types.CodeType) else 0


class _Apart:
    """A block whose scope is current only between `resume` and `suspend`, in whichever context these are called."""

    def __init__(self, block: AbstractContextManager[Any]) -> None:
        self._block = block
        self._own: Any = None
        self._outside: Any = None
        self._is_over = False

    def resume(self) -> None:
        self._outside = current.get()
        if self._own is None:
            self._block.__enter__()
        else:
            current.set(self._own)

    def suspend(self) -> None:
        self._own = current.get()
        current.set(self._outside)

    def end(self, error: BaseException | None) -> None:
        self._is_over = True
        try:
            self._block.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)
        finally:
            current.set(self._outside)

    def end_unused(self) -> None:
        """Ends the scope of work that was dropped before it began."""
        if not self._is_over:
            self.resume()
            self.end(GeneratorExit())


Begin = Callable[[], _Apart]


def _coroutine_function(function: Callable[..., Any], begin: Begin) -> Callable[..., Any]:
    async def run(*args: Any, **kwargs: Any) -> Any:
        apart = begin()
        apart.resume()
        try:
            found = await function(*args, **kwargs)
        except BaseException as error:
            apart.end(error)
            raise
        apart.end(None)
        return found

    return run


def _generator_function(function: Callable[..., Any], begin: Begin) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        return (yield from _steps(function(*args, **kwargs), begin()))

    return run


def _steps(body: Any, apart: _Apart) -> Generator[Any, Any, Any]:
    """What a generator yields, or a coroutine waits for, its body run in the block, which ends with it."""
    step, argument = body.send, None
    while True:
        apart.resume()
        try:
            item = step(argument)
        except StopIteration as stop:
            apart.end(None)
            return stop.value
        except BaseException as error:
            apart.end(error)
            raise
        apart.suspend()
        try:
            argument = yield item
            step = body.send
        except BaseException as error:  # thrown in, or GeneratorExit: the body hears of it in its scope
            step, argument = body.throw, error


def _async_generator_function(function: Callable[..., Any], begin: Begin) -> Callable[..., Any]:
    async def run(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        body, apart = function(*args, **kwargs), begin()
        step, argument = body.asend, None
        while True:
            apart.resume()
            try:
                item = await step(argument)
            except StopAsyncIteration:
                apart.end(None)
                return
            except BaseException as error:
                apart.end(error)
                raise
            apart.suspend()
            try:
                argument = yield item
                step = body.asend
            except BaseException as error:
                step, argument = body.athrow, error

    return run


def _plain_function(function: Callable[..., Any], begin: Begin) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        apart = begin()
        apart.resume()
        try:
            found = function(*args, **kwargs)
        except BaseException as error:
            apart.end(error)
            raise
        later = _LATER.get(type(found))
        if later is None:
            apart.end(None)
            return found
        apart.suspend()
        going_on = later(found, apart)
        weakref.finalize(going_on, apart.end_unused)
        return going_on

    return run


async def _coroutine_later(body: Any, apart: _Apart) -> Any:
    return await _waiting(body, apart)


@types.coroutine
def _waiting(body: Any, apart: _Apart) -> Generator[Any, Any, Any]:
    return (yield from _steps(body, apart))


def _async_generator_later(body: Any, apart: _Apart) -> Any:
    return _async_generator_function(lambda: body, lambda: apart)()


_LATER: dict[type, Callable[[Any, _Apart], Any]] = {
    types.CoroutineType: _coroutine_later,
    types.GeneratorType: _steps,
    types.AsyncGeneratorType: _async_generator_later,
}
"""What a call may return that has its work still before it. A future or a task runs by itself."""
