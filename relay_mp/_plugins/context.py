"""What a plugin's `register` is given: it takes registrations down, and they become effective together.

    register(config, context) ─▶ context notes ─▶ all components done ─▶ one exchange of the registry

So a plugin that raises leaves nothing behind, and no event ever meets half a configuration. Later calls,
while the component is active, take effect at once and end with it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from relay_mp._emit.arguments import freeze, thaw
from relay_mp._emit.middleware import FAMILIES, Gate, Registration
from relay_mp.errors import PluginError
from relay_mp.types import RuntimeRegistrationKind, RuntimeRegistrationOwner, RuntimeRegistrationOwnerKind

__all__ = ["EFFECTIVE_PREFIX", "ExporterSpec", "Installer", "PluginContext"]

EFFECTIVE_PREFIX = "relay-mp-plugin.v1"


class Installer(Protocol):
    """Makes registrations effective: at once, once their component is active."""

    def add(self, context: "PluginContext", what: Any) -> None:
        """Installs a registration, a gate, an exporter, or a subscriber, as a (name, callback), of an active one."""


Callback = Callable[..., Any]


class ExporterSpec(NamedTuple):
    """An exporter of a component. It is the session's: only the session's owner installs it.

    Attributes:
        kind: of the component.
        name: the effective one, under which it is registered.
        target: "package.module:attribute", which makes the subscriber where the dispatcher runs.
        arguments: its arguments, JSON types only.
        local_name: the component's own name for it.
        field: which part of the component's config it comes from.
        prepare: called in the owner before it is registered for the first time; may raise OSError.
    """

    kind: str
    name: str
    target: str
    arguments: dict[str, Any]
    local_name: str
    field: str
    prepare: Callable[[], object] | None


_Register = Callable[["PluginContext", str, int, Callback], None]
_RegisterBreaking = Callable[["PluginContext", str, int, bool, Callback], None]
_Kind = RuntimeRegistrationKind


def _documented(method: Any, kind: RuntimeRegistrationKind, text: str) -> Any:
    method.__doc__ = text
    method.__name__ = f"register_{kind.value}"
    method.__qualname__ = f"PluginContext.{method.__name__}"
    return method


def _registers(kind: RuntimeRegistrationKind) -> _Register:
    def register(self: "PluginContext", name: str, priority: int, callback: Callback) -> None:
        self._register(kind, name, priority, False, callback)

    what = kind.value.replace("_", " ").replace("llm", "LLM")
    text = f"Registers {'an' if what[0] in 'eL' else 'a'} {what} of this component; lower priorities run first."
    documented: _Register = _documented(register, kind, text)
    return documented


def _registers_breaking(kind: RuntimeRegistrationKind) -> _RegisterBreaking:
    def register(self: "PluginContext", name: str, priority: int, break_chain: bool, callback: Callback) -> None:
        if type(break_chain) is not bool:
            raise TypeError(f"break_chain is a {type(break_chain).__name__}; expected bool")
        self._register(kind, name, priority, break_chain, callback)

    what = kind.value.replace("_", " ").replace("llm", "an LLM").replace("tool", "a tool")
    documented: _RegisterBreaking = _documented(
        register, kind, f"Registers {what} of this component; with `break_chain` it is the last of its chain to run."
    )
    return documented


class PluginContext:
    """Registers what one component of a configuration consists of. Made by the library.

    Names are the component's own: what it registers is called `relay-mp-plugin.v1.<kind>:<n>:<name>`
    elsewhere, n being 1 for the first component of its kind. All of it is removed with the component.
    Callbacks are called in every process of the session, and have to behave alike in each: `register` is
    called in a worker again, with the same config, before the first of them is used there.
    """

    def __init__(self, kind: str, ordinal: int) -> None:
        self._kind = kind
        self.owner = RuntimeRegistrationOwner(RuntimeRegistrationOwnerKind.PLUGIN, kind, ordinal)
        self.registrations: list[Registration] = []
        self.subscribers: list[tuple[str, Callback | str]] = []
        self.exporters: list[ExporterSpec] = []
        self.gates: list[Gate] = []
        self._installer: Installer | None = None
        self._is_over = False

    def activate(self, installer: Installer) -> None:
        """From here on, registrations take effect at once."""
        self._installer = installer

    def end(self) -> None:
        """From here on, registrations are refused."""
        self._is_over = True

    def _effective(self, name: object) -> str:
        if not isinstance(name, str):
            raise TypeError(f"name is a {type(name).__name__}; expected str")
        return f"{EFFECTIVE_PREFIX}.{self.owner.plugin_kind}:{self.owner.component_ordinal}:{name}"

    def _note(self, kept: list[Any], what: Any, name: str) -> None:
        if self._is_over:
            raise PluginError(f"{name!r} cannot be registered: the component is not active any more; initialize anew")
        if self._installer is not None:
            self._installer.add(self, what)
        kept.append(what)

    def _require_free(self, taken: bool, what: str, name: str) -> None:
        if taken:
            raise PluginError(f"the component has registered a {what} {name!r} already; give the other another name")

    def _register(
        self, kind: RuntimeRegistrationKind, name: str, priority: int, break_chain: bool, callback: Callback
    ) -> None:
        effective = self._effective(name)
        if not isinstance(priority, int) or isinstance(priority, bool):
            raise TypeError(f"priority is a {type(priority).__name__}; expected int")
        if not callable(callback):
            raise TypeError(f"callback is a {type(callback).__name__}; expected a callable")
        family = FAMILIES[kind]
        taken = any(each.family is family and each.name == effective for each in self.registrations)
        self._require_free(taken, kind.value, name)
        registration = Registration(
            family=family,
            name=effective,
            priority=priority,
            callback=callback,
            break_chain=break_chain,
            owner=self.owner,
            local_name=name,
        )
        self._note(self.registrations, registration, name)

    def register_subscriber(self, name: str, callback: Callback | str) -> None:
        """Registers a subscriber of this component, as `subscribers.register` does, where the session's owner is."""
        effective = self._effective(name)
        if not callable(callback) and not isinstance(callback, str):
            raise TypeError(f"callback is a {type(callback).__name__}; expected a callable that takes an event")
        self._require_free(any(known == effective for known, _ in self.subscribers), "subscriber", name)
        self._note(self.subscribers, (effective, callback), name)

    def register_exporter(
        self,
        name: str,
        target: str,
        arguments: dict[str, Any],
        *,
        field: str = "",
        prepare: Callable[[], object] | None = None,
    ) -> None:
        """Registers an exporter of this component: a named subscriber, which `plugin.report` tells of.

        It runs once in a session, where the dispatcher runs, and is installed by the session's owner only: in
        another process of the session this does nothing. When one configuration takes the place of another, an
        exporter that has the same name, target and arguments in both goes on as it is; others end, flushed,
        and begin at one place in the stream.

        Args:
            name: unique among the component's subscribers and exporters.
            target: "package.module:attribute", called with the arguments where the dispatcher runs.
            arguments: JSON types only, no secrets: they are kept in shared memory.
            field: which part of the component's config it comes from, for reports.
            prepare: called in the owner before it is registered, unless one of its name is; an OSError is logged.
        """
        effective = self._effective(name)
        taken = any(
            known == effective for known in [*(n for n, _ in self.subscribers), *(e.name for e in self.exporters)]
        )
        self._require_free(taken, "subscriber or exporter", name)
        kept = thaw(freeze(arguments, "arguments"))
        self._note(self.exporters, ExporterSpec(self._kind, effective, target, kept, name, field, prepare), name)

    def register_conditional_middleware_guardrail(
        self,
        name: str,
        kinds: set[RuntimeRegistrationKind],
        registration_name: str,
        guardrail: Callable[[set[RuntimeRegistrationKind], str], str | None],
    ) -> None:
        """Registers a gate: it is asked each time whether global registrations of a name take part.

        It holds in this process and those that it forks.
        """
        effective = self._effective(name)
        if not callable(guardrail):
            raise TypeError(f"guardrail is a {type(guardrail).__name__}; expected a callable")
        self._require_free(any(gate.name == effective for gate in self.gates), "gate", name)
        gate = Gate(effective, frozenset(map(RuntimeRegistrationKind, kinds)), registration_name, guardrail)
        self._note(self.gates, gate, name)

    register_event_metadata_injector = _registers(_Kind.EVENT_METADATA_INJECTOR)
    register_mark_sanitize_guardrail = _registers(_Kind.MARK_SANITIZE_GUARDRAIL)
    register_scope_sanitize_start_guardrail = _registers(_Kind.SCOPE_SANITIZE_START_GUARDRAIL)
    register_scope_sanitize_end_guardrail = _registers(_Kind.SCOPE_SANITIZE_END_GUARDRAIL)
    register_tool_sanitize_request_guardrail = _registers(_Kind.TOOL_SANITIZE_REQUEST_GUARDRAIL)
    register_tool_sanitize_response_guardrail = _registers(_Kind.TOOL_SANITIZE_RESPONSE_GUARDRAIL)
    register_tool_conditional_execution_guardrail = _registers(_Kind.TOOL_CONDITIONAL_EXECUTION_GUARDRAIL)
    register_llm_sanitize_request_guardrail = _registers(_Kind.LLM_SANITIZE_REQUEST_GUARDRAIL)
    register_llm_sanitize_response_guardrail = _registers(_Kind.LLM_SANITIZE_RESPONSE_GUARDRAIL)
    register_llm_conditional_execution_guardrail = _registers(_Kind.LLM_CONDITIONAL_EXECUTION_GUARDRAIL)
    register_llm_execution_intercept = _registers(_Kind.LLM_EXECUTION_INTERCEPT)
    register_llm_stream_execution_intercept = _registers(_Kind.LLM_STREAM_EXECUTION_INTERCEPT)
    register_tool_execution_intercept = _registers(_Kind.TOOL_EXECUTION_INTERCEPT)
    register_llm_request_intercept = _registers_breaking(_Kind.LLM_REQUEST_INTERCEPT)
    register_tool_request_intercept = _registers_breaking(_Kind.TOOL_REQUEST_INTERCEPT)
