"""LLM calls: a start and an end event around a request to a provider, and the middleware that guards it.

    response = await llm.execute("openai", request, provider)            managed: the whole pipeline
    async for chunk in await llm.stream_execute("openai", request, provider, chunks.append, join): ...

    response = llm.execute_sync("openai", request, provider)             the same for synchronous clients
    for chunk in llm.stream_execute_sync("openai", request, provider, chunks.append, join): ...

    handle = llm.call("openai", request)                                 manual: the two events
    llm.call_end(handle, response)

A managed call asks the conditional guardrails, passes the request through the request intercepts, emits
the start, calls the provider through the execution intercepts, and emits the end. The provider gets the
request with one `traceparent` header, which names the call, while somebody listens. Sanitizers change what
the events show, never what the provider gets or returns. Credential headers (`Authorization`, `Cookie`,
API keys) are in no event.

A codec (see `relay_mp.codecs`) shows intercepts the request in a form that all providers share; a response
codec adds the response in such a form to the end event.

A managed call returns what the provider returned, and raises what it, or a middleware, raised: that very exception.
It is a scope: while the provider runs, it is the current one, so that what the provider emits stands below it. A manual
call is not: what is emitted between `call` and `call_end` is under the scope that the call was made in.

Full ring: each event may hold the call up to the session's `block_timeout`, and is dropped and counted
after that; with `on_full="drop"` at once. While nobody listens, no event is made; guardrails and intercepts run
all the same.

Every verb may be called from any thread, asyncio task and process, and after fork.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from relay_mp._emit.arguments import check_name
from relay_mp._emit.calls import AnyHandle, LLMHandle, LLMRequest, LLMRequestInterceptOutcome, check_type
from relay_mp._emit.current import _current as current
from relay_mp._emit.failures import Status
from relay_mp._emit.families import FAMILIES
from relay_mp._emit.handle import ScopeHandle
from relay_mp._emit.llm_call import (
    LLM,
    REQUEST_SANITIZERS,
    RESPONSE_SANITIZERS,
    Prepared,
    Spec,
    ask_guardrails,
    begin,
    end_metadata,
    end_profile,
    fail,
    finish,
    intercept_request,
    prepare,
    show_response,
    traced,
    with_traceparent,
)
from relay_mp._emit.llm_codec import annotation_of
from relay_mp._emit.llm_stream import LlmStream, LlmSyncStream, Source, opened
from relay_mp._emit.managed import (
    Inside,
    NextCall,
    begin_call,
    end_call,
    parent_of,
    returned,
    through_intercepts,
)
from relay_mp._emit.middleware import Registration, registry, visible
from relay_mp._emit.settle import AWAIT, BLOCK, REFUSE, loop_is_running, of_program, run_now, settle
from relay_mp._emit.verbs import end_silently
from relay_mp._native.core import active
from relay_mp.errors import described_type
from relay_mp.types import Json, LLMAttributes, RuntimeRegistrationKind, Timestamp

__all__ = [
    "call",
    "call_end",
    "conditional_execution",
    "execute",
    "execute_sync",
    "request_intercepts",
    "stream_execute",
    "stream_execute_sync",
]

_EXECUTIONS = FAMILIES[RuntimeRegistrationKind.LLM_EXECUTION_INTERCEPT]
_STREAM_EXECUTIONS = FAMILIES[RuntimeRegistrationKind.LLM_STREAM_EXECUTION_INTERCEPT]

_NO_PROFILE: dict[str, Any] = {}


def call(
    name: str,
    request: LLMRequest,
    *,
    handle: AnyHandle | None = None,
    attributes: LLMAttributes | None = None,
    data: Json | None = None,
    metadata: Json | None = None,
    model_name: str | None = None,
    timestamp: Timestamp | None = None,
) -> LLMHandle:
    """Begins an LLM call that the caller makes: emits its start. No guardrail or intercept is asked.

    Args:
        name: the provider.
        request: the start event's `data`, sanitized, without credential headers.
        handle: the scope that it is under; the current one if left out.
        attributes: flags.
        data: kept in the handle (`handle.data`), in no event.
        metadata: of both events.
        model_name: goes into `category_profile`.
        timestamp: a timezone-aware datetime, or nanoseconds since the epoch; now if left out.

    Returns:
        The handle, to be given to `call_end`.

    Raises:
        TypeError: an argument is not of its type.
        ValueError: the timestamp is naive.
        PayloadError: a payload holds a value that cannot be recorded; nothing was emitted.
        UnicodeEncodeError: the name has a lone surrogate.
    """
    name, parent, bits, profile = _checked_call(name, request, handle, attributes, model_name)
    if active() and not (registry.any and visible(REQUEST_SANITIZERS)):
        return begin_call(LLMHandle, LLM, name, parent, bits, data, metadata, profile, request.observed(), timestamp)
    spec = Spec(name, parent, bits, data, metadata, profile)
    started: LLMHandle = run_now(begin(spec, Prepared(request), BLOCK, timestamp))
    return started


def call_end(
    handle: LLMHandle,
    response: Json,
    *,
    data: Json | None = None,
    metadata: Json | None = None,
    annotated_response: Any = None,
    response_codec: Any = None,
    status: Status | None = None,
    timestamp: Timestamp | None = None,
) -> None:
    """Ends an LLM call: emits its end. Called twice, it emits two.

    Args:
        handle: the call, from `call`.
        response: the end event's `data`, sanitized.
        data: the end event's `data` where the response is None; sanitized as one.
        metadata: merged over the start's, one level deep; what is not a dict is left out.
        annotated_response: an AnnotatedLLMResponse, or a dict: goes into
            `category_profile.annotated_response`, unless a sanitizer changes the response.
        response_codec: makes that annotation of the sanitized response, where none is given.
        status: how it ended: "OK", "ERROR" or "UNSET", or the exception that ended it; OK if left out.
        timestamp: as for `call`, kept as given. Left out: now, and always later than the start.

    Raises:
        TypeError: an argument is not of its type.
        ValueError: the timestamp is naive.
        PayloadError: a payload holds a value that cannot be recorded; nothing was emitted.
    """
    check_type(handle, LLMHandle, "handle")
    if not active():
        return
    annotated = None if annotated_response is None else annotation_of(annotated_response, "annotated_response")
    if response is None:
        response = data
    shown, annotation = response, annotated
    if response_codec is not None or (registry.any and visible(RESPONSE_SANITIZERS)):
        shown, annotation = run_now(show_response(response, response_codec, annotated, BLOCK))
    end_call(
        handle, LLM, shown, end_metadata(handle, metadata, status), end_profile(handle, annotation), timestamp
    )  # fmt: skip


async def execute(
    name: str,
    request: LLMRequest,
    func: Callable[[LLMRequest], Any],
    *,
    handle: AnyHandle | None = None,
    attributes: LLMAttributes | None = None,
    data: Json | None = None,
    metadata: Json | None = None,
    model_name: str | None = None,
    codec: Any = None,
    response_codec: Any = None,
) -> Any:
    """Makes an LLM call through the managed pipeline, see the module.

    The end's metadata gets `otel.status_code`: OK; ERROR, with `error.type` and the exception's type, message and
    stack trace, for an exception or a cancellation; UNSET for what ends the program.

    A synchronous provider runs in the event loop's thread, and holds up the loop while it waits for its answer: with a
    synchronous client use `execute_sync`, in the event loop `await asyncio.to_thread(llm.execute_sync, ...)`, which
    runs the whole call elsewhere under the same scope.

    What the provider, a middleware or the codec raises passes unchanged.

    Args:
        name: the provider.
        request: the request.
        func: calls the provider: `func(request)`, synchronous or asynchronous. What it returns may be anything: an
            event shows of it what can be recorded.
        handle: the scope that it is under; the current one if left out.
        attributes: flags.
        data: the end event's `data` where the response is None, or the provider failed; sanitized as one.
        metadata: of all the call's events, its guardrails' included.
        model_name: goes into `category_profile`.
        codec: shows the request intercepts the request in its normalized form, and writes it back.
        response_codec: adds the response's normalized form to the end event; if it fails, there is none.

    Returns:
        What the provider, or an execution intercept, returned.

    Raises:
        RejectedError: a guardrail said no; the provider was not called.
        CallbackError: a middleware or the codec returned what it must not.
        TypeError: an argument is not of its type.
        PayloadError: in strict mode, a payload cannot be recorded.
    """
    spec = _spec(name, request, handle, attributes, data, metadata, model_name, codec, response_codec)
    return await _execute(spec, request, func, AWAIT)


def execute_sync(
    name: str,
    request: LLMRequest,
    func: Callable[[LLMRequest], Any],
    *,
    handle: AnyHandle | None = None,
    attributes: LLMAttributes | None = None,
    data: Json | None = None,
    metadata: Json | None = None,
    model_name: str | None = None,
    codec: Any = None,
    response_codec: Any = None,
) -> Any:
    """`execute` for synchronous code and clients, with or without a running event loop.

    Asynchronous guardrails, request intercepts and sanitizers run in a thread, each for at most
    `RELAY_MP_MIDDLEWARE_TIMEOUT_SECONDS`. An asynchronous execution intercept takes part as long as it waits for
    nothing but `next_call`.

    It raises what `execute` does, too.

    Args:
        func: calls the provider: `func(request)`, synchronous.
        name, request, handle, attributes, data, metadata, model_name, codec, response_codec: as for `execute`.

    Returns:
        What the provider, or an execution intercept, returned.

    Raises:
        MiddlewareError: the provider or an execution intercept waits for something: use `await execute(...)`.
    """
    spec = _spec(name, request, handle, attributes, data, metadata, model_name, codec, response_codec)
    return run_now(_execute(spec, request, func, BLOCK))


async def _execute(spec: Spec, request: LLMRequest, func: Callable[[LLMRequest], Any], mode: int) -> Any:
    active()  # takes over what the session has installed for its processes
    prepared = await prepare(spec, request, mode)
    started = await begin(spec, prepared, mode)
    with Inside(started):
        try:
            request = traced(started, spec.parent, prepared.request)
            intercepts = visible(_EXECUTIONS)
            # Not one coroutine further: a StopIteration of the provider's would not come out of it.
            found = await _through(intercepts, spec, request, func, mode) if intercepts else func(request)
            response = await settle(found, of_program(mode))
            await finish(spec, started, response, mode)
        except BaseException as error:
            await fail(started, error, mode)
            raise
    return response


async def _through(
    intercepts: Sequence[Registration], spec: Spec, request: LLMRequest, func: Callable[[LLMRequest], Any], mode: int
) -> Any:
    async def innermost(request: LLMRequest) -> Any:
        check_type(request, LLMRequest, "request")
        return await settle(func(request), of_program(mode))

    def arguments(request: LLMRequest, next_call: NextCall) -> tuple[Any, ...]:
        check_type(request, LLMRequest, "request")
        return spec.name, request, next_call

    def check(_registration: Registration, response: Any) -> Any:
        return response

    return await through_intercepts(intercepts, request, arguments, check, innermost)


async def stream_execute(
    name: str,
    request: LLMRequest,
    func: Callable[[LLMRequest], Any],
    collector: Callable[[Any], object],
    finalizer: Callable[[], Any],
    *,
    handle: AnyHandle | None = None,
    attributes: LLMAttributes | None = None,
    data: Json | None = None,
    metadata: Json | None = None,
    model_name: str | None = None,
    codec: Any = None,
    response_codec: Any = None,
) -> LlmStream:
    """Makes a streamed LLM call through the managed pipeline, see the module.

    The call ends when the stream does: read it to its end or `await stream.aclose()`. Each chunk is a mark
    `llm.chunk` under the call, with its place and kind, not its text. Nothing is read ahead.

    What the provider, a middleware or the codec raises passes unchanged; what fails later is raised by the stream.

    Args:
        name: the provider.
        request: the request.
        func: calls the provider: `func(request)` returns an asynchronous iterator of chunks, or an awaitable of one; a
            synchronous iterator too, each chunk of which holds up the event loop until it has come.
        collector: `collector(chunk)` is called for each chunk, before the caller gets it; synchronous.
        finalizer: `finalizer()` makes the end event's `data` of what was collected, however the stream
            ended; synchronous. If it raises, there is no data.
        handle, attributes, data, metadata, model_name, codec, response_codec: as for `execute`.

    Returns:
        The stream of chunks.

    Raises:
        RejectedError: a guardrail said no; the provider was not called.
        CallbackError: the provider, a middleware or the codec returned what it must not.
        TypeError: an argument is not of its type.
        PayloadError: in strict mode, a payload cannot be recorded.
    """
    spec = _spec(name, request, handle, attributes, data, metadata, model_name, codec, response_codec)
    return await _stream_execute(spec, request, func, collector, finalizer, AWAIT)


def stream_execute_sync(
    name: str,
    request: LLMRequest,
    func: Callable[[LLMRequest], Any],
    collector: Callable[[Any], object],
    finalizer: Callable[[], Any],
    *,
    handle: AnyHandle | None = None,
    attributes: LLMAttributes | None = None,
    data: Json | None = None,
    metadata: Json | None = None,
    model_name: str | None = None,
    codec: Any = None,
    response_codec: Any = None,
) -> LlmSyncStream:
    """`stream_execute` for synchronous code and clients, with or without a running event loop.

    It raises what `stream_execute` does, too.

    Args:
        func: calls the provider: `func(request)` returns an iterator of chunks, or an iterable that has `close`.
        name, request, collector, finalizer: as for `stream_execute`.
        handle, attributes, data, metadata, model_name, codec, response_codec: as for `execute_sync`.

    Returns:
        The stream of chunks: an iterator, with `close()`, which works in `with`.

    Raises:
        MiddlewareError: the provider or an intercept waits for something: use `await stream_execute(...)`.
    """
    spec = _spec(name, request, handle, attributes, data, metadata, model_name, codec, response_codec)
    return LlmSyncStream(run_now(_stream_execute(spec, request, func, collector, finalizer, BLOCK)))


async def _stream_execute(
    spec: Spec,
    request: LLMRequest,
    func: Callable[[LLMRequest], Any],
    collector: Callable[[Any], object],
    finalizer: Callable[[], Any],
    mode: int,
) -> LlmStream:
    active()  # takes over what the session has installed for its processes
    prepared = await prepare(spec, request, mode)
    started = await begin(spec, prepared, mode)
    before, scope = current.get(), Inside(started).scope
    current.set(scope)
    try:
        try:
            given = traced(started, spec.parent, prepared.request)
            source = await _stream(visible(_STREAM_EXECUTIONS), given, func, mode)
        except BaseException as error:
            await fail(started, error, mode)
            end_silently(scope)
            raise
    finally:
        current.set(before)
    return LlmStream(spec, started, scope, source, collector, finalizer, mode)


async def _stream(
    intercepts: Any, request: LLMRequest, func: Callable[[LLMRequest], Any], mode: int
) -> AsyncIterator[Any]:
    check_type(request, LLMRequest, "request")
    if not intercepts:
        return await _opened(func(request), "the provider", of_program(mode))
    registration = intercepts[0]

    async def inner(request: LLMRequest) -> AsyncIterator[Any]:
        return await _stream(intercepts[1:], request, func, mode)

    next_call = NextCall(inner)
    try:
        source = await _opened(registration.callback(request, next_call), f"intercept {registration.name!r}", AWAIT)
    except BaseException:
        next_call.close()
        raise
    return _Held(source, next_call)


async def _opened(found: Any, who: str, mode: int) -> AsyncIterator[Any]:
    source = opened(found if hasattr(type(found), "__aiter__") else await settle(found, mode))
    if source is None:
        raise returned(found, who, "an iterator of chunks, such as a generator makes, asynchronous or not")
    return source


class _Held(Source):
    """The stream of an intercept, which may call on while that is read, not afterwards."""

    __slots__ = ()

    async def __anext__(self) -> Any:
        try:
            return await super().__anext__()
        except BaseException:
            self._owner.close()
            raise


# --------------------------------------------------------------------------------- parts of the pipeline


def request_intercepts(name: str, request: LLMRequest) -> Any:
    """Passes a request through the request intercepts, and does nothing else. No event, no codec.

    Args:
        name: the provider.
        request: the request.

    Returns:
        An LLMRequestInterceptOutcome with what all of them made; in a running event loop an awaitable of
        it. While a scope is open, the request has a `traceparent` header that names it.

    Raises:
        MiddlewareError: an intercept is asynchronous, and no event loop runs. What an intercept raises passes.
        TypeError: an argument is not of its type.
    """
    name = check_name(name)
    check_type(request, LLMRequest, "request")
    active()  # takes over what the session has installed for its processes
    if loop_is_running():
        return _outcome(name, request, AWAIT)
    return run_now(_outcome(name, request, REFUSE))


async def _outcome(name: str, request: LLMRequest, mode: int) -> LLMRequestInterceptOutcome:
    prepared = await intercept_request(name, Prepared(request), False, mode)
    scope = parent_of(None)
    if scope._trace is not None:
        prepared = prepared._replace(request=with_traceparent(prepared.request, scope._trace, scope._uuid))
    return LLMRequestInterceptOutcome(*prepared)


def conditional_execution(request: LLMRequest) -> Any:
    """Asks the conditional guardrails, and does nothing else. Each emits its pair of events.

    Args:
        request: the request.

    Returns:
        None if all allow it; in a running event loop an awaitable of that.

    Raises:
        RejectedError: one said no.
        MiddlewareError: one is asynchronous, and no event loop runs. What a guardrail raises passes.
        CallbackError: an answer is neither None nor a text.
        TypeError: it is not an LLMRequest.
    """
    check_type(request, LLMRequest, "request")
    parent = parent_of(None)
    active()  # takes over what the session has installed for its processes
    if loop_is_running():
        return ask_guardrails(request, parent, None, AWAIT)
    return run_now(ask_guardrails(request, parent, None, REFUSE))


def _spec(
    name: str,
    request: object,
    handle: AnyHandle | None,
    attributes: object,
    data: Any,
    metadata: Any,
    model_name: object,
    codec: Any = None,
    response_codec: Any = None,
) -> Spec:
    name, parent, bits, profile = _checked_call(name, request, handle, attributes, model_name)
    return Spec(name, parent, bits, data, metadata, profile, codec, response_codec)


def _checked_call(
    name: str, request: object, handle: AnyHandle | None, attributes: object, model_name: object
) -> tuple[str, ScopeHandle, int, dict[str, Any]]:
    """A call's name, parent, attributes and `category_profile`."""
    if type(name) is not str:
        name = check_name(name)
    check_type(request, LLMRequest, "request")
    bits = 0
    if attributes is not None:
        if not isinstance(attributes, LLMAttributes):
            raise TypeError(f"attributes is {described_type(attributes)}; expected LLMAttributes")
        bits = attributes.record_bits
    profile = _NO_PROFILE
    if model_name is not None:
        check_type(model_name, str, "model_name")
        profile = {"model_name": model_name}
    return name, parent_of(handle), bits, profile
