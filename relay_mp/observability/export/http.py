"""Sending over HTTP: one receiver, one connection that is kept, statuses sorted into retry and refusal.

Used by the threads of batch queues, never by the dispatcher's. The standard library's client: it needs no
more than POST, headers, a timeout, and a proxy where the environment names one:

    http:   ──▶ proxy: POST http://receiver/path      RFC 9112, section 3.2.2, "absolute-form"
    https:  ──▶ proxy: CONNECT receiver:443 ──▶ TLS with the receiver, of which the proxy sees nothing
"""

import base64
import contextlib
import email.utils
import http.client
import io
import ipaddress
import math
import socket
import ssl
import time
import urllib.request
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from relay_mp.observability.export.batch_queue import Refused, Retryable
from relay_mp.observability.export.endpoint import Secrets, authority, check_url, is_loopback, redacted_url

__all__ = ["HttpReceiver", "Proxy", "proxy_of"]

RETRYABLE_STATUSES = frozenset((408, 425, 429, 500, 502, 503, 504))
MAX_RETRY_AFTER_SECONDS = 60.0
_KEPT_BODY_BYTES = 64 * 1024
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
        ValueError: its URL is none, or not of the scheme http.
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
        raise ValueError(f"{variable} of the environment is no http://[user:password@]host[:port], or only host:port")
    headers, password = {}, unquote(parts.password or "")
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{password}"
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"
    return Proxy(host, port or http.client.HTTP_PORT, headers, password)


# ------------------------------------------------------------------------------------------ receivers


class HttpReceiver:
    """Posts to one URL, through the proxy that the environment names when it is made. One thread at a time.

    Args:
        url: http or https.
        headers: of every request.
        context: of TLS; default: the usual one.
        retryable: statuses that are for the moment.

    Raises:
        ValueError: the URL, or the proxy's, is none.
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
        self._connection: http.client.HTTPConnection | None = None

    def post(self, body: bytes, content_type: str, timeout_seconds: float, **more_headers: str) -> bytes:
        """Sends one request, and again on a new connection if the kept one was closed meanwhile.

        Returns:
            The body of the answer, of which no more than 64 KiB are read.

        Raises:
            Retryable: it may work later: no connection, a timeout, a status of that kind.
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
        raise Refused(message)

    def _request(
        self, body: bytes, headers: dict[str, str], timeout_seconds: float
    ) -> tuple[int, str, str | None, bytes]:
        if self._connection is None:
            self._connection = self._connect(timeout_seconds)
        connection = self._connection
        deadline = time.monotonic() + timeout_seconds
        connection.timeout = timeout_seconds

        def answer(sock: socket.socket, **options: Any) -> http.client.HTTPResponse:
            stand_in = _Answering(sock, deadline)
            return http.client.HTTPResponse(stand_in, **options)  # type: ignore[arg-type]

        connection.response_class = answer  # type: ignore[assignment]
        if connection.sock is None:
            connection.connect()
        else:
            connection.sock.settimeout(timeout_seconds)
        # A receiver that hangs up before it has it all has mostly said why: an early answer, or an alert of TLS.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            connection.request("POST", self._target, body, headers)
        response = connection.getresponse()
        said = response.read(_KEPT_BODY_BYTES)
        if not response.isclosed():  # longer than anybody has to say: not worth the connection
            self.close()
        return response.status, response.reason, response.getheader("Retry-After"), said

    def _connect(self, timeout_seconds: float) -> http.client.HTTPConnection:
        host, port = (self._host, self._port) if self._proxy is None else self._proxy[:2]
        if not self._is_secure:
            return http.client.HTTPConnection(host, port, timeout=timeout_seconds)
        context = self._context or ssl.create_default_context()
        connection = http.client.HTTPSConnection(host, port, timeout=timeout_seconds, context=context)
        if self._proxy is not None:
            connection.set_tunnel(self._host, self._port or http.client.HTTPS_PORT, self._proxy.headers)
        return connection

    def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()
            self._connection = None


class _Answering(io.RawIOBase):
    """What comes from a socket until a deadline: its own timeout is that of each byte, and so of no answer.

    Stands in for the socket that http.client makes a file of.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._file = sock.makefile("rb", buffering=0)
        self._deadline = deadline

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


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
