"""A file that this process alone writes: opened and locked, whole after each write, closed in a forked child.

    JsonlFile (ATOF's lines), TraceFile (Perfetto) ──▶ LockedFile ──▶ FileLock, private_files, at_fork

Runs where the dispatcher runs.
"""

import os
import stat
from collections.abc import Callable

from relay_mp._deliver.at_fork import abandon_in_child, unforked
from relay_mp._deliver.file_lock import FileLock
from relay_mp._deliver.private_files import FILE_MODE, open_file

__all__ = ["LockedFile"]


class LockedFile:
    """A file to append to, closed until a subclass opens it.

    Args:
        path: the file; made with its directory when it is opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = -1
        self._lock: FileLock | None = None
        self._mode = FILE_MODE
        self._end = 0

    def _open(self, begin: Callable[[], None]) -> None:
        """Opens it, with the mode that a new file is to have. A pipe or a device is not locked.

        Args:
            begin: looks at what is there, and sets where the file ends. If it raises, the file is closed again.

        Raises:
            FileTakenError: somebody else writes it.
            OSError: it cannot be opened.
        """
        with unforked:
            self._file = open_file(self.path, os.O_RDWR | os.O_APPEND, mode=self._mode)
            try:
                status = os.fstat(self._file)
                self._lock_it(status)
                self._mode = stat.S_IMODE(status.st_mode)
                begin()
            except BaseException:
                self._close()
                raise
            abandon_in_child(self)

    def _lock_it(self, status: os.stat_result) -> None:
        is_regular = stat.S_ISREG(status.st_mode)
        # The lock of the file that was open before, unless it has gone with its directory, or is that file's own.
        if self._lock is not None and not (is_regular and self._lock.is_of(self.path)):
            self._lock.release()
            self._lock = None
        if is_regular:
            self._lock = self._lock or FileLock(self.path)
            self._lock.note(status.st_ino)

    def _append(self, data: bytes, what: str) -> None:
        """Appends whole lines; what could be written only in part is taken back."""
        written = os.write(self._file, data)
        if written != len(data):
            # From where the file ends now: it is shorter than what was written if somebody has emptied it.
            os.ftruncate(self._file, os.fstat(self._file).st_size - written)
            raise OSError(f"{self.path}: no room for {what}; they were not written")
        self._end += written

    @property
    def is_removed(self) -> bool:
        """Whether the open file has no name any more: what is written to it is gone when it is closed."""
        return self._file >= 0 and os.fstat(self._file).st_nlink == 0

    def _close_to_open_anew(self) -> None:
        """Closes it, and goes on as the only writer of what is made under its name."""
        with unforked:
            if self._file >= 0:
                os.close(self._file)
                self._file, self._end = -1, 0

    def _close(self) -> None:
        """Closes it and gives the lock up. Idempotent."""
        with unforked:
            self._close_to_open_anew()
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def abandon(self) -> None:
        """Closes it in this process only, such as a forked child: the lock stays."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._lock is not None:
            self._lock.abandon()
            self._lock = None
