"""The program comes first, and a record is true or absent: each promise of the guarantees' second part, by its name.

What the program gets is the same whether or not somebody subscribes; what is recorded is right, or is not there.
"""

import asyncio
import contextlib
import decimal
import functools
import inspect
import json
import logging
import os
import subprocess
import sys
import threading
import types

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

import relay_mp
from relay_mp import LLMRequest, ScopeType, ToolExecutionResult, guardrails, intercepts, llm, scope, subscribers, tools

TIMEOUT_SECONDS = 120
REQUEST = LLMRequest({}, {"model": "m", "messages": [{"role": "user", "content": "hi"}]})


class RateLimitError(Exception):
    """As a provider's client raises."""


@pytest.fixture
def seen(session):
    found = []
    subscribers.register("seen", found.append)
    return found


def flushed(seen):
    subscribers.flush()
    return [(event.name, getattr(event, "scope_category", "mark")) for event in seen]


def ends(seen):
    subscribers.flush()
    return {event.name: event for event in seen if getattr(event, "scope_category", "") == "end"}


def parents(seen):
    """Each event's name, with that of its parent; None: a root."""
    subscribers.flush()
    names = {event.uuid: event.name for event in seen}
    return {
        event.name: names.get(event.parent_uuid) for event in seen if getattr(event, "scope_category", "mark") != "end"
    }


# ------------------------------------------------- 1: telemetry never decides what the program gets


def raising(error):
    def call(_argument):
        raise error

    return call


MANAGED = {
    "tools.execute": lambda call: asyncio.run(tools.execute("t", {}, call)),
    "tools.execute_sync": lambda call: tools.execute_sync("t", {}, call),
    "llm.execute": lambda call: asyncio.run(llm.execute("p", REQUEST, call)),
    "llm.execute_sync": lambda call: llm.execute_sync("p", REQUEST, call),
    "llm.stream_execute": lambda call: asyncio.run(llm.stream_execute("p", REQUEST, call, print, lambda: None)),
    "llm.stream_execute_sync": lambda call: llm.stream_execute_sync("p", REQUEST, call, print, lambda: None),
}


@pytest.mark.parametrize("verb", MANAGED)
def test_a_managed_call_raises_the_very_exception_of_its_callable(seen, verb):
    error = RateLimitError("slow down")
    with pytest.raises(RateLimitError) as caught:
        MANAGED[verb](raising(error))
    assert caught.value is error
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    (end,) = ends(seen).values()
    assert end.metadata["otel.status_description"] == "slow down"
    assert end.metadata["exception.type"].endswith("RateLimitError")
    assert "raise error" in end.metadata["exception.stacktrace"]


@pytest.mark.parametrize("verb", MANAGED)
def test_what_middleware_raises_passes_unchanged(seen, verb):
    error = RateLimitError("of a guardrail")

    def refuse(*_arguments):
        raise error

    guardrails.register_tool_conditional_execution("g", 1, refuse)
    guardrails.register_llm_conditional_execution("g", 1, refuse)
    try:
        with pytest.raises(RateLimitError) as caught:
            MANAGED[verb](lambda argument: ToolExecutionResult(1))
    finally:
        guardrails.deregister_tool_conditional_execution("g")
        guardrails.deregister_llm_conditional_execution("g")
    assert caught.value is error


@pytest.mark.parametrize("verb", ["llm.execute", "llm.execute_sync"])
def test_a_managed_call_returns_what_its_callable_returned(seen, verb):
    answer = object()
    assert MANAGED[verb](lambda request: answer) is answer


def test_with_guardrails_and_intercepts_a_tool_gets_the_very_arguments(seen):
    guardrails.register_tool_conditional_execution("g", 1, lambda name, args: None)
    intercepts.register_tool_request("i", 1, False, lambda name, args: args)
    args, given = {"image": b"\x89PNG", "caption": "cat"}, []
    try:
        tools.execute_sync("t", args, lambda args: given.append(args) or ToolExecutionResult(1))
    finally:
        guardrails.deregister_tool_conditional_execution("g")
        intercepts.deregister_tool_request("i")
    assert given[0] is args


def test_through_an_execution_intercept_arguments_and_results_go_as_they_are(seen):
    async def passes_on(name, args, next_call):
        return relay_mp.ToolExecutionInterceptOutcome((await next_call({**args, "more": 1})).result)

    intercepts.register_tool_execution("i", 1, passes_on)
    image, answer, given = b"\x89PNG", {"answer": Foo()}, []

    def tool(args):
        given.append(args)
        return ToolExecutionResult(answer)

    try:
        result = tools.execute_sync("t", {"image": image}, tool)
    finally:
        intercepts.deregister_tool_execution("i")
    assert given == [{"image": image, "more": 1}]
    assert result.result is answer
    assert ends(seen)["t"].data == {"answer": marker("Foo")}


def test_an_intercept_sees_the_exception_itself(seen):
    async def saves(name, args, next_call):
        with contextlib.suppress(RateLimitError):
            await next_call(args)
        return relay_mp.ToolExecutionInterceptOutcome("saved")

    intercepts.register_tool_execution("i", 1, saves)
    try:
        for result in (
            asyncio.run(tools.execute("t", {}, raising(RateLimitError()))),
            tools.execute_sync("t", {}, raising(RateLimitError())),
        ):
            assert result.result == "saved"
    finally:
        intercepts.deregister_tool_execution("i")


async def chunks(_request):
    with scope.scope("source", ScopeType.Function):
        for text in "abc":
            yield {"text": text}


def sync_chunks(_request):
    with scope.scope("source", ScopeType.Function):
        for text in "abc":
            yield {"text": text}


def test_a_synchronous_stream_is_read_to_its_end_closed_and_left(seen):
    texts = []
    with scope.scope("reader", ScopeType.Agent):
        for chunk in llm.stream_execute_sync("p", REQUEST, sync_chunks, texts.append, lambda: len(texts)):
            scope.event("read", data=chunk)
        with llm.stream_execute_sync("q", REQUEST, sync_chunks, texts.append, lambda: "left") as stream:
            next(stream)
        stream.close()
    found = ends(seen)
    assert (found["p"].data, found["p"].metadata["otel.status_code"]) == (3, "OK")
    assert (found["q"].data, found["q"].metadata["otel.status_code"]) == ("left", "ERROR")
    assert parents(seen)["read"] == "reader"


def test_an_asynchronous_reader_takes_a_synchronous_stream_as_it_is(seen):
    async def main():
        texts = []
        async with await llm.stream_execute("p", REQUEST, sync_chunks, texts.append, lambda: len(texts)) as stream:
            return [chunk async for chunk in stream]

    assert asyncio.run(main()) == [{"text": text} for text in "abc"]
    assert ends(seen)["p"].data == 3


def test_a_synchronous_call_of_what_waits_says_which_form_to_use(seen):
    async def waits(_args):
        await asyncio.sleep(0)

    with pytest.raises(relay_mp.MiddlewareError, match="asynchronous form"):
        tools.execute_sync("t", {}, waits)
    assert flushed(seen) == [("t", "start"), ("t", "end")]


class Waits:
    """What a callable is given back that can be awaited, and says whether anybody began to."""

    begun = False

    def __await__(self):
        Waits.begun = True
        yield


@pytest.mark.parametrize("verb", ["tools.execute_sync", "llm.execute_sync", "llm.stream_execute_sync"])
def test_a_synchronous_call_does_not_begin_what_its_callable_wants_awaited(seen, verb):
    with pytest.raises(relay_mp.MiddlewareError, match="asynchronous form"):
        MANAGED[verb](lambda _given: Waits())
    assert not Waits.begun
    (end,) = ends(seen).values()
    assert end.metadata["otel.status_code"] == "ERROR"


def test_an_intercept_that_waits_in_a_synchronous_call_is_told_so_where_it_waits(seen):
    cleaned = []

    class Connection:
        def __await__(self):
            try:
                yield
            finally:
                cleaned.append(1)
                yield  # as the clients do that close their connection asynchronously

    async def waits(_name, _args, _next_call):
        await Connection()

    intercepts.register_tool_execution("waits", 0, waits)
    try:
        with pytest.raises(relay_mp.MiddlewareError, match="waits for something asynchronous"):
            tools.execute_sync("t", {}, lambda _args: ToolExecutionResult(1))
    finally:
        intercepts.deregister_tool_execution("waits")
    assert cleaned == [1]


@pytest.mark.parametrize("verb", ["tools.execute_sync", "llm.execute_sync"])
def test_a_stop_iteration_comes_out_of_a_synchronous_call(verb):
    raised = StopIteration("no more")
    with pytest.raises(StopIteration) as caught:
        MANAGED[verb](raising(raised))
    assert caught.value is raised
    assert raised.__cause__ is None


def test_an_error_that_only_looks_like_a_stop_iteration_stays_itself():
    def fails(_args):
        return next(item for item in [next(iter([]))])

    with pytest.raises(StopIteration):
        tools.execute_sync("t", {}, fails)

    def generator():
        yield next(iter([]))

    with pytest.raises(RuntimeError, match="generator raised StopIteration"):
        tools.execute_sync("t", {}, lambda _args: list(generator()))
    stream = llm.stream_execute_sync("p", REQUEST, lambda _request: generator(), print, lambda: None)
    with pytest.raises(RuntimeError, match="generator raised StopIteration"):
        list(stream)


@pytest.mark.parametrize("family", ["tool_conditional_execution", "tool_sanitize_request"])
def test_a_timeout_error_of_asynchronous_middleware_is_not_taken_for_the_limit_of_its_time(family):
    async def fails(*_given):
        raise TimeoutError("the policy server did not answer")

    getattr(guardrails, f"register_{family}")("fails", 0, fails)
    try:
        if family == "tool_conditional_execution":
            with pytest.raises(TimeoutError, match="policy server"):
                tools.execute_sync("t", {}, lambda _args: ToolExecutionResult(1))
        else:
            assert tools.execute_sync("t", {}, lambda _args: ToolExecutionResult(1)).result == 1
    finally:
        getattr(guardrails, f"deregister_{family}")("fails")


class ClientStream:
    """A stream as `openai.AsyncStream` is one: its iterator is another object, and closing that does not close it."""

    def __init__(self):
        self.closed = 0

    async def __aiter__(self):
        for text in "abc":
            yield {"text": text}

    async def close(self):
        self.closed += 1


class EventStream:
    """A stream as botocore's: an iterable that is closed, and no iterator."""

    def __init__(self):
        self.closed = 0

    def __iter__(self):
        return iter([{"text": text} for text in "abc"])

    def close(self):
        self.closed += 1


async def through(request, next_call):
    return await next_call(request)


@pytest.mark.parametrize("intercepted", [False, True])
@pytest.mark.parametrize("read", [0, 1, 3])
@pytest.mark.parametrize("kind", [ClientStream, EventStream])
def test_a_stream_of_a_client_is_closed_however_much_of_it_was_read(kind, read, intercepted):
    given = kind()

    async def main():
        async with await llm.stream_execute("p", REQUEST, lambda _request: given, list, lambda: None) as stream:
            for _ in range(read):
                await anext(stream)

    if intercepted:
        intercepts.register_llm_stream_execution("through", 0, through)
    try:
        asyncio.run(main())
    finally:
        if intercepted:
            intercepts.deregister_llm_stream_execution("through")
    assert given.closed == 1


def test_a_stream_that_is_in_use_refuses_a_second_reader():
    def close(_chunk):
        stream.close()

    stream = llm.stream_execute_sync("p", REQUEST, sync_chunks, close, lambda: None)
    with pytest.raises(RuntimeError, match="in use"):
        next(stream)
    stream.close()


# ------------------------------------------------- 2: what cannot be recorded is replaced and counted


class Foo:
    """No event can have one."""


class Response:
    """As an SDK's response: knows how to be JSON, with a field that is not."""

    def __init__(self, method):
        setattr(type(self), method, lambda self, **options: {"id": 1, "odd": Foo()})


class Dumps(Response):
    def __init__(self):
        super().__init__("model_dump")


class ToDict(Response):
    def __init__(self):
        super().__init__("to_dict")


class WithAttrs:
    __attrs_attrs__ = (types.SimpleNamespace(name="id"), types.SimpleNamespace(name="odd"))

    def __init__(self):
        self.id, self.odd = 1, Foo()


class Fails:
    def to_dict(self):
        raise RateLimitError("while it was converted")


class Empties:
    """Empties the dict that it is in while that is encoded."""

    def __init__(self):
        self.container = {}

    def to_dict(self):
        self.container.clear()
        return {}


def deep(levels):
    found = "bottom"
    for _ in range(levels):
        found = [found]
    return found


def marker(kind):
    return {"relay_mp.unrecorded": {"type": kind}}


REPLACED = {
    "object": (Foo(), marker("Foo")),
    "bytes": (b"x", marker("bytes")),
    "function": (print, marker("builtin_function_or_method")),
    "conversion that raises": (Fails(), marker("Fails")),
    "lone surrogate": ("a\ud800b", "a\ufffdb"),
    "file name that is not UTF-8": (os.fsdecode(b"\xe9.txt"), "\ufffd.txt"),
    "large int": (2**64, "18446744073709551616"),
    "int below": (-(2**63) - 1, "-9223372036854775809"),
    "Decimal": (decimal.Decimal("1.50"), "1.50"),
    "int key": ({1: 2, "b": 3}, {"1": 2, "b": 3}),
    "None key": ({None: 2}, {"null": 2}),
    "below an int key": ({0: {(1, 2): Foo()}}, {"0": {"(1, 2)": marker("Foo")}}),
    "key with a lone surrogate": ({"\ud800": 2}, {"\ufffd": 2}),
    "model_dump": (Dumps(), {"id": 1, "odd": marker("Foo")}),
    "to_dict": (ToDict(), {"id": 1, "odd": marker("Foo")}),
    "attrs": (WithAttrs(), {"id": 1, "odd": marker("Foo")}),
}


@pytest.mark.parametrize("kind", REPLACED)
def test_what_cannot_be_recorded_is_replaced_in_its_place_and_its_neighbours_stay(seen, session, kind):
    value, expected = REPLACED[kind]
    scope.event("m", data={"before": 1, "list": [0, value, 2], "after": "x"}, metadata={"v": value})
    with scope.scope("s", ScopeType.Tool, input={"v": value}, data={"v": value}, metadata={"v": value}) as handle:
        assert handle.data == {"v": expected}
    subscribers.flush()
    mark, start, end = seen
    assert mark.data == {"before": 1, "list": [0, expected, 2], "after": "x"}
    assert mark.metadata == start.data == {"v": expected}
    assert end.metadata["v"] == expected
    # The two of the mark; the scope's input and data; its metadata, once for the handle and once for the start event.
    assert session.stats().replaced == 6 * (3 if kind == "below an int key" else 1)


@pytest.mark.parametrize("kind", REPLACED)
def test_in_strict_mode_it_is_an_error_that_names_the_path_and_the_stack_is_as_it_was(kind):
    value = {"list": [0, REPLACED[kind][0]]}
    events = []
    with relay_mp.session(strict=True):
        subscribers.register("seen", events.append)
        with scope.scope("outer", ScopeType.Agent) as outer:
            for argument in ("input", "data", "metadata"):
                path = "data" if argument == "input" else argument
                with pytest.raises(relay_mp.PayloadError, match=rf"^{path}\.list\[1\]"):
                    scope.push("s", ScopeType.Agent, **{argument: value})
            with pytest.raises(relay_mp.PayloadError, match=r"^data\.list\[1\]"):
                scope.event("m", data=value)
            assert scope.get_handle() is outer
        subscribers.flush()
    assert [event.name for event in events] == ["outer", "outer"]


def test_strict_mode_can_be_had_from_the_environment_and_holds_in_workers(run_script):
    found = run_script(
        """
import multiprocessing
import relay_mp
def work(results):
    try:
        relay_mp.scope.event("m", data={"a": b"x"})
    except relay_mp.PayloadError as error:
        results.put(str(error))
if __name__ == "__main__":
    relay_mp.subscribers.register("s", id)
    results = multiprocessing.get_context("fork").SimpleQueue()
    child = multiprocessing.get_context("fork").Process(target=work, args=(results,))
    child.start()
    print(results.get())
    child.join()
""",
        environment={"RELAY_MP_STRICT": "1"},
    )
    assert found.stdout.startswith("data.a: unsupported type bytes")


def test_each_place_and_type_is_told_of_once_with_its_path(seen, session, caplog):
    with caplog.at_level(logging.WARNING, "relay_mp"):
        for number in range(20):
            scope.event("m", data={"told_once": [{"image": b"x"}] * number, "other": Foo()})
        subscribers.flush()
    told = [record.getMessage() for record in caplog.records if "cannot be recorded" in record.getMessage()]
    assert [text.partition(" cannot")[0] for text in told] == ["data.other", "data.told_once[0].image"]
    assert "stats().replaced counts" in told[0]
    assert "RELAY_MP_STRICT=1" in told[0]
    assert session.stats().replaced == 20 + sum(range(20))


def test_a_name_with_a_lone_surrogate_is_mended(seen, session):
    scope.event("m\ud800")
    with scope.scope("s\udfff", ScopeType.Agent):
        pass
    subscribers.flush()
    assert [event.name for event in seen] == ["m\ufffd", "s\ufffd", "s\ufffd"]
    assert session.stats().replaced == 3


def test_a_measurement_that_is_not_finite_is_dropped_alone(seen, session):
    def measurement(name, value):
        return relay_mp.MetricMeasurement(name, relay_mp.MetricKind.Gauge, relay_mp.MetricValueType.F64, value)

    scope.metric("measured", [measurement("a", float("nan")), measurement("b", 1.0), measurement("c", float("inf"))])
    scope.metric("nothing left", [measurement("a", float("nan"))])
    subscribers.flush()
    (mark,) = seen
    assert [found["name"] for found in mark.data["measurements"]] == ["b"]
    assert session.stats().replaced == 3


def test_what_is_too_deep_is_cut_at_its_place(seen, session):
    loop = {"sound": 1}
    loop["again"] = loop
    scope.event("deep", data={"deep": deep(1000), "neighbour": 1})
    scope.event("cyclic", data=loop)
    subscribers.flush()
    found = seen[0].data
    assert found["neighbour"] == 1
    while isinstance(found, list | dict) and "relay_mp.cut" not in found:
        found = found["deep"] if "deep" in found else found[0]
    assert found == {"relay_mp.cut": {"depth": 128}}
    assert seen[1].data["again"]["again"]["sound"] == 1
    assert session.stats().replaced == 2


@pytest.mark.parametrize("session", [{"max_event_bytes": 65536}], indirect=True)
def test_what_is_too_large_is_cut_at_the_leaf(seen, session):
    image = "x" * 2_000_000
    scope.event("m", data={"image": image, "caption": "cat", "more": [image, "y" * 100]}, metadata={"kept": 1})
    subscribers.flush()
    cut = {"relay_mp.cut": {"bytes": 2_000_005}}
    assert seen[0].data == {"image": cut, "caption": "cat", "more": [cut, "y" * 100]}
    assert seen[0].metadata == {"kept": 1}
    assert (session.stats().cut, session.stats().lost) == (1, 0)


def test_a_dict_that_changes_while_it_is_encoded_is_replaced_as_a_whole(seen, session):
    empties = Empties()
    empties.container.update(a=1, empties=empties, b=2)
    scope.event("m", data={"changing": empties.container, "neighbour": 1})
    subscribers.flush()
    assert seen[0].data == {"changing": marker("dict"), "neighbour": 1}
    assert session.stats().replaced == 1


def test_an_answer_that_cannot_be_recorded_is_returned_as_it_is(seen):
    answer = Dumps()
    assert llm.execute_sync("p", REQUEST, lambda request: answer) is answer
    assert ends(seen)["p"].data == {"id": 1, "odd": marker("Foo")}


# ------------------------------------------------- 3: leaving a block never raises and hides no exception


def rows(name, count=3):
    with scope.scope(name, ScopeType.Function):
        yield from range(count)


async def async_rows(name, count=3):
    with scope.scope(name, ScopeType.Function):
        for number in range(count):
            yield number


def leave_by_break():
    for _ in rows("inner"):
        break


def leave_by_return():
    for number in rows("inner"):
        return number
    return None


def leave_by_exception():
    for _ in rows("inner"):
        raise KeyError("the program's own")


def hold():
    reader = rows("inner")
    next(reader)
    return reader


def read_in_turns():
    first, second = rows("inner", 1), rows("second", 2)
    next(first), next(second)
    return list(first), list(second)


def read_by_zip():
    return list(zip(rows("inner", 2), rows("second", 3), strict=False))


@pytest.mark.parametrize(
    "work", [leave_by_break, leave_by_return, leave_by_exception, hold, read_in_turns, read_by_zip]
)
def test_a_generator_that_is_left_early_harms_no_block_around_it(seen, work):
    held = []
    with contextlib.suppress(KeyError), scope.scope("outer", ScopeType.Agent):
        held.append(work())
    scope.event("after")
    for reader in held:
        if inspect.isgenerator(reader):
            reader.close()
    found = flushed(seen)
    assert found.count(("outer", "end")) == 1
    assert found.count(("inner", "end")) == 1
    assert parents(seen)["after"] is None
    assert parents(seen)["inner"] == "outer"


def test_an_asynchronous_generator_that_is_left_early_hides_no_exception(seen):
    async def main():
        with scope.scope("outer", ScopeType.Agent):
            async for _ in async_rows("inner"):
                raise KeyError("the program's own")

    with pytest.raises(KeyError):
        asyncio.run(main())
    assert flushed(seen).count(("outer", "end")) == 1


# ------------------------------------------------- 4: a scope around work that happens later spans that work

work = scope.scope("work", ScopeType.Function)


@work
def generator():
    scope.event("inside")
    received = yield 1
    scope.event("inside again", data=received)
    return "done"


@work
async def async_generator():
    scope.event("inside")
    yield 1


@work
async def coroutine(value=None):
    scope.event("inside")
    await asyncio.sleep(0)
    return value


def behind_a_wrapper(function):
    def call():
        return function()

    return call


async def plain_coroutine(value=None):
    scope.event("inside")
    await asyncio.sleep(0)
    return value


class Callable:
    async def __call__(self):
        scope.event("inside")
        await asyncio.sleep(0)


class Methods:
    @work
    def method(self):
        scope.event("inside")

    @work
    @staticmethod
    def static():
        scope.event("inside")

    @work
    @classmethod
    def of_class(cls):
        scope.event("inside")


async def read(source):
    return [item async for item in source]


LATER = {
    "generator": lambda: list(generator()),
    "asynchronous generator": lambda: asyncio.run(read(async_generator())),
    "coroutine": lambda: asyncio.run(coroutine()),
    "partial": lambda: asyncio.run(work(functools.partial(plain_coroutine, 1))()),
    "behind a plain wrapper": lambda: asyncio.run(work(behind_a_wrapper(plain_coroutine))()),
    "generator behind a plain wrapper": lambda: list(work(behind_a_wrapper(generator.__wrapped__))()),
    "asynchronous generator behind one": lambda: asyncio.run(
        read(work(behind_a_wrapper(async_generator.__wrapped__))())
    ),
    "asynchronous __call__": lambda: asyncio.run(work(Callable())()),
    "method": Methods().method,
    "static method": Methods().static,
    "static method of the class": Methods.static,
    "class method": Methods.of_class,
}


@pytest.mark.parametrize("kind", LATER)
def test_a_decorated_callable_works_inside_its_scope(seen, kind):
    LATER[kind]()
    scope.event("after")
    found = parents(seen)
    assert found["inside"] == "work"
    assert found["after"] is None
    assert flushed(seen)[0] == ("work", "start")
    assert flushed(seen)[-2] == ("work", "end")


def test_the_scope_of_a_generator_is_not_its_readers(seen):
    reader = generator()
    next(reader)
    scope.event("between")
    with pytest.raises(StopIteration) as stopped:
        reader.send("sent")
    assert stopped.value.value == "done"
    assert parents(seen) == {"work": None, "inside": "work", "between": None, "inside again": "work"}


@pytest.mark.parametrize(
    ("ask", "function"),
    [
        (inspect.isgeneratorfunction, generator),
        (inspect.isasyncgenfunction, async_generator),
        (inspect.iscoroutinefunction, coroutine),
        (inspect.iscoroutinefunction, work(functools.partial(plain_coroutine))),
    ],
)
def test_inspect_says_of_the_result_what_it_says_of_the_function(ask, function):
    assert ask(function)


def test_work_that_is_dropped_before_it_begins_ends_its_scope(seen):
    later = work(behind_a_wrapper(plain_coroutine))()
    with pytest.warns(RuntimeWarning):
        del later
    assert flushed(seen) == [("work", "start"), ("work", "end")]


def test_exceptions_go_through_a_decorated_generator(seen):
    @work
    def fails():
        try:
            yield 1
        except KeyError:
            yield "caught"
        raise RateLimitError("of the body")

    reader = fails()
    next(reader)
    assert reader.throw(KeyError()) == "caught"
    with pytest.raises(RateLimitError):
        next(reader)
    assert ends(seen)["work"].metadata["exception.message"] == "of the body"


# ------------------------------------------------- 5: a managed call is a scope


@pytest.mark.parametrize("is_async", [False, True])
def test_what_runs_inside_a_managed_call_is_its_child(seen, is_async):
    def model(_request):
        scope.event("in the model")
        return {}

    def sync_tool(_args):
        llm.execute_sync("model", REQUEST, model)
        with scope.scope("agent in the tool", ScopeType.Agent):
            tools.call_end(tools.call("inner", {}), ToolExecutionResult(1))
        return ToolExecutionResult(1)

    async def async_tool(_args):
        await llm.execute("model", REQUEST, model)
        return sync_tool(_args)

    if is_async:
        asyncio.run(tools.execute("tool", {}, async_tool))
    else:
        tools.execute_sync("tool", {}, sync_tool)
    scope.event("after")
    assert parents(seen) == {
        "tool": None, "model": "tool", "in the model": "model", "agent in the tool": "tool",
        "inner": "agent in the tool", "after": None,
    }  # fmt: skip


def test_the_source_of_a_stream_is_in_the_call_and_its_reader_is_not(seen):
    async def main():
        with scope.scope("reader", ScopeType.Agent):
            async for _ in await llm.stream_execute("p", REQUEST, chunks, lambda chunk: None, lambda: None):
                scope.event("read")

    asyncio.run(main())
    found = parents(seen)
    assert (found["p"], found["source"], found["read"]) == ("reader", "p", "reader")


def test_a_call_is_what_propagation_captures_inside(seen):
    captured = []
    with scope.scope("run", ScopeType.Agent):
        tools.execute_sync(
            "t", {}, lambda args: captured.append(relay_mp.capture_propagation_context()) or ToolExecutionResult(1)
        )
    assert captured[0].parent_uuid == ends(seen)["t"].uuid


# ------------------------------------------------- 6: a parent is right or absent

POOLS = """
import concurrent.futures, json, multiprocessing, sys
import relay_mp
from relay_mp import ScopeType, scope, subscribers

def work(name):
    with scope.scope(f"work for {name}", ScopeType.Tool): pass

if __name__ == "__main__":
    names, seen = {}, []
    context = multiprocessing.get_context(sys.argv[2])
    make = {
        "executor": lambda: concurrent.futures.ProcessPoolExecutor(1, mp_context=context),
        "pool": lambda: context.Pool(1),
    }[sys.argv[1]]
    with relay_mp.session():
        subscribers.register("s", seen.append)
        with scope.scope("A", ScopeType.Agent):
            with make() as pool:
                list(pool.map(work, ["x", "y"]))
            child = multiprocessing.get_context("fork").Process(target=work, args=("child",))
            child.start(), child.join()
        subscribers.flush()
    names = {e.uuid: e.name for e in seen}
    found = {e.name: names.get(e.parent_uuid) for e in seen if getattr(e, "scope_category", "") == "start"}
    print(json.dumps(found))
"""


@pytest.mark.parametrize("start_method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("pool", ["executor", "pool"])
def test_a_task_that_nobody_carries_the_scope_to_is_a_root_and_the_worker_says_how(tmp_path, pool, start_method):
    (tmp_path / "program.py").write_text(POOLS)
    ran = subprocess.run(
        [sys.executable, "program.py", pool, start_method],
        cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True,
    )  # fmt: skip
    assert json.loads(ran.stdout) == {"A": None, "work for x": None, "work for y": None, "work for child": "A"}
    assert ran.stderr.count("relay_mp.pools.propagate") == 1


TWO_OWNERS = """
import pickle, subprocess, sys, threading
import relay_mp
from relay_mp import ScopeType, pools, scope, subscribers

started, go_on = threading.Event(), threading.Event()

def task(name):
    with scope.scope(f"task of {name}", ScopeType.Tool):
        started.set()
        assert go_on.wait(60)
        scope.event(f"inside of {name}")

def owner(name):
    seen = []
    with relay_mp.session():
        subscribers.register("s", seen.append)
        with scope.scope(f"run of {name}", ScopeType.Agent):
            print(pickle.dumps(pools.propagate(task)).hex(), flush=True)
            sys.stdin.readline()
        subscribers.flush()
    print([event.name for event in seen if getattr(event, "scope_category", "mark") != "end"])

def worker():
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    owners = [subprocess.Popen([sys.executable, __file__, name], **pipes) for name in "AB"]
    first, second = [pickle.loads(bytes.fromhex(owner.stdout.readline())) for owner in owners]
    running = threading.Thread(target=first, args=("A",))
    running.start()
    assert started.wait(60)
    try:
        second("B")
    except relay_mp.SessionError as error:
        print("refused:", error)
    go_on.set()
    running.join()
    second("B")
    for owner in owners:
        print(owner.communicate("end")[0].strip())

if __name__ == "__main__":
    owner(sys.argv[1]) if len(sys.argv) > 1 else worker()
"""


def test_a_task_of_another_session_is_refused_while_one_of_the_first_runs(tmp_path):
    (tmp_path / "program.py").write_text(TWO_OWNERS)
    ran = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    refused, *streams = ran.stdout.splitlines()
    assert refused.startswith("refused: ")
    assert streams == [str([f"run of {name}", f"task of {name}", f"inside of {name}"]) for name in "AB"]


# ------------------------------------------------- 7: an exception in a scope leaves what it was


def fail_deep(depth):
    if depth:
        fail_deep(depth - 1)
    raise RateLimitError("x" * 10_000)


def test_an_exception_leaves_its_type_message_and_stack_trace_bounded(seen):
    with contextlib.suppress(RateLimitError), scope.scope("s", ScopeType.Agent):
        fail_deep(500)
    found = ends(seen)["s"].metadata
    assert found["exception.type"].endswith("RateLimitError")
    assert found["exception.message"].startswith("xxx")
    assert len(found["exception.message"]) < 5000
    assert "fail_deep" not in found["exception.message"]
    assert len(found["exception.stacktrace"]) < 9000
    assert found["otel.status_code"] == "ERROR"


def test_stack_traces_can_be_switched_off(seen, monkeypatch):
    monkeypatch.setenv("RELAY_MP_STACKTRACES", "0")
    with contextlib.suppress(RateLimitError), scope.scope("s", ScopeType.Agent):
        raise RateLimitError("why")
    found = ends(seen)["s"].metadata
    assert "exception.stacktrace" not in found
    assert found["exception.message"] == "why"


# ------------------------------------------------- 9: the library's own noise is bounded


class Hostile(logging.Handler):
    def __init__(self, how):
        super().__init__()
        self.how = how
        self.go_on = threading.Event()

    def emit(self, record):
        if self.how == "raises":
            raise RuntimeError("the log receiver is down")
        if self.how == "emits":
            scope.event("log", data=record.getMessage()[:100])
        if self.how == "blocks":
            self.go_on.wait(TIMEOUT_SECONDS)


@pytest.mark.parametrize("how", ["raises", "emits", "blocks"])
def test_a_logging_handler_harms_neither_the_stream_nor_the_other_subscribers(seen, how):
    handler = Hostile(how)
    logging.getLogger("relay_mp").addHandler(handler)
    calls = []

    def fails(_event):
        calls.append(1)
        raise RateLimitError("of the subscriber")

    subscribers.register("fails", fails)
    try:
        for _ in range(100):
            scope.event("m")
        names = [name for name, _ in flushed(seen)]
        assert names.count("m") == 100
        assert len(calls) < 110
    finally:
        handler.go_on.set()
        logging.getLogger("relay_mp").removeHandler(handler)


def test_a_subscriber_that_fails_each_time_is_told_of_once_and_then_counted(seen, session, caplog):
    def fails(_event):
        raise RateLimitError("of the subscriber")

    subscribers.register("fails", fails)
    with caplog.at_level(logging.ERROR, "relay_mp"):
        for _ in range(1000):
            scope.event("m")
        subscribers.flush()
    assert len([record for record in caplog.records if "'fails' failed" in record.getMessage()]) == 1
    assert session.stats().subscriber_errors == 1000


# ------------------------------------------------- and all of it at once: the same program, heard and unheard


class Flaky(Exception):
    """Raised by programs."""


ODD_VALUES = st.one_of(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.decimals(),
    st.builds(Foo), st.builds(Dumps), st.builds(Fails), st.builds(Empties), st.just("\ud800"), st.just(print),
)  # fmt: skip
VALUES = st.recursive(
    ODD_VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=6,
)
OUTCOMES = st.sampled_from(["return", "raise", "cancel", "exit"])
STEPS = st.recursive(
    st.tuples(st.sampled_from(["mark", "metric"]), VALUES)
    | st.tuples(st.sampled_from(["tool", "llm", "sync tool", "sync llm"]), VALUES, OUTCOMES)
    | st.tuples(st.sampled_from(["generator", "stream", "sync stream"]), VALUES, OUTCOMES, st.integers(0, 3)),
    lambda inner: st.tuples(st.just("scope"), VALUES, OUTCOMES, st.lists(inner, max_size=3)),
    max_leaves=6,
)


class Program:
    """Runs steps, and notes what each gave: results and exceptions by identity, since both runs share their values."""

    def __init__(self):
        self.noted = []

    async def run(self, steps):
        for verb, value, *rest in steps:
            try:
                found = await getattr(self, verb.replace(" ", "_"))(value, *rest)
                self.noted.append((verb, "gave", found if isinstance(found, int) else id(found)))
            except BaseException as error:  # a cancellation, too, and what ends the program
                self.noted.append((verb, type(error), str(error), type(error.__cause__), type(error.__context__)))

    def end(self, outcome, value):
        if outcome == "return":
            return value
        raise {"raise": Flaky, "cancel": asyncio.CancelledError, "exit": SystemExit}[outcome]("by the program")

    async def mark(self, value):
        return scope.event("mark", data=value, metadata={"v": value})

    async def metric(self, value):
        is_number = isinstance(value, float)
        measured = value if is_number else 1.0
        kinds = relay_mp.MetricKind.Gauge, relay_mp.MetricValueType.F64
        return scope.metric("metric", [relay_mp.MetricMeasurement("m", *kinds, measured)])

    async def scope(self, value, outcome, steps):
        with scope.scope("scope", ScopeType.Agent, input=value, data=value, metadata={"v": value}):
            await self.run(steps)
            return self.end(outcome, value)

    async def tool(self, value, outcome):
        result = await tools.execute("tool", value, lambda args: self.end(outcome, ToolExecutionResult(args)))
        assert result.result is value
        return result.result

    async def sync_tool(self, value, outcome):
        return tools.execute_sync("tool", value, lambda args: self.end(outcome, ToolExecutionResult(args))).result

    async def llm(self, value, outcome):
        request = LLMRequest({}, {"v": value})
        return await llm.execute("llm", request, lambda request: self.end(outcome, value))

    async def sync_llm(self, value, outcome):
        return llm.execute_sync("llm", LLMRequest({}, {"v": value}), lambda request: self.end(outcome, value))

    async def generator(self, value, outcome, taken):
        @scope.scope("generator", ScopeType.Function, input=value)
        def numbers():
            yield from range(2)
            return self.end(outcome, value)

        return sum(number for _, number in zip(range(taken), numbers(), strict=False))

    def chunks(self, value, outcome):
        yield value
        yield value
        self.end(outcome, value)

    async def stream(self, value, outcome, taken):
        read = []
        found = await llm.stream_execute(
            "s", REQUEST, lambda request: self.chunks(value, outcome), read.append, lambda: read
        )
        async with found as chunks:
            for _ in range(taken):
                assert await anext(chunks, value) is value
        return len(read)

    async def sync_stream(self, value, outcome, taken):
        read = []
        with llm.stream_execute_sync(
            "s", REQUEST, lambda request: self.chunks(value, outcome), read.append, lambda: read
        ) as chunks:
            for _ in range(taken):
                assert next(chunks, value) is value
        return len(read)


def what_it_gets(steps):
    program = Program()
    asyncio.run(program.run(steps))
    assert scope.get_handle().name == "root"
    return program.noted


def compare_heard_and_unheard(steps):
    unheard = what_it_gets(steps)
    subscribers.register("hears", lambda event: event.to_dict())
    try:
        heard = what_it_gets(steps)
        assert subscribers.flush().lost == 0
    finally:
        subscribers.deregister("hears")
    assert heard == unheard


@given(st.lists(STEPS, max_size=4))
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_a_program_gets_the_same_whether_or_not_somebody_subscribes(session, steps):
    compare_heard_and_unheard(steps)


@pytest.mark.long
@given(st.lists(STEPS, max_size=4))
@hypothesis.settings(max_examples=500, suppress_health_check=list(hypothesis.HealthCheck))
def test_many_programs_get_the_same_whether_or_not_somebody_subscribes(session, steps):
    compare_heard_and_unheard(steps)


# ------------------------------------------------- what is said at the end


def test_the_line_at_close_says_what_was_cut_and_replaced(capfd):
    with relay_mp.session(max_event_bytes=1024):
        subscribers.register("hears", id)
        scope.event("m", data={"large": "x" * 5000, "odd": Foo()})
        scope.event("m", data=Foo())
    (line,) = capfd.readouterr().err.splitlines()[-1:]
    assert line.startswith("relay_mp: 2 events emitted, 2 delivered, 0 lost")
    assert line.endswith("1 cut to max_event_bytes, 2 values replaced that cannot be recorded")


def test_a_session_that_recorded_all_says_nothing_at_close(capfd):
    with relay_mp.session():
        subscribers.register("hears", id)
        scope.event("m", data={"a": 1})
    assert capfd.readouterr().err == ""
