"""How a Python process under `relay-mp run` takes part: it joins the session, and switches on what RELAY_MP_RUN names.

    relay-mp run ──▶ RELAY_MP_SESSION, RELAY_MP_SCOPE, RELAY_MP_RUN, PYTHONPATH ──▶ sitecustomize ──▶ join()
                                                                                       │
                 at once: pools, logging; when it is imported: openai, celery ◀────────┘

A `relay_mp.session()` of the program joins the session that is there. Nothing is imported for an integration whose
package the program does not import.
"""

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from relay_mp._log import logger
from relay_mp._session.membership import current_session, lend

VARIABLE = "RELAY_MP_RUN"
"""Names what is switched on, with commas between. It is set in processes under `relay-mp run` only."""

AT_ONCE = {"pools": "relay_mp.pools", "logging": "relay_mp.integrations.logging"}
"""By name, whose `instrument()` is called first."""

ON_IMPORT = {"openai": "relay_mp.integrations.openai", "celery": "relay_mp.integrations.celery"}
"""By the package that it is for, whose `instrument()` is called when the program has imported that."""


def join() -> None:
    """Attaches this process, and switches on what the variable names. Called once, before the program's first line."""
    session = current_session()
    if session is None or VARIABLE not in os.environ:
        return
    lend(session)
    names = [name for name in os.environ[VARIABLE].split(",") if name]
    for name in names:
        if name in AT_ONCE:
            _switch_on(AT_ONCE[name])
    waiting = {name: ON_IMPORT[name] for name in names if name in ON_IMPORT}
    if waiting:
        sys.meta_path.insert(0, _Follower(waiting))


def _switch_on(module: str) -> None:
    try:
        import_module(module).instrument()
    except Exception as error:
        logger.warning("%s cannot be switched on: %s: %s", module, type(error).__name__, error)


class _Follower(MetaPathFinder):
    """Finds nothing by itself: has an integration switched on after its package was executed.

    Args:
        waiting: by package, the integration's module.
    """

    def __init__(self, waiting: dict[str, str]) -> None:
        self._waiting = waiting

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The package as the other finders find it, with a loader that switches on; None: it is not waited for."""
        module = self._waiting.pop(name, None)
        if module is None:
            return None
        for finder in list(sys.meta_path):
            find = getattr(finder, "find_spec", None)
            spec = None if finder is self or find is None else find(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    _follow(spec.loader, lambda: _switch_on(module))
                return spec  # type: ignore[no-any-return]
        self._waiting[name] = module
        return None


def _follow(loader: Loader, then: Callable[[], None]) -> None:
    execute: Any = loader.exec_module

    def execute_and_follow(module: ModuleType) -> None:
        execute(module)
        then()

    loader.exec_module = execute_and_follow  # type: ignore[method-assign]
