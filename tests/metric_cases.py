"""Measurements, good and bad, for this library and for the peer: `python tests/metric_cases.py` prints the peer's.

Imports neither; see tests/test_metrics.py.
"""

import json
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

NUMBERS = (
    1, -1, 0, 1.5, True, "1", None, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 1e308, -0.0,
    float("nan"), float("inf"),
)  # fmt: skip
NAMES = ("a", "A.b-c/d_e", "1a", "", "a b", "é", "a" * 255, "a" * 256, ".a", "a$", " a", "a\n", 1, None)
UNITS = ("ms", "", "é", "x" * 63, "x" * 64, "{request}", "a b", 1, None)
ATTRIBUTES = (
    {}, None, {"a": 1}, {"a": None}, {"a": [1, 2]}, {"a": [1, "b"]}, {"a": []}, {"a": [1, 1.5]}, {"a": {"b": 1}},
    {"": 1}, {" ": 1}, {"a": float("nan")}, {"a": 2**63}, {"a": 2**63 - 1}, {"a": [True, 1]}, {"a": [[1]]},
    {"a": (1, 2)}, "x", {1: 2}, {"b": 1, "a": "é"},
)  # fmt: skip
BOUNDARIES = (
    [], None, [1], [1, 2], [2, 1], [1, 1], [float("nan")], [float("inf")], list(range(64)), list(range(65)), ["x"],
    [True], (1, 2), [-1, 0.5], "12", [2**70],
)  # fmt: skip


def cases(api: Any) -> Iterator[tuple[str, Any]]:
    """Each case's name, and what makes its measurements."""
    kinds = {name: getattr(api.MetricKind, name) for name in ("Counter", "UpDownCounter", "Gauge", "Histogram")}
    types = {name: getattr(api.MetricValueType, name) for name in ("U64", "I64", "F64")}

    def gauge(**changed: Any) -> Any:
        usual = {"name": "m", "kind": kinds["Gauge"], "value_type": types["F64"], "value": 1.0}
        return api.MetricMeasurement(**{**usual, **changed})

    def each(*changes: dict[str, Any]) -> Any:
        return [gauge(**changed) for changed in changes]

    for kind, its_kind in kinds.items():
        for value_type, its_type in types.items():
            for value in NUMBERS:
                changed = {"kind": its_kind, "value_type": its_type, "value": value}
                yield f"{kind} {value_type} {value!r}", partial(each, changed)
    for field, values in (("name", NAMES), ("unit", UNITS), ("attributes", ATTRIBUTES), ("boundaries", BOUNDARIES)):
        yield from ((f"{field} {value!r}", partial(each, {field: value})) for value in values)
    for value in BOUNDARIES:
        yield f"histogram {value!r}", partial(each, {"kind": kinds["Histogram"], "boundaries": value})
    yield from ((f"type of {field}", partial(each, {field: "gauge"})) for field in ("kind", "value_type", "attributes"))
    for field, value in (
        ("kind", kinds["UpDownCounter"]), ("unit", "s"), ("description", "d"), ("attributes", {"a": 1}),
    ):  # fmt: skip
        yield f"twice, another {field}", partial(each, {}, {field: value})
    yield "twice, another case", partial(each, {}, {"name": "M"})
    yield "twice, another case and unit", partial(each, {}, {"name": "M", "unit": "s"})
    yield "none", list
    yield "no list", gauge
    yield "no measurement", lambda: [1]


def run(api: Any) -> dict[str, Any]:
    """What `scope.metric` makes of each case: the mark's data, or the builtin class of the exception."""
    seen: list[Any] = []
    api.subscribers.register("metric-cases", seen.append)
    found: dict[str, Any] = {}
    for name, make in cases(api):
        seen.clear()
        try:
            api.scope.metric("measured", make())
            api.subscribers.flush()
            found[name] = [event.data for event in seen]
        except (TypeError, ValueError, OverflowError) as error:
            found[name] = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")
    api.subscribers.deregister("metric-cases")
    return found


if __name__ == "__main__":
    import nemo_relay

    json.dump(run(nemo_relay), sys.stdout)
