"""A dispatcher that stands still at a mark while events gather behind it, so that they come in runs."""

import os

import pytest

from relay_mp import scope, subscribers

PROCESS = pytest.mark.parametrize("session", ["process"], indirect=True)

LOSS = "relay_mp.loss"


class Hold:
    """Stands still, in the dispatcher, at the mark `hold` until `release`."""

    def __init__(self, directory):
        self._fifos = {name: str(directory / name) for name in ("entered", "release")}
        for fifo in self._fifos.values():
            os.mkfifo(fifo)
        arguments = {"path": str(directory / "held"), **self._fifos}
        subscribers.register("hold", "named_subscribers:Hold", arguments=arguments)

    def __enter__(self):
        scope.event("hold")
        with open(self._fifos["entered"], "rb") as fifo:
            fifo.read(1)

    def __exit__(self, *_error):
        with open(self._fifos["release"], "wb") as fifo:
            fifo.write(b"x")


def emit(count):
    for i in range(count):
        scope.event(f"{i}")


def numbers(count):
    return [f"{i}" for i in range(count)]
