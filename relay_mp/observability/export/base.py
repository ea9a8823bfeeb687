"""What every exporter is to the program that registers it.

    Exporter (any process: register, deregister, force_flush, shutdown)
        ──▶ subscribers.register(name, "module:attribute", arguments as JSON)
        ──▶ Sink (where the dispatcher runs: takes the events, see sink.py)

An exporter has one sink or several. Each is a subscriber of its own, so that one that fails stops
neither the others nor the application. An exporter holds no state of the stream, so it does not matter
which process it is in, or where the dispatcher runs. A full ring: the events that are dropped never
reach an exporter; they are counted by the session.

A new kind of exporter is an entry point of the group `relay_mp.exporters`: its name is the kind, its
value a callable that takes JSON keyword arguments and returns a `Sink`, or any callback.
"""

import time
from collections.abc import Sequence
from typing import Any

from relay_mp import subscribers
from relay_mp._deliver.named import find
from relay_mp._deliver.reports import ExporterReport
from relay_mp._log import logger
from relay_mp._native.core import fork_epoch
from relay_mp._session.exporting import FLUSH_TIMEOUT_SECONDS, Flushed, is_closed, wait
from relay_mp._session.membership import current_or_default, current_session
from relay_mp.errors import SubscriberError, described_type

__all__ = ["Exporter", "exporter"]


class Exporter:
    """Registers sinks with the session, flushes them and shuts them down.

    Args:
        sinks: for each a pair: the name of its factory, "module:attribute", and its arguments, JSON types only.

    Raises:
        TypeError: an item is not such a pair.
    """

    def __init__(self, sinks: Sequence[tuple[str, dict[str, Any]]]) -> None:
        self._sinks = [_checked_pair(sink) for sink in sinks]
        self._names: list[str] = []
        self._ended: list[str] = []
        self._reported: list[str] = []
        self._shut_down = False
        self._epoch = fork_epoch()

    def _describe(self) -> str:
        return f"this {type(self).__name__}"

    def _prepare(self) -> None:
        """Before the sinks are made: what must fail here, at the caller, rather than there."""

    def register(self, name: str) -> None:
        """Exports the events emitted from now on.

        Starts the default session where there is none. Of several sinks, the first has this name, the
        others `name.2`, `name.3` and so on. In a worker whose session has it already this does nothing, and what this
        object is asked then, such as to shut down, does nothing either; in a notebook it takes an earlier one's place.

        Args:
            name: of the subscriber; see subscribers.register.

        Raises:
            TypeError: the name is not a str.
            SubscriberError: the name is taken, the exporter is shut down or registered already, or a sink
                could not be made.
            OSError: a file cannot be opened.
        """
        subscribers.check_registration(name, print, None)
        if self._shut_down or self._names:
            state = "shut down" if self._shut_down else f"registered as {self._names[0]!r}"
            raise SubscriberError(f"{self._describe()} is {state}; make another one")
        self._epoch = fork_epoch()
        session = current_or_default()
        names = [name, *(f"{name}.{number}" for number in range(2, len(self._sinks) + 1))]
        self._ended += [each for each in names if session.make_way(each)]
        self._await_ended(FLUSH_TIMEOUT_SECONDS)
        if self._sinks and session.is_known(name, self._sinks[0][0]):
            return
        if session.is_recorded:
            self._prepare()
        try:
            for sink, (target, arguments) in zip(names, self._sinks, strict=True):
                session.register(sink, target, arguments, None)
                self._names.append(sink)
        except BaseException:
            self._deregister_all()
            raise
        self._reported = list(self._names)

    def deregister(self, name: str) -> bool:
        """Ends the export: events emitted before are still exported.

        Returns:
            Whether the exporter was registered under that name.
        """
        if not self._names or name != self._names[0] or self._is_copy():
            return False
        return self._deregister_all()

    def _is_copy(self) -> bool:
        """Whether this is a forked child's copy of what its parent has registered; says so."""
        if self._epoch == fork_epoch() or not self._names:
            return False
        logger.warning(
            "exporter %r is not ended: the process that this one was forked from has registered it, and ends it",
            self._names[0],
        )
        return True

    def _deregister_all(self) -> bool:
        names, self._names = self._names, []
        self._ended += names
        found = [subscribers.deregister(name) for name in names]
        return all(found)

    def force_flush(self, timeout: float | None = None) -> bool:
        """Waits until every event emitted before is exported, as far as its sinks can.

        A receiver that does not answer is not an error of the caller's: it is logged and counted.

        Args:
            timeout: seconds; default: the session's, then 10 s for what is on its way to a receiver.

        Returns:
            Whether nothing is on its way any more. What was given up is in `report()`.

        Raises:
            FlushError, FlushTimeoutError: see subscribers.flush.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        subscribers.flush(timeout)
        if deadline is None:
            deadline = time.monotonic() + FLUSH_TIMEOUT_SECONDS
        session = current_session()
        return session is None or wait(session, [*self._names, *self._ended], deadline, Flushed())

    def shutdown(self, timeout: float | None = None) -> None:
        """Deregisters, waits for the last events, closes what is open. Idempotent.

        In a forked child of the process that has registered it, it ends nothing, and says so in the log.

        It also waits in a running event loop, which it blocks meanwhile.

        Args:
            timeout: seconds for what is on its way to a receiver; default 10.

        Raises:
            FlushError, FlushTimeoutError: as `Session.flush`; another shutdown then ends what is left.
        """
        self._shut_down = True
        if self._is_copy():
            return
        self._deregister_all()
        self._await_ended(FLUSH_TIMEOUT_SECONDS if timeout is None else timeout)

    def _await_ended(self, seconds: float) -> None:
        """Returns when the sinks of a registration that has ended are closed, or after `seconds`."""
        session = current_session()
        if self._ended and session is not None and session.is_open:
            session.flush()
            wait(session, self._ended, time.monotonic() + seconds, is_closed)
        self._ended.clear()

    def make_sink(self, **changed: Any) -> Any:
        """Makes the first sink in this process, where the dispatcher runs: what a kind of exporter is made of.

        Args:
            changed: arguments in place of the exporter's own.
        """
        target, arguments = self._sinks[0]
        return find(target, None, "exporter")(**{**arguments, **changed})

    def report(self) -> dict[str, ExporterReport]:
        """What became of what each sink was given since its newest registration, by its name; none where there
        was none, or the session is closed."""
        session = current_session()
        names = self._reported
        reports = session.stats().exporters if session is not None else {}
        return {name: reports[name] for name in names if name in reports}


def _checked_pair(sink: object) -> tuple[str, dict[str, Any]]:
    match sink:
        case (str() as factory, dict() as arguments):
            return factory, arguments
    raise TypeError(
        f"a sink is {_shape(sink)}; expected a pair of its factory and its arguments, such as "
        '("package.module:Class", {"path": "out.txt"}), or ("package.module:Class", {}) without arguments'
    )


def _shape(sink: object) -> str:
    """What it is, without its values, in which there may be secrets."""
    if not isinstance(sink, (tuple, list)):
        return described_type(sink)
    return f"a {type(sink).__name__} of {', '.join(map(described_type, sink)) or 'nothing'}"


def exporter(kind: str, **arguments: Any) -> Exporter:
    """An exporter by its kind: a built-in one, or one that an installed package declares.

    Args:
        kind: the name of an entry point of the group `relay_mp.exporters`.
        arguments: its settings, JSON types only. What is wrong with them is said by `register`.
    """
    return Exporter([("relay_mp.observability.export.kinds:load", {"kind": kind, "arguments": arguments})])
