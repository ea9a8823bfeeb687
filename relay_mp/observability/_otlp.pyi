"""Types of the compiled module _otlp.pyx; what each name does is said there.

`tests/native/test_stubs.py` compares the two.
"""

from collections.abc import Mapping
from typing import Any

from relay_mp._records import RecordView

def flatten(
    found: dict[str, Any], prefix: str, event: RecordView, index: int, own: Mapping[str, str] | None = None
) -> bool: ...

class SpanEncoder:
    def __init__(self, max_bytes: int) -> None: ...
    def event(self, name: str, time_us: int, attributes: dict[str, Any]) -> bytes: ...
    def span(
        self,
        event: RecordView,
        place: tuple[bytes, bytes | None, bool],
        name: str,
        kind: int,
        start_us: int,
        end_us: int,
        attributes: dict[str, Any],
        events: list[bytes],
        status: tuple[int, str] | None,
    ) -> bytes: ...
