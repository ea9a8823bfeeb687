"""Payloads as attributes: what JSON is to OpenTelemetry's protobuf. Runs where the dispatcher runs.

Strings, bools, ints and floats are values of their own, a tuple of strings is an array; what nests, and
null, is its JSON text. Most payloads go that way in `otlp.pyx`, without Python objects; here is what it leaves.
A string that is too long is cut, and ends in `…(N bytes)`; lone surrogates become `?`.
"""

import json
from typing import Any

__all__ = ["MAX_KEYS", "add_flat", "clean", "json_text"]

MAX_KEYS = 64
"""An object with more keys becomes one attribute, its JSON text, rather than one for each key."""

_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"), default=str).encode


def json_text(value: Any) -> str:
    """A payload as JSON."""
    try:
        return _encode(value)
    except (RecursionError, TypeError, ValueError) as error:  # of a record that no emitting call wrote
        return f"<{type(value).__name__}, no JSON: {type(error).__name__}>"


def clean(text: str, max_bytes: int) -> str:
    """A text that protobuf takes, of that many bytes or a few more."""
    if text.isascii() and len(text) <= max_bytes:
        return text
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= max_bytes:
        return encoded.decode()
    return f"{encoded[:max_bytes].decode('utf-8', 'ignore')}…({len(encoded)} bytes)"


def add_flat(attributes: dict[str, Any], prefix: str, value: Any) -> None:
    """Adds a payload: an object's keys one by one, anything else as it is; None adds nothing."""
    if isinstance(value, dict) and 0 < len(value) <= MAX_KEYS:
        for key, item in value.items():
            attributes[f"{prefix}.{key}"] = "null" if item is None else item
    elif value is not None:
        attributes[prefix] = value
