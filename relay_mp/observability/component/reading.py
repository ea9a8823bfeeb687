"""From a JSON object to the dataclass it is to be, and what is wrong with it on the way.

    {"enabled": true, "sinks": [...]} ──read(AtofConfig)──▶ AtofConfig, with None for what cannot be used
                                                     └─────▶ Report: what cannot be read, and what has no meaning

The types of the fields are the schema. No value is repeated in a message, but one of a choice, for what stands in
the wrong place may be a secret.
"""

import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from relay_mp.observability.export.findings import Report
from relay_mp.observability.export.section import Section

__all__ = ["UNUSABLE", "read", "read_section", "section_types"]

UNUSABLE = object()
"""What cannot be read."""

_NAMES = {str: "a string", bool: "true or false", int: "an integer", float: "a number", list: "a list", dict: "a table"}


def section_types(config: type) -> dict[str, Any]:
    """Of each field of a configuration that is a section, or a list of sections, what it is read as."""
    found = {}
    for name, hint in typing.get_type_hints(config).items():
        one = next((each for each in typing.get_args(hint) or (hint,) if each is not types.NoneType), hint)
        item = typing.get_args(one)[0] if typing.get_origin(one) is list else one
        if isinstance(item, type) and issubclass(item, Section):
            found[name] = one
    return found


def read(hint: Any, value: Any, report: Report) -> Any:
    """A value of that type, or UNUSABLE, and noted."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _read_union(arguments, value, report)
    if is_dataclass(hint):
        return _read_choice((hint,), value, report)
    if origin is not typing.Literal:
        return _read_typed(hint, origin or hint, value, report)
    if isinstance(value, str) and value in arguments:
        return value
    report.unsupported(f"has to be one of {', '.join(map(repr, arguments))}")
    return UNUSABLE


def _read_typed(hint: Any, expected: Any, value: Any, report: Report) -> Any:
    """A string, a number, true or false, a list, a table."""
    is_right = type(value) is expected or (expected is float and type(value) is int)
    if not is_right:
        report.invalid(f"is {_NAMES.get(type(value), type(value).__name__)}; expected {_NAMES[expected]}")
        return UNUSABLE
    if expected is list:
        return _read_list(typing.get_args(hint)[0], value, report)
    if expected is dict and typing.get_args(hint)[1] is str:
        kept = {key: read(str, item, report.key(key)) for key, item in value.items()}
        return UNUSABLE if any(item is UNUSABLE for item in kept.values()) else kept
    return value


def _read_union(arguments: tuple[Any, ...], value: Any, report: Report) -> Any:
    choices = tuple(each for each in arguments if each is not types.NoneType)
    if value is None and len(choices) < len(arguments):
        return None
    if all(is_dataclass(each) for each in choices):
        return _read_choice(choices, value, report)
    return read(choices[0], value, report)


def _read_list(hint: Any, value: list[Any], report: Report) -> Any:
    """Sections that cannot be used leave None in their place, so that the others keep their numbers."""
    found = [read(hint, item, report.item(index)) for index, item in enumerate(value)]
    is_of_sections = all(map(is_dataclass, typing.get_args(hint) or (hint,)))
    if is_of_sections:
        return [None if item is UNUSABLE else item for item in found]
    return UNUSABLE if any(item is UNUSABLE for item in found) else found


def _read_choice(choices: tuple[Any, ...], value: Any, report: Report) -> Any:
    """One of several sections, told apart by `type`."""
    if not isinstance(value, dict):
        report.invalid(f"is {_NAMES.get(type(value), type(value).__name__)}; expected a table")
        return UNUSABLE
    by_type = {kind: each for each in choices if (kind := getattr(each, "TYPE", None))}
    if not by_type:
        return read_section(choices[0], value, report)
    named = ", ".join(map(repr, by_type))
    if "type" not in value:
        report.invalid(f"has no type; expected one of {named}")
        return UNUSABLE
    kind = value["type"]
    if not isinstance(kind, str) or kind not in by_type:
        report.key("type").invalid(f"has to be one of {named}")
        return UNUSABLE
    rest = {key: item for key, item in value.items() if key != "type"}
    return read_section(by_type[kind], rest, report)


def _is_section(hint: Any) -> bool:
    return typing.get_origin(hint) is not list and any(map(is_dataclass, typing.get_args(hint)))


def read_section(section: Any, value: dict[str, Any], report: Report) -> Any:
    """A dataclass from a JSON object. None counts as left out; what is unknown is noted, and passed over.

    Args:
        section: the dataclass.
        value: the object.
        report: takes what there is to say.

    Returns:
        UNUSABLE if a field that is needed is missing, or any field is not of its type.
    """
    hints = typing.get_type_hints(section)
    known = {one.name: one for one in fields(section)}
    given: dict[str, Any] = {}
    for key, item in value.items():
        if key not in known:
            report.unknown(key, known)
        elif item is not None:
            place = report.part(key) if _is_section(hints[key]) else report.key(key)
            given[key] = read(hints[key], item, place)
    missing = [
        name for name, one in known.items() if one.default is one.default_factory is MISSING and name not in given
    ]
    for name in missing:
        report.key(name).invalid("is missing")
    if missing or any(item is UNUSABLE for item in given.values()):
        return UNUSABLE
    return section(**given)
