"""Dask and Ray: clusters of this machine. `run_clusters.py {dask,ray}-{tasks,actors}`."""

import contextlib
import os
import sys
import time

from workload import Host, dies, run, work

WORKERS = 2
WAIT_SECONDS = 60


class Dask(Host):
    """`instrument(client)`."""

    def open(self):
        from distributed import Client, LocalCluster

        from relay_mp.integrations.dask import instrument

        self.cluster = LocalCluster(WORKERS, threads_per_worker=1, dashboard_address=None)
        self.client = Client(self.cluster)
        key = self.client.submit(abs, -1).key
        instrument(self.client)
        assert self.client.submit(abs, -1).key == key

    def map(self, numbers):
        return self.client.gather(self.client.map(work, numbers))

    def recycle(self):
        self.client.restart()

    def kill(self):
        from distributed import KilledWorker

        assert isinstance(self.client.submit(dies, retries=0).exception(), KilledWorker)

    def close(self):
        self.client.close()
        self.cluster.close()


class Agent:
    """An actor."""

    def work(self, number):
        return work(number)

    def pid(self):
        return os.getpid()

    def dies(self):
        dies()


class DaskActors(Dask):
    """The same; the methods of an actor."""

    def open(self):
        super().open()
        self.make()

    def make(self):
        self.actor = self.client.submit(Agent, actor=True).result()

    def map(self, numbers):
        return [self.actor.work(number).result() for number in numbers]

    def recycle(self):
        super().recycle()
        self.make()

    def kill(self):
        with contextlib.suppress(Exception):  # whatever Dask says of it
            self.actor.dies().result(timeout=10)
        self.make()

    def close(self):
        del self.actor
        super().close()


class Ray(Host):
    """`instrument()` before `ray.init()`."""

    def open(self):
        import ray

        from relay_mp.integrations.ray import instrument

        instrument()
        self.ray = ray
        ray.init(num_cpus=WORKERS, include_dashboard=False, object_store_memory=80_000_000, log_to_driver=False)
        self.work = ray.remote(max_calls=2)(work)
        self.dies = ray.remote(max_retries=0)(dies)

    def map(self, numbers):
        return self.ray.get([self.work.remote(number) for number in numbers])

    def kill(self):
        try:
            self.ray.get(self.dies.remote())
        except self.ray.exceptions.WorkerCrashedError:
            return
        raise AssertionError("the worker was not killed")

    def close(self):
        self.ray.shutdown()


class RayActors(Ray):
    """The same; the methods of an actor, which Ray makes again."""

    def open(self):
        super().open()
        self.actor = self.ray.remote(max_restarts=-1)(Agent).remote()

    def map(self, numbers):
        return self.ray.get([self.actor.work.remote(number) for number in numbers])

    def recycle(self):
        earlier = self._pid()
        self.ray.kill(self.actor, no_restart=False)
        self._wait_for_another(earlier)

    def kill(self):
        earlier = self._pid()
        try:
            self.ray.get(self.actor.dies.remote())
        except self.ray.exceptions.RayActorError:
            self._wait_for_another(earlier)
            return
        raise AssertionError("the worker was not killed")

    def _pid(self):
        return self.ray.get(self.actor.pid.remote(), timeout=WAIT_SECONDS)

    def _wait_for_another(self, earlier):
        """The one that is to die may answer first."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(self.ray.exceptions.RayActorError):
                if self._pid() != earlier:
                    return
            time.sleep(0.02)
        raise AssertionError("Ray has not made the actor again")


if __name__ == "__main__":
    os.environ.update(RAY_AUTH_MODE="disabled", RAY_DEDUP_LOGS="0")
    run({"dask-tasks": Dask, "dask-actors": DaskActors, "ray-tasks": Ray, "ray-actors": RayActors}[sys.argv[1]]())
