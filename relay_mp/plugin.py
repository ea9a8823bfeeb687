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
from typing import Protocol

from relay_mp._plugins import components
from relay_mp._plugins.context import PluginContext
from relay_mp._plugins.document import (
    ComponentSpec,
    ConfigDiagnostic,
    ConfigPolicy,
    PluginConfig,
    UnsupportedBehavior,
    parse,
    plain,
)
from relay_mp._plugins.report import ConfigReport, RuntimeDiagnostic
from relay_mp._session import activation, exporter_exchange
from relay_mp.errors import PluginError, described_type
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

for _kind, _target in BUILT_IN.items():
    components.add(_kind, _target)


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
        TypeError: the kind is not a str, or the plugin is not a plugin.
    """
    if not isinstance(plugin_kind, str):
        raise TypeError(f"plugin_kind is {described_type(plugin_kind)}; expected str")
    if not isinstance(plugin, str) and not callable(getattr(plugin, "register", None)):
        raise TypeError(
            f"the plugin is {described_type(plugin)} without a method register; expected one with "
            'register(config, context), or its name as "package.module:attribute"'
        )
    components.add(plugin_kind, plugin)


def deregister(plugin_kind: str) -> bool:
    """Makes a plugin unknown. What is active stays so, until it is cleared or replaced.

    Returns:
        Whether there was one of that kind.
    """
    return components.remove(plugin_kind)


def list_kinds() -> list[str]:
    """The kinds of plugin that are registered in this process, sorted."""
    return components.kinds()


# ------------------------------------------------------------------------------------------- activation


def validate(config: PluginConfig | JsonObject) -> ConfigReport:
    """What there is to say about a configuration. Changes nothing, and reads no file.

    Args:
        config: a `PluginConfig`, or a dict of the same shape.

    Returns:
        Diagnostics; those of level "error" would keep it from being activated.

    Raises:
        PluginConfigError: it has not the shape of a configuration; the message names the place.
        PayloadError: something in it is not JSON.
    """
    return {"diagnostics": activation.examined(parse(plain(config))), "runtime_diagnostics": []}


def activate(
    config: PluginConfig | JsonObject, plugin_config_path: str | os.PathLike[str] | None = None
) -> ConfigReport:
    """`initialize`, for code that is not asynchronous."""
    ended = activation.activate(config, plugin_config_path)
    exporter_exchange.await_ended(ended)
    return activation.settled(ended)


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
    ended = activation.activate(config, plugin_config_path)
    await exporter_exchange.await_ended_async(ended)
    return activation.settled(ended)


def clear() -> None:
    """Removes all that the active configuration has installed, here and in all workers. Kinds stay.

    Exporters have written what was emitted before when it returns, or after 10 s, as far as they can.

    Raises:
        PluginError: called in a running event loop (use `clear_async`); or a subscriber could not be
            removed, which `report` tells then.
    """
    if in_event_loop():
        raise PluginError("clear() would block the running event loop: use 'await clear_async()'")
    ended = activation.clear()
    exporter_exchange.await_ended(ended)
    activation.note_teardown(ended)


async def clear_async() -> None:
    """`clear` for a running event loop. Same errors, but for the first."""
    ended = activation.clear()
    await exporter_exchange.await_ended_async(ended)
    activation.note_teardown(ended)


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
    found = activation.report()
    return found if activation.is_active() or found["runtime_diagnostics"] else None
