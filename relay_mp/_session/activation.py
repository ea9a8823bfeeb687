"""The active configuration of plugins: installed as a whole, replaced as a whole, removed as a whole.

    a document ──▶ Active: each component has registered ──▶ replace ──▶ middleware   registry, and so every process
                                                                     ├──▶ subscribers, exporters   the session's
                                                                     └──▶ gates   this process's

One process at a time: a fork has its parent's. If a step fails, those before it are taken back, and what was active
stays as it is.
"""

import os
from typing import Any

from relay_mp._emit.locks import ForkSafeRLock
from relay_mp._emit.middleware import Gate, Registration, registry
from relay_mp._native import core
from relay_mp._plugins import components, files
from relay_mp._plugins.components import Component
from relay_mp._plugins.context import ExporterSpec, PluginContext
from relay_mp._plugins.document import ConfigDiagnostic, Document, examine, parse, plain, refuse_errors
from relay_mp._plugins.report import ConfigReport, RuntimeDiagnostic, runtime_diagnostic
from relay_mp._session import exporter_exchange
from relay_mp._session.configuration import diagnostics, publishing
from relay_mp._session.membership import current_or_default, current_session
from relay_mp._session.session import Session
from relay_mp.errors import PluginError, RelayError

__all__ = ["activate", "clear", "examined", "is_active", "note_teardown", "report", "settled"]


class Active:
    """What one activation installs: made by having every component register."""

    def __init__(self, document: Document, findings: list[ConfigDiagnostic]) -> None:
        self.findings = findings
        self.epoch = core.fork_epoch()
        self.session: Session | None = None
        self.contexts: list[PluginContext] = []
        self.components: list[Component] = []
        ordinals: dict[str, int] = {}
        for component in document.components:
            if component.enabled:
                ordinal = ordinals[component.kind] = ordinals.get(component.kind, 0) + 1
                self._register(component.kind, ordinal, component.config)

    def _register(self, kind: str, ordinal: int, config: dict[str, Any]) -> None:
        found = components.find(kind)
        if found is None:
            raise PluginError(f"no plugin is registered for kind {kind!r}; call plugin.register({kind!r}, ...) first")
        self.contexts.append(components.make(found.get(), kind, ordinal, config))
        self.components.append(Component(kind, ordinal, found.target, config))

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


class _State:
    """What is active in this process, and what went wrong as it ended. A fork has its parent's."""

    def __init__(self) -> None:
        self.lock = ForkSafeRLock()
        self.active: Active | None = None
        self.teardown: list[RuntimeDiagnostic] = []


_state = _State()


def _find(kind: str) -> Any:
    found = components.find(kind)
    return None if found is None else found.get()


def examined(document: Document) -> list[ConfigDiagnostic]:
    """What there is to say about a document, by the plugins that this process knows."""
    return examine(document, _find)


def activate(config: object, path: str | os.PathLike[str] | None) -> list[ExporterSpec]:
    """Validates a configuration over those of the files, and installs it in place of the active one.

    Returns:
        The exporters that end.
    """
    code = plain(config)
    parse(code)
    document, findings = files.layered(code, path)
    with _state.lock:
        parsed = parse(document)
        findings += examined(parsed)
        refuse_errors(findings)
        ended = _replace(Active(parsed, findings))
        _state.teardown = []
        return ended


def clear() -> list[ExporterSpec]:
    """Removes what is active.

    Returns:
        The exporters that end.
    """
    with _state.lock:
        _state.teardown = []
        return _replace(None)


# ------------------------------------------------------------------------------------------ replacement


def _replace(new: Active | None) -> list[ExporterSpec]:
    """The active configuration gives way to another, or to none. Raises with all as before.

    Returns:
        The exporters that end.
    """
    old = _state.active
    session = current_or_default() if new is not None and new.contexts else current_session()
    # A forked child has its parent's middleware, but the subscribers are not its to remove.
    removed = old.subscribers if old and old.epoch == core.fork_epoch() else []
    added = new.subscribers if new else []
    failures = _exchange_subscribers(session, removed, added)
    try:
        ended = _exchange_the_rest(session, old, new)
    except BaseException:
        _exchange_subscribers(session, added, removed)
        raise
    _exchange_gates(old, new)
    _state.active = new
    _hand_over(session, old, new)
    if failures:
        _state.teardown = [runtime_diagnostic("plugin.teardown_failed", name, str(error)) for name, error in failures]
        raise PluginError(f"not all that the configuration had installed could be removed: {failures[0][1]}")
    return ended


def _exchange_gates(old: Active | None, new: Active | None) -> None:
    for gate in old.gates if old else []:
        registry.remove_gate(gate.name)
    for gate in new.gates if new else []:
        registry.add_gate(gate)


def _hand_over(session: Session | None, old: Active | None, new: Active | None) -> None:
    """What the old components register from here on is refused, what the new ones do takes effect at once."""
    for context in old.contexts if old else []:
        context.end()
    if new is not None:
        for context in new.contexts:
            new.session = session
            context.activate(new)


def _exchange_the_rest(session: Session | None, old: Active | None, new: Active | None) -> list[ExporterSpec]:
    """Middleware, which can be taken back without a trace, then the exporters."""
    before, after = (old.registrations if old else []), (new.registrations if new else [])
    publishing.share(new.components if new else [])
    try:
        registry.exchange(remove=before, add=after)
    except BaseException:
        publishing.share(old.components if old else [])
        raise
    try:
        had = old.exporters if old and old.session is session else []
        return exporter_exchange.exchange(session, had, new.exporters if new else [])
    except BaseException:
        publishing.share(old.components if old else [])
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


# ----------------------------------------------------------------------------------------------- report


def is_active() -> bool:
    """Whether any configuration is."""
    return _state.active is not None


def note_teardown(ended: list[ExporterSpec]) -> None:
    """Keeps for reports what exporters that have ended have lost."""
    with _state.lock:
        _state.teardown += [runtime_diagnostic(*each) for each in exporter_exchange.lost(ended)]


def settled(ended: list[ExporterSpec]) -> ConfigReport:
    """`note_teardown`, then the report: with all that the exporters which have ended have lost."""
    with _state.lock:
        note_teardown(ended)
        return report()


def report() -> ConfigReport:
    """What there is to say about the active configuration now.

    Without the lock: it may be held by who waits for the dispatcher, in one of whose callbacks this may be called.
    """
    active = _state.active
    found = [runtime_diagnostic("middleware.unreachable", each.name, each.why) for each in diagnostics.unreachable()]
    found += [runtime_diagnostic("middleware.unusable", "", why) for why in diagnostics.failures()]
    failed = diagnostics.failures_of_all()
    if failed:
        message = "processes of this session could not get hold of middleware that it shares; their logs say why"
        found.append(runtime_diagnostic("middleware.worker_failures", "", message, failed))
    exporters = active.exporters if active else []
    reports = exporter_exchange.reports(active.session, exporters) if active else {}
    found += [runtime_diagnostic(*each) for each in exporter_exchange.troubles(exporters, reports)]
    return {
        "diagnostics": list(active.findings) if active else [],
        "runtime_diagnostics": found + _state.teardown,
        "exporters": exporter_exchange.described(exporters, reports),
    }
