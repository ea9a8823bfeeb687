"""What the section of a format is: a dataclass that says what is wrong with it, and which exporters it stands for.

    [perfetto]           ──read──▶ PerfettoConfig ──check────▶ what is wrong with its values
    enabled = true                                ──exporters──▶ Planned(where, name, make)
    path = "trace.json"

A section is a field of `ObservabilityConfig`; the field's type is all that the component needs to know of a format.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple, TypeVar

from relay_mp.observability.export.base import Exporter
from relay_mp.observability.export.findings import Report, Where
from relay_mp.types import JsonObject

__all__ = ["Planned", "Section", "Table", "configure", "default_of", "placed", "to_json"]

Item = TypeVar("Item")
Place = TypeVar("Place", Report, Where)


class Planned(NamedTuple):
    """One exporter that a section stands for, before it is made.

    Attributes:
        where: its place in the config.
        name: of the exporter. It names what is written to, so that it is the same wherever in a list it stands.
        make: makes the exporter; may raise TypeError, ValueError and, for a missing extra, ImportError.
    """

    where: Where
    name: str
    make: Callable[[], Exporter]


class Table:
    """The base of what is a JSON object in a configuration: a dataclass, whose fields' types are the schema."""

    __slots__ = ()

    def to_dict(self) -> JsonObject:
        """The table as a JSON object, without what is None."""
        found: JsonObject = to_json(self)
        return found


class Section(Table):
    """The base of a format's section, and of the tables in it.

    The section itself has a field `enabled`. In a list of tables, None stands for one that could not be read.
    """

    __slots__ = ()

    enabled: bool

    def check(self, report: Report) -> None:
        """Says what is wrong with the values, which have the right types; enabled or not.

        It may look at the environment and at directories, and changes nothing. What may be a secret is not repeated.
        """

    def exporters(self, at: Where) -> Iterator[Planned]:
        """The exporters that it stands for, if it is enabled.

        Args:
            at: its place.
        """
        yield from ()

    def settings(self) -> dict[str, Any]:
        """The fields that are set, by name, but for `enabled`: keyword arguments of an exporter."""
        found = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "enabled"}  # type: ignore[arg-type]
        return {name: value for name, value in found.items() if value is not None}


def placed(of: Place, name: str, items: Iterable[Item | None] | None) -> Iterator[tuple[Place, Item]]:
    """The tables of a list, each with its place; those that could not be read are passed over.

    Args:
        of: the section's place, or what takes what there is to say about it.
        name: of the section's field.
        items: the field's value.
    """
    for index, item in enumerate(items or ()):
        if item is not None:
            yield of.key(name).item(index), item


def to_json(value: Any) -> Any:
    """A section as a JSON object, with its `type` where there is a choice of them; None is left out."""
    if is_dataclass(value) and not isinstance(value, type):
        kind = getattr(value, "TYPE", None)
        found = {"type": kind} if kind else {}
        for one in fields(value):
            item = getattr(value, one.name)
            if item is not None:
                found[one.name] = to_json(item)
        return found
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items() if item is not None}
    return value


def configure(config: Any, section: Section, **others: Any) -> Any:
    """Gives an exporter's configuration object what the section says under the same names, and returns it.

    Args:
        config: the object; what the section leaves at None stays as it is.
        section: what it does not know is passed over, such as a name for reports.
        others: in place of the section's values.
    """
    for name, value in {**section.settings(), **others}.items():
        if hasattr(config, name):
            setattr(config, name, value)
    return config


def default_of(exporter: Callable[..., Any], name: str) -> Any:
    """What an exporter takes where an argument is left out, so that a section need not say it again."""
    return inspect.signature(exporter).parameters[name].default
