"""A streamed LLM response on its way to the caller: chunk marks, collector, finalizer, the end event.

Runs in the caller's event loop. The provider's iterator is pulled, never read ahead: each `__anext__`

    source.__anext__()  ->  payload check  ->  mark `llm.chunk`  ->  collector(chunk)  ->  the caller

However the stream ends, its end event is emitted once, with what `finalizer()` made of the chunks so far:
at its natural end; when the source or the collector raises; when the caller's task is cancelled while it
waits for a chunk; when it is closed early, or dropped without being closed (then by the garbage
collector). The last three are interrupted ends: status ERROR.

The source runs under the scope that the call was made in, and keeps the scopes it opens to itself: a
generator that yields inside `with scope(...)` does not change the caller's current scope.
"""

import logging
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

from relay_mp._emit.arguments import freeze, thaw
from relay_mp._emit.calls import LLMHandle
from relay_mp._emit.current import _current, current_scope
from relay_mp._emit.handle import ScopeHandle
from relay_mp._emit.llm_call import LLM, Spec, end_profile, show_response
from relay_mp._emit.managed import (
    DESCRIPTION_KEY,
    STATUS_KEY,
    STATUS_OK,
    emit_mark,
    end_call,
    fails,
    failure,
    managed_metadata,
    no_payload,
)
from relay_mp._emit.settle import AWAIT, BLOCK, is_awaitable, run_now
from relay_mp._native.core import active
from relay_mp.errors import PayloadError

logger = logging.getLogger("relay_mp")

__all__ = ["LlmStream", "close_source"]

CHUNK_MARK = "llm.chunk"

_INTERRUPTED = {STATUS_KEY: "ERROR", DESCRIPTION_KEY: "stream closed before its end"}

_ANTHROPIC = frozenset(
    (
        "content_block_delta",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_start",
        "message_stop",
        "ping",
    )
)


async def close_source(source: Any) -> None:
    """Closes an asynchronous iterator that can be closed: by `aclose`, or, as clients of providers have it, `close`."""
    close = getattr(source, "aclose", None) or getattr(source, "close", None)
    if close is None:
        return
    closing = close()
    if is_awaitable(closing):
        await closing


def describe_chunk(index: int, chunk: Any) -> dict[str, Any]:
    """The data of a chunk's mark: its place, and what kind of chunk it is; not its text.

    Sources: the event types of OpenAI's Chat Completions and Responses and of Anthropic's Messages APIs.
    """
    found: dict[str, Any] = {"chunk_index": index, "provider": "unknown"}
    if not isinstance(chunk, dict):
        return found
    event_type = chunk.get("type")
    if chunk.get("object") == "chat.completion.chunk":
        found["provider"], found["event_type"] = "openai_chat_completions", "chat.completion.chunk"
        choices = chunk.get("choices")
        indices = [choice.get("index") for choice in choices if isinstance(choice, dict)] if choices else []
        if indices:
            found["choice_indices"] = indices
        if isinstance(chunk.get("usage"), dict):
            found["usage"] = chunk["usage"]
    elif isinstance(event_type, str) and event_type.startswith("response."):
        found["provider"], found["event_type"] = "openai_responses", event_type
    elif isinstance(event_type, str) and event_type in _ANTHROPIC:
        found["provider"], found["event_type"] = "anthropic_messages", event_type
    return found


class LlmStream:
    """The chunks of a streamed LLM response, as `llm.stream_execute` returns it: an asynchronous iterator.

    Read it to its end, or close it with `aclose()`: until then the call has not ended. Not to be made by
    hand.
    """

    __slots__ = (
        "__weakref__", "_collector", "_ended", "_finalizer", "_handle", "_index", "_lock", "_own_scope", "_scope",
        "_source", "_spec",
    )  # fmt: skip

    def __init__(
        self,
        spec: Spec,
        handle: LLMHandle,
        source: AsyncIterator[Any],
        collector: Callable[[Any], object],
        finalizer: Callable[[], Any],
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
        # Where the call was made, and where its source is: a source may open scopes between its chunks.
        self._scope: ScopeHandle = current_scope()
        self._own_scope: ScopeHandle = self._scope

    def __aiter__(self) -> "LlmStream":
        return self

    def __await__(self) -> Generator[Any, None, "LlmStream"]:
        # `stream = await stream_execute(...)` has one already; awaiting it again does no harm.
        return self
        yield

    async def __anext__(self) -> Any:
        """The next chunk, as the stream intercepts left it.

        Raises:
            StopAsyncIteration: the stream has ended.
            CallbackError: the provider, an intercept or the collector raised, or a chunk is no JSON.
        """
        async with self._lock:
            if self._ended:
                raise StopAsyncIteration
            before = _current.get()
            _current.set(self._own_scope)
            try:
                return await self._next()
            finally:
                _current.set(before)

    async def _next(self) -> Any:
        try:
            chunk = await self._source.__anext__()
            self._own_scope = current_scope()
            _current.set(self._scope)
            self._take(chunk)
        except StopAsyncIteration:
            await self._end(STATUS_OK)
            raise
        except Exception as error:
            wrapped = failure(error)
            await self._break(fails(wrapped))
            raise wrapped from wrapped.__cause__
        except BaseException:
            await self._break(_INTERRUPTED)
            raise
        return chunk

    def _take(self, chunk: Any) -> None:
        if active():
            try:
                freeze(chunk, "chunk")
            except PayloadError as error:
                raise no_payload(error) from error
            emit_mark(CHUNK_MARK, self._handle._uuid, describe_chunk(self._index, chunk), None)
        self._index += 1
        self._collector(chunk)

    async def aclose(self) -> None:
        """Ends the stream here: closes the provider's iterator, and emits the end. Any number of times."""
        async with self._lock:
            if self._ended:
                return
            before = _current.get()
            _current.set(self._own_scope)
            try:
                await self._break(_INTERRUPTED)
            finally:
                _current.set(before)

    async def _break(self, status: dict[str, str]) -> None:
        try:
            await close_source(self._source)
        except Exception:
            logger.exception("the stream of %r failed while it was closed", self._spec.name)
        finally:
            await self._end(status)

    async def _end(self, status: dict[str, str], mode: int = AWAIT) -> None:
        self._ended = True
        response = self._finalize()
        if not active():
            return
        _current.set(self._scope)
        handle = self._handle
        if response is None:
            response = thaw(handle._data)
        try:
            shown, annotation = await show_response(response, self._spec.response_codec, None, mode)
        except BaseException:
            end_call(handle, LLM, None, managed_metadata(handle, _INTERRUPTED), handle._profile)
            raise
        end_call(handle, LLM, shown, managed_metadata(handle, status), end_profile(handle, annotation))

    def _finalize(self) -> Any:
        try:
            response = self._finalizer()
            freeze(response, "the finalizer's response")
        except Exception:
            logger.exception("the finalizer of the stream of %r failed; its end has no data", self._spec.name)
            return None
        return response

    def __del__(self) -> None:
        # Dropped before its end: nothing can be awaited here, and nothing may be raised.
        if getattr(self, "_ended", True):
            return
        before = _current.get()
        try:
            run_now(self._end(_INTERRUPTED, BLOCK))
        except Exception:
            logger.exception("the stream of %r could not be ended", self._spec.name)
        finally:
            _current.set(before)
