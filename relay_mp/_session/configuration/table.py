"""The table of the owner's middleware: a row for each registration, and its bytes in the segment.

    [FORMAT, [component, ...], [row, ...]]          msgpack

    component   kind, ordinal, target, config
    row         number, kind, name, local name, priority, break_chain, scope, target, arguments, index of a component

The bytes come from shared memory: nothing in them is trusted before it is checked.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgpack  # type: ignore[import-untyped]

from relay_mp._emit.families import FAMILIES, Family
from relay_mp._plugins.components import Component
from relay_mp.errors import ConfigurationError
from relay_mp.types import RuntimeRegistrationKind

__all__ = ["FORMAT", "Row", "decode", "encode"]

FORMAT = 1


class Row(NamedTuple):
    """One of the owner's registrations. Its number is never used again in a session."""

    number: int
    kind: str
    name: str
    local_name: str
    priority: int
    break_chain: bool
    scope: bytes | None
    target: str | None
    arguments: dict[str, Any] | None
    component: Component | None

    @property
    def family(self) -> Family:
        return FAMILIES[RuntimeRegistrationKind(self.kind)]

    @property
    def is_reachable(self) -> bool:
        """Whether a process that is not a fork of the owner can have it."""
        return (self.component.target if self.component else self.target) is not None


def encode(rows: Sequence[Row]) -> bytes:
    """The bytes of a table."""
    components = list(dict.fromkeys(row.component.owner for row in rows if row.component))
    of_owner = {row.component.owner: row.component for row in rows if row.component}
    table = [
        FORMAT,
        [list(of_owner[owner]) for owner in components],
        [[*row[:-1], components.index(row.component.owner) if row.component else None] for row in rows],
    ]
    return bytes(msgpack.packb(table))


def decode(table: bytes | None) -> tuple[Row, ...]:
    """The rows of a table.

    Args:
        table: its bytes; None if they could not be read whole.

    Raises:
        ConfigurationError: it is not such a table.
    """
    try:
        if table is None:
            raise ValueError("its checksum is wrong")
        version, components, rows = msgpack.unpackb(table, strict_map_key=True)
        if version != FORMAT:
            raise ValueError(f"its format is {version!r:.20}; expected {FORMAT}")
        known = [_decode_component(*component) for component in components]
        return tuple(_decode_row(known, *row) for row in rows)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, msgpack.UnpackException) as error:
        raise ConfigurationError(f"the middleware that the session's owner shares is damaged: {error}") from error


def _require(is_so: bool, what: str) -> None:
    if not is_so:
        raise ValueError(f"a {what} is of the wrong type or size")


def _decode_component(kind: Any, ordinal: Any, target: Any, config: Any) -> Component:
    _require(isinstance(kind, str) and type(ordinal) is int and ordinal > 0, "component")
    _require(isinstance(target, str | None) and isinstance(config, dict), "component's target or config")
    return Component(kind, ordinal, target, config)


def _decode_row(components: list[Component], *fields: Any) -> Row:
    number, kind, name, local_name, priority, break_chain, scope, target, arguments, index = fields
    _require(type(number) is int and number > 0 and type(priority) is int, "number or priority")
    _require(isinstance(name, str) and isinstance(local_name, str) and isinstance(target, str | None), "name")
    _require(type(break_chain) is bool and isinstance(arguments, dict | None), "row's arguments")
    _require(scope is None or (isinstance(scope, bytes) and len(scope) == 16), "scope")
    _require(index is None or (type(index) is int and 0 <= index < len(components)), "component's number")
    RuntimeRegistrationKind(kind)
    component = None if index is None else components[index]
    return Row(number, kind, name, local_name, priority, break_chain, scope, target, arguments, component)
