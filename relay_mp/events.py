"""Events: views over records, in ATOF 0.1.

An event is made where the dispatcher runs, from the bytes of one record, and handed to the
subscribers. The envelope is decoded on first access, and each payload field when it is asked for, so
that a subscriber which counts events pays for nothing else:

    record (msgpack array of 13, see `pack_record`)
      ├─ first access of any attribute   the envelope: identity, times, name; payloads stay bytes
      ├─ .data .metadata ...             that one field, kept
      └─ to_dict() to_json()             everything, afresh from the record

`data` and its siblings are shared by all subscribers of an event: treat them as read-only. `to_dict()`
and `to_json()` start from the record, so that a subscriber which changes them anyway cannot change
what the next one writes.

Events may be read from any thread, kept, and pickled. What comes out of shared memory is not trusted:
a record that is no record raises `RecordError` at the access.

The JSON is the peer's to the byte but for two things: times have microseconds at most, and small
floats are written `1e-05`, as Python does, where the peer writes `0.00001`.
"""

import functools
import json
import json.encoder
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias

import msgpack  # type: ignore[import-untyped]

from relay_mp._records import RecordView, json_line, read_fields, view
from relay_mp.errors import PayloadError, RecordError
from relay_mp.types import CATEGORIES, DataSchema, Json, JsonObject, LogSeverity, attribute_names

if TYPE_CHECKING:
    from relay_mp.annotated import AnnotatedLLMRequest, AnnotatedLLMResponse

__all__ = [
    "ATOF_VERSION",
    "KIND_CONTROL",
    "KIND_END",
    "KIND_MARK",
    "KIND_START",
    "REMOTE_MARK",
    "SEVERITY_KEY",
    "Event",
    "MarkEvent",
    "ScopeEvent",
    "canonical_payload",
    "canonical_uuid",
    "decode",
    "pack_record",
    "rfc3339",
]

ATOF_VERSION: Literal["0.1"] = "0.1"

KIND_START = 0
KIND_END = 1
KIND_MARK = 2
KIND_CONTROL = 3

FIELD_COUNT = 13
"""Fields of a record, in order: kind, uuid, parent_uuid, timestamp_us, name, category, attributes,
thread_id, stack, data, metadata, category_profile, data_schema."""

SEVERITY_KEY = "relay_mp.log.severity"
"""The metadata key that carries a mark's severity."""

REMOTE_MARK = bytes(16)
"""Ends a record's stack that leads to another program's trace; before it is that trace's id."""

_FIXARRAY_13 = 0x90 | FIELD_COUNT
_ARRAY_16 = 0xDC
_KIND_OFFSETS = {_FIXARRAY_13: 1, _ARRAY_16: 3}

# What the types of an envelope may be: one look-up checks them all.
_ENVELOPES = frozenset(
    (int, bytes, parent, int, str, category, int, int, stack)
    for parent in (bytes, type(None))
    for category in (int, str, type(None))
    for stack in (bytes, type(None))
)

_NOT_DECODED = object()
_SEVERITIES = {severity.value: severity for severity in LogSeverity}

_unpack: Callable[[bytes], Any] = msgpack.unpackb
_pack: Callable[[object], bytes] = msgpack.packb
_quote: Callable[[str], str] = json.encoder.encode_basestring


# ------------------------------------------------------------------------------------------ formats


def canonical_uuid(value: bytes) -> str:
    """16 bytes as the usual 36 characters, lower case."""
    digits = value.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


# A scope is the parent of many events in a row: one look-up each instead of one formatting.
_parent_text = functools.lru_cache(maxsize=256)(canonical_uuid)


def _civil_date(days: int) -> tuple[int, int, int]:
    """Year, month and day of a day count since 1970-01-01, in the proleptic Gregorian calendar.

    Source: Howard Hinnant, chrono-Compatible Low-Level Date Algorithms, `civil_from_days`. Here because
    `datetime` stops at the years 1 and 9999, and a record's 64 bits of microseconds do not.
    """
    shifted = days + 719_468
    era, day_of_era = divmod(shifted, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted_month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * shifted_month + 2) // 5 + 1
    month = shifted_month + 3 if shifted_month < 10 else shifted_month - 9
    return year_of_era + era * 400 + (month <= 2), month, day


def _format_second(seconds: int) -> str:
    days, second_of_day = divmod(seconds, 86_400)
    year, month, day = _civil_date(days)
    hour, second_of_hour = divmod(second_of_day, 3600)
    minute, second = divmod(second_of_hour, 60)
    # Beyond four digits the sign is written, as ISO 8601's expanded years and the peer do.
    year_text = f"{year:04d}" if 0 <= year <= 9999 else f"{year:+05d}"
    return f"{year_text}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}"


# Events come by the thousand within one second. One tuple, replaced whole, so that no lock is needed.
_last_second: tuple[int, str] = (0, _format_second(0))


def rfc3339(timestamp_us: int) -> str:
    """Microseconds since the epoch as RFC 3339 in UTC, with 0, 3 or 6 digits of fraction, as needed."""
    global _last_second
    seconds, fraction_us = divmod(timestamp_us, 1_000_000)
    known_second, text = _last_second
    if known_second != seconds:
        text = _format_second(seconds)
        _last_second = (seconds, text)
    if not fraction_us:
        return f"{text}+00:00"
    if fraction_us % 1000:
        return f"{text}.{fraction_us:06d}+00:00"
    return f"{text}.{fraction_us // 1000:03d}+00:00"


# ----------------------------------------------------------------------------------------- payloads


def _unpack_payload(field: object) -> Any:
    # A field cut for its size holds its marker in place of bytes.
    if type(field) is bytes:
        try:
            return _unpack(field)
        except Exception as error:
            raise RecordError(f"a payload of {len(field)} bytes is no msgpack: {error}") from error
    if field is None or isinstance(field, dict):
        return field
    raise RecordError(f"a payload field holds a {type(field).__name__}; expected bytes, a map or nil")


def canonical_payload(value: Any) -> Any:
    """A decoded payload with its keys sorted at every depth and its NaNs null, as ATOF's JSON shows it.

    Raises:
        RecordError: it holds something that is no JSON type.
    """
    kind = type(value)
    if kind is dict:
        if not all(type(key) is str for key in value):
            raise RecordError("a payload holds a map whose keys are not all strings")
        return {key: canonical_payload(value[key]) for key in sorted(value)}
    if kind is list:
        return [canonical_payload(item) for item in value]
    if kind is float:
        return value if value - value == 0.0 else None
    if value is None or kind is str or kind is int or kind is bool:
        return value
    raise RecordError(f"a payload holds a {kind.__name__}; expected JSON types only")


def _payload(field: object) -> Any:
    if field is None:
        return None
    try:
        return canonical_payload(_unpack_payload(field))
    except (TypeError, RecursionError) as error:
        raise RecordError(f"a payload is no JSON: {error}") from error


def _refuse(value: object) -> Any:
    raise TypeError(f"{type(value).__name__} is no JSON type")


_encode: Callable[[Any], str] = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, sort_keys=True, separators=(",", ":")
).encode


def _payload_json(field: object) -> str:
    if field is None:
        return "null"
    value = _unpack_payload(field)
    try:
        return _encode(value)
    except (TypeError, ValueError, RecursionError):
        # NaN and infinities, which the native encoder never writes, or no JSON at all.
        return _encode(_payload(field))


def pack_record(
    kind: int,
    uuid: bytes,
    parent_uuid: bytes | None,
    timestamp_us: int,
    name: str,
    category: int | str | None = None,
    attributes: int = 0,
    thread_id: int = 0,
    stack: bytes | None = None,
    data: object = None,
    metadata: object = None,
    category_profile: object = None,
    data_schema: object = None,
) -> bytes:
    """One record, as the native encoder writes it, for JSON types only.

    For records that are not emitted: the dispatcher's own marks, and tests. The 13 arguments are the
    record's fields in order; the last four are each packed by themselves, into a bin.
    """
    payloads = [
        None if value is None else _pack(value) for value in (data, metadata, category_profile, data_schema)
    ]
    envelope = [kind, uuid, parent_uuid, timestamp_us, name, category, attributes, thread_id, stack]
    return _pack(envelope + payloads)


# ------------------------------------------------------------------------------------------- events


class _Event(RecordView):
    """What both kinds of event share. A RecordView has the record, and three attributes that no JSON has:

    `seq`, the event's place in the session's one order: strictly increasing, over all processes; `pid`, the
    process that emitted it; `redelivered`, true where a dispatcher's crash may have shown it before.
    """

    __slots__ = ()

    kind: ClassVar[str]

    def _decode(self) -> list[Any]:
        self._fields = fields = read_fields(self._record) or self._decode_unusual()
        return fields

    def _decode_unusual(self) -> list[Any]:
        """What the native encoder has not written: msgpack in another form, or damaged; says what is wrong with it."""
        try:
            fields = _unpack(self._record)
        except Exception as error:
            raise RecordError(f"a record of {len(self._record)} bytes is no msgpack: {error}") from error
        if type(fields) is not list or len(fields) != FIELD_COUNT:
            raise RecordError(f"a record holds {type(fields).__name__}; expected a list of {FIELD_COUNT}")
        found = tuple(map(type, fields[:9]))
        if (
            found not in _ENVELOPES
            or len(fields[1]) != 16
            or (fields[2] is not None and len(fields[2]) != 16)
        ):
            types = ", ".join(kind.__name__ for kind in found)
            raise RecordError(f"a record's envelope is not of its types, or a uuid not of 16 bytes: {types}")
        return fields

    @property
    def atof_version(self) -> Literal["0.1"]:
        """The version of the event format."""
        return ATOF_VERSION

    @property
    def uuid(self) -> str:
        """A scope's start and end share it; a mark has its own."""
        return canonical_uuid((self._fields or self._decode())[1])

    @property
    def packed_uuid(self) -> bytes:
        """`uuid` as it is in the record: 16 bytes."""
        uuid: bytes = (self._fields or self._decode())[1]
        return uuid

    @property
    def packed_parent(self) -> bytes | None:
        """`parent_uuid` as it is in the record."""
        parent: bytes | None = (self._fields or self._decode())[2]
        return parent

    @property
    def parent_uuid(self) -> str | None:
        """The enclosing scope."""
        parent_uuid = (self._fields or self._decode())[2]
        return None if parent_uuid is None else _parent_text(parent_uuid)

    @property
    def timestamp_us(self) -> int:
        """When, in microseconds since the epoch. Not in the JSON, which has `timestamp`."""
        timestamp_us: int = (self._fields or self._decode())[3]
        return timestamp_us

    @property
    def timestamp(self) -> str:
        """When, as RFC 3339 in UTC."""
        return rfc3339((self._fields or self._decode())[3])

    @property
    def name(self) -> str:
        """The scope's or the mark's name."""
        name: str = (self._fields or self._decode())[4]
        return name

    @property
    def thread_id(self) -> int:
        """The emitting thread, by the kernel's number for it. Not in the JSON."""
        thread_id: int = (self._fields or self._decode())[7]
        return thread_id

    @property
    def packed_stack(self) -> bytes | None:
        """`stack` as it is in the record: 16 bytes a scope."""
        packed: bytes | None = (self._fields or self._decode())[8]
        return packed

    @property
    def stack(self) -> tuple[str, ...] | None:
        """The emitter's open scopes, innermost first, or None where nobody asked for them.

        Recorded while scope-local subscribers live, and where the trace is another program's: the
        dispatcher's and exporters' to use.
        """
        packed = self.packed_stack
        if packed is None:
            return None
        packed = packed.removesuffix(REMOTE_MARK)
        return tuple(canonical_uuid(packed[start : start + 16]) for start in range(0, len(packed), 16))

    @property
    def remote_trace(self) -> bytes | None:
        """The id of another program's trace that this event goes on with, 16 bytes, from a `traceparent` or a
        propagation context. Recorded for what is directly under it, not for what is further in."""
        packed = self.packed_stack
        return packed[-32:-16] if packed is not None and packed.endswith(REMOTE_MARK) else None

    @property
    def data(self) -> Json:
        """A start's input, an end's output, a mark's data. Shared by all subscribers: do not change it."""
        data: Json = self._payload(9)
        return data

    @property
    def metadata(self) -> Json:
        """What describes the event rather than the work. Shared by all subscribers: do not change it."""
        metadata: Json = self._payload(10)
        return metadata

    @property
    def category_profile(self) -> JsonObject | None:
        """What is particular to the category, such as `model_name`. Unknown keys are kept."""
        category_profile: JsonObject | None = self._payload(11)
        return category_profile

    @property
    def data_schema(self) -> DataSchema | None:
        """The name and version of the schema that `data` follows, if it was said."""
        data_schema: DataSchema | None = self._payload(12)
        return data_schema

    def _payload(self, index: int) -> Any:
        payloads = self._payloads
        if payloads is None:
            payloads = self._payloads = [_NOT_DECODED] * FIELD_COUNT
        value = payloads[index]
        if value is _NOT_DECODED:
            field = (self._fields or self._decode())[index]
            value = payloads[index] = _payload(field)
        return value

    def _category(self) -> str | None:
        category = (self._fields or self._decode())[5]
        if category is None or type(category) is str:
            return category
        try:
            return CATEGORIES[category]
        except (IndexError, TypeError):
            return "unknown"

    def _shared_dict(self) -> JsonObject:
        fields = self._fields or self._decode()
        return {
            "atof_version": ATOF_VERSION,
            "category": self._category(),
            "category_profile": _payload(fields[11]),
            "data": _payload(fields[9]),
            "data_schema": _payload(fields[12]),
            "kind": self.kind,
            "metadata": _payload(fields[10]),
            "name": self.name,
            "parent_uuid": self.parent_uuid,
            "timestamp": self.timestamp,
            "uuid": self.uuid,
        }

    def __reduce__(self) -> tuple[type[Self], tuple[bytes, int, int, bool]]:
        return type(self), (self._record, self.seq, self.pid, self.redelivered)

    def __repr__(self) -> str:
        try:
            what = f"{self._label()} {self.name!r} uuid={self.uuid}"
        except RecordError as error:
            what = f"damaged: {error}"
        return f"<{type(self).__name__} {what} seq={self.seq} pid={self.pid}>"

    def _label(self) -> str:
        return self.kind


class ScopeEvent(_Event):
    """The start or the end of a scope, a tool call or an LLM call.

    Made by the dispatcher; attributes are read-only by convention, see the module. Besides ATOF's
    there are `seq`, `pid`, `thread_id`, `redelivered` and `timestamp_us`, never in the JSON.
    """

    __slots__ = ()

    kind: ClassVar[Literal["scope"]] = "scope"

    @property
    def scope_category(self) -> Literal["start", "end"]:
        """Which of the two it is."""
        return "end" if (self._fields or self._decode())[0] == KIND_END else "start"

    @property
    def category(self) -> str:
        """The kind of work: one of ATOF's categories."""
        return self._category() or "unknown"

    @property
    def attributes(self) -> list[str]:
        """The scope's attributes by name: sorted, no duplicates."""
        return attribute_names((self._fields or self._decode())[6])

    @property
    def annotated_request(self) -> "AnnotatedLLMRequest | None":
        """The view that a codec gave of an LLM call's request, in the call's start. A copy at each access."""
        from relay_mp.annotated import AnnotatedLLMRequest

        view: AnnotatedLLMRequest | None = self._annotation("annotated_request", AnnotatedLLMRequest)
        return view

    @property
    def annotated_response(self) -> "AnnotatedLLMResponse | None":
        """The view that a codec gave of an LLM call's response, in the call's end. A copy at each access."""
        from relay_mp.annotated import AnnotatedLLMResponse

        view: AnnotatedLLMResponse | None = self._annotation("annotated_response", AnnotatedLLMResponse)
        return view

    def _annotation(self, key: str, view: Any) -> Any:
        profile = self.category_profile
        value = profile.get(key) if isinstance(profile, dict) else None
        try:
            return None if value is None else view.from_dict(value)
        except PayloadError as error:
            raise RecordError(f"category_profile.{key} is malformed: {error}") from error

    def to_dict(self) -> JsonObject:
        """The event in canonical ATOF 0.1: every key, keys sorted at every depth. The caller's own copy."""
        shared = self._shared_dict()
        shared["attributes"] = [*self.attributes]
        shared["category"] = self.category
        shared["scope_category"] = self.scope_category
        return dict(sorted(shared.items()))

    def to_json(self) -> str:
        """The event in canonical ATOF 0.1, as one line without a line break: the text of `to_dict()`."""
        line = json_line(self._record, True)
        return self._json() if line is None else line[:-1].decode()

    def to_json_line(self) -> bytes:
        """`to_json()` in UTF-8 with a line break behind it: what a JSON lines file holds."""
        return json_line(self._record, True) or f"{self._json()}\n".encode("utf-8", "surrogatepass")

    def _json(self) -> str:
        fields = self._fields or self._decode()
        attributes = _encode(attribute_names(fields[6])) if fields[6] else "[]"
        phase = "end" if fields[0] == KIND_END else "start"
        parent = "null" if fields[2] is None else f'"{_parent_text(fields[2])}"'
        return (
            f'{{"atof_version":"0.1","attributes":{attributes},"category":{_quote(self.category)}'
            f',"category_profile":{_payload_json(fields[11])}'
            f',"data":{_payload_json(fields[9])},"data_schema":{_payload_json(fields[12])}'
            f',"kind":"scope","metadata":{_payload_json(fields[10])},"name":{_quote(fields[4])}'
            f',"parent_uuid":{parent},"scope_category":"{phase}"'
            f',"timestamp":"{rfc3339(fields[3])}","uuid":"{canonical_uuid(fields[1])}"}}'
        )

    def _label(self) -> str:
        return f"{self.scope_category} of {self.category}"


class MarkEvent(_Event):
    """A point in time: a named checkpoint, a log line, a set of measurements.

    Made by the dispatcher; attributes are read-only by convention, see the module. Besides ATOF's
    there are `seq`, `pid`, `thread_id`, `redelivered` and `timestamp_us`, never in the JSON.
    """

    __slots__ = ()

    kind: ClassVar[Literal["mark"]] = "mark"

    @classmethod
    def from_fields(
        cls,
        name: str,
        *,
        uuid: bytes,
        timestamp_us: int,
        seq: int,
        pid: int,
        parent_uuid: bytes | None = None,
        data: Json = None,
        metadata: Json = None,
        category: str | None = None,
        category_profile: JsonObject | None = None,
        data_schema: DataSchema | None = None,
        thread_id: int = 0,
        stack: bytes | None = None,
        redelivered: bool = False,
    ) -> Self:
        """A mark that nobody emitted, such as the dispatcher's own `relay_mp.loss`.

        Args:
            name: the mark's name.
            uuid: 16 bytes.
            timestamp_us: microseconds since the epoch.
            seq: its place in the stream, as for any event.
            pid: the process it speaks of.
            parent_uuid: 16 bytes, or None.
            data: JSON types only, as all payloads here.
            metadata: as `data`.
            category: one of ATOF's categories, or None as for all public marks.
            category_profile: what is particular to the category.
            data_schema: the schema that `data` follows.
            thread_id: the thread it speaks of.
            stack: uuids of open scopes, 16 bytes each, innermost first.
            redelivered: as for any event.
        """
        record = pack_record(
            KIND_MARK, uuid, parent_uuid, timestamp_us, name, category, 0, thread_id, stack,
            data, metadata, category_profile, data_schema,
        )  # fmt: skip
        return cls(record, seq, pid, redelivered)

    @property
    def category(self) -> str | None:
        """The kind of work the mark speaks of; None for all that the public verbs emit."""
        return self._category()

    @property
    def severity(self) -> LogSeverity | None:
        """The severity of a log line: metadata's `relay_mp.log.severity`, None where it is none."""
        metadata = self.metadata
        if not isinstance(metadata, dict):
            return None
        severity = metadata.get(SEVERITY_KEY)
        return _SEVERITIES.get(severity) if isinstance(severity, str) else None

    def to_dict(self) -> JsonObject:
        """The event in canonical ATOF 0.1: every key, keys sorted at every depth. The caller's own copy."""
        return self._shared_dict()

    def to_json(self) -> str:
        """The event in canonical ATOF 0.1, as one line without a line break: the text of `to_dict()`."""
        line = json_line(self._record, False)
        return self._json() if line is None else line[:-1].decode()

    def to_json_line(self) -> bytes:
        """`to_json()` in UTF-8 with a line break behind it: what a JSON lines file holds."""
        return json_line(self._record, False) or f"{self._json()}\n".encode("utf-8", "surrogatepass")

    def _json(self) -> str:
        fields = self._fields or self._decode()
        category = self._category()
        parent = "null" if fields[2] is None else f'"{_parent_text(fields[2])}"'
        return (
            f'{{"atof_version":"0.1","category":{"null" if category is None else _quote(category)}'
            f',"category_profile":{_payload_json(fields[11])},"data":{_payload_json(fields[9])}'
            f',"data_schema":{_payload_json(fields[12])},"kind":"mark"'
            f',"metadata":{_payload_json(fields[10])},"name":{_quote(fields[4])},"parent_uuid":{parent}'
            f',"timestamp":"{rfc3339(fields[3])}","uuid":"{canonical_uuid(fields[1])}"}}'
        )


Event: TypeAlias = ScopeEvent | MarkEvent

_CLASSES = (ScopeEvent, ScopeEvent, MarkEvent)
"""By a record's kind."""

view_of: Callable[..., Event | None] = functools.partial(view, _CLASSES)
"""`decode`, but None where the record does not start as the native encoder's do, or is no event's."""


def decode(record: bytes, seq: int, pid: int, redelivered: bool = False) -> Event:
    """The event that a record holds. Reads the record's kind, and nothing else, until it is asked.

    Args:
        record: the payload of one ring record: a private copy, never a view of shared memory.
        seq: its place in the stream.
        pid: the emitting process.
        redelivered: whether a dispatcher's crash may have shown it before.

    Raises:
        RecordError: the bytes start like no event record. Control records (kind 3) are no events.
    """
    event = view_of(record, seq, pid, redelivered)
    if event is not None:
        return event
    try:
        kind = record[_KIND_OFFSETS[record[0]]]
    except (IndexError, KeyError):
        kind = -1
    if kind == KIND_MARK:
        return MarkEvent(record, seq, pid, redelivered)
    if kind in (KIND_START, KIND_END):
        return ScopeEvent(record, seq, pid, redelivered)
    start = record[:4].hex(" ")
    raise RecordError(f"a record of {len(record)} bytes starts with <{start}>: no scope and no mark")
