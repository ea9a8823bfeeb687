"""Events of a dispatcher process for a reader in another: their records, a line each, in a file."""

import json
import os

from relay_mp.events import Event

__all__ = ["Spool"]


class Spool:
    """Appends each event's record to a file; one write a line, so that a kill leaves none half there but the last.

    Args:
        path: a file that is there already.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def __call__(self, event: Event) -> None:
        record, seq, pid, redelivered = event.__reduce__()[1]
        os.write(self._file, (json.dumps([record.hex(), seq, pid, redelivered]) + "\n").encode())

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)
