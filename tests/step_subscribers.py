"""Named subscribers for the tests of a dispatcher that is killed: what they saw, whole, whenever they die."""

import json
import os
import signal


class Ledger:
    """Appends a line for each event: seq, pid, whether it is redelivered, name, data."""

    def __init__(self, path):
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)

    def __call__(self, event):
        line = json.dumps([event.seq, event.pid, event.redelivered, event.name, event.data])
        os.write(self._file, line.encode() + b"\n")  # one write: whole

    def close(self):
        os.close(self._file)


class Poisoned(Ledger):
    """A Ledger that kills its process, each time, once it has written an event whose name starts with `kills`."""

    def __init__(self, path, kills):
        super().__init__(path)
        self._kills = kills

    def __call__(self, event):
        super().__call__(event)
        if event.name.startswith(self._kills):
            os.kill(os.getpid(), signal.SIGKILL)


class NeverMade:
    """Its making kills the process, each time."""

    def __init__(self):
        os.kill(os.getpid(), signal.SIGKILL)


def read(path):
    """What a Ledger wrote."""
    with open(path) as file:
        return [json.loads(line) for line in file]
