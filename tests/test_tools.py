"""Tool calls: manual and managed, and what bad input does to them."""

import asyncio
import gc
import pickle
from datetime import UTC, datetime, timedelta

import pytest

import relay_mp
from relay_mp import PendingMarkSpec, ScopeType, ToolAttributes, ToolExecutionInterceptOutcome, ToolExecutionResult

strict = pytest.mark.parametrize("session", [{"strict": True}], indirect=True, ids=["strict"])
CYCLIC: list = []
CYCLIC.append(CYCLIC)


def plain(args):
    return ToolExecutionResult({"got": args})


def run(coroutine):
    return asyncio.run(coroutine)


def shape(events):
    return [(e.kind, getattr(e, "scope_category", None), e.name, e.data) for e in events]


@pytest.fixture(autouse=True)
def _no_middleware_left():
    yield
    assert relay_mp.runtime_registrations.list_runtime_registrations() == []


# ------------------------------------------------------------------------------------------- manual


def test_manual_call_is_a_pair_of_events(session, seen):
    with relay_mp.scope.scope("agent", ScopeType.Agent) as scope:
        handle = relay_mp.tools.call(
            "search", {"q": 1}, data={"d": 1}, metadata={"m": 1}, tool_call_id="id", attributes=ToolAttributes(1)
        )
        relay_mp.tools.call_end(handle, ToolExecutionResult({"hits": 3}, annotation=["a"]), metadata={"n": 2})
    session.flush()
    _, start, end, _ = (event.to_dict() for event in seen)
    assert (start["uuid"], end["uuid"], start["parent_uuid"]) == (handle.uuid, handle.uuid, scope.uuid)
    assert (start["category"], start["attributes"]) == ("tool", ["remote"])
    assert (start["data"], start["metadata"], start["category_profile"]) == ({"q": 1}, {"m": 1}, {"tool_call_id": "id"})
    assert (end["data"], end["metadata"]) == ({"hits": 3}, {"m": 1, "n": 2})
    assert end["category_profile"] == {"tool_call_id": "id", "tool_result_annotation": ["a"]}
    assert (handle.name, handle.data, handle.metadata) == ("search", {"d": 1}, {"m": 1})
    assert handle.attributes.is_remote
    assert handle.parent_uuid == scope.uuid


def test_explicit_times_are_kept_and_a_time_left_out_is_later_than_the_start(session, seen):
    ahead = datetime(2100, 1, 1, tzinfo=UTC)
    relay_mp.tools.call_end(relay_mp.tools.call("t", 1, timestamp=ahead), ToolExecutionResult(1))
    early = ahead - timedelta(days=1)
    relay_mp.tools.call_end(relay_mp.tools.call("t", 1, timestamp=ahead), ToolExecutionResult(1), timestamp=early)
    session.flush()
    first, second, third, fourth = (event.timestamp_us for event in seen)
    assert second == first + 1
    assert (fourth - third) == -86_400_000_000


@strict
def test_bad_arguments_are_refused_and_emit_nothing(session, seen):
    before = relay_mp.scope.get_handle()
    for make, error in [
        (lambda: relay_mp.tools.call(3, 1), TypeError),
        (lambda: relay_mp.tools.call("t", object()), relay_mp.PayloadError),
        (lambda: relay_mp.tools.call("t", CYCLIC), relay_mp.PayloadError),
        (lambda: relay_mp.tools.call("t", 1, attributes=1), TypeError),
        (lambda: relay_mp.tools.call("t", 1, tool_call_id=1), TypeError),
        (lambda: relay_mp.tools.call("t", 1, handle="scope"), TypeError),
        (lambda: relay_mp.tools.call("t", 1, timestamp=datetime(2000, 1, 1)), ValueError),
        (lambda: relay_mp.tools.call("t", 1, timestamp="now"), TypeError),
        (lambda: relay_mp.tools.call("\ud800", 1), UnicodeEncodeError),
        (lambda: relay_mp.tools.call_end("t", ToolExecutionResult(1)), TypeError),
    ]:
        with pytest.raises(error):
            make()
    session.flush()
    assert seen == []
    assert relay_mp.scope.get_handle() == before


def test_an_end_wants_a_tool_execution_result(session, seen):
    handle = relay_mp.tools.call("t", 1)
    for result in ({"a": 1}, None, "text"):
        with pytest.raises(TypeError, match="ToolExecutionResult"):
            relay_mp.tools.call_end(handle, result)


def test_a_handle_pickles_and_is_ended_where_it_arrives(session, seen):
    handle = pickle.loads(pickle.dumps(relay_mp.tools.call("t", {"x": 1}, metadata={"m": 1}, tool_call_id="id")))
    relay_mp.tools.call_end(handle, ToolExecutionResult(1))
    session.flush()
    start, end = seen
    assert (end.uuid, end.metadata, end.category_profile) == (start.uuid, {"m": 1}, {"tool_call_id": "id"})


def test_values_pickle():
    mark = PendingMarkSpec("m", data={"a": 1}, severity=relay_mp.LogSeverity.Warn)
    request = relay_mp.LLMRequest({"a": "1"}, {"b": [2]})
    assert pickle.loads(pickle.dumps(mark)).data == {"a": 1}
    assert pickle.loads(pickle.dumps(request)).content == {"b": [2]}
    assert pickle.loads(pickle.dumps(ToolExecutionResult((1, 2), 3))).result == (1, 2)


def test_nothing_is_emitted_or_checked_while_nobody_listens():
    handle = relay_mp.tools.call("t", object())
    relay_mp.tools.call_end(handle, ToolExecutionResult(object()))
    result = object()
    assert run(relay_mp.tools.execute("t", object(), lambda args: ToolExecutionResult(result))).result is result


# ------------------------------------------------------------------------------------------ managed


@pytest.mark.parametrize("is_async", [False, True])
def test_managed_call_runs_the_tool_between_its_events(session, seen, is_async):
    async def tool(args):
        relay_mp.scope.event("inside")
        return plain(args)

    def sync_tool(args):
        relay_mp.scope.event("inside")
        return plain(args)

    result = run(relay_mp.tools.execute("t", {"x": 1}, tool if is_async else sync_tool, metadata={"m": 1}))
    session.flush()
    assert result.result == {"got": {"x": 1}}
    assert [e.name for e in seen] == ["t", "inside", "t"]
    assert seen[-1].metadata == {"m": 1, "otel.status_code": "OK"}
    assert seen[1].parent_uuid == seen[0].uuid


def test_the_same_objects_go_in_and_out_where_there_is_no_middleware(session, seen):
    args, result = (1, 2), ToolExecutionResult((3, 4))
    given = []
    assert run(relay_mp.tools.execute("t", args, lambda a: given.append(a) or result)) is result
    assert given[0] is args


def without_traces(metadata):
    return {key: value for key, value in metadata.items() if key != "exception.stacktrace"}


def test_an_exception_passes_and_ends_the_call_with_error(session, seen):
    def tool(args):
        raise KeyError("k")

    with pytest.raises(KeyError, match="k"):
        run(relay_mp.tools.execute("t", 1, tool, metadata={"m": 1}))
    session.flush()
    assert "in tool" in seen[-1].metadata["exception.stacktrace"]
    assert without_traces(seen[-1].metadata) == {
        "m": 1,
        "error.type": "KeyError",
        "exception.type": "KeyError",
        "exception.message": "'k'",
        "otel.status_code": "ERROR",
        "otel.status_description": "'k'",
    }


def test_an_error_from_an_inner_call_passes_both(session, seen):
    error = KeyError("deep")

    def inner(args):
        raise error

    async def outer(args):
        return await relay_mp.tools.execute("inner", 1, inner)

    with pytest.raises(KeyError) as caught:
        run(relay_mp.tools.execute("outer", 1, outer))
    assert caught.value is error
    session.flush()
    assert [e.metadata["exception.type"] for e in seen if e.scope_category == "end"] == ["KeyError", "KeyError"]


def test_what_ends_the_program_passes_and_the_end_is_unset(session, seen):
    def tool(interrupt):
        raise interrupts[interrupt]

    async def main():
        for name, interrupt in interrupts.items():
            with pytest.raises(interrupt):
                await relay_mp.tools.execute("t", name, tool)

    interrupts = {kind.__name__: kind for kind in (KeyboardInterrupt, SystemExit, GeneratorExit)}
    run(main())
    session.flush()
    unset = {"otel.status_code": "UNSET"}
    assert [without_traces(e.metadata) for e in seen if e.scope_category == "end"] == [
        {**unset, "exception.type": "KeyboardInterrupt", "exception.message": ""},
        {**unset, "exception.type": "SystemExit", "exception.message": ""},
        unset,
    ]


def test_cancellation_ends_the_call_and_passes(session, seen):
    async def tool(args):
        started.set()
        await asyncio.Event().wait()

    async def main():
        task = asyncio.create_task(relay_mp.tools.execute("t", 1, tool))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    started = asyncio.Event()
    run(main())
    session.flush()
    assert without_traces(seen[-1].metadata) == {
        "error.type": "asyncio.exceptions.CancelledError",
        "exception.type": "asyncio.exceptions.CancelledError",
        "exception.message": "",
        "otel.status_code": "ERROR",
        "otel.status_description": "cancelled",
    }


def test_a_tool_that_returns_no_result_fails_and_the_event_does_not_show_what_it_was(session, seen):
    results = iter([{"a": "secret"}, None, 3])
    for _ in range(3):
        with pytest.raises(relay_mp.CallbackError, match="ToolExecutionResult"):
            run(relay_mp.tools.execute("t", 1, lambda args: next(results)))
    session.flush()
    assert [e.metadata["error.type"] for e in seen if e.scope_category == "end"] == ["invalid_argument"] * 3
    assert not any("secret" in e.to_json() for e in seen)


ODD = [object(), CYCLIC, {1: 2}]
"""Values that no event can have as they are."""


def test_arguments_and_results_that_cannot_be_recorded_go_through_the_call_as_they_are(session, seen):
    for odd in ODD:
        given = []

        def tool(args, odd=odd, given=given):
            given.append(args)
            return ToolExecutionResult(odd)

        assert run(relay_mp.tools.execute("t", odd, tool)).result is odd
        assert given[0] is odd
    session.flush()
    assert {e.metadata["otel.status_code"] for e in seen if e.scope_category == "end"} == {"OK"}
    assert session.stats().replaced == 2 * len(ODD)


@strict
def test_in_strict_mode_a_result_that_cannot_be_recorded_fails_the_call_once(session, seen):
    results = iter(ODD)
    for _ in ODD:
        with pytest.raises(relay_mp.PayloadError, match="^data"):
            run(relay_mp.tools.execute("t", 1, lambda args: ToolExecutionResult(next(results))))
    session.flush()
    assert [e.scope_category for e in seen] == ["start", "end"] * 3
    assert {e.metadata["otel.status_code"] for e in seen if e.scope_category == "end"} == {"ERROR"}


@strict
def test_in_strict_mode_arguments_that_cannot_be_recorded_are_refused_before_the_tool_runs(session, seen):
    calls = []
    with pytest.raises(relay_mp.PayloadError):
        run(relay_mp.tools.execute("t", CYCLIC, calls.append))
    session.flush()
    assert (calls, seen) == ([], [])


def test_a_tool_that_cannot_be_called_fails_the_call(session, seen):
    for tool in (3, lambda a, b: None):
        with pytest.raises(TypeError):
            run(relay_mp.tools.execute("t", 1, tool))
    session.flush()
    assert [e.scope_category for e in seen] == ["start", "end"] * 2


def test_an_exception_whose_text_cannot_be_had_or_written(session, seen):
    class Silent(Exception):
        def __str__(self):
            raise ValueError

    for error in (Silent(), ValueError("\ud800")):

        def tool(args, error=error):
            raise error

        with pytest.raises(type(error)) as caught:
            run(relay_mp.tools.execute("t", 1, tool))
        assert caught.value is error
    session.flush()
    found = [e.metadata for e in seen if e.scope_category == "end"]
    assert [metadata["exception.type"].rpartition(".")[2] for metadata in found] == ["Silent", "ValueError"]
    assert [metadata["exception.message"] for metadata in found] == ["<Silent, whose text could not be had>", "\\ud800"]


def test_concurrent_calls_do_not_see_each_others_scopes(session, seen):
    async def tool(args):
        with relay_mp.scope.scope(f"scope {args}", ScopeType.Function):
            await asyncio.sleep(0)
            relay_mp.scope.event(f"mark {args}")
        return plain(args)

    async def main():
        with relay_mp.scope.scope("agent", ScopeType.Agent):
            await asyncio.gather(*(relay_mp.tools.execute("t", n, tool) for n in range(5)))

    run(main())
    session.flush()
    starts = {e.name: e.uuid for e in seen if e.kind == "scope" and e.scope_category == "start"}
    marks = {e.name: e.parent_uuid for e in seen if e.kind == "mark"}
    assert marks == {f"mark {n}": starts[f"scope {n}"] for n in range(5)}


# ------------------------------------------------------------------------- next_call, pending marks


@pytest.fixture
def intercept():
    """Registers an execution intercept for the test."""
    names = []

    def register(callback, priority=0):
        names.append(f"intercept {len(names)}")
        relay_mp.intercepts.register_tool_execution(names[-1], priority, callback)

    yield register
    for name in names:
        relay_mp.intercepts.deregister_tool_execution(name)


def test_an_intercept_that_never_calls_on_takes_the_tools_place(session, seen, intercept):
    calls = []
    intercept(lambda name, args, next_call: ToolExecutionInterceptOutcome("instead"))
    assert run(relay_mp.tools.execute("t", 1, calls.append)).result == "instead"
    session.flush()
    assert calls == []
    assert shape(seen) == [("scope", "start", "t", 1), ("scope", "end", "t", "instead")]


def test_calling_on_twice_and_at_once_runs_the_tool_so_often_in_branches_of_its_own(session, seen, intercept):
    async def tool(args):
        relay_mp.scope.push(f"left open {args}", ScopeType.Function)
        return plain(args)

    async def twice(name, args, next_call):
        before = relay_mp.scope.get_handle()
        results = [await next_call(1), *await asyncio.gather(next_call(2), next_call(3))]
        assert relay_mp.scope.get_handle() == before
        return ToolExecutionInterceptOutcome([r.result["got"] for r in results])

    intercept(twice)
    assert run(relay_mp.tools.execute("t", 0, tool)).result == [1, 2, 3]
    session.flush()
    opened = [e for e in seen if e.name.startswith("left open")]
    assert {e.parent_uuid for e in opened} == {seen[0].uuid}


def test_what_an_intercept_passes_on_reaches_the_tool_as_it_is(session, seen, intercept):
    async def passes_on(name, args, next_call):
        return ToolExecutionInterceptOutcome((await next_call(odd)).result)

    odd, given = object(), []
    intercept(passes_on)
    run(relay_mp.tools.execute("t", 1, lambda args: given.append(args) or ToolExecutionResult(2)))
    assert given == [odd]


def test_a_continuation_that_outlives_its_intercept_is_refused(session, seen, intercept):
    kept = []

    async def main():
        await relay_mp.tools.execute("t", 1, plain)
        with pytest.raises(relay_mp.CallbackError, match="has ended"):
            await kept[0](1)

    intercept(lambda name, args, next_call: kept.append(next_call) or ToolExecutionInterceptOutcome(1))
    run(main())


def test_pending_marks_come_after_the_end_inner_ones_first(session, seen, intercept):
    def marking(mark):
        async def callback(name, args, next_call):
            result = await next_call(args)
            return ToolExecutionInterceptOutcome(result.result, [PendingMarkSpec(mark, metadata=[1], severity=None)])

        return callback

    intercept(marking("outer"), 0)
    intercept(marking("inner"), 1)
    run(relay_mp.tools.execute("t", 1, plain))
    session.flush()
    assert [e.name for e in seen] == ["t", "t", "inner", "outer"]
    assert {e.parent_uuid for e in seen[2:]} == {seen[0].uuid}


def test_an_intercept_that_returns_what_it_must_not_fails_the_call(session, seen, intercept):
    returned = iter([None, {"a": 1}, ToolExecutionResult(1)])
    intercept(lambda name, args, next_call: next(returned))
    for _ in range(3):
        with pytest.raises(relay_mp.CallbackError, match="ToolExecutionInterceptOutcome"):
            run(relay_mp.tools.execute("t", 1, plain))
    session.flush()
    assert [e.scope_category for e in seen] == ["start", "end"] * 3


def test_an_intercept_sees_the_tools_exception_itself(session, seen, intercept):
    def tool(args):
        raise KeyError("k")

    async def saving(name, args, next_call):
        try:
            await next_call(args)
        except KeyError as error:
            return ToolExecutionInterceptOutcome(type(error).__name__)

    intercept(saving)
    assert run(relay_mp.tools.execute("t", 1, tool)).result == "KeyError"


def test_a_coroutine_that_is_never_awaited_emits_nothing(session, seen):
    relay_mp.tools.execute("t", 1, plain).close()
    gc.collect()
    session.flush()
    assert seen == []
