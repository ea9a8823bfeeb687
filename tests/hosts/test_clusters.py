"""Dask's and Ray's own clusters on this machine: one stream, each task under its submitter."""

import pytest

RUN = """
import sys
del sys.argv[0]
main = sys.modules["__main__"]
main.__file__ = sys.argv[0]  # what a worker that is spawned imports
with open(sys.argv[0]) as file:
    exec(compile(file.read(), sys.argv[0], "exec"), vars(main))
"""

COMMON = """
from collections import Counter
import relay_mp
from relay_mp import ScopeType, pools, scope, subscribers

def work(number):
    from relay_mp import ScopeType, scope
    with scope.scope("work", ScopeType.Tool):
        pass
    scope.push("left open", ScopeType.Tool)
    return number

events = []
def look(event):
    if event.name == "work" and event.scope_category == "start":
        events.append((event.parent_uuid, event.pid))
"""

DASK = (
    COMMON
    + """
if __name__ == "__main__":
    import os
    from dask.base import tokenize
    from distributed import Client, LocalCluster
    assert tokenize(work, 1) == tokenize(pools.propagate(work), 1)
    with relay_mp.session():
        subscribers.register("look", look)
        with LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
            with scope.scope("first", ScopeType.Agent) as first:
                assert client.gather(client.map(pools.propagate(work), range(10))) == list(range(10))
            with scope.scope("second", ScopeType.Agent) as second:
                assert client.gather(client.map(pools.propagate(work), range(10, 30))) == list(range(10, 30))
        assert subscribers.flush().lost == 0
    assert os.getpid() not in {pid for _, pid in events}
    parents = Counter(parent for parent, _ in events)
    assert parents == {first.uuid: 10, second.uuid: 20}, parents
    print("whole")
"""
)

RAY = (
    COMMON
    + """
if __name__ == "__main__":
    import os
    import ray
    with relay_mp.session():
        subscribers.register("look", look)
        ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80_000_000, log_to_driver=False)

        @ray.remote
        def task(context, number):
            with pools.use(context):
                return work(number)

        @ray.remote
        class Actor:
            def method(self, context, number):
                with pools.use(context):
                    return work(number)

        actor = Actor.remote()
        with scope.scope("first", ScopeType.Agent) as first:
            assert ray.get([task.remote(pools.capture(), number) for number in range(10)]) == list(range(10))
        with scope.scope("second", ScopeType.Agent) as second:
            assert ray.get([actor.method.remote(pools.capture(), number) for number in range(20)]) == list(range(20))
        ray.shutdown()
        assert subscribers.flush().lost == 0
    assert os.getpid() not in {pid for _, pid in events}
    parents = Counter(parent for parent, _ in events)
    assert parents == {first.uuid: 10, second.uuid: 20}, parents
    print("whole")
"""
)


@pytest.mark.parametrize(("package", "text"), [("distributed", DASK), ("ray", RAY)], ids=["dask", "ray"])
def test_tasks_of_a_cluster_are_in_one_stream(run_script, needs, tmp_path, package, text):
    needs(package)
    program = tmp_path / "program.py"
    program.write_text(text)
    environment = {"RAY_AUTH_MODE": "disabled", "RAY_DEDUP_LOGS": "0"}
    ran = run_script(RUN, program, environment=environment, timeout_seconds=180)
    assert ran.stdout.splitlines()[-1] == "whole"
