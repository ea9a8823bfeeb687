"""A Unix socket by which two processes of one user meet: the one that listens, and the one that connects.

    Listener(directory)   makes directory/relay_mp-watch-<uid>-<id>/ with mode 0700, and `socket` in it
    connect(path)         only where directory, socket and listener are this user's, and nobody else may look into it

Both ends ask the kernel whose process is at the other one. The interpreter's own `_socket`, whatever gevent or eventlet
makes of `socket`: the library's threads are the system's. Any process.
"""

import _socket
import contextlib
import os
import stat
import struct
import time
from collections.abc import Iterator

from relay_mp._deliver.at_fork import abandon_in_child, unforked
from relay_mp._deliver.private_files import DIRECTORY_MODE
from relay_mp._native import core
from relay_mp._threads import sleep

__all__ = ["NAME_BEGIN", "NO_SIGNAL", "Listener", "connect"]

NAME_BEGIN = "relay_mp-watch-"
"""Of the directory's name: not as segments begin, which are relay_mp-<uid>-..."""

NO_SIGNAL = getattr(_socket, "MSG_NOSIGNAL", 0)
"""A write to who has gone is an error, whatever the program has made of SIGPIPE."""

LONGEST_PATH_BYTES = 100
"""What a socket's address has room for is 108 bytes on Linux, 104 elsewhere."""

LOOK_SECONDS = 0.005
"""Between two looks for who connects."""

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


@contextlib.contextmanager
def _address(path: str) -> Iterator[str]:
    """The path, or a short one to the same place."""
    if len(os.fsencode(path)) <= LONGEST_PATH_BYTES:
        yield path
        return
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{os.path.basename(path)}"
    finally:
        os.close(directory)


def _require_own_peer(connection: _socket.socket, path: str) -> None:
    kind = getattr(_socket, "SO_PEERCRED", None)  # elsewhere than on Linux the directory's mode alone tells
    if kind is None:
        return
    _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(_socket.SOL_SOCKET, kind, _CREDENTIALS.size))
    if uid != os.geteuid():
        raise PermissionError(f"at the other end of {path} is a process of uid {uid}; expected {os.geteuid()}")


def _require_own_place(path: str) -> None:
    directory, place = os.lstat(os.path.dirname(path)), os.lstat(path)
    is_private = stat.S_ISDIR(directory.st_mode) and stat.S_IMODE(directory.st_mode) == DIRECTORY_MODE
    is_own = directory.st_uid == place.st_uid == os.geteuid()
    if not (is_private and is_own and stat.S_ISSOCK(place.st_mode)):
        raise PermissionError(
            f"{path} is not a socket of uid {os.geteuid()} in a directory of its own with mode 0700: directory "
            f"{oct(stat.S_IMODE(directory.st_mode))} of uid {directory.st_uid}, socket of uid {place.st_uid}"
        )


def connect(path: str) -> _socket.socket:
    """A connection to who listens there; it never waits.

    Raises:
        OSError: nobody listens, or has room for one more.
        PermissionError: the directory, the socket or its process is not this user's own.
    """
    _require_own_place(path)
    with unforked:
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.settimeout(0.0)
        with _address(path) as address:
            connection.connect(address)
        _require_own_peer(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


class Listener:
    """A socket in a directory of its own, to which one process at a time connects.

    Args:
        directory: where that is made, such as the segment's: the other process sees it too.

    Raises:
        OSError: nothing can be made there.
    """

    def __init__(self, directory: str, name: str) -> None:
        self._epoch = core.fork_epoch()
        self._directory = os.path.join(directory, f"{NAME_BEGIN}{os.geteuid()}-{name}")
        self.path = os.path.join(self._directory, "socket")
        os.mkdir(self._directory, DIRECTORY_MODE)
        try:
            os.chmod(self._directory, DIRECTORY_MODE)  # whatever the umask has made of it
            with unforked:
                self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
                abandon_in_child(self)
            with _address(self.path) as address:
                self._socket.bind(address)
            self._socket.listen(1)
            self._socket.settimeout(0.0)
        except BaseException:
            self.close()
            raise

    def accept(self, seconds: float) -> _socket.socket | None:
        """The next connection; None if there is none within that time.

        Raises:
            PermissionError: of a process of another user.
        """
        deadline = time.monotonic() + seconds
        while (connection := self._accept_now()) is None:
            if time.monotonic() >= deadline:
                return None
            sleep(LOOK_SECONDS)
        try:
            _require_own_peer(connection, self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    def _accept_now(self) -> _socket.socket | None:
        with unforked:  # a wait inside would hold up each fork
            try:
                number, _ = self._socket._accept()  # type: ignore[attr-defined]
            except BlockingIOError:
                return None
            return _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, number)

    def close(self) -> None:
        """Nobody can connect any more; the directory is gone. In a forked child its descriptor is. Idempotent."""
        self.abandon()
        if self._epoch == core.fork_epoch():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(self._directory)

    def abandon(self) -> None:
        """Closes this process's descriptor, and nothing else."""
        if hasattr(self, "_socket"):
            self._socket.close()
