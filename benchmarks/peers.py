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
    faster-fifo     pickles, takes a lock in shared memory, copies into a ring of the same size as relay_mp's default.
                    It is read in batches (get_many), its fastest way.
    OpenTelemetry   a log record (for a mark) or a span (for a scope) goes into a deque, which a batch processor's
                    thread of the same process exports: to memory here, nothing is encoded and no network counts. The
                    deque holds 2048; what is over that is dropped. A stream for each process.
    QueueHandler    logging's recipe for many processes: the record is made, formatted and put on a
                    multiprocessing.Queue, as above; a QueueListener in the consumer hands it to a handler.

Onto the queues goes the least that could be called an event: a tuple of name, time and payload, without ids, parents
or order, which favours them.
"""

import importlib
import logging
import operator
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import msgpack

import relay_mp
from benchmarks.harness import Unavailable, children
from benchmarks.loops import Work
from benchmarks.payloads import EVENT_NAME, record

RING_BYTES = 16 << 20
OnEvent = Callable[[Any], object]

MARK = "event(name, data={data})"
SCOPE = "with scope(name, kind, input={data}): pass"


def _imported(module: str) -> Any:
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

    @contextmanager
    def consume(self, address: Any, on_event: OnEvent | str) -> Iterator[None]:
        subscribers = _imported(self.name.replace("-", "_")).subscribers
        subscribers.register("benchmark", on_event)
        yield
        subscribers.flush()
        subscribers.deregister("benchmark")

    @contextmanager
    def produce(self, address: Any, payload: Any, verb: str = MARK, data: str = "payload") -> Iterator[Work]:
        library = _imported(self.name.replace("-", "_"))
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
    """A session of its own."""

    name: ClassVar[str] = "relay_mp"
    dispatcher: str = "thread"
    ring_bytes: int = RING_BYTES
    on_full: str = "block"
    label: str = ""

    @property
    def title(self) -> str:
        return self.label or self.name

    @contextmanager
    def open(self) -> Iterator[Any]:
        with relay_mp.session(
            dispatcher=self.dispatcher, ring_bytes=self.ring_bytes, on_full=self.on_full, block_timeout_seconds=60.0
        ) as session:
            yield session.handle

    @contextmanager
    def produce(self, address: Any, payload: Any, verb: str = MARK, data: str = "payload") -> Iterator[Work]:
        relay_mp.attach(address)
        with super().produce(address, payload, verb, data) as work:
            yield work


class Nemo(_Scoped):
    name: ClassVar[str] = "nemo-relay"
    one_stream: ClassVar[bool] = False


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
class _Queued(Peer):
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
class MultiprocessingQueue(_Queued):
    name: ClassVar[str] = "multiprocessing.Queue"

    @contextmanager
    def open(self) -> Iterator[Any]:
        channel = children.Queue()
        yield channel
        channel.close()
        channel.join_thread()


@dataclass(frozen=True)
class SimpleQueue(_Queued):
    name: ClassVar[str] = "SimpleQueue"

    @contextmanager
    def open(self) -> Iterator[Any]:
        channel = children.SimpleQueue()
        yield channel
        channel.close()


@dataclass(frozen=True)
class FasterFifo(_Queued):
    name: ClassVar[str] = "faster-fifo"

    @contextmanager
    def open(self) -> Iterator[Any]:
        yield _imported("faster_fifo").Queue(max_size_bytes=RING_BYTES)

    def take(self, address: Any, on_event: OnEvent) -> None:
        while True:
            try:
                items = address.get_many(timeout=1.0)
            except queue.Empty:
                continue
            for item in items:
                if item is None:
                    return
                on_event(item)

    def statement(self, verb: str) -> str:
        return super().statement(verb).replace("))", "), timeout=60.0)")


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
        handlers = importlib.import_module("logging.handlers")
        listener = handlers.QueueListener(address, _Forwarding(on_event))
        listener.start()
        yield
        listener.stop()

    @contextmanager
    def produce(self, address: Any, payload: Any, verb: str = MARK, data: str = "payload") -> Iterator[Work]:
        self.statement(verb)
        logger = logging.Logger("benchmark", logging.INFO)
        logger.addHandler(importlib.import_module("logging.handlers").QueueHandler(address))
        names = {"info": logger.info, "name": EVENT_NAME, "payload": payload, "clock": time.perf_counter_ns}
        yield Work(f"info(name, extra={{'payload': {data}}})", names)


# ------------------------------------------------------------------------- OpenTelemetry


@dataclass(frozen=True)
class OpenTelemetry(Peer):
    """Logs and spans of one SDK. Its consumer must be where its producer is: `consume` leaves the callback here."""

    name: ClassVar[str] = "OpenTelemetry SDK"
    one_stream: ClassVar[bool] = False
    read: ClassVar[Callable[[Any], Any]] = staticmethod(lambda item: item.log_record.body)

    @contextmanager
    def open(self) -> Iterator[Any]:
        _imported("opentelemetry.sdk._logs.export")
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # each dropped record is a line there
        yield _Callback()

    @contextmanager
    def consume(self, address: "_Callback", on_event: OnEvent) -> Iterator[None]:
        address.on_event = on_event
        yield

    @contextmanager
    def produce(self, address: "_Callback", payload: Any, verb: str = MARK, data: str = "payload") -> Iterator[Work]:
        make = self._spans if verb is SCOPE else self._logs
        provider, code, names = make(address)
        names |= {"name": EVENT_NAME, "payload": payload, "time_ns": time.time_ns, "clock": time.perf_counter_ns}
        yield Work(code.format(data=data), names, lambda _calls: provider.force_flush())
        provider.shutdown()

    def _logs(self, address: "_Callback") -> tuple[Any, str, dict[str, Any]]:
        logs, export = _imported("opentelemetry.sdk._logs"), _imported("opentelemetry.sdk._logs.export")
        provider = logs.LoggerProvider()
        exporter = _exporter(export.LogRecordExporter, export.LogRecordExportResult.SUCCESS, address)
        provider.add_log_record_processor(export.BatchLogRecordProcessor(exporter))
        names = {"emit": provider.get_logger("benchmark").emit}
        return provider, "emit(event_name=name, timestamp=time_ns(), body={data})", names

    def _spans(self, address: "_Callback") -> tuple[Any, str, dict[str, Any]]:
        trace, export = _imported("opentelemetry.sdk.trace"), _imported("opentelemetry.sdk.trace.export")
        provider = trace.TracerProvider()
        exporter = _exporter(export.SpanExporter, export.SpanExportResult.SUCCESS, address)
        provider.add_span_processor(export.BatchSpanProcessor(exporter))
        names = {"span": provider.get_tracer("benchmark").start_as_current_span}
        return provider, "with span(name, attributes={data}): pass", names


class _Callback:
    """Where this process' exporter hands its records."""

    on_event: OnEvent = staticmethod(lambda _item: None)


def _exporter(base: type, success: Any, callback: _Callback) -> Any:
    """An exporter into this process' memory."""

    def export(_self: Any, batch: Any) -> Any:
        for item in batch:
            callback.on_event(item)
        return success

    methods = {"export": export, "shutdown": lambda _self: None, "force_flush": lambda _self, _timeout=0: True}
    return type("InMemory", (base,), methods)()


RELAY = Relay()
FLOOR = Floor()
RELAY_PROCESS = Relay(dispatcher="process", label="relay_mp, dispatcher process")
QUEUES: list[Peer] = [MultiprocessingQueue(), SimpleQueue(), FasterFifo()]
PEERS: list[Peer] = [Nemo(), *QUEUES, OpenTelemetry(), QueueHandler()]
