"""The `openai` client: chat completions and responses become managed LLM calls, with their tokens and cost.

    client.chat.completions.create(...)  ──▶  llm.execute_sync("openai", request, the client's own method)
    await client.responses.create(...)        llm.execute(...)
    stream=True                               llm.stream_execute(...); the program gets its stream, with all it has

The methods of the client's resource classes are replaced, so that clients made before take part too. The request goes
to the client as the program made it, unless an intercept changes it. What the client returns or raises is what the
program gets. Not taken part in: `with_raw_response` and `with_streaming_response`, whose results are no response yet.
"""

import functools
from collections.abc import Callable
from typing import Any

from relay_mp import llm
from relay_mp._emit.calls import LLMRequest
from relay_mp.codecs.openai_chat import OpenAIChatCodec
from relay_mp.codecs.openai_responses import OpenAIResponsesCodec
from relay_mp.codecs.streams import StreamCollector

__all__ = ["instrument", "uninstrument"]

PROVIDER = "openai"

RAW_HEADER = "X-Stainless-Raw-Response"
"""What the client itself marks a call with whose result is raw."""

_OF_THE_CLIENT = frozenset({"extra_headers", "extra_query", "extra_body", "timeout"})
"""Arguments that are not part of the request; headers may hold keys."""

_replaced: list[tuple[type, Callable[..., Any]]] = []


def instrument() -> None:
    """Has calls of every client recorded. Idempotent.

    Raises:
        ImportError: the package is not installed.
    """
    if _replaced:
        return
    from openai.resources.chat.completions import AsyncCompletions, Completions
    from openai.resources.responses import AsyncResponses, Responses

    chat, responses = OpenAIChatCodec(), OpenAIResponsesCodec()
    for resource, codec, recorded in (
        (Completions, chat, _recorded),
        (AsyncCompletions, chat, _recorded_async),
        (Responses, responses, _recorded),
        (AsyncResponses, responses, _recorded_async),
    ):
        create = resource.create
        _replaced.append((resource, create))
        resource.create = recorded(create, codec)  # type: ignore[method-assign]


def uninstrument() -> None:
    """Takes it back. Idempotent."""
    while _replaced:
        resource, create = _replaced.pop()
        resource.create = create  # type: ignore[attr-defined]


def _is_sent(value: object) -> bool:
    """Whether an argument is given: the client has placeholders for those that are not."""
    return type(value).__name__ not in ("NotGiven", "Omit")


def _is_raw(arguments: dict[str, Any]) -> bool:
    headers = arguments.get("extra_headers") or {}
    return any(str(name).lower() == RAW_HEADER.lower() for name in headers)


class _Call:
    """One call of the client: its request, and how it is sent."""

    def __init__(self, create: Callable[..., Any], resource: Any, arguments: dict[str, Any]) -> None:
        self._create, self._resource, self._arguments = create, resource, arguments
        content = {name: value for name, value in arguments.items() if name not in _OF_THE_CLIENT and _is_sent(value)}
        self._sent = dict(content)
        self.request = LLMRequest({}, content)
        self.model = content.get("model") if isinstance(content.get("model"), str) else None
        self.is_stream = bool(content.get("stream"))
        self.source: Any = None

    def send(self, request: LLMRequest) -> Any:
        """Calls the client's own method; what an intercept has changed is in `request`."""
        changed = {} if request.content == self._sent else dict(request.content)
        self.source = self._create(self._resource, **{**self._arguments, **changed})
        return self.source

    async def send_async(self, request: LLMRequest) -> Any:
        """The same for an asynchronous client."""
        self.source = await self.send(request)
        return self.source


def _recorded(create: Callable[..., Any], codec: Any) -> Callable[..., Any]:
    @functools.wraps(create)
    def recorded(self: Any, /, **arguments: Any) -> Any:
        if _is_raw(arguments):
            return create(self, **arguments)
        call = _Call(create, self, arguments)
        settings: dict[str, Any] = {"model_name": call.model, "response_codec": codec}
        if not call.is_stream:
            return llm.execute_sync(PROVIDER, call.request, call.send, **settings)
        chunks = StreamCollector()
        stream = llm.stream_execute_sync(PROVIDER, call.request, call.send, chunks, chunks.response, **settings)
        return _Stream(stream, call.source)

    return recorded


def _recorded_async(create: Callable[..., Any], codec: Any) -> Callable[..., Any]:
    @functools.wraps(create)
    async def recorded(self: Any, /, **arguments: Any) -> Any:
        if _is_raw(arguments):
            return await create(self, **arguments)
        call = _Call(create, self, arguments)
        settings: dict[str, Any] = {"model_name": call.model, "response_codec": codec}
        if not call.is_stream:
            return await llm.execute(PROVIDER, call.request, call.send_async, **settings)
        chunks = StreamCollector()
        stream = await llm.stream_execute(PROVIDER, call.request, call.send_async, chunks, chunks.response, **settings)
        return _AsyncStream(stream, call.source)

    return recorded


class _Proxy:
    """A managed stream that has all else of the client's stream, its class included.

    Args:
        managed: gives the chunks, and ends the call.
        source: the client's.
    """

    def __init__(self, managed: Any, source: Any) -> None:
        self._managed, self._source = managed, source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._source)


class _Stream(_Proxy):
    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return next(self._managed)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the call, and closes the connection."""
        self._managed.close()


class _AsyncStream(_Proxy):
    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        return await anext(self._managed)

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the call, and closes the connection."""
        await self._managed.aclose()
