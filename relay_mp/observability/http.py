"""Sending over HTTP: one receiver, one connection that is kept, statuses sorted into retry and refusal.

Used by the threads of outboxes, never by the dispatcher's. The standard library's client: it needs no
more than POST, headers and a timeout.
"""

import contextlib
import email.utils
import http.client
import os
import re
import ssl
import time
from urllib.parse import urlsplit

from relay_mp.observability.outbox import Refused, Retryable

__all__ = ["HttpReceiver", "check_header_value", "check_url", "place_of", "resolve_headers"]

RETRYABLE_STATUSES = frozenset((408, 425, 429, 500, 502, 503, 504))
MAX_RETRY_AFTER_SECONDS = 60.0
_KEPT_BODY_BYTES = 64 * 1024
_SHOWN_BODY_CHARACTERS = 200

MIN_SECRET_CHARACTERS = 6
"""Of what is taken out of receivers' answers."""


def check_url(url: str) -> None:
    """Refuses what is no http(s) address.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"url is {url!r}; expected http://host... or https://host...")


_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
"""Of a header: RFC 9110, section 5.5."""


def check_header_value(value: str) -> bool:
    """Whether a header may have it: no line break, among others."""
    return _VALUE.fullmatch(value) is not None


def resolve_headers(headers: dict[str, str], header_env: dict[str, str]) -> dict[str, str]:
    """Headers with those whose values are secrets, taken from environment variables by name.

    Raises:
        ValueError: a variable is not set where the dispatcher runs, or its value is none that a header may have.
    """
    found = dict(headers)
    for header, variable in header_env.items():
        # Its name is not repeated: people put the secret itself there by mistake.
        if variable not in os.environ:
            raise ValueError(f"the environment variable for the header {header!r} is not set where the dispatcher runs")
        found[header] = os.environ[variable]
    for header, value in found.items():
        if not check_header_value(value):
            raise ValueError(f"the header {header!r} has a character that no header may have, such as a line break")
    return found


def place_of(url: str) -> str:
    """Of a URL what may be shown: not user, password and query, which may be secrets."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _secrets_of(headers: dict[str, str]) -> list[str]:
    """The values of headers, and their parts, as the token behind "Bearer"; the longest first."""
    found = {
        part for value in headers.values() for part in (value, *value.split()) if len(part) >= MIN_SECRET_CHARACTERS
    }
    return sorted(found, key=len, reverse=True)


class HttpReceiver:
    """Posts to one URL. One thread at a time.

    Args:
        url: http or https.
        headers: of every request.
        context: of TLS; default: the usual one.
        retryable: statuses that are for the moment.

    Raises:
        ValueError: the URL is none.
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
        self.url = place_of(url)
        self._secrets = _secrets_of(headers)
        self._is_secure = parts.scheme == "https"
        self._host, self._port = str(parts.hostname), parts.port
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._headers = headers
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
            status, reason, after, said = self._request(body, headers, timeout_seconds)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if is_new or isinstance(error, TimeoutError):
                raise Retryable(f"{self.url}: {type(error).__name__}: {error}") from error
            return self.post(body, content_type, timeout_seconds, **more_headers)
        if 200 <= status < 300:
            return said
        message = f"{self.url} answered {status} {reason}: {self._shown(said)}"
        if status in self._retryable:
            raise Retryable(message, _seconds(after))
        raise Refused(message)

    def _shown(self, said: bytes) -> str:
        """What a receiver says, without the credentials that it repeats."""
        text = said.decode("utf-8", "replace")
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text[:_SHOWN_BODY_CHARACTERS]

    def _request(
        self, body: bytes, headers: dict[str, str], timeout_seconds: float
    ) -> tuple[int, str, str | None, bytes]:
        if self._connection is None:
            self._connection = self._connect(timeout_seconds)
        connection = self._connection
        connection.timeout = timeout_seconds
        if connection.sock is not None:
            connection.sock.settimeout(timeout_seconds)
        connection.request("POST", self._target, body, headers)
        response = connection.getresponse()
        said = response.read(_KEPT_BODY_BYTES)
        if not response.isclosed():  # longer than anybody has to say: not worth the connection
            self.close()
        return response.status, response.reason, response.getheader("Retry-After"), said

    def _connect(self, timeout_seconds: float) -> http.client.HTTPConnection:
        if self._is_secure:
            context = self._context or ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, self._port, timeout=timeout_seconds, context=context)
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout_seconds)

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
        except ValueError:
            return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)
