"""Subscribers that are named rather than passed, for wherever the dispatcher runs; and how to read what they saw."""

import json
import os
import signal
from io import FileIO
from pathlib import Path
from typing import Any

from relay_mp import scope, subscribers


class Lines:
    """Appends a line for each event: its name, its pid, whether it is redelivered, the dispatcher's pid."""

    def __init__(self, path: str, padding: str = "") -> None:
        self._path = path

    def __call__(self, event: Any) -> None:
        line = json.dumps([event.name, event.pid, event.redelivered, os.getpid()]) + "\n"
        with open(self._path, "a+b", buffering=0) as file:
            if event.redelivered:
                cut_half_a_line(file)
            file.write(line.encode())


def cut_half_a_line(file: FileIO) -> None:
    """A dispatcher that is killed in a write leaves a part of it, if that goes over a page's end."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 4096, 0))
    rest = file.read().rpartition(b"\n")[2]
    file.truncate(size - len(rest))


def read(path: Path) -> list[list[Any]]:
    """What Lines wrote."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def names(path: Path) -> list[str]:
    """The names of the events that Lines wrote."""
    return [fields[0] for fields in read(path)]


class Hold(Lines):
    """Lines that, on each mark `hold`, says so through one FIFO and waits for a byte from the other."""

    def __init__(self, path: str, entered: str, release: str) -> None:
        super().__init__(path)
        self._entered, self._release = entered, release

    def __call__(self, event: Any) -> None:
        if event.name == "hold" and not event.redelivered:
            with open(self._entered, "wb") as fifo:
                fifo.write(b"x")
            with open(self._release, "rb") as fifo:
                fifo.read(1)
        super().__call__(event)


class Dies(Lines):
    """Lines that kills its own process on the first mark `die`, or `at`, after it has written it."""

    def __init__(self, path: str, at: str = "die") -> None:
        super().__init__(path)
        self._at = at

    def __call__(self, event: Any) -> None:
        super().__call__(event)
        if event.name == self._at and not event.redelivered:
            os.kill(os.getpid(), signal.SIGKILL)


class MovesAndDies(Lines):
    """Lines that moves another file aside on each mark `die`, and then kills its own process."""

    def __init__(self, path: str, file: str) -> None:
        super().__init__(path)
        self._file = Path(file)

    def __call__(self, event: Any) -> None:
        super().__call__(event)
        if event.name == "die" and not event.redelivered:
            aside = len(list(self._file.parent.glob("events-*")))
            self._file.rename(self._file.with_name(f"events-{aside}.jsonl"))
            os.kill(os.getpid(), signal.SIGKILL)


class DiesWhileItIsMade(Lines):
    """Lines whose first making kills the dispatcher."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        mark = Path(path + ".made")
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Emits(Lines):
    """Lines that answers each mark `question` with a mark `answer`."""

    def __call__(self, event: Any) -> None:
        super().__call__(event)
        if event.name == "question":
            scope.event("answer")


class Changes(Lines):
    """Lines that registers another on a mark `more`, and itself off on a mark `enough`."""

    def __call__(self, event: Any) -> None:
        super().__call__(event)
        if event.name == "more":
            subscribers.register("other", "named_subscribers:Lines", arguments={"path": self._path + ".other"})
        if event.name == "enough":
            assert subscribers.deregister("self")


class Forks(Lines):
    """Lines that forks on the marks `fork and exit` and `fork and return`."""

    def __call__(self, event: Any) -> None:
        super().__call__(event)
        if event.name.startswith("fork"):
            pid = os.fork()
            if pid == 0:
                scope.event("from the child")
                if event.name == "fork and exit":
                    os._exit(0)
                return
            os.waitpid(pid, 0)


def ignores(_event: Any) -> None:
    """Sees everything, does nothing."""


def raises(event: Any) -> None:
    """Raises, and what it should not."""
    raise SystemExit(3) if event.name == "exit" else RuntimeError("no use")


not_callable = 3


def broken_factory() -> None:
    """Makes no callback."""
    raise LookupError("nothing here")


class Closes:
    """Says when it is closed."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self, event: Any) -> None:
        pass

    def close(self) -> None:
        """Called after the last event."""
        with open(self._path, "a") as file:
            file.write("closed\n")
