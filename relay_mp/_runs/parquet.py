"""Recorded events as a Parquet file: a row an event, payloads as JSON texts. Needs the extra `parquet` (pyarrow).

The rows are in the order of the events. A file is written in groups of ROWS_PER_GROUP rows, so that memory does not
grow with it.
"""

import json
from types import TracebackType
from typing import Any, BinaryIO, Self

import pyarrow
import pyarrow.parquet

from relay_mp._runs.reading import RecordedEvent

ROWS_PER_GROUP = 65_536

PAYLOADS = ("data", "metadata", "category_profile", "data_schema")

SCHEMA = pyarrow.schema(
    [
        ("kind", pyarrow.string()),
        ("uuid", pyarrow.string()),
        ("parent_uuid", pyarrow.string()),
        ("timestamp", pyarrow.timestamp("us", tz="UTC")),
        ("name", pyarrow.string()),
        ("category", pyarrow.string()),
        ("session", pyarrow.string()),
        ("seq", pyarrow.uint64()),
        ("pid", pyarrow.uint64()),
        ("thread_id", pyarrow.uint64()),
        ("attributes", pyarrow.list_(pyarrow.string())),
        *((name, pyarrow.string()) for name in PAYLOADS),
    ]
)

_dumps = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode


class ParquetFile:
    """A file that is written, for use in `with`: it is whole at the end.

    Args:
        file: open for writing; left open.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._writer = pyarrow.parquet.ParquetWriter(file, SCHEMA)
        self._rows: list[dict[str, Any]] = []

    def append(self, event: RecordedEvent) -> None:
        """One more row."""
        fields = event.fields
        self._rows.append(
            {
                "kind": event.kind,
                "uuid": event.uuid,
                "parent_uuid": event.parent_uuid,
                "timestamp": event.timestamp_us,
                "name": event.name,
                "category": event.category,
                "session": event.session,
                "seq": event.seq,
                "pid": event.pid,
                "thread_id": event.thread_id,
                "attributes": fields.get("attributes"),
                **{name: None if fields.get(name) is None else _dumps(fields[name]) for name in PAYLOADS},
            }
        )
        if len(self._rows) >= ROWS_PER_GROUP:
            self._write()

    def _write(self) -> None:
        self._writer.write_table(pyarrow.Table.from_pylist(self._rows, SCHEMA))
        self._rows.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rows:
            self._write()
        self._writer.close()
