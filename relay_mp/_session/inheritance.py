"""How a session's name, and the scope to begin under, get from a process to its children.

    os.environ                        exec'd children: subprocess, spawn, a forkserver started later
    multiprocessing's process config  copied into every Process object that is pickled: children of a
                                      forkserver that was running before the session began

Forked children need neither: they have the mapping and the context. Nothing is patched. What is said of multiprocessing
holds for the packages that were made of it, as soon as they are loaded: multiprocess (pathos) and billiard (Celery).
"""

import os
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

SESSION_VARIABLE = "RELAY_MP_SESSION"
SCOPE_VARIABLE = "RELAY_MP_SCOPE"

FAMILIES = ("multiprocessing", "multiprocess", "billiard")
"""multiprocessing, and what was made of it: each has processes, a configuration and finalizers of its own."""


def loaded(part: str) -> Iterator[ModuleType]:
    """That module ("process", "util") of each family that this program has loaded."""
    for family in FAMILIES:
        module = sys.modules.get(f"{family}.{part}")
        if module is not None:
            yield module


def _process_configs() -> list[dict[str, Any]]:
    """What each family copies to the children of this process."""
    found = [getattr(module.current_process(), "_config", None) for module in loaded("process")]
    return [config for config in found if isinstance(config, dict)]


def imports_main() -> bool:
    """Whether this is a new worker, of spawn or forkserver, that is importing the main program."""
    return any(getattr(module.current_process(), "_inheriting", False) for module in loaded("process"))


def _nobody() -> None:
    return None


_handing_down: Callable[[], None] = _nobody


def set_handing_down_hook(hook: Callable[[], None]) -> None:
    """Sets who is told that a session's name is about to be handed to a child that is not a fork."""
    global _handing_down
    _handing_down = hook


class _Word(str):
    """A session's name in multiprocessing's configuration.

    A process object is pickled exactly where one is started that is not forked, by whichever pool, with
    this in it: so that this is where the parent can tell what such a child will lack. The child gets a str.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        _handing_down()
        return str, (str(self),)


def publish(path: str) -> None:
    """Leaves word of a session for children."""
    os.environ[SESSION_VARIABLE] = path
    for config in _process_configs():
        config[SESSION_VARIABLE] = _Word(path)


def withdraw(path: str) -> None:
    """Takes it back, unless another session has left word since."""
    if os.environ.get(SESSION_VARIABLE) == path:
        del os.environ[SESSION_VARIABLE]
    for config in _process_configs():
        if config.get(SESSION_VARIABLE) == path:
            del config[SESSION_VARIABLE]


def _find(variable: str) -> str | None:
    # The process config is the newer word: a forkserver keeps the environment that it began with.
    words = [config[variable] for config in _process_configs() if config.get(variable)]
    found = words[0] if words else os.environ.get(variable)
    return found if isinstance(found, str) else None


def find_session() -> str | None:
    """The session that the parent left word of."""
    return _find(SESSION_VARIABLE)


def find_scope() -> str | None:
    """The scope that the parent started this process under, as text."""
    return _find(SCOPE_VARIABLE)
