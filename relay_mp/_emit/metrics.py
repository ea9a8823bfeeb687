"""Measurements, checked and made into the data of a metric mark.

Runs in the emitting process, called by `scope.metric` before anything is emitted: one bad measurement
refuses them all, by its place in the list; but one whose value is NaN or infinite, as a computation gives it, is left
out and counted (an error in strict mode). The limits are OpenTelemetry's for instruments, so that an
exporter downstream never has to drop a measurement that the emitter thought was recorded.
"""

import math
import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from relay_mp._native.encoder import is_strict, tell_replaced
from relay_mp.errors import PayloadError, described_type
from relay_mp.types import DataSchema, Json, MetricKind, MetricMeasurement, MetricValueType

__all__ = ["METRIC_SCHEMA", "measurements_payload"]

METRIC_SCHEMA: DataSchema = {"name": "relay_mp.metric_measurements", "version": "1"}
"""The schema of a metric mark's data."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.\-/]{0,254}", re.ASCII)
MAX_BOUNDARIES = 64
_MAX_UNIT_CHARACTERS = 63
_MAX_INTEGER = 2**63 - 1
_MIN_INTEGER = -(2**63)

_VALUE_TYPES = {
    MetricKind.Counter: (MetricValueType.U64, MetricValueType.F64),
    MetricKind.UpDownCounter: (MetricValueType.I64, MetricValueType.F64),
    MetricKind.Gauge: (MetricValueType.U64, MetricValueType.I64, MetricValueType.F64),
    MetricKind.Histogram: (MetricValueType.U64, MetricValueType.F64),
}


def measurements_payload(measurements: Iterable[MetricMeasurement]) -> dict[str, Any] | None:
    """The data of the mark that carries the measurements; None: all of them were left out.

    Raises:
        PayloadError: there are no measurements, one does not hold together, or two disagree about an instrument.
        TypeError: it is not an iterable of MetricMeasurement.
    """
    encoded: list[dict[str, Json]] = []
    instruments: dict[str, tuple[int, tuple[object, ...]]] = {}
    for index, measurement in enumerate(measurements):
        place = f"measurements[{index}]"
        if not isinstance(measurement, MetricMeasurement):
            raise TypeError(f"{place} is {described_type(measurement)}; expected MetricMeasurement")
        _check(measurement, place)
        # OpenTelemetry's instrument names do not differ by case alone.
        key = measurement.name.lower()
        descriptor = (measurement.kind, measurement.value_type, measurement.unit)
        first, known = instruments.setdefault(key, (index, descriptor))
        if known != descriptor:
            raise PayloadError(
                f"{place}: {measurement.name!r} differs in kind, value_type or unit from "
                f"measurements[{first}], which has the same name"
            )
        if _is_left_out(measurement, place):
            continue
        encoded.append(measurement.to_dict())
    if not encoded and instruments:
        return None
    if not encoded:
        raise PayloadError("measurements is empty; expected at least one")
    return {"measurements": encoded}


def _check(measurement: MetricMeasurement, place: str) -> None:
    if _NAME.fullmatch(measurement.name) is None:
        raise PayloadError(
            f"{place}.name is {measurement.name!r:.80}; expected 1 to 255 ASCII characters: a letter, then "
            "letters, digits, '_', '.', '-' or '/'"
        )
    unit = measurement.unit
    if unit is not None and (not unit.isascii() or len(unit) > _MAX_UNIT_CHARACTERS):
        raise PayloadError(f"{place}.unit is {unit!r:.80}; expected at most 63 ASCII characters")
    if measurement.value_type not in _VALUE_TYPES[measurement.kind]:
        expected = ", ".join(value_type.value for value_type in _VALUE_TYPES[measurement.kind])
        raise PayloadError(
            f"{place}: a {measurement.kind.value} does not take value_type {measurement.value_type.value}; "
            f"expected one of {expected}"
        )
    _check_value(measurement, place)
    _check_boundaries(measurement, place)
    _check_attributes(measurement._attributes, place)


def _check_value(measurement: MetricMeasurement, place: str) -> None:
    value = measurement.value
    if measurement.value_type is MetricValueType.F64:
        if not _is_number(value) or (is_strict() and not _is_finite(value)):
            raise PayloadError(f"{place}.value is {value!r:.80}; expected a finite number")
    else:
        unsigned = measurement.value_type is MetricValueType.U64
        lowest = 0 if unsigned else _MIN_INTEGER
        if type(value) is not int or not lowest <= value <= _MAX_INTEGER:
            raise PayloadError(f"{place}.value is {value!r:.80}; expected an int from {lowest} to {_MAX_INTEGER}")
    if measurement.kind is MetricKind.Counter and value < 0:
        raise PayloadError(f"{place}.value is {value!r:.80}; a counter only goes up")


def _is_left_out(measurement: MetricMeasurement, place: str) -> bool:
    if measurement.value_type is not MetricValueType.F64 or _is_finite(measurement.value):
        return False
    tell_replaced(f"{place}.value", repr(measurement.value))
    return True


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value) and (isinstance(value, float) or _MIN_INTEGER <= value < 2**64)
    except OverflowError:
        return False


def _check_boundaries(measurement: MetricMeasurement, place: str) -> None:
    boundaries = measurement._boundaries
    if boundaries is None:
        return
    if measurement.kind is not MetricKind.Histogram:
        raise PayloadError(f"{place}.boundaries: only a histogram has them, not a {measurement.kind.value}")
    if len(boundaries) > MAX_BOUNDARIES:
        raise PayloadError(f"{place}.boundaries has {len(boundaries)} entries; expected at most {MAX_BOUNDARIES}")
    if not all(math.isfinite(boundary) for boundary in boundaries):
        raise PayloadError(f"{place}.boundaries are {boundaries!r:.80}; expected finite numbers")
    if any(low >= high for low, high in pairwise(boundaries)):
        raise PayloadError(f"{place}.boundaries are {boundaries!r:.80}; expected them strictly increasing")


def _check_attributes(attributes: object, place: str) -> None:
    if attributes is None:
        return
    if not isinstance(attributes, dict):
        raise PayloadError(f"{place}.attributes is {described_type(attributes)}; expected a dict")
    for key, value in attributes.items():
        if not isinstance(key, str) or not key.strip():
            raise PayloadError(f"{place}.attributes has the key {key!r:.80}; expected a str that is not blank")
        where = f"{place}.attributes[{key!r:.80}]"
        if not isinstance(value, list):
            _check_primitive(value, where)
            continue
        if not value:
            raise PayloadError(f"{where} is an empty list, which has no type; leave it out")
        for item in value:
            _check_primitive(item, where)
        if len({type(item) for item in value}) > 1:
            raise PayloadError(f"{where} is {value!r:.80}; expected a list of one type")


def _check_primitive(value: object, where: str) -> None:
    if isinstance(value, (str, bool)):
        return
    if isinstance(value, int) and _MIN_INTEGER <= value <= _MAX_INTEGER:
        return
    if isinstance(value, float) and math.isfinite(value):
        return
    raise PayloadError(
        f"{where} is {value!r:.80}; expected str, bool, a finite float, an int of 64 bits, or a list of one of these"
    )
