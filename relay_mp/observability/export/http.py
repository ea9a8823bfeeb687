"""Sending over HTTP: one receiver, one connection that is kept, statuses sorted into retry and refusal.

Used by the threads of batch queues, never by the dispatcher's. The standard library's client: it needs no
more than POST, headers, a deadline, and a proxy where the environment names one:

    http:   ──▶ proxy: POST http://receiver/path      RFC 9112, section 3.2.2, "absolute-form"
    https:  ──▶ proxy: CONNECT receiver:443 ──▶ TLS with the receiver, of which the proxy sees nothing

The deadline is that of the whole attempt: a receiver that answers byte by byte does not hold it up. A socket's timeout
is that of each read, and so is urllib3's: its `total` does not count the body, and a request takes it twice the CPU. So
the sockets here know when to end; `HTTPConnection.connect` is overridden to make them.
"""

import base64
import contextlib
import email.utils
import http.client
import ipaddress
import math
import socket
import ssl
import time
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from relay_mp.observability.export.batch_queue import Refused, Retryable, TooLarge
from relay_mp.observability.export.endpoint import Secrets, authority, check_url, is_loopback, redacted_url

__all__ = ["HttpReceiver", "Proxy", "proxy_of"]

RETRYABLE_STATUSES = frozenset((408, 425, 429, 500, 502, 503, 504))
_TOO_LARGE = b"request body too large"
"""What servers written in Go say with a 400 instead of a 413, OpenTelemetry's collector among them."""

MAX_RETRY_AFTER_SECONDS = 60.0
_KEPT_BODY_BYTES = 64 * 1024
_MAX_LINE_BYTES, _MAX_LINES = 64 * 1024, 100
"""Of a proxy's answer."""
_SHOWN_CHARACTERS = 250

# -------------------------------------------------------------------------------------------- proxies


class Proxy(NamedTuple):
    """Where requests go instead. `headers` are for it alone."""

    host: str
    port: int
    headers: dict[str, str]
    password: str

    @property
    def place(self) -> str:
        """What may be shown of it."""
        return f"http://{authority(self.host, self.port)}"


def proxy_of(url: str) -> Proxy | None:
    """The proxy that the environment names for a URL: HTTP_PROXY, HTTPS_PROXY and NO_PROXY, lower case first.

    A receiver on this machine's loopback has none: no proxy elsewhere reaches it. NO_PROXY may have names, their
    domains (`.example.org`), addresses, networks (`10.0.0.0/8`) and `*`.

    Raises:
        ValueError: its URL is not an address, or not of the scheme http.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = urllib.request.getproxies()
    found = proxies.get(parts.scheme, "").strip()
    if not found or _is_direct(host, parts.port, proxies.get("no", "")):
        return None
    return _parse_proxy(found if "://" in found else f"http://{found}", f"{parts.scheme.upper()}_PROXY")


def _is_direct(host: str, port: int | None, exceptions: str) -> bool:
    if is_loopback(host) or urllib.request.proxy_bypass(authority(host, port)):
        return True
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        return any(address in network for network in _networks(exceptions))
    return False


def _networks(exceptions: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    found = []
    for text in exceptions.split(","):
        with contextlib.suppress(ValueError):  # it is a name
            found.append(ipaddress.ip_network(text.strip(), strict=False))
    return found


def _parse_proxy(url: str, variable: str) -> Proxy:
    """The URL is not repeated in errors: it may have a password."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.scheme != "http":
        raise ValueError(f"{variable} of the environment has to be http://[user:password@]host[:port] or host:port")
    headers, password = {}, unquote(parts.password or "")
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{password}"
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"
    return Proxy(host, port or http.client.HTTP_PORT, headers, password)


# ---------------------------------------------------------------------------------------- connections


class _Socket(socket.socket):
    """A socket whose reads and writes end at one time, `ends`, by the monotonic clock."""

    ends = 0.0

    def hurry(self) -> None:
        """Gives the next operation what is left of the time."""
        left = self.ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.settimeout(left)

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """See socket.recv_into. It is what the file of `makefile` reads by."""
        self.hurry()
        return super().recv_into(buffer, nbytes or 0, flags)

    def send(self, data: Any, flags: int = 0) -> int:
        """See socket.send."""
        self.hurry()
        return super().send(data, flags)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """See socket.sendall."""
        self.hurry()
        super().sendall(data, flags)


class _TlsSocket(_Socket, ssl.SSLSocket):
    """The same, for TLS."""


class _Connection(http.client.HTTPConnection):
    """A connection to a receiver, by way of its proxy if it has one. Set `ends` before each request.

    Args:
        host, port: of the receiver; None: the scheme's port.
        proxy: the receiver's.
        context: of TLS, of which its sockets become those here; None: without TLS.
    """

    def __init__(self, host: str, port: int | None, proxy: Proxy | None, context: ssl.SSLContext | None) -> None:
        self.default_port = http.client.HTTP_PORT if context is None else http.client.HTTPS_PORT
        super().__init__(host, port or self.default_port)
        self._proxy = proxy
        self._context = context
        self._ends = 0.0
        self._socket: _Socket | None = None
        if context is not None:
            context.sslsocket_class = _TlsSocket

    def end_at(self, ends: float) -> None:
        """Until when the next request may take, connecting and answer included."""
        self._ends = ends
        if self._socket is not None:
            self._socket.ends = ends

    def connect(self) -> None:
        """See HTTPConnection.connect, which is called where there is no connection."""
        left = max(self._ends - time.monotonic(), 0.001)
        place = (self.host, self.port) if self._proxy is None else self._proxy[:2]
        connected = socket.create_connection(place, left)
        self.sock = self._socket = self._timed(_Socket(fileno=connected.detach()))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is not None:
            if self._proxy is not None:
                _open_tunnel(self.sock, authority(self.host, self.port), self._proxy.headers)
            self._socket.hurry()
            secured = self._context.wrap_socket(self.sock, server_hostname=self.host)
            assert isinstance(secured, _TlsSocket)
            self.sock = self._socket = self._timed(secured)

    def _timed(self, made: _Socket) -> _Socket:
        made.ends = self._ends
        return made


def _open_tunnel(sock: socket.socket, target: str, headers: Mapping[str, str]) -> None:
    """Asks a proxy to pass on what comes next; RFC 9110, section 9.3.6.

    Raises:
        OSError: it does not.
    """
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", *(f"{name}: {value}" for name, value in headers.items())]
    sock.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1"))
    with sock.makefile("rb") as answer:
        _, _, status = answer.readline(_MAX_LINE_BYTES).decode("latin-1").strip().partition(" ")
        if not status.startswith("2"):
            raise OSError(f"Tunnel connection failed: {status}")
        for _ in range(_MAX_LINES):
            if answer.readline(_MAX_LINE_BYTES) in (b"\r\n", b"\n", b""):
                return
    raise OSError(f"Tunnel connection failed: the answer has more than {_MAX_LINES} lines")


# ------------------------------------------------------------------------------------------ receivers


class HttpReceiver:
    """Posts to one URL, through the proxy that the environment names when it is made. One thread at a time.

    Args:
        url: http or https.
        headers: of every request.
        context: of TLS, which is then for this receiver alone; default: the usual one.
        retryable: statuses that are for the moment.

    Raises:
        ValueError: the URL, or the proxy's, is not an address.
    """

    def __init__(
        self,
        url: str,
        headers: dict[str, str],
        *,
        context: ssl.SSLContext | None = None,
        retryable: frozenset[int] = RETRYABLE_STATUSES,
    ) -> None:
        check_url(url)
        parts = urlsplit(url)
        self.url = redacted_url(url)
        self._is_secure = parts.scheme == "https"
        self._host, self._port = str(parts.hostname), parts.port
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._headers = headers
        self._proxy = proxy = proxy_of(url)
        self._place = self.url if proxy is None else f"{self.url} by the proxy {proxy.place}"
        self._secrets = Secrets(headers) if proxy is None else Secrets(headers, proxy.headers, {"": proxy.password})
        if proxy is not None and not self._is_secure:
            self._target = f"http://{authority(self._host, self._port)}{self._target}"
            self._headers = {**headers, **proxy.headers}
        self._context = context
        self._retryable = retryable
        self._connection: _Connection | None = None

    def post(self, body: bytes, content_type: str, timeout_seconds: float, **more_headers: str) -> bytes:
        """Sends one request, and again on a new connection if the kept one was closed meanwhile.

        Returns:
            The body of the answer, of which no more than 64 KiB are read.

        Raises:
            Retryable: it may work later: no connection, a timeout, a status of that kind.
            TooLarge: it may work with a shorter body.
            Refused: it will not.
        """
        headers = {**self._headers, "Content-Type": content_type, **more_headers}
        is_new = self._connection is None
        try:
            status, reason, after, answer = self._request(body, headers, timeout_seconds)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if is_new or isinstance(error, TimeoutError):
                said = self._secrets.hide(str(error))
                raise Retryable(f"{self._place}: {type(error).__name__}: {said}") from error
            return self.post(body, content_type, timeout_seconds, **more_headers)
        if 200 <= status < 300:
            return answer
        said = self._secrets.hide(f"{reason}: {answer.decode('utf-8', 'replace')}")
        message = f"{self._place} answered {status} {said[:_SHOWN_CHARACTERS]}"
        if status in self._retryable:
            raise Retryable(message, _seconds(after))
        is_too_large = status == 413 or (status == 400 and _TOO_LARGE in answer.lower())
        raise (TooLarge if is_too_large else Refused)(message)

    def _request(
        self, body: bytes, headers: dict[str, str], timeout_seconds: float
    ) -> tuple[int, str, str | None, bytes]:
        if self._connection is None:
            context = (self._context or ssl.create_default_context()) if self._is_secure else None
            self._connection = _Connection(self._host, self._port, self._proxy, context)
        connection = self._connection
        connection.end_at(time.monotonic() + timeout_seconds)
        if connection.sock is None:
            connection.connect()
        # A receiver that hangs up before it has it all has mostly said why: an early answer, or an alert of TLS.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            connection.request("POST", self._target, body, headers)
        response = connection.getresponse()
        said = response.read(_KEPT_BODY_BYTES)
        if not response.isclosed():  # longer than anybody has to say: not worth the connection
            self.close()
        return response.status, response.reason, response.getheader("Retry-After"), said

    def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()
            self._connection = None


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After: seconds, or a date; RFC 9110, section 10.2.3."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    if math.isnan(seconds):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)
