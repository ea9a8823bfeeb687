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
bytes that are not a record raise `RecordError` at the access.

The JSON is the peer's to the byte but for two things: times have microseconds at most, and small
floats are written `1e-05`, as Python does, where the peer writes `0.00001`.
"""

import functools
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias

import msgpack  # type: ignore[import-untyped]

from relay_mp._records.json_line import json_line
from relay_mp._records.payloads import read_payload
from relay_mp._records.records import RecordView, canonical_uuid, rfc3339, view
from relay_mp.errors import PayloadError, RecordError, described_type
from relay_mp.types import CATEGORIES, DataSchema, Json, JsonObject, LogSeverity, attribute_names

if TYPE_CHECKING:
    from relay_mp.annotated import AnnotatedLLMRequest, AnnotatedLLMResponse

__all__ = [
    "ATOF_VERSION",
    "KIND_CONTROL",
    "KIND_END",
    "KIND_MARK",
    "KIND_START",
    "ORIGIN_KEY",
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

ORIGIN_KEY = "relay_mp.origin"
"""The metadata key under which a line says who has emitted its event; json_line.pyx writes it."""

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

_SEVERITIES = {severity.value: severity for severity in LogSeverity}

_unpack: Callable[[bytes], Any] = msgpack.unpackb
_pack: Callable[[object], bytes] = msgpack.packb


# ----------------------------------------------------------------------------------------- payloads


def canonical_payload(value: Any) -> Any:
    """A decoded payload with its keys sorted at every depth and its NaNs null, as ATOF's JSON shows it.

    Raises:
        RecordError: it holds something that is not a JSON type.
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
    # A field cut for its size holds its marker in place of bytes.
    if field is None:
        return None
    if type(field) is bytes:
        return read_payload(field)
    if type(field) is not dict:
        raise RecordError(f"a payload field holds {described_type(field)}; expected bytes, a map or nil")
    try:
        return canonical_payload(field)
    except RecursionError as error:
        raise RecordError(f"a payload is not JSON: {error}") from error


_dumps: Callable[[Any], str] = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")
).encode


def _text(event: "_Event", session: str | None = None) -> str:
    """`to_json()` of what the native half does not write, and the line of it that has the event's origin."""
    try:
        return _dumps(event.to_dict() if session is None else event._dict_with_origin(session))
    except RecursionError as error:
        raise RecordError(f"an event is nested too deep to be written: {error}") from error


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
    payloads = [None if value is None else _pack(value) for value in (data, metadata, category_profile, data_schema)]
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

    _decode_payload = staticmethod(_payload)

    def _decode_unusual(self) -> list[Any]:
        """What the native encoder has not written: msgpack in another form, or damaged; says what is wrong with it."""
        try:
            fields = _unpack(self._record)
        except Exception as error:
            raise RecordError(f"a record of {len(self._record)} bytes is not msgpack: {error}") from error
        if type(fields) is not list or len(fields) != FIELD_COUNT:
            raise RecordError(f"a record holds {type(fields).__name__}; expected a list of {FIELD_COUNT}")
        found = tuple(map(type, fields[:9]))
        if found not in _ENVELOPES or len(fields[1]) != 16 or (fields[2] is not None and len(fields[2]) != 16):
            types = ", ".join(kind.__name__ for kind in found)
            raise RecordError(f"a record's envelope is not of its types, or a uuid not of 16 bytes: {types}")
        return fields

    @property
    def atof_version(self) -> Literal["0.1"]:
        """The version of the event format."""
        return ATOF_VERSION

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
        if len(packed) % 16:
            raise RecordError(f"a stack has {len(packed)} bytes; expected 16 for each scope")
        return tuple(canonical_uuid(packed[start : start + 16]) for start in range(0, len(packed), 16))

    @property
    def remote_trace(self) -> bytes | None:
        """The id of another program's trace that this event goes on with, 16 bytes, from a `traceparent` or a
        propagation context. Recorded for what is directly under it, not for what is further in."""
        packed = self.packed_stack
        return packed[-32:-16] if packed is not None and packed.endswith(REMOTE_MARK) else None

    def _category(self) -> str | None:
        category = self._field(5)
        if category is None or type(category) is str:
            return category
        try:
            return CATEGORIES[category]
        except (IndexError, TypeError):
            return "unknown"

    def _shared_dict(self) -> JsonObject:
        return {
            "atof_version": ATOF_VERSION,
            "category": self._category(),
            "category_profile": self._fresh(11),
            "data": self._fresh(9),
            "data_schema": self._fresh(12),
            "kind": self.kind,
            "metadata": self._fresh(10),
            "name": self.name,
            "parent_uuid": self.parent_uuid,
            "timestamp": self.timestamp,
            "uuid": self.uuid,
        }

    def to_dict(self) -> JsonObject:
        """The event in canonical ATOF 0.1."""
        raise NotImplementedError

    def _dict_with_origin(self, session: str) -> JsonObject:
        """`to_dict()` with its origin in the metadata, but where that says one already, or is no object."""
        fields = self.to_dict()
        metadata = {} if fields["metadata"] is None else fields["metadata"]
        if isinstance(metadata, dict) and ORIGIN_KEY not in metadata:
            origin: JsonObject = {"pid": self.pid, "seq": self.seq, "session": session, "thread_id": self.thread_id}
            fields["metadata"] = dict(sorted({**metadata, ORIGIN_KEY: origin}.items()))
        return fields

    def _line_with_origin(self, session: str) -> bytes:
        """`event_line` of what the native half does not write."""
        return f"{_text(self, session)}\n".encode("utf-8", "surrogatepass")

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
        return "end" if self._field(0) == KIND_END else "start"

    @property
    def category(self) -> str:
        """The kind of work: one of ATOF's categories."""
        return self._category() or "unknown"

    @property
    def attributes(self) -> list[str]:
        """The scope's attributes by name: sorted, no duplicates."""
        return attribute_names(self._field(6))

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
        return _text(self) if line is None else line[:-1].decode()

    def to_json_line(self) -> bytes:
        """`to_json()` in UTF-8 with a line break behind it: what a JSON lines file holds."""
        return json_line(self._record, True) or f"{_text(self)}\n".encode("utf-8", "surrogatepass")

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
        """The severity of a log line: metadata's `relay_mp.log.severity`; None where that is not a severity."""
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
        return _text(self) if line is None else line[:-1].decode()

    def to_json_line(self) -> bytes:
        """`to_json()` in UTF-8 with a line break behind it: what a JSON lines file holds."""
        return json_line(self._record, False) or f"{_text(self)}\n".encode("utf-8", "surrogatepass")


Event: TypeAlias = ScopeEvent | MarkEvent

_CLASSES = (ScopeEvent, ScopeEvent, MarkEvent)
"""By a record's kind."""

view_of: Callable[..., Event | None] = functools.partial(view, _CLASSES)
"""`decode`, but None where the record does not start as the native encoder's do, or is not an event's."""


def decode(record: bytes, seq: int, pid: int, redelivered: bool = False) -> Event:
    """The event that a record holds. Reads the record's kind, and nothing else, until it is asked.

    Args:
        record: the payload of one ring record: a private copy, never a view of shared memory.
        seq: its place in the stream.
        pid: the emitting process.
        redelivered: whether a dispatcher's crash may have shown it before.

    Raises:
        RecordError: the bytes do not start as an event record does. Control records (kind 3) are not events.
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
