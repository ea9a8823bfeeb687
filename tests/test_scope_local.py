"""Registrations that belong to one scope: what they see, in which process, and when they end."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_all_start_methods

import named_subscribers
import pytest

import relay_mp
from relay_mp import ScopeType, pools, scope, scope_local, subscribers
from relay_mp.errors import described_type

WAIT_SECONDS = 30
START_METHODS = ["forkserver", "fork", "spawn"]  # the default on Linux from Python 3.14 first
assert set(START_METHODS) == set(get_all_start_methods())


def listen(handle, found, name="local"):
    scope_local.register_subscriber(handle, name, lambda event: found.append(event.name))


def label(event):
    return f"{event.name} {getattr(event, 'scope_category', 'mark')}"


# ---- what they see ----


def test_they_see_the_subtree_and_the_scopes_own_end(session):
    found = []
    with scope.scope("outer", ScopeType.Agent):
        scope.event("before")
        with scope.scope("watched", ScopeType.Agent) as handle:
            scope_local.register_subscriber(handle, "local", lambda event: found.append(label(event)))
            scope.event("in it")
            with scope.scope("deeper", ScopeType.Tool):
                scope.event("deep")
        scope.event("after")
    subscribers.flush()
    assert found == ["in it mark", "deeper start", "deep mark", "deeper end", "watched end"]


def test_they_vanish_with_the_scope(session):
    with scope.scope("watched", ScopeType.Agent) as handle:
        listen(handle, [])
        assert session._segment.subscribers == 1
    assert session._segment.subscribers == 0
    scope.event("m")  # nobody listens: not even encoded
    assert session.stats().emitted == 1


def test_a_scope_that_ends_takes_only_its_own(session):
    outer_found, inner_found = [], []
    with scope.scope("outer", ScopeType.Agent) as outer:
        listen(outer, outer_found)
        with scope.scope("inner", ScopeType.Agent) as inner:
            listen(inner, inner_found)
            scope.event("both")
        scope.event("outer only")
    subscribers.flush()
    assert inner_found == ["both", "inner"]
    assert outer_found == ["inner", "both", "inner", "outer only", "outer"]


def test_they_follow_the_active_stack_and_not_the_parent(session):
    found = []
    other = scope.push("other", ScopeType.Agent)
    scope.pop(other)
    with scope.scope("watched", ScopeType.Agent) as watched:
        listen(watched, found)
        scope.event("elsewhere's child", handle=other)
    subscribers.flush()
    scope_found = []
    with scope.scope("a", ScopeType.Agent) as a:
        listen(a, scope_found)
        with relay_mp.use_scope_stack(relay_mp.create_scope_stack()):
            scope.event("child of a, from another stack", handle=a)
    subscribers.flush()
    assert found == ["elsewhere's child", "watched"]
    assert scope_found == ["a"]


def test_globals_come_first_then_outer_scopes(session):
    order = []

    def note(who):
        return lambda event: order.append(who) if event.name == "m" else None

    with (
        scope.scope("outer", ScopeType.Agent) as outer,
        scope.scope("inner", ScopeType.Agent) as inner,
    ):
        scope_local.register_subscriber(inner, "1", note("inner 1"))
        scope_local.register_subscriber(inner, "2", note("inner 2"))
        scope_local.register_subscriber(outer, "1", note("outer 1"))
        subscribers.register("global 1", note("global 1"))
        subscribers.register("global 2", note("global 2"))
        scope.event("m")
    subscribers.flush()
    assert order == ["global 1", "global 2", "outer 1", "inner 1", "inner 2"]


def test_a_root_can_be_registered_on(session):
    found = []
    stack = relay_mp.create_scope_stack()
    with relay_mp.use_scope_stack(stack):
        listen(scope.get_handle(), found)
        scope.event("1")
        with scope.scope("s", ScopeType.Tool):
            scope.event("2")
    scope.event("another root's")
    with relay_mp.use_scope_stack(stack):
        scope.event("3")
        assert scope_local.deregister_subscriber(scope.get_handle(), "local") is True
    subscribers.flush()
    assert found == ["1", "s", "2", "s", "3"]


def test_siblings_in_other_threads_are_not_seen(session):
    found = []
    with scope.scope("watched", ScopeType.Agent) as handle:
        listen(handle, found)
        with ThreadPoolExecutor(1) as plain, pools.ThreadPoolExecutor(1) as carrying:
            plain.submit(scope.event, "without the scope").result()
            carrying.submit(scope.event, "under the scope").result()
    subscribers.flush()
    assert found == ["under the scope", "watched"]


def test_a_global_and_a_local_one_may_share_a_name(session):
    found = []
    subscribers.register("same", lambda event: found.append("global"))
    with scope.scope("a", ScopeType.Agent) as a:
        listen(a, found, "same")
        with scope.scope("b", ScopeType.Agent) as b:
            listen(b, found, "same")
        with pytest.raises(relay_mp.SubscriberError, match="'same' is already registered on this scope"):
            listen(a, found, "same")
        assert subscribers.deregister("same")
        assert scope_local.deregister_subscriber(a, "same")
        assert not scope_local.deregister_subscriber(a, "same")
    subscribers.flush()
    assert found == ["global", "global", "b", "global", "b", "b"]


@pytest.mark.parametrize("session", [{"max_event_bytes": 1024}], indirect=True)
def test_of_a_stack_too_deep_for_an_event_the_ends_are_kept(session, seen):
    outermost, innermost = [], []
    handles = [scope.push(f"{i}", ScopeType.Agent) for i in range(100)]
    listen(handles[0], outermost)
    listen(handles[-1], innermost)
    scope.event("deep", data={"i": 1})
    for handle in reversed(handles):
        scope.pop(handle)
    subscribers.flush()
    assert innermost == ["deep", "99"]
    assert outermost == ["deep", *(f"{i}" for i in range(99, -1, -1))]
    assert "deep" in [event.name for event in seen]
    assert session.stats().cut > 0
    assert session.stats().lost == 0


# ---- what is refused ----


def test_a_popped_scope_is_refused(session):
    handle = scope.push("gone", ScopeType.Agent)
    scope.pop(handle)
    with pytest.raises(relay_mp.ScopeError, match="cannot register a subscriber on scope 'gone' .* has ended already"):
        scope_local.register_subscriber(handle, "x", print)
    with pytest.raises(RuntimeError, match="cannot deregister a subscriber of scope 'gone'"):
        scope_local.deregister_subscriber(handle, "x")


def test_a_foreign_scope_is_refused(session):
    context = relay_mp.PropagationContext("01890a5d-ac96-774b-bcce-b302099a8057")
    with relay_mp.use_scope_stack(relay_mp.create_scope_stack_from_propagation(context)):
        handle = scope.get_handle()
        with pytest.raises(relay_mp.ScopeError, match="another process pushed it"):
            scope_local.register_subscriber(handle, "x", print)


@pytest.mark.parametrize("handle", [None, "root", 3])
def test_what_is_no_handle_is_refused(handle):
    for call in (
        lambda: scope_local.register_subscriber(handle, "x", print),
        lambda: scope_local.deregister_subscriber(handle, "x"),
    ):
        with pytest.raises(TypeError, match=f"scope_handle is {described_type(handle)}; expected ScopeHandle"):
            call()


def test_what_cannot_be_called_is_refused(session):
    with pytest.raises(TypeError, match="callback is an int"):
        scope_local.register_subscriber(scope.get_handle(), "x", 3)
    with pytest.raises(TypeError, match="name is an int"):
        scope_local.register_subscriber(scope.get_handle(), 3, print)


# ---- places in the stream ----


def test_registration_and_removal_take_effect_at_their_place(session):
    entered, opened, found = threading.Event(), threading.Event(), []

    def hold(event):
        if event.name == "hold":
            entered.set()
            assert opened.wait(WAIT_SECONDS)

    subscribers.register("hold", hold)
    with scope.scope("s", ScopeType.Agent) as handle:
        scope.event("hold")
        assert entered.wait(WAIT_SECONDS)
        scope.event("1")
        listen(handle, found)
        scope.event("2")
        assert scope_local.deregister_subscriber(handle, "local") is True
        scope.event("3")
        listen(handle, found)
        scope.event("4")
    scope.event("5")
    opened.set()
    subscribers.flush()
    assert found == ["2", "4", "s"]


def test_the_end_of_the_scope_is_a_removal_at_its_place(session):
    entered, opened, found = threading.Event(), threading.Event(), []

    def hold(event):
        if event.name == "hold":
            entered.set()
            assert opened.wait(WAIT_SECONDS)

    subscribers.register("hold", hold)
    scope.event("hold")
    assert entered.wait(WAIT_SECONDS)
    with scope.scope("s", ScopeType.Agent) as handle:
        listen(handle, found)
        scope.event("in it")
    scope.event("after")
    opened.set()
    subscribers.flush()
    assert found == ["in it", "s"]


# ---- every process ----


def work(number):
    """What a worker does: one of the subtree, one not."""
    scope.event(f"worker {number}")
    with scope.scope(f"task {number}", ScopeType.Tool):
        scope.event(f"inner {number}")
    with relay_mp.use_scope_stack(relay_mp.create_scope_stack()):
        scope.event(f"outside {number}")
    return os.getpid()


EXPECTED = {name for n in range(4) for name in (f"worker {n}", f"task {n}", f"inner {n}")}


@pytest.mark.parametrize("method", START_METHODS)
@pytest.mark.parametrize("session", ["thread", "process"], indirect=True)
def test_the_subtree_is_seen_in_every_process(session, method, tmp_path):
    path, everything = tmp_path / "local", tmp_path / "global"
    subscribers.register("all", "named_subscribers:Lines", arguments={"path": str(everything)})
    with scope.scope("watched", ScopeType.Agent) as handle:
        scope_local.register_subscriber(handle, "local", "named_subscribers:Lines", arguments={"path": str(path)})
        with pools.get_context(method).Pool(2) as pool:
            pids = set(pool.map(work, range(4), chunksize=1))
            pool.close()
            pool.join()
    scope.event("after")
    subscribers.flush()
    seen = named_subscribers.read(path)
    assert {fields[0] for fields in seen} == EXPECTED | {"watched"}
    assert len(seen) == 4 * 4 + 1
    assert {fields[1] for fields in seen} == pids | {os.getpid()}
    assert len(named_subscribers.names(everything)) == 2 + 4 * 5 + 1
    assert session.stats().lost == 0


def register_in_worker(path):
    """Registers on a scope of the worker's own, by name."""
    with scope.scope("worker's", ScopeType.Agent) as handle:
        scope.event("before")
        with pytest.raises(relay_mp.SubscriberError, match="cannot be reached from the dispatcher"):
            scope_local.register_subscriber(handle, "local", lambda event: None)
        scope_local.register_subscriber(handle, "local", "named_subscribers:Lines", arguments={"path": path})
        scope.event("in it")
        outer = pools.get_context("fork").Process(target=scope.event, args=("grandchild",))
        outer.start()
        outer.join()
    scope.event("after")
    subscribers.flush()


@pytest.mark.parametrize("session", ["thread", "process"], indirect=True)
def test_a_worker_registers_by_name(session, tmp_path):
    path = tmp_path / "lines"
    subscribers.register("keeps the stream on", "named_subscribers:ignores")
    process = pools.get_context("spawn").Process(target=register_in_worker, args=(str(path),))
    process.start()
    process.join()
    assert process.exitcode == 0
    subscribers.flush()
    assert named_subscribers.names(path) == ["in it", "grandchild", "worker's"]
    assert session._segment.subscribers == 1


def try_foreign(handle, queue):
    """Registers on a scope of the parent's."""
    try:
        scope_local.register_subscriber(handle, "x", "named_subscribers:ignores")
    except relay_mp.ScopeError as error:
        queue.put(str(error))


@pytest.mark.parametrize("method", START_METHODS)
def test_a_scope_of_another_process_is_refused(session, method):
    context = pools.get_context(method)
    queue = context.SimpleQueue()
    with scope.scope("mine", ScopeType.Agent) as handle:
        process = context.Process(target=try_foreign, args=(handle, queue))
        process.start()
        process.join()
    assert process.exitcode == 0
    assert "cannot register a subscriber on scope 'mine'" in queue.get()
    queue.close()
