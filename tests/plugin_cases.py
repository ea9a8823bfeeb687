"""What tests of plugins share: a plugin that notes its calls, and the shortest configuration of some kinds."""

from typing import Any

from relay_mp import plugin
from relay_mp._emit.middleware import registry


class Noting:
    """A plugin that notes its calls, and registers a sanitizer and what it is told to."""

    def __init__(self, diagnostics: Any = None, register: Any = None) -> None:
        self.calls: list[Any] = []
        self.contexts: list[plugin.PluginContext] = []
        self._diagnostics, self._register = diagnostics, register

    def validate(self, config):
        self.calls.append(("validate", config))
        if isinstance(self._diagnostics, BaseException):
            raise self._diagnostics
        return self._diagnostics

    def register(self, config, context):
        self.calls.append(("register", config))
        self.contexts.append(context)
        context.register_mark_sanitize_guardrail("m", 10, lambda event, fields: fields)
        if self._register is not None:
            self._register(context)


def names() -> list[str]:
    return [registration.name for registration in registry.all()]


def config(*kinds: str, **settings: Any) -> dict[str, Any]:
    return {"components": [{"kind": kind} for kind in kinds], **settings}
