"""Bad input gets a clear error and loses nothing.

Each case: which error; that its message says what was found, what was expected or what to do; and that
the events before and after it arrive, the current scope is what it was, and nothing of the bad one got
into the stream.
"""

import os
import pickle
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

import pytest

import relay_mp
from relay_mp import (
    MetricKind,
    MetricMeasurement,
    MetricValueType,
    PropagationContext,
    ScopeAttributes,
    ScopeType,
    scope,
    scope_local,
    subscribers,
)
from relay_mp._native import core
from relay_mp._native.segments import Segment

NOW = datetime.now(UTC)
UUID = "01890a5d-ac96-774b-bcce-b302099a8057"


class Foo:
    pass


@dataclass
class Card:
    number: object


@pytest.fixture
def refuses(session, seen):
    """`refuses(error, *parts, call)`: it raises that error with those parts in its message, and harms nothing."""

    def check(error, parts, call):
        scope.event("before")
        current = scope.get_handle()
        with pytest.raises(error) as caught:
            call()
        message = str(caught.value)
        assert [part for part in parts if part not in message] == [], message
        assert scope.get_handle() == current
        scope.event("after")
        assert subscribers.flush().lost == 0
        assert [event.name for event in seen if event.name in ("before", "after", "bad")] == ["before", "after"]
        return caught.value

    return check


def parametrize(*cases):
    return pytest.mark.parametrize(("error", "parts", "call"), cases)


# ---- wrong types ----


@parametrize(
    (TypeError, ["name is an int; expected str"], lambda: scope.event(3)),
    (TypeError, ["name is a bytes; expected str"], lambda: scope.push(b"bad", ScopeType.Agent)),
    (TypeError, ["name is None; expected str"], lambda: scope.metric(None, [])),
    (TypeError, ["scope_type is a str; expected ScopeType, write ScopeType.Agent"], lambda: scope.push("bad", "agent")),
    (TypeError, ["scope_type is a str; expected ScopeType, write ScopeType.Agent"],
     lambda: scope.scope("bad", "Agent").__enter__()),
    (TypeError, ["scope_type is a LogSeverity; expected ScopeType", "ScopeType.Agent, ScopeType.Function"],
     lambda: scope.push("bad", relay_mp.LogSeverity.Info)),
    (TypeError, ["scope.scope() was given no scope_type", "ScopeType.Agent, ScopeType.Function",
                 "scope.scope('search', ScopeType.Tool)"], lambda: scope.scope("bad")),
    (TypeError, ["scope.push() was given no scope_type"], lambda: scope.push(name="bad")),
    (TypeError, ["scope.event() was given 2 arguments by position", "scope.event('found', data={...})"],
     lambda: scope.event("bad", {"a": 1})),
    (TypeError, ["scope.scope() was given 3 arguments by position", "input={...}"],
     lambda: scope.scope("bad", ScopeType.Agent, {"a": 1})),
    (TypeError, ["scope.push() was given 3 arguments by position"],
     lambda: scope.push("bad", ScopeType.Agent, {"a": 1})),
    (TypeError, ["event() takes exactly 1 positional argument (0 given)"], lambda: scope.event()),  # noqa: PLW0108
    (TypeError, ["unexpected keyword argument", "date"], lambda: scope.event("bad", date=1)),
    (TypeError, ["attributes is an int; expected ScopeAttributes", "ScopeAttributes(ScopeAttributes.PARALLEL)"],
     lambda: scope.push("bad", ScopeType.Agent, attributes=ScopeAttributes.PARALLEL)),
    (TypeError, ["handle is a str; expected ScopeHandle"], lambda: scope.event("bad", handle=UUID)),
    (TypeError, ["handle is a str; expected ScopeHandle"], lambda: scope.pop("bad")),
    (TypeError, ["handle is an int; expected ScopeHandle"], lambda: scope.push("bad", ScopeType.Agent, handle=3)),
    (TypeError, ["severity is a str; expected LogSeverity"], lambda: scope.event("bad", severity="INFO")),
    (TypeError, ["measurements[0] is an int; expected MetricMeasurement"], lambda: scope.metric("bad", [3])),
    (ValueError, ["data_schema is {'name': 'n'}; expected a dict with string name and version"],
     lambda: scope.event("bad", data_schema={"name": "n"})),
    (RuntimeError, ["metadata is a list; expected a dict where a severity is given"],
     lambda: scope.event("bad", metadata=[1], severity=relay_mp.LogSeverity.Info)),
    (TypeError, ["stack is a str; expected ScopeStack"], lambda: relay_mp.set_thread_scope_stack("x")),
    (TypeError, ["callback is an int; expected a callable that takes an event", "package.module:attribute"],
     lambda: subscribers.register("x", 3)),
    (TypeError, ["name is an int; expected str"], lambda: subscribers.register(3, print)),
    (RuntimeError, ["'seen' is already registered globally; deregister it first"],
     lambda: subscribers.register("seen", print)),
    (RuntimeError, ["'no_such:x'", "No module named 'no_such'"], lambda: subscribers.register("x", "no_such:x")),
    (RuntimeError, ["'builtins'", 'expected "package.module:attribute"'],
     lambda: subscribers.register("x", "builtins")),
    (TypeError, ["scope_handle is None; expected ScopeHandle"],
     lambda: scope_local.register_subscriber(None, "x", print)),
)  # fmt: skip
def test_wrong_types(refuses, error, parts, call):
    refuses(error, parts, call)


@parametrize(
    (ValueError, ["counter only goes up", "measurements[0].value is -1"], -1),
    (ValueError, ["measurements[0].value is 'x'", "expected"], "x"),
)
def test_wrong_measurements(refuses, error, parts, call):
    def emit():
        scope.metric("bad", [MetricMeasurement("n", MetricKind.Counter, MetricValueType.F64, call)])

    if isinstance(call, str):
        with pytest.raises((TypeError, ValueError)):
            emit()
    else:
        refuses(error, parts, emit)


# ---- payloads, in strict mode; else they are replaced, see test_program_first.py ----

strict = pytest.mark.parametrize("session", [{"strict": True}], indirect=True, ids=["strict"])


@strict
@parametrize(
    (relay_mp.PayloadError, ["data.user.created: unsupported type Foo"],
     lambda: scope.event("bad", data={"user": {"created": Foo()}})),
    (ValueError, ["data[1][0]: unsupported type Foo"], lambda: scope.event("bad", data=[1, [Foo()]])),
    (ValueError, ["metadata.a.number: unsupported type object"],
     lambda: scope.event("bad", metadata={"a": Card(object())})),
    (ValueError, ["data.key"], lambda: scope.event("bad", data={"key": {3: 1}})),
    (ValueError, ["data.n", str(1 << 64)], lambda: scope.event("bad", data={"n": 1 << 64})),
    (ValueError, ["data.text"], lambda: scope.event("bad", data={"text": "\ud800"})),
    (ValueError, ["data.raw: unsupported type bytes"], lambda: scope.event("bad", data={"raw": b"x"})),
    (ValueError, ["data.f: unsupported type function"], lambda: scope.event("bad", data={"f": lambda: 0})),
    (ValueError, ["data: unsupported type Foo"], lambda: scope.push("bad", ScopeType.Agent, input=Foo())),
    (ValueError, ["data.x: unsupported type Foo"], lambda: scope.push("bad", ScopeType.Agent, data={"x": Foo()})),
    (ValueError, ["metadata.x: unsupported type Foo"],
     lambda: scope.push("bad", ScopeType.Agent, metadata={"x": Foo()})),
    (UnicodeEncodeError, ["surrogates not allowed"], lambda: scope.event("bad\ud800")),
    (UnicodeEncodeError, ["surrogates not allowed"], lambda: scope.push("bad\ud800", ScopeType.Agent)),
)  # fmt: skip
def test_unserialisable_payloads_name_the_path(refuses, error, parts, call):
    refuses(error, parts, call)


@strict
def test_a_payload_that_holds_itself(refuses):
    loop = {}
    loop["again"] = [loop]
    refuses(relay_mp.PayloadError, ["data.again[0]"], lambda: scope.event("bad", data=loop))


@strict
def test_a_bad_output_leaves_the_scope_open(refuses, seen):
    handle = scope.push("s", ScopeType.Agent)
    refuses(relay_mp.PayloadError, ["data.x: unsupported type Foo"], lambda: scope.pop(handle, output={"x": Foo()}))
    scope.pop(handle, output="good")
    subscribers.flush()
    assert [event.data for event in seen if event.name == "s"] == [None, "good"]


# ---- timestamps ----


NAIVE = datetime(2026, 1, 2, 3, 4, 5)


@parametrize(
    (ValueError, ["2026-01-02T03:04:05 is naive", "datetime.now(timezone.utc)"],
     lambda: scope.event("bad", timestamp=NAIVE)),
    (ValueError, ["is naive; expected a timezone-aware datetime"],
     lambda: scope.push("bad", ScopeType.Agent, timestamp=NAIVE)),
    (ValueError, ["is naive"], lambda: scope.metric("bad", [], timestamp=NAIVE)),
    (ValueError, ["is naive"], lambda: scope.scope("bad", ScopeType.Agent, end_timestamp=NAIVE).__enter__()),
    (TypeError, ["timestamp is a str; expected a timezone-aware datetime"],
     lambda: scope.event("bad", timestamp=NOW.isoformat())),
    (TypeError, ["timestamp is a float"], lambda: scope.event("bad", timestamp=NOW.timestamp())),
)  # fmt: skip
def test_naive_timestamps(refuses, error, parts, call):
    refuses(error, parts, call)


def test_a_naive_end_leaves_the_scope_open(refuses, seen):
    handle = scope.push("s", ScopeType.Agent)
    refuses(ValueError, ["is naive"], lambda: scope.pop(handle, timestamp=NAIVE))
    scope.pop(handle, timestamp=datetime.now(timezone(timedelta(hours=2))))
    subscribers.flush()
    assert len([event for event in seen if event.name == "s"]) == 2


# ---- pops ----


def test_popped_twice(refuses):
    handle = scope.push("s", ScopeType.Agent)
    scope.pop(handle)
    refuses(
        relay_mp.ScopeError, [f"cannot pop scope 's' ({handle.uuid}): it has ended already"], lambda: scope.pop(handle)
    )


def test_popped_out_of_order(refuses, seen):
    outer = scope.push("outer", ScopeType.Agent)
    inner = scope.push("inner", ScopeType.Agent)
    refuses(
        RuntimeError,
        ["cannot pop scope 'outer'", f"scope 'inner' ({inner.uuid}), pushed inside it, is still open; pop that first"],
        lambda: scope.pop(outer),
    )
    scope.pop(inner)
    scope.pop(outer)
    subscribers.flush()
    assert len([event for event in seen if event.name in ("outer", "inner")]) == 4


def test_the_root(refuses):
    refuses(
        RuntimeError, ["cannot pop 'root'", "it is a root, which has no end"], lambda: scope.pop(scope.get_handle())
    )


def test_a_foreign_handle(refuses):
    handle = scope.push("s", ScopeType.Agent)
    copy = pickle.loads(pickle.dumps(handle))
    said = ["scope 's'", handle.uuid, "another process pushed it, or this is a copy; here it can only be a parent"]
    refuses(RuntimeError, ["cannot pop", *said], lambda: scope.pop(copy))
    scope.pop(handle)


def test_a_foreign_handle_has_no_subscribers(refuses):
    handle = scope.push("s", ScopeType.Agent)
    copy = pickle.loads(pickle.dumps(handle))
    refuses(
        RuntimeError,
        ["cannot register a subscriber on scope 's'", "another process pushed it"],
        lambda: scope_local.register_subscriber(copy, "x", print),
    )
    scope.pop(handle)


# ---- propagation ----


@parametrize(
    (ValueError, ["propagation JSON '{' is malformed"], lambda: PropagationContext.from_json("{")),
    (ValueError, ["propagation JSON is '[1]'; expected an object"], lambda: PropagationContext.from_json("[1]")),
    (ValueError, ["version is", "missing", "; expected 1"], lambda: PropagationContext.from_json("{}")),
    (ValueError, ["version of the propagation context is 2; expected 1"],
     lambda: PropagationContext.from_json(f'{{"version":2,"parent_uuid":"{UUID}"}}')),
    (ValueError, ["parent_uuid is 'zz'; expected a UUID of 32 hexadecimal digits"],
     lambda: PropagationContext.from_json('{"version":1,"parent_uuid":"zz"}')),
    (ValueError, ["parent_uuid is", "3", "; expected a UUID as a string"],
     lambda: PropagationContext.from_json('{"version":1,"parent_uuid":3}')),
    (ValueError, ["nil UUID, which names no scope"], lambda: PropagationContext("0" * 32)),
    (ValueError, ["names a key twice"],
     lambda: PropagationContext.from_json(f'{{"version":1,"version":1,"parent_uuid":"{UUID}"}}')),
    (ValueError, ["has 9000 characters; expected at most 8192"], lambda: PropagationContext.from_json("x" * 9000)),
    (TypeError, ["propagation JSON is a bytes; expected str"], lambda: PropagationContext.from_json(b"{}")),
    (ValueError, ["traceparent is 'nonsense'; expected 00-<32 digits>-<16 digits>-<2 digits>"],
     lambda: PropagationContext.from_traceparent("nonsense")),
    (ValueError, ["all zero"], lambda: PropagationContext.from_traceparent(f"00-{'0' * 32}-{'1' * 16}-01")),
    (ValueError, ["traceparent is 'ff-"],
     lambda: PropagationContext.from_traceparent(f"ff-{'1' * 32}-{'1' * 16}-01")),
    (TypeError, ["traceparent is None; expected str"], lambda: PropagationContext.from_traceparent(None)),
    (ValueError, ["has no trace id; use capture_traceparent()"], lambda: PropagationContext(UUID).to_traceparent()),
    (RuntimeError, ["no scope is open; push one first"], relay_mp.capture_traceparent),
    (TypeError, ["context is a str; expected PropagationContext"],
     lambda: relay_mp.create_scope_stack_from_propagation("{}")),
)  # fmt: skip
def test_malformed_propagation(refuses, error, parts, call):
    refuses(error, parts, call)


# ---- sessions and segments ----


def test_a_session_inside_a_session(refuses, session):
    refuses(
        relay_mp.SessionError,
        ["a session inside a session", f"this process owns {session.path}", "close that first, or use it"],
        relay_mp.session,
    )


def test_attaching_while_owning(refuses, session):
    refuses(
        relay_mp.SessionError,
        [f"this process owns the session of {session.path}", "close it before attaching"],
        lambda: relay_mp.attach("/dev/shm/other"),
    )


def make_segment(path):
    Segment.create(
        path,
        session_id="x",
        ring_bytes=65536,
        max_producers=4,
        max_event_bytes=8192,
        subscriptions_bytes=4096,
        configuration_bytes=4096,
        block_timeout_ns=0,
        stall_timeout_ns=0,
        drop_when_full=True,
        dispatcher_is_process=False,
    ).close()


def give_away(path):
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(path, 12345, -1)


def another_version(path):
    with open(path, "r+b") as file:
        file.seek(8)
        file.write(struct.pack("<I", core.LAYOUT_VERSION + 1))


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (os.unlink, ["there is no segment", "its session has ended, or never was on this machine"]),
        (give_away, ["belongs to another user; only segments of the own uid are attached"]),
        (lambda path: os.truncate(path, 5000), ["is shorter than its header says; it was truncated"]),
        (another_version, ["this relay_mp has another layout version", "use one relay_mp version in all processes"]),
    ],
    ids=["missing", "foreign", "truncated", "of another version"],
)
def test_attaching_to_a_segment_that_is_no_good(run_script, tmp_path, damage, parts):
    """In a worker of a session, which it leaves only for another one that is good."""
    path = str(tmp_path / "segment")
    make_segment(path)
    damage(path)
    found = []
    with relay_mp.session() as session:
        subscribers.register("x", lambda event: found.append(event.name))
        out = run_script(
            """
import sys
import relay_mp
from relay_mp import scope
scope.event("before")
try:
    relay_mp.attach(sys.argv[1])
except relay_mp.SegmentError as error:
    print(error)
scope.event("after")
""",
            path,
        ).stdout
        subscribers.flush()
        assert session.stats().lost == 0
    assert [part for part in [path, *parts] if part not in out] == [], out
    assert found == ["before", "after"]


def test_a_ring_too_large_for_the_file_system(small_file_system):
    with pytest.raises(relay_mp.SegmentError) as caught:
        relay_mp.session(directory=str(small_file_system), strict=True)
    message = str(caught.value)
    assert f"no room for {small_file_system}/relay_mp-" in message
    assert "make the ring smaller (ring_bytes, RELAY_MP_RING_BYTES) or free shared memory" in message
    assert os.listdir(small_file_system) == []
    assert "RELAY_MP_SESSION" not in os.environ
    found = []
    with relay_mp.session(directory=str(small_file_system), ring_bytes=65536, max_producers=8):
        subscribers.register("x", lambda event: found.append(event.name))
        scope.event("after")
    assert found == ["after"]


def test_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(relay_mp.SegmentError, match="there is no such directory; expected one of a memory file system"):
        relay_mp.session(directory=str(tmp_path / "none"), strict=True)


def test_a_registration_that_starts_no_session_says_why(monkeypatch):
    monkeypatch.setenv("RELAY_MP_RING_BYTES", "many")
    with pytest.raises(relay_mp.SessionError, match="RELAY_MP_RING_BYTES='many' is not a whole number"):
        subscribers.register("x", print)


# ---- damaged records ----


def test_a_record_that_is_no_event_is_skipped_and_told(session, seen, caplog):
    scope.event("before")
    core.emit(7, core.uuid7(), None, None, 0, "bad", None, 0, None, None, None, None, None)
    scope.event("after")
    assert subscribers.flush().lost == 0
    assert [event.name for event in seen] == ["before", "after"]
    assert [record for record in caplog.records if "is not an event; it is skipped" in record.getMessage()]


def test_a_malformed_request_is_an_error_of_its_sender(session, seen):
    scope.event("before")
    for request in ({}, {"scope": "zz"}, {"scope": 3}, [], None, {"scope": None, "name": 3}):
        core.emit_control("register", request)
    core.emit_control("nonsense", {"scope": None})
    scope.event("after")
    assert subscribers.flush().lost == 0
    assert [event.name for event in seen] == ["before", "after"]
