"""One exporter that a section of a configuration stands for, before it is made."""

from collections.abc import Callable
from typing import NamedTuple

from relay_mp.observability.component.reading import Where
from relay_mp.observability.export.base import Exporter

__all__ = ["Unit"]


class Unit(NamedTuple):
    """One exporter that a section stands for.

    Attributes:
        where: its place in the config.
        name: of the exporter; it goes by what it writes to, so that it is the same wherever in the list it stands.
        make: makes the exporter; may raise TypeError, ValueError and, for a missing extra, ImportError.
    """

    where: Where
    name: str
    make: Callable[[], Exporter]
