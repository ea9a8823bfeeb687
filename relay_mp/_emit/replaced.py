"""What is said in the log of a value that could not be recorded, and was replaced: once for each place and type.

Runs in the emitting process, called by the native core, which counts it (`stats().replaced`). It must not raise.
"""

import re

from relay_mp._log import logger

__all__ = ["MAX_TOLD_PLACES", "tell"]

MAX_TOLD_PLACES = 1000
"""So many places and types are told of in a process; the others are only counted."""

_told: set[tuple[str, str]] = set()


def tell(path: str, what: str) -> None:
    """Tells of a value, unless its kind has been told of."""
    place = re.sub(r"\[\d+\]", "[*]", path)
    if (place, what) in _told or len(_told) >= MAX_TOLD_PLACES:
        return
    _told.add((place, what))
    logger.warning(
        "%s cannot be recorded (%s): it was replaced in the event, the program is not affected; "
        "stats().replaced counts, RELAY_MP_STRICT=1 makes it an error",
        path,
        what,
    )
