"""Ray: a task, and a call of an actor's method, runs under the scope in which `.remote()` was called.

    driver: ray.init()          ──▶ `runtime_env_hook` adds `setup` to the workers' start (RAY_RUNTIME_ENV_HOOK)
            f.remote(...)       ──▶ the current scope and session, behind the task's arguments
    worker: `setup`             ──▶ functions and methods take that off, and run under the scope

Call `instrument()` before `ray.init()`. Or write nothing, and start the program with
`RAY_RUNTIME_ENV_HOOK=relay_mp.integrations.ray.runtime_env_hook` in its environment. It begins no session: workers of a
Ray that the program starts are in its session by the environment; one that is not joins the submitter's with its first
task, if it is on the same machine. Not through Ray Client (`ray://`).
"""

import functools
import inspect
import os
from collections.abc import Callable
from typing import Any

from relay_mp._log import logger
from relay_mp.pools import capture, propagate

__all__ = ["instrument", "runtime_env_hook", "setup", "uninstrument"]

HOOK_VARIABLE = "RAY_RUNTIME_ENV_HOOK"
"""Names the function through which Ray passes each driver's runtime environment."""

KEYWORD = "relay_mp_context"
"""The argument with which a task carries where it was submitted; the worker takes it off."""

_HOOK = f"{__name__}.runtime_env_hook"
_SETUP = f"{__name__}.setup"
_SETUP_KEY = "worker_process_setup_hook"


class _State:
    originals: tuple[tuple[Any, str, Any], ...] = ()
    earlier_hook: str | None = None
    workers_are_set_up = False
    """Only then may tasks have the argument: another worker would hand it to the function."""


def instrument() -> None:
    """Has tasks and actors carry the scope, and sees to it that workers of the next `ray.init()` know. Idempotent."""
    import ray

    _patch()
    if os.environ.get(HOOK_VARIABLE) != _HOOK:
        _State.earlier_hook = os.environ.get(HOOK_VARIABLE)
        os.environ[HOOK_VARIABLE] = _HOOK
    if ray.is_initialized() and not _State.workers_are_set_up:
        logger.warning("Ray runs already, with workers that carry no scope: call instrument() before ray.init()")


def uninstrument() -> None:
    """Takes `instrument()` back. Idempotent."""
    for owner, name, original in _State.originals:
        setattr(owner, name, original)
    _State.originals, _State.workers_are_set_up = (), False
    if os.environ.get(HOOK_VARIABLE) == _HOOK:
        del os.environ[HOOK_VARIABLE]
        if _State.earlier_hook is not None:
            os.environ[HOOK_VARIABLE] = _State.earlier_hook


def setup() -> None:
    """Prepares a worker process: Ray's `worker_process_setup_hook`."""
    _patch()
    _State.workers_are_set_up = True


def runtime_env_hook(runtime_env: Any) -> dict[str, Any]:
    """Adds `setup` to a runtime environment: what `RAY_RUNTIME_ENV_HOOK` names.

    Args:
        runtime_env: of `ray.init`. A setup hook of its own runs after ours.

    Returns:
        A new one.
    """
    if _State.earlier_hook is not None:
        runtime_env = _load(_State.earlier_hook)(runtime_env)
    setup()
    environment = dict(runtime_env or {})
    environment[_SETUP_KEY] = _setting_up(environment.get(_SETUP_KEY))
    return environment


def _setting_up(theirs: Callable[[], object] | str | None) -> Callable[[], None] | str:
    if theirs is None or theirs == _SETUP:
        return _SETUP

    def set_both_up() -> None:
        setup()
        (_load(theirs) if isinstance(theirs, str) else theirs)()

    return set_both_up


def _load(name: str) -> Callable[..., Any]:
    import ray

    found: Callable[..., Any] = ray._common.utils.load_class(name)
    return found


def _patch() -> None:
    import ray

    if _State.originals:
        return
    patches = (
        (ray._common.signature, "extract_signature", _with_keyword),
        (ray._common.signature, "flatten_args", _carrying),
        (ray.actor.ActorHandle, "_actor_method_call", _calling),
        (ray._private.function_manager.FunctionActorManager, "get_execution_info", _executing),
    )
    _State.originals = tuple((owner, name, getattr(owner, name)) for owner, name, _ in patches)
    for owner, name, wrap in patches:
        setattr(owner, name, wrap(getattr(owner, name)))


_PARAMETER = inspect.Parameter(KEYWORD, inspect.Parameter.KEYWORD_ONLY, default=None)


def _with_keyword(extract: Callable[..., list[inspect.Parameter]]) -> Callable[..., list[inspect.Parameter]]:
    """For functions without parameters, whose arguments Ray would not look at."""

    @functools.wraps(extract)
    def extract_signature(*args: Any, **kwargs: Any) -> list[inspect.Parameter]:
        return extract(*args, **kwargs) or [_PARAMETER]

    return extract_signature


def _calling(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same for methods, whose signatures may be older than `instrument()`."""

    @functools.wraps(call)
    def actor_method_call(self: Any, method_name: str, *args: Any, **kwargs: Any) -> Any:
        signatures = self._ray_method_signatures  # None of an actor in another language
        if signatures and not signatures.get(method_name, True):
            signatures[method_name] = [_PARAMETER]
        return call(self, method_name, *args, **kwargs)

    return actor_method_call


def _carrying(flatten: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """Ray's list of a task's arguments, as names and values in turn: it gets ours."""

    @functools.wraps(flatten)
    def flatten_args(*args: Any, **kwargs: Any) -> list[Any]:
        flat = flatten(*args, **kwargs)
        return [*flat, KEYWORD, capture()] if _State.workers_are_set_up else flat

    return flatten_args


def _executing(get: Callable[..., Any]) -> Callable[..., Any]:
    """What a worker runs for a task or a method: under the scope that came with the arguments."""

    @functools.wraps(get)
    def get_execution_info(self: Any, job_id: Any, descriptor: Any) -> Any:
        found = get(self, job_id, descriptor)
        if not hasattr(found.function, "_carries_scope"):
            found = found._replace(function=_taking_context(found.function))
            self._function_execution_info[descriptor.function_id] = found
        return found

    return get_execution_info


def _taking_context(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        context = kwargs.pop(KEYWORD, None)
        return (function if context is None else propagate(function, context))(*args, **kwargs)

    call._carries_scope = True  # type: ignore[attr-defined]
    return call
