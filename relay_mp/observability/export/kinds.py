"""Which kinds of exporters there are: entry points of installed packages, this one's own among them.

A kind is a callable that takes JSON keyword arguments and returns a `Sink`, or any callback. `load` runs where the
dispatcher runs, at an exporter's registration.
"""

import importlib.metadata
from typing import Any

from relay_mp.errors import SubscriberError

__all__ = ["ENTRY_POINTS", "known_kinds", "load"]

ENTRY_POINTS = "relay_mp.exporters"
"""The group of entry points under which kinds of exporters are found."""


def _points() -> importlib.metadata.EntryPoints:
    return importlib.metadata.entry_points(group=ENTRY_POINTS)


def known_kinds() -> list[str]:
    """The names of all that are installed, sorted."""
    return sorted(_points().names)


def load(kind: str, arguments: dict[str, Any]) -> Any:
    """Makes a sink by its kind.

    Raises:
        SubscriberError: no installed package has an exporter of that kind.
    """
    points = _points()
    if kind not in points.names:
        raise SubscriberError(
            f"there is no exporter {kind!r}; there are {', '.join(sorted(points.names)) or 'none'}. A package "
            f"declares one as an entry point of the group {ENTRY_POINTS!r}"
        )
    return points[kind].load()(**arguments)
