"""Reading what a provider sent, whose types are never certain: a value of the wanted type, or nothing."""

import math
from typing import Any

__all__ = ["as_count", "as_number", "joined", "objects_of", "of_kind"]


def of_kind(kind: type, value: Any) -> Any:
    """A value if it is of the type; else None."""
    return value if isinstance(value, kind) else None


def objects_of(value: Any) -> list[dict[str, Any]]:
    """The objects in a list; none if it is not a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def joined(texts: list[str], separator: str = "\n") -> str | None:
    """Texts as one; None if there are none."""
    return separator.join(texts) if texts else None


def as_number(value: Any) -> float | None:
    """A finite number; a text that is one, as decimals become in JSON, counts too."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def as_count(value: Any) -> int | None:
    """A whole number that is not negative, also as a float or a text."""
    if type(value) is int:  # the usual case, and exact beyond a float's 53 bits
        return value if 0 <= value < 2**64 else None
    found = as_number(value)
    return int(found) if found is not None and found >= 0 and found.is_integer() and found < 2**63 else None
