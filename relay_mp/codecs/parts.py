"""Content parts by a table: what a provider's parts are called in the view, and back.

A provider's part is an object with a `type`. The view names the type, and either one key of the part
(`KEY`: the others stay beside it) or all of it but the type (`WHOLE`).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from relay_mp.types import JsonObject

__all__ = ["PartName", "read_by_table", "render_by_table"]


class PartName(NamedTuple):
    """One kind of part.

    Attributes:
        name: its type in the view.
        inner: the key of its content in the view.
        key: the key of its content at the provider; None if all keys but the type are the content.
        required: keys that the provider's part must have besides.
    """

    name: str
    inner: str
    key: str | None
    required: tuple[str, ...] = ()


def read_by_table(part: JsonObject, names: Mapping[str, PartName]) -> JsonObject | None:
    """A provider's part as the view has it; None if the table does not know it, or it lacks what it must have."""
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in names:
        return None
    name, inner, key, required = names[kind]
    rest = {other: item for other, item in part.items() if other not in ("type", key)}
    if key is None:
        return {"type": name, inner: rest}
    if any(part.get(wanted) is None for wanted in (key, *required)):
        return None
    return {"type": name, **rest, inner: part[key]}


def render_by_table(part: JsonObject, names: Mapping[str, PartName]) -> JsonObject | None:
    """A view's part as the provider has it; None if the table does not know it."""
    for kind, (name, inner, key, _) in names.items():
        if name != part["type"]:
            continue
        if key is None:
            content: Any = part[inner]
            return {"type": kind, **content} if isinstance(content, dict) else None
        rest = {other: item for other, item in part.items() if other not in ("type", inner)}
        return {"type": kind, **rest, key: part[inner]}
    return None
