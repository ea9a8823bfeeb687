"""joblib, loky, multiprocess, pathos, billiard, gevent's and eventlet's pools, after `pools.instrument()`."""

import pytest

from relay_mp import pools

PROGRAM = """
import json, os, signal, sys, time, warnings
warnings.simplefilter("ignore")
host, start = sys.argv[1], sys.argv[2]
if host == "joblib":
    import joblib
elif host == "loky":
    import loky
elif host == "pathos":
    import multiprocess, multiprocess.pool
    from pathos.pools import ProcessPool
else:
    import importlib
    package = importlib.import_module(host)
    importlib.import_module(host + ".pool")
import relay_mp
from relay_mp import ScopeType, pools, scope, subscribers
from relay_mp.testing import assert_balanced

def work(number):
    from relay_mp import ScopeType, scope  # pathos sends the function alone
    with scope.scope(f"work {number}", ScopeType.Tool):
        scope.event("inside", data=number)
    if number % 2:
        scope.push("left open", ScopeType.Tool)
    return number

def dies(_):
    import os
    from relay_mp import scope
    scope.event("last words")
    os.kill(os.getpid(), 9)

class Pool:
    def __init__(self, recycled=False):
        if host == "pathos":
            self.pool = ProcessPool(2)
            self.pool.restart(True)
        elif host == "loky":
            self.pool = loky.ProcessPoolExecutor(2)
        elif host != "joblib":
            context = package.get_context(start) if start != "-" else package
            self.pool = context.Pool(2, maxtasksperchild=2 if recycled else None)

    def map(self, numbers):
        if host == "joblib":  # a generator, of which joblib takes as it needs
            return joblib.Parallel(n_jobs=2)(joblib.delayed(work)(number) for number in numbers)
        return list(self.pool.map(work, numbers))

    def kill(self):
        # in a task, whose result never comes; then there is a pool that works, maybe another
        if host == "joblib":
            try:
                joblib.Parallel(n_jobs=2)(joblib.delayed(dies)(number) for number in range(1))
            except Exception as error:
                assert "Terminated" in type(error).__name__, error
        elif host == "loky":
            assert self.pool.submit(dies, 0).exception() is not None
            self.pool = loky.ProcessPoolExecutor(2)
        elif host == "pathos":
            self.pool.apipe(dies, 0)
        else:
            self.pool.apply_async(dies, (0,))

    def close(self):
        if host == "loky":
            self.pool.shutdown()
        elif host != "joblib":
            self.pool.terminate()
            self.pool.join()

if __name__ == "__main__":
    pools.instrument()
    events, parents, pids = [], {}, set()
    with relay_mp.session() as session:
        subscribers.register("events", lambda event: (events.append(json.loads(event.to_json())), pids.add(event.pid)))
        pool = Pool(recycled=True)
        for name in "first", "second", "third":
            with scope.scope(name, ScopeType.Agent) as handle:
                parents[name] = handle.uuid
                if name == "second":
                    pool.kill()
                base = 100 * len(parents)
                assert sorted(pool.map(range(base, base + 20))) == list(range(base, base + 20))
        pool.close()
        assert session.flush().lost == 0
    starts = {event["name"]: event for event in events if event.get("scope_category") == "start"}
    for index, name in enumerate(parents, 1):
        for number in range(100 * index, 100 * index + 20):
            assert starts[f"work {number}"]["parent_uuid"] == parents[name], (name, number)
    words, = [event for event in events if event["name"] == "last words"]
    assert words["parent_uuid"] == parents["second"]
    inside = [event for event in events if event["name"] == "inside"]
    assert len(inside) == 60
    assert all(starts[f"work {event['data']}"]["uuid"] == event["parent_uuid"] for event in inside)
    recycles = host not in {"joblib", "loky", "pathos"}
    assert len(pids - {os.getpid()}) > (2 if recycles else 0), pids
    print("whole")
"""

RUN = """
import sys
del sys.argv[0]
main = sys.modules["__main__"]
main.__file__ = sys.argv[0]
with open(sys.argv[0]) as file:
    exec(compile(file.read(), sys.argv[0], "exec"), vars(main))
"""


@pytest.mark.parametrize(
    ("host", "start"),
    [
        ("joblib", "-"),
        ("loky", "-"),
        ("pathos", "-"),
        ("multiprocess", "fork"),
        ("multiprocess", "spawn"),
        ("multiprocess", "forkserver"),
        ("billiard", "fork"),
        ("billiard", "spawn"),
        ("multiprocessing", "fork"),
    ],
)
def test_instrumented_pools_of_others_carry_the_scope(run_script, needs, tmp_path, host, start):
    """Workers are used again, recycled, and left with open scopes: each task stands under its own submitter."""
    needs(*(["multiprocess", "pathos"] if host == "pathos" else [host]))
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    assert run_script(RUN, program, host, start).stdout == "whole\n"


LAZY = """
import json
from joblib import Parallel, delayed
import relay_mp
from relay_mp import ScopeType, pools, scope, subscribers

def work(number):
    scope.event("mark")

def tasks():
    for number in range(20):
        scope.event("made")
        yield delayed(pools.propagate(work) if number % 2 else work)(number)

events = []
pools.instrument()
with relay_mp.session() as session:
    subscribers.register("events", events.append)
    with scope.scope("run", ScopeType.Function) as run:
        Parallel(n_jobs=2)(tasks())
    session.flush()
    pools.uninstrument()
    with scope.scope("later", ScopeType.Function) as later:
        Parallel(n_jobs=2)(delayed(work)(number) for number in range(20))
    session.flush()
print(sum(event.parent_uuid == run.uuid for event in events), sum(event.parent_uuid == later.uuid for event in events))
"""


def test_joblibs_tasks_are_made_under_the_callers_scope_too(run_script):
    assert run_script(LAZY).stdout == "40 0\n"


GREENLETS = """
import sys
if sys.argv[1] == "gevent":
    from gevent import monkey
    monkey.patch_all()
    import gevent, gevent.pool
    module, pool, later = gevent, gevent.pool.Pool(2), lambda f: gevent.spawn_later(0.001, f)
    end = lambda each: each.join()
else:
    import warnings
    warnings.simplefilter("ignore")
    import eventlet, eventlet.greenpool
    eventlet.monkey_patch()
    module, pool, later = eventlet, eventlet.greenpool.GreenPool(2), lambda f: eventlet.spawn(f)
    end = lambda each: each.wait()
import relay_mp
from relay_mp import ScopeType, pools, scope

pools.instrument()
events = []
with relay_mp.session() as session:
    relay_mp.subscribers.register("events", events.append)
    with scope.scope("run", ScopeType.Function) as run:
        greenlets = [module.spawn(scope.event, "spawn"), pool.spawn(scope.event, "pool")]
        greenlets.append(later(lambda: scope.event("later")))
    for greenlet in greenlets:
        end(greenlet)
    pools.uninstrument()
    with scope.scope("run", ScopeType.Function):
        end(module.spawn(scope.event, "uncarried"))
    session.flush()
print(*sorted(event.name for event in events if event.kind == "mark" and event.parent_uuid == run.uuid))
"""


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_instrumented_greenlets_carry_the_scope(run_script, needs, library):
    needs(library)
    assert run_script(GREENLETS, library).stdout == "later pool spawn\n"


def test_what_is_imported_later_is_instrumented_by_another_call(monkeypatch):
    import sys
    import types

    module = types.ModuleType("loky.process_executor")
    inherited = type("Executor", (), {"map": lambda self, fn: "inherited"})
    module.ProcessPoolExecutor = type("ProcessPoolExecutor", (inherited,), {"submit": lambda self, fn: fn})
    pools.instrument()
    try:
        monkeypatch.setitem(sys.modules, "loky.process_executor", module)
        executor = module.ProcessPoolExecutor()
        assert executor.submit(print) is print
        pools.instrument()
        pools.instrument()
        assert repr(executor.submit(print)) == "propagate(<built-in function print>)"
        assert executor.map(print) == "inherited"
    finally:
        pools.uninstrument()
    assert executor.submit(print) is print
    assert "map" not in vars(module.ProcessPoolExecutor)
