"""A streamed LLM response on its way to the caller: chunk marks, collector, finalizer, the end event.

Runs in the caller's event loop. The provider's iterator is pulled, never read ahead: each `__anext__`

    source.__anext__()  ->  mark `llm.chunk`  ->  collector(chunk)  ->  the caller

However the stream ends, its end event is emitted once, with what `finalizer()` made of the chunks so far:
at its natural end; when the source or the collector raises; when the caller's task is cancelled while it
waits for a chunk; when it is closed early, or dropped without being closed (then by the garbage
collector). The last three are interrupted ends: status ERROR.

In a forked child a stream of its parent's is a copy: however it ends there, no end is emitted, and neither the source
nor the finalizer is called.

The call is a scope: the source, the collector and the finalizer run in it, the reader does not. A source keeps the
scopes it opens to itself: a generator that yields inside `with scope(...)` does not change its reader's.

    LlmStream        for asynchronous readers
    LlmSyncStream    the same for synchronous ones: it takes the steps of an LlmStream, none of which waits
"""

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any, Self

from relay_mp._emit.arguments import thaw
from relay_mp._emit.calls import LLMHandle
from relay_mp._emit.current import _current as current
from relay_mp._emit.failures import DESCRIPTION_KEY, STATUS_KEY, STATUS_OK
from relay_mp._emit.handle import ScopeHandle
from relay_mp._emit.llm_call import LLM, Spec, end_profile, show_response
from relay_mp._emit.managed import emit_mark, end_call, fails, managed_metadata
from relay_mp._emit.settle import BLOCK, is_awaitable, run_now
from relay_mp._emit.stream_chunks import describe_chunk
from relay_mp._emit.verbs import end_silently
from relay_mp._log import logger
from relay_mp._native.core import active

__all__ = ["LlmStream", "LlmSyncStream", "Source", "opened"]

CHUNK_MARK = "llm.chunk"

_INTERRUPTED = {STATUS_KEY: "ERROR", DESCRIPTION_KEY: "stream closed before its end"}


async def _close_source(source: Any) -> None:
    """Closes an asynchronous iterator that can be closed: by `aclose`, or, as clients of providers have it, `close`."""
    close = getattr(source, "aclose", None) or getattr(source, "close", None)
    if close is None:
        return
    closing = close()
    if is_awaitable(closing):
        await closing


def opened(found: Any) -> AsyncIterator[Any] | None:
    """The chunks of what a provider or an intercept returned, or None where it is not a stream.

    A synchronous stream is read as an asynchronous one: each chunk holds up the event loop until it has come.
    """
    if hasattr(type(found), "__aiter__"):
        chunks: AsyncIterator[Any] = found.__aiter__()
        return chunks if chunks is found else Source(chunks, found)
    if hasattr(type(found), "__next__") or isinstance(found, list | tuple) or _is_closable_iterable(found):
        return Source(_Stepwise(iter(found)), found)
    return None


def _is_closable_iterable(found: Any) -> bool:
    # As botocore's EventStream. A pydantic model, which is an answer and not a stream of chunks, has `__iter__` alone.
    return hasattr(type(found), "__iter__") and hasattr(type(found), "close")


class Source:
    """Chunks from an iterator, and who is to be closed with it: the stream of a client, whose iterator it is.

    It is not a generator: closing one that has not begun would not run its body.
    """

    __slots__ = ("_chunks", "_owner")

    def __init__(self, chunks: AsyncIterator[Any], owner: Any) -> None:
        self._chunks = chunks
        self._owner = owner

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return await self._chunks.__anext__()

    async def aclose(self) -> None:
        try:
            await _close_source(self._chunks)
        finally:
            await _close_source(self._owner)


class _Stepwise:
    """A synchronous iterator's items, one a step."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self._items)
        except StopIteration:
            raise StopAsyncIteration from None


class LlmStream:
    """The chunks of a streamed LLM response, as `llm.stream_execute` returns it: an asynchronous iterator.

    Read it to its end, leave its `async with`, or close it with `aclose()`: until then the call has not ended. Not to
    be made by hand.
    """

    __slots__ = (
        "__weakref__", "_collector", "_ended", "_finalizer", "_handle", "_index", "_lock", "_mode", "_own_scope",
        "_scope", "_source", "_spec",
    )  # fmt: skip

    def __init__(
        self,
        spec: Spec,
        handle: LLMHandle,
        scope: ScopeHandle,
        source: AsyncIterator[Any],
        collector: Callable[[Any], object],
        finalizer: Callable[[], Any],
        mode: int,
    ) -> None:
        import asyncio

        self._spec = spec
        self._handle = handle
        self._source = source
        self._collector = collector
        self._finalizer = finalizer
        self._index = 0
        self._ended = False
        self._lock = asyncio.Lock()
        self._mode = mode
        # The call's own, and where its source is: a source may open scopes between its chunks.
        self._scope = scope
        self._own_scope: ScopeHandle | None = scope

    def __aiter__(self) -> "LlmStream":
        return self

    def __await__(self) -> Generator[Any, None, "LlmStream"]:
        # `stream = await stream_execute(...)` has one already; awaiting it again does no harm.
        return self
        yield

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()

    async def __anext__(self) -> Any:
        """The next chunk, as the stream intercepts left it.

        Raises:
            StopAsyncIteration: the stream has ended.
            What the provider, an intercept or the collector raises passes; the stream has ended then.
        """
        async with self._lock:
            if self._ended:
                raise StopAsyncIteration
            before = current.get()
            current.set(self._own_scope)
            try:
                return await self._next()
            finally:
                current.set(before)

    async def _next(self) -> Any:
        try:
            chunk = await self._source.__anext__()
            self._own_scope = current.get()
            current.set(self._scope)
            self._take(chunk)
        except StopAsyncIteration:
            await self._close(STATUS_OK)
            raise
        except Exception as error:
            await self._close(fails(error))
            raise
        except BaseException:
            await self._close(_INTERRUPTED)
            raise
        return chunk

    def _take(self, chunk: Any) -> None:
        if active():
            emit_mark(CHUNK_MARK, self._handle._uuid, describe_chunk(self._index, chunk), None)
        self._index += 1
        self._collector(chunk)

    async def aclose(self) -> None:
        """Ends the stream here: closes the provider's iterator, and emits the end. Any number of times.

        While another task waits for a chunk, it waits for that chunk, too; to stop at once, cancel the task.
        """
        async with self._lock:
            if self._ended:
                return
            before = current.get()
            current.set(self._own_scope)
            try:
                await self._close(_INTERRUPTED)
            finally:
                current.set(before)

    async def _close(self, status: dict[str, str]) -> None:
        try:
            if not self._handle.is_copy:  # else its connection is the parent's
                await _close_source(self._source)
        except Exception:
            logger.exception("the stream of %r failed while it was closed", self._spec.name)
        finally:
            await self._end(status)

    async def _end(self, status: dict[str, str]) -> None:
        self._ended = True
        current.set(self._scope)
        if self._handle.is_copy:
            end_silently(self._scope)
            return
        response = self._finalize()
        try:
            if active():
                await self._emit_end(response, status)
        finally:
            end_silently(self._scope)

    async def _emit_end(self, response: Any, status: dict[str, str]) -> None:
        handle = self._handle
        if response is None:
            response = thaw(handle._data)
        try:
            shown, annotation = await show_response(response, self._spec.response_codec, None, self._mode)
        except BaseException:
            end_call(handle, LLM, None, managed_metadata(handle, _INTERRUPTED), handle._profile)
            raise
        end_call(handle, LLM, shown, managed_metadata(handle, status), end_profile(handle, annotation))

    def _finalize(self) -> Any:
        try:
            return self._finalizer()
        except Exception:
            logger.exception("the finalizer of the stream of %r failed; its end has no data", self._spec.name)
            return None

    def __del__(self) -> None:
        # Dropped before its end: nothing can be awaited here, and nothing may be raised.
        if getattr(self, "_ended", True):
            return
        before = current.get()
        try:
            self._mode = BLOCK
            run_now(self._end(_INTERRUPTED))
        except Exception:
            logger.exception("the stream of %r could not be ended", self._spec.name)
        finally:
            current.set(before)


class LlmSyncStream:
    """The chunks of a streamed LLM response, as `llm.stream_execute_sync` returns it: an iterator.

    Read it to its end, leave its `with`, or close it: until then the call has not ended. Not to be made by hand.
    """

    __slots__ = ("_stream",)

    def __init__(self, stream: LlmStream) -> None:
        self._stream = stream

    def __iter__(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __next__(self) -> Any:
        """The next chunk, as the stream intercepts left it.

        Raises:
            StopIteration: the stream has ended.
            MiddlewareError: the source waits for something asynchronous: use `llm.stream_execute`.
            RuntimeError: another thread, or the collector, is inside the stream.
            What the provider, an intercept or the collector raises passes; the stream has ended then.
        """
        self._refuse_a_second_reader()
        try:
            return run_now(self._stream.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """Ends the stream here: closes the provider's iterator, and emits the end. Any number of times.

        Raises:
            RuntimeError: another thread, or the collector, is inside the stream, as for a generator.
        """
        self._refuse_a_second_reader()
        run_now(self._stream.aclose())

    def _refuse_a_second_reader(self) -> None:
        if self._stream._lock.locked():
            raise RuntimeError("the stream is in use: another thread reads or closes it, or its collector does")
