"""How a session's name, and the scope to begin under, get from a process to its children.

    os.environ                        exec'd children: subprocess, spawn, a forkserver started later
    multiprocessing's process config  copied into every Process object that is pickled: children of a
                                      forkserver that was running before the session began

Forked children need neither: they have the mapping and the context. Nothing is patched.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

SESSION_VARIABLE = "RELAY_MP_SESSION"
SCOPE_VARIABLE = "RELAY_MP_SCOPE"


def _process_config() -> dict[str, Any] | None:
    """What multiprocessing copies to the children of this process; None if it is not in use."""
    module = sys.modules.get("multiprocessing.process")
    config = getattr(module.current_process(), "_config", None) if module else None
    return config if isinstance(config, dict) else None


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
    config = _process_config()
    if config is not None:
        config[SESSION_VARIABLE] = _Word(path)


def withdraw(path: str) -> None:
    """Takes it back, unless another session has left word since."""
    if os.environ.get(SESSION_VARIABLE) == path:
        del os.environ[SESSION_VARIABLE]
    config = _process_config()
    if config is not None and config.get(SESSION_VARIABLE) == path:
        del config[SESSION_VARIABLE]


def _find(variable: str) -> str | None:
    # The process config is the newer word: a forkserver keeps the environment that it began with.
    found = (_process_config() or {}).get(variable) or os.environ.get(variable)
    return found if isinstance(found, str) else None


def find_session() -> str | None:
    """The session that the parent left word of."""
    return _find(SESSION_VARIABLE)


def find_scope() -> str | None:
    """The scope that the parent started this process under, as text."""
    return _find(SCOPE_VARIABLE)
