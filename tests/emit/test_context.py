"""Which scope is current: per context, across threads, tasks, forks and pickles."""

import asyncio
import contextvars
import copy
import gc
import pickle
import subprocess
import sys
import textwrap
import threading
import weakref

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relay_mp import scope
from relay_mp._emit import context
from relay_mp._emit.context import (
    capture,
    create_scope_stack,
    current_scope,
    fork_asyncio_context,
    get_scope_stack,
    propagate_scope_to_thread,
    scope_stack_active,
    set_thread_scope_stack,
    stack_uuids,
    use_scope,
    use_scope_stack,
)
from relay_mp.errors import ScopeError
from relay_mp.types import ScopeAttributes, ScopeType


@pytest.fixture(autouse=True)
def own_context():
    """Every test in a context of its own, at the thread's root."""
    token = context._current.set(None)
    yield
    context._current.reset(token)


def push(name="s", **arguments):
    return scope.push(name, ScopeType.Agent, **arguments)


def in_thread(function):
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def run_script(source):
    """What forks runs in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


# ---------------------------------------------------------------------------------------- the root


def test_the_root_is_an_agent_named_root_without_parent():
    root = current_scope()
    assert (root.name, root.scope_type, root.parent_uuid) == ("root", ScopeType.Agent, None)
    assert (root.data, root.metadata, root.attributes) == (None, None, ScopeAttributes())
    assert current_scope() is root


def test_each_thread_has_a_root_of_its_own_which_its_contexts_share():
    root = current_scope()
    assert in_thread(current_scope) != root
    assert contextvars.Context().run(current_scope) is root


def test_a_context_copied_into_a_thread_takes_its_scope_along():
    handle = push()
    copied = contextvars.copy_context()
    assert in_thread(lambda: copied.run(current_scope)) is handle
    scope.pop(handle)


def test_the_root_is_never_popped():
    with pytest.raises(ScopeError, match="is a root"):
        scope.pop(current_scope())


# ------------------------------------------------------------------------------------- push and pop


def test_scopes_nest_and_unnest():
    outer = push("outer")
    inner = push("inner")
    assert inner.parent_uuid == outer.uuid
    assert current_scope() is inner
    scope.pop(inner)
    assert current_scope() is outer
    scope.pop(outer)
    assert current_scope().name == "root"


def test_a_scope_is_popped_once():
    handle = push()
    scope.pop(handle)
    with pytest.raises(ScopeError, match="ended already"):
        scope.pop(handle)


def test_two_threads_that_pop_one_scope_end_it_once():
    for _ in range(50):
        handle = push()
        barrier, outcomes = threading.Barrier(4), []

        def pop(handle=handle, barrier=barrier, outcomes=outcomes):
            barrier.wait()
            try:
                scope.pop(handle)
                outcomes.append("ended")
            except ScopeError:
                outcomes.append("refused")

        threads = [threading.Thread(target=pop) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["ended", "refused", "refused", "refused"]


def test_out_of_order_is_refused_and_changes_nothing():
    outer = push("outer")
    middle = push("middle")
    inner = push("inner")
    for handle in (outer, middle):
        with pytest.raises(ScopeError, match=r"'inner'.*still open"):
            scope.pop(handle)
    assert current_scope() is inner
    for handle in (inner, middle, outer):
        scope.pop(handle)


def test_the_stack_follows_pushes_not_the_parent_named():
    outer = push("outer")
    beside = push("beside")
    child = push("child", handle=outer)
    assert child.parent_uuid == outer.uuid
    with pytest.raises(ScopeError):
        scope.pop(beside)
    scope.pop(child)
    assert current_scope() is beside
    scope.pop(beside)
    scope.pop(outer)


def test_a_popped_scope_still_works_as_a_parent():
    dead = push("dead")
    scope.pop(dead)
    child = push("child", handle=dead)
    assert child.parent_uuid == dead.uuid
    scope.pop(child)
    assert current_scope().name == "root"


def test_another_context_may_pop_and_those_that_hold_it_see_the_nearest_open_ancestor():
    outer = push("outer")
    middle = push("middle")
    inner = push("inner")
    holder = contextvars.copy_context()
    contextvars.Context().run(scope.pop, inner)
    in_thread(lambda: scope.pop(middle))
    assert current_scope() is outer
    assert holder.run(current_scope) is outer
    scope.pop(outer)
    assert holder.run(current_scope).name == "root"


def test_a_chain_of_contexts_does_not_keep_every_scope_that_ever_was():
    finished = []
    before = contextvars.copy_context()
    handle = before.run(push, "first")
    for number in range(20):
        after = before.copy()
        following = after.run(push, f"scope {number}")
        before.run(scope.pop, handle)
        finished.append(weakref.ref(handle))
        before, handle = after, following
    before.run(scope.pop, handle)
    del before, after, handle, following
    gc.collect()
    assert [reference() for reference in finished] == [None] * len(finished)


def test_asyncio_tasks_are_siblings():
    async def work(name, parent):
        with scope.scope(name, ScopeType.Tool) as handle:
            assert handle.parent_uuid == parent.uuid
            await asyncio.sleep(0)
            assert current_scope() is handle
            await asyncio.sleep(0)
        return current_scope()

    async def main():
        with scope.scope("run", ScopeType.Agent) as run:
            assert await asyncio.gather(*(work(str(n), run) for n in range(5))) == [run] * 5

    asyncio.run(main())


# --------------------------------------------------------------------------------------- the handle


def test_a_handle_is_read_only_equal_by_uuid_and_prints():
    handle = push("h", attributes=ScopeAttributes(3))
    assert handle == scope.get_handle()
    assert hash(handle) == hash(scope.get_handle())
    assert handle != "h"
    assert repr(handle) == f"ScopeHandle(name='h', uuid='{handle.uuid}')"
    assert handle.attributes == ScopeAttributes(3)
    for name in ("uuid", "name", "scope_type", "attributes", "parent_uuid", "data", "metadata"):
        with pytest.raises(AttributeError):
            setattr(handle, name, None)
    assert copy.copy(handle) is copy.deepcopy(handle) is handle
    scope.pop(handle)


def test_data_and_metadata_are_sorted_copies_made_at_push():
    given = {"b": (1, float("nan")), "a": {"z": 1, "y": {2}}}
    handle = push(data=given, metadata=given)
    given["later"] = 1
    for copied in (handle.data, handle.metadata):
        assert copied == {"a": {"y": [2], "z": 1}, "b": [1, None]}
        assert [*copied, *copied["a"]] == ["a", "b", "y", "z"]
        copied["mine"] = 1
    assert "mine" not in handle.data
    scope.pop(handle)


def test_a_pickled_handle_is_a_parent_but_not_popped():
    handle = push("h", data={"a": [1]}, metadata=[2])
    arrived = pickle.loads(pickle.dumps(handle))
    assert arrived == handle
    assert (arrived.name, arrived.parent_uuid, arrived.data, arrived.metadata) == (
        "h",
        handle.parent_uuid,
        {"a": [1]},
        [2],
    )
    with pytest.raises(ScopeError, match="another process"):
        scope.pop(arrived)
    child = push("child", handle=arrived)
    assert child.parent_uuid == handle.uuid
    scope.pop(child)
    scope.pop(handle)


def test_stack_uuids_go_from_the_innermost_to_the_root():
    root = current_scope()
    outer = push()
    inner = push()
    expected = b"".join(bytes.fromhex(handle.uuid.replace("-", "")) for handle in (inner, outer, root))
    assert stack_uuids(inner) == expected
    assert stack_uuids(outer) == expected[16:]
    scope.pop(inner)
    scope.pop(outer)


def test_a_stack_a_thousand_deep_works():
    handles = [push() for _ in range(5000)]
    assert len(stack_uuids(handles[-1])) == 16 * 5001
    pickle.loads(pickle.dumps(capture()))
    for handle in reversed(handles):
        scope.pop(handle)
    assert current_scope().name == "root"


# ------------------------------------------------------------------------------------------- stacks


def test_a_stack_is_active_once_there_is_one():
    assert not contextvars.Context().run(scope_stack_active)
    with pytest.raises(ScopeError, match="no scope stack"):
        contextvars.Context().run(propagate_scope_to_thread)
    get_scope_stack()
    assert scope_stack_active()


def test_stacks_are_equal_by_root():
    first = get_scope_stack()
    handle = push()
    assert get_scope_stack() == first
    assert hash(get_scope_stack()) == hash(first)
    assert create_scope_stack() != first
    assert "top='s'" in repr(get_scope_stack())
    scope.pop(handle)


def test_a_used_stack_is_isolated_restored_and_continued():
    outside = push("outside")
    stack = create_scope_stack()
    with use_scope_stack(stack) as used:
        assert used is stack
        assert current_scope().name == "root"
        inside = push("inside")
        assert inside.parent_uuid != outside.uuid
    assert current_scope() is outside
    with use_scope_stack(stack):
        assert current_scope() is inside
        scope.pop(inside)
    with pytest.raises(KeyError), use_scope_stack(stack):
        raise KeyError(current_scope().name)
    assert current_scope() is outside
    scope.pop(outside)


def test_a_stack_used_twice_at_once_disturbs_nobody():
    stack = create_scope_stack()

    async def work(name):
        with use_scope_stack(stack):
            with scope.scope(name, ScopeType.Tool) as handle:
                await asyncio.sleep(0)
                assert current_scope() is handle
            assert current_scope().name == "root"

    async def main():
        await asyncio.gather(work("a"), work("b"), work("c"))

    asyncio.run(main())
    with use_scope_stack(stack):
        assert current_scope().name == "root"


def test_a_thread_joins_the_stack_it_is_given():
    handle = push("A")
    stack = propagate_scope_to_thread()

    def work():
        assert not scope_stack_active()
        set_thread_scope_stack(stack)
        assert scope_stack_active()
        child = push("B")
        # A context without scopes, such as a loop's, is on the thread's stack too.
        assert contextvars.Context().run(current_scope) is handle
        return child

    child = in_thread(work)
    assert child.parent_uuid == handle.uuid
    assert current_scope() is handle
    scope.pop(child)
    scope.pop(handle)


@pytest.mark.parametrize("use", [set_thread_scope_stack, lambda stack: use_scope_stack(stack).__enter__()])
@pytest.mark.parametrize("stack", [None, 3, "stack"])
def test_what_is_no_stack_is_refused(use, stack):
    with pytest.raises(TypeError, match="expected ScopeStack"):
        use(stack)


def test_a_forked_context_begins_at_the_current_scope():
    handle = push("A")
    forked = fork_asyncio_context()
    child = forked.run(push, "B")
    assert child.parent_uuid == handle.uuid
    assert current_scope() is handle
    scope.pop(handle)
    forked.run(scope.pop, child)
    assert forked.run(current_scope).name == "root"


# -------------------------------------------------------------------------------------------- tasks


def test_a_task_runs_under_its_submitter_and_leaves_nothing_behind():
    handle = push("submitter")
    task = capture()
    scope_before = in_thread(current_scope)

    def work():
        before = current_scope()
        with use_scope(task.handle) as current:
            assert current is handle
            left_open = push("left open")
        assert current_scope() is before
        with pytest.raises(KeyError), use_scope(task.handle):
            raise KeyError
        assert current_scope() is before
        return left_open

    left_open = in_thread(work)
    assert left_open.parent_uuid == handle.uuid
    assert scope_before != handle
    scope.pop(handle)


def test_a_pickled_task_carries_scope_session_and_stack(monkeypatch):
    monkeypatch.setattr(context, "_session_hook", lambda: "the session")
    outer, inner = push("outer"), push("inner")
    payload = pickle.dumps(capture())
    assert len(payload) < 400
    task = pickle.loads(payload)
    assert task.session == "the session"
    with use_scope(task.handle) as handle:
        assert (handle, handle.name, handle.parent_uuid) == (inner, "inner", outer.uuid)
        assert stack_uuids(handle) == stack_uuids(inner)
        child = push("child")
        assert stack_uuids(child)[16:] == stack_uuids(inner)
        scope.pop(child)
        with pytest.raises(ScopeError, match="another process"):
            scope.pop(handle)
    scope.pop(inner)
    scope.pop(outer)


def test_a_task_submitted_outside_any_scope_keeps_the_submitters_root():
    root = current_scope()
    with use_scope(pickle.loads(pickle.dumps(capture())).handle):
        child = push()
        assert child.parent_uuid == root.uuid
        scope.pop(child)


# --------------------------------------------------------------------------------------------- fork


def test_a_forked_child_goes_on_under_the_scope_it_was_forked_in_and_cannot_pop_it():
    outcome = run_script(
        """
        import os, sys
        from relay_mp import scope
        from relay_mp.errors import ScopeError
        from relay_mp.types import ScopeType

        block = scope.scope("block", ScopeType.Agent)
        with block as handle:
            pid = os.fork()
            if pid == 0:
                child = scope.push("child", ScopeType.Tool)
                print(child.parent_uuid == handle.uuid)
                scope.pop(child)
                print(scope.get_handle() == handle)
                try:
                    scope.pop(handle)
                except ScopeError as error:
                    print("another process" in str(error))
            else:
                os.waitpid(pid, 0)
        # The child has left the block in silence, the parent has ended the scope.
        print(scope.get_handle().name)
        if pid == 0:
            sys.stdout.flush()
            os._exit(0)
        try:
            scope.pop(handle)
        except ScopeError as error:
            print("ended-already" if "ended already" in str(error) else error)
        """
    )
    assert outcome == ["True", "True", "True", "root", "root", "ended-already"]


def test_uuids_do_not_repeat_after_fork():
    uuids = run_script(
        """
        import os, sys
        from relay_mp import scope
        from relay_mp.types import ScopeType

        scope.get_handle()
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                for _ in range(20):
                    print(scope.push("s", ScopeType.Agent).uuid)
                sys.stdout.flush()
                os._exit(0)
            os.waitpid(pid, 0)
        for _ in range(20):
            print(scope.push("s", ScopeType.Agent).uuid)
        """
    )
    assert len(uuids) == len(set(uuids)) == 80


# --------------------------------------------------------------------------------- against a model


class ContextsAgainstLists(RuleBasedStateMachine):
    """Contexts that fork, push and pop, in any order, against plain lists of names."""

    def __init__(self):
        super().__init__()
        self.contexts = [(contextvars.Context(), [])]
        self.open = {}

    def visible(self, stack):
        return [name for name in stack if name in self.open]

    @rule(data=st.data())
    def push(self, data):
        target, stack = data.draw(st.sampled_from(self.contexts))
        handle = target.run(push, f"s{len(self.open)}-{len(stack)}")
        stack[:] = [*self.visible(stack), handle]
        self.open[handle] = handle

    @precondition(lambda self: len(self.contexts) < 5)
    @rule(data=st.data())
    def fork(self, data):
        target, stack = data.draw(st.sampled_from(self.contexts))
        self.contexts.append((target.copy(), list(stack)))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def pop(self, data):
        target, stack = data.draw(st.sampled_from(self.contexts))
        handle = data.draw(st.sampled_from(list(self.open)))
        visible = self.visible(stack)
        if handle in visible and visible[-1] is not handle:
            with pytest.raises(ScopeError):
                target.run(scope.pop, handle)
        else:
            target.run(scope.pop, handle)
            del self.open[handle]

    @invariant()
    def every_context_sees_its_innermost_open_scope(self):
        for target, stack in self.contexts:
            visible = self.visible(stack)
            current = target.run(current_scope)
            assert current is visible[-1] if visible else current.name == "root"


TestContextsAgainstLists = ContextsAgainstLists.TestCase
TestContextsAgainstLists.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
