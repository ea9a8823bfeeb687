"""The callback of a registration that has come from the owner: imported where it is first called.

    Arrived(row) ─▶ first call ─▶ a name: it is imported                         ─▶ the callback
                              ├─▶ a component: its plugin registers here, once   ─▶ the callback
                              └─▶ neither can be had: this call and later ones raise

For sanitizers and guardrails an exception means closed: the payload is withheld, or the call refused.
"""

from collections.abc import Callable
from typing import Any

from relay_mp._deliver import named
from relay_mp._log import logger
from relay_mp._plugins import components
from relay_mp._session.configuration.diagnostics import note_failure
from relay_mp._session.configuration.state import state
from relay_mp._session.configuration.table import Row
from relay_mp.errors import MiddlewareError, PluginError

__all__ = ["Arrived"]


class Arrived:
    """A callback of the owner's, imported here where it is first called.

    No lock is held meanwhile: two threads may import it at once, as two that import a module do not
    wait for each other's locks; one result is kept.
    """

    __slots__ = ("_callback", "_row", "_untold")

    def __init__(self, row: Row) -> None:
        self._row = row
        self._callback: Callable[..., Any] | None = None
        self._untold = [True]

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        callback = self._callback
        if callback is None:
            callback = self._callback = self._load()
        return callback(*arguments, **keywords)

    def _load(self) -> Callable[..., Any]:
        row = self._row
        try:
            if row.component is not None:
                return _of_component(row, row.component)
            assert row.target is not None
            return named.resolve(row.target, row.arguments, row.kind)
        except Exception as error:
            return self._failing(f"{row.kind} {row.name!r} of the session's owner cannot be had here: {error}")

    def _failing(self, why: str) -> Callable[..., Any]:
        if self._untold:
            self._untold.clear()
            note_failure(why)
            logger.error("%s", why)
            if (segment := state.open_segment) is not None:
                segment.count_middleware_failure()

        def fail(*_arguments: Any, **_keywords: Any) -> Any:
            raise MiddlewareError(why)

        return fail

    def __repr__(self) -> str:
        return f"<arrived {self._row.kind} {self._row.name!r}>"


def _of_component(row: Row, component: components.Component) -> Callable[..., Any]:
    callbacks = components.callbacks(component)
    try:
        return callbacks[row.kind, row.local_name]
    except KeyError:
        raise PluginError(
            f"plugin {component.kind!r} has not registered {row.local_name!r} in this process, as it has in the "
            "owner's; its `register` must do the same for the same config"
        ) from None
