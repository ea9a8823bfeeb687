"""The table of the owner's middleware: what its bytes may be, and what is refused."""

import contextlib
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_mp import ConfigurationError
from relay_mp._plugins.components import Component
from relay_mp._session.configuration.table import FORMAT, Row, decode, encode


def row(**changes: Any) -> list[Any]:
    fields = {
        "number": 1,
        "kind": "mark_sanitize_guardrail",
        "name": "n",
        "local_name": "n",
        "priority": 1,
        "break_chain": False,
        "scope": None,
        "target": "across:redact",
        "arguments": None,
        "component": None,
    }
    return list({**fields, **changes}.values())


def table(*rows: Any, components: Any = (), version: Any = FORMAT) -> bytes:
    return msgpack.packb([version, list(components), list(rows)])


HOSTILE = {
    "nothing": b"",
    "garbage": bytes(range(256)),
    "no list": msgpack.packb({"a": 1}),
    "too few parts": msgpack.packb([1, []]),
    "another format": table(version=2),
    "a format of another type": table(version="1"),
    "rows that are none": msgpack.packb([1, [], 7]),
    "a row of another length": table(row()[:-1]),
    "a kind that is none": table(row(kind="subscribers")),
    "a kind of another type": table(row(kind=[1])),
    "a name of another type": table(row(name=b"n")),
    "a number below one": table(row(number=0)),
    "a priority of another type": table(row(priority=True)),
    "a scope that is no uuid": table(row(scope=b"short")),
    "arguments of another type": table(row(arguments=[1])),
    "keys that are no strings": table(row(arguments={1: 2})),
    "a component that there is not": table(row(component=1)),
    "a component before the first": table(row(component=-1)),
    "a component of another length": table(components=[["k"]]),
    "a component with an odd target": table(components=[["k", 1, 5, {}]]),
    "nesting without end": b"\x91" * 5000,
    "a length beyond the end": b"\xdd\xff\xff\xff\xff",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_content_is_refused_with_one_error(content):
    with pytest.raises(ConfigurationError, match="is damaged: "):
        decode(content)


SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "mark_sanitize_guardrail", b"0" * 16])


TABLES = st.tuples(st.just(1), st.lists(SCALARS), st.lists(st.lists(SCALARS)))


@given(st.binary(max_size=64) | TABLES.map(msgpack.packb))
def test_any_content_is_a_table_or_refused(content):
    with contextlib.suppress(ConfigurationError):
        assert isinstance(decode(content), tuple)


def test_rows_are_as_before_they_were_packed():
    component = Component("kind", 2, None, {"a": [1]})
    rows = tuple(
        Row(number, "tool_request_intercept", "n", "local", -5, True, b"0" * 16, target, arguments, of)
        for number, (target, arguments, of) in enumerate(
            [("m:a", {"x": None}, None), (None, None, component), (None, None, component._replace(ordinal=3))], 1
        )
    )
    assert decode(encode(rows)) == rows
    assert [row.is_reachable for row in rows] == [True, False, False]
