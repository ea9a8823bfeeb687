"""Files and directories that only this user may read: how each one is made that the library makes.

    open_file("/tmp/a.jsonl")     made with mode 0600; or there: a regular file of this user's, with this one name
    free_name("/tmp/a.jsonl")     the same name; or, where another user has it, one that nobody can foresee
own_directory("/tmp/copies")  made with mode 0700; or there: this user's, where nobody else writes; or as above

A directory in which everybody may write, such as /tmp, may contain whatever other users have put there. No link in it
is followed, and a file of another user is refused. In any other directory a link is its owner's decision, and followed.

Any process. An existing file keeps its mode.
"""

import os
import stat

__all__ = [
    "DIRECTORY_MODE",
    "FILE_MODE",
    "free_name",
    "is_own_file",
    "make_directories",
    "open_file",
    "own_directory",
    "unforeseen_name",
]

FILE_MODE, DIRECTORY_MODE = 0o600, 0o700

_ATTEMPTS = 8
"""A name may come and go between two looks at it."""


def open_file(path: str, flags: int, *, mode: int = FILE_MODE) -> int:
    """Opens a file to write to; made, with its directories, where there is none.

    Args:
        path: of the file.
        flags: as of `os.open`, without those that make a file.
        mode: of a file that is made, whatever the process's umask.

    Raises:
        OSError: as `os.open`.
        PermissionError: others may write in its directory, and have put something there under this name.
    """
    directory = os.path.dirname(path) or "."
    make_directories(directory)
    is_shared = _is_shared(directory)
    for _ in range(_ATTEMPTS):
        try:
            file = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        except FileExistsError:
            pass
        else:
            if mode != FILE_MODE:
                os.fchmod(file, mode)
            return file
        try:
            return _open_own(path, flags) if is_shared else os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        except FileNotFoundError:
            continue
    raise FileExistsError(f"{path} comes and goes: {_ATTEMPTS} attempts to open or to make it have failed")


def _open_own(path: str, flags: int) -> int:
    if not is_own_file(path):
        raise PermissionError(_refusal(path))
    # Not blocking: it may have become a pipe since.
    file = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not _is_own(os.fstat(file)):
        os.close(file)
        raise PermissionError(_refusal(path))
    return file


def _refusal(path: str) -> str:
    return (
        f"{path} is a link, no regular file, or another user's, in a directory in which everybody may write; expected "
        "no such file, or one of this user's: remove it, or give a directory of your own"
    )


def _is_own(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1


def is_own_file(path: str) -> bool:
    """Whether the name is that of a regular file of this user's, which has no other name; not of a link to one."""
    try:
        return _is_own(os.lstat(path))
    except FileNotFoundError:
        return False


def _is_shared(directory: str) -> bool:
    """Whether others than its owner and its group may write in it."""
    return bool(os.stat(directory).st_mode & stat.S_IWOTH)


def free_name(path: str) -> str:
    """The path, if there is nothing or a file of this user's; else one beside it that nobody can have foreseen."""
    if not os.path.lexists(path) or is_own_file(path):
        return path
    return unforeseen_name(path)


def unforeseen_name(path: str) -> str:
    """A name like that of the path, in the same directory, that nobody else can have taken on purpose."""
    stem, extension = os.path.splitext(path)
    return f"{stem}-{os.urandom(8).hex()}{extension}"


def make_directories(path: str) -> None:
    """Makes a directory and those above it, with DIRECTORY_MODE; those that are there stay as they are.

    Raises:
        OSError: as `os.makedirs`.
    """
    if not os.path.isdir(path):
        above = os.path.dirname(path)
        if above and above != path:
            make_directories(above)
        try:
            os.mkdir(path, DIRECTORY_MODE)
        except FileExistsError:
            if not os.path.isdir(path):
                raise


def own_directory(path: str) -> str:
    """Makes a directory that only this user may look into, or finds it.

    Returns:
        The path, or one beside it that nobody can have foreseen, where another user has that name.

    Raises:
        OSError: none can be made.
    """
    make_directories(os.path.dirname(path) or ".")
    try:
        os.mkdir(path, DIRECTORY_MODE)
    except FileExistsError:
        if not _is_own_directory(path):
            path = unforeseen_name(path)
            os.mkdir(path, DIRECTORY_MODE)
    return path


def _is_own_directory(path: str) -> bool:
    status = os.lstat(path)
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )
