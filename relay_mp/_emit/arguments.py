"""What the verbs do with an argument that is not as the native core takes it.

Runs in every emitting process, called by `verbs` off its fast path: the core takes times as
microseconds, payloads as JSON types, schemas as two strings. Here the caller's datetimes and dicts become
that, and what cannot is refused before anything is emitted or any scope moves.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from relay_mp._emit.failures import status_of
from relay_mp._native.encoder import pack, pack_payload
from relay_mp._records.payloads import read_payload
from relay_mp.errors import PayloadError, PropagationError, ScopeError, described_type
from relay_mp.events import SEVERITY_KEY, canonical_payload
from relay_mp.types import DataSchema, LogSeverity, ScopeAttributes, ScopeType

__all__ = [
    "attribute_bits",
    "check_name",
    "check_profile",
    "check_schema",
    "freeze",
    "freeze_profile",
    "freeze_setting",
    "merge_metadata",
    "misuse",
    "parse_scope_uuid",
    "parse_uuid",
    "scope_type_error",
    "shown",
    "thaw",
    "to_microseconds",
    "with_outcome",
    "with_severity",
]

_UUID = re.compile(
    r"(?:urn:uuid:)?([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})"
    r"|([0-9a-f]{32})",
    re.ASCII | re.IGNORECASE,
)
_SHOWN_CHARACTERS = 80

INPUT_KEY = "relay_mp.input"
"""Of an end's metadata: what the scope was given, where that was not known at its start."""

MIN_NANOSECONDS = 10**17
"""A timestamp below, of March 1973, is refused: it is seconds, milliseconds or microseconds."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_SCOPE_TYPES = ", ".join(f"ScopeType.{member.name}" for member in ScopeType)

_SCALARS = frozenset({type(None), bool, float})


def to_microseconds(timestamp: object) -> int:
    """A timestamp as microseconds since the epoch: of a timezone-aware datetime exactly, of nanoseconds rounded down.

    Raises:
        TypeError: it is neither a datetime nor an int.
        ValueError: it is naive, or out of range for nanoseconds of this age.
    """
    if type(timestamp) is int:
        if not MIN_NANOSECONDS <= timestamp < 1 << 63:
            raise ValueError(f"timestamp is {timestamp}; expected nanoseconds since the epoch, such as time.time_ns()")
        return timestamp // 1000
    if not isinstance(timestamp, datetime):
        raise TypeError(
            f"timestamp is {described_type(timestamp)}; expected a timezone-aware datetime, or nanoseconds as int"
        )
    if timestamp.utcoffset() is None:
        raise ValueError(
            f"timestamp {timestamp.isoformat()} is naive; expected a timezone-aware datetime, "
            "such as datetime.now(timezone.utc)"
        )
    return (timestamp - _EPOCH) // _MICROSECOND


def scope_type_error(found: str, scope_type: object) -> TypeError:
    """The error for what is not a ScopeType: the one that is meant, if its name or value was given, or all of them."""
    meant = [f"ScopeType.{member.name}" for member in ScopeType if scope_type in (member.name, member.value)]
    expected = f"write {meant[0]}" if meant else f"one of {_SCOPE_TYPES}"
    return TypeError(f"{found}, {expected}; such as scope.scope('search', ScopeType.Tool)")


def misuse(verb: str, positional: int, names: tuple[str, ...] | None) -> None:
    """Refuses a call whose arguments by position are not those that a verb takes, and says how it is written.

    Args:
        verb: `event`, `push` or `scope`.
        positional: how many arguments were given by position.
        names: of the others.

    Raises:
        TypeError: there are too many, or there is no scope type. What else is wrong is the verb's own to refuse.
    """
    if verb == "event" and positional > 1:
        raise TypeError(
            f"scope.event() was given {positional} arguments by position; expected the name, and the others by their "
            "names: scope.event('found', data={...})"
        )
    if verb != "event" and positional > 2:
        raise TypeError(
            f"scope.{verb}() was given {positional} arguments by position; expected name and scope_type, and the "
            f"others by their names: scope.{verb}('search', ScopeType.Tool, input={{...}})"
        )
    if verb != "event" and positional < 2 and "scope_type" not in (names or ()):
        raise scope_type_error(f"scope.{verb}() was given no scope_type; expected ScopeType", None)


def check_name(name: object) -> str:
    """A name as an exact str, which is what the core takes.

    Raises:
        TypeError: it is not a str.
    """
    if not isinstance(name, str):
        raise TypeError(f"name is {described_type(name)}; expected str")
    return str.__str__(name)


def attribute_bits(attributes: object) -> int:
    """The bits of a scope's attributes.

    Raises:
        TypeError: they are not ScopeAttributes.
    """
    if not isinstance(attributes, ScopeAttributes):
        raise TypeError(
            f"attributes is {described_type(attributes)}; expected ScopeAttributes, "
            "such as ScopeAttributes(ScopeAttributes.PARALLEL)"
        )
    return attributes.value


def check_schema(data_schema: object) -> DataSchema:
    """A data schema reduced to its two keys.

    Raises:
        PayloadError: it is not a mapping with a string `name` and a string `version`.
    """
    if isinstance(data_schema, Mapping):
        name, version = data_schema.get("name"), data_schema.get("version")
        if isinstance(name, str) and isinstance(version, str):
            return {"name": name, "version": version}
    raise PayloadError(f"data_schema is {data_schema!r:.200}; expected a dict with string name and version")


def freeze(value: object, argument: str) -> Any:
    """A payload as a handle keeps it: packed, and so safe from later changes. What cannot be recorded is replaced.

    Raises:
        PayloadError: in strict mode, something in it cannot be recorded; the path starts with `argument`.
    """
    return value if type(value) in _SCALARS else pack_payload(value, argument)


def check_profile(profile: object) -> None:
    """Refuses a category_profile that is not a dict.

    Raises:
        PayloadError: it is not one.
    """
    if not isinstance(profile, dict):
        raise PayloadError(f"category_profile is {described_type(profile)}; expected a dict")


def freeze_profile(profile: object) -> Any:
    """`freeze` for a category_profile.

    Raises:
        PayloadError: it is not a dict; or, in strict mode, something in it cannot be recorded.
    """
    check_profile(profile)
    return freeze(profile, "category_profile")


def freeze_setting(value: object, argument: str) -> Any:
    """`freeze` for what is not an event's, such as a plugin's configuration: nothing in it is replaced.

    Raises:
        PayloadError: it contains a value that is not JSON; the path starts with `argument`.
    """
    if type(value) in _SCALARS:
        return value
    try:
        return pack(value)
    except PayloadError as error:
        # The encoder calls what it packs by itself "value".
        message = str(error)
        if not message.startswith("value"):
            raise
        raise PayloadError(argument + message.removeprefix("value")) from None


def thaw(frozen: Any) -> Any:
    """The payload again: JSON types, keys sorted at every depth, the caller's own copy."""
    if type(frozen) is bytes:
        return read_payload(frozen)
    return canonical_payload(frozen)


def merge_metadata(start: Any, end: Any) -> Any:
    """An end's metadata: the end's over the start's, one level deep; a null there overwrites.

    If either is not a dict, the end's replaces the start's. An end's that was left out, None, keeps it.

    Args:
        start: the start's, frozen as the handle keeps it.
        end: the end's, as the caller passed it.
    """
    if start is None:
        return end
    thawed = thaw(start)
    if end is None:
        return thawed
    if not isinstance(thawed, dict):
        return end
    if not isinstance(end, dict):
        # A dataclass, or another thing that encodes as a map, merges as one.
        end = thaw(freeze(end, "metadata"))
        if not isinstance(end, dict):
            return end
    return {**thawed, **end}


def shown(value: str) -> str:
    """A text as a message quotes it, shortened."""
    return repr(value if len(value) <= _SHOWN_CHARACTERS else value[:_SHOWN_CHARACTERS] + "...")


def parse_uuid(value: object, argument: str) -> bytes:
    """The 16 bytes of a UUID of 32 hexadecimal digits, with or without hyphens, braces or `urn:uuid:`.

    Raises:
        TypeError: it is not a str.
        PropagationError: it is malformed, or nil.
    """
    if not isinstance(value, str):
        raise TypeError(f"{argument} is {described_type(value)}; expected a UUID as str")
    bare = value[1:-1] if value.startswith("{") and value.endswith("}") else value
    match = _UUID.fullmatch(bare)
    if match is None:
        raise PropagationError(f"{argument} is {shown(value)}; expected a UUID of 32 hexadecimal digits")
    uuid = bytes.fromhex("".join(match.groups(default="")))
    if not any(uuid):
        raise PropagationError(f"{argument} is the nil UUID, which names no scope")
    return uuid


def parse_scope_uuid(value: object, argument: str) -> bytes:
    """`parse_uuid` for a scope's, whose last half is the id of its span.

    Raises:
        TypeError, PropagationError: as `parse_uuid`; or the last half is 0.
    """
    uuid = parse_uuid(value, argument)
    if not any(uuid[8:]):
        raise PropagationError(f"{argument} is {shown(str(value))}; its last 16 digits make no span id")
    return uuid


def with_outcome(metadata: Any, status: object, given: Any) -> dict[str, Any]:
    """An end's metadata with the status, and the input that the start did not know.

    Raises:
        TypeError: the status is neither a text nor an exception.
        ValueError: it is a text other than "OK", "ERROR" and "UNSET".
        ScopeError: the metadata is not a dict, and has no place for them.
    """
    if metadata is not None and not isinstance(metadata, dict):
        raise ScopeError(
            f"metadata is {described_type(metadata)}; expected a dict where a status or an input is given, to hold it"
        )
    found = {} if status is None else status_of(status)
    if given is not None:
        found = {**found, INPUT_KEY: given}
    return {**found, **(metadata or {})}


def with_severity(metadata: Any, severity: object) -> dict[str, Any]:
    """A mark's metadata with its severity in it.

    Raises:
        TypeError: the severity is not a LogSeverity.
        ScopeError: the metadata is not a dict, and has no place for a severity (RuntimeError, as the peer's).
    """
    if not isinstance(severity, LogSeverity):
        raise TypeError(f"severity is {described_type(severity)}; expected LogSeverity")
    if metadata is None:
        return {SEVERITY_KEY: severity.value}
    if not isinstance(metadata, dict):
        raise ScopeError(
            f"metadata is {described_type(metadata)}; expected a dict where a severity is given, to hold it"
        )
    return {**metadata, SEVERITY_KEY: severity.value}
