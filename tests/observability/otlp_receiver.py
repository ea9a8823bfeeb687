"""A real OTLP receiver, http/protobuf or gRPC, that can misbehave: what OpenTelemetry exporters send to in the tests.

exporter ──▶ [Cutter, gRPC only] ──▶ server on a loopback port ──▶ requests, parsed by opentelemetry-proto
"""

import contextlib
import gzip
import select
import socket
import ssl
import threading
from collections import deque
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from receiver import WAIT_SECONDS, Receiver

PROTOCOLS = ("http/protobuf", "grpc")

OUTCOMES: dict[str, tuple[int, grpc.StatusCode]] = {
    "refused": (400, grpc.StatusCode.INVALID_ARGUMENT),
    "throttled": (429, grpc.StatusCode.RESOURCE_EXHAUSTED),
    "unavailable": (503, grpc.StatusCode.UNAVAILABLE),
}
"""What a receiver answers that takes nothing, in both protocols' words."""


class Signal(NamedTuple):
    """One of OTLP's three, and where its messages keep what they carry."""

    path: str
    request: Any
    response: Any
    rejected: str
    resources: str
    scopes: str
    items: str


SIGNALS = {
    "traces": Signal(
        "/v1/traces", trace_service_pb2.ExportTraceServiceRequest, trace_service_pb2.ExportTraceServiceResponse,
        "rejected_spans", "resource_spans", "scope_spans", "spans",
    ),
    "logs": Signal(
        "/v1/logs", logs_service_pb2.ExportLogsServiceRequest, logs_service_pb2.ExportLogsServiceResponse,
        "rejected_log_records", "resource_logs", "scope_logs", "log_records",
    ),
    "metrics": Signal(
        "/v1/metrics", metrics_service_pb2.ExportMetricsServiceRequest,
        metrics_service_pb2.ExportMetricsServiceResponse,
        "rejected_data_points", "resource_metrics", "scope_metrics", "metrics",
    ),
}  # fmt: skip


class Sent(NamedTuple):
    """A span, log record or metric, with what it came under."""

    item: Any
    resource: dict[str, Any]
    scope: Any


def plain(value):
    """An AnyValue as Python has it."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(one) for one in value.array_value.values]
    if kind == "kvlist_value":
        return attributes(value.kvlist_value.values)
    return getattr(value, kind) if kind else None


def attributes(pairs):
    """A list of KeyValue as a dict; a key that is there twice is an error of the exporter's."""
    found = {pair.key: plain(pair.value) for pair in pairs}
    assert len(found) == len(pairs), [pair.key for pair in pairs]
    return found


class ServerTls(NamedTuple):
    """What a receiver shows, and whom it lets in. Files of PEM."""

    chain: str
    key: str
    clients: str | None = None
    """Authorities one of which has to have signed the client's certificate; None: it needs none."""

    def context(self):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.clients)
        context.load_cert_chain(self.chain, self.key)
        context.verify_mode = ssl.CERT_REQUIRED if self.clients else ssl.CERT_NONE
        return context

    def credentials(self):
        key, chain = Path(self.key).read_bytes(), Path(self.chain).read_bytes()
        clients = Path(self.clients).read_bytes() if self.clients else None
        return grpc.ssl_server_credentials([(key, chain)], clients, require_client_auth=clients is not None)


class OtlpReceiver:
    """Keeps the requests it has acknowledged. `plan` says what to do with the next ones, of any signal, in order:

    "refused", "throttled", "unavailable"   answers so, see OUTCOMES
    ("throttled", 3)                        the same, asking to be left alone for 3 s (Retry-After, RetryInfo)
    an HTTP status or grpc.StatusCode       answers it; it is for the protocol in hand
    "cut"                                   closes the connection: over HTTP when half of the request is there, over
                                            gRPC when all of it is and before the answer
    "stall"                                 answers nothing; closes the connection when `release` is set
    ("partial", 2, "why")                   takes it, and says that it has rejected two of the items
    Afterwards, takes all. `down()` closes the port, so that connections are refused; `up()` opens it again.

    Args:
        protocol: one of PROTOCOLS.
        plan: see above.
        port: to listen on; 0: a free one.
        tls: a ServerTls; None: without.
    """

    def __init__(self, protocol="http/protobuf", plan=(), port=0, tls=None):
        assert protocol in PROTOCOLS
        self.protocol = protocol
        self.plan = deque(plan)
        self.received = {signal: [] for signal in SIGNALS}
        self.headers = []
        self.requests = 0
        self.release = threading.Event()
        self.arrived = threading.Semaphore(0)
        self._changed = threading.Condition()
        self._port = port
        self._tls = tls
        self._server = None
        self.up()

    # ---- what has come ----

    def sent(self, signal):
        """The items of all acknowledged requests of a signal, in the order of arrival."""
        names = SIGNALS[signal]
        return [
            Sent(item, attributes(of_resource.resource.attributes), of_scope.scope)
            for request in list(self.received[signal])
            for of_resource in getattr(request, names.resources)
            for of_scope in getattr(of_resource, names.scopes)
            for item in getattr(of_scope, names.items)
        ]

    @property
    def spans(self):
        return [sent.item for sent in self.sent("traces")]

    @property
    def logs(self):
        return [sent.item for sent in self.sent("logs")]

    @property
    def metrics(self):
        return [sent.item for sent in self.sent("metrics")]

    def await_request(self):
        """Returns when one more request has come, whatever became of it."""
        assert self.arrived.acquire(timeout=WAIT_SECONDS)

    def await_acknowledged(self, signal, count=1):
        """Returns when that many requests of a signal were acknowledged."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.received[signal]) >= count, WAIT_SECONDS)

    # ---- the port ----

    @property
    def endpoint(self):
        """Of the receiver, without a signal's path."""
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    @property
    def port(self):
        return self._port

    def url(self, signal):
        """Where a signal is posted to; the same for all over gRPC."""
        return self.endpoint + (SIGNALS[signal].path if self.protocol != "grpc" else "")

    def up(self):
        """Listens, on the port that it had before."""
        server = (_GrpcServer if self.protocol == "grpc" else _HttpServer)(self, self._port, self._tls)
        self._server, self._port = server, server.port

    def down(self):
        """Nobody listens, and connections are closed. Set `release` before, if there are stalled requests."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def close(self):
        self.release.set()
        self.down()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---- the servers' side ----

    def next_step(self, headers):
        """What to do with a request that has begun to arrive."""
        with self._changed:
            self.requests += 1
            self.headers.append(headers)
            step = self.plan.popleft() if self.plan else None
        self.arrived.release()
        if step == "stall":
            self.release.wait(WAIT_SECONDS)
        return step

    def accept(self, signal, request, step):
        """Keeps a request; returns the message that acknowledges it."""
        names = SIGNALS[signal]
        response = names.response()
        if isinstance(step, tuple) and step[0] == "partial":
            setattr(response.partial_success, names.rejected, step[1])
            response.partial_success.error_message = step[2]
        with self._changed:
            self.received[signal].append(request)
            self._changed.notify_all()
        return response


def _outcome(step):
    """(step of the plan) -> (status over HTTP, status over gRPC, seconds to be left alone); None: take it."""
    step, seconds = step[:2] if isinstance(step, tuple) else (step, None)
    if step is None or step == "partial":
        return None
    return (*OUTCOMES[step], seconds) if isinstance(step, str) else (step, step, seconds)


class _HttpServer(Receiver):
    """OTLP/HTTP: one path a signal, protobuf, gzip or not."""

    def __init__(self, owner, port, tls):
        self._owner = owner
        super().__init__(port=port, tls=tls and tls.context())
        self.port = self._server.server_port

    def next_step(self, handler):
        handler.step = step = self._owner.next_step(dict(handler.headers))
        if step in ("cut", "stall"):
            self.release.set()  # the owner has waited for its own
            return step
        outcome = _outcome(step)
        if outcome is None:
            return 200
        status, _, seconds = outcome
        return status, {} if seconds is None else {"Retry-After": str(seconds)}

    def acknowledge(self, handler, body):
        signal = next(signal for signal, names in SIGNALS.items() if names.path == handler.path)
        assert handler.headers["Content-Type"] == "application/x-protobuf"
        if handler.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        request = SIGNALS[signal].request.FromString(body)
        return self._owner.accept(signal, request, handler.step).SerializeToString()


class _GrpcServer:
    """OTLP/gRPC: the generated services, behind a Cutter."""

    def __init__(self, owner, port, tls):
        self._owner = owner
        self._threads = futures.ThreadPoolExecutor(4)
        self._server = grpc.server(self._threads, options=[("grpc.max_receive_message_length", 64 * 1024 * 1024)])
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Service("traces", self), self._server)
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(_Service("logs", self), self._server)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Service("metrics", self), self._server)
        if tls is None:
            behind = self._server.add_insecure_port("127.0.0.1:0")
        else:
            behind = self._server.add_secure_port("127.0.0.1:0", tls.credentials())
        self._server.start()
        self._cutter = Cutter(behind, port)
        self.port = self._cutter.port

    def export(self, signal, request, context):
        step = self._owner.next_step(dict(context.invocation_metadata()))
        if step == "cut":
            self._cutter.cut()
        if step in ("cut", "stall"):
            context.abort(grpc.StatusCode.CANCELLED, "nobody hears this")
        if (outcome := _outcome(step)) is not None:
            _, code, seconds = outcome
            if seconds is not None:
                context.set_trailing_metadata(_retry_info(code, seconds))
            context.abort(code, f"because of {code.name}: {dict(context.invocation_metadata())}")
        return self._owner.accept(signal, request, step)

    def close(self):
        self._cutter.close()
        self._server.stop(None).wait(WAIT_SECONDS)
        self._threads.shutdown()


class _Service:
    """One of the three services: they differ in the messages only."""

    def __init__(self, signal, server):
        self._signal, self._server = signal, server

    def Export(self, request, context):
        return self._server.export(self._signal, request, context)


def _retry_info(code, seconds):
    """How long to wait: in a `google.rpc.Status`, as OTLP has it, and alone, where the official client looks."""
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromNanoseconds(int(seconds * 1e9))
    status = status_pb2.Status(code=code.value[0])
    status.details.add().Pack(info)
    return (
        ("grpc-status-details-bin", status.SerializeToString()),
        ("google.rpc.retryinfo-bin", info.SerializeToString()),
    )


class Cutter:
    """A TCP port that passes on to another, until it is told to cut: gRPC's server cannot break a connection itself.

    Args:
        behind: the port on 127.0.0.1 that it passes on to.
        port: its own; 0: a free one.
    """

    def __init__(self, behind, port=0):
        self._behind = behind
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self._wake_end, self._wake = socket.socketpair()
        self._pairs = {}
        self._lock = threading.Lock()
        self._is_open = True
        self._thread = threading.Thread(target=self._run, name="cutter", daemon=True)
        self._thread.start()

    def cut(self):
        """Resets every connection, whatever is on its way."""
        with self._lock:
            for connection in self._pairs:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self):
        """Ends: refuses connections, closes those there are."""
        self._wake.send(b"x")  # before the flag: the thread closes this end when it has seen that
        self._is_open = False
        self._thread.join(WAIT_SECONDS)
        self._wake.close()
        self._wake_end.close()

    def _run(self):
        while self._is_open:
            readable, _, _ = select.select([self._listener, self._wake_end, *self._pairs], [], [], WAIT_SECONDS)
            for one in readable:
                if one is self._listener:
                    self._connect()
                elif one is not self._wake_end and one in self._pairs:
                    self._pass_on(one)
        for one in [*self._pairs, self._listener]:
            one.close()

    def _connect(self):
        connection, _ = self._listener.accept()
        onward = socket.create_connection(("127.0.0.1", self._behind))
        with self._lock:
            self._pairs[connection], self._pairs[onward] = onward, connection

    def _pass_on(self, one):
        other = self._pairs[one]
        try:
            data = one.recv(1 << 16)
            other.sendall(data)
        except OSError:
            data = b""
        if not data:
            with self._lock:
                for end in (one, other):
                    del self._pairs[end]
                    end.close()
