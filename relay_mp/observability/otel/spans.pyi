"""Types of the compiled module spans.pyx; what each name does is said there.

`tests/native/test_stubs.py` compares the two.
"""

from collections.abc import Callable, Iterable
from typing import Any

from relay_mp._deliver.reports import ExporterReport
from relay_mp._records.records import RecordView
from relay_mp.observability.otel.limits import AttributeLimits
from relay_mp.observability.otel.places import Traces

MAX_SPAN_EVENT_BYTES: int
MAX_STATUS_BYTES: int

class Spans:
    def __init__(
        self,
        projection: Any,
        note_failure: Callable[[Exception, int], object],
        *,
        max_attribute_bytes: int,
        max_open_scopes: int,
        max_open_bytes: int,
        ttl_millis: int,
        max_span_events: int,
        event_count_limit: int | None = None,
        limits: AttributeLimits | None = None,
        event_limits: AttributeLimits | None = None,
        as_tools: bool = False,
        never_tools: Iterable[str] = (),
        aliases: Iterable[tuple[str, str]] = (),
        promoted: Iterable[str] = (),
        is_sampled: Callable[[bytes], bool] | None = None,
        resource_of: Callable[[Any], int] | None = None,
    ) -> None: ...
    @property
    def made(self) -> list[tuple[tuple[bytes, int, int], int, int, int]]: ...
    @property
    def traces(self) -> Traces: ...
    @property
    def ignored(self) -> int: ...
    @property
    def over_limit(self) -> int: ...
    def take(self, events: list[Any], before: int) -> tuple[int, Exception | None]: ...
    def finish(self, limit: int) -> bool: ...
    def complete(self, report: ExporterReport) -> None: ...

def promoted_of(event: RecordView | None, prefixes: tuple[str, ...]) -> dict[str, Any]: ...
