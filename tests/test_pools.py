"""`relay_mp.pools`: the standard library's classes and behaviour, and the scope carried along."""

import asyncio
import concurrent.futures
import functools
import inspect
import json
import multiprocessing
import multiprocessing.pool
import multiprocessing.process
import operator
import os
import pickle
import subprocess
import sys
import threading

import pytest
import workers
from workers import TIMEOUT_SECONDS

import relay_mp
from relay_mp import ScopeType, pools, scope, subscribers
from relay_mp._emit.carry import MAX_TEXT_CHARACTERS, current_scope_text, scope_from_text
from relay_mp._session import inheritance
from relay_mp.errors import PropagationError

METHODS = ["fork", "spawn", "forkserver"]

pytestmark = pytest.mark.timeout(120)

POOL_METHODS = ["apply", "apply_async", "map", "map_async", "starmap", "starmap_async", "imap", "imap_unordered"]


def submitter():
    return scope.scope("submitter", ScopeType.Agent)


def mark(number=0):
    scope.event("task", data=number)
    return number


def add(left, right):
    scope.event("task", data=[left, right])
    return left + right


def fail(number):
    scope.event("task", data=number)
    raise LookupError(number)


def parents(events, name="task"):
    subscribers.flush()
    return [event.parent_uuid for event in events if event.name == name]


@pytest.fixture
def instrumented():
    pools.instrument()
    yield
    pools.uninstrument()


# ---------------------------------------------------------------------------------------------- signatures


@pytest.mark.parametrize("name", ["__init__", "close", "terminate", "join", *POOL_METHODS])
def test_pool_has_the_standard_librarys_signatures(name):
    theirs = getattr(multiprocessing.pool.Pool, name)
    assert inspect.signature(getattr(pools.Pool, name)) == inspect.signature(theirs)


@pytest.mark.parametrize("name", ["__init__", "submit", "map", "shutdown"])
@pytest.mark.parametrize("executor", ["ProcessPoolExecutor", "ThreadPoolExecutor"])
def test_executors_have_the_standard_librarys_signatures(executor, name):
    ours, theirs = getattr(pools, executor), getattr(concurrent.futures, executor)
    assert issubclass(ours, theirs)
    assert inspect.signature(getattr(ours, name)) == inspect.signature(getattr(theirs, name))


def test_processes_have_the_standard_librarys_signatures():
    assert inspect.signature(pools.Process) == inspect.signature(multiprocessing.Process)
    assert issubclass(pools.Process, multiprocessing.Process)
    for method in METHODS:
        ours, theirs = pools.get_context(method), multiprocessing.get_context(method)
        assert isinstance(ours, type(theirs))
        assert issubclass(ours.Process, theirs.Process)
        assert ours.get_start_method() == method
        assert ours.get_context() is ours
        assert ours.get_context("spawn") is pools.get_context("spawn")
        assert _shape(ours.Pool) == _shape(theirs.Pool)
        assert _shape(ours.get_context) == _shape(theirs.get_context)
    assert pools.get_context().get_start_method() == multiprocessing.get_start_method()


def _shape(function):
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def test_a_start_method_that_is_none_is_refused():
    with pytest.raises(ValueError, match="'thread'.*fork, spawn, forkserver"):
        pools.get_context("thread")


# ---------------------------------------------------------------------------------------------------- Pool

CALLS = {
    "apply": lambda pool: [pool.apply(add, (1, 2))],
    "apply with keywords": lambda pool: [pool.apply(func=add, kwds={"left": 1, "right": 2})],
    "apply_async": lambda pool: [pool.apply_async(add, (1, 2)).get(TIMEOUT_SECONDS)],
    "map": lambda pool: pool.map(mark, [3]),
    "map with keywords": lambda pool: pool.map(func=mark, iterable=[3], chunksize=1),
    "map_async": lambda pool: pool.map_async(mark, [3]).get(TIMEOUT_SECONDS),
    "starmap": lambda pool: pool.starmap(add, [(1, 2)]),
    "starmap_async": lambda pool: pool.starmap_async(add, [(1, 2)]).get(TIMEOUT_SECONDS),
    "imap": lambda pool: list(pool.imap(mark, [3])),
    "imap_unordered": lambda pool: list(pool.imap_unordered(mark, [3])),
}


def check_calls(pool, events):
    for call in CALLS.values():
        events.clear()
        with submitter() as here:
            assert call(pool) == [3]
        assert parents(events) == [here.uuid]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_a_pool_carries_the_scope(session, seen, method):
    with pools.get_context(method).Pool(1) as pool:
        check_calls(pool, seen)
        pool.close()
        pool.join()


def test_every_method_of_an_instrumented_pool_carries_the_scope(session, seen, instrumented):
    with multiprocessing.get_context("fork").Pool(1) as pool:
        check_calls(pool, seen)
        pool.close()
        pool.join()


def test_every_method_of_an_instrumented_pool_of_threads_carries_the_scope(session, seen, instrumented):
    with multiprocessing.pool.ThreadPool(1) as pool:
        check_calls(pool, seen)
        pool.close()
        pool.join()


def test_a_pools_callbacks_and_errors_are_the_standard_librarys(session, seen):
    results, errors = [], []
    with pools.Pool(1) as pool:
        pool.apply_async(mark, (1,), callback=results.append)
        pool.apply_async(fail, (2,), error_callback=errors.append)
        with submitter() as here, pytest.raises(LookupError):
            pool.map(fail, [3])
        with pytest.raises(LookupError):
            list(pool.imap(fail, [4]))
        with pytest.raises(TypeError):
            pool.apply_async(5).get(TIMEOUT_SECONDS)
        pool.close()
        pool.join()
    assert results == [1]
    assert [type(error) for error in errors] == [LookupError]
    assert here.uuid in parents(seen)


@pytest.mark.parametrize("method", METHODS)
def test_a_pools_recycled_workers_attach_and_carry_the_scope(session, seen, method):
    with pools.get_context(method).Pool(1, maxtasksperchild=1) as pool:
        expected = []
        for number in range(3):
            with submitter() as here:
                assert pool.apply(mark, (number,)) == number
            expected.append(here.uuid)
        pool.close()
        pool.join()
    assert parents(seen) == expected
    assert len({event.pid for event in seen if event.name == "task"}) == 3


# -------------------------------------------------------------------------------------------------- executors


@pytest.mark.parametrize("method", METHODS)
def test_an_executors_submit_and_map_carry_the_scope(session, seen, method):
    context = multiprocessing.get_context(method)
    with pools.ProcessPoolExecutor(1, mp_context=context) as pool:
        with submitter() as first:
            assert pool.submit(add, 1, right=2).result(TIMEOUT_SECONDS) == 3
        with submitter() as second:
            assert list(pool.map(add, range(4), range(4), chunksize=2)) == [0, 2, 4, 6]
        with submitter() as third:
            future = pool.submit(fail, 1)
            assert isinstance(future.exception(TIMEOUT_SECONDS), LookupError)
    assert parents(seen) == [first.uuid, *[second.uuid] * 4, third.uuid]


def test_an_instrumented_executors_submit_and_map_carry_the_scope(session, seen, instrumented):
    for executor in (concurrent.futures.ProcessPoolExecutor, concurrent.futures.ThreadPoolExecutor):
        seen.clear()
        with executor(1) as pool, submitter() as here:
            assert pool.submit(add, 1, right=2).result(TIMEOUT_SECONDS) == 3
            assert list(pool.map(mark, range(3))) == [0, 1, 2]
        assert parents(seen) == [here.uuid] * 4


def test_a_thread_pool_carries_the_scope(session, seen):
    with pools.ThreadPoolExecutor(2) as pool:
        with submitter() as first:
            assert pool.submit(add, 1, right=2).result(TIMEOUT_SECONDS) == 3
        with submitter() as second:
            assert sorted(pool.map(mark, range(4))) == [0, 1, 2, 3]
    assert parents(seen) == [first.uuid, *[second.uuid] * 4]


def test_two_submitters_of_one_thread_pool_do_not_mix(session, seen):
    both = threading.Barrier(2)

    def task(number):
        both.wait(TIMEOUT_SECONDS)
        scope.event("task", data=number)
        both.wait(TIMEOUT_SECONDS)

    with pools.ThreadPoolExecutor(2) as pool, submitter() as first:
        one = pool.submit(task, 1)
        with submitter() as second:
            two = pool.submit(task, 2)
            one.result(TIMEOUT_SECONDS)
            two.result(TIMEOUT_SECONDS)
    subscribers.flush()
    assert {e.data: e.parent_uuid for e in seen if e.name == "task"} == {1: first.uuid, 2: second.uuid}


@pytest.mark.parametrize("method", ["spawn", "forkserver"])  # the standard library refuses fork
def test_an_executors_recycled_workers_attach_and_carry_the_scope(session, seen, method):
    context = multiprocessing.get_context(method)
    with pools.ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool, submitter() as here:
        assert [pool.submit(mark, n).result(TIMEOUT_SECONDS) for n in range(3)] == [0, 1, 2]
    assert parents(seen) == [here.uuid] * 3
    assert len({event.pid for event in seen if event.name == "task"}) == 3


# ----------------------------------------------------------------------------------------------- initializers


def initialize(name):
    scope.event(name)
    scope.push("left open", ScopeType.Custom)


def make_pool(kind, method, initializer, initargs):
    if kind == "Pool":
        return pools.get_context(method).Pool(1, initializer, initargs)
    if kind == "ThreadPoolExecutor":
        return pools.ThreadPoolExecutor(1, initializer=initializer, initargs=initargs)
    context = multiprocessing.get_context(method)
    return pools.ProcessPoolExecutor(1, context, initializer, initargs)


def call(pool, function, *arguments):
    if isinstance(pool, multiprocessing.pool.Pool):
        return pool.apply(function, arguments)
    return pool.submit(function, *arguments).result(TIMEOUT_SECONDS)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        *((kind, method) for kind in ("Pool", "ProcessPoolExecutor") for method in METHODS),
        ("ThreadPoolExecutor", None),
    ],
)
def test_an_initializer_runs_under_the_scope_of_the_pool(session, seen, kind, method):
    """What it leaves open is not the tasks'."""
    with submitter() as outer, make_pool(kind, method, initialize, ("initialized",)) as pool:
        with submitter() as here:
            assert call(pool, mark, 1) == 1
        if kind == "Pool":
            pool.close()
            pool.join()
    assert parents(seen, "initialized") == [outer.uuid]
    assert parents(seen) == [here.uuid]


@pytest.mark.parametrize("method", METHODS)
def test_attach_serves_as_an_initializer(session, seen, method):
    with multiprocessing.get_context(method).Pool(1, relay_mp.attach, (session.handle,)) as pool:
        assert pool.apply(mark, (1,)) == 1
        pool.close()
        pool.join()
    assert len(parents(seen)) == 1


# ------------------------------------------------------------------------- pools older or younger than sessions


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["Pool", "ProcessPoolExecutor"])
def test_workers_older_than_the_session_join_it_with_their_first_task(kind, method):
    """And the next one, when that has ended."""
    with make_pool(kind, method, None, ()) as pool:
        assert call(pool, mark, 0) == 0  # outside any session: nothing, and no error
        for number in (1, 2):
            events = []
            with relay_mp.session() as session:
                subscribers.register("seen", events.append)
                with submitter() as here:
                    assert call(pool, mark, number) == number
                assert parents(events) == [here.uuid]
                assert [event.data for event in events if event.name == "task"] == [number]
                assert session.stats().lost == 0
        assert call(pool, mark, 3) == 3
        if kind == "Pool":
            pool.close()
            pool.join()


OLDER = """
import concurrent.futures, multiprocessing, sys
import relay_mp
from relay_mp import pools

start, kind = sys.argv[1:]
if kind == "carried":
    executor = pools.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(start))
else:
    executor = concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(start))
if kind == "older":
    executor.submit(abs, 1).result()
with executor:
    for _ in range(2):
        with relay_mp.session():
            executor.submit(abs, 1).result()
"""


@pytest.mark.parametrize("method", ["fork", "forkserver"])
@pytest.mark.parametrize(("kind", "lines"), [("older", 1), ("serves the next", 1), ("carried", 0)])
def test_a_pool_that_is_older_than_the_session_and_carries_nothing_is_told_of_once(run_script, method, kind, lines):
    said = run_script(OLDER, method, kind).stderr
    assert said.count("1 child processes are older than the session that begins") == lines
    assert said.count("Begin the session before the pool") == lines


def call_between(function):
    scope.event("before")
    function()
    scope.event("after")


@pytest.mark.parametrize("method", METHODS)
def test_a_function_propagated_in_a_session_that_has_ended_does_not_take_a_worker_out_of_this_one(method):
    with relay_mp.session():
        subscribers.register("seen", print)
        stale = pools.propagate(mark)
    events = []
    with relay_mp.session():
        subscribers.register("seen", events.append)
        process = multiprocessing.get_context(method).Process(target=call_between, args=(stale,))
        process.start()
        process.join(TIMEOUT_SECONDS)
        process.close()
        assert subscribers.flush().lost == 0
        assert [event.name for event in events] == ["before", "task", "after"]


# ------------------------------------------------------------------------------------------------- Process


class Answers(pools.Process):
    """A process with a `run` of its own."""

    def __init__(self, answer):
        super().__init__(name="answers")
        self.answer = answer

    def run(self):
        with scope.scope("run", ScopeType.Function):
            scope.event("task", data=self.answer)


def test_a_process_with_a_run_of_its_own_begins_under_the_scope_in_which_it_is_started(session, seen):
    with submitter():
        process = Answers(42)  # where it is made does not matter
    with submitter() as here:
        process.start()
        process.join(TIMEOUT_SECONDS)
    assert process.exitcode == 0
    process.close()
    subscribers.flush()
    run = next(event for event in seen if event.name == "run")
    assert run.parent_uuid == here.uuid
    assert parents(seen) == [run.uuid]


@pytest.mark.parametrize("method", METHODS)
def test_a_subclass_of_a_contexts_process_begins_under_the_scope(session, seen, method):
    base = pools.get_context(method).Process

    # By the name under which a spawned child finds it.
    cls = {"fork": ForkAnswers, "spawn": SpawnAnswers, "forkserver": ForkServerAnswers}[method]
    assert issubclass(cls, base)
    with submitter() as here:
        process = cls()
        process.start()
        process.join(TIMEOUT_SECONDS)
    assert process.exitcode == 0
    process.close()
    assert parents(seen) == [here.uuid]


def test_a_process_of_a_forkserver_that_has_a_root_itself_begins_under_the_scope(session, seen, tmp_path, monkeypatch):
    """A preloaded module may have emitted, outside any session and scope."""
    (tmp_path / "preloaded_and_emits.py").write_text(
        "from relay_mp import scope, ScopeType\nscope.event('early')\nscope.pop(scope.push('s', ScopeType.Tool))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # a forkserver takes no sys.path before 3.13
    multiprocessing.set_forkserver_preload(["preloaded_and_emits"])
    try:
        with submitter() as here:
            process = pools.get_context("forkserver").Process(target=mark)
            process.start()
            process.join(TIMEOUT_SECONDS)
    finally:
        multiprocessing.set_forkserver_preload(["__main__"])
    process.close()
    assert parents(seen) == [here.uuid]


class _Marks:
    def run(self):
        mark()


class ForkAnswers(_Marks, pools.ForkProcess):
    pass


class SpawnAnswers(_Marks, pools.SpawnProcess):
    pass


class ForkServerAnswers(_Marks, pools.ForkServerProcess):
    pass


def map_in_a_pool(method):
    with scope.scope("nested", ScopeType.Agent):
        with pools.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as executor:
            list(executor.map(mark, range(2)))
        with pools.get_context(method).Pool(1) as pool:
            pool.map(mark, range(2))
            pool.close()
            pool.join()


@pytest.mark.parametrize("method", METHODS)
def test_pools_nest(session, seen, method):
    with submitter() as here:
        process = pools.get_context(method).Process(target=map_in_a_pool, args=(method,))
        process.start()
        process.join(TIMEOUT_SECONDS)
    assert process.exitcode == 0
    process.close()
    subscribers.flush()
    nested = next(event for event in seen if event.name == "nested")
    assert nested.parent_uuid == here.uuid
    assert parents(seen) == [nested.uuid] * 4
    assert len({event.pid for event in seen}) == 4


# ------------------------------------------------------------------------------------------------- propagate


def test_propagate_carries_the_scope_that_is_current_now(session, seen):
    with submitter() as there:
        function = pools.propagate(mark)
        with submitter() as here:
            assert function(1) == 1  # there, not here
            assert scope.get_handle() == here
            mark()
    assert parents(seen) == [there.uuid, here.uuid]


def test_propagate_goes_through_pickle(session, seen):
    with submitter() as there:
        text = pickle.dumps(pools.propagate(functools.partial(add, 1)))
    again = pickle.loads(pickle.dumps(pickle.loads(text)))
    assert again(2) == again(right=2) == 3
    assert parents(seen) == [there.uuid] * 2


def test_propagate_is_idempotent():
    function = pools.propagate(mark)
    assert pools.propagate(function) is function


def test_propagate_looks_like_its_function():
    function = pools.propagate(add)
    assert (function.__name__, function.__doc__, function.__wrapped__) == ("add", None, add)
    assert inspect.signature(function) == inspect.signature(add)
    assert repr(function) == f"propagate({add!r})"


def test_propagate_takes_any_callable(session, seen):
    with submitter() as there:
        functions = [
            pools.propagate(lambda: mark(1)),
            pools.propagate(functools.partial(mark, 1)),
            pools.propagate(operator.methodcaller("count", 1)),
        ]
        with submitter():
            assert [functions[0](), functions[1](), functions[2]([1])] == [1, 1, 1]
    assert parents(seen) == [there.uuid] * 2


@pytest.mark.parametrize("nothing", [None, 5, "name"])
def test_propagate_refuses_what_cannot_be_called(nothing):
    with pytest.raises(TypeError, match=f"a callable; found {type(nothing).__name__}"):
        pools.propagate(nothing)


def test_propagate_runs_where_a_context_was_captured(session, seen):
    with submitter() as there:
        context = pools.capture()
    with submitter() as here:
        function = pools.propagate(mark, context)
        again = pools.propagate(pools.propagate(mark), context)
        function(1)
        again(2)
        assert scope.get_handle() == here
    assert parents(seen) == [there.uuid] * 2


@pytest.mark.parametrize("wrong", ["text", 5, object()])
def test_a_context_is_what_capture_gives(wrong):
    with pytest.raises(TypeError, match=r"pools\.capture\(\)"):
        pools.propagate(mark, wrong)
    with pytest.raises(TypeError, match=rf"pools\.capture\(\) returns; found {type(wrong).__name__}"), pools.use(wrong):
        pass


def test_use_runs_a_block_where_the_context_was_captured(session, seen):
    with submitter() as there:
        context = pickle.loads(pickle.dumps(pools.capture()))
    with submitter() as here:
        with pools.use(context) as current:
            assert current.uuid == there.uuid
            mark()
            scope.push("left open", ScopeType.Tool)
        assert scope.get_handle() == here
        mark()
    assert parents(seen) == [there.uuid, here.uuid]


def test_an_exception_passes_through_use(session, seen):
    with submitter():
        context = pools.capture()
    with submitter() as here:
        with pytest.raises(LookupError, match="7"), pools.use(context):
            fail(7)
        assert scope.get_handle() == here


def _serve(requests):
    for context, number in iter(requests.get, None):
        with pools.use(context):
            mark(number)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_context_goes_with_a_message(session, seen, method):
    context = multiprocessing.get_context(method)
    requests = context.Queue()
    worker = context.Process(target=_serve, args=(requests,))
    worker.start()
    expected = []
    for number in range(3):
        with submitter() as there:
            requests.put((pools.capture(), number))
            expected.append(there.uuid)
    requests.put(None)
    requests.close()
    requests.join_thread()
    worker.join(60)
    assert worker.exitcode == 0
    assert parents(seen) == expected


def test_propagate_lets_exceptions_through_and_resets(session, seen):
    with submitter() as there:
        function = pools.propagate(fail)
        with submitter() as here:
            with pytest.raises(LookupError, match="7"):
                function(7)
            assert scope.get_handle() == here
    assert parents(seen) == [there.uuid]


def test_propagate_of_a_coroutine_function_is_one(session, seen):
    async def task(number):
        with scope.scope("inner", ScopeType.Tool):
            await asyncio.sleep(0)
            scope.event("task", data=number)
        return number

    async def run():
        with submitter() as there:
            function = pools.propagate(task)
            assert asyncio.iscoroutinefunction(function)
            with submitter() as here:
                numbers = await asyncio.gather(function(1), function(2))
                assert scope.get_handle() == here
        return there, numbers

    there, numbers = asyncio.run(run())
    assert numbers == [1, 2]
    subscribers.flush()
    inner = {e.uuid: e.parent_uuid for e in seen if e.name == "inner"}
    assert set(inner.values()) == {there.uuid}
    assert set(parents(seen)) == set(inner)
    assert not asyncio.iscoroutinefunction(pools.propagate(mark))


def _generator():
    scope.event("of the body")
    yield scope.get_handle().name


async def _async_generator():
    scope.event("of the body")
    yield scope.get_handle().name


async def _coroutine():
    scope.event("of the body")
    return scope.get_handle().name


def _plain_wrapper():
    return _coroutine()


class _CallableWithCoroutine:
    async def __call__(self):
        return await _coroutine()


def _read(work):
    """What comes of what a call returned, and the scope of its reader meanwhile."""
    if hasattr(work, "__next__"):
        (found,) = [(name, scope.get_handle().name) for name in work]
        return found

    async def main():
        if hasattr(work, "__anext__"):
            (found,) = [(name, scope.get_handle().name) async for name in work]
            return found
        return await work, scope.get_handle().name

    return asyncio.run(main())


@pytest.mark.parametrize(
    "function", [_generator, _async_generator, _coroutine, _CallableWithCoroutine(), _plain_wrapper]
)
def test_what_a_propagated_call_does_later_it_does_under_the_scope(session, seen, function):
    with scope.scope("submitter", ScopeType.Agent):
        carried = pools.propagate(function)
    with scope.scope("reader", ScopeType.Agent):
        assert _read(carried()) == ("submitter", "reader")
    subscribers.flush()
    names = {event.uuid: event.name for event in seen}
    assert [names[event.parent_uuid] for event in seen if event.name == "of the body"] == ["submitter"]


def test_propagate_may_be_called_by_itself_and_in_many_threads(session, seen):
    def countdown(n):
        with scope.scope("inner", ScopeType.Function):
            return function(n - 1) if n else 0

    with submitter() as there:
        function = pools.propagate(countdown)
        threads = [threading.Thread(target=function, args=(5,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    subscribers.flush()
    inner = [event for event in seen if event.name == "inner"]
    assert len(inner) == 2 * 3 * 6
    assert {event.parent_uuid for event in inner} == {there.uuid}


def test_propagate_outside_any_session_is_the_function():
    function = pickle.loads(pickle.dumps(pools.propagate(mark)))
    assert function(5) == 5


# ------------------------------------------------------------------------------------------------ instrument

STANDARD = [
    multiprocessing.process.BaseProcess,
    multiprocessing.Process,
    multiprocessing.pool.Pool,
    multiprocessing.pool.ThreadPool,
    concurrent.futures.Executor,
    concurrent.futures.ProcessPoolExecutor,
    concurrent.futures.ThreadPoolExecutor,
    subprocess.Popen,
]


def attributes():
    return [dict(vars(cls)) for cls in STANDARD]


def test_uninstrument_leaves_the_standard_library_exactly_as_it_was():
    before = attributes()
    for _ in range(2):
        pools.instrument()
        pools.instrument()
        patched = attributes()
        assert patched != before
        signatures = [_signatures(cls) for cls in STANDARD]
        pools.uninstrument()
        pools.uninstrument()
        assert attributes() == before
        assert [_signatures(cls) for cls in STANDARD] == signatures


def _signatures(cls):
    return {name: str(inspect.signature(f)) for name, f in vars(cls).items() if inspect.isfunction(f)}


def test_importing_patches_nothing(run_script):
    done = run_script(
        """
import concurrent.futures, multiprocessing, multiprocessing.pool, multiprocessing.process, os, subprocess, sys
import threading, concurrent.futures.process, concurrent.futures.thread
classes = [multiprocessing.process.BaseProcess, multiprocessing.pool.Pool, concurrent.futures.ProcessPoolExecutor,
           concurrent.futures.ThreadPoolExecutor, subprocess.Popen, threading.Thread]
modules = [multiprocessing, multiprocessing.process, multiprocessing.context, os, threading, subprocess]
def state():
    return [dict(vars(thing)) for thing in classes + modules], dict(os.environ), sys.excepthook, threading.excepthook
before = state()
import relay_mp
assert state() == before
with relay_mp.session():
    relay_mp.subscribers.register("s", print)
    during = state()
assert during[0] == before[0]
assert state() == before
"""
    )
    assert done.stderr == ""


@pytest.mark.parametrize("method", METHODS)
def test_an_instrumented_process_begins_under_the_scope(session, seen, method, instrumented):
    with submitter() as here:
        process = multiprocessing.get_context(method).Process(target=mark)
        process.start()
        process.join(TIMEOUT_SECONDS)
    process.close()
    assert parents(seen) == [here.uuid]


EMIT = [sys.executable, "-c", "from relay_mp import scope; scope.event('task')"]


@pytest.mark.parametrize(
    "arguments",
    [
        ((), {}),
        ((), {"env": None}),
        ((), {"env": {"OWN": "1"}}),
        ((-1, None, None, None, None, None, True, False, None, {"OWN": "1"}), {}),
    ],
    ids=["inherited", "none", "given", "given by position"],
)
def test_an_instrumented_subprocess_begins_under_the_scope(session, seen, instrumented, arguments):
    args, kwargs = arguments
    with submitter() as here, subprocess.Popen(EMIT, *args, **kwargs) as process:
        assert process.wait(TIMEOUT_SECONDS) == 0
    assert parents(seen) == [here.uuid]


def test_an_instrumented_subprocess_outside_any_session_is_as_ever(instrumented):
    done = subprocess.run(EMIT, check=False, timeout=TIMEOUT_SECONDS, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("session", ["process"], indirect=True)
def test_a_dispatcher_process_is_no_worker_if_the_standard_library_is_instrumented(session, instrumented, tmp_path):
    subscribers.register("file", "workers:FileSubscriber", arguments={"path": str(tmp_path / "seen")})
    os.kill(session._segment.lease()[1], 9)  # the next one is started while instrumented
    with submitter() as here:
        workers.emit_marks(0, 10)
    assert subscribers.flush().lost == 0
    marks = [event for event in workers.read_seen(tmp_path / "seen") if event["name"] == "m"]
    assert {event["parent"] for event in marks} == {here.uuid}
    assert {event["data"]["n"] for event in marks} == set(range(10))


# ---------------------------------------------------------------------------------------------------- environ


def test_environ_adds_to_a_copy(session):
    base = {"OWN": "1"}
    with submitter() as here:
        variables = pools.environ(base)
    assert base == {"OWN": "1"}
    assert variables["OWN"] == "1"
    assert variables[inheritance.SESSION_VARIABLE] == session.path
    assert scope_from_text(variables[inheritance.SCOPE_VARIABLE]).uuid == here.uuid
    assert set(variables) == {"OWN", inheritance.SESSION_VARIABLE, inheritance.SCOPE_VARIABLE}
    assert dict(os.environ).items() <= pools.environ().items()
    assert inheritance.SCOPE_VARIABLE not in os.environ


def test_environ_outside_any_session_is_a_copy():
    assert pools.environ() == dict(os.environ)
    assert pools.environ({"OWN": "1"}) == {"OWN": "1"}
    with relay_mp.session():
        pass
    assert pools.environ() == dict(os.environ)


def test_a_subprocess_begins_under_the_scope_and_its_own_subprocess_too(session, seen):
    nested = f"import subprocess; from relay_mp import pools; subprocess.run({EMIT!r}, env=pools.environ(), check=True)"
    with submitter() as here:
        subprocess.run([sys.executable, "-c", nested], env=pools.environ(), check=True, timeout=TIMEOUT_SECONDS)
    assert parents(seen) == [here.uuid]


def test_a_subprocess_without_environ_attaches_and_has_a_root_of_its_own(session, seen):
    with submitter() as here:
        subprocess.run(EMIT, check=True, timeout=TIMEOUT_SECONDS)
    (parent,) = parents(seen)
    assert parent not in (None, here.uuid)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"stack":"00"}', "x" * (MAX_TEXT_CHARACTERS + 1)])
def test_a_malformed_scope_is_ignored_by_the_child_and_said(session, seen, text):
    variables = {**pools.environ(), inheritance.SCOPE_VARIABLE: text}
    done = subprocess.run(EMIT, env=variables, check=True, timeout=TIMEOUT_SECONDS, capture_output=True, text=True)
    assert len(parents(seen)) == 1
    assert ("RELAY_MP_SCOPE is ignored" in done.stderr) == (text != "")


@pytest.mark.parametrize(
    "path", ["/nonexistent/relay_mp-0", "/dev/null", "", "\udcff"], ids=["missing", "device", "empty", "undecodable"]
)
def test_a_session_that_is_none_is_ignored_by_the_child(path):
    variables = {**os.environ, inheritance.SESSION_VARIABLE: path}
    done = subprocess.run(EMIT, env=variables, check=False, timeout=TIMEOUT_SECONDS, capture_output=True)
    assert done.returncode == 0
    told = b"/dev/null is not a regular file" in done.stderr  # what is there and cannot be attached to is told of
    assert told == (path == "/dev/null")
    assert told or done.stderr == b""


# ------------------------------------------------------------------------------------------- a scope as text


def test_a_scope_as_text_carries_its_identity_and_stack():
    with scope.scope("outer", ScopeType.Agent) as outer, scope.scope("größer \x00 🎈", ScopeType.Tool) as inner:
        arrived = scope_from_text(current_scope_text())
    assert (arrived.uuid, arrived.parent_uuid, arrived.name) == (inner.uuid, outer.uuid, inner.name)
    assert arrived.scope_type == ScopeType.Tool
    assert arrived._stack[:16] == inner._uuid
    assert arrived._stack[16:32] == outer._uuid
    assert "\x00" not in current_scope_text()


def test_a_very_deep_or_long_named_scope_fits_into_an_environment_variable():
    handles = [scope.push("🎈" * 1000, ScopeType.Agent) for _ in range(3000)]
    try:
        text = current_scope_text()
        assert len(text) <= MAX_TEXT_CHARACTERS
        arrived = scope_from_text(text)
        assert arrived._stack[:16] == handles[-1]._uuid
        assert arrived._stack[16:32] == handles[-2]._uuid
    finally:
        for handle in reversed(handles):
            scope.pop(handle)


GOOD = json.loads('{"stack":"' + "0a" * 16 + '","parent":null,"trace":null,"name":"n","type":0}')


@pytest.mark.parametrize(
    "change",
    [
        {"stack": ""},
        {"stack": "0a" * 15},
        {"stack": "zz" * 16},
        {"stack": None},
        {"stack": 5},
        {"parent": "0a"},
        {"parent": 5},
        {"trace": "0a" * 17},
        {"name": None},
        {"name": 5},
        {"type": -1},
        {"type": 99},
        {"type": "0"},
        {"type": None},
        {"type": True},
        {"type": 1.0},
    ],
)
def test_a_scope_text_is_refused_whole(change):
    assert scope_from_text(json.dumps(GOOD)).name == "n"
    with pytest.raises(PropagationError, match="an inherited scope is malformed"):
        scope_from_text(json.dumps({**GOOD, **change}))


@pytest.mark.parametrize("text", ["", "[", "[" * 5000, "[]", "null", "5", '"text"', "{}", "é", "\udcff"])
def test_a_scope_text_that_is_no_json_object_is_refused(text):
    with pytest.raises(PropagationError, match="an inherited scope is malformed"):
        scope_from_text(text)


def test_a_task_whose_scope_has_ended_before_it_ran_is_still_its_child(seen):
    """In a thread as in a worker, where the ended scope is known by its identity only."""
    with submitter() as handle:
        task = pools.propagate(mark)
    task(1)
    pickle.loads(pickle.dumps(task))(2)
    assert parents(seen) == [handle.uuid, handle.uuid]
