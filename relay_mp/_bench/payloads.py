"""What events carry. Without NumPy, whose import would be all that callgrind sees."""

import json
import re
from pathlib import Path
from typing import Any

from relay_mp._deliver.named import find

FOUR_FIELDS: dict[str, Any] = {"step": 1, "name": "abc", "score": 0.5, "ok": True}
EVENT_NAME = "planning"


def record(data: Any = FOUR_FIELDS) -> list[Any]:
    """The same event as a plain msgpack array of 13, as relay_mp's records are: what msgpack is measured on."""
    uuid = bytes(range(16))
    return [2, uuid, uuid, 1_760_000_000_000_000, EVENT_NAME, None, 0, 1, None, data, None, None, None]


NAMED = {"fields": FOUR_FIELDS, "none": None}
MAX_BYTES = 64 << 20
"""Of a payload that is given by its size or in a file."""

_SIZE = re.compile(r"(\d+)(B|KiB|MiB)?")
_UNITS = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20}


def size_of(text: str) -> int | None:
    """Of "512", "4KiB", "1MiB" the bytes; None: it is no size."""
    found = _SIZE.fullmatch(text)
    return int(found[1]) * _UNITS[found[2]] if found else None


def payload_of(text: str) -> Any:
    """What events carry, as it is named on a command line.

    Args:
        text: "fields", four of them; "none"; a size, of a text that is as long; a file, of JSON, else of text; or
            "module:attribute", a function that is called once and returns it.

    Raises:
        SubscriberError: there is no such function, or it has failed.
        OSError: the file cannot be read.
        ValueError: it is larger than `MAX_BYTES`, or is neither.
    """
    if text in NAMED:
        return NAMED[text]
    if (size := size_of(text)) is not None:
        return {"text": "x" * _checked(size, text)}
    file = Path(text)
    if ":" in text and not file.exists():
        return find(text, {}, "payload")
    _checked(file.stat().st_size, text)
    content = file.read_text(encoding="utf-8")
    try:
        return json.loads(content)
    except ValueError:
        return {"text": content}


def _checked(size: int, text: str) -> int:
    if size > MAX_BYTES:
        raise ValueError(f"it has {size:,} bytes; expected at most {MAX_BYTES:,}")
    return size
