"""Celery: a task runs under the scope in which it was published, in whichever worker it runs.

    publisher: delay(), apply_async() ──▶ the current scope, in the message's header `relay_mp`
    worker:    task_prerun  ──▶ that scope is current  ──▶ the task's own scopes and marks are its children
               task_postrun ──▶ the worker's own scope again

`instrument()` is called where the application is made, which publishers and workers import. It begins no session.
Workers that were started apart from the publisher have one of their own, begun at Celery's signal `worker_init`; its
stream names the same parents and the same traces. Prefork, threads, gevent, eventlet. A killed child loses nothing of
what its tasks had emitted.
"""

from collections.abc import Callable
from typing import Any

from relay_mp._emit.carry import current_scope_text, scope_from_text
from relay_mp._emit.context import use_scope
from relay_mp._log import logger
from relay_mp.errors import PropagationError

__all__ = ["HEADER", "instrument", "uninstrument"]

HEADER = "relay_mp"
"""Of a task's message: the publisher's scope, as text."""

_running: dict[str, use_scope] = {}


def instrument() -> None:
    """Has tasks carry the scope, in publishers and in workers. Idempotent; call it where the application is made."""
    for signal, receiver in _receivers():
        signal.connect(receiver, weak=False, dispatch_uid=HEADER)


def uninstrument() -> None:
    """Takes `instrument()` back. Idempotent."""
    for signal, receiver in _receivers():
        signal.disconnect(receiver, dispatch_uid=HEADER)


def _receivers() -> list[tuple[Any, Callable[..., None]]]:
    from celery import signals

    return [(signals.before_task_publish, _publish), (signals.task_prerun, _begin), (signals.task_postrun, _end)]


def _publish(headers: dict[str, Any] | None = None, **_: Any) -> None:
    if headers is not None:
        headers[HEADER] = current_scope_text()


def _begin(task_id: str, task: Any, **_: Any) -> None:
    text = getattr(task.request, HEADER, None)
    if not isinstance(text, str):
        return  # published by who does not use this, or run where it was called
    try:
        handle = scope_from_text(text)
    except PropagationError as error:
        logger.warning("task %s begins at a root: its header %s is ignored: %s", task_id, HEADER, error)
        return
    scope = _running[task_id] = use_scope(handle)
    scope.__enter__()


def _end(task_id: str, **_: Any) -> None:
    scope = _running.pop(task_id, None)
    if scope is not None:
        scope.__exit__(None, None, None)
