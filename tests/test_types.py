"""The vocabulary: values that compare, hash and pickle, and limits that name themselves."""

import pickle

import pytest

from relay_mp.types import (
    CATEGORIES,
    LogSeverity,
    MetricKind,
    MetricMeasurement,
    MetricValueType,
    ScopeAttributes,
    ScopeType,
    attribute_names,
)


def test_scope_types_are_the_eleven_categories_in_order():
    assert tuple(member.value for member in ScopeType) == CATEGORIES
    assert [member.code for member in ScopeType] == list(range(11))
    assert len(CATEGORIES) == 11


@pytest.mark.parametrize("member", [ScopeType.Agent, LogSeverity.Warn, MetricKind.UpDownCounter, MetricValueType.F64])
def test_members_print_as_they_are_written_and_pickle_to_themselves(member):
    written = f"{type(member).__name__}.{member.name}"
    assert repr(member) == str(member) == written
    assert pickle.loads(pickle.dumps(member)) is member
    assert {member: 1}[member] == 1
    assert int(member) == member.code


def test_severities_are_ordered_by_code():
    assert [severity.value for severity in sorted(LogSeverity, key=int)] == [
        "trace",
        "debug",
        "info",
        "warn",
        "error",
    ]


def test_attributes_drop_bits_that_are_no_flag():
    assert ScopeAttributes(255).value == 3
    assert ScopeAttributes().value == 0


@pytest.mark.parametrize("value", [-1, 1 << 32])
def test_attributes_beyond_32_bits_overflow(value):
    with pytest.raises(OverflowError, match="expected 0 to"):
        ScopeAttributes(value)


@pytest.mark.parametrize("value", ["a", 1.5, None])
def test_attributes_take_integers_only(value):
    with pytest.raises(TypeError):
        ScopeAttributes(value)


def test_attributes_are_values():
    parallel, relocatable = (
        ScopeAttributes(ScopeAttributes.PARALLEL),
        ScopeAttributes(ScopeAttributes.RELOCATABLE),
    )
    both = parallel | relocatable
    assert both == ScopeAttributes(3)
    assert hash(both) == hash(ScopeAttributes(3))
    assert both != 3
    assert both & parallel == parallel
    assert (both.is_parallel, parallel.is_relocatable) == (True, False)
    assert both.names() == ["parallel", "relocatable"]
    assert repr(both) == "ScopeAttributes(PARALLEL | RELOCATABLE)"
    assert repr(ScopeAttributes()) == "ScopeAttributes(0x0)"
    assert pickle.loads(pickle.dumps(both)) == both
    with pytest.raises(TypeError):
        both | 1
    with pytest.raises(AttributeError):
        both.value = 1


@pytest.mark.parametrize("bits", range(64))
def test_attribute_names_are_sorted_without_duplicates(bits):
    names = attribute_names(bits)
    assert names == sorted(set(names))
    assert len(names) == (bits & 31).bit_count()


def test_a_measurement_keeps_copies_and_compares_by_value():
    attributes = {"b": [1, 2], "a": "x"}
    first = MetricMeasurement("n", MetricKind.Histogram, MetricValueType.F64, 1, "ms", "d", attributes, [1, 2])
    attributes["b"].append(3)
    assert first.attributes == {"a": "x", "b": [1, 2]}
    assert list(first.attributes) == ["a", "b"]
    first.attributes["a"] = "changed"
    first.boundaries.append(9)
    assert first == MetricMeasurement(
        "n", MetricKind.Histogram, MetricValueType.F64, 1, "ms", "d", {"a": "x", "b": [1, 2]}, [1, 2]
    )
    assert pickle.loads(pickle.dumps(first)) == first
    with pytest.raises(AttributeError):
        first.name = "z"


@pytest.mark.parametrize(
    "arguments",
    [
        (3, MetricKind.Gauge, MetricValueType.F64, 1),
        ("n", "gauge", MetricValueType.F64, 1),
        ("n", MetricKind.Gauge, "f64", 1),
        ("n", MetricKind.Gauge, MetricValueType.F64, 1, 3),
        ("n", MetricKind.Gauge, MetricValueType.F64, 1, "ms", 3),
        ("n", MetricKind.Gauge, MetricValueType.F64, 1, "ms", "d", None, 3),
    ],
)
def test_a_measurement_of_wrong_types_is_refused_at_once(arguments):
    with pytest.raises(TypeError):
        MetricMeasurement(*arguments)
