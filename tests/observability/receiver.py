"""A real HTTP receiver in a thread, that can misbehave: what exporters post to in the tests."""

import contextlib
import http.server
import json
import os
import socket
import ssl
import threading
import time
from collections import deque

WAIT_SECONDS = 30


class Receiver:
    """Keeps the bodies it has acknowledged. `plan` says what to do with the next requests, in order:

    a status        answers it
    (status, {})    the same, with headers
    "cut"           reads half of the body, closes the connection
    "stall"         reads the body, then answers nothing until `release` is set
    "drip"          reads the body, then answers byte by byte, some a second and without an end, until `release` is set
    Afterwards, 200; or, if it `repeats`, 401 with the request's headers in the answer.

    Args:
        plan: see above.
        port: to listen on; 0: a free one.
        tls: an ssl.SSLContext to serve HTTPS with.
    """

    def __init__(self, plan=(), port=0, tls=None):
        self.plan = deque(plan)
        self.bodies = []
        self.headers = []
        self.seen_headers = []
        self.repeats = False
        self.requests = 0
        self.release = threading.Event()
        self.arrived = threading.Semaphore(0)
        self._connections = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                receiver._connections.append(self.connection)

            def handle_one_request(self):
                try:
                    super().handle_one_request()
                except ssl.SSLError:  # the exporter's side of the handshake, or the server's, was not content
                    self.close_connection = True
                    linger(self.connection)

            def do_POST(self):
                receiver.handle(self)

            def log_message(self, *_arguments):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = False  # so that closing it waits for them
        if tls is not None:  # the handshake is for the thread of the connection
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_port}/events?q=1"

    def next_step(self, _handler):
        return self.plan.popleft() if self.plan else 200

    def handle(self, handler):
        step = self.next_step(handler)
        size = int(handler.headers["Content-Length"])
        self.requests += 1
        self.arrived.release()
        if step == "cut":
            handler.rfile.read(size // 2)
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        body = handler.rfile.read(size)
        if step == "stall":
            self.release.wait(WAIT_SECONDS)
            handler.close_connection = True
            return
        if step == "drip":
            handler.close_connection = True
            with contextlib.suppress(OSError):
                handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
                while not self.release.wait(0.02):
                    handler.wfile.write(b"x")
            return
        self.seen_headers.append(dict(handler.headers))
        status, headers = step if isinstance(step, tuple) else (401 if self.repeats else step, {})
        answer = b"" if status == 200 else f"because of {status}".encode()
        if self.repeats:
            answer = json.dumps(dict(handler.headers)).encode()
        if 200 <= status < 300:
            answer = self.acknowledge(handler, body) or answer
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(answer))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(answer)

    def acknowledge(self, handler, body):
        """Keeps what it takes. Returns the answer's body, if it has one."""
        self.bodies.append(body)
        self.headers.append(dict(handler.headers))

    def await_request(self):
        assert self.arrived.acquire(timeout=WAIT_SECONDS)

    @property
    def events(self):
        return [json.loads(line) for body in self.bodies for line in body.decode().splitlines()]

    @property
    def names(self):
        return [event["name"] for event in self.events]

    def close(self):
        self.release.set()
        self._server.shutdown()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()
        self._thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def linger(connection):
    """Waits for the other end to close: closing with something unread resets, and the alert just sent may be lost."""
    with socket.socket(fileno=os.dup(connection.fileno())) as raw, contextlib.suppress(OSError):
        raw.settimeout(WAIT_SECONDS)
        raw.shutdown(socket.SHUT_WR)
        while raw.recv(1 << 16):
            pass


def wait_until(condition):
    """Returns once it is true."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def closed_port():
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
