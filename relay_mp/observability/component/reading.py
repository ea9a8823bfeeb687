"""From a JSON object to the dataclass it is to be, and what is wrong with it on the way.

    {"enabled": true, "sinks": [...]} ──read(AtofConfig)──▶ AtofConfig, with None for what cannot be used
                                                     └─────▶ Findings: diagnostics, and which places are unusable

The types of the fields are the schema. No value is repeated in a message, but one of a choice, for what stands in
the wrong place may be a secret.
"""

import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, NamedTuple

from relay_mp._plugins.document import DEFAULT_POLICY, ConfigDiagnostic, diagnostic

__all__ = ["UNUSABLE", "Findings", "Where", "read", "read_section"]

UNUSABLE = object()
"""What cannot be read."""

_NAMES = {str: "a string", bool: "true or false", int: "an integer", float: "a number", list: "a list", dict: "a table"}
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
    """

    def __init__(self, policy: dict[str, str]) -> None:
        self.policy = {**DEFAULT_POLICY, **policy}
        self.diagnostics: list[ConfigDiagnostic] = []
        self.unusable: list[Where] = []

    def _note(self, level: str, code: str, where: Where, message: str) -> None:
        text = f"{where} {message}" if where.field else message
        found = diagnostic(level, f"observability.{code}", text, component=where.component, field=where.field or None)
        self.diagnostics.append(found)

    def error(self, code: str, where: Where, message: str) -> None:
        """What no policy lets pass."""
        self.unusable.append(where)
        self._note("error", code, where, message)

    def warn(self, code: str, where: Where, message: str) -> None:
        """What may come right."""
        self._note("warning", code, where, message)

    def invalid(self, where: Where, message: str) -> None:
        """A value that is not of its type."""
        self.error("invalid_plugin_config", where, message)

    def unsupported(self, where: Where, message: str) -> None:
        """A value that has no meaning there."""
        self.unusable.append(where)
        if self.policy["unsupported_value"] != "ignore":
            self._note(_LEVELS[self.policy["unsupported_value"]], "unsupported_value", where, message)

    def unknown(self, where: Where) -> None:
        """A key that has no meaning."""
        if self.policy["unknown_field"] != "ignore":
            self._note(_LEVELS[self.policy["unknown_field"]], "unknown_field", where, "has no meaning; remove it")

    def has_unusable(self, where: Where) -> bool:
        """Whether something in that place cannot be used."""
        return any(where.holds(each) or each.holds(where) for each in self.unusable)


def read(hint: Any, value: Any, where: Where, findings: Findings) -> Any:
    """A value of that type, or UNUSABLE, and noted."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _read_union(arguments, value, where, findings)
    if is_dataclass(hint):
        return _read_choice((hint,), value, where, findings)
    if origin is not typing.Literal:
        return _read_typed(hint, origin or hint, value, where, findings)
    if isinstance(value, str) and value in arguments:
        return value
    findings.unsupported(where, f"has to be one of {', '.join(map(repr, arguments))}")
    return UNUSABLE


def _read_typed(hint: Any, expected: Any, value: Any, where: Where, findings: Findings) -> Any:
    """A string, a number, true or false, a list, a table."""
    is_right = type(value) is expected or (expected is float and type(value) is int)
    if not is_right:
        findings.invalid(where, f"is {_NAMES.get(type(value), type(value).__name__)}; expected {_NAMES[expected]}")
        return UNUSABLE
    if expected is list:
        return _read_list(typing.get_args(hint)[0], value, where, findings)
    if expected is dict and typing.get_args(hint)[1] is str:
        kept = {key: read(str, item, where.key(key), findings) for key, item in value.items()}
        return UNUSABLE if any(item is UNUSABLE for item in kept.values()) else kept
    return value


def _read_union(arguments: tuple[Any, ...], value: Any, where: Where, findings: Findings) -> Any:
    choices = tuple(each for each in arguments if each is not types.NoneType)
    if value is None and len(choices) < len(arguments):
        return None
    if all(is_dataclass(each) for each in choices):
        return _read_choice(choices, value, where, findings)
    return read(choices[0], value, where, findings)


def _read_list(hint: Any, value: list[Any], where: Where, findings: Findings) -> Any:
    """Sections that cannot be used leave None in their place, so that the others keep their numbers."""
    found = [read(hint, item, where.item(index), findings) for index, item in enumerate(value)]
    is_of_sections = all(map(is_dataclass, typing.get_args(hint) or (hint,)))
    if is_of_sections:
        return [None if item is UNUSABLE else item for item in found]
    return UNUSABLE if any(item is UNUSABLE for item in found) else found


def _read_choice(choices: tuple[Any, ...], value: Any, where: Where, findings: Findings) -> Any:
    """One of several sections, told apart by `type`."""
    if not isinstance(value, dict):
        findings.invalid(where, f"is {_NAMES.get(type(value), type(value).__name__)}; expected a table")
        return UNUSABLE
    by_type = {kind: each for each in choices if (kind := getattr(each, "TYPE", None))}
    if not by_type:
        return read_section(choices[0], value, where, findings)
    named = ", ".join(map(repr, by_type))
    if "type" not in value:
        findings.invalid(where, f"has no type; expected one of {named}")
        return UNUSABLE
    kind = value["type"]
    if not isinstance(kind, str) or kind not in by_type:
        findings.invalid(where.key("type"), f"has to be one of {named}")
        return UNUSABLE
    rest = {key: item for key, item in value.items() if key != "type"}
    return read_section(by_type[kind], rest, where, findings)


def _is_section(hint: Any) -> bool:
    return typing.get_origin(hint) is not list and any(map(is_dataclass, typing.get_args(hint)))


def read_section(section: Any, value: dict[str, Any], where: Where, findings: Findings) -> Any:
    """A dataclass from a JSON object. None counts as left out; what is unknown is noted, and passed over.

    Args:
        section: the dataclass.
        value: the object.
        where: its place.
        findings: takes what there is to say.

    Returns:
        UNUSABLE if a field that is needed is missing, or any field is not of its type.
    """
    hints = typing.get_type_hints(section)
    known = {one.name: one for one in fields(section)}
    given: dict[str, Any] = {}
    for key, item in value.items():
        if key not in known:
            findings.unknown(where.key(key))
        elif item is not None:
            given[key] = read(
                hints[key], item, where.part(key) if _is_section(hints[key]) else where.key(key), findings
            )
    missing = [
        name for name, one in known.items() if one.default is one.default_factory is MISSING and name not in given
    ]
    for name in missing:
        findings.invalid(where.key(name), "is missing")
    if missing or any(item is UNUSABLE for item in given.values()):
        return UNUSABLE
    return section(**given)
