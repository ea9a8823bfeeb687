"""Dask: a task runs under the scope in which it was submitted, and so does a call of an actor's method.

    client: submit, map, compute, persist ──▶ the current scope, as the tasks' annotation `relay_mp`
            actor.method(...)             ──▶ the current scope, beside the method's arguments
    worker: the plugin of `worker_plugin` ──▶ that scope is current while the task or the method runs

An annotation is no part of a task: its key, and what Dask knows of equal tasks, stay as they are. `instrument(client)`
begins no session. Workers that the program starts are in its session by the environment; one that is not joins the
submitter's with its first task, if it is on the same machine. Workers that are started later, or again after a kill,
get the plugin from the scheduler.
"""

import functools
import json
import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from contextvars import copy_context
from typing import Any

from relay_mp._emit.carry import current_scope_text, scope_from_text
from relay_mp._log import logger
from relay_mp.errors import PropagationError, SessionError
from relay_mp.pools import TaskContext, capture, use

__all__ = ["ANNOTATION", "instrument", "uninstrument", "worker_plugin"]

ANNOTATION = "relay_mp"
"""Of tasks: where they were submitted, as text. Also the plugin's name."""

KEYWORD = "relay_mp_context"
"""The argument with which a call of an actor's method carries the same; the worker takes it off."""

_clients: "weakref.WeakSet[Any]" = weakref.WeakSet()
_workers: "weakref.WeakSet[Any]" = weakref.WeakSet()


def instrument(client: Any) -> Any:
    """Has what this client submits carry the scope, and gives the workers of its cluster the plugin. Idempotent.

    What a task submits by a client of its own carries the task's scope. A task of an executor of processes, which a
    worker was given, does not.

    Args:
        client: a `distributed.Client`.

    Returns:
        What `client.register_plugin` returns: to be awaited where the client is asynchronous.
    """
    _patch()
    _clients.add(client)
    return client.register_plugin(worker_plugin())


def uninstrument(client: Any) -> Any:
    """Takes `instrument(client)` back. Idempotent.

    Returns:
        What `client.unregister_worker_plugin` returns, None where there was nothing to take back.
    """
    if client not in _clients:
        return None
    _clients.discard(client)
    return client.unregister_worker_plugin(ANNOTATION)


def worker_plugin() -> Any:
    """A `distributed.WorkerPlugin`, which `instrument` registers; for workers that are configured by themselves."""
    import distributed

    members = {"name": ANNOTATION, "setup": _set_up, "teardown": _tear_down, "__reduce__": _reduced}
    return type("RelayPlugin", (distributed.WorkerPlugin,), members)()


def _reduced(_: Any) -> tuple[Callable[[], Any], tuple[()]]:
    return worker_plugin, ()


# ---- the submitting side ----


def _patch() -> None:
    """Patches Dask's client and actor, once in a process; they ask of each client whether it carries."""
    import distributed

    client, actor = distributed.Client, distributed.Actor
    if not hasattr(client._graph_to_futures, "__wrapped__"):
        client._graph_to_futures = _annotating(client._graph_to_futures)
        rpc = actor._worker_rpc.fget
        actor._worker_rpc = property(functools.wraps(rpc)(lambda self: _carrying_rpc(self, rpc(self))))


def _context_text() -> str:
    return json.dumps([capture().session, current_scope_text()])


def _annotating(submit: Callable[..., Any]) -> Callable[..., Any]:
    import dask

    @functools.wraps(submit)
    def submit_with_scope(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not _workers and self not in _clients:
            return submit(self, *args, **kwargs)
        with dask.annotate(**{ANNOTATION: _context_text()}):
            return submit(self, *args, **kwargs)

    return submit_with_scope


class _CarryingRPC:
    """Of an actor: its calls carry the scope. Asked for in the context of the call, in Dask's own thread."""

    def __init__(self, rpc: Any) -> None:
        self._rpc = rpc

    def __getattr__(self, operation: str) -> Any:
        return getattr(self._rpc, operation)

    def actor_execute(self, *, kwargs: dict[str, Any], **message: Any) -> Any:
        return self._rpc.actor_execute(kwargs={**kwargs, KEYWORD: _context_text()}, **message)


def _carrying_rpc(actor: Any, rpc: Any) -> Any:
    # A worker without the plugin would hand the method one argument too many.
    has_plugin = actor._worker in _workers if actor._worker else actor._client in _clients
    return _CarryingRPC(rpc) if has_plugin else rpc


# ---- the worker ----


def _set_up(_: Any, worker: Any) -> None:
    _patch()
    _workers.add(worker)
    worker.execute = _executing(worker, worker.execute)
    worker.handlers["actor_execute"] = _executing_actor(worker.handlers["actor_execute"])
    actors = worker.executors["actor"]
    actors.submit = _submitting_in_context(actors.submit)


def _tear_down(_: Any, worker: Any) -> None:
    if worker in _workers:
        _workers.discard(worker)
        del worker.execute, worker.executors["actor"].submit
        worker.handlers["actor_execute"] = worker.handlers["actor_execute"].__wrapped__


def _context(text: Any) -> TaskContext | None:
    if text is None:
        return None  # submitted by who does not use this
    try:
        session, scope = json.loads(text)
        return TaskContext(session, scope_from_text(scope))
    except (PropagationError, ValueError, TypeError) as error:
        logger.warning("a task begins at a root: what it carries of its scope is ignored: %s", error)
        return None


def _executing(worker: Any, execute: Callable[..., Any]) -> Callable[..., Any]:
    """`Worker.execute`, under the scope of the task's annotation, which Dask takes along to the task's thread."""
    import distributed

    failed = distributed.worker_state_machine.ExecuteFailureEvent.from_exception

    @functools.wraps(execute)
    async def execute_under_scope(key: Any, *, stimulus_id: str) -> Any:
        task = worker.state.tasks[key]
        annotations: Mapping[str, Any] = task.annotations or {}
        context = _context(annotations.get(ANNOTATION))
        with ExitStack() as stack:
            if context is not None:
                try:
                    stack.enter_context(use(context))
                except SessionError as error:  # tasks of another session run here: this one fails, not the worker
                    return failed(error, key=key, run_id=task.run_id, stimulus_id=stimulus_id)
            return await execute(key, stimulus_id=stimulus_id)

    return execute_under_scope


def _executing_actor(execute: Callable[..., Any]) -> Callable[..., Any]:
    import distributed

    serialized = distributed.protocol.to_serialize

    @functools.wraps(execute)
    async def execute_under_scope(*args: Any, kwargs: dict[str, Any] | None = None, **message: Any) -> Any:
        context = _context((kwargs or {}).pop(KEYWORD, None))
        if context is None:
            return await execute(*args, kwargs=kwargs, **message)
        with ExitStack() as stack:
            try:
                stack.enter_context(use(context))
            except SessionError as error:
                return {"status": "error", "exception": serialized(error)}
            return await execute(*args, kwargs=kwargs, **message)

    return execute_under_scope


def _submitting_in_context(submit: Callable[..., Any]) -> Callable[..., Any]:
    """Of the executor in which actors' methods run: Dask takes the context along for tasks, not for those."""

    @functools.wraps(submit)
    def submit_in_context(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return submit(copy_context().run, function, *args, **kwargs)

    return submit_in_context
