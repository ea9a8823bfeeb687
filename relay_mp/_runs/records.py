"""Events of recorded ones: records, encoded as the emitting process has done, so that exporters take them.

    RecordedEvent ──▶ pack_record ──▶ ScopeEvent, MarkEvent

Times, identities, order and emitters are those of the file.
"""

from uuid import UUID

from relay_mp._runs.reading import RecordedEvent
from relay_mp.errors import RecordError
from relay_mp.events import KIND_END, KIND_MARK, KIND_START, Event, decode, pack_record
from relay_mp.types import ATTRIBUTE_NAMES, CATEGORIES

_KINDS = {"start": KIND_START, "end": KIND_END, "mark": KIND_MARK}
_CODES = {name: code for code, name in enumerate(CATEGORIES)}
_BITS = {name: 1 << bit for bit, name in enumerate(ATTRIBUTE_NAMES)}
_PAYLOADS = ("data", "metadata", "category_profile", "data_schema")


def event_of(recorded: RecordedEvent) -> Event:
    """The event that a subscriber would have been given.

    Raises:
        RecordError: a UUID or a time of it cannot be in a record.
    """
    fields = recorded.fields
    attributes = fields.get("attributes")
    bits = sum({_BITS.get(name, 0) for name in attributes if isinstance(name, str)}) if attributes else 0
    category = None if recorded.category is None else _CODES.get(recorded.category, recorded.category)
    try:
        record = pack_record(
            _KINDS[recorded.kind],
            UUID(recorded.uuid).bytes,
            UUID(recorded.parent_uuid).bytes if recorded.parent_uuid else None,
            recorded.timestamp_us,
            recorded.name,
            category,
            bits,
            recorded.thread_id or 0,
            None,
            **{name: fields.get(name) for name in _PAYLOADS},
        )
    except (ValueError, OverflowError) as error:
        raise RecordError(f"the event {recorded.name!r:.60} cannot be a record: {error}") from error
    return decode(record, recorded.seq or 0, recorded.pid or 0)
