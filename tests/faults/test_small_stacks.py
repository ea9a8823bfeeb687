"""Threads whose C stack is small: what nests is recorded as far as there is room, and read or refused."""

import json

import pytest

SMALL_STACK = """
import sys, threading
import relay_mp
from relay_mp import ScopeType, scope, subscribers

kib, depth, dispatches = (int(text) for text in sys.argv[1:])
if dispatches:
    threading.stack_size(kib << 10)

def nested(depth):
    value = 1
    for level in range(depth):
        value = {"k": value} if level % 2 else [value]
    return value

def run(work):
    threading.stack_size(kib << 10)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

value, events = nested(depth), []
session = relay_mp.session(strict=STRICT)
subscribers.register("s", events.append)
WORK
"""


@pytest.fixture
def on_small_stack(run_script):
    """Runs `run(function)` and what else there is on a thread of so many KiB; gives what it prints, as JSON."""

    def on_small_stack(work, kib, depth, *, dispatches=False, strict=False):
        script = SMALL_STACK.replace("WORK", work).replace("STRICT", str(strict))
        return json.loads(run_script(script, kib, depth, int(dispatches)).stdout.splitlines()[-1])

    return on_small_stack


EMITS = """
run(lambda: scope.event("e", data=value, metadata={"n": [value]}))
subscribers.flush()
import json
levels, found = 0, events[0].data
while found != 1 and "relay_mp.cut" not in found:
    levels, found = levels + 1, found["k"] if isinstance(found, dict) else found[0]
print(json.dumps([levels, found]))
"""


@pytest.mark.parametrize("depth", [8, 20, 40, 60, 100, 128, 129, 1000])
@pytest.mark.parametrize("kib", [32, 64, 1024])
def test_a_nested_payload_is_recorded_as_far_as_the_stack_has_room(on_small_stack, kib, depth):
    levels, rest = on_small_stack(EMITS, kib, depth)
    if rest == 1:
        assert levels == depth
    else:
        assert rest == {"relay_mp.cut": {"depth": levels}}
        assert 8 <= levels <= min(depth, 128)
    if kib == 1024:
        assert levels == min(depth, 128)


def test_in_strict_mode_the_error_says_that_the_stack_is_small(on_small_stack):
    work = """
import json
def work():
    try:
        scope.event("e", data=value)
    except relay_mp.PayloadError as error:
        print(json.dumps(str(error)))
run(work)
"""
    assert "this thread's stack has no room for more: pass a flatter value, or raise threading.stack_size" in (
        on_small_stack(work, 32, 100, strict=True)
    )


@pytest.mark.parametrize("depth", [60, 128])
@pytest.mark.parametrize(
    "emit",
    [
        'scope.event("e", data={"text": "x" * 3_000_000, "nested": value})',
        'scope.pop(scope.push("s", ScopeType.Agent, data=value, metadata=value, input=value), output=value)',
    ],
    ids=["above the limit", "scope"],
)
def test_other_payloads_too(on_small_stack, emit, depth):
    work = f"run(lambda: {emit})\nsubscribers.flush()\nimport json\nprint(json.dumps(len(events)))"
    assert on_small_stack(work, 32, depth) >= 1


@pytest.mark.parametrize("depth", [20, 60, 128])
@pytest.mark.parametrize("read", ["data", "to_dict()", "to_json()", "to_json_line()"])
def test_a_reader_with_a_small_stack_has_the_payload_or_an_error(on_small_stack, read, depth):
    work = f"""
import json
scope.event("e", data=value)
subscribers.flush()
found = []
def work():
    try:
        events[0].{read}
        found.append("read")
    except relay_mp.RecordError as error:
        found.append("no room" if "stack has no room" in str(error) else str(error))
run(work)
print(json.dumps(found))
"""
    assert on_small_stack(work, 32, depth) in (["read"], ["no room"])
    assert on_small_stack(work, 256, depth) == ["read"]


def test_a_dispatcher_with_a_small_stack_goes_on(on_small_stack):
    work = """
import json
subscribers.register("reads", lambda event: events.append(event.to_dict()))
scope.event("e", data=value)
scope.event("last", data=1)
subscribers.flush()
print(json.dumps(len(events)))
"""
    assert on_small_stack(work, 32, 1000, dispatches=True) >= 3


def test_a_hostile_payload_is_refused_before_it_uses_up_the_stack(run_script):
    out = run_script(
        """
import threading
from relay_mp._records.payloads import read_payload
from relay_mp.errors import RecordError
def work():
    for head in b"\\x91", b"\\x81\\xa1k":
        try:
            read_payload(head * 250 + b"\\x01")
        except RecordError as error:
            print(str(error).partition("which ")[2].partition(",")[0])
threading.stack_size(32 << 10)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    ).stdout
    assert out == "this thread's stack has no room; raise threading.stack_size\n" * 2
