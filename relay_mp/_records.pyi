"""Types of the compiled module _records.pyx; what each name does is said there.

`tests/native/test_stubs.py` compares the two.
"""

from typing import Any

class RecordView:
    _fields: list[Any] | None
    _payloads: list[Any] | None
    seq: int
    pid: int
    redelivered: bool
    def __init__(self, record: bytes, seq: int, pid: int, redelivered: bool = False) -> None: ...
    @property
    def _record(self) -> bytes: ...

def view(
    classes: tuple[type[RecordView], ...], record: bytes, seq: int, pid: int, redelivered: bool = False
) -> Any: ...
def read_fields(record: bytes) -> list[Any] | None: ...
def json_line(record: bytes, is_scope: bool) -> bytes | None: ...
