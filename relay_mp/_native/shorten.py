"""A payload that is too large for an event, without the texts that make it so.

    {"image": <2 MB>, "caption": "cat"}  ─▶  {"image": {"relay_mp.cut": {"bytes": 2000005}}, "caption": "cat"}

Runs in the emitting process, called by the native core for an event above the size limit, off the fast path.
The largest texts go first, as many as it takes.
"""

from typing import Any

import msgpack  # type: ignore[import-untyped]

__all__ = ["CUT_KEY", "shorten"]

CUT_KEY = "relay_mp.cut"

SMALLEST_TEXT_BYTES = 256
"""Shorter texts stay: what stands in their place takes 30 bytes, and there would be no end of them."""


def shorten(payload: bytes, limit_bytes: int) -> bytes | None:
    """A payload with its largest texts replaced by their sizes, until it fits.

    Args:
        payload: msgpack, as the encoder writes it.
        limit_bytes: what it may take.

    Returns:
        msgpack; None if it does not fit by that, as when it has too many small values.
    """
    value = msgpack.unpackb(payload, strict_map_key=False, raw=False)
    whole = [value]
    excess = len(payload) - limit_bytes
    for size_bytes, container, place in sorted(_texts(whole), key=lambda found: -found[0]):
        if excess <= 0:
            break
        marker = {CUT_KEY: {"bytes": size_bytes}}
        container[place] = marker
        excess -= size_bytes - len(msgpack.packb(marker))
    return None if excess > 0 else msgpack.packb(whole[0])


def _size_bytes(text: str) -> int:
    """What a text takes as msgpack: its UTF-8, and a header of 1, 2, 3 or 5 bytes."""
    length = len(text.encode())
    return length + (1 if length < 32 else 2 if length < 256 else 3 if length < 65536 else 5)


def _texts(whole: list[Any]) -> list[tuple[int, Any, Any]]:
    """Each longer text: its size as msgpack, what it is in, and where there."""
    found: list[tuple[int, Any, Any]] = []
    containers: list[Any] = [whole]
    while containers:
        container = containers.pop()
        for place, item in container.items() if isinstance(container, dict) else enumerate(container):
            if isinstance(item, str):
                size_bytes = _size_bytes(item)
                if size_bytes >= SMALLEST_TEXT_BYTES:
                    found.append((size_bytes, container, place))
            elif isinstance(item, dict | list):
                containers.append(item)
    return found
