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
    "check_header_value",
    "check_url",
    "is_loopback",
    "redacted_url",
    "resolve_headers",
]

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


def redacted_url(url: str) -> str:
    """Of a URL what may be shown: not user, password and query, which may be secrets."""
    try:
        parts = urlsplit(url)
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
