"""The library and its peers behind one interface: open a channel, consume it, emit into it.

What a call to each really does, and so what its figures mean:

    relay_mp        encodes the event and commits it to shared memory: from then on it survives the process. A
                    dispatcher (a thread of the session's owner here, unless said otherwise) calls the subscriber.
    nemo-relay      builds the event and queues it for a native thread of the same process, which calls the subscriber.
                    A stream for each process: of several producers, each delivers to a callback of its own.
    Queue           multiprocessing.Queue.put appends to a deque; a feeder thread of the same process pickles and
                    writes to a pipe later, under the same GIL. What it has not written dies with the process.
    SimpleQueue     pickles, takes a lock shared by all processes, writes to a pipe of 64 KiB, and blocks when it is
                    full.
    QueueHandler    logging's recipe for many processes: the record is made, formatted and put on a
                    multiprocessing.Queue, as above; a QueueListener in the consumer hands it to a handler.

Onto the queues goes the least that could be called an event: a tuple of name, time and payload, without ids, parents
or order, which favours them.
"""

import importlib
import importlib.util
import logging
import logging.handlers
import operator
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import msgpack  # type: ignore[import-untyped]

from relay_mp import scope, subscribers
from relay_mp._bench.children import Unavailable, forked
from relay_mp._bench.loops import Work
from relay_mp._bench.payloads import EVENT_NAME, record
from relay_mp._session.membership import attach, session
from relay_mp.errors import SubscriberError
from relay_mp.observability.export.base import exporter
from relay_mp.types import ScopeType

RING_BYTES = 16 << 20
OnEvent = Callable[[Any], object]

MARK = "event(name, data={data})"
SCOPE = "with scope(name, kind, input={data}): pass"


def imported(module: str) -> Any:
    """A peer's module.

    Raises:
        Unavailable: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Unavailable(f"not installed ({error})") from None


@dataclass(frozen=True)
class Peer:
    """One way from an emitting call to a callback.

    Attributes:
        one_stream: whether the events of many processes reach one consumer; else each consumes its own.
        read: takes the payload out of what the callback is given.
    """

    name: ClassVar[str]
    one_stream: ClassVar[bool] = True
    read: ClassVar[Callable[[Any], Any]] = operator.itemgetter(2)

    @property
    def title(self) -> str:
        return self.name

    @contextmanager
    def open(self) -> Iterator[Any]:
        """The channel's address: what its consumer and its producers are given; passed to children at their start."""
        yield None

    @contextmanager
    def consume(self, address: Any, on_event: OnEvent) -> Iterator[None]:
        """Calls `on_event` in a thread of this process with each event, as long as the block lasts."""
        raise NotImplementedError

    @contextmanager
    def produce(self, address: Any, payload: Any, verb: str = MARK, data: str = "payload") -> Iterator[Work]:
        """What emits one event from this process. `data`: an expression for its payload.

        The work is settled when what this process has emitted has left it; for the peers whose consumer is in this
        process, when it has been delivered.
        """
        raise NotImplementedError


# ------------------------------------------------------------------------- the library, and its model


@dataclass(frozen=True)
class _Scoped(Peer):
    """nemo-relay and relay_mp have the same verbs."""

    read: ClassVar[Callable[[Any], Any]] = operator.attrgetter("data")

    def library(self) -> Any:
        """Its `scope`, `subscribers` and `ScopeType`."""
        raise NotImplementedError

    @contextmanager
    def consume(self, address: Any, on_event: OnEvent | str) -> Iterator[None]:
        registry = self.library().subscribers
        registry.register("benchmark", on_event)
        yield
        registry.flush()
        registry.deregister("benchmark")

    @contextmanager
    def produce(self, address: Any, payload: Any, verb: str = MARK, data: str = "payload") -> Iterator[Work]:
        library = self.library()
        names = {
            "event": library.scope.event,
            "scope": library.scope.scope,
            "kind": library.ScopeType.Function,
            "name": EVENT_NAME,
            "payload": payload,
            "clock": time.perf_counter_ns,
        }
        yield Work(verb.format(data=data), names, lambda _calls: library.subscribers.flush())


@dataclass(frozen=True)
class Relay(_Scoped):
    """A session of its own.

    Attributes:
        exporters: kinds and arguments of those that are registered beside the subscriber.
    """

    name: ClassVar[str] = "relay_mp"
    dispatcher: str = "thread"
    ring_bytes: int = RING_BYTES
    on_full: str = "block"
    label: str = ""
    exporters: tuple[tuple[str, dict[str, Any]], ...] = ()

    @property
    def title(self) -> str:
        return self.label or self.name

    def library(self) -> Any:
        return SimpleNamespace(scope=scope, subscribers=subscribers, ScopeType=ScopeType)

    @contextmanager
    def open(self) -> Iterator[Any]:
        with session(
            dispatcher=self.dispatcher, ring_bytes=self.ring_bytes, on_full=self.on_full, block_timeout_seconds=60.0
        ) as opened:
            yield opened.handle

    @contextmanager
    def consume(self, address: Any, on_event: OnEvent | str) -> Iterator[None]:
        registered = [exporter(kind, **arguments) for kind, arguments in self.exporters]
        try:
            for number, each in enumerate(registered):
                each.register(f"benchmark exporter {number + 1}")
        except (SubscriberError, OSError) as error:
            raise Unavailable(str(error)) from None
        with super().consume(address, on_event):
            yield
        for each in registered:
            each.shutdown()

    @contextmanager
    def produce(self, address: Any, payload: Any, verb: str = MARK, data: str = "payload") -> Iterator[Work]:
        attach(address)
        with super().produce(address, payload, verb, data) as work:
            yield work


class Nemo(_Scoped):
    name: ClassVar[str] = "nemo-relay"
    one_stream: ClassVar[bool] = False
    module: ClassVar[str] = "nemo_relay"

    def library(self) -> Any:
        return imported(self.module)

    @contextmanager
    def open(self) -> Iterator[Any]:
        if importlib.util.find_spec(self.module) is None:  # not imported here: it might have threads before the fork
            raise Unavailable(f"not installed (no module named {self.module!r})")
        yield None


@dataclass(frozen=True)
class Floor(Peer):
    """No channel: `msgpack.packb` of the record, in the producer's place. What the machine takes of any call there.

    A call after a sleep finds cold caches and a processor that others want as well: a floor for latency under load.
    """

    name: ClassVar[str] = "floor: msgpack.packb, nothing emitted"
    one_stream: ClassVar[bool] = False
    read: ClassVar[Callable[[Any], Any]] = bool

    @contextmanager
    def open(self) -> Iterator[Any]:
        yield []

    @contextmanager
    def consume(self, address: list[OnEvent], on_event: OnEvent) -> Iterator[None]:
        address.append(on_event)
        yield

    @contextmanager
    def produce(self, address: Any, payload: Any, verb: str = MARK, data: str = "payload") -> Iterator[Work]:
        seen = 0

        def settle(calls: int) -> None:
            nonlocal seen
            for _ in range(calls - seen):
                address[0](None)
            seen = calls

        yield Work("packb(record)", {"packb": msgpack.packb, "record": record(payload)}, settle)


# ------------------------------------------------------------------------- queues between processes


@dataclass(frozen=True)
class Queued(Peer):
    """A queue whose items a thread of the consumer takes out."""

    @contextmanager
    def consume(self, address: Any, on_event: OnEvent) -> Iterator[None]:
        thread = threading.Thread(target=self.take, args=(address, on_event))
        thread.start()
        yield
        address.put(None)
        thread.join()

    def take(self, address: Any, on_event: OnEvent) -> None:
        """Until there is a None."""
        for item in iter(address.get, None):
            on_event(item)

    def statement(self, verb: str) -> str:
        if verb is not MARK:
            raise Unavailable("it has no scopes")
        return "put((name, time_ns(), {data}))"

    @contextmanager
    def produce(self, address: Any, payload: Any, verb: str = MARK, data: str = "payload") -> Iterator[Work]:
        names = {"put": address.put, "time_ns": time.time_ns, "clock": time.perf_counter_ns}
        code = self.statement(verb).format(data=data)
        yield Work(code, {**names, "name": EVENT_NAME, "payload": payload})


@dataclass(frozen=True)
class MultiprocessingQueue(Queued):
    name: ClassVar[str] = "multiprocessing.Queue"

    @contextmanager
    def open(self) -> Iterator[Any]:
        channel = forked.Queue()
        yield channel
        channel.close()
        channel.join_thread()


@dataclass(frozen=True)
class SimpleQueue(Queued):
    name: ClassVar[str] = "SimpleQueue"

    @contextmanager
    def open(self) -> Iterator[Any]:
        channel = forked.SimpleQueue()
        yield channel
        channel.close()


class _Forwarding(logging.Handler):
    """Of a QueueListener: hands each record on."""

    def __init__(self, on_event: OnEvent) -> None:
        super().__init__()
        self.emit = on_event  # type: ignore[method-assign, assignment]


@dataclass(frozen=True)
class QueueHandler(MultiprocessingQueue):
    name: ClassVar[str] = "logging QueueHandler"
    read: ClassVar[Callable[[Any], Any]] = operator.attrgetter("payload")

    @contextmanager
    def consume(self, address: Any, on_event: OnEvent) -> Iterator[None]:
        listener = logging.handlers.QueueListener(address, _Forwarding(on_event))
        listener.start()
        yield
        listener.stop()

    @contextmanager
    def produce(self, address: Any, payload: Any, verb: str = MARK, data: str = "payload") -> Iterator[Work]:
        self.statement(verb)
        logger = logging.Logger("benchmark", logging.INFO)
        logger.addHandler(logging.handlers.QueueHandler(address))
        names = {"info": logger.info, "name": EVENT_NAME, "payload": payload, "clock": time.perf_counter_ns}
        yield Work(f"info(name, extra={{'payload': {data}}})", names)


RELAY = Relay()
FLOOR = Floor()
RELAY_PROCESS = Relay(dispatcher="process", label="relay_mp, dispatcher process")
PEERS: list[Peer] = [Nemo(), MultiprocessingQueue(), SimpleQueue(), QueueHandler()]
"""Those that need nothing but the standard library, and nemo-relay, whose vocabulary is this library's."""
