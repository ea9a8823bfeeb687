"""What the verbs emit, into a real ring read by hand: order, times, metadata, and what is refused."""

import asyncio
import contextlib
import contextvars
import dataclasses
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from relay_mp import scope
from relay_mp._emit import context
from relay_mp._native.encoder import set_strict
from relay_mp.errors import PayloadError, ScopeError
from relay_mp.types import (
    LogSeverity,
    MetricKind,
    MetricMeasurement,
    MetricValueType,
    ScopeAttributes,
    ScopeType,
)

pytest_plugins = ["recorder"]

AHEAD = datetime(2090, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def own_context():
    token = context._current.set(None)
    yield
    context._current.reset(token)


def push(name="s", **arguments):
    return scope.push(name, ScopeType.Agent, **arguments)


class Unsupported:
    pass


# -------------------------------------------------------------------------------------- the events


def test_a_scope_emits_start_and_end_a_mark_itself(recorder):
    root = scope.get_handle()
    handle = push("a", input={"i": "é"}, data={"d": 1}, metadata={"k": 1}, attributes=ScopeAttributes(3))
    scope.event("m", data=[1])
    scope.pop(handle, output={"o": 1.0}, metadata={"k": 2, "n": None})
    start, mark, end = recorder.events()
    assert (start.scope_category, start.data, start.metadata) == ("start", {"i": "é"}, {"k": 1})
    assert start.attributes == end.attributes == ["parallel", "relocatable"]
    assert start.uuid == end.uuid == handle.uuid == mark.parent_uuid
    assert start.parent_uuid == end.parent_uuid == root.uuid
    assert (end.scope_category, end.data, end.metadata) == ("end", {"o": 1.0}, {"k": 2, "n": None})
    assert (mark.kind, mark.name, mark.data, mark.metadata, mark.category) == ("mark", "m", [1], None, None)
    assert handle.data == {"d": 1}
    assert start.timestamp_us <= mark.timestamp_us <= end.timestamp_us
    assert start.seq < mark.seq < end.seq


@pytest.mark.parametrize("scope_type", ScopeType)
def test_every_type_is_its_category(recorder, scope_type):
    with scope.scope("s", scope_type):
        pass
    assert [event.category for event in recorder.events()] == [scope_type.value] * 2


def test_marks_take_the_parent_they_are_given(recorder):
    outer, _inner = push("outer"), push("inner")
    scope.event("m", handle=outer)
    assert recorder.events()[-1].parent_uuid == outer.uuid


def test_severity_and_schema(recorder):
    scope.event("a", severity=LogSeverity.Warn, metadata={"x": 1})
    scope.event("b", severity=LogSeverity.Error, data_schema={"name": "n", "version": "1", "more": 2})
    first, second = recorder.events()
    assert first.metadata == {"x": 1, "relay_mp.log.severity": "warn"}
    assert first.severity is LogSeverity.Warn
    assert second.metadata == {"relay_mp.log.severity": "error"}
    assert second.data_schema == {"name": "n", "version": "1"}


def test_records_carry_the_active_stack_only_while_scope_locals_live(recorder):
    root = scope.get_handle()
    outer = push("outer")
    recorder.listen(1, 1)
    inner = scope.push("inner", ScopeType.Tool, handle=root)
    scope.event("m", handle=root)
    contextvars.Context().run(scope.pop, inner)
    recorder.listen(1, 0)
    scope.event("later")
    _, start, mark, end, later = recorder.events()
    assert start.stack == (outer.uuid, root.uuid)
    assert mark.stack == end.stack == (inner.uuid, outer.uuid, root.uuid)
    assert later.stack is None


# -------------------------------------------------------------------------------------------- times


def test_an_end_is_strictly_later_than_a_start_ahead_of_the_clock(recorder):
    scope.pop(push(timestamp=AHEAD))
    start, end = recorder.events()
    assert start.timestamp == "2090-01-01T00:00:00+00:00"
    assert end.timestamp == "2090-01-01T00:00:00.000001+00:00"


def test_ends_are_strictly_later_than_starts_at_full_speed(recorder):
    for _ in range(300):
        scope.pop(push())
    events = recorder.events()
    assert all(end.timestamp_us > start.timestamp_us for start, end in zip(events[::2], events[1::2], strict=True))


@pytest.mark.parametrize("end", [AHEAD, AHEAD - timedelta(days=1)])
def test_an_explicit_end_is_kept_as_given(recorder, end):
    scope.pop(push(timestamp=AHEAD), timestamp=end)
    with scope.scope("s", ScopeType.Agent, timestamp=AHEAD, end_timestamp=end):
        pass
    events = recorder.events()
    assert {datetime.fromisoformat(event.timestamp) for event in events[1::2]} == {end}


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2020, 1, 1, 0, 0, 0, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        datetime(1960, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ],
)
def test_times_arrive_exactly_in_utc(recorder, moment):
    scope.event("m", timestamp=moment)
    assert datetime.fromisoformat(recorder.events()[0].timestamp) == moment


def test_times_beyond_datetime_in_utc_arrive(recorder):
    scope.event("m", timestamp=datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))))
    assert recorder.events()[0].timestamp == "+10000-01-01T04:59:59.999999+00:00"


@pytest.mark.parametrize(
    ("moment", "error"),
    [
        (datetime(2020, 1, 1), ValueError),
        (date(2020, 1, 1), TypeError),
        ("2020-01-01T00:00:00Z", TypeError),
        (1.0, TypeError),
    ],
)
def test_naive_times_and_no_times_are_refused_and_nothing_moves(recorder, moment, error):
    root = scope.get_handle()
    with pytest.raises(error, match="timezone-aware"):
        scope.event("m", timestamp=moment)
    with pytest.raises(error):
        push(timestamp=moment)
    with pytest.raises(error), scope.scope("s", ScopeType.Agent, end_timestamp=moment):
        pytest.fail("entered")
    assert scope.get_handle() is root
    handle = push()
    with pytest.raises(error):
        scope.pop(handle, timestamp=moment)
    scope.pop(handle)
    assert [event.kind for event in recorder.events()] == ["scope", "scope"]


# ----------------------------------------------------------------------------------------- metadata


@dataclasses.dataclass
class Fields:
    a: int
    c: int


@pytest.mark.parametrize(
    ("start", "end", "merged"),
    [
        (None, {"a": 1}, {"a": 1}),
        ({"a": 1}, None, {"a": 1}),
        ({"a": 1, "b": 2}, {"a": None}, {"a": None, "b": 2}),
        ([1], {"a": 1}, {"a": 1}),
        ({"a": 1}, [1], [1]),
        ({"a": {"x": 1}}, {"a": {"y": 1}}, {"a": {"y": 1}}),
        ([1], None, [1]),
        ({"a": 1}, {}, {"a": 1}),
        ({}, {}, {}),
        ({"a": 1, "b": 2}, Fields(5, 6), {"a": 5, "b": 2, "c": 6}),
        ("text", None, "text"),
    ],
)
def test_an_ends_metadata_is_merged_over_the_starts(recorder, start, end, merged):
    scope.pop(push(metadata=start), metadata=end)
    assert recorder.events()[-1].metadata == merged


def test_metadata_changed_after_push_does_not_change_the_end(recorder):
    metadata = {"a": 1}
    handle = push(metadata=metadata)
    metadata["a"] = 2
    scope.pop(handle)
    assert recorder.events()[-1].metadata == {"a": 1}


# ---------------------------------------------------------------------------------------- the block


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, {"otel.status_code": "OK"}),
        (ValueError("x"), {"otel.status_code": "ERROR", "otel.status_description": "x"}),
        (ValueError(), {"otel.status_code": "ERROR", "otel.status_description": ""}),
        (KeyError("k"), {"otel.status_code": "ERROR", "otel.status_description": "'k'"}),
        (StopIteration(3), {"otel.status_code": "ERROR", "otel.status_description": "3"}),
        (asyncio.CancelledError(), {"otel.status_code": "ERROR", "otel.status_description": "cancelled"}),
        (asyncio.CancelledError("why"), {"otel.status_code": "ERROR", "otel.status_description": "why"}),
        (KeyboardInterrupt(), {"otel.status_code": "UNSET"}),
        (GeneratorExit(), {"otel.status_code": "UNSET"}),
        (SystemExit(1), {"otel.status_code": "UNSET"}),
        (
            ExceptionGroup("g", [ValueError("a")]),
            {"otel.status_code": "ERROR", "otel.status_description": "g (1 sub-exception)"},
        ),
        (ValueError("\ud800"), {"otel.status_code": "ERROR", "otel.status_description": "\\ud800"}),
        (
            Unprintable(),
            {
                "otel.status_code": "ERROR",
                "otel.status_description": "<Unprintable, whose text could not be had>",
            },
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_end_says_how_the_block_ended(recorder, error, status):
    raised = None
    try:
        with scope.scope("s", ScopeType.Agent, input=1, metadata={"m": 1}):
            if error is not None:
                raise error
    except BaseException as caught:
        raised = caught
    assert raised is error
    start, end = recorder.events()
    assert (start.data, start.metadata) == (1, {"m": 1})
    told = {key: value for key, value in end.metadata.items() if not key.startswith("exception.")}
    assert (end.data, told) == (None, {"m": 1, **status})
    assert scope.get_handle().name == "root"


def test_a_cancelled_task_says_so(recorder):
    async def main():
        async def work():
            with scope.scope("work", ScopeType.Agent):
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    ended = recorder.events()[-1].metadata
    assert (ended["otel.status_code"], ended["otel.status_description"]) == ("ERROR", "cancelled")


def test_a_closed_generator_is_unset(recorder):
    def work():
        with scope.scope("work", ScopeType.Agent):
            yield 1

    generator = work()
    next(generator)
    generator.close()
    assert recorder.events()[-1].metadata == {"otel.status_code": "UNSET"}


@pytest.mark.parametrize("error", [None, KeyError("body")])
def test_a_block_whose_scope_was_popped_inside_has_ended(recorder, error):
    def run():
        with scope.scope("s", ScopeType.Agent) as handle:
            scope.pop(handle)
            if error:
                raise error

    with pytest.raises(KeyError) if error else contextlib.nullcontext():
        run()
    assert [event.scope_category for event in recorder.events()] == ["start", "end"]
    assert scope.get_handle().name == "root"


@pytest.mark.parametrize("error", [None, KeyError("body")])
def test_a_block_that_leaves_a_child_open_ends_and_the_child_ends_later_under_it(recorder, error):
    opened = []

    def run():
        with scope.scope("s", ScopeType.Agent):
            opened.append(push("child"))
            if error:
                raise error

    with pytest.raises(KeyError) if error else contextlib.nullcontext():
        run()
    assert scope.get_handle().name == "root"
    scope.pop(opened[0])
    assert scope.get_handle().name == "root"
    events = [(event.name, event.scope_category) for event in recorder.events()]
    assert events == [("s", "start"), ("child", "start"), ("s", "end"), ("child", "end")]


def test_a_block_serves_again_but_not_inside_itself(recorder):
    block = scope.scope("s", ScopeType.Agent)
    with block as first:
        with pytest.raises(ScopeError, match="running already"):
            block.__enter__()
        assert scope.get_handle() is first
    with block as second:
        assert second != first
    assert len(recorder.events()) == 4
    with pytest.raises(ScopeError, match="without being entered"):
        block.__exit__(None, None, None)


def test_as_a_decorator_each_call_is_a_scope(recorder):
    @scope.scope("call", ScopeType.Function)
    def double(number, *, plus=0):
        """Doc."""
        return number * 2 + plus

    @scope.scope("coroutine", ScopeType.Function)
    async def ask():
        await asyncio.sleep(0)
        return scope.get_handle().name

    assert (double.__name__, double.__doc__) == ("double", "Doc.")
    assert double(2, plus=1) == 5
    assert double(3) == 6
    assert asyncio.run(ask()) == "coroutine"
    events = recorder.events()
    assert [event.name for event in events] == ["call"] * 4 + ["coroutine"] * 2
    assert len({event.uuid for event in events}) == 3


# ------------------------------------------------------------------------------------------ refused


@pytest.fixture
def strict():
    """This process is strict for the test: what cannot be recorded is refused, not replaced."""
    set_strict(process=True)
    yield
    set_strict(process=False)


def test_a_bad_payload_names_its_path_emits_nothing_and_moves_nothing(recorder, strict):
    root = scope.get_handle()
    for argument, path in (("data", "data"), ("metadata", "metadata"), ("input", "data")):
        with pytest.raises(PayloadError, match=rf"^{path}\.user\[0\].*Unsupported"):
            push(**{argument: {"user": [Unsupported()]}})
        assert scope.get_handle() is root
    with pytest.raises(PayloadError), scope.scope("s", ScopeType.Agent, input=b"bytes"):
        pytest.fail("entered")
    with pytest.raises(PayloadError):
        scope.event("m", data={1: 2})
    handle = push()
    for argument in ("output", "metadata"):
        with pytest.raises(PayloadError):
            scope.pop(handle, **{argument: Unsupported()})
        assert scope.get_handle() is handle
    scope.pop(handle)
    assert len(recorder.events()) == 2


@pytest.mark.parametrize("payload", [2**64, -(2**63) - 1, "\ud800", b"x"])
@pytest.mark.parametrize("argument", ["data", "metadata", "input"])
def test_a_bad_scalar_is_refused_as_a_payload_too(recorder, strict, argument, payload):
    root = scope.get_handle()
    with pytest.raises(PayloadError):
        push(**{argument: payload})
    assert scope.get_handle() is root
    assert recorder.events() == []


def test_a_lone_surrogate_in_a_name_opens_no_scope(recorder, strict):
    root = scope.get_handle()
    with pytest.raises(UnicodeEncodeError):
        push("\ud800")
    with pytest.raises(UnicodeEncodeError):
        scope.event("\ud800")
    assert scope.get_handle() is root
    assert recorder.events() == []


@pytest.mark.parametrize(
    "call",
    [
        lambda: scope.push(3, ScopeType.Agent),
        lambda: scope.push("s", "agent"),
        lambda: scope.push("s", None),
        lambda: scope.push("s", ScopeType.Agent, attributes=1),
        lambda: scope.push("s", ScopeType.Agent, handle="h"),
        lambda: scope.pop(None),
        lambda: scope.pop("h"),
        lambda: scope.event(3),
        lambda: scope.event("m", handle=1),
        lambda: scope.event("m", severity=3),
        lambda: scope.scope("s", "agent").__enter__(),
        lambda: scope.metric("m", None),
        lambda: scope.metric("m", [1]),
        lambda: scope.metric(1, []),
    ],
)
def test_arguments_of_the_wrong_type_are_type_errors(recorder, call):
    root = scope.get_handle()
    with pytest.raises(TypeError):
        call()
    assert scope.get_handle() is root
    assert recorder.events() == []


@pytest.mark.parametrize("schema", [3, {"name": "a"}, {"name": 1, "version": "1"}, []])
def test_a_schema_without_name_and_version_is_refused(recorder, schema):
    with pytest.raises(PayloadError, match="name and version"):
        scope.event("m", data_schema=schema)


def test_a_severity_needs_metadata_to_go_into(recorder):
    with pytest.raises(RuntimeError, match="expected a dict"):
        scope.event("m", severity=LogSeverity.Info, metadata=[1])


def test_a_str_subclass_is_a_name(recorder):
    class Name(str):
        __slots__ = ()

    scope.event(Name("m"))
    scope.pop(scope.push(Name("s"), ScopeType.Agent))
    assert [event.name for event in recorder.events()] == ["m", "s", "s"]


# ---------------------------------------------------------------------------------- nobody listens


def test_while_nobody_listens_marks_check_nothing_and_scopes_keep_the_stack(recorder):
    recorder.listen(0)
    scope.event(3, data=Unsupported(), timestamp="never")
    scope.metric("m", None)
    with scope.scope("s", ScopeType.Agent, data=Unsupported(), metadata={"a": Unsupported()}, timestamp="x") as handle:
        assert scope.get_handle() is handle
        assert handle.data == {"relay_mp.unrecorded": {"type": "Unsupported"}}
        with pytest.raises(ScopeError):
            scope.pop(handle._outer)
    with pytest.raises(ScopeError):
        scope.pop(handle)
    assert scope.get_handle().name == "root"
    assert recorder.events() == []


def test_a_scope_begun_unheard_ends_heard(recorder):
    recorder.listen(0)
    handle = push(metadata={"a": 1})
    recorder.listen(1)
    scope.pop(handle, metadata={"b": 2})
    (end,) = recorder.events()
    assert (end.scope_category, end.metadata) == ("end", {"a": 1, "b": 2})


def test_without_any_session_nothing_raises():
    script = (
        "from relay_mp import scope\n"
        "from relay_mp.types import ScopeType\n"
        "with scope.scope('s', ScopeType.Agent) as h:\n"
        "    scope.event('m', data=object())\n"
        "    assert scope.get_handle() == h\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_importing_the_verbs_imports_no_asyncio_numpy_or_psutil():
    script = (
        "import sys, relay_mp.scope\nprint([name for name in ('asyncio', 'numpy', 'psutil') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------ metrics

COUNTER, UP_DOWN, GAUGE, HISTOGRAM = (
    MetricKind.Counter,
    MetricKind.UpDownCounter,
    MetricKind.Gauge,
    MetricKind.Histogram,
)
U64, I64, F64 = MetricValueType.U64, MetricValueType.I64, MetricValueType.F64


def test_a_metric_is_a_mark_with_every_key_of_every_measurement(recorder):
    measurements = (
        MetricMeasurement("calls", COUNTER, U64, 1, "1", "how many", {"b": [1, 2], "a": "x"}),
        MetricMeasurement("seconds", HISTOGRAM, F64, 0.5, boundaries=[1, 2]),
    )
    scope.metric("usage", measurements, metadata={"m": 1})
    (mark,) = recorder.events()
    assert mark.data == {
        "measurements": [
            {
                "attributes": {"a": "x", "b": [1, 2]},
                "boundaries": None,
                "description": "how many",
                "kind": "counter",
                "name": "calls",
                "unit": "1",
                "value": 1,
                "value_type": "u64",
            },
            {
                "attributes": None,
                "boundaries": [1.0, 2.0],
                "description": None,
                "kind": "histogram",
                "name": "seconds",
                "unit": None,
                "value": 0.5,
                "value_type": "f64",
            },
        ]
    }
    assert mark.data_schema == {"name": "relay_mp.metric_measurements", "version": "1"}
    assert mark.metadata == {"m": 1}


@pytest.mark.parametrize(
    "measurement",
    [
        ("n", GAUGE, F64, 1),
        ("n", GAUGE, I64, -(2**63)),
        ("n", GAUGE, U64, 2**63 - 1),
        ("n", UP_DOWN, I64, -1),
        ("n", HISTOGRAM, F64, -1.0),
        ("n", HISTOGRAM, U64, 1, None, None, None, []),
        ("a" * 255, COUNTER, U64, 1),
        ("a-b/c.d_e", COUNTER, U64, 1, ""),
        ("n", GAUGE, F64, 1.0, None, None, {"a": [True, False], "b": 1.5, "c": -(2**63)}),
    ],
)
def test_measurements_that_hold_together_pass(recorder, measurement):
    scope.metric("m", [MetricMeasurement(*measurement)])
    assert len(recorder.events()) == 1


@pytest.mark.parametrize(
    ("measurement", "what"),
    [
        (("n", COUNTER, U64, -1), "value"),
        (("n", COUNTER, I64, 1), "value_type i64"),
        (("n", COUNTER, F64, -1.0), "only goes up"),
        (("n", GAUGE, U64, 1.0), "value"),
        (("n", GAUGE, U64, 2**63), "value"),
        (("n", GAUGE, I64, 1.5), "value"),
        (("n", GAUGE, I64, True), "value"),
        (("n", GAUGE, F64, True), "value"),
        (("n", GAUGE, F64, float("nan")), "value"),
        (("n", GAUGE, F64, float("inf")), "value"),
        (("n", GAUGE, F64, 10**400), "value"),
        (("n", GAUGE, F64, "1"), "value"),
        (("n", GAUGE, F64, None), "value"),
        (("n", UP_DOWN, U64, 1), "value_type u64"),
        (("n", HISTOGRAM, I64, 1), "value_type i64"),
        (("", COUNTER, U64, 1), "name"),
        (("1a", COUNTER, U64, 1), "name"),
        (("a b", COUNTER, U64, 1), "name"),
        (("é", COUNTER, U64, 1), "name"),
        (("a" * 256, COUNTER, U64, 1), "name"),
        (("n\n", COUNTER, U64, 1), "name"),
        (("n", COUNTER, U64, 1, "m" * 64), "unit"),
        (("n", COUNTER, U64, 1, "µs"), "unit"),
        (("n", COUNTER, F64, 1.0, None, None, None, [1.0]), "boundaries"),
        (("n", HISTOGRAM, F64, 1.0, None, None, None, [2.0, 1.0]), "boundaries"),
        (("n", HISTOGRAM, F64, 1.0, None, None, None, [1.0, 1.0]), "boundaries"),
        (("n", HISTOGRAM, F64, 1.0, None, None, None, [float("nan")]), "boundaries"),
        (("n", GAUGE, F64, 1.0, None, None, {"a": ["x", 1]}), "one type"),
        (("n", GAUGE, F64, 1.0, None, None, {"a": [1, 2.5]}), "one type"),
        (("n", GAUGE, F64, 1.0, None, None, {"a": None}), "attributes"),
        (("n", GAUGE, F64, 1.0, None, None, {"a": {"b": 1}}), "attributes"),
        (("n", GAUGE, F64, 1.0, None, None, {"a": []}), "empty list"),
        (("n", GAUGE, F64, 1.0, None, None, {"a": [[1]]}), "attributes"),
        (("n", GAUGE, F64, 1.0, None, None, {"a": 2**63}), "attributes"),
        (("n", GAUGE, F64, 1.0, None, None, {"a": float("nan")}), "attributes"),
        (("n", GAUGE, F64, 1.0, None, None, {" ": 1}), "key"),
        (("n", GAUGE, F64, 1.0, None, None, {1: 2}), "key"),
        (("n", GAUGE, F64, 1.0, None, None, [1]), "attributes"),
    ],
)
def test_one_bad_measurement_refuses_all_and_says_which(recorder, strict, measurement, what):
    good = MetricMeasurement("good", GAUGE, F64, 1.0)
    with pytest.raises(PayloadError, match=r"^measurements\[1\]") as caught:
        scope.metric("m", [good, MetricMeasurement(*measurement)])
    assert what in str(caught.value)
    assert recorder.events() == []


def test_no_measurement_is_refused_and_a_generator_will_do(recorder):
    with pytest.raises(PayloadError, match="at least one"):
        scope.metric("m", [])
    scope.metric("m", (MetricMeasurement("n", GAUGE, F64, number) for number in range(3)))
    assert len(recorder.events()[0].data["measurements"]) == 3


@pytest.mark.parametrize(
    ("other", "agrees"),
    [
        (("N", GAUGE, F64, 2.0, "ms"), True),
        (("n", GAUGE, F64, 2.0, "ms", "other", {"a": 2}), True),
        (("N", GAUGE, U64, 2, "ms"), False),
        (("n", COUNTER, F64, 2.0, "ms"), False),
        (("n", GAUGE, F64, 2.0, "s"), False),
    ],
)
def test_measurements_of_one_name_agree(recorder, other, agrees):
    pair = [MetricMeasurement("n", GAUGE, F64, 1.0, "ms"), MetricMeasurement(*other)]
    if agrees:
        scope.metric("m", pair)
    else:
        with pytest.raises(PayloadError, match=r"measurements\[1\].*measurements\[0\]"):
            scope.metric("m", pair)
