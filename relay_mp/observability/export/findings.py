"""What is wrong with a configuration, and where: sections say it to a `Report`; the policy judges it.

section.check(report) ──▶ report.key("port").unsupported("is 65536; ...") ──▶ Findings ──▶ diagnostics
                                                                                 └──▶ places that cannot be used
"""

from collections.abc import Iterable
from typing import NamedTuple

from relay_mp._plugins.document import DEFAULT_POLICY, ConfigDiagnostic, diagnostic, remedy

__all__ = ["Findings", "Report", "Where"]

_LEVELS = {"warn": "warning", "error": "error"}


class Where(NamedTuple):
    """A place in the component's config: the part of it that is concerned, and the field there."""

    component: str
    field: str = ""

    def key(self, name: str) -> "Where":
        """A field of it."""
        return Where(self.component, f"{self.field}.{name}" if self.field else name)

    def item(self, index: int) -> "Where":
        """An item of it."""
        return Where(self.component, f"{self.field}[{index}]")

    def part(self, name: str) -> "Where":
        """A section in it, which is spoken of by itself."""
        return Where(f"{self.component}.{name}")

    def __str__(self) -> str:
        dot = "" if not self.field or self.field.startswith("[") else "."
        return f"{self.component}{dot}{self.field}"

    def holds(self, other: "Where") -> bool:
        """Whether the other is this place, or in it."""
        if other.component != self.component:
            return False
        rest = other.field.removeprefix(self.field)
        return not self.field or (other.field.startswith(self.field) and rest[:1] in ("", ".", "["))


class Findings:
    """Diagnostics as the policy wants them, and the places that cannot be used, whatever the policy.

    Args:
        policy: what is done about unknown fields and unsupported values: "ignore", "warn", "error".
        version: of the component's config.
    """

    def __init__(self, policy: dict[str, str], version: int) -> None:
        self.policy = {**DEFAULT_POLICY, **policy}
        self.version = version
        self.diagnostics: list[ConfigDiagnostic] = []
        self.unusable: list[Where] = []

    def note(self, level: str, code: str, where: Where, message: str) -> None:
        """Adds a diagnostic."""
        text = f"{where} {message}" if where.field else message
        found = diagnostic(level, f"observability.{code}", text, component=where.component, field=where.field or None)
        self.diagnostics.append(found)

    def judge(self, cause: str, where: Where, message: str) -> None:
        """Adds a diagnostic as the policy wants it for that cause: an error, a warning, or none."""
        if self.policy[cause] != "ignore":
            self.note(_LEVELS[self.policy[cause]], cause, where, message)

    def has_unusable(self, where: Where) -> bool:
        """Whether something in that place cannot be used."""
        return any(where.holds(each) or each.holds(where) for each in self.unusable)


class Report:
    """Takes what there is to say about one place.

    Messages go on behind the place's name: `report.key("port").unsupported("is 65536; expected 0 to 65535")`.

    Args:
        findings: where it is gathered.
        where: the place.
    """

    def __init__(self, findings: Findings, where: Where) -> None:
        self._findings = findings
        self.where = where

    @property
    def version(self) -> int:
        """Of the component's config."""
        return self._findings.version

    def key(self, name: str) -> "Report":
        """About a field of it."""
        return Report(self._findings, self.where.key(name))

    def item(self, index: int) -> "Report":
        """About an item of it."""
        return Report(self._findings, self.where.item(index))

    def part(self, name: str) -> "Report":
        """About a section in it, which is spoken of by itself."""
        return Report(self._findings, self.where.part(name))

    def error(self, code: str, message: str) -> None:
        """What no policy lets pass."""
        self._findings.unusable.append(self.where)
        self._findings.note("error", code, self.where, message)

    def warn(self, code: str, message: str) -> None:
        """What may come right while the session runs."""
        self._findings.note("warning", code, self.where, message)

    def invalid(self, message: str) -> None:
        """A value that is not of its type."""
        self.error("invalid_plugin_config", message)

    def unsupported(self, message: str) -> None:
        """A value that has no meaning there."""
        self._findings.unusable.append(self.where)
        self._findings.judge("unsupported_value", self.where, message)

    def unknown(self, key: str, known: Iterable[str]) -> None:
        """A key that has no meaning, beside those that have one."""
        message = f"has no meaning; {remedy(key, known)}"
        self._findings.judge("unknown_field", self.where.key(key), message)
