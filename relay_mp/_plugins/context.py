"""What a plugin's `register` is given: it takes registrations down, and they become effective together.

    register(config, context) ─▶ context notes ─▶ all components done ─▶ one exchange of the registry

So a plugin that raises leaves nothing behind, and no event ever meets half a configuration. Later calls,
while the component is active, take effect at once and end with it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from relay_mp._emit.arguments import freeze_setting, thaw
from relay_mp._emit.families import FAMILIES
from relay_mp._emit.middleware import Gate, Registration
from relay_mp.errors import PluginError, described_type
from relay_mp.types import RuntimeRegistrationKind, RuntimeRegistrationOwner, RuntimeRegistrationOwnerKind

__all__ = ["EFFECTIVE_PREFIX", "ExporterSpec", "Installer", "PluginContext"]

EFFECTIVE_PREFIX = "relay-mp-plugin.v1"


class Installer(Protocol):
    """Makes registrations effective: at once, once their component is active."""

    def add(self, context: "PluginContext", what: Any) -> None:
        """Installs a registration, a gate, an exporter, or a subscriber, as a (name, callback), of an active one."""


Callback = Callable[..., Any]
_Kind = RuntimeRegistrationKind


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
            raise TypeError(f"name is {described_type(name)}; expected str")
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
        self, kind: RuntimeRegistrationKind, name: str, priority: int, callback: Callback, break_chain: bool = False
    ) -> None:
        if type(break_chain) is not bool:
            raise TypeError(f"break_chain is {described_type(break_chain)}; expected bool")
        effective = self._effective(name)
        if not isinstance(priority, int) or isinstance(priority, bool):
            raise TypeError(f"priority is {described_type(priority)}; expected int")
        if not callable(callback):
            raise TypeError(f"callback is {described_type(callback)}; expected a callable")
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
            raise TypeError(f"callback is {described_type(callback)}; expected a callable that takes an event")
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
        kept = thaw(freeze_setting(arguments, "arguments"))
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
            raise TypeError(f"guardrail is {described_type(guardrail)}; expected a callable")
        self._require_free(any(gate.name == effective for gate in self.gates), "gate", name)
        gate = Gate(effective, frozenset(map(RuntimeRegistrationKind, kinds)), registration_name, guardrail)
        self._note(self.gates, gate, name)

    # --- Generated from relay_mp/_emit/families.py by `python -m tools.generate_registrations`: change that, not this.

    def register_event_metadata_injector(self, name: str, priority: int, callback: Callback) -> None:
        """Registers an injector of metadata.

        `callback(event)` returns a dict to add to the event's metadata.
        If it raises, or returns something else, nothing is added.

        Args:
            name: unique among the component's registrations of this family.
            priority: the lowest runs first.
            callback: synchronous or asynchronous.

        Raises:
            TypeError: an argument is not of its type.
            PluginError: the name is taken, or the component is not active any more.
        """
        self._register(_Kind.EVENT_METADATA_INJECTOR, name, priority, callback)

    def register_mark_sanitize_guardrail(self, name: str, priority: int, callback: Callback) -> None:
        """Registers a sanitizer of marks.

        `callback(event, fields)` returns the fields to show.
        If it raises, or returns something else, the event shows no payload.

        Args:
            name: unique among the component's registrations of this family.
            priority: the lowest runs first.
            callback: synchronous or asynchronous.

        Raises:
            TypeError: an argument is not of its type.
            PluginError: the name is taken, or the component is not active any more.
        """
        self._register(_Kind.MARK_SANITIZE_GUARDRAIL, name, priority, callback)

    def register_scope_sanitize_start_guardrail(self, name: str, priority: int, callback: Callback) -> None:
        """Registers a sanitizer of the start events of scopes and calls.

        `callback(event, fields)` returns the fields to show.
        If it raises, or returns something else, the event shows no payload.

        Args:
            name: unique among the component's registrations of this family.
            priority: the lowest runs first.
            callback: synchronous or asynchronous.

        Raises:
            TypeError: an argument is not of its type.
            PluginError: the name is taken, or the component is not active any more.
        """
        self._register(_Kind.SCOPE_SANITIZE_START_GUARDRAIL, name, priority, callback)

    def register_scope_sanitize_end_guardrail(self, name: str, priority: int, callback: Callback) -> None:
        """Registers a sanitizer of the end events of scopes and calls.

        `callback(event, fields)` returns the fields to show.
        If it raises, or returns something else, the event shows no payload.

        Args:
            name: unique among the component's registrations of this family.
            priority: the lowest runs first.
            callback: synchronous or asynchronous.

        Raises:
            TypeError: an argument is not of its type.
            PluginError: the name is taken, or the component is not active any more.
        """
        self._register(_Kind.SCOPE_SANITIZE_END_GUARDRAIL, name, priority, callback)

    def register_tool_sanitize_request_guardrail(self, name: str, priority: int, callback: Callback) -> None:
        """Registers a sanitizer of the arguments in tool calls' start events.

        `callback(tool_name, args)` returns the arguments to show.
        If it raises, or returns something else, the event shows no payload.

        Args:
            name: unique among the component's registrations of this family.
            priority: the lowest runs first.
            callback: synchronous or asynchronous.

        Raises:
            TypeError: an argument is not of its type.
            PluginError: the name is taken, or the component is not active any more.
        """
        self._register(_Kind.TOOL_SANITIZE_REQUEST_GUARDRAIL, name, priority, callback)

    def register_tool_sanitize_response_guardrail(self, name: str, priority: int, callback: Callback) -> None:
        """Registers a sanitizer of the results in tool calls' end events.

        `callback(tool_name, result)` returns the result to show.
        If it raises, or returns something else, the event shows no payload.

        Args:
            name: unique among the component's registrations of this family.
            priority: the lowest runs first.
            callback: synchronous or asynchronous.

        Raises:
            TypeError: an argument is not of its type.
            PluginError: the name is taken, or the component is not active any more.
        """
        self._register(_Kind.TOOL_SANITIZE_RESPONSE_GUARDRAIL, name, priority, callback)

    def register_tool_conditional_execution_guardrail(self, name: str, priority: int, callback: Callback) -> None:
        """Registers a guardrail that can reject tool calls.

        `callback(tool_name, args)` returns the reason to reject one, or None.
        If it raises, or returns something else, the call fails.

        Args:
            name: unique among the component's registrations of this family.
            priority: the lowest runs first.
            callback: synchronous or asynchronous.

        Raises:
            TypeError: an argument is not of its type.
            PluginError: the name is taken, or the component is not active any more.
        """
        self._register(_Kind.TOOL_CONDITIONAL_EXECUTION_GUARDRAIL, name, priority, callback)

    def register_tool_request_intercept(self, name: str, priority: int, break_chain: bool, callback: Callback) -> None:
        """Registers an intercept of tool calls' arguments.

        `callback(tool_name, args)` returns the arguments to go on with.
        If it raises, or returns something else, the call fails.

        Args:
            name: unique among the component's registrations of this family.
            priority: the lowest runs first.
            break_chain: whether the rest of the chain is left out after it.
            callback: synchronous or asynchronous.

        Raises:
            TypeError: an argument is not of its type.
            PluginError: the name is taken, or the component is not active any more.
        """
        self._register(_Kind.TOOL_REQUEST_INTERCEPT, name, priority, callback, break_chain)

    def register_tool_execution_intercept(self, name: str, priority: int, callback: Callback) -> None:
        """Registers an intercept around tool calls.

        `callback(tool_name, args, next_call)` returns a `ToolExecutionInterceptOutcome`.
        If it raises, or returns something else, the call fails.

        Args:
            name: unique among the component's registrations of this family.
            priority: the lowest runs first.
            callback: synchronous or asynchronous.

        Raises:
            TypeError: an argument is not of its type.
            PluginError: the name is taken, or the component is not active any more.
        """
        self._register(_Kind.TOOL_EXECUTION_INTERCEPT, name, priority, callback)

    def register_llm_sanitize_request_guardrail(self, name: str, priority: int, callback: Callback) -> None:
        """Registers a sanitizer of the requests in LLM calls' start events.

        `callback(request, context)` returns the `LLMRequest` to show, or None.
        If it raises, or returns something else, the event shows no payload.

        Args:
            name: unique among the component's registrations of this family.
            priority: the lowest runs first.
            callback: synchronous or asynchronous.

        Raises:
            TypeError: an argument is not of its type.
            PluginError: the name is taken, or the component is not active any more.
        """
        self._register(_Kind.LLM_SANITIZE_REQUEST_GUARDRAIL, name, priority, callback)

    def register_llm_sanitize_response_guardrail(self, name: str, priority: int, callback: Callback) -> None:
        """Registers a sanitizer of the responses in LLM calls' end events.

        `callback(response, context)` returns the response to show, or None.
        If it raises, or returns something else, the event shows no payload.

        Args:
            name: unique among the component's registrations of this family.
            priority: the lowest runs first.
            callback: synchronous or asynchronous.

        Raises:
            TypeError: an argument is not of its type.
            PluginError: the name is taken, or the component is not active any more.
        """
        self._register(_Kind.LLM_SANITIZE_RESPONSE_GUARDRAIL, name, priority, callback)

    def register_llm_conditional_execution_guardrail(self, name: str, priority: int, callback: Callback) -> None:
        """Registers a guardrail that can reject LLM calls.

        `callback(request)` returns the reason to reject one, or None.
        If it raises, or returns something else, the call fails.

        Args:
            name: unique among the component's registrations of this family.
            priority: the lowest runs first.
            callback: synchronous or asynchronous.

        Raises:
            TypeError: an argument is not of its type.
            PluginError: the name is taken, or the component is not active any more.
        """
        self._register(_Kind.LLM_CONDITIONAL_EXECUTION_GUARDRAIL, name, priority, callback)

    def register_llm_request_intercept(self, name: str, priority: int, break_chain: bool, callback: Callback) -> None:
        """Registers an intercept of LLM requests.

        `callback(name, request, annotated)` returns an `LLMRequestInterceptOutcome`.
        If it raises, or returns something else, the call fails.

        Args:
            name: unique among the component's registrations of this family.
            priority: the lowest runs first.
            break_chain: whether the rest of the chain is left out after it.
            callback: synchronous or asynchronous.

        Raises:
            TypeError: an argument is not of its type.
            PluginError: the name is taken, or the component is not active any more.
        """
        self._register(_Kind.LLM_REQUEST_INTERCEPT, name, priority, callback, break_chain)

    def register_llm_execution_intercept(self, name: str, priority: int, callback: Callback) -> None:
        """Registers an intercept around LLM calls.

        `callback(name, request, next_call)` returns the response.
        If it raises, or returns something else, the call fails.

        Args:
            name: unique among the component's registrations of this family.
            priority: the lowest runs first.
            callback: synchronous or asynchronous.

        Raises:
            TypeError: an argument is not of its type.
            PluginError: the name is taken, or the component is not active any more.
        """
        self._register(_Kind.LLM_EXECUTION_INTERCEPT, name, priority, callback)

    def register_llm_stream_execution_intercept(self, name: str, priority: int, callback: Callback) -> None:
        """Registers an intercept around streamed LLM calls.

        `callback(request, next_call)` returns an asynchronous iterator of chunks.
        If it raises, or returns something else, the call fails.

        Args:
            name: unique among the component's registrations of this family.
            priority: the lowest runs first.
            callback: synchronous or asynchronous.

        Raises:
            TypeError: an argument is not of its type.
            PluginError: the name is taken, or the component is not active any more.
        """
        self._register(_Kind.LLM_STREAM_EXECUTION_INTERCEPT, name, priority, callback)

    # --- End of the generated part.
