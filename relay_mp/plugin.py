"""Plugins: middleware and subscribers that are installed together, by configuration, in every process.

    register(kind, plugin)          what there is, in this process
    initialize(config) / activate   validate ─▶ each plugin's `register` ─▶ all of it effective, or nothing
    clear()                         all of it removed

A configuration is a `PluginConfig`, a dict of the same shape, or what `plugins.toml` files say, under the
code's: see `initialize`. One activation in the session's owner reaches every worker, also those that
run already, by their next event; so does a clear. For that, a worker has to find the plugin: by the name it was
registered under ("package.module:attribute"), or by its class's. In a worker, a component's `register` is called
before its middleware is first used there; its subscribers are the owner's alone.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NotRequired, Protocol, TypedDict

from relay_mp._deliver import named
from relay_mp._emit.locks import ForkSafeRLock
from relay_mp._emit.middleware import Gate, Registration, registry
from relay_mp._native import core
from relay_mp._plugins import files
from relay_mp._plugins.context import ExporterSpec, PluginContext
from relay_mp._plugins.document import (
    ComponentSpec,
    ConfigDiagnostic,
    ConfigPolicy,
    Document,
    PluginConfig,
    UnsupportedBehavior,
    copied,
    examine,
    parse,
    plain,
    refuse_errors,
)
from relay_mp._session import configuration, exporter_exchange
from relay_mp._session.membership import current, current_or_default
from relay_mp._session.session import Session
from relay_mp.errors import PluginError, RelayError, SubscriberError
from relay_mp.subscribers import flush_async, in_event_loop
from relay_mp.types import JsonObject

__all__ = [
    "ComponentSpec",
    "ConfigDiagnostic",
    "ConfigPolicy",
    "ConfigReport",
    "Plugin",
    "PluginConfig",
    "PluginContext",
    "RuntimeDiagnostic",
    "UnsupportedBehavior",
    "activate",
    "clear",
    "clear_async",
    "deregister",
    "initialize",
    "list_kinds",
    "plugin",
    "register",
    "report",
    "validate",
]


BUILT_IN = {"observability": "relay_mp.observability.component.component:Observability"}
"""Kinds of plugin that come with the package; imported when a configuration has one."""


class RuntimeDiagnostic(TypedDict):
    """Something that went wrong with what is active: how often, and where."""

    code: str
    component: str
    message: str
    count: int
    field: NotRequired[str]
    session_id: NotRequired[str]


class ConfigReport(TypedDict):
    """What there is to say about a configuration, and about its running."""

    diagnostics: list[ConfigDiagnostic]
    runtime_diagnostics: list[RuntimeDiagnostic]
    exporters: NotRequired[dict[str, JsonObject]]


class Plugin(Protocol):
    """What a plugin is: an object with these two methods. `validate` may be left out."""

    def validate(self, plugin_config: JsonObject) -> list[ConfigDiagnostic] | None:
        """What there is to say about a component's `config`; an error keeps it from being activated.

        Args:
            plugin_config: a copy.
        """

    def register(self, plugin_config: JsonObject, context: PluginContext) -> None:
        """Registers what a component with this `config` consists of.

        If it raises, nothing of the whole configuration is activated, and the one before stays.

        Args:
            plugin_config: a copy.
            context: takes the registrations; they take effect once all components have registered.
        """


class _Kind:
    """A registered plugin: the object, or the name it will be found by, or both."""

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


class _Active:
    """What one activation has installed."""

    def __init__(self, document: Document, findings: list[ConfigDiagnostic]) -> None:
        self.findings = findings
        self.epoch = core.fork_epoch()
        self.session: Session | None = None
        self.contexts: list[PluginContext] = []
        self.components: list[configuration.Component] = []
        ordinals: dict[str, int] = {}
        for component in document.components:
            if component.enabled:
                ordinal = ordinals[component.kind] = ordinals.get(component.kind, 0) + 1
                self._register(component.kind, ordinal, component.config)

    def _register(self, kind: str, ordinal: int, config: dict[str, Any]) -> None:
        found = _state.kinds.get(kind)
        if found is None:
            raise PluginError(f"no plugin is registered for kind {kind!r}; call plugin.register({kind!r}, ...) first")
        self.contexts.append(_run(found.get(), kind, ordinal, config))
        self.components.append(configuration.Component(kind, ordinal, found.target, config))

    @property
    def registrations(self) -> list[Registration]:
        return [each for context in self.contexts for each in context.registrations]

    @property
    def subscribers(self) -> list[tuple[str, Any]]:
        return [each for context in self.contexts for each in context.subscribers]

    @property
    def exporters(self) -> list[ExporterSpec]:
        return [each for context in self.contexts for each in context.exporters]

    @property
    def gates(self) -> list[Gate]:
        return [each for context in self.contexts for each in context.gates]

    def add(self, _context: PluginContext, what: Any) -> None:
        """Installs what an active component registers later."""
        if isinstance(what, Registration):
            registry.exchange(add=(what,))
        elif isinstance(what, Gate):
            registry.add_gate(what)
        elif isinstance(what, ExporterSpec):
            exporter_exchange.exchange(current_or_default(), (), [what])
        else:
            current_or_default().register(what[0], what[1], None, None)


def _run(plugin: Any, kind: str, ordinal: int, config: dict[str, Any]) -> PluginContext:
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


class _State:
    """This process's plugins. A fork has its parent's."""

    def __init__(self) -> None:
        self.lock = ForkSafeRLock()
        self.kinds: dict[str, _Kind] = {kind: _Kind(name) for kind, name in BUILT_IN.items()}
        self.active: _Active | None = None
        self.teardown: list[RuntimeDiagnostic] = []


_state = _State()

# ------------------------------------------------------------------------------------------------ kinds


def register(plugin_kind: str, plugin: Plugin | type | str) -> None:
    """Makes a plugin known in this process.

    Args:
        plugin_kind: its name in configurations.
        plugin: an object with the methods of `Plugin`; or a class, which is called for one; or the name of
            either, "package.module:attribute", imported when it is needed. Workers that are not forked
            have the plugin only if it is named, or a class, or an object without state of a class, at
            the top level of a module other than `__main__`; for others they warn, see `report`.

    Raises:
        PluginError: the kind is taken.
        TypeError: the kind is no str, or the plugin no plugin.
    """
    if not isinstance(plugin_kind, str):
        raise TypeError(f"plugin_kind is a {type(plugin_kind).__name__}; expected str")
    if not isinstance(plugin, str) and not callable(getattr(plugin, "register", None)):
        raise TypeError(
            f"the plugin is a {type(plugin).__name__} without a method register; expected one with "
            'register(config, context), or its name as "package.module:attribute"'
        )
    with _state.lock:
        if plugin_kind in _state.kinds:
            raise PluginError(f"a plugin {plugin_kind!r} is already registered; deregister it first")
        _state.kinds[plugin_kind] = _Kind(plugin)


def deregister(plugin_kind: str) -> bool:
    """Makes a plugin unknown. What is active stays so, until it is cleared or replaced.

    Returns:
        Whether there was one of that kind.
    """
    with _state.lock:
        return _state.kinds.pop(plugin_kind, None) is not None


def list_kinds() -> list[str]:
    """The kinds of plugin that are registered in this process, sorted."""
    return sorted(_state.kinds)


def _find(kind: str) -> Any:
    found = _state.kinds.get(kind)
    return None if found is None else found.get()


# ------------------------------------------------------------------------------------------- activation


def validate(config: PluginConfig | JsonObject) -> ConfigReport:
    """What there is to say about a configuration. Changes nothing, and reads no file.

    Args:
        config: a `PluginConfig`, or a dict of the same shape.

    Returns:
        Diagnostics; those of level "error" would keep it from being activated.

    Raises:
        PluginConfigError: it has not the shape of a configuration; the message names the place.
        PayloadError: something in it is no JSON.
    """
    return {"diagnostics": examine(parse(plain(config)), _find), "runtime_diagnostics": []}


def activate(
    config: PluginConfig | JsonObject, plugin_config_path: str | os.PathLike[str] | None = None
) -> ConfigReport:
    """`initialize`, for code that is not asynchronous."""
    ended = _activate(config, plugin_config_path)
    exporter_exchange.await_ended(ended)
    return _activated(ended)


def _activate(config: PluginConfig | JsonObject, path: str | os.PathLike[str] | None) -> list[ExporterSpec]:
    """Returns the exporters that end."""
    code = plain(config)
    parse(code)
    document, findings = files.layered(code, path)
    with _state.lock:
        parsed = parse(document)
        findings += examine(parsed, _find)
        refuse_errors(findings)
        ended = _replace(_Active(parsed, findings))
        _state.teardown = []
        return ended


def _activated(ended: list[ExporterSpec]) -> ConfigReport:
    with _state.lock:
        _note_teardown(ended)
        return _report()


def _note_teardown(ended: list[ExporterSpec]) -> None:
    _state.teardown += [_runtime(*each) for each in exporter_exchange.lost(ended)]


async def initialize(
    config: PluginConfig | JsonObject, plugin_config_path: str | os.PathLike[str] | None = None
) -> ConfigReport:
    """Validates a configuration and activates it, in this process and all workers of its session.

    It takes the place of the one that was active, in one step: no event meets half of either. If anything
    fails, the one before stays active as it is. In a process that is in no session, this starts the default
    one.

    Exporters that both configurations have alike go on without a break; those that end are flushed, for at
    most 10 s. An exporter that cannot start, as where its port is taken, is told of in the report, tried
    again, and stops nothing else. Exporters are installed by the session's owner alone: elsewhere the report
    says what the owner has not installed.

    What counts is `config` over the user's and the system's `plugins.toml`
    ($XDG_CONFIG_HOME/relay_mp/plugins.toml, /etc/relay_mp/plugins.toml), where there are any: components
    are matched by kind, tables merge, lists at the top of a component's `config` are put before those of the
    files.

    Args:
        config: a `PluginConfig`, or a dict of the same shape; `{}` for what the files say.
        plugin_config_path: a TOML file to be read instead of the user's.

    Returns:
        What there is to say about it: no errors.

    Raises:
        PluginConfigError: `config` has not the shape of a configuration.
        PluginError: a diagnostic is an error, a file cannot be used, a kind is not registered, or a
            plugin raised.
        ConfigurationError: workers' room for it is too small: raise `configuration_bytes`.
        SubscriberError, SessionError: a subscriber cannot be registered, or no session started.
    """
    ended = _activate(config, plugin_config_path)
    await exporter_exchange.await_ended_async(ended)
    return _activated(ended)


def clear() -> None:
    """Removes all that the active configuration has installed, here and in all workers. Kinds stay.

    Exporters have written what was emitted before when it returns, or after 10 s, as far as they can.

    Raises:
        PluginError: called in a running event loop (use `clear_async`); or a subscriber could not be
            removed, which `report` tells then.
    """
    if in_event_loop():
        raise PluginError("clear() would block the running event loop: use 'await clear_async()'")
    ended = _clear()
    exporter_exchange.await_ended(ended)
    _note_teardown(ended)


async def clear_async() -> None:
    """`clear` for a running event loop. Same errors, but for the first."""
    ended = _clear()
    await exporter_exchange.await_ended_async(ended)
    _note_teardown(ended)


def _clear() -> list[ExporterSpec]:
    with _state.lock:
        _state.teardown = []
        return _replace(None)


@asynccontextmanager
async def plugin(config: PluginConfig | JsonObject, *, clear_on_exit: bool = True) -> AsyncIterator[ConfigReport]:
    """`initialize` for the length of an `async with` block; on leaving, events are flushed, then it is cleared.

    Args:
        config: as for `initialize`.
        clear_on_exit: whether to clear it.

    Returns:
        A context manager whose target is the report.
    """
    report_ = await initialize(config)
    try:
        yield report_
    finally:
        try:
            await flush_async()
        finally:
            if clear_on_exit:
                await clear_async()


def report() -> ConfigReport | None:
    """The report of the active configuration, and what has gone wrong since.

    `runtime_diagnostics` has: `middleware.unreachable`, for each registration that workers which are not
    forked cannot have; `middleware.unusable`, for what reached this process and could not be imported;
    `middleware.worker_failures`, how often that was so in the session's workers; `plugin.teardown_failed`; for each
    exporter `KIND.exporter_failing`, while its newest attempt failed, `KIND.events_lost`, what it has given up, and
    `KIND.exporter_not_installed`, where that was for the session's owner to do; after a clear, what was lost.

    `exporters` has each exporter's counts, by its name, as `session.stats().exporters` has them, and `subscriber`,
    its name there, `field`, which part of the component's config it comes from, `dropped` and `lost`.

    Returns:
        None if nothing is active, and nothing has gone wrong.
    """
    # Without the lock: it may be held by who waits for the dispatcher, in one of whose callbacks this may be called.
    found = _report()
    return found if _state.active is not None or found["runtime_diagnostics"] else None


def _report() -> ConfigReport:
    active = _state.active
    found = [_runtime("middleware.unreachable", each.name, each.why) for each in configuration.unreachable()]
    found += [_runtime("middleware.unusable", "", why) for why in configuration.failures()]
    failed = configuration.failures_of_all()
    if failed:
        message = "processes of this session could not get hold of middleware that it shares; their logs say why"
        found.append(_runtime("middleware.worker_failures", "", message, failed))
    reports = exporter_exchange.reports(active.session, active.exporters) if active else {}
    found += [_runtime(*each) for each in exporter_exchange.troubles(active.exporters if active else [], reports)]
    return {
        "diagnostics": list(active.findings) if active else [],
        "runtime_diagnostics": found + _state.teardown,
        "exporters": exporter_exchange.described(active.exporters if active else [], reports),
    }


def _runtime(code: str, component: str, message: str, count: int = 1, field: str = "") -> RuntimeDiagnostic:
    found: RuntimeDiagnostic = {"code": code, "component": component, "message": message, "count": count}
    return {**found, "field": field} if field else found


# ------------------------------------------------------------------------------------------ replacement


def _replace(new: _Active | None) -> list[ExporterSpec]:
    """The active configuration gives way to another, or to none. Raises with all as before.

    Returns:
        The exporters that end.
    """
    old = _state.active
    session = current_or_default() if new is not None and new.contexts else current()
    # A forked child has its parent's middleware, but the subscribers are not its to remove.
    removed = old.subscribers if old and old.epoch == core.fork_epoch() else []
    added = new.subscribers if new else []
    failures = _exchange_subscribers(session, removed, added)
    try:
        ended = _exchange_the_rest(session, old, new)
    except BaseException:
        _exchange_subscribers(session, added, removed)
        raise
    for gate in old.gates if old else []:
        registry.remove_gate(gate.name)
    for gate in new.gates if new else []:
        registry.add_gate(gate)
    _state.active = new
    for context in old.contexts if old else []:
        context.end()
    for context in new.contexts if new else []:
        assert new is not None
        new.session = session
        context.activate(new)
    if failures:
        _state.teardown = [_runtime("plugin.teardown_failed", name, str(error)) for name, error in failures]
        raise PluginError(f"not all that the configuration had installed could be removed: {failures[0][1]}")
    return ended


def _exchange_the_rest(session: Session | None, old: _Active | None, new: _Active | None) -> list[ExporterSpec]:
    """Middleware, which can be taken back without a trace, then the exporters."""
    before, after = (old.registrations if old else []), (new.registrations if new else [])
    configuration.share(new.components if new else [])
    try:
        registry.exchange(remove=before, add=after)
    except BaseException:
        configuration.share(old.components if old else [])
        raise
    try:
        had = old.exporters if old and old.session is session else []
        return exporter_exchange.exchange(session, had, new.exporters if new else [])
    except BaseException:
        configuration.share(old.components if old else [])
        registry.exchange(remove=after, add=before)
        raise


def _exchange_subscribers(
    session: Session | None, remove: list[tuple[str, Any]], add: list[tuple[str, Any]]
) -> list[tuple[str, RelayError]]:
    """Returns what could not be removed; if one cannot be added, all are as before, and it raises."""
    if session is None or not session.is_open:
        return []
    failures: list[tuple[str, RelayError]] = []
    for name, _ in remove:
        try:
            session.deregister(name, None)
        except RelayError as error:
            failures.append((name, error))
    done = []
    try:
        for name, callback in add:
            session.register(name, callback, None, None)
            done.append(name)
    except BaseException:
        for name in done:
            session.deregister(name, None)
        for name, callback in remove:
            session.register(name, callback, None, None)
        raise
    return failures


# ------------------------------------------------------------------------------------------ in a worker

_loaded: dict[tuple[str, int], tuple[configuration.Component, configuration.Callbacks]] = {}


def _load(component: configuration.Component) -> configuration.Callbacks:
    """What a component of the owner's registers, made in this process: once, until its config changes."""
    known, callbacks = _loaded.get((component.kind, component.ordinal), (None, {}))
    if known != component:
        kind = _state.kinds.get(component.kind) or _Kind(component.target)
        context = _run(kind.get(), component.kind, component.ordinal, component.config)
        callbacks = {(each.family.kind.value, each.local_name): each.callback for each in context.registrations}
        _loaded[component.kind, component.ordinal] = component, callbacks
    return callbacks


configuration.set_component_loader(_load)
