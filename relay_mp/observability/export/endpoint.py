"""A receiver's URL and headers: what they may be, where secret values come from, and what may be shown of them.

Knows no client: exporters and sections use it in any process, `http.py` and `otel/` where the dispatcher runs.
"""

import contextlib
import ipaddress
import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

__all__ = [
    "Secrets",
    "authority",
    "check_headers",
    "check_url",
    "header_trouble",
    "is_loopback",
    "redacted_url",
    "resolve_headers",
]

MIN_SECRET_CHARACTERS = 6
"""Of what is taken out of receivers' answers."""


def check_url(url: str) -> None:
    """Refuses what is not an http(s) address.

    Raises:
        ValueError: it is not such an address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"url is {redacted_url(url)!r}; expected http://host... or https://host...")


_BEHIND_PATH = re.compile("[?#]")

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header's name: RFC 9110, section 5.6.2."""

_ODD = re.compile(r"[^\t\x20-\x7e\x80-\xff]")
"""What no header's value may have: RFC 9110, section 5.5."""

_GRPC_NAME = re.compile(r"[0-9A-Za-z_.-]+")
_GRPC_ODD = re.compile(r"[^\x20-\x7e]")
"""The same over gRPC: gRPC over HTTP/2, "Custom-Metadata". Names are in lower case when they are sent."""


def header_trouble(name: str, value: str | None = None, *, over_grpc: bool = False) -> str | None:
    """What is wrong with a header, as the end of a sentence; None: nothing. The value may be secret and is not shown.

    Args:
        name: of the header.
        value: None: only the name is looked at.
        over_grpc: whether it goes into gRPC's metadata, which takes less.
    """
    if not (_GRPC_NAME if over_grpc else _NAME).fullmatch(name):
        marks = "_ . -" if over_grpc else "! # $ % & ' * + - . ^ _ ` | ~"
        return f"is not a name of a header; expected one or more of the letters A to Z, the digits and {marks}"
    odd = (_GRPC_ODD if over_grpc else _ODD).search(value or "")
    if odd is None:
        return None
    what = "printable ASCII, as gRPC asks for" if over_grpc else "Latin-1 without control characters"
    found = f"has a character that no header may have, {odd.group()!a} at place {odd.start()}"
    return f"{found}; expected one line of {what}: is there a line break in what it was read from?"


def check_headers(headers: Mapping[str, str], *, over_grpc: bool = False) -> None:
    """Refuses names and values that no header may have.

    Raises:
        ValueError: there is one.
    """
    for name, value in headers.items():
        trouble = header_trouble(name, value, over_grpc=over_grpc)
        if trouble:
            raise ValueError(f"the header {name!a:.80} {trouble}")


def resolve_headers(headers: dict[str, str], header_env: dict[str, str]) -> dict[str, str]:
    """Headers with those whose values are secrets, taken from environment variables by name.

    Raises:
        ValueError: a variable is not set where the dispatcher runs, or there is a name or a value that no header may
            have.
    """
    found = dict(headers)
    for header, variable in header_env.items():
        # Its name is not repeated: people put the secret itself there by mistake.
        if variable not in os.environ:
            raise ValueError(f"the environment variable for the header {header!r} is not set where the dispatcher runs")
        found[header] = os.environ[variable]
    check_headers(found)
    return found


def redacted_url(url: str) -> str:
    """Of what was given as a URL, what may be shown: not user, password, query and fragment, which may be secrets."""
    try:
        parts = urlsplit(url)
        if not parts.netloc:
            return _BEHIND_PATH.split(url, maxsplit=1)[0].rpartition("@")[2]
        return f"{parts.scheme}://{authority(parts.hostname or '', parts.port)}{parts.path}"
    except ValueError:  # an IPv6 address without its end, a port above 65535
        return "(no URL)"


def authority(host: str, port: int | None) -> str:
    """Host and port, as they stand in a URL."""
    return f"{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}"


def is_loopback(host: str) -> bool:
    """Whether that is this machine, and nobody else's; RFC 6761, section 6.3."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


class Secrets:
    """What is taken out of what receivers say: the values of headers, and their parts, as the token behind "Bearer"."""

    def __init__(self, *headers: Mapping[str, str]) -> None:
        values = [value for each in headers for value in each.values()]
        found = {part for value in values for part in (value, *value.split()) if len(part) >= MIN_SECRET_CHARACTERS}
        self._longest_first = sorted(found, key=len, reverse=True)

    def hide(self, text: str) -> str:
        """The text without them."""
        for secret in self._longest_first:
            text = text.replace(secret, "***")
        return text
