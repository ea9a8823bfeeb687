"""The mapping outlives every emit in progress, whatever ends the session meanwhile; and who has left keeps no slots."""

import threading

import pytest

import relay_mp
from relay_mp import scope, subscribers

CLOSED_IN_GARBAGE_COLLECTION = """
import gc, sys
import relay_mp
from relay_mp import ScopeType, scope, subscribers
from relay_mp._session.membership import current_session

armed = False

class App:
    '''An application's object in a cycle, which ends its session when it is collected.'''

    def __init__(self):
        self.me = self

    def __del__(self):
        global armed
        if armed:
            armed = False
            relay_mp.shutdown()
            print("closed")

class Odd:
    __slots__ = ()

handle = relay_mp.session(ring_bytes=1 << 20)
subscribers.register("s", lambda event: None)
scope.event("first")
segment = current_session()._segment
payload, name, deep = "x" * 200_000, "n" * 200_000, [1]
for _ in range(200):
    deep = [deep]
mixed = {"odd": Odd(), "text": "\\ud800", 5: payload, "big": 1 << 99, "list": [payload] * 3}
gc.disable()
App()
kept = [{} for _ in range(1000)]  # no dict is left on the free list
gc.set_threshold(1, 1, 1)
armed = True
gc.enable()
WHAT
armed = False
gc.disable()
print("survived")
"""

EMITS = {
    "a text above the limit": "scope.event('big', data=payload)",
    "a name above the limit": "scope.event(name)",
    "many payloads above the limit": "scope.event('big', data=mixed, metadata=mixed)",
    "values that are replaced": "scope.event('odd', data={'odd': Odd(), 'text': '\\ud800', 'big': 1 << 99})",
    "a payload that is too deep": "scope.event('deep', data=deep)",
    "a scope with large payloads": "scope.pop(scope.push('a', ScopeType.Agent, input=payload), output=mixed)",
    "the tables of the segment": "[segment.load_configuration() or segment.load_subscriptions() for _ in range(50)]",
    "the newest answer": "[segment.read_reply(1) for _ in range(50)]",
    "a request": "subscribers.register('another', lambda event: None)",
}


@pytest.mark.parametrize("what", EMITS.values(), ids=EMITS)
def test_a_session_that_garbage_collection_ends_inside_an_emit_is_no_crash(run_script, what):
    script = CLOSED_IN_GARBAGE_COLLECTION.replace(
        "WHAT", f"try:\n    {what}\nexcept (relay_mp.RelayError, TypeError) as error:\n    print(type(error).__name__)"
    )
    assert run_script(script).stdout.splitlines()[-1] == "survived"


def test_what_is_emitted_while_garbage_collection_ends_the_session_is_outside_of_it(run_script):
    script = CLOSED_IN_GARBAGE_COLLECTION.replace("WHAT", EMITS["a text above the limit"])
    assert run_script(script).stdout.splitlines() == ["closed", "survived"]


DETACHES = """
import os, sys, threading
import relay_mp
from relay_mp import scope
from relay_mp._native import core
from relay_mp._native.segments import Segment

path, cycles = sys.argv[1], int(sys.argv[2])
threads = 3
step, done = threading.Barrier(threads + 1), threading.Barrier(threads + 1)

def work():
    for _ in range(cycles):
        step.wait(60)
        scope.event("m")
        done.wait(60)
    step.wait(60)

workers = [threading.Thread(target=work) for _ in range(threads)]
for worker in workers:
    worker.start()
for _ in range(cycles):
    session = relay_mp.attach(relay_mp.SessionHandle(path))
    scope.event("of the main thread")
    step.wait(60)
    done.wait(60)
    session.close()
segment = Segment.attach(path)
states = [segment.slot_state(slot) for slot in range(1, len(segment.slot_statuses()))]
mine = [state & 0xFF for state in states if state >> 32 == os.getpid()]
print(mine.count(core.SLOT_LIVE), mine.count(core.SLOT_EXITED))
segment.close()
step.wait(60)  # until here the threads have lived
for worker in workers:
    worker.join()
"""


@pytest.mark.parametrize("cycles", [1, 1000])
def test_a_detach_gives_back_the_slots_of_all_threads(session, seen, run_script, cycles):
    """Of those that go on living too: a thousand cycles take no more slots than threads."""
    out = run_script(DETACHES, session.path, cycles, environment={"RELAY_MP_SESSION": ""}).stdout
    assert out == "0 4\n"
    subscribers.flush()
    assert len(seen) == 4 * cycles
    assert session.stats().lost == 0


WAITS = """
import sys, threading, time
import relay_mp
from relay_mp import scope
from relay_mp._native import core
from relay_mp._native.segments import Segment

session = relay_mp.attach(relay_mp.SessionHandle(sys.argv[1]))
watched = Segment.attach(sys.argv[1])
emitted = []

def fill():
    while session.is_open:
        scope.event("m", data="x" * 500)
        emitted.append(1)

waiting = threading.Thread(target=fill)
waiting.start()
seen, deadline = -1, time.monotonic() + 60
while len(emitted) != seen or not seen:  # until it waits for space
    assert time.monotonic() < deadline
    seen = len(emitted)
    time.sleep(0.2)
session.close()
waiting.join(60)
print(waiting.is_alive(), watched.losses()[0], len(emitted) - seen)
watched.close()
"""


def test_a_thread_that_waits_for_space_keeps_mapping_and_slot_until_it_is_done(run_script):
    """Another thread leaves the session meanwhile: the event is written or, as here, counted as lost."""
    leave = threading.Event()
    with relay_mp.session(ring_bytes=1 << 16, block_timeout_seconds=60) as session:
        subscribers.register("slow", lambda event: leave.wait(60))
        scope.event("held")
        try:
            out = run_script(WAITS, session.path, environment={"RELAY_MP_SESSION": ""}).stdout
        finally:
            leave.set()
        assert out == "False 1 1\n"
        subscribers.flush()
        assert session.stats().causes == {"full": 1}
        assert session.stats().delivered == session.stats().emitted - 1
