"""Hosts of one program's own workers: processes, threads, greenlets. `run_pools.py KIND [PACKAGE] [START METHOD]`."""

import importlib
import os
import pickle
import subprocess
import sys
import warnings
from concurrent.futures.process import BrokenProcessPool

warnings.simplefilter("ignore")
KIND, PACKAGE, START = "pool", "relay_mp", "fork"  # where another program imports this one
if __name__ in {"__main__", "__mp_main__"}:
    KIND, PACKAGE, START = [*sys.argv[1:], "-", "-"][:3]
if PACKAGE in {"gevent", "eventlet"}:
    importlib.import_module("eventlet" if PACKAGE == "eventlet" else "gevent.monkey").__dict__[
        "monkey_patch" if PACKAGE == "eventlet" else "patch_all"
    ]()

# ruff: noqa: E402 - after what patches Python
import pytest
from workload import Host, dies, run, work

import relay_mp
from relay_mp import pools

WORKERS = 2
WAIT_SECONDS = 30


class OwnPool(Host):
    """`relay_mp.pools.Pool`; or a package's own, instrumented."""

    def open(self):
        if PACKAGE == "relay_mp":
            context = pools.get_context(START)
        else:
            package = importlib.import_module(PACKAGE)
            importlib.import_module(f"{PACKAGE}.pool")
            pools.instrument()
            context = package.get_context(START)
        self.pool = context.Pool(WORKERS, maxtasksperchild=2)

    def map(self, numbers):
        return self.pool.map(work, numbers, chunksize=1)

    def kill(self):
        self.pool.apply_async(dies, (0,))  # its result never comes

    def close(self):
        self.pool.terminate()
        self.pool.join()


class Executor(Host):
    """`relay_mp.pools.ProcessPoolExecutor`."""

    def open(self):
        more = {} if START == "fork" else {"max_tasks_per_child": 2}
        self.pool = pools.ProcessPoolExecutor(WORKERS, mp_context=pools.get_context(START), **more)

    def map(self, numbers):
        # One after the other: with more tasks than recycled workers may take, CPython's own executor hangs (gh-115634).
        return [self.pool.submit(work, number).result() for number in numbers]

    def kill(self):
        assert isinstance(self.pool.submit(dies).exception(), BrokenProcessPool)
        self.pool.shutdown()
        self.open()

    def close(self):
        self.pool.shutdown()


class Process(Host):
    """A process for each task: `relay_mp.pools.Process`, or multiprocessing's, instrumented."""

    def open(self):
        if PACKAGE == "relay_mp":
            self.context = pools.get_context(START)
        else:
            pools.instrument()
            self.context = importlib.import_module(PACKAGE).get_context(START)

    def map(self, numbers):
        return [self.join(process) for process in [self.start(work, number) for number in numbers]]

    def start(self, function, *arguments):
        process = self.context.Process(target=function, args=arguments)
        process.start()
        return process

    def join(self, process):
        process.join(WAIT_SECONDS)
        return process.pid

    def kill(self):
        self.join(self.start(dies))


class Fork(Host):
    """os.fork: nothing to write, a child goes on under the scope in which it is forked."""

    def map(self, numbers):
        return [self.run(work, number) for number in numbers]

    def run(self, function, *arguments):
        pid = os.fork()
        if pid == 0:
            function(*arguments)
            os._exit(0)
        os.waitpid(pid, 0)
        return pid

    def kill(self):
        self.run(dies)


class Subprocess(Host):
    """Another program: it finds the session by itself, and the scope in `pools.environ()`."""

    def map(self, numbers):
        return [self.join(child) for child in [self.start(f"work({number})") for number in numbers]]

    def start(self, call):
        return subprocess.Popen([sys.executable, "-c", f"import workload; workload.{call}"], env=pools.environ())

    def join(self, child):
        child.wait(WAIT_SECONDS)
        return child.pid

    def kill(self):
        self.join(self.start("dies()"))


class Attach(Subprocess):
    """Another program, whose environment has nothing of ours: `attach`, and `use` of a context that is sent."""

    PROGRAM = """
import pickle, sys, relay_mp, workload
from relay_mp import pools
handle, context = pickle.load(sys.stdin.buffer)
relay_mp.attach(handle)
with pools.use(context):
    workload.CALL
"""

    def start(self, call):
        hidden = (relay_mp._session.inheritance.SESSION_VARIABLE, relay_mp._session.inheritance.SCOPE_VARIABLE)
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        command = [sys.executable, "-c", self.PROGRAM.replace("CALL", call)]
        child = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)
        with child.stdin as pipe:
            pickle.dump((relay_mp.current_session().handle, pools.capture()), pipe)
        return child


class Threads(Host):
    """`relay_mp.pools.ThreadPoolExecutor`."""

    def open(self):
        self.pool = pools.ThreadPoolExecutor(WORKERS)

    def map(self, numbers):
        return list(self.pool.map(work, numbers))

    def close(self):
        self.pool.shutdown()


class Asyncio(Host):
    """Tasks of a loop: nothing to write."""

    def map(self, numbers):
        import asyncio

        async def each(number):
            await asyncio.sleep(0)
            return work(number)

        async def every():
            return await asyncio.gather(*map(each, numbers))

        return asyncio.run(every())


class Greenlets(Host):
    """gevent's or eventlet's pool, instrumented."""

    def open(self):
        if PACKAGE == "gevent":
            self.pool = importlib.import_module("gevent.pool").Pool(WORKERS)
        else:
            self.pool = importlib.import_module("eventlet.greenpool").GreenPool(WORKERS)
        pools.instrument()

    def map(self, numbers):
        greenlets = [self.pool.spawn(work, number) for number in numbers]
        return [greenlet.get() if PACKAGE == "gevent" else greenlet.wait() for greenlet in greenlets]


class Joblib(Host):
    """`joblib.Parallel`, instrumented; it takes its tasks from a generator when it needs them."""

    def open(self):
        self.joblib = importlib.import_module("joblib")
        pools.instrument()

    def map(self, numbers):
        return self.joblib.Parallel(n_jobs=WORKERS)(self.joblib.delayed(work)(number) for number in numbers)

    def recycle(self):
        self.joblib.externals.loky.get_reusable_executor().shutdown()

    def kill(self):
        with pytest.raises(Exception, match="SIGKILL"):
            self.joblib.Parallel(n_jobs=WORKERS)(self.joblib.delayed(dies)(number) for number in range(1))

    close = recycle


class Loky(Host):
    """loky's executor, instrumented."""

    def open(self):
        self.loky = importlib.import_module("loky")
        pools.instrument()
        self.pool = self.loky.ProcessPoolExecutor(WORKERS)

    def map(self, numbers):
        return list(self.pool.map(work, numbers))

    def recycle(self):
        self.pool.shutdown()
        self.pool = self.loky.ProcessPoolExecutor(WORKERS)

    def kill(self):
        assert self.pool.submit(dies, 0).exception() is not None
        self.recycle()

    def close(self):
        self.pool.shutdown()


class Pathos(Host):
    """pathos' pool, instrumented."""

    def open(self):
        importlib.import_module("multiprocess.pool")
        pools.instrument()
        self.pool = importlib.import_module("pathos.pools").ProcessPool(WORKERS)
        self.pool.restart(True)

    def map(self, numbers):
        return self.pool.map(work, numbers)

    def recycle(self):
        self.close()
        self.pool.restart(True)

    def kill(self):
        self.pool.apipe(dies, 0)

    def close(self):
        self.pool.terminate()
        self.pool.join()


class Mpire(Host):
    """mpire's pool, with a function that carries its scope."""

    def open(self):
        self.mpire = importlib.import_module("mpire")
        self.pool = self.mpire.WorkerPool(WORKERS, start_method=START)

    def map(self, numbers):
        return self.pool.map(pools.propagate(work), numbers, chunk_size=1, worker_lifespan=2)

    def kill(self):
        with pytest.raises(RuntimeError, match="died"):
            self.pool.apply(pools.propagate(dies), (0,))
        self.pool.terminate()
        self.open()

    def close(self):
        self.pool.stop_and_join()


KINDS = {
    "pool": OwnPool,
    "executor": Executor,
    "process": Process,
    "fork": Fork,
    "subprocess": Subprocess,
    "attach": Attach,
    "threads": Threads,
    "asyncio": Asyncio,
    "greenlets": Greenlets,
    "joblib": Joblib,
    "loky": Loky,
    "pathos": Pathos,
    "mpire": Mpire,
}

if __name__ == "__main__":
    run(KINDS[KIND]())
