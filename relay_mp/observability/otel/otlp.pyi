"""Types of the compiled module otlp.pyx; what each name does is said there.

`tests/native/test_stubs.py` compares the two.
"""

from typing import Any

from relay_mp._records.records import RecordView
from relay_mp.observability.otel.limits import AttributeLimits
from relay_mp.observability.otel.places import Place

class AttributeNames:
    def __init__(self, names: dict[str, str], own: dict[str, str] | None = None) -> None: ...
    @property
    def own(self) -> dict[str, str] | None: ...

def frame(field: int, message: bytes) -> bytes: ...

class ValueWriter:
    def __init__(self, max_bytes: int, max_depth: int) -> None: ...
    def attributes(self, attributes: dict[str, Any], field: int) -> bytes: ...

class LogWriter(ValueWriter):
    def __init__(self, max_bytes: int, max_depth: int, limits: AttributeLimits | None = None) -> None: ...
    def record(
        self,
        time_us: int,
        observed_ns: int,
        severity: int,
        severity_text: str,
        body: Any,
        attributes: dict[str, Any],
        place: Place,
        name: str,
    ) -> bytes: ...

class SpanWriter(ValueWriter):
    def __init__(
        self, max_bytes: int, limits: AttributeLimits | None = None, event_limits: AttributeLimits | None = None
    ) -> None: ...
    def event(self, name: str, time_us: int) -> None: ...
    def span(
        self,
        event: RecordView,
        place: Place,
        name: str,
        kind: int,
        start_us: int,
        end_us: int,
    ) -> None: ...
    def add(self, names: AttributeNames, event: RecordView | None) -> None: ...
    def update(self, attributes: dict[str, Any]) -> None: ...
    def set(self, key: str, value: Any) -> None: ...
    def copy(self, key: str, alias: str) -> None: ...
    def finish(
        self, events: list[bytes] | None = None, status: tuple[int, str] | None = None, dropped_events: int = 0
    ) -> bytes: ...
