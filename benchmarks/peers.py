"""The peers that only the suite compares with: packages of the extra `bench`. `relay_mp._bench.peers` has the others.

What a call to each really does, and so what its figures mean:

    faster-fifo     pickles, takes a lock in shared memory, copies into a ring of the same size as relay_mp's default.
                    It is read in batches (get_many), its fastest way.
    OpenTelemetry   a log record (for a mark) or a span (for a scope) goes into a deque, which a batch processor's
                    thread of the same process exports: to memory here, nothing is encoded and no network counts. The
                    deque holds 2048; what is over that is dropped. A stream for each process.
"""

import logging
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from relay_mp._bench.loops import Work
from relay_mp._bench.payloads import EVENT_NAME
from relay_mp._bench.peers import (
    MARK,
    RING_BYTES,
    SCOPE,
    MultiprocessingQueue,
    Nemo,
    OnEvent,
    Peer,
    Queued,
    QueueHandler,
    SimpleQueue,
    imported,
)


@dataclass(frozen=True)
class FasterFifo(Queued):
    name: ClassVar[str] = "faster-fifo"

    @contextmanager
    def open(self) -> Iterator[Any]:
        yield imported("faster_fifo").Queue(max_size_bytes=RING_BYTES)

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


@dataclass(frozen=True)
class OpenTelemetry(Peer):
    """Logs and spans of one SDK. Its consumer must be where its producer is: `consume` leaves the callback here."""

    name: ClassVar[str] = "OpenTelemetry SDK"
    one_stream: ClassVar[bool] = False
    read: ClassVar[Callable[[Any], Any]] = staticmethod(lambda item: item.log_record.body)

    @contextmanager
    def open(self) -> Iterator[Any]:
        imported("opentelemetry.sdk._logs.export")
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
        logs, export = imported("opentelemetry.sdk._logs"), imported("opentelemetry.sdk._logs.export")
        provider = logs.LoggerProvider()
        exporter = _exporter(export.LogRecordExporter, export.LogRecordExportResult.SUCCESS, address)
        provider.add_log_record_processor(export.BatchLogRecordProcessor(exporter))
        names = {"emit": provider.get_logger("benchmark").emit}
        return provider, "emit(event_name=name, timestamp=time_ns(), body={data})", names

    def _spans(self, address: "_Callback") -> tuple[Any, str, dict[str, Any]]:
        trace, export = imported("opentelemetry.sdk.trace"), imported("opentelemetry.sdk.trace.export")
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


QUEUES: list[Peer] = [MultiprocessingQueue(), SimpleQueue(), FasterFifo()]
PEERS: list[Peer] = [Nemo(), *QUEUES, OpenTelemetry(), QueueHandler()]
