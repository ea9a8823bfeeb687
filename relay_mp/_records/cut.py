"""A record without its payloads, for who keeps many.

start of "search", input of 200 KB  ─▶  start of "search", input {"relay_mp.cut": {"bytes": 200005}}
"""

import msgpack  # type: ignore[import-untyped]

from relay_mp._native.shorten import CUT_KEY

__all__ = ["LEAST_CUT_BYTES", "cut_payloads"]

LEAST_CUT_BYTES = 64
"""A payload that is no larger stays: what would stand for it takes half of that."""

_PAYLOADS = range(9, 13)
"""Where in a record they are."""


def cut_payloads(record: bytes) -> bytes | None:
    """The record with a marker for each larger payload, which says how many bytes that had; all else is as it was.

    Args:
        record: one whose fields could be read; see `relay_mp.events.pack_record`.

    Returns:
        None where it has no such payload.
    """
    fields = msgpack.unpackb(record)
    larger = [place for place in _PAYLOADS if isinstance(fields[place], bytes) and len(fields[place]) > LEAST_CUT_BYTES]
    for place in larger:
        fields[place] = msgpack.packb({CUT_KEY: {"bytes": len(fields[place])}})
    packed: bytes = msgpack.packb(fields)
    return packed if larger else None
