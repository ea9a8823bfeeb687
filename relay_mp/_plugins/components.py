"""Components of a configuration: the kinds of plugin that this process knows, and what a component registers.

    plugin.register ─▶ add(kind, plugin) ─▶ find(kind) ─▶ make(...) ─▶ what it registers     where it is activated
                                               │ or by its name
    Component, from the session's owner ───────┴─▶ callbacks(component), made at first use   in any other process

Only a component's kind, place, config and its plugin's name cross processes, never an object. So a process that is not
a fork of the owner finds a plugin by its name, or as it was registered there. Nothing here knows a session.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from relay_mp._deliver import named
from relay_mp._emit.arguments import freeze_setting, thaw
from relay_mp._emit.locks import ForkSafeRLock
from relay_mp.errors import PluginError, SubscriberError
from relay_mp.types import RuntimeRegistrationOwner, RuntimeRegistrationOwnerKind

if TYPE_CHECKING:
    from relay_mp._plugins.context import PluginContext

__all__ = ["Callbacks", "Component", "Kind", "add", "callbacks", "copied", "find", "kinds", "make", "remove"]

Callbacks = dict[tuple[str, str], Callable[..., Any]]
"""What a component registers as middleware: callbacks by kind of middleware and local name."""


class Component(NamedTuple):
    """A component that is active in the session's owner. `target`: where its plugin is found, None: nowhere."""

    kind: str
    ordinal: int
    target: str | None
    config: dict[str, Any]

    @property
    def owner(self) -> RuntimeRegistrationOwner:
        return RuntimeRegistrationOwner(RuntimeRegistrationOwnerKind.PLUGIN, self.kind, self.ordinal)


# ------------------------------------------------------------------------------------------------ kinds


class Kind:
    """A plugin by its kind: the object, or the name it will be found by, or both."""

    def __init__(self, plugin: Any) -> None:
        self.target = plugin if isinstance(plugin, str) else _name_of(plugin)
        self._plugin = None if isinstance(plugin, str | type) else plugin
        self._class = plugin if isinstance(plugin, type) else None

    def get(self) -> Any:
        """The plugin.

        Raises:
            PluginError: it was named, and cannot be had under that name.
        """
        if self._plugin is None:
            try:
                found = self._class if self._class is not None else named.find(str(self.target), None, "plugin")
                self._plugin = found() if isinstance(found, type) else found
            except Exception as error:
                raise PluginError(f"plugin {self.target!r} cannot be made: {error}") from error
        return self._plugin


def _name_of(plugin: Any) -> str | None:
    """Under which name another process finds a plugin: a class, or an object that is as its class makes it."""
    found: Any = plugin if isinstance(plugin, type) else type(plugin)
    if found is not plugin and (getattr(plugin, "__dict__", None) or found.__init__ is not object.__init__):
        return None
    try:
        return named.name_of(found)
    except SubscriberError:
        return None


_lock = ForkSafeRLock()
_kinds: dict[str, Kind] = {}


def add(kind: str, plugin: Any) -> None:
    """Makes a plugin known under a kind.

    Raises:
        PluginError: the kind is taken.
    """
    with _lock:
        if kind in _kinds:
            raise PluginError(f"a plugin {kind!r} is already registered; deregister it first")
        _kinds[kind] = Kind(plugin)


def remove(kind: str) -> bool:
    """Makes a plugin unknown. False if there is none of that kind."""
    with _lock:
        return _kinds.pop(kind, None) is not None


def kinds() -> list[str]:
    """The known kinds, sorted."""
    return sorted(_kinds)


def find(kind: str) -> Kind | None:
    """The plugin of that kind."""
    return _kinds.get(kind)


# -------------------------------------------------------------------------------------------- components


def copied(config: dict[str, Any]) -> Any:
    """A component's config, for a plugin to keep."""
    return thaw(freeze_setting(config, "config"))


def make(plugin: Any, kind: str, ordinal: int, config: dict[str, Any]) -> "PluginContext":
    """Has a plugin register what a component consists of. None of it takes effect yet.

    Args:
        plugin: see `Kind.get`.
        kind: of the component.
        ordinal: 1 for the first component of its kind.
        config: the component's; the plugin is given a copy.

    Raises:
        PluginError: its `register` raised, or is asynchronous.
    """
    from relay_mp._plugins.context import PluginContext

    context = PluginContext(kind, ordinal)
    try:
        result = plugin.register(copied(config), context)
        if hasattr(result, "__await__"):
            close = getattr(result, "close", None)
            if close is not None:
                close()
            raise TypeError("it is asynchronous; expected a plain function")
    except Exception as error:
        raise PluginError(f"register of plugin {kind!r} failed with {type(error).__name__}: {error}") from error
    return context


_made: dict[tuple[str, int], tuple[Component, Callbacks]] = {}


def callbacks(component: Component) -> Callbacks:
    """What a component of the owner's registers, made in this process: once, until its config changes.

    Raises:
        PluginError: its plugin cannot be had here, or failed.
    """
    known, found = _made.get((component.kind, component.ordinal), (None, {}))
    if known != component:
        kind = find(component.kind) or Kind(component.target)
        context = make(kind.get(), component.kind, component.ordinal, component.config)
        found = {(each.family.kind.value, each.local_name): each.callback for each in context.registrations}
        _made[component.kind, component.ordinal] = component, found
    return found
