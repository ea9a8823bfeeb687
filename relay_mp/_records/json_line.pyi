"""Types of the compiled module json_line.pyx; what each name does is said there.

`tests/native/test_stubs.py` compares the two.
"""

from typing import Any

from relay_mp._records.records import RecordView

def json_line(record: bytes, is_scope: bool) -> bytes | None: ...
def event_line(event: Any, session: bytes | None = None) -> bytes: ...
def json_lines(
    events: list[Any], limit_bytes: int, room_bytes: int, session: bytes | None = None
) -> tuple[bytes, int]: ...
def payload_json(event: RecordView, index: int) -> str | None: ...
