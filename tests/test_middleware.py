"""Middleware: registration, order and visibility, sanitizers, injectors, gates; bad callbacks; forks."""

import asyncio
import logging
import threading

import pytest

import relay_mp
from relay_mp import ScopeType, ToolExecutionInterceptOutcome, ToolExecutionResult, guardrails, intercepts
from relay_mp._emit import event_middleware, middleware, settle
from relay_mp._emit.families import FAMILIES
from relay_mp._emit.middleware import Registration, registry
from relay_mp._native import core
from relay_mp.runtime_registrations import RuntimeRegistrationKind as Kind

SECRET = "s3cr3t-value"


def run(coroutine):
    return asyncio.run(coroutine)


def tool(args):
    return ToolExecutionResult(args)


def redact(name, payload):
    """Named by a test."""
    return {"redacted": True}


def make_redact(word):
    """A factory, named by a test."""
    return lambda name, payload: {"redacted": word}


@pytest.fixture(autouse=True)
def _no_middleware_left():
    yield
    left = registry.all()
    registry.exchange(remove=left)
    assert (left, registry.snapshot.gates, registry.any) == ([], (), False)


@pytest.fixture
def guard():
    """`guard(verbs, callback, priority=0, name=None)` registers for the test, in whichever module has the verbs."""
    added = []

    def register(verbs, callback, priority=0, name=None, *chain):
        name = name or f"{verbs} {len(added)}"
        module = next(m for m in (guardrails, intercepts, relay_mp.event_metadata) if hasattr(m, f"register_{verbs}"))
        getattr(module, f"register_{verbs}")(name, priority, *chain, callback)
        added.append((module, verbs, name))
        return name

    yield register
    for module, verbs, name in added:
        getattr(module, f"deregister_{verbs}")(name)


# --------------------------------------------------------------------------------- registration


def families():
    """(module, local?, verbs of the function, break_chain?) for every public pair."""
    for family in FAMILIES.values():
        verbs = "injector" if family.verbs == "event_metadata_injector" else family.verbs
        module = next(m for m in (guardrails, intercepts, relay_mp.event_metadata) if hasattr(m, f"register_{verbs}"))
        yield module, None, verbs, family
        yield relay_mp.scope_local, "scope", family.verbs, family


def test_every_family_registers_refuses_duplicates_and_deregisters():
    with relay_mp.scope.scope("s", ScopeType.Agent) as handle:
        for module, local, verbs, family in families():
            first = [handle] if local else []
            chain = [False] if family.breaks else []
            register, deregister = getattr(module, f"register_{verbs}"), getattr(module, f"deregister_{verbs}")
            register(*first, "n", 0, *chain, tool)
            assert [each.family for each in registry.all()] == [family]
            with pytest.raises(relay_mp.MiddlewareError, match="already registered"):
                register(*first, "n", 0, *chain, tool)
            assert (deregister(*first, "n"), deregister(*first, "n")) == (True, False)
            for name, priority, callback, error in [
                (3, 0, tool, TypeError), ("n", "0", tool, TypeError), ("n", 1.5, tool, TypeError),
                ("n", 2**31, tool, OverflowError), ("n", 0, 3, TypeError),
                ("n", 0, "no_such_module:f", relay_mp.MiddlewareError), ("n", 0, "math:pi", relay_mp.MiddlewareError),
            ]:  # fmt: skip
                with pytest.raises(error):
                    register(*first, name, priority, *chain, callback)
    for module, local, verbs, family in families():
        if local:
            chain = [False] if family.breaks else []
            with pytest.raises(relay_mp.ScopeError):
                getattr(module, f"register_{verbs}")(handle, "n", 0, *chain, tool)
            with pytest.raises(TypeError):
                getattr(module, f"deregister_{verbs}")("scope", "n")


def test_a_named_callback_is_imported_and_its_name_kept(session, seen):
    guardrails.register_tool_sanitize_request("plain", 0, "test_middleware:redact")
    guardrails.register_tool_sanitize_response("made", 0, "test_middleware:make_redact", arguments={"word": "w"})
    found = registry.find(FAMILIES[Kind.TOOL_SANITIZE_RESPONSE_GUARDRAIL], "made")
    assert (found.target, found.arguments) == ("test_middleware:make_redact", {"word": "w"})
    run(relay_mp.tools.execute("t", {"x": SECRET}, tool))
    guardrails.deregister_tool_sanitize_request("plain")
    guardrails.deregister_tool_sanitize_response("made")
    session.flush()
    assert [e.data for e in seen] == [{"redacted": True}, {"redacted": "w"}]
    with pytest.raises(TypeError, match="arguments"):
        guardrails.register_tool_sanitize_request("x", 0, redact, arguments={})


def test_nothing_is_hooked_while_no_middleware_for_events_is_registered(guard):
    assert not registry.any
    guard("tool_request", lambda name, args: args, 0, None, False)
    assert registry.any


def test_exchange_is_one_step_and_is_taken_back_if_a_listener_raises():
    def registration(name, arrived=False):
        family = FAMILIES[Kind.MARK_SANITIZE_GUARDRAIL]
        return Registration(family=family, name=name, priority=0, callback=tool, arrived=arrived)

    changes = []
    own = middleware.Registry()
    own.on_change(lambda removed, added: changes.append(([r.name for r in removed], [r.name for r in added])))
    first, second = registration("a"), registration("b")
    own.exchange(add=[first, second])
    own.exchange(remove=[first], add=[registration("c")])
    assert changes == [([], ["a", "b"]), (["a"], ["c"])]
    with pytest.raises(relay_mp.MiddlewareError):
        own.exchange(remove=[second], add=[registration("d"), registration("c")])
    assert [r.name for r in own.all()] == ["b", "c"]

    def refuse(removed, added):
        raise OSError("full")

    own.on_change(refuse)
    with pytest.raises(OSError, match="full"):
        own.exchange(remove=own.all())
    assert [r.name for r in own.all()] == ["b", "c"]
    own._install(middleware.EMPTY)


def test_what_arrived_gives_way_to_the_processs_own_in_either_order():
    family = FAMILIES[Kind.MARK_SANITIZE_GUARDRAIL]
    own = middleware.Registry()
    arrived = Registration(family=family, name="a", priority=0, callback=tool, arrived=True)
    mine = Registration(family=family, name="a", priority=0, callback=tool)
    own.exchange(add=[arrived])
    own.exchange(add=[mine])
    own.exchange(add=[arrived])
    assert own.all() == [mine]
    own._install(middleware.EMPTY)


# ------------------------------------------------------------------------- order and visibility


def test_order_is_priority_then_level_then_name_and_a_break_ends_the_chain(session, guard):
    calls = []

    def intercept(label):
        return lambda name, args: calls.append(label) or args

    async def main():
        with relay_mp.scope.scope("o", ScopeType.Agent) as outer, relay_mp.scope.scope("i", ScopeType.Agent) as inner:
            for name, priority in [("g5", 5), ("g1", 1), ("z3", 3), ("a3", 3)]:
                guard("tool_request", intercept(f"g {name}"), priority, name, False)
            for handle, level in [(inner, "i"), (outer, "o")]:
                for name, priority in [("a3", 3), ("b3", 3), ("n0", 0)]:
                    relay_mp.scope_local.register_tool_request(
                        handle, name, priority, False, intercept(f"{level} {name}")
                    )
            await relay_mp.tools.execute("t", 1, tool)
            relay_mp.scope_local.register_tool_request(inner, "break", 2, True, intercept("break"))
            calls.append("--")
            await relay_mp.tools.request_intercepts("t", 1)
            # Whose middleware takes part is the stack's business, not the parent's.
            calls.append("--")
            relay_mp.scope_local.deregister_tool_request(inner, "break")
            await relay_mp.tools.execute("t", 1, tool, handle=outer)
        calls.append("--")
        await relay_mp.tools.execute("t", 1, tool)

    run(main())
    everything = ["o n0", "i n0", "g g1", "g a3", "g z3", "o a3", "o b3", "i a3", "i b3", "g g5"]
    outside = ["g g1", "g a3", "g z3", "g g5"]
    assert calls == [*everything, "--", *everything[:3], "break", "--", *everything, "--", *outside]


def test_local_middleware_sees_its_scopes_end_and_goes_with_it(session, seen):
    names = []

    def sanitizer(event, fields):
        names.append(event.name)
        return fields

    with relay_mp.scope.scope("agent", ScopeType.Agent) as handle:
        relay_mp.scope_local.register_scope_sanitize_end(handle, "s", 0, sanitizer)
        with relay_mp.scope.scope("child", ScopeType.Function):
            pass
    with relay_mp.scope.scope("later", ScopeType.Agent):
        pass
    assert names == ["child", "agent"]
    assert registry.all() == []
    assert not core.scope_local_active()


# ----------------------------------------------------------------------------------- guardrails


def test_the_first_rejection_ends_the_call_before_it_begins(session, seen, guard):
    asked = []
    guard("tool_conditional_execution", lambda name, args: asked.append(1), 0, "first")
    guard("tool_conditional_execution", lambda name, args: "over budget", 1, "budget")
    guard("tool_conditional_execution", lambda name, args: asked.append(3), 2, "third")
    with pytest.raises(relay_mp.RejectedError, match="over budget") as caught:
        run(relay_mp.tools.execute("t", 1, asked.append, metadata={"m": 1}))
    assert (caught.value.guardrail, caught.value.reason) == ("budget", "over budget")
    assert asked == [1]
    session.flush()
    assert [(e.kind, e.name, e.data) for e in seen] == [
        ("scope", "first", {"kind": "tool_conditional_execution", "target_name": "t"}),
        ("scope", "first", {"allowed": True, "rejected": False}),
        ("scope", "budget", {"kind": "tool_conditional_execution", "target_name": "t"}),
        ("scope", "budget", {"allowed": False, "rejected": True, "rejection_reason": "over budget"}),
        ("mark", "t", {"rejected": True, "rejection_reason": "over budget"}),
    ]
    assert {e.metadata["m"] for e in seen} == {1}
    assert {e.category for e in seen if e.kind == "scope"} == {"guardrail"}


def test_a_guardrail_that_fails_or_answers_rubbish_fails_the_call_and_the_stack_is_as_it_was(session, seen, guard):
    def raising(name, args):
        raise KeyError("k")

    answers = {
        raising: KeyError,
        lambda name, args: 3: relay_mp.CallbackError,
        lambda name, args: False: relay_mp.CallbackError,
        lambda name: None: TypeError,
        lambda name, args: {}: relay_mp.CallbackError,
    }
    with relay_mp.scope.scope("agent", ScopeType.Agent) as scope:
        for answer, error in answers.items():
            name = "g"
            guardrails.register_tool_conditional_execution(name, 0, answer)
            with pytest.raises(error):
                run(relay_mp.tools.execute("t", 1, tool))
            guardrails.deregister_tool_conditional_execution(name)
            assert relay_mp.scope.get_handle() == scope
    session.flush()
    ends = [e.data for e in seen if e.kind == "scope" and e.category == "guardrail" and e.scope_category == "end"]
    assert [end["allowed"] for end in ends] == [False] * len(answers)
    assert not [e for e in seen if e.kind == "scope" and e.category == "tool"]


def test_a_guardrail_that_hangs_can_be_cancelled_and_its_pair_is_closed(session, seen, guard):
    async def hanging(name, args):
        entered.set()
        await asyncio.Event().wait()

    async def main():
        task = asyncio.create_task(relay_mp.tools.execute("t", 1, tool))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    entered = asyncio.Event()
    guard("tool_conditional_execution", hanging)
    run(main())
    session.flush()
    assert [e.scope_category for e in seen] == ["start", "end"]
    assert seen[-1].data["cancelled"] is True


def test_what_a_callback_does_to_its_copy_changes_nothing(session, seen, guard):
    def vandal(name, payload):
        payload.clear()

    def vandal_fields(event, fields):
        event.data.clear()
        return fields

    guard("tool_conditional_execution", vandal)
    guard("scope_sanitize_start", vandal_fields)
    args = {"x": {"y": 1}}
    assert run(relay_mp.tools.execute("t", args, tool)).result == args == {"x": {"y": 1}}
    session.flush()
    assert seen[-2].data == {"x": {"y": 1}}


def test_helpers_run_one_chain_in_and_outside_of_an_event_loop(session, seen, guard):
    async def asynchronous(name, args):
        return {**args, "async": 1}

    guard("tool_request", lambda name, args: {**args, "sync": 1}, 0, None, False)
    assert relay_mp.tools.request_intercepts("t", {}) == {"sync": 1}
    guard("tool_request", asynchronous, 1, None, False)
    with pytest.raises(relay_mp.MiddlewareError, match="asynchronous"):
        relay_mp.tools.request_intercepts("t", {})

    async def main():
        return await relay_mp.tools.request_intercepts("t", {})

    assert run(main()) == {"sync": 1, "async": 1}
    guard("llm_conditional_execution", lambda request: "no")
    with pytest.raises(relay_mp.RejectedError):
        relay_mp.llm.conditional_execution(relay_mp.LLMRequest({}, {}))
    session.flush()
    assert [e.name for e in seen] == ["llm_conditional_execution 2"] * 2


# ----------------------------------------------------------------------------- sanitizers, injectors


def raising(*arguments):
    raise KeyError(SECRET)


async def raising_later(*arguments):
    raise KeyError(SECRET)


RUBBISH = [raising, raising_later, lambda: None, lambda *arguments: object(), lambda *arguments: threading.Lock()]


@pytest.mark.parametrize("session", [{}, {"strict": True}], indirect=True, ids=["lenient", "strict"])
@pytest.mark.parametrize("verbs", ["tool_sanitize_request", "llm_sanitize_request", "scope_sanitize_start"])
def test_sanitizers_fail_closed_and_the_call_goes_on(session, seen, guard, caplog, verbs):
    request = relay_mp.LLMRequest({}, {"secret": SECRET})

    async def main():
        await relay_mp.tools.execute("t", SECRET, lambda args: ToolExecutionResult(args == SECRET))
        await relay_mp.llm.execute("p", request, lambda r: r.content["secret"] == SECRET)
        relay_mp.tools.call("t", SECRET)
        relay_mp.llm.call("p", request)

    with caplog.at_level(logging.CRITICAL, "relay_mp"):
        for callback in RUBBISH:
            name = "s"
            getattr(guardrails, f"register_{verbs}")(name, 0, callback)
            run(main())
            getattr(guardrails, f"deregister_{verbs}")(name)
    session.flush()
    categories = ["tool", "llm"] if verbs.startswith("scope") else [verbs.split("_", maxsplit=1)[0]]
    shown = [e.data for e in seen if e.category in categories and e.scope_category == "start"]
    withheld = [None] * len(RUBBISH)
    if verbs == "tool_sanitize_request" and not session.settings.strict:  # of these two, any value is an answer
        withheld[3:] = [{"relay_mp.unrecorded": {"type": name}} for name in ("object", "lock")]
    assert shown == [data for data in withheld for _ in range(2 * len(categories))]
    assert [e.data for e in seen if e.scope_category == "end"] == [True] * (2 * len(RUBBISH))


def test_event_sanitizers_run_before_anything_is_in_shared_memory(session, seen, guard):
    def clean(event, fields):
        assert event.data == fields["data"]
        return {**fields, "data": "clean", "metadata": None}

    for verbs in ("mark_sanitize", "scope_sanitize_start", "scope_sanitize_end"):
        guard(verbs, clean)
    with relay_mp.scope.scope("agent", ScopeType.Agent, input=SECRET, metadata={"m": SECRET}):
        relay_mp.scope.event("mark", data=SECRET, metadata={"m": SECRET})
        run(relay_mp.tools.execute("t", SECRET, tool, metadata={"m": SECRET}))
    session.flush()
    assert {e.data for e in seen} == {"clean"}
    with open(session.path, "rb") as segment:
        assert SECRET.encode() not in segment.read()


@pytest.mark.parametrize("session", [{"strict": True}], indirect=True, ids=["strict"])
def test_in_strict_mode_a_payload_that_cannot_be_recorded_is_refused_with_sanitizers_too(session, seen, guard):
    guard("mark_sanitize", lambda event, fields: fields)
    guard("tool_sanitize_request", lambda name, args: args)
    with pytest.raises(relay_mp.PayloadError, match="data.x: unsupported type object"):
        relay_mp.scope.event("mark", data={"x": object()})
    with pytest.raises(relay_mp.PayloadError):
        relay_mp.tools.call("t", {"x": object()})
    session.flush()
    assert seen == []


def test_an_asynchronous_sanitizer_of_synchronous_code_has_a_deadline(session, seen, guard, monkeypatch, caplog):
    async def prompt(event, fields):
        await asyncio.sleep(0)
        return {**fields, "data": "clean"}

    async def hanging(event, fields):
        await asyncio.Event().wait()

    name = guard("mark_sanitize", prompt)
    relay_mp.scope.event("prompt", data=SECRET)
    guardrails.deregister_mark_sanitize(name)
    monkeypatch.setenv(settle.TIMEOUT_VARIABLE, "0.05")
    guard("mark_sanitize", hanging)
    relay_mp.scope.event("hanging", data=SECRET)
    monkeypatch.setenv(settle.TIMEOUT_VARIABLE, "soon")
    relay_mp.scope.event("wrong setting", data=SECRET)
    session.flush()
    assert [e.data for e in seen] == ["clean", None, None]
    assert "RELAY_MP_MIDDLEWARE_TIMEOUT_SECONDS" in caplog.text


def test_middleware_that_emits_for_what_it_sees_comes_to_an_end(session, seen, guard):
    def echo(event, fields):
        relay_mp.scope.event("echo", data=SECRET)
        return {**fields, "data": "clean"}

    guard("mark_sanitize", echo)
    relay_mp.scope.event("mark", data=SECRET)
    session.flush()
    assert [e.data for e in seen] == [None, *["clean"] * event_middleware.MAX_NESTING]


def test_injectors_only_add_and_fail_open(session, seen, guard):
    guard("injector", lambda event: {"a": 1, "kept": "injected", "list": [1, 2.5], "a.b-c_1": True}, 0)
    guard("injector", lambda event: {"a": 2, "second": event.metadata["a"]}, 1)
    relay_mp.scope.event("mark", metadata={"kept": None})
    bad = [None, [1], {"": 1}, {"a b": 1}, {"a..b": 1}, {"x": None}, {"x": {}}, {"x": [1, "a"]}, {"x": 2**63}]
    bad += [{"x": float("nan")}, {"x": object()}, {1: 1}, {"x": [[1]]}]
    returned = iter(bad)
    guard("injector", lambda event: next(returned), 2)
    for _ in bad:
        relay_mp.scope.event("bad", data=1)
    relay_mp.scope.event("list", metadata=[1])
    session.flush()
    good = {"a": 1, "kept": "injected", "list": [1, 2.5], "a.b-c_1": True, "second": 1}
    assert seen[0].metadata == {**good, "kept": None}
    assert [e.metadata for e in seen if e.name == "bad"] == [good] * len(bad)
    assert (seen[-1].metadata, {e.data for e in seen if e.name == "bad"}) == ([1], {1})


def test_a_failing_callback_is_logged_once_and_another_one_too(session, seen, guard, caplog):
    guard("injector", raising)
    guard("injector", raising)
    for _ in range(9):
        relay_mp.scope.event("mark")
    assert len([r for r in caplog.records if "injector" in r.getMessage()]) == 2


# --------------------------------------------------------------------------------------- gates


def test_gates_decide_each_time_and_let_through_if_they_fail(session, seen, guard):
    asked = []

    def gate(kinds, name):
        asked.append((kinds, name))
        return answers.pop(0)()

    gates = relay_mp.runtime_registrations
    guard("mark_sanitize", lambda event, fields: {**fields, "data": "clean"}, 0, "gated")
    kinds = {Kind.MARK_SANITIZE_GUARDRAIL, Kind.TOOL_REQUEST_INTERCEPT}
    gates.register_conditional_middleware_guardrail("gate", kinds, "gated", gate)
    with pytest.raises(relay_mp.MiddlewareError):
        gates.register_conditional_middleware_guardrail("gate", kinds, "gated", gate)
    answers = [lambda: None, lambda: "closed", lambda: 3, raising]
    for _ in range(4):
        relay_mp.scope.event("mark", data="raw")
    assert gates.deregister_conditional_middleware_guardrail("gate")
    assert not gates.deregister_conditional_middleware_guardrail("gate")
    session.flush()
    assert [e.data for e in seen] == ["clean", "raw", "clean", "clean"]
    assert asked == [(kinds, "gated")] * 4
    refused = [("g", set(), relay_mp.MiddlewareError), ("g", {"mark"}, TypeError), (1, kinds, TypeError)]
    for name, bad_kinds, error in refused:
        with pytest.raises(error):
            gates.register_conditional_middleware_guardrail(name, bad_kinds, "gated", gate)


def test_a_gate_of_a_subscriber_is_asked_where_the_dispatcher_runs(session, seen):
    relay_mp.subscribers.register("gated", lambda event: pytest.fail("it was let through"))
    gates = relay_mp.runtime_registrations
    gates.register_conditional_middleware_guardrail("gate", {Kind.SUBSCRIBER}, "gated", lambda kinds, name: "closed")
    relay_mp.scope.event("mark")
    session.flush()
    gates.deregister_conditional_middleware_guardrail("gate")
    relay_mp.subscribers.deregister("gated")
    assert [e.name for e in seen] == ["mark"]


def test_registrations_are_listed_by_kind_and_name(session, seen, guard):
    guard("tool_execution", lambda name, args, next_call: ToolExecutionInterceptOutcome(1), 0, "b")
    guard("tool_execution", lambda name, args, next_call: ToolExecutionInterceptOutcome(1), 1, "a")
    guard("mark_sanitize", lambda event, fields: fields, 0, "m")
    with relay_mp.scope.scope("s", ScopeType.Agent) as handle:
        relay_mp.scope_local.register_mark_sanitize(handle, "local", 0, lambda event, fields: fields)
        found = relay_mp.runtime_registrations.list_runtime_registrations()
    assert [(r.kind.value, r.effective_name, r.local_name, r.owner.kind.value) for r in found] == [
        (kind, name, name, "global_api")
        for kind, name in [
            ("subscriber", "seen"), ("mark_sanitize_guardrail", "m"),
            ("tool_execution_intercept", "a"), ("tool_execution_intercept", "b"),
        ]
    ]  # fmt: skip
    only = relay_mp.runtime_registrations.list_runtime_registrations([Kind.MARK_SANITIZE_GUARDRAIL])
    assert [r.effective_name for r in only] == ["m"]


# --------------------------------------------------------------------------------------- processes


FORK = """
import os, relay_mp
from relay_mp import guardrails

events = []
with relay_mp.session() as session:
    relay_mp.subscribers.register("s", events.append)
    guardrails.register_mark_sanitize("s", 0, lambda event, fields: {**fields, "data": "clean"})
    with relay_mp.scope.scope("agent", relay_mp.ScopeType.Agent) as handle:
        relay_mp.scope_local.register_event_metadata_injector(handle, "i", 0, lambda event: {"pid": os.getpid()})
        child = os.fork()
        if not child:
            relay_mp.scope.event("child", data="secret")
            os._exit(0)
        os.waitpid(child, 0)
    guardrails.deregister_mark_sanitize("s")
    session.flush()
    (event,) = [e for e in events if e.name == "child"]
    print(event.data, event.metadata == {"pid": child})
"""


def test_middleware_registered_before_a_fork_holds_in_the_child(run_script):
    assert run_script(FORK).stdout == "clean True\n"
