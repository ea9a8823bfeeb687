"""Scopes that another library begins and ends: `scope.begin`, `scope.end` and `scope.use`."""

import asyncio
import pickle
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

import relay_mp
from relay_mp import LLMRequest, ScopeType, llm, scope, tools
from relay_mp._emit.arguments import MIN_NANOSECONDS
from relay_mp.errors import PayloadError, PropagationError, ScopeError

UUID = "0123456789abcdef0123456789abcdef"
TRACE = "f0" * 16


@pytest.fixture
def heard():
    """Runs a function in a session, and gives the events."""

    def run(function):
        events = []
        with relay_mp.session() as session:
            relay_mp.subscribers.register("heard", events.append)
            function()
            session.flush()
        return events

    return run


def by_name(events, name):
    found = [event for event in events if event.name == name]
    return found[0] if len(found) == 1 else found


def test_a_begun_scope_is_not_current_and_is_a_parent(heard):
    def program():
        before = scope.get_handle()
        handle = scope.begin("run", ScopeType.Agent)
        assert scope.get_handle() == before
        scope.event("beside")
        scope.event("below", handle=handle)
        scope.end(handle)
        assert scope.get_handle() == before

    events = heard(program)
    start, end = by_name(events, "run")
    assert (start.scope_category, end.scope_category) == ("start", "end")
    assert by_name(events, "below").parent_uuid == start.uuid
    assert by_name(events, "beside").parent_uuid == start.parent_uuid


def test_it_has_the_ids_that_it_is_given(heard):
    def program():
        handle = scope.begin("run", ScopeType.Agent, uuid=UUID, trace=TRACE)
        with scope.use(handle):
            assert relay_mp.capture_traceparent() == f"00-{TRACE}-{UUID[16:]}-01"
        child = scope.begin("child", ScopeType.Tool, parent=handle)
        with scope.use(child):
            assert relay_mp.capture_traceparent().split("-")[1] == TRACE
        scope.end(child)
        scope.end(handle)

    start, _ = by_name(heard(program), "run")
    assert start.uuid.replace("-", "") == UUID


def test_without_a_trace_it_is_its_own_or_its_parents():
    with relay_mp.session():
        root = scope.begin("run", ScopeType.Agent, uuid=UUID)
        below = scope.begin("step", ScopeType.Tool, parent=root)
        assert {root._trace, below._trace} == {bytes.fromhex(UUID)}
        scope.end(below)
        scope.end(root)


@pytest.mark.parametrize("uuid", ["", "12", "0" * 32, "g" * 32, "1" * 16 + "0" * 16])
def test_a_malformed_uuid_is_refused(uuid):
    with pytest.raises(PropagationError, match="uuid is"):
        scope.begin("run", ScopeType.Agent, uuid=uuid)


@pytest.mark.parametrize("where", ["thread", "task", "inside"])
def test_it_ends_from_anywhere(heard, where):
    def program():
        handle = scope.begin("run", ScopeType.Agent)
        with scope.use(handle):
            scope.push("left open", ScopeType.Tool)
            if where == "thread":
                other = threading.Thread(target=scope.end, args=(handle,))
                other.start()
                other.join()
            elif where == "task":

                async def end():
                    scope.end(handle)

                asyncio.run(end())
            else:
                scope.end(handle)
        with pytest.raises(ScopeError, match="it has ended already"):
            scope.end(handle)

    assert len(by_name(heard(program), "run")) == 2


def test_what_was_not_known_at_the_start_is_in_the_end(heard):
    def program():
        handle = scope.begin("run", ScopeType.Unknown, metadata={"a": 1}, category_profile={"model_name": "m"})
        scope.end(
            handle,
            input={"q": 1},
            output={"o": 2},
            scope_type=ScopeType.Llm,
            status="OK",
            metadata={"b": 2},
            category_profile={"tokens": 3},
        )

    start, end = by_name(heard(program), "run")
    assert (start.category, end.category) == ("unknown", "llm")
    assert (start.category_profile, end.category_profile) == ({"model_name": "m"}, {"model_name": "m", "tokens": 3})
    assert end.metadata == {"a": 1, "b": 2, "otel.status_code": "OK", "relay_mp.input": {"q": 1}}
    assert end.data == {"o": 2}


def test_an_exception_is_a_status(heard):
    def program():
        request = LLMRequest({}, {"messages": []})
        scope.end(scope.begin("run", ScopeType.Agent), status=ValueError("no"))
        llm.call_end(llm.call("model", request), None, status=ValueError("no"))
        tools.call_end(tools.call("search", {}), tools.ToolExecutionResult(None), status=ValueError("no"))
        llm.call_end(llm.call("fine", request), {})
        tools.call_end(tools.call("silent", {}), tools.ToolExecutionResult(None))

    events = heard(program)
    for name in ("run", "model", "search"):
        metadata = by_name(events, name)[1].metadata
        assert (metadata["otel.status_code"], metadata["exception.type"]) == ("ERROR", "ValueError")
    assert by_name(events, "fine")[1].metadata == {"otel.status_code": "OK"}
    assert by_name(events, "silent")[1].metadata is None


def test_a_wrong_status_or_place_for_it_leaves_the_scope_open():
    with relay_mp.session():
        relay_mp.subscribers.register("heard", lambda event: None)
        handle = scope.begin("run", ScopeType.Agent)
        with pytest.raises(ValueError, match="expected 'OK', 'ERROR', 'UNSET' or an exception"):
            scope.end(handle, status="fine")
        with pytest.raises(TypeError, match="status is an int"):
            scope.end(handle, status=1)
        with pytest.raises(ScopeError, match="expected a dict where a status or an input is given"):
            scope.end(handle, status="OK", metadata=[1])
        with pytest.raises(PayloadError, match="category_profile is a list; expected a dict"):
            scope.end(handle, category_profile=[])
        with pytest.raises(ValueError, match="naive"):
            scope.end(handle, timestamp=datetime(2026, 1, 1))
        scope.end(handle)


def test_what_cannot_be_ended_is_refused(run_script):
    call = llm.call("model", LLMRequest({}, {"messages": []}))
    with pytest.raises(TypeError, match="handle is a LLMHandle; expected ScopeHandle"):
        scope.end(call)
    handle = scope.begin("run", ScopeType.Agent)
    with pytest.raises(ScopeError, match="another process pushed it"):
        scope.end(pickle.loads(pickle.dumps(handle)))
    with pytest.raises(ScopeError, match="it is a root"):
        scope.end(relay_mp.create_scope_stack()._root)
    scope.end(handle)


def test_a_call_is_a_parent_wherever_a_scope_is(heard):
    def program():
        call = llm.call("model", LLMRequest({}, {"messages": []}))
        scope.event("token", handle=call)
        with scope.scope("block", ScopeType.Tool, handle=call):
            pass
        scope.pop(scope.push("pushed", ScopeType.Tool, handle=call))
        scope.end(scope.begin("begun", ScopeType.Tool, parent=call))
        tool = tools.call("search", {}, handle=call)
        with scope.use(tool):
            scope.event("inside the tool")
        tools.call_end(tool, tools.ToolExecutionResult(1))
        llm.call_end(call, {})

    events = heard(program)
    call = by_name(events, "model")[0].uuid
    assert {by_name(events, name)[0].parent_uuid for name in ("block", "pushed", "begun", "search")} == {call}
    assert by_name(events, "token").parent_uuid == call
    assert by_name(events, "inside the tool").parent_uuid == by_name(events, "search")[0].uuid


def test_use_restores_what_was_current_and_ends_nothing(heard):
    def program():
        with scope.scope("around", ScopeType.Agent) as around:
            handle = scope.begin("run", ScopeType.Tool)
            block = scope.use(handle)
            assert block.__enter__() == scope.get_handle() == handle
            block.__exit__(KeyError, KeyError(), None)
            assert scope.get_handle() == around
            scope.end(handle)
            with scope.use(handle):  # as a span's child may begin after its parent has ended
                scope.event("late")

    events = heard(program)
    assert by_name(events, "late").parent_uuid == by_name(events, "run")[0].uuid
    assert by_name(events, "run")[0].parent_uuid == by_name(events, "around")[0].uuid


def test_nanoseconds_are_timestamps(heard):
    now = time.time_ns()

    def program():
        scope.event("mark", timestamp=now)
        handle = scope.begin("run", ScopeType.Agent, timestamp=now)
        scope.end(handle, timestamp=now + 1_000_000)
        with scope.scope("block", ScopeType.Agent, timestamp=now, end_timestamp=now + 2_000_000):
            pass
        tools.call_end(
            tools.call("tool", {}, timestamp=now), tools.ToolExecutionResult(None), timestamp=now + 3_000_000
        )

    events = heard(program)
    moment = datetime.fromisoformat(by_name(events, "mark").timestamp)
    assert (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) == now // 1000
    took = {
        name: (datetime.fromisoformat(end.timestamp) - datetime.fromisoformat(start.timestamp))
        // timedelta(microseconds=1)
        for name in ("run", "block", "tool")
        for start, end in [by_name(events, name)]
    }
    assert took == {"run": 1000, "block": 2000, "tool": 3000}


@pytest.mark.parametrize("timestamp", [0, MIN_NANOSECONDS - 1, int(1.7e9), 1 << 63, -1])
def test_what_cannot_be_nanoseconds_is_refused(timestamp):
    with relay_mp.session():
        relay_mp.subscribers.register("heard", lambda event: None)
        with pytest.raises(ValueError, match="expected nanoseconds since the epoch"):
            scope.event("mark", timestamp=timestamp)
        with pytest.raises(TypeError, match="or nanoseconds as int"):
            scope.event("mark", timestamp=True)


def test_every_scope_has_a_category_profile(heard):
    def program():
        with scope.scope("block", ScopeType.Llm, category_profile={"model_name": "m"}):
            pass
        scope.pop(scope.push("pushed", ScopeType.Llm, category_profile={"model_name": "m"}), category_profile={"n": 1})

    events = heard(program)
    assert [event.category_profile for event in by_name(events, "block")] == [{"model_name": "m"}] * 2
    assert [event.category_profile for event in by_name(events, "pushed")] == [
        {"model_name": "m"},
        {"model_name": "m", "n": 1},
    ]


def test_a_profile_that_is_not_a_dict_opens_no_scope():
    before = scope.get_handle()
    for verb in (scope.push, scope.begin):
        with pytest.raises(PayloadError, match="category_profile is a str; expected a dict"):
            verb("run", ScopeType.Llm, category_profile="m")
    assert scope.get_handle() == before


def test_unheard_it_is_a_scope_all_the_same():
    handle = scope.begin("run", ScopeType.Agent, uuid=UUID)
    with scope.use(handle):
        assert scope.get_handle() == handle
    scope.end(handle, status="OK")
    with pytest.raises(ScopeError):
        scope.end(handle)
