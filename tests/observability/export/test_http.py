"""An attempt over HTTP ends at its deadline, whatever the other side does: receivers that go on and on, a proxy."""

import itertools
import socket
import ssl
import threading

import pytest
import trustme

from relay_mp.observability.export import http
from relay_mp.observability.export.batch_queue import Refused, Retryable
from relay_mp.observability.export.http import HttpReceiver

BRIEF_SECONDS = 0.3
LEISURE_SECONDS = 30.0
DRIP_SECONDS = 0.01
LARGE = b"x" * (64 << 20)
"""More than the buffers of two sockets hold."""


class Peer:
    """A server of one behaviour on a loopback port, over TLS if it has a context.

    Args:
        behave: called with each connection, in a thread of its own, and with what is set when the test is over.
        context: of the server's TLS.
    """

    def __init__(self, behave, context=None):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._behave, self._context, self._over = behave, context, threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _serve(self, connection):
        with connection:
            try:
                if self._context is not None:
                    connection = self._context.wrap_socket(connection, server_side=True)
                self._behave(connection, self._over)
            except OSError:  # the other side has had enough
                pass

    def __enter__(self):
        self._threads[0].start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(LEISURE_SECONDS)
            assert not thread.is_alive()


def received(connection):
    """What comes next, or the end of the connection's thread."""
    read = connection.recv(1 << 16)
    if not read:
        raise OSError("the other side has hung up")
    return read


def head_of(connection):
    """Reads up to the end of a request's head; returns it, and what came behind it."""
    read = b""
    while b"\r\n\r\n" not in read:
        read += received(connection)
    head, _, rest = read.partition(b"\r\n\r\n")
    return head, rest


def request_of(connection):
    """Reads a whole request."""
    head, body = head_of(connection)
    (length,) = [int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length")]
    while len(body) < length:
        body += received(connection)
    return head, body


def dripping(before):
    """Answers byte by byte, without an end."""

    def behave(connection, over):
        head_of(connection)
        connection.sendall(before)
        while not over.wait(DRIP_SECONDS):
            connection.sendall(b"x")

    return behave


def sipping(connection, over):
    """Reads a few bytes at a time."""
    while not over.wait(DRIP_SECONDS) and connection.recv(100):
        pass


@pytest.fixture
def contexts():
    """Of a server's TLS, and of a client that trusts it."""
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1", "collector.example").configure_cert(server)
    authority.configure_trust(client)
    return server, client


BEHAVIOURS = {
    "status": dripping(b"HTTP/1.1 20"),
    "headers": dripping(b"HTTP/1.1 200 OK\r\nX-Long: "),
    "body": dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"),
    "body without a length": dripping(b"HTTP/1.1 200 OK\r\n\r\n"),
    "reads slowly": sipping,
}


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_an_attempt_ends_whatever_the_receiver_does(contexts, scheme, behaviour):
    server, client = contexts if scheme == "https" else (None, None)
    body = LARGE if behaviour == "reads slowly" else b"body"
    with Peer(BEHAVIOURS[behaviour], server) as peer:
        receiver = HttpReceiver(f"{scheme}://127.0.0.1:{peer.port}/", {}, context=client)
        with pytest.raises(Retryable, match="TimeoutError"):
            receiver.post(body, "text/plain", BRIEF_SECONDS)
        receiver.close()


@pytest.mark.parametrize("before", [b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nX-Long: "])
def test_an_attempt_ends_whatever_the_proxy_does(monkeypatch, contexts, before):
    with Peer(dripping(before)) as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        receiver = HttpReceiver("https://collector.example/", {}, context=contexts[1])
        with pytest.raises(Retryable, match="TimeoutError"):
            receiver.post(b"body", "text/plain", BRIEF_SECONDS)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 101 + b"\r\n", b"HTTP/1.1 502 No\r\n\r\n", b"\r\n", b""]
)
def test_a_proxy_that_opens_no_tunnel_is_said_to(monkeypatch, contexts, answer):
    with Peer(lambda connection, over: (head_of(connection), connection.sendall(answer))) as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        receiver = HttpReceiver("https://collector.example/", {}, context=contexts[1])
        with pytest.raises(Retryable, match="OSError: Tunnel connection failed"):
            receiver.post(b"body", "text/plain", LEISURE_SECONDS)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_connection_is_kept_and_each_request_has_the_time_it_is_given(contexts, scheme):
    """Also after one that ended late, and on a connection that the receiver has closed meanwhile."""
    server, client = contexts if scheme == "https" else (None, None)
    heads, connections = [], itertools.count(1)

    def behave(connection, over):
        number = next(connections)
        for request in range(3):
            heads.append((number, request_of(connection)[0]))
            if (number, request) == (1, 1):
                over.wait(LEISURE_SECONDS)
                return
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with Peer(behave, server) as peer:
        receiver = HttpReceiver(f"{scheme}://127.0.0.1:{peer.port}/v1?q=1", {"api-key": "k"}, context=client)
        assert receiver.post(b"1", "text/plain", LEISURE_SECONDS) == b"ok"
        with pytest.raises(Retryable, match="TimeoutError"):
            receiver.post(b"2", "text/plain", BRIEF_SECONDS)
        for body in (b"3", b"4", b"5", b"6"):
            assert receiver.post(body, "text/plain", LEISURE_SECONDS) == b"ok"
        receiver.close()
    assert [number for number, _ in heads] == [1, 1, 2, 2, 2, 3]
    lines = heads[0][1].decode().split("\r\n")
    assert lines[0] == "POST /v1?q=1 HTTP/1.1"
    assert f"Host: 127.0.0.1:{peer.port}" in lines
    assert "api-key: k" in lines


def test_a_refusal_that_comes_before_all_is_sent_is_read():
    def behave(connection, over):
        head_of(connection)
        connection.sendall(b"HTTP/1.1 413 Too large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlong")
        connection.shutdown(socket.SHUT_WR)
        while not over.is_set() and connection.recv(1 << 20):
            pass

    with Peer(behave) as peer:
        receiver = HttpReceiver(f"http://127.0.0.1:{peer.port}/", {})
        with pytest.raises(Refused, match="413 Too large: long"):
            receiver.post(LARGE, "text/plain", LEISURE_SECONDS)


@pytest.mark.parametrize(("context", "port"), [(None, 80), (ssl.create_default_context(), 443)])
@pytest.mark.parametrize("host", ["::1", "127.0.0.1", "collector.example"])
def test_a_port_that_is_not_said_is_the_schemes(host, context, port):
    connection = http._Connection(host, None, None, context)
    assert (connection.host, connection.port) == (host, port)
