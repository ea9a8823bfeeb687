"""Measurements become sums, last values and histograms, by instrument and attributes.

    metric mark's data ──▶ Aggregator ──▶ Window (since its start; what is delta)
                                      └─▶ the lasting window (since the registration; what is cumulative)

One dispatcher sees the measurements of all processes, in one order, so that the sums are the session's and a
gauge's last value is the last. A mark's measurements count all or not at all. Kinds, overflow series and default
boundaries are those of OpenTelemetry's metrics SDK specification. Why not its Python SDK: a measurement
takes 16 us of the dispatcher's thread there and 4.4 here (medians of one interleaved run, CPU time), it does not
count what overflows, and a mark of which one measurement is refused would count in part.
"""

import copy
import json
import math
from bisect import bisect_left
from typing import Any

from relay_mp._emit.metrics import measurements_payload
from relay_mp.errors import described_type
from relay_mp.types import MetricKind, MetricMeasurement, MetricValueType

__all__ = [
    "DEFAULT_BOUNDARIES",
    "MAX_ATTRIBUTES_BYTES",
    "OVERFLOW",
    "Aggregator",
    "Instrument",
    "Part",
    "Rejected",
    "Series",
    "Table",
    "Window",
]

DEFAULT_BOUNDARIES = (0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10_000)

MAX_ATTRIBUTES_BYTES = 16 * 1024
"""Of one set of attributes, about; measurements with a larger one go into the overflow series."""

OVERFLOW = {"otel.metric.overflow": True}

DROP_INVALID, DROP_CONFLICT, DROP_INSTRUMENTS = "invalid_measurement", "descriptor_conflict", "instrument_limit"

_KINDS = {kind.value: kind for kind in MetricKind}
_VALUE_TYPES = {value_type.value: value_type for value_type in MetricValueType}

_OVERFLOW_KEY = ("otel.metric.overflow", bool, True)

Key = tuple[Any, ...]


class Rejected(Exception):
    """A mark whose measurements do not count. `cause`: for the report."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class Instrument:
    """What is measured under one name. Two names that differ by case alone are one."""

    __slots__ = ("boundaries", "description", "is_delta", "kind", "name", "unit", "value_type")

    def __init__(self, measurement: MetricMeasurement, is_delta: bool) -> None:
        self.name = measurement.name
        self.kind = measurement.kind
        self.value_type = measurement.value_type
        self.unit = measurement.unit
        self.description = measurement.description
        boundaries = measurement.boundaries
        self.boundaries = list(DEFAULT_BOUNDARIES) if boundaries is None else boundaries
        self.is_delta = is_delta and self.kind is not MetricKind.UpDownCounter


class Series:
    """What one set of attributes has come to. A sum or last value, or a histogram's."""

    __slots__ = ("attributes", "bucket_counts", "count", "max", "min", "value")

    def __init__(self, instrument: Instrument, attributes: dict[str, Any]) -> None:
        self.attributes = attributes
        self.value: float = 0 if instrument.value_type is not MetricValueType.F64 else 0.0
        self.count = 0
        if instrument.kind is MetricKind.Histogram:
            self.bucket_counts = [0] * (len(instrument.boundaries) + 1)
            self.min, self.max = math.inf, -math.inf

    def copy(self) -> "Series":
        """As it stands; what is measured later does not change it."""
        made = copy.copy(self)
        if hasattr(self, "bucket_counts"):
            made.bucket_counts = self.bucket_counts.copy()
        return made

    def record(self, instrument: Instrument, value: float) -> None:
        """One measurement."""
        if instrument.kind is MetricKind.Gauge:
            self.value = value
            return
        self.value += value
        if instrument.kind is MetricKind.Histogram:
            self.count += 1
            self.bucket_counts[bisect_left(instrument.boundaries, value)] += 1
            self.min, self.max = min(self.min, value), max(self.max, value)


Table = tuple[Instrument, int, list[Series]]
"""What is measured under one name, since when, and what each set of attributes has come to."""

Part = list[Table]
"""What goes into one request."""


class Window:
    """What was measured from one moment to another, in nanoseconds since the epoch."""

    def __init__(self, start_ns: int, end_ns: int | None = None) -> None:
        self.start_ns = start_ns
        self.end_ns = end_ns
        self.marks = 0
        self.series: dict[Instrument, dict[Key, Series]] = {}
        self.requests: list[Part] | None = None
        """What is still to be sent of it, once that has begun."""
        self.points = self.lost_points = 0
        """What it had to send when that began, and what of it a receiver has no room for."""


Parsed = tuple[Instrument, Key, dict[str, Any], float]


class Aggregator:
    """See the module. One thread at a time.

    Args:
        is_delta: whether counters, gauges and histograms count in the window that `count` is given.
        max_instruments: marks that would make more are rejected.
        cardinality_limit: sets of attributes of one instrument in one window; further ones are summed up in
            the overflow series.
        start_ns: since when all that is cumulative counts.
    """

    def __init__(self, *, is_delta: bool, max_instruments: int, cardinality_limit: int, start_ns: int) -> None:
        self._is_delta = is_delta
        self._max_instruments = max_instruments
        self._cardinality_limit = cardinality_limit
        self._instruments: dict[str, Instrument] = {}
        self.lasting = Window(start_ns)
        self.overflowed = 0

    def parse(self, data: Any, window: Window) -> list[Parsed]:
        """The measurements of one mark, for `count`.

        Raises:
            Rejected: they are not measurements, contradict earlier ones, or make too many instruments; none counts.
        """
        new: dict[str, Instrument] = {}
        try:
            parsed = [self._parse(measurement, new, window) for measurement in data["measurements"]]
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise Rejected(DROP_INVALID, f"{type(error).__name__}: {error}") from None
        self._instruments.update(new)
        return parsed

    def count(self, parsed: list[Parsed], window: Window) -> None:
        """Adds measurements to what there is."""
        window.marks += 1
        for instrument, key, attributes, value in parsed:
            table = self._table(instrument, window)
            series = table.get(key)
            if series is None:
                series = self._begin(instrument, table, key, attributes)
            series.record(instrument, value)

    def _table(self, instrument: Instrument, window: Window) -> dict[Key, Series]:
        return (window if instrument.is_delta else self.lasting).series.setdefault(instrument, {})

    def _parse(self, found: dict[str, Any], new: dict[str, Instrument], window: Window) -> Parsed:
        name = found["name"].lower()
        instrument = self._instruments.get(name) or new.get(name)
        kind, value_type = _KINDS[found["kind"]], _VALUE_TYPES[found["value_type"]]
        if instrument is None:
            instrument = new[name] = self._make(found, len(new))
        elif instrument.kind is not kind or instrument.value_type is not value_type or instrument.unit != found["unit"]:
            raise Rejected(
                DROP_CONFLICT,
                f"{found['name']!r} is a {value_type.value} {kind.value} in {found['unit']!r}; it was a "
                f"{instrument.value_type.value} {instrument.kind.value} in {instrument.unit!r}",
            )
        attributes = found["attributes"] or {}
        key = _key(attributes)
        if key not in self._table(instrument, window):
            _checked(found)
        return instrument, key, attributes, _value(instrument, found["value"])

    def _make(self, found: dict[str, Any], more: int) -> Instrument:
        if len(self._instruments) + more >= self._max_instruments:
            limit = self._max_instruments
            raise Rejected(DROP_INSTRUMENTS, f"{found['name']!r} would be one more instrument than {limit}")
        return Instrument(_checked(found), self._is_delta)

    def _begin(self, instrument: Instrument, table: dict[Key, Series], key: Key, attributes: dict[str, Any]) -> Series:
        if len(table) - (_OVERFLOW_KEY in table) < self._cardinality_limit and _is_small(attributes):
            series = table[key] = Series(instrument, attributes)
            return series
        self.overflowed += 1
        if _OVERFLOW_KEY not in table:
            table[_OVERFLOW_KEY] = Series(instrument, OVERFLOW)
        return table[_OVERFLOW_KEY]


def _checked(found: dict[str, Any]) -> MetricMeasurement:
    """The measurement, checked as `scope.metric` does it: a sanitizer or another writer may have changed the mark."""
    given = {**found, "kind": _KINDS[found["kind"]], "value_type": _VALUE_TYPES[found["value_type"]]}
    measurement = MetricMeasurement(**given)
    measurements_payload([measurement])
    json.dumps(found, ensure_ascii=False).encode()  # no lone surrogate: UnicodeEncodeError is a ValueError
    return measurement


def _key(attributes: dict[str, Any]) -> Key:
    """What tells sets of attributes apart: also True from 1 from 1.0. They are sorted by name already."""
    key: list[Any] = []
    for name, value in attributes.items():
        kind = value.__class__
        if kind is list:
            key += (name, list, *((item.__class__, item) for item in value))
        elif kind in _ATTRIBUTE_TYPES:
            key += (name, kind, value)
        else:
            raise TypeError(f"the attribute {name!r} is a {kind.__name__}")
    return tuple(key)


_ATTRIBUTE_TYPES = frozenset((str, bool, int, float))


def _is_small(attributes: dict[str, Any]) -> bool:
    return len(repr(attributes)) <= MAX_ATTRIBUTES_BYTES


def _value(instrument: Instrument, value: Any) -> float:
    is_float = instrument.value_type is MetricValueType.F64
    if value.__class__ is not int and not (is_float and value.__class__ is float):
        raise TypeError(f"{instrument.name!r} is {described_type(value)}")
    if is_float:
        value = float(value)
        if not math.isfinite(value):
            raise ValueError(f"{instrument.name!r} is {value}")
    if value < 0 and instrument.kind is MetricKind.Counter:
        raise ValueError(f"{instrument.name!r} is {value}; a counter only goes up")
    return value  # type: ignore[no-any-return]
