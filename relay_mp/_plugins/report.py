"""What `plugin.report` and its like return: findings about a configuration, and about its running."""

from typing import NotRequired, TypedDict

from relay_mp._plugins.document import ConfigDiagnostic
from relay_mp.types import JsonObject

__all__ = ["ConfigReport", "RuntimeDiagnostic", "runtime_diagnostic"]


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


def runtime_diagnostic(code: str, component: str, message: str, count: int = 1, field: str = "") -> RuntimeDiagnostic:
    """One diagnostic; without a field, if it has none."""
    found: RuntimeDiagnostic = {"code": code, "component": component, "message": message, "count": count}
    return {**found, "field": field} if field else found
