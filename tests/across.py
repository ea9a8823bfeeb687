"""What crosses in tests/test_across_processes.py: named middleware and plugins, and what workers do.

Nothing here registers anything: a worker that has it got it from the session's owner.
"""

import asyncio
import json
import os
import sys
from typing import Any

import relay_mp
from relay_mp import ScopeType, llm, scope, tools

SECRET = "sk-" + "0123456789abcdef"  # in two parts: no process's memory has it but by emitting it
MARKER = "sk-"


def payload() -> dict[str, str]:
    return {"key": SECRET, "pid": str(os.getpid())}


# -------------------------------------------------------------------------------------------- middleware


class Redactor:
    """A named sanitizer with arguments."""

    def __init__(self, marker: str, by: str = "redacted") -> None:
        self._marker, self._by = marker, by

    def __call__(self, _event: Any, fields: dict[str, Any]) -> dict[str, Any]:
        return json.loads(json.dumps(fields).replace(SECRET, self._by)) if self._marker == MARKER else fields


def redact(_event: Any, fields: dict[str, Any]) -> dict[str, Any]:
    """A named sanitizer without."""
    return Redactor(MARKER)(_event, fields)


def note_scope(_event: Any, fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "metadata": {**(fields["metadata"] or {}), "local": True}}


class NotingPlugin:
    """Has no state, so that its class's name is enough to have it."""

    def validate(self, _config: dict[str, Any]) -> None:
        return None

    def register(self, config: dict[str, Any], context: Any) -> None:
        def note(_event: Any, fields: dict[str, Any]) -> dict[str, Any]:
            return {**fields, "metadata": {**(fields["metadata"] or {}), "plugin": config["says"]}}

        context.register_mark_sanitize_guardrail("note", 50, note)
        context.register_subscriber("s", lambda event: None)


class PluginWithState:
    def __init__(self) -> None:
        self.says = "something"

    def register(self, config: dict[str, Any], context: Any) -> None:
        NotingPlugin().register(config, context)


def owners_only(*_: Any) -> Any:
    """A factory that fails but in the owner."""
    if os.getpid() != int(os.environ["ACROSS_OWNER"]):
        raise ImportError("not in a worker")
    return redact


def instead_of_the_call(_name: str, request: Any, annotated: Any) -> Any:
    """An LLM request intercept."""
    return relay_mp.LLMRequestInterceptOutcome(
        relay_mp.LLMRequest(request.headers, {**request.content, "model": "intercepted"}), annotated
    )


def no_deleting(name: str, _args: Any) -> str | None:
    """A tool guardrail."""
    return "no deleting here" if name == "delete" else None


def call_model_and_tool() -> tuple[str, str]:
    """The model that a managed call reaches, and what is said of a tool call that is not let through."""

    async def run() -> tuple[str, str]:
        reached: list[str] = []
        request = relay_mp.LLMRequest({}, {"model": "asked for"})
        await llm.execute("llm", request, lambda request: reached.append(request.content["model"]) or {"ok": True})
        try:
            await tools.execute("delete", {}, lambda args: {"deleted": True})
        except RuntimeError as error:
            return reached[0], str(error)
        return reached[0], "it was let through"

    return asyncio.run(run())


class Forgetful:
    """A plugin that registers its sanitizer in the owner only."""

    def register(self, _config: dict[str, Any], context: Any) -> None:
        if os.getpid() == int(os.environ["ACROSS_OWNER"]):
            context.register_mark_sanitize_guardrail("note", 50, redact)


# ------------------------------------------------------------------------------------------------ workers


def work(_: Any = None) -> int:
    """The first event of a process is a mark with the secret in it; then a scope."""
    scope.event("m", data=payload())
    with scope.scope("s", ScopeType.Function, input=payload()):
        pass
    return os.getpid()


def work_on_request(connection: Any) -> None:
    """A mark for each name that comes, until none does."""
    for name in iter(connection.recv, None):
        scope.event(name, data=payload())
        connection.send(name)


def registrations(_: Any = None) -> list[tuple[str, str, bool]]:
    """What this process has, once it has emitted."""
    from relay_mp._emit.middleware import registry

    scope.event("m", data=payload())
    return [(each.family.kind.value, each.name, each.arrived) for each in registry.all()]


def work_three(_: Any = None) -> None:
    for _ in range(3):
        scope.event("m", data=payload())


def register_own() -> list[tuple[str, bool]]:
    """What this process has after it has registered a name that has arrived."""
    from relay_mp._emit.families import FAMILIES
    from relay_mp._emit.middleware import Registration, registry
    from relay_mp.types import RuntimeRegistrationKind

    work()
    family = FAMILIES[RuntimeRegistrationKind.MARK_SANITIZE_GUARDRAIL]
    registry.exchange(add=[Registration(family=family, name="marks", priority=1, callback=redact)])
    work()
    return [(each.name, each.arrived) for each in registry.all()]


if __name__ == "__main__":
    work()
    sys.exit(0)
