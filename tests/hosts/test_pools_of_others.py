"""`pools.instrument()` and other people's pools, beyond what test_matrix.py runs in each of them."""

import pytest

from relay_mp import pools

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
